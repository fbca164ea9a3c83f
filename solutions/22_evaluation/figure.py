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


def fights(rng, models, n):
    """Give random battles (a, b, score of a)."""
    firsts, steps = rng.integers(0, models, n), rng.integers(1, models, n)
    scores = rng.integers(0, 3, n).double() / 2
    return [(int(a), int(a + step) % models, s.item()) for a, step, s in zip(firsts, steps, scores, strict=True)]


def elo_after(battles, models, k=32):
    """Give the Elo ratings after all battles, less the rating at the start."""
    ratings = [1500.0] * models
    for a, b, score in battles:
        ratings[a], ratings[b] = reference.elo_update(ratings[a], ratings[b], score, k)
    return [r - 1500 for r in ratings]


@mirror("eloTable")
def elo_table(rng):
    battles = fights(rng, 5, 30)
    return [battles, 5, 24], elo_after(battles, 5, 24)


@mirror("ratings")
def ratings(rng):
    wins = rng.integers(0, 9, 5, 5).double().fill_diagonal_(0)
    wins[1] += 1 - torch.eye(5)[1]
    wins[:, 1] += 1 - torch.eye(5)[1]
    return [wins, 0.01], reference.fit_bradley_terry(wins, 0.01)


@mirror("leaderboard")
def leaderboard(rng):
    battles, seed, n_boot = fights(rng, 4, 80), int(rng.integers(0, 1000)), 20
    rows = reference.leaderboard_ci(
        [(f"m{a}", f"m{b}", s) for a, b, s in battles], n_boot, torch.Generator().manual_seed(seed)
    )
    again = torch.Generator().manual_seed(seed)
    draws = [torch.randint(len(battles), (len(battles),), generator=again) for _ in range(n_boot)]
    return [battles, 4, draws], [list(row[1:]) for row in sorted(rows)]


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


@shown(panel="two", battles=100, order="came", seed=1)
def a_hundred_battles():
    return verdict(battles(100, 1))


@shown(panel="two", battles=400, order="last", seed=4)
def the_wins_last():
    return verdict(sorted(battles(400, 4)))


@shown(panel="two", battles=400, order="first", seed=4)
def the_wins_first():
    return verdict(sorted(battles(400, 4), reverse=True))


@shown(panel="scores", questions=2, lead=0.4, differ=15)
def two_questions_of_five_hundred():
    single, paired = (100 * Z * math.sqrt(x / 500) for x in (0.712 * 0.288, 0.15 - 0.004**2))
    return (
        f"With 500 questions each accuracy is known to within {single:.1f} points, "
        f"the lead of 0.4 to within {paired:.1f}: who is better stays open."
    )


@shown(panel="scores", questions=2, lead=4.8, differ=15)
def a_larger_lead():
    return "the first model is better."


def fought(n, models, seed):
    """Give the battles of the figure's arena."""
    strengths, draw = [100, 70, 50, 20, 0, -30, -80, -160][:models], uniform(seed)
    battles = []
    for _ in range(n):
        a, other = int(next(draw) * models), int(next(draw) * (models - 1))
        b = other + (other >= a)
        battles.append((a, b, float(next(draw) < 1 / (1 + 10 ** ((strengths[b] - strengths[a]) / 400)))))
    return battles


def rated(battles, models):
    """Give the Bradley-Terry ratings of all models, in points."""
    wins = torch.zeros(models, models, dtype=torch.float64)
    for a, b, score in battles:
        wins[a, b] += score
        wins[b, a] += 1 - score
    return POINTS * reference.fit_bradley_terry(wins)


def arena(n, models, seed):
    """Say who leads in the arena, and with whose interval its own overlaps."""
    battles, draw = fought(n, models, seed), uniform(99)
    again = torch.stack([rated([battles[int(next(draw) * n)] for _ in range(n)], models) for _ in range(100)])
    low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
    ratings, elo = rated(battles, models), elo_after(battles, models)
    order = ratings.argsort(descending=True).tolist()
    best = order[0]
    names = "ABCDEFGH"
    close = ", ".join(names[i] for i in order[1:] if high[i] > low[best]) or "none"
    rating = f"{signed(ratings[best])} ({signed(low[best])} to {signed(high[best])})"
    return (
        f"After {n:,} battles of {models} models Bradley-Terry puts {names[best]} first, at {rating}. "
        f"Intervals that overlap with this one: {close}. Elo puts {names[elo.index(max(elo))]} first"
    )


@shown(panel="many", fights=1, models=6, seed=1)
def an_arena():
    return arena(200, 6, 1)


@shown(panel="many", fights=5, models=4, seed=2)
def an_arena_of_many_battles():
    return arena(3200, 4, 2)
