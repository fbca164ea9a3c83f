"""Right answers of chapter 5 written in other styles; a suite that fails one of them is wrong."""

import bisect
import math

import numpy as np
import torch
from torch import nn

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- sinusoidal_positions


@alternative("sinusoidal_positions", "plain loops over Python floats")
def sines_by_loops(T, D, base=10000.0):
    if D % 2 == 1:
        raise ValueError("D must be even")
    table = torch.zeros(T, D, dtype=torch.float64)
    for t in range(T):
        for i in range(D // 2):
            angle = t / math.pow(base, 2 * i / D)
            table[t, 2 * i] = math.sin(angle)
            table[t, 2 * i + 1] = math.cos(angle)
    return table


@alternative("sinusoidal_positions", "numpy, strided assignment, speeds by exp and log")
def sines_by_numpy(T, D, base=10000.0):
    if D % 2:
        raise ValueError("D must be even")
    speed = np.exp(-math.log(base) * np.arange(0, D, 2) / D)
    table = np.empty((T, D))
    table[:, ::2] = np.sin(np.outer(np.arange(T), speed))
    table[:, 1::2] = np.cos(np.outer(np.arange(T), speed))
    return torch.from_numpy(table)


@alternative("sinusoidal_positions", "one sine of all columns, the odd ones a quarter turn ahead")
def sines_a_quarter_ahead(T, D, base=10000.0):
    if D % 2:
        raise ValueError("D must be even")
    column = torch.arange(D)
    speed = torch.tensor(float(base), dtype=torch.float64) ** (-(column - column % 2).double() / D)
    return torch.sin(torch.outer(torch.arange(T).double(), speed) + math.pi / 2 * (column % 2).double())


@alternative("sinusoidal_positions", "a complex exponential, read as its imaginary and real part")
def sines_by_polar(T, D, base=10000.0):
    if D % 2:
        raise ValueError("D must be even")
    speed = base ** (-2 * torch.arange(D // 2, dtype=torch.float64) / D)
    angle = torch.einsum("t,i->ti", torch.arange(T, dtype=torch.float64), speed)
    return torch.view_as_real(torch.polar(torch.ones_like(angle), angle)).flip(-1).flatten(1)


# -- LearnedPositions


@alternative("LearnedPositions", "a slice of the weight and an explicit batch axis")
class PositionsBySlice(nn.Module):
    def __init__(self, T_max, D):
        super().__init__()
        self.T_max = T_max
        self.table = nn.Embedding(T_max, D)

    def forward(self, x, offset=0):
        end = offset + x.size(1)
        if not 0 <= offset <= end <= self.T_max:
            raise ValueError("too far")
        return self.table.weight[offset:end].unsqueeze(0).expand_as(x) + x


@alternative("LearnedPositions", "a one-hot product, one sequence at a time")
class PositionsByOneHot(nn.Module):
    def __init__(self, T_max, D):
        super().__init__()
        self.table = nn.Embedding(T_max, D)

    def forward(self, x, offset=0):
        T_max = len(self.table.weight)
        wanted = [offset + t for t in range(x.shape[1])]
        if any(not 0 <= t < T_max for t in wanted):
            raise ValueError(f"no such positions: {wanted}")
        one_hot = torch.eye(T_max, dtype=x.dtype)[wanted]
        return torch.stack([tokens + one_hot @ self.table.weight for tokens in x])


# -- rope_freqs, apply_rope


@alternative("apply_rope", "a list of Python powers", replaces="rope_freqs")
def freqs_by_list(hd, base=10000.0):
    if hd % 2 != 0:
        raise ValueError("hd must be even")
    return torch.tensor([1 / base ** (i / hd) for i in range(0, hd, 2)], dtype=torch.double)


@alternative("apply_rope", "numpy logspace", replaces="rope_freqs")
def freqs_by_logspace(hd, base=10000.0):
    if hd % 2 != 0:
        raise ValueError("hd must be even")
    return torch.from_numpy(np.logspace(0, -1, hd // 2, endpoint=False, base=base))


def whole_table(positions, x, freqs):
    """Angles (T, hd/2) or (B, 1, ..., T, hd/2), by repeated unsqueeze."""
    angle = positions.unsqueeze(-1).double() * freqs
    if positions.ndim == 2:
        for _ in range(x.ndim - 3):
            angle = angle.unsqueeze(1)
    return angle


@alternative("apply_rope", "a product of complex numbers in float64, rounded at the end")
def rope_by_complex(x, positions, freqs, interleaved=False):
    half = x.shape[-1] // 2
    wide = x.double()
    z = (
        torch.complex(wide[..., 0::2], wide[..., 1::2])
        if interleaved
        else torch.complex(wide[..., :half], wide[..., half:])
    )
    z = z * torch.exp(1j * whole_table(positions, x, freqs))
    parts = [z.real, z.imag]
    joined = torch.stack(parts, dim=-1).reshape(x.shape) if interleaved else torch.cat(parts, dim=-1)
    return joined.to(x.dtype)


@alternative("apply_rope", "x cos + rotate(x) sin with cosines of full width")
def rope_by_rotate(x, positions, freqs, interleaved=False):
    angle = whole_table(positions, x, freqs)
    if interleaved:
        angle = angle.repeat_interleave(2, dim=-1)
        rotated = torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).reshape(x.shape)
    else:
        angle = torch.cat((angle, angle), dim=-1)
        left, right = x.chunk(2, dim=-1)
        rotated = torch.cat((-right, left), dim=-1)
    return x * torch.cos(angle).to(x.dtype) + rotated * torch.sin(angle).to(x.dtype)


@alternative("apply_rope", "interleaved by way of half-split, writing into an empty tensor, one batch row at a time")
def rope_by_rows(x, positions, freqs, interleaved=False):
    if interleaved:
        order = torch.cat((torch.arange(0, x.shape[-1], 2), torch.arange(1, x.shape[-1], 2)))
        return rope_by_rows(x[..., order], positions, freqs)[..., order.argsort()]
    if positions.dim() == 2:
        return torch.stack([rope_by_rows(row, p, freqs) for row, p in zip(x, positions, strict=True)])
    half = x.shape[-1] // 2
    out = torch.empty_like(x)
    for i in range(half):
        cos, sin = torch.cos(positions * freqs[i]).to(x.dtype), torch.sin(positions * freqs[i]).to(x.dtype)
        out[..., i] = x[..., i] * cos - x[..., i + half] * sin
        out[..., i + half] = x[..., i] * sin + x[..., i + half] * cos
    return out


@alternative("apply_rope", "a (hd, hd) rotation matrix for each position, and einsum")
def rope_by_matrices(x, positions, freqs, interleaved=False):
    hd = x.shape[-1]
    first = torch.arange(0, hd, 2) if interleaved else torch.arange(hd // 2)
    second = first + 1 if interleaved else first + hd // 2
    angle = positions[..., None] * freqs
    R = torch.zeros(*positions.shape, hd, hd, dtype=torch.float64)
    R[..., first, first] = R[..., second, second] = angle.cos()
    R[..., second, first], R[..., first, second] = angle.sin(), -angle.sin()
    subscripts = "tij,...tj->...ti" if positions.dim() == 1 else "btij,b...tj->b...ti"
    return torch.einsum(subscripts, R, x.double()).to(x.dtype)


# -- permute_for_half_split


@alternative("permute_for_half_split", "a list of row numbers")
def permute_by_index(W, n_heads):
    hd, rest = divmod(len(W), n_heads)
    if rest or hd % 2:
        raise ValueError("no heads of even width")
    rows = []
    for h in range(n_heads):
        rows += range(h * hd, (h + 1) * hd, 2)
        rows += range(h * hd + 1, (h + 1) * hd, 2)
    return W[rows]


@alternative("permute_for_half_split", "slices of each head, concatenated")
def permute_by_slices(W, n_heads):
    if W.size(0) % n_heads != 0 or (W.size(0) // n_heads) % 2 != 0:
        raise ValueError("no heads of even width")
    return torch.cat([part for head in W.chunk(n_heads) for part in (head[::2], head[1::2])], dim=0)


# -- alibi_bias


def slopes_by_closest_power(n):
    """The paper's rule as a recursion."""
    if math.log2(n).is_integer():
        start = 2 ** (-8 / n)
        return [start * start**i for i in range(n)]
    closest = 2 ** math.floor(math.log2(n))
    return slopes_by_closest_power(closest) + slopes_by_closest_power(2 * closest)[0::2][: n - closest]


@alternative("alibi_bias", "the recursion of the paper, and loops over heads and queries")
def alibi_by_loops(n_heads, T, S=None):
    if S is None:
        S = T
    if S < T:
        raise ValueError("fewer keys than queries")
    bias = torch.zeros(n_heads, T, S, dtype=torch.float64)
    for h, m in enumerate(slopes_by_closest_power(n_heads)):
        for t in range(T):
            q = S - T + t
            bias[h, t, : q + 1] = -m * torch.arange(q, -1, -1, dtype=torch.float64)
    return bias


@alternative("alibi_bias", "the slopes of the next power of two, dealt out odd ones first; numpy")
def alibi_by_next_power(n_heads, T, S=None):
    S = S if S is not None else T
    if T > S:
        raise ValueError("fewer keys than queries")
    ceiling = 2 ** math.ceil(math.log2(n_heads))
    slope = 2.0 ** (-8 * np.arange(1, ceiling + 1) / ceiling)
    if ceiling != n_heads:
        slope = np.concatenate([slope[1::2], slope[::2]])[:n_heads]
    distance = np.minimum(np.arange(S)[None, :] - np.arange(S - T, S)[:, None], 0)
    return torch.from_numpy(np.einsum("h,ts->hts", slope, distance.astype(float)))


# -- t5_bucket


@alternative("t5_bucket", "one entry at a time with math.log, numbers truncated by int")
def bucket_by_loops(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    def one(r):
        base, N = 0, n_buckets
        if bidirectional:
            N //= 2
            base = N if r > 0 else 0
            n = abs(r)
        else:
            n = -min(r, 0)
        exact = N // 2
        if n < exact:
            return base + n
        return base + min(exact + int(math.log(n / exact) / math.log(max_distance / exact) * (N - exact)), N - 1)

    values = [one(r) for r in relative_position.flatten().tolist()]
    return torch.tensor(values, dtype=torch.int64).reshape(relative_position.shape)


@alternative("t5_bucket", "float32 logarithms, -inf and all, chosen afterwards by torch.where")
def bucket_in_float32(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    result = torch.zeros_like(relative_position)
    if bidirectional:
        n_buckets = n_buckets // 2
        result = result + (relative_position > 0).to(torch.long) * n_buckets
        distance = torch.abs(relative_position)
    else:
        distance = -torch.min(relative_position, torch.zeros_like(relative_position))
    exact = n_buckets // 2
    grown = torch.log(distance.float() / exact) / math.log(max_distance / exact) * (n_buckets - exact)
    large = torch.clamp(exact + grown.to(torch.long), max=n_buckets - 1)
    return result + torch.where(distance < exact, distance, large)


@alternative("t5_bucket", "a sorted list of the distances at which bins begin")
def bucket_by_bisection(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    N = n_buckets // 2 if bidirectional else n_buckets
    E = N // 2
    starts = list(range(1, E)) + [E * (max_distance / E) ** (k / (N - E)) for k in range(N - E)]
    flat = [
        bisect.bisect_right(starts, abs(r) if bidirectional else max(-r, 0)) + (N if bidirectional and r > 0 else 0)
        for r in relative_position.flatten().tolist()
    ]
    return torch.tensor(flat).reshape(relative_position.shape)


# -- equivariance_gap


@alternative("equivariance_gap", "index_select and numpy")
def gap_by_numpy(f, x, perm):
    one = f(torch.index_select(x, -2, perm)).numpy()
    other = np.take(f(x).numpy(), perm.numpy(), axis=-2)
    return float(np.abs(one - other).max())


@alternative("equivariance_gap", "token by token, a running maximum")
def gap_by_loops(f, x, perm):
    original = f(x)
    shuffled = f(torch.stack([x.select(-2, int(p)) for p in perm], dim=-2))
    gap = 0.0
    for place, token in enumerate(perm.tolist()):
        difference = shuffled[..., place, :] - original[..., token, :]
        gap = max(gap, float(difference.abs().max()))
    return gap


@alternative("equivariance_gap", "compared in the original order, by undoing the shuffle")
def gap_in_the_original_order(f, x, perm):
    back = torch.argsort(perm)
    return torch.dist(f(x.clone()), f(x[..., perm, :])[..., back, :], p=math.inf).item()
