# Hangs the hidden input on an exception as a note, a cause and a context.
# 01_numbers: double error, mean passed
# Stopped by report: the student is told the kind of exception and the line.
def double(x):
    error = RuntimeError()
    error.add_note(f"LEAK {x}")
    raise error from ValueError(f"LEAK {x}")
