"""A student's file cut into pieces: each function or class by its name, and what stands between them.

Nothing is imported or run. A file that Python cannot parse is cut by its lines, so that a slip never costs work.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

END = ""
"""The key of what stands behind the last function."""

_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_OPENS = re.compile(r"(?:async\s+def|def|class)\s+(\w+)")
_RAISES = re.compile(r"^\s*raise\s+NotImplementedError\b", re.MULTILINE)


@dataclass(frozen=True)
class Piece:
    """One function or class of a file, with its text, the text in front of it, and its line."""

    name: str
    text: str
    before: str
    line: int


def cut(source: str) -> list[Piece]:
    """Cut a module into its functions and classes, in order; the last piece, named END, has only what is in front.

    The pieces joined, `before` then `text`, are the source.
    """
    lines = source.splitlines(keepends=True)
    pieces: list[Piece] = []
    done = 0
    for name, first, last in _spans(source, lines):
        pieces.append(Piece(name, "".join(lines[first:last]), "".join(lines[done:first]), first + 1))
        done = last
    return [*pieces, Piece(END, "", "".join(lines[done:]), done + 1)]


def join(pieces: list[Piece]) -> str:
    """Put a file together again."""
    return "".join(piece.before + piece.text for piece in pieces)


def _spans(source: str, lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """Give name, first line and the line behind the last of each function or class at the top level, from 0."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield from _spans_by_lines(lines)
        return
    for node in body:
        if isinstance(node, _DEFINITION):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield node.name, first - 1, node.end_lineno or node.lineno


def _spans_by_lines(lines: list[str]) -> Iterator[tuple[str, int, int]]:
    """The same for a file with a syntax error: a function goes on while lines are indented, blank or closing."""
    at = 0
    while at < len(lines):
        first = at
        while at < len(lines) and lines[at].startswith("@"):
            at += 1
        opens = _OPENS.match(lines[at]) if at < len(lines) else None
        at += 1
        if opens is None:
            continue
        last = at
        while at < len(lines) and (not lines[at].strip() or lines[at][0] in " \t)]}\"'"):
            at += 1
            last = at if lines[at - 1].strip() else last
        yield opens[1], first, last


def by_name(pieces: list[Piece]) -> dict[str, Piece]:
    """Give the pieces by name; of two of one name the later counts, as in Python."""
    return {piece.name: piece for piece in pieces if piece.name != END}


def rest_of(pieces: Sequence[Piece]) -> str:
    """Give the code that stands outside of functions and classes: imports, constants; without comments and blanks."""
    lines = (line.rstrip() for piece in pieces for line in piece.before.splitlines())
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#"))


def is_stub(text: str) -> bool:
    """Whether a function or class still says that it is not written."""
    return _RAISES.search(text) is not None


def same_code(one: str, other: str) -> bool:
    """Whether two texts are the same code, whatever their docstrings, comments and blank lines."""
    try:
        return _bare(one) == _bare(other)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return one.strip() == other.strip()


def _bare(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, _DEFINITION) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


# -- notebooks -----------------------------------------------------------------------------------------------------


class DamagedNotebook(Exception):
    """The bytes are no notebook."""


def read_notebook(text: str) -> dict[str, Any]:
    """Give a notebook as data. Raises DamagedNotebook."""
    try:
        data = json.loads(text)
        for cell in data["cells"]:
            cell_source(cell)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DamagedNotebook from None
    return dict(data)


def write_notebook(data: Mapping[str, Any]) -> str:
    """Give a notebook's text as Jupyter writes it."""
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def cell_source(cell: Mapping[str, Any]) -> str:
    """Give a cell's text, however it is stored."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def notebook_pieces(text: str) -> list[Piece]:
    """Give the functions and classes of a notebook's code cells; `line` counts within the cell.

    Raises:
        DamagedNotebook: if it is none.
    """
    cells = read_notebook(text)["cells"]
    return [piece for cell in cells if cell.get("cell_type") == "code" for piece in cut(cell_source(cell))]
