"""The pure functions under every report: totals, pass rates, distributions, misconceptions, odd cases, timings."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from grader.course import Chapter, Course
from grader.grading.result import ExerciseOutcome, Outcome, Verdict, by_student
from grader.report.words import ATTEMPTED, Standing, share, standing

Results = Mapping[str, Mapping[str, Outcome]]
"""Student, then chapter, then the outcome; both in order."""


def collect(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Outcome]]:
    """Put outcomes in order, one for each student and chapter.

    Raises:
        ValueError: if two differ for the same student and chapter, or a number is not finite or out of range.
    """
    results: dict[str, dict[str, Outcome]] = {}
    for student, own in by_student(outcomes).items():
        chapters = results.setdefault(student, {})
        for outcome in own:
            _check_numbers(outcome)
            if chapters.setdefault(outcome.chapter, outcome) != outcome:
                raise ValueError(
                    f"Student {student!r} has two different results for {outcome.chapter}; keep the one that counts."
                )
    return results


def _check_numbers(outcome: Outcome) -> None:
    for exercise in outcome.exercises:
        in_range = 0 <= exercise.score <= exercise.points < math.inf
        if not in_range or not all(math.isfinite(test.weight) for test in exercise.tests):
            raise ValueError(
                f"Student {outcome.student!r}, {outcome.chapter}, exercise {exercise.name}: score {exercise.score} of "
                f"{exercise.points} is not a number between 0 and the points, or a test's weight is not finite; "
                "grade this hand-in again."
            )


def chapters_of(results: Results) -> list[str]:
    """Give the names of all chapters that were graded, in order."""
    return sorted({chapter for own in results.values() for chapter in own})


def find_chapter(course: Course, name: str) -> Chapter | None:
    """Give the chapter of exactly that name, or None if the course has it no longer."""
    return next((chapter for chapter in course.chapters if chapter.name == name), None)


def chapter_points(results: Results, course: Course, name: str) -> float:
    """Give what a chapter is worth, also to a student who handed in nothing."""
    chapter = find_chapter(course, name)
    return chapter.points if chapter else max(own[name].points for own in results.values() if name in own)


def points_of(outcome: Outcome, course: Course) -> float:
    """Give what a hand-in could have earned, also when it was rejected before any exercise was named."""
    chapter = find_chapter(course, outcome.chapter)
    return outcome.points or (chapter.points if chapter else 0.0)


@dataclass(frozen=True)
class Total:
    """One student's sum over all chapters that were graded for anybody."""

    student: str
    score: float
    points: float
    complete: bool
    """False if a chapter must be graded again; `score` and `points` then leave that chapter out."""

    @property
    def share(self) -> float:
        return self.score / self.points if self.points else 0.0


def totals(results: Results, course: Course) -> list[Total]:
    """Sum up each student; a chapter that was not handed in counts with its points and no score."""
    worth = {name: chapter_points(results, course, name) for name in chapters_of(results)}
    return [_total(student, own, worth) for student, own in results.items()]


def _total(student: str, own: Mapping[str, Outcome], worth: Mapping[str, float]) -> Total:
    again = {name for name, outcome in own.items() if outcome.is_infra}
    score = sum(outcome.score for name, outcome in own.items() if name not in again)
    possible = {**worth, **{name: outcome.points for name, outcome in own.items() if outcome.points}}
    points = sum(points for name, points in possible.items() if name not in again)
    return Total(student, round(score, 6), points, not again)


@dataclass(frozen=True)
class ExerciseStatistics:
    """How the class stands in one exercise; who handed in nothing is not counted."""

    chapter: str
    name: str
    points: float
    counts: Mapping[Standing, int]
    mean: float
    """The mean share of the points among the graded, from 0 to 1."""

    @property
    def graded(self) -> int:
        return sum(self.counts.values()) - self.counts[Standing.AGAIN]

    @property
    def pass_rate(self) -> float:
        return self.counts[Standing.RIGHT] / self.graded if self.graded else 0.0


def exercise_statistics(results: Results, course: Course) -> list[ExerciseStatistics]:
    """Give one row for each exercise that was graded, in the course's order."""
    found: dict[tuple[str, str], list[ExerciseOutcome]] = {}
    for own in results.values():
        for outcome in own.values():
            for exercise in outcome.exercises:
                found.setdefault((outcome.chapter, exercise.name), []).append(exercise)
    order = {(e.chapter, e.name): at for c in course.chapters for at, e in enumerate(c.exercises)}
    keys = sorted(found, key=lambda key: (key[0], order.get(key, len(order)), key[1]))
    return [_statistics_of(key, found[key]) for key in keys]


def _statistics_of(key: tuple[str, str], exercises: Sequence[ExerciseOutcome]) -> ExerciseStatistics:
    counted = Counter(map(standing, exercises))
    shares = [share(exercise) for exercise in exercises if standing(exercise) is not Standing.AGAIN]
    return ExerciseStatistics(
        chapter=key[0],
        name=key[1],
        points=max(exercise.points for exercise in exercises),
        counts={kind: counted[kind] for kind in Standing},
        mean=statistics.fmean(shares) if shares else 0.0,
    )


