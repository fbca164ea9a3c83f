"""formgrader in a real browser: a graded course is listed, a submission shows our feedback, a typed score survives."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("nbgrader")

from grader.tests.formgrader import Formgrader, formgrader
from grader.tests.test_regrade import CHAPTER, Classroom, make_classroom

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for path in map(shutil.which, NAMES) if path), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
PATIENCE = 60_000
"""Milliseconds for what a loaded machine shows late."""

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed (apt-get install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="playwright is not installed"),
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Classroom:
    """A course of two late hand-ins, graded in the sandbox by nbgrader's own command."""
    classroom = make_classroom(tmp_path_factory.mktemp("formgrader"))
    classroom.autograde()
    return classroom


@pytest.fixture(scope="module")
def served(room: Classroom) -> Iterator[Formgrader]:
    with formgrader(room.nb) as running:
        yield running


@pytest.fixture
def page(served: Formgrader, tmp_path: Path) -> Iterator[Page]:
    """A browser that has logged in."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        try:
            opened = browser.new_page()
            opened.set_default_timeout(PATIENCE)
            opened.goto(served.start_page)
            yield opened
        finally:
            browser.close()


def test_the_assignments_are_listed(page: Page) -> None:
    row = page.locator("tr", has_text=CHAPTER)
    row.wait_for()
    assert "2030-01-01" in row.inner_text()
    assert row.locator(".num-submissions").inner_text() == "2"


def test_the_sandboxs_scores_are_shown(served: Formgrader, page: Page) -> None:
    page.goto(f"{served.address}/manage_submissions/{CHAPTER}")
    for student, score in (("ann", "2 / 5"), ("ben", "2 / 5")):
        row = page.locator("tr", has_text=student)
        row.wait_for()
        assert "graded" in row.locator(".status").inner_text()
        assert row.locator(".score").inner_text() == score


def test_a_submission_shows_our_feedback_and_a_typed_score_survives_a_regrade(
    served: Formgrader, page: Page, room: Classroom
) -> None:
    page.goto(f"{served.address}/gradebook/{CHAPTER}/exercises")
    page.locator("td.name a").first.click()
    notebook = page.locator("#notebook").first.inner_text()
    assert "double: right, 2 of 2 points" in notebook
    assert "does not hold yet: The mean of whole numbers need not be whole." in notebook
    # formgrader listens to a box from when it has shown the sandbox's score in it
    page.wait_for_function("[...document.querySelectorAll('input.score')].every((box) => box.placeholder)")
    score = page.locator("input.score").last
    place = page.url
    with page.expect_response(lambda answer: "/api/grade/" in answer.url and answer.request.method == "PUT") as saved:
        score.fill("1.25")
        score.blur()
    assert saved.value.ok
    room.autograde()
    page.goto(place)
    page.wait_for_function("[...document.querySelectorAll('input.score')].some((box) => box.value === '1.25')")
    page.goto(f"{served.address}/manage_submissions/{CHAPTER}")
    page.locator("tr", has_text="3.25 / 5").wait_for()
