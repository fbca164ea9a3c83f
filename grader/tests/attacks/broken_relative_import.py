# Imports from a package that it is not part of.
# 01_numbers: double error, mean error
# Stopped by agent: what fails while the file is loaded is an error.
from . import helpers
