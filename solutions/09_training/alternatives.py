"""Right answers of chapter 9 written in other styles; a suite that fails one of them is wrong."""

import copy
import hashlib
import heapq
import itertools
import math
import zlib

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


@alternative("get_batch", "a Python loop over windows, stacked at the end")
def batch_by_loop(ids, batch, context, rng):
    if len(ids) - context <= 0:
        raise ValueError("too short")
    x, y = [], []
    for _ in range(batch):
        start = int(torch.randint(0, len(ids) - context, (1,), generator=rng))
        window = [int(i) for i in ids[start : start + context + 1]]
        x.append(torch.tensor(window[:-1]))
        y.append(torch.tensor(window[1:]))
    return torch.stack(x), torch.stack(y)


@alternative("get_batch", "a sliding view, and numpy's generator seeded from the one given")
def batch_by_view(ids, batch, context, rng):
    if len(ids) < context + 1:
        raise ValueError("too short")
    random = np.random.default_rng(torch.randint(2**62, (1,), generator=rng).item())
    view = np.lib.stride_tricks.sliding_window_view(ids, context + 1)
    windows = torch.tensor(view[random.integers(0, len(ids) - context, size=batch)].astype("int64"))
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


@alternative("AdamW", "state in a dictionary, new tensors copied into the old ones, decay written as a difference")
class AdamByDictionary:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params = tuple(params)
        self.lr = lr
        self.b1, self.b2 = betas
        self.eps = eps
        self.wd = weight_decay
        self.state = {}

    def step(self):
        for p in self.params:
            if p.grad is None:
                continue
            g = p.grad.detach()
            t, m, v = self.state.get(id(p), (0, 0.0, 0.0))
            t, m, v = t + 1, self.b1 * m + (1 - self.b1) * g, self.b2 * v + (1 - self.b2) * g**2
            self.state[id(p)] = (t, m, v)
            old = p.detach()
            new = old - self.lr * self.wd * old
            new = new - self.lr * (m / (1 - self.b1**t)) / (torch.sqrt(v / (1 - self.b2**t)) + self.eps)
            p.data.copy_(new)

    def zero_grad(self):
        for p in self.params:
            p.grad = None


@alternative("AdamW", "the corrections folded into step size and denominator, addcdiv, .data")
class AdamFolded:
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.lr = lr
        self.rest = (*betas, eps, weight_decay)
        self.slots = [{"p": p, "t": 0, "m": torch.zeros_like(p.data), "v": torch.zeros_like(p.data)} for p in params]

    def step(self):
        b1, b2, eps, wd = self.rest
        for slot in self.slots:
            p = slot["p"]
            if p.grad is not None:
                slot["t"] += 1
                slot["m"].lerp_(p.grad, 1 - b1)
                slot["v"].mul_(b2).addcmul_(p.grad, p.grad, value=1 - b2)
                denominator = slot["v"].sqrt().div_(math.sqrt(1 - b2 ** slot["t"])).add_(eps)
                p.data.mul_(1 - self.lr * wd)
                p.data.addcdiv_(slot["m"], denominator, value=-self.lr / (1 - b1 ** slot["t"]))

    def zero_grad(self):
        for slot in self.slots:
            slot["p"].grad = None


@alternative("lr_at", "nested conditionals, numpy's cosine, an interpolation of the two rates")
def schedule_by_interpolation(step, max_lr, min_lr, warmup, total):
    if warmup > 0 and step < warmup:
        return (step + 1) * (max_lr / warmup)
    if total <= step:
        return min_lr
    high = 0.5 + 0.5 * float(np.cos(np.pi * (step - warmup) / (total - warmup)))
    return high * max_lr + (1 - high) * min_lr


@alternative("lr_at", "one long vector, and torch's constant in the denominator", replaces="clip_grad_norm")
def clip_by_concatenation(grads, max_norm):
    present = [g for g in grads if g is not None]
    if not present:
        return 0.0
    norm = torch.cat([g.reshape(-1).to(torch.float32 if g.dtype == torch.float16 else g.dtype) for g in present]).norm(
        2
    )
    if norm > max_norm:
        factor = max_norm / (norm + 1e-6)
        for g in present:
            g.copy_(g * factor.to(g.dtype))
    return float(norm)


