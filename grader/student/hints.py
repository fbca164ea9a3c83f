"""The ladder of hints: the first after an attempt, each further one after another; what was taken is remembered."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from grader.course import Exercise
from grader.student.drawer import Drawer
from grader.student.work import Work

PATIENCE = 10 * 60.0
"""Seconds after which the next hint is given even if nothing was changed: one may also think on paper."""


@dataclass(frozen=True)
class Ladder:
    """What `grader hint` shows: the hints given so far, and what opens the next one."""

    exercise: Exercise
    given: tuple[str, ...]
    is_new: bool
    """Whether the last of them was given just now."""
    wait: str
    """Why there is no further hint yet, or ""."""

    def to_json(self) -> dict[str, Any]:
        """Give the ladder as plain data."""
        shown = {"id": self.exercise.id, "hints": list(self.given), "of": len(self.exercise.hints)}
        return {**shown, "new": self.is_new, "wait": self.wait}


def climb(work: Work, exercise: Exercise, drawer: Drawer, now: bool = False) -> Ladder:
    """Give the next hint if its time has come, and remember that it was given.

    Args:
        work: the student's file.
        exercise: the exercise.
        drawer: what the desk remembers; it is saved.
        now: give the next hint whether or not there was an attempt.
    """
    taken: list[dict[str, Any]] = list(drawer.hints.get(exercise.id, []))
    wait = "" if now else _wait(work, exercise, taken)
    if not wait and len(taken) < len(exercise.hints):
        taken.append({"time": time.time(), "text": _digest(work, exercise)})
        drawer.hints[exercise.id] = taken
        drawer.save()
        return Ladder(exercise, exercise.hints[: len(taken)], True, "")
    return Ladder(exercise, exercise.hints[: len(taken)], False, wait)


def _wait(work: Work, exercise: Exercise, taken: list[dict[str, Any]]) -> str:
    if len(taken) >= len(exercise.hints):
        return "that was the last hint; the notes of the chapter say the rest"
    if not taken:
        return "" if work.is_begun(exercise) else "try it first: write a line, save, and ask again"
    same = taken[-1].get("text") == _digest(work, exercise)
    left = PATIENCE - (time.time() - float(taken[-1].get("time", 0)))
    if same and left > 0:
        return f"the next hint comes after another attempt, or in {int(left // 60) + 1} minutes"
    return ""


def _digest(work: Work, exercise: Exercise) -> str:
    return hashlib.sha256(work.text(exercise).encode()).hexdigest()
