"""The warm process's memory, put in order before it is forked a thousand times.

A fork copies one table entry for every page of private memory, and its end frees them again: with 220 MB in small
pages that is most of what a child costs. Joined into pages of 2 MiB it costs about a quarter; a child's write still
copies 4 KiB alone.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

_COLLAPSE = 25  # MADV_COLLAPSE, Linux 6.1
_HUGE = 2 << 20


class SharedMemory(Exception):
    """The warm process shares writable memory with its children: one could write into the future of another."""


def join_pages() -> None:
    """Join the private memory of this process into huge pages where the kernel can; elsewhere do nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end, rights, name in _mappings():
        if rights == "rw-p" and name in ("", "[heap]"):
            for address in range(-(-start // _HUGE) * _HUGE, end - _HUGE + 1, _HUGE):
                libc.madvise(address, _HUGE, _COLLAPSE)  # a refusal leaves small pages, which is merely slower


def refuse_shared_memory() -> None:
    """Raise SharedMemory if a mapping is both writable and shared."""
    for _, _, rights, name in _mappings():
        if rights[1] == "w" and rights[3] == "s":
            raise SharedMemory(f"the warm process shares writable memory ({name or 'without a name'})")


def _mappings() -> list[tuple[int, int, str, str]]:
    """Give start, end, rights and name of each mapping."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    found = []
    for line in lines:
        parts = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in parts[0].split("-"))
        found.append((start, end, parts[1], parts[5] if len(parts) > 5 else ""))
    return found
