"""The whole contract of chapter 25."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from grader.testing import close, counting, dataset, driver, exact, exercise, holds, pure, roughly, stand_in

NAN = math.nan
DOUBLE, SINGLE = torch.float64, torch.float32


def double(*numbers):
    """A float64 tensor of these numbers."""
    return torch.tensor(numbers, dtype=DOUBLE)


def schedule(T, rng):
    """An uneven schedule of T levels, with steps of very different size."""
    return torch.cumprod(1 - 0.6 * rng.uniform(T) - 0.02, 0)


def state(rng, t, *shape):
    """Samples of this shape at these levels, and a noise for them."""
    return rng.normal(len(t), *shape), torch.tensor(t), rng.normal(len(t), *shape)


# --- linear_betas -----------------------------------------------------------------------------------------------------


@exercise("linear_betas")
def test_betas_grow_evenly(exercises):
    """The betas are T numbers in even steps from b0 to b1."""
    for T, b0, b1 in ((5, 0.1, 0.3), (2, 0.02, 0.5), (7, 0.3, 0.05)):
        expected = double(*(b0 + (b1 - b0) * i / (T - 1) for i in range(T)))
        close(exercises.linear_betas(T, b0, b1), expected, f"linear_betas({T}, {b0}, {b1})")
    close(exercises.linear_betas(1, 0.1, 0.3), double(0.1), "linear_betas(1, 0.1, 0.3)")


@exercise("linear_betas")
def test_share_of_signal_is_a_product(exercises, rng):
    """The share of signal is multiplied by 1 - beta at every step."""
    for kind in (DOUBLE, SINGLE):
        betas = (rng.uniform(6) * 0.9).to(kind)
        expected = torch.stack([(1 - betas[: i + 1]).prod() for i in range(6)])
        close(pure(exercises.alpha_bar_of, betas), expected, f"alpha_bar_of 6 betas of {kind}")


@exercise("linear_betas")
def test_schedule_of_the_first_paper(exercises):
    """A thousand default steps leave 0.004 percent of the signal."""
    a = exercises.alpha_bar_of(exercises.linear_betas(1000))
    logarithm = math.fsum(math.log1p(-(1e-4 + 0.0199 * i / 999)) for i in range(1000))
    close(math.log(a[-1].item()), logarithm, "the logarithm of the last share with T = 1000 and default betas")
    holds((a[1:] < a[:-1]).all() and a[0] < 1, "the share of signal must fall at every step")


@exercise("linear_betas")
@pytest.mark.parametrize("T", [1, 2, 9, 250])
def test_cosine_follows_its_curve(exercises, T):
    """The cosine schedule follows f(u) / f(0) up to the last step."""
    for s in (0.008, 0.2):
        share = [math.cos((i / T + s) / (1 + s) * math.pi / 2) ** 2 for i in range(T + 1)]
        expected = [share[i] / share[0] for i in range(1, T)]
        got = exercises.cosine_alpha_bar(T, s)
        exact((got.shape, got.dtype), ((T,), DOUBLE), f"shape and dtype of cosine_alpha_bar({T}, {s})")
        before = expected[-1] if expected else 1.0
        close(
            got / double(*expected, before * 1e-3), torch.ones(T).double(), f"cosine_alpha_bar({T}, {s}) over f / f(0)"
        )
    close(exercises.cosine_alpha_bar(T), exercises.cosine_alpha_bar(T, 0.008), "the default offset")


@exercise("linear_betas")
def test_no_cosine_step_destroys_everything(exercises):
    """No step of the cosine schedule takes more than 99.9 percent."""
    a = exercises.cosine_alpha_bar(40)
    kept = a / torch.cat([double(1.0), a[:-1]])
    close(kept.min().item(), 0.001, "the smallest share that one of 40 cosine steps keeps")
    holds((kept < 1).all() and (a > 0).all(), "each step must lose something, and none everything")


@exercise("linear_betas")
def test_signal_to_noise(exercises, rng):
    """The ratio is signal variance over noise variance, and undone."""
    a = rng.uniform(3, 4) * 0.98 + 0.01
    got = pure(exercises.snr, a)
    close(got / (1 + got), a, "snr / (1 + snr), which is alpha_bar again")
    exact(exercises.snr(torch.tensor([1.0, 0.0, 0.5])), torch.tensor([math.inf, 0.0, 1.0]), "snr of 1, 0 and 0.5")


# --- q_sample ---------------------------------------------------------------------------------------------------------


@exercise("q_sample")
def test_each_sample_reads_its_own_level(exercises, rng):
    """Sample b gets alpha_bar[t[b]], and 1 at level -1."""
    a, t = schedule(5, rng), [3, -1, 0, 4, 1, -1]
    expected = double(*(1.0 if i < 0 else a[i].item() for i in t))
    for shape in ((), (2,), (3, 2), (1, 4, 3)):
        x = rng.normal(6, *shape)
        got = pure(exercises.alpha_at, a, torch.tensor(t), x)
        close(got, expected.view(6, *[1] * len(shape)), f"alpha_at of levels {t} for states {tuple(x.shape)}")
    got = exercises.alpha_at(a, torch.tensor(t), rng.normal(6, 2).float())
    close(got, expected.view(6, 1).float(), "alpha_at for states of float32, when alpha_bar is float64")


@exercise("q_sample")
def test_noising_mixes_signal_and_noise(exercises, rng):
    """Each sample is a mix with the square roots of its two shares."""
    a, t = schedule(6, rng), [5, 0, 2, 2, 4]
    for shape in ((), (3,), (2, 3), (1, 4, 3)):
        x0, levels, eps = state(rng, t, *shape)
        rows = [math.sqrt(a[i]) * x + math.sqrt(1 - a[i]) * e for i, x, e in zip(t, x0, eps, strict=True)]
        close(pure(exercises.q_sample, x0, levels, eps, a), torch.stack(rows), f"q_sample of {tuple(x0.shape)}")


@exercise("q_sample")
def test_as_many_samples_as_entries(exercises, rng):
    """Levels go along the batch also where other axes are as long."""
    a, t = schedule(4, rng), [3, 0, 1]
    x0, levels, eps = state(rng, t, 3, 3)
    rows = [exercises.q_sample(x0[[b]], levels[[b]], eps[[b]], a) for b in range(3)]
    close(
        exercises.q_sample(x0, levels, eps, a), torch.cat(rows), "q_sample of (3, 3, 3), against one sample at a time"
    )


@exercise("q_sample")
def test_one_jump_is_many_steps(exercises, rng):
    """The jump has the mean and variance of all the small steps together."""
    betas = 0.5 * rng.uniform(7)
    a = torch.cumprod(1 - betas, 0)
    signal, noise = 1.0, 0.0  # the factor of x0, and the variance around it
    one, nil = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    for i, beta in enumerate(betas.tolist()):
        signal, noise = math.sqrt(1 - beta) * signal, (1 - beta) * noise + beta
        t = torch.tensor([i])
        close(exercises.q_sample(one, t, nil, a).item(), signal, f"q_sample of x0 = 1 without noise, level {i}")
        close(exercises.q_sample(nil, t, one, a).item() ** 2, noise, f"the squared factor of eps at level {i}")


@exercise("q_sample")
def test_level_minus_one_is_clean(exercises, rng):
    """At level -1 nothing is added and nothing is lost."""
    x0, t, eps = state(rng, [-1, -1, 2], 4)
    got = exercises.q_sample(x0, t, eps, schedule(3, rng))
    close(got[:2], x0[:2], "q_sample at level -1")


@exercise("q_sample")
def test_states_keep_their_dtype(exercises, rng):
    """A float64 schedule does not turn float32 samples into float64."""
    x0, t, eps = state(rng, [1, 4, 0], 2, 3)
    a = schedule(5, rng)
    got = exercises.q_sample(x0.float(), t, eps.float(), a)
    close(got, exercises.q_sample(x0, t, eps, a).float(), "q_sample of float32 samples with a float64 schedule")


# --- ddpm_loss --------------------------------------------------------------------------------------------------------


@exercise("ddpm_loss")
def test_true_noise_gives_the_clean_sample(exercises, rng):
    """Undoing the noising with the true noise gives back x0."""
    a = schedule(5, rng)
    for shape in ((), (3,), (4, 2)):
        x0, t, eps = state(rng, [4, 0, 2, -1, 1], *shape)
        share = torch.where(t < 0, 1.0, a[t]).view(-1, *[1] * len(shape))
        xt = share.sqrt() * x0 + (1 - share).sqrt() * eps
        close(pure(exercises.predict_x0, xt, eps, t, a), x0, f"predict_x0 of {tuple(x0.shape)} with the true noise")


@exercise("ddpm_loss")
def test_wrong_noise_is_magnified(exercises, rng):
    """An error of the noise counts sqrt(1/alpha_bar - 1) times in x0."""
    a, (xt, t, eps) = schedule(5, rng), state(rng, [4, 0, 2], 3)
    error = rng.normal(3, 3)
    moved = exercises.predict_x0(xt, eps + error, t, a) - exercises.predict_x0(xt, eps, t, a)
    close(moved, -(1 / a[t] - 1).sqrt()[:, None] * error, "what an error of the guessed noise does to predict_x0")


@exercise("ddpm_loss")
def test_velocity_agrees(exercises, rng):
    """The guess of x0 agrees with that from v = sqrt(a) eps - sqrt(1-a) x0."""
    a, (x0, t, eps) = schedule(6, rng), state(rng, [5, 1, 3, 0], 2)
    share = a[t][:, None]
    xt, v = share.sqrt() * x0 + (1 - share).sqrt() * eps, share.sqrt() * eps - (1 - share).sqrt() * x0
    close(exercises.predict_x0(xt, eps, t, a), share.sqrt() * xt - (1 - share).sqrt() * v, "x0 by eps and by v")


@exercise("ddpm_loss")
def test_guess_is_not_clipped(exercises, rng):
    """A guess of x0 far outside the data is returned as it is, in float32."""
    got = exercises.predict_x0(torch.tensor([[60.0, -60.0]]), torch.zeros(1, 2), torch.tensor([0]), double(0.25))
    close(got, torch.tensor([[120.0, -120.0]]), "predict_x0 of 60 and -60 with alpha_bar 0.25 and no noise")


@exercise("ddpm_loss", weight=2)
def test_loss_is_the_mean_square(exercises, rng):
    """The loss is the mean square over all entries of the batch."""
    a, (x0, t, eps) = schedule(5, rng), state(rng, [4, 0, 2, 1], 3, 2)
    guess = rng.normal(4, 3, 2)
    expected = ((guess - eps) ** 2).sum() / 24
    close(pure(exercises.ddpm_loss, lambda xt, t: guess, x0, t, eps, a), expected, "ddpm_loss of a fixed guess")
    got = exercises.ddpm_loss(lambda xt, t: guess.float(), x0.float(), t, eps.float(), a)
    close(got, expected.float(), "ddpm_loss in float32")


@exercise("ddpm_loss", weight=2)
def test_model_sees_noisy_samples_and_levels(exercises, rng):
    """The model is called once, with noised samples and their levels."""
    a, (x0, t, eps) = schedule(5, rng), state(rng, [4, 0, 2, 1], 3)
    model = counting(lambda xt, t: torch.zeros_like(xt))
    exercises.ddpm_loss(model, x0, t, eps, a)
    exact(model.calls, 1, "the number of calls of the model")
    xt, levels = model.arguments[0]
    share = a[t][:, None]
    close(xt, share.sqrt() * x0 + (1 - share).sqrt() * eps, "the samples that the model saw")
    exact(levels, t, "the levels that the model saw")


@exercise("ddpm_loss")
def test_perfect_guess_costs_nothing(exercises, rng):
    """A model that knows the noise has loss zero."""
    a, (x0, t, eps) = schedule(5, rng), state(rng, [4, 0, 2, 1], 3)
    got = exercises.ddpm_loss(
        lambda xt, t: (xt - a[t].sqrt()[:, None] * x0) / (1 - a[t]).sqrt()[:, None], x0, t, eps, a
    )
    roughly(got, torch.zeros((), dtype=DOUBLE), 1e-12, "ddpm_loss of a model that knows x0")


@driver
def loss_gradient(module, weight, x0, t, eps, alpha_bar):
    """The gradient of the loss by the weight of the model weight * xt."""
    weight = weight.clone().requires_grad_()
    module.ddpm_loss(lambda xt, t: weight * xt, x0, t, eps, alpha_bar).backward()
    return weight.grad


@exercise("ddpm_loss")
def test_gradient_reaches_the_model(exercises, rng):
    """The gradient by a weight of the model is that of the mean square."""
    a, (x0, t, eps) = schedule(5, rng), state(rng, [4, 0, 2, 1], 3)
    xt = a[t].sqrt()[:, None] * x0 + (1 - a[t]).sqrt()[:, None] * eps
    got = exercises.run(loss_gradient, double(0.7), x0, t, eps, a)
    close(got, (2 * (0.7 * xt - eps) * xt).mean().reshape(1), "the gradient by the weight w of the model w xt")


# --- ddpm_posterior ---------------------------------------------------------------------------------------------------


def conditioned(xt, x0, a, p):
    """Mean and variance of x_{t-1}: precisions of N(sqrt(p) x0, 1-p) and of the one step to xt, added."""
    alpha = a / p
    before, after = 1 / (1 - p), alpha / (1 - alpha)
    var = 1 / (before + after)
    return var * (before * math.sqrt(p) * x0 + after * xt / math.sqrt(alpha)), var


@exercise("ddpm_posterior", weight=2)
def test_posterior_adds_precisions(exercises, rng):
    """The step back is Gaussian conditioning: precisions add up."""
    a, t = schedule(6, rng), [5, 1, 3, 2, 4]
    for shape in ((), (3,), (2, 3)):
        xt, levels, x0 = state(rng, t, *shape)
        mean, var = pure(exercises.ddpm_posterior, xt, x0, levels, a)
        pairs = [conditioned(xt[b], x0[b], a[i].item(), a[i - 1].item()) for b, i in enumerate(t)]
        close(mean, torch.stack([m for m, _ in pairs]), f"the mean for states {tuple(xt.shape)}, levels {t}")
        close(var, double(*(v for _, v in pairs)), f"the variance for states {tuple(xt.shape)}, levels {t}")


@exercise("ddpm_posterior")
def test_last_step_is_certain(exercises, rng):
    """At level 0 the mean is x0 and the variance 0."""
    xt, t, x0 = state(rng, [0, 2, 0], 3)
    mean, var = exercises.ddpm_posterior(xt, x0, t, schedule(4, rng))
    close(mean[[0, 2]], x0[[0, 2]], "the posterior mean at level 0")
    roughly(var[[0, 2]], torch.zeros(2, dtype=DOUBLE), 1e-15, "the posterior variance at level 0")


@exercise("ddpm_posterior")
def test_knowing_x0_leaves_less_doubt(exercises, rng):
    """The posterior variance is below beta at every level above 0."""
    a = schedule(8, rng)
    t, x = torch.arange(1, 8), rng.normal(7, 2)
    _, var = exercises.ddpm_posterior(x, x, t, a)
    beta = 1 - a[1:] / a[:-1]
    holds((var > 0).all() and (var < beta).all(), f"variances {var.tolist()} are not between 0 and {beta.tolist()}")


@exercise("ddpm_posterior")
def test_posterior_undoes_one_step_on_average(exercises, rng):
    """Averaged over xt, the steps back give the marginal one level below."""
    a, i = schedule(5, rng), 3
    one, nil, t = torch.ones(1, 1).double(), torch.zeros(1, 1).double(), torch.tensor([i])
    of_x0, var = exercises.ddpm_posterior(nil, one, t, a)
    of_xt, _ = exercises.ddpm_posterior(one, nil, t, a)
    signal = of_x0.item() + of_xt.item() * math.sqrt(a[i])
    close(signal, math.sqrt(a[i - 1]), "the factor of x0 one level below")
    noise = var.item() + of_xt.item() ** 2 * (1 - a[i].item())
    close(noise, 1 - a[i - 1].item(), "the variance of the noise one level below")


@exercise("ddpm_posterior", weight=2)
def test_step_draws_from_the_posterior(exercises, rng):
    """A step is the posterior mean, plus its deviation times the noise."""
    a, t = schedule(6, rng), [5, 1, 3, 2, 4]
    for shape in ((), (3,), (2, 4)):
        xt, levels, eps = state(rng, t, *shape)
        noise = rng.normal(5, *shape)
        rows = []
        for b, i in enumerate(t):
            x0 = (xt[b] - math.sqrt(1 - a[i]) * eps[b]) / math.sqrt(a[i])
            mean, var = conditioned(xt[b], x0, a[i].item(), a[i - 1].item())
            rows.append(mean + math.sqrt(var) * noise[b])
        got = pure(exercises.ddpm_step, xt, eps, levels, noise, a)
        close(got, torch.stack(rows), f"ddpm_step of {tuple(xt.shape)}, levels {t}")


@exercise("ddpm_posterior")
def test_step_from_level_zero_is_the_guess(exercises, rng):
    """At level 0 a step gives the guess of x0, whatever the noise."""
    a, (xt, t, eps) = schedule(3, rng), state(rng, [0, 0], 3)
    expected = (xt - (1 - a[0]).sqrt() * eps) / a[0].sqrt()
    close(exercises.ddpm_step(xt, eps, t, 50 * rng.normal(2, 3), a), expected, "ddpm_step at level 0")


@exercise("ddpm_posterior")
def test_steps_keep_the_dtype(exercises, rng):
    """With float32 states and a float64 schedule the results are float32."""
    a, (xt, t, eps) = schedule(4, rng), state(rng, [3, 1, 0], 2)
    mean, var = exercises.ddpm_posterior(xt.float(), eps.float(), t, a)
    one, two = exercises.ddpm_posterior(xt, eps, t, a)
    roughly(mean, one.float(), 1e-4, "the mean of float32 states")  # 1 - a/p loses some digits in float32
    roughly(var, two.float(), 1e-4, "the variance of float32 states")
    got = exercises.ddpm_step(xt.float(), eps.float(), t, eps.float(), a)
    roughly(got, exercises.ddpm_step(xt, eps, t, eps, a).float(), 1e-3, "ddpm_step of float32 states")


@exercise("ddpm_posterior")
def test_oracle_walks_back_to_the_data(exercises, rng):
    """With the exact guess for Gaussian data the walk ends in the data."""
    mu, tau, n = 1.5, 0.4, 20000
    a = torch.cumprod(1 - torch.linspace(0.001, 0.2, 100, dtype=DOUBLE), 0)
    x = rng.normal(n, 1)
    for i in reversed(range(100)):
        var = a[i] * tau**2 + 1 - a[i]
        eps_hat = (1 - a[i]).sqrt() * (x - a[i].sqrt() * mu) / var  # the mean of eps, given x
        x = exercises.ddpm_step(x, eps_hat, torch.full((n,), i), rng.normal(n, 1), a)
    # Standard error of the mean 0.003. The steps are finite, so the deviation comes out a little small.
    roughly(x.mean().item(), mu, 0.05, "the mean of 20000 samples of data around 1.5")
    holds(0.34 < x.std().item() < 0.43, f"the deviation of 20000 samples is {x.std().item():.3f}, that of the data 0.4")


# --- ddim_step --------------------------------------------------------------------------------------------------------


def jump(xt, eps, a, p, eta, noise):
    """One sample's jump from share a to share p, by floats."""
    x0 = (xt - math.sqrt(1 - a) * eps) / math.sqrt(a)
    var = eta**2 * (1 - p) / (1 - a) * (1 - a / p)
    return math.sqrt(p) * x0 + math.sqrt(max(1 - p - var, 0)) * eps + math.sqrt(var) * noise


