# Raises an exception whose class refuses to tell its name.
# 01_numbers: double crashed, mean passed
# Stopped by session: the agent gives up, and a process without an answer has crashed.
class Nameless(type):
    @property
    def __name__(cls):
        raise cls


class Unspeakable(Exception, metaclass=Nameless):
    pass


def double(x):
    raise Unspeakable
