"""What students of chapter 4 get wrong, as code that runs."""

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- embedding_forward, embedding_backward


@misconception("embedding_forward", "You flatten the ids for good; the result keeps their shape and gains one axis, D.")
def loses_the_shape(W, ids):
    return W[ids.reshape(-1)]


@misconception("embedding_forward", "You count ids from 1; id 0 is the first row of the table.")
def counts_from_one(W, ids):
    return W[ids - 1]


@misconception(
    "embedding_forward",
    "dW[ids] += grad keeps only one gradient of a repeated id; add them all, as np.add.at does.",
    "embedding_backward",
)
def repeats_overwrite(ids, grad_out, V, padding_idx=None):
    dW = np.zeros((V, grad_out.shape[-1]), dtype=grad_out.dtype)
    dW[ids] += grad_out
    if padding_idx is not None:
        dW[padding_idx] = 0
    return dW


@misconception(
    "embedding_forward",
    "You average the gradients of a repeated id; the loss sees the row each time, so they are summed.",
    "embedding_backward",
)
def averages_repeats(ids, grad_out, V, padding_idx=None):
    times = np.bincount(ids.reshape(-1), minlength=V)[:, None].clip(min=1)
    dW = reference.embedding_backward(ids, grad_out, V, padding_idx)
    return (dW / times).astype(dW.dtype)


@misconception(
    "embedding_forward",
    "The product is transposed: the gradient has the shape of the table, (V, D), so one-hot.T @ grad.",
    "embedding_backward",
)
def multiplies_transposed(ids, grad_out, V, padding_idx=None):
    return np.ascontiguousarray(reference.embedding_backward(ids, grad_out, V, padding_idx).T)


@misconception(
    "embedding_forward",
    "The row of padding learns; its gradient must be zero, or the padding becomes a word.",
    "embedding_backward",
)
def padding_learns(ids, grad_out, V, padding_idx=None):
    return reference.embedding_backward(ids, grad_out, V)


@misconception(
    "embedding_forward",
    "`if padding_idx:` is false for the id 0, so padding 0 learns; compare with None instead.",
    "embedding_backward",
)
def padding_zero_is_false(ids, grad_out, V, padding_idx=None):
    return reference.embedding_backward(ids, grad_out, V, padding_idx or None)


@misconception(
    "embedding_forward",
    "You treat id 0 as padding although nobody said so; without padding_idx every row learns.",
    "embedding_backward",
)
def zero_is_always_padding(ids, grad_out, V, padding_idx=None):
    dW = reference.embedding_backward(ids, grad_out, V, padding_idx)
    dW[0] = 0
    return dW


@misconception(
    "embedding_forward",
    "You make rows only for ids up to the largest that occurs; the table has V rows, whatever occurs.",
    "embedding_backward",
)
def rows_that_occur(ids, grad_out, V, padding_idx=None):
    return reference.embedding_backward(ids, grad_out, V, padding_idx)[: int(ids.max(initial=0)) + 1]


# -- cosine_similarity_matrix


@misconception("cosine_similarity_matrix", "This is the plain dot product; divide each row by its own length first.")
def plain_dot_product(A, B, eps=1e-8):
    return A @ B.T


@misconception("cosine_similarity_matrix", "You normalise columns; the length of a vector is the norm of its row.")
def normalises_columns(A, B, eps=1e-8):
    return A / A.norm(dim=0).clamp(min=eps) @ (B / B.norm(dim=0).clamp(min=eps)).T


@misconception(
    "cosine_similarity_matrix", "You divide by the norms of the whole matrices; each row needs a norm of its own."
)
def divides_by_matrix_norms(A, B, eps=1e-8):
    return A @ B.T / (A.norm().clamp(min=eps) * B.norm().clamp(min=eps))


@misconception("cosine_similarity_matrix", "You normalise A only, so long rows of B still win; normalise both.")
def normalises_one_side(A, B, eps=1e-8):
    return A / A.norm(dim=1, keepdim=True).clamp(min=eps) @ B.T


