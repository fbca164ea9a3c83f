"""Results kept under what determines them: submission, suite, environment, seed. Written atomically, one file each."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType

from grader.course import Chapter
from grader.grading.result import SCHEMA, Outcome, from_json, to_json

GRADING_CODE = ("course.py", "verdict.py", "sandbox", "testing", "grading")
PACKAGES = ("torch", "numpy", "hypothesis", "pytest", "regex", "tiktoken")


def suite_digest(chapter: Chapter) -> str:
    """Give a digest of what the chapter judges by: its hidden suite, its numbers, its stub."""
    return _digest([chapter.folder / "chapter.toml", *sorted(chapter.solutions.glob("*.py")), chapter.stub])


def grader_digest() -> str:
    """Give a digest of the code that grades."""
    package = Path(__file__).resolve().parent.parent
    files = []
    for name in GRADING_CODE:
        place = package / name
        files += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return _digest(files)


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + (file.read_bytes() if file.is_file() else b"") + b"\0")
    return digest.hexdigest()


@cache
def environment() -> Mapping[str, str]:
    """Give the versions that may change a result; looked up once, for every submission asks."""
    versions = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return MappingProxyType(versions)


def parts_of(
    files: Mapping[str, bytes], problem: str, suite: str, grader: str, secret: str, how: str
) -> dict[str, str]:
    """Give what determines a result, beside the environment, each as a digest: so it is known why a result is another.

    Args:
        files: what was handed in, and `problem`, why nothing could be.
        suite: the chapter's digest, and `grader`, that of the code.
        secret: the instructor's word that varies the hidden inputs.
        how: what else was asked for, such as which file counts.
    """
    contents = {path: hashlib.sha256(data).hexdigest() for path, data in files.items()}
    own = {"hand_in": json.dumps([contents, problem], sort_keys=True), "seed": secret, "choice": how}
    return {"suite": suite, "grader": grader} | {
        name: hashlib.sha256(f"{name}\0{text}".encode()).hexdigest() for name, text in own.items()
    }


def key_of(chapter: Chapter, parts: Mapping[str, str]) -> str:
    """Give the key of one result."""
    whole = [SCHEMA, chapter.name, dict(parts), dict(environment())]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


class Store:
    """The results of one output folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> Outcome | None:
        """Give a kept result, or None; a damaged file counts as none."""
        try:
            return from_json(json.loads(self._file(key).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def put(self, key: str, outcome: Outcome) -> None:
        """Keep a result; a killed run leaves the whole of it or nothing."""
        file = self._file(key)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(to_json(outcome), allow_nan=False).encode())

    def _file(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def write_atomically(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    fd, temporary = tempfile.mkstemp(dir=file.parent, prefix=".part-")
    try:
        with open(fd, "wb") as opened:
            opened.write(data)
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