@exercise("ddim_step", weight=2)
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_jump_follows_its_formula(exercises, rng, eta):
    """Each sample jumps from its own level to its own."""
    a, t, t_prev = schedule(8, rng), [7, 2, 5, 3], [4, 1, -1, 0]
    for shape in ((), (3,), (2, 3)):
        xt, levels, eps = state(rng, t, *shape)
        noise, share = rng.normal(4, *shape), [*a.tolist(), 1.0]  # index -1 is the clean state
        rows = [jump(xt[b], eps[b], share[t[b]], share[t_prev[b]], eta, noise[b]) for b in range(4)]
        got = pure(exercises.ddim_step, xt, eps, levels, torch.tensor(t_prev), eta, noise, a)
        close(got, torch.stack(rows), f"ddim_step of {tuple(xt.shape)} from {t} to {t_prev}, eta {eta}")


@exercise("ddim_step", weight=2)
def test_eta_one_is_the_ddpm_step(exercises, rng):
    """With eta = 1 and neighbouring levels it is Gaussian conditioning."""
    a, t = schedule(6, rng), [5, 1, 3, 2, 0]
    xt, levels, eps = state(rng, t, 3)
    noise, rows = rng.normal(5, 3), []
    for b, i in enumerate(t):
        x0 = (xt[b] - math.sqrt(1 - a[i]) * eps[b]) / math.sqrt(a[i])
        mean, var = conditioned(xt[b], x0, a[i].item(), a[i - 1].item()) if i else (x0, 0.0)
        rows.append(mean + math.sqrt(var) * noise[b])
    got = exercises.ddim_step(xt, eps, levels, levels - 1, 1.0, noise, a)
    close(got, torch.stack(rows), f"ddim_step with eta 1 from {t} to one level below")


