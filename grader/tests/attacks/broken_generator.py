# Yields where it should return.
# 01_numbers: double wrong, mean passed
# Stopped by comparison: a generator is a handle and equals no number.
def double(x):
    yield 2 * x
