# Makes processes by the kernel's own calls, past the C library.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: no process can be made.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
arguments = ctypes.create_string_buffer((17).to_bytes(40, "little").rjust(88, b"\0"), 88)
for number, first, second in ((56, 17, 0), (56, 0x4111, 0), (57, 0, 0), (58, 0, 0), (435, arguments, 88)):
    if os.uname().machine == "x86_64":
        pid = libc.syscall(number, first, second, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        if pid > 0:
            raise RuntimeError("LEAK process")
