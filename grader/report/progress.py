"""A bar with an estimate of the time left; lines of text where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told how many submissions are graded, of how many."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("grading", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class _Lines:
    """One line for every tenth of the work, with the time left."""

    def __init__(self) -> None:
        self._started, self._first, self._tenth = time.monotonic(), -1, 0

    def __call__(self, done: int, total: int) -> None:
        if self._first < 0:
            self._first = done
        tenth = 10 * done // total if total else 10
        graded = done - self._first
        if tenth > self._tenth and graded:
            self._tenth = tenth
            left = (time.monotonic() - self._started) / graded * (total - done)
            print(f"graded {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
