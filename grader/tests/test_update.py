"""An update never costs a student work: real git, real folders, real zip files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from grader.course import Course, load_course
from grader.student.update import remember_stubs
from grader.tests.small_course import copy_course

REPOSITORY = Path(__file__).parent.parent.parent
SOLVED = "    return x + x  # mine"
STUB = '    raise NotImplementedError("double")'
NEW_FUNCTION = '''

# %%
def triple(x: float) -> float:
    """Return three times `x`."""
    raise NotImplementedError("triple")
'''


def environment() -> dict[str, str]:
    identity = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **identity, **quiet}


def git(folder: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, env=environment(), capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def grader(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grader", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)


def edit(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def edit_cell(file: Path, old: str, new: str) -> None:
    data = json.loads(file.read_text(encoding="utf-8"))
    for cell in data["cells"]:
        cell["source"] = "".join(cell["source"]).replace(old, new)
    file.write_text(json.dumps(data, indent=1), encoding="utf-8")


def cells(file: Path) -> dict[str, str]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return {cell.get("id", ""): "".join(cell["source"]) for cell in data["cells"]}


@pytest.fixture
def release(tmp_path: Path) -> Course:
    """The course as it was released, in a repository."""
    course = copy_course(tmp_path / "release")
    shutil.copy(REPOSITORY / ".gitattributes", course.root)
    git(course.root, "init", "-q", "-b", "main")
    git(course.root, "add", "-A")
    git(course.root, "commit", "-qm", "a release")
    return course


@pytest.fixture
def student(release: Course, tmp_path: Path) -> Course:
    """A student's clone."""
    git(tmp_path, "clone", "-q", str(release.root), "student")
    assert grader(tmp_path / "student", "setup").returncode == 0
    return load_course(tmp_path / "student")


def mend_release(release: Course) -> None:
    """Mend a docstring of a function that is solved, one of a stub, add a function, change a test."""
    chapter = release.chapter("01")
    edit(chapter.stub, ("Return twice `x`.", "Return two times `x`."), ("Return the arithmetic", "Give the arithmetic"))
    chapter.stub.write_text(chapter.stub.read_text(encoding="utf-8") + NEW_FUNCTION, encoding="utf-8")
    edit(chapter.public_tests, ("Twice 3 is 6.", "Twice three is six."))
    edit_cell(chapter.notebook, "Return the arithmetic", "Give the arithmetic")
    edit_cell(chapter.notebook, "Return twice `x`.", "Return two times `x`.")
    git(release.root, "commit", "-qam", "a mended release")


def assert_all_arrived(course: Course) -> None:
    chapter = course.chapter("01")
    text = chapter.stub.read_text(encoding="utf-8")
    assert SOLVED in text, "the student's work is there"
    assert "Give the arithmetic" in text, "an untouched stub has the better docstring"
    assert "def triple" in text, "the new function is there"
    assert "three is six" in chapter.public_tests.read_text(encoding="utf-8")
    for mark in ("<<<<<<<", ">>>>>>>", "======="):
        assert mark not in text
    compile(text, "exercises.py", "exec")


def test_git_pull_keeps_what_was_solved_and_brings_the_rest(release: Course, student: Course) -> None:
    edit(student.chapter("01").stub, (STUB, SOLVED))
    git(student.root, "commit", "-qam", "solved")
    mend_release(release)
    git(student.root, "pull", "-q", "--no-rebase", "--no-edit")
    assert_all_arrived(student)
    assert git(student.root, "status", "--short") == ""


def test_a_rebase_keeps_it_too(release: Course, student: Course) -> None:
    edit(student.chapter("01").stub, (STUB, SOLVED))
    git(student.root, "commit", "-qam", "solved")
    mend_release(release)
    git(student.root, "pull", "-q", "--rebase")
    assert_all_arrived(student)


def test_what_was_not_committed_comes_back_from_the_stash(release: Course, student: Course) -> None:
    edit(student.chapter("01").stub, (STUB, SOLVED))
    mend_release(release)
    git(student.root, "pull", "-q", "--rebase", "--autostash")
    assert_all_arrived(student)


def test_a_half_written_function_is_work_too(release: Course, student: Course) -> None:
    half = f"    y = x  # half\n{STUB}"
    edit(student.chapter("01").stub, (STUB, half))
    git(student.root, "commit", "-qam", "half")
    mend_release(release)
    git(student.root, "pull", "-q", "--rebase")
    assert half in student.chapter("01").stub.read_text(encoding="utf-8")


def test_imports_constants_and_helpers_of_both_stay(release: Course, student: Course) -> None:
    edit(
        student.chapter("01").stub,
        ("from collections.abc import Sequence\n", "import math\nfrom collections.abc import Sequence\n\nLIMIT = 7\n"),
        (STUB, SOLVED + "\n\n\ndef helper():\n    return LIMIT"),
    )
    git(student.root, "commit", "-qam", "solved")
    edit(
        release.chapter("01").stub,
        ("from collections.abc import Sequence\n", "import random\nfrom collections.abc import Sequence\n"),
        ("is not defined", "is undefined"),
    )
    mend_release(release)
    git(student.root, "pull", "-q", "--no-rebase", "--no-edit")
    assert_all_arrived(student)
    text = student.chapter("01").stub.read_text(encoding="utf-8")
    for line in ("import math", "import random", "LIMIT = 7", "def helper", "is undefined"):
        assert line in text


def test_a_syntax_error_costs_nothing(release: Course, student: Course) -> None:
    edit(student.chapter("01").stub, (STUB, "    return (x +"))
    git(student.root, "commit", "-qam", "broken")
    mend_release(release)
    git(student.root, "pull", "-q", "--no-rebase", "--no-edit")
    text = student.chapter("01").stub.read_text(encoding="utf-8")
    assert "    return (x +" in text
    assert "def triple" in text
    assert "<<<<<<<" not in text


