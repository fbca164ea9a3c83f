"""A scratch folder that the host can see: without namespaces no small file system covers it, so the controller looks.

What lies in it is a student's: names, depth and modes are hostile; nothing is opened.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_BLOCK = 512
_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)  # neither is Windows'


def is_overfull(folder: str, most_bytes: int, most_names: int) -> bool:
    """Tell whether a folder holds more than it may; one that cannot be looked into does."""
    used = names = 0
    folders = [folder]
    while folders:
        try:
            for entry in os.scandir(folders.pop()):
                names += 1
                used += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                if used > most_bytes or names > most_names:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
        except FileNotFoundError:  # it was removed meanwhile
            continue
        except OSError:
            return True
    return False


def remove(folder: str) -> None:
    """Remove a folder whose processes have ended, however deep it is; what cannot be removed stays.

    One open folder goes down and up again, so no path is long, and no link is followed.
    """
    above: list[str] = []
    with suppress(OSError):
        handle = os.open(folder, _FOLDER)
        try:
            while True:
                below = _empty(handle)
                if below is None and not above:
                    break
                step = os.open(".." if below is None else below, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = step
                if below is None:
                    os.rmdir(above.pop(), dir_fd=handle)
                else:
                    above.append(below)
        finally:
            os.close(handle)
        os.rmdir(folder)


def _empty(handle: int) -> str | None:
    """Remove what an open folder holds, and give a folder in it that is not empty, if there is one."""
    for name in os.listdir(handle):
        if not stat.S_ISDIR(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=handle)
            continue
        try:
            os.rmdir(name, dir_fd=handle)
        except OSError:
            return name
    return None
