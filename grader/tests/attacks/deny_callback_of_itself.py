# Gives what it was given itself as an argument, over and over.
# 03_calls: call_twice error, noise passed, halve passed, count_up passed
# Stopped by session: a callback runs on the test's side, and an object of the student's stays what it is.
def call_twice(f, x):
    return f(f)
