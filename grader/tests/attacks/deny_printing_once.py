# Prints a hundred million letters in one line.
# 01_numbers: double output, mean passed
# Stopped by agent: what is printed is counted.
def double(x):
    print("LEAK" * 10_000_000)
    return 2 * x
