# Sends a kind of frame that does not exist.
# 01_numbers: double protocol, mean passed
# Stopped by session: there are three kinds of frames; anything else ends the process.
import os

from own_wire import WIRE, number

from grader.sandbox import wire


def double(x):
    os.write(WIRE, b"P" + wire.encode((number(), "passed"), None))
    os.read(WIRE, 1)
