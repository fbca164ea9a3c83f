# %% [markdown]
# # Chapter 23: Interpretability
#
# Eight exercises. You open a small transformer, read what stands inside, take its output apart, exchange its parts
# while it runs, find the circuit that copies, and watch more features than neurons share a space. The teaching is in
# the notes (`README.md`); here stand only the promises.
#
# Axes: B batch, T positions, V ids, D width of the residual stream, H heads, hd width of a head, L blocks. The model is
# given. Every function takes it as it is and **leaves it as it was**: no hook stays behind, not even after an error; no
# parameter, gradient or mode changes. Results carry no graph, except where a docstring speaks of gradients.

# %%
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% [markdown]
# ## The model
#
# A decoder that normalises before each part, with biases everywhere; `d_mlp=0` leaves the MLPs out. A **site** is the
# dotted name of one of its modules, and what stands there is the module's output. The modules that do nothing exist
# for that purpose alone:
#
# | site | what comes out | shape |
# |---|---|---|
# | `embed` | the residual stream before the first block | (B, T, D) |
# | `blocks.0`, `blocks.1`, ... | the residual stream behind that block | (B, T, D) |
# | `blocks.0.attn`, `blocks.0.mlp` | what attention, or the MLP, adds to the stream | (B, T, D) |
# | `blocks.0.attn.pattern` | attention weights, row = query | (B, H, T, T) |
# | `blocks.0.attn.heads` | each head's mix of values, before `W_o` | (B, H, T, hd) |


