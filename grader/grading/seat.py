"""Which processor a controller sits on, together with its warm process and all the children of that.

Controller and child take turns: while one works the other waits. On one processor a call between them costs about
half of what it costs across two, where each must be woken from sleep and finds its caches cold.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress

CROWDED = 0.6
"""Less than this share of a processor means that somebody else sits on it too."""
LONG_ENOUGH = 0.2
"""Seconds of wall time below which the share says little."""


class Seat:
    """One processor for this process and its warm one; another is taken when it proves crowded."""

    def __init__(self, place: int, warm_pid: int) -> None:
        self._processors = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        self._place, self._warm_pid = place, warm_pid
        self.begin()
        self._sit()

    def begin(self) -> None:
        """Start to watch how much of the processor this controller and its children get."""
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def end(self, children_cpu: float) -> None:
        """Move on if it was less than a fair share; `children_cpu` is in seconds since `begin`."""
        wall = time.monotonic() - self._wall
        used = time.process_time() - self._cpu + children_cpu
        if wall > LONG_ENOUGH and used < CROWDED * wall:
            self._place += 1
            self._sit()

    def _sit(self) -> None:
        if len(self._processors) > 1:
            chosen = {self._processors[self._place % len(self._processors)]}
            with suppress(OSError):  # a processor can be taken away; then the kernel's own choice must do
                os.sched_setaffinity(self._warm_pid, chosen)
                os.sched_setaffinity(0, chosen)
