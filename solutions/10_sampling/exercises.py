# %% [markdown]
# # Chapter 10: Choosing the next token
#
# A language model gives one row of logits for the next token. This chapter turns the row into a token, and the tokens
# into a text. The teaching is in `README.md`; left out here are the KV cache and speculative decoding.
#
# A *filter* takes logits `(B, V)` and gives logits `(B, V)`: removed tokens become minus infinity, kept tokens are
# unchanged to the last bit, and at least one is kept. A token that is already at minus infinity stays removed.

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor

# %% [markdown]
# ## 10.1 Temperature
#
# Divide the logits by a temperature before the softmax. Below one the favourite gains, above one the others do,
# and at exactly zero only the favourite is left.


# %%
def next_token_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Turn each row of logits into probabilities at a temperature.

    Args:
        logits: (B, V) float32 or float64; entries may be -inf, at least one of each row is finite.
        temperature: a number >= 0. At 0 the row's largest logit gets probability 1, all others 0.

    Returns:
        (B, V) probabilities, dtype of `logits`; `logits` itself is not changed.

    Raises:
        ValueError: `temperature` is negative.

    Example:
        >>> next_token_probs(torch.tensor([[0.0, 2.0, 2.0]]), 0.0)
        tensor([[0., 1., 0.]])
        >>> next_token_probs(torch.tensor([[5.0, 5.0]]), 0.5)
        tensor([[0.5000, 0.5000]])

    Notes:
        Tie rule at temperature 0: the lowest id wins.
        Finite for every temperature from the dtype's smallest normal number on: subtract before you divide.
    """
    ### BEGIN SOLUTION
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, but is {temperature}")
    if temperature == 0:
        probs = torch.zeros_like(logits)
        return probs.scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    # With the maximum at 0 the quotient can only run off to -inf, which the softmax takes; never to +inf.
    shifted = logits - logits.amax(dim=-1, keepdim=True)
    return torch.softmax(shifted / temperature, dim=-1)
    ### END SOLUTION


# %% [markdown]
# ## 10.2 Top-k
#
# Keep the k largest logits of each row. Ties at the border are all kept, so that the order of the vocabulary
# has no say.


# %%
def top_k_filter(logits: Tensor, k: int) -> Tensor:
    """Keep the k largest logits of each row and set the others to -inf.

    Args:
        logits: (B, V) float; entries may be -inf.
        k: how many to keep, at least 1. With k >= V everything is kept.

    Returns:
        (B, V), dtype of `logits`: kept entries unchanged, removed ones -inf; `logits` itself is not changed.

    Raises:
        ValueError: `k` is less than 1.

    Example:
        >>> top_k_filter(torch.tensor([[3.0, 1.0, 2.0, 0.0]]), 2)
        tensor([[3., -inf, 2., -inf]])

    Notes:
        Ties: everything that is at least as large as the k-th largest is kept, so more than k may stay.
        Each row has its own k-th largest.
    """
    ### BEGIN SOLUTION
    if k < 1:
        raise ValueError(f"k must be at least 1, but is {k}")
    kth = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, -math.inf)
    ### END SOLUTION


# %% [markdown]
# ## 10.3 Top-p
#
# Rank the tokens by probability and keep the shortest beginning of the ranking whose mass reaches p.
# The token that crosses p belongs to it.


# %%
def top_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest most likely tokens whose probabilities sum to at least p, set the others to -inf.

    Args:
        logits: (B, V) float; entries may be -inf.
        p: a mass from 0 to 1. At 0 one token is kept, the most likely; at 1 everything is kept.

    Returns:
        (B, V), dtype of `logits`: kept entries unchanged, removed ones -inf; `logits` itself is not changed.

    Raises:
        ValueError: `p` lies outside [0, 1].

    Example:
        >>> top_p_filter(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.6).exp()
        tensor([[0.5000, 0.3000, 0.0000]])

    Notes:
        The token whose share lifts the sum to p or above is kept; a sum that equals p exactly is enough.
        Ties: of equal logits the lower id ranks first.
        p = 1 keeps even a token so unlikely that the sum rounds to 1 before it.
    """
    ### BEGIN SOLUTION
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie between 0 and 1, but is {p}")
    if p == 1:
        return logits.clone()
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)  # (B, V) each
    probs = torch.softmax(ranked, dim=-1)
    above = probs.cumsum(dim=-1) - probs  # the mass ranked above a token, without its own share
    remove = above >= p
    remove[:, 0] = False  # p = 0 would remove even the favourite
    remove = torch.zeros_like(remove).scatter(-1, order, remove)  # back to the order of the vocabulary
    return logits.masked_fill(remove, -math.inf)
    ### END SOLUTION


