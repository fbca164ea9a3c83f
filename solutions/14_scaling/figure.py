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


@mirror("queues")
def queues(rng):
    k, factor = int(rng.integers(1, 4)), 0.25 * int(rng.integers(1, 9))
    scores = rng.normal(20, 5) + rng.normal(5)
    chosen = scores.topk(k, -1).indices
    assignment, dropped = reference.dispatch(chosen, torch.ones(20, k), factor, 5)
    # an expert that everybody selects is filled up to its capacity
    full, _ = reference.dispatch(torch.zeros(20, k, dtype=torch.int64), torch.ones(20, k), factor, 5)
    return [scores, k, factor], {
        "capacity": len(full[0]),
        "served": [len(a) for a in assignment],
        "dropped": len(dropped),
    }


def token_right(N):
    """Give the rate of right tokens in the example of the notes."""
    return N**0.5 / (N**0.5 + 1e4)


@mirror("tokenRight")
def one_token(rng):
    N = float(10 ** (10 + rng.normal(1)))
    return [N], token_right(N)


@mirror("allRight")
def all_tokens(rng):
    p, length = float(rng.uniform(1)), int(rng.integers(0, 40))
    return [p, length], reference.exact_match_rate(p, length)


def size_for(level, length):
    """Halve the span of sizes between which the rate passes the level, until nothing is left of it."""
    low, high = 0.0, 20.0
    for _ in range(200):
        middle = (low + high) / 2
        found = reference.emergence_point([10**middle], token_right, length, level)
        low, high = (low, middle) if found else (middle, high)
    return 10**high


@mirror("sizeFor")
def size_that_reaches_a_level(rng):
    level, length = 0.05 + 0.9 * float(rng.uniform(1)), int(rng.integers(1, 40))
    return [level, length], size_for(level, length)


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


SCORES = torch.tensor(
    [
        [-0.82, -0.56, -0.83, -1.3],
        [-0.2, -0.96, -0.51, 2.63],
        [-0.75, 1.01, -0.26, 0.48],
        [-0.67, -0.36, -1.45, -0.25],
        [0.83, 1.12, 1.0, 1.06],
        [1.08, -0.07, 0.13, 0.17],
        [0.06, 0.25, 0.95, 0.36],
        [0.21, -0.34, -0.35, -0.27],
        [1.33, 1.2, -1.26, -0.43],
        [-2.18, -1.11, -2.04, 0.03],
        [-1.08, -0.88, 0.97, 0.56],
        [-1.12, 0.15, -1.09, -1.46],
        [-0.48, -1.08, 0.32, 2.75],
        [0.37, 1.34, -0.92, -0.96],
        [-0.01, 0.35, -0.36, -0.77],
        [0.43, 0.15, -0.25, -1.46],
        [0.59, -1.16, 1.0, -0.57],
        [0.59, -1.37, -1.33, 0.15],
        [1.21, -2.28, 1.25, 0.55],
        [0.02, -1.58, 2.44, 0.77],
        [0.63, -0.29, 0.6, 1.22],
        [0.23, -0.44, -0.22, -1.72],
        [0.09, 0.84, 1.52, -0.15],
        [-2.3, 0.76, 0.91, -2.48],
    ],
    dtype=torch.float64,
)


@shown(panel="router", bias1=1.5, bias3=-1, k=1, factor=1)
def two_head_starts():
    scores = SCORES + torch.tensor([1.5, 0, -1, 0])
    chosen = scores.topk(1, -1).indices
    loss = reference.load_balancing_loss(scores.softmax(-1), chosen, 4)
    most = int((chosen == 0).sum())
    _, dropped = reference.dispatch(chosen, torch.ones(24, 1), 1.0, 4)
    return (
        f"Expert 1 is the busiest with {100 * most / 24:.0f} % of the assignments; the balance loss is {loss:.2f}."
        f" Each expert has room for 6; no expert serves {len(dropped)} of 24 tokens."
    )


@shown(panel="router", bias1=1.5, k=2, step=3)
def three_steps_towards_balance():
    bias = torch.tensor([1.5, 0, 0, 0], dtype=torch.float64, requires_grad=True)
    for _ in range(3):
        scores = SCORES + bias
        loss = reference.load_balancing_loss(scores.softmax(-1), scores.topk(2, -1).indices, 4)
        bias = (bias - torch.autograd.grad(loss, bias)[0]).detach().requires_grad_()
    scores = SCORES + bias.detach()
    loss = reference.load_balancing_loss(scores.softmax(-1), scores.topk(2, -1).indices, 4)
    return f"the balance loss is {loss:.2f} after 3 steps."


@shown(panel="leap", model=10, length=20)
def the_table_of_the_notes():
    p = token_right(1e10)
    half, tenth = (size_for(level, 20) / 1e9 for level in (0.5, 0.1))
    return (
        f"With 10 billion parameters one token is right with probability {p:.3f}, and a whole answer with"
        f" {reference.exact_match_rate(p, 20):.3f}. Every second answer is right from {half:.3g} billion parameters on,"
        f" every tenth from {tenth:.3g} billion on. The rate"
    )


@shown(panel="leap", model=8, length=40, log=True)
def no_leap_on_a_logarithmic_scale():
    rate = reference.exact_match_rate(token_right(1e8), 40)
    assert rate < 0.0005
    return "one token is right with probability 0.500, and a whole answer with less than 0.001."
