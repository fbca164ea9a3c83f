"""The layers that confine an untrusted process: each alone, all together, and what they leave a student's code."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from grader.sandbox.policy import (
    LAYERS,
    Layer,
    Plan,
    PolicyError,
    Room,
    end_all,
    enter_child,
    enter_supervisor,
    identity,
    in_force,
    landlock,
    missing,
    probe,
    process,
    run_canaries,
    tier,
)
from grader.sandbox.policy.plan import MIB
from grader.sandbox.policy.trial import in_child

ROOT = Path(__file__).resolve().parents[2]
LINUX = sys.platform == "linux"
HERE = probe()
HAVE = in_force(HERE)

linux_only = pytest.mark.skipif(not LINUX, reason="needs Linux")
root_only = pytest.mark.skipif(not LINUX or os.geteuid() != 0, reason="needs root")


def needs(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not set(names) <= HAVE, reason=f"this host does not offer {', '.join(names)}")


def chosen(*names: str) -> list[Layer]:
    return [Layer(name, True, "") for name in names]


# What is in force, and what follows from it.

EVERYTHING = (*LAYERS, "landlock-network", "landlock-scopes")


@pytest.mark.parametrize(
    ("lacking", "letter", "refused"),
    [
        ((), "A", []),
        (("cgroup",), "B", []),
        (("identity", "cgroup"), "B", []),
        (("namespaces",), "C", []),
        (("namespaces", "landlock-scopes"), "C", []),
        (("landlock-network",), "A", []),
        (("namespaces", "landlock-network"), "D", ["namespaces"]),
        (("landlock", "landlock-network", "namespaces"), "D", ["landlock", "namespaces"]),
        (("landlock", "landlock-network"), "D", ["landlock"]),
        (("seccomp",), "E", ["seccomp"]),
        (("rlimits", "process"), "E", ["rlimits", "process"]),
        (EVERYTHING, "E", ["landlock", "seccomp", "rlimits", "process", "namespaces"]),
    ],
)
def test_tier_and_what_is_missing(lacking: tuple[str, ...], letter: str, refused: list[str]) -> None:
    layers = [Layer(name, name not in lacking, "") for name in EVERYTHING]
    assert tier(layers) == letter
    assert missing(layers) == refused


def test_every_layer_is_reported_with_a_reason_and_a_remedy_where_it_is_not_in_force() -> None:
    assert tuple(layer.name for layer in HERE) == EVERYTHING
    for layer in HERE:
        assert layer.why
        assert bool(layer.remedy) != layer.in_force


def test_a_layer_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(PolicyError, match="no layer 'landlok'"):
        Plan(frozenset({"landlok"}))


def test_elsewhere_everything_imports_and_nothing_is_in_force() -> None:
    program = """
import os, random, shutil, socket, subprocess, sys, sysconfig, tempfile, threading
sysconfig.get_paths()
sys.platform = sys.argv[1]
if sys.platform == "win32":
    sys.modules.update(dict.fromkeys(("resource", "fcntl", "pwd", "grp")))
    del os.fork
from grader.sandbox.policy import PolicyError, in_force, missing, probe, run_canaries, tier
layers = probe()
assert all("Linux" in layer.why and layer.remedy for layer in layers)
assert not in_force(layers) and missing(layers) and tier(layers) == "E"
try:
    run_canaries(layers)
except PolicyError as error:
    print(error)
