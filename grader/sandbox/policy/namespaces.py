"""Namespaces: a supervisor with processes, network, mounts, IPC and users of its own, and nothing of the host's.

The whole tree of files becomes read-only; a small file system in memory covers the scratch folder. When the first
process of the namespace ends, the kernel ends all others in it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
from typing import NoReturn

from grader.sandbox.policy.plan import Plan, PolicyError
from grader.sandbox.policy.process import close_fds_except, die_with_parent
from grader.sandbox.policy.syscalls import call

_NEW_NS, _NEW_UTS, _NEW_IPC = 0x00020000, 0x04000000, 0x08000000
_NEW_USER, _NEW_PID, _NEW_NET = 0x10000000, 0x20000000, 0x40000000
_NO_SUID, _NO_DEV, _NO_EXEC, _RECURSIVE, _PRIVATE = 2, 4, 8, 0x4000, 0x40000
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_READ_ONLY, _ATTR_NO_SUID = 1, 2


def enter(plan: Plan) -> None:
    """Leave the host's namespaces; the next process forked is the first of the new process namespace.

    Works as root and without; the caller must be dumpable and have one thread. Raises PolicyError.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        call("unshare", _NEW_USER | _NEW_NS | _NEW_PID | _NEW_NET | _NEW_IPC | _NEW_UTS)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
        _freeze_mounts()
        _mount_scratch(plan)
        _name_host()
    except OSError as error:
        raise PolicyError(f"namespaces: {error.strerror or error}") from error


def fork_first_process() -> None:
    """Return in a new process, the first of its namespace; the caller waits outside and ends as that one ends.

    Whoever kills the one outside kills all inside: the kernel sends SIGKILL on.
    """
    alive, held = os.pipe()
    inner = os.fork()
    if inner:
        _wait_outside(inner, held)
    os.close(held)
    die_with_parent()
    # The one outside may have been killed before that request; then its end of the pipe is closed.
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)
    os.close(alive)


def _wait_outside(inner: int, held: int) -> NoReturn:
    """End as the inner process ends. Every other open file is closed, so that its readers see the inner one alone."""
    close_fds_except([held])
    _, status = os.waitpid(inner, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(1)


def _freeze_mounts() -> None:
    """Cut the tree of mounts off from the host's, and make it read-only where the kernel can (5.12 and later)."""
    attributes = struct.pack("=4Q", _ATTR_READ_ONLY | _ATTR_NO_SUID, 0, _PRIVATE, 0)
    try:
        call("mount_setattr", _AT_FDCWD, b"/", _AT_RECURSIVE, attributes, len(attributes))
    except OSError:
        call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)


def _mount_scratch(plan: Plan) -> None:
    options = f"size={plan.scratch_bytes},nr_inodes={plan.scratch_files},mode=0700"
    flags = _NO_SUID | _NO_DEV | _NO_EXEC
    call("mount", b"scratch", os.fsencode(plan.scratch), b"tmpfs", flags, options.encode())


def _name_host() -> None:
    if sys.platform == "linux":
        socket.sethostname("sandbox")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
