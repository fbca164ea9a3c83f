"""What the figure of chapter 14 computes and says, held against the reference."""

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)


def law(rng):
    """Draw constants of the law near the published ones."""
    a, b, E, A, B = rng.normal(5).tolist()
    return {"E": 1.7 + 0.1 * E, "A": 400 + 50 * A, "B": 500 + 50 * B, "alpha": 0.35 + 0.03 * a, "beta": 0.3 + 0.03 * b}


def without_floor(constants):
    return {name: value for name, value in constants.items() if name != "E"}


def routing(scores, k):
    """Give shares, mean probabilities and loss of a router, the loss by the reference."""
    probs, chosen = scores.softmax(-1), scores.topk(k, -1).indices
    E = scores.shape[1]
    f = torch.bincount(chosen.flatten(), minlength=E).double() / chosen.numel()
    return {"f": f, "P": probs.mean(0), "loss": reference.load_balancing_loss(probs, chosen, E)}


@mirror("loss")
def loss(rng):
    N, D = (10 ** (10 + rng.normal(2))).tolist()
    c = law(rng)
    return [N, D, c], c["E"] + c["A"] * N ** -c["alpha"] + c["B"] * D ** -c["beta"]


@mirror("optimal")
def optimal(rng):
    C = float(10 ** (22 + rng.normal(1)))
    constants = law(rng)
    return [C, constants], reference.chinchilla_optimal(C, **without_floor(constants))


@mirror("route")
def route(rng):
    k = int(rng.integers(1, 4))
    scores = rng.normal(20, 5)
    return [scores, k], routing(scores, k)


@mirror("push")
def push(rng):
    k = int(rng.integers(1, 4))
    scores = rng.normal(20, 5)
    bias = torch.zeros(5, dtype=scores.dtype, requires_grad=True)
    biased = scores + bias
    reference.load_balancing_loss(biased.softmax(-1), biased.topk(k, -1).indices, 5).backward()
    return [scores, k], bias.grad


@shown(budget=23.5, size=11.25, law="hoffmann")
def a_model_like_gpt_3():
    N, D = reference.chinchilla_optimal(10**23.5, **without_floor(reference.HOFFMANN))
    return f"The best has {N / 1e9:.1f} billion and D/N {reference.tokens_per_param(N, D):.1f}: loss"


@shown(budget=21, size=9, law="epoch")
def small_and_read_much():
    C = 1e21
    D = C / 6e9
    each = reference.tokens_per_param(1e9, D)
    c = reference.EPOCH
    value = c["E"] + c["A"] / 1e9 ** c["alpha"] + c["B"] / D ** c["beta"]
    return (
        f"1 billion parameters can read {D / 1e9:.0f} billion tokens, {each:.0f} for each parameter: "
        + f"loss {value:.3f}."
    )


@shown(bias=1.5, k=2, step=3)
def three_steps_towards_balance():
    return "after 3 steps."
