"""The student's desk: where am I, is it right, what next; text alone until a test has to run."""
