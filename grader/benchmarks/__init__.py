"""What grading costs, as ratios measured in one run: `python -m grader.benchmarks`."""
