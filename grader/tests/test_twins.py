"""Controllers and their warm processes: what the warm one knows, and that both are renewed together."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from grader.grading.collect import Submission
from grader.grading.pool import Pool
from grader.grading.result import Outcome
from grader.grading.worker import Job, Settings
from grader.sandbox.policy import Plan, in_force, probe
from grader.sandbox.proxy import Link
from grader.sandbox.session import Limits, Warm, Zygote
from grader.sandbox.twins import start
from grader.tests.small_course import copy_course, reference

LOOK = b"""
import os, sys
def modules(): return sorted(sys.modules)
def environment(): return dict(os.environ)
def paths(): return list(sys.path)
def arguments(): return [*sys.argv, *sys.orig_argv]
def address(): return id(object.__init__)
"""


def look(warm: Warm, connection: Connection) -> None:
    """Be a trusted twin: told a secret after the fork, it asks a child what that knows."""
    os.environ["GRADER_SEED"] = connection.recv()
    zygote = Zygote(Plan(layers=in_force(probe())), warm)
    supervisor = zygote.supervisor()
    child = supervisor.child(Limits(60.0, 512 << 20))
    link = Link(child)
    link.request("load", "look", "look.py", "py", LOOK)
    names = ("modules", "environment", "paths", "arguments", "address")
    seen = {name: link.request("call", None, name, (), {}, False) for name in names}
    child.end()
    supervisor.close()
    zygote.close()
    connection.send({**seen, "own address": id(object.__init__)})


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        process = start("grader.tests.test_twins:look", theirs)
    ours.send("the secret")
    yield ours.recv()
    assert process.wait() == 0


def test_the_warm_twin_has_never_met_what_the_trusted_one_imports_or_is_told(seen: dict[str, Any]) -> None:
    rooms = {name.split(".")[1] for name in seen["modules"] if name.startswith("grader.")}
    assert rooms == {"sandbox", "verdict"}
    assert not {"pytest", "hypothesis", "nbgrader"} & set(seen["modules"])
    assert "the secret" not in seen["environment"].values()
    assert set(seen["environment"]) <= {
        *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", "PATH", "LANG"),
        *("HOME", "TMPDIR", "LC_CTYPE", "TORCHINDUCTOR_CACHE_DIR"),
    }
    assert seen["arguments"] == []
    assert not [path for path in seen["paths"] if (Path(path) / "grader").is_dir()]


def test_twins_have_one_layout_of_addresses(seen: dict[str, Any]) -> None:
    assert seen["address"] == seen["own address"]


def test_controllers_are_renewed_and_nothing_is_lost(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    chapter = course.chapter("01")
    settings = Settings(course.root, course.root / "solutions", (chapter.name,), "", in_force(probe()), "tier")
    data = reference(course, "01").encode()
    jobs = [
        Job(number, Submission(f"student{number}", chapter.name, {"exercises.py": data}), f"key{number}")
        for number in range(5)
    ]
    outcomes: dict[int, Outcome] = {}
    pool = Pool(settings, {chapter.name: chapter}, 1, renew_after=2)
    pool.run(jobs, lambda job, outcome: outcomes.update({job.number: outcome}))
    assert sorted(outcomes) == list(range(5))
    assert {outcome.score for outcome in outcomes.values()} == {chapter.points}
