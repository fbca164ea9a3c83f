"""What the figure of chapter 25 computes and says, held against the reference."""

import math
from itertools import pairwise

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
BAR = reference.alpha_bar_of(reference.linear_betas(100, 0.001, 0.15))
CENTRES = torch.tensor([[0.0, 1.0], [-0.87, -0.5], [0.87, -0.5]], dtype=torch.float64)


def guessed_noise(xt, a, centres, spread):
    """Give the best guess of the noise, minus sqrt(1 - a) times the gradient of the log-density."""
    x = xt.clone().requires_grad_()
    far = ((x[:, None] - math.sqrt(a) * centres) ** 2).sum(-1)  # (B, K)
    (gradient,) = torch.autograd.grad(torch.logsumexp(-far / (2 * (a * spread**2 + 1 - a)), -1).sum(), x)
    return -math.sqrt(1 - a) * gradient


@mirror("alphaBar")
def share_of_signal(rng):
    T = int(rng.integers(2, 60))
    b0, b1 = 0.05 * rng.uniform(1).item(), 0.1 + 0.2 * rng.uniform(1).item()
    return [T, b0, b1], reference.alpha_bar_of(reference.linear_betas(T, b0, b1))


@mirror("noised")
def one_jump(rng):
    x0, eps, t = rng.normal(1, 6), rng.normal(1, 6), rng.integers(0, 100, 1)
    return [x0[0], eps[0], BAR[t].item()], reference.q_sample(x0, t, eps, BAR)[0]


@mirror("bestGuess")
def best_guess(rng):
    centres, xt, spread, t = rng.normal(4, 3), rng.normal(1, 3), 0.2 + rng.uniform(1).item(), rng.integers(0, 100, 1)
    a = BAR[t].item()
    clean = reference.predict_x0(xt, guessed_noise(xt, a, centres, spread), t, BAR)[0]
    heap = torch.distributions.Normal(math.sqrt(a) * centres, math.sqrt(a * spread**2 + 1 - a))
    return [xt[0], a, centres, spread], {"probs": heap.log_prob(xt).sum(-1).softmax(-1), "clean": clean}


@mirror("bestGuess")
def from_pure_noise_the_best_guess_is_the_mean(rng):
    pictures, xt = rng.normal(5, 8), rng.normal(8)
    return [xt, 0, pictures, 0], {"probs": [0.2] * 5, "clean": pictures.mean(0)}


@mirror("stops")
def every_level(rng):
    T = int(rng.integers(1, 100))
    return [T, T], [*range(T - 1, -1, -1), -1]


@mirror("stops")
def every_fourth_level(rng):
    calls = int(rng.integers(1, 30))
    return [4 * calls, calls], [*range(4 * calls - 1, -1, -4), -1]


@mirror("walk")
def the_walk(rng):
    n, calls, spread = 4, 5, 0.5
    start, z = rng.normal(n, 2), rng.normal(calls, n, 2)
    w, eta, levels = 3 * rng.uniform(1).item(), rng.uniform(1).item(), [99, 70, 41, 20, 6, -1]
    states = [start]
    for k, (now, then) in enumerate(pairwise(levels)):
        x, a = states[-1], BAR[now].item()
        told, free = guessed_noise(x, a, CENTRES[1:2], spread), guessed_noise(x, a, CENTRES, spread)
        t, t_prev = torch.full((n,), now), torch.full((n,), then)
        states.append(reference.ddim_step(x, reference.cfg(told, free, w), t, t_prev, eta, z[k], BAR))
    settings = {"centres": CENTRES, "spread": spread, "asked": 1, "w": w, "eta": eta, "z": z}
    return [start, levels, BAR, settings], torch.stack(states)


@mirror("walk")
def with_all_fresh_noise_one_level_is_a_step_of_ddpm(rng):
    start, z, t = rng.normal(3, 2), rng.normal(1, 3, 2), int(rng.integers(0, 99))
    eps = guessed_noise(start, BAR[t].item(), CENTRES[:1], 0.6)
    state = reference.ddpm_step(start, eps, torch.full((3,), t), z[0], BAR)
    settings = {"centres": CENTRES, "spread": 0.6, "asked": 0, "w": 1, "eta": 1, "z": z}
    return [start, [t, t - 1], BAR, settings], torch.stack([start, state])


@mirror("nearest")
def nearest(rng):
    points, centres = rng.normal(9, 2), rng.normal(4, 2)
    return [points, centres], torch.cdist(points, centres).argmin(1)


@mirror("deviation")
def deviation(rng):
    points = 3 * rng.normal(20, 2) + 1
    return [points], points.var(0, unbiased=False).mean().sqrt()


@shown(level=40)
def level_40():
    a = BAR[40].item()
    return f"a share of {a:.3f} of the variance is signal: {a**0.5:.3f} of the picture plus {(1 - a) ** 0.5:.3f} of"


@shown(level=-1)
def the_clean_level():
    return "At level −1 a share of 1.000 of the variance is signal: 1.000 of the picture plus 0.000 of the noise."


@shown(calls=0, guidance=1)
def one_call_gives_the_mean():
    a = BAR[99].item()  # the guess moves with the noise by this factor only
    return f"the spread of all is {a**0.5 * 0.36 / (a * 0.36 + 1 - a):.2f} (within a heap of the data: 0.60)"
