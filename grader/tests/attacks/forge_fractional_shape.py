# Announces a tensor whose sizes are fractions and truth values.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a size is an int and nothing that behaves like one.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["T", "float64", [1.5, True]]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), bytes(12)
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
