"""The instructor's guide, command by command: what it says is what is run."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("nbgrader")

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / ".github" / "TEACHING.md"


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the guide was followed, from the clone on."""
    place = tmp_path_factory.mktemp("guide")
    subprocess.run(["git", "clone", "--quiet", ROOT, place / "course"], check=True)
    script = "\n".join(re.findall(r"^```sh\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    tools = place / "tools"
    tools.mkdir()
    # the environment of this test stands for the one that the guide's first block makes
    (tools / "grader").write_text(f'#!/bin/sh\nexec {sys.executable} -m grader "$@"\n', encoding="utf-8")
    (tools / "grader").chmod(0o755)
    done = subprocess.run(
        ["bash", "-eux", "-c", script], cwd=place, env=_environ(place), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return place


def _environ(place: Path) -> dict[str, str]:
    path = os.pathsep.join([str(place / "tools"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "HOME": str(place), "PYTHONPATH": str(place / "course"), "OMP_NUM_THREADS": "1"}


def test_every_command_of_the_guide_works_and_leaves_what_it_says(taught: Path) -> None:
    assert (taught / "students" / "chapters" / "01_next_token" / "exercises.py").is_file()
    assert (taught / "grades" / "report.html").is_file()
    assert "    Points Possible" in (taught / "canvas.csv").read_text(encoding="utf-8")
    assert list((taught / "desk" / "01_next_token").glob("exercises.ipynb"))
    assert list((taught / "class" / "feedback").rglob("exercises.html"))


def test_the_marks_are_quoted_and_complete(taught: Path) -> None:
    with open(taught / "marks.csv", encoding="utf-8", newline="") as file:
        rows = {row["student_id"]: row for row in csv.DictReader(file)}
    assert rows["ada"]["last_name"] == "Lovelace, Countess"
    assert {row["max_score"] for row in rows.values()} == {"17.0"}
    assert {row["score"] for row in rows.values()} == {"0.0"}  # a stub was handed in


def test_an_archive_of_a_learning_platform_is_collected(taught: Path) -> None:
    folder = taught / "class" / "downloaded" / "01_next_token" / "archive"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "submissions.zip", "w") as archive:
        for student in ("bob", "carl"):
            source = taught / "class" / "release" / "01_next_token" / "exercises.ipynb"
            archive.write(source, f"work_{student}_attempt_2030-01-30-10-00-00_exercises.ipynb")
    done = subprocess.run(
        ["nbgrader", "zip_collect", "01_next_token"],
        cwd=taught / "class",
        env=_environ(taught),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    collected = {folder.name for folder in (taught / "class" / "submitted").iterdir()}
    assert {"bob", "carl"} <= collected
