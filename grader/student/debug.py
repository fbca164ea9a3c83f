"""Run one failing check under Python's debugger, which stops where the student's functions begin."""

from __future__ import annotations

import ast
import pdb
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from grader.sandbox.agent import notebook_source
from grader.testing.plugin import PROVIDER, DeskProvider, run_pytest

INTRODUCTION = """
Python's debugger stops at the first line of your function, called as the check calls it.
  n next line   s step into   a arguments   p NAME a value   c go on   q leave
"""


class Debugging:
    """Runs one test under a debugger with stops in the student's file, and says how it ended."""

    def __init__(self, file: Path, lines: Sequence[int], test: str) -> None:
        self._file, self._lines, self._test = file, lines, test

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        """Have the tests speak to the student's file."""
        config.stash[PROVIDER] = DeskProvider(self._file)

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

        def debugged(**given: Any) -> None:
            ended: list[bool] = []
            debugger.runcall(lambda: ended.append(original(**given) is None))
            if not ended:  # the student left
                pytest.exit("left the debugger")

        item.obj = debugged

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say how the test ended."""
        if report.when == "call":
            print("The check passes." if report.passed else "The check fails.")


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
    run_pytest([Path(suite)], [Debugging(file, list(first_lines(text, functions)), test)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
