# Computes for ever in C, where no signal handler of Python's runs.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the child's CPU clock, read from outside, and a signal that cannot be caught.
import itertools


def double(x):
    return sum(itertools.repeat(0))
