"""Right answers of chapter 11 written in other styles; a suite that fails one of them is wrong."""

import math
from collections import OrderedDict

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- KVCache


@alternative("KVCache", "a list of growing tensors, joined by cat; length is a plain attribute")
class CacheByCat:
    def __init__(self, L, B, Hk, T_max, hd, dtype=torch.float32):
        self.shape, self.room, self.dtype = (B, Hk, hd), T_max, dtype
        self.k = [torch.empty(B, Hk, 0, hd, dtype=dtype) for _ in range(L)]
        self.v = [torch.empty(B, Hk, 0, hd, dtype=dtype) for _ in range(L)]
        self.length = 0

    def append(self, layer, k, v):
        B, Hk, hd = self.shape
        if k.dim() != 4 or k.shape != v.shape or (k.shape[0], k.shape[1], k.shape[3]) != (B, Hk, hd):
            raise ValueError("shape")
        if self.k[layer].shape[2] + k.shape[2] > self.room:
            raise ValueError("full")
        self.k[layer] = torch.cat([self.k[layer], k.to(self.dtype)], dim=2)
        self.v[layer] = torch.cat([self.v[layer], v.to(self.dtype)], dim=2)
        self.length = min(k.shape[2] for k in self.k)
        return self.k[layer], self.v[layer]

    def truncate(self, n):
        if n < 0 or n > self.length:
            raise ValueError("n")
        self.k = [k[:, :, :n] for k in self.k]
        self.v = [v[:, :, :n] for v in self.v]
        self.length = n

    def reorder(self, beam_idx):
        if len(beam_idx) != self.shape[0]:
            raise ValueError("rows")
        self.k = [k.index_select(0, beam_idx) for k in self.k]
        self.v = [v.index_select(0, beam_idx) for v in self.v]


@alternative("KVCache", "one tensor for both, filled through narrow, copies handed out, rows gathered in place")
class CacheInOneTensor:
    def __init__(self, L, B, Hk, T_max, hd, dtype=torch.float32):
        self.data = torch.full((2, L, B, Hk, T_max, hd), math.nan, dtype=dtype)
        self.filled = torch.zeros(L, dtype=torch.int64)

    @property
    def length(self):
        return int(self.filled.min())

    def append(self, layer, k, v):
        B, Hk, T_max, hd = self.data.shape[2:]
        start = int(self.filled[layer])
        for x in (k, v):
            if x.shape != (B, Hk, k.shape[-2], hd) or x.shape[-2] > T_max - start:
                raise ValueError("shape or room")
        self.data[:, layer].narrow(3, start, k.size(2)).copy_(torch.stack([k, v]))
        self.filled[layer] += k.size(2)
        K, V = self.data[:, layer, :, :, : start + k.size(2)].clone()
        return K, V

    def truncate(self, n):
        if not (0 <= n <= self.length):
            raise ValueError("n")
        self.filled.fill_(n)
        self.data[:, :, :, :, n:] = math.nan

    def reorder(self, beam_idx):
        if beam_idx.numel() != self.data.shape[2]:
            raise ValueError("rows")
        self.data[:] = torch.stack([self.data[:, :, int(b)] for b in beam_idx], dim=2)


@alternative("KVCache", "a Python list of tokens for each layer, stacked when read")
class CacheOfTokens:
    def __init__(self, L, B, Hk, T_max, hd, dtype=torch.float32):
        self.B, self.Hk, self.T_max, self.hd, self.dtype = B, Hk, T_max, hd, dtype
        self.layers = {layer: [] for layer in range(L)}

    @property
    def length(self):
        return min(map(len, self.layers.values()))

    def append(self, layer, k, v):
        held = self.layers[layer]
        expected = [self.B, self.Hk, k.shape[2], self.hd]
        if list(k.shape) != expected or list(v.shape) != expected or len(held) + k.shape[2] > self.T_max:
            raise ValueError("shape or room")
        for t in range(k.shape[2]):
            held.append(torch.stack([k[:, :, t], v[:, :, t]]).to(self.dtype))
        if not held:
            return tuple(torch.zeros(2, self.B, self.Hk, 0, self.hd, dtype=self.dtype))
        return tuple(torch.stack(held, dim=3))

    def truncate(self, n):
        if n < 0 or any(len(held) < n for held in self.layers.values()):
            raise ValueError("n")
        for held in self.layers.values():
            del held[n:]

    def reorder(self, beam_idx):
        rows = beam_idx.tolist()
        if len(rows) != self.B:
            raise ValueError("rows")
        self.layers = {layer: [token[:, rows] for token in held] for layer, held in self.layers.items()}


