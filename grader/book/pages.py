"""The book's pages as Markdown: notes with figure, exercises and quiz; the index, the insights and the glossary."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grader.book.coverage import read_coverage
from grader.book.figures import FIGURE, bundled
from grader.book.notes import Term, as_html, insights, read_notes, terms
from grader.course import Chapter, Course, Exercise
from grader.student.quiz import read_quiz

MARK = "<!-- figure -->"


def all_pages(course: Course) -> Iterator[tuple[str, str]]:
    """Give each page's name and its Markdown."""
    topics = read_coverage(course)
    yield "index", _rendered("index.md.j2", course=course, parts=_parts(course), has_coverage=bool(topics))
    for chapter in course.chapters:
        yield chapter.name, chapter_page(chapter)
    yield "insights", _rendered("insights.md.j2", found=[(c, insights(c)) for c in course.chapters])
    yield "glossary", _rendered("glossary.md.j2", terms=all_terms(course))
    if topics:
        rows = [(row, list(group)) for row, group in groupby(topics, key=lambda topic: topic.row)]
        yield "coverage", _rendered("coverage.md.j2", rows=rows)


def all_terms(course: Course) -> list[Term]:
    """Give every chapter's terms, by name."""
    return sorted((term for c in course.chapters for term in terms(c)), key=lambda t: (t.name.lower(), t.chapter.name))


def chapter_page(chapter: Chapter) -> str:
    """Give the notes with the figure at its mark, and after them the exercises and the quiz."""
    figure = _figure(chapter) if (chapter.folder / FIGURE).is_file() else ""
    about = _rendered("about.md.j2", chapter=chapter)
    _, _, text = read_notes(chapter).partition("\n")
    exercises = [(exercise, _stub(chapter, exercise)) for exercise in chapter.exercises]
    end = _rendered("chapter_end.md.j2", chapter=chapter, exercises=exercises, questions=read_quiz(chapter))
    return "\n\n".join([about, text.replace(MARK, figure), end])


def _figure(chapter: Chapter) -> str:
    # as a JSON string the module cannot end the element that carries it
    source = json.dumps(bundled(chapter)).replace("<", "\\u003c")
    return _rendered("figure.html.j2", chapter=chapter, source=Markup(source))


def _stub(chapter: Chapter, exercise: Exercise) -> str:
    """Give what the student finds: signatures and docstrings."""
    text = chapter.stub.read_text(encoding="utf-8")
    nodes = {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    found = (ast.get_source_segment(text, nodes[name]) for name in exercise.functions if name in nodes)
    return "\n\n\n".join(segment for segment in found if segment)


def _parts(course: Course) -> dict[str, list[Chapter]]:
    parts: dict[str, list[Chapter]] = {}
    for chapter in course.chapters:
        parts.setdefault(chapter.part, []).append(chapter)
    return parts


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values).strip() + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda text: Markup(as_html(text))
    environment.filters["points"] = lambda value: f"{value:g} point" + ("" if value == 1 else "s")
    return environment
