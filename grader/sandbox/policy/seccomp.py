"""Seccomp: the system calls a student's process may make; every other one is refused with "operation not permitted".

The list is what Python, numpy and torch use after they are loaded, training and threads included. Raw BPF by ctypes:
the known Python bindings need a C library of their own and are not kept up.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

from grader.sandbox.policy.syscalls import call, machine, numbers

Instruction = tuple[int, int, int, int]
"""One BPF instruction: operation, jump if true, jump if false, constant."""

# name=x86_64/aarch64
_ALLOWED = """
    read=0/63 write=1/64 readv=19/65 writev=20/66 pread64=17/67 pwrite64=18/68 preadv=295/69 pwritev=296/70
    lseek=8/62 close=3/57 close_range=436/436 dup=32/23 dup2=33/- dup3=292/24 pipe=22/- pipe2=293/59 poll=7/-
    ppoll=271/73 select=23/- pselect6=270/72 epoll_create1=291/20 epoll_ctl=233/21 epoll_wait=232/-
    epoll_pwait=281/22 eventfd2=290/19

    stat=4/- lstat=6/- fstat=5/80 newfstatat=262/79 statx=332/291 access=21/- faccessat=269/48 faccessat2=439/439
    readlink=89/- readlinkat=267/78 getdents64=217/61 getcwd=79/17 chdir=80/49 fchdir=81/50 mkdir=83/- mkdirat=258/34
    rmdir=84/- unlink=87/- unlinkat=263/35 rename=82/- renameat=264/38 renameat2=316/276 ftruncate=77/46 fsync=74/82
    fdatasync=75/83 fadvise64=221/223 sendfile=40/71 copy_file_range=326/285 umask=95/166

    mmap=9/222 munmap=11/215 mprotect=10/226 mremap=25/216 madvise=28/233 brk=12/214 msync=26/227 mincore=27/232

    sendmsg=46/211 recvfrom=45/207 recvmsg=47/212 shutdown=48/210 getsockname=51/204 getpeername=52/205
    getsockopt=55/209

    futex=202/98 set_robust_list=273/99 set_tid_address=218/96 rseq=334/293 sched_yield=24/124
    sched_getaffinity=204/123 getcpu=309/168 membarrier=324/283 rt_sigaction=13/134 rt_sigprocmask=14/135
    rt_sigreturn=15/139 sigaltstack=131/132 restart_syscall=219/128 exit=60/93 exit_group=231/94

    clock_gettime=228/113 clock_getres=229/114 clock_nanosleep=230/115 nanosleep=35/101 gettimeofday=96/169
    time=201/- times=100/153 getrusage=98/165 getpid=39/172 getppid=110/173 gettid=186/178 getuid=102/174
    geteuid=107/175 getgid=104/176 getegid=108/177 getresuid=118/148 getresgid=120/150 getgroups=115/158
    uname=63/160 sysinfo=99/179 getrandom=318/278 getrlimit=97/163
"""
_BY_ARGUMENT = """
    open=2/- openat=257/56 sendto=44/206 ioctl=16/29 fcntl=72/25 prctl=157/167 prlimit64=302/261 clone=56/220
    kill=62/129 tkill=200/130 tgkill=234/131
