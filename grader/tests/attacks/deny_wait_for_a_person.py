# Asks the person at the keyboard.
# 01_numbers: double error, mean passed
# Stopped by process: standard input is empty.
def double(x):
    return float(input("double? "))
