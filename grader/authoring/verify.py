"""Is a chapter sound: right answers pass in every style, the stub is to do, each misconception is killed and named.

Everything here is the author's own code, so it runs in this process, by the same rules of the wire as when graded.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from grader.authoring.handin import other_answer, right_answer, wrong_answer
from grader.course import Chapter, CourseError
from grader.grading.examiner import Examiner, LocalBench, examine
from grader.sandbox.agent import Agent
from grader.sandbox.prewarm import prewarm
from grader.sandbox.proxy import Link, LocalTransport
from grader.testing.alternatives import load_alternatives
from grader.testing.plugin import run_suite
from grader.verdict import Verdict

SECRET = "verify"
PUBLIC_LIMIT = 3.0
HIDDEN_LIMIT = 10.0
FEWEST_MISCONCEPTIONS = 3

Say = Callable[[str], None]


@dataclass
class ExerciseReport:
    """One exercise: how many misconceptions there are, are failed, and are named; how many other right answers pass."""

    name: str
    points: float
    misconceptions: int = 0
    killed: int = 0
    recognised: int = 0
    alternatives: int = 0
    accepted: int = 0


@dataclass
class ChapterReport:
    """One chapter: is it sound, and if not, what is wrong, one sentence each."""

    name: str
    exercises: list[ExerciseReport] = field(default_factory=list)
    public_seconds: float = 0.0
    hidden_cpu_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "exercises": [asdict(exercise) for exercise in self.exercises],
            "public_seconds": round(self.public_seconds, 3),
            "hidden_cpu_seconds": round(self.hidden_cpu_seconds, 3),
            "problems": self.problems,
        }


def verify(chapters: Sequence[Chapter], say: Say = lambda line: None) -> list[ChapterReport]:
    """Hold chapters against the standard; `say` gets a line of progress now and then."""
    prewarm()  # the limits are for the suites, not for what torch imports at its first optimiser
    return [_verify_chapter(chapter, say) for chapter in chapters]


def _verify_chapter(chapter: Chapter, say: Say) -> ChapterReport:
    report = ChapterReport(chapter.name, [ExerciseReport(e.name, e.points) for e in chapter.exercises])
    secret = (chapter.source, chapter.hidden_tests, chapter.misconceptions, chapter.alternatives)
    for file in (chapter.stub, chapter.public_tests, *secret):
        if not file.is_file():
            report.problems.append(f"{file} is missing.")
    if report.problems:
        return report
    try:
        _check_public(chapter, report)
        examine([chapter], SECRET, lambda examiner: _check_hidden(examiner, chapter, report, say))
    except CourseError as error:
        report.problems.append(str(error))
    return report


def _check_public(chapter: Chapter, report: ChapterReport) -> None:
    started = time.process_time()  # not the clock: a loaded machine makes no chapter unsound
    results = run_suite(chapter.public_tests, _load(chapter, right_answer(chapter)))
    report.public_seconds = time.process_time() - started
    for result in results:
        if result.verdict is not Verdict.PASSED:
            report.problems.append(f"public {result.id}: the reference is {result.verdict}: {result.message}")
    for exercise in chapter.exercises:
        count = sum(result.exercise == exercise.name for result in results)
        if count == 0:
            report.problems.append(f"{exercise.id} has no public self-check; add one to four.")
    for result in run_suite(chapter.public_tests, _load(chapter, chapter.stub.read_text(encoding="utf-8"))):
        if result.verdict not in (Verdict.TODO, Verdict.WAITS):
            report.problems.append(f"public {result.id}: the stub is {result.verdict}, not to do: {result.message}")
    if report.public_seconds > PUBLIC_LIMIT:
        report.problems.append(
            f"the public suite takes {report.public_seconds:.1f} s of CPU; the limit is {PUBLIC_LIMIT} s."
        )


def _check_hidden(examiner: Examiner, chapter: Chapter, report: ChapterReport, say: Say) -> None:
    started = time.process_time()
    _check_reference(examiner, chapter, report)
    report.hidden_cpu_seconds = time.process_time() - started
    if report.hidden_cpu_seconds > HIDDEN_LIMIT:
        taken = f"{report.hidden_cpu_seconds:.1f} s of CPU"
        report.problems.append(f"the hidden suite takes {taken}; the limit is {HIDDEN_LIMIT} s.")
    _check_stub(examiner, chapter, report)
    _check_alternatives(examiner, chapter, report)
    for exercise_report in report.exercises:
        _check_misconceptions(examiner, chapter, exercise_report, report.problems, say)


def _check_reference(examiner: Examiner, chapter: Chapter, report: ChapterReport) -> None:
    bench = _bench(chapter, right_answer(chapter))
    for exercise in chapter.exercises:
        outcome = examiner.grade(exercise, bench, diagnose=False)
        if not outcome.tests:
            report.problems.append(f"{exercise.id} has no hidden test.")
        for test in outcome.tests:
            if test.verdict is not Verdict.PASSED:
                why = test.detail or outcome.note
                report.problems.append(f"hidden {test.id}: the reference is {test.verdict}: {why}")


def _check_stub(examiner: Examiner, chapter: Chapter, report: ChapterReport) -> None:
    bench = _bench(chapter, chapter.stub.read_text(encoding="utf-8"))
    for exercise in chapter.exercises:
        outcome = examiner.grade(exercise, bench, diagnose=False)
        if outcome.score or outcome.verdict not in (Verdict.TODO, Verdict.WAITS):
            report.problems.append(
                f"{exercise.id}: the stub is {outcome.verdict} with {outcome.score} points, not to do."
            )


def _check_alternatives(examiner: Examiner, chapter: Chapter, report: ChapterReport) -> None:
    for other in load_alternatives(chapter.alternatives):
        exercise = chapter.exercise(other.exercise)
        mine = next(e for e in report.exercises if e.name == exercise.name)
        outcome = examiner.grade(exercise, _bench(chapter, other_answer(chapter, other)), diagnose=False)
        mine.alternatives += 1
        mine.accepted += outcome.score == outcome.points
        for test in outcome.tests:
            if test.verdict is not Verdict.PASSED:
                why = test.detail or outcome.note
                report.problems.append(f"hidden {test.id}: the right answer {other.name} is {test.verdict}: {why}")
    for mine in report.exercises:
        if not mine.alternatives:
            report.problems.append(f"{chapter.name}/{mine.name} has no alternative; write one right answer or more.")


def _check_misconceptions(
    examiner: Examiner, chapter: Chapter, report: ExerciseReport, problems: list[str], say: Say
) -> None:
    exercise = chapter.exercise(report.name)
    mine = [wrong for wrong in examiner.misconceptions(chapter.name) if wrong.exercise == exercise.name]
    report.misconceptions = len(mine)
    if len(mine) < FEWEST_MISCONCEPTIONS:
        problems.append(f"{exercise.id} has {len(mine)} misconceptions; write {FEWEST_MISCONCEPTIONS} or more.")
    for wrong in mine:
        outcome = examiner.grade(exercise, _bench(chapter, wrong_answer(chapter, wrong)))
        report.killed += outcome.score < outcome.points
        report.recognised += outcome.misconception == wrong.name
        if outcome.score >= outcome.points:
            problems.append(f"{exercise.id}: {wrong.name} passes every hidden test; add a test that fails it.")
        elif outcome.misconception != wrong.name:
            taken_for = outcome.misconception or "nothing"
            problems.append(f"{exercise.id}: {wrong.name} is taken for {taken_for} (verdict {outcome.verdict}).")
    say(f"{exercise.id}: {report.killed} of {report.misconceptions} killed, {report.recognised} recognised")


def _bench(chapter: Chapter, text: str) -> LocalBench:
    return LocalBench(_load(chapter, text))


def _load(chapter: Chapter, text: str) -> types.ModuleType:
    agent = Agent()
    link = Link(LocalTransport(agent))
    link.request("load", f"chapters.{chapter.name}.handed_in", f"{chapter.name}/exercises.py", "py", text.encode())
    assert agent.module is not None
    return agent.module


def table(reports: Sequence[ChapterReport]) -> str:
    """Give the reports as text: a line an exercise, the problems below."""
    lines = []
    for report in reports:
        times = f"public {report.public_seconds:.1f} s, hidden {report.hidden_cpu_seconds:.1f} s of CPU"
        lines.append(f"{report.name}: {'sound' if report.ok else 'not sound'} ({times})")
        for e in report.exercises:
            counts = f"{e.killed}/{e.misconceptions} killed  {e.recognised}/{e.misconceptions} recognised"
            counts += f"  {e.accepted}/{e.alternatives} other right answers"
            lines.append(f"  {e.name:34} {e.points:4g} points  {counts}")
        lines += [f"  ! {problem}" for problem in report.problems]
    return "\n".join(lines)
