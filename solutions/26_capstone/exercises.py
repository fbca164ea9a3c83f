# %% [markdown]
# # Chapter 26: The landscape, and your own LLM
#
# Seven exercises. The first six read the map: how large the published models are and what fits where, one builder
# for all of their shapes, what a closed model reveals, and how fast the whole field grows. The seventh joins everything
# that you have written in this course into one language model of your own, from raw text to a report about it.
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
from collections.abc import Callable, Sequence
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
# and token table are one matrix. With `bias`, every matrix of attention and of the feed-forward network has a bias
# vector; the router of experts never has. A layer norm holds two vectors, an rms norm one; there are two norms in a
# layer and one after the last layer. `gelu` has two matrices, `swiglu` and `geglu` have three. With `n_experts`, each
# layer has so many feed-forward networks and a router of D x `n_experts`; a token goes through `top_k` of them, and
# through all `n_shared` further ones. `window` is how many tokens attention looks back over, the current one counted.

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
    """Give the window of a layer: None if it sees everything, as every `full_every`-th does where they alternate."""
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
        "embedding": V * D * (1 if config["tied"] else 2)
        + (config["T_max"] * D if config["positions"] == "learned" else 0),
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
        All weights must be there, idle experts too. The cache holds a key and a value of each key-value head of each
        layer for each token, but a layer with a window keeps only as many tokens of a conversation as its window sees.
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
# The families differ in a handful of choices. Write the two parts in which most of the choices lie, and the builder
# that makes all of them.


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
        Four nn.Linear and no other parameters: W_q from D to H * hd, W_k and W_v from D to Hk * hd, W_o from H * hd to
        D, with biases if config["bias"]. Head h owns the features h * hd ... (h + 1) * hd - 1 of its projection, and
        query head h reads key-value head h // (H / Hk). Scores are divided by sqrt(hd). With "rope" positions, queries
        and keys are turned by `rope`; values never are.
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

        With a cache they follow the n = cache.length(layer) tokens that `layer` holds: their positions begin at n,
        their keys (already turned) and values are appended with cache.append, and they attend to all that it holds
        then, as far as the window goes. T is 1 or more.
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
        Children, and no other parameters: router, an nn.Linear(D, E, bias=False); experts and shared, nn.ModuleLists of
        E and n_shared FeedForward(config). The output is the sum over the chosen experts of weight * expert(x), plus
        the sum of all shared experts of x, each with weight 1. The weights of a token are the softmax of its top_k
        router logits, so they sum to one. An expert reads only the tokens that chose it.
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
        A new GPT(config, embedding, positions, blocks, norm, head) that has as many parameters as
        family_params(config)["total"], a tied matrix counted once.

    Example:
        >>> small = {"vocab_size": 11, "d_model": 8, "d_ff": 12, "n_layers": 2, "head_dim": 4}
        >>> model = build(FAMILIES["mixtral-8x7b"] | small)
        >>> model(torch.zeros(1, 5, dtype=torch.long)).shape, type(model.blocks[0].ffn).__name__
        (torch.Size([1, 5, 11]), 'Experts')

    Notes:
        embedding is nn.Embedding(V, D); positions is nn.Embedding(T_max, D) if they are "learned", else None; head is
        nn.Linear(D, V, bias=False), and if config["tied"] its weight is the very parameter of the embedding. The L
        blocks are Block(norm1, attention, norm2, ffn); each norm is a make_norm of its own, attention has the
        layer_window of its layer, and ffn is Experts(config) if there are experts, else FeedForward(config).
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
        1 % stands well above the rounding of bfloat16, at most 0.4 % of a number, and well below any direction
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
        return (
            whole
            * (steps[1] - steps[0])
            / 3
            * (heights[0] + heights[-1] + 4 * sum(heights[1::2]) + 2 * sum(heights[2:-1:2]))
        )

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
        (low, middle, high), in the unit of compute: the fitted line at `when`, and the prediction interval around it,
        in which one new model lies with probability `level` if logarithms scatter normally around the line.

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


# %% [markdown]
# **Given: the parts of your own model.** Each is an exercise of an earlier chapter, under the name and with the
# arguments that it has there; `PARTS` says which. What stands here are stand-ins, kept short and made of library calls
# where there are any, so that this chapter can be done by itself. Put your own in their place:
# `with_parts(dpo_loss=my_dpo_loss)`.

# %%
PARTS = {
    "train_bpe": "02_bpe.train_bpe",
    "BPETokenizer": "02_bpe.BPETokenizer",
    "GPT": "07_transformer.GPT",
    "init_weights": "07_transformer.init_weights",
    "count_parameters": "07_transformer.count_parameters",
    "cross_entropy": "08_gradients.cross_entropy",
    "get_batch": "09_training.get_batch",
    "AdamW": "09_training.AdamW",
    "lr_at": "09_training.lr_at",
    "clip_grad_norm": "09_training.clip_grad_norm",
    "accumulate": "09_training.accumulate",
    "next_token_probs": "10_sampling.next_token_probs",
    "top_p_filter": "10_sampling.top_p_filter",
    "sample": "10_sampling.sample",
    "generate": "10_sampling.generate",
    "KVCache": "11_kv_cache.KVCache",
    "attend_step": "11_kv_cache.attend_step",
    "generate_cached": "11_kv_cache.generate_cached",
    "kv_cache_bytes": "11_kv_cache.kv_cache_bytes",
    "quantize_int8": "13_fast_inference.quantize_int8",
    "train_flops": "14_scaling.train_flops",
    "render_chat": "15_fine_tuning.render_chat",
    "build_sft_example": "15_fine_tuning.build_sft_example",
    "sequence_logprob": "16_alignment.sequence_logprob",
    "dpo_loss": "16_alignment.dpo_loss",
}
"""Each part of the pipeline: the chapter it comes from, and its name there."""

