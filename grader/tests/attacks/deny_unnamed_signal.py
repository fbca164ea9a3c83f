# Ends by a signal that has no name.
# 01_numbers: double crashed, mean passed
# Stopped by session: a crash is a verdict, whatever its number.
import os
import signal


def double(x):
    os.kill(os.getpid(), signal.SIGRTMIN + 6)
