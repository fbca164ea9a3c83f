"""Right answers of chapter 13 written in other styles; a suite that fails one of them is wrong."""

import bisect
import itertools
import math
from collections import OrderedDict, deque

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- quantize_int8


@alternative("quantize_int8", "plain loops over Python floats, halves rounded away from zero")
def int8_by_loops(W):
    q, steps = [], []
    for row in W.tolist():
        top = max(abs(w) for w in row)
        step = top / 127 if top else 1.0
        steps.append(step)
        q.append([int(math.copysign(min(127, math.floor(abs(w) / step + 0.5)), w)) for w in row])
    return torch.tensor(q, dtype=torch.int8), torch.tensor(steps, dtype=W.dtype)


@alternative("quantize_int8", "numpy in float64, a step of a row of zeros that is not 1")
def int8_by_numpy(W):
    w = W.double().numpy()
    top = np.maximum(w.max(axis=1), -w.min(axis=1))
    step = np.where(top == 0, 0.25, top / 127)
    q = np.rint(w / step[:, None]).astype(np.int8)
    return torch.from_numpy(q), torch.from_numpy(step).to(W.dtype)


# -- pack_int4, unpack_int4, quantize_int4


@alternative("quantize_int4", "arithmetic in int64 and a reshape into pairs", replaces="pack_int4")
def pack_by_arithmetic(codes):
    if ((codes < 0) | (codes > 15)).any():
        raise ValueError("0 to 15")
    codes = codes.long()
    if codes.shape[-1] % 2 == 1:
        codes = torch.cat([codes, torch.zeros_like(codes[..., :1])], dim=-1)
    pairs = codes.reshape(*codes.shape[:-1], -1, 2)
    return (pairs * torch.tensor([1, 16])).sum(-1).to(torch.uint8)


@alternative("quantize_int4", "division and remainder into an empty tensor", replaces="unpack_int4")
def unpack_by_division(packed, n=None):
    m = packed.shape[-1]
    if n is not None and (n > 2 * m or n < 2 * m - 1):
        raise ValueError("n")
    codes = torch.empty(*packed.shape[:-1], 2 * m, dtype=torch.uint8)
    codes[..., 0::2] = packed % 16
    codes[..., 1::2] = packed // 16
    return codes if n is None else codes[..., :n].clone()


@alternative("quantize_int4", "one padded reshape instead of a loop over the groups")
def int4_by_padding(W, group):
    if group < 1:
        raise ValueError("group")
    out, columns = W.shape
    short = -columns % group
    padded = torch.cat([W, W[:, -1:].expand(out, short)], dim=1)  # repeats a value of the last group: no new extreme
    parts = padded.reshape(out, -1, group)
    low, high = parts.min(dim=-1).values, parts.max(dim=-1).values
    scale = (high - low) / 15
    scale[scale == 0] = 0.125
    codes = ((parts - low[..., None]) / scale[..., None]).round().reshape(out, -1)[:, :columns]
    return reference.pack_int4(codes.to(torch.int64)), scale, low


@alternative("quantize_int4", "loops over rows, nearest of the sixteen levels by search")
def int4_by_search(W, group):
    if group <= 0:
        raise ValueError("group")
    codes, scales, lows = [], [], []
    for row in W.double().tolist():
        codes.append([])
        scales.append([])
        lows.append([])
        for start in range(0, len(row), group):
            part = row[start : start + group]
            low, step = min(part), (max(part) - min(part)) / 15 or 1.0
            middles = [low + (level + 0.5) * step for level in range(15)]
            codes[-1] += [bisect.bisect_left(middles, w) for w in part]
            scales[-1].append(step)
            lows[-1].append(low)
    packed = reference.pack_int4(torch.tensor(codes))
    return packed, torch.tensor(scales, dtype=W.dtype), torch.tensor(lows, dtype=W.dtype)


# -- int8_matmul


@alternative("int8_matmul", "numpy int64 and two index lists")
def matmul_by_numpy(x, q, scale, outlier_threshold=None):
    a, w, s_w = x.numpy(), q.numpy().astype(np.int64), scale.numpy()
    top = np.abs(a).max(axis=0)
    far = np.flatnonzero(top > outlier_threshold) if outlier_threshold is not None else np.array([], dtype=int)
    near = np.setdiff1d(np.arange(a.shape[1]), far)
    out = a[:, far] @ (w[:, far] * s_w[:, None]).T
    if len(near):
        s = np.abs(a[:, near]).max(axis=1)
        s[s == 0] = 127.0
        s = s / 127
        out = out + (np.rint(a[:, near] / s[:, None]).astype(np.int64) @ w[:, near].T) * np.outer(s, s_w)
    return torch.from_numpy(np.ascontiguousarray(out)).to(x.dtype)


