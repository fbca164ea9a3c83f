"""The whole contract of chapter 6, against PyTorch's own operations, brute force and finite differences."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from grader.testing import close, driver, exact, exercise, holds, numerical_gradient, pure
from grader.testing.strategies import shapes, tensors

DOUBLE = torch.float64


def visible(rng, *shape):
    """A random mask of which every row allows at least one key."""
    mask = rng.uniform(*shape) < 0.5
    mask[..., 1] = True
    return mask


def aligned_last(T, S):
    """The causal mask by its definition: query i stands at position S - T + i."""
    return torch.tensor([[j <= S - T + i for j in range(S)] for i in range(T)])


# ----------------------------------------------------------------------------------------------------------- softmax


@exercise("softmax")
def test_softmax_on_every_axis(exercises, rng):
    """It normalises along the axis asked for, from the front or the back."""
    x = 1.5 * rng.normal(2, 3, 5, 4)
    for dim in range(-4, 4):
        close(exercises.softmax(x, dim=dim), torch.softmax(x, dim), f"softmax(x, dim={dim}) of a (2, 3, 5, 4) tensor")


@exercise("softmax")
def test_softmax_normalises_the_last_axis_by_default(exercises, rng):
    """Without dim it normalises the last axis, whatever the number of axes."""
    for shape in ((6,), (3, 4), (2, 3, 5)):
        x = rng.normal(*shape)
        close(exercises.softmax(x), torch.softmax(x, -1), f"softmax(x) of a {shape} tensor")
    close(exercises.softmax(x, 0), torch.softmax(x, 0), "softmax(x, 0) of a (2, 3, 5) tensor")


@exercise("softmax")
@settings(max_examples=25)
@given(x=tensors(shape=shapes(min_dims=2), scale=2.0), shift=st.floats(-800, 800), last=st.booleans())
def test_softmax_ignores_a_common_shift(exercises, x, shift, last):
    """Adding one number to a whole slice changes none of its weights."""
    dim = -1 if last else 0
    close(exercises.softmax(x + shift, dim=dim), torch.softmax(x, dim), f"softmax(x + {shift:g}, dim={dim})")


@exercise("softmax")
def test_softmax_survives_any_finite_score(exercises):
    """Huge scores of either sign give finite weights that sum to one."""
    for dtype, big in ((torch.float32, 1e30), (DOUBLE, 1e30), (torch.float32, 1e3), (DOUBLE, 1e3)):
        x = torch.tensor([[big, -big, 0.0], [0.0, big / 2, big], [-3 * big, -big, -2 * big]], dtype=dtype)
        close(exercises.softmax(x), torch.softmax(x, -1), f"softmax of {dtype} scores of size {big:g}")
        close(exercises.softmax(x.T, dim=0), torch.softmax(x.T, 0), f"softmax(x, dim=0), scores of size {big:g}")


@exercise("softmax")
def test_softmax_slices_do_not_disturb_each_other(exercises, rng):
    """A slice of very low scores keeps its weights beside one of high scores."""
    for dtype, gap in ((torch.float32, 200.0), (DOUBLE, 1000.0)):
        # scores within 1 of each other in a row, so that no row is saturated
        x = rng.uniform(2, 5).to(dtype) + torch.tensor([[-gap], [gap]], dtype=dtype)
        close(exercises.softmax(x), torch.softmax(x, -1), f"softmax of one row near {-gap:g} and one near {gap:g}")


@exercise("softmax")
def test_softmax_gives_nothing_to_minus_infinity(exercises, rng):
    """A score of -inf gets exactly 0; the others share the whole weight."""
    x = rng.normal(4, 3)
    x[1:3, 0] = x[0, 1] = x[:3, 2] = -math.inf
    got = exercises.softmax(x, dim=0)
    exact(got[x == -math.inf], torch.zeros(6, dtype=DOUBLE), "the weights of the scores that are -inf")
    close(got, torch.softmax(x, 0), "softmax(x, dim=0) with scores of -inf")


@exercise("softmax")
def test_softmax_sums_to_one_exactly(exercises, rng):
    """Nothing is added to the denominator: the sum is one up to rounding."""
    total = exercises.softmax(rng.normal(6, 3)).sum(-1)
    # Rounding costs about 1e-16 a term; the smallest constant that people add, 1e-12, costs a thousand times more.
    holds(bool((total - 1).abs().max() < 1e-13), "The weights of a float64 slice sum to 1 to within 1e-13.")
    exact(exercises.softmax(rng.normal(3, 1)), torch.ones(3, 1, dtype=DOUBLE), "softmax over an axis of length 1")


@exercise("softmax")
def test_softmax_keeps_dtype_and_input(exercises, rng):
    """The result has the dtype of x, and x is not changed."""
    for dtype in (torch.float16, torch.float32, DOUBLE):
        x = rng.normal(3, 7).to(dtype)
        close(pure(exercises.softmax, x, dim=1), torch.softmax(x, 1), f"softmax of a {dtype} tensor")


# ------------------------------------------------------------------------- causal_mask, padding_mask, combine


@exercise("causal_mask", weight=2)
def test_causal_mask_for_many_sizes(exercises):
    """Row i sees exactly the first S - T + i + 1 keys."""
    for T, S in ((3, 7), (4, 5), (2, 2), (6, 6), (5, 11), (1, 6), (1, 1)):
        exact(exercises.causal_mask(T, S), aligned_last(T, S), f"causal_mask({T}, {S})")


@exercise("causal_mask")
def test_causal_mask_defaults_to_a_square(exercises):
    """Without S, or with None, there are as many keys as queries."""
    for T in (4, 1):
        exact(exercises.causal_mask(T), aligned_last(T, T), f"causal_mask({T})")
        exact(exercises.causal_mask(T, S=None), aligned_last(T, T), f"causal_mask({T}, S=None)")


@exercise("causal_mask")
def test_causal_mask_needs_room_for_the_queries(exercises):
    """Fewer keys than queries is a ValueError, and so are no keys at all."""
    for T, S in ((4, 3), (5, 1), (2, 0)):
        with pytest.raises(ValueError):
            exercises.causal_mask(T, S)


@exercise("causal_mask")
def test_padding_mask_of_unequal_lengths(exercises):
    """Key j of sequence b is seen when j < lengths[b], from none to all."""
    lengths, S = [3, 0, 5, 1], 5
    expected = torch.tensor([[[[j < n for j in range(S)]]] for n in lengths])
    exact(exercises.padding_mask(torch.tensor(lengths), S), expected, "padding_mask of a tensor of lengths, S=5")
    exact(exercises.padding_mask(lengths, S), expected, "padding_mask of a list of lengths, S=5")
    exact(exercises.padding_mask(tuple(lengths), S), expected, "padding_mask of a tuple of lengths, S=5")
    longer = torch.cat([expected, torch.zeros(4, 1, 1, 3).bool()], -1)
    exact(exercises.padding_mask(lengths, 8), longer, "padding_mask with S=8, longer than every sequence")


@exercise("causal_mask")
def test_padding_mask_refuses_impossible_lengths(exercises):
    """A length below 0 or above S is a ValueError; S itself is allowed."""
    for lengths in ([2, 5], [-1, 3], [9, 1, 1]):
        with pytest.raises(ValueError):
            exercises.padding_mask(torch.tensor(lengths), 4)
        with pytest.raises(ValueError):
            exercises.padding_mask(lengths, 4)
    holds(bool(exercises.padding_mask([4], 4).all()), "padding_mask([4], 4) allows all four keys.")


@exercise("causal_mask")
def test_combine_is_and_over_any_number(exercises, rng):
    """A pair is allowed only if all of one, two, three or four masks agree."""
    masks = [rng.uniform(3, 4) < 0.7 for _ in range(4)]
    for n in range(1, 5):
        expected = torch.tensor([[all(bool(m[i, j]) for m in masks[:n]) for j in range(4)] for i in range(3)])
        exact(pure(exercises.combine, *masks[:n]), expected, f"combine of {n} masks")


@exercise("causal_mask")
def test_combine_broadcasts(exercises, rng):
    """Masks of different shapes broadcast to the shape of the scores."""
    rows, heads = rng.uniform(5, 1) < 0.7, rng.uniform(1, 4, 1, 1) < 0.7
    keys = torch.arange(7).expand(2, 1, 1, 7) < torch.tensor([4, 7])[:, None, None, None]
    got = pure(exercises.combine, aligned_last(5, 7), keys, rows, heads)
    exact(got, aligned_last(5, 7) & keys & rows & heads, "combine of (5, 7), (2, 1, 1, 7), (5, 1) and (1, 4, 1, 1)")
    exact(exercises.combine(keys, aligned_last(5, 7)), keys & aligned_last(5, 7), "combine of (2, 1, 1, 7) and (5, 7)")


@exercise("causal_mask")
def test_combine_skips_none(exercises, rng):
    """None restricts nothing, wherever it stands; None alone gives None."""
    a, b = rng.uniform(3, 4) < 0.6, rng.uniform(3, 4) < 0.6
    for masks in ((None, a, b), (a, None, b), (a, b, None), (None, None, a, b)):
        exact(exercises.combine(*masks), a & b, "combine of two masks and None")
    exact(exercises.combine(None, a), a, "combine(None, a)")
    for masks in ((), (None,), (None, None)):
        exact(exercises.combine(*masks), None, f"combine{masks}")


# ---------------------------------------------------------------------------------------- scaled_dot_product_attention


def qkv(rng, B=2, H=3, T=5, S=7, hd=4, hv=6, Hk=None):
    """Queries, keys and values whose every axis has its own size."""
    return rng.normal(B, H, T, hd), rng.normal(B, Hk or H, S, hd), rng.normal(B, Hk or H, S, hv)


@exercise("scaled_dot_product_attention", weight=2)
def test_attention_without_mask(exercises, rng):
    """Without a mask it agrees with PyTorch when all sizes differ."""
    for sizes in ({}, {"hd": 9, "hv": 2}, {"B": 1, "H": 1, "T": 1, "S": 8}, {"T": 6, "S": 1}, {"T": 4, "S": 4}):
        q, k, v = qkv(rng, **sizes)
        weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1)
        # one query alone may happen to be saturated; thirty are not
        holds(bool(sizes) or bool((weights.amax(-1) < 0.8).any()), "The test's own weights are not saturated.")
        expected = F.scaled_dot_product_attention(q, k, v)
        close(exercises.scaled_dot_product_attention(q, k, v), expected, f"attention of q {tuple(q.shape)}")


@exercise("scaled_dot_product_attention", weight=2)
def test_attention_under_masks_of_every_shape(exercises, rng):
    """A mask broadcasts over batch, heads and queries; True means seen."""
    q, k, v = qkv(rng)
    for shape in ((5, 7), (2, 1, 1, 7), (2, 1, 5, 7), (3, 1, 7), (1, 3, 5, 7), (2, 3, 5, 7), (7,)):
        mask = visible(rng, *shape)
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.broadcast_to(2, 3, 5, 7))
        close(exercises.scaled_dot_product_attention(q, k, v, mask), expected, f"attention under a mask {shape}")


@exercise("scaled_dot_product_attention", weight=2)
def test_attention_causal(exercises, rng):
    """With causal, the queries are the last T of the S positions."""
    for T, S in ((5, 7), (4, 4), (1, 6), (2, 9), (1, 1)):
        q, k, v = qkv(rng, T=T, S=S)
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=aligned_last(T, S))
        got = exercises.scaled_dot_product_attention(q, k, v, causal=True)
        close(got, expected, f"causal attention of {T} queries over {S} keys")


@exercise("scaled_dot_product_attention", weight=2)
def test_attention_causal_and_masked(exercises, rng):
    """With both, a key must be allowed by the mask and by causality."""
    q, k, v = qkv(rng)
    for shape in ((5, 7), (2, 1, 1, 7), (2, 3, 5, 7)):
        mask = visible(rng, *shape)  # key 1 is always seen, so no query is blind
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask & aligned_last(5, 7))
        got = exercises.scaled_dot_product_attention(q, k, v, mask, True)
        close(got, expected, f"attention, causal and under a mask {shape}")


@exercise("scaled_dot_product_attention", weight=2)
def test_attention_of_a_blind_query(exercises, rng):
    """A query whose mask is False everywhere gets zeros; the others do not."""
    q, k, v = qkv(rng)
    mask = visible(rng, 2, 3, 5, 7)
    blind = rng.uniform(2, 3, 5) < 0.3
    blind[0, 1, 2], blind[1, 0, 4] = True, False
    mask[blind] = False
    got = exercises.scaled_dot_product_attention(q, k, v, mask)
    exact(got[blind], torch.zeros(int(blind.sum()), 6, dtype=DOUBLE), "the rows of the blind queries")
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    close(got[~blind], expected[~blind], "the rows of the queries that see something")


@exercise("scaled_dot_product_attention")
def test_attention_blind_through_padding_or_causality(exercises, rng):
    """Zeros also when padding hides a sequence, or two masks hide all keys."""
    q, k, v = qkv(rng, T=4, S=4)
    nothing = torch.tensor([False, True])[:, None, None, None].expand(2, 1, 1, 4)
    got = exercises.scaled_dot_product_attention(q.float(), k.float(), v.float(), mask=nothing)
    exact(got[0], torch.zeros(3, 4, 6), "the outputs of a sequence of length 0, float32")
    late = torch.tensor([False, False, True, True])  # causality hides these keys from the first two queries
    got = exercises.scaled_dot_product_attention(q, k, v, mask=late, causal=True)
    exact(got[:, :, :2], torch.zeros(2, 3, 2, 6, dtype=DOUBLE), "the first two queries, when only keys 2 and 3 count")
    close(got[:, :, 2], v[:, :, 2], "the third query, which sees key 2 alone")


@exercise("scaled_dot_product_attention")
def test_attention_ignores_hidden_keys(exercises, rng):
    """Changing hidden keys and values changes nothing; seen ones count."""
    q, k, v = qkv(rng)
    mask = torch.tensor([True, False, True, True, False, True, False])
    before = exercises.scaled_dot_product_attention(q, k, v, mask)
    k[:, :, ~mask], v[:, :, ~mask] = 20 * rng.normal(2, 3, 3, 4), 1e6 * rng.normal(2, 3, 3, 6)
    close(
        exercises.scaled_dot_product_attention(q, k, v, mask), before, "attention after hidden keys and values changed"
    )
    close(
        exercises.scaled_dot_product_attention(q, k, v + 1, mask),
        before + 1,
        "attention after 1 is added to all values",
    )


@exercise("scaled_dot_product_attention")
def test_attention_survives_large_scores(exercises, rng):
    """Scores in the thousands, of either sign, give the right finite result."""
    q, k, v = qkv(rng)
    expected = F.scaled_dot_product_attention(60 * q, 60 * k, v)
    close(exercises.scaled_dot_product_attention(60 * q, 60 * k, v), expected, "attention with scores in the thousands")
    k[..., 0] = 1 + 1e-4 * k[..., 0]  # every score near -30 000, so a hidden score of 0 or -10 000 would win
    q[..., 0] = -60_000.0
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=aligned_last(5, 7))
    got = exercises.scaled_dot_product_attention(q, k, v, causal=True)
    close(got, expected, "causal attention with every score near -30 000")


@exercise("scaled_dot_product_attention")
def test_attention_keeps_dtype_and_inputs(exercises, rng):
    """The result has the dtype of q, and no argument is changed."""
    mask = visible(rng, 2, 1, 5, 7)
    for dtype in (torch.float32, DOUBLE):
        q, k, v = (x.to(dtype) for x in qkv(rng))
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask & aligned_last(5, 7))
        got = pure(exercises.scaled_dot_product_attention, q, k, v, mask=mask, causal=True)
        close(got, expected, f"attention of {dtype} tensors")
        expected = F.scaled_dot_product_attention(q, k, v)
        close(pure(exercises.scaled_dot_product_attention, q, k, v), expected, f"unmasked attention of {dtype} tensors")


# ------------------------------------------------------------------------------------------ split_heads, merge_heads


@exercise("split_heads", weight=2)
def test_split_heads_entry_by_entry(exercises):
    """Entry [b, h, t, i] is x[b, t, h * hd + i]."""
    for B, T, H, hd in ((2, 5, 3, 4), (3, 1, 2, 5), (1, 4, 6, 1), (2, 3, 1, 4), (1, 2, 2, 2)):
        x = torch.arange(B * T * H * hd).reshape(B, T, H * hd)
        picked = [x[b, t, h * hd + i] for b in range(B) for h in range(H) for t in range(T) for i in range(hd)]
        exact(
            exercises.split_heads(x, H), torch.stack(picked).reshape(B, H, T, hd), f"split_heads(x, {H}) of {x.shape}"
        )


@exercise("split_heads", weight=2)
def test_merge_heads_entry_by_entry(exercises):
    """Entry [b, t, h * hd + i] of the merged tensor is x[b, h, t, i]."""
    for B, H, T, hd in ((2, 3, 5, 4), (3, 2, 1, 5), (1, 6, 4, 1), (2, 1, 3, 4), (1, 2, 2, 2)):
        x = torch.arange(B * H * T * hd).reshape(B, H, T, hd)
        picked = [x[b, h, t, i] for b in range(B) for t in range(T) for h in range(H) for i in range(hd)]
        exact(exercises.merge_heads(x), torch.stack(picked).reshape(B, T, H * hd), f"merge_heads(x) of {x.shape}")


@exercise("split_heads")
def test_split_and_merge_undo_each_other(exercises, rng):
    """Either after the other is the identity; dtype and input are kept."""
    for dtype in (torch.float32, DOUBLE, torch.int64):
        x = (10 * rng.normal(2, 3, 20)).to(dtype)
        heads = pure(exercises.split_heads, x, 4)
        exact(pure(exercises.merge_heads, heads), x, f"merge_heads(split_heads(x, 4)) of a {dtype} tensor")
        exact(exercises.split_heads(exercises.merge_heads(heads), 4), heads, "split_heads(merge_heads(y), 4)")


@exercise("split_heads")
def test_split_heads_refuses_uneven_heads(exercises):
    """A number of heads that does not divide D is a ValueError."""
    for H in (3, 5, 16):
        with pytest.raises(ValueError):
            exercises.split_heads(torch.zeros(3, 15 if H == 16 else 8, 8), H)


@driver
def apply_to_strided(module, name, x, axes, *args):
    """Call a function on a view whose entries do not lie in order in memory."""
    view = x.permute(*axes)
    assert not view.is_contiguous()
    return getattr(module, name)(view, *args)


@exercise("split_heads")
def test_heads_of_a_strided_tensor(exercises, rng):
    """The input may be a transposed view."""
    x = rng.normal(5, 2, 12)  # (T, B, D) in memory
    got = exercises.run(apply_to_strided, "split_heads", x, (1, 0, 2), 3)
    exact(got, exercises.split_heads(x.transpose(0, 1).contiguous(), 3), "split_heads of a transposed view")
    y = rng.normal(2, 5, 3, 4)  # (B, T, H, hd) in memory
    got = exercises.run(apply_to_strided, "merge_heads", y, (0, 2, 1, 3))
    exact(got, y.flatten(2), "merge_heads of a transposed view")
    got = exercises.run(apply_to_strided, "merge_heads", y, (3, 0, 1, 2))
    exact(got, exercises.merge_heads(y.permute(3, 0, 1, 2).contiguous()), "merge_heads of a permuted view")


# -------------------------------------------------------------------------------------------------- MultiHeadAttention

NAMES = ("W_q", "W_k", "W_v", "W_o")


def weights_of(rng, D, dtype=DOUBLE):
    """A state_dict with four matrices of which no two are alike."""
    return {f"{name}.weight": (rng.normal(D, D) / math.sqrt(D)).to(dtype) for name in NAMES}


def loaded(exercises, D, H, state):
    """The student's module, in float64, holding the weights of `state`."""
    mha = exercises.MultiHeadAttention(D, H).double()
    mha.load_state_dict(state)
    return mha


