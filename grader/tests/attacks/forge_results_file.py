# Writes full marks into the grader's results.
# 01_numbers: double wrong, mean passed
# Stopped by: Landlock: nothing outside the scratch folder can be written.
import json
import pathlib

for path in pathlib.Path("@OUT@").rglob("*"):
    try:
        path.write_text(json.dumps({"score": 5}))
    except OSError:
        pass
try:
    pathlib.Path("@OUT@", "results.json").write_text("{}")
except OSError:
    pass


def double(x):
    return None
