# %% [markdown]
# # Chapter 1: Predicting the next token
#
# Seven exercises. By the end you have written a whole language model, small but complete: it is trained by counting, it
# is measured, you know how good it could be at best, and it writes. The teaching is in the notes (`README.md`); here
# stand only the promises that each function must keep.
#
# A *token* is a whole number from 0 to V - 1, its *id*; a *document* is a list of ids. V is the size of the vocabulary.
# All logarithms are natural, so that information is measured in nats, unless a name says bits.

# %%
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

# %% [markdown]
# ## 1.1 count_ngrams
#
# Training, in its oldest form: for each context, count what came next.


# %%
def count_ngrams(docs: list[list[int]], n: int, bos: int | None = None) -> dict[tuple[int, ...], Counter]:
    """Count, for each context of n - 1 ids, which id came next how often.

    Args:
        docs: documents; each is a list of ids, of any length, perhaps empty.
        n: length of a window, at least 1: its first n - 1 ids are the context, its last id is what came next.
        bos: None, or the id that stands for "before the document": each document is then counted as if n - 1 copies
            of bos stood before it, so that its first id has a context too.

    Returns:
        A dict from context, a tuple of n - 1 ids in reading order, to a Counter of next ids. Only contexts that occur
        are keys.

    Raises:
        ValueError: n < 1.

    Example:
        >>> count_ngrams([[5, 7, 5, 7, 8], [7, 8]], 2)
        {(5,): Counter({7: 2}), (7,): Counter({8: 2, 5: 1})}
        >>> count_ngrams([[5, 7]], 3, bos=0)
        {(0, 0): Counter({5: 1}), (0, 5): Counter({7: 1})}

    Notes:
        No window reaches from one document into the next. Without bos, a document of fewer than n ids has no window.
        With n = 1 the only context is (). bos may be 0. The documents are not changed.
    """
    ### BEGIN SOLUTION
    if n < 1:
        raise ValueError(f"n must be at least 1, but is {n}")
    counts: dict[tuple[int, ...], Counter] = {}
    for doc in docs:
        ids = list(doc) if bos is None else [bos] * (n - 1) + list(doc)
        for i in range(n - 1, len(ids)):
            context = tuple(ids[i - n + 1 : i])  # the n - 1 ids before position i
            counts.setdefault(context, Counter())[ids[i]] += 1
    return counts
    ### END SOLUTION


# %% [markdown]
# ## 1.2 ngram_prob
#
# From counts to probabilities, without declaring impossible what merely has not been seen.


# %%
def ngram_prob(
    counts: dict[tuple[int, ...], Counter], context: tuple[int, ...], token: int, vocab_size: int, k: float = 1.0
) -> float:
    """Compute the probability of token after context, with k added to the count of every id of the vocabulary.

    Args:
        counts: from context to a Counter of next ids, as `count_ngrams` returns it.
        context: a tuple of ids as long as those in counts; it need not occur there.
        token: an id from 0 to vocab_size - 1.
        vocab_size: V, at least 1. Every id in the Counters is below it.
        k: what is added to each count, 0 or more.

    Returns:
        (c + k) / (N + k V), a float; c is the count of token after context, N the sum of all counts after context.

    Raises:
        ValueError: k < 0.

    Example:
        >>> counts = {(5,): Counter({7: 2, 1: 1})}
        >>> ngram_prob(counts, (5,), 7, vocab_size=9)
        0.25
        >>> ngram_prob(counts, (3,), 7, vocab_size=10)
        0.1

    Notes:
        After a context that was never seen every id has probability 1 / V, also with k = 0, where the formula would say
        0 / 0. counts is not changed: asking for a context must not add it.
    """
    ### BEGIN SOLUTION
    if k < 0:
        raise ValueError(f"k must not be negative, but is {k}")
    seen = counts.get(context, Counter())
    c, N = seen[token], sum(seen.values())
    if N + k == 0:  # nothing seen, nothing added
        return 1 / vocab_size
    return (c + k) / (N + k * vocab_size)
    ### END SOLUTION


# %% [markdown]
# ## 1.3 interpolated_prob
#
# A long context says much and has seldom been seen; a short one says little and is always known. Mix them.


