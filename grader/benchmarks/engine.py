"""One right submission: isolated against the same tests in one warm process, and against a fresh pytest process."""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from grader.benchmarks.table import Row
from grader.course import Chapter, Course, load_course
from grader.grading.bench import HandIn, SandboxBench
from grader.grading.examiner import Examiner, LocalBench, examine
from grader.grading.seat import Seat
from grader.sandbox.policy import Plan, in_force, probe
from grader.sandbox.proxy import Link
from grader.sandbox.session import Limits, Warm, Zygote
from grader.sandbox.twins import start
from grader.testing.loading import load_module

ROUNDS = 5
CALLS = 3000
TICKS = os.sysconf("SC_CLK_TCK")


def warm_seconds(chapter: Chapter) -> float:
    """CPU seconds of the same tests in one warm process without a sandbox, the mean of the rounds after the first."""
    spent: list[float] = []

    def work(examiner: Examiner) -> None:
        bench = LocalBench(load_module(chapter.source, f"benchmarks.{chapter.name}"))
        for _ in range(1 + ROUNDS):
            started = time.process_time()
            for exercise in chapter.exercises:
                outcome = examiner.grade(exercise, bench)
                assert outcome.score == outcome.points, (exercise.id, outcome.note)
            spent.append(time.process_time() - started)

    examine([chapter], "", work)
    return statistics.mean(spent[1:])


def isolated_seconds(chapter: Chapter, zygote: Zygote) -> float:
    """CPU seconds of the whole tree of processes for one submission, the mean of the rounds after the first."""
    spent: list[float] = []

    def work(examiner: Examiner) -> None:
        _grade_once(examiner, zygote, chapter)
        before = time.process_time() + _tree_seconds(zygote.pid)
        for _ in range(ROUNDS):
            _grade_once(examiner, zygote, chapter)
        spent.append((time.process_time() + _tree_seconds(zygote.pid) - before) / ROUNDS)

    examine([chapter], "", work)
    return spent[0]


def _grade_once(examiner: Examiner, zygote: Zygote, chapter: Chapter) -> None:
    supervisor = zygote.supervisor()
    bench = SandboxBench(supervisor, chapter, _hand_in(chapter))
    for exercise in chapter.exercises:
        bench.take_up(exercise)
        outcome = examiner.grade(exercise, bench)
        assert outcome.score == outcome.points, (exercise.id, outcome.note)
    bench.clear()
    supervisor.close()


def _hand_in(chapter: Chapter) -> HandIn:
    return HandIn("right", chapter.name, "exercises.py", "py", chapter.source.read_bytes())


def _tree_seconds(pid: int) -> float:
    """CPU seconds of a process and of all its children that have ended and been waited for."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def fresh_seconds(chapter: Chapter) -> float:
    """CPU seconds of a fresh pytest process for the same submission."""
    command = [sys.executable, "-m", "pytest", "-q", str(chapter.hidden_tests), "--module", str(chapter.source)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}  # as ours: waiting threads would burn CPU on a busy machine
    subprocess.run(command, check=True, capture_output=True, cwd=chapter.folder.parent.parent, env=environ)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def call_microseconds(zygote: Zygote) -> float:
    """Wall microseconds of one by-value call on an 8x8 float32 tensor, the median."""
    supervisor = zygote.supervisor()
    child = supervisor.child(Limits(60.0, 512 << 20))
    link = Link(child)
    link.request("load", "echo", "echo.py", "py", b"def echo(x):\n    return x\n")
    x = torch.randn(8, 8)
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        link.request("call", None, "echo", (x,), {}, False)
        times.append(time.perf_counter() - started)
    child.end()
    supervisor.close()
    return statistics.median(times) * 1e6


@dataclass(frozen=True)
class Figures:
    """What a controller measures of itself: CPU seconds by chapter, microseconds of a call."""

    warm: dict[str, float]
    isolated: dict[str, float]
    call: float


def controller(warm: Warm, connection: Connection) -> None:
    """Be a controller as `grader grade` starts them: take the course's folder, give the Figures."""
    chapters = load_course(connection.recv()).chapters
    zygote = Zygote(Plan(layers=in_force(probe())), warm)
    Seat(0, zygote.pid)
    try:
        connection.send(
            Figures(
                warm={chapter.name: warm_seconds(chapter) for chapter in chapters},
                isolated={chapter.name: isolated_seconds(chapter, zygote) for chapter in chapters},
                call=call_microseconds(zygote),
            )
        )
    finally:
        zygote.close()


def _figures(root: Path) -> Figures:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        process = start("grader.benchmarks.engine:controller", theirs)
    ours.send(root)
    figures: Figures = ours.recv()
    process.wait()
    return figures


def measure(course: Course) -> Iterator[Row]:
    """Measure (a), (b) and (f)."""
    figures = _figures(course.root)
    warm, isolated = figures.warm, figures.isolated
    each = ", ".join(f"{name[:2]}: {isolated[name]:.2f} s / {warm[name]:.2f} s" for name in warm)
    ratio = sum(isolated.values()) / sum(warm.values())
    yield Row("a", "isolated over warm, CPU of a right submission", ratio, "x", "at most 1.3", ratio <= 1.3, each)
    fresh = {chapter.name: fresh_seconds(chapter) for chapter in course.chapters}
    each = ", ".join(f"{name[:2]}: {fresh[name]:.2f} s" for name in fresh)
    ratio = sum(fresh.values()) / sum(isolated.values())
    yield Row("b", "a fresh pytest process over ours, CPU", ratio, "x", "at least 8", ratio >= 8, each)
    yield Row("f", "by-value call on an 8x8 tensor, median", figures.call, "µs", "under 100", figures.call < 100)


def scratch_folder() -> Path:
    """Give a folder of its own for one measurement."""
    return Path(tempfile.mkdtemp(prefix="grader-bench-"))
