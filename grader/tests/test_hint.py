"""Help at the desk: the ladder of hints, the stub put back, the quiz, the doctor."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from grader.course import Course
from grader.student.quiz import NotAnAnswer, Option, Question, is_right, read_quiz
from grader.tests.at_the_desk import RIGHT, SQUARE, STUB, as_json, grader, write, write_cell
from grader.tests.small_course import copy_course


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return copy_course(tmp_path)


# -- hints ---------------------------------------------------------------------------------------------------------


def test_the_first_hint_comes_after_an_attempt_the_next_after_another(course: Course) -> None:
    assert "try it first" in grader(course, "hint", "double").stdout
    write(course, SQUARE)
    first = grader(course, "hint", "double").stdout
    assert "double, hint 1 of 3" in first and "hint 2" not in first
    again = grader(course, "hint", "double").stdout
    assert "hint 2" not in again and "after another attempt" in again
    write(course, "    return x ** 2")
    assert "double, hint 2 of 3" in grader(course, "hint", "double").stdout
    assert as_json(course, "hint", "double", "--now")["hints"] == list(course.chapter("01").exercise("double").hints)
    assert "that was the last hint" in grader(course, "hint", "double").stdout


def test_a_line_above_the_raise_is_an_attempt(course: Course) -> None:
    write(course, f"    y = x\n{STUB}")
    assert "hint 1 of 3" in grader(course, "hint", "double").stdout


def test_patience_opens_the_next_hint(course: Course) -> None:
    write(course, SQUARE)
    grader(course, "hint", "double")
    file = course.root / ".grader" / "desk.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    data["hints"]["01_numbers/double"][0]["time"] = time.time() - 3600
    file.write_text(json.dumps(data), encoding="utf-8")
    assert "hint 2 of 3" in grader(course, "hint", "double").stdout


def test_hints_taken_are_for_the_students_eyes(course: Course) -> None:
    write(course, SQUARE)
    grader(course, "hint", "double")
    assert as_json(course, "status")["hints"] == {"01_numbers/double": 1}
    assert (course.root / ".grader" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_a_damaged_drawer_is_an_empty_one(course: Course) -> None:
    write(course, SQUARE)
    grader(course, "hint", "double")
    (course.root / ".grader" / "desk.json").write_text("{ half a file", encoding="utf-8")
    assert "hint 1 of 3" in grader(course, "hint", "double").stdout


# -- reset ---------------------------------------------------------------------------------------------------------


def test_reset_puts_one_stub_back_and_keeps_a_copy(course: Course) -> None:
    file = course.chapter("01").stub
    write(course, SQUARE)
    mine = file.read_text(encoding="utf-8").replace(
        '    raise NotImplementedError("mean")', "    return sum(xs) / len(xs)\n\n\ndef helper():\n    return 1"
    )
    file.write_text(mine, encoding="utf-8")
    done = as_json(course, "reset", "double")
    text = file.read_text(encoding="utf-8")
    assert done["functions"] == ["double"]
    assert text == mine.replace(SQUARE, STUB)
    assert (course.root / done["copy"]).read_text(encoding="utf-8") == mine
    assert "as it came" in grader(course, "reset", "double").stdout


def test_reset_in_a_notebook(course: Course) -> None:
    before = course.chapter("01").notebook.read_text(encoding="utf-8")
    write_cell(course, SQUARE)
    grader(course, "reset", "double")
    assert json.loads(course.chapter("01").notebook.read_text(encoding="utf-8"))["cells"] == [
        {**cell, "source": "".join(cell["source"])} for cell in json.loads(before)["cells"]
    ]


def test_reset_finds_the_stub_in_the_history(course: Course) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "as it came"]):
        subprocess.run(["git", *arguments], cwd=course.root, check=True, capture_output=True)
    course.chapter("01").notebook.unlink()
    write(course, SQUARE)
    grader(course, "reset", "double")
    assert STUB in course.chapter("01").stub.read_text(encoding="utf-8")


def test_reset_without_a_stub_changes_nothing(course: Course) -> None:
    course.chapter("01").notebook.unlink()
    write(course, SQUARE)
    done = grader(course, "reset", "double", GIT_CEILING_DIRECTORIES=str(course.root.parent))
    assert done.returncode == 2
    assert "neither in the chapter's other file nor in the history" in done.stderr
    assert SQUARE in course.chapter("01").stub.read_text(encoding="utf-8")


# -- the quiz ------------------------------------------------------------------------------------------------------


def test_the_quiz_explains_every_option_at_once(course: Course) -> None:
    done = grader(course, "quiz", "01", typed="b\n15/4\na b\na\n\n")
    assert done.returncode == 0
    assert "The number plus itself." in done.stdout and "That is the square." in done.stdout
    assert "Not so; the answer is a c." in done.stdout
    assert "The answer is 0.5." in done.stdout
    assert "3 of 4 right." in done.stdout


def test_the_end_of_input_ends_the_quiz(course: Course) -> None:
    assert "1 of 1 right." in grader(course, "quiz", "numbers", typed="b\n").stdout


def test_the_quiz_as_json_keeps_what_was_not_answered(course: Course) -> None:
    questions = as_json(course, "quiz", "01", typed="b\n")["questions"]
    assert questions[0]["right"] is True and len(questions[0]["explanations"]) == 3
    assert "answer" not in questions[1] and "explanations" not in questions[1]


def test_a_slip_in_the_quiz_file_names_the_question(course: Course) -> None:
    file = course.chapter("01").folder / "quiz.toml"
    file.write_text(file.read_text(encoding="utf-8").replace('kind = "any"', 'kind = "many"'), encoding="utf-8")
    done = grader(course, "quiz", "01")
    assert done.returncode == 2
    assert "quiz.toml: question 3: kind must be one of" in done.stderr


ONE = Question("one", "", options=(Option("x", False, ""), Option("y", True, "")))
ANY = Question("any", "", options=(Option("x", True, ""), Option("y", False, ""), Option("z", True, "")))
NUMBER = Question("number", "", answer=0.5, tolerance=0.01)
SHAPE = Question("shape", "", answer=[2, 7])


@pytest.mark.parametrize(
    ("question", "typed", "right"),
    [
        (ONE, "B", True),
        (ONE, "a", False),
        (ANY, "a, c", True),
        (ANY, "ca", True),
        (ANY, "a", False),
        (NUMBER, "1/2", True),
        (NUMBER, "0,505", True),
        (NUMBER, "0.52", False),
        (SHAPE, "(2, 7)", True),
        (SHAPE, "2x7", True),
        (SHAPE, "7 2", False),
    ],
)
def test_answers(question: Question, typed: str, right: bool) -> None:
    assert is_right(question, typed) is right


@pytest.mark.parametrize(
    ("question", "typed"), [(ONE, "ab"), (ONE, "z"), (ANY, "1"), (NUMBER, "half"), (NUMBER, "1/0"), (SHAPE, "two")]
)
def test_what_is_no_answer_is_said_and_asked_again(question: Question, typed: str) -> None:
    with pytest.raises(NotAnAnswer):
        is_right(question, typed)


def test_every_right_answer_counts_as_right(course: Course) -> None:
    for chapter in course.chapters:
        for question in read_quiz(chapter):
            assert is_right(question, question.right)


# -- the doctor ----------------------------------------------------------------------------------------------------


def test_the_doctor_checks_what_the_desk_needs(course: Course) -> None:
    done = as_json(course, "doctor")
    names = {check["name"] for check in done["checks"]}
    assert {"python", "torch", "threads", "watch", "git", "writing"} <= names
    assert all(check["ok"] or check["remedy"] for check in done["checks"])


def test_the_doctor_ends_each_fault_with_the_command_that_mends_it(course: Course) -> None:
    subprocess.run(["git", "init", "-q"], cwd=course.root, check=True)
    (course.root / "pyproject.toml").write_text(
        '[project]\ndependencies = ["numpy>=999", "no-such-package-here>=1"]\n', encoding="utf-8"
    )
    done = grader(course, "doctor", OMP_NUM_THREADS="many")
    assert done.returncode == 1
    for remedy in ('pip install "numpy>=999"', 'pip install "no-such-package-here>=1"', "grader setup", "unset OMP"):
        assert remedy in done.stdout
    assert grader(course, "setup").returncode == 0
    assert "merges exercises by function" in grader(course, "doctor").stdout


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="whoever is root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(course: Course) -> None:
    course.root.chmod(0o555)
    try:
        assert "chmod -R u+w" in grader(course, "doctor").stdout
        write_protected = grader(course, "hint", "double", "--now")
        assert write_protected.returncode == 2 and "cannot be written" in write_protected.stderr
    finally:
        course.root.chmod(0o755)


def test_right_is_said_without_a_word_too_many(course: Course) -> None:
    write(course, RIGHT)
    assert grader(course, "check", "double").stdout.splitlines() == ["● double: right, 2 checks, 2 of 2 points"]
