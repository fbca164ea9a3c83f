# Puts the hidden input into the text of an exception.
# 01_numbers: double error, mean passed
# Stopped by report: the student is told the kind of exception and the line, never its words.
def double(x):
    raise RuntimeError(f"LEAK {x}")
