"""What the figure of chapter 21 computes and says, held against the reference."""

import math

import numpy as np
import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
NEEDS = range(1, 13)


def accuracy(step, check, guess, needs, steps):
    """Give the accuracy after so many steps, from powers of the matrix that spoils and mends."""
    change = np.array([[step, 1 - step], [check, 1 - check]])  # from (right, wrong) to (right, wrong)
    after = [
        guess
        if steps < need
        else float((np.array([step**need, 1 - step**need]) @ np.linalg.matrix_power(change, steps - need))[0])
        for need in needs
    ]
    return sum(after) / len(needs)


@mirror("thinking")
def thinking(rng):
    step, check, guess = rng.uniform(3).tolist()
    needs = rng.integers(0, 9, 5).tolist()
    return [step, check, guess, needs, 15], [accuracy(step, check, guess, needs, steps) for steps in range(16)]


@mirror("answer")
def answer(rng):
    draws = rng.uniform(50)
    ends = torch.tensor([0.3, 0.4, 0.1, 0.1, 0.1], dtype=torch.float64).cumsum(0)
    return [draws, 0.3, 0.4, 3], torch.bucketize(draws, ends, right=True).clamp(max=4)


@mirror("vote")
def vote(rng):
    answers, scores = rng.integers(0, 5, 12).tolist(), (8 * rng.uniform(12)).round() / 8
    return [answers, scores], int(reference.weighted_vote([str(a) for a in answers], scores.tolist()))


@mirror("vote")
def majority(rng):
    answers = rng.integers(0, 4, 9).tolist()
    return [answers, [1] * 9], int(reference.weighted_vote([str(a) for a in answers], [1.0] * 9))


@mirror("bestOf")
def best_of(rng):
    answers, scores = rng.integers(0, 5, 12).tolist(), (8 * rng.uniform(12)).round() / 8
    return [answers, scores], reference.best_of_n(list(zip(answers, scores.tolist(), strict=True)), lambda s: s[1])[0]


@mirror("passAt")
def pass_at(rng):
    p, n = float(rng.uniform(1)), int(rng.integers(1, 20))
    return [p, n], sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(1, n + 1))


def drawn(seed):
    """Draw uniform numbers as the kit does."""
    state = ((seed * 2654435761) ^ 0x5BD1E995) & 0xFFFFFFFF
    while True:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield state / 2**32


def judged(n, noise):
    """Let each judge choose among n solutions, in the blocks of the figure, and count how often it is right."""
    source, won = drawn(21), np.zeros(3)

    def normal():
        u = next(source)
        return math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * next(source))

    ends = np.cumsum([0.3, 0.4, *[0.03] * 10])
    for _ in range(400):
        answers = [min(11, int(np.searchsorted(ends, next(source), side="right"))) for _ in range(64)]
        scores = [min(1.0, max(0.0, (0.4 if a else 0.65) + noise * normal())) for a in answers]
        for start in range(0, 64, n):
            names, marks = [str(a) for a in answers[start : start + n]], scores[start : start + n]
            best = names[reference.best_of_n(range(n), marks.__getitem__)]
            votes = reference.weighted_vote(names, marks), reference.weighted_vote(names, [1.0] * n)
            won += [name == "0" for name in (best, *votes)]
    return won * n / 64 / 400


@shown(n=2, noise=0.4)
def four_solutions():
    best, weighted, majority = judged(4, 0.4)
    judges = f"best by the scorer {best:.2f}, weighted vote {weighted:.2f}, majority {majority:.2f}."
    return f"With N = 4 solutions: at least one is right {1 - 0.7**4:.2f}, {judges}"


@shown(budget=30, check=0)
def longer_is_not_better():
    curve = [accuracy(0.95, 0, 0.1, NEEDS, steps) for steps in range(61)]
    top = int(np.argmax(curve))
    return f"After 30 steps of thinking the accuracy is {curve[30]:.2f}; it is highest, {curve[top]:.2f}, after {top}."
