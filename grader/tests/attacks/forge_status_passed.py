# Says of itself that it has passed.
# 01_numbers: double protocol, mean protocol
# Stopped by session: an answer is a value, an error or a limit; there is no word for a verdict.
import os

from own_wire import WIRE, number, say


def double(x):
    say(number(), "passed", 1.0, [])
    os.read(WIRE, 1)


mean = double
