# Imports what is not installed, in a block that hides it, and then uses it.
# 01_numbers: double error, mean passed
# Stopped by agent: an unknown name is an error.
try:
    import no_such_package
except ImportError:
    pass


def double(x):
    return no_such_package.double(x)
