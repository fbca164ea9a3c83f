"""Merge two versions of a chapter's file by function, so that an update never costs a student work.

Git calls it as a merge driver, `grader update` calls it where there is no common history. A function that only one
side changed is taken from that side. If both did, the one that somebody wrote wins over a stub and over a mended
docstring; between two written ones this side's wins. What stands between the functions is merged the same way:
imports and constants of both sides stay, and prose is the newer one.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from typing import Any

from grader.student.pieces import (
    Piece,
    cell_source,
    cut,
    is_stub,
    join,
    read_notebook,
    same_code,
    write_notebook,
)


def merge_modules(base: str, ours: str, theirs: str) -> str:
    """Merge two versions of a module.

    Args:
        base: what both come from.
        ours: the student's version.
        theirs: the newer release.
    """
    old = _keyed(cut(base))
    return _merge({key: piece.text for key, piece in old.items()}, old, ours, theirs)


def merge_modules_without_base(untouched: Mapping[str, str], ours: str, theirs: str) -> str:
    """Merge two versions of a module whose common origin is unknown, but for the functions that are as released."""
    return _merge(untouched, None, ours, theirs)


def _merge(texts: Mapping[str, str], old: Mapping[str, Piece] | None, ours: str, theirs: str) -> str:
    mine, new = _keyed(cut(ours)), _keyed(cut(theirs))
    pieces = []
    for key in _order(mine, new, texts):
        text = _choose(texts.get(key, ""), _text(mine, key), _text(new, key))
        pieces.append(Piece(key, text, _gap(old, mine, new, key), 0))
    return join(pieces)


def _keyed(pieces: list[Piece]) -> dict[str, Piece]:
    """Give the pieces by name, the end among them; earlier ones of a name that comes again keep a key of their own."""
    last = {piece.name: at for at, piece in enumerate(pieces)}
    return {piece.name if last[piece.name] == at else f"{piece.name} {at}": piece for at, piece in enumerate(pieces)}


def _text(pieces: Mapping[str, Piece], key: str) -> str:
    return pieces[key].text if key in pieces else ""


def _order(mine: Mapping[str, Piece], new: Mapping[str, Piece], old: Mapping[str, str]) -> list[str]:
    """Give the keys in the newer release's order; what only the student has comes after what it followed."""
    order = list(new)
    previous = ""
    for key, piece in mine.items():
        dropped = old.get(key) == piece.text  # the release gave it up, and so may we
        if key not in new and not dropped:
            order.insert(order.index(previous) + 1 if previous in order[:-1] else 0, key)
        previous = key
    return order


def _choose(base: str, ours: str, theirs: str) -> str:
    """Choose between two versions of one function; "" stands for one that is not there."""
    if not theirs or not ours:
        return ours or theirs
    if ours == theirs or theirs == base:
        return ours
    if ours == base:
        return theirs
    if base and same_code(ours, base):  # only words were changed
        return theirs
    if base and same_code(theirs, base):
        return ours
    return theirs if is_stub(ours) and not is_stub(theirs) else ours


def _gap(old: Mapping[str, Piece] | None, mine: Mapping[str, Piece], new: Mapping[str, Piece], key: str) -> str:
    """Merge what stands in front of a function."""
    if key not in mine or key not in new:
        return (new if key in new else mine)[key].before
    own, released = mine[key].before, new[key].before
    base = old[key].before if old is not None and key in old else None
    if own in (base, released):
        return released
    if released == base:
        return own
    try:
        added = _added(base, own, released)
    except SyntaxError:  # a slip of the student's: keep all of it
        return own
    return released.rstrip("\n") + "\n" + added + "\n\n" if added else released


def _added(base: str | None, own: str, released: str) -> str:
    """Give the student's own statements and comments: what is neither in the base nor in the release."""
    known = _statements(base or "") | _statements(released)
    # where nothing is known of the base, a constant of an older release must not win over the new one
    given = set() if base is not None else {name for node in ast.parse(released).body for name in _targets(node)}
    nodes = [node for node in ast.parse(own).body if ast.unparse(node) not in known and not (_targets(node) & given)]
    written = {*(base or own).splitlines(), *released.splitlines()}
    comments = [line for line in own.splitlines() if line.startswith("#") and line not in written]
    return "".join(f"{line}\n" for line in [*comments, *(ast.get_source_segment(own, node) or "" for node in nodes)])


def _statements(text: str) -> set[str]:
    return {ast.unparse(node) for node in ast.parse(text).body}


def _targets(node: ast.stmt) -> set[str]:
    if not isinstance(node, (ast.Assign, ast.AnnAssign)):
        return set()
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


# -- notebooks -----------------------------------------------------------------------------------------------------


def merge_notebooks(base: str, ours: str, theirs: str) -> str:
    """Merge two versions of a notebook cell by cell; a code cell is known by its function, another by its id.

    Raises:
        DamagedNotebook: if one of them is none.
    """
    return merge_notebooks_without_base(
        {key: cell_source(cell) for key, cell in _cells(read_notebook(base)).items()}, ours, theirs
    )


def merge_notebooks_without_base(untouched: Mapping[str, str], ours: str, theirs: str) -> str:
    """The same where of the common origin only some cells are known, by their keys."""
    mine, result = _cells(read_notebook(ours)), copy.deepcopy(read_notebook(theirs))
    new = _cells(result)
    cells = [_cell(untouched.get(key, ""), mine.get(key), cell) for key, cell in new.items()]
    keys, previous = list(new), ""
    for key, cell in mine.items():
        dropped = untouched.get(key) == cell_source(cell)
        if key not in new and not dropped:
            at = keys.index(previous) + 1 if previous in keys else 0
            keys.insert(at, key)
            cells.insert(at, cell)
        previous = key
    result["cells"] = cells
    return write_notebook(result)


def cell_key(name: str) -> str:
    """Give the key of the cell that holds a function."""
    return f"function {name}"


def _cells(notebook: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for at, cell in enumerate(notebook["cells"]):
        names = [p.name for p in cut(cell_source(cell)) if p.name] if cell.get("cell_type") == "code" else []
        key = cell_key(names[0]) if names else str(cell.get("id", f"number {at}"))
        found[key if key not in found else f"{key} {at}"] = cell
    return found


def _cell(base: str, mine: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    if mine is None:
        return new
    own, released = cell_source(mine), cell_source(new)
    if new.get("cell_type") == "code":
        chosen = _choose(base, own, released)
    else:
        chosen = own if base and released == base else released
    # what a cell gave when it was run stays with it as long as its text does
    return mine if chosen == own else new
