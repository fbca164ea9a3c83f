"""A failing check as a lesson: what is drawn, and shapes in words."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from grader.sandbox.agent import Agent
from grader.sandbox.proxy import Link, LocalTransport, Proxy, Trace
from grader.testing import close, exact
from grader.testing.axes import argument_axes, return_axes, sizes_of, torch_error, wrong_shape
from grader.testing.draw import pair
from grader.testing.lesson import Lesson, teach
from grader.testing.suite import TestInfo

SOURCE = '''
import torch


def mix(q, k, scale=1.0):
    """Mix.

    Args:
        q: (B, T, d) queries.
        k: (B, S, d) keys.
        scale: a number.

    Returns:
        (B, T, S), floating.
    """
    return BODY


class Counter:
    """Counts."""

    def add(self, items):
        return len(items)
'''


def lesson_of(body: str, test: object, tmp_path: Path) -> Lesson:
    """Run a small test against a module, and give the lesson of its failure."""
    file = tmp_path / "exercises.py"
    file.write_text(SOURCE.replace("BODY", body), encoding="utf-8")
    module = types.ModuleType("exercises")
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
    link = Link(LocalTransport(Agent(module)))
    link.begin(0, ())
    link.trace = Trace()
    try:
        test(Proxy(link))  # type: ignore[operator]
    except Exception as error:
        return teach(TestInfo("test", "mix", 1.0, "A claim."), error, file, link.trace, module)
    raise AssertionError("the test passes")


def test_a_wrong_shape_is_said_with_the_names_of_its_axes(tmp_path: Path) -> None:
    def test(exercises: Proxy) -> None:
        q, k = torch.ones(2, 3, 5), torch.ones(2, 4, 5)
        close(exercises.mix(q, k), q @ k.transpose(1, 2), "mix(q, k)")

    lesson = lesson_of("k @ q.transpose(1, 2)", test, tmp_path)
    assert lesson.body == (
        "mix(q, k) with q (2, 3, 5), k (2, 4, 5)",
        "mix(q, k): axis T and axis S are exchanged: got (2, 4, 3), expected (2, 3, 4)",
    )
    assert lesson.line == 5


def test_torch_is_translated_and_the_line_quoted(tmp_path: Path) -> None:
    lesson = lesson_of("q @ k", lambda e: e.mix(torch.ones(2, 3, 5), torch.ones(2, 4, 5)), tmp_path)
    assert lesson.line == 16
    assert any("5 (d) meets 4 (S)" in line for line in lesson.body)
    assert lesson.body[-1].strip() == "return q @ k"


def test_small_tensors_are_drawn_and_the_first_difference_marked(tmp_path: Path) -> None:
    def test(exercises: Proxy) -> None:
        exact(exercises.mix(torch.eye(2), torch.eye(2), scale=3), torch.eye(2).bool(), "mix(I, I)")

    lesson = lesson_of("q.bool().flip(0)", test, tmp_path)
    assert lesson.body == (
        "mix(q, k, scale=3)",
        "  q = 1 0",
        "      0 1",
        "  k = 1 0",
        "      0 1",
        "mix(I, I): 4 of 4 values differ, the first at [0, 0]: got False, expected True",
        "  got     expected",
        "  [.]x    [x].",
        "   x .     . x",
    )


def test_the_call_that_gave_the_wrong_value_is_the_one_shown(tmp_path: Path) -> None:
    lesson = lesson_of("q * 2.0", lambda e: close(e.mix(1.5, 0), e.mix(2.5, 0), "twice"), tmp_path)
    assert lesson.body[0] == "mix(1.5, k=0)"


def test_a_method_is_written_with_its_object(tmp_path: Path) -> None:
    lesson = lesson_of("q", lambda e: exact(e.Counter().add("abc"), 4, "add"), tmp_path)
    assert lesson.body == ("<Counter>.add('abc')", "add: got 3, expected 4")


def test_lists_part_at_an_index(tmp_path: Path) -> None:
    lesson = lesson_of("[1, 2, 3] * 5", lambda e: exact(e.mix(0, 0), [1, 5, 3] * 5, "mix"), tmp_path)
    assert lesson.body[1] == "mix: they part at index 1"
    assert lesson.body[2].startswith("  got       [1, 2, 3, 1,")
    assert lesson.body[3].startswith("  expected  [1, 5, 3, 1,")
    lesson = lesson_of("[1, 2]", lambda e: exact(e.mix(0, 0), [1, 5], "mix"), tmp_path)
    assert lesson.body[1:] == ("mix: got [1, 2], expected [1, 5]",)


def test_an_error_that_was_expected_and_did_not_come(tmp_path: Path) -> None:
    def test(exercises: Proxy) -> None:
        with pytest.raises(ValueError):
            exercises.mix(1, 2)

    # pytest's own failure is no Exception
    with pytest.raises(BaseException) as raised:
        lesson_of("0", test, tmp_path)
    lesson = teach(TestInfo("t", "mix", 1.0, "A claim."), raised.value, tmp_path / "exercises.py", Trace(), None)
    assert lesson.body == ("it raises nothing, but should raise ValueError",)


DOCSTRING = """Mix.

