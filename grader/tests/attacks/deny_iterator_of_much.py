# Returns an iterator of large texts, which the test turns into a list.
# 03_calls: call_twice passed, noise passed, halve passed, count_up output
# Stopped by session: what may come from the student's side during one test is bounded.


def count_up(n):
    large = bytes(4 << 20)
    while True:
        yield large
