"""Typical wrong answers of chapter 1."""

import itertools
import math
from collections import Counter

import numpy as np

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- count_ngrams


def counted(docs, n, bos, runs):
    """Count what `runs(ids, n)` gives for each padded document, as pairs of context and next id."""
    if n < 1:
        raise ValueError("n < 1")
    counts = {}
    for doc in docs:
        ids = list(doc) if bos is None else [bos] * (n - 1) + list(doc)
        for context, token in runs(ids, n):
            counts.setdefault(context, Counter())[token] += 1
    return counts


@misconception("count_ngrams", "The last window of each document is missing; positions run from n - 1 to the end.")
def drops_the_last_window(docs, n, bos=None):
    return counted(
        docs, n, bos, lambda ids, n: [(tuple(ids[i : i + n - 1]), ids[i + n - 1]) for i in range(len(ids) - n)]
    )


@misconception("count_ngrams", "Your context is turned round; it is a tuple in reading order, the nearest id last.")
def reverses_the_context(docs, n, bos=None):
    return {context[::-1]: counter for context, counter in reference.count_ngrams(docs, n, bos).items()}


@misconception("count_ngrams", "Your context has n ids; a window of n ids is n - 1 ids of context and the next one.")
def context_of_n(docs, n, bos=None):
    reference.count_ngrams([], n)
    return reference.count_ngrams(docs, n + 1, bos)


@misconception(
    "count_ngrams", "You join all documents first, so windows reach from one into the next; keep them apart."
)
def crosses_documents(docs, n, bos=None):
    padding = [] if bos is None else [bos] * (n - 1)
    return reference.count_ngrams([list(itertools.chain(*(padding + doc for doc in docs)))], n)


@misconception("count_ngrams", "You put one bos in front; a context of n - 1 ids needs n - 1 copies.")
def pads_once(docs, n, bos=None):
    return reference.count_ngrams(docs if bos is None else [[bos, *doc] for doc in docs], n)


@misconception("count_ngrams", "A bos of 0 is taken for no bos; ask whether it `is None`, not whether it is true.")
def zero_is_no_bos(docs, n, bos=None):
    return reference.count_ngrams(docs, n, bos or None)


@misconception("count_ngrams", "Each window counts once for every time it occurs; you count each kind of window once.")
def counts_kinds(docs, n, bos=None):
    counts = reference.count_ngrams(docs, n, bos)
    return {context: Counter(dict.fromkeys(counter, 1)) for context, counter in counts.items()}


@misconception("count_ngrams", "You pad the caller's own lists; build a new list for each document.")
def pads_in_place(docs, n, bos=None):
    if bos is not None and n > 0:
        for doc in docs:
            doc[:0] = [bos] * (n - 1)
    return reference.count_ngrams(docs, n)


# -- ngram_prob


def seen(counts, context, token):
    table = counts.get(context, {})
    return table.get(token, 0), sum(table.values())


@misconception("ngram_prob", "k is added for one id below the line; it is added for all of them: N + k V.")
def k_not_times_v(counts, context, token, vocab_size, k=1.0):
    reference.ngram_prob(counts, context, token, vocab_size, k)
    c, N = seen(counts, context, token)
    return (c + k) / (N + k) if N + k else 1 / vocab_size


@misconception("ngram_prob", "After a context that was never seen you answer 0; with nothing known, all ids are equal.")
def unseen_context_is_impossible(counts, context, token, vocab_size, k=1.0):
    answer = reference.ngram_prob(counts, context, token, vocab_size, k)
    return answer if context in counts else 0.0


@misconception("ngram_prob", "You add k to the ids that were not seen only; every id of the vocabulary gets it.")
def k_for_the_unseen_only(counts, context, token, vocab_size, k=1.0):
    answer = reference.ngram_prob(counts, context, token, vocab_size, k)
    c, N = seen(counts, context, token)
    return c / (N + k * vocab_size) if c else answer


@misconception("ngram_prob", "You multiply k by the number of ids seen after this context; V is the whole vocabulary.")
def v_is_what_was_seen(counts, context, token, vocab_size, k=1.0):
    answer = reference.ngram_prob(counts, context, token, vocab_size, k)
    c, N = seen(counts, context, token)
    return (c + k) / (N + k * len(counts[context])) if N else answer


@misconception("ngram_prob", "You always add one; the amount added to each count is k.")
def always_adds_one(counts, context, token, vocab_size, k=1.0):
    reference.ngram_prob(counts, context, token, vocab_size, k)
    return reference.ngram_prob(counts, context, token, vocab_size)


@misconception("ngram_prob", "With k = 0 an unseen context divides 0 by 0; the answer there is 1 / V as for any k.")
def zero_by_zero(counts, context, token, vocab_size, k=1.0):
    if k < 0:
        raise ValueError("k < 0")
    c, N = seen(counts, context, token)
    return (c + k) / (N + k * vocab_size)