Args:
    q: (B, H, T, hd) queries, floating.
    x: scores of any shape.
    lengths: int64 tensor (B,), one for each.
    y: (..., N), floating.

Returns:
    Bool tensor (T, S), True = may attend.
"""


def test_axes_are_read_from_the_docstring() -> None:
    axes = argument_axes(DOCSTRING)
    assert axes == {"q": ("B", "H", "T", "hd"), "lengths": ("B",), "y": ("...", "N")}
    assert return_axes(DOCSTRING) == ("T", "S")
    assert return_axes("No sections.") == ()
    assert sizes_of(axes, {"q": (2, 3, 4, 5), "y": (7, 8, 9)}) == {"B": 2, "H": 3, "T": 4, "hd": 5, "N": 9}


@pytest.mark.parametrize(
    ("got", "expected", "axes", "words"),
    [
        ((2, 3), (2, 4), ("T", "S"), "axis S should be 4, got 3"),
        ((2, 3), (2, 4), (), "axis 1 should be 4, got 3"),
        ((6,), (2, 3), ("T", "S"), "the result has 1 axis (6,), but should have 2 axes (T, S)"),
        ((3, 2), (2, 3), ("T", "S"), "axis T and axis S are exchanged: got (3, 2), expected (2, 3)"),
    ],
)
def test_wrong_shapes_in_words(
    got: tuple[int, ...], expected: tuple[int, ...], axes: tuple[str, ...], words: str
) -> None:
    assert wrong_shape(got, expected, axes) == words


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda: torch.ones(2, 3) @ torch.ones(4, 5), "3 (d) meets 4 (S)"),
        (lambda: torch.ones(2, 3, 3) @ torch.ones(2, 4, 5), "3 (d) meets 4 (S)"),
        (lambda: torch.ones(3) + torch.ones(4), "3 (d) meets 4 (S)"),
        (lambda: torch.ones(6).reshape(4, 2), "a tensor of 6 values cannot take the shape [4, 2]"),
    ],
    ids=["matrices", "batches", "broadcast", "view"],
)
def test_this_version_of_torch_is_understood(operation: object, words: str) -> None:
    with pytest.raises(RuntimeError) as raised:
        operation()  # type: ignore[operator]
    assert words in torch_error(str(raised.value), {"d": 3, "S": 4})


def test_a_large_tensor_is_cut_around_the_difference() -> None:
    got, expected = torch.zeros(3, 9, 20), torch.zeros(3, 9, 20)
    got[1, 7, 15] = 1.0
    lines = pair(got, expected, (1, 7, 15))
    assert lines[-1] == "(shown: [1, 5:9, 12:18])"
    assert "[1]" in lines[3]


# -- in a notebook -------------------------------------------------------------------------------------------------

CELL = "def double(x):\n    return x * x if x > 0 else x.no_such\n"
SHOWING = """
import IPython.display
from grader.testing.notebook import check
IPython.display.display = lambda report: print(report._repr_html_())
exec(compile({cell!r}, "<cell 3>", "exec"))
check("double")
"""


def test_a_notebook_shows_a_small_verdict() -> None:
    folder = Path(__file__).parent / "course_fixture" / "chapters" / "01_numbers"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    command = [sys.executable, "-c", SHOWING.format(cell=CELL)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "✗ wrong</b> double: 0 of 2 checks pass, 0 of 2 points" in done.stdout
    assert "<p>Twice 3 is 6.</p>" in done.stdout
    assert "<pre style='margin-left: 1em'>double(3): got 9, expected 6</pre>" in done.stdout
    assert "<details><summary>the checks</summary>" in done.stdout
    assert "Twice a negative number is negative." in done.stdout


def test_an_error_in_a_cell_is_said_with_its_line() -> None:
    folder = Path(__file__).parent / "course_fixture" / "chapters" / "01_numbers"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    cell = CELL.replace("x * x if x > 0 else ", "")
    command = [sys.executable, "-c", SHOWING.format(cell=cell)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert "it raises AttributeError in line 2" in done.stdout


def test_numbers_that_differ_do_not_look_alike() -> None:
    lines = pair(torch.tensor([0.25000001], dtype=torch.float64), torch.tensor([0.25], dtype=torch.float64), (0,))
    assert lines[1] == "[0.25000001]    [0.25]"
