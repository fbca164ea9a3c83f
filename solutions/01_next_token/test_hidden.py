"""The whole contract of chapter 1, against brute force, closed forms and a source whose entropy is known."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch

from grader.testing import (
    close,
    counting,
    dataset,
    driver,
    exact,
    exercise,
    holds,
    pure,
    roughly,
    same_distribution,
)

INF = math.inf
LAST_U = 1 - 2**-53
"""The largest float64 below 1."""

markov = dataset("markov")

# ------------------------------------------------------------------------------------------------------ count_ngrams


def documents(rng, count=9, vocab=4, longest=12):
    """Documents of unequal lengths, some shorter than any window, one empty, one of a single id."""
    lengths = [0, 1, 2, longest, *rng.integers(0, longest, count).tolist()]
    return [rng.integers(0, vocab, length).tolist() for length in lengths]


def windows(docs, n):
    """Every run of n ids that lies within one document."""
    return [tuple(doc[i : i + n]) for doc in docs for i in range(len(doc) - n + 1)]


def table(runs):
    """Windows as the nested table of the contract."""
    counts = {}
    for run in runs:
        counts.setdefault(run[:-1], Counter())[run[-1]] += 1
    return counts


@exercise("count_ngrams", weight=2)
@pytest.mark.parametrize("n", [2, 3, 4])
def test_counts_every_window(exercises, rng, n):
    """Each window of n ids counts once, within its own document."""
    docs = documents(rng)
    exact(exercises.count_ngrams(docs, n), table(windows(docs, n)), f"count_ngrams of unequal documents, n={n}")


@exercise("count_ngrams")
def test_counts_without_context(exercises, rng):
    """With n = 1 there is one context, (), with or without bos."""
    docs = documents(rng)
    expected = {(): Counter(itertools.chain(*docs))}
    exact(exercises.count_ngrams(docs, 1), expected, "count_ngrams with n=1")
    exact(exercises.count_ngrams(docs, 1, bos=3), expected, "count_ngrams with n=1 and bos=3")


@exercise("count_ngrams", weight=2)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_counts_pad_the_beginning(exercises, rng, n):
    """With bos, n - 1 copies stand before each document."""
    docs = documents(rng)
    padded = [[9] * (n - 1) + doc for doc in docs]
    exact(exercises.count_ngrams(docs, n, bos=9), table(windows(padded, n)), f"count_ngrams with bos=9, n={n}")
    total = sum(sum(c.values()) for c in exercises.count_ngrams(docs, n, 9).values())
    exact(total, sum(map(len, docs)), "the sum of all counts: with bos every id is predicted once")


@exercise("count_ngrams")
def test_counts_take_bos_zero(exercises, rng):
    """A bos of 0 is a bos, even where 0 is also an ordinary id."""
    docs = documents(rng)
    expected = table(windows([[0, 0, *doc] for doc in docs], 3))
    exact(exercises.count_ngrams(docs, 3, bos=0), expected, "count_ngrams with bos=0, n=3")


@exercise("count_ngrams")
def test_counts_add_up_over_documents(exercises, rng):
    """Counts of two collections add up; the order of documents is nothing."""
    docs = documents(rng, 14)
    whole = exercises.count_ngrams(docs, 3)
    parts = [exercises.count_ngrams(part, 3) for part in (docs[:7], docs[7:])]
    added = {key: sum((Counter(part.get(key, {})) for part in parts), Counter()) for key in parts[0] | parts[1]}
    exact(whole, added, "counts of all documents, against those of two halves added")
    exact(exercises.count_ngrams(docs[::-1], 3), whole, "counts of the documents in reverse order")


@exercise("count_ngrams")
def test_counts_of_nothing(exercises):
    """No window, no key: short documents leave no empty table behind."""
    exact(exercises.count_ngrams([], 2), {}, "count_ngrams([], 2)")
    exact(exercises.count_ngrams([[], [4], [4, 5]], 3), {}, "count_ngrams of documents shorter than n")
    exact(exercises.count_ngrams([[], []], 2, bos=0), {}, "count_ngrams of empty documents with bos")
    expected = {(8, 8, 8): {4: 1}}
    exact(exercises.count_ngrams([[], [4]], 4, bos=8), expected, "count_ngrams of a single id with n=4 and bos")


@driver
def kinds(module, docs):
    """The types that the student's tables have."""
    from collections import Counter

    counts = module.count_ngrams(docs, 2)
    keys = {isinstance(key, tuple) for key in counts}
    return isinstance(counts, dict), keys, {isinstance(c, Counter) for c in counts.values()}, counts[(1,)][999]


@exercise("count_ngrams")
def test_counts_are_counters(exercises):
    """The result is a dict from tuples to Counters, which know 0 for the rest."""
    exact(exercises.run(kinds, [[1, 2, 1]]), (True, {True}, {True}, 0), "the types of the result")


@exercise("count_ngrams")
def test_counts_leave_the_documents_alone(exercises, rng):
    """The documents are the same afterwards."""
    docs = documents(rng)
    exact(pure(exercises.count_ngrams, docs, 3, bos=5), exercises.count_ngrams(docs, 3, bos=5), "count_ngrams")


