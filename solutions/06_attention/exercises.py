# %% [markdown]
# # Chapter 6: Attention
#
# Eight exercises. By the end you have written attention, forward and backward, with every mask that a language model
# needs. The teaching is in the notes (`README.md`); here stand only the promises that each function must keep.
#
# Two conventions hold everywhere in this chapter. In a boolean mask **True means "may attend"**. Axes are named
# B batch, T queries, S keys, D model width, H heads, Hk key-value heads, hd width of a head, hv width of a value.

# %%
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# %% [markdown]
# ## 6.1 softmax
#
# Turn scores into weights that are positive and sum to one, and let no exponential overflow on the way.


# %%
def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """Turn scores into non-negative weights that sum to one along dim.

    Args:
        x: scores of any floating dtype and any shape; `dim` is not empty. A score may be -inf, but not all along `dim`.
        dim: the axis to normalise, counted from the front or, if negative, from the back.

    Returns:
        A new tensor with the shape and dtype of x.

    Example:
        >>> softmax(torch.tensor([0.0, 1.0986]))
        tensor([0.2500, 0.7500])

    Notes:
        Finite for scores of any finite size: exp must never see a large positive number, and no slice may lose all its
        weight because another slice holds larger scores. Nothing is added to the denominator: the weights sum to one
        to the precision of the dtype. A score of -inf gets a weight of exactly 0. x itself is not changed.
    """
    ### BEGIN SOLUTION
    top = x.amax(dim=dim, keepdim=True)  # the largest of each slice, not of the whole tensor
    z = torch.exp(x - top)
    return z / z.sum(dim=dim, keepdim=True)
    ### END SOLUTION


# %% [markdown]
# ## 6.2 causal_mask, padding_mask, combine
#
# A mask is a table of booleans: row = the query that looks, column = the key it looks at, True = it may.


# %%
def causal_mask(T: int, S: int | None = None) -> Tensor:
    """Build the mask that lets each query see its own position and everything before it.

    Args:
        T: number of queries, at least 1.
        S: number of keys; None means S = T.

    Returns:
        Bool tensor (T, S), True = may attend.

    Raises:
        ValueError: if S < T.

    Example:
        >>> causal_mask(2, 4).int()
        tensor([[1, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)

    Notes:
        The queries are the *last* T of the S positions, as when a model generates and the keys of the past are kept.
        So row i (from 0) sees exactly S - T + i + 1 keys, the first ones.
    """
    ### BEGIN SOLUTION
    S = T if S is None else S
    if S < T:
        raise ValueError(f"causal_mask needs S >= T, but S={S} and T={T}")
    position = torch.arange(S - T, S)[:, None]  # (T, 1) where each query stands
    return torch.arange(S) <= position  # (T, S)
    ### END SOLUTION


# %%
def padding_mask(lengths: Tensor | Sequence[int], S: int) -> Tensor:
    """Build the mask that hides the padding behind each sequence of a batch.

    Args:
        lengths: (B,) int64 tensor or sequence of ints; sequence b holds lengths[b] real tokens, then padding.
        S: number of keys.

    Returns:
        Bool tensor (B, 1, 1, S), True = may attend; it broadcasts against scores (B, H, T, S).

    Raises:
        ValueError: if a length is negative or larger than S.

    Example:
        >>> padding_mask([3, 1], 4).int()[:, 0, 0]
        tensor([[1, 1, 1, 0],
                [1, 0, 0, 0]], dtype=torch.int32)

    Notes:
        It hides keys, never queries: what a padded query computes is thrown away later. Length 0 gives a row of False,
        length S a row of True.
    """
    ### BEGIN SOLUTION
    lengths = torch.as_tensor(lengths)
    if ((lengths < 0) | (lengths > S)).any():
        raise ValueError(f"every length must lie between 0 and S={S}, but lengths are {lengths.tolist()}")
    real = torch.arange(S) < lengths[:, None]  # (B, S)
    return real[:, None, None, :]  # (B, 1, 1, S)
    ### END SOLUTION


