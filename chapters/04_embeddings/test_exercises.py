"""Self-checks of chapter 4: worked examples and the properties that teach."""

import math
from collections import Counter

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import close, dataset, driver, exact, exercise, holds, roughly


@exercise("embedding_forward")
def test_a_lookup_is_a_one_hot_product(exercises, rng):
    """Picking rows equals multiplying one-hot rows with the table."""
    W, ids = rng.normal(5, 3).numpy(), np.array([[4, 0], [2, 2]])
    close(exercises.embedding_forward(W, ids), np.eye(5)[ids] @ W, "embedding_forward of ids [[4, 0], [2, 2]]")


@exercise("embedding_forward")
def test_a_repeated_word_learns_from_each_place(exercises):
    """A word that occurs twice collects both gradients; absent words get 0."""
    got = exercises.embedding_backward(np.array([2, 0, 2]), np.array([[1.0, 2], [10, 20], [100, 200]]), 4)
    close(got, np.array([[10.0, 20], [0, 0], [101, 202], [0, 0]]), "embedding_backward of ids 2, 0, 2")


@exercise("embedding_forward")
def test_padding_learns_nothing(exercises):
    """The row of padding_idx keeps a gradient of zero."""
    got = exercises.embedding_backward(np.array([0, 1, 0]), np.ones((3, 2)), 2, padding_idx=0)
    close(got, np.array([[0.0, 0], [1, 1]]), "embedding_backward with padding_idx=0")


PEOPLE = torch.tensor([[2.0, -1, 2], [-2, -1, 2], [2, 1, 2], [-2, 1, 2], [-4, 7, 4], [2, 2, -1]])
"""The worked example of the notes: man, woman, king, queen, the, apple."""


@exercise("cosine_similarity_matrix")
def test_cosines_of_the_worked_example(exercises):
    """The cosines of woman + king - man with the words of the notes."""
    got = exercises.cosine_similarity_matrix(torch.tensor([[-2.0, 1, 2]]), PEOPLE)
    close(got, torch.tensor([[-1 / 9, 7 / 9, 1 / 9, 1.0, 23 / 27, -4 / 9]]), "the cosines with six words")


@exercise("cosine_similarity_matrix")
def test_only_direction_counts(exercises, rng):
    """Making rows longer changes no cosine; a row of zeros gives zeros."""
    A, B = rng.normal(3, 4), rng.normal(5, 4)
    B[1] = 0.0
    close(exercises.cosine_similarity_matrix(7 * A, B), F.cosine_similarity(A[:, None], B, dim=-1), "7 * A with B")


@exercise("nearest")
def test_nearest_of_the_worked_example(exercises):
    """The long vector of `the` does not win over a better direction."""
    q = torch.tensor([-2.0, 1, 2])
    exact(exercises.nearest(PEOPLE, q, 3), [3, 4, 1], "the three words nearest to woman + king - man")
    exact(exercises.nearest(PEOPLE, q, 2, exclude=[3, 1]), [4, 2], "the same without queen and woman")


@exercise("nearest")
def test_king_minus_man_plus_woman(exercises):
    """man is to woman as king is to queen, and the inputs never answer."""
    exact(exercises.analogy(PEOPLE, 0, 1, 2), [3], "man is to woman as king is to ...")
    exact(exercises.analogy(PEOPLE, 0, 0, 2), [5], "man is to man as king is to ...")


@exercise("skipgram_pairs")
def test_pairs_of_three_words(exercises):
    """With window 1 the middle word has two neighbours, the others one."""
    got = sorted(map(tuple, exercises.skipgram_pairs([[7, 8, 9], [5]], 1)))
    exact(got, [(7, 8), (8, 7), (8, 9), (9, 8)], "skipgram_pairs([[7, 8, 9], [5]], 1), sorted")


@exercise("skipgram_pairs")
def test_what_sees_is_seen(exercises, rng):
    """A pair occurs as often as the same pair turned round."""
    got = Counter(map(tuple, exercises.skipgram_pairs([rng.integers(0, 5, 20).tolist()], 3)))
    exact({(b, a): n for (a, b), n in got.items()}, dict(got), "the pairs turned round")


