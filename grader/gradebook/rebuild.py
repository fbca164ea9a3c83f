"""A submitted notebook rebuilt from the released one: only what the student wrote in their own cells is taken over.

So cells that were edited, deleted, copied, moved or retyped, changed points, foreign metadata and huge outputs change
nothing, and cannot end nbgrader's run for the others. What was mended is said in one line each.
"""

from __future__ import annotations

import copy
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Cell = dict[str, Any]
Notebook = dict[str, Any]

MAX_BYTES = 64 << 20
MAX_CONTAINERS = 1_000_000
MAX_SOURCE = 1 << 20
"""Characters of one cell that are taken over."""
MAX_EXTRA = 500
"""Cells of the student's own that are taken over."""


class Unreadable(Exception):
    """A sentence for the student: why the notebook cannot be read, and what to do."""


@dataclass(frozen=True)
class Rebuilt:
    """The notebook to grade, and what had to be mended."""

    notebook: Notebook
    notes: tuple[str, ...]

    def hand_in(self) -> bytes:
        """Give the code alone, as a notebook for the sandbox: the same bytes whatever else the notebook holds."""
        code = [
            {"cell_type": "code", "source": cell["source"]}
            for cell in self.notebook["cells"]
            if cell["cell_type"] == "code" and not cell["metadata"].get("nbgrader", {}).get("grade")
        ]
        return json.dumps({"cells": code}).encode()


def read_submitted(file: Path) -> Notebook:
    """Read a notebook that a student wrote, with limits and without following a link. Raises Unreadable."""
    again = "hand in the notebook again, as Jupyter saves it"
    try:
        fd = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        raise Unreadable(f"{file.name} is no plain file; {again}.") from None
    with open(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Unreadable(f"{file.name} is no plain file; {again}.")
        data = opened.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise Unreadable(f"{file.name} is larger than {MAX_BYTES >> 20} MiB; clear its outputs and hand it in again.")
    if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
        raise Unreadable(f"{file.name} has more parts than a notebook has; {again}.")
    try:
        notebook = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise Unreadable(f"{file.name} is damaged: it is not valid notebook JSON; {again}.") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Unreadable(f"{file.name} is no notebook with cells; {again}.")
    return notebook


def rebuild(released: Notebook, submitted: Notebook) -> Rebuilt:
    """Put the student's answers into the released notebook, and the student's own cells where they stood."""
    notes: list[str] = []
    cells = [cell for cell in submitted["cells"] if isinstance(cell, dict)]
    known = {_id(cell): cell for cell in released["cells"] if _id(cell)}
    answers = _answers(cells, known, notes)
    extras = _extras(cells, known, notes)
    notes += _damage(cells, known)
    rebuilt = copy.deepcopy(released)
    rebuilt["cells"] = []
    for number, cell in enumerate(extras.get("", ())):
        rebuilt["cells"].append(_own_cell(cell, f"own-{number}"))
    for cell in copy.deepcopy(released["cells"]):
        name = _id(cell)
        if name in answers:
            cell["source"] = answers[name]
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
        rebuilt["cells"].append(cell)
        own = extras.get(name, ()) if name else ()
        rebuilt["cells"] += [_own_cell(extra, f"own-{name}-{number}") for number, extra in enumerate(own)]
    return Rebuilt(rebuilt, tuple(dict.fromkeys(notes)))


def _id(cell: Cell) -> str:
    metadata = cell.get("metadata")
    graded = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    name = graded.get("grade_id") if isinstance(graded, dict) else None
    return name if isinstance(name, str) else ""


def _is_answer(cell: Cell) -> bool:
    return bool(cell["metadata"]["nbgrader"].get("solution"))


def _source(cell: Cell) -> str:
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    return source[:MAX_SOURCE] if isinstance(source, str) else ""


def _answers(cells: list[Cell], known: dict[str, Cell], notes: list[str]) -> dict[str, str]:
    """Give what the student wrote in each cell that is theirs to write; of copies the last that was changed."""
    answers: dict[str, str] = {}
    for name, cell in known.items():
        if _is_answer(cell):
            given = [_source(other) for other in cells if _id(other) == name]
            changed = [source for source in given if source.strip() != _source(cell).strip()]
            if not given:
                given = [_source(other) for other in cells if not _id(other) and _defines(_source(other), name)]
                changed = given
                notes.append(f"the cell {name} had lost its mark" if given else f"the cell {name} was missing")
            if len(given) > 1:
                notes.append(f"the cell {name} was there {len(given)} times; the last that was changed counts")
            if changed:
                answers[name] = changed[-1]
    return answers


def _defines(source: str, name: str) -> bool:
    return any(line.startswith((f"def {name}(", f"class {name}(", f"class {name}:")) for line in source.splitlines())


def _extras(cells: list[Cell], known: dict[str, Cell], notes: list[str]) -> dict[str, list[str]]:
    """Give the student's own code cells by the known cell after which they stood."""
    released = {_source(cell).strip() for cell in known.values()}
    extras: dict[str, list[str]] = {}
    after, count = "", 0
    for cell in cells:
        name, source = _id(cell), _source(cell)
        if name in known:
            after = name
        elif cell.get("cell_type") == "code" and source.strip() and source.strip() not in released:
            if any(_is_answer(k) and _defines(source, n) for n, k in known.items()):
                continue  # taken as the answer itself
            count += 1
            if count <= MAX_EXTRA:
                extras.setdefault(after, []).append(source)
    if count > MAX_EXTRA:
        notes.append(f"of {count} own cells the first {MAX_EXTRA} count")
    return extras


def _damage(cells: list[Cell], known: dict[str, Cell]) -> Iterator[str]:
    """Say what else was changed that is not the student's to change."""
    seen = [_id(cell) for cell in cells if _id(cell) in known]
    for name, cell in known.items():
        if not _is_answer(cell):
            given = [other for other in cells if _id(other) == name]
            if not given:
                yield f"the cell {name} was missing"
            elif len(given) > 1 or any(_source(other) != _source(cell) for other in given):
                yield f"the cell {name} was changed"
        for other in (other for other in cells if _id(other) == name):
            if other.get("cell_type") != cell["cell_type"]:
                yield f"the cell {name} had another type"
            if other["metadata"]["nbgrader"].get("points") != cell["metadata"]["nbgrader"].get("points"):
                yield f"the points of the cell {name} were changed"
    if list(dict.fromkeys(seen)) != [name for name in known if name in seen]:
        yield "the cells were moved"


def _own_cell(source: str, name: str) -> Cell:
    cell = {"cell_type": "code", "id": name[:64], "metadata": {}, "source": source}
    return {**cell, "outputs": [], "execution_count": None}
