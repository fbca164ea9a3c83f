# Answers a call on the socket itself, and then returns: two replies to one request.
# 01_numbers: double protocol, mean passed
# Stopped by: there is one reply to a request; one too many ends the process.
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
    say(number(), "ok", x + x, [])
    return x