# %%
def combine(*masks: Tensor | None) -> Tensor | None:
    """Join masks into one that allows a pair only where every mask allows it.

    Args:
        masks: any number of bool tensors whose shapes broadcast together; None stands for "no restriction".

    Returns:
        Bool tensor of the broadcast shape, or None if there is no mask at all or all are None.

    Example:
        >>> combine(causal_mask(2), None, padding_mask([1], 2)).int()
        tensor([[[[1, 0],
                  [1, 0]]]], dtype=torch.int32)

    Notes:
        The masks that come in are not changed.
    """
    ### BEGIN SOLUTION
    joined = None
    for mask in masks:
        if mask is not None:
            joined = mask if joined is None else joined & mask
    return joined
    ### END SOLUTION


# %% [markdown]
# ## 6.3 scaled_dot_product_attention
#
# The heart of the chapter: every query scores every key it may see and takes the weighted mean of their values.


# %%
def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False
) -> Tensor:
    """Mix the values of the keys that each query may see, weighted by the softmax of q k^T / sqrt(hd).

    Args:
        q: (B, H, T, hd) queries, floating.
        k: (B, H, S, hd) keys, dtype of q.
        v: (B, H, S, hv) values, dtype of q; hv may differ from hd.
        mask: bool, broadcastable to (B, H, T, S), True = may attend; None allows everything.
        causal: also apply `causal_mask(T, S)`; then T <= S.

    Returns:
        (B, H, T, hv), dtype of q.

    Example:
        >>> q, k, v = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 2, 2), torch.tensor([[[[0.0], [4.0]]]])
        >>> scaled_dot_product_attention(q, k, v).item()
        2.0

    Notes:
        With both mask and causal, a key must be allowed by both. Hidden keys have no influence: the seen ones share
        the whole weight. A query that may see no key gets zeros, not NaN. Scores of any finite size give a finite
        result. No input is changed.
    """
    ### BEGIN SOLUTION
    T, S = q.shape[-2], k.shape[-2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)
    allowed = combine(mask, causal_mask(T, S).to(q.device) if causal else None)
    if allowed is None:
        return softmax(scores) @ v  # (B, H, T, hv)
    blind = ~allowed.any(dim=-1, keepdim=True)  # queries that may see nothing
    # Blind rows keep their scores, so the softmax makes no NaN that could come back with the gradient;
    # what they gather is set to zero afterwards.
    scores = scores.masked_fill(~allowed & ~blind, -math.inf)
    P = softmax(scores).masked_fill(blind, 0.0)
    return P @ v  # (B, H, T, hv)
    ### END SOLUTION


# %% [markdown]
# ## 6.4 split_heads, merge_heads
#
# Heads live side by side in the feature axis. Attention wants them as an axis of their own.


