"""Shapes in words: the names of axes as a docstring gives them, and what a wrong shape says with them.

The docstrings of the course write shapes such as `q: (B, H, T, hd) queries` and `Returns: (B, H, T, hv)`. Where a
docstring says nothing of the kind, the words do without names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

Shape = tuple[int, ...]

_SHAPE = r"\((?P<axes>(?:\.\.\.|\w+)(?:\s*,\s*(?:\.\.\.|\w+))*\s*,?)\)"
_ARGUMENT = re.compile(rf"^\s*(?P<name>\w+):\s[^(\n]{{0,40}}?{_SHAPE}", re.MULTILINE)
_RETURN = re.compile(rf"^[^(\n]{{0,40}}?{_SHAPE}", re.MULTILINE)
_TORCH_SIZES = re.compile(r"\((\d+)x(\d+) and (\d+)x(\d+)\)")
_TORCH_BATCHES = re.compile(r"first two dimensions of batch2 tensor to be: \[\d+, (\d+)\] but got: \[\d+, (\d+)\]")
_TORCH_BROADCAST = re.compile(r"size of tensor a \((\d+)\) must match the size of tensor b \((\d+)\)")
_TORCH_VIEW = re.compile(r"shape '(\[[^']*\])' is invalid for input of size (\d+)")


def argument_axes(docstring: str) -> dict[str, tuple[str, ...]]:
    """Give the names of the axes of each argument whose shape the docstring's `Args:` name."""
    part = _section(docstring, "Args")
    return {match["name"]: _names(match["axes"]) for match in _ARGUMENT.finditer(part)}


def return_axes(docstring: str) -> tuple[str, ...]:
    """Give the names of the axes of the result, or () where the docstring's `Returns:` name no shape."""
    match = _RETURN.search(_section(docstring, "Returns").strip())
    return _names(match["axes"]) if match else ()


def _section(docstring: str, title: str) -> str:
    text = inspect.cleandoc(docstring)
    match = re.search(rf"^{title}:\s*\n((?:[ \t]+.*\n?|\n)*)", text, re.MULTILINE)
    return match[1] if match else ""


def _names(axes: str) -> tuple[str, ...]:
    return tuple(name for name in re.split(r"\s*,\s*", axes.strip()) if name)


def sizes_of(axes: Mapping[str, tuple[str, ...]], shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Bind the names of axes to the sizes that the arguments of one call have."""
    sizes: dict[str, int] = {}
    for name, names in axes.items():
        for axis, size in _aligned(names, shapes.get(name, ())):
            sizes.setdefault(axis, size)
    return sizes


def _aligned(names: Sequence[str], shape: Shape) -> list[tuple[str, int]]:
    """Pair names with sizes; `...` stands for any number of axes."""
    if "..." in names:
        at = names.index("...")
        back = len(names) - at - 1
        pairs = [*zip(names[:at], shape, strict=False)]
        return pairs + ([*zip(names[at + 1 :], shape[-back:], strict=False)] if back else [])
    return [*zip(names, shape, strict=True)] if len(names) == len(shape) else []


def wrong_shape(got: Shape, expected: Shape, axes: Sequence[str] = ()) -> str:
    """Say in words what is wrong with a shape; `axes` name the axes of the expected one."""
    if len(got) != len(expected):
        wanted = f"{_count(len(expected))} {_listed(axes) if len(axes) == len(expected) else expected}"
        return f"the result has {_count(len(got))} {got}, but should have {wanted}".replace("  ", " ")
    named = [name for name, _ in _aligned(axes, expected)] if "..." not in axes else []
    names = [f"axis {name}" for name in named] or [f"axis {at}" for at in range(len(expected))]
    wrong = [at for at in range(len(expected)) if got[at] != expected[at]]
    if len(wrong) == 2 and (got[wrong[0]], got[wrong[1]]) == (expected[wrong[1]], expected[wrong[0]]):
        return f"{names[wrong[0]]} and {names[wrong[1]]} are exchanged: got {got}, expected {expected}"
    return "; ".join(f"{names[at]} should be {expected[at]}, got {got[at]}" for at in wrong)


def _count(axes: int) -> str:
    return "1 axis" if axes == 1 else f"{axes} axes"


def _listed(axes: Sequence[str]) -> str:
    return f"({', '.join(axes)})"


def torch_error(text: str, sizes: Mapping[str, int]) -> str:
    """Say torch's commonest complaints about shapes in words, or give "" for any other text."""
    if match := _TORCH_SIZES.search(text):
        a, b, c, d = map(int, match.groups())
        return (
            f"a matrix product needs the inner sizes to be equal: ({a}, {b}) times ({c}, {d}), "
            f"but {_known(b, sizes)} meets {_known(c, sizes)}"
        )
    if match := _TORCH_BATCHES.search(text):
        a, b = map(int, match.groups())
        return (
            f"a matrix product needs the last axis of the left to equal the last but one of the right, "
            f"but {_known(a, sizes)} meets {_known(b, sizes)}"
        )
    if match := _TORCH_BROADCAST.search(text):
        a, b = map(int, match.groups())
        return (
            f"two shapes do not broadcast: {_known(a, sizes)} meets {_known(b, sizes)}; one of them would have to be 1"
        )
    if match := _TORCH_VIEW.search(text):
        return f"a tensor of {match[2]} values cannot take the shape {match[1]}: the sizes must multiply to {match[2]}"
    return ""


def _known(size: int, sizes: Mapping[str, int]) -> str:
    names = [name for name, value in sizes.items() if value == size]
    return f"{size} ({' or '.join(names)})" if names else str(size)


def shapes_of(arguments: Mapping[str, Any]) -> dict[str, Shape]:
    """Give the shapes of those arguments that have one."""
    return {name: tuple(value.shape) for name, value in arguments.items() if hasattr(value, "shape")}
