"""Right answers of chapter 15 written in other styles; a suite that fails one of them is wrong."""

import bisect
import copy
import itertools
import math
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

IGNORE, OFFSET = -100, 0.9677083

# -- render_chat


@alternative("render_chat", "a generator of runs of ids, chained")
def chat_by_chain(messages, template, add_generation_prompt=False):
    if not {message["role"] for message in messages} <= set(reference.ROLES):
        raise ValueError("role")

    def runs():
        if "<|begin|>" in template:
            yield [template["<|begin|>"]]
        for message in messages:
            yield header(message["role"])
            yield bytes(message["content"], "utf-8")
            yield [template["<|end|>"]]
        if add_generation_prompt:
            yield header("assistant")

    def header(role):
        return [template["<|start|>"], *role.encode("utf-8"), template["<|sep|>"]]

    return list(itertools.chain.from_iterable(runs()))


@alternative("render_chat", "recursion on the last message")
def chat_by_recursion(messages, template, add_generation_prompt=False):
    if add_generation_prompt:
        opening = [template["<|start|>"]] + list(b"assistant") + [template["<|sep|>"]]
        return chat_by_recursion(messages, template) + opening
    if not messages:
        begin = template.get("<|begin|>")
        return [] if begin is None else [begin]
    *earlier, last = messages
    if last["role"] not in ("system", "user", "assistant", "tool"):
        raise ValueError("role")
    ids = chat_by_recursion(earlier, template)
    ids.append(template["<|start|>"])
    ids.extend(last["role"].encode())
    ids.append(template["<|sep|>"])
    ids.extend(last["content"].encode())
    ids.append(template["<|end|>"])
    return ids


# -- build_sft_example


@alternative("build_sft_example", "one place at a time: which token is here, which comes next, whose is it")
def example_by_places(prompt_ids, response_ids, eos, max_len, pad):
    n, m = len(prompt_ids), len(response_ids)
    if not n:
        raise ValueError("no prompt")
    input_ids, labels = [], []
    for i in range(max_len):
        input_ids.append(prompt_ids[i] if i < n else response_ids[i - n] if i < n + m else pad)
        following = i + 1 - n
        labels.append(IGNORE if following < 0 or following > m else eos if following == m else response_ids[following])
    return torch.tensor(input_ids), torch.tensor(labels)


@alternative("build_sft_example", "filled tensors and slices")
def example_by_slices(prompt_ids, response_ids, eos, max_len, pad):
    if len(prompt_ids) < 1:
        raise ValueError("no prompt")
    inputs = torch.tensor([*prompt_ids, *response_ids], dtype=torch.int64)[:max_len]
    targets = torch.tensor([*response_ids, eos], dtype=torch.int64)[: max(0, max_len - len(prompt_ids) + 1)]
    input_ids = torch.full((max_len,), pad)
    input_ids[: len(inputs)] = inputs
    labels = torch.full_like(input_ids, IGNORE)
    start = len(prompt_ids) - 1
    labels[start : start + len(targets)] = targets
    return input_ids, labels


@alternative("build_sft_example", "numpy, a long row cut at the end, labels by roll and where")
def example_by_numpy(prompt_ids, response_ids, eos, max_len, pad):
    if not prompt_ids:
        raise ValueError("no prompt")
    n, whole = len(prompt_ids), len(prompt_ids) + len(response_ids)
    row = np.array(prompt_ids + response_ids + [eos] + [pad] * max_len)
    place = np.arange(len(row))
    labels = np.where((place >= n - 1) & (place < whole), np.roll(row, -1), IGNORE)
    row[whole] = pad
    return torch.from_numpy(row[:max_len].copy()), torch.from_numpy(labels[:max_len].copy())


# -- pack_sequences, segment_mask


def checked(examples, max_len):
    for ids, labels in examples:
        if len(ids) != len(labels) or len(ids) == 0 or len(ids) > max_len:
            raise ValueError("example")
    return examples


