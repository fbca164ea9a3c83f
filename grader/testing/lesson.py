"""A failing check as a lesson: the claim, the call, expected against got, the line of the student's code.

Everything in it is drawn from the values themselves, so it cannot disagree with what happened.
"""

from __future__ import annotations

import os
import re
import traceback
import types
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grader.sandbox.proxy import SandboxEnd, Trace
from grader.testing.axes import argument_axes, return_axes, shapes_of, sizes_of, torch_error, wrong_shape
from grader.testing.calls import Call, gave, telling_call, written
from grader.testing.compare import Mismatch, show
from grader.testing.draw import pair
from grader.testing.suite import LoadFailure, TestInfo

Files = frozenset[str]
HUGE = 1 << 60
"""The size of a lesson without a call: any other is easier to look at."""


@dataclass(frozen=True)
class Lesson:
    """What a student reads when a check fails. Plain strings, so that it travels as JSON."""

    exercise: str
    claim: str
    body: tuple[str, ...]
    """The call with its small tensors, what happened in a sentence, got beside expected."""
    place: str
    """The line of the student's file, such as `chapters/06_attention/exercises.py:41`."""
    line: int
    size: int
    """How much there is to look at; of several failures the smallest teaches best."""

    def to_json(self) -> dict[str, Any]:
        """Give the lesson as plain data."""
        return asdict(self)


def teach(info: TestInfo, error: BaseException, file: Path, trace: Trace, module: types.ModuleType | None) -> Lesson:
    """Make the lesson of one failed test.

    Args:
        info: the test.
        error: the exception that ended it.
        file: the student's file.
        trace: the test's conversation with the student's code.
        module: the student's module, for signatures and docstrings.
    """
    call = telling_call(trace, module, error.got if isinstance(error, Mismatch) else None)
    own = _own_files(file, module)
    words, drawing = _what_happened(error, own, call)
    called = call.function if call is not None and call.function is not None else getattr(module, info.exercise, None)
    line = _line_raised(error, own) or _line_of(called)
    return Lesson(
        exercise=info.exercise,
        claim=info.title,
        body=tuple(
            _body(None if isinstance(error, LoadFailure) else call, words, [*drawing, *_falsified(error, call)])
        ),
        place=f"{os.path.relpath(file)}:{line}" if line else os.path.relpath(file),
        line=line,
        size=call.size if call is not None else HUGE,
    )


def _body(call: Call | None, words: str, drawing: list[str]) -> Iterator[str]:
    lines = written(call) if call is not None else []
    if len(lines) != 1 or not words.startswith(f"{lines[0]}:"):  # the sentence begins with the call anyway
        yield from lines
    yield from words.splitlines()
    yield from (f"  {line}" for line in drawing)


def _falsified(error: BaseException, call: Call | None) -> list[str]:
    """Give hypothesis's own words for the smallest input, where there is no call to show."""
    notes = [note for note in getattr(error, "__notes__", []) if note.startswith("Falsifying example")]
    return [line for note in notes for line in note.splitlines()] if call is None else []


def _what_happened(error: BaseException, own: Files, call: Call | None) -> tuple[str, list[str]]:
    if isinstance(error, Mismatch):
        return _mismatch(error, call)
    if isinstance(error, (LoadFailure, SandboxEnd)):
        return str(error), []
    if isinstance(error, pytest.fail.Exception):
        missing = re.fullmatch(r"DID NOT RAISE (?:<class ')?(?:[\w.]*\.)?(\w+)(?:'>)?", str(error))
        return (f"it raises nothing, but should raise {missing[1]}" if missing else str(error)), []
    if isinstance(error, AssertionError):
        return str(error), []
    if _line_raised(error, own):
        return _raised(error, own, call), []
    return f"the test could not use what came back: {type(error).__name__}: {error}", []


def _mismatch(error: Mismatch, call: Call | None) -> tuple[str, list[str]]:
    got, expected = error.got, error.expected
    if error.place is not None:
        drawing = pair(got, expected, error.place) if expected.ndim else []
        return f"{error.what}: {error.words}", drawing
    if type(got) is type(expected) and isinstance(got, (torch.Tensor, np.ndarray)) and got.shape != expected.shape:
        axes = return_axes(call.docstring) if call is not None and gave(call, got) else ()
        return f"{error.what}: {wrong_shape(tuple(got.shape), tuple(expected.shape), axes)}", []
    if isinstance(expected, (torch.Tensor, np.ndarray)) or type(got) is not type(expected):
        return str(error), []
    if len(show(got) + show(expected)) < 40:
        return f"{error.what}: got {show(got)}, expected {show(expected)}", []
    drawing = [f"got       {show(got)}", f"expected  {show(expected)}"]
    return f"{error.what}: {_first_difference(got, expected)}", drawing


def _first_difference(got: Any, expected: Any) -> str:
    if not isinstance(expected, (list, tuple, str, bytes)):
        return "the two differ"
    at = next((at for at, (a, b) in enumerate(zip(got, expected, strict=False)) if _differ(a, b)), None)
    if at is not None:
        return f"they part at index {at}"
    return f"got {len(got)} items, expected {len(expected)}"


def _differ(one: Any, other: Any) -> bool:
    different = one != other
    return bool(different.any()) if hasattr(different, "any") else bool(different)


def _raised(error: BaseException, own: Files, call: Call | None) -> str:
    frame = list(_frames(error, own))[-1]
    sizes = sizes_of(argument_axes(call.docstring), shapes_of(call.arguments)) if call is not None else {}
    explained = torch_error(str(error), sizes)
    text = explained or " ".join(str(error).split())[:300]
    raised = f"it raises {type(error).__name__} in line {frame.lineno}"
    return f"{raised}: {text}" + (f"\n      {frame.line}" if frame.line else "")


def _own_files(file: Path, module: types.ModuleType | None) -> Files:
    """Name the files of the student's code: in a live notebook each cell is one."""
    members = list(vars(module).values()) if module is not None else []
    own = [member for member in members if getattr(member, "__module__", "") == getattr(module, "__name__", None)]
    codes = [code for member in own for code in _codes(member)]
    return frozenset([str(file), *(code.co_filename for code in codes)])


def _codes(member: Any) -> list[types.CodeType]:
    functions = vars(member).values() if isinstance(member, type) else [member]
    return [code for function in functions if isinstance(code := getattr(function, "__code__", None), types.CodeType)]


def _frames(error: BaseException, own: Files) -> Iterator[traceback.FrameSummary]:
    return (frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own)


def _line_raised(error: BaseException, own: Files) -> int:
    return next((frame.lineno or 0 for frame in reversed(list(_frames(error, own)))), 0)


def _line_of(function: Any) -> int:
    """Give the line at which the student's function or class begins, or 0."""
    return min((code.co_firstlineno for code in _codes(function)), default=0) if function is not None else 0
