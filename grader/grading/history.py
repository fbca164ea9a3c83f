"""When each hand-in was first graded, and what was right in it: how long a class needs for an exercise.

A line of JSON for each, added at the end. The time is the grader's own: what a hand-in says of its time can be forged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from grader.grading.result import Outcome
from grader.verdict import Verdict


@dataclass(frozen=True)
class HandIn:
    """One version of a student's chapter, the first time that it was graded."""

    student: str
    chapter: str
    digest: str
    at: datetime
    right: frozenset[str]
    """The exercises that had every point."""


def note_hand_ins(file: Path, outcomes: Iterable[Outcome], now: datetime) -> list[HandIn]:
    """Add the hand-ins that were never seen before, and give all, the oldest first; what is infra is not one."""
    known = _read(file)
    seen = {(each.student, each.chapter, each.digest) for each in known}
    new = [_of(outcome, now) for outcome in outcomes if not outcome.is_infra and outcome.parts.get("hand_in")]
    new = [each for each in new if (each.student, each.chapter, each.digest) not in seen]
    if new:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.writelines(_line(each) + "\n" for each in new)
    return [*known, *new]


def _of(outcome: Outcome, now: datetime) -> HandIn:
    right = frozenset(e.name for e in outcome.exercises if e.verdict is Verdict.PASSED)
    return HandIn(outcome.student, outcome.chapter, outcome.parts["hand_in"], now.replace(microsecond=0), right)


def _line(each: HandIn) -> str:
    row = [each.student, each.chapter, each.digest, each.at.astimezone(UTC).isoformat(), sorted(each.right)]
    return json.dumps(row)


def _read(file: Path) -> list[HandIn]:
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            student, chapter, digest, at, right = json.loads(line)
            found.append(HandIn(student, chapter, digest, datetime.fromisoformat(at), frozenset(right)))
        except (ValueError, TypeError):
            continue  # the half of a line that a stopped run left
    return found
