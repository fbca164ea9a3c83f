"""A badge that says how far a student is, drawn here: no service is asked."""

from __future__ import annotations

from xml.sax.saxutils import escape

LABEL = "llm from stubs"
CHARACTER = 6.6
"""Pixels of a character of 11 px Verdana, on average; the text is fitted to the room that this gives it."""
COLOURS = ((1.0, "#2e7d32"), (0.5, "#00695c"), (0.0, "#455a64"))
"""From which share on; all three carry white text at a contrast of 4.5 or more."""


def badge(done: int, total: int) -> str:
    """Give the badge as SVG."""
    value = f"{done} of {total}"
    left, right = (round(CHARACTER * len(text)) + 12 for text in (LABEL, value))
    share = done / total if total else 0.0
    colour = next(colour for least, colour in COLOURS if share >= least)
    title = escape(f"{LABEL}: {value} exercises")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        f'<rect width="{left}" height="20" fill="#333"/><rect x="{left}" width="{right}" height="20" fill="{colour}"/>'
        '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
        f'<text x="{left / 2}" y="14" textLength="{left - 12}">{escape(LABEL)}</text>'
        f'<text x="{left + right / 2}" y="14" textLength="{right - 12}">{escape(value)}</text>'
        "</g></svg>\n"
    )
