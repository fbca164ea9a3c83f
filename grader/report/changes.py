"""What a regrade changed, and why: changes.csv, and a sentence with the counts."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grader.grading.ledger import Entry, Regrade, remember
from grader.grading.result import Outcome
from grader.grading.store import write_atomically
from grader.report.safe import clean, defuse
from grader.report.words import VERDICT_WORDS, plural

REASONS = {
    "hand_in": "the hand-in changed",
    "suite": "the chapter's hidden tests or settings changed",
    "grader": "the grader itself changed",
    "seed": "another seed",
    "choice": "graded with other options",
}
MOST_REASONS = 3
COLUMNS = ("student", "chapter", "exercise", "before", "after", "points", "verdict before", "verdict after", "why")


@dataclass(frozen=True)
class Change:
    """One exercise whose score or verdict is another than before; None where there was, or is, no such exercise."""

    student: str
    chapter: str
    exercise: str
    before: float | None
    after: float | None
    points: float
    verdict_before: str
    verdict_after: str
    why: str

    @property
    def gain(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


def note_changes(outcomes: Sequence[Outcome], ledger: Path, file: Path) -> str:
    """Compare with the run before, write changes.csv if a mark changed, and give a sentence, or "" if all is as it was.

    Args:
        outcomes: of this run, of any students and chapters.
        ledger: the file that remembers the runs before; the outcomes are put into it.
        file: where the list goes. A run that changes nothing leaves the last list where it is.
    """
    regrades = remember(ledger, outcomes)
    changes = [change for regrade in regrades for change in _changes(regrade)]
    if changes:
        write_atomically(file, changes_csv(changes).encode())
        return f"{_counts(changes)} Each is in {file}."
    return f"{plural(len(regrades), 'result')} made anew: no score changed." if regrades else ""


def changes_csv(changes: Sequence[Change]) -> str:
    """Give one row for each exercise whose mark changed, in order."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    table.writerow(COLUMNS)
    for change in sorted(changes, key=lambda change: (change.student, change.chapter)):
        scores = ["" if score is None else round(score, 6) for score in (change.before, change.after)]
        words = [change.verdict_before, change.verdict_after, change.why]
        names = [change.student, change.chapter, change.exercise]
        table.writerow([*map(defuse, names), *scores, change.points, *map(defuse, words)])
    return text.getvalue()


def _changes(regrade: Regrade) -> Iterator[Change]:
    before, after = regrade.before, regrade.after
    for name in dict.fromkeys([*after.exercises, *before.exercises]):
        old, new = before.exercises.get(name), after.exercises.get(name)
        if old is None or new is None or (old.score, old.verdict) != (new.score, new.verdict):
            yield Change(
                student=after.student,
                chapter=after.chapter,
                exercise=name,
                before=old.score if old else None,
                after=new.score if new else None,
                points=new.points if new else 0.0,
                verdict_before=VERDICT_WORDS[old.verdict] if old else "",
                verdict_after=VERDICT_WORDS[new.verdict] if new else "",
                why=_why(before, after),
            )


def _why(before: Entry, after: Entry) -> str:
    """Name every part of what determines a result that is another than before."""
    parts = [words for part, words in REASONS.items() if before.parts.get(part) != after.parts.get(part)]
    if before.file and after.file and before.file != after.file:
        parts.append(f"{clean(after.file)} counts now, {clean(before.file)} before")
    both = before.environment.keys() & after.environment.keys()
    for name in sorted(both, key=lambda name: (name == "isolation", name)):
        old, new = before.environment[name], after.environment[name]
        if old != new:
            parts.append("another isolation" if name == "isolation" else f"{name} {old} became {new}")
    return "; ".join(parts) or "graded anew from the same: the result is not repeatable, look at it"


def _counts(changes: Sequence[Change]) -> str:
    up, down = sum(change.gain > 0 for change in changes), sum(change.gain < 0 for change in changes)
    kinds = ((up, "up"), (down, "down"), (len(changes) - up - down, "of equal score"))
    moved = ", ".join(f"{count} {word}" for count, word in kinds if count)
    students = plural(len({change.student for change in changes}), "student")
    reasons = Counter(change.why for change in changes).most_common()
    why = ", ".join(f"{reason} ({count})" for reason, count in reasons[:MOST_REASONS])
    rest = f", and {len(reasons) - MOST_REASONS} other reasons" if len(reasons) > MOST_REASONS else ""
    return f"Since the run before, {plural(len(changes), 'mark')} of {students} changed ({moved}): {why}{rest}."
