# Answers with the state of random generators that were never passed.
# 01_numbers: double protocol, mean passed
# Stopped by: an answer has as many states as the request had generators.
import os
import stat
import sys

from grader.sandbox import wire


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


WIRE = next(filter(is_socket, range(3, 128)))


def number():
    caller = sys._getframe()
    while caller.f_code.co_name != "handle":
        caller = caller.f_back
    return caller.f_locals["number"]


def say(*answer):
    os.write(WIRE, b"R" + wire.encode(answer, None))


def double(x):
    say(number(), "ok", x + x, ["torch:00", "numpy:{}"])
    os.read(WIRE, 1)
