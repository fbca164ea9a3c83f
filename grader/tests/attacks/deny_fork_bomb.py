# Forks until nothing is left.
# 01_numbers: double error, mean passed
# Stopped by seccomp: no process can be made.
import os


def double(x):
    while True:
        os.fork()
