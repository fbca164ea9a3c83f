# Writes files until the disk is full.
# 01_numbers: double output, mean passed
# Stopped by namespaces, landlock + session: the scratch folder is small, or the controller looks how much it holds.
def double(x):
    for number in range(10**6):
        with open(f"part{number}", "wb") as file:
            file.write(bytes(8 << 20))
