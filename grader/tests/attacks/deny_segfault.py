# Reads where no memory is.
# 01_numbers: double crashed, mean passed
# Stopped by session: it is the student's process that crashes.
import ctypes


def double(x):
    return ctypes.string_at(0)
