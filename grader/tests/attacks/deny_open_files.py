# Opens files until no more can be opened.
# 01_numbers: double error, mean passed
# Stopped by: the limit on open files.
def double(x):
    kept = []
    while True:
        kept.append(open("/dev/zero"))
