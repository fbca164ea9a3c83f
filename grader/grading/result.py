"""The outcome of grading as plain data; everything that renders or stores reads only these classes.

A class of 100,000 is in memory at once, so outcomes have slots, and texts that all share are kept once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from grader.course import Chapter
from grader.verdict import Verdict

SCHEMA = "llm-from-stubs/results/v1"

__all__ = [
    "SCHEMA",
    "ExerciseOutcome",
    "Outcome",
    "TestOutcome",
    "Verdict",
    "by_student",
    "from_json",
    "to_json",
    "ungraded",
]


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """One hidden test: `title` is the first line of its docstring, the only part of it a student sees."""

    __test__ = False  # pytest would take the name for a test class

    id: str
    title: str
    weight: float
    verdict: Verdict
    detail: str = ""
    """For the instructor alone: the assertion's message. Never shown to a student."""


@dataclass(frozen=True, slots=True)
class ExerciseOutcome:
    """One exercise: score = points x weight passed / weight of all, computed by the grader."""

    name: str
    points: float
    score: float
    verdict: Verdict
    diagnosis: str
    """The misconception's sentence, or "" when none was recognised."""
    misconception: str
    """The misconception's name, or ""."""
    note: str
    """One sentence for the student that says what happened: an error's first line, a time limit, what it waits for."""
    tests: tuple[TestOutcome, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One student's chapter."""

    student: str
    chapter: str
    exercises: tuple[ExerciseOutcome, ...]
    problem: str = ""
    """Why the whole hand-in could not be graded (rejected, infra), in one sentence for the student; else ""."""
    flags: tuple[str, ...] = ()
    """For the instructor: what looks odd (both files edited, a forbidden name in the text)."""
    file: str = ""
    """Which file was graded, as a path inside the submission."""
    cpu_seconds: float = 0.0
    key: str = ""
    """The key under which the result is stored: a digest of submission, suite, environment and seed."""
    environment: Mapping[str, str] | None = None
    """Versions, and the isolation in force."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """What else the key is made of, each as a digest: hand_in, suite, grader, seed, choice."""

    @property
    def score(self) -> float:
        return round(sum(exercise.score for exercise in self.exercises), 6)

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def is_infra(self) -> bool:
        """Whether the machine, not the student, failed: to be graded again, never a zero."""
        return any(exercise.verdict is Verdict.INFRA for exercise in self.exercises)


def ungraded(student: str, chapter: Chapter, verdict: Verdict, problem: str) -> Outcome:
    """Give the outcome of what could not be graded at all: every exercise has the same verdict and no points."""
    exercises = tuple(ExerciseOutcome(e.name, e.points, 0.0, verdict, "", "", problem, ()) for e in chapter.exercises)
    return Outcome(student, chapter.name, exercises, problem)


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Give the outcome as JSON-ready data, with the sums."""
    return {**asdict(outcome), "score": outcome.score, "points": outcome.points}


def from_json(data: Mapping[str, Any]) -> Outcome:
    """Rebuild an outcome that `to_json` made."""
    fields = {key: value for key, value in data.items() if key not in ("score", "points")}
    fields["exercises"] = tuple(_exercise(item) for item in data["exercises"])
    fields["flags"] = tuple(data["flags"])
    for name in ("environment", "parts"):
        if data.get(name):
            fields[name] = {sys.intern(key): sys.intern(value) for key, value in data[name].items()}
    return Outcome(**fields)


def _exercise(data: Mapping[str, Any]) -> ExerciseOutcome:
    own = {key: sys.intern(data[key]) for key in ("name", "diagnosis", "misconception", "note")}
    tests = tuple(map(_test, data["tests"]))
    return ExerciseOutcome(**{**data, **own, "verdict": Verdict(data["verdict"]), "tests": tests})


def _test(data: Mapping[str, Any]) -> TestOutcome:
    own = {key: sys.intern(data[key]) for key in ("id", "title")}
    return TestOutcome(**{**data, **own, "verdict": Verdict(data["verdict"])})


def by_student(outcomes: Iterable[Outcome]) -> dict[str, list[Outcome]]:
    """Group outcomes by student, students and chapters in order."""
    students: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: (o.student, o.chapter)):
        students.setdefault(outcome.student, []).append(outcome)
    return students
