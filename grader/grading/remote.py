"""What a Dask worker does with a batch: checks that it may grade it, and has one controller grade it.

A worker process keeps its controller from batch to batch. The controller and its warm process are started clean, as
everywhere: the Dask worker has threads, and so never forks for a student's code itself. Plain data comes in and goes
out, so that a worker with another version of the grader can still say so.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed import get_worker

from grader.course import Course, CourseError, load_course
from grader.grading.collect import Submission
from grader.grading.isolation import IsolationMissing, isolation
from grader.grading.pool import Pool, PoolBroken
from grader.grading.result import to_json
from grader.grading.store import environment, grader_digest, suite_digest
from grader.grading.worker import Job, Settings

_one_at_a_time = threading.Lock()
_kept: list[tuple[dict[str, Any], Pool]] = []
"""The pool of this process behind the terms that it was opened for; one or none."""


class Differs(Exception):
    """This worker would not give the results that the instructor's machine gives; one sentence says why."""


def grade_batch(terms: dict[str, Any], batch: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Grade a batch of jobs, and give their outcomes, or why this worker may not grade.

    Args:
        terms: where the course is, the digests and versions that must be the same here, and what was asked for.
        batch: of each job its number, student, chapter, files and key.

    Returns:
        "outcomes", pairs of a job's number and its outcome; or else "worker", "refused" (a sentence) and "unsafe"
        (whether it is the sandbox that is missing).
    """
    jobs = [Job(number, Submission(student, chapter, files), key) for number, student, chapter, files, key in batch]
    outcomes: list[tuple[int, dict[str, Any]]] = []
    with _one_at_a_time:
        try:
            _pool(terms).grade(jobs, lambda job, outcome: outcomes.append((job.number, to_json(outcome))))
        except Exception as error:  # as plain data: a client of Dask can hang on an exception with a long traceback
            _close()
            known = isinstance(error, (Differs, CourseError, PoolBroken, IsolationMissing))
            refused = str(error) if known else f"the grader failed: {type(error).__name__}: {error}"
            unsafe = isinstance(error, IsolationMissing)
            return {"worker": get_worker().address, "refused": refused, "unsafe": unsafe}
    return {"outcomes": outcomes}


def _pool(terms: dict[str, Any]) -> Pool:
    root, solutions = Path(terms["root"]), Path(terms["solutions"])
    course = load_course(root, solutions)
    _compare(terms, course)  # with each batch: what a controller has loaded must still be what is asked for
    if _kept and _kept[0][0] != terms:
        _close()
    if not _kept:
        layers, tier = isolation(terms["isolation"])
        chapters = {name: course.chapter(name) for name in terms["suites"]}
        settings = Settings(root, solutions, tuple(chapters), terms["secret"], layers, tier, terms["prefer"])
        _kept.append((terms, Pool(settings, chapters, size=1)))
    return _kept[0][1]


def _compare(terms: dict[str, Any], course: Course) -> None:
    mend = "bring it to the state of the machine that sends the work"
    if grader_digest() != terms["grader"]:
        raise Differs(f"its grader is another version; {mend}")
    for name, digest in terms["suites"].items():
        if suite_digest(course.chapter(name)) != digest:
            raise Differs(f"its chapter {name} in {course.root} differs; {mend}")
    here = environment()
    for name, wanted in terms["environment"].items():
        if here.get(name) != wanted:
            raise Differs(f"it has {name} {here.get(name, 'not at all')} where {wanted} is asked for; {mend}")


def _close() -> None:
    while _kept:
        _kept.pop()[1].close()
