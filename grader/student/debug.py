"""Run one failing check under Python's debugger, which stops where the student's functions begin."""

from __future__ import annotations

import ast
import bdb
import pdb
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from grader.sandbox.agent import notebook_source

INTRODUCTION = """
Python's debugger stops at the first line of your function, called as the check calls it.
  n next line   s step into   a arguments   p NAME a value   c go on   q leave
"""


class Debugging:
    """Runs a test under a debugger with stops in the student's file."""

    def __init__(self, file: Path, lines: Sequence[int], test: str) -> None:
        self._file, self._lines, self._test = file, lines, test

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the one test."""
        items[:] = [item for item in items if item.name == self._test]

    def pytest_runtest_setup(self, item: Any) -> None:
        """Put the debugger around the test's function."""
        original = item.obj
        debugger = pdb.Pdb(nosigint=True, readrc=False)
        for line in self._lines:
            debugger.set_break(str(self._file), line)
        debugger.rcLines = ["continue"]  # it would stop in the test's own first line

        def debugged(**given: Any) -> Any:
            try:
                return debugger.runcall(original, **given)
            except bdb.BdbQuit:
                pytest.exit("left the debugger", returncode=0)

        debugged.__signature__ = None  # type: ignore[attr-defined]
        item.obj = debugged


def first_lines(text: str, names: Sequence[str]) -> Iterator[int]:
    """Give the line of the first statement of each function, and of each method of a class, docstrings aside."""
    wanted = [node for node in ast.parse(text).body if getattr(node, "name", "") in names]
    for outer in wanted:
        for node in ast.walk(outer):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (node is outer or node in outer.body):  # type: ignore[attr-defined]
                has_words = ast.get_docstring(node) is not None and len(node.body) > 1
                yield node.body[1 if has_words else 0].lineno


def main() -> int:
    """Run one test as told on the command line."""
    suite, name, test, *functions = sys.argv[1:]
    file = Path(name)
    text = notebook_source(file.read_bytes()) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8-sig")
    print(INTRODUCTION)
    arguments = [suite, "--module", name, "-s", "-q", "-p", "no:cacheprovider", "--override-ini", "addopts="]
    arguments += ["--import-mode=importlib", "-p", "grader.testing.plugin", "--no-header", "--no-summary"]
    return int(pytest.main(arguments, plugins=[Debugging(file, list(first_lines(text, functions)), test)]))


if __name__ == "__main__":
    sys.exit(main())
