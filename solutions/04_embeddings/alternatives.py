"""Right answers of chapter 4 written in other styles; a suite that fails one of them is wrong."""

import heapq
import math
from itertools import chain

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


@alternative("embedding_forward", "a product with one-hot rows")
def by_one_hot_product(W, ids):
    return np.eye(len(W), dtype=W.dtype)[ids] @ W


@alternative("embedding_forward", "indexing, and a copy")
def by_indexing(W, ids):
    return W[ids].copy()


@alternative("embedding_forward", "a loop over tokens", "embedding_backward")
def backward_by_loop(ids, grad_out, V, padding_idx=None):
    dW = np.zeros((V,) + grad_out.shape[-1:], grad_out.dtype)
    for index in np.ndindex(ids.shape):
        if ids[index] != padding_idx:
            dW[ids[index]] += grad_out[index]
    return dW


@alternative("embedding_forward", "the transpose of a one-hot product", "embedding_backward")
def backward_by_one_hot_product(ids, grad_out, V, padding_idx=None):
    one_hot = (ids.reshape(-1, 1) == np.arange(V)).astype(grad_out.dtype)  # (N, V)
    if padding_idx is not None:
        one_hot[:, padding_idx] = 0
    return np.einsum("nv,nd->vd", one_hot, grad_out.reshape(-1, grad_out.shape[-1]))


@alternative("embedding_forward", "torch's index_add_ inside", "embedding_backward")
def backward_by_index_add(ids, grad_out, V, padding_idx=None):
    D = grad_out.shape[-1]
    dW = torch.zeros(V, D, dtype=torch.from_numpy(grad_out).dtype)
    dW.index_add_(0, torch.from_numpy(ids).reshape(-1), torch.from_numpy(grad_out).reshape(-1, D))
    if padding_idx is not None:
        dW[padding_idx].zero_()
    return dW.numpy()


@alternative("cosine_similarity_matrix", "F.normalize on both sides")
def cosines_by_normalize(A, B, eps=1e-8):
    return F.normalize(A, dim=1, eps=eps) @ F.normalize(B, dim=1, eps=eps).T


@alternative("cosine_similarity_matrix", "two loops, float64 inside")
def cosines_by_loops(A, B, eps=1e-8):
    result = torch.zeros(len(A), len(B), dtype=A.dtype)
    for i, a in enumerate(A.double().tolist()):
        for j, b in enumerate(B.double().tolist()):
            lengths = [max(math.sqrt(math.fsum(x * x for x in v)), eps) for v in (a, b)]
            result[i, j] = math.fsum(x * y for x, y in zip(a, b, strict=True)) / lengths[0] / lengths[1]
    return result


@alternative("cosine_similarity_matrix", "the dot products divided by an outer product of norms")
def cosines_by_outer_product(A, B, eps=1e-8):
    a, b = (torch.linalg.vector_norm(x, dim=-1).clamp_min(eps) for x in (A, B))
    return torch.einsum("nd,md->nm", A, B) / torch.outer(a, b)


@alternative("nearest", "topk after the excluded rows are gone")
def nearest_by_topk(E, q, k, exclude=()):
    left = [i for i in range(len(E)) if i not in set(exclude)]
    if not left:
        return []
    similarity = F.cosine_similarity(E[left], q, dim=-1)
    return [left[i] for i in similarity.topk(min(k, len(left))).indices]


@alternative("nearest", "a heap, and numpy in float64")
def nearest_by_heap(E, q, k, exclude=()):
    table, query = E.double().numpy(), q.double().numpy()
    lengths = np.linalg.norm(table, axis=1)
    score = np.divide(table @ query, lengths, out=np.zeros(len(table)), where=lengths > 0)
    return heapq.nlargest(k, set(range(len(table))) - set(exclude), key=lambda i: score[i])


@alternative("nearest", "from first principles, without nearest", "analogy")
def analogy_by_itself(E, a, b, c, k=1):
    U = F.normalize(E, dim=-1)
    ranking = torch.argsort(U @ (U[b] + U[c] - U[a]), descending=True)
    return [int(i) for i in ranking if int(i) not in {a, b, c}][:k]


@alternative("skipgram_pairs", "both directions of every pair of positions")
def pairs_by_distance(sentences, window, dynamic=False, rng=None):
    pairs = []
    for s in sentences:
        reach = torch.randint(1, window + 1, (len(s),), generator=rng).tolist() if dynamic else [window] * len(s)
        for d in range(1, window + 1):
            for i in range(len(s) - d):
                pairs += [(s[i], s[i + d])] if d <= reach[i] else []
                pairs += [(s[i + d], s[i])] if d <= reach[i + d] else []
    return pairs


@alternative("skipgram_pairs", "slices to the left and to the right, and a uniform number")
def pairs_by_slices(sentences, window, dynamic=False, rng=None):
    def around(s, i):
        b = 1 + int(torch.rand((), generator=rng) * window) if dynamic else window
        return [(s[i], word) for word in chain(s[max(0, i - b) : i], s[i + 1 : i + 1 + b])]

    return [pair for s in sentences for i in range(len(s)) for pair in around(s, i)]


