"""What a student means by a word: an exercise by any unambiguous part of its name, a chapter by number or part."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from grader.course import Chapter, Course, CourseError, Exercise


@dataclass(frozen=True)
class Target:
    """A chapter, or one exercise of it."""

    chapter: Chapter
    exercise: Exercise | None = None

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        return (self.exercise,) if self.exercise is not None else self.chapter.exercises


def find_target(course: Course, word: str) -> Target:
    """Give what `word` names: `softmax`, `06`, `attention/softmax`, `chapters/06_attention`.

    Raises:
        CourseError: if it names nothing, or more than one thing, with the names that come near.
    """
    wanted = word.strip().replace("\\", "/").strip("/").removeprefix("chapters/").lower()
    chapters = _chapters(course, wanted)
    if chapters and not _exact(course, wanted):
        return _only(word, [Target(chapter) for chapter in chapters])
    return find_exercise(course, word)


def find_exercise(course: Course, word: str) -> Target:
    """Give the exercise that `word` names. Raises CourseError as `find_target` does."""
    wanted = word.strip().replace("\\", "/").strip("/").removeprefix("chapters/").lower()
    where, _, name = wanted.rpartition("/")
    chapters = _chapters(course, where) if where else list(course.chapters)
    everything = [Target(chapter, exercise) for chapter in chapters for exercise in chapter.exercises]
    found = [t for t in everything if name in _words(t)] or [
        t for t in everything if name and any(name in spoken for spoken in _words(t))
    ]
    if not found:
        raise CourseError(f"no exercise is called {word!r}{_suggestions(course, wanted)}")
    return _only(word, found)


def here(course: Course) -> Chapter | None:
    """Give the chapter in whose folder the command was given."""
    place = Path.cwd().resolve()
    return next((c for c in course.chapters if c.folder.resolve() in (place, *place.parents)), None)


def _words(target: Target) -> list[str]:
    assert target.exercise is not None
    return [target.exercise.name.lower(), *(name.lower() for name in target.exercise.functions)]


def _exact(course: Course, wanted: str) -> bool:
    return any(wanted == e.name.lower() for c in course.chapters for e in c.exercises)


def _chapters(course: Course, wanted: str) -> list[Chapter]:
    if wanted.isdigit():
        return [c for c in course.chapters if int(c.number) == int(wanted)]
    exact = [c for c in course.chapters if wanted in (c.name, c.name[3:])]
    return exact or [c for c in course.chapters if wanted and "/" not in wanted and wanted in c.name]


def _only(word: str, found: list[Target]) -> Target:
    if len(found) == 1:
        return found[0]
    names = ", ".join(t.exercise.id[3:] if t.exercise else t.chapter.name for t in found[:6])
    raise CourseError(f"{word!r} can mean {names}{' and more' if len(found) > 6 else ''}; write more of the name.")


def _suggestions(course: Course, wanted: str) -> str:
    names = [name for c in course.chapters for e in c.exercises for name in (e.name, *e.functions)]
    spoken = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wanted.rpartition("/")[2], spoken, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(spoken[name] for name in near)}?"
    return "; `grader list` shows them all."
