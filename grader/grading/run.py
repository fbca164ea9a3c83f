"""Grade a class: find what is already known, grade the rest, keep every result at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from grader.course import Chapter, Course, CourseError
from grader.grading.collect import Submission, collect
from grader.grading.isolation import NONE, isolation
from grader.grading.result import Outcome, Verdict, ungraded
from grader.grading.store import Store, environment, grader_digest, key_of, parts_of, suite_digest

if TYPE_CHECKING:
    from grader.grading.worker import Job


@dataclass(frozen=True)
class Order:
    """What the instructor asked for."""

    paths: tuple[Path, ...]
    out: Path
    chapter: Chapter | None = None
    jobs: int = 1
    fresh: bool = False
    secret: str = ""
    isolation: str = ""
    """"" takes every layer the host offers; "none" takes none."""
    prefer: str = ""
    scheduler: str = ""
    """The address of a Dask scheduler whose workers grade; "" grades on this machine."""


Progress = Callable[[int, int], None]
"""Called with how many submissions are graded, of how many."""
Arrived = Callable[[int, Outcome], None]
"""Called with the number of a submission and its outcome, as soon as it is known."""


@dataclass(frozen=True)
class ClassRun:
    """All outcomes of a run, and how many of them were known from before."""

    outcomes: tuple[Outcome, ...]
    known: int


def grade_class(course: Course, order: Order, progress: Progress) -> ClassRun:
    """Grade every submission of an order; a run that was stopped goes on where it was.

    Raises:
        CourseError: nothing to grade, or a suite is at fault.
        IsolationMissing: the host lacks a layer that matters and isolation was not waived.
    """
    return grade_submissions(course, order, collect(order.paths, course.chapters, order.chapter), progress)


def grade_submissions(
    course: Course,
    order: Order,
    submissions: Sequence[Submission],
    progress: Progress = lambda done, total: None,
    arrived: Arrived = lambda number, outcome: None,
) -> ClassRun:
    """Grade submissions that were read before, and give their outcomes in the same order."""
    store = Store(order.out / "store")
    parts = _parts(course, submissions, order)
    keys = [key_of(course.chapter(submission.chapter), own) for submission, own in zip(submissions, parts, strict=True)]
    outcomes: dict[int, Outcome] = {}
    left: list[int] = []
    known = 0

    def keep(number: int, outcome: Outcome) -> None:
        outcomes[number] = replace(outcome, student=submissions[number].student, parts=parts[number])
        arrived(number, outcomes[number])

    for number, submission in enumerate(submissions):
        kept = None if order.fresh or submission.problem else store.get(keys[number])
        if submission.problem:
            chapter = course.chapter(submission.chapter)
            keep(number, ungraded(submission.student, chapter, Verdict.REJECTED, submission.problem))
        elif kept is not None:  # the same bytes may have been another student's
            keep(number, kept)
            known += 1
        else:
            left.append(number)
    progress(len(outcomes), len(submissions))

    def done(number: int, outcome: Outcome) -> None:
        keep(number, outcome)
        if not outcome.is_infra:  # the machine's own fault is never kept, and so tried again next time
            store.put(keys[number], outcomes[number])
        progress(len(outcomes), len(submissions))

    if left:
        _grade_rest(course, order, [(number, submissions[number], keys[number]) for number in left], done)
    return ClassRun(tuple(outcomes[number] for number in sorted(outcomes)), known)


def _parts(course: Course, submissions: Sequence[Submission], order: Order) -> list[dict[str, str]]:
    names = {submission.chapter for submission in submissions}
    suites = {name: suite_digest(course.chapter(name)) for name in names}
    grader = grader_digest()
    how = f"{order.prefer}/{NONE if order.isolation == NONE else ''}"
    return [
        parts_of(submission.files, submission.problem, suites[submission.chapter], grader, order.secret, how)
        for submission in submissions
    ]


def _grade_rest(course: Course, order: Order, left: Sequence[tuple[int, Submission, str]], done: Arrived) -> None:
    # imported late: what is already known needs neither torch nor pytest
    from grader.grading.pool import Pool, PoolBroken
    from grader.grading.worker import Job, Settings

    names = tuple(sorted({submission.chapter for _, submission, _ in left}))
    jobs = [Job(*one) for one in left]
    if order.scheduler:
        _send_out(course, order, names, jobs, done)
        return
    layers, tier = isolation(order.isolation)
    settings = Settings(course.root, _solutions(course), names, order.secret, layers, tier, order.prefer)
    pool = Pool(settings, {name: course.chapter(name) for name in names}, order.jobs)
    try:
        pool.run(jobs, lambda job, outcome: done(job.number, outcome))
    except PoolBroken as error:
        raise CourseError(str(error)) from None


def _send_out(course: Course, order: Order, names: Sequence[str], jobs: Sequence[Job], done: Arrived) -> None:
    try:
        from grader.grading.cluster import grade_on_cluster
    except ImportError as error:
        raise CourseError(f"{error.name} is missing; a cluster needs `pip install -e .[cluster]`.") from None
    terms = {
        "root": str(course.root),
        "solutions": str(_solutions(course)),
        "suites": {name: suite_digest(course.chapter(name)) for name in names},
        "grader": grader_digest(),
        "environment": dict(environment()),
        "isolation": order.isolation,
        "secret": order.secret,
        "prefer": order.prefer,
    }
    grade_on_cluster(order.scheduler, terms, jobs, course, lambda job, outcome: done(job.number, outcome))


def _solutions(course: Course) -> Path:
    return course.chapters[0].solutions.parent