@alternative("pack_sequences", "best fit: the fullest row with room, rows in the order of the examples")
def pack_by_best_fit(examples, max_len):
    checked(examples, max_len)
    rows = []
    for number in sorted(range(len(examples)), key=lambda i: -len(examples[i][0])):
        n = len(examples[number][0])
        fitting = [row for row in rows if row["free"] >= n]
        if not fitting:
            rows.append({"free": max_len, "held": []})
            fitting = rows[-1:]
        best = min(fitting, key=lambda row: row["free"])
        best["free"] -= n
        best["held"].append(number)
    rows.sort(key=lambda row: min(row["held"]))
    out = [[], [], [], []]
    for row in rows:
        ids, labels, segments, positions = [], [], [], []
        for segment, number in enumerate(sorted(row["held"])):
            ids += list(examples[number][0])
            labels += list(examples[number][1])
            segments += [segment + 1] * len(examples[number][0])
            positions += range(len(examples[number][0]))
        blank = max_len - len(ids)
        out[0].append(ids + [0] * blank)
        out[1].append(labels + [IGNORE] * blank)
        out[2].append(segments + [0] * blank)
        out[3].append(positions + [0] * blank)
    return tuple(torch.tensor(x, dtype=torch.int64).reshape(len(rows), max_len) for x in out)


@alternative("pack_sequences", "grouped by length, each row's room searched from the left, numpy, one cell at a time")
def pack_by_cells(examples, max_len):
    checked(examples, max_len)
    waiting = [[example for example in examples if len(example[0]) == n] for n in range(max_len + 1)]
    filled, placed = [], []
    for n in range(max_len, 0, -1):
        for example in waiting[n]:
            j = 0
            while j < len(filled) and filled[j] + n > max_len:
                j += 1
            if j == len(filled):
                filled.append(0)
            placed.append((j, filled[j], example))
            filled[j] += n
    ids, segments, positions = (np.zeros((len(filled), max_len), dtype=np.int64) for _ in range(3))
    labels = ids - 100
    for j, start, (tokens, targets) in placed:
        segment = segments[j].max() + 1
        for i, (token, target) in enumerate(zip(tokens, targets, strict=True)):
            ids[j, start + i], labels[j, start + i] = token, target
            segments[j, start + i], positions[j, start + i] = segment, i
    return tuple(map(torch.from_numpy, (ids, labels, segments, positions)))


@alternative("pack_sequences", "three conditions over index grids", replaces="segment_mask")
def mask_by_grids(segment_ids):
    T = segment_ids.shape[-1]
    i, j = torch.meshgrid(torch.arange(T), torch.arange(T), indexing="ij")
    query, key = segment_ids[..., :, None].expand(*segment_ids.shape, T), segment_ids[..., None, :]
    return torch.where(query == 0, i == j, (query == key) & (j <= i))


@alternative("pack_sequences", "nested loops over the flattened rows", replaces="segment_mask")
def mask_by_loops(segment_ids):
    T = segment_ids.shape[-1]
    rows = segment_ids.reshape(-1, T).tolist()
    mask = torch.zeros(len(rows), T, T, dtype=torch.bool)
    for b, row in enumerate(rows):
        for i in range(T):
            mask[b, i, i] = True
            for j in range(i):
                mask[b, i, j] = row[i] == row[j] != 0
    return mask.reshape(*segment_ids.shape, T)


# -- LoRALinear


@alternative("LoRALinear", "einsum; merging keeps what it added, and unmerging subtracts just that")
class LoRAByEinsum(nn.Module):
    def __init__(self, base, r, alpha):
        if r < 1:
            raise ValueError("r")
        super().__init__()
        for p in base.parameters():
            p.requires_grad = False
        self.base, self.s, self.added = base, alpha / r, None
        W = base.weight
        self.A = nn.Parameter(torch.randn(r, W.shape[1], dtype=W.dtype, device=W.device) / math.sqrt(W.shape[1]))
        self.B = nn.Parameter(torch.zeros(W.shape[0], r, dtype=W.dtype, device=W.device))

    def forward(self, x):
        y = nn.functional.linear(x, self.base.weight, self.base.bias)
        if self.added is None:
            y = y + torch.einsum("...i,ri,or->...o", x, self.A, self.B) * self.s
        return y

    def merge(self):
        if self.added is None:
            self.added = self.s * torch.einsum("or,ri->oi", self.B.detach(), self.A.detach())
            self.base.weight.data.add_(self.added)

    def unmerge(self):
        if self.added is not None:
            self.base.weight.data.sub_(self.added)
            self.added = None


