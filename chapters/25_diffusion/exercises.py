# %% [markdown]
# # Chapter 25: Diffusion
#
# Eight exercises. Noise is added in one jump and taken away in many small steps; by the end you have a transformer that
# draws digits. The teaching is in the notes (`README.md`); here stand only the promises that each function must keep.
#
# Conventions of the whole chapter. Levels of noise are numbered t = 0 ... T-1, from nearly clean to nearly pure noise;
# **t = -1 means clean**. `alpha_bar[t]` is the share of the variance that is still signal at level t, and it is 1 at
# level -1. `t` is always a tensor (B,) of int64, a level for each sample. States `x0`, `xt` and noises have the shape
# (B, ...) with any number of axes behind B. Guidance w = 1 is the plain conditional model.

# %%
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% [markdown]
# ## 25.1 linear_betas, alpha_bar_of, cosine_alpha_bar, snr
#
# How much noise does each step add, and how much of the picture is left after many of them?


# %%
def linear_betas(T: int, b0: float = 1e-4, b1: float = 0.02) -> Tensor:
    """Give the variance of the noise that each of T steps adds, growing evenly from b0 to b1.

    Args:
        T: number of steps, at least 1.
        b0, b1: the first and the last variance, between 0 and 1.

    Returns:
        (T,) float64. With T = 1 it holds b0 alone.

    Example:
        >>> linear_betas(3, 0.1, 0.3)
        tensor([0.1000, 0.2000, 0.3000], dtype=torch.float64)
    """
    raise NotImplementedError("linear_betas")


# %%
def alpha_bar_of(betas: Tensor) -> Tensor:
    """Give the share of the variance that is still signal after each step.

    Args:
        betas: (T,) variance of the noise that each step adds, floating, between 0 and 1.

    Returns:
        (T,), dtype of betas: entry t is the product of 1 - beta over the steps 0 to t, step t included.

    Example:
        >>> alpha_bar_of(torch.tensor([0.1, 0.2, 0.5]))
        tensor([0.9000, 0.7200, 0.3600])

    Notes:
        betas is not changed.
    """
    raise NotImplementedError("alpha_bar_of")


# %%
def cosine_alpha_bar(T: int, s: float = 0.008) -> Tensor:
    """Give the alpha_bar of the cosine schedule, with no step's beta above 0.999.

    Args:
        T: number of steps, at least 1.
        s: offset that keeps the first steps from being too small.

    Returns:
        (T,) float64.

    Example:
        >>> cosine_alpha_bar(4)
        tensor([8.4701e-01, 4.9384e-01, 1.4427e-01, 1.4427e-04], dtype=torch.float64)

    Notes:
        With f(u) = cos^2((u + s) / (1 + s) * pi / 2), the share after step t is f((t + 1) / T) / f(0). As f(1) = 0, the
        last step would destroy the signal altogether. So: beta of each step is 1 minus its share over that of the step
        before (of the first step: over 1), cut at 0.999, and the result is `alpha_bar_of` these betas.
    """
    raise NotImplementedError("cosine_alpha_bar")


# %%
def snr(alpha_bar: Tensor) -> Tensor:
    """Give the signal-to-noise ratio alpha_bar / (1 - alpha_bar), variance over variance.

    Args:
        alpha_bar: floating, any shape, values from 0 to 1.

    Returns:
        Shape and dtype of alpha_bar; infinite where alpha_bar is 1.

    Example:
        >>> snr(torch.tensor([0.9, 0.5, 0.0]))
        tensor([9.0000, 1.0000, 0.0000])
    """
    raise NotImplementedError("snr")


# %% [markdown]
# ## 25.2 alpha_at, q_sample
#
# From the clean state to any level of noise in one jump, each sample of the batch to a level of its own.


# %%
def alpha_at(alpha_bar: Tensor, t: Tensor, x: Tensor) -> Tensor:
    """Read alpha_bar at the level of each sample, shaped so that it multiplies the states x.

    Args:
        alpha_bar: (T,) floating; its dtype may differ from that of x.
        t: (B,) int64, each from -1 to T - 1.
        x: (B, ...) states, floating, with any number of axes behind B, also none.

    Returns:
        (B, 1, ..., 1), as many axes as x, dtype of x: alpha_bar[t[b]] for sample b, and 1 where t[b] is -1.

    Example:
        >>> alpha_at(torch.tensor([0.9, 0.5]), torch.tensor([1, -1, 0]), torch.zeros(3, 2))
        tensor([[0.5000],
                [1.0000],
                [0.9000]])

    Notes:
        To Python, index -1 is the last entry. Here it is the clean state.
    """
    raise NotImplementedError("alpha_at")


