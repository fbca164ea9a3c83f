"""Gradescope's autograder archive, unpacked and run as Gradescope runs it, in a place of its own."""

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

from grader.cli import main
from grader.course import load_course

ROOT = Path(__file__).parents[2]
CHAPTER = load_course(ROOT).chapter("05")


@pytest.fixture(scope="module")
def autograder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that Gradescope calls /autograder."""
    root = tmp_path_factory.mktemp("autograder")
    archive = root / "autograder.zip"
    arguments = ["gradescope", "05", "--out", str(archive), "--seed", "a 'secret' of $HOME"]
    assert main(["--course", str(ROOT), *arguments]) == 0
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(root / "source")
        names = set(opened.namelist())
        modes = {info.filename: info.external_attr >> 16 & 0o777 for info in opened.infolist()}
    assert {"setup.sh", "run_autograder"} <= names and modes["setup.sh"] == modes["run_autograder"] == 0o755
    assert {name.split("/")[2] for name in names if name.startswith("course/solutions/")} == {CHAPTER.name}
    for script in ("setup.sh", "run_autograder"):
        (root / "source" / script).chmod(0o755)
    return root


def run(autograder: Path, **files: str | Path) -> dict[str, Any]:
    """Grade one submission and give results.json."""
    for name in ("submission", "results"):
        shutil.rmtree(autograder / name, ignore_errors=True)
        (autograder / name).mkdir()
    for name, content in files.items():
        text = content.read_text(encoding="utf-8") if isinstance(content, Path) else content
        (autograder / "submission" / name.replace("_", ".")).write_text(text, encoding="utf-8")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(autograder),
        "AUTOGRADER_ROOT": str(autograder),
        "AUTOGRADER_PYTHON": sys.executable,
        "PYTHONPATH": str(autograder / "source" / "course"),
    }
    subprocess.run([autograder / "source" / "run_autograder"], cwd="/", env=environment, check=True)
    results: dict[str, Any] = json.loads((autograder / "results" / "results.json").read_text(encoding="utf-8"))
    return results


def test_a_right_submission_gets_every_point(autograder: Path) -> None:
    results = run(autograder, exercises_py=CHAPTER.source)
    assert results["score"] == CHAPTER.points
    assert [test["name"] for test in results["tests"]] == [exercise.id for exercise in CHAPTER.exercises]


def test_the_stub_gets_none_and_each_exercise_says_so(autograder: Path) -> None:
    results = run(autograder, exercises_py=CHAPTER.stub)
    assert results["score"] == 0 and all(test["status"] == "failed" for test in results["tests"])


def test_what_a_submission_does_never_leaves_gradescope_without_results(autograder: Path) -> None:
    assert run(autograder, exercises_py="import os\nos._exit(0)\n")["score"] == 0
    nothing = run(autograder, essay_txt="I could not do it.")
    assert nothing["score"] == 0 and "hand in exercises.py" in nothing["output"]


def test_set_up_works_without_the_course_around_it(autograder: Path) -> None:
    """All but the installation itself, which takes minutes: what it would install can be installed."""
    course = autograder / "source" / "course"
    asked = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-build-isolation", "--quiet", "."]
    if subprocess.run([sys.executable, "-c", "import hatchling"], capture_output=True).returncode == 0:
        subprocess.run(asked, cwd=course, check=True)
    assert subprocess.run(["bash", "-n", autograder / "source" / "setup.sh"]).returncode == 0
    known = subprocess.run([sys.executable, "-m", "grader", "--version"], cwd=course, capture_output=True, text=True)
    assert known.returncode == 0, known.stderr
