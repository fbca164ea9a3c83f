# %% [markdown]
# # Chapter 13: Making it fast
#
# Eight exercises. By the end you have written what serves large models in practice: weights in 8 and 4 bits, a product
# of small integers, a small model that drafts for a large one, attention that never stores its scores, a cache in
# pages, and a schedule in which nobody waits for the longest answer. The teaching is in the notes (`README.md`); here
# stand only the promises that each function must keep.
#
# Only the first three change what the model computes, by an error that has a bound. All the others are exact.

# %%
import math
from collections.abc import Callable, Hashable, Iterable

import torch
from torch import Tensor

# %% [markdown]
# **Given: drawing a token.** You wrote your own in chapter 1. It turns a uniform number into a token.


# %%
def draw(probs: Tensor, u: float) -> int:
    """Return the token whose piece of the unit interval holds u, for probabilities (V,) and u in [0, 1)."""
    ends = probs.cumsum(0)
    token = torch.searchsorted(ends, u * ends[-1], right=True)
    return min(int(token), len(probs) - 1)


# %% [markdown]
# ## 13.1 quantize_int8
#
# A matrix of weights in bytes: one small integer per weight, and for each row the size of one step.


# %%
def quantize_int8(W: Tensor) -> tuple[Tensor, Tensor]:
    """Replace each row of W by integers from -127 to 127 and one step size, so that W is about q * scale[:, None].

    Args:
        W: (out, in) weights, float32 or float64, finite, in >= 1.

    Returns:
        (q, scale): q int8 (out, in), scale (out,) with the dtype of W.

    Example:
        >>> quantize_int8(torch.tensor([[1.0, -2.54, 0.5]]))
        (tensor([[  50, -127,   25]], dtype=torch.int8), tensor([0.0200]))

    Notes:
        scale[i] is the largest magnitude of row i over 127, so that weight becomes 127 or -127, and zero stays zero.
        Each q is the integer nearest to W / scale: the error is at most half a step (up to rounding of the dtype).
        Nothing is added to a scale: a row of numbers near 1e-20 is kept as well as a row near 1. In a row of zeros
        q is 0 and the scale is any positive number. W is not changed.
    """
    raise NotImplementedError("quantize_int8")


# %% [markdown]
# ## 13.2 pack_int4, unpack_int4, quantize_int4
#
# Four bits are half a byte, so two weights share one. With only 16 levels, a whole row is too much for one step size:
# each group of columns gets its own.


# %%
def pack_int4(codes: Tensor) -> Tensor:
    """Store two codes of 4 bits in each byte, the first of a pair in the low four bits.

    Args:
        codes: (..., n) integers 0 to 15 of any integer dtype, n >= 1.

    Returns:
        uint8 (..., ceil(n / 2)). If n is odd, the high four bits of the last byte are 0.

    Raises:
        ValueError: if a code is negative or greater than 15.

    Example:
        >>> pack_int4(torch.tensor([1, 2, 15]))
        tensor([33, 15], dtype=torch.uint8)
    """
    raise NotImplementedError("pack_int4")


# %%
def unpack_int4(packed: Tensor, n: int | None = None) -> Tensor:
    """Undo pack_int4: two codes a byte, the low four bits first.

    Args:
        packed: uint8 (..., m), m >= 1.
        n: how many codes there are along the last axis: 2 m, or 2 m - 1 to leave out the last; None means 2 m.

    Returns:
        uint8 (..., n), each from 0 to 15.

    Raises:
        ValueError: if n is neither 2 m nor 2 m - 1.

    Example:
        >>> unpack_int4(torch.tensor([33, 15], dtype=torch.uint8), 3)
        tensor([ 1,  2, 15], dtype=torch.uint8)
    """
    raise NotImplementedError("unpack_int4")