# %%
def q_sample(x0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor) -> Tensor:
    """Noise each clean sample to its own level: sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps.

    Args:
        x0: (B, ...) clean samples, floating.
        t: (B,) int64 levels, from -1 to T - 1.
        eps: shape and dtype of x0, standard normal noise.
        alpha_bar: (T,) floating; its dtype may differ from that of x0.

    Returns:
        Shape and dtype of x0. At level -1 it is x0.

    Example:
        >>> x0, eps = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
        >>> q_sample(x0, torch.tensor([0, 1]), eps, torch.tensor([0.64, 0.36]))
        tensor([[0.8000, 0.6000],
                [0.6000, 0.8000]])

    Notes:
        No input is changed.
    """
    raise NotImplementedError("q_sample")


# %% [markdown]
# ## 25.3 predict_x0, ddpm_loss
#
# The network guesses the noise. A guess of the noise is a guess of the clean sample, too.


# %%
def predict_x0(xt: Tensor, eps_hat: Tensor, t: Tensor, alpha_bar: Tensor) -> Tensor:
    """Solve the noising for x0: which clean sample belongs to this noisy one, if the noise was eps_hat?

    Args:
        xt: (B, ...) noisy samples, floating.
        eps_hat: shape and dtype of xt, the guessed noise.
        t: (B,) int64 levels, from -1 to T - 1.
        alpha_bar: (T,) floating; its dtype may differ from that of xt.

    Returns:
        Shape and dtype of xt. At level -1 it is xt. It is not clipped.

    Example:
        >>> xt, eps = torch.tensor([[0.8, 0.6]]), torch.tensor([[0.0, 1.0]])
        >>> predict_x0(xt, eps, torch.tensor([0]), torch.tensor([0.64, 0.36]))
        tensor([[1., 0.]])

    Notes:
        No input is changed.
    """
    raise NotImplementedError("predict_x0")


# %%
def ddpm_loss(
    model: Callable[[Tensor, Tensor], Tensor], x0: Tensor, t: Tensor, eps: Tensor, alpha_bar: Tensor
) -> Tensor:
    """Compute the mean squared error of the model's guess of the noise, over all entries of the batch.

    Args:
        model: maps noisy samples (B, ...) and levels (B,) to a guess of the noise, the shape of the samples.
        x0: (B, ...) clean samples, floating.
        t: (B,) int64 levels, from 0 to T - 1.
        eps: shape and dtype of x0, the noise to add.
        alpha_bar: (T,) floating.

    Returns:
        0-dim tensor, dtype of x0. Gradients reach the parameters of the model.

    Example:
        >>> model = lambda xt, t: torch.zeros_like(xt)
        >>> x0, eps = torch.zeros(1, 2), torch.tensor([[1.0, 3.0]])
        >>> ddpm_loss(model, x0, torch.tensor([0]), eps, torch.tensor([0.5]))
        tensor(5.)

    Notes:
        The model is called once, as model(xt, t), with all samples noised by q_sample and with t as it is. A mean, not
        a sum; all levels weigh the same. No input is changed.
    """
    raise NotImplementedError("ddpm_loss")


# %% [markdown]
# ## 25.4 ddpm_posterior, ddpm_step
#
# One step back, from level t to level t - 1. If x0 were known, the answer would be a Gaussian that can be written down.


