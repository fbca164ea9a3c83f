# Computes a power that has more digits than there is time, in C.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the child's CPU clock, read from outside, and a signal that cannot be caught.
def double(x):
    return pow(3, 10**8)
