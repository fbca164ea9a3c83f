# Writes one file that is too large.
# 01_numbers: double output, mean passed
# Stopped by rlimits: the limit on the size of a file.
def double(x):
    with open("large", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
