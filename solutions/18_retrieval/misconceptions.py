"""Wrong answers of chapter 18 that people really give, each with the sentence that sets them right."""

import math
import re
from collections import Counter

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- chunk, chunk_by_structure


def checked(size, overlap):
    if size < 1 or not 0 <= overlap < size:
        raise ValueError("overlap")


@misconception("chunk", "Your last chunk lies wholly inside the one before; stop at the first that reaches the end.")
def redundant_tail(tokens, size, overlap):
    checked(size, overlap)
    return [tokens[i : i + size] for i in range(0, len(tokens), size - overlap)]


@misconception("chunk", "You drop the tokens after the last full chunk; the last chunk may be shorter than size.")
def drops_the_tail(tokens, size, overlap):
    checked(size, overlap)
    return [tokens[i : i + size] for i in range(0, len(tokens) - size + 1, size - overlap)]


@misconception("chunk", "You step by the whole size, so nothing overlaps; step by size - overlap.")
def no_overlap(tokens, size, overlap):
    checked(size, overlap)
    return [tokens[i : i + size] for i in range(0, len(tokens), size)]


@misconception("chunk", "An overlap as large as the size never advances; raise a ValueError instead of shrinking it.")
def shrinks_the_overlap(tokens, size, overlap):
    size = max(size, 1)
    return reference.chunk(tokens, size, min(max(overlap, 0), size - 1))


@misconception("chunk", "You step by overlap; the next chunk begins size - overlap tokens later.")
def steps_by_overlap(tokens, size, overlap):
    checked(size, overlap)
    chunks, start = [], 0
    while tokens and (not chunks or chunks[-1][-1:] != tokens[-1:]):
        chunks.append(tokens[start : start + size])
        start += max(overlap, 1)
    return chunks


@misconception(
    "chunk", "You leave headings at the end of a chunk; glue each to the block that it heads.", "chunk_by_structure"
)
def orphans_headings(text, max_tokens, count):
    chunks = []
    for block in text.split("\n\n") if text else []:
        if chunks and count(chunks[-1] + "\n\n" + block) <= max_tokens:
            chunks[-1] += "\n\n" + block
        else:
            chunks.append(block)
    return chunks


@misconception(
    "chunk", "You add the counts of the blocks; count the joined text, separators included.", "chunk_by_structure"
)
def adds_counts(text, max_tokens, count):
    def joined(whole):
        return sum(count(block) for block in whole.split("\n\n"))

    return reference.chunk_by_structure(text, max_tokens, joined)


@misconception(
    "chunk", "You open a new chunk at every heading; small sections share a chunk while they fit.", "chunk_by_structure"
)
def one_chunk_a_section(text, max_tokens, count):
    sections = re.split(r"\n\n(?=#)", text)
    return [part for section in sections for part in reference.chunk_by_structure(section, max_tokens, count)]


@misconception("chunk", "A chunk of exactly max_tokens is allowed; compare with <=, not <.", "chunk_by_structure")
def leaves_room_for_one(text, max_tokens, count):
    return reference.chunk_by_structure(text, max_tokens - 1, count)


@misconception("chunk", "You lose headings after which no block comes; keep them as a unit.", "chunk_by_structure")
def loses_last_headings(text, max_tokens, count):
    blocks = text.split("\n\n")
    while blocks and blocks[-1].startswith("#"):
        blocks.pop()
    return reference.chunk_by_structure("\n\n".join(blocks), max_tokens, count)


# -- BM25


