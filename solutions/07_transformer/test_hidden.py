"""The whole contract of chapter 7, against PyTorch's own operations, closed forms, autograd and statistics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from grader.testing import close, driver, exact, exercise, holds, pure, roughly
from grader.testing.strategies import shapes, tensors

DOUBLE = torch.float64

CLASSIC = {
    "vocab_size": 17, "T_max": 9, "d_model": 12, "n_layers": 2, "n_heads": 3, "n_kv_heads": 3, "d_ff": 20,
    "positions": "learned", "norm": "layer", "ffn": "gelu", "bias": True, "tied": True,
}  # fmt: skip
MODERN = {
    "vocab_size": 19, "T_max": 11, "d_model": 24, "n_layers": 3, "n_heads": 6, "n_kv_heads": 2, "d_ff": 28,
    "positions": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "tied": False,
}  # fmt: skip
MIXED = CLASSIC | {"d_model": 16, "n_heads": 4, "n_kv_heads": 2, "norm": "rms", "bias": False, "tied": False}
OTHER = MODERN | {"n_layers": 2, "n_kv_heads": 3, "norm": "layer", "bias": True, "tied": True}
ALL = {"classic": CLASSIC, "modern": MODERN, "mixed": MIXED, "other": OTHER}


# ---------------------------------------------------------------------------------------------------------- layer_norm


@exercise("layer_norm", weight=2)
def test_layer_norm_agrees_with_torch(exercises, rng):
    """It normalises the last axis, under any number of leading axes."""
    for shape in ((2, 3, 5), (7,), (4, 6), (3, 1), (2, 3, 4, 6)):
        x, gamma, beta = 1 + 2 * rng.normal(*shape), rng.normal(shape[-1]), rng.normal(shape[-1])
        close(exercises.layer_norm(x, gamma, beta), F.layer_norm(x, shape[-1:], gamma, beta), f"layer_norm of {shape}")


@exercise("layer_norm")
def test_layer_norm_adds_eps_under_the_root(exercises, rng):
    """eps is added to the variance; it shows on small vectors."""
    gamma, beta = rng.normal(7), rng.normal(7)
    for scale, eps in ((0.01, 0.1), (1.0, 0.1), (0.01, 1e-2), (1.0, 1e-12)):
        x = scale * rng.normal(3, 7)
        expected = F.layer_norm(x, (7,), gamma, beta, eps)
        close(exercises.layer_norm(x, gamma, beta, eps), expected, f"layer_norm, entries near {scale}, eps={eps}")
    x = 0.003 * rng.normal(3, 7)  # a variance near 1e-5, so that the default eps shows
    close(exercises.layer_norm(x, gamma, beta), F.layer_norm(x, (7,), gamma, beta), "layer_norm with the default eps")


@exercise("layer_norm")
@settings(max_examples=25)
@given(x=tensors(shape=shapes(min_dims=2)), shift=st.floats(-50, 50), scale=st.floats(0.1, 50))
def test_layer_norm_forgets_shift_and_scale(exercises, x, shift, scale):
    """Shifting or stretching a vector changes nothing once eps is tiny."""
    D = x.shape[-1]
    one, none = torch.ones(D, dtype=DOUBLE), torch.zeros(D, dtype=DOUBLE)
    x = torch.cat([x, x + torch.arange(1, D + 1) / D, 3 - x], -1)  # at least three different entries a vector
    one, none = one.repeat(3), none.repeat(3)
    expected = F.layer_norm(x, x.shape[-1:], eps=1e-15)
    close(
        exercises.layer_norm(scale * x + shift, one, none, 1e-15 * scale**2), expected, "layer_norm(scale * x + shift)"
    )


@exercise("layer_norm")
def test_layer_norm_survives_a_large_offset(exercises, rng):
    """Entries near 10 000 in float32 do not spoil the variance."""
    x = (10_000 * torch.tensor([[1.0], [-1.0]], dtype=DOUBLE) + rng.normal(2, 64)).float()
    expected = F.layer_norm(x.double(), (64,)).float()
    got = exercises.layer_norm(x, torch.ones(64), torch.zeros(64))
    # Near 10 000 a float32 is good to 0.0005, and so is the mean; the mean of squares minus the square is off by 6.
    roughly(got, expected, 0.02, "layer_norm of float32 entries near 10 000")


@exercise("layer_norm")
def test_layer_norm_of_equal_entries_is_beta(exercises, rng):
    """A vector of equal entries gives beta, not NaN."""
    gamma, beta = rng.normal(5), rng.normal(5)
    x = torch.tensor([[3.0] * 5, [0.0] * 5, [-1e3] * 5], dtype=DOUBLE)
    close(exercises.layer_norm(x, gamma, beta), beta.expand(3, 5).clone(), "layer_norm of constant vectors")


@exercise("layer_norm")
def test_layer_norm_keeps_rows_apart(exercises, rng):
    """Each vector is normalised by itself: the others have no say."""
    x, gamma, beta = rng.normal(3, 4, 6), rng.normal(6), rng.normal(6)
    before = exercises.layer_norm(x, gamma, beta)
    x[1] = 100 * x[1] + 7
    x[:, 2] -= 5 * rng.normal(3, 6)
    after = exercises.layer_norm(x, gamma, beta)
    close(after[::2, [0, 1, 3]], before[::2, [0, 1, 3]], "layer_norm of vectors whose neighbours were changed")


@exercise("layer_norm")
def test_layer_norm_keeps_dtype_and_inputs(exercises, rng):
    """The result has the dtype of x, and no argument is changed."""
    for dtype in (torch.float32, DOUBLE):
        x, gamma, beta = rng.normal(2, 3, 7).to(dtype), rng.normal(7).to(dtype), rng.normal(7).to(dtype)
        expected = F.layer_norm(x, (7,), gamma, beta)
        close(pure(exercises.layer_norm, x, gamma, beta), expected, f"layer_norm of a {dtype} tensor")


# ------------------------------------------------------------------------------------------------------------ rms_norm


@exercise("rms_norm", weight=2)
def test_rms_norm_agrees_with_torch(exercises, rng):
    """It divides the last axis by its root mean square, and centres nothing."""
    for shape in ((2, 3, 5), (7,), (4, 6), (3, 1), (2, 3, 4, 6)):
        x, gamma = 1 + 2 * rng.normal(*shape), rng.normal(shape[-1])
        close(exercises.rms_norm(x, gamma), F.rms_norm(x, shape[-1:], gamma, 1e-6), f"rms_norm of {shape}")


@exercise("rms_norm")
def test_rms_norm_adds_eps_under_the_root(exercises, rng):
    """eps is added to the mean square; it shows on small vectors."""
    gamma = rng.normal(7)
    for scale, eps in ((0.01, 0.1), (1.0, 0.1), (0.01, 1e-2), (1.0, 1e-12)):
        x = scale * rng.normal(3, 7)
        expected = F.rms_norm(x, (7,), gamma, eps)
        close(exercises.rms_norm(x, gamma, eps), expected, f"rms_norm, entries near {scale}, eps={eps}")
    x = 0.001 * rng.normal(3, 7)  # a mean square near 1e-6, so that the default eps shows
    close(exercises.rms_norm(x, gamma), F.rms_norm(x, (7,), gamma, 1e-6), "rms_norm with the default eps")


@exercise("rms_norm", weight=2)
def test_rms_norm_in_half_precision(exercises, rng):
    """Half precision neither overflows near 300 nor vanishes near 0.0001."""
    for dtype in (torch.float16, torch.bfloat16):
        gamma = (1 + 0.3 * rng.normal(64)).to(dtype)
        for size, eps in ((300.0, 1e-6), (1e-4, 1e-12), (1.0, 1e-6)):
            x = (size * (1.5 + rng.uniform(2, 64))).to(dtype)
            expected = F.rms_norm(x.double(), (64,), gamma.double(), eps).to(dtype)
            close(exercises.rms_norm(x, gamma, eps), expected, f"rms_norm of {dtype} entries near {size:g}")


@exercise("rms_norm")
@settings(max_examples=25)
@given(x=tensors(shape=shapes(min_dims=2)), scale=st.floats(0.1, 50))
def test_rms_norm_forgets_scale_only(exercises, x, scale):
    """Stretching a vector changes nothing, turning its sign turns the result."""
    one = torch.ones(x.shape[-1], dtype=DOUBLE)
    expected = F.rms_norm(x, x.shape[-1:], eps=1e-30)
    close(exercises.rms_norm(scale * x, one, 1e-30), expected, "rms_norm(scale * x)")
    close(exercises.rms_norm(-x, one, 1e-30), -expected, "rms_norm(-x)")


@exercise("rms_norm")
def test_rms_norm_of_zeros_is_zero(exercises, rng):
    """A vector of zeros gives zeros, beside others that do not."""
    x, gamma = rng.normal(3, 5), rng.normal(5)
    x[1] = 0.0
    got = exercises.rms_norm(x, gamma)
    exact(got[1], torch.zeros(5, dtype=DOUBLE), "rms_norm of a vector of zeros")
    close(got[::2], F.rms_norm(x[::2], (5,), gamma, 1e-6), "rms_norm of the vectors beside it")


@exercise("rms_norm")
def test_rms_norm_keeps_dtype_and_inputs(exercises, rng):
    """The result has the dtype of x, and no argument is changed."""
    for dtype in (torch.float16, torch.float32, DOUBLE):
        x, gamma = rng.normal(2, 3, 7).to(dtype), rng.normal(7).to(dtype)
        expected = F.rms_norm(x.double(), (7,), gamma.double(), 1e-6).to(dtype)
        close(pure(exercises.rms_norm, x, gamma), expected, f"rms_norm of a {dtype} tensor")


# ----------------------------------------------------------------------------------------------- gelu_tanh, FeedForward


@exercise("gelu_tanh", weight=2)
def test_gelu_agrees_with_torch(exercises, rng):
    """It is PyTorch's tanh form, on both sides of zero."""
    x = torch.linspace(-6, 6, 121, dtype=DOUBLE)
    close(exercises.gelu_tanh(x), F.gelu(x, approximate="tanh"), "gelu_tanh between -6 and 6")
    x = 2 * rng.normal(2, 3, 4)
    close(exercises.gelu_tanh(x), F.gelu(x, approximate="tanh"), "gelu_tanh of a (2, 3, 4) tensor")


