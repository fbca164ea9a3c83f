"""The whole contract of chapter 13: bounds, exact distributions, counted calls, watched memory, simulated clocks."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from grader.testing import close, counting, driver, exact, exercise, holds, pure, roughly, same_distribution
from grader.testing.strategies import seeds

DOUBLE = torch.float64


# ----------------------------------------------------------------------------------------------------- quantize_int8


def rows_of_many_sizes(rng, rows=5, columns=7):
    """Weights (rows, columns) of which each row is ten times smaller than the one before; the largest is negative."""
    W = rng.normal(rows, columns) * 10.0 ** -torch.arange(rows)[:, None]
    W[:, 2] = -1.5 * W.abs().amax(1)
    return W


@exercise("quantize_int8", weight=2)
def test_int8_error_is_half_a_step(exercises, rng):
    """Integers times the step of their row miss W by half a step at most."""
    for shape in ((5, 7), (3, 40), (6, 1), (1, 9)):
        W = rows_of_many_sizes(rng, *shape) if shape[1] > 2 else rng.normal(*shape)
        q, scale = exercises.quantize_int8(W)
        exact((q.dtype, tuple(q.shape), tuple(scale.shape)), (torch.int8, shape, shape[:1]), f"q and scale of {shape}")
        error = (q.double() * scale[:, None] - W).abs()
        holds((error <= scale[:, None] * (0.5 + 1e-9)).all(), f"the error of a {shape} matrix is at most half a step.")


@exercise("quantize_int8", weight=2)
def test_int8_step_comes_from_the_largest_magnitude(exercises, rng):
    """Each step is the row's largest magnitude over 127, whatever its sign."""
    W = rows_of_many_sizes(rng, 6, 8)
    W[3] = -W[3].abs()
    W[4] = W[4].abs()
    q, scale = exercises.quantize_int8(W)
    close(scale * 1e6, W.abs().amax(1) / 127 * 1e6, "a million times the steps of a (6, 8) matrix")
    holds(q.int().abs().amax(1) == 127, "The weight of largest magnitude in a row becomes 127 or -127.")
    holds((q >= -127).all(), "No integer is below -127.")


@exercise("quantize_int8")
def test_int8_row_of_zeros(exercises, rng):
    """A row of zeros stays a row of zeros, with a positive step."""
    W = rng.normal(4, 5)
    W[2] = 0
    for dtype in (DOUBLE, torch.float32):
        q, scale = exercises.quantize_int8(W.to(dtype))
        exact(q[2], torch.zeros(5, dtype=torch.int8), "q in a row of zeros")
        holds(torch.isfinite(scale) & (scale > 0), "Every step is positive and finite, that of a row of zeros too.")
    q, _ = exercises.quantize_int8(torch.zeros(3, 2))
    exact(q, torch.zeros(3, 2, dtype=torch.int8), "q of a matrix of zeros")


@exercise("quantize_int8")
def test_int8_of_tiny_and_huge_rows(exercises, rng):
    """Multiplying a row by a power of two multiplies its step and leaves q."""
    W = rng.normal(4, 6)
    factor = 2.0 ** torch.tensor([-60, 0, 60, -30], dtype=DOUBLE)
    (q, scale), (q2, scale2) = exercises.quantize_int8(W), exercises.quantize_int8(W * factor[:, None])
    exact(q2, q, "q after rows were multiplied by powers of two")
    close(scale2 / factor, scale, "the steps after rows were multiplied by powers of two, divided by these")


@exercise("quantize_int8")
def test_int8_rows_are_independent(exercises, rng):
    """A row is treated alike, alone or among others, and -W gives -q."""
    W = rows_of_many_sizes(rng)
    q, scale = exercises.quantize_int8(W)
    alone = [exercises.quantize_int8(W[i : i + 1]) for i in range(5)]
    exact(torch.cat([one for one, _ in alone]), q, "q of each row alone")
    close(torch.cat([one for _, one in alone]) * 1e5, scale * 1e5, "the step of each row alone, times 100000")
    exact(exercises.quantize_int8(-W)[0], -q, "q of -W")


@exercise("quantize_int8")
def test_int8_keeps_dtype_and_input(exercises, rng):
    """The step has the dtype of W, and W is not changed."""
    for dtype in (torch.float32, DOUBLE):
        W = rng.normal(3, 50).to(dtype)
        q, scale = pure(exercises.quantize_int8, W)
        exact((q.dtype, scale.dtype), (torch.int8, dtype), f"the dtypes of q and scale for W of {dtype}")
        error = (q.double() * scale.double()[:, None] - W.double()).abs().amax(1)
        # float32 rounds a quotient near 127 by up to 127 * 6e-8 steps
        holds(error <= scale.double() * (0.5 + 2e-5), f"the error in {dtype} is at most half a step.")


# ------------------------------------------------------------------------------- pack_int4, unpack_int4, quantize_int4


def packed_by_hand(row):
    """Bytes of a list of codes, by arithmetic."""
    row = row + [0] * (len(row) % 2)
    return [row[i] + 16 * row[i + 1] for i in range(0, len(row), 2)]


@exercise("quantize_int4")
def test_pack_puts_the_first_code_into_the_low_bits(exercises, rng):
    """The byte of a pair is the first code plus sixteen times the second."""
    for n in (6, 7, 2, 1, 16):
        codes = rng.integers(0, 16, 3, n)
        expected = torch.tensor([packed_by_hand(row) for row in codes.tolist()], dtype=torch.uint8)
        exact(pure(exercises.pack_int4, codes), expected, f"pack_int4 of int64 codes of shape (3, {n})")
        exact(exercises.pack_int4(codes.to(torch.uint8)), expected, f"pack_int4 of uint8 codes of shape (3, {n})")
        exact(exercises.pack_int4(codes[0].to(torch.int8)), expected[0], f"pack_int4 of {n} int8 codes")


