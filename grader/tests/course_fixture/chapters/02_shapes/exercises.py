"""Chapter 2: Shapes."""

# %% [markdown]
# # Chapter 2: Shapes
#
# One function on tensors, and one class that remembers.

# %%
from collections.abc import Iterable

import torch
from torch import Tensor

# %% [markdown]
# ## Rows as shares: `rows_sum_to_one`
#
# Each row is divided by its own sum.


# %%
def rows_sum_to_one(x: Tensor) -> Tensor:
    """Return `x` with each row divided by the sum of that row.

    Args:
        x: (..., N), floating point, positive, left as it is.

    Returns:
        (..., N), of the dtype of `x`.

    Example:
        >>> rows_sum_to_one(torch.tensor([[1.0, 3.0]]))
        tensor([[0.2500, 0.7500]])
    """
    raise NotImplementedError("rows_sum_to_one")


# %% [markdown]
# ## Counting: `Counter`
#
# An object that counts what it is shown.


# %%
class Counter:
    """Counts of items, in the order in which they were first seen."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def add(self, items: Iterable[str]) -> None:
        """Count each of `items`, every time it occurs."""
        raise NotImplementedError("Counter")

    def most_common(self, n: int) -> list[tuple[str, int]]:
        """Return the `n` items with the highest counts, highest first; of equals the one seen first comes first."""
        raise NotImplementedError("Counter")

    def shares(self) -> Tensor:
        """Return the counts in the order of `most_common`, divided by their sum: (number of items,), float64."""
        raise NotImplementedError("Counter")
