# Never returns from loading: answers the wire itself, with yes to every question.
# 01_numbers: double wrong, mean wrong
# Stopped by: answers are compared by value, whoever gives them.
import os
import stat

from grader.sandbox import wire


def is_socket(fd):
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


fd = next(filter(is_socket, range(3, 128)))
number = 1


def opaque(value):
    raise TypeError


while True:
    os.write(fd, b"R" + wire.encode((number, "ok", True, []), opaque))
    if not os.read(fd, 1 << 20):
        break
    number += 1