@exercise("gelu_tanh")
@settings(max_examples=25)
@given(x=tensors(scale=3.0))
def test_gelu_of_both_signs_makes_the_identity(exercises, x):
    """gelu(x) - gelu(-x) is x, since tanh is odd."""
    both = exercises.gelu_tanh(torch.stack([x, -x]))
    close(both[0] - both[1], x, "gelu_tanh(x) - gelu_tanh(-x)")


@exercise("gelu_tanh")
def test_gelu_survives_large_entries(exercises):
    """Entries of size 1000 are kept if positive and removed if negative."""
    for dtype in (torch.float32, DOUBLE):
        x = torch.tensor([-1e3, -40.0, 0.0, 40.0, 1e3], dtype=dtype)
        close(pure(exercises.gelu_tanh, x), x.clamp(min=0), f"gelu_tanh of large {dtype} entries")


def weights_of(rng, sizes, dtype=DOUBLE):
    """A state_dict in which no two tensors are alike: matrices of spread 1/sqrt(in), vectors around 1 or 0."""
    state = {}
    for name, size in sizes.items():
        spread = 1.0 if len(size) == 1 or name.startswith(("embedding", "positions")) else size[-1] ** -0.5
        state[name] = (float(name.endswith("gamma")) + (0.4 if len(size) == 1 else spread) * rng.normal(*size)).to(
            dtype
        )
    return state


def loaded(exercises, name, state, *args):
    """The student's module, in float64, holding the weights of `state`."""
    module = getattr(exercises, name)(*args).double()
    module.load_state_dict(state, strict=False)
    return module


def network_sizes(D, width, bias=True):
    """Names and shapes of a FeedForward's parameters."""
    sizes = {"up.weight": (width, D), "down.weight": (D, width)}
    return sizes | ({"up.bias": (width,), "down.bias": (D,)} if bias else {})


