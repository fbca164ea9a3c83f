"""Chapter 3: Calls, the reference."""

import torch


def call_twice(f, x):
    return f(f(x))


def noise(generator):
    return torch.rand(3, generator=generator)


def halve(x):
    return x / 2


def count_up(n):
    yield from range(n)
