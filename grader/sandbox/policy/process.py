"""What one process can promise about itself, and how to end everything it started."""

from __future__ import annotations

import errno
import os
import signal
import struct
import time
from collections.abc import Iterable
from contextlib import suppress

from grader.sandbox.policy.plan import PolicyError, Room
from grader.sandbox.policy.syscalls import call

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_CHILD_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522
_SECONDS_TO_END_ALL = 10.0


def no_new_privileges() -> None:
    """Promise that no program run from here on gains rights; Landlock and seccomp ask for it."""
    call("prctl", _SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Say whether others of the same user may trace this process and read its /proc folder."""
    call("prctl", _SET_DUMPABLE, int(dumpable), 0, 0, 0)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent ends; lost at every change of user, so call it after the last."""
    call("prctl", _SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    call("prctl", _SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def drop_capabilities() -> None:
    """Give up all that root may do beyond file ownership, in whatever user namespace this is."""
    call("capset", struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24))


def prefer_for_oom() -> None:
    """Be the first that the kernel ends when memory runs out; inherited by children. Needs /proc."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def close_fds_except(keep: Iterable[int]) -> None:
    """Close every open file but these: neither Landlock nor a namespace revokes what is open."""
    first = 0
    for fd in [*sorted(set(keep)), 1 << 31]:
        if first < fd:
            _close_range(first, fd - 1)
        first = fd + 1


def empty_stdin() -> None:
    """Let reading from standard input give the end of the file."""
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    if null:
        os.close(null)


def thread_count() -> int:
    """Count this process's threads."""
    return len(os.listdir("/proc/self/task"))


def address_space() -> int:
    """Give the bytes of address space this process has mapped. Needs /proc."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def open_children() -> int:
    """Open the kernel's list of this process's children, to be read when /proc is out of reach. Raises OSError."""
    return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)


def end_all(room: Room) -> int:
    """End every process that the supervisor's children left behind and give how many; the caller is the supervisor.

    Raises PolicyError if some are still there after ten seconds.
    """
    deadline = time.monotonic() + _SECONDS_TO_END_ALL
    ended = 0
    while time.monotonic() < deadline:
        _kill_children(room)
        gone = _reap()
        if gone is None:
            return ended
        ended += gone
        time.sleep(0 if gone else 0.0005)
    raise PolicyError("Some processes of a submission could not be ended within ten seconds.")


def _kill_children(room: Room) -> None:
    with suppress(ProcessLookupError):
        if room.first and os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)  # everyone else in the namespace, at once
        elif room.children_fd >= 0:
            # Grandchildren become children when their parent is gone, so the next round finds them.
            for pid in os.pread(room.children_fd, 1 << 20, 0).split():
                os.kill(int(pid), signal.SIGKILL)


def _reap() -> int | None:
    """Collect the children that have ended; None when there is no child left."""
    count = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return count if count else None
        if pid == 0:
            return count
        count += 1


def _close_range(first: int, last: int) -> None:
    try:
        call("close_range", first, last, 0)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        os.closerange(first, min(last + 1, os.sysconf("SC_OPEN_MAX")))
