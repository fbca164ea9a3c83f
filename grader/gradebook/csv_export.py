"""`nbgrader export` as proper CSV: the columns of nbgrader's own, quoted where they must be, formulas defused."""

from __future__ import annotations

import csv
from typing import Any

from nbgrader.api import MissingEntry  # type: ignore[import-untyped]
from nbgrader.plugins.export import ExportPlugin  # type: ignore[import-untyped]

from grader.report.safe import defuse

COLUMNS = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email"),
    *("raw_score", "late_submission_penalty", "score", "max_score"),
)


class QuotedCsv(ExportPlugin):  # type: ignore[misc]
    """Writes one row for each assignment and student, as nbgrader's plugin does; a name with a comma shifts nothing."""

    def export(self, gradebook: Any) -> None:
        """Write the gradebook to `--to`, by default grades.csv."""
        assignments, students = set(map(str, self.assignment)), set(map(str, self.student))
        with open(self.to or "grades.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for assignment in gradebook.assignments:
                for student in gradebook.students:
                    if assignment.name in (assignments or [assignment.name]) and student.id in (
                        students or [student.id]
                    ):
                        row = _row(gradebook, assignment, student)
                        writer.writerow(["" if cell is None else defuse(str(cell)) for cell in row])


def _row(gradebook: Any, assignment: Any, student: Any) -> list[Any]:
    who = [student.id, student.last_name, student.first_name, student.email]
    try:
        submission = gradebook.find_submission(assignment.name, student.id)
    except MissingEntry:  # nothing handed in
        return [assignment.name, assignment.duedate, None, *who, 0.0, 0.0, 0.0, assignment.max_score]
    penalty = submission.late_submission_penalty
    scores = [submission.score, penalty, max(0.0, submission.score - penalty), assignment.max_score]
    return [assignment.name, assignment.duedate, submission.timestamp, *who, *scores]