@misconception("ngram_prob", "Asking for an unseen context puts it into counts; look it up without adding it.")
def adds_the_context(counts, context, token, vocab_size, k=1.0):
    answer = reference.ngram_prob(counts, context, token, vocab_size, k)
    counts.setdefault(context, Counter())
    return answer


@misconception("ngram_prob", "k is added above the line only, so the sum exceeds one; add k V below it too.")
def k_above_only(counts, context, token, vocab_size, k=1.0):
    answer = reference.ngram_prob(counts, context, token, vocab_size, k)
    c, N = seen(counts, context, token)
    return (c + k) / N if N else answer


# -- interpolated_prob


def checked(models, lambdas):
    reference.interpolated_prob([lambda context, token: 0.0] * len(models), lambdas, (), 0)


def mixed(models, lambdas, contexts, token):
    return sum(share * model(context, token) for share, model, context in zip(lambdas, models, contexts, strict=True))


def cut(context, i):
    return context[max(0, len(context) - i) :]


@misconception("interpolated_prob", "The shares are in reverse order: lambdas[i] belongs to models[i].")
def shares_reversed(models, lambdas, context, token):
    return reference.interpolated_prob(models, list(lambdas)[::-1], context, token)


@misconception(
    "interpolated_prob", "You divide by the sum of the shares; shares that do not sum to 1 are a ValueError."
)
def renormalises(models, lambdas, context, token):
    if len(models) != len(lambdas) or min(lambdas) < 0:
        raise ValueError("shares")
    total = sum(lambdas) or 1.0
    return mixed(models, [share / total for share in lambdas], [cut(context, i) for i in range(len(models))], token)


@misconception(
    "interpolated_prob", "You take the first model that does not say 0, from the longest down; here all are mixed."
)
def falls_back_on_zero(models, lambdas, context, token):
    checked(models, lambdas)
    given = [model(cut(context, i), token) for i, model in enumerate(models)]
    return next((p for p in reversed(given) if p > 0), 0.0)


@misconception(
    "interpolated_prob", "You cut the first i ids of the context; the last i are the ones next to the token."
)
def takes_the_first_ids(models, lambdas, context, token):
    checked(models, lambdas)
    return mixed(models, lambdas, [context[:i] for i in range(len(models))], token)


@misconception("interpolated_prob", "context[-0:] is the whole context, so the unigram model does not get ().")
def minus_zero(models, lambdas, context, token):
    checked(models, lambdas)
    return mixed(models, lambdas, [context[-i:] for i in range(len(models))], token)


@misconception("interpolated_prob", "Each model gets the whole context; models[i] knows contexts of i ids only.")
def never_cuts(models, lambdas, context, token):
    checked(models, lambdas)
    return mixed(models, lambdas, [context] * len(models), token)


@misconception("interpolated_prob", "models[i] gets i + 1 ids; its order is i + 1, so its context has i.")
def one_id_too_many(models, lambdas, context, token):
    checked(models, lambdas)
    return mixed(models, lambdas, [cut(context, i + 1) for i in range(len(models))], token)


@misconception("interpolated_prob", "You multiply powers of the probabilities; the mixture is their weighted sum.")
def geometric_mean(models, lambdas, context, token):
    checked(models, lambdas)
    return math.prod(
        m(cut(context, i), token) ** share for i, (m, share) in enumerate(zip(models, lambdas, strict=True))
    )


# -- perplexity, bits_per_byte


def needs_tokens(logprobs):
    if len(logprobs) == 0:
        raise ValueError("no tokens")


@misconception("perplexity", "You raise 2 to a mean in nats; logarithms in base e need a power of e.")
def power_of_two(logprobs):
    needs_tokens(logprobs)
    return 2.0 ** (-sum(logprobs) / len(logprobs))


@misconception("perplexity", "You take e to the sum; perplexity is per token: divide by the number of tokens first.")
def sum_instead_of_mean(logprobs):
    needs_tokens(logprobs)
    return float(np.exp(-sum(logprobs)))


@misconception("perplexity", "You divide by one token too few; every entry of the list was predicted and counts.")
def divides_by_n_minus_one(logprobs):
    needs_tokens(logprobs)
    return float(np.exp(-sum(logprobs) / max(1, len(logprobs) - 1)))


@misconception("perplexity", "The minus sign is missing: this is the mean probability, not how many ids it stands for.")
def minus_missing(logprobs):
    return 1 / reference.perplexity(logprobs)


@misconception(
    "perplexity", "You average 1 / p over the tokens; average the logarithms and take the exponential after."
)
def mean_of_inverses(logprobs):
    needs_tokens(logprobs)
    return float(np.mean(np.exp(-np.asarray(logprobs))))