@exercise("ddim_step")
def test_eta_zero_needs_no_noise(exercises, rng):
    """With eta = 0 the noise has no influence and may be missing."""
    a, (xt, t, eps) = schedule(6, rng), state(rng, [5, 2, 3], 2)
    t_prev = torch.tensor([1, 0, 2])
    without = exercises.ddim_step(xt, eps, t, t_prev, 0.0, None, a)
    close(exercises.ddim_step(xt, eps, t, t_prev, 0.0, rng.normal(3, 2), a), without, "with noise and with None")
    holds(not (without - xt).abs().max() < 1e-3, "the step changes nothing")


@exercise("ddim_step")
def test_jump_to_clean_is_the_guess(exercises, rng):
    """At t_prev = -1 the guess of x0 comes out, at every eta."""
    a, (xt, t, eps) = schedule(6, rng), state(rng, [5, 0, 3], 2)
    share = a[t][:, None]
    expected = (xt - (1 - share).sqrt() * eps) / share.sqrt()
    for eta in (0.0, 0.5, 1.0):
        got = exercises.ddim_step(xt, eps, t, torch.full((3,), -1), eta, 9 * rng.normal(3, 2), a)
        close(got, expected, f"ddim_step to level -1 with eta {eta}")


@exercise("ddim_step")
@pytest.mark.parametrize("path", [[9, -1], [9, 4, -1], [9, 8, 5, 1, 0, -1]])
def test_any_path_leads_home(exercises, rng, path):
    """With the true noise every path of jumps ends exactly at x0."""
    a, x0, eps = schedule(10, rng), rng.normal(3, 2), rng.normal(3, 2)
    x = a[9].sqrt() * x0 + (1 - a[9]).sqrt() * eps
    for now, then in itertools.pairwise(path):
        x = exercises.ddim_step(x, eps, torch.full((3,), now), torch.full((3,), then), 0.0, None, a)
        share = 1.0 if then < 0 else a[then].item()
        close(x, math.sqrt(share) * x0 + math.sqrt(1 - share) * eps, f"the state at level {then} on the path {path}")


