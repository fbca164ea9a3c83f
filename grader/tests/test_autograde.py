"""`nbgrader autograde` in the sandbox, with the real commands: a class of honest, damaged and hostile notebooks."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook  # type: ignore[import-untyped]

from grader.authoring.build import build
from grader.course import load_course
from grader.tests.small_course import copy_course, reference

ROOT = Path(__file__).parents[2]
CHAPTER = "01_numbers"
SECRET = "THE-SECRET-OF-THE-INSTRUCTOR"
Notebook = dict[str, Any]
Change = Callable[[Notebook], None]


def cell(notebook: Notebook, name: str) -> dict[str, Any]:
    return next(c for c in notebook["cells"] if c["metadata"].get("nbgrader", {}).get("grade_id") == name)


def answer(notebook: Notebook, **sources: str) -> None:
    for name, source in sources.items():
        cell(notebook, name)["source"] = source


DOUBLE = "def double(x):\n    return 2 * x"
MEAN = 'def mean(xs):\n    if not xs:\n        raise ValueError("none")\n    return sum(xs) / len(xs)'


def right(notebook: Notebook) -> None:
    answer(notebook, double=DOUBLE, mean=MEAN)


def copied_test_cell(notebook: Notebook) -> None:
    right(notebook)
    notebook["cells"].append(copy.deepcopy(cell(notebook, "check_double")))


def copied_answer(notebook: Notebook) -> None:
    first = copy.deepcopy(cell(notebook, "double"))
    right(notebook)
    notebook["cells"].append(first)  # an untouched copy of the stub stands below the answer


def deleted_test_cells(notebook: Notebook) -> None:
    right(notebook)
    notebook["cells"] = [c for c in notebook["cells"] if not c["metadata"].get("nbgrader", {}).get("grade")]


def more_points(notebook: Notebook) -> None:
    cell(notebook, "check_double")["metadata"]["nbgrader"]["points"] = 1000
    answer(notebook, mean=MEAN)


def other_schema(notebook: Notebook) -> None:
    right(notebook)
    for c in notebook["cells"]:
        if "nbgrader" in c["metadata"]:
            c["metadata"]["nbgrader"]["schema_version"] = 99


def no_marks(notebook: Notebook) -> None:
    right(notebook)
    for c in notebook["cells"]:
        c["metadata"] = {}


def flipped_flags(notebook: Notebook) -> None:
    right(notebook)
    cell(notebook, "check_double")["metadata"]["nbgrader"].update(solution=True, grade=False, locked=False)


def moved(notebook: Notebook) -> None:
    right(notebook)
    notebook["cells"].reverse()


def retyped(notebook: Notebook) -> None:
    right(notebook)
    cell(notebook, "double")["cell_type"] = "markdown"


def prints_full_marks(notebook: Notebook) -> None:
    cell(notebook, "check_double")["source"] = "1000.0"
    cell(notebook, "check_double")["outputs"] = [
        {"output_type": "execute_result", "data": {"text/plain": "nan"}, "metadata": {}, "execution_count": 1}
    ]


def gives_nan(notebook: Notebook) -> None:
    answer(notebook, double='def double(x):\n    return float("nan")')


def warns(notebook: Notebook) -> None:
    right(notebook)
    answer(
        notebook, double="import sys, warnings\n" + DOUBLE.replace("    ", '    print("hm", file=sys.stderr)\n    ', 1)
    )


def forges_everybody(notebook: Notebook) -> None:
    steal = (
        "import glob, sqlite3\n"
        "for file in glob.glob('/**/gradebook.db', recursive=True) + ['../../gradebook.db', 'gradebook.db']:\n"
        "    try:\n"
        "        with sqlite3.connect(file) as db:\n"
        "            db.execute('update grade set manual_score = 99')\n"
        "    except Exception:\n"
        "        pass\n"
    )
    answer(notebook, double=steal + DOUBLE)


def hooks_ipython(notebook: Notebook) -> None:
    answer(notebook, double="get_ipython().input_transformers_post.append(lambda lines: ['2.0'])\n" + DOUBLE)


def huge_output(notebook: Notebook) -> None:
    right(notebook)
    text = "x" * (20 << 20)
    cell(notebook, "double")["outputs"] = [{"output_type": "stream", "name": "stdout", "text": text}]


def broken_ids(notebook: Notebook) -> None:
    right(notebook)
    for c in notebook["cells"]:
        c["id"] = "the same / and wrong"


def wrong_kernel(notebook: Notebook) -> None:
    right(notebook)
    notebook["metadata"]["kernelspec"] = {"name": "evil", "display_name": "Evil", "language": "bash"}


def helper_cell(notebook: Notebook) -> None:
    answer(notebook, double="def double(x):\n    return helper(x)", mean=MEAN)
    place = notebook["cells"].index(cell(notebook, "double"))
    own = {"cell_type": "code", "metadata": {}, "source": "def helper(x):\n    return x + x", "outputs": []}
    notebook["cells"].insert(place, {**own, "execution_count": None})


def endless(notebook: Notebook) -> None:
    answer(notebook, double="def double(x):\n    while True:\n        pass", mean=MEAN)


def squares(notebook: Notebook) -> None:
    answer(notebook, double="def double(x):\n    return x * x", mean=MEAN)


FULL, NOTHING = {"double": 2.0, "mean": 3.0}, {"double": 0.0, "mean": 0.0}
CLASS: dict[str, tuple[Change, dict[str, float], str]] = {
    "a_first": (right, FULL, ""),
    "copied_test_cell": (copied_test_cell, FULL, "the cell check_double was changed"),
    "copied_answer": (copied_answer, FULL, "the cell double was there 2 times"),
    "deleted_test_cells": (deleted_test_cells, FULL, "the cell check_mean was missing"),
    "more_points": (more_points, {"double": 0.0, "mean": 3.0}, "the points of the cell check_double were changed"),
    "other_schema": (other_schema, FULL, ""),
    "no_marks": (no_marks, FULL, "the cell double had lost its mark"),
    "flipped_flags": (flipped_flags, FULL, ""),
    "moved": (moved, FULL, "the cells were moved"),
    "retyped": (retyped, FULL, "the cell double had another type"),
    "prints_full_marks": (prints_full_marks, NOTHING, "the cell check_double was changed"),
    "gives_nan": (gives_nan, NOTHING, ""),
    "warns": (warns, FULL, ""),
    "forges_everybody": (forges_everybody, {"double": 2.0, "mean": 0.0}, ""),
    "hooks_ipython": (hooks_ipython, NOTHING, ""),
    "huge_output": (huge_output, FULL, ""),
    "broken_ids": (broken_ids, FULL, ""),
    "wrong_kernel": (wrong_kernel, FULL, ""),
    "helper_cell": (helper_cell, FULL, ""),
    "endless": (endless, {"double": 0.0, "mean": 3.0}, ""),
    "squares": (squares, {"double": 0.0, "mean": 3.0}, ""),
    "untouched": (lambda notebook: None, NOTHING, ""),
    "z_last": (right, FULL, ""),
}
DAMAGED = {
    "not_json": b"{",
    "not_a_notebook": b"[1, 2]",
    "too_deep": b'{"cells": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
}


def nbgrader(folder: Path, *arguments: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {"PATH": path, "HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("nbgrader")), *arguments]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def hand_in(nb: Path, student: str, data: bytes) -> Path:
    folder = nb / "submitted" / student / CHAPTER
    shutil.copytree(nb / "release" / CHAPTER, folder)
    (folder / "exercises.ipynb").write_bytes(data)
    return folder


def scores(nb: Path) -> dict[str, dict[str, float | None]]:
    with Gradebook(f"sqlite:///{nb / 'gradebook.db'}") as gradebook:
        return {
            submission.student.id: {
                grade.name.removeprefix("check_"): grade.score for book in submission.notebooks for grade in book.grades
            }
            for submission in gradebook.assignment_submissions(CHAPTER)
        }


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """nbgrader's course after it has graded the class, and what the command said."""
    root = tmp_path_factory.mktemp("autograde")
    course = copy_course(root)
    nb = root / "nb"
    build(load_course(course.root), nbgrader_dest=nb)
    nbgrader(nb, "generate_assignment", CHAPTER)
    released = json.loads((nb / "release" / CHAPTER / "exercises.ipynb").read_text(encoding="utf-8"))
    for student, (change, _, _) in CLASS.items():
        notebook = copy.deepcopy(released)
        change(notebook)
        hand_in(nb, student, json.dumps(notebook).encode())
    for student, data in DAMAGED.items():
        hand_in(nb, student, data)
    (root / "secret.txt").write_text(SECRET, encoding="utf-8")
    linked = hand_in(nb, "linked", b"")
    (linked / "exercises.ipynb").unlink()
    (linked / "exercises.ipynb").symlink_to(nb / "submitted" / "a_first" / CHAPTER / "exercises.ipynb")
    (linked / "notes.txt").symlink_to(root / "secret.txt")
    notebook = copy.deepcopy(released)
    right(notebook)
    forged = hand_in(nb, "forged_time", json.dumps(notebook).encode())
    (forged / "timestamp.txt").write_text("before the beginning of time", encoding="utf-8")
    return nb, nbgrader(nb, "autograde", CHAPTER)


