# Announces a tensor of a negative size, so that a length comes out wrong.
# 01_numbers: double protocol, mean passed
# Stopped by wire: each size is a small natural number.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["T", "float64", [-1, -1]]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), bytes(8)
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
