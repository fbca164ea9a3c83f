# %% [markdown]
# # Chapter 26: The landscape, and your own LLM
#
# Seven exercises. The first six read the map: how large the published models are and what fits where, one builder for
# all of their shapes, what a closed model reveals, and how fast the whole field grows. The seventh joins everything that
# you have written in this course into one language model of your own, from raw text to a report about it.
#
# Names: B batch, T tokens, V vocabulary, D model width, H query heads, Hk key-value heads, hd width of a head, F inner
# width of the feed-forward network, L layers.

# %%
import copy
import hashlib
import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import regex
import torch
from torch import Tensor, nn
from torch.nn import functional

# %% [markdown]
# **Given: eight published models as numbers.** The head is as wide as the vocabulary and has no bias. With `tied`, head
# and token table are one matrix. With `bias`, every matrix of attention and of the feed-forward network has a bias vector;
# the router of experts never has. A layer norm holds two vectors, an rms norm one; there are two norms in a layer and
# one after the last layer. `gelu` has two matrices, `swiglu` and `geglu` have three. With `n_experts`, each layer has so
# many feed-forward networks and a router of D x `n_experts`; a token goes through `top_k` of them, and through all
# `n_shared` further ones. `window` is how many tokens attention looks back over, the current one counted.

# %%
_COMMON = {"norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": False, "tied": False, "window": None}
_COMMON |= {"full_every": 0, "n_experts": 0, "top_k": 0, "n_shared": 0}
_GPT2 = _COMMON | {"norm": "layer", "positions": "learned", "ffn": "gelu", "bias": True, "tied": True}


def _family(base: dict, V: int, T_max: int, D: int, L: int, H: int, Hk: int, hd: int, F: int, **more: Any) -> dict:
    sizes = {"vocab_size": V, "T_max": T_max, "d_model": D, "n_layers": L, "n_heads": H, "n_kv_heads": Hk}
    return base | sizes | {"head_dim": hd, "d_ff": F} | more


FAMILIES = {
    "gpt2": _family(_GPT2, 50257, 1024, 768, 12, 12, 12, 64, 3072),
    "gpt2-xl": _family(_GPT2, 50257, 1024, 1600, 48, 25, 25, 64, 6400),
    "llama-2-7b": _family(_COMMON, 32000, 4096, 4096, 32, 32, 32, 128, 11008),
    "llama-3-8b": _family(_COMMON, 128256, 8192, 4096, 32, 32, 8, 128, 14336),
    "mistral-7b": _family(_COMMON, 32000, 32768, 4096, 32, 32, 8, 128, 14336, window=4096),
    "gemma-2b": _family(_COMMON, 256000, 8192, 2048, 18, 8, 1, 256, 16384, ffn="geglu", tied=True),
    "gemma-7b": _family(_COMMON, 256000, 8192, 3072, 28, 16, 16, 256, 24576, ffn="geglu", tied=True),
    "mixtral-8x7b": _family(_COMMON, 32000, 32768, 4096, 32, 32, 8, 128, 14336, n_experts=8, top_k=2),
}


def layer_window(config: dict, layer: int) -> int | None:
    """Give the window of a layer: None if it sees everything, as every `full_every`-th does in models that alternate."""
    n = config["full_every"]
    return None if n and (layer + 1) % n == 0 else config["window"]


# %% [markdown]
# ## 26.1 family_params
#
# One formula for all of them. It is right when it hits the published numbers to the last digit.


