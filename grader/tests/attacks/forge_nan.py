# Returns NaN and infinities, which slip through careless comparisons.
# 01_numbers: double wrong, mean wrong
# Stopped by comparison: the comparison asks for what is near, never for the absence of what is far.
import math


def double(x):
    return math.nan


def mean(xs):
    return math.inf if xs else math.nan
