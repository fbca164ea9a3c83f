# Catches whatever could interrupt it and goes on.
# 01_numbers: double timeout, mean passed
# Stopped by clock: a signal that cannot be caught.
import signal

for caught in (signal.SIGXCPU, signal.SIGALRM, signal.SIGTERM, signal.SIGINT):
    signal.signal(caught, signal.SIG_IGN)


def double(x):
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
