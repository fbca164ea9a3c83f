"""Grading on a Dask cluster: a real scheduler and real workers, each a process, on loopback."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from grader.authoring.sample import half_done
from grader.course import Course
from grader.tests.small_course import copy_course, hand_in, reference
from grader.tests.test_grade import REPOSITORY, environment, grader, results

pytest.importorskip("distributed")

POISON = "kills its worker"
KILLER = f"""
import os, signal
from grader.grading import remote

def grade_batch(terms, batch, real=remote.grade_batch):
    if any({POISON!r} in source.decode() for job in batch for source in job[3].values()):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(terms, batch)

remote.grade_batch = grade_batch
"""


@dataclass
class Cluster:
    """A scheduler and its workers; each is a process."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return str(json.loads(self.file.read_text(encoding="utf-8"))["address"])

    def start_scheduler(self, **environ: str) -> None:
        options = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self._start("scheduler", *options, **environ)
        wait_for(self.file.is_file)

    def start_worker(self, *options: str, **environ: str) -> subprocess.Popen[bytes]:
        place = ("--host", "127.0.0.1", "--local-directory", str(self.folder), "--no-dashboard")
        return self._start("worker", "--nthreads", "1", *place, *options, **environ)

    def _start(self, kind: str, *options: str, **environ: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(self.file), *options]
        with open(self.folder / f"{len(self.processes)}-{kind}.log", "wb") as log:
            process = subprocess.Popen(command, env=environment() | environ, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline, "nothing happened for two minutes"
        time.sleep(0.02)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster without a process yet."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    made = Cluster(folder)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.start_scheduler()
    made.start_worker("--no-nanny")
    made.start_worker("--no-nanny")
    yield made
    made.stop()


def a_class(folder: Path, course: Course, size: int) -> Path:
    """Write a class in which no two hand-ins are alike, and some are wrong, undone or cannot be read."""
    one, two = reference(course, "01"), reference(course, "02")
    kinds = (one, half_done(course.chapter("01"), 1), one.replace("2 * x", "3 * x"), "def double(x:\n")
    for number in range(size):
        hand_in(folder, f"s{number:03}", "01_numbers", f"{kinds[number % len(kinds)]}\n# {number}\n")
    hand_in(folder, "s000", "02_shapes", two)
    hand_in(folder, "s001", "02_shapes", two.replace("x / x.sum(dim=-1, keepdim=True)", "x / (x.sum() + 1)"))
    hand_in(folder, "hangs", "01_numbers", "while True:\n    pass\n")
    return folder


def test_a_cluster_gives_the_bytes_of_a_local_run_and_what_is_known_is_not_sent_again(
    two_workers: Cluster, tmp_path: Path
) -> None:
    course = copy_course(tmp_path)
    inbox = a_class(tmp_path / "inbox", course, 30)
    here, there = tmp_path / "here", tmp_path / "there"
    local = grader(course, "grade", inbox, "--jobs", 2, "--out", here)
    assert local.returncode == 0, local.stderr
    done = grader(course, "grade", inbox, "--scheduler", two_workers.address, "--out", there)
    assert done.returncode == 0, done.stderr
    assert all("] graded " in line for line in done.stderr.splitlines()), "Dask's own noise is not for a teacher"
    assert len({row["01_numbers"]["score"] for row in results(there).values()}) > 1
    assert (there / "results.json").read_bytes() == (here / "results.json").read_bytes()

    again = grader(course, "grade", inbox, "--scheduler", NOBODY, "--out", there)
    assert again.returncode == 0, again.stderr
    assert "33 of 33 results were known" in again.stdout
    hand_in(inbox, "s001", "01_numbers", reference(course, "01") + "# at last\n")
    more = grader(course, "grade", inbox, "--scheduler", two_workers.address, "--out", there)
    assert "32 of 33 results were known" in more.stdout, more.stderr


def test_a_suite_that_was_changed_is_graded_by_the_new_one(two_workers: Cluster, tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    hand_in(tmp_path / "inbox", "ada", "01_numbers", reference(course, "01"))
    arguments = ("grade", tmp_path / "inbox", "--scheduler", two_workers.address, "--out", tmp_path / "out")
    assert grader(course, *arguments).returncode == 0
    assert results(tmp_path / "out")["ada"]["01_numbers"]["score"] == 5
    suite = course.chapter("01").hidden_tests
    test = 'def test_nobody(exercises):\n    """Nobody passes."""\n    assert exercises.double(1) == 3\n'
    suite.write_text(suite.read_text(encoding="utf-8") + f'\n\n@exercise("double")\n{test}', encoding="utf-8")
    changed = grader(course, *arguments)
    assert changed.returncode == 0, changed.stderr
    assert results(tmp_path / "out")["ada"]["01_numbers"]["score"] < 5


@pytest.mark.parametrize("allowed", ["3", "0"], ids=["Dask tries again", "Dask gives up"])
def test_a_worker_killed_in_the_middle_costs_a_retry(cluster: Cluster, tmp_path: Path, allowed: str) -> None:
    course = copy_course(tmp_path)
    inbox = a_class(tmp_path / "inbox", course, 60)
    cluster.start_scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=allowed)
    victim = cluster.start_worker("--no-nanny")
    cluster.start_worker("--no-nanny")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(inbox), "--out", str(out)]
    process = subprocess.Popen(
        [*command, "--scheduler", cluster.address],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_for(lambda: len(list((out / "store").rglob("*.json"))) > 0)
    victim.send_signal(signal.SIGKILL)
    kept = len(list((out / "store").rglob("*.json")))
    _, errors = process.communicate(timeout=300)
    assert kept < 63, "the worker was to be killed in the middle"
    assert process.returncode == 0, errors
    local = grader(course, "grade", inbox, "--jobs", 2, "--out", tmp_path / "here")
    assert local.returncode == 0, local.stderr
    assert (out / "results.json").read_bytes() == (tmp_path / "here" / "results.json").read_bytes()


def test_what_kills_its_workers_is_set_aside_alone(cluster: Cluster, tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    for number in range(12):
        text = reference(course, "01") + f"# {number}\n"
        hand_in(tmp_path / "inbox", f"s{number:02}", "01_numbers", text + (f"# {POISON}\n" if number == 5 else ""))
    (cluster.folder / "killer.py").write_text(KILLER, encoding="utf-8")
    cluster.start_scheduler(DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    cluster.start_worker("--nworkers", "2", "--preload", str(cluster.folder / "killer.py"))
    done = grader(course, "grade", tmp_path / "inbox", "--scheduler", cluster.address, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = {student: chapters["01_numbers"] for student, chapters in results(tmp_path / "out").items()}
    assert "the workers that took it died" in rows.pop("s05")["problem"]
    assert {row["score"] for row in rows.values()} == {5}
    assert len(list((tmp_path / "out" / "store").rglob("*.json"))) == 11


def test_a_worker_with_another_grader_is_refused_by_name(cluster: Cluster, tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    hand_in(tmp_path / "inbox", "ada", "01_numbers", reference(course, "01"))
    shutil.copytree(REPOSITORY / "grader", tmp_path / "old" / "grader", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "old" / "grader" / "verdict.py", "a", encoding="utf-8") as file:
        file.write("# as it was a year ago\n")
    cluster.start_scheduler()
    cluster.start_worker("--no-nanny", PYTHONPATH=str(tmp_path / "old"))
    refused = grader(course, "grade", tmp_path / "inbox", "--scheduler", cluster.address, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "worker tcp://127.0.0.1:" in refused.stderr
    assert "its grader is another version" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out/store/**/*.json"))


NOBODY = "tcp://127.0.0.1:9"  # the port of the service that throws away what it gets


@pytest.mark.parametrize("address", [NOBODY, "smoke://signals:1", "nonsense"])
def test_an_unreachable_scheduler_is_one_sentence(tmp_path: Path, address: str) -> None:
    course = copy_course(tmp_path)
    hand_in(tmp_path / "inbox", "ada", "01_numbers", reference(course, "01"))
    done = grader(course, "grade", tmp_path / "inbox", "--scheduler", address, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert f"no Dask scheduler at {address}" in done.stderr
    assert done.stderr.count("\n") == 1
