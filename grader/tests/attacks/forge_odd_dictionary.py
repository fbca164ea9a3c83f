# Sends a dictionary whose last key has no value.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a dictionary has as many values as keys.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["d", 1, 2, 3]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