def attend(x, state, H, mask=None):
    """Multi-head attention written with torch's own operations; mask says True = may attend."""
    heads = [torch.unflatten(F.linear(x, state[f"{name}.weight"]), -1, (H, -1)).transpose(1, 2) for name in NAMES[:3]]
    joined = F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
    return F.linear(joined, state["W_o.weight"])


@exercise("MultiHeadAttention", weight=2)
def test_multi_head_attention_agrees_with_torch(exercises, rng):
    """By default it agrees with PyTorch's multi-head attention, causal."""
    for B, T, D, H in ((2, 5, 12, 3), (3, 4, 10, 5), (1, 7, 6, 1), (2, 1, 8, 4)):
        state, x = weights_of(rng, D), rng.normal(B, T, D)
        expected, _ = F.multi_head_attention_forward(
            *[x.transpose(0, 1)] * 3, D, H, torch.cat([state[f"{n}.weight"] for n in NAMES[:3]]), None, None, None,
            False, 0.0, state["W_o.weight"], None, attn_mask=~aligned_last(T, T), need_weights=False,
        )  # fmt: skip
        close(loaded(exercises, D, H, state)(x), expected.transpose(0, 1), f"MultiHeadAttention({D}, {H}) of {x.shape}")


@exercise("MultiHeadAttention")
def test_multi_head_attention_without_causality(exercises, rng):
    """With causal=False every position sees every position."""
    state, x = weights_of(rng, 12), rng.normal(2, 5, 12)
    close(loaded(exercises, 12, 4, state)(x, causal=False), attend(x, state, 4), "mha(x, causal=False)")


