"""The filter of system calls: what it refuses, call by call, in a process that has it in force."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial

import pytest

from grader.sandbox.policy import PolicyError
from grader.sandbox.policy.process import no_new_privileges
from grader.sandbox.policy.seccomp import ALLOW, KILL, NO_SUCH_CALL, REFUSE, Instruction, install, program
from grader.sandbox.policy.syscalls import machine, numbers
from grader.sandbox.policy.trial import in_child

pytestmark = pytest.mark.skipif(sys.platform != "linux" or not machine(), reason="needs Linux on x86-64 or arm64")

REFUSED = """
    fork=57/- vfork=58/- execve=59/221 execveat=322/281 socket=41/198 socketpair=53/199 connect=42/203 bind=49/200
    listen=50/201 accept4=288/242 setsockopt=54/208 ptrace=101/117 process_vm_readv=310/270 process_vm_writev=311/271
    pidfd_open=434/434 pidfd_send_signal=424/424 rt_sigqueueinfo=129/138 rt_tgsigqueueinfo=297/240 kcmp=312/272
    io_uring_setup=425/425 io_uring_enter=426/426 io_uring_register=427/427 userfaultfd=323/282 bpf=321/280
    perf_event_open=298/241 keyctl=250/219 add_key=248/217 request_key=249/218 memfd_create=319/279 memfd_secret=447/447
    mount=165/40 umount2=166/39 mount_setattr=442/442 move_mount=429/429 fsopen=430/430 open_tree=428/428
    unshare=272/97 setns=308/268 pivot_root=155/41 chroot=161/51 name_to_handle_at=303/264 open_by_handle_at=304/265
    shmget=29/194 msgget=68/186 semget=64/190 mq_open=240/180 personality=135/92 chmod=90/- fchmod=91/52 fchmodat=268/53
    chown=92/- fchown=93/55 fchownat=260/54 utimensat=280/88 utimes=235/- setxattr=188/5 lsetxattr=189/6 fsetxattr=190/7
    removexattr=197/14 flock=73/32 truncate=76/45 symlink=88/- symlinkat=266/36 link=86/- linkat=265/37 mknod=133/-
    mknodat=259/33 sched_setaffinity=203/122 setpriority=141/140 inotify_init1=294/26 fanotify_init=300/262
    vmsplice=278/75 setuid=105/146 setgid=106/144 setresuid=117/147 setresgid=119/149 setgroups=116/159
    setrlimit=160/164 capset=126/91 seccomp=317/277 sethostname=170/161 settimeofday=164/170 clock_settime=227/112
    syslog=103/116 reboot=169/142 init_module=175/105 kexec_load=246/104 acct=163/89 setsid=112/157 setpgid=109/154
    timer_create=222/107 signalfd4=289/74 splice=275/76 tee=276/77 arch_prctl=158/-
"""


def confined(action: Callable[[], object]) -> str:
    """Give what `action` returns, as text, in a child that has the filter in force."""

    def run() -> str:
        no_new_privileges()
        install()
        return str(action())

    return in_child(run)


def error_of(action: Callable[[], object]) -> str:
    """Give the name of the error that `action` raises in a child that has the filter, or what it returns."""

    def run() -> object:
        try:
            return action()
        except OSError as error:
            return errno.errorcode[error.errno or 0]

    return confined(run)


def raw(number: int, *arguments: int) -> str:
    library = ctypes.CDLL(None, use_errno=True)
    result = library.syscall(ctypes.c_long(number), *(ctypes.c_long(word) for word in arguments))
    return errno.errorcode[ctypes.get_errno()] if result == -1 else str(result)


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What each call answers in one confined child, with arguments that mean nothing."""
    calls = numbers(REFUSED, machine())
    text = confined(lambda: " ".join(f"{name}={raw(number, -1, -1, -1, -1)}" for name, number in calls.items()))
    return dict(item.split("=") for item in text.split())


@pytest.mark.parametrize("name", numbers(REFUSED, machine()))
def test_the_call_is_refused_before_its_arguments_are_looked_at(name: str, answers: dict[str, str]) -> None:
    assert answers[name] == "EPERM"


@pytest.mark.parametrize("number", [435, 470, 5000])
def test_calls_the_c_library_can_do_without_seem_not_to_exist(number: int) -> None:
    assert confined(lambda: raw(number, 0, 0)) == "ENOSYS"


def test_a_process_may_signal_itself_alone() -> None:
    parent = os.getpid()
    assert error_of(lambda: os.kill(os.getpid(), 0)) == "None"
    for pid in (parent, 1, 0, -1, -parent):
        assert error_of(partial(os.kill, pid, 0)) == "EPERM"


def test_threads_work_and_processes_do_not() -> None:
    def thread() -> str:
        seen: list[str] = []
        worker = threading.Thread(target=seen.append, args=("ran",))
        worker.start()
        worker.join()
        return seen[0]

    assert confined(thread) == "ran"
    assert error_of(os.fork) == "EPERM"
    clone = {"x86_64": 56, "aarch64": 220}[machine()]
    assert confined(lambda: raw(clone, signal.SIGCHLD, 0, 0, 0, 0)) == "EPERM"
    assert error_of(lambda: os.posix_spawn("/bin/true", ["true"], {})) == "EPERM"


