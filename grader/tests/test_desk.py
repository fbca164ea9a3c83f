"""The self-check as a student meets it: plain pytest, run as a command in a copy of the course."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grader.course import Course
from grader.tests.small_course import copy_course, reference

REPOSITORY = Path(__file__).parent.parent.parent


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest as the student would; the package is reached by path, as in a clone that was never installed."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTEST_DISABLE_PLUGIN_AUTOLOAD", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    return copy_course(tmp_path)


def write(course: Course, chapter: str, text: str) -> None:
    course.chapter(chapter).stub.write_text(text, encoding="utf-8")


def test_an_untouched_clone_is_to_do_and_not_red(course: Course) -> None:
    done = pytest_in(course.root)
    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert "to do" in done.stdout
    assert [line.split()[:3] for line in done.stdout.splitlines() if line.startswith("  double")] == [
        ["double", "to", "do"]
    ]


def test_a_right_answer_is_done_with_all_points(course: Course) -> None:
    write(course, "01", reference(course, "01"))
    done = pytest_in(course.root, "chapters/01_numbers")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  ")}
    assert rows["double"] == ["right", "2.00", "/", "2"]
    assert rows["mean"] == ["right", "3.00", "/", "3"]


def test_a_wrong_answer_gets_a_short_lesson(course: Course) -> None:
    write(course, "01", reference(course, "01").replace("return 2 * x", "return x * x"))
    done = pytest_in(course.root, "chapters", "-k", "double")
    assert done.returncode == 1
    assert "expected" in done.stdout
    assert "got" in done.stdout
    assert "Traceback" not in done.stdout
    assert "def test_" not in done.stdout, "the test's source is not part of the lesson"
    assert "wrong: " in done.stdout


def test_the_full_view_comes_back_on_demand(course: Course) -> None:
    write(course, "01", reference(course, "01").replace("return 2 * x", "return x * x"))
    assert "def test_" in pytest_in(course.root, "chapters", "-k", "double", "-vv").stdout


def test_it_works_from_inside_a_chapter(course: Course) -> None:
    write(course, "01", reference(course, "01"))
    done = pytest_in(course.chapter("01").folder)
    assert done.returncode == 0, done.stdout
    assert "right" in done.stdout


def test_a_syntax_error_names_file_and_line(course: Course) -> None:
    write(course, "01", "def double(x):\n    return 2 *\n")
    done = pytest_in(course.root, "chapters/01_numbers")
    assert done.returncode == 1
    assert "exercises.py, line 2" in done.stdout
    assert "Traceback" not in done.stdout


def test_an_exercise_waits_for_another(course: Course) -> None:
    text = reference(course, "02")
    waiting = text.replace("return x / x.sum(dim=-1, keepdim=True)", 'raise NotImplementedError("rows_sum_to_one")')
    assert waiting != text
    write(course, "02", waiting)
    done = pytest_in(course.root, "chapters/02_shapes")
    assert done.returncode == 0, done.stdout
    assert "waits for rows_sum_to_one" in done.stdout


def test_a_forbidden_call_is_told_by_name(course: Course) -> None:
    chapter = course.chapter("02")
    name = next(e.forbidden[0] for e in chapter.exercises if e.forbidden)
    function = "torch.nn.functional." + name.rpartition(".")[2] if name.startswith("torch.nn.functional") else name
    body = reference(course, "02").replace("return x / x.sum(dim=-1, keepdim=True)", f"return {function}(x)")
    write(course, "02", body)
    done = pytest_in(course.root, "chapters/02_shapes")
    assert name in done.stdout


def test_another_file_can_be_checked(course: Course) -> None:
    other = course.root / "mine.py"
    other.write_text(reference(course, "01"), encoding="utf-8")
    done = pytest_in(course.root, "chapters/01_numbers", "--module", "mine.py")
    assert "right" in done.stdout
    assert done.returncode == 0


def test_a_notebook_can_be_checked(course: Course) -> None:
    import json

    notebook = course.chapter("01").notebook
    data = json.loads(notebook.read_text(encoding="utf-8"))
    code = next(cell for cell in data["cells"] if cell["cell_type"] == "code")
    data["cells"] = [{**code, "source": "%matplotlib inline\n" + reference(course, "01")}]
    notebook.write_text(json.dumps(data), encoding="utf-8")
    done = pytest_in(course.root, "chapters/01_numbers", "--module", str(notebook))
    assert done.returncode == 0, done.stdout
