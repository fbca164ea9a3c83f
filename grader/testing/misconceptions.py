"""Wrong answers as runnable code, each with the sentence that sets a student right."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from grader.testing.loading import load_module

Subject = TypeVar("Subject", bound=Callable[..., Any])


@dataclass(frozen=True)
class Misconception:
    """One typical wrong answer: `value` takes the place of `replaces` in the reference."""

    name: str
    exercise: str
    sentence: str
    replaces: str
    value: Any


def misconception(exercise: str, sentence: str, replaces: str | None = None) -> Callable[[Subject], Subject]:
    """Mark a function or class as a misconception of `exercise`; it stands in for `replaces`, or for the exercise."""

    def mark(subject: Subject) -> Subject:
        details = Misconception(subject.__name__, exercise, sentence, replaces or exercise, subject)
        subject._misconception = details  # type: ignore[attr-defined]
        return subject

    return mark


def load_misconceptions(file: Path) -> list[Misconception]:
    """Read a chapter's misconceptions.py, in the order of the file."""
    module = load_module(file, f"solutions.{file.parent.name}.misconceptions")
    found = (vars(value).get("_misconception") for value in vars(module).values() if hasattr(value, "__dict__"))
    return [details for details in found if isinstance(details, Misconception)]


def mistaken_module(reference: Path, wrong: Misconception) -> types.ModuleType:
    """Give a fresh reference module in which the misconception has taken the place of the right answer."""
    module = load_module(reference, f"solutions.{reference.parent.name}.{wrong.name}")
    setattr(module, wrong.replaces, wrong.value)
    return module
