# Sends a frame that holds nothing.
# 01_numbers: double protocol, mean passed
# Stopped by wire: nothing is no JSON.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b""


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
