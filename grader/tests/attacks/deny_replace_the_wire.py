# Puts another file in the wire's place.
# 01_numbers: double crashed, mean passed
# Stopped by session: an end of the wire is the end of the process.
import os


def double(x):
    null = os.open("/dev/null", os.O_RDWR)
    for fd in range(3, 64):
        if fd != null:
            os.dup2(null, fd)
    return 2 * x