@exercise("count_ngrams")
def test_counts_need_a_window(exercises):
    """An n below 1 raises ValueError."""
    for n in (0, -2):
        with pytest.raises(ValueError):
            exercises.count_ngrams([[1, 2, 3]], n)


@exercise("count_ngrams")
def test_counts_find_the_chain(exercises, rng):
    """In a long document of a Markov chain the shares are the chain's."""
    P = markov.transitions(rng.seed, size=3, order=2, concentration=2.0)
    counts = exercises.count_ngrams(markov.documents(P, rng.seed, [9000, 1, 7000]), 3)
    for a, b in itertools.product(range(3), repeat=2):
        seen = [counts.get((a, b), {}).get(c, 0) for c in range(3)]
        same_distribution(seen, P[a, b], f"what came after ({a}, {b}) in 16000 ids of a chain")


# -------------------------------------------------------------------------------------------------------- ngram_prob


@driver
def probabilities(module, counts, contexts, vocab_size, *k):
    """For each context the probabilities of the whole vocabulary; and whether counts are as they were."""
    from collections import Counter

    counts = {context: Counter(table) for context, table in counts.items()}
    before = {context: dict(table) for context, table in counts.items()}
    rows = [[module.ngram_prob(counts, c, t, vocab_size, *k) for t in range(vocab_size)] for c in contexts]
    return rows, counts == before


def some_counts(rng, vocab=7, contexts=4):
    """Counts after some contexts of two ids, with zeros among them."""
    rows = rng.integers(0, 6, contexts, vocab)
    rows[:, 1], rows[:, -1] = 0, 3  # id 1 is never seen, the last one always
    return {(i, 2 * i): {t: c for t, c in enumerate(row) if c} for i, row in enumerate(rows.tolist())}


@exercise("ngram_prob", weight=2)
@pytest.mark.parametrize("k", [1.0, 0.3, 2, 0.01])
def test_prob_is_the_smoothed_share(exercises, rng, k):
    """Each probability is (c + k) / (N + k V)."""
    counts = some_counts(rng)
    expected = [[(t.get(i, 0) + k) / (sum(t.values()) + 7 * k) for i in range(7)] for t in counts.values()]
    close(exercises.run(probabilities, counts, list(counts), 7, k)[0], expected, f"ngram_prob with k={k}, V=7")


@exercise("ngram_prob")
def test_prob_adds_one_by_default(exercises, rng):
    """Without k, one is added."""
    counts = some_counts(rng)
    expected = exercises.run(probabilities, counts, list(counts), 8, 1.0)
    close(exercises.run(probabilities, counts, list(counts), 8), expected, "ngram_prob without k, against k=1")


@exercise("ngram_prob", weight=2)
def test_prob_sums_to_one(exercises, rng):
    """Over the vocabulary it sums to one, after seen and unseen contexts."""
    counts = some_counts(rng)
    for k in (0.0, 0.25, 1.0, 50.0):
        rows, _ = exercises.run(probabilities, counts, [*counts, (5, 5), (0, 1)], 11, k)
        close([sum(row) for row in rows], [1.0] * 6, f"the sums over the vocabulary with k={k}")


@exercise("ngram_prob", weight=2)
def test_prob_after_an_unseen_context_is_uniform(exercises, rng):
    """After a context that was never seen all ids are equally likely."""
    counts = some_counts(rng)
    for k in (1.0, 0.5, 0.0, 0):
        rows, _ = exercises.run(probabilities, counts, [(6, 6), (0, 2)], 9, k)
        close(rows, [[1 / 9] * 9] * 2, f"ngram_prob after unseen contexts with k={k}")
    close(exercises.run(probabilities, {}, [()], 4, 2.0)[0], [[0.25] * 4], "ngram_prob with no counts at all")


@exercise("ngram_prob")
def test_prob_without_smoothing_is_the_share(exercises, rng):
    """With k = 0 it is the share of the count; what was not seen gets 0."""
    counts = some_counts(rng)
    expected = [[t.get(i, 0) / sum(t.values()) for i in range(8)] for t in counts.values()]
    rows, _ = exercises.run(probabilities, counts, list(counts), 8, 0)
    close(rows, expected, "ngram_prob with k=0")
    exact([row[1] for row in rows], [0.0] * 4, "the probability of an id that was never seen, with k=0")


@exercise("ngram_prob")
def test_prob_with_large_k_is_uniform(exercises, rng):
    """A k far above all counts makes every id equally likely."""
    counts = some_counts(rng)
    rows, _ = exercises.run(probabilities, counts, list(counts), 7, 1e6)
    # counts are at most 5, so no probability is off by more than about 5 / (7 k)
    roughly(rows, [[1 / 7] * 7] * 4, 1e-6, "ngram_prob with k=1e6")


@exercise("ngram_prob")
def test_prob_of_a_unigram_model(exercises):
    """The empty context is a context like others."""
    rows, _ = exercises.run(probabilities, {(): {0: 3, 2: 1}}, [()], 4, 0.5)
    close(rows, [[3.5 / 6, 0.5 / 6, 1.5 / 6, 0.5 / 6]], "ngram_prob after the context ()")


