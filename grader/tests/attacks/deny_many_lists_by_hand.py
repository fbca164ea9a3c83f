# Writes such a list onto the wire itself: 64 MiB of text would be gigabytes of objects.
# 01_numbers: double protocol, mean passed
# Stopped by: a header is bounded before it is read, its containers before it is parsed.
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
    text = b'["t",' + str(number()).encode() + b',"ok",[' + b'["l"],' * 1_000_000 + b'["l"]],["l"]]'
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), 0))
    os.write(WIRE, text)
    os.read(WIRE, 1)