def network(x, state, prefix=""):
    """A feed-forward network of either kind, written with torch's own operations."""

    def linear(x, name):
        return F.linear(x, state[f"{prefix}{name}.weight"], state.get(f"{prefix}{name}.bias"))

    if f"{prefix}gate.weight" in state:
        return linear(F.silu(linear(x, "gate")) * linear(x, "up"), "down")
    return linear(F.gelu(linear(x, "up"), approximate="tanh"), "down")


@driver
def describe(module, name, *args):
    """What a module registers, and whether it is one."""
    import torch

    made = getattr(module, name)(*args)
    shared = getattr(getattr(made, "embedding", None), "weight", None)  # whichever of its names comes first
    parameters = {"embedding.weight" if p is shared else key: p for key, p in made.named_parameters()}
    return {
        "module": isinstance(made, torch.nn.Module),
        "sizes": {key: tuple(p.shape) for key, p in parameters.items()},
        "trained": all(p.requires_grad for p in parameters.values()),
        "dtypes": sorted({str(p.dtype) for p in parameters.values()}),
        "children": sorted(key for key, child in made.named_children() if any(True for _ in child.parameters())),
    }


def registered(got, sizes):
    """Assert that a module registers exactly these parameters, all trained."""
    holds(got["module"], "It must be an nn.Module.")
    exact(got["sizes"], sizes, "names and shapes of the parameters")
    exact(got["dtypes"], ["torch.float32"], "the dtypes of the parameters")
    holds(got["trained"], "Every parameter must require a gradient.")


@exercise("gelu_tanh", weight=2)
def test_feed_forward_agrees_with_torch(exercises, rng):
    """It is up, gelu_tanh, down, with and without biases."""
    for D, width, bias, shape in ((6, 10, True, (2, 5, 6)), (5, 3, False, (4, 5)), (3, 8, True, (3,))):
        state, x = weights_of(rng, network_sizes(D, width, bias)), rng.normal(*shape)
        got = pure(loaded(exercises, "FeedForward", state, D, width, bias), x)
        close(got, network(x, state), f"FeedForward({D}, {width}, bias={bias}) of {shape}")


@exercise("gelu_tanh")
def test_feed_forward_registers_two_layers(exercises):
    """up is (F, D), down is (D, F), F is 4 D unless given, biases by choice."""
    registered(exercises.run(describe, "FeedForward", 6), network_sizes(6, 24))
    registered(exercises.run(describe, "FeedForward", 6, None, False), network_sizes(6, 24, False))
    registered(exercises.run(describe, "FeedForward", 5, 7), network_sizes(5, 7))
    registered(exercises.run(describe, "FeedForward", 5, 7, False), network_sizes(5, 7, False))


@exercise("gelu_tanh")
def test_feed_forward_sees_one_token_at_a_time(exercises, rng):
    """Reordering tokens and sequences reorders the outputs, in either mode."""
    state, x = weights_of(rng, network_sizes(6, 10)), rng.normal(3, 5, 6)
    ffn = loaded(exercises, "FeedForward", state, 6, 10)
    rows, tokens = rng.permutation(3), rng.permutation(5)
    for mode in (ffn.train, ffn.eval):
        mode()
        close(ffn(x[rows][:, tokens]), network(x, state)[rows][:, tokens], "FeedForward of reordered tokens")


@driver
def gradients(module, name, args, state, inputs, weight):
    """Gradients of a weighted sum of the outputs with respect to the parameters, and to the input if it is floating."""
    import torch

    with torch.enable_grad():
        made = getattr(module, name)(*args).double()
        made.load_state_dict(state, strict=False)
        first = inputs[0].clone()
        if first.is_floating_point():
            first.requires_grad_()
        (made(first, *inputs[1:]) * weight).sum().backward()
    shared = getattr(getattr(made, "embedding", None), "weight", None)  # whichever of its names comes first
    found = {"embedding.weight" if p is shared else key: p.grad for key, p in made.named_parameters()}
    return found | ({"x": first.grad} if first.is_floating_point() else {})


def same_gradients(got, f, state, x, weight):
    """Compare with autograd through `f(x, state)`; x counts if it is floating."""
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    first = x.clone().requires_grad_() if x.is_floating_point() else x
    (f(first, leaves) * weight).sum().backward()
    expected = {name: leaf.grad for name, leaf in leaves.items()} | ({"x": first.grad} if first.requires_grad else {})
    for name, gradient in expected.items():
        holds(got.get(name) is not None, f"A gradient must reach {name}.")
        # Without rotation a bias of the keys shifts a query's scores all alike: its gradient is zero but for rounding.
        close(got[name], gradient * (gradient.abs().max() > 1e-12), f"the gradient of {name}")


@exercise("gelu_tanh")
def test_feed_forward_can_be_trained(exercises, rng):
    """Gradients reach the input, both matrices and both biases."""
    state, x, weight = weights_of(rng, network_sizes(6, 10)), rng.normal(2, 5, 6), rng.normal(2, 5, 6)
    got = exercises.run(gradients, "FeedForward", (6, 10), state, (x,), weight)
    same_gradients(got, network, state, x, weight)


# ---------------------------------------------------------------------------------------------- swiglu, swiglu_hidden


def gated(x, w1, w2, w3):
    return F.linear(F.silu(F.linear(x, w1)) * F.linear(x, w3), w2)


def three(rng, D, width):
    """w1, w2, w3."""
    return rng.normal(width, D), rng.normal(D, width), rng.normal(width, D)


@exercise("swiglu", weight=2)
def test_swiglu_agrees_with_torch(exercises, rng):
    """The gate goes through silu, the value does not, for any leading axes."""
    for shape, width in (((2, 5, 4), 7), ((3, 6), 2), ((5,), 8), ((2, 3, 2, 3), 3), ((4, 1), 1)):
        x, w = rng.normal(*shape), three(rng, shape[-1], width)
        close(exercises.swiglu(x, *w), gated(x, *w), f"swiglu of {shape} with F={width}")


