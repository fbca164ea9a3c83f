"""The commands of authors: verify, build, release, gradescope."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from grader.cli.common import EXIT_FAILED, EXIT_FINE, Commands, course_of


def add_commands(commands: Commands) -> None:
    """Add the commands of authors to the parser."""
    _add_verify(commands)
    _add_build(commands)
    _add_release(commands)
    _add_gradescope(commands)


def _add_verify(commands: Commands) -> None:
    verify = commands.add_parser("verify", help="hold chapters against the standard (authors)")
    verify.add_argument("chapter", nargs="*", help="chapters by number or name (default: all)")
    verify.add_argument("--json", action="store_true", help="print the reports as JSON")
    verify.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from grader.authoring.verify import table, verify

    course = course_of(options)
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

    course = course_of(options)
    chapters = [course.chapter(name).name for name in options.chapter] or None
    if options.check:
        sentences = [*stale(course, chapters), *refresh(course, write=False)]
        print("\n".join(sentences) or "Everything is up to date.")
        return EXIT_FAILED if sentences else EXIT_FINE
    for change in build(course, chapters, options.nbgrader, options.force):
        print(change.sentence)
    print("\n".join(refresh(course)) or "README.md is up to date.")
    return EXIT_FINE


def _add_release(commands: Commands) -> None:
    release = commands.add_parser("release", help="make the students' repository (instructors)")
    release.add_argument("dest", type=Path, metavar="DEST", help="an empty folder, or an earlier release")
    release.add_argument("--chapter", action="append", metavar="NN", help="release this chapter now (default: all)")
    release.set_defaults(run=_release)


def _release(options: argparse.Namespace) -> int:
    from grader.authoring.release import release

    course = course_of(options)
    done = release(course, options.dest, [course.chapter(name) for name in options.chapter or ()])
    if not done.commit:
        print(f"Nothing has changed since the release in {options.dest}.")
        return EXIT_FINE
    files = f"{len(done.written)} files written, {len(done.removed)} removed"
    print(f"Released {len(done.chapters)} chapters to {options.dest}: {files}, commit {done.commit}.")
    print("Searched, in its files and its whole history: no solution, hidden test or misconception is in it.")
    return EXIT_FINE


def _add_gradescope(commands: Commands) -> None:
    pack = commands.add_parser(
        "gradescope", help="make the archive that Gradescope takes as an autograder (instructors)"
    )
    pack.add_argument("chapter", metavar="NN", help="the chapter that the assignment is about")
    pack.add_argument("--out", type=Path, default=Path("build/autograder.zip"), metavar="FILE", help="the archive")
    pack.add_argument("--seed", default=os.environ.get("GRADER_SEED", ""), metavar="TEXT", help="varies hidden inputs")
    pack.add_argument("--isolation", choices=("all", "none"), default="all", help="none: trust their container alone")
    pack.set_defaults(run=_gradescope)


def _gradescope(options: argparse.Namespace) -> int:
    from grader.authoring.gradescope import write_autograder

    course = course_of(options)
    chapter = course.chapter(options.chapter)
    count = write_autograder(course, chapter, options.out, options.seed, options.isolation)
    print(f"{options.out} holds {count} files; upload it as the autograder of {chapter.title} ({chapter.number}).")
    return EXIT_FINE
