# Turns its module into an object that lies about its own parts.
# 01_numbers: double wrong, mean passed
# Stopped by comparison: what is found under the name is called and compared.
import sys
import types


class Lying(types.ModuleType):
    def __getattribute__(self, name):
        return (lambda *args: "right") if name == "double" else super().__getattribute__(name)


sys.modules[__name__].__class__ = Lying
