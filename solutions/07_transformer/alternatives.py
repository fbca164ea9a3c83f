"""Right answers of chapter 7 written in other styles; a suite that fails one of them is wrong."""

import math

import numpy as np
import torch
from torch import nn

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- layer_norm


@alternative("layer_norm", "plain loops over the rows, with math.sqrt")
def layer_norm_by_loops(x, gamma, beta, eps=1e-5):
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(rows)
    for i, row in enumerate(rows):
        numbers = row.tolist()
        mean = math.fsum(numbers) / len(numbers)
        variance = math.fsum((number - mean) ** 2 for number in numbers) / len(numbers)
        for j, number in enumerate(numbers):
            out[i, j] = gamma[j] * (number - mean) / math.sqrt(variance + eps) + beta[j]
    return out.reshape(x.shape)


@alternative("layer_norm", "numpy inside, in float64, cast back at the end")
def layer_norm_in_numpy(x, gamma, beta, eps=1e-5):
    a = x.detach().numpy().astype(np.float64)
    z = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + eps)
    return torch.from_numpy(np.asarray(z * gamma.numpy() + beta.numpy())).to(x.dtype)


@alternative("layer_norm", "torch.var_mean without correction, and rsqrt")
def layer_norm_by_var_mean(x, gamma, beta, eps=1e-5):
    variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
    return torch.addcmul(beta, (x - mean) * torch.rsqrt(variance + eps), gamma)


# -- rms_norm


@alternative("rms_norm", "everything in float64, by the length of the vector")
def rms_norm_by_length(x, gamma, eps=1e-6):
    wide = x.double()
    D = x.shape[-1]
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (gamma.double() * wide * math.sqrt(D) / torch.sqrt(length**2 + D * eps)).to(x.dtype)


@alternative("rms_norm", "einsum and rsqrt, cast back before the scale")
def rms_norm_by_einsum(x, gamma, eps=1e-6):
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    mean_square = torch.einsum("...d,...d->...", wide, wide)[..., None] / x.shape[-1]
    return (wide * torch.rsqrt(mean_square + eps)).to(x.dtype) * gamma


# -- gelu_tanh, FeedForward


@alternative("gelu_tanh", "through the sigmoid: (1 + tanh u) / 2 is sigmoid(2 u)")
def gelu_by_sigmoid(x):
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * x * (1 + 0.044715 * x * x))


@alternative("gelu_tanh", "number by number, tanh by its definition on the safe side of zero")
def gelu_by_numbers(x):
    def one(a):
        u = math.sqrt(2.0 / math.pi) * (a + 0.044715 * a * a * a)
        e = torch.exp(-2 * u.abs())  # never above 1
        return a / 2 * (1 + torch.sign(u) * (1 - e) / (1 + e))

    return torch.stack([one(a) for a in x.flatten()]).reshape(x.shape) if x.numel() else x.clone()


@alternative("gelu_tanh", "the layers used by their weights, einsum", replaces="FeedForward")
class FeedForwardByEinsum(nn.Module):
    def __init__(self, D, F=None, bias=True):
        super().__init__()
        width = F or 4 * D
        self.down = nn.Linear(width, D, bias)
        self.up = nn.Linear(D, width, bias)

    def forward(self, x):
        h = torch.einsum("...d,fd->...f", x, self.up.weight)
        h = reference.gelu_tanh(h if self.up.bias is None else h + self.up.bias)
        y = torch.einsum("...f,df->...d", h, self.down.weight)
        return y if self.down.bias is None else y + self.down.bias


# -- swiglu, swiglu_hidden


@alternative("swiglu", "one product with both matrices, then chunk")
def swiglu_fused(x, w1, w2, w3):
    gate, value = torch.nn.functional.linear(x, torch.cat([w1, w3])).chunk(2, dim=-1)
    return torch.nn.functional.linear(torch.nn.functional.silu(gate) * value, w2)


@alternative("swiglu", "einsum, and silu as a quotient")
def swiglu_by_einsum(x, w1, w2, w3):
    a = torch.einsum("...d,fd->...f", x, w1)
    return torch.einsum("...f,...f,df->...d", a / (1 + torch.exp(-a)), torch.einsum("...d,fd->...f", x, w3), w2)


@alternative("swiglu", "counting up from zero", replaces="swiglu_hidden")
def swiglu_hidden_by_counting(D, multiple_of):
    F = 0
    while 3 * F < 8 * D:
        F += multiple_of
    return F


@alternative("swiglu", "math.ceil of a quotient", replaces="swiglu_hidden")
def swiglu_hidden_by_ceil(D, multiple_of):
    return math.ceil(8 * D / (3 * multiple_of)) * multiple_of


# -- TransformerBlock


