"""The warm process: started clean, loaded once, forked for every submission. It knows no test, no answer, no secret.

Three roles by fork: the zygote forks a supervisor for a submission; the supervisor confines itself and forks a child
for each exercise; the child confines itself further and answers the wire. Zygote and supervisor read only from
sockets whose other end the controller holds.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any, NoReturn

from grader.sandbox import wire
from grader.sandbox.agent import FIRST_READ, Agent, Frame
from grader.sandbox.pages import join_pages, refuse_shared_memory
from grader.sandbox.policy import Plan, PolicyError, Room, enter_child, enter_supervisor
from grader.sandbox.policy.process import end_all
from grader.sandbox.prewarm import prewarm

MESSAGE = 1 << 16


def plan_from(data: dict[str, Any]) -> Plan:
    """Rebuild a plan that crossed as JSON."""
    lists = {key: tuple(data[key]) for key in ("readable", "keep_fds")}
    return Plan(**{**data, **lists, "layers": frozenset(data["layers"])})


def prepare() -> None:
    """Load what student code may need, and put this process's memory in order for being forked."""
    prewarm()
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page
    join_pages()
    refuse_shared_memory()


def serve(control: socket.socket, course_path: str) -> NoReturn:
    """Be the warm process until the controller closes its end of the control socket."""
    _detach(control, course_path)
    control.send(b"ready")
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE, 1)
        _reap()
        if not message:
            os._exit(0)
        threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1
        if threads != 1:
            control.send(b"the warm process has several threads; forking it would be unsafe")
            continue
        if os.fork() == 0:
            control.close()
            _supervise(socket.socket(fileno=fds[0]), plan_from(json.loads(message)))
        os.close(fds[0])
        control.send(b"ok")


def _detach(control: socket.socket, course_path: str) -> None:
    """Let go of what this process was started with: open files, folder, arguments, the course's place."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    # The machine's own package is loaded; student code has no business finding the course's folder.
    sys.path[:] = [path for path in sys.path if path != course_path]
    sys.argv[:] = sys.orig_argv[:] = []


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _supervise(control: socket.socket, plan: Plan) -> NoReturn:
    try:
        room = enter_supervisor(replace(plan, keep_fds=(*plan.keep_fds, control.fileno())))
        control.send(b"ready")
        _serve_controller(control, plan, room)
    except PolicyError as error:
        with suppress(OSError):
            control.send(str(error).encode())
    except BaseException as error:  # nothing may unwind into the zygote's own stack
        with suppress(OSError):
            control.send(f"{type(error).__name__}: {error}".encode())
    os._exit(0)


def _serve_controller(control: socket.socket, plan: Plan, room: Room) -> None:
    child = 0
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE, 1)
        if not message:
            return
        request = json.loads(message)
        if request["do"] == "fork":
            child = os.fork()
            if child == 0:
                control.close()
                _answer(fds[0], replace(plan, **request["limits"], keep_fds=(fds[0],)), room)
            os.close(fds[0])
            control.send(b"ok")
        else:
            control.send(json.dumps(_end_child(child, room)).encode())


def _end_child(child: int, room: Room) -> dict[str, float]:
    """End the child if it still runs, and whatever it left behind; tell how it ended."""
    with suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    strays = end_all(room)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "cpu": usage.ru_utime + usage.ru_stime, "strays": strays}


def _answer(fd: int, plan: Plan, room: Room) -> NoReturn:
    """Be the child: confine, then answer the wire until it ends."""
    data = socket.socket(fileno=fd)
    try:
        null = os.open("/dev/null", os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        enter_child(replace(plan, keep_fds=(1, 2, fd)), room)
        gc.disable()  # short lives; a collection costs more than it frees
        _converse(data, Agent())
    except PolicyError as error:
        with suppress(OSError):
            data.sendall(b"!" + str(error).encode())
    finally:
        os._exit(0)


def _converse(data: socket.socket, agent: Agent) -> None:
    data.sendall(b"H")  # the controller learns this process's id from the kernel, with this byte

    def ask(frame: Frame) -> Frame:
        data.sendall(b"C" + bytes(frame))
        while True:
            kind, received = _receive(data)
            if kind == b"A":
                return received
            data.sendall(b"R" + agent.handle(received, ask))

    while True:
        _, frame = _receive(data)
        data.sendall(b"R" + agent.handle(frame, ask))


def _receive(data: socket.socket) -> tuple[bytes, Frame]:
    # The controller sends one frame and waits, so the first read nearly always has the whole of it.
    received = _some(data)
    while len(received) < 1 + wire.PREFIX.size:
        received += _some(data)
    total = 1 + wire.PREFIX.size + sum(wire.PREFIX.unpack_from(received, 1))
    if len(received) < total:
        received = _rest(data, received, total)
    return received[:1], memoryview(received)[1:]


def _some(data: socket.socket) -> bytes:
    received = data.recv(FIRST_READ)
    if not received:
        os._exit(0)
    return received


def _rest(data: socket.socket, first: bytes, total: int) -> bytes:
    whole = bytearray(total)
    whole[: len(first)] = first
    view = memoryview(whole)[len(first) :]
    while view:
        size = data.recv_into(view)
        if not size:
            os._exit(0)
        view = view[size:]
    return bytes(whole)