# %%
class Attention(nn.Module):
    """Causal self-attention with H heads; head h owns the features from h * hd to (h + 1) * hd - 1."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.H = H
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(D, D) for _ in range(4))
        self.pattern, self.heads = nn.Identity(), nn.Identity()  # sites

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (W(x).unflatten(-1, (self.H, -1)).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(future, -math.inf)
        P = self.pattern(scores.softmax(-1))  # (B, H, T, T)
        z = self.heads(P @ v)  # (B, H, T, hd)
        return self.W_o(z.transpose(1, 2).flatten(2))  # (B, T, D)


# %%
class Block(nn.Module):
    """Attention, then an MLP if d_mlp is not 0; each reads the normalised stream and adds to the stream."""

    def __init__(self, D: int, H: int, d_mlp: int, eps: float) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(D, eps), Attention(D, H)
        if d_mlp:
            self.norm2 = nn.LayerNorm(D, eps)
            self.mlp = nn.Sequential(nn.Linear(D, d_mlp), nn.GELU(), nn.Linear(d_mlp, D))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x)) if hasattr(self, "mlp") else x


# %%
class TinyGPT(nn.Module):
    """A small language model: ids (B, T), T at most T_max, to logits (B, T, V). The seed decides its parameters."""

    def __init__(
        self, V: int, D: int, H: int, L: int, d_mlp: int, T_max: int, eps: float = 1e-5, seed: int = 0
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(T_max, D)
        self.embed = nn.Identity()  # site
        self.blocks = nn.ModuleList(Block(D, H, d_mlp, eps) for _ in range(L))
        self.norm, self.unembed = nn.LayerNorm(D, eps), nn.Linear(D, V)
        rng = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                nn.init.normal_(p, std=1.0 if name in ("tokens.weight", "positions.weight") else 0.1, generator=rng)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(self.tokens(ids) + self.positions(torch.arange(ids.shape[1])))  # (B, T, D)
        for block in self.blocks:
            x = block(x)
        return self.unembed(self.norm(x))  # (B, T, V)


# %% [markdown]
# ## 23.1 run_with_hooks, logit_lens
#
# PyTorch lets you listen at any module, and answer. Everything else in this chapter rests on doing it cleanly. The lens
# is the first use: what would the model say if it stopped here?


# %%
def run_with_hooks(model: TinyGPT, ids: Tensor, hooks: dict[str, Callable[[Tensor], Tensor | None]]) -> Tensor:
    """Run the model once while functions listen at sites, and may replace what comes out there.

    Args:
        model: a TinyGPT.
        ids: (B, T) int64.
        hooks: a function for each site. It is called once, with the output of the site; if it returns a tensor, the
            model goes on with that one instead, and if it returns None, with the output as it was.

    Returns:
        (B, T, V) logits of this run.

    Raises:
        ValueError: if a site is not the name of a module of the model; the model is not run then.
        Whatever a function or the model raises.

    Example:
        >>> model, ids = TinyGPT(V=5, D=4, H=2, L=1, d_mlp=0, T_max=3), torch.tensor([[1, 2, 3]])
        >>> silent = run_with_hooks(model, ids, {"blocks.0": lambda x: torch.zeros_like(x)})
        >>> silent.abs().max().item()
        0.0

    Notes:
        Afterwards the model has no hook of ours any more, also when something raised. No gradients are recorded.
    """
    ### BEGIN SOLUTION
    modules = dict(model.named_modules())
    unknown = hooks.keys() - modules.keys()
    if unknown:
        raise ValueError(f"the model has no site {sorted(unknown)}")
    handles = []
    try:
        for site, function in hooks.items():
            # f=function binds now; a plain closure would call the last function at every site
            hook = lambda module, inputs, output, f=function: f(output)  # noqa: E731
            handles.append(modules[site].register_forward_hook(hook))
        with torch.no_grad():
            return model(ids)
    finally:
        for handle in handles:
            handle.remove()
    ### END SOLUTION


# %%
def logit_lens(model: TinyGPT, ids: Tensor) -> Tensor:
    """Read the residual stream behind the embedding and behind each block as if the model ended there.

    Args:
        model: a TinyGPT with L blocks, L at least 0.
        ids: (B, T) int64.

    Returns:
        (L + 1, B, T, V) logits: index 0 for the site `embed`, index l for the site `blocks.{l - 1}`. Each state goes
        through the model's final norm, with mean and variance of that state, and through `unembed`. So the last slice
        equals model(ids).

    Example:
        >>> model = TinyGPT(V=5, D=4, H=2, L=3, d_mlp=0, T_max=3)
        >>> logit_lens(model, torch.tensor([[1, 2], [3, 4]])).shape
        torch.Size([4, 2, 2, 5])
    """
    ### BEGIN SOLUTION
    states: list[Tensor] = []  # the sites are passed in this order
    sites = ["embed", *(f"blocks.{layer}" for layer in range(len(model.blocks)))]
    run_with_hooks(model, ids, dict.fromkeys(sites, states.append))
    with torch.no_grad():
        return model.unembed(model.norm(torch.stack(states)))  # (L + 1, B, T, V)
    ### END SOLUTION


# %% [markdown]
# ## 23.2 train_probe, probe_selectivity
#
# Can a property be read off the activations by a linear map? And would that map have learned any labels whatever?


# %%
def train_probe(H: Tensor, y: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Fit a linear map from activations to one-hot labels by ridge regression, in closed form.

    Args:
        H: (n, d) activations, floating, n at least 1.
        y: (n,) int64 labels; there are C = max(y) + 1 classes, of which some may have no example.
        l2: strength of the penalty, more than 0.

    Returns:
        (W, b): (d, C) and (C,), dtype of H, the unique minimum of
        sum over rows of |H W + b - onehot(y)|^2, plus l2 times the sum of the squares of W.

    Example:
        >>> W, b = train_probe(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), l2=2.0)
        >>> print(W, b)
        tensor([[-0.2500,  0.2500]]) tensor([0.5000, 0.5000])

    Notes:
        The bias is not penalised: adding a constant to every row of H changes b and leaves W as it is. The prediction
        for h is the class with the largest entry of h W + b. H may have more columns than rows.
    """
    ### BEGIN SOLUTION
    Y = F.one_hot(y).to(H.dtype)  # (n, C)
    H_mean, Y_mean = H.mean(0), Y.mean(0)
    X = H - H_mean  # without means there is nothing left for a bias to do
    A = X.T @ X + l2 * torch.eye(H.shape[1], dtype=H.dtype)  # (d, d)
    W = torch.linalg.solve(A, X.T @ (Y - Y_mean))  # (d, C)
    return W, Y_mean - H_mean @ W
    ### END SOLUTION


