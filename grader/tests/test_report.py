"""Reports: every rendering tells the same story, and nothing from a student is live in any of them."""

from __future__ import annotations

import csv
import json
import math
import random
import re
import sys
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len

from grader.course import Course
from grader.grading.result import ExerciseOutcome, Outcome, Verdict
from grader.report.feedback import student_page
from grader.report.files import feedback_path, write_all
from grader.report.statistics import Odd, collect, exercise_statistics, histogram, misconceptions, odd_cases
from grader.report.terminal import class_table, doctor_table
from grader.report.words import Standing
from grader.tests.outcomes import (
    DETAIL,
    HOSTILE_IDS,
    LIVE,
    a_chapter,
    a_class,
    a_course,
    a_hostile_class,
    an_exercise,
    an_outcome,
)


def read_csv(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


# ---- the files


def test_results_json_follows_its_schema_and_keeps_every_id(tmp_path: Path) -> None:
    write_all(a_hostile_class(), a_course(), tmp_path)
    data = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    schema = json.loads(files("grader.report").joinpath("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(data, schema, jsonschema.Draft202012Validator)
    assert [row["student"] for row in data["students"]] == sorted(HOSTILE_IDS)
    assert data["students"][0]["chapters"][0]["exercises"][0]["tests"][0]["detail"] == DETAIL
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**data, "time": 0}, schema, jsonschema.Draft202012Validator)


def test_equal_outcomes_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    outcomes = [*a_hostile_class(), *a_class(3)]
    shuffled = random.Random(1).sample(outcomes, len(outcomes))
    first = write_all(outcomes, a_course(), tmp_path / "one")
    second = write_all(shuffled, a_course(), tmp_path / "two")
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    slower = [replace(outcome, cpu_seconds=9.0) for outcome in outcomes]
    write_all(slower, a_course(), tmp_path / "slow")
    assert (tmp_path / "slow/results.json").read_bytes() == (tmp_path / "one/results.json").read_bytes()


def test_what_is_written_is_listed_and_nothing_else_is_left(tmp_path: Path) -> None:
    written = write_all(a_hostile_class(), a_course(), tmp_path / "out")
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(written)
    assert len(written) == 3 + len(HOSTILE_IDS)


def test_a_file_that_cannot_be_replaced_leaves_no_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "grades.csv").mkdir()
    with pytest.raises(OSError):
        write_all(a_class(2), a_course(), tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["students"]


@pytest.mark.parametrize("score", [math.nan, math.inf, -1.0, 99.0])
def test_a_score_out_of_its_range_is_refused_before_anything_is_written(tmp_path: Path, score: float) -> None:
    bad = an_outcome("eve", "06_attention", replace(an_exercise(), score=score))
    with pytest.raises(ValueError, match="eve.*06_attention.*softmax"):
        write_all([an_outcome(), bad], a_course(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_two_different_results_for_one_hand_in_are_refused() -> None:
    twice = [an_outcome(), an_outcome("ada", "06_attention", an_exercise("softmax", Verdict.WRONG))]
    with pytest.raises(ValueError, match="ada.*06_attention"):
        collect(twice)
    assert len(collect([an_outcome(), an_outcome()])["ada"]) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from([i for i in HOSTILE_IDS if i != "\udce9"]), unique=True))
def test_grades_csv_gives_back_every_id_and_holds_no_formula(students: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_all([an_outcome(student) for student in students], a_course(), Path(folder))
        rows = read_csv(Path(folder) / "grades.csv")
    cells = [row[0] for row in rows[1:]]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row)
    assert [re.sub(r"\A'(?='*[=+\-@\t\r\n＝＋－＠])", "", cell) for cell in cells] == sorted(students)  # noqa: RUF001
    assert {tuple(row[1:]) for row in rows[1:]} <= {("3.5", "5", "3.5", "5")}


def test_grades_csv_leaves_empty_what_is_missing_or_graded_again(tmp_path: Path) -> None:
    again = an_outcome("cem", "06_attention", an_exercise("softmax", Verdict.INFRA), an_exercise("mask"))
    rejected = Outcome("dee", "06_attention", (), problem="The archive is empty.")
    write_all([*a_class(1), an_outcome("ben"), again, rejected], a_course(), tmp_path)
    head, ben, cem, dee, whole = read_csv(tmp_path / "grades.csv")
    columns = ["student", "06_attention score", "06_attention points", "07_blocks score", "07_blocks points"]
    assert head == [*columns, "total", "total points"]
    assert ben == ["ben", "3.5", "5", "", "5", "3.5", "10"]
    assert cem == ["cem", "", "5", "", "5", "", "10"]
    assert dee == ["dee", "0", "5", "", "5", "0", "10"]
    assert whole == ["s0000", "3.5", "5", "3.5", "5", "7", "10"]


def _on_the_narrowest_disk(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def test_feedback_names_are_safe_and_never_shared() -> None:
    names = [feedback_path(student) for student in HOSTILE_IDS]
    assert len({_on_the_narrowest_disk(name) for name in names}) == len(HOSTILE_IDS)
    stems = [name.removeprefix("feedback/").removesuffix(".md") for name in names]
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,70}", stem) for stem in stems)
    assert not {stem.casefold().split(".")[0] for stem in stems} & {"con", "nul", "com1", "aux", "prn"}
    assert feedback_path("ada.lovelace") == "feedback/ada.lovelace.md"


@given(st.text(), st.text())
def test_two_students_never_share_a_page(one: str, other: str) -> None:
    same = _on_the_narrowest_disk(feedback_path(one)) == _on_the_narrowest_disk(feedback_path(other))
    assert same == (one == other)


# ---- a student's page


def test_a_page_explains_what_does_not_hold_and_where_to_go() -> None:
    page = student_page([an_outcome()], a_course())
    assert "**3.5 of 5 points** in 1 chapter handed in." in page
    assert "| `softmax` | right | 2/2 |" in page
    assert "### `mask`: partly right, 1.5 of 3 points" in page
    assert r"Looks like: Rows `i` \> columns." in page
    assert "Does not hold yet:\n\n- Each row sums to one (2)\n- Each row sums to one (3)\n" in page
    assert r"Hint: Look at `dim`: \*which\* axis is summed?" in page
    assert page.rstrip().endswith("Mend `mask` and check it with `pytest chapters/06_attention -k mask`.")


WORDS = {
    Verdict.WRONG: "wrong",
    Verdict.ERROR: "stopped by an error",
    Verdict.TODO: "to do",
    Verdict.TIMEOUT: "stopped at the time limit",
    Verdict.MEMORY: "stopped at the memory limit",
    Verdict.OUTPUT: "stopped at the output limit",
    Verdict.CRASHED: "crashed the Python process",
    Verdict.FORBIDDEN: "uses a function that this exercise forbids",
    Verdict.REJECTED: "not graded: the hand-in could not be read",
}


@pytest.mark.parametrize(("verdict", "words"), WORDS.items())
def test_each_verdict_has_words(verdict: Verdict, words: str) -> None:
    page = student_page([an_outcome("ada", "06_attention", an_exercise("softmax", verdict))], a_course())
    assert f"| `softmax` | {words} | 0/2 |" in page


def test_waiting_names_what_it_waits_for_and_gets_no_hint() -> None:
    exercises = an_exercise("softmax", Verdict.TODO), an_exercise("mask", Verdict.WAITS, note="waits for softmax")
    page = student_page([an_outcome("ada", "06_attention", *exercises)], a_course())
    assert "| `mask` | waits for `softmax` | 0/3 |" in page
    assert "Hint" not in page and "Does not hold" not in page
    assert "Begin with `softmax`" in page


def test_the_machines_failure_is_no_zero_and_no_blame() -> None:
    again = an_outcome("ada", "07_blocks", an_exercise("softmax", Verdict.INFRA), an_exercise("mask"))
    page = student_page([an_outcome(), again], a_course())
    assert "**3.5 of 5 points** in 1 chapter handed in. 1 more chapter will be graded again." in page
    assert "it does not count as zero" in page
    assert "0/2" not in page


@pytest.mark.parametrize("exercises", [(), (an_exercise("softmax", Verdict.REJECTED),)])
def test_a_rejected_hand_in_says_why_and_asks_for_another(exercises: tuple[ExerciseOutcome, ...]) -> None:
    page = student_page([Outcome("ada", "06_attention", exercises, problem="The archive is empty.")], a_course())
    assert "The hand-in could not be graded:\n\n```text\nThe archive is empty.\n```" in page
    assert page.rstrip().endswith("Hand in `06_attention` again: it could not be read.")


def test_when_all_is_right_the_next_chapter_is_named() -> None:
    done = an_outcome("ada", "06_attention", an_exercise("softmax"), an_exercise("mask"))
    page = student_page([done], a_course())
    assert r"All of it is right. Next: chapter 07, Blocks \& \<stacks\>." in page


def test_a_page_is_for_one_student() -> None:
    with pytest.raises(ValueError, match="one student"):
        student_page([an_outcome("ada"), an_outcome("ben")], a_course())


@pytest.mark.parametrize("text", LIVE)
def test_nothing_is_live_in_a_page(text: str) -> None:
    exercise = an_exercise("softmax", Verdict.ERROR, 0, note=text, diagnosis=text, title=text)
    outcome = replace(an_outcome(text, "06_attention", exercise), problem=text)
    page = student_page([outcome], a_course())
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(page)
    kinds = {token.type for block in tokens for token in (block, *(block.children or ()))}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "s_open", "hr", "blockquote_open"}
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert len(headings) == 4 and headings[-1] == "Where to go next"
    assert len([token for token in tokens if token.type == "fence"]) == 2
    assert len([token for token in tokens if token.type == "table_open"]) == 1
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in page.replace("\n", ""))


