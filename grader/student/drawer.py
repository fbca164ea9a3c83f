"""The desk's drawer, `.grader/` in the course's folder: verdicts, hints taken, copies of what was replaced.

It is the student's own: nothing in it is ever handed in or graded, and all of it may be deleted.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grader.course import Course, CourseError

FOLDER = ".grader"
FORMAT_VERSION = 1


@dataclass
class Drawer:
    """What the desk remembers. Read it, change it, `save` it."""

    folder: Path
    verdicts: dict[str, Any] = field(default_factory=dict)
    """By chapter: the fingerprint of the file that was checked, and what came out."""
    hints: dict[str, Any] = field(default_factory=dict)
    """By exercise: how many hints were given, when, and to which text."""
    quizzes: dict[str, Any] = field(default_factory=dict)
    """By chapter: how many questions were answered rightly, and when."""

    def save(self) -> None:
        """Write everything at once; a reader never sees half a file. Raises CourseError if that is impossible."""
        data = {
            "format_version": FORMAT_VERSION,
            "verdicts": self.verdicts,
            "hints": self.hints,
            "quizzes": self.quizzes,
        }
        file = self.folder / "desk.json"
        try:
            _make(self.folder)
            fresh = file.with_name(f"desk.{os.getpid()}.tmp")
            fresh.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
            fresh.replace(file)
        except OSError as error:
            raise CourseError(f"{file} cannot be written ({error.strerror}); run `grader doctor`.") from None

    def keep(self, name: str, data: bytes) -> Path:
        """Keep a copy of a file that is about to be replaced, and say where."""
        folder = self.keep_all({name: data})
        assert folder is not None
        return folder / name

    def keep_all(self, files: Mapping[str, bytes]) -> Path | None:
        """Keep copies of files in a folder of their own, and say where. Raises CourseError if that is impossible."""
        if not files:
            return None
        folder = self._fresh_folder()
        try:
            _make(self.folder)
            for name, data in files.items():
                place = folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
        except OSError as error:
            raise CourseError(f"{folder} cannot be written ({error.strerror}), so nothing was changed.") from None
        return folder

    def _fresh_folder(self) -> Path:
        stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
        names = (stamp if at == 1 else f"{stamp}_{at}" for at in itertools.count(1))
        return next(folder for name in names if not (folder := self.folder / "kept" / name).exists())


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def open_drawer(course: Course) -> Drawer:
    """Give what the desk remembers; a damaged or missing file is an empty one."""
    folder = course.root / FOLDER
    try:
        data = json.loads((folder / "desk.json").read_text(encoding="utf-8"))
        if data["format_version"] != FORMAT_VERSION:
            return Drawer(folder)
        return Drawer(folder, *(dict(data[key]) for key in ("verdicts", "hints", "quizzes")))
    except (OSError, ValueError, KeyError, TypeError):
        return Drawer(folder)
