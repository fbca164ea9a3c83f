# Raises an exception whose text takes for ever to make.
# 01_numbers: double timeout, mean passed
# Stopped by clock: the text is made in the student's process, within its time.
class Endless(Exception):
    def __str__(self):
        while True:
            pass


def double(x):
    raise Endless
