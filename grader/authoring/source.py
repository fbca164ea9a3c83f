"""The one source of a chapter: read with jupytext and held to the rules on which the build relies."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import jupytext  # type: ignore[import-untyped]

from grader.course import Chapter, CourseError

Node = Any
"""A notebook or a cell of nbformat, which has no types."""

PERCENT = {"extension": ".py", "format_name": "percent", "comment_magics": False}
"""Magics stay comments: jupytext would make a command of a comment line such as `# cat of the heads`."""

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
GRADE_ID = re.compile(r"[A-Za-z0-9_]{1,50}")
"""What nbgrader takes as an id, short enough for the id of a notebook's cell."""

_MARKER = re.compile(r"(begin|end)\W{0,3}solution", re.IGNORECASE)
_DEFINITION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def read_source(chapter: Chapter) -> Node:
    """Read a chapter's source as a notebook in which the cells that students write carry nbgrader's metadata.

    Raises:
        CourseError: one sentence that names the file, the cell and what to mend.
    """
    file = chapter.source
    try:
        notebook = jupytext.reads(file.read_text(encoding="utf-8"), fmt=PERCENT)
    except FileNotFoundError:
        raise CourseError(f"{file} is missing; write the chapter's source there.") from None
    except UnicodeDecodeError as error:
        raise CourseError(f"{file} is not UTF-8 text: {error}.") from None
    wanted = {function for exercise in chapter.exercises for function in exercise.functions}
    found: list[str] = []
    for cell in notebook.cells:
        _check_metadata(file, cell)
        _check_markers(file, cell)
        name = _exercise_function(file, cell, wanted)
        if name:
            found.append(name)
            cell.metadata["nbgrader"] = solution_metadata(name)
    _check_found(chapter, found)
    return notebook


def solution_metadata(function: str) -> dict[str, Any]:
    """Give nbgrader's metadata, version 3 of its schema, for a cell whose answer the check cells grade."""
    return {
        "grade": False,
        "grade_id": function,
        "locked": False,
        "schema_version": 3,
        "solution": True,
        "task": False,
    }


def function_of(cell: Node) -> str:
    """Give the name of the exercise's function or class that the cell defines, or ""."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def definitions(file: Path, cell: Node) -> list[str]:
    """Give the names of the functions and classes that a code cell defines at its top level."""
    try:
        tree = ast.parse(cell.source)
    except SyntaxError as error:
        raise CourseError(f"{where(file, cell)} is not valid Python: {error.msg}, line {error.lineno}.") from None
    return [node.name for node in tree.body if isinstance(node, _DEFINITION)]


def where(file: Path, cell: Node) -> str:
    """Name a cell by its first line, for a sentence."""
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"{file}: the cell that begins {first.strip()[:60]!r}"


def _check_metadata(file: Path, cell: Node) -> None:
    unknown = sorted(key for key in cell.metadata if key != "lines_to_next_cell")
    if unknown:
        keys = ", ".join(unknown)
        raise CourseError(f"{where(file, cell)} has words after its `# %%` ({keys}); write `# %%` alone.")


def _check_markers(file: Path, cell: Node) -> None:
    """Nothing between the markers may reach a student, so a marker that nbgrader would overlook is an error."""
    inside = False
    for line in filter(_MARKER.search, cell.source.splitlines()):
        expected = END if inside else BEGIN
        if line.strip() != expected:
            raise CourseError(
                f"{where(file, cell)} has {line.strip()!r} where {expected!r} is expected; mend the pair."
            )
        inside = not inside
    if inside:
        raise CourseError(f"{where(file, cell)} has {BEGIN!r} without {END!r}; close the solution in the same cell.")


def _exercise_function(file: Path, cell: Node, wanted: set[str]) -> str:
    """Give the name of the exercise's function that the cell defines, or "" if the cell is given as it is."""
    has_solution = BEGIN in cell.source
    names = definitions(file, cell) if cell.cell_type == "code" else []
    mine = [name for name in names if name in wanted]
    if len(names) > 1 and (mine or has_solution):
        raise CourseError(f"{where(file, cell)} defines {', '.join(names)}; give each a cell of its own.")
    if has_solution and not mine:
        what = f"{names[0]!r}" if names else "its function"
        raise CourseError(f"{where(file, cell)} has a solution but no exercise; name {what} in chapter.toml.")
    if mine and not has_solution:
        raise CourseError(f"{where(file, cell)} has no solution; put {BEGIN!r} and {END!r} around the answer.")
    return mine[0] if mine else ""


def _check_found(chapter: Chapter, found: list[str]) -> None:
    for exercise in chapter.exercises:
        for function in exercise.functions:
            if found.count(function) != 1:
                cells = "no cell" if function not in found else "more than one cell"
                toml = chapter.folder / "chapter.toml"
                raise CourseError(f"{chapter.source}: {cells} defines {function!r}, a function of {toml}; mend either.")
    checks = [f"check_{exercise.name}" for exercise in chapter.exercises]
    for name in [*found, *checks]:
        if not GRADE_ID.fullmatch(name) or (name in found and name in checks):
            raise CourseError(
                f"{chapter.source}: {name!r} cannot be an id in a notebook; use another name of a-z, 0-9, _."
            )
