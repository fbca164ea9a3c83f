# Calls back without having been given anything to call.
# 01_numbers: double protocol, mean passed
# Stopped by: a callback names a callable that was passed in this test.
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
    os.write(WIRE, b"C" + wire.encode((0, "callback", "__call__", (), {}), None))
    os.read(WIRE, 1)
