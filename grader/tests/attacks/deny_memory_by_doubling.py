# Doubles a list until the memory is full.
# 01_numbers: double memory, mean passed
# Stopped by rlimits: the limit on address space.
def double(x):
    kept = [x]
    while True:
        kept += kept
