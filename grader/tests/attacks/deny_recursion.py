# Recurses without end in Python.
# 01_numbers: double error, mean passed
# Stopped by: Python's own limit.
def double(x):
    return double(x)
