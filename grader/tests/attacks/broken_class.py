# Is a class where a function is asked for.
# 01_numbers: double wrong, mean passed
# Stopped by comparison: an object of a class is a handle and equals no number.
class double:
    def __init__(self, x):
        self.value = 2 * x
