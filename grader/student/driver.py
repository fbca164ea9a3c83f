"""The merge driver: git asks it to merge exercises.py and exercises.ipynb, and `grader setup` tells git of it.

Where it is not set up, and where it fails, git's ordinary merge takes its place, so nothing is lost.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from grader.course import CourseError
from grader.student.merge import merge_modules, merge_notebooks
from grader.student.pieces import DamagedNotebook

NAME = "functions"
"""The driver's name in .gitattributes."""
ATTRIBUTES = (f"chapters/*/exercises.py merge={NAME}", f"chapters/*/exercises.ipynb merge={NAME}")


def merge_files(base: Path, ours: Path, theirs: Path, name: str) -> bool:
    """Merge three files as git hands them over; the result goes into `ours`.

    Returns:
        Whether it could be done; if not, `ours` is as it was.
    """
    try:
        old, mine, new = (file.read_bytes().decode("utf-8-sig") for file in (base, ours, theirs))
        ends = "\r\n" if "\r\n" in mine else "\n"
        old, mine, new = (text.replace("\r\n", "\n") for text in (old, mine, new))
        merged = merge_notebooks(old, mine, new) if name.endswith(".ipynb") else merge_modules(old, mine, new)
    except (UnicodeDecodeError, DamagedNotebook):
        return False
    if not name.endswith(".ipynb") and not _is_sound(merged, mine):
        return False
    ours.write_bytes(merged.replace("\n", ends).encode())
    return True


def _is_sound(merged: str, mine: str) -> bool:
    """Whether the result can be parsed; if the student's file could not be, the slip is theirs to mend."""
    return _parses(merged) or not _parses(mine)


def _parses(text: str) -> bool:
    try:
        compile(text, "exercises.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def command() -> str:
    """Give the line that git runs; it falls back on git's own merge."""
    python = shlex.quote(sys.executable.replace("\\", "/"))
    return f"{python} -m grader merge-file %O %A %B %P || git merge-file --marker-size=%L %A %O %B"


def is_repository(root: Path) -> bool:
    """Whether the course's folder belongs to a git repository."""
    return _git(root, "rev-parse", "--is-inside-work-tree") == "true"


def is_set_up(root: Path) -> bool:
    """Whether git knows this interpreter's driver, and the course says which files are its."""
    known = _git(root, "config", "--get", f"merge.{NAME}.driver") == command()
    return known and _git(root, "check-attr", "merge", "chapters/0/exercises.py").endswith(f": {NAME}")


def set_up(root: Path) -> list[str]:
    """Tell git of the driver, and say in sentences what was done.

    Raises:
        CourseError: if git is missing, or the folder is no repository.
    """
    if not is_repository(root):
        raise CourseError(
            f"{root} is no git repository, so there is nothing to set up; `grader update PATH` needs none."
        )
    done = []
    if _git(root, "config", "--get", f"merge.{NAME}.driver") != command():
        _git(root, "config", f"merge.{NAME}.name", "merge exercises by function")
        _git(root, "config", f"merge.{NAME}.driver", command())
        done.append("git now merges your exercises by function: `git pull` keeps what you wrote.")
    if not _git(root, "check-attr", "merge", "chapters/0/exercises.py").endswith(f": {NAME}"):
        _add_attributes(root)
        done.append(".gitattributes names the files that are merged so.")
    return done


def _add_attributes(root: Path) -> None:
    file = root / ".gitattributes"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    lines = [line for line in ATTRIBUTES if line not in text]
    file.write_text("".join([text, "\n" if text and not text.endswith("\n") else "", *(f"{x}\n" for x in lines)]))


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=False)
    except OSError:
        return ""
    return done.stdout.decode("utf-8", "replace").strip()