# %%
def split_heads(x: Tensor, H: int) -> Tensor:
    """Give each head its own axis: (B, T, D) becomes (B, H, T, hd) with hd = D / H.

    Args:
        x: (B, T, D), any dtype; it need not be contiguous.
        H: number of heads.

    Returns:
        (B, H, T, hd), where entry [b, h, t, i] is x[b, t, h * hd + i].

    Raises:
        ValueError: if H does not divide D.

    Example:
        >>> split_heads(torch.arange(8).reshape(1, 2, 4), 2)[0, 1]
        tensor([[2, 3],
                [6, 7]])
    """
    ### BEGIN SOLUTION
    B, T, D = x.shape
    if D % H:
        raise ValueError(f"H={H} heads do not divide D={D}")
    return x.reshape(B, T, H, D // H).transpose(1, 2)  # (B, H, T, hd)
    ### END SOLUTION


# %%
def merge_heads(x: Tensor) -> Tensor:
    """Put the heads side by side again: (B, H, T, hd) becomes (B, T, H * hd).

    Args:
        x: (B, H, T, hd), any dtype; it need not be contiguous.

    Returns:
        (B, T, H * hd), so that merge_heads(split_heads(x, H)) equals x.

    Example:
        >>> merge_heads(torch.tensor([[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]))
        tensor([[[0, 1, 2, 3],
                 [4, 5, 6, 7]]])
    """
    ### BEGIN SOLUTION
    B, H, T, hd = x.shape
    return x.transpose(1, 2).reshape(B, T, H * hd)  # (B, T, H * hd)
    ### END SOLUTION


# %% [markdown]
# ## 6.5 MultiHeadAttention
#
# Project, split, attend in every head at once, merge, project. Use your own functions from above.


# %%
class MultiHeadAttention(nn.Module):
    """Attend with H heads of width D / H over one sequence (self-attention), then mix the heads.

    Args:
        D: model width.
        H: number of heads.

    Raises:
        ValueError: if H does not divide D.

    Example:
        >>> MultiHeadAttention(6, 3)(torch.zeros(2, 5, 6)).shape
        torch.Size([2, 5, 6])

    Notes:
        The module's only parameters are W_q, W_k, W_v, W_o, each an nn.Linear(D, D, bias=False); its state_dict holds
        exactly W_q.weight, W_k.weight, W_v.weight and W_o.weight, each (D, D). Head h works on the features
        h * hd ... (h + 1) * hd - 1 of the projections, as in split_heads. There is no dropout, even in training mode.
        Gradients reach x and all four weights, so every step, in the functions called too, must be a torch operation;
        they are finite even when some position may see no key.
    """

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        if D % H:
            raise ValueError(f"H={H} heads do not divide D={D}")
        self.H = H
        self.W_q = nn.Linear(D, D, bias=False)
        self.W_k = nn.Linear(D, D, bias=False)
        self.W_v = nn.Linear(D, D, bias=False)
        self.W_o = nn.Linear(D, D, bias=False)
        ### END SOLUTION

    def forward(self, x: Tensor, mask: Tensor | None = None, causal: bool = True) -> Tensor:
        """Map x (B, T, D) to (B, T, D).

        mask is bool, True = may attend, and broadcasts to (B, H, T, T); with causal (the default) a key must be allowed
        by both. A position that may see no key gets zeros.
        """
        ### BEGIN SOLUTION
        q = split_heads(self.W_q(x), self.H)  # (B, H, T, hd)
        k = split_heads(self.W_k(x), self.H)  # (B, H, T, hd)
        v = split_heads(self.W_v(x), self.H)  # (B, H, T, hd)
        heads = scaled_dot_product_attention(q, k, v, mask=mask, causal=causal)  # (B, H, T, hd)
        return self.W_o(merge_heads(heads))  # (B, T, D)
        ### END SOLUTION


# %% [markdown]
# ## 6.6 grouped_query_attention
#
# Several query heads share one head of keys and values. The cache of the past shrinks by that factor.


# %%
def grouped_query_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend with H query heads over Hk shared heads of keys and values.

    Args:
        q: (B, H, T, hd) queries, floating.
        k: (B, Hk, S, hd) keys, dtype of q.
        v: (B, Hk, S, hv) values, dtype of q.
        mask: bool, broadcastable to (B, H, T, S), True = may attend; None allows everything. There is no causal flag.

    Returns:
        (B, H, T, hv), dtype of q.

    Raises:
        ValueError: if Hk does not divide H.

    Example:
        >>> v = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1)
        >>> grouped_query_attention(torch.zeros(1, 4, 1, 3), torch.zeros(1, 2, 1, 3), v).flatten()
        tensor([10., 10., 20., 20.])

    Notes:
        Query head h uses key-value head h // (H / Hk): neighbours share. Hk = H is multi-head attention, Hk = 1 is
        multi-query attention. A query that may see no key gets zeros. No input is changed.
    """
    ### BEGIN SOLUTION
    H, Hk = q.shape[1], k.shape[1]
    if H % Hk:
        raise ValueError(f"Hk={Hk} key-value heads do not divide H={H} query heads")
    k = k.repeat_interleave(H // Hk, dim=1)  # (B, H, S, hd): 0 0 1 1, where .repeat gives 0 1 0 1
    v = v.repeat_interleave(H // Hk, dim=1)  # (B, H, S, hv)
    return scaled_dot_product_attention(q, k, v, mask=mask)  # (B, H, T, hv)
    ### END SOLUTION


# %% [markdown]
# ## 6.7 sdpa_backward
#
# Given the gradient of the loss with respect to attention's output, find it for the three inputs, without autograd.


# %%
def sdpa_backward(q: Tensor, k: Tensor, v: Tensor, dO: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of O = softmax(q k^T / sqrt(hd)) v with respect to q, k and v.

    Args:
        q: (B, H, T, hd) queries, floating.
        k: (B, H, S, hd) keys, dtype of q.
        v: (B, H, S, hv) values, dtype of q.
        dO: (B, H, T, hv) gradient of the loss with respect to O, dtype of q.

    Returns:
        The tuple (dq, dk, dv), with the shapes of q, k and v and the dtype of q.

    Example:
        >>> q, dO = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
        >>> k, v = torch.tensor([[[[1.0], [3.0]]]]), torch.tensor([[[[0.0], [2.0]]]])
        >>> [gradient.flatten().tolist() for gradient in sdpa_backward(q, k, v, dO)]
        [[1.0], [0.0, 0.0], [0.5, 0.5]]

    Notes:
        No mask. Write the derivative out: autograd is not available here. Scores of any finite size give finite
        gradients. No input is changed.
    """
    ### BEGIN SOLUTION
    scale = 1 / math.sqrt(q.shape[-1])
    P = softmax(q @ k.transpose(-2, -1) * scale)  # (B, H, T, S)
    dv = P.transpose(-2, -1) @ dO  # (B, H, S, hv)
    dP = dO @ v.transpose(-2, -1)  # (B, H, T, S)
    # The softmax couples a row: a key gains only by being better than the weighted mean of its row.
    mu = (P * dP).sum(dim=-1, keepdim=True)  # (B, H, T, 1)
    dS = P * (dP - mu)  # (B, H, T, S)
    dq = dS @ k * scale  # (B, H, T, hd)
    dk = dS.transpose(-2, -1) @ q * scale  # (B, H, S, hd)
    return dq, dk, dv
    ### END SOLUTION


