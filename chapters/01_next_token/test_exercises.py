"""Self-checks of chapter 1: the worked example of the notes and the laws that teach."""

import math

import numpy as np
import pytest

from grader.testing import close, counting, driver, exact, exercise, holds

THE, CAT, DOG, SAT, RAN, STOP = range(6)
DOCS = [[THE, CAT, SAT, STOP], [THE, CAT, RAN, STOP], [THE, DOG, SAT, STOP]]
BIGRAMS = {
    (9,): {THE: 3},
    (THE,): {CAT: 2, DOG: 1},
    (CAT,): {SAT: 1, RAN: 1},
    (DOG,): {SAT: 1},
    (SAT,): {STOP: 2},
    (RAN,): {STOP: 1},
}


@exercise("count_ngrams")
def test_counts_of_the_worked_example(exercises):
    """The worked example of the notes, with bos 9 before each document."""
    exact(exercises.count_ngrams(DOCS, 2, bos=9), BIGRAMS, "count_ngrams(docs, 2, bos=9)")


@exercise("count_ngrams")
def test_counts_with_two_ids_of_context(exercises):
    """With n = 3 the context is a tuple of two ids, in reading order."""
    expected = {(5, 7): {5: 1, 8: 1}, (7, 5): {7: 1}}
    exact(exercises.count_ngrams([[5, 7, 5, 7, 8], [7, 8]], 3), expected, "count_ngrams([[5, 7, 5, 7, 8], [7, 8]], 3)")


@exercise("count_ngrams")
def test_counts_without_any_context(exercises):
    """With n = 1 all ids are counted under the empty context."""
    exact(exercises.count_ngrams([[5, 7, 5], [7, 5]], 1), {(): {5: 3, 7: 2}}, "count_ngrams([[5, 7, 5], [7, 5]], 1)")


@driver
def probabilities(module, counts, context, vocab_size, k):
    """The probabilities of the whole vocabulary after a context."""
    from collections import Counter

    counts = {key: Counter(table) for key, table in counts.items()}
    return [module.ngram_prob(counts, context, token, vocab_size, k) for token in range(vocab_size)]


@exercise("ngram_prob")
def test_prob_of_the_worked_example(exercises):
    """After `the`, 1 added: cat 3/9, dog 2/9, and 1/9 for each of the rest."""
    expected = [1 / 9, 3 / 9, 2 / 9, 1 / 9, 1 / 9, 1 / 9]
    close(exercises.run(probabilities, BIGRAMS, (THE,), 6, 1.0), expected, "ngram_prob after `the` with k=1")


@exercise("ngram_prob")
def test_prob_after_an_unseen_context(exercises):
    """After a context that was never seen, every id is equally likely."""
    close(exercises.run(probabilities, BIGRAMS, (7,), 4, 0.5), [1 / 4] * 4, "ngram_prob after an unseen context")


@exercise("ngram_prob")
def test_prob_is_a_distribution(exercises):
    """The probabilities of the whole vocabulary sum to one."""
    for k in (0.0, 0.1, 3.0):
        close(sum(exercises.run(probabilities, BIGRAMS, (CAT,), 6, k)), 1.0, f"the sum after `cat` with k={k}")


@exercise("interpolated_prob")
def test_mixture_of_the_worked_example(exercises):
    """A quarter of the unigram's 1/12 and three quarters of the bigram's 1/3."""
    models = [lambda context, token: 1 / 12, lambda context, token: 1 / 3]
    got = exercises.interpolated_prob(models, [0.25, 0.75], (THE,), DOG)
    close(got, 0.25 / 12 + 0.75 / 3, "interpolated_prob of the worked example")


@exercise("interpolated_prob")
def test_mixture_cuts_the_context(exercises):
    """Each model is asked with the last ids of the context, the first with ()."""
    models = [counting(lambda context, token: 0.5) for _ in range(3)]
    exercises.interpolated_prob(models, [0.2, 0.3, 0.5], (4, 8, 6), 1)
    asked = [model.arguments[0][0] for model in models]
    exact(asked, [(), (6,), (8, 6)], "the contexts that the three models were asked with")


@exercise("interpolated_prob")
def test_mixture_needs_shares_of_one(exercises):
    """Shares that do not sum to one raise ValueError."""
    with pytest.raises(ValueError):
        exercises.interpolated_prob([lambda context, token: 0.5] * 2, [0.5, 0.4], (1,), 1)


@exercise("perplexity")
def test_perplexity_of_the_worked_example(exercises):
    """The four probabilities 4/9, 2/9, 1/7 and 2/7 of the notes."""
    p = [4 / 9, 2 / 9, 1 / 7, 2 / 7]
    close(exercises.perplexity([math.log(x) for x in p]), (3969 / 16) ** 0.25, "perplexity of `the dog ran .`")


