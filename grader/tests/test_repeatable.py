"""The same test draws the same inputs, whatever else is loaded; another secret draws others."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from grader.course import Course
from grader.grading.examiner import Examiner, LocalBench, examine
from grader.testing.loading import load_module
from grader.tests.small_course import copy_course

SUITE = '''
"""A suite that only draws."""

from hypothesis import given, settings
from hypothesis import strategies as st

from grader.testing import exercise


@exercise("double")
@settings(max_examples=200)
@given(x=st.integers(), text=st.text(), number=st.floats())
def test_draws(exercises, x, text, number):
    """It draws."""
    exercises.double((x, text, repr(number)))


@exercise("mean")
def test_rng(exercises, rng):
    """It draws, too."""
    exercises.mean(rng.normal(3).tolist())
'''


def drawn(course: Course, secret: str) -> list[object]:
    """Give all that the suite's tests asked for."""
    asked: list[object] = []
    module = types.ModuleType("recorder")
    module.double = module.mean = asked.append  # type: ignore[attr-defined]

    def work(examiner: Examiner) -> None:
        for exercise in course.chapter("01").exercises:
            examiner.grade(exercise, LocalBench(module), diagnose=False)

    examine([course.chapter("01")], secret, work)
    return asked


@pytest.fixture
def course(tmp_path: Path) -> Course:
    course = copy_course(tmp_path)
    course.chapter("01").hidden_tests.write_text(SUITE, encoding="utf-8")
    return course


def test_draws_do_not_depend_on_what_is_loaded(course: Course, tmp_path: Path) -> None:
    before = drawn(course, "secret")
    assert len(before) > 100
    local = tmp_path / "local_module.py"
    local.write_text("NUMBERS = [987654321, 1234567.125]\nWORDS = ['a very telling constant']\n", encoding="utf-8")
    load_module(local, "local_module_with_constants")
    try:
        assert drawn(course, "secret") == before
    finally:
        del sys.modules["local_module_with_constants"]


def test_another_secret_draws_other_inputs(course: Course) -> None:
    one, other = drawn(course, "one"), drawn(course, "other")
    assert one != other
    assert one[-1] != other[-1]
