"""From a saved file to a verdict: `grader watch` against a fresh pytest process, on the same file and tests."""

from __future__ import annotations

import json
import os
import queue
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grader.benchmarks.engine import scratch_folder
from grader.benchmarks.table import Row
from grader.course import Chapter, load_course

SAVES = 21
FRESH = 5
LIMIT = 120.0


def measure(chapter: Chapter) -> Iterator[Row]:
    """Measure (g): half of the saves are right answers, half are wrong ones."""
    root = _copy_of(chapter)
    own = load_course(root).chapter(chapter.name)
    exercise = own.exercises[0]
    right, wrong = chapter.source.read_text(encoding="utf-8"), own.stub.read_text(encoding="utf-8")
    wrong = wrong.replace(f'raise NotImplementedError("{exercise.functions[0]}")', "return None")
    own.stub.write_text(right, encoding="utf-8")
    fresh = [_fresh_seconds(root, own, exercise.name) for _ in range(FRESH)]
    warm = _warm_seconds(root, own, exercise.name, [right, wrong])
    shutil.rmtree(root)
    median, cold = statistics.median(warm), statistics.median(fresh)
    detail = f"{len(warm)} saves of {exercise.id}, {min(warm):.2f} to {max(warm):.2f} s"
    yield Row("g", "from save to verdict, median", median, "s", "under 0.5", median < 0.5, detail)
    detail = f"{cold:.2f} s / {median:.2f} s"
    what = "a fresh pytest process over watch, wall"
    yield Row("g", what, cold / median, "x", "at least 4", cold >= 4 * median, detail)


def _copy_of(chapter: Chapter) -> Path:
    root = scratch_folder()
    shutil.copytree(chapter.folder, root / "chapters" / chapter.name)
    shutil.copy(chapter.folder.parent.parent / "pyproject.toml", root)
    return root


def _environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parent.parent.parent)
    return {**os.environ, "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}


def _fresh_seconds(root: Path, chapter: Chapter, exercise: str) -> float:
    command = [sys.executable, "-m", "pytest", "-q", str(chapter.public_tests), "--exercise", exercise]
    started = time.perf_counter()
    subprocess.run(command, cwd=root, env=_environment(), check=True, capture_output=True)
    return time.perf_counter() - started


def _warm_seconds(root: Path, chapter: Chapter, exercise: str, texts: list[str]) -> list[float]:
    command = [sys.executable, "-m", "grader", "watch", f"{chapter.name}/{exercise}", "--json"]
    process = subprocess.Popen(command, cwd=root, env=_environment(), stdout=subprocess.PIPE, text=True)
    heard: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(process, heard), daemon=True).start()
    try:
        _verdict(heard)  # of the file as it is: from here on the process is warm
        times = []
        for number in range(SAVES):
            started = time.perf_counter()
            chapter.stub.write_text(texts[number % 2] + f"\n# {number}\n", encoding="utf-8")
            _verdict(heard)
            times.append(time.perf_counter() - started)
        return times[1:]  # the first still meets a process that loads
    finally:
        process.terminate()
        process.wait()


def _listen(process: subprocess.Popen[str], heard: queue.Queue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        heard.put(json.loads(line))


def _verdict(heard: queue.Queue[dict[str, Any]]) -> None:
    while "checked" not in heard.get(timeout=LIMIT):
        pass