def bm25(idf=None, tf=None, norm=None, query=list):
    """Make a class that differs from the formula in one place."""

    class Wrong:
        def __init__(self, docs, k1=1.5, b=0.75):
            self.k1, self.b, self.docs = k1, b, [Counter(doc) for doc in docs]
            self.lengths = [len(doc) for doc in docs]
            self.average = sum(self.lengths) / max(len(docs), 1) or 1.0
            self.df = Counter(t for doc in docs for t in set(doc))
            self.cf = Counter(t for doc in docs for t in doc)

        def scores(self, terms):
            N, result = len(self.docs), []
            for doc, length in zip(self.docs, self.lengths, strict=True):
                total = 0.0
                for t in query(terms):
                    if n := doc[t]:
                        df = self.df[t]
                        weight = idf(N, df, self.cf[t]) if idf else math.log(1 + (N - df + 0.5) / (df + 0.5))
                        size = (norm or (lambda b, r: 1 - b + b * r))(self.b, length / self.average)
                        total += weight * (tf or (lambda n, k: n * (k[0] + 1) / (n + k[0] * k[1])))(n, (self.k1, size))
                result.append(total)
            return torch.tensor(result, dtype=torch.float64)

    return Wrong


@misconception(
    "BM25", "You count every occurrence of a term for df; a document counts once, however often it repeats the term."
)
class CollectionFrequency(bm25(idf=lambda N, df, cf: math.log(1 + max(N - cf + 0.5, 0.0) / (cf + 0.5)))): ...


@misconception("BM25", "All terms weigh the same; multiply by the idf, so that rare terms count for more.")
class NoIdf(bm25(idf=lambda N, df, cf: 1.0)): ...


@misconception("BM25", "Your idf is negative for terms that most documents hold; take the logarithm of 1 + the ratio.")
class NegativeIdf(bm25(idf=lambda N, df, cf: math.log((N - df + 0.5) / (df + 0.5)))): ...


@misconception("BM25", "You take log(N / df), which is 0 for a term in all documents; use the given idf.")
class PlainIdf(bm25(idf=lambda N, df, cf: math.log(N / df))): ...


@misconception("BM25", "You divide the mean length by the document's; long documents must lose, so it is |d| / avg.")
class InverseLength(bm25(norm=lambda b, r: 1 - b + b / r)): ...


@misconception("BM25", "You ignore the length of the document; k1 is multiplied by 1 - b + b * |d| / avg.")
class NoLength(bm25(norm=lambda b, r: 1.0)): ...


@misconception("BM25", "You multiply idf by tf itself; repetition must saturate, by tf + k1 below.")
class NoSaturation(bm25(tf=lambda n, k: float(n))): ...


@misconception("BM25", "You exchanged b and 1 - b: b = 0 means that length does not count.")
class SwappedB(bm25(norm=lambda b, r: b + (1 - b) * r)): ...


@misconception("BM25", "The factor k1 + 1 above is missing: a single occurrence weighs too little.")
class NoK1Above(bm25(tf=lambda n, k: n / (n + k[0] * k[1]))): ...


@misconception("BM25", "You count a repeated term of the query once; it counts as often as it stands.")
class QueryAsSet(bm25(query=lambda terms: sorted(set(terms)))): ...


@misconception("BM25", "The mean length is 0 if all documents are empty, and you divide by it; guard it.")
class DividesByZero(bm25()):
    def __init__(self, docs, k1=1.5, b=0.75):
        super().__init__(docs, k1, b)
        self.average = sum(self.lengths) / len(docs)
        self.ratios = [length / self.average for length in self.lengths]


# -- embed, dense_search


@misconception("embed", "The vectors keep their length; divide each row by its Euclidean norm.")
def not_normalised(texts, encoder):
    return encoder(list(texts))


@misconception("embed", "You normalise the columns; the norm is taken along the features of each row.")
def normalises_columns(texts, encoder):
    x = encoder(list(texts))
    return x / x.norm(dim=0, keepdim=True).clamp(min=1e-12)


@misconception("embed", "A vector of zeros becomes NaN; keep the norm away from zero before you divide.")
def nan_for_zeros(texts, encoder):
    x = encoder(list(texts))
    return x / x.norm(dim=1, keepdim=True)


@misconception("embed", "You divide by the sum of absolute values; length is the root of the sum of squares.")
def l1_norm(texts, encoder):
    x = encoder(list(texts))
    return x / x.abs().sum(dim=1, keepdim=True).clamp(min=1e-12)


@misconception("embed", "You call the encoder once for each text; one call with all texts is much faster.")
def one_by_one(texts, encoder):
    return reference.embed(texts, lambda all_texts: torch.cat([encoder([t]) for t in all_texts]))


