# Changes, empties, renames, links and removes a file outside.
# 01_numbers: double passed, mean passed
# Stopped by namespaces, landlock + seccomp: the rest of the machine is read-only, or out of reach with what changes files by path.
import contextlib
import os
import shutil

for path in ("@OUTSIDE@", "@SOLUTIONS@/secret.txt"):
    for attempt in (
        lambda path: os.chmod(path, 0),
        lambda path: os.chown(path, 1, 1),
        lambda path: os.utime(path, (1, 1)),
        lambda path: os.truncate(path, 0),
        lambda path: os.rename(path, path + ".old"),
        lambda path: os.link(path, "linked"),
        lambda path: os.symlink("/etc/passwd", path + ".link"),
        lambda path: os.setxattr(path, "user.leak", b"x"),
        lambda path: os.mkfifo(path + ".fifo"),
        lambda path: os.unlink(path),
        lambda path: shutil.rmtree(os.path.dirname(path)),
        lambda path: open(path, "w").close(),
    ):
        with contextlib.suppress(OSError):
            attempt(path)
