# Answers a call with the number of another request.
# 01_numbers: double protocol, mean passed
# Stopped by session: every reply carries the number of its request.
import os

from own_wire import WIRE, number, say


def double(x):
    say(number() + 1, "ok", x + x, [])
    os.read(WIRE, 1)