@misconception("cosine_similarity_matrix", "A row of zeros gives 0 / 0, which is NaN; no norm may be below eps.")
def zero_rows_are_nan(A, B, eps=1e-8):
    return A / A.norm(dim=1, keepdim=True) @ (B / B.norm(dim=1, keepdim=True)).T


@misconception("cosine_similarity_matrix", "You add eps to every norm; only a norm below eps is replaced by eps.")
def adds_eps(A, B, eps=1e-8):
    return A / (A.norm(dim=1, keepdim=True) + eps) @ (B / (B.norm(dim=1, keepdim=True) + eps)).T


@misconception("cosine_similarity_matrix", "The argument eps is not used; short rows must be divided by it.")
def ignores_eps(A, B, eps=1e-8):
    return reference.cosine_similarity_matrix(A, B)


@misconception("cosine_similarity_matrix", "You take absolute values; vectors that point apart have cosine -1, not 1.")
def absolute_value(A, B, eps=1e-8):
    return reference.cosine_similarity_matrix(A, B, eps).abs()


@misconception("cosine_similarity_matrix", "This is one minus the cosine, a distance; alike is 1 and opposite is -1.")
def distance_for_similarity(A, B, eps=1e-8):
    return 1 - reference.cosine_similarity_matrix(A, B, eps)


# -- nearest, analogy


@misconception("nearest", "You rank by dot product, so a long vector always wins; rank by cosine.")
def ranks_by_dot_product(E, q, k, exclude=()):
    return [i for i in (E @ q).argsort(descending=True).tolist() if i not in exclude][:k]


@misconception("nearest", "You rank by Euclidean distance, in which length counts; rank by cosine.")
def ranks_by_distance(E, q, k, exclude=()):
    return [i for i in (E - q).norm(dim=1).argsort().tolist() if i not in exclude][:k]


@misconception("nearest", "Your list begins with the least similar ids; the highest cosine comes first.")
def ranks_upwards(E, q, k, exclude=()):
    return reference.nearest(E, -q, k, exclude)


@misconception("nearest", "You hide excluded ids behind minus infinity, but a large k lists them; leave them out.")
def excluded_at_the_end(E, q, k, exclude=()):
    similarity = reference.cosine_similarity_matrix(E, q[None])[:, 0]
    similarity[list(exclude)] = -torch.inf
    return similarity.argsort(descending=True).tolist()[:k]


@misconception(
    "nearest", "You give excluded ids the similarity 0, which beats every negative one; leave them out instead."
)
def excluded_as_zero(E, q, k, exclude=()):
    similarity = reference.cosine_similarity_matrix(E, q[None])[:, 0]
    similarity[list(exclude)] = 0.0
    return similarity.argsort(descending=True).tolist()[: min(k, len(E) - len(set(exclude)))]


@misconception("nearest", "You take k ids first and drop the excluded ones after, so some are missing; drop first.")
def drops_after_cutting(E, q, k, exclude=()):
    return [i for i in reference.nearest(E, q, k) if i not in exclude]


@misconception("nearest", "The inputs of an analogy come back as its answer; exclude a, b and c.", "analogy")
def inputs_may_answer(E, a, b, c, k=1):
    U = F.normalize(E, dim=1)
    return reference.nearest(U, U[b] - U[a] + U[c], k)


@misconception("nearest", "You exclude c only; a and b must not answer either.", "analogy")
def only_c_is_excluded(E, a, b, c, k=1):
    U = F.normalize(E, dim=1)
    return reference.nearest(U, U[b] - U[a] + U[c], k, (c,))


@misconception(
    "nearest", "You add the rows as they are, so the longest decides; scale them to length 1 first.", "analogy"
)
def adds_raw_rows(E, a, b, c, k=1):
    return reference.nearest(E, E[b] - E[a] + E[c], k, (a, b, c))


