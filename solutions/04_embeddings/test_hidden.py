"""The whole contract of chapter 4, against PyTorch's own operations, brute force and a corpus of known truth."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, dataset, driver, exact, exercise, holds, pure, roughly, same_distribution

DOUBLE = torch.float64


# ------------------------------------------------------------------------------- embedding_forward, embedding_backward


def lookups(rng, V=6, D=5):
    """A table, and ids of many shapes with many repeats; ids 1 and V - 1 never occur."""
    shapes = ((11,), (3, 4), (2, 7, 3), (1, 1), (0,), (2, 0, 3), ())
    ids = [torch.tensor([0, 2, 3, 4])[rng.integers(0, 4, *shape)].numpy() for shape in shapes]
    return rng.normal(V, D).numpy(), ids


@exercise("embedding_forward")
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_lookup_of_ids_of_any_shape(exercises, rng, dtype):
    """The shape of the ids gets one more axis, and each id its row."""
    W, many = lookups(rng)
    W = W.astype(dtype)
    for ids in many:
        expected = F.embedding(torch.from_numpy(ids), torch.from_numpy(W)).numpy()
        close(pure(exercises.embedding_forward, W, ids), expected, f"embedding_forward of ids {ids.shape}")
    every = np.arange(6)[::-1].copy()
    close(exercises.embedding_forward(W, every), W[::-1].copy(), "every row of the table, the last first")


@exercise("embedding_forward", weight=2)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_gradient_of_a_lookup_is_that_of_autograd(exercises, rng, dtype):
    """Repeated ids collect the sum of their gradients."""
    _, many = lookups(rng)
    for ids in many:
        grad_out = rng.normal(*ids.shape, 5).numpy().astype(dtype)
        W = torch.zeros(6, 5, dtype=torch.from_numpy(grad_out).dtype, requires_grad=True)
        F.embedding(torch.from_numpy(ids), W).backward(torch.from_numpy(grad_out))
        got = pure(exercises.embedding_backward, ids, grad_out, 6)
        close(got, W.grad.numpy(), f"embedding_backward of ids {ids.shape}")
        exact(got[[1, 5]], np.zeros((2, 5), dtype=dtype), "the rows of ids that do not occur")


@exercise("embedding_forward")
def test_gradient_is_the_adjoint_of_the_lookup(exercises, rng):
    """The lookup and its gradient are one linear map and its transpose."""
    W, many = lookups(rng)
    for ids in many[:3]:
        grad_out = rng.normal(*ids.shape, 5).numpy()
        forward = float((exercises.embedding_forward(W, ids) * grad_out).sum())
        backward = float((W * exercises.embedding_backward(ids, grad_out, 6)).sum())
        # Two sums of at most 210 products of size 1 in float64: rounding stays near 1e-13.
        roughly(backward, forward, 1e-9, f"sum of W * dW against sum of out * grad_out, ids {ids.shape}")


@exercise("embedding_forward")
def test_gradient_knows_no_order(exercises, rng):
    """Shuffling tokens along with their gradients changes nothing."""
    _, many = lookups(rng)
    ids, grad_out, order = many[0], rng.normal(11, 5).numpy(), rng.permutation(11).numpy()
    expected = np.eye(9)[ids].T @ grad_out  # the transpose of the one-hot product
    close(exercises.embedding_backward(ids, grad_out, 9), expected, "embedding_backward with V=9")
    close(exercises.embedding_backward(ids[order], grad_out[order], 9), expected, "the same tokens in another order")


@exercise("embedding_forward")
def test_padding_does_not_learn(exercises, rng):
    """The row of padding gets no gradient; every other row keeps its own."""
    _, many = lookups(rng)
    for ids, padding_idx in ((many[0], 3), (many[1], 0), (many[2], 5), (many[2], 4)):
        grad_out = rng.normal(*ids.shape, 5).numpy()
        W = torch.ones(6, 5, dtype=DOUBLE, requires_grad=True)
        F.embedding(torch.from_numpy(ids), W, padding_idx=padding_idx).backward(torch.from_numpy(grad_out))
        got = pure(exercises.embedding_backward, ids, grad_out, 6, padding_idx=padding_idx)
        close(got, W.grad.numpy(), f"embedding_backward with padding_idx={padding_idx}")
        exact(got[padding_idx], np.zeros(5), "the row of padding")


# ------------------------------------------------------------------------------------------ cosine_similarity_matrix


def cosines(A, B, eps=1e-8):
    """The definition by PyTorch's own function, pair by pair."""
    return F.cosine_similarity(A[:, None], B[None], dim=-1, eps=eps)


