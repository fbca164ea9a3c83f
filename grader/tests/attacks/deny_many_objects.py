# Returns more objects than may stay alive.
# 01_numbers: double output, mean passed
# Stopped by agent, wire: handles are counted.
def double(x):
    return [object() for _ in range(150_000)]