# %%
def family_params(config: dict) -> dict[str, int]:
    """Count the parameters of a model from its configuration, without building it.

    Args:
        config: a dict as in FAMILIES; it is not changed.

    Returns:
        dict of ints: "embedding" (token table, learned positions, and the head unless it is tied), "attention", "mlp"
        (feed-forward networks, experts, shared experts, routers) and "norm", each over all layers; "total", their sum;
        "active", the total without the experts that a token does not go through.

    Example:
        >>> counts = family_params(FAMILIES["gpt2"])
        >>> counts["total"], counts["norm"]
        (124439808, 38400)

    Notes:
        All heads of a layer are n_heads * head_dim wide together, which need not be d_model. Rotary positions have no
        parameters. "active" counts everything else in full, the token table and all routers too; without experts it is
        "total". With n_experts = 0 the values of top_k and n_shared do not matter.
    """
    ### BEGIN SOLUTION
    V, D, F, L = config["vocab_size"], config["d_model"], config["d_ff"], config["n_layers"]
    Q, K = (config[heads] * config["head_dim"] for heads in ("n_heads", "n_kv_heads"))  # widths of all heads together
    bias, E = int(config["bias"]), config["n_experts"]
    into = 1 if config["ffn"] == "gelu" else 2  # matrices (F, D): the value, and a gate if there is one
    ffn = (into + 1) * D * F + bias * (into * F + D)
    attention = 2 * D * Q + 2 * D * K + bias * (Q + 2 * K + D)
    norm = 2 * D if config["norm"] == "layer" else D
    counts = {
        "embedding": V * D * (1 if config["tied"] else 2) + (config["T_max"] * D if config["positions"] == "learned" else 0),
        "attention": L * attention,
        "mlp": L * ((E + config["n_shared"]) * ffn + D * E if E else ffn),
        "norm": (2 * L + 1) * norm,
    }
    total = sum(counts.values())
    idle = L * (E - config["top_k"]) * ffn if E else 0  # experts that a token passes by
    return counts | {"total": total, "active": total - idle}
    ### END SOLUTION


# %% [markdown]
# ## 26.2 family_memory, fits
#
# Weights, the cache of the conversation, and the numbers under way: what must be in memory at the same time.


