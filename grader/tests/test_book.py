"""The book in a real browser: every page, every figure, every quiz, what is kept, what is found, and who can use it."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx", reason="the book's packages are not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from grader.book.figures import FIGURE
from grader.book.site import build_book
from grader.course import load_course
from grader.student.quiz import read_quiz
from grader.testing.figures import load_figure

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

ROOT = Path(__file__).parents[2]
COURSE = load_course(ROOT)
NAMES = [chapter.name for chapter in COURSE.chapters]
PAGES = ["index", *NAMES, "insights", "glossary", "coverage"]
DRAWN = [chapter for chapter in COURSE.chapters if (chapter.folder / FIGURE).is_file()]
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]},
    "resultTypes": ["violations"],  # describing every element that is as it should be took axe minutes
}
MOST_BYTES = 100_000

each_figure = pytest.mark.parametrize("chapter", DRAWN, ids=lambda chapter: chapter.name)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "book"
    cache = ROOT / "build" / "katex"
    if cache.is_dir():  # fetched before on this machine
        shutil.copytree(cache, out.parent / "katex")
    return build_book(COURSE, out).parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


class Opened:
    """A page, what went wrong on it, and what it loaded."""

    def __init__(self, browser: Browser, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.faults: list[str] = []
        self.loaded: set[str] = set()
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.loaded.add(request.url))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def go(self, file: Path) -> Page:
        self.page.goto(file.as_uri())
        if self.page.locator(".explore").count():
            self.page.locator('.explore[data-state="drawn"]').wait_for()
        return self.page

    def outside(self) -> list[str]:
        return [url for url in self.loaded if not url.startswith(("file:", "blob:", "data:"))]


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    one = Opened(browser, viewport={"width": 1280, "height": 900})
    yield one
    one.context.close()


@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_a_page_loads_whole_and_asks_nobody(book: Path, opened: Opened, name: str) -> None:
    page = opened.go(book / f"{name}.html")
    assert opened.faults == [] and opened.outside() == []
    page.set_viewport_size({"width": 320, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320, "the page is wider than a phone"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_light(book: Path, opened: Opened, name: str) -> None:
    opened.go(book / f"{name}.html")
    files = {url.removeprefix("file://").partition("?")[0] for url in opened.loaded if url.startswith("file:")}
    heavy = {file: len(gzip.compress(Path(file).read_bytes(), 6)) for file in files if not file.endswith("woff2")}
    assert sum(heavy.values()) < MOST_BYTES, heavy


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", [*PAGES, "search"])
def test_everyone_can_use_it(book: Path, browser: Browser, name: str, scheme: Any) -> None:
    one = Opened(browser, color_scheme=scheme, reduced_motion="reduce")
    page = one.go(book / f"{name}.html")
    # a formula is thousands of elements, and its text has the colour of the text around it
    found = Axe().run(page, context={"exclude": [[".katex"]]}, options=RULES).response["violations"]
    assert found == [], [(v["id"], v["help"], [n["html"][:200] for n in v["nodes"][:3]]) for v in found]
    one.context.close()


# -- figures -------------------------------------------------------------------------------------------------------


def set_control(page: Page, name: str, value: Any) -> None:
    """Set a figure's control as a person would: type, tick, choose, drag."""
    control = page.locator(f'.figure [name="{name}"]')
    kind = control.evaluate("e => e.tagName === 'INPUT' ? e.type : e.tagName.toLowerCase()")
    if kind == "range":
        control.evaluate(
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', { bubbles: true })); }", str(value)
        )
    elif kind == "checkbox":
        control.set_checked(bool(value))
    elif kind == "select":
        control.select_option(str(value))
    elif kind == "text":
        control.fill(str(value))
    else:
        for _ in range(int(value)):
            control.click()


@each_figure
def test_a_figure_says_what_the_reference_computes(book: Path, opened: Opened, chapter: Any) -> None:
    _, sentences = load_figure(chapter.solutions / "figure.py")
    assert sentences, "figure.py says nothing of what the figure shows"
    for each in sentences:
        page = opened.go(book / f"{chapter.name}.html")
        for name, value in each.settings.items():
            set_control(page, name, value)
        assert each.text() in page.locator(".figure-words").inner_text(), each.settings
    assert opened.faults == []


def controls_of(opened: Opened, book: Path, chapter: Any, panel: str | None) -> list[str]:
    """Open a chapter at a panel of its figure, or as it begins; give the names of the controls there."""
    page = opened.go(book / f"{chapter.name}.html")
    if panel:
        set_control(page, "panel", panel)
    names: list[str] = page.locator(".figure [name]").evaluate_all("all => all.map(e => e.name)")
    return names


def move(page: Page, name: str) -> None:
    """Change a figure's control by keyboard."""
    control = page.locator(f'.figure [name="{name}"]')
    kind = control.evaluate("e => e.tagName === 'INPUT' ? e.type : e.tagName.toLowerCase()")
    if kind == "range":
        control.focus()
        page.keyboard.press("End" if control.evaluate("e => e.value !== e.max") else "Home")
    elif kind == "checkbox":
        control.press("Space")
    elif kind == "select":
        other = control.evaluate("e => [...e.options].map(o => o.value).find(v => v !== e.value)")
        control.select_option(other)
    elif kind == "text":
        control.fill(control.input_value() + " one more")
    else:
        control.press("Enter")


