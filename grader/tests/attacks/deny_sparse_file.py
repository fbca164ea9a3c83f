# Makes a file of a million megabytes without writing one.
# 01_numbers: double output, mean passed
# Stopped by rlimits: the limit on the size of a file.
import os


def double(x):
    fd = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 1 << 40)
