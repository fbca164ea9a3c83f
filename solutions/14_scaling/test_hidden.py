"""The whole contract of chapter 14, against counted operations, brute force, closed forms and known surfaces."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, driver, exact, exercise, holds, pure, roughly

DOUBLE = torch.float64
LAWS = (
    {"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
    {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
    {"E": 0.9, "A": 60.0, "B": 9000.0, "alpha": 0.25, "beta": 0.45},
)


def loss(law, N, D):
    """L(N, D) of a law."""
    return law["E"] + law["A"] / N ** law["alpha"] + law["B"] / D ** law["beta"]


def allocation(law):
    """The constants that decide where the optimum lies."""
    return {name: value for name, value in law.items() if name != "E"}


def best_split(law, C):
    """The N of lowest loss at C FLOPs, by a grid of logarithms refined ten times."""
    low, high = math.log(1e2), math.log(1e16)
    for _ in range(10):
        n = torch.linspace(low, high, 201, dtype=DOUBLE)
        best = int(loss(law, n.exp(), C / (6 * n.exp())).argmin())
        low, high = n[max(best - 1, 0)].item(), n[min(best + 1, 200)].item()
    return math.exp((low + high) / 2)


# ------------------------------------------------------------------------------------------ forward_flops, train_flops


def counted(cfg, T):
    """FLOPs of the matrix products of a GPT with one head, added up while they really run."""
    V, D, L, W = cfg["V"], cfg["D"], cfg["L"], cfg["F"]
    flops = []

    def times(a, *shape):
        b = torch.zeros(shape) if shape != () else a.mT
        flops.append(2 * a.shape[0] * a.shape[1] * b.shape[1])  # a multiplication and an addition for each triple
        return a @ b

    x = torch.zeros(T, D)
    for _ in range(L):
        q = [times(x, D, D) for _ in range(3)][0]  # queries, keys and values, all alike here
        P = times(q)  # (T, T): q k^T
        x = times(times(P, T, D), D, D)  # the mix of the values, then the output projection
        x = times(times(x, D, W), W, D)
    times(x, D, V)
    return sum(flops)


CONFIGS = ({"V": 50, "D": 12, "L": 3, "F": 40}, {"V": 7, "D": 10, "L": 5, "F": 13}, {"V": 31, "D": 6, "L": 1, "F": 24})


@exercise("forward_flops", weight=2)
def test_forward_flops_are_those_that_run(exercises):
    """The count is that of the products that run, for any widths and lengths."""
    for cfg, T in itertools.product(CONFIGS, (1, 5, 23)):
        exact(pure(exercises.forward_flops, cfg, T), counted(cfg, T), f"forward_flops({cfg}, {T})")


@exercise("forward_flops")
def test_forward_flops_grow_as_they_should(exercises):
    """The pairs of tokens alone grow with the square of the length."""
    for cfg in CONFIGS:
        one, two, three = (exercises.forward_flops(cfg, T) for T in (10, 20, 30))
        exact(three - 2 * two + one, 100 * 8 * cfg["L"] * cfg["D"], "the second difference over T = 10, 20, 30")
        more = exercises.forward_flops(cfg | {"V": cfg["V"] + 3}, 10) - one
        exact(more, 3 * 2 * 10 * cfg["D"], "what three more entries of the vocabulary cost")


@exercise("forward_flops")
def test_forward_flops_ignore_other_keys(exercises):
    """Heads and other keys change nothing, and the count is an int."""
    cfg = CONFIGS[0]
    got = exercises.forward_flops(cfg | {"H": 4, "hd": 3, "Hk": 2, "name": 1}, 9)
    exact((type(got), got), (int, counted(cfg, 9)), "forward_flops with further keys in cfg")


@exercise("forward_flops")
def test_training_is_three_forward_passes_without_attention(exercises):
    """Three forward passes cost 6 N D, but for the pairs of tokens."""
    for cfg, T in zip(CONFIGS, (4, 9, 30), strict=True):
        V, D, L, W = cfg["V"], cfg["D"], cfg["L"], cfg["F"]
        N = L * (4 * D * D + 2 * D * W) + V * D
        pairs = counted(cfg, T) - counted(cfg, 1) * T + L * 4 * D * T  # what is left are the 4 L D T^2 of attention
        exact(exercises.train_flops(N, T), 3 * (counted(cfg, T) - pairs), f"train_flops({N}, {T})")


@exercise("forward_flops")
def test_training_of_large_models(exercises):
    """Billions of parameters and tokens are no trouble."""
    for N, D in ((175e9, 300e9), (70e9, 1.4e12), (3, 7)):
        ratio = exercises.train_flops(N, D) / (N * D)
        holds(abs(ratio - 6) < 1e-9, f"train_flops({N:g}, {D:g}) is {ratio:g} times N D")


# --------------------------------------------------------------------------------------- fit_power_law, fit_with_floor


@exercise("fit_power_law", weight=2)
def test_power_law_is_the_least_squares_line(exercises, rng):
    """Noisy points give the straight line of least squares in logarithms."""
    for scale, b, R in ((1.0, 0.5, 9), (1e9, 0.08, 14), (1e-4, 1.7, 5)):
        x = scale * torch.exp(3 * rng.normal(R))
        y = 4 * x**-b * torch.exp(0.3 * rng.normal(R))
        slope, intercept = np.polyfit(x.log().numpy(), y.log().numpy(), 1)
        a, got = pure(exercises.fit_power_law, x, y)
        roughly(got, -slope, 1e-8, "b of fit_power_law")  # polyfit itself is good to about 1e-12 here
        roughly(math.log(a), intercept, 1e-7, "ln a of fit_power_law")
        holds(isinstance(a, float) and isinstance(got, float), "fit_power_law returns two floats.")


@exercise("fit_power_law")
def test_power_law_of_rising_and_constant_data(exercises):
    """What rises has a negative exponent, what stays has none."""
    x = torch.tensor([2.0, 3.0, 7.0, 20.0], dtype=DOUBLE)
    for a, b in ((0.3, -0.6), (5.0, 0.0), (2.0, 1.5)):
        roughly(exercises.fit_power_law(x, a * x**-b), (a, b), 1e-8, f"fit_power_law of {a} x^{-b}")


@exercise("fit_power_law")
def test_power_law_in_other_units(exercises, rng):
    """Another unit of x changes a alone; another unit of y multiplies it."""
    x = torch.exp(2 * rng.normal(8))
    y = 3 * x**-0.4 * torch.exp(0.2 * rng.normal(8))
    a, b = exercises.fit_power_law(x, y)
    roughly(exercises.fit_power_law(1000 * x, y), (a * 1000**b, b), 1e-7, "fit_power_law(1000 x, y)")
    roughly(exercises.fit_power_law(x, 50 * y), (50 * a, b), 1e-7, "fit_power_law(x, 50 y)")
    order = rng.permutation(8)
    roughly(exercises.fit_power_law(x[order], y[order]), (a, b), 1e-8, "fit_power_law of shuffled points")


FLOORS = (
    (1.7, 6.0, 0.5, 1, 200),
    (2.0, 400.0, 0.34, 1e7, 1e11),
    (0.4, 900.0, 1.3, 30, 3000),
    (0.1, 20.0, 0.15, 10, 1e9),
)


@exercise("fit_power_law", weight=2)
@pytest.mark.parametrize(("E", "a", "b", "low", "high"), FLOORS)
def test_floor_is_recovered(exercises, rng, E, a, b, low, high):
    """Without noise floor, factor and exponent come back."""
    x = torch.logspace(math.log10(low), math.log10(high), 11, dtype=DOUBLE)[rng.permutation(11)]
    got = pure(exercises.fit_with_floor, x, E + a / x**b)
    for name, value, expected in zip("Eab", got, (E, a, b), strict=True):
        roughly(value, expected, 1e-3 * expected, f"{name} of fit_with_floor on {E} + {a} / x^{b}")


@exercise("fit_power_law", weight=2)
@pytest.mark.parametrize(("E", "a", "b", "low", "high"), FLOORS[:3])
def test_floor_has_the_least_squares(exercises, rng, E, a, b, low, high):
    """With noise no other floor, factor and exponent fit better."""
    x = torch.logspace(math.log10(low), math.log10(high), 30, dtype=DOUBLE)
    y = (E + a / x**b) * torch.exp(0.01 * rng.normal(30))
    got_E, got_a, got_b = exercises.fit_with_floor(x, y)
    got = ((got_E + got_a / x**got_b - y) ** 2).sum().item()
    z = (x / x.mean()) ** -torch.linspace(0.02, 2, 4000, dtype=DOUBLE)[:, None]  # every exponent, its best line
    columns = torch.stack([torch.ones_like(z), z], -1)
    line = torch.linalg.lstsq(columns, y[:, None].expand(4000, 30, 1)).solution
    least = ((columns @ line)[..., 0] - y).square().sum(-1).min().item()
    holds(got <= 1.001 * least, f"The sum of squares is {got:.6g}, but {least:.6g} can be reached.")


@exercise("fit_power_law")
def test_floor_of_a_pure_power_law(exercises):
    """A law without a floor gets one of zero."""
    x = torch.logspace(0, 4, 9, dtype=DOUBLE)
    y = 7 / x**0.6
    E, a, b = exercises.fit_with_floor(x, y)
    roughly(E, 0.0, 1e-3 * y.min().item(), "E of fit_with_floor on 7 / x^0.6")
    roughly((a, b), (7.0, 0.6), 7e-3, "a and b of fit_with_floor on 7 / x^0.6")


@exercise("fit_power_law")
def test_floor_from_few_points(exercises):
    """Floor and exponent are fitted together, also with few points."""
    x = torch.tensor([64.0, 1.0, 16.0, 4.0], dtype=DOUBLE)
    roughly(exercises.fit_with_floor(x, 3 + 2 / x**0.25), (3.0, 2.0, 0.25), 3e-3, "fit_with_floor of four points")
    E, a, b = exercises.fit_with_floor(1000 * x, 3 + 2 / x**0.25)
    roughly((E, b), (3.0, 0.25), 3e-3, "E and b with x in other units")
    roughly(a / 1000**b, 2.0, 5e-3, "a, taken back to the old units")


# -------------------------------------------------------------- chinchilla_optimal, tokens_per_param, undertraining


@exercise("chinchilla_optimal", weight=3)
def test_no_split_of_the_budget_is_better(exercises):
    """The split is that of lowest loss among all that cost C."""
    for law, C in itertools.product(LAWS, (1e12, 1e18, 5.8e23, 1e26)):
        N, D = exercises.chinchilla_optimal(C, **allocation(law))
        holds(abs(6 * N * D / C - 1) < 1e-9, f"6 N D is {6 * N * D:.6g}, but C is {C:.6g}.")
        ratio = N / best_split(law, C)  # the grid's last step is far below 1e-6, but L is flat near its minimum
        holds(abs(ratio - 1) < 1e-4, f"At C={C:g} under {law}, N is {ratio:.6g} times the best size.")


@exercise("chinchilla_optimal")
def test_optimum_is_not_rounded(exercises):
    """Small budgets give fractions of parameters and of tokens."""
    law = {"E": 1.0, "A": 4.0, "B": 3.0, "alpha": 0.5, "beta": 0.45}
    for C in (7e4, 9e4, 1.3e5):
        N, D = exercises.chinchilla_optimal(C, **allocation(law))
        best = best_split(law, C)
        roughly((N, D), (best, C / (6 * best)), 0.01, f"chinchilla_optimal({C:g})")  # the grid is good to about 0.0001


@exercise("chinchilla_optimal")
def test_optimum_grows_as_a_power_of_compute(exercises):
    """A hundred times the compute multiplies N by 100^(beta/(alpha+beta))."""
    for law in LAWS:
        small, large = (exercises.chinchilla_optimal(C, **allocation(law)) for C in (3e20, 3e22))
        total = law["alpha"] + law["beta"]
        for name, one, other, power in zip("ND", small, large, (law["beta"], law["alpha"]), strict=True):
            roughly(math.log(other / one, 100), power / total, 1e-9, f"the exponent of {name} under {law}")


@exercise("chinchilla_optimal")
def test_tokens_per_param_is_a_ratio(exercises):
    """It is tokens over parameters, not rounded."""
    for N, D in ((175e9, 300e9), (8e9, 15e12), (3.0, 2.0)):
        close(exercises.tokens_per_param(N, D), D / N, f"tokens_per_param({N:g}, {D:g})")


@exercise("chinchilla_optimal", weight=2)
def test_undertraining_compares_with_the_best_tokens(exercises):
    """It is the best number of tokens for the same compute over D."""
    for law, (N, D) in itertools.product(LAWS, ((175e9, 300e9), (8e9, 15e12), (2e7, 3e9))):
        C = 6 * N * D
        expected = C / (6 * best_split(law, C)) / D
        got = exercises.undertraining(N, D, **allocation(law))
        holds(abs(got / expected - 1) < 1e-4, f"undertraining({N:g}, {D:g}) under {law}: {got:g}, not {expected:g}")


@exercise("chinchilla_optimal")
def test_undertraining_has_the_stated_defaults(exercises):
    """Without constants it uses the refit of 2024."""
    for N, D in ((280e9, 300e9), (1e9, 1e12)):
        expected = exercises.undertraining(N, D, 482.01, 2085.43, 0.3478, 0.3658)
        close(exercises.undertraining(N, D), expected, f"undertraining({N:g}, {D:g}) without constants")
        C = 6 * N * D
        ratio = exercises.undertraining(N, D) * D * 6 * best_split(LAWS[1], C) / C
        holds(abs(ratio - 1) < 1e-4, f"undertraining({N:g}, {D:g}) is {ratio:g} times what the refit says")


@exercise("chinchilla_optimal")
def test_an_optimal_model_is_not_undertrained(exercises):
    """At the optimum it is one; more tokens than that give less than one."""
    for law in LAWS:
        N, D = exercises.chinchilla_optimal(1e22, **allocation(law))
        roughly(exercises.undertraining(N, D, **allocation(law)), 1.0, 1e-9, "undertraining at the optimum")
        few, many = (exercises.undertraining(N, c * D, **allocation(law)) for c in (0.1, 10))
        holds(few > 1 > many, f"A tenth of the tokens gives {few:.3g}, ten times the tokens {many:.3g}.")


# ------------------------------------------------------------------------------------- fit_chinchilla, isoflop_minimum


def runs(rng, law, sizes, tokens):
    """A grid of runs in random order, without noise."""
    pairs = torch.tensor(list(itertools.product(sizes, tokens)), dtype=DOUBLE)[
        rng.permutation(len(sizes) * len(tokens))
    ]
    return pairs[:, 0], pairs[:, 1], loss(law, pairs[:, 0], pairs[:, 1])


def fitted(exercises, N, D, L):
    """What fit_chinchilla returns, once it is known to be five positive floats."""
    law = pure(exercises.fit_chinchilla, N, D, L)
    exact(sorted(law), ["A", "B", "E", "alpha", "beta"], "the keys of what fit_chinchilla returns")
    fine = all(isinstance(value, float) and 0 < value < math.inf for value in law.values())
    holds(fine, f"All constants are positive floats, but {law} came back.")
    return law


def objective(law, N, D, L):
    """The mean Huber loss, d = 0.001, of the residuals of ln L."""
    return F.huber_loss(loss(law, N, D).log(), L.log(), delta=1e-3)


def polished(law, N, D, L):
    """The lowest objective that a descent from these constants reaches, by reweighted Gauss-Newton steps."""
    law, best, length = dict(law), objective(law, N, D, L).item(), 1.0
    for _ in range(40):
        a, b = law["A"] / N ** law["alpha"], law["B"] / D ** law["beta"]
        slopes = [torch.full_like(L, law["E"]), a, b, -a * law["alpha"] * N.log(), -b * law["beta"] * D.log()]
        J = torch.stack(slopes, -1) / loss(law, N, D)[:, None]  # of ln L with respect to relative changes
        r = loss(law, N, D).log() - L.log()
        root = (1e-3 / r.abs()).clamp(max=1.0).sqrt()[:, None]
        step = length * torch.linalg.lstsq(root * J, root * r[:, None]).solution[:, 0]
        trial = {name: law[name] * math.exp(-s) for name, s in zip(("E", "A", "B", "alpha", "beta"), step, strict=True)}
        value = objective(trial, N, D, L).item()
        law, best, length = (trial, value, 1.0) if value < best else (law, best, length / 2)
    return best


LARGE = ([6e7, 3e8, 1e9, 4e9, 1.6e10], [3e9, 1e10, 4e10, 1.5e11, 6e11, 2e12])
SMALL = ([1e3, 4e3, 1.6e4, 7e4], [1.6e4, 6.5e4, 2.6e5, 1e6, 4e6])


@exercise("fit_chinchilla", weight=3)
@pytest.mark.parametrize(
    ("law", "grid"), [(LAWS[0], LARGE), ({"E": 1.2, "A": 9, "B": 40, "alpha": 0.3, "beta": 0.42}, SMALL)]
)
def test_known_surface_is_recovered(exercises, rng, law, grid):
    """Without noise, floor and exponents come back, whatever the scale."""
    N, D, L = runs(rng, law, *grid)
    got = fitted(exercises, N, D, L)
    for name in ("E", "alpha", "beta"):
        roughly(got[name], law[name], 0.005, f"{name} fitted to runs under {law}")
    worst = (loss(got, N, D) / L - 1).abs().max().item()
    holds(worst < 1e-3, f"The fitted law misses a run without noise by {worst:.2%}.")


@exercise("fit_chinchilla")
@pytest.mark.parametrize("noise", [0.005, 0.0006])  # well beyond the knee of the Huber loss, and below it
def test_fit_reaches_the_least_objective(exercises, rng, noise):
    """With noise, neither the truth nor a further descent does better."""
    N, D, L = runs(rng, LAWS[1], *LARGE)
    L = L * torch.exp(noise * rng.normal(len(L)))
    got = fitted(exercises, N, D, L)
    value, truth, further = objective(got, N, D, L).item(), objective(LAWS[1], N, D, L).item(), polished(got, N, D, L)
    holds(value <= 1.01 * truth, f"The objective is {value:.4g}, but the constants behind the runs give {truth:.4g}.")
    holds(value <= 1.01 * further, f"The objective is {value:.4g}, but a further descent reaches {further:.4g}.")


@exercise("fit_chinchilla")
def test_residuals_are_ratios(exercises):
    """A run at low loss counts as much as one at high loss."""
    law = {"E": 0.4, "A": 9.0, "B": 300.0, "alpha": 0.3, "beta": 0.5}  # losses from 0.85 to 3.7
    N, D = torch.tensor(list(itertools.product(*SMALL)), dtype=DOUBLE).unbind(1)
    # Noise for which the best fit of the losses themselves is 7 % worse, measured by the ratios, than the best fit.
    L = loss(law, N, D) * torch.exp(0.02 * torch.randn(20, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)))
    got = fitted(exercises, N, D, L)
    value, further = objective(got, N, D, L).item(), polished(got, N, D, L)
    holds(value <= 1.01 * further, f"The objective is {value:.4g}, but a further descent reaches {further:.4g}.")


@exercise("fit_chinchilla", weight=2)
def test_a_few_bad_runs_do_not_spoil_the_fit(exercises, rng):
    """Runs that diverged hardly move the law."""
    law = {"E": 1.5, "A": 12, "B": 60, "alpha": 0.35, "beta": 0.4}
    N, D, L = runs(rng, law, *SMALL)
    L = L * torch.exp(3e-4 * rng.normal(len(L)))
    L[:3] *= torch.tensor([1.3, 1.15, 1.5], dtype=DOUBLE)
    got = fitted(exercises, N, D, L)
    # Noise of 0.03 % moves the exponents by about 0.005 here; squared errors let the bad runs move them by 0.1.
    for name, within in (("E", 0.05), ("alpha", 0.03), ("beta", 0.03)):
        roughly(got[name], law[name], within, f"{name}, with three runs of twenty far too high")


@exercise("fit_chinchilla", weight=2)
def test_parabola_has_its_bottom_where_least_squares_says(exercises, rng):
    """The bottom is that of the best parabola in the logarithm of N."""
    for scale, R in ((1e9, 7), (50.0, 4), (1e5, 12)):
        N = scale * torch.exp(1.5 * rng.normal(R))
        L = 2 + 0.1 * (N / scale).log() ** 2 - 0.05 * (N / scale).log() + 0.01 * rng.normal(R)
        square, linear, _ = np.polyfit(np.log(N.numpy() / scale), L.numpy(), 2)
        got = pure(exercises.isoflop_minimum, N, L)
        roughly(math.log(got / scale), -linear / (2 * square), 1e-6, "ln of isoflop_minimum, shifted")
        holds(isinstance(got, float), "isoflop_minimum returns a float.")


@exercise("fit_chinchilla")
def test_parabola_need_not_be_centred(exercises):
    """Three points decide it; the bottom may lie between or beyond them."""
    for bottom, sizes in ((3e8, (1e8, 2e8, 9e8)), (2e9, (1e8, 4e8, 1e9)), (500.0, (1e3, 5e3, 6e4))):
        N = torch.tensor(sizes, dtype=DOUBLE)
        got = exercises.isoflop_minimum(N, 3 + 0.2 * (N / bottom).log() ** 2)
        holds(abs(got / bottom - 1) < 1e-6, f"The bottom at {bottom:g} was found at {got:g}.")


@exercise("fit_chinchilla")
def test_parabola_without_a_bottom_is_refused(exercises):
    """Losses that bulge upwards are a ValueError."""
    N = torch.tensor([1e6, 1e7, 1e8, 1e9], dtype=DOUBLE)
    for L in ([2.0, 3.0, 3.1, 2.2], [3.0, 2.9, 2.7, 2.4]):
        with pytest.raises(ValueError):
            exercises.isoflop_minimum(N, torch.tensor(L, dtype=DOUBLE))


# --------------------------------------------------------------------------------------------------------- moe_forward


def make_experts(rng, E, D):
    """E experts that differ, row by row and not linear, and the weights behind them."""
    matrices = rng.normal(E, D, D)
    return [lambda h, W=W: torch.tanh(h @ W.to(h.dtype)) + 0.5 for W in matrices], matrices


def dense_mixture(x, W_gate, experts, k):
    """All experts on all tokens; all scores but the k largest are set to minus infinity."""
    scores = x @ W_gate
    kept = scores >= scores.sort(dim=-1, descending=True).values[:, k - 1 : k]
    weights = scores.masked_fill(~kept, -math.inf).softmax(-1)  # (N, E)
    return torch.einsum("ne,end->nd", weights, torch.stack([expert(x) for expert in experts]))


@exercise("moe_forward", weight=3)
@pytest.mark.parametrize(("N", "D", "E", "k"), [(9, 4, 5, 2), (7, 3, 6, 3), (5, 6, 4, 4), (8, 2, 3, 1), (1, 5, 2, 2)])
def test_moe_is_a_dense_mixture_with_the_rest_at_minus_infinity(exercises, rng, N, D, E, k):
    """It equals all experts mixed by a softmax in which k scores survive."""
    x, W_gate, (experts, _) = rng.normal(N, D), rng.normal(D, E) / D**0.5, make_experts(rng, E, D)
    got = exercises.moe_forward(x, W_gate, experts, k)
    close(got, dense_mixture(x, W_gate, experts, k), f"moe_forward of {N} tokens, {k} of {E} experts")


@exercise("moe_forward", weight=2)
def test_moe_calls_only_the_selected_experts(exercises, rng):
    """Each expert sees exactly the tokens that selected it, each once."""
    x, W_gate, (experts, _) = rng.uniform(8, 3) + 0.1, rng.normal(3, 5), make_experts(rng, 5, 3)
    W_gate[:, 2] = -9.0  # positive tokens never select expert 2
    counted_experts = [counting(expert) for expert in experts]
    exercises.moe_forward(x, W_gate, counted_experts, 2)
    chosen = (x @ W_gate).argsort(dim=-1, descending=True)[:, :2]
    exact(counted_experts[2].calls, 0, "calls of an expert that no token selected")
    for e in (0, 1, 3, 4):
        seen = [row for arguments in counted_experts[e].arguments for row in arguments[0].tolist()]
        wanted = x[(chosen == e).any(dim=-1)].tolist()
        exact(sorted(seen), sorted(wanted), f"the rows that expert {e} was called with")


@exercise("moe_forward")
def test_moe_does_not_care_how_experts_are_numbered(exercises, rng):
    """Moving experts together with their columns changes nothing."""
    x, W_gate, (experts, _) = rng.normal(6, 4), rng.normal(4, 5), make_experts(rng, 5, 4)
    order = rng.permutation(5).tolist()
    got = exercises.moe_forward(x, W_gate[:, order], [experts[e] for e in order], 2)
    close(got, exercises.moe_forward(x, W_gate, experts, 2), f"moe_forward with experts in the order {order}")


@exercise("moe_forward")
def test_moe_treats_each_token_by_itself(exercises, rng):
    """Changing one token leaves the others alone; no tokens give none."""
    x, W_gate, (experts, _) = rng.normal(7, 3), rng.normal(3, 4), make_experts(rng, 4, 3)
    before = exercises.moe_forward(x, W_gate, experts, 2)
    x[3] += 2.0
    after = exercises.moe_forward(x, W_gate, experts, 2)
    others = torch.arange(7) != 3
    close(after[others], before[others], "the tokens that were not changed")
    exact(exercises.moe_forward(x[:0], W_gate, experts, 2), x[:0], "moe_forward of no tokens")


@exercise("moe_forward")
def test_moe_survives_large_scores(exercises, rng):
    """Scores in the thousands give finite weights, in either precision."""
    for dtype in (torch.float32, DOUBLE):
        x, (experts, _) = rng.normal(6, 3).to(dtype), make_experts(rng, 4, 3)
        for shift in (-3000.0, 3000.0):
            x[:, 0], W_gate = shift, rng.normal(3, 4).to(dtype)
            W_gate[0] = 1 + 1e-4 * torch.arange(4).to(dtype)  # scores near the shift, within 1 of each other
            W_gate[1:] *= 0.3
            got = exercises.moe_forward(x, W_gate, experts, 2)
            # float32 scores of size 3000 are good to 2e-4, so weights and outputs to about as much
            within = 2e-3 if dtype == torch.float32 else 1e-9
            roughly(got, dense_mixture(x, W_gate, experts, 2), within, f"{dtype} moe_forward, scores near {shift:g}")


@exercise("moe_forward")
def test_moe_needs_a_possible_k(exercises, rng):
    """No experts, or more than there are, is a ValueError."""
    x, W_gate, (experts, _) = rng.normal(2, 3), rng.normal(3, 4), make_experts(rng, 4, 3)
    for k in (0, 5, -1):
        with pytest.raises(ValueError):
            exercises.moe_forward(x, W_gate, experts, k)


@driver
def moe_gradients(module, x, W_gate, matrices, dO, k):
    """Gradients of sum(moe_forward * dO) with respect to x, the gate and the experts' matrices."""
    import torch

    x, W_gate, matrices = (t.clone().requires_grad_(True) for t in (x, W_gate, matrices))
    experts = [lambda h, W=W: torch.tanh(h @ W) + 0.5 for W in matrices]
    (module.moe_forward(x, W_gate, experts, k) * dO).sum().backward()
    return x.grad, W_gate.grad, matrices.grad


