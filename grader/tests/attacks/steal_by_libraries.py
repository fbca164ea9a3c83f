# Reads the secret through the libraries that read files in C.
# 01_numbers: double passed, mean passed
# Stopped by landlock: it is the kernel that refuses, whoever asks.
import ctypes
import sqlite3

import numpy
import torch

PATH = "@SOLUTIONS@/secret.txt"
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
for read in (
    lambda: numpy.fromfile(PATH, dtype=numpy.uint8),
    lambda: numpy.memmap(PATH, mode="r"),
    lambda: torch.from_file(PATH, shared=False, size=8, dtype=torch.uint8),
    lambda: sqlite3.connect(f"file:{PATH}?mode=ro", uri=True).execute("select * from sqlite_master"),
    lambda: 1 / bool(libc.fopen(PATH.encode(), b"r")),
):
    try:
        found = read()
    except (OSError, RuntimeError, sqlite3.OperationalError, ZeroDivisionError):
        continue
    raise RuntimeError(f"LEAK {found}")
