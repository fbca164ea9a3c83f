"""Wrong answers of chapter 23 that people really give, each with the sentence that sets them right."""

import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def state(model, ids, site):
    """What comes out at a site."""
    seen = []
    reference.run_with_hooks(model, ids, {site: seen.append})
    return seen[0]


def sites_of(model):
    """The sites of the residual stream."""
    return ["embed", *(f"blocks.{layer}" for layer in range(len(model.blocks)))]


def states(model, ids):
    """The residual stream behind the embedding and behind each block, (L + 1, B, T, D)."""
    return torch.stack([state(model, ids, site) for site in sites_of(model)])


# -- run_with_hooks, logit_lens


@misconception(
    "logit_lens", "Your hooks stay on the model and fire in every later run; remove each one.", "run_with_hooks"
)
def leaves_hooks(model, ids, hooks):
    modules = dict(model.named_modules())
    if hooks.keys() - modules.keys():
        raise ValueError("site")
    for site, function in hooks.items():
        modules[site].register_forward_hook(lambda module, inputs, output, f=function: f(output))
    with torch.no_grad():
        return model(ids)


@misconception(
    "logit_lens", "If the run raises, your hooks are never removed; do it in a finally.", replaces="run_with_hooks"
)
def leaves_hooks_after_an_error(model, ids, hooks):
    modules = dict(model.named_modules())
    if hooks.keys() - modules.keys():
        raise ValueError("site")
    handles = [
        modules[site].register_forward_hook(lambda module, inputs, output, f=function: f(output))
        for site, function in hooks.items()
    ]
    with torch.no_grad():
        logits = model(ids)
    for handle in handles:
        handle.remove()
    return logits


@misconception(
    "logit_lens",
    "Every site calls the function of the last one: bind it when the hook is made, not when it runs.",
    replaces="run_with_hooks",
)
def binds_late(model, ids, hooks):
    modules = dict(model.named_modules())
    if hooks.keys() - modules.keys():
        raise ValueError("site")
    handles = []
    try:
        for site, function in hooks.items():
            handles.append(modules[site].register_forward_hook(lambda *a: function(a[2])))  # noqa: B023
        with torch.no_grad():
            return model(ids)
    finally:
        for handle in handles:
            handle.remove()


@misconception(
    "logit_lens", "What a function returns is thrown away; the hook has to return it.", replaces="run_with_hooks"
)
def only_listens(model, ids, hooks):
    def deaf(function):
        def hook(x):
            function(x)

        return hook

    return reference.run_with_hooks(model, ids, {site: deaf(function) for site, function in hooks.items()})


@misconception(
    "logit_lens", "You hand the function what goes into the module; it must see what comes out.", "run_with_hooks"
)
def shows_the_input(model, ids, hooks):
    modules = dict(model.named_modules())
    if hooks.keys() - modules.keys():
        raise ValueError("site")
    handles = []
    try:
        for site, function in hooks.items():
            handles.append(modules[site].register_forward_hook(lambda m, i, o, f=function: f(i[0])))
        with torch.no_grad():
            return model(ids)
    finally:
        for handle in handles:
            handle.remove()


@misconception(
    "logit_lens",
    "The run records a graph that nobody needs and that keeps every activation: no_grad.",
    "run_with_hooks",
)
def keeps_the_graph(model, ids, hooks):
    modules = dict(model.named_modules())
    if hooks.keys() - modules.keys():
        raise ValueError("site")
    handles = []
    try:
        for site, function in hooks.items():
            handles.append(modules[site].register_forward_hook(lambda m, i, o, f=function: f(o)))
        return model(ids)
    finally:
        for handle in handles:
            handle.remove()


@misconception("logit_lens", "The states go to unembed without the final norm; the model normalises them first.")
def lens_without_norm(model, ids):
    with torch.no_grad():
        return model.unembed(states(model, ids))


@misconception("logit_lens", "You are off by one block: index 0 is the embedding itself, before any block.")
def lens_off_by_one(model, ids):
    with torch.no_grad():
        every = states(model, ids)
        return model.unembed(model.norm(torch.cat([every[1:], every[-1:]])))


@misconception("logit_lens", "All states share the scale of the last one; each goes through the norm with its own.")
def lens_with_a_frozen_scale(model, ids):
    with torch.no_grad():
        every = states(model, ids)
        last = every[-1]
        scale = (last.var(-1, correction=0, keepdim=True) + model.norm.eps).sqrt()
        centred = every - every.mean(-1, keepdim=True)
        return model.unembed(centred / scale * model.norm.weight + model.norm.bias)


@misconception("logit_lens", "You read what each block adds; the lens reads the stream, the sum of all so far.")
def lens_of_the_additions(model, ids):
    with torch.no_grad():
        every = states(model, ids)
        every = torch.cat([every[:1], every[1:] - every[:-1]])
        return model.unembed(model.norm(every))


# -- train_probe, probe_selectivity


def fit(X, Y, l2):
    """Ridge without a bias."""
    return torch.linalg.solve(X.T @ X + l2 * torch.eye(X.shape[1], dtype=X.dtype), X.T @ Y)


