# Asks for another user, more rights, and a root of its own.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import contextlib
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
for attempt in (
    lambda: os.setuid(0), lambda: os.setresuid(1, 1, 1), lambda: os.setgroups([0]), lambda: os.chroot("."),
    lambda: os.setns(0) if hasattr(os, "setns") else 1 / 0,
):
    with contextlib.suppress(OSError, ZeroDivisionError):
        attempt()
        raise RuntimeError("LEAK rights")
if libc.capset(ctypes.create_string_buffer(8), ctypes.create_string_buffer(24)) == 0 or libc.prctl(4, 1, 0, 0, 0) == 0:
    raise RuntimeError("LEAK rights")
