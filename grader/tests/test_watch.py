"""`grader watch` in a real terminal of 80 columns, and the warm process behind it.

Every wait is for something that must appear, with time enough for a machine under load.
"""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grader.course import Course
from grader.student.orders import Answer, Order
from grader.student.worker import Worker
from grader.tests.at_the_desk import RIGHT, SQUARE, environment, write, write_cell
from grader.tests.small_course import copy_course

pexpect = pytest.importorskip("pexpect", reason="a pty is needed")

LONG = 120
MENU = "q quit"


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return copy_course(tmp_path)


class Desk:
    """A terminal in which `grader watch` runs."""

    def __init__(self, course: Course, *arguments: str, **more: str) -> None:
        self.course = course
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "grader", "watch", *arguments],
            cwd=str(course.root),
            env=environment(TERM="xterm", **more),
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=LONG,
        )

    def see(self, text: str) -> str:
        """Wait until a text appears, and give all that came before it."""
        self.child.expect_exact(text)
        return str(self.child.before + self.child.after)

    def verdict(self) -> str:
        """Wait for the next verdict, and give its text."""
        self.child.expect(r"\d\d:\d\d:\d\d  double")
        return self.see(MENU)

    def press(self, key: str) -> None:
        self.child.send(key)

    def ready(self) -> None:
        """Wait until saved files are noticed: a save is repeated until it was."""
        for _ in range(LONG):
            self.course.chapter("01").stub.touch()
            write(self.course, "    return (")
            if self.child.expect_exact(["cannot read the file", pexpect.TIMEOUT], timeout=1) == 0:
                self.see(MENU)
                return
        raise AssertionError("no save was noticed")

    def quit(self) -> None:
        self.press("q")
        self.child.expect(pexpect.EOF)
        self.child.close()


@pytest.fixture
def desk(course: Course) -> Iterator[Desk]:
    desk = Desk(course, "double", NO_COLOR="1")
    desk.see(MENU)
    desk.ready()
    yield desk
    desk.child.close(force=True)


def test_from_a_save_to_a_lesson_and_on_to_the_next(desk: Desk) -> None:
    write(desk.course, "    print('looking at', x)\n" + SQUARE)
    text = desk.verdict()
    assert "✗ double: Twice 3 is 6." in text
    assert "double(3): got 9, expected 6" in text
    assert "looking at 3" in text
    assert "\x1b" not in text, "NO_COLOR is respected"
    assert max(len(line) for line in text.splitlines()) <= 80
    write(desk.course, RIGHT)
    text = desk.verdict()
    assert "● double: right, 2 checks, 2 of 2 points" in text
    assert "n next: mean, to do   chapters/01_numbers/exercises.py:44" in text
    desk.press("n")
    assert "What an average of nothing is." in desk.see(MENU)
    desk.press("h")
    assert "try it first" in desk.see(MENU)
    desk.press("l")
    text = desk.see(MENU)
    assert "● double" in text and "> ○ mean" in text
    desk.quit()
    assert desk.child.exitstatus == 0


def test_a_syntax_error_is_told_at_once_with_its_place(desk: Desk) -> None:
    write(desk.course, "    return 2 *")
    desk.see("chapters/01_numbers/exercises.py:34: invalid syntax")
    assert re.search(r"^ +\^", desk.see(MENU), re.MULTILINE)


def test_a_loop_without_an_end_gives_way_to_the_next_save(desk: Desk) -> None:
    write(desk.course, "    print('round and round')\n    while True: pass")
    time.sleep(0.5)  # so that it has begun; if it has not, the test passes as well
    write(desk.course, RIGHT)
    assert "● double: right" in desk.see("2 of 2 points")


def test_code_that_ends_python_is_said(desk: Desk) -> None:
    write(desk.course, "    import os\n    os._exit(7)")
    assert "exit status 7" in desk.verdict()
    write(desk.course, RIGHT)
    assert "● double: right" in desk.verdict()


