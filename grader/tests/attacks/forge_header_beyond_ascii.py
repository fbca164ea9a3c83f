# Sends a header in another encoding.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a header is ASCII.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b"\xff\xfe[\x00]\x00"


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