# %%
def ddpm_posterior(xt: Tensor, x0: Tensor, t: Tensor, alpha_bar: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean and variance of the state one level below t, when the state at t and the clean sample are known.

    Args:
        xt: (B, ...) states at level t, floating.
        x0: shape and dtype of xt, the clean samples.
        t: (B,) int64 levels, from 0 to T - 1.
        alpha_bar: (T,) floating; its dtype may differ from that of xt.

    Returns:
        (mean, var): mean has the shape and dtype of xt; var is (B,), dtype of xt, the same for all entries of a sample.

    Example:
        >>> xt, x0 = torch.tensor([[2.0]]), torch.tensor([[1.0]])
        >>> ddpm_posterior(xt, x0, torch.tensor([1]), torch.tensor([0.8, 0.4]))
        (tensor([[1.2168]]), tensor([0.1667]))

    Notes:
        With a = alpha_bar at t, p = alpha_bar at t - 1 (1 for t = 0) and beta = 1 - a / p:
        mean = sqrt(p) beta / (1 - a) x0 + sqrt(a / p) (1 - p) / (1 - a) xt, and var = beta (1 - p) / (1 - a).
        So at t = 0 the mean is x0 and the variance is 0. No input is changed.
    """
    raise NotImplementedError("ddpm_posterior")


# %%
def ddpm_step(xt: Tensor, eps_hat: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Draw the state one level below t, with the guessed noise in place of the true one.

    Args:
        xt: (B, ...) states at level t, floating.
        eps_hat: shape and dtype of xt, the model's guess of the noise in xt.
        t: (B,) int64 levels, from 0 to T - 1.
        noise: shape and dtype of xt, fresh standard normal noise.
        alpha_bar: (T,) floating; its dtype may differ from that of xt.

    Returns:
        Shape and dtype of xt: a draw from the Gaussian of `ddpm_posterior`, with x0 from `predict_x0`, not clipped.

    Example:
        >>> xt, eps, noise = torch.tensor([[2.0]]), torch.tensor([[1.0]]), torch.tensor([[0.5]])
        >>> ddpm_step(xt, eps, torch.tensor([1]), noise, torch.tensor([0.8, 0.4]))
        tensor([[2.1197]])

    Notes:
        mean + sqrt(var) noise. At t = 0 it is the guess of x0 itself: no noise is left. No input is changed.
    """
    raise NotImplementedError("ddpm_step")


# %% [markdown]
# ## 25.5 ddim_step
#
# The same network, but fewer steps: jump from level t to any other level, with as much fresh noise as you like.


# %%
def ddim_step(
    xt: Tensor,
    eps_hat: Tensor,
    t: Tensor,
    t_prev: Tensor,
    eta: float,
    noise: Tensor | None,
    alpha_bar: Tensor,
) -> Tensor:
    """Go from level t to level t_prev, keeping the guessed clean sample and as much of the guessed noise as fits.

    Args:
        xt: (B, ...) states at level t, floating.
        eps_hat: shape and dtype of xt, the model's guess of the noise in xt.
        t, t_prev: (B,) int64; t from 0 to T - 1, t_prev from -1 to T - 1 and below t (see Notes for eta = 0).
        eta: from 0, no fresh noise, to 1, as much as ddpm_step adds.
        noise: shape and dtype of xt, fresh standard normal noise; it may be None if eta is 0.
        alpha_bar: (T,) floating; its dtype may differ from that of xt.

    Returns:
        Shape and dtype of xt. At t_prev = -1 it is the guess of x0 itself.

    Example:
        >>> xt, eps = torch.tensor([[0.6, 0.8]]), torch.tensor([[0.0, 1.0]])
        >>> ddim_step(xt, eps, torch.tensor([1]), torch.tensor([0]), 0.0, None, torch.tensor([0.64, 0.36]))
        tensor([[0.8000, 0.6000]])

    Notes:
        With a and p, alpha_bar at t and t_prev: sigma = eta sqrt((1 - p) / (1 - a) (1 - a / p)), and the result is
        sqrt(p) x0 + sqrt(1 - p - sigma^2) eps_hat + sigma noise, x0 from `predict_x0`. With eta = 0 it also runs
        upwards, t_prev > t, which turns a picture into its noise; then 1 - a / p is negative, and sigma is still 0.
    """
    raise NotImplementedError("ddim_step")


# %% [markdown]
# ## 25.6 cfg, drop_condition
#
# One network learns to draw with and without being told what. Their difference is what being told means.


# %%
def cfg(eps_cond: Tensor, eps_uncond: Tensor, w: float) -> Tensor:
    """Push the guess of the noise away from the unconditional one, w times as far as the condition does.

    Args:
        eps_cond: the guess with the condition, floating, any shape.
        eps_uncond: the guess without it, same shape and dtype.
        w: strength of guidance: 0 ignores the condition, 1 is the plain conditional guess, more than 1 exaggerates it.

    Returns:
        Shape and dtype of eps_cond.

    Example:
        >>> cfg(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 1.0]), 2.0)
        tensor([5., 1.])

    Notes:
        No input is changed.
    """
    raise NotImplementedError("cfg")


# %%
def drop_condition(c: Tensor, p: float, null: int | Tensor, rng: torch.Generator) -> Tensor:
    """Replace the condition of each sample, independently and with probability p, by the one that says nothing.

    Args:
        c: (B, ...) conditions, any dtype, such as (B,) class ids or (B, d) vectors from a text encoder.
        p: probability, from 0 (never) to 1 (always).
        null: the empty condition: a number, or a tensor of the shape of one sample's condition, dtype of c.
        rng: the only source of randomness.

    Returns:
        A new tensor, shape and dtype of c. A sample's condition is dropped whole or not at all.

    Example:
        >>> drop_condition(torch.tensor([3, 1, 4]), 1.0, 9, torch.Generator().manual_seed(0))
        tensor([9, 9, 9])

    Notes:
        c is not changed. Generators in the same state drop the same samples.
    """
    raise NotImplementedError("drop_condition")


# %% [markdown]
# ## 25.7 timestep_embedding, patchify, unpatchify, DiTBlock
#
# The transformer as a denoiser. A picture becomes a list of patches; what t and the class have to say enters each block
# through shift, scale and gate. Given: the sizes.


# %%
@dataclass(frozen=True)
class DiTConfig:
    """Sizes of a small diffusion transformer for square pictures of one channel."""

    d: int = 64  # width of a token
    heads: int = 4
    hidden: int = 128  # width inside the MLP
    layers: int = 2
    size: int = 8  # pixels along a side of the picture
    patch: int = 2  # pixels along a side of a patch
    classes: int = 10


# %%
def timestep_embedding(t: Tensor, dim: int) -> Tensor:
    """Turn each level into dim numbers: sines of it at dim / 2 speeds, then the cosines.

    Args:
        t: (B,) levels, int64 or floating.
        dim: even number, at least 2.

    Returns:
        (B, dim), dtype of t if that is floating, otherwise float32. With h = dim / 2 and speeds
        omega_i = 10000 ** (-i / h), i = 0 ... h - 1: entry [b, i] is sin(t_b omega_i), entry [b, h + i] is
        cos(t_b omega_i).

    Raises:
        ValueError: if dim is odd.

    Example:
        >>> timestep_embedding(torch.tensor([0, 1]), 4)
        tensor([[0.0000, 0.0000, 1.0000, 1.0000],
                [0.8415, 0.0100, 0.5403, 0.9999]])
    """
    raise NotImplementedError("timestep_embedding")


# %%
def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut each picture into square patches, and make each patch one token.

    Args:
        x: (B, H, W) pictures, any dtype.
        patch: pixels along a side of a patch.

    Returns:
        (B, N, patch * patch), N = (H / patch) (W / patch): patches row by row from the top left, and the pixels of a
        patch row by row, too.

    Raises:
        ValueError: if patch does not divide H and W.

    Example:
        >>> patchify(torch.arange(8).reshape(1, 2, 4), 2)
        tensor([[[0, 1, 4, 5],
                 [2, 3, 6, 7]]])
    """
    raise NotImplementedError("patchify")


# %%
def unpatchify(tokens: Tensor, H: int, W: int) -> Tensor:
    """Put the patches back in their places: the inverse of patchify.

    Args:
        tokens: (B, N, patch * patch), any dtype, as patchify gives them.
        H, W: height and width of the picture.

    Returns:
        (B, H, W), so that unpatchify(patchify(x, patch), H, W) equals x.

    Example:
        >>> unpatchify(torch.tensor([[[0, 1, 4, 5], [2, 3, 6, 7]]]), 2, 4)
        tensor([[[0, 1, 2, 3],
                 [4, 5, 6, 7]]])
    """
    raise NotImplementedError("unpatchify")


# %%
class DiTBlock(nn.Module):
    """Let the patches exchange what they know, each step shifted, scaled and gated by the condition (adaLN-Zero).

    Args:
        cfg: sizes; cfg.d, cfg.heads and cfg.hidden are used, and cfg.heads divides cfg.d.

    Example:
        >>> block, x, c = DiTBlock(DiTConfig()), torch.ones(2, 16, 64), torch.ones(2, 64)
        >>> torch.equal(block(x, c), x)
        True

    Notes:
        Parameters (weight and bias each) are those of qkv, nn.Linear(d, 3 d); out, nn.Linear(d, d); up,
        nn.Linear(d, hidden); down, nn.Linear(hidden, d); ada, nn.Linear(d, 6 d), which starts with weight and bias 0,
        so that a new block changes nothing. No others: the layer norms have no parameters, and eps = 1e-6.
        ada(silu(c)) is cut into six vectors of width d, in this order: shift, scale, gate of attention, then
        shift, scale, gate of the MLP. Each half is x = x + gate * f(norm(x) * (1 + scale) + shift).
        Attention: qkv(x) holds the queries of all heads, then the keys, then the values; head h owns features h * hd to
        (h + 1) * hd - 1 of each; scores are divided by sqrt(hd); every patch sees every patch; out mixes the heads.
        The MLP is down(gelu(up(x))), the exact gelu. There is no dropout.
    """

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        raise NotImplementedError("DiTBlock")

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Map tokens x (B, N, d), under conditions c (B, d), to (B, N, d)."""
        raise NotImplementedError("DiTBlock")


# %% [markdown]
# ## 25.8 draw, train_toy_diffusion, unet_vs_dit_cost
#
# Everything together: train a network to guess noise, then draw. Given: settings that work, a network for points of the
# plane, the DiT for pictures, which is built from your own parts, and a way of looking at a picture.

# %%
LEVELS, B0, B1 = 100, 1e-3, 0.15  # levels of noise; the first and the last beta of a linear schedule
BATCH, RATE, DROP = 256, 1e-2, 0.1  # batch size, first learning rate of Adam, share of conditions that are dropped
STRIDE = 4  # the sampler visits every fourth level


# %%
class PointDenoiser(nn.Module):
    """Guess the noise in points (B, D), given their levels (B,) and classes (B,); `null` says nothing."""

    def __init__(self, D: int, classes: int, d: int = 64) -> None:
        super().__init__()
        self.null, self.d = classes, d
        self.label = nn.Embedding(classes + 1, d)
        self.enter = nn.Linear(D, d)
        self.layers = nn.ModuleList(nn.Linear(2 * d, d) for _ in range(3))
        self.leave = nn.Linear(d, D)

    def forward(self, xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Map points (B, D), levels (B,) and classes (B,) to the guessed noise (B, D)."""
        told = timestep_embedding(t, self.d).to(xt.dtype) + self.label(c)  # (B, d)
        h = self.enter(xt)  # (B, d)
        for layer in self.layers:
            h = h + layer(torch.cat([F.silu(h), told], dim=1))  # (B, d)
        return self.leave(F.silu(h))  # (B, D)


# %%
class DiT(nn.Module):
    """Guess the noise in pictures (B, size, size), given their levels (B,) and classes (B,); `null` says nothing."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        self.cfg, self.null = cfg, cfg.classes
        self.label = nn.Embedding(cfg.classes + 1, cfg.d)
        self.told = nn.Linear(cfg.d, cfg.d)
        self.enter = nn.Linear(cfg.patch**2, cfg.d)
        self.place = nn.Parameter(0.1 * torch.randn((cfg.size // cfg.patch) ** 2, cfg.d))
        self.blocks = nn.ModuleList(DiTBlock(cfg) for _ in range(cfg.layers))
        self.ada = nn.Linear(cfg.d, 2 * cfg.d)
        self.leave = nn.Linear(cfg.d, cfg.patch**2)
        for start_at_zero in (self.ada, self.leave):
            nn.init.zeros_(start_at_zero.weight)
            nn.init.zeros_(start_at_zero.bias)

    def forward(self, xt: Tensor, t: Tensor, c: Tensor) -> Tensor:
        """Map pictures (B, size, size), levels (B,) and classes (B,) to the guessed noise (B, size, size)."""
        told = self.told(timestep_embedding(t, self.cfg.d).to(xt.dtype)) + self.label(c)  # (B, d)
        h = self.enter(patchify(xt, self.cfg.patch)) + self.place  # (B, N, d)
        for block in self.blocks:
            h = block(h, told)
        shift, scale = self.ada(F.silu(told))[:, None].chunk(2, dim=-1)  # (B, 1, d) each
        h = F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift
        return unpatchify(self.leave(h), self.cfg.size, self.cfg.size)  # (B, size, size)


# %%
def make_net(shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """Make a new network for samples of this shape: a PointDenoiser for (D,), a DiT for (size, size)."""
    with torch.random.fork_rng(devices=[]):  # the global generator is left as it was
        torch.manual_seed(seed)
        return PointDenoiser(shape[0], classes) if len(shape) == 1 else DiT(DiTConfig(size=shape[0], classes=classes))


# %%
def picture(image: Tensor) -> str:
    """Draw a picture (H, W) of ink from 0 to 1 with characters, two for a pixel."""
    ink = (image.clamp(0, 1) * 4).round().long().tolist()
    return "\n".join("".join(" .:*#"[level] * 2 for level in row) for row in ink)


# %%
def draw(
    net: Callable[[Tensor, Tensor, Tensor], Tensor],
    alpha_bar: Tensor,
    shape: tuple[int, ...],
    seed: int = 0,
    label: int | None = None,
    w: float = 1.0,
) -> Tensor:
    """Draw samples: start with noise alone and take it away, level by level, as the network guesses it.

    Args:
        net: called as net(xt, t, c) with states (n, ...) float32, levels (n,) and classes (n,), both int64; gives the
            guess of the noise. net.null is the class that says nothing.
        alpha_bar: (T,) floating.
        shape: (n, ...), shape of the result; n samples.
        seed: decides all random choices.
        label: class of all n samples; None means any.
        w: guidance.

    Returns:
        `shape` float32, without gradients. The same arguments give the same samples.

    Notes:
        The first state is standard normal noise at level T - 1, the last level is -1. Which levels are visited between
        them, and with how much fresh noise, is yours; every fourth level with eta = 0 is enough here. At each level
        the guess is that for label; if w is not 1, it is `cfg` of that and of the guess for null. Without a label it
        is the guess for null, whatever w. Nothing is clipped. The state of torch's global generator has no influence.
    """
    raise NotImplementedError("draw")


# %%
def train_toy_diffusion(
    data: Tensor, steps: int, seed: int, labels: Tensor | None = None, net: nn.Module | None = None
) -> Callable[..., Tensor]:
    """Train a network to guess the noise in noised data, and give a function that draws new samples.

    Args:
        data: (N, ...) float32, of any centre and scale: points (N, D) or pictures (N, size, size).
        steps: number of training steps; with 0 the sampler draws with the network as it is.
        seed: decides all random choices of the training.
        labels: (N,) int64 classes, from 0; None if there are none.
        net: trained in place, called as net(xt, t, c) with states, levels (B,) from 0 to LEVELS - 1 and classes (B,),
            both int64; net.null says nothing. None means make_net(data.shape[1:], number of classes, seed).

    Returns:
        sampler(n, seed=0, label=None, w=1.0), which draws n samples (n, ...) float32 in the units of data, as `draw`
        does with these arguments.

    Notes:
        The network sees data of mean 0 (at each entry) and variance 1 (over all entries); the sampler undoes that.
        Each sample of a batch has a level of its own, all LEVELS equally likely. With labels, each condition is dropped
        with probability DROP; without, all are net.null. The arguments alone decide everything, whatever the state of
        torch's global generator. With the given constants, and a rate that falls evenly to 0, 800 steps do for four
        narrow heaps (an energy distance to new data below a third of one normal cloud's), 400 for three wide ones with
        labels, and 220 for digits that can be recognised; other settings that do as well are yours.
    """
    raise NotImplementedError("train_toy_diffusion")


# %%
def unet_vs_dit_cost(res: int, patch: int, width: int) -> dict[str, int]:
    """Count what one block of a transformer and one block of a U-Net cost on a picture of res x res.

    Args:
        res: pixels (or entries of a latent) along a side.
        patch: pixels along a side of the transformer's patches.
        width: width of a token, and number of channels at each pixel of the U-Net.

    Returns:
        "tokens": number of patches N; "attention": operations of scores and mixing in one DiTBlock, all heads;
        "dit": operations of all its products with weights that run once per token (qkv, out, and an MLP with hidden =
        4 width), and attention; "unet": operations of two 3 x 3 convolutions from width to width channels at every
        pixel of the same grid.

    Raises:
        ValueError: if patch does not divide res.

    Example:
        >>> unet_vs_dit_cost(8, 2, 16)
        {'tokens': 16, 'attention': 16384, 'dit': 114688, 'unet': 589824}

    Notes:
        A multiplication and its addition are two operations: (m, k) times (k, n) costs 2 m k n. Biases, norms, softmax,
        nonlinearities, padding at the edge, and `ada`, which runs once per picture, are left out.
    """
    raise NotImplementedError("unet_vs_dit_cost")
