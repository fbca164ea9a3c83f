# %% [markdown]
# # Chapter 15: Fine-tuning
#
# A pretrained model continues text. Here it learns to answer: you write down conversations as ids, decide which
# tokens carry loss, pack examples without letting them mix, and then train a thousandth of the parameters on top of a
# base that is frozen and, at the end, kept in four bits. The notes in `README.md` teach each step.

# %%
import copy
import math
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% [markdown]
# ## A conversation as ids
#
# Instruction tuning starts with a format. Control tokens mark who speaks; text can never become a control token,
# because text is only ever turned into bytes.

# %%
ROLES = ("system", "user", "assistant", "tool")


# %%
def render_chat(
    messages: list[dict[str, str]], template: dict[str, int], add_generation_prompt: bool = False
) -> list[int]:
    """Render a conversation as one list of token ids.

    Args:
        messages: dicts with the keys "role" and "content", in order; may be empty.
        template: the ids (256 or more) of "<|start|>", "<|sep|>", "<|end|>" and, if the model has one, "<|begin|>".
        add_generation_prompt: end with the header of an assistant turn, for the model to continue.

    Returns:
        <|begin|> once, if the template has it; per message <|start|> role <|sep|> content <|end|>;
        then, if asked for, <|start|> assistant <|sep|>, whatever the last message is.

    Raises:
        ValueError: a role is not one of ROLES.

    Example:
        >>> template = {"<|start|>": 257, "<|sep|>": 258, "<|end|>": 259}
        >>> render_chat([{"role": "user", "content": "é"}], template)
        [257, 117, 115, 101, 114, 258, 195, 169, 259]

    Notes:
        Roles and contents are text. Text becomes its UTF-8 bytes, ids 0 to 255, to the letter (nothing is stripped):
        a content that spells "<|end|>" is seven ordinary bytes. No message is moved, merged or repeated.
    """
    ### BEGIN SOLUTION
    start, sep, end = (template[name] for name in ("<|start|>", "<|sep|>", "<|end|>"))
    ids = [template["<|begin|>"]] if "<|begin|>" in template else []
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(f"unknown role {message['role']!r}; a role is one of {ROLES}")
        # Ids are joined, never strings: a string that is parsed afterwards could not tell text from control tokens.
        ids += [start, *message["role"].encode(), sep, *message["content"].encode(), end]
    if add_generation_prompt:
        ids += [start, *b"assistant", sep]
    return ids
    ### END SOLUTION


# %% [markdown]
# ## Which tokens carry loss
#
# The prompt is given, so the model is not asked to predict it. Labels are shifted here, once; the model must not shift
# them again.

# %%
IGNORE = -100  # cross_entropy skips this label by default


# %%
def build_sft_example(
    prompt_ids: list[int], response_ids: list[int], eos: int, max_len: int, pad: int
) -> tuple[Tensor, Tensor]:
    """Build the inputs and the labels of one supervised example.

    Args:
        prompt_ids: at least one id.
        response_ids: the answer without its end token; may be empty.
        eos: id that ends every response.
        max_len: length of both results, at least 1.
        pad: id that fills the inputs at the right; may equal eos.

    Returns:
        input_ids and labels, each (max_len,) int64.

    Raises:
        ValueError: the prompt is empty, so that nothing would predict the first token of the response.

    Example:
        >>> build_sft_example([5, 6], [7], eos=2, max_len=4, pad=0)
        (tensor([5, 6, 7, 0]), tensor([-100,    7,    2, -100]))

    Notes:
        labels[i] is the token that follows input_ids[i], if that token belongs to the response or is the eos behind
        it, and IGNORE everywhere else. The inputs hold the first max_len tokens of prompt + response + eos, without
        the eos, which is only ever a label. What does not fit is dropped at the right, so a response that is cut has
        no eos, and a prompt longer than the row leaves only IGNORE. Positions decide, not values.
    """
    ### BEGIN SOLUTION
    if len(prompt_ids) == 0:
        raise ValueError("the prompt is empty; give at least one token, such as the begin token")
    tokens = [*prompt_ids, *response_ids, eos][: max_len + 1]  # one more: the last one is only a label
    inputs, targets = tokens[:-1], tokens[1:]
    masked = min(len(prompt_ids) - 1, len(targets))  # the last prompt token predicts the response: it keeps its label
    padding = max_len - len(inputs)
    labels = [IGNORE] * masked + targets[masked:] + [IGNORE] * padding
    return torch.tensor(inputs + [pad] * padding), torch.tensor(labels)
    ### END SOLUTION


