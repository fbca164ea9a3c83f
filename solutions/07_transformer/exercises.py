# %% [markdown]
# # Chapter 7: The block and the whole model
#
# Eight exercises. By the end you have written every part of a language model but its attention, put the parts together,
# counted its parameters and given it a sound start. The teaching is in the notes (`README.md`); here stand only the
# promises that each function must keep.
#
# Axes are named B batch, T tokens, D model width, F width inside the feed-forward network, V vocabulary, L layers,
# H heads, Hk key-value heads, hd width of a head. In a boolean mask **True means "may attend"**.

# %%
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

# %% [markdown]
# **Given: the configuration.** A model is described by a plain dict, here for two published ones. Some entries are
# words: `positions` is "learned" (a table of T_max vectors, added to the tokens) or "rope" (queries and keys are
# rotated, no parameters); `norm` is "layer" or "rms"; `ffn` is "gelu" or "swiglu". `bias` says whether the linear
# layers of the attention and of a "gelu" network have biases; a "swiglu" network never has, a layer norm always has.
# `tied` says whether the head shares the embedding's weight.

# %%
GPT2 = {
    "vocab_size": 50257,
    "T_max": 1024,
    "d_model": 768,
    "n_layers": 12,
    "n_heads": 12,
    "n_kv_heads": 12,
    "d_ff": 3072,
    "positions": "learned",
    "norm": "layer",
    "ffn": "gelu",
    "bias": True,
    "tied": True,
}
LLAMA2_7B = {
    "vocab_size": 32000,
    "T_max": 4096,
    "d_model": 4096,
    "n_layers": 32,
    "n_heads": 32,
    "n_kv_heads": 32,
    "d_ff": 11008,
    "positions": "rope",
    "norm": "rms",
    "ffn": "swiglu",
    "bias": False,
    "tied": False,
}

# %% [markdown]
# ## 7.1 layer_norm
#
# Give each token's vector mean 0 and variance 1, then let the model choose scale and shift again.


