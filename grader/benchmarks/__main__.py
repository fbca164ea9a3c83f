"""Run the measurements, print the table, write build/benchmarks.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from grader.benchmarks import classes, desk, engine, gradebook, repeat, stock
from grader.benchmarks.table import Row, markdown
from grader.course import find_root, load_course

SMALL_COURSE = Path(__file__).resolve().parent.parent / "tests" / "course_fixture"
LONG = ("repeat",)
WHAT = "engine, stock, doors, desk, flat, regrade, gradebook (default: all these), repeat (an hour)"


def main() -> int:
    """Measure what was asked for, by default everything (about fifteen minutes on two cores)."""
    parser = argparse.ArgumentParser(prog="python -m grader.benchmarks", description=main.__doc__)
    parser.add_argument("which", nargs="*", metavar="WHAT", help=WHAT)
    parser.add_argument("--chapter", default="06", help="the chapter for all but engine and flat")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks.md"))
    options = parser.parse_args()
    course = load_course(find_root(Path.cwd()))
    chapter = course.chapter(options.chapter)
    measurements: dict[str, Callable[[], Iterator[Row]]] = {
        "engine": lambda: engine.measure(course),
        "stock": lambda: stock.measure(course, chapter),
        "doors": lambda: stock.both_doors(course, chapter),
        "desk": lambda: desk.measure(chapter),
        "flat": lambda: classes.flat(SMALL_COURSE),
        "regrade": lambda: classes.regrade(course.root, chapter),
        "gradebook": lambda: gradebook.measure(course, chapter),
        "repeat": lambda: repeat.measure(course),
    }
    rows: list[Row] = []
    for name in options.which or [name for name in measurements if name not in LONG]:
        for row in measurements[name]():
            print(f"({row.label}) {row.what}: {row.figure:.3g} {row.unit} (aim: {row.aim}) {row.detail}", flush=True)
            rows.append(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(markdown(rows), encoding="utf-8")
    print(f"Written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
