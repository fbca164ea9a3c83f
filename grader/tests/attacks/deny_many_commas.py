# Sends a flat list of two million numbers as text.
# 01_numbers: double protocol, mean passed
# Stopped by wire: elements are counted before they are parsed.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b"[" + b"1," * 2_000_000 + b"1]"


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
