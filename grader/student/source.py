"""A newer release to take over: a clone, a plain folder, or a zip file of one, read and never unpacked."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from grader.course import CourseError

LEFT_OUT = {".git", ".grader", ".venv", "venv", "build", "dist", "solutions", "__pycache__", ".ipynb_checkpoints"}
"""What is no part of a student's course wherever it stands; an instructor's half above all."""
MAX_FILE = 20 << 20
MAX_ALL = 500 << 20


def read_source(path: Path) -> Mapping[str, bytes]:
    """Give the files of a release by their paths below its root.

    Raises:
        CourseError: if there is no release at `path`, or it cannot be read.
    """
    if not path.exists():
        raise CourseError(f"{path} is not there; give the folder or the zip file of the newer course.")
    try:
        files = dict(_of_folder(path) if path.is_dir() else _of_zip(path))
    except OSError as error:
        raise CourseError(f"{path} cannot be read ({error.strerror or error}).") from None
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError):
        raise CourseError(f"{path} is no zip file that can be read; download it again.") from None
    if not any(name.startswith("chapters/") and name.endswith("/chapter.toml") for name in files):
        raise CourseError(f"{path} holds no course: there is no chapters/NN_name/chapter.toml in it.")
    return files


def _is_wanted(name: PurePosixPath) -> bool:
    return not set(name.parts) & LEFT_OUT and ".." not in name.parts and name.suffix != ".pyc" and bool(name.parts)


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for name in _names(folder):
        file = folder / name
        if _is_wanted(name) and file.is_file() and not file.is_symlink():
            yield str(name), file.read_bytes()


def _names(folder: Path) -> list[PurePosixPath]:
    """Give what git tracks, so that nothing else that lies about comes along; of a plain folder everything."""
    try:
        listed = subprocess.run(["git", "-C", str(folder), "ls-files", "-z"], capture_output=True, check=False)
    except OSError:
        listed = None
    if listed is not None and listed.returncode == 0 and listed.stdout:
        return [PurePosixPath(name) for name in listed.stdout.decode().split("\0") if name]
    return [PurePosixPath(file.relative_to(folder).as_posix()) for file in sorted(folder.rglob("*"))]


def _of_zip(file: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if sum(member.file_size for member in members) > MAX_ALL:
            raise CourseError(f"{file} unpacks to more than {MAX_ALL >> 20} MiB; that is no release of this course.")
        top = _top([PurePosixPath(member.filename) for member in members])
        for member in members:
            name = PurePosixPath(member.filename)
            if top is None or name.parts[: len(top.parts)] != top.parts or member.file_size > MAX_FILE:
                continue
            inner = PurePosixPath(*name.parts[len(top.parts) :])
            if _is_wanted(inner) and not name.is_absolute():
                yield str(inner), archive.read(member)


def _top(names: list[PurePosixPath]) -> PurePosixPath | None:
    """Give the folder of the archive that holds chapters/; archives of a repository have one above everything."""
    tops = {name.parents[2] for name in names if len(name.parts) > 2 and name.name == "chapter.toml"}
    inside = {top for top in tops if top.name != "course_fixture"}
    return min(inside, key=lambda top: len(top.parts), default=None)
