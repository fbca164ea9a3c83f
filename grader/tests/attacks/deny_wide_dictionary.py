# Returns a dictionary of more chosen keys than may cross.
# 01_numbers: double output, mean passed
# Stopped by wire: keys are counted.
def double(x):
    return {(2 * number) << 61: None for number in range(100_000)}
