"""Which question of the quiz is about which misconception: what the file says, and what a slip in it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader.course import CourseError, load_course
from grader.report.quiz_keys import Key, questions_about, read_keys
from grader.tests.small_course import FIXTURE, copy_course


def test_options_and_numbers_are_keyed() -> None:
    course = load_course(FIXTURE)
    keys = read_keys(course.chapter("01"))
    assert keys[0] == Key(1, "a", ("squares",))
    assert keys[2] == Key(2, 5.0, ("divides_by_one_less",))
    assert read_keys(course.chapter("02")) == ()
    assert questions_about(course.chapters)["01_numbers", "empty_is_zero"] == [4]


def test_a_misconception_may_have_several_questions(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    file = course.chapter("01").quiz_keys
    file.write_text(file.read_text("utf-8").replace('["squares"]', '["squares", "divides_whole"]'), "utf-8")
    assert questions_about(course.chapters)["01_numbers", "divides_whole"] == [1, 2]


SLIPS = [
    ("01", "question = 6", 'option = "a"', '["squares"]', "question is 6, but the quiz has the questions 1 to 5"),
    ("01", "question = 1", 'option = "b"', '["squares"]', "option is 'b', but the question's wrong options are a, c"),
    ("01", "question = 2", 'option = "a"', '["squares"]', "answer is None, but the question asks for a number"),
    ("01", "question = 2", "answer = 3.7504", '["squares"]', "answer 3.7504 is a right one"),
    ("01", "question = 1", 'option = "a"', '["cubes"]', "names 'cubes', which misconceptions.py does not hold"),
    ("01", "question = 1", 'option = "a"', '["reference"]', "names 'reference'"),
    ("01", "question = 1", 'option = "a"', "[]", "misconceptions must be a list of one or more names"),
    ("01", "question = 1", 'choice = "a"', '["squares"]', "must give question, misconceptions, and either"),
    ("02", "question = 1", "answer = [2, 3, 1]", '["divides_in_place"]', r"answer \[2, 3, 1\] is the right one"),
    ("02", "question = 1", "answer = 2.0", '["divides_in_place"]', "the question asks for a shape"),
]


@pytest.mark.parametrize(("chapter", "question", "answer", "names", "words"), SLIPS)
def test_a_slip_names_the_file_and_the_key(
    tmp_path: Path, chapter: str, question: str, answer: str, names: str, words: str
) -> None:
    own = copy_course(tmp_path).chapter(chapter)
    text = f"format_version = 1\n[[keys]]\n{question}\n{answer}\nmisconceptions = {names}\n"
    own.quiz_keys.write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match=f"quiz_keys.toml: key 1.*{words}"):
        read_keys(own)


def test_two_keys_of_one_answer_are_a_slip(tmp_path: Path) -> None:
    own = copy_course(tmp_path).chapter("01")
    text = own.quiz_keys.read_text(encoding="utf-8")
    own.quiz_keys.write_text(text.replace('option = "c"', 'option = "a"', 1), encoding="utf-8")
    with pytest.raises(CourseError, match="key 2 is about an answer that has a key already"):
        read_keys(own)


@pytest.mark.parametrize("text", ["keys", 'format_version = 2\n[[keys]]\nquestion = 1\noption = "a"', "keys = 3"])
def test_what_is_no_file_of_keys_is_said(tmp_path: Path, text: str) -> None:
    own = copy_course(tmp_path).chapter("01")
    own.quiz_keys.write_text(text, encoding="utf-8")
    with pytest.raises(CourseError, match="quiz_keys.toml (is not valid TOML|must begin with format_version = 1)"):
        read_keys(own)