@alternative("lr_at", "a root of summed squares of norms, coefficient clamped to one", replaces="clip_grad_norm")
def clip_by_norms(grads, max_norm):
    norm = math.hypot(*[torch.linalg.vector_norm(g, dtype=torch.float64).item() for g in grads if g is not None])
    coefficient = min(1.0, max_norm / norm) if norm else 1.0
    for i in range(len(grads)):
        if grads[i] is not None and coefficient < 1.0:
            grads[i] *= coefficient
    return norm


@alternative("accumulate", "all targets are counted first, and each loss is scaled before backward")
def accumulate_count_first(model, micro_batches, loss_sum_fn):
    pairs = list(micro_batches)
    count = sum(int(y.ne(-100).sum()) for _, y in pairs)
    for p in model.parameters():
        p.grad = None
    mean = 0.0
    for x, y in pairs:
        loss = loss_sum_fn(model(x), y) / max(1, count)
        loss.backward()
        mean += loss.item()
    return mean


@alternative("accumulate", "torch.autograd.grad into sums of its own")
def accumulate_by_grad(model, micro_batches, loss_sum_fn):
    params = [p for p in model.parameters() if p.requires_grad]
    sums, total, count = [torch.zeros_like(p) for p in params], 0.0, 0
    for inputs, targets in micro_batches:
        loss = loss_sum_fn(model(inputs), targets)
        for s, g in zip(sums, torch.autograd.grad(loss, params, allow_unused=True), strict=True):
            if g is not None:
                s += g
        total += loss.item()
        count += len(targets[targets != -100])
    for p, s in zip(params, sums, strict=True):
        p.grad = s / count if count else torch.zeros_like(s)
    return total / count if count else 0.0


@alternative("mixture_weights", "a softmax of logarithms")
def weights_by_softmax(sizes, temperature=1.0):
    if not temperature > 0 or any(size <= 0 for size in sizes):
        raise ValueError("not above 0")
    logs = torch.tensor([math.log(size) / temperature for size in sizes], dtype=torch.float64)
    return logs.softmax(0).tolist()


@alternative(
    "mixture_weights", "a torch generator, permutations as tensors, the sources kept", replaces="MixtureSampler"
)
class SamplerByTorch:
    def __init__(self, sources, weights, seed):
        if len(weights) != len(sources) or any(w < 0 for w in weights) or not any(weights):
            raise ValueError("bad weights")
        if any(len(source) == 0 for source in sources):
            raise ValueError("an empty source")
        self.sources = sources
        mean = [np.mean([len(d) for d in source]) for source in sources]
        self.p = torch.tensor([w / m for w, m in zip(weights, mean, strict=True)], dtype=torch.float64)
        self.rng = torch.Generator().manual_seed(seed)
        self.order = {}
        self.at = {}
        self.read = torch.zeros(len(sources), dtype=torch.int64)

    def draw(self, n):
        result = []
        for _ in range(n):
            i = int(torch.multinomial(self.p, 1, generator=self.rng))
            if self.at.get(i, 0) == 0:
                self.order[i] = torch.randperm(len(self.sources[i]), generator=self.rng)
            j = int(self.order[i][self.at.get(i, 0)])
            self.at[i] = (self.at.get(i, 0) + 1) % len(self.sources[i])
            self.read[i] += len(self.sources[i][j])
            result.append((i, j))
        return result

    def epochs(self):
        return [self.read[i].item() / sum(map(len, source)) for i, source in enumerate(self.sources)]

    def state_dict(self):
        return copy.deepcopy({"rng": self.rng.get_state(), "order": self.order, "at": self.at, "read": self.read})

    def load_state_dict(self, state):
        state = copy.deepcopy(state)
        self.rng.set_state(state["rng"])
        self.order, self.at, self.read = state["order"], state["at"], state["read"]


