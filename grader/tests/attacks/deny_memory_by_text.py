# Fills the memory with one text.
# 01_numbers: double memory, mean passed
# Stopped by rlimits: the limit on address space.
def double(x):
    return 'x' * (1 << 40)
