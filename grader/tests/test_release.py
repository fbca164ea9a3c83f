"""`grader release`: a student's repository that works by itself and holds nothing of the instructor's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from grader.authoring.leaks import Secrets, leaks_in
from grader.authoring.release import release
from grader.course import Course, CourseError, load_course
from grader.tests.small_course import copy_course

ROOT = Path(__file__).parent.parent.parent


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@localhost")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return copy_course(tmp_path)


def test_it_holds_what_a_student_needs_and_nothing_else(course: Course, tmp_path: Path) -> None:
    done = release(course, tmp_path / "students")
    names = set(git(tmp_path / "students", "ls-files").splitlines())
    assert set(done.written) == names
    assert {"README.md", "chapters/01_numbers/exercises.py", "chapters/02_shapes/quiz.toml"} <= names
    assert not [name for name in names if "solutions" in name or "authoring" in name or "grader/tests" in name]
    assert git(tmp_path / "students", "log", "--format=%s") == "Release: chapters 01, 02"


def test_the_stub_is_made_afresh_whatever_stands_in_chapters(course: Course, tmp_path: Path) -> None:
    stub = course.chapter("01").stub
    released = stub.read_bytes()
    stub.write_text(course.chapter("01").source.read_text(encoding="utf-8"), encoding="utf-8")
    release(course, tmp_path / "students")
    assert (tmp_path / "students" / "chapters" / "01_numbers" / "exercises.py").read_bytes() == released


def test_chapters_are_released_one_after_the_other(course: Course, tmp_path: Path) -> None:
    dest = tmp_path / "students"
    assert release(course, dest, [course.chapter("02")]).chapters == ("02_shapes",)
    assert release(course, dest, [course.chapter("01")]).chapters == ("01_numbers", "02_shapes")
    assert release(course, dest, [course.chapter("01")]).commit == ""
    assert len(git(dest, "log", "--format=%h").splitlines()) == 2
    assert "01_numbers" in (dest / "README.md").read_text(encoding="utf-8")


def test_the_stubs_of_every_release_are_remembered(course: Course, tmp_path: Path) -> None:
    dest = tmp_path / "students"
    release(course, dest)
    first = json.loads((dest / "chapters" / "01_numbers" / "stubs.json").read_text(encoding="utf-8"))
    source = course.chapter("01").source
    source.write_text(source.read_text(encoding="utf-8").replace("Return twice `x`.", "Return `x` twice."), "utf-8")
    release(course, dest)
    second = json.loads((dest / "chapters" / "01_numbers" / "stubs.json").read_text(encoding="utf-8"))
    assert len(first["double"]) == 1
    assert set(first["double"]) < set(second["double"])


def test_what_the_course_no_longer_has_is_removed(course: Course, tmp_path: Path) -> None:
    dest = tmp_path / "students"
    release(course, dest)
    (course.chapter("01").folder / "quiz.toml").unlink()
    assert release(course, dest).removed == ("chapters/01_numbers/quiz.toml",)
    assert not (dest / "chapters" / "01_numbers" / "quiz.toml").exists()


def _solution_in_public_test(course: Course) -> None:
    lines = "\n\ndef helper(xs):\n    if not xs:\n        raise ValueError(NO_NUMBERS)\n    return sum(xs) / len(xs)\n"
    _append(course.chapter("01").public_tests, lines)


def _misconception_in_notes(course: Course) -> None:
    _append(course.chapter("01").folder / "README.md", "\nYou add two; double is the\nnumber times two.\n")


def _hidden_test_in_notes(course: Course) -> None:
    text = course.chapter("01").hidden_tests.read_text(encoding="utf-8")
    _append(course.chapter("01").folder / "README.md", f"\n```python\n{text}\n```\n")


def _keys_in_notes(course: Course) -> None:
    text = course.chapter("01").quiz_keys.read_text(encoding="utf-8")
    _append(course.chapter("01").folder / "README.md", f"\n```toml\n{text}\n```\n")


def _append(file: Path, text: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")


LEAKS: list[tuple[Callable[[Course], None], str]] = [
    (_solution_in_public_test, "holds lines of the reference of 01_numbers"),
    (_misconception_in_notes, "holds lines of the misconception adds_two of 01_numbers"),
    (_hidden_test_in_notes, "holds lines of the hidden tests of 01_numbers"),
    (_keys_in_notes, "holds lines of the quiz's keys of 01_numbers"),
]


@pytest.mark.parametrize(("plant", "words"), LEAKS, ids=[plant.__name__ for plant, _ in LEAKS])
def test_a_leak_stops_the_release_and_nothing_is_written(
    course: Course, tmp_path: Path, plant: Callable[[Course], None], words: str
) -> None:
    plant(course)
    with pytest.raises(CourseError, match=words):
        release(course, tmp_path / "students")
    assert not (tmp_path / "students").exists()


@pytest.mark.parametrize("forgotten", ["reset", "reverted"])
def test_a_leak_in_the_history_is_found(course: Course, tmp_path: Path, forgotten: str) -> None:
    dest = tmp_path / "students"
    release(course, dest)
    (dest / "old.txt").write_text(course.chapter("01").source.read_text(encoding="utf-8"), encoding="utf-8")
    git(dest, "add", "--all")
    git(dest, "commit", "-m", "by mistake")
    if forgotten == "reset":
        git(dest, "reset", "--hard", "HEAD~1")
    else:
        git(dest, "revert", "--no-edit", "HEAD")
    with pytest.raises(CourseError, match="the history of .* holds it"):
        release(course, dest)


def test_a_notebook_with_outputs_and_bytecode_are_leaks(course: Course) -> None:
    secrets = Secrets.of(course.chapters)
    notebook = b'{"cells": [{"cell_type": "code", "source": [], "outputs": [{"text": "42"}], "execution_count": 1}]}'
    bytecode = b"\xa7\r\r\n" + bytes(60)
    assert leaks_in({"a.ipynb": notebook}, secrets) == ["a.ipynb has outputs"]
    assert leaks_in({"a.pyc": bytecode}, secrets) == ["a.pyc is Python bytecode"] * 2
    assert leaks_in({"solutions/01/x.py": b""}, secrets) == ["solutions/01/x.py belongs to the instructor"]


def _is_course(course: Course, tmp_path: Path) -> Path:
    return course.root


def _is_inside(course: Course, tmp_path: Path) -> Path:
    return course.root / "students"


def _is_full(course: Course, tmp_path: Path) -> Path:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    return tmp_path / "mine"


def _is_dirty(course: Course, tmp_path: Path) -> Path:
    release(course, tmp_path / "students")
    (tmp_path / "students" / "README.md").write_text("mine", encoding="utf-8")
    return tmp_path / "students"


PLACES = [
    (_is_course, "is an instructor's repository"),
    (_is_inside, "lies inside the course"),
    (_is_full, "holds other files"),
    (_is_dirty, "has changes that are not committed"),
]


@pytest.mark.parametrize(("place", "words"), PLACES, ids=[place.__name__ for place, _ in PLACES])
def test_a_wrong_place_is_said(
    course: Course, tmp_path: Path, place: Callable[[Course, Path], Path], words: str
) -> None:
    with pytest.raises(CourseError, match=words):
        release(course, place(course, tmp_path))


def test_the_real_course_installs_and_checks_itself(tmp_path: Path) -> None:
    course = load_course(ROOT)
    dest = tmp_path / "students"
    release(course, dest, [course.chapters[0]])
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    python = scripts / "python"
    # torch and the rest come from this environment; what is tried is the repository's own package
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-e", str(dest)], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    Path(site, "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    status = subprocess.run([scripts / "grader"], cwd=dest, env=environ, capture_output=True, text=True)
    assert status.returncode == 0, status.stderr
    assert "to do" in status.stdout
    checked = subprocess.run([python, "-m", "pytest", "-q"], cwd=dest, env=environ, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
    assert "wrong" not in checked.stdout
    helped = subprocess.run([scripts / "grader", "--help"], cwd=dest, env=environ, capture_output=True, text=True)
    assert "verify" not in helped.stdout


def test_every_import_of_the_students_machine_leads_somewhere(course: Course, tmp_path: Path) -> None:
    dest = tmp_path / "students"
    release(course, dest)
    everything = [".".join(file.relative_to(dest).with_suffix("").parts) for file in (dest / "grader").rglob("*.py")]
    code = f"import importlib, sys; sys.path.insert(0, '.'); [importlib.import_module(n) for n in {everything!r}]"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=dest, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not {"grader.grading.run", "grader.authoring"} & set(everything)
