# Sends fifty thousand opening brackets, on which a parser may run out of stack.
# 01_numbers: double protocol, mean passed
# Stopped by wire: a parser that gives up is an answer that broke the protocol.
import os

from own_wire import WIRE

from grader.sandbox import wire

TEXT = b"[" * 50_000


def double(x):
    os.write(WIRE, b"R" + wire.PREFIX.pack(len(TEXT), 0))
    os.write(WIRE, TEXT)
    os.read(WIRE, 1)
