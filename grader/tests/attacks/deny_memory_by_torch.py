# Fills the memory with one tensor.
# 02_shapes: rows_sum_to_one memory, Counter memory 3.6
# Stopped by rlimits: the limit on address space.
import torch


def rows_sum_to_one(x):
    return torch.ones(1 << 36)
