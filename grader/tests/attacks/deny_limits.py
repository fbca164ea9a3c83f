# Raises its own limits, and asks for a core dump of what it was given.
# 01_numbers: double crashed, mean passed
# Stopped by seccomp: limits can be read and not set.
import contextlib
import os
import resource

for kind in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        raise RuntimeError("LEAK limit")


def double(x):
    os.abort()
