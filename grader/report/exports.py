"""results.json in the forms that other systems take: Canvas, Moodle, Gradescope, Classroom 50.

The tables hold a row for each student; the two JSON forms are for one student. Of a hidden test they hold its title
and nothing else.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grader.course import Course, CourseError
from grader.grading.result import SCHEMA
from grader.report.safe import clean, defuse, file_stem
from grader.report.words import number

Student = Mapping[str, Any]

CANVAS_COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
"""What Canvas's own export begins with; a row is matched by the login id, the others may be empty."""
CANVAS_POINTS = "    Points Possible"
"""The row under the header; Canvas knows it by this text, its spaces included."""
OF_ONE = ("gradescope", "classroom50")
"""The forms that hold one student; the others hold a class."""
SCALE = 1000
"""Classroom 50 takes whole numbers alone, so points are given in thousandths."""


def read_results(file: Path) -> list[Student]:
    """Read a class's results.json. Raises CourseError."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA:
            raise CourseError(f"{file} is of the form {data['schema']!r}, and this grader reads {SCHEMA!r}.")
        return list(data["students"])
    except FileNotFoundError:
        raise CourseError(f"{file} is not there; grade the class first, or give --results FILE.") from None
    except (ValueError, KeyError, TypeError):
        raise CourseError(f"{file} is no results.json of this grader; grade the class again.") from None


def one_student(students: Sequence[Student], name: str | None) -> Student:
    """Give the student of that name, or the only one. Raises CourseError."""
    found = [s for s in students if s["student"] == name] if name else list(students)
    if len(found) != 1:
        what = f"no student is called {name!r}" if name else f"there are {len(students)} students; name one"
        raise CourseError(f"{what}: --student NAME.")
    return found[0]


# -- a table for a class -------------------------------------------------------------------------------------------


def canvas(students: Sequence[Student], course: Course) -> str:
    """Give the gradebook as Canvas imports it; a chapter not handed in, or to be graded again, stays empty."""
    chapters = _chapters(students, course)
    rows = [
        [*CANVAS_COLUMNS, *(_title(course, name) for name in chapters)],
        [CANVAS_POINTS, "", "", "", "", *(number(points) for points in chapters.values())],
    ]
    for student in students:
        name = student["student"]
        rows.append([name, "", "", name, "", *_scores(student, chapters)])
    return _csv(rows)


def moodle(students: Sequence[Student], course: Course) -> str:
    """Give the grades as Moodle's CSV import takes them, matched by user name."""
    chapters = _chapters(students, course)
    rows = [["username", *(_title(course, name) for name in chapters)]]
    rows += [[student["student"], *_scores(student, chapters)] for student in students]
    return _csv(rows)


def _chapters(students: Sequence[Student], course: Course) -> dict[str, float]:
    handed_in = {chapter["chapter"] for student in students for chapter in student["chapters"]}
    return {chapter.name: chapter.points for chapter in course.chapters if chapter.name in handed_in}


def _title(course: Course, name: str) -> str:
    chapter = course.chapter(name)
    return f"{chapter.number} {chapter.title}"


def _scores(student: Student, chapters: Mapping[str, float]) -> list[str]:
    own = {chapter["chapter"]: chapter["score"] for chapter in student["chapters"]}
    return ["" if own.get(name) is None else number(own[name]) for name in chapters]


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([defuse(cell) for cell in row] for row in rows)
    return text.getvalue()


# -- JSON for one student ------------------------------------------------------------------------------------------


def gradescope(student: Student) -> str:
    """Give Gradescope's results.json: a test for each exercise, visible, with what does not hold yet."""
    tests = [
        {
            "name": f"{chapter['chapter']}/{exercise['name']}",
            "score": exercise["score"],
            "max_score": exercise["points"],
            "status": "passed" if exercise["score"] >= exercise["points"] else "failed",
            "output": _words(exercise),
            "visibility": "visible",
        }
        for chapter in student["chapters"]
        for exercise in chapter["exercises"]
    ]
    problems = [clean(chapter["problem"]) for chapter in student["chapters"] if chapter["problem"]]
    result = {"score": student["score"], "output": "\n".join(problems), "visibility": "visible", "tests": tests}
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def classroom50(student: Student, environ: Mapping[str, str]) -> str:
    """Give Classroom 50's result.json; its own facts come from the environment that its runner sets."""
    facts = ("classroom", "assignment", "submission", "commit", "release", "review", "datetime")
    tests = [
        {
            "test-name": f"{chapter['chapter']}/{exercise['name']}",
            "passed": exercise["score"] >= exercise["points"],
            "score": round(exercise["score"] * SCALE),
            "max-score": round(exercise["points"] * SCALE),
            "message": _words(exercise),
        }
        for chapter in student["chapters"]
        for exercise in chapter["exercises"]
    ]
    result = {
        "schema": "classroom50/result/v1",
        **{fact: environ.get(fact.upper(), "") for fact in facts},
        "score": sum(test["score"] for test in tests),
        "max-score": sum(test["max-score"] for test in tests),
        "tests": tests,
    }
    return json.dumps(result, indent=2, allow_nan=False) + "\n"


def of_one(form: str, student: Student, environ: Mapping[str, str]) -> str:
    """Give one student in one of the two forms that take one."""
    return gradescope(student) if form == "gradescope" else classroom50(student, environ)


def write_each(students: Sequence[Student], form: str, folder: Path, environ: Mapping[str, str]) -> int:
    """Write the form of each student into a file of the student's own, and give their number. Raises CourseError."""
    if form not in OF_ONE:
        raise CourseError(f"{form} takes one table for the class; leave --each out.")
    folder.mkdir(parents=True, exist_ok=True)
    for student in students:
        text = of_one(form, student, environ)
        (folder / f"{file_stem(student['student'])}.json").write_text(text, encoding="utf-8")
    return len(students)


def _words(exercise: Mapping[str, Any]) -> str:
    lines = [exercise["diagnosis"], exercise["note"]]
    lines += [f"does not hold yet: {test['title']}" for test in exercise["tests"] if test["verdict"] != "passed"]
    return "\n".join(dict.fromkeys(clean(line) for line in lines if line))
