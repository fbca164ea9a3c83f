"""Wrong answers of chapter 6 that people really give, each with the sentence that sets them right."""

import math

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def weights(q, k, allowed=None, scale=None):
    """The attention weights under a mask, or unmasked; no blind rows."""
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return reference.softmax(scores)


def allowed_pairs(q, k, mask, causal):
    """One mask for all: what `mask` and `causal` allow together."""
    square = reference.causal_mask(q.shape[-2], k.shape[-2]) if causal else None
    joined = reference.combine(mask, square)
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool) if joined is None else joined


def attend(q, k, v, allowed, scale=None):
    """Attention with a free choice of scale and mask, zeros for blind rows."""
    blind = ~allowed.any(-1, keepdim=True)
    P = weights(q, k, allowed | blind, scale).masked_fill(blind, 0.0)
    return P @ v


# -- softmax


@misconception("softmax", "You always normalise the last axis; the sum and the maximum must run along `dim`.")
def ignores_dim(x, dim=-1):
    return reference.softmax(x, dim=-1)


@misconception("softmax", "The sum runs over all elements; it must run along `dim` only, keeping that axis.")
def sums_over_everything(x, dim=-1):
    z = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return z / z.sum()


@misconception("softmax", "You exponentiate the raw scores, which overflows; subtract the maximum of each slice first.")
def overflows(x, dim=-1):
    z = torch.exp(x)
    return z / z.sum(dim=dim, keepdim=True)


@misconception(
    "softmax", "You subtract the maximum of the whole tensor; a slice of low scores underflows. Use the slice's own."
)
def subtracts_global_maximum(x, dim=-1):
    z = torch.exp(x - x.max())
    return z / z.sum(dim=dim, keepdim=True)


@misconception("softmax", "You subtract the mean, which leaves positive exponents that overflow; subtract the maximum.")
def subtracts_mean(x, dim=-1):
    z = torch.exp(x - x.mean(dim=dim, keepdim=True))
    return z / z.sum(dim=dim, keepdim=True)


@misconception(
    "softmax", "You add a small constant to the denominator; it is never zero, and the weights no longer sum to one."
)
def adds_epsilon(x, dim=-1):
    z = torch.exp(x - x.amax(dim=dim, keepdim=True))
    return z / (z.sum(dim=dim, keepdim=True) + 1e-8)


# -- causal_mask, padding_mask, combine


@misconception("causal_mask", "Your mask is True where attention is forbidden; here True means that it may attend.")
def inverted(T, S=None):
    return ~reference.causal_mask(T, S)


@misconception("causal_mask", "Each query must also see its own position; the diagonal belongs to the mask.")
def strict(T, S=None):
    return reference.causal_mask(T, S).tril((T if S is None else S) - T - 1)


@misconception(
    "causal_mask", "You count queries from the first position; they are the last T of the S, so shift rows by S - T."
)
def aligned_at_the_top_left(T, S=None):
    if S is not None and S < T:
        raise ValueError("S < T")
    return torch.ones(T, T if S is None else S, dtype=torch.bool).tril()


@misconception(
    "causal_mask", "Your padding mask shows one key too many: key j is real when j < length.", "padding_mask"
)
def shows_one_pad(lengths, S):
    reference.padding_mask(lengths, S)
    return (torch.arange(S) <= torch.as_tensor(lengths)[:, None])[:, None, None, :]


@misconception(
    "causal_mask",
    "Your padding mask hides queries; the lengths must run along the last axis, (B, 1, 1, S).",
    "padding_mask",
)
def pads_queries(lengths, S):
    return reference.padding_mask(lengths, S).transpose(-2, -1)


@misconception(
    "causal_mask", "You allow a pair if any mask allows it; it needs all of them: `and`, not `or`.", "combine"
)
def any_mask_suffices(*masks):
    joined = None
    for mask in masks:
        if mask is not None:
            joined = mask if joined is None else joined | mask
    return joined


# -- scaled_dot_product_attention


