# Pins its memory, so that the machine cannot use it otherwise.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import ctypes

libc = ctypes.CDLL(None, use_errno=True)
if libc.mlockall(3) == 0 or libc.mlock(ctypes.create_string_buffer(1 << 20), 1 << 20) == 0:
    raise RuntimeError("LEAK locked")
