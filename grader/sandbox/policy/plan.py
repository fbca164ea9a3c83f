"""What one confinement consists of, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20

LAYERS = ("cgroup", "identity", "namespaces", "landlock", "rlimits", "process", "seccomp")
"""The layers that can be put in force one by one, in the order in which a process enters them."""


class PolicyError(Exception):
    """A sentence that says which layer could not be put in force and why; the process that gets it must end."""


@dataclass(frozen=True)
class Plan:
    """How one submission's processes are confined: a layer that is named is in force, or entering raises."""

    layers: frozenset[str] = frozenset()
    """Names from `LAYERS`; empty means no isolation at all."""
    readable: tuple[str, ...] = ()
    """Files and folders the student's code may read, beside what Python itself needs."""
    scratch: str = ""
    """An existing, empty folder of the grader's own; the one place where the student's code may write.

    Its size is limited by the layer "namespaces" alone; without it, who watches the clock must watch the folder too.
    """
    scratch_bytes: int = 64 * MIB
    scratch_files: int = 1000
    cpu_seconds: float = 10.0
    """CPU time of one child, from its fork; rounded up to a second."""
    memory_bytes: int = 512 * MIB
    """Address space of one child, on top of what the warm process has."""
    file_bytes: int = 16 * MIB
    """The largest file a child may write."""
    threads: int = 64
    keep_fds: tuple[int, ...] = (1, 2)
    """What stays open in the child; 0 becomes /dev/null whatever stands here."""
    slot: int = 0
    """Which of the host's places this submission runs in; two that run at once must differ."""

    def __post_init__(self) -> None:
        """Raise PolicyError for a layer that does not exist: a slip of the pen must not confine less."""
        for name in self.layers - set(LAYERS):
            raise PolicyError(f"There is no layer {name!r}; there are {', '.join(LAYERS)}.")


@dataclass(frozen=True)
class Room:
    """Where a confined supervisor finds itself: what its children need to know, taken while /proc could be read."""

    scratch: str
    supervisor: int
    """The supervisor's own process id, as its children see it."""
    address_space: int
    """Bytes of address space that a child has before the student's code runs."""
    first: bool
    """Whether the supervisor is the first process of a namespace of its own."""
    children_fd: int
    """An open list of the supervisor's children, or -1 where none is kept."""
