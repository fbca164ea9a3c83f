"""How standings and lessons look on paper: the same in every command of the desk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grader.course import Chapter
from grader.student.hints import Ladder
from grader.student.paper import Paper
from grader.student.standing import Standing
from grader.verdict import State

MAX_PRINTED = 20


def number(value: float) -> str:
    """Write points without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def chapter_head(paper: Paper, chapter: Chapter, right: str = "") -> None:
    """Write a chapter's title, and a note at the right edge."""
    title = f"{chapter.title} ({chapter.number})"
    gap = max(2, paper.width - len(title) - len(right) - 1)
    paper.parts((title, "bold"), (" " * gap + right if right else "", "dim"))


def table(paper: Paper, standings: Sequence[Standing], marked: str = "") -> None:
    """Write one line for each exercise; the exercise whose id is `marked` gets an arrow."""
    width = max((len(s.exercise.name) for s in standings), default=0)
    for standing in standings:
        sign, style = paper.sign(standing.state)
        arrow = ">" if standing.exercise.id == marked else " "
        points = f"{number(standing.earned)}/{number(standing.exercise.points)}"
        words = f"{_fit(standing.words, paper.width - width - 18):<{24}}"
        paper.parts((f"{arrow} ", "bold"), (sign, style), (f" {standing.exercise.name:<{width}}  ", ""),
                    (words, style), (f" {points:>7}", "dim"))  # fmt: skip


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(1, width - 3)] + "..."


def verdict(paper: Paper, standing: Standing) -> None:
    """Write one exercise's verdict; if it is wrong, the lesson."""
    exercise, (sign, style) = standing.exercise, paper.sign(standing.state)
    lesson = standing.lesson()
    if standing.state is State.WRONG and lesson is not None:
        paper.parts((f"{sign} ", style), (exercise.name, "bold " + style), (f": {lesson['claim']}", ""))
        show_lesson(paper, lesson)
        paper.line(
            f"{standing.words.removeprefix('wrong: ')}   {lesson['place'] if lesson['line'] else standing.place}",
            "dim",
            indent=2,
        )
        return
    points = f"{number(standing.earned)} of {number(exercise.points)} points"
    note = {State.RIGHT: f", {len(standing.tests)} checks, {points}", State.TODO: f"   {standing.place}"}
    words = f": {standing.words}{note.get(standing.state, '')}"
    paper.parts((f"{sign} ", style), (exercise.name, "bold " + style), (words, ""))


def brief(paper: Paper, standing: Standing) -> None:
    """Write one exercise's verdict in a line."""
    sign, style = paper.sign(standing.state)
    paper.parts((f"{sign} ", style), (standing.exercise.name, style), (f": {standing.words}", ""))


def ladder(paper: Paper, steps: Ladder) -> None:
    """Write the hints given so far, and what opens the next."""
    exercise = steps.exercise
    for at, hint in enumerate(steps.given, start=1):
        is_new = steps.is_new and at == len(steps.given)
        paper.line(f"{exercise.name}, hint {at} of {len(exercise.hints)}", "bold" if is_new else "dim")
        paper.line(hint, "" if is_new else "dim", indent=2)
    if steps.wait:
        paper.line(f"{exercise.name}: {steps.wait}.")


def show_lesson(paper: Paper, lesson: Mapping[str, Any]) -> None:
    """Write what stands below the claim."""
    paper.drawing(lesson["body"], indent=4)


def printed(paper: Paper, text: str) -> None:
    """Write what the student's code printed, the last lines of it."""
    lines = text.rstrip().splitlines()
    if not lines:
        return
    cut = f" (the last {MAX_PRINTED} of {len(lines)} lines)" if len(lines) > MAX_PRINTED else ""
    paper.line(f"Your code printed{cut}:", "dim", indent=2)
    for line in lines[-MAX_PRINTED:]:
        paper.line(line, indent=4)
