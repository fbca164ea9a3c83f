"""One assignment in one run of nbgrader: all that the run takes up is graded at once, side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import nbformat

from grader.course import Chapter, Course
from grader.gradebook.rebuild import Notebook, Rebuilt, Unreadable, read_submitted, rebuild
from grader.grading.collect import Submission
from grader.grading.result import Outcome
from grader.grading.run import Order, grade_submissions
from grader.report.changes import note_changes
from grader.report.progress import ProgressLines
from grader.report.quiz_keys import questions_about

NOTEBOOK = "exercises.ipynb"


def rebuilt_from(file: Path, released: Path) -> Rebuilt:
    """Rebuild one submitted notebook. A notebook that cannot be read becomes the released one, with a note."""
    skeleton: Notebook = nbformat.read(released, as_version=4)  # type: ignore[no-untyped-call]
    try:
        return rebuild(skeleton, read_submitted(file))
    except Unreadable as error:
        return Rebuilt(skeleton, (str(error),))


class Assignment:
    """The outcomes of an assignment's hand-ins, as they come: nbgrader's own work goes on beside the grading."""

    def __init__(self, course: Course, chapter: Chapter, order: Order, converter: Any, first: str) -> None:
        """Begin to grade all that nbgrader will ask for in this run; it asks for the student `first` already."""
        self.chapter = chapter
        self.asked = questions_about([chapter])
        self._course, self._order, self._log = course, order, converter.log
        self._changes = Path(converter.coursedir.root, "changes.csv")
        submissions = list(_taken_up(converter, chapter, first))
        self._coming = {_place(submission): Future[Outcome]() for submission in submissions}
        self._outcomes: list[Outcome] = []
        self._said = False
        # a daemon: after Ctrl-C nobody waits for it, and what it has graded is kept
        self._thread = Thread(target=self._grade, args=(submissions,), daemon=True)
        self._thread.start()

    def outcome(self, student: str, hand_in: bytes) -> Outcome:
        """Give the outcome of what was handed in. After the last one, say what changed against the run before."""
        own = Submission(student, self.chapter.name, {NOTEBOOK: hand_in})
        coming = self._coming.get(_place(own))
        if coming is None:
            return grade_submissions(self._course, self._order, [own]).outcomes[0]
        outcome = coming.result()
        if len(self._outcomes) == len(self._coming):
            self._say_changes()
        return outcome

    def _grade(self, submissions: Sequence[Submission]) -> None:
        coming = [self._coming[_place(submission)] for submission in submissions]

        def arrived(number: int, outcome: Outcome) -> None:
            self._outcomes.append(outcome)
            coming[number].set_result(outcome)

        try:
            # lines, not a bar that redraws itself: nbgrader writes to the same terminal
            progress = ProgressLines("graded")
            grade_submissions(self._course, self._order, submissions, progress, arrived=arrived)
        except BaseException as error:  # whoever waits is told, and nbgrader says it of each hand-in
            for other in coming:
                if not other.done():
                    other.set_exception(error)

    def _say_changes(self) -> None:
        if not self._said:
            self._said = True
            changed = note_changes(self._outcomes, self._order.out / "ledger.jsonl", self._changes)
            if changed:
                self._log.warning(changed)


def _place(submission: Submission) -> tuple[str, bytes]:
    return submission.student, submission.files[NOTEBOOK]


def _taken_up(converter: Any, chapter: Chapter, first: str) -> Iterator[Submission]:
    """Give what nbgrader takes up in this run: what was asked for, but for what is graded already."""
    coursedir = converter.coursedir
    released = Path(coursedir.format_path(coursedir.release_directory, ".", chapter.name), NOTEBOOK)
    for folder in map(Path, sorted(converter.assignments)):
        student, file = folder.parent.name, folder / NOTEBOOK
        if folder.name != chapter.name or not os.path.lexists(file):
            continue
        if student == first or _is_due(converter, student, folder):
            yield Submission(student, chapter.name, {NOTEBOOK: rebuilt_from(file, released).hand_in()})


def _is_due(converter: Any, student: str, submitted: Path) -> bool:
    """Tell whether nbgrader will grade it, by nbgrader's own rule: by force, for the first time, or if it is newer."""
    coursedir = converter.coursedir
    graded = Path(coursedir.format_path(coursedir.autograded_directory, student, submitted.name))
    if converter.force or not (graded / NOTEBOOK).exists():
        return True
    new, old = (coursedir.get_existing_timestamp(str(folder)) for folder in (submitted, graded))
    return new is not None and old is not None and new > old