@exercise("cosine_similarity_matrix", weight=2)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_cosines_of_all_pairs(exercises, rng, dtype):
    """Entry i, j is the cosine between row i of A and row j of B."""
    for n, m, D in ((4, 7, 3), (5, 2, 6), (1, 1, 8), (3, 3, 3), (6, 4, 1)):
        A, B = rng.normal(n, D).to(dtype), 3 * rng.normal(m, D).to(dtype)
        got = pure(exercises.cosine_similarity_matrix, A, B)
        close(got, cosines(A, B), f"cosine_similarity_matrix of ({n}, {D}) and ({m}, {D})")


@exercise("cosine_similarity_matrix")
def test_cosines_ignore_length(exercises, rng):
    """Scaling a row changes nothing, turning it round changes the sign."""
    A, B = rng.normal(4, 5), rng.normal(3, 5)
    a = torch.tensor([[1e-3], [0.5], [7.0], [1e4]], dtype=DOUBLE)
    b = torch.tensor([[-2.0], [300.0], [-1e-4]], dtype=DOUBLE)
    expected = cosines(A, B) * torch.tensor([-1.0, 1.0, -1.0], dtype=DOUBLE)
    close(exercises.cosine_similarity_matrix(A * a, B * b), expected, "cosines of scaled rows")


@exercise("cosine_similarity_matrix")
def test_cosines_lie_between_minus_one_and_one(exercises, rng):
    """A row has similarity 1 with itself, and none exceeds 1."""
    A = rng.normal(30, 4) * rng.uniform(30, 1) * 1000
    got = exercises.cosine_similarity_matrix(A, A)
    close(got.diagonal(), torch.ones(30, dtype=DOUBLE), "each row with itself")
    holds(bool((got.abs() <= 1 + 1e-12).all()), "Every cosine lies in [-1, 1] up to rounding.")


@exercise("cosine_similarity_matrix")
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_zero_rows_have_similarity_zero(exercises, rng, dtype):
    """A row of zeros gives 0, not NaN, and disturbs no other row."""
    A, B = rng.normal(4, 3).to(dtype), rng.normal(5, 3).to(dtype)
    A[2], B[0], B[4] = 0.0, 0.0, 0.0
    got = exercises.cosine_similarity_matrix(A, B)
    exact(got[2], torch.zeros(5, dtype=dtype), "the similarities of a row of zeros")
    close(got, cosines(A, B), "cosine_similarity_matrix with rows of zeros")


@exercise("cosine_similarity_matrix")
def test_short_rows_are_divided_by_eps(exercises, rng):
    """A norm below eps is replaced by eps, one at or above it is not."""
    A = F.normalize(rng.normal(3, 4), dim=1) * torch.tensor([[0.05], [0.4], [3.0]], dtype=DOUBLE)
    B = F.normalize(rng.normal(2, 4), dim=1) * torch.tensor([[0.1], [2.0]], dtype=DOUBLE)
    plain = cosines(A, B)
    a, b = torch.tensor([[0.1], [0.8], [1.0]], dtype=DOUBLE), torch.tensor([[0.2, 1.0]], dtype=DOUBLE)
    close(exercises.cosine_similarity_matrix(2e-8 * A, B), plain * a, "norms around 1e-8, with the default eps")
    close(exercises.cosine_similarity_matrix(A, B, eps=0.5), plain * a * b, "cosine_similarity_matrix with eps=0.5")
    close(exercises.cosine_similarity_matrix(A, B, 0.01), plain, "cosine_similarity_matrix with eps=0.01")


# ---------------------------------------------------------------------------------------------------- nearest, analogy


def unit(E):
    """Rows of length 1; a row of zeros stays."""
    return F.normalize(E, dim=1)


def ranking(E, q, k, exclude=()):
    """The definition: sort all ids by cosine, leave out the excluded ones, take k."""
    cosine = cosines(E, q[None])[:, 0].tolist()
    return [i for i in sorted(range(len(E)), key=lambda i: -cosine[i]) if i not in exclude][:k]


def ranked(got, E, q, k, exclude, what):
    """Assert that `got` is that ranking; ids whose cosines differ by rounding alone may change places."""
    holds(all(type(i) is int and 0 <= i < len(E) for i in got), f"{what}: got {got}, which are not ids")
    expected, cosine = ranking(E.double(), q.double(), k, exclude), cosines(E.double(), q.double()[None])[:, 0]
    exact(len(set(got)), len(expected), f"{what}: how many different ids are in {got}")
    holds(not set(got) & set(exclude), f"{what}: {got} lists an excluded id")
    # float32 rounds cosines by about 1e-7; the neighbours in a ranking of a dozen words lie about 0.1 apart
    roughly(cosine[got].tolist(), cosine[expected].tolist(), 1e-5, f"{what}: got {got}; their cosines")


