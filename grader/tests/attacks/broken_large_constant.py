# Makes a text of a thousand million letters while the file is loaded.
# 01_numbers: double memory, mean memory
# Stopped by rlimits: the file is loaded in the student's process, within its limits.
TEXT = "x" * 2**30
