"""Right answers of chapter 12 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math
from collections import deque

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- sliding_window_mask -------------------------------------------------------------------------------------------


@alternative("sliding_window_mask", "plain loops over rows and columns")
def mask_by_loops(T, window, sinks=0):
    if window < 1 or sinks < 0:
        raise ValueError("no such window")
    mask = torch.zeros(T, T, dtype=torch.bool)
    for i in range(T):
        for j in range(i + 1):
            mask[i, j] = j < sinks or j > i - window
    return mask


@alternative("sliding_window_mask", "two triangles and a slice")
def mask_by_triangles(T, window, sinks=0):
    if window <= 0 or sinks <= -1:
        raise ValueError("no such window")
    causal = torch.ones(T, T).tril()
    mask = causal - torch.ones(T, T).tril(-window)
    mask[:, :sinks] = causal[:, :sinks]
    return mask == 1


@alternative("sliding_window_mask", "numpy's tri and a logical and")
def mask_by_numpy(T, window, sinks=0):
    if window < 1:
        raise ValueError("window")
    if sinks < 0:
        raise ValueError("sinks")
    far = np.tri(T, T, -window, dtype=bool) & (np.arange(T) >= sinks)
    return torch.from_numpy(np.tri(T, dtype=bool) & ~far)


# -- RollingKVCache ------------------------------------------------------------------------------------------------


@alternative("RollingKVCache", "concatenate, then keep a copied slice")
class CacheByConcatenation:
    def __init__(self, window, sinks=0):
        if window < 1 or sinks < 0:
            raise ValueError("impossible cache")
        self.window = window
        self.sinks = sinks
        self.n_seen = 0
        self.first = self.recent = None

    def append(self, k, v):
        if k.shape != v.shape:
            raise ValueError("shapes")
        kv = torch.stack([k, v])  # (2, B, Hk, T, hd)
        n, T = self.n_seen, k.shape[-2]
        if self.first is None:
            self.first = self.recent = kv[..., :0, :].clone()  # recent: the last window - 1 tokens behind the sinks
        room = self.sinks - self.first.shape[-2]
        begin = torch.cat([self.first, kv[..., :room, :]], -2)
        rest = torch.cat([self.recent, kv[..., room:, :]], -2)
        out = torch.cat([begin, rest], -2)
        self.n_seen = n + T
        positions = [*range(begin.shape[-2]), *range(self.n_seen - rest.shape[-2], self.n_seen)]
        self.first = begin.clone()
        self.recent = rest[..., max(0, rest.shape[-2] - self.window + 1) :, :].clone()
        return out[0], out[1], torch.tensor(positions)


@alternative("RollingKVCache", "a deque of single tokens, newest first in what is returned")
class CacheByDeque:
    def __init__(self, window, sinks=0):
        if window < 1 or sinks < 0:
            raise ValueError("impossible cache")
        self.sinks, self.n_seen = sinks, 0
        self.kept = {}
        self.ring = deque(maxlen=window)

    def append(self, k, v):
        if k.shape != v.shape:
            raise ValueError("shapes")
        reach = self.n_seen - self.ring.maxlen + 1
        seen = dict(self.kept) | {t: pair for t, pair in self.ring if t >= reach}
        for pair in zip(k.unbind(2), v.unbind(2), strict=True):
            pair = tuple(x.clone() for x in pair)
            seen[self.n_seen] = pair
            if self.n_seen < self.sinks:
                self.kept[self.n_seen] = pair
            else:
                self.ring.append((self.n_seen, pair))
            self.n_seen += 1
        order = sorted(seen, reverse=True)
        K, V = (torch.stack([seen[t][part] for t in order], dim=2) for part in (0, 1))
        return K, V, torch.tensor(order)


@alternative("RollingKVCache", "one token at a time into a ring of numpy arrays")
class CacheByTokens:
    def __init__(self, window, sinks=0):
        if min(window - 1, sinks) < 0:
            raise ValueError("impossible cache")
        self.window, self.sinks, self.n_seen, self.slots = window, sinks, 0, None

    def append(self, k, v):
        if k.shape != v.shape:
            raise ValueError("shapes")
        pieces = np.stack([k.numpy(), v.numpy()])
        if self.slots is None:
            shape = list(pieces.shape)
            shape[3] = self.sinks + self.window
            self.slots, self.number = np.zeros(shape, pieces.dtype), np.full(shape[3], -1)
        first = self.n_seen
        old = [i for i, t in enumerate(self.number) if t >= 0 and (t < self.sinks or first - t < self.window)]
        out = np.concatenate([pieces[:, :, :, ::-1], self.slots[:, :, :, old]], axis=3)
        positions = [*range(first + k.shape[2] - 1, first - 1, -1), *self.number[old].tolist()]
        for i in range(k.shape[2]):
            t = self.n_seen
            slot = t if t < self.sinks else (t - self.sinks) % self.window + self.sinks
            self.slots[:, :, :, slot], self.number[slot] = pieces[:, :, :, i], t
            self.n_seen += 1
        K, V = torch.from_numpy(out)
        return K, V, torch.tensor(positions, dtype=torch.long)


# -- streaming_positions -------------------------------------------------------------------------------------------


@alternative("streaming_positions", "lists of Python ints")
def positions_by_lists(n_seen, window, sinks):
    if n_seen < 0 or window < 1 or sinks < 0:
        raise ValueError("no such stream")
    tokens = list(range(min(sinks, n_seen)))
    tokens += range(max(len(tokens), n_seen - window), n_seen)
    return torch.tensor(tokens, dtype=torch.int64), torch.tensor([*range(len(tokens))], dtype=torch.int64)


@alternative("streaming_positions", "positions first, tokens by shifting the far ones")
def positions_by_shift(n_seen, window, sinks):
    if min(n_seen, window - 1, sinks) < 0:
        raise ValueError("no such stream")
    dropped = max(0, n_seen - window - sinks)
    positions = torch.arange(n_seen - dropped)
    return positions + dropped * (positions >= sinks), positions


# -- rope_freqs_scaled ---------------------------------------------------------------------------------------------


@alternative("rope_freqs_scaled", "pair by pair with math, by wavelength")
def freqs_by_loops(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    if hd < 4 or hd % 2 == 1 or scale < 1:
        raise ValueError("no such head or scale")
    if mode == "linear":
        return torch.tensor([base ** (-i / hd) / scale for i in range(0, hd, 2)], dtype=torch.float64), 1.0
    if mode == "ntk":
        wide = base * math.pow(scale, hd / (hd - 2))
        return torch.tensor([1 / wide ** (i / hd) for i in range(0, hd, 2)], dtype=torch.float64), 1.0
    if mode != "yarn":
        raise ValueError(mode)
    out = []
    for i in range(0, hd, 2):
        wavelength = 2 * math.pi * base ** (i / hd)
        share = min(1.0, max(0.0, (L_orig / wavelength - alpha) / (beta - alpha)))
        out.append(2 * math.pi / wavelength * (share + (1 - share) / scale))
    return torch.tensor(out, dtype=torch.double), 1 + math.log(scale) / 10


@alternative("rope_freqs_scaled", "numpy, the extra base as a geometric division")
def freqs_by_numpy(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    if mode not in {"linear", "ntk", "yarn"} or hd < 4 or hd % 2 or scale < 1:
        raise ValueError("cannot scale")
    n = hd // 2
    freqs = np.exp(-np.log(base) * np.arange(n) / n)
    if mode == "linear":
        divide = np.full(n, scale)
    elif mode == "ntk":
        divide = scale ** (np.arange(n) / (n - 1))
    else:
        slow = 1 - np.clip((L_orig * freqs / (2 * np.pi) - alpha) / (beta - alpha), 0, 1)
        divide = 1 / (1 - slow * (1 - 1 / scale))
    return torch.from_numpy(freqs / divide), float(0.1 * np.log(scale) + 1) if mode == "yarn" else 1.0


# -- linear_attention, linear_attention_step -----------------------------------------------------------------------


@alternative("linear_attention", "running sums of outer products")
def attention_by_cumsum(q, k, v, phi, normalize=True):
    q, k = phi(q), phi(k)
    S = torch.einsum("bhtm,bhtv->bhtmv", k, v).cumsum(2)
    out = torch.einsum("bhtm,bhtmv->bhtv", q, S)
    if normalize:
        total = (q * k.cumsum(2)).sum(-1, keepdim=True)
        out = torch.where(total != 0, out / total, torch.zeros_like(out))
    return out


@alternative("linear_attention", "token by token, features of one vector at a time")
def attention_by_tokens(q, k, v, phi, normalize=True):
    rows, state = [], [0.0, 0.0]
    for t in range(q.shape[2]):
        a, b, c = phi(q[:, :, t]), phi(k[:, :, t]), v[:, :, t]
        state = [state[0] + b[..., None] * c[..., None, :], state[1] + b]
        row = (a[..., None] * state[0]).sum(-2)
        if normalize:
            total = (a * state[1]).sum(-1)[..., None]
            row = torch.where(total == 0, torch.zeros_like(row), row / torch.where(total == 0, 1.0, total))
        rows.append(row)
    return torch.stack(rows, 2)


@alternative("linear_attention", "a step in einsum that returns a list", replaces="linear_attention_step")
def step_by_einsum(state, q, k, v, normalize=True):
    if state is None:
        state = (
            torch.zeros(*k.shape, v.shape[-1], dtype=v.dtype),
            torch.zeros(k.shape, dtype=k.dtype),
        )
    S = state[0] + torch.einsum("bhm,bhv->bhmv", k, v)
    z = state[1] + k
    out = torch.einsum("bhmv,bhm->bhv", S, q)
    if not normalize:
        return [out, [S, z]]
    total = torch.einsum("bhm,bhm->bh", q, z)[..., None]
    return [(out / total).masked_fill(total == 0, 0.0), [S, z]]


# -- fit_messages --------------------------------------------------------------------------------------------------


@alternative("fit_messages", "cut the oldest block again and again until the rest fits")
def fit_by_cutting(messages, count_tokens, budget, keep_system=True):
    head = list(itertools.takewhile(lambda m: m["role"] == "system", messages))
    rest = messages[len(head) :]
    blocks = []
    for m in rest:
        if not blocks or m["role"] == "user":
            blocks.append([m])
        else:
            blocks[-1].append(m)
    if not keep_system and head:
        blocks, head = [head, *blocks], []

    def size(parts):
        return sum(count_tokens(m) for part in parts for m in part)

    if head and size([head]) > budget:
        raise ValueError("the head alone is too long")
    while blocks and size([head, *blocks]) > budget:
        blocks.pop(0)
    return head + [m for block in blocks for m in block]


@alternative("fit_messages", "counts once, then walks back over single messages and remembers the cuts")
def fit_by_walking(messages, count_tokens, budget, keep_system=True):
    sizes = [count_tokens(m) for m in messages]
    head = 0
    while head < len(messages) and messages[head]["role"] == "system":
        head += 1
    used = sum(sizes[:head]) if keep_system else 0
    if keep_system and head and used > budget:
        raise ValueError("the head alone is too long")
    cut, i = len(messages), len(messages)
    stop = head if keep_system else 0
    while i > stop:
        i -= 1
        used += sizes[i]
        if used > budget:
            break
        if i in (stop, head) or (i > head and messages[i]["role"] == "user"):
            cut = i
    return [*(messages[:head] if keep_system else []), *messages[cut:]]


# -- conversation_cost, needle_accuracy ----------------------------------------------------------------------------


@alternative("conversation_cost", "cumulative sums in numpy")
def cost_by_cumsum(turns, price_in, price_out, cached_price=None):
    sizes = np.array(turns, dtype=np.int64).reshape(-1, 2)
    past = np.concatenate([[0], sizes.sum(1).cumsum()])[: len(sizes)]
    cheap = price_in if cached_price is None else cached_price
    bills = (sizes[:, 0] * price_in + past * cheap + sizes[:, 1] * price_out).tolist()
    return {
        "total": math.fsum(bills),
        "bills": bills,
        "output_tokens": int(sizes[:, 1].sum()),
        "cached_tokens": int(past.sum()),
        "input_tokens": int(past.sum() + sizes[:, 0].sum()),
    }


@alternative("conversation_cost", "one text a call, built as a list", replaces="needle_accuracy")
def needles_one_by_one(lm, lengths, depths, trials, rng):
    if trials < 1 or any(n < 3 for n in lengths) or any(not 0 <= d <= 1 for d in depths):
        raise ValueError("no such haystack")

    def draw(low, high):
        return int(torch.randint(low, high, (1,), generator=rng))

    rows = []
    for n in lengths:
        row = []
        for depth in depths:
            hits = 0
            for _ in range(trials):
                place, value = round(depth * (n - 3)), draw(0, 10)
                hay = torch.randint(11, 43, (n - 3,), generator=rng).tolist()
                text = [*hay[:place], 10, value, *hay[place:], 10]
                hits += int(torch.argmax(lm(torch.tensor([text]))[0, -1]) == value)
            row.append(hits / trials)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@alternative("conversation_cost", "all depths of a length in one batch", replaces="needle_accuracy")
def needles_in_one_batch(lm, lengths, depths, trials, rng):
    if trials < 1 or min(lengths) < 3 or not all(0 <= d <= 1 for d in depths):
        raise ValueError("no such haystack")
    grid = []
    for n in lengths:
        value = (10 * torch.rand(len(depths), trials, generator=rng)).long()
        ids = 11 + (32 * torch.rand(len(depths), trials, n, generator=rng)).long()
        for column, depth in enumerate(depths):
            at = round(depth * (n - 3))
            ids[column, :, at : at + 2] = torch.stack([torch.full((trials,), 10), value[column]], -1)
        ids[..., -1] = 10
        said = lm(ids.flatten(0, 1))[:, -1].argmax(-1).reshape(len(depths), trials)
        grid.append((said == value).double().mean(1))
    return torch.stack(grid)
