"""The capstone at the desk: the student's own functions joined into one model, trained, measured and talked with.

The capstone is the chapter with an exercise named `pipeline`. Its `PARTS` names where each part comes from:
"NN_name.function". A part whose exercise is right is the student's own; the chapter's stand-in takes the place of any
other.
"""

from __future__ import annotations

import json
import math
import time
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from grader.course import Chapter, Course, CourseError, Exercise
from grader.student.drawer import Drawer
from grader.student.standing import standings
from grader.student.work import read_any
from grader.testing.loading import dataset, load_module
from grader.testing.plugin import load_student_module
from grader.verdict import State

PIPELINE = "pipeline"
DOCUMENTS = 3000
HISTORY = "capstone.jsonl"
QUICK = {"steps": 40, "chat_steps": 60, "pair_steps": 8, "pairs": 60, "chats": 5}
"""A run to see that everything fits together; it learns little."""


@dataclass(frozen=True)
class Joined:
    """The capstone's module with its parts: which are the student's own, and where the others come from."""

    module: types.ModuleType
    parts: Any
    own: tuple[str, ...]
    missing: Mapping[str, str]
    """Parts that are not the student's own, each with the exercise that is not right yet."""


@dataclass(frozen=True)
class Row:
    """One line of the leaderboard: what was measured, and what is known of it."""

    task: str
    value: str
    known: str


def capstone_of(course: Course) -> Chapter:
    """Give the chapter with the pipeline. Raises CourseError."""
    for chapter in course.chapters:
        if any(exercise.name == PIPELINE for exercise in chapter.exercises):
            return chapter
    raise CourseError("this course has no capstone; its chapter comes with a later release.")


def join(course: Course, drawer: Drawer) -> Joined:
    """Join the student's own functions. Raises CourseError if the pipeline itself is not right yet."""
    chapter = capstone_of(course)
    module = _student_module(chapter)
    homes = {name: _home(course, where) for name, where in module.PARTS.items()}
    chapters = {chapter.name: chapter} | {home.name: home for home, _, _ in homes.values() if home is not None}
    states = {s.exercise.id: s.state for each in standings(list(chapters.values()), drawer).values() for s in each}
    if states[chapter.exercise(PIPELINE).id] is not State.RIGHT:
        raise CourseError(f"`pipeline` of {chapter.name} is not right yet; `grader watch {chapter.number}` helps.")
    loaded = cache(_student_module)  # parts of one chapter belong to one copy of it
    own: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for name, (home, exercise, function) in homes.items():
        if home is not None and exercise is not None and states[exercise.id] is State.RIGHT:
            own[name] = getattr(loaded(home), function)
        else:
            missing[name] = exercise.id if exercise is not None else module.PARTS[name]
    return Joined(module, module.with_parts(**own), tuple(own), missing)


def join_reference(course: Course) -> Joined:
    """Join the course's own solutions: for instructors. Raises CourseError where there are none."""
    chapter = capstone_of(course)
    if not chapter.source.is_file():
        raise CourseError("--reference is for instructors: there are no solutions here.")
    loaded = cache(_reference)
    module = loaded(chapter)
    parts = {}
    for name, where in module.PARTS.items():
        home, _, function = _home(course, where)
        if home is not None:
            parts[name] = getattr(loaded(home), function)
    return Joined(module, module.with_parts(**parts), tuple(parts), {})


def _home(course: Course, where: str) -> tuple[Chapter | None, Exercise | None, str]:
    name, _, function = where.partition(".")
    chapter = next((chapter for chapter in course.chapters if chapter.name == name), None)
    known = chapter.exercises if chapter else ()
    return chapter, next((e for e in known if function in e.functions), None), function


def _student_module(chapter: Chapter) -> types.ModuleType:
    return load_student_module(read_any(chapter)[0].file)


def _reference(chapter: Chapter) -> types.ModuleType:
    return load_module(chapter.source, f"solutions.{chapter.name}.exercises")


# -- the run -------------------------------------------------------------------------------------------------------


Talk = Callable[[str], str | None]
"""Answers a word; None if the answer did not come to an end."""


@dataclass(frozen=True)
class Trained:
    """What came out of a run."""

    report: Mapping[str, Any]
    rows: tuple[Row, ...]
    make_talk: Callable[[], Talk]
    """Makes the model once more, to talk with it."""
    seconds: float


def run(joined: Joined, documents: Sequence[str], seed: int, quick: bool, say: Callable[[str], None]) -> Trained:
    """Train and measure, and give a way to talk with the model."""
    module, parts = joined.module, joined.parts
    plan = module.PLAN | (QUICK if quick else {})
    started = time.perf_counter()
    say(f"training on {len(documents)} documents, with {len(joined.own)} of {len(module.PARTS)} parts your own ...")
    report = module.pipeline(documents, seed, parts, plan)
    seconds = time.perf_counter() - started
    make_talk = partial(_conversation, module, parts, documents, seed, plan)
    return Trained(report, tuple(_rows(report, documents[int(0.9 * len(documents)) :])), make_talk, seconds)


