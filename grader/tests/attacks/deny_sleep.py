# Sleeps for ever, which takes no computing time.
# 01_numbers: double timeout, mean passed
# Stopped by clock: who is not even runnable may do nothing for some seconds at most.
import time


def double(x):
    time.sleep(10**6)
