"""How exercises behave as questions: whether they tell strong work from weak, and how long a class needs for them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grader.grading.history import HandIn
from grader.report.statistics import Results
from grader.report.words import Standing, share, standing

LEAST_ANSWERS = 20
"""With fewer the correlation is mostly noise: its standard error is about 1 / sqrt(n - 3)."""
POOR = 0.2
"""Below it an exercise is said to discriminate badly (Ebel and Frisbie, Essentials of Educational Measurement)."""
DAY = 86400.0


@dataclass(frozen=True)
class Item:
    """One exercise; None where too little is known."""

    chapter: str
    name: str
    discrimination: float | None
    """The correlation of its score with the score of the rest of the chapter, from -1 to 1."""
    hand_ins: float | None
    """The median number of the hand-in with which it was right for the first time."""
    days: float | None
    """The median of the days between the first hand-in and that one."""
    passed: int
    """How many students that is."""

    @property
    def is_poor(self) -> bool:
        return self.discrimination is not None and self.discrimination < POOR


def items(results: Results, history: Iterable[HandIn] = ()) -> list[Item]:
    """Give one item for each exercise that was graded, in order of chapter and first appearance."""
    times = _times(history)
    found = []
    for (chapter, name), pairs in _pairs(results).items():
        own = times.get((chapter, name), [])
        found.append(
            Item(
                chapter,
                name,
                _correlation(pairs) if len(pairs) >= LEAST_ANSWERS else None,
                statistics.median(number for number, _ in own) if own else None,
                statistics.median(seconds for _, seconds in own) / DAY if own else None,
                len(own),
            )
        )
    return found


def _pairs(results: Results) -> Mapping[tuple[str, str], list[tuple[float, float]]]:
    """Give for each exercise the share of it and of the rest of its chapter, of each student who was graded."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for chapter in sorted({name for own in results.values() for name in own}):
        for own in results.values():
            outcome = own.get(chapter)
            graded = outcome.exercises if outcome and not outcome.is_infra and not outcome.problem else ()
            for exercise in graded:
                rest = [other for other in graded if other is not exercise]
                points = sum(other.points for other in rest)
                if points and standing(exercise) is not Standing.AGAIN:
                    pair = (share(exercise), sum(other.score for other in rest) / points)
                    pairs.setdefault((chapter, exercise.name), []).append(pair)
    return pairs


def _correlation(pairs: list[tuple[float, float]]) -> float | None:
    """Pearson's; None where one of the two does not vary, so that nothing can be said."""
    own, rest = ([pair[side] for pair in pairs] for side in (0, 1))
    if max(own) - min(own) < 1e-12 or max(rest) - min(rest) < 1e-12:
        return None
    value = statistics.correlation(own, rest)
    return value if math.isfinite(value) else None


def _times(history: Iterable[HandIn]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """Give for each exercise and student who got it right: with which hand-in, and how many seconds after the first."""
    hand_ins: dict[tuple[str, str], list[HandIn]] = {}
    for each in sorted(history, key=lambda each: each.at):
        hand_ins.setdefault((each.student, each.chapter), []).append(each)
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for (_, chapter), own in hand_ins.items():
        done: set[str] = set()
        for number, each in enumerate(own, start=1):
            for name in sorted(each.right - done):
                found.setdefault((chapter, name), []).append((number, (each.at - own[0].at).total_seconds()))
            done |= each.right
    return found