@exercise("nearest")
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_nearest_are_ranked_by_cosine(exercises, rng, dtype):
    """The k nearest come in descending cosine, whatever their lengths."""
    E = (rng.normal(11, 4) * (0.1 + 10 * rng.uniform(11, 1) ** 2)).to(dtype)
    for k in (3, 1, 11):
        for scale in (1.0, 0.01, 50.0):
            q = scale * rng.normal(4).to(dtype)
            ranked(pure(exercises.nearest, E, q, k), E, q, k, (), f"nearest with k={k}")


@exercise("nearest")
def test_nearest_never_lists_the_excluded(exercises, rng):
    """Excluded ids stay out, however many are asked for and left."""
    E, q = rng.normal(7, 3), rng.normal(3)
    best = ranking(E, q, 7)
    for exclude in ((best[0],), [best[2], best[0]], {best[6], best[1]}, (), tuple(best[:6]), tuple(best)):
        for k in (2, 7, 100):
            what = f"nearest with k={k} and {len(exclude)} excluded as a {type(exclude).__name__}"
            ranked(exercises.nearest(E, q, k, exclude), E, q, k, exclude, what)
    ranked(exercises.nearest(E, q, 3, exclude=[best[1]]), E, q, 3, [best[1]], "nearest with exclude by its name")


@exercise("nearest")
def test_nearest_among_words_that_point_away(exercises, rng):
    """With all similarities negative the least negative comes first."""
    E, q = rng.normal(6, 4), rng.normal(4)
    E = torch.where((E @ q > 0)[:, None], -E, E)
    ranked(exercises.nearest(E, q, 3), E, q, 3, (), "nearest when every row points away")
    best = ranking(E, q, 1)
    ranked(exercises.nearest(E, q, 6, best), E, q, 6, best, "nearest when the best of them is excluded")


@exercise("nearest")
def test_a_row_of_zeros_has_its_place(exercises, rng):
    """A row of zeros ranks between those that point along and away."""
    E, q = rng.normal(9, 4), rng.normal(4)
    E[0], E[4], E[8] = q + 0.1 * E[0], 0.0, -q + 0.1 * E[8]
    ranked(exercises.nearest(E, q, 9), E, q, 9, (), "nearest in a table with a row of zeros")
    U = unit(E)
    got = exercises.analogy(E, 1, 2, 3, 6)
    ranked(got, E, U[2] - U[1] + U[3], 6, (1, 2, 3), "analogy beside a row of zeros")
    ranked(exercises.analogy(E, 4, 2, 3, 2), E, U[2] + U[3], 2, (4, 2, 3), "analogy from a row of zeros")


@exercise("nearest", weight=2)
def test_analogies_of_a_planted_plane(exercises, rng):
    """In a table of ranks and genders every analogy has its answer."""
    axes = torch.linalg.qr(rng.normal(9, 9)).Q
    masculine, feminine = axes[:6] + 0.7 * axes[6], axes[:6] - 0.7 * axes[6]
    E = torch.cat([masculine, feminine, axes[7:8]]) * (0.05 + 20 * rng.uniform(13, 1))  # 12 words and a stranger
    for a, c in ((0, 1), (5, 2), (3, 4)):
        exact(exercises.analogy(E, a, a + 6, c), [c + 6], f"feminine of {c}, after {a} is to {a + 6}")
        exact(exercises.analogy(E, c + 6, c, a + 6), [a], f"masculine of {a + 6}, after {c + 6} is to {c}")
        exact(exercises.analogy(E, a, c, a + 6), [c + 6], f"{a} is to {c} as {a + 6} is to it")


@exercise("nearest", weight=2)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_analogy_is_b_minus_a_plus_c_of_unit_rows(exercises, rng, dtype):
    """Rows are scaled to length 1, added, and ranked without the inputs."""
    E = (rng.normal(12, 5) * (0.1 + 5 * rng.uniform(12, 1))).to(dtype)
    U = unit(E.double())
    for a, b, c, k in ((7, 3, 11, 4), (0, 1, 2, 1), (5, 6, 0, 9), (10, 2, 8, 50), (4, 4, 9, 3), (1, 9, 1, 3)):
        got = pure(exercises.analogy, E, a, b, c, k)
        ranked(got, E, U[b] - U[a] + U[c], k, (a, b, c), f"analogy(E, {a}, {b}, {c}, k={k})")