@misconception("train_probe", "The bias is penalised like a weight; centre H and the labels, so that it is free.")
def penalises_the_bias(H, y, l2):
    W = fit(torch.cat([H, torch.ones(len(H), 1, dtype=H.dtype)], 1), F.one_hot(y).to(H.dtype), l2)
    return W[:-1], W[-1]


@misconception(
    "train_probe", "You fit W on data that is not centred, and the bias afterwards; both are fitted together."
)
def bias_afterwards(H, y, l2):
    Y = F.one_hot(y).to(H.dtype)
    W = fit(H, Y, l2)
    return W, (Y - H @ W).mean(0)


@misconception("train_probe", "There is no bias at all; it is the mean of the labels less that of H, times W.")
def no_bias(H, y, l2):
    Y = F.one_hot(y).to(H.dtype)
    return fit(H - H.mean(0), Y - Y.mean(0), l2), Y.mean(0)


@misconception("train_probe", "The penalty is multiplied by the number of rows; the sum of errors is not a mean.")
def penalty_times_n(H, y, l2):
    return reference.train_probe(H, y, l2 * len(H))


@misconception("train_probe", "You divide by the standard deviation of each column, which changes what is penalised.")
def standardises(H, y, l2):
    s = H.std(0, correction=0)
    W, b = reference.train_probe(H / s, y, l2)
    return W / s[:, None], b


@misconception("train_probe", "Classes are numbered by those that occur; an empty class keeps its column.")
def drops_empty_classes(H, y, l2):
    return reference.train_probe(H, torch.unique(y, return_inverse=True)[1], l2)


def judged(H, labels, l2, fitted, asked):
    """The accuracy on some rows of a probe that was fitted to some rows."""
    W, b = reference.train_probe(H[fitted], labels[fitted], l2)
    return ((H[asked] @ W + b).argmax(-1) == labels[asked]).double().mean().item()


def selectivity(task, control):
    """The three numbers."""
    return {"task": task, "control": control, "selectivity": task - control}


