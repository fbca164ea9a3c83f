# Lists the folders in which something worth reading could lie.
# 01_numbers: double passed, mean passed
# Stopped by landlock: folders that are not named cannot be listed.
import os

for folder in ("/", "/root", "/home", "/tmp", "/proc", "/etc", "@FOLDER@", "@OUT@"):
    try:
        found = os.listdir(folder)
    except OSError:
        continue
    raise RuntimeError(f"LEAK {found}")
