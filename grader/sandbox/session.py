"""The controller's side of the processes: start the warm one, ask for supervisors and children, keep their limits.

A child that is silent is judged by the CPU time it used, so that a loaded machine changes no verdict. One that uses
none and is not runnable waits for what never comes; the wall clock is only the last resort.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grader.sandbox import wire
from grader.sandbox.agent import FIRST_READ, CallBack, Frame
from grader.sandbox.policy import Plan
from grader.sandbox.programs import ended
from grader.sandbox.proxy import Link, SandboxEnd
from grader.sandbox.scratch import is_overfull, remove
from grader.verdict import Verdict

TICK = 0.05
"""Seconds between two looks at a child that is silent."""
IDLE_LIMIT = 3.0
"""Seconds of wall time a child may do nothing, not even be runnable, while it owes answers: in sum during one test."""
WALL_FACTOR = 30
"""Wall limit over CPU limit: a last resort, far beyond what a loaded machine needs."""
START_LIMIT = 120.0
BESIDE = 250
"""Between the slot of a submission and that of a program which runs at the same time: two that run at once differ."""
MOST_SECONDS = 10.0
PROGRAM_MEMORY = 256 << 20
"""Seconds of CPU at most, and bytes, that a program may take which an exercise executes."""
_CREDENTIALS = struct.Struct("3i")


class SandboxBroken(Exception):
    """The machine's own fault: the warm process or a supervisor is gone, or a layer could not be entered."""


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True)
class Warm:
    """A warm process that is a child of this one, and the socket on which it takes orders."""

    pid: int
    control: socket.socket


class Zygote:
    """The warm process, as the controller that it serves sees it."""

    def __init__(self, plan: Plan, warm: Warm) -> None:
        """Wait until it is ready. Raises SandboxBroken."""
        self._plan, self._warm = plan, warm
        self._scratch = tempfile.TemporaryDirectory(prefix="grader-")
        os.chmod(self._scratch.name, 0o711)  # a child of another user passes through, and lists nothing
        _expect(warm.control, b"ready")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._warm.pid

    def supervisor(self, beside: bool = False) -> Supervisor:
        """Start the supervisor of one submission, or of a program that runs `beside` one. Raises SandboxBroken."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        scratch = tempfile.mkdtemp(dir=self._scratch.name)
        os.chmod(scratch, 0o700)
        plan = {**asdict(self._plan), "layers": sorted(self._plan.layers), "scratch": scratch}
        plan["slot"] += BESIDE if beside else 0
        with theirs:
            _ask(self._warm.control, json.dumps(plan).encode(), [theirs.fileno()], b"ok")
        _expect(ours, b"ready")
        return Supervisor(ours, scratch, self._plan)

    def is_gone(self) -> bool:
        """Tell whether the process has ended; it never does so by itself."""
        with suppress(ChildProcessError):
            return os.waitpid(self._warm.pid, os.WNOHANG)[0] != 0
        return True

    def close(self) -> None:
        """End the warm process and all that it forked."""
        self._warm.control.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._warm.pid, signal.SIGKILL)
            os.waitpid(self._warm.pid, 0)
        self._scratch.cleanup()


def _ask(control: socket.socket, message: bytes, fds: Sequence[int], expected: bytes) -> None:
    try:
        socket.send_fds(control, [message], list(fds))
    except OSError as error:
        raise SandboxBroken(f"a process of the sandbox is gone: {error.strerror}") from None
    _expect(control, expected)


def _expect(control: socket.socket, expected: bytes) -> None:
    answer = _listen(control)
    if answer != expected:
        raise SandboxBroken(answer.decode(errors="replace"))


def _listen(control: socket.socket) -> bytes:
    control.settimeout(START_LIMIT)
    try:
        answer = control.recv(1 << 16)
    except OSError as error:
        raise SandboxBroken(f"a process of the sandbox does not answer: {error}") from None
    if not answer:
        raise SandboxBroken("a process of the sandbox ended unexpectedly")
    return answer


class Supervisor:
    """One submission's processes."""

    def __init__(self, control: socket.socket, scratch: str, plan: Plan) -> None:
        self._control, self._scratch, self._plan = control, scratch, plan
        self.cpu_seconds = 0.0
        """CPU time of the children that have ended."""
        self.strays = 0
        """Processes that children left behind and that were ended."""

    def child(self, limits: Limits) -> Child:
        """Start a child. Raises SandboxBroken."""
        ours, theirs = socket.socketpair()
        # with every message the kernel then says who sent it: the child's process id, as seen from here
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        request = {"do": "fork", "limits": asdict(limits)}
        with theirs:
            _ask(self._control, json.dumps(request).encode(), [theirs.fileno()], b"ok")
        ours.settimeout(START_LIMIT)
        hello, ancillary, _, _ = ours.recvmsg(1 << 12, socket.CMSG_SPACE(_CREDENTIALS.size))
        if hello != b"H" or not ancillary:
            raise SandboxBroken(hello[1:].decode(errors="replace") or "a child did not start")
        pid, _, _ = _CREDENTIALS.unpack_from(ancillary[0][2])
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return Child(self, ours, pid)

    def end_child(self) -> dict[str, Any]:
        """End the child and what it left behind, and say how it ended. Raises SandboxBroken."""
        with suppress(OSError):
            self._control.send(b'{"do": "end"}')
        answer = _listen(self._control)
        if answer[:1] != b"{":  # a sentence that says what went wrong
            raise SandboxBroken(answer.decode(errors="replace"))
        ended: dict[str, Any] = json.loads(answer)
        self.cpu_seconds += ended["cpu"]
        self.strays += int(ended["strays"])
        return ended

    def has_written_too_much(self) -> bool:
        """Tell whether the scratch folder is overfull; with namespaces the kernel sees to that."""
        plan = self._plan
        if not plan.layers or "namespaces" in plan.layers:
            return False
        return is_overfull(self._scratch, plan.scratch_bytes, plan.scratch_files)

    def close(self) -> None:
        """End the supervisor and all below it."""
        self._control.close()
        remove(self._scratch)


