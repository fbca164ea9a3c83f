# Calls what it was given with arguments that the test's side must keep.
# 03_calls: call_twice output, noise passed, halve passed, count_up passed
# Stopped by session: what may come from the student's side during one test is bounded.
import contextlib


def call_twice(f, x):
    large = bytes(4 << 20)
    while True:
        with contextlib.suppress(RuntimeError):
            f(x, large)
