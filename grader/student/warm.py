"""The warm process: has torch, pytest and the tests' libraries loaded, and runs each order in a fork of itself.

Orders come in on stdin, one JSON line each; for each the id of the process that works on it and then the answer go
out. It has one thread and serves one order at a time. Where there is no fork (Windows), or where a fork cannot use
the libraries (some builds on macOS), it serves a single order itself and ends; whoever asked starts the next one
ahead of need.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from grader.course import CourseError
from grader.student.orders import Order, order_from_json

MAX_PRINTED = 20_000
MAX_CPU = 60
ONCE, COLD = "--once", "--cold"


def main() -> int:
    """Serve orders until stdin ends; with --once serve one, in this very process."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what a library or the student prints must not come between the answers
    once = ONCE in sys.argv or not hasattr(os, "fork")
    _load()
    _send(out, {"ready": os.getpid()})
    is_loaded = COLD in sys.argv
    while True:
        if not is_loaded and not _is_asked():
            _load_the_rest()
            is_loaded = True
        line = sys.stdin.readline()
        if not line:
            return 0
        order = order_from_json(json.loads(line))
        if once:
            _send(out, {"pid": os.getpid()})
            _send(out, _run(order))
            return 0
        _in_fork(order, out)


def _send(out: IO[str], data: Mapping[str, Any]) -> None:
    out.write(json.dumps(data) + "\n")
    out.flush()


def _load() -> None:
    """Import what every order needs."""
    import torch

    import grader.testing.plugin  # noqa: F401

    torch.set_num_threads(1)  # a fork inherits no threads


def _is_asked() -> bool:
    """Whether an order waits already."""
    if sys.platform == "win32":
        return False
    return bool(select.select([sys.stdin], [], [], 0)[0])


def _load_the_rest() -> None:
    """Import what some orders need, and run once what is slow the first time, while the student still types."""
    from grader.testing.plugin import run_pytest

    with tempfile.TemporaryDirectory() as folder:
        rehearsal = Path(folder) / "test_rehearsal.py"
        rehearsal.write_text("import hypothesis\n\n\ndef test(rng): ...\n", encoding="utf-8")
        run_pytest([rehearsal], [])
    if sys.platform != "darwin":  # its libraries refuse to work in a fork once they have worked before it
        from grader.sandbox.prewarm import prewarm

        prewarm()
    gc.collect()
    gc.freeze()


def _in_fork(order: Order, out: IO[str]) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _limit_cpu()
        with contextlib.suppress(BaseException), os.fdopen(writing, "w", encoding="utf-8") as pipe:
            json.dump(_run(order), pipe)
        os._exit(0)
    os.close(writing)
    _send(out, {"pid": pid})
    with os.fdopen(reading, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    _send(out, _answer(text, order.number, os.waitstatus_to_exitcode(status)))


def _limit_cpu() -> None:
    """End a loop that nobody is left to stop, as when the terminal was closed."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU, MAX_CPU))


def _answer(text: str, number: int, code: int) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"number": number, "ended": code}


def _run(order: Order) -> dict[str, Any]:
    """Run the tests and give the answer as plain data; what is printed meanwhile is part of it."""
    from grader.testing.plugin import run_file

    answer: dict[str, Any] = {"number": order.number}
    with tempfile.TemporaryFile() as file:
        _divert(file.fileno())
        try:
            results = run_file(Path(order.suite), Path(order.file), order.exercises)
        except CourseError as error:
            answer.update(problem=str(error), is_machine=True)
        else:
            answer["tests"] = [
                {
                    "id": result.id,
                    "exercise": result.exercise,
                    "weight": result.weight,
                    "claim": result.title,
                    "verdict": result.verdict,
                    "sentence": result.message,
                    "lesson": result.lesson and result.lesson.to_json(),
                }
                for result in results
            ]
        sys.stdout.flush()
        file.seek(0)
        answer["printed"] = file.read(MAX_PRINTED).decode("utf-8", "replace")
    return answer


def _divert(fd: int) -> None:
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)


if __name__ == "__main__":
    sys.exit(main())
