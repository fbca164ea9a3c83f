# Sends a kind of frame that does not exist.
# 01_numbers: double protocol, mean passed
# Stopped by: there are three kinds of frames; anything else ends the process.
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
    os.write(WIRE, b"P" + wire.encode((number(), "passed"), None))
    os.read(WIRE, 1)
