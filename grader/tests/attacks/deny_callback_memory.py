# Calls what it was given with arguments that the test's side must keep.
# 03_calls: call_twice output, noise passed, halve passed, count_up passed
# Stopped by: what may come from the student's side during one test is bounded.
import torch


def call_twice(f, x):
    while True:
        f(torch.zeros(7 << 20, dtype=torch.float64))
