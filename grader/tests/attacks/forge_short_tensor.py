# Announces a tensor of a thousand numbers and sends eight bytes of it.
# 01_numbers: double protocol, mean passed
# Stopped by wire: the size must equal what the shape asks for.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["T", "float64", [1000]]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), bytes(8)
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
