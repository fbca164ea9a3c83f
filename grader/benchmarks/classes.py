"""Whole classes: does the time per submission stay flat, does the memory, and what does a regrade cost."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from grader.benchmarks.engine import scratch_folder
from grader.benchmarks.table import Row
from grader.course import Chapter, load_course

SIZES = (20, 200, 2000)
REGRADED = 200
TWO_JOBS = ("--jobs", "2")
EMPTY = 1000
NEXT_TO_NOTHING = '''
"""A suite of one test that asks next to nothing."""

from grader.testing import exact, exercise


@exercise("double")
def test_double(exercises):
    """One is doubled."""
    exact(exercises.double(1), 2, "double(1)")
'''


def make_class(chapter: Chapter, folder: Path, size: int) -> None:
    """Write `size` right submissions, each a file of its own bytes."""
    text = chapter.source.read_text(encoding="utf-8")
    for number in range(size):
        place = folder / f"student{number:05d}" / chapter.name
        place.mkdir(parents=True)
        (place / "exercises.py").write_text(f"{text}\n# {number}\n", encoding="utf-8")


def run_grade(course: Path, submissions: Path, out: Path, *options: str) -> tuple[float, float]:
    """Grade through the command line and give wall seconds and the largest memory of a process, in MiB."""
    command = [sys.executable, "-m", "grader", "--course", str(course), "grade", str(submissions), "--out", str(out)]
    started = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = _wait(process)
    assert status == 0, status
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def _wait(process: subprocess.Popen[bytes]) -> tuple[int, int, resource.struct_rusage]:
    pid, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return pid, process.returncode, usage


def flat(course_root: Path) -> Iterator[Row]:
    """Measure (d) on a small course: the engine's own cost, where growth would show most."""
    chapter = load_course(course_root).chapters[0]
    per_submission: dict[int, float] = {}
    memory: dict[int, float] = {}
    start = _start_seconds(course_root, chapter)
    for size in SIZES:
        folder = scratch_folder()
        make_class(chapter, folder / "class", size)
        seconds, memory[size] = run_grade(course_root, folder / "class", folder / "out", *TWO_JOBS)
        per_submission[size] = (seconds - start) / size
        shutil.rmtree(folder)
    each = ", ".join(f"{size}: {per_submission[size] * 1000:.1f} ms, {memory[size]:.0f} MiB" for size in SIZES)
    small, large = per_submission[SIZES[1]], per_submission[SIZES[2]]
    growth = large / small
    what = f"time per submission, {SIZES[2]} over {SIZES[1]} (start-up of {start:.1f} s taken off)"
    yield Row("d", what, growth, "x", "within 10 %", growth <= 1.1, each)
    bigger = memory[SIZES[2]] / memory[SIZES[0]]
    yield Row("d", f"memory of the command, {SIZES[2]} over {SIZES[0]}", bigger, "x", "flat", bigger <= 1.1, each)


def overhead(course_root: Path) -> Iterator[Row]:
    """Measure (h): a chapter of one exercise with one small test, where the engine's own work is all there is."""
    folder = scratch_folder()
    chapter = empty_chapter(course_root, folder / "course")
    start = _start_seconds(folder / "course", chapter)
    make_class(chapter, folder / "class", EMPTY)
    jobs = os.cpu_count() or 1
    seconds, _ = run_grade(folder / "course", folder / "class", folder / "out", "--jobs", str(jobs))
    shutil.rmtree(folder)
    rate = EMPTY / (seconds - start)
    detail = f"{EMPTY} in {seconds:.1f} s, start-up of {start:.1f} s taken off, {jobs} jobs"
    yield Row("h", "submissions a second, one exercise, one small test", rate, "/s", "at least 40", rate >= 40, detail)


def empty_chapter(course_root: Path, folder: Path) -> Chapter:
    """Copy a course of two exercises into `folder`, and leave one exercise and one test of its first chapter."""
    shutil.copytree(course_root, folder)
    chapter = load_course(folder).chapters[0]
    settings, second = chapter.folder / "chapter.toml", chapter.exercises[1]
    text = settings.read_text(encoding="utf-8")
    settings.write_text(text[: text.index(f'[[exercises]]\nname = "{second.name}"')], encoding="utf-8")
    chapter.hidden_tests.write_text(NEXT_TO_NOTHING, encoding="utf-8")
    return chapter


def _start_seconds(course_root: Path, chapter: Chapter) -> float:
    folder = scratch_folder()
    make_class(chapter, folder / "class", 2)
    seconds, _ = run_grade(course_root, folder / "class", folder / "out", *TWO_JOBS)
    shutil.rmtree(folder)
    return seconds


def regrade(course_root: Path, chapter: Chapter) -> Iterator[Row]:
    """Measure (e): the same class graded again."""
    folder = scratch_folder()
    make_class(chapter, folder / "class", REGRADED)
    first, _ = run_grade(course_root, folder / "class", folder / "out", *TWO_JOBS)
    again, _ = run_grade(course_root, folder / "class", folder / "out", *TWO_JOBS)
    shutil.rmtree(folder)
    share = 100 * again / first
    detail = f"{again:.2f} s after {first:.1f} s, {chapter.name}"
    yield Row("e", f"regrade of an unchanged class of {REGRADED}", share, "%", "under 2 %", share < 2, detail)
