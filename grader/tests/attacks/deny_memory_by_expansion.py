# Returns a tensor of a thousand million numbers that takes eight bytes here.
# 02_shapes: rows_sum_to_one memory, Counter memory 3.6
# Stopped by: what crosses is written out within the process's own memory.
def rows_sum_to_one(x):
    return x.flatten()[:1].expand(10**9)
