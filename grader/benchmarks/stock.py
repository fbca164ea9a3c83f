"""Stock `nbgrader autograde`, with the same hidden suite in its grade cells, against `grader grade`."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from grader.authoring.build import build
from grader.benchmarks.classes import make_class
from grader.benchmarks.engine import scratch_folder
from grader.benchmarks.table import Row
from grader.course import Chapter, Course

SIZE = 8


def measure(course: Course, chapter: Chapter) -> Iterator[Row]:
    """Measure (c): CPU and wall time of both on the same right submissions."""
    folder = scratch_folder()
    theirs_cpu, theirs_wall = _stock(course, chapter, folder / "nbgrader")
    make_class(chapter, folder / "class", SIZE)
    command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(folder / "class")]
    ours_cpu, ours_wall = _timed([*command, "--out", str(folder / "out"), "--jobs", "2"], folder)
    shutil.rmtree(folder)
    detail = f"{SIZE} submissions of {chapter.name}, start-up included: {theirs_cpu:.1f} s / {ours_cpu:.1f} s of CPU"
    ratio = theirs_cpu / ours_cpu
    yield Row("c", "stock nbgrader over ours, CPU", ratio, "x", "at least 10", ratio >= 10, detail)
    ratio = theirs_wall / ours_wall
    detail = f"{theirs_wall:.1f} s / {ours_wall:.1f} s"
    yield Row("c", "stock nbgrader over ours with 2 jobs, wall", ratio, "x", "at least 18", ratio >= 18, detail)


def _stock(course: Course, chapter: Chapter, folder: Path) -> tuple[float, float]:
    build(course, [chapter.name], folder)
    source = folder / "source" / chapter.name
    shutil.copy(chapter.hidden_tests, source / "test_hidden.py")
    _use_hidden_suite(source / "exercises.ipynb")
    _run(folder, "generate_assignment", chapter.name)
    for number in range(SIZE):
        _hand_in(folder, chapter, f"student{number}")
    return _timed([sys.executable, "-m", "nbgrader", "autograde", chapter.name], folder)


def _use_hidden_suite(notebook: Path) -> None:
    data = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in data["cells"]:
        source = "".join(cell["source"])
        if source.startswith("from grader.testing.notebook") and source.rstrip().endswith(")"):
            cell["source"] = source.rstrip()[:-1] + ', suite="test_hidden.py")'
    notebook.write_text(json.dumps(data), encoding="utf-8")


def _hand_in(folder: Path, chapter: Chapter, student: str) -> None:
    """Hand in the source notebook itself: its solution cells hold the reference."""
    place = folder / "submitted" / student / chapter.name
    shutil.copytree(folder / "release" / chapter.name, place)
    data = json.loads((folder / "source" / chapter.name / "exercises.ipynb").read_text(encoding="utf-8"))
    (place / "exercises.ipynb").write_text(json.dumps(data), encoding="utf-8")


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=folder, check=True, capture_output=True, env=_env()
    )


def _timed(command: list[str], folder: Path) -> tuple[float, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, env=_env(), check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - started


def _env() -> dict[str, str]:
    # nbgrader starts alembic and the kernel from PATH
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
