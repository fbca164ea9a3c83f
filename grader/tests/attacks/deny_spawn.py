# Starts a shell by the C library's short way.
# 01_numbers: double error, mean error
# Stopped by seccomp: no process can be made.
import os


def double(x):
    return os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 600"], {})


def mean(xs):
    return os.popen("sleep 600").read()
