"""Items: what tells strong work from weak, and how many hand-ins and days an exercise takes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from grader.course import load_course
from grader.grading.history import note_hand_ins
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.report.html import class_page
from grader.report.items import LEAST_ANSWERS, items
from grader.report.statistics import collect

COURSE = load_course(Path(__file__).parent / "course_fixture")
CHAPTER = COURSE.chapter("01")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def outcome(student: str, *shares: float, hand_in: str = "") -> Outcome:
    exercises = (
        ExerciseOutcome(e.name, e.points, e.points * s, Verdict.PASSED if s == 1 else Verdict.WRONG, "", "", "", ())
        for e, s in zip(CHAPTER.exercises, shares, strict=True)
    )
    return Outcome(student, CHAPTER.name, tuple(exercises), parts={"hand_in": hand_in} if hand_in else {})


def test_discrimination_is_the_correlation_with_the_rest() -> None:
    draw = random.Random(0)
    shares = [(draw.random(), draw.random()) for _ in range(50)]
    found = items(collect(outcome(f"s{i}", *pair) for i, pair in enumerate(shares)))
    expected = float(np.corrcoef(np.array(shares).T)[0, 1])
    assert [item.discrimination for item in found] == [pytest.approx(expected)] * 2


def test_an_exercise_that_the_weak_solve_and_the_strong_do_not_is_named() -> None:
    outcomes = [outcome(f"s{i:02}", i % 2, 1 - i % 2) for i in range(LEAST_ANSWERS)]
    found = items(collect(outcomes))
    assert [item.discrimination for item in found] == [pytest.approx(-1.0)] * 2 and all(i.is_poor for i in found)
    assert "hardly tells strong work from weak</td>" in class_page(collect(outcomes), COURSE)


@pytest.mark.parametrize("count", [LEAST_ANSWERS - 1, LEAST_ANSWERS])
def test_too_few_answers_or_equal_ones_say_nothing(count: int) -> None:
    few = collect(outcome(f"s{i}", i % 2, i % 2) for i in range(LEAST_ANSWERS - 1))
    equal = collect(outcome(f"s{i}", 1, i % 2) for i in range(count))
    assert {item.discrimination for item in items(few)} == {None}
    assert {item.discrimination for item in items(equal)} == {None}


def test_hand_ins_and_days_until_right(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    first, second = CHAPTER.exercises[0].name, CHAPTER.exercises[1].name
    note_hand_ins(file, [outcome("ann", 1, 0, hand_in="a1"), outcome("ben", 0, 0, hand_in="b1")], START)
    note_hand_ins(file, [outcome("ann", 1, 0, hand_in="a1"), outcome("ben", 1, 0, hand_in="b2")], START + timedelta(2))
    history = note_hand_ins(file, [outcome("ann", 0, 1, hand_in="a2")], START + timedelta(3))
    assert [(each.student, each.digest) for each in history] == [
        ("ann", "a1"),
        ("ben", "b1"),
        ("ben", "b2"),
        ("ann", "a2"),
    ]
    found = {item.name: item for item in items(collect([outcome("ann", 0, 1), outcome("ben", 1, 0)]), history)}
    assert (found[first].hand_ins, found[first].days, found[first].passed) == (1.5, 1.0, 2)
    assert (found[second].hand_ins, found[second].days, found[second].passed) == (2, 3.0, 1)


def test_half_a_line_that_a_stopped_run_left_costs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    note_hand_ins(file, [outcome("ann", 1, 0, hand_in="a1")], START)
    with file.open("a", encoding="utf-8") as opened:
        opened.write('["ben", "01_num\n')
    history = note_hand_ins(file, [outcome("ben", 1, 1, hand_in="b1")], START)
    assert [each.student for each in history] == ["ann", "ben"]


def test_what_the_machine_failed_at_is_no_hand_in(tmp_path: Path) -> None:
    infra = Outcome("ann", CHAPTER.name, (ExerciseOutcome("double", 2, 0, Verdict.INFRA, "", "", "", ()),))
    assert note_hand_ins(tmp_path / "history.jsonl", [infra], START) == []