# %% [markdown]
# ## Packing
#
# Padding is work for nothing. Short examples can share a row, if they do not see each other and each believes that it
# starts at position 0.


# %%
def pack_sequences(examples: list[tuple[list[int], list[int]]], max_len: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pack examples of unequal lengths into few rows of max_len tokens.

    Args:
        examples: pairs (ids, labels) of equal length, unpadded, with labels already shifted; may be no pairs at all.
        max_len: length of a row.

    Returns:
        ids, labels, segment_ids, position_ids, each (rows, max_len) int64.

    Raises:
        ValueError: an example is empty, longer than max_len, or has not one label per id.

    Example:
        >>> ids, labels, segment_ids, position_ids = pack_sequences([([5, 6], [6, 2]), ([7], [2])], max_len=4)
        >>> ids.tolist(), labels.tolist(), segment_ids.tolist(), position_ids.tolist()
        ([[5, 6, 7, 0]], [[6, 2, 2, -100]], [[1, 1, 2, 0]], [[0, 1, 0, 0]])

    Notes:
        Each example lies whole in one row, and its labels move with it unchanged. In each row the segments are
        numbered 1, 2, ... from the left without a gap between them, positions restart at 0 in each, and the padding at
        the right has id 0, label IGNORE, segment 0, position 0. Which example goes where is yours to choose, but the
        rows are at most 11/9 of the fewest possible plus 6/9, which first-fit decreasing guarantees.
    """
    ### BEGIN SOLUTION
    rows: list[list[tuple[list[int], list[int]]]] = []
    free: list[int] = []
    for ids, labels in sorted(examples, key=lambda example: len(example[0]), reverse=True):
        if not 0 < len(ids) <= max_len or len(labels) != len(ids):
            raise ValueError(f"an example has {len(ids)} ids and {len(labels)} labels, but a row holds {max_len}")
        row = next((j for j, space in enumerate(free) if space >= len(ids)), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(max_len)
        rows[row].append((ids, labels))
        free[row] -= len(ids)
    packed = torch.zeros(4, len(rows), max_len, dtype=torch.long)
    packed[1] = IGNORE
    for j, row in enumerate(rows):
        start = 0
        for segment, (ids, labels) in enumerate(row, start=1):
            n = len(ids)
            values = [list(ids), list(labels), [segment] * n, list(range(n))]
            packed[:, j, start : start + n] = torch.tensor(values)  # (4, n)
            start += n
    return packed[0], packed[1], packed[2], packed[3]
    ### END SOLUTION


# %%
def segment_mask(segment_ids: Tensor) -> Tensor:
    """Say which positions may attend to which in packed rows.

    Args:
        segment_ids: (..., T) int64; 0 is padding.

    Returns:
        (..., T, T) bool, True where the query (second to last axis) may attend to the key (last axis).

    Example:
        >>> segment_mask(torch.tensor([1, 1, 2, 0])).int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]

    Notes:
        A token sees itself and the earlier tokens of its own segment. A padding position sees itself alone: a row of
        the mask without any True would make the softmax NaN.
    """
    ### BEGIN SOLUTION
    same = segment_ids.unsqueeze(-1) == segment_ids.unsqueeze(-2)  # (..., T, T)
    real = (segment_ids != 0).unsqueeze(-1)  # (..., T, 1)
    itself = torch.eye(segment_ids.shape[-1], dtype=torch.bool, device=segment_ids.device)
    return (same & real).tril() | itself
    ### END SOLUTION


# %% [markdown]
# ## LoRA
#
# The base weight is frozen. Beside it stands a product of two thin matrices, and only these learn.


# %%
class LoRALinear(nn.Module):
    """Add a trainable update of rank r to a frozen linear layer.

    Args:
        base: nn.Linear with weight (out, in), with or without a bias. It is kept, not copied, and frozen.
        r: rank, at least 1.
        alpha: numerator of the scale; the update is (alpha / r) B A.

    Attributes: base; A, parameter (r, in); B, parameter (out, r), both of the dtype and device of base.weight.

    Raises:
        ValueError: r is less than 1.

    Example:
        >>> layer = LoRALinear(nn.Linear(3, 2), r=1, alpha=2.0)
        >>> layer.A.shape, layer.B.tolist(), layer.base.weight.requires_grad
        (torch.Size([1, 3]), [[0.0], [0.0]], False)

    Notes:
        A starts random and B at zero, so the output is at first that of base.
        merge() adds the update into base.weight and unmerge() takes it out again; forward gives the same either way.
        Merging a merged layer, or unmerging one that is not merged, changes nothing.
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        if r < 1:
            raise ValueError(f"the rank r must be at least 1, but is {r}")
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))  # as nn.Linear starts its weight
        self.scale = alpha / r
        self.merged = False
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        ### BEGIN SOLUTION
        if self.merged:
            return self.base(x)
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)  # through r numbers: (..., in) (..., r) (..., out)
        ### END SOLUTION

    def merge(self) -> None:
        """Add the update into base.weight; later forwards use that alone."""
        ### BEGIN SOLUTION
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self.scale * self.B @ self.A  # (out, in)
        self.merged = True
        ### END SOLUTION

    def unmerge(self) -> None:
        """Take the update out of base.weight again."""
        ### BEGIN SOLUTION
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.scale * self.B @ self.A  # (out, in)
        self.merged = False
        ### END SOLUTION


