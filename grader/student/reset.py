"""Put the stub of one exercise back, and keep what it replaces."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.course import CourseError, Exercise
from grader.student.drawer import Drawer
from grader.student.pieces import (
    DamagedNotebook,
    by_name,
    cell_source,
    cut,
    is_stub,
    join,
    notebook_pieces,
    read_notebook,
    write_notebook,
)
from grader.student.work import Work, read_text, short

MAX_COMMITS = 200
"""How far back a stub is looked for in the history of the student's repository."""


@dataclass(frozen=True)
class Reset:
    """What was put back, and where the copy of the old file lies."""

    exercise: Exercise
    functions: tuple[str, ...]
    file: Path
    copy: Path

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        shown = {"id": self.exercise.id, "functions": list(self.functions)}
        return {**shown, "file": short(self.file), "copy": short(self.copy)}


def reset(work: Work, exercise: Exercise, drawer: Drawer) -> Reset | None:
    """Put back the stubs of an exercise's functions; the rest of the file stays as it is.

    Returns:
        What was done, or None if every function is as it came.

    Raises:
        CourseError: if no stub can be found, or the file cannot be written. Nothing is changed then.
    """
    stubs = {name: _stub(work, name) for name in exercise.functions}
    present = {name: piece.text.strip() for name, piece in work.pieces.items()}
    changed = tuple(name for name, text in stubs.items() if present.get(name) != text.strip())
    if not changed:
        return None
    fresh = (_in_notebook if work.is_notebook else _in_module)(work, {name: stubs[name] for name in changed})
    copy = drawer.keep(f"{work.chapter.name}/{work.file.name}", work.file.read_bytes())
    try:
        work.file.write_text(fresh, encoding="utf-8", newline="\n")
    except OSError as error:
        raise CourseError(f"{short(work.file)} cannot be written ({error.strerror}); see its permissions.") from None
    return Reset(exercise, changed, work.file, copy)


def _in_module(work: Work, stubs: dict[str, str]) -> str:
    pieces = cut(read_text(work.file))
    names = by_name(pieces)
    fresh = join(
        [
            piece if piece.name not in stubs else type(piece)(piece.name, stubs[piece.name], piece.before, piece.line)
            for piece in pieces
        ]
    )
    missing = [text for name, text in stubs.items() if name not in names]  # a function that was deleted
    return fresh.rstrip("\n") + "\n" + "".join(f"\n\n# %%\n{text.rstrip()}\n" for text in missing)


def _in_notebook(work: Work, stubs: dict[str, str]) -> str:
    data = read_notebook(read_text(work.file))
    left = dict(stubs)
    for cell in data["cells"]:
        pieces = cut(cell_source(cell)) if cell.get("cell_type") == "code" else []
        own = {piece.name for piece in pieces} & left.keys()
        if own:
            parts = [
                piece.before + (left[piece.name].rstrip() if piece.name in own else piece.text) for piece in pieces
            ]
            cell["source"] = "".join(parts)
            left = {name: text for name, text in left.items() if name not in own}
    if left:
        cell_words = "a cell with its stub" if len(left) == 1 else "cells with their stubs"
        raise CourseError(
            f"{short(work.file)} has no {' or '.join(left)} any more; add {cell_words} from exercises.py."
        )
    return write_notebook(data)


def _stub(work: Work, name: str) -> str:
    """Find the stub of a function: in this file, in the chapter's other file, or in the repository's history."""
    stub = work.stubs.get(name) or _from_history(work, name)
    if stub is None and name in work.pieces and is_stub(work.pieces[name].text):
        stub = work.pieces[name].text
    if stub is None:
        raise CourseError(
            f"the stub of {name} is neither in the chapter's other file nor in the history of this repository; "
            f"copy it from a fresh download of the course."
        )
    return stub.rstrip() + "\n"


def _from_history(work: Work, name: str) -> str | None:
    for file in (work.chapter.stub, work.chapter.notebook):
        commits = (_git(file, "log", f"--max-count={MAX_COMMITS}", "--format=%H", "--", file.name) or "").split()
        for commit in commits:
            text = _git(file, "show", f"{commit}:./{file.name}")
            found = _pieces(file, text or "").get(name)
            if found is not None and is_stub(found):
                return found
    return None


def _pieces(file: Path, text: str) -> dict[str, str]:
    try:
        pieces = notebook_pieces(text) if file.suffix == ".ipynb" else cut(text)
    except DamagedNotebook:
        return {}
    return {piece.name: piece.text for piece in pieces}


def _git(file: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=file.parent, capture_output=True, check=False)
    except OSError:  # no git, no folder
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None
