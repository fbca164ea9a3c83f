"""Comparisons with named tolerances, whose messages say what came back, what was expected and where they part.

Each comparison first settles the type, the shape, the dtype and finiteness; a NaN can never slip through a negated
comparison. `close` refuses an expectation that is not well above its own tolerance: such a test could not fail.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

__tracebackhide__ = True
"""Pytest's full view ends in the test's own line."""

TOLERANCE = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-5,
    torch.complex64: 1e-5,
    torch.float16: 1e-2,
    torch.bfloat16: 2e-2,
}
"""Relative and absolute: rounding of a few hundred operations in any order stays below, a wrong formula does not."""

SIGNAL = 20
"""An expectation must reach this many tolerances, or the comparison proves nothing."""


class SuiteMistake(Exception):
    """The test itself is at fault, never the student."""


class Mismatch(AssertionError):
    """What came back is not what was expected. It keeps both, so that the desk can draw them."""

    def __init__(self, what: str, words: str, got: Any, expected: Any, place: tuple[int, ...] | None = None) -> None:
        super().__init__(f"{what}: {words}")
        self.what, self.words, self.got, self.expected = what, words, got, expected
        self.place = place
        """The index of the first value that differs, where both are tensors or arrays of one shape."""


def close(got: Any, expected: Any, what: str = "the result") -> None:
    """Assert that `got` equals `expected` within the tolerance of the dtype.

    Args:
        got: what the student's code returned.
        expected: number, tensor, array, or a list, tuple or dict of them.
        what: a short phrase for the message, such as "softmax(x, dim=0) of a (2, 3) tensor".

    Raises:
        AssertionError: with a message for the student.
        SuiteMistake: if the expectation is so small that the tolerance would hide an error.
    """
    _compare(got, expected, None, what)


def roughly(got: Any, expected: Any, within: float, what: str = "the result") -> None:
    """Assert that `got` differs from `expected` by `within` at most, everywhere; types and shapes as in `close`."""
    _compare(got, expected, within, what)


def exact(got: Any, expected: Any, what: str = "the result") -> None:
    """Assert that `got` equals `expected` exactly; a list and a tuple of the same items are equal."""
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        _same_kind(got, expected, what)
        same = _as_tensor(got) == _as_tensor(expected)
        if not bool(same.all()):
            _part(got, expected, ~same, what)
    elif not _equal(got, expected):
        raise Mismatch(what, f"got {show(got)}, expected {show(expected)}", got, expected)


def holds(condition: Any, sentence: str) -> None:
    """Assert a property; `sentence` says what is wrong when it does not hold."""
    if isinstance(condition, (torch.Tensor, np.ndarray, np.bool_)):
        condition = bool(condition.all())
    if condition is not True:
        raise AssertionError(sentence)


def same_distribution(counts: Any, probabilities: Any, what: str = "the draws") -> None:
    """Assert by a chi-square test at 1e-6 that `counts` could have been drawn from `probabilities`.

    Args:
        counts: observed counts, 1-D.
        probabilities: the same length; need not be normalised; a cell of probability 0 must have count 0.
    """
    observed = torch.as_tensor(counts, dtype=torch.float64).flatten()
    p = torch.as_tensor(probabilities, dtype=torch.float64).flatten()
    if observed.shape != p.shape:
        raise AssertionError(f"{what}: {len(observed)} cells, expected {len(p)}")
    impossible = observed[p == 0].sum().item()
    if impossible:
        raise AssertionError(f"{what}: {impossible:.0f} draws of probability zero")
    live = p > 0
    expected = p[live] / p.sum() * observed.sum()
    statistic = ((observed[live] - expected) ** 2 / expected).sum().item()
    limit = chi_square_limit(int(live.sum()) - 1)
    if not statistic <= limit:
        raise AssertionError(f"{what}: chi-square {statistic:.1f} over {int(live.sum())} cells, at most {limit:.1f}")


def chi_square_limit(degrees: int) -> float:
    """Give the chi-square quantile at 1 - 1e-6 by Wilson and Hilferty's approximation (1931), within 2 percent."""
    if degrees < 1:
        return 1e-9
    z = 4.753424  # the standard normal's quantile at 1 - 1e-6
    spread = 2 / (9 * degrees)
    return 1.02 * degrees * (1 - spread + z * math.sqrt(spread)) ** 3 + 1.0


# -- the pieces ----------------------------------------------------------------------------------------------------


def _compare(got: Any, expected: Any, within: float | None, what: str) -> None:
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        _compare_tensors(got, expected, within, what)
    elif isinstance(expected, (list, tuple)):
        if not isinstance(got, (list, tuple)) or len(got) != len(expected):
            raise Mismatch(what, f"got {show(got)}, expected {len(expected)} items", got, expected)
        for index, (one, other) in enumerate(zip(got, expected, strict=True)):
            _compare(one, other, within, f"{what}, item {index}")
    elif isinstance(expected, dict):
        if not isinstance(got, dict) or got.keys() != expected.keys():
            keys = sorted(map(str, got)) if isinstance(got, dict) else show(got)
            raise Mismatch(what, f"got {keys}, expected the keys {sorted(map(str, expected))}", got, expected)
        for key, value in expected.items():
            _compare(got[key], value, within, f"{what}, {key!r}")
    elif isinstance(expected, (bool, str, bytes)) or expected is None:
        exact(got, expected, what)
    else:
        _compare_numbers(got, expected, within, what)


