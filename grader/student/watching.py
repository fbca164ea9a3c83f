"""`grader watch`: from a saved file to a verdict, again and again.

One queue, one loop. A thread tells of saved files, one of keys, one of answers; only the loop acts and only the loop
writes. The tests run in the warm process.
"""

from __future__ import annotations

import ast
import contextlib
import queue
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.course import Chapter, Course, CourseError, Exercise
from grader.student import hints
from grader.student.commands import debug_command, pytest_command
from grader.student.drawer import FOLDER, Drawer
from grader.student.keys import Keys
from grader.student.names import Target
from grader.student.notice import Notice
from grader.student.orders import Answer
from grader.student.paper import Paper
from grader.student.standing import LIMIT, Standing, next_after, order_for, read_answer, standings
from grader.student.views import JsonView, PaperView, View
from grader.student.work import Work, files, read_text, read_work, short
from grader.student.worker import NO_END, Worker, environment
from grader.verdict import State


@dataclass(frozen=True)
class Saved:
    """Files were saved."""

    paths: frozenset[Path]


@dataclass(frozen=True)
class Pressed:
    """A key was pressed."""

    key: str


@dataclass(frozen=True)
class Polling:
    """Changes are looked for, not told of."""

    reason: str


Event = Saved | Pressed | Polling | Answer