@misconception("embed", "You sort ascending, so the worst come first; the highest score is the best.", "dense_search")
def ascending(Q, X, k):
    scores, order = (Q @ X.T).sort(dim=1, stable=True)
    return scores[:, :k], order[:, :k]


@misconception("embed", "You average the queries and search once; every query has its own answer.", "dense_search")
def one_answer_for_all(Q, X, k):
    scores, order = reference.dense_search(Q.mean(dim=0, keepdim=True), X, k)
    return scores.expand(len(Q), -1).clone(), order.expand(len(Q), -1).clone()


@misconception(
    "embed", "Equal scores come in falling index; a stable descending sort keeps them rising.", "dense_search"
)
def ties_backwards(Q, X, k):
    scores, order = (Q @ X.T).sort(dim=1, stable=True)
    return scores.flip(1)[:, :k], order.flip(1)[:, :k]


@misconception(
    "embed", "torch.topk orders ties as it likes; sort stably, so that equal scores rise by index.", "dense_search"
)
def unstable_topk(Q, X, k):
    scores, order = (Q @ X.T).topk(min(k, len(X)), dim=1)
    return scores, order


@misconception("embed", "You sort for each document over the queries; the axis of documents is dim=1.", "dense_search")
def sorts_the_wrong_axis(Q, X, k):
    scores, order = (Q @ X.T).sort(dim=0, descending=True, stable=True)
    return scores[:, :k], order[:, :k]


@misconception("embed", "With fewer than k documents you fail; give as many as there are.", "dense_search")
def needs_k_documents(Q, X, k):
    if k > len(X):
        raise RuntimeError("selected index k out of range")
    return reference.dense_search(Q, X, k)


# -- IVFIndex, recall_at_k


class Ivf(reference.IVFIndex):
    """The reference, whose search can be changed in one place."""

    def near(self, q):
        return (self.centroids - q).norm(dim=1).argsort().tolist()

    def search(self, q, k, n_probe=1):
        read = [i for j in self.near(q)[:n_probe] for i in self.lists[j]]
        return [read[p] for p in (self.X[read] - q).norm(dim=1).argsort()[:k].tolist()]


@misconception("IVFIndex", "You read the lists farthest from the query; sort the centroids by rising distance.")
class ReadsFarLists(Ivf):
    def near(self, q):
        return super().near(q)[::-1]


@misconception("IVFIndex", "You always read one list; read the n_probe nearest.")
class ReadsOneList(Ivf):
    def search(self, q, k, n_probe=1):
        return super().search(q, k, 1)


@misconception("IVFIndex", "You return places among the candidates; translate them back into indices of X.")
class ReturnsPlaces(Ivf):
    def search(self, q, k, n_probe=1):
        read = [i for j in self.near(q)[:n_probe] for i in self.lists[j]]
        return (self.X[read] - q).norm(dim=1).argsort()[:k].tolist()


@misconception("IVFIndex", "You search all vectors whatever n_probe is; then the lists save nothing.")
class SearchesEverything(Ivf):
    def search(self, q, k, n_probe=1):
        return super().search(q, k, len(self.lists))


@misconception("IVFIndex", "You file each vector under its two nearest centroids; it belongs into one list.")
class FilesTwice(Ivf):
    def __init__(self, X, n_list, seed=0):
        super().__init__(X, n_list, seed)
        two = torch.cdist(X, self.centroids).argsort(dim=1)[:, :2]
        self.lists = [(two == j).any(dim=1).nonzero()[:, 0].tolist() for j in range(n_list)]

    def search(self, q, k, n_probe=1):
        return list(dict.fromkeys(super().search(q, 2 * k, n_probe)))[:k]


@misconception("IVFIndex", "The lists are older than the centroids; assign once more after the last move.")
class StaleLists(Ivf):
    def __init__(self, X, n_list, seed=0):
        super().__init__(X, n_list, seed)
        self.centroids = torch.stack(
            [X[part].mean(dim=0) if part else c for part, c in zip(self.lists, self.centroids, strict=True)]
        )
        chosen = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:n_list]]
        nearest = torch.cdist(X, chosen).argmin(dim=1)
        self.lists = [(nearest == j).nonzero()[:, 0].tolist() for j in range(n_list)]


