"""The standard that every real chapter is held to."""

from __future__ import annotations

import ast
import doctest
import re
import tomllib
from pathlib import Path

import pytest

from grader.authoring.build import stale
from grader.authoring.verify import verify
from grader.course import Chapter, load_course
from grader.report.quiz_keys import read_keys
from grader.testing.loading import load_module
from grader.testing.misconceptions import load_misconceptions

ROOT = Path(__file__).parent.parent.parent
COURSE = load_course(ROOT)
FILES = ("README.md", "chapter.toml", "exercises.ipynb", "exercises.py", "quiz.toml", "test_exercises.py")
SECRET_FILES = (
    "alternatives.py",
    "built.json",
    "exercises.py",
    "misconceptions.py",
    "quiz_keys.toml",
    "test_hidden.py",
)
HEADINGS = ("## Key insights", "## Glossary", "## What you can now say", "## Sources")

each_chapter = pytest.mark.parametrize("chapter", COURSE.chapters, ids=lambda chapter: chapter.name)


@each_chapter
def test_verify_finds_it_sound(chapter: Chapter) -> None:
    [report] = verify([chapter])
    assert report.problems == []
    for exercise in report.exercises:
        assert exercise.killed == exercise.recognised == exercise.misconceptions
        assert exercise.accepted == exercise.alternatives >= 1


def test_generated_files_are_up_to_date() -> None:
    assert stale(COURSE) == []


@each_chapter
def test_it_has_its_files_and_no_others(chapter: Chapter) -> None:
    ours = {file.name for file in chapter.folder.iterdir() if file.name not in ("__pycache__", ".ipynb_checkpoints")}
    assert ours - {"explore.js"} == set(FILES)
    figure = {"figure.py"} if "explore.js" in ours else set()
    theirs = {file.name for file in chapter.solutions.iterdir() if file.name != "__pycache__"}
    assert theirs == set(SECRET_FILES) | figure


@each_chapter
def test_hints_are_a_ladder_of_fair_length(chapter: Chapter) -> None:
    for exercise in chapter.exercises:
        for hint in exercise.hints:
            assert 15 <= len(hint.split()) <= 60, (exercise.id, hint)


@each_chapter
def test_the_notes_have_their_parts(chapter: Chapter) -> None:
    text = (chapter.folder / "README.md").read_text(encoding="utf-8")
    assert 1500 <= len(text.split()) <= 4000
    assert text.count("<!-- figure -->") == 1
    places = [text.index(heading) for heading in HEADINGS]
    assert places == sorted(places)
    for exercise in chapter.exercises:
        assert f"`{exercise.name}`" in text, f"the notes never name {exercise.id}"
    assert not re.search(
        r"</?[a-zA-Z][a-zA-Z0-9]*( [^>]*)?/?>", re.sub(r"`[^`]*`|```.*?```", "", text, flags=re.DOTALL)
    )


@each_chapter
def test_the_quiz_is_fair(chapter: Chapter) -> None:
    data = tomllib.loads((chapter.folder / "quiz.toml").read_text(encoding="utf-8"))
    questions = data["questions"]
    assert data["format_version"] == 1
    assert 5 <= len(questions) <= 8
    places = set()
    for question in questions:
        assert question.get("exercise") in (None, *(e.name for e in chapter.exercises))
        if question["kind"] in ("one", "any"):
            rights = [index for index, option in enumerate(question["options"]) if option["right"]]
            assert len(rights) == 1 if question["kind"] == "one" else rights
            assert all(option["explanation"].strip() not in ("", option["text"]) for option in question["options"])
            places.add(rights[0])
        else:
            assert question["kind"] in ("number", "shape")
            assert question["answer"] is not None
            assert question["explanation"]
    assert len(places) > 1, "the right option is always in the same place"


@each_chapter
def test_the_quiz_is_keyed_to_misconceptions(chapter: Chapter) -> None:
    keys = read_keys(chapter)
    known = {wrong.name for wrong in load_misconceptions(chapter.misconceptions)}
    assert {name for key in keys for name in key.misconceptions} <= known
    assert len(keys) >= 3


@each_chapter
def test_examples_in_docstrings_are_true(chapter: Chapter) -> None:
    module = load_module(chapter.source, f"doctest_{chapter.name}")
    failed, tried = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried >= len(chapter.exercises) // 2
    assert failed == 0


@each_chapter
def test_every_public_name_is_documented(chapter: Chapter) -> None:
    tree = ast.parse(chapter.source.read_text(encoding="utf-8"))
    wanted = {name for exercise in chapter.exercises for name in exercise.functions}
    found = {node.name: node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert wanted <= set(found)
    for name in wanted:
        doc = ast.get_docstring(found[name]) or ""
        assert doc, name
        assert len(doc.splitlines()) <= 25, name


@each_chapter
def test_hidden_tests_say_a_claim_of_one_line(chapter: Chapter) -> None:
    for file in (chapter.hidden_tests, chapter.public_tests):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                title = (ast.get_docstring(node) or "").splitlines()
                assert title and len(title[0]) <= 80, f"{file}: {node.name}"


@each_chapter
def test_hidden_tests_never_use_the_reference_or_the_public_tests(chapter: Chapter) -> None:
    text = chapter.hidden_tests.read_text(encoding="utf-8")
    assert "reference_of" not in text
    assert "test_exercises" not in text


@each_chapter
def test_misconceptions_speak_in_sentences(chapter: Chapter) -> None:
    sentences = [wrong.sentence for wrong in load_misconceptions(chapter.misconceptions)]
    assert len(set(sentences)) == len(sentences)
    assert all(len(sentence.split()) >= 6 and sentence.endswith(".") for sentence in sentences)


def test_no_stub_or_notebook_holds_a_solution() -> None:
    for chapter in COURSE.chapters:
        for file in (chapter.stub, chapter.notebook):
            text = file.read_text(encoding="utf-8")
            assert "SOLUTION" not in text
            assert "NotImplementedError" in text
