"""What the figure of chapter 18 computes and says, held against the reference."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
TERMS = ["mill", "river", "the", "bird", "stream"]
MODULE = (Path(__file__).parents[2] / "chapters" / Path(__file__).parent.name / "explore.js").read_text(
    encoding="utf-8"
)
GIVEN = json.loads(re.search(r"export const defaults = (\{.*?\n\});", MODULE, re.DOTALL)[1])
DOCUMENTS, VECTORS = GIVEN["documents"], GIVEN["vectors"]


def draw(rng, low, high):
    return [TERMS[int(i)] for i in rng.integers(0, len(TERMS), int(rng.integers(low, high)))]


@mirror("bm25")
def bm25(rng):
    docs, query = [draw(rng, 0, 8) for _ in range(6)], [*draw(rng, 1, 4), "watermill"]
    return [docs, query, 1.2, 0.5], reference.BM25(docs, 1.2, 0.5).scores(query)


@mirror("unit")
def unit(rng):
    X = rng.normal(4, 3)
    X[2] = 0
    return [X], reference.embed(["a", "b", "c", "d"], lambda texts: X)


@mirror("dots")
def dots(rng):
    Q, X = rng.normal(1, 4), rng.normal(6, 4)
    scores, order = reference.dense_search(Q, X, 6)
    return [Q[0], X], scores[0][order[0].argsort()]


@mirror("ranking")
def ranking(rng):
    X = (2 * rng.normal(7, 1)).round()
    scores, order = reference.dense_search(torch.ones(1, 1, dtype=X.dtype), X, 7)
    return [X[:, 0]], order[0][scores[0] > 0]


@mirror("rrf")
def rrf(rng):
    rankings = [rng.permutation(7)[: int(rng.integers(0, 7))].tolist() for _ in range(3)]
    expected = reference.rrf(rankings[:1], 60)  # one ranking, perhaps empty
    return [rankings[:1], 60], [list(pair) for pair in expected]


@mirror("rrf")
def rrf_of_two(rng):
    first = rng.permutation(6).tolist()
    rankings = [first, [first[2], first[4], first[1]]]
    return [rankings, 10], [list(pair) for pair in reference.rrf(rankings, 10)]


@mirror("mmr")
def mmr(rng):
    X = reference.embed(list("abcdef"), lambda texts: rng.normal(6, 3))
    scores = rng.uniform(6)
    return [scores, X @ X.T, 0.6], reference.mmr(scores, X @ X.T, 0.6, 6)


@mirror("pack")
def pack(rng):
    chunks = [" ".join(draw(rng, 1, 6)) for _ in range(6)]
    chunks[4] = chunks[1]
    order, budget = rng.permutation(6).tolist(), int(rng.integers(3, 20))
    return [chunks, order, budget], packed(chunks, order, budget)


def packed(chunks, order, budget):
    scores = [-order.index(i) if i in order else -99 for i in range(len(chunks))]
    text = reference.pack_context(chunks, scores, budget, lambda text: len(text.split()))
    return [int(i) for i in re.findall(r"^\[(\d+)\]", text, re.MULTILINE)]


def terms(text):
    return re.findall(r"\w+", text.lower())


def encoder(texts):
    rows = [[VECTORS.get(term, [0.0] * 4) for term in terms(text)] for text in texts]
    return torch.stack([torch.tensor(row, dtype=torch.float64).sum(0) for row in rows])


def rankings(query):
    words = reference.BM25([terms(text) for text in DOCUMENTS]).scores(terms(query))
    Q, X = reference.embed([query], encoder), reference.embed(DOCUMENTS, encoder)
    scores, order = reference.dense_search(Q, X, len(DOCUMENTS))
    return words, [int(i) for i, s in zip(order[0], scores[0], strict=True) if s > 1e-9]


@shown(panel="search", query="E0428", search="words")
def words_know_names():
    words, vectors = rankings("E0428")
    return f"words put [{int(words.argmax())}] first, vectors put [{vectors[0]}] first."


@shown(panel="search", query="vehicle")
def vectors_know_meanings():
    words, vectors = rankings("vehicle")
    assert not words.any()
    best, score = reference.rrf([[], vectors])[0]
    return (
        f"words find nothing, vectors put [{vectors[0]}] first. Ranked by both, fused, [{best}] leads with {score:.4f}."
    )


@shown(panel="search", query="vehicle", search="vectors", lam=1, budget=17)
def the_budget_is_for_whole_documents():
    taken = packed(DOCUMENTS, rankings("vehicle")[1], 17)
    used = sum(len(DOCUMENTS[i].split()) + 1 for i in taken)
    return f"The context holds {', '.join(f'[{i}]' for i in taken)}: {used} of 17 words."


def inverted_file(X, n_list):
    """Give an index of random start, the rows it began with, and itself as the figure has it."""
    index = reference.IVFIndex(X, n_list, seed=3)
    start = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(3))[:n_list]]
    return index, start, {"centroids": index.centroids, "lists": index.lists}


@mirror("invertedFile")
def inverted_files(rng):
    X = rng.normal(40, 3)
    _, start, expected = inverted_file(X, 5)
    return [X, start, reference.ROUNDS], expected


@mirror("read")
def read(rng):
    X, q = rng.normal(40, 3), rng.normal(3)
    index, _, given = inverted_file(X, 5)
    return [given, q, 3], (index.centroids - q).norm(dim=1).topk(3, largest=False).indices


@mirror("probe")
def probe(rng):
    X, q = rng.normal(60, 3), rng.normal(3)
    index, _, given = inverted_file(X, 6)
    probes = int(rng.integers(1, 7))
    return [X, given, q, 8, probes], index.search(q, 8, probes)


@mirror("recall")
def recall(rng):
    found, truth = (rng.permutation(12)[:8].tolist() for _ in range(2))
    found = found[: int(rng.integers(0, 8))]
    return [found, truth, 5], reference.recall_at_k(found, truth, 5)


def uniform(seed: int) -> Iterator[float]:
    """Give the kit's uniform random numbers."""
    state = (seed * 2654435761 & 0xFFFFFFFF) ^ 0x5BD1E995
    while True:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield state / 2**32