# %%
def quantize_int4(W: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Replace W by 4-bit codes with one smallest value and one step size per group of columns of each row.

    Args:
        W: (out, in) weights, float32 or float64, finite, in >= 1.
        group: columns in a group, at least 1. Group g holds the columns g * group ... (g + 1) * group - 1; the last
            one has what remains. There are G = ceil(in / group) groups, also when group exceeds `in`.

    Returns:
        (packed, scale, low): packed = pack_int4 of the codes (out, in), so uint8 (out, ceil(in / 2));
        scale and low (out, G), with the dtype of W. Column j of row i stands for low[i, g] + scale[i, g] * code.

    Raises:
        ValueError: if group < 1.

    Example:
        >>> packed, scale, low = quantize_int4(torch.tensor([[0.0, 15.0, 3.0, 7.0, 7.0]]), 3)
        >>> unpack_int4(packed, 5), scale[:, 0], low
        (tensor([[ 0, 15,  3,  0,  0]], dtype=torch.uint8), tensor([1.]), tensor([[0., 7.]]))

    Notes:
        low is the group's smallest value, scale its spread (largest minus smallest) over 15, each code the nearest
        level. A group of equal values is restored exactly: code 0, and any positive scale.
    """
    raise NotImplementedError("quantize_int4")


# %% [markdown]
# ## 13.3 int8_matmul
#
# The weights are small integers. Make the inputs small integers too, row by row and at run time, and the whole product
# is one of integers. A few columns of the inputs are too large for that: they go another way.


# %%
def int8_matmul(x: Tensor, q: Tensor, scale: Tensor, outlier_threshold: float | None = None) -> Tensor:
    """Compute x W^T for W = q * scale[:, None] in integers, with the outlier columns of x in floating point.

    Args:
        x: (N, in) inputs, float32 or float64, N >= 1.
        q: int8 (out, in) from -127 to 127, as quantize_int8 gives.
        scale: (out,) positive, dtype of x.
        outlier_threshold: column j of x is an outlier if |x[i, j]| > outlier_threshold for some row i of the batch;
            None means that no column is. 0 makes every column an outlier in which anything happens.

    Returns:
        (N, out), dtype of x.

    Example:
        >>> q, scale = torch.tensor([[1, 2]], dtype=torch.int8), torch.tensor([0.5])
        >>> int8_matmul(torch.tensor([[1.0, 0.25]]), q, scale)        # x becomes 127 and 32 steps of 1/127
        tensor([[0.7520]])

    Notes:
        Ordinary columns: each row of x gets a step s = (its largest magnitude there) / 127 and the nearest integers,
        as in quantize_int8; the products are summed as integers, exactly (a sum of them does not fit into 16 bits, so
        int32 or wider), and the sum is multiplied by s and by scale once each. A row of zeros there adds 0.
        Outlier columns: x as it is times W, in floating point. They take no part in finding s. No input is changed.
    """
    raise NotImplementedError("int8_matmul")


# %% [markdown]
# ## 13.4 speculative_accept, speculative_step
#
# A small model drafts a few tokens, the large one judges them all in one call. The rule of judgement is such that the
# result is distributed exactly as if the large model had written every token itself.


# %%
def speculative_accept(p: Tensor, q: Tensor, x: int, u: float, resample: Callable[[Tensor], int]) -> int:
    """Accept the drafted token x with probability min(1, p[x] / q[x]), or draw another from the residual.

    Args:
        p: (V,) the target's probabilities, floating.
        q: (V,) the draft's probabilities, dtype of p; x was drawn from q, so q[x] > 0.
        x: the drafted token.
        u: a uniform number in [0, 1).
        resample: resample(residual) draws a token from a distribution (V,).

    Returns:
        x, or what resample returned.

    Example:
        >>> p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.75, 0.0])
        >>> speculative_accept(p, q, 1, 0.3, lambda residual: -1), speculative_accept(p, q, 1, 0.4, lambda residual: -1)
        (1, -1)

    Notes:
        Accepted means u < p[x] / q[x]; a token with p[x] = 0 is never accepted, and with p = q every token is. Only
        after a rejection is resample called, once, with max(p - q, 0) divided by its sum, dtype of p. p and q are not
        changed.
    """
    raise NotImplementedError("speculative_accept")


# %%
def speculative_step(
    target: Callable[[list[int]], Tensor],
    draft: Callable[[list[int]], Tensor],
    ids: list[int],
    gamma: int,
    rng: Callable[[], float],
) -> list[int]:
    """Draft gamma tokens, judge them with one call of the target, and return the new tokens.

    Args:
        target, draft: model(ids) -> (T, V) probabilities for a list of T ids; row t: of the token after ids[: t + 1].
        ids: the text so far, at least one token; not changed.
        gamma: tokens to draft; 0 is ordinary sampling from the target.
        rng: each call rng() gives a fresh uniform number in [0, 1). All randomness comes from it.

    Returns:
        1 to gamma + 1 new tokens, ints: the drafts up to the first rejection and the token drawn in place of the
        rejected one; or all gamma drafts and one more token, drawn from the target.

    Raises:
        ValueError: if gamma < 0.

    Example:
        >>> def count_on(ids):                                       # stand-in: the next token is one more, surely
        ...     return torch.nn.functional.one_hot((torch.tensor(ids) + 1) % 10, 10).double()
        >>> speculative_step(count_on, count_on, [3, 4], 2, lambda: 0.5)
        [5, 6, 7]

    Notes:
        The draft is called gamma times, each time with all ids so far; the target once, with ids and all drafts.
    """
    raise NotImplementedError("speculative_step")


# %% [markdown]
# ## 13.5 expected_tokens, best_gamma
#
# How many tokens does one call of the target bring, and how far ahead is it worth drafting?


# %%
def expected_tokens(alpha: float, gamma: int) -> float:
    """Compute the mean number of tokens of a speculative step whose drafts are accepted with probability alpha each.

    Args:
        alpha: probability that a draft is accepted, 0 to 1, independently of the others.
        gamma: drafts in a step, at least 0.

    Returns:
        The mean of the length of what speculative_step returns, a float.

    Raises:
        ValueError: if alpha lies outside [0, 1] or gamma < 0.

    Example:
        >>> expected_tokens(0.5, 2), expected_tokens(1.0, 4)
        (1.75, 5.0)

    Notes:
        The token in place of a rejected draft counts, and so does the one after the last draft. The result is good to
        six digits for every alpha, at 1 and as near to 1 as you like.
    """
    raise NotImplementedError("expected_tokens")


# %%
def best_gamma(alpha: float, cost_ratio: float, max_gamma: int) -> int:
    """Find the number of drafts that brings the most tokens per unit of time.

    Args:
        alpha: probability that a draft is accepted, 0 to 1.
        cost_ratio: time of one call of the draft over the time of one call of the target, at least 0.
        max_gamma: the largest number of drafts to consider, at least 0.

    Returns:
        gamma from 0 to max_gamma, an int; of several that are equally good the smallest.

    Raises:
        ValueError: if alpha lies outside [0, 1], cost_ratio < 0 or max_gamma < 0.

    Example:
        >>> best_gamma(0.8, 0.1, 10), best_gamma(0.8, 1.0, 10)
        (6, 0)

    Notes:
        A step takes gamma calls of the draft and one of the target, however many drafts that one judges: with the
        target's call as the unit of time, gamma * cost_ratio + 1. Without drafts the speed is 1 token per unit.
    """
    raise NotImplementedError("best_gamma")


# %% [markdown]
# ## 13.6 online_softmax, flash_attention
#
# Attention without the table of scores. A softmax seems to need all scores at once. It does not: a running maximum, a
# running sum and a running mixture of values are enough, if the old ones are rescaled whenever the maximum grows.


# %%
def online_softmax(blocks: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mix values by the softmax of scores that arrive block by block, in one pass.

    Args:
        blocks: pairs (scores, v), at least one: scores (..., T, n) and v (..., n, d), floating, finite or, a score,
            -inf. n >= 1 may differ from block to block; T, d and the leading axes are the same in all. It may be an
            iterator that can be run through only once.

    Returns:
        (o, lse), with the dtype of the scores: o (..., T, d) is softmax(all scores side by side) times all v;
        lse (..., T) is log(sum(exp(all scores))), the natural logarithm.

    Raises:
        ValueError: if there is no block.

    Example:
        >>> blocks = [(torch.tensor([[0.0]]), torch.tensor([[4.0]])), (torch.tensor([[0.0]]), torch.tensor([[2.0]]))]
        >>> online_softmax(blocks)
        (tensor([[3.]]), tensor([0.6931]))

    Notes:
        The order of the blocks does not matter. Scores of any finite size are fine. A row with only -inf so far must
        not become NaN; a row with nothing but -inf in all blocks gets o = 0 and lse = -inf. Blocks are never gathered:
        each is used when it arrives and let go, and no tensor made on the way is larger than one block or the result.
    """
    raise NotImplementedError("online_softmax")


