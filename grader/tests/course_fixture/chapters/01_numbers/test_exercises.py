"""Self-checks of chapter 1: worked examples."""

from grader.testing import close, exact, exercise


@exercise("double")
def test_double_of_a_whole_number(exercises):
    """Twice 3 is 6."""
    exact(exercises.double(3), 6, "double(3)")


@exercise("double")
def test_double_keeps_the_sign(exercises):
    """Twice a negative number is negative."""
    close(exercises.double(-0.5), -1.0, "double(-0.5)")


@exercise("mean", weight=2)
def test_mean_of_two(exercises):
    """The mean of two numbers lies halfway between them."""
    close(exercises.mean([1.0, 2.0]), 1.5, "mean([1.0, 2.0])")


@exercise("mean")
def test_mean_of_equal_numbers(exercises):
    """The mean of equal numbers is that number."""
    close(exercises.mean([4.0, 4.0, 4.0]), 4.0, "mean([4.0, 4.0, 4.0])")
