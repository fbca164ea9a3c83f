# Reads the hidden tests, the solution and a secret by their paths.
# 01_numbers: double passed, mean passed
# Stopped by landlock: files that are not named cannot be read.
import os

for folder, _, names in [("@SOLUTIONS@", [], ["test_hidden.py", "exercises.py", "secret.txt"]), *os.walk("@FOLDER@")]:
    for name in names:
        try:
            with open(os.path.join(folder, name)) as file:
                stolen = file.read()
        except OSError:
            continue
        raise RuntimeError("LEAK " + stolen)
