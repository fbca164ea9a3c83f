# Recurses without end in Python.
# 01_numbers: double error, mean passed
# Stopped by agent: Python's own limit.
def double(x):
    return double(x)
