"""Attempts to break out of a confined child; grading is refused when one succeeds.

Each attempt raises OSError when it is stopped and returns when it got what it wanted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from grader.sandbox.policy.doors import enter_child, enter_supervisor
from grader.sandbox.policy.layers import Layer, in_force
from grader.sandbox.policy.plan import MIB, Plan, PolicyError, Room
from grader.sandbox.policy.process import end_all
from grader.sandbox.policy.syscalls import call
from grader.sandbox.policy.trial import in_child

_PTRACE_SEIZE, _NEW_USER, _PROCESS_KEYRING = 0x4206, 0x10000000, -2
_END = "."


@dataclass(frozen=True)
class Outside:
    """What lies outside the fence for the canaries to reach."""

    folder: str
    """A folder with a file `secret` and a listening socket `door`; its name is also an abstract socket's."""
    tcp_port: int
    udp_port: int
    open_file: int
    """An open file that the child must not keep."""
    victim: int
    """The process that waits for the canaries, as the outside numbers it."""

    @property
    def secret(self) -> str:
        return os.path.join(self.folder, "secret")


def read_a_file(outside: Outside) -> None:
    Path(outside.secret).read_bytes()


def write_a_file(outside: Outside) -> None:
    os.close(os.open(outside.secret, os.O_WRONLY))


def empty_a_file(outside: Outside) -> None:
    os.truncate(outside.secret, 0)


def create_a_file(outside: Outside) -> None:
    Path(outside.folder, "planted").touch()


def link_a_file(outside: Outside) -> None:
    os.symlink(outside.secret, os.path.join(outside.folder, "link"))


def change_a_mode(outside: Outside) -> None:
    os.chmod(outside.secret, 0o600)


def change_a_time(outside: Outside) -> None:
    os.utime(outside.secret, (1, 1))


def use_an_inherited_file(outside: Outside) -> None:
    os.write(outside.open_file, b"x")


def fork(outside: Outside) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def run_a_program(outside: Outside) -> None:
    """Run a file that is no program: "exec format error" means that running was allowed."""
    with open(os.open("program", os.O_WRONLY | os.O_CREAT, 0o700), "wb") as file:
        file.write(b"\x00not a program")
    try:
        os.execv("./program", ["program"])
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise


def connect_by_tcp(outside: Outside) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as caller:
        caller.settimeout(1)
        caller.connect(("127.0.0.1", outside.tcp_port))


def send_by_udp(outside: Outside) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", ("127.0.0.1", outside.udp_port))


def connect_to_a_unix_socket(outside: Outside) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(os.path.join(outside.folder, "door"))


def connect_to_an_abstract_socket(outside: Outside) -> None:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect("\0" + outside.folder)


def signal_the_parent(outside: Outside) -> None:
    os.kill(os.getppid(), 0)


def signal_the_outside(outside: Outside) -> None:
    os.kill(outside.victim, 0)


def trace_the_parent(outside: Outside) -> None:
    call("ptrace", _PTRACE_SEIZE, os.getppid(), 0, 0)


def read_the_parents_memory(outside: Outside) -> None:
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("@PN", ctypes.addressof(buffer), 8)
    remote = struct.pack("@PN", id(None), 8)  # lies at the same address in the parent, which was forked too
    call("process_vm_readv", os.getppid(), local, 1, remote, 1, 0)


def read_the_parents_environment(outside: Outside) -> None:
    Path(f"/proc/{outside.victim}/environ").read_bytes()


def list_the_processes(outside: Outside) -> None:
    os.listdir("/proc")


def open_an_io_uring(outside: Outside) -> None:
    os.close(call("io_uring_setup", 1, bytes(120)))


def make_a_file_in_memory(outside: Outside) -> None:
    if sys.platform == "linux":
        os.close(os.memfd_create("canary"))


def leave_a_key(outside: Outside) -> None:
    call("add_key", b"user", b"canary", b"x", 1, _PROCESS_KEYRING)


def become_another_user(outside: Outside) -> None:
    other = os.geteuid() + 1
    os.seteuid(other)
    os.seteuid(other - 1)


def mount(outside: Outside) -> None:
    here = os.fsencode(os.getcwd())
    call("mount", b"none", here, b"tmpfs", 0, None)
    call("umount2", here, 0)


def make_a_namespace(outside: Outside) -> None:
    call("unshare", _NEW_USER)


ATTEMPTS: tuple[Callable[[Outside], None], ...] = (
    read_a_file,
    write_a_file,
    empty_a_file,
    create_a_file,
    link_a_file,
    change_a_mode,
    change_a_time,
    use_an_inherited_file,
    fork,
    run_a_program,
    connect_by_tcp,
    send_by_udp,
    connect_to_a_unix_socket,
    connect_to_an_abstract_socket,
    signal_the_parent,
    signal_the_outside,
    trace_the_parent,
    read_the_parents_memory,
    read_the_parents_environment,
    list_the_processes,
    open_an_io_uring,
    make_a_file_in_memory,
    leave_a_key,
    become_another_user,
    mount,
    make_a_namespace,
)


def run_canaries(layers: Iterable[Layer]) -> list[str]:
    """Try to break out of a child confined by `layers` and give the name of each attempt that succeeded.

    Raises PolicyError if the child cannot be confined or does not answer: that is no success either.
    """
    if sys.platform != "linux":
        raise PolicyError("The canaries need Linux.")
    with _outside() as outside, tempfile.TemporaryDirectory(prefix="grader-scratch-") as scratch:
        plan = Plan(layers=in_force(layers), scratch=scratch, scratch_bytes=MIB, cpu_seconds=10)
        return in_child(lambda: _in_supervisor(plan, outside)).split()


def _in_supervisor(plan: Plan, outside: Outside) -> str:
    room = enter_supervisor(plan)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _in_confined_child(replace(plan, keep_fds=(writer,)), room, outside)
    os.close(writer)
    with open(reader, "rb") as file:
        answer = file.read().decode()
    os.waitpid(pid, 0)
    end_all(room)
    if not answer.endswith(_END):
        raise PolicyError(answer or "The canaries' child ended without an answer.")
    return answer.removesuffix(_END)


def _in_confined_child(plan: Plan, room: Room, outside: Outside) -> NoReturn:
    (writer,) = plan.keep_fds
    try:
        enter_child(plan, room)
        names = [attempt.__name__ for attempt in ATTEMPTS if _succeeds(attempt, outside)]
        os.write(writer, (" ".join(names) + _END).encode())
    except PolicyError as error:
        os.write(writer, str(error).encode())
    finally:
        os._exit(0)


def _succeeds(attempt: Callable[[Outside], None], outside: Outside) -> bool:
    try:
        attempt(outside)
    except OSError:
        return False
    return True


@contextmanager
def _outside() -> Iterator[Outside]:
    """Set up what the canaries try to reach."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="grader-canary-"))
        Path(folder, "secret").write_text("secret")
        inet, unix, stream = socket.AF_INET, socket.AF_UNIX, socket.SOCK_STREAM
        kinds = ((inet, stream), (inet, socket.SOCK_DGRAM), (unix, stream), (unix, stream))
        tcp, udp, door, abstract = (stack.enter_context(socket.socket(*kind)) for kind in kinds)
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        door.bind(os.path.join(folder, "door"))
        abstract.bind("\0" + folder)
        for listener in (tcp, door, abstract):
            listener.listen()
        file = stack.enter_context(open(os.path.join(folder, "open"), "wb"))
        yield Outside(folder, tcp.getsockname()[1], udp.getsockname()[1], file.fileno(), os.getpid())
