"""Seeded randomness for tests: the fixture `rng`."""

from __future__ import annotations

import hashlib
import random

import torch


def seed_of(secret: str, test_id: str) -> int:
    """Give the seed of one test: a function of the instructor's secret and the test's id alone."""
    digest = hashlib.sha256(f"{secret}\0{test_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Rng:
    """Draws inputs; the same seed gives the same inputs on every machine."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generator = torch.Generator().manual_seed(seed)
        self.random = random.Random(seed)

    def generator(self) -> torch.Generator:
        """Give a fresh torch.Generator seeded from this one."""
        return torch.Generator().manual_seed(int(self.integers(0, 2**31 - 1)))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Standard normal values, float64 unless told otherwise."""
        return torch.randn(*shape, generator=self._generator, dtype=torch.float64).to(dtype)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
        """Uniform values in [0, 1)."""
        return torch.rand(*shape, generator=self._generator, dtype=torch.float64).to(dtype)

    def integers(self, low: int, high: int, *shape: int) -> torch.Tensor:
        """int64 values in [low, high)."""
        return torch.randint(low, high, shape, generator=self._generator)

    def permutation(self, n: int) -> torch.Tensor:
        """A random order of 0 ... n-1, never the identity for n > 1."""
        order = torch.randperm(n, generator=self._generator)
        return order.roll(1) if n > 1 and torch.equal(order, torch.arange(n)) else order
