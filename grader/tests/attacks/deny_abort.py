# Crashes by a signal of its own.
# 01_numbers: double crashed, mean passed
# Stopped by session: a crash is a verdict.
import os


def double(x):
    os.abort()
