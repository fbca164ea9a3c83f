"""Outcomes made by hand for the tests of the reports, hostile ones among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from grader.course import Chapter, Course, Exercise
from grader.grading.result import ExerciseOutcome, Outcome, TestOutcome, Verdict

DETAIL = "DETAIL-expected-0.7310585"
HINT = "Look at `dim`: *which* axis is summed?"
LIVE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</pre></td></table><h1>hi</h1>",
    '"onmouseover="alert(1)',
    "[x](javascript:alert(1)) ![y](https://evil.example/y.png)",
    "``````",
    "``` \n# heading\n```` **bold** `code` ``````",
    "| a | b |\n|---|---|",
    "\x1b[31mred\x1b]8;;https://evil.example\x07link\x1b]8;;\x07 \x9b2J",
    "\u202egnp.exe\u2066\u200f",
    "{{ 7*7 }}{% raw %}",
    "&lt;b&gt; &#x3c;b&#x3e;",
]
HOSTILE_IDS = [
    *LIVE,
    *(
        "../x",
        "..",
        "/etc/passwd",
        "a/b",
        "a\\b",
        "a:b",
        "CON",
        "con",
        "nul.txt",
        "com1",
        "",
        " ",
        "  ",
        ".",
        ".hidden",
    ),
    *("ada", "Ada", "ADA", "ada--0", "e\u0301", "\u00e9", "\ufb01", "fi", "x" * 300, "x" * 301, "\0", "a\nb", "a\rb"),
    *("=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "'=1", "''=1", "\uff1d1", "a;=1+1", 'a,"b"', "\udce9", "学生", "😀"),
]


def a_course() -> Course:
    chapters = (a_chapter("06_attention", "Attention"), a_chapter("07_blocks", "Blocks & <stacks>"))
    return Course(Path("/home/staff/secret-host/course"), chapters)


def a_chapter(name: str, title: str) -> Chapter:
    exercises = (
        Exercise("softmax", name, ("softmax",), 2.0, 1, "No overflow.", (HINT, "b", "c")),
        Exercise("mask", name, ("mask",), 3.0, 2, "The `past` < the future.", (HINT, "b", "c"), needs=("softmax",)),
    )
    return Chapter(name, title, "s", 60, "", "", (), exercises, Path("/home/staff/chapters"), Path("/home/staff/keys"))


def an_exercise(
    name: str = "softmax",
    verdict: Verdict = Verdict.PASSED,
    passed: int = 0,
    note: str = "",
    diagnosis: str = "",
    title: str = "Each row sums to one",
) -> ExerciseOutcome:
    """Four tests of equal weight, of which `passed` pass; all do if the verdict is that the exercise passed."""
    passed = 4 if verdict is Verdict.PASSED else passed
    points = {"softmax": 2.0, "mask": 3.0}[name]
    tests = tuple(
        TestOutcome(f"test_{name}_{at}", f"{title} ({at})", 1.0, Verdict.PASSED if at < passed else verdict, DETAIL)
        for at in range(4)
    )
    return ExerciseOutcome(name, points, points * passed / 4, verdict, diagnosis, diagnosis and "slip", note, tests)


def an_outcome(student: str = "ada", chapter: str = "06_attention", *exercises: ExerciseOutcome) -> Outcome:
    return Outcome(
        student,
        chapter,
        exercises or (an_exercise("softmax"), an_exercise("mask", Verdict.WRONG, 2, diagnosis="Rows `i` > columns.")),
        file="exercises.py",
        cpu_seconds=1.25,
        key="k1",
        environment={"python": "3.11.7", "isolation": "tier A", "host": "grader-host-17"},
    )


def a_hostile_class() -> list[Outcome]:
    """Every hostile id, with a hostile note, problem, flag, title, detail, file, and each verdict in turn."""
    outcomes = []
    for at, student in enumerate(HOSTILE_IDS):
        text = LIVE[at % len(LIVE)]
        verdict = list(Verdict)[at % len(Verdict)]
        first = an_exercise("softmax", verdict, at % 4, note=text, diagnosis=text, title=text)
        second = an_exercise("mask", Verdict.ERROR, 1, note=f"ValueError: {text}")
        outcome = replace(an_outcome(student, "06_attention", first, second), flags=(text,), file=text)
        outcomes.append(replace(outcome, problem=text if at % 3 == 0 else "", environment={text: text}))
    return outcomes


def a_class(count: int) -> list[Outcome]:
    return [an_outcome(f"s{at:04}", chapter) for at in range(count) for chapter in ("06_attention", "07_blocks")]
