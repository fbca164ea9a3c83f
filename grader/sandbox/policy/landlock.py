"""Landlock: which files a process may touch, enforced by the kernel without any privilege.

Not covered by any version: chmod, utime, xattrs, stat, UDP, io_uring; seccomp and the namespaces close those.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from grader.sandbox.policy.syscalls import call

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE = 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEV, _RESOLVE_UNIX = 1 << 13, 1 << 14, 1 << 15, 1 << 16

_TCP_BIND_AND_CONNECT = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11

# Which rights a kernel knows, by the version of the interface: asking for one it does not know is an error.
_ALL_OF_VERSION_1 = (1 << 13) - 1
_ADDED = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEV, 9: _RESOLVE_UNIX}
NETWORK_SINCE, SCOPES_SINCE = 4, 6

_ON_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _READ_FILE | _READ_DIR
_SCRATCH = _READ | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER | _TRUNCATE

_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1


def version() -> int:
    """Give the version of Landlock's interface. Raises OSError where the kernel has none or does not let us ask."""
    return call("landlock_create_ruleset", None, 0, _VERSION_FLAG)


def restrict(readable: Iterable[str], scratch: str = "", writable_files: Iterable[str] = ()) -> None:
    """Forbid this process and all it forks every file but these, TCP, and signals and abstract sockets to the outside.

    A path that is not there grants nothing. Needs no_new_privs, and one thread. Raises OSError.
    """
    known = _handled(version())
    ruleset = _ruleset(known)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & known)
        for path in writable_files:
            _allow(ruleset, path, (_READ | _WRITE_FILE | _TRUNCATE) & known)
        if scratch:
            _allow(ruleset, scratch, _SCRATCH & known)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def set_apart() -> None:
    """Put this process into a domain of its own inside its present one: no tracing or signalling of its parent."""
    ruleset = _ruleset(_MAKE_BLOCK)  # a rule set must handle something; device files are forbidden already
    try:
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    return _ALL_OF_VERSION_1 | sum(rights for since, rights in _ADDED.items() if since <= version)


def _ruleset(files: int) -> int:
    """Make a rule set that handles these rights on files, and all the network and scopes that the kernel knows."""
    found = version()
    fields = [files]
    if found >= NETWORK_SINCE:
        fields.append(_TCP_BIND_AND_CONNECT)
    if found >= SCOPES_SINCE:
        fields.append(_ABSTRACT_SOCKETS_AND_SIGNALS)
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return call("landlock_create_ruleset", attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_A_FILE
        call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, fd), 0)
    finally:
        os.close(fd)
