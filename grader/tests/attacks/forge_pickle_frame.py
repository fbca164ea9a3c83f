# Writes a pickle that runs a command where a frame should be.
# 01_numbers: double protocol, mean passed
# Stopped by wire: nothing of a student's is ever unpickled; a frame is JSON and raw buffers.
import os
import pickle

from own_wire import WIRE

from grader.sandbox import wire


class Payload:
    def __reduce__(self):
        return os.system, ("touch @FOLDER@/pickled",)


def double(x):
    data = pickle.dumps(Payload())
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(data), 0) + data)
    os.read(WIRE, 1)