# %% [markdown]
# ## 10.4 Min-p and the repetition penalty
#
# Min-p keeps what is at least a fraction of the favourite. The penalty makes ids that already occurred
# less likely, on either side of zero.


# %%
def min_p_filter(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens at least p times as likely as their row's most likely token, set the others to -inf.

    Args:
        logits: (B, V) float; entries may be -inf.
        p: a fraction from 0 to 1. At 0 everything is kept; at 1 the maximum is kept, and all that tie with it.

    Returns:
        (B, V), dtype of `logits`: kept entries unchanged, removed ones -inf; `logits` itself is not changed.

    Raises:
        ValueError: `p` lies outside [0, 1].

    Example:
        >>> min_p_filter(torch.tensor([[0.5, 0.3, 0.2]]).log(), 0.5).exp()
        tensor([[0.5000, 0.3000, 0.0000]])

    Notes:
        At p = 0 even a token whose probability rounds to 0 is kept.
    """
    ### BEGIN SOLUTION
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie between 0 and 1, but is {p}")
    if p == 0:
        return logits.clone()
    # prob >= p * max prob, with the common denominator of the softmax cancelled
    threshold = logits.amax(dim=-1, keepdim=True) + math.log(p)  # (B, 1)
    return logits.masked_fill(logits < threshold, -math.inf)
    ### END SOLUTION


# %%
def repetition_penalty(logits: Tensor, prev_ids: Tensor, penalty: float) -> Tensor:
    """Make every id that already occurred in its own row less likely by a factor on its logit.

    Args:
        logits: (B, V) float; entries may be -inf and stay so.
        prev_ids: (B, T) int64, the ids so far of each row, each in 0..V-1; T may be 0.
        penalty: a number above 0; 1 changes nothing, below 1 rewards instead.

    Returns:
        (B, V), dtype of `logits`: a seen logit above 0 is divided by the penalty, one below 0 multiplied by it,
        0 stays 0; unseen logits are unchanged. `logits` and `prev_ids` themselves are not changed.

    Raises:
        ValueError: `penalty` is 0 or negative.

    Example:
        >>> repetition_penalty(torch.tensor([[2.0, -2.0, 2.0]]), torch.tensor([[0, 1, 0]]), 2.0)
        tensor([[ 1., -4.,  2.]])

    Notes:
        Applied once for each distinct id, however often it occurred.
    """
    ### BEGIN SOLUTION
    if penalty <= 0:
        raise ValueError(f"penalty must be positive, but is {penalty}")
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, prev_ids, True)  # (B, V)
    penalised = torch.where(logits > 0, logits / penalty, logits * penalty)  # dividing a negative would raise it
    return torch.where(seen, penalised, logits)
    ### END SOLUTION


# %% [markdown]
# ## 10.5 Two ways to draw
#
# Lay the probabilities end to end and see where one uniform number falls; or add noise to the logits and take
# the largest. Both draw from the same distribution. `torch.multinomial` is out of bounds here.


# %%
def sample(probs: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one id from each row of probabilities.

    Args:
        probs: (B, V) float; each row sums to 1 up to rounding; entries may be 0.
        generator: the only source of randomness; each call moves it on.

    Returns:
        (B,) int64, one id a row, drawn independently of the other rows.

    Example:
        >>> sample(torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), torch.Generator().manual_seed(0))
        tensor([1, 0])

    Notes:
        An id of probability 0 is never drawn. The same state of the generator gives the same draw.
        `probs` is not changed.
    """
    ### BEGIN SOLUTION
    u = torch.rand(probs.shape[0], 1, generator=generator, dtype=probs.dtype)  # (B, 1), in [0, 1)
    ends = probs.cumsum(dim=-1)  # (B, V), where each id's segment ends
    u = u * ends[:, -1:]  # the last end is 1 only up to rounding
    return (ends <= u).sum(dim=-1)  # (B,); <= steps over segments of no length
    ### END SOLUTION


# %%
def gumbel_argmax(logits: Tensor, u: Tensor) -> Tensor:
    """Draw one id a row from softmax(logits) by adding Gumbel noise and taking the largest.

    Args:
        logits: (B, V) float; entries may be -inf, at least one of each row is finite.
        u: (B, V), dtype of `logits`: uniform numbers from 0 to 1, both ends possible.

    Returns:
        (B,) int64: the position of the row's largest logits - log(-log(u)). The inputs are not changed.

    Example:
        >>> gumbel_argmax(torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.5]]))
        tensor([1])

    Notes:
        u is first clamped to the dtype's smallest normal number and to 1 - eps (`torch.finfo`), so that the noise is
        finite: u = 1 cannot win against any lead, and cannot bring back a logit of -inf.
        Ties: the lowest id.
    """
    ### BEGIN SOLUTION
    info = torch.finfo(u.dtype)
    noise = -torch.log(-torch.log(u.clamp(info.tiny, 1 - info.eps)))  # (B, V), standard Gumbel
    return (logits + noise).argmax(dim=-1)  # (B,)
    ### END SOLUTION


# %% [markdown]
# ## 10.6 Beam search
#
# Keep the few best beginnings instead of one. What has ended is set aside and competes at the end.


# %%
def beam_search(
    logprob_fn: Callable[[Tensor], Tensor], bos: int, eos: int, beam: int, max_len: int, length_alpha: float = 0.0
) -> tuple[list[int], float]:
    """Find a sequence of high probability by keeping the best `beam` hypotheses at each step.

    Args:
        logprob_fn: ids (n, t) int64, each row starting with `bos`, for any n >= 1 -> (n, V) log-probabilities of the
            next token (-inf: impossible). It is asked for each prefix at most once, for at most `beam` of a length t.
        bos, eos: the first and the last token; may be the same id.
        beam, max_len: at least 1; `max_len` counts tokens after `bos`, `eos` included.
        length_alpha: how strongly length is forgiven; 0 not at all.

    Returns:
        (ids, score): list[int] without `bos`, with `eos` last if it ended; score = sum of log-probabilities
        / len(ids) ** length_alpha, a float.

    Raises:
        ValueError: `beam` or `max_len` is less than 1.

    Example:
        >>> beam_search(lambda ids: torch.tensor([[0.25, 0.75]]).log().expand(len(ids), 2), 0, 0, 1, 3)[0]
        [1, 1, 1]

    Notes:
        A step: rank all possible extensions of all live hypotheses by their sums and keep the best `beam`.
        Those that end in `eos` are set aside, the others live on. It ends when none lives or at `max_len`; then the
        best score of all that were set aside and all that still live wins. Equal scores: either.
    """
    ### BEGIN SOLUTION
    if beam < 1 or max_len < 1:
        raise ValueError(f"beam and max_len must be at least 1, but are {beam} and {max_len}")
    live: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    for _ in range(max_len):
        logprobs = logprob_fn(torch.tensor([[bos, *ids] for ids, _ in live]))  # (n, V)
        sums = torch.tensor([total for _, total in live], dtype=logprobs.dtype)  # (n,)
        sums = (sums[:, None] + logprobs).flatten()  # (n * V,)
        best, where = sums.topk(min(beam, len(sums)))
        parents, live = live, []
        for total, flat in zip(best.tolist(), where.tolist(), strict=True):
            row, token = divmod(flat, logprobs.shape[1])
            if total > -math.inf:
                (ended if token == eos else live).append(([*parents[row][0], token], total))
        if not live:
            break
    # All live hypotheses had one length, so dividing by it could wait until here.
    scored = [(ids, total / len(ids) ** length_alpha) for ids, total in ended + live]
    return max(scored, key=lambda hypothesis: hypothesis[1])
    ### END SOLUTION


# %% [markdown]
# ## 10.7 The loop
#
# Look, choose, append. The model is a callable from ids `(B, T)` to logits `(B, T, V)`; it may carry `T_max`, the
# longest context it can take.


# %%
def generate(
    model: Callable[[Tensor], Tensor],
    ids: Tensor,
    n_new: int,
    sampler: Callable[[Tensor], Tensor],
    eos: int | None = None,
    pad: int = 0,
) -> Tensor:
    """Append n_new tokens to every row, one forward pass a token; a row that ended gets `pad`.

    Args:
        model: ids (B, t) -> logits (B, t, V); where it has an attribute `T_max`, it gets only the last `T_max` ids.
        ids: (B, T) int64 prompt, T >= 1, not changed.
        n_new: how many columns to append, >= 0.
        sampler: the last position's logits (B, V) -> next ids (B,) int64; called once a token, with all rows.
        eos: the id that ends a row once it has been generated; None: no row ends.
        pad: what follows a row's own eos.

    Returns:
        (B, T + n_new) int64, always this width: the prompt, then each row's tokens, its eos included, then `pad`.

    Example:
        >>> count_up = lambda ids: torch.nn.functional.one_hot(ids + 1, 9).float()
        >>> generate(count_up, torch.tensor([[1], [2]]), 3, lambda logits: logits.argmax(-1), eos=4)
        tensor([[1, 2, 3, 4],
                [2, 3, 4, 0]])

    Notes:
        An eos in the prompt ends nothing. Once all rows have ended, neither model nor sampler is called.
    """
    ### BEGIN SOLUTION
    B, T = ids.shape
    T_max = getattr(model, "T_max", None)
    out = torch.cat([ids, ids.new_full((B, n_new), pad)], dim=1)  # (B, T + n_new)
    ended = torch.zeros(B, dtype=torch.bool)
    for t in range(T, T + n_new):
        if ended.all():
            break
        start = 0 if T_max is None else max(0, t - T_max)  # the oldest ids are the ones to lose
        drawn = sampler(model(out[:, start:t])[:, -1])  # (B,)
        out[:, t] = torch.where(ended, out[:, t], drawn)  # the pad stays where a row has ended
        if eos is not None:
            ended |= drawn == eos
    return out
    ### END SOLUTION


# %% [markdown]
# ## 10.8 The pipeline
#
# A step takes logits `(B, V)` and the ids so far `(B, T)`, and gives logits `(B, V)`. A pipeline runs its steps in
# order. The usual order: penalty, temperature, top-k, top-p, min-p.


# %%
class LogitsPipeline:
    """Run steps on logits one after another, each on what the one before it gave.

    Args:
        *steps: callables step(logits, prev_ids) -> logits, run from left to right; may be none.

    Example:
        >>> pipeline = LogitsPipeline(lambda logits, prev_ids: logits * 2, lambda logits, prev_ids: logits + 1)
        >>> pipeline(torch.tensor([[1.0, 3.0]]), torch.tensor([[0]]))
        tensor([[3., 7.]])

    Notes:
        A call begins with a copy: even a step that works in place leaves the caller's `logits` as they were.
        Nothing is kept between calls.
    """

    def __init__(self, *steps: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Remember the steps."""
        ### BEGIN SOLUTION
        self.steps = steps
        ### END SOLUTION

    def __call__(self, logits: Tensor, prev_ids: Tensor) -> Tensor:
        """Give the logits (B, V) after all steps; `prev_ids` (B, T) goes to each of them.

        Raises:
            ValueError: the steps left a row without any logit above -inf.
        """
        ### BEGIN SOLUTION
        logits = logits.clone()
        for step in self.steps:
            logits = step(logits, prev_ids)
        if (logits == -math.inf).all(dim=-1).any():
            raise ValueError("the steps removed every token of a row")
        return logits
        ### END SOLUTION


# %%
def standard_pipeline(
    penalty: float = 1.0, temperature: float = 1.0, k: int | None = None, p: float = 1.0, min_p: float = 0.0
) -> LogitsPipeline:
    """Make the usual pipeline: repetition penalty, temperature, top-k, top-p, min-p, in this order.

    Args:
        penalty: for `repetition_penalty`.
        temperature: the logits are divided by it; at 0 only the most likely token (ties: the lowest id) is kept,
            its logit unchanged.
        k: for `top_k_filter`; None: no such filter.
        p: for `top_p_filter`.
        min_p: for `min_p_filter`.

    Returns:
        A LogitsPipeline. The defaults are neutral: with them the logits come out as they went in, to the last bit.

    Raises:
        ValueError: a setting is out of its range; here, or when the pipeline is called.

    Example:
        >>> pipeline = standard_pipeline(temperature=0.5, k=2)
        >>> pipeline(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[0]]))
        tensor([[-inf, 6., 4.]])
    """
    ### BEGIN SOLUTION
    if temperature < 0:
        raise ValueError(f"temperature must not be negative, but is {temperature}")

    def cool(logits: Tensor, prev_ids: Tensor) -> Tensor:
        return top_p_filter(logits, 0.0) if temperature == 0 else logits / temperature

    return LogitsPipeline(
        lambda logits, prev_ids: repetition_penalty(logits, prev_ids, penalty),
        cool,
        lambda logits, prev_ids: logits if k is None else top_k_filter(logits, k),
        lambda logits, prev_ids: top_p_filter(logits, p),
        lambda logits, prev_ids: min_p_filter(logits, min_p),
    )
    ### END SOLUTION
