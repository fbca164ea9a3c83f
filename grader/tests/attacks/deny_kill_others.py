# Sends signals to its parent, the grader, its group and everybody.
# 01_numbers: double passed, mean passed
# Stopped by seccomp: a process can signal itself alone.
import contextlib
import os
import signal

for process in (os.getppid(), int("@PID@"), -1, 0, 1, -int("@PID@")):
    for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
        with contextlib.suppress(OSError):
            os.kill(process, number)
