"""Right answers of chapter 18 written in other styles; a suite that fails one of them is wrong."""

import bisect
import math
import re

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- chunk, chunk_by_structure


@alternative("chunk", "a while loop that breaks at the end")
def chunk_by_while(tokens, size, overlap):
    if size <= 0 or overlap < 0 or overlap >= size:
        raise ValueError("cannot advance")
    chunks, start = [], 0
    while start < len(tokens):
        chunks.append([*tokens[start : start + size]])
        if start + size >= len(tokens):
            break
        start += size - overlap
    return chunks


@alternative("chunk", "recursion on the rest of the tokens")
def chunk_by_recursion(tokens, size, overlap):
    if not (size >= 1 and 0 <= overlap < size):
        raise ValueError(f"overlap {overlap} of size {size}")

    def rest(t):
        return [t] if len(t) <= size else [t[:size], *rest(t[size - overlap :])]

    return rest(list(tokens)) if tokens else []


@alternative("chunk", "lists of blocks, flushed when the next unit does not fit", replaces="chunk_by_structure")
def structure_by_flushing(text, max_tokens, count):
    if not text:
        return []
    blocks, chunks, current, i = text.split("\n\n"), [], [], 0

    def put(piece):
        nonlocal current
        if current and count("\n\n".join(current + piece)) > max_tokens:
            chunks.append("\n\n".join(current))
            current = []
        current = current + piece

    while i < len(blocks):
        j = i
        while j < len(blocks) - 1 and blocks[j][:1] == "#":
            j += 1
        unit = blocks[i : j + 1]
        if count("\n\n".join(unit)) > max_tokens:
            if current:
                chunks.append("\n\n".join(current))
                current = []
            for block in unit:
                put([block])
        else:
            put(unit)
        i = j + 1
    return [*chunks, "\n\n".join(current)]


# -- BM25


@alternative("BM25", "a matrix of counts in numpy, one product per query")
class BM25ByMatrix:
    def __init__(self, docs, k1=1.5, b=0.75):
        terms = sorted({t for doc in docs for t in doc})
        self.column = {t: j for j, t in enumerate(terms)}
        tf = np.zeros((len(docs), len(terms)))
        for i, doc in enumerate(docs):
            for t in doc:
                tf[i, self.column[t]] += 1
        df = (tf > 0).sum(axis=0)
        length = tf.sum(axis=1, keepdims=True)
        mean = length.mean() if length.sum() else 1.0
        idf = np.log1p((len(docs) - df + 0.5) / (df + 0.5))
        self.weights = idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean) + 1e-300)

    def scores(self, query):
        columns = [self.column[t] for t in query if t in self.column]
        return torch.from_numpy(self.weights[:, columns].sum(axis=1))


@alternative("BM25", "an inverted index, read when a query comes")
class BM25ByPostings:
    def __init__(self, docs, k1=1.5, b=0.75):
        self.k1, self.b = k1, b
        self.lengths = [len(doc) for doc in docs]
        self.postings = {}
        for i, doc in enumerate(docs):
            for t in doc:
                places = self.postings.setdefault(t, {})
                places[i] = places.get(i, 0) + 1

    def scores(self, query):
        N = len(self.lengths)
        out = [0.0] * N
        for t in query:
            places = self.postings.get(t, {})
            idf = math.log((N + 1) / (len(places) + 0.5))  # the same formula over one denominator
            for i, tf in places.items():
                relative = self.lengths[i] * N / sum(self.lengths)
                out[i] += idf * tf * (self.k1 + 1) / (tf + self.k1 * ((1 - self.b) + self.b * relative))
        return torch.tensor(out, dtype=torch.float64)


# -- embed, dense_search


@alternative("embed", "torch's own normalize")
def embed_by_normalize(texts, encoder):
    return F.normalize(encoder(list(texts)), dim=1)


@alternative("embed", "a loop over rows, scaled in place on a copy")
def embed_by_loop(texts, encoder):
    rows = encoder([*texts]).clone()
    for row in rows:
        length = math.sqrt(float((row.double() ** 2).sum()))
        if length > 0:
            row /= length
    return rows