# %%
def probe_selectivity(H: Tensor, y: Tensor, control_y: Tensor, l2: float = 1.0) -> dict[str, float]:
    """Compare a probe for the true labels with one for control labels, both on rows that they were not fitted to.

    Args:
        H: (n, d) activations, n at least 2.
        y: (n,) int64, the labels in question.
        control_y: (n,) int64, labels that say nothing about the model.
        l2: passed on to train_probe.

    Returns:
        "task" and "control": the accuracy (share of right predictions, from 0 to 1) of each probe;
        "selectivity": task less control.

    Example:
        >>> H, y = torch.tensor([[-1.0], [1.0], [-2.0], [2.0]]), torch.tensor([0, 1, 0, 1])
        >>> probe_selectivity(H, y, torch.tensor([0, 1, 1, 0]))
        {'task': 1.0, 'control': 0.0, 'selectivity': 1.0}

    Notes:
        Both probes are fitted to the first n // 2 rows and judged on all the others. A class that occurs only in the
        second half is never predicted. A tie goes to the smaller class.
    """
    ### BEGIN SOLUTION
    half = len(H) // 2
    found = {}
    for name, labels in (("task", y), ("control", control_y)):
        W, b = train_probe(H[:half], labels[:half], l2)
        guess = (H[half:] @ W + b).argmax(-1)
        found[name] = (guess == labels[half:]).double().mean().item()
    return found | {"selectivity": found["task"] - found["control"]}
    ### END SOLUTION


# %% [markdown]
# ## 23.3 direct_logit_attribution
#
# The last residual state is a sum, and a logit is almost linear in it. Freeze what is not linear, and the logit falls
# apart into one number for each part of the model.


# %%
def direct_logit_attribution(model: TinyGPT, ids: Tensor, token: int) -> dict[str, Tensor]:
    """Split the logit of one token, at every position, into what each component wrote towards it.

    Args:
        model: a TinyGPT with L blocks, L at least 0.
        ids: (B, T) int64.
        token: id of the logit in question.

    Returns:
        A (B, T) tensor, dtype of the logits, for each component; all together they sum to model(ids)[..., token]:
        "tokens" and "positions", the two embeddings;
        for block 0, and likewise for all others: "blocks.0.head.0", "blocks.0.head.1", ..., what a head writes through
        its own columns of W_o; "blocks.0.attn.bias", the bias of W_o; if there are MLPs, "blocks.0.mlp", what the MLP
        writes without the bias of its last layer, and "blocks.0.mlp.bias", that bias;
        "bias", what is there without any component: through the bias of the final norm, and the bias of unembed.

    Notes:
        The mean and the scale of the final norm are not linear. The mean is taken off each component by itself; the
        scale, the root of the variance plus eps, is that of the whole state at that position, and is held fixed.
        The weights of the norm belong to every component.
    """
    ### BEGIN SOLUTION
    seen: dict[str, Tensor] = {}
    sites = [name for name, _ in model.named_modules() if name]
    run_with_hooks(model, ids, {site: lambda x, site=site: seen.update({site: x}) for site in sites})
    with torch.no_grad():
        last = seen[f"blocks.{len(model.blocks) - 1}"] if len(model.blocks) else seen["embed"]
        scale = (last.var(-1, correction=0) + model.norm.eps).sqrt()  # (B, T)
        u = model.unembed.weight[token]  # (D,)
        towards = model.norm.weight * u
        towards = towards - towards.mean()  # c minus its mean, read by w, is c read by w minus its mean
        parts = {"tokens": seen["tokens"], "positions": seen["positions"]}
        for at, block in ((f"blocks.{layer}", block) for layer, block in enumerate(model.blocks)):
            W_o = block.attn.W_o.weight.unflatten(1, (block.attn.H, -1))  # (D, H, hd)
            for h in range(block.attn.H):
                parts[f"{at}.head.{h}"] = seen[f"{at}.attn.heads"][:, h] @ W_o[:, h].T  # (B, T, D)
            parts[f"{at}.attn.bias"] = block.attn.W_o.bias
            if hasattr(block, "mlp"):
                parts[f"{at}.mlp"] = seen[f"{at}.mlp"] - block.mlp[-1].bias
                parts[f"{at}.mlp.bias"] = block.mlp[-1].bias
        found = {name: part @ towards / scale for name, part in parts.items()}
        return found | {"bias": (model.norm.bias @ u + model.unembed.bias[token]).expand_as(scale)}
    ### END SOLUTION


