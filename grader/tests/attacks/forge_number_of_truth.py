# Numbers its answer True instead of 1, and with fractions.
# 01_numbers: double protocol, mean protocol
# Stopped by session: the number of an answer is the int that was asked.
import os

from own_wire import WIRE, number, say


def double(x):
    say(float(number()), "ok", x + x, [])
    os.read(WIRE, 1)


def mean(xs):
    say(True, "ok", 0.0, [])
    os.read(WIRE, 1)
