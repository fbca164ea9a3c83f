# Ends the process with success in the middle of a call.
# 01_numbers: double crashed, mean passed
# Stopped by session: the verdict is made on the trusted side; the next test gets a fresh process.
import os


def double(x):
    os._exit(0)
