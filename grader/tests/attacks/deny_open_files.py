# Opens files until no more can be opened.
# 01_numbers: double error, mean passed
# Stopped by rlimits: the limit on open files.
import os


def double(x):
    while True:
        os.open("/dev/zero", os.O_RDONLY)