def test_a_page_keeps_the_graders_secrets(tmp_path: Path) -> None:
    note = "FileNotFoundError: '/run/grader/jail-7/exercises.py' or C:\\grader\\jail\\data.txt"
    outcomes = [*a_class(2), an_outcome("ada", "06_attention", an_exercise("softmax", Verdict.ERROR, note=note))]
    outcomes = [replace(outcome, flags=("both files edited",)) for outcome in outcomes]
    write_all(outcomes, a_course(), tmp_path)
    for student in ("s0000", "s0001", "ada"):
        page = (tmp_path / feedback_path(student)).read_text(encoding="utf-8")
        assert "Does not hold yet" in page
        others = {"s0000", "s0001", "ada"} - {student}
        secrets = {DETAIL, "test_mask", "grader-host-17", "/home", "jail", "both files edited", str(tmp_path), *others}
        assert not [secret for secret in secrets if secret in page]
    assert "'.../exercises.py' or .../data.txt" in page


# ---- the class's page


@dataclass
class Seen(HTMLParser):
    """Every tag with its attributes, as a browser would see them."""

    def __post_init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))


def a_page(outcomes: Sequence[Outcome], folder: Path) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    write_all(outcomes, a_course(), folder)
    text = (folder / "report.html").read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(text)
    return text, seen.tags


