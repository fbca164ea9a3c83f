"""Does a student's repository hold what must stay with the instructor: in a file, in a notebook, in its history.

What is secret is cut into windows of three lines of code, without indentation; a solution that is shorter is one
window. What students are given anyway, in the stub of any chapter, is no secret; nor are lines of a hidden test that
stand in the public tests.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from grader.authoring.build import make
from grader.authoring.git import git
from grader.authoring.source import BEGIN, END
from grader.course import Chapter
from grader.testing.misconceptions import load_misconceptions

WINDOW = 3
FEWEST_CHARACTERS = 40
"""A window with less text says too little: `return x` stands everywhere."""
SECRET_NAMES = frozenset(("test_hidden.py", "misconceptions.py", "alternatives.py", "built.json", "quiz_keys.toml"))
LARGEST = 16 << 20

Windows = dict[str, str]
"""Each window, and in words what it belongs to."""


@dataclass(frozen=True)
class Secrets:
    """What must not be found."""

    windows: Windows
    sentences: Windows

    @classmethod
    def of(cls, chapters: Sequence[Chapter]) -> Secrets:
        """Gather the secrets of all chapters, whether they are released or not."""
        windows: Windows = {}
        sentences: Windows = {}
        given = {window for chapter in chapters for window in _all_windows(make(chapter).stub.decode())}
        for chapter in chapters:
            windows |= {w: whose for w, whose in _windows_of(chapter).items() if w not in given}
            sentences |= {
                _plain(wrong.sentence): f"the misconception {wrong.name} of {chapter.name}"
                for wrong in load_misconceptions(chapter.misconceptions)
            }
        return cls(windows, sentences)


def leaks_in(files: Mapping[str, bytes], secrets: Secrets) -> list[str]:
    """Give one sentence for each leak in these files."""
    return [leak for name, data in files.items() for leak in _leaks_in_file(name, data, secrets)]


def leaks_in_history(repository: Path, secrets: Secrets) -> list[str]:
    """Give one sentence for each leak in any object of a git repository, reachable or not."""
    names = git(repository, "log", "--all", "--format=", "--name-only", "-z").decode(errors="replace").split("\0")
    leaks = [leak for name in sorted(set(names)) for leak in _leaks_in_name(name.strip())]
    for identity, data in _blobs(repository):
        leaks += _leaks_in_file(f"object {identity[:12]}", data, secrets)
    return leaks


# -- looking -------------------------------------------------------------------------------------------------------


def _leaks_in_file(name: str, data: bytes, secrets: Secrets) -> Iterator[str]:
    yield from _leaks_in_name(name)
    if data[2:4] == b"\r\n" and b"\0" in data[:64]:
        yield f"{name} is Python bytecode"
        return
    text = data.decode("utf-8", errors="replace")
    cells = _notebook(text) if text.lstrip().startswith("{") else None
    if cells is not None:
        if any(cell.get("outputs") or cell.get("execution_count") for cell in cells):
            yield f"{name} has outputs"
        text = "\n".join("".join(cell.get("source", ())) for cell in cells)
    found = {secrets.windows[window] for window in _all_windows(text) if window in secrets.windows}
    plain = _plain(text)
    found |= {whose for sentence, whose in secrets.sentences.items() if sentence in plain}
    for whose in sorted(found):
        yield f"{name} holds lines of {whose}"


def _leaks_in_name(name: str) -> Iterator[str]:
    parts = PurePosixPath(name).parts
    if "solutions" in parts[:-1] or (parts[:1] != ("grader",) and parts[-1:] and parts[-1] in SECRET_NAMES):
        yield f"{name} belongs to the instructor"
    if "__pycache__" in parts or name.endswith((".pyc", ".pyo")):
        yield f"{name} is Python bytecode"


def _notebook(text: str) -> list[dict[str, Any]] | None:
    try:
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else None


def _blobs(repository: Path) -> Iterator[tuple[str, bytes]]:
    listing = git(repository, "cat-file", "--batch-all-objects", "--batch-check").decode().splitlines()
    blobs = [line.split()[0] for line in listing if line.split()[1] == "blob" and int(line.split()[2]) <= LARGEST]
    stream = git(repository, "cat-file", "--batch", stdin="\n".join(blobs).encode())
    at = 0
    for identity in blobs:
        end = stream.index(b"\n", at)
        size = int(stream[at:end].split()[2])
        yield identity, stream[end + 1 : end + 1 + size]
        at = end + 1 + size + 1


# -- what is secret ------------------------------------------------------------------------------------------------


def _windows_of(chapter: Chapter) -> Windows:
    public = _all_windows(chapter.public_tests.read_text(encoding="utf-8"))
    windows = {window: f"the hidden tests of {chapter.name}" for window in _code(chapter.hidden_tests)}
    for window in public & set(windows):
        del windows[window]
    for file, whose in ((chapter.misconceptions, "a known wrong answer"), (chapter.alternatives, "a right answer")):
        windows |= dict.fromkeys(_code(file), f"{whose} of {chapter.name}")
    if chapter.quiz_keys.is_file():
        keys = chapter.quiz_keys.read_text(encoding="utf-8")
        windows |= dict.fromkeys(_cut(keys.splitlines()), f"the quiz's keys of {chapter.name}")
    for region in _regions(chapter.source.read_text(encoding="utf-8").splitlines()):
        windows |= dict.fromkeys(_cut(region), f"the reference of {chapter.name}")
    return windows


def _code(file: Path) -> Iterator[str]:
    """Give the windows of the bodies of a file's functions; imports and docstrings are no secret."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                yield from _cut(lines[body[0].lineno - 1 : node.end_lineno])


def _regions(lines: Sequence[str]) -> Iterator[list[str]]:
    region: list[str] | None = None
    for line in lines:
        if line.strip() == BEGIN:
            region = []
        elif line.strip() == END and region is not None:
            yield region
            region = None
        elif region is not None:
            region.append(line)


def _cut(lines: Iterable[str]) -> list[str]:
    """Give the windows of what is secret; the whole, if it is shorter than a window."""
    code = _code_lines(lines)
    return list(_windows(code, min(WINDOW, len(code))))


def _windows(lines: Iterable[str], size: int) -> Iterator[str]:
    """Give every run of so many lines of code that says enough."""
    code = _code_lines(lines)
    for start in range(len(code) - size + 1):
        window = "\n".join(code[start : start + size])
        if len(window) >= FEWEST_CHARACTERS:
            yield window


def _all_windows(text: str) -> set[str]:
    code = _code_lines(text.splitlines())
    return {window for size in range(1, WINDOW + 1) for window in _windows(code, size)}


def _code_lines(lines: Iterable[str]) -> list[str]:
    return [stripped for line in lines if (stripped := line.strip()) and not stripped.startswith("#")]


def _plain(text: str) -> str:
    return " ".join(text.split())
