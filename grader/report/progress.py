"""A bar with an estimate of the time left; lines of text where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(doing: str = "grading", done: str = "graded") -> Iterator[Callable[[int, int], None]]:
    """Give a function that is told with how many submissions the work is done, of how many."""
    if not sys.stderr.isatty():
        yield ProgressLines(done)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda finished, total: bar.update(task, completed=finished, total=total)


class ProgressLines:
    """One line for every tenth of the work, with the time left."""

    def __init__(self, word: str) -> None:
        self._word = word
        self._started, self._first, self._tenth = time.monotonic(), -1, 0

    def __call__(self, done: int, total: int) -> None:
        if self._first < 0:
            self._first = done
        tenth = 10 * done // total if total else 10
        graded = done - self._first
        if tenth > self._tenth and graded:
            self._tenth = tenth
            left = (time.monotonic() - self._started) / graded * (total - done)
            bar = f"[{'#' * tenth}{'.' * (10 - tenth)}]"
            print(f"{bar} {self._word} {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