@exercise("perplexity")
def test_perplexity_of_equal_choices(exercises):
    """A model that wavers between m ids at every step has perplexity m."""
    close(exercises.perplexity([-math.log(20)] * 5), 20.0, "perplexity of five tokens of probability 1/20")


@exercise("perplexity")
def test_bits_per_byte_of_a_coin(exercises):
    """Ten tosses of a fair coin, in a text of 20 bytes, are half a bit a byte."""
    close(exercises.bits_per_byte(10 * math.log(2), 20), 0.5, "bits_per_byte of ten bits in 20 bytes")


@exercise("entropy")
def test_entropies_of_the_notes(exercises):
    """The truth (1/2, 1/4, 1/4) against a model that says 1/3 each."""
    p, q = np.array([0.5, 0.25, 0.25]), np.array([1.0, 1.0, 1.0]) / 3
    close(exercises.entropy(p), 1.5 * math.log(2), "entropy of (1/2, 1/4, 1/4)")
    close(exercises.cross_entropy_dist(p, q), math.log(3), "cross_entropy_dist of (1/2, 1/4, 1/4) and thirds")
    close(exercises.kl(p, q), math.log(3) - 1.5 * math.log(2), "kl of (1/2, 1/4, 1/4) and thirds")


@exercise("entropy")
def test_what_never_happens_surprises_nobody(exercises):
    """An outcome of probability 0 contributes nothing."""
    p = np.array([0.5, 0.0, 0.5])
    close(exercises.entropy(p), math.log(2), "entropy of (1/2, 0, 1/2)")
    close(exercises.kl(p, np.array([0.25, 0.5, 0.25])), math.log(2), "kl of (1/2, 0, 1/2) and (1/4, 1/2, 1/4)")


@exercise("entropy")
def test_to_call_the_possible_impossible(exercises):
    """A model that gives 0 to what can happen is infinitely surprised."""
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    exact(exercises.cross_entropy_dist(p, q), math.inf, "cross_entropy_dist of (1/2, 1/2) and (1, 0)")


@exercise("sample_categorical")
def test_sample_of_the_notes(exercises):
    """The segments of the notes: 0 to 0.5, 0.5 to 0.7, 0.7 to 1."""
    for u, expected in ((0.0, 0), (0.49, 0), (0.51, 1), (0.69, 1), (0.71, 2), (0.99, 2)):
        exact(exercises.sample_categorical([0.5, 0.2, 0.3], u), expected, f"sample_categorical([0.5, 0.2, 0.3], {u})")


@exercise("sample_categorical")
def test_sample_passes_over_the_impossible(exercises):
    """An index of probability 0 is not drawn, at u = 0 either."""
    for u in (0.0, 0.3, 0.999):
        exact(exercises.sample_categorical([0.0, 1.0, 0.0], u), 1, f"sample_categorical([0, 1, 0], {u})")


@exercise("sample_categorical")
def test_sample_takes_ratios(exercises):
    """Only the ratios of the numbers count."""
    exact(exercises.sample_categorical([6, 2], 0.7), 0, "sample_categorical([6, 2], 0.7)")
    exact(exercises.sample_categorical([6, 2], 0.8), 1, "sample_categorical([6, 2], 0.8)")


def count_up(ids):
    """A model that is certain: the next id is one more than the last."""
    return np.eye(20)[ids[-1] + 1]


@exercise("generate")
def test_every_output_becomes_input(exercises):
    """The model sees the prompt and everything drawn so far."""
    model = counting(count_up)
    exact(exercises.generate(model, [3, 4], 3, np.random.default_rng(0)), [3, 4, 5, 6, 7], "generate after [3, 4]")
    asked = [arguments[0] for arguments in model.arguments]
    exact(asked, [[3, 4], [3, 4, 5], [3, 4, 5, 6]], "what the model was asked, call by call")


@exercise("generate")
def test_the_end_is_the_end(exercises):
    """The text stops behind eos, and the model is not asked again."""
    model = counting(count_up)
    exact(exercises.generate(model, [3], 9, np.random.default_rng(0), eos=5), [3, 4, 5], "generate with eos=5")
    exact(model.calls, 2, "how often the model was called")


@exercise("generate")
def test_the_same_seed_writes_the_same(exercises):
    """Equal generators write equal texts; other ones do not."""
    texts = [exercises.generate(lambda ids: [0.25] * 4, [0], 40, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    exact(texts[0], texts[1], "two texts from generators of the same seed")
    holds(texts[0] != texts[2], "another seed writes another text")
