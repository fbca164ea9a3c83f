# Looks for open files of the grader that the process may have inherited.
# 01_numbers: double passed, mean passed
# Stopped by process: every open file but the process's own socket is closed.
import os
import stat

kept = []
for fd in range(3, 4096):
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    kept.append((fd, stat.S_ISSOCK(mode)))
if len(kept) != 1 or not kept[0][1] or os.read(0, 1):
    raise RuntimeError(f"LEAK {kept}")
