# Starts threads without end.
# 01_numbers: double error, mean passed
# Stopped by rlimits: the limit on address space or on threads.
import threading
import time


def double(x):
    while True:
        threading.Thread(target=time.sleep, args=(600,)).start()
