# Returns an iterator whose second item never comes.
# 03_calls: call_twice passed, noise passed, halve passed, count_up timeout
# Stopped by clock: who is not even runnable may do nothing for some seconds at most.
import time


def count_up(n):
    yield 0
    time.sleep(10**6)
