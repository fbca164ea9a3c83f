"""The chapter table of the course's README, generated between two markers."""

from __future__ import annotations

from pathlib import Path

from grader.course import Course

BEGIN, END = "<!-- chapters -->", "<!-- /chapters -->"


def chapter_table(course: Course) -> str:
    """Give one row a chapter: link, title, exercises, points."""
    rows = [
        f"| [{c.name}](chapters/{c.name}/README.md) | {c.title} | {len(c.exercises)} | {c.points:g} |"
        for c in course.chapters
    ]
    return "\n".join(["| chapter | title | exercises | points |", "|---|---|---|---|", *rows])


def with_table(course: Course, text: str) -> str:
    """Give the README's text with the table of today; a text without both markers stays as it is."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    return f"{head}{begin}\n{chapter_table(course)}\n{end}{tail}" if begin and end else text


def refresh(course: Course, write: bool = True) -> list[str]:
    """Bring README.md up to date, or only say that it is stale; give a sentence if it was."""
    file: Path = course.root / "README.md"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    fresh = with_table(course, text)
    if fresh == text:
        return []
    if write:
        file.write_text(fresh, encoding="utf-8")
        return ["README.md: the chapter table is written."]
    return ["README.md: the chapter table is stale; run `grader build`."]
