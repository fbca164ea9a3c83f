"""The course as data: chapters and exercises, found by looking into the folders."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
CHAPTER_NAME = re.compile(r"\d\d_[a-z][a-z0-9_]*")


class CourseError(Exception):
    """A sentence for the author: which file, which key, what to do."""


@dataclass(frozen=True)
class Limits:
    """What a student's code may use: CPU seconds a test, MiB on top of the warm process."""

    seconds: float = 2.0
    memory_mb: int = 512


@dataclass(frozen=True)
class Exercise:
    """One gradable piece of a chapter; its id is `chapter/name` and never depends on order."""

    name: str
    chapter: str
    functions: tuple[str, ...]
    points: float
    difficulty: int
    teaches: str
    hints: tuple[str, str, str]
    needs: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    @property
    def id(self) -> str:
        return f"{self.chapter}/{self.name}"


@dataclass(frozen=True)
class Chapter:
    """One chapter: what the student opens, and where the instructor's half lies."""

    name: str
    title: str
    summary: str
    minutes: int
    part: str
    scope: str
    needs: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    folder: Path
    solutions: Path

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def points(self) -> float:
        return sum(exercise.points for exercise in self.exercises)

    @property
    def stub(self) -> Path:
        return self.folder / "exercises.py"

    @property
    def notebook(self) -> Path:
        return self.folder / "exercises.ipynb"

    @property
    def public_tests(self) -> Path:
        return self.folder / "test_exercises.py"

    @property
    def source(self) -> Path:
        return self.solutions / "exercises.py"

    @property
    def hidden_tests(self) -> Path:
        return self.solutions / "test_hidden.py"

    @property
    def misconceptions(self) -> Path:
        return self.solutions / "misconceptions.py"

    @property
    def alternatives(self) -> Path:
        return self.solutions / "alternatives.py"

    @property
    def quiz_keys(self) -> Path:
        return self.solutions / "quiz_keys.toml"

    def exercise(self, name: str) -> Exercise:
        """Give the exercise of that name. Raises CourseError if there is none."""
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        known = ", ".join(exercise.name for exercise in self.exercises)
        raise CourseError(f"{self.name} has no exercise {name!r}; it has {known}.")


@dataclass(frozen=True)
class Course:
    """All chapters under one root, in the order of their numbers."""

    root: Path
    chapters: tuple[Chapter, ...]

    def chapter(self, name: str) -> Chapter:
        """Give the chapter called `name`: its full name, its number, or an unambiguous part of the name."""
        wanted = name.strip("/").removeprefix("chapters/").removeprefix("solutions/")
        exact = [c for c in self.chapters if wanted in (c.name, c.number)]
        found = exact or [c for c in self.chapters if wanted in c.name]
        if len(found) == 1:
            return found[0]
        known = ", ".join(c.name for c in found or self.chapters) or "none"
        what = "more than one chapter" if found else "no chapter"
        raise CourseError(f"{name!r} names {what}; there are {known}.")


def load_course(root: Path, solutions: Path | None = None) -> Course:
    """Read every chapter.toml below `root/chapters`.

    Args:
        root: the repository's root.
        solutions: the instructor's folder, by default `root/solutions`.

    Raises:
        CourseError: naming the file and the key that is wrong.
    """
    chapters_folder = root / "chapters"
    if not chapters_folder.is_dir():
        raise CourseError(f"{chapters_folder} is not there; run this from the course's folder or give --course PATH.")
    secret = solutions or root / "solutions"
    folders = sorted(f for f in chapters_folder.iterdir() if f.is_dir() and not f.name.startswith((".", "_")))
    return Course(root, tuple(read_chapter(folder, secret / folder.name) for folder in folders))


def find_root(start: Path) -> Path:
    """Give the nearest folder at or above `start` that holds chapters/. Raises CourseError if none does."""
    for folder in (start, *start.parents):
        if (folder / "chapters").is_dir():
            return folder
    raise CourseError(f"No folder chapters/ at or above {start}; run this inside the course or give --course PATH.")


