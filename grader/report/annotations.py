"""Workflow commands that put a sentence beside a line of the student's file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from grader.report.safe import clean
from grader.student.standing import Standing
from grader.verdict import State

MOST = 10
"""Annotations of one kind that GitHub shows of one step; it drops the others without a word."""


def annotate(standings: Iterable[Standing], following: Standing | None) -> Iterator[str]:
    """Give an error for the first failed check of each wrong exercise, and a notice of what is next."""
    wrong = [standing for standing in standings if standing.state is State.WRONG]
    for standing in wrong[:MOST]:
        lesson = standing.lesson()
        text = lesson["claim"] if lesson else standing.words
        yield _command("error", lesson["place"] if lesson else standing.place, standing.exercise.name, text)
    if len(wrong) > MOST:
        yield _command("warning", "", "progress", f"{len(wrong) - MOST} more exercises are wrong; see the summary")
    if following is not None and following.state is not State.WRONG:
        yield _command("notice", following.place, following.exercise.name, f"next: {following.exercise.teaches}")


def _command(kind: str, place: str, title: str, text: str) -> str:
    file, _, line = place.rpartition(":") if place[-1:].isdigit() else (place, "", "")
    where = (f"file={_property(file)}," if file else "") + (f"line={line}," if line else "")
    return f"::{kind} {where}title={_property(title)}::{_data(clean(text))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