def _conversation(module: Any, parts: Any, documents: Sequence[str], seed: int, plan: dict[str, Any]) -> Talk:
    """Make the assistant again, stage by stage, as the report holds no model; the same seed gives the same one."""
    tokenizer, ids, train, _ = module.pack(documents, parts, plan)
    use = (tokenizer, parts, plan)
    model = module.fine_tune(module.pretrain(ids, *use, seed), train, *use, seed)
    model = module.prefer(model, module.make_pairs(train, plan["pairs"], seed), *use, seed)
    model, _ = module.to_int8(model, parts)
    turns = iter(range(1, 1_000_000))

    def talk(word: str) -> str | None:
        one = plan | {"answers": 1}
        ((_, answer),) = module.answers(model, [word], tokenizer, parts, one, seed + next(turns))
        return str(answer) if answer is not None else None

    return talk


def _rows(report: Mapping[str, Any], held_out: Sequence[str]) -> list[Row]:
    bound = _known_bits(held_out)
    known = f"source {bound[0]:.3f}, words alone {bound[1]:.3f}" if bound else ""
    answers = [answer for _, answer in report["answers"] if answer is not None]
    rows = [
        Row("bits a byte of unseen text", f"{report['held_out_bpb']:.3f}", known),
        Row("chats answered in form", f"{report['in_form'][1]:.0%}", "0 % untrained"),
    ]
    if bound:
        sound = sum(dataset("grammar").grammatical(tuple(answer.split())) for answer in answers)
        share = sound / max(1, len(report["answers"]))
        rows.append(Row("answers that are sentences", f"{share:.0%}", "0 % at random"))
    return [
        *rows,
        Row("preferences learnt", f"{report['win_rate']:.2f}", "0.50 for a coin"),
        Row("lost by int8", f"{report['int8_increase']:.2%}", "0 % without int8"),
        Row("cache against none", "the same" if report["same"] else "another answer", f"gap {report['cache_gap']:.0e}"),
    ]


def _known_bits(documents: Sequence[str]) -> tuple[float, float] | None:
    """Give these documents' bits a byte under their own source, and by the frequencies of words; None if unknown."""
    grammar = dataset("grammar")
    sentences = [tuple(document.split()) for document in documents]
    frequency = grammar.unigram()
    if not all(grammar.grammatical(words) for words in sentences):
        return None
    size = sum(len(document.encode()) for document in documents)
    truth = -sum(math.log2(grammar.probability(words)) for words in sentences)
    alone = -sum(math.log2(frequency[word]) for words in sentences for word in words)
    return truth / size, alone / size


def corpus(file: Path | None, seed: int) -> list[str]:
    """Give the documents: the lines of a file, or sentences of the course's grammar. Raises CourseError."""
    if file is None:
        return [" ".join(words) for words, _ in dataset("grammar").sentences(seed, DOCUMENTS)]
    try:
        documents = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise CourseError(f"{file} cannot be read ({error}); give a text file with one document a line.") from None
    if len(documents) < 50:
        raise CourseError(f"{file} has {len(documents)} documents, one a line; at least 50 are needed.")
    cut = int(0.9 * len(documents))
    if not all(map(_can_be_compared, (documents[:cut], documents[cut:]))):
        raise CourseError(
            f"{file}: preferences need lines that begin with the same word and differ in their number of words, "
            "among the first nine tenths and among the rest; give another text, or the same lines in another order."
        )
    return documents


def _can_be_compared(documents: Sequence[str]) -> bool:
    lengths: dict[str, set[int]] = {}
    for document in documents:
        words = document.split()
        lengths.setdefault(words[0], set()).add(len(words))
    return any(len(different) > 1 for different in lengths.values())


# -- the leaderboard -----------------------------------------------------------------------------------------------


def remember(drawer: Drawer, joined: Joined, trained: Trained, seed: int) -> list[dict[str, Any]]:
    """Note the run in the drawer and give all runs, the best first: least bits a byte."""
    file = drawer.folder / HISTORY
    entry = {
        "day": time.strftime("%Y-%m-%d"),
        "seed": seed,
        "own": len(joined.own),
        "parts": len(joined.module.PARTS),
        "held_out_bpb": trained.report["held_out_bpb"],
        "win_rate": trained.report["win_rate"],
        "in_form": trained.report["in_form"][1],
        "hash": trained.report["hash"],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(entry) + "\n")
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue  # half a line of a run that was stopped
    return sorted(found, key=lambda each: float(each["held_out_bpb"]))
