"""Self-checks of chapter 14: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, counting, exact, exercise, holds, roughly

DOUBLE = torch.float64


@exercise("forward_flops")
def test_flops_of_one_small_layer(exercises):
    """One layer over three tokens, every product counted on paper."""
    # V = 10, D = 4, F = 16, T = 3: four 3x4x4, a 3x4x3 and a 3x3x4, a 3x4x16 and a 3x16x4, then 3x4x10
    multiplications = 4 * 48 + 36 + 36 + 192 + 192 + 120
    exact(exercises.forward_flops({"V": 10, "D": 4, "L": 1, "F": 16}, 3), 2 * multiplications, "forward_flops, T = 3")


@exercise("forward_flops")
def test_training_costs_three_passes(exercises):
    """GPT-3, 175 billion parameters and 300 billion tokens, cost 3.15e23."""
    holds(abs(exercises.train_flops(175e9, 300e9) / 3.15e23 - 1) < 1e-9, "train_flops(175e9, 300e9) is not 3.15e23.")


@exercise("fit_power_law")
def test_power_law_of_three_points(exercises):
    """Each fourfold x halves y, so the exponent is one half."""
    x, y = torch.tensor([1.0, 4, 16], dtype=DOUBLE), torch.tensor([6.0, 3, 1.5], dtype=DOUBLE)
    close(exercises.fit_power_law(x, y), (6.0, 0.5), "fit_power_law of (1, 6), (4, 3), (16, 1.5)")


@exercise("fit_power_law")
def test_ignoring_the_floor_flattens_the_law(exercises):
    """A fit without the floor makes the exponent too small."""
    x = torch.tensor([1.0, 4, 16, 64], dtype=DOUBLE)
    y = 2 + 6 / x**0.5
    E, a, b = exercises.fit_with_floor(x, y)
    roughly((E, a, b), (2.0, 6.0, 0.5), 6e-3, "fit_with_floor of 2 + 6 / x^0.5")  # a thousandth of the largest
    holds(exercises.fit_power_law(x, y)[1] < 0.7 * b, "The straight line must find less than 0.7 of the true exponent.")


@exercise("chinchilla_optimal")
def test_split_of_the_worked_example(exercises):
    """The worked example: a million pairs split into 2000 and 500."""
    N, D = exercises.chinchilla_optimal(6e6, A=4.0, B=2.0, alpha=0.5, beta=0.5)
    close((N, D), (2000.0, 500.0), "chinchilla_optimal(6e6, 4, 2, 1/2, 1/2)")


@exercise("chinchilla_optimal")
def test_neighbours_of_the_optimum_are_worse(exercises):
    """Neither a larger nor a smaller model of the same cost does better."""
    law = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}

    def loss(N, D):
        return law["E"] + law["A"] / N ** law["alpha"] + law["B"] / D ** law["beta"]

    N, D = exercises.chinchilla_optimal(1e21, law["A"], law["B"], law["alpha"], law["beta"])
    best = loss(N, D)
    holds(best < loss(1.1 * N, D / 1.1), "A model 10 % larger does better.")
    holds(best < loss(N / 1.1, 1.1 * D), "A model 10 % smaller does better.")


@exercise("chinchilla_optimal")
def test_gpt3_saw_too_few_tokens(exercises):
    """GPT-3 saw fewer than two tokens a parameter; the optimum sees more."""
    close(exercises.tokens_per_param(175e9, 300e9), 300 / 175, "tokens_per_param(175e9, 300e9)")
    holds(exercises.undertraining(175e9, 300e9) > 2, "undertraining(175e9, 300e9) is above 2 under the default law.")


@exercise("fit_chinchilla")
def test_known_constants_come_back(exercises):
    """Thirty runs on a known surface give its floor and its exponents."""
    N = torch.logspace(7, 10, 6, dtype=DOUBLE).repeat_interleave(5)
    D = torch.logspace(9, 12, 5, dtype=DOUBLE).repeat(6)
    got = exercises.fit_chinchilla(N, D, 1.69 + 406.4 / N**0.34 + 410.7 / D**0.28)
    roughly((got["E"], got["alpha"], got["beta"]), (1.69, 0.34, 0.28), 0.005, "E, alpha, beta of the fit")


@exercise("fit_chinchilla")
def test_narrow_isoflop_curve_shows_the_optimum(exercises):
    """Five models within a factor of four show the optimum to three percent."""
    C, best = 1e21, 2.5e9  # with equal exponents 1/3 and A = B * (best^2 / (C/6))^(1/3) the best size is `best`
    N = best * torch.tensor([0.5, 0.7, 1.0, 1.4, 2.0], dtype=DOUBLE)
    D = C / (6 * N)
    L = 2 + 1000 * (best**2 / (C / 6)) ** (1 / 3) / N ** (1 / 3) + 1000 / D ** (1 / 3)
    got = exercises.isoflop_minimum(N, L)
    holds(abs(got / best - 1) < 0.03, f"isoflop_minimum found {got:g}, but the best size is {best:g}.")


@exercise("moe_forward")
def test_moe_of_the_worked_example(exercises):
    """Two of three experts, weights 3/4 and 1/4."""
    experts = [lambda h: h, lambda h: 10 * h, lambda h: 100 * h]
    W_gate = torch.tensor([[math.log(3), 0.0, -2.0]], dtype=DOUBLE)
    got = exercises.moe_forward(torch.ones(1, 1, dtype=DOUBLE), W_gate, experts, 2)
    close(got, torch.tensor([[0.75 * 1 + 0.25 * 10]], dtype=DOUBLE), "moe_forward of one token")


@exercise("moe_forward")
def test_moe_leaves_the_other_experts_idle(exercises):
    """With k = 1 each expert is called with its own tokens and no others."""
    experts = [counting(lambda h: h), counting(lambda h: h), counting(lambda h: h)]
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
    exercises.moe_forward(x, torch.tensor([[5.0, 0.0, -5.0], [0.0, 5.0, -5.0]]), experts, 1)
    rows = [sorted(row for call in expert.arguments for row in call[0].tolist()) for expert in experts]
    exact(rows, [[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0]], []], "the rows that each expert was called with")


@exercise("load_balancing_loss")
def test_balance_of_even_and_uneven_routing(exercises):
    """Even routing has loss one; a favourite raises it."""
    even = torch.tensor([[0.75, 0.25], [0.25, 0.75]], dtype=DOUBLE)
    close(exercises.load_balancing_loss(even, torch.tensor([[0], [1]]), 2), torch.tensor(1.0, dtype=DOUBLE), "even")
    uneven = torch.tensor([[0.75, 0.25], [0.75, 0.25]], dtype=DOUBLE)
    got = exercises.load_balancing_loss(uneven, torch.tensor([[0], [0]]), 2)
    close(got, torch.tensor(1.5, dtype=DOUBLE), "the loss when both tokens select expert 0")


@exercise("dispatch")
def test_the_late_token_is_dropped(exercises):
    """Room for two: the third token that asks expert 0 finds none."""
    idx, weights = torch.tensor([[0], [0], [0], [1]]), torch.tensor([[0.5], [0.5], [1.0], [0.25]])
    got = exercises.dispatch(idx, weights, 1.0, 2)
    exact(got, ([[(0, 0.5), (1, 0.5)], [(3, 0.25)]], [2]), "dispatch of four tokens to two experts")


@exercise("dispatch")
def test_idle_experts_count_in_total_only(exercises):
    """With all experts active, total and active are the same."""
    cfg = {"V": 10, "D": 4, "L": 2, "H": 2, "Hk": 1, "hd": 3, "F": 5, "E": 3, "k": 3}
    total, active = exercises.moe_params(cfg)
    exact(total, active, "total and active with k = E")
    exact(total - exercises.moe_params(cfg | {"k": 1})[1], 2 * 2 * 3 * 4 * 5, "two idle experts in each of two layers")


@exercise("exact_match_rate")
@pytest.mark.parametrize(("p", "length", "expected"), [(0.5, 3, 0.125), (0.9, 2, 0.81), (0.7, 1, 0.7)])
def test_all_tokens_must_be_right(exercises, p, length, expected):
    """Chances of independent tokens multiply."""
    close(exercises.exact_match_rate(p, length), expected, f"exact_match_rate({p}, {length})")


@exercise("exact_match_rate")
def test_longer_answers_emerge_later(exercises):
    """The same smooth curve gives a later point for a longer answer."""
    points = [exercises.emergence_point([1, 2, 4, 8, 16], lambda N: N / (N + 1), k, 0.5) for k in (1, 5, 50)]
    exact(points, [1, 8, None], "where answers of 1, 5 and 50 tokens reach one half")
