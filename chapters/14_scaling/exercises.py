# %% [markdown]
# # Chapter 14: Scaling and mixture of experts
#
# Eight exercises. First you count what training costs and fit the laws that say what it buys. Then you build the layer
# that breaks the tie between the size of a model and its cost: a mixture of experts. The teaching is in the notes
# (`README.md`); here stand only the promises that each function must keep.
#
# In 14.1 to 14.4, N is a number of parameters, D a number of training tokens, C a number of floating-point operations
# (FLOPs) and L a loss in nats. In 14.5 to 14.7, N counts tokens, D is the model's width, E the number of experts and k
# how many of them a token uses.

# %%
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# %% [markdown]
# Given: two published fits of L(N, D) = E + A / N^alpha + B / D^beta, a published table of optima, and sixteen runs of
# our own. `TABLE` holds pairs (C, N): budgets, and the sizes that Hoffmann et al. (2022) found optimal for them. `RUNS`
# holds triples (N, D, L): small networks trained on the source code of Python's library by `small_run`, which is given,
# too, so that you can make runs of your own. The notes say more.

# %%
HOFFMANN = {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}
EPOCH = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
TABLE = [
    (1.92e19, 400e6),
    (1.21e20, 1e9),
    (1.23e22, 10e9),
    (5.76e23, 67e9),
    (3.85e24, 175e9),
    (9.90e24, 280e9),
    (3.43e25, 520e9),
    (1.27e26, 1e12),
]
RUNS = [
    (1024, 16384, 2.7933),
    (1024, 65536, 2.4812),
    (1024, 262144, 2.4316),
    (1024, 1048576, 2.4187),
    (4096, 16384, 2.5123),
    (4096, 65536, 2.2644),
    (4096, 262144, 2.1245),
    (4096, 1048576, 2.0440),
    (16384, 16384, 2.4405),
    (16384, 65536, 2.0963),
    (16384, 262144, 1.8800),
    (16384, 1048576, 1.7536),
    (65536, 16384, 2.3484),
    (65536, 65536, 1.9826),
    (65536, 262144, 1.7251),
    (65536, 1048576, 1.5188),
]


