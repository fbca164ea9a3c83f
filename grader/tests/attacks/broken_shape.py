# Returns tensors of other shapes, which would be stretched to fit.
# 02_shapes: rows_sum_to_one wrong, Counter wrong 3.6
# Stopped by comparison: the shape is compared before the values.
def rows_sum_to_one(x):
    return (x / x.sum(dim=-1, keepdim=True))[..., :1]
