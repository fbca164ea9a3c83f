# %% [markdown]
# # Chapter 5: Positions
#
# Seven exercises. By the end you have written the five ways in which language models learn where a token stands, and
# an instrument that shows that without them order does not exist. The teaching is in the notes (`README.md`); here
# stand only the promises that each function must keep.
#
# Conventions of this chapter: positions count from 0. Every table that a function builds is **float64**; it is rounded
# to the dtype of the model where it is used, and no earlier. Axes are named B batch, T tokens or queries, S keys,
# D model width, H heads, hd width of a head.

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

# %% [markdown]
# **Given: the barest attention there is.** Each token of `x` (T, D) compares itself with every token by a dot product
# and takes a weighted mean of all of them. `bias` is added to the (T, T) scores. Chapter 6 builds the real thing;
# this one is for trying your functions on, for example in `equivariance_gap`.


# %%
def attend(x, bias=0.0):
    """Mix the tokens of x (T, D), weighted by the softmax of x x^T / sqrt(D) + bias."""
    scores = x @ x.T / math.sqrt(x.shape[-1]) + bias  # (T, T)
    return torch.softmax(scores, dim=-1) @ x  # (T, D)


# %% [markdown]
# ## 5.1 sinusoidal_positions
#
# A clock with many hands: each pair of columns is a hand that turns at its own speed.


# %%
def sinusoidal_positions(T: int, D: int, base: float = 10000.0) -> Tensor:
    """Build the table of sines and cosines that tells T positions apart.

    Args:
        T: number of positions, at least 1; row t of the table is for position t, and the first is 0.
        D: width of a row; even.
        base: sets the slowest speeds; at least 1.

    Returns:
        (T, D) float64: entry [t, 2i] is sin(t * w_i) and entry [t, 2i + 1] is cos(t * w_i), w_i = base^(-2i / D).

    Raises:
        ValueError: if D is odd.

    Example:
        >>> sinusoidal_positions(3, 4, base=100.0)
        tensor([[ 0.0000,  1.0000,  0.0000,  1.0000],
                [ 0.8415,  0.5403,  0.0998,  0.9950],
                [ 0.9093, -0.4161,  0.1987,  0.9801]], dtype=torch.float64)

    Notes:
        Sines and cosines alternate; they do not stand in two blocks. The exponent runs over 0, 2/D, 4/D, ... and stays
        below 1. Compute the angles in float64: in float32 those of late positions lose their last digits.
    """
    raise NotImplementedError("sinusoidal_positions")


# %% [markdown]
# ## 5.2 LearnedPositions
#
# No formula: one row of free numbers for each position, trained with everything else.


# %%
class LearnedPositions(nn.Module):
    """Add a trained vector to each token, one for each of T_max positions.

    Args:
        T_max: number of positions that there are.
        D: model width.

    Example:
        >>> positions = LearnedPositions(8, 4)
        >>> positions(torch.zeros(2, 3, 4), offset=5).shape
        torch.Size([2, 3, 4])

    Notes:
        The module's only parameter is the table, an nn.Embedding(T_max, D) named `table`, with that class's own random
        start; its state_dict holds exactly table.weight, (T_max, D), one row a position. Gradients reach x and the
        rows that were used; an unused row gets exactly 0.
    """

    def __init__(self, T_max: int, D: int) -> None:
        super().__init__()
        raise NotImplementedError("LearnedPositions")

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        """Add to token t of each sequence in x (B, T, D) the row of position offset + t; give (B, T, D).

        offset is the position of the first token, as when earlier ones have been read already. x has the dtype of the
        table and is not changed.

        Raises:
            ValueError: if offset < 0 or offset + T > T_max; nothing wraps around, is cut or is used twice.
        """
        raise NotImplementedError("LearnedPositions")


# %% [markdown]
# ## 5.3 rope_freqs, apply_rope
#
# Do not add anything: turn each pair of features of a query or key by an angle that grows with its position.


# %%
def rope_freqs(hd: int, base: float = 10000.0) -> Tensor:
    """Compute the speeds at which the pairs of a head are turned, in radians per position.

    Args:
        hd: width of a head; even.
        base: sets the slowest speeds; at least 1.

    Returns:
        (hd/2,) float64: entry i is base^(-2i / hd).

    Raises:
        ValueError: if hd is odd.

    Example:
        >>> rope_freqs(4, base=100.0)
        tensor([1.0000, 0.1000], dtype=torch.float64)
    """
    raise NotImplementedError("rope_freqs")


# %%
def apply_rope(x: Tensor, positions: Tensor, freqs: Tensor, interleaved: bool = False) -> Tensor:
    """Turn each pair of features of x by the angle position * frequency.

    Args:
        x: (..., T, hd) queries or keys, floating; in a model (B, H, T, hd).
        positions: int64, (T,) for all alike, or (B, T) with a row for each entry of x's first axis; then x has three
            axes or more. Any integers: with gaps, repeated, in any order, even negative.
        freqs: (hd/2,) float64, as from rope_freqs or any others.
        interleaved: pair i is made of features i and i + hd/2 if False (half-split), of 2i and 2i + 1 if True.

    Returns:
        A new tensor with the shape and dtype of x; every feature stays in its place.

    Example:
        >>> apply_rope(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]), rope_freqs(2))
        tensor([[1.0000, 0.0000],
                [0.5403, 0.8415]])

    Notes:
        A pair (a, b) at angle t becomes (a cos t - b sin t, a sin t + b cos t), a being the feature with the lower
        index. Angles, cosines and sines are float64; only then are they rounded to the dtype of x.
        Use torch operations throughout, so that gradients reach x.
    """
    raise NotImplementedError("apply_rope")


