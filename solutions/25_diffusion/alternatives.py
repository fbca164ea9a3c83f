"""Right answers of chapter 25 written in other styles; a suite that fails one of them is wrong."""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- linear_betas


@alternative("linear_betas", "a list")
def betas_by_list(T, b0=1e-4, b1=0.02):
    gap = (b1 - b0) / max(T - 1, 1)
    return torch.tensor([b0 + gap * i for i in range(T)], dtype=torch.float64)


@alternative("linear_betas", "numpy")
def betas_by_numpy(T, b0=1e-4, b1=0.02):
    return torch.from_numpy(np.linspace(b0, b1, T))


@alternative("linear_betas", "a running product", replaces="alpha_bar_of")
def shares_by_loop(betas):
    share, out = torch.ones((), dtype=betas.dtype), torch.empty_like(betas)
    for i, beta in enumerate(betas):
        share = share * (1 - beta)
        out[i] = share
    return out


@alternative("linear_betas", "sums of logarithms in float64", replaces="alpha_bar_of")
def shares_by_logarithms(betas):
    return torch.log1p(-betas.double()).cumsum(0).exp().to(betas.dtype)


@alternative("linear_betas", "floats, one step after the other", replaces="cosine_alpha_bar")
def cosine_by_loop(T, s=0.008):
    def f(u):
        return math.cos((u + s) / (1 + s) * math.pi / 2) ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2

    shares = [1.0]
    for i in range(T):
        shares.append(shares[-1] * (1 - min(1 - f((i + 1) / T) / f(i / T), 0.999)))
    return torch.tensor(shares[1:], dtype=torch.float64)


@alternative("linear_betas", "one over the noise ratio, less one", replaces="snr")
def snr_by_reciprocal(alpha_bar):
    return 1 / (1 - alpha_bar) - 1


# -- q_sample


@alternative("q_sample", "a schedule with a 1 in front", replaces="alpha_at")
def share_by_padding(alpha_bar, t, x):
    padded = F.pad(alpha_bar, (1, 0), value=1.0)
    return padded.gather(0, t + 1).to(x.dtype).reshape((len(t),) + (1,) * (x.ndim - 1))


@alternative("q_sample", "a Python list", replaces="alpha_at")
def share_by_list(alpha_bar, t, x):
    values = [1.0 if level < 0 else float(alpha_bar[level]) for level in t.tolist()]
    out = torch.tensor(values, dtype=x.dtype)
    for _ in range(x.dim() - 1):
        out = out.unsqueeze(-1)
    return out


@alternative("q_sample", "one sample at a time")
def noised_one_by_one(x0, t, eps, alpha_bar):
    out = torch.empty_like(x0)
    for b, level in enumerate(t.tolist()):
        a = 1.0 if level < 0 else alpha_bar[level].item()
        out[b] = math.sqrt(a) * x0[b] + math.sqrt(1 - a) * eps[b]
    return out


@alternative("q_sample", "axes moved to the end and back, factors in float64")
def noised_from_behind(x0, t, eps, alpha_bar):
    a = torch.where(t < 0, torch.ones((), dtype=torch.float64), alpha_bar.double()[t])
    out = x0.double().movedim(0, -1) * a.sqrt() + eps.double().movedim(0, -1) * torch.sqrt(1 - a)
    return out.movedim(-1, 0).to(x0.dtype)


# -- ddpm_loss


@alternative("ddpm_loss", "the form with one over the root of the share", replaces="predict_x0")
def clean_by_reciprocals(xt, eps_hat, t, alpha_bar):
    a = reference.alpha_at(alpha_bar, t, xt)
    return torch.rsqrt(a) * xt - torch.sqrt(1 / a - 1) * eps_hat


