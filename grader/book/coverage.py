"""What the course promises, topic by topic, against what it has: exercise, notes, figure, question."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from grader.book.figures import FIGURE
from grader.book.notes import read_notes
from grader.course import Chapter, Course, CourseError, Exercise
from grader.student.quiz import Question, read_quiz

FILE = "chapters/outline.toml"

Around = tuple[list[str], bool, tuple[Question, ...]]
"""What a chapter has around its exercises: the headings of its notes, whether it has a figure, its quiz."""


@dataclass(frozen=True)
class Cover:
    """One exercise that teaches a topic, and what stands around it."""

    chapter: Chapter
    exercise: Exercise
    section: str
    """The anchor of its section in the notes, or "" if there is none."""
    has_figure: bool
    questions: tuple[int, ...]
    """The numbers of the quiz questions about it."""

    @property
    def gaps(self) -> list[str]:
        """Say what is missing."""
        found = {"a section in the notes": self.section, "a figure": self.has_figure}
        return [f"{self.exercise.id} has not {what}" for what, there in found.items() if not there]


@dataclass(frozen=True)
class Topic:
    """One topic of a row: the exercises that teach it, or where in every chapter it is met."""

    row: str
    name: str
    covers: tuple[Cover, ...]
    everywhere: str


def read_coverage(course: Course) -> list[Topic]:
    """Hold the course's outline against the course. Raises CourseError if it names what is not there."""
    file = course.root / FILE
    if not file.is_file():
        return []
    rows = tomllib.loads(file.read_text(encoding="utf-8"))["rows"]
    around = cache(_around)  # a chapter teaches many topics
    return [
        Topic(
            row["name"], topic["name"], tuple(_covers(course, topic["exercises"], around)), topic.get("everywhere", "")
        )
        for row in rows
        for topic in row["topics"]
    ]


def gaps(topics: list[Topic]) -> list[str]:
    """Say what the outline promises and the course has not."""
    empty = [f"{t.row}, {t.name}: nothing teaches it" for t in topics if not t.covers and not t.everywhere]
    asked = {topic.row for topic in topics if topic.everywhere or any(cover.questions for cover in topic.covers)}
    rows = dict.fromkeys(topic.row for topic in topics)
    unasked = [f"{row}: no question of a quiz is about it" for row in rows if row not in asked]
    return empty + unasked + sorted({gap for topic in topics for cover in topic.covers for gap in cover.gaps})


def _covers(course: Course, names: list[str], around: Callable[[Chapter], Around]) -> Iterator[Cover]:
    for name in names:
        number, _, exercise = name.partition("/")
        chapter = course.chapter(number)
        known = {each.name: each for each in chapter.exercises}
        if exercise not in known:
            raise CourseError(f"{FILE} names {name!r}, and {chapter.name} has no such exercise.")
        headings, has_figure, questions = around(chapter)
        section = _section(headings, known[exercise])
        yield Cover(chapter, known[exercise], section, has_figure, _questions(questions, exercise))


def _around(chapter: Chapter) -> Around:
    headings = re.findall(r"^#{2,4} (.*)$", read_notes(chapter), re.MULTILINE)
    return headings, (chapter.folder / FIGURE).is_file(), read_quiz(chapter)


def _section(headings: list[str], exercise: Exercise) -> str:
    for heading in headings:
        if any(f"`{name}`" in heading for name in (exercise.name, *exercise.functions)):
            # as GitHub and the book make an anchor of a heading
            return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
    return ""


def _questions(questions: tuple[Question, ...], exercise: str) -> tuple[int, ...]:
    return tuple(at + 1 for at, question in enumerate(questions) if question.exercise == exercise)