# %% [markdown]
# ## 23.4 patch, patching_grid
#
# Attribution says what was written. Whether it mattered is another question: exchange one activation for that of
# another run, let everything behind it react, and see how much of the answer comes back.


# %%
def patch(model: TinyGPT, clean_ids: Tensor, corrupt_ids: Tensor, site: str, positions: Sequence[int]) -> Tensor:
    """Run the model on corrupt_ids, with what the clean run has at some positions of one site put in its place.

    Args:
        model: a TinyGPT.
        clean_ids, corrupt_ids: (B, T) int64 each, of one shape; row b of one is patched into row b of the other.
        site: name of a module whose output has its positions on the last axis but one, as all in the table above.
        positions: the positions to patch; negative ones count from the end; may be empty.

    Returns:
        (B, T, V) logits of the patched run.

    Raises:
        ValueError: if the shapes of the ids differ, or the model has no such site.
        IndexError: if a position is outside the sequence.

    Example:
        >>> model = TinyGPT(V=5, D=4, H=2, L=2, d_mlp=0, T_max=3)
        >>> clean, corrupt = torch.tensor([[1, 2, 3]]), torch.tensor([[4, 2, 3]])
        >>> torch.allclose(patch(model, clean, corrupt, "blocks.0", [0, 1, 2]), model(clean))
        True
    """
    ### BEGIN SOLUTION
    if clean_ids.shape != corrupt_ids.shape:
        raise ValueError(f"shapes of the ids differ: {tuple(clean_ids.shape)} and {tuple(corrupt_ids.shape)}")
    where = list(positions)
    clean: list[Tensor] = []
    run_with_hooks(model, clean_ids, {site: clean.append})

    def put_back(x: Tensor) -> Tensor:
        mixed = x.clone()
        mixed[..., where, :] = clean[0][..., where, :]
        return mixed

    return run_with_hooks(model, corrupt_ids, {site: put_back})
    ### END SOLUTION


# %%
def patching_grid(
    model: TinyGPT,
    clean_ids: Tensor,
    corrupt_ids: Tensor,
    sites: Sequence[str],
    metric: Callable[[Tensor], float],
) -> Tensor:
    """Measure how much of the clean behaviour each site brings back at each single position.

    Args:
        model: a TinyGPT.
        clean_ids, corrupt_ids: (B, T) int64 each, of one shape.
        sites: names of modules, as for `patch`.
        metric: maps the (B, T, V) logits of one run to one number, such as a mean difference of two logits.

    Returns:
        (len(sites), T) float64. Entry [s, t] is (m - m_corrupt) / (m_clean - m_corrupt), where m is the metric of the
        corrupt run with sites[s] patched at position t alone: 0 is no change, 1 is the clean run's number.

    Raises:
        ValueError: if the metric gives the clean and the corrupt run the same number; and as `patch` does.

    Notes:
        The result may lie outside [0, 1]. If metric raises, the model is left as it was all the same.
    """
    ### BEGIN SOLUTION
    m_clean = float(metric(run_with_hooks(model, clean_ids, {})))
    m_corrupt = float(metric(run_with_hooks(model, corrupt_ids, {})))
    if m_clean == m_corrupt:
        raise ValueError(f"both runs have the metric {m_clean}: there is nothing to bring back")
    grid = torch.zeros(len(sites), clean_ids.shape[1], dtype=torch.float64)
    for s, site in enumerate(sites):
        for t in range(clean_ids.shape[1]):
            m = float(metric(patch(model, clean_ids, corrupt_ids, site, [t])))
            grid[s, t] = (m - m_corrupt) / (m_clean - m_corrupt)
    return grid
    ### END SOLUTION


