# Sends a slice of too many parts, one of them a tensor that is not there.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a slice has three parts.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["S", 1, 2, 3, ["T", "float64", [1]]]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
