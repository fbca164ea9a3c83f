# Announces an answer of eight gigabytes.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a length is checked before a byte is allocated.
import os

from own_wire import WIRE


def double(x):
    os.write(WIRE, b"R" + b"\xff" * 8)
    os.read(WIRE, 1)
