"""What holds a chapter's figure to its reference: `solutions/NN_name/figure.py` says what each computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from grader.testing.loading import load_module
from grader.testing.rng import Rng

Subject = TypeVar("Subject", bound=Callable[..., Any])


@dataclass(frozen=True)
class Mirror:
    """A function that the figure's module exports, and random arguments with what the reference makes of them."""

    export: str
    case: Callable[[Rng], tuple[list[Any], Any]]


@dataclass(frozen=True)
class Shown:
    """Settings of the figure's controls, and a text that its sentence then holds."""

    settings: dict[str, Any]
    text: Callable[[], str]


def mirror(export: str) -> Callable[[Subject], Subject]:
    """Mark `case(rng) -> (arguments, expected)`: the figure's `export`, called with them, must give the expected value.

    Tensors cross as lists; numbers are compared to nine digits.
    """

    def mark(subject: Subject) -> Subject:
        subject._figure = Mirror(export, subject)  # type: ignore[attr-defined]
        return subject

    return mark


def shown(**settings: Any) -> Callable[[Subject], Subject]:
    """Mark `text() -> str`: when the figure's controls, by name, are set so, its sentence holds that text.

    The text is made with the reference.
    """

    def mark(subject: Subject) -> Subject:
        subject._figure = Shown(settings, subject)  # type: ignore[attr-defined]
        return subject

    return mark


def load_figure(file: Path) -> tuple[list[Mirror], list[Shown]]:
    """Read a chapter's figure.py, in the order of the file."""
    module = load_module(file, f"solutions.{file.parent.name}.figure")
    found = [vars(value).get("_figure") for value in vars(module).values() if hasattr(value, "__dict__")]
    return [each for each in found if isinstance(each, Mirror)], [each for each in found if isinstance(each, Shown)]
