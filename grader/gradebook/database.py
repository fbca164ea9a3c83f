"""nbgrader's database: the one module that imports nbgrader's API and SQLAlchemy.

Assignments and cells are made through the API. Students' rows go in bulk, in one transaction a chapter: the API commits
every row and would take minutes for a large class.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nbgrader import api  # type: ignore[import-untyped]
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from grader.course import Chapter
from grader.gradebook.nbgrader import GradebookError, Scores
from grader.testing.notebook import check_cell

NOTEBOOK = "exercises"

Record = Any
"""A row of nbgrader's, which has no types."""


@contextlib.contextmanager
def opened(url: str) -> Iterator[Record]:
    """Give nbgrader's gradebook; what is not committed when the block fails is rolled back."""
    try:
        with _commands_on_path():
            gradebook = api.Gradebook(_with_driver(url))
        with gradebook:
            yield gradebook
    except ModuleNotFoundError as error:
        raise GradebookError(
            f"The gradebook {shown(url)} needs {error.name}; install it with `pip install -e .[postgresql]`."
        ) from None
    except ArgumentError:
        raise GradebookError(
            f"{shown(url)!r} is not a database's URL; write one like sqlite:///gradebook.db."
        ) from None
    except (SQLAlchemyError, api.InvalidEntry, ImportError, OSError, subprocess.CalledProcessError) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        raise GradebookError(
            f"The gradebook {shown(url)} cannot be used: {reason}; check its URL and rights."
        ) from None


def _with_driver(url: str) -> str:
    """Name the driver that the course declares where a URL names none: which is the default, SQLAlchemy has changed."""
    return re.sub("^postgres(ql)?://", "postgresql+psycopg://", url)


@contextlib.contextmanager
def _commands_on_path() -> Iterator[None]:
    """For a new database nbgrader starts the command `alembic`, which lies beside the interpreter that has nbgrader."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def shown(url: str) -> str:
    """Give the URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


def write_chapter(gradebook: Record, chapter: Chapter, scores: Scores) -> None:
    """Make the chapter's assignment and the students' rows where they are missing, and set the scores."""
    notebook = _ensure_cells(gradebook, chapter)
    _ensure_rows(gradebook.db, notebook.assignment, scores)
    _set_scores(gradebook.db, notebook, scores)
    gradebook.db.commit()


def _ensure_cells(gradebook: Record, chapter: Chapter) -> Record:
    """Make all cells that `nbgrader generate_assignment` makes: it refuses to add any once there are submissions."""
    gradebook.update_or_create_assignment(chapter.name)
    notebook = gradebook.update_or_create_notebook(NOTEBOOK, chapter.name)
    place = (NOTEBOOK, chapter.name)
    points = {cell.name: cell.max_score for cell in notebook.grade_cells}
    solutions = {cell.name for cell in notebook.solution_cells}
    sources = {cell.name for cell in notebook.source_cells}
    for exercise in chapter.exercises:
        name = f"check_{exercise.name}"
        if points.get(name) != exercise.points:
            gradebook.update_or_create_grade_cell(name, *place, max_score=exercise.points, cell_type="code")
        if name not in sources:
            source = check_cell(exercise.name)
            gradebook.update_or_create_source_cell(name, *place, cell_type="code", locked=True, source=source)
        for function in exercise.functions:
            if function not in solutions:
                gradebook.update_or_create_solution_cell(function, *place)
            if function not in sources:
                gradebook.update_or_create_source_cell(function, *place, cell_type="code", locked=False, source="")
    return gradebook.find_notebook(*place)


def _ensure_rows(db: Session, assignment: Record, students: Iterable[str]) -> None:
    """Make what is missing of students and submissions: nbgrader expects each to mirror the whole assignment."""
    known = set(db.scalars(select(api.Student.id)))
    _insert(db, api.Student, ({"id": student} for student in students if student not in known))
    submitted = select(api.SubmittedAssignment.student_id).where(api.SubmittedAssignment.assignment_id == assignment.id)
    known = set(db.scalars(submitted))
    missing = ({"student_id": s, "assignment_id": assignment.id} for s in students if s not in known)
    _insert(db, api.SubmittedAssignment, missing)
    for notebook in assignment.notebooks:
        _ensure_submitted_notebook(db, notebook)


def _ensure_submitted_notebook(db: Session, notebook: Record) -> None:
    submitted = api.SubmittedAssignment
    everyone = set(db.scalars(select(submitted.id).where(submitted.assignment_id == notebook.assignment_id)))
    mine = api.SubmittedNotebook.notebook_id == notebook.id
    known = set(db.scalars(select(api.SubmittedNotebook.assignment_id).where(mine)))
    missing = ({"assignment_id": key, "notebook_id": notebook.id} for key in everyone - known)
    _insert(db, api.SubmittedNotebook, missing)
    copies = list(db.scalars(select(api.SubmittedNotebook.id).where(mine)))
    tasks = list(notebook.task_cells)
    for model, kind in ((api.Grade, notebook.grade_cells), (api.Comment, notebook.solution_cells)):
        cells = [cell.id for cell in [*kind, *tasks]]
        # by cell, which has an index; a join with the submissions has none and takes minutes
        pairs = select(model.cell_id, model.notebook_id).where(model.cell_id.in_(cells))
        there = {tuple(pair) for pair in db.execute(pairs)}
        wanted = ((cell, copy) for cell in cells for copy in copies)
        _insert(db, model, ({"cell_id": pair[0], "notebook_id": pair[1]} for pair in wanted if pair not in there))


def _insert(db: Session, model: Record, rows: Iterable[dict[str, str]]) -> None:
    if found := list(rows):
        db.execute(insert(model.__table__), found)


def _set_scores(db: Session, notebook: Record, scores: Scores) -> None:
    """Set what differs. As in nbgrader, a manual score still counts but is marked for another look."""
    exercises = {cell.id: cell.name.removeprefix("check_") for cell in notebook.grade_cells}
    owners = select(api.SubmittedNotebook.id, api.SubmittedAssignment.student_id).join(
        api.SubmittedAssignment, api.SubmittedNotebook.assignment_id == api.SubmittedAssignment.id
    )
    students = dict(tuple(row) for row in db.execute(owners.where(api.SubmittedNotebook.notebook_id == notebook.id)))
    grades = select(
        api.Grade.id, api.Grade.cell_id, api.Grade.notebook_id, api.Grade.auto_score, api.Grade.manual_score
    ).where(api.Grade.cell_id.in_(exercises))
    rows: list[dict[str, Any]] = []
    for key, cell, copy, old, manual in db.execute(grades):
        new = scores.get(students[copy], {}).get(exercises[cell])
        if new is not None and new != old:
            rows.append({"key": key, "new": new, "look": manual is not None})
    if rows:
        table = api.Grade.__table__
        statement = update(table).where(table.c.id == bindparam("key"))
        values: dict[str, Any] = {"auto_score": bindparam("new"), "needs_manual_grade": bindparam("look")}
        db.connection().execute(statement.values(values), rows)