@driver
def moe_leaves_inputs(module, x, W_gate, k):
    """Whether x and W_gate are as they were."""
    import torch

    kept = x.clone(), W_gate.clone()
    module.moe_forward(x, W_gate, [lambda h: 2 * h for _ in range(W_gate.shape[1])], k)
    return torch.equal(x, kept[0]), torch.equal(W_gate, kept[1])


@exercise("moe_forward")
def test_moe_leaves_its_inputs_alone(exercises, rng):
    """Neither the tokens nor the router are changed."""
    got = exercises.run(moe_leaves_inputs, rng.normal(5, 3), rng.normal(3, 4), 2)
    exact(got, (True, True), "whether x and W_gate are unchanged")


@exercise("moe_forward", weight=2)
def test_moe_gradients_reach_tokens_gate_and_experts(exercises, rng):
    """All gradients are those of the dense mixture."""
    x, W_gate, matrices, dO = rng.normal(7, 3), rng.normal(3, 5), rng.normal(5, 3, 3), rng.normal(7, 3)
    got = exercises.run(moe_gradients, x, W_gate, matrices, dO, 2)
    leaves = [t.clone().requires_grad_(True) for t in (x, W_gate, matrices)]
    experts = [lambda h, W=W: torch.tanh(h @ W) + 0.5 for W in leaves[2]]
    (dense_mixture(leaves[0], leaves[1], experts, 2) * dO).sum().backward()
    for name, one, leaf in zip(("x", "W_gate", "the experts"), got, leaves, strict=True):
        holds(one is not None, f"No gradient reaches {name}.")
        close(one, leaf.grad, f"the gradient with respect to {name}")


