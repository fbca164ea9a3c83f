"""Submissions in: folders, zips, tarballs and single files, read with limits and never unpacked.

Only two files of a chapter are ever looked at, exercises.py and exercises.ipynb, as bytes. Whatever is wrong with a
submission becomes one sentence for its student; it never ends the run.
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from grader.course import CHAPTER_NAME, Chapter, CourseError
from grader.grading.spool import Spool
from grader.sandbox.policy.plan import PolicyError
from grader.sandbox.policy.process import address_space
from grader.sandbox.policy.trial import in_child

if sys.platform != "win32":
    import resource

MAX_FILE = 5 << 20
MAX_ARCHIVE = 50 << 20
MAX_MEMBERS = 20_000
ARCHIVE_MEMORY = 256 << 20
ARCHIVE_SECONDS = 10
"""What reading one archive may take: bytes of memory, seconds of CPU."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
NAMES = ("exercises.py", "exercises.ipynb")
_WANTED = re.compile(r"(?:.*/)?(?P<chapter>\d\d_[a-z0-9_]+)/(?P<file>exercises\.(?:py|ipynb))")


class Rejected(Exception):
    """A sentence for the student: why the submission cannot be read, and what to do."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One student's files for one chapter, as bytes, or the reason why there are none."""

    student: str
    chapter: str
    files: Mapping[str, bytes]
    """From the path inside the submission to the content, which is read from disk; one or two entries."""
    problem: str = ""


def collect(paths: Sequence[Path], chapters: Sequence[Chapter], chapter: Chapter | None = None) -> list[Submission]:
    """Read all submissions at `paths`.

    Args:
        paths: submissions, or folders of submissions.
        chapters: the course's chapters; others in a submission are left alone.
        chapter: the only chapter to grade, if one was named; needed for a single file.

    Raises:
        CourseError: if a path is not there or nothing in it can be graded.
    """
    known = [c.name for c in ([chapter] if chapter else chapters)]
    found: dict[str, list[tuple[Path, dict[str, Mapping[str, bytes]] | Rejected]]] = {}
    spool = Spool()
    for path in paths:
        for student, place in _submissions(path, chapter):
            found.setdefault(student, []).append((place, _kept(_read(place, known, chapter), spool)))
    if not found:
        where = ", ".join(map(str, paths))
        raise CourseError(f"nothing to grade in {where}: hand in exercises.py or exercises.ipynb.")
    handed_in = {name for reads in found.values() for _, read in reads if isinstance(read, dict) for name in read}
    if not handed_in and chapter is None:
        where = ", ".join(map(str, paths))
        raise CourseError(f"nothing to grade in {where}: no NN_name/exercises.py or .ipynb of this course is in it.")
    expected = [name for name in known if name in handed_in] or known
    return [submission for student in sorted(found) for submission in _of_student(student, found[student], expected)]


def _kept(read: dict[str, dict[str, bytes]] | Rejected, spool: Spool) -> dict[str, Mapping[str, bytes]] | Rejected:
    return read if isinstance(read, Rejected) else {name: spool.keep(files) for name, files in read.items()}


def _of_student(
    student: str, reads: list[tuple[Path, dict[str, Mapping[str, bytes]] | Rejected]], expected: list[str]
) -> Iterator[Submission]:
    if len(reads) > 1:
        names = " and ".join(sorted(place.name for place, _ in reads))
        problem = f"handed in more than once ({names}); leave the one that counts."
        yield from (Submission(student, name, {}, problem) for name in expected)
        return
    _, read = reads[0]
    if isinstance(read, Rejected):
        yield from (Submission(student, name, {}, str(read)) for name in expected)
    elif not read:
        problem = "no exercises.py or exercises.ipynb of this chapter was handed in; hand in NN_name/exercises.py."
        yield from (Submission(student, name, {}, problem) for name in expected)
    else:
        yield from (Submission(student, name, read[name]) for name in sorted(read))


