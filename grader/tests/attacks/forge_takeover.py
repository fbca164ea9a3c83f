# Never returns from loading: answers the wire itself, with yes to every question.
# 01_numbers: double wrong, mean wrong
# Stopped by: answers are compared by value, whoever gives them.
import os
import stat

from grader.sandbox import wire

fd = next(fd for fd in range(3, 128) if stat.S_ISSOCK(os.fstat(fd).st_mode))
number = 1


def opaque(value):
    raise TypeError


while True:
    os.write(fd, b"R" + wire.encode((number, "ok", True, []), opaque))
    if not os.read(fd, 1 << 20):
        break
    number += 1
