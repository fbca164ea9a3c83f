"""Right answers of chapter 1 written in other styles."""

from fractions import Fraction

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


@alternative("double", "the number plus itself")
def by_adding(x):
    return x + x


@alternative("mean", "exact fractions until the end")
def by_fractions(xs):
    if len(xs) == 0:
        raise ValueError("there are no numbers")
    return float(sum(map(Fraction, xs)) / len(xs))


@alternative("mean", "the total by the reference's own double")
def by_doubling(xs):
    return reference.double(reference.mean(xs)) / 2
