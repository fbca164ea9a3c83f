"""Wrong answers of chapter 25, each with the sentence that sets it right."""

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def column(values, x):
    """Numbers (B,), shaped to multiply states (B, ...)."""
    return values.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


# -- linear_betas, alpha_bar_of, cosine_alpha_bar, snr


@misconception("linear_betas", "Your last beta stops one step short of b1; T numbers have T - 1 gaps between them.")
def stops_short(T, b0=1e-4, b1=0.02):
    return b0 + (b1 - b0) * torch.arange(T, dtype=torch.float64) / T


@misconception(
    "linear_betas", "Shares multiply; you subtract the sum of the betas, which falls below 0.", "alpha_bar_of"
)
def sums_up(betas):
    return 1 - torch.cumsum(betas, 0)


@misconception("linear_betas", "You multiply the betas; what is left is a product of 1 - beta.", "alpha_bar_of")
def multiplies_betas(betas):
    return torch.cumprod(betas, 0)


@misconception(
    "linear_betas", "Your share grows: entry t is the product from step 0 to t, not from t on.", "alpha_bar_of"
)
def grows(betas):
    return torch.cumprod(1 - betas.flip(0), 0).flip(0)


@misconception("linear_betas", "Entry t leaves step t out; it is the share after step t.", "alpha_bar_of")
def shifted_by_one(betas):
    return torch.cat([torch.ones_like(betas[:1]), torch.cumprod(1 - betas, 0)[:-1]])


@misconception(
    "linear_betas", "The last cosine step destroys the signal altogether; cut beta at 0.999.", "cosine_alpha_bar"
)
def without_cut(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2) ** 2
    return f[1:] / f[0]


@misconception("linear_betas", "The cosine is not squared; the share is a variance, cos squared.", "cosine_alpha_bar")
def not_squared(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2)
    return torch.cumprod(1 - (1 - f[1:] / f[:-1]).clamp(max=0.999), 0)


@misconception("linear_betas", "The ratio is of variances; you take that of the factors, its root.", "snr")
def ratio_of_factors(alpha_bar):
    return (alpha_bar / (1 - alpha_bar)).sqrt()


@misconception("linear_betas", "You divide noise by signal; it is signal over noise.", "snr")
def noise_to_signal(alpha_bar):
    return (1 - alpha_bar) / alpha_bar


# -- alpha_at, q_sample


@misconception(
    "q_sample", "Level -1 reads the last entry, pure noise; it is the clean state, with share 1.", "alpha_at"
)
def last_entry(alpha_bar, t, x):
    return column(alpha_bar[t], x)


@misconception("q_sample", "Your factors run along the last axis; append axes of length one behind B.", "alpha_at")
def along_the_last_axis(alpha_bar, t, x):
    return torch.where(t >= 0, alpha_bar[t], 1.0).to(x.dtype)


@misconception(
    "q_sample", "A float64 schedule turns your float32 states into float64; convert what you read.", "alpha_at"
)
def keeps_the_dtype_of_the_schedule(alpha_bar, t, x):
    return torch.where(t >= 0, alpha_bar[t], 1.0).view(-1, *[1] * (x.dim() - 1))


@misconception("q_sample", "All samples get the level of the first; each has one of its own.", "alpha_at")
def first_level_for_all(alpha_bar, t, x):
    return reference.alpha_at(alpha_bar, t[:1].expand(len(t)), x)


@misconception("q_sample", "The shares are variances; the factors are their square roots.")
def without_roots(x0, t, eps, alpha_bar):
    a = reference.alpha_at(alpha_bar, t, x0)
    return a * x0 + (1 - a) * eps


@misconception("q_sample", "You mix with 1 - sqrt(alpha_bar); the variance is kept by sqrt(1 - alpha_bar).")
def wrong_root(x0, t, eps, alpha_bar):
    root = reference.alpha_at(alpha_bar, t, x0).sqrt()
    return root * x0 + (1 - root) * eps


