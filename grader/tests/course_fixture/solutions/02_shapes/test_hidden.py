"""The hidden suite of chapter 2."""

import torch

from grader.testing import close, exact, exercise, pure


@exercise("rows_sum_to_one")
def test_rows_of_a_matrix(exercises, rng):
    """Each row is divided by its own sum."""
    x = rng.uniform(3, 5) + 0.5
    got = pure(exercises.rows_sum_to_one, x)
    close(got * x.sum(1)[:, None], x, "rows_sum_to_one of a (3, 5) tensor, times the sums")


@exercise("rows_sum_to_one")
def test_rows_below_leading_axes(exercises, rng):
    """Leading axes are kept and rows stay apart."""
    x = rng.uniform(2, 3, 4) + 0.5
    expected = torch.stack([torch.stack([row / sum(row.tolist()) for row in block]) for block in x])
    close(exercises.rows_sum_to_one(x), expected, "rows_sum_to_one of a (2, 3, 4) tensor")


@exercise("Counter")
def test_counter_adds_up(exercises):
    """Counts of several calls of add are added up."""
    counter = exercises.Counter()
    counter.add(["a", "b"])
    counter.add(["c", "b", "b"])
    exact(counter.most_common(2), [("b", 3), ("a", 1)], "most_common(2) after a, b and c, b, b")


@exercise("Counter")
def test_counter_ties(exercises):
    """Of items with equal counts the one seen first comes first."""
    counter = exercises.Counter()
    counter.add(["z", "a", "m", "m"])
    exact(counter.most_common(3), [("m", 2), ("z", 1), ("a", 1)], "most_common(3) after z, a, m, m")


@exercise("Counter")
def test_counters_are_apart(exercises):
    """Two counters share nothing."""
    first, second = exercises.Counter(), exercises.Counter()
    first.add(["a"])
    exact(second.most_common(1), [], "most_common(1) of a counter that was shown nothing")


@exercise("Counter", weight=2)
def test_counter_shares(exercises):
    """Shares are sorted like most_common and sum to one."""
    counter = exercises.Counter()
    counter.add(["a", "b", "b", "b", "c", "c"])
    close(counter.shares(), torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64) / 6, "shares() after a, b, b, b, c, c")