# %%
def family_memory(
    config: dict, batch: int, seq: int, w_bits: int = 16, kv_bits: int = 16, activations: bool = False
) -> dict[str, int]:
    """Give the bytes that a model takes while it holds `batch` conversations of `seq` tokens each.

    Args:
        config: a dict as in FAMILIES.
        batch, seq: at least 0.
        w_bits: bits of a weight; all weights have them.
        kv_bits: bits of a number in the KV cache.
        activations: count the numbers under way too, while a whole prompt of seq tokens is read at once.

    Returns:
        dict of ints, in bytes, each rounded up to a whole byte: "weights", "kv", "activations" (0 unless asked for) and
        "total", their sum.

    Example:
        >>> family_memory(FAMILIES["llama-3-8b"], batch=1, seq=1000, w_bits=4)
        {'weights': 4015130624, 'kv': 131072000, 'activations': 0, 'total': 4146202624}

    Notes:
        All weights must be there, idle experts too. The cache holds a key and a value of each key-value head of each layer
        for each token, but a layer with a window keeps only as many tokens of a conversation as its window sees.
        Activations have 16 bits, whatever the other bits: 2 D + F numbers for each token, with a gate 2 D + 2 F.
    """
    ### BEGIN SOLUTION
    windows = [layer_window(config, layer) for layer in range(config["n_layers"])]
    tokens = sum(seq if window is None else min(seq, window) for window in windows)  # over all layers
    inner = config["d_ff"] * (1 if config["ffn"] == "gelu" else 2)
    bits = {
        "weights": family_params(config)["total"] * w_bits,
        "kv": batch * tokens * 2 * config["n_kv_heads"] * config["head_dim"] * kv_bits,
        "activations": batch * seq * (2 * config["d_model"] + inner) * 16 if activations else 0,
    }
    parts = {name: -(-n // 8) for name, n in bits.items()}  # whole bytes, rounded up
    return parts | {"total": sum(parts.values())}
    ### END SOLUTION


# %%
def fits(
    config: dict, gpu_gib: float, batch: int = 1, w_bits: int = 16, kv_bits: int = 16, activations: bool = False
) -> int:
    """Find the longest conversation for which a model fits into a GPU's memory.

    Args:
        config: a dict as in FAMILIES.
        gpu_gib: memory in GiB, each of 2**30 bytes.
        batch, w_bits, kv_bits, activations: as in family_memory; batch is at least 1.

    Returns:
        The largest seq, 0 to T_max, whose family_memory "total" is at most the GPU's memory; 0 also if not even the
        weights fit.

    Example:
        >>> fits(FAMILIES["llama-2-7b"], gpu_gib=14), fits(FAMILIES["llama-2-7b"], gpu_gib=14, kv_bits=4)
        (2966, 4096)
    """
    ### BEGIN SOLUTION
    low, high = 0, config["T_max"]
    while low < high:  # low is known to do, or is 0; above high is known not to
        middle = (low + high + 1) // 2
        total = family_memory(config, batch, middle, w_bits, kv_bits, activations)["total"]
        low, high = (middle, high) if total <= gpu_gib * 2**30 else (low, middle - 1)
    return low
    ### END SOLUTION


# %% [markdown]
# **Given: what you built in chapters 5 to 7 and 11, ready to be assembled.** Norms, a feed-forward network, rotary
# positions, a cache of keys and values, a block and the model around the blocks.


# %%
def make_norm(config: dict) -> nn.Module:
    """Give a new norm of the kind that config names."""
    return nn.LayerNorm(config["d_model"]) if config["norm"] == "layer" else nn.RMSNorm(config["d_model"], eps=1e-6)


class FeedForward(nn.Module):
    """W_down act(W_up x), or, with a gate, W_down (act(W_gate x) * W_up x)."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        D, F, bias = config["d_model"], config["d_ff"], config["bias"]
        self.act = functional.silu if config["ffn"] == "swiglu" else lambda x: functional.gelu(x, approximate="tanh")
        self.W_gate = None if config["ffn"] == "gelu" else nn.Linear(D, F, bias=bias)
        self.W_up, self.W_down = nn.Linear(D, F, bias=bias), nn.Linear(F, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.W_up(x)
        return self.W_down(self.act(up) if self.W_gate is None else self.act(self.W_gate(x)) * up)


def rope(x: Tensor, start: int) -> Tensor:
    """Rotate x (B, H, T, hd), whose first token stands at position `start`; entry i pairs with entry i + hd/2."""
    T, hd = x.shape[-2:]
    angles = torch.arange(start, start + T)[:, None] * 10000.0 ** (-2 * torch.arange(hd // 2, dtype=torch.float64) / hd)
    turn = torch.polar(torch.ones_like(angles), angles)  # (T, hd/2): one complex number a pair
    pairs = torch.complex(*x.double().chunk(2, -1)) * turn
    return torch.cat([pairs.real, pairs.imag], -1).to(x.dtype)


class Cache:
    """Keys and values of each layer, (B, Hk, n, hd) each."""

    def __init__(self, L: int) -> None:
        self.kept: list[tuple[Tensor, Tensor] | None] = [None] * L

    def length(self, layer: int = -1) -> int:
        """Give how many tokens a layer holds."""
        return 0 if self.kept[layer] is None else self.kept[layer][0].shape[2]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Put new keys and values behind those of a layer and give all that it holds now."""
        old = self.kept[layer]
        self.kept[layer] = (k, v) if old is None else (torch.cat([old[0], k], 2), torch.cat([old[1], v], 2))
        return self.kept[layer]


class Block(nn.Module):
    """Two branches beside the stream."""

    def __init__(self, norm1: nn.Module, attention: nn.Module, norm2: nn.Module, ffn: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2, self.ffn = norm1, attention, norm2, ffn

    def forward(self, x: Tensor, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.attention(self.norm1(x), cache, layer)
        return x + self.ffn(self.norm2(x))


class GPT(nn.Module):
    """The model around the blocks: model(ids (B, T)) or model(ids, cache) gives logits (B, T, V)."""

    def __init__(
        self,
        config: dict,
        embedding: nn.Embedding,
        positions: nn.Embedding | None,
        blocks: Sequence[Block],
        norm: nn.Module,
        head: nn.Linear,
    ) -> None:
        super().__init__()
        self.config, self.embedding, self.positions = config, embedding, positions
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), norm, head

    def new_cache(self, B: int) -> Cache:
        """Give an empty cache."""
        return Cache(len(self.blocks))

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        start, T = 0 if cache is None else cache.length(), ids.shape[1]
        if start + T > self.config["T_max"]:
            raise ValueError(f"{start + T} tokens do not fit into T_max={self.config['T_max']}")
        x = self.embedding(ids)  # (B, T, D)
        if self.positions is not None:
            x = x + self.positions.weight[start : start + T]
        for layer, block in enumerate(self.blocks):
            x = block(x, cache, layer)
        return self.head(self.norm(x))  # (B, T, V)


# %% [markdown]
# ## 26.3 Attention, Experts, build
#
# The families differ in a handful of choices. Write the two parts in which most of the choices lie, and the builder that
# makes all of them.


# %%
class Attention(nn.Module):
    """Let each token attend to itself and to earlier tokens, as far back as the window goes.

    Args:
        config: a dict as in FAMILIES.
        window: how many tokens a query sees at most, itself the last of them; None: all.

    Example:
        >>> config = FAMILIES["gemma-2b"] | {"d_model": 6, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8}
        >>> attention = Attention(config, window=3)
        >>> attention(torch.zeros(2, 5, 6)).shape, attention.W_k.weight.shape
        (torch.Size([2, 5, 6]), torch.Size([16, 6]))

    Notes:
        Four nn.Linear and no other parameters: W_q from D to H * hd, W_k and W_v from D to Hk * hd, W_o from H * hd to D,
        with biases if config["bias"]. Head h owns the features h * hd ... (h + 1) * hd - 1 of its projection, and query
        head h reads key-value head h // (H / Hk). Scores are divided by sqrt(hd). With "rope" positions, queries and
        keys are turned by `rope`; values never are.
    """

    def __init__(self, config: dict, window: int | None) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        D, hd, bias = config["d_model"], config["head_dim"], config["bias"]
        Q, K = config["n_heads"] * hd, config["n_kv_heads"] * hd
        self.hd, self.window, self.turns = hd, window, config["positions"] == "rope"
        self.W_q, self.W_o = nn.Linear(D, Q, bias=bias), nn.Linear(Q, D, bias=bias)
        self.W_k, self.W_v = nn.Linear(D, K, bias=bias), nn.Linear(D, K, bias=bias)
        ### END SOLUTION

    def forward(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        """Map the new tokens x (B, T, D) to (B, T, D).

        With a cache they follow the n = cache.length(layer) tokens that `layer` holds: their positions begin at n, their
        keys (already turned) and values are appended with cache.append, and they attend to all that it holds then, as
        far as the window goes. T is 1 or more.
        """
        ### BEGIN SOLUTION
        n, T = 0 if cache is None else cache.length(layer), x.shape[1]
        q, k, v = (W(x).unflatten(-1, (-1, self.hd)).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        if self.turns:
            q, k = rope(q, n), rope(k, n)  # (B, H, T, hd), (B, Hk, T, hd)
        if cache is not None:
            k, v = cache.append(layer, k, v)  # (B, Hk, n + T, hd)
        back = torch.arange(n, n + T)[:, None] - torch.arange(n + T)  # (T, n + T) how far back each key lies
        seen = (back >= 0) & (back < (self.window or n + T))
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)
        return self.W_o(heads.transpose(1, 2).flatten(2))  # (B, T, D)
        ### END SOLUTION


# %%
class Experts(nn.Module):
    """Send each token through the top_k experts that its router prefers, and through all shared ones.

    Args:
        config: a dict as in FAMILIES, with n_experts E of at least 1 and 1 <= top_k <= E.

    Example:
        >>> config = FAMILIES["mixtral-8x7b"] | {"d_model": 6, "d_ff": 8, "n_experts": 3, "n_shared": 1}
        >>> experts = Experts(config)
        >>> experts(torch.zeros(2, 5, 6)).shape, len(experts.experts), len(experts.shared)
        (torch.Size([2, 5, 6]), 3, 1)

    Notes:
        Children, and no other parameters: router, an nn.Linear(D, E, bias=False); experts and shared, nn.ModuleLists of E
        and n_shared FeedForward(config). The output is the sum over the chosen experts of weight * expert(x), plus the
        sum of all shared experts of x, each with weight 1. The weights of a token are the softmax of its top_k router
        logits, so they sum to one. An expert reads only the tokens that chose it.
    """

    def __init__(self, config: dict) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.k = config["top_k"]
        self.router = nn.Linear(config["d_model"], config["n_experts"], bias=False)
        self.experts = nn.ModuleList(FeedForward(config) for _ in range(config["n_experts"]))
        self.shared = nn.ModuleList(FeedForward(config) for _ in range(config["n_shared"]))
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, T, D) to (B, T, D), each token by itself; gradients reach x, the router and the experts in use."""
        ### BEGIN SOLUTION
        tokens = x.flatten(0, 1)  # (B * T, D)
        logits, chosen = self.router(tokens).topk(self.k, dim=-1)  # (B * T, k) each
        weights = logits.softmax(-1)
        out = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows, slot = (chosen == e).nonzero(as_tuple=True)  # the tokens that chose e
            if len(rows):
                out = out.index_add(0, rows, weights[rows, slot, None] * expert(tokens[rows]))
        return sum((expert(x) for expert in self.shared), start=out.view_as(x))
        ### END SOLUTION


# %%
def build(config: dict) -> GPT:
    """Assemble a model of any family from the parts above.

    Args:
        config: a dict as in FAMILIES; it is not changed.

    Returns:
        A new GPT(config, embedding, positions, blocks, norm, head) whose parameters number family_params(config)["total"],
        a tied matrix counted once.

    Example:
        >>> config = FAMILIES["mixtral-8x7b"] | {"vocab_size": 11, "d_model": 8, "d_ff": 12, "n_layers": 2, "head_dim": 4}
        >>> model = build(config)
        >>> model(torch.zeros(1, 5, dtype=torch.long)).shape, type(model.blocks[0].ffn).__name__
        (torch.Size([1, 5, 11]), 'Experts')

    Notes:
        embedding is nn.Embedding(V, D); positions is nn.Embedding(T_max, D) if they are "learned", else None; head is
        nn.Linear(D, V, bias=False), and if config["tied"] its weight is the very parameter of the embedding. The L blocks
        are Block(norm1, attention, norm2, ffn); each norm is a make_norm of its own, attention has the layer_window of
        its layer, and ffn is Experts(config) if there are experts, else FeedForward(config).
    """
    ### BEGIN SOLUTION
    V, D = config["vocab_size"], config["d_model"]
    embedding, head = nn.Embedding(V, D), nn.Linear(D, V, bias=False)
    if config["tied"]:
        head.weight = embedding.weight  # one parameter under two names
    positions = nn.Embedding(config["T_max"], D) if config["positions"] == "learned" else None
    make_ffn = Experts if config["n_experts"] else FeedForward
    blocks = [
        Block(make_norm(config), Attention(config, layer_window(config, i)), make_norm(config), make_ffn(config))
        for i in range(config["n_layers"])
    ]
    return GPT(config, embedding, positions, blocks, make_norm(config), head)
    ### END SOLUTION


# %% [markdown]
# ## 26.4 recover_logprobs
#
# A closed model shows the few most likely tokens and lets you nudge the others. That is enough to see all of them.


# %%
def recover_logprobs(api: Callable[[dict[int, float]], dict[int, float]], V: int, top_k: int, bias: float) -> Tensor:
    """Find the log-probabilities of all V tokens through an interface that shows only the top_k most likely.

    Args:
        api: api(biases) adds biases[i] to the logit of each token i it names and gives {token: log-probability} of the
            top_k most likely tokens (all V if top_k >= V), as they are *after* the biases.
        V: number of tokens, at least 1; tokens are 0 ... V-1.
        top_k: at least 1.
        bias: what api accepts: -bias <= biases[i] <= bias. It exceeds the difference of any two logits.

    Returns:
        (V,) float64: the log-probabilities without any bias.

    Example:
        >>> log_p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log()
        >>> def api(biases):
        ...     z = log_p + torch.tensor([biases.get(i, 0.0) for i in range(3)])
        ...     values, ids = z.log_softmax(0).topk(2)
        ...     return dict(zip(ids.tolist(), values.tolist()))
        >>> recover_logprobs(api, V=3, top_k=2, bias=10.0).exp()
        tensor([0.5000, 0.3000, 0.2000], dtype=torch.float64)

    Notes:
        api is called at most ceil(V / top_k) times. If all logits lie within 15 of each other, every log-probability is
        right to 1e-6, for a bias of 8 as for one of 1000. Mind what becomes of 1 - S, where S is a sum of probabilities
        that a large bias has driven to 1.
    """
    ### BEGIN SOLUTION
    log_p = torch.zeros(V, dtype=torch.float64)
    seen: list[int] = []
    rest = 1.0  # the true mass of the tokens not seen yet
    while len(seen) < V:
        shown = api({i: -bias for i in seen})  # push down what is known, and the next ones come to the top
        normaliser = rest + (1 - rest) * math.exp(-bias)  # what all masses sum to under these biases
        new = {i: value + math.log(normaliser) for i, value in shown.items() if i not in seen}
        for i, value in new.items():
            log_p[i] = value
        seen += new
        rest -= sum(math.exp(value) for value in new.values())
    return log_p
    ### END SOLUTION


# %% [markdown]
# ## 26.5 estimate_hidden_size
#
# Logits are as many as the vocabulary, but they come out of a much narrower model. The narrowness shows.


# %%
def estimate_hidden_size(logits: Tensor) -> int:
    """Estimate the width of the model that gave these logits.

    Args:
        logits: (n, V), of any floating dtype: one row for each of n prompts, n < V. To each row a constant of its own
            may have been added, as in log-probabilities.

    Returns:
        How many singular values exceed 1 % of the largest one, after the mean of each row is taken off.

    Warns:
        UserWarning, by warnings.warn: the answer is n, so that more rows might show more.

    Example:
        >>> logits = torch.arange(1.0, 5.0)[:, None] * torch.tensor([1.0, 0, 2, 0, -1])  # all rows along one direction
        >>> estimate_hidden_size(logits.log_softmax(-1))
        1

    Notes:
        1 % stands well above the rounding of bfloat16, whose steps are 0.4 % of a number, and well below any direction
        that a model uses. The scale of the logits does not matter, from 1e-6 to 1e6. Work in float64. logits is not
        changed.
    """
    ### BEGIN SOLUTION
    x = logits.double()
    s = torch.linalg.svdvals(x - x.mean(dim=1, keepdim=True))  # the constant of a row would be a direction more
    d = int((s > 0.01 * s[0]).sum())
    if d == len(logits):
        warnings.warn(f"{d} rows cannot show more than {d} directions; ask for more prompts", stacklevel=2)
    return d
    ### END SOLUTION


# %% [markdown]
# **Given: the quantile of Student's t**, which the standard library does not have. `t_quantile(0.975, df=10)` is the t
# that 97.5 % of the distribution lie below.


# %%
def t_quantile(p: float, df: int) -> float:
    """Give the t below which the share p (0 < p < 1) of Student's distribution with df degrees of freedom lies."""
    if p < 0.5:
        return -t_quantile(1 - p, df)

    def above(angle: float) -> float:  # share above t = sqrt(df) tan(angle), by Simpson's rule in the angle
        steps = np.linspace(angle, math.pi / 2, 2001)
        heights = np.clip(np.cos(steps), 0, 1) ** (df - 1)
        whole = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
        return whole * (steps[1] - steps[0]) / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2]))

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if above(middle) > 1 - p else (low, middle)
    return math.sqrt(df) * math.tan((low + high) / 2)


