"""The command that builds the book."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from grader.cli.common import EXIT_FINE, Commands, course_of
from grader.course import CourseError


def add_commands(commands: Commands) -> None:
    """Add the command to the parser."""
    book = commands.add_parser("book", help="build the book: every chapter as a web page, with its figure")
    book.add_argument("--out", type=Path, default=Path("build/book"), metavar="DIR", help="where the site goes")
    book.add_argument("--open", action="store_true", help="show it in the browser")
    book.set_defaults(run=_book)


def _book(options: argparse.Namespace) -> int:
    try:
        from grader.book.site import build_book
    except ImportError as error:
        raise CourseError(f"{error.name} is missing; the book needs `pip install -e .[book]`.") from None
    first = build_book(course_of(options), options.out.resolve())
    print(f"The book is in {options.out}; it needs no server: open {options.out / first.name}.")
    if options.open:
        webbrowser.open(first.as_uri())
    return EXIT_FINE
