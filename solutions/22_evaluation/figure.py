"""What the figure of chapter 22 computes and says, held against the reference."""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
POINTS = 400 / math.log(10)
Z = NormalDist().inv_cdf(0.975)


@mirror("eloPath")
def elo_path(rng):
    results, k = rng.integers(0, 3, 12).double() / 2, float(rng.integers(8, 40))
    ratings, path = (1500.0, 1500.0), []
    for score in results.tolist():
        ratings = reference.elo_update(*ratings, score, k)
        path.append(ratings[0] - ratings[1])
    return [results, k], path


@mirror("bradleyTerry")
def bradley_terry(rng):
    wins, losses = int(rng.integers(1, 90)), int(rng.integers(1, 90))
    return [wins, losses], difference(wins, losses)


@mirror("bradleyTerry")
def bradley_terry_with_a_penalty_and_no_loss(rng):
    wins = int(rng.integers(3, 30))
    r = reference.fit_bradley_terry(torch.tensor([[0.0, wins], [0.0, 0.0]]), l2=0.5)
    return [wins, 0, 0.5], (r[0] - r[1]).item()


@mirror("bootstrap")
def bootstrap(rng):
    results = [1.0] * 22 + [0.0] * 18
    seed, n_boot = int(rng.integers(0, 1000)), 30
    table = reference.leaderboard_ci([("a", "b", s) for s in results], n_boot, torch.Generator().manual_seed(seed))
    low, high = next((2 * low, 2 * high) for name, _, low, high in table if name == "a")
    again = torch.Generator().manual_seed(seed)
    draws = [torch.randint(len(results), (len(results),), generator=again) for _ in range(n_boot)]
    return [results, draws], [low, high]


@mirror("margin")
def margin(rng):
    n, right = int(rng.integers(20, 500)), int(rng.integers(1, 20))
    scores = np.arange(n) < right
    return [right / n, n], Z * scores.std() / n**0.5


@mirror("pairedMargin")
def paired_margin(rng):
    n = int(rng.integers(50, 500))
    first = (rng.uniform(n) < 0.7).numpy()
    second = np.where(rng.uniform(n).numpy() < 0.2, ~first, first)
    gaps = first.astype(float) - second
    return [(first != second).mean(), gaps.mean(), n], Z * gaps.std() / n**0.5


def difference(wins: int, losses: int) -> float:
    """Give the rating of a model that won and lost so often against one other, less the rating of that one."""
    r = reference.fit_bradley_terry(torch.tensor([[0, wins], [losses, 0]]))
    return (r[0] - r[1]).item()


def uniform(seed: int) -> Iterator[float]:
    """Give the kit's uniform random numbers."""
    state = (seed * 2654435761 & 0xFFFFFFFF) ^ 0x5BD1E995
    while True:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield state / 2**32


def battles(n: int, seed: int) -> list[int]:
    """Give the scores of the figure's tournament."""
    draw = uniform(seed)
    return [int(next(draw) < 1 / (1 + 10 ** (-70 / 400))) for _ in range(n)]


def verdict(results: list[int]) -> str:
    """Say how Elo and Bradley-Terry rate battles in this order."""
    ratings = (1500.0, 1500.0)
    for score in results:
        ratings = reference.elo_update(*ratings, score)
    won, n = sum(results), len(results)
    elo, fitted = ratings[0] - ratings[1], POINTS * difference(won, n - won)
    return f"A won {won} of {n} battles: Elo ends at {signed(elo)}, Bradley-Terry says {signed(fitted)} in any order"


def signed(value: float) -> str:
    """Give whole points with a sign."""
    return f"{value:+.0f}".replace("-", "−")


@shown(battles=100, order="came", seed=1)
def a_hundred_battles():
    return verdict(battles(100, 1))


@shown(battles=400, order="last", seed=4)
def the_wins_last():
    return verdict(sorted(battles(400, 4)))


@shown(battles=400, order="first", seed=4)
def the_wins_first():
    return verdict(sorted(battles(400, 4), reverse=True))


@shown(questions=2, lead=0.4, differ=15)
def two_questions_of_five_hundred():
    single, paired = (100 * Z * math.sqrt(x / 500) for x in (0.712 * 0.288, 0.15 - 0.004**2))
    return (
        f"With 500 questions each accuracy is known to within {single:.1f} points, "
        f"the lead of 0.4 to within {paired:.1f}: who is better stays open."
    )


@shown(questions=2, lead=4.8, differ=15)
def a_larger_lead():
    return "the first model is better."