@alternative("int8_matmul", "integers held exactly in float64, an einsum, the split by torch.where")
def matmul_in_float64(x, q, scale, outlier_threshold=None):
    limit = math.inf if outlier_threshold is None else outlier_threshold
    far = (x.abs() > limit).any(dim=0)
    calm, wild = torch.where(far, 0.0, x.double()), torch.where(far, x.double(), 0.0)
    s = calm.abs().max(dim=1, keepdim=True).values / 127
    whole = torch.nan_to_num(calm / s, nan=0.0).round()
    W = q.double() * scale.double()[:, None]
    return (torch.einsum("ni,oi->no", whole, q.double()) * s * scale.double() + wild @ W.T).to(x.dtype)


# -- speculative_accept, speculative_step


@alternative("speculative_accept", "the ratio, Python lists, numpy for the residual")
def accept_by_ratio(p, q, x, u, resample):
    if min(1.0, float(p[x]) / float(q[x])) > u:
        return x
    missing = np.maximum(p.double().numpy() - q.double().numpy(), 0)
    return resample(torch.from_numpy(missing / missing.sum()).to(p.dtype))


@alternative("speculative_accept", "p minus the overlap of p and q", replaces="speculative_accept")
def accept_by_overlap(p, q, x, u, resample):
    if p[x] > q[x] * u:
        return int(x)
    residual = p - torch.minimum(p, q)
    return int(resample(torch.nn.functional.normalize(residual, p=1.0, dim=0)))


@alternative("speculative_accept", "all numbers drawn first, then a while loop", replaces="speculative_step")
def step_with_numbers_first(target, draft, ids, gamma, rng):
    if gamma < 0:
        raise ValueError("gamma")
    numbers = [rng() for _ in range(2 * gamma + 1)]
    guesses, rows = [], []
    while len(guesses) < gamma:
        rows.append(draft(ids + guesses)[-1, :])
        guesses.append(reference.draw(rows[-1], numbers[len(guesses)]))
    judged = target(ids + guesses)[-(gamma + 1) :]
    kept, i = [], 0
    while i < gamma and numbers[gamma + i] < judged[i][guesses[i]] / rows[i][guesses[i]]:
        kept.append(guesses[i])
        i += 1
    last = judged[i] if i == gamma else torch.relu(judged[i] - rows[i])
    return kept + [reference.draw(last / last.sum(), numbers[-1])]


@alternative("speculative_accept", "a flag raised by resample", replaces="speculative_step")
def step_with_a_flag(target, draft, ids, gamma, rng):
    if gamma < 0:
        raise ValueError("gamma")
    text, q, new, rejected = list(ids), {}, [], []
    for i in range(gamma):
        q[i] = draft(text)[len(text) - 1]
        text = [*text, reference.draw(q[i], rng())]
    p = target(text)

    def resample(residual):
        rejected.append(True)
        return reference.draw(residual, rng())

    for i in range(gamma):
        place = len(ids) + i
        new.append(reference.speculative_accept(p[place - 1], q[i], text[place], rng(), resample))
        if rejected:
            break
    else:
        new.append(reference.draw(p[-1], rng()))
    return new


# -- expected_tokens, best_gamma


@alternative("expected_tokens", "Horner's scheme")
def tokens_by_horner(alpha, gamma):
    if gamma < 0 or alpha < 0 or alpha > 1:
        raise ValueError("alpha, gamma")
    tokens = 1.0
    for _ in range(gamma):
        tokens = 1.0 + alpha * tokens
    return tokens


@alternative("expected_tokens", "the closed form through expm1 and log1p")
def tokens_by_expm1(alpha, gamma):
    if not (0 <= alpha <= 1 and gamma >= 0):
        raise ValueError("alpha, gamma")
    if alpha == 1:
        return gamma + 1.0
    if alpha == 0:
        return 1.0
    rest = 1 - alpha
    return -math.expm1((gamma + 1) * math.log1p(-rest)) / rest