# %% [markdown]
# ## Adapters for a whole model
#
# Adapters go to layers chosen by name. All the rest is frozen, and the count shows how little is left to train.


# %%
def inject_lora(model: nn.Module, targets: list[str], r: int, alpha: float) -> int:
    """Replace the targeted linear layers of a model by LoRALinear and freeze everything else, in place.

    Args:
        model: a module that holds its layers as children, at any depth.
        targets: names of layers; a layer's name is the last part of its dotted path ("q_proj" of "blocks.0.q_proj").
        r: rank of every adapter.
        alpha: as in LoRALinear.

    Returns:
        How many numbers are trainable now: those in all A and B.

    Raises:
        ValueError: a target is the name of no nn.Linear in the model; the model is then as it was.

    Example:
        >>> model = nn.ModuleDict({"q_proj": nn.Linear(5, 3), "norm": nn.LayerNorm(3), "kq_proj": nn.Linear(5, 3)})
        >>> inject_lora(model, ["q_proj"], r=2, alpha=4.0)
        16
        >>> [name for name, p in model.named_parameters() if p.requires_grad]
        ['q_proj.A', 'q_proj.B']

    Notes:
        A name must match exactly, not as a part of another name, and only an nn.Linear is replaced. Every replaced
        layer gets an adapter of its own.
    """
    ### BEGIN SOLUTION
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if name in targets and isinstance(child, nn.Linear)
    ]
    missing = set(targets) - {name for _, name, _ in found}
    if missing:
        raise ValueError(f"no linear layer is called {sorted(missing)}")
    model.requires_grad_(False)  # first freeze all, norms and embeddings too; the new A and B come after
    for parent, name, child in found:
        setattr(parent, name, LoRALinear(child, r, alpha))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
    ### END SOLUTION