@misconception("scaled_dot_product_attention", "The scores are not scaled; divide q k^T by the square root of hd.")
def no_scale(q, k, v, mask=None, causal=False):
    return attend(q, k, v, allowed_pairs(q, k, mask, causal), 1.0)


@misconception("scaled_dot_product_attention", "You divide the scores by hd; divide by its square root.")
def divides_by_hd(q, k, v, mask=None, causal=False):
    return attend(q, k, v, allowed_pairs(q, k, mask, causal), 1 / q.shape[-1])


@misconception(
    "scaled_dot_product_attention", "You scale by the width of the values; the scores come from q and k: take their hd."
)
def scales_by_hv(q, k, v, mask=None, causal=False):
    return attend(q, k, v, allowed_pairs(q, k, mask, causal), v.shape[-1] ** -0.5)


@misconception("scaled_dot_product_attention", "Your mask hides the keys that are True; True means may attend.")
def mask_inverted(q, k, v, mask=None, causal=False):
    return attend(q, k, v, allowed_pairs(q, k, None if mask is None else ~mask, causal))


@misconception(
    "scaled_dot_product_attention",
    "You mask after the softmax, so the weights left do not sum to one; mask the scores.",
)
def masks_after_softmax(q, k, v, mask=None, causal=False):
    return weights(q, k).masked_fill(~allowed_pairs(q, k, mask, causal), 0.0) @ v


@misconception(
    "scaled_dot_product_attention", "Your masked scores are 0, which still earns weight; hidden scores are -inf."
)
def hides_with_zero(q, k, v, mask=None, causal=False):
    allowed = allowed_pairs(q, k, mask, causal)
    scores = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).masked_fill(~allowed, 0.0)
    return reference.softmax(scores).masked_fill(~allowed.any(-1, keepdim=True), 0.0) @ v


@misconception(
    "scaled_dot_product_attention",
    "Your causal mask starts at the first key; the queries are the last T of S positions.",
)
def causal_at_the_top_left(q, k, v, mask=None, causal=False):
    square = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril() if causal else None
    return attend(q, k, v, allowed_pairs(q, k, reference.combine(mask, square), False))


@misconception("scaled_dot_product_attention", "With a mask you forget `causal`; a key must be allowed by both.")
def causal_forgotten_under_a_mask(q, k, v, mask=None, causal=False):
    return attend(q, k, v, allowed_pairs(q, k, mask, causal and mask is None))


@misconception(
    "scaled_dot_product_attention", "With mask and causal you allow what either allows; a key must be allowed by both."
)
def causal_or_mask(q, k, v, mask=None, causal=False):
    square = reference.causal_mask(q.shape[-2], k.shape[-2])
    return attend(q, k, v, mask | square if causal and mask is not None else allowed_pairs(q, k, mask, causal))


@misconception("scaled_dot_product_attention", "A row of -inf becomes NaN in the softmax; a blind query gets zeros.")
def blind_rows_are_nan(q, k, v, mask=None, causal=False):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return reference.softmax(scores.masked_fill(~allowed_pairs(q, k, mask, causal), -math.inf)) @ v


@misconception(
    "scaled_dot_product_attention", "With a large negative number instead of -inf a blind query averages all values."
)
def blind_rows_are_means(q, k, v, mask=None, causal=False):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return reference.softmax(scores.masked_fill(~allowed_pairs(q, k, mask, causal), -1e9)) @ v


# -- split_heads, merge_heads