def test_the_page_runs_nothing_and_asks_for_nothing(tmp_path: Path) -> None:
    text, tags = a_page(a_hostile_class(), tmp_path)
    _, tame = a_page(a_class(3), tmp_path)
    assert {tag for tag, _ in tags} <= {tag for tag, _ in tame} | {"h3", "dl"}
    names = {name for _, attributes in tags for name in attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "srcset", "action", "background"}
    assert all(attributes["href"].startswith("#") for _, attributes in tags if "href" in attributes)
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert not re.search(r"url\(|@import|https?:|//", style)
    assert "default-src 'none'" in text
    assert "49" not in re.findall(r"<bdi>(.*?)</bdi>", text)
    assert not any(unicodedata.category(char) in ("Cc", "Cf") for char in text.replace("\n", ""))


def test_every_table_has_a_caption_and_every_head_a_scope(tmp_path: Path) -> None:
    _, tags = a_page(a_hostile_class(), tmp_path)
    kinds = [tag for tag, _ in tags]
    assert kinds.count("table") == kinds.count("caption") == 5
    scopes = {attributes.get("scope") for tag, attributes in tags if tag == "th"}
    assert scopes == {"col", "row", "colgroup", "rowgroup"}


def _palettes(text: str) -> list[dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_text_stands_out_in_light_and_dark(tmp_path: Path) -> None:
    text, _ = a_page([an_outcome()], tmp_path)
    light, dark = _palettes(text)
    for palette in (light, {**light, **dark}):
        grounds = [palette[name] for name in ("paper", "card", "r", "p1", "p2", "p3", "x", "s", "n", "w", "t")]
        assert min(_contrast(palette["ink"], ground) for ground in grounds) >= 4.5
        for ground in ("paper", "card"):
            assert min(_contrast(palette[name], palette[ground]) for name in ("soft", "accent")) >= 4.5


def test_the_page_shows_the_class_exercise_by_exercise(tmp_path: Path) -> None:
    text, _ = a_page(
        [*a_class(3), an_outcome("ben", "06_attention", an_exercise("softmax", Verdict.TIMEOUT))], tmp_path
    )
    assert re.search(r"<bdi>ben</bdi></th><td class=\"num\">0 %<td class=s>T<td class=a>·", text)
    assert re.search(r"<bdi>s0000</bdi></th><td class=\"num\">70 %<td class=r>✓<td class=p2>50", text)
    assert "Rows <code>i</code> &gt; columns." in text
    assert "Blocks &amp; &lt;stacks&gt;" in text
    assert "timeout 1." in text
    assert "tier A" in text and "3.11.7" in text


def test_a_class_of_two_thousand_fits(tmp_path: Path) -> None:
    text, _ = a_page(a_class(2000), tmp_path)
    assert len(text.encode()) < 3_000_000
    assert "These are 300 of 2,000 students; all are in grades.csv." in text
    assert text.count("<bdi>s") == 300
    assert len(read_csv(tmp_path / "grades.csv")) == 2001


def test_an_empty_class_is_no_error(tmp_path: Path) -> None:
    text, _ = a_page([], tmp_path)
    assert "Nothing was graded." in text
    assert class_table([], a_course()) == "No hand-in was graded."


# ---- the terminal


def test_the_class_table_shows_scores_sums_and_odd_cases() -> None:
    again = an_outcome("cem", "07_blocks", an_exercise("softmax", Verdict.INFRA))
    table = class_table([*a_class(1), an_outcome("ben"), again], a_course())
    lines = [line.split() for line in table.splitlines()]
    assert lines[0] == ["student", "06", "07", "total"]
    assert ["s0000", "3.5/5", "3.5/5", "7/10"] in lines
    assert ["ben", "3.5/5", "-", "3.5/10"] in lines
    assert ["cem", "-", "again", "again"] in lines
    assert ["sum", "7/10", "3.5/5", "10.5/25"] in lines
    assert ["infra", "cem", "07_blocks:", "softmax"] in lines


def test_a_large_class_is_cut_but_its_sums_are_not() -> None:
    table = class_table(a_class(60), a_course())
    assert "and 20 more in grades.csv" in table
    assert "s0039" in table and "s0040" not in table
    assert re.search(r"^sum +210/300 +210/300 +420/600$", table, re.MULTILINE)


def test_at_most_five_cases_of_a_kind_are_listed() -> None:
    slow = [an_outcome(f"s{at}", "06_attention", an_exercise("softmax", Verdict.TIMEOUT)) for at in range(8)]
    lines = class_table(slow, a_course()).splitlines()
    assert len([line for line in lines if line.startswith("timeout")]) == 6
    assert "timeout   and 3 more" in lines


def test_many_chapters_stay_within_eighty_columns() -> None:
    names = [f"{at:02}_chapter" for at in range(1, 27)]
    course = Course(Path(), tuple(a_chapter(name, "T") for name in names))
    table = class_table([an_outcome(student, name) for student in ("ada", "学" * 60) for name in names], course)
    assert max(cell_len(line) for line in table.splitlines()) <= 80
    assert all(re.search(rf"\b{name[:2]}\b", table) for name in names)
    assert table.count("91/130") == 2


def test_no_control_character_reaches_the_terminal() -> None:
    table = class_table(a_hostile_class()[:40], a_course())
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in table.replace("\n", ""))
    assert max(cell_len(line) for line in table.splitlines()) <= 80


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = class_table(a_class(2), a_course())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    coloured = class_table(a_class(2), a_course())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in plain and "\x1b[" in coloured
    assert class_table(a_class(2), a_course()) == plain


