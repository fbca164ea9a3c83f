# Returns the number in a tuple, a list and a dictionary.
# 01_numbers: double wrong, mean passed
# Stopped by comparison: the type is compared before the value.
import itertools

kinds = itertools.cycle([lambda value: (value,), lambda value: [value], lambda value: {"value": value}])


def double(x):
    return next(kinds)(2 * x)