@each_figure
def test_every_control_of_a_figure_does_something(book: Path, opened: Opened, chapter: Any) -> None:
    page = opened.go(book / f"{chapter.name}.html")
    drawing = "document.querySelector('.figure-stage').innerHTML + document.querySelector('.figure-words').innerText"
    panels = page.locator('.figure [name="panel"] option').evaluate_all("all => all.map(e => e.value)")
    for panel in panels or [None]:  # each has controls of its own
        names = controls_of(opened, book, chapter, panel)
        assert names and len(names) == len(set(names))
        for name in names:
            controls_of(opened, book, chapter, panel)
            before = page.evaluate(drawing)
            move(page, name)
            assert page.evaluate(drawing) != before, f"{name} changes nothing{f' in {panel}' if panel else ''}"
    assert page.locator(".figure-words").inner_text().strip() and opened.faults == []


@each_figure
def test_a_figure_fits_a_phone(book: Path, browser: Browser, chapter: Any) -> None:
    one = Opened(browser, viewport={"width": 320, "height": 700}, has_touch=True)
    page = one.go(book / f"{chapter.name}.html")
    outside = """() => [...document.querySelectorAll('.figure-stage svg text')].filter(t => {
        const [a, b] = [t.getBoundingClientRect(), t.closest('svg').getBoundingClientRect()];
        return a.left < b.left - 12 || a.right > b.right + 12; }).map(t => t.textContent)"""
    panels = page.locator('.figure [name="panel"] option').evaluate_all("all => all.map(e => e.value)")
    for panel in panels or [None]:
        controls_of(one, book, chapter, panel)
        for part in page.locator(".figure-stage > *").all():
            box = part.bounding_box()
            assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 320
        assert page.evaluate(outside) == [], "words outside of the drawing"
    one.context.close()


# -- the quiz, progress, search ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_question_answers(book: Path, opened: Opened, name: str) -> None:
    page = opened.go(book / f"{name}.html")
    questions = read_quiz(COURSE.chapter(name))
    forms = page.locator(".quiz-question")
    assert forms.count() == len(questions)
    for form, question in zip(forms.all(), questions, strict=True):
        if question.options:
            for at, option in enumerate(question.options):
                if option.right or question.kind == "one":  # of a single choice try every option, the right one last
                    form.locator("input").nth(at).check()
                if question.kind == "one":
                    plain = form.locator(".quiz-explanation").nth(at).text_content()
                    assert plain and plain in form.locator(".quiz-result").inner_text()
            if question.kind == "one":
                form.locator("input").nth([option.right for option in question.options].index(True)).check()
        else:
            form.locator("input").fill("7 7 7 7 7" if question.kind == "shape" else "123456789")
            form.locator("button").click()
            assert form.get_attribute("data-state") == "wrong"
            form.locator("input").fill(question.right)
        if question.kind != "one":
            form.locator("button").click()
        assert form.get_attribute("data-state") == "right", question.text
    assert page.locator(".read-box").is_checked(), "who answered the quiz has read the chapter"


def test_what_is_read_is_kept_and_can_be_carried_away(book: Path, browser: Browser, tmp_path: Path) -> None:
    one = Opened(browser, accept_downloads=True)
    page = one.go(book / f"{NAMES[0]}.html")
    page.locator(".read-box").check()
    page = one.go(book / "index.html")
    assert page.locator(".read-total").inner_text() == f"1 of {len(NAMES)} read"
    assert page.locator(".chapter-list a").first.inner_text().endswith(" read")
    assert page.locator(".sidebar-tree .read-note").count() == 1
    with page.expect_download() as saved:
        page.locator(".progress-export").click()
    kept = tmp_path / "progress.json"
    saved.value.save_as(kept)
    assert json.loads(kept.read_text())["read"] == {NAMES[0]: True}
    other = Opened(browser)
    page = other.go(book / "index.html")
    page.locator(".progress-import").set_input_files(kept)
    page.get_by_text("Taken over.").wait_for()
    assert page.locator(".read-total").inner_text() == f"1 of {len(NAMES)} read"
    page.locator(".progress-import").set_input_files(
        {"name": "x.json", "mimeType": "application/json", "buffer": b"no"}
    )
    page.get_by_text("This file holds no reading progress.").wait_for()
    assert one.faults == other.faults == []
    one.context.close()
    other.context.close()


def test_search_finds(book: Path, opened: Opened) -> None:
    page = opened.go(book / "index.html")
    page.locator(".sidebar-search").fill("attention")
    page.keyboard.press("Enter")
    page.locator("#search-results li").first.wait_for()
    assert page.locator("#search-results li a").count() > 1
    assert opened.faults == [] and opened.outside() == []


def test_a_term_opens_its_sentence(book: Path, opened: Opened) -> None:
    page = opened.go(book / f"{NAMES[0]}.html")
    term = page.locator(".term").first
    meaning = page.locator(f"#{term.get_attribute('popovertarget')}")
    assert not meaning.is_visible()
    term.press("Enter")
    assert meaning.is_visible() and len(meaning.inner_text()) > 20
    page.keyboard.press("Escape")
    assert not meaning.is_visible()


def test_the_glossary_has_every_term(book: Path, opened: Opened) -> None:
    from grader.book.pages import all_terms

    text = opened.go(book / "glossary.html").locator("article").inner_text()
    assert [term.name for term in all_terms(COURSE) if f"{term.name}:" not in text] == []