# %%
def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each vector along the last axis to mean 0 and variance 1, then scale by gamma and shift by beta.

    Args:
        x: (..., D), float32 or float64, any number of leading axes, also none.
        gamma: (D,) scale, dtype of x.
        beta: (D,) shift, dtype of x.
        eps: added to the variance, under the square root.

    Returns:
        A new tensor with the shape and dtype of x: gamma * (x - mean) / sqrt(variance + eps) + beta.

    Example:
        >>> layer_norm(torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.ones(4), torch.zeros(4))
        tensor([-1.3416, -0.4472,  0.4472,  1.3416])

    Notes:
        The variance is the mean squared deviation: divided by D, not by D - 1. Each vector is normalised by itself. A
        vector of equal entries gives beta. A common offset far larger than the spread (entries near 10 000 that differ
        by about 1, in float32) must not spoil the variance: subtract the mean before you square. No input is changed.
    """
    ### BEGIN SOLUTION
    mean = x.mean(dim=-1, keepdim=True)  # (..., 1)
    centred = x - mean
    variance = centred.square().mean(dim=-1, keepdim=True)  # (..., 1), of what is already centred: no cancellation
    return gamma * centred / torch.sqrt(variance + eps) + beta
    ### END SOLUTION


# %% [markdown]
# ## 7.2 rms_norm
#
# The same without the mean and without the shift. It is what Llama and most open models after it use.


# %%
def rms_norm(x: Tensor, gamma: Tensor, eps: float = 1e-6) -> Tensor:
    """Divide each vector along the last axis by its root mean square, then scale by gamma.

    Args:
        x: (..., D), float16, bfloat16, float32 or float64.
        gamma: (D,) scale, dtype of x.
        eps: added to the mean square, under the square root.

    Returns:
        A new tensor with the shape and dtype of x: gamma * x / sqrt(mean of x^2 + eps).

    Example:
        >>> rms_norm(torch.tensor([3.0, -4.0, 0.0, 0.0]), torch.ones(4))
        tensor([ 1.2000, -1.6000,  0.0000,  0.0000])

    Notes:
        Half precision is computed in float32 and only the result is cast back: the square of 300 is infinity in
        float16, the square of 0.0001 is zero. float64 stays float64. Nothing is centred. A vector of zeros gives
        zeros. No input is changed.
    """
    ### BEGIN SOLUTION
    wide = x if x.dtype == torch.float64 else x.float()
    mean_square = wide.square().mean(dim=-1, keepdim=True)  # (..., 1)
    return (gamma * wide / torch.sqrt(mean_square + eps)).to(x.dtype)
    ### END SOLUTION


# %% [markdown]
# ## 7.3 gelu_tanh, FeedForward
#
# A smooth switch, and the network built on it: wider, switched, narrow again, for each token alone.


# %%
def gelu_tanh(x: Tensor) -> Tensor:
    """Apply the tanh form of GELU to every entry: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).

    Args:
        x: floating, any shape.

    Returns:
        A new tensor with the shape and dtype of x.

    Example:
        >>> gelu_tanh(torch.tensor([-1.0, 0.0, 1.0]))
        tensor([-0.1588,  0.0000,  0.8412])

    Notes:
        This is the form that GPT-2 was trained with. It differs from the exact GELU, x times the normal distribution
        function, by up to 0.0005, and the tests tell the two apart. Entries of size 1000 give finite results.
        Use torch operations throughout, so that gradients pass through it. x is not changed.
    """
    ### BEGIN SOLUTION
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + torch.tanh(inner))
    ### END SOLUTION


# %%
class FeedForward(nn.Module):
    """Process each token by itself: widen it to F, apply gelu_tanh, and come back to D.

    Args:
        D: model width.
        F: inner width; None means 4 D.
        bias: whether both linear layers have biases.

    Example:
        >>> FeedForward(6)(torch.zeros(2, 5, 6)).shape, FeedForward(6).up.weight.shape
        (torch.Size([2, 5, 6]), torch.Size([24, 6]))

    Notes:
        The module's only parameters are those of up, an nn.Linear(D, F), and of down, an nn.Linear(F, D). There is no
        dropout, even in training mode. Gradients reach x and all parameters.
    """

    def __init__(self, D: int, F: int | None = None, bias: bool = True) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        F = 4 * D if F is None else F
        self.up = nn.Linear(D, F, bias=bias)
        self.down = nn.Linear(F, D, bias=bias)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., D) to down(gelu_tanh(up(x))), (..., D)."""
        ### BEGIN SOLUTION
        return self.down(gelu_tanh(self.up(x)))  # (..., D) (..., F) (..., D)
        ### END SOLUTION


# %% [markdown]
# ## 7.4 swiglu, swiglu_hidden
#
# Two projections instead of one: the first decides how far the second passes.


# %%
def swiglu(x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor) -> Tensor:
    """Compute the gated feed-forward network w2 (silu(w1 x) * (w3 x)) for every vector along the last axis.

    Args:
        x: (..., D), floating.
        w1: (F, D), the gate, dtype of x.
        w2: (D, F), the way back, dtype of x.
        w3: (F, D), the value, dtype of x.

    Returns:
        (..., D), dtype of x.

    Example:
        >>> x, one, three = torch.tensor([1.0]), torch.tensor([[1.0]]), torch.tensor([[3.0]])
        >>> swiglu(x, w1=one, w2=one, w3=three)
        tensor([2.1932])

    Notes:
        silu(a) = a * sigmoid(a), entry by entry. Only the gate goes through it; the value stays linear. There are no
        biases. Gates of size 1000 give finite results. No input is changed.
    """
    ### BEGIN SOLUTION
    a = x @ w1.T  # (..., F)
    gate = a * torch.sigmoid(a)
    value = x @ w3.T  # (..., F)
    return (gate * value) @ w2.T  # (..., D)
    ### END SOLUTION


