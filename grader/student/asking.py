"""`grader quiz`: ask, and explain at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, TextIO

from grader.course import Chapter
from grader.student.drawer import Drawer
from grader.student.paper import Paper
from grader.student.quiz import NotAnAnswer, Question, chosen_options, is_right, letter


def ask_all(paper: Paper, chapter: Chapter, questions: Sequence[Question], drawer: Drawer) -> None:
    """Ask every question; an empty answer leaves one out, and the end of input ends the quiz."""
    right = asked = 0
    paper.line(f"{chapter.title} ({chapter.number}): {len(questions)} questions. Enter alone leaves one out.", "bold")
    for at, question in enumerate(questions, start=1):
        paper.line()
        paper.line(f"{at}. {question.text}", "bold")
        for place, option in enumerate(question.options):
            paper.line(f"{letter(place)}  {option.text}", indent=3, hang=3)
        typed = _answer(paper, question)
        if typed is None:
            paper.line()
            break
        asked += bool(typed)
        right += bool(typed) and is_right(question, typed)
        _explain(paper, question, typed)
    paper.line()
    paper.line(f"{right} of {asked} right.")
    if asked:
        drawer.quizzes[chapter.name] = {"right": right, "asked": asked, "of": len(questions), "time": time.time()}
        drawer.save()


def _answer(paper: Paper, question: Question) -> str | None:
    """Give what was typed, once it is an answer; "" for none, None at the end of input."""
    while True:
        try:
            typed = input(f"   ({question.how}) > ").strip()
        except EOFError:
            return None
        if not typed:
            return ""
        try:
            is_right(question, typed)
        except NotAnAnswer as error:
            paper.line(f"{error}.", indent=3)
        else:
            return typed


def _explain(paper: Paper, question: Question, typed: str) -> None:
    """Say whether it was right and why, for every option."""
    if typed:
        right = is_right(question, typed)
        paper.line("Right." if right else f"Not so; the answer is {question.right}.", "green" if right else "red", 3)
    else:
        paper.line(f"The answer is {question.right}.", indent=3)
    chosen = chosen_options(question, typed) if typed and question.options else set()
    for at, option in enumerate(question.options):
        sign = "yes" if option.right else "no "
        mark = ">" if at in chosen else " "
        paper.line(f"{mark} {letter(at)} {sign}  {option.explanation}", indent=3, hang=9)
    if question.explanation:
        paper.line(question.explanation, indent=3)


def to_json(chapter: Chapter, questions: Sequence[Question], answers: TextIO) -> dict[str, Any]:
    """Give the questions as data. Answers are lines of the input; only what was answered is explained."""
    lines = [] if answers.isatty() else answers.read().splitlines()
    shown = [_as_data(question, lines[at] if at < len(lines) else "") for at, question in enumerate(questions)]
    return {"chapter": chapter.name, "questions": shown}


def _as_data(question: Question, typed: str) -> dict[str, Any]:
    data: dict[str, Any] = {"kind": question.kind, "question": question.text, "exercise": question.exercise}
    data["options"] = [option.text for option in question.options]
    if typed.strip():
        try:
            data.update(answered=typed, right=is_right(question, typed), answer=question.right)
        except NotAnAnswer as error:
            return {**data, "answered": typed, "problem": str(error)}
        data["explanations"] = [option.explanation for option in question.options] or [question.explanation]
    return data
