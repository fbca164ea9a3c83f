"""What the documents say is so, and the project speaks of itself alone."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from grader.authoring.readme import refresh
from grader.cli import _parser
from grader.course import load_course
from grader.tests.hostile import files, modules

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = ("README.md", "ARCHITECTURE.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md", ".github/CLUSTER.md")


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def test_the_chapter_table_is_up_to_date() -> None:
    assert refresh(load_course(ROOT), write=False) == []


def test_a_stale_table_is_said_and_mended(tmp_path: Path) -> None:
    from grader.tests.small_course import copy_course

    course = copy_course(tmp_path)
    readme = course.root / "README.md"
    readme.write_text("# A course\n<!-- chapters -->\nold\n<!-- /chapters -->\nthe rest\n", encoding="utf-8")
    assert "run `grader build`" in refresh(course, write=False)[0]
    refresh(course)
    assert "| [01_numbers](chapters/01_numbers/README.md) | Numbers | 2 | 5 |" in readme.read_text(encoding="utf-8")
    assert "old" not in readme.read_text(encoding="utf-8")
    assert refresh(course, write=False) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_named_exists(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    known = _parser().format_help()
    for command in re.findall(r"\bgrader ([a-z]+)\b(?=[^\n]*[`\n])", " ".join(re.findall(r"`(grader [^`]*)`", text))):
        assert command in known, command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_files_lead_somewhere(document: str) -> None:
    file = ROOT / document
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", file.read_text(encoding="utf-8")):
        assert (file.parent / target).exists(), target


def test_the_numbers_of_the_corpus_are_true() -> None:
    text = (ROOT / ".github" / "SECURITY.md").read_text(encoding="utf-8")
    classes = Counter(attack.name.partition("_")[0] for attack in modules())
    assert f"{len(modules())} hostile modules" in text
    assert f"{len(files())} broken or hostile files" in text
    for name, count in classes.items():
        assert f"{count} {name}" in text


def test_the_project_speaks_of_itself_alone() -> None:
    foreign = re.compile(r"CURRICULUM\.md|GRADING\.md|DESIGN\.md|STYLE\.md|shared/|/work/|farm-")
    for file in tracked_files():
        if file == Path(__file__) or not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        assert not foreign.search(text), f"{file}: {foreign.search(text)}"


def test_nothing_generated_or_large_is_tracked() -> None:
    for file in tracked_files():
        assert not {".venv", "build", "__pycache__"} & set(file.relative_to(ROOT).parts[:1]), file
        assert file.stat().st_size < 200_000, file
