# Writes such a list onto the wire itself: 64 MiB of text would be gigabytes of objects.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a header is bounded before it is read, its containers before it is parsed.
import os

from own_wire import WIRE, number

from grader.sandbox import wire


def double(x):
    text = b'["t",' + str(number()).encode() + b',"ok",[' + b'["l"],' * 1_000_000 + b'["l"]],["l"]]'
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), 0))
    os.write(WIRE, text)
    os.read(WIRE, 1)