@exercise("MultiHeadAttention", weight=2)
def test_multi_head_attention_under_masks(exercises, rng):
    """A mask of any shape that broadcasts is honoured, alone or with causal."""
    state, x = weights_of(rng, 12), rng.normal(2, 5, 12)
    mha = loaded(exercises, 12, 3, state)
    for shape in ((5, 5), (2, 1, 1, 5), (3, 5, 5), (2, 3, 5, 5)):
        mask = visible(rng, *shape)
        expected = attend(x, state, 3, mask.broadcast_to(2, 3, 5, 5))
        close(mha(x, mask, False), expected, f"mha(x, mask, causal=False), mask {shape}")
        mask[..., 0] = True  # so that causality leaves no query blind
        expected = attend(x, state, 3, mask & aligned_last(5, 5))
        close(mha(x, mask=mask), expected, f"mha(x, mask), causal, mask {shape}")


@exercise("MultiHeadAttention")
def test_multi_head_attention_of_blind_positions(exercises, rng):
    """Positions that may see nothing get zeros."""
    state, x = weights_of(rng, 12), rng.normal(2, 5, 12)
    mask = torch.tensor([False, True])[:, None, None, None].expand(2, 1, 1, 5)
    got = loaded(exercises, 12, 3, state)(x, mask=mask)
    exact(got[0], torch.zeros(5, 12, dtype=DOUBLE), "the outputs of a sequence of length 0")
    close(got[1:], attend(x[1:], state, 3, aligned_last(5, 5)), "the outputs of the other sequence")