@exercise("swiglu")
def test_swiglu_is_linear_in_the_value_matrix(exercises, rng):
    """Doubling w3 doubles the result, zeros in w3 silence it; not so w1."""
    x, (w1, w2, w3) = rng.normal(3, 4), three(rng, 4, 6)
    once = gated(x, w1, w2, w3)
    close(exercises.swiglu(x, w1, w2, 2 * w3), 2 * once, "swiglu with twice w3")
    exact(exercises.swiglu(x, w1, w2, 0 * w3), torch.zeros(3, 4, dtype=DOUBLE), "swiglu with w3 = 0")
    close(exercises.swiglu(x, w1=2 * w1, w2=w2, w3=w3), gated(x, 2 * w1, w2, w3), "swiglu with twice w1")


@exercise("swiglu")
def test_swiglu_survives_large_gates(exercises, rng):
    """A gate of 1000 is open, a gate of -1000 is shut, and nothing is NaN."""
    w1, w2, w3 = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 10.0]]), torch.tensor([[0.5], [0.25]])
    for dtype in (torch.float32, DOUBLE):
        x = torch.tensor([[1e3], [-1e3], [3.0]], dtype=dtype)
        w = [m.to(dtype) for m in (w1, w2, w3)]
        close(exercises.swiglu(x, *w), gated(x, *w), f"swiglu with gates of 1000 and -1000, {dtype}")


@exercise("swiglu")
def test_swiglu_keeps_dtype_and_inputs(exercises, rng):
    """The result has the dtype of x, and no argument is changed."""
    for dtype in (torch.float32, DOUBLE):
        x, w = rng.normal(2, 3, 4).to(dtype), [m.to(dtype) for m in three(rng, 4, 6)]
        close(pure(exercises.swiglu, x, *w), gated(x, *w), f"swiglu of a {dtype} tensor")


@exercise("swiglu", weight=2)
def test_swiglu_hidden_rounds_up(exercises):
    """F is the least multiple that is not below 8 D / 3."""
    for multiple_of in (8, 1, 2, 30, 256):
        for D in (1, 2, 3, 4, 5, 6, 12, 45, 90, 96, 97, 100, 333, 768):
            F_least = next(n for n in range(0, 9 * D + 300, multiple_of) if 3 * n >= 8 * D)
            got = exercises.swiglu_hidden(D, multiple_of)
            holds(type(got) is int, f"swiglu_hidden({D}, {multiple_of}) must be an int.")
            exact(got, F_least, f"swiglu_hidden({D}, {multiple_of})")


@exercise("swiglu")
def test_swiglu_hidden_of_published_models(exercises):
    """Widths 4096, 5120 and 8192 give the inner widths of the Llama models."""
    for D, published in ((4096, 11008), (5120, 13824), (8192, 22016)):
        exact(exercises.swiglu_hidden(D, 256), published, f"swiglu_hidden({D}, 256)")


# ---------------------------------------------------------------------------------------------------- TransformerBlock


def block_sizes(cfg, prefix=""):
    """Names and shapes of a block's parameters."""
    D, width, bias = cfg["d_model"], cfg["d_ff"], cfg["bias"]
    K = cfg["n_kv_heads"] * D // cfg["n_heads"]
    sizes = {}
    for norm in ("norm1", "norm2"):
        sizes |= {f"{norm}.gamma": (D,)} | ({f"{norm}.beta": (D,)} if cfg["norm"] == "layer" else {})
    for name, out in (("W_q", D), ("W_k", K), ("W_v", K), ("W_o", D)):
        sizes |= {f"attention.{name}.weight": (out, D)} | ({f"attention.{name}.bias": (out,)} if bias else {})
    gate = {"gate.weight": (width, D)} if cfg["ffn"] == "swiglu" else {}
    inner = gate | network_sizes(D, width, bias and not gate)
    return {
        prefix + name: size for name, size in (sizes | {f"ffn.{name}": size for name, size in inner.items()}).items()
    }


def normed(x, state, name, cfg):
    gamma, beta = state[f"{name}.gamma"], state.get(f"{name}.beta")
    if cfg["norm"] == "layer":
        return F.layer_norm(x, x.shape[-1:], gamma, beta, 1e-5)
    return F.rms_norm(x, x.shape[-1:], gamma, 1e-6)


def rotated(x):
    """Rotary positions as a product of complex numbers; x is (B, H, T, hd)."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[-2])[:, None] * 10000.0 ** (-torch.arange(half, dtype=DOUBLE) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], -1)


def attended(x, state, prefix, cfg, mask):
    def heads(name, n):
        y = F.linear(x, state[f"{prefix}{name}.weight"], state.get(f"{prefix}{name}.bias"))
        return y.unflatten(-1, (n, -1)).transpose(1, 2)

    H, Hk = cfg["n_heads"], cfg["n_kv_heads"]
    q, k, v = heads("W_q", H), heads("W_k", Hk), heads("W_v", Hk)
    if cfg["positions"] == "rope":
        q, k = rotated(q), rotated(k)
    k, v = k.repeat_interleave(H // Hk, 1), v.repeat_interleave(H // Hk, 1)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    return F.linear(y, state[f"{prefix}W_o.weight"], state.get(f"{prefix}W_o.bias"))


def block_of(x, state, cfg, mask=None, prefix=""):
    """The pre-norm block, written with torch's own operations."""
    x = x + attended(normed(x, state, f"{prefix}norm1", cfg), state, f"{prefix}attention.", cfg, mask)
    return x + network(normed(x, state, f"{prefix}norm2", cfg), state, f"{prefix}ffn.")


def past(T):
    return torch.tensor([[j <= i for j in range(T)] for i in range(T)])


@exercise("TransformerBlock", weight=3)
def test_block_agrees_with_torch(exercises, rng):
    """Without a mask it is the pre-norm block, for every kind of its parts."""
    for name, cfg in ALL.items():
        state, x = weights_of(rng, block_sizes(cfg)), 2 * rng.normal(2, 5, cfg["d_model"])
        close(loaded(exercises, "TransformerBlock", state, cfg)(x), block_of(x, state, cfg), f"the {name} block")


