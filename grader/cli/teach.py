"""The commands of instructors: grade, similar, export, demo."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from grader.cli.common import EXIT_FINE, EXIT_MACHINE, Commands, course_of
from grader.course import Course, CourseError

if TYPE_CHECKING:
    from grader.grading.run import ClassRun


def add_commands(commands: Commands) -> None:
    """Add the commands of instructors to the parser."""
    _add_grade(commands)
    _add_similar(commands)
    _add_export(commands)
    _add_demo(commands)


def _add_grade(commands: Commands) -> None:
    grade = commands.add_parser("grade", help="grade submissions with the hidden suites (instructors)")
    grade.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a submission, or a folder of them")
    grade.add_argument("--chapter", metavar="NN", help="grade this chapter alone; needed for single files")
    grade.add_argument("--jobs", type=_natural, default=os.cpu_count() or 1, metavar="N", help="controllers at once")
    grade.add_argument("--out", type=Path, default=Path("build/grades"), metavar="DIR", help="where results go")
    grade.add_argument("--fresh", action="store_true", help="grade again what is already graded")
    grade.add_argument("--seed", default=os.environ.get("GRADER_SEED", ""), metavar="TEXT", help="varies hidden inputs")
    grade.add_argument("--isolation", choices=("all", "none"), default="all", help="none: for work you trust")
    grade.add_argument("--from", choices=("module", "notebook"), default="", dest="prefer", help="if both were edited")
    grade.add_argument("--scheduler", default="", metavar="ADDRESS", help="let the workers of a Dask scheduler grade")
    grade.add_argument("--gradebook", metavar="URL", help="nbgrader's database (default: DIR/gradebook.db)")
    grade.set_defaults(run=_grade)


def _natural(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _grade(options: argparse.Namespace) -> int:
    from grader.grading.isolation import IsolationMissing
    from grader.grading.run import Order, grade_class
    from grader.report.progress import progress_bar
    from grader.report.terminal import class_table

    course = course_of(options)
    order = Order(
        paths=tuple(options.paths),
        out=options.out,
        chapter=course.chapter(options.chapter) if options.chapter else None,
        jobs=options.jobs,
        fresh=options.fresh,
        secret=options.seed,
        isolation="none" if options.isolation == "none" else "",
        prefer=options.prefer,
        scheduler=options.scheduler,
    )
    try:
        with progress_bar() as progress:
            run = grade_class(course, order, progress)
    except IsolationMissing as error:
        print(f"grader: {error}", file=sys.stderr)
        return EXIT_MACHINE
    print(class_table(run.outcomes, course))
    _publish(run, course, options)
    return EXIT_MACHINE if all(outcome.is_infra for outcome in run.outcomes) else EXIT_FINE


def _publish(run: ClassRun, course: Course, options: argparse.Namespace) -> None:
    from grader.gradebook.record import record
    from grader.grading.history import note_hand_ins
    from grader.report.changes import note_changes
    from grader.report.files import write_all

    history = note_hand_ins(options.out / "history.jsonl", run.outcomes, datetime.now(UTC))
    write_all(run.outcomes, course, options.out, history)
    if changed := note_changes(run.outcomes, options.out / "ledger.jsonl", options.out / "changes.csv"):
        print(changed)
    url = options.gradebook or f"sqlite:///{options.out.resolve() / 'gradebook.db'}"
    print(record(run.outcomes, course, url, options.out / "gradebook.stamp"))
    if run.known:
        print(f"{run.known} of {len(run.outcomes)} results were known and not graded again (--fresh grades anew).")
    print(f"Report: {options.out / 'report.html'}")


def _add_similar(commands: Commands) -> None:
    similar = commands.add_parser("similar", help="list hand-ins that are suspiciously alike, to look at (instructors)")
    similar.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a folder of submissions")
    similar.add_argument("--chapter", metavar="NN", help="look at this chapter alone")
    similar.add_argument("--out", type=Path, default=Path("build/similar"), metavar="DIR", help="where the list goes")
    similar.set_defaults(run=_similar)


def _similar(options: argparse.Namespace) -> int:
    from grader.grading.collect import collect
    from grader.report.progress import progress_bar
    from grader.report.words import plural

    try:
        from grader.report.alike import find_alike, write_alike
    except ImportError as error:
        raise CourseError(f"{error.name} is missing; comparing needs `pip install -e .[similar]`.") from None
    course = course_of(options)
    chosen = course.chapter(options.chapter) if options.chapter else None
    submissions = collect(options.paths, course.chapters, chosen)
    found = []
    for name in sorted({submission.chapter for submission in submissions}):
        of_chapter = [submission for submission in submissions if submission.chapter == name]
        with progress_bar("comparing", "compared") as progress:
            found.append(find_alike(course.chapter(name), of_chapter, progress))
    page = write_alike(found, options.out)
    pairs = sum(len(alike.pairs) for alike in found)
    compared = sum(alike.compared for alike in found)
    print(f"{plural(compared, 'hand-in')} compared, {plural(pairs, 'pair')} to look at: {page}")
    return EXIT_FINE


def _add_export(commands: Commands) -> None:
    export = commands.add_parser("export", help="give results as other systems take them (instructors)")
    export.add_argument("form", choices=("canvas", "moodle", "gradescope", "classroom50"))
    export.add_argument("--results", type=Path, default=Path("build/grades/results.json"), metavar="FILE")
    export.add_argument("--student", metavar="NAME", help="for gradescope and classroom50, which take one student")
    export.add_argument("--each", type=Path, metavar="DIR", help="the same for all students, a file for each")
    export.add_argument("--out", type=Path, metavar="FILE", help="write it there (default: to the screen)")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from grader.report import exports

    students = exports.read_results(options.results)
    if options.each is not None:
        written = exports.write_each(students, options.form, options.each, os.environ)
        print(f"{options.each} has a file for each of {written} students.")
        return EXIT_FINE
    if options.form == "canvas":
        text = exports.canvas(students, course_of(options))
    elif options.form == "moodle":
        text = exports.moodle(students, course_of(options))
    else:
        text = exports.of_one(options.form, exports.one_student(students, options.student), os.environ)
    if options.out is None:
        sys.stdout.write(text)
    else:
        options.out.write_text(text, encoding="utf-8", newline="")
    return EXIT_FINE


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="make a small class, grade it, print the table, write the report")
    demo.add_argument("--chapter", action="append", metavar="NN", help="chapters to use (default: the first two)")
    demo.add_argument("--jobs", type=_natural, default=os.cpu_count() or 1, metavar="N", help="controllers at once")
    demo.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="where results go")
    demo.add_argument("--isolation", choices=("all", "none"), default="all", help="none: on a host without a sandbox")
    demo.set_defaults(run=_demo, fresh=True, seed="", prefer="", scheduler="", gradebook=None)


def _demo(options: argparse.Namespace) -> int:
    from grader.authoring.sample import make_class

    course = course_of(options)
    chapters = [course.chapter(name) for name in options.chapter or ()] or list(course.chapters[:2])
    count = make_class(chapters, options.out / "class")
    print(f"A class of {count} is in {options.out / 'class'}: right, mistaken, half-done and hostile hand-ins.")
    options.paths, options.chapter = [options.out / "class"], None
    return _grade(options)
