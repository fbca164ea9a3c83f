"""Raw system calls: one way to make them, for what Python's library does not wrap."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from functools import cache

# name=x86_64/aarch64; "-" where the machine has no such call. From the kernel's own headers: numbers never change.
_CALLED_HERE = """
    landlock_create_ruleset=444/444 landlock_add_rule=445/445 landlock_restrict_self=446/446 seccomp=317/277
    unshare=272/97 mount=165/40 mount_setattr=442/442 capset=126/91 prctl=157/167 close_range=436/436
    umount2=166/39 ptrace=101/117 process_vm_readv=310/270 io_uring_setup=425/425 add_key=248/217
"""

_COLUMN = {"x86_64": 0, "aarch64": 1}


def machine() -> str:
    """Give this machine as the tables spell it: "x86_64", "aarch64", or "" for one that they do not hold."""
    name = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    # A 32-bit interpreter on a 64-bit kernel makes other calls than the table says.
    return name if name in _COLUMN and sys.maxsize > 2**32 else ""


@cache
def numbers(table: str, machine: str) -> dict[str, int]:
    """Read a table of `name=x86_64/aarch64`: the number of each call that `machine` has; empty if it is unknown."""
    if machine not in _COLUMN:
        return {}
    rows = (row.replace("=", "/").split("/") for row in table.split())
    return {row[0]: int(row[1 + _COLUMN[machine]]) for row in rows if row[1 + _COLUMN[machine]] != "-"}


def call(name: str, *arguments: int | ctypes.Array[ctypes.c_char] | bytes | None) -> int:
    """Make the system call `name` and give its result. Raises OSError as the kernel says, ENOSYS if unknown here."""
    number = numbers(_CALLED_HERE, machine()).get(name) if sys.platform == "linux" else None
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: not available on this machine")
    # The C library takes longs; a bare int would be passed as 32 bits.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result: int = _libc().syscall(ctypes.c_long(number), *words)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


@cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    return library


if sys.platform == "linux":
    _libc()  # now, in the warm process, so that no process forked from it pays for it
