"""One warm pytest session that runs the hidden suites again and again, each time against another student's module.

pytest collects once; a submission then costs its tests and nothing else. The session's loop is handed to `work`,
which asks for chapters to be graded until it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pytest
from _pytest.runner import runtestprotocol

from grader.course import Chapter, CourseError, Exercise
from grader.grading.diagnose import same_conversation
from grader.grading.result import ExerciseOutcome, TestOutcome
from grader.sandbox.agent import Agent
from grader.sandbox.programs import run_beside
from grader.sandbox.proxy import Link, LocalTransport, Proxy, Trace
from grader.testing.misconceptions import Misconception, load_misconceptions, mistaken_module
from grader.testing.plugin import JUDGEMENT, PROVIDER, begin_test, run_pytest
from grader.testing.suite import Judgement, TestInfo, info_of
from grader.verdict import Verdict

MAX_DIAGNOSED = 8
"""Failed tests of one exercise that are held against the misconceptions; more would seldom change the answer."""

COSTLY = {
    Verdict.TIMEOUT: "not run: two tests of this exercise ran out of time",
    Verdict.OUTPUT: "not run: two tests of this exercise gave too much",
    Verdict.PROTOCOL: "not run: two answers to this exercise's tests did not follow the protocol",
}
MAX_COSTLY = 2
"""After so many the rest of the exercise's tests are not run: an endless loop must not cost a minute."""

EXPLAINS = (
    *(Verdict.FORBIDDEN, Verdict.PROTOCOL, Verdict.CRASHED, Verdict.MEMORY, Verdict.OUTPUT, Verdict.TIMEOUT),
    *(Verdict.ERROR, Verdict.WRONG, Verdict.WAITS, Verdict.TODO, Verdict.INFRA),
)
"""Which verdict explains an exercise's score best, when several are equally frequent."""


class Workbench(Protocol):
    """Where the module of one submission lives while one exercise is graded."""

    def link(self) -> Link:
        """Give the way to the module, starting it if need be. Raises LoadFailure or SandboxEnd."""


class LocalBench:
    """A trusted module in this process: the reference or a misconception."""

    def __init__(self, module: Any) -> None:
        self._link = Link(LocalTransport(Agent(module)))

    def link(self) -> Link:
        return self._link


@dataclass(frozen=True)
class Case:
    """One hidden test with its place in the session."""

    info: TestInfo
    item: pytest.Item


@dataclass(frozen=True)
class Run:
    """What one run of one test came to."""

    judgement: Judgement
    trace: Trace


