# Sends a whole number of a hundred thousand digits, which takes quadratic time to read.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a number of too many digits is refused by the parser.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b'["t",1,"ok",' + b"9" * 100_000 + b',["l"]]'


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