@exercise("ddim_step")
def test_jump_runs_upwards_too(exercises, rng):
    """With eta = 0 a jump up and the same jump down cancel."""
    a, (x, t, eps) = schedule(6, rng), state(rng, [0, 1, 4], 2)
    above = torch.tensor([5, 3, 5])
    share = a[above][:, None]
    up = exercises.ddim_step(x, eps, t, above, 0.0, None, a)
    x0 = (x - (1 - a[t]).sqrt()[:, None] * eps) / a[t].sqrt()[:, None]
    close(up, share.sqrt() * x0 + (1 - share).sqrt() * eps, "ddim_step from levels 0, 1, 4 up to 5, 3, 5")
    close(exercises.ddim_step(up, eps, above, t, 0.0, None, a), x, "down again")


@exercise("ddim_step")
def test_fresh_noise_replaces_old(exercises, rng):
    """Old and fresh noise together have the variance of the level."""
    a, t, t_prev = schedule(9, rng), torch.tensor([8, 4]), torch.tensor([3, 1])
    one, nil = torch.ones(2, 1).double(), torch.zeros(2, 1).double()
    for eta in (0.3, 1.0):
        mix = (1 - a[t]).sqrt()[:, None]  # x_t of x0 = 0 and eps = 1
        old = exercises.ddim_step(mix, one, t, t_prev, eta, nil, a)
        new = exercises.ddim_step(nil, nil, t, t_prev, eta, one, a)
        close((old**2 + new**2).flatten(), 1 - a[t_prev], f"the squares of the two noises' factors, eta {eta}")


@exercise("ddim_step")
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_jump_stays_finite_and_float32(exercises, rng, eta):
    """In float32, on a schedule of a thousand levels, all is finite."""
    a = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=DOUBLE), 0)
    t, t_prev = torch.tensor([999, 500, 3, 1, 0]), torch.tensor([998, 0, 2, 0, -1])
    xt, eps, noise = rng.normal(5, 2), rng.normal(5, 2), rng.normal(5, 2)
    got = exercises.ddim_step(xt.float(), eps.float(), t, t_prev, eta, noise.float(), a)
    expected = exercises.ddim_step(xt, eps, t, t_prev, eta, noise, a)
    exact((got.dtype, bool(got.isfinite().all())), (SINGLE, True), "dtype and finiteness of float32 states")
    # 1 - a / p is 1e-4 at its smallest, so float32 keeps three digits of it; at level 999 x0 is 157 times xt
    roughly(got[1:].double(), expected[1:], 2e-3, f"ddim_step in float32, eta {eta}")


# --- cfg --------------------------------------------------------------------------------------------------------------


@exercise("cfg", weight=2)
def test_guidance_is_a_line_through_both(exercises, rng):
    """w = 0 gives the unconditional guess, 1 the conditional, all others the line."""
    cond, uncond = rng.normal(3, 2, 4), rng.normal(3, 2, 4)
    for w in (0.0, 1.0, 0.5, 3.0, 7.5, -1.0):
        expected = (1 - w) * uncond + w * cond
        close(pure(exercises.cfg, cond, uncond, w), expected, f"cfg with w = {w}")
    got = exercises.cfg(cond.float(), uncond.float(), 2.0)
    close(got, (2 * cond - uncond).float(), "cfg in float32, w = 2")


CENTRES = torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]], dtype=DOUBLE)
WIDTH = 0.7


