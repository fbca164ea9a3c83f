# Sends a value of a kind that does not exist.
# 01_numbers: double protocol, mean passed
# Stopped by wire: the tags are a closed set.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["P", "posix.system"]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
