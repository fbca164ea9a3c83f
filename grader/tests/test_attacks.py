"""A class of attackers, graded for real: each gets the verdict it has earned, and the class goes on."""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from grader.course import Course, load_course
from grader.grading.result import ExerciseOutcome, Outcome
from grader.grading.run import Order, grade_class
from grader.report.files import feedback_path, write_all
from grader.sandbox.policy import missing, probe
from grader.tests.hostile import ATTACKS, Attack, files, hand_in_files, hand_in_module, modules
from grader.tests.small_course import copy_course, hand_in, reference
from grader.verdict import Verdict

LIMITS = "limits = { seconds = 0.4, memory_mb = 192 }\n"
RIGHT_AFTER_EACH = 8
"""Among the attackers sits an honest student after every so many, and at the end."""
SUBREAPER = 36

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(missing(probe())), reason="this host cannot confine student code"
)


@dataclass(frozen=True)
class Scene:
    """What the attackers know of the place, and what it looked like before them."""

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


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """Grade all attackers as one class."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="attacked-")))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        home.chmod(0o755)  # so that only the sandbox is in the way
        yield _graded(home, patch, stack)


def _graded(home: Path, patch: pytest.MonkeyPatch, stack: ExitStack) -> Scene:
    course, token = _course(home), secrets.token_hex(16)
    (course.chapter("01").solutions / "secret.txt").write_text(token)
    (home / "outside").write_text("untouched")
    (home / "outside").chmod(0o666)
    patch.setenv("GRADER_CANARY", token)
    listeners = _listeners(home, stack)
    inbox, out = home / "inbox", home / "out"
    _fill(inbox, course, _words(home, course, out, token, listeners))
    before, children = _files(home), _children()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    run = grade_class(course, Order(paths=(inbox,), out=out, jobs=2, secret="attacks"), lambda done, of: None)
    left = _left(children)
    ctypes.CDLL(None).prctl(SUBREAPER, 0, 0, 0, 0)
    write_all(run.outcomes, course, out)
    outcomes = {(outcome.student, outcome.chapter): outcome for outcome in run.outcomes}
    return Scene(course, out, token, before, _files(home), outcomes, _callers(listeners), left)


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


def _fill(inbox: Path, course: Course, words: dict[str, str]) -> None:
    for number, attack in enumerate(modules()):
        hand_in_module(attack, inbox, course, words)
        if number % RIGHT_AFTER_EACH == 0:
            _hand_in_right(inbox, f"{attack.name}_then_right", course)
    hand_in_files(inbox, reference(course, "01"))
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


# -- the tests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", [*modules(), *files()], ids=lambda attack: attack.name)
def test_attack_gets_what_it_has_earned(scene: Scene, attack: Attack) -> None:
    exercises = scene.exercises(attack)
    assert {name: str(exercise.verdict) for name, exercise in exercises.items()} == {
        name: attack.verdict(name) for name in exercises
    }
    for name, exercise in exercises.items():
        earned = exercise.points if exercise.verdict is Verdict.PASSED else attack.score(name)
        assert exercise.score == earned, [(test.id, str(test.verdict)) for test in exercise.tests]


def test_every_attack_says_what_it_tries_and_what_stops_it() -> None:
    assert len(modules()) > 45
    for file in ATTACKS.glob("*.py"):
        tries, expected, stopped = file.read_text(encoding="utf-8").splitlines()[:3]
        assert tries.endswith("."), file
        assert re.fullmatch(r"# \d\d_\w+: \w+ [a-z]+( [\d.]+)?(, \w+ [a-z]+( [\d.]+)?)*", expected), file
        assert stopped.startswith("# Stopped by: "), file
        assert stopped.endswith("."), file


def test_right_answers_among_the_attackers_get_full_marks(scene: Scene) -> None:
    honest = [outcome for (student, _), outcome in scene.outcomes.items() if "right" in student]
    assert len(honest) > 3 * 12
    for outcome in honest:
        assert outcome.score == outcome.points, outcome


def test_nothing_is_put_down_to_the_machine(scene: Scene) -> None:
    assert [outcome.student for outcome in scene.outcomes.values() if outcome.is_infra] == []


def test_no_secret_leaves_the_grader(scene: Scene) -> None:
    written = [file for file in scene.out.rglob("*") if file.is_file()]
    assert len(written) > 100
    for file in written:
        assert scene.token.encode() not in file.read_bytes(), file


def test_feedback_says_nothing_that_a_student_chose_after_seeing_inputs(scene: Scene) -> None:
    for student, _ in scene.outcomes:
        page = (scene.out / feedback_path(student)).read_text(encoding="utf-8")
        assert "LEAK" not in page.replace(f"`{student}`", ""), student
        assert "777777777777" not in page, student


def test_feedback_holds_no_live_words(scene: Scene) -> None:
    for page in (scene.out / "feedback").iterdir():
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text), page
        assert not re.search(r"(?m)^::", text), page


def test_nothing_outside_the_scratch_folder_has_changed(scene: Scene) -> None:
    assert scene.files_after == scene.files_before
    assert not Path("/dev/shm/leak").exists()


def test_nobody_called_out(scene: Scene) -> None:
    assert scene.callers == []


def test_no_process_is_left(scene: Scene) -> None:
    assert scene.left == set()
