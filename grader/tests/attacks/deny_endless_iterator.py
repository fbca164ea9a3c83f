# Returns an iterator without end, which the test turns into a list.
# 03_calls: call_twice passed, noise passed, halve passed, count_up timeout
# Stopped by clock: the child's CPU clock is read at each request.
def count_up(n):
    while True:
        yield 0