@exercise("nearest")
def test_analogy_never_answers_with_its_question(exercises, rng):
    """Even where an input is the nearest of all, another word is given."""
    axes = torch.linalg.qr(rng.normal(6, 6)).Q
    near = axes[3] + 0.1 * axes[4]  # a and b are almost the same, so that b - a + c is almost c
    E = torch.stack([axes[3], near, axes[1], axes[1] + 0.5 * axes[2], axes[0] + 0.2 * axes[1], axes[5]])
    U = unit(E)
    assert ranking(E, U[1] - U[0] + U[2], 1) == [2]
    exact(exercises.analogy(E, 0, 1, 2), [3], "the analogy whose nearest word is its own input c")
    exact(exercises.analogy(E, 0, 2, 1), [3], "the analogy whose nearest word is its own input b")
    exact(sorted(exercises.analogy(E, 0, 1, 2, k=6)), [3, 4, 5], "all answers to an analogy among six words")


# ------------------------------------------------------------------------------------------------------ skipgram_pairs


def all_pairs(sentences, window):
    """The definition: every ordered pair of different positions at most `window` apart."""
    return Counter(
        (s[i], s[j]) for s in sentences for i in range(len(s)) for j in range(len(s)) if 0 < abs(i - j) <= window
    )


@exercise("skipgram_pairs", weight=2)
def test_pairs_by_brute_force(exercises, rng):
    """Every two positions within the window are paired, both ways round."""
    sentences = [rng.integers(0, 50, n).tolist() for n in (9, 1, 0, 2, 14, 5)]
    for window in (1, 2, 3, 20):
        got = Counter(map(tuple, pure(exercises.skipgram_pairs, sentences, window)))
        exact(got, all_pairs(sentences, window), f"skipgram_pairs with window {window}, counted")


@exercise("skipgram_pairs")
def test_words_that_repeat_are_paired_by_position(exercises, rng):
    """A word at two near places is paired with itself, and counted."""
    sentences = [[4, 4, 4], rng.integers(0, 3, 12).tolist(), [1, 2, 1, 2]]
    for window in (1, 2, 5):
        got = Counter(map(tuple, exercises.skipgram_pairs(sentences, window)))
        exact(got, all_pairs(sentences, window), f"skipgram_pairs of sentences with repeats, window {window}")


@exercise("skipgram_pairs")
def test_sentences_do_not_see_each_other(exercises, rng):
    """The pairs of two sentences are those of each alone, together."""
    one, two = rng.integers(0, 9, 6).tolist(), rng.integers(10, 19, 4).tolist()
    got = Counter(map(tuple, exercises.skipgram_pairs([one, two], 3)))
    exact(got, all_pairs([one], 3) + all_pairs([two], 3), "the pairs of two sentences")
    for nothing in ([], [[]], [[7], [8], []]):
        exact(list(exercises.skipgram_pairs(nothing, 2)), [], f"skipgram_pairs({nothing}, 2)")


def reaches(pairs, sentence):
    """How far each centre looked to the left and to the right; None if a distance is missing or doubled."""
    place = {word: i for i, word in enumerate(sentence)}
    left, right = [[] for _ in sentence], [[] for _ in sentence]
    for centre, context in pairs:
        i, distance = place[centre], place[context] - place[centre]
        (right if distance > 0 else left)[i].append(abs(distance))
    full = lambda seen: sorted(seen) == list(range(1, len(seen) + 1))  # noqa: E731
    return [(len(a), len(b)) if full(a) and full(b) else None for a, b in zip(left, right, strict=True)]


@exercise("skipgram_pairs")
@pytest.mark.parametrize("window", [2, 5])
def test_dynamic_reach_is_uniform_and_the_same_on_both_sides(exercises, rng, window):
    """Each centre draws one reach from 1 to window for both its sides."""
    sentence = rng.permutation(2000).tolist()
    got = exercises.skipgram_pairs([sentence], window, dynamic=True, rng=rng.generator())
    seen = reaches(got, sentence)[window:-window]
    holds(None not in seen, "A centre skips a place, or takes one twice.")
    holds(all(a == b for a, b in seen), "A centre looks further to one side than to the other.")
    counts = Counter(a for a, _ in seen)
    exact(set(counts) <= set(range(1, window + 1)), True, "every reach lies in 1 ... window")
    same_distribution([counts[b] for b in range(1, window + 1)], [1.0] * window, f"reaches with window {window}")


