"""Trying something out in a forked child, so that nothing of it stays in the process that asks."""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import NoReturn

from grader.sandbox.policy.plan import PolicyError

_SECONDS = 20.0
_GOOD, _BAD = b"+", b"-"


def in_child(action: Callable[[], str]) -> str:
    """Run `action` in a forked child and give the text it returns.

    Raises PolicyError with the sentence of what it raised, or when it ends otherwise or takes more than 20 seconds.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child runs nothing that could wait for a lock of another thread, which is what the warning is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reader)
        _answer(action, writer)
    os.close(writer)
    try:
        answer = _read_all(reader)
    finally:
        os.close(reader)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if answer[:1] == _GOOD:
        return answer[1:].decode()
    if answer[:1] == _BAD:
        raise PolicyError(answer[1:].decode())
    raise PolicyError(f"the trial ended without an answer (status {os.waitstatus_to_exitcode(status)})")


def _answer(action: Callable[[], str], writer: int) -> NoReturn:
    try:
        try:
            answer = _GOOD + action().encode()
        except BaseException as error:  # whatever it is, it must not unwind into the caller's program
            answer = _BAD + (str(error) or type(error).__name__).encode()
        os.write(writer, answer)
    finally:
        os._exit(0)


def _read_all(reader: int) -> bytes:
    deadline = time.monotonic() + _SECONDS
    answer = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            break
        answer += part
    return answer
