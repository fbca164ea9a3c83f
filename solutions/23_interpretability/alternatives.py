"""Right answers of chapter 23 written in other styles; a suite that fails one of them is wrong."""

import contextlib
import copy
import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


def layer_site(model, layer):
    """The site of a layer number."""
    names = ["embed"] + ["blocks." + str(n) for n in range(len(model.blocks))]
    if layer < 0 or layer >= len(names):
        raise ValueError("layer")
    return names[layer]


# -- run_with_hooks, logit_lens


@alternative("logit_lens", "an ExitStack that removes what was registered", replaces="run_with_hooks")
def hooks_by_exit_stack(model, ids, hooks):
    for site in hooks:
        if site not in [name for name, _ in model.named_modules()]:
            raise ValueError(site)

    def listener(function):
        def hook(module, inputs, output):
            return function(output)

        return hook

    with contextlib.ExitStack() as stack, torch.inference_mode():
        for site in hooks:
            stack.callback(model.get_submodule(site).register_forward_hook(listener(hooks[site])).remove)
        logits = model(ids)
    return logits.clone()


@alternative("logit_lens", "hooks on a copy of the model, so that nothing has to be removed", replaces="run_with_hooks")
def hooks_on_a_copy(model, ids, hooks):
    other = copy.deepcopy(model)
    try:
        modules = [other.get_submodule(site) for site in hooks]
    except AttributeError:
        raise ValueError("unknown site") from None
    for module, function in zip(modules, hooks.values(), strict=True):
        module.register_forward_hook(lambda m, i, o, f=function: f(o))
    return other(ids).detach()


@alternative("logit_lens", "the blocks are walked by hand, without hooks")
def lens_by_hand(model, ids):
    T = ids.shape[1]
    with torch.no_grad():
        x = model.tokens(ids) + model.positions.weight[:T]
        slices = [model.unembed(model.norm(x))]
        for block in model.blocks:
            x = block(x)
            slices.append(model.unembed(model.norm(x)))
        return torch.stack(slices, dim=0)


@alternative("logit_lens", "the norm is written out, one state and one hook at a time")
def lens_state_by_state(model, ids):
    slices = []
    for layer in range(len(model.blocks) + 1):
        seen = {}
        reference.run_with_hooks(model, ids, {layer_site(model, layer): lambda x, seen=seen: seen.update(x=x)})
        x = seen["x"]
        x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + model.norm.eps)
        h = x * model.norm.weight.detach() + model.norm.bias.detach()
        slices.append(torch.einsum("btd,vd->btv", h, model.unembed.weight.detach()) + model.unembed.bias.detach())
    return torch.stack(slices)


# -- train_probe, probe_selectivity


@alternative("train_probe", "least squares on rows that stand for the penalty")
def probe_by_lstsq(H, y, l2):
    n, d = H.shape
    Y = torch.eye(int(y.max()) + 1, dtype=H.dtype)[y]
    mean, share = H.mean(dim=0, keepdim=True), Y.mean(dim=0, keepdim=True)
    A = torch.vstack([H - mean, math.sqrt(l2) * torch.eye(d, dtype=H.dtype)])
    W = torch.linalg.lstsq(A, torch.vstack([Y - share, torch.zeros(d, Y.shape[1], dtype=H.dtype)])).solution
    return W, (share - mean @ W)[0]


@alternative("train_probe", "numpy, the bias as a column without penalty, float64 inside")
def probe_by_numpy(H, y, l2):
    X = np.concatenate([H.double().numpy(), np.ones((len(H), 1))], axis=1)
    Y = np.zeros((len(H), int(y.max()) + 1))
    for row, label in enumerate(y.tolist()):
        Y[row, label] = 1
    penalty = np.diag([l2] * H.shape[1] + [0.0])
    W = torch.from_numpy(np.linalg.solve(X.T @ X + penalty, X.T @ Y)).to(H.dtype)
    return W[:-1], W[-1]


