# Returns more bytes than may cross.
# 02_shapes: rows_sum_to_one output, Counter output 3.6
# Stopped by wire: the codec's limit.
import torch


def rows_sum_to_one(x):
    return torch.zeros(9 << 20, dtype=torch.float64)
