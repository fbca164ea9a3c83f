"""Right answers of chapter 6 written in other styles; a suite that fails one of them is wrong."""

import functools
import math

import numpy as np
import torch
from torch import nn

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- softmax


@alternative("softmax", "Python floats, one slice at a time")
def softmax_by_loops(x, dim=-1):
    rows = x.movedim(dim, -1).reshape(-1, x.shape[dim]).tolist()
    out = []
    for row in rows:
        top = max(row)
        z = [math.exp(score - top) for score in row]
        out.append([e / sum(z) for e in z])
    return torch.tensor(out, dtype=x.dtype).reshape(x.movedim(dim, -1).shape).movedim(-1, dim)


@alternative("softmax", "numpy in float64, rounded at the end")
def softmax_by_numpy(x, dim=-1):
    wide = x.detach().double().numpy()
    z = np.exp(wide - wide.max(axis=dim, keepdims=True))
    return torch.from_numpy(np.asarray(z / z.sum(axis=dim, keepdims=True))).to(x.dtype)


@alternative("softmax", "logsumexp of the shifted scores")
def softmax_by_logsumexp(x, dim=-1):
    shifted = x - torch.max(x, dim, keepdim=True).values
    return torch.exp(shifted - torch.logsumexp(shifted, dim, keepdim=True))


@alternative("softmax", "one pass with a running maximum and a running sum")
def softmax_in_one_pass(x, dim=-1):
    slices = x.unbind(dim)
    top, total = slices[0], torch.ones_like(slices[0])
    for score in slices[1:]:
        new = torch.maximum(top, score)
        dead = torch.isinf(new)  # only -inf so far
        total = torch.where(dead, 0, total * torch.exp(top - new) + torch.exp(score - new))
        total = torch.where(dead, total + 1, total)
        top = new
    return torch.stack([torch.exp(score - top) / total for score in slices], dim=dim)


# -- causal_mask, padding_mask, combine


@alternative("causal_mask", "the lower triangle of ones")
def causal_by_tril(T, S=None):
    if S is None:
        S = T
    if T > S:
        raise ValueError("fewer keys than queries")
    return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T)


@alternative("causal_mask", "nested lists of booleans")
def causal_by_lists(T, S=None):
    past = 0 if S is None else S - T
    if past < 0:
        raise ValueError("fewer keys than queries")
    return torch.tensor([[j <= past + i for j in range(past + T)] for i in range(T)])


@alternative("causal_mask", "numpy's tri")
def causal_by_numpy(T, S=None):
    S = T if S is None else S
    if not T <= S:
        raise ValueError("fewer keys than queries")
    return torch.from_numpy(np.tri(T, S, S - T, dtype=bool))


@alternative("causal_mask", "a row filled up to its length", replaces="padding_mask")
def padding_by_filling(lengths, S):
    mask = torch.zeros(len(lengths), 1, 1, S, dtype=torch.bool)
    for b, n in enumerate(lengths):
        if n < 0 or n > S:
            raise ValueError("length")
        mask[b, ..., : int(n)] = True
    return mask


@alternative("causal_mask", "lists", replaces="padding_mask")
def padding_by_lists(lengths, S):
    lengths = [int(n) for n in lengths]
    if lengths and not 0 <= min(lengths) <= max(lengths) <= S:
        raise ValueError("length")
    return torch.tensor([[[[True] * n + [False] * (S - n)]] for n in lengths])


@alternative("causal_mask", "reduce", replaces="combine")
def combine_by_reduce(*masks):
    given = [mask for mask in masks if mask is not None]
    return functools.reduce(torch.logical_and, given) if given else None


@alternative("causal_mask", "all masks broadcast, stacked, and counted", replaces="combine")
def combine_by_stack(*masks):
    given = list(filter(lambda mask: mask is not None, masks))
    if not given:
        return None
    return torch.stack(torch.broadcast_tensors(*given)).all(dim=0)


# -- scaled_dot_product_attention


def attend_by_loops(q, k, v, mask=None, causal=False):
    """Each query by itself, over the list of keys that it may see."""
    (B, H, T, hd), S = q.shape, k.shape[2]
    out = q.new_zeros(B, H, T, v.shape[-1])
    seen = torch.ones(B, H, T, S, dtype=torch.bool) if mask is None else mask.expand(B, H, T, S)
    for b in range(B):
        for h in range(H):
            for t in range(T):
                keys = [s for s in range(S) if seen[b, h, t, s] and (not causal or s <= S - T + t)]
                if keys:
                    P = reference.softmax(k[b, h, keys] @ q[b, h, t] / math.sqrt(hd))
                    out[b, h, t] = P @ v[b, h, keys]
    return out


