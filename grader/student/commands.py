"""The commands that the desk hands the terminal to: pytest in full, and the debugger."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from grader.course import Exercise
from grader.student.work import Work


def pytest_command(work: Work, exercises: Sequence[Exercise]) -> list[str]:
    """Give the command that runs exercises under pytest, with everything it has to say."""
    chosen = [word for exercise in exercises for word in ("--exercise", exercise.name)]
    suite, module = str(work.chapter.public_tests.resolve()), str(work.file.resolve())
    root = str(work.chapter.folder.parent.parent.resolve())
    return [sys.executable, "-m", "pytest", "--rootdir", root, suite, "--module", module, *chosen, "-vv"]


def debug_command(suite: Path, file: Path, functions: Sequence[str], test: str) -> list[str]:
    """Give the command that opens the debugger on one test, with a stop in each of the functions."""
    return [sys.executable, "-m", "grader.student.debug", str(suite), str(file), test, *functions]