@misconception("IVFIndex", "Your centroids never move; k-means moves each to the mean of its vectors, round by round.")
class NeverMoves(Ivf):
    def __init__(self, X, n_list, seed=0):
        super().__init__(X, n_list, seed)
        self.centroids = X[torch.randperm(len(X), generator=torch.Generator().manual_seed(seed))[:n_list]]
        nearest = torch.cdist(X, self.centroids).argmin(dim=1)
        self.lists = [(nearest == j).nonzero()[:, 0].tolist() for j in range(n_list)]


@misconception("IVFIndex", "Your answer is not sorted by distance; the nearest comes first.")
class Unsorted(Ivf):
    def search(self, q, k, n_probe=1):
        return sorted(super().search(q, k, n_probe))


@misconception("IVFIndex", "You draw centroids from torch's own generator; use one made of the seed.")
class IgnoresSeed(Ivf):
    def __init__(self, X, n_list, seed=0):
        super().__init__(X, n_list, int(torch.randint(1_000_000, (1,))))


@misconception(
    "IVFIndex", "You divide by the number of found; divide by the number of true ones wanted.", "recall_at_k"
)
def precision(found, truth, k):
    return len(set(truth[:k]) & set(found[:k])) / max(len(found[:k]), 1)


@misconception("IVFIndex", "You always divide by k; there may be fewer than k true neighbours.", "recall_at_k")
def divides_by_k(found, truth, k):
    return len(set(truth[:k]) & set(found[:k])) / k


@misconception("IVFIndex", "You compare place by place; the order within the first k does not count.", "recall_at_k")
def same_places(found, truth, k):
    return sum(a == b for a, b in zip(found[:k], truth[:k], strict=False)) / len(truth[:k])


@misconception("IVFIndex", "You look at all that was found; only its first k count.", "recall_at_k")
def looks_beyond_k(found, truth, k):
    return len(set(truth[:k]) & set(found)) / len(truth[:k])


@misconception("IVFIndex", "A neighbour that was found twice counts once; intersect sets.", "recall_at_k")
def counts_repeats(found, truth, k):
    return sum(i in truth[:k] for i in found[:k]) / len(truth[:k])


# -- HNSW


@misconception("HNSW", "You walk with one candidate only, whatever ef is, and end in the first dead end.")
class GreedyOnly(reference.HNSW):
    def search_layer(self, q, entries, ef, layer):
        return super().search_layer(q, entries[:1], 1, layer)


@misconception("HNSW", "You never stop before all is visited; stop when the next node is farther than all ef kept.")
class NeverStops(reference.HNSW):
    def search_layer(self, q, entries, ef, layer):
        return super().search_layer(q, entries, len(self.vectors), layer)[:ef]


@misconception("HNSW", "You keep every node that was seen; keep the ef nearest and drop the farthest.")
class UnboundedHeap(reference.HNSW):
    def search_layer(self, q, entries, ef, layer):
        return super().search_layer(q, entries, max(len(self.vectors), ef), layer)


@misconception("HNSW", "You search layer 0 only, from the entry; walk down through the upper layers first.")
class ForgetsUpperLayers(reference.HNSW):
    def search(self, q, k):
        if self.entry is None:
            return []
        return [i for _, i in self.search_layer(q, [self.entry], max(self.ef, k), 0)[:k]]


@misconception("HNSW", "You link the new node to the others but not the others to it; nobody can reach it.")
class OneWay(reference.HNSW):
    def connect(self, node, other, layer):
        if node == len(self.vectors) - 1 or len(self.vectors) == 7:
            super().connect(node, other, layer)


@misconception("HNSW", "You keep the oldest links of a full list; the nearest must stay.")
class KeepsTheOldest(reference.HNSW):
    def connect(self, node, other, layer):
        part = self.layers[layer][node]
        if len(part) < (self.M if layer else 2 * self.M):
            part.append(other)


