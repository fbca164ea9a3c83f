"""A class of 20,000 on a Dask cluster of processes, and a straight line from there to 100,000."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from grader.benchmarks.classes import empty_chapter, make_class, run_grade
from grader.benchmarks.engine import scratch_folder
from grader.benchmarks.table import Row

SIZES = (2000, 20000)
TARGET = 100_000
WORKERS = 2


@dataclass(frozen=True)
class Measured:
    """One class: wall seconds, and the largest memory of each process in MiB."""

    seconds: float
    client: float
    scheduler: float
    worker: float


def measure(course_root: Path) -> Iterator[Row]:
    """Measure (j) with an exercise of next to no work: what the cluster itself needs."""
    small, large = (_grade(course_root, size) for size in SIZES)
    each = (large.seconds - small.seconds) / (SIZES[1] - SIZES[0])
    what = f"a hand-in more, {SIZES[1]} over {SIZES[0]}, {WORKERS} workers"
    growth = each / (small.seconds / SIZES[0])
    detail = f"{SIZES[0]}: {small.seconds:.0f} s, {SIZES[1]}: {large.seconds:.0f} s, each more: {1000 * each:.1f} ms"
    yield Row("j", what, growth, "x", "within 10 %", growth <= 1.1, detail)
    for name in ("scheduler", "worker", "client"):
        before, after = getattr(small, name), getattr(large, name)
        per_1000 = (after - before) / (SIZES[1] - SIZES[0]) * 1000
        forecast = after + per_1000 * (TARGET - SIZES[1]) / 1000
        detail = f"{before:.0f} -> {after:.0f} MiB; {per_1000:.2f} MiB for 1,000 more; {TARGET}: {forecast:.0f} (model)"
        yield Row("j", f"memory of the {name}", after / before, "x", "within 10 %", after <= 1.1 * before, detail)
    hours = (large.seconds + each * (TARGET - SIZES[1])) / 3600
    what = f"{TARGET} by a straight line through both (model), {WORKERS} workers"
    yield Row("j", what, hours, "h", "", True, f"{1 / each:.0f} hand-ins a second")


def _grade(course_root: Path, size: int) -> Measured:
    folder = scratch_folder()
    chapter = empty_chapter(course_root, folder / "course")
    make_class(chapter, folder / "class", size)
    with _cluster(folder) as (address, scheduler, worker):
        seconds, client = run_grade(folder / "course", folder / "class", folder / "out", "--scheduler", address)
        measured = Measured(seconds, client, _peak(scheduler.pid), _peak(worker.pid))
    shutil.rmtree(folder)
    return measured


@contextmanager
def _cluster(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], subprocess.Popen[bytes]]]:
    """Start a scheduler and its workers on loopback; give its address, itself and one worker."""
    file = folder / "scheduler.json"
    here = ("--scheduler-file", str(file), "--host", "127.0.0.1")
    with ExitStack() as stack:
        scheduler = _start(stack, "scheduler", *here, "--port", "0", "--no-dashboard")
        while not file.is_file():
            time.sleep(0.1)
        place = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
        workers = [_start(stack, "worker", *here, *place) for _ in range(WORKERS)]
        yield json.loads(file.read_text(encoding="utf-8"))["address"], scheduler, workers[0]


def _start(stack: ExitStack, kind: str, *options: str) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen([sys.executable, "-m", "dask", kind, *options], stdout=quiet, stderr=quiet)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process


def _peak(pid: int) -> float:
    """Give the largest memory that a running process has had, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
