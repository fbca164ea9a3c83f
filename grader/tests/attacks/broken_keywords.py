# Takes its argument by another way only.
# 01_numbers: double error, mean passed
# Stopped by agent: a call that does not fit is an error.
def double(*, x):
    return 2 * x
