"""What the figure of chapter 10 computes and says, held against the reference."""

import math

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
EXAMPLE = torch.tensor([[8, 4, 2, 1, 1]], dtype=torch.float64).log()
PREVIOUS = torch.zeros(1, 0, dtype=torch.int64)


@mirror("probabilities")
def probabilities(rng):
    logits, temperature = 300 * rng.normal(1, 7), 0.1 + rng.random.random()
    return [logits[0], temperature], reference.next_token_probs(logits, temperature)[0]


@mirror("probabilities")
def probabilities_at_zero(rng):
    logits = rng.integers(0, 3, 1, 7).double()  # with ties
    return [logits[0], 0], reference.next_token_probs(logits, 0.0)[0]


@mirror("topK")
def top_k(rng):
    logits, k = rng.integers(0, 5, 1, 9).double(), int(rng.integers(1, 12))
    return [logits[0], k], reference.top_k_filter(logits, k)[0]


@mirror("topP")
def top_p(rng):
    logits, p = 2 * rng.normal(1, 9), rng.random.random()
    return [logits[0], p], reference.top_p_filter(logits, p)[0]


@mirror("topP")
def top_p_at_the_ends(rng):
    logits, p = 40 * rng.normal(1, 9), int(rng.integers(0, 2))
    return [logits[0], p], reference.top_p_filter(logits, float(p))[0]


@mirror("minP")
def min_p(rng):
    logits, p = 2 * rng.normal(1, 9), rng.random.random() * int(rng.integers(0, 3)) / 2
    return [logits[0], p], reference.min_p_filter(logits, p)[0]


@mirror("pipeline")
def pipeline(rng):
    logits, temperature = 2 * rng.normal(1, 12), int(rng.integers(0, 4)) / 2
    k, p, fraction = int(rng.integers(1, 13)), 0.5 + rng.random.random() / 2, rng.random.random() / 4
    settings = [{"temperature": temperature}, {"k": k}, {"p": p}, {"min_p": fraction}]
    after = [
        reference.standard_pipeline(**{name: value for each in settings[:n] for name, value in each.items()})(
            logits, PREVIOUS
        )[0]
        for n in range(1, 5)
    ]
    return [logits[0], temperature, k, p, fraction], after


@mirror("draw")
def draw(rng):
    probs = torch.softmax(rng.normal(1, 6), -1).masked_fill(rng.uniform(1, 6) < 0.3, 0.0)
    probs[:, 2] += 1 - probs.sum()
    u = torch.rand(1, 1, generator=torch.Generator().manual_seed(rng.seed), dtype=probs.dtype).item()
    return [probs[0], u], reference.sample(probs, torch.Generator().manual_seed(rng.seed)).item()


@mirror("entropy")
def entropy(rng):
    probs = torch.softmax(rng.normal(8), -1)
    return [[*probs.tolist(), 0]], torch.distributions.Categorical(probs).entropy()


def left(logits):
    """Say how many are left, and the share of the favourite."""
    probs = torch.softmax(logits[0], -1)
    return int((logits > -math.inf).sum()), f"{probs.max():.2f}"


@shown(five=True, temperature=1, p=0.8)
def top_p_of_the_worked_example():
    kept, best = left(reference.top_p_filter(EXAMPLE, 0.8))
    return f"{kept} of 5 tokens are left; at this temperature they held 0.88 of the mass. “mat” now has {best}"


@shown(five=True, temperature=2, p=0.8)
def temperature_first():
    kept, best = left(reference.standard_pipeline(temperature=2.0, p=0.8)(EXAMPLE, PREVIOUS))
    return f"{kept} of 5 tokens are left; at this temperature they held 0.88 of the mass. “mat” now has {best}"


@shown(five=True, p=1, k=4)
def a_tie_at_the_border_of_top_k():
    return f"{left(reference.top_k_filter(EXAMPLE, 4))[0]} of 5 tokens are left"


@shown(five=True, p=0.75)
def a_mass_that_is_reached_exactly():
    return f"{left(reference.top_p_filter(EXAMPLE, 0.75))[0]} of 5 tokens are left"


@shown(five=True, p=1, temperature=0)
def at_zero_one_is_left():
    return "1 of 5 tokens is left"