@alternative("LoRALinear", "two linear maps in a row, a toggle for merging, addmm")
class LoRAByToggle(nn.Module):
    def __init__(self, base, r, alpha):
        super().__init__()
        if not r >= 1:
            raise ValueError("r")
        self.base = base
        base.weight.requires_grad_(False)
        if base.bias is not None:
            base.bias.requires_grad_(False)
        self.A = nn.Parameter(torch.empty_like(base.weight[:1]).repeat(r, 1).normal_(std=0.02), requires_grad=True)
        self.B = nn.Parameter(torch.zeros_like(base.weight[:, :1]).repeat(1, r), requires_grad=True)
        self.r, self.alpha = r, alpha
        self.register_buffer("is_merged", torch.tensor(False), persistent=False)

    def forward(self, x):
        low = nn.functional.linear(nn.functional.linear(x, self.A), self.B) * (self.alpha / self.r)
        return self.base(x) + (0.0 if self.is_merged else 1.0) * low

    @torch.no_grad()
    def toggle(self, sign):
        new = torch.addmm(self.base.weight, self.B, self.A, alpha=sign * self.alpha / self.r)
        self.base.weight.copy_(new)
        self.is_merged = ~self.is_merged

    def merge(self):
        if not self.is_merged:
            self.toggle(+1)

    def unmerge(self):
        if self.is_merged:
            self.toggle(-1)


# -- inject_lora, trainable_fraction


@alternative("inject_lora", "dotted names, get_submodule, rpartition")
def inject_by_names(model, targets, r, alpha):
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path and path.split(".")[-1] in targets:
            found[path] = module
    for target in targets:
        if not any(path.rpartition(".")[2] == target for path in found):
            raise ValueError(target)
    for p in model.parameters():
        p.requires_grad = False
    trainable = 0
    for path, linear in found.items():
        parent, _, name = path.rpartition(".")
        adapter = reference.LoRALinear(linear, r=r, alpha=alpha)
        model.get_submodule(parent).register_module(name, adapter)
        trainable += adapter.A.numel() + adapter.B.numel()
    return trainable


@alternative("inject_lora", "recursion into the children that are no targets, after a look for missing names")
def inject_by_recursion(model, targets, r, alpha):
    present = [path.split(".")[-1] for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if set(targets).difference(present):
        raise ValueError("targets")

    def visit(parent):
        for name, child in parent._modules.items():
            if isinstance(child, nn.Linear) and name in targets:
                parent._modules[name] = reference.LoRALinear(child, r, alpha)
            elif child is not None:
                visit(child)

    for p in model.parameters():
        p.requires_grad_(False)
    visit(model)
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)


@alternative("inject_lora", "the model is built without memory, and counted", replaces="trainable_fraction")
def fraction_by_building(cfg, targets, r):
    D, F, V = cfg["d_model"], cfg["d_ff"], cfg["vocab_size"]
    K = D // cfg["n_heads"] * cfg["n_kv_heads"] if D % cfg["n_heads"] == 0 else cfg["n_kv_heads"] * D // cfg["n_heads"]
    sizes = {"q_proj": (D, D), "k_proj": (D, K), "v_proj": (D, K), "o_proj": (D, D)}
    sizes.update(gate_proj=(D, F), up_proj=(D, F), down_proj=(F, D))
    if any(target not in sizes for target in targets):
        raise ValueError("targets")
    with torch.device("meta"):
        layer = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})
        rest = [torch.empty(V, D), torch.empty(V, D), torch.empty(D)]
    in_a_layer = sum(p.numel() for p in layer.parameters()) + 2 * D
    adapters = sum(r * sum(layer[name].weight.shape) for name in set(targets)) * cfg["n_layers"]
    return adapters / (adapters + cfg["n_layers"] * in_a_layer + sum(x.numel() for x in rest))


