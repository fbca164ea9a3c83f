"""A chapter's quiz: questions, answers, and an explanation for every option."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grader.course import Chapter, CourseError
from grader.student.work import short

KINDS = ("one", "any", "number", "shape")


@dataclass(frozen=True)
class Option:
    """One answer to choose, and what is to be said about it."""

    text: str
    right: bool
    explanation: str


@dataclass(frozen=True)
class Question:
    """One question. `options` for the kinds one and any, `answer` for number and shape."""

    kind: str
    text: str
    exercise: str = ""
    options: tuple[Option, ...] = ()
    answer: Any = None
    tolerance: float = 0.0
    explanation: str = ""

    @property
    def how(self) -> str:
        """Say how to answer."""
        return {
            "one": "one letter",
            "any": "all letters that hold, such as a c",
            "number": "a number",
            "shape": "sizes, such as 9 9 9",
        }[self.kind]

    @property
    def right(self) -> str:
        """Give the right answer as one would type it."""
        if self.options:
            return " ".join(letter(at) for at, option in enumerate(self.options) if option.right)
        return " ".join(map(str, self.answer)) if self.kind == "shape" else f"{self.answer:g}"


class NotAnAnswer(Exception):
    """What was typed is no answer to this kind of question: one sentence."""


def letter(at: int) -> str:
    """Name an option."""
    return "abcdefghij"[at]


def is_right(question: Question, typed: str) -> bool:
    """Say whether an answer is right. Raises NotAnAnswer."""
    if question.options:
        chosen = chosen_options(question, typed)
        return chosen == {at for at, option in enumerate(question.options) if option.right}
    if question.kind == "shape":
        sizes = re.findall(r"\d+", typed)
        if not sizes or re.search(r"[^\d\s,()\[\]x×*]", typed):
            raise NotAnAnswer("a shape is whole numbers, such as 9 9 9 or (9, 9, 9)")
        return [int(size) for size in sizes] == list(question.answer)
    value = _number(typed)
    return abs(value - float(question.answer)) <= question.tolerance + 1e-12


def chosen_options(question: Question, typed: str) -> set[int]:
    """Give the options that were typed. Raises NotAnAnswer."""
    letters = re.findall(r"[a-z]", typed.lower())
    known = [letter(at) for at in range(len(question.options))]
    if not letters or any(one not in known for one in letters) or re.search(r"[^a-z\s,;]", typed.lower()):
        raise NotAnAnswer(f"the answers are the letters {known[0]} to {known[-1]}")
    if question.kind == "one" and len(set(letters)) != 1:
        raise NotAnAnswer("give one letter")
    return {known.index(one) for one in letters}


def _number(typed: str) -> float:
    """Read a number, a fraction such as 2/3 or a decimal comma."""
    text = typed.strip().replace(",", ".").replace("_", "")
    try:
        above, _, below = text.partition("/")
        value = float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError):
        raise NotAnAnswer("the answer is a number, such as 0.25 or 1/4") from None
    if not math.isfinite(value):
        raise NotAnAnswer("the answer is a finite number")
    return value


def read_quiz(chapter: Chapter) -> tuple[Question, ...]:
    """Read a chapter's questions. Raises CourseError naming the file and the question."""
    file = chapter.folder / "quiz.toml"
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{chapter.title} ({chapter.number}) has no quiz; {short(file)} is not there.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{short(file)} is not valid TOML: {error}.") from None
    tables: Sequence[Mapping[str, Any]] = data.get("questions", [])
    return tuple(_question(f"{short(file)}: question {at + 1}", table) for at, table in enumerate(tables))


def _question(where: str, table: Mapping[str, Any]) -> Question:
    kind = table.get("kind")
    if kind not in KINDS:
        raise CourseError(f"{where}: kind must be one of {', '.join(KINDS)}, but is {kind!r}.")
    try:
        options = tuple(Option(o["text"], o["right"], o["explanation"]) for o in table.get("options", ()))
        question = Question(
            kind=kind,
            text=table["question"],
            exercise=table.get("exercise", ""),
            options=options,
            answer=None if options else table["answer"],
            tolerance=float(table.get("tolerance", 0.0)),
            explanation="" if options else table["explanation"],
        )
    except (KeyError, TypeError) as error:
        raise CourseError(f"{where}: {error} is missing or of the wrong kind.") from None
    if (kind in ("one", "any")) != bool(options):
        raise CourseError(f"{where}: a question of kind {kind!r} has {'no options' if not options else 'an answer'}.")
    return question