@exercise("ngram_prob")
def test_prob_leaves_the_counts_alone(exercises, rng):
    """Asking for seen and unseen contexts and ids adds nothing to counts."""
    counts = some_counts(rng)
    _, unchanged = exercises.run(probabilities, counts, [*counts, (9, 9)], 12, 1.0)
    holds(unchanged, "ngram_prob changed counts; look a context up without adding it")


@exercise("ngram_prob")
def test_prob_refuses_a_negative_k(exercises):
    """A negative k raises ValueError."""
    for k in (-1.0, -1e-3):
        with pytest.raises(ValueError):
            exercises.run(probabilities, {(1,): {2: 3}}, [(1,), (0,)], 4, k)


@exercise("ngram_prob")
def test_prob_comes_close_to_the_floor(exercises, rng):
    """The loss lies above the entropy of the source, and not far above."""
    P = markov.transitions(rng.seed, size=5, order=1, concentration=1.0)
    counts = table(windows(markov.documents(P, rng.seed, [40_000]), 2))
    rows, _ = exercises.run(probabilities, counts, [(a,) for a in range(5)], 5, 0.5)
    loss = -float((markov.stationary(P)[:, None] * P * np.log(rows)).sum())  # exact: no test documents are needed
    H = markov.entropy_rate(P)
    # never below H (Gibbs); 25 fitted probabilities cost about 20 / (2 * 40000) = 0.00025 nats
    holds(H - 1e-9 <= loss <= H + 0.005, f"loss {loss:.5f}, entropy of the source {H:.5f}, at most 0.005 above")


# ------------------------------------------------------------------------------------------------- interpolated_prob


def random_models(rng, orders, vocab):
    """Models of order 1 to orders: a distribution for each context, made when it is asked for."""
    rows = rng.uniform(997, vocab) + 0.05
    rows = (rows / rows.sum(-1, keepdim=True)).tolist()

    def model(order):
        return lambda context, token: rows[hash((order, *context)) % 997][token]

    return [counting(model(order)) for order in range(1, orders + 1)]


def ends(context, i):
    """The last i ids of a context, written without a slice."""
    return tuple(reversed([id_ for id_, _ in zip(reversed(context), range(i), strict=False)]))


def asked(model):
    """What a counting model was asked, after a check that each context was a tuple."""
    holds(all(type(context) is tuple for context, _ in model.arguments), "each model must get its context as a tuple")
    return set(model.arguments)


SHARES = {1: [1.0], 2: [0.3, 0.7], 3: [0.5, 0.125, 0.375], 4: [0.1, 0.2, 0.3, 0.4]}


@exercise("interpolated_prob", weight=2)
@pytest.mark.parametrize("orders", [1, 2, 3, 4])
def test_mixture_is_the_weighted_sum(exercises, rng, orders):
    """It is the sum of share times probability, each share its own model's."""
    models, shares = random_models(rng, orders, 5), SHARES[orders]
    for token in range(5):
        context = tuple(rng.integers(0, 5, orders - 1).tolist())
        expected = sum(shares[i] * model(ends(context, i), token) for i, model in enumerate(models))
        got = exercises.interpolated_prob(models, shares, context, token)
        close(got, expected, f"interpolated_prob of {orders} models with the shares {shares}")


@exercise("interpolated_prob", weight=2)
def test_mixture_hands_on_the_last_ids(exercises, rng):
    """Model i is asked with the last i ids, the first one with ()."""
    for context in ((3, 1, 4), (2, 7, 1, 8, 2, 8), (5, 5, 6)):
        models = random_models(rng, 4, 9)
        exercises.interpolated_prob(models, [0.4, 0.3, 0.2, 0.1], context, 6)
        for i, model in enumerate(models):
            exact(asked(model), {(ends(context, i), 6)}, f"what models[{i}] was asked, context {context}")


@exercise("interpolated_prob")
def test_mixture_of_a_short_context(exercises, rng):
    """A model whose context is not full yet gets all ids there are."""
    for context in ((), (4,), (4, 2)):
        models = random_models(rng, 5, 6)
        exercises.interpolated_prob(models, [0.2] * 5, context, 3)
        expected = [{(ends(context, i), 3)} for i in range(5)]
        exact([asked(model) for model in models], expected, f"what five models were asked, context {context}")


@exercise("interpolated_prob")
def test_mixture_is_a_distribution(exercises, rng):
    """Mixed distributions sum to one over the vocabulary."""
    models = random_models(rng, 3, 6)
    total = sum(exercises.interpolated_prob(models, [0.2, 0.3, 0.5], (1, 4), t) for t in range(6))
    close(total, 1.0, "the mixture summed over the vocabulary")


@exercise("interpolated_prob")
def test_mixture_with_one_share_is_one_model(exercises, rng):
    """A share of one leaves a single model."""
    models = random_models(rng, 3, 6)
    for i in range(3):
        shares = [float(i == j) for j in range(3)]
        expected = models[i](ends((2, 5), i), 4)
        close(exercises.interpolated_prob(models, shares, (2, 5), 4), expected, f"interpolated_prob with {shares}")


