# Claims that nothing was written yet, which is no failure.
# 01_numbers: double to-do, mean to-do
# Stopped by boundary: what is to do has no points either.
def double(x):
    raise NotImplementedError("double")


def mean(xs):
    raise NotImplementedError("mean")
