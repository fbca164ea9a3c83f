# Sends more bytes behind the answer than the answer uses.
# 01_numbers: double protocol, mean passed
# Stopped by wire: every byte of a frame must belong to a value.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = 1.0


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), bytes(64)
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