def read_chapter(folder: Path, solutions: Path) -> Chapter:
    """Read one chapter.toml. Raises CourseError naming the file and the key."""
    file = folder / "chapter.toml"
    if not CHAPTER_NAME.fullmatch(folder.name):
        raise CourseError(f"{folder}: a chapter's folder is called NN_snake_name, such as 06_attention; rename it.")
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CourseError(f"{file} is missing; every folder in chapters/ needs one.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} is not valid TOML: {error}.") from None
    top = _Table(file, "", data)
    version = top.take("format_version", int)
    if version != FORMAT_VERSION:
        raise CourseError(f"{file}: format_version is {version}, but this grader reads {FORMAT_VERSION}.")
    tables = top.take("exercises", list)
    exercises = tuple(_read_exercise(file, folder.name, index, table) for index, table in enumerate(tables))
    chapter = Chapter(
        name=folder.name,
        title=top.take("title", str),
        summary=top.take("summary", str),
        minutes=top.take("minutes", int),
        part=top.take("part", str, ""),
        scope=top.take("scope", str, ""),
        needs=top.strings("needs"),
        exercises=exercises,
        folder=folder,
        solutions=solutions,
    )
    top.finish()
    _check_exercises(file, chapter)
    return chapter


def _read_exercise(file: Path, chapter: str, index: int, data: Any) -> Exercise:
    if not isinstance(data, Mapping):
        raise CourseError(f"{file}: exercises[{index}] must be a table.")
    label = f"exercise {data['name']!r}" if isinstance(data.get("name"), str) else f"exercises[{index}]"
    table = _Table(file, f"{label}: ", data)
    name = table.take("name", str)
    hints = table.strings("hints")
    if len(hints) != 3:
        raise CourseError(f"{file}: {label}: hints must be a ladder of three, but there are {len(hints)}.")
    limits = _Table(file, f"{label}: limits.", table.take("limits", dict, {}))
    exercise = Exercise(
        name=name,
        chapter=chapter,
        functions=table.strings("functions") or (name,),
        points=_positive(file, label, "points", float(table.take("points", (int, float)))),
        difficulty=table.take("difficulty", int),
        teaches=table.take("teaches", str),
        hints=(hints[0], hints[1], hints[2]),
        needs=table.strings("needs"),
        forbidden=table.strings("forbidden"),
        limits=Limits(
            seconds=_positive(file, label, "limits.seconds", float(limits.take("seconds", (int, float), 2.0))),
            memory_mb=int(_positive(file, label, "limits.memory_mb", limits.take("memory_mb", int, 512))),
        ),
    )
    limits.finish()
    table.finish()
    return exercise


def _check_exercises(file: Path, chapter: Chapter) -> None:
    names = [exercise.name for exercise in chapter.exercises]
    if not names:
        raise CourseError(f"{file}: exercises is empty; a chapter has at least one.")
    for exercise in chapter.exercises:
        if names.count(exercise.name) > 1:
            raise CourseError(f"{file}: two exercises are called {exercise.name!r}; names are unique in a chapter.")
        if not exercise.name.isidentifier():
            raise CourseError(f"{file}: exercise {exercise.name!r}: name must be a Python identifier.")
        if not 1 <= exercise.difficulty <= 5:
            raise CourseError(f"{file}: exercise {exercise.name!r}: difficulty must lie between 1 and 5.")
        for need in exercise.needs:
            if need not in names or need == exercise.name:
                raise CourseError(f"{file}: exercise {exercise.name!r}: needs names {need!r}, not another exercise.")


def _positive(file: Path, label: str, key: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise CourseError(f"{file}: {label}: {key} must be a positive number, but is {value}.")
    return value


_REQUIRED: Any = object()


class _Table:
    """A TOML table that remembers which keys were read, so that a misspelt one is an error."""

    def __init__(self, file: Path, label: str, data: Mapping[str, Any]) -> None:
        self._file, self._label, self._left = file, label, dict(data)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = _REQUIRED) -> Any:
        if key not in self._left:
            if default is _REQUIRED:
                raise CourseError(f"{self._file}: {self._label}{key} is missing; add it.")
            return default
        value = self._left.pop(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            kinds = kind if isinstance(kind, tuple) else (kind,)
            words = " or ".join(k.__name__ for k in kinds)
            raise CourseError(f"{self._file}: {self._label}{key} must be {words}, but is {type(value).__name__}.")
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        values = self.take(key, list, [])
        if not all(isinstance(value, str) and value for value in values):
            raise CourseError(f"{self._file}: {self._label}{key} must be a list of non-empty strings.")
        return tuple(values)

    def finish(self) -> None:
        if self._left:
            unknown = ", ".join(sorted(self._left))
            raise CourseError(f"{self._file}: {self._label}unknown key {unknown}; remove it or mend the spelling.")
