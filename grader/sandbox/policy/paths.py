"""What Python itself must be able to read and write while a student's code runs."""

from __future__ import annotations

import os
import sys
import sysconfig

_SYSTEM = (
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
    "/usr/share/zoneinfo",
)
WRITABLE = ("/dev/null",)
# Looked up once, in the warm process: the first question to sysconfig takes milliseconds.
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


def python_paths() -> tuple[str, ...]:
    """Give the folders of the standard library, the installed packages and the shared libraries, and a few devices.

    Only `lib` folders are named, never a whole prefix: a course may lie below /usr/src.
    """
    prefixes = ("", "/usr", "/usr/local", sys.prefix, sys.base_prefix)
    libraries = [f"{prefix}/{name}" for prefix in prefixes for name in ("lib", "lib64")]
    packages = [entry for entry in sys.path if os.path.basename(entry) in ("site-packages", "dist-packages")]
    return tuple(dict.fromkeys([*_STANDARD, *packages, *libraries, *_SYSTEM]))