# %%
def trainable_fraction(cfg: dict[str, int], targets: list[str], r: int) -> float:
    """Give the share of the parameters that LoRA trains in a Llama-shaped model.

    Args:
        cfg: "vocab_size" V, "d_model" D, "n_layers", "n_heads", "n_kv_heads", "d_ff" F.
        targets: some of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, each adapted in every layer.
        r: rank.

    Returns:
        Adapter parameters divided by all parameters, those of the adapters included.

    Raises:
        ValueError: a target is none of the seven.

    Example:
        >>> llama_2_7b = dict(vocab_size=32000, d_model=4096, n_layers=32, n_heads=32, n_kv_heads=32, d_ff=11008)
        >>> round(100 * trainable_fraction(llama_2_7b, ["q_proj", "v_proj"], r=8), 4)
        0.0622

    Notes:
        No layer has a bias. Per layer (in, out): q (D, D), k and v (D, K) with K = n_kv_heads * D // n_heads, o (D, D),
        gate and up (D, F), down (F, D), and two norms of D. Once: an embedding (V, D), a head (V, D) not tied to it,
        a last norm of D.
    """
    ### BEGIN SOLUTION
    vocab, d, ff, layers = cfg["vocab_size"], cfg["d_model"], cfg["d_ff"], cfg["n_layers"]
    kv = cfg["n_kv_heads"] * d // cfg["n_heads"]
    shapes = {"q_proj": (d, d), "k_proj": (d, kv), "v_proj": (d, kv), "o_proj": (d, d)}
    shapes |= {"gate_proj": (d, ff), "up_proj": (d, ff), "down_proj": (ff, d)}
    unknown = set(targets) - set(shapes)
    if unknown:
        raise ValueError(f"unknown targets {sorted(unknown)}; known are {sorted(shapes)}")
    base = layers * (sum(n_in * n_out for n_in, n_out in shapes.values()) + 2 * d) + 2 * vocab * d + d
    adapters = layers * sum(r * (n_in + n_out) for name, (n_in, n_out) in shapes.items() if name in targets)
    return adapters / (base + adapters)
    ### END SOLUTION


# %% [markdown]
# ## Four bits: NF4
#
# Trained weights are close to normally distributed. Sixteen levels at the quantiles of a normal distribution lie where
# the weights are, and one of them is exactly zero.

# %%
NF4_OFFSET = 0.9677083  # the outermost probability: halfway between 1 - 1/32 and 1 - 1/30, as bitsandbytes has it


# %%
def nf4_codebook() -> Tensor:
    """Build the sixteen levels of the 4-bit NormalFloat.

    Returns:
        (16,) float32, ascending, from -1 to 1, with an exact 0 at index 7.

    Example:
        >>> nf4_codebook()[[0, 1, 7, 8, 15]]
        tensor([-1.0000, -0.6962,  0.0000,  0.0796,  1.0000])

    Notes:
        The positive levels are the standard normal quantiles of 9 evenly spaced probabilities from NF4_OFFSET down to
        1/2, without 1/2 itself: 8 levels. The negative ones are minus the quantiles of 8 such probabilities, again
        without 1/2: 7 levels. With 0 they make 16; all are divided by the largest.
    """
    ### BEGIN SOLUTION
    quantile = NormalDist().inv_cdf

    def half(n: int) -> list[float]:  # n levels, the largest first
        return [quantile(NF4_OFFSET + (0.5 - NF4_OFFSET) * i / n) for i in range(n)]

    levels = [-z for z in half(7)] + [0.0] + half(8)[::-1]
    return torch.tensor([z / max(levels) for z in levels], dtype=torch.float32)  # (16,)
    ### END SOLUTION


# %%
def quantize_nf4(x: Tensor, block: int = 64) -> tuple[Tensor, Tensor]:
    """Give each number the index of its nearest NF4 level, one scale per block.

    Args:
        x: float32 or float64, any shape.
        block: how many numbers share a scale.

    Returns:
        codes: uint8 of x's shape, one code (0 to 15) in each element.
        absmax: (number of blocks,), dtype of x: the largest absolute value of each block.

    Example:
        >>> codes, absmax = quantize_nf4(torch.tensor([[4.0, 0.0], [-2.0, -1.0]]), block=3)
        >>> codes.tolist(), absmax.tolist()
        ([[15, 7], [2, 0]], [4.0, 1.0])

    Notes:
        Blocks run over x flattened row by row, and the last one may be shorter. Each number is divided by its block's
        absmax, and the nearest level of nf4_codebook() gives the code (exactly halfway: either one). A block of zeros
        has absmax 0 and code 7 throughout. An empty x gives empty results.
    """
    ### BEGIN SOLUTION
    flat = x.reshape(-1)
    blocks = F.pad(flat, (0, -flat.numel() % block)).view(-1, block)  # (N, block); zeros never raise an absmax
    absmax = blocks.abs().amax(1)  # (N,)
    divisor = torch.where(absmax == 0, 1, absmax).unsqueeze(1)  # (N, 1)
    levels = nf4_codebook().to(x.dtype)
    codes = torch.bucketize(blocks / divisor, (levels[1:] + levels[:-1]) / 2)  # midpoints are the borders
    return codes.flatten()[: flat.numel()].view(x.shape).to(torch.uint8), absmax
    ### END SOLUTION