# %%
def small_run(text: bytes, h: int, D: int, lr: float, batch: int, seed: int = 0) -> float:
    """Given: train a network of N = 256 h parameters on D bytes of text, once each, and return its held-out loss."""
    data = torch.tensor(list(text)).clamp(max=127)
    places = torch.randperm(len(data) - 9, generator=torch.Generator().manual_seed(0))  # where windows of 9 bytes begin
    held, train, window = places[:50_000], places[50_000:][:D], torch.arange(9)
    torch.manual_seed(seed)
    layers = [nn.Embedding(128, 16), nn.Flatten(), nn.Linear(128, h, bias=False), nn.GELU()]
    net = nn.Sequential(*layers, nn.Linear(h, 128, bias=False))  # 8 bytes x 16 -> h -> the next byte
    optimizer = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    for step in range(steps := D // batch):
        warm = min(1.0, (step + 1) / (0.05 * steps + 1))
        optimizer.param_groups[0]["lr"] = lr * warm * (1 + math.cos(math.pi * step / steps)) / 2
        x = data[train[step * batch : (step + 1) * batch, None] + window]  # (batch, 9)
        loss = nn.functional.cross_entropy(net(x[:, :-1]), x[:, -1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        x = data[held[:, None] + window]
        return nn.functional.cross_entropy(net(x[:, :-1]), x[:, -1]).item()


# %% [markdown]
# ## 14.1 forward_flops, train_flops
#
# A matrix product of (m, n) by (n, p) takes m * n * p multiplications and as many additions: 2 * m * n * p FLOPs.


# %%
def forward_flops(cfg: dict[str, int], T: int) -> int:
    """Count the FLOPs of the matrix products when a GPT reads one sequence of T tokens.

    Args:
        cfg: "V" vocabulary, "D" width, "L" layers, "F" width inside the feed-forward part; other keys are ignored.
        T: number of tokens.

    Returns:
        FLOPs as an int, a multiplication and an addition counted as two.

    Example:
        >>> forward_flops({"V": 10, "D": 4, "L": 2, "F": 16}, 3)
        2832

    Notes:
        A layer has four D x D projections (queries, keys, values, output), the scores q k^T, the mix of the values by
        the weights, and two feed-forward matrices, D x F and F x D. The heads together are as wide as the model, so
        their number does not matter. Scores are computed for all T x T pairs, also for those that a causal mask hides.
        At the end one D x V matrix makes the logits of every position. Looking up embeddings, norms, softmax,
        activations and biases count as 0.
    """
    raise NotImplementedError("forward_flops")


# %%
def train_flops(N: float, D: float) -> float:
    """Estimate the FLOPs of training a model of N parameters on D tokens.

    Args:
        N: parameters that take part in matrix products.
        D: training tokens.

    Returns:
        2 N D for the forward pass and twice as much for the backward pass, together C.

    Example:
        >>> train_flops(10, 100)
        6000
    """
    raise NotImplementedError("train_flops")


# %% [markdown]
# ## 14.2 fit_power_law, fit_with_floor
#
# A power law is a straight line on paper with two logarithmic axes, unless there is a floor that it cannot go below.


# %%
def fit_power_law(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Fit y = a * x^(-b) by a straight line through the logarithms.

    Args:
        x: (R,) float64, positive, in any order, at least two different values.
        y: (R,) float64, positive.

    Returns:
        (a, b) as floats. b is positive when y falls as x grows.

    Example:
        >>> a, b = fit_power_law(torch.tensor([1.0, 4.0, 16.0]).double(), torch.tensor([6.0, 3.0, 1.5]).double())
        >>> round(a, 6), round(b, 6)
        (6.0, 0.5)

    Notes:
        The line is the one that minimises the sum of (ln a - b ln x - ln y)^2.
    """
    raise NotImplementedError("fit_power_law")


# %%
def fit_with_floor(x: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Fit y = E + a * x^(-b), a power law above a floor, by least squares.

    Args:
        x: (R,) float64, positive, in any order, at least four different values.
        y: (R,) float64, positive and falling with x but for noise.

    Returns:
        (E, a, b) as floats, with a > 0 and 0.02 <= b <= 2.

    Example:
        >>> x = torch.tensor([1.0, 4.0, 16.0, 64.0]).double()
        >>> [round(value, 3) for value in fit_with_floor(x, 2 + 6 / x**0.5)]
        [2.0, 6.0, 0.5]

    Notes:
        It minimises the sum of (E + a x^(-b) - y)^2, to within a thousandth of the least sum when y is noisy. Without
        noise E, a and b are right to within a thousandth of themselves (an E of 0: of the smallest y). Sizes x may be
        as small as 1 or as large as 1e13. For a fixed b the best E and a come from a straight line through the points
        (x^(-b), y), so only b has to be searched for. x and y are not changed.
    """
    raise NotImplementedError("fit_with_floor")


# %% [markdown]
# ## 14.3 chinchilla_optimal, tokens_per_param, undertraining
#
# With C = 6 N D fixed, a larger model must see fewer tokens. Somewhere in between lies the lowest loss.


# %%
def chinchilla_optimal(C: float, A: float, B: float, alpha: float, beta: float) -> tuple[float, float]:
    """Find the model size and the number of tokens of lowest loss that C FLOPs can buy.

    Args:
        C: compute, as large as 1e27.
        A, B, alpha, beta: constants of L(N, D) = E + A / N^alpha + B / D^beta, all positive.

    Returns:
        (N, D), two floats, not rounded, with 6 N D = C.

    Example:
        >>> N, D = chinchilla_optimal(6e6, A=4.0, B=2.0, alpha=0.5, beta=0.5)
        >>> round(N, 6), round(D, 6)
        (2000.0, 500.0)

    Notes:
        Put D = C / (6 N) into L and set the derivative with respect to N to zero.
    """
    raise NotImplementedError("chinchilla_optimal")


# %%
def tokens_per_param(N: float, D: float) -> float:
    """Give the number of training tokens for each parameter.

    Args:
        N: parameters.
        D: training tokens.

    Returns:
        D / N.

    Example:
        >>> tokens_per_param(70e9, 1.4e12)
        20.0
    """
    raise NotImplementedError("tokens_per_param")


# %%
def undertraining(
    N: float, D: float, A: float = 482.01, B: float = 2085.43, alpha: float = 0.3478, beta: float = 0.3658
) -> float:
    """Say how many times as many tokens the best model of the same compute would have seen.

    Args:
        N: parameters of the model.
        D: tokens that it was trained on.
        A, B, alpha, beta: the law; the defaults are those of EPOCH.

    Returns:
        D* / D, where (N*, D*) is optimal for C = 6 N D: above 1 for a model that is too large for its tokens, exactly 1
        (up to rounding) for an optimal one, below 1 for one that was trained longer than its training alone repays.

    Example:
        >>> round(undertraining(2000.0, 500.0, A=4.0, B=2.0, alpha=0.5, beta=0.5), 6)
        1.0
    """
    raise NotImplementedError("undertraining")


# %% [markdown]
# ## 14.4 fit_chinchilla, isoflop_minimum
#
# From runs back to the law: all five constants at once, or one optimum for each budget.


# %%
def fit_chinchilla(N: Tensor, D: Tensor, L: Tensor) -> dict[str, float]:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta to runs, robustly.

    Args:
        N, D, L: (R,) float64 each, positive, R >= 6: size, tokens and loss of each run, in any order.

    Returns:
        {"E": ..., "A": ..., "B": ..., "alpha": ..., "beta": ...}, floats, all positive.

    Notes:
        Minimise the mean over runs of huber(ln L^ - ln L), where L^ is what the law says and huber(r) = r^2 / 2 for
        |r| <= d and d (|r| - d / 2) beyond, with d = 0.001. There are local minima: start from eight points or more and
        keep the best. The value reached is at most 1.01 times that of any other constants, or below 1e-9. Without
        noise E, alpha and beta are right to 0.005. The truth has E between 0.3 and 4 and exponents between 0.1 and 1;
        N, D lie between 1e3 and 1e13 and each term contributes at least a hundredth of L somewhere.
        Writing E = e^p, A = e^q, B = e^s makes ln L^ = logsumexp(p, q - alpha ln N, s - beta ln D), whose derivatives
        with respect to its three arguments are their softmax: the share of each term in the loss.
    """
    raise NotImplementedError("fit_chinchilla")


# %%
def isoflop_minimum(N: Tensor, L: Tensor) -> float:
    """Find the model size of lowest loss on one isoFLOP curve, by a parabola in ln N.

    Args:
        N: (R,) float64, positive, in any order, at least three different values: sizes trained with the same compute.
        L: (R,) float64: their losses.

    Returns:
        The size at the bottom of the parabola that fits L as a function of ln N with the least sum of squares.

    Raises:
        ValueError: if that parabola has no bottom, because it opens downwards.

    Example:
        >>> round(isoflop_minimum(torch.tensor([1.0, 10.0, 100.0]).double(), torch.tensor([3.0, 2.0, 3.0]).double()), 6)
        10.0
    """
    raise NotImplementedError("isoflop_minimum")


# %% [markdown]
# ## 14.5 moe_forward
#
# Many feed-forward networks, a router, and the promise that each token pays for k of them only.


# %%
def moe_forward(x: Tensor, W_gate: Tensor, experts: Sequence[Callable[[Tensor], Tensor]], k: int) -> Tensor:
    """Send each token to its k best experts and mix what they return.

    Args:
        x: (N, D) tokens, floating; N may be 0.
        W_gate: (D, E), dtype of x: the router. Token t scores expert e by entry e of x[t] @ W_gate.
        experts: E callables; each maps (n, D) to (n, D) in the dtype of x, row by row.
        k: experts of a token.

    Returns:
        (N, D), dtype of x: for each token the sum of its experts' outputs, weighted by the softmax of the k scores that
        were selected, so that its weights sum to one.

    Raises:
        ValueError: unless 1 <= k <= E.

    Example:
        >>> experts = [lambda h: h, lambda h: 10 * h, lambda h: 100 * h]
        >>> moe_forward(torch.ones(1, 1), torch.tensor([[0.0, 0.0, -9.0]]), experts, k=2)
        tensor([[5.5000]])

    Notes:
        An expert is called with 2-D tensors only, and only with rows of tokens that selected it: each such row once,
        in one call or in several. An expert that no token selected is not called. Scores of any finite size give a
        finite result. Which of two exactly equal scores is selected is left open. Gradients reach x, W_gate and the
        experts' parameters, so use torch operations. No input is changed.
    """
    raise NotImplementedError("moe_forward")


# %% [markdown]
# ## 14.6 load_balancing_loss
#
# Left alone, a router favours the experts that it has already trained. A second loss pushes back.


# %%
def load_balancing_loss(router_probs: Tensor, topk_idx: Tensor, E: int) -> Tensor:
    """Measure how unevenly a router spreads its tokens: E times the sum over experts of f_i P_i.

    Args:
        router_probs: (N, E), floating: softmax over all E experts for each token; or (layers, N, E).
        topk_idx: (N, k) int64: the experts selected by each token; or (layers, N, k).
        E: number of experts.

    Returns:
        Scalar tensor, dtype of router_probs.

    Example:
        >>> probs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
        >>> load_balancing_loss(probs, torch.tensor([[0], [1]]), 2)
        tensor(1.)

    Notes:
        f_i is the share of the N * k assignments that go to expert i, so the f_i sum to one for every k. P_i is the
        mean of router_probs[:, i] over all tokens, whether or not they selected i. f is a count and carries no
        gradient; the gradient flows through P. With a leading axis of layers the loss is computed for each layer by
        itself, and the mean over layers is returned. No input is changed.
    """
    raise NotImplementedError("load_balancing_loss")


# %% [markdown]
# ## 14.7 dispatch, moe_params
#
# On real hardware each expert has room for so many tokens and no more. And memory has to hold all experts, used or not.


# %%
def dispatch(
    idx: Tensor, weights: Tensor, capacity_factor: float, E: int
) -> tuple[list[list[tuple[int, float]]], list[int]]:
    """Put tokens into the queues of their experts, up to the capacity of each.

    Args:
        idx: (N, k) int64: the experts that each token selected, all different within a row.
        weights: (N, k) floating: the weight of each selection.
        capacity_factor: positive; 1.0 gives room for exactly the mean load.
        E: number of experts.

    Returns:
        assignment: E lists; list e holds (token, weight) for each token that expert e serves, by rising token.
        dropped: the tokens that no expert serves, rising. They pass through on the residual path.

    Example:
        >>> dispatch(torch.tensor([[0], [0], [1]]), torch.ones(3, 1), 1.0, 2)
        ([[(0, 1.0), (1, 1.0)], [(2, 1.0)]], [])

    Notes:
        The capacity of every expert is ceil(capacity_factor * N * k / E). Earlier tokens win, whatever their weights. A
        token that loses one of its experts keeps the others, and their weights are not rescaled. With N = 0 every queue
        is empty. Tokens are ints and weights floats. No input is changed.
    """
    raise NotImplementedError("dispatch")


# %%
def moe_params(cfg: dict[str, int]) -> tuple[int, int]:
    """Count the parameters of a mixture-of-experts transformer, all of them and those that one token uses.

    Args:
        cfg: "V" vocabulary, "D" width, "L" layers, "H" query heads, "Hk" key-value heads, "hd" width of a head, "F"
            width inside an expert, "E" experts of a layer, "k" experts of a token.

    Returns:
        (total, active) as ints.

    Example:
        >>> moe_params({"V": 10, "D": 4, "L": 2, "H": 2, "Hk": 1, "hd": 3, "F": 5, "E": 3, "k": 1})
        (628, 388)

    Notes:
        There are no biases. A layer has queries D x (H hd), keys and values D x (Hk hd) each, an output (H hd) x D; a
        router D x E; E experts of three D x F matrices each (gate, up, down); and two norms of D weights. Around the
        layers stand V x D embeddings, a last norm of D weights and a head of another V x D. Active are k experts a
        layer and everything else in full: the router, the embeddings and the head too.
    """
    raise NotImplementedError("moe_params")


# %% [markdown]
# ## 14.8 exact_match_rate, emergence_point
#
# A smooth gain in each token can look like a leap, if only answers right to the last token count.


# %%
def exact_match_rate(p_token: float | Tensor, length: int) -> float | Tensor:
    """Give the probability that all tokens of an answer are right.

    Args:
        p_token: probability that one token is right; a float, or a floating tensor of any shape.
        length: number of tokens of the answer, at least 0. They are right or wrong independently.

    Returns:
        A float for a float, a tensor of the same shape and dtype for a tensor.

    Example:
        >>> exact_match_rate(0.5, 3)
        0.125
    """
    raise NotImplementedError("exact_match_rate")


# %%
def emergence_point(
    params: Sequence[float], p_of_N: Callable[[float], float], length: int, level: float
) -> float | None:
    """Find the smallest model whose rate of exact matches reaches a level.

    Args:
        params: model sizes, in any order; may be empty.
        p_of_N: gives the probability that a model of that size gets one token right.
        length: number of tokens of an answer.
        level: the rate that counts as "the ability is there".

    Returns:
        The smallest of params at which p_of_N(N) ** length >= level, or None if there is none.

    Example:
        >>> [emergence_point([1, 2, 4, 8, 16], lambda N: N / (N + 1), length, 0.5) for length in (1, 5, 50)]
        [1, 8, None]

    Notes:
        p_of_N need not rise everywhere.
    """
    raise NotImplementedError("emergence_point")