@alternative("scaled_dot_product_attention", "a loop over the queries, each with the keys that it may see")
def sdpa_by_loops(q, k, v, mask=None, causal=False):
    return attend_by_loops(q, k, v, mask, causal)


@alternative("scaled_dot_product_attention", "einsum, the lowest number of the dtype, and weights set to zero")
def sdpa_by_einsum(q, k, v, mask=None, causal=False):
    scores = torch.einsum("bhte,bhse->bhts", q, k) * q.size(-1) ** -0.5
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & mask
    if causal:
        allowed = allowed & torch.ones(scores.shape[-2:], dtype=torch.bool).tril(k.size(-2) - q.size(-2))
    P = reference.softmax(torch.where(allowed, scores, torch.finfo(scores.dtype).min), dim=3)
    return torch.einsum("bhts,bhsv->bhtv", P * allowed, v)


@alternative("scaled_dot_product_attention", "numpy in float64; the denominator of a blind query is one")
def sdpa_by_numpy(q, k, v, mask=None, causal=False):
    Q, K, V = (x.detach().double().numpy() for x in (q, k, v))
    scores = Q / np.sqrt(Q.shape[-1]) @ np.swapaxes(K, 2, 3)
    seen = np.ones(scores.shape, dtype=bool)
    if mask is not None:
        seen &= mask.numpy()
    if causal:
        seen &= np.tri(Q.shape[2], K.shape[2], K.shape[2] - Q.shape[2], dtype=bool)
    top = np.where(seen, scores, -np.inf).max(axis=-1, keepdims=True)
    z = np.where(seen, np.exp(np.where(seen, scores - np.where(np.isfinite(top), top, 0), 0)), 0)
    total = z.sum(axis=-1, keepdims=True)
    return torch.from_numpy(z / np.where(total == 0, 1, total) @ V).to(q.dtype)


@alternative("scaled_dot_product_attention", "a NaN row is replaced after the softmax; q is scaled, not the scores")
def sdpa_by_nan_to_num(q, k, v, mask=None, causal=False):
    scores = torch.matmul(q / math.sqrt(q.shape[-1]), k.mT)
    if causal:
        T, S = scores.shape[-2:]
        scores = scores.masked_fill(torch.arange(S) > torch.arange(S - T, S).unsqueeze(1), float("-inf"))
    if mask is not None:
        scores = torch.where(mask, scores, float("-inf"))
    return torch.nan_to_num(reference.softmax(scores), nan=0.0) @ v


@alternative("scaled_dot_product_attention", "one key after another, with a running maximum")
def sdpa_online(q, k, v, mask=None, causal=False):
    (B, H, T, hd), S = q.shape, k.shape[2]
    allowed = torch.ones(B, H, T, S, dtype=torch.bool) if mask is None else mask.expand(B, H, T, S).clone()
    if causal:
        allowed &= torch.arange(S) - torch.arange(T)[:, None] <= S - T
    top = q.new_full((B, H, T, 1), -math.inf)
    total, out = torch.zeros_like(top), q.new_zeros(B, H, T, v.shape[-1])
    for s in range(S):
        seen = allowed[..., s : s + 1]
        score = (q * k[:, :, s : s + 1]).sum(-1, keepdim=True) / math.sqrt(hd)
        new = torch.where(seen, torch.maximum(top, score), top)
        shrink = torch.where(torch.isinf(top), 0, torch.exp(top - new))
        weight = torch.where(seen, torch.exp(score - new), 0)
        total, out, top = total * shrink + weight, out * shrink + weight * v[:, :, s : s + 1], new
    return out / torch.where(total == 0, 1, total)


# -- split_heads, merge_heads


@alternative("split_heads", "unflatten and permute")
def split_by_unflatten(x, H):
    if x.shape[-1] % H != 0:
        raise ValueError("H")
    return x.unflatten(-1, (H, -1)).permute(0, 2, 1, 3).contiguous()


@alternative("split_heads", "slices of the last axis, stacked")
def split_by_stack(x, H):
    hd, rest = divmod(x.size(2), H)
    if rest:
        raise ValueError("H")
    return torch.stack([x[:, :, h * hd : (h + 1) * hd] for h in range(H)], 1)


