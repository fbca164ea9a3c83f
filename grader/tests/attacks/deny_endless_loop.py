# Computes for ever.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the child's CPU clock, read from outside.
def double(x):
    while True:
        pass