def _compare_numbers(got: Any, expected: float | complex, within: float | None, what: str) -> None:
    number = got.item() if isinstance(got, (torch.Tensor, np.ndarray)) and not got.ndim else got
    if isinstance(number, bool) or not isinstance(number, (int, float, complex)):
        raise Mismatch(what, f"got {show(got)}, expected the number {show(expected)}", got, expected)
    tolerance = within
    if within is None:
        single = isinstance(got, torch.Tensor) and got.dtype == torch.float32
        tolerance = 1e-5 if single else 1e-9
        tolerance *= max(1.0, abs(expected)) if _finite(expected) else 1.0
        _check_signal(abs(expected), tolerance, what)
    assert tolerance is not None
    if number != expected and not abs(number - expected) <= tolerance:
        raise Mismatch(what, f"got {show(number)}, expected {show(expected)}", number, expected)


def _compare_tensors(got: Any, expected: Any, within: float | None, what: str) -> None:
    _same_kind(got, expected, what)
    ours, theirs = _as_tensor(expected), _as_tensor(got)
    if not ours.numel():
        return
    if not (ours.is_floating_point() or ours.is_complex()):
        differs = ours != theirs if within is None else (ours.double() - theirs.double()).abs() > within
    else:
        differs = _differs(theirs, ours, within, what)
    if bool(differs.any()):
        _part(got, expected, differs, what)


def _differs(got: torch.Tensor, expected: torch.Tensor, within: float | None, what: str) -> torch.Tensor:
    wide = torch.complex128 if expected.is_complex() else torch.float64
    tolerance = TOLERANCE[expected.dtype] if within is None else within
    got, expected = got.to(wide), expected.to(wide)
    finite = torch.isfinite(expected)
    if within is None:
        largest = float(expected[finite].abs().max()) if bool(finite.any()) else 0.0
        _check_signal(largest, tolerance, what)
    bound = tolerance * (1 + expected.abs()) if within is None else torch.full_like(expected.abs(), tolerance)
    near = (got - expected).abs() <= bound
    same = (got == expected) | (torch.isnan(got) & torch.isnan(expected))  # infinities of the same sign are equal
    return ~torch.where(finite & torch.isfinite(got), near, same)


def _check_signal(largest: float, tolerance: float, what: str) -> None:
    # an expectation of exact zeros is a statement of its own; one that is merely small is a test that cannot fail
    if 0 < largest < SIGNAL * tolerance:
        raise SuiteMistake(f"{what}: the largest expected value {largest:g} is not above the tolerance {tolerance:g}")


def _same_kind(got: Any, expected: Any, what: str) -> None:
    wanted = "tensor" if isinstance(expected, torch.Tensor) else "array"
    if type(got) is not type(expected):
        raise Mismatch(what, f"got {show(got)}, expected a {wanted} of shape {_shape(expected)}", got, expected)
    if tuple(got.shape) != tuple(expected.shape):
        raise Mismatch(what, f"got shape {_shape(got)}, expected shape {_shape(expected)}", got, expected)
    if got.dtype != expected.dtype:
        raise Mismatch(what, f"got dtype {_dtype(got)}, expected dtype {_dtype(expected)}", got, expected)


def _as_tensor(value: Any) -> torch.Tensor:
    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def _part(got: Any, expected: Any, differs: torch.Tensor, what: str) -> None:
    theirs, ours = _as_tensor(got), _as_tensor(expected)
    place = tuple(int(i) for i in differs.nonzero()[0])
    share = f"{int(differs.sum())} of {differs.numel()} values differ"
    first = f"the first at {list(place)}: got {show(theirs[place].item())}, expected {show(ours[place].item())}"
    raise Mismatch(what, f"{share}, {first}", theirs, ours, place)


def show(value: Any) -> str:
    """Give a short text for a value of any kind."""
    if isinstance(value, torch.Tensor):
        if not value.ndim:
            return f"the 0-d tensor {show(value.item())}"
        return f"a tensor of shape {_shape(value)} and dtype {_dtype(value)}"
    if isinstance(value, np.ndarray):
        return f"an array of shape {_shape(value)} and dtype {_dtype(value)}"
    text = f"{value:.10g}" if isinstance(value, float) else repr(value)
    return text if len(text) <= 200 else text[:190] + "... (cut)"


def _shape(value: Any) -> str:
    return str(tuple(value.shape))


def _dtype(value: Any) -> str:
    return str(value.dtype).removeprefix("torch.")


def _finite(value: float | complex) -> bool:
    return math.isfinite(abs(value))


def _equal(got: Any, expected: Any) -> bool:
    if isinstance(expected, (list, tuple)):
        same_length = isinstance(got, (list, tuple)) and len(got) == len(expected)
        return same_length and all(map(_equal, got, expected))
    if isinstance(expected, dict):
        same_keys = isinstance(got, dict) and got.keys() == expected.keys()
        return same_keys and all(_equal(got[key], value) for key, value in expected.items())
    if isinstance(expected, (torch.Tensor, np.ndarray)):
        try:
            exact(got, expected)
        except AssertionError:
            return False
        return True
    if isinstance(got, (torch.Tensor, np.ndarray)):
        return not got.ndim and bool(got.item() == expected)
    # True == 1 in Python, but a mask is not a number
    return isinstance(got, bool) == isinstance(expected, bool) and bool(got == expected)