def test_a_notebook_is_merged_by_cell(release: Course, student: Course) -> None:
    notebook = student.chapter("01").notebook
    edit_cell(notebook, STUB, SOLVED)
    git(student.root, "commit", "-qam", "solved")
    mend_release(release)
    git(student.root, "pull", "-q", "--no-rebase", "--no-edit")
    found = cells(notebook)
    assert SOLVED in found["double"]
    assert "Give the arithmetic" in found["mean"]


def test_without_the_driver_git_merges_as_ever(release: Course, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(release.root), "plain")
    course = load_course(tmp_path / "plain")
    edit(course.chapter("02").stub, ('raise NotImplementedError("rows_sum_to_one")', "return x"))
    git(course.root, "commit", "-qam", "solved")
    mend_release(release)
    git(course.root, "pull", "-q", "--no-rebase", "--no-edit")
    assert "def triple" in course.chapter("01").stub.read_text(encoding="utf-8")


def test_a_driver_that_fails_leaves_the_merge_to_git(release: Course, student: Course) -> None:
    git(student.root, "config", "merge.functions.driver", "false || git merge-file --marker-size=%L %A %O %B")
    edit(student.chapter("02").stub, ('raise NotImplementedError("rows_sum_to_one")', "return x"))
    git(student.root, "commit", "-qam", "solved")
    edit(release.chapter("02").stub, ("An object that counts", "A thing that counts"))
    git(release.root, "commit", "-qam", "prose")
    git(student.root, "pull", "-q", "--no-rebase", "--no-edit")
    text = student.chapter("02").stub.read_text(encoding="utf-8")
    assert "return x\n" in text and "A thing that counts" in text


# -- without common history ----------------------------------------------------------------------------------------


@pytest.fixture
def copy(release: Course, tmp_path: Path) -> Course:
    """A student's copy from a download: no git."""
    shutil.copytree(release.root, tmp_path / "copy", ignore=shutil.ignore_patterns(".git", "solutions"))
    return load_course(tmp_path / "copy")


@pytest.mark.parametrize("form", ["clone", "zip"])
def test_update_from_a_clone_or_a_zip(release: Course, copy: Course, tmp_path: Path, form: str) -> None:
    edit(copy.chapter("01").stub, (STUB, SOLVED))
    edit_cell(copy.chapter("02").notebook, 'raise NotImplementedError("rows_sum_to_one")', "return x  # mine")
    mend_release(release)
    source = release.root
    if form == "zip":
        source = tmp_path / "course.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for file in release.root.rglob("*"):
                if file.is_file():
                    archive.write(file, Path("course-main") / file.relative_to(release.root))
    done = grader(copy.root, "update", source)
    assert done.returncode == 0, done.stderr
    assert "yours stay: double" in done.stdout
    assert_all_arrived(copy)
    assert "# mine" in cells(copy.chapter("02").notebook)["rows_sum_to_one"]
    assert not (copy.root / "solutions").exists(), "an instructor's half never comes along"
    kept = list((copy.root / ".grader" / "kept").rglob("exercises.py"))
    assert [SOLVED in file.read_text(encoding="utf-8") for file in kept] == [True]
    again = grader(copy.root, "update", source)
    assert "Nothing is newer" in again.stdout


def test_a_dry_run_changes_nothing(release: Course, copy: Course) -> None:
    mend_release(release)
    before = copy.chapter("01").stub.read_bytes()
    done = grader(copy.root, "update", release.root, "--dry-run")
    assert "would be merged" in done.stdout
    assert copy.chapter("01").stub.read_bytes() == before


def test_a_stub_of_an_older_release_is_known_by_its_digest(release: Course, copy: Course) -> None:
    """The stub's given lines change between releases; the digest of the old one says that nobody touched it."""
    remember_stubs(release.chapter("01").folder)
    assert remember_stubs(release.chapter("01").folder) is False
    edit(release.chapter("01").stub, (STUB, "    factor = 2\n" + STUB))
    git(release.root, "add", "-A")
    git(release.root, "commit", "-qm", "given")
    grader(copy.root, "update", release.root)
    assert "factor = 2" in copy.chapter("01").stub.read_text(encoding="utf-8")


def test_a_given_constant_is_the_newer_one(release: Course, copy: Course) -> None:
    edit(copy.chapter("01").stub, ("from collections.abc", "import math\nfrom collections.abc"))
    edit(release.chapter("01").stub, ("is not defined", "is undefined"))
    git(release.root, "commit", "-qam", "constant")
    grader(copy.root, "update", release.root)
    text = copy.chapter("01").stub.read_text(encoding="utf-8")
    assert "is undefined" in text and "is not defined" not in text
    assert "import math" in text


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda place: None, "is not there"),
        (lambda place: place.mkdir(), "holds no course"),
        (lambda place: place.write_bytes(b"PK no zip"), "no zip file"),
    ],
)
def test_a_bad_source_is_one_sentence(copy: Course, tmp_path: Path, make: Any, sentence: str) -> None:
    place = tmp_path / "source"
    make(place)
    done = grader(copy.root, "update", place)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_damaged_notebook_is_left_and_said(release: Course, copy: Course) -> None:
    copy.chapter("01").notebook.write_text("{ not json", encoding="utf-8")
    mend_release(release)
    done = grader(copy.root, "update", release.root)
    assert done.returncode == 1
    assert "is left as it is" in done.stdout
    assert copy.chapter("01").notebook.read_text(encoding="utf-8") == "{ not json"
    assert "def triple" in copy.chapter("01").stub.read_text(encoding="utf-8")
