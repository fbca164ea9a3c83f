"""The pytest plugin: the fixtures `exercises` and `rng`, the outcome "to do", short failures, the table at the end.

At the desk it speaks to an agent in this process. When grading, the controller puts another provider into the
configuration and nothing else changes.
"""

from __future__ import annotations

import importlib.util
import linecache
import os
import sys
import traceback
import types
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch

from grader.course import Chapter, CourseError
from grader.sandbox.agent import Agent, notebook_source
from grader.sandbox.programs import run_beside
from grader.sandbox.proxy import Link, LocalTransport, Proxy, SandboxEnd, Trace
from grader.testing.lesson import Lesson, teach
from grader.testing.rng import Rng, seed_of
from grader.testing.suite import EndedInSetup, Judgement, LoadFailure, TestInfo, chapter_of, info_of, judge, state_words
from grader.verdict import Verdict

DESK_SECRET = "desk"


class Provider(Protocol):
    """Gives each test the student's module, and its seed."""

    secret: str

    def proxy(self, item: pytest.Item) -> Proxy: ...

    def execute(self, program: str, timeout: float) -> dict[str, Any]: ...


PROVIDER = pytest.StashKey[Provider]()
JUDGEMENT = pytest.StashKey[Judgement]()
LESSON = pytest.StashKey[Lesson]()


class DeskProvider:
    """The student's module in this process."""

    secret = DESK_SECRET

    def __init__(self, file: Path | None = None, module: types.ModuleType | None = None) -> None:
        self._file = file
        self._links: dict[Path | None, Link | LoadFailure] = {}
        if module is not None:
            self._links[None] = Link(LocalTransport(Agent(module)))

    def proxy(self, item: pytest.Item) -> Proxy:
        link = self._link(item)
        chapter = chapter_of(item.path.parent)
        begin_test(link, item, chapter, self.secret)
        link.trace = Trace()  # from which a failure's lesson is drawn
        return Proxy(link)

    def execute(self, program: str, timeout: float) -> dict[str, Any]:
        """Run a program in a process of its own."""
        return run_beside(program, timeout)

    def file(self, item: pytest.Item) -> Path:
        """Give the student's file that a test is about."""
        return self._file or item.path.parent / "exercises.py"

    def lesson(self, item: pytest.Item, error: BaseException) -> Lesson:
        """Make the lesson of a failed test."""
        link = self._links.get(None if None in self._links else self.file(item))
        trace, module = Trace(), None
        if isinstance(link, Link) and isinstance(link.transport, LocalTransport):
            trace, module = link.trace or trace, link.transport.agent.module
        return teach(info_of(item), error, self.file(item), trace, module)

    def _link(self, item: pytest.Item) -> Link:
        file = None if None in self._links else self.file(item)
        if file not in self._links:
            assert file is not None
            try:
                self._links[file] = Link(LocalTransport(Agent(load_student_module(file))))
            except LoadFailure as failure:
                self._links[file] = failure
        link = self._links[file]
        if isinstance(link, LoadFailure):
            raise link
        return link


def begin_test(link: Link, item: pytest.Item, chapter: Chapter | None, secret: str) -> None:
    """Seed the agent and name what this test's exercise may not call."""
    mark = item.get_closest_marker("exercise")
    forbidden: tuple[str, ...] = ()
    if chapter is not None and mark is not None:
        forbidden = next((e.forbidden for e in chapter.exercises if e.name == mark.args[0]), ())
    # a seed of its own: from the one of `rng` the student's process could foresee every input
    link.begin(seed_of(secret, f"agent {item.name}"), forbidden)


