"""What the course promises to teach is there: an exercise, its section in the notes, a figure, a question."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from grader.book.coverage import FILE, gaps, read_coverage
from grader.course import CourseError, load_course

ROOT = Path(__file__).parents[2]
COURSE = load_course(ROOT)


def test_every_topic_of_the_outline_is_covered() -> None:
    topics = read_coverage(COURSE)
    assert len(topics) > 130
    assert gaps(topics) == []


def test_every_exercise_of_the_course_has_its_section_and_figure() -> None:
    """An exercise that the outline forgot would be covered by nobody's promise."""
    named = {cover.exercise.id for topic in read_coverage(COURSE) for cover in topic.covers}
    chapters = {exercise_id.partition("/")[0] for exercise_id in named}
    assert chapters == {chapter.name for chapter in COURSE.chapters}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for part in ("chapters", "solutions"):
        for folder in ("05_positions", "06_attention"):
            shutil.copytree(ROOT / part / folder, tmp_path / part / folder)
    row = '[[rows]]\nname = "R"\ntopics = [{ name = "masks", exercises = ["06/causal_mask"] }]\n'
    (tmp_path / FILE).write_text(row, encoding="utf-8")
    return tmp_path


def test_what_is_missing_is_named(copy: Path) -> None:
    assert gaps(read_coverage(load_course(copy))) == []
    notes = copy / "chapters" / "06_attention" / "README.md"
    notes.write_text(notes.read_text(encoding="utf-8").replace("### `causal_mask`", "### Masks"), encoding="utf-8")
    (copy / "chapters" / "06_attention" / "explore.js").unlink()
    assert gaps(read_coverage(load_course(copy))) == [
        "06_attention/causal_mask has not a figure",
        "06_attention/causal_mask has not a section in the notes",
    ]


def test_an_outline_that_names_no_exercise_is_refused(copy: Path) -> None:
    file = copy / FILE
    file.write_text(file.read_text(encoding="utf-8").replace("causal_mask", "causal_mark"), encoding="utf-8")
    with pytest.raises(CourseError, match="'06/causal_mark', and 06_attention has no such exercise"):
        read_coverage(load_course(copy))


def test_a_topic_that_nothing_teaches_is_named(copy: Path) -> None:
    file = copy / FILE
    file.write_text(file.read_text(encoding="utf-8").replace('"06/causal_mask"', ""), encoding="utf-8")
    assert gaps(read_coverage(load_course(copy))) == [
        "R, masks: nothing teaches it",
        "R: no question of a quiz is about it",
    ]
