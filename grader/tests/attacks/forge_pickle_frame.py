# Writes a pickle that runs a command where a frame should be.
# 01_numbers: double protocol, mean passed
# Stopped by: nothing of a student's is ever unpickled; a frame is JSON and raw buffers.
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


class Payload:
    def __reduce__(self):
        return os.system, ("touch @FOLDER@/pickled",)


def double(x):
    data = sys.modules["pickle"].dumps(Payload())
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(data), 0) + data)
    os.read(WIRE, 1)