@exercise("skipgram_pairs")
def test_a_dynamic_window_prefers_near_words(exercises, rng):
    """Half of the reaches of a window of 2 leave out the second word."""
    pairs = exercises.skipgram_pairs([list(range(1000))], 2, dynamic=True, rng=rng.generator())
    far = sum(abs(a - b) == 2 for a, b in pairs)
    exact(len(pairs) - far, 2 * 999, "pairs of direct neighbours among 1000 words")
    # Each centre in the middle makes two far pairs with probability 1/2: 998 +- 32; five standard deviations is 158.
    roughly(far, 998, 160, "pairs of words two places apart")


@exercise("sgns_loss")
def test_loss_of_the_worked_example(exercises):
    """Scores ln 3, 0 and -ln 3 cost ln 4/3, ln 2 and ln 4/3."""
    u, v = torch.tensor([[1.0, 0.0]]), torch.tensor([[math.log(3), 5.0]])
    n = torch.tensor([[[0.0, 2.0], [-math.log(3), 1.0]]])
    close(exercises.sgns_loss(u, v, n), torch.tensor(2 * math.log(4 / 3) + math.log(2)), "sgns_loss of one pair")


@exercise("sgns_loss")
def test_loss_of_vectors_that_know_nothing(exercises):
    """At zero each of the 1 + K decisions costs log 2."""
    got = exercises.sgns_loss(torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4, 5, 3))
    close(got, torch.tensor(6 * math.log(2)), "sgns_loss of zeros with 5 negatives")


@exercise("negative_sampling_probs")
def test_sixteen_times_as_often_is_eight_times_as_likely(exercises):
    """At the power 3/4 the counts 1, 16 and 81 weigh 1, 8 and 27."""
    got = exercises.negative_sampling_probs(torch.tensor([1.0, 16.0, 0.0, 81.0]))
    close(got, torch.tensor([1.0, 8.0, 0.0, 27.0]) / 36, "probabilities of counts 1, 16, 0 and 81")


@exercise("negative_sampling_probs")
def test_power_zero_is_uniform_over_words_that_occur(exercises):
    """At the power 0 each word that occurs is as likely as any other."""
    got = exercises.negative_sampling_probs(torch.tensor([5.0, 0.0, 1.0]), power=0.0)
    close(got, torch.tensor([0.5, 0.0, 0.5]), "probabilities of counts 5, 0 and 1 at power 0")


@driver
def table_of(module, pairs, V, seed):
    """The table that the student learns from these pairs."""
    import torch

    pairs = [tuple(pair) for pair in pairs.tolist()]
    return module.train_word2vec(pairs, V, 16, 300, torch.Generator().manual_seed(seed)).detach()


@exercise("train_word2vec")
def test_meaning_emerges(exercises, rng):
    """After 300 steps eight of ten planted analogies hold."""
    words = dataset("planted_words")
    corpus = torch.from_numpy(words.sentences(rng.seed, 1500))
    near = torch.cat([torch.stack([corpus[:, :-d], corpus[:, d:]], -1).reshape(-1, 2) for d in (1, 2)])
    E = F.normalize(exercises.run(table_of, torch.cat([near, near.flip(1)]), len(words.WORDS), rng.seed), dim=1)
    a, b, c, d = torch.tensor(words.analogies("gender") + words.analogies("number")).T
    cosine = (E[b] - E[a] + E[c]) @ E.T
    for asked in (a, b, c):
        cosine[torch.arange(len(a)), asked] = -math.inf
    share = (cosine.argmax(1) == d).double().mean().item()
    holds(share >= 0.8, f"{share:.0%} of the analogies are solved after 300 steps, 80 % are needed")


@exercise("mean_pool")
def test_pooling_leaves_padding_out(exercises):
    """Two real tokens and three of padding: the mean of two."""
    hidden = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]])
    got = exercises.mean_pool(hidden, torch.tensor([[True, True, False, False, False]]))
    close(got, torch.tensor([[2.0, 2.0]]), "mean_pool of two real tokens and three of padding")


@exercise("mean_pool")
def test_one_word_two_meanings(exercises, rng):
    """A table gives one word one vector; a reader gives it one a sentence."""
    table = rng.normal(6, 4)
    a, b = torch.tensor([1, 5, 2]), torch.tensor([4, 5, 3, 0])
    close(exercises.contextual_similarity(lambda ids: table[ids], a, 1, b, 1), 1.0, "word 5 in a static table")
    reader = lambda ids: table[ids] + table[ids].mean(1, keepdim=True)  # noqa: E731
    got = exercises.contextual_similarity(reader, a, 1, b, 1)
    holds(got < 0.9999, f"Read in two sentences, word 5 has similarity {got}, which must be below 1.")
