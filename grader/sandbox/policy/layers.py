"""Which layers this host can put in force, found by really trying each in a forked child."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from grader.sandbox.policy import cgroup, identity, landlock, namespaces, process, rlimits, seccomp
from grader.sandbox.policy.paths import python_paths
from grader.sandbox.policy.plan import LAYERS, MIB, Plan, PolicyError
from grader.sandbox.policy.trial import in_child

NETWORK, SCOPES = "landlock-network", "landlock-scopes"
"""What later versions of Landlock add; they come with the layer "landlock" where the kernel has them."""

_ELSEWHERE = "Grade in Linux: Docker, Podman, WSL2, Lima or a virtual machine."
_TRIAL_SLOT = identity.SLOTS - 1


@dataclass(frozen=True)
class Layer:
    """One way to confine: whether it can be in force here, why or why not, and what would change that."""

    name: str
    in_force: bool
    why: str
    remedy: str = ""


def probe(readable: Iterable[str] = ()) -> tuple[Layer, ...]:
    """Try every layer and tell which can be in force on this host, for code that must also read `readable`."""
    names = (*LAYERS, NETWORK, SCOPES)
    if sys.platform != "linux":
        return tuple(Layer(name, False, "needs Linux", _ELSEWHERE) for name in names)
    paths = (*python_paths(), *readable)
    trials: dict[str, Callable[[], str]] = {
        "cgroup": _try_cgroup,
        "identity": lambda: _try_identity(paths),
        "namespaces": _try_namespaces,
        "landlock": _try_landlock,
        "rlimits": _try_rlimits,
        "process": _try_process,
        "seccomp": _try_seccomp,
    }
    layers = tuple(_tried(name, trials[name]) for name in LAYERS)
    return (*layers, _since(NETWORK, landlock.NETWORK_SINCE, "6.7"), _since(SCOPES, landlock.SCOPES_SINCE, "6.12"))


def in_force(layers: Iterable[Layer]) -> frozenset[str]:
    """Give the names of the layers in force, ready for a plan."""
    return frozenset(layer.name for layer in layers if layer.in_force and layer.name in LAYERS)


def tier(layers: Iterable[Layer]) -> str:
    """Sum the layers up: "A" everything, "B" without root, "C" without namespaces, "D" seccomp alone, "E" unsafe."""
    have = {layer.name for layer in layers if layer.in_force}
    base = {"seccomp", "rlimits", "process"}
    if have >= base | {"landlock", "namespaces", "identity", "cgroup"}:
        return "A"
    if have >= base | {"landlock", "namespaces"}:
        return "B"
    if have >= base | {"landlock", NETWORK}:
        return "C"
    return "D" if have >= base else "E"


def missing(layers: Iterable[Layer]) -> list[str]:
    """Give the layers without which grading is not safe and that are not in force; empty when it is safe."""
    have = {layer.name for layer in layers if layer.in_force}
    needed = [name for name in ("landlock", "seccomp", "rlimits", "process") if name not in have]
    fenced = "namespaces" in have or have >= {NETWORK, "seccomp"}
    return needed if fenced else [*needed, "namespaces"]


def _tried(name: str, trial: Callable[[], str]) -> Layer:
    try:
        return Layer(name, True, in_child(trial))
    except PolicyError as error:
        why = str(error).removeprefix(f"{name}: ")
        return Layer(name, False, why, _remedy(name, why))
    finally:
        if name == "cgroup":
            with suppress(OSError, PolicyError):
                cgroup.remove(_TRIAL_SLOT)


def _since(name: str, version: int, kernel: str) -> Layer:
    try:
        found = landlock.version()
    except OSError as error:
        return Layer(name, False, str(error), _remedy("landlock", ""))
    if found >= version:
        return Layer(name, True, f"Landlock's version {found}")
    return Layer(
        name, False, f"Landlock's version is {found}, this came with {version}", f"Use Linux {kernel} or later."
    )


def _try_cgroup() -> str:
    cgroup.join(Plan(slot=_TRIAL_SLOT))
    return "limits on memory and processes of the whole submission"


def _try_identity(paths: Iterable[str]) -> str:
    if os.geteuid() != 0:
        raise PolicyError("only root can take on another user")
    identity.drop(Plan(slot=_TRIAL_SLOT))
    found = identity.obstacle(paths)
    if found:
        raise PolicyError(found)
    return f"users {identity.uid_of(0)} to {identity.uid_of(_TRIAL_SLOT)}"


def _try_namespaces() -> str:
    with tempfile.TemporaryDirectory(prefix="grader-trial-") as scratch:
        return in_child(lambda: _inside_namespaces(scratch))


def _inside_namespaces(scratch: str) -> str:
    process.set_dumpable(True)
    namespaces.enter(Plan(scratch=scratch, scratch_bytes=MIB))
    namespaces.fork_first_process()
    if os.getpid() != 1:
        raise PolicyError("the process namespace is not in force")
    try:
        Path(scratch, "large").write_bytes(bytes(2 * MIB))
    except OSError:
        return "processes, network, mounts, IPC and users of its own"
    raise PolicyError("the scratch folder has no limit of size")


def _try_landlock() -> str:
    process.no_new_privileges()
    landlock.restrict([])
    try:
        os.listdir("/")
    except PermissionError:
        return f"version {landlock.version()}"
    raise PolicyError("its rules are accepted and not enforced")


def _try_rlimits() -> str:
    rlimits.limit(Plan(memory_bytes=64 * MIB), process.address_space(), False)
    try:
        mmap.mmap(-1, 128 * MIB)
    except (OSError, MemoryError):
        return "time, memory, file size, open files, stack"
    raise PolicyError("the limit on memory is accepted and not enforced")


def _try_process() -> str:
    process.no_new_privileges()
    process.adopt_orphans()
    process.die_with_parent()
    os.close(process.open_children())
    process.set_dumpable(False)
    process.drop_capabilities()
    return "no new privileges, no tracing, no orphans"


def _try_seccomp() -> str:
    process.no_new_privileges()
    seccomp.install()
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    try:
        pid = os.fork()
    except PermissionError:
        return "only what Python and torch need"
    if pid == 0:
        os._exit(0)
    raise PolicyError("its rules are accepted and not enforced")


def _remedy(name: str, why: str) -> str:
    """Say what the instructor can do, or why nothing need be done."""
    if name == "namespaces":
        return _namespaces_remedy()
    if name == "identity":
        moved = "Install Python and the packages where every user can read them, e.g. below /opt."
        return moved if "private" in why else "None is needed where namespaces are in force; else start as root."
    return {
        "cgroup": "Start it with: systemd-run --user --pty -p Delegate=yes -p DelegateSubgroup=main (systemd 254).",
        "landlock": "Use Linux 5.13 or later with landlock in the boot option lsm=; in a container, a runtime of 2022.",
        "rlimits": _ELSEWHERE,
        "process": "Use Linux 5.13 or later with CONFIG_PROC_CHILDREN.",
        "seccomp": "Use Linux with CONFIG_SECCOMP_FILTER on x86-64 or arm64.",
    }[name]


def _namespaces_remedy() -> str:
    for switch, wanted in (
        ("kernel.apparmor_restrict_unprivileged_userns", "0"),
        ("kernel.unprivileged_userns_clone", "1"),
        ("user.max_user_namespaces", "10000"),
    ):
        file = Path("/proc/sys", *switch.split("."))
        off = "1" if wanted == "0" else "0"
        if file.exists() and file.read_text().strip() == off:
            return f"Run: sudo sysctl -w {switch}={wanted}"
    return "In a container, start it with --security-opt seccomp=unconfined; without this layer Landlock does the work."
