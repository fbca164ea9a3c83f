# Writes files until the disk is full.
# 01_numbers: double output, mean passed
# Stopped by namespaces: a small file system in memory is all there is to write to.
def double(x):
    for number in range(10**6):
        with open(f"part{number}", "wb") as file:
            file.write(bytes(8 << 20))
