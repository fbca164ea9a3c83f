"""`grader update`: take over a newer release without common history, and keep all that the student wrote.

Exercises are merged by function. Without a version that both come from, a function of the student's counts as
untouched if it is the new stub but for its words, or if its text is one that was ever released.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grader.course import Course, CourseError
from grader.student.drawer import Drawer
from grader.student.merge import cell_key, merge_modules_without_base, merge_notebooks_without_base
from grader.student.paper import Paper
from grader.student.pieces import (
    DamagedNotebook,
    Piece,
    by_name,
    cell_source,
    cut,
    is_stub,
    notebook_pieces,
    read_notebook,
    same_code,
)
from grader.student.source import read_source
from grader.student.work import short

EXERCISES = ("exercises.py", "exercises.ipynb")
STUBS = "stubs.json"
"""Beside the exercises: the digests of all versions of each stub that were ever released."""


@dataclass(frozen=True)
class Change:
    """What an update does to one file."""

    name: str
    kind: str
    """"new", "replaced", "merged" or "left": the last where it cannot be merged."""
    data: bytes = b""
    kept: tuple[str, ...] = ()
    """The functions that stay the student's."""
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        return {"file": self.name, "kind": self.kind, "kept": list(self.kept), "why": self.why}


def plan(course: Course, source: Path) -> list[Change]:
    """Say what an update would do, without doing it. Raises CourseError if `source` is no release."""
    if source.resolve() == course.root.resolve():
        raise CourseError("that is this course itself; give the folder or the zip file of a newer one.")
    files = read_source(source)
    released = {name: _digests(data) for name, data in files.items() if name.endswith(f"/{STUBS}")}
    return [change for name, data in sorted(files.items()) if (change := _change(course.root, name, data, released))]


def apply(course: Course, changes: list[Change], drawer: Drawer) -> Path | None:
    """Do it. What is replaced is copied first; gives the folder of the copies, if there are any.

    Raises:
        CourseError: if a file cannot be written; what was replaced until then lies in the copies.
    """
    doing = [change for change in changes if change.kind != "left"]
    old = {change.name: course.root / change.name for change in doing if (course.root / change.name).is_file()}
    copies = drawer.keep_all({name: file.read_bytes() for name, file in old.items()})
    for change in doing:
        file = course.root / change.name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(change.data)
        except OSError as error:
            where = f"; the old files are in {copies}" if copies else ""
            raise CourseError(f"{file} cannot be written ({error.strerror}){where}.") from None
    return copies


def _change(root: Path, name: str, data: bytes, released: Mapping[str, Mapping[str, set[str]]]) -> Change | None:
    file = root / name
    if not file.is_file():
        return Change(name, "new", data)
    old = file.read_bytes()
    if old.replace(b"\r\n", b"\n") == data.replace(b"\r\n", b"\n"):
        return None
    folder, _, last = name.rpartition("/")
    if last not in EXERCISES or not folder.startswith("chapters/") or folder.count("/") != 1:
        return Change(name, "replaced", data)
    return _merged(name, old, data, released.get(f"{folder}/{STUBS}", {}))


def _merged(name: str, old: bytes, data: bytes, released: Mapping[str, set[str]]) -> Change | None:
    try:
        mine, new = (text.decode("utf-8-sig").replace("\r\n", "\n") for text in (old, data))
        merge = _merge_notebook if name.endswith(".ipynb") else _merge_module
        merged, kept = merge(mine, new, released)
    except UnicodeDecodeError:
        return Change(name, "left", why="it is not UTF-8 text; save it as UTF-8 and update again")
    except DamagedNotebook:
        return Change(name, "left", why="it is a damaged notebook; save it again in Jupyter and update again")
    if merged == mine:
        return None
    ends = "\r\n" if b"\r\n" in old else "\n"
    return Change(name, "merged", merged.replace("\n", ends).encode(), kept)


def _merge_module(mine: str, new: str, released: Mapping[str, set[str]]) -> tuple[str, tuple[str, ...]]:
    pieces, fresh = cut(mine), by_name(cut(new))
    untouched = [piece for piece in pieces if _is_untouched(piece, fresh, released)]
    kept = tuple(p.name for p in pieces if p.name in fresh and p not in untouched and p.text != fresh[p.name].text)
    return merge_modules_without_base({piece.name: piece.text for piece in untouched}, mine, new), kept


def _merge_notebook(mine: str, new: str, released: Mapping[str, set[str]]) -> tuple[str, tuple[str, ...]]:
    own, fresh = by_name(notebook_pieces(mine)), by_name(notebook_pieces(new))
    untouched = {name for name, piece in own.items() if _is_untouched(piece, fresh, released)}
    cells = {cell_key(n): cell_source(c) for c in read_notebook(mine)["cells"] for n in _names(c) if n in untouched}
    kept = tuple(n for n, p in own.items() if n in fresh and n not in untouched and p.text != fresh[n].text)
    return merge_notebooks_without_base(cells, mine, new), kept


def _names(cell: Mapping[str, Any]) -> set[str]:
    return {p.name for p in cut(cell_source(cell)) if p.name} if cell.get("cell_type") == "code" else set()


def _is_untouched(piece: Piece, fresh: Mapping[str, Piece], released: Mapping[str, set[str]]) -> bool:
    """Whether a function is as it was released: the new stub but for words, or a stub of an older release."""
    if not is_stub(piece.text):
        return False
    new = fresh.get(piece.name)
    same = new is not None and is_stub(new.text) and same_code(piece.text, new.text)
    return same or digest(piece.text) in released.get(piece.name, set())


def show_changes(paper: Paper, changes: Sequence[Change], copies: Path | None, dry: bool) -> None:
    """Say what an update did, or would do."""
    if not changes:
        paper.line("Nothing is newer there.")
        return
    for change in changes:
        if change.kind == "left":
            paper.line(f"{change.name} is left as it is: {change.why}.", "red")
        elif change.kind == "merged":
            kept = f"; yours stay: {', '.join(change.kept)}" if change.kept else ""
            paper.line(f"{change.name} {'would be' if dry else 'is'} merged{kept}.")
    others = [change for change in changes if change.kind in ("new", "replaced")]
    if others:
        paper.line(f"{len(others)} other files {'would come' if dry else 'came'} from there.")
    if copies is not None:
        paper.line(f"The old files are in {short(copies)}.", "dim")


# -- what was released ---------------------------------------------------------------------------------------------


def digest(text: str) -> str:
    """Name the text of a stub."""
    return hashlib.sha256(text.strip().replace("\r\n", "\n").encode()).hexdigest()[:16]


def remember_stubs(folder: Path) -> bool:
    """Add the stubs of a chapter's exercises.py to the digests of what was released; whether there were new ones.

    Whoever makes a release calls it for each chapter.
    """
    file = folder / STUBS
    known = {
        name: sorted(digests) for name, digests in _digests(file.read_bytes() if file.is_file() else b"{}").items()
    }
    before = json.dumps(known)
    for piece in cut((folder / EXERCISES[0]).read_text(encoding="utf-8")):
        if piece.name and is_stub(piece.text) and digest(piece.text) not in known.setdefault(piece.name, []):
            known[piece.name] = sorted([*known[piece.name], digest(piece.text)])
    if json.dumps(known) == before:
        return False
    file.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return True


def _digests(data: bytes) -> dict[str, set[str]]:
    try:
        return {str(name): set(digests) for name, digests in json.loads(data).items()}
    except (ValueError, TypeError, AttributeError):  # then the other rule decides
        return {}
