"""Wrong answers of chapter 15, each with the sentence that sets it right."""

import copy
import re

import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

ROLES = ("system", "user", "assistant", "tool")


# --- render_chat ------------------------------------------------------------------------------------------------------


@misconception(
    "render_chat",
    "You build one string and look for control strings afterwards, so a user can forge a turn; encode text on its own.",
)
def parses_text_for_controls(messages, template, add_generation_prompt=False):
    text = "<|begin|>" if "<|begin|>" in template else ""
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(message["role"])
        text += f"<|start|>{message['role']}<|sep|>{message['content']}<|end|>"
    text += "<|start|>assistant<|sep|>" * add_generation_prompt
    ids = []
    for piece in re.split("(" + "|".join(map(re.escape, template)) + ")", text):
        ids += [template[piece]] if piece in template else piece.encode()
    return ids


@misconception(
    "render_chat", "You always end with the assistant's header; add it only when add_generation_prompt is true."
)
def header_by_default(messages, template, add_generation_prompt=False):
    return reference.render_chat(messages, template, True)


@misconception(
    "render_chat",
    "You strip spaces and line breaks from the contents; different texts must stay different, so keep all.",
)
def strips_contents(messages, template, add_generation_prompt=False):
    stripped = [{**message, "content": message["content"].strip()} for message in messages]
    return reference.render_chat(stripped, template, add_generation_prompt)


@misconception(
    "render_chat", "You repeat the system message in front of every user turn; each message is rendered once, in place."
)
def repeats_the_system(messages, template, add_generation_prompt=False):
    system = [message for message in messages[:1] if message["role"] == "system"]
    repeated = []
    for i, message in enumerate(messages):
        repeated += (system if message["role"] == "user" and i > 1 else []) + [message]
    return reference.render_chat(repeated, template, add_generation_prompt)


@misconception("render_chat", "You start every message with <|begin|>; it stands once, before the whole conversation.")
def begins_every_message(messages, template, add_generation_prompt=False):
    ids = [token for message in messages for token in reference.render_chat([message], template)]
    header = reference.render_chat([], template, True) if add_generation_prompt else []
    return ids + header


@misconception("render_chat", "You encode characters by ord(), which leaves the byte range; encode the text as UTF-8.")
def code_points_for_bytes(messages, template, add_generation_prompt=False):
    ids = [template["<|begin|>"]] if "<|begin|>" in template else []
    for message in messages:
        if message["role"] not in ROLES:
            raise ValueError(message["role"])
        ids += [template["<|start|>"], *map(ord, message["role"]), template["<|sep|>"]]
        ids += [*map(ord, message["content"]), template["<|end|>"]]
    return ids + ([template["<|start|>"], *b"assistant", template["<|sep|>"]] if add_generation_prompt else [])


# --- build_sft_example ------------------------------------------------------------------------------------------------


@misconception("build_sft_example", "You train the prompt too; its tokens are given, so their labels are -100.")
def trains_the_prompt(prompt_ids, response_ids, eos, max_len, pad):
    tokens = [*prompt_ids, *response_ids, eos][: max_len + 1]
    padding = max_len + 1 - len(tokens)
    ids, labels = tokens[:-1] + [pad] * padding, tokens[1:] + [-100] * padding
    if not prompt_ids:
        raise ValueError("empty prompt")
    return torch.tensor(ids), torch.tensor(labels)


@misconception(
    "build_sft_example",
    "You blank one label too many: the last prompt token predicts the first token of the response and keeps its label.",
)
def loses_the_first_answer_token(prompt_ids, response_ids, eos, max_len, pad):
    ids, labels = reference.build_sft_example(prompt_ids, response_ids, eos, max_len, pad)
    labels[: len(prompt_ids)] = -100
    return ids, labels


@misconception(
    "build_sft_example",
    "You keep one label too many: a label at i is the token at i + 1, so the last prompt token is trained here.",
)
def trains_the_last_prompt_token(prompt_ids, response_ids, eos, max_len, pad):
    ids, labels = reference.build_sft_example(prompt_ids, response_ids, eos, max_len, pad)
    i = len(prompt_ids) - 2
    if 0 <= i < max_len:
        labels[i] = prompt_ids[-1]
    return ids, labels


@misconception(
    "build_sft_example",
    "Your labels are the inputs themselves; they must be shifted here, since the model does not shift them again.",
)
def does_not_shift(prompt_ids, response_ids, eos, max_len, pad):
    if not prompt_ids:
        raise ValueError("empty prompt")
    tokens = [*prompt_ids, *response_ids, eos][:max_len]
    labels = ([-100] * len(prompt_ids) + [*response_ids, eos])[:max_len]
    padding = max_len - len(tokens)
    return torch.tensor(tokens + [pad] * padding), torch.tensor(labels + [-100] * padding)