# %% [markdown]
# ## 6.8 attention_entropy, attention_rollout
#
# Two ways of reading the weights: how widely a head looks, and which inputs a deep position draws on.


# %%
def attention_entropy(p: Tensor) -> Tensor:
    """Compute the entropy, in nats, of each row of attention weights.

    Args:
        p: (..., S) weights, floating, such as (L, B, H, T, T); each row along the last axis is non-negative.

    Returns:
        (...), dtype of p: the shape of p without its last axis.

    Example:
        >>> attention_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])

    Notes:
        A weight of 0 contributes exactly 0, so a one-hot row has entropy 0 and so has a row of zeros (a query that may
        see no key). Nothing is added to the weights before the logarithm. p is not changed.
    """
    ### BEGIN SOLUTION
    log_p = torch.where(p > 0, p, 1.0).log()  # log 1 = 0 stands in where p = 0
    return 0.0 - (p * log_p).sum(dim=-1)  # 0 - x rather than -x: no "-0." in the output
    ### END SOLUTION


# %%
def attention_rollout(list_of_p: Sequence[Tensor] | Tensor) -> Tensor:
    """Follow attention through all layers: how much of each input token reaches each final position.

    Args:
        list_of_p: L tensors (B, H, T, T), first layer first, or one tensor (L, B, H, T, T); each row sums to one.

    Returns:
        (B, T, T), dtype of the weights: entry [b, i, j] is the share of input token j in position i after all layers.

    Raises:
        ValueError: if there is no layer.

    Example:
        >>> first = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
        >>> second = torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]])
        >>> attention_rollout([first, second])
        tensor([[[0.7500, 0.2500],
                 [0.5000, 0.5000]]])

    Notes:
        Layer l contributes A_l = (mean of its heads + identity) / 2; the identity is the residual path. The result is
        A_L ... A_2 A_1: the last layer stands on the left. Heads are averaged before the product. No input is changed.
    """
    ### BEGIN SOLUTION
    if len(list_of_p) == 0:
        raise ValueError("attention_rollout needs at least one layer")
    p = list_of_p[0]
    identity = torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)
    rollout = identity.expand(p.shape[0], -1, -1)  # (B, T, T)
    for p in list_of_p:
        A = (p.mean(dim=1) + identity) / 2  # (B, T, T)
        rollout = A @ rollout  # the newer layer from the left
    return rollout
    ### END SOLUTION
