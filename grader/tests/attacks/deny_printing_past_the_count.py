# Prints without end, past the agent's count.
# 01_numbers: double timeout, mean passed
# Stopped by clock: what is printed goes to /dev/null, and the clock runs.
import os


def double(x):
    while True:
        os.write(1, bytes(1 << 16))