@alternative("split_heads", "written entry by entry into an empty tensor")
def split_by_loops(x, H):
    B, T, D = x.shape
    if D % H:
        raise ValueError("H")
    out = torch.empty(B, H, T, D // H, dtype=x.dtype)
    for d in range(D):
        out[:, d // (D // H), :, d % (D // H)] = x[:, :, d]
    return out


@alternative("split_heads", "heads taken apart and put side by side", replaces="merge_heads")
def merge_by_cat(x):
    return torch.cat(x.unbind(dim=1), dim=2)


@alternative("split_heads", "permute and flatten", replaces="merge_heads")
def merge_by_flatten(x):
    return x.permute(0, 2, 1, 3).flatten(start_dim=2)


# -- MultiHeadAttention


@alternative("MultiHeadAttention", "each head by itself, on its slice of the weights, the output added up")
class HeadsByLoop(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        if D % H != 0:
            raise ValueError("H")
        self.hd, self.H = D // H, H
        for name in ("W_q", "W_k", "W_v", "W_o"):
            setattr(self, name, nn.Linear(D, D, bias=False))

    def forward(self, x, mask=None, causal=True):
        B, T, D = x.shape
        allowed = torch.ones(B, self.H, T, T, dtype=torch.bool)
        if mask is not None:
            allowed = allowed & mask
        if causal:
            allowed = torch.tril(allowed)
        out = torch.zeros_like(x)
        for h in range(self.H):
            rows = slice(h * self.hd, (h + 1) * self.hd)
            q, k, v = (nn.functional.linear(x, W.weight[rows]) for W in (self.W_q, self.W_k, self.W_v))
            scores = torch.bmm(q, k.transpose(1, 2)) / self.hd**0.5
            scores = scores + torch.zeros_like(scores).masked_fill(~allowed[:, h], torch.finfo(x.dtype).min)
            P = reference.softmax(scores.clamp(min=torch.finfo(x.dtype).min)) * allowed[:, h]
            out = out + P @ v @ self.W_o.weight[:, rows].T
        return out


@alternative("MultiHeadAttention", "one product for the three projections, and einsum")
class HeadsByEinsum(nn.Module):
    def __init__(self, D, H):
        if D % H:
            raise ValueError("H")
        super().__init__()
        self.heads = H
        self.W_q, self.W_k, self.W_v, self.W_o = (nn.Linear(D, D, bias=False) for _ in range(4))

    def forward(self, x, mask=None, causal=True):
        W = torch.stack([self.W_q.weight, self.W_k.weight, self.W_v.weight])
        qkv = torch.einsum("btd,ced->cbte", x, W).unflatten(-1, (self.heads, -1))
        q, k, v = qkv.transpose(2, 3)
        out = reference.scaled_dot_product_attention(q, k, v, mask, causal)
        return torch.einsum("bhte,dhe->btd", out, self.W_o.weight.unflatten(1, (self.heads, -1)))


# -- grouped_query_attention


@alternative("grouped_query_attention", "queries of a group are more queries of one head")
def grouped_by_folding(q, k, v, mask=None):
    (B, H, T, hd), (Hk, S) = q.shape, k.shape[1:3]
    if H % Hk:
        raise ValueError("Hk")
    if mask is not None:
        mask = mask.expand(B, H, T, S).reshape(B, Hk, H // Hk * T, S)
    out = reference.scaled_dot_product_attention(q.reshape(B, Hk, H // Hk * T, hd), k, v, mask)
    return out.reshape(B, H, T, -1)


@alternative("grouped_query_attention", "five axes and einsum")
def grouped_by_einsum(q, k, v, mask=None):
    B, H, T, hd = q.shape
    Hk, S = k.size(1), k.size(2)
    if H % Hk != 0:
        raise ValueError("Hk")
    grouped = q.unflatten(1, (Hk, H // Hk))
    scores = torch.einsum("bkgte,bkse->bkgts", grouped, k).flatten(1, 2) / hd**0.5
    allowed = torch.ones(B, H, T, S, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & mask
    P = torch.softmax(scores.masked_fill(allowed.logical_not(), -torch.inf), -1).masked_fill(~allowed, 0)
    return torch.einsum("bkgts,bksv->bkgtv", P.unflatten(1, (Hk, H // Hk)), v).flatten(1, 2)


@alternative("grouped_query_attention", "one query head at a time")
def grouped_by_heads(q, k, v, mask=None):
    B, H, T, _ = q.shape
    if H % k.shape[1]:
        raise ValueError("Hk")
    full = None if mask is None else mask.broadcast_to(B, H, T, k.shape[2])
    out = []
    for h in range(H):
        j = h // (H // k.shape[1])
        part = None if full is None else full[:, [h]]
        out.append(attend_by_loops(q[:, [h]], k[:, [j]], v[:, [j]], part))
    return torch.cat(out, dim=1)


# -- sdpa_backward


@alternative("sdpa_backward", "the Jacobian of the softmax of each row, written out")
def backward_by_jacobian(q, k, v, dO):
    scale = q.shape[-1] ** -0.5
    P = reference.softmax(torch.einsum("bhte,bhse->bhts", q, k) * scale)
    J = torch.diag_embed(P) - torch.einsum("bhts,bhtr->bhtsr", P, P)
    dS = torch.einsum("bhtsr,bhsv,bhtv->bhtr", J, v, dO) * scale
    return (
        torch.einsum("bhts,bhse->bhte", dS, k),
        torch.einsum("bhts,bhte->bhse", dS, q),
        torch.einsum("bhts,bhtv->bhsv", P, dO),
    )


@alternative("sdpa_backward", "numpy, float64, one query at a time, gradients added up")
def backward_by_loops(q, k, v, dO):
    Q, K, V, G = (x.detach().double().numpy() for x in (q, k, v, dO))
    dQ, dK, dV = np.zeros_like(Q), np.zeros_like(K), np.zeros_like(V)
    scale = 1 / math.sqrt(Q.shape[-1])
    for b, h, t in np.ndindex(Q.shape[:3]):
        s = K[b, h] @ Q[b, h, t] * scale
        p = np.exp(s - s.max())
        p /= p.sum()
        dp = V[b, h] @ G[b, h, t]
        ds = p * (dp - p @ dp) * scale
        dQ[b, h, t] = ds @ K[b, h]
        dK[b, h] += np.outer(ds, Q[b, h, t])
        dV[b, h] += np.outer(p, G[b, h, t])
    return tuple(torch.from_numpy(d).to(q.dtype) for d in (dQ, dK, dV))


@alternative("sdpa_backward", "the row's mean taken from the output, as flash attention does")
def backward_by_output(q, k, v, dO):
    half = q.shape[-1] ** -0.25
    q, k = q * half, k * half
    P = reference.softmax(q @ k.mT)
    delta = (P @ v * dO).sum(-1, keepdim=True)
    dS = P * (dO @ v.mT - delta)
    return dS @ k * half, dS.mT @ q * half, P.mT @ dO


# -- attention_entropy, attention_rollout


@alternative("attention_entropy", "xlogy")
def entropy_by_xlogy(p):
    return -torch.xlogy(p, p).sum(-1)


@alternative("attention_entropy", "0 times -inf made zero afterwards")
def entropy_by_nan_to_num(p):
    return torch.nan_to_num(-p * torch.log(p), nan=0.0).sum(dim=-1)


@alternative("attention_entropy", "Python floats, row by row")
def entropy_by_loops(p):
    rows = p.reshape(-1, p.shape[-1]).tolist()
    values = [math.fsum(-x * math.log(x) for x in row if x > 0) for row in rows]
    return torch.tensor(values, dtype=p.dtype).reshape(p.shape[:-1])


@alternative("attention_entropy", "from the last layer down", replaces="attention_rollout")
def rollout_from_the_top(list_of_p):
    layers = list(list_of_p)
    if not layers:
        raise ValueError("no layer")
    B, H, T, _ = layers[-1].shape
    rollout = torch.eye(T, dtype=layers[-1].dtype).repeat(B, 1, 1)
    while layers:
        p = layers.pop()
        rollout = 0.5 * rollout + 0.5 * torch.einsum("bij,bhjk->bik", rollout, p) / H
    return rollout


@alternative("attention_entropy", "numpy, one sequence at a time, half added on the diagonal", "attention_rollout")
def rollout_by_numpy(list_of_p):
    if not len(list_of_p):
        raise ValueError("no layer")
    stacked = np.stack([p.double().numpy() for p in list_of_p]).mean(axis=2) / 2
    T = stacked.shape[-1]
    stacked[..., range(T), range(T)] += 0.5
    out = []
    for b in range(stacked.shape[1]):
        out.append(functools.reduce(lambda so_far, A: A @ so_far, stacked[:, b]))
    return torch.from_numpy(np.array(out)).to(list_of_p[0].dtype)
