"""The files of a graded class: results.json, grades.csv, report.html and a page for each student."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from grader.course import Course
from grader.grading.history import HandIn
from grader.grading.result import SCHEMA, ExerciseOutcome, Outcome, TestOutcome
from grader.report.feedback import student_page
from grader.report.html import class_page
from grader.report.quiz_keys import questions_about
from grader.report.safe import defuse, file_stem
from grader.report.statistics import Results, chapter_points, chapters_of, collect, points_of, totals


def write_all(outcomes: Iterable[Outcome], course: Course, out: Path, history: Sequence[HandIn] = ()) -> list[Path]:
    """Write every rendering of a graded class below `out` and give the paths of the files.

    Each file appears whole or not at all. Equal outcomes give equal bytes, in whatever order they come;
    the history of hand-ins adds to report.html alone.

    Raises:
        ValueError: if two outcomes contradict each other or a score is not a number in its range.
        CourseError: if a chapter's quiz_keys.toml is at fault.
    """
    results = collect(outcomes)
    asked = questions_about(course.chapters)
    (out / "feedback").mkdir(parents=True, exist_ok=True)
    written = [
        _write(out / "results.json", results_json(results, course)),
        _write(out / "grades.csv", [grades_csv(results, course)]),
        _write(out / "report.html", [class_page(results, course, history, asked)]),
    ]
    for student, own in results.items():
        written.append(_write(out / feedback_path(student), [student_page(own.values(), course, asked)]))
    return written


def feedback_path(student: str) -> str:
    """Give where a student's page lies, relative to the output folder."""
    return f"feedback/{file_stem(student)}.md"


def results_json(results: Results, course: Course) -> Iterator[str]:
    """Give results.json piece by piece, one line a student, as described by results.schema.json."""
    sums = {total.student: total for total in totals(results, course)}
    yield f'{{"schema": {json.dumps(SCHEMA)}, "students": ['
    separator = "\n"
    for student, own in results.items():
        total = sums[student]
        row = {
            "student": student,
            "score": total.score,
            "points": total.points,
            "complete": total.complete,
            "feedback": feedback_path(student),
            "chapters": [_chapter_json(outcome, course) for outcome in own.values()],
        }
        yield separator + json.dumps(row, allow_nan=False)
        separator = ",\n"
    yield "\n]}\n"


def _chapter_json(outcome: Outcome, course: Course) -> dict[str, Any]:
    """Leave out the CPU seconds: a clock differs from run to run, a result does not."""
    return {
        "chapter": outcome.chapter,
        "score": None if outcome.is_infra else outcome.score,
        "points": points_of(outcome, course),
        "problem": outcome.problem,
        "flags": list(outcome.flags),
        "file": outcome.file,
        "key": outcome.key,
        "environment": dict(sorted((outcome.environment or {}).items())),
        "parts": dict(sorted(outcome.parts.items())),
        "exercises": [_exercise_json(exercise) for exercise in outcome.exercises],
    }


def _exercise_json(exercise: ExerciseOutcome) -> dict[str, Any]:
    return {
        "name": exercise.name,
        "points": exercise.points,
        "score": exercise.score,
        "verdict": exercise.verdict.value,
        "diagnosis": exercise.diagnosis,
        "misconception": exercise.misconception,
        "note": exercise.note,
        "tests": [_test_json(test) for test in sorted(exercise.tests, key=lambda test: test.id)],
    }


def _test_json(test: TestOutcome) -> dict[str, Any]:
    return {
        "id": test.id,
        "title": test.title,
        "weight": test.weight,
        "verdict": test.verdict.value,
        "detail": test.detail,
    }


def grades_csv(results: Results, course: Course) -> str:
    """Give grades.csv: one row a student; a cell is empty where nothing was handed in or it is graded again."""
    worth = {name: chapter_points(results, course, name) for name in chapters_of(results)}
    text = io.StringIO()
    # All text is quoted: a spreadsheet that splits at semicolons must not make a formula out of half a name.
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    columns = [column for name in worth for column in (f"{name} score", f"{name} points")]
    table.writerow(["student", *map(defuse, columns), "total", "total points"])
    for total in totals(results, course):
        cells: list[str | float] = [defuse(total.student)]
        for name, points in worth.items():
            cells += _chapter_cells(results[total.student], name, points)
        table.writerow([*cells, _short(total.score) if total.complete else "", _short(sum(worth.values()))])
    return text.getvalue()


def _chapter_cells(own: Mapping[str, Outcome], name: str, points: float) -> list[str | float]:
    outcome = own.get(name)
    if outcome is None:
        return ["", _short(points)]
    return ["" if outcome.is_infra else _short(outcome.score), _short(outcome.points or points)]


def _short(value: float) -> float:
    """Write 2.0 as 2: a gradebook then compares it as the number that it is."""
    return int(value) if float(value).is_integer() else round(value, 6)


def _write(path: Path, pieces: Iterable[str]) -> Path:
    """Write beside the target, then put it in its place at once."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A name from a foreign file system may hold bytes that are no text; they are written out as \udcXX.
        with beside.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(pieces)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
