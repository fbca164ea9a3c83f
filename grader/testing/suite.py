"""What pytest items mean to the course: whose test, which claim, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from grader.course import Chapter, CourseError, read_chapter
from grader.sandbox.proxy import SandboxEnd, StudentError
from grader.verdict import State, Verdict, state_of


@dataclass(frozen=True)
class TestInfo:
    """One collected test."""

    __test__ = False

    id: str
    exercise: str
    weight: float
    title: str


@dataclass(frozen=True)
class Judgement:
    """What became of one test, and one sentence about it."""

    verdict: Verdict
    sentence: str = ""
    detail: str = ""


class LoadFailure(Exception):
    """The student's file cannot be loaded: one sentence that says where and why."""


class EndedInSetup(Exception):
    """The student's process was over before the test began."""

    def __init__(self, end: SandboxEnd) -> None:
        super().__init__(end.sentence)
        self.end = end


def info_of(item: pytest.Item) -> TestInfo:
    """Read a test's mark and docstring. Raises CourseError if it has no exercise."""
    mark = item.get_closest_marker("exercise")
    if mark is None:
        raise CourseError(f"{item.nodeid}: every test says whose it is; put @exercise(...) above it.")
    name, weight = mark.args
    doc = (getattr(getattr(item, "obj", None), "__doc__", None) or item.name).strip()
    title = doc.splitlines()[0].strip()
    return TestInfo(item.name, name, float(weight), title)


@cache
def chapter_of(folder: Path) -> Chapter | None:
    """Give the chapter that a test file's folder belongs to, or None outside a course."""
    root = folder.parent.parent
    for place in (folder, root / "chapters" / folder.name):  # in nbgrader's folders chapter.toml lies beside the tests
        if (place / "chapter.toml").is_file():
            return read_chapter(place, root / "solutions" / folder.name)
    return None


def judge(error: BaseException | None, exercise: str, chapter: Chapter | None) -> Judgement:
    """Say what an exception that ended a test means; None means that the test passed."""
    if error is None:
        return Judgement(Verdict.PASSED)
    if isinstance(error, EndedInSetup):
        error = error.end
    if isinstance(error, SandboxEnd):
        return Judgement(error.verdict, error.sentence)
    if isinstance(error, NotImplementedError):
        return _not_written(str(error), exercise, chapter)
    if isinstance(error, LoadFailure):
        return Judgement(Verdict.ERROR, str(error))
    if isinstance(error, StudentError):
        # the text may quote a hidden input, so the student hears the kind and the line; the instructor has the text
        return Judgement(Verdict.ERROR, describe(error), f"{error.names[:1]} {error}")
    if isinstance(error, (AssertionError, pytest.fail.Exception)):
        return Judgement(Verdict.WRONG, "", str(error))
    # The reference passes, so what broke the test is a value that the student returned: even a SuiteMistake, whose
    # expectation may have been computed from another value of the student's.
    return Judgement(Verdict.WRONG, "", f"{type(error).__name__}: {error}")


def describe(error: StudentError, quote: bool = False) -> str:
    """Give one sentence for an exception of the student's code; `quote` its words only where no test is involved."""
    name = type(error).__name__
    text = " ".join(error.text.split())[:300]
    line = error.frames[-1][0] if error.frames else 0
    place = f" in line {line}" if line else ""
    return f"it raises {name}{place}: {text}" if text and quote else f"it raises {name}{place}"


def _not_written(name: str, exercise: str, chapter: Chapter | None) -> Judgement:
    own: Any = next((e for e in chapter.exercises if e.name == exercise), None) if chapter else None
    if own is not None and chapter is not None and name not in own.functions:
        for other in chapter.exercises:
            if name in other.functions:
                return Judgement(Verdict.WAITS, f"waits for {name}")
    return Judgement(Verdict.TODO)


def state_words(judgements: Sequence[Judgement]) -> str:
    """Say in a few words how an exercise stands, such as "waits for softmax"."""
    state = state_of([judgement.verdict for judgement in judgements])
    if state is State.WRONG:
        failed = [j for j in judgements if j.verdict not in (Verdict.PASSED, Verdict.TODO, Verdict.WAITS)]
        return f"wrong: {len(failed)} of {len(judgements)} checks fail"
    if state is State.WAITS:
        return next(j.sentence for j in judgements if j.verdict is Verdict.WAITS)
    return str(state)