@exercise("interpolated_prob")
def test_mixture_mixes_even_when_a_model_says_zero(exercises):
    """A model that gives 0 keeps its share, and so do all others."""
    for given in ([0.25, 0.5, 0.0], [0.25, 0.0, 0.8], [0.0, 0.5, 0.4], [0.0, 0.0, 0.0]):
        models = [lambda context, token, p=p: p for p in given]
        expected = 0.2 * given[0] + 0.3 * given[1] + 0.5 * given[2]
        close(exercises.interpolated_prob(models, [0.2, 0.3, 0.5], (1, 2), 3), expected, f"a mixture of {given}")


@exercise("interpolated_prob", weight=2)
@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.5, 0.6], [2.0, 3.0], [0.0, 0.0], [0.5, 0.5 + 1e-7]])
def test_mixture_needs_shares_that_sum_to_one(exercises, shares):
    """Shares that do not sum to one raise ValueError."""
    models = [lambda context, token: 0.5, lambda context, token: 0.25]
    with pytest.raises(ValueError):
        exercises.interpolated_prob(models, shares, (1,), 0)


@exercise("interpolated_prob")
@pytest.mark.parametrize("shares", [[-0.5, 1.5], [1.25, -0.25], [1.0], [0.5, 0.25, 0.25], []])
def test_mixture_needs_one_share_a_model(exercises, shares):
    """A negative share, or another number of shares, raises ValueError."""
    models = [lambda context, token: 0.5, lambda context, token: 0.25]
    with pytest.raises(ValueError):
        exercises.interpolated_prob(models, shares, (1,), 0)


@exercise("interpolated_prob")
def test_mixture_forgives_rounding(exercises):
    """Shares whose float sum misses one by rounding are accepted."""
    models = [lambda context, token, p=p: p / 10 for p in range(10)]
    close(exercises.interpolated_prob(models, [0.1] * 10, tuple(range(9)), 0), 0.45, "ten models with shares of 0.1")
    shares = [0.7, 0.1, 0.2 + 1e-12]
    close(exercises.interpolated_prob(models[5:8], shares, (1, 2), 0), 0.35 + 0.06 + 0.14, "shares off by 1e-12")


@exercise("interpolated_prob")
def test_mixture_never_beats_the_source(exercises, rng):
    """Only the share (0, 0, 1) reaches the entropy of a second-order chain."""
    P = markov.transitions(rng.seed, size=3, order=2, concentration=0.7)
    pi, pairs = markov.unigram(P), markov.stationary(P)
    tables = [pi, pairs / pi[:, None], P]  # the exact distribution of the next id, given 0, 1 and 2 ids
    models = [lambda context, token, p=p: float(p[(*context, token)]) for p in tables]
    losses = []
    for shares in ([0.0, 0.0, 1.0], [0.2, 0.3, 0.5]):
        mixed = [
            exercises.interpolated_prob(models, shares, c[:2], c[2]) for c in itertools.product(range(3), repeat=3)
        ]
        losses.append(-float((pairs[..., None] * P * np.log(np.array(mixed).reshape(3, 3, 3))).sum()))
    close(losses[0], markov.entropy_rate(P), "the loss with all the share on the true model")
    holds(losses[1] > losses[0], "the loss with shares on shorter contexts lies above the entropy of the source")


# ----------------------------------------------------------------------------------------- perplexity, bits_per_byte


@exercise("perplexity")
@pytest.mark.parametrize("m", [2, 7, 50_257])
def test_perplexity_of_a_uniform_model(exercises, m):
    """A model that takes m ids for equally likely has perplexity m."""
    for length in (1, 2, 13):
        close(exercises.perplexity([-math.log(m)] * length), float(m), f"perplexity of {length} tokens, each 1/{m}")


@exercise("perplexity", weight=2)
def test_perplexity_is_the_inverse_geometric_mean(exercises, rng):
    """It is one over the geometric mean of the probabilities."""
    for length in (2, 3, 8, 41):
        p = (0.02 + 0.9 * rng.uniform(length)).tolist()
        got = pure(exercises.perplexity, [math.log(x) for x in p])
        close(got, math.prod(p) ** (-1 / length), f"perplexity of {length} tokens")


@exercise("perplexity")
def test_perplexity_of_a_repeated_text(exercises, rng):
    """Repeating or reordering the tokens changes nothing."""
    logprobs = (-3 * rng.uniform(9)).tolist()
    once = exercises.perplexity(logprobs)
    close(exercises.perplexity(logprobs * 6), once, "perplexity of a text six times over")
    close(exercises.perplexity(logprobs[::-1]), once, "perplexity of the tokens in reverse order")
    holds(once > 1, "perplexity is above one when no token was certain")


@exercise("perplexity")
def test_perplexity_counts_every_token_alike(exercises):
    """The first and the last token weigh as much as the others."""
    for place in (0, 1, 2, 3):
        logprobs = [0.0] * 4
        logprobs[place] = -math.log(16)
        close(exercises.perplexity(logprobs), 2.0, f"perplexity when only token {place} of 4 was uncertain, 1/16")


