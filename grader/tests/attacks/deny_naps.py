# Sleeps for ever in short naps, and so is never idle for long.
# 01_numbers: double timeout, mean passed
# Stopped by clock: idle time is summed up.
import time


def double(x):
    while True:
        time.sleep(0.2)
