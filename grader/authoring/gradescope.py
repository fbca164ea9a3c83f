"""The archive that Gradescope takes as an autograder: set-up, a runner, and of the course what grades one chapter."""

from __future__ import annotations

import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path

from grader.course import Chapter, Course

HERE = Path(__file__).parent
SCRIPTS = ("setup.sh", "run_autograder")
ROOT_FILES = ("LICENSE", "README.md", "constraints.txt", "pyproject.toml")
LEFT_OUT = {"__pycache__", "tests", "benchmarks"}
EPOCH = (2020, 1, 1, 0, 0, 0)
"""Every entry's time: the same course gives the same bytes."""


def write_autograder(course: Course, chapter: Chapter, out: Path, secret: str, isolation: str) -> int:
    """Write the archive and give how many files it holds.

    Args:
        course: the instructor's course; of its solutions only the chapter's go in.
        chapter: the chapter that the assignment is about.
        out: the archive.
        secret: varies the hidden inputs.
        isolation: "all" refuses where the sandbox is not whole; "none" trusts Gradescope's container alone.
    """
    files = dict(_files(course, chapter))
    settings = f"CHAPTER={chapter.number}\nISOLATION={isolation}\nexport GRADER_SEED={shlex.quote(secret)}\n"
    files["settings.sh"] = settings.encode()
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = (0o755 if name in SCRIPTS else 0o644) << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return len(files)


def _files(course: Course, chapter: Chapter) -> Iterator[tuple[str, bytes]]:
    for name in SCRIPTS:
        yield name, (HERE / "gradescope_files" / name).read_bytes()
    for name in ROOT_FILES:
        if (course.root / name).is_file():
            yield f"course/{name}", (course.root / name).read_bytes()
    machine = HERE.parent
    places = [(chapter.folder, "chapters"), (chapter.solutions, "solutions"), (course.root / "datasets", "")]
    for folder, below in [(machine, ""), *places]:
        for file in sorted(folder.rglob("*")):
            parts = file.relative_to(folder).parts
            if file.is_file() and not LEFT_OUT & {parts[0], *file.parts[-2:]}:
                yield "/".join(["course", *filter(None, [below]), folder.name, *parts]), file.read_bytes()