@alternative("ddpm_loss", "numpy in float64", replaces="predict_x0")
def clean_by_numpy(xt, eps_hat, t, alpha_bar):
    a = np.append(alpha_bar.double().numpy(), 1.0)[t.numpy()].reshape(-1, *[1] * (xt.dim() - 1))
    return torch.from_numpy((xt.double().numpy() - np.sqrt(1 - a) * eps_hat.double().numpy()) / np.sqrt(a)).to(xt.dtype)


@alternative("ddpm_loss", "mse_loss")
def loss_by_torch(model, x0, t, eps, alpha_bar):
    return F.mse_loss(model(reference.q_sample(x0, t, eps, alpha_bar), t), eps)


@alternative("ddpm_loss", "a mean of the means of the samples")
def loss_by_samples(model, x0, t, eps, alpha_bar):
    error = eps - model(reference.q_sample(x0, t, eps, alpha_bar), t)
    return torch.stack([row.square().mean() for row in error]).mean()


# -- ddpm_posterior


@alternative("ddpm_posterior", "precisions added, with level 0 apart")
def posterior_by_precisions(xt, x0, t, alpha_bar):
    mean, var = torch.empty_like(xt), torch.zeros(len(t), dtype=xt.dtype)
    for b, level in enumerate(t.tolist()):
        if level == 0:
            mean[b] = x0[b]
            continue
        a, p = alpha_bar[level].item(), alpha_bar[level - 1].item()
        alpha = a / p
        before, after = 1 / (1 - p), alpha / (1 - alpha)
        var[b] = 1 / (before + after)
        mean[b] = (before * math.sqrt(p) * x0[b] + after / math.sqrt(alpha) * xt[b]) / (before + after)
    return mean, var


@alternative("ddpm_posterior", "betas and a padded schedule, in float64")
def posterior_by_tables(xt, x0, t, alpha_bar):
    a = alpha_bar.double()
    p = torch.cat([torch.ones(1, dtype=torch.float64), a[:-1]])
    beta, shape = 1 - a / p, (-1,) + (1,) * (xt.dim() - 1)
    first, second = beta * p.sqrt() / (1 - a), (1 - p) * (1 - beta).sqrt() / (1 - a)
    mean = first[t].view(shape) * x0.double() + second[t].view(shape) * xt.double()
    return mean.to(xt.dtype), (beta * (1 - p) / (1 - a))[t].to(xt.dtype)


@alternative("ddpm_posterior", "the form with the noise in it, noise masked at level 0", replaces="ddpm_step")
def step_by_noise(xt, eps_hat, t, noise, alpha_bar):
    a, p = reference.alpha_at(alpha_bar, t, xt), reference.alpha_at(alpha_bar, t - 1, xt)
    alpha = a / p
    mean = (xt - (1 - alpha) / (1 - a).sqrt() * eps_hat) / alpha.sqrt()
    var = (1 - alpha) * (1 - p) / (1 - a)
    return torch.where((t > 0).view(a.shape), mean + var.sqrt() * noise, mean)


# -- ddim_step