@misconception("nearest", "The sign is turned round: the query is b - a + c, and yours is a - b + c.", "analogy")
def subtracts_the_wrong_one(E, a, b, c, k=1):
    return reference.analogy(E, b, a, c, k)


@misconception(
    "nearest", "Scaling a row of zeros gives NaN, which ranks first; guard the norm with a small floor.", "analogy"
)
def zero_row_is_nan(E, a, b, c, k=1):
    U = E / E.norm(dim=1, keepdim=True)
    similarity = U @ (U[b] - U[a] + U[c])
    return [i for i in similarity.argsort(descending=True).tolist() if i not in (a, b, c)][:k]


# -- skipgram_pairs


def pairs_of(sentences, reach, keep=lambda s, i, j: i != j):
    """Pairs whose distance lies within reach(s, i) = (left, right), and which are kept."""
    pairs = []
    for s in sentences:
        for i in range(len(s)):
            left, right = reach(s, i)
            pairs += [(s[i], s[j]) for j in range(max(i - left, 0), min(i + right + 1, len(s))) if keep(s, i, j)]
    return pairs


def draw(low, high, rng):
    return int(torch.randint(low, high, (1,), generator=rng))


def right_reach(window, dynamic, rng):
    return lambda s, i: (draw(1, window + 1, rng) if dynamic else window,) * 2


@misconception("skipgram_pairs", "You pair each position with itself; leave the centre out of its own context.")
def includes_the_centre(sentences, window, dynamic=False, rng=None):
    return pairs_of(sentences, right_reach(window, dynamic, rng), lambda s, i, j: True)


@misconception(
    "skipgram_pairs", "You compare words to leave the centre out; a word may stand twice, so compare positions."
)
def drops_equal_words(sentences, window, dynamic=False, rng=None):
    return pairs_of(sentences, right_reach(window, dynamic, rng), lambda s, i, j: s[i] != s[j])


@misconception("skipgram_pairs", "The window runs over the ends of sentences; take each sentence on its own.")
def crosses_sentences(sentences, window, dynamic=False, rng=None):
    return reference.skipgram_pairs([[word for s in sentences for word in s]], window, dynamic, rng)


@misconception("skipgram_pairs", "You look to the right only; the context stands on both sides.")
def looks_to_the_right(sentences, window, dynamic=False, rng=None):
    return pairs_of(sentences, lambda s, i: (0, right_reach(window, dynamic, rng)(s, i)[1]))


@misconception("skipgram_pairs", "The right side is one word short; a range needs i + reach + 1 as its end.")
def right_side_is_short(sentences, window, dynamic=False, rng=None):
    reach = right_reach(window, dynamic, rng)
    return pairs_of(sentences, lambda s, i: (lambda r: (r[0], r[1] - 1))(reach(s, i)))


@misconception("skipgram_pairs", "You list each pair once; how often it occurs is what the training learns from.")
def lists_each_pair_once(sentences, window, dynamic=False, rng=None):
    return sorted(set(reference.skipgram_pairs(sentences, window, dynamic, rng)))


@misconception("skipgram_pairs", "`dynamic` is not used; each centre must draw a reach of its own.")
def never_dynamic(sentences, window, dynamic=False, rng=None):
    return reference.skipgram_pairs(sentences, window)


@misconception(
    "skipgram_pairs", "The upper end of torch.randint is exclusive, so the whole window is never used; add one."
)
def never_the_whole_window(sentences, window, dynamic=False, rng=None):
    return pairs_of(sentences, lambda s, i: (draw(1, max(window, 2), rng) if dynamic else window,) * 2)


@misconception("skipgram_pairs", "Some centres draw the reach 0 and get no pair; reaches run from 1 to window.")
def may_reach_nowhere(sentences, window, dynamic=False, rng=None):
    return pairs_of(sentences, lambda s, i: (draw(0, window + 1, rng) if dynamic else window,) * 2)