@alternative("inject_lora", "a match statement and exact fractions", replaces="trainable_fraction")
def fraction_by_match(cfg, targets, r):
    D, layers = cfg["d_model"], cfg["n_layers"]
    K = Fraction(cfg["n_kv_heads"] * D, cfg["n_heads"]).__floor__()

    def size(name):
        match name:
            case "q_proj" | "o_proj":
                return D, D
            case "k_proj" | "v_proj":
                return D, K
            case "gate_proj" | "up_proj" | "down_proj":
                return D, cfg["d_ff"]
            case _:
                raise ValueError(name)

    lora = layers * r * sum(sum(size(name)) for name in dict.fromkeys(targets))
    whole = layers * (2 * D * D + 2 * D * K + 3 * D * cfg["d_ff"] + 2 * D) + 2 * cfg["vocab_size"] * D + D
    return float(Fraction(lora, whole + lora))


# -- nf4_codebook, quantize_nf4, dequantize_nf4


@alternative("quantize_nf4", "linspace and the inverse error function", replaces="nf4_codebook")
def codebook_by_erfinv():
    def quantiles(n):
        p = torch.linspace(OFFSET, 0.5, n + 1, dtype=torch.float64)[:-1]
        return math.sqrt(2) * torch.erfinv(2 * p - 1)

    levels = torch.cat([quantiles(8), torch.zeros(1, dtype=torch.float64), -quantiles(7)]).sort().values
    return (levels / levels[-1]).float()


@alternative("quantize_nf4", "quantiles by bisection of the distribution function", replaces="nf4_codebook")
def codebook_by_bisection():
    def quantile(p):
        low, high = 0.0, 4.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if NormalDist().cdf(middle) < p else (low, middle)
        return low

    top = quantile(OFFSET)
    positive = [quantile(OFFSET - i * (OFFSET - 0.5) / 8) / top for i in range(8)]
    negative = [-quantile(OFFSET - i * (OFFSET - 0.5) / 7) / top for i in range(7)]
    return torch.tensor(sorted(negative + [0] + positive))


@alternative("quantize_nf4", "the least distance over all sixteen levels, block by block")
def quantize_by_argmin(x, block=64):
    levels = reference.nf4_codebook().to(x.dtype)
    codes, absmax = torch.zeros(x.numel(), dtype=torch.uint8), []
    for start in range(0, x.numel(), block):
        part = x.flatten()[start : start + block]
        top = part.abs().max()
        absmax.append(top.item())
        scaled = part / top if top > 0 else part
        codes[start : start + block] = (scaled.unsqueeze(1) - levels).abs().argmin(dim=1).to(torch.uint8)
    return codes.reshape(x.shape), torch.tensor(absmax, dtype=x.dtype)


@alternative("quantize_nf4", "Python's bisect in float64, the two neighbours compared")
def quantize_by_bisect(x, block=64):
    levels, flat = reference.nf4_codebook().tolist(), x.reshape(-1).tolist()
    codes, absmax = [], []
    for i, value in enumerate(flat):
        if i % block == 0:
            absmax.append(max(map(abs, flat[i : i + block])))
        scaled = value / absmax[-1] if absmax[-1] else 0.0
        right = min(bisect.bisect_left(levels, scaled), 15)
        left = max(right - 1, 0)
        codes.append(left if scaled - levels[left] < levels[right] - scaled else right)
    return torch.tensor(codes, dtype=torch.uint8).reshape(x.shape), torch.tensor(absmax, dtype=x.dtype)


@alternative("quantize_nf4", "numpy: reduceat for the scales, borders compared and counted")
def quantize_by_counting(x, block=64):
    flat = x.numpy().ravel()
    if flat.size == 0:
        return torch.zeros(x.shape, dtype=torch.uint8), torch.zeros(0, dtype=x.dtype)
    absmax = np.maximum.reduceat(np.abs(flat), np.arange(0, flat.size, block))
    scales = np.repeat(absmax, block)[: flat.size]
    scaled = np.divide(flat, scales, out=np.zeros_like(flat), where=scales > 0)
    levels = reference.nf4_codebook().numpy().astype(np.float64)
    codes = sum((scaled > border).astype(np.uint8) for border in (levels[1:] + levels[:-1]) / 2)
    return torch.from_numpy(codes).view(*x.shape), torch.from_numpy(absmax)


