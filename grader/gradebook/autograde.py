"""`nbgrader autograde` with the sandbox in the place of the kernel: what nbgrader's own configuration names.

nbgrader reads its configuration, finds these classes, and goes on as ever: scores, partial credit, late penalties,
feedback and formgrader are its own work.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.converters import base as converters  # type: ignore[import-untyped]
from nbgrader.coursedir import CourseDirectory  # type: ignore[import-untyped]
from nbgrader.preprocessors import NbGraderPreprocessor  # type: ignore[import-untyped]
from nbgrader.utils import parse_utc  # type: ignore[import-untyped]
from traitlets import Int, Unicode

from grader.course import load_course
from grader.gradebook.assignment import Assignment, rebuilt_from
from grader.gradebook.csv_export import QuotedCsv
from grader.gradebook.penalties import KeepLatePenalties
from grader.gradebook.rebuild import Rebuilt
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.grading.run import Order
from grader.report.quiz_keys import Asked, ask_yourself
from grader.report.safe import clean, without_paths
from grader.report.words import VERDICT_WORDS, verdict_words

LONGEST_TIMESTAMP = 100
MOST_CLAIMS = 10


def configure(config: Any, course: str) -> None:
    """Set up `nbgrader autograde`; called by nbgrader_config.py.

    Args:
        config: the `c` of the configuration file.
        course: the folder of the instructor's repository.
    """
    config.SandboxGrade.course = course
    config.Autograde.exporter_class = RebuildingExporter
    config.Autograde.sanitize_preprocessors = [
        "nbgrader.preprocessors.OverwriteKernelspec",
        "nbgrader.preprocessors.OverwriteCells",
        "nbgrader.preprocessors.CheckCellMetadata",
    ]
    config.Autograde.autograde_preprocessors = [
        SandboxGrade,
        "nbgrader.preprocessors.LimitOutput",
        "nbgrader.preprocessors.SaveAutoGrades",
        KeepLatePenalties,
    ]
    config.OverwriteCells.add_missing_cells = True
    config.ExportApp.plugin_class = QuotedCsv
    _guard()


def _guard() -> None:
    """Close two doors for which nbgrader has no setting: a forged timestamp ends its run, and it follows links."""
    find_all_files = converters.find_all_files
    if getattr(find_all_files, "is_guarded", False):
        return

    def plain_files(path: str, exclude: Any = None) -> list[str]:
        return [file for file in find_all_files(path, exclude) if stat.S_ISREG(os.lstat(file).st_mode)]

    def timestamp(self: Any, dest_path: str) -> Any:
        file = Path(dest_path, "timestamp.txt")
        try:
            if not stat.S_ISREG(file.lstat().st_mode):
                raise ValueError("no plain file")
            with file.open("rb") as opened:
                text = opened.read(LONGEST_TIMESTAMP + 1).decode("ascii").strip()
            return parse_utc(text) if text else None
        except FileNotFoundError:
            return None
        except (ValueError, OverflowError, OSError):
            self.log.warning("%s is no timestamp and is left out; the hand-in counts as in time.", file)
            return None

    plain_files.is_guarded = True  # type: ignore[attr-defined]
    converters.find_all_files = plain_files
    CourseDirectory.get_existing_timestamp = timestamp


class RebuildingExporter(NotebookExporter):
    """Reads a submitted notebook as one that was rebuilt from the released one."""

    assignment: Assignment | None = None
    """What was graded in this run of nbgrader, which makes one exporter for it."""

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> Any:
        """Give the notebook's text; what a student wrote never reaches nbgrader's own readers."""
        if not getattr(self.parent, "_sanitizing", False):
            return super().from_filename(filename, resources=resources, **kw)
        converter: Any = self.parent
        coursedir, names = converter.coursedir, resources["nbgrader"]
        released = coursedir.format_path(coursedir.release_directory, ".", names["assignment"])
        rebuilt = rebuilt_from(Path(filename), Path(released, Path(filename).name))
        notebook = nbformat.from_dict(rebuilt.notebook)  # type: ignore[no-untyped-call]
        notebook.metadata["grader"] = {"notes": list(rebuilt.notes)}
        for note in rebuilt.notes:
            self.log.warning("%s, %s: %s", names["student"], names["assignment"], note)
        return super().from_notebook_node(notebook, resources=resources, **kw)  # type: ignore[no-untyped-call]


class SandboxGrade(NbGraderPreprocessor):  # type: ignore[misc]
    """Grades in the sandbox with the hidden suite, and leaves outputs from which nbgrader derives the scores."""

    course = Unicode("", help="The folder of the instructor's repository.").tag(config=True)
    solutions = Unicode("", help="A private folder in place of solutions/.").tag(config=True)
    jobs = Int(os.cpu_count() or 1, help="Controllers at once.").tag(config=True)
    seed = Unicode(os.environ.get("GRADER_SEED", ""), help="Varies the hidden inputs; keep it secret.").tag(config=True)
    isolation = Unicode("", help='"none" grades without a sandbox: for work you trust.').tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> Any:
        """Write each grade cell's outputs; with a run's first notebook the grading of all begins."""
        names = resources["nbgrader"]
        notes = tuple(nb.metadata.pop("grader", {}).get("notes", ()))
        assignment = self._assignment(names["assignment"], names["student"])
        outcome = assignment.outcome(names["student"], Rebuilt(nb, notes).hand_in())
        if outcome.is_infra:
            raise RuntimeError(f"{names['student']}: {outcome.problem or 'the grading machine failed'}; run it again.")
        exercises = {f"check_{exercise.name}": exercise for exercise in outcome.exercises}
        for cell in nb.cells:
            graded = cell.metadata.get("nbgrader", {})
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
                if graded.get("grade") and not graded.get("solution"):
                    text, score = _shown(exercises.get(graded["grade_id"]), outcome, notes, assignment.asked)
                    cell.outputs = [_stream(text), _score(score)]
        return nb, resources

    def _assignment(self, name: str, student: str) -> Assignment:
        exporter: Any = self.parent
        if exporter.assignment is None or exporter.assignment.chapter.name != name:
            course = load_course(Path(self.course), Path(self.solutions) if self.solutions else None)
            place = Path(exporter.parent.coursedir.root, ".grader")
            order = Order((), place, jobs=self.jobs, secret=self.seed, isolation=self.isolation, prefer="notebook")
            exporter.assignment = Assignment(course, course.chapter(name), order, exporter.parent, student)
        assignment: Assignment = exporter.assignment
        return assignment


def _shown(
    exercise: ExerciseOutcome | None, outcome: Outcome, notes: tuple[str, ...], asked: Asked
) -> tuple[str, float]:
    lines = [f"The notebook was mended before grading: {note}." for note in notes]
    if exercise is None:
        return "\n".join([*lines, outcome.problem or "This exercise was not graded."]), 0.0
    lines.append(f"{exercise.name}: {verdict_words(exercise)}, {exercise.score:g} of {exercise.points:g} points")
    if exercise.diagnosis:
        places = asked.get((outcome.chapter, exercise.misconception), ())
        lines.append(f"Looks like: {exercise.diagnosis} {ask_yourself(outcome.chapter[:2], places)}".rstrip())
    if exercise.note:
        lines.append(clean(without_paths(exercise.note)))
    failed = {test.title: test.verdict for test in exercise.tests if test.verdict is not Verdict.PASSED}
    lines += [
        f"  does not hold yet: {title} ({VERDICT_WORDS[verdict]})" for title, verdict in list(failed.items())[:10]
    ]
    return "\n".join(lines), exercise.score


def _stream(text: str) -> Any:
    return nbformat.v4.new_output("stream", name="stdout", text=text + "\n")  # type: ignore[no-untyped-call]


def _score(score: float) -> Any:
    # nbgrader takes the last value of a cell as its points
    data = {"text/plain": repr(float(score))}
    return nbformat.v4.new_output("execute_result", data=data, execution_count=1)  # type: ignore[no-untyped-call]