@misconception("HNSW", "Your lists have M places in layer 0 too; there the limit is 2 * M.")
class SmallGroundLayer(reference.HNSW):
    def connect(self, node, other, layer):
        super().connect(node, other, layer)
        self.layers[layer][node] = sorted(
            self.layers[layer][node], key=lambda i: ((self.vectors[i] - self.vectors[node]) ** 2).sum()
        )[: self.M]


@misconception("HNSW", "Your lists grow without limit; prune each to its nearest after a link was added.")
class NeverPrunes(reference.HNSW):
    def connect(self, node, other, layer):
        self.layers[layer][node].append(other)


@misconception("HNSW", "You link the M farthest of those found; the list of found nodes begins with the nearest.")
class LinksTheFarthest(reference.HNSW):
    def search_layer(self, q, entries, ef, layer):
        return super().search_layer(q, entries, ef, layer)[::-1]


@misconception("HNSW", "The search returns ef nodes at most; if k is larger, search layer 0 with max(ef, k).")
class StopsAtEf(reference.HNSW):
    def search(self, q, k):
        return super().search(q, min(k, self.ef))


@misconception("HNSW", "The index keeps your array itself, which may be changed later; store a copy.")
class KeepsTheArray(reference.HNSW):
    def add(self, x):
        super().add(x)
        self.vectors[-1] = x


@misconception("HNSW", "The entry stays the first node; a node that reaches a new top layer must become the entry.")
class EntryStays(reference.HNSW):
    def add(self, x):
        super().add(x)
        for layer in self.layers:
            layer.setdefault(0, [])
        self.entry = 0


# -- rrf, mmr, ndcg, mrr


def fused(rankings, term):
    scores = {}
    for ranking in rankings:
        for place, d in enumerate(ranking):
            scores[d] = scores.get(d, 0.0) + term(place, len(ranking))
    return sorted(scores.items(), key=lambda item: -item[1])


@misconception("rrf", "You count ranks from 0; the best document of a ranking has rank 1.")
def ranks_from_zero(rankings, k=60):
    return fused(rankings, lambda place, n: 1 / (k + place) if k + place else 1.0)


@misconception("rrf", "You add n - rank, so long rankings shout louder; each rank adds 1 / (k + rank).")
def borda(rankings, k=60):
    return fused(rankings, lambda place, n: float(n - place))


@misconception("rrf", "A document missing from a ranking gets a made-up last rank; it must get nothing from it.")
def missing_is_last(rankings, k=60):
    known = dict.fromkeys(d for ranking in rankings for d in ranking)
    scores = {
        d: sum(1 / (k + (ranking.index(d) if d in ranking else len(ranking)) + 1) for ranking in rankings)
        for d in known
    }
    return sorted(scores.items(), key=lambda item: -item[1])


@misconception("rrf", "You keep the best single rank; contributions of all rankings are added.")
def best_rank_only(rankings, k=60):
    scores = {}
    for ranking in rankings:
        for rank, d in enumerate(ranking, start=1):
            scores[d] = max(scores.get(d, 0.0), 1 / (k + rank))
    return sorted(scores.items(), key=lambda item: -item[1])


@misconception("rrf", "The lowest score comes first in your list; sort by falling score.")
def worst_first(rankings, k=60):
    return sorted(reference.rrf(rankings, k), key=lambda item: item[1])


@misconception("rrf", "Equal scores are sorted by id; they keep the order in which the ids first occur.")
def ties_by_id(rankings, k=60):
    return sorted(reference.rrf(rankings, k), key=lambda item: (-item[1], item[0]))


def chosen_by(scores, k, value):
    chosen = [int(scores.argmax())]
    while len(chosen) < min(k, len(scores)):
        rest = [i for i in range(len(scores)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: value(i, chosen)))
    return chosen


@misconception("rrf", "You add the similarity, which gathers what is alike; subtract it.", "mmr")
def mmr_sign(scores, sims, lam, k):
    return chosen_by(scores, k, lambda i, c: float(lam * scores[i] + (1 - lam) * sims[i, c].amax()))


