"""Where the student stands: each exercise's state, remembered as long as nothing that it depends on has changed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from grader.course import Chapter, CourseError, Exercise
from grader.student.drawer import Drawer
from grader.student.orders import Answer, Checked, Order
from grader.student.work import Work, read_any, short
from grader.student.worker import ask_all
from grader.verdict import State, Verdict, state_of

LIMIT = 20.0
"""Seconds after which an exercise is given up; the public suite of a whole chapter takes three."""


@dataclass(frozen=True)
class Standing:
    """One exercise as it stands now."""

    exercise: Exercise
    state: State
    words: str
    """The state in words, such as "waits for softmax" or "wrong: 2 of 3 checks fail"."""
    earned: float
    place: str
    tests: tuple[Checked, ...] = ()
    """What became of its tests, if they have just been run."""

    def to_json(self) -> dict[str, Any]:
        """Give the standing as plain data."""
        tests = [
            {"id": t.id, "claim": t.claim, "verdict": t.verdict, "sentence": t.sentence, "lesson": t.lesson}
            for t in self.tests
        ]
        shown = {"id": self.exercise.id, "state": self.state, "words": self.words, "place": self.place}
        return {**shown, "earned": round(self.earned, 4), "points": self.exercise.points, "tests": tests}

    def lesson(self) -> dict[str, Any] | None:
        """Give the failure that is easiest to look at, or None."""
        lessons = [dict(test.lesson) for test in self.tests if test.lesson is not None]
        return min(lessons, key=lambda lesson: int(lesson["size"]), default=None)


@dataclass(frozen=True)
class Run:
    """What came of running some exercises of a chapter."""

    exercises: tuple[Exercise, ...]
    standings: tuple[Standing, ...]
    printed: str = ""
    problem: str = ""
    is_machine: bool = False


def order_for(work: Work, exercises: Iterable[Exercise], number: int = 0) -> Order:
    """Give the order that checks some exercises of a work."""
    suite = work.chapter.public_tests
    if not suite.is_file():
        raise CourseError(f"{short(suite)} is not there; put it back with `git checkout {short(suite)}`.")
    return Order(str(suite.resolve()), str(work.file.resolve()), tuple(e.name for e in exercises), number)


def read_answer(work: Work, exercises: Sequence[Exercise], answer: Answer, drawer: Drawer) -> Run:
    """Turn an answer into standings, and remember them."""
    if answer.problem:
        return Run(tuple(exercises), (), answer.printed, answer.problem, answer.is_machine)
    standings = tuple(_judged(work, exercise, answer.of(exercise.name)) for exercise in exercises)
    for standing in standings:
        drawer.verdicts[standing.exercise.id] = {
            "fingerprint": work.fingerprint(standing.exercise),
            "state": standing.state,
            "words": standing.words,
            "earned": standing.earned,
        }
    return Run(tuple(exercises), standings, answer.printed)


def check(works: Sequence[tuple[Work, Sequence[Exercise]]], drawer: Drawer) -> list[Run]:
    """Run the tests of exercises; a loop without an end costs only its own exercise."""
    parts = [(work, part) for work, exercises in works for part in _parts(exercises)]
    orders = [order_for(work, part, number) for number, (work, part) in enumerate(parts)]
    answers = ask_all(orders, LIMIT) if orders else []
    runs = [read_answer(work, part, answer, drawer) for (work, part), answer in zip(parts, answers, strict=True)]
    if runs:
        drawer.save()
    return runs


def _parts(exercises: Sequence[Exercise]) -> list[Sequence[Exercise]]:
    # without forks each order pays for a process of its own
    return [(exercise,) for exercise in exercises] if hasattr(os, "fork") else [exercises]


def standings(chapters: Sequence[Chapter], drawer: Drawer, run: bool = True) -> dict[str, list[Standing]]:
    """Give the standings of chapters, by name.

    Args:
        chapters: the chapters.
        drawer: what the desk remembers.
        run: run again what was changed since it was last checked, and that alone.
    """
    works = {chapter.name: read_any(chapter)[0] for chapter in chapters}
    stale = [(work, [e for e in work.chapter.exercises if _is_stale(work, e, drawer)]) for work in works.values()]
    runs = check([(work, exercises) for work, exercises in stale if exercises], drawer) if run else []
    problems = {exercise.id: run.problem for run in runs for exercise in run.exercises}
    found = {
        name: [_known(work, e, drawer, problems.get(e.id, "")) for e in work.chapter.exercises]
        for name, work in works.items()
    }
    fresh = {standing.exercise.id: standing for run in runs for standing in run.standings}
    return {name: [fresh.get(s.exercise.id, s) for s in each] for name, each in found.items()}


def next_after(standing: Sequence[Standing], exercise: Exercise | None = None) -> Standing | None:
    """Give what to do next: what is wrong or to do, from the one after `exercise` on; what waits comes last."""
    names = [s.exercise.id for s in standing]
    start = names.index(exercise.id) + 1 if exercise is not None and exercise.id in names else 0
    ahead = [*standing[start:], *standing[:start]]
    order = ahead if exercise is not None else sorted(ahead, key=lambda s: s.state is not State.WRONG)
    open_ones = [s for s in order if s.state in (State.WRONG, State.TODO)]
    return next(iter([*open_ones, *(s for s in order if s.state is State.WAITS)]), None)


def _is_stale(work: Work, exercise: Exercise, drawer: Drawer) -> bool:
    known = drawer.verdicts.get(exercise.id, {})
    return work.is_begun(exercise) and known.get("fingerprint") != work.fingerprint(exercise)


def _known(work: Work, exercise: Exercise, drawer: Drawer, problem: str) -> Standing:
    known = drawer.verdicts.get(exercise.id, {})
    place = work.place(exercise)
    if not work.is_begun(exercise):
        return Standing(exercise, State.TODO, "to do", 0.0, place)
    if known.get("fingerprint") == work.fingerprint(exercise):
        return Standing(exercise, State(known["state"]), known["words"], known["earned"], place)
    return Standing(exercise, State.WRONG, problem or "changed since it was checked", 0.0, place)


def _judged(work: Work, exercise: Exercise, tests: Sequence[Checked]) -> Standing:
    verdicts = [test.verdict for test in tests] or [Verdict.TODO]
    state = state_of(verdicts)
    passed = sum(test.weight for test in tests if test.verdict is Verdict.PASSED)
    total = sum(test.weight for test in tests)
    earned = exercise.points * passed / total if total else 0.0
    return Standing(exercise, state, _words(state, tests), earned, work.place(exercise), tuple(tests))


def _words(state: State, tests: Sequence[Checked]) -> str:
    if state is State.WRONG:
        failed = sum(test.lesson is not None for test in tests)
        return f"wrong: {failed} of {len(tests)} checks fail"
    waits = next((test.sentence for test in tests if test.verdict is Verdict.WAITS), "")
    return waits if state is State.WAITS else str(state)
