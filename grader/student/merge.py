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
    END,
    Piece,
    by_name,
    cell_source,
    cut,
    is_stub,
    join,
    read_notebook,
    rest_of,
    same_code,
    write_notebook,
)


def merge_modules(base: str, ours: str, theirs: str) -> str:
    """Merge two versions of a module.

    Args:
        base: what both come from; where that is unknown, what is known of it.
        ours: the student's version.
        theirs: the newer release.
    """
    old, mine, new = (by_name(cut(text)) for text in (base, ours, theirs))
    order = _order(cut(ours), cut(theirs), old)
    gaps = {name: _gap(cut(base), cut(ours), cut(theirs), name) for name in [*order, END]}
    texts = {name: _choose(_text(old, name), _text(mine, name), _text(new, name)) for name in order}
    pieces = [Piece(name, texts[name], gaps[name], 0) for name in order if texts[name]]
    return join([*pieces, Piece(END, "", gaps[END], 0)])


def _text(pieces: Mapping[str, Piece], name: str) -> str:
    return pieces[name].text if name in pieces else ""


def _order(ours: list[Piece], theirs: list[Piece], old: Mapping[str, Piece]) -> list[str]:
    """Give the names in the newer release's order; what only the student has comes after what it followed."""
    order = [piece.name for piece in theirs if piece.name != END]
    previous = ""
    for piece in ours:
        if piece.name == END:
            continue
        dropped = piece.name in old and old[piece.name].text == piece.text  # the release gave it up, and so may we
        if piece.name not in order and not dropped:
            order.insert(order.index(previous) + 1 if previous in order else 0, piece.name)
        previous = piece.name
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


def _gap(base: list[Piece], ours: list[Piece], theirs: list[Piece], name: str) -> str:
    """Merge what stands in front of a function."""
    old, mine, new = (_before(pieces, name) for pieces in (base, ours, theirs))
    if new is None or mine is None:
        return (new if mine is None else mine) or ""
    if mine in (old, new) or rest_of([Piece("", "", mine, 0)]) == rest_of([Piece("", "", old or "", 0)]):
        return new
    if new == old:
        return mine
    added = _added(old, mine, new)
    return new.rstrip("\n") + "\n" + added + "\n\n" if added else new


def _before(pieces: list[Piece], name: str) -> str | None:
    return next((piece.before for piece in reversed(pieces) if piece.name == name), None)


def _added(old: str | None, mine: str, new: str) -> str:
    """Give the student's own statements: what is neither in the base nor in the release."""
    known = _statements(old or "") | _statements(new)
    names = _assigned(new) if old is None else set()
    try:
        body = ast.parse(mine).body
    except SyntaxError:
        return ""
    own = [node for node in body if ast.unparse(node) not in known and not (_targets(node) & names)]
    return "".join(f"{ast.get_source_segment(mine, node)}\n" for node in own)


def _statements(text: str) -> set[str]:
    try:
        return {ast.unparse(node) for node in ast.parse(text).body}
    except SyntaxError:
        return set()


def _assigned(text: str) -> set[str]:
    try:
        return {name for node in ast.parse(text).body for name in _targets(node)}
    except SyntaxError:
        return set()


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
    old, mine, new = (_cells(read_notebook(text)) for text in (base, ours, theirs))
    result = copy.deepcopy(read_notebook(theirs))
    result["cells"] = [_cell(old.get(key), mine.get(key), cell) for key, cell in new.items()]
    keys, previous = list(new), ""
    for key, cell in mine.items():
        dropped = key in old and cell_source(old[key]) == cell_source(cell)
        if key not in new and not dropped:
            at = keys.index(previous) + 1 if previous in keys else 0
            keys.insert(at, key)
            result["cells"].insert(at, cell)
        previous = key
    return write_notebook(result)


def _cells(notebook: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for at, cell in enumerate(notebook["cells"]):
        names = [p.name for p in cut(cell_source(cell)) if p.name] if cell.get("cell_type") == "code" else []
        key = f"function {names[0]}" if names else str(cell.get("id", f"number {at}"))
        found[key if key not in found else f"{key} {at}"] = cell
    return found


def _cell(old: Mapping[str, Any] | None, mine: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    if mine is None:
        return new
    before, own, released = (cell_source(cell) if cell is not None else "" for cell in (old, mine, new))
    if new.get("cell_type") != "code":
        return new if own == before or not before else mine if released == before else new
    chosen = _choose(before, own, released)
    # what a cell gave when it was run stays with it as long as its text does
    return mine if chosen == own else new