@exercise("skipgram_pairs")
def test_dynamic_draws_come_from_the_generator(exercises, rng):
    """The same seed gives the same pairs, another seed gives others."""
    sentences, seed = [rng.integers(0, 30, 40).tolist(), rng.integers(0, 30, 15).tolist()], rng.seed
    draw = lambda s, window: Counter(  # noqa: E731
        map(tuple, exercises.skipgram_pairs(sentences, window, True, torch.Generator().manual_seed(s)))
    )
    first = draw(seed, 4)
    exact(draw(seed, 4), first, "the pairs of a second run with the same seed")
    holds(draw(seed + 1, 4) != first, "Another seed must give other pairs.")
    holds(first <= all_pairs(sentences, 4), "A dynamic window only leaves pairs out.")
    exact(draw(seed, 1), all_pairs(sentences, 1), "dynamic pairs with window 1, where there is nothing to draw")


# ----------------------------------------------------------------------------------------------------------- sgns_loss


def logistic(center, context, negatives):
    """The definition as logistic regression: label 1 for the true neighbour, 0 for each negative."""
    words = torch.cat([context[:, None], negatives], dim=1)  # (B, 1 + K, D)
    labels = torch.zeros(words.shape[:2], dtype=words.dtype)
    labels[:, 0] = 1.0
    scores = (words @ center[:, :, None]).squeeze(-1)
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(center)


@exercise("sgns_loss", weight=2)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_loss_is_that_of_logistic_regression(exercises, rng, dtype):
    """Negatives are summed and the batch averaged, for all sizes."""
    for B, K, D in ((4, 3, 5), (1, 1, 2), (3, 7, 2), (6, 2, 1)):
        u, v, n = (rng.normal(*shape).to(dtype) for shape in ((B, D), (B, D), (B, K, D)))
        got = pure(exercises.sgns_loss, u, v, n)
        close(got, logistic(u, v, n), f"sgns_loss with B={B}, K={K}, D={D}")


@exercise("sgns_loss")
def test_loss_at_zero(exercises):
    """Vectors of zeros know nothing: every decision costs log 2."""
    for B, K, D in ((3, 1, 2), (2, 4, 3), (5, 9, 1)):
        zero = torch.zeros(B, D, dtype=DOUBLE)
        got = exercises.sgns_loss(zero, zero, torch.zeros(B, K, D, dtype=DOUBLE))
        close(got, torch.tensor((1 + K) * math.log(2), dtype=DOUBLE), f"sgns_loss of zeros with K={K}")


@exercise("sgns_loss")
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_loss_of_huge_scores_is_finite(exercises, dtype):
    """Dot products of a million, right or wrong, give the right loss."""
    u = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]], dtype=dtype)
    wrong = exercises.sgns_loss(u, -u, torch.stack([u, -u], dim=1))
    close(wrong, torch.tensor(2e6, dtype=dtype), "sgns_loss with scores of a million on the wrong side")
    right = exercises.sgns_loss(u, u, torch.stack([-u, -u, -u], dim=1))
    close(right, torch.tensor(0.0, dtype=dtype), "sgns_loss with scores of a million on the right side")


@exercise("sgns_loss")
def test_loss_of_parts(exercises, rng):
    """The loss of a batch is the mean of its parts, by their sizes."""
    u, v, n = rng.normal(7, 3), rng.normal(7, 3), rng.normal(7, 4, 3)
    whole = exercises.sgns_loss(u, v, n)
    parts = [exercises.sgns_loss(u[i], v[i], n[i]) for i in (slice(0, 2), slice(2, 7))]
    close(whole, (2 * parts[0] + 5 * parts[1]) / 7, "sgns_loss of a batch of 7 against its parts of 2 and 5")
    order = rng.permutation(4)
    close(exercises.sgns_loss(u, v, n[:, order]), whole, "sgns_loss with the negatives in another order")


@driver
def loss_gradients(module, center, context, negatives):
    """The gradients of the student's loss with respect to its three inputs."""
    import torch

    inputs = [x.clone().requires_grad_() for x in (center, context, negatives)]
    return list(torch.autograd.grad(module.sgns_loss(*inputs), inputs))


@exercise("sgns_loss")
def test_gradients_pull_and_push(exercises, rng):
    """The true neighbour is pulled by its miss, each negative pushed."""
    u, v, n = rng.normal(5, 3), rng.normal(5, 3), rng.normal(5, 4, 3)
    miss = (u * v).sum(-1).sigmoid() - 1  # (B,), never positive
    alarm = (n @ u[:, :, None]).squeeze(-1).sigmoid()  # (B, K), never negative
    du = miss[:, None] * v + (alarm[:, :, None] * n).sum(1)
    expected = [du / 5, miss[:, None] * u / 5, alarm[:, :, None] * u[:, None] / 5]
    for got, want, name in zip(exercises.run(loss_gradients, u, v, n), expected, "uvn", strict=True):
        close(got, want, f"the gradient of sgns_loss with respect to {name}")


