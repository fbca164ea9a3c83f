"""chapter.toml becomes typed data; a broken one becomes a sentence that names file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from grader.course import CourseError, find_root, load_course
from grader.tests.small_course import FIXTURE, copy_course


def test_the_course_is_found_by_looking() -> None:
    course = load_course(FIXTURE)
    assert [chapter.name for chapter in course.chapters] == ["01_numbers", "02_shapes"]
    double = course.chapter("01").exercise("double")
    assert (double.id, double.points, double.functions) == ("01_numbers/double", 2.0, ("double",))
    assert course.chapter("02").points == 10


@pytest.mark.parametrize("name", ["01", "01_numbers", "numbers", "chapters/01_numbers", "chapters/01_numbers/"])
def test_a_chapter_is_named_by_any_clear_part(name: str) -> None:
    assert load_course(FIXTURE).chapter(name).name == "01_numbers"


@pytest.mark.parametrize(("name", "words"), [("99", "no chapter"), ("0", "more than one")])
def test_an_unclear_name_lists_what_there_is(name: str, words: str) -> None:
    with pytest.raises(CourseError, match=words) as caught:
        load_course(FIXTURE).chapter(name)
    assert "01_numbers" in str(caught.value)


BROKEN = [
    ('title = "', 'titel = "', "title is missing"),
    ("format_version = 1", "format_version = 9", "format_version is 9"),
    ("points = 2", 'points = "two"', "points must be int or float"),
    ("points = 2", "points = -2", "points must be a positive number"),
    ("points = 2", "points = nan", "points must be a positive number"),
    ("points = 2", "points = 2\npoint = 3", "unknown key point"),
    ("difficulty = 1", "difficulty = 9", "difficulty must lie between 1 and 5"),
    ("points = 2", 'points = 2\nneeds = ["nothing"]', "needs names 'nothing'"),
    ('name = "mean"', 'name = "double"', "two exercises are called 'double'"),
    ("points = 2", "points = 2\nlimits = { second = 3 }", "unknown key second"),
    ("format_version = 1", "format_version = = 1", "not valid TOML"),
]


@pytest.mark.parametrize(("old", "new", "words"), BROKEN, ids=[new for _, new, _ in BROKEN])
def test_a_broken_file_gets_one_sentence(tmp_path: Path, old: str, new: str, words: str) -> None:
    course = copy_course(tmp_path)
    file = course.chapter("01").folder / "chapter.toml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(CourseError) as caught:
        load_course(course.root)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value).split("not valid TOML")[0]


def test_hints_are_a_ladder_of_three(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    file = course.chapter("01").folder / "chapter.toml"
    head, _, rest = file.read_text(encoding="utf-8").partition("hints = [")
    file.write_text(f'{head}hints = ["only one"]\n{rest.partition("]")[2]}', encoding="utf-8")
    with pytest.raises(CourseError, match="ladder of three"):
        load_course(course.root)


def test_a_folder_with_a_wrong_name_is_refused(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    course.chapter("01").folder.rename(course.root / "chapters" / "1-numbers")
    with pytest.raises(CourseError, match="NN_snake_name"):
        load_course(course.root)


def test_the_root_is_found_from_below_and_its_absence_is_said(tmp_path: Path) -> None:
    course = copy_course(tmp_path)
    assert find_root(course.chapter("01").folder) == course.root
    with pytest.raises(CourseError, match="No folder chapters/"):
        find_root(tmp_path)
