# Prints without end.
# 01_numbers: double output, mean passed
# Stopped by agent: the agent counts what is printed.
def double(x):
    while True:
        print("LEAK" * 1000)