@alternative("TransformerBlock", "a named residual for each branch, children made in another order")
class BlockWithNamedResiduals(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.ffn = reference.make_ffn(cfg)
        self.attention = reference.Attention(cfg)
        self.norm2 = reference.make_norm(cfg)
        self.norm1 = reference.make_norm(cfg)
        self.cfg = cfg

    def forward(self, x, mask=None):
        residual = x
        x = self.norm1(x)
        x = self.attention(x, mask=mask)
        x = residual + x
        residual = x
        x = self.ffn(self.norm2(x))
        return residual + x


@alternative("TransformerBlock", "in place on a copy of its own")
class BlockOnACopy(reference.TransformerBlock):
    def forward(self, x, mask=None):
        stream = x.clone()
        for branch in (lambda s: self.attention(self.norm1(s), mask), lambda s: self.ffn(self.norm2(s))):
            stream = stream.add(branch(stream))
        return stream


# -- GPT


@alternative("GPT", "mask and positions as buffers of full size, cut to length")
class GPTWithBuffers(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = dict(cfg)
        T_max, D = cfg["T_max"], cfg["d_model"]
        if cfg["positions"] == "learned":
            self.positions = nn.Embedding(T_max, D)
        self.norm = reference.make_norm(cfg)
        self.head = nn.Linear(D, cfg["vocab_size"], bias=False)
        self.embedding = nn.Embedding(cfg["vocab_size"], D)
        if cfg["tied"]:
            self.embedding.weight = self.head.weight
        self.blocks = nn.ModuleList([reference.TransformerBlock(cfg) for _ in range(cfg["n_layers"])])
        self.register_buffer("mask", torch.tril(torch.ones(1, 1, T_max, T_max)) == 1)
        self.register_buffer("places", torch.arange(T_max))

    def forward(self, ids):
        T = ids.size(1)
        if self.cfg["T_max"] < T:
            raise ValueError("sequence too long")
        x = self.embedding(ids)
        if hasattr(self, "positions"):
            x = x + self.positions(self.places[:T])[None]
        for block in self.blocks:
            x = block(x, self.mask[:, :, :T, :T])
        return self.norm(x) @ self.head.weight.t()


@alternative("GPT", "a one-hot product for the lookup, positions for every row, the mask from comparisons")
class GPTByOneHot(reference.GPT):
    def forward(self, ids):
        B, T = ids.shape
        if self.cfg["T_max"] < T:
            raise ValueError(f"T={T}")
        weight = self.embedding.weight
        x = torch.nn.functional.one_hot(ids, weight.shape[0]).to(weight.dtype) @ weight
        if self.cfg["positions"] == "learned":
            x = x + self.positions(torch.arange(T).expand(B, T))
        place = torch.arange(T)
        for block in self.blocks:
            x = block(x, mask=place[None, :] <= place[:, None])
        return torch.einsum("btd,vd->btv", self.norm(x), self.head.weight)


# -- count_parameters


@alternative("count_parameters", "summing a list of shapes with math.prod")
def count_by_shapes(cfg):
    D, F, L, hd = cfg["d_model"], cfg["d_ff"], cfg["n_layers"], cfg["d_model"] // cfg["n_heads"]
    outs = [cfg["n_heads"] * hd, cfg["n_kv_heads"] * hd, cfg["n_kv_heads"] * hd, D]
    attention = [(out, D) for out in outs] + ([(out,) for out in outs] if cfg["bias"] else [])
    ffn = [(F, D), (D, F)]
    if cfg["ffn"] == "swiglu":
        ffn.append((F, D))
    elif cfg["bias"]:
        ffn += [(F,), (D,)]
    norm = [(D,), (D,)] if cfg["norm"] == "layer" else [(D,)]
    parts = {
        "total": 0,
        "head": sum(math.prod(s) for s in ([] if cfg["tied"] else [(cfg["vocab_size"], D)])),
        "norm": sum(map(math.prod, norm)) * (2 * L + 1),
        "ffn": sum(map(math.prod, ffn)) * L,
        "attention": sum(map(math.prod, attention)) * L,
        "positions": (cfg["positions"] == "learned") * cfg["T_max"] * D,
        "embedding": math.prod((cfg["vocab_size"], D)),
    }
    parts["total"] = sum(parts.values())
    return parts


@alternative("count_parameters", "one layer built on the meta device, multiplied")
def count_on_meta(cfg):
    with torch.device("meta"):
        model = reference.GPT(cfg | {"n_layers": 1})

    def size(module):
        return sum(p.numel() for p in module.parameters())

    block, L = model.blocks[0], cfg["n_layers"]
    counts = {
        "embedding": size(model.embedding),
        "positions": size(model.positions) if model.positions else 0,
        "attention": L * size(block.attention),
        "ffn": L * size(block.ffn),
        "norm": L * (size(block.norm1) + size(block.norm2)) + size(model.norm),
        "head": 0 if cfg["tied"] else size(model.head),
    }
    return {**counts, "total": sum(counts.values())}


# -- init_weights


@alternative("init_weights", "module by module, by type, under no_grad with randn")
def init_by_modules(model, std=0.02, seed=0):
    g = torch.Generator()
    g.manual_seed(seed + 12345)
    ends = {id(m) for block in model.blocks for m in (block.attention.W_o, block.ffn.down)}
    done = set()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                if id(module.weight) not in done:
                    done.add(id(module.weight))
                    s = std * (2 * model.cfg["n_layers"]) ** -0.5 if id(module) in ends else std
                    module.weight.copy_(torch.randn(module.weight.shape, generator=g) * s)
                if getattr(module, "bias", None) is not None:
                    module.bias.zero_()
            elif hasattr(module, "gamma"):
                module.gamma.fill_(1.0)
                if hasattr(module, "beta"):
                    module.beta.fill_(0.0)


@alternative("init_weights", "first all alike, then the ends of the branches divided")
def init_then_divide(model, std=0.02, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.dim() > 1:
            p.data.normal_(0.0, std, generator=generator)
        else:
            p.data.zero_()
    for name, p in model.named_parameters():
        if "gamma" in name:
            p.data += 1.0
        if name.endswith(("W_o.weight", "ffn.down.weight")):
            p.data /= (2 * len(model.blocks)) ** 0.5
    return model
