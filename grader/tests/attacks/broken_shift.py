# Makes a number of a thousand million bits while the file is loaded.
# 01_numbers: double passed, mean passed
# Stopped by rlimits: the file is compiled in the student's process, within its limits.
LARGE = 1 << 10**8
