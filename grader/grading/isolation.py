"""Whether this host can confine student code: asked once, before anything of a student's is run."""

from __future__ import annotations

from grader.sandbox.policy import in_force, missing, probe, run_canaries, tier

NONE = "none"


class IsolationMissing(Exception):
    """The host cannot confine student code; one sentence says what is missing and what to do."""


def isolation(asked: str) -> tuple[frozenset[str], str]:
    """Give the layers in force here and their name for the record; "none" asks for no layer at all.

    Raises:
        IsolationMissing: the host lacks a layer that matters, or something broke out of the sandbox.
    """
    if asked == NONE:
        return frozenset(), NONE
    layers = probe()
    lacking = missing(layers)
    if lacking:
        raise IsolationMissing(
            f"this host cannot confine student code safely: {', '.join(lacking)} not in force. "
            "See `grader doctor`, or give --isolation none for work you trust."
        )
    escaped = run_canaries(layers)
    if escaped:
        raise IsolationMissing(f"the sandbox was tried and leaks: {', '.join(escaped)}. Nothing was graded.")
    return in_force(layers), f"tier {tier(layers)}: {', '.join(sorted(in_force(layers)))}"
