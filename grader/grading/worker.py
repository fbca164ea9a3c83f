"""One controller: a warm pytest session and a warm process of its own; grades what comes down its pipe."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from grader.course import Chapter, Course, CourseError, load_course
from grader.grading.bench import HandIn, SandboxBench
from grader.grading.collect import Submission
from grader.grading.examiner import Examiner, examine
from grader.grading.result import ExerciseOutcome, Outcome, Verdict, to_json, ungraded
from grader.grading.seat import Seat
from grader.grading.store import environment
from grader.sandbox.agent import notebook_source
from grader.sandbox.policy import Plan
from grader.sandbox.policy.process import address_space
from grader.sandbox.proxy import Link, SandboxEnd, StudentError
from grader.sandbox.session import Limits, SandboxBroken, Supervisor, Warm, Zygote, execute

if sys.platform != "win32":
    import resource

OWN_MEMORY = 8 << 30
"""Bytes a controller may take beside its libraries: what a test does with a student's value could need any amount."""
READ_LIMITS = Limits(cpu_seconds=5.0, memory_bytes=512 << 20)


@dataclass(frozen=True)
class Settings:
    """What every controller of a run is told."""

    root: Path
    solutions: Path
    chapters: tuple[str, ...]
    secret: str
    layers: frozenset[str]
    tier: str
    prefer: str = ""
    """"module" or "notebook" where both were edited; "" refuses to guess."""


@dataclass(frozen=True)
class Job:
    """One submission to grade."""

    number: int
    submission: Submission
    key: str


@dataclass(frozen=True)
class Charge:
    """What a controller is told when it starts."""

    settings: Settings
    slot: int
    """Which of the host's places it takes; two that run at once differ."""
    environ: dict[str, str]
    submissions: int
    """After so many it ends, its warm process with it: all of them share one layout of addresses, and whatever either
    process has gathered."""


@dataclass(frozen=True)
class Report:
    """What a controller says: that it is ready, that it cannot be, or what became of a job."""

    outcome: dict[str, Any] | None = None
    problem: str = ""
    is_last: bool = False
    """The controller ends now, and another is to take its place."""


def work(warm: Warm, connection: Connection) -> None:
    """Be a controller until the pipe closes. Takes a Charge, then jobs or None; sends a Report for each."""
    charge: Charge = connection.recv()
    os.environ.update(charge.environ)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    _limit_own_memory()
    settings = charge.settings
    course = load_course(settings.root, settings.solutions)
    chapters = [course.chapter(name) for name in settings.chapters]
    zygote = None
    try:
        zygote = Zygote(Plan(layers=settings.layers, slot=charge.slot), warm)
        serving = partial(_serve, connection, charge=charge, zygote=zygote, course=course)
        examine(chapters, settings.secret, serving)
    except (SandboxBroken, OSError, CourseError) as error:
        _send(connection, Report(problem=str(error)))
    except Exception as error:
        _send(connection, Report(problem=f"{type(error).__name__}: {error}"))
    finally:
        if zygote is not None:
            zygote.close()


def _limit_own_memory() -> None:
    if sys.platform == "linux":
        _, ceiling = resource.getrlimit(resource.RLIMIT_AS)
        wanted = address_space() + OWN_MEMORY
        if ceiling == resource.RLIM_INFINITY or wanted < ceiling:
            resource.setrlimit(resource.RLIMIT_AS, (wanted, ceiling))


def _send(connection: Connection, report: Report) -> None:
    try:
        connection.send(report)
    except OSError:  # the parent is gone; there is nobody left to tell
        os._exit(1)


def _serve(connection: Connection, examiner: Examiner, charge: Charge, zygote: Zygote, course: Course) -> None:
    settings = charge.settings
    _send(connection, Report())
    examiner.execute = partial(execute, zygote)
    seat = Seat(charge.slot, zygote.pid)
    for done in range(1, charge.submissions + 1):
        try:
            job: Job | None = connection.recv()
        except EOFError:
            return
        if job is None:
            return
        chapter = course.chapter(job.submission.chapter)
        seat.begin()
        try:
            outcome = grade(examiner, zygote, chapter, job, settings)
        except Exception as error:  # a mistake of the grader's own costs one submission, never the class
            outcome = failed(job, chapter, Verdict.INFRA, f"the grader failed: {type(error).__name__}", settings)
        seat.end(outcome.cpu_seconds)
        is_last = done == charge.submissions or zygote.is_gone()
        _send(connection, Report(to_json(outcome), is_last=is_last))
        if is_last:
            return


