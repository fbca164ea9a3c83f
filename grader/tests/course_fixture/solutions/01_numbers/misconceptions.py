"""Typical wrong answers of chapter 1."""

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


@misconception("double", "You multiply the number by itself; double is the number plus itself.")
def squares(x):
    return x * x


@misconception("double", "You add two; double is the number times two.")
def adds_two(x):
    return x + 2


@misconception("double", "You cut off the fraction before doubling; leave the number as it is.")
def drops_the_fraction(x):
    return 2 * int(x)


@misconception("mean", "You divide by one less than the count; that belongs to the variance of a sample.")
def divides_by_one_less(xs):
    if not xs:
        raise ValueError
    return sum(xs) / max(len(xs) - 1, 1)


@misconception("mean", "You divide with //, which cuts off the fraction; use / to keep it.")
def divides_whole(xs):
    if not xs:
        raise ValueError
    return sum(xs) // len(xs)


@misconception("mean", "You give 0 for an empty list; the docstring asks for a ValueError.")
def empty_is_zero(xs):
    return reference.mean(xs) if xs else 0.0