@alternative("mixture_weights", "numpy's generator, and a history that is played again", replaces="MixtureSampler")
class SamplerByNumpy:
    def __init__(self, sources, weights, seed):
        lengths = [[len(document) for document in source] for source in sources]
        if len(lengths) != len(weights) or [] in lengths or min(weights) < 0 or max(weights) <= 0:
            raise ValueError("cannot be drawn")
        self.lengths, self.count = lengths, 0
        p = np.array([w * len(x) / sum(x) for w, x in zip(weights, lengths, strict=True)])
        self.p = p / p.sum()
        self.start(seed)

    def start(self, seed):
        self.seed, self.count = seed, 0
        self.rng = np.random.default_rng(seed)
        self.queues, self.tokens = [[] for _ in self.lengths], [0 for _ in self.lengths]

    def draw(self, n):
        return [self.one() for _ in range(n)]

    def one(self):
        self.count += 1
        i = int(np.searchsorted(np.cumsum(self.p), self.rng.random(), side="right"))
        if not self.queues[i]:
            self.queues[i] = self.rng.permutation(len(self.lengths[i])).tolist()
        j = self.queues[i].pop(0)
        self.tokens[i] += self.lengths[i][j]
        return i, j

    def epochs(self):
        return [self.tokens[i] / sum(self.lengths[i]) for i in range(len(self.lengths))]

    def state_dict(self):
        return {"seed": self.seed, "count": self.count}

    def load_state_dict(self, state):
        self.start(state["seed"])
        self.draw(state["count"])


@alternative("minhash", "a keyed cryptographic hash for each pair of function and text")
def minhash_by_digests(shingles, K, seed=0):
    if len(shingles) == 0:
        raise ValueError("empty")
    texts = [s.encode("utf-8") for s in shingles]
    signature = []
    for k in range(K):
        key = f"{seed}:{k}".encode()
        signature.append(
            min(int.from_bytes(hashlib.blake2b(t, digest_size=8, key=key).digest(), "little") for t in texts)
        )
    return signature


@alternative("minhash", "crc32 as the base, universal hashing in numpy with wrap-around and 64 bits")
def minhash_by_numpy(shingles, K, seed=0):
    if not len(shingles):
        raise ValueError("empty")
    random = np.random.RandomState(seed % 2**32)
    a = random.randint(0, 2**63 - 1, size=(K, 1), dtype=np.int64).astype(np.uint64) * np.uint64(2) + np.uint64(1)
    b = random.randint(0, 2**63 - 1, size=(K, 1), dtype=np.int64).astype(np.uint64)
    base = [zlib.crc32(s.encode()) << 32 | zlib.crc32(s[::-1].encode() + b"!") for s in sorted(shingles)]
    return (a * np.array(base, dtype=np.uint64) + b).min(axis=1).tolist()


@alternative("minhash", "a dictionary for each band, combinations of its members", replaces="lsh_candidates")
def candidates_band_by_band(sigs, bands):
    pairs = set()
    if len(sigs) == 0:
        return pairs
    rows, rest = divmod(len(sigs[0]), bands)
    if rest != 0 or rows == 0:
        raise ValueError("bands do not divide K")
    for low in range(0, len(sigs[0]), rows):
        table = {}
        for i, sig in enumerate(sigs):
            table.setdefault(str(list(sig[low : low + rows])), set()).add(i)
        for members in table.values():
            pairs |= set(itertools.combinations(sorted(members), 2))
    return pairs


@alternative("minhash", "union-find, one row a band", replaces="dedup")
def dedup_by_union_find(docs, threshold=0.8):
    parent = list(range(len(docs)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    sets = [reference.shingles(doc) for doc in docs]
    for i, j in reference.lsh_candidates([reference.minhash(s, 40, seed=1) for s in sets], 40):
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j]):
            a, b = root(i), root(j)
            parent[max(a, b)] = min(a, b)
    return [i for i in range(len(docs)) if root(i) == i]


