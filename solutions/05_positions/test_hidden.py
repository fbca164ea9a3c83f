"""The whole contract of chapter 5, against complex numbers, whole-number brute force and plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.testing import close, driver, exact, exercise, holds, pure
from grader.testing.strategies import tensors

DOUBLE = torch.float64


# ----------------------------------------------------------------------------------------------- sinusoidal_positions


def clock(T, D, base):
    """The table by its definition, one entry at a time, in Python's own floats."""
    rows = [[(math.cos if c % 2 else math.sin)(t / base ** (c // 2 * 2 / D)) for c in range(D)] for t in range(T)]
    return torch.tensor(rows, dtype=DOUBLE)


@exercise("sinusoidal_positions", weight=3)
def test_sinusoidal_entry_by_entry(exercises):
    """Columns 2i and 2i + 1 are sine and cosine of t * base^(-2i / D)."""
    for T, D, base in ((7, 10, 10000.0), (5, 6, 100.0), (9, 4, 7.5), (3, 2, 50.0), (1, 8, 10000.0), (4, 14, 500000.0)):
        close(
            exercises.sinusoidal_positions(T, D, base), clock(T, D, base), f"sinusoidal_positions({T}, {D}, {base:g})"
        )


@exercise("sinusoidal_positions")
def test_sinusoidal_default_base(exercises):
    """Without base the speeds run down from 1 by powers of ten thousand."""
    close(exercises.sinusoidal_positions(6, 8), clock(6, 8, 10_000), "sinusoidal_positions(6, 8)")
    close(exercises.sinusoidal_positions(T=2, D=12, base=3.0), clock(2, 12, 3.0), "sinusoidal_positions, all by name")


@exercise("sinusoidal_positions")
def test_sinusoidal_speeds(exercises):
    """The hands turn at speeds 1, base^(-2/D), base^(-4/D) and so on."""
    for D, base in ((10, 10000.0), (6, 20.0)):
        row = exercises.sinusoidal_positions(2, D, base)[1]
        speeds = torch.atan2(row[0::2], row[1::2])
        expected = torch.tensor([base ** (-2 * i / D) for i in range(D // 2)], dtype=DOUBLE)
        close(speeds, expected, f"angles of row 1, D={D}, base={base:g}")


@exercise("sinusoidal_positions")
def test_sinusoidal_shift_is_a_linear_map(exercises):
    """One fixed matrix takes every row t to row t + k."""
    table = exercises.sinusoidal_positions(60, 8, 30.0)
    for k in (1, 7):
        shift = torch.linalg.lstsq(table[:-k], table[k:]).solution  # (D, D), the same for every t
        holds((table[:-k] @ shift - table[k:]).abs().max() < 1e-8, f"A linear map takes row t to row t + {k}.")
    close(table.square().sum(1), torch.full((60,), 4.0, dtype=DOUBLE), "squared lengths of the rows, D=8")


@exercise("sinusoidal_positions")
def test_sinusoidal_far_positions(exercises):
    """Row 3000 is as exact as row 0: the angles are computed in float64."""
    got = exercises.sinusoidal_positions(3001, 6, 200.0)
    holds(got.shape == (3001, 6), "The table has one row a position.")
    t = [2998, 2999, 3000]
    expected = [[(math.cos if c % 2 else math.sin)(p / 200.0 ** (c // 2 * 2 / 6)) for c in range(6)] for p in t]
    close(got[-3:], torch.tensor(expected, dtype=DOUBLE), "the rows of positions 2998 to 3000")


@exercise("sinusoidal_positions")
def test_sinusoidal_prefix(exercises):
    """A longer table begins with the shorter one."""
    close(
        exercises.sinusoidal_positions(11, 6)[:4], exercises.sinusoidal_positions(4, 6), "the first four rows of eleven"
    )


@exercise("sinusoidal_positions")
def test_sinusoidal_refuses_odd_widths(exercises):
    """An odd width is a ValueError."""
    for D in (7, 1):
        with pytest.raises(ValueError):
            exercises.sinusoidal_positions(3, D)


# --------------------------------------------------------------------------------------------------- LearnedPositions


def loaded(exercises, table):
    """The student's module, in the dtype of `table`, holding that table."""
    positions = exercises.LearnedPositions(*table.shape).to(table.dtype)
    positions.load_state_dict({"table.weight": table})
    return positions


@exercise("LearnedPositions", weight=2)
def test_learned_positions_are_added(exercises, rng):
    """Token t gets row offset + t, whatever the batch, up to the last row."""
    table = rng.normal(9, 4)
    positions = loaded(exercises, table)
    for B, T, offset in ((2, 3, 5), (3, 2, 0), (1, 9, 0), (4, 1, 8), (5, 6, 3), (1, 1, 0)):
        x = rng.normal(B, T, 4)
        expected = torch.stack([torch.stack([x[b, t] + table[offset + t] for t in range(T)]) for b in range(B)])
        close(positions(x, offset=offset), expected, f"positions(x, offset={offset}) of a ({B}, {T}, 4) tensor")


@exercise("LearnedPositions")
def test_learned_positions_begin_at_zero(exercises, rng):
    """Without an offset the first token gets row 0."""
    table, x = rng.normal(7, 5), rng.normal(2, 3, 5)
    positions = loaded(exercises, table)
    close(positions(x), x + table[:3], "positions(x)")
    close(positions(x, 4), x + table[4:], "positions(x, 4)")


@exercise("LearnedPositions", weight=2)
def test_learned_positions_end_at_the_last_row(exercises, rng):
    """Tokens beyond the last position, or before the first: a ValueError."""
    positions = loaded(exercises, rng.normal(6, 4))
    for T, offset in ((7, 0), (3, 5), (2, 5), (1, 6), (4, 3), (3, 600), (2, -1), (2, -3), (1, -6)):
        with pytest.raises(ValueError):
            positions(rng.normal(2, T, 4), offset=offset)


@driver
def gradients(module, table, x, weight, offset):
    """Gradients of a weighted sum of the outputs with respect to x and every parameter."""
    import torch

    with torch.enable_grad():
        positions = module.LearnedPositions(*table.shape).double()
        positions.load_state_dict({"table.weight": table})
        x = x.clone().requires_grad_()
        (positions(x, offset=offset) * weight).sum().backward()
    return {"x": x.grad, **{name: p.grad for name, p in positions.named_parameters()}}


@exercise("LearnedPositions")
def test_learned_positions_can_be_trained(exercises, rng):
    """Gradients reach x and the rows that were used, and no other row."""
    for offset in (3, 0):
        weight = rng.normal(3, 2, 4)
        got = exercises.run(gradients, rng.normal(7, 4), rng.normal(3, 2, 4), weight, offset)
        expected = torch.zeros(7, 4, dtype=DOUBLE)
        for b in range(3):
            expected[offset : offset + 2] += weight[b]
        holds(got.keys() == {"x", "table.weight"}, "The table is the module's only parameter.")
        close(got["x"], weight, "the gradient of x")
        close(got["table.weight"], expected, f"the gradient of the table, rows {offset} and {offset + 1} used")


@driver
def fresh(module):
    """What a new module holds."""
    positions = module.LearnedPositions(12, 3)
    state = {name: value.detach() for name, value in positions.state_dict().items()}
    return state, {name: tuple(p.shape) for name, p in positions.named_parameters()}


@exercise("LearnedPositions")
def test_learned_positions_holds_one_table(exercises):
    """A new module holds table.weight alone, float32, its rows random."""
    state, parameters = exercises.run(fresh)
    exact(parameters, {"table.weight": (12, 3)}, "the shapes of the parameters of LearnedPositions(12, 3)")
    holds(state.keys() == {"table.weight"}, "The state_dict holds table.weight and nothing else.")
    rows = state["table.weight"]
    holds(rows.dtype == torch.float32, "The table of a new module is float32.")
    holds(len(rows.unique(dim=0)) == 12, "No two positions of a new module have the same row.")


@exercise("LearnedPositions")
def test_learned_positions_leaves_x_alone(exercises, rng):
    """x is not changed, and the result has its dtype."""
    for dtype in (torch.float32, DOUBLE):
        table, x = rng.normal(7, 4).to(dtype), rng.normal(2, 3, 4).to(dtype)
        got = pure(loaded(exercises, table), x, offset=2)
        close(got, x + table[2:5], f"positions(x, offset=2) of a {dtype} tensor")


# ------------------------------------------------------------------------------------------------------- apply_rope


def turned(x, positions, freqs, interleaved=False):
    """RoPE by complex numbers: every pair is one, and turning is a product with e^(i angle)."""
    pairs = x.double().unflatten(-1, (-1, 2)) if interleaved else x.double().unflatten(-1, (2, -1)).mT
    angle = positions.double()[..., None] * freqs
    while positions.dim() == 2 and angle.dim() < x.dim():
        angle = angle[:, None]
    z = torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angle), angle)
    pairs = torch.view_as_real(z)
    return (pairs if interleaved else pairs.mT).flatten(-2).to(x.dtype)


def speeds(hd, base):
    return torch.tensor([base ** (-2 * i / hd) for i in range(hd // 2)], dtype=DOUBLE)


@exercise("apply_rope", weight=2)
def test_rope_freqs_by_definition(exercises):
    """Entry i is base^(-2i / hd), in float64."""
    for hd, base in ((8, 10000.0), (6, 100.0), (2, 3.0), (128, 500000.0), (10, 1.5)):
        close(exercises.rope_freqs(hd, base), speeds(hd, base), f"rope_freqs({hd}, {base:g})")
    close(exercises.rope_freqs(12), speeds(12, 10_000), "rope_freqs(12)")
    for hd in (5, 1):
        with pytest.raises(ValueError):
            exercises.rope_freqs(hd)


@exercise("apply_rope", weight=2)
def test_rope_half_split(exercises, rng):
    """By default features i and i + hd/2 turn together."""
    for shape in ((3, 7, 8), (2, 3, 5, 6), (4, 2), (2, 3, 2, 5, 4), (3, 16)):
        x, freqs = rng.normal(*shape), speeds(shape[-1], 50.0)
        positions = torch.arange(shape[-2])
        what = f"apply_rope of a {shape} tensor, half-split"
        close(exercises.apply_rope(x, positions, freqs), turned(x, positions, freqs), what)


@exercise("apply_rope", weight=2)
def test_rope_interleaved(exercises, rng):
    """With interleaved, features 2i and 2i + 1 turn together and stay put."""
    for shape in ((3, 7, 8), (2, 3, 5, 6), (4, 2), (2, 3, 2, 5, 4), (3, 16)):
        x, freqs = rng.normal(*shape), speeds(shape[-1], 50.0)
        positions = torch.arange(shape[-2]) + 2
        got = exercises.apply_rope(x, positions, freqs, interleaved=True)
        close(got, turned(x, positions, freqs, True), f"apply_rope of a {shape} tensor, interleaved")


@exercise("apply_rope", weight=2)
def test_rope_any_positions(exercises, rng):
    """Gaps, repetitions, any order and negative positions are honoured."""
    x, freqs = rng.normal(2, 3, 5, 6), speeds(6, 30.0)
    for positions in ([7, 7, 0, 120, 3], [4, 3, 2, 1, 0], [-3, 5, -40, 0, 1]):
        positions = torch.tensor(positions)
        for interleaved in (False, True):
            got = exercises.apply_rope(x, positions, freqs, interleaved)
            close(got, turned(x, positions, freqs, interleaved), f"apply_rope at positions {positions.tolist()}")


@exercise("apply_rope", weight=2)
def test_rope_positions_of_each_row(exercises, rng):
    """Positions (B, T) belong to the batch rows, not to the heads."""
    for shape in ((3, 3, 4, 6), (2, 3, 5, 4), (3, 5, 8), (2, 2, 2, 2, 4), (1, 3, 4, 6), (2, 3, 1, 6)):
        x, freqs = rng.normal(*shape), speeds(shape[-1], 30.0)
        positions = rng.integers(0, 50, shape[0], shape[-2])
        for interleaved in (False, True):
            got = exercises.apply_rope(x, positions, freqs, interleaved)
            what = f"apply_rope of a {shape} tensor at positions {tuple(positions.shape)}"
            close(got, turned(x, positions, freqs, interleaved), what)


@exercise("apply_rope")
@settings(max_examples=25)
@given(
    q=tensors(shape=(3, 1, 8)),
    m=st.integers(0, 300),
    n=st.integers(0, 300),
    shift=st.integers(-200, 4000),
    interleaved=st.booleans(),
)
def test_rope_scores_know_only_the_distance(exercises, q, m, n, shift, interleaved):
    """Moving query and key by the same amount leaves their score as it was."""
    k, freqs = q.flip(0) + 0.5, speeds(8, 10000.0)

    def score(m, n):
        turned_q = exercises.apply_rope(q, torch.tensor([m]), freqs, interleaved=interleaved)
        return (turned_q * exercises.apply_rope(k, torch.tensor([n]), freqs, interleaved=interleaved)).sum(-1)

    close(score(m + shift, n + shift), score(m, n), f"scores at ({m}, {n}), both moved by {shift}")
    close(score(m, n), (turned(q, torch.tensor([m - n]), freqs, interleaved) * k).sum(-1), f"scores at ({m}, {n})")


@exercise("apply_rope")
def test_rope_is_a_rotation(exercises, rng):
    """Lengths are kept, 0 changes nothing, turns add up, minus turns back."""
    x, freqs, zero = rng.normal(2, 4, 6), speeds(6, 20.0), torch.zeros(4, dtype=torch.int64)
    a, b = torch.tensor([3, 0, 15, 8]), torch.tensor([4, 9, 1, 30])
    for interleaved in (False, True):
        once = exercises.apply_rope(x, a, freqs, interleaved)
        close(once.norm(dim=-1), x.norm(dim=-1), "lengths of the turned vectors")
        close(exercises.apply_rope(x, zero, freqs, interleaved), x, "apply_rope at position 0")
        twice = exercises.apply_rope(once, b, freqs, interleaved)
        close(twice, exercises.apply_rope(x, a + b, freqs, interleaved), "a turn by a and then one by b")
        close(exercises.apply_rope(once, -a, freqs, interleaved), x, "a turn by a and then one by -a")


@exercise("apply_rope")
def test_rope_uses_the_frequencies_it_is_given(exercises, rng):
    """Any frequencies will do, also such as no base gives."""
    x, freqs, positions = rng.normal(3, 4, 8), rng.uniform(4) + 0.2, torch.tensor([1, 5, 2, 11])
    for interleaved in (False, True):
        got = exercises.apply_rope(x, positions, freqs, interleaved)
        close(got, turned(x, positions, freqs, interleaved), "apply_rope with random frequencies")


@exercise("apply_rope")
def test_rope_one_token_at_a_time(exercises, rng):
    """A single token at position t is turned as it is among all the others."""
    x, freqs = rng.normal(2, 3, 6, 8), exercises.rope_freqs(8)
    full = exercises.apply_rope(x, torch.arange(6), freqs)
    for t in (5, 2):
        alone = exercises.apply_rope(x[:, :, t : t + 1], torch.tensor([t]), freqs)
        close(alone, full[:, :, t : t + 1], f"apply_rope of the token at position {t} alone")


@exercise("apply_rope", weight=2)
def test_rope_far_positions_in_low_precision(exercises, rng):
    """Angles are float64, so late positions are exact in every dtype of x."""
    positions, freqs = torch.tensor([4001, 98_765, 130_999]), speeds(8, 10000.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, DOUBLE):
        x = rng.normal(2, 3, 8).to(dtype)
        for interleaved in (False, True):
            got = pure(exercises.apply_rope, x, positions, freqs, interleaved)
            close(got, turned(x, positions, freqs, interleaved), f"apply_rope of a {dtype} tensor at late positions")


@driver
def rope_gradient(module, x, positions, freqs, weight, interleaved):
    """The gradient of a weighted sum of the turned features with respect to x."""
    import torch

    with torch.enable_grad():
        x = x.clone().requires_grad_()
        (module.apply_rope(x, positions, freqs, interleaved=interleaved) * weight).sum().backward()
    return x.grad


@exercise("apply_rope")
def test_rope_lets_gradients_through(exercises, rng):
    """The gradient of x is the incoming gradient, turned back."""
    x, weight, freqs = rng.normal(2, 5, 6), rng.normal(2, 5, 6), speeds(6, 10.0)
    positions = torch.tensor([9, 0, 3, 4, 20])
    for interleaved in (False, True):
        got = exercises.run(rope_gradient, x, positions, freqs, weight, interleaved)
        close(got, turned(weight, -positions, freqs, interleaved), "the gradient of x")


# ------------------------------------------------------------------------------------------- permute_for_half_split


def evens_then_odds(H, hd):
    """The order of the rows, one at a time."""
    return [h * hd + j for h in range(H) for first in (0, 1) for j in range(first, hd, 2)]


@exercise("permute_for_half_split", weight=2)
def test_permutation_row_by_row(exercises, rng):
    """In each head the even rows come first, then the odd ones."""
    for H, hd, D in ((3, 8, 5), (2, 6, 7), (1, 10, 3), (5, 4, 2), (4, 2, 3), (7, 6, 1)):
        W = rng.normal(H * hd, D)
        exact(exercises.permute_for_half_split(W, H), W[evens_then_odds(H, hd)], f"{H} heads of width {hd}, D={D}")


@exercise("permute_for_half_split", weight=2)
def test_permuted_projections_give_the_same_scores(exercises, rng):
    """Half-split RoPE then scores as interleaved RoPE did before."""
    B, T, D, hd, freqs = 2, 5, 7, 6, speeds(6, 30.0)
    x, positions = rng.normal(B, T, D), torch.tensor([3, 0, 8, 9, 40])
    for H, Hk in ((3, 3), (4, 2), (3, 1)):
        W_q, W_k = rng.normal(H * hd, D), rng.normal(Hk * hd, D)
        scores = []
        for q, k, interleaved in (
            (W_q, W_k, True),
            (exercises.permute_for_half_split(W_q, H), exercises.permute_for_half_split(W_k, n_heads=Hk), False),
        ):
            q, k = ((x @ W.T).unflatten(-1, (-1, hd)).transpose(1, 2) for W in (q, k))  # (B, heads, T, hd)
            q, k = turned(q, positions, freqs, interleaved), turned(k, positions, freqs, interleaved)
            scores.append(q @ k.repeat_interleave(H // Hk, dim=1).mT)
        close(scores[1], scores[0], f"scores of {H} query heads over {Hk} key heads after the permutation")


@exercise("permute_for_half_split")
def test_permutation_of_biases(exercises, rng):
    """A bias, (H * hd,), is reordered like the rows of the weight."""
    for H, hd in ((3, 6), (2, 8), (5, 2)):
        b = rng.normal(H * hd)
        exact(exercises.permute_for_half_split(b, H), b[evens_then_odds(H, hd)], f"a bias of {H} heads of width {hd}")


@exercise("permute_for_half_split")
def test_permutation_is_orthogonal(exercises):
    """The reordered identity is a permutation matrix, head by head."""
    P = exercises.permute_for_half_split(torch.eye(24, dtype=DOUBLE), 3)
    exact(P @ P.T, torch.eye(24, dtype=DOUBLE), "P P^T for the reordered identity P of three heads of width 8")
    blocks = torch.block_diag(*[torch.ones(8, 8, dtype=DOUBLE)] * 3)
    exact(P * (1 - blocks), torch.zeros(24, 24, dtype=DOUBLE), "the entries of P between different heads")


@exercise("permute_for_half_split")
def test_permutation_refuses_impossible_heads(exercises):
    """Heads that do not divide the rows, or of odd width, are a ValueError."""
    for rows, H in ((12, 5), (12, 4), (10, 4), (12, 24), (9, 3), (7, 7)):
        for W in (torch.zeros(rows, 3), torch.zeros(rows)):
            with pytest.raises(ValueError):
                exercises.permute_for_half_split(W, H)


@exercise("permute_for_half_split")
def test_permutation_keeps_dtype_and_input(exercises, rng):
    """The dtype is that of W, which is not changed."""
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        W = (10 * rng.normal(12, 5)).to(dtype)
        got = pure(exercises.permute_for_half_split, W, 2)
        exact(got, W[evens_then_odds(2, 6)], f"the reordered rows of a {dtype} weight")


# ------------------------------------------------------------------------------------------------------- alibi_bias


def slopes(H):
    """The slopes by the paper's rule, written as a recursion on the number of heads."""
    if H & (H - 1) == 0:
        return [0.5 ** (8 * (h + 1) / H) for h in range(H)]
    P = 1
    while 2 * P < H:
        P *= 2
    return slopes(P) + slopes(2 * P)[::2][: H - P]


def penalties(H, T, S):
    """The whole bias, entry by entry."""
    rows = [[[-m * max(S - T + i - j, 0) for j in range(S)] for i in range(T)] for m in slopes(H)]
    return torch.tensor(rows, dtype=DOUBLE) + 0.0


@exercise("alibi_bias", weight=3)
def test_alibi_entry_by_entry(exercises):
    """Each head's slope times the distance, for powers of two of heads."""
    for H, T, S in ((8, 5, 7), (4, 3, 6), (2, 1, 9), (16, 4, 4), (1, 6, 8), (32, 2, 3)):
        close(exercises.alibi_bias(H, T, S), penalties(H, T, S), f"alibi_bias({H}, {T}, {S})")


@exercise("alibi_bias", weight=2)
def test_alibi_for_any_number_of_heads(exercises):
    """Other numbers of heads take every second slope of twice as many."""
    for H in (12, 3, 5, 6, 7, 9, 40, 71, 112):
        expected = -torch.tensor(slopes(H), dtype=DOUBLE)
        close(exercises.alibi_bias(H, 2)[:, 1, 0], expected, f"alibi_bias({H}, 2) at distance 1")
    close(exercises.alibi_bias(12, 3, 5), penalties(12, 3, 5), "alibi_bias(12, 3, 5)")


@exercise("alibi_bias")
def test_alibi_is_square_by_default(exercises):
    """Without S, or with None, there are as many keys as queries."""
    close(exercises.alibi_bias(4, 6), penalties(4, 6, 6), "alibi_bias(4, 6)")
    close(exercises.alibi_bias(n_heads=3, T=5, S=None), penalties(3, 5, 5), "alibi_bias(3, 5, S=None)")
    exact(exercises.alibi_bias(2, 1), torch.zeros(2, 1, 1, dtype=DOUBLE), "alibi_bias(2, 1)")


@exercise("alibi_bias")
def test_alibi_leaves_the_future_to_the_mask(exercises):
    """A query's own position and all later ones have a bias of 0."""
    got = exercises.alibi_bias(6, 5, 8)
    later = torch.tensor([[j >= 3 + i for j in range(8)] for i in range(5)])
    exact(got[:, later], torch.zeros(6, int(later.sum()), dtype=DOUBLE), "the bias of keys that are not past")
    holds((got[:, ~later] < 0).all(), "Every key of the past has a bias below 0.")


@exercise("alibi_bias")
def test_alibi_of_the_last_query(exercises):
    """One new query gets the last row of the full table, at any length."""
    for H, n in ((8, 9), (6, 5), (1, 2000)):
        last = exercises.alibi_bias(H, n)[:, -1:] if n < 100 else penalties(H, 1, n)
        close(exercises.alibi_bias(H, 1, n), last, f"alibi_bias({H}, 1, {n})")


@exercise("alibi_bias")
def test_alibi_needs_room_for_the_queries(exercises):
    """Fewer keys than queries is a ValueError, and so are no keys at all."""
    for T, S in ((4, 3), (5, 1), (2, 0)):
        with pytest.raises(ValueError):
            exercises.alibi_bias(2, T, S)


# -------------------------------------------------------------------------------------------------------- t5_bucket


def bins(n_buckets, max_distance, bidirectional, top):
    """Bucket of every distance 0 ... top by whole numbers alone, and whether the distance is an edge.

    log(n / E) / log(M / E) * K >= k says that n^K E^k >= M^k E^K, which Python's integers decide exactly.
    """
    N = n_buckets // 2 if bidirectional else n_buckets
    E, M = N // 2, max_distance
    K, buckets, edge = N - N // 2, [], []
    for n in range(top + 1):
        above = [n**K * E**k - M**k * E**K for k in range(1, K)] if E <= n < M else []
        buckets.append(n if n < E else N - 1 if n >= M else E + sum(a >= 0 for a in above))
        edge.append(0 in above)
    return torch.tensor(buckets), torch.tensor(edge)


SIZES = ((32, 128), (16, 40), (8, 20), (64, 256), (10, 33), (4, 9), (32, 20))


def compare_buckets(exercises, n_buckets, max_distance, bidirectional, sign):
    """Compare the buckets of all distances on one side of the query, but for those that begin a bin exactly."""
    top = 3 * max_distance
    buckets, edge = bins(n_buckets, max_distance, bidirectional, top)
    distance = torch.arange(top + 1)
    if sign > 0:
        buckets, edge = torch.where(distance > 0, buckets + n_buckets // 2, 0), edge & (distance > 0)
    got = exercises.t5_bucket(sign * distance, n_buckets, max_distance, bidirectional)
    side = "future" if sign > 0 else "past"
    exact(got[~edge], buckets[~edge], f"the {side}, {n_buckets} buckets, max_distance {max_distance}, {bidirectional=}")


@exercise("t5_bucket", weight=2)
def test_buckets_of_the_past(exercises):
    """The past fills the lower half: exact, then logarithmic, then one."""
    for n_buckets, max_distance in SIZES:
        compare_buckets(exercises, n_buckets, max_distance, True, -1)


@exercise("t5_bucket", weight=2)
def test_buckets_of_the_future(exercises):
    """The future fills the upper half, in the same way."""
    for n_buckets, max_distance in SIZES:
        compare_buckets(exercises, n_buckets, max_distance, True, 1)


@exercise("t5_bucket", weight=2)
def test_buckets_when_only_the_past_counts(exercises):
    """Not bidirectional: all buckets are for the past, the future gets 0."""
    for n_buckets, max_distance in (*SIZES, (7, 30), (5, 12)):
        if max_distance > n_buckets // 2:
            compare_buckets(exercises, n_buckets, max_distance, False, -1)
            future = exercises.t5_bucket(torch.arange(1, 300), n_buckets, max_distance, bidirectional=False)
            exact(future, torch.zeros(299, dtype=torch.int64), f"the future, {n_buckets} buckets, not bidirectional")


@exercise("t5_bucket")
def test_buckets_by_default(exercises):
    """By default: 32 buckets, distance 128, both directions."""
    r = torch.tensor([-1000, -128, -100, -50, -9, -8, -7, -1, 0, 1, 7, 8, 9, 50, 100, 128, 1000])
    past, _ = bins(32, 128, True, 1000)
    expected = torch.where(r > 0, 16, 0) + past[r.abs()]
    exact(exercises.t5_bucket(r), expected, "t5_bucket of relative positions from -1000 to 1000")
    causal, _ = bins(32, 128, False, 1000)
    got = exercises.t5_bucket(relative_position=r, bidirectional=False)
    exact(got, causal[(-r).clamp(min=0)], "t5_bucket(r, bidirectional=False)")


@exercise("t5_bucket")
def test_buckets_are_ordered_and_bounded(exercises):
    """Farther is never a lower bucket; all lie in range, also very far off."""
    far = torch.cat([torch.arange(400), torch.tensor([10**4, 10**6, 10**9])])
    for n_buckets, max_distance in ((32, 128), (12, 50)):
        for r, low, high in ((-far, 0, n_buckets // 2 - 1), (far[1:], n_buckets // 2 + 1, n_buckets - 1)):
            got = exercises.t5_bucket(r, n_buckets=n_buckets, max_distance=max_distance)
            holds((got.diff() >= 0).all(), "A larger distance in the same direction never has a lower bucket.")
            exact((got.min(), got.max()), (low, high), "the lowest and the highest bucket of one direction")


@exercise("t5_bucket")
def test_buckets_of_a_table(exercises):
    """Any shape goes: entries are sorted one by one and keep their places."""
    r = torch.arange(5)[None, :] - torch.arange(3)[:, None] * 30  # key minus query, (3, 5)
    past, _ = bins(32, 128, True, 100)
    expected = torch.where(r > 0, 16, 0) + past[r.abs()]
    for shape in ((3, 5), (1, 15), (5, 1, 3), (15,)):
        got = pure(exercises.t5_bucket, r.reshape(shape))
        exact(got, expected.reshape(shape), f"t5_bucket of a tensor of shape {shape}")


# ------------------------------------------------------------------------------------------------- equivariance_gap


def mix(x, bias=0.0):
    """Attention of x with itself, its scores shifted by bias."""
    return torch.softmax(x @ x.mT / x.shape[-1] ** 0.5 + bias, -1) @ x


@exercise("equivariance_gap", weight=2)
def test_gap_by_hand(exercises, rng):
    """It is the largest of |f(shuffled x) - f(x) shuffled|, entry by entry."""
    for T, D in ((5, 3), (4, 6), (7, 1), (2, 4)):
        x, place, perm = rng.normal(T, D), rng.normal(T, 1), rng.permutation(T)
        # with f(x)[t] = place[t] * x[t], place t holds place[t] * x[perm[t]] or place[perm[t]] * x[perm[t]]
        gaps = [abs((place[t] - place[p]).item() * v.item()) for t, p in enumerate(perm.tolist()) for v in x[p]]
        got = exercises.equivariance_gap(lambda x, place=place: place * x, x, perm)
        close(got, max(gaps), f"the gap when each of {T} places has its own weight")


@exercise("equivariance_gap")
def test_gap_of_attention_without_positions(exercises, rng):
    """Attention without positions has none, nor has any map token by token."""
    x, perm, W = rng.normal(6, 4), rng.permutation(6), rng.normal(4, 3)
    for name, f in (
        ("attention", mix),
        ("a matrix", lambda x: torch.tanh(x @ W)),
        ("the mean", lambda x: x - x.mean(-2)),
    ):
        gap = exercises.equivariance_gap(f, x, perm)
        holds(isinstance(gap, float), "The gap is a plain Python float.")
        holds(0 <= gap < 1e-9, f"The gap of {name} is 0 but for rounding; got {gap:g}.")


@exercise("equivariance_gap", weight=2)
def test_gap_of_attention_with_positions(exercises, rng):
    """Any of the chapter's schemes, or a causal mask, opens a gap."""
    x, perm = rng.normal(6, 4), rng.permutation(6)
    table, place = clock(6, 4, 100.0), torch.arange(6)
    distance = (place[:, None] - place).abs().double()
    hidden = torch.zeros(6, 6, dtype=DOUBLE).masked_fill(place > place[:, None], -math.inf)
    schemes = {
        "added sines": lambda x: mix(x + table),
        "turned features": lambda x: mix(turned(x, place, speeds(4, 100.0))),
        "a distance penalty": lambda x: mix(x, -distance / 2),
        "a causal mask": lambda x: mix(x, hidden),
    }
    for name, f in schemes.items():
        by_loops = [(f(x[perm])[t] - f(x)[p]).abs().max().item() for t, p in enumerate(perm.tolist())]
        holds(max(by_loops) > 0.01, "The test's own gap is well above rounding.")
        close(exercises.equivariance_gap(f, x, perm), max(by_loops), f"the gap of attention with {name}")


@exercise("equivariance_gap")
def test_gap_of_a_batch(exercises, rng):
    """With batch axes in front, tokens are shuffled within each row alone."""
    for shape in ((3, 5, 4), (5, 5, 2), (2, 3, 4, 6), (4, 2, 3)):
        x, perm, place = rng.normal(*shape), rng.permutation(shape[-2]), rng.normal(shape[-2], 1)
        W = rng.normal(shape[-1], 7)
        expected = ((place - place[perm]) * (x.index_select(-2, perm) @ W)).abs().max().item()
        close(exercises.equivariance_gap(lambda x, p=place, W=W: p * (x @ W), x, perm), expected, f"the gap, x {shape}")
        holds(exercises.equivariance_gap(mix, x, perm) < 1e-9, f"Attention without positions has no gap, x {shape}.")


@exercise("equivariance_gap")
def test_gap_of_staying_in_place(exercises, rng):
    """If nothing is moved, there is no gap, whatever f does."""
    x = rng.normal(5, 3)
    got = exercises.equivariance_gap(lambda x: x.cumsum(0), x, torch.arange(5))
    exact(got, 0.0, "the gap of running sums when perm moves nothing")


@exercise("equivariance_gap")
def test_gap_of_the_way_back(exercises, rng):
    """Shuffling back what was shuffled has the same gap; it scales with f."""
    x, perm = rng.normal(7, 3), torch.tensor([2, 0, 1, 6, 3, 4, 5])  # not its own inverse

    def f(x):
        return x.cumsum(0)

    there = exercises.equivariance_gap(f, x, perm)
    close(exercises.equivariance_gap(f, x[perm], perm.argsort()), there, "the gap from shuffled to original order")
    close(exercises.equivariance_gap(lambda x: -2.5 * x.cumsum(0), x, perm), 2.5 * there, "the gap of -2.5 f")


@exercise("equivariance_gap")
def test_gap_leaves_its_arguments_alone(exercises, rng):
    """Neither x nor perm is changed, in float32 as in float64."""
    perm = torch.tensor([3, 1, 4, 0, 2])
    for dtype in (torch.float32, DOUBLE):
        x = rng.normal(2, 5, 3).to(dtype)
        got = pure(exercises.equivariance_gap, lambda x: x.cumsum(-2), x, perm)
        expected = (x[:, perm].cumsum(1) - x.cumsum(1)[:, perm]).abs().max().item()
        holds(abs(got - expected) < 1e-5 * (1 + expected), "The gap of running sums is right to 1e-5.")
