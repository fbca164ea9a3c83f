# Maps shared memory that no object of Python's stands for.
# 01_numbers: double error, mean passed
# Stopped by rlimits: the limit on address space.
import mmap


def double(x):
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 1 << 26))