@misconception("q_sample", "You use the beta of one step; the jump needs the share that all steps together leave.")
def one_step_only(x0, t, eps, alpha_bar):
    kept = reference.alpha_at(alpha_bar, t, x0) / reference.alpha_at(alpha_bar, (t - 1).clamp(min=-1), x0)
    return kept.sqrt() * x0 + (1 - kept).sqrt() * eps


@misconception("q_sample", "The two factors are exchanged: at the first level nearly all is still signal.")
def factors_exchanged(x0, t, eps, alpha_bar):
    return reference.q_sample(eps, t, x0, alpha_bar)


# -- predict_x0, ddpm_loss


@misconception("ddpm_loss", "The sign is wrong: the noise was added, so it has to be subtracted.", "predict_x0")
def adds_the_noise(xt, eps_hat, t, alpha_bar):
    return reference.predict_x0(xt, -eps_hat, t, alpha_bar)


@misconception("ddpm_loss", "After the noise is gone, the signal is still shrunk; divide by its factor.", "predict_x0")
def stays_shrunk(xt, eps_hat, t, alpha_bar):
    return xt - (1 - reference.alpha_at(alpha_bar, t, xt)).sqrt() * eps_hat


@misconception("ddpm_loss", "You divide by alpha_bar; the factor of x0 is its square root.", "predict_x0")
def divides_by_the_share(xt, eps_hat, t, alpha_bar):
    a = reference.alpha_at(alpha_bar, t, xt)
    return (xt - (1 - a).sqrt() * eps_hat) / a


@misconception("ddpm_loss", "You subtract the whole noise; only sqrt(1 - alpha_bar) of it was mixed in.", "predict_x0")
def subtracts_all(xt, eps_hat, t, alpha_bar):
    return (xt - eps_hat) / reference.alpha_at(alpha_bar, t, xt).sqrt()


@misconception("ddpm_loss", "The guess of x0 is clipped to -1 ... 1; not all data live there.", "predict_x0")
def clips(xt, eps_hat, t, alpha_bar):
    return reference.predict_x0(xt, eps_hat, t, alpha_bar).clamp(-1, 1)


@misconception("ddpm_loss", "The model guesses the noise, but you compare its guess with the clean sample.")
def compares_with_x0(model, x0, t, eps, alpha_bar):
    return ((model(reference.q_sample(x0, t, eps, alpha_bar), t) - x0) ** 2).mean()


@misconception("ddpm_loss", "You sum over the entries; the loss is a mean, so that it does not grow with the picture.")
def sums_the_squares(model, x0, t, eps, alpha_bar):
    return ((model(reference.q_sample(x0, t, eps, alpha_bar), t) - eps) ** 2).sum() / len(x0)


@misconception("ddpm_loss", "You take the absolute error; the loss is the mean of its square.")
def absolute_error(model, x0, t, eps, alpha_bar):
    return (model(reference.q_sample(x0, t, eps, alpha_bar), t) - eps).abs().mean()


@misconception("ddpm_loss", "The model is shown the clean samples; it must see them noised.")
def shows_clean_samples(model, x0, t, eps, alpha_bar):
    return ((model(x0, t) - eps) ** 2).mean()


@misconception("ddpm_loss", "All samples are noised to the level of the first; each has a level of its own.")
def one_level_for_all(model, x0, t, eps, alpha_bar):
    t = t[:1].expand(len(t))
    return ((model(reference.q_sample(x0, t, eps, alpha_bar), t) - eps) ** 2).mean()


@misconception("ddpm_loss", "The model never learns how noisy its input is: hand it t as it came.")
def hides_the_level(model, x0, t, eps, alpha_bar):
    return ((model(reference.q_sample(x0, t, eps, alpha_bar), torch.zeros_like(t)) - eps) ** 2).mean()


@misconception("ddpm_loss", "No gradient reaches the model: its guess must not be detached.")
def detached(model, x0, t, eps, alpha_bar):
    guess = model(reference.q_sample(x0, t, eps, alpha_bar), t).detach()
    return ((guess - eps) ** 2).mean().requires_grad_()


# -- ddpm_posterior, ddpm_step


def shares(alpha_bar, t, x):
    """The shares at t and a level below, shaped to multiply x."""
    return reference.alpha_at(alpha_bar, t, x), reference.alpha_at(alpha_bar, t - 1, x)