def exact_guess(x, a, label=None):
    """The mean of eps, given x, for Gaussian heaps of deviation WIDTH around CENTRES, or one of them."""
    centres = CENTRES if label is None else CENTRES[[label]]
    gap = x[:, None] - math.sqrt(a) * centres  # (n, heaps, 2)
    var = a * WIDTH**2 + 1 - a
    share = (-(gap**2).sum(-1) / (2 * var)).softmax(1)
    return math.sqrt(1 - a) * (share[..., None] * gap).sum(1) / var


@exercise("cfg")
def test_guidance_raises_the_class(exercises, rng):
    """On overlapping heaps more guidance hits the class more often."""
    a = torch.cumprod(1 - torch.linspace(0.02, 0.4, 20, dtype=DOUBLE), 0).tolist()
    start, hits = rng.normal(600, 2), []
    for w in (0.0, 1.0, 2.0, 4.0):
        x = start.clone()
        for i in reversed(range(20)):
            eps = exercises.cfg(exact_guess(x, a[i], 1), exact_guess(x, a[i]), w)
            p = a[i - 1] if i else 1.0
            x = math.sqrt(p) * (x - math.sqrt(1 - a[i]) * eps) / math.sqrt(a[i]) + math.sqrt(1 - p) * eps
        hits.append((torch.cdist(x, CENTRES).argmin(1) == 1).double().mean().item())
    holds(hits == sorted(hits) and hits[3] > hits[0] + 0.4, f"hits with w = 0, 1, 2, 4: {hits}")
    holds(0.2 < hits[0] < 0.5 and hits[3] > 0.95, f"hits with w = 0, 1, 2, 4: {hits}")


@exercise("cfg")
def test_nothing_or_everything_is_dropped(exercises, rng):
    """With p = 0 no condition is dropped, with p = 1 all are."""
    c, vectors = rng.integers(0, 9, 50), rng.normal(50, 3)
    null = rng.normal(3)
    exact(pure(exercises.drop_condition, c, 0.0, 9, rng.generator()), c, "drop_condition with p = 0")
    exact(exercises.drop_condition(c, 1.0, 9, rng.generator()), torch.full((50,), 9), "drop_condition with p = 1")
    got = pure(exercises.drop_condition, vectors, 1.0, null, rng.generator())
    exact(got, null.expand(50, 3), "drop_condition of vectors with p = 1")
    exact(exercises.drop_condition(vectors, 0.0, null, rng.generator()), vectors, "drop_condition of vectors, p = 0")


@exercise("cfg", weight=2)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_conditions_are_dropped_at_the_rate(exercises, rng, p):
    """The share of dropped conditions is p, sample by sample."""
    n = 40000
    c = rng.integers(0, 9, n)
    got = exercises.drop_condition(c, p, 9, rng.generator())
    dropped = got == 9
    exact(got[~dropped], c[~dropped], "the conditions that were kept")
    error = 5.5 * math.sqrt(p * (1 - p) / n)  # a chance of 4e-8
    roughly(dropped.double().mean().item(), p, error, f"the share of {n} conditions that was dropped")
    pairs = (dropped[1:] & dropped[:-1]).double().mean().item()
    roughly(pairs, p * p, 2.5 * error, "the share of neighbours that were both dropped")


@exercise("cfg")
def test_vectors_are_dropped_whole(exercises, rng):
    """A vector or a picture is replaced whole or not at all."""
    for shape in ((4,), (2, 3)):
        c = 2 + rng.uniform(2000, *shape)
        got = exercises.drop_condition(c, 0.3, 0.0, rng.generator())
        dropped = (got == 0).flatten(1)
        exact(dropped.any(1), dropped.all(1), f"samples {shape} with any and with all entries dropped")
        exact(got[~dropped[:, 0]], c[~dropped[:, 0]], "the conditions that were kept")
        holds(0.2 < dropped.double().mean() < 0.4, f"{dropped.double().mean():.3f} were dropped with p = 0.3")


@exercise("cfg")
def test_null_may_be_a_vector(exercises, rng):
    """Each dropped vector becomes the null vector, entry by entry."""
    c, null = 2 + rng.uniform(400, 3), double(-1.0, -2.0, -3.0)
    got = exercises.drop_condition(c, 0.5, null, rng.generator())
    dropped = got[:, 0] < 0
    exact(got, torch.where(dropped[:, None], null, c), "drop_condition with the null vector (-1, -2, -3)")
    holds(100 < dropped.sum() < 300, f"{dropped.sum()} of 400 were dropped with p = 0.5")


@exercise("cfg")
def test_generator_alone_decides(exercises, rng):
    """Equal generators drop the same, and the next call drops others."""
    c, one, other = torch.zeros(200).long(), torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    first = exercises.drop_condition(c, 0.5, 1, one)
    exact(exercises.drop_condition(c, 0.5, 1, other), first, "the same call with an equal generator")
    holds((exercises.drop_condition(c, 0.5, 1, one) != first).any(), "a second call drops the same samples again")


# --- DiTBlock ---------------------------------------------------------------------------------------------------------


@exercise("DiTBlock")
@pytest.mark.parametrize("dim", [2, 6, 16])
def test_levels_become_waves(exercises, dim):
    """Sines at dim / 2 speeds come first, then their cosines."""
    t, h = double(0.0, 1.0, 7.0, 2.5, 999.0), dim // 2
    angles = [[x * 10000 ** (-i / h) for i in range(h)] for x in t.tolist()]
    expected = double(*([math.sin(z) for z in row] + [math.cos(z) for z in row] for row in angles))
    close(exercises.timestep_embedding(t, dim), expected, f"timestep_embedding(t, {dim}) of float64 levels")
    # An angle of up to 99 in float32 is rounded to 4e-6.
    got = exercises.timestep_embedding(torch.tensor([0, 1, 50, 99]), dim)
    waves = [double(0, 1, 50, 99)[:, None] * 10000 ** (-torch.arange(h).double() / h)]
    expected = torch.cat([waves[0].sin(), waves[0].cos()], 1).float()
    roughly(got, expected, 1e-4, f"timestep_embedding(t, {dim}) of int64 levels")


@exercise("DiTBlock")
def test_odd_width_is_refused(exercises):
    """An odd dim raises ValueError."""
    with pytest.raises(ValueError):
        exercises.timestep_embedding(torch.tensor([1, 2]), 5)


@exercise("DiTBlock")
def test_patches_are_cut_row_by_row(exercises):
    """Patches and the pixels within them run row by row."""
    for H, W, patch in ((4, 6, 2), (6, 3, 3), (2, 5, 1), (4, 4, 4)):
        x = torch.arange(2 * H * W).reshape(2, H, W)
        tiles = [
            x[:, i : i + patch, j : j + patch].reshape(2, -1) for i in range(0, H, patch) for j in range(0, W, patch)
        ]
        got = exercises.patchify(x, patch)
        exact(got, torch.stack(tiles, 1), f"patchify of (2, {H}, {W}) with patch {patch}")
        exact(exercises.unpatchify(torch.stack(tiles, 1), H, W), x, f"unpatchify to {H} x {W}, patch {patch}")


