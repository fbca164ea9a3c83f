# Stops the clock, and then computes for ever.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the kernel's clock is read from outside.
import time

time.time = time.monotonic = time.perf_counter = time.process_time = time.thread_time = lambda: 0.0
time.clock_gettime = lambda clock: 0.0


def double(x):
    while True:
        pass