# ------------------------------------------------------------------------------------------------- load_balancing_loss


def balance_by_loops(probs, idx, E):
    """E times the sum of f_i P_i of one layer, by counting."""
    N, k = idx.shape
    f = [sum(int(i) == e for i in idx.flatten()) / (N * k) for e in range(E)]
    return E * sum(f[e] * probs[:, e].sum().item() / N for e in range(E))


def near(got, expected, what):
    """Shares that are divided in float32 are good to 1e-7; every wrong formula is off by more than 1e-4."""
    roughly(got, expected, 1e-6, what)


@exercise("load_balancing_loss", weight=3)
@pytest.mark.parametrize(("N", "E", "k"), [(9, 5, 2), (4, 7, 1), (11, 3, 3), (6, 8, 4)])
def test_balance_of_any_routing(exercises, rng, N, E, k):
    """It is E times the sum of shares times mean probabilities."""
    probs = (1.5 * rng.normal(N, E)).softmax(-1)
    idx = probs.topk(k, dim=-1).indices
    got = pure(exercises.load_balancing_loss, probs, idx, E)
    near(got, torch.tensor(balance_by_loops(probs, idx, E), dtype=DOUBLE), f"the loss of {N} tokens, {k} of {E}")
    random = torch.stack([rng.permutation(E)[:k] for _ in range(N)])  # choices that do not follow the probabilities
    got = exercises.load_balancing_loss(probs, random, E)
    near(got, torch.tensor(balance_by_loops(probs, random, E), dtype=DOUBLE), "the loss of choices made elsewhere")


