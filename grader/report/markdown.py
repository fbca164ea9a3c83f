"""Pieces of Markdown in which nothing from outside is live."""

from __future__ import annotations

import re
from collections.abc import Iterable

from grader.report.safe import clean, printable

CODE_SPAN = re.compile(r"(`[^`]+`)")
SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
"""What means something within a line; no sentence of ours begins one."""

LONG = 300


def prose(text: str) -> str:
    """Give an author's sentence as Markdown: its `code` stays code, everything else is literal."""
    parts = CODE_SPAN.split(clean(text, LONG * 4))
    return "".join(part if CODE_SPAN.fullmatch(part) else SPECIAL.sub(r"\\\1", part) for part in parts)


def code(text: str) -> str:
    """Give any text as an inline code span that it cannot leave."""
    line = clean(text, LONG) or " "
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def fence(text: str) -> str:
    """Give any text as a fenced code block that it cannot leave."""
    line = clean(text)
    ticks = "`" * max(3, _longest_run(line) + 1)
    return f"{ticks}text\n{line}\n{ticks}"


def fence_lines(lines: Iterable[str]) -> str:
    """Give lines of any text, their spacing kept, as a fenced code block that they cannot leave."""
    shown = [printable(line)[:LONG] for line in lines]
    ticks = "`" * max(3, max(map(_longest_run, shown), default=0) + 1)
    return "\n".join([f"{ticks}text", *shown, ticks])


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`+", text)), default=0)
