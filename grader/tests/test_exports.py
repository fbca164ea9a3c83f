"""`grader export`: each form as the system that takes it documents it."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from grader.tests.small_course import copy_course, hand_in, reference

ROOT = Path(__file__).parent.parent.parent

GRADESCOPE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["tests"],
    "properties": {
        "score": {"type": "number"},
        "output": {"type": "string"},
        "visibility": {"enum": ["hidden", "after_due_date", "after_published", "visible"]},
        "tests": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    "score": {"type": "number"},
                    "max_score": {"type": "number"},
                    "status": {"enum": ["passed", "failed"]},
                    "name": {"type": "string"},
                    "output": {"type": "string"},
                    "visibility": {"enum": ["hidden", "after_due_date", "after_published", "visible"]},
                },
            },
        },
    },
}
"""The fields of Gradescope's documented results.json that are used here."""

FACTS = ("classroom", "assignment", "submission", "commit", "release", "review", "datetime")
CLASSROOM50 = {
    "type": "object",
    "required": ["schema", *FACTS, "score", "max-score", "tests"],
    "properties": {
        "schema": {"const": "classroom50/result/v1"},
        **dict.fromkeys(FACTS, {"type": "string"}),
        "score": {"type": "integer", "minimum": 0},
        "max-score": {"type": "integer", "minimum": 0},
        "tests": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["test-name", "passed", "score", "max-score"],
                "properties": {
                    "test-name": {"type": "string"},
                    "passed": {"type": "boolean"},
                    "score": {"type": "integer"},
                    "max-score": {"type": "integer"},
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graded class, one of whose students has a formula for a name."""
    root = tmp_path_factory.mktemp("exports")
    course = copy_course(root)
    right = reference(course, "01")
    hand_in(root / "class", "ada", "01_numbers", right)
    hand_in(root / "class", "=1+2", "01_numbers", right.replace("2 * x", "3 * x"))
    hand_in(root / "class", "bob, the second", "01_numbers", "def double(x:\n")
    hand_in(root / "class", "ada", "02_shapes", reference(course, "02"))
    done = grader(root, "grade", str(root / "class"), "--out", str(root / "grades"))
    assert done.returncode == 0, done.stderr
    return root


def grader(root: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "grader", "--course", str(root / "course"), *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True)


def export(graded: Path, form: str, *more: str, **environ: str) -> str:
    out = graded / f"{form}.out"
    given = ("--results", str(graded / "grades" / "results.json"), "--out", str(out), *more)
    done = grader(graded, "export", form, *given, **environ)
    assert done.returncode == 0, done.stderr
    return out.read_bytes().decode()


def test_canvas_finds_its_columns_and_its_row_of_points(graded: Path) -> None:
    header, points, *rows = csv.reader(io.StringIO(export(graded, "canvas")))
    assert header == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "01 Numbers", "02 Shapes"]
    assert points == ["    Points Possible", "", "", "", "", "5", "10"]
    assert {row[3]: row[5:] for row in rows} == {
        "ada": ["5", "10"],
        "'=1+2": ["3", ""],
        "bob, the second": ["0", ""],
    }


def test_moodle_gets_a_row_a_user(graded: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(export(graded, "moodle"))))
    assert {row["username"]: row["01 Numbers"] for row in rows} == {"ada": "5", "'=1+2": "3", "bob, the second": "0"}


def test_gradescope_gets_its_results_file(graded: Path) -> None:
    result: dict[str, Any] = json.loads(export(graded, "gradescope", "--student", "=1+2"))
    jsonschema.validate(result, GRADESCOPE)
    assert result["score"] == sum(test["score"] for test in result["tests"]) == 3
    wrong = next(test for test in result["tests"] if test["name"] == "01_numbers/double")
    assert wrong["status"] == "failed"
    assert "does not hold yet: " in wrong["output"]
    hidden = (graded / "course" / "solutions" / "01_numbers" / "test_hidden.py").read_text(encoding="utf-8")
    assert not [line for line in hidden.splitlines() if "exercises." in line and line.strip() in wrong["output"]]


def test_classroom50_gets_whole_numbers_and_its_own_facts(graded: Path) -> None:
    result = json.loads(export(graded, "classroom50", "--student", "ada", CLASSROOM="llm", COMMIT="abc"))
    jsonschema.validate(result, CLASSROOM50)
    assert (result["classroom"], result["commit"]) == ("llm", "abc")
    assert result["score"] == result["max-score"] == 15_000
    assert all(test["passed"] for test in result["tests"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["canvas", "--results", "nothing.json"], "nothing.json is not there; grade the class first"),
        (["gradescope"], "there are 3 students; name one"),
        (["gradescope", "--student", "eve"], "no student is called 'eve'"),
    ],
)
def test_a_slip_is_a_sentence(graded: Path, arguments: list[str], words: str) -> None:
    results = [] if "--results" in arguments else ["--results", str(graded / "grades" / "results.json")]
    done = grader(graded, "export", *arguments, *results)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
