# Returns a set of numbers that all have the same hash: each insertion meets all earlier ones.
# 01_numbers: double protocol, mean passed
# Stopped by wire: the codec counts equal hashes before it builds a set.
def double(x):
    return {k * (2**61 - 1) for k in range(2000)}
