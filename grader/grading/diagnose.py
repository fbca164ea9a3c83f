"""Which misconception explains a failed test: the one whose every answer equals the student's.

Tests are deterministic, so a known wrong answer put through the same test meets the very inputs that failed. Its
conversation with the test is recorded once and kept; a student's conversation is compared with those on file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from grader.sandbox import wire
from grader.sandbox.proxy import Trace
from grader.testing.compare import TOLERANCE


def same_conversation(one: Trace, other: Trace) -> bool:
    """Tell whether two runs of a test asked the same and were answered alike."""
    if one.count != other.count or not one.count:
        return False
    length = min(len(one.exchanges), len(other.exchanges))
    # from the end: the last exchange is the one that failed, and most differences show there
    pairs = zip(reversed(one.exchanges[-length:]), reversed(other.exchanges[-length:]), strict=True)
    return all(_same_exchange(a, b) for a, b in pairs)


def _same_exchange(one: tuple[bytes, Any], other: tuple[bytes, Any]) -> bool:
    # an empty reply was too large to keep
    return len(one[1]) > 0 and all(one[i] == other[i] or alike(_content(one[i]), _content(other[i])) for i in (1, 0))


def _content(frame: Any) -> Any:
    try:
        message = wire.decode(frame, lambda node: ("stays", *node[:2]))
    except wire.WireError:
        return object()  # which is equal to nothing
    content = message[1:] if isinstance(message, tuple) else message
    if content and content[0] == "error" and isinstance(content[1], dict):
        return "error", content[1].get("names")  # the words of an exception are the author's own
    return content


def alike(a: Any, b: Any) -> bool:
    """Tell whether two plain values are equal within the rounding of their dtype."""
    if type(a) is not type(b):
        return isinstance(a, (int, float)) and isinstance(b, (int, float)) and _near(a, b)
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and _near_tensors(a, b)
    if isinstance(a, np.ndarray):
        return a.shape == b.shape and a.dtype == b.dtype and _near_tensors(torch.from_numpy(a), torch.from_numpy(b))
    if isinstance(a, (list, tuple)):
        return _alike_items(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(value, b[key]) for key, value in a.items())
    return _near(a, b) if isinstance(a, float) else bool(a == b)


def _alike_items(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))


def _near(a: float, b: float) -> bool:
    if a == b or (a != a and b != b):
        return True
    try:
        return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    except OverflowError:  # a whole number beyond every float
        return False


def _near_tensors(a: torch.Tensor, b: torch.Tensor) -> bool:
    tolerance = TOLERANCE.get(a.dtype, 0.0)
    return bool(torch.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))
