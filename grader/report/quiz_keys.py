"""Which question of the quiz is about which known wrong answer: `quiz_keys.toml`, beside the misconceptions.

Everything is read as text, so a report about a thousand students needs neither torch nor a chapter's code.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from grader.course import FORMAT_VERSION, Chapter, CourseError
from grader.student.quiz import Question, letter, read_quiz
from grader.student.work import short

MARKED = re.compile(r"^@misconception\(.*?^(?:def|class) (\w+)", re.MULTILINE | re.DOTALL)
KINDS_OF_KEYS = ({"question", "option", "misconceptions"}, {"question", "answer", "misconceptions"})

Asked = Mapping[tuple[str, str], Sequence[int]]
"""Chapter and name of a misconception, then the places of the quiz's questions about it, from 1."""
NOT_ASKED: Asked = MappingProxyType({})


@dataclass(frozen=True)
class Key:
    """A wrong answer to one question, and the mistakes in code that the same belief leads to."""

    question: int
    """Its place in quiz.toml, from 1."""
    answer: str | float | tuple[int, ...]
    """The letter of an option, a number or a shape."""
    misconceptions: tuple[str, ...]


def questions_about(chapters: Iterable[Chapter]) -> Asked:
    """Give the questions about every misconception that a key names. Raises CourseError."""
    asked: dict[tuple[str, str], set[int]] = {}
    for chapter in chapters:
        for key in read_keys(chapter):
            for name in key.misconceptions:
                asked.setdefault((chapter.name, name), set()).add(key.question)
    return {about: sorted(places) for about, places in asked.items()}


def where_asked(places: Sequence[int]) -> str:
    """Name the questions, such as 'questions 2 and 5 of the quiz'."""
    return f"question{'s' if len(places) > 1 else ''} {' and '.join(map(str, places))} of the quiz"


def ask_yourself(number: str, places: Sequence[int]) -> str:
    """Send a student to the questions of the chapter with this number that are about a mistake; "" if none is."""
    verb = "are" if len(places) > 1 else "is"
    return f"{where_asked(places).capitalize()} {verb} about this: `grader quiz {number}`." if places else ""


def read_keys(chapter: Chapter) -> tuple[Key, ...]:
    """Read a chapter's keys; it has none without the file. Raises CourseError naming the file and the key."""
    file = chapter.quiz_keys
    if not file.is_file():
        return ()
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{short(file)} is not valid TOML: {error}.") from None
    tables = data.get("keys")
    if data.get("format_version") != FORMAT_VERSION or not isinstance(tables, list):
        raise CourseError(f"{short(file)} must begin with format_version = {FORMAT_VERSION} and hold [[keys]].")
    questions = read_quiz(chapter)
    known = set(MARKED.findall(chapter.misconceptions.read_text(encoding="utf-8")))
    keys: list[Key] = []
    for at, table in enumerate(tables):
        where = f"{short(file)}: key {at + 1}"
        key = _key(where, table, questions)
        if any((key.question, key.answer) == (other.question, other.answer) for other in keys):
            raise CourseError(f"{where} is about an answer that has a key already; put their misconceptions together.")
        for name in key.misconceptions:
            if name not in known:
                raise CourseError(f"{where} names {name!r}, which misconceptions.py does not hold; mend the name.")
        keys.append(key)
    return tuple(keys)


def _key(where: str, table: Mapping[str, Any], questions: Sequence[Question]) -> Key:
    if not isinstance(table, dict) or set(table) not in KINDS_OF_KEYS:
        raise CourseError(f"{where} must give question, misconceptions, and either option or answer.")
    place, names = table["question"], table["misconceptions"]
    if type(place) is not int or not 1 <= place <= len(questions):
        raise CourseError(f"{where}: question is {place!r}, but the quiz has the questions 1 to {len(questions)}.")
    if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CourseError(f"{where}: misconceptions must be a list of one or more names of misconceptions.py.")
    question = questions[place - 1]
    if question.options:
        return Key(place, _option(where, table.get("option"), question), tuple(names))
    return Key(place, _answer(where, table.get("answer"), question), tuple(names))


def _option(where: str, option: Any, question: Question) -> str:
    wrong = [letter(at) for at, one in enumerate(question.options) if not one.right]
    if option not in wrong:
        raise CourseError(f"{where}: option is {option!r}, but the question's wrong options are {', '.join(wrong)}.")
    return str(option)


def _answer(where: str, answer: Any, question: Question) -> float | tuple[int, ...]:
    if question.kind == "shape":
        if not isinstance(answer, list) or not all(type(size) is int for size in answer):
            raise CourseError(f"{where}: answer is {answer!r}, but the question asks for a shape, such as [7, 2].")
        if answer == list(question.answer):
            raise CourseError(f"{where}: answer {answer} is the right one; give the wrong one that students choose.")
        return tuple(answer)
    if type(answer) not in (int, float):
        raise CourseError(f"{where}: answer is {answer!r}, but the question asks for a number, such as 0.25.")
    if abs(answer - question.answer) <= question.tolerance:
        raise CourseError(f"{where}: answer {answer} is a right one; give the wrong one that students choose.")
    return float(answer)
