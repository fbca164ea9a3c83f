# Closes every open file, the wire among them.
# 01_numbers: double crashed, mean passed
# Stopped by session: an end of the wire is the end of the process.
import os


def double(x):
    os.closerange(0, 1024)
    return 2 * x