def _submissions(path: Path, chapter: Chapter | None) -> Iterator[tuple[str, Path]]:
    """Give (student, place) for a path: itself, or what lies in it."""
    if not path.exists():
        raise CourseError(f"{path} is not there; give the folder or file that holds the submissions.")
    if path.is_file():
        if path.suffix in (".py", ".ipynb") and chapter is None:
            raise CourseError(f"{path} is a single file; say which chapter it is for with --chapter NN.")
        yield _student_of(path), path
    elif _is_submission(path, chapter):
        yield path.resolve().name, path
    else:
        for entry in sorted(path.iterdir()):
            single = chapter is not None and entry.suffix in (".py", ".ipynb")
            if entry.name.startswith("."):
                continue
            if entry.is_dir() or entry.is_symlink() or entry.name.endswith(ARCHIVES) or single:
                yield _student_of(entry), entry


def _student_of(path: Path) -> str:
    if path.is_dir():
        return path.name
    name = path.name
    for suffix in sorted((*ARCHIVES, ".py", ".ipynb"), key=len, reverse=True):
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def _is_submission(folder: Path, chapter: Chapter | None) -> bool:
    if chapter is not None and any((folder / name).is_file() for name in NAMES):
        return True
    places = [folder, folder / "chapters"]
    return any(
        CHAPTER_NAME.fullmatch(entry.name) and any((entry / name).exists() for name in NAMES)
        for place in places
        if place.is_dir()
        for entry in place.iterdir()
    )


def _read(place: Path, known: list[str], chapter: Chapter | None) -> dict[str, dict[str, bytes]] | Rejected:
    """Give chapter -> path -> content."""
    try:
        if place.is_symlink():
            raise Rejected(f"{place.name} is a link, not a file; hand in the file itself.")
        if place.is_dir():
            return _read_folder(place, known, chapter)
        if place.name.endswith(ARCHIVES):
            return _group(_read_apart(place, known, chapter))
        assert chapter is not None
        return {chapter.name: {"exercises" + place.suffix: _read_file(place)}}
    except Rejected as rejected:
        return rejected
    except OSError as error:
        return Rejected(f"it cannot be read: {error.strerror}; hand it in again.")


def _read_folder(folder: Path, known: list[str], chapter: Chapter | None) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for name in known:
        for place in (folder / name, folder / "chapters" / name):
            prefix = place.relative_to(folder).as_posix()
            for part in (folder / "chapters", place):
                if part.is_symlink():
                    raise Rejected(f"{part.name} is a link, not a folder; hand in the files themselves.")
            files = {f"{prefix}/{file}": _read_file(place / file) for file in NAMES if os.path.lexists(place / file)}
            if files:
                found.setdefault(name, files)
    if not found and chapter is not None:
        files = {file: _read_file(folder / file) for file in NAMES if os.path.lexists(folder / file)}
        return {chapter.name: files} if files else {}
    return found


def _read_file(file: Path) -> bytes:
    """Read a regular file, never a link, never more than may be. Raises Rejected."""
    try:
        fd = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        if file.is_symlink():
            raise Rejected(f"{file.name} is a link, not a file; hand in the file itself.") from None
        raise Rejected(f"{file.name} cannot be read ({error.strerror}); hand it in again.") from None
    with open(fd, "rb") as opened:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Rejected(f"{file.name} is not a regular file; hand in the file itself.")
        return _limited(opened.read(MAX_FILE + 1), file.name)


def _limited(data: bytes, name: str) -> bytes:
    if len(data) > MAX_FILE:
        raise Rejected(f"{name} is larger than {MAX_FILE >> 20} MiB; clear the outputs and hand it in again.")
    return data


# -- archives ------------------------------------------------------------------------------------------------------


def _group(members: Iterable[tuple[str, str, bytes]]) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for chapter, path, content in members:
        files = found.setdefault(chapter, {})
        same = [other for other in files if PurePosixPath(other).name == PurePosixPath(path).name]
        if same:
            raise Rejected(f"the archive holds {same[0]} and {path}; leave the one that counts.")
        files[path] = content
    return found


