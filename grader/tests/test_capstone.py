"""The capstone at the desk: the student's own functions are the ones that are joined, trained and talked with."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

from grader.cli import main
from grader.course import Chapter, load_course
from grader.student.capstone import capstone_of

ROOT = Path(__file__).parents[2]
COURSE = load_course(ROOT)
CAPSTONE = capstone_of(COURSE)
DONE = ("08_gradients", "13_fast_inference")
"""Chapters that the student has done, beside the capstone: each gives parts."""


def shown(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def put(root: Path, chapter: Chapter, text: str) -> None:
    (root / "chapters" / chapter.name / "exercises.py").write_text(text, encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A student's course: the capstone and two chapters done, the others to do, no solutions."""
    shutil.copytree(ROOT / "chapters", tmp_path / "chapters", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (CAPSTONE.name, *DONE):
        put(tmp_path, COURSE.chapter(name), COURSE.chapter(name).source.read_text(encoding="utf-8"))
    return tmp_path


def test_own_parts_are_joined_and_stand_ins_named(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--course", str(desk), "capstone", "--quick", "--json"]) == 0
    data = shown(capsys)
    assert set(data["own"]) == {"cross_entropy", "quantize_int8"}
    assert data["stand_ins"]["dpo_loss"].startswith("16_alignment/") and "cross_entropy" not in data["stand_ins"]
    assert data["report"]["parts"]["cross_entropy"].startswith("08_gradients/exercises.py:")
    assert [row["task"] for row in data["rows"]][0] == "bits a byte of unseen text"
    assert 0.5 < data["report"]["held_out_bpb"] < 2


def test_a_part_that_is_wrong_is_not_joined(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chapter = COURSE.chapter("08")
    text = chapter.source.read_text(encoding="utf-8") + "\n\ndef cross_entropy(*arguments, **more):\n    return 0.0\n"
    put(desk, chapter, text)
    assert main(["--course", str(desk), "capstone", "--quick", "--json"]) == 0
    assert shown(capsys)["stand_ins"]["cross_entropy"] == "08_gradients/cross_entropy"


def test_without_the_pipeline_one_sentence_says_what_to_do(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(desk, CAPSTONE, CAPSTONE.stub.read_text(encoding="utf-8"))
    assert main(["--course", str(desk), "capstone", "--quick"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("grader: `pipeline` of") and f"grader watch {CAPSTONE.number}" in said
    assert main(["--course", str(desk), "capstone", "--reference"]) == 2
    assert "there are no solutions here" in capsys.readouterr().err


def test_all_parts_of_the_reference_fit_and_a_person_can_talk_with_it(tmp_path: Path) -> None:
    """The parts were written chapter by chapter; here they meet."""
    words = tmp_path / "corpus.txt"
    ends = ("bird .", "tall tree .", "bird in the tree .", "tree .")
    words.write_text("".join(f"the {a} saw the {end}\n" for a in ("cat", "dog", "owl") * 10 for end in ends))
    command = ["-m", "grader", "--course", str(ROOT), "capstone", "--reference", "--quick", "--corpus", str(words)]
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    child = pexpect.spawn(sys.executable, command, env=environment, timeout=600, encoding="utf-8", cwd=tmp_path)
    child.expect("25 of 25 parts your own")
    child.expect("cache against none +the same")
    child.expect("you> ")
    child.sendline("the")
    child.expect("model> ")
    child.expect("you> ")
    child.sendline("")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [("one line\n", "at least 50"), ("all alike\n" * 99, "preferences need lines"), (None, "cannot be read")],
)
def test_a_corpus_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    file = tmp_path / "corpus.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    assert main(["--course", str(ROOT), "capstone", "--reference", "--corpus", str(file)]) == 2
    assert words in capsys.readouterr().err
