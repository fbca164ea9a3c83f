# Returns a list in a list, and so on, a hundred thousand deep.
# 01_numbers: double output, mean passed
# Stopped by wire: the codec's limit.
def double(x):
    for _ in range(100_000):
        x = [x]
    return x
