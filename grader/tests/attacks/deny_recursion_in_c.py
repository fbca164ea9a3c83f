# Recurses without end in C, until the stack runs into something.
# 01_numbers: double crashed, mean passed
# Stopped by: it is the student's process that crashes; the next test gets a fresh one.
import functools
import sys


def double(x):
    sys.setrecursionlimit(10**9)
    call = double
    for _ in range(10**6):
        call = functools.partial(call)
        call = functools.partial(call.__call__)
    return call(x)