@dataclass(frozen=True)
class ALayer:
    name: str
    in_force: bool
    why: str
    remedy: str


def test_doctor_names_the_remedy_of_what_is_not_in_force() -> None:
    layers = [ALayer("landlock", True, "ABI 4", "unused"), ALayer("cgroup", False, "no delegation " * 9, "ask root")]
    lines = doctor_table(layers).splitlines()
    assert lines[0].split() == ["layer", "in", "force", "why"]
    assert lines[2].split() == ["landlock", "yes", "ABI", "4"]
    assert lines[3].split()[:2] == ["cgroup", "no"]
    assert lines[-1].strip() == "to mend it: ask root"
    assert max(map(len, lines)) <= 80


# ---- the numbers


def test_statistics_count_each_standing_once() -> None:
    verdicts = [Verdict.PASSED, Verdict.WRONG, Verdict.TODO, Verdict.TIMEOUT, Verdict.INFRA]
    outcomes = [an_outcome(f"s{at}", "06_attention", an_exercise("mask", v)) for at, v in enumerate(verdicts)]
    outcomes.append(an_outcome("s9", "06_attention", an_exercise("mask", Verdict.WRONG, 2)))
    (row,) = exercise_statistics(collect(outcomes), a_course())
    assert {kind: count for kind, count in row.counts.items() if count} == dict.fromkeys(
        [Standing.RIGHT, Standing.PARTLY, Standing.WRONG, Standing.STOPPED, Standing.TODO, Standing.AGAIN], 1
    )
    assert (row.graded, row.pass_rate) == (5, 0.2)
    assert row.mean == pytest.approx(1.5 / 5)


