"""nbgrader's own formgrader in a real Jupyter server, and the requests that its page makes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOKEN = "only-for-this-test"


def environment(home: Path) -> dict[str, str]:
    """Give an environment with nothing of this user's Jupyter, and the commands of this virtual environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


class Formgrader:
    """A running formgrader."""

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/formgrader"
        self.start_page = f"{self.address}?token={TOKEN}"

    def ask(self, path: str, change: dict[str, Any] | None = None) -> Any:
        """Give what the page would get, or send what it sends when a person changes something."""
        request = urllib.request.Request(
            f"{self.address}/api/{path}",
            headers={"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            data=None if change is None else json.dumps(change).encode(),
            method="GET" if change is None else "PUT",
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@contextmanager
def formgrader(course: Path) -> Iterator[Formgrader]:
    """Start Jupyter in a graded nbgrader course, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = ["--no-browser", "--allow-root", f"--port={port}", f"--IdentityProvider.token={TOKEN}"]
    command = [sys.executable, "-m", "jupyter_server", *settings, "--ServerApp.ip=127.0.0.1"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, cwd=course, env=environment(course), stdout=log, stderr=log)
        try:
            running = Formgrader(port)
            _wait(running, server)
            yield running
        finally:
            server.terminate()
            server.wait(30)


def _wait(running: Formgrader, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the Jupyter server ended"
        try:
            running.ask("status")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError("the Jupyter server does not answer")
