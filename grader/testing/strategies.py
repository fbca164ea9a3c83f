"""Hypothesis strategies for the inputs of this course: small, and of unequal sizes."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

seeds = st.integers(0, 2**31 - 1)


def shapes(min_dims: int = 1, max_dims: int = 4, max_side: int = 6) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes whose dimensions all differ, so that an exchanged axis shows."""
    sides = st.lists(st.integers(1, max_side), min_size=min_dims, max_size=max_dims, unique=True)
    return sides.map(tuple)


@st.composite
def tensors(draw: st.DrawFn, shape: Any = None, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Normal tensors of a given or a drawn shape."""
    size = draw(shapes()) if shape is None else draw(shape) if isinstance(shape, st.SearchStrategy) else shape
    generator = torch.Generator().manual_seed(draw(seeds))
    return (torch.randn(*size, generator=generator, dtype=torch.float64) * scale).to(dtype)


@st.composite
def logits(draw: st.DrawFn, max_batch: int = 4, max_vocab: int = 12) -> torch.Tensor:
    """Logits (B, V), float64, with planted ties in some rows."""
    shape = (draw(st.integers(1, max_batch)), draw(st.integers(2, max_vocab)))
    values = draw(tensors(shape=shape, scale=draw(st.sampled_from([0.5, 2.0, 10.0]))))
    if draw(st.booleans()):
        values[:, -1] = values[:, 0]
    return values
