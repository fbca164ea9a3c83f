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
from grader.testing.plugin import CheckResult, run_suite
from grader.verdict import Verdict


def check_cell(exercise: str) -> str:
    """Give the source of the cell that checks an exercise; nbgrader takes its last value as the points earned."""
    return f'from grader.testing.notebook import check\n\ncheck("{exercise}")'


def check(exercise: str, *, chapter: str | None = None, suite: str = "test_exercises.py") -> float:
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
    _show(
        Report(f"{exercise}: {passed} of {len(results)} checks pass, {earned:g} of {points:g} points", tuple(results))
    )
    return earned


@dataclass(frozen=True)
class Report:
    """What a check cell shows: a headline, and a line for each test."""

    headline: str
    results: tuple[CheckResult, ...]

    def __repr__(self) -> str:
        lines = [self.headline]
        for result in self.results:
            lines.append(f"  {result.verdict:<9}  {result.title}")
            if message := _first_line(result.message):
                lines.append(f"  {'':<9}  {message}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><b>{html.escape(result.verdict)}</b></td><td style='text-align: left'>{html.escape(result.title)}"
            f"<br><small>{html.escape(_first_line(result.message))}</small></td></tr>"
            for result in self.results
        )
        return f"<p>{html.escape(self.headline)}</p><table>{rows}</table>"


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
