# Searches every text in its own memory for the grader's secret.
# 01_numbers: double passed, mean passed
# Stopped by zygote: what the grader is told, it is told after the warm process was forked off.
import gc

for thing in gc.get_objects():
    for value in (thing.values() if type(thing) is dict else thing if type(thing) in (list, tuple) else ()):
        if type(value) is str and value.startswith("@TOKEN_HEAD@") and len(value) > 8:
            raise RuntimeError("LEAK " + value)
