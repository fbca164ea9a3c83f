"""The self-checks of a chapter inside a notebook, and the cell that calls them."""

from __future__ import annotations

import contextlib
import html
import io
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.course import Chapter, CourseError, find_root, load_course, read_chapter
from grader.testing.lesson import Lesson
from grader.testing.plugin import CheckResult, run_suite
from grader.verdict import State, Verdict, state_of

PUBLIC = "test_exercises.py"
# a contrast of 4 to 1 on white and on Jupyter's dark, near the most that one colour can have on both; the sign and
# the word say the same without it
SIGNS: dict[State | None, tuple[str, str]] = {
    State.RIGHT: ("●", "#2c8545"),
    State.WRONG: ("✗", "#d0453b"),
    State.WAITS: ("◌", "#94750a"),
    State.TODO: ("○", "inherit"),
}


def check_cell(exercise: str) -> str:
    """Give the source of the cell that checks an exercise; nbgrader takes its last value as the points earned."""
    return f'from grader.testing.notebook import check\n\ncheck("{exercise}")'


def check(exercise: str, *, chapter: str | None = None, suite: str = PUBLIC) -> float:
    """Run the chapter's self-checks of one exercise on what the notebook defines, and show what came of each.

    Args:
        exercise: the exercise's name in chapter.toml.
        chapter: the chapter's name or number, if the notebook does not lie in the chapter's folder.
        suite: the file of tests beside chapter.toml.

    Returns:
        The points earned: points x weight passed / weight of all. A mistake in the call earns 0 and a sentence.
    """
    namespace = sys._getframe(1).f_globals
    # nbgrader gives no points to a cell that writes a line to stderr, be it only a warning of a library.
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            found = _find_chapter(Path.cwd(), chapter, suite)
            points = found.exercise(exercise).points
            results = _run(found.folder / suite, namespace, exercise)
        except CourseError as error:
            _show(Report(str(error), ()))
            return 0.0
    earned = _points_earned(results, points)
    passed = sum(result.verdict is Verdict.PASSED for result in results)
    headline = f"{exercise}: {passed} of {len(results)} checks pass, {earned:g} of {points:g} points"
    # a drawing quotes the test's inputs, which are the students' to see in the public suite alone
    shown = _easiest_lesson(results) if suite == PUBLIC else None
    _show(Report(headline, tuple(results), state_of([result.verdict for result in results]), shown))
    return earned


def _easiest_lesson(results: Sequence[CheckResult]) -> Lesson | None:
    lessons = [result.lesson for result in results if result.lesson is not None]
    return min(lessons, key=lambda lesson: lesson.size, default=None)


@dataclass(frozen=True)
class Report:
    """What a check cell shows: a headline, the lesson of the failure that is easiest to look at, a line a test."""

    headline: str
    results: tuple[CheckResult, ...]
    state: State | None = None
    lesson: Lesson | None = None

    def __repr__(self) -> str:
        lines = [self.headline]
        for result in self.results:
            lines.append(f"  {result.verdict:<9}  {result.title}")
            if self.lesson is not None and result.lesson is self.lesson:
                lines += [f"  {'':<9}  {line}" for line in self.lesson.body]
            elif message := _first_line(result.message):
                lines.append(f"  {'':<9}  {message}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        sign, colour = SIGNS.get(self.state, ("", "inherit"))
        head = (
            f"<p><b style='color: {colour}'>{sign} {html.escape(self.state or '')}</b> {html.escape(self.headline)}</p>"
        )
        rows = "".join(map(_row, self.results))
        is_open = "" if self.lesson is not None or self.state is State.RIGHT else " open"
        checks = f"<details{is_open}><summary>the checks</summary><table>{rows}</table></details>" if rows else ""
        return head + self._lesson_in_html() + checks

    def _lesson_in_html(self) -> str:
        if self.lesson is None:
            return ""
        body = html.escape("\n".join(self.lesson.body))
        return f"<p>{html.escape(self.lesson.claim)}</p><pre style='margin-left: 1em'>{body}</pre>"


def _row(result: CheckResult) -> str:
    cells = html.escape(result.verdict), html.escape(result.title), html.escape(_first_line(result.message))
    return "<tr><td><b>{}</b></td><td style='text-align: left'>{}<br><small>{}</small></td></tr>".format(*cells)


def _find_chapter(folder: Path, name: str | None, suite: str) -> Chapter:
    """Give the chapter by its name, else the one in whose folder the notebook runs."""
    if name is not None:
        found = load_course(find_root(folder)).chapter(name)
    elif (folder / "chapter.toml").is_file():
        found = read_chapter(folder, folder)
    else:
        raise CourseError(
            f"chapter.toml is not beside the notebook in {folder}; keep the notebook in its chapter's folder."
        )
    if not (found.folder / suite).is_file():
        raise CourseError(f"{suite} is not in {found.folder}; copy it there from the course.")
    return found


def _run(suite: Path, namespace: Mapping[str, Any], exercise: str) -> list[CheckResult]:
    module = types.ModuleType("exercises")
    module.__dict__.update(namespace)
    results = [result for result in run_suite(suite, module, exercise) if result.exercise == exercise]
    if not results:
        raise CourseError(f"{suite.name} has no test of {exercise}; the course's author has to add one.")
    return results


def _points_earned(results: Sequence[CheckResult], points: float) -> float:
    passed = sum(result.weight for result in results if result.verdict is Verdict.PASSED)
    return round(points * passed / sum(result.weight for result in results), 6)


def _first_line(message: str) -> str:
    return message.strip().splitlines()[0] if message.strip() else ""


def _show(report: Report) -> None:
    from IPython.display import display  # not a dependency: whoever has a notebook has it

    display(report)  # type: ignore[no-untyped-call]
