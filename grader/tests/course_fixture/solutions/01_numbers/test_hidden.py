"""The hidden suite of chapter 1."""

import pytest

from grader.testing import close, exact, exercise, pure


@exercise("double")
def test_double_of_whole_numbers(exercises):
    """Whole numbers are doubled and stay whole."""
    for x in (-7, 0, 1, 5):
        exact(exercises.double(x), x + x, f"double({x})")


@exercise("double", weight=2)
def test_double_of_fractions(exercises, rng):
    """Fractions are doubled without rounding."""
    for x in rng.normal(3).tolist():
        close(exercises.double(x), x + x, f"double({x})")


@exercise("mean")
def test_mean_shares_the_total(exercises, rng):
    """The mean times the count is the total."""
    xs = rng.normal(7).tolist()
    close(exercises.mean(xs) * 7, sum(xs), "7 * mean(7 numbers)")


@exercise("mean")
def test_mean_of_whole_numbers_keeps_the_fraction(exercises):
    """The mean of whole numbers need not be whole."""
    close(exercises.mean([1, 2, 6, 6]), 3.75, "mean([1, 2, 6, 6])")


@exercise("mean")
def test_mean_of_nothing(exercises):
    """The mean of an empty list raises ValueError."""
    with pytest.raises(ValueError):
        exercises.mean([])


@exercise("mean")
def test_mean_leaves_its_input(exercises):
    """The list that was given is not changed."""
    close(pure(exercises.mean, [3.0, 1.0, 2.5]), 6.5 / 3, "mean([3.0, 1.0, 2.5])")