@misconception("ddpm_posterior", "The two coefficients of the mean are exchanged; at level 0 the mean must be x0.")
def coefficients_exchanged(xt, x0, t, alpha_bar):
    return reference.ddpm_posterior(x0, xt, t, alpha_bar)


@misconception("ddpm_posterior", "The variance is beta, as if x0 were unknown; multiply by (1 - p) / (1 - a).")
def variance_beta(xt, x0, t, alpha_bar):
    a, p = shares(alpha_bar, t, xt)
    return reference.ddpm_posterior(xt, x0, t, alpha_bar)[0], (1 - a / p).flatten()


@misconception("ddpm_posterior", "You return the deviation; asked for is the variance, its square.")
def returns_the_deviation(xt, x0, t, alpha_bar):
    mean, var = reference.ddpm_posterior(xt, x0, t, alpha_bar)
    return mean, var.sqrt()


@misconception("ddpm_posterior", "The roots in the mean are missing: they belong to p and to a / p.")
def mean_without_roots(xt, x0, t, alpha_bar):
    a, p = shares(alpha_bar, t, xt)
    mean = p * (1 - a / p) / (1 - a) * x0 + a / p * (1 - p) / (1 - a) * xt
    return mean, reference.ddpm_posterior(xt, x0, t, alpha_bar)[1]


@misconception("ddpm_posterior", "For t = 0 you read the last share, index -1; a level below 0 lies the clean state.")
def padded_on_the_wrong_side(xt, x0, t, alpha_bar):
    a, p = column(alpha_bar[t], xt), column(alpha_bar[t - 1], xt)
    beta = 1 - a / p
    mean = p.sqrt() * beta / (1 - a) * x0 + (a / p).sqrt() * (1 - p) / (1 - a) * xt
    return mean, (beta * (1 - p) / (1 - a)).flatten()


@misconception("ddpm_posterior", "The share of the level above is used for the one below: read it at t - 1.")
def level_above(xt, x0, t, alpha_bar):
    a, p = column(alpha_bar[t], xt), column(alpha_bar[(t + 1).clamp(max=len(alpha_bar) - 1)], xt)
    beta = 1 - p / a
    mean = p.sqrt() * beta / (1 - a) * x0 + (p / a).sqrt() * (1 - p) / (1 - a) * xt
    return mean, (beta * (1 - p) / (1 - a)).flatten()


@misconception("ddpm_posterior", "The noise is multiplied by the variance; it needs the deviation.", "ddpm_step")
def noise_times_variance(xt, eps_hat, t, noise, alpha_bar):
    mean, var = reference.ddpm_posterior(xt, reference.predict_x0(xt, eps_hat, t, alpha_bar), t, alpha_bar)
    return mean + column(var, xt) * noise


@misconception(
    "ddpm_posterior", "You hand the noise to the posterior; it wants the clean sample, guessed first.", "ddpm_step"
)
def noise_for_the_sample(xt, eps_hat, t, noise, alpha_bar):
    mean, var = reference.ddpm_posterior(xt, eps_hat, t, alpha_bar)
    return mean + column(var.sqrt(), xt) * noise


@misconception(
    "ddpm_posterior", "You return the mean alone; without fresh noise the samples shrink together.", "ddpm_step"
)
def mean_alone(xt, eps_hat, t, noise, alpha_bar):
    return reference.ddpm_posterior(xt, reference.predict_x0(xt, eps_hat, t, alpha_bar), t, alpha_bar)[0]


@misconception(
    "ddpm_posterior", "You add noise in the last step, too; from level 0 comes the guess itself.", "ddpm_step"
)
def noise_in_the_last_step(xt, eps_hat, t, noise, alpha_bar):
    mean, _ = reference.ddpm_posterior(xt, reference.predict_x0(xt, eps_hat, t, alpha_bar), t, alpha_bar)
    _, var = reference.ddpm_posterior(
        xt, xt, t.clamp(min=1), alpha_bar
    )  # the 0 of level 0 is replaced by its neighbour
    return mean + column(var.sqrt(), xt) * noise


