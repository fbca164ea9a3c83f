# Returns a tensor of more axes than may cross.
# 02_shapes: rows_sum_to_one output, Counter output 3.6
# Stopped by wire: axes are counted.
def rows_sum_to_one(x):
    return x.reshape(1, 1, 1, 1, 1, 1, 1, 1, 1, *x.shape)