# %% [markdown]
# ## 26.6 doubling_time, extrapolate
#
# On a logarithmic scale, steady growth is a straight line. How steep is it, and how far may one draw it on?


# %%
def doubling_time(dates: Sequence[str], compute: Sequence[float]) -> float:
    """Fit a straight line to log2(compute) over time, by least squares, and give the time of one doubling in years.

    Args:
        dates: ISO dates such as "2020-05-28", in any order; not all the same.
        compute: what each model took to train, in any unit, above 0.

    Returns:
        Years of 365.25 days in which the fitted line rises by one; negative if it falls.

    Raises:
        ValueError: fewer than 3 points, not as many dates as values, or a value that is not above 0.

    Example:
        >>> round(doubling_time(["2020-01-01", "2021-01-01", "2022-01-01"], [1e20, 2e20, 4e20]), 4)
        1.0007
    """
    ### BEGIN SOLUTION
    if len(dates) < 3 or len(dates) != len(compute) or min(compute) <= 0:
        raise ValueError("a trend needs 3 points or more, each with a date and a value above 0")
    x = np.array([date.fromisoformat(day).toordinal() / 365.25 for day in dates])  # years
    y = np.log2(np.array(compute, dtype=float))
    dx = x - x.mean()
    slope = (dx @ y) / (dx @ dx)  # doublings a year
    return float(1 / slope)
    ### END SOLUTION


