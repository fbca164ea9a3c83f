# Asks for another Python in the middle of the file.
# 01_numbers: double error, mean error
# Stopped by agent: what cannot be compiled is an error.
from __future__ import braces
