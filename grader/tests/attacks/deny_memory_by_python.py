# Fills the memory with Python's objects.
# 01_numbers: double memory, mean passed
# Stopped by rlimits: the limit on address space.
def double(x):
    kept = []
    while True:
        kept.append(bytes(1 << 22))  # not written to: the clock must not be what stops it on a busy machine