@exercise("TransformerBlock", weight=2)
def test_block_under_masks(exercises, rng):
    """The mask reaches the attention, and True means seen."""
    for name, cfg in ALL.items():
        state, x = weights_of(rng, block_sizes(cfg)), rng.normal(2, 5, cfg["d_model"])
        block = loaded(exercises, "TransformerBlock", state, cfg)
        some = (rng.uniform(2, 1, 5, 5) < 0.5) | torch.eye(5).bool()
        for mask in (past(5), some):
            close(block(x, mask), block_of(x, state, cfg, mask), f"the {name} block under a mask {tuple(mask.shape)}")


@exercise("TransformerBlock", weight=2)
def test_block_with_silent_branches_is_the_identity(exercises, rng):
    """When both branches end in zeros, the stream comes out as it went in."""
    for name, cfg in ALL.items():
        state, x = weights_of(rng, block_sizes(cfg)), 30 + 20 * rng.normal(2, 5, cfg["d_model"])
        for key in state:
            if "W_o" in key or "down" in key:
                state[key].zero_()
        close(loaded(exercises, "TransformerBlock", state, cfg)(x), x, f"the {name} block with silent branches")


@exercise("TransformerBlock")
def test_block_with_one_silent_branch(exercises, rng):
    """Each branch alone adds to the stream what it makes of its own norm."""
    for name, cfg in (("classic", CLASSIC), ("modern", MODERN)):
        state, x = weights_of(rng, block_sizes(cfg)), 3 * rng.normal(2, 5, cfg["d_model"])
        only_ffn = {key: 0 * value if "W_o" in key else value for key, value in state.items()}
        expected = x + network(normed(x, state, "norm2", cfg), state, "ffn.")
        close(loaded(exercises, "TransformerBlock", only_ffn, cfg)(x), expected, f"the {name} block, attention silent")
        only_attention = {key: 0 * value if "down" in key else value for key, value in state.items()}
        expected = x + attended(normed(x, state, "norm1", cfg), state, "attention.", cfg, None)
        close(loaded(exercises, "TransformerBlock", only_attention, cfg)(x), expected, f"the {name} block, ffn silent")


@exercise("TransformerBlock")
def test_block_registers_its_parts(exercises):
    """norm1, attention, norm2 and ffn hold all parameters, each its own."""
    for cfg in ALL.values():
        got = exercises.run(describe, "TransformerBlock", cfg)
        registered(got, block_sizes(cfg))
        exact(got["children"], ["attention", "ffn", "norm1", "norm2"], "the children that hold parameters")


@exercise("TransformerBlock")
def test_block_leaves_its_input_alone(exercises, rng):
    """x and the mask are not changed, and the mode makes no difference."""
    state, x, mask = weights_of(rng, block_sizes(CLASSIC)), rng.normal(2, 5, 12), past(5)
    block = loaded(exercises, "TransformerBlock", state, CLASSIC)
    for mode in (block.train, block.eval):
        mode()
        close(pure(block, x, mask), block_of(x, state, CLASSIC, mask), "the block in training and evaluation")


@exercise("TransformerBlock")
def test_block_keeps_rows_and_instances_apart(exercises, rng):
    """A sequence does not depend on its batch, nor a block on another one."""
    first, second = (weights_of(rng, block_sizes(MODERN)) for _ in range(2))
    one, other = (loaded(exercises, "TransformerBlock", state, MODERN) for state in (first, second))
    x = rng.normal(3, 4, 24)
    close(one(x)[1:2], block_of(x[1:2], first, MODERN), "one sequence out of a batch of three")
    close(other(x[2:]), block_of(x[2:], second, MODERN), "the second block after the first was used")


@exercise("TransformerBlock")
def test_block_can_be_trained(exercises, rng):
    """Gradients reach the input and every parameter."""
    for cfg in (CLASSIC, MODERN):
        state, mask = weights_of(rng, block_sizes(cfg)), past(5)
        x, weight = rng.normal(2, 5, cfg["d_model"]), rng.normal(2, 5, cfg["d_model"])
        got = exercises.run(gradients, "TransformerBlock", (cfg,), state, (x, mask), weight)
        same_gradients(got, lambda x, s, cfg=cfg, mask=mask: block_of(x, s, cfg, mask), state, x, weight)


# ----------------------------------------------------------------------------------------------------------------- GPT


def model_sizes(cfg):
    """Names and shapes of a GPT's parameters; a tied head has none of its own."""
    V, D = cfg["vocab_size"], cfg["d_model"]
    sizes = {"embedding.weight": (V, D)}
    if cfg["positions"] == "learned":
        sizes["positions.weight"] = (cfg["T_max"], D)
    for i in range(cfg["n_layers"]):
        sizes |= block_sizes(cfg, f"blocks.{i}.")
    sizes |= {"norm.gamma": (D,)} | ({"norm.beta": (D,)} if cfg["norm"] == "layer" else {})
    return sizes | ({} if cfg["tied"] else {"head.weight": (V, D)})


def logits_of(ids, state, cfg):
    """The whole model, written with torch's own operations."""
    T = ids.shape[1]
    x = F.embedding(ids, state["embedding.weight"])
    if "positions.weight" in state:
        x = x + state["positions.weight"][:T]
    for i in range(cfg["n_layers"]):
        x = block_of(x, state, cfg, past(T), f"blocks.{i}.")
    return F.linear(normed(x, state, "norm", cfg), state.get("head.weight", state["embedding.weight"]))


@exercise("GPT", weight=3)
def test_gpt_agrees_with_torch(exercises, rng):
    """Its logits are those of the same model made of PyTorch's own parts."""
    for name, cfg in ALL.items():
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 2, 7)
        close(
            pure(loaded(exercises, "GPT", state, cfg), ids), logits_of(ids, state, cfg), f"logits of the {name} model"
        )


