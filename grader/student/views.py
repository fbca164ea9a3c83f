"""What `grader watch` writes: lines that stay for a person, one JSON line an event for a program."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Protocol

from grader.course import Chapter, Exercise
from grader.student import showing
from grader.student.hints import Ladder
from grader.student.paper import Paper
from grader.student.standing import Run, Standing
from grader.verdict import State

KEYS = "h hint  n next  l list  d debugger  f full  a all  q quit"


class View(Protocol):
    """Where the watch writes."""

    def begin(self, chapter: Chapter, exercise: Exercise, place: str) -> None:
        """Say what is watched."""

    def take_up(self, exercise: Exercise, place: str) -> None:
        """Say which exercise is next."""

    def verdicts(self, run: Run, focus: Exercise | None, seconds: float) -> None:
        """Say what came of a run; the exercise in hand first."""

    def onwards(self, chapter: Chapter, following: Standing | None) -> None:
        """Say what comes after an exercise that is right."""

    def unreadable(self, problem: Sequence[str]) -> None:
        """Say what Python cannot read: a sentence, then the line and a mark."""

    def ladder(self, ladder: Ladder) -> None:
        """Show the hints."""

    def listing(self, chapter: Chapter, standings: Sequence[Standing], focus: Exercise | None) -> None:
        """Show the chapter."""

    def note(self, text: str) -> None:
        """Say one thing."""

    def menu(self) -> None:
        """Remind of the keys."""


class PaperView:
    """For a person."""

    def __init__(self, paper: Paper, has_keys: bool) -> None:
        self._paper, self._has_keys = paper, has_keys

    def begin(self, chapter: Chapter, exercise: Exercise, place: str) -> None:
        self._paper.line(f"Watching {chapter.title} ({chapter.number}). Save a file, and it is checked.")
        self._paper.line(f"{exercise.name}: {place}", indent=2)
        self.menu()

    def take_up(self, exercise: Exercise, place: str) -> None:
        self._paper.rule(exercise.name)
        self._paper.line(exercise.teaches, indent=2)
        self._paper.line(place, indent=2)

    def verdicts(self, run: Run, focus: Exercise | None, seconds: float) -> None:
        paper = self._paper
        paper.rule(f"{time.strftime('%H:%M:%S')}  {', '.join(e.name for e in run.exercises)}  {seconds:.2f} s")
        if run.problem:
            paper.line(run.problem, "red", indent=2)
        ordered = sorted(run.standings, key=lambda s: s.exercise is not focus)
        first = next((s for s in ordered if s.state is State.WRONG), None)
        for standing in ordered:
            if standing.state is State.WRONG and standing is not first:
                showing.brief(paper, standing)
            else:
                showing.verdict(paper, standing)
        showing.printed(paper, run.printed)

    def onwards(self, chapter: Chapter, following: Standing | None) -> None:
        if following is None:
            self._paper.line(f"{chapter.title} is done: every exercise is right.", "bold green", indent=2)
        else:
            self._paper.line(f"n next: {following.exercise.name}, {following.words}   {following.place}", indent=2)

    def unreadable(self, problem: Sequence[str]) -> None:
        self._paper.rule(f"{time.strftime('%H:%M:%S')}  Python cannot read the file")
        self._paper.line(problem[0], "red", indent=2)
        self._paper.drawing(problem[1:], indent=4)

    def ladder(self, ladder: Ladder) -> None:
        showing.ladder(self._paper, ladder)

    def listing(self, chapter: Chapter, standings: Sequence[Standing], focus: Exercise | None) -> None:
        showing.chapter_head(self._paper, chapter)
        showing.table(self._paper, standings, focus.id if focus else "")

    def note(self, text: str) -> None:
        self._paper.line(text, indent=2)

    def menu(self) -> None:
        if self._has_keys:
            self._paper.line(KEYS, "dim", indent=2)


class JsonView:
    """For a program."""

    def begin(self, chapter: Chapter, exercise: Exercise, place: str) -> None:
        _write({"watching": chapter.name, "exercise": exercise.id, "place": place})

    def take_up(self, exercise: Exercise, place: str) -> None:
        _write({"exercise": exercise.id, "place": place})

    def verdicts(self, run: Run, focus: Exercise | None, seconds: float) -> None:
        shown = [standing.to_json() for standing in run.standings]
        names = [exercise.id for exercise in run.exercises]
        _write({"checked": names, "seconds": round(seconds, 4), "problem": run.problem, "exercises": shown})

    def onwards(self, chapter: Chapter, following: Standing | None) -> None:
        _write({"next": following and following.exercise.id})

    def unreadable(self, problem: Sequence[str]) -> None:
        _write({"unreadable": problem[0]})

    def ladder(self, ladder: Ladder) -> None:
        _write(ladder.to_json())

    def listing(self, chapter: Chapter, standings: Sequence[Standing], focus: Exercise | None) -> None:
        _write({"exercises": [standing.to_json() for standing in standings]})

    def note(self, text: str) -> None:
        _write({"note": text})

    def menu(self) -> None:
        """A program presses no keys."""


def _write(data: dict[str, object]) -> None:
    print(json.dumps(data), flush=True)
