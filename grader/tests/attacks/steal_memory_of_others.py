# Reads the grader's memory through /proc, ptrace and process_vm_readv.
# 01_numbers: double passed, mean passed
# Stopped by landlock + seccomp: there is no /proc, and neither call is allowed.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)
buffer = ctypes.create_string_buffer(8)


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


here, there = Part(ctypes.addressof(buffer), 8), Part(id(None), 8)
for process in (int("@PID@"), os.getppid(), 1):
    for name in ("maps", "mem", "cmdline", "fd", "cwd", "root/etc/passwd"):
        try:
            os.open(f"/proc/{process}/{name}", os.O_RDONLY)
        except OSError:
            continue
        raise RuntimeError(f"LEAK {name}")
    for request in (16, 0x4206):
        if libc.ptrace(request, process, None, None) == 0:
            raise RuntimeError("LEAK ptrace")
    if libc.process_vm_readv(process, ctypes.byref(here), 1, ctypes.byref(there), 1, 0) > 0:
        raise RuntimeError("LEAK process_vm_readv")
