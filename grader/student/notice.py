"""Notice that a file was saved: by the system's notifications, or by looking again and again where there are none."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from watchfiles import watch

PROBE = "probe"
PROBE_SECONDS = 3.0
"""How long the system has to tell of a file that was written on purpose."""
STEP = 20
"""Milliseconds of quiet after which changes are told together: an editor writes a file in several steps."""
POLL = 0.25
"""Seconds between two looks."""
SILENT = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "drvfs", "vboxsf", "fuse.sshfs", "fuse.vmhgfs-fuse", "afs")
"""File systems whose changes the system does not always tell of."""


def why_polling(folder: Path) -> str:
    """Say why notifications are not to be relied on for a folder, or "" if they are."""
    if os.environ.get("WATCHFILES_FORCE_POLLING"):
        return "WATCHFILES_FORCE_POLLING is set"
    kind = _file_system(folder.resolve())
    if kind in SILENT:
        return f"the folder lies on a file system of the kind {kind}"
    if "microsoft-standard" in platform.uname().release and folder.resolve().parts[1:2] == ("mnt",):
        return "the folder lies on a drive of Windows"
    return ""


def _file_system(folder: Path) -> str:
    """Give the kind of the file system that holds a folder, or "" where that cannot be told."""
    if sys.platform != "linux":
        return ""
    best, kind = "", ""
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
            point, found = line.split()[1:3]
            if folder.is_relative_to(point) and len(point) >= len(best):
                best, kind = point, found
    return kind


class Notice:
    """Tells of changed files below some folders, on a thread of its own.

    Args:
        folders: what to watch.
        drawer: a folder in which a probe may be written, to see whether the system tells of changes at all.
        on_change: called with the files that changed.
        on_polling: called with the reason, when it falls back to polling.
    """

    def __init__(
        self,
        folders: list[Path],
        drawer: Path,
        on_change: Callable[[set[Path]], None],
        on_polling: Callable[[str], None],
    ) -> None:
        self._folders, self._drawer = folders, drawer
        self._on_change, self._on_polling = on_change, on_polling
        self._stop, self._give_up, self._is_heard = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns when the thread has."""
        self._stop.set()
        self._give_up.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        reason = why_polling(self._folders[0]) or self._listen()
        if reason and not self._stop.is_set():
            self._on_polling(reason)
            self._look()

    def _look(self) -> None:
        """Look again and again. The library's own polling sees whole seconds only, and misses a second save in one."""
        known = self._stamps()
        while not self._stop.wait(POLL):
            now = self._stamps()
            changed = {path for path, stamp in now.items() if known.get(path) != stamp}
            known = now
            if changed:
                self._on_change(changed)

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for folder in self._folders:
            with suppress(OSError), os.scandir(folder) as entries:
                for entry in entries:
                    with suppress(OSError):
                        found[Path(entry.path)] = (entry.stat().st_mtime_ns, entry.stat().st_size)
        return found

    def _listen(self) -> str:
        """Tell of changes by notifications; give the reason if they do not work."""
        threading.Thread(target=self._probe, daemon=True).start()
        try:
            for changed in self._changes():
                self._is_heard.set()
                own = {path for path in changed if path.parent != self._drawer}
                if own:
                    self._on_change(own)
        except (OSError, RuntimeError) as error:  # such as a limit on the number of watches
            return f"the system refuses notifications ({error})"
        return "" if self._stop.is_set() else "the system does not tell of changes here"

    def _probe(self) -> None:
        """Write a file again and again until the system tells of it; give up on notifications if it never does."""
        end = time.monotonic() + PROBE_SECONDS
        while not self._is_heard.is_set() and time.monotonic() < end and not self._stop.is_set():
            with suppress(OSError):
                (self._drawer / PROBE).write_text(str(time.monotonic()), encoding="utf-8")
            self._is_heard.wait(0.1)
        if not self._is_heard.is_set():
            self._give_up.set()

    def _changes(self) -> Iterator[set[Path]]:
        self._drawer.mkdir(exist_ok=True)
        changes = watch(
            *self._folders,
            self._drawer,
            watch_filter=None,
            debounce=200,
            step=STEP,
            stop_event=self._give_up,
            rust_timeout=500,
            force_polling=False,
            recursive=False,
            raise_interrupt=False,
        )
        return ({Path(path) for _, path in change} for change in changes)
