# Ends itself as the grader would.
# 01_numbers: double crashed, mean passed
# Stopped by session: a process that ended without an answer has crashed, whoever ended it.
import os
import signal


def double(x):
    os.kill(os.getpid(), signal.SIGKILL)
