"""The places of a host: each controller holds one, and two that run at once never hold the same, whoever started them.

A place gives the student's code its user and its group of processes. It is held by the name of a socket, which the
kernel gives back when the last process that has it open is gone: a controller that outlives its killed parent for a
moment keeps its place until it ends.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field

from grader.sandbox.session import BESIDE

PLACES = BESIDE
"""What lies above is for programs that run beside a submission."""


class NoPlace(Exception):
    """Every place of the host is taken."""


@dataclass(frozen=True)
class Place:
    """One place, held until it is closed here and in every process that was given its descriptors."""

    slot: int
    _hold: socket.socket | None = field(default=None, repr=False)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a controller must inherit to hold the place too."""
        return (self._hold.fileno(),) if self._hold else ()

    def close(self) -> None:
        """Let go of it."""
        if self._hold:
            self._hold.close()


def claim() -> Place:
    """Take the first free place of this host. Raises NoPlace."""
    if sys.platform != "linux":  # places matter to layers that only Linux has
        return Place(0)
    for slot in range(PLACES):
        hold = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            hold.bind(f"\0llm-from-stubs/place/{slot}")
        except OSError:
            hold.close()
        else:
            return Place(slot, hold)
    raise NoPlace(f"all {PLACES} places of this host are taken; are other runs still going on?")
