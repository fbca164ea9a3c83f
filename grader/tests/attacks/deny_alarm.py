# Has itself interrupted without end, and answers in the interruption.
# 01_numbers: double error, mean passed
# Stopped by seccomp: no timer can be set.
import signal


def double(x):
    signal.signal(signal.SIGALRM, lambda *args: 2 * x)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    while True:
        pass
