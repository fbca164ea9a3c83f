"""The words for what became of a test."""

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