@exercise("DiTBlock")
def test_patches_must_tile(exercises):
    """A patch that does not divide height and width raises ValueError."""
    for H, W in ((4, 5), (5, 4)):
        with pytest.raises(ValueError):
            exercises.patchify(torch.zeros(1, H, W), 2)


D, HEADS, HIDDEN = 12, 3, 20
SIZES = {"qkv": (3 * D, D), "out": (D, D), "up": (HIDDEN, D), "down": (D, HIDDEN), "ada": (6 * D, D)}


def block_weights(rng, scale=0.4):
    """Random weights for a block."""
    return {f"{name}.{kind}": scale * rng.normal(*(size if kind == "weight" else size[:1]))
            for name, size in SIZES.items() for kind in ("weight", "bias")}  # fmt: skip


def block_by_hand(w, x, c):
    """What a block with these weights does, one sample and one head at a time."""
    rows = []
    for tokens, told in zip(x, c, strict=True):
        six = (w["ada.weight"] @ (told * torch.sigmoid(told)) + w["ada.bias"]).view(6, D)
        y = F.layer_norm(tokens, (D,), eps=1e-6) * (1 + six[1]) + six[0]
        qkv, mixed = y @ w["qkv.weight"].T + w["qkv.bias"], []
        for h in range(HEADS):
            q, k, v = (qkv[:, part * D + h * 4 : part * D + (h + 1) * 4] for part in range(3))
            mixed.append((q @ k.T / 2).softmax(-1) @ v)
        tokens = tokens + six[2] * (torch.cat(mixed, 1) @ w["out.weight"].T + w["out.bias"])
        y = F.layer_norm(tokens, (D,), eps=1e-6) * (1 + six[4]) + six[3]
        inner = F.gelu(y @ w["up.weight"].T + w["up.bias"])
        rows.append(tokens + six[5] * (inner @ w["down.weight"].T + w["down.bias"]))
    return torch.stack(rows)


def make_block(exercises, weights=None):
    """A float64 block of the student, with these weights."""
    block = exercises.DiTBlock(exercises.DiTConfig(d=D, heads=HEADS, hidden=HIDDEN)).double()
    if weights is not None:
        block.load_state_dict(weights)
    return block


@exercise("DiTBlock", weight=3)
def test_block_follows_its_formula(exercises, rng):
    """With any weights the block is the two gated halves of the docstring."""
    w, x, c = block_weights(rng), rng.normal(2, 5, D), rng.normal(2, D)
    close(pure(make_block(exercises, w), x, c), block_by_hand(w, x, c), "a DiTBlock of 5 tokens with random weights")
    w["ada.weight"] *= 0
    w["ada.bias"] = torch.cat([torch.zeros(2 * D), torch.ones(D), torch.zeros(2 * D), torch.ones(D)]).double()
    got = make_block(exercises, w)(x, c)
    close(got, block_by_hand(w, x, c), "a DiTBlock whose gates are 1 and whose shifts and scales are 0")


@exercise("DiTBlock", weight=2)
def test_new_block_changes_nothing(exercises, rng):
    """A new block gives back its tokens, whatever the condition."""
    x = rng.normal(2, 5, D)
    close(make_block(exercises)(x, 3 * rng.normal(2, D)), x, "what a new DiTBlock makes of its tokens")


@driver
def first_gradients(module, sizes, x, c, target):
    """Names and sizes of a new block's parameters, and the sizes of the gradients of a squared error by them."""
    block = module.DiTBlock(module.DiTConfig(**sizes)).double()
    ((block(x, c) - target) ** 2).mean().backward()
    return {
        n: (tuple(p.shape), 0.0 if p.grad is None else p.grad.abs().max().item()) for n, p in block.named_parameters()
    }


@exercise("DiTBlock")
def test_new_block_can_learn(exercises, rng):
    """Gradients reach the gates of a new block, through weights that are not 0."""
    x, c, target = rng.normal(2, 5, D), rng.normal(2, D), rng.normal(2, 5, D)
    got = exercises.run(first_gradients, {"d": D, "heads": HEADS, "hidden": HIDDEN}, x, c, target)
    expected = {
        f"{n}.{kind}": s if kind == "weight" else s[:1] for n, s in SIZES.items() for kind in ("weight", "bias")
    }
    exact({name: tuple(shape) for name, (shape, _) in got.items()}, expected, "the parameters of a block")
    holds(got["ada.weight"][1] > 1e-6 and got["ada.bias"][1] > 1e-6, "no gradient reaches ada: the block cannot learn")


@exercise("DiTBlock")
def test_conditions_stay_with_their_sample(exercises, rng):
    """Changing one sample's condition changes that sample alone."""
    w, x, c = block_weights(rng), rng.normal(3, 4, D), rng.normal(3, D)
    block = make_block(exercises, w)
    before = block(x, c)
    c[1] += 1.0
    after = block(x, c)
    close(after[[0, 2]], before[[0, 2]], "the samples whose condition stayed")
    holds((after[1] - before[1]).abs().max() > 1e-2, "the sample whose condition changed is as before")


@exercise("DiTBlock")
def test_every_patch_sees_every_patch(exercises, rng):
    """The last patch influences the first, and order does not matter."""
    w, x, c = block_weights(rng), rng.normal(1, 6, D), rng.normal(1, D)
    block, order = make_block(exercises, w), torch.as_tensor(rng.permutation(6))
    before = block(x, c)
    close(block(x[:, order], c), before[:, order], "the block of patches in another order")
    x[:, -1] += rng.normal(D)  # not a constant: the layer norm would remove it
    holds((block(x, c) - before)[:, 0].abs().max() > 1e-3, "the first patch does not see the last one")


# --- train_toy_diffusion ----------------------------------------------------------------------------------------------

HEAPS = torch.tensor([[2.0, 0.0], [0.0, 2.0], [-2.0, 0.0], [0.0, -2.0]])


def heaps(rng, n, width, centres=HEAPS):
    """Points (n, 2) in Gaussian heaps around the centres, and the number of the heap of each."""
    k = rng.integers(0, len(centres), n)
    return (centres[k] + width * rng.normal(n, 2)).float(), k


def energy_distance(x, y):
    """How far apart two clouds of samples are; 0 if they are drawn alike."""
    x, y = x.flatten(1).double(), y.flatten(1).double()
    return (2 * torch.cdist(x, y).mean() - torch.cdist(x, x).mean() - torch.cdist(y, y).mean()).item()


def levels_net(centres, width, alpha_bar):
    """The exact guess of the noise for equal heaps, as a network; class `null` means any heap."""
    a = alpha_bar.double()

    def net(xt, t, c):
        share = a[t][:, None]  # (n, 1)
        gap = xt.double()[:, None] - share[..., None].sqrt() * centres.double()  # (n, heaps, 2)
        var = share * width**2 + 1 - share
        logits = -(gap**2).sum(-1) / (2 * var)
        other = torch.arange(len(centres)) != c[:, None]
        logits = logits.masked_fill(other & (c[:, None] < len(centres)), -math.inf)
        return ((1 - share).sqrt() * (logits.softmax(1)[..., None] * gap).sum(1) / var).float()

    return counting(stand_in(net, null=len(centres)))


