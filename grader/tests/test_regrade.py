"""What a person did in formgrader survives a regrade by either door, and a regrade says what it changed."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbgrader")

from nbgrader.api import Gradebook  # type: ignore[import-untyped]

from grader.authoring.build import build
from grader.course import Course
from grader.tests.databases import everything
from grader.tests.formgrader import ROOT, Formgrader, environment, formgrader
from grader.tests.small_course import copy_course

CHAPTER = "01_numbers"
PLACE = ("exercises", CHAPTER)
DOUBLE = "def double(x):\n    return 2 * x"
HALF = "def mean(xs):\n    return sum(xs) / 2"
STRICTER = '''

@exercise("double")
def test_stricter(exercises):
    """Twice 1 is 3."""
    exact(exercises.double(1), 3)
'''


@dataclass(frozen=True)
class Classroom:
    """A small course, and nbgrader's folder of it."""

    course: Course
    nb: Path
    out: Path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.nb / 'gradebook.db'}"

    def nbgrader(self, *arguments: str) -> str:
        return self._run(self.nb, "nbgrader", *arguments)

    def autograde(self) -> str:
        return self.nbgrader("autograde", CHAPTER, "--force")

    def grade(self) -> str:
        into = ["--out", str(self.out), "--gradebook", self.url, "--jobs", "1"]
        return self._run(ROOT, "grader", "--course", str(self.course.root), "grade", str(self.nb / "submitted"), *into)

    def changes(self, door: str) -> list[dict[str, str]]:
        file = (self.nb if door == "autograde" else self.out) / "changes.csv"
        with open(file, encoding="utf-8", newline="") as opened:
            return list(csv.DictReader(opened))

    def _run(self, place: Path, module: str, *arguments: str) -> str:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(command, cwd=place, env=environment(self.nb), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


def make_classroom(folder: Path) -> Classroom:
    """Make the course and its assignment, due long ago, with two late hand-ins."""
    room = Classroom(copy_course(folder), folder / "nb", folder / "out")
    build(room.course, ["01"], nbgrader_dest=room.nb)
    room.nbgrader("db", "assignment", "add", CHAPTER, "--duedate", "2030-01-01 12:00:00 UTC")
    room.nbgrader("generate_assignment", CHAPTER)
    for student, sources in {"ann": {"double": DOUBLE, "mean": HALF}, "ben": {"double": DOUBLE}}.items():
        hand_in(room.nb, student, sources)
    return room


def hand_in(nb: Path, student: str, sources: dict[str, str]) -> None:
    notebook = json.loads((nb / "release" / CHAPTER / "exercises.ipynb").read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
        cell["source"] = sources.get(name, cell["source"])
    place = nb / "submitted" / student / CHAPTER
    place.mkdir(parents=True, exist_ok=True)
    (place / "exercises.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    (place / "timestamp.txt").write_text("2030-01-02 12:00:00 UTC", encoding="utf-8")


def by_hand(room: Classroom) -> None:
    """Do what a person does: scores and a comment on formgrader's page, an extension and a penalty in its database."""
    with Gradebook(room.url) as gradebook:
        mean = gradebook.find_grade("check_mean", *PLACE, "ann").id
        double = gradebook.find_grade("check_double", *PLACE, "ann").id
        comment = gradebook.find_comment("mean", *PLACE, "ann").id
        gradebook.grant_extension(CHAPTER, "ann", days=2)
        gradebook.find_submission_notebook(*PLACE, "ann").late_submission_penalty = 0.5
        gradebook.db.commit()
    with formgrader(room.nb) as page:
        scored(page, mean, manual_score=1.25)
        scored(page, double, extra_credit=0.75)
        page.ask(f"comment/{comment}", {"manual_comment": "well argued"})


def scored(page: Formgrader, grade: str, **scores: float) -> None:
    kept = page.ask(f"grade/{grade}")
    page.ask(f"grade/{grade}", {**kept, **scores})


@pytest.fixture(scope="module", params=["autograde", "grade"])
def regraded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Classroom, str, str, list[dict[str, list[Any]]]]:
    """A class that was graded, corrected by hand, and regraded twice by one door with a stricter suite."""
    room = make_classroom(tmp_path_factory.mktemp("regrade"))
    room.autograde()
    door: Callable[[], str] = getattr(room, request.param)
    by_hand(room)
    door()
    hidden = room.course.chapter("01").hidden_tests
    hidden.write_text(hidden.read_text(encoding="utf-8") + STRICTER, encoding="utf-8")
    said = door()
    first = everything(room.url)
    again = door()
    assert "since the run before" not in again.lower()
    return room, request.param, said, [first, everything(room.url)]


Regraded = tuple[Classroom, str, str, list[dict[str, list[Any]]]]


def test_the_scores_are_new(regraded: Regraded) -> None:
    with Gradebook(regraded[0].url) as gradebook:
        for student in ("ann", "ben"):
            assert 0 < gradebook.find_grade("check_double", *PLACE, student).auto_score < 2


def test_manual_scores_survive(regraded: Regraded) -> None:
    with Gradebook(regraded[0].url) as gradebook:
        mean = gradebook.find_grade("check_mean", *PLACE, "ann")
        double = gradebook.find_grade("check_double", *PLACE, "ann")
        assert (mean.manual_score, mean.score) == (1.25, 1.25)
        assert double.extra_credit == 0.75
        assert double.score == pytest.approx(double.auto_score + 0.75)


def test_comments_survive(regraded: Regraded) -> None:
    with Gradebook(regraded[0].url) as gradebook:
        assert gradebook.find_comment("mean", *PLACE, "ann").comment == "well argued"


def test_extensions_survive(regraded: Regraded) -> None:
    with Gradebook(regraded[0].url) as gradebook:
        submission = gradebook.find_submission(CHAPTER, "ann")
        assert submission.extension.days == 2
        assert submission.total_seconds_late == 0
        assert gradebook.find_submission(CHAPTER, "ben").total_seconds_late == 24 * 60 * 60


def test_late_penalties_survive(regraded: Regraded) -> None:
    with Gradebook(regraded[0].url) as gradebook:
        assert gradebook.find_submission(CHAPTER, "ann").late_submission_penalty == 0.5


def test_the_second_regrade_changes_no_row(regraded: Regraded) -> None:
    first, second = regraded[3]
    assert second == first


def test_the_list_says_what_changed_and_why(regraded: Regraded) -> None:
    room, door, said, _ = regraded
    rows = room.changes(door)
    assert [(row["student"], row["exercise"], row["before"]) for row in rows] == [
        ("ann", "double", "2.0"),
        ("ben", "double", "2.0"),
    ]
    assert {row["why"] for row in rows} == {"the chapter's hidden tests or settings changed"}
    assert all(0 < float(row["after"]) < 2 for row in rows)
    assert "Since the run before, 2 marks of 2 students changed (2 down)" in said


def test_the_plugins_own_penalty_is_made_anew(tmp_path: Path) -> None:
    room = make_classroom(tmp_path)
    with open(room.nb / "nbgrader_config.py", "a", encoding="utf-8") as file:
        file.write('c.LateSubmissionPlugin.penalty_method = "zero"\n')
    room.autograde()
    with Gradebook(room.url) as gradebook:
        assert gradebook.find_submission(CHAPTER, "ann").late_submission_penalty == 2
        assert gradebook.find_submission(CHAPTER, "ben").late_submission_penalty == 2
        gradebook.grant_extension(CHAPTER, "ann", days=2)
    room.autograde()
    with Gradebook(room.url) as gradebook:
        assert gradebook.find_submission(CHAPTER, "ann").late_submission_penalty == 0
        assert gradebook.find_submission(CHAPTER, "ben").late_submission_penalty == 2
