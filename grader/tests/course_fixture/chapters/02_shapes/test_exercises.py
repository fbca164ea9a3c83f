"""Self-checks of chapter 2: worked examples and the law that teaches."""

import torch

from grader.testing import close, exact, exercise


@exercise("rows_sum_to_one")
def test_rows_sum_to_one_on_paper(exercises):
    """The row 1, 3 becomes a quarter and three quarters."""
    close(
        exercises.rows_sum_to_one(torch.tensor([[1.0, 3.0]])), torch.tensor([[0.25, 0.75]]), "rows_sum_to_one([[1, 3]])"
    )


@exercise("rows_sum_to_one")
def test_rows_sum_to_one_law(exercises, rng):
    """Every row of the result sums to one."""
    x = rng.uniform(3, 4) + 0.5
    close(exercises.rows_sum_to_one(x).sum(-1), torch.ones(3, dtype=x.dtype), "the sums of 3 rows")


@exercise("Counter")
def test_counter_counts(exercises):
    """The item that was added most often comes first."""
    counter = exercises.Counter()
    counter.add(["a", "b", "b"])
    exact(counter.most_common(1), [("b", 2)], "most_common(1) after a, b, b")


@exercise("Counter")
def test_counter_shares(exercises):
    """Two of three items are a share of two thirds."""
    counter = exercises.Counter()
    counter.add(["a", "b", "b"])
    close(counter.shares(), torch.tensor([2.0, 1.0], dtype=torch.float64) / 3, "shares() after a, b, b")
