# Waits for a lock that it holds itself.
# 01_numbers: double timeout, mean passed
# Stopped by clock: who is not even runnable may do nothing for some seconds at most.
import threading

lock = threading.Lock()


def double(x):
    with lock, lock:
        return 2 * x