@driver
def describe(module, D, H):
    """What the module registers, and whether it is one."""
    import torch

    mha = module.MultiHeadAttention(D, H)
    return {
        "module": isinstance(mha, torch.nn.Module),
        "state": {name: tuple(value.shape) for name, value in mha.state_dict().items()},
        "parameters": {name: p.requires_grad for name, p in mha.named_parameters()},
        "dtypes": sorted({str(p.dtype) for p in mha.parameters()}),
        "distinct": len({tuple(p.flatten().tolist()) for p in mha.parameters()}),
    }


@exercise("MultiHeadAttention")
def test_multi_head_attention_registers_four_matrices(exercises):
    """Its parameters are W_q, W_k, W_v and W_o, (D, D), all of them trained."""
    expected = {f"{name}.weight" for name in NAMES}
    got = exercises.run(describe, 12, 3)
    holds(got["module"], "MultiHeadAttention must be an nn.Module.")
    exact(got["state"], dict.fromkeys(expected, (12, 12)), "names and shapes in the state_dict")
    exact(got["parameters"], dict.fromkeys(expected, True), "the parameters and whether they require a gradient")
    exact(got["distinct"], 4, "the number of matrices that start with values of their own")
    exact(got["dtypes"], ["torch.float32"], "the dtypes of the parameters")