@alternative("train_probe", "the dual form, a system with as many unknowns as rows")
def probe_by_dual(H, y, l2):
    Y = F.one_hot(y).to(H.dtype)
    X = H - H.mean(0)
    K = X @ X.T + l2 * torch.eye(len(H), dtype=H.dtype)
    W = X.T @ torch.linalg.solve(K, Y - Y.mean(0))
    return W, Y.mean(0) - H.mean(0) @ W


@alternative("train_probe", "Python loops over the rows to be judged", replaces="probe_selectivity")
def selectivity_by_loops(H, y, control_y, l2=1.0):
    def accuracy(labels):
        n = len(H) // 2
        W, b = reference.train_probe(H[:n], labels[:n], l2)
        right = 0
        for h, label in zip(H[n:], labels[n:].tolist(), strict=True):
            scores = (h @ W + b).tolist()
            right += scores.index(max(scores)) == label
        return right / (len(H) - n)

    task, control = accuracy(y), accuracy(control_y)
    return {"selectivity": task - control, "control": control, "task": task}


# -- direct_logit_attribution


@alternative("direct_logit_attribution", "each component as a (B, T, D) tensor through a frozen norm, without hooks")
def attribution_by_hand(model, ids, token):
    with torch.no_grad():
        x = model.tokens(ids) + model.positions.weight[: ids.shape[1]]
        parts = {"tokens": model.tokens(ids), "positions": model.positions.weight[: ids.shape[1]].expand_as(x)}
        for n, block in enumerate(model.blocks):
            caught = []
            handle = block.attn.heads.register_forward_hook(lambda m, i, o, caught=caught: caught.append(o))
            try:
                attended = block.attn(block.norm1(x))
            finally:
                handle.remove()
            z = caught[0]
            for h in range(z.shape[1]):
                alone = torch.zeros_like(z)
                alone[:, h] = z[:, h]
                parts[f"blocks.{n}.head.{h}"] = F.linear(alone.transpose(1, 2).flatten(2), block.attn.W_o.weight)
            parts[f"blocks.{n}.attn.bias"] = block.attn.W_o.bias.expand_as(x)
            x = x + attended
            if "mlp" in dict(block.named_children()):
                first, act, last = block.mlp
                written = F.linear(act(first(block.norm2(x))), last.weight)
                parts[f"blocks.{n}.mlp"], parts[f"blocks.{n}.mlp.bias"] = written, last.bias.expand_as(x)
                x = x + written + last.bias
        sigma = torch.sqrt(x.var(dim=-1, unbiased=False, keepdim=True) + model.norm.eps)
        out = {}
        for name, c in parts.items():
            normed = (c - c.mean(-1, keepdim=True)) / sigma * model.norm.weight
            out[name] = torch.einsum("btd,d->bt", normed, model.unembed.weight[token])
        constant = torch.dot(model.norm.bias, model.unembed.weight[token]) + model.unembed.bias[token]
        out["bias"] = torch.full(ids.shape, constant.item(), dtype=x.dtype)
        return out


