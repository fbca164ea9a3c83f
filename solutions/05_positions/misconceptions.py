"""Wrong answers of chapter 5 that people really give, each with the sentence that sets them right."""

import math

import torch
from torch import nn

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
DOUBLE = torch.float64


# -- sinusoidal_positions


def table(T, D, speeds, start=0, dtype=DOUBLE):
    """Alternating sines and cosines of position times speed, in float64."""
    if D % 2:
        raise ValueError("D is odd")
    angle = torch.arange(start, start + T, dtype=dtype)[:, None] * speeds.to(dtype)
    return torch.stack((angle.sin(), angle.cos()), -1).reshape(T, D).double()


def pair_index(D):
    return torch.arange(D // 2, dtype=DOUBLE)


@misconception("sinusoidal_positions", "Your exponent is i / D; a pair spans two columns, so it is 2i / D.")
def half_the_exponent(T, D, base=10000.0):
    return table(T, D, base ** (-pair_index(D) / D))


@misconception(
    "sinusoidal_positions", "Your sines and cosines stand in two blocks; here they alternate column by column."
)
def two_blocks(T, D, base=10000.0):
    alternating = reference.sinusoidal_positions(T, D, base)
    return torch.cat((alternating[:, 0::2], alternating[:, 1::2]), dim=1)


@misconception("sinusoidal_positions", "Your cosines stand in the even columns; the even columns hold the sines.")
def cosine_first(T, D, base=10000.0):
    return reference.sinusoidal_positions(T, D, base).reshape(T, D // 2, 2).flip(-1).reshape(T, D)


@misconception("sinusoidal_positions", "Your speeds grow with the column; the exponent is negative, so that they fall.")
def speeds_grow(T, D, base=10000.0):
    return table(T, D, base ** (2 * pair_index(D) / D))


@misconception(
    "sinusoidal_positions", "Each column has its own speed in your table; columns 2i and 2i + 1 share that of pair i."
)
def a_speed_a_column(T, D, base=10000.0):
    if D % 2:
        raise ValueError("D is odd")
    angle = torch.arange(T, dtype=DOUBLE)[:, None] * base ** (-torch.arange(D, dtype=DOUBLE) / D)
    return torch.where(torch.arange(D) % 2 == 0, angle.sin(), angle.cos())


@misconception("sinusoidal_positions", "Your first row is for position 1; positions count from 0.")
def counts_from_one(T, D, base=10000.0):
    return table(T, D, base ** (-2 * pair_index(D) / D), start=1)


@misconception(
    "sinusoidal_positions", "Your angles are float32; those of late positions are wrong. Compute in float64."
)
def angles_in_float32(T, D, base=10000.0):
    return table(T, D, base ** (-2 * pair_index(D) / D), dtype=torch.float32)


@misconception(
    "sinusoidal_positions", "You divide the exponent by D - 2, so that the last speed is 1/base; divide by D."
)
def slowest_is_one_over_base(T, D, base=10000.0):
    return table(T, D, base ** (-2 * pair_index(D) / max(D - 2, 1)))


# -- LearnedPositions


class Checked(reference.LearnedPositions):
    """The right table and the right refusals; `rows` says which row each token gets."""

    def rows(self, x, offset):
        return torch.arange(offset, offset + x.shape[1])

    def forward(self, x, offset=0):
        if offset < 0 or offset + x.shape[1] > self.table.num_embeddings:
            raise ValueError("no such position")
        return x + self.table(self.rows(x, offset))


@misconception("LearnedPositions", "The offset is not used; the first token stands at position offset.")
class IgnoresOffset(Checked):
    def rows(self, x, offset):
        return torch.arange(x.shape[1])


@misconception("LearnedPositions", "Positions beyond the table wrap around to its beginning; raise a ValueError.")
class WrapsAround(reference.LearnedPositions):
    def forward(self, x, offset=0):
        return x + self.table(torch.arange(offset, offset + x.shape[1]) % self.table.num_embeddings)


@misconception("LearnedPositions", "Positions beyond the table reuse its last row; raise a ValueError.")
class ClampsToTheLastRow(reference.LearnedPositions):
    def forward(self, x, offset=0):
        last = self.table.num_embeddings - 1
        return x + self.table(torch.arange(offset, offset + x.shape[1]).clamp(0, last))


@misconception(
    "LearnedPositions", "Your slice is cut at the end of the table, and a single row left serves all; check the bounds."
)
class SlicesWithoutLooking(reference.LearnedPositions):
    def forward(self, x, offset=0):
        return x + self.table.weight[offset : offset + x.shape[1]]


@misconception("LearnedPositions", "You multiply the tokens by their rows; add the rows.")
class Multiplies(Checked):
    def forward(self, x, offset=0):
        return x * (super().forward(x, offset) - x)


@misconception("LearnedPositions", "You return the rows alone; they must be added to the tokens.")
class ForgetsTheTokens(Checked):
    def forward(self, x, offset=0):
        return super().forward(torch.zeros_like(x), offset)


@misconception("LearnedPositions", "Your positions run along the batch; they run along the tokens, the middle axis.")
class CountsAlongTheBatch(Checked):
    def forward(self, x, offset=0):
        if offset < 0 or offset + x.shape[1] > self.table.num_embeddings:
            raise ValueError("no such position")
        return x + self.table(torch.arange(offset, offset + len(x)) % self.table.num_embeddings)[:, None]


@misconception("LearnedPositions", "You write the sum into x itself; return a new tensor.")
class AddsInPlace(Checked):
    def forward(self, x, offset=0):
        super().forward(x, offset)
        return x.add_(self.table(self.rows(x, offset)).detach())


@misconception("LearnedPositions", "Your table is detached, so no gradient reaches it; look rows up in the parameter.")
class CannotLearn(Checked):
    def forward(self, x, offset=0):
        return x + (super().forward(x, offset) - x).detach() + 0.0 * self.table.weight.sum()


@misconception("LearnedPositions", "Your table starts as zeros, all rows alike; keep the random start of nn.Embedding.")
class StartsAtZero(reference.LearnedPositions):
    def __init__(self, T_max, D):
        super().__init__(T_max, D)
        nn.init.zeros_(self.table.weight)


@misconception(
    "LearnedPositions", "Row 0 is a padding row in your table and never learns; it belongs to the first token."
)
class ShieldsTheFirstRow(Checked):
    def __init__(self, T_max, D):
        super().__init__(T_max, D)
        self.table = nn.Embedding(T_max, D, padding_idx=0)


# -- rope_freqs, apply_rope


@misconception("apply_rope", "Your exponent is i / hd; a pair spans two features, so it is 2i / hd.", "rope_freqs")
def exponent_of_one_feature(hd, base=10000.0):
    reference.rope_freqs(hd)
    return base ** (-torch.arange(hd // 2, dtype=DOUBLE) / hd)


@misconception("apply_rope", "Your exponent is i / (2 hd), four times too small; it is 2i / hd.", "rope_freqs")
def exponent_over_twice_the_width(hd, base=10000.0):
    reference.rope_freqs(hd)
    return base ** (-torch.arange(hd // 2, dtype=DOUBLE) / (2 * hd))


@misconception("apply_rope", "You give a frequency for each feature; there is one for each pair, hd/2.", "rope_freqs")
def one_for_each_feature(hd, base=10000.0):
    return reference.rope_freqs(hd, base).repeat(2)


@misconception("apply_rope", "Your frequencies are float32; late positions then get wrong angles.", "rope_freqs")
def frequencies_in_float32(hd, base=10000.0):
    return reference.rope_freqs(hd, base).float()


def rope(x, positions, freqs, interleaved, turn, join=None):
    """RoPE with another way of turning a pair or of joining the halves."""
    angle = positions[..., None] * freqs
    if positions.dim() == 2:
        angle = angle.reshape(len(angle), *[1] * (x.dim() - 3), *angle.shape[1:])
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    halves = turn(a, b, angle.cos().to(x.dtype), angle.sin().to(x.dtype))
    if join is not None:
        return join(halves)
    return torch.stack(halves, -1).flatten(-2) if interleaved else torch.cat(halves, -1)


@misconception("apply_rope", "You turn backwards: the new first member is a cos - b sin, the second a sin + b cos.")
def turns_backwards(x, positions, freqs, interleaved=False):
    return rope(x, positions, freqs, interleaved, lambda a, b, c, s: (a * c + b * s, b * c - a * s))


@misconception("apply_rope", "A minus is missing, so lengths change; the new first member is a cos - b sin.")
def minus_missing(x, positions, freqs, interleaved=False):
    return rope(x, positions, freqs, interleaved, lambda a, b, c, s: (a * c + b * s, a * s + b * c))


@misconception("apply_rope", "Your two conventions are exchanged: without the flag, i pairs with i + hd/2.")
def conventions_exchanged(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x, positions, freqs, not interleaved)


@misconception("apply_rope", "The flag is not used; with interleaved=True, features 2i and 2i + 1 form a pair.")
def flag_ignored(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x, positions, freqs)


@misconception("apply_rope", "Interleaved pairs come out in two blocks; every feature must stay in its place.")
def interleaved_comes_out_in_halves(x, positions, freqs, interleaved=False):
    return rope(
        x, positions, freqs, interleaved, lambda a, b, c, s: (a * c - b * s, a * s + b * c), lambda h: torch.cat(h, -1)
    )


@misconception(
    "apply_rope",
    "Each angle stands twice in a row, but half-split needs the whole row of angles twice, one for each half.",
)
def angles_doubled_for_the_other_convention(x, positions, freqs, interleaved=False):
    if interleaved:
        return reference.apply_rope(x, positions, freqs, True)
    angle = positions[..., None] * freqs.repeat_interleave(2)
    if positions.dim() == 2:
        angle = angle.reshape(len(angle), *[1] * (x.dim() - 3), *angle.shape[1:])
    a, b = x.chunk(2, -1)
    return x * angle.cos().to(x.dtype) + torch.cat((-b, a), -1) * angle.sin().to(x.dtype)


@misconception("apply_rope", "You count the places of x; take each token's angle from `positions`.")
def counts_places(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x, torch.arange(x.shape[-2]), freqs, interleaved)


@misconception("apply_rope", "All rows get the positions of the first; with (B, T) each row has its own.")
def first_row_for_all(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x, positions[0] if positions.dim() == 2 else positions, freqs, interleaved)


@misconception("apply_rope", "Positions (B, T) meet the heads in your broadcast; put the missing axes after the batch.")
def rows_meet_heads(x, positions, freqs, interleaved=False):
    angle = positions[..., None] * freqs
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    halves = a * cos - b * sin, a * sin + b * cos
    return torch.stack(halves, -1).flatten(-2) if interleaved else torch.cat(halves, -1)


@misconception("apply_rope", "You overwrite a before b has used it; compute both members from the old pair.")
def overwrites_too_early(x, positions, freqs, interleaved=False):
    return rope(x, positions, freqs, interleaved, lambda a, b, c, s: (a * c - b * s, (a * c - b * s) * s + b * c))


@misconception(
    "apply_rope", "Angles in the dtype of x lose late positions; keep them float64 until cos and sin are done."
)
def angles_in_the_dtype_of_x(x, positions, freqs, interleaved=False):
    angle = positions.to(x.dtype)[..., None] * freqs.to(x.dtype)
    if positions.dim() == 2:
        angle = angle.reshape(len(angle), *[1] * (x.dim() - 3), *angle.shape[1:])
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    halves = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    return torch.stack(halves, -1).flatten(-2) if interleaved else torch.cat(halves, -1)


@misconception("apply_rope", "You make the frequencies anew from base 10 000; use those that are handed in.")
def frequencies_of_its_own(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x, positions, reference.rope_freqs(x.shape[-1]), interleaved)


@misconception(
    "apply_rope", "No gradient reaches x: leave out detach, numpy and .data, and use torch operations alone."
)
def cuts_the_gradient(x, positions, freqs, interleaved=False):
    return reference.apply_rope(x.detach(), positions, freqs, interleaved) + 0.0 * x


# -- permute_for_half_split


def checked(W, n_heads):
    """Refuse what cannot be done, and give the width of a head."""
    if W.shape[0] % n_heads or W.shape[0] // n_heads % 2:
        raise ValueError("no heads of even width")
    return W.shape[0] // n_heads


@misconception("permute_for_half_split", "You sort the rows of all heads together; each head keeps its own rows.")
def across_heads(W, n_heads):
    checked(W, n_heads)
    return torch.cat((W[0::2], W[1::2]))


@misconception(
    "permute_for_half_split",
    "You apply the inverse: it makes interleaved rows out of halves. Even rows come first, then odd ones.",
)
def the_inverse(W, n_heads):
    return W.reshape(n_heads, 2, checked(W, n_heads) // 2, *W.shape[1:]).transpose(1, 2).reshape(W.shape)


@misconception("permute_for_half_split", "You put the odd rows first; the first member of each pair is the even row.")
def odd_rows_first(W, n_heads):
    heads = W.reshape(n_heads, checked(W, n_heads), *W.shape[1:])
    return torch.cat((heads[:, 1::2], heads[:, 0::2]), 1).reshape(W.shape)


@misconception("permute_for_half_split", "You permute the columns, which are inputs; heads own the rows of W.")
def permutes_columns(W, n_heads):
    checked(W, n_heads)
    order = torch.cat((torch.arange(0, W.shape[-1], 2), torch.arange(1, W.shape[-1], 2)))
    return W[..., order] if W.dim() > 1 else reference.permute_for_half_split(W, n_heads)


@misconception("permute_for_half_split", "A bias comes back as it was; it must be reordered like the rows.")
def leaves_biases(W, n_heads):
    checked(W, n_heads)
    return W.clone() if W.dim() == 1 else reference.permute_for_half_split(W, n_heads)


@misconception("permute_for_half_split", "You put the heads innermost; rows h * hd to (h + 1) * hd - 1 make head h.")
def heads_innermost(W, n_heads):
    pairs = W.reshape(checked(W, n_heads) // 2, 2, n_heads, *W.shape[1:])
    return pairs.transpose(0, 1).reshape(W.shape)


@misconception("permute_for_half_split", "You reorder W itself; work on a copy and return that.")
def in_place(W, n_heads):
    return W.copy_(reference.permute_for_half_split(W, n_heads).clone())


@misconception("permute_for_half_split", "Heads of odd width pass in silence; they have no pairs: raise a ValueError.")
def odd_width_passes(W, n_heads):
    if W.shape[0] % n_heads:
        raise ValueError("heads do not divide the rows")
    heads = W.reshape(n_heads, -1, *W.shape[1:])
    return torch.cat((heads[:, 0::2], heads[:, 1::2]), 1).reshape(W.shape)


# -- alibi_bias


def slopes(H):
    return -reference.alibi_bias(H, 2)[:, 1, 0]


def bias(slope, T, S, distance=None):
    """Slopes times distances, 0 for the future unless `distance` says otherwise."""
    S = T if S is None else S
    if S < T:
        raise ValueError("S < T")
    i, j = torch.arange(S - T, S)[:, None], torch.arange(S)
    d = (i - j).clamp(min=0) if distance is None else distance(i, j)
    return 0.0 - slope[:, None, None] * d


@misconception("alibi_bias", "Your bias rewards distance; it is negative: the farther, the lower the score.")
def rewards_distance(n_heads, T, S=None):
    return 0.0 - reference.alibi_bias(n_heads, T, S)


@misconception("alibi_bias", "You lower the future too, by its distance; later keys get 0 and are left to the mask.")
def symmetric(n_heads, T, S=None):
    return bias(slopes(n_heads), T, S, lambda i, j: (i - j).abs())


@misconception("alibi_bias", "Later keys get a positive bias in your table; they get 0.")
def raises_the_future(n_heads, T, S=None):
    return bias(slopes(n_heads), T, S, lambda i, j: i - j)


@misconception("alibi_bias", "You hide the future with -inf; this bias gives it 0, and the mask does the hiding.")
def hides_the_future(n_heads, T, S=None):
    got = reference.alibi_bias(n_heads, T, S)
    keys = got.shape[-1]
    return got.masked_fill(torch.arange(keys) > torch.arange(keys - T, keys)[:, None], -math.inf)


@misconception(
    "alibi_bias",
    "You use 2^(-8 (h + 1) / H) for every H; for 3 or 12 heads the paper takes every second of twice as many.",
)
def geometric_for_every_number(n_heads, T, S=None):
    return bias(2.0 ** (-8 * torch.arange(1, n_heads + 1, dtype=DOUBLE) / n_heads), T, S)


@misconception("alibi_bias", "Your first slope is 1; head h has 2^(-8 (h + 1) / H), so the first factor is already in.")
def starts_at_one(n_heads, T, S=None):
    P = 2 ** (n_heads.bit_length() - 1)
    return bias(slopes(n_heads) * 2 ** (8 / P), T, S)


@misconception(
    "alibi_bias", "For the extra heads you take slopes 1, 3, 5, ... of 2P heads, which exist already; take 0, 2, 4."
)
def takes_the_others(n_heads, T, S=None):
    P = 2 ** (n_heads.bit_length() - 1)
    return bias(torch.cat((slopes(P), slopes(2 * P)[1::2][: n_heads - P])), T, S)


@misconception("alibi_bias", "You sort the slopes of all heads; the extra ones come after the P regular ones.")
def sorts_the_slopes(n_heads, T, S=None):
    return bias(slopes(n_heads).sort(descending=True).values, T, S)


@misconception("alibi_bias", "You count queries from the first key; they are the last T of the S positions.")
def queries_come_first(n_heads, T, S=None):
    S = T if S is None else S
    return bias(slopes(n_heads), T, S, lambda i, j: (i - (S - T) - j).clamp(min=0))


@misconception("alibi_bias", "All heads have the same slope in your table; each has its own.")
def one_slope(n_heads, T, S=None):
    return bias(slopes(n_heads)[:1].expand(n_heads), T, S)


# -- t5_bucket


def bucket(r, n_buckets, max_distance, bidirectional, E_of=None, log=math.log, to_int=math.floor, cap=True):
    """The right bucket but for the pieces given."""
    N = n_buckets // 2 if bidirectional else n_buckets
    E = N // 2 if E_of is None else E_of(N)

    def one(value):
        n = abs(value) if bidirectional else max(-value, 0)
        far = n if n < E else E + to_int(log(n / E) / log(max_distance / E) * (N - E))
        return (min(far, N - 1) if cap else far) + (N if bidirectional and value > 0 else 0)

    return torch.tensor([one(value) for value in r.flatten().tolist()]).reshape(r.shape)


@misconception(
    "t5_bucket", "Your sign is turned: key minus query is negative for the past, and the past is the lower half."
)
def sign_turned(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    return reference.t5_bucket(-relative_position, n_buckets, max_distance, bidirectional)


@misconception("t5_bucket", "The past stands in the upper half of your buckets; N is added for the future only.")
def halves_exchanged(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    got = reference.t5_bucket(relative_position, n_buckets, max_distance, bidirectional)
    return (got + n_buckets // 2) % n_buckets if bidirectional else got


@misconception("t5_bucket", "Without bidirectional you fold the future onto the past; it counts as distance 0.")
def folds_the_future(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    r = relative_position if bidirectional else -relative_position.abs()
    return reference.t5_bucket(r, n_buckets, max_distance, bidirectional)


@misconception("t5_bucket", "The far buckets run beyond the last; N - 1 is the most, whatever the distance.")
def no_cap(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    return bucket(relative_position, n_buckets, max_distance, bidirectional, cap=False)


@misconception(
    "t5_bucket", "You round to the nearest bucket; a bin begins where its number is reached: take the floor."
)
def rounds(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    return bucket(relative_position, n_buckets, max_distance, bidirectional, to_int=round)


@misconception("t5_bucket", "Your far bins are all equally wide; they widen: take the share of the way in logarithms.")
def linear_bins(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    return bucket(relative_position, n_buckets, max_distance, bidirectional, log=lambda value: value - 1)


@misconception("t5_bucket", "You compute the exact buckets from n_buckets; with two directions, halve it first.")
def does_not_halve_first(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    wide = (lambda N: max(min(n_buckets // 2, N - 1, max_distance - 1), 1)) if bidirectional else None
    return bucket(relative_position, n_buckets, max_distance, bidirectional, wide)


@misconception("t5_bucket", "All your buckets are exact, one distance each; from N // 2 on they are logarithmic.")
def all_exact(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    N = n_buckets // 2 if bidirectional else n_buckets
    r = relative_position
    n = (r.abs() if bidirectional else (-r).clamp(min=0)).clamp(max=N - 1)
    return n + N * (r > 0) if bidirectional else n


@misconception("t5_bucket", "Your logarithm runs to 128 for every max_distance; divide by log(max_distance / E).")
def always_128(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    return bucket(relative_position, n_buckets, max(128, n_buckets), bidirectional)


@misconception(
    "t5_bucket", "You spread the far buckets over N - E - 1 steps; there are N - E, and the cap does the rest."
)
def last_bin_begins_at_the_end(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    N = n_buckets // 2 if bidirectional else n_buckets
    K = max(N - N // 2, 1)
    return bucket(relative_position, n_buckets, max_distance, bidirectional, to_int=lambda far: int(far * (K - 1) / K))


@misconception("t5_bucket", "Distance 0 counts as future in your code; only positive relative positions get N added.")
def zero_is_future(relative_position, n_buckets=32, max_distance=128, bidirectional=True):
    got = reference.t5_bucket(relative_position, n_buckets, max_distance, bidirectional)
    return got + n_buckets // 2 * (relative_position == 0) if bidirectional else got


# -- equivariance_gap


def difference(f, x, perm):
    return f(x[..., perm, :]) - f(x)[..., perm, :]


@misconception("equivariance_gap", "You compare with f(x) as it stands; its tokens must be shuffled by perm too.")
def compares_with_unshuffled(f, x, perm):
    return (f(x[..., perm, :]) - f(x)).abs().max().item()


@misconception("equivariance_gap", "You shuffle features; the tokens stand along the second axis from the end.")
def shuffles_features(f, x, perm):
    order = perm.argsort()[: x.shape[-1]].argsort()
    order = torch.cat((order, torch.arange(len(order), x.shape[-1])))
    y = f(x)
    after = y[..., order] if y.shape[-1] == len(order) else y
    return (f(x[..., order]) - after).abs().max().item()


@misconception("equivariance_gap", "One side is shuffled by perm, the other by its inverse; use perm on both.")
def inverse_on_one_side(f, x, perm):
    return (f(x[..., perm, :]) - f(x)[..., perm.argsort(), :]).abs().max().item()


@misconception("equivariance_gap", "You take the mean of the differences; the gap is the largest.")
def mean_difference(f, x, perm):
    return difference(f, x, perm).abs().mean().item()


@misconception(
    "equivariance_gap", "You take the largest difference without its absolute value; a negative one counts too."
)
def signed_difference(f, x, perm):
    return difference(f, x, perm).max().item()


@misconception("equivariance_gap", "You shuffle axis 0, which is the batch if there is one; shuffle axis -2.")
def shuffles_the_first_axis(f, x, perm):
    return (f(x[perm]) - f(x)[perm]).abs().max().item()


@misconception("equivariance_gap", "You take the length of the difference; the gap is its largest entry.")
def norm_of_difference(f, x, perm):
    return difference(f, x, perm).norm().item()


@misconception("equivariance_gap", "You return a tensor; turn the gap into a plain float with .item().")
def returns_a_tensor(f, x, perm):
    return difference(f, x, perm).abs().max()