class Examiner:
    """The session's plugin, and what `work` talks to."""

    def __init__(self, chapters: Sequence[Chapter], secret: str, work: Callable[[Examiner], None]) -> None:
        self.secret = secret
        self._chapters = {chapter.name: chapter for chapter in chapters}
        self._work = work
        self._cases: dict[str, dict[str, list[Case]]] = {}
        self._bench: Workbench | None = None
        self._trace = Trace()
        self._misconceptions: dict[str, list[Misconception]] = {}
        self._known: dict[tuple[str, str], Run] = {}
        self._benches: dict[tuple[str, str], LocalBench] = {}
        self.problem: str = ""
        self.execute: Callable[[str, float], dict[str, Any]] = run_beside
        """How tests run a program that nobody trusts; whoever grades in the sandbox puts the sandbox's way here."""

    # -- what `work` asks ------------------------------------------------------------------------------------------

    def grade(self, exercise: Exercise, bench: Workbench, diagnose: bool = True) -> ExerciseOutcome:
        """Run the hidden tests of one exercise and give its outcome."""
        cases = self._cases[exercise.chapter].get(exercise.name, [])
        runs: list[tuple[Case, Run]] = []
        costly: list[Verdict] = []
        for case in cases:
            if len(costly) >= MAX_COSTLY:
                run = Run(Judgement(costly[-1], COSTLY[costly[-1]]), Trace())
            else:
                run = self.run(case, bench)
                costly += [run.judgement.verdict] if run.judgement.verdict in COSTLY else []
            runs.append((case, run))
        found = self._diagnose(exercise, runs) if diagnose else None
        return _outcome(exercise, runs, found)

    def run(self, case: Case, bench: Workbench) -> Run:
        """Run one test against one module."""
        self._bench, self._trace = bench, Trace()
        case.item.stash[JUDGEMENT] = Judgement(Verdict.INFRA, "the test did not run")
        # nextitem=None: the test leaves nothing behind for the next submission
        runtestprotocol(case.item, log=False, nextitem=None)
        return Run(case.item.stash[JUDGEMENT], self._trace)

    def misconceptions(self, chapter: str) -> list[Misconception]:
        """Give the chapter's known wrong answers."""
        if chapter not in self._misconceptions:
            file = self._chapters[chapter].misconceptions
            self._misconceptions[chapter] = load_misconceptions(file) if file.is_file() else []
        return self._misconceptions[chapter]

    # -- the diagnosis ---------------------------------------------------------------------------------------------

    def _diagnose(self, exercise: Exercise, runs: list[tuple[Case, Run]]) -> Misconception | None:
        failed = [(c, r) for c, r in runs if r.judgement.verdict in (Verdict.WRONG, Verdict.ERROR)][:MAX_DIAGNOSED]
        best: Misconception | None = None
        most = 0
        for wrong in self.misconceptions(exercise.chapter) if failed else ():
            if wrong.exercise == exercise.name:
                matches = sum(self._explains(case, run, wrong) for case, run in failed)
                if matches > most:
                    best, most = wrong, matches
        return best

    def _explains(self, case: Case, run: Run, wrong: Misconception) -> bool:
        known = self._known_run(case, wrong)
        failed = known.judgement.verdict is not Verdict.PASSED
        return failed and same_conversation(run.trace, known.trace)

    def _known_run(self, case: Case, wrong: Misconception) -> Run:
        chapter = case.item.path.parent.name
        key = (case.item.nodeid, wrong.name)
        if key not in self._known:
            self._known[key] = self.run(case, self._mistaken(chapter, wrong))
        return self._known[key]

    def _mistaken(self, chapter: str, wrong: Misconception) -> LocalBench:
        key = (chapter, wrong.name)
        if key not in self._benches:
            self._benches[key] = LocalBench(mistaken_module(self._chapters[chapter].source, wrong))
        return self._benches[key]

    # -- what pytest asks ------------------------------------------------------------------------------------------

    def proxy(self, item: pytest.Item) -> Proxy:
        """Give the fixture `exercises` of the module on the bench."""
        assert self._bench is not None
        link = self._bench.link()
        link.trace = self._trace
        begin_test(link, item, self._chapters[item.path.parent.name], self.secret)
        return Proxy(link)

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[PROVIDER] = self

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for name in self._chapters:
            self._cases[name] = {exercise.name: [] for exercise in self._chapters[name].exercises}
        for item in items:
            try:
                case = Case(info_of(item), item)
                self._cases[item.path.parent.name][case.info.exercise].append(case)
            except CourseError as error:
                self.problem = str(error)
            except KeyError as error:
                self.problem = f"{item.path}: {item.name}: chapter.toml knows no exercise {error}; mend either."

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problem = f"{report.nodeid} cannot be collected: {report.longreprtext.strip().splitlines()[-1]}"

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> pytest.TestReport:
        """Give a bare report: rendering a traceback that nobody reads made a failed test many times dearer."""
        outcome: Literal["failed", "passed"] = "failed" if call.excinfo else "passed"
        assert call.when != "collect"
        return pytest.TestReport(item.nodeid, item.location, {}, outcome, None, call.when)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if not self.problem:
            self._work(self)
        return True


def examine(chapters: Sequence[Chapter], secret: str, work: Callable[[Examiner], None]) -> None:
    """Collect the hidden suites of `chapters` and run `work` inside the session. Raises CourseError."""
    missing = [str(chapter.hidden_tests) for chapter in chapters if not chapter.hidden_tests.is_file()]
    if missing:
        raise CourseError(f"{missing[0]} is missing, so its chapter cannot be graded; write it or leave --chapter out.")
    failure: list[BaseException] = []

    def guarded(examiner: Examiner) -> None:
        try:
            work(examiner)
        except BaseException as error:  # pytest would turn it into text
            failure.append(error)

    examiner = Examiner(chapters, secret, guarded)
    run_pytest([chapter.hidden_tests for chapter in chapters], [examiner])
    if failure:
        raise failure[0]
    if examiner.problem:
        raise CourseError(examiner.problem)


def _outcome(exercise: Exercise, runs: list[tuple[Case, Run]], found: Misconception | None) -> ExerciseOutcome:
    total = sum(case.info.weight for case, _ in runs)
    passed = sum(case.info.weight for case, run in runs if run.judgement.verdict is Verdict.PASSED)
    verdict, note = _explanation([run.judgement for _, run in runs])
    return ExerciseOutcome(
        name=exercise.name,
        points=exercise.points,
        score=round(exercise.points * passed / total, 6) if total else 0.0,
        verdict=verdict,
        diagnosis=found.sentence if found else "",
        misconception=found.name if found else "",
        note=note,
        tests=tuple(
            TestOutcome(c.info.id, c.info.title, c.info.weight, r.judgement.verdict, r.judgement.detail[:500])
            for c, r in runs
        ),
    )


def _explanation(judgements: list[Judgement]) -> tuple[Verdict, str]:
    failed = [judgement for judgement in judgements if judgement.verdict is not Verdict.PASSED]
    if not failed:
        return (Verdict.PASSED, "") if judgements else (Verdict.INFRA, "the course has no hidden test for it")
    infra = next((j for j in failed if j.verdict is Verdict.INFRA), None)
    if infra is not None:  # the machine's own fault comes before any other word
        return Verdict.INFRA, infra.sentence
    counts = {verdict: sum(j.verdict is verdict for j in failed) for verdict in EXPLAINS}
    verdict = max(EXPLAINS, key=lambda v: (counts[v], -EXPLAINS.index(v)))
    return verdict, next(j.sentence for j in failed if j.verdict is verdict)
