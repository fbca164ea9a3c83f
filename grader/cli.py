"""The command line: parses, calls, prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from grader import __version__
from grader.course import Chapter, Course, CourseError, find_root, load_course

EXIT_FINE, EXIT_FAILED, EXIT_USAGE, EXIT_MACHINE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0 fine, 1 not sound, 2 usage, 3 the machine's own fault."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except CourseError as error:
        print(f"grader: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("\ngrader: stopped; what is done is kept, run the same command again to go on.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grader", description="Build, verify and grade the course.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--course", type=Path, metavar="PATH", help="the course's folder (default: found upwards)")
    parser.add_argument("--solutions", type=Path, metavar="PATH", help="a private folder in place of solutions/")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    verify = commands.add_parser("verify", help="hold chapters against the standard (authors)")
    verify.add_argument("chapter", nargs="*", help="chapters by number or name (default: all)")
    verify.add_argument("--json", action="store_true", help="print the reports as JSON")
    verify.set_defaults(run=_verify)
    return parser


def _course(options: argparse.Namespace) -> Course:
    root = options.course or find_root(Path.cwd())
    return load_course(root.resolve(), options.solutions and options.solutions.resolve())


def _chapters(options: argparse.Namespace) -> list[Chapter]:
    course = _course(options)
    return [course.chapter(name) for name in options.chapter] or list(course.chapters)


def _verify(options: argparse.Namespace) -> int:
    from grader.authoring.verify import table, verify

    say = (lambda line: None) if options.json else (lambda line: print(line, file=sys.stderr, flush=True))
    reports = verify(_chapters(options), say)
    if options.json:
        print(json.dumps({"chapters": [report.to_json() for report in reports]}, indent=2))
    else:
        print(table(reports))
    return EXIT_FINE if all(report.ok for report in reports) else EXIT_FAILED
