"""A copy of the tiny fake course, to be changed at will by one test."""

from __future__ import annotations

import shutil
from pathlib import Path

from grader.course import Course, load_course

FIXTURE = Path(__file__).parent / "course_fixture"

SETTINGS = """
[tool.pytest]
strict = true
testpaths = ["chapters"]
addopts = ["--import-mode=importlib", "-p", "grader.testing.plugin", "--no-header"]
"""


def copy_course(folder: Path) -> Course:
    """Copy the course below `folder`, with the pytest settings of a student's repository."""
    root = folder / "course"
    shutil.copytree(FIXTURE, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").write_text(SETTINGS, encoding="utf-8")
    return load_course(root)


def reference(course: Course, chapter: str) -> str:
    """Give a chapter's reference as a student's file."""
    return course.chapter(chapter).source.read_text(encoding="utf-8")


def hand_in(folder: Path, student: str, chapter: str, text: str | bytes, file: str = "exercises.py") -> Path:
    """Write one student's file and give the student's folder."""
    place = folder / student / chapter
    place.mkdir(parents=True, exist_ok=True)
    data = text.encode() if isinstance(text, str) else text
    (place / file).write_bytes(data)
    return folder / student