@exercise("sgns_loss")
def test_gradients_of_huge_scores_are_finite(exercises):
    """Scores of a million on the wrong side leave gradients of full size."""
    u = torch.tensor([[1000.0, 0.0]])
    du, dv, dn = exercises.run(loss_gradients, u, -u, u[:, None])
    close(du, 2 * u, "the gradient of u, when both scores are wrong by a million")
    close(dv, -u, "the gradient of v")
    close(dn, u[:, None], "the gradient of the negative")


# --------------------------------------------------------------------------------------------- negative_sampling_probs


@exercise("negative_sampling_probs", weight=2)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_probabilities_are_counts_to_a_power(exercises, rng, dtype):
    """Probabilities are in proportion to the counts to the power."""
    counts = torch.tensor([3.0, 1.0, 250.0, 40.0, 7.0, 7.0, 10_000.0], dtype=dtype)
    for power in (0.75, 1.0, 0.5, 2, 0.1):
        weights = [float(c) ** power for c in counts]
        expected = torch.tensor([w / sum(weights) for w in weights], dtype=DOUBLE).to(dtype)
        close(pure(exercises.negative_sampling_probs, counts, power), expected, f"probabilities at power {power}")


@exercise("negative_sampling_probs")
def test_power_is_three_quarters_by_default(exercises, rng):
    """Without a power it is 0.75, so sixteen times is eight times."""
    got = exercises.negative_sampling_probs(torch.tensor([1.0, 16.0, 81.0, 256.0], dtype=DOUBLE))
    close(got, torch.tensor([1.0, 8.0, 27.0, 64.0], dtype=DOUBLE) / 100, "probabilities of counts 1, 16, 81 and 256")


@exercise("negative_sampling_probs")
@pytest.mark.parametrize("power", [0.75, 0.0, 0, 1.0, -0.5, -1.0])
def test_words_that_never_occur_are_never_drawn(exercises, power):
    """A count of zero gives exactly 0 at every power, zero and below too."""
    counts = torch.tensor([0.0, 4.0, 0.0, 100.0, 9.0], dtype=DOUBLE)
    got = exercises.negative_sampling_probs(counts, power)
    exact(got[[0, 2]], torch.zeros(2, dtype=DOUBLE), f"the probabilities of counts 0 at power {power}")
    weights = torch.tensor([4.0, 100.0, 9.0], dtype=DOUBLE) ** power
    close(got[[1, 3, 4]], weights / weights.sum(), f"the probabilities of counts 4, 100 and 9 at power {power}")


@exercise("negative_sampling_probs")
def test_probabilities_of_large_and_lonely_counts(exercises, rng):
    """Only proportions count, and a single word gets everything."""
    counts = 1 + rng.integers(0, 1000, 50).double()
    small = exercises.negative_sampling_probs(counts)
    close(exercises.negative_sampling_probs(counts * 1e9), small, "probabilities of counts a billion times as large")
    close(small.sum(), torch.tensor(1.0, dtype=DOUBLE), "the sum of the probabilities")
    holds(bool((small[counts.argsort()].diff() >= 0).all()), "A more frequent word is never less likely.")
    one = torch.tensor([0.0, 5.0, 0.0], dtype=DOUBLE)
    close(exercises.negative_sampling_probs(one), torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE), "one word alone")


# ------------------------------------------------------------------------------------------------------ train_word2vec

words = dataset("planted_words")
V, WIDTH, SENTENCES, WINDOW, STEPS = len(words.WORDS), 16, 1500, 2, 400


def pairs_within(corpus, window):
    """All pairs of the corpus, (N, 2), without the student's help."""
    corpus = torch.as_tensor(corpus)
    near = [torch.stack([corpus[:, :-d].flatten(), corpus[:, d:].flatten()], 1) for d in range(1, window + 1)]
    return torch.cat([*near, *(pair.flip(1) for pair in near)])


@driver
def learned(module, pairs, V, D, steps, seeds, manual=()):
    """The tables that the student learns, one for each seed of rng."""
    import torch

    pairs, before = [tuple(pair) for pair in pairs.tolist()], [tuple(pair) for pair in pairs.tolist()]
    tables = []
    for i, seed in enumerate(seeds):
        if manual:
            torch.manual_seed(manual[i])
        tables.append(module.train_word2vec(pairs, V, D, steps, torch.Generator().manual_seed(seed)))
    return {
        "tables": [table.detach() for table in tables],
        "attached": any(table.requires_grad for table in tables),
        "kept": pairs == before,
    }


