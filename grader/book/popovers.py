"""A Sphinx extension: where a chapter first uses one of its terms, the term opens its sentence."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from typing import Any

from docutils import nodes

SKIPPED = (nodes.title, nodes.literal, nodes.math, nodes.reference, nodes.raw, nodes.literal_block, nodes.math_block)


def setup(app: Any) -> dict[str, bool]:
    """Be an extension; `book_terms` maps a page to pairs of a term and its sentence as HTML."""
    app.add_config_value("book_terms", {}, "env", types=[dict])
    app.connect("doctree-resolved", add_popovers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_popovers(app: Any, doctree: nodes.document, docname: str) -> None:
    """Turn the first use of each of the page's terms into a button that opens its sentence."""
    for name, meaning in app.config.book_terms.get(docname, ()):
        # the notes set a term in bold where they introduce it; before that it may be an everyday word
        uses = sorted(_uses(doctree, name), key=lambda use: not isinstance(use[0].parent, nodes.strong))
        if uses:
            text, start, end = uses[0]
            words = text.astext()
            button = nodes.raw("", _button(words[start:end], meaning, name), format="html")
            text.parent.replace(text, [nodes.Text(words[:start]), button, nodes.Text(words[end:])])


def _uses(doctree: nodes.document, name: str) -> Iterator[tuple[nodes.Text, int, int]]:
    pattern = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)
    for text in doctree.findall(nodes.Text):
        found = pattern.search(text.astext())
        if found and not _is_skipped(text):
            yield text, *found.span()


def _is_skipped(text: nodes.Text) -> bool:
    above: Any = text.parent
    while above is not None:
        if isinstance(above, SKIPPED):
            return True
        if isinstance(above, nodes.section) and above[0].astext() in ("Glossary", "Sources"):
            return True
        above = above.parent
    return False


def _button(shown: str, meaning: str, name: str) -> str:
    own = "term-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return (
        f'<button type="button" class="term" popovertarget="{own}">{html.escape(shown)}</button>'
        f'<span popover id="{own}" class="term-meaning"><strong>{html.escape(name)}</strong>: {meaning}</span>'
    )
