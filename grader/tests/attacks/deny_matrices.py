# Multiplies matrices for ever, in torch.
# 02_shapes: rows_sum_to_one timeout, Counter timeout 3.6
# Stopped by clock: the child's CPU clock, read from outside, and a signal that cannot be caught.
import torch


def rows_sum_to_one(x):
    large = torch.ones(1500, 1500)
    while True:
        large = large @ large
