"""Small tensors as rows of numbers, got beside expected, the first differing cell in brackets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch

MAX_SIDE = 6
"""Rows and columns of a drawing; of a larger tensor the part around the first difference is drawn."""
GAP = "    "
WIDTH = 72


def grid(tensor: torch.Tensor, marked: tuple[int, int] | None = None) -> list[str]:
    """Draw a 1-D or 2-D tensor, one line a row; `marked` is the cell to put in brackets."""
    rows = tensor.tolist() if tensor.ndim == 2 else [tensor.tolist()]
    words = [[_cell(value) for value in row] for row in rows]
    width = max((len(word) for row in words for word in row), default=0)
    return [_row([word.rjust(width) for word in row], at, marked) for at, row in enumerate(words)]


def _row(words: Sequence[str], at: int, marked: tuple[int, int] | None) -> str:
    between = [" "] * (len(words) + 1)
    if marked is not None and marked[0] == at:
        between[marked[1] : marked[1] + 2] = "[", "]"
    return "".join(sign + word for sign, word in zip(between, [*words, ""], strict=True)).rstrip()


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "x" if value else "."
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def pair(got: torch.Tensor, expected: torch.Tensor, place: tuple[int, ...]) -> list[str]:
    """Draw `got` beside `expected` around the index `place` at which they part first."""
    lead, place = place[:-2], place[-2:]
    got, expected = got[lead], expected[lead]
    window = tuple(_window(size, at) for size, at in zip(got.shape, place, strict=True))
    inner = tuple(at - part.start for at, part in zip(place, window, strict=True))
    marked = (0, inner[0]) if len(inner) == 1 else (inner[0], inner[1])
    left, right = grid(got[window], marked), grid(expected[window], marked)
    lines = beside(["got", *left], ["expected", *right])
    where = ", ".join([str(at) for at in lead] + [f"{part.start}:{part.stop}" for part in window])
    cut = bool(lead) or got[window].shape != got.shape
    return [*lines, f"(both cut to [{where}])"] if cut else lines


def _window(size: int, at: int) -> slice:
    start = max(0, min(at - MAX_SIDE // 2, size - MAX_SIDE))
    return slice(start, min(size, start + MAX_SIDE))


def beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Put two blocks side by side, or one below the other where the line is too short."""
    width = max(map(len, left))
    if width + len(GAP) + max(map(len, right)) > WIDTH:
        return [*left, *right]
    return [(a.ljust(width) + GAP + b).rstrip() for a, b in zip_longest(left, right, fillvalue="")]
