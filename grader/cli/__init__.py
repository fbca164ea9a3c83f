"""The command line: parses, calls, prints. One file for each audience."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from grader import __version__
from grader.cli import student
from grader.cli.common import EXIT_FINE, EXIT_STOPPED, EXIT_USAGE
from grader.course import CourseError

# commands import what they need when they run: `grader --help` needs neither torch nor pytest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit status: 0 fine or to do, 1 failed, 2 usage, 3 the machine's own fault."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a sign that a terminal lacks is no reason to stop
            stream.reconfigure(errors="replace")
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
    parser = argparse.ArgumentParser(
        prog="grader",
        description="Learn, build and grade the course. Alone it says where you are and what is next.",
        epilog="Exit status: 0 fine or to do, 1 failed, 2 wrong usage, 3 the machine's own fault.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("--course", type=Path, metavar="PATH", help="the course's folder (default: found upwards)")
    parser.add_argument("--solutions", type=Path, metavar="PATH", help="a private folder in place of solutions/")
    parser.add_argument("--json", action="store_true", help="print JSON")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    student.add_commands(commands)
    for audience in ("grader.cli.teach", "grader.cli.author", "grader.cli.book"):
        if find_spec(audience):  # a student's repository has neither
            import_module(audience).add_commands(commands)
    parser.set_defaults(run=student.status)
    return parser
