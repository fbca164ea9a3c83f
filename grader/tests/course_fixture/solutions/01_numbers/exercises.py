"""Chapter 1: Numbers."""

# %% [markdown]
# # Chapter 1: Numbers
#
# Two small functions. The notes say why they matter.

# %%
from collections.abc import Sequence

# %%
NO_NUMBERS = "the mean of no numbers is not defined"

# %% [markdown]
# ## Twice a number: `double`
#
# The smallest exercise there is.


# %%
def double(x: float) -> float:
    """Return twice `x`.

    Args:
        x: any int or float.

    Returns:
        A number of the same type.

    Example:
        >>> double(3)
        6
    """
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION


# %% [markdown]
# ## The average: `mean`
#
# The total, shared out evenly.


# %%
def mean(xs: Sequence[float]) -> float:
    """Return the arithmetic mean of `xs`.

    Args:
        xs: a list of int or float, left as it is.

    Returns:
        A float.

    Raises:
        ValueError: if `xs` is empty.

    Example:
        >>> mean([1, 2])
        1.5
    """
    ### BEGIN SOLUTION
    if not xs:
        raise ValueError(NO_NUMBERS)
    return sum(xs) / len(xs)
    ### END SOLUTION
