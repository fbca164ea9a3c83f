"""What a regrade changed, and why: known from what each result was made of."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.report.changes import note_changes

PARTS = {"hand_in": "a", "suite": "b", "grader": "c", "seed": "d", "choice": "e"}
VERSIONS = {"torch": "2.8.0", "numpy": "2.3.0", "isolation": "tier A"}


def outcome(student: str = "ann", *, score: float = 1.0, verdict: Verdict = Verdict.WRONG, **other: Any) -> Outcome:
    exercise = ExerciseOutcome("mean", 3.0, score, verdict, "", "", "", ())
    made = Outcome(student, "01_numbers", (exercise,), file="exercises.py", environment=VERSIONS, parts=PARTS)
    return replace(made, **other)


def changed(part: str) -> Mapping[str, str]:
    return {**PARTS, part: "another"}


def run(folder: Path, *outcomes: Outcome) -> str:
    return note_changes(outcomes, folder / "ledger.jsonl", folder / "changes.csv")


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "changes.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"parts": changed("hand_in")}, "the hand-in changed"),
        ({"parts": changed("suite")}, "the chapter's hidden tests or settings changed"),
        ({"parts": changed("grader")}, "the grader itself changed"),
        ({"parts": changed("seed")}, "another seed"),
        ({"environment": {**VERSIONS, "torch": "2.9.1"}}, "torch 2.8.0 became 2.9.1"),
        ({"environment": {**VERSIONS, "isolation": "none"}}, "another isolation"),
        (
            {"parts": changed("choice"), "file": "exercises.ipynb"},
            "graded with other options; exercises.ipynb counts now, exercises.py before",
        ),
        (
            {"parts": {**changed("suite"), "hand_in": "another"}},
            "the hand-in changed; the chapter's hidden tests or settings changed",
        ),
        ({}, "graded anew from the same: the result is not repeatable, look at it"),
    ],
)
def test_the_reason_is_what_differs(tmp_path: Path, other: dict[str, Any], why: str) -> None:
    assert run(tmp_path, outcome(), outcome("ben")) == ""
    said = run(tmp_path, outcome(score=3.0, verdict=Verdict.PASSED, **other), outcome("ben"))
    assert said.startswith(f"Since the run before, 1 mark of 1 student changed (1 up): {why} (1).")
    assert rows(tmp_path) == [
        {
            "student": "ann",
            "chapter": "01_numbers",
            "exercise": "mean",
            "before": "1.0",
            "after": "3.0",
            "points": "3.0",
            "verdict before": "wrong",
            "verdict after": "right",
            "why": why,
        }
    ]


def test_a_run_that_changes_no_mark_leaves_the_last_list(tmp_path: Path) -> None:
    run(tmp_path, outcome())
    run(tmp_path, outcome(score=0.5))
    before = (tmp_path / "changes.csv").read_bytes()
    assert run(tmp_path, outcome(score=0.5)) == ""
    assert run(tmp_path, outcome(score=0.5, parts=changed("grader"))) == "1 result made anew: no score changed."
    assert (tmp_path / "changes.csv").read_bytes() == before


def test_a_part_of_the_class_is_compared_with_what_it_had(tmp_path: Path) -> None:
    run(tmp_path, outcome(), outcome("ben"))
    run(tmp_path, outcome("ben"))
    run(tmp_path, outcome(score=0.0, parts=changed("suite")), outcome("new"))
    assert [(row["student"], row["before"], row["after"]) for row in rows(tmp_path)] == [("ann", "1.0", "0.0")]


def test_what_the_machine_failed_to_grade_is_no_change(tmp_path: Path) -> None:
    run(tmp_path, outcome())
    assert run(tmp_path, outcome(score=0.0, verdict=Verdict.INFRA)) == ""
    assert run(tmp_path, outcome()) == ""
    assert not (tmp_path / "changes.csv").exists()


def test_an_exercise_that_is_gone_is_listed(tmp_path: Path) -> None:
    run(tmp_path, outcome())
    run(tmp_path, outcome(exercises=(), parts=changed("suite")))
    assert [(row["exercise"], row["before"], row["after"]) for row in rows(tmp_path)] == [("mean", "1.0", "")]


def test_a_spreadsheet_runs_nothing(tmp_path: Path) -> None:
    run(tmp_path, outcome("=1+1"))
    run(tmp_path, outcome("=1+1", score=2.0, file="-2.py"))
    assert rows(tmp_path)[0]["student"] == "'=1+1"
    assert rows(tmp_path)[0]["why"].startswith("'-2.py counts now")


def test_a_damaged_ledger_ends_no_run(tmp_path: Path) -> None:
    run(tmp_path, outcome(), outcome("ben"))
    file = tmp_path / "ledger.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text(lines[0][:40] + "\n" + lines[1] + "\n[]\n", encoding="utf-8")
    run(tmp_path, outcome(score=2.0), outcome("ben", score=2.0))
    assert [row["student"] for row in rows(tmp_path)] == ["ben"]
