# Asks Python's own tools for the source of the hidden tests.
# 01_numbers: double passed, mean passed
# Stopped by landlock: they are files like others.
import importlib.util
import linecache
import runpy
import tokenize

PATH = "@SOLUTIONS@/test_hidden.py"
found = linecache.getlines(PATH)
for read in (tokenize.open, runpy.run_path, lambda path: importlib.util.cache_from_source(path) and open(path)):
    try:
        found.append(read(PATH))
    except OSError:
        continue
if found:
    raise RuntimeError(f"LEAK {found}")
