"""What the figure of chapter 5 computes and says, held against the reference."""

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
QUERY = torch.tensor([1, 0.9, 0, 0.3], dtype=torch.float64)
KEY = torch.tensor([0.6, 0.7, 0.8, -0.5], dtype=torch.float64)


def number(value):
    return f"{float(value):.2f}".replace("-", "−")


def turned(x, position, base):
    return reference.apply_rope(x[None], torch.tensor([position]), reference.rope_freqs(len(x), base))[0]


def with_sines(q, k, m, n, base):
    table = reference.sinusoidal_positions(100, len(q), base)
    return (q + table[m]) @ (k + table[n]) / len(q) ** 0.5


def drawn(rng):
    q, k = rng.normal(6), rng.normal(6)
    m, n = int(rng.integers(0, 60)), int(rng.integers(0, 60))
    given = {"base": 1000.0, "slope": 0.125, "t5": rng.normal(32)}
    return q, k, m, n, given


@mirror("frequencies")
def frequencies(rng):
    d, base = 2 * int(rng.integers(1, 9)), float(10 + 1000 * rng.uniform(1))
    return [d, base], reference.rope_freqs(d, base)


@mirror("sinusoidal")
def sinusoidal(rng):
    t, D = int(rng.integers(0, 100)), 2 * int(rng.integers(1, 6))
    return [t, D, 100.0], reference.sinusoidal_positions(100, D, 100.0)[t]


@mirror("rope")
def rope(rng):
    x, position = rng.normal(8), int(rng.integers(0, 100))
    return [x, position, reference.rope_freqs(8, 500.0)], turned(x, position, 500.0)


@mirror("slopes")
def slopes(rng):
    H = int(rng.integers(1, 40))
    return [H], -reference.alibi_bias(H, 2)[:, 1, 0]


@mirror("bucket")
def bucket(rng):
    relative = int(rng.integers(-150, 5))
    return [relative, 32, 128], reference.t5_bucket(torch.tensor(relative), 32, 128, bidirectional=False)


@mirror("score")
def score_without_positions(rng):
    q, k, m, n, given = drawn(rng)
    return ["none", q, k, m, n, given], q @ k / 6**0.5


@mirror("score")
def score_with_sines_added(rng):
    q, k, m, n, given = drawn(rng)
    return ["sines", q, k, m, n, given], with_sines(q, k, m, n, given["base"])


@mirror("score")
def score_of_turned(rng):
    q, k, m, n, given = drawn(rng)
    return ["turned", q, k, m, n, given], turned(q, m, 1000.0) @ turned(k, n, 1000.0) / 6**0.5


@mirror("score")
def score_with_alibi(rng):
    q, k, m, n, given = drawn(rng)
    return ["alibi", q, k, m, n, given], q @ k / 6**0.5 + reference.alibi_bias(8, 60)[2, m, n]


@mirror("score")
def score_with_t5(rng):
    q, k, m, n, given = drawn(rng)
    place = reference.t5_bucket(torch.tensor(n - m), 32, 128, bidirectional=False)
    return ["t5", q, k, m, n, given], q @ k / 6**0.5 + given["t5"][place]


@shown(query=5, key=2, both=0, head=0)
def a_sharp_head_of_alibi():
    slope = -reference.alibi_bias(8, 2)[0, 1, 0]
    plain = QUERY @ KEY / 2
    return f"without positions {number(plain)}, with sines added {number(with_sines(QUERY, KEY, 5, 2, 100.0))}, turned \
{number(turned(QUERY, 5, 100.0) @ turned(KEY, 2, 100.0) / 2)}, with ALiBi {number(plain - 3 * slope)}"


@shown(query=5, key=2, both=20)
def only_the_sines_notice_a_common_shift():
    before, after = (with_sines(QUERY, KEY, 5 + shift, 2 + shift, 100.0) for shift in (0, 20))
    return f"the score with sines added goes from {number(before)} to {number(after)}; all others stay"


@shown(query=30, key=0, both=0)
def a_far_key_falls_into_a_wide_bucket():
    return f"(bucket {reference.t5_bucket(torch.tensor(-30), bidirectional=False)})"