@misconception(
    "build_sft_example",
    "You blank every label that equals pad; when pad and eos are one id, the end is never trained. Go by position.",
)
def blanks_by_value(prompt_ids, response_ids, eos, max_len, pad):
    ids, labels = reference.build_sft_example(prompt_ids, response_ids, eos, max_len, pad)
    labels[labels == pad] = -100
    return ids, labels


@misconception("build_sft_example", "You train the padding; the label behind the end of the response is -100.")
def trains_the_padding(prompt_ids, response_ids, eos, max_len, pad):
    ids, labels = reference.build_sft_example(prompt_ids, response_ids, eos, max_len, pad)
    labels[len(prompt_ids) + len(response_ids) :] = pad
    return ids, labels


@misconception(
    "build_sft_example",
    "You put the eos back after cutting the response, which teaches the model to stop in mid-sentence; drop it too.",
)
def ends_a_cut_response(prompt_ids, response_ids, eos, max_len, pad):
    room = max(max_len - len(prompt_ids), 0)
    return reference.build_sft_example(prompt_ids, response_ids[:room], eos, max_len, pad)


# --- pack_sequences ---------------------------------------------------------------------------------------------------


@misconception("pack_sequences", "Your positions run on through the row; they must restart at 0 in every segment.")
def positions_run_on(examples, max_len):
    ids, labels, segments, _ = reference.pack_sequences(examples, max_len)
    return ids, labels, segments, torch.arange(max_len).expand_as(ids) * (segments != 0)


@misconception(
    "pack_sequences",
    "You make the labels from the packed row, so the end of one example predicts the next one; move them along.",
)
def labels_across_the_border(examples, max_len):
    ids, labels, segments, positions = reference.pack_sequences(examples, max_len)
    following = F.pad(ids[:, 1:], (0, 1))
    return ids, torch.where(F.pad(segments[:, 1:], (0, 1)) != 0, following, labels), segments, positions


@misconception(
    "pack_sequences",
    "You open a new row as soon as the next example does not fit into the last one; look at all rows, longest first.",
)
def fills_rows_in_turn(examples, max_len):
    reference.pack_sequences(examples, max_len)
    rows = []
    for example in examples:
        if not rows or sum(len(e[0]) for e in rows[-1]) + len(example[0]) > max_len:
            rows.append([])
        rows[-1].append(example)
    packed = [reference.pack_sequences(row, max_len) for row in rows]
    return tuple(torch.cat(parts) for parts in zip(*packed, strict=True)) or reference.pack_sequences([], max_len)


@misconception(
    "pack_sequences", "You cut examples that are too long instead of refusing them; raise ValueError, and lose nothing."
)
def cuts_long_examples(examples, max_len):
    return reference.pack_sequences([(ids[:max_len], labels[:max_len]) for ids, labels in examples], max_len)


@misconception(
    "pack_sequences",
    "Your mask is only causal, so a token sees the examples before its own; compare the segments too.",
    replaces="segment_mask",
)
def causal_only(segment_ids):
    n = segment_ids.shape[-1]
    return torch.ones(n, n, dtype=torch.bool).tril().expand(*segment_ids.shape, n).clone()


@misconception(
    "pack_sequences",
    "Your mask compares segments but is not causal: a token sees later tokens of its own segment.",
    replaces="segment_mask",
)
def segments_without_causality(segment_ids):
    mask = reference.segment_mask(segment_ids)
    return mask | mask.mT


@misconception(
    "pack_sequences",
    "Your padding positions may attend to nothing, and their softmax is NaN; let each of them see itself.",
    replaces="segment_mask",
)
def blind_padding(segment_ids):
    return reference.segment_mask(segment_ids) & (segment_ids != 0).unsqueeze(-1)


# --- LoRALinear -------------------------------------------------------------------------------------------------------


@misconception("LoRALinear", "B starts random, so the fresh adapter already changes the output; B starts at zero.")
class RandomB(reference.LoRALinear):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        nn.init.normal_(self.B, std=0.1)


@misconception(
    "LoRALinear",
    "A and B both start at zero: each one's gradient contains the other, so neither ever learns. A starts random.",
)
class BothZero(reference.LoRALinear):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        nn.init.zeros_(self.A)


@misconception("LoRALinear", "The base still trains; freeze its weight and its bias.")
class BaseTrains(reference.LoRALinear):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        self.base.requires_grad_(True)


