"""A PostgreSQL server of a test's own, reached through a socket in a temporary folder, and all rows of any database."""

from __future__ import annotations

import glob
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, select

QUICK = "-c fsync=off -c full_page_writes=off -c listen_addresses='' -c max_connections=40"
UNPRIVILEGED = ("postgres", "nobody")


class Server:
    """A running server, and databases in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def url(self, database: str) -> str:
        """Give a database's URL, as an instructor writes it."""
        return f"postgresql+psycopg://teacher@/{database}?host={self._folder}"

    def create(self, database: str, template: str = "template0") -> str:
        """Make a database that is a copy of another, and give its URL."""
        import psycopg

        with psycopg.connect(f"host={self._folder} user=teacher dbname=postgres", autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"'.encode())
        return self.url(database)


def everything(url: str) -> dict[str, list[Any]]:
    """Give all rows of all tables."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        found = {t.name: sorted(map(repr, connection.execute(select(t)))) for t in tables.sorted_tables}
    engine.dispose()
    return found


@contextmanager
def postgresql() -> Iterator[Server]:
    """Start a server and end it. Skips the test where there is none to start."""
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install -e .[postgresql])")
    user = _user()
    # not pytest's own folder: the server runs as another user than root, who may not look into it
    folder = Path(tempfile.mkdtemp(prefix="grader-pg-"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = str(folder / "data")
        _run(user, folder, "initdb", "-D", data, "-U", "teacher", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"{QUICK} -c unix_socket_directories='{folder}'"
        _run(user, folder, "pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield Server(folder)
        finally:
            _run(user, folder, "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _user() -> str | None:
    """Give who is to run the server: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)


def _run(user: str | None, folder: Path, command: str, *arguments: str) -> None:
    done = subprocess.run(
        [_program(command), *arguments],
        user=user,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        # a file: a server that was started keeps a pipe open for good
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command}: {_log(folder)}"


def _program(command: str) -> str:
    places = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{command}"))
    found = shutil.which(command) or (places[-1] if places else None)
    if found is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    return found


def _log(folder: Path) -> str:
    log = folder / "log"
    return log.read_text(encoding="utf-8", errors="replace")[-2000:] if log.is_file() else "see its own messages"
