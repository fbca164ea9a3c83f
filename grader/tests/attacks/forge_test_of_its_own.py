# Adds a test to the hidden suite that always passes.
# 01_numbers: double wrong, mean passed
# Stopped by landlock, namespaces: nothing outside the scratch folder can be written.
import contextlib
import pathlib

for name in ('solutions/01_numbers/test_hidden.py', 'solutions/01_numbers/test_extra.py', 'chapters/01_numbers/chapter.toml'):
    for mode in ("w", "a"):
        with contextlib.suppress(OSError):
            path = pathlib.Path("@FOLDER@", name)
            path.parent.mkdir(exist_ok=True)
            with path.open(mode) as file:
                file.write('def test(): pass')


def double(x):
    return None
