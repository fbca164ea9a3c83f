"""The student's repository, made from the instructor's: only what is on the list, with a history of its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from grader.authoring.build import make
from grader.authoring.git import git
from grader.authoring.leaks import Secrets, leaks_in, leaks_in_history
from grader.authoring.readme import with_table
from grader.course import Chapter, Course, CourseError, load_course
from grader.student.update import STUBS, remember_stubs

CHAPTER_FILES = ("README.md", "chapter.toml", "explore.js", "quiz.toml", "test_exercises.py")
"""What a chapter's folder gives beside the stub and the notebook, which are made afresh from the source."""
ROOT_FILES = (
    *(".gitattributes", ".gitignore", "LICENSE", "constraints.txt", "pyproject.toml", ".github/AGENTS.md"),
    *(".devcontainer/devcontainer.json", ".github/workflows/comment.yml"),
    *(".github/workflows/progress.yml", ".github/workflows/solutions.yml"),
)
DOORS = ("__main__.py", "cli/student.py", "student/*.py", "testing/*.py", "book/figures.py")
"""Where a student or a public test comes in: of the machine they get these and all that these import, and no more."""
PLAIN_FILES = ("book/static/figure.css", "book/static/kit.js")
"""What a figure in a notebook is made of."""
STUDENT_FILES = Path(__file__).parent / "student_files"


@dataclass(frozen=True)
class Released:
    """What became of a release."""

    chapters: tuple[str, ...]
    written: tuple[str, ...]
    removed: tuple[str, ...]
    commit: str
    """Empty if nothing had changed."""


def release(course: Course, dest: Path, chapters: Sequence[Chapter] = ()) -> Released:
    """Write the student's repository and commit it on top of the release before.

    Args:
        course: the instructor's course.
        dest: an empty or missing folder, or the repository of an earlier release.
        chapters: what to release now, by default all; what was released before stays in.

    Raises:
        CourseError: one sentence; a leak leaves `dest` as it was.
    """
    dest = dest.resolve()
    _check_place(course, dest)
    earlier = {chapter.name for chapter in load_course(dest).chapters} if (dest / "chapters").is_dir() else set()
    wanted = {chapter.name for chapter in chapters or course.chapters} | earlier
    chosen = replace(course, chapters=tuple(c for c in course.chapters if c.name in wanted))
    files = dict(_files(chosen))
    secrets = Secrets.of(course.chapters)
    _refuse(leaks_in(files, secrets), "nothing was written")
    written, removed = _write(dest, files)
    commit = _commit(dest, chosen)
    _refuse(leaks_in_history(dest, secrets), f"the history of {dest} holds it; release into a new folder")
    return Released(tuple(c.name for c in chosen.chapters), written, removed, commit)


def _refuse(leaks: Sequence[str], what_to_do: str) -> None:
    if leaks:
        more = f" (and {len(leaks) - 1} more)" if len(leaks) > 1 else ""
        raise CourseError(f"not released: {leaks[0]}{more}; {what_to_do}.")


def _check_place(course: Course, dest: Path) -> None:
    if dest == course.root.resolve() or (dest / "solutions").exists():
        raise CourseError(f"{dest} is an instructor's repository; release into a folder of its own.")
    if dest.is_relative_to(course.root.resolve()) and not dest.is_relative_to(course.root.resolve() / "build"):
        raise CourseError(f"{dest} lies inside the course; release beside it, or below build/.")
    if dest.is_file():
        raise CourseError(f"{dest} is a file; give a folder.")
    if not dest.is_dir() or not any(dest.iterdir()):
        return
    if not (dest / ".git").is_dir() or not (dest / "chapters").is_dir():
        raise CourseError(f"{dest} holds other files and is no earlier release; give an empty folder.")
    if _git(dest, "status", "--porcelain"):
        raise CourseError(f"{dest} has changes that are not committed; commit or undo them, then release again.")


# -- what is on the list -------------------------------------------------------------------------------------------


def _files(course: Course) -> Iterator[tuple[str, bytes]]:
    """Give every file of the student's repository: its path there, and its bytes."""
    for chapter in course.chapters:
        yield from _chapter_files(chapter)
    for name in ROOT_FILES:
        if (course.root / name).is_file():
            yield name, (course.root / name).read_bytes()
    machine = Path(__file__).resolve().parent.parent
    for file in sorted(_desk(machine) | {machine / name for name in PLAIN_FILES}):
        yield file.relative_to(machine.parent).as_posix(), file.read_bytes()
    for file in sorted((course.root / "datasets").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(course.root).as_posix(), file.read_bytes()
    readme = (STUDENT_FILES / "README.md").read_text(encoding="utf-8")
    yield "README.md", with_table(course, readme).encode()


def _desk(machine: Path) -> set[Path]:
    """Give the files of the machine that a student's desk imports, now or later."""
    found: set[Path] = set()
    left = [file for door in DOORS for file in machine.glob(door)]
    while left:
        file = left.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        left.append(file.parent / "__init__.py")
        left += [path for name in _imports(file) for path in _module_files(machine, name)]
    return found


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _module_files(machine: Path, name: str) -> list[Path]:
    """Give the files that importing a name could load; a function or a class has none."""
    package, *parts = name.split(".")
    place = machine.joinpath(*parts)
    return [place / "__init__.py", place.with_suffix(".py")] if package == machine.name and parts else []


def _chapter_files(chapter: Chapter) -> Iterator[tuple[str, bytes]]:
    product = make(chapter)
    place = f"chapters/{chapter.name}"
    yield f"{place}/exercises.py", product.stub
    yield f"{place}/exercises.ipynb", product.notebook
    for name in CHAPTER_FILES:
        if (chapter.folder / name).is_file():
            yield f"{place}/{name}", (chapter.folder / name).read_bytes()


# -- writing it ----------------------------------------------------------------------------------------------------


def _write(dest: Path, files: dict[str, bytes]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make the folder hold these files and no others; give what was written and what was removed."""
    dest.mkdir(parents=True, exist_ok=True)
    if not (dest / ".git").is_dir():
        _git(dest, "init", "--quiet", "--initial-branch=main")
    kept = {f"{name.rpartition('/')[0]}/{STUBS}" for name in files if name.endswith("/exercises.py")}
    tracked = [name for name in _git(dest, "ls-files", "-z").split("\0") if name and name not in kept]
    removed = [name for name in tracked if name not in files]
    for name in removed:
        (dest / name).unlink(missing_ok=True)
    written = []
    for name, data in files.items():
        file = dest / name
        if not file.is_file() or file.read_bytes() != data:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            written.append(name)
    for name in kept:  # so that an update can tell a stub of any release from a student's work
        if remember_stubs((dest / name).parent):
            written.append(name)
    return tuple(written), tuple(removed)


def _commit(dest: Path, course: Course) -> str:
    _git(dest, "add", "--all")
    if not _git(dest, "status", "--porcelain"):
        return ""
    numbers = ", ".join(chapter.number for chapter in course.chapters)
    _git(dest, "commit", "--quiet", "-m", f"Release: chapters {numbers}")
    return _git(dest, "rev-parse", "--short", "HEAD").strip()


def _git(dest: Path, *arguments: str) -> str:
    return git(dest, *arguments).decode(errors="replace")
