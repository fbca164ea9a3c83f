"""The desk's end of the warm process: starts it, asks, gives up what takes too long, starts the next one in time."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import grader
from grader.student.orders import Answer, Order, answer_from_json

NO_END = "it gave no answer for {seconds:.0f} seconds and was stopped; is there a loop without an end?"
ENDED = "it ended the Python process before the tests were over ({how}); look for exit() or for too much memory."
BROKEN = "the process that runs the tests did not start: {why}; run `grader doctor`."

Listener = Callable[[Answer], None]


class Worker:
    """One process that runs tests, replaced when it is used up. Answers go to `listener`, on a thread of its own."""

    def __init__(self, listener: Listener, cold: bool = False, fork: bool | None = None) -> None:
        self._listener, self._cold = listener, cold
        self._forks = hasattr(os, "fork") if fork is None else fork
        self._order: Order | None = None
        self._at_work = 0
        self._is_spent = self._closed = False
        self._lock = threading.Lock()
        self._process = self._start()

    def ask(self, order: Order) -> None:
        """Have an order run; one that is still running is given up without an answer."""
        self.give_up("")
        with self._lock:
            self._order = order
            if self._is_spent:
                self._renew()
            self._send(order)

    def give_up(self, why: str) -> None:
        """Stop what runs, if anything does. With a reason, the listener hears it as the answer."""
        with self._lock:
            order, pid = self._order, self._at_work
            if order is None:
                return
            self._order = None
            if pid and self._forks:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            elif pid or not self._forks:
                self._replace()
        if why:
            self._listener(Answer(order.number, problem=why))

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            self._end(self._process)

    # -- the process -----------------------------------------------------------------------------------------------

    def _start(self) -> subprocess.Popen[str]:
        once = [] if self._forks else ["--once"]
        command = [sys.executable, "-m", "grader.student.warm", *once, *(["--cold"] if self._cold else [])]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment(),
            # Ctrl-C in the terminal is the desk's to handle, not the worker's
            start_new_session=sys.platform != "win32",
        )
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _send(self, order: Order) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError, OSError):  # the reader hears that it is over
            self._process.stdin.write(json.dumps(order.to_json()) + "\n")
            self._process.stdin.flush()

    def _replace(self) -> None:
        self._end(self._process)
        self._renew()

    def _renew(self) -> None:
        self._at_work, self._is_spent = 0, False
        self._process = self._start()

    def _spend(self) -> None:
        """The process has served its order: have the next one ready before it is needed."""
        self._is_spent = True
        if not self._cold:
            self._renew()

    def _end(self, process: subprocess.Popen[str]) -> None:
        with contextlib.suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None and process.stderr is not None
        errors: list[str] = []
        drain = threading.Thread(target=lambda: errors.extend(_tail(process.stderr)), daemon=True)
        drain.start()
        for line in process.stdout:
            self._hear(json.loads(line))
        drain.join(timeout=1)
        self._over(process, errors)

    def _hear(self, data: Mapping[str, Any]) -> None:
        if "pid" in data:
            with self._lock:
                self._at_work = data["pid"]
                late = self._order is None
            if late and self._forks:  # given up before it began
                with contextlib.suppress(ProcessLookupError):
                    os.kill(data["pid"], signal.SIGKILL)
        elif "number" in data:
            self._finish(data)

    def _finish(self, data: Mapping[str, Any]) -> None:
        with self._lock:
            wanted = self._order is not None and self._order.number == data["number"]
            order = self._order
            if wanted:
                self._order, self._at_work = None, 0
                if not self._forks:
                    self._spend()
        if not wanted or order is None:
            return
        if "ended" not in data:
            self._listener(answer_from_json(data))
        elif data["ended"] < 0 and sys.platform == "darwin":  # a library that refuses to work in a fork
            self._without_forks(order)
        else:
            self._listener(Answer(order.number, problem=ENDED.format(how=_how(data["ended"]))))

    def _without_forks(self, order: Order) -> None:
        with self._lock:
            self._forks = False
            self._replace()
        self.ask(order)

    def _over(self, process: subprocess.Popen[str], errors: list[str]) -> None:
        """The process is gone: start the next, and say so if it left an order unanswered."""
        code = process.wait()
        with self._lock:
            if self._closed or process is not self._process:
                return
            order, started = self._order, self._at_work != 0
            self._order, self._at_work, self._is_spent = None, 0, True
            if started:
                self._spend()
        if order is not None:
            why = ENDED.format(how=_how(code)) if started else BROKEN.format(why=errors[-1] if errors else _how(code))
            self._listener(Answer(order.number, problem=why, is_machine=not started))


def ask_all(orders: Sequence[Order], limit: float | None = None) -> list[Answer]:
    """Run orders one after the other in a process started for them, and give the answers.

    Raises:
        KeyboardInterrupt: if the student stopped it.
    """
    answers: queue.Queue[Answer] = queue.Queue()
    worker = Worker(answers.put, cold=True)
    try:
        return [_wait_for(worker, answers, order, limit) for order in orders]
    finally:
        worker.close()


def _wait_for(worker: Worker, answers: queue.Queue[Answer], order: Order, limit: float | None) -> Answer:
    worker.ask(order)
    try:
        return answers.get(timeout=limit)
    except queue.Empty:
        worker.give_up(NO_END.format(seconds=limit))
        return answers.get()


def environment(interactive: bool = False) -> dict[str, str]:
    """Give the environment of a process of the desk's."""
    here = str(Path(grader.__file__).parent.parent)  # a clone need not be installed
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    # nobody sits at the keyboard of the process that runs the tests: breakpoint() must not stop it
    quiet = {} if interactive else {"PYTHONUNBUFFERED": "1", "PYTHONBREAKPOINT": "0"}
    common = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **common, **quiet, "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}


def _tail(stream: IO[str] | None) -> list[str]:
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines = [*lines[-20:], line.rstrip()] if line.strip() else lines
    return lines


def _how(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit status {code}"
