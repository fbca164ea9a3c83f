"""Sphinx's configuration of the book; the source folder is made by site.py."""

import sys
from pathlib import Path

import sphinxcontrib.katex as katex  # type: ignore[import-untyped]

sys.path.insert(0, str(Path(__file__).parents[2]))

from grader.book.katex import STYLE, prepare  # noqa: E402

prepare(katex)

project = "LLM from Stubs"
author = copyright = "the authors of LLM from Stubs"
language = "en"
extensions = ["myst_parser", "sphinxcontrib.katex", "grader.book.popovers"]
root_doc = "index"
myst_enable_extensions = ["dollarmath", "alert"]
myst_heading_anchors = 4
katex_prerender = True
katex_css_path = STYLE
katex_version = katex.katex_version
html_theme = "furo"
html_title = project
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["figure.css", "book.css"]
html_js_files = [(name, {"defer": "defer"}) for name in ("host.js", "quiz.js", "progress.js")]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # a page on disk may not read another one
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
