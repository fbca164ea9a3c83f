"""`grader verify` on the small course: sound as it is, and each kind of flaw is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader.authoring.verify import verify
from grader.tests.small_course import copy_course


def test_the_small_course_is_sound(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    reports = verify(course.chapters)
    assert [report.problems for report in reports] == [[], []]
    for report in reports:
        for exercise in report.exercises:
            assert exercise.killed == exercise.recognised == exercise.misconceptions >= 3
            assert exercise.accepted == exercise.alternatives >= 1
        data = report.to_json()
        assert set(data) == {"name", "ok", "exercises", "public_seconds", "hidden_cpu_seconds", "problems"}
        counts = {"misconceptions", "killed", "recognised", "alternatives", "accepted"}
        assert set(data["exercises"][0]) == {"name", "points", *counts}


FLAWS = [
    ("exercises.py", "return 2 * x", "return 3 * x", "the reference is wrong"),
    ("misconceptions.py", "return x * x", "return x + x", "passes every hidden test"),
    ("alternatives.py", "return x + x", "return x + 3", "the right answer by_adding is wrong"),
    ("test_hidden.py", '@exercise("mean")', '@exercise("median")', "chapter.toml knows no exercise 'median'"),
    ("test_hidden.py", "import", "imporrt", "cannot be collected"),
]


@pytest.mark.parametrize(("file", "old", "new", "words"), FLAWS, ids=[words for *_, words in FLAWS])
def test_a_flaw_is_said(tmp_path: Path, file: str, old: str, new: str, words: str) -> None:
    course = copy_course(tmp_path)
    place = course.chapter("01").solutions / file
    text = place.read_text(encoding="utf-8")
    assert old in text
    place.write_text(text.replace(old, new, 1), encoding="utf-8")
    [report] = verify([course.chapter("01")])
    assert not report.ok
    assert any(words in problem for problem in report.problems), report.problems


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    course.chapter("01").hidden_tests.unlink()
    [report] = verify([course.chapter("01")])
    assert report.problems == [f"{course.chapter('01').hidden_tests} is missing."]
