# Starts a pool of processes.
# 01_numbers: double error, mean passed
# Stopped by seccomp: no process can be made.
import multiprocessing


def double(x):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [x])
