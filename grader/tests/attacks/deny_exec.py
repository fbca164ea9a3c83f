# Becomes another program, or starts one.
# 01_numbers: double error, mean error
# Stopped by seccomp: nothing can be executed.
import os
import subprocess


def double(x):
    os.execv("/bin/sh", ["sh", "-c", "sleep 600"])


def mean(xs):
    return subprocess.run(["/bin/true"], check=True)