TEST_LEVELS = torch.cumprod(1 - torch.linspace(1e-3, 0.15, 100, dtype=DOUBLE), 0)


@exercise("train_toy_diffusion", weight=2)
def test_exact_guesses_draw_the_data(exercises):
    """With the exact guess of the noise, draw gives the heaps evenly."""
    y = exercises.draw(levels_net(HEAPS, 0.3, TEST_LEVELS), TEST_LEVELS, (2000, 2), 11)
    exact((y.shape, y.dtype), ((2000, 2), SINGLE), "shape and dtype of 2000 points")
    nearest = torch.cdist(y, HEAPS).min(1)
    share = (nearest.indices.bincount(minlength=4) / 2000).tolist()
    holds(all(0.19 < s < 0.31 for s in share), f"the shares of the heaps are {share}, not 1/4 each")  # 6 deviations
    spread = nearest.values.square().mean().sqrt().item() / math.sqrt(2)  # standard error 0.005, and some for the steps
    roughly(spread, 0.3, 0.06, "the deviation within the heaps")


@exercise("train_toy_diffusion")
def test_draw_walks_down_the_levels(exercises):
    """The walk starts at the top with normal noise, and falls."""
    net = levels_net(HEAPS, 0.3, TEST_LEVELS)
    exercises.draw(net, TEST_LEVELS, (500, 2), seed=4)
    seen = [t for _, t, _ in net.arguments]
    holds(all((t == t[0]).all() for t in seen), "samples of one draw are at different levels")
    levels = [level for level, _ in itertools.groupby(int(t[0]) for t in seen)]
    holds(levels[0] == 99 and levels == sorted(set(levels), reverse=True), f"the levels visited are {levels}")
    start = net.arguments[0][0]
    # 1000 numbers: six standard errors of their mean and of their deviation
    holds(abs(start.mean()) < 0.19 and abs(start.std() - 1) < 0.14, f"the start has deviation {start.std():.2f}")
    exact({int(c) for _, _, cs in net.arguments for c in cs}, {4}, "the classes asked for, when there is no label")


@exercise("train_toy_diffusion")
def test_draw_asks_for_the_class(exercises):
    """With a label the class is asked for, and guidance pushes towards it."""
    near = torch.tensor([[0.7, 0.0], [-0.7, 0.0]])
    hits = []
    for w in (1.0, 0.0, 3.0):
        net = levels_net(near, 0.5, TEST_LEVELS)
        y = exercises.draw(net, TEST_LEVELS, (400, 2), seed=4, label=1, w=w)
        got = {int(c) for _, _, cs in net.arguments for c in cs}
        holds(got <= {1, 2}, f"the classes asked for with label 1 and w = {w} are {got}; 2 is null")
        hits.append((y[:, 0] < 0).double().mean().item())
    # normal areas: 0.919 with w = 1, a half with w = 0
    holds(0.84 < hits[0] < 0.98 and 0.34 < hits[1] < 0.66 and hits[2] > 0.97, f"hits with w = 1, 0, 3: {hits}")


@driver
def drawn_twice(module, alpha_bar, seeds):
    """Draw with a fixed network under other states of the global generator; does the result want a gradient?"""
    import torch

    class Net(torch.nn.Module):
        null = 0

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.tensor(0.9))

        def forward(self, xt, t, c):
            return self.w * xt

    out = []
    for state, seed in seeds:
        torch.manual_seed(state)
        out.append(module.draw(Net(), alpha_bar, (4, 3), seed))
    return [y.detach() for y in out], any(y.requires_grad for y in out)


@exercise("train_toy_diffusion")
def test_seed_decides_the_drawing(exercises):
    """Equal seeds draw the same, others do not, and no gradient is kept."""
    (a, b, c), graph = exercises.run(drawn_twice, TEST_LEVELS, [(1, 5), (2, 5), (1, 6)])
    close(b, a, "draw with seed 5, the global generator in another state")
    holds((a - c).abs().max() > 1e-3, "seeds 5 and 6 draw the same")
    holds(not graph, "what draw returns still wants gradients")


@driver
def watched_training(module, data, labels, steps, seed):
    """Train a network that writes down what it is asked."""
    import torch

    class Spy(torch.nn.Module):
        null = 7

        def __init__(self):
            super().__init__()
            self.w, self.seen = torch.nn.Parameter(torch.zeros(1)), []

        def forward(self, xt, t, c):
            self.seen.append((xt.detach().clone(), t.clone(), c.clone()))
            return self.w * xt

    net = Spy()
    sampler = module.train_toy_diffusion(data, steps, seed, labels, net)
    trained, net.seen = net.seen, []
    sampler(5, 1)
    xs, ts, cs = (torch.cat(part) for part in zip(*trained, strict=True))
    return xs, ts, cs, net.w.item(), torch.cat([c for _, _, c in net.seen])


@exercise("train_toy_diffusion", weight=2)
def test_training_covers_all_levels(exercises, rng):
    """Levels, states and classes in training are what was promised."""
    data, _ = heaps(rng, 400, 0.25)
    labels = rng.integers(0, 3, 400)
    xs, ts, cs, w, asked = exercises.run(watched_training, 5 * data + torch.tensor([40.0, -9.0]), labels, 60, 3)
    n, mean = len(ts), ts.double().mean().item()
    holds(ts.min() >= 0 and ts.max() <= 99 and len(ts.unique()) > 50, f"{len(ts.unique())} levels were seen of 100")
    roughly(mean, 49.5, 6 * 28.9 / math.sqrt(n), "the mean level of all training samples")
    share = (cs == 7).double().mean().item()
    roughly(share, 0.1, 6 * 0.3 / math.sqrt(n), "the share of conditions that were dropped in training")
    clean, noisy = xs[ts < 15], xs[ts > 90]
    holds(clean.mean().abs() < 0.3 and 0.8 < clean.std() < 1.2, f"nearly clean states: deviation {clean.std():.2f}")
    holds(0.8 < noisy.std() < 1.2, f"nearly pure noise has deviation {noisy.std():.2f}")
    holds(w != 0, "the network that was passed in has not been trained")
    exact(set(asked.tolist()), {7}, "the classes asked for when drawing without a label")


@exercise("train_toy_diffusion")
def test_without_labels_all_is_null(exercises, rng):
    """Without labels the network is always told nothing."""
    _, _, cs, _, _ = exercises.run(watched_training, heaps(rng, 200, 0.25)[0], None, 5, 3)
    exact(set(cs.tolist()), {7}, "the classes of all training samples")


