"""Where the desk writes: plain lines where a program reads, colours where a person does, at any width."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from grader.verdict import State

MAX_WIDTH = 100
SIGNS = {State.RIGHT: "●", State.WRONG: "✗", State.WAITS: "◌", State.TODO: "○"}
PLAIN_SIGNS = {State.RIGHT: "+", State.WRONG: "x", State.WAITS: "~", State.TODO: "o"}
STYLES = {State.RIGHT: "green", State.WRONG: "red", State.WAITS: "yellow", State.TODO: ""}


class Paper:
    """Writes lines to a stream, wrapped to its width, each word in a style or none."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        colour = self._stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._console = Console(
            file=self._stream,
            force_terminal=colour,
            color_system="standard" if colour else None,
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
        )
        self.width = min(MAX_WIDTH, self._console.width)
        self._console.width = self.width
        self._signs = SIGNS if _can_write(self._stream, "".join(SIGNS.values()) + "─·") else PLAIN_SIGNS

    def line(self, text: str = "", style: str = "", indent: int = 0, hang: int = 0) -> None:
        """Write a sentence, wrapped; its further lines keep the indentation, and `hang` blanks more."""
        self._write(Text(text, style=style), indent, hang)

    def parts(self, *parts: tuple[str, str], indent: int = 0) -> None:
        """Write a line of words in several styles."""
        self._write(Text.assemble(*parts), indent)

    def _write(self, text: Text, indent: int, hang: int = 0) -> None:
        for at, line in enumerate(text.wrap(self._console, max(20, self.width - indent - hang)) or [text]):
            line.rstrip()
            blanks = indent + (hang if at else 0)
            self._console.print(Text(" " * blanks if line.plain else "") + line, soft_wrap=True)

    def drawing(self, lines: Sequence[str], indent: int = 0) -> None:
        """Write lines in which columns matter; prose among them, which is too long, is wrapped."""
        for line in lines:
            inner = len(line) - len(line.lstrip())
            self.line(line.lstrip(), indent=indent + inner)

    def rule(self, title: str) -> None:
        """Write a line that parts what came before from what comes."""
        dash = "-" if self._signs is PLAIN_SIGNS else "─"
        text = f"{dash * 2} {title} "
        self.line(text + dash * max(2, self.width - len(text) - 1), style="dim")

    def dot(self) -> str:
        """Give the sign that stands between two short notes."""
        return "|" if self._signs is PLAIN_SIGNS else "·"

    def sign(self, state: State) -> tuple[str, str]:
        """Give the sign of a state and its style; the sign says it without colour, too."""
        return self._signs[state], STYLES[state]


def _can_write(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True
