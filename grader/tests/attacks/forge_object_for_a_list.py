# Sends a JSON object, which the protocol never uses.
# 01_numbers: double protocol, mean passed
# Stopped by wire: values are lists that begin with a tag.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = {"__class__": "float"}


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