@driver
def trained_twice(module, data, states, steps):
    """Train under other states of the global generator and draw."""
    import torch

    out = []
    for state, seed in states:
        torch.manual_seed(state)
        sampler = module.train_toy_diffusion(data, steps, seed)
        torch.manual_seed(state + 1)
        out.append(sampler(6, 3))
    return out


@exercise("train_toy_diffusion")
def test_seed_decides_the_training(exercises, rng):
    """Equal seeds train the same network, others do not."""
    a, b, c = exercises.run(trained_twice, heaps(rng, 100, 0.25)[0], [(1, 5), (2, 5), (1, 6)], 8)
    roughly(b, a, 1e-4, "six samples after training with seed 5, the global generator in another state")
    holds((a - c).abs().max() > 1e-3, "training seeds 5 and 6 lead to the same samples")


def operations(module, x):
    """Count the operations of a module's products by watching them."""
    counter = FlopCounterMode(display=False)
    with counter:
        module(x)
    return counter.get_total_flops()


@exercise("train_toy_diffusion")
@pytest.mark.parametrize(("res", "patch", "width"), [(8, 2, 12), (6, 3, 20), (4, 1, 8), (6, 6, 10)])
def test_costs_are_what_is_counted(exercises, res, patch, width):
    """The costs are those that one counts in real layers."""
    N = (res // patch) ** 2
    x = torch.zeros(1, N, width)
    linear = [torch.nn.Linear(i * width, o * width) for i, o in ((1, 3), (1, 1), (1, 4), (4, 1))]
    weights = sum(operations(layer, torch.zeros(1, N, layer.in_features)) for layer in linear)
    attention = operations(lambda y: torch.bmm(torch.bmm(y, y.transpose(1, 2)), y), x)
    conv = torch.nn.Conv2d(width, width, 3, padding=1)
    unet = operations(lambda y: conv(conv(y)), torch.zeros(1, width, res, res))
    expected = {"tokens": N, "attention": attention, "dit": weights + attention, "unet": unet}
    exact(exercises.unet_vs_dit_cost(res, patch, width), expected, f"unet_vs_dit_cost({res}, {patch}, {width})")


@exercise("train_toy_diffusion")
def test_attention_grows_with_the_fourth_power(exercises):
    """Twice as many patches along a side cost attention sixteenfold."""
    small, large, fine = (exercises.unet_vs_dit_cost(*sizes) for sizes in ((32, 4, 64), (64, 4, 64), (32, 2, 64)))
    exact(large["attention"], 16 * small["attention"], "attention with twice the side")
    exact(fine["attention"], 16 * small["attention"], "attention with half the patch")
    exact((large["unet"], fine["unet"]), (4 * small["unet"], small["unet"]), "the two U-Nets")
    with pytest.raises(ValueError):
        exercises.unet_vs_dit_cost(9, 2, 8)


@exercise("train_toy_diffusion", weight=4)
def test_four_heaps_are_learned(exercises, rng):
    """From points in four heaps, anywhere on the plane, come four heaps."""
    (data, _), (other, _) = heaps(rng, 2000, 0.25), heaps(rng, 2000, 0.25)
    away = torch.tensor([30.0, -10.0])
    few, many = (exercises.train_toy_diffusion(3 * data + away, steps, 1) for steps in (40, 800))
    y, early = (many(2000, seed=7) - away) / 3, (few(2000, seed=7) - away) / 3
    nearest = torch.cdist(y, HEAPS).min(1)
    share = (nearest.indices.bincount(minlength=4) / 2000).tolist()
    holds(all(0.18 < s < 0.32 for s in share), f"the shares of the heaps are {share}, not 1/4 each")
    distance = nearest.values.mean().item()
    holds(distance < 0.5, f"the mean distance to the nearest heap is {distance:.2f}, that of the data 0.31")
    normal = other.mean(0) + rng.normal(2000, 2).float() @ torch.linalg.cholesky(other.T.cov()).T
    far, baseline = energy_distance(y, other), energy_distance(normal, other)
    holds(far < baseline / 3, f"the energy distance to new data is {far:.4f}, that of one normal cloud {baseline:.4f}")
    holds(far < energy_distance(early, other), "800 steps of training are no better than 40")


NEAR = torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]])


@exercise("train_toy_diffusion", weight=3)
def test_guidance_finds_the_class(exercises, rng):
    """On overlapping heaps guidance hits the class that was asked for."""
    data, labels = heaps(rng, 3000, 0.6, NEAR)
    sampler = exercises.train_toy_diffusion(data, 400, 2, labels)
    hits = []
    for w in (0.0, 1.0, 2.0):
        found = [torch.cdist(sampler(400, seed=k, label=k, w=w), NEAR).argmin(1) == k for k in range(3)]
        hits.append(torch.cat(found).double().mean().item())
    # 0.875 of the data are nearest to their own heap's centre
    holds(0.2 < hits[0] < 0.48, f"without guidance {hits[0]:.2f} of the samples hit the class, not a third")
    holds(0.75 < hits[1] < 0.95, f"with w = 1 the class is hit by {hits[1]:.2f}, in the data by 0.875")
    holds(hits[2] > 0.95, f"with w = 2 the class is hit by {hits[2]:.2f} of the samples")
    far = energy_distance(sampler(1500, seed=9), data[:1500])
    holds(far < 0.06, f"without a label the energy distance to the data is {far:.3f}")


@driver
def draw_digits(module, images, labels, steps, ws):
    """Train a small DiT on digits, and draw twenty of each for every w."""
    import torch

    torch.manual_seed(3)
    net = module.DiT(module.DiTConfig(layers=1, patch=4))
    sampler = module.train_toy_diffusion(images, steps, 0, labels, net)
    return [torch.cat([sampler(20, seed=k, label=k, w=w) for k in range(10)]) for w in ws]


@exercise("train_toy_diffusion", weight=3)
def test_transformer_draws_digits(exercises, rng):
    """A small DiT draws digits that the nearest mean image recognises."""
    make = dataset("shapes")
    images, labels = (torch.as_tensor(part) for part in make.digits(rng.seed, 2500))
    images, (old, new) = images.float(), images.float().split([2000, 500])
    means = torch.stack([old[labels[:2000] == k].mean(0) for k in range(10)]).flatten(1)
    plain, guided = exercises.run(draw_digits, old, labels[:2000], 220, [1.0, 2.0])
    wanted = torch.arange(10).repeat_interleave(20)
    found = [torch.cdist(y.flatten(1), means).argmin(1).eq(wanted).double().mean().item() for y in (plain, guided)]
    holds(found[0] > 0.5 and found[1] > 0.75, f"recognised with w = 1 and 2: {found}; by chance it would be 0.1")
    far, noise = energy_distance(plain, new), energy_distance(torch.rand(200, 64).double(), new)
    holds(far < noise / 10, f"the energy distance to new digits is {far:.3f}, that of noise {noise:.3f}")