@exercise("load_balancing_loss")
def test_balance_is_one_when_even_and_large_when_not(exercises):
    """Even routing gives one for every k; one favourite gives E times its P."""
    for E, k in ((4, 1), (6, 2), (5, 3)):
        idx = torch.tensor([[(t + j) % E for j in range(k)] for t in range(2 * E)])
        even = torch.full((2 * E, E), 1 / E, dtype=DOUBLE)
        near(exercises.load_balancing_loss(even, idx, E), torch.tensor(1.0, dtype=DOUBLE), f"even, {k} of {E}")
    probs = torch.tensor([[0.7, 0.1, 0.1, 0.1]] * 3, dtype=DOUBLE)
    got = exercises.load_balancing_loss(probs, torch.zeros(3, 1, dtype=torch.int64), 4)
    near(got, torch.tensor(2.8, dtype=DOUBLE), "all tokens at expert 0, which has probability 0.7")


@exercise("load_balancing_loss")
def test_balance_does_not_depend_on_the_number_of_tokens(exercises, rng):
    """Seeing the same tokens three times changes nothing, in float32 too."""
    probs = rng.normal(5, 6).softmax(-1)
    idx = probs.topk(2, dim=-1).indices
    one, three = (exercises.load_balancing_loss(probs.repeat(n, 1), idx.repeat(n, 1), 6) for n in (1, 3))
    near(three, one, "the loss of the same tokens three times")
    near(exercises.load_balancing_loss(probs.float(), idx, 6), one.float(), "the loss in float32")