@misconception("perplexity", "You multiply the probabilities, which underflows on a long text; add their logarithms.")
def multiplies(logprobs):
    needs_tokens(logprobs)
    return math.prod(math.exp(x) for x in logprobs) ** (-1 / len(logprobs))


@misconception("perplexity", "You leave out the first token; whatever has a logarithm in the list was predicted.")
def skips_the_first(logprobs):
    needs_tokens(logprobs)
    return reference.perplexity(list(logprobs)[1:] or [0.0])


@misconception(
    "perplexity", "Your bits are nats: divide by ln 2, since one bit is ln 2 nats.", replaces="bits_per_byte"
)
def nats_per_byte(total_nll_nats, n_bytes):
    return reference.bits_per_byte(total_nll_nats, n_bytes) * math.log(2)


@misconception("perplexity", "You multiply by ln 2 where bits need a division by it.", replaces="bits_per_byte")
def multiplies_by_ln_2(total_nll_nats, n_bytes):
    return reference.bits_per_byte(total_nll_nats, n_bytes) * math.log(2) ** 2


@misconception(
    "perplexity", "You count eight bits in a byte, but the bits here are of surprise: divide by bytes.", "bits_per_byte"
)
def per_bit(total_nll_nats, n_bytes):
    return reference.bits_per_byte(total_nll_nats, n_bytes) / 8


# -- entropy, cross_entropy_dist, kl


@misconception("entropy", "Your entropy is in bits; with the natural logarithm it is in nats.")
def in_bits(p):
    return reference.entropy(p) / math.log(2)


@misconception("entropy", "Your entropy is negative: the minus sign is missing.")
def sign_missing(p):
    return -reference.entropy(p)


@misconception("entropy", "You average over the outcomes; the probabilities are weights enough: sum.")
def averages(p):
    return reference.entropy(p) / len(p)


@misconception("entropy", "0 times ln 0 is NaN on a machine; an outcome of probability 0 must contribute 0.")
def zero_is_nan(p):
    return float(0.0 - (p * np.log(p)).sum())


@misconception("entropy", "You add a small number inside the logarithm, which changes the result; skip zeros instead.")
def adds_epsilon(p):
    return float(0.0 - (p * np.log(p + 1e-8)).sum())


@misconception(
    "entropy", "The arguments are exchanged: p, the truth, weighs; q, the model, is in the log.", "cross_entropy_dist"
)
def cross_entropy_exchanged(p, q):
    return reference.cross_entropy_dist(q, p)


@misconception(
    "entropy",
    "You skip outcomes to which q gives 0; where p is positive they are infinitely bad.",
    "cross_entropy_dist",
)
def forgives_zero(p, q):
    known = (p > 0) & (q > 0)
    return float(0.0 - (p[known] * np.log(q[known])).sum())


@misconception(
    "entropy", "Where p and q are both 0 you get NaN; what never happens contributes 0.", "cross_entropy_dist"
)
def never_happens_is_nan(p, q):
    with np.errstate(all="ignore"):
        return float(0.0 - (p * np.log(q)).sum())


@misconception("entropy", "Your divergence is taken the other way round: kl(p, q) weighs by p.", "kl")
def kl_exchanged(p, q):
    return reference.kl(q, p)


@misconception("entropy", "You have p and q averaged both ways; the divergence is not symmetric.", "kl")
def kl_symmetric(p, q):
    return (reference.kl(p, q) + reference.kl(q, p)) / 2


@misconception("entropy", "You return the cross-entropy; the unavoidable part, the entropy of p, must go.", "kl")
def kl_is_cross_entropy(p, q):
    return reference.cross_entropy_dist(p, q)


@misconception("entropy", "The sign of your divergence is wrong: ln (p / q), not ln (q / p).", "kl")
def kl_negative(p, q):
    return -reference.kl(p, q)


# -- sample_categorical


@misconception("sample_categorical", "You return the most likely index; u must decide.")
def most_likely(probs, u):
    return int(np.argmax(probs))


def beyond_u(probs, u):
    """The first end beyond u itself, which is past the last one when rounding made the ends stop below 1."""
    p = np.asarray(probs, dtype=np.float64)
    p = p / p.sum() if abs(p.sum() - 1) > 1e-9 else p
    return int(np.searchsorted(np.cumsum(p), u, side="right"))


@misconception(
    "sample_categorical", "The sums may end a little below 1, and you run over the end: scale u by the last."
)
def runs_over_the_end(probs, u):
    return beyond_u(probs, u)


@misconception(
    "sample_categorical", "Past the end you return the last index, whose probability may be 0; scale u by the last sum."
)
def clamps_to_the_last(probs, u):
    return min(beyond_u(probs, u), len(probs) - 1)