# %%
def swiglu_hidden(D: int, multiple_of: int) -> int:
    """Choose the inner width F at which three matrices hold about as many numbers as two of inner width 4 D.

    Args:
        D: model width, at least 1.
        multiple_of: F must be a multiple of this, at least 1.

    Returns:
        The smallest multiple of multiple_of that is not less than 8 D / 3, as an int.

    Example:
        >>> swiglu_hidden(4096, 256), swiglu_hidden(6, 8), swiglu_hidden(4, 1)
        (11008, 16, 11)
    """
    ### BEGIN SOLUTION
    pieces = -(-8 * D // (3 * multiple_of))  # the ceiling of 8 D / (3 m), in whole numbers
    return pieces * multiple_of
    ### END SOLUTION


# %% [markdown]
# **Given: your functions as modules, and attention.** `make_norm` and `make_ffn` choose by the configuration, so that
# one block can be GPT-2's or Llama's. Attention you wrote in chapter 6; this one also shares key-value heads, rotates
# queries and keys if asked, and, without a mask, lets every token see every token.


# %%
class LayerNorm(nn.Module):
    """Your layer_norm with its two parameters."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(D))
        self.beta = nn.Parameter(torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.gamma, self.beta)


class RMSNorm(nn.Module):
    """Your rms_norm with its parameter."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.gamma)


class SwiGLU(nn.Module):
    """Your swiglu with its three matrices: gate is w1, down is w2, up is w3."""

    def __init__(self, D: int, F: int) -> None:
        super().__init__()
        self.gate = nn.Linear(D, F, bias=False)
        self.up = nn.Linear(D, F, bias=False)
        self.down = nn.Linear(F, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return swiglu(x, self.gate.weight, self.down.weight, self.up.weight)


def make_norm(cfg: dict) -> nn.Module:
    """Give a new norm of the kind that cfg names."""
    return {"layer": LayerNorm, "rms": RMSNorm}[cfg["norm"]](cfg["d_model"])


def make_ffn(cfg: dict) -> nn.Module:
    """Give a new feed-forward network of the kind that cfg names."""
    if cfg["ffn"] == "swiglu":
        return SwiGLU(cfg["d_model"], cfg["d_ff"])
    return FeedForward(cfg["d_model"], cfg["d_ff"], cfg["bias"])


def apply_rope(x: Tensor, base: float = 10000.0) -> Tensor:
    """Rotate x (B, H, T, hd) by its positions 0 ... T-1; entry i pairs with entry i + hd/2 (chapter 5)."""
    T, half = x.shape[-2], x.shape[-1] // 2
    freqs = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(T)[:, None] * freqs  # (T, half)
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Self-attention with n_heads query heads over n_kv_heads key-value heads."""

    def __init__(self, cfg: dict) -> None:
        super().__init__()
        D, H, Hk, bias = cfg["d_model"], cfg["n_heads"], cfg["n_kv_heads"], cfg["bias"]
        self.hd, self.rope = D // H, cfg["positions"] == "rope"
        self.W_q = nn.Linear(D, H * self.hd, bias=bias)
        self.W_k = nn.Linear(D, Hk * self.hd, bias=bias)
        self.W_v = nn.Linear(D, Hk * self.hd, bias=bias)
        self.W_o = nn.Linear(H * self.hd, D, bias=bias)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (B, T, D) to (B, T, D); mask is bool, True = may attend, broadcastable to (B, H, T, T)."""
        q, k, v = (W(x).unflatten(-1, (-1, self.hd)).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        if self.rope:
            q, k = apply_rope(q), apply_rope(k)  # (B, H, T, hd), (B, Hk, T, hd)
        heads = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return self.W_o(heads.transpose(1, 2).flatten(2))


# %% [markdown]
# ## 7.5 TransformerBlock
#
# Two branches beside a stream that is only ever added to: attention moves information between tokens, the feed-forward
# network works on each.


# %%
class TransformerBlock(nn.Module):
    """Add to x what attention finds, and then what the feed-forward network makes of it (pre-norm).

    Args:
        cfg: a configuration as given above; it is not changed.

    Example:
        >>> cfg = GPT2 | {"d_model": 12, "n_heads": 3, "n_kv_heads": 3, "d_ff": 48}
        >>> TransformerBlock(cfg)(torch.zeros(2, 5, 12)).shape
        torch.Size([2, 5, 12])

    Notes:
        The module has exactly four children: norm1 and norm2, each its own make_norm(cfg), attention, an
        Attention(cfg), and ffn, a make_ffn(cfg). Each branch reads the normalised stream and its output is added to the
        stream itself, which is never normalised: h = x + attention(norm1(x)), and the result is h + ffn(norm2(h)).
        There is no dropout. Gradients reach x and all parameters, so
        your norms and networks must be made of torch operations too.
    """

    def __init__(self, cfg: dict) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.norm1 = make_norm(cfg)
        self.attention = Attention(cfg)
        self.norm2 = make_norm(cfg)
        self.ffn = make_ffn(cfg)
        ### END SOLUTION

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (B, T, D) to (B, T, D); x itself is not changed.

        mask is handed to the attention: bool, True = may attend, broadcastable to (B, H, T, T); None hides nothing.
        """
        ### BEGIN SOLUTION
        x = x + self.attention(self.norm1(x), mask)  # a new tensor: += would write into the caller's
        return x + self.ffn(self.norm2(x))
        ### END SOLUTION


# %% [markdown]
# ## 7.6 GPT
#
# Ids in, one row of logits for every position out, all in a single pass.


# %%
class GPT(nn.Module):
    """Give, for every position of every sequence, the logits of the token that comes next.

    Args:
        cfg: a configuration as given above; kept as the attribute cfg and not changed.

    Example:
        >>> cfg = GPT2 | {"vocab_size": 17, "T_max": 9, "d_model": 12, "n_layers": 2, "n_heads": 3, "n_kv_heads": 3}
        >>> GPT(cfg)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 17])

    Notes:
        Children: embedding, an nn.Embedding(V, D); positions, an nn.Embedding(T_max, D), if cfg["positions"] is
        "learned" (otherwise there are no parameters of that name); blocks, an nn.ModuleList of L TransformerBlock(cfg);
        norm, a make_norm(cfg) after the last block; head, an nn.Linear(D, V, bias=False). If cfg["tied"] is true,
        head.weight and embedding.weight are one and the same nn.Parameter. There are no other parameters.
        Token vectors, plus learned position vectors, are the stream; nothing is scaled and there is no dropout.
        The model is causal: what follows a position has no influence on its logits, and no token passes through a block
        more than once in a call. Gradients reach all parameters.
    """

    def __init__(self, cfg: dict) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.cfg = cfg
        V, D = cfg["vocab_size"], cfg["d_model"]
        self.embedding = nn.Embedding(V, D)
        self.positions = nn.Embedding(cfg["T_max"], D) if cfg["positions"] == "learned" else None
        self.blocks = nn.ModuleList(TransformerBlock(cfg) for _ in range(cfg["n_layers"]))
        self.norm = make_norm(cfg)
        self.head = nn.Linear(D, V, bias=False)
        if cfg["tied"]:
            self.head.weight = self.embedding.weight  # one parameter under two names; both are (V, D)
        ### END SOLUTION

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, T), int64, to logits (B, T, V), not normalised; ValueError if T > T_max, for every cfg."""
        ### BEGIN SOLUTION
        T = ids.shape[1]
        if self.cfg["T_max"] < T:
            raise ValueError(f"{T} tokens do not fit into T_max={self.cfg['T_max']}")
        x = self.embedding(ids)  # (B, T, D)
        if self.positions is not None:
            x = x + self.positions.weight[:T]  # (T, D): the same for every sequence
        mask = torch.ones(T, T, dtype=torch.bool, device=ids.device).tril()
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x))  # (B, T, V)
        ### END SOLUTION


