"""Resource limits of one child: time, memory, files, threads, stack."""

from __future__ import annotations

import math
import sys

from grader.sandbox.policy.plan import MIB, Plan

if sys.platform != "win32":
    import resource

_OPEN_FILES = 128
_STACK_BYTES = 8 * MIB


def limit(plan: Plan, address_space: int, count_threads: bool) -> None:
    """Limit this process for good; `address_space` is what it has before the student's code, in bytes.

    The soft limit on time ends the process with SIGXCPU; who ignores that is killed a second later. Too much memory
    is a MemoryError or torch's RuntimeError; too large a file is an OSError. Raises OSError or ValueError.
    """
    seconds = math.ceil(plan.cpu_seconds)
    _set(resource.RLIMIT_CPU, seconds, seconds + 1)
    _set(resource.RLIMIT_AS, address_space + plan.memory_bytes)
    _set(resource.RLIMIT_FSIZE, plan.file_bytes)
    _set(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _set(resource.RLIMIT_STACK, _STACK_BYTES)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_MEMLOCK, 0)
    if count_threads:
        _set(resource.RLIMIT_NPROC, plan.threads)


def _set(kind: int, soft: int, hard: int | None = None) -> None:
    """Set one limit, never above what the process was started with."""
    _, ceiling = resource.getrlimit(kind)
    wanted = (soft, soft if hard is None else hard)
    if ceiling != resource.RLIM_INFINITY:
        wanted = (min(wanted[0], ceiling), min(wanted[1], ceiling))
    resource.setrlimit(kind, wanted)
