"""Small things a test uses: whose test it is, purity, counted callables, drivers."""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch

from grader.testing.compare import exact


def exercise(name: str, weight: float = 1.0) -> pytest.MarkDecorator:
    """Mark a test as belonging to the exercise `name`; its share of the points is its weight over all weights."""
    return pytest.mark.exercise(name, weight)


def pure(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call `function`, assert that it changed none of its arguments, and give its result."""
    before = _copies(args), {key: _copies([value])[0] for key, value in kwargs.items()}
    value, args_after, kwargs_after = function.observed(*args, **kwargs)
    for index, (was, now) in enumerate(zip(before[0], args_after, strict=True)):
        _unchanged(was, now, f"argument {index + 1} of {function!r}")
    for key, was in before[1].items():
        _unchanged(was, kwargs_after[key], f"argument {key} of {function!r}")
    return value


def _copies(values: Iterable[Any]) -> list[Any]:
    return [value if callable(value) or hasattr(value, "__next__") else copy.deepcopy(value) for value in values]


def _unchanged(was: Any, now: Any, what: str) -> None:
    if callable(was) or hasattr(was, "__next__") or isinstance(was, (torch.Generator, np.random.Generator)):
        return  # what stays on this side, or is meant to move on
    if type(was) in (list, tuple) and type(now) is type(was) and len(now) == len(was):
        for before, after in zip(was, now, strict=True):
            _unchanged(before, after, what)
        return
    if isinstance(was, (torch.Tensor, np.ndarray)) and was.dtype in (torch.float32, torch.float64, np.float64):
        was, now = torch.as_tensor(was).nan_to_num(), torch.as_tensor(now).nan_to_num()
    try:
        exact(now, was)
    except AssertionError:
        raise AssertionError(f"{what} was changed by the call; work on a copy") from None


class Counting:
    """A callable that remembers how often and with what it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.arguments: list[tuple[Any, ...]] = []
        self.attributes: dict[str, Any] = getattr(function, "attributes", {})

    @property
    def calls(self) -> int:
        return len(self.arguments)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.arguments.append(args)
        return self.function(*args, **kwargs)


def counting(function: Callable[..., Any]) -> Counting:
    """Wrap a callable so that `.calls` and `.arguments` tell what student code did with it."""
    return Counting(function)


class StandIn:
    """A callable with attributes that student code can read."""

    def __init__(self, function: Callable[..., Any], attributes: dict[str, Any]) -> None:
        self.function, self.attributes = function, attributes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["attributes"][name]
        except KeyError:
            raise AttributeError(name) from None


def stand_in(function: Callable[..., Any], **attributes: Any) -> StandIn:
    """Give a callable that also carries plain attributes; a dict is read as nested attributes (`model.cfg.T_max`)."""
    return StandIn(function, attributes)


class Driver:
    """A function that runs beside the student's code; called directly it runs here."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = function.__name__
        self.source = _source_without_decorators(function)
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def driver(function: Callable[..., Any]) -> Driver:
    """Turn a self-contained function `f(module, *args)` into a driver for `exercises.run(f, *args)`.

    Its source text crosses to the student's process, so its imports are inside it and it holds no expected value.
    """
    return Driver(function)


def _source_without_decorators(function: Callable[..., Any]) -> str:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    definition.returns = None
    for argument in (*definition.args.args, *definition.args.kwonlyargs):
        argument.annotation = None  # annotations may name imports of the test file
    return ast.unparse(tree)
