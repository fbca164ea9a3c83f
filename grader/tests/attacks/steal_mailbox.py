# Leaves a note where another student's process could find it.
# 01_numbers: double passed, mean passed
# Stopped by landlock, namespaces: the one folder that can be written is gone with the process.
import contextlib
import os

for folder in ("@FOLDER@", "@OUT@", "/dev/shm", "/var/tmp", os.path.dirname(os.getcwd())):
    path = os.path.join(folder, "leak")
    with contextlib.suppress(OSError):
        open(path, "x").close()
        raise RuntimeError(f"LEAK {path}")
