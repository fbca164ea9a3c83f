"""Independent ways to know the right answer."""

from __future__ import annotations

from collections.abc import Callable

import torch


def numerical_gradient(f: Callable[[torch.Tensor], float | torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Give the gradient of a scalar function by central differences, error of order h squared.

    Args:
        f: takes a float64 tensor of the shape of `x`, gives a number.
        x: float64 tensor; not modified.
    """
    h = 1e-6
    x = x.detach().double()
    gradient = torch.zeros_like(x)
    for index in range(x.numel()):
        step = torch.zeros_like(x)
        step.view(-1)[index] = h
        gradient.view(-1)[index] = (float(f(x + step)) - float(f(x - step))) / (2 * h)
    return gradient
