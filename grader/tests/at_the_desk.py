"""A student at the desk: the commands as processes, in a copy of the tiny course."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from grader.course import Course

REPOSITORY = Path(__file__).parent.parent.parent
RIGHT, SQUARE = "    return 2 * x", "    return x * x"
STUB = '    raise NotImplementedError("double")'


def environment(**more: str) -> dict[str, str]:
    """Give the environment of a plain terminal of 80 columns; the package is reached by path."""
    kept = {key: value for key, value in os.environ.items() if key not in ("CI", "NO_COLOR", "COLUMNS")}
    return {**kept, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", **more}


def grader(course: Course, *arguments: str, typed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run one command; what it prints is read by a program."""
    command = [sys.executable, "-m", "grader", *arguments]
    done = subprocess.run(
        command, cwd=course.root, env=environment(**more), input=typed, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert "\x1b" not in done.stdout, "a program reads no colours"
    return done


def as_json(course: Course, *arguments: str, typed: str = "") -> dict[str, Any]:
    """Run one command with --json."""
    done = grader(course, *arguments, "--json", typed=typed)
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def write(course: Course, body: str, chapter: str = "01", name: str = "double") -> None:
    """Put a body in place of a function's `raise` in a chapter's module, whatever was there before."""
    file = course.chapter(chapter).stub
    pristine = file.with_suffix(".first")
    if not pristine.exists():
        pristine.write_bytes(file.read_bytes())
    text = pristine.read_text(encoding="utf-8")
    stub = f'    raise NotImplementedError("{name}")'
    assert stub in text
    file.write_text(text.replace(stub, body), encoding="utf-8")


def write_cell(course: Course, body: str, chapter: str = "01", name: str = "double") -> None:
    """The same in the notebook."""
    file = course.chapter(chapter).notebook
    data = json.loads(file.read_text(encoding="utf-8"))
    for cell in data["cells"]:
        source = "".join(cell["source"])
        cell["source"] = source.replace(f'    raise NotImplementedError("{name}")', body)
    file.write_text(json.dumps(data), encoding="utf-8")