def solved(E, attribute):
    """The share of the planted analogies of one attribute that the table answers."""
    a, b, c, d = torch.tensor(words.analogies(attribute)).T
    U = unit(E)
    cosine = (U[b] - U[a] + U[c]) @ U.T  # the length of the query changes no ranking
    for asked in (a, b, c):
        cosine[torch.arange(len(a)), asked] = -math.inf
    return (cosine.argmax(1) == d).double().mean().item()


@exercise("train_word2vec", weight=3)
def test_analogies_emerge(exercises, rng):
    """Gender and number become directions: nine of ten analogies hold."""
    pairs = pairs_within(words.sentences(rng.seed, SENTENCES), WINDOW)
    [E] = exercises.run(learned, pairs, V, WIDTH, STEPS, [rng.seed])["tables"]
    holds(bool(E.isfinite().all()), "The table holds numbers that are not finite.")
    for attribute in ("gender", "number"):
        share = solved(E, attribute)
        holds(share >= 0.9, f"{share:.0%} of the planted analogies of {attribute} are solved; 90 % are needed.")


@exercise("train_word2vec", weight=2)
def test_two_starts_find_the_same_company(exercises, rng):
    """Other random numbers give another table with the same neighbours."""
    pairs = pairs_within(words.sentences(rng.seed + 1, SENTENCES), WINDOW)
    one, two = exercises.run(learned, pairs, V, WIDTH, STEPS, [rng.seed, rng.seed + 1])["tables"]
    holds(bool((one - two).abs().max() > 0.1), "Two seeds gave one table.")
    similar = torch.stack([(unit(E) @ unit(E).T)[tuple(torch.triu_indices(V, V, 1))] for E in (one, two)])
    r = torch.corrcoef(similar)[0, 1].item()
    holds(r > 0.6, f"The similarities of two runs correlate by {r:.2f} only.")
    nouns = (unit(one)[: len(words.NOUNS)] @ unit(one).T).topk(6).indices[:, 1:]  # the first is the noun itself
    share = (nouns >= V - len(words.LITTLE)).double().mean().item()
    holds(share < 0.1, f"{share:.0%} of the neighbours of nouns are little words such as 'the'.")


@exercise("train_word2vec")
def test_without_company_there_is_no_meaning(exercises, rng):
    """On the same words in random company the analogies do not appear."""
    pairs = pairs_within(words.control(rng.seed, SENTENCES), WINDOW)
    [E] = exercises.run(learned, pairs, V, WIDTH, STEPS // 2, [rng.seed])["tables"]
    share = (solved(E, "gender") + solved(E, "number")) / 2
    holds(share < 0.2, f"{share:.0%} of the analogies are solved on a corpus that cannot teach them.")


@exercise("train_word2vec")
def test_all_randomness_comes_from_rng(exercises, rng):
    """The same state of rng gives the same table, whatever the global seed."""
    pairs = pairs_within(words.sentences(rng.seed, 60), WINDOW)
    got = exercises.run(learned, pairs, V, 7, 25, [rng.seed, rng.seed, rng.seed + 1], manual=[1, 2, 1])
    first, again, other = got["tables"]
    roughly(again, first, 1e-6, "the table of a second run with the same rng")  # entries reach about 0.5
    holds(bool((other - first).abs().max() > 1e-2), "Another state of rng must give another table.")


@exercise("train_word2vec")
def test_more_steps_go_further(exercises, rng):
    """The number of steps is what was asked for: more of them move more."""
    pairs = pairs_within(words.sentences(rng.seed, 60), WINDOW)
    few, many = (exercises.run(learned, pairs, V, 7, steps, [rng.seed])["tables"][0] for steps in (3, 40))
    # with the recipe an entry moves by up to 0.02 in a step: by 0.6 between the two
    holds(bool((many - few).abs().max() > 0.1), "40 steps end where 3 steps ended.")


@exercise("train_word2vec")
def test_table_has_a_row_for_every_word(exercises, rng):
    """The table is V x D in float32, also for words that never occur."""
    for size, D in ((11, 3), (9, 8)):
        got = exercises.run(learned, rng.integers(0, 9, 40, 2), size, D, 3, [rng.seed])
        [E] = got["tables"]
        exact((tuple(E.shape), E.dtype), ((size, D), torch.float32), f"shape and dtype with V={size}, D={D}")
        holds(bool(E.isfinite().all()), "Every entry of the table is finite.")
        exact((got["attached"], got["kept"]), (False, True), "whether the table needs gradients, and pairs are kept")


# --------------------------------------------------------------------------------- mean_pool, contextual_similarity


@exercise("mean_pool", weight=2)
@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_mean_of_the_real_tokens(exercises, rng, dtype):
    """Each row is the mean of its own real tokens, wherever they stand."""
    hidden = rng.normal(5, 7, 4).to(dtype)
    ragged = torch.arange(7) < torch.tensor([[7], [1], [4], [2], [6]])
    left, holes = ragged.flip(1), rng.uniform(5, 7) < 0.5
    holes[:, 3] = True
    for mask, name in ((ragged, "padding behind"), (left, "padding in front"), (holes, "padding in between")):
        expected = torch.stack([hidden[b][mask[b]].mean(0) for b in range(5)])
        close(pure(exercises.mean_pool, hidden, mask), expected, f"mean_pool with {name}")


@exercise("mean_pool")
def test_padding_has_no_influence(exercises, rng):
    """What stands in the padding changes nothing, however large."""
    hidden, mask = rng.normal(3, 6, 5), torch.arange(6) < torch.tensor([[2], [6], [4]])
    before = exercises.mean_pool(hidden, mask)
    hidden[~mask] = 1e6 * rng.normal(6, 5)
    close(exercises.mean_pool(hidden, mask), before, "mean_pool after the padding was filled with large numbers")
    longer = torch.cat([hidden, rng.normal(3, 3, 5)], 1), torch.cat([mask, torch.zeros(3, 3).bool()], 1)
    close(exercises.mean_pool(*longer), before, "mean_pool after three more places of padding")
    close(exercises.mean_pool(hidden[2:], mask[2:]), before[2:], "mean_pool of the last sequence alone")


@exercise("mean_pool")
def test_mean_of_nothing_is_zero(exercises, rng):
    """A row without real tokens gives zeros and leaves others alone."""
    hidden, mask = rng.normal(3, 4, 5).float(), torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1]]).bool()
    got = exercises.mean_pool(hidden, mask)
    exact(got[1], torch.zeros(5), "the mean of a row without real tokens")
    close(got[[0, 2]], torch.stack([hidden[0, :2].mean(0), hidden[2, 1:].mean(0)]), "the means of the other rows")