@exercise("perplexity")
def test_perplexity_at_the_ends(exercises):
    """Certain tokens give one; an impossible token gives infinity."""
    close(exercises.perplexity([0.0, 0.0, 0.0]), 1.0, "perplexity of a text that the model was certain of")
    close(exercises.perplexity((-0.5,)), math.exp(0.5), "perplexity of a tuple of one token")
    exact(exercises.perplexity([-1.0, -INF, -0.5]), INF, "perplexity of a text with an impossible token")


@exercise("perplexity", weight=2)
def test_perplexity_of_a_long_text(exercises, rng):
    """Thirty thousand tokens do not underflow."""
    logprobs = (-6 * rng.uniform(30_000)).tolist()
    mean = math.fsum(logprobs) / len(logprobs)
    close(exercises.perplexity(logprobs), math.exp(-mean), "perplexity of 30000 tokens")
    close(exercises.perplexity([-40.0] * 40), math.exp(40.0), "perplexity of 40 tokens of probability e^-40")


@exercise("perplexity")
def test_perplexity_of_the_source_itself(exercises, rng):
    """The source's own perplexity is e to its entropy rate, up to chance."""
    P = markov.transitions(rng.seed, size=6, order=2, concentration=1.0)
    logprobs = markov.log_probs(P, markov.documents(P, rng.seed, [8000])[0])
    H, got = markov.entropy_rate(P), exercises.perplexity(logprobs.tolist())
    # the mean of 8000 terms of spread about 0.8 strays by about 0.01; ten times that is far beyond chance
    roughly(math.log(got), H, 10 * float(logprobs.std()) / math.sqrt(8000), "ln of the perplexity of the source itself")


@exercise("perplexity")
def test_perplexity_of_nothing(exercises):
    """A text without tokens raises ValueError."""
    with pytest.raises(ValueError):
        exercises.perplexity([])


@exercise("perplexity", weight=2)
def test_bits_per_byte_counts_bits(exercises, rng):
    """A text of probability 2^-b over n bytes has b / n bits per byte."""
    for bits, n_bytes in ((3, 1), (1, 3), (17, 5), (5_000_000, 4_999_999), (0, 4)):
        got = exercises.bits_per_byte(bits * math.log(2), n_bytes)
        close(got, bits / n_bytes, f"bits_per_byte of {bits} bits over {n_bytes} bytes")


@exercise("perplexity")
def test_bits_per_byte_of_a_byte_model(exercises, rng):
    """Where each token is a byte it is the base-2 log of the perplexity."""
    logprobs = (-4 * rng.uniform(23) - 0.1).tolist()
    got = exercises.bits_per_byte(-sum(logprobs), 23)
    close(got, math.log2(exercises.perplexity(logprobs)), "bits_per_byte of a model whose tokens are bytes")
    close(exercises.bits_per_byte(-2 * sum(logprobs), 46), got, "bits_per_byte of the text twice over")


@exercise("perplexity")
def test_bits_per_byte_needs_bytes(exercises):
    """Less than one byte raises ValueError."""
    for n_bytes in (0, -3):
        with pytest.raises(ValueError):
            exercises.bits_per_byte(5.0, n_bytes)


# ---------------------------------------------------------------------------------- entropy, cross_entropy_dist, kl


def distribution(rng, size, zeros=()):
    """Random probabilities, with exact zeros where told."""
    p = rng.uniform(size).numpy() + 0.02
    p[list(zeros)] = 0.0
    return p / p.sum()


@exercise("entropy", weight=2)
def test_entropy_agrees_with_torch(exercises, rng):
    """It is the sum of -p ln p, with zeros and without."""
    for size, zeros in ((5, ()), (9, (0, 4, 8)), (2, ()), (300, range(3, 90))):
        p = distribution(rng, size, zeros)
        expected = float(torch.special.entr(torch.from_numpy(p)).sum())
        close(pure(exercises.entropy, p), expected, f"entropy of {size} probabilities, {len(zeros)} of them 0")


@exercise("entropy")
def test_entropy_is_largest_when_uniform(exercises, rng):
    """Uniform over V gives ln V; mixing towards uniform raises it."""
    for V in (2, 10, 2**17):  # over so many, even a 1e-12 inside the logarithm shows
        close(exercises.entropy(np.full(V, 1 / V)), math.log(V), f"entropy of {V} equally likely outcomes")
    p = distribution(rng, 6)
    values = [exercises.entropy((1 - t) * p + t / 6) for t in (0.0, 0.3, 0.7, 1.0)]
    holds(
        values == sorted(values) and values[0] < values[-1], "the entropy rises on the way to the uniform distribution"
    )


@exercise("entropy", weight=2)
def test_entropy_of_certainty_is_zero(exercises):
    """A certain outcome has entropy 0, wherever the zeros are."""
    for place in range(3):
        exact(exercises.entropy(np.eye(3)[place]), 0.0, f"entropy when outcome {place} is certain")
    got = exercises.entropy(np.array([0.0, 0.5, 0.0, 0.5]))
    close(got, math.log(2), "entropy of (0, 1/2, 0, 1/2)")


