"""The hidden suite of chapter 3."""

import torch

from grader.testing import close, counting, exact, exercise


@exercise("call_twice")
def test_call_twice(exercises):
    """The function is called twice, the second time with what it gave."""
    f = counting(lambda x: 3 * x)
    close(exercises.call_twice(f, torch.ones(2)), torch.full((2,), 9.0), "call_twice of 3 x at 1")
    exact(f.calls, 2, "the calls of f")


@exercise("noise")
def test_noise_goes_on(exercises, rng):
    """Two calls with one generator give different numbers, those that follow each other."""
    generator, same = torch.Generator().manual_seed(rng.seed), torch.Generator().manual_seed(rng.seed)
    for _ in range(2):
        close(exercises.noise(generator), torch.rand(3, generator=same), "noise(generator)")


@exercise("halve")
def test_halves(exercises, rng):
    """Twice the half is the whole."""
    x = rng.normal(2, 3)
    close(exercises.halve(x) * 2, x, "twice halve(x)")


@exercise("halve")
def test_halves_of_rows(exercises, rng):
    """Rows are halved apart."""
    x = rng.normal(2, 3)
    close(exercises.halve(x)[:1], exercises.halve(x[:1]), "the first row of halve(x)")


@exercise("count_up")
def test_counts_up(exercises):
    """The numbers come from zero to n, n left out."""
    exact(list(exercises.count_up(3)), [0, 1, 2], "list(count_up(3))")
