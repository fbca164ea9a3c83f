"""What the commands share: exit statuses, and how the course is found."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from grader.course import Course, find_root, load_course

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXIT_FINE, EXIT_FAILED, EXIT_USAGE, EXIT_MACHINE, EXIT_STOPPED = 0, 1, 2, 3, 130


def course_of(options: argparse.Namespace) -> Course:
    """Give the course that --course names, else the one found upwards."""
    root = options.course or find_root(Path.cwd())
    return load_course(root.resolve(), options.solutions and options.solutions.resolve())
