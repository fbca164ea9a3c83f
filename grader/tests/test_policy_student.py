"""What is left for a student's code: Python, numpy and torch, confined by everything, forked from a warm process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from grader.sandbox.policy import in_force, missing, probe

ROOT = Path(__file__).resolve().parents[2]
HERE = probe()

STUDENT = """
import importlib, json, math, os, random, re, sys, tempfile, threading, time, traceback
import numpy as np, regex, tiktoken, torch
from torch import nn

def train():
    model = nn.Sequential(nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 11))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    x = torch.arange(10)
    first = last = 0.0
    for step in range(20):
        loss = nn.functional.cross_entropy(model(x), x + 1)
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        first, last = first or loss.item(), loss.item()
    assert last < first

def attention():
    x = torch.randn(2, 4, 16, 8, requires_grad=True)
    nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True).sum().backward()
    torch.linalg.svd(torch.randn(20, 20)); torch.fft.rfft(torch.randn(64))
    nn.functional.conv1d(torch.randn(1, 4, 32), torch.randn(4, 4, 3))

def two_threads():
    torch.set_num_threads(2)
    a = torch.randn(600, 600)
    assert torch.isfinite(a @ a).all()
    torch.set_num_threads(1)

def python_threads():
    done = []
    workers = [threading.Thread(target=done.append, args=(i,)) for i in range(8)]
    [worker.start() for worker in workers]; [worker.join() for worker in workers]
    assert sorted(done) == list(range(8))

def numpy():
    rng = np.random.default_rng()
    a = rng.normal(size=(50, 50))
    np.linalg.solve(a, np.ones(50)); np.linalg.svd(a)

def save_and_load():
    torch.save({"w": torch.ones(3)}, "model.pt")
    assert torch.load("model.pt")["w"].sum() == 3
    np.save("a.npy", np.ones(3)); np.load("a.npy")

def temporary_files():
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile("w+", dir=folder) as file:
        assert folder.startswith(os.getcwd())
        file.write("x" * 10000); file.flush()
        os.makedirs(os.path.join(folder, "a", "b")); os.rename(os.path.join(folder, "a"), os.path.join(folder, "c"))
    assert not os.path.exists(folder)

def import_late():
    for name in ("wave", "colorsys", "mailbox", "torch.nn.utils.prune", "torch.distributions", "numpy.ma.mrecords"):
        importlib.import_module(name)

def tokens():
    assert regex.findall(r"\\p{L}+", "one two") == ["one", "two"]
    ranks = {bytes([i]): i for i in range(256)}
    tiktoken.Encoding("tiny", pat_str=r"\\S+|\\s+", mergeable_ranks=ranks, special_tokens={}).encode("hello you")

def clocks_and_chance():
    time.sleep(0.001); time.time(); time.perf_counter(); time.process_time(); time.localtime()
    random.random(); os.urandom(8); torch.randn(2); print("", end="", flush=True)

def read_the_submission():
    assert open(os.environ["SUBMISSION"]).read() == "x = 1\\n"

def a_large_array_is_an_error():
    try:
        torch.empty(1 << 33, dtype=torch.uint8)
    except RuntimeError:
        return
    raise AssertionError("no error")

TASKS = [train, attention, two_threads, python_threads, numpy, save_and_load, temporary_files, import_late, tokens,
         clocks_and_chance, read_the_submission, a_large_array_is_an_error]

def answers():
    result = {}
    for task in TASKS:
        try:
            task(); result[task.__name__] = "works"
        except BaseException:
            result[task.__name__] = traceback.format_exc()
    return json.dumps(result)

def warm():
    from dataclasses import replace
    from grader.sandbox.policy import Plan, enter_child, enter_supervisor
    train(); attention()
    layers, scratch, submission = sys.argv[2:]
    os.environ["SUBMISSION"] = submission
    plan = Plan(frozenset(layers.split(",")), (submission,), scratch, keep_fds=(1, 2), cpu_seconds=60)
    supervisor = os.fork()
    if supervisor == 0:
        room = enter_supervisor(plan)
        child = os.fork()
        if child == 0:
            enter_child(plan, room)
            os.write(1, answers().encode())
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(supervisor, 0)[1]))

warm()
"""
PACKAGES = ("torch", "numpy", "regex", "tiktoken")
TASKS = STUDENT.partition("TASKS = [")[2].partition("]")[0].replace(",", " ").split()


def open_to_all(folder: Path) -> None:
    """Let a slot's user reach a folder of pytest's, which makes its own private."""
    for step in (folder, *folder.parents[:2]):
        if step.stat().st_uid == os.geteuid() and "pytest" in str(step):
            step.chmod(0o755)


@pytest.fixture(scope="module", params=["all", "without namespaces"])
def student_answers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What came of each task in a child confined by everything, forked from a process that has torch loaded."""
    if missing(HERE):
        pytest.skip("this host is not safe for grading")
    names = in_force(HERE) - {"cgroup"}
    if request.param == "without namespaces":
        names -= {"namespaces", "identity"}
    folder = tmp_path_factory.mktemp("student")
    open_to_all(folder)
    (folder / "scratch").mkdir()
    (folder / "exercises.py").write_text("x = 1\n")
    paths = [str(ROOT), *{str(Path(found.origin or "").parents[1]) for found in map(find_spec, PACKAGES) if found}]
    boot = f"import sys; sys.path[:0] = {paths!r}; exec(sys.argv[1])"
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-B",
            "-c",
            boot,
            STUDENT,
            ",".join(names),
            folder / "scratch",
            folder / "exercises.py",
        ],
        env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return {**answers, "stderr": done.stderr}


@pytest.mark.parametrize("task", TASKS)
def test_a_students_code_still_can(student_answers: dict[str, str], task: str) -> None:
    assert student_answers[task] == "works", student_answers["stderr"]