@exercise("MultiHeadAttention")
def test_multi_head_attention_refuses_uneven_heads(exercises):
    """A number of heads that does not divide D is a ValueError at once."""
    for D, H in ((8, 3), (12, 5), (4, 8)):
        with pytest.raises(ValueError):
            exercises.MultiHeadAttention(D, H)


@exercise("MultiHeadAttention")
def test_multi_head_attention_is_deterministic(exercises, rng):
    """No dropout in training or evaluation, and nothing kept between calls."""
    state = weights_of(rng, 12)
    mha = loaded(exercises, 12, 3, state)
    for T in (5, 3, 8):  # a mask or a cache kept from the first call would not fit
        x = rng.normal(2, T, 12)
        expected = attend(x, state, 3, aligned_last(T, T))
        for mode in (mha.train, mha.eval):
            mode()
            close(pure(mha, x), expected, f"mha(x) after mha.{'train' if mode is mha.train else 'eval'}(), T={T}")


@exercise("MultiHeadAttention")
def test_multi_head_attention_instances_are_apart(exercises, rng):
    """Two instances share neither weights nor the number of heads."""
    first, second = weights_of(rng, 12), weights_of(rng, 12)
    one, other = loaded(exercises, 12, 3, first), loaded(exercises, 12, 4, second)
    x = rng.normal(2, 5, 12)
    close(one(x), attend(x, first, 3, aligned_last(5, 5)), "the first instance after a second one was made")
    close(other(x), attend(x, second, 4, aligned_last(5, 5)), "the second instance")


@exercise("MultiHeadAttention")
def test_multi_head_attention_in_float32(exercises, rng):
    """A fresh module maps float32 to float32."""
    state, x = weights_of(rng, 8, torch.float32), rng.normal(3, 4, 8).float()
    mha = exercises.MultiHeadAttention(8, 2)
    mha.load_state_dict(state)
    close(mha(x), attend(x, state, 2, aligned_last(4, 4)), "mha(x) of a float32 x")


