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
    ### BEGIN SOLUTION
    scale = W.abs().amax(dim=1) / 127  # (out,)
    scale = torch.where(scale > 0, scale, 1.0)  # a row of zeros: any step will do, as long as nobody divides by 0
    q = torch.round(W / scale[:, None]).clamp(-127, 127)  # (out, in)
    return q.to(torch.int8), scale
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if codes.min() < 0 or codes.max() > 15:
        raise ValueError("a code of 4 bits lies between 0 and 15")
    codes = torch.nn.functional.pad(codes.to(torch.uint8), (0, codes.shape[-1] % 2))  # an even number of codes
    return codes[..., 0::2] | codes[..., 1::2] << 4  # (..., ceil(n / 2))
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    m = packed.shape[-1]
    n = 2 * m if n is None else n
    if n not in (2 * m - 1, 2 * m):
        raise ValueError(f"{m} bytes hold {2 * m - 1} or {2 * m} codes, not {n}")
    pairs = torch.stack([packed & 15, packed >> 4], dim=-1)  # (..., m, 2)
    return pairs.flatten(-2)[..., :n]  # (..., n)
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if group < 1:
        raise ValueError("a group has at least one column")
    codes, scales, lows = [], [], []
    for columns in W.split(group, dim=1):  # (out, group), the last one perhaps narrower
        low = columns.amin(dim=1, keepdim=True)  # (out, 1)
        scale = (columns.amax(dim=1, keepdim=True) - low) / 15
        scale = torch.where(scale > 0, scale, 1.0)
        codes.append(torch.round((columns - low) / scale).clamp(0, 15))
        scales.append(scale)
        lows.append(low)
    packed = pack_int4(torch.cat(codes, dim=1).to(torch.uint8))  # (out, ceil(in / 2))
    return packed, torch.cat(scales, dim=1), torch.cat(lows, dim=1)
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    outlier = torch.zeros(x.shape[1], dtype=torch.bool)  # (in,)
    if outlier_threshold is not None:
        outlier = x.abs().amax(dim=0) > outlier_threshold
    x_q, s = quantize_int8(x.masked_fill(outlier, 0.0))  # (N, in), (N,): a column of zeros adds nothing
    sums = x_q.int() @ q.int().T  # (N, out) in int32: int8 times int8 needs more than 8 bits
    ordinary = sums * s[:, None] * scale
    return ordinary + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T  # (N, out)
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if u * q[x] < p[x]:
        return x
    residual = (p - q).clamp(min=0)  # what the target wants more of than the draft gives
    return resample(residual / residual.sum())
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if gamma < 0:
        raise ValueError("gamma must be at least 0")
    text, q = list(ids), []
    for _ in range(gamma):
        q.append(draft(text)[-1])  # (V,)
        text.append(draw(q[-1], rng()))
    drafted, p = text[len(ids) :], target(text)[len(ids) - 1 :]  # p is (gamma + 1, V)
    new = []
    for i, x in enumerate(drafted):
        new.append(speculative_accept(p[i], q[i], x, rng(), lambda residual: draw(residual, rng())))
        if new[-1] != x:  # the residual holds nothing for a rejected token, so this tells a rejection
            return new
    return [*new, draw(p[gamma], rng())]
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError("alpha lies between 0 and 1, and gamma is at least 0")
    # token i + 1 comes exactly if the first i drafts were accepted; the sum needs no division by 1 - alpha
    return float(sum(alpha**i for i in range(gamma + 1)))
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if cost_ratio < 0 or max_gamma < 0:
        raise ValueError("cost_ratio and max_gamma must be at least 0")

    def speed(gamma):
        return expected_tokens(alpha, gamma) / (gamma * cost_ratio + 1)

    return max(range(max_gamma + 1), key=speed)  # max gives the first of several equals
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    top, total, mix = -math.inf, 0.0, 0.0
    for scores, v in blocks:
        old, top = top, scores.amax(dim=-1, keepdim=True).clamp(min=top)  # (..., T, 1) the maximum so far
        safe = top.masked_fill(top == -math.inf, 0.0)  # nothing seen yet: -inf - 0 is fine, -inf - -inf is NaN
        w = torch.exp(scores - safe)  # (..., T, n)
        shrink = torch.exp(old - safe)  # (..., T, 1): what was summed under the old maximum is too large by this
        total = total * shrink + w.sum(dim=-1, keepdim=True)  # (..., T, 1)
        mix = mix * shrink + w @ v  # (..., T, d)
    if isinstance(total, float):
        raise ValueError("online_softmax needs at least one block")
    o = mix / total.masked_fill(total == 0, 1.0)
    return o, (top + total.log()).squeeze(-1)
    ### END SOLUTION


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
    ### BEGIN SOLUTION
    if block < 1:
        raise ValueError("a tile holds at least one key")
    T, S = q.shape[-2], k.shape[-2]
    place = torch.arange(S - T, S)[:, None]  # (T, 1) where each query stands among the keys

    def tiles():
        for start in range(0, S, block):
            keys = slice(start, start + block)  # the last tile is simply shorter
            scores = q @ k[..., keys, :].mT / math.sqrt(q.shape[-1])  # (B, H, T, block)
            if causal:
                scores = scores.masked_fill(torch.arange(S)[keys] > place, -math.inf)
            yield scores, v[..., keys, :]

    return online_softmax(tiles())
    ### END SOLUTION


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
        ### BEGIN SOLUTION
        if n_blocks < 1 or block_size < 1:
            raise ValueError("n_blocks and block_size must be at least 1")
        self.pool = torch.zeros(n_blocks, block_size, width, dtype=dtype)
        self.unused = list(range(n_blocks))
        self.owners = [0] * n_blocks  # how many sequences hold each block
        self.tables, self.lengths = {}, {}  # seq -> its blocks in order, seq -> its tokens
        self.made = 0  # sequences ever made, so that no number is used twice
        ### END SOLUTION

    @property
    def n_free(self) -> int:
        """Return the number of blocks that no sequence holds."""
        ### BEGIN SOLUTION
        return len(self.unused)
        ### END SOLUTION

    def alloc(self) -> int:
        """Make an empty sequence, which holds no block, and return its number, one that was never used before."""
        ### BEGIN SOLUTION
        seq = self.made
        self.made += 1
        self.tables[seq], self.lengths[seq] = [], 0
        return seq
        ### END SOLUTION

    def append(self, seq: int, x: Tensor) -> None:
        """Copy the vectors x (n, width) of n >= 0 tokens behind those of the sequence.

        Raises:
            KeyError: no such sequence.
            ValueError: x has another shape, or more blocks are needed than are free; then nothing changes at all.

        Notes:
            If the last block has room and belongs to other sequences too, its tokens are first copied into a free block
            of the sequence's own, and the others keep the old one. With n = 0 nothing is copied or taken.
        """
        ### BEGIN SOLUTION
        table, start = self.tables[seq], self.lengths[seq]
        _, size, width = self.pool.shape
        if x.ndim != 2 or x.shape[1] != width:
            raise ValueError(f"x must be (n, {width}), got {tuple(x.shape)}")
        end = start + len(x)
        shared = end > start and start % size > 0 and self.owners[table[-1]] > 1
        need = math.ceil(end / size) - len(table) + shared
        if need > len(self.unused):  # before anything is written
            raise ValueError(f"{need} blocks are needed and {len(self.unused)} are free")
        fresh = [self.unused.pop() for _ in range(need)]
        for block in fresh:
            self.owners[block] = 1
        if shared:  # copy on write
            self.pool[fresh[0]] = self.pool[table[-1]]
            self.owners[table.pop()] -= 1
        table += fresh
        for i, row in enumerate(x, start=start):
            self.pool[table[i // size], i % size] = row
        self.lengths[seq] = end
        ### END SOLUTION

    def gather(self, seq: int) -> Tensor:
        """Return a copy of the sequence's vectors (n, width), oldest first, in the dtype of the pool."""
        ### BEGIN SOLUTION
        blocks = self.pool[self.tables[seq]]  # (blocks, block_size, width), in the order of the table
        return blocks.flatten(0, 1)[: self.lengths[seq]]  # (n, width)
        ### END SOLUTION

    def fork(self, seq: int) -> int:
        """Make a new sequence with the same tokens, which shares all blocks and takes none, and return its number."""
        ### BEGIN SOLUTION
        twin = self.alloc()
        self.tables[twin], self.lengths[twin] = list(self.tables[seq]), self.lengths[seq]
        for block in self.tables[seq]:
            self.owners[block] += 1
        return twin
        ### END SOLUTION

    def free(self, seq: int) -> None:
        """Forget the sequence; a block that no other sequence holds becomes free."""
        ### BEGIN SOLUTION
        for block in self.tables.pop(seq):
            self.owners[block] -= 1
            if self.owners[block] == 0:
                self.unused.append(block)
        del self.lengths[seq]
        ### END SOLUTION


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
        ### BEGIN SOLUTION
        if max_tokens < 1 or max_seqs < 1:
            raise ValueError("max_tokens and max_seqs must be at least 1")
        self.max_tokens, self.max_seqs = max_tokens, max_seqs
        self.max_cached = math.inf if max_cached is None else max_cached
        self.wanted = {}  # request -> (prompt, new), unfinished ones only, in the order of arrival
        self.cached = {}  # request -> tokens in its cache, running ones only, in the order of arrival
        self.emitted = {}
        ### END SOLUTION

    def add(self, request: Hashable, prompt: int, new: int) -> None:
        """Queue a request that has a prompt of so many tokens and wants so many new ones.

        Raises:
            ValueError: prompt < 1 or new < 1; the request was added before; or it could never finish, because
                prompt + new - 1 (all its tokens but the last, which is never processed) exceeds max_cached.
        """
        ### BEGIN SOLUTION
        if prompt < 1 or new < 1 or request in self.emitted or prompt + new - 1 > self.max_cached:
            raise ValueError(f"cannot take request {request!r} with prompt={prompt}, new={new}")
        self.wanted[request], self.emitted[request] = (prompt, new), 0
        ### END SOLUTION

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
        ### BEGIN SOLUTION
        running, room = {}, self.max_cached
        for request, (prompt, _) in self.wanted.items():
            known = prompt + self.emitted[request]
            if len(running) == self.max_seqs or known > room:
                break
            running[request] = known
            room -= known
        self.cached = {request: self.cached.get(request, 0) for request in running}
        batch, budget = [], self.max_tokens
        for request, known in running.items():
            n = min(known - self.cached[request], budget)
            if n == 0:
                break  # the budget is spent
            batch.append((request, n))
            budget -= n
            self.cached[request] += n
            if self.cached[request] == known:
                self.emitted[request] += 1
                if self.emitted[request] == self.wanted[request][1]:
                    del self.wanted[request], self.cached[request]
        return batch
        ### END SOLUTION
