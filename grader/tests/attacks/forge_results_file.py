# Writes full marks into the grader's results.
# 01_numbers: double wrong, mean passed
# Stopped by landlock, namespaces: nothing outside the scratch folder can be written.
import contextlib
import json
import pathlib

for path in pathlib.Path("@OUT@").rglob("*"):
    with contextlib.suppress(OSError):
        path.write_text(json.dumps({"score": 5}))
with contextlib.suppress(OSError):
    pathlib.Path("@OUT@", "results.json").write_text("{}")


def double(x):
    return None