def test_misconceptions_are_counted_among_the_attempted() -> None:
    todo = an_outcome("z", "06_attention", an_exercise("mask", Verdict.TODO))
    (first, second) = misconceptions(collect([*a_class(3), an_outcome("ben"), todo]))
    assert (first.chapter, first.students, first.attempted) == ("06_attention", 4, 4)
    assert (second.chapter, second.students, second.attempted) == ("07_blocks", 3, 3)


def test_odd_cases_are_found_in_tests_problems_and_flags() -> None:
    mixed = replace(an_exercise("softmax", Verdict.WRONG, 2), verdict=Verdict.PROTOCOL)
    outcomes = [
        replace(an_outcome("a", "06_attention", mixed), flags=("both files edited",)),
        Outcome("b", "06_attention", (), problem="The archive is empty."),
    ]
    cases = [(case.kind, case.student, case.text) for case in odd_cases(collect(outcomes))]
    assert cases == [
        (Odd.REJECTED, "b", "The archive is empty."),
        (Odd.FORGED, "a", ""),
        (Odd.FLAG, "a", "both files edited"),
    ]


@given(st.lists(st.floats(0, 1)))
def test_a_histogram_loses_nobody(shares: list[float]) -> None:
    assert sum(histogram(shares)) == len(shares)
    assert histogram([0.0, 0.1, 0.3, 0.7, 1.0]) == [1, 1, 0, 1, 0, 0, 0, 1, 0, 1]
