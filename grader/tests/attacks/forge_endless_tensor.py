# Announces a tensor of no numbers with axes whose strides no processor can count.
# 01_numbers: double protocol, mean passed
# Stopped by wire: the product of the axes is bounded even beside a size of zero.
import json
import os

from own_wire import WIRE, number

from grader.sandbox import wire

VALUE = ["T", "float64", [0, 2**31 - 1, 2**31 - 1, 2**31 - 1]]


def double(x):
    text, body = json.dumps(["t", number(), "ok", VALUE, ["l"]]).encode(), b""
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(text), len(body)) + text + body)
    os.read(WIRE, 1)
