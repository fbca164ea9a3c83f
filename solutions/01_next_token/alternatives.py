"""Right answers of chapter 1 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math
import statistics
from bisect import bisect_right
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- count_ngrams


@alternative("count_ngrams", "zip over shifted copies, collected in a defaultdict")
def counts_by_zip(docs, n, bos=None):
    if n < 1:
        raise ValueError("n")
    counts = defaultdict(Counter)
    pad = [] if bos is None else (n - 1) * [bos]
    for doc in docs:
        ids = pad + doc
        for window in zip(*(ids[i:] for i in range(n)), strict=False):
            counts[window[:-1]][window[-1]] += 1
    return counts


@alternative("count_ngrams", "all windows in one flat Counter first, then nested")
def counts_by_a_flat_counter(docs, n, bos=None):
    if n <= 0:
        raise ValueError("a window needs an id")
    if bos is not None:
        docs = [[bos for _ in range(n - 1)] + doc for doc in docs]
    flat = Counter(tuple(doc[i - n : i]) for doc in docs for i in range(n, len(doc) + 1))
    nested = {}
    for (*context, token), count in flat.items():
        nested.setdefault(tuple(context), Counter())[token] = count
    return nested


@alternative("count_ngrams", "a context that slides along: drop the oldest id, append the new one")
def counts_by_a_sliding_context(docs, n, bos=None):
    if n < 1:
        raise ValueError("n must be positive")
    counts = {}
    for doc in docs:
        context = () if bos is None else (bos,) * (n - 1)
        for token in doc:
            if len(context) == n - 1:
                if context not in counts:
                    counts[context] = Counter()
                counts[context].update([token])
            context = (*context, token)[max(0, len(context) + 2 - n) :]
    return counts


# -- ngram_prob


@alternative("ngram_prob", "the unseen context handled first")
def prob_by_cases(counts, context, token, vocab_size, k=1.0):
    if k < 0:
        raise ValueError("k")
    if context not in counts:
        return 1 / vocab_size
    table = counts[context]
    return (table[token] + k) / (table.total() + k * vocab_size)


@alternative("ngram_prob", "a mixture of relative frequency and the uniform distribution")
def prob_as_mixture(counts, context, token, vocab_size, k=1.0):
    if k < 0:
        raise ValueError("k")
    table = counts.get(context)
    if not table:
        return 1.0 / vocab_size
    N = sum(table.values())
    weight = N / (N + k * vocab_size)
    return weight * table.get(token, 0) / N + (1 - weight) / vocab_size


# -- interpolated_prob


@alternative("interpolated_prob", "numpy's dot product")
def mixture_by_dot(models, lambdas, context, token):
    shares = np.array(lambdas, dtype=np.float64)
    if len(shares) != len(models) or (shares < 0).any() or not np.isclose(shares.sum(), 1, rtol=0, atol=1e-9):
        raise ValueError("shares")
    given = [model(context[max(len(context) - i, 0) :], token) for i, model in enumerate(models)]
    return float(shares @ np.array(given))


@alternative("interpolated_prob", "a branch for the empty context, and models without a share left alone")
def mixture_by_branches(models, lambdas, context, token):
    if len(models) != len(lambdas):
        raise ValueError("one share a model")
    if any(share < 0 for share in lambdas):
        raise ValueError("negative share")
    if not math.isclose(math.fsum(lambdas), 1.0, abs_tol=1e-9, rel_tol=0.0):
        raise ValueError("shares must sum to one")
    total = 0
    for order, (model, share) in enumerate(zip(models, lambdas, strict=True), start=1):
        if share:
            seen = () if order == 1 else context[-(order - 1) :]
            total = total + share * model(seen, token)
    return total


@alternative("interpolated_prob", "from the longest context down, dropping the oldest id each time")
def mixture_from_the_top(models, lambdas, context, token):
    if len(models) != len(lambdas) or any(x < 0 for x in lambdas) or abs(1.0 - sum(lambdas)) > 1e-9:
        raise ValueError("shares")
    result, seen = 0.0, tuple(context)
    for i in range(len(models) - 1, -1, -1):
        while len(seen) > i:
            seen = seen[1:]
        result += lambdas[i] * models[i](seen, token)
    return result


# -- perplexity, bits_per_byte


@alternative("perplexity", "numpy's mean")
def perplexity_by_numpy(logprobs):
    if not len(logprobs):
        raise ValueError("empty")
    return np.exp(-np.mean(np.array(logprobs)))


@alternative("perplexity", "a power of two of the mean in bits, by statistics.fmean")
def perplexity_by_bits(logprobs):
    if not logprobs:
        raise ValueError("no tokens")
    return 2 ** statistics.fmean(-x / math.log(2) for x in logprobs)


@alternative("perplexity", "a running product of roots")
def perplexity_by_roots(logprobs):
    if len(logprobs) == 0:
        raise ValueError("no tokens")
    result = 1.0
    for x in logprobs:
        result *= math.exp(-x / len(logprobs))
    return result


@alternative("perplexity", "times log2 of e", replaces="bits_per_byte")
def bits_by_log2_e(total_nll_nats, n_bytes):
    if n_bytes <= 0:
        raise ValueError("no bytes")
    return total_nll_nats * math.log2(math.e) / n_bytes


# -- entropy, cross_entropy_dist, kl


@alternative("entropy", "a plain loop with math.log")
def entropy_by_loop(p):
    return sum(-x * math.log(x) for x in p.tolist() if x > 0)


@alternative("entropy", "numpy's where, with log2 and a change of base")
def entropy_by_where(p):
    return np.sum(np.where(p > 0, -p * np.log2(np.where(p > 0, p, 1)), 0)) * np.log(2)


@alternative("entropy", "a loop that returns early at infinity", replaces="cross_entropy_dist")
def cross_entropy_by_loop(p, q):
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a == 0:
            continue
        if b == 0:
            return float("inf")
        total -= a * math.log(b)
    return total


@alternative("entropy", "entropy and kl added up", replaces="cross_entropy_dist")
def cross_entropy_by_parts(p, q):
    keep = p > 0
    with np.errstate(divide="ignore"):
        excess = p[keep] @ np.log(p[keep] / q[keep])
    return excess + sum(-x * math.log(x) for x in p[keep])


@alternative("entropy", "the logarithm of the ratio", replaces="kl")
def kl_by_ratio(p, q):
    keep = p != 0
    with np.errstate(divide="ignore"):
        return np.sum(p[keep] * np.log(p[keep] / q[keep]))


# -- sample_categorical


@alternative("sample_categorical", "a running sum, and the last possible index if the loop runs out")
def sample_by_running_sum(probs, u):
    total, running, answer = float(sum(probs)), 0.0, 0
    for i, p in enumerate(probs):
        running += p
        if p > 0:
            answer = i
            if u * total < running:
                break
    return answer


@alternative("sample_categorical", "what is left of u, less one share after another, over the possible indices")
def sample_by_subtracting(probs, u):
    p = np.asarray(probs, dtype=float)
    possible = np.nonzero(p)[0]
    left = u * p.sum()
    for i in possible[:-1]:
        left -= p[i]
        if left < 0:
            return i
    return possible[-1]


@alternative("sample_categorical", "normalised sums that end at exactly one, and bisect")
def sample_by_bisect(probs, u):
    ends = list(itertools.accumulate(float(p) for p in probs))
    return bisect_right([end / ends[-1] for end in ends], u)


@alternative("sample_categorical", "exact fractions")
def sample_by_fractions(probs, u):
    exact = [Fraction(float(p)) for p in probs]
    point = Fraction(u) * sum(exact)
    return sum(end <= point for end in itertools.accumulate(exact))


# -- generate


@alternative("generate", "recursion, one id at a time")
def generate_by_recursion(next_dist, prompt, n_new, rng, eos=None):
    if n_new == 0:
        return prompt[:]
    token = reference.sample_categorical(next_dist(prompt), rng.random())
    if eos is not None and token == eos:
        return [*prompt, token]
    return generate_by_recursion(next_dist, [*prompt, token], n_new - 1, rng, eos)


@alternative("generate", "numpy's own choice, which also takes one uniform number a draw")
def generate_by_choice(next_dist, prompt, n_new, rng, eos=None):
    new = []
    while len(new) < n_new and (not new or eos is None or new[-1] != eos):
        p = np.asarray(next_dist(prompt + new), dtype=np.float64)
        new.append(int(rng.choice(len(p), p=p / p.sum())))
    return prompt + new


@alternative("generate", "the random numbers are taken one by one from a generator expression")
def generate_by_iterator(next_dist, prompt, n_new, rng, eos=None):
    out = list(prompt)
    for u in (rng.random() for _ in range(n_new)):
        dist = next_dist(list(out))
        out += [reference.sample_categorical(dist, u)]
        if out[-1] == eos:
            return out
    return out
