# Makes namespaces and mounts of its own to get rights in them.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x10000000) == 0 or libc.mount(b"none", b".", b"tmpfs", 0, None) == 0:
    raise RuntimeError("LEAK namespace")
