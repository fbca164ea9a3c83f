"""What the desk asks of a process that runs tests, and what it hears back: plain data, so that it crosses a pipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grader.verdict import Verdict


@dataclass(frozen=True)
class Order:
    """Run the tests of some exercises of one chapter against one file."""

    suite: str
    file: str
    exercises: tuple[str, ...]
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        """Give the order as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Checked:
    """What became of one test."""

    id: str
    exercise: str
    weight: float
    claim: str
    verdict: Verdict
    sentence: str
    lesson: Mapping[str, Any] | None


@dataclass(frozen=True)
class Answer:
    """What came of an order: a verdict for each test, or the reason why there is none."""

    number: int
    tests: tuple[Checked, ...] = ()
    printed: str = ""
    """What the student's code printed."""
    problem: str = ""
    """Why no test ran, in one sentence; "" if all did."""
    is_machine: bool = False
    """Whether the problem is the machine's own fault."""

    def of(self, exercise: str) -> list[Checked]:
        """Give the tests of one exercise."""
        return [test for test in self.tests if test.exercise == exercise]


def order_from_json(data: Mapping[str, Any]) -> Order:
    """Give back what `to_json` gave."""
    return Order(data["suite"], data["file"], tuple(data["exercises"]), data["number"])


def answer_from_json(data: Mapping[str, Any]) -> Answer:
    """Read what a process that runs tests has written."""
    tests: Sequence[Mapping[str, Any]] = data.get("tests", ())
    read = tuple(Checked(**{**test, "verdict": Verdict(test["verdict"])}) for test in tests)
    return Answer(data["number"], read, data.get("printed", ""), data.get("problem", ""), data.get("is_machine", False))
