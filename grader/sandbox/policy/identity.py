"""Identity: when started by root, a user of its own for each slot, so that file permissions and signals hold too."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from grader.sandbox.policy.plan import Plan, PolicyError

# Between the numbers that distributions give to services and those systemd gives to short-lived ones.
_FIRST_UID = 60_600
SLOTS = 500


def uid_of(slot: int) -> int:
    """Give the user and group number of a slot. Raises PolicyError if there is no such slot."""
    if not 0 <= slot < SLOTS:
        raise PolicyError(f"identity: there are slots 0 to {SLOTS - 1}, not {slot}.")
    return _FIRST_UID + slot


def drop(plan: Plan) -> None:
    """Become the slot's user for good, in no other group, owner of the scratch folder.

    Raises PolicyError unless root, and when that user may not read what the plan makes readable.
    """
    uid = uid_of(plan.slot)
    try:
        if plan.scratch:
            os.chown(plan.scratch, uid, uid)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise PolicyError(f"identity: cannot become user {uid}: {error.strerror}") from error
    found = obstacle([*plan.readable, plan.scratch])
    if found:
        raise PolicyError(f"identity: {found}")


def obstacle(paths: Iterable[str]) -> str:
    """Give the first file or folder on the way to `paths` that this process may not read, and whose it is; or "".

    What is not there is no obstacle.
    """
    for path in paths:
        wanted = Path(path)
        for step in [*reversed(wanted.parents), wanted]:
            if not os.path.exists(step):
                break
            if not os.access(step, os.R_OK if step == wanted else os.X_OK):
                return f"{step} is private to {_owner(step)}"
    return ""


def _owner(folder: Path) -> str:
    import pwd  # only where there are users with numbers: not on Windows

    try:
        return pwd.getpwuid(folder.stat().st_uid).pw_name
    except KeyError:
        return f"user {folder.stat().st_uid}"
