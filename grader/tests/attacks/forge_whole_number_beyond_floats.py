# Returns a whole number that no float can hold, so that the grader's own arithmetic overflows.
# 01_numbers: double wrong, mean wrong
# Stopped by comparison: comparisons and the search for misconceptions take an overflow for a difference.
def double(x):
    return 10**400


def mean(xs):
    return -(10**4000)