@misconception(
    "skipgram_pairs", "You put the context first; a pair is (centre, context), and the centre draws the reach."
)
def context_first(sentences, window, dynamic=False, rng=None):
    return [(b, a) for a, b in reference.skipgram_pairs(sentences, window, dynamic, rng)]


@misconception("skipgram_pairs", "You draw one reach for all centres; each centre draws its own.")
def one_reach_for_all(sentences, window, dynamic=False, rng=None):
    return reference.skipgram_pairs(sentences, draw(1, window + 1, rng) if dynamic else window)


@misconception("skipgram_pairs", "Left and right draw a reach each; one draw serves both sides of a centre.")
def a_reach_for_each_side(sentences, window, dynamic=False, rng=None):
    reach = right_reach(window, dynamic, rng)
    return pairs_of(sentences, lambda s, i: (reach(s, i)[0], reach(s, i)[1]))


# -- sgns_loss


def loss_of(center, context, negatives, positive_term=F.logsigmoid, negative_term=lambda x: F.logsigmoid(-x).sum(-1)):
    positive = (center * context).sum(-1)
    negative = (negatives @ center[:, :, None]).squeeze(-1)
    return -(positive_term(positive) + negative_term(negative)).mean()


@misconception("sgns_loss", "log of sigmoid is minus infinity for low scores; use logsigmoid, which never underflows.")
def log_of_sigmoid(center, context, negatives):
    return loss_of(center, context, negatives, lambda x: x.sigmoid().log(), lambda x: (-x).sigmoid().log().sum(-1))


@misconception("sgns_loss", "A small constant in the logarithm caps the loss and kills its gradient; use logsigmoid.")
def constant_in_the_logarithm(center, context, negatives):
    return loss_of(
        center,
        context,
        negatives,
        lambda x: (x.sigmoid() + 1e-10).log(),
        lambda x: ((-x).sigmoid() + 1e-10).log().sum(-1),
    )


@misconception("sgns_loss", "You average over the K negatives; they are summed, and only the batch is averaged.")
def averages_negatives(center, context, negatives):
    return loss_of(center, context, negatives, negative_term=lambda x: F.logsigmoid(-x).mean(-1))


@misconception("sgns_loss", "You sum over the batch; average it, so that the step does not grow with its size.")
def sums_the_batch(center, context, negatives):
    return loss_of(center, context, negatives) * len(center)


@misconception("sgns_loss", "Negatives are pulled like neighbours; their score needs a minus before the sigmoid.")
def pulls_negatives(center, context, negatives):
    return loss_of(center, context, negatives, negative_term=lambda x: F.logsigmoid(x).sum(-1))


@misconception(
    "sgns_loss", "You add the scores of the negatives before the sigmoid; each negative is a decision of its own."
)
def adds_scores_first(center, context, negatives):
    return loss_of(center, context, negatives, negative_term=lambda x: F.logsigmoid(-x.sum(-1)))


@misconception("sgns_loss", "You compare negatives with the context vector; both are answers to the centre.")
def negatives_against_context(center, context, negatives):
    against = (negatives @ context[:, :, None]).squeeze(-1)
    return -(F.logsigmoid((center * context).sum(-1)) + F.logsigmoid(-against).sum(-1)).mean()


@misconception(
    "sgns_loss", "This is the log-likelihood, which grows when things get better; a loss has the other sign."
)
def log_likelihood(center, context, negatives):
    return -loss_of(center, context, negatives)


@misconception("sgns_loss", "The true neighbour is missing; without it nothing is pulled together.")
def only_negatives(center, context, negatives):
    return loss_of(center, context, negatives, positive_term=lambda x: 0 * x)


# -- negative_sampling_probs


@misconception("negative_sampling_probs", "You normalise before the power, so the sum is not one; normalise last.")
def normalises_first(counts, power=0.75):
    p = counts / counts.sum()
    return torch.where(counts > 0, p**power, 0.0)