@misconception("train_probe", "The probes are judged on the rows they were fitted to.", replaces="probe_selectivity")
def judges_on_train(H, y, control_y, l2=1.0):
    first = slice(None, len(H) // 2)
    return selectivity(*(judged(H, labels, l2, first, first) for labels in (y, control_y)))


@misconception(
    "train_probe", "The probes are fitted to all rows, also those on which they are judged.", "probe_selectivity"
)
def fits_everything(H, y, control_y, l2=1.0):
    rest = slice(len(H) // 2, None)
    return selectivity(*(judged(H, labels, l2, slice(None), rest) for labels in (y, control_y)))


@misconception(
    "train_probe",
    "The control is the share of the most frequent class; it must be a probe for the control labels.",
    replaces="probe_selectivity",
)
def majority_as_control(H, y, control_y, l2=1.0):
    half = len(H) // 2
    most = (y[half:] == y[:half].mode().values).double().mean().item()
    return selectivity(judged(H, y, l2, slice(None, half), slice(half, None)), most)


@misconception(
    "train_probe",
    "The control judges the probe of the task by control labels; the control labels need a probe of their own.",
    replaces="probe_selectivity",
)
def one_probe_for_both(H, y, control_y, l2=1.0):
    half = len(H) // 2
    W, b = reference.train_probe(H[:half], y[:half], l2)
    guess = (H[half:] @ W + b).argmax(-1)
    return selectivity(*((guess == labels[half:]).double().mean().item() for labels in (y, control_y)))


# -- direct_logit_attribution


def attribute(model, ids, token, columns="own", centre=True, gamma=True, scales="last"):
    """The reference's way, with choices for what goes wrong."""
    with torch.no_grad():
        sites = [name for name, _ in model.named_modules() if name]
        seen = {}
        reference.run_with_hooks(model, ids, {site: lambda x, site=site: seen.update({site: x}) for site in sites})
        last = seen[sites_of(model)[-1]]

        def scale_of(x):
            return (x.var(-1, correction=0) + model.norm.eps).sqrt()

        u = model.unembed.weight[token]
        towards = model.norm.weight * u if gamma else u
        towards = towards - towards.mean() if centre else towards
        parts = {"tokens": seen["tokens"], "positions": seen["positions"].expand_as(last)}
        for at, block in ((f"blocks.{n}", block) for n, block in enumerate(model.blocks)):
            H, W = block.attn.H, block.attn.W_o.weight
            for h in range(H):
                own = slice(h * (W.shape[0] // H), (h + 1) * (W.shape[0] // H))
                used = {"own": W[:, own].T, "rows": W[own, :], "strided": W[:, h::H].T}[columns]
                parts[f"{at}.head.{h}"] = seen[f"{at}.attn.heads"][:, h] @ used
            parts[f"{at}.attn.bias"] = block.attn.W_o.bias.expand_as(last)
            if hasattr(block, "mlp"):
                parts[f"{at}.mlp"] = seen[f"{at}.mlp"] - block.mlp[-1].bias
                parts[f"{at}.mlp.bias"] = block.mlp[-1].bias.expand_as(last)
        found = {
            k: part @ towards / (scale_of(part) if scales == "own" else scale_of(last)) for k, part in parts.items()
        }
        return found | {"bias": (model.norm.bias @ u + model.unembed.bias[token]).expand_as(last[..., 0])}


@misconception(
    "direct_logit_attribution", "The entry 'bias' lacks the bias of the final norm, read by the token's row of unembed."
)
def forgets_the_norms_bias(model, ids, token):
    found = attribute(model, ids, token)
    return found | {"bias": model.unembed.bias.detach()[token].expand_as(found["tokens"])}


@misconception("direct_logit_attribution", "The bias of unembed is missing; it is part of every logit.")
def forgets_the_unembed_bias(model, ids, token):
    found = attribute(model, ids, token)
    return found | {"bias": found["bias"] - model.unembed.bias.detach()[token]}


@misconception(
    "direct_logit_attribution",
    "A head is multiplied by rows of W_o; it owns hd columns of the stored weight, which is (outputs, inputs).",
)
def splits_rows(model, ids, token):
    return attribute(model, ids, token, columns="rows")


@misconception(
    "direct_logit_attribution", "Each head takes every H-th column of W_o; its hd columns stand side by side."
)
def strided_columns(model, ids, token):
    return attribute(model, ids, token, columns="strided")


@misconception("direct_logit_attribution", "The weights of the final norm are missing from every component.")
def forgets_gamma(model, ids, token):
    return attribute(model, ids, token, gamma=False)


@misconception(
    "direct_logit_attribution", "The mean is not taken off; the final norm centres, and so must each component be."
)
def forgets_the_mean(model, ids, token):
    return attribute(model, ids, token, centre=False)


@misconception(
    "direct_logit_attribution",
    "Each component is normalised by its own variance; the scale is that of the whole state, for all.",
)
def own_scales(model, ids, token):
    return attribute(model, ids, token, scales="own")


@misconception("direct_logit_attribution", "The bias of W_o is shared out among the heads; it has an entry of its own.")
def shares_the_bias(model, ids, token):
    found = attribute(model, ids, token)
    for n, block in enumerate(model.blocks):
        for h in range(block.attn.H):
            key = f"blocks.{n}.head.{h}"
            found[key] = found[key] + found[f"blocks.{n}.attn.bias"] / block.attn.H
        found[f"blocks.{n}.attn.bias"] = torch.zeros_like(found["tokens"])
    return found


@misconception("direct_logit_attribution", "The MLP's entry holds its last bias too; split it off into 'mlp.bias'.")
def mlp_with_bias(model, ids, token):
    found = attribute(model, ids, token)
    for n, block in enumerate(model.blocks):
        if hasattr(block, "mlp"):
            key = f"blocks.{n}.mlp"
            found[key] = found[key] + found[f"{key}.bias"]
            found[f"{key}.bias"] = torch.zeros_like(found["tokens"])
    return found


# -- patch, patching_grid


@misconception("patch", "Clean and corrupt are exchanged: run on corrupt_ids, and put in what the clean run has.")
def exchanged(model, clean_ids, corrupt_ids, site, positions):
    return reference.patch(model, corrupt_ids, clean_ids, site, positions)


@misconception("patch", "You patch every position; only those of the list come from the clean run.")
def patches_all(model, clean_ids, corrupt_ids, site, positions):
    reference.patch(model, clean_ids, corrupt_ids, site, positions)
    return reference.patch(model, clean_ids, corrupt_ids, site, range(clean_ids.shape[1]))


@misconception("patch", "You patch all positions but those of the list; it names the ones to replace.")
def patches_the_others(model, clean_ids, corrupt_ids, site, positions):
    T = clean_ids.shape[1]
    reference.patch(model, clean_ids, corrupt_ids, site, positions)
    chosen = {t % T for t in positions}
    return reference.patch(model, clean_ids, corrupt_ids, site, [t for t in range(T) if t not in chosen])


@misconception("patch", "Positions index axis 1, which is the heads at some sites; they are on the last axis but one.")
def indexes_axis_one(model, clean_ids, corrupt_ids, site, positions):
    if clean_ids.shape != corrupt_ids.shape:
        raise ValueError("shapes")
    clean, where = state(model, clean_ids, site), list(positions)

    def mix(x):
        x = x.clone()
        x[:, where] = clean[:, where]
        return x

    return reference.run_with_hooks(model, corrupt_ids, {site: mix})


@misconception("patch", "The first row of the clean run is put into every row; row b belongs to row b.")
def one_row_for_all(model, clean_ids, corrupt_ids, site, positions):
    if clean_ids.shape != corrupt_ids.shape:
        raise ValueError("shapes")
    return reference.patch(model, clean_ids[:1].expand_as(clean_ids), corrupt_ids, site, positions)


@misconception("patch", "Instead of exchanging the activation, you exchange the ids at these positions.")
def patches_ids(model, clean_ids, corrupt_ids, site, positions):
    reference.patch(model, clean_ids, corrupt_ids, site, positions)
    ids = corrupt_ids.clone()
    ids[:, list(positions)] = clean_ids[:, list(positions)]
    return reference.run_with_hooks(model, ids, {})


@misconception("patch", "The difference of the two runs is added on top; put the clean value in its place.")
def adds_instead(model, clean_ids, corrupt_ids, site, positions):
    reference.patch(model, clean_ids, corrupt_ids, site, positions)
    clean, where = state(model, clean_ids, site), list(positions)

    def mix(x):
        x = x.clone()
        x[..., where, :] += clean[..., where, :]
        return x

    return reference.run_with_hooks(model, corrupt_ids, {site: mix})


@misconception("patch", "Your hooks stay on the model when a position is out of range; remove them in a finally.")
def patch_leaves_hooks(model, clean_ids, corrupt_ids, site, positions):
    if clean_ids.shape != corrupt_ids.shape or site not in dict(model.named_modules()):
        raise ValueError("shapes or site")
    clean, where = state(model, clean_ids, site), list(positions)

    def mix(module, inputs, x):
        x = x.clone()
        x[..., where, :] = clean[..., where, :]
        return x

    handle = model.get_submodule(site).register_forward_hook(mix)
    with torch.no_grad():
        logits = model(corrupt_ids)
    handle.remove()
    return logits


@misconception("patch", "The patched run records a graph; run it under no_grad.")
def patch_with_graph(model, clean_ids, corrupt_ids, site, positions):
    reference.patch(model, clean_ids, corrupt_ids, site, positions)
    clean, where = state(model, clean_ids, site), list(positions)

    def mix(module, inputs, x):
        x = x.clone()
        x[..., where, :] = clean[..., where, :]
        return x

    handle = model.get_submodule(site).register_forward_hook(mix)
    try:
        return model(corrupt_ids)
    finally:
        handle.remove()


def raw_metrics(model, clean_ids, corrupt_ids, sites, metric):
    """The metric of the clean run, of the corrupt run, and of each patched run."""
    clean, corrupt = (float(metric(reference.run_with_hooks(model, ids, {}))) for ids in (clean_ids, corrupt_ids))
    if clean == corrupt:
        raise ValueError("nothing to recover")
    places = range(clean_ids.shape[1])
    rows = [[float(metric(reference.patch(model, clean_ids, corrupt_ids, s, [t]))) for t in places] for s in sites]
    return clean, corrupt, torch.tensor(rows, dtype=torch.float64)


@misconception(
    "patch", "The grid holds the metric itself; divide its gain by the gap between the runs.", "patching_grid"
)
def not_normalised(model, clean_ids, corrupt_ids, sites, metric):
    return raw_metrics(model, clean_ids, corrupt_ids, sites, metric)[2]


@misconception(
    "patch", "The grid's scale is upside down: 0 is the corrupt run's number and 1 the clean one's.", "patching_grid"
)
def upside_down(model, clean_ids, corrupt_ids, sites, metric):
    clean, corrupt, m = raw_metrics(model, clean_ids, corrupt_ids, sites, metric)
    return (m - clean) / (corrupt - clean)


@misconception(
    "patch", "Only the gain over the corrupt run is given; it still has to be divided by the gap.", "patching_grid"
)
def gain_only(model, clean_ids, corrupt_ids, sites, metric):
    _, corrupt, m = raw_metrics(model, clean_ids, corrupt_ids, sites, metric)
    return m - corrupt


@misconception(
    "patch", "Column t patches all positions up to t; each column is one position alone.", replaces="patching_grid"
)
def cumulative(model, clean_ids, corrupt_ids, sites, metric):
    clean, corrupt, m = raw_metrics(model, clean_ids, corrupt_ids, sites, metric)
    for s, site in enumerate(sites):
        for t in range(clean_ids.shape[1]):
            m[s, t] = float(metric(reference.patch(model, clean_ids, corrupt_ids, site, range(t + 1))))
    return (m - corrupt) / (clean - corrupt)


@misconception(
    "patch", "The shares are forced into [0, 1]; a patch can overshoot or hurt, and that is news.", "patching_grid"
)
def clamped(model, clean_ids, corrupt_ids, sites, metric):
    clean, corrupt, m = raw_metrics(model, clean_ids, corrupt_ids, sites, metric)
    return ((m - corrupt) / (clean - corrupt)).clamp(0, 1)


# -- induction_score, train_induction, ablate_head


def scored(attn, period, keys):
    """Average over queries and sequences the weights on the keys that keys(i, p) names."""
    B, H, T, _ = attn.shape
    periods = torch.as_tensor(period).expand(B).tolist()
    if min(periods) >= T:
        raise ValueError("no repeat")
    rows = [attn[b, :, i, keys(i, periods[b])].sum(-1) for b in range(B) for i in range(periods[b], T)]
    return torch.stack(rows).mean(0)


@misconception("induction_score", "You look at the earlier copies themselves; look one key behind them.")
def looks_at_the_copy(attn, period):
    return scored(attn, period, lambda i, p: list(range(i - p, -1, -p)))


@misconception("induction_score", "You look at one key before the copies; what followed stands one behind them.")
def looks_before_the_copy(attn, period):
    return scored(attn, period, lambda i, p: list(range(i - 1 - p, -1, -p)))


@misconception("induction_score", "Queries and keys are exchanged: the row is the query, the column the key.")
def transposed(attn, period):
    return reference.induction_score(attn.transpose(-2, -1), period)


@misconception("induction_score", "Only the most recent copy counts; weights behind all earlier ones are added up.")
def only_the_last_copy(attn, period):
    return scored(attn, period, lambda i, p: [i + 1 - p])


@misconception("induction_score", "The first queries count too, though nothing has repeated for them yet.")
def counts_all_queries(attn, period):
    B, _, T, _ = attn.shape
    periods = torch.as_tensor(period).expand(B)
    share = (T - periods).clamp(min=0).sum() / (B * T)
    return reference.induction_score(attn, period) * share.to(attn.dtype)


@misconception(
    "induction_score", "Each sequence has the same weight; a longer one has more queries, and each counts the same."
)
def averages_averages(attn, period):
    B, _, T, _ = attn.shape
    periods = torch.as_tensor(period).expand(B)
    reference.induction_score(attn, period)
    each = [reference.induction_score(attn[b : b + 1], periods[b]) for b in range(B) if periods[b] < T]
    return torch.stack(each).mean(0)


@misconception("induction_score", "All heads are averaged into one number; each head has its own score.")
def averages_heads(attn, period):
    score = reference.induction_score(attn, period)
    return score.mean().expand_as(score).clone()


def train(layers, steps, seed, draw=reference.repeats, target=lambda ids: ids[:, 1:], fresh_seed=None):
    """The reference's training with other data or targets."""
    model = reference.TinyGPT(20, 32, 2, layers, 0, 30, seed=seed)
    rng = torch.Generator().manual_seed(seed) if fresh_seed is None else fresh_seed()
    optimizer = torch.optim.Adam(model.parameters(), lr=reference.RATE, betas=reference.BETAS)
    for _ in range(steps):
        ids, period = draw(reference.BATCH, rng)
        again = reference.predictable(ids, period)
        loss = F.cross_entropy(model(ids)[:, :-1][again], target(ids)[again])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def fixed_period(n, rng):
    """Sequences that all repeat after ten ids."""
    first = torch.rand(n, 20, generator=rng).argsort(1)
    return first.gather(1, (torch.arange(30) % 10).expand(n, 30)), torch.full((n,), 10)


@misconception(
    "induction_score",
    "All sequences have one period, which positions alone can solve; let it vary within the batch.",
    replaces="train_induction",
)
def trains_with_a_fixed_period(layers, steps, seed):
    return train(layers, steps, seed, draw=fixed_period)


@misconception(
    "induction_score", "The targets are the ids themselves; the logits at t predict the id at t + 1.", "train_induction"
)
def predicts_itself(layers, steps, seed):
    return train(layers, steps, seed, target=lambda ids: ids[:, :-1])


@misconception(
    "induction_score", "The sequences come from the global generator; make one from the seed.", "train_induction"
)
def global_generator(layers, steps, seed):
    return train(layers, steps, seed, fresh_seed=lambda: torch.default_generator)


@misconception(
    "induction_score", "The gradients of all earlier steps are added up; set them to zero in each.", "train_induction"
)
def never_zeroes_gradients(layers, steps, seed):
    model = reference.TinyGPT(20, 32, 2, layers, 0, 30, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=reference.RATE, betas=reference.BETAS)
    for _ in range(steps):
        ids, period = reference.repeats(reference.BATCH, rng)
        again = reference.predictable(ids, period)
        F.cross_entropy(model(ids)[:, :-1][again], ids[:, 1:][again]).backward()
        optimizer.step()
    return model


def checked(model, layer, head):
    """Refuse a head that is not there."""
    if not 0 <= layer < len(model.blocks) or not 0 <= head < model.blocks[layer].attn.H:
        raise ValueError("no such head")


@misconception("induction_score", "You silence all of the attention in that block, not one head.", "ablate_head")
def silences_the_block(model, ids, layer, head):
    checked(model, layer, head)
    return reference.run_with_hooks(model, ids, {f"blocks.{layer}.attn.heads": torch.zeros_like})


@misconception(
    "induction_score", "The head's weights in the model are set to zero and stay so; use a hook.", "ablate_head"
)
def damages_the_model(model, ids, layer, head):
    checked(model, layer, head)
    W = model.blocks[layer].attn.W_o.weight
    hd = W.shape[0] // model.blocks[layer].attn.H
    with torch.no_grad():
        W[:, head * hd : (head + 1) * hd] = 0
        return model(ids)


@misconception(
    "induction_score", "The head's pattern is made uniform; silencing sets what it mixes to zero.", "ablate_head"
)
def blurs_the_head(model, ids, layer, head):
    checked(model, layer, head)

    def blur(P):
        P = P.clone()
        P[:, head] = torch.ones_like(P[:, head]).tril()
        P[:, head] /= P[:, head].sum(-1, keepdim=True)
        return P

    return reference.run_with_hooks(model, ids, {f"blocks.{layer}.attn.pattern": blur})


@misconception(
    "induction_score", "You silence features of W_o's output; heads are separate only before W_o.", "ablate_head"
)
def silences_after_mixing(model, ids, layer, head):
    checked(model, layer, head)
    H = model.blocks[layer].attn.H

    def silence(x):
        x = x.clone()
        x[..., head * x.shape[-1] // H : (head + 1) * x.shape[-1] // H] = 0
        return x

    return reference.run_with_hooks(model, ids, {f"blocks.{layer}.attn": silence})


# -- toy_superposition, feature_dimensionality


def toy(n, m, sparsity, steps, seed, relu=True, decay=reference.IMPORTANCE, mask=None, rng=None):
    """The reference's training with choices for what goes wrong."""
    rng = torch.Generator().manual_seed(seed) if rng is None else rng
    W = (0.3 * torch.randn(m, n, generator=rng)).requires_grad_()
    b = torch.zeros(n, requires_grad=True)
    importance = decay ** torch.arange(n)
    optimizer = torch.optim.Adam([W, b], lr=reference.TOY_RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = reference.TOY_RATE * min(1.0, 2 - 2 * step / steps)
        u = torch.rand(reference.TOY_BATCH, n, generator=rng)
        present = mask(u) if mask else u >= sparsity
        x = torch.rand(reference.TOY_BATCH, n, generator=rng) * present
        back = x @ W.T @ W + b
        loss = (importance * ((torch.relu(back) if relu else back) - x) ** 2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach()


@misconception("toy_superposition", "There is no ReLU, so the model is linear and can do no better than PCA.")
def no_relu(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed, relu=False)


@misconception("toy_superposition", "Sparsity is taken for the probability of being present; it is that of being 0.")
def sparsity_is_density(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed, mask=lambda u: u < sparsity)


@misconception("toy_superposition", "All features weigh the same; feature i has the weight IMPORTANCE to the power i.")
def no_importance(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed, decay=1.0)


@misconception("toy_superposition", "Importance grows with the index; feature 0 is the most important one.")
def importance_reversed(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed).flip(1)


@misconception("toy_superposition", "A whole example is present or absent at once; each feature decides for itself.")
def all_or_nothing(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed, mask=lambda u: u[:, :1] >= sparsity)


@misconception("toy_superposition", "W is returned the other way round; column i belongs to feature i, (m, n).")
def toy_transposed(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed).T.contiguous()


@misconception("toy_superposition", "The draws come from the global generator; make one from the seed.")
def toy_global_generator(n_features, m, sparsity, steps, seed=0):
    return toy(n_features, m, sparsity, steps, seed, rng=torch.default_generator)


@misconception(
    "toy_superposition", "The other features are normalised too; only u_i has norm 1.", "feature_dimensionality"
)
def all_normalised(W):
    norm = W.norm(dim=0)
    U = W / torch.where(norm > 0, norm, 1)
    shared = ((U.T @ U) ** 2).sum(1)
    return torch.where(norm > 0, norm**2 / torch.where(norm > 0, shared, 1), 0)


@misconception(
    "toy_superposition", "Feature i itself is left out of the sum; j runs over all features.", "feature_dimensionality"
)
def without_itself(W):
    square = (W**2).sum(0)
    shared = ((W.T @ W) ** 2).sum(1) - square**2
    return torch.where(square > 0, square**2 / torch.where(shared > 0, shared, 1), 0)


@misconception(
    "toy_superposition", "The denominator adds projections without squaring them.", replaces="feature_dimensionality"
)
def absolute_projections(W):
    norm = W.norm(dim=0)
    shared = (W.T @ W).abs().sum(1) / torch.where(norm > 0, norm, 1)
    return torch.where(norm > 0, norm**2 / torch.where(norm > 0, shared, 1), 0)


@misconception(
    "toy_superposition", "A column of zeros gives 0 / 0; its dimensionality is 0.", replaces="feature_dimensionality"
)
def zero_over_zero(W):
    square = (W**2).sum(0)
    return square**2 / ((W.T @ W) ** 2).sum(1)


@misconception(
    "toy_superposition", "You compare neurons, the rows of W; features are its columns.", "feature_dimensionality"
)
def rows_are_features(W):
    return reference.feature_dimensionality(W.T)


# -- SparseAutoencoder

Right = reference.SparseAutoencoder


@misconception("SparseAutoencoder", "b_dec is added after decoding but never taken off before encoding.")
class NotCentred(Right):
    def encode(self, x):
        return torch.relu(x @ self.W_enc + self.b_enc)


@misconception("SparseAutoencoder", "b_dec is added twice: decode adds it, and nobody else may.")
class AddsTwice(Right):
    def decode(self, f):
        return f @ self.W_dec + 2 * self.b_dec


@misconception("SparseAutoencoder", "decode leaves out b_dec; what was taken off has to come back.")
class NeverAddsBack(Right):
    def decode(self, f):
        return f @ self.W_dec


@misconception("SparseAutoencoder", "Codes can be negative: the ReLU is missing.")
class NoReLU(Right):
    def encode(self, x):
        return (x - self.b_dec) @ self.W_enc + self.b_enc


@misconception("SparseAutoencoder", "decode cuts off negative values; activations may have any sign.")
class CutsTheOutput(Right):
    def decode(self, f):
        return torch.relu(f @ self.W_dec + self.b_dec)


@misconception("SparseAutoencoder", "The squared error is averaged over the d entries; sum them, average over rows.")
class MeanOverEntries(Right):
    def loss(self, x, l1):
        f = self.encode(x)
        return ((x - self.decode(f)) ** 2).mean() + l1 * f.sum(-1).mean()


@misconception("SparseAutoencoder", "The codes are averaged over features; sum them, average over rows.")
class MeanOverFeatures(Right):
    def loss(self, x, l1):
        f = self.encode(x)
        return ((x - self.decode(f)) ** 2).sum(-1).mean() + l1 * f.mean()


@misconception("SparseAutoencoder", "The penalty is missing from the loss, so nothing makes the codes sparse.")
class NoPenalty(Right):
    def loss(self, x, l1):
        return ((x - self.decode(self.encode(x))) ** 2).sum(-1).mean()


@misconception("SparseAutoencoder", "You penalise squared codes, which makes them small but not zero; L1 is their sum.")
class SquaredPenalty(Right):
    def loss(self, x, l1):
        f = self.encode(x)
        return (((x - self.decode(f)) ** 2).sum(-1) + l1 * (f**2).sum(-1)).mean()


@misconception("SparseAutoencoder", "Nothing is renormalised: codes shrink to please the penalty while W_dec grows.")
class NoRenorm(Right):
    def renorm_decoder(self):
        return None


@misconception("SparseAutoencoder", "The norm runs along the wrong axis; each row of W_dec is a direction.")
class WrongAxis(Right):
    def renorm_decoder(self):
        with torch.no_grad():
            self.W_dec /= self.W_dec.norm(dim=0, keepdim=True).clamp(min=1e-12)


@misconception("SparseAutoencoder", "The encoder is normalised as well; only the decoder's directions are.")
class BothNormalised(Right):
    def renorm_decoder(self):
        super().renorm_decoder()
        with torch.no_grad():
            self.W_enc /= self.W_enc.norm(dim=0, keepdim=True)


@misconception("SparseAutoencoder", "A row of zeros becomes NaN; divide by 1 where the norm is 0.")
class ZeroRowNaN(Right):
    def renorm_decoder(self):
        with torch.no_grad():
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)


@misconception(
    "SparseAutoencoder", "W_dec becomes a new parameter, which the optimiser does not know; change it in place."
)
class NewParameter(Right):
    def renorm_decoder(self):
        norm = self.W_dec.detach().norm(dim=1, keepdim=True)
        self.W_dec = nn.Parameter(self.W_dec.detach() / torch.where(norm > 0, norm, 1))


@misconception(
    "SparseAutoencoder", "You count pairs of row and feature that are zero; a dead one is zero on every row."
)
class CountsZeros(Right):
    def dead_features(self, x):
        return int((self.encode(x) == 0).sum())


@misconception("SparseAutoencoder", "You count features that are zero on some row; a dead one is zero on every row.")
class DeadSomewhere(Right):
    def dead_features(self, x):
        return int((self.encode(x) == 0).any(dim=0).sum())


# -- steering_vector, generate_steered, topk_activation


def site_of(model, layer):
    """The site of a layer number."""
    if not 0 <= layer <= len(model.blocks):
        raise ValueError("layer")
    return sites_of(model)[layer]


def mean_state(model, ids, layer, real):
    """The mean of a residual state over the tokens that are marked."""
    return state(model, ids, site_of(model, layer))[real].mean(0)


def everything(ids, pad):
    """Every token that is not padding."""
    return torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad


@misconception("steering_vector", "Padding takes part in the means; leave out every position whose id is pad.")
def means_over_padding(model, pos_ids, neg_ids, layer, pad=None):
    a, b = (mean_state(model, ids, layer, everything(ids, None)) for ids in (pos_ids, neg_ids))
    return a - b


@misconception("steering_vector", "The vector points the wrong way: positive less negative.")
def points_back(model, pos_ids, neg_ids, layer, pad=None):
    return reference.steering_vector(model, neg_ids, pos_ids, layer, pad)


@misconception("steering_vector", "Sequences are averaged one by one; all real tokens count the same.")
def sequences_count_the_same(model, pos_ids, neg_ids, layer, pad=None):
    means = []
    for ids in (pos_ids, neg_ids):
        x, real = state(model, ids, site_of(model, layer)), everything(ids, pad)
        means.append(torch.stack([row[mask].mean(0) for row, mask in zip(x, real, strict=True)]).mean(0))
    return means[0] - means[1]


@misconception("steering_vector", "Only the last token of each sequence is read; the mean is over all real ones.")
def last_token_only(model, pos_ids, neg_ids, layer, pad=None):
    means = []
    for ids in (pos_ids, neg_ids):
        x, length = state(model, ids, site_of(model, layer)), everything(ids, pad).sum(1)
        means.append(x[torch.arange(len(ids)), length - 1].mean(0))
    return means[0] - means[1]


@misconception("steering_vector", "You read the state one block too far; layer 0 is the embedding.")
def one_block_further(model, pos_ids, neg_ids, layer, pad=None):
    site_of(model, layer)
    return reference.steering_vector(model, pos_ids, neg_ids, min(layer + 1, len(model.blocks)), pad)


@misconception("steering_vector", "The difference is scaled to length 1; its length is part of the answer.")
def unit_length(model, pos_ids, neg_ids, layer, pad=None):
    return F.normalize(reference.steering_vector(model, pos_ids, neg_ids, layer, pad), dim=0)


def generate(model, ids, edits, n):
    """Greedy generation under hooks."""
    for _ in range(n):
        logits = reference.run_with_hooks(model, ids, edits)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    return ids


@misconception("steering_vector", "The vector is added at every layer; add it at one.", replaces="generate_steered")
def steers_every_layer(model, ids, vector, layer, scale, n):
    site_of(model, layer)
    return generate(model, ids, dict.fromkeys(sites_of(model), lambda x: x + scale * vector), n)


@misconception(
    "steering_vector", "The vector is added at the last position only; all positions get it.", "generate_steered"
)
def steers_the_last_position(model, ids, vector, layer, scale, n):
    def push(x):
        x = x.clone()
        x[:, -1] += scale * vector
        return x

    return generate(model, ids, {site_of(model, layer): push}, n)


@misconception("steering_vector", "The scale is ignored; add scale times the vector.", replaces="generate_steered")
def ignores_scale(model, ids, vector, layer, scale, n):
    return generate(model, ids, {site_of(model, layer): lambda x: x + (scale != 0) * vector}, n)


@misconception("steering_vector", "The vector is added twice in each run; once is enough.", replaces="generate_steered")
def steers_twice(model, ids, vector, layer, scale, n):
    return generate(model, ids, {site_of(model, layer): lambda x: x + 2 * scale * vector}, n)


@misconception("steering_vector", "The state is replaced by the vector; add it to what is there.", "generate_steered")
def replaces_the_state(model, ids, vector, layer, scale, n):
    return generate(model, ids, {site_of(model, layer): lambda x: 0 * x + scale * vector}, n)


@misconception(
    "steering_vector", "The vector is added behind the next block; layer 0 is the embedding.", "generate_steered"
)
def steers_one_block_further(model, ids, vector, layer, scale, n):
    site_of(model, layer)
    site = sites_of(model)[min(layer + 1, len(model.blocks))]
    return generate(model, ids, {site: lambda x: x + scale * vector}, n)


@misconception(
    "steering_vector", "Only the prompt is steered; what was generated needs the push too.", "generate_steered"
)
def steers_the_prompt(model, ids, vector, layer, scale, n):
    T = ids.shape[1]

    def push(x):
        x = x.clone()
        x[:, :T] += scale * vector
        return x

    return generate(model, ids, {site_of(model, layer): push}, n)


@misconception("steering_vector", "The largest are chosen by magnitude; choose by value.", replaces="topk_activation")
def by_magnitude(x, k):
    return x * (reference.topk_activation(x.abs() + 1, k) != 0)


@misconception(
    "steering_vector", "All entries equal to the k-th are kept, which may be more than k.", "topk_activation"
)
def keeps_ties(x, k):
    if k < 0:
        raise ValueError("k")
    if k == 0:
        return torch.zeros_like(x)
    limit = x.sort(-1, descending=True).values[..., min(k, x.shape[-1]) - 1 :][..., :1]
    return torch.where(x >= limit, x, 0)


@misconception(
    "steering_vector", "The k largest of the whole tensor are kept; each row has its own.", "topk_activation"
)
def of_the_whole_tensor(x, k):
    return reference.topk_activation(x.flatten(), k).reshape(x.shape)


@misconception("steering_vector", "Negative entries are cut off although they are among the k.", "topk_activation")
def cuts_negative(x, k):
    return torch.relu(reference.topk_activation(x, k))


@misconception("steering_vector", "Kept entries become ones; they keep their value.", replaces="topk_activation")
def marks_only(x, k):
    return (reference.topk_activation(x.exp(), k) != 0).to(x.dtype)


@misconception(
    "steering_vector", "The smallest entries are kept; sort so that the largest come first.", "topk_activation"
)
def keeps_the_smallest(x, k):
    return -reference.topk_activation(-x, k)