class Child:
    """One child behind its socket: carries requests, and ends it when a limit is reached."""

    def __init__(self, supervisor: Supervisor, data: socket.socket, pid: int) -> None:
        self._supervisor, self._data, self._pid = supervisor, data, pid
        # The kernel's own time limit: Python's would cost one more system call for each message.
        self._data.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._data.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 0, int(TICK * 1e6)))
        self._clock = (~pid << 3) | 2  # the kernel's id for the CPU clock of another process
        self.alive = True
        self.start_budget(float("inf"))

    def start_budget(self, cpu_seconds: float) -> None:
        """From now on the child may use so many seconds of CPU."""
        self._budget = cpu_seconds
        self._cpu_start = self._cpu()
        self._wall_start = time.monotonic()
        self._idle, self._checked_at, self._last_cpu = 0.0, self._wall_start, self._cpu_start

    def exchange(self, request: bytes, serve: CallBack) -> Frame:
        """Send one request, serve callbacks, give the reply. Raises SandboxEnd; then the child is over."""
        try:
            self._resume()
            self._send(b"Q", request)
            while True:
                kind, frame = self._receive()
                if kind == b"R":
                    return frame
                if kind != b"C":
                    raise wire.WireError("an unknown kind of frame")
                answer = serve(frame)
                self._resume()
                self._send(b"A", answer)
        except wire.WireError:
            self.end()
            raise SandboxEnd(Verdict.PROTOCOL, "its answer did not follow the protocol") from None
        except BaseException:
            self.end()
            raise

    def end(self) -> dict[str, Any]:
        """End the child, whatever it does."""
        if not self.alive:
            return {"code": 0, "cpu": 0.0, "strays": 0}
        self.alive = False
        self._data.close()
        try:
            return self._supervisor.end_child()
        except SandboxBroken as error:
            raise SandboxEnd(Verdict.INFRA, str(error)) from None

    # -- the socket ------------------------------------------------------------------------------------------------

    def _send(self, kind: bytes, frame: Frame) -> None:
        view = memoryview(kind + bytes(frame))
        while view:
            try:
                view = view[self._data.send(view) :]
            except BlockingIOError:
                self._check_budget()
            except OSError:
                self._lost()

    def _receive(self) -> tuple[bytes, Frame]:
        first = self._some()
        while len(first) < 1 + wire.PREFIX.size:
            self._check_now_and_then()
            first += self._some()
        lengths = wire.PREFIX.unpack_from(first, 1)
        wire.check_lengths(*lengths)
        total = 1 + wire.PREFIX.size + sum(lengths)
        if len(first) < total:
            first = self._rest(first, total)
        elif len(first) > total:
            raise wire.WireError("more bytes than the frame has")
        return first[:1], memoryview(first)[1:]

    def _some(self) -> bytes:
        while True:
            try:
                data = self._data.recv(FIRST_READ)
            except BlockingIOError:
                self._check_budget()
                continue
            except OSError:
                data = b""
            if not data:
                self._lost()
            return data

    def _rest(self, first: bytes, total: int) -> bytes:
        received = bytearray(total)
        received[: len(first)] = first
        view = memoryview(received)[len(first) :]
        while view:
            self._check_now_and_then()
            try:
                size = self._data.recv_into(view)
            except BlockingIOError:
                self._check_budget()
                continue
            if not size:
                self._lost()
            view = view[size:]
        return bytes(received)

    # -- limits ----------------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        """Go on after time that was this side's own: the child is not to be blamed for it."""
        self._checked_at, self._last_cpu = time.monotonic(), self._cpu()
        self._check_limits(self._checked_at, self._last_cpu)

    def _check_now_and_then(self) -> None:
        """Check while an answer comes in drops, so that no wait for one ever runs out."""
        if time.monotonic() - self._checked_at > TICK:
            self._check_budget()

    def _check_budget(self) -> None:
        now, cpu = time.monotonic(), self._cpu()
        rested = (now - self._checked_at) - (cpu - self._last_cpu)
        # a child that wrote more than the socket holds waits for this side
        if rested > 0 and not self._is_runnable() and not select.select([self._data], [], [], 0)[0]:
            self._idle += rested
        self._checked_at, self._last_cpu = now, cpu
        self._check_limits(now, cpu)
        if self._supervisor.has_written_too_much():
            self._stop("it wrote more than it may", Verdict.OUTPUT)

    def _check_limits(self, now: float, cpu: float) -> None:
        if cpu - self._cpu_start > self._budget:
            self._stop(f"it used more than {self._budget:g} s of computing time")
        if self._idle > IDLE_LIMIT:
            self._stop("it waits for something that never comes")
        if now - self._wall_start > max(60.0, WALL_FACTOR * self._budget):
            self._stop(f"it did not finish, though it may use {self._budget:g} s of computing time")

    def _stop(self, sentence: str, verdict: Verdict = Verdict.TIMEOUT) -> None:
        self.end()
        raise SandboxEnd(verdict, sentence)

    def _cpu(self) -> float:
        try:
            return time.clock_gettime(self._clock)
        except OSError:  # it has ended; the socket will say so
            return 0.0

    def _is_runnable(self) -> bool:
        return any(self._state(task) in (b"R", b"D") for task in Path(f"/proc/{self._pid}/task").glob("*/stat"))

    def _state(self, task: Path) -> bytes:
        try:
            return task.read_bytes().rpartition(b")")[2].split()[0]
        except OSError:  # the thread has ended
            return b""

    def _lost(self) -> None:
        """The child closed its socket: find out why it ended, and say so."""
        ended = self.end()
        code = int(ended["code"])
        if -code == signal.SIGXCPU:
            raise SandboxEnd(Verdict.TIMEOUT, "it used more computing time than the exercise may")
        if -code == signal.SIGXFSZ:
            raise SandboxEnd(Verdict.OUTPUT, "it wrote a larger file than it may")
        if code < 0 and -code != signal.SIGKILL:
            known = -code in signal.valid_signals() and -code < signal.SIGRTMIN
            name = signal.Signals(-code).name if known else f"signal {-code}"
            raise SandboxEnd(Verdict.CRASHED, f"its process crashed ({name})", code)
        raise SandboxEnd(Verdict.CRASHED, "its process ended before it answered", code)


def execute(zygote: Zygote, program: str, timeout: float) -> dict[str, Any]:
    """Run a program that nobody trusts in a supervisor and a child of its own.

    `timeout` counts its seconds of CPU; whoever asks is not trusted either, so it has an upper end.
    Raises SandboxEnd if the machine itself failed.
    """
    timeout = timeout if 0 < timeout < MOST_SECONDS else MOST_SECONDS
    try:
        supervisor = zygote.supervisor(beside=True)
    except SandboxBroken as error:
        raise SandboxEnd(Verdict.INFRA, str(error)) from None
    try:
        child = supervisor.child(Limits(timeout + 1, PROGRAM_MEMORY))
        child.start_budget(timeout)
        value: dict[str, Any] = Link(child).request("program", program)
        child.end()
        return value
    except SandboxBroken as error:
        raise SandboxEnd(Verdict.INFRA, str(error)) from None
    except SandboxEnd as end:
        if end.verdict is Verdict.INFRA:
            raise
        return ended(end.verdict, end.exit_code)
    finally:
        supervisor.close()
