"""`nbgrader autograde` against `grader grade`: stock with the hidden suite in its grade cells, and with our sandbox."""

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
"""Submissions for the stock command, which takes some seconds for each."""
OURS = 200
"""Submissions for ours, whose start-up is a class's, not a submission's."""
BOTH = (60, 200)
"""Notebooks of the class that goes through both doors."""


def measure(course: Course, chapter: Chapter) -> Iterator[Row]:
    """Measure (c): CPU and wall time a submission of both, start-up included, on the same right answer."""
    folder = scratch_folder()
    theirs_cpu, theirs_wall = _stock(course, chapter, folder / "nbgrader")
    make_class(chapter, folder / "class", OURS)
    command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(folder / "class")]
    ours_cpu, ours_wall = _timed([*command, "--out", str(folder / "out"), "--jobs", "2"], folder)
    shutil.rmtree(folder)
    sizes = f"{SIZE} by stock, {OURS} by ours, of {chapter.name}"
    theirs, ours = theirs_cpu / SIZE, ours_cpu / OURS
    detail = f"{theirs:.2f} s / {ours:.2f} s; {sizes}"
    yield Row("c", "stock nbgrader over ours, CPU", theirs / ours, "x", "at least 10", theirs >= 10 * ours, detail)
    theirs, ours = theirs_wall / SIZE, ours_wall / OURS
    detail = f"{theirs:.2f} s / {ours:.2f} s; {sizes}"
    what = "stock nbgrader over ours with 2 jobs, wall"
    yield Row("c", what, theirs / ours, "x", "at least 18", theirs >= 18 * ours, detail)


def both_doors(course: Course, chapter: Chapter) -> Iterator[Row]:
    """Measure (g): the same class of notebooks through `nbgrader autograde` with our sandbox and `grader grade`."""
    for size in BOTH:
        folder = scratch_folder()
        nbgrader = folder / "nbgrader"
        build(course, [chapter.name], nbgrader)
        _run(nbgrader, "generate_assignment", chapter.name)
        for number in range(size):
            _hand_in(nbgrader, chapter, f"student{number:03}", f"# {number}\n")
        command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(nbgrader / "submitted")]
        plain = _timed([*command, "--out", str(folder / "out")], folder)
        through = _timed([sys.executable, "-m", "nbgrader", "autograde", chapter.name], nbgrader)
        shutil.rmtree(folder)
        for what, theirs, ours in zip(("CPU", "wall"), through, plain, strict=True):
            detail = f"{theirs:.1f} s / {ours:.1f} s, {chapter.name}"
            name = f"nbgrader autograde over grader grade, {size} notebooks, {what}"
            yield Row("g", name, theirs / ours, "x", "at most 1.3", theirs <= 1.3 * ours, detail)


def _stock(course: Course, chapter: Chapter, folder: Path) -> tuple[float, float]:
    build(course, [chapter.name], folder)
    (folder / "nbgrader_config.py").unlink()  # stock settings: no grading of ours
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


def _hand_in(folder: Path, chapter: Chapter, student: str, own: str = "") -> None:
    """Hand in the source notebook itself, whose solution cells hold the reference; `own` makes it one of its kind."""
    place = folder / "submitted" / student / chapter.name
    shutil.copytree(folder / "release" / chapter.name, place)
    data = json.loads((folder / "source" / chapter.name / "exercises.ipynb").read_text(encoding="utf-8"))
    answer = next(cell for cell in data["cells"] if cell["metadata"].get("nbgrader", {}).get("solution"))
    answer["source"] = own + "".join(answer["source"])
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