# %% [markdown]
# ## 7.7 count_parameters
#
# Where do the parameters live? A formula answers for a model that would not fit into your memory.


# %%
def count_parameters(cfg: dict) -> dict[str, int]:
    """Count the parameters of GPT(cfg), part by part, without building it.

    Args:
        cfg: a configuration as given above; hd is d_model // n_heads. It is not changed.

    Returns:
        dict of ints: "embedding" (the token table), "positions" (the learned table, else 0), "attention", "ffn" and
        "norm" (all layers together; "norm" with the one after the last block), "head" (0 if tied), and "total".

    Example:
        >>> count_parameters(GPT2)["total"], count_parameters(LLAMA2_7B)["total"]
        (124439808, 6738415616)

    Notes:
        A shared parameter counts once, as "embedding". Masks and angles are not parameters. Without biases and norms a
        layer with Hk = H holds 4 D^2 for attention and 2 D F (gelu) or 3 D F (swiglu). With fewer key-value heads, keys
        and values are only Hk * hd wide. Biases: cfg["bias"] concerns the four matrices of attention and the two of a
        gelu network; a layer norm has gamma and beta, an rms norm has gamma. Models far too large to build are counted.
    """
    ### BEGIN SOLUTION
    V, D, F, L = cfg["vocab_size"], cfg["d_model"], cfg["d_ff"], cfg["n_layers"]
    K = cfg["n_kv_heads"] * (D // cfg["n_heads"])  # width of all keys of a token
    bias = int(cfg["bias"])
    attention = 2 * D * D + 2 * D * K + bias * (2 * D + 2 * K)
    ffn = 3 * D * F if cfg["ffn"] == "swiglu" else 2 * D * F + bias * (F + D)
    norm = 2 * D if cfg["norm"] == "layer" else D
    counts = {
        "embedding": V * D,
        "positions": cfg["T_max"] * D if cfg["positions"] == "learned" else 0,
        "attention": L * attention,
        "ffn": L * ffn,
        "norm": (2 * L + 1) * norm,  # two a block and the last one
        "head": 0 if cfg["tied"] else V * D,
    }
    return counts | {"total": sum(counts.values())}
    ### END SOLUTION


# %% [markdown]
# ## 7.8 init_weights
#
# A deep stack adds up 2 L branches. Started small enough, the sum stays in hand.


# %%
def init_weights(model: nn.Module, std: float = 0.02, seed: int = 0) -> None:
    """Draw the starting weights of a GPT anew, in place, with the outputs of the branches scaled down by depth.

    Args:
        model: a GPT of any configuration; L is its number of blocks.
        std: standard deviation of the weights.
        seed: the same seed gives the same weights, another seed gives others.

    Example:
        >>> model = GPT(GPT2 | {"vocab_size": 500, "d_model": 48, "d_ff": 192, "n_layers": 8})
        >>> init_weights(model)
        >>> round(model.head.weight.std().item(), 3), round(model.blocks[0].ffn.down.weight.std().item(), 3)
        (0.02, 0.005)

    Notes:
        W_o.weight of every attention and down.weight of every feed-forward network are normal with mean 0 and standard
        deviation std / sqrt(2 L). All other weights of linear layers and embeddings, the head among them, are normal
        with standard deviation std. Biases and beta are 0, gamma is 1, whatever they were before. All draws are
        independent of each other and come from a torch.Generator of your own: torch's global one is left as it was.
        Tied weights stay tied, and every parameter still takes a gradient.
    """
    ### BEGIN SOLUTION
    generator = torch.Generator().manual_seed(seed)
    small = std / math.sqrt(2 * len(model.blocks))
    for name, p in model.named_parameters():  # a shared parameter comes once
        if name.endswith("gamma"):
            nn.init.ones_(p)
        elif name.endswith(("beta", "bias")):
            nn.init.zeros_(p)
        else:
            into_the_stream = name.endswith(("W_o.weight", "down.weight"))
            nn.init.normal_(p, 0.0, small if into_the_stream else std, generator=generator)
    ### END SOLUTION
