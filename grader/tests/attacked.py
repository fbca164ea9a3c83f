"""A class of attackers, graded for real, and what could be seen of the place before and after."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from grader.course import Course, load_course
from grader.grading.result import ExerciseOutcome, Outcome
from grader.grading.run import ClassRun, Order, grade_class
from grader.report.files import write_all
from grader.tests.hostile import ATTACKS, Attack, hand_in_files, hand_in_module
from grader.tests.small_course import copy_course, hand_in, reference

LIMITS = "limits = { seconds = 0.25, memory_mb = 192 }\n"
RIGHT_AFTER_EACH = 8
"""Among the attackers sits an honest student after every so many, and at the end."""
SUBREAPER = 36


@dataclass(frozen=True)
class Scene:
    """What the attackers know of the place, and what it looked like before them."""

    level: str
    course: Course
    out: Path
    token: str
    files_before: dict[str, tuple[int, ...]]
    files_after: dict[str, tuple[int, ...]]
    outcomes: dict[tuple[str, str], Outcome]
    callers: list[str]
    left: set[int]

    def exercises(self, attack: Attack) -> dict[str, ExerciseOutcome]:
        return {exercise.name: exercise for exercise in self.outcomes[attack.name, attack.chapter].exercises}


@contextmanager
def staged(
    level: str, attacks: Sequence[Attack], layers: frozenset[str] | None = None, jobs: int = 2, with_files: bool = True
) -> Iterator[Scene]:
    """Grade attackers as one class, with honest students between them, and files and archives that are broken.

    With `layers` exactly these are in force, whatever the grader itself would say to that; without, all there are.
    """
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attacked-")))
        home.chmod(0o755)  # so that only the sandbox is in the way
        course, token = _course(home), secrets.token_hex(16)
        (course.chapter("01").solutions / "secret.txt").write_text(token)
        (home / "outside").write_text("untouched")
        (home / "outside").chmod(0o666)
        listeners = _listeners(home, stack)
        inbox, out = home / "inbox", home / "out"
        _fill(inbox, course, attacks, _words(home, course, out, token, listeners))
        if with_files:
            hand_in_files(inbox, reference(course, "01"))
        before, children = _files(home), _children()
        order = Order(paths=(inbox,), out=out, jobs=jobs, secret="attacks")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADER_CANARY", token)
            if layers is not None:
                patch.setattr("grader.grading.run.isolation", lambda asked: (layers, level))
            run, left = _graded(course, order, children)
        write_all(run.outcomes, course, out)
        outcomes = {(outcome.student, outcome.chapter): outcome for outcome in run.outcomes}
        yield Scene(level, course, out, token, before, _files(home), outcomes, _callers(listeners), left)


def _graded(course: Course, order: Order, children: set[int]) -> tuple[ClassRun, set[int]]:
    """Grade, and give the processes that are left; orphans become this process's children meanwhile."""
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    try:
        return grade_class(course, order, lambda done, total: None), _left(children)
    finally:
        ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)


def _course(home: Path) -> Course:
    """Copy the tiny course, with tight limits and one more chapter."""
    root = copy_course(home).root
    calls = root / "solutions" / "03_calls"
    shutil.copytree(ATTACKS / "03_calls", calls, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "chapters" / "03_calls").mkdir()
    shutil.move(calls / "chapter.toml", root / "chapters" / "03_calls")
    for settings in root.glob("chapters/*/chapter.toml"):
        text = re.sub(r"(?m)^limits = .*\n", "", settings.read_text(encoding="utf-8"))
        settings.write_text(re.sub(r"(?m)^points = ", f"{LIMITS}points = ", text), encoding="utf-8")
    return load_course(root)


def _fill(inbox: Path, course: Course, attacks: Sequence[Attack], words: dict[str, str]) -> None:
    for number, attack in enumerate(attacks):
        hand_in_module(attack, inbox, course, words)
        if number % RIGHT_AFTER_EACH == 0:
            _hand_in_right(inbox, f"{attack.name}_then_right", course)
    for number in range(4):
        _hand_in_right(inbox, f"zz_right_{number}", course)


def _hand_in_right(inbox: Path, student: str, course: Course) -> None:
    for chapter in course.chapters:
        hand_in(inbox, student, chapter.name, f"{reference(course, chapter.name)}\n# {student}\n")


def _words(home: Path, course: Course, out: Path, token: str, listeners: list[socket.socket]) -> dict[str, str]:
    tcp, udp, _, _ = listeners
    return {
        "FOLDER": str(course.root),
        "SOLUTIONS": str(course.chapter("01").solutions),
        "OUT": str(out),
        "OUTSIDE": str(home / "outside"),
        "PID": str(os.getpid()),
        "TOKEN_HEAD": token[:8],
        "TCP": str(tcp.getsockname()[1]),
        "UDP": str(udp.getsockname()[1]),
        "DOOR": str(home / "door"),
    }


def _listeners(home: Path, stack: ExitStack) -> list[socket.socket]:
    inet, unix, stream = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
    kinds = ((inet, stream), (inet, socket.SOCK_DGRAM), (unix, stream), (unix, stream))
    made = [socket.socket(*kind) for kind in kinds]
    addresses: list[tuple[str, int] | str]
    addresses = [("127.0.0.1", 0), ("127.0.0.1", 0), str(home / "door"), f"\0{home / 'door'}"]
    for listener, address in zip(made, addresses, strict=True):
        stack.enter_context(listener)
        listener.bind(address)
        listener.setblocking(False)
        if listener.type == stream:
            listener.listen()
    return made


def _callers(listeners: list[socket.socket]) -> list[str]:
    found = []
    for listener in listeners:
        with suppress(BlockingIOError):
            found.append(str(listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(100)))
    return found


def _files(home: Path) -> dict[str, tuple[int, ...]]:
    """Give what could be changed of every file but the results."""
    found: dict[str, tuple[int, ...]] = {}
    for path in home.rglob("*"):
        if home / "out" not in (path, *path.parents):
            state = path.lstat()
            found[str(path.relative_to(home))] = (state.st_mode, state.st_uid, state.st_size, state.st_mtime_ns)
    return found


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def _left(before: set[int]) -> set[int]:
    """Give the processes that the run left behind; orphans have become this process's children."""
    for _ in range(100):
        left = {pid for pid in _children() - before if not _has_ended(pid)}
        if not left:
            break
        time.sleep(0.1)  # a supervisor ends a moment after its controller
    return left


def _has_ended(pid: int) -> bool:
    if "resource_tracker" in Path(f"/proc/{pid}/cmdline").read_text():  # multiprocessing's own, for this process's life
        return True
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True
