# Makes a folder in a folder, and so on, deeper than who removes them can follow.
# 01_numbers: double output, mean passed
# Stopped by namespaces, landlock + session: the scratch folder is small, or the controller looks how much it holds.
import os


def double(x):
    while True:
        os.mkdir("deeper")
        os.chdir("deeper")