# %%
def interpolated_prob(
    models: Sequence[Callable[[tuple[int, ...], int], float]],
    lambdas: Sequence[float],
    context: tuple[int, ...],
    token: int,
) -> float:
    """Mix the probabilities that models of order 1, 2, ... give to token, each with its own share.

    Args:
        models: models[i] has order i + 1: models[i](context of i ids, token) is a probability.
        lambdas: the shares; lambdas[i] belongs to models[i]. Each is 0 or more, and they sum to 1.
        context: a tuple of ids in reading order.
        token: an id.

    Returns:
        The sum of lambdas[i] * models[i](the last i ids of context, token), a float.

    Raises:
        ValueError: the lambdas do not sum to 1 to within 1e-9, one is negative, or there are not as many as models.

    Example:
        >>> unigram = lambda context, token: 0.25
        >>> bigram = lambda context, token: 0.75 if context == (4,) else 0.0
        >>> interpolated_prob([unigram, bigram], [0.5, 0.5], (9, 4), 7)
        0.5

    Notes:
        models[0] gets the empty tuple (). If context has fewer than i ids, models[i] gets all of it. What a model gets
        is a tuple, in reading order. Nothing is renormalised.
    """
    ### BEGIN SOLUTION
    if len(models) != len(lambdas) or min(lambdas, default=0.0) < 0 or abs(sum(lambdas) - 1) > 1e-9:
        raise ValueError(f"need {len(models)} shares that are not negative and sum to 1, but got {list(lambdas)}")
    total = 0.0
    for i in range(len(models)):
        start = max(0, len(context) - i)  # context[-i:] would be all of it when i is 0
        total += lambdas[i] * models[i](context[start:], token)
    return total
    ### END SOLUTION


# %% [markdown]
# ## 1.4 perplexity, bits_per_byte
#
# Two ways to say how surprised a model was by a text. The second does not depend on how the text was cut into tokens.


# %%
def perplexity(logprobs: Sequence[float]) -> float:
    """Compute the perplexity of a text: the number of equally likely ids that would surprise as much.

    Args:
        logprobs: ln p of each token that was predicted, each 0 or less; -inf means that the model said "impossible".

    Returns:
        e to the power of the mean of -ln p, a float; inf if any entry is -inf.

    Raises:
        ValueError: logprobs is empty.

    Example:
        >>> round(perplexity([math.log(1 / 2), math.log(1 / 8)]), 9)
        4.0

    Notes:
        Every entry counts once, the first one too. Texts of many thousand tokens are usual, and the product of their
        probabilities is 0 on any machine: stay with the logarithms until the mean is taken.
    """
    ### BEGIN SOLUTION
    if len(logprobs) == 0:
        raise ValueError("the perplexity of no tokens is not defined")
    return math.exp(-sum(logprobs) / len(logprobs))
    ### END SOLUTION


# %%
def bits_per_byte(total_nll_nats: float, n_bytes: int) -> float:
    """Compute how many bits of surprise a text holds per byte of its UTF-8 form.

    Args:
        total_nll_nats: the sum (not the mean) of -ln p over all tokens of the text.
        n_bytes: the length of the text in bytes.

    Returns:
        The same surprise counted in bits, divided by n_bytes, a float. One bit is ln 2 nats.

    Raises:
        ValueError: n_bytes < 1.

    Example:
        >>> round(bits_per_byte(16 * math.log(2), 8), 9)
        2.0
    """
    ### BEGIN SOLUTION
    if n_bytes < 1:
        raise ValueError(f"a text has at least one byte, not {n_bytes}")
    return total_nll_nats / math.log(2) / n_bytes
    ### END SOLUTION


# %% [markdown]
# ## 1.5 entropy, cross_entropy_dist, kl
#
# How much surprise is unavoidable, how much a model gets, and the difference. The arrays are 1-D float64, sum to 1, and
# may hold zeros; their logarithms are natural.


# %%
def entropy(p: np.ndarray) -> float:
    """Compute the mean surprise, in nats, of someone who knows the distribution p.

    Args:
        p: (V,) float64 probabilities that sum to 1; some may be 0.

    Returns:
        The sum of -p ln p over all entries, a float.

    Example:
        >>> round(entropy(np.array([0.5, 0.25, 0.25])) / math.log(2), 9)  # in bits
        1.5

    Notes:
        An entry of 0 contributes exactly 0. Nothing is added to the probabilities before the logarithm. p is not
        changed.
    """
    ### BEGIN SOLUTION
    return cross_entropy_dist(p, p)
    ### END SOLUTION


