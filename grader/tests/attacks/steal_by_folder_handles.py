# Climbs out of its folder by handles of folders instead of paths.
# 01_numbers: double passed, mean passed
# Stopped by landlock: the rules hold for files, whatever way leads to them.
import os

here = os.open(".", os.O_PATH)
for steps in range(1, 12):
    for target in ("@SOLUTIONS@/secret.txt".lstrip("/"), "etc/passwd"):
        try:
            found = os.read(os.open("../" * steps + target, os.O_RDONLY, dir_fd=here), 100)
        except OSError:
            continue
        raise RuntimeError(f"LEAK {found}")