@misconception("split_heads", "A reshape alone mixes tokens: split into (H, hd) first, then exchange T and H.")
def splits_without_transpose(x, H):
    reference.split_heads(x, H)
    return x.reshape(x.shape[0], H, x.shape[1], x.shape[2] // H)


@misconception("split_heads", "You deal the features out in turn; head h owns the hd adjacent ones from h * hd on.")
def deals_features_in_turn(x, H):
    reference.split_heads(x, H)
    B, T, D = x.shape
    return x.reshape(B, T, D // H, H).permute(0, 3, 1, 2)


@misconception("split_heads", "You merge without exchanging H and T back; each token's heads lie apart.", "merge_heads")
def merges_without_transpose(x):
    B, H, T, hd = x.shape
    return x.reshape(B, T, H * hd)


@misconception(
    "split_heads", "You merge with the heads innermost; each head's features must stay adjacent.", "merge_heads"
)
def merges_heads_innermost(x):
    B, H, T, hd = x.shape
    return x.permute(0, 2, 3, 1).reshape(B, T, hd * H)


# -- MultiHeadAttention


@misconception("MultiHeadAttention", "The heads are concatenated but never mixed: the output projection is missing.")
class NoOutputProjection(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=True):
        q, k, v = (reference.split_heads(W(x), self.H) for W in (self.W_q, self.W_k, self.W_v))
        return reference.merge_heads(reference.scaled_dot_product_attention(q, k, v, mask, causal))


@misconception("MultiHeadAttention", "The scores are scaled by the model width; each head must use its own width hd.")
class ScalesByModelWidth(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=True):
        q, k, v = (reference.split_heads(W(x), self.H) for W in (self.W_q, self.W_k, self.W_v))
        heads = attend(q, k, v, allowed_pairs(q, k, mask, causal), x.shape[-1] ** -0.5)
        return self.W_o(reference.merge_heads(heads))


@misconception("MultiHeadAttention", "`causal` must be True by default, and be handed on together with the mask.")
class NotCausalByDefault(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=False):
        return super().forward(x, mask, causal)


@misconception("MultiHeadAttention", "The mask is not used; hand it on to the attention of all heads.")
class IgnoresMask(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=True):
        return super().forward(x, None, causal)


@misconception("MultiHeadAttention", "You attend in one head of width D; split into H heads before, and merge after.")
class OneWideHead(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=True):
        q, k, v = (W(x)[:, None] for W in (self.W_q, self.W_k, self.W_v))
        if mask is not None and mask.dim() > 2:
            mask = mask[..., :1, :, :]
        return self.W_o(reference.scaled_dot_product_attention(q, k, v, mask, causal)[:, 0])


@misconception("MultiHeadAttention", "The keys come from W_v and the values from W_k; exchange them.")
class ExchangesKeysAndValues(reference.MultiHeadAttention):
    def forward(self, x, mask=None, causal=True):
        q, k, v = (reference.split_heads(W(x), self.H) for W in (self.W_q, self.W_v, self.W_k))
        return self.W_o(reference.merge_heads(reference.scaled_dot_product_attention(q, k, v, mask, causal)))


# -- grouped_query_attention


@misconception(
    "grouped_query_attention", "You repeat the whole list of heads (0 1 0 1); neighbours share a head (0 0 1 1)."
)
def tiles_heads(q, k, v, mask=None):
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1)
    return reference.scaled_dot_product_attention(q, k, v, mask)


@misconception("grouped_query_attention", "You average the queries of a group; each query head keeps its own scores.")
def averages_queries(q, k, v, mask=None):
    group = q.shape[1] // k.shape[1]
    q = q.unflatten(1, (k.shape[1], group)).mean(2).repeat_interleave(group, dim=1)
    return reference.grouped_query_attention(q, k, v, mask)


@misconception(
    "grouped_query_attention", "Every query head reads the first key-value head; head h reads h // (H / Hk)."
)
def reads_only_the_first_head(q, k, v, mask=None):
    return reference.scaled_dot_product_attention(q, k[:, :1], v[:, :1], mask)


@misconception("grouped_query_attention", "The mask is not used; it must reach the attention of every query head.")
def mask_not_used(q, k, v, mask=None):
    return reference.grouped_query_attention(q, k, v)


@misconception("grouped_query_attention", "You add a causal mask; here only `mask` hides keys.")
def always_causal(q, k, v, mask=None):
    square = reference.causal_mask(q.shape[2], k.shape[2])
    return reference.grouped_query_attention(q, k, v, reference.combine(mask, square))


# -- sdpa_backward


def right_row_sum(P, dP):
    return (P * dP).sum(-1, keepdim=True)


def backward(q, k, v, dO, row_sum=right_row_sum, powers=(1, 1)):
    """The right gradients but for the row sum, and the scale of dq and dk raised to the given powers."""
    scale = q.shape[-1] ** -0.5
    P = weights(q, k)
    dP = dO @ v.transpose(-2, -1)
    dS = P * (dP - row_sum(P, dP))
    dq = dS @ k * scale ** powers[0]
    dk = dS.transpose(-2, -1) @ q * scale ** powers[1]
    return dq, dk, P.transpose(-2, -1) @ dO


@misconception(
    "sdpa_backward", "The softmax couples a row: subtract the sum of P * dP from dP before multiplying by P."
)
def no_row_sum(q, k, v, dO):
    return backward(q, k, v, dO, lambda P, dP: 0.0)


@misconception("sdpa_backward", "The scale is missing from dq and dk; the scores were divided by the root of hd.")
def scale_missing(q, k, v, dO):
    return backward(q, k, v, dO, powers=(0, 0))


@misconception("sdpa_backward", "The scale is in twice: once in dS and again in dq and dk. It enters each only once.")
def scale_twice(q, k, v, dO):
    return backward(q, k, v, dO, powers=(2, 2))


@misconception("sdpa_backward", "dk lacks the scale; like dq it needs the factor 1 / sqrt(hd) once.")
def scale_only_in_dq(q, k, v, dO):
    return backward(q, k, v, dO, powers=(1, 0))


@misconception("sdpa_backward", "You subtract the plain mean of dP; the mean must be weighted: the sum of P * dP.")
def plain_mean(q, k, v, dO):
    return backward(q, k, v, dO, lambda P, dP: dP.mean(-1, keepdim=True))


@misconception("sdpa_backward", "The sum of P * dP runs over the queries; it must run along the keys, the last axis.")
def sums_over_queries(q, k, v, dO):
    return backward(q, k, v, dO, lambda P, dP: (P * dP).sum(-2, keepdim=True))


# -- attention_entropy, attention_rollout


@misconception("attention_entropy", "Your entropy is in bits; use the natural logarithm, so that it is in nats.")
def in_bits(p):
    return reference.attention_entropy(p) / math.log(2)


@misconception("attention_entropy", "0 * log 0 is NaN on a computer; a weight of 0 must contribute 0.")
def zero_weights_are_nan(p):
    return -(p * p.log()).sum(-1)


@misconception("attention_entropy", "You average over the keys; the entropy is the sum of -p ln p along the last axis.")
def averages_over_keys(p):
    return reference.attention_entropy(p) / p.shape[-1]


@misconception("attention_entropy", "Your entropy is negative: the minus sign is missing.")
def sign_missing(p):
    return 0.0 - reference.attention_entropy(p)


def rollout(layers, step, start=None):
    """Fold layers with `step(rollout, p, identity)`."""
    if len(layers) == 0:
        raise ValueError("no layer")
    identity = torch.eye(layers[0].shape[-1], dtype=layers[0].dtype)
    result = identity.expand(layers[0].shape[0], -1, -1) if start is None else start(identity)
    for p in layers:
        result = step(result, p, identity)
    return result


@misconception(
    "attention_entropy",
    "You leave out the residual path; each layer is half attention, half identity.",
    "attention_rollout",
)
def no_residual(list_of_p):
    return rollout(list_of_p, lambda R, p, identity: p.mean(1) @ R)


@misconception(
    "attention_entropy",
    "You multiply the layers in the wrong order; the last layer stands on the left.",
    "attention_rollout",
)
def wrong_order(list_of_p):
    return rollout(list_of_p, lambda R, p, identity: R @ (p.mean(1) + identity) / 2)


@misconception(
    "attention_entropy",
    "You average the heads after the product; average them in each layer first.",
    "attention_rollout",
)
def averages_after_the_product(list_of_p):
    return rollout(list_of_p, lambda R, p, identity: (p + identity) / 2 @ R, lambda identity: identity).mean(1)


@misconception(
    "attention_entropy", "You add the identity but do not halve; rows of (A + I) / 2 sum to one.", "attention_rollout"
)
def does_not_halve(list_of_p):
    return rollout(list_of_p, lambda R, p, identity: (p.mean(1) + identity) @ R)