class Watch:
    """The loop and what it knows: the chapter and the exercise in hand, the file as it last was."""

    def __init__(self, course: Course, target: Target, drawer: Drawer, paper: Paper | None) -> None:
        self._course, self._drawer = course, drawer
        self._only = target.exercise
        self._chapter, self._focus = target.chapter, target.exercise
        self._works: dict[str, Work] = {}
        self._last: Standing | None = None
        self._events: queue.Queue[Event] = queue.Queue()
        self._orders: dict[int, tuple[Work, Sequence[Exercise]]] = {}
        self._number, self._asked = 0, 0.0
        self._keys = Keys(lambda key: self._events.put(Pressed(key)))
        self._view: View = PaperView(paper, self._keys.is_terminal) if paper is not None else JsonView()

    def run(self) -> None:
        """Watch until the student quits. Raises KeyboardInterrupt as any program does."""
        for chapter in self._course.chapters:
            self._remember(chapter)
        worker = Worker(self._events.put)
        notice = Notice(
            [chapter.folder for chapter in self._course.chapters],
            self._course.root / FOLDER,
            lambda paths: self._events.put(Saved(frozenset(paths))),
            lambda reason: self._events.put(Polling(reason)),
        )
        notice.start()
        try:
            with self._keys.raw():
                self._keys.start()
                self._begin(worker)
                while self._step(worker):
                    pass
        finally:
            self._keys.stop()
            notice.stop()
            worker.close()

    # -- the loop --------------------------------------------------------------------------------------------------

    def _begin(self, worker: Worker) -> None:
        work = self._works.get(self._chapter.name)
        if self._focus is None:
            following = next_after(self._standing())
            self._focus = following.exercise if following else self._chapter.exercises[0]
        self._view.begin(self._chapter, self._focus, self._place(self._focus))
        if work is not None and work.is_begun(self._focus):
            self._ask(worker, work, [self._focus])

    def _step(self, worker: Worker) -> bool:
        """Act on one event; give False to end."""
        try:
            event = self._events.get(timeout=1.0)
        except queue.Empty:
            if self._orders and time.monotonic() - self._asked > LIMIT:
                worker.give_up(NO_END.format(seconds=LIMIT))
            return True
        if isinstance(event, Saved):
            self._on_saved(worker, event.paths)
        elif isinstance(event, Polling):
            self._view.note(f"Watching by polling: {event.reason}. A verdict comes a little later; a checks at once.")
        elif isinstance(event, Answer):
            self._on_answer(event)
        else:
            return self._on_key(worker, event.key)
        return True

    def _on_saved(self, worker: Worker, paths: frozenset[Path]) -> None:
        for chapter in self._course.chapters:
            own = {path.name for path in paths if path.parent.resolve() == chapter.folder.resolve()}
            changed = [file for file in files(chapter).values() if file.name in own]
            if changed or own & {chapter.public_tests.name, "chapter.toml"}:
                self._on_changed(worker, chapter, changed)

    def _on_changed(self, worker: Worker, chapter: Chapter, changed: Sequence[Path]) -> None:
        before = self._works.get(chapter.name)
        for file in changed:
            if problem := syntax_problem(file):
                self._chapter = chapter
                self._view.unreadable(problem)
                self._view.menu()
                return
        prefer = "" if len(changed) != 1 else "notebook" if changed[0].suffix == ".ipynb" else "module"
        work = self._remember(chapter, prefer)
        if work is None:
            return
        old = {e.id: before.fingerprint(e) for e in chapter.exercises} if before and before.file == work.file else {}
        affected = [e for e in chapter.exercises if old.get(e.id) != work.fingerprint(e) and work.is_begun(e)]
        if chapter is not self._chapter:
            self._chapter, self._focus = chapter, None
        if self._only is not None and self._only.chapter == chapter.name:
            affected = [self._only]
        if not affected and self._focus is not None and work.is_begun(self._focus):
            affected = [self._focus]
        if affected:
            direct = [e for e in affected if before is None or before.text(e) != work.text(e)]
            self._focus = (direct or affected)[0]
            self._ask(worker, work, affected)

    def _on_answer(self, answer: Answer) -> None:
        work, exercises = self._orders.pop(answer.number, (None, ()))
        if work is None:
            return
        seconds = time.monotonic() - self._asked
        run = read_answer(work, exercises, answer, self._drawer)
        if run.standings:
            self._drawer.save()
        focus = next((s for s in run.standings if s.exercise is self._focus), None)
        self._last = focus or next(iter(run.standings), None)
        self._view.verdicts(run, self._focus, seconds)
        if run.standings and all(s.state is State.RIGHT for s in run.standings):
            self._view.onwards(self._chapter, next_after(self._standing(), self._focus))
        self._view.menu()

    # -- keys ------------------------------------------------------------------------------------------------------

    def _on_key(self, worker: Worker, key: str) -> bool:
        if key in ("q", "\x04"):
            return False
        actions: dict[str, Callable[[], None]] = {
            "h": self._hint,
            "n": lambda: self._next(worker),
            "l": self._list,
            "d": self._debug,
            "f": self._full,
            "a": lambda: self._all(worker),
            "\r": lambda: self._again(worker),
        }
        action = actions.get("\r" if key == "\n" else key.lower())
        try:
            if action is not None:
                action()
        except CourseError as error:
            self._view.note(str(error))
        if not self._orders:
            self._view.menu()
        return True

    def _hint(self) -> None:
        work = self._works.get(self._chapter.name)
        if work is not None and self._focus is not None:
            self._view.ladder(hints.climb(work, self._focus, self._drawer))

    def _next(self, worker: Worker) -> None:
        following = next_after(self._standing(), self._focus)
        if following is None:
            chapters = [c for c in self._course.chapters if c.number > self._chapter.number]
            if not chapters:
                self._view.note("That was the last chapter.")
                return
            self._chapter, self._only = chapters[0], None
            self._focus = self._chapter.exercises[0]
        else:
            self._focus, self._only = following.exercise, None
        work = self._works.get(self._chapter.name)
        if work is not None and work.is_begun(self._focus):
            self._ask(worker, work, [self._focus])
        else:
            self._view.take_up(self._focus, self._place(self._focus))

    def _again(self, worker: Worker) -> None:
        work = self._works.get(self._chapter.name)
        if work is not None and self._focus is not None:
            self._ask(worker, work, [self._focus])

    def _list(self) -> None:
        self._view.listing(self._chapter, self._standing(), self._focus)

    def _all(self, worker: Worker) -> None:
        work = self._remember(self._chapter)
        begun = [e for e in self._chapter.exercises if work is not None and work.is_begun(e)]
        if work is None or not begun:
            self._view.note("Nothing is begun in this chapter.")
        else:
            self._ask(worker, work, begun)

    def _debug(self) -> None:
        work, focus = self._works.get(self._chapter.name), self._focus
        failed = [test for test in self._last.tests if test.lesson is not None] if self._last else []
        if work is None or focus is None or not failed:
            self._view.note("No check fails, so there is nothing to debug.")
            return
        test = min(failed, key=lambda t: int((t.lesson or {})["size"]))
        suite = self._chapter.public_tests.resolve()
        self._lend(debug_command(suite, work.file.resolve(), focus.functions, test.id))

    def _full(self) -> None:
        work = self._works.get(self._chapter.name)
        if work is not None and self._focus is not None:
            self._lend(pytest_command(work, [self._focus]))

    def _lend(self, command: Sequence[str]) -> None:
        with self._keys.lent(), contextlib.suppress(KeyboardInterrupt):
            subprocess.run(command, env=environment(interactive=True), check=False)

    # -- what is known ---------------------------------------------------------------------------------------------

    def _ask(self, worker: Worker, work: Work, exercises: Sequence[Exercise]) -> None:
        self._number += 1
        self._orders = {self._number: (work, exercises)}
        self._asked = time.monotonic()
        worker.ask(order_for(work, exercises, self._number))

    def _remember(self, chapter: Chapter, prefer: str = "") -> Work | None:
        try:
            self._works[chapter.name] = read_work(chapter, prefer)
        except CourseError as error:
            self._view.note(str(error))
            return None
        return self._works[chapter.name]

    def _place(self, exercise: Exercise) -> str:
        work = self._works.get(self._chapter.name)
        return work.place(exercise) if work is not None else short(self._chapter.stub)

    def _standing(self) -> list[Standing]:
        return standings([self._chapter], self._drawer, run=False)[self._chapter.name]


def syntax_problem(file: Path) -> list[str]:
    """Say what Python cannot read in a file: the sentence, then the line and a mark below it; [] if it can."""
    if file.suffix == ".ipynb" or not file.is_file():
        return []
    try:
        text = read_text(file)
        ast.parse(text)
    except CourseError as error:
        return [str(error)]
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line, column = getattr(error, "lineno", 0) or 0, getattr(error, "offset", 0) or 0
        sentence = f"{short(file)}:{line}: {getattr(error, 'msg', error)}"
        lines = text.splitlines()
        return [sentence, lines[line - 1], " " * max(0, column - 1) + "^"] if 0 < line <= len(lines) else [sentence]
    return []
