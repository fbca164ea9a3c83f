# Answers a call with the number of another request.
# 01_numbers: double protocol, mean passed
# Stopped by: every reply carries the number of its request.
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
    say(number() + 1, "ok", x + x, [])
    os.read(WIRE, 1)
