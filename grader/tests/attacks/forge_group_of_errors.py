# Raises the wanted error in a group with others.
# 01_numbers: double error, mean error
# Stopped by session: an exception crosses by the names of its classes, and a group is no ValueError.
def double(x):
    raise BaseExceptionGroup("all", [KeyboardInterrupt(), ValueError()])


def mean(xs):
    raise BaseExceptionGroup("all", [ValueError(), SystemExit(0)])
