"""One result, many renderings: the terminal, JSON, CSV, HTML and a page for each student."""

from grader.report.feedback import student_page
from grader.report.files import feedback_path, write_all
from grader.report.terminal import class_table, doctor_table

__all__ = ["class_table", "doctor_table", "feedback_path", "student_page", "write_all"]
