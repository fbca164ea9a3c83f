"""The same score always: the whole course graded again and again, while other processes want the processors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from grader.authoring.handin import right_answer, wrong_answer
from grader.authoring.sample import half_done
from grader.benchmarks.classes import run_grade
from grader.benchmarks.engine import scratch_folder
from grader.benchmarks.table import Row
from grader.course import Chapter, Course
from grader.testing.misconceptions import load_misconceptions

RUNS = 10
"""Each starts the grader anew."""
STUDENTS = 5
"""Gradings of the course in each run."""


def measure(course: Course) -> Iterator[Row]:
    """Count the gradings of the whole course that differ from the first of the same work."""
    folder = scratch_folder()
    seen: dict[str, list[str]] = defaultdict(list)
    with _load():
        for number in range(RUNS):
            _hand_in(course, folder / "class", number)
            run_grade(course.root, folder / "class", folder / "out", 2)
            for student, results in _results(folder / "out").items():
                seen[student.partition("-")[0]].append(results)
            print(f"run {number + 1} of {RUNS}", file=sys.stderr, flush=True)
            shutil.rmtree(folder)
    different = sum(one != results[0] for results in seen.values() for one in results)
    works = ", ".join(f"{len(results)} {work}" for work, results in seen.items())
    what = f"the whole course graded {RUNS * STUDENTS} times under load, gradings that differ"
    detail = f"{RUNS} runs of {STUDENTS}, {len(course.chapters)} chapters: {works}"
    yield Row("i", what, different, "", "0", different == 0, detail)


def _hand_in(course: Course, folder: Path, run: int) -> None:
    """Write a class whose works are the same in each run; a comment makes each a file of its own."""
    works = (right_answer, _half, _mistaken)
    for number in range(STUDENTS):
        work = works[number % len(works)]
        for chapter in course.chapters:
            place = folder / f"{work.__name__.strip('_')}-{number}" / chapter.name
            place.mkdir(parents=True)
            (place / "exercises.py").write_text(f"{work(chapter)}\n# {run} {number}\n", encoding="utf-8")


def _half(chapter: Chapter) -> str:
    return half_done(chapter, len(chapter.exercises) // 2)


def _mistaken(chapter: Chapter) -> str:
    return wrong_answer(chapter, load_misconceptions(chapter.misconceptions)[-1])


def _results(out: Path) -> dict[str, str]:
    """Give what each student's results say, without the time it took and the file's own digest."""
    students = json.loads((out / "results.json").read_text(encoding="utf-8"))["students"]
    return {row["student"]: json.dumps([_of_chapter(chapter) for chapter in row["chapters"]]) for row in students}


def _of_chapter(chapter: dict[str, Any]) -> list[Any]:
    return [chapter["chapter"], chapter["score"], chapter["exercises"]]


@contextmanager
def _load() -> Iterator[None]:
    """Keep every processor busy with something else."""
    with ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"]))
            stack.callback(busy.kill)
        yield
