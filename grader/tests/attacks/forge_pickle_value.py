# Returns an object that runs a command when it is unpickled.
# 01_numbers: double wrong, mean passed
# Stopped by wire: nothing of a student's is ever unpickled; the object stays behind.
import os


class Payload:
    def __reduce__(self):
        return os.system, ("touch @FOLDER@/pickled",)


def double(x):
    return Payload()
