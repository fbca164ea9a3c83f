# Leaves a daemon behind by a double fork, so that it outlives the child.
# 01_numbers: double error, mean passed
# Stopped by seccomp: no process can be made.
import os
import time


def double(x):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    return 2 * x
