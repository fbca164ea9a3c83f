"""What the figure of chapter 6 computes and says, held against the reference."""

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
QUERY = torch.tensor([1.6, 1.2], dtype=torch.float64)
KEYS = torch.tensor([[0.1, 0.3], [1.4, 0.9], [0.2, -0.8], [-0.6, 0.7], [0.8, 1.3]], dtype=torch.float64)


@mirror("softmax")
def softmax(rng):
    scores = 300 * rng.normal(7)
    return [scores], reference.softmax(scores)


@mirror("mask")
def causal(rng):
    T = int(rng.integers(1, 9))
    return [T, "causal"], reference.causal_mask(T)


@mirror("mask")
def window(rng):
    T, W = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    return [T, "window", W], [[i - W < j <= i for j in range(T)] for i in range(T)]


@mirror("weights")
def weights(rng):
    T, d = 5, 3
    q, k, visible = rng.normal(1, 1, T, d), rng.normal(1, 1, T, d), reference.causal_mask(T)
    # the values are the identity, so that the output is the matrix of weights itself
    identity = torch.eye(T, dtype=q.dtype)[None, None]
    expected = reference.scaled_dot_product_attention(q / 1.5, k, identity, mask=visible)
    return [q[0, 0], k[0, 0], visible, 1.5], expected[0, 0]


@mirror("entropy")
def entropy(rng):
    row = reference.softmax(3 * rng.normal(6))
    return [row], reference.attention_entropy(row)


@shown(query=4, temperature=2, mask="causal", pull=0)
def weights_of_tall_at_temperature_2():
    row = reference.softmax(KEYS @ QUERY / (2**0.5 * 2))
    entropy = reference.attention_entropy(row)
    return f"most weight, {row.max():.2f}, to “lamp”. The entropy of its weights is {entropy:.2f} nats"


@shown(query=2, temperature=1, mask="window", pull=0)
def the_window_hides_the_first_token():
    return "nats of at most 0.69."
