# Asks politely to end with success while the file is loaded.
# 01_numbers: double error, mean error
# Stopped by agent: the agent answers SystemExit like any other exception.
import sys

sys.exit(0)
