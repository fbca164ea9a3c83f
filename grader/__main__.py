"""Run the command line as `python -m grader`."""

import sys

from grader.cli import main

if __name__ == "__main__":  # workers are spawned, and import this module again
    sys.exit(main())