@pytest.mark.parametrize("student", CLASS)
def test_everybody_gets_the_score_of_what_they_wrote(graded: tuple[Path, str], student: str) -> None:
    assert scores(graded[0])[student] == CLASS[student][1]


@pytest.mark.parametrize("student", [*DAMAGED, "linked"])
def test_what_cannot_be_read_scores_nothing_and_stops_nobody(graded: tuple[Path, str], student: str) -> None:
    assert scores(graded[0])[student] == NOTHING
    assert f"{student}, {CHAPTER}: exercises.ipynb" in graded[1]


def test_a_forged_timestamp_stops_nobody(graded: tuple[Path, str]) -> None:
    assert scores(graded[0])["forged_time"] == FULL
    assert "is no timestamp and is left out" in graded[1]


@pytest.mark.parametrize("student", [name for name, (_, _, note) in CLASS.items() if note])
def test_the_damage_is_said_in_a_line(graded: tuple[Path, str], student: str) -> None:
    note = CLASS[student][2]
    assert f"{student}, {CHAPTER}: {note}" in graded[1]
    written = (graded[0] / "autograded" / student / CHAPTER / "exercises.ipynb").read_text(encoding="utf-8")
    assert note in written


def test_a_link_brings_no_secret_in(graded: tuple[Path, str]) -> None:
    for file in (graded[0] / "autograded").rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes()


