"""Hand-ins that are alike: what one copied and disguised is found; what the course explains is not."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

pytest.importorskip("copydetect", reason="the packages for comparing are not installed")

from grader.cli import main
from grader.course import load_course

COURSE = load_course(Path(__file__).parents[2])
CHAPTER = COURSE.chapter("06")
STUB = CHAPTER.stub.read_text(encoding="utf-8")

OWN = '''
def normalise_slowly(values, axis):
    """Shift by the largest and divide by the sum, one slice after the other."""
    moved = values.transpose(axis, -1).reshape(-1, values.shape[axis])
    rows = []
    for number, row in enumerate(moved):
        largest = row.max() if len(row) > 0 else 0.0
        shifted = [float(entry) - float(largest) for entry in row]
        powers = [2.718281828459045 ** entry for entry in shifted]
        rows.append([power / sum(powers) for power in powers])
    return rows, number
'''
DISGUISED = """
# my very own idea
def my_softmax(xs, d):
    m = xs.transpose(d, -1).reshape(-1, xs.shape[d])
    out = []
    for i, r in enumerate(m):

        big = r.max() if len(r) > 0 else 0.0
        s = [float(e) - float(big) for e in r]   # shift
        p = [2.718281828459045 ** e for e in s]
        out.append([q / sum(p) for q in p])
    return out, i
"""
OTHERS = [
    """
def a(x, dim):
    z = torch.exp(x - x.amax(dim, keepdim=True))
    return z / z.sum(dim, keepdim=True)
""",
    """
def b(x):
    total = 0.0
    for v in x.flatten().tolist():
        total += math.exp(v)
    return total
""",
    """
def c(x, dim=-1):
    e = np.exp(np.asarray(x) - np.max(x, axis=dim, keepdims=True))
    return e
""",
]


def hand_in(folder: Path, student: str, addition: str) -> None:
    file = folder / student / CHAPTER.name / "exercises.py"
    file.parent.mkdir(parents=True)
    file.write_text(STUB + addition, encoding="utf-8")


def listed(out: Path) -> list[dict[str, str]]:
    with (out / "similar.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_disguised_copy_is_listed_and_nobody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    hand_in(inbox, "ada", OWN)
    hand_in(inbox, "=ben", DISGUISED)
    for number, other in enumerate(OTHERS):
        hand_in(inbox, f"student{number}", other)
    assert main(["similar", str(inbox), "--chapter", "06", "--out", str(out)]) == 0
    rows = listed(out)
    assert [(row["first"], row["second"]) for row in rows] == [("'=ben", "ada")]
    assert float(rows[0]["share"]) > 0.8
    page = (out / "similar.html").read_text(encoding="utf-8")
    assert "<mark>    m = xs.transpose(d, -1).reshape(-1, xs.shape[d])</mark>" in page
    assert "no verdict" in page and "5 hand-ins compared, 1 pair to look at" in capsys.readouterr().out


def test_what_all_share_is_no_sign(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    reference = CHAPTER.source.read_text(encoding="utf-8")
    for student in ("ada", "ben"):  # nothing but the stub and the textbook's way
        hand_in(inbox, student, reference[reference.index("def softmax") :])
    for number in range(12):  # more of them than a passage may have
        hand_in(inbox, f"student{number}", OWN)
    assert main(["similar", str(inbox), "--chapter", "06", "--out", str(out)]) == 0
    assert listed(out) == []


def test_hand_ins_that_cannot_be_read_are_named_and_the_others_compared(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    hand_in(inbox, "ada", OWN)
    hand_in(inbox, "ben", OWN)
    hand_in(inbox, "large", "x = 1\n" * 60_000)
    hand_in(inbox, "<script>", "")
    (inbox / "<script>" / CHAPTER.name / "exercises.py").write_bytes(b"\xff\xfe\0")
    assert main(["similar", str(inbox), "--chapter", "06", "--out", str(out)]) == 0
    assert [(row["first"], row["second"]) for row in listed(out)] == [("ada", "ben")]
    page = (out / "similar.html").read_text(encoding="utf-8")
    assert "more than 200,000 characters" in page and "not UTF-8" in page
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_the_same_hand_ins_give_the_same_list(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    for student, text in (("ada", OWN), ("ben", DISGUISED), ("cleo", OTHERS[0])):
        hand_in(inbox, student, text)
    pages = []
    for out in (tmp_path / "first", tmp_path / "second"):
        assert main(["similar", str(inbox), "--out", str(out)]) == 0
        pages.append((out / "similar.html").read_bytes())
    assert pages[0] == pages[1]
