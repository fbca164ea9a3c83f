# Asks the kernel for files and sockets through io_uring, past the filter of system calls.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import ctypes

if ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0:
    raise RuntimeError("LEAK ring")
