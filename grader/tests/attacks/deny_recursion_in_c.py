# Recurses through C on a small stack until it runs into something.
# 01_numbers: double crashed, mean passed
# Stopped by session: it is the student's process that crashes; the next test gets a fresh one.
import threading


def deeper(x):
    return sorted([x], key=deeper)


def double(x):
    threading.stack_size(32 << 10)
    thread = threading.Thread(target=deeper, args=(x,))
    thread.start()
    thread.join()
    return 2 * x
