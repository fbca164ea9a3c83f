# Sends the hidden input as the name of a function that it claims to have called.
# 01_numbers: double passed, mean protocol
# Stopped by: only a name that this exercise forbids is accepted.
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


def mean(xs):
    say(number(), "forbidden", f"LEAK {xs}")
    os.read(WIRE, 1)
