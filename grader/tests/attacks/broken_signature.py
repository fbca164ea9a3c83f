# Takes other arguments.
# 01_numbers: double error, mean passed
# Stopped by agent: a call that does not fit is an error.
def double(x, y):
    return x + y