@alternative("minhash", "all pairs, and a walk through the graph", replaces="dedup")
def dedup_by_walking(docs, threshold=0.8):
    sets = [reference.shingles(doc) for doc in docs]
    kept, seen = [], set()
    for first in range(len(docs)):
        if first in seen:
            continue
        kept.append(first)
        heap = [first]
        while heap:
            i = heapq.heappop(heap)
            seen.add(i)
            for j in range(len(docs)):
                if j not in seen and reference.jaccard(sets[i], sets[j]) >= threshold:
                    heapq.heappush(heap, j)
    return kept


@alternative("ring_all_reduce", "ceil-sized slices of one buffer a machine, all messages of a round before any arrives")
def ring_by_slices(buffers, send=reference.wire):
    W, n = len(buffers), buffers[0].numel()
    size = -(-n // W)
    data, total = [b.clone() for b in buffers], 0
    part = lambda c: slice(min(c % W * size, n), min((c % W + 1) * size, n))  # noqa: E731
    for t in range(2 * (W - 1)):
        arrived = []
        for r in range(W):
            c = r - t if t < W - 1 else r + 1 - (t - (W - 1))
            if len(data[r][part(c)]):
                arrived.append(((r + 1) % W, part(c), send(r, (r + 1) % W, data[r][part(c)].clone())))
        for dst, where, chunk in arrived:
            total += len(chunk)
            if t < W - 1:
                data[dst][where] += chunk
            else:
                data[dst][where] = chunk
    return data, total


@alternative("ring_all_reduce", "chunk by chunk along its way, another machine owns it at the end")
def ring_chunk_by_chunk(buffers, send=reference.wire):
    W = len(buffers)
    edges = [len(buffers[0]) * c // W for c in range(W + 1)]
    out = [b.clone() for b in buffers]
    sent = 0
    for c in range(W):
        here = slice(edges[c], edges[c + 1])
        src = (c + 2) % W
        for hop in range(2 * W - 2):
            dst = (src + 1) % W
            chunk = send(src, dst, out[src][here])
            sent += len(chunk)
            out[dst][here] = out[dst][here] + chunk if hop < W - 1 else chunk
            src = dst
    return out, sent


@alternative("ring_all_reduce", "a table of the four formulas", replaces="zero_memory")
def memory_by_table(n_params, world, stage):
    N, W = n_params, world
    try:
        return {0: 16 * N, 1: 4 * N + 12 * N / W, 2: 2 * N + 14 * N / W, 3: 16 * N / W}[stage]
    except KeyError:
        raise ValueError("no such stage") from None


@alternative("ring_all_reduce", "one minus the share of work", replaces="pipeline_bubble")
def bubble_by_work(p, m):
    return 1 - m / (m + p - 1)


@alternative("training_cost", "seconds on the wall first")
def cost_from_seconds(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    if mfu <= 0 or mfu > 1:
        raise ValueError("not a share")
    flops = 2 * n_params * n_tokens + 4 * n_params * n_tokens
    seconds = flops / (gpus * peak_flops * mfu)
    hours = seconds * gpus / 3600
    return dict(gpu_hours=hours, usd=price_per_hour * hours, days=seconds / (24 * 60 * 60))


@alternative("train_tiny_gpt", "torch's optimiser and clipping, one large batch, global seeds besides")
def train_by_torch(cfg, ids, steps, seed):
    torch.manual_seed(seed)
    n = int(0.9 * len(ids))
    model = reference.TinyGPT(cfg, seed=seed)
    model.train()
    rng = torch.Generator()
    rng.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.max_lr, weight_decay=cfg.weight_decay)
    losses, rates, norms = [], [], []
    for step in range(steps):
        rate = reference.lr_at(step, cfg.max_lr, cfg.min_lr, cfg.warmup, steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pairs = [reference.get_batch(ids[:n], cfg.batch, cfg.context, rng) for _ in range(cfg.micro)]
        x, y = torch.cat([a for a, _ in pairs]), torch.cat([b for _, b in pairs])
        loss = F.cross_entropy(model(x).view(-1, cfg.vocab), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.max_norm)
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate)
        norms.append(float(norm))
    held_out = reference.held_out_loss(model, ids[n:], cfg.context)
    return model, dict(loss=losses, lr=rates, norm=norms, held_out=held_out)
