"""A small class made from the course itself: right, mistaken, half-done and hostile hand-ins, for `grader demo`."""

from __future__ import annotations

import ast
import json
import shutil
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path

from grader.authoring.handin import right_answer, wrong_answer
from grader.course import Chapter
from grader.testing.misconceptions import load_misconceptions

STUDENTS = (
    *("ada", "alan", "barbara", "cleve", "donald", "dorothy", "edsger", "emmy", "frances", "george", "grace"),
    *("hedy", "ivan", "jean", "john", "karen", "katherine", "kurt", "leonhard", "lynn", "margaret", "maryam"),
    *("niklaus", "noether", "peter", "radia", "rozsa", "sofia", "srinivasa", "stephen", "tony", "vera"),
)

HOSTILE = {
    "mallory-syntax": "def broken(:\n    return 1\n",
    "mallory-loop": "while True:\n    pass\n",
    "mallory-memory": "hoard = [bytearray(1 << 28) for _ in range(1 << 10)]\n",
    "mallory-exit": "import os\n\nos._exit(0)\n",
    "mallory-forger": """
import sys
import torch


class Right:
    def __eq__(self, other):
        return True

    def __getattr__(self, name):
        return Right()

    def __call__(self, *args, **kwargs):
        return Right()


torch.testing.assert_close = torch.allclose = torch.equal = lambda *args, **kwargs: True
sys.modules["pytest"] = Right()


def __getattr__(name):
    return Right()
""",
    "mallory-reader": """
import os
import pathlib


def search():
    found = [repr(os.environ)]
    for place in ("/proc/self/environ", "/etc/passwd", "{solutions}"):
        found.append(pathlib.Path(place).read_text())
    return found


def __getattr__(name):
    return lambda *args, **kwargs: search()
""",
}


def make_class(chapters: Sequence[Chapter], folder: Path) -> int:
    """Write one folder a student below `folder`, which is emptied first, and give their number."""
    if folder.exists():
        shutil.rmtree(folder)
    for chapter in chapters:
        for student, text in _honest(chapter):
            _write(folder, student, chapter, text)
    for student, text in HOSTILE.items():
        _write(folder, student, chapters[0], text.replace("{solutions}", str(chapters[0].hidden_tests)))
    _write_notebook(folder, "noemi-notebook", chapters[0])
    return len(list(folder.iterdir()))


def _honest(chapter: Chapter) -> Iterator[tuple[str, str]]:
    """Give a hand-in for each student: every third is right, every fourth half done, the rest have a misconception."""
    mistakes = list(islice(cycle(load_misconceptions(chapter.misconceptions)), len(STUDENTS)))
    for number, student in enumerate(STUDENTS):
        if number % 3 == 0:
            yield student, right_answer(chapter)
        elif number % 4 == 1:
            yield student, half_done(chapter, number % len(chapter.exercises))
        else:
            # a stride that is prime to most counts, so that a class of thirty shows many different ones
            yield student, wrong_answer(chapter, mistakes[(7 * number) % len(mistakes)])


def half_done(chapter: Chapter, count: int) -> str:
    """Give the reference for the first `count` exercises and the stub for the others."""
    stubs = {node.name: node for node in _definitions(chapter.stub.read_text(encoding="utf-8"))}
    done = {name for exercise in chapter.exercises[:count] for name in exercise.functions}
    tree = ast.parse(right_answer(chapter))
    to_do = {name for exercise in chapter.exercises[count:] for name in exercise.functions} - done
    tree.body = [stubs[name] if (name := getattr(node, "name", "")) in to_do else node for node in tree.body]
    return ast.unparse(tree) + "\n"


def _definitions(text: str) -> list[ast.FunctionDef | ast.ClassDef]:
    return [node for node in ast.parse(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]


def _write(folder: Path, student: str, chapter: Chapter, text: str) -> None:
    place = folder / student / chapter.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "exercises.py").write_text(text, encoding="utf-8")


def _write_notebook(folder: Path, student: str, chapter: Chapter) -> None:
    """Hand in the reference as a notebook: the released one, its code cells replaced by one."""
    notebook = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    notebook["cells"] = [{**code, "source": right_answer(chapter)}]
    place = folder / student / chapter.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "exercises.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