@alternative("expected_tokens", "the closed form with a case for 1")
def tokens_in_closed_form(alpha, gamma):
    if alpha < 0 or alpha > 1 or gamma < 0:
        raise ValueError("alpha, gamma")
    return gamma + 1.0 if alpha == 1 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


@alternative("expected_tokens", "a loop that keeps the best so far", replaces="best_gamma")
def gamma_by_loop(alpha, cost_ratio, max_gamma):
    if not 0 <= alpha <= 1 or cost_ratio < 0 or max_gamma < 0:
        raise ValueError("alpha, cost_ratio, max_gamma")
    best, record, tokens, power = 0, 1.0, 1.0, 1.0
    for gamma in range(1, max_gamma + 1):
        power *= alpha
        tokens += power
        if tokens / (1 + cost_ratio * gamma) > record:
            best, record = gamma, tokens / (1 + cost_ratio * gamma)
    return best


@alternative("expected_tokens", "numpy over all gammas at once", replaces="best_gamma")
def gamma_by_numpy(alpha, cost_ratio, max_gamma):
    if not 0 <= alpha <= 1 or cost_ratio < 0 or max_gamma < 0:
        raise ValueError("alpha, cost_ratio, max_gamma")
    gammas = np.arange(max_gamma + 1)
    return int(np.argmax(np.cumsum(float(alpha) ** gammas) / (cost_ratio * gammas + 1)))


# -- online_softmax, flash_attention


@alternative("flash_attention", "each block finished, results joined by their lse", replaces="online_softmax")
def softmax_by_lse(blocks):
    o = lse = None
    for scores, v in blocks:
        new = torch.logsumexp(scores, dim=-1)
        part = torch.exp(scores - torch.nan_to_num(new, neginf=0.0)[..., None]) @ v
        if o is None:
            o, lse = part, new
            continue
        both = torch.logaddexp(lse, new)
        base = torch.where(both == -math.inf, 0.0, both)
        o = o * torch.exp(lse - base)[..., None] + part * torch.exp(new - base)[..., None]
        lse = both
    if o is None:
        raise ValueError("no block")
    return o, lse


@alternative("flash_attention", "zeros to begin with, in float64, updated in place", replaces="online_softmax")
def softmax_in_place(blocks):
    m = None
    for scores, v in blocks:
        s, w = scores.double(), v.double()
        if m is None:
            kind = scores.dtype
            m = torch.full(s.shape[:-1], -math.inf, dtype=torch.float64)
            total, o = torch.zeros_like(m), torch.zeros(*s.shape[:-1], w.shape[-1], dtype=torch.float64)
        new = torch.maximum(m, s.max(dim=-1).values)
        seen = new > -math.inf
        shrink = torch.where(seen, torch.exp(m - new), torch.ones_like(m))
        e = torch.where(seen[..., None], torch.exp(s - new[..., None]), torch.zeros_like(s))
        total.mul_(shrink).add_(e.sum(-1))
        o.mul_(shrink[..., None]).add_(torch.einsum("...tn,...nd->...td", e, w))
        m = new
    if m is None:
        raise ValueError("no block")
    o = torch.where(total[..., None] > 0, o / total[..., None], torch.zeros_like(o))
    return o.to(kind), (m + torch.log(total)).to(kind)


@alternative("flash_attention", "tiles of queries and of keys, skipping tiles in the future")
def flash_by_two_loops(q, k, v, block, causal=False):
    if block < 1:
        raise ValueError("block")
    B, H, T, hd = q.shape
    S = k.shape[2]
    o, lse = q.new_zeros(B, H, T, v.shape[3]), q.new_full((B, H, T), -math.inf)
    for top in range(0, T, block):
        rows = torch.arange(top, min(top + block, T))
        tiles = []
        for left in range(0, S, block):
            cols = torch.arange(left, min(left + block, S))
            if causal and cols[0] > rows[-1] + S - T:
                break
            scores = torch.einsum("bhtd,bhsd->bhts", q[:, :, rows], k[:, :, cols]) * hd**-0.5
            if causal:
                scores[..., cols[None, :] > rows[:, None] + S - T] = -math.inf
            tiles.append((scores, v[:, :, cols]))
        if tiles:
            o[:, :, rows], lse[:, :, rows] = reference.online_softmax(tiles)
    return o, lse