def grade(examiner: Examiner, zygote: Zygote, chapter: Chapter, job: Job, settings: Settings) -> Outcome:
    """Grade one submission in its own supervisor."""
    try:
        supervisor = zygote.supervisor()
    except SandboxBroken as error:
        return failed(job, chapter, Verdict.INFRA, f"the sandbox could not be started: {error}", settings)
    try:
        chosen = _choose(supervisor, chapter, job.submission, settings.prefer)
        if isinstance(chosen, str):
            return failed(job, chapter, Verdict.REJECTED, chosen, settings)
        bench = SandboxBench(supervisor, chapter, chosen)
        outcomes = []
        for exercise in chapter.exercises:
            bench.take_up(exercise)
            outcomes.append(examiner.grade(exercise, bench))
        bench.clear()
        return _outcome(job, chapter, _point_to_needs(chapter, outcomes), chosen.file, supervisor, settings)
    except (SandboxBroken, SandboxEnd) as error:
        return failed(job, chapter, Verdict.INFRA, str(error), settings)
    finally:
        supervisor.close()


def _point_to_needs(chapter: Chapter, outcomes: list[ExerciseOutcome]) -> tuple[ExerciseOutcome, ...]:
    """Say of a wrong exercise that it stands on another one that is wrong, where nothing better is known."""
    wrong = {outcome.name for outcome in outcomes if outcome.verdict is not Verdict.PASSED}
    told = []
    for outcome in outcomes:
        needed = [name for name in chapter.exercise(outcome.name).needs if name in wrong]
        if outcome.verdict is Verdict.WRONG and needed and not outcome.diagnosis and not outcome.note:
            outcome = replace(outcome, note=f"it stands on {' and '.join(needed)}, not right yet: mend that first")
        told.append(outcome)
    return tuple(told)


def failed(job: Job, chapter: Chapter, verdict: Verdict, problem: str, settings: Settings) -> Outcome:
    """Give the outcome of a job that could not be graded."""
    outcome = ungraded(job.submission.student, chapter, verdict, problem)
    return replace(outcome, key=job.key, environment=_environment(settings))


def _outcome(
    job: Job,
    chapter: Chapter,
    exercises: tuple[ExerciseOutcome, ...],
    file: str,
    supervisor: Supervisor,
    settings: Settings,
) -> Outcome:
    flags = (f"left {supervisor.strays} processes behind",) if supervisor.strays else ()
    return Outcome(
        student=job.submission.student,
        chapter=chapter.name,
        exercises=exercises,
        flags=flags,
        file=file,
        cpu_seconds=round(supervisor.cpu_seconds, 3),
        key=job.key,
        environment=_environment(settings),
    )


def _environment(settings: Settings) -> dict[str, str]:
    return {**environment(), "isolation": settings.tier}


# -- which file counts ---------------------------------------------------------------------------------------------


def _choose(supervisor: Supervisor, chapter: Chapter, submission: Submission, prefer: str) -> HandIn | str:
    """Give the file that counts: the one that differs from its stub; a sentence if both do."""
    hand_ins = [
        HandIn(submission.student, chapter.name, path, path.rpartition(".")[2], source)
        for path, source in submission.files.items()
    ]
    if len(hand_ins) == 1:
        return hand_ins[0]
    module, notebook = sorted(hand_ins, key=lambda hand_in: hand_in.kind, reverse=True)
    if prefer:
        return module if prefer == "module" else notebook
    if _normal(module.source) == _normal(chapter.stub.read_bytes()):
        return notebook
    if _is_untouched(supervisor, notebook, chapter):
        return module
    return (
        "both exercises.py and exercises.ipynb were edited, so it is not clear which counts; hand in one of them "
        "(or grade with --from module or --from notebook)"
    )


def _normal(source: bytes) -> bytes:
    return source.replace(b"\r\n", b"\n").strip()


def _is_untouched(supervisor: Supervisor, notebook: HandIn, chapter: Chapter) -> bool:
    """Compare a notebook's code with the released one's. The child reads it; nothing of a student's is parsed here."""
    released = chapter.notebook.read_bytes() if chapter.notebook.is_file() else b""
    if notebook.source == released or not released:
        return bool(released)
    child = supervisor.child(READ_LIMITS)
    try:
        child.start_budget(READ_LIMITS.cpu_seconds)
        code = Link(child).request("source", "ipynb", notebook.source)
    except BaseException as error:
        if isinstance(error, (StudentError, SandboxEnd)):
            return False
        raise
    finally:
        child.end()
    return isinstance(code, str) and code.split() == notebook_source(released).split()