@exercise("entropy")
def test_entropies_of_independent_parts_add(exercises, rng):
    """The entropy of two independent draws is the sum of theirs."""
    p, q = distribution(rng, 3, (1,)), distribution(rng, 4)
    total = exercises.entropy(p) + exercises.entropy(q)
    close(exercises.entropy(np.outer(p, q).ravel()), total, "entropy of a pair of independent draws")


@exercise("entropy", weight=2)
def test_cross_entropy_by_hand(exercises, rng):
    """It is the sum of -p ln q, taken in this order."""
    for size, zeros in ((4, ()), (7, (2, 6)), (50, range(10, 20))):
        p, q = distribution(rng, size, zeros), distribution(rng, size)
        expected = -sum(a * math.log(b) for a, b in zip(p.tolist(), q.tolist(), strict=True))
        got = pure(exercises.cross_entropy_dist, p, q)
        close(got, expected, f"cross_entropy_dist of {size} outcomes, {len(zeros)} of which never happen")


@exercise("entropy", weight=2)
def test_cross_entropy_of_what_cannot_be(exercises):
    """A zero of q is infinite where p is positive, and nothing elsewhere."""
    p, q = np.array([0.5, 0.0, 0.5, 0.0]), np.array([0.25, 0.0, 0.25, 0.5])
    close(exercises.cross_entropy_dist(p, q), math.log(4), "cross_entropy_dist where only impossible outcomes get 0")
    close(exercises.kl(p, q), math.log(2), "kl where only impossible outcomes get 0")
    q = np.array([0.0, 0.5, 0.25, 0.25])
    exact(exercises.cross_entropy_dist(p, q), INF, "cross_entropy_dist where q says that p's outcome cannot be")
    exact(exercises.kl(p, q), INF, "kl where q says that p's outcome cannot be")


@exercise("entropy", weight=2)
def test_kl_agrees_with_torch(exercises, rng):
    """It is the sum of p ln (p / q), taken in this order."""
    for size in (3, 8, 60):
        p, q = distribution(rng, size, (1,)), distribution(rng, size)
        wide = torch.from_numpy(p), torch.from_numpy(q)
        expected = float(torch.nn.functional.kl_div(wide[1].log(), wide[0], reduction="sum"))
        close(pure(exercises.kl, p, q), expected, f"kl of {size} outcomes")


@exercise("entropy")
def test_cross_entropy_is_entropy_plus_kl(exercises, rng):
    """The cross-entropy is the unavoidable part plus the excess."""
    for size in (2, 5, 31):
        p, q = distribution(rng, size), distribution(rng, size)
        parts = exercises.entropy(p) + exercises.kl(p, q)
        close(exercises.cross_entropy_dist(p, q), parts, f"cross_entropy_dist against entropy + kl, {size} outcomes")


@exercise("entropy")
def test_kl_is_zero_only_for_the_truth(exercises, rng):
    """It is 0 for q = p and positive for any other q."""
    p = distribution(rng, 6, (3,))
    roughly(exercises.kl(p, p), 0.0, 1e-12, "kl(p, p)")  # rounding only
    values = [exercises.kl(p, (1 - t) * p + t * distribution(rng, 6)) for t in (1.0, 0.3, 0.03)]
    holds(min(values) > 1e-6, f"kl of p and another distribution is positive, but one of {values} is not")


@exercise("entropy")
def test_entropy_rate_of_a_chain(exercises, rng):
    """Averaged over contexts, the rows of a chain have its entropy rate."""
    P = markov.transitions(rng.seed, size=7, order=1, concentration=0.6)
    pi = markov.stationary(P)
    rate = sum(float(w) * exercises.entropy(row) for w, row in zip(pi, P, strict=True))
    close(rate, markov.entropy_rate(P), "the mean entropy of the rows of a Markov chain")
    gain = sum(float(w) * exercises.kl(row, pi) for w, row in zip(pi, P, strict=True))
    close(gain, markov.unigram_entropy(P) - rate, "what knowing the last id is worth: the mean kl of row and unigram")


# ------------------------------------------------------------------------------------------------- sample_categorical


@driver
def draws(module, probs, us):
    """One draw for each u."""
    return [int(module.sample_categorical(probs, u)) for u in us]


@exercise("sample_categorical", weight=2)
def test_sample_fills_the_grid(exercises, rng):
    """Over an even grid of u, each index takes its share."""
    p = distribution(rng, 7, (0, 3))
    got = exercises.run(draws, p, [(i + 0.5) / 10_000 for i in range(10_000)])
    shares = np.bincount(got, minlength=7) / 10_000
    # a segment of length p holds p / step grid points, give or take one
    roughly(shares, p, 1.001e-4, "the share of each index over 10000 evenly spaced u")
    holds(got == sorted(got), "as u grows the index never falls")


