"""Text from outside made harmless: for a terminal, a Markdown page, a spreadsheet cell, a file name."""

from __future__ import annotations

import hashlib
import re
import unicodedata

ANSI = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor moves
    r"|(?:\x1b[\]PX^_]|[\x9d\x90])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"  # strings: titles, links, device control
    r"|\x1b[ -/]*[0-~]"
)
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that draw nothing or change how the rest is drawn, bidirectional overrides among them."""

PATH = re.compile(r"(?<![\w.])/+(?:[^\s/'\"()<>:,]+/)+([^\s/'\"()<>:,]*)")
WINDOWS_PATH = re.compile(r"\b[A-Za-z]:[\\/](?:[^\s\\/'\"()<>:,]+[\\/])+([^\s\\/'\"()<>:,]*)")

PLAIN_ID = re.compile(r"(?=.{1,64}\Z)[a-z0-9]+(?:[._-][a-z0-9]+)*")
RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")

FORMULA = re.compile(r"'*[=+\-@\t\r\n\uFF1D\uFF0B\uFF0D\uFF20]")
"""What a spreadsheet would run. The apostrophes before it keep `defuse` reversible."""


def clean(text: str, limit: int = 400) -> str:
    """Give `text` as one line of visible characters, cut at `limit`."""
    return shorten(re.sub(r" +", " ", printable(text)).strip(), limit)


def printable(text: str) -> str:
    """Give `text` as one line of visible characters, its spaces as they are."""
    spaced = re.sub(r"[\t\n\r\v\f\x1c-\x1f\x85\u2028\u2029]", " ", ANSI.sub("", text))
    return "".join(char for char in spaced if unicodedata.category(char) not in UNSEEN)


def visible(text: str, limit: int = 80) -> str:
    """Give an id as one line in which unseen characters are written out, so that two ids do not look alike."""
    shown = "".join(
        char if unicodedata.category(char) not in UNSEEN else char.encode("unicode_escape").decode() for char in text
    )
    return shorten(shown, limit) if text.strip() else "(empty)"


def shorten(text: str, limit: int) -> str:
    """Cut `text` to `limit` characters, the last three of them dots."""
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def without_paths(text: str) -> str:
    """Replace each absolute path by its last part: where a file lies on the grader is nobody's business."""
    return PATH.sub(r".../\1", WINDOWS_PATH.sub(r".../\1", text))


def defuse(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would take for a formula."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def file_stem(student: str) -> str:
    """Give a file name, without suffix, that no other student shares on any file system.

    Plain lower-case ids stay as they are. Any other id becomes its letters and digits, two hyphens (which no
    plain id has) and a digest of the whole.
    """
    if PLAIN_ID.fullmatch(student) and not RESERVED.fullmatch(student):
        return student
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:20]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", student)[:40].strip("-")
    return f"{readable or 'student'}--{digest}"
