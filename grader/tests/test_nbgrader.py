"""nbgrader's own commands on what `build` makes, and `check` inside its kernel and outside."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook  # type: ignore[import-untyped]

from grader.authoring.build import build
from grader.course import load_course

FIXTURE = Path(__file__).parent / "course_fixture"
ROOT = Path(__file__).parents[2]
HALF = 'def mean(xs):\n    import sys\n    print("thinking", file=sys.stderr)\n    return sum(xs) / 2'
BROKEN = "def double(x):\n    return 2 *"


def environment(home: Path) -> dict[str, str]:
    """Stock settings: nothing of this user's Jupyter; the commands as they lie in the virtual environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def nbgrader(folder: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("nbgrader")), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=4)  # type: ignore[no-untyped-call]


def hand_in(course: Path, chapter: str, student: str, answers: dict[str, str]) -> None:
    """Fill a copy of the released notebook with answers and put it where nbgrader collects."""
    folder = course / "submitted" / student / chapter
    shutil.copytree(course / "release" / chapter, folder)
    notebook = read(folder / "exercises.ipynb")
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
        cell.source = answers.get(name, cell.source)
    nbformat.write(notebook, folder / "exercises.ipynb")  # type: ignore[no-untyped-call]


def reference(course: Path, chapter: str) -> dict[str, str]:
    cells = read(course / "source" / chapter / "exercises.ipynb").cells
    marked = [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("solution")]
    return {cell.metadata.nbgrader.grade_id: cell.source for cell in marked}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nbgrader's course after it has graded five hand-ins of chapter 1 and one of chapter 2."""
    root = tmp_path_factory.mktemp("nbgrader")
    shutil.copytree(FIXTURE, root / "course")
    nb = root / "nb"
    build(load_course(root / "course"), nbgrader_dest=nb)
    (nb / "nbgrader_config.py").unlink()  # stock nbgrader, as it comes
    nbgrader(nb, "generate_assignment", "01_numbers")
    nbgrader(nb, "generate_assignment", "02_shapes")
    right = reference(nb, "01_numbers")
    hand_in(nb, "01_numbers", "right", right)
    hand_in(nb, "01_numbers", "untouched", {})
    hand_in(nb, "01_numbers", "half", {**right, "mean": HALF})
    hand_in(nb, "01_numbers", "broken", {**right, "double": BROKEN})
    hand_in(nb, "01_numbers", "exits", {**right, "mean": "def mean(xs):\n    raise SystemExit"})
    hand_in(nb, "02_shapes", "right", reference(nb, "02_shapes"))
    nbgrader(nb, "autograde", "01_numbers")
    nbgrader(nb, "autograde", "02_shapes")
    return nb


@pytest.mark.parametrize(
    ("student", "chapter", "scores"),
    [
        ("right", "01_numbers", {"check_double": 2.0, "check_mean": 3.0}),
        ("right", "02_shapes", {"check_rows_sum_to_one": 4.0, "check_Counter": 6.0}),
        ("untouched", "01_numbers", {"check_double": 0.0, "check_mean": 0.0}),
        ("half", "01_numbers", {"check_double": 2.0, "check_mean": 2.0}),
        ("broken", "01_numbers", {"check_double": 0.0, "check_mean": 3.0}),
        ("exits", "01_numbers", {"check_double": 2.0, "check_mean": 0.0}),
    ],
)
def test_stock_autograde_gives_the_points(graded: Path, student: str, chapter: str, scores: dict[str, float]) -> None:
    with Gradebook(f"sqlite:///{graded / 'gradebook.db'}") as gradebook:
        notebook = gradebook.find_submission_notebook("exercises", chapter, student)
        assert {grade.name: grade.auto_score for grade in notebook.grades} == scores
        assert {grade.name: grade.max_score for grade in notebook.grades} == {
            f"check_{exercise.name}": exercise.points for exercise in load_course(FIXTURE).chapter(chapter).exercises
        }


def test_the_release_holds_no_solution(graded: Path) -> None:
    for chapter in ("01_numbers", "02_shapes"):
        text = (graded / "release" / chapter / "exercises.ipynb").read_text(encoding="utf-8")
        assert "SOLUTION" not in text and "NO_NUMBERS)" not in text and "keepdim" not in text
        assert "NotImplementedError" in text and "check(" in text


def test_the_student_sees_each_check(graded: Path) -> None:
    cells = read(graded / "autograded" / "half" / "01_numbers" / "exercises.ipynb").cells
    cell = next(cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "check_mean")
    shown = next(output.data for output in cell.outputs if output.output_type == "display_data")
    assert "1 of 2 checks pass, 2 of 3 points" in shown["text/plain"]
    assert "The mean of equal numbers is that number." in shown["text/html"]


# -- check outside nbgrader ----------------------------------------------------------------------------------------


def run_check(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    text = f"from grader.testing.notebook import check\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done


def test_check_grades_what_the_caller_has_defined() -> None:
    code = "def double(x):\n    return x + 3\nprint('points', check('double'))"
    done = run_check(FIXTURE / "chapters" / "01_numbers", code)
    assert "double: 1 of 2 checks pass, 1 of 2 points" in done.stdout
    assert "passed     Twice 3 is 6." in done.stdout
    assert "wrong      Twice a negative number is negative.\n             double(-0.5)" in done.stdout
    assert "points 1.0" in done.stdout and done.stderr == ""


def test_check_finds_a_chapter_by_name() -> None:
    code = "def double(x):\n    return 2 * x\nprint('points', check('double', chapter='01'))"
    assert "points 2.0" in run_check(FIXTURE, code).stdout


def test_check_of_the_stub_says_to_do() -> None:
    done = run_check(FIXTURE / "chapters" / "01_numbers", "from exercises import *\nprint('points', check('mean'))")
    assert "to-do" in done.stdout and "points 0.0" in done.stdout


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("check('halve')", "01_numbers has no exercise 'halve'; it has double, mean."),
        ("check('double', suite='test_other.py')", "test_other.py is not in"),
        ("check('double', chapter='77')", "'77' names no chapter"),
    ],
)
def test_a_mistake_in_the_call_is_a_sentence(call: str, sentence: str) -> None:
    done = run_check(FIXTURE / "chapters" / "01_numbers", f"print('points', {call})")
    assert sentence in done.stdout and "points 0.0" in done.stdout and done.stderr == ""


def test_a_notebook_away_from_its_chapter_says_so(tmp_path: Path) -> None:
    done = run_check(tmp_path, "print('points', check('double'))")
    assert "keep the notebook in its chapter's folder" in done.stdout and "points 0.0" in done.stdout
