"""A trusted process and its warm process, forked from one ancestor.

Twins have the same layout of addresses and share all that was loaded before the fork, so the processor's caches and
predictors serve both: a call from one to the other costs half of what it costs between strangers. The ancestor is
started clean and has imported nothing but `sandbox`: what the trusted twin is told, it is told after the fork.
"""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import sysconfig
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

from grader.sandbox.session import Warm
from grader.sandbox.zygote import prepare, serve

COURSE = str(Path(__file__).resolve().parent.parent.parent)
CLEAN_ENVIRONMENT = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # the order of sets of strings must not change from run to run
    "PYTHONHASHSEED": "0",
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
}


def start(then: str, connection: Connection, keep: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """Start a trusted process that has a warm one beside it.

    Args:
        then: "module:function"; the trusted twin calls it with its `Warm` and its end of the connection.
        connection: that end; this process keeps its own copy, to be closed.
        keep: what else the trusted twin shall have open for as long as it lives.
    """
    return subprocess.Popen(
        _command("split", then, connection.fileno()),
        pass_fds=[connection.fileno(), *keep],
        env=CLEAN_ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for the parent, who then closes the connection
    )


def start_alone() -> Warm:
    """Start a warm process for a trusted one that runs already."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        pid = os.posix_spawn(sys.executable, _command("alone", theirs.fileno()), CLEAN_ENVIRONMENT)
    return Warm(pid, ours)


def _command(entry: str, *arguments: object) -> list[str]:
    paths = [COURSE, *{sysconfig.get_path(name) for name in ("purelib", "platlib")}]
    boot = f"import sys; sys.path[:0] = {paths!r}; from grader.sandbox.twins import {entry}; {entry}()"
    # no site, no user site, no current folder: nothing but what is named here can be imported
    return [sys.executable, "-P", "-s", "-S", "-B", "-c", boot, *map(str, arguments)]


def split() -> NoReturn:
    """Be the ancestor: load, fork, and go on as the trusted twin."""
    then, fd = sys.argv[1:]
    prepare()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        serve(theirs, COURSE)
    theirs.close()
    module, _, name = then.partition(":")
    getattr(importlib.import_module(module), name)(Warm(pid, ours), Connection(int(fd)))
    sys.exit(0)


def alone() -> NoReturn:
    """Be a warm process without a twin."""
    fd = int(sys.argv[1])
    prepare()
    serve(socket.socket(fileno=fd), COURSE)
