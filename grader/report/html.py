"""The class in one self-contained page: what it knows, what it misunderstands, whom to look at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from grader.course import Course
from grader.grading.history import HandIn
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.report.items import LEAST_ANSWERS, POOR, items
from grader.report.quiz_keys import NOT_ASKED, Asked, where_asked
from grader.report.safe import clean, visible
from grader.report.statistics import (
    ExerciseStatistics,
    OddCase,
    Results,
    Total,
    chapters_of,
    environment,
    exercise_statistics,
    find_chapter,
    histogram,
    misconceptions,
    odd_cases,
    timings,
    totals,
)
from grader.report.words import SIGNS, VERDICT_WORDS, Standing, number, percent, plural, share, standing

ROWS = 300
CELLS = 40_000
"""The heat map's bounds: what a browser draws at once and a file of 3 MB holds."""
ODD_ROWS = 200
MISCONCEPTIONS = 20
VALUES = 4
NOTHING = "·"

CSS_CLASS = {
    Standing.RIGHT: "r",
    Standing.WRONG: "x",
    Standing.STOPPED: "s",
    Standing.WAITS: "w",
    Standing.TODO: "t",
    Standing.REJECTED: "n",
    Standing.AGAIN: "n",
}


@dataclass(frozen=True)
class Cell:
    """One cell of the heat map: its colour's class and what stands in it."""

    css: str
    text: str


@dataclass(frozen=True)
class Row:
    """One student in the heat map."""

    total: Total
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Group:
    """One chapter and the statistics of its exercises."""

    name: str
    title: str
    exercises: Sequence[ExerciseStatistics]


def class_page(results: Results, course: Course, history: Sequence[HandIn] = (), asked: Asked = NOT_ASKED) -> str:
    """Give report.html: no script, no request, the same bytes for equal results and history."""
    templates = Environment(
        loader=PackageLoader("grader.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        clean=clean, visible=visible, number=number, percent=percent, plural=plural, sentence=sentence
    )
    return templates.get_template("report.html.j2").render(_facts(results, course, history, asked))


def sentence(text: str) -> Markup:
    """Give an author's sentence as HTML; what stands between backticks becomes code."""
    parts = re.split(r"`([^`]+)`", clean(text, 1000))
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )


def _facts(results: Results, course: Course, history: Sequence[HandIn], asked: Asked) -> Mapping[str, object]:
    """Gather all that the template shows."""
    groups = _groups(exercise_statistics(results, course), course)
    sums = totals(results, course)
    shown = _rows(results, sums, groups)
    odd = odd_cases(results)
    confusions = misconceptions(results)
    return {
        "groups": groups,
        "students": len(results),
        "hand_ins": sum(map(len, results.values())),
        "mean": sum(total.share for total in sums) / len(sums) if sums else 0.0,
        "right": _right(groups),
        "bins": histogram(total.share for total in sums),
        "rows": shown,
        "legend": _legend(shown),
        "first_columns": _first_columns(groups),
        "cell_width": min(4.0, max(2.35, round(48 / max(1, sum(len(group.exercises) for group in groups)), 2))),
        "misconceptions": confusions[:MISCONCEPTIONS],
        "questions": {about: where_asked(places) for about, places in asked.items()},
        "misconceptions_left": len(confusions[MISCONCEPTIONS:]),
        "odd": _readable(odd[:ODD_ROWS]),
        "odd_count": len(odd),
        "odd_kinds": sorted(Counter(case.kind.value for case in odd).items(), key=lambda item: -item[1]),
        "titles": {name: _title(name, course) for name in chapters_of(results)},
        "items": [item for item in items(results, history) if item.passed or item.discrimination is not None],
        "least_answers": LEAST_ANSWERS,
        "poor": POOR,
        "teaches": {(e.chapter, e.name): e.teaches for c in course.chapters for e in c.exercises},
        "standings": [kind for kind in Standing if any(row.counts[kind] for g in groups for row in g.exercises)],
        "timings": timings(results),
        "environment": [(key, values[:VALUES], len(values) - VALUES) for key, values in environment(results)],
    }


def _groups(rows: Sequence[ExerciseStatistics], course: Course) -> list[Group]:
    return [Group(name, _title(name, course), list(own)) for name, own in groupby(rows, key=lambda row: row.chapter)]


def _title(name: str, course: Course) -> str:
    chapter = find_chapter(course, name)
    return f"{chapter.number} {chapter.title}" if chapter else name


def _right(groups: Sequence[Group]) -> float:
    """Give the part of all answers handed in that is right."""
    rows = [row for group in groups for row in group.exercises]
    graded = sum(row.graded for row in rows)
    return sum(row.counts[Standing.RIGHT] for row in rows) / graded if graded else 0.0


def _rows(results: Results, sums: Sequence[Total], groups: Sequence[Group]) -> list[Row]:
    """Give the heat map's rows, the lowest totals first, as many as the page can hold."""
    columns = [(row.chapter, row.name) for group in groups for row in group.exercises]
    room = min(ROWS, CELLS // max(1, len(columns)))
    ordered = sorted(sums, key=lambda total: (total.share, total.student))[:room]
    return [Row(total, list(_cells(results[total.student], columns))) for total in ordered]


def _first_columns(groups: Sequence[Group]) -> list[int]:
    """Give the heat map's columns at which a chapter begins, counted from 1, student and total before them."""
    return list(accumulate((len(group.exercises) for group in groups[:-1]), initial=3))


def _cells(own: Mapping[str, Outcome], columns: Sequence[tuple[str, str]]) -> Iterator[Cell]:
    exercises = {(o.chapter, exercise.name): exercise for o in own.values() for exercise in o.exercises}
    for column in columns:
        yield _cell(exercises.get(column))


def _cell(exercise: ExerciseOutcome | None) -> Cell:
    if exercise is None:
        return Cell("a", NOTHING)
    where = standing(exercise)
    if where is Standing.PARTLY:
        part = share(exercise)
        return Cell(f"p{1 + min(2, int(part * 3))}", str(percent(part)))
    verdict = Verdict.PASSED if where is Standing.RIGHT else exercise.verdict
    if where is Standing.WRONG and verdict is Verdict.PASSED:
        verdict = Verdict.WRONG
    return Cell(CSS_CLASS[where], SIGNS[verdict])


def _legend(rows: Sequence[Row]) -> list[tuple[Cell, str]]:
    """Explain each sign that occurs, and no other."""
    seen = {cell for row in rows for cell in row.cells}
    signs = [(Cell(CSS_CLASS[_standing_of(v)], SIGNS[v]), VERDICT_WORDS[v]) for v in Verdict]
    legend = [(cell, words) for cell, words in signs if cell in seen]
    if any(cell.css.startswith("p") for cell in seen):
        legend.insert(1, (Cell("p2", "50"), "partly right, per cent of the points"))
    if Cell("a", NOTHING) in seen:
        legend.append((Cell("a", NOTHING), "nothing handed in"))
    return legend


def _standing_of(verdict: Verdict) -> Standing:
    return standing(ExerciseOutcome("", 1, float(verdict is Verdict.PASSED), verdict, "", "", "", ()))


def _readable(cases: Sequence[OddCase]) -> list[tuple[str, OddCase]]:
    """Pair each case with what it says: the exercises it touches, then the sentence."""
    return [(clean(": ".join(filter(None, (", ".join(case.exercises), case.text)))), case) for case in cases]