@exercise("GPT", weight=2)
def test_gpt_is_causal(exercises, rng):
    """Changing a token leaves all earlier logits alone, and its own change."""
    for name, cfg in ALL.items():
        ids = rng.integers(0, cfg["vocab_size"], 2, 7)
        model = loaded(exercises, "GPT", weights_of(rng, model_sizes(cfg)), cfg)
        before = model(ids)
        ids[:, 4] = (ids[:, 4] + 1) % cfg["vocab_size"]
        after = model(ids)
        close(after[:, :4], before[:, :4], f"the {name} model's logits before the changed token")
        holds((after - before)[:, 4].abs().amax(-1) > 1e-3, "The logits at the changed token must change.")
        holds((after - before)[:, 6].abs().amax(-1) > 1e-6, "The logits after the changed token must change.")


@exercise("GPT")
def test_gpt_reads_a_prefix_alike(exercises, rng):
    """The logits at a position equal those of the prefix run alone."""
    for name, cfg in (("classic", CLASSIC), ("modern", MODERN)):
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 2, 8)
        model = loaded(exercises, "GPT", state, cfg)
        full = model(ids)
        for T in (1, 3, 6):
            close(model(ids[:, :T]), full[:, :T], f"the {name} model's logits of the first {T} tokens alone")


@exercise("GPT")
def test_gpt_keeps_sequences_apart(exercises, rng):
    """A sequence's logits do not depend on the others in its batch."""
    for name, cfg in (("mixed", MIXED), ("other", OTHER)):
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 3, 5)
        model = loaded(exercises, "GPT", state, cfg)
        together = model(ids)
        holds((together[0] - together[1]).abs().max() > 1e-3, "Different sequences must have different logits.")
        for row in range(3):
            close(model(ids[row : row + 1]), together[row : row + 1], f"the {name} model, sequence {row} alone")


@exercise("GPT")
def test_gpt_gives_raw_logits_of_the_normed_stream(exercises, rng):
    """Twice the last norm's scale and shift gives twice the logits."""
    for name, cfg in (("classic", CLASSIC), ("modern", MODERN)):
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 2, 5)
        twice = {key: 2 * value if key.startswith("norm.") else value for key, value in state.items()}
        expected = 2 * logits_of(ids, state, cfg)
        close(loaded(exercises, "GPT", twice, cfg)(ids), expected, f"the {name} model, its last norm doubled")


@exercise("GPT")
def test_gpt_knows_where_a_token_stands(exercises, rng):
    """The same tokens in another order give other logits at the end."""
    for name, cfg in (("classic", CLASSIC), ("modern", MODERN)):
        state = weights_of(rng, model_sizes(cfg | {"n_layers": 1}))
        model = loaded(exercises, "GPT", state, cfg | {"n_layers": 1})
        got = model(torch.tensor([[1, 2, 3, 4], [3, 1, 2, 4]]))  # one layer without positions could not tell them apart
        holds((got[0, -1] - got[1, -1]).abs().max() > 1e-3, f"The {name} model must see the order of earlier tokens.")


@exercise("GPT")
def test_gpt_takes_up_to_T_max_tokens(exercises, rng):
    """One token and T_max tokens are fine; one more is a ValueError."""
    for name, cfg in ALL.items():
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 2, cfg["T_max"] + 1)
        model = loaded(exercises, "GPT", state, cfg)
        for T in (1, cfg["T_max"]):
            close(model(ids[:, :T]), logits_of(ids[:, :T], state, cfg), f"the {name} model of {T} tokens")
        with pytest.raises(ValueError):
            model(ids)


@exercise("GPT")
def test_gpt_registers_its_parts(exercises):
    """Its parameters have the promised names and sizes, and none is missing."""
    for cfg in (*ALL.values(), CLASSIC | {"n_layers": 4, "tied": False}, MODERN | {"n_layers": 1, "tied": True}):
        registered(exercises.run(describe, "GPT", cfg), model_sizes(cfg))


@driver
def tie(module, cfg):
    """Are head and embedding one parameter, now and after a step that changes the one?"""
    import torch

    model = module.GPT(cfg)
    same = model.head.weight is model.embedding.weight
    with torch.no_grad():
        model.embedding.weight += 1.0
    equal = bool((model.head.weight == model.embedding.weight).all())
    return {"same": same, "equal": equal, "head": tuple(model.head.weight.shape), "bias": model.head.bias is None}


@exercise("GPT")
def test_gpt_ties_its_head_when_asked(exercises):
    """A tied head is the embedding's own parameter; an untied one is not."""
    for cfg in ALL.values():
        tied, size = cfg["tied"], (cfg["vocab_size"], cfg["d_model"])
        exact(exercises.run(tie, cfg), {"same": tied, "equal": tied, "head": size, "bias": True}, "head and embedding")


@exercise("GPT", weight=2)
def test_gpt_can_be_trained(exercises, rng):
    """Gradients reach every parameter, and a tied one gets both its parts."""
    for cfg in (CLASSIC, MODERN):
        state, ids = weights_of(rng, model_sizes(cfg)), rng.integers(0, cfg["vocab_size"], 2, 6)
        weight = rng.normal(2, 6, cfg["vocab_size"])
        got = exercises.run(gradients, "GPT", (cfg,), state, (ids,), weight)
        same_gradients(got, lambda x, s, cfg=cfg: logits_of(x, s, cfg), state, ids, weight)


