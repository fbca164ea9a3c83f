# Announces a large answer and sends it one byte at a time.
# 01_numbers: double timeout, mean passed
# Stopped by clock: idle time is counted while an answer arrives, too.
import os
import time

from own_wire import WIRE

from grader.sandbox import wire


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(8 << 20, 0))
    while True:
        os.write(WIRE, b" ")
        time.sleep(0.03)