def test_feedback_says_what_does_not_hold_and_shows_no_hidden_test(graded: tuple[Path, str]) -> None:
    nb, _ = graded
    nbgrader(nb, "generate_feedback", CHAPTER)
    page = (nb / "feedback" / "more_points" / CHAPTER / "exercises.html").read_text(encoding="utf-8")
    assert "double: to do, 0 of 2 points" in page
    hidden = load_course(nb.parent / "course").chapter(CHAPTER).hidden_tests.read_text(encoding="utf-8")
    bodies = [line.strip() for line in hidden.splitlines() if "exercises." in line]
    assert bodies
    assert not [line for line in bodies if line in page]


def test_a_misconception_sends_to_the_quizs_question_about_it(graded: tuple[Path, str]) -> None:
    written = (graded[0] / "autograded" / "squares" / CHAPTER / "exercises.ipynb").read_text(encoding="utf-8")
    assert "plus itself. Question 1 of the quiz is about this: `grader quiz 01`." in written


def test_the_run_took_up_everybody_at_once(graded: tuple[Path, str]) -> None:
    rows = (graded[0] / ".grader" / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(row)["student"] for row in rows} == {*CLASS, *DAMAGED, "linked", "forged_time"}
    assert f"[##########] graded {len(rows)} of {len(rows)}, about 0 s left" in graded[1]


def test_a_second_run_grades_only_what_is_new_and_keeps_manual_scores(graded: tuple[Path, str]) -> None:
    nb, _ = graded
    with Gradebook(f"sqlite:///{nb / 'gradebook.db'}") as gradebook:
        grade = gradebook.find_grade("check_mean", "exercises", CHAPTER, "untouched")
        grade.manual_score = 1.5
        gradebook.db.commit()
    before = scores(nb)
    kept = {file: file.stat().st_mtime_ns for file in (nb / ".grader" / "store").rglob("*.json")}
    nbgrader(nb, "autograde", CHAPTER, "--force")
    assert scores(nb) == before
    assert before["untouched"]["mean"] == 1.5
    assert {file: file.stat().st_mtime_ns for file in (nb / ".grader" / "store").rglob("*.json")} == kept


def test_a_notebook_and_a_module_of_the_same_work_score_the_same(graded: tuple[Path, str], tmp_path: Path) -> None:
    course = load_course(graded[0].parent / "course")
    place = tmp_path / "class" / "ada" / CHAPTER
    place.mkdir(parents=True)
    (place / "exercises.py").write_text(reference(course, "01").replace("2 * x", "3 * x"), encoding="utf-8")
    command = [sys.executable, "-m", "grader", "--course", str(course.root), "grade", str(tmp_path / "class")]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    module = {e["name"]: e["score"] for e in results["students"][0]["chapters"][0]["exercises"]}
    assert module == {"double": 0.0, "mean": 3.0}