@driver
def work(module, cfg, ids):
    """The floating-point operations of one forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = module.GPT(cfg)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    return counter.get_total_flops()


@exercise("GPT")
def test_gpt_works_in_one_pass(exercises):
    """Each token passes each matrix once: about two operations a weight."""
    cfg, T = MODERN | {"T_max": 64}, 64
    weights = sum(math.prod(size) for size in model_sizes(cfg).values() if len(size) == 2)
    scores = 4 * cfg["n_layers"] * T * T * cfg["d_model"]
    got = exercises.run(work, cfg, torch.zeros(1, T, dtype=torch.long))
    # Looking tokens up by a one-hot product is allowed for; running each prefix anew would cost 32 times as much.
    holds(0 < got <= 2 * (2 * T * weights + scores), "A pass over T tokens takes about 2 T operations a weight.")


@exercise("GPT")
def test_gpt_is_deterministic(exercises, rng):
    """No dropout, nothing kept between calls, and the configuration is kept."""
    state = weights_of(rng, model_sizes(CLASSIC))
    model = loaded(exercises, "GPT", state, CLASSIC)
    exact(model.cfg, CLASSIC, "model.cfg")
    for T in (6, 3, 8):  # a mask or a cache kept from the first call would not fit
        ids = rng.integers(0, 17, 2, T)
        for mode in (model.train, model.eval):
            mode()
            close(model(ids), logits_of(ids, state, CLASSIC), f"logits of {T} tokens, training and evaluation")


@exercise("GPT")
def test_gpt_in_float32(exercises, rng):
    """A fresh model gives float32 logits."""
    for cfg in (CLASSIC, MODERN):
        state, ids = weights_of(rng, model_sizes(cfg), torch.float32), rng.integers(0, cfg["vocab_size"], 3, 4)
        model = exercises.GPT(cfg)
        model.load_state_dict(state, strict=False)
        # rounding of a few thousand float32 operations; the logits are about 3
        roughly(
            model(ids), logits_of(ids, {k: v.double() for k, v in state.items()}, cfg).float(), 1e-3, "float32 logits"
        )


# ---------------------------------------------------------------------------------------------------- count_parameters

BIG = {
    "vocab_size": 50257, "T_max": 1024, "d_model": 768, "n_layers": 12, "n_heads": 12, "n_kv_heads": 12, "d_ff": 3072,
    "positions": "learned", "norm": "layer", "ffn": "gelu", "bias": True, "tied": True,
}  # fmt: skip
LLAMA = {
    "vocab_size": 32000, "T_max": 4096, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "d_ff": 11008,
    "positions": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "tied": False,
}  # fmt: skip


def part_of(name):
    """The part of the count to which a parameter belongs."""
    pieces = name.split(".")
    place = pieces[2] if pieces[0] == "blocks" else pieces[0]
    return "norm" if place.startswith("norm") else place


def counted(cfg):
    """The count by going over the list of all parameters."""
    counts = dict.fromkeys(("embedding", "positions", "attention", "ffn", "norm", "head"), 0)
    for name, size in model_sizes(cfg).items():
        counts[part_of(name)] += math.prod(size)
    return counts | {"total": sum(counts.values())}


@exercise("count_parameters", weight=3)
def test_count_of_every_part(exercises):
    """Every part agrees with the list of all parameters."""
    for name, cfg in ALL.items():
        exact(pure(exercises.count_parameters, cfg), counted(cfg), f"count_parameters of the {name} model")


@exercise("count_parameters", weight=2)
def test_count_under_every_switch(exercises):
    """Turning any one switch changes the count as the list says."""
    turned = {"positions": ("learned", "rope"), "norm": ("layer", "rms"), "ffn": ("gelu", "swiglu")}
    turned |= {"bias": (True, False), "tied": (True, False), "n_kv_heads": (1, 2, 6)}
    for base in (CLASSIC | {"n_heads": 6, "d_model": 18}, MODERN):
        for key, values in turned.items():
            for value in values:
                cfg = base | {key: value}
                exact(exercises.count_parameters(cfg), counted(cfg), f"count_parameters with {key}={value!r}")


@exercise("count_parameters")
def test_count_grows_with_every_size(exercises):
    """Depth, width, vocabulary and length each enter where they belong."""
    for base in (CLASSIC, MODERN):
        for key, value in (
            ("n_layers", 7),
            ("n_layers", 1),
            ("d_ff", 33),
            ("vocab_size", 101),
            ("T_max", 50),
            ("d_model", 48),
        ):
            cfg = base | {key: value}
            exact(exercises.count_parameters(cfg), counted(cfg), f"count_parameters with {key}={value}")


@exercise("count_parameters", weight=2)
def test_count_of_published_models(exercises):
    """The totals are those of GPT-2, Llama 2 and 3, and Mistral."""
    gpt2 = (
        (768, 12, 12, 124_439_808),
        (1024, 24, 16, 354_823_168),
        (1280, 36, 20, 774_030_080),
        (1600, 48, 25, 1_557_611_200),
    )
    for D, L, H, published in gpt2:
        cfg = BIG | {"d_model": D, "n_layers": L, "n_heads": H, "n_kv_heads": H, "d_ff": 4 * D}
        exact(exercises.count_parameters(cfg)["total"], published, f"the total of GPT-2 with {L} layers")
    exact(exercises.count_parameters(LLAMA)["total"], 6_738_415_616, "the total of Llama 2 7B")
    grouped = LLAMA | {"n_kv_heads": 8, "d_ff": 14336}
    exact(exercises.count_parameters(grouped)["total"], 7_241_732_096, "the total of Mistral 7B")
    exact(
        exercises.count_parameters(grouped | {"vocab_size": 128256})["total"], 8_030_261_248, "the total of Llama 3 8B"
    )


@exercise("count_parameters")
def test_count_of_what_no_memory_holds(exercises):
    """A model far too large to build is counted, in whole numbers."""
    cfg = BIG | {"d_model": 2**20, "n_layers": 10_000, "n_heads": 2**13, "n_kv_heads": 2**13, "d_ff": 2**22}
    D, L = 2**20, 10_000
    got = exercises.count_parameters(cfg)
    holds(all(type(n) is int for n in got.values()), "Every count must be an int.")
    exact(got["attention"] + got["ffn"], L * (12 * D * D + 9 * D), "attention and ffn of a model of width 2^20")


# -------------------------------------------------------------------------------------------------------- init_weights

START = CLASSIC | {
    "vocab_size": 90,
    "T_max": 40,
    "d_model": 64,
    "n_layers": 5,
    "n_heads": 4,
    "n_kv_heads": 4,
    "d_ff": 96,
}
STARTS = {
    "classic": START,
    "modern": MODERN | {"vocab_size": 90, "d_model": 64, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "d_ff": 80},
}


@driver
def initialise(module, cfg, std, seed):
    """Disturb a fresh model, initialise it, and give all its parameters."""
    import torch

    model = module.GPT(cfg)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(3.0)
    state = torch.random.get_rng_state()
    module.init_weights(model, std, seed)
    return {
        "values": {name: p.detach().clone() for name, p in model.named_parameters()},
        "global": bool((state == torch.random.get_rng_state()).all()),
        "trained": all(p.requires_grad and p.is_leaf for p in model.parameters()),
        "tied": model.head.weight is model.embedding.weight,
    }


def into_the_stream(name):
    return name.endswith(("W_o.weight", "down.weight"))


def has_spread(values, std, name):
    """Assert mean 0 and the given standard deviation, each to 5.5 standard errors (less than one in 10^7)."""
    n, mean, got = values.numel(), float(values.double().mean()), float(values.double().square().mean().sqrt())
    holds(abs(mean) < 5.5 * std / math.sqrt(n), f"{name}: the mean is {mean:.5f}, expected about 0.")
    holds(
        abs(got - std) < 5.5 * std / math.sqrt(2 * n),
        f"{name}: the standard deviation is {got:.5f}, expected about {std:.5f}.",
    )


@exercise("init_weights", weight=2)
def test_init_scales_the_branches_by_depth(exercises, rng):
    """What writes into the stream has deviation std / sqrt(2 L)."""
    for cfg in STARTS.values():
        values = exercises.run(initialise, cfg, 0.05, rng.seed)["values"]
        for name in filter(into_the_stream, values):
            has_spread(values[name], 0.05 / math.sqrt(2 * cfg["n_layers"]), name)


@exercise("init_weights", weight=2)
def test_init_of_all_other_matrices(exercises, rng):
    """All other matrices and tables have deviation std, the head too."""
    for cfg in (*STARTS.values(), START | {"tied": False}):
        values = exercises.run(initialise, cfg, 0.05, rng.seed)["values"]
        for name, value in values.items():
            if value.ndim == 2 and not into_the_stream(name):
                has_spread(value, 0.05, name)


@exercise("init_weights")
def test_init_of_all_vectors(exercises, rng):
    """gamma is one, beta and every bias are zero, whatever they were."""
    for cfg in STARTS.values():
        for name, value in exercises.run(initialise, cfg, 0.05, rng.seed)["values"].items():
            if value.ndim == 1:
                exact(value, torch.full_like(value, float(name.endswith("gamma"))), name)


@exercise("init_weights")
def test_init_draws_from_a_normal_distribution(exercises, rng):
    """The weights are normal, not uniform and not cut off."""
    values = exercises.run(initialise, START, 0.05, rng.seed)["values"]
    z = torch.cat([(v / v.std()).flatten().double() for v in values.values() if v.ndim == 2])
    fourth, beyond = float((z**4).mean()), float((z.abs() > 2).double().mean())
    # standard errors: sqrt(96 / n) for the fourth moment, sqrt(p (1 - p) / n) for a share p = 0.0455
    n = len(z)
    holds(abs(fourth - 3) < 5.5 * math.sqrt(96 / n), f"The fourth moment is {fourth:.3f}; a normal one has 3.")
    holds(abs(beyond - 0.0455) < 5.5 * math.sqrt(0.0434 / n), f"A share of {beyond:.4f} lies beyond two deviations.")


@exercise("init_weights")
def test_init_draws_every_matrix_anew(exercises, rng):
    """No two matrices resemble each other, whatever their place."""
    values = exercises.run(initialise, START, 0.05, rng.seed)["values"]
    flat = [v.flatten()[:3000].double() for v in values.values() if v.numel() >= 3000]
    z = torch.stack([v / v.norm() for v in flat])
    alike = (z @ z.T - torch.eye(len(z))).abs().max()
    # 3000 independent pairs correlate by 0.018 on average; 400 pairs of matrices stay below 7 times that
    holds(
        alike < 7 / math.sqrt(3000), f"Two matrices correlate by {float(alike):.2f}; each must have draws of its own."
    )


@exercise("init_weights")
def test_init_follows_its_seed(exercises, rng):
    """The same seed gives the same weights, another gives others."""
    one, again, other = (
        exercises.run(initialise, START, 0.05, s)["values"] for s in (rng.seed, rng.seed, rng.seed + 1)
    )
    for name, value in one.items():
        exact(again[name], value, f"{name}, initialised twice from one seed")
        if value.ndim == 2:
            holds((other[name] - value).abs().max() > 1e-4, f"{name} must depend on the seed.")


@exercise("init_weights")
def test_init_leaves_the_rest_alone(exercises, rng):
    """Torch's global generator does not move, ties and gradients stay."""
    for tied in (True, False):
        got = exercises.run(initialise, START | {"tied": tied}, 0.02, rng.seed)
        holds(got["global"], "init_weights must draw from a generator of its own.")
        holds(got["trained"], "Every parameter must remain a leaf that takes a gradient.")
        exact(got["tied"], tied, "whether head and embedding are one parameter")


