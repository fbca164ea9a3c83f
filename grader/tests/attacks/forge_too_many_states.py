# Answers with the state of random generators that were never passed.
# 01_numbers: double protocol, mean passed
# Stopped by session: an answer has as many states as the request had generators.
import os

from own_wire import WIRE, number, say


def double(x):
    say(number(), "ok", x + x, ["torch:00", "numpy:{}"])
    os.read(WIRE, 1)