@driver
def gradients(module, H, state, x, mask, weight):
    """Gradients of a weighted sum of the outputs with respect to x and the four matrices."""
    import torch

    with torch.enable_grad():
        mha = module.MultiHeadAttention(x.shape[-1], H).double()
        mha.load_state_dict(state)
        x = x.clone().requires_grad_()
        (mha(x, mask=mask) * weight).sum().backward()
    return {"x": x.grad, **{name: p.grad for name, p in mha.named_parameters()}}


@exercise("MultiHeadAttention")
def test_multi_head_attention_can_be_trained(exercises, rng):
    """Gradients reach the input and every weight."""
    state, x, weight = weights_of(rng, 12), rng.normal(2, 5, 12), rng.normal(2, 5, 12)
    mask = visible(rng, 2, 1, 5, 5)
    mask[..., 0] = True
    got = exercises.run(gradients, 3, state, x, mask, weight)
    leaves = {name: value.clone().requires_grad_() for name, value in {"x": x, **state}.items()}
    (attend(leaves["x"], leaves, 3, mask & aligned_last(5, 5)) * weight).sum().backward()
    for name, leaf in leaves.items():
        close(got[name], leaf.grad, f"the gradient of {name}")


@exercise("MultiHeadAttention")
def test_a_blind_position_poisons_no_gradient(exercises, rng):
    """A sequence that may see nothing leaves all gradients finite and right."""
    state, x, weight = weights_of(rng, 12), rng.normal(2, 5, 12), rng.normal(2, 5, 12)
    mask = torch.tensor([False, True])[:, None, None, None].expand(2, 1, 1, 5)
    got = exercises.run(gradients, 3, state, x, mask, weight)
    leaves = {name: value.clone().requires_grad_() for name, value in {"x": x[1:], **state}.items()}
    (attend(leaves["x"], leaves, 3, aligned_last(5, 5)) * weight[1:]).sum().backward()
    exact(got["x"][0], torch.zeros(5, 12, dtype=DOUBLE), "the gradient of the sequence that sees nothing")
    close(got["x"][1:], leaves["x"].grad, "the gradient of the other sequence")
    for name in state:
        close(got[name], leaves[name].grad, f"the gradient of {name}, with a blind sequence in the batch")


# ---------------------------------------------------------------------------------------------- grouped_query_attention


@exercise("grouped_query_attention", weight=2)
def test_grouped_attention_agrees_with_torch(exercises, rng):
    """Query head h uses key-value head h // (H / Hk), for every grouping."""
    for H, Hk in ((6, 2), (6, 3), (8, 2), (6, 1), (5, 5), (1, 1)):
        q, k, v = qkv(rng, H=H, Hk=Hk)
        expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        close(exercises.grouped_query_attention(q, k, v), expected, f"{H} query heads over {Hk} key-value heads")


@exercise("grouped_query_attention", weight=2)
def test_grouped_attention_under_masks(exercises, rng):
    """A mask may differ from query head to query head, even in one group."""
    q, k, v = qkv(rng, H=6, Hk=2)
    for shape in ((5, 7), (2, 1, 1, 7), (2, 1, 5, 7), (6, 1, 7), (1, 6, 5, 7), (2, 6, 5, 7)):
        mask = visible(rng, *shape)
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        close(exercises.grouped_query_attention(q, k, v, mask), expected, f"grouped attention under a mask {shape}")


@exercise("grouped_query_attention")
def test_grouped_attention_of_blind_queries(exercises, rng):
    """A query that may see no key gets zeros; its neighbours do not."""
    q, k, v = qkv(rng, H=4, Hk=2)
    mask = visible(rng, 2, 4, 5, 7)
    mask[1, 2, 3] = False
    got = exercises.grouped_query_attention(q, k, v, mask=mask)
    exact(got[1, 2, 3], torch.zeros(6, dtype=DOUBLE), "the row of the blind query")
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    close(got[:, [0, 1, 3]], expected[:, [0, 1, 3]], "the heads in which no query is blind")


@exercise("grouped_query_attention")
def test_grouped_attention_sees_the_future(exercises, rng):
    """Without a mask nothing is hidden, also when T equals S."""
    q, k, v = qkv(rng, H=4, Hk=2, T=6, S=6)
    expected = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    close(exercises.grouped_query_attention(q, k, v, mask=None), expected, "grouped attention, six queries and keys")


@exercise("grouped_query_attention")
def test_grouped_attention_refuses_uneven_groups(exercises, rng):
    """Key-value heads that do not divide the query heads are a ValueError."""
    for H, Hk in ((6, 4), (5, 2), (2, 4), (3, 6)):
        with pytest.raises(ValueError):
            exercises.grouped_query_attention(*qkv(rng, H=H, Hk=Hk))


@exercise("grouped_query_attention")
def test_grouped_attention_keeps_dtype_and_inputs(exercises, rng):
    """The result has the dtype of q, and no argument is changed."""
    mask = visible(rng, 5, 7)
    for dtype in (torch.float32, DOUBLE):
        q, k, v = (x.to(dtype) for x in qkv(rng, H=6, Hk=3))
        expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        close(pure(exercises.grouped_query_attention, q, k, v, mask=mask), expected, f"grouped attention of {dtype}")


