"""A large class in nbgrader's gradebook: does a student's time stay flat, and what does nbgrader's own way cost."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import pytest
from nbgrader.api import Gradebook  # type: ignore[import-untyped]

from grader.benchmarks.table import Row
from grader.course import Chapter, Course
from grader.gradebook.nbgrader import write_scores
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.tests.databases import postgresql

SMALL, LARGE = 1_000, 10_000
THEIRS = 60
"""Students for nbgrader's own interface."""

MakeUrl = Callable[[], str]


def measure(course: Course, chapter: Chapter) -> Iterator[Row]:
    """Measure (f) on both databases, or on SQLite alone where there is no PostgreSQL server."""
    number = count()
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="grader-bench-"))
        yield from _rows("SQLite", lambda: f"sqlite:///{folder}/{next(number)}.db", course, chapter)
        try:
            server = stack.enter_context(postgresql())
        except pytest.skip.Exception as missing:
            print(f"PostgreSQL is not measured: {missing}")
            return
        yield from _rows("PostgreSQL", lambda: server.create(f"class{next(number)}"), course, chapter)


def _rows(database: str, make_url: MakeUrl, course: Course, chapter: Chapter) -> Iterator[Row]:
    (small, _), (large, again) = (_first_and_again(course, chapter, make_url(), size) for size in (SMALL, LARGE))
    detail = f"{SMALL:,}: {small:.1f} s, {LARGE:,}: {large:.1f} s, unchanged {again:.1f} s; {chapter.name}"
    growth = (large / LARGE) / (small / SMALL)
    what = f"{database}: a student's scores, {LARGE:,} at once over {SMALL:,}"
    yield Row("f", what, growth, "x", "at most 1.5, and under 60 s", growth <= 1.5 and large < 60, detail)
    theirs, ours = _by_their_interface(course, chapter, make_url()) / THEIRS, large / LARGE
    detail = f"{1000 * theirs:.1f} ms / {1000 * ours:.2f} ms"
    what = f"{database}: a student's scores through nbgrader's own interface over ours"
    yield Row("f", what, theirs / ours, "x", "at least 10", theirs >= 10 * ours, detail)


def _first_and_again(course: Course, chapter: Chapter, url: str, size: int) -> tuple[float, float]:
    write_scores([_outcome(chapter, 0)], course, url)  # nbgrader takes seconds to make the tables
    outcomes = [_outcome(chapter, number) for number in range(size)]
    times = []
    for _ in range(2):
        started = time.perf_counter()
        write_scores(outcomes, course, url)
        times.append(time.perf_counter() - started)
    return times[0], times[1]


def _outcome(chapter: Chapter, number: int) -> Outcome:
    exercises = (
        ExerciseOutcome(
            exercise.name, exercise.points, exercise.points * (number % 4) / 4, Verdict.WRONG, "", "", "", ()
        )
        for exercise in chapter.exercises
    )
    return Outcome(f"student{number:06}", chapter.name, tuple(exercises))


def _by_their_interface(course: Course, chapter: Chapter, url: str) -> float:
    write_scores([_outcome(chapter, 0)], course, url)
    with warnings.catch_warnings(), Gradebook(url) as gradebook:
        warnings.simplefilter("ignore")  # SQLAlchemy's, of nbgrader's code
        started = time.perf_counter()
        for number in range(1, THEIRS + 1):
            outcome = _outcome(chapter, number)
            gradebook.update_or_create_student(outcome.student)
            gradebook.update_or_create_submission(chapter.name, outcome.student)
            for exercise in outcome.exercises:
                place = (f"check_{exercise.name}", "exercises", chapter.name, outcome.student)
                grade = gradebook.find_grade(*place)
                grade.auto_score, grade.needs_manual_grade = exercise.score, False
                gradebook.db.commit()
        return time.perf_counter() - started
