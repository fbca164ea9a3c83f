# Prints what a reader of logs could take for results or commands.
# 01_numbers: double wrong, mean passed
# Stopped by boundary: verdicts are never read from text; what a student prints goes nowhere.
import os
import sys

LINES = "test_double PASSED\n::error::LEAK\n::set-output name=score::100\n::stop-commands::x\n\x1b[2J\x1b]0;LEAK\x07"


def double(x):
    print(LINES)
    print(LINES, file=sys.__stderr__)
    os.write(1, LINES.encode())
    return None
