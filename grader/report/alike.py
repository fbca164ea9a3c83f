"""Hand-ins that are suspiciously alike: pairs for a person to look at, never a verdict.

copydetect cuts code into passages, with names and layout left out (winnowing: Schleimer, Wilkerson, Aiken, 2003). What
all share says nothing and is left out: the stub, the reference, and whatever many of the class wrote too.
"""

from __future__ import annotations

import contextlib
import csv
import io
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import FrameType

from copydetect import CodeFingerprint, compare_files  # type: ignore[import-untyped]
from copydetect.utils import get_token_coverage  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined

from grader.course import Chapter
from grader.grading.collect import Submission
from grader.report.safe import defuse, visible
from grader.sandbox.agent import decode_source, notebook_source

PASSAGE = 30
"""Characters of normalised code: what is shorter is found in any two programs."""
COMMON = (10, 0.05, 50)
"""A passage in more hand-ins says nothing: more than a number, or than that share of the class, up to a bound."""
LEAST_SHARED = 150
LEAST_SHARE = 0.3
"""A pair is listed from so many shared characters, and so large a part of the shorter of the two, on."""
MOST_PAIRS = 100
MOST_TEXT = 200_000
SECONDS = 10


@dataclass(frozen=True)
class Pair:
    """Two hand-ins and what they share beyond what is common: characters of normalised code, its part, its places."""

    first: str
    second: str
    shared: int
    share: float
    texts: tuple[str, str]
    places: tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]


@dataclass(frozen=True)
class Alike:
    """What was found in a chapter: pairs, the most alike first, and who could not be compared and why."""

    chapter: Chapter
    compared: int
    pairs: tuple[Pair, ...]
    left_out: Mapping[str, str]


def find_alike(chapter: Chapter, submissions: Sequence[Submission], progress: Callable[[int, int], None]) -> Alike:
    """Compare all hand-ins of a chapter with each other."""
    known = _passages(chapter.stub.read_text(encoding="utf-8")).hashes
    if chapter.source.is_file():
        known = known | _passages(chapter.source.read_text(encoding="utf-8")).hashes
    prints: dict[str, CodeFingerprint] = {}
    left_out: dict[str, str] = {}
    for done, submission in enumerate(submissions):
        try:
            with _at_most(SECONDS):
                prints[submission.student] = _passages(_text(submission))
        except (SyntaxError, _TooLong) as error:
            left_out[submission.student] = str(error)
        progress(done + 1, len(submissions))
    common = _common(prints) | known
    for fingerprint in prints.values():
        _leave_out(fingerprint, common)
    return Alike(chapter, len(prints), tuple(_pairs(prints)), left_out)


class _TooLong(Exception):
    """A hand-in that takes too long to read, or is too large."""


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    """Stop what a hand-in makes slow; where there is no such timer, its size is the only bound."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _TooLong("it takes too long to read")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _text(submission: Submission) -> str:
    if submission.problem:
        raise SyntaxError(submission.problem)
    texts = [
        notebook_source(data) if path.endswith(".ipynb") else decode_source(data)
        for path, data in sorted(submission.files.items())
    ]
    text = max(texts, key=len)  # of a module and a notebook one is the stub
    if len(text) > MOST_TEXT:
        raise _TooLong(f"it has more than {MOST_TEXT:,} characters")
    return text


def _passages(text: str) -> CodeFingerprint:
    # a window of 1 keeps every passage, so that nothing depends on how hashes happen to be ordered
    return CodeFingerprint("exercises.py", PASSAGE, 1, fp=io.StringIO(text))


def _common(prints: Mapping[str, CodeFingerprint]) -> set[int]:
    """Give the passages that so many of the class wrote that they tell nothing."""
    number, share, bound = COMMON
    most = min(bound, max(number, int(share * len(prints))))
    counts = Counter(passage for fingerprint in prints.values() for passage in fingerprint.hashes)
    return {passage for passage, count in counts.items() if count > most}


def _leave_out(fingerprint: CodeFingerprint, common: set[int]) -> None:
    """Keep what is a student's own; shares are shares of that."""
    fingerprint.hashes -= common
    fingerprint.hash_idx = {passage: at for passage, at in fingerprint.hash_idx.items() if passage not in common}
    fingerprint.token_coverage = get_token_coverage(fingerprint.hash_idx, PASSAGE, len(fingerprint.filtered_code))


def _pairs(prints: Mapping[str, CodeFingerprint]) -> list[Pair]:
    owners: dict[int, list[str]] = {}
    for student, fingerprint in prints.items():
        for passage in fingerprint.hashes:
            owners.setdefault(passage, []).append(student)
    shared = Counter(pair for students in owners.values() for pair in combinations(sorted(students), 2))
    found = [_pair(first, second, prints) for (first, second), count in shared.items() if count > LEAST_SHARED // 4]
    listed = [pair for pair in found if pair.shared >= LEAST_SHARED and pair.share >= LEAST_SHARE]
    return sorted(listed, key=lambda pair: (-pair.share, -pair.shared, pair.first, pair.second))[:MOST_PAIRS]


def _pair(first: str, second: str, prints: Mapping[str, CodeFingerprint]) -> Pair:
    one, other = prints[first], prints[second]
    shared, shares, slices = compare_files(one, other)
    places = [[(int(start), int(end)) for start, end in zip(*each, strict=True)] for each in slices]
    greater = min(1.0, max(float(share) for share in shares))
    return Pair(first, second, int(shared), greater, (one.raw_code, other.raw_code), (places[0], places[1]))


# -- what is written -----------------------------------------------------------------------------------------------


def write_alike(found: Sequence[Alike], out: Path) -> Path:
    """Write similar.html, the pairs side by side, and similar.csv, and give the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=PackageLoader("grader.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"visible": visible}
    environment.globals |= {"passages": passages}
    page = out / "similar.html"
    page.write_text(environment.get_template("similar.html.j2").render(found=found), "utf-8", errors="backslashreplace")
    with (out / "similar.csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        table.writerow(["chapter", "first", "second", "share", "characters"])
        for alike in found:
            for pair in alike.pairs:
                names = [defuse(alike.chapter.name), defuse(pair.first), defuse(pair.second)]
                table.writerow([*names, round(pair.share, 3), pair.shared])
    return page


def passages(text: str, places: Sequence[tuple[int, int]], around: int = 2) -> Iterator[tuple[bool, str]]:
    """Give the lines that are shared, and some around them, each with whether it is; "" where some are left out."""
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    marked = {i for i in range(len(lines)) for start, end in places if start < starts[i + 1] and end > starts[i]}
    near = {i + step for i in marked for step in range(-around, around + 1)}
    last = -1
    for i in sorted(near & set(range(len(lines)))):
        if i != last + 1:
            yield False, ""
        yield i in marked, lines[i].rstrip("\n")
        last = i