@misconception("rrf", "You subtract the mean similarity; the most similar chosen document is what counts.", "mmr")
def mmr_mean(scores, sims, lam, k):
    return chosen_by(scores, k, lambda i, c: float(lam * scores[i] - (1 - lam) * sims[i, c].mean()))


@misconception("rrf", "You exchanged lam and 1 - lam: at lam = 1 only relevance counts.", "mmr")
def mmr_swapped(scores, sims, lam, k):
    return reference.mmr(scores, sims, 1 - lam, k)


@misconception("rrf", "You compare with the last choice only; compare with all that were chosen.", "mmr")
def mmr_last_only(scores, sims, lam, k):
    return chosen_by(scores, k, lambda i, c: float(lam * scores[i] - (1 - lam) * sims[i, c[-1]]))


@misconception("rrf", "You sort by score and ignore what is chosen already; likeness must be subtracted.", "mmr")
def mmr_relevance_only(scores, sims, lam, k):
    return scores.argsort(descending=True, stable=True)[:k].tolist()


@misconception("rrf", "You let no similarity fall below 0; what points the other way deserves its bonus.", "mmr")
def mmr_without_opposites(scores, sims, lam, k):
    return reference.mmr(scores, sims.clamp(min=0), lam, k)


def gain(gains, k, weight):
    return sum(g * weight(r) for r, g in enumerate(gains[:k], start=1))


@misconception("rrf", "You divide by log2(r), which is 0 at rank 1; divide by log2(r + 1).", "ndcg")
def ndcg_log_of_rank(relevance, ranking, k):
    def weight(r):
        return 1 / math.log2(max(r, 2))

    best = gain(sorted(relevance, reverse=True), k, weight)
    return gain([relevance[i] for i in ranking], k, weight) / best if best else 0.0


@misconception("rrf", "Your gain is exponential, 2^g - 1; here it is linear, the relevance itself.", "ndcg")
def ndcg_exponential(relevance, ranking, k):
    return reference.ndcg([2.0**g - 1 for g in relevance], ranking, k)


@misconception("rrf", "Your ideal sorts only what was found; it must sort all documents.", "ndcg")
def ndcg_ideal_of_found(relevance, ranking, k):
    found = [relevance[i] for i in ranking]
    return reference.ndcg(found, range(len(found)), k)


@misconception("rrf", "You do not divide by the ideal, so the result may exceed 1.", "ndcg")
def dcg_only(relevance, ranking, k):
    return float(gain([relevance[i] for i in ranking], k, lambda r: 1 / math.log2(r + 1)))


@misconception("rrf", "You ignore k and judge the whole ranking; only its first k count.", "ndcg")
def ndcg_without_k(relevance, ranking, k):
    return reference.ndcg(relevance, ranking, max(len(relevance), k))


@misconception("rrf", "You leave out queries without a hit; they count as 0.", "mrr")
def mrr_of_hits(rankings, relevant):
    values = [reference.mrr([r], [w]) for r, w in zip(rankings, relevant, strict=True)]
    return sum(values) / max(sum(v > 0 for v in values), 1)


@misconception("rrf", "You average over all hits of a query; only the first one counts.", "mrr")
def mrr_all_hits(rankings, relevant):
    total = 0.0
    for ranking, wanted in zip(rankings, relevant, strict=True):
        hits = [1 / r for r, d in enumerate(ranking, start=1) if d in wanted]
        total += sum(hits) / len(hits) if hits else 0.0
    return total / len(rankings)


@misconception("rrf", "You invert the mean rank; take the mean of the inverted ranks.", "mrr")
def mrr_of_mean_rank(rankings, relevant):
    ranks = [1 / v for r, w in zip(rankings, relevant, strict=True) if (v := reference.mrr([r], [w]))]
    return len(ranks) / sum(ranks)


# -- pack_context


def laid(chunks, ids):
    return "\n\n".join(f"[{i}] {chunks[i]}" for i in ids)


