"""Where you are and what is next: the chapter in hand, the course behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.course import Chapter, Course, CourseError
from grader.student import showing
from grader.student.drawer import Drawer
from grader.student.driver import is_repository, is_set_up
from grader.student.names import Target, here
from grader.student.paper import Paper
from grader.student.standing import Standing, next_after, standings
from grader.student.work import Work, read_any
from grader.verdict import State


@dataclass(frozen=True)
class Overview:
    """What `grader` alone shows."""

    root: Path
    chapter: Chapter
    standings: Mapping[str, Sequence[Standing]]
    """Of all chapters."""
    following: Standing | None
    """What to do next; None when the course is done."""
    hints: Mapping[str, int]
    """How many hints were taken, by exercise."""
    doubts: Sequence[str] = ()
    """Chapters of which it is in doubt which file counts, a sentence each."""

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        chapters = {name: [s.to_json() for s in each] for name, each in self.standings.items()}
        following = self.following.to_json() if self.following else None
        return {
            "chapter": self.chapter.name,
            "chapters": chapters,
            "next": following,
            "hints": dict(self.hints),
            "doubts": list(self.doubts),
        }


def overview(course: Course, drawer: Drawer) -> Overview:
    """Look at everything; only what was changed since it was last checked is run again."""
    found = standings(course.chapters, drawer)
    chapter = current_chapter(course, found)
    following = next_after(found[chapter.name])
    if following is None:
        others = [s for name, each in found.items() if name > chapter.name for s in each]
        following = next_after(others) or next_after([s for each in found.values() for s in each])
    doubts = [doubt for c in course.chapters if (doubt := read_any(c)[1])]
    return Overview(
        course.root, chapter, found, following, {key: len(taken) for key, taken in drawer.hints.items()}, doubts
    )


def current_chapter(course: Course, found: Mapping[str, Sequence[Standing]] | None = None) -> Chapter:
    """Give the chapter in hand: the one whose folder this is, else the one begun last, else the first.

    Raises:
        CourseError: if the course has no chapter.
    """
    if not course.chapters:
        raise CourseError(f"{course.root / 'chapters'} holds no chapter; put it back, or run `grader update PATH`.")
    place = here(course)
    if place is not None:
        return place
    begun = [work for chapter in course.chapters if _is_begun(work := read_any(chapter)[0])]
    latest = max(begun, key=lambda work: work.file.stat().st_mtime, default=None)
    if latest is None:
        return course.chapters[0]
    if found and all(standing.state is State.RIGHT for standing in found[latest.chapter.name]):
        later = [c for c in course.chapters if c.name > latest.chapter.name]
        return later[0] if later else latest.chapter
    return latest.chapter


def current_exercise(course: Course, drawer: Drawer) -> Target:
    """Give the exercise in hand. Raises CourseError if there is none left."""
    chapter = current_chapter(course)
    following = next_after(standings([chapter], drawer, run=False)[chapter.name])
    if following is None:
        raise CourseError(f"{chapter.title} is done; name an exercise, such as `grader hint softmax`.")
    return Target(chapter, following.exercise)


def _is_begun(work: Work) -> bool:
    return any(work.is_begun(exercise) for exercise in work.chapter.exercises)


def show_overview(paper: Paper, seen: Overview) -> None:
    """Write the chapter's table, the sums of the course, and what is next."""
    everything = [s for each in seen.standings.values() for s in each]
    right = sum(s.state is State.RIGHT for s in everything)
    done = sum(all(s.state is State.RIGHT for s in each) for each in seen.standings.values())
    sums = f"{right} of {len(everything)} exercises {paper.dot()} {done} of {len(seen.standings)} chapters"
    showing.chapter_head(paper, seen.chapter, sums)
    for doubt in seen.doubts:
        paper.line(doubt, "yellow", indent=2)
    following = seen.following
    showing.table(paper, seen.standings[seen.chapter.name], following.exercise.id if following else "")
    if following is None:
        paper.line("Every exercise of the course is right.", "bold green")
        return
    name = following.exercise.name
    paper.line(f"Next: {name}   {following.place}")
    paper.line(f"notes: chapters/{following.exercise.chapter}/README.md", "dim", indent=2)
    paper.line(f"grader watch {name}  {paper.dot()}  grader hint {name}", "dim", indent=2)
    if is_repository(seen.root) and not is_set_up(seen.root):
        paper.line("Run `grader setup` once: git pull then keeps what you wrote.", "yellow")


def show_all(paper: Paper, course: Course, found: Mapping[str, Sequence[Standing]]) -> None:
    """Write the table of every chapter."""
    for chapter in course.chapters:
        own = found[chapter.name]
        earned, points = sum(s.earned for s in own), sum(s.exercise.points for s in own)
        showing.chapter_head(paper, chapter, f"{showing.number(earned)} of {showing.number(points)} points")
        showing.table(paper, own)
