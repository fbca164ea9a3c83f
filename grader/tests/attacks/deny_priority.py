# Takes every processor for itself, and the right to be served first.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: none of these calls is allowed.
import contextlib
import os

for attempt in (
    lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    lambda: os.sched_setaffinity(0, range(64)),
    lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99)),
    lambda: os.nice(-20),
):
    with contextlib.suppress(OSError):
        attempt()
        raise RuntimeError("LEAK priority")