@alternative("flash_attention", "tiles of keys from the last to the first, head by head")
def flash_backwards(q, k, v, block, causal=False):
    if block <= 0:
        raise ValueError("block")
    T, S = q.shape[2], k.shape[2]

    def tiles(b, h):
        for end in range(S, 0, -block):
            start = max(end - block, 0)
            scores = (q[b, h] / q.shape[-1] ** 0.5) @ k[b, h, start:end].T
            if causal:
                late = torch.ones(T, end - start, dtype=torch.bool).triu(S - T + 1 - start)
                scores = torch.where(late, -math.inf, scores)
            yield scores, v[b, h, start:end]

    B, H = q.shape[:2]
    parts = [reference.online_softmax(tiles(b, h)) for b in range(B) for h in range(H)]
    o = torch.stack([one for one, _ in parts]).reshape(B, H, T, -1)
    return o, torch.stack([one for _, one in parts]).reshape(B, H, T)


# -- PagedKV


@alternative("PagedKV", "blocks are lists with a count of owners, made when needed")
class PagesOfLists:
    def __init__(self, n_blocks, block_size, width=1, dtype=torch.float32):
        if min(n_blocks, block_size) < 1:
            raise ValueError("sizes")
        self.n_free, self.size, self.width, self.dtype = n_blocks, block_size, width, dtype
        self.sequences, self.counter = {}, itertools.count(100)

    def alloc(self):
        seq = next(self.counter)
        self.sequences[seq] = []
        return seq

    def append(self, seq, x):
        blocks = self.sequences[seq]
        if x.dim() != 2 or x.size(1) != self.width:
            raise ValueError("shape")
        rows = [row.to(self.dtype, copy=True) for row in x]
        room = -sum(len(block["rows"]) for block in blocks) % self.size
        copy = bool(rows) and room > 0 and blocks[-1]["owners"] > 1
        need = -(-max(len(rows) - room, 0) // self.size) + copy
        if need > self.n_free:
            raise ValueError("no free blocks")
        self.n_free -= need
        if copy:
            blocks[-1]["owners"] -= 1
            blocks[-1] = {"rows": list(blocks[-1]["rows"]), "owners": 1}
        for row in rows:
            if not blocks or len(blocks[-1]["rows"]) == self.size:
                blocks.append({"rows": [], "owners": 1})
            blocks[-1]["rows"].append(row)

    def gather(self, seq):
        rows = [row for block in self.sequences[seq] for row in block["rows"]]
        return torch.stack(rows) if rows else torch.zeros(0, self.width, dtype=self.dtype)

    def fork(self, seq):
        blocks = list(self.sequences[seq])
        for block in blocks:
            block["owners"] += 1
        twin = next(self.counter)
        self.sequences[twin] = blocks
        return twin

    def free(self, seq):
        for block in self.sequences.pop(seq):
            block["owners"] -= 1
            self.n_free += block["owners"] == 0


@alternative("PagedKV", "a numpy pool, owners as sets of sequences, a queue of free blocks")
class PagesOfNumpy:
    def __init__(self, n_blocks, block_size, width=1, dtype=torch.float32):
        if n_blocks <= 0 or block_size <= 0:
            raise ValueError("sizes")
        self.pool = torch.empty(n_blocks * block_size, width, dtype=dtype).numpy()
        self.size, self.dtype = block_size, dtype
        self.owners = [set() for _ in range(n_blocks)]
        self.ready = deque(range(n_blocks))
        self.table, self.n = {}, {}
        self.last = 0

    @property
    def n_free(self):
        return sum(not owners for owners in self.owners)

    def alloc(self):
        self.last += 1
        self.table[self.last], self.n[self.last] = [], 0
        return self.last

    def append(self, seq, x):
        if seq not in self.table:
            raise KeyError(seq)
        if x.ndim != 2 or x.shape[-1] != self.pool.shape[1]:
            raise ValueError("shape")
        if len(x) == 0:
            return
        table, n, size = list(self.table[seq]), self.n[seq], self.size
        partial = n % size != 0
        shared = partial and len(self.owners[table[-1]]) > 1
        wanted = -(-(n + len(x)) // size) - len(table) + (1 if shared else 0)
        if wanted > len(self.ready):
            raise ValueError("full")
        taken = [self.ready.popleft() for _ in range(wanted)]
        if shared:
            old, own = table[-1], taken.pop(0)
            self.pool[own * size : own * size + n % size] = self.pool[old * size : old * size + n % size]
            self.owners[old].remove(seq)
            table[-1] = own
        table += taken
        for block in table:
            self.owners[block].add(seq)
        self.table[seq], self.n[seq] = table, n + len(x)
        self.pool[self.slots(seq)[n:]] = x.detach().to(self.dtype).numpy()

    def slots(self, seq):
        places = np.arange(self.n[seq])
        return np.array(self.table[seq], dtype=int)[places // self.size] * self.size + places % self.size

    def gather(self, seq):
        return torch.from_numpy(self.pool[self.slots(seq)])

    def fork(self, seq):
        table, n = list(self.table[seq]), self.n[seq]
        twin = self.alloc()
        self.table[twin], self.n[twin] = table, n
        for block in table:
            self.owners[block].add(twin)
        return twin

    def free(self, seq):
        table = self.table.pop(seq)
        self.n.pop(seq)
        for block in table:
            self.owners[block].discard(seq)
            if not self.owners[block]:
                self.ready.append(block)


# -- Scheduler


@alternative("Scheduler", "a running list and a waiting queue, with admission and preemption as separate phases")
class TwoQueues:
    def __init__(self, max_tokens, max_seqs, max_cached=None):
        if max_tokens <= 0 or max_seqs <= 0:
            raise ValueError("limits")
        self.max_tokens, self.max_seqs, self.max_cached = max_tokens, max_seqs, max_cached
        self.running, self.waiting, self.jobs = [], deque(), {}

    @property
    def cached(self):
        return {name: self.jobs[name]["cached"] for name in self.running}

    @property
    def emitted(self):
        return {name: job["emitted"] for name, job in self.jobs.items()}

    def add(self, request, prompt, new):
        limit = math.inf if self.max_cached is None else self.max_cached
        if prompt <= 0 or new <= 0 or request in self.jobs or prompt + new - 1 > limit:
            raise ValueError(request)
        self.jobs[request] = {"prompt": prompt, "new": new, "cached": 0, "emitted": 0}
        self.waiting.append(request)

    def known(self, name):
        return self.jobs[name]["prompt"] + self.jobs[name]["emitted"]

    def fits(self, names):
        return self.max_cached is None or sum(map(self.known, names)) <= self.max_cached

    def step(self):
        while not self.fits(self.running):
            victim = self.running.pop()
            self.jobs[victim]["cached"] = 0
            self.waiting.appendleft(victim)
        while self.waiting and len(self.running) < self.max_seqs and self.fits([*self.running, self.waiting[0]]):
            self.running.append(self.waiting.popleft())
        batch, left = [], self.max_tokens
        for name in list(self.running):
            job, known = self.jobs[name], self.known(name)
            n = min(left, known - job["cached"])
            if n > 0:
                batch.append([name, n])
                left -= n
                job["cached"] += n
                if job["cached"] == known:
                    job["emitted"] += 1
                    if job["emitted"] >= job["new"]:
                        self.running.remove(name)
        return batch


@alternative("Scheduler", "one list in the order of arrival, token by token")
class TokenByToken:
    def __init__(self, max_tokens, max_seqs, max_cached=None):
        if max_tokens < 1 or max_seqs < 1:
            raise ValueError("limits")
        self.limits = (max_tokens, max_seqs, max_cached)
        self.order, self.emitted, self.cached = OrderedDict(), {}, {}

    def add(self, request, prompt, new):
        if request in self.emitted or prompt < 1 or new < 1:
            raise ValueError("request")
        if self.limits[2] is not None and prompt + new > self.limits[2] + 1:
            raise ValueError("too long")
        self.order[request] = [prompt, new]
        self.emitted[request] = 0

    def step(self):
        max_tokens, max_seqs, max_cached = self.limits
        chosen, total = [], 0
        for request, (prompt, _) in self.order.items():
            total += prompt + self.emitted[request]
            if len(chosen) >= max_seqs or (max_cached is not None and total > max_cached):
                break
            chosen.append(request)
        for request in list(self.cached):
            if request not in chosen:
                del self.cached[request]
        batch = {}
        todo = []
        for request in chosen:
            self.cached.setdefault(request, 0)
            todo += [request] * (self.order[request][0] + self.emitted[request] - self.cached[request])
        for request in todo[:max_tokens]:
            batch[request] = batch.get(request, 0) + 1
            self.cached[request] += 1
        for request in batch:
            prompt, new = self.order[request]
            if self.cached[request] == prompt + self.emitted[request]:
                self.emitted[request] += 1
                if self.emitted[request] == new:
                    self.order.pop(request)
                    self.cached.pop(request)
        return list(batch.items())
