"""A scratch folder that the host can see: without namespaces no small file system covers it, so the controller looks.

What lies in it is a student's: names, depth and modes are hostile; nothing is opened.
"""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count

_BLOCK = 512


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
    """Remove a folder that a student's code has filled, however deep it is; what cannot be removed stays.

    What lies in a folder inside is lifted to the top before that folder is removed, so no path is long.
    """
    numbers = count()
    with suppress(OSError):
        while inside := list(os.scandir(folder)):
            for entry in inside:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                with suppress(OSError):
                    _lift(entry.path, os.path.join(folder, f"lifted-{next(numbers)}-"))
                os.rmdir(entry.path)
        os.rmdir(folder)


def _lift(folder: str, prefix: str) -> None:
    """Rename all that lies in a folder to names that begin with `prefix`."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for number, name in enumerate(os.listdir(handle)):
            os.rename(name, f"{prefix}{number}", src_dir_fd=handle)
    finally:
        os.close(handle)
