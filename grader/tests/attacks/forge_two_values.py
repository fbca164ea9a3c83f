# Sends two values in one header.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a header is one JSON value.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b'["t",1,"ok",1,["l"]] ["t",1,"ok",2,["l"]]'


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