# %% [markdown]
# ## 5.4 permute_for_half_split
#
# The same trained head under the other convention: reorder the rows of its projection, once, when it is loaded.


# %%
def permute_for_half_split(W: Tensor, n_heads: int) -> Tensor:
    """Reorder a query or key projection made for interleaved RoPE so that half-split RoPE fits it.

    Args:
        W: (H * hd, D) weight of a projection y = x W^T, or its (H * hd,) bias; any dtype. Rows h * hd to
            (h + 1) * hd - 1 make head h.
        n_heads: H, the number of heads in W; for keys this may be fewer than for queries.

    Returns:
        A tensor with the shape and dtype of W. In each head the rows 0, 2, 4, ... come first, then 1, 3, 5, ...

    Raises:
        ValueError: if n_heads does not divide the rows of W, or the rows of a head are odd in number.

    Example:
        >>> permute_for_half_split(torch.arange(12), 2)
        tensor([ 0,  2,  4,  1,  3,  5,  6,  8, 10,  7,  9, 11])

    Notes:
        Applied to queries and keys alike, the scores q k^T of half-split RoPE are then what those of interleaved RoPE
        were before. W itself is not changed.
    """
    raise NotImplementedError("permute_for_half_split")


# %% [markdown]
# ## 5.5 alibi_bias
#
# The simplest idea of all: what is far away counts less, by an amount that grows with the distance.


# %%
def alibi_bias(n_heads: int, T: int, S: int | None = None) -> Tensor:
    """Build the bias that lowers a score in proportion to the distance between query and key.

    Args:
        n_heads: H, at least 1.
        T: number of queries, at least 1.
        S: number of keys; None means S = T. The queries are the last T of the S positions.

    Returns:
        (H, T, S) float64, to be added to the scores: -slope_h * distance for keys up to the query's own position,
        0 for later keys (hiding those is the business of the mask).

    Raises:
        ValueError: if S < T.

    Example:
        >>> alibi_bias(2, 2, 3)[0]
        tensor([[-0.0625,  0.0000,  0.0000],
                [-0.1250, -0.0625,  0.0000]], dtype=torch.float64)

    Notes:
        For H a power of two, head h = 0, ..., H - 1 has the slope 2^(-8 (h + 1) / H). For other H let P be the largest
        power of two below: the first P heads have the slopes of P heads, in order; the H - P others have those of the
        heads 0, 2, 4, ... out of 2P heads, in order. So for H = 3: 1/16, 1/256, 1/4.
    """
    raise NotImplementedError("alibi_bias")


# %% [markdown]
# ## 5.6 t5_bucket
#
# Near distances one by one, far ones in bins that widen: the model learns one number for each bin.


# %%
def t5_bucket(
    relative_position: Tensor, n_buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> Tensor:
    """Sort relative positions into buckets: exact when near, logarithmic when far.

    Args:
        relative_position: int64 of any shape: position of the key minus position of the query; negative is the past.
        n_buckets: number of buckets in all, at least 4; an even number when bidirectional.
        max_distance: from this distance on, all share the last bucket; larger than the number of exact buckets.
        bidirectional: if True, half of the buckets are for the past and half for the future; if False, all are for
            the past, and the future counts as distance 0.

    Returns:
        int64, same shape, from 0 to n_buckets - 1.

    Example:
        >>> t5_bucket(torch.tensor([-200, -20, -3, 0, 3, 20, 200]))
        tensor([15, 10,  3,  0, 19, 26, 31])

    Notes:
        Let N be n_buckets // 2 if bidirectional, else n_buckets; M = max_distance; E = N // 2; n the distance. If
        n < E the bucket is n, else E + floor(log(n / E) / log(M / E) * (N - E)), but N - 1 at most. If bidirectional,
        the future (positive) adds N. float32 is good enough: where a bin above E begins exactly at a whole distance,
        rounding may go either way, and nothing is asked.
    """
    raise NotImplementedError("t5_bucket")


# %% [markdown]
# ## 5.7 equivariance_gap
#
# The instrument: shuffle the tokens before f, or after it. If that makes no difference, f cannot see order.


# %%
def equivariance_gap(f: Callable[[Tensor], Tensor], x: Tensor, perm: Tensor) -> float:
    """Measure how far f is from treating shuffled tokens as the same tokens, shuffled.

    Args:
        f: maps (..., T, D) to (..., T, E) with the same leading axes; E may differ from D.
        x: (..., T, D) floating; the tokens stand along the second axis from the end.
        perm: (T,) int64, an order of 0 ... T - 1; shuffled, x has token perm[t] at place t, in every batch row.

    Returns:
        The largest absolute difference between f(shuffled x) and f(x) shuffled, as a Python float; 0.0 means that f
        sees a bag of tokens, up to rounding.

    Example:
        >>> x, perm = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2, 0, 1])
        >>> equivariance_gap(lambda x: x - x.mean(0), x, perm)
        0.0
        >>> equivariance_gap(lambda x: x.cumsum(0), x, perm)
        4.0

    Notes:
        Both sides are shuffled by the same perm. Neither x nor perm is changed.
    """
    raise NotImplementedError("equivariance_gap")
