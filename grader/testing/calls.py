"""The calls that a test made of the student's code, read back from the conversation, and how to write it down."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from grader.sandbox import wire
from grader.sandbox.proxy import Trace
from grader.testing.draw import grid

MAX_INLINE = 40
MAX_DRAWN = 24


class Named:
    """Stands for what did not cross: an object, a callable, a generator."""

    def __init__(self, name: str, number: int = -1) -> None:
        self.name, self.number = name, number

    def __repr__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """One call of student code: by what name, with which arguments, and what it gave."""

    name: str
    arguments: Mapping[str, Any]
    """By parameter where the student's signature names them, else by position."""
    value: Any = None
    function: Any = field(default=None, repr=False)
    """The student's function or class, if the module has it by that name."""

    @property
    def docstring(self) -> str:
        return getattr(self.function, "__doc__", None) or ""

    @property
    def size(self) -> int:
        """How much there is to look at: elements of the arguments and of the result."""
        return sum(map(_elements, [*self.arguments.values(), self.value]))


def telling_call(trace: Trace, module: types.ModuleType | None, got: Any = None) -> Call | None:
    """Give the call of a test's conversation that tells most: the last that gave `got`, else the last of all."""
    every = list(_calls(trace, module))
    # an iterator's next item and a length are no calls that a student would know again
    calls = [call for call in every if not call.name.endswith("__")] or every
    giving = [call for call in calls if gave(call, got)]
    return next(iter([*reversed(giving), *reversed(calls)]), None)


def gave(call: Call, value: Any) -> bool:
    """Whether `value` is what the call gave, and not something that the test made of it."""
    if isinstance(value, torch.Tensor) and isinstance(call.value, torch.Tensor):
        same_kind = value.shape == call.value.shape and value.dtype == call.value.dtype
        return same_kind and torch.allclose(value, call.value, rtol=0, atol=0, equal_nan=value.is_floating_point())
    if isinstance(value, np.ndarray) or isinstance(call.value, np.ndarray) or value is None:
        return False
    return type(value) is type(call.value) and bool(value == call.value)


def _calls(trace: Trace, module: types.ModuleType | None) -> Iterator[Call]:
    names: dict[int, str] = {}
    for request, reply in trace.exchanges:
        try:
            message, answer = wire.decode(request, _asked(names)), wire.decode(reply, _answered(names))
        except wire.WireError:  # an answer too large to be kept, or one that is damaged
            continue
        if message[2] == "get" and isinstance(answer[2], Named):  # a method, before it is called
            names[answer[2].number] = f"{message[3]!r}.{message[4]}" if message[3] is not None else message[4]
        if message[2] == "call":
            target, name, args, kwargs = message[3:7]
            yield _call(target, name, args, kwargs, answer[2] if answer[1] == "ok" else None, module)


def _asked(names: Mapping[int, str]) -> wire.Resolve:
    def resolve(node: list[Any]) -> Any:
        words = {"k": "a function", "i": "an iterator", "G": "a generator"}
        return Named(names.get(node[1], "<object>") if node[0] == "h" else words.get(node[0], "object"))

    return resolve


def _answered(names: dict[int, str]) -> wire.Resolve:
    def resolve(node: list[Any]) -> Any:
        names.setdefault(node[1], f"<{node[2]}>")
        return Named(names[node[1]], node[1])

    return resolve


def _call(target: Any, name: str | None, args: Any, kwargs: Any, value: Any, module: types.ModuleType | None) -> Call:
    function = getattr(module, name, None) if module is not None and target is None and name else None
    written = ".".join(part for part in (repr(target) if target is not None else "", name or "") if part)
    return Call(written, _by_name(function, args, kwargs), value, function)


def _by_name(function: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    try:
        bound = inspect.signature(function).bind(*args, **kwargs)
    except (TypeError, ValueError):  # no such function, no signature, or one that does not take these arguments
        return {**{str(at): value for at, value in enumerate(args)}, **kwargs}
    plain: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            plain.update(value)
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            plain.update({f"{name}[{at}]": item for at, item in enumerate(value)})
        else:
            plain[name] = value
    return plain


def written(call: Call) -> list[str]:
    """Write a call: the line itself, then the tensors that are small enough to be drawn."""
    parts: list[str] = []
    shapes: list[str] = []
    drawn: list[str] = []
    for name, value in call.arguments.items():
        short = _inline(value)
        label = f"argument {int(name) + 1}" if name.isdigit() else name
        if short is not None:
            parts.append(short if name.isdigit() or not parts else f"{name}={short}")
        else:
            parts.append(f"{_kind(value)}{_shape(value)}" if name.isdigit() else name)
            if _is_drawable(value):
                drawn += _drawn(label, value)
            elif not name.isdigit():
                shapes.append(f"{name} {_shape(value)}")
    line = f"{call.name}({', '.join(parts)})" + (f" with {', '.join(shapes)}" if shapes else "")
    return [line, *drawn]


def _drawn(label: str, value: Any) -> list[str]:
    rows = grid(torch.as_tensor(value))
    lead = f"  {label} ="
    return [f"{lead if at == 0 else ' ' * len(lead)}{row}" for at, row in enumerate(rows)]


def _inline(value: Any) -> str | None:
    """Give a short text for a value, or None where it has to be drawn or described."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        if value.ndim == 1 and 0 < _elements(value) <= 4:
            text = ", ".join(f"{item:.6g}" if isinstance(item, float) else str(item) for item in value.tolist())
            return f"tensor([{text}])" if len(text) <= MAX_INLINE else None
        return None if value.ndim else f"{value.item():.6g}"
    text = repr(value)
    return text if len(text) <= MAX_INLINE else None


def _is_drawable(value: Any) -> bool:
    is_array = isinstance(value, (torch.Tensor, np.ndarray))
    return is_array and 1 <= value.ndim <= 2 and 0 < _elements(value) <= MAX_DRAWN and max(value.shape) <= 8


def _shape(value: Any) -> str:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return str(tuple(value.shape))
    if isinstance(value, (list, tuple, dict, set, str, bytes)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _kind(value: Any) -> str:
    return "tensor " if isinstance(value, torch.Tensor) else ""


def _elements(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel()
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, (list, tuple, set)):
        return sum(map(_elements, value))
    return len(value) if isinstance(value, (str, bytes, dict)) else 1