# %%
def flash_attention(q: Tensor, k: Tensor, v: Tensor, block: int, causal: bool = False) -> tuple[Tensor, Tensor]:
    """Compute exact attention tile by tile, never holding all scores at once.

    Args:
        q: (B, H, T, hd) queries, floating.
        k: (B, H, S, hd) keys, dtype of q.
        v: (B, H, S, hv) values, dtype of q.
        block: keys in a tile, at least 1; it need not divide S and may exceed it.
        causal: query i sees key j only if j <= S - T + i: the queries are the last T of S positions. T may exceed S.

    Returns:
        (o, lse), dtype of q: o (B, H, T, hv) is softmax(q k^T / sqrt(hd)) v over the visible keys; lse (B, H, T) is
        the log of the sum of the exponentials of the visible scaled scores. A query that sees no key (T > S) gets
        o = 0 and lse = -inf.

    Raises:
        ValueError: if block < 1.

    Example:
        >>> v = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 1, 3, 1)
        >>> flash_attention(torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 3, 2), v, block=2)
        (tensor([[[[3.]]]]), tensor([[[1.0986]]]))

    Notes:
        No tensor made on the way, a mask included, has more than B * H * max(T, S) * max(block, hd, hv) elements, so
        memory grows with T, not with its square. No input is changed.
    """
    raise NotImplementedError("flash_attention")


