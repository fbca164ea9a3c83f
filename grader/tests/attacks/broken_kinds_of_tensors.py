# Returns tensors of kinds that a comparison may stumble over.
# 02_shapes: rows_sum_to_one wrong, Counter wrong 3.6
# Stopped by wire: sparse, empty, quantised and foreign tensors stay behind or differ in type.
import itertools

import torch

kinds = itertools.cycle(
    [
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: torch.nested.nested_tensor([x[0], x[0]]),
        lambda x: x.to(torch.complex64),
        lambda x: x.numpy(),
        lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.quint8),
    ]
)


def rows_sum_to_one(x):
    return next(kinds)(x)