# -------------------------------------------------------------------------------------------------------- sdpa_backward


def by_autograd(q, k, v, dO):
    """The three gradients as autograd finds them through PyTorch's softmax."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    O = torch.softmax(leaves[0] @ leaves[1].mT / q.shape[-1] ** 0.5, -1) @ leaves[2]  # noqa: E741
    return torch.autograd.grad(O, leaves, dO)


@exercise("sdpa_backward", weight=3)
def test_backward_agrees_with_autograd(exercises, rng):
    """dq, dk and dv are the gradients that autograd finds."""
    for sizes in (
        {},
        {"B": 1, "H": 2, "T": 6, "S": 3, "hd": 5, "hv": 2},
        {"T": 4, "S": 4, "hv": 4},
        {"hd": 1, "hv": 1},
    ):
        q, k, v = qkv(rng, **sizes)
        dO = rng.normal(*q.shape[:3], v.shape[-1])
        got = exercises.sdpa_backward(q, k, v, dO)
        holds(isinstance(got, tuple) and len(got) == 3, "sdpa_backward returns a tuple of three tensors.")
        for name, mine, expected in zip(("dq", "dk", "dv"), got, by_autograd(q, k, v, dO), strict=True):
            close(mine, expected, f"{name} of sdpa_backward, q {tuple(q.shape)}, v {tuple(v.shape)}")


@exercise("sdpa_backward")
def test_backward_agrees_with_small_steps(exercises, rng):
    """A small step in q, k or v changes the loss as the gradients say."""
    q, k, v = qkv(rng, B=1, H=2, T=3, S=4, hd=2, hv=3)
    dO = rng.normal(1, 2, 3, 3)

    def loss(q, k, v):
        return (F.scaled_dot_product_attention(q, k, v) * dO).sum()

    numerical = (
        numerical_gradient(lambda x: loss(x, k, v), q),
        numerical_gradient(lambda x: loss(q, x, v), k),
        numerical_gradient(lambda x: loss(q, k, x), v),
    )
    for name, got, expected in zip(("dq", "dk", "dv"), exercises.sdpa_backward(q, k, v, dO), numerical, strict=True):
        # Central differences are good to about 1e-9 here; the gradients themselves are about 0.1.
        holds(bool((got - expected).abs().max() < 1e-6), f"{name} agrees with finite differences to 1e-6.")


@exercise("sdpa_backward")
def test_backward_of_a_single_key(exercises, rng):
    """With one key the weight is always 1: dq and dk vanish, dv sums dO."""
    q, k, v = qkv(rng, S=1)
    dO = rng.normal(2, 3, 5, 6)
    dq, dk, dv = exercises.sdpa_backward(q, k, v, dO)
    close(dq, torch.zeros_like(q), "dq with a single key")
    close(dk, torch.zeros_like(k), "dk with a single key")
    close(dv, dO.sum(2, keepdim=True), "dv with a single key")


@exercise("sdpa_backward")
def test_backward_is_linear_in_the_incoming_gradient(exercises, rng):
    """Doubling dO doubles all three; zero gives zero."""
    q, k, v = qkv(rng)
    dO = rng.normal(2, 3, 5, 6)
    once, twice = exercises.sdpa_backward(q, k, v, dO), exercises.sdpa_backward(q, k, v, 2 * dO)
    nothing = exercises.sdpa_backward(q, k, v, 0 * dO)
    for name, x, single, double, zero in zip(("dq", "dk", "dv"), (q, k, v), once, twice, nothing, strict=True):
        close(double, 2 * single, f"{name} for twice the incoming gradient")
        close(zero, torch.zeros_like(x), f"{name} for an incoming gradient of zero")


@exercise("sdpa_backward")
def test_backward_survives_large_scores(exercises, rng):
    """Scores in the thousands give finite and correct gradients."""
    q, k, v = qkv(rng)
    dO = rng.normal(2, 3, 5, 6)
    q[:, :, :2], k[..., 0], q[:, :, 2:, 0] = 60 * q[:, :, :2], 60.0, 50.0
    got = exercises.sdpa_backward(q, k, v, dO)
    for name, mine, expected in zip(("dq", "dk", "dv"), got, by_autograd(q, k, v, dO), strict=True):
        close(mine, expected, f"{name} of sdpa_backward with large scores")


@exercise("sdpa_backward")
def test_backward_keeps_dtype_and_inputs(exercises, rng):
    """The gradients have the dtype of q, and no argument is changed."""
    for dtype in (torch.float32, DOUBLE):
        q, k, v = (x.to(dtype) for x in qkv(rng))
        dO = rng.normal(2, 3, 5, 6).to(dtype)
        got = pure(exercises.sdpa_backward, q, k, v, dO)
        for name, mine, expected in zip(("dq", "dk", "dv"), got, by_autograd(q, k, v, dO), strict=True):
            close(mine, expected, f"{name} of {dtype} tensors")


# -------------------------------------------------------------------- attention_entropy, attention_rollout


@exercise("attention_entropy", weight=2)
def test_entropy_of_rows_along_the_last_axis(exercises, rng):
    """It is the sum of -p ln p over the last axis, for any leading axes."""
    for shape in ((2, 3, 4, 5, 6), (3, 7), (5,), (2, 1, 4)):
        p = rng.normal(*shape).softmax(-1)
        expected = torch.special.entr(p).sum(-1)
        close(exercises.attention_entropy(p), expected, f"entropy of weights of shape {shape}")


@exercise("attention_entropy")
def test_entropy_of_weights_that_are_zero(exercises, rng):
    """A weight of 0 contributes nothing; certainty and blindness give 0."""
    p = torch.zeros(4, 5, dtype=DOUBLE)
    p[0, 3], p[2, 1:3], p[3] = 1.0, 0.5, torch.tensor([0.0, 0.2, 0.0, 0.7, 0.1])
    for dtype in (DOUBLE, torch.float32):
        got = pure(exercises.attention_entropy, p.to(dtype))
        close(got, torch.special.entr(p.to(dtype)).sum(-1), f"entropy of {dtype} rows that hold zeros")
        exact(got[:2], torch.zeros(2, dtype=dtype), "entropy of a one-hot row and of a row of zeros")


@exercise("attention_entropy")
def test_entropy_adds_nothing_to_the_weights(exercises):
    """A uniform row over n keys has entropy ln n, however large n is."""
    for n in (1, 2, 7, 1000, 50_000):
        p = torch.full((n,), 1 / n, dtype=DOUBLE)
        # A constant eps inside the logarithm would be off by n * eps.
        close(
            exercises.attention_entropy(p), torch.tensor(math.log(n), dtype=DOUBLE), f"entropy, uniform over {n} keys"
        )


@exercise("attention_entropy")
def test_entropy_counts_tiny_weights(exercises):
    """A tiny weight still contributes its -p ln p."""
    p = torch.full((3, 1000), 1e-7, dtype=DOUBLE)
    p[:, 0] = 1 - 999e-7
    expected = torch.special.entr(p).sum(-1)
    close(pure(exercises.attention_entropy, p), expected, "entropy of a row with 999 weights of 1e-7")


def rolled_out(layers):
    """Rollout by following one input token at a time through the layers, with plain loops."""
    B, _, T, _ = layers[0].shape
    share = torch.zeros(B, T, T, dtype=layers[0].dtype)
    for b in range(B):
        for j in range(T):
            carried = [float(i == j) for i in range(T)]
            for p in layers:
                mean = p[b].mean(0).tolist()
                carried = [0.5 * carried[i] + 0.5 * sum(mean[i][m] * carried[m] for m in range(T)) for i in range(T)]
            share[b, :, j] = torch.tensor(carried, dtype=share.dtype)
    return share


def layers_of(rng, L, B=2, H=3, T=5):
    """Attention weights of L layers that differ from head to head."""
    return [(2 * rng.normal(B, H, T, T)).softmax(-1) for _ in range(L)]


@exercise("attention_entropy", weight=2)
def test_rollout_follows_tokens_through_the_layers(exercises, rng):
    """It agrees with following each input token by hand, for any depth."""
    for L in (1, 2, 3, 6):
        layers = layers_of(rng, L)
        close(exercises.attention_rollout(layers), rolled_out(layers), f"attention_rollout of {L} layers")


@exercise("attention_entropy")
def test_rollout_takes_a_list_or_one_tensor(exercises, rng):
    """A list, a tuple and a stacked tensor of the layers give the same."""
    layers = layers_of(rng, 3, B=1, H=2, T=4)
    for form in (layers, tuple(layers), torch.stack(layers)):
        got = pure(exercises.attention_rollout, form)
        close(got, rolled_out(layers), f"attention_rollout of a {type(form).__name__}")


@exercise("attention_entropy")
def test_rollout_of_identity_layers(exercises, rng):
    """A layer in which each token looks at itself changes nothing."""
    layers = layers_of(rng, 2)
    still = torch.eye(5, dtype=DOUBLE).expand(2, 3, 5, 5)
    expected = exercises.attention_rollout(layers)
    for padded in ([still, *layers], [layers[0], still, layers[1]], [*layers, still, still]):
        close(exercises.attention_rollout(padded), expected, "attention_rollout with an identity layer added")
    close(exercises.attention_rollout([still]), still[:, 0], "attention_rollout of one identity layer")


@exercise("attention_entropy")
def test_rollout_of_causal_layers(exercises, rng):
    """Causal layers give a causal rollout whose rows sum to one."""
    past = torch.ones(5, 5).tril().bool()
    layers = [rng.normal(2, 3, 5, 5).masked_fill(~past, -math.inf).softmax(-1) for _ in range(4)]
    got = exercises.attention_rollout(layers)
    exact(got[:, ~past], torch.zeros(2, 10, dtype=DOUBLE), "the shares of later tokens")
    close(got.sum(-1), torch.ones(2, 5, dtype=DOUBLE), "the rows of the rollout, summed")


@exercise("attention_entropy")
def test_rollout_keeps_dtype(exercises, rng):
    """float32 weights give a float32 rollout."""
    layers = [p.float() for p in layers_of(rng, 2)]
    close(exercises.attention_rollout(layers), rolled_out(layers), "attention_rollout of float32 layers")


@exercise("attention_entropy")
def test_rollout_needs_a_layer(exercises):
    """No layer at all is a ValueError."""
    for nothing in ([], (), torch.zeros(0, 1, 2, 3, 3)):
        with pytest.raises(ValueError):
            exercises.attention_rollout(nothing)
