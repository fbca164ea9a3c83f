"""The two doors: a supervisor walks through the first once a submission, its children through the second."""

from __future__ import annotations

import os
import tempfile

from grader.sandbox.policy import cgroup, identity, landlock, namespaces, process, rlimits, seccomp
from grader.sandbox.policy.paths import WRITABLE, python_paths
from grader.sandbox.policy.plan import Plan, PolicyError, Room


def enter_supervisor(plan: Plan) -> Room:
    """Confine this process, just forked from a warm one with one thread, and all that it will fork.

    With namespaces it returns in a new process, the first of its own: the process that called stays outside, waits,
    and ends with the same status; killing it kills all inside. The working directory and the folder for temporary
    files become the scratch folder. Raises PolicyError if a layer of the plan cannot be in force; then end.
    """
    if not plan.layers:
        _move_into(plan.scratch)
        return Room(plan.scratch, os.getpid(), 0, False, -1)
    if process.thread_count() != 1:
        raise PolicyError("A process with several threads cannot be confined; start it with OMP_NUM_THREADS=1.")
    address_space = process.address_space()
    try:
        children_fd = _leave_host(plan)
        _move_into(plan.scratch)
        if "landlock" in plan.layers:
            process.no_new_privileges()
            landlock.restrict([*python_paths(), *plan.readable], plan.scratch, WRITABLE)
    except OSError as error:
        raise PolicyError(f"The supervisor cannot be confined: {error.strerror or error}.") from error
    return Room(plan.scratch, os.getpid(), address_space, "namespaces" in plan.layers, children_fd)


def enter_child(plan: Plan, room: Room) -> None:
    """Confine this process, just forked from the supervisor, for good; what runs next may be a student's code.

    Raises PolicyError if a layer of the plan cannot be in force; then end.
    """
    try:
        if "process" in plan.layers:
            _isolate(plan, room)
        if "landlock" in plan.layers:
            landlock.set_apart()
        if "rlimits" in plan.layers:
            rlimits.limit(plan, room.address_space, _has_threads_of_its_own(plan))
        if "seccomp" in plan.layers:
            process.no_new_privileges()
            seccomp.install()
    except (OSError, ValueError) as error:
        raise PolicyError(f"The child cannot be confined: {error}.") from error


def _leave_host(plan: Plan) -> int:
    """Enter the layers that need /proc or a privilege, then give up both. Gives the list of children, or -1."""
    kept = "process" in plan.layers
    children_fd = -1
    if kept:
        process.set_dumpable(True)  # else /proc/self belongs to root
        process.prefer_for_oom()
        process.adopt_orphans()
        if "namespaces" not in plan.layers:
            children_fd = process.open_children()
    if "cgroup" in plan.layers:
        cgroup.join(plan)
    if "identity" in plan.layers:
        identity.drop(plan)
    if "namespaces" in plan.layers:
        process.set_dumpable(True)  # a change of user took it away
        namespaces.enter(plan)
    if kept:
        process.no_new_privileges()
        process.drop_capabilities()
        process.set_dumpable(False)
        process.die_with_parent()
    if "namespaces" in plan.layers:
        namespaces.fork_first_process()
    return children_fd


def _isolate(plan: Plan, room: Room) -> None:
    """Take from the child what it holds of others: open files, and a life after its supervisor's."""
    process.die_with_parent()
    if os.getppid() != room.supervisor:  # it ended before that request
        os._exit(1)
    process.close_fds_except({0, *plan.keep_fds})
    process.empty_stdin()


def _move_into(scratch: str) -> None:
    if scratch:
        os.chdir(scratch)
        os.environ.update(HOME=scratch, TMPDIR=scratch)
        tempfile.tempdir = None  # forget what the warm process found


def _has_threads_of_its_own(plan: Plan) -> bool:
    """Whether the limit on threads counts this submission's alone, and binds: root is exempt from it."""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2] if part.isdigit())
    counted_apart = "identity" in plan.layers or ("namespaces" in plan.layers and release >= (5, 14))
    return os.geteuid() != 0 and counted_apart
