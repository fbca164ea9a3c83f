# Makes empty files and folders until there is no room for another name.
# 01_numbers: double output, mean passed
# Stopped by namespaces, landlock + session: the scratch folder is small, or the controller looks how much it holds.
import os


def double(x):
    for number in range(10**6):
        os.mkdir(f"folder{number}", 0)