@misconception("ddpm_posterior", "The guess of x0 is clipped to -1 ... 1, but not all data live there.", "ddpm_step")
def step_with_clipping(xt, eps_hat, t, noise, alpha_bar):
    x0 = reference.predict_x0(xt, eps_hat, t, alpha_bar).clamp(-1, 1)
    mean, var = reference.ddpm_posterior(xt, x0, t, alpha_bar)
    return mean + column(var.sqrt(), xt) * noise


# -- ddim_step


def jump(xt, eps_hat, a, p, x0, sigma, noise, kept=None):
    """The right jump, but for what is handed in."""
    kept = (1 - p - sigma**2).clamp(min=0).sqrt() if kept is None else kept
    return p.sqrt() * x0 + kept * eps_hat + (sigma * noise if noise is not None else 0)


def parts(xt, eps_hat, t, t_prev, alpha_bar):
    """Shares at both levels, and the guess of x0."""
    a, p = reference.alpha_at(alpha_bar, t, xt), reference.alpha_at(alpha_bar, t_prev, xt)
    return a, p, reference.predict_x0(xt, eps_hat, t, alpha_bar)


def deviation(a, p, eta):
    """The deviation of the fresh noise; upwards there is none."""
    return eta * ((1 - p) / (1 - a) * (1 - a / p)).clamp(min=0).sqrt()


@misconception("ddim_step", "The last jump stops at the first level, with noise left; at -1 the share is 1.")
def stops_at_the_first_level(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev.clamp(min=0), alpha_bar)
    return jump(xt, eps_hat, a, p, x0, deviation(a, p, eta), noise)