# %%
def cross_entropy_dist(p: np.ndarray, q: np.ndarray) -> float:
    """Compute the mean surprise, in nats, of a model that says q where p is the truth.

    Args:
        p: (V,) float64, the true probabilities.
        q: (V,) float64, the model's probabilities.

    Returns:
        The sum of -p ln q over all entries, a float; inf if q is 0 somewhere where p is not.

    Example:
        >>> round(cross_entropy_dist(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 6)
        0.836988

    Notes:
        Where p is 0 the contribution is exactly 0, whatever q is. Nothing is added to the probabilities before the
        logarithm. Neither array is changed.
    """
    ### BEGIN SOLUTION
    possible = p > 0  # what never happens surprises nobody
    with np.errstate(divide="ignore"):  # ln 0 = -inf is meant
        return float(0.0 - (p[possible] * np.log(q[possible])).sum())
    ### END SOLUTION


# %%
def kl(p: np.ndarray, q: np.ndarray) -> float:
    """Compute the surprise, in nats, that a model saying q has in excess of what is unavoidable under p.

    Args:
        p: (V,) float64, the true probabilities.
        q: (V,) float64, the model's probabilities.

    Returns:
        The sum of p ln (p / q) over all entries, a float: the cross-entropy of p and q minus the entropy of p; inf if q
        is 0 somewhere where p is not.

    Example:
        >>> round(kl(np.array([0.5, 0.5]), np.array([0.25, 0.75])), 6)
        0.143841

    Notes:
        Where p is 0 the contribution is exactly 0, whatever q is. p comes first: kl(p, q) and kl(q, p) differ. Neither
        array is changed.
    """
    ### BEGIN SOLUTION
    return cross_entropy_dist(p, q) - entropy(p)
    ### END SOLUTION


# %% [markdown]
# ## 1.6 sample_categorical
#
# Lay the probabilities end to end on a line and see on which of them a random point falls.


# %%
def sample_categorical(probs: Sequence[float] | np.ndarray, u: float) -> int:
    """Turn a uniform random number into an index that is drawn with the given probabilities.

    Args:
        probs: V numbers, a list or a 1-D array; each is 0 or more, at least one is positive. They need not sum to 1:
            only their ratios count.
        u: a number in [0, 1): 0 can occur, 1 cannot.

    Returns:
        The smallest index i with probs[0] + ... + probs[i] > u * (sum of probs), an int.

    Example:
        >>> sample_categorical([0.5, 0.2, 0.3], 0.6)
        1
        >>> sample_categorical([0, 4, 4], 0.0)
        1

    Notes:
        An index whose probability is 0 is never returned, neither for u = 0 nor for the largest u below 1. Sums of
        floats may miss the true sum by a little; the result is a possible index all the same. probs is not changed.
    """
    ### BEGIN SOLUTION
    ends = np.cumsum(probs)  # (V,) where the segment of each index ends
    point = u * ends[-1]  # below the last end, whatever rounding made of it
    return int(np.searchsorted(ends, point, side="right"))  # the first end beyond the point
    ### END SOLUTION


# %% [markdown]
# ## 1.7 generate
#
# Ask for the next token, append it, ask again. Every language model writes in this way.


# %%
def generate(
    next_dist: Callable[[list[int]], Sequence[float] | np.ndarray],
    prompt: list[int],
    n_new: int,
    rng: np.random.Generator,
    eos: int | None = None,
) -> list[int]:
    """Continue a prompt by up to n_new ids, each drawn from the distribution that the model gives for the next one.

    Args:
        next_dist: the model: next_dist(all ids so far, a list) gives V probabilities, a list or a 1-D array.
        prompt: ids to begin with, perhaps none.
        n_new: how many ids to append at most, 0 or more.
        rng: numpy's generator. Each new id takes one number u = rng.random() and is sample_categorical(dist, u).
        eos: the id that ends the text once it has been drawn; None: none does.

    Returns:
        A new list: the prompt, then the new ids, including the eos if it was drawn, and nothing behind it.

    Example:
        >>> count_up = lambda ids: np.eye(9)[ids[-1] + 1]
        >>> generate(count_up, [1, 2], 3, np.random.default_rng(0))
        [1, 2, 3, 4, 5]
        >>> generate(count_up, [1, 2], 3, np.random.default_rng(0), eos=4)
        [1, 2, 3, 4]

    Notes:
        The model is called exactly once for each new id, and sees the prompt and every id drawn so far. An eos in the
        prompt ends nothing. eos may be 0. The prompt is not changed.
    """
    ### BEGIN SOLUTION
    ids = list(prompt)
    for _ in range(n_new):
        token = sample_categorical(next_dist(ids), rng.random())
        ids.append(token)
        if token == eos:
            break
    return ids
    ### END SOLUTION