_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _joined(symbols: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    out: list[bytes] = []
    skip = False
    for left, right in pairwise((*symbols, b"")):
        if not skip:
            skip = (left, right) == pair
            out.append(left + right if skip else left)
        else:
            skip = False
    return tuple(out)


def _train_bpe(text: str, vocab_size: int, special_tokens: Sequence[str]) -> tuple[dict, list]:
    for special in special_tokens:
        text = text.replace(special, "\n")
    words = Counter(tuple(bytes([b]) for b in piece.encode()) for piece in regex.findall(_PATTERN, text))
    merges: list[tuple[bytes, bytes]] = []
    for _ in range(vocab_size - 256 - len(special_tokens)):
        seen: Counter = Counter()
        for word, n in words.items():
            for pair in pairwise(word):
                seen[pair] += n
        if not seen:
            break
        merges.append(max(seen, key=lambda pair: (seen[pair], pair)))
        words = Counter({_joined(word, merges[-1]): n for word, n in words.items()})
    tokens = [bytes([i]) for i in range(256)] + [left + right for left, right in merges]
    return dict(enumerate(tokens + [special.encode() for special in special_tokens])), merges


class _Tokenizer:
    def __init__(self, vocab: dict[int, bytes], merges: Sequence, special_tokens: Sequence[str]) -> None:
        self.bytes_of, self.id_of = vocab, {token: i for i, token in vocab.items()}
        self.order, self.special, self.known = list(merges), list(special_tokens), {}

    def encode(self, text: str, allowed_special: Sequence[str] = ()) -> list[int]:
        if allowed_special:
            return [self.id_of[text.encode()]] if text in allowed_special else self.encode(text)
        return [i for piece in regex.findall(_PATTERN, text) for i in self._piece(piece)]

    def _piece(self, piece: str) -> list[int]:
        if piece not in self.known:
            symbols = tuple(bytes([b]) for b in piece.encode())
            for pair in self.order:
                symbols = _joined(symbols, pair)
            self.known[piece] = [self.id_of[symbol] for symbol in symbols]
        return self.known[piece]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.bytes_of.__getitem__, ids)).decode(errors="replace")


class _SelfAttention(nn.Module):
    def __init__(self, cfg: dict) -> None:
        super().__init__()
        D, self.hd = cfg["d_model"], cfg["d_model"] // cfg["n_heads"]
        for name, heads in (("W_q", cfg["n_heads"]), ("W_k", cfg["n_kv_heads"]), ("W_v", cfg["n_kv_heads"])):
            setattr(self, name, nn.Linear(D, heads * self.hd, bias=False))
        self.W_o = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor, cache: None = None, layer: int = 0) -> Tensor:
        def split(W: nn.Linear) -> Tensor:
            return W(x).unflatten(-1, (-1, self.hd)).transpose(1, 2)

        q, k, v = rope(split(self.W_q), 0), rope(split(self.W_k), 0), split(self.W_v)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.W_o(mixed.transpose(1, 2).flatten(2))


class _GPT(nn.Module):
    def __init__(self, cfg: dict) -> None:
        super().__init__()
        self.cfg, self.T_max = cfg, cfg["T_max"]
        self.embedding = nn.Embedding(cfg["vocab_size"], cfg["d_model"])
        self.blocks = nn.ModuleList(
            Block(make_norm(cfg), _SelfAttention(cfg), make_norm(cfg), FeedForward(cfg)) for _ in range(cfg["n_layers"])
        )
        self.norm, self.head = make_norm(cfg), nn.Linear(cfg["d_model"], cfg["vocab_size"], bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, None, 0)
        return self.head(self.norm(x))


def _init_weights(model: nn.Module, std: float = 0.02, seed: int = 0) -> None:
    rng = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim == 2:
            last = any(part in name for part in ("W_o", "down"))
            p.data = std * torch.randn(p.shape, generator=rng) / (2 * len(model.blocks)) ** (0.5 if last else 0.0)


def _count_parameters(cfg: dict) -> dict[str, int]:
    return {"total": sum(p.numel() for p in _GPT(cfg).parameters())}


def _cross_entropy(logits: np.ndarray, targets: np.ndarray, ignore_index: int = -100) -> float:
    some = (targets != ignore_index).any()
    both = torch.as_tensor(logits, dtype=torch.float64), torch.as_tensor(targets)
    return functional.cross_entropy(*both, ignore_index=ignore_index).item() if some else 0.0


