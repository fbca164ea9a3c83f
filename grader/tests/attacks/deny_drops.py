# Announces a large answer and sends it one byte at a time.
# 01_numbers: double timeout, mean passed
# Stopped by: idle time is counted while an answer arrives, too.
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
    os.write(WIRE, b"R" + wire.PREFIX.pack(8 << 20, 0))
    while True:
        os.write(WIRE, b" ")
        sys.modules["time"].sleep(0.03)
