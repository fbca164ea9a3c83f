"""What the author of a test imports."""

from grader.testing.alternatives import alternative
from grader.testing.compare import close, exact, holds, roughly, same_distribution
from grader.testing.figures import mirror, shown
from grader.testing.loading import dataset, reference_of
from grader.testing.misconceptions import misconception
from grader.testing.oracles import numerical_gradient
from grader.testing.tools import counting, driver, exercise, pure, stand_in

__all__ = [
    "alternative",
    "close",
    "counting",
    "dataset",
    "driver",
    "exact",
    "exercise",
    "holds",
    "mirror",
    "misconception",
    "numerical_gradient",
    "pure",
    "reference_of",
    "roughly",
    "same_distribution",
    "shown",
    "stand_in",
]
