"""Control groups, version 2: true limits on memory and processes for a supervisor and all below it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from grader.sandbox.policy.plan import MIB, Plan, PolicyError

_NEEDED = ("memory", "pids")
# What the supervisor's own copied pages and the kernel's books take, beside the child's budget and the scratch folder.
_SUPERVISOR_BYTES = 128 * MIB


def home() -> Path:
    """Give the group beside this process's own in which supervisors get theirs, controllers switched on.

    Beside, not below: a group that holds processes may not hand controllers down. Raises PolicyError.
    """
    own = _mounted() / _own_path()
    parent = own if own == _mounted() else own.parent
    try:
        offered = (parent / "cgroup.controllers").read_text().split()
        for name in _NEEDED:
            if name not in offered:
                raise PolicyError(f"cgroup: no {name} controller in {parent}")
        (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _NEEDED))
    except OSError as error:
        raise PolicyError(f"cgroup: {parent} cannot be used: {error.strerror}") from error
    return parent


def join(plan: Plan) -> None:
    """Put this process into a fresh group of its slot, with its limits. Raises PolicyError."""
    group = home() / f"grader-{plan.slot}"
    limits = {
        "memory.max": plan.memory_bytes + plan.scratch_bytes + _SUPERVISOR_BYTES,
        "memory.oom.group": 1,
        "pids.max": plan.threads + 2,
    }
    try:
        kill(group)
        group.mkdir(exist_ok=True)
        for name, value in limits.items():
            (group / name).write_text(str(value))
        with suppress(FileNotFoundError):  # a kernel without swap accounting has nothing to forbid
            (group / "memory.swap.max").write_text("0")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        raise PolicyError(f"cgroup: {group}: {error.strerror}") from error


def kill(group: Path) -> None:
    """End every process in a group, however it was started; a group that is not there has none."""
    with suppress(FileNotFoundError):
        (group / "cgroup.kill").write_text("1")


def remove(slot: int) -> None:
    """Remove a slot's group once it is empty; the caller has ended its supervisor. Raises OSError while it is not."""
    with suppress(FileNotFoundError):
        (home() / f"grader-{slot}").rmdir()


def _mounted() -> Path:
    """Find where version 2 is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(place.split()[4])
    raise PolicyError("cgroup: version 2 is not mounted")


def _own_path() -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:].lstrip("/")
    raise PolicyError("cgroup: this process is in no group of version 2")