def _get_batch(ids: np.ndarray, batch: int, context: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    windows = torch.from_numpy(np.asarray(ids, dtype=np.int64)).unfold(0, context + 1, 1)
    drawn = windows[torch.randint(len(windows), (batch,), generator=rng)]
    return drawn[:, :-1], drawn[:, 1:]


class _AdamW:
    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
    ) -> None:
        self.params, self.lr, self.betas, self.eps, self.weight_decay = list(params), lr, betas, eps, weight_decay
        self.means, self.squares, self.steps = None, None, 0

    @torch.no_grad()
    def step(self) -> None:
        """Update all parameters; all have gradients here."""
        grads, (b1, b2) = [p.grad for p in self.params], self.betas
        if self.means is None:
            self.means, self.squares = ([torch.zeros_like(g) for g in grads] for _ in range(2))
        self.steps += 1
        torch._foreach_lerp_(self.means, grads, 1 - b1)
        torch._foreach_lerp_(self.squares, torch._foreach_mul(grads, grads), 1 - b2)
        sizes = torch._foreach_sqrt(torch._foreach_div(self.squares, 1 - b2**self.steps))
        torch._foreach_add_(sizes, self.eps)
        torch._foreach_mul_(self.params, 1 - self.lr * self.weight_decay)
        torch._foreach_addcdiv_(self.params, self.means, sizes, -self.lr / (1 - b1**self.steps))

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for p in self.params:
            p.grad = None