@driver
def start(module, cfg, ids, targets):
    """The spread of the stream before and after the blocks, and the first loss, with the default std and seed."""
    import torch

    model = module.GPT(cfg)
    module.init_weights(model)
    with torch.no_grad():
        seen = []
        model.blocks[0].register_forward_pre_hook(lambda block, args: seen.append(args[0]))
        model.blocks[-1].register_forward_hook(lambda block, args, out: seen.append(out))
        logits = model(ids)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    return {"before": float(seen[0].std()), "after": float(seen[1].std()), "loss": float(loss)}


@exercise("init_weights")
def test_init_keeps_a_deep_stream_in_hand(exercises, rng):
    """Over 24 layers the stream less than doubles; the first loss is ln V."""
    for cfg in (START | {"n_layers": 24}, START | {"n_layers": 24, "norm": "rms", "tied": False}):
        ids, targets = rng.integers(0, 90, 4, 40), rng.integers(0, 90, 4, 40)
        got = exercises.run(start, cfg, ids, targets)
        holds(got["after"] < 2 * got["before"], f"The stream grows from {got['before']:.3f} to {got['after']:.3f}.")
        holds(got["after"] > got["before"], "The branches must add something to the stream.")
        # the logits have a deviation near 0.02 * sqrt(64) = 0.16: the loss exceeds ln V by about half its square
        holds(
            abs(got["loss"] - math.log(90)) < 0.1, f"The first loss is {got['loss']:.3f}, ln V is {math.log(90):.3f}."
        )
