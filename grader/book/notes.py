"""What the notes of a chapter hold beside their text: terms with a sentence each, and key insights."""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt

from grader.course import Chapter, CourseError

_INLINE = MarkdownIt("commonmark", {"html": False})
_ITEM = re.compile(r"^ - (.+(?:\n   .+)*)", re.MULTILINE)
_TERM = re.compile(r"\*\*(.+?)\*\*:\s+(.+)", re.DOTALL)


@dataclass(frozen=True)
class Term:
    """A term, what it means in one sentence, and the chapter that introduces it."""

    name: str
    meaning: str
    chapter: Chapter

    @property
    def anchor(self) -> str:
        """Give the term's place on the glossary's page."""
        return f"{self.chapter.number}-{re.sub(r'[^a-z0-9]+', '-', self.name.lower()).strip('-')}"


def as_html(text: str) -> str:
    """Give a line of Markdown as HTML that holds no markup of its own."""
    return str(_INLINE.renderInline(text))


def read_notes(chapter: Chapter) -> str:
    """Give the notes as they stand. Raises CourseError."""
    file = chapter.folder / "README.md"
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise CourseError(f"{file} cannot be read: {error.strerror}.") from None


def terms(chapter: Chapter) -> list[Term]:
    """Give the chapter's glossary, in its order."""
    found = (_TERM.fullmatch(item) for item in _items(chapter, "Glossary"))
    return [Term(match.group(1), " ".join(match.group(2).split()), chapter) for match in found if match]


def insights(chapter: Chapter) -> list[str]:
    """Give the chapter's key insights, in their order, as Markdown."""
    return [" ".join(item.split()) for item in _items(chapter, "Key insights")]


def _items(chapter: Chapter, heading: str) -> list[str]:
    _, _, rest = read_notes(chapter).partition(f"\n## {heading}\n")
    return _ITEM.findall(rest.partition("\n## ")[0])
