# Sends a dictionary whose key cannot be one.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a key that has no hash breaks the protocol.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["d", ["l", 1], 2]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