def load_student_module(file: Path) -> types.ModuleType:
    """Import a student's file under a unique name. Raises LoadFailure with one sentence."""
    name = f"chapters.{file.parent.name}.{file.stem}"
    if not file.is_file():
        raise LoadFailure(f"{file} is not there; restore it, or run `grader build` in the instructor's course")
    module = types.ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module
    try:
        if file.suffix == ".ipynb":
            text = notebook_source(file.read_bytes())
            # so that tracebacks and the debugger show the code and not the notebook's JSON
            linecache.cache[str(file)] = (len(text), None, text.splitlines(keepends=True), str(file))
            exec(compile(text, str(file), "exec", dont_inherit=True), module.__dict__)
        else:
            spec = importlib.util.spec_from_file_location(name, file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
    except SyntaxError as error:
        raise LoadFailure(f"{file.name}, line {error.lineno}: {error.msg}; Python cannot read the file") from error
    except (Exception, SystemExit) as error:
        raise LoadFailure(f"{file.name} cannot be imported: {_kind_and_line(error, file)}: {error}") from error
    return module


def _kind_and_line(error: BaseException, file: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return type(error).__name__ + (f" in line {lines[-1]}" if lines else "")


# -- hooks ---------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("course")
    group.addoption("--module", metavar="FILE", help="check this file instead of the exercises.py beside the tests")
    group.addoption("--exercise", metavar="NAME", action="append", help="run the tests of this exercise alone")


def pytest_configure(config: pytest.Config) -> None:
    # As when graded. The tensors of tests are small: on a busy machine several threads wait for each other and make a
    # test a hundred times slower.
    torch.set_num_threads(1)
    config.addinivalue_line("markers", "exercise(name, weight): the exercise that a test belongs to")
    module = config.getoption("--module")
    if PROVIDER not in config.stash:
        config.stash[PROVIDER] = DeskProvider(Path(module).resolve() if module else None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--exercise")
    if wanted:
        left = [item for item in items if item.get_closest_marker("exercise") and info_of(item).exercise not in wanted]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    if any(getattr(getattr(item, "obj", None), "is_hypothesis_test", False) for item in items):
        _prepare_hypothesis(items, grading=not isinstance(config.stash[PROVIDER], DeskProvider), config=config)


def _prepare_hypothesis(items: list[pytest.Item], grading: bool, config: pytest.Config) -> None:
    from hypothesis import HealthCheck, Phase, Verbosity, seed, settings

    # Shrinking while grading made a failing submission seven times dearer than a right one; at the desk it teaches.
    phases = (Phase.explicit, Phase.generate) if grading else (Phase.explicit, Phase.generate, Phase.shrink)
    _draw_alike_everywhere()
    # while grading nobody reads the falsifying example, and formatting it costs as much as the test
    verbosity = Verbosity.quiet if grading else Verbosity.normal
    secret = config.stash[PROVIDER].secret
    for item in items:
        test = getattr(item, "obj", None)
        if getattr(test, "is_hypothesis_test", False):
            inner: Any = getattr(test, "__func__", test)
            chosen = getattr(inner, "_hypothesis_internal_use_settings", None) or settings.default
            inner._hypothesis_internal_use_settings = settings(
                chosen,
                deadline=None,
                database=None,
                phases=phases,
                suppress_health_check=list(HealthCheck),
                verbosity=verbosity,
                report_multiple_bugs=False,
            )
            seed(seed_of(secret, item.name))(inner)


def _draw_alike_everywhere() -> None:
    """Keep hypothesis from mixing into its draws the constants of whatever local modules happen to be loaded.

    It has no setting for that, and a hidden input must depend on the seed and the test alone.
    """
    from hypothesis.internal.conjecture import providers

    nothing = type(providers.GLOBAL_CONSTANTS)()
    providers._get_local_constants = lambda: nothing


@pytest.fixture
def exercises(request: pytest.FixtureRequest) -> Proxy:
    """The student's module: call its functions by name."""
    try:
        return request.config.stash[PROVIDER].proxy(request.node)
    except SandboxEnd as end:  # pytest keeps its books on fixtures for an Exception alone
        raise EndedInSetup(end) from None


@pytest.fixture
def execute(request: pytest.FixtureRequest) -> Callable[[str, float], dict[str, Any]]:
    """Run a program that nobody trusts: `execute(program, timeout)` gives exit_code, stdout, stderr and timed_out."""
    provider = request.config.stash[PROVIDER]
    return lambda program, timeout: provider.execute(str(program), float(timeout))


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> Rng:
    """Seeded inputs."""
    return Rng(seed_of(request.config.stash[PROVIDER].secret, request.node.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    mark = item.get_closest_marker("exercise")
    if mark is None or (call.excinfo is None and call.when != "call"):
        return report
    judgement = judge(call.excinfo and call.excinfo.value, mark.args[0], chapter_of(item.path.parent))
    if call.excinfo is not None and call.excinfo.errisinstance(pytest.skip.Exception):
        judgement = Judgement(Verdict.TODO, "the test was skipped")
    item.stash[JUDGEMENT] = judgement
    report.judgement = judgement  # type: ignore[attr-defined]
    report.info, report.folder = info_of(item), item.path.parent  # type: ignore[attr-defined]
    if judgement.verdict in (Verdict.TODO, Verdict.WAITS):
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, judgement.sentence or "to do")
    elif judgement.verdict is not Verdict.PASSED and isinstance(item.config.stash[PROVIDER], DeskProvider):
        assert call.excinfo is not None
        _add_lesson(item, report, call.excinfo.value)
    return report


def _add_lesson(item: pytest.Item, report: pytest.TestReport, error: BaseException) -> None:
    provider = item.config.stash[PROVIDER]
    assert isinstance(provider, DeskProvider)
    lesson = provider.lesson(item, error.end if isinstance(error, EndedInSetup) else error)
    item.stash[LESSON] = lesson
    if getattr(item.config.option, "tbstyle", "no") == "auto" and item.config.option.verbose < 2:
        head, foot = f"{lesson.exercise}: {lesson.claim}", f"  {lesson.place}   more: pytest -vv"
        report.longrepr = "\n".join([head, *(f"    {line}" for line in lesson.body), foot])


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    judgement: Judgement | None = getattr(report, "judgement", None)
    if judgement is None:
        return None
    if judgement.verdict is Verdict.TODO:
        return "to do", "o", "TO DO"
    if judgement.verdict is Verdict.WAITS:
        return "waiting", "w", "WAITS"
    return None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    judged: dict[tuple[Path, str], list[tuple[TestInfo, Judgement]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            info = getattr(report, "info", None)
            if info is not None and getattr(report, "judgement", None) is not None:
                judged.setdefault((report.folder, info.exercise), []).append((info, report.judgement))
    if judged:
        terminalreporter.section("exercises")
        for line in _table(judged):
            terminalreporter.write_line(line)


def _table(judged: dict[tuple[Path, str], list[tuple[TestInfo, Judgement]]]) -> Iterator[str]:
    width = max(len(exercise) for _, exercise in judged)
    for folder in dict.fromkeys(folder for folder, _ in judged):
        chapter = chapter_of(folder)
        order = [e.name for e in chapter.exercises] if chapter else []
        rows = [(name, tests) for (where, name), tests in judged.items() if where == folder]
        rows.sort(key=lambda row: order.index(row[0]) if row[0] in order else len(order))
        if chapter is not None:
            yield f"{chapter.title} ({chapter.number})"
        for name, tests in rows:
            yield f"  {name.ljust(width)}  {_row(name, tests, chapter)}"


def _row(name: str, tests: list[tuple[TestInfo, Judgement]], chapter: Chapter | None) -> str:
    points = chapter.exercise(name).points if chapter and any(e.name == name for e in chapter.exercises) else 0.0
    total = sum(info.weight for info, _ in tests)
    passed = sum(info.weight for info, judgement in tests if judgement.verdict is Verdict.PASSED)
    words = state_words([judgement for _, judgement in tests])
    return f"{words.ljust(28)} {points * passed / total:5.2f} / {points:g}"


# -- for the notebook and for authors ------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckResult:
    """One test of a suite run in this process."""

    id: str
    exercise: str
    weight: float
    title: str
    verdict: Verdict
    message: str
    lesson: Lesson | None = None


class _Collector:
    def __init__(self, provider: Provider, only: Collection[str] | None) -> None:
        self.provider, self.only = provider, only
        self.results: list[CheckResult] = []
        self.problems: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        config.stash[PROVIDER] = self.provider
        config.option.tbstyle = "native"  # nobody reads pytest's text, and its long form costs as much as the test

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if self.only is None or info_of(item).exercise in self.only]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.problems.append(str(report.longrepr))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        value = yield
        info = info_of(item)
        judgement = item.stash.get(JUDGEMENT, Judgement(Verdict.INFRA, "the test did not run"))
        message = judgement.sentence or judgement.detail
        lesson = item.stash.get(LESSON, None)
        self.results.append(
            CheckResult(info.id, info.exercise, info.weight, info.title, judgement.verdict, message, lesson)
        )
        return value


def run_suite(suite: Path, module: types.ModuleType, exercise: str | None = None) -> list[CheckResult]:
    """Run a suite in this process against a live module, quietly, and give each test's result."""
    collector = _Collector(DeskProvider(module=module), None if exercise is None else (exercise,))
    run_pytest([suite], [collector])
    return collector.results


def run_file(suite: Path, file: Path, exercises: Collection[str]) -> list[CheckResult]:
    """Run the tests of some exercises in this process against a student's file, quietly.

    Raises:
        CourseError: if the suite itself cannot be collected.
    """
    collector = _Collector(DeskProvider(file), exercises)
    run_pytest([suite], [collector])
    if collector.problems:
        last = collector.problems[0].strip().splitlines()[-1]
        raise CourseError(f"{suite} cannot be used, and that is not your doing: {last}; put it back or update.")
    return collector.results


def run_pytest(suites: list[Path], plugins: list[Any]) -> int:
    """Run pytest in this process on trusted suites: no configuration file, no foreign plugin, no output."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    here = sys.modules[__name__]
    arguments = [
        # from the top of the file system: pytest names a module by its path below the root, and suites are named alike
        *("-c", os.devnull, "--rootdir", suites[0].resolve().anchor, "--import-mode=importlib", "--noconftest"),
        *("-p", "no:cacheprovider", "-p", "no:terminal", "-p", "no:warnings", "-p", "no:logging", "-p", "no:doctest"),
        *("--assert=plain", "--capture=no"),
        *(str(suite.resolve()) for suite in suites),
    ]
    return int(pytest.main(arguments, plugins=[here, *plugins]))
