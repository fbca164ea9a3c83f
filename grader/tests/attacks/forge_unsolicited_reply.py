# Answers requests that nobody has made yet, at import.
# 01_numbers: double protocol, mean protocol
# Stopped by: every reply carries the number of its request, and there is one reply to each.
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


for coming in range(1, 50):
    say(coming, "ok", None, [])