@alternative("quantize_nf4", "each place asks for its block", replaces="dequantize_nf4")
def dequantize_by_index(codes, absmax, block=64):
    number = torch.arange(codes.numel()).reshape(codes.shape) // block
    return torch.take(reference.nf4_codebook().type_as(absmax), codes.long()) * absmax[number]


@alternative("quantize_nf4", "block by block", replaces="dequantize_nf4")
def dequantize_by_blocks(codes, absmax, block=64):
    levels = reference.nf4_codebook().to(absmax.dtype)
    parts = [levels[part.int()] * top for part, top in zip(codes.flatten().split(block), absmax, strict=False)]
    return torch.cat(parts).reshape(codes.shape) if codes.numel() else absmax.new_zeros(codes.shape)


# -- double_quantize, qlora_bits


@alternative("double_quantize", "block by block with torch.split")
def double_by_split(absmax, block=256):
    mean = absmax.sum() / len(absmax)
    codes, scale = [], []
    for part in torch.split(absmax, block):
        largest = torch.max(torch.abs(part - mean))
        scale.append(largest / 127 if largest > 0 else torch.ones_like(mean))
        codes.append(torch.round((part - mean) / scale[-1]).to(torch.int8))
    return torch.cat(codes), torch.stack(scale), mean


@alternative("double_quantize", "Python floats, rounded half up")
def double_by_lists(absmax, block=256):
    values = absmax.tolist()
    mean = float(absmax.mean())
    scale = [max(abs(a - mean) for a in values[i : i + block]) / 127 or 1.0 for i in range(0, len(values), block)]
    codes = [max(-127, min(127, math.floor((a - mean) / scale[i // block] + 0.5))) for i, a in enumerate(values)]
    return torch.tensor(codes, dtype=torch.int8), absmax.new_tensor(scale), absmax.new_tensor(mean)


@alternative("double_quantize", "numpy, the deviation times 127 first")
def double_by_numpy(absmax, block=256):
    a = absmax.numpy()
    d = a - a.mean()
    n = -(-len(d) // block)
    table = np.zeros((n, block), dtype=d.dtype)
    table.flat[: len(d)] = d
    top = np.abs(table).max(axis=1)
    scale = np.where(top > 0, top / 127, 1).astype(d.dtype)
    q8 = np.rint(table / scale[:, None]).astype(np.int8).reshape(-1)[: len(d)]
    return torch.from_numpy(q8), torch.from_numpy(scale), absmax.mean()


@alternative("double_quantize", "all bits of a tensor that fills its blocks, divided", replaces="qlora_bits")
def bits_of_a_whole_tensor(block, block2):
    weights = block * (block2 or 1)
    bits = 4 * weights + (32 if block2 is None else 8 * block2 + 32)
    return bits / weights


@alternative("double_quantize", "fractions", replaces="qlora_bits")
def bits_by_fractions(block, block2):
    of_a_scale = Fraction(32) if block2 is None else 8 + Fraction(32, block2)
    return float(4 + of_a_scale / block)


# -- QLoRALinear, finetune_toy


@alternative("QLoRALinear", "a frozen parameter for the bias, and the dequantised weight added to the update")
class QLoRAByOneWeight(nn.Module):
    def __init__(self, base, r, alpha, block=64):
        super().__init__()
        if r <= 0:
            raise ValueError("r")
        with torch.no_grad():
            codes, absmax = reference.quantize_nf4(base.weight.clone(), block=block)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().clone(), requires_grad=False)
        self.A = nn.Parameter(torch.randn(r, base.in_features).to(base.weight) * 0.05)
        self.B = nn.Parameter(torch.zeros(base.out_features, r).to(base.weight))
        self.r, self.alpha, self.block = r, alpha, block

    def forward(self, x):
        W = reference.dequantize_nf4(self.codes, self.absmax, self.block)
        W = torch.addmm(W, self.B, self.A, alpha=self.alpha / self.r)
        y = torch.einsum("oi,...i->...o", W, x)
        return y if self.bias is None else y + self.bias


@alternative("QLoRALinear", "buffers in a loop, no buffer without a bias, products with the transpose, sums in place")
class QLoRAInPlace(nn.Module):
    def __init__(self, base, r, alpha, block=64):
        super().__init__()
        if r < 1:
            raise ValueError("r")
        weight = base.weight.data
        for name, value in zip(("codes", "absmax"), reference.quantize_nf4(weight, block), strict=True):
            self.register_buffer(name, value)
        if base.bias is not None:
            self.register_buffer("offset", base.bias.data.clone())
        self.A = nn.Parameter(weight.new_empty(r, weight.shape[1]).uniform_(-0.1, 0.1))
        self.B = nn.Parameter(weight.new_zeros(weight.shape[0], r))
        self.rows = [alpha / r, block]

    def forward(self, x):
        scale, block = self.rows
        y = x @ reference.dequantize_nf4(self.codes, self.absmax, block).mT
        if hasattr(self, "offset"):
            y += self.offset
        return torch.add(y, (x @ self.A.mT) @ self.B.mT, alpha=scale)


@alternative("QLoRALinear", "layers by dotted names, log_softmax and gather", "finetune_toy")
def finetune_by_names(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    if method not in {"full", "lora", "qlora"}:
        raise ValueError(method)
    (x_old, y_old), (x_new, y_new) = data["old"], data["new"]

    def nll(net, x, y):
        return -torch.log_softmax(net(x), dim=1).gather(1, y[:, None]).mean()

    def measure(net, when):
        net.eval()
        with torch.inference_mode():
            return {f"old_{when}": float(nll(net, x_old, y_old)), f"new_{when}": float(nll(net, x_new, y_new))}

    net = copy.deepcopy(model)
    out = measure(net, "before")
    for p in net.parameters():
        p.requires_grad = method == "full"
    for path, layer in list(net.named_modules()):
        if method != "full" and isinstance(layer, nn.Linear):
            kind = reference.LoRALinear if method == "lora" else reference.QLoRALinear
            parent, _, name = path.rpartition(".")
            setattr(net.get_submodule(parent), name, kind(layer, r, alpha))
    net.train()
    learned = [p for p in net.parameters() if p.requires_grad]
    adam = torch.optim.Adam(learned, lr)
    for _ in range(steps):
        loss = nll(net, x_new, y_new)
        adam.zero_grad(set_to_none=False)
        loss.backward()
        adam.step()
    return out | measure(net, "after") | {"trainable": sum(p.nelement() for p in learned)}


@alternative("QLoRALinear", "Adam written out, gradients by autograd.grad, replacement by recursion", "finetune_toy")
def finetune_by_hand(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    kinds = {"full": None, "lora": reference.LoRALinear, "qlora": reference.QLoRALinear}
    if method not in kinds:
        raise ValueError(method)

    def loss(net, task):
        x, y = data[task]
        logits = net(x)
        return (logits.logsumexp(-1) - logits[torch.arange(len(y)), y]).mean()

    def replace(net):
        for name, child in net.named_children():
            if isinstance(child, nn.Linear):
                setattr(net, name, kinds[method](child, r, alpha))
            else:
                replace(child)

    tuned = copy.deepcopy(model).eval()
    report = {task + "_before": loss(tuned, task).item() for task in ("old", "new")}
    if kinds[method] is not None:
        tuned.requires_grad_(False)
        replace(tuned)
    else:
        tuned.requires_grad_(True)
    params = [p for p in tuned.parameters() if p.requires_grad]
    m, v = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    tuned.train()
    for step in range(1, steps + 1):
        gradients = torch.autograd.grad(loss(tuned, "new"), params)
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(params, gradients, strict=True)):
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g**2
                p -= lr * m[i] / (1 - 0.9**step) / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8)
    tuned.eval()
    report["trainable"] = sum(p.numel() for p in params)
    for task in ("old", "new"):
        report[task + "_after"] = loss(tuned, task).item()
    return report
