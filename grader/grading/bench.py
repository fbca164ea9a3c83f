"""Where a submission's module lives while it is graded: a sandboxed child, forked afresh for each exercise."""

from __future__ import annotations

import time
from dataclasses import dataclass

from grader.course import Chapter, Exercise
from grader.sandbox.proxy import Link, SandboxEnd, StudentError
from grader.sandbox.session import Child, Limits, SandboxBroken, Supervisor
from grader.testing.suite import LoadFailure, describe
from grader.verdict import Verdict

CHAPTER_SECONDS = 600.0
"""Wall time for a whole submission: a hundred times what one needs, and less than after which a controller is given up.

Without it a file that is as slow as it may be in every test would look like a fault of the machine.
"""
LOAD_SECONDS = 5.0
"""CPU time for running the file itself; a file that only defines functions needs some milliseconds."""


@dataclass(frozen=True)
class HandIn:
    """One student's file for one chapter: bytes that nobody on this side reads."""

    student: str
    chapter: str
    file: str
    """Its path inside the submission."""
    kind: str
    """"py" or "ipynb"."""
    source: bytes


class SandboxBench:
    """The workbench of one submission: gives each test a link to a living child, in which the file is loaded."""

    def __init__(self, supervisor: Supervisor, chapter: Chapter, hand_in: HandIn) -> None:
        self._supervisor, self._chapter, self._hand_in = supervisor, chapter, hand_in
        self._exercise: Exercise | None = None
        self._child: Child | None = None
        self._link: Link | None = None
        self._problem: LoadFailure | SandboxEnd | None = None
        self._started = time.monotonic()
        self._tested = False
        """Whether the student's code has seen inputs of a test, which it could have stored and now repeat."""

    def take_up(self, exercise: Exercise) -> None:
        """Turn to the next exercise: the child of the last one ends."""
        self.clear()
        self._exercise = exercise

    def clear(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
        self._child = self._link = None

    def link(self) -> Link:
        """Give the link for one test and start its budget. Raises LoadFailure or SandboxEnd."""
        assert self._exercise is not None
        if self._problem is not None:  # the file behaves alike every time it is loaded
            raise self._problem
        if self._child is None or self._link is None or not self._child.alive:
            self._child, self._link = self._start(self._exercise)
        if time.monotonic() - self._started > CHAPTER_SECONDS:
            raise SandboxEnd(Verdict.TIMEOUT, "not run: the tests before took ten minutes")
        self._tested = True
        self._child.start_budget(self._exercise.limits.seconds)
        return self._link

    def _start(self, exercise: Exercise) -> tuple[Child, Link]:
        limits = exercise.limits
        try:
            # the kernel's own limit is for the child's whole life: far above what its tests may use together
            child = self._supervisor.child(Limits(LOAD_SECONDS + 60 * limits.seconds, limits.memory_mb << 20))
        except SandboxBroken as error:
            raise SandboxEnd(Verdict.INFRA, str(error)) from None
        link = Link(child)
        child.start_budget(LOAD_SECONDS)
        name = f"chapters.{self._chapter.name}.exercises"
        file = f"{self._chapter.name}/{self._hand_in.file.rpartition('/')[2]}"
        try:
            link.request("load", name, file, self._hand_in.kind, self._hand_in.source)
        except SandboxEnd as end:
            if end.verdict is not Verdict.INFRA:
                self._problem = SandboxEnd(end.verdict, f"when the file is loaded, {end.sentence}")
                raise self._problem from None
            raise
        except BaseException as error:
            if not isinstance(error, StudentError):
                raise
            self._problem = LoadFailure(f"the file cannot be loaded: {describe(error, quote=not self._tested)}")
            raise self._problem from None
        return child, link
