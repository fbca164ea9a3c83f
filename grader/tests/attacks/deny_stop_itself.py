# Stops its own process.
# 01_numbers: double timeout, mean passed
# Stopped by clock: who is not even runnable may do nothing for some seconds at most.
import os
import signal


def double(x):
    os.kill(os.getpid(), signal.SIGSTOP)
