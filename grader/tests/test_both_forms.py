"""Work done in the module and the same work done in the notebook get the same score, in every chapter."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.handin import wrong_answer
from grader.authoring.sample import half_done
from grader.cli import main
from grader.course import Chapter, load_course
from grader.testing.misconceptions import load_misconceptions

ROOT = Path(__file__).parents[2]
COURSE = load_course(ROOT)


def mistaken(chapter: Chapter) -> tuple[str, str]:
    """Give a work with a known mistake in its first exercise: the reference's text, and what is put behind it."""
    first = chapter.exercises[0].name
    wrong = next(w for w in load_misconceptions(chapter.misconceptions) if w.exercise == first)
    text = chapter.source.read_text(encoding="utf-8")
    return text, wrong_answer(chapter, wrong).removeprefix(text)


def unfinished(chapter: Chapter) -> tuple[str, str]:
    """Give a work of which the second half is to do."""
    return half_done(chapter, len(chapter.exercises) // 2), ""


def notebook(chapter: Chapter, text: str, behind: str) -> str:
    """Give the same work as a student would: each function written into its own cell of the released notebook."""
    nodes = {n.name: n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    released: dict[str, Any] = json.loads(chapter.notebook.read_text(encoding="utf-8"))
    code = [cell for cell in released["cells"] if cell["cell_type"] == "code"]
    written = set()
    for cell in code:
        source = "".join(cell["source"])
        if "raise NotImplementedError(" in source:
            names = [n.name for n in ast.parse(source).body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
            cell["source"] = "\n\n\n".join(_written(text, nodes[name]) for name in names)
            written |= set(names)
    assert written == {name for exercise in chapter.exercises for name in exercise.functions}
    if behind:
        released["cells"].append({**code[0], "id": "behind", "source": behind, "metadata": {}})
    return json.dumps(released)


def _written(text: str, node: ast.FunctionDef | ast.ClassDef) -> str:
    """Give a function as it is written, its decorators too, which are not among its own lines for `ast`."""
    first = min(part.lineno for part in (node, *node.decorator_list))
    return "\n".join(text.splitlines()[first - 1 : node.end_lineno])


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Give each hand-in's results: student, then chapter."""
    folder = tmp_path_factory.mktemp("forms")
    for chapter in COURSE.chapters:
        for work in (mistaken, unfinished):
            text, behind = work(chapter)
            for form, content in (("py", text + behind), ("ipynb", notebook(chapter, text, behind))):
                file = folder / "inbox" / f"{work.__name__}-{form}" / chapter.name / f"exercises.{form}"
                file.parent.mkdir(parents=True)
                file.write_text(content, encoding="utf-8")
    out = folder / "out"
    assert main(["--course", str(ROOT), "grade", str(folder / "inbox"), "--out", str(out), "--jobs", "2"]) == 0
    students = json.loads((out / "results.json").read_text(encoding="utf-8"))["students"]
    return {row["student"]: {chapter["chapter"]: chapter for chapter in row["chapters"]} for row in students}


@pytest.mark.parametrize("work", ["mistaken", "unfinished"])
@pytest.mark.parametrize("chapter", COURSE.chapters, ids=lambda chapter: chapter.name)
def test_both_forms_get_the_same(scores: dict[str, dict[str, Any]], chapter: Chapter, work: str) -> None:
    module, cells = (scores[f"{work}-{form}"][chapter.name] for form in ("py", "ipynb"))
    assert module["file"].endswith(".py") and cells["file"].endswith(".ipynb")
    assert 0 < module["score"] < chapter.points
    assert cells["score"] == module["score"]
    for one, other in zip(module["exercises"], cells["exercises"], strict=True):
        same = ("name", "score", "verdict", "misconception")
        assert {key: one[key] for key in same} == {key: other[key] for key in same}
        verdicts = [[(test["id"], test["verdict"]) for test in exercise["tests"]] for exercise in (one, other)]
        assert verdicts[0] == verdicts[1]