# %% [markdown]
# ## 13.7 PagedKV
#
# The cache of chapter 11 sets aside room for the longest text that may come. Pages are handed out as they are needed,
# and two texts with the same beginning can share them.


# %%
class PagedKV:
    """Keep the cached vectors of many sequences in one pool of n_blocks blocks of block_size tokens.

    Args:
        n_blocks, block_size: the pool, both at least 1.
        width: numbers per token (its keys and values of all layers, laid end to end).
        dtype: of the pool; what is appended is converted to it.

    Attributes:
        n_free (int): blocks that no sequence holds.

    Raises:
        ValueError: if n_blocks < 1 or block_size < 1.

    Example:
        >>> cache = PagedKV(n_blocks=4, block_size=2)
        >>> a = cache.alloc()
        >>> cache.append(a, torch.tensor([[1.0], [2.0], [3.0]]))
        >>> cache.n_free, cache.gather(a).flatten()
        (2, tensor([1., 2., 3.]))

    Notes:
        A sequence of n tokens holds ceil(n / block_size) blocks. A block may belong to several sequences, but only one
        that belongs to a single sequence is ever written. Every method that takes a seq raises KeyError if there is no
        such sequence, or no longer.
    """

    def __init__(self, n_blocks: int, block_size: int, width: int = 1, dtype: torch.dtype = torch.float32) -> None:
        """Begin with no sequences and all blocks free."""
        raise NotImplementedError("PagedKV")

    @property
    def n_free(self) -> int:
        """Return the number of blocks that no sequence holds."""
        raise NotImplementedError("PagedKV")

    def alloc(self) -> int:
        """Make an empty sequence, which holds no block, and return its number, one that was never used before."""
        raise NotImplementedError("PagedKV")

    def append(self, seq: int, x: Tensor) -> None:
        """Copy the vectors x (n, width) of n >= 0 tokens behind those of the sequence.

        Raises:
            KeyError: no such sequence.
            ValueError: x has another shape, or more blocks are needed than are free; then nothing changes at all.

        Notes:
            If the last block has room and belongs to other sequences too, its tokens are first copied into a free block
            of the sequence's own, and the others keep the old one. With n = 0 nothing is copied or taken.
        """
        raise NotImplementedError("PagedKV")

    def gather(self, seq: int) -> Tensor:
        """Return a copy of the sequence's vectors (n, width), oldest first, in the dtype of the pool."""
        raise NotImplementedError("PagedKV")

    def fork(self, seq: int) -> int:
        """Make a new sequence with the same tokens, which shares all blocks and takes none, and return its number."""
        raise NotImplementedError("PagedKV")

    def free(self, seq: int) -> None:
        """Forget the sequence; a block that no other sequence holds becomes free."""
        raise NotImplementedError("PagedKV")


