"""The class at the end of a run, for a terminal of 80 columns."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Protocol

from rich.box import Box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from grader.course import Course
from grader.grading.result import Outcome
from grader.report.safe import clean, visible
from grader.report.statistics import (
    Odd,
    OddCase,
    Results,
    Total,
    chapters_of,
    collect,
    find_chapter,
    odd_cases,
    points_of,
    totals,
)
from grader.report.words import number, percent, plural

WIDTH = 80
ROWS = 40
CASES = 5
NAME_WIDTH = 24
GAP = 2

LINES = Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)
"""A rule under the heads and one above the sums, and nothing else."""

URGENT = (Odd.INFRA, Odd.REJECTED, Odd.FORGED, Odd.TIMEOUT, Odd.MEMORY)
KIND_STYLE = {Odd.INFRA: "bold magenta", Odd.REJECTED: "bold red", Odd.FORGED: "bold red"}


class Layer(Protocol):
    """One layer of the sandbox, as `grader doctor` shows it."""

    @property
    def name(self) -> str: ...
    @property
    def in_force(self) -> bool: ...
    @property
    def why(self) -> str: ...
    @property
    def remedy(self) -> str: ...


def class_table(outcomes: Iterable[Outcome], course: Course) -> str:
    """Give the lines for the end of `grader grade`: students by chapters, the sums, and what to look at."""
    results = collect(outcomes)
    if not results:
        return "No hand-in was graded."
    parts: list[RenderableType] = [*_bands(results, course)]
    if len(results) > ROWS:
        parts.append(Text(f"and {len(results) - ROWS:,} more in grades.csv\n", style="dim"))
    parts += _odd_lines(odd_cases(results))
    return _render(parts)


def doctor_table(layers: Iterable[Layer]) -> str:
    """Give one row for each layer of the sandbox: whether it is in force, why, and what would mend it."""
    table = Table(box=LINES, show_edge=False, pad_edge=False, padding=(0, GAP, 0, 0), width=WIDTH)
    table.add_column("layer", no_wrap=True)
    table.add_column("in force", no_wrap=True)
    table.add_column("why", ratio=1, overflow="fold")
    for layer in layers:
        mark = Text("yes", style="green") if layer.in_force else Text("no", style="bold red")
        why = Text(clean(layer.why))
        if layer.remedy and not layer.in_force:
            why.append(f"\nto mend it: {clean(layer.remedy)}", style="bold")
        table.add_row(Text(_fit(layer.name, NAME_WIDTH)), mark, why)
    return _render([table])


def _render(parts: Sequence[RenderableType]) -> str:
    """Draw with colours where a person looks, as plain text where a program or NO_COLOR does."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    console = Console(
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=colour,
        color_system="standard" if colour else None,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())


def _bands(results: Results, course: Course) -> list[Table]:
    """Split the chapters into tables that fit side by side with the students' names; the last has the totals."""
    sums = totals(results, course)
    names = {student: _fit(student, NAME_WIDTH) for student in results}
    columns = [_chapter_column(name, results, course) for name in chapters_of(results)]
    columns.append(_total_column(sums))
    room = WIDTH - max(map(cell_len, [*names.values(), "student", "sum"]))
    bands: list[list[list[str]]] = [[]]
    used = 0
    for column in columns:
        width = GAP + max(map(cell_len, column))
        if bands[-1] and used + width > room:
            bands.append([])
            used = 0
        bands[-1].append(column)
        used += width
    return [_table(list(names.values()), band) for band in bands]


def _chapter_column(name: str, results: Results, course: Course) -> list[str]:
    """Give the head, each student's cell, the sum and the mean of one chapter."""
    chapter = find_chapter(course, name)
    graded = [own[name] for own in results.values() if name in own and not own[name].is_infra]
    score, points = sum(o.score for o in graded), sum(points_of(o, course) for o in graded)
    cells = [_cell(own.get(name), course) for own in results.values()]
    return [chapter.number if chapter else _fit(name, 12), *cells, *_sums(score, points)]


def _cell(outcome: Outcome | None, course: Course) -> str:
    if outcome is None:
        return "-"
    return "again" if outcome.is_infra else f"{number(outcome.score)}/{number(points_of(outcome, course))}"


def _total_column(sums: Sequence[Total]) -> list[str]:
    cells = [f"{number(t.score)}/{number(t.points)}" if t.complete else "again" for t in sums]
    score, points = sum(t.score for t in sums), sum(t.points for t in sums)
    return ["total", *cells, *_sums(score, points)]


def _sums(score: float, points: float) -> tuple[str, str]:
    return f"{number(score)}/{number(points)}", f"{percent(score / points)} %" if points else "-"


def _table(names: Sequence[str], columns: Sequence[Sequence[str]]) -> Table:
    table = Table(box=LINES, show_edge=False, pad_edge=False, padding=(0, GAP, 0, 0), show_footer=True)
    table.add_column("student", Text("sum\nmean"), no_wrap=True)
    for column in columns:
        table.add_column(column[0], Text("\n".join(column[-2:])), justify="right", no_wrap=True)
    for at, name in enumerate(names[:ROWS]):
        table.add_row(Text(name), *(_mark(column[at + 1]) for column in columns))
    return table


def _mark(cell: str) -> Text:
    score, _, points = cell.partition("/")
    style = "magenta" if cell == "again" else "dim" if cell == "-" else "green" if score == points else ""
    return Text(cell, style=style)


def _odd_lines(cases: Sequence[OddCase]) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for kind in URGENT:
        own = [case for case in cases if case.kind is kind]
        lines += [_odd_line(case) for case in own[:CASES]]
        if len(own) > CASES:
            lines.append(Text(f"{kind:10}and {len(own) - CASES:,} more", style="dim"))
    if quiet := len([case for case in cases if case.kind not in URGENT]):
        lines.append(Text(f"{plural(quiet, 'other case')} to look at: see report.html", style="dim"))
    return lines


def _odd_line(case: OddCase) -> Text:
    what = ": ".join(part for part in (", ".join(case.exercises), clean(case.text)) if part)
    line = f"{_fit(case.student, NAME_WIDTH)} {case.chapter}: {what}"
    return Text.assemble((f"{case.kind:10}", KIND_STYLE.get(case.kind, "yellow")), _fit(line, WIDTH - 10))


def _fit(text: str, width: int) -> str:
    """Cut to so many columns of the screen, on which some characters take two."""
    shown = visible(text, 400)
    return shown if cell_len(shown) <= width else set_cell_size(shown, width - 2).rstrip() + ".."
