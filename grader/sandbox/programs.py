"""A whole program that nobody trusts: run it, and tell what it printed and how it ended.

Exercises that judge generated programs are given `execute(program, timeout)`. When graded it runs each program in a
child of its own, behind the same layers as a student's code; at the desk in a process of its own.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import traceback
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

from grader.verdict import Verdict

SHOWN = 10_000
"""Characters kept of what a program prints; the rest is dropped."""


class Stream:
    """One of the program's own streams, written by whatever way: a pipe, of which a thread keeps the beginning."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._kept = b""
        self._read, write = os.pipe()
        self._stop, self._stopped = os.pipe()
        os.dup2(write, number)
        os.close(write)
        self.file = open(number, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while True:
            ready, _, _ = select.select([self._read, self._stop], [], [])
            if self._read in ready:
                data = os.read(self._read, 1 << 16)
                self._kept += data[: 4 * SHOWN - len(self._kept)]  # a character has four bytes at most
                if data:
                    continue
            return

    def end(self) -> str:
        """Give what was kept, once all written so far is read, whoever may still hold the pipe."""
        with suppress(OSError, ValueError):
            self.file.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._number)
        os.close(self._stopped)
        self._thread.join()
        return self._kept.decode("utf-8", errors="replace")


def outcome(exit_code: int | None, stdout: str = "", stderr: str = "", timed_out: bool = False) -> dict[str, Any]:
    """Give what `execute` returns; `exit_code` is None for a program that did not end by itself."""
    return {"exit_code": exit_code, "stdout": stdout[:SHOWN], "stderr": stderr[:SHOWN], "timed_out": timed_out}


def run_here(program: str) -> dict[str, Any]:
    """Run a program in this process, which is given up afterwards. If it ends the process, what it wrote is lost."""
    out, err = Stream(1), Stream(2)
    with redirect_stdout(out.file), redirect_stderr(err.file):
        exit_code = _exit_code(program)
    return outcome(exit_code, out.end(), err.end())


def _exit_code(program: str) -> int:
    # Python's own start gives a program these two; the warm process starts without it
    globals_of_a_script = {"__name__": "__main__", "exit": sys.exit, "quit": sys.exit}
    try:
        exec(compile(program, "<program>", "exec", dont_inherit=True), globals_of_a_script)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def run_beside(program: str, timeout: float) -> dict[str, Any]:
    """Run a program in a process of its own for at most `timeout` seconds; it is free there, as at any desk."""
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", program], capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return outcome(None, timed_out=True)
    out, err = (stream.decode(errors="replace").replace("\r\n", "\n") for stream in (done.stdout, done.stderr))
    return outcome(done.returncode, out, err)


def ended(verdict: Verdict, exit_code: int | None) -> dict[str, Any]:
    """Give the outcome of a program whose process was over before it could answer."""
    return outcome(None if verdict is Verdict.TIMEOUT else exit_code, timed_out=verdict is Verdict.TIMEOUT)