@misconception("negative_sampling_probs", "You use ranks instead of counts; how much more often a word occurs matters.")
def uses_ranks(counts, power=0.75):
    ranks = counts.argsort().argsort().to(counts.dtype) + 1
    return reference.negative_sampling_probs(torch.where(counts > 0, ranks, 0.0), power)


@misconception(
    "negative_sampling_probs", "You raise the logarithm of the count; the power belongs to the count itself."
)
def raises_logarithms(counts, power=0.75):
    return reference.negative_sampling_probs(torch.log1p(counts), power)


@misconception(
    "negative_sampling_probs", "0 ** 0 is 1, so words that never occur are drawn at power 0; give them 0 yourself."
)
def zero_to_the_zero(counts, power=0.75):
    weights = counts**power
    return weights / weights.sum()


@misconception("negative_sampling_probs", "These are the plain frequencies; the power is not used.")
def plain_frequencies(counts, power=0.75):
    return counts / counts.sum()


@misconception("negative_sampling_probs", "You add one to every count, so words that never occur are drawn.")
def adds_one(counts, power=0.75):
    return reference.negative_sampling_probs(counts + 1, power)


# -- train_word2vec


def train(pairs, V, D, steps, rng, start=None, rate=reference.LR, shared=False, frozen=False, zero=True, **change):
    """The right recipe but for what is named; `change` may hold batch(data, rng), negatives(...), loss(u, v, n)."""
    data = torch.as_tensor(pairs)
    batch, K = reference.BATCH, reference.K
    pick = change.get("batch", lambda data: data[torch.randint(len(data), (batch,), generator=rng)])
    noise = reference.negative_sampling_probs(torch.bincount(data[:, 1], minlength=V).double())
    loss_fn = change.get("loss", reference.sgns_loss)
    start = start or (lambda: (torch.rand(V, D, generator=rng) - 0.5) / D)
    U = start().requires_grad_()
    C = U if shared else start().requires_grad_(not frozen)
    optimizer = torch.optim.Adam([x for x in (U, C)[: 1 if shared else 2] if x.requires_grad], lr=rate)
    for _ in range(steps):
        centre, context = pick(data).T
        negative = torch.multinomial(noise, batch * K, replacement=True, generator=rng).reshape(-1, K)[: len(centre)]
        negative = change.get("negatives", lambda negative, context: negative)(negative, context)
        loss = loss_fn(U[centre], C[context], C[negative])
        if zero:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return U.detach()


@misconception("train_word2vec", "Your negatives are the true contexts again; draw random words for them.")
def negatives_are_positives(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, negatives=lambda negative, context: context[:, None].expand_as(negative))


@misconception("train_word2vec", "You pair every word with itself; the context is the second number of a pair.")
def window_of_zero(pairs, V, D, steps, rng):
    return train([(a, a) for a, _ in pairs], V, D, steps, rng)


@misconception("train_word2vec", "The vectors never move from their start; take steps with a learning rate above 0.")
def learning_rate_zero(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, rate=0.0)


@misconception("train_word2vec", "Centres and contexts share one table, so a word repels itself; use two tables.")
def one_shared_table(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, shared=True)


@misconception("train_word2vec", "Only the table of centres learns; give both tables to the optimizer.")
def contexts_never_learn(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, frozen=True)


@misconception("train_word2vec", "Without negatives all vectors collapse to one direction; push random words away.")
def no_negatives(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, loss=lambda u, v, n: -F.logsigmoid((u * v).sum(-1)).mean())


@misconception("train_word2vec", "Gradients of all former steps pile up; set them to zero before each backward.")
def gradients_pile_up(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, zero=False)


@misconception("train_word2vec", "Every step sees the same first pairs; draw a new batch from all pairs each time.")
def always_the_first_batch(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, batch=lambda data: data[: reference.BATCH])


@misconception(
    "train_word2vec",
    "You start with vectors of length about the root of D, and noise drowns what is learned; start small.",
)
def starts_large(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, rng, start=lambda: torch.randn(V, D, generator=rng))


