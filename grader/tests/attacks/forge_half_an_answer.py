# Sends half of an answer and ends.
# 01_numbers: double crashed, mean passed
# Stopped by session: an end in the middle of an answer is the end of the process.
import os

from own_wire import WIRE

from grader.sandbox import wire


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(1000, 0) + b"[")
    os._exit(0)