def drawn(width, gathered):
    """Give the figure's 400 vectors and 50 queries."""
    draw = uniform(width)

    def row():
        return [math.sqrt(-2 * math.log(1 - next(draw))) * math.cos(2 * math.pi * next(draw)) for _ in range(width)]

    centres, rows = [row() for _ in range(16)], []
    for _ in range(450):
        centre = centres[int(next(draw) * 16)]
        rows.append([c + 0.3 * x if gathered else x for c, x in zip(centre, row(), strict=True)])
    return torch.tensor(rows, dtype=torch.float64).split([400, 50])


def index_begun_at_the_first(X, n_list):
    """Give an index of the same vectors in another order, whose k-means begins at the first ones."""
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return reference.IVFIndex(X[order.argsort()], n_list, seed=0)


def recalls(width, gathered, probes):
    """Give the index, the queries, and the recall of each."""
    X, Q = drawn(width, gathered)
    index = index_begun_at_the_first(X, 16)
    searches = [(index.search(q, 10, probes), index.search(q, 10, 16)) for q in Q]
    return index, Q, [reference.recall_at_k(found, truth, 10) for found, truth in searches]


def lists_read(asked, probes, gathered):
    """Say what a query finds, and the recall of all."""
    index, Q, flat = recalls(2, gathered, probes)
    _, _, wide = recalls(16, gathered, probes)
    nearest = (index.centroids - Q[asked - 1]).norm(dim=1).argsort()[:probes]
    compared = 16 + sum(len(index.lists[int(j)]) for j in nearest)
    right, recalled = round(10 * flat[asked - 1]), [f"{sum(each) / 50:.3f}" for each in (flat, wide)]
    return (
        f"It is compared with {compared} vectors, centroids included, instead of 400, and finds {right} of its 10 "
        f"nearest. Over 50 queries, recall@10 is {recalled[0]} in width 2, and {recalled[1]} in width 16."
    )


@shown(panel="lists", probes=1, asked=12, gathered=False)
def one_list_misses_neighbours():
    return lists_read(12, 1, False)


@shown(panel="lists", probes=3, asked=7, gathered=True)
def clusters_are_found():
    return lists_read(7, 3, True)