@misconception("sample_categorical", "You search the sums of sorted probabilities and forget to undo the sorting.")
def forgets_the_sorting(probs, u):
    return reference.sample_categorical(np.sort(probs)[::-1], u)


@misconception(
    "sample_categorical", "You take the first sum that reaches u; it must exceed u, or u = 0 finds an impossible index."
)
def reaches_instead_of_exceeds(probs, u):
    ends = np.cumsum(probs)
    return int(np.searchsorted(ends, u * ends[-1], side="left"))


@misconception("sample_categorical", "You take for granted that the numbers sum to 1; only their ratios count.")
def does_not_normalise(probs, u):
    ends = np.cumsum(np.asarray(probs, dtype=np.float64))
    if abs(ends[-1] - 1) < 1e-9:
        ends = ends / ends[-1]
    return int(min(np.searchsorted(ends, u, side="right"), np.flatnonzero(probs)[-1]))


@misconception("sample_categorical", "You compare u with single probabilities; compare it with their running sum.")
def compares_single_probabilities(probs, u):
    p = np.asarray(probs) / np.sum(probs)
    return int(np.argmax(p > u)) if (p > u).any() else int(np.argmax(p))


@misconception("sample_categorical", "You lay the segments from the last index to the first; begin with index 0.")
def from_the_other_end(probs, u):
    return len(probs) - 1 - reference.sample_categorical(np.asarray(probs)[::-1], u)


@misconception("sample_categorical", "You draw a random number of your own; u is the only one there is.")
def ignores_u(probs, u):
    return reference.sample_categorical(probs, 0.5)


# -- generate


def loop(next_dist, prompt, n_new, rng, eos=None, view=list, pick=None):
    """The right loop but for what the model sees and how an id is picked."""
    ids = list(prompt)
    for _ in range(n_new):
        dist = next_dist(view(ids))
        ids.append(reference.sample_categorical(dist, rng.random()) if pick is None else pick(dist, rng))
        if ids[-1] == eos:
            break
    return ids


@misconception("generate", "You go on after eos; once it has been drawn the text is over.")
def goes_on_after_eos(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng)


@misconception("generate", "You ask the model once more than there are new ids; ask, draw, append, and stop there.")
def asks_once_more(next_dist, prompt, n_new, rng, eos=None):
    ids = loop(next_dist, prompt, n_new, rng, eos)
    next_dist(list(ids))
    return ids


@misconception("generate", "You take one random number for the whole text; each new id needs a number of its own.")
def one_u_for_all(next_dist, prompt, n_new, rng, eos=None):
    u = rng.random() if n_new else 0.0
    return loop(next_dist, prompt, n_new, rng, eos, pick=lambda dist, rng: reference.sample_categorical(dist, u))


@misconception("generate", "The model sees the last id only; hand it the prompt and everything drawn so far.")
def shows_the_last_id(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng, eos, view=lambda ids: ids[-1:])


@misconception("generate", "The model always sees the prompt alone; each new id must become part of what it sees.")
def shows_the_prompt(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng, eos, view=lambda ids: ids[: len(prompt)])


@misconception("generate", "You return the new ids alone; the prompt comes first.")
def without_the_prompt(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng, eos)[len(prompt) :]


@misconception("generate", "You take the most likely id each time; draw it with u = rng.random().")
def greedy(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng, eos, pick=lambda dist, rng: int(np.argmax(dist)))


@misconception("generate", "The eos that was drawn is missing at the end; it belongs to the text.")
def drops_eos(next_dist, prompt, n_new, rng, eos=None):
    ids = loop(next_dist, prompt, n_new, rng, eos)
    return ids[:-1] if len(ids) > len(prompt) and ids[-1] == eos else ids


@misconception("generate", "An eos in the prompt stops you; look for it only among the ids that you draw.")
def stops_at_the_prompts_eos(next_dist, prompt, n_new, rng, eos=None):
    if eos is not None and eos in prompt:
        return list(prompt)
    return loop(next_dist, prompt, n_new, rng, eos)


@misconception("generate", "An eos of 0 is taken for none; ask whether it `is None`, not whether it is true.")
def zero_is_no_eos(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, n_new, rng, eos or None)


@misconception("generate", "n_new counts the new ids; you stop when prompt and new ids together are n_new.")
def counts_the_prompt(next_dist, prompt, n_new, rng, eos=None):
    return loop(next_dist, prompt, max(0, n_new - len(prompt)), rng, eos)


@misconception("generate", "You append to the caller's own prompt; work on a copy of it.")
def appends_to_the_prompt(next_dist, prompt, n_new, rng, eos=None):
    prompt.extend(loop(next_dist, prompt, n_new, rng, eos)[len(prompt) :])
    return prompt