@alternative("embed", "Python's sort, query by query", replaces="dense_search")
def search_by_sorted(Q, X, k):
    scores, order = [], []
    for q in Q:
        s = (X * q).sum(dim=1)
        best = sorted(range(len(X)), key=lambda i, s=s: (-s[i].item(), i))[:k]
        order.append(best)
        scores.append(s[best])
    return torch.stack(scores), torch.tensor(order)


@alternative("embed", "numpy's stable argsort of the negated cosines, normalised once more", replaces="dense_search")
def search_by_numpy(Q, X, k):
    S = (F.normalize(Q, dim=1) @ F.normalize(X, dim=1).T).numpy()
    order = np.argsort(-S, axis=1, kind="stable")[:, :k]
    return torch.from_numpy(np.take_along_axis(S, order, axis=1)), torch.from_numpy(order.copy())


# -- IVFIndex, recall_at_k


@alternative("IVFIndex", "numpy, k-means++ starts, broadcast distances")
class IVFByNumpy:
    def __init__(self, X, n_list, seed=0):
        if n_list < 1 or n_list > X.shape[0]:
            raise ValueError("n_list")
        self.data = X.numpy().copy()
        random = np.random.default_rng(seed)
        chosen = [int(random.integers(len(self.data)))]
        while len(chosen) < n_list:
            gap = self.to(self.data[chosen]).min(axis=1)
            chosen.append(int(random.choice(len(gap), p=gap / gap.sum())))
        C = self.data[chosen].copy()
        for _ in range(5):
            own = self.to(C).argmin(axis=1)
            for j in set(own.tolist()):
                C[j] = self.data[own == j].mean(axis=0)
        own = self.to(C).argmin(axis=1)
        self.centroids = torch.from_numpy(C)
        self.lists = [[] for _ in range(n_list)]
        for i, j in enumerate(own):
            self.lists[j].append(i)

    def to(self, C):
        return ((self.data[:, None] - C[None]) ** 2).sum(axis=-1)

    def search(self, q, k, n_probe=1):
        q, C = q.numpy(), self.centroids.numpy()
        order = sorted(range(len(C)), key=lambda j: ((C[j] - q) ** 2).sum())
        read = sorted(i for j in order[:n_probe] for i in self.lists[j])
        return sorted(read, key=lambda i: ((self.data[i] - q) ** 2).sum())[:k]


@alternative("IVFIndex", "a loop with a list of hits", replaces="recall_at_k")
def recall_by_loop(found, truth, k):
    wanted = list(truth)[:k]
    hits = [i for i in wanted if i in list(found)[:k]]
    return len(hits) / min(k, len(truth))


# -- HNSW


@alternative("HNSW", "sorted lists instead of heaps, sets instead of lists of links")
class HNSWBySortedLists(reference.HNSW):
    def search_layer(self, q, entries, ef, layer):
        known = dict(zip(entries, self.distances(q, entries), strict=True))
        best = sorted((d, i) for i, d in known.items())[:ef]
        visited = set()
        while True:
            open_nodes = [(d, i) for d, i in best if i not in visited]
            if not open_nodes:
                return best
            node = open_nodes[0][1]
            visited.add(node)
            for i in self.layers[layer][node]:
                if i not in known:
                    known[i] = self.distances(q, [i])[0]
                    bisect.insort(best, (known[i], i))
            best = best[:ef]

    def connect(self, node, other, layer):
        part = [*self.layers[layer][node], other]
        distance = dict(zip(part, self.distances(self.vectors[node], part), strict=True))
        limit = 2 * self.M if layer == 0 else self.M
        self.layers[layer][node] = sorted(part, key=distance.get)[:limit]

    def add(self, x):
        level, node = self.draw_level(), len(self.vectors)
        self.vectors.append(x.copy())
        self.levels.append(level)
        old_top = len(self.layers) - 1
        for _ in range(old_top + 1, level + 1):
            self.layers.append({node: []})
        if self.entry is None:
            self.entry = node
            return
        here = [self.entry]
        for layer in range(old_top, level, -1):
            here = [self.search_layer(x, here, 1, layer)[0][1]]
        for layer in range(min(level, old_top), -1, -1):
            here = [i for _, i in self.search_layer(x, here, self.ef, layer)]
            near = here[: self.M]
            self.layers[layer][node] = list(near)
            for other in near:
                self.connect(other, node, layer)
        if level > old_top:
            self.entry = node

    def search(self, q, k):
        if not self.vectors:
            return []
        here, layer = self.entry, len(self.layers) - 1
        while layer > 0:
            ((_, here),) = self.search_layer(q, [here], 1, layer)
            layer -= 1
        pairs = self.search_layer(q, [here], k if k > self.ef else self.ef, 0)
        return [pair[1] for pair in pairs][:k]