"""
    for system in ("darwin", "win32"):
        done = subprocess.run([sys.executable, "-c", program, system], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == "The canaries need Linux.\n", done.stderr


@linux_only
def test_the_command_prints_every_layer_and_tells_whether_grading_is_safe() -> None:
    done = subprocess.run([sys.executable, "-m", "grader.sandbox.policy"], cwd=ROOT, capture_output=True, text=True)
    for layer in HERE:
        assert f"{layer.name} " in done.stdout
    assert done.returncode == bool(missing(HERE)), done.stdout


# The canaries.

ALONE = {
    "landlock": {"read_a_file", "write_a_file", "create_a_file", "empty_a_file", "link_a_file", "list_the_processes"},
    "namespaces": {"write_a_file", "change_a_mode", "change_a_time", "connect_by_tcp", "send_by_udp"},
    "process": {"use_an_inherited_file"},
    "seccomp": {
        *("fork", "run_a_program", "change_a_mode", "change_a_time", "connect_by_tcp", "send_by_udp"),
        *("connect_to_a_unix_socket", "connect_to_an_abstract_socket", "signal_the_parent", "signal_the_outside"),
        *("trace_the_parent", "read_the_parents_memory", "make_a_file_in_memory", "leave_a_key", "make_a_namespace"),
    },
}
SURE_WITHOUT = {
    *("read_a_file", "write_a_file", "create_a_file", "change_a_mode", "change_a_time", "use_an_inherited_file"),
    *("fork", "run_a_program", "connect_by_tcp", "send_by_udp", "connect_to_a_unix_socket", "signal_the_parent"),
    *("signal_the_outside", "list_the_processes", "make_a_file_in_memory"),
}


@linux_only
def test_without_layers_the_canaries_get_out() -> None:
    assert set(run_canaries([])) >= SURE_WITHOUT


@pytest.mark.skipif(bool(missing(HERE)), reason="this host is not safe for grading")
def test_with_every_layer_no_canary_gets_out() -> None:
    assert run_canaries(HERE) == []


@needs("landlock", "seccomp", "rlimits", "process")
def test_without_namespaces_no_canary_gets_out_either() -> None:
    assert run_canaries(chosen("landlock", "seccomp", "rlimits", "process")) == []


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(name)) for name in ALONE])
def test_a_layer_alone_stops_its_own_canaries(name: str) -> None:
    assert not set(run_canaries(chosen(name))) & ALONE[name]


@root_only
@needs("namespaces", "landlock", "seccomp")
def test_the_same_holds_for_an_ordinary_user() -> None:
    def as_nobody() -> str:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        layers = probe()
        return json.dumps([sorted(in_force(layers)), run_canaries(layers)])

    names, escaped = json.loads(in_child(as_nobody))
    assert {"landlock", "namespaces", "process", "rlimits", "seccomp"} <= set(names)
    assert escaped == []


# Landlock.


@needs("landlock")
def test_landlock_opens_what_is_named_and_nothing_else(tmp_path: Path) -> None:
    shelf, scratch = tmp_path / "shelf", tmp_path / "scratch"
    for folder in (shelf, scratch, scratch / "a", scratch / "b"):
        folder.mkdir()
    (shelf / "book").write_text("text")
    (tmp_path / "note").write_text("note")
    (tmp_path / "other").write_text("other")

    def attempts() -> str:
        process.no_new_privileges()
        landlock.restrict([str(shelf), str(tmp_path / "note"), str(tmp_path / "absent")], str(scratch))
        (scratch / "a" / "new").write_text("new")
        if landlock.version() >= 2:
            (scratch / "a" / "new").rename(scratch / "b" / "moved")
        tried: dict[str, Callable[[], object]] = {
            "read in a named folder": (shelf / "book").read_text,
            "read a named file": (tmp_path / "note").read_text,
            "read another file": (tmp_path / "other").read_text,
            "list the folder above": lambda: os.listdir(tmp_path),
            "write in a named folder": lambda: (shelf / "book").write_text(""),
            "remove in a named folder": (shelf / "book").unlink,
            "make a fifo in scratch": lambda: os.mkfifo(scratch / "fifo"),
            "link in scratch": lambda: os.symlink("a", scratch / "link"),
        }
        return json.dumps([name for name, attempt in tried.items() if succeeds(attempt)])

    assert json.loads(in_child(attempts)) == ["read in a named folder", "read a named file"]


def succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


# Namespaces.


def inside(plan: Plan, action: Callable[[Room], object]) -> str:
    """Give what `action` returns, as text, in a supervisor confined by `plan`."""
    return in_child(lambda: str(action(enter_supervisor(plan))))


@needs("namespaces")
def test_the_scratch_folder_is_small_private_and_gone_afterwards(tmp_path: Path) -> None:
    plan = Plan(frozenset({"namespaces"}), scratch=str(tmp_path), scratch_bytes=MIB, scratch_files=20)

    def touch_many() -> None:
        for i in range(30):
            Path(f"file{i}").touch()

    def fill(room: Room) -> list[object]:
        Path("kept").write_text("here")
        large = succeeds(lambda: Path("large").write_bytes(bytes(2 * MIB)))
        Path("large").unlink()
        many = succeeds(touch_many)
        return [os.getcwd() == room.scratch, os.environ["TMPDIR"] == room.scratch, large, many]

    assert inside(plan, fill) == "[True, True, False, False]"
    assert list(tmp_path.iterdir()) == []


@needs("namespaces", "process")
def test_the_supervisor_is_the_first_process_on_a_host_without_a_name(tmp_path: Path) -> None:
    plan = Plan(frozenset({"namespaces", "process"}), scratch=str(tmp_path))
    assert inside(plan, lambda room: [os.getpid(), room.supervisor, os.uname().nodename]) == "[1, 1, 'sandbox']"


def leave() -> None:
    os._exit(7)


def crash() -> None:
    faulthandler.disable()
    ctypes.string_at(0)


@needs("namespaces")
@pytest.mark.parametrize(("end", "code"), [(leave, 7), (crash, -11)])
def test_the_process_outside_ends_as_the_one_inside(tmp_path: Path, end: Callable[[], None], code: int) -> None:
    def outside() -> str:
        pid = os.fork()
        if pid == 0:
            enter_supervisor(Plan(frozenset({"namespaces", "process"}), scratch=str(tmp_path)))
            end()
        _, status = os.waitpid(pid, 0)
        return str(os.waitstatus_to_exitcode(status))

    assert in_child(outside) == str(code)


@needs("namespaces", "process")
def test_killing_the_process_outside_ends_all_inside(tmp_path: Path) -> None:
    def outside() -> str:
        alive, held = os.pipe()
        pid = os.fork()
        if pid == 0:
            enter_supervisor(Plan(frozenset({"namespaces", "process"}), scratch=str(tmp_path)))
            if os.fork() == 0:
                os.setsid()
            os.write(held, b"x")
            time.sleep(60)
        os.close(held)
        os.read(alive, 1), os.read(alive, 1)
        os.kill(pid, signal.SIGKILL)
        return repr(os.read(alive, 1))  # the end of the file comes when the last holder is gone

    assert in_child(outside) == "b''"


@linux_only
def test_a_process_with_threads_is_not_confined_by_half(tmp_path: Path) -> None:
    def with_a_thread() -> str:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        enter_supervisor(Plan(frozenset({"process"}), scratch=str(tmp_path)))
        return ""

    with pytest.raises(PolicyError, match="several threads"):
        in_child(with_a_thread)


# What a process promises about itself, and its limits.


@pytest.mark.parametrize(
    "names",
    [pytest.param(("process",), marks=linux_only), pytest.param(("process", "namespaces"), marks=needs("namespaces"))],
)
def test_daemons_are_ended_with_their_supervisor_alive(tmp_path: Path, names: tuple[str, ...]) -> None:
    def start_daemons(room: Room) -> int:
        alive, held = os.pipe()
        child = os.fork()
        if child == 0:
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(held, b"x")
                        time.sleep(60)
                    os._exit(0)
            os._exit(0)
        os.close(held)
        os.waitpid(child, 0)
        started = sum(len(os.read(alive, 1)) for _ in range(3))
        end_all(room)
        return started - len(os.read(alive, 1))

    assert inside(Plan(frozenset(names), scratch=str(tmp_path)), start_daemons) == "3"


@linux_only
def test_without_layers_ending_all_touches_nobody(tmp_path: Path) -> None:
    assert inside(Plan(scratch=str(tmp_path)), end_all) == "0"


def in_confined_child(plan: Plan, action: Callable[[], object]) -> str:
    """Give what `action` returned in a child of the plan, or how the child ended."""

    def supervise(room: Room) -> str:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            enter_child(replace(plan, keep_fds=(writer,)), room)
            try:
                answer = str(action())
            except Exception as error:
                answer = type(error).__name__
            os.write(writer, answer.encode())
            os._exit(0)
        os.close(writer)
        _, status = os.waitpid(pid, 0)
        return os.read(reader, 1000).decode() or f"ended with {os.waitstatus_to_exitcode(status)}"

    return inside(plan, supervise)


@needs("rlimits")
def test_limits_hold(tmp_path: Path) -> None:
    plan = Plan(frozenset({"rlimits"}), scratch=str(tmp_path), memory_bytes=64 * MIB, file_bytes=MIB, cpu_seconds=1)
    assert in_confined_child(plan, lambda: len(bytearray(32 * MIB))) == str(32 * MIB)
    assert in_confined_child(plan, lambda: len(bytearray(128 * MIB))) == "MemoryError"
    assert in_confined_child(plan, lambda: Path("large").write_bytes(bytes(2 * MIB))) == "OSError"
    assert in_confined_child(plan, lambda: resource.getrlimit(resource.RLIMIT_CORE)) == "(0, 0)"
    assert in_confined_child(plan, spin) == f"ended with -{int(signal.SIGXCPU)}"


def spin() -> None:
    while True:
        pass


@needs("process")
def test_a_child_keeps_only_the_files_it_is_given(tmp_path: Path) -> None:
    plan = Plan(frozenset({"process"}), scratch=str(tmp_path))
    with (tmp_path / "open").open("wb") as file:
        assert in_confined_child(plan, lambda: os.write(file.fileno(), b"x")) == "OSError"
    assert in_confined_child(plan, lambda: os.read(0, 1)) == "b''"
    assert in_confined_child(plan, lambda: len(os.listdir("/proc/self/fd"))) in ("3", "PermissionError")


# A user for each slot.


def open_to_all(folder: Path) -> None:
    """Let a slot's user reach a folder of pytest's, which makes its own private."""
    for step in (folder, *folder.parents[:2]):
        if step.stat().st_uid == os.geteuid() and "pytest" in str(step):
            step.chmod(0o755)


@root_only
def test_a_private_folder_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o700)
    (tmp_path / "private" / "python").mkdir()
    open_to_all(tmp_path)

    def ask() -> str:
        identity.drop(Plan(slot=3))
        return identity.obstacle([str(tmp_path), str(tmp_path / "absent"), str(tmp_path / "private" / "python")])

    assert in_child(ask) == f"{tmp_path / 'private'} is private to root"


@root_only
def test_a_slots_user_has_no_way_back() -> None:
    def ask() -> str:
        identity.drop(Plan(slot=3))
        return str([os.getresuid(), os.getgroups(), succeeds(lambda: os.setuid(0))])

    uid = identity.uid_of(3)
    assert in_child(ask) == str([(uid, uid, uid), [], False])
    with pytest.raises(PolicyError, match="slots 0 to"):
        identity.uid_of(100_000)