# %%
def extrapolate(
    dates: Sequence[str], compute: Sequence[float], when: str, level: float = 0.95
) -> tuple[float, float, float]:
    """Draw the trend on to another date, and say between which values the next model will lie.

    Args:
        dates, compute: as in doubling_time.
        when: an ISO date.
        level: 0 < level < 1.

    Returns:
        (low, middle, high), in the unit of compute: the fitted line at `when`, and the prediction interval around it, in
        which one new model lies with probability `level` if logarithms scatter normally around the line.

    Raises:
        ValueError: as doubling_time does.

    Example:
        >>> [round(x) for x in extrapolate(["2021-01-01", "2022-01-01", "2023-01-01"], [10, 20, 40], "2024-01-01")]
        [80, 80, 80]

    Notes:
        On the scale of log2 the half-width is t s sqrt(1 + 1/n + (x - mean)^2 / Sxx), with s^2 the sum of the squared
        residuals over n - 2, Sxx the sum of the squared deviations of the dates from their mean, and t =
        t_quantile((1 + level) / 2, n - 2). The 1 is the new model's own scatter: it is not the line that is asked for.
    """
    ### BEGIN SOLUTION
    years = doubling_time(dates, compute)  # refuses what cannot be fitted
    n = len(dates)
    x = np.array([date.fromisoformat(day).toordinal() / 365.25 for day in dates])
    y = np.log2(np.array(compute, dtype=float))
    x_new = date.fromisoformat(when).toordinal() / 365.25 - x.mean()
    middle = y.mean() + x_new / years
    residuals = y - y.mean() - (x - x.mean()) / years
    s = math.sqrt(residuals @ residuals / (n - 2))
    spread = math.sqrt(1 + 1 / n + x_new**2 / ((x - x.mean()) @ (x - x.mean())))
    half = t_quantile((1 + level) / 2, n - 2) * s * spread
    return tuple(float(2**z) for z in (middle - half, middle, middle + half))
    ### END SOLUTION
