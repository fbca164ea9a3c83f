# Fills the memory with one array.
# 01_numbers: double memory, mean passed
# Stopped by rlimits: the limit on address space.
import numpy


def double(x):
    return numpy.ones(1 << 36)