# %% [markdown]
# ## 23.5 induction_score, train_induction, ablate_head
#
# The best understood circuit of all: find the earlier copy of this token, and say what came after it. Given: sequences
# that repeat, and which of their places can be predicted from that.

# %%
V_REPEAT, T_REPEAT, SHORTEST, LONGEST = 20, 30, 5, 15
BATCH, RATE, BETAS = 32, 0.01, (0.9, 0.98)  # settings of Adam that work for train_induction


# %%
def repeats(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw n sequences, each repeating different ids with a period of its own: ids (n, 30) and periods (n,)."""
    first = torch.rand(n, V_REPEAT, generator=rng).argsort(1)  # (n, V), each row a permutation
    period = torch.randint(SHORTEST, LONGEST + 1, (n, 1), generator=rng)
    return first.gather(1, torch.arange(T_REPEAT) % period), period[:, 0]


# %%
def predictable(ids: Tensor, period: Tensor) -> Tensor:
    """Tell which positions, all but the last, have their own id a period earlier: (B, T - 1) bool."""
    return torch.arange(ids.shape[1] - 1) >= period[:, None]


# %%
def induction_score(attn: Tensor, period: int | Tensor) -> Tensor:
    """Measure how much of each head's attention goes to what followed earlier copies of the token.

    Args:
        attn: (B, H, T, T) attention weights, floating; attn[b, h, i, j] is how much query i looks at key j.
        period: id t equals id t - period: one int of 1 or more, or a (B,) int64 tensor with one for each sequence.

    Returns:
        (H,), dtype of attn: for each head, the weight that query i gives to the keys i + 1 - period,
        i + 1 - 2 period, and so on, as long as they are 1 or more, added up; and the mean of this over all queries
        i >= period of all sequences, each query counting the same.

    Raises:
        ValueError: if no query of any sequence has i >= period.

    Example:
        >>> attn = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0.9, 0.1, 0], [0.2, 0.2, 0.3, 0.3]])
        >>> induction_score(attn[None, None], 2)  # query 2 looks at key 1, query 3 at key 2
        tensor([0.6000])
    """
    ### BEGIN SOLUTION
    B, _, T, _ = attn.shape
    period = torch.as_tensor(period).expand(B)[:, None, None]  # (B, 1, 1)
    i, j = torch.arange(T)[:, None], torch.arange(T)[None, :]
    followed = (j >= 1) & (j <= i) & ((i + 1 - j) % period == 0)  # (B, T, T)
    counts = torch.arange(T) >= period[:, 0]  # (B, T)
    if not counts.any():
        raise ValueError(f"no sequence of length {T} is longer than its period")
    score = (attn * followed[:, None]).sum(-1)  # (B, H, T)
    return score.transpose(1, 2)[counts].mean(0)  # (H,)
    ### END SOLUTION


# %%
def train_induction(layers: int, steps: int, seed: int) -> TinyGPT:
    """Train an attention-only model to continue sequences that repeat.

    Args:
        layers: number of blocks.
        steps: number of training steps; may be 0.
        seed: decides the initial parameters and all sequences.

    Returns:
        A TinyGPT(V_REPEAT, 32, 2, layers, 0, T_REPEAT, seed=seed), trained.

    Notes:
        A step draws sequences by `repeats`, so that the period varies within the batch, and takes one step of Adam on
        the mean cross-entropy of the next id at the predictable places. Settings are yours; with the given ones two
        layers get more than 0.95 of these places right after 200 steps, and that is asked. Arguments alone decide the
        result, whatever the state of torch's global generator. Parameters of the returned model still require
        gradients; after 0 steps they are those of the constructor.
    """
    ### BEGIN SOLUTION
    model = TinyGPT(V_REPEAT, 32, 2, layers, 0, T_REPEAT, seed=seed)
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, betas=BETAS)
    for _ in range(steps):
        ids, period = repeats(BATCH, rng)
        again = predictable(ids, period)  # (B, T - 1)
        loss = F.cross_entropy(model(ids)[:, :-1][again], ids[:, 1:][again])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model
    ### END SOLUTION


# %%
def ablate_head(model: TinyGPT, ids: Tensor, layer: int, head: int) -> Tensor:
    """Run the model with one head silenced: what it mixes from the values is set to zero at every position.

    Args:
        model: a TinyGPT.
        ids: (B, T) int64.
        layer, head: which head, both counted from 0.

    Returns:
        (B, T, V) logits. The biases of W_o, and all other heads, still work.

    Raises:
        ValueError: if the model has no such block, or the block no such head; negative numbers name none.
    """
    ### BEGIN SOLUTION
    if not 0 <= layer < len(model.blocks) or not 0 <= head < model.blocks[layer].attn.H:
        raise ValueError(f"the model has no head {head} in a block {layer}")

    def silence(z: Tensor) -> Tensor:  # (B, H, T, hd)
        z = z.clone()
        z[:, head] = 0
        return z

    return run_with_hooks(model, ids, {f"blocks.{layer}.attn.heads": silence})
    ### END SOLUTION


# %% [markdown]
# ## 23.6 toy_superposition, feature_dimensionality
#
# Six features, two neurons. If features are rare, the model keeps more of them than it has room for. Given: settings.

# %%
IMPORTANCE = 0.7  # feature i weighs IMPORTANCE ** i in the loss
TOY_BATCH, TOY_RATE = 256, 0.05  # settings of Adam that work for toy_superposition
TOY_START = 0.3  # the first W is this times standard normal numbers


# %%
def toy_superposition(n_features: int, m: int, sparsity: float, steps: int, seed: int = 0) -> Tensor:
    """Train x' = ReLU(W^T W x + b) to give back features that are mostly zero, and return W.

    Args:
        n_features: number of features, n.
        m: number of neurons, m <= n.
        sparsity: probability, for each feature by itself, that it is 0 in an example; otherwise it is uniform on
            [0, 1]. From 0 to just below 1.
        steps: number of training steps; may be 0.
        seed: decides the start and all examples.

    Returns:
        W (m, n_features), float32: column i is the direction in which feature i is stored.

    Notes:
        The loss is the mean over examples of the sum over features of IMPORTANCE ** i (x'_i - x_i)^2. b, one number for
        each feature, is trained too. Settings are yours; the given ones (batch, rate of Adam, start) do it, with a rate
        that falls to zero over the second half. After 600 steps, nearly always: with sparsity 0, the m most important
        features and no others have a column of norm above 0.5; with 6 features, 2 neurons and sparsity 0.95, at least
        four have. Arguments alone decide the result, whatever the state of torch's global generator.
    """
    ### BEGIN SOLUTION
    rng = torch.Generator().manual_seed(seed)
    W = (TOY_START * torch.randn(m, n_features, generator=rng)).requires_grad_()
    b = torch.zeros(n_features, requires_grad=True)
    importance = IMPORTANCE ** torch.arange(n_features)  # (n,)
    optimizer = torch.optim.Adam([W, b], lr=TOY_RATE)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = TOY_RATE * min(1.0, 2 - 2 * step / steps)
        present = torch.rand(TOY_BATCH, n_features, generator=rng) >= sparsity
        x = torch.rand(TOY_BATCH, n_features, generator=rng) * present  # (N, n)
        x_back = torch.relu(x @ W.T @ W + b)  # (N, n)
        loss = (importance * (x_back - x) ** 2).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return W.detach()
    ### END SOLUTION


# %%
def feature_dimensionality(W: Tensor) -> Tensor:
    """Say what share of a dimension each feature has for itself.

    Args:
        W: (m, n) directions, floating; column i belongs to feature i.

    Returns:
        (n,), dtype of W: |W_i|^2 / sum over all j of (u_i . W_j)^2, where u_i is W_i divided by its norm, and j runs
        over all features, i included. 0 for a column of zeros.

    Example:
        >>> feature_dimensionality(torch.tensor([[2.0, 1.0, -1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
        tensor([0.6667, 0.1667, 0.1667, 0.0000])

    Notes:
        Each value lies between 0 and 1, and together they are at most m.
    """
    ### BEGIN SOLUTION
    square = (W**2).sum(0)  # (n,)
    shared = ((W.T @ W) ** 2).sum(1)  # (n,): |W_i|^2 times the sum of the squares of u_i . W_j
    return torch.where(square > 0, square**2 / torch.where(square > 0, shared, 1), 0)
    ### END SOLUTION


# %% [markdown]
# ## 23.7 SparseAutoencoder
#
# The way back: from activations in superposition to the features. A wide hidden layer, most of it silent.


# %%
class SparseAutoencoder(nn.Module):
    """Write activations as sums of few directions out of many.

    Args:
        d: width of the activations.
        k: number of features, usually more than d.
        seed: decides the start.

    Example:
        >>> sae = SparseAutoencoder(2, 3)
        >>> sae.encode(torch.zeros(5, 2)).shape
        torch.Size([5, 3])

    Notes:
        Given: the parameters W_enc (d, k), b_enc (k,), W_dec (k, d), b_dec (d,). Row i of W_dec is the direction of
        feature i; it starts with norm 1, and W_enc as its transpose. b_dec stands for the middle of the data: taken off
        before encoding, added after decoding. Gradients reach all four through `loss`.
    """

    def __init__(self, d: int, k: int, seed: int = 0) -> None:
        super().__init__()
        W = F.normalize(torch.randn(k, d, generator=torch.Generator().manual_seed(seed)), dim=1)
        self.W_enc, self.b_enc = nn.Parameter(W.T.clone()), nn.Parameter(torch.zeros(k))
        self.W_dec, self.b_dec = nn.Parameter(W.clone()), nn.Parameter(torch.zeros(d))

    def encode(self, x: Tensor) -> Tensor:
        """Map activations (..., d) to codes (..., k): ReLU of (x - b_dec) W_enc + b_enc."""
        ### BEGIN SOLUTION
        return torch.relu((x - self.b_dec) @ self.W_enc + self.b_enc)  # (..., k)
        ### END SOLUTION

    def decode(self, f: Tensor) -> Tensor:
        """Map codes (..., k) to activations (..., d): f W_dec + b_dec."""
        ### BEGIN SOLUTION
        return f @ self.W_dec + self.b_dec  # (..., d)
        ### END SOLUTION

    def loss(self, x: Tensor, l1: float) -> Tensor:
        """Give, for x (n, d), the mean over rows of |x - decode(f)|^2 + l1 sum_i f_i, where f = encode(x); 0-dim."""
        ### BEGIN SOLUTION
        f = self.encode(x)  # (n, k)
        error = ((x - self.decode(f)) ** 2).sum(-1)  # (n,)
        return (error + l1 * f.sum(-1)).mean()  # codes are never negative, so their sum is their L1 norm
        ### END SOLUTION

    def renorm_decoder(self) -> None:
        """Scale each row of W_dec to norm 1, in place and outside of any graph; all else stays, rows of zeros too."""
        ### BEGIN SOLUTION
        with torch.no_grad():
            norm = self.W_dec.norm(dim=1, keepdim=True)  # (k, 1)
            self.W_dec /= torch.where(norm > 0, norm, 1)
        ### END SOLUTION

    def dead_features(self, x: Tensor) -> int:
        """Count the features whose code is 0 on every row of x (n, d)."""
        ### BEGIN SOLUTION
        return int((self.encode(x) == 0).all(dim=0).sum())
        ### END SOLUTION


# %% [markdown]
# ## 23.8 steering_vector, generate_steered, topk_activation
#
# If a direction stands for something, adding it should change what the model says. And a word on sparse codes without
# a penalty.


# %%
def steering_vector(model: TinyGPT, pos_ids: Tensor, neg_ids: Tensor, layer: int, pad: int | None = None) -> Tensor:
    """Give the mean activation over positive examples less the mean over negative ones.

    Args:
        model: a TinyGPT with L blocks.
        pos_ids, neg_ids: (B, T) int64 each, of any two shapes, at least one real token in each.
        layer: which residual state, as in `logit_lens`: 0 behind the embedding, l behind l blocks, L the last.
        pad: id of the padding, which stands on the right of the real tokens only; None means that there is none.

    Returns:
        (D,). Each mean runs over all tokens of all sequences that are not padding, each token counting the same.

    Raises:
        ValueError: if layer is not from 0 to L.

    Example:
        >>> model = TinyGPT(V=5, D=4, H=2, L=1, d_mlp=0, T_max=3)
        >>> padded, shorter = torch.tensor([[1, 2, 0], [1, 0, 0]]), torch.tensor([[1, 2], [1, 0]])
        >>> steering_vector(model, padded, shorter, layer=1, pad=0).tolist()
        [0.0, 0.0, 0.0, 0.0]
    """
    ### BEGIN SOLUTION
    if not 0 <= layer <= len(model.blocks):
        raise ValueError(f"layer must be from 0 to {len(model.blocks)}, but is {layer}")
    site = f"blocks.{layer - 1}" if layer else "embed"
    means = []
    for ids in (pos_ids, neg_ids):
        states: list[Tensor] = []
        run_with_hooks(model, ids, {site: states.append})
        real = torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad  # (B, T)
        means.append(states[0][real].mean(0))  # (D,)
    return means[0] - means[1]
    ### END SOLUTION


# %%
def generate_steered(model: TinyGPT, ids: Tensor, vector: Tensor, layer: int, scale: float, n: int) -> Tensor:
    """Continue ids greedily while scale times a vector is added to one residual state, at every position.

    Args:
        model: a TinyGPT with L blocks.
        ids: (B, T) int64 prompts without padding, T at least 1; T + n - 1 is at most T_max.
        vector: (D,), dtype of the model's parameters.
        layer: which residual state, 0 to L, as in `steering_vector`; the blocks behind it see the sum.
        scale: of either sign; 0 changes nothing.
        n: number of ids to add, 0 or more.

    Returns:
        (B, T + n) int64: ids, then each time the id with the largest logit (the smaller id if equal), given all before.

    Raises:
        ValueError: if layer is not from 0 to L.

    Notes:
        In each of the n runs the vector is added once, at all positions, those of the prompt included.
    """
    ### BEGIN SOLUTION
    if not 0 <= layer <= len(model.blocks):
        raise ValueError(f"layer must be from 0 to {len(model.blocks)}, but is {layer}")
    site = f"blocks.{layer - 1}" if layer else "embed"
    for _ in range(n):
        logits = run_with_hooks(model, ids, {site: lambda x: x + scale * vector})  # (B, T, V)
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
    return ids
    ### END SOLUTION


# %%
def topk_activation(x: Tensor, k: int) -> Tensor:
    """Keep the k largest entries of each row and set all others to zero.

    Args:
        x: (..., n), floating.
        k: how many to keep, 0 or more; with k >= n all stay.

    Returns:
        A new tensor with the shape and dtype of x. Gradients reach the entries that were kept, and no others.

    Raises:
        ValueError: if k is negative.

    Example:
        >>> topk_activation(torch.tensor([3.0, -1.0, 2.0, 3.0]), 2)
        tensor([3., 0., 0., 3.])

    Notes:
        The largest are meant by value, not by magnitude; one that is kept stays as it is, even if negative. Of equal
        entries those with the smaller index are kept first, so exactly k stay. x is not changed.
    """
    ### BEGIN SOLUTION
    if k < 0:
        raise ValueError(f"k must not be negative, but is {k}")
    order = x.argsort(dim=-1, descending=True, stable=True)  # (..., n); stable: equal ones keep their order
    keep = torch.zeros_like(x, dtype=torch.bool).scatter(-1, order[..., :k], True)
    return torch.where(keep, x, 0)
    ### END SOLUTION