@dataclass(frozen=True)
class MisconceptionCount:
    """A misconception that was recognised: in how many answers, of how many that were attempted."""

    chapter: str
    exercise: str
    name: str
    sentence: str
    students: int
    attempted: int


def misconceptions(results: Results) -> list[MisconceptionCount]:
    """Count the recognised misconceptions, the most frequent first."""
    seen: Counter[tuple[str, str, str, str]] = Counter()
    attempted: Counter[tuple[str, str]] = Counter()
    for own in results.values():
        for outcome in own.values():
            for exercise in outcome.exercises:
                attempted[outcome.chapter, exercise.name] += standing(exercise) in ATTEMPTED
                if exercise.diagnosis:
                    seen[outcome.chapter, exercise.name, exercise.misconception, exercise.diagnosis] += 1
    rows = [MisconceptionCount(*key, count, attempted[key[:2]]) for key, count in seen.items()]
    return sorted(rows, key=lambda row: (-row.students, row.chapter, row.exercise, row.name, row.sentence))


class Odd(StrEnum):
    """Why an instructor should look at a hand-in, the most urgent first."""

    INFRA = "infra"
    REJECTED = "rejected"
    FORGED = "forged"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASHED = "crashed"
    OUTPUT = "output"
    FORBIDDEN = "forbidden"
    FLAG = "flag"


ODD_OF_VERDICT = {
    Verdict.INFRA: Odd.INFRA,
    Verdict.REJECTED: Odd.REJECTED,
    Verdict.PROTOCOL: Odd.FORGED,
    Verdict.TIMEOUT: Odd.TIMEOUT,
    Verdict.MEMORY: Odd.MEMORY,
    Verdict.CRASHED: Odd.CRASHED,
    Verdict.OUTPUT: Odd.OUTPUT,
    Verdict.FORBIDDEN: Odd.FORBIDDEN,
}


@dataclass(frozen=True)
class OddCase:
    """One thing to look at in one hand-in: the exercises it touches, or the sentence that explains it."""

    kind: Odd
    student: str
    chapter: str
    exercises: tuple[str, ...]
    text: str


def odd_cases(results: Results) -> list[OddCase]:
    """List what an instructor should look at, by kind, then by student."""
    cases = [case for own in results.values() for outcome in own.values() for case in _odd_cases_of(outcome)]
    order = {kind: at for at, kind in enumerate(Odd)}
    return sorted(cases, key=lambda case: (order[case.kind], case.student, case.chapter, case.text))


def _odd_cases_of(outcome: Outcome) -> list[OddCase]:
    touched: dict[Odd, list[ExerciseOutcome]] = {}
    for exercise in outcome.exercises:
        for kind in {ODD_OF_VERDICT.get(v) for v in (exercise.verdict, *(test.verdict for test in exercise.tests))}:
            if kind:
                touched.setdefault(kind, []).append(exercise)
    cases = [_odd_case(outcome, kind, exercises) for kind, exercises in touched.items()]
    if outcome.problem and not {Odd.INFRA, Odd.REJECTED} & touched.keys():
        cases.append(OddCase(Odd.REJECTED, outcome.student, outcome.chapter, (), outcome.problem))
    cases += [OddCase(Odd.FLAG, outcome.student, outcome.chapter, (), flag) for flag in outcome.flags]
    return cases


def _odd_case(outcome: Outcome, kind: Odd, exercises: Sequence[ExerciseOutcome]) -> OddCase:
    whole = kind in (Odd.INFRA, Odd.REJECTED) and outcome.problem
    names = () if whole else tuple(exercise.name for exercise in exercises)
    note = next((e.note for e in exercises if e.note and ODD_OF_VERDICT.get(e.verdict) is kind), "")
    return OddCase(kind, outcome.student, outcome.chapter, names, outcome.problem if whole else note)


def histogram(shares: Iterable[float], bins: int = 10) -> list[int]:
    """Count shares from 0 to 1 in equal bins; the last one includes 1."""
    counts = [0] * bins
    for value in shares:
        counts[min(bins - 1, int(value * bins + 1e-9))] += 1
    return counts


@dataclass(frozen=True)
class Timing:
    """CPU seconds that grading one chapter took, over its hand-ins."""

    chapter: str
    count: int
    total: float
    mean: float
    median: float
    greatest: float


def timings(results: Results) -> list[Timing]:
    """Give the CPU seconds of each chapter; a hand-in that could not be run is left out."""
    rows = []
    for name in chapters_of(results):
        seconds = [own[name].cpu_seconds for own in results.values() if name in own and own[name].cpu_seconds > 0]
        if seconds:
            mean, median = statistics.fmean(seconds), statistics.median(seconds)
            rows.append(Timing(name, len(seconds), math.fsum(seconds), mean, median, max(seconds)))
    return rows


def environment(results: Results) -> list[tuple[str, list[tuple[str, int]]]]:
    """List every fact of the environments with its values and how many results share each, the most common first."""
    found: dict[str, Counter[str]] = {}
    for own in results.values():
        for outcome in own.values():
            for key, value in (outcome.environment or {}).items():
                found.setdefault(key, Counter())[str(value)] += 1
    return [(key, sorted(found[key].items(), key=lambda item: (-item[1], item[0]))) for key in sorted(found)]
