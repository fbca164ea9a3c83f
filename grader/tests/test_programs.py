"""Programs that an exercise executes: the desk and the sandbox tell the same story of each, and both survive it."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import pytest

from grader.sandbox.policy import Plan, in_force, probe
from grader.sandbox.programs import SHOWN, run_beside
from grader.sandbox.session import Warm, Zygote, execute
from grader.sandbox.twins import start

Execute = Callable[[str, float], dict[str, Any]]


def serve(warm: Warm, connection: Connection) -> None:
    """Be a trusted twin that executes what it is sent."""
    zygote = Zygote(Plan(layers=in_force(probe())), warm)
    while (order := connection.recv()) is not None:
        connection.send(execute(zygote, *order))
    zygote.close()


@pytest.fixture(scope="module")
def sandboxed() -> Iterator[Execute]:
    ours, theirs = multiprocessing.Pipe()
    with theirs:
        process = start("grader.tests.test_programs:serve", theirs)

    def ask(program: str, timeout: float) -> dict[str, Any]:
        ours.send((program, timeout))
        answer: dict[str, Any] = ours.recv()
        return answer

    yield ask
    ours.send(None)
    assert process.wait() == 0


@pytest.fixture(params=["desk", "sandbox"])
def run(request: pytest.FixtureRequest) -> Execute:
    return run_beside if request.param == "desk" else request.getfixturevalue("sandboxed")


def test_what_a_program_prints_comes_back(run: Execute) -> None:
    assert run("print('a')\nprint('b')", 5.0) == {"exit_code": 0, "stdout": "a\nb\n", "stderr": "", "timed_out": False}


def test_an_exception_gives_exit_code_1_and_its_traceback(run: Execute) -> None:
    ended = run("assert 1 == 2, 'no'", 5.0)
    assert ended["exit_code"] == 1 and ended["stderr"].rstrip().endswith("AssertionError: no")


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit", 0), ("exit()", 0), ("quit(3)", 3), ("exit('words')", 1), ("import os; os._exit(4)", 4)],
)
def test_an_early_end_has_its_exit_code_and_nothing_after_it_runs(run: Execute, program: str, code: int) -> None:
    ended = run(f"{program}\nprint('reached')", 5.0)
    assert (ended["exit_code"], ended["timed_out"]) == (code, False)
    assert "reached" not in ended["stdout"]


def test_a_loop_without_an_end_times_out(run: Execute) -> None:
    ended = run("while True: pass", 0.5)
    assert ended["timed_out"] and ended["exit_code"] is None


def test_of_a_flood_the_beginning_is_kept(run: Execute) -> None:
    ended = run("for i in range(100000): print('x' * 99)", 10.0)
    assert ended["exit_code"] == 0 and ended["stdout"] == (("x" * 99 + "\n") * (SHOWN // 100))


def test_what_goes_past_pythons_streams_counts_too(run: Execute) -> None:
    """A harness may silence a candidate at the descriptors, and print its proof through a copy of one."""
    program = """
import os
kept = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
print("the candidate's words", flush=True)
os.write(kept, b"proof")
"""
    assert run(program, 5.0) == {"exit_code": 0, "stdout": "proof", "stderr": "", "timed_out": False}


def test_a_thread_that_goes_on_does_not_keep_the_outcome_back(sandboxed: Execute) -> None:
    program = "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); print(1)"
    assert sandboxed(program, 5.0)["stdout"] == "1\n"


def test_a_syntax_error_is_an_outcome(run: Execute) -> None:
    ended = run("def f(:", 5.0)
    assert ended["exit_code"] == 1 and "SyntaxError" in ended["stderr"]


@pytest.mark.parametrize(
    "program",
    [
        "open('/etc/passwd').read()",
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "import subprocess; subprocess.run(['/bin/true'], check=True)",
        "open('/tmp/from-a-program', 'w').write('x')",
    ],
)
def test_in_the_sandbox_a_program_reaches_nothing(sandboxed: Execute, program: str) -> None:
    ended = sandboxed(f"{program}\nprint('reached')", 5.0)
    assert ended["exit_code"] != 0 and "reached" not in ended["stdout"]


def test_nobody_can_ask_for_more_time_than_there_is(sandboxed: Execute) -> None:
    assert sandboxed("while True: pass", float("nan"))["timed_out"]


def test_one_program_leaves_nothing_for_the_next(sandboxed: Execute) -> None:
    sandboxed("import builtins; builtins.left = 1", 5.0)
    assert sandboxed("import builtins; print(hasattr(builtins, 'left'))", 5.0)["stdout"] == "False\n"