# -- attend_step


@alternative("attend_step", "a loop over rows, heads and new tokens, each over the keys that it may see")
def attend_by_loops(x, cache, weights, positions=None, mask=None, layer=0):
    B, T, D = x.shape
    n = cache.length
    H, hd, _ = weights["q"].shape
    group = H // len(weights["k"])
    if positions is None:
        positions = n + torch.arange(T)
    q = torch.stack([x @ W.T for W in weights["q"]], dim=1)
    k = torch.stack([x @ W.T for W in weights["k"]], dim=1)
    v = torch.stack([x @ W.T for W in weights["v"]], dim=1)
    q, k = reference.apply_rope(q, positions), reference.apply_rope(k, positions)
    K, V = cache.append(layer, k, v)
    may = torch.ones(B, H, T, n + T, dtype=torch.bool) if mask is None else mask.expand(B, H, T, n + T)
    out = torch.zeros(B, T, D, dtype=x.dtype)
    for b in range(B):
        for h in range(H):
            for i in range(T):
                keys = [s for s in range(n + i + 1) if may[b, h, i, s]]
                if keys:
                    p = torch.softmax(K[b, h // group, keys] @ q[b, h, i] / math.sqrt(hd), dim=0)
                    out[b, i] += p @ V[b, h // group, keys] @ weights["o"][h]
    return out


@alternative("attend_step", "five axes for the groups, one product for all projections, zeros by nan_to_num")
def attend_by_groups(x, cache, weights, positions=None, mask=None, layer=0):
    B, T, _ = x.shape
    n, H, Hk = cache.length, weights["q"].size(0), weights["k"].size(0)
    hd = weights["q"].size(1)
    if positions is None:
        positions = torch.arange(T) + n
    stacked = torch.cat([weights["q"], weights["k"], weights["v"]]).flatten(0, 1)
    q, k, v = (x @ stacked.T).unflatten(-1, (-1, hd)).transpose(1, 2).split([H, Hk, Hk], dim=1)
    K, V = cache.append(layer, reference.apply_rope(k, positions), v)
    q = reference.apply_rope(q, positions).unflatten(1, (Hk, H // Hk))
    scores = torch.einsum("bkgte,bkse->bkgts", q, K).flatten(1, 2) / math.sqrt(hd)
    scores = scores + torch.full((T, n + T), -math.inf, dtype=x.dtype).triu(n + 1)
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf)
    p = scores.softmax(dim=-1).nan_to_num(nan=0.0)
    mixed = torch.einsum("bkgts,bkse->btkge", p.unflatten(1, (Hk, H // Hk)), V)
    return mixed.flatten(2) @ weights["o"].flatten(0, 1)


@alternative("attend_step", "torch's own attention, one query head at a time")
def attend_by_library(x, cache, weights, positions=None, mask=None, layer=0):
    T, n = x.shape[1], cache.length
    where = torch.arange(n, n + T) if positions is None else positions
    project = {name: torch.matmul(x.unsqueeze(1), weights[name].mT) for name in ("q", "k", "v")}
    K, V = cache.append(layer, reference.apply_rope(project["k"], where), project["v"])
    q = reference.apply_rope(project["q"], where)
    allowed = torch.tril(torch.ones(T, n + T, dtype=torch.bool), diagonal=n).expand(x.shape[0], q.shape[1], -1, -1)
    if mask is not None:
        allowed = allowed & mask
    out = torch.zeros_like(x)
    for h in range(q.shape[1]):
        j = h // (q.shape[1] // K.shape[1])
        head = torch.nn.functional.scaled_dot_product_attention(q[:, h], K[:, j], V[:, j], attn_mask=allowed[:, h])
        head = torch.where(allowed[:, h].any(-1, keepdim=True), head, 0)
        out = out + head @ weights["o"][h]
    return out


# -- generate_cached


@alternative("generate_cached", "one rule for both: greedy is a choose as well; the cache is always reordered")
def generate_with_one_rule(model, ids, n_new, choose=None):
    B, T = ids.shape
    if T < 1 or n_new < 0:
        raise ValueError("arguments")

    def greedy(logits):
        return logits.max(dim=-1, keepdim=True).values.eq(logits).int().argmax(-1), torch.arange(B)

    rule = greedy if choose is None else choose
    cache = model.new_cache(B)
    text = ids
    for step in range(n_new):
        logits = model(text if step == 0 else text[:, -1:], cache)
        tokens, rows = rule(logits[:, -1, :])
        cache.reorder(rows)
        text = torch.cat((text.index_select(0, rows), tokens[:, None]), dim=1)
    return text


@alternative("generate_cached", "lists of ids; after the last choice the cache is left alone")
def generate_by_lists(model, ids, n_new, choose=None):
    if n_new < 0 or ids.numel() == 0:
        raise ValueError("arguments")
    if n_new == 0:
        return ids.clone()
    texts = ids.tolist()
    cache = model.new_cache(len(texts))
    logits = model(ids, cache)
    while True:
        last = logits[:, -1]
        if choose is None:
            tokens = [row.index(max(row)) for row in last.tolist()]
        else:
            chosen, rows = choose(last)
            tokens, texts = chosen.tolist(), [list(texts[row]) for row in rows.tolist()]
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
        if len(texts[0]) == ids.shape[1] + n_new:
            return torch.tensor(texts)
        if choose is not None:
            cache.reorder(rows)
        logits = model(torch.tensor([[token] for token in tokens]), cache)


@alternative("generate_cached", "parents and tokens are noted, and the texts are read off backwards at the end")
def generate_by_backtracking(model, ids, n_new, choose=None):
    if n_new < 0 or ids.size(1) < 1:
        raise ValueError("arguments")
    cache, feed, history = model.new_cache(ids.size(0)), ids, []
    for _ in range(n_new):
        logits = model(feed, cache)[:, -1]
        tokens, rows = (logits.argmax(dim=1), torch.arange(len(ids))) if choose is None else choose(logits)
        if choose is not None:
            cache.reorder(rows)
        history.append((tokens, rows))
        feed = tokens.reshape(-1, 1)
    columns, row = [], torch.arange(len(ids))
    for tokens, rows in reversed(history):
        columns.insert(0, tokens[row])
        row = rows[row]
    return torch.cat([ids[row], *(column[:, None] for column in columns)], dim=1)


# -- prefill


@alternative("prefill", "torch.split")
def prefill_by_split(model, ids, chunk):
    if chunk <= 0:
        raise ValueError("chunk")
    if ids.size(1) == 0:
        raise ValueError("no prompt")
    cache = model.new_cache(ids.size(0))
    *_, logits = [model(piece, cache) for piece in torch.split(ids, chunk, dim=1)]
    return logits[:, -1, :], cache


@alternative("prefill", "recursion on the rest of the prompt")
def prefill_by_recursion(model, ids, chunk):
    if chunk < 1 or not ids.shape[1]:
        raise ValueError("arguments")

    def feed(rest, cache):
        logits = model(rest[:, :chunk], cache)
        return (logits[:, -1], cache) if rest.shape[1] <= chunk else feed(rest[:, chunk:], cache)

    return feed(ids, model.new_cache(len(ids)))


@alternative("prefill", "a while loop with a count, contiguous pieces, the last place counted out")
def prefill_by_count(model, ids, chunk):
    B, T = ids.shape
    if min(chunk, T) < 1:
        raise ValueError("arguments")
    cache, fed, last = model.new_cache(B), 0, None
    while fed != T:
        n = min(chunk, T - fed)
        last = model(ids.narrow(1, fed, n).contiguous(), cache)[:, n - 1]
        fed += n
    return last, cache


# -- kv_cache_bytes


@alternative("kv_cache_bytes", "math.prod of a list")
def bytes_by_prod(cfg, batch, seq, bytes_per_el=2):
    kept = seq
    if "window" in cfg and cfg["window"] is not None:
        kept = min(kept, cfg["window"])
    return math.prod([2, cfg["L"], cfg["Hk"], cfg["hd"], batch, kept, bytes_per_el])


@alternative("kv_cache_bytes", "the bytes of one token in one layer, added up over layers")
def bytes_by_layers(cfg, batch, seq, bytes_per_el=2):
    one = (cfg["hd"] + cfg["hd"]) * cfg["Hk"] * bytes_per_el
    window = cfg.get("window", None)
    tokens = seq if window is None or seq < window else window
    return sum(one * tokens * batch for _ in range(cfg["L"]))


# -- latency_model


@alternative("latency_model", "numpy: all passes in one array")
def latency_by_numpy(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    if prompt < 1 or new < 1 or cached < 0 or cached >= prompt:
        raise ValueError("arguments")
    fed = np.array([prompt - cached] + [1] * (new - 1))
    compute = fed * (2.0 * cfg["params"] * batch) / flops_per_s
    held = [reference.kv_cache_bytes(cfg, batch, prompt + i, bytes_per_el) for i in range(new)]
    memory = (cfg["params"] * bytes_per_el + np.array(held, dtype=float)) / bytes_per_s
    times = np.maximum(compute, memory)
    bound = ["memory" if slow else "compute" for slow in memory > compute]
    return {
        "bound": {"prefill": bound[0], "decode": bound[-1] if new > 1 else None},
        "ttft": float(times[0]),
        "tpot": float(times[1:].mean()) if new > 1 else 0.0,
        "total": float(times.sum()),
    }


@alternative("latency_model", "a running clock, and the total as ttft plus tpot times the rest")
def latency_by_clock(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    if not (0 <= cached < prompt and new >= 1):
        raise ValueError("arguments")
    weights = cfg["params"]
    clock, first, bounds = 0.0, None, {"prefill": None, "decode": None}
    for i in range(new):
        seconds = {
            "compute": 2 * weights * batch * (1 if i else prompt - cached) / flops_per_s,
            "memory": (weights * bytes_per_el + reference.kv_cache_bytes(cfg, batch, prompt + i, bytes_per_el))
            / bytes_per_s,
        }
        slowest = max(seconds, key=seconds.get)  # the first of equals: compute
        bounds["decode" if i else "prefill"] = slowest
        clock += seconds[slowest]
        first = clock if first is None else first
    tpot = (clock - first) / max(new - 1, 1)
    return {"ttft": first, "tpot": tpot, "total": first + tpot * (new - 1), "bound": bounds}


# -- PrefixCache


class Node:
    """A kept block in a tree: what follows it, what was inserted, and when it was last used."""

    def __init__(self, parent=None, key=None, content=None):
        self.parent, self.key, self.content, self.children, self.used = parent, key, content, {}, 0


@alternative("PrefixCache", "a tree of nodes with a clock; the oldest leaf is searched for")
class PrefixTree:
    def __init__(self, block, capacity):
        if block < 1 or capacity < 1:
            raise ValueError("arguments")
        self.block, self.capacity, self.clock, self.root = block, capacity, 0, Node()

    def nodes(self, node=None):
        for child in (node or self.root).children.values():
            yield child
            yield from self.nodes(child)

    @property
    def n_blocks(self):
        return sum(1 for _ in self.nodes())

    def walk(self, ids):
        self.clock += 1
        node = self.root
        for i in range(len(ids) // self.block):
            node = node.children.get(tuple(ids[i * self.block : (i + 1) * self.block]))
            if node is None:
                return
            node.used = self.clock
            yield node

    def match(self, ids):
        return sum(self.block for _ in self.walk(ids))

    def fetch(self, ids):
        return [node.content for node in self.walk(ids)]

    def insert(self, ids, blocks):
        if len(blocks) != len(ids) // self.block:
            raise ValueError("blocks")
        self.clock += 1
        node = self.root
        for i, content in enumerate(blocks):
            key = tuple(ids[i * self.block : (i + 1) * self.block])
            node = node.children.setdefault(key, Node(node, key, content))
            node.used = self.clock
        while self.n_blocks > self.capacity:
            oldest = min((leaf for leaf in self.nodes() if not leaf.children), key=lambda leaf: leaf.used)
            del oldest.parent.children[oldest.key]


@alternative("PrefixCache", "nested tuples as keys; room is made before each new block, never on its own path")
class PrefixByLinks:
    def __init__(self, block, capacity):
        if min(block, capacity) < 1:
            raise ValueError("arguments")
        self.block, self.capacity = block, capacity
        self.kept = OrderedDict()

    @property
    def n_blocks(self):
        return len(self.kept)

    def keys(self, ids):
        key = None
        for end in range(self.block, len(ids) + 1, self.block):
            key = (key, *ids[end - self.block : end])
            yield key

    def touch(self, path):
        for key in path[::-1]:
            self.kept.move_to_end(key)

    def path(self, ids):
        path = []
        for key in self.keys(ids):
            if key not in self.kept:
                break
            path.append(key)
        self.touch(path)
        return path

    def match(self, ids):
        return len(self.path(ids)) * self.block

    def fetch(self, ids):
        return [self.kept[key] for key in self.path(ids)]

    def insert(self, ids, blocks):
        if len(ids) // self.block != len(blocks):
            raise ValueError("blocks")
        path = []
        for key, content in zip(self.keys(ids), blocks, strict=True):
            if key not in self.kept:
                if len(self.kept) == self.capacity:
                    victim = next((old for old in self.kept if old not in path), None)
                    if victim is None:
                        break
                    del self.kept[victim]
                self.kept[key] = content
            path.append(key)
            self.touch(path)


# -- left_pad_positions


@alternative("left_pad_positions", "the running sum of the mask of real tokens")
def positions_by_cumsum(lengths, T):
    if any(n < 0 or n > T for n in lengths.tolist()):
        raise ValueError("lengths")
    real = torch.arange(T, 0, -1)[None, :] <= lengths[:, None]
    position_ids = (real.long().cumsum(dim=-1) - 1).masked_fill(~real, 0)
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    return position_ids, torch.logical_and(causal, real[:, None, :]).unsqueeze(1)


@alternative("left_pad_positions", "row by row into zeros")
def positions_by_rows(lengths, T):
    B = len(lengths)
    position_ids, mask = torch.zeros(B, T, dtype=torch.int64), torch.zeros(B, 1, T, T, dtype=torch.bool)
    for b, n in enumerate(lengths.tolist()):
        if not 0 <= n <= T:
            raise ValueError("lengths")
        position_ids[b, T - n :] = torch.arange(n)
        mask[b, 0, T - n :, T - n :] = torch.ones(n, n).tril().bool()
    return position_ids, mask


@alternative("left_pad_positions", "nested lists")
def positions_by_lists(lengths, T):
    lengths = [int(n) for n in lengths]
    if not all(n in range(T + 1) for n in lengths):
        raise ValueError("lengths")
    position_ids = [[0] * (T - n) + list(range(n)) for n in lengths]
    mask = [[[[T - n <= j <= i for j in range(T)] for i in range(T)]] for n in lengths]
    return torch.tensor(position_ids), torch.tensor(mask)
