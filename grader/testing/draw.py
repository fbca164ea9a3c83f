"""Small tensors as rows of numbers, got beside expected, the first differing cell in brackets."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

import torch

MAX_ROWS, MAX_COLUMNS = 4, 6
"""How much is drawn; of a larger tensor the part around the first difference."""
DIGITS = 4
GAP = "    "
WIDTH = 72


def grid(tensor: torch.Tensor, marked: tuple[int, int] | None = None, digits: int = DIGITS) -> list[str]:
    """Draw a 1-D or 2-D tensor, one line a row; `marked` is the cell to put in brackets."""
    rows = tensor.tolist() if tensor.ndim == 2 else [tensor.tolist()]
    words = [[_cell(value, digits) for value in row] for row in rows]
    width = max((len(word) for row in words for word in row), default=0)
    return [_row([word.rjust(width) for word in row], at, marked) for at, row in enumerate(words)]


def _row(words: Sequence[str], at: int, marked: tuple[int, int] | None) -> str:
    between = [" "] * (len(words) + 1)
    if marked is not None and marked[0] == at:
        between[marked[1] : marked[1] + 2] = "[", "]"
    return "".join(sign + word for sign, word in zip(between, [*words, ""], strict=True)).rstrip()


def _cell(value: object, digits: int) -> str:
    if isinstance(value, bool):
        return "x" if value else "."
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def pair(got: torch.Tensor, expected: torch.Tensor, place: tuple[int, ...]) -> list[str]:
    """Draw `got` beside `expected` around the index `place` at which they part first."""
    digits = _digits(got[place].item(), expected[place].item())
    shape, lead, place = got.shape, place[:-2], place[-2:]
    got, expected = got[lead], expected[lead]
    sides = (MAX_ROWS, MAX_COLUMNS)[-len(place) :]
    window = tuple(_window(size, at, side) for size, at, side in zip(got.shape, place, sides, strict=True))
    inner = tuple(at - part.start for at, part in zip(place, window, strict=True))
    marked = (0, inner[0]) if len(inner) == 1 else (inner[0], inner[1])
    left, right = grid(got[window], marked, digits), grid(expected[window], marked, digits)
    lines = beside(["got", *left], ["expected", *right])
    where = ", ".join([str(at) for at in lead] + [f"{part.start}:{part.stop}" for part in window])
    is_cut = got[window].numel() < shape.numel()
    return [*lines, f"(shown: [{where}])"] if is_cut else lines


def _digits(one: object, other: object) -> int:
    """Give so many digits that two numbers that differ do not look alike."""
    return next((n for n in range(DIGITS, 17, 2) if _cell(one, n) != _cell(other, n)), 17)


def _window(size: int, at: int, side: int) -> slice:
    start = max(0, min(at - side // 2, size - side))
    return slice(start, min(size, start + side))


def beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Put two blocks side by side, or one below the other where the line is too short."""
    width = max(map(len, left))
    if width + len(GAP) + max(map(len, right)) > WIDTH:
        return [*left, *right]
    return [(a.ljust(width) + GAP + b).rstrip() for a, b in zip_longest(left, right, fillvalue="")]
