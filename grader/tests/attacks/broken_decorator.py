# Decorates a function into nothing.
# 01_numbers: double error, mean passed
# Stopped by agent: None cannot be called, and the student is told so.
def logged(function):
    print(function)


@logged
def double(x):
    return 2 * x
