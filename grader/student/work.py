"""The student's work in a chapter: which file counts, and what has been begun in it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from grader.course import Chapter, CourseError, Exercise
from grader.student.pieces import DamagedNotebook, Piece, by_name, cut, is_stub, notebook_pieces, rest_of

_WORD = re.compile(r"[A-Za-z_]\w*")
ASK = (
    "; they are two copies of one answer, and only one can count. Put one back (`grader reset`), or say which counts: "
)


@dataclass(frozen=True)
class Work:
    """One chapter's file as it is now."""

    chapter: Chapter
    file: Path
    pieces: Mapping[str, Piece]
    rest: str
    """The code outside of functions: imports and constants."""
    stubs: Mapping[str, str] = field(default_factory=dict)
    """The functions that are not written in the chapter's other file, by name: what this file's looked like."""

    @property
    def is_notebook(self) -> bool:
        return self.file.suffix == ".ipynb"

    def is_begun(self, exercise: Exercise) -> bool:
        """Whether a function of the exercise is there and no longer as it came."""
        own = [self.pieces[name] for name in exercise.functions if name in self.pieces]
        return any(not is_stub(piece.text) or self.stubs.get(piece.name, piece.text) != piece.text for piece in own)

    @property
    def is_written(self) -> bool:
        """Whether any exercise has a function that is no stub."""
        names = [name for exercise in self.chapter.exercises for name in exercise.functions]
        return any(name in self.pieces and not is_stub(self.pieces[name].text) for name in names)

    def text(self, exercise: Exercise) -> str:
        """Give the text of the exercise's functions."""
        return "".join(self.pieces[name].text for name in exercise.functions if name in self.pieces)

    def line(self, exercise: Exercise) -> int:
        """Give the line of the first function that is still a stub, else of the first; 0 in a notebook."""
        present = [self.pieces[name] for name in exercise.functions if name in self.pieces]
        first = next((piece for piece in present if is_stub(piece.text)), present[0] if present else None)
        return 0 if self.is_notebook or first is None else first.line

    def place(self, exercise: Exercise) -> str:
        """Say where an exercise stands, as an editor or a terminal can open it."""
        line = self.line(exercise)
        where = short(self.file)
        return f"{where}:{line}" if line else f"{where}, cell {exercise.functions[0]}"

    def fingerprint(self, exercise: Exercise) -> str:
        """Name all that the verdict of an exercise depends on: its functions, what they use, the rest, the tests."""
        digest = hashlib.sha256()
        texts = [self.pieces[name].text for name in sorted(self._used_by(exercise))]
        for text in (self.rest, *texts, *(read_text(file) for file in _conditions(self.chapter))):
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()

    def _used_by(self, exercise: Exercise) -> set[str]:
        """Give the names of the exercise's functions and of all that their texts mention, directly or not."""
        found: set[str] = set()
        left = [*exercise.functions, *(name for need in exercise.needs for name in self._functions(need))]
        while left:
            name = left.pop()
            if name in self.pieces and name not in found:
                found.add(name)
                left += [word for word in set(_WORD.findall(self.pieces[name].text)) if word in self.pieces]
        return found

    def _functions(self, exercise: str) -> tuple[str, ...]:
        return self.chapter.exercise(exercise).functions


def _conditions(chapter: Chapter) -> list[Path]:
    return [file for file in (chapter.public_tests, chapter.folder / "chapter.toml") if file.is_file()]


def read_work(chapter: Chapter, prefer: str = "") -> Work:
    """Give the student's work in a chapter.

    Args:
        chapter: the chapter.
        prefer: "module" or "notebook" to say which file counts, "" to find out: the one that was begun.

    Raises:
        CourseError: if no file is there, it cannot be read, or both were begun.
    """
    works = {kind: _read(chapter, file) for kind, file in files(chapter).items() if file.is_file()}
    if not works:
        raise CourseError(f"{short(chapter.stub)} is not there; put it back with `git checkout {short(chapter.stub)}`.")
    if len(works) == 2:
        one, other = works.values()
        works = dict(zip(works, (_with_stubs(one, other), _with_stubs(other, one)), strict=True))
    if prefer and prefer not in works:
        raise CourseError(f"{chapter.name} has no {prefer}; leave --from away.")
    return works[prefer] if prefer else _which(works)


def read_any(chapter: Chapter) -> tuple[Work, str]:
    """Give the work in a chapter even where it is in doubt which file counts, then the newer, and the doubt in words.

    Raises:
        CourseError: if no file can be read.
    """
    try:
        return read_work(chapter), ""
    except CourseError as error:
        present = [kind for kind, file in files(chapter).items() if file.is_file()]
        for kind in sorted(present, key=lambda kind: -files(chapter)[kind].stat().st_mtime):
            with contextlib.suppress(CourseError):
                return _read(chapter, files(chapter)[kind]), str(error)
        raise


def _with_stubs(work: Work, other: Work) -> Work:
    # white space at the end of a cell is no difference
    texts = {name: piece.text.strip() + "\n" for name, piece in work.pieces.items()}
    pieces = {name: replace(piece, text=texts[name]) for name, piece in work.pieces.items()}
    stubs = {name: piece.text.strip() + "\n" for name, piece in other.pieces.items() if is_stub(piece.text)}
    return replace(work, pieces=pieces, stubs=stubs)


def _which(works: Mapping[str, Work]) -> Work:
    """Give the work that counts: the one that was begun, and of two that were merely touched the newer."""
    written = [work for work in works.values() if work.is_written]
    if len(written) > 1 and not _agree(*written):
        both = " and ".join(short(work.file) for work in written)
        raise CourseError(f"{both} were both changed{ASK}--from module, or --from notebook.")
    if written:
        return written[0]
    touched = [work for work in works.values() if any(work.is_begun(e) for e in work.chapter.exercises)]
    return max(touched or [next(iter(works.values()))], key=lambda work: work.file.stat().st_mtime)


def files(chapter: Chapter) -> dict[str, Path]:
    """Give the files in which a student may work."""
    return {"module": chapter.stub, "notebook": chapter.notebook}


def _agree(one: Work, other: Work) -> bool:
    """Whether both files hold the same functions, as when one was copied into the other."""
    names = {name for exercise in one.chapter.exercises for name in exercise.functions} & one.pieces.keys()
    return all(name in other.pieces and one.pieces[name].text == other.pieces[name].text for name in names)


def _read(chapter: Chapter, file: Path) -> Work:
    text = read_text(file)
    try:
        pieces = notebook_pieces(text) if file.suffix == ".ipynb" else cut(text)
    except DamagedNotebook:
        raise CourseError(f"{short(file)} is damaged: it is no notebook; save it again in Jupyter.") from None
    return Work(chapter, file, by_name(pieces), rest_of(pieces))


def read_text(file: Path) -> str:
    """Read a student's file. Raises CourseError where that cannot be done."""
    try:
        return file.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise CourseError(f"{short(file)} is not UTF-8 text; save it as UTF-8 in your editor.") from None
    except OSError as error:
        raise CourseError(f"{short(file)} cannot be read ({error.strerror}); see its permissions.") from None


def short(file: Path) -> str:
    """Write a path as it is reached from here, if that is shorter."""
    try:
        near = os.path.relpath(file)
    except ValueError:  # another drive
        return str(file)
    return near if len(near) < len(str(file)) else str(file)