@alternative("direct_logit_attribution", "by the derivative of a logit with a frozen scale, which is linear")
def attribution_by_gradient(model, ids, token):
    sites = [name for name, _ in model.named_modules() if name]
    seen = {}
    reference.run_with_hooks(model, ids, {site: lambda x, site=site: seen.update({site: x}) for site in sites})
    last = seen[layer_site(model, len(model.blocks))]
    probe = last.clone().requires_grad_()
    sigma = (last.var(-1, correction=0, keepdim=True) + model.norm.eps).sqrt()
    normed = (probe - probe.mean(-1, keepdim=True)) / sigma * model.norm.weight.detach() + model.norm.bias.detach()
    logit = normed @ model.unembed.weight.detach()[token] + model.unembed.bias.detach()[token]
    (slope,) = torch.autograd.grad(logit.sum(), probe)  # (B, T, D)
    out = {name: (slope * seen[name]).sum(-1) for name in ("tokens", "positions")}
    total = (slope * last).sum(-1)
    for n, block in enumerate(model.blocks):
        W_o, b_o = block.attn.W_o.weight.detach(), block.attn.W_o.bias.detach()
        for h, z in enumerate(seen[f"blocks.{n}.attn.heads"].unbind(1)):
            hd = z.shape[-1]
            out[f"blocks.{n}.head.{h}"] = (slope * (z @ W_o.T[h * hd : (h + 1) * hd])).sum(-1)
        out[f"blocks.{n}.attn.bias"] = slope @ b_o
        if hasattr(block, "mlp"):
            b = block.mlp[2].bias.detach()
            out[f"blocks.{n}.mlp"] = (slope * (seen[f"blocks.{n}.mlp"] - b)).sum(-1)
            out[f"blocks.{n}.mlp.bias"] = slope @ b
    return out | {"bias": logit.detach() - total}


# -- patch, patching_grid


@alternative("patch", "one hooked model, twice, with a mask and torch.where")
def patch_by_where(model, clean_ids, corrupt_ids, site, positions):
    names = [name for name, _ in model.named_modules()]
    if site not in names or clean_ids.shape != corrupt_ids.shape:
        raise ValueError("site or shapes")
    T = clean_ids.shape[1]
    chosen = torch.zeros(T, dtype=torch.bool)
    for t in positions:
        chosen[t] = True
    module, store = model.get_submodule(site), {}

    def hook(_, __, output):
        if "clean" not in store:
            store["clean"] = output
            return None
        return torch.where(chosen[:, None], store["clean"], output)

    handle = module.register_forward_hook(hook)
    try:
        with torch.no_grad():
            model(clean_ids)
            return model(corrupt_ids)
    finally:
        handle.remove()


@alternative("patch", "the output is changed in place")
def patch_in_place(model, clean_ids, corrupt_ids, site, positions):
    if tuple(clean_ids.shape) != tuple(corrupt_ids.shape):
        raise ValueError("shapes")
    kept = {}
    reference.run_with_hooks(model, clean_ids, {site: lambda x: kept.update(x=x.clone())})

    def overwrite(x):
        for t in positions:
            x.select(-2, t).copy_(kept["x"].select(-2, t))

    return reference.run_with_hooks(model, corrupt_ids, {site: overwrite})


@alternative("patch", "nested lists, the two plain runs by calling the model", replaces="patching_grid")
def grid_by_lists(model, clean_ids, corrupt_ids, sites, metric):
    with torch.no_grad():
        best, worst = metric(model(clean_ids)), metric(model(corrupt_ids))
    gap = best - worst
    if gap == 0:
        raise ValueError("no gap")
    T = clean_ids.size(1)
    share = lambda s, t: (metric(reference.patch(model, clean_ids, corrupt_ids, s, (t,))) - worst) / gap  # noqa: E731
    return torch.tensor([[share(s, t) for t in range(T)] for s in sites], dtype=torch.float64)


# -- induction_score, train_induction, ablate_head


@alternative("induction_score", "Python loops over sequences, queries and keys")
def score_by_loops(attn, period):
    B, H, T, _ = attn.shape
    periods = [int(period)] * B if isinstance(period, int) or period.ndim == 0 else period.tolist()
    total, queries = torch.zeros(H, dtype=torch.float64), 0
    for b, p in enumerate(periods):
        for i in range(p, T):
            queries += 1
            j = i + 1 - p
            while j >= 1:
                total += attn[b, :, i, j]
                j -= p
    if not queries:
        raise ValueError("nothing repeats")
    return (total / queries).to(attn.dtype)