def falling(scores):
    return sorted(range(len(scores)), key=lambda i: -scores[i])


@misconception("pack_context", "You measure the budget in characters; ask count.")
def counts_characters(chunks, scores, budget, count, order="score"):
    return reference.pack_context(chunks, scores, budget, len, order)


@misconception("pack_context", "You add up the chunks alone; ids and empty lines count too.")
def forgets_separators(chunks, scores, budget, count, order="score"):
    return reference.pack_context(
        chunks, scores, budget, lambda t: sum(count(part.split("] ", 1)[-1]) for part in t.split("\n\n")), order
    )


@misconception("pack_context", "You cut the last chunk to fit; a chunk is taken in full or not at all.")
def cuts_the_last(chunks, scores, budget, count, order="score"):
    if count(laid(chunks, range(len(chunks)))) <= budget or order != "score":
        return reference.pack_context(chunks, scores, budget, count, order)
    whole = laid(chunks, falling(scores)).split(" ")
    while whole and count(" ".join(whole)) > budget:
        whole.pop()
    return " ".join(whole)


@misconception("pack_context", "You stop at the first chunk that does not fit; pass it over and try the next.")
def stops_early(chunks, scores, budget, count, order="score"):
    ids = falling(scores)
    n = 0
    while n < len(ids) and count(laid(chunks, ids[: n + 1])) <= budget:
        n += 1
    return reference.pack_context(
        [c if i in ids[:n] else c + " x" * 10_000 for i, c in enumerate(chunks)], scores, budget, count, order
    )


@misconception("pack_context", "You take chunks as they come; begin with the highest score.")
def in_document_order(chunks, scores, budget, count, order="score"):
    return reference.pack_context(chunks, [-float(i) for i in range(len(chunks))], budget, count, order)


@misconception("pack_context", "A context of exactly the budget is allowed; compare with <=, not <.")
def below_the_budget(chunks, scores, budget, count, order="score"):
    return reference.pack_context(chunks, scores, budget - 1, count, order)


@misconception("pack_context", "You ignore order='sides'; the best belongs first and the second best last.")
def ignores_sides(chunks, scores, budget, count, order="score"):
    reference.pack_context([], [], budget, count, order)
    return reference.pack_context(chunks, scores, budget, count)


@misconception("pack_context", "Your ids are ranks; the id of a chunk is its index in chunks.")
def ids_are_ranks(chunks, scores, budget, count, order="score"):
    ids = falling(scores)
    return reference.pack_context([chunks[i] for i in ids], [scores[i] for i in ids], budget, count, order)


@misconception("pack_context", "You write equal chunks several times; each text once is enough.")
def repeats(chunks, scores, budget, count, order="score"):
    marked = [c + "\0" * i for i, c in enumerate(chunks)]
    return reference.pack_context(marked, scores, budget, lambda t: count(t.replace("\0", "")), order).replace("\0", "")


# -- rag_answer, unsupported


def answered(question, documents, chat, prompt=None, system=reference.SYSTEM, pick=None, call=True):
    """The pipeline, with one place changed."""
    if not documents and call:
        return reference.ABSTAIN, []
    parts = [f"Document [{i}]:\n> " + d.replace("\n", "\n> ") for i, d in enumerate(documents)]
    prompt = prompt or "\n\n".join([*parts, f"Question: {question}"])
    answer = chat([{"role": "system", "content": system}, {"role": "user", "content": prompt}])
    cited = [int(n) for n in re.findall(r"\[(\d+)\]", answer)]
    ids = pick(cited) if pick else list(dict.fromkeys(i for i in cited if i < len(documents)))
    return (answer, ids) if ids else (reference.ABSTAIN, [])


@misconception("rag_answer", "You cite every document that was given; cite those that the answer names.")
def cites_everything(question, retriever, chat, k):
    documents = retriever(question, k)
    return answered(question, documents, chat, pick=lambda cited: list(range(len(documents))))


@misconception("rag_answer", "You ask the model without documents; if nothing was found, abstain without a call.")
def asks_anyway(question, retriever, chat, k):
    return answered(question, retriever(question, k), chat, call=False)


