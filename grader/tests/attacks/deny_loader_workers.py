# Lets torch start processes to load data.
# 02_shapes: rows_sum_to_one error, Counter error 3.6
# Stopped by seccomp: no process can be made.
import torch.utils.data


def rows_sum_to_one(x):
    return next(iter(torch.utils.data.DataLoader(x, num_workers=2)))
