# Leaves messages for other students in shared memory, key rings, locks and queues.
# 01_numbers: double passed, mean passed
# Stopped by landlock + seccomp: none of these calls is allowed.
import ctypes
import fcntl
import os

libc = ctypes.CDLL(None, use_errno=True)
LEFT = [
    lambda: libc.shmget(0x1EA4, 4096, 0o1666) >= 0,
    lambda: libc.msgget(0x1EA4, 0o1666) >= 0,
    lambda: libc.semget(0x1EA4, 1, 0o1666) >= 0,
    lambda: libc.shm_open(b"/leak", os.O_CREAT | os.O_RDWR, 0o666) >= 0,
    lambda: libc.memfd_create(b"leak", 0) >= 0,
    lambda: libc.syscall(248, b"user", b"leak", b"x", 1, -5) >= 0,
    lambda: os.open("/dev/shm/leak", os.O_CREAT | os.O_RDWR),
    lambda: fcntl.flock(os.open("/usr/lib", os.O_RDONLY), fcntl.LOCK_EX) is None,
]
for index, leave in enumerate(LEFT):
    try:
        if leave():
            raise RuntimeError(f"LEAK {index}")
    except OSError:
        pass