def _read_apart(place: Path, known: list[str], chapter: Chapter | None) -> list[tuple[str, str, bytes]]:
    """Read an archive in a process of its own, with little memory and time: the libraries trust what headers say.

    A hostile header can make them allocate gigabytes, or search for hours. Raises Rejected.
    """
    if not place.is_file():
        raise Rejected(f"{place.name} is not a regular file; hand in the archive itself.")
    with place.open("rb") as file:  # a file that may not be read is no damaged archive
        size = file.seek(0, os.SEEK_END)
    if size > MAX_ARCHIVE:
        raise Rejected(f"{place.name} is larger than {MAX_ARCHIVE >> 20} MiB; hand in the exercises alone.")
    if not hasattr(os, "fork"):
        return list(_read_archive(place, known, chapter))

    def read() -> str:
        _limit_this_process()
        try:
            members = list(_read_archive(place, known, chapter))
        except Rejected as rejected:
            return json.dumps(str(rejected))
        return json.dumps([(name, path, base64.b64encode(content).decode()) for name, path, content in members])

    try:
        answer = json.loads(in_child(read))
    except PolicyError:
        raise Rejected(f"{place.name} takes too much memory or time to read; hand in the exercises alone.") from None
    if isinstance(answer, str):
        raise Rejected(answer)
    return [(name, path, base64.b64decode(content)) for name, path, content in answer]


def _limit_this_process() -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, 2 * (address_space() + ARCHIVE_MEMORY,))
        resource.setrlimit(resource.RLIMIT_CPU, 2 * (ARCHIVE_SECONDS,))


def _read_archive(place: Path, known: list[str], chapter: Chapter | None) -> Iterator[tuple[str, str, bytes]]:
    try:
        yield from (_read_zip if place.suffix == ".zip" else _read_tar)(place, known, chapter)
    except Rejected:
        raise
    except Exception:  # the libraries raise a dozen kinds, struct.error, LZMAError and MemoryError among them
        raise Rejected(f"{place.name} is damaged, encrypted or too large; make it again and hand it in.") from None


def _wanted(path: str, known: list[str], chapter: Chapter | None) -> str | None:
    """Give the chapter that an archive's member belongs to, or None."""
    parts = PurePosixPath(path).parts
    if ".." in parts or "__MACOSX" in parts:
        return None
    match = _WANTED.fullmatch(path)
    if match:
        return match["chapter"] if match["chapter"] in known else None
    return chapter.name if chapter is not None and parts and parts[-1] in NAMES and len(parts) <= 2 else None


def _read_zip(place: Path, known: list[str], chapter: Chapter | None) -> Iterator[tuple[str, str, bytes]]:
    _check_zip_directory(place)
    with zipfile.ZipFile(place) as archive:
        for member in archive.infolist():
            name = _wanted(member.filename, known, chapter)
            if name is None or member.is_dir():
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                raise Rejected(f"{member.filename} is a link, not a file; hand in the file itself.")
            with archive.open(member) as opened:  # streamed: a bomb is cut off at the limit, whatever its header says
                yield name, member.filename, _limited(opened.read(MAX_FILE + 1), member.filename)


def _check_zip_directory(place: Path) -> None:
    """Refuse a directory of very many entries before the library builds an object for each."""
    with open(place, "rb") as file:
        file.seek(max(0, place.stat().st_size - 65_557))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise Rejected(f"{place.name} is not a whole zip file; make the archive again and hand it in.")
    # the library goes by the directory's size, not by the count that stands beside it
    if place.read_bytes().count(b"PK\x01\x02") > MAX_MEMBERS:
        raise Rejected(f"{place.name} holds more than {MAX_MEMBERS} files; hand in the exercises alone.")


def _read_tar(place: Path, known: list[str], chapter: Chapter | None) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(place, "r|*") as archive:
        unpacked = 0
        for count, member in enumerate(archive):
            unpacked += member.size
            if count > MAX_MEMBERS or unpacked > 4 * MAX_ARCHIVE:
                raise Rejected(f"{place.name} unpacks to too much; hand in the exercises alone.")
            name = _wanted(member.name.removeprefix("./"), known, chapter)
            if name is None or member.isdir():
                continue
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is None:
                raise Rejected(f"{member.name} is a link, not a file; hand in the file itself.")
            yield name, member.name.removeprefix("./"), _limited(opened.read(MAX_FILE + 1), member.name)