@alternative("induction_score", "numpy and einsum over a table for each sequence")
def score_by_einsum(attn, period):
    A = attn.double().numpy()
    B, H, T, _ = A.shape
    p = np.broadcast_to(np.asarray(period), (B,))[:, None, None]
    i, j = np.ogrid[:T, :T]
    table = ((i - j + 1) % p == 0) & (i - j + 1 > 0) & (j > 0) & (i >= p)
    n = np.maximum(T - p, 0).sum()
    if n == 0:
        raise ValueError("nothing repeats")
    return torch.from_numpy(np.einsum("bhij,bij->h", A, table) / n).to(attn.dtype)


@alternative("induction_score", "other places count a little, AdamW, a falling rate", replaces="train_induction")
def train_with_small_weights(layers, steps, seed):
    rng = torch.Generator()
    rng.manual_seed(seed + 1000)
    model = reference.TinyGPT(V=20, D=32, H=2, L=layers, d_mlp=0, T_max=30, seed=seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.012, betas=(0.9, 0.98), weight_decay=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.012 * min(1.0, 2.5 * (1 - step / steps))
        ids, period = reference.repeats(40, rng)
        known = F.pad(reference.predictable(ids, period), (0, 1))[:, :-1]
        losses = F.cross_entropy(model(ids)[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        loss = (losses * torch.where(known, 1.0, 0.1)).sum() / known.sum()
        model.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@alternative("induction_score", "Adam written out", replaces="train_induction")
def train_by_own_adam(layers, steps, seed):
    model = reference.TinyGPT(20, 32, 2, layers, 0, 30, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    params = list(model.parameters())
    m, v = ([torch.zeros_like(p) for p in params] for _ in range(2))
    for step in range(1, steps + 1):
        ids, period = reference.repeats(32, rng)
        t = torch.nonzero(reference.predictable(ids, period), as_tuple=True)
        log_p = model(ids).log_softmax(-1)[t]
        grads = torch.autograd.grad(-log_p.gather(1, ids[:, 1:][t][:, None]).mean(), params)
        with torch.no_grad():
            for p, g, a, b in zip(params, grads, m, v, strict=True):
                a.lerp_(g, 0.1)
                b.lerp_(g * g, 0.02)
                p -= 0.01 * (a / (1 - 0.9**step)) / ((b / (1 - 0.98**step)).sqrt() + 1e-8)
    return model


@alternative("induction_score", "what W_o reads is changed before it is read", replaces="ablate_head")
def ablate_by_pre_hook(model, ids, layer, head):
    if layer not in range(len(model.blocks)) or head not in range(model.blocks[layer].attn.H):
        raise ValueError("head")
    attn = model.blocks[layer].attn
    keep = (torch.arange(attn.W_o.in_features) // (attn.W_o.in_features // attn.H)) != head
    handle = attn.W_o.register_forward_pre_hook(lambda module, inputs: (inputs[0] * keep,))
    try:
        return model(ids).detach()
    finally:
        handle.remove()


@alternative("induction_score", "a copy of the model whose weights of that head are zero", replaces="ablate_head")
def ablate_a_copy(model, ids, layer, head):
    if not (0 <= layer < len(model.blocks) and 0 <= head < model.blocks[layer].attn.H):
        raise ValueError("head")
    other = copy.deepcopy(model)
    W = other.blocks[layer].attn.W_o.weight
    hd = W.shape[1] // other.blocks[layer].attn.H
    with torch.no_grad():
        W[:, head * hd : (head + 1) * hd] = 0
        return other(ids)


# -- toy_superposition, feature_dimensionality


@alternative("toy_superposition", "gradients by hand, momentum written out, absent features as a product")
def toy_by_hand(n_features, m, sparsity, steps, seed=0):
    rng = torch.Generator().manual_seed(seed)
    W, b = 0.2 * torch.randn(m, n_features, generator=rng), torch.zeros(n_features)
    weight = torch.tensor([0.7**i for i in range(n_features)])
    moments = [[torch.zeros_like(W), torch.zeros_like(W)], [torch.zeros_like(b), torch.zeros_like(b)]]
    for step in range(1, steps + 1):
        x = torch.rand(300, n_features, generator=rng)
        x[torch.rand(300, n_features, generator=rng) < sparsity] = 0
        h = x @ W.T
        z = h @ W + b
        dz = 2 * weight * (z.clamp(min=0) - x) * (z > 0) / 300
        grads = (h.T @ dz + (W @ dz.T) @ x, dz.sum(0))
        for p, g, (first, second) in zip((W, b), grads, moments, strict=True):
            first.lerp_(g, 0.1)
            second.lerp_(g * g, 0.001)
            rate = 0.02 * min(1.0, 2 - 2 * step / steps)
            p -= rate * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
    return W


@alternative("toy_superposition", "a module, einsum, AdamW")
def toy_by_module(n_features, m, sparsity, steps, seed=0):
    rng = torch.Generator().manual_seed(seed)
    W = nn.Parameter(torch.randn(m, n_features, generator=rng) / m)
    b = nn.Parameter(torch.zeros(n_features))
    importance = torch.pow(torch.tensor(0.7), torch.arange(n_features))
    optimizer = torch.optim.AdamW([W, b], lr=0.02, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1.0, 2 - 2 * s / max(1, steps)))
    for _ in range(steps):
        mask = torch.bernoulli(torch.full((256, n_features), 1 - sparsity), generator=rng)
        x = mask * torch.rand(256, n_features, generator=rng)
        h = torch.einsum("mn,bn->bm", W, x)
        out = torch.einsum("mn,bm->bn", W, h).add(b).relu()
        loss = torch.mean(torch.sum(importance * (out - x).square(), dim=-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return W.detach().clone()


@alternative("toy_superposition", "one feature after another", replaces="feature_dimensionality")
def dimensionality_by_loops(W):
    out = []
    for i in range(W.shape[1]):
        norm = W[:, i].norm()
        out.append(0.0 if norm == 0 else (norm**2 / ((W[:, i] / norm) @ W).square().sum()).item())
    return torch.tensor(out, dtype=W.dtype)


@alternative("toy_superposition", "numpy, unit vectors, NaN to zero", replaces="feature_dimensionality")
def dimensionality_by_numpy(W):
    A = W.double().numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        norm = np.linalg.norm(A, axis=0)
        share = norm**2 / np.square((A / norm).T @ A).sum(axis=1)
    return torch.from_numpy(np.nan_to_num(share)).to(W.dtype)


# -- SparseAutoencoder


@alternative("SparseAutoencoder", "linear maps from nn.functional, clamp, and F.normalize into .data")
class ByFunctional(reference.SparseAutoencoder):
    def encode(self, x):
        return F.linear(x - self.b_dec, self.W_enc.T, self.b_enc).clamp(min=0)

    def decode(self, f):
        return F.linear(f, self.W_dec.T, self.b_dec)

    def loss(self, x, l1):
        codes = self.encode(x)
        error = F.mse_loss(self.decode(codes), x, reduction="sum") / len(x)
        return error + l1 * codes.abs().sum() / len(x)

    def renorm_decoder(self):
        self.W_dec.data = F.normalize(self.W_dec.data, dim=1)

    def dead_features(self, x):
        return int((self.encode(x).detach().amax(0) <= 0).sum())


@alternative("SparseAutoencoder", "einsum, the bias folded in, rows one by one")
class ByEinsum(reference.SparseAutoencoder):
    def encode(self, x):
        z = torch.einsum("...d,dk->...k", x, self.W_enc) + (self.b_enc - self.b_dec @ self.W_enc)
        return torch.where(z > 0, z, 0.0)

    def decode(self, f):
        return self.b_dec + torch.einsum("...k,kd->...d", f, self.W_dec)

    def loss(self, x, l1):
        codes = self.encode(x)
        rest = x - self.decode(codes)
        return torch.einsum("nd,nd->n", rest, rest).mean() + torch.norm(codes, p=1, dim=1).mean() * l1

    @torch.no_grad()
    def renorm_decoder(self):
        for row in self.W_dec:
            length = row.square().sum().sqrt()
            if length > 0:
                row.div_(length)

    @torch.no_grad()
    def dead_features(self, x):
        alive = set()
        for row in self.encode(x):
            alive |= set(row.nonzero().flatten().tolist())
        return self.W_enc.shape[1] - len(alive)


# -- steering_vector, generate_steered, topk_activation


@alternative("steering_vector", "a mask of numbers, a sum and a count, from the blocks walked by hand")
def vector_by_sums(model, pos_ids, neg_ids, layer, pad=None):
    layer_site(model, layer)

    @torch.no_grad()
    def mean(ids):
        x = model.tokens(ids) + model.positions.weight[: ids.shape[1]]
        for block in model.blocks[:layer]:
            x = block(x)
        mask = torch.ones(ids.shape) if pad is None else (ids != pad).float()
        mask = mask.to(x.dtype).unsqueeze(-1)
        return (x * mask).sum((0, 1)) / mask.sum()

    return mean(pos_ids) - mean(neg_ids)


@alternative("steering_vector", "sequence by sequence, without its padding")
def vector_row_by_row(model, pos_ids, neg_ids, layer, pad=None):
    site, means = layer_site(model, layer), []
    for ids in (pos_ids, neg_ids):
        rows = []
        for row in ids:
            real = row if pad is None else row[row != pad]
            if len(real):
                reference.run_with_hooks(model, real[None], {site: rows.append})
        means.append(torch.cat([x[0] for x in rows]).mean(dim=0))
    return means[0] - means[1]


@alternative("steering_vector", "the hook stays for all runs and is removed at the end", replaces="generate_steered")
def generate_under_one_hook(model, ids, vector, layer, scale, n):
    module = model.get_submodule(layer_site(model, layer))
    handle = module.register_forward_hook(lambda m, i, o: o + scale * vector)
    try:
        out = ids.clone()
        for _ in range(n):
            with torch.no_grad():
                last = model(out)[:, -1, :]
            out = torch.cat((out, last.max(dim=-1).indices[:, None]), dim=1)
        return out
    finally:
        handle.remove()


@alternative("steering_vector", "by hand, one prompt at a time", replaces="generate_steered")
def generate_one_by_one(model, ids, vector, layer, scale, n):
    layer_site(model, layer)
    finished = []
    with torch.no_grad():
        for prompt in ids.tolist():
            for _ in range(n):
                x = model.tokens(torch.tensor([prompt])) + model.positions.weight[: len(prompt)]
                for number, block in enumerate(model.blocks):
                    x = block(x + scale * vector if number == layer else x)
                if layer == len(model.blocks):
                    x = x + scale * vector
                logits = model.unembed(model.norm(x))[0, -1].tolist()
                prompt = [*prompt, logits.index(max(logits))]
            finished.append(prompt)
    return torch.tensor(finished)


@alternative("steering_vector", "ranks from two sorts", replaces="topk_activation")
def topk_by_ranks(x, k):
    if k < 0:
        raise ValueError("k")
    rank = (-x).argsort(dim=-1, stable=True).argsort(dim=-1)
    return x * (rank < k)


@alternative("steering_vector", "Python's sort, row by row", replaces="topk_activation")
def topk_by_lists(x, k):
    if not k >= 0:
        raise ValueError("k")
    rows = x.reshape(-1, x.shape[-1])
    keep = torch.zeros(rows.shape, dtype=torch.bool)
    for mask, row in zip(keep, rows.tolist(), strict=True):
        for i in sorted(range(len(row)), key=lambda i, row=row: (-row[i], i))[:k]:
            mask[i] = True
    return x.masked_fill(~keep.reshape(x.shape), 0)