@misconception("LoRALinear", "You scale the update by alpha alone; the scale is alpha / r.")
class AlphaWithoutRank(reference.LoRALinear):
    def __init__(self, base, r, alpha):
        super().__init__(base, r, alpha)
        self.scale = alpha


@misconception(
    "LoRALinear", "merge() adds B A without the scale, so the merged layer computes something else than the adapter."
)
class MergeWithoutScale(reference.LoRALinear):
    def merge(self):
        if not self.merged:
            with torch.no_grad():
                self.base.weight += self.B @ self.A
        self.merged = True

    def unmerge(self):
        if self.merged:
            with torch.no_grad():
                self.base.weight -= self.B @ self.A
        self.merged = False


@misconception(
    "LoRALinear", "After merge() the update is applied twice: once inside the weight and once beside it in forward."
)
class AppliedTwice(reference.LoRALinear):
    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


@misconception("LoRALinear", "The merged layer forgets the bias; merging touches the weight only.")
class MergeLosesTheBias(reference.LoRALinear):
    def forward(self, x):
        return F.linear(x, self.base.weight) if self.merged else super().forward(x)


@misconception("LoRALinear", "Merging twice adds the update twice; remember that the layer is merged and do nothing.")
class MergesAgain(reference.LoRALinear):
    def merge(self):
        self.merged = False
        super().merge()


# --- inject_lora ------------------------------------------------------------------------------------------------------


def inject(model, r, alpha, wanted, freeze=True):
    """Replace the linear layers for which wanted(dotted path) is true."""
    linear = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear) and wanted(path)}
    if freeze:
        model.requires_grad_(False)
    for path, layer in linear.items():
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, reference.LoRALinear(layer, r, alpha))
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def has_layer(model, target):
    return any(n.rpartition(".")[2] == target and isinstance(m, nn.Linear) for n, m in model.named_modules())


@misconception(
    "inject_lora",
    "You match a part of the name, so head also catches lm_head; compare the whole last part of the path.",
)
def matches_substrings(model, targets, r, alpha):
    if not all(has_layer(model, target) for target in targets):
        raise ValueError(targets)
    return inject(model, r, alpha, lambda path: any(target in path for target in targets))


@misconception("inject_lora", "Only the adapted layers are frozen; norms, embeddings and other layers must be too.")
def forgets_to_freeze_the_rest(model, targets, r, alpha):
    if not all(has_layer(model, target) for target in targets):
        raise ValueError(targets)
    return inject(model, r, alpha, lambda path: path.rpartition(".")[2] in targets, freeze=False)


@misconception("inject_lora", "Layers of one name share one adapter; each layer needs an A and a B of its own.")
def shares_one_adapter(model, targets, r, alpha):
    reference.inject_lora(model, targets, r, alpha)
    first = {}
    for path, module in model.named_modules():
        if isinstance(module, reference.LoRALinear):
            other = first.setdefault(path.rpartition(".")[2], module)
            module.A, module.B = other.A, other.B
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@misconception(
    "inject_lora",
    "A target that no layer bears passes in silence, and nothing trains; raise ValueError before any change.",
)
def ignores_unknown_targets(model, targets, r, alpha):
    return inject(model, r, alpha, lambda path: path.rpartition(".")[2] in targets)


@misconception(
    "inject_lora", "You look only at the model's own children; layers lie deeper, so go through all modules."
)
def only_the_top_level(model, targets, r, alpha):
    if not all(has_layer(model, target) for target in targets):
        raise ValueError(targets)
    return inject(model, r, alpha, lambda path: path in targets)


@misconception(
    "inject_lora",
    "You divide by the base's parameters alone; the adapters are part of all parameters.",
    replaces="trainable_fraction",
)
def divides_by_the_base(cfg, targets, r):
    share = reference.trainable_fraction(cfg, targets, r)
    return share / (1 - share)


@misconception(
    "inject_lora",
    "You give k and v the full width; with grouped heads they are only n_kv_heads heads wide.",
    replaces="trainable_fraction",
)
def ignores_grouped_heads(cfg, targets, r):
    return reference.trainable_fraction({**cfg, "n_kv_heads": cfg["n_heads"]}, targets, r)


# --- quantize_nf4 -----------------------------------------------------------------------------------------------------


@misconception(
    "quantize_nf4",
    "Your levels are evenly spaced; those of NF4 are quantiles of the normal distribution.",
    replaces="nf4_codebook",
)
def evenly_spaced():
    return torch.cat([torch.linspace(-1, 0, 8), torch.linspace(0, 1, 9)[1:]])