@alternative("sgns_loss", "softplus")
def loss_by_softplus(center, context, negatives):
    positive = F.softplus(-(center * context).sum(1))
    negative = F.softplus((negatives * center.unsqueeze(1)).sum(2))
    return (positive + negative.sum(1)).mean()


@alternative("sgns_loss", "logistic regression with labels")
def loss_by_labels(center, context, negatives):
    scores = torch.bmm(torch.cat([context.unsqueeze(1), negatives], 1), center.unsqueeze(2)).squeeze(2)
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="none").sum(1).mean()


@alternative("sgns_loss", "a loop over the batch and its negatives")
def loss_by_loops(center, context, negatives):
    total = 0
    for u, v, noise in zip(center, context, negatives, strict=True):
        total = total - F.logsigmoid(u @ v)
        for n in noise:
            total = total - F.logsigmoid(-(u @ n))
    return total / len(center)


@alternative("negative_sampling_probs", "logarithms and a softmax")
def probs_by_softmax(counts, power=0.75):
    return torch.softmax(torch.where(counts > 0, power * counts.log(), -torch.inf), dim=0)


@alternative("negative_sampling_probs", "a list of Python floats")
def probs_by_list(counts, power=0.75):
    weights = [c**power if c > 0 else 0.0 for c in counts.tolist()]
    return torch.tensor([w / sum(weights) for w in weights], dtype=counts.dtype)


@alternative("train_word2vec", "two nn.Embedding layers, shuffled epochs, uniform negatives")
def train_by_modules(pairs, V, D, steps, rng):
    centres, contexts = nn.Embedding(V, D), nn.Embedding(V, D)
    for layer in (centres, contexts):
        nn.init.uniform_(layer.weight, -0.5 / D, 0.5 / D, generator=rng)
    optimizer = torch.optim.Adam([*centres.parameters(), *contexts.parameters()], lr=0.02)
    data = torch.tensor(pairs)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < 256:
            order = torch.randperm(len(data), generator=rng)
        batch, order = data[order[:256]], order[256:]
        u, v = centres(batch[:, 0]), contexts(batch[:, 1])
        n = contexts(torch.randint(0, V, (len(batch), 5), generator=rng))
        loss = F.softplus(-(u * v).sum(1)).mean() + F.softplus(n @ u[:, :, None]).sum((1, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return centres.weight.data


@alternative("train_word2vec", "gradients by hand and Adagrad, in numpy")
def train_by_hand(pairs, V, D, steps, rng):
    random = np.random.default_rng(int(torch.randint(2**31, (), generator=rng)))
    data = np.array(pairs)
    share = np.bincount(data[:, 1], minlength=V) ** 0.75
    tables = [random.uniform(-0.2, 0.2, (V, D)), random.uniform(-0.2, 0.2, (V, D))]
    seen = [np.full((V, D), 1e-8), np.full((V, D), 1e-8)]
    for _ in range(steps):
        i = data[random.integers(len(data), size=512)]
        answers = np.concatenate([i[:, 1:], random.choice(V, (512, 5), p=share / share.sum())], axis=1)  # (B, 1 + K)
        u, w = tables[0][i[:, 0]], tables[1][answers]
        miss = 1 / (1 + np.exp(-np.einsum("bd,bkd->bk", u, w))) - np.array([1.0, 0, 0, 0, 0, 0])
        gradients = [np.zeros((V, D)), np.zeros((V, D))]
        np.add.at(gradients[0], i[:, 0], np.einsum("bk,bkd->bd", miss, w) / 512)
        np.add.at(gradients[1], answers, miss[:, :, None] * u[:, None] / 512)
        for table, square, gradient in zip(tables, seen, gradients, strict=True):
            square += gradient**2
            table -= 0.1 * gradient / np.sqrt(square)
    return torch.tensor(tables[0], dtype=torch.float32)


@alternative("mean_pool", "a loop over rows, indexing by the mask")
def pool_by_rows(hidden, mask):
    rows = [h[m].mean(0) if m.any() else torch.zeros_like(h[0]) for h, m in zip(hidden, mask, strict=True)]
    return torch.stack(rows)


@alternative("mean_pool", "a product of the normalised mask with the vectors")
def pool_by_product(hidden, mask):
    weights = mask.to(hidden.dtype) / mask.sum(-1, keepdim=True).clamp_min(1)
    return torch.einsum("bt,btd->bd", weights, hidden)


@alternative("mean_pool", "F.cosine_similarity of two vectors", "contextual_similarity")
def similarity_by_library(model, ids_a, pos_a, ids_b, pos_b):
    a, b = model(ids_a.unsqueeze(0)).squeeze(0)[pos_a], model(ids_b.unsqueeze(0)).squeeze(0)[pos_b]
    return float(F.cosine_similarity(a, b, dim=-1))