@exercise("load_balancing_loss", weight=2)
def test_balance_is_judged_layer_by_layer(exercises, rng):
    """Layers that are uneven in opposite ways do not cancel."""
    probs = (1.5 * rng.normal(3, 8, 5)).softmax(-1)
    idx = probs.topk(2, dim=-1).indices
    each = torch.tensor([balance_by_loops(p, i, 5) for p, i in zip(probs, idx, strict=True)], dtype=DOUBLE)
    near(pure(exercises.load_balancing_loss, probs, idx, 5), each.mean(), "the loss of three layers")
    opposite = torch.tensor([[[0.9, 0.1]] * 4, [[0.1, 0.9]] * 4], dtype=DOUBLE)
    choice = torch.tensor([[[0]] * 4, [[1]] * 4])
    got = exercises.load_balancing_loss(opposite, choice, 2)
    near(got, torch.tensor(1.8, dtype=DOUBLE), "one layer all for expert 0, the other all for expert 1")


@driver
def balance_gradient(module, probs, idx, E):
    """The gradient of the loss with respect to the probabilities."""
    probs = probs.clone().requires_grad_(True)
    loss = module.load_balancing_loss(probs, idx, E)
    if not loss.requires_grad:
        return None
    loss.backward()
    return probs.grad


@exercise("load_balancing_loss", weight=2)
def test_balance_pushes_down_the_busy_experts(exercises, rng):
    """The gradient is E f_i / N: it flows through the mean probabilities."""
    probs = (2 * rng.normal(6, 4)).softmax(-1)
    idx = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1], [2, 0], [1, 0]])
    f = torch.tensor([6, 4, 2, 0], dtype=DOUBLE) / 12
    got = exercises.run(balance_gradient, probs, idx, 4)
    holds(got is not None, "No gradient reaches router_probs.")
    near(got, (4 * f / 6).expand(6, 4).contiguous(), "the gradient with respect to router_probs")


