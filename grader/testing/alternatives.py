"""Right answers in other styles, as runnable code: a suite that fails one of them tests more than the contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from grader.testing.loading import load_module

Subject = TypeVar("Subject", bound=Callable[..., Any])


@dataclass(frozen=True)
class Alternative:
    """Another right answer: `name` takes the place of `replaces` in the reference."""

    name: str
    exercise: str
    style: str
    replaces: str


def alternative(exercise: str, style: str, replaces: str | None = None) -> Callable[[Subject], Subject]:
    """Mark a function or class as another right answer to `exercise`; it stands in for `replaces`, or the exercise."""

    def mark(subject: Subject) -> Subject:
        details = Alternative(subject.__name__, exercise, style, replaces or exercise)
        subject._alternative = details  # type: ignore[attr-defined]
        return subject

    return mark


def load_alternatives(file: Path) -> list[Alternative]:
    """Read a chapter's alternatives.py, in the order of the file."""
    module = load_module(file, f"solutions.{file.parent.name}.alternatives")
    found = (vars(value).get("_alternative") for value in vars(module).values() if hasattr(value, "__dict__"))
    return [details for details in found if isinstance(details, Alternative)]