@exercise("sample_categorical", weight=2)
def test_sample_changes_at_the_cumulative_sums(exercises):
    """At u equal to a cumulative sum the next index begins."""
    p = [0.25, 0.125, 0.0, 0.5, 0.125]  # exact in binary
    us = [0.0, 0.2, 0.25, 0.3, 0.375, 0.5, 0.874, 0.875, 0.9]
    exact(exercises.run(draws, p, us), [0, 0, 1, 1, 3, 3, 3, 4, 4], f"draws from {p} at u = {us}")


@exercise("sample_categorical")
def test_sample_takes_lists_and_arrays(exercises):
    """A list and an array of the same numbers give the same draw, an int."""
    for u in (0.1, 0.6, 0.95):
        expected = 0 if u < 0.5 else 1 if u < 0.75 else 2
        for probs in ([0.5, 0.25, 0.25], np.array([0.5, 0.25, 0.25]), [2, 1, 1], np.array([2, 1, 1])):
            got = pure(exercises.sample_categorical, probs, u)
            holds(type(got) is int, f"sample_categorical must return an int, but returned {got!r}")
            exact(got, expected, f"sample_categorical({probs!r}, {u})")


@exercise("sample_categorical", weight=2)
def test_sample_never_draws_the_impossible_at_zero(exercises):
    """At u = 0 leading zeros are passed over."""
    for probs in ([0.0, 1.0], [0.0, 0.0, 0.3, 0.7], [0, 0, 0, 5], [0.0, 1e-300, 1.0]):
        first = next(i for i, p in enumerate(probs) if p > 0)
        exact(exercises.sample_categorical(probs, 0.0), first, f"sample_categorical({probs}, 0.0)")


@exercise("sample_categorical", weight=2)
def test_sample_never_draws_the_impossible_at_the_end(exercises, rng):
    """At the largest u below 1 the last possible index is drawn."""
    cases = [[0.1] * 10, [0.1] * 10 + [0.0], [1 / 3] * 3 + [0.0, 0.0], [0.7, 0.2, 0.1, 0.0], [1 / 49] * 49, [3, 0, 0]]
    cases += [distribution(rng, size, (size - 1,)).tolist() for size in (5, 17, 200, 1001, 3000)]
    for probs in cases:
        last = max(i for i, p in enumerate(probs) if p > 0)  # its share is far above the rounding of any sum
        exact(exercises.sample_categorical(probs, LAST_U), last, f"the draw from {len(probs)} numbers at u = 1 - 2^-53")


@exercise("sample_categorical")
def test_sample_normalises(exercises, rng):
    """Only the ratios count: counts serve as well as probabilities."""
    p, us = distribution(rng, 6), rng.uniform(200).tolist()
    expected = exercises.run(draws, p, us)
    for scale in (1024.0, 2.0**-30):
        exact(
            exercises.run(draws, p * scale, us),
            expected,
            f"200 draws when all probabilities are {scale:g} times as large",
        )
    exact(exercises.run(draws, [6, 0, 2], [0.5, 0.74, 0.76]), [0, 0, 2], "draws from the counts 6, 0, 2")


@exercise("sample_categorical")
def test_sample_of_one_possible_index(exercises):
    """Where one index alone is possible, every u gives it."""
    for place in (0, 2, 4):
        got = exercises.run(draws, np.eye(5)[place], [0.0, 0.3, 0.999, 1 - 2**-53])
        exact(got, [place] * 4, f"draws when only index {place} is possible")
    exact(exercises.run(draws, [0.4], [0.0, 0.5, 1 - 2**-53]), [0, 0, 0], "draws from a vocabulary of one")


@exercise("sample_categorical")
def test_sample_follows_the_probabilities(exercises, rng):
    """Random u give draws with the given probabilities."""
    p = distribution(rng, 9, (5,))
    got = exercises.run(draws, p, rng.uniform(20_000).tolist())
    same_distribution(np.bincount(got, minlength=9), p, "20000 draws")


# ----------------------------------------------------------------------------------------------------------- generate


def memoryful(seed, vocab=6):
    """A model whose distribution depends on every id so far, and on their order."""

    def next_dist(ids):
        rnd = random.Random(repr((seed, [int(i) for i in ids])))
        row = [rnd.random() + 0.01 for _ in range(vocab)]
        return [x / sum(row) for x in row]

    return next_dist


def replay(next_dist, prompt, n_new, rng):
    """The contract once more, with running sums."""
    ids = list(prompt)
    for _ in range(n_new):
        u, ends_at = rng.random(), itertools.accumulate(next_dist(ids))
        ids.append(next(token for token, end in enumerate(ends_at) if end > u))
    return ids


@exercise("generate", weight=2)
@pytest.mark.parametrize("prompt", [[3, 1, 4], [2], []])
def test_generate_draws_from_the_model(exercises, rng, prompt):
    """Each id is the draw from the model's distribution with its own u."""
    model = memoryful(rng.seed)
    expected = replay(model, prompt, 25, np.random.default_rng(rng.seed))
    got = pure(exercises.generate, model, prompt, 25, np.random.default_rng(rng.seed))
    exact(got, expected, f"25 new ids after the prompt {prompt}")


