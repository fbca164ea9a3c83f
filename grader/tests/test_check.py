"""Where am I, is it right: `grader`, `grader list`, `grader check`, and what a student may call an exercise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from grader.course import Course, CourseError
from grader.student.names import find_exercise, find_target
from grader.tests.at_the_desk import RIGHT, SQUARE, as_json, environment, grader, write, write_cell
from grader.tests.small_course import copy_course, reference


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return copy_course(tmp_path)


def states(course: Course, *arguments: str) -> dict[str, str]:
    data = as_json(course, *arguments)
    return {exercise["id"]: exercise["words"] for exercise in data["exercises"]}


def test_an_untouched_course_says_where_to_begin(course: Course) -> None:
    done = grader(course)
    assert done.returncode == 0
    assert "0 of 4 exercises" in done.stdout
    assert "Next: double   chapters/01_numbers/exercises.py:21" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_all_four_outcomes_are_told_apart(course: Course) -> None:
    write(course, RIGHT)
    course.chapter("02").stub.write_text(
        reference(course, "02").replace("return x / x.sum(dim=-1, keepdim=True)", "return x"), encoding="utf-8"
    )
    assert states(course, "check", "01", "rows")["01_numbers/double"] == "right"
    data = as_json(course)
    found = {s["id"]: s["state"] for each in data["chapters"].values() for s in each}
    assert found == {
        "01_numbers/double": "right",
        "01_numbers/mean": "to do",
        "02_shapes/rows_sum_to_one": "wrong",
        "02_shapes/Counter": found["02_shapes/Counter"],
    }
    waiting = reference(course, "02").replace(
        "return x / x.sum(dim=-1, keepdim=True)", 'raise NotImplementedError("rows_sum_to_one")'
    )
    course.chapter("02").stub.write_text(waiting, encoding="utf-8")
    assert states(course, "check", "Counter") == {"02_shapes/Counter": "waits for rows_sum_to_one"}


def test_a_wrong_answer_is_a_lesson_and_exit_status_1(course: Course) -> None:
    write(course, "    print('looking', x)\n" + SQUARE)
    done = grader(course, "check", "double")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "✗ double: Twice 3 is 6."
    assert lines[1] == "    double(3): got 9, expected 6"
    assert "looking 3" in done.stdout
    assert "chapters/01_numbers/exercises.py:21" in done.stdout


def test_check_agrees_with_pytest(course: Course) -> None:
    write(course, SQUARE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "chapters", "--exercise", "double"]
    plain = subprocess.run(command, cwd=course.root, env=environment(), capture_output=True, text=True, check=False)
    assert "double: Twice 3 is 6." in plain.stdout
    assert "double(3): got 9, expected 6" in plain.stdout
    assert "6 deselected" in plain.stdout
    assert plain.returncode == grader(course, "check", "double").returncode == 1
    assert "def test_" in grader(course, "check", "double", "--full").stdout


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("    return x.no_such", "it raises AttributeError in line 34"),
        ("    import os\n    os._exit(4)", "it ended the Python process"),
        ("    return (x", "line 34"),
        ("    return None", "got None"),
        ("    raise SystemExit", "it raises SystemExit"),
    ],
)
def test_whatever_a_student_writes_is_said_in_a_sentence(course: Course, body: str, words: str) -> None:
    write(course, body)
    done = grader(course, "check", "double")
    assert done.returncode == 1
    assert words in done.stdout


def test_only_what_was_changed_is_run_again(course: Course) -> None:
    write(course, RIGHT)
    grader(course, "check")
    course.chapter("01").public_tests.write_text("raise RuntimeError", encoding="utf-8")
    assert grader(course, "check", "double").returncode == 3, "a broken suite is the machine's fault"
    course.chapter("01").public_tests.write_bytes((Path(__file__).parent / SUITE).read_bytes())
    assert "1 of 4 exercises" in grader(course).stdout


SUITE = "course_fixture/chapters/01_numbers/test_exercises.py"


def test_the_notebook_counts_if_it_was_edited(course: Course) -> None:
    write_cell(course, RIGHT)
    assert states(course, "check")["01_numbers/double"] == "right"
    write(course, SQUARE)
    done = grader(course, "check", "double")
    assert done.returncode == 2
    assert "both changed" in done.stderr and "--from module" in done.stderr
    assert grader(course, "check", "double", "--from", "notebook").returncode == 0
    overview = grader(course)
    assert overview.returncode == 0, "a doubt about one chapter does not hide the others"
    assert "both changed" in " ".join(overview.stdout.split())


def test_no_attempt_is_no_failure(course: Course) -> None:
    assert grader(course, "check", "double").returncode == 0
    nothing = grader(course, "check")
    assert nothing.returncode == 2
    assert "nothing is begun" in nothing.stderr


@pytest.mark.parametrize("word", ["double", "DOUBLE", "doub", "01/double", "numbers/dou", "chapters/01_numbers/double"])
def test_an_exercise_is_named_by_any_part(course: Course, word: str) -> None:
    target = find_target(course, word)
    assert target.exercise is not None and target.exercise.id == "01_numbers/double"


@pytest.mark.parametrize("word", ["01", "1", "numbers", "01_numbers", "chapters/01_numbers/"])
def test_a_chapter_is_named_by_number_or_part(course: Course, word: str) -> None:
    target = find_target(course, word)
    assert target.exercise is None and target.chapter.number == "01"


def test_a_slip_gets_suggestions(course: Course) -> None:
    with pytest.raises(CourseError, match="did you mean double"):
        find_exercise(course, "duoble")
    with pytest.raises(CourseError, match="can mean .*; write more"):
        find_exercise(course, "e")


def test_a_chapter_whose_folder_it_is_comes_first(course: Course) -> None:
    command = [sys.executable, "-m", "grader"]
    folder = course.chapter("02").folder
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    assert "Shapes (02)" in done.stdout
    assert "Next: rows_sum_to_one   exercises.py:" in done.stdout


@pytest.mark.parametrize("where", [["chapters"], ["chapters/01_numbers"], ["chapters/01_numbers/test_exercises.py"]])
def test_editors_find_the_tests(course: Course, where: list[str]) -> None:
    """VS Code and PyCharm collect in the root and by file, and name a test by path and function."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *where]
    done = subprocess.run(command, cwd=course.root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "chapters/01_numbers/test_exercises.py::test_double_of_a_whole_number" in done.stdout


def test_signs_that_a_terminal_lacks_are_written_plainly(course: Course) -> None:
    done = grader(course, PYTHONUTF8="0", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert "o double" in done.stdout


def test_outside_of_a_course_it_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grader"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "--course PATH" in done.stderr