"""
# The C library tries these first and falls back only when the kernel seems not to have them.
_NOT_THERE = "clone3=435/435"
# Calls newer than the last one looked at when the lists were written (file_setattr): a newer C library falls back too.
_FIRST_UNKNOWN = 470

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000

# The parts of BPF that are used: load a word of the call's data, mask it, compare it, return a decision.
_LOAD, _AND, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _ARCH_AT, _ARGUMENTS_AT = 0, 4, 16

ALLOW: Instruction = (_RETURN, 0, 0, 0x7FFF0000)
KILL: Instruction = (_RETURN, 0, 0, 0x80000000)
REFUSE: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
NO_SUCH_CALL: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)

_CLONE_THREAD = 0x00010000
_OPEN_MODE, _OPEN_TRUNCATE = 0o3, 0o1000
_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS TIOCGWINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_SETFL F_DUPFD_CLOEXEC
_PRCTLS = (15, 16)  # PR_SET_NAME PR_GET_NAME

_SET_MODE_FILTER, _ALL_THREADS = 1, 1
_STEP, _WORD = struct.Struct("=HBBI"), struct.Struct("=I")
_SELF = 0x5E1F5E1F  # stands for the process's own number; far above any number that Linux gives


def program(machine: str, pid: int) -> bytes:
    """Give the filter for one machine, in which a process may send signals to `pid` alone, itself.

    Raises KeyError for a machine other than "x86_64" and "aarch64".
    """
    return _template(machine).replace(_WORD.pack(_SELF), _WORD.pack(pid))


def install() -> None:
    """Put the filter in force for this process, all its threads, and for ever. Needs no_new_privs. Raises OSError."""
    if not machine():
        raise OSError(errno.ENOSYS, "no system call filter for this kind of processor")
    steps = program(machine(), os.getpid())
    code = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("@HP", len(steps) // _STEP.size, ctypes.addressof(code))
    if call("seccomp", _SET_MODE_FILTER, _ALL_THREADS, header):
        raise OSError(errno.EBUSY, "a thread of this process has another filter")


@cache
def _template(machine: str) -> bytes:
    """Give the filter with a stand-in for the process's own number."""
    start = [(_LOAD, 0, 0, _ARCH_AT), (_IF_EQUAL, 1, 0, _AUDIT_ARCH[machine]), KILL, (_LOAD, 0, 0, _NUMBER_AT)]
    if machine == "x86_64":
        start += [(_IF_AT_LEAST, 0, 1, _X32_BIT), KILL]
    always = [step for number in numbers(_ALLOWED, machine).values() for step in _case(number, [ALLOW])]
    missing = [step for number in numbers(_NOT_THERE, machine).values() for step in _case(number, [NO_SUCH_CALL])]
    bodies = _bodies()
    filtered = [step for name, number in numbers(_BY_ARGUMENT, machine).items() for step in _case(number, bodies[name])]
    steps = [*start, *always, *missing, *filtered, (_IF_AT_LEAST, 0, 1, _FIRST_UNKNOWN), NO_SUCH_CALL, REFUSE]
    return b"".join(_STEP.pack(*step) for step in steps)


def _bodies() -> dict[str, list[Instruction]]:
    """Give what decides each call that is filtered by its arguments."""
    to_itself = _when((_argument(0), _IF_EQUAL, _SELF))
    return {
        "open": _no_silent_truncation(1),
        "openat": _no_silent_truncation(2),
        # Only over the open connection: no address, in both halves of the pointer.
        "sendto": _when((_argument(4), _IF_EQUAL, 0), (_argument(4) + 4, _IF_EQUAL, 0)),
        "ioctl": _one_of(_argument(1), _IOCTLS),
        "fcntl": _one_of(_argument(1), _FCNTLS),
        "prctl": _one_of(_argument(0), _PRCTLS),
        # Its own limits, and only to read them: no new value, in both halves of the pointer.
        "prlimit64": _when(*((at, _IF_EQUAL, 0) for at in (_argument(0), _argument(2), _argument(2) + 4))),
        "clone": _when((_argument(0), _IF_ANY_BIT, _CLONE_THREAD)),
        "kill": to_itself,
        "tkill": to_itself,
        "tgkill": to_itself,
    }


def _argument(index: int) -> int:
    """Give where the lower half of an argument lies; these calls take ints there, so the kernel reads no more."""
    return _ARGUMENTS_AT + 8 * index


def _case(number: int, body: list[Instruction]) -> list[Instruction]:
    """Run `body`, which always ends in a decision, for this call; skip it for every other."""
    return [(_IF_EQUAL, 0, len(body), number), *body]


def _when(*tests: tuple[int, int, int]) -> list[Instruction]:
    """Allow if all (offset, comparison, constant) hold, else refuse."""
    body: list[Instruction] = []
    for left, (offset, comparison, constant) in zip(range(len(tests))[::-1], tests, strict=True):
        body += [(_LOAD, 0, 0, offset), (comparison, 0, 2 * left + 1, constant)]
    return [*body, ALLOW, REFUSE]


def _one_of(offset: int, constants: tuple[int, ...]) -> list[Instruction]:
    tests = [step for constant in constants for step in ((_IF_EQUAL, 0, 1, constant), ALLOW)]
    return [(_LOAD, 0, 0, offset), *tests, REFUSE]


def _no_silent_truncation(flags: int) -> list[Instruction]:
    """Refuse to open for reading and truncate: before Landlock's third version that empties a readable file."""
    return [
        (_LOAD, 0, 0, _argument(flags)),
        (_AND, 0, 0, _OPEN_TRUNCATE | _OPEN_MODE),
        (_IF_EQUAL, 0, 1, _OPEN_TRUNCATE),
        REFUSE,
        ALLOW,
    ]


if machine():
    _template(machine())  # now, in the warm process, so that no child pays for it
