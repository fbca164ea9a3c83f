"""Build the book: pages as Markdown, given to Sphinx, become a folder that works from a disk or a web server."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from grader.book.katex import put_style
from grader.book.notes import as_html, terms
from grader.book.pages import all_pages
from grader.course import Course, CourseError

HERE = Path(__file__).parent
MENDS = {
    '<p class="caption" role="heading">': '<p class="caption" role="heading" aria-level="2">',
    "<pre>": '<pre tabindex="0">',
    '<div class="table-wrapper': '<div tabindex="0" class="table-wrapper',
}
"""What the theme's HTML lacks."""


def build_book(course: Course, out: Path) -> Path:
    """Build the whole book into `out` and give its first page; what stood there before goes.

    Raises:
        CourseError: if a page has a broken link, formula or directive, or KaTeX's style cannot be fetched.
    """
    work = out.parent / f".{out.name}"
    shutil.rmtree(work, ignore_errors=True)
    source, static = work / "source", work / "static"
    source.mkdir(parents=True)
    for name, text in all_pages(course):
        (source / f"{name}.md").write_text(text, encoding="utf-8")
    put_style(static, out.parent / "katex")
    settings: dict[str, object] = {
        "html_static_path": [str(HERE / "static"), str(static)],
        "book_terms": _meanings(course),
    }
    _run_sphinx(source, work, settings)
    for page in (work / "html").glob("*.html"):
        page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(work / "html", out)
    shutil.rmtree(work)
    (out / ".nojekyll").touch()  # GitHub Pages would leave out folders that begin with an underscore
    return out / "index.html"


def mended(page: str) -> str:
    """Give a page whose sidebar has levels of headings, and whose wide parts can be scrolled from the keyboard."""
    for before, after in MENDS.items():
        page = page.replace(before, after)
    return page


def _meanings(course: Course) -> dict[str, list[tuple[str, str]]]:
    return {c.name: [(term.name, as_html(term.meaning)) for term in terms(c)] for c in course.chapters}


def _run_sphinx(source: Path, work: Path, settings: dict[str, object]) -> None:
    warnings = io.StringIO()
    try:
        app = Sphinx(
            *(source, HERE, work / "html", work / "doctrees", "html"),
            confoverrides=settings,
            status=None,
            warning=warnings,
            freshenv=True,
        )
        app.build(force_all=True)
    except (SphinxError, OSError) as error:
        raise CourseError(f"The book could not be built: {error}") from None
    if faults := warnings.getvalue().strip().splitlines():
        raise CourseError(f"The book has {len(faults)} faults, the first: {faults[0].replace(f'{source}/', '')}")
