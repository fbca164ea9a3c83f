# Raises what would quietly end a loop, a generator or a program.
# 01_numbers: double error, mean error
# Stopped by agent: whatever is raised is answered as an error.
def double(x):
    raise StopIteration(2 * x)


def mean(xs):
    raise GeneratorExit