def readers(table):
    """A table that does not read, a causal reader, and one that reads both ways; all map (B, T) to (B, T, D)."""

    def causal(ids):
        return table[ids] + 2 * table[ids].cumsum(1) / (1 + torch.arange(ids.shape[1], dtype=DOUBLE))[:, None]

    def both_ways(ids):
        return table[ids] - table[ids].flip(1) + table[ids].mean(1, keepdim=True)

    return lambda ids: table[ids], causal, both_ways


@exercise("mean_pool", weight=2)
def test_similarity_is_that_of_the_two_positions(exercises, rng):
    """The vectors compared are those at the two positions, in context."""
    table = rng.normal(10, 6) * (0.2 + 3 * rng.uniform(10, 1))
    a, b = rng.integers(0, 10, 7), rng.integers(0, 10, 4)
    for model, name in zip(readers(table), ("a static table", "a causal reader", "a reader both ways"), strict=True):
        for i, j in ((2, 3), (6, 0), (0, 1), (5, 2)):
            expected = F.cosine_similarity(model(a[None])[0, i], model(b[None])[0, j], dim=0).item()
            got = pure(exercises.contextual_similarity, model, a, i, b, j)
            roughly(got, expected, 1e-9, f"contextual_similarity of positions {i} and {j} by {name}")


@exercise("mean_pool")
def test_a_table_knows_one_meaning_a_reader_many(exercises, rng):
    """A table gives 1 for one word anywhere; a reader only in one context."""
    table = rng.normal(10, 6)
    static, causal, both_ways = readers(table)
    a, b = torch.tensor([3, 8, 5, 1, 9]), torch.tensor([3, 8, 5, 7, 0, 2, 5])
    close(exercises.contextual_similarity(static, a, 2, b, 6), 1.0, "one word in two places of a static table")
    close(exercises.contextual_similarity(causal, a, 2, b, 2), 1.0, "one word after the same beginning, read causally")
    for model, i, j in ((causal, 2, 6), (both_ways, 2, 2), (both_ways, 2, 6)):
        got = exercises.contextual_similarity(model, a, i, b, j)
        expected = F.cosine_similarity(model(a[None])[0, i], model(b[None])[0, j], dim=0).item()
        roughly(got, expected, 1e-9, f"one word at places {i} and {j}, in two contexts")
        holds(got < 1 - 1e-9, "One word in two contexts has two vectors.")
