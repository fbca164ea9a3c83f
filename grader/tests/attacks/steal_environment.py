# Reads secrets from environment variables, its own and other processes'.
# 01_numbers: double passed, mean passed
# Stopped by landlock + zygote: the warm process is started with a clean environment; /proc is out of reach.
import ctypes
import os

found = "\n".join(f"{key}={value}" for key, value in os.environ.items())
get = ctypes.CDLL(None).getenv
get.restype = ctypes.c_char_p
found += str(get(b"GRADER_CANARY"))
for process in ("self", "@PID@", os.getppid(), 1):
    try:
        with open(f"/proc/{process}/environ") as file:
            found += file.read()
    except OSError:
        pass
if "@TOKEN_HEAD@" in found:
    raise RuntimeError("LEAK " + found)
