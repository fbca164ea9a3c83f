"""Scores into nbgrader's gradebook, so that its formgrader, feedback and export serve them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from grader.course import Chapter, Course
from grader.grading.result import Outcome

Scores = Mapping[str, Mapping[str, float]]
"""By student, then by exercise."""


class GradebookError(Exception):
    """A sentence for the instructor: which database, what is wrong, what to do."""


def write_scores(outcomes: Iterable[Outcome], course: Course, url: str) -> str:
    """Write the scores into nbgrader's database, and give a sentence that says what was written.

    Writing the same outcomes again changes nothing. Manual scores, comments, extensions and late penalties are kept.
    Of two outcomes of one student and chapter the later counts. What the machine failed to grade is left out.

    Args:
        outcomes: results of any students and chapters.
        course: the course they belong to; each chapter is an assignment, each exercise a cell `check_<exercise>`.
        url: an SQLAlchemy URL, such as sqlite:///gradebook.db.

    Raises:
        GradebookError: if nbgrader is not installed, the database cannot be used, or an outcome is not of this course.
    """
    try:
        from grader.gradebook.database import opened, shown, write_chapter
    except ImportError as error:
        raise GradebookError(f"nbgrader is missing ({error}); install it with `pip install -e .[nbgrader]`.") from None
    graded, left_out = _by_chapter(outcomes, course)
    with opened(url) as gradebook:
        for chapter, scores in graded:
            write_chapter(gradebook, chapter, scores)
    hand_ins = sum(len(scores) for _, scores in graded)
    students = len({student for _, scores in graded for student in scores})
    rest = f"; {left_out} that the machine failed to grade are left out" if left_out else ""
    return f"{hand_ins} hand-ins of {students} students are in the gradebook {shown(url)}{rest}."


def _by_chapter(outcomes: Iterable[Outcome], course: Course) -> tuple[list[tuple[Chapter, Scores]], int]:
    chapters = {chapter.name: chapter for chapter in course.chapters}
    scores: dict[str, dict[str, dict[str, float]]] = {}
    left_out = 0
    for outcome in outcomes:
        if outcome.chapter not in chapters:
            raise GradebookError(
                f"The course has no chapter {outcome.chapter!r}, of which {outcome.student} has a result."
            )
        if outcome.is_infra:
            left_out += 1
        else:
            scores.setdefault(outcome.chapter, {})[outcome.student] = _scores(outcome, chapters[outcome.chapter])
    return [(chapters[name], of_chapter) for name, of_chapter in sorted(scores.items())], left_out


def _scores(outcome: Outcome, chapter: Chapter) -> dict[str, float]:
    points = {exercise.name: exercise.points for exercise in chapter.exercises}
    for exercise in outcome.exercises:
        what = f"{outcome.student}'s result of {chapter.name}/{exercise.name}"
        if exercise.name not in points:
            raise GradebookError(f"{what} is not of this course; grade the hand-in again.")
        if not (math.isfinite(exercise.score) and 0 <= exercise.score <= points[exercise.name]):
            most = f"{points[exercise.name]:g}"
            raise GradebookError(f"{what} is {exercise.score} of {most} points; grade the hand-in again.")
    return {exercise.name: exercise.score for exercise in outcome.exercises}