@alternative("ddim_step", "always with sigma, cut at 0, and noise of zeros where there is none")
def jump_with_sigma(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    noise = torch.zeros_like(xt) if noise is None else noise
    a, p = reference.alpha_at(alpha_bar, t, xt), reference.alpha_at(alpha_bar, t_prev, xt)
    var = eta**2 * ((1 - p) / (1 - a) * (1 - a / p)).clamp(min=0)
    x0 = (xt - (1 - a).sqrt() * eps_hat) / a.sqrt()
    return p.sqrt() * x0 + (1 - p - var).clamp(min=0).sqrt() * eps_hat + var.sqrt() * noise


@alternative("ddim_step", "one sample at a time, with floats")
def jump_one_by_one(xt, eps_hat, t, t_prev, eta, noise, alpha_bar):
    share, rows = [*alpha_bar.tolist(), 1.0], []
    for b in range(len(xt)):
        a, p = share[t[b]], share[t_prev[b]]
        x0 = (xt[b] - math.sqrt(1 - a) * eps_hat[b]) / math.sqrt(a)
        var = eta * eta * (1 - p) / (1 - a) * (1 - a / p) if eta else 0.0
        row = math.sqrt(p) * x0 + math.sqrt(max(1 - p - var, 0.0)) * eps_hat[b]
        rows.append(row if not eta else row + math.sqrt(var) * noise[b])
    return torch.stack(rows).to(xt.dtype)


# -- cfg


@alternative("cfg", "two weights that sum to one")
def guided_by_weights(eps_cond, eps_uncond, w):
    return w * eps_cond + (1 - w) * eps_uncond


@alternative("cfg", "lerp")
def guided_by_lerp(eps_cond, eps_uncond, w):
    return torch.lerp(eps_uncond, eps_cond, w)


@alternative("cfg", "a copy, written into where a coin falls", replaces="drop_condition")
def dropped_in_a_copy(c, p, null, rng):
    out = c.clone()
    out[torch.bernoulli(torch.full((len(c),), float(p)), generator=rng).bool()] = torch.as_tensor(null, dtype=c.dtype)
    return out


@alternative("cfg", "a loop over the samples", replaces="drop_condition")
def dropped_by_loop(c, p, null, rng):
    coins = torch.rand(c.shape[0], generator=rng, dtype=torch.float64).tolist()
    empty = torch.as_tensor(null, dtype=c.dtype).expand(c.shape[1:])
    return torch.stack([empty if coin < p else row for coin, row in zip(coins, c, strict=True)])


# -- DiTBlock


@alternative("DiTBlock", "two halves filled in", replaces="timestep_embedding")
def waves_by_filling(t, dim):
    if dim % 2 == 1:
        raise ValueError("dim")
    kind = t.dtype if t.is_floating_point() else torch.float32
    out = torch.zeros(len(t), dim, dtype=kind)
    for i in range(dim // 2):
        omega = math.exp(-math.log(10000) * i / (dim // 2))
        out[:, i] = torch.sin(t.double() * omega).to(kind)
        out[:, dim // 2 + i] = torch.cos(t.double() * omega).to(kind)
    return out


@alternative("DiTBlock", "slices, stacked", replaces="patchify")
def patches_by_slices(x, patch):
    _, H, W = x.shape
    if H % patch != 0 or W % patch != 0:
        raise ValueError("patch")
    cut = [x[:, i : i + patch, j : j + patch].flatten(1) for i in range(0, H, patch) for j in range(0, W, patch)]
    return torch.stack(cut, dim=1)


@alternative("DiTBlock", "written patch by patch into an empty picture", replaces="unpatchify")
def picture_by_slices(tokens, H, W):
    patch = round(tokens.shape[2] ** 0.5)
    out = torch.empty(len(tokens), H, W, dtype=tokens.dtype)
    for n in range(tokens.shape[1]):
        i, j = divmod(n, W // patch)
        tile = tokens[:, n].reshape(-1, patch, patch)
        out[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = tile
    return out


@alternative("DiTBlock", "one head at a time, norms and gelu by hand")
class BlockByHand(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        for name, wide, out in (("qkv", cfg.d, 3 * cfg.d), ("out", cfg.d, cfg.d), ("up", cfg.d, cfg.hidden)):
            setattr(self, name, nn.Linear(wide, out))
        self.down, self.ada = nn.Linear(cfg.hidden, cfg.d), nn.Linear(cfg.d, 6 * cfg.d)
        for parameter in self.ada.parameters():
            parameter.data.fill_(0)

    def normed(self, x, shift, scale):
        centred = x - x.mean(-1, keepdim=True)
        y = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return y + y * scale.unsqueeze(1) + shift.unsqueeze(1)

    def forward(self, x, c):
        d, hd = self.cfg.d, self.cfg.d // self.cfg.heads
        six = self.ada(c * torch.sigmoid(c))
        one, two, three, four, five, six = (six[:, i * d : (i + 1) * d] for i in range(6))
        y, heads = self.qkv(self.normed(x, one, two)), []
        for h in range(0, d, hd):
            q, k, v = y[..., h : h + hd], y[..., d + h : d + h + hd], y[..., 2 * d + h : 2 * d + h + hd]
            P = torch.softmax(torch.einsum("bnh,bmh->bnm", q, k) / math.sqrt(hd), dim=2)
            heads.append(torch.bmm(P, v))
        x = x + three.unsqueeze(1) * self.out(torch.cat(heads, dim=2))
        inner = self.up(self.normed(x, four, five))
        inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
        return x + six.unsqueeze(1) * self.down(inner)


# -- train_toy_diffusion


@alternative(
    "train_toy_diffusion", "every other level, with fresh noise, and one call for both guesses", replaces="draw"
)
def drawn_with_fresh_noise(net, alpha_bar, shape, seed=0, label=None, w=1.0):
    rng, n = torch.Generator().manual_seed(seed), shape[0]
    x = torch.empty(shape).normal_(generator=rng)
    classes = torch.full((n,), net.null if label is None else label)
    levels = list(range(len(alpha_bar) - 1, -1, -2))
    for i, now in enumerate(levels):
        t = torch.full((n,), now)
        before = torch.full((n,), levels[i + 1] if i + 1 < len(levels) else -1)
        with torch.no_grad():
            if label is None or w == 1:
                guess = net(x, t, classes)
            else:
                both = net(torch.cat([x, x]), torch.cat([t, t]), torch.cat([classes, torch.full((n,), net.null)]))
                guess = reference.cfg(*both.chunk(2), w)
        x = reference.ddim_step(x, guess, t, before, 1.0, torch.randn(shape, generator=rng), alpha_bar)
    return x


@alternative(
    "train_toy_diffusion", "AdamW, passes over the data, a rate that warms up, numbers from a seeded global state"
)
def trained_in_passes(data, steps, seed, labels=None, net=None):
    torch.manual_seed(seed)
    if net is None:
        net = reference.make_net(data.shape[1:], 0 if labels is None else int(labels.max()) + 1, seed)
    alpha_bar = reference.alpha_bar_of(reference.linear_betas(reference.LEVELS, reference.B0, reference.B1))
    mean = data.mean(0, keepdim=True)
    sigma = torch.sqrt(((data - mean) ** 2).mean())
    z, rng = (data - mean) / sigma, torch.Generator().manual_seed(seed + 1)
    optimizer, order = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min((step + 1) / 20, (1 + math.cos(math.pi * step / steps)) / 2)
        if len(order) < 256:
            order = [*order, *torch.randperm(len(z)).tolist()]
        rows, order = torch.tensor(order[:256]), order[256:]
        c = torch.full_like(rows, net.null)
        if labels is not None:
            c = reference.drop_condition(labels[rows], reference.DROP, net.null, rng)
        t = torch.randint(0, reference.LEVELS, rows.shape)
        noise = torch.randn_like(z[rows])
        error = net(reference.q_sample(z[rows], t, noise, alpha_bar), t, c) - noise
        error.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def sampler(n, seed=0, label=None, w=1.0):
        return mean + sigma * reference.draw(net, alpha_bar, (n,) + tuple(data.shape[1:]), seed=seed, label=label, w=w)

    return sampler


@alternative("train_toy_diffusion", "layer by layer", replaces="unet_vs_dit_cost")
def costs_by_layers(res, patch, width):
    side, rest = divmod(res, patch)
    if rest:
        raise ValueError("patch")
    N, total = side * side, 0
    attention = sum(2 * N * width * N for _ in ("scores", "mix"))
    for wide, out in ((width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)):
        total += 2 * N * wide * out
    convolution = 2 * res * res * (3 * 3 * width) * width
    return {"unet": 2 * convolution, "dit": total + attention, "attention": attention, "tokens": N}
