# Raises a syntax error whose line of source is the hidden input.
# 01_numbers: double error, mean passed
# Stopped by report: a line is told by its number.
def double(x):
    raise SyntaxError("LEAK", (__file__, 7, 1, f"LEAK {x}"))