@misconception("rag_answer", "An answer without a valid citation passes; abstain instead.")
def trusts_the_model(question, retriever, chat, k):
    said = []
    answer = answered(question, retriever(question, k), lambda messages: said.append(chat(messages)) or said[0])
    return answer if answer[1] or not said else (said[0], [])


@misconception("rag_answer", "The documents stand in the system role, where they command; quote them to the user role.")
def documents_in_system(question, retriever, chat, k):
    documents = retriever(question, k)
    quoted = "\n".join(f"Document [{i}]:\n> " + d.replace("\n", "\n> ") for i, d in enumerate(documents))
    return answered(question, documents, chat, f"Question: {question}", reference.SYSTEM + "\n" + quoted)


@misconception("rag_answer", "You quote only the first line of a document; its other lines pass for yours.")
def quotes_one_line(question, retriever, chat, k):
    documents = retriever(question, k)
    parts = [f"Document [{i}]:\n> {d}" for i, d in enumerate(documents)]
    return answered(question, documents, chat, "\n\n".join([*parts, f"Question: {question}"]))


@misconception("rag_answer", "You number documents from 1; their numbers are indices and begin at 0.")
def numbers_from_one(question, retriever, chat, k):
    documents = retriever(question, k)
    parts = [f"Document [{i}]:\n> " + d.replace("\n", "\n> ") for i, d in enumerate(documents, start=1)]
    return answered(question, documents, chat, "\n\n".join([*parts, f"Question: {question}"]))


@misconception("rag_answer", "You keep invented citations; a number that names no document is dropped.")
def keeps_invented(question, retriever, chat, k):
    return answered(question, retriever(question, k), chat, pick=lambda cited: list(dict.fromkeys(cited)))


@misconception("rag_answer", "You sort the citations; they come in the order of their first occurrence.")
def sorts_citations(question, retriever, chat, k):
    documents = retriever(question, k)
    return answered(question, documents, chat, pick=lambda cited: sorted({i for i in cited if i < len(documents)}))


@misconception("rag_answer", "You list a citation each time it occurs; each document is listed once.")
def repeats_citations(question, retriever, chat, k):
    documents = retriever(question, k)
    return answered(question, documents, chat, pick=lambda cited: [i for i in cited if i < len(documents)])


def lacking(answer, contexts, supported):
    return [s for s in reference.sentences(answer) if not supported(reference.content_words(s), contexts)]


@misconception(
    "rag_answer", "You gather words from several contexts; one single context must hold them all.", "unsupported"
)
def pools_contexts(answer, contexts):
    return reference.unsupported(answer, [" ".join(contexts)])


@misconception("rag_answer", "One common word is enough for you; all content words must be found.", "unsupported")
def one_word_is_enough(answer, contexts):
    known = [reference.content_words(c) for c in contexts]
    return lacking(answer, contexts, lambda words, _: not words or any(words & k for k in known))


@misconception("rag_answer", "You look for parts of words: 179 is not found in 1790; compare sets.", "unsupported")
def parts_of_words(answer, contexts):
    return lacking(
        answer, contexts, lambda words, _: not words or any(all(w in c.lower() for w in words) for c in contexts)
    )


@misconception(
    "rag_answer", "You compare whole sentences letter by letter; compare their content words.", "unsupported"
)
def literal_sentences(answer, contexts):
    return [s for s in reference.sentences(answer) if not any(s.rstrip(".!?") in c for c in contexts)]


@misconception("rag_answer", "You list the supported sentences; list those without support.", "unsupported")
def lists_the_supported(answer, contexts):
    wrong = reference.unsupported(answer, contexts)
    return [s for s in reference.sentences(answer) if s not in wrong]


@misconception(
    "rag_answer", "You report sentences without content words; they claim nothing and need no support.", "unsupported"
)
def empty_claims_fail(answer, contexts):
    known = [reference.content_words(c) for c in contexts]
    return lacking(answer, contexts, lambda words, _: bool(words) and any(words <= k for k in known))