def test_limits_can_be_read_and_not_set() -> None:
    assert "(" in confined(lambda: resource.getrlimit(resource.RLIMIT_CPU))
    assert "EPERM" in error_of(lambda: resource.prlimit(0, resource.RLIMIT_CORE, (0, 0)))
    assert "EPERM" in error_of(lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE))


def test_file_control_is_limited_to_flags(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "file"), "w") as file:
        assert error_of(lambda: fcntl.fcntl(file, fcntl.F_GETFL) >= 0) == "True"
        assert error_of(lambda: fcntl.lockf(file, fcntl.LOCK_EX)) == "EPERM"
        assert error_of(lambda: fcntl.fcntl(file, fcntl.F_SETOWN, os.getppid())) == "EPERM"
        assert error_of(lambda: os.isatty(file.fileno())) == "False"
        assert error_of(lambda: fcntl.ioctl(file, 0x5412, b"x")) == "EPERM"  # TIOCSTI, typing into a terminal


def test_a_file_cannot_be_emptied_by_opening_it_to_read(tmp_path: os.PathLike[str]) -> None:
    path = os.path.join(tmp_path, "file")
    with open(path, "w") as file:
        file.write("kept")
    assert error_of(lambda: os.open(path, os.O_RDONLY | os.O_TRUNC)) == "EPERM"
    with open(path) as file:
        assert file.read() == "kept"


def test_an_open_connection_works_and_no_other_address_can_be_named() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert error_of(lambda: theirs.send(b"hello")) == "5"
        assert ours.recv(5) == b"hello"
        assert error_of(lambda: theirs.sendto(b"x", "/dev/log")) == "EPERM"


def test_tracing_cannot_be_switched_on_again() -> None:
    prctl = {"x86_64": 157, "aarch64": 167}[machine()]
    assert confined(lambda: raw(prctl, 4, 1, 0, 0, 0)) == "EPERM"
    assert confined(lambda: raw(prctl, 15, id(b"name"), 0, 0, 0)) == "0"


@pytest.mark.skipif(machine() != "x86_64", reason="x86-64 alone has a second table of calls")
def test_the_second_table_of_calls_ends_the_process() -> None:
    with pytest.raises(PolicyError, match=f"status -{int(signal.SIGSYS)}"):
        confined(lambda: raw(0x40000000 + 39))


# The other machine's filter cannot run here; this reads it the way the kernel would.


def decide(steps: list[Instruction], arch: int, number: int, arguments: tuple[int, ...] = ()) -> Instruction:
    words = {0: number, 4: arch}
    for index, value in enumerate((*arguments, *[0] * (6 - len(arguments)))):
        words[16 + 8 * index], words[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32
    accumulator, at = 0, 0
    while True:
        operation, yes, no, constant = steps[at]
        at += 1
        if operation == 0x06:
            return steps[at - 1]
        if operation == 0x20:
            accumulator = words[constant]
        elif operation == 0x54:
            accumulator &= constant
        else:
            holds = {0x15: accumulator == constant, 0x35: accumulator >= constant, 0x45: bool(accumulator & constant)}
            at += yes if holds[operation] else no


ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SELF = 77


def steps_of(name: str) -> list[Instruction]:
    return [(step[0], step[1], step[2], step[3]) for step in struct.iter_unpack("=HBBI", program(name, SELF))]


@pytest.mark.parametrize("name", ARCH)
def test_each_machines_filter_decides_alike(name: str) -> None:
    steps, arch = steps_of(name), ARCH[name]
    for number in numbers(REFUSED, name).values():
        assert decide(steps, arch, number) == REFUSE
    known = numbers("read=0/63 futex=202/98 openat=257/56 kill=62/129 clone=56/220 clone3=435/435 sendto=44/206", name)
    assert decide(steps, arch, known["read"]) == ALLOW
    assert decide(steps, arch, known["futex"]) == ALLOW
    assert decide(steps, arch, known["openat"], (0, 0, os.O_RDONLY)) == ALLOW
    assert decide(steps, arch, known["openat"], (0, 0, os.O_WRONLY | os.O_TRUNC)) == ALLOW
    assert decide(steps, arch, known["openat"], (0, 0, os.O_RDONLY | os.O_TRUNC)) == REFUSE
    assert decide(steps, arch, known["kill"], (SELF, 9)) == ALLOW
    assert decide(steps, arch, known["kill"], (SELF + 1, 9)) == REFUSE
    assert decide(steps, arch, known["clone"], (0x00010000,)) == ALLOW
    assert decide(steps, arch, known["clone"], (17,)) == REFUSE
    assert decide(steps, arch, known["clone3"]) == NO_SUCH_CALL
    assert decide(steps, arch, known["sendto"], (3, 0, 1, 0, 0)) == ALLOW
    assert decide(steps, arch, known["sendto"], (3, 0, 1, 0, 1 << 40)) == REFUSE


def test_calls_by_another_machines_numbers_end_the_process() -> None:
    for name, other in (("x86_64", "aarch64"), ("aarch64", "x86_64")):
        assert decide(steps_of(name), ARCH[other], 0) == KILL
    assert decide(steps_of("x86_64"), ARCH["x86_64"], 0x40000000 + 39) == KILL
