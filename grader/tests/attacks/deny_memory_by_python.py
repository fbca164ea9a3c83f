# Fills the memory with Python's objects.
# 01_numbers: double memory, mean passed
# Stopped by rlimits: the limit on address space.
def double(x):
    kept = []
    while True:
        kept.append(bytearray(1 << 22))
