# Matches a regular expression that takes longer than the universe has.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the child's CPU clock, read from outside, and a signal that cannot be caught.
import re


def double(x):
    return re.match("(a*)*(a*)*b", "a" * 60)