@exercise("quantize_int4")
def test_unpack_undoes_pack(exercises, rng):
    """Every byte gives its low and then its high four bits, on any axes."""
    packed = torch.arange(256).to(torch.uint8).reshape(2, 32, 4)[:, rng.permutation(32)]
    expected = torch.stack([packed.long() % 16, packed.long() // 16], -1).flatten(-2).to(torch.uint8)
    exact(pure(exercises.unpack_int4, packed), expected, "unpack_int4 of all bytes, (2, 32, 4)")
    exact(exercises.unpack_int4(packed, 8), expected, "unpack_int4(packed, 8) of (2, 32, 4)")
    exact(exercises.unpack_int4(packed, n=7), expected[..., :7], "unpack_int4(packed, n=7) of (2, 32, 4)")
    exact(exercises.unpack_int4(packed[0, 0, :1], 1), expected[0, 0, :1], "unpack_int4 of one byte, n=1")
    for wrong in (6, 9, 1, 0):
        with pytest.raises(ValueError):
            exercises.unpack_int4(packed, wrong)


@exercise("quantize_int4")
def test_pack_refuses_what_has_no_four_bits(exercises):
    """A code below 0 or above 15 raises ValueError."""
    for codes in ([3, 16], [-1, 2], [4, 5, 99], [-8]):
        with pytest.raises(ValueError):
            exercises.pack_int4(torch.tensor(codes))


def restored(exercises, W, group):
    """Quantize and restore; also give the step of each weight."""
    packed, scale, low = exercises.quantize_int4(W, group)
    exact(tuple(packed.shape), (len(W), -(-W.shape[1] // 2)), f"the shape of packed for {tuple(W.shape)}")
    codes = exercises.unpack_int4(packed, W.shape[1]).double()
    g = torch.arange(W.shape[1]) // group
    return low.double()[:, g] + scale.double()[:, g] * codes, scale.double()[:, g]


def spread(W, group):
    """Smallest value and step of each group, by plain loops."""
    parts = [[row[i : i + group] for i in range(0, len(row), group)] for row in W.tolist()]
    low = torch.tensor([[min(part) for part in row] for row in parts], dtype=W.dtype)
    step = torch.tensor([[(max(part) - min(part)) / 15 for part in row] for row in parts], dtype=W.dtype)
    return step, low


@exercise("quantize_int4", weight=3)
def test_int4_groups_run_along_each_row(exercises, rng):
    """Every group of columns of every row has its own low and step."""
    for (rows, columns), group in (((5, 12), 4), ((3, 11), 4), ((4, 9), 3), ((2, 7), 5), ((3, 8), 2)):
        W = rng.normal(rows, columns) * torch.linspace(1, 4, columns, dtype=DOUBLE) + rng.normal(rows, 1)
        _, scale, low = exercises.quantize_int4(W, group)
        step, smallest = spread(W, group)
        close(low, smallest, f"low of a {(rows, columns)} matrix in groups of {group}")
        close(scale, step, f"scale of a {(rows, columns)} matrix in groups of {group}")


@exercise("quantize_int4", weight=3)
def test_int4_error_is_half_a_step(exercises, rng):
    """What is restored misses W by half a step of its group at most."""
    for (rows, columns), group in (((3, 12), 4), ((5, 11), 3), ((2, 7), 20), ((4, 9), 9), ((3, 50), 16)):
        W = 3 * rng.normal(rows, columns) + 2
        got, step = restored(exercises, W, group)
        holds(
            ((got - W).abs() <= step * (0.5 + 1e-9)).all(),
            f"{(rows, columns)} in groups of {group}: the error is at most half a step.",
        )


@exercise("quantize_int4")
def test_int4_of_one_sign(exercises, rng):
    """All levels lie between the group's own ends, also far from zero."""
    for offset in (50.0, -50.0):
        W = rng.normal(3, 10) + offset
        got, step = restored(exercises, W, 5)
        holds(
            ((got - W).abs() <= step * (0.5 + 1e-9)).all(), f"weights near {offset}: the error is at most half a step."
        )
        holds(step < 1, f"weights near {offset}: a step is a 15th of the spread, not of the distance from zero.")


@exercise("quantize_int4")
def test_int4_of_equal_values(exercises, rng):
    """A group of equal values is restored exactly, with a positive step."""
    W = rng.normal(4, 9)
    W[1, 3:6], W[2, :3], W[3] = -2.7, 0.0, 1e-3
    got, step = restored(exercises, W, 3)
    exact(got[1, 3:6], W[1, 3:6], "a group of equal negative values")
    exact(got[2, :3], W[2, :3], "a group of zeros")
    exact(got[3], W[3], "a row of equal values")
    holds(torch.isfinite(step) & (step > 0), "Every step is positive and finite.")
    close(restored(exercises, W, 1)[0], W, "every weight a group of its own")


@exercise("quantize_int4")
def test_int4_of_tiny_weights(exercises, rng):
    """Nothing is added to a step: tiny groups keep their shape."""
    W = rng.normal(3, 8) * 1e-15
    got, step = restored(exercises, W, 4)
    holds(((got - W).abs() <= step * (0.5 + 1e-9)).all(), "weights near 1e-15: the error is at most half a step.")
    holds(step < 1e-14, "weights near 1e-15: a step is a 15th of the spread.")


@exercise("quantize_int4")
def test_int4_keeps_dtype_and_input(exercises, rng):
    """scale and low have the dtype of W; a group needs a column."""
    for dtype in (torch.float32, DOUBLE):
        W = rng.normal(3, 10).to(dtype)
        packed, scale, low = pure(exercises.quantize_int4, W, 4)
        exact((packed.dtype, scale.dtype, low.dtype), (torch.uint8, dtype, dtype), f"the dtypes for W of {dtype}")
    for group in (0, -3):
        with pytest.raises(ValueError):
            exercises.quantize_int4(rng.normal(2, 4), group)


# -------------------------------------------------------------------------------------------------------- int8_matmul


def some_integers(rng, out, columns):
    return rng.integers(-127, 128, out, columns).to(torch.int8), rng.uniform(out) + 0.1


def by_integers(x, q, scale, threshold=None):
    """The product by Python's own integers, entry by entry."""
    rows, out = x.tolist(), torch.zeros(len(x), len(q), dtype=DOUBLE)
    outlier = [threshold is not None and max(map(abs, column)) > threshold for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        kept = [0.0 if far else value for value, far in zip(row, outlier, strict=True)]
        s = max(map(abs, kept)) / 127 or 1.0
        whole = [round(value / s) for value in kept]
        for o, weights in enumerate(q.tolist()):
            total = sum(a * b for a, b in zip(whole, weights, strict=True))
            apart = sum(value * w for value, w, far in zip(row, weights, outlier, strict=True) if far)
            out[i, o] = (total * s + apart) * scale[o].item()
    return out


@exercise("int8_matmul", weight=3)
def test_int8_product_of_integers(exercises, rng):
    """Rows of x become integers of their own step, and the rest is integers."""
    for N, columns, out in ((3, 5, 4), (1, 30, 2), (6, 1, 3)):
        x = rng.normal(N, columns) * 3.0 ** torch.arange(N)[:, None]
        q, scale = some_integers(rng, out, columns)
        got = exercises.int8_matmul(x, q, scale)
        close(got, by_integers(x, q, scale), f"x ({N}, {columns}) times W ({out}, {columns}) transposed")


@exercise("int8_matmul")
def test_int8_product_is_near_the_real_one(exercises, rng):
    """Each output misses the product in floats by no more than rounding may."""
    x = rng.normal(4, 60)
    q, scale = some_integers(rng, 5, 60)
    W = q.double() * scale[:, None]
    half = x.abs().amax(1, keepdim=True) / 127 / 2
    off = (exercises.int8_matmul(x, q, scale) - x @ W.T).abs()
    holds(
        (off <= half * W.abs().sum(1) * (1 + 1e-9)).all(), "The error is at most half a step of x times the sum of |W|."
    )


@exercise("int8_matmul", weight=2)
def test_int8_sums_do_not_overflow(exercises):
    """Sums of thousands of products are exact."""
    for columns in (3, 300, 5000):
        q = torch.full((3, columns), 127, dtype=torch.int8)
        q[1, 0], q[2] = 126, -127
        x = torch.ones(2, columns, dtype=DOUBLE)
        x[1] = -0.5
        scale = torch.tensor([1.0, 2.0, 0.5], dtype=DOUBLE)
        expected = x[:, :1] * q.double().sum(1) * scale  # every input is 127 or -127 steps of |x| / 127
        close(exercises.int8_matmul(x, q, scale), expected, f"sums of {columns} products of 127 and 127")


@exercise("int8_matmul", weight=2)
def test_int8_rows_do_not_disturb_each_other(exercises, rng):
    """Without a threshold a row is treated alike, alone or beside a huge one."""
    x = rng.normal(4, 6)
    q, scale = some_integers(rng, 3, 6)
    got = exercises.int8_matmul(x * torch.tensor([[1.0], [1024.0], [2.0**-20], [1.0]]), q, scale)
    close(got[0], by_integers(x, q, scale)[0], "row 0, when row 1 is a thousand times larger")
    alone = torch.cat([exercises.int8_matmul(x[i : i + 1], q, scale) for i in range(4)])
    close(got[1:3] / torch.tensor([[1024.0], [2.0**-20]]), alone[1:3], "rows multiplied by a factor, divided by it")


@exercise("int8_matmul")
def test_int8_rows_of_zeros(exercises, rng):
    """A row of zeros gives zeros and no NaN."""
    x = rng.normal(3, 5)
    x[1] = 0
    q, scale = some_integers(rng, 4, 5)
    for threshold in (None, 100.0, 0.0):
        got = exercises.int8_matmul(x, q, scale, threshold)
        exact(got[1], torch.zeros(4, dtype=DOUBLE), f"the row of zeros, threshold {threshold}")
        close(got, by_integers(x, q, scale, threshold), f"x with a row of zeros, threshold {threshold}")


def with_outliers(rng, N=6, columns=10, places=(3, 7)):
    """Inputs in which a few columns are far too large in some rows only."""
    x = rng.normal(N, columns).clamp(-2, 2)
    for i, j in enumerate(places):
        x[i, j], x[i + 2, j] = -40.0 - i, 0.25
    return x


@exercise("int8_matmul", weight=3)
def test_int8_outlier_columns_go_another_way(exercises, rng):
    """A column with one large entry, of either sign, is an outlier for all rows."""
    x = with_outliers(rng)
    q, scale = some_integers(rng, 4, 10)
    for threshold in (6.0, 40.5, 1.0):
        got = pure(exercises.int8_matmul, x, q, scale, outlier_threshold=threshold)
        close(got, by_integers(x, q, scale, threshold), f"x with outliers in two columns, threshold {threshold}")
    close(exercises.int8_matmul(x, q, scale, None), by_integers(x, q, scale), "x with outliers, threshold None")


@exercise("int8_matmul")
def test_int8_split_lowers_the_error(exercises, rng):
    """With one column of outliers the split divides the error by ten or more."""
    x = rng.normal(8, 64)
    x[:, 5] = 80 * (1 + rng.uniform(8))
    q, scale = some_integers(rng, 16, 64)
    real = x @ (q.double() * scale[:, None]).T
    whole, split = ((exercises.int8_matmul(x, q, scale, t) - real).square().mean().sqrt() for t in (None, 6.0))
    holds(split > 0, "Ordinary columns are quantized, so some error remains.")
    holds(10 * split < whole, f"The error falls from {whole:.4g} by a factor of ten or more, but is {split:.4g}.")


@exercise("int8_matmul")
def test_int8_threshold_of_zero_is_exact(exercises, rng):
    """With threshold 0 the whole product is in floating point."""
    x = with_outliers(rng)
    x[:, 2] = 0
    q, scale = some_integers(rng, 5, 10)
    close(exercises.int8_matmul(x, q, scale, 0), x @ (q.double() * scale[:, None]).T, "the product with threshold 0")


@exercise("int8_matmul")
def test_int8_at_the_threshold(exercises, rng):
    """A column whose largest magnitude equals the threshold is no outlier."""
    x = rng.normal(3, 6).clamp(-2, 2)
    x[1, 4] = -8.0
    q, scale = some_integers(rng, 4, 6)
    close(exercises.int8_matmul(x, q, scale, 8.0), by_integers(x, q, scale), "largest magnitude 8, threshold 8")
    expected = by_integers(x, q, scale, 7.999)
    close(exercises.int8_matmul(x, q, scale, 7.999), expected, "largest magnitude 8, threshold 7.999")


@exercise("int8_matmul")
def test_int8_product_in_float32(exercises, rng):
    """The result has the dtype of x."""
    x = with_outliers(rng).float()
    q, scale = some_integers(rng, 4, 10)
    got = exercises.int8_matmul(x, q, scale.float(), 6.0)
    W = q.float() * scale.float()[:, None]
    # at most half a step of 2 / 127 for each of ten columns
    roughly(got, x @ W.T, (W.abs().sum(1).max() * 1.01 / 127).item(), "the float32 product with threshold 6")


# ------------------------------------------------------------------------------ speculative_accept, speculative_step


def distribution(rng, V, zeros=()):
    p = (1.5 * rng.normal(V)).exp()
    p[list(zeros)] = 0
    return p / p.sum()


@exercise("speculative_accept", weight=2)
def test_residual_is_what_the_draft_lacks(exercises, rng):
    """A rejection draws from max(p - q, 0), normalised, and from it alone."""
    for V, dtype in ((4, DOUBLE), (9, DOUBLE), (7, torch.float32)):
        p, q = distribution(rng, V, (1,)).to(dtype), distribution(rng, V, (0,)).to(dtype)
        x = int((q - p).argmax())
        resample = counting(lambda residual: 7)
        got = pure(exercises.speculative_accept, p, q, x, 0.999999, resample)
        exact((got, resample.calls), (7, 1), "what resample gave, and how often it was called")
        missing = [max(a - b, 0.0) for a, b in zip(p.tolist(), q.tolist(), strict=True)]
        expected = torch.tensor([m / sum(missing) for m in missing], dtype=dtype)
        close(resample.arguments[0][0], expected, f"the residual of {V} {dtype} probabilities")


@driver
def shares_out(module, p, q, us):
    """Each drafted token with its probability, each u of the grid: the mass of every token that comes out."""
    out = [0.0] * len(p)
    for x in range(len(q)):
        if q[x] == 0:
            continue
        for u in us:
            rest = []
            token = module.speculative_accept(p, q, x, u, lambda residual, rest=rest: rest.append(residual) or -1)
            mass = float(q[x]) / len(us)
            if not rest:
                out[token] += mass
            else:
                out = [a + mass * float(r) for a, r in zip(out, rest[0], strict=True)]
    return out


@exercise("speculative_accept", weight=3)
def test_acceptance_and_residual_add_up_to_the_target(exercises, rng):
    """Integrated over drafts and u, tokens come out with the target's shares."""
    us = [(i + 0.5) / 400 for i in range(400)]
    for V, p_zeros, q_zeros in ((4, (), ()), (5, (1,), (3,))):
        p, q = distribution(rng, V, p_zeros), distribution(rng, V, q_zeros)
        got = torch.tensor(exercises.run(shares_out, p, q, us), dtype=DOUBLE)
        # a grid of 400 places each of the V thresholds to within 1/800; the shares themselves are about 1/V
        roughly(got, p, 2e-3, f"the shares of {V} tokens")


@exercise("speculative_accept")
def test_acceptance_at_the_threshold(exercises):
    """u below p[x] / q[x] accepts, equal to it rejects; what p forbids goes."""
    p, q = torch.tensor([0.125, 0.625, 0.0, 0.25]), torch.tensor([0.25, 0.25, 0.25, 0.25])
    resample = counting(lambda residual: -5)
    cases = [(0, 0.4999), (0, 0.5), (0, 0.75), (1, 0.9999), (2, 0.0), (3, 0.9999), (0, 0.0)]
    got = [exercises.speculative_accept(p, q, x, u, resample) for x, u in cases]
    exact(got, [0, -5, -5, 1, -5, 3, 0], f"speculative_accept for (x, u) in {cases}")
    exact(resample.calls, 3, "calls of resample, one for each rejection")


@exercise("speculative_accept")
def test_equal_distributions_accept_always(exercises, rng):
    """With p = q every draft is accepted and nothing is drawn again."""
    p = distribution(rng, 6)
    resample = counting(lambda residual: -5)
    for x in range(6):
        exact(exercises.speculative_accept(p, p.clone(), x, 0.99999999, resample), x, f"the fate of draft {x}")
    exact(resample.calls, 0, "calls of resample")


@driver
def texts(module, P, Q, start, gamma, times, length, seed):
    """Write `length` tokens step by step, many times over: how often each text came, and the lengths of first steps."""
    import random

    import torch

    numbers, tally, lengths = random.Random(seed), {}, {}
    for _ in range(times):
        ids = [start]
        while len(ids) <= length:
            new = module.speculative_step(
                lambda ids: P[torch.tensor(ids)], lambda ids: Q[torch.tensor(ids)], list(ids), gamma, numbers.random
            )
            if len(ids) == 1:
                lengths[len(new)] = lengths.get(len(new), 0) + 1
            ids += new
        text = tuple(ids[1 : length + 1])
        tally[text] = tally.get(text, 0) + 1
    return tally, lengths


def chains(rng, V):
    """Target and draft: next-token probabilities given the last token, clearly different from each other."""
    P = torch.stack([distribution(rng, V) for _ in range(V)])
    P = 0.7 * P + 0.3 / V
    return P, P.roll(1, 1)


@exercise("speculative_accept", weight=4)
@pytest.mark.parametrize("gamma", [2, 1])
def test_texts_are_those_of_the_target(exercises, rng, gamma):
    """Texts of three tokens come as often as the target alone would write them."""
    P, Q = chains(rng, 3)
    tally, _ = exercises.run(texts, P, Q, 1, gamma, 1600, 3, rng.seed)
    all_texts = list(itertools.product(range(3), repeat=3))
    shares = [P[1, a] * P[a, b] * P[b, c] for a, b, c in all_texts]
    same_distribution([tally.get(t, 0) for t in all_texts], shares, f"1600 texts of three tokens, gamma={gamma}")


@exercise("speculative_accept")
def test_step_lengths_follow_the_overlap(exercises, rng):
    """A draft survives as often as p and q overlap: 1 minus their distance."""
    p, q = distribution(rng, 4), distribution(rng, 4)
    p, q = 0.5 * p + 0.125, 0.5 * q + 0.125
    alpha = torch.minimum(p, q).sum().item()
    _, lengths = exercises.run(texts, p.expand(4, 4), q.expand(4, 4), 2, 3, 1500, 1, rng.seed)
    shares = [(1 - alpha) * alpha**i for i in range(3)] + [alpha**3]
    same_distribution([lengths.get(n, 0) for n in (1, 2, 3, 4)], shares, "the lengths of 1500 steps with gamma=3")


def sure(table):
    """A model that is certain of the next token: table[last token]."""
    return lambda ids: F.one_hot(torch.tensor([table[i] for i in ids]), len(table)).double()


@exercise("speculative_accept", weight=2)
def test_step_keeps_drafts_up_to_the_first_mistake(exercises):
    """Of a sure target and a draft that errs after 3: drafts, then the correction."""
    right, wrong = [1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 0, 5, 6, 0]
    ids, u = [6, 0, 1], lambda: 0.5
    exact(exercises.speculative_step(sure(right), sure(wrong), ids, 4, u), [2, 3, 4], "a step with 4 drafts, one wrong")
    exact(
        exercises.speculative_step(sure(right), sure(wrong), ids, 2, u), [2, 3, 4], "a step with 2 drafts, both right"
    )
    exact(
        exercises.speculative_step(sure(right), sure(right), ids, 4, u), [2, 3, 4, 5, 6], "a step with 4 right drafts"
    )
    exact(exercises.speculative_step(sure(right), sure(wrong), [3], 3, u), [4], "a step whose first draft is wrong")


@exercise("speculative_accept", weight=2)
def test_step_calls_the_target_once(exercises):
    """gamma calls of the draft on the growing text, one of the target on all."""
    right, wrong = [1, 2, 3, 4, 5, 6, 0], [1, 2, 3, 0, 5, 6, 0]
    for gamma, drafted in ((4, [1, 2, 3, 0]), (1, [1]), (0, [])):
        target, draft, text = counting(sure(right)), counting(sure(wrong)), [5, 0]
        pure(exercises.speculative_step, target, draft, text, gamma, lambda: 0.25)
        exact([list(a[0]) for a in target.arguments], [text + drafted], f"what the target was given, gamma={gamma}")
        expected = [text + drafted[:i] for i in range(gamma)]
        exact([list(a[0]) for a in draft.arguments], expected, f"what the draft was given, gamma={gamma}")


@exercise("speculative_accept")
def test_step_without_drafts_is_sampling(exercises, rng):
    """gamma = 0 gives one token of the target; a negative gamma is an error."""
    P, Q = chains(rng, 4)
    tally, lengths = exercises.run(texts, P, Q, 2, 0, 600, 1, rng.seed)
    exact(lengths, {1: 600}, "the lengths of 600 steps with gamma=0")
    same_distribution([tally.get((t,), 0) for t in range(4)], P[2], "600 tokens with gamma=0")
    with pytest.raises(ValueError):
        exercises.speculative_step(sure([1, 0]), sure([1, 0]), [0], -1, lambda: 0.5)


@exercise("speculative_accept")
def test_step_is_determined_by_its_numbers(exercises, rng):
    """The same uniform numbers give the same tokens."""
    P, Q = chains(rng, 4)
    once, again = (exercises.run(texts, P, Q, 0, 3, 40, 5, rng.seed) for _ in range(2))
    exact(again, once, "40 texts, written a second time with the same numbers")


# ------------------------------------------------------------------------------------------ expected_tokens, best_gamma


def mean_by_enumeration(alpha, gamma):
    """The mean over all 2^gamma patterns of accepted and rejected."""
    mean = 0.0
    for pattern in itertools.product((True, False), repeat=gamma):
        length = next((i for i, kept in enumerate(pattern) if not kept), gamma) + 1
        mean += length * math.prod(alpha if kept else 1 - alpha for kept in pattern)
    return mean


@exercise("expected_tokens", weight=3)
def test_expected_tokens_by_enumeration(exercises):
    """It is the mean over all patterns of accepted and rejected drafts."""
    for alpha, gamma in ((0.7, 3), (0.25, 5), (0.95, 8), (0.5, 1), (0.6, 0)):
        got = exercises.expected_tokens(alpha, gamma)
        close(got, mean_by_enumeration(alpha, gamma), f"expected_tokens({alpha}, {gamma})")


@exercise("expected_tokens", weight=2)
def test_expected_tokens_at_the_ends(exercises):
    """Never accepted gives 1 token, always accepted gives gamma + 1."""
    for gamma in (0, 1, 4, 9):
        close(exercises.expected_tokens(0.0, gamma), 1.0, f"expected_tokens(0.0, {gamma})")
        close(exercises.expected_tokens(1.0, gamma), float(gamma + 1), f"expected_tokens(1.0, {gamma})")
    close(exercises.expected_tokens(1, 2), 3.0, "expected_tokens(1, 2) with an int")


@exercise("expected_tokens")
def test_expected_tokens_near_one(exercises):
    """The result keeps its digits as alpha comes near 1."""
    for alpha in (0.9995, 1 - 1e-5, 1 - 1e-7, 1 - 1e-9, 1 - 1e-12, 1 - 2**-53):
        exactly = sum(Fraction(alpha) ** i for i in range(6))
        # a closed form with a case for 1 is off by up to 1e-8 here
        roughly(exercises.expected_tokens(alpha, 5), float(exactly), 1e-6, f"expected_tokens({alpha!r}, 5)")


@exercise("expected_tokens")
def test_expected_tokens_refuses_the_impossible(exercises):
    """A probability outside [0, 1] or a negative count raises ValueError."""
    for alpha, gamma in ((-0.1, 3), (1.01, 3), (0.5, -1)):
        with pytest.raises(ValueError):
            exercises.expected_tokens(alpha, gamma)
    for alpha, cost, most in ((1.5, 0.1, 3), (-0.5, 0.1, 3), (0.5, -0.1, 3), (0.5, 0.1, -1)):
        with pytest.raises(ValueError):
            exercises.best_gamma(alpha, cost, most)


@exercise("expected_tokens", weight=3)
def test_best_gamma_by_exact_fractions(exercises):
    """It brings the most tokens per unit of time among 0 ... max_gamma."""
    for alpha, cost, most in itertools.product((0.3, 0.55, 0.8, 0.95), (0.02, 0.1, 0.4, 0.7), (3, 12)):
        a, c = Fraction(str(alpha)), Fraction(str(cost))
        speed = [sum(a**i for i in range(g + 1)) / (g * c + 1) for g in range(most + 1)]
        ranked = sorted(speed)
        if ranked[-1] - ranked[-2] > 1e-9:  # floats cannot tell a nearer race
            got = exercises.best_gamma(alpha, cost, most)
            exact(got, speed.index(ranked[-1]), f"best_gamma({alpha}, {cost}, {most})")


@exercise("expected_tokens", weight=2)
def test_best_gamma_at_the_ends(exercises):
    """Drafting pays when alpha exceeds the cost; of equals, the least wins."""
    cases = {
        (0.5, 0.5, 6): 0,
        (0.9, 1.0, 6): 0,
        (0.3, 2.0, 6): 0,
        (1.0, 0.25, 6): 6,
        (0.75, 0.0, 6): 6,
        (1.0, 0.0, 5): 5,
        (0.0, 0.0, 6): 0,
        (1.0, 1.0, 6): 0,
        (0.9, 0.1, 0): 0,
        (0.5, 0.25, 1): 1,
    }
    got = {case: exercises.best_gamma(*case) for case in cases}
    exact(got, cases, "best_gamma(alpha, cost_ratio, max_gamma)")


# -------------------------------------------------------------------------------------- online_softmax, flash_attention


def cut(scores, v, sizes):
    """Blocks of the given sizes."""
    return list(zip(scores.split(sizes, -1), v.split(sizes, -2), strict=True))


@exercise("flash_attention", weight=2)
def test_online_softmax_of_uneven_blocks(exercises, rng):
    """Blocks of any sizes give the softmax of all scores, times all values."""
    for shape, sizes in (((5,), [3, 1, 4]), ((2, 3, 4), [2, 5]), ((3, 6), [1, 1, 1, 1]), ((4,), [7])):
        scores, v = 2 * rng.normal(*shape, sum(sizes)), rng.normal(*shape[:-1], sum(sizes), 3)
        got = exercises.online_softmax(iter(cut(scores, v, sizes)))
        expected = (scores.softmax(-1) @ v, scores.logsumexp(-1))
        close(got, expected, f"scores {(*shape, sum(sizes))} in blocks of {sizes}")


@exercise("flash_attention")
@settings(max_examples=20)
@given(seed=seeds, order=st.permutations(range(4)))
def test_online_softmax_in_any_order(exercises, seed, order):
    """The order of the blocks does not matter, rising or falling."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 9, generator=generator, dtype=DOUBLE) + 40 * torch.arange(9) / 9
    v = torch.randn(9, 2, generator=generator, dtype=DOUBLE)
    blocks = cut(scores, v, [2, 1, 4, 2])
    got = exercises.online_softmax([blocks[i] for i in order])
    close(got, (scores.softmax(-1) @ v, scores.logsumexp(-1)), f"four blocks in the order {order}")


@exercise("flash_attention")
def test_online_softmax_of_large_scores(exercises, rng):
    """Scores of any finite size give finite results."""
    # scores of size 1e3 are rounded by 6e-5 in float32, of size 1e6 by 1e-10 in float64, their exponentials as much
    for dtype, big, within in ((torch.float32, 1e3, 1e-3), (DOUBLE, 1e3, 1e-10), (DOUBLE, 1e6, 1e-8)):
        scores = torch.tensor([[1, -1, 0, 0.5, 1], [-1, -1, -2, -3, -1]], dtype=dtype) * big
        scores = scores + rng.uniform(2, 5).to(dtype)
        v = rng.normal(5, 3).to(dtype)
        for sizes in ([2, 3], [1, 1, 1, 1, 1]):
            o, lse = exercises.online_softmax(cut(scores, v, sizes))
            roughly(o, scores.softmax(-1) @ v, within, f"o of {dtype} scores of size {big:g} in blocks of {sizes}")
            close(lse / big, scores.logsumexp(-1) / big, f"lse of {dtype} scores of size {big:g}, over {big:g}")


@exercise("flash_attention", weight=2)
def test_online_softmax_before_anything_is_seen(exercises, rng):
    """Rows that are -inf in the first blocks, or in all, do not become NaN."""
    scores, v = rng.normal(4, 8), rng.normal(8, 3)
    scores[0, :3] = scores[1, :6] = scores[2] = -math.inf
    scores[3, 4:] = -math.inf
    for sizes in ([3, 3, 2], [2, 6], [8], [1] * 8):
        o, lse = exercises.online_softmax(cut(scores, v, sizes))
        exact((o[2], lse[2].item()), (torch.zeros(3, dtype=DOUBLE), -math.inf), f"the blind row, blocks of {sizes}")
        seen = [0, 1, 3]
        close(o[seen], scores[seen].softmax(-1) @ v, f"o of rows that see something, blocks of {sizes}")
        close(lse[seen], scores[seen].logsumexp(-1), f"lse of rows that see something, blocks of {sizes}")


@exercise("flash_attention")
def test_online_softmax_needs_a_block(exercises):
    """No block at all raises ValueError."""
    for nothing in ([], iter(())):
        with pytest.raises(ValueError):
            exercises.online_softmax(nothing)


@driver
def streamed(module, scores, v, size):
    """Feed blocks from a generator: the result, the most blocks still held, the largest tensor that was made."""
    import weakref

    from torch.utils._python_dispatch import TorchDispatchMode

    seen, held, largest = [], [0], [0]

    class Watch(TorchDispatchMode):
        _should_skip_dynamo = classmethod(lambda cls: False)  # or the first operation imports the compiler: a second

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for x in out if isinstance(out, (tuple, list)) else [out]:
                largest[0] = max(largest[0], x.numel() if hasattr(x, "numel") else 0)
            return out

    def blocks():
        for start in range(0, scores.shape[-1], size):
            block = scores[..., start : start + size].clone()
            seen.append(weakref.ref(block))
            yield block, v[..., start : start + size, :]
            del block
            held[0] = max(held[0], sum(one() is not None for one in seen))

    with Watch():
        o, lse = module.online_softmax(blocks())
    return o, lse, held[0], largest[0]


@exercise("flash_attention", weight=2)
def test_online_softmax_lets_blocks_go(exercises, rng):
    """Blocks are used as they come: none is kept, nothing is joined."""
    scores, v = rng.normal(6, 200), rng.normal(200, 4)
    o, lse, held, largest = exercises.run(streamed, scores, v, 10)
    close((o, lse), (scores.softmax(-1) @ v, scores.logsumexp(-1)), "20 blocks from a generator")
    holds(largest <= 60, f"No tensor is larger than a block of 60 scores, but one of {largest} numbers was made.")
    holds(held <= 3, f"Blocks are let go after use, but {held} of them were still held at a time.")


def visible(T, S):
    """Causal mask by its definition: the queries are the last T of S positions."""
    return torch.tensor([[j <= S - T + i for j in range(S)] for i in range(T)])


def attention(q, k, v, causal=False):
    """Attention and log-sum-exp with all scores at once."""
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if causal:
        scores = scores.masked_fill(~visible(q.shape[2], k.shape[2]), -math.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def qkv(rng, B=2, H=3, T=5, S=7, hd=4, hv=6):
    return 1.2 * rng.normal(B, H, T, hd), rng.normal(B, H, S, hd), rng.normal(B, H, S, hv)


@exercise("flash_attention", weight=3)
def test_flash_agrees_with_full_attention(exercises, rng):
    """Every tile size gives the attention and the lse of the whole table."""
    q, k, v = qkv(rng)
    for block in (2, 3, 7, 1, 50):
        got = exercises.flash_attention(q, k, v, block)
        close(got, attention(q, k, v), f"flash_attention of 5 queries and 7 keys, tiles of {block}")
    q, k, v = qkv(rng, B=1, H=2, T=3, S=12, hd=5, hv=1)
    close(exercises.flash_attention(q, k, v, block=4), attention(q, k, v), "12 keys in tiles of 4")


@exercise("flash_attention", weight=3)
def test_flash_with_a_causal_mask(exercises, rng):
    """Query i sees the first S - T + i + 1 keys, in every tile."""
    for T, S, block in ((6, 6, 4), (3, 8, 3), (1, 5, 2), (7, 7, 2), (5, 9, 20)):
        q, k, v = qkv(rng, T=T, S=S)
        got = exercises.flash_attention(q, k, v, block, causal=True)
        close(got, attention(q, k, v, causal=True), f"causal flash_attention, T={T}, S={S}, tiles of {block}")


@exercise("flash_attention", weight=2)
def test_flash_of_queries_that_see_nothing(exercises, rng):
    """With more queries than keys the first ones get zeros and lse -inf."""
    q, k, v = qkv(rng, T=8, S=5)
    for block in (2, 5, 1):
        o, lse = exercises.flash_attention(q, k, v, block, causal=True)
        exact(o[:, :, :3], torch.zeros(2, 3, 3, 6, dtype=DOUBLE), f"o of the blind queries, tiles of {block}")
        exact(lse[:, :, :3], torch.full((2, 3, 3), -math.inf, dtype=DOUBLE), "lse of the blind queries")
        expected = attention(q[:, :, 3:], k, v, causal=True)
        close((o[:, :, 3:], lse[:, :, 3:]), expected, f"the queries that see something, tiles of {block}")


@exercise("flash_attention")
def test_flash_survives_large_scores(exercises, rng):
    """Scores of plus and minus 60 and more give finite and right results."""
    q, k, v = (x.float() for x in qkv(rng, hd=9))
    k[:, :, 2], k[:, :, 5] = 3 * k[:, :, 2], -k[:, :, 2]
    q = q * (60 * 3 / (q @ k.mT).abs().amax())
    for causal in (False, True):
        o, lse = exercises.flash_attention(q, k, v, 2, causal=causal)
        expected = attention(q.double(), k.double(), v.double(), causal)
        # float32 rounds a score of 60 by 4e-6 and the exponential by the same share
        roughly(o.double(), expected[0], 1e-4, f"o with scores up to 60, causal={causal}")
        roughly(lse.double(), expected[1], 1e-4, f"lse with scores up to 60, causal={causal}")


@driver
def watched(module, q, k, v, block, causal):
    """Run flash_attention and note the size of every tensor that an operation made, the largest first."""
    from torch.utils._python_dispatch import TorchDispatchMode

    sizes = []

    class Watch(TorchDispatchMode):
        _should_skip_dynamo = classmethod(lambda cls: False)  # or the first operation imports the compiler: a second

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (out if isinstance(out, (tuple, list)) else [out]) if hasattr(x, "numel"))
            return out

    with Watch():
        o, lse = module.flash_attention(q, k, v, block, causal)
    return o, lse, sorted(sizes, reverse=True)[:20]


@exercise("flash_attention", weight=4)
@pytest.mark.parametrize("causal", [False, True])
def test_flash_memory_grows_with_the_length(exercises, rng, causal):
    """No tensor on the way is larger than queries times one tile."""
    for T, S, block in ((60, 70, 8), (240, 280, 8)):
        q, k, v = qkv(rng, B=1, H=2, T=T, S=S, hd=4, hv=6)
        o, lse, sizes = exercises.run(watched, q, k, v, block, causal)
        limit = 2 * S * block
        holds(sizes[0] <= limit, f"T={T}, S={S}, tiles of {block}: a tensor of {sizes[0]} numbers, at most {limit}.")
        close((o, lse), attention(q, k, v, causal), f"flash_attention of {T} queries and {S} keys")


@exercise("flash_attention")
def test_flash_keeps_dtype_and_inputs(exercises, rng):
    """The results have the dtype of q; inputs stay; a tile needs a key."""
    for dtype in (torch.float32, DOUBLE):
        q, k, v = (x.to(dtype) for x in qkv(rng))
        got = pure(exercises.flash_attention, q, k, v, 3, causal=False)
        close(got, attention(q, k, v), f"flash_attention of {dtype}")
    for block in (0, -2):
        with pytest.raises(ValueError):
            exercises.flash_attention(*qkv(rng), block)


# ------------------------------------------------------------------------------------------------------------- PagedKV


@exercise("PagedKV", weight=2)
def test_pages_give_back_each_sequence(exercises, rng):
    """Interleaved sequences come back whole, in order, each its own."""
    a, b = rng.normal(11, 3), rng.normal(7, 3)
    cache = exercises.PagedKV(6, 4, 3, dtype=DOUBLE)
    first, second = cache.alloc(), cache.alloc()
    done = {first: 0, second: 0}
    for seq, x, n in ((first, a, 2), (second, b, 5), (first, a, 3), (second, b, 1), (first, a, 6), (second, b, 1)):
        cache.append(seq, x[done[seq] : done[seq] + n])
        done[seq] += n
        close(cache.gather(seq), x[: done[seq]], f"gather after {done[seq]} tokens")
    close((cache.gather(first), cache.gather(second)), (a, b), "both sequences at the end")
    exact(cache.n_free, 6 - 3 - 2, "free blocks with sequences of 11 and 7 tokens in blocks of 4")


@exercise("PagedKV")
def test_pages_are_taken_when_needed(exercises, rng):
    """A sequence of n tokens holds ceil(n / block_size) blocks, no more."""
    for size in (3, 1, 5):
        cache = exercises.PagedKV(20, size, 2)
        seq = cache.alloc()
        exact(cache.n_free, 20, "free blocks after alloc alone")
        free = []
        for _ in range(10):
            cache.append(seq, torch.zeros(1, 2))
            free.append(cache.n_free)
        exact(free, [20 - -(-n // size) for n in range(1, 11)], f"free blocks after 1 ... 10 tokens, blocks of {size}")


@driver
def filled(module, n_blocks, size, lengths):
    """Append so many tokens to a new sequence each, in two pieces; give the blocks that are used."""
    import torch

    cache = module.PagedKV(n_blocks, size)
    for n in lengths:
        seq = cache.alloc()
        cache.append(seq, torch.zeros(n // 3, 1))
        cache.append(seq, torch.zeros(n - n // 3, 1))
    return n_blocks - cache.n_free


@exercise("PagedKV")
def test_pages_waste_less_than_a_block_each(exercises, rng):
    """Room beyond the tokens is below one block a sequence, half of one in mean."""
    lengths = [min(512, 1 + int(rng.random.lognormvariate(3.5, 1))) for _ in range(60)]
    for size in (4, 16):
        used = exercises.run(filled, 5000, size, lengths)
        waste = used * size - sum(lengths)
        holds(0 <= waste < 60 * size, f"{waste} places are empty in {used} blocks of {size} for 60 sequences.")
        holds(used * size < 60 * 512 / 4, "Reserving 512 places for each would take at least four times the memory.")


@exercise("PagedKV", weight=2)
def test_pages_fork_shares_and_copies_on_write(exercises, rng):
    """A fork takes no block; who writes first into a shared one gets a copy."""
    x, y, z = rng.normal(6, 2), rng.normal(3, 2), rng.normal(1, 2)
    for writer in ("child", "parent"):
        cache = exercises.PagedKV(8, 4, 2, dtype=DOUBLE)
        parent = cache.alloc()
        cache.append(parent, x)
        child = cache.fork(parent)
        exact(cache.n_free, 6, "free blocks after a fork")
        one, other = (child, parent) if writer == "child" else (parent, child)
        cache.append(one, y)
        close(cache.gather(other), x, f"what the other holds after the {writer} wrote")
        close(cache.gather(one), torch.cat([x, y]), f"what the {writer} holds after it wrote")
        exact(cache.n_free, 4, "free blocks: one for the copy, one for the ninth token")
        cache.append(other, z)
        close(cache.gather(one), torch.cat([x, y]), "what the first writer holds after the other wrote as well")
        close(cache.gather(other), torch.cat([x, z]), "what the second writer holds")
        exact(cache.n_free, 4, "free blocks: the second writer has the old block for itself and needs no copy")


@exercise("PagedKV")
def test_pages_full_blocks_need_no_copy(exercises, rng):
    """Forked at a block's end, both go on without any copy."""
    x, y = rng.normal(8, 2), rng.normal(2, 2)
    cache = exercises.PagedKV(5, 4, 2, dtype=DOUBLE)
    parent = cache.alloc()
    cache.append(parent, x)
    child = cache.fork(parent)
    cache.append(child, y)
    exact(cache.n_free, 2, "free blocks after the child's new block")
    cache.append(parent, -y)
    exact(cache.n_free, 1, "free blocks after the parent's new block")
    close((cache.gather(parent), cache.gather(child)), (torch.cat([x, -y]), torch.cat([x, y])), "parent and child")


@exercise("PagedKV")
def test_pages_are_free_when_the_last_owner_goes(exercises, rng):
    """Shared blocks survive until nobody holds them."""
    x = rng.normal(7, 2)
    cache = exercises.PagedKV(4, 3, 2, dtype=DOUBLE)
    a = cache.alloc()
    cache.append(a, x)
    b = cache.fork(a)
    c = cache.fork(b)
    cache.free(a)
    exact(cache.n_free, 1, "free blocks while two of three owners remain")
    other = cache.alloc()
    cache.append(other, torch.ones(3, 2))
    close((cache.gather(b), cache.gather(c)), (x, x), "what the remaining owners hold")
    cache.free(b)
    cache.append(c, x[:2])
    exact(cache.n_free, 0, "free blocks after the only owner filled its last block: no copy was made")
    close(cache.gather(c), torch.cat([x, x[:2]]), "what the last owner holds")
    cache.free(c)
    exact(cache.n_free, 3, "free blocks after the last owner went")


@exercise("PagedKV", weight=2)
def test_pages_run_out_without_harm(exercises, rng):
    """What does not fit raises ValueError and changes nothing."""
    x = rng.normal(5, 2)
    cache = exercises.PagedKV(3, 4, 2, dtype=DOUBLE)
    a = cache.alloc()
    cache.append(a, x)
    for n in (8, 9, 50):
        with pytest.raises(ValueError):
            cache.append(a, rng.normal(n, 2))
        exact(cache.n_free, 1, f"free blocks after {n} tokens did not fit")
        close(cache.gather(a), x, f"the sequence after {n} tokens did not fit")
    b = cache.fork(a)
    with pytest.raises(ValueError):
        cache.append(b, rng.normal(4, 2))  # one block for the copy and one for the ninth token
    exact(cache.n_free, 1, "free blocks after a copy and a new block did not fit")
    close((cache.gather(a), cache.gather(b)), (x, x), "both owners after that")
    cache.append(b, x[:3])
    exact(cache.n_free, 0, "free blocks after what did fit")
    close((cache.gather(a), cache.gather(b)), (x, torch.cat([x, x[:3]])), "both owners at the end")


@exercise("PagedKV")
def test_pages_know_their_sequences(exercises):
    """A sequence that is gone, or never was, is a KeyError."""
    cache = exercises.PagedKV(4, 2)
    a, b = cache.alloc(), cache.alloc()
    cache.append(a, torch.ones(3, 1))
    cache.free(a)
    for gone in (a, 12345):
        for call in (cache.gather, cache.fork, cache.free, lambda seq: cache.append(seq, torch.ones(1, 1))):
            with pytest.raises(KeyError):
                call(gone)
    exact(cache.n_free, 4, "free blocks after a second free of the same sequence")
    c = cache.alloc()
    holds(len({a, b, c}) == 3, "A new sequence gets a number that was never used before.")


@exercise("PagedKV")
def test_pages_of_the_wrong_shape(exercises):
    """Vectors of another width and pools of no size raise ValueError."""
    cache = exercises.PagedKV(4, 2, 3)
    a = cache.alloc()
    cache.append(a, torch.ones(1, 3))
    for x in (torch.ones(2, 4), torch.ones(2, 1), torch.ones(3), torch.ones(1, 1, 3)):
        with pytest.raises(ValueError):
            cache.append(a, x)
    exact((cache.n_free, cache.gather(a).shape[0]), (3, 1), "free blocks and tokens after wrong shapes")
    for sizes in ((0, 2), (2, 0), (-1, 3)):
        with pytest.raises(ValueError):
            exercises.PagedKV(*sizes)


@driver
def aliasing(module, x):
    """Change what was appended and what was gathered; give what the cache holds then, and of no tokens."""
    cache = module.PagedKV(3, 2, x.shape[1], dtype=x.dtype)
    seq = cache.alloc()
    empty = cache.gather(seq)
    mine = x.clone()
    cache.append(seq, mine)
    cache.append(cache.fork(seq), mine[:0])
    mine.zero_()
    cache.gather(seq).fill_(7.0)
    return cache.gather(seq), empty, cache.n_free


@exercise("PagedKV")
def test_pages_are_copies(exercises, rng):
    """What comes in and what goes out may be changed; no token, no block."""
    x = rng.normal(3, 2)
    got, empty, free = exercises.run(aliasing, x)
    close(got, x, "the sequence after its source and its gathered copy were overwritten")
    exact(empty, torch.zeros(0, 2, dtype=DOUBLE), "gather of an empty sequence")
    exact(free, 1, "free blocks after nothing was appended to a fork")
    half = exercises.PagedKV(2, 2, 2)
    seq = half.alloc()
    half.append(seq, x)
    close(half.gather(seq), x.float(), "float64 vectors in a float32 pool")


@driver
def life(module, n_blocks, size, operations):
    """Carry out operations; after each: what came back or the error's name, free blocks, one sequence's tokens."""
    import torch

    cache, numbers, log = module.PagedKV(n_blocks, size, 2, dtype=torch.float64), [], []
    for name, who, tokens, look in operations:
        error = None
        try:
            if name == "alloc":
                numbers.append(cache.alloc())
            elif name == "fork":
                numbers.append(cache.fork(numbers[who]))
            elif name == "free":
                cache.free(numbers[who])
            else:
                cache.append(numbers[who], torch.tensor([[t, -t] for t in tokens], dtype=torch.float64).reshape(-1, 2))
        except (ValueError, KeyError) as caught:
            error = type(caught).__name__
        log.append((error, cache.n_free, cache.gather(numbers[look]).tolist()))
    return log, len(set(numbers)) == len(numbers)


def random_life(rng, n_blocks, size, steps):
    """Operations and what must come of them. Two sequences share block j exactly if its tokens came from one write."""
    draw, live, operations, expected, fresh = rng.random, {}, [("alloc", 0, [], 0)], [(None, n_blocks, [])], 0
    live[0], made = [], 1

    def blocks(sequences):
        return {(j, tuple(ids[j : j + size])) for ids in sequences for j in range(0, len(ids), size)}

    for _ in range(steps):
        name = draw.choices(["append", "fork", "free", "alloc"], [12, 3, 2, 1])[0]
        if len(live) == 1 and name == "free" or len(live) > 9:
            name = "append" if len(live) == 1 else "free"
        who, error, tokens = draw.choice(list(live)), None, []
        if name == "append":
            tokens = list(range(fresh, fresh + draw.choice([0, 1, 1, 1, 2, 3, size, 2 * size + 1])))
            after = {**live, who: live[who] + tokens}
            if len(blocks(after.values())) > n_blocks:
                error = "ValueError"
            else:
                live, fresh = after, fresh + len(tokens)
        elif name == "free":
            del live[who]
        else:
            live[made] = list(live[who]) if name == "fork" else []
            made += 1
        look = draw.choice(list(live))
        operations.append((name, who, tokens, look))
        expected.append((error, n_blocks - len(blocks(live.values())), [[float(t), -float(t)] for t in live[look]]))
    return operations, expected


@exercise("PagedKV", weight=3)
@pytest.mark.parametrize("size", [4, 1, 3])
def test_pages_through_a_long_life(exercises, rng, size):
    """Over hundreds of random operations no block leaks and no token is lost."""
    operations, expected = random_life(rng, 13, size, 350)
    assert sum(error is not None for error, _, _ in expected) > 5  # the pool does run out
    got, unique = exercises.run(life, 13, size, operations)
    holds(unique, "No number of a sequence is ever used twice.")
    for i, (mine, right) in enumerate(zip(got, expected, strict=True)):
        exact(mine, right, f"error, free blocks and tokens after operation {i}, {operations[i][0]}, blocks of {size}")


# ----------------------------------------------------------------------------------------------------------- Scheduler


@driver
def served(module, limits, arrivals, steps):
    """Run a schedule; arrivals[t] are added before step t. After each step: batch, caches, tokens emitted."""
    scheduler, log = module.Scheduler(*limits), []
    for t in range(steps):
        for request, prompt, new in arrivals.get(t, []):
            scheduler.add(request, prompt, new)
        batch = scheduler.step()
        log.append(([(r, int(n)) for r, n in batch], dict(scheduler.cached), dict(scheduler.emitted)))
    return log


def by_running_sums(limits, arrivals, steps):
    """The schedule in closed form: who runs and how much follow from running sums over the order of arrival."""
    max_tokens, max_seqs, max_cached = (*limits, None)[:3]
    queue, cached, emitted, log = [], {}, {}, []
    for t in range(steps):
        queue += arrivals.get(t, [])
        emitted.update({request: 0 for request, _, _ in arrivals.get(t, [])})
        open_ = [(r, prompt + emitted[r], new) for r, prompt, new in queue if emitted[r] < new]
        fits = [max_cached is None or total <= max_cached for total in itertools.accumulate(k for _, k, _ in open_)]
        running = open_[: min(max_seqs, fits.index(False) if False in fits else len(open_))]
        needs = [known - cached.get(r, 0) for r, known, _ in running]
        before = [0, *itertools.accumulate(needs)]
        shares = [min(need, max(max_tokens - used, 0)) for need, used in zip(needs, before, strict=False)]
        cached = {r: cached.get(r, 0) + n for (r, _, _), n in zip(running, shares, strict=True)}
        emitted.update({r: emitted[r] + (cached[r] == known) for r, known, _ in running})
        done = [r for r, _, new in running if emitted[r] == new]
        cached = {r: n for r, n in cached.items() if r not in done}
        batch = [(r, n) for (r, _, _), n in zip(running, shares, strict=True) if n]
        log.append((batch, dict(cached), dict(emitted)))
    return log


def follow(exercises, limits, arrivals, steps, what):
    """Compare a schedule step by step."""
    got, expected = exercises.run(served, limits, arrivals, steps), by_running_sums(limits, arrivals, steps)
    for t, (mine, right) in enumerate(zip(got, expected, strict=True)):
        for part, one, other in zip(("batch", "cached", "emitted"), mine, right, strict=True):
            exact(one, other, f"{what}, Scheduler{limits}: {part} of step {t}")
    return got


@exercise("Scheduler", weight=2)
def test_schedule_of_a_planted_trace(exercises):
    """Prompts in chunks, one token a decode step, newcomers as places fall free."""
    arrivals = {0: [("a", 6, 5), ("b", 3, 2), ("c", 2, 9), ("d", 9, 1)], 2: [("e", 1, 3)], 4: [("f", 5, 1)]}
    log = follow(exercises, (5, 3), arrivals, 22, "six requests")
    exact(log[-1][2], {"a": 5, "b": 2, "c": 9, "d": 1, "e": 3, "f": 1}, "tokens emitted in the end")
    exact(log[-1][:2], ([], {}), "batch and caches after all are done")


@exercise("Scheduler")
def test_schedule_of_prompts_longer_than_the_budget(exercises):
    """A prompt longer than max_tokens takes several steps and emits once."""
    log = follow(exercises, (4, 2), {0: [("long", 11, 2), ("short", 2, 3)]}, 8, "a long prompt and a short one")
    chunks = [n for batch, _, _ in log for r, n in batch if r == "long"]
    exact(chunks, [4, 4, 3, 1], "the chunks of a prompt of 11 and one more token, budget 4")


@exercise("Scheduler", weight=3)
def test_schedule_with_little_room_preempts_the_newest(exercises):
    """Out of room, the newest lose their caches, not their tokens."""
    arrivals = {0: [("a", 4, 9), ("b", 3, 6), ("c", 2, 4)], 3: [("d", 6, 2), ("e", 1, 3)]}
    log = follow(exercises, (20, 4, 14), arrivals, 30, "five requests and room for 14")
    exact(log[-1][2], {"a": 9, "b": 6, "c": 4, "d": 2, "e": 3}, "tokens emitted in the end")
    lost = [t for t in range(1, 30) if "c" in log[t - 1][1] and "c" not in log[t][1] and log[t][2]["c"] < 4]
    holds(len(lost) > 0, "On this trace request c is preempted at least once.")


@exercise("Scheduler")
def test_schedule_when_nobody_may_overtake(exercises):
    """A request that does not fit keeps younger ones waiting, too."""
    arrivals = {0: [("a", 6, 4), ("big", 8, 2), ("tiny", 1, 1)]}
    follow(exercises, (16, 3, 12), arrivals, 9, "a big request before a tiny one")


def traffic(rng, count, longest_prompt, most_new, over):
    """Requests of unequal lengths that arrive over a number of steps."""
    draw, arrivals = rng.random, {}
    for i in range(count):
        request = (f"r{i}", draw.randint(1, longest_prompt), draw.randint(1, most_new))
        arrivals.setdefault(draw.randrange(over), []).append(request)
    return arrivals


@exercise("Scheduler", weight=4)
@pytest.mark.parametrize("limits", [(16, 4), (7, 5, 40), (30, 8, 33), (1, 2), (12, 50, 60)], ids=str)
def test_schedule_of_random_traffic(exercises, rng, limits):
    """Under random traffic every step is as the rules say, and all finish."""
    arrivals = traffic(rng, 12, 20, 12, 25)
    requests = [request for batch in arrivals.values() for request in batch]
    steps = 25 + sum(prompt + new for _, prompt, new in requests) * (1 if len(limits) == 2 else 3)
    log = follow(exercises, limits, arrivals, steps, "random traffic")
    exact(log[-1][2], {r: new for r, _, new in requests}, "tokens emitted in the end")


@exercise("Scheduler")
def test_schedule_keeps_its_limits(exercises, rng):
    """No step exceeds tokens, requests or room, and the oldest always moves."""
    arrivals = traffic(rng, 15, 12, 10, 10)
    log = exercises.run(served, (9, 4, 30), arrivals, 400)
    for t, (batch, cached, _) in enumerate(log):
        holds(sum(n for _, n in batch) <= 9, f"step {t} processes at most 9 tokens, but its batch is {batch}.")
        holds(len(batch) <= 4, f"step {t} runs at most 4 requests, but its batch is {batch}.")
        holds(sum(cached.values()) <= 30, f"after step {t} at most 30 tokens are cached, but these are {cached}.")
        holds(all(n >= 1 for _, n in batch), f"step {t} names only requests that process tokens: {batch}.")
    order = [r for t in sorted(arrivals) for r, _, _ in arrivals[t]]
    wanted = {r: new for batch in arrivals.values() for r, _, new in batch}
    for t in range(10, 400):
        unfinished = [r for r in order if log[t - 1][2][r] < wanted[r]]
        holds(not unfinished or log[t][0][0][0] == unfinished[0], f"step {t} serves the oldest unfinished request.")


@driver
def on_a_clock(module, limits, requests, fixed, each):
    """Serve requests (time, name, prompt, new) on a clock on which a step takes fixed + each * tokens."""
    scheduler, now, waiting, first, done = module.Scheduler(*limits), 0.0, list(requests), {}, {}
    while len(done) < len(requests) and now < 1e6:
        while waiting and waiting[0][0] <= now:
            scheduler.add(*waiting.pop(0)[1:])
        batch = scheduler.step()
        if not batch:
            now = waiting[0][0] if waiting else 1e9
            continue
        now += fixed + each * sum(n for _, n in batch)
        emitted = scheduler.emitted
        for _, name, _, new in requests:
            if emitted.get(name):
                first.setdefault(name, now)
            if emitted.get(name) == new:
                done.setdefault(name, now)
    return now, [first[r[1]] - r[0] for r in requests if r[1] in first], len(done)


def in_groups(requests, size, fixed, each):
    """Static batching on the same clock: a group stays together until its longest answer is written."""
    now, waiting, first = 0.0, list(requests), []
    while waiting:
        now = max(now, waiting[0][0])
        group = [r for r in waiting[:size] if r[0] <= now]
        waiting = waiting[len(group) :]
        now += fixed + each * sum(prompt for _, _, prompt, _ in group)
        first += [now - arrival for arrival, *_ in group]
        now += (max(new for *_, new in group) - 1) * (fixed + each * len(group))
    return now, first


@exercise("Scheduler")
def test_schedule_on_a_clock_beats_groups(exercises, rng):
    """On a simulated clock it is done sooner, and first tokens come far sooner."""
    draw, now, requests = rng.random, 0.0, []
    for i in range(40):  # Poisson arrivals, faster than either can serve; one answer in four is long
        now += draw.expovariate(1 / 4)
        requests.append((now, f"r{i}", draw.randint(5, 40), 60 if i % 4 == 0 else draw.randint(2, 10)))
    span, first, done = exercises.run(on_a_clock, (64, 4), requests, 6.7, 0.045)
    groups, first_in_groups = in_groups(requests, 4, 6.7, 0.045)
    exact(done, 40, "requests that were finished")
    holds(span < 0.7 * groups, f"All is done after {span:.0f} ms, in groups of four after {groups:.0f} ms.")
    mean, mean_in_groups = sum(first) / 40, sum(first_in_groups) / 40
    holds(mean < 0.7 * mean_in_groups, f"First tokens take {mean:.0f} ms in mean, in groups {mean_in_groups:.0f} ms.")


@exercise("Scheduler")
def test_schedule_leaves_no_place_empty(exercises):
    """While requests wait, every place is taken."""
    requests = [(f"r{i}", 1, 40 if i % 4 == 0 else 3) for i in range(16)]
    log = exercises.run(served, (4, 4), {0: requests}, 200)
    work = sum(new for _, _, new in requests)
    for t, (batch, _, _) in enumerate(log[: work // 4 - 40]):
        holds(len(batch) == 4, f"No place is empty while requests wait, but step {t} serves {batch}.")
    busy = sum(bool(batch) for batch, _, _ in log)
    holds(busy < 0.75 * 160, f"{busy} steps, against 160 in groups of four.")


@exercise("Scheduler")
def test_schedule_answers_do_not_depend_on_the_order(exercises, rng):
    """In any order of arrival each request gets all its tokens, once."""
    requests = [("a", 9, 4), ("b", 1, 7), ("c", 14, 1), ("d", 5, 5)]
    for order in itertools.permutations(range(4)):
        if order[0] < order[-1]:
            log = exercises.run(served, (6, 3, 22), {0: [requests[i] for i in order]}, 90)
            exact(log[-1][2], {r: new for r, _, new in requests}, f"tokens emitted, order of arrival {order}")


@exercise("Scheduler")
def test_schedule_refuses_what_cannot_finish(exercises):
    """Requests that can never finish, or come twice, raise ValueError."""
    scheduler = exercises.Scheduler(8, 2, 10)
    scheduler.add("a", 7, 4)  # its ten tokens but the last just fit
    for request, prompt, new in (("a", 1, 1), ("b", 8, 4), ("b", 0, 1), ("b", 1, 0), ("b", 11, 1)):
        with pytest.raises(ValueError):
            scheduler.add(request, prompt, new)
    exact([list(map(list, scheduler.step())) for _ in range(5)], [[["a", 7]], *[[["a", 1]]] * 3, []], "five steps")
    with pytest.raises(ValueError):
        scheduler.add("a", 1, 1)  # it was added before, though it is done
    exact(scheduler.emitted, {"a": 4}, "emitted in the end")
    for limits in ((0, 1), (1, 0)):
        with pytest.raises(ValueError):
            exercises.Scheduler(*limits)