def test_the_debugger_stops_in_the_students_function(desk: Desk) -> None:
    write(desk.course, "    y = x\n" + SQUARE)
    desk.verdict()
    desk.press("d")
    desk.see("(Pdb)")
    desk.child.sendline("p x")
    assert "3" in desk.see("(Pdb)")
    desk.child.sendline("q")
    desk.see(MENU)
    desk.press("l")
    assert "✗ double" in desk.see(MENU), "the keys are back"


def test_pytest_in_full_on_demand(desk: Desk) -> None:
    write(desk.course, SQUARE)
    desk.verdict()
    desk.press("f")
    assert "def test_double_of_a_whole_number" in desk.see(MENU)


def test_all_runs_what_is_begun(desk: Desk) -> None:
    write(desk.course, RIGHT)
    desk.verdict()
    desk.press("a")
    assert "● double: right" in desk.verdict()


def test_a_notebook_that_is_saved_counts(desk: Desk) -> None:
    write(desk.course, '    raise NotImplementedError("double")')
    write_cell(desk.course, SQUARE)
    assert "exercises.ipynb" in desk.verdict()


def test_it_says_when_it_polls(course: Course) -> None:
    desk = Desk(course, "double", WATCHFILES_FORCE_POLLING="1", NO_COLOR="1")
    desk.see("Watching by polling: WATCHFILES_FORCE_POLLING is set")
    desk.ready()
    write(course, RIGHT)
    assert "● double: right" in desk.see("2 of 2 points")
    desk.quit()


def test_a_program_reads_json(course: Course) -> None:
    write(course, SQUARE)
    command = [sys.executable, "-m", "grader", "watch", "double", "--json"]
    process = subprocess.Popen(
        command, cwd=course.root, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
        assert first["exercise"] == "01_numbers/double"
        assert second["checked"] == ["01_numbers/double"]
        assert second["exercises"][0]["state"] == "wrong"
        assert second["exercises"][0]["tests"][0]["lesson"]["claim"] == "Twice 3 is 6."
    finally:
        process.terminate()
        process.wait()


# -- the process behind it -----------------------------------------------------------------------------------------


def ask(worker: Worker, heard: queue.Queue[Answer], course: Course, number: int) -> Answer:
    chapter = course.chapter("01")
    worker.ask(Order(str(chapter.public_tests), str(chapter.stub), ("double",), number))
    return heard.get(timeout=LONG)


@pytest.mark.parametrize("fork", [None, False], ids=["forks", "replaced after each run"])
def test_a_worker_serves_one_order_after_the_other(course: Course, fork: bool | None) -> None:
    """Without forks, as on Windows, the process is used up by an order and the next one is started in time."""
    heard: queue.Queue[Answer] = queue.Queue()
    worker = Worker(heard.put, cold=True, fork=fork)
    try:
        for number, body in enumerate([RIGHT, SQUARE, "    import os\n    os._exit(9)", RIGHT]):
            write(course, body)
            answer = ask(worker, heard, course, number)
            assert answer.number == number
            assert [str(test.verdict) for test in answer.tests] == {
                0: ["passed", "passed"],
                1: ["wrong", "wrong"],
                2: [],
                3: ["passed", "passed"],
            }[number]
            assert bool(answer.problem) == (number == 2)
    finally:
        worker.close()


def test_what_is_given_up_is_ended_and_said(course: Course) -> None:
    heard: queue.Queue[Answer] = queue.Queue()
    worker = Worker(heard.put, cold=True)
    chapter = course.chapter("01")
    write(course, "    while True: pass")
    try:
        worker.ask(Order(str(chapter.public_tests), str(chapter.stub), ("double",), 1))
        threading.Timer(1.0, worker.give_up, ["too long"]).start()
        assert heard.get(timeout=LONG).problem == "too long"
        write(course, RIGHT)
        assert len(ask(worker, heard, course, 2).tests) == 2
    finally:
        worker.close()


def test_a_worker_leaves_no_process_behind(course: Course) -> None:
    heard: queue.Queue[Any] = queue.Queue()
    worker = Worker(heard.put, cold=True)
    pid = worker._process.pid
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