@misconception("ddim_step", "Index -1 is the last level to Python, but here it is the clean state with share 1.")
def reads_the_last_level(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    return reference.ddim_step(xt, eps_hat, t, t_prev % len(alpha_bar), eta, noise, alpha_bar)


@misconception("ddim_step", "Sigma lacks its root: what you compute under it is a variance.")
def sigma_without_root(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev, alpha_bar)
    return jump(xt, eps_hat, a, p, x0, eta * ((1 - p) / (1 - a) * (1 - a / p)).clamp(min=0), noise)


@misconception("ddim_step", "Fresh noise is added to all of the old; old and fresh share the variance 1 - p.")
def keeps_all_the_old_noise(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev, alpha_bar)
    return jump(xt, eps_hat, a, p, x0, deviation(a, p, eta), noise, (1 - p).sqrt())


@misconception("ddim_step", "Your sigma uses the beta of one level; a long jump needs 1 - a / p of its two ends.")
def beta_of_one_level(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev, alpha_bar)
    below = reference.alpha_at(alpha_bar, t - 1, xt)
    return jump(xt, eps_hat, a, p, x0, eta * ((1 - p) / (1 - a) * (1 - a / below)).clamp(min=0).sqrt(), noise)


@misconception("ddim_step", "You step to the level just below t; the jump ends at t_prev.")
def ignores_t_prev(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    return reference.ddim_step(xt, eps_hat, t, t - 1, eta, noise, alpha_bar)


@misconception("ddim_step", "Eta is not used: at 0 nothing fresh is added, at 1 as much as in ddpm_step.")
def ignores_eta(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev, alpha_bar)
    return jump(xt, eps_hat, a, p, x0, deviation(a, p, 1.0), noise)


@misconception("ddim_step", "Upwards 1 - a / p is negative, and 0 times NaN is NaN; treat eta = 0 apart.")
def not_upwards(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    a, p, x0 = parts(xt, eps_hat, t, t_prev, alpha_bar)
    return jump(xt, eps_hat, a, p, x0, eta * ((1 - p) / (1 - a) * (1 - a / p)).sqrt(), noise)


# -- cfg, drop_condition


@misconception("cfg", "Your w is shifted by one: start at the unconditional guess, so that w = 1 is the plain one.")
def starts_at_the_condition(eps_cond, eps_uncond, w):
    return eps_cond + w * (eps_cond - eps_uncond)


@misconception("cfg", "The difference is reversed: you push away from the condition.")
def pushes_away(eps_cond, eps_uncond, w):
    return eps_uncond + w * (eps_uncond - eps_cond)


@misconception("cfg", "The roles are exchanged: w = 0 must be the unconditional guess, w = 1 the conditional.")
def roles_exchanged(eps_cond, eps_uncond, w):
    return eps_cond + w * (eps_uncond - eps_cond)


@misconception("cfg", "The weights do not sum to one: going w along the line takes 1 - w off the other end.")
def sum_of_both(eps_cond, eps_uncond, w):
    return eps_uncond + w * eps_cond


@misconception("cfg", "One coin decides for the whole batch; throw one for each sample.", "drop_condition")
def one_coin(c, p, null, rng):
    dropped = torch.rand(1, generator=rng) < p
    return torch.where(dropped, torch.as_tensor(null, dtype=c.dtype), c)


@misconception("cfg", "Each entry has a coin of its own; a condition is dropped whole or not at all.", "drop_condition")
def a_coin_for_each_entry(c, p, null, rng):
    return torch.where(torch.rand(c.shape, generator=rng) < p, torch.as_tensor(null, dtype=c.dtype), c)


@misconception("cfg", "You keep with probability p; p is the share that is dropped.", "drop_condition")
def keeps_with_p(c, p, null, rng):
    return reference.drop_condition(c, 1 - p, null, rng)


@misconception("cfg", "You write null into the caller's tensor; make a new one.", "drop_condition")
def writes_into_c(c, p, null, rng):
    c[torch.rand(len(c), generator=rng) < p] = null
    return c


@misconception(
    "cfg", "The coins come from the global generator; draw them from rng, so that a seed decides.", "drop_condition"
)
def global_coins(c, p, null, rng):
    dropped = (torch.rand(len(c)) < p).view(-1, *[1] * (c.dim() - 1))
    return torch.where(dropped, torch.as_tensor(null, dtype=c.dtype), c)


# -- timestep_embedding, patchify, unpatchify, DiTBlock


@misconception(
    "DiTBlock", "The cosines come first in your embedding; promised are sines, then cosines.", "timestep_embedding"
)
def cosines_first(t, dim):
    return reference.timestep_embedding(t, dim).roll(dim // 2, 1)


@misconception("DiTBlock", "Sines and cosines alternate in your embedding; promised are halves.", "timestep_embedding")
def alternating(t, dim):
    return reference.timestep_embedding(t, dim).view(len(t), 2, dim // 2).transpose(1, 2).flatten(1)


@misconception(
    "DiTBlock", "The exponent runs over dim instead of dim / 2: the speeds fall too slowly.", "timestep_embedding"
)
def slow_speeds(t, dim):
    reference.timestep_embedding(t, dim)
    t = t if t.is_floating_point() else t.float()
    angle = t[:, None] * 10000.0 ** (-torch.arange(dim // 2, dtype=t.dtype) / dim)
    return torch.cat([angle.sin(), angle.cos()], 1)


@misconception("DiTBlock", "A mere reshape makes strips, not squares; the inner axes must be exchanged.", "patchify")
def strips(x, patch):
    reference.patchify(x, patch)
    return x.reshape(len(x), -1, patch * patch)


@misconception("DiTBlock", "Your patches run column by column; they go row by row.", "patchify")
def patches_by_columns(x, patch):
    return reference.patchify(x.transpose(1, 2), patch)


@misconception("DiTBlock", "A mere reshape does not put patches back; the inner axes must be exchanged.", "unpatchify")
def strips_back(tokens, H, W):
    return tokens.reshape(-1, H, W)


class Block(reference.DiTBlock):
    """The right block, written so that single steps can be replaced."""

    def split(self, c):
        return self.ada(F.silu(c))[:, None].chunk(6, dim=-1)

    def modulate(self, x, shift, scale):
        return self.norm(x) * (1 + scale) + shift

    def gated(self, gate, y):
        return gate * y

    def attend(self, x):
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        return self.out(self.mix(q, k, v).transpose(1, 2).flatten(2))

    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x, c):
        six = self.split(c)
        x = x + self.gated(six[2], self.attend(self.modulate(x, *six[:2])))
        return x + self.gated(six[5], self.down(F.gelu(self.up(self.modulate(x, *six[3:5])))))


@misconception("DiTBlock", "Your gates start at one: a new block must change nothing, so gate is used as it is.")
class GatesOne(Block):
    def gated(self, gate, y):
        return (1 + gate) * y


@misconception("DiTBlock", "The scale lacks its 1 +: a scale of 0 must leave the normalised tokens as they are.")
class ScaleWithoutOne(Block):
    def modulate(self, x, shift, scale):
        return self.norm(x) * scale + shift


@misconception("DiTBlock", "Your layer norms have parameters of their own; scale and shift come from the condition.")
class NormWithParameters(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm = nn.LayerNorm(cfg.d, eps=1e-6)


@misconception("DiTBlock", "A causal mask hides later patches, but patches have no order in time.")
class CausalBlock(Block):
    def mix(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


@misconception("DiTBlock", "The last layer of the condition does not start at 0, so a new block is no identity.")
class AdaNotZero(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.ada = nn.Linear(cfg.d, 6 * cfg.d)


@misconception("DiTBlock", "The output layers start at 0, too, so that no gradient reaches anything at all.")
class AllZero(Block):
    def __init__(self, cfg):
        super().__init__(cfg)
        for layer in (self.out, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)


@misconception("DiTBlock", "The order of the six vectors is shift, scale, gate; you take scale first.")
class ScaleFirst(Block):
    def split(self, c):
        six = super().split(c)
        return [six[k] for k in (1, 0, 2, 4, 3, 5)]


@misconception("DiTBlock", "The condition enters without its silu.")
class WithoutSilu(Block):
    def split(self, c):
        return self.ada(c)[:, None].chunk(6, dim=-1)


@misconception("DiTBlock", "Both halves use the first three vectors; the MLP has three of its own.")
class SharedModulation(Block):
    def split(self, c):
        return super().split(c)[:3] * 2


@misconception("DiTBlock", "The condition of the first sample is used for the whole batch.")
class FirstCondition(Block):
    def split(self, c):
        return super().split(c[:1].expand_as(c))


@misconception("DiTBlock", "The second half does not add to what came in: there is no residual path around the MLP.")
class NoResidual(Block):
    def forward(self, x, c):
        six = self.split(c)
        x = x + six[2] * self.attend(self.modulate(x, *six[:2]))
        return six[5] * self.down(F.gelu(self.up(self.modulate(x, *six[3:5]))))


# -- draw, train_toy_diffusion, unet_vs_dit_cost


def walk(net, alpha_bar, shape, seed, label, w, start=1.0):
    """The right way of drawing, but for what is handed in."""
    n, T = shape[0], len(alpha_bar)
    z = start * torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    null = torch.full((n,), net.null)
    c = null if label is None else torch.full((n,), label)
    levels = [*range(T - 1, -1, -4), -1]
    with torch.no_grad():
        for now, then in pairwise(levels):
            t, t_prev = torch.full((n,), now), torch.full((n,), then)
            eps_hat = net(z, t, c)
            if label is not None and w != 1:
                eps_hat = reference.cfg(eps_hat, net(z, t, null), w)
            z = reference.ddim_step(z, eps_hat, t, t_prev, 0.0, None, alpha_bar)
    return z


@misconception("train_toy_diffusion", "The class is ignored: ask the network with label, not with null.", "draw")
def draws_anything(net, alpha_bar, shape, seed=0, label=None, w=1.0):
    return walk(net, alpha_bar, shape, seed, None, w)


@misconception("train_toy_diffusion", "Guidance is ignored: for w other than 1 the guess is cfg of both.", "draw")
def without_guidance(net, alpha_bar, shape, seed=0, label=None, w=1.0):
    return walk(net, alpha_bar, shape, seed, label, 1.0)


@misconception("train_toy_diffusion", "You start from zeros, so that all samples are alike; start from noise.", "draw")
def starts_from_zeros(net, alpha_bar, shape, seed=0, label=None, w=1.0):
    return walk(net, alpha_bar, shape, seed, label, w, start=0.0)


@misconception(
    "train_toy_diffusion", "The whole noise is taken away in one step; a mean of all data comes out.", "draw"
)
def one_step(net, alpha_bar, shape, seed=0, label=None, w=1.0):
    n = shape[0]
    z = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    c, t = torch.full((n,), net.null if label is None else label), torch.full((n,), len(alpha_bar) - 1)
    with torch.no_grad():
        return reference.predict_x0(z, net(z, t, c), t, alpha_bar)


def train(
    data, steps, seed, labels, net, *, level=None, told_level=None, drop=0.1, standardise=True, undo=True, target=None
):
    """The right way of training, but for what is handed in."""
    rng = torch.Generator().manual_seed(seed)
    classes = 0 if labels is None else int(labels.max()) + 1
    net = reference.make_net(data.shape[1:], classes, seed) if net is None else net
    c = torch.full((len(data),), net.null) if labels is None else labels
    alpha_bar = reference.alpha_bar_of(reference.linear_betas(100, 1e-3, 0.15))
    centre = data.mean(0) if standardise else torch.zeros(())
    scale = (data - centre).std() if standardise else torch.ones(())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / steps)
        rows = torch.randint(len(data), (256,), generator=rng)
        x0 = (data[rows] - centre) / scale
        t = torch.randint(100, (256,), generator=rng)
        t = t if level is None else torch.full_like(t, level)
        eps = torch.randn(x0.shape, generator=rng)
        told = reference.drop_condition(c[rows], drop, net.null, rng)
        xt = reference.q_sample(x0, t, eps, alpha_bar)
        eps_hat = net(xt, t if told_level is None else torch.full_like(t, told_level), told)
        loss = ((eps_hat - (eps if target is None else x0)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def sampler(n, seed=0, label=None, w=1.0):
        z = walk(net, alpha_bar, (n, *data.shape[1:]), seed, label, w)
        return z * scale + centre if undo else z

    return sampler


@misconception("train_toy_diffusion", "You train on a single level of noise; each sample needs a level of its own.")
def trains_on_one_level(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, level=50)


@misconception("train_toy_diffusion", "The network is never told the level of noise in training; hand it t.")
def never_tells_the_level(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, told_level=0)


@misconception("train_toy_diffusion", "The data are not standardised, so that the noise never covers them.")
def raw_data(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, standardise=False)


@misconception("train_toy_diffusion", "The samples stay standardised; undo scale and centre before you return them.")
def stays_standardised(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, undo=False)


@misconception("train_toy_diffusion", "No condition is ever dropped, so the network never learns what null means.")
def never_drops(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, drop=0.0)


@misconception("train_toy_diffusion", "The network is trained to guess the clean sample, but used to guess the noise.")
def guesses_the_sample(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, net, target="x0")


@misconception("train_toy_diffusion", "You train a network of your own, although one was handed in.")
def ignores_the_network(data, steps, seed, labels=None, net=None):
    return train(data, steps, seed, labels, None)


def costs(res, patch, width, pairs=None, half=1):
    """The right costs, but for what is handed in."""
    right = reference.unet_vs_dit_cost(res, patch, width)
    N = right["tokens"]
    attention = (4 * N * N * width if pairs is None else 4 * pairs * width) // half
    unet = 36 * res**2 * width**2 // half
    return {"tokens": N, "attention": attention, "dit": attention + 24 * N * width**2 // half, "unet": unet}


@misconception(
    "train_toy_diffusion", "You count multiplications alone; each comes with an addition.", "unet_vs_dit_cost"
)
def multiplications_alone(res, patch, width):
    return costs(res, patch, width, half=2)


@misconception("train_toy_diffusion", "Attention compares all pairs of tokens: N squared, not N.", "unet_vs_dit_cost")
def linear_attention(res, patch, width):
    return costs(res, patch, width, pairs=(res // patch) ** 2)


@misconception(
    "train_toy_diffusion", "The U-Net works at every pixel; you count one place a patch.", "unet_vs_dit_cost"
)
def convolution_on_patches(res, patch, width):
    right = reference.unet_vs_dit_cost(res, patch, width)
    return {**right, "unet": 36 * right["tokens"] * width**2}