# -- rrf, mmr, ndcg, mrr


@alternative("rrf", "a comprehension over all ids, sorted by score and first occurrence")
def rrf_by_comprehension(rankings, k=60):
    ids = []
    for ranking in rankings:
        ids += [d for d in ranking if d not in ids]
    score = {d: math.fsum(1 / (k + 1 + list(r).index(d)) for r in rankings if d in r) for d in ids}
    return [(d, score[d]) for d in sorted(ids, key=lambda d: (-score[d], ids.index(d)))]


@alternative("rrf", "plain Python with running maxima of similarity", replaces="mmr")
def mmr_by_running_maxima(scores, sims, lam, k):
    n = len(scores)
    left, chosen, closest = list(range(n)), [], [0.0] * n
    while left and len(chosen) < k:
        first = not chosen
        best = max(left, key=lambda i: scores[i].item() if first else lam * scores[i].item() - (1 - lam) * closest[i])
        left.remove(best)
        chosen.append(best)
        for i in left:
            closest[i] = sims[i, best].item() if first else max(closest[i], sims[i, best].item())
    return chosen


@alternative("rrf", "numpy vectors of discounts", replaces="ndcg")
def ndcg_by_numpy(relevance, ranking, k):
    discounts = 1 / np.log2(np.arange(2, k + 2))
    gains = np.array([relevance[i] for i in ranking][:k], dtype=float)
    best = np.sort(np.array(relevance, dtype=float))[::-1][:k]
    ideal = float(best @ discounts[: len(best)])
    return float(gains @ discounts[: len(gains)]) / ideal if ideal else 0.0


@alternative("rrf", "nested loops with a break", replaces="mrr")
def mrr_by_loops(rankings, relevant):
    values = []
    for ranking, wanted in zip(rankings, relevant, strict=True):
        value = 0.0
        for place, d in enumerate(ranking):
            if d in wanted:
                value = 1.0 / (place + 1)
                break
        values.append(value)
    return sum(values) / len(values)


# -- pack_context


@alternative("pack_context", "equal chunks removed first, a deque filled from both sides")
def pack_by_unique(chunks, scores, budget, count, order="score"):
    if order != "score" and order != "sides":
        raise ValueError(order)
    ranked = sorted(enumerate(scores), key=lambda pair: (-pair[1], pair[0]))
    unique = {}
    for i, _ in ranked:
        unique.setdefault(chunks[i], i)
    entries = []
    for text, i in unique.items():
        entry = f"[{i}] {text}"
        if count("\n\n".join(entries + [entry])) <= budget:
            entries.append(entry)
    if order == "sides":
        front, back = [], []
        for place, entry in enumerate(entries):
            if place % 2:
                back.insert(0, entry)
            else:
                front.append(entry)
        entries = front + back
    return "\n\n".join(entries)


# -- rag_answer, unsupported


@alternative("rag_answer", "a prompt built line by line, citations collected in a loop")
def rag_by_lines(question, retriever, chat, k):
    documents = list(retriever(question, k))
    if len(documents) == 0:
        return reference.ABSTAIN, []
    lines = []
    for i in range(len(documents)):
        lines.append(f"Document [{i}]:")
        for line in documents[i].split("\n"):
            lines.append(f"> {line}")
    lines.append("Question: " + question)
    system = {"role": "system", "content": reference.SYSTEM}
    answer = chat([system, {"role": "user", "content": "\n".join(lines)}])
    citations = []
    for match in re.finditer(r"\[([0-9]+)\]", answer):
        i = int(match.group(1))
        if i < len(documents) and i not in citations:
            citations.append(i)
    if not citations:
        return reference.ABSTAIN, []
    return answer, citations


@alternative("rag_answer", "set differences in one comprehension", replaces="unsupported")
def unsupported_by_differences(answer, contexts):
    return [
        s
        for s in reference.sentences(answer)
        if reference.content_words(s)
        and all(reference.content_words(s).difference(reference.content_words(c)) for c in contexts)
    ]
