"""A student's progress as Markdown: the job summary of a workflow, and a comment on a pull request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grader.course import Chapter
from grader.report.markdown import code, fence_lines, prose
from grader.student.paper import SIGNS
from grader.student.showing import number
from grader.student.standing import Standing
from grader.verdict import State

SUMMARY_LIMIT = 900_000
"""Bytes of a job summary; GitHub drops one of more than 1 MiB as a whole."""
COMMENT_LIMIT = 60_000
"""Characters of a comment; GitHub takes 65,536."""
MARKER = "<!-- course-progress -->"
"""By which the comment of an earlier run is found again."""
BLOCKS = " ▏▎▍▌▋▊▉█"
BAR_WIDTH = 10


@dataclass(frozen=True)
class Row:
    """One chapter's standings, and their sums."""

    chapter: Chapter
    standings: Sequence[Standing]

    @property
    def done(self) -> int:
        return sum(s.state is State.RIGHT for s in self.standings)

    @property
    def earned(self) -> float:
        return sum(s.earned for s in self.standings)

    @property
    def is_done(self) -> bool:
        return self.done == len(self.standings)

    @property
    def is_begun(self) -> bool:
        return any(s.state is not State.TODO for s in self.standings)


def rows_of(chapters: Sequence[Chapter], found: Mapping[str, Sequence[Standing]]) -> list[Row]:
    """Give the chapters with their standings, in order."""
    return [Row(chapter, found[chapter.name]) for chapter in chapters]


def course_page(rows: Sequence[Row], limit: int = SUMMARY_LIMIT) -> str:
    """Give the page: a table of chapters with bars, then what to learn from each chapter in progress."""
    done, exercises = sum(row.done for row in rows), sum(len(row.standings) for row in rows)
    chapters = sum(row.is_done for row in rows)
    head = f"### Progress: {done} of {exercises} exercises · {chapters} of {len(rows)} chapters\n\n"
    text = head + "| chapter | done | points | |\n|---|---|---|---|\n" + "".join(map(_line, rows))
    for row in rows:
        if row.is_begun and not row.is_done:
            part = _details(row)
            if len((text + part).encode()) > limit:
                return text + "\nMore does not fit on this page; `grader list` shows all.\n"
            text += part
    return text


def comment(rows: Sequence[Row]) -> str:
    """Give the page as a comment that a later run can find and replace."""
    return f"{MARKER}\n{course_page(rows, COMMENT_LIMIT // 4)}"


def bar(share: float) -> str:
    """Draw a share from 0 to 1 in eighths of a block."""
    eighths = round(share * BAR_WIDTH * 8)
    rest = BLOCKS[eighths % 8] if eighths % 8 else ""
    return "█" * (eighths // 8) + rest


def _line(row: Row) -> str:
    wrong = [s.exercise.name for s in row.standings if s.state is State.WRONG]
    points = f"{number(row.earned)}/{number(row.chapter.points)}"
    words = f"{bar(row.earned / row.chapter.points)}{' wrong: ' + ', '.join(wrong) if wrong else ''}".strip()
    return (
        f"| {row.chapter.number} {prose(row.chapter.title)} | {row.done}/{len(row.standings)} | {points} | {words} |\n"
    )


def _details(row: Row) -> str:
    parts = [f"\n<details><summary>{row.chapter.number} {prose(row.chapter.title)}</summary>\n"]
    for standing in row.standings:
        words = f"{SIGNS[standing.state]} **{standing.exercise.name}**: {prose(standing.words)}"
        parts.append(f"\n{words}\n")
        lesson = standing.lesson()
        if standing.state is State.WRONG and lesson is not None:
            parts.append(f"\n{prose(lesson['claim'])}\n\n{fence_lines(lesson['body'])}\n")
            parts.append(f"\n{code(lesson['place'])} · `grader hint {standing.exercise.name}`\n")
    parts.append("\n</details>\n")
    return "".join(parts)
