"""What the desk needs of this machine; each check that fails ends with the command that mends it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

from grader.course import Course
from grader.student import driver
from grader.student.drawer import FOLDER
from grader.student.notice import why_polling
from grader.student.paper import Paper

PACKAGE = "llm-from-stubs"
PYTHONS = ((3, 11), (3, 13))
INSTALL = "pip install -e ."


@dataclass(frozen=True)
class Check:
    """One line of `grader doctor`."""

    name: str
    found: str
    ok: bool = True
    remedy: str = ""


def examine(course: Course) -> list[Check]:
    """Check what a student needs, from Python to the folder's permissions."""
    return [
        _python(),
        *_packages(course.root),
        _torch(),
        _threads(),
        _watch(course.root),
        _git(course.root),
        _writing(course),
    ]


def _python() -> Check:
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    first, last = (".".join(map(str, v)) for v in PYTHONS)
    if sys.version_info[:2] < PYTHONS[0]:
        remedy = f"install Python {first} to {last}, then: python3 -m venv .venv && .venv/bin/{INSTALL}"
        return Check("python", f"{found}, older than {first}", False, remedy)
    newer = "" if sys.version_info[:2] <= PYTHONS[1] else f", newer than {last}, which was tested"
    return Check("python", found + newer)


def _packages(root: Path) -> list[Check]:
    """Check the versions that the course asks for; one line for each that is missing or too old."""
    wrong = []
    needed = [r for r in map(Requirement, _required(root)) if r.marker is None or r.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "not installed"
        if found == "not installed" or not requirement.specifier.contains(found, prereleases=True):
            wanted = f"{requirement.name}{requirement.specifier}"
            wrong.append(
                Check(requirement.name, f"{found}, needs {requirement.specifier}", False, f'pip install "{wanted}"')
            )
    return wrong or [Check("packages", f"all {len(needed)} are there")]


def _required(root: Path) -> list[str]:
    import tomllib

    try:  # the clone says it best; it may be newer than what was installed
        return list(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        try:
            return requires(PACKAGE) or []
        except PackageNotFoundError:
            return []


def _torch() -> Check:
    try:
        import torch
    except Exception as error:  # a damaged build fails in many ways
        return Check("torch", f"cannot be imported: {type(error).__name__}: {error}", False, INSTALL)
    if torch.version.cuda is None:
        return Check("torch", f"{torch.__version__}, CPU build")
    size = sum(file.stat().st_size for file in Path(torch.__file__).parent.rglob("*.so*")) >> 20
    return Check(
        "torch", f"{torch.__version__}, CUDA {torch.version.cuda} build ({size:,} MiB); the CPU build would do"
    )


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    words = f"{cores} cores; checks run with one thread" + (f" (OMP_NUM_THREADS={asked})" if asked else "")
    if asked and not re.fullmatch(r"[1-9]\d*", asked):
        return Check("threads", words, False, "unset OMP_NUM_THREADS")
    return Check("threads", words)


def _watch(root: Path) -> Check:
    reason = why_polling(root)
    if reason:
        return Check("watch", f"by polling, four times a second: {reason}")
    return Check("watch", "by the system's notifications")


def _git(root: Path) -> Check:
    if not driver.is_repository(root):
        return Check("git", "no repository here; updates come with `grader update PATH`")
    if driver.is_set_up(root):
        return Check("git", "merges exercises by function")
    return Check("git", "would merge exercises by lines, with conflicts", False, "grader setup")


def _writing(course: Course) -> Check:
    drawer = course.root / FOLDER
    places = [drawer if drawer.exists() else course.root, *(c.stub for c in course.chapters if c.stub.is_file())]
    closed = [place for place in places if not os.access(place, os.W_OK)]
    if closed:
        return Check("writing", f"{closed[0]} cannot be written", False, f'chmod -R u+w "{course.root}"')
    return Check("writing", "the course's folder can be written")


def show_checks(paper: Paper, checks: Sequence[Check]) -> None:
    """Write one line for each check, and the command that mends what is amiss."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        word = ("ok  ", "green") if check.ok else ("mend", "red")
        paper.parts(word, (f"  {check.name:<{width}}  {check.found}", ""))
        if not check.ok:
            paper.line(check.remedy, "bold", indent=width + 8)
