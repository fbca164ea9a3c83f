# Hangs in everything that runs when a process or an object ends.
# 01_numbers: double wrong, mean passed
# Stopped by: the child is ended by a signal; nobody asks for a repr.
import atexit
import threading


def hang(*args):
    while True:
        pass


class Sticky:
    __del__ = __repr__ = __reduce__ = __eq__ = __bool__ = __len__ = hang


atexit.register(hang)
threading._register_atexit(hang)


def double(x):
    return Sticky()
