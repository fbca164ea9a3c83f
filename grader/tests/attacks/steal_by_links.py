# Links the hidden tests into its own folder and reads them there.
# 01_numbers: double passed, mean passed
# Stopped by landlock: no link can be made, and none leads out.
import contextlib
import os

for make in (os.symlink, os.link):
    with contextlib.suppress(OSError):
        make("@SOLUTIONS@/test_hidden.py", make.__name__)
        with open(make.__name__) as file:
            raise RuntimeError("LEAK " + file.read())