@exercise("generate", weight=2)
def test_generate_shows_the_model_everything(exercises, rng):
    """The model is asked once a new id, with prompt and all ids so far."""
    model = counting(memoryful(rng.seed))
    got = exercises.generate(model, [5, 0, 2], 8, np.random.default_rng(rng.seed))
    exact(len(got), 11, "the length of a prompt of 3 and 8 new ids")
    asked = [list(arguments[0]) for arguments in model.arguments]
    exact(asked, [got[:i] for i in range(3, 11)], "the ids that the model was asked with, call by call")


def spelling(*tokens):
    """A model that is certain: it says these ids one after another, then the last one for ever."""
    return lambda ids: np.eye(10)[tokens[min(len(ids), len(tokens) - 1)]]


@exercise("generate", weight=2)
def test_generate_stops_behind_eos(exercises):
    """The text ends with the first eos that is drawn, which is included."""
    for eos, expected in ((7, [1, 5, 3, 7]), (3, [1, 5, 3]), (5, [1, 5]), (9, [1, 5, 3, 7, 2, 7, 4])):
        model = counting(spelling(1, 5, 3, 7, 2, 7, 4))
        exact(
            exercises.generate(model, [1], 6, np.random.default_rng(0), eos=eos), expected, f"generate with eos={eos}"
        )
        exact(model.calls, len(expected) - 1, f"how often the model was called with eos={eos}")


@exercise("generate")
def test_generate_takes_eos_zero(exercises):
    """An eos of 0 ends the text like any other."""
    for eos, expected in ((2, [6, 2]), (0, [6, 2, 0])):
        got = exercises.generate(spelling(6, 2, 0, 4, 5), [6], 4, np.random.default_rng(0), eos)
        exact(got, expected, f"generate with eos={eos}")
    got = exercises.generate(spelling(6, 2, 0, 4, 5), [6], 4, np.random.default_rng(0))
    exact(got, [6, 2, 0, 4, 5], "generate without eos")


@exercise("generate")
def test_generate_reads_over_eos_in_the_prompt(exercises):
    """An eos in the prompt ends nothing, not even at its end."""
    got = exercises.generate(spelling(7, 3, 7, 1, 2, 7, 5), [7, 3, 7], 4, np.random.default_rng(0), eos=7)
    exact(got, [7, 3, 7, 1, 2, 7], "generate with eos=7 after the prompt [7, 3, 7]")


@exercise("generate")
def test_generate_nothing_new(exercises, rng):
    """With n_new = 0 the prompt comes back; the model is not asked."""
    model, generator = counting(memoryful(0)), np.random.default_rng(rng.seed)
    exact(exercises.generate(model, [4, 4, 2], 0, generator), [4, 4, 2], "generate with n_new=0")
    exact(exercises.generate(model, [], 0, generator, eos=1), [], "generate with n_new=0 and no prompt")
    exact(model.calls, 0, "how often the model was called")
    exact(generator.random(), np.random.default_rng(rng.seed).random(), "the generator's next number: none was taken")


@driver
def is_the_prompt_itself(module, n_new):
    """Whether the list that comes back is the caller's own."""
    import numpy as np

    prompt = [1, 2]
    return [module.generate(lambda ids: [0.5, 0.5], prompt, n, np.random.default_rng(0)) is prompt for n in n_new]


@exercise("generate")
def test_generate_gives_a_new_list(exercises):
    """The result is a new list, so that changing it leaves the prompt alone."""
    exact(exercises.run(is_the_prompt_itself, [0, 3]), [False, False], "is the result the caller's own list")


@exercise("generate")
def test_generate_is_moved_by_the_generator_alone(exercises, rng):
    """Equal seeds write alike; the same generator goes on; seeds matter."""
    model = memoryful(rng.seed)
    one, two = np.random.default_rng(rng.seed), np.random.default_rng(rng.seed)
    first = exercises.generate(model, [1, 2], 30, one)
    exact(exercises.generate(model, [1, 2], 30, two), first, "a second text from the same seed")
    second = exercises.generate(model, [1, 2], 30, one)
    exact(exercises.generate(model, [1, 2], 30, two), second, "the next text of both generators")
    third = exercises.generate(model, [1, 2], 30, np.random.default_rng(rng.seed + 1))
    holds(first != second and first != third, "another state of the generator gives another text")


@driver
def written_by_a_chain(module, P, pieces, seed):
    """Let the student's loop write a long text with a table for a model, a hundred ids at a time."""
    import numpy as np

    ids, rng = [0], np.random.default_rng(seed)
    for _ in range(pieces):
        ids += [int(i) for i in module.generate(lambda ids: P[ids[-1]], ids[-1:], 100, rng)][1:]
    return ids


@exercise("generate")
def test_generate_writes_what_the_chain_would(exercises, rng):
    """A text written from a chain's table has the chain's statistics."""
    P = markov.transitions(rng.seed, size=4, order=1, concentration=2.0)
    ids = exercises.run(written_by_a_chain, P, 60, rng.seed)
    for a in range(4):
        seen = [sum(x == a and y == b for x, y in itertools.pairwise(ids)) for b in range(4)]
        same_distribution(seen, P[a], f"what was written after {a}")