def _lr_at(step: int, max_lr: float, min_lr: float, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup * max_lr
    share = min((step - warmup) / max(total - warmup, 1), 1.0)
    return max_lr * math.cos(math.pi / 2 * share) ** 2 + min_lr * math.sin(math.pi / 2 * share) ** 2


def _clip_grad_norm(grads: Sequence[Tensor | None], max_norm: float) -> float:
    there = [g for g in grads if g is not None]
    norm = torch.stack(torch._foreach_norm(there)).norm().item()
    torch._foreach_mul_(there, min(1.0, max_norm / max(norm, 1e-12)))
    return norm


def _accumulate(model: nn.Module, micro_batches: Any, loss_sum_fn: Callable[[Tensor, Tensor], Tensor]) -> float:
    losses, n = [], 0
    for p in model.parameters():
        p.grad = None
    for x, y in micro_batches:
        losses.append(loss_sum_fn(model(x), y))
        losses[-1].backward()
        n += (y >= 0).sum().item()
    torch._foreach_div_([p.grad for p in model.parameters() if p.grad is not None], n)
    return sum(loss.item() for loss in losses) / n


def _next_token_probs(logits: Tensor, temperature: float = 1.0) -> Tensor:
    return torch.softmax(logits / temperature, -1)


def _top_p_filter(logits: Tensor, p: float) -> Tensor:
    order = logits.argsort(-1, descending=True)
    mass = logits.softmax(-1).gather(-1, order)
    late = (mass.cumsum(-1) - mass >= p) & (
        torch.arange(logits.shape[-1]) > 0
    )  # what comes before has the mass already
    return logits.masked_fill(late.gather(-1, order.argsort(-1)), -math.inf)


def _sample(probs: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


def _generate(model: Any, ids: Tensor, n_new: int, sampler: Callable, eos: int | None = None, pad: int = 0) -> Tensor:
    with torch.no_grad():
        for _ in range(n_new):
            ids = torch.cat([ids, sampler(model(ids)[:, -1])[:, None]], 1)
    return ids


class _KVCache(Cache):
    def __init__(self, L: int, B: int, Hk: int, T_max: int, hd: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(L)

    length = property(lambda self: Cache.length(self))


def _attend_step(
    x: Tensor, cache: Any, weights: dict, positions: None = None, mask: None = None, layer: int = 0
) -> Tensor:
    start, T = cache.length, x.shape[1]
    q, k, v = (torch.einsum("btd,hed->bhte", x, weights[name]) for name in "qkv")
    k, v = cache.append(layer, rope(k, start), v)
    late = torch.ones(T, start + T, dtype=torch.bool).triu(start + 1)
    mixed = functional.scaled_dot_product_attention(rope(q, start), k, v, attn_mask=~late, enable_gqa=True)
    return torch.einsum("bhte,hed->btd", mixed, weights["o"])


@torch.no_grad()
def _generate_cached(model: Any, ids: Tensor, n_new: int, choose: Callable | None = None) -> Tensor:
    cache, new = model.new_cache(len(ids)), ids
    for _ in range(n_new):
        logits = model(new, cache)[:, -1]
        new = (logits.argmax(-1) if choose is None else choose(logits)[0])[:, None]  # each row continues itself
        ids = torch.cat([ids, new], 1)
    return ids


def _kv_cache_bytes(cfg: dict, batch: int, seq: int, bytes_per_el: int = 2) -> int:
    return math.prod((2, cfg["L"], cfg["Hk"], cfg["hd"], batch, seq, bytes_per_el))


def _quantize_int8(W: Tensor) -> tuple[Tensor, Tensor]:
    scale = W.abs().max(1).values.clamp(min=1e-30) / 127
    return (W / scale.unsqueeze(1)).round().to(torch.int8), scale


def _train_flops(N: float, D: float) -> float:
    return 2 * N * D + 4 * N * D  # forward and backward


def _render_chat(messages: list[dict], template: dict[str, int], add_generation_prompt: bool = False) -> list[int]:
    start, sep, end = (template[f"<|{name}|>"] for name in ("start", "sep", "end"))
    turns = [[start, *m["role"].encode(), sep, *m["content"].encode(), end] for m in messages]
    return sum(turns, []) + ([start, *b"assistant", sep] if add_generation_prompt else [])


def _build_sft_example(prompt_ids: list[int], response_ids: list[int], eos: int, max_len: int, pad: int) -> tuple:
    row = torch.tensor([*prompt_ids, *response_ids, eos])[: max_len + 1]
    ids, labels = torch.full((max_len,), pad), torch.full((max_len,), -100)
    ids[: len(row) - 1], labels[: len(row) - 1] = row[:-1], row[1:]
    labels[: len(prompt_ids) - 1] = -100
    return ids, labels


def _sequence_logprob(model: Callable[[Tensor], Tensor], ids: Tensor, labels: Tensor) -> Tensor:
    return -functional.cross_entropy(model(ids).transpose(1, 2), labels, reduction="none").sum(1)


def _dpo_loss(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return functional.softplus(beta * (pr - rr - pc + rc)).mean()


STAND_INS = {name: globals()[f"_{name}"] for name in PARTS if name != "BPETokenizer"} | {"BPETokenizer": _Tokenizer}
"""Each part, in our words; your own take their places."""


def with_parts(**yours: Callable) -> SimpleNamespace:
    """Give all parts as attributes: yours where you give one under a name of PARTS, a stand-in elsewhere."""
    if unknown := yours.keys() - PARTS.keys():
        raise ValueError(f"no parts of the pipeline: {sorted(unknown)}")
    return SimpleNamespace(**STAND_INS | yours)


# %% [markdown]
# **Given: the plan, the chats and the judges.** A corpus is a list of short texts. In a chat the user gives the first
# word of a sentence, and the assistant answers with a sentence that begins so. The judges who compare two answers like
# short ones, and sometimes err.

# %%
SPECIAL = ["<|start|>", "<|sep|>", "<|end|>"]
ROLES = ["user", "assistant"]
PLAN = {"vocab_size": 480, "T_max": 40, "d_model": 48, "n_layers": 2, "n_heads": 4, "n_kv_heads": 4, "d_ff": 128}
PLAN |= {"context": 40, "batch": 16, "steps": 200, "lr": 0.01, "weight_decay": 0.05}  # pretraining
PLAN |= {"chat_steps": 400, "chat_lr": 0.01}  # fine-tuning on chats
PLAN |= {"pairs": 240, "pair_steps": 50, "pair_lr": 0.0005, "beta": 1.0}  # preferences
PLAN |= {"top_p": 0.9, "chats": 20, "answers": 4, "new": 30}  # chats, answers to each, and tokens of an answer
"""Sizes and settings of a run; `PLAN | {"steps": 50}` is a shorter one."""


def model_config(plan: dict, tokenizer: Any) -> dict:
    """Give the configuration of the model, with the keys of chapter 7; <|end|> has the last id of the vocabulary."""
    sizes = ("T_max", "d_model", "n_layers", "n_heads", "n_kv_heads", "d_ff")
    kind = {"positions": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "tied": True}
    return {name: plan[name] for name in sizes} | kind | {"vocab_size": end_id(tokenizer) + 1}


def end_id(tokenizer: Any) -> int:
    """Give the id of <|end|>, which stands behind every document and every answer."""
    return tokenizer.encode("<|end|>", allowed_special={"<|end|>"})[0]


def prompt_ids(word: str, tokenizer: Any, parts: SimpleNamespace) -> list[int]:
    """Give the ids of a chat in which the user says a word and the assistant is about to answer."""
    template = {name: tokenizer.encode(name, allowed_special={name})[0] for name in SPECIAL}
    rendered = parts.render_chat([{"role": "user", "content": word}], template, add_generation_prompt=True)
    ids, run = [], bytearray()
    for i in rendered:  # control tokens stay, and each run of bytes becomes tokens of text
        if i < 256:
            run.append(i)
        else:
            ids += [*tokenizer.encode(run.decode()), i]
            run.clear()
    return ids + tokenizer.encode(run.decode())


def first_word(document: str) -> str:
    """Give what stands before the first blank."""
    return document.split()[0]


def make_pairs(documents: Sequence[str], n: int, seed: int) -> list[tuple[str, str]]:
    """Draw n pairs (chosen, rejected) of documents of unequal length that begin with the same word."""
    random = np.random.RandomState(seed)
    alike: dict[str, list[str]] = {}
    for document in documents:
        alike.setdefault(first_word(document), []).append(document)
    pairs: list[tuple[str, str]] = []
    while len(pairs) < n:
        same = alike[first_word(documents[random.randint(len(documents))])]
        a, b = same[random.randint(len(same))], same[random.randint(len(same))]
        longer = len(a.split()) - len(b.split())
        if longer:
            likes_a = random.random_sample() < 1 / (1 + math.exp(longer))  # Bradley and Terry's coin: utility is -words
            pairs.append((a, b) if likes_a else (b, a))
    return pairs


def chat_rows(documents: Sequence[str], tokenizer: Any, parts: SimpleNamespace, plan: dict) -> tuple[Tensor, Tensor]:
    """Give ids and labels, (n, T_max) each, of the chats in which the assistant answers with these documents."""
    end = end_id(tokenizer)
    rows = []
    for document in documents:
        prompt, answer = prompt_ids(first_word(document), tokenizer, parts), tokenizer.encode(document)
        rows.append(parts.build_sft_example(prompt, answer, end, plan["T_max"], end))
    ids, labels = (torch.stack(column) for column in zip(*rows, strict=True))
    return ids, labels


class Cached:
    """A GPT behind the interface of chapter 11: lm.new_cache(B), and lm(ids, cache) gives the logits of the new ids."""

    def __init__(self, model: nn.Module, cfg: dict, parts: SimpleNamespace) -> None:
        self.model, self.parts, hd = model, parts, cfg["d_model"] // cfg["n_heads"]
        self.sizes = cfg["n_kv_heads"], cfg["T_max"], hd
        self.weights = [
            {name: getattr(block.attention, f"W_{name}").weight.unflatten(0, (-1, hd)) for name in "qkv"}
            | {"o": block.attention.W_o.weight.T.unflatten(0, (-1, hd))}
            for block in model.blocks
        ]

    def new_cache(self, B: int) -> Any:
        """Give an empty cache for B rows."""
        return self.parts.KVCache(len(self.weights), B, *self.sizes)

    @torch.no_grad()
    def __call__(self, ids: Tensor, cache: Any) -> Tensor:
        x = self.model.embedding(ids)
        for layer, block in enumerate(self.model.blocks):
            x = x + self.parts.attend_step(block.norm1(x), cache, self.weights[layer], layer=layer)
            x = x + block.ffn(block.norm2(x))
        return self.model.head(self.model.norm(x))


def loss_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum the cross-entropies of the targets that are not -100."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), reduction="sum", ignore_index=-100)


def in_form(answers: Sequence[tuple[str, str | None]]) -> float:
    """Give the share of answers that ended, begin with their word, and close with a full stop."""
    return sum(a is not None and a.startswith(f"{w} ") and a.endswith(" .") for w, a in answers) / len(answers)


def mean_words(answers: Sequence[tuple[str, str | None]]) -> float:
    """Give the mean number of words of the answers that ended; 0 if none did."""
    lengths = [len(a.split()) for _, a in answers if a is not None]
    return sum(lengths) / max(len(lengths), 1)


def digest(model: nn.Module, answers: Sequence[tuple[str, str | None]]) -> str:
    """Give a digest of all weights and answers: whoever repeats the run must get the same."""
    weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    return hashlib.sha256(weights + repr(answers).encode()).hexdigest()


def whereabouts(part: Callable) -> str:
    """Say where a part comes from and which text it had, as folder/file:digest."""
    functions = [f for f in vars(part).values() if inspect.isfunction(f)] if inspect.isclass(part) else [part]
    functions = [inspect.unwrap(f) for f in functions]  # what a decorator wraps, not the decorator's own file
    try:
        file, text = functions[0].__code__.co_filename, "".join(map(inspect.getsource, functions))
    except (AttributeError, IndexError, OSError, TypeError):
        file, text = "?", getattr(part, "__qualname__", repr(part))
    place = "/".join(file.replace(chr(92), "/").split("/")[-2:])
    return f"{place}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# %% [markdown]
# ## 26.7 pipeline
#
# Eleven short functions, one after another: text becomes ids, ids a model, the model an assistant, the assistant one
# with a taste, and that one bytes; then everything is measured. `parts` is what `with_parts` gives, and each part is
# called as in its own chapter: `parts.train_bpe(...)`. Wherever parts do a thing, they must be the ones to do it.


# %%
def pack(corpus: Sequence[str], parts: SimpleNamespace, plan: dict) -> tuple[Any, np.ndarray, list[str], list[str]]:
    """Hold out a tenth of the corpus, learn a tokenizer from the rest, and write that rest as one row of ids.

    Args:
        corpus: n documents, at least 10.
        parts, plan: train_bpe and BPETokenizer; "vocab_size".

    Returns:
        (tokenizer, ids, train, held_out): train is the list of the first int(0.9 n) documents and held_out that of the
        others; ids (N,), an integer array, holds the ids of each training document in order, each followed by the id
        of <|end|>.

    Notes:
        The special tokens are SPECIAL. The tokenizer learns from the training documents and the ROLES, all joined by
        "<|end|>", so that no pair crosses a border; what is held out it never sees. A document that spells "<|end|>" is
        ordinary text there.
    """
    ### BEGIN SOLUTION
    cut = int(0.9 * len(corpus))
    train, held_out = list(corpus[:cut]), list(corpus[cut:])
    vocab, merges = parts.train_bpe("<|end|>".join([*train, *ROLES]), plan["vocab_size"], SPECIAL)
    tokenizer = parts.BPETokenizer(vocab, merges, SPECIAL)
    end = end_id(tokenizer)
    ids = np.array([i for document in train for i in [*tokenizer.encode(document), end]])
    return tokenizer, ids, train, held_out
    ### END SOLUTION


# %%
def fit(
    model: nn.Module,
    gradients: Callable[[], float],
    steps: int,
    lr: float,
    parts: SimpleNamespace,
    weight_decay: float = 0.0,
) -> list[float]:
    """Train a model: the loop that every stage below shares.

    Args:
        model: all its parameters are trained, in place.
        gradients: leaves the gradients of a new batch in the parameters and gives its loss; called once a step.
        steps: number of updates.
        lr: the highest rate.
        parts: AdamW, lr_at and clip_grad_norm.
        weight_decay: for AdamW.

    Returns:
        The losses, one for each step, as gradients() gave them.

    Notes:
        In step t = 0, 1, ... the optimizer's lr is lr_at(t, lr, lr / 10, steps // 10, steps). Between gradients() and
        the update, all gradients together are clipped to the length 1.
    """
    ### BEGIN SOLUTION
    optimizer = parts.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    losses = []
    for t in range(steps):
        optimizer.lr = parts.lr_at(t, lr, lr / 10, steps // 10, steps)
        losses.append(gradients())
        parts.clip_grad_norm([p.grad for p in model.parameters()], 1.0)
        optimizer.step()
    return losses
    ### END SOLUTION


# %%
def pretrain(ids: np.ndarray, tokenizer: Any, parts: SimpleNamespace, plan: dict, seed: int) -> nn.Module:
    """Make a GPT and train it to predict the next id.

    Args:
        ids: (N,) integer array.
        tokenizer: gives the size of the vocabulary, through model_config.
        parts, plan: GPT, init_weights, get_batch, accumulate, those of fit; "steps", "lr", "weight_decay", "batch"
            and "context".
        seed: of init_weights (with std 0.05) and of the torch.Generator from which all batches are drawn.

    Returns:
        The trained model, of model_config(plan, tokenizer).

    Notes:
        One get_batch of plan["batch"] windows of plan["context"] ids a step, and one accumulate with that single batch
        and loss_sum; `fit` does the rest, with the plan's "lr" and "weight_decay".
    """
    ### BEGIN SOLUTION
    model = parts.GPT(model_config(plan, tokenizer))
    parts.init_weights(model, std=0.05, seed=seed)
    rng = torch.Generator().manual_seed(seed)

    def gradients() -> float:
        batch = parts.get_batch(ids, plan["batch"], plan["context"], rng)
        return parts.accumulate(model, [batch], loss_sum)

    fit(model, gradients, plan["steps"], plan["lr"], parts, plan["weight_decay"])
    return model
    ### END SOLUTION


# %%
@torch.no_grad()
def bits_per_byte(
    model: Callable[[Tensor], Tensor], documents: Sequence[str], tokenizer: Any, parts: SimpleNamespace, plan: dict
) -> float:
    """Measure how many bits a model needs for each byte of some documents.

    Args:
        model: ids (B, T) -> logits (B, T, V), T <= plan["T_max"].
        documents: at least one, none empty.
        parts: cross_entropy.

    Returns:
        The bits for all tokens of all documents, over the bytes of all documents in UTF-8.

    Notes:
        A document is read as <|end|>, its ids, <|end|>: each of its ids and the last <|end|> is predicted, exactly
        once, from what stands before it in the document. A document with more predictions than T_max is cut into
        stretches of T_max predictions, the last one shorter, each read by itself; its first input is the id before the
        stretch. The <|end|> costs bits but has no bytes. Rows may be padded at the right, as the model is causal.
    """
    ### BEGIN SOLUTION
    end, T_max, rows = end_id(tokenizer), plan["T_max"], []
    for document in documents:
        tokens = [end, *tokenizer.encode(document), end]
        rows += [tokens[s : s + T_max + 1] for s in range(0, len(tokens) - 1, T_max)]
    nats = 0.0
    for some in (rows[start : start + 64] for start in range(0, len(rows), 64)):
        T = max(map(len, some)) - 1
        ids = torch.tensor([row[:-1] + [end] * (T + 1 - len(row)) for row in some])  # (B, T)
        labels = np.array([row[1:] + [-100] * (T + 1 - len(row)) for row in some])
        mean = parts.cross_entropy(model(ids).flatten(0, 1).numpy(), labels.ravel())
        nats += mean * (labels != -100).sum()
    return float(nats / math.log(2) / sum(len(document.encode()) for document in documents))
    ### END SOLUTION


# %%
def fine_tune(
    model: nn.Module, documents: Sequence[str], tokenizer: Any, parts: SimpleNamespace, plan: dict, seed: int
) -> nn.Module:
    """Teach a copy of a model to answer chats.

    Args:
        model: it is not changed.
        documents: the answers; chat_rows puts their chats before them.
        parts, plan: those of chat_rows and fit, and accumulate; "chat_steps", "chat_lr", "batch".
        seed: of the torch.Generator from which all batches are drawn.

    Returns:
        The trained copy.

    Notes:
        Each step draws plan["batch"] rows, each with equal chances, by torch.randint(n, (batch,), generator=rng), and
        calls accumulate with that single batch and loss_sum. There is no weight decay.
    """
    ### BEGIN SOLUTION
    tuned, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    ids, labels = chat_rows(documents, tokenizer, parts, plan)

    def gradients() -> float:
        i = torch.randint(len(ids), (plan["batch"],), generator=rng)
        return parts.accumulate(tuned, [(ids[i], labels[i])], loss_sum)

    fit(tuned, gradients, plan["chat_steps"], plan["chat_lr"], parts)
    return tuned
    ### END SOLUTION


# %%
def prefer(
    model: nn.Module, pairs: Sequence[tuple[str, str]], tokenizer: Any, parts: SimpleNamespace, plan: dict, seed: int
) -> nn.Module:
    """Teach a copy of a model, by DPO, which of two answers is liked better.

    Args:
        model: the reference; it is not changed.
        pairs: (chosen, rejected) documents, both with the same first word.
        parts, plan: those of chat_rows and fit, sequence_logprob and dpo_loss; "pair_steps", "pair_lr", "beta" and
            "batch".
        seed: of the torch.Generator from which all batches are drawn.

    Returns:
        The trained copy, the policy.

    Notes:
        Each step draws plan["batch"] pairs by torch.randint(n, (batch,), generator=rng); their dpo_loss, with the
        log-probabilities of chosen and rejected under policy and reference, is what is descended. Gradients of one step
        never add to those of another, and none reach the reference. There is no weight decay.
    """
    ### BEGIN SOLUTION
    policy, rng = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    chosen, rejected = (chat_rows(side, tokenizer, parts, plan) for side in zip(*pairs, strict=True))
    with torch.no_grad():  # the reference stays what it is, so once is enough
        rc, rr = (parts.sequence_logprob(model, *rows) for rows in (chosen, rejected))  # (n,) each

    def gradients() -> float:
        i = torch.randint(len(pairs), (plan["batch"],), generator=rng)
        pc, pr = (parts.sequence_logprob(policy, ids[i], labels[i]) for ids, labels in (chosen, rejected))
        loss = parts.dpo_loss(pc, pr, rc[i], rr[i], plan["beta"])
        policy.zero_grad()
        loss.backward()
        return loss.item()

    fit(policy, gradients, plan["pair_steps"], plan["pair_lr"], parts)
    return policy
    ### END SOLUTION


# %%
@torch.no_grad()
def win_rate(
    policy: Callable[[Tensor], Tensor],
    model: Callable[[Tensor], Tensor],
    pairs: Sequence[tuple[str, str]],
    tokenizer: Any,
    parts: SimpleNamespace,
    plan: dict,
) -> float:
    """Give the share of pairs of which the policy has come to like the chosen answer better.

    Args:
        policy, model: ids (B, T) -> logits (B, T, V); model is what the policy was before.
        pairs: (chosen, rejected) documents, both with the same first word.
        parts: those of chat_rows, and sequence_logprob.

    Returns:
        The share of pairs whose chosen answer gained strictly more log-probability, from model to policy, than the
        rejected one.
    """
    ### BEGIN SOLUTION
    gains = []
    for side in zip(*pairs, strict=True):
        rows = chat_rows(side, tokenizer, parts, plan)
        gains.append(parts.sequence_logprob(policy, *rows) - parts.sequence_logprob(model, *rows))  # (n,)
    return (gains[0] > gains[1]).double().mean().item()
    ### END SOLUTION


# %%
@torch.no_grad()
def to_int8(model: nn.Module, parts: SimpleNamespace) -> tuple[nn.Module, float]:
    """Round a copy of a model to what its weights are in int8.

    Args:
        model: it is not changed; tied matrices stay tied in the copy.
        parts: quantize_int8, called once for each parameter with two axes; other parameters stay as they are.

    Returns:
        (copy, error): each matrix W of the copy holds q * scale, row by row; error is the largest change of any weight,
        as a share of the largest magnitude in its row of W, over all rows that are not zero.
    """
    ### BEGIN SOLUTION
    small, error = copy.deepcopy(model), 0.0
    for W in small.parameters():  # a tied matrix comes once
        if W.ndim == 2:
            q, scale = parts.quantize_int8(W.detach())
            restored = q * scale[:, None]
            largest = W.abs().amax(dim=1).clamp(min=1e-30)  # (out,)
            error = max(error, ((restored - W).abs().amax(dim=1) / largest).max().item())
            W.copy_(restored)
    return small, error
    ### END SOLUTION


# %%
def answers(
    model: nn.Module, words: Sequence[str], tokenizer: Any, parts: SimpleNamespace, plan: dict, seed: int
) -> list[tuple[str, str | None]]:
    """Let a model answer chats, several times each.

    Args:
        model: a GPT with the names of chapter 7.
        words: what the user says, one chat each.
        parts: those of Cached and prompt_ids, generate_cached, top_p_filter, next_token_probs, sample.
        plan: "answers" to each chat, "new" tokens each, "top_p"; and the sizes of the model.
        seed: of the one torch.Generator from which all is drawn.

    Returns:
        Pairs (word, answer), plan["answers"] of them for each word, in the order of words. The answer is the text
        before the first new <|end|>, or None if there is no <|end|> among the new tokens.

    Notes:
        One generate_cached for each word, with all its answers as rows of the batch; its choose gives the tokens and,
        as each row continues itself, arange(rows). A token is drawn by sample from next_token_probs, at temperature 1,
        of what top_p_filter leaves of the logits.
    """
    ### BEGIN SOLUTION
    lm, end = Cached(model, model_config(plan, tokenizer), parts), end_id(tokenizer)
    rng = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor) -> tuple[Tensor, Tensor]:
        probs = parts.next_token_probs(parts.top_p_filter(logits, plan["top_p"]))  # (B, V)
        return parts.sample(probs, rng), torch.arange(len(logits))

    found = []
    for word in words:
        prompt = prompt_ids(word, tokenizer, parts)
        ids = torch.tensor([prompt] * plan["answers"])
        for row in parts.generate_cached(lm, ids, plan["new"], choose).tolist():
            new = row[len(prompt) :]
            found.append((word, tokenizer.decode(new[: new.index(end)]) if end in new else None))
    return found
    ### END SOLUTION


# %%
@torch.no_grad()
def check_cache(model: nn.Module, word: str, tokenizer: Any, parts: SimpleNamespace, plan: dict) -> tuple[bool, float]:
    """Compare a model with itself behind a cache.

    Args:
        model: a GPT with the names of chapter 7.
        word: what the user says.
        parts, plan: those of Cached and prompt_ids, generate, generate_cached; "new".

    Returns:
        (same, gap): does generate, with the most likely token each time, give the very ids of generate_cached, for
        plan["new"] new tokens? And the largest difference, over all positions of generate's row and all tokens, between
        the logits of the model and those of Cached, which reads the prompt first and then the others one by one.
    """
    ### BEGIN SOLUTION
    lm = Cached(model, model_config(plan, tokenizer), parts)
    prompt = torch.tensor([prompt_ids(word, tokenizer, parts)])  # (1, P)
    plain = parts.generate(model, prompt, plan["new"], lambda logits: logits.argmax(-1))
    same = torch.equal(plain, parts.generate_cached(lm, prompt, plan["new"]))
    cache, P = lm.new_cache(1), prompt.shape[1]
    pieces = [prompt, *plain[:, P:].split(1, dim=1)]
    cached = torch.cat([lm(piece, cache) for piece in pieces], dim=1)  # (1, P + new, V)
    return same, (model(plain) - cached).abs().max().item()
    ### END SOLUTION


# %%
def pipeline(
    corpus: Sequence[str], seed: int, parts: SimpleNamespace | None = None, plan: dict = PLAN
) -> dict[str, Any]:
    """Make a language model of a corpus, from the text to an assistant in int8, and report on it.

    Args:
        corpus: n documents, at least 10.
        seed: of every stage. parts: None means with_parts(). plan: a dict as PLAN.

    Returns:
        dict: "params" (count_parameters' total of the model), "tokens" (read in pretraining), "flops" (train_flops),
        "kv_bytes" (of one conversation of T_max tokens, 4 bytes a number); "train_bpb" and "held_out_bpb",
        bits_per_byte of the pretrained model on the first training documents, as many as were held out, and on the
        held-out ones; "in_form" and "words", pairs: in_form and mean_words of the answers of the fine-tuned model and
        of those of the int8 model; "win_rate" of policy over fine-tuned model on 100 pairs of held-out documents;
        "int8_increase", bits_per_byte of the held-out documents under the int8 model over that under the policy, less
        1; "int8_error"; "same" and "cache_gap", from check_cache of the int8 model; "answers" of the int8 model;
        "parts", {name: whereabouts} of all PARTS; "hash", the digest of the int8 model and its answers.

    Notes:
        Order: pack, pretrain, fine_tune on the training documents, prefer on make_pairs(train, plan["pairs"], seed),
        to_int8. words are those that the first plan["chats"] held-out documents begin with; check_cache takes the
        first. The held-out pairs are make_pairs(held_out, 100, seed). Nothing but the arguments decides the report.
    """
    ### BEGIN SOLUTION
    parts = with_parts() if parts is None else parts
    tokenizer, ids, train, held_out = pack(corpus, parts, plan)
    cfg, use = model_config(plan, tokenizer), (tokenizer, parts, plan)
    base = pretrain(ids, *use, seed)
    tuned = fine_tune(base, train, *use, seed)
    policy = prefer(tuned, make_pairs(train, plan["pairs"], seed), *use, seed)
    small, int8_error = to_int8(policy, parts)
    words = [first_word(document) for document in held_out[: plan["chats"]]]
    before, after = (answers(model, words, *use, seed) for model in (tuned, small))
    same, gap = check_cache(small, words[0], *use)
    n, tokens = parts.count_parameters(cfg)["total"], plan["steps"] * plan["batch"] * plan["context"]
    sizes = {"L": plan["n_layers"], "Hk": plan["n_kv_heads"], "hd": plan["d_model"] // plan["n_heads"], "window": None}
    report = {"params": n, "tokens": tokens, "flops": parts.train_flops(n, tokens)}
    report |= {"kv_bytes": parts.kv_cache_bytes(sizes, 1, plan["T_max"], 4)}
    report |= {"train_bpb": bits_per_byte(base, train[: len(held_out)], *use)}
    report |= {"held_out_bpb": bits_per_byte(base, held_out, *use)}
    report |= {"win_rate": win_rate(policy, tuned, make_pairs(held_out, 100, seed), *use)}
    report |= {"in_form": (in_form(before), in_form(after)), "words": (mean_words(before), mean_words(after))}
    increase = bits_per_byte(small, held_out, *use) / bits_per_byte(policy, held_out, *use) - 1
    report |= {"int8_increase": increase, "int8_error": int8_error, "same": same, "cache_gap": gap}
    where = {name: whereabouts(getattr(parts, name)) for name in PARTS}
    return report | {"answers": after, "parts": where, "hash": digest(small, after)}
    ### END SOLUTION
