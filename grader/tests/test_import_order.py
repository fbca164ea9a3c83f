"""Imports run downwards only, and the machine knows no chapter by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent
LAYERS = [
    {"course", "verdict"},
    {"sandbox"},
    {"testing"},
    {"grading", "student"},
    {"report", "authoring", "book"},
    {"gradebook"},
    {"cli"},
    {"__main__", "benchmarks", "tests"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if "course_fixture" not in file.parts]
MACHINE = [file for file in FILES if file.relative_to(PACKAGE).parts[0] not in ("tests", "benchmarks")]


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        rooms |= {name.split(".")[1] for name in names if name.startswith("grader.")}
    return rooms


@pytest.mark.parametrize("file", MACHINE, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downwards(file: Path) -> None:
    own = room_of(file)
    if own == "__init__":
        return
    for other in imported_rooms(file) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{file} may not import grader.{other}"


def test_every_room_has_its_place() -> None:
    assert {room_of(file) for file in FILES} <= set(LEVEL) | {"__init__"}


def test_the_sandbox_knows_nothing_of_pytest_scores_or_nbgrader() -> None:
    for file in (PACKAGE / "sandbox").rglob("*.py"):
        modules = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not modules & {"pytest", "_pytest", "hypothesis", "nbgrader", "jupytext"}, file


def test_the_machine_knows_no_chapter_by_name() -> None:
    chapters = [folder.name for folder in (PACKAGE.parent / "chapters").glob("*_*")]
    assert chapters
    for file in MACHINE:
        text = file.read_text(encoding="utf-8")
        named = [name for name in chapters if re.search(rf"\b{name}\b", text)]
        # an example in a sentence of help is allowed to name one
        assert len(named) <= 1, f"{file} names {named}"


def test_nbgrader_is_imported_only_where_it_is_used() -> None:
    users = {
        room_of(file)
        for file in MACHINE
        if re.search(r"^\s*(from|import) nbgrader", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert users <= {"gradebook", "authoring"}
