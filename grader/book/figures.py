"""A chapter's figure: its module as one text, what it can be given, and its door in a notebook."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from grader.course import Chapter, CourseError, find_root, load_course

STATIC = Path(__file__).parent / "static"
FIGURE = "explore.js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\.\./\.\./grader/book/static/kit\.js";\n', re.MULTILINE)
_DEFAULTS = re.compile(r"^export const defaults = (\{.*?\});\n", re.MULTILINE | re.DOTALL)


def bundled(chapter: Chapter) -> str:
    """Give the figure's module with the kit's text in the place of its import: one text that imports nothing.

    Raises CourseError if the chapter has no figure.
    """
    source = _source(chapter)
    kit = re.sub(r"^export ", "", (STATIC / "kit.js").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return _IMPORT.sub(lambda _: kit, source, count=1)


def defaults(chapter: Chapter) -> dict[str, Any]:
    """Give what the figure draws when it is given nothing, by name. Raises CourseError."""
    found = _DEFAULTS.search(_source(chapter))
    try:
        values: dict[str, Any] = json.loads(found.group(1)) if found else {}
    except ValueError:
        raise CourseError(f"{_file(chapter)}: `defaults` must be plain JSON, which the notebook can read.") from None
    return values


def _file(chapter: Chapter) -> Path:
    return chapter.folder / FIGURE


def _source(chapter: Chapter) -> str:
    if not _file(chapter).is_file():
        raise CourseError(f"Chapter {chapter.name} has no figure: {_file(chapter)} is not there.")
    return _file(chapter).read_text(encoding="utf-8")


def explore(chapter: str, **values: Any) -> Any:
    """Show a chapter's figure in a notebook, drawn from your own tensors if you pass some.

    Args:
        chapter: its number or name, such as "06".
        values: what the figure is to draw, by name: tensors, arrays or lists, such as `q=q[0, 0], k=k[0, 0]`.

    Raises:
        CourseError: if there is no such chapter or figure, the figure knows no such name, or anywidget is missing.
    """
    found = load_course(find_root(Path.cwd())).chapter(chapter)
    known = defaults(found)
    for name in values:
        if name not in known:
            raise CourseError(f"The figure of {found.name} does not know {name!r}; it draws {', '.join(known)}.")
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise CourseError("Figures in a notebook need anywidget: `pip install anywidget`.") from None
    traits = {name: traitlets.Any(_plain(values.get(name, known[name]))).tag(sync=True) for name in known}
    css = (STATIC / "figure.css").read_text(encoding="utf-8")
    kind = type("Figure", (anywidget.AnyWidget,), {"_esm": bundled(found), "_css": css, **traits})
    return kind()


def _plain(value: Any) -> Any:
    """Give a tensor's or array's numbers as lists, which cross to the browser."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return value.tolist() if hasattr(value, "tolist") else value
