# Hangs in everything that runs when a process or an object ends.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the child is ended by a signal; what an object's end takes is counted.
import atexit


def hang(*args):
    while True:
        pass


class Sticky:
    __del__ = __repr__ = __reduce__ = __eq__ = __bool__ = __len__ = hang


atexit.register(hang)


def double(x):
    return Sticky()