@misconception(
    "quantize_nf4",
    "Your levels are symmetric and miss the zero; eight lie above it, seven below it, and zero is one of the sixteen.",
    replaces="nf4_codebook",
)
def without_a_zero():
    positive = reference.nf4_codebook()[8:]
    return torch.cat([-positive.flip(0), positive])


@misconception("quantize_nf4", "One scale serves the whole tensor; every block has its own absmax.")
def one_global_scale(x, block=64):
    n_blocks = -(-x.numel() // block)
    codes, absmax = reference.quantize_nf4(x, max(x.numel(), 1))
    return codes, absmax.repeat_interleave(n_blocks)


@misconception(
    "quantize_nf4", "You take the largest signed value of a block; a large negative one then lies outside [-1, 1]."
)
def signed_maximum(x, block=64):
    flat = x.reshape(-1)
    blocks = F.pad(flat, (0, -flat.numel() % block)).view(-1, block)
    absmax = blocks.amax(1)
    divisor = torch.where(absmax == 0, 1, absmax).unsqueeze(1)
    levels = reference.nf4_codebook().to(x.dtype)
    codes = torch.bucketize(blocks / divisor, (levels[1:] + levels[:-1]) / 2)
    return codes.flatten()[: flat.numel()].view(x.shape).to(torch.uint8), absmax


@misconception("quantize_nf4", "You take the next level below; take the nearest one.")
def rounds_down(x, block=64):
    codes, absmax = reference.quantize_nf4(x, block)
    back = reference.dequantize_nf4(codes, absmax, block)
    return torch.where((back > x) & (codes > 0), codes - 1, codes), absmax


@misconception("quantize_nf4", "The blocks start anew in each row; they run on over the flattened tensor.")
def blocks_within_rows(x, block=64):
    if x.dim() < 2 or x.numel() == 0:
        return reference.quantize_nf4(x, block)
    rows = [reference.quantize_nf4(row, block) for row in x.reshape(-1, x.shape[-1])]
    return torch.stack([codes for codes, _ in rows]).view(x.shape), torch.cat([absmax for _, absmax in rows])


@misconception(
    "quantize_nf4",
    "The codes are used as evenly spaced numbers; look each one up in the codebook.",
    replaces="dequantize_nf4",
)
def codes_as_numbers(codes, absmax, block=64):
    scales = absmax.repeat_interleave(block)[: codes.numel()].view(codes.shape)
    return (codes.to(absmax.dtype) / 7.5 - 1) * scales


# --- double_quantize --------------------------------------------------------------------------------------------------


@misconception(
    "double_quantize", "You do not subtract the mean: the scales are all positive, so half of the integers go unused."
)
def without_the_mean(absmax, block=256):
    groups = absmax.split(block)
    scale = torch.stack([g.max() / 127 for g in groups])
    q8 = torch.cat([(g / s).round() for g, s in zip(groups, scale, strict=True)]).to(torch.int8)
    return q8, scale, torch.zeros_like(absmax.mean())


@misconception("double_quantize", "One step serves all scales; each run of `block` of them has its own.")
def one_step_for_all(absmax, block=256):
    q8, scale, mean = reference.double_quantize(absmax, absmax.numel())
    return q8, scale.repeat_interleave(-(-absmax.numel() // block)), mean


@misconception("double_quantize", "You cut the fraction off; rounding to the nearest integer halves the error.")
def truncates(absmax, block=256):
    _, scale, mean = reference.double_quantize(absmax, block)
    step = scale.repeat_interleave(block)[: absmax.numel()]
    return ((absmax - mean) / step).to(torch.int8), scale, mean


@misconception("double_quantize", "Every block has its own mean; one mean of all scales is kept.")
def mean_of_each_block(absmax, block=256):
    parts = [reference.double_quantize(group, block) for group in absmax.split(block)]
    q8, scale = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    return q8, scale, absmax.mean()


@misconception(
    "double_quantize",
    "You keep the 32 bits a block; after the second quantisation a block pays 8 bits and its share of one step.",
    replaces="qlora_bits",
)
def keeps_the_first_overhead(block, block2):
    return 4 + 32 / block + (8 / (block * block2) if block2 else 0)


@misconception(
    "double_quantize",
    "The second share is 32 / block2; one step serves block2 blocks, so block * block2 weights.",
    replaces="qlora_bits",
)
def share_of_scales_only(block, block2):
    return 4 + 32 / block if block2 is None else 4 + 8 / block + 32 / block2


# --- QLoRALinear ------------------------------------------------------------------------------------------------------


@misconception("QLoRALinear", "A trainable dequantised copy of the weight is kept; only A and B may train.")
class TrainsTheCopy(reference.QLoRALinear):
    def __init__(self, base, r, alpha, block=64):
        super().__init__(base, r, alpha, block)
        self.weight = nn.Parameter(reference.dequantize_nf4(self.codes, self.absmax, block))

    def forward(self, x):
        return F.linear(x, self.weight, self.bias) + self.scale * (x @ self.A.T @ self.B.T)


@misconception(
    "QLoRALinear", "The adapters are merged into the four bits at every call; codes and absmax never change."
)
class MergesIntoFourBits(reference.QLoRALinear):
    def forward(self, x):
        out = super().forward(x)
        if self.training:
            with torch.no_grad():
                weight = reference.dequantize_nf4(self.codes, self.absmax, self.block) + self.scale * self.B @ self.A
                self.codes, self.absmax = reference.quantize_nf4(weight, self.block)
        return out


@misconception("QLoRALinear", "The update is scaled by alpha alone; the scale is alpha / r here too.")
class QloraAlphaWithoutRank(reference.QLoRALinear):
    def __init__(self, base, r, alpha, block=64):
        super().__init__(base, r, alpha, block)
        self.scale = alpha


@misconception("QLoRALinear", "The bias of the given layer is lost; keep it, frozen.")
class QloraWithoutBias(reference.QLoRALinear):
    def __init__(self, base, r, alpha, block=64):
        super().__init__(base, r, alpha, block)
        self.bias = None


@misconception("QLoRALinear", "The float weight is used instead of the four bits; forward must dequantise the codes.")
class UsesTheFloatWeight(reference.QLoRALinear):
    def __init__(self, base, r, alpha, block=64):
        super().__init__(base, r, alpha, block)
        self.kept = base.weight.detach()

    def forward(self, x):
        return F.linear(x, self.kept, self.bias) + self.scale * (x @ self.A.T @ self.B.T)


@misconception("QLoRALinear", "No gradient passes through the base to x, so the layers below cannot learn.")
class StopsTheGradient(reference.QLoRALinear):
    def forward(self, x):
        with torch.no_grad():
            base = F.linear(x, reference.dequantize_nf4(self.codes, self.absmax, self.block), self.bias)
        return base + self.scale * (x @ self.A.T @ self.B.T)


def tune(model, data, method, steps, lr, r, alpha, freeze=True, evaluate=True, trained="new"):
    """The reference's finetune_toy with switches; works on the model that is given."""
    if method not in ("full", "lora", "qlora"):
        raise ValueError(method)

    def loss(task):
        if evaluate:
            model.eval()
        with torch.no_grad():
            return F.cross_entropy(model(data[task][0]), data[task][1]).item()

    metrics = {f"{task}_before": loss(task) for task in ("old", "new")}
    model.requires_grad_(method == "full" or not freeze)
    if method != "full":
        kind = reference.LoRALinear if method == "lora" else reference.QLoRALinear
        for path, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear):
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, kind(layer, r, alpha))
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(params, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        model.train()
        F.cross_entropy(model(data[trained][0]), data[trained][1]).backward()
        optimizer.step()
    after = {f"{task}_after": loss(task) for task in ("old", "new")}
    return {"trainable": sum(p.numel() for p in params), **metrics, **after}


@misconception(
    "QLoRALinear",
    "You tune the model that was given; work on a deep copy, and leave it as it was.",
    replaces="finetune_toy",
)
def tunes_the_given_model(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    return tune(model, data, method, steps, lr, r, alpha)


@misconception(
    "QLoRALinear",
    "Norms and other parameters outside the linear layers still train with lora and qlora; freeze all the rest first.",
    replaces="finetune_toy",
)
def leaves_the_norms_free(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    return tune(copy.deepcopy(model), data, method, steps, lr, r, alpha, freeze=False)


@misconception(
    "QLoRALinear",
    "You measure with dropout switched on; measure in eval mode, train in train mode.",
    replaces="finetune_toy",
)
def measures_in_train_mode(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    return tune(copy.deepcopy(model), data, method, steps, lr, r, alpha, evaluate=False)


@misconception("QLoRALinear", "You train on the old task; the new one is to be learned.", replaces="finetune_toy")
def trains_on_the_old_task(model, data, method, steps=100, lr=0.02, r=4, alpha=8.0):
    return tune(copy.deepcopy(model), data, method, steps, lr, r, alpha, trained="old")
