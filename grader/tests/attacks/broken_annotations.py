# Names a type that does not exist.
# 01_numbers: double error, mean error
# Stopped by agent: what fails while the file is loaded is an error, and the student is told where.
def double(x: Number) -> Number:  # noqa: F821
    return 2 * x
