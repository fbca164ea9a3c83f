"""The words for what became of a test, and where an exercise stands."""

from collections.abc import Sequence
from enum import StrEnum


class Verdict(StrEnum):
    """What became of one hidden test; of an exercise, what explains its score best."""

    PASSED = "passed"
    WRONG = "wrong"
    ERROR = "error"
    TODO = "to-do"
    WAITS = "waits"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    OUTPUT = "output"
    CRASHED = "crashed"
    PROTOCOL = "protocol"
    FORBIDDEN = "forbidden"
    REJECTED = "rejected"
    INFRA = "infra"


class State(StrEnum):
    """Where an exercise stands at the desk: four outcomes, and every exercise has exactly one."""

    TODO = "to do"
    WAITS = "waits"
    WRONG = "wrong"
    RIGHT = "right"


def state_of(verdicts: Sequence[Verdict]) -> State:
    """Give the state of an exercise whose tests ended so."""
    if all(verdict is Verdict.PASSED for verdict in verdicts):
        return State.RIGHT
    if any(verdict not in (Verdict.PASSED, Verdict.TODO, Verdict.WAITS) for verdict in verdicts):
        return State.WRONG
    return State.TODO if Verdict.TODO in verdicts else State.WAITS
