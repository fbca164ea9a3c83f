"""`grader check`: which exercises are meant, and what is shown of them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from grader.course import Course, CourseError, Exercise
from grader.student import showing
from grader.student.commands import pytest_command
from grader.student.names import find_target, here
from grader.student.paper import Paper
from grader.student.standing import Run
from grader.student.work import Work, read_work
from grader.student.worker import environment
from grader.verdict import State

Chosen = list[tuple[Work, Sequence[Exercise]]]


def chosen_works(course: Course, words: Sequence[str], prefer: str) -> Chosen:
    """Give the exercises that words name, by chapter. Raises CourseError for a word that names nothing."""
    wanted: dict[str, list[Exercise]] = {}
    targets = [find_target(course, word) for word in words]
    for target in targets:
        own = wanted.setdefault(target.chapter.name, [])
        own += [exercise for exercise in target.exercises if exercise not in own]
    return [(read_work(course.chapter(name), prefer), exercises) for name, exercises in wanted.items()]


def begun_works(course: Course, prefer: str) -> Chosen:
    """Give all exercises that were begun, in this folder's chapter or in all of them."""
    chapter = here(course)
    works = [read_work(c, prefer) for c in ([chapter] if chapter else course.chapters)]
    chosen = [(work, [e for e in work.chapter.exercises if work.is_begun(e)]) for work in works]
    begun: Chosen = [(work, exercises) for work, exercises in chosen if exercises]
    if not begun:
        raise CourseError("nothing is begun yet, so there is nothing to check; `grader` says where to start.")
    return begun


def run_in_full(work: Work, exercises: Sequence[Exercise]) -> int:
    """Run exercises under pytest with everything it has to say, and give its exit status."""
    return subprocess.run(pytest_command(work, exercises), env=environment(interactive=True), check=False).returncode


def show_runs(paper: Paper, runs: Sequence[Run]) -> None:
    """Write the verdicts, one exercise after the other."""
    for run in runs:
        if run.problem:
            sign, style = paper.sign(State.WRONG)
            names = ", ".join(exercise.name for exercise in run.exercises)
            paper.parts((f"{sign} ", style), (names, "bold " + style), (f": {run.problem}", ""))
        for standing in run.standings:
            showing.verdict(paper, standing)
        showing.printed(paper, run.printed)
    wrong = [s.exercise.name for run in runs for s in run.standings if s.state is State.WRONG]
    if wrong:
        name = wrong[0]
        paper.line(f"stuck: grader hint {name}   pytest in full: grader check {name} --full", "dim")


def exit_state(runs: Sequence[Run]) -> State:
    """Give WRONG if anything is wrong, else RIGHT: what is to do or waits is no failure."""
    wrong = any(run.problem or any(s.state is State.WRONG for s in run.standings) for run in runs)
    return State.WRONG if wrong else State.RIGHT
