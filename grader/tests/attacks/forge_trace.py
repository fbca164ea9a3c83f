# Watches every line that runs, in search of an expected value.
# 01_numbers: double wrong, mean passed
# Stopped by boundary: no expected value ever enters the student's process.
import sys

seen = {}


def watch(frame, event, argument):
    seen.update({k: v for k, v in frame.f_locals.items() if k in ("expected", "want")})
    return watch


sys.settrace(watch)


def double(x):
    return seen.get("expected")
