# Calls what it was given without end.
# 03_calls: call_twice timeout, noise passed, halve passed, count_up passed
# Stopped by clock: the child's CPU clock is read at each callback.
def call_twice(f, x):
    while True:
        f(x)
