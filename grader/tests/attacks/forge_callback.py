# Calls back without having been given anything to call.
# 01_numbers: double protocol, mean passed
# Stopped by session: a callback names a callable that was passed in this test.
import os

from own_wire import WIRE

from grader.sandbox import wire


def double(x):
    os.write(WIRE, b"C" + wire.encode((0, "callback", "__call__", (), {}), None))
    os.read(WIRE, 1)