# ------------------------------------------------------------------------------------------------ dispatch, moe_params


def queues(idx, weights, capacity, E):
    """A selection is served if fewer than `capacity` earlier tokens selected the same expert."""
    N = len(idx)
    earlier = [[sum(e in idx[s].tolist() for s in range(t)) for e in range(E)] for t in range(N)]
    served = [
        (t, int(e), float(w))
        for t in range(N)
        for e, w in zip(idx[t], weights[t], strict=True)
        if earlier[t][int(e)] < capacity
    ]
    assignment = [[(t, w) for t, expert, w in served if expert == e] for e in range(E)]
    return assignment, [t for t in range(N) if t not in {s[0] for s in served}]


@exercise("dispatch", weight=3)
@pytest.mark.parametrize(
    ("N", "E", "k", "factor", "capacity"),
    [
        (9, 4, 2, 1.0, 5),
        (12, 5, 1, 0.5, 2),
        (7, 3, 2, 0.25, 2),
        (10, 6, 3, 1.25, 7),
        (1, 8, 1, 1.0, 1),
        (8, 4, 1, 1.0, 2),
    ],
)
def test_dispatch_fills_queues_in_order(exercises, rng, N, E, k, factor, capacity):
    """An expert serves its first tokens, up to its capacity rounded up."""
    idx = torch.stack([torch.multinomial(1.0 / torch.arange(1, E + 1), k, generator=rng.generator()) for _ in range(N)])
    idx[: N // 2 + 1, 0], weights = 0, rng.uniform(N, k) + 0.1  # expert 0 is asked for too often
    if k > 1:
        idx[: N // 2 + 1, 1:] = torch.arange(1, k)
    got = pure(exercises.dispatch, idx, weights, factor, E)
    exact(got, queues(idx, weights, capacity, E), f"dispatch of {N} tokens to {k} of {E} experts, factor {factor}")


@exercise("dispatch")
def test_dispatch_keeps_what_a_token_has_left(exercises):
    """A token is dropped only if it loses all its experts; weights stay."""
    idx, weights = torch.tensor([[0, 1], [0, 2], [1, 0], [0, 1]]), torch.tensor([[0.5, 0.5], [0.75, 0.25]] * 2)
    got = exercises.dispatch(idx, weights, 0.25, 4)  # room for one
    exact(got, ([[(0, 0.5)], [(0, 0.5)], [(1, 0.25)], []], [2, 3]), "dispatch with room for one token an expert")
    got = exercises.dispatch(idx, weights, 0.75, 4)  # room for two
    exact(got, ([[(0, 0.5), (1, 0.75)], [(0, 0.5), (2, 0.5)], [(1, 0.25)], []], [3]), "dispatch with room for two")


@exercise("dispatch")
def test_dispatch_of_balanced_tokens_drops_none(exercises, rng):
    """Balanced tokens all fit at factor one, and so do no tokens at all."""
    for E, k in ((5, 2), (3, 1), (4, 4)):
        idx = torch.tensor([[(t + j) % E for j in range(k)] for t in range(3 * E)])
        assignment, dropped = exercises.dispatch(idx, rng.uniform(3 * E, k), 1.0, E)
        exact(([len(queue) for queue in assignment], dropped), ([3 * k] * E, []), f"balanced tokens, {k} of {E}")
    empty = torch.zeros(0, 2)
    exact(exercises.dispatch(empty.long(), empty, 1.0, 3), ([[], [], []], []), "dispatch of no tokens")


MIXTRAL = {"V": 32000, "D": 4096, "L": 32, "H": 32, "Hk": 8, "hd": 128, "F": 14336, "E": 8, "k": 2}
MOES = (
    {"V": 11, "D": 6, "L": 3, "H": 4, "Hk": 2, "hd": 5, "F": 7, "E": 9, "k": 2},
    {"V": 100, "D": 8, "L": 2, "H": 2, "Hk": 1, "hd": 3, "F": 20, "E": 4, "k": 4},
    {"V": 13, "D": 10, "L": 5, "H": 3, "Hk": 3, "hd": 4, "F": 9, "E": 16, "k": 1},
    MIXTRAL,
)


def built(cfg, experts):
    """Parameters of a model of which each matrix is really made, without memory, with so many experts a layer."""
    V, D, H, Hk, hd, W = (cfg[name] for name in ("V", "D", "H", "Hk", "hd", "F"))
    layer = [(D, H * hd), (D, Hk * hd), (D, Hk * hd), (H * hd, D), (D, cfg["E"]), (D,), (D,)] + 3 * experts * [(D, W)]
    shapes = [(V, D), (D,), (D, V)] + cfg["L"] * layer
    return sum(torch.empty(shape, device="meta").numel() for shape in shapes)


@exercise("dispatch", weight=2)
def test_moe_params_are_those_of_the_built_model(exercises):
    """Total and active are sums over the matrices of the model."""
    for cfg in MOES:
        got = pure(exercises.moe_params, cfg)
        exact(got, (built(cfg, cfg["E"]), built(cfg, cfg["k"])), f"moe_params({cfg})")
        holds(all(type(n) is int for n in got), "moe_params returns two ints.")


@exercise("dispatch")
def test_moe_params_of_a_published_model(exercises):
    """The shape of Mixtral 8x7B has the published sizes, in billions."""
    total, active = exercises.moe_params(MIXTRAL)
    exact((round(total / 1e9, 1), round(active / 1e9, 1)), (46.7, 12.9), "billions in total and active")


@exercise("dispatch")
def test_moe_params_pay_for_all_experts(exercises):
    """More experts cost memory, more experts a token cost only activity."""
    for cfg in MOES:
        (total, active), (more, same) = exercises.moe_params(cfg), exercises.moe_params(cfg | {"E": cfg["E"] + 2})
        router = 2 * cfg["L"] * cfg["D"]
        exact(
            (more - total, same - active), (2 * cfg["L"] * 3 * cfg["D"] * cfg["F"] + router, router), "two more experts"
        )
        exact(exercises.moe_params(cfg | {"k": cfg["E"]}), (total, total), "with all experts active")


# --------------------------------------------------------------------------------- exact_match_rate, emergence_point


@exercise("exact_match_rate", weight=2)
def test_exact_match_sums_over_all_right(exercises):
    """It is the probability that every one of the tokens is right."""
    for p, length in itertools.product((0.0, 0.3, 0.9, 1.0), (1, 2, 7)):
        chances = [
            math.prod(p if right else 1 - p for right in answer) * all(answer)
            for answer in itertools.product((True, False), repeat=length)
        ]
        got = exercises.exact_match_rate(p, length)
        holds(isinstance(got, float), f"exact_match_rate({p}, {length}) is a float.")
        roughly(got, sum(chances), 1e-12, f"exact_match_rate({p}, {length})")


@exercise("exact_match_rate")
def test_exact_match_takes_tensors(exercises, rng):
    """A tensor gives a tensor of its shape and dtype, entry by entry."""
    for dtype, length in ((DOUBLE, 5), (torch.float32, 40), (DOUBLE, 1), (DOUBLE, 0)):
        p = (0.9 + 0.1 * rng.uniform(3, 4)).to(dtype)
        expected = torch.ones_like(p)
        for _ in range(length):
            expected = expected * p
        close(pure(exercises.exact_match_rate, p, length), expected, f"exact_match_rate of a {dtype}, length {length}")
    exact(exercises.exact_match_rate(0.4, 0), 1.0, "exact_match_rate of an empty answer")


@exercise("exact_match_rate")
def test_exact_match_has_no_jump_in_logarithms(exercises):
    """The logarithm of the rate is proportional to the length."""
    for p in (0.5, 0.93):
        logs = [math.log(exercises.exact_match_rate(p, length)) for length in (1, 10, 200)]
        roughly(logs, [length * math.log(p) for length in (1, 10, 200)], 1e-9, f"ln exact_match_rate({p}, length)")


@exercise("exact_match_rate", weight=2)
def test_emergence_point_is_the_first_that_reaches_the_level(exercises, rng):
    """It is the smallest size that reaches the level, in any order given."""
    sizes = [float(size) for size in (10 ** torch.linspace(6, 12, 25, dtype=DOUBLE))[rng.permutation(25)]]
    curve = lambda N: 1 / (1 + (N / 3e8) ** -0.7)  # noqa: E731
    for length, level in itertools.product((1, 4, 30), (0.05, 0.5, 0.9)):
        able = [N for N in sizes if curve(N) ** length >= level]
        got = exercises.emergence_point(sizes, curve, length, level)
        exact(got, min(able) if able else None, f"emergence_point with {length} tokens at level {level}")


@exercise("exact_match_rate")
def test_emergence_point_includes_the_level_itself(exercises):
    """Reaching the level exactly is enough; never reaching it gives None."""
    table = {1: 0.25, 2: 0.5, 4: 0.25, 8: 0.75, 16: 0.5}
    for length, level, expected in (
        (1, 0.25, 1),
        (2, 0.25, 2),
        (1, 0.75, 8),
        (3, 0.125, 2),
        (1, 0.76, None),
        (2, 0.0625, 1),
    ):
        got = exercises.emergence_point([16, 4, 1, 8, 2], table.get, length, level)
        exact(got, expected, f"emergence_point, length {length}, level {level}, on a curve that rises and falls")
    exact(exercises.emergence_point([], table.get, 1, 0.1), None, "emergence_point of no models")
