"""Self-checks of chapter 25: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, exact, exercise, holds, roughly, stand_in

SHARES = torch.tensor([0.8, 0.4], dtype=torch.float64)  # alpha_bar of the notes' worked example


def double(numbers):
    """A float64 tensor of these numbers."""
    return torch.tensor(numbers, dtype=torch.float64)


def levels(*t):
    """Levels as a tensor."""
    return torch.tensor(t)


@exercise("linear_betas")
def test_three_steps_multiply(exercises):
    """Steps that keep 90, 80 and 50 percent keep 36 percent together."""
    betas = torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64)
    close(exercises.alpha_bar_of(betas), double([0.9, 0.72, 0.36]), "alpha_bar_of (0.1, 0.2, 0.5)")


@exercise("linear_betas")
def test_betas_in_even_steps(exercises):
    """Three betas from 0.1 to 0.3 have 0.2 between them."""
    close(exercises.linear_betas(3, 0.1, 0.3), double([0.1, 0.2, 0.3]), "linear_betas(3, 0.1, 0.3)")


@exercise("linear_betas")
def test_cosine_in_two_steps(exercises):
    """Half way the cosine schedule has about half, at the end almost nothing."""
    half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    got = exercises.cosine_alpha_bar(2) / double([half, half / 1000])
    close(got, torch.ones(2).double(), "cosine_alpha_bar(2) over (f(1/2) / f(0), a thousandth of that)")


@exercise("linear_betas")
def test_equal_parts_have_ratio_one(exercises):
    """Where signal and noise are equal the ratio is 1."""
    close(exercises.snr(torch.tensor([0.5, 0.75])), torch.tensor([1.0, 3.0]), "snr of 0.5 and 0.75")


@exercise("q_sample")
def test_two_samples_two_levels(exercises):
    """Each sample is noised to its own level."""
    x0, eps = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    got = exercises.q_sample(x0, levels(0, 1), eps, torch.tensor([0.64, 0.36]))
    close(got, torch.tensor([[0.8, 0.6], [0.6, 0.8]]), "q_sample of (1, 0) with noise (0, 1), levels 0 and 1")


@exercise("q_sample")
def test_level_minus_one_has_share_one(exercises):
    """Level -1 is the clean state, not the last entry."""
    got = exercises.alpha_at(SHARES, levels(-1, 0, 1), torch.zeros(3, 2).double())
    close(got, double([[1.0], [0.8], [0.4]]), "alpha_at of levels -1, 0 and 1")


@exercise("q_sample")
def test_noising_keeps_the_variance(exercises, rng):
    """Data of variance 1 have variance 1 at every level."""
    x0, eps, t = rng.normal(20000, 1), rng.normal(20000, 1), rng.integers(0, 2, 20000)
    # The standard error of the variance is 0.01.
    roughly(exercises.q_sample(x0, t, eps, SHARES).var().item(), 1.0, 0.06, "the variance of 20000 noised samples")


@exercise("ddpm_loss")
def test_true_noise_leads_back(exercises, rng):
    """With the true noise the clean sample comes back."""
    x0, eps, t = rng.normal(3, 2), rng.normal(3, 2), levels(1, 0, 1)
    a = SHARES[t][:, None]
    close(exercises.predict_x0(a.sqrt() * x0 + (1 - a).sqrt() * eps, eps, t, SHARES), x0, "predict_x0, noise known")


@exercise("ddpm_loss")
def test_guessing_nothing_costs_the_noise(exercises):
    """A model that always guesses 0 pays the mean square of the noise."""
    eps = double([[1.0, 3.0]])
    got = exercises.ddpm_loss(lambda xt, t: torch.zeros_like(xt), torch.zeros(1, 2).double(), levels(0), eps, SHARES)
    close(got.item(), (1 + 9) / 2, "ddpm_loss of the guess 0 with noise (1, 3)")


@exercise("ddpm_posterior")
def test_posterior_of_the_worked_example(exercises):
    """The worked example of the notes: shares 0.8 and 0.4, beta one half."""
    xt, x0 = double([[2.0]]), double([[1.0]])
    mean, var = exercises.ddpm_posterior(xt, x0, levels(1), SHARES)
    expected = math.sqrt(0.8) * 0.5 / 0.6 * 1 + math.sqrt(0.5) * 0.2 / 0.6 * 2
    close(mean.item(), expected, "the mean of ddpm_posterior")
    close(var, double([0.5 * 0.2 / 0.6]), "the variance of ddpm_posterior")


@exercise("ddpm_posterior")
def test_last_step_gives_the_guess(exercises):
    """From level 0 comes the guess of x0, without noise."""
    xt, eps, noise = (double([[x]]) for x in (2.0, 1.0, 100.0))
    expected = (2 - math.sqrt(0.2)) / math.sqrt(0.8)
    close(exercises.ddpm_step(xt, eps, levels(0), noise, SHARES).item(), expected, "ddpm_step from level 0")


@exercise("ddim_step")
def test_jump_mixes_anew(exercises):
    """With eta 0 the same two parts are mixed for another level."""
    xt, eps = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])  # x0 = (1, 0), level 1
    got = exercises.ddim_step(xt, eps, levels(1), levels(0), 0.0, None, torch.tensor([0.64, 0.36]))
    close(got, torch.tensor([[0.8, 0.6]]), "ddim_step from share 0.36 to share 0.64")


@exercise("ddim_step")
def test_eta_one_is_ddpm(exercises, rng):
    """With eta 1 and neighbouring levels it is ddpm_step."""
    xt, eps, noise = rng.normal(2, 3), rng.normal(2, 3), rng.normal(2, 3)
    got = exercises.ddim_step(xt, eps, levels(1, 0), levels(0, -1), 1.0, noise, SHARES)
    close(got, exercises.ddpm_step(xt, eps, levels(1, 0), noise, SHARES), "ddim_step with eta 1, against ddpm_step")


@exercise("cfg")
def test_guidance_goes_on_along_the_line(exercises):
    """From 1 without and 3 with the condition, w = 2 goes on to 5."""
    cond, uncond = torch.tensor([3.0]), torch.tensor([1.0])
    got = [exercises.cfg(cond, uncond, w).item() for w in (0.0, 1.0, 2.0)]
    roughly(got, [1.0, 3.0, 5.0], 1e-6, "cfg with w = 0, 1 and 2")


@exercise("cfg")
def test_a_fifth_is_dropped(exercises, rng):
    """About one condition in five is dropped, and the others stay."""
    c = rng.integers(0, 9, 5000)
    got = exercises.drop_condition(c, 0.2, 9, rng.generator())
    exact(got[got != 9], c[got != 9], "the conditions that were kept")
    # The standard error of the share is 0.0057.
    roughly((got == 9).double().mean().item(), 0.2, 0.032, "the share of 5000 conditions that was dropped")


@exercise("DiTBlock")
def test_levels_as_waves(exercises):
    """Level 0 has sines 0 and cosines 1, level 1 has moved a little."""
    got = exercises.timestep_embedding(double([0.0, 1.0]), 4)
    row = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]
    close(got, double([[0.0, 0.0, 1.0, 1.0], row]), "timestep_embedding of 0 and 1, dim 4")


@exercise("DiTBlock")
def test_two_patches(exercises):
    """A picture of 2 x 4 is two patches of 2 x 2, and back again."""
    x = torch.arange(8).reshape(1, 2, 4)
    exact(exercises.patchify(x, 2), torch.tensor([[[0, 1, 4, 5], [2, 3, 6, 7]]]), "patchify of 0 ... 7")
    exact(exercises.unpatchify(exercises.patchify(x, 2), 2, 4), x, "unpatchify(patchify(x))")


@exercise("DiTBlock")
def test_new_block_is_the_identity(exercises, rng):
    """A new block changes nothing, whatever it is told."""
    x, c = rng.normal(2, 3, 8), rng.normal(2, 8)
    block = exercises.DiTBlock(exercises.DiTConfig(d=8, heads=2, hidden=12)).double()
    close(block(x, c), x, "what a new DiTBlock makes of its tokens")


@exercise("DiTBlock")
def test_shift_scale_and_gate(exercises):
    """With gates 1 and outputs that are mere biases, both biases are added."""
    block = exercises.DiTBlock(exercises.DiTConfig(d=2, heads=1, hidden=3)).double()
    weights = {name: torch.zeros_like(w) for name, w in block.state_dict().items()}
    weights["ada.bias"] = double([0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 1, 1])  # shift, scale, gate, twice
    weights["out.bias"], weights["down.bias"] = double([1.0, 2.0]), double([10.0, 20.0])
    block.load_state_dict(weights)
    got = block(torch.zeros(1, 1, 2).double(), torch.zeros(1, 2).double())
    close(got, double([[[11.0, 22.0]]]), "a block with gates 1 and biases (1, 2) and (10, 20)")


@exercise("train_toy_diffusion")
def test_drawing_with_a_network_that_knows(exercises):
    """A network that knows the only sample there is draws that sample."""
    a, only = torch.cumprod(1 - torch.linspace(1e-3, 0.15, 100), 0), torch.tensor([2.0, -1.0])
    net = stand_in(lambda xt, t, c: (xt - a[t].sqrt()[:, None] * only) / (1 - a[t]).sqrt()[:, None], null=0)
    # Rounding at the noisiest level, where the sample is 0.02 of the state, is magnified to about 1e-5.
    roughly(exercises.draw(net, a, (3, 2), seed=5), only.expand(3, 2), 1e-2, "three drawn samples")


@exercise("train_toy_diffusion")
def test_two_heaps_are_learned(exercises, rng):
    """From two heaps of points come two heaps, and the label chooses one."""
    k = rng.integers(0, 2, 600)
    data = (torch.tensor([10.0, 30.0])[k][:, None] + rng.normal(600, 2)).float()
    sampler = exercises.train_toy_diffusion(data, 200, 0, k)
    first, second = (sampler(100, seed=1, label=label)[:, 0] for label in (0, 1))
    right = ((first < 20).sum() + (second > 20).sum()).item()
    holds(right > 180, f"{right} of 200 samples lie in the heap of their label")


@exercise("train_toy_diffusion")
def test_cost_of_sixteen_tokens(exercises):
    """Sixteen tokens of width 16, against a U-Net on 8 x 8 pixels."""
    expected = {
        "tokens": 16,
        "attention": 4 * 16 * 16 * 16,
        "dit": 4 * 16**3 + 24 * 16 * 16**2,
        "unet": 36 * 64 * 16**2,
    }
    exact(exercises.unet_vs_dit_cost(8, 2, 16), expected, "unet_vs_dit_cost(8, 2, 16)")
    with pytest.raises(ValueError):
        exercises.unet_vs_dit_cost(9, 2, 16)
