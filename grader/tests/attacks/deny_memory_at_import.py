# Fills the memory while the file is loaded.
# 01_numbers: double memory, mean memory
# Stopped by rlimits: the limit on address space.
KEPT = []
while True:
    KEPT.append(bytearray(1 << 24))
