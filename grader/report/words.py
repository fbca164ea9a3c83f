"""Plain words and signs for verdicts, scores and shares: the same in every rendering."""

from __future__ import annotations

from enum import StrEnum

from grader.grading.result import ExerciseOutcome, Verdict


class Standing(StrEnum):
    """Where one exercise of one student stands; every exercise has exactly one."""

    RIGHT = "right"
    PARTLY = "partly right"
    WRONG = "wrong"
    STOPPED = "stopped"
    WAITS = "waiting"
    TODO = "to do"
    REJECTED = "not graded"
    AGAIN = "grade again"


VERDICT_WORDS = {
    Verdict.PASSED: "right",
    Verdict.WRONG: "wrong",
    Verdict.ERROR: "stopped by an error",
    Verdict.TODO: "to do",
    Verdict.WAITS: "waits for another exercise",
    Verdict.TIMEOUT: "stopped at the time limit",
    Verdict.MEMORY: "stopped at the memory limit",
    Verdict.OUTPUT: "stopped at the output limit",
    Verdict.CRASHED: "crashed the Python process",
    Verdict.PROTOCOL: "stopped: it wrote into the grader's own channel",
    Verdict.FORBIDDEN: "uses a function that this exercise forbids",
    Verdict.REJECTED: "not graded: the hand-in could not be read",
    Verdict.INFRA: "to be graded again: the grading machine failed, not the code",
}

SIGNS = {
    Verdict.PASSED: "✓",
    Verdict.WRONG: "✗",
    Verdict.ERROR: "E",
    Verdict.TODO: "○",
    Verdict.WAITS: "◌",
    Verdict.TIMEOUT: "T",
    Verdict.MEMORY: "M",
    Verdict.OUTPUT: "O",
    Verdict.CRASHED: "C",
    Verdict.PROTOCOL: "P",
    Verdict.FORBIDDEN: "F",
    Verdict.REJECTED: "R",
    Verdict.INFRA: "?",
}

STANDING_OF_ZERO = {
    Verdict.PASSED: Standing.WRONG,
    Verdict.WRONG: Standing.WRONG,
    Verdict.ERROR: Standing.WRONG,
    Verdict.TODO: Standing.TODO,
    Verdict.WAITS: Standing.WAITS,
    Verdict.REJECTED: Standing.REJECTED,
    Verdict.INFRA: Standing.AGAIN,
}
"""How an exercise without a point stands; every verdict not named here stopped it."""

ATTEMPTED = frozenset({Standing.RIGHT, Standing.PARTLY, Standing.WRONG, Standing.STOPPED})


def standing(exercise: ExerciseOutcome) -> Standing:
    """Say where an exercise stands, by its score first and by its verdict second."""
    if exercise.verdict is Verdict.INFRA:
        return Standing.AGAIN
    if exercise.score >= exercise.points:
        return Standing.RIGHT
    if exercise.score > 0:
        return Standing.PARTLY
    return STANDING_OF_ZERO.get(exercise.verdict, Standing.STOPPED)


def share(exercise: ExerciseOutcome) -> float:
    """Give the part of the points that was reached, from 0 to 1."""
    return exercise.score / exercise.points if exercise.points else 1.0


def verdict_words(exercise: ExerciseOutcome) -> str:
    """Say a verdict in words; a partly right answer also says what stopped the rest of it."""
    match standing(exercise):
        case Standing.RIGHT:
            return "right"
        case Standing.PARTLY if exercise.verdict in (Verdict.WRONG, Verdict.PASSED):
            return "partly right"
        case Standing.PARTLY:
            return f"partly right; the rest: {VERDICT_WORDS[exercise.verdict]}"
        case Standing.WRONG if exercise.verdict is Verdict.PASSED:
            return "wrong"
        case _:
            return VERDICT_WORDS[exercise.verdict]


def number(value: float) -> str:
    """Write a score with at most two decimals and without trailing zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def percent(value: float) -> int:
    """Round a share to whole per cent; only nothing is 0 and only everything is 100."""
    if value <= 0:
        return 0
    if value >= 1:
        return 100
    return min(99, max(1, round(value * 100)))


def plural(count: int, noun: str) -> str:
    """Write a count with its noun, such as '1 student' and '2 students'."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
