"""The last result of each student's chapter in an output folder: what a regrade is compared with.

One line of JSON for each, so that of a large class only the lines that differ are read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grader.grading.result import Outcome
from grader.grading.store import write_atomically
from grader.verdict import Verdict

Place = tuple[str, str]
"""A student and a chapter."""


@dataclass(frozen=True)
class Mark:
    """What an exercise had."""

    score: float
    points: float
    verdict: Verdict


@dataclass(frozen=True)
class Entry:
    """What is remembered of a result."""

    student: str
    chapter: str
    file: str
    parts: Mapping[str, str]
    environment: Mapping[str, str]
    exercises: Mapping[str, Mark]


@dataclass(frozen=True)
class Regrade:
    """A result that is not made of the same, or not the same, as the one before it."""

    before: Entry
    after: Entry


def remember(file: Path, outcomes: Iterable[Outcome]) -> list[Regrade]:
    """Put the outcomes into the ledger and give those that stood there otherwise; what is infra changes nothing.

    Students and chapters that are not among the outcomes stay as they are.
    """
    new = {(o.student, o.chapter): _line(o) for o in outcomes if not o.is_infra}
    old = _lines(file)
    unchanged = set(new.values()) & set(old)
    before = {(entry.student, entry.chapter): (entry, line) for entry, line in _entries(old, unchanged)}
    rest = [line for place, (_, line) in before.items() if place not in new]
    lines = sorted([*rest, *new.values()])
    if lines != old:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "".join(line + "\n" for line in lines).encode())
    return [Regrade(before[place][0], _entry(line)) for place, line in new.items() if place in before]


def _line(outcome: Outcome) -> str:
    row = {
        "student": outcome.student,
        "chapter": outcome.chapter,
        "file": outcome.file,
        "parts": dict(outcome.parts),
        "environment": dict(outcome.environment or {}),
        "exercises": {e.name: [e.score, e.points, e.verdict.value] for e in outcome.exercises},
    }
    return json.dumps(row, allow_nan=False)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []  # the first run, or a ledger that somebody damaged: there is nothing to compare with


def _entries(lines: Iterable[str], unchanged: set[str]) -> Iterable[tuple[Entry, str]]:
    for line in lines:
        if line not in unchanged:
            try:
                entry = _entry(line)
            except (ValueError, KeyError, TypeError):
                continue
            yield entry, line


def _entry(line: str) -> Entry:
    row = json.loads(line)
    marks = {name: Mark(score, points, Verdict(verdict)) for name, (score, points, verdict) in row["exercises"].items()}
    return Entry(row["student"], row["chapter"], row["file"], row["parts"], row["environment"], marks)
