# Opens files by the kernel's numbers for them, past all paths.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
handle, mount = ctypes.create_string_buffer(b"\x80\0\0\0", 136), ctypes.c_int()
if libc.name_to_handle_at(-100, b"@SOLUTIONS@/secret.txt", handle, ctypes.byref(mount), 0) == 0:
    raise RuntimeError(f"LEAK {handle.raw}")
here = os.open(".", os.O_PATH)
if libc.open_by_handle_at(here, handle, os.O_RDONLY) >= 0:
    raise RuntimeError("LEAK handle")
