"""The command line: parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from grader import __version__
from grader.course import Course, CourseError, find_root, load_course

if TYPE_CHECKING:  # commands import what they need when they run: `grader --help` needs neither torch nor pytest
    from grader.grading.run import ClassRun

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_FINE, EXIT_FAILED, EXIT_USAGE, EXIT_MACHINE, EXIT_STOPPED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0 fine, 1 not sound, 2 usage, 3 the machine's own fault."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CourseError as error:
        print(f"grader: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:
        return EXIT_FINE
    except KeyboardInterrupt:
        print("\ngrader: stopped; what is done is kept, run the same command again to go on.", file=sys.stderr)
        return EXIT_STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grader", description="Build, verify and grade the course.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--course", type=Path, metavar="PATH", help="the course's folder (default: found upwards)")
    parser.add_argument("--solutions", type=Path, metavar="PATH", help="a private folder in place of solutions/")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_grade(commands)
    _add_demo(commands)
    _add_verify(commands)
    _add_build(commands)
    doctor = commands.add_parser("doctor", help="say which layers of the sandbox this host offers")
    doctor.add_argument("--json", action="store_true", help="print the layers as JSON")
    doctor.set_defaults(run=_doctor)
    return parser


# -- grade ---------------------------------------------------------------------------------------------------------


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
    grade.add_argument("--gradebook", metavar="URL", help="nbgrader's database (default: DIR/gradebook.db)")
    grade.set_defaults(run=_grade)


def _natural(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _grade(options: argparse.Namespace) -> int:
    from grader.grading.run import IsolationMissing, Order, grade_class
    from grader.report.progress import progress_bar
    from grader.report.terminal import class_table

    course = _course(options)
    order = Order(
        paths=tuple(options.paths),
        out=options.out,
        chapter=course.chapter(options.chapter) if options.chapter else None,
        jobs=options.jobs,
        fresh=options.fresh,
        secret=options.seed,
        isolation="none" if options.isolation == "none" else "",
        prefer=options.prefer,
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
    from grader.report.files import write_all

    write_all(run.outcomes, course, options.out)
    url = options.gradebook or f"sqlite:///{options.out.resolve() / 'gradebook.db'}"
    print(record(run.outcomes, course, url, options.out / "gradebook.stamp"))
    if run.known:
        print(f"{run.known} of {len(run.outcomes)} results were known and not graded again (--fresh grades anew).")
    print(f"Report: {options.out / 'report.html'}")


def _add_demo(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="make a small class, grade it, print the table, write the report")
    demo.add_argument("--chapter", action="append", metavar="NN", help="chapters to use (default: the first two)")
    demo.add_argument("--jobs", type=_natural, default=os.cpu_count() or 1, metavar="N", help="controllers at once")
    demo.add_argument("--out", type=Path, default=Path("build/demo"), metavar="DIR", help="where results go")
    demo.add_argument("--isolation", choices=("all", "none"), default="all", help="none: on a host without a sandbox")
    demo.set_defaults(run=_demo, fresh=True, seed="", prefer="", gradebook=None)


def _demo(options: argparse.Namespace) -> int:
    from grader.authoring.sample import make_class

    course = _course(options)
    chapters = [course.chapter(name) for name in options.chapter or ()] or list(course.chapters[:2])
    count = make_class(chapters, options.out / "class")
    print(f"A class of {count} is in {options.out / 'class'}: right, mistaken, half-done and hostile hand-ins.")
    options.paths, options.chapter = [options.out / "class"], None
    return _grade(options)


# -- for authors ---------------------------------------------------------------------------------------------------


def _add_verify(commands: Commands) -> None:
    verify = commands.add_parser("verify", help="hold chapters against the standard (authors)")
    verify.add_argument("chapter", nargs="*", help="chapters by number or name (default: all)")
    verify.add_argument("--json", action="store_true", help="print the reports as JSON")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from grader.authoring.verify import table, verify

    course = _course(options)
    chapters = [course.chapter(name) for name in options.chapter] or list(course.chapters)
    reports = verify(chapters, lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(json.dumps({"chapters": [report.to_json() for report in reports]}, indent=2))
    else:
        print(table(reports))
    return EXIT_FINE if all(report.ok for report in reports) else EXIT_FAILED


def _add_build(commands: Commands) -> None:
    build = commands.add_parser("build", help="make stubs, notebooks and nbgrader's sources (authors)")
    build.add_argument("chapter", nargs="*", help="chapters by number or name (default: all)")
    build.add_argument("--check", action="store_true", help="only say what is stale")
    build.add_argument("--force", action="store_true", help="overwrite files that were edited since the last build")
    build.add_argument(
        "--nbgrader", type=Path, metavar="DIR", help="nbgrader's course folder (default: build/nbgrader)"
    )
    build.set_defaults(run=_build)


def _build(options: argparse.Namespace) -> int:
    from grader.authoring.build import build, stale
    from grader.authoring.readme import refresh

    course = _course(options)
    chapters = [course.chapter(name).name for name in options.chapter] or None
    if options.check:
        sentences = [*stale(course, chapters), *refresh(course, write=False)]
        print("\n".join(sentences) or "Everything is up to date.")
        return EXIT_FAILED if sentences else EXIT_FINE
    for change in build(course, chapters, options.nbgrader, options.force):
        print(change.sentence)
    print("\n".join(refresh(course)) or "README.md is up to date.")
    return EXIT_FINE


# -- the host ------------------------------------------------------------------------------------------------------


def _doctor(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from grader.report.terminal import doctor_table
    from grader.sandbox.policy import missing, probe, tier

    layers = probe()
    lacking = missing(layers)
    if options.json:
        rows = [asdict(layer) for layer in layers]
        print(json.dumps({"layers": rows, "tier": tier(layers), "missing": lacking}, indent=2))
    else:
        print(doctor_table(layers))
        verdict = f"not in force: {', '.join(lacking)}; `grader grade` refuses" if lacking else "safe to grade"
        print(f"Tier {tier(layers)}: {verdict}.")
    return EXIT_FAILED if lacking else EXIT_FINE


def _course(options: argparse.Namespace) -> Course:
    root = options.course or find_root(Path.cwd())
    return load_course(root.resolve(), options.solutions and options.solutions.resolve())