@misconception("train_word2vec", "You take a number of steps of your own choice; take as many as `steps` says.")
def own_number_of_steps(pairs, V, D, steps, rng):
    return train(pairs, V, D, 500, rng)


@misconception("train_word2vec", "You draw from torch's global generator; hand rng to every draw.")
def global_generator(pairs, V, D, steps, rng):
    return train(pairs, V, D, steps, torch.default_generator)


@misconception("train_word2vec", "Your table has rows only for words that occur; it needs V of them.")
def only_words_that_occur(pairs, V, D, steps, rng):
    return reference.train_word2vec(pairs, 1 + max(max(pair) for pair in pairs), D, steps, rng)


# -- mean_pool, contextual_similarity


@misconception("mean_pool", "The mask is not used, so padding enters the mean; average over real tokens only.")
def ignores_the_mask(hidden, mask):
    return hidden.mean(dim=1)


@misconception("mean_pool", "You divide by T; the padding is gone from the sum, so it must be gone from the count.")
def divides_by_all_places(hidden, mask):
    return (hidden * mask[:, :, None]).mean(dim=1)


@misconception("mean_pool", "You pool over the batch; every sequence has a mean of its own, along the axis of tokens.")
def pools_over_the_batch(hidden, mask):
    real = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * real).sum(dim=0) / real.sum(dim=0).clamp(min=1)


@misconception("mean_pool", "A row without real tokens is 0 / 0, which is NaN; divide by at least one.")
def mean_of_nothing_is_nan(hidden, mask):
    real = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * real).sum(dim=1) / real.sum(dim=1)


@misconception("mean_pool", "You average the first tokens, as many as are real; real tokens may stand anywhere.")
def takes_the_first_places(hidden, mask):
    return reference.mean_pool(hidden, torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True))


@misconception("mean_pool", "The first token of padding is counted in; use the mask as it is.")
def one_place_too_many(hidden, mask):
    return reference.mean_pool(hidden, mask | F.pad(mask, (1, -1)))


@misconception("mean_pool", "You take the largest value of each feature; the mean was asked for.")
def takes_the_maximum(hidden, mask):
    return hidden.masked_fill(~mask[:, :, None], -torch.inf).amax(dim=1)


@misconception(
    "mean_pool", "You read both sentences at the first position; the second has its own.", "contextual_similarity"
)
def one_position_for_both(model, ids_a, pos_a, ids_b, pos_b):
    return reference.contextual_similarity(model, ids_a, pos_a, ids_b, min(pos_a, len(ids_b) - 1))


@misconception(
    "mean_pool", "This is the dot product; divide by both lengths to get the cosine.", "contextual_similarity"
)
def dot_product_of_contexts(model, ids_a, pos_a, ids_b, pos_b):
    return float(model(ids_a[None])[0, pos_a] @ model(ids_b[None])[0, pos_b])


@misconception(
    "mean_pool", "You compare whole sentences; compare the vectors at the two positions.", "contextual_similarity"
)
def compares_sentences(model, ids_a, pos_a, ids_b, pos_b):
    a, b = model(ids_a[None]).mean(1), model(ids_b[None]).mean(1)
    return reference.cosine_similarity_matrix(a, b).item()


@misconception(
    "mean_pool", "The model sees the word alone, without its sentence; let it read the whole.", "contextual_similarity"
)
def reads_the_word_alone(model, ids_a, pos_a, ids_b, pos_b):
    return reference.contextual_similarity(model, ids_a[pos_a : pos_a + 1], 0, ids_b[pos_b : pos_b + 1], 0)


@misconception(
    "mean_pool",
    "You cut the sentence off behind the word; the model may look at what follows.",
    "contextual_similarity",
)
def cuts_behind_the_word(model, ids_a, pos_a, ids_b, pos_b):
    return reference.contextual_similarity(model, ids_a[: pos_a + 1], pos_a, ids_b[: pos_b + 1], pos_b)