# %% [markdown]
# ## 13.8 Scheduler
#
# Requests come and go at any time. In each step the model processes a few tokens of several requests in one pass; which
# ones is decided anew before every step.


# %%
class Scheduler:
    """Decide, step by step, which requests process how many tokens: continuous batching, first come first served.

    Args:
        max_tokens: tokens that one step may process, at least 1.
        max_seqs: requests that may run at the same time, at least 1.
        max_cached: tokens for which the caches have room; None means any number.

    Attributes:
        cached (dict): request -> tokens in its cache (0 if it has had none yet), for the running requests only.
        emitted (dict): request -> new tokens it has emitted, for every request ever added.

    Raises:
        ValueError: if max_tokens or max_seqs is below 1.

    Example:
        >>> scheduler = Scheduler(max_tokens=4, max_seqs=2)
        >>> scheduler.add("long", prompt=6, new=2)
        >>> scheduler.add("short", prompt=1, new=1)
        >>> scheduler.step(), scheduler.step(), scheduler.step()
        ([('long', 4)], [('long', 2), ('short', 1)], [('long', 1)])

    Notes:
        A request's known tokens are its prompt and what it has emitted. It emits its next token in the step in which
        the last of its known tokens is processed, so a decode step is a step with one token to process.
    """

    def __init__(self, max_tokens: int, max_seqs: int, max_cached: int | None = None) -> None:
        """Begin with no requests."""
        raise NotImplementedError("Scheduler")

    def add(self, request: Hashable, prompt: int, new: int) -> None:
        """Queue a request that has a prompt of so many tokens and wants so many new ones.

        Raises:
            ValueError: prompt < 1 or new < 1; the request was added before; or it could never finish, because
                prompt + new - 1 (all its tokens but the last, which is never processed) exceeds max_cached.
        """
        raise NotImplementedError("Scheduler")

    def step(self) -> list[tuple[Hashable, int]]:
        """Do one step and return what it processes: pairs (request, tokens), tokens >= 1, oldest request first.

        Returns:
            The batch, a list; it is empty only if no request is left.

        Notes:
            1. Who runs: the unfinished requests are taken in the order of arrival, as long as there are at most
            max_seqs of them and their known tokens sum to at most max_cached. The first that does not fit ends this,
            so nobody overtakes. Whoever ran before and is not among them is preempted: it loses its cache, but not its
            emitted tokens, which it must process again after its prompt.
            2. How much: the oldest first, each takes all its known tokens that are not in its cache, or what is left of
            max_tokens. So a long prompt is processed in chunks.
            3. A request that has emitted all its new tokens leaves at the end of the step.
        """
        raise NotImplementedError("Scheduler")
