"""Grading through the command line, as an instructor does: folders, archives and files in, results out."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.handin import wrong_answer
from grader.authoring.sample import half_done
from grader.course import Course
from grader.testing.misconceptions import load_misconceptions
from grader.tests.small_course import copy_course, hand_in, reference

REPOSITORY = Path(__file__).parent.parent.parent


def grader(course: Course, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grader", "--course", str(course.root), *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd or REPOSITORY, env=environment(), capture_output=True, text=True, check=False
    )


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}


def results(out: Path) -> dict[str, dict[str, Any]]:
    """Give student -> chapter -> the chapter's data."""
    data = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {row["student"]: {chapter["chapter"]: chapter for chapter in row["chapters"]} for row in data["students"]}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Course, Path, Path]:
    """A class of every honest kind, graded once."""
    tmp = tmp_path_factory.mktemp("grade")
    course = copy_course(tmp)
    inbox = tmp / "inbox"
    one, two = reference(course, "01"), reference(course, "02")
    hand_in(inbox, "right", "01_numbers", one)
    hand_in(inbox, "right", "02_shapes", two)
    hand_in(inbox / "nested" / "chapters", "..", "01_numbers", one)
    hand_in(inbox, "stub", "01_numbers", course.chapter("01").stub.read_bytes())
    hand_in(inbox, "half", "01_numbers", half_done(course.chapter("01"), 1))
    hand_in(inbox, "crlf", "01_numbers", b"\xef\xbb\xbf" + one.replace("\n", "\r\n").encode())
    hand_in(inbox, "latin", "01_numbers", "# caf\xe9\n".encode("latin-1") + one.encode())
    hand_in(inbox, "syntax", "01_numbers", "def double(x:\n")
    for wrong in load_misconceptions(course.chapter("01").misconceptions):
        hand_in(inbox, f"wrong-{wrong.name}", "01_numbers", wrong_answer(course.chapter("01"), wrong))
    hand_in(inbox, "stands-on", "02_shapes", two.replace("x / x.sum(dim=-1, keepdim=True)", "x / (x.sum() + 1)"))
    hand_in(inbox, "empty", "99_nothing", "")
    (inbox / "empty" / "notes.txt").write_text("I did not manage", encoding="utf-8")
    make_archives(tmp, course)
    shutil.move(tmp / "zipped.zip", inbox)
    shutil.move(tmp / "tarred.tar.gz", inbox)
    notebooks(course, inbox)
    (inbox / "linked" / "01_numbers").mkdir(parents=True)
    (inbox / "linked" / "01_numbers" / "exercises.py").symlink_to(course.chapter("01").source)
    hand_in(inbox, "twice", "01_numbers", one)
    with zipfile.ZipFile(inbox / "twice.zip", "w") as archive:
        archive.writestr("01_numbers/exercises.py", one)
    out = tmp / "out"
    done = grader(course, "grade", inbox, "--jobs", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    return course, inbox, out


def make_archives(folder: Path, course: Course) -> None:
    text = reference(course, "01")
    with zipfile.ZipFile(folder / "zipped.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("my work/chapters/01_numbers/exercises.py", text)
        archive.writestr("__MACOSX/01_numbers/exercises.py", "junk")
    hand_in(folder, "tarred", "01_numbers", text)
    with tarfile.open(folder / "tarred.tar.gz", "w:gz") as archive:
        archive.add(folder / "tarred" / "01_numbers", "./01_numbers")
    shutil.rmtree(folder / "tarred")


def notebooks(course: Course, inbox: Path) -> None:
    chapter = course.chapter("01")
    data = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    code = next(cell for cell in data["cells"] if cell["cell_type"] == "code")
    solved = json.dumps({**data, "cells": [{**code, "source": reference(course, "01").splitlines(keepends=True)}]})
    resaved = json.dumps({**data, "metadata": {"kernelspec": {"name": "other"}}}, indent=4)
    hand_in(inbox, "notebook", "01_numbers", solved, "exercises.ipynb")
    hand_in(inbox, "notebook-and-stub", "01_numbers", solved, "exercises.ipynb")
    hand_in(inbox, "notebook-and-stub", "01_numbers", chapter.stub.read_bytes())
    hand_in(inbox, "module-and-resaved", "01_numbers", resaved, "exercises.ipynb")
    hand_in(inbox, "module-and-resaved", "01_numbers", reference(course, "01"))
    hand_in(inbox, "both", "01_numbers", solved, "exercises.ipynb")
    hand_in(inbox, "both", "01_numbers", reference(course, "01"))
    hand_in(inbox, "torn-notebook", "01_numbers", solved[:200], "exercises.ipynb")


FULL = ["right", "nested", "crlf", "zipped", "tarred", "notebook", "notebook-and-stub", "module-and-resaved"]


@pytest.mark.parametrize("student", FULL)
def test_a_right_answer_gets_all_points_however_it_comes(graded: tuple[Course, Path, Path], student: str) -> None:
    row = results(graded[2])[student]["01_numbers"]
    assert row["score"] == row["points"] == 5
    assert {e["verdict"] for e in row["exercises"]} == {"passed"}


def test_each_chapter_stands_for_itself(graded: tuple[Course, Path, Path]) -> None:
    assert results(graded[2])["right"]["02_shapes"]["score"] == 10
    assert "02_shapes" not in results(graded[2])["stub"]


def test_work_not_begun_is_to_do(graded: tuple[Course, Path, Path]) -> None:
    row = results(graded[2])["stub"]["01_numbers"]
    assert row["score"] == 0
    assert {e["verdict"] for e in row["exercises"]} == {"to-do"}


def test_half_the_work_gets_its_points(graded: tuple[Course, Path, Path]) -> None:
    row = results(graded[2])["half"]["01_numbers"]
    assert [(e["name"], e["score"], e["verdict"]) for e in row["exercises"]] == [
        ("double", 2, "passed"),
        ("mean", 0, "to-do"),
    ]


def test_every_misconception_is_named(graded: tuple[Course, Path, Path]) -> None:
    course, _, out = graded
    for wrong in load_misconceptions(course.chapter("01").misconceptions):
        rows = results(out)[f"wrong-{wrong.name}"]["01_numbers"]["exercises"]
        exercise = next(row for row in rows if row["name"] == wrong.exercise)
        assert exercise["diagnosis"] == wrong.sentence
        assert exercise["score"] < exercise["points"]
        page = (out / "feedback" / f"wrong-{wrong.name}.md").read_text(encoding="utf-8")
        assert wrong.sentence.split(";")[0] in page.replace("\\", "")


def test_a_misconception_sends_to_the_quizs_question_about_it(graded: tuple[Course, Path, Path]) -> None:
    _, _, out = graded
    page = (out / "feedback" / "wrong-empty_is_zero.md").read_text(encoding="utf-8")
    assert "asks for a ValueError. Question 4 of the quiz is about this: `grader quiz 01`." in page
    assert "· question 4 of the quiz</small>" in (out / "report.html").read_text(encoding="utf-8")


def test_what_stands_on_a_wrong_exercise_says_so(graded: tuple[Course, Path, Path]) -> None:
    rows = {row["name"]: row for row in results(graded[2])["stands-on"]["02_shapes"]["exercises"]}
    assert "it stands on rows_sum_to_one" in rows["Counter"]["note"]


REJECTED = [
    ("empty", "no exercises.py or exercises.ipynb"),
    ("both", "both exercises.py and exercises.ipynb were edited"),
    ("linked", "is a link"),
    ("twice", "handed in more than once"),
]


@pytest.mark.parametrize(("student", "words"), REJECTED, ids=[student for student, _ in REJECTED])
def test_what_cannot_be_graded_gets_one_sentence(graded: tuple[Course, Path, Path], student: str, words: str) -> None:
    row = results(graded[2])[student]["01_numbers"]
    assert words in row["problem"]
    assert row["score"] == 0


@pytest.mark.parametrize(("student", "words"), [("syntax", "line 1"), ("latin", "UTF-8"), ("torn-notebook", "damaged")])
def test_a_file_that_cannot_be_loaded_says_why(graded: tuple[Course, Path, Path], student: str, words: str) -> None:
    row = results(graded[2])[student]["01_numbers"]
    assert {e["verdict"] for e in row["exercises"]} == {"error"}
    assert words in row["exercises"][0]["note"]


def test_all_files_are_written(graded: tuple[Course, Path, Path]) -> None:
    out = graded[2]
    with open(out / "grades.csv", newline="", encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert set(rows) == set(results(out))
    assert "<title" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "gradebook.db").is_file()


def test_an_unchanged_class_is_known_and_gives_equal_bytes(graded: tuple[Course, Path, Path], tmp_path: Path) -> None:
    course, inbox, out = graded
    before = (out / "results.json").read_bytes()
    again = grader(course, "grade", inbox, "--jobs", 2, "--out", out)
    assert "were known and not graded again" in again.stdout
    assert (out / "results.json").read_bytes() == before
    fresh = grader(course, "grade", inbox, "--jobs", 1, "--out", tmp_path / "other", "--fresh")
    assert fresh.returncode == 0
    assert (tmp_path / "other" / "results.json").read_bytes() == before


def test_a_changed_submission_alone_is_graded_again(graded: tuple[Course, Path, Path], tmp_path: Path) -> None:
    course, _, _ = graded
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    for student in ("a", "b"):
        hand_in(inbox, student, "01_numbers", reference(course, "01") + f"# {student}\n")
    grader(course, "grade", inbox, "--out", out, "--jobs", 1)
    hand_in(inbox, "b", "01_numbers", course.chapter("01").stub.read_bytes())
    done = grader(course, "grade", inbox, "--out", out, "--jobs", 1)
    assert "1 of 2 results were known" in done.stdout
    assert results(out)["b"]["01_numbers"]["score"] == 0
    assert results(out)["a"]["01_numbers"]["score"] == 5
    assert "2 marks of 1 student changed (2 down): the hand-in changed (2)" in done.stdout
    with open(out / "changes.csv", newline="", encoding="utf-8") as file:
        changes = [(row["student"], row["exercise"], row["before"], row["after"]) for row in csv.DictReader(file)]
    assert changes == [("b", "double", "2.0", "0.0"), ("b", "mean", "3.0", "0.0")]
    fresh = grader(course, "grade", inbox, "--out", tmp_path / "fresh", "--jobs", 1)
    assert fresh.returncode == 0, fresh.stderr
    assert (tmp_path / "fresh" / "results.json").read_bytes() == (out / "results.json").read_bytes()


def test_a_single_file_and_a_wrong_call(graded: tuple[Course, Path, Path], tmp_path: Path) -> None:
    course, _, _ = graded
    file = tmp_path / "alice.py"
    file.write_text(reference(course, "01"), encoding="utf-8")
    refused = grader(course, "grade", file, "--out", tmp_path / "out")
    assert refused.returncode == 2
    assert "--chapter" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = grader(course, "grade", file, "--chapter", "01", "--out", tmp_path / "out", "--jobs", 1)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out")["alice"]["01_numbers"]["score"] == 5


@pytest.mark.parametrize(("arguments", "words"), [(["nowhere"], "is not there"), (["."], "nothing to grade")])
def test_nothing_to_grade_is_one_sentence(tmp_path: Path, arguments: list[str], words: str) -> None:
    course = copy_course(tmp_path)
    (tmp_path / "empty").mkdir()
    done = grader(course, "grade", *[tmp_path / "empty" / a for a in arguments], "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_stopped_run_goes_on_where_it_was(graded: tuple[Course, Path, Path], tmp_path: Path) -> None:
    course, _, _ = graded
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    for number in range(120):
        hand_in(inbox, f"s{number:03}", "01_numbers", reference(course, "01") + f"# {number}\n")
    command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(inbox)]
    process = subprocess.Popen(
        [*command, "--out", str(out), "--jobs", "1"],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # a shell that started this test in the background has made SIGINT ignored for all below it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(list((out / "store").rglob("*.json"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    _, errors = process.communicate(timeout=60)
    kept = len(list((out / "store").rglob("*.json")))
    assert process.returncode == 130, errors
    assert b"run the same command again" in errors
    assert 5 <= kept < 120
    again = grader(course, "grade", inbox, "--out", out, "--jobs", 2)
    assert f"{kept} of 120 results were known" in again.stdout
    assert {row["01_numbers"]["score"] for row in results(out).values()} == {5}


def test_doctor_prints_every_layer() -> None:
    course = copy_course(Path(os.environ.get("TMPDIR", "/tmp")) / f"doctor-{os.getpid()}")
    try:
        done = grader(course, "doctor")
        data = json.loads(grader(course, "doctor", "--json").stdout)
    finally:
        shutil.rmtree(course.root.parent)
    names = {layer["name"] for layer in data["layers"]}
    assert {"landlock", "seccomp", "namespaces", "rlimits"} <= names
    assert all(name in done.stdout for name in names)
    assert (done.returncode == 0) == (not data["missing"])