# %%
def dequantize_nf4(codes: Tensor, absmax: Tensor, block: int = 64) -> Tensor:
    """Turn NF4 codes back into numbers.

    Args:
        codes: uint8, any shape, as from quantize_nf4.
        absmax: (number of blocks,).
        block: as it was for quantize_nf4.

    Returns:
        The level of each code times the absmax of its block: codes' shape, absmax's dtype.

    Example:
        >>> dequantize_nf4(torch.tensor([[15, 7], [2, 0]], dtype=torch.uint8), torch.tensor([4.0, 1.0]), block=3)
        tensor([[ 4.0000,  0.0000],
                [-2.1003, -1.0000]])
    """
    ### BEGIN SOLUTION
    levels = nf4_codebook().to(absmax.dtype)[codes.long()]
    scales = absmax.repeat_interleave(block)[: codes.numel()].view(codes.shape)
    return levels * scales
    ### END SOLUTION


# %% [markdown]
# ## Quantising the scales
#
# One 32-bit scale for 64 codes of four bits adds half a bit to each weight. The scales are alike, so eight bits each
# are enough.


# %%
def double_quantize(absmax: Tensor, block: int = 256) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise the scales of the blocks to eight bits.

    Args:
        absmax: (n,) float32 or float64, n at least 1.
        block: how many scales share one step.

    Returns:
        q8: (n,) int8, from -127 to 127.
        scale: (number of blocks,), the step of each block, positive, dtype of absmax.
        mean: 0-dim tensor, the mean of all of absmax, dtype of absmax.

    Example:
        >>> q8, scale, mean = double_quantize(torch.tensor([1.0, 3.0, 4.0, 8.0]), block=3)
        >>> q8.tolist(), float(mean), (scale * 127).round().tolist()
        ([-127, -42, 0, 127], 4.0, [3.0, 4.0])

    Notes:
        A value is read back as q8 * scale[its block] + mean. In each block the step is the largest absolute deviation
        from the mean divided by 127, and q8 is the nearest integer (exactly halfway: either one). A block without
        deviation has step 1. Blocks are consecutive, and the last one may be shorter.
    """
    ### BEGIN SOLUTION
    mean = absmax.mean()
    deviation = F.pad(absmax - mean, (0, -absmax.numel() % block)).view(-1, block)  # (N, block)
    scale = deviation.abs().amax(1) / 127  # (N,)
    scale = torch.where(scale == 0, 1, scale)
    q8 = (deviation / scale.unsqueeze(1)).round().clamp(-127, 127)
    return q8.flatten()[: absmax.numel()].to(torch.int8), scale, mean
    ### END SOLUTION


# %%
def qlora_bits(block: int, block2: int | None) -> float:
    """Count the bits that one weight costs in QLoRA's base.

    Args:
        block: weights per scale.
        block2: scales per second scale, or None for no second quantisation.

    Returns:
        4 bits of code, and its share of the scales: 8 bits a block plus 32 bits per block2 blocks, or,
        without the second quantisation, 32 bits a block. The one mean is not counted.

    Example:
        >>> round(qlora_bits(64, 256), 3), qlora_bits(64, None)
        (4.127, 4.5)
    """
    ### BEGIN SOLUTION
    if block2 is None:
        return 4 + 32 / block
    return 4 + 8 / block + 32 / (block * block2)
    ### END SOLUTION


# %% [markdown]
# ## QLoRA, and what is forgotten
#
# The base lies in four bits and never changes. The adapters on top are ordinary floats. Then all three ways of
# fine-tuning learn a new task, and the old one is measured again.


# %%
class QLoRALinear(nn.Module):
    """Add a trainable update of rank r to a linear layer that is kept in NF4.

    Args:
        base: nn.Linear with weight (out, in), with or without a bias. It is only read.
        r: rank, at least 1.
        alpha: numerator of the scale; the update is (alpha / r) B A.
        block: block size of quantize_nf4.

    Attributes: codes (out, in) uint8 and absmax, both buffers; A and B, parameters as in LoRALinear.

    Raises:
        ValueError: r is less than 1.

    Example:
        >>> layer = QLoRALinear(nn.Linear(3, 2), r=1, alpha=2.0)
        >>> layer.codes.dtype, sorted(name for name, p in layer.named_parameters() if p.requires_grad)
        (torch.uint8, ['A', 'B'])

    Notes:
        forward gives dequantize_nf4(codes, absmax) x + bias + (alpha / r) B A x. The weight is quantised once, here;
        codes, absmax and the bias never change afterwards, and no float copy of the weight is kept.
        Gradients reach A, B and x. A starts random, B at zero. In base's dtype throughout.
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float, block: int = 64) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        if r < 1:
            raise ValueError(f"the rank r must be at least 1, but is {r}")
        codes, absmax = quantize_nf4(base.weight.detach(), block)
        self.register_buffer("codes", codes)
        self.register_buffer("absmax", absmax)
        self.register_buffer("bias", None if base.bias is None else base.bias.detach().clone())
        self.A = nn.Parameter(base.weight.new_empty(r, base.in_features))
        self.B = nn.Parameter(base.weight.new_zeros(base.out_features, r))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))
        self.scale, self.block = alpha / r, block
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., in) to (..., out)."""
        ### BEGIN SOLUTION
        weight = dequantize_nf4(self.codes, self.absmax, self.block)  # (out, in), for this call only
        return F.linear(x, weight, self.bias) + self.scale * (x @ self.A.T @ self.B.T)
        ### END SOLUTION


# %%
def finetune_toy(
    model: nn.Module,
    data: dict[str, tuple[Tensor, Tensor]],
    method: str,
    steps: int = 100,
    lr: float = 0.02,
    r: int = 4,
    alpha: float = 8.0,
) -> dict[str, float]:
    """Fine-tune a copy of a classifier on a new task and measure what it learns and what it forgets.

    Args:
        model: maps x (N, D) to logits (N, C); its linear layers are children at any depth. It is not changed.
        data: "old" and "new", each a pair of x (N, D) and class ids y (N,) int64.
        method: "full" trains every parameter; "lora" and "qlora" replace every nn.Linear by LoRALinear(layer, r, alpha)
            or QLoRALinear(layer, r, alpha), freeze all the rest, and train the A and B.
        steps, lr: full-batch steps of torch.optim.Adam(lr=lr) on the mean cross-entropy of "new", in train mode.

    Returns:
        "trainable": how many numbers are trained; "old_before", "new_before", "old_after", "new_after": mean
        cross-entropy in eval mode as floats, "before" of the model as given, "after" of the tuned one.

    Raises:
        ValueError: method is none of the three.

    Example:
        >>> x, y = torch.eye(3), torch.tensor([2, 0, 1])
        >>> finetune_toy(nn.Sequential(nn.Linear(3, 3)), {"old": (x, y), "new": (x, y)}, "lora", r=2)["trainable"]
        12
    """
    ### BEGIN SOLUTION
    if method not in ("full", "lora", "qlora"):
        raise ValueError(f"method is full, lora or qlora, not {method!r}")

    def loss(net: nn.Module, task: str) -> float:
        with torch.no_grad():
            return F.cross_entropy(net.eval()(data[task][0]), data[task][1]).item()

    tuned = copy.deepcopy(model)
    metrics = {f"{task}_before": loss(tuned, task) for task in ("old", "new")}
    tuned.requires_grad_(method == "full")
    if method != "full":
        for parent in list(tuned.modules()):  # a list made before the first change: new layers are not walked into
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, (LoRALinear if method == "lora" else QLoRALinear)(child, r, alpha))
    params = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(params, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(tuned.train()(data["new"][0]), data["new"][1]).backward()
        optimizer.step()
    after = {f"{task}_after": loss(tuned, task) for task in ("old", "new")}
    return {"trainable": sum(p.numel() for p in params), **metrics, **after}
    ### END SOLUTION
