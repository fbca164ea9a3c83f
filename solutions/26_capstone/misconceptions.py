"""Known wrong answers of chapter 26, each with the sentence that sets it right."""

import copy
import math
import warnings
from datetime import date
from statistics import NormalDist

import numpy as np
import torch
from torch import nn

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- family_params


def counted(config, **changes):
    return dict(reference.family_params(config | changes))


def summed(counts, idle=0):
    total = sum(counts[name] for name in ("embedding", "attention", "mlp", "norm"))
    return counts | {"total": total, "active": total - idle}


def idle_of(config):
    counts = reference.family_params(config)
    return counts["total"] - counts["active"]


@misconception(
    "family_params", "The width of a head is taken as d_model / n_heads; read head_dim, which Gemma sets apart."
)
def heads_divide_the_width(config):
    return counted(config, head_dim=config["d_model"] // config["n_heads"])


@misconception(
    "family_params", "A tied head is counted once more although it is the token table itself; count it once."
)
def counts_the_tied_head(config):
    return counted(config, tied=False)


@misconception("family_params", "The norm after the last layer is missing; there are 2 L + 1 norms.")
def forgets_the_last_norm(config):
    counts = counted(config)
    one = counts["norm"] // (2 * config["n_layers"] + 1)
    return summed(counts | {"norm": counts["norm"] - one}, idle_of(config))


@misconception("family_params", "Positions are counted though they are rotary; only learned positions are parameters.")
def counts_rotary_positions(config):
    counts = counted(config)
    more = 0 if config["positions"] == "learned" else config["T_max"] * config["d_model"]
    return summed(counts | {"embedding": counts["embedding"] + more}, idle_of(config))


@misconception("family_params", "Keys and values are counted as wide as the queries; they have only n_kv_heads heads.")
def full_keys_and_values(config):
    return counted(config, n_kv_heads=config["n_heads"])


@misconception("family_params", "A gated network has three matrices, W_gate among them; you counted two.")
def forgets_the_gate(config):
    return counted(config, ffn="gelu")


@misconception(
    "family_params", "The active parameters leave out the experts in use; leave out only those that a token passes by."
)
def active_without_any_expert(config):
    counts = counted(config)
    k = config["top_k"]
    idle = idle_of(config) * config["n_experts"] // max(config["n_experts"] - k, 1) if config["n_experts"] else 0
    return counts | {"active": counts["total"] - idle}


@misconception("family_params", "Shared experts are forgotten; every token goes through them and they are stored too.")
def forgets_shared_experts(config):
    return counted(config, n_shared=0)


@misconception("family_params", "The router has a matrix too, d_model times n_experts in each layer.")
def forgets_the_router(config):
    counts = counted(config)
    router = config["n_layers"] * config["d_model"] * config["n_experts"]
    return summed(counts | {"mlp": counts["mlp"] - router}, idle_of(config))


@misconception("family_params", "The biases are missing; with bias every matrix of a layer has a vector too.")
def forgets_biases(config):
    return counted(config, bias=False)


# -- family_memory, fits


def memory(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return reference.family_memory(config, batch, seq, w_bits, kv_bits, activations)


@misconception("family_memory", "Bits are taken for bytes; a byte has eight bits.")
def bits_for_bytes(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return memory(config, batch, seq, 8 * w_bits, 8 * kv_bits, activations)


@misconception("family_memory", "The cache got the bits of the weights; it has bits of its own, kv_bits.")
def cache_in_bits_of_weights(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return memory(config, batch, seq, w_bits, w_bits, activations)


@misconception("family_memory", "Activations are left out although they were asked for.")
def never_activations(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return memory(config, batch, seq, w_bits, kv_bits, False)


@misconception("family_memory", "The window does not cap the cache; a layer keeps no more tokens than its window sees.")
def ignores_the_window(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return memory(config | {"window": None}, batch, seq, w_bits, kv_bits, activations)


@misconception(
    "family_memory", "The window caps every layer, also those that see everything; ask layer_window of each."
)
def windows_everywhere(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    return memory(config | {"full_every": 0}, batch, seq, w_bits, kv_bits, activations)


@misconception("family_memory", "Only the parameters in use are put into memory; idle experts must be there too.")
def active_weights_only(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    parts = dict(memory(config, batch, seq, w_bits, kv_bits, activations))
    parts["weights"] = reference.family_params(config)["active"] * w_bits // 8
    return parts | {"total": parts["weights"] + parts["kv"] + parts["activations"]}


@misconception("family_memory", "A value is stored beside every key; the cache counts only one of the two.")
def keys_without_values(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    parts = dict(memory(config, batch, seq, w_bits, kv_bits, activations))
    parts["kv"] //= 2
    return parts | {"total": parts["weights"] + parts["kv"] + parts["activations"]}


@misconception("family_memory", "The cache holds key-value heads, not query heads.")
def cache_of_query_heads(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    parts = dict(memory(config, batch, seq, w_bits, kv_bits, activations))
    parts["kv"] = parts["kv"] * config["n_heads"] // config["n_kv_heads"]
    return parts | {"total": parts["weights"] + parts["kv"] + parts["activations"]}


@misconception("family_memory", "A GiB is 2**30 bytes, not a thousand million.", replaces="fits")
def in_decimal_gigabytes(config, gpu_gib, batch=1, w_bits=16, kv_bits=16, activations=False):
    return reference.fits(config, gpu_gib * 1e9 / 2**30, batch, w_bits, kv_bits, activations)


@misconception(
    "family_memory", "The answer is one token too long: the total must not exceed the memory.", replaces="fits"
)
def one_token_too_many(config, gpu_gib, batch=1, w_bits=16, kv_bits=16, activations=False):
    return min(reference.fits(config, gpu_gib, batch, w_bits, kv_bits, activations) + 1, config["T_max"])


@misconception("family_memory", "No conversation is longer than T_max, however much memory there is.", replaces="fits")
def longer_than_the_model_can_read(config, gpu_gib, batch=1, w_bits=16, kv_bits=16, activations=False):
    return reference.fits(config | {"T_max": 2**40}, gpu_gib, batch, w_bits, kv_bits, activations)


@misconception(
    "family_memory", "Activations are left out of what must fit although they were asked for.", replaces="fits"
)
def fits_without_activations(config, gpu_gib, batch=1, w_bits=16, kv_bits=16, activations=False):
    return reference.fits(config, gpu_gib, batch, w_bits, kv_bits, False)


# -- Attention, Experts, build


@misconception(
    "build", "The window is one token too wide: the current token counts as one of it.", replaces="Attention"
)
class WindowOneWider(reference.Attention):
    def __init__(self, config, window):
        super().__init__(config, window and window + 1)


class Written(reference.Attention):
    """Attention with steps that can be replaced."""

    def place(self, n):
        return n

    def share(self, x):
        return x.repeat_interleave(self.W_q.out_features // self.W_k.out_features, dim=1)

    def scaled(self, q):
        return q / self.hd**0.5

    def seen(self, back):
        return (back >= 0) & (back < (self.window or 10**9))

    def forward(self, x, cache=None, layer=0):
        n = 0 if cache is None else cache.length(layer)
        q, k, v = (W(x).unflatten(-1, (-1, self.hd)).transpose(1, 2) for W in (self.W_q, self.W_k, self.W_v))
        if self.turns:
            q, k = reference.rope(q, self.place(n)), reference.rope(k, self.place(n))
        if cache is not None:
            k, v = cache.append(layer, k, v)
        back = torch.arange(n, n + x.shape[1])[:, None] - torch.arange(k.shape[2])
        scores = self.scaled(q) @ self.share(k).mT
        P = scores.masked_fill(~self.seen(back), -math.inf).softmax(-1)
        return self.W_o((P @ self.share(v)).transpose(1, 2).flatten(2))


@misconception(
    "build", "Positions restart at 0 with every call; with a cache they begin at its length.", replaces="Attention"
)
class RestartingPositions(Written):
    def place(self, n):
        return 0


@misconception(
    "build", "Query heads share keys as 0 1 0 1; neighbours share: head h reads h // (H / Hk).", replaces="Attention"
)
class HeadsInTurns(Written):
    def share(self, x):
        return x.repeat(1, self.W_q.out_features // self.W_k.out_features, 1, 1)


@misconception(
    "build", "Scores are divided by the root of d_model; it is the width of a head that counts.", replaces="Attention"
)
class ScaledByModelWidth(Written):
    def scaled(self, q):
        return q / self.W_q.in_features**0.5


@misconception(
    "build", "Tokens see what comes after them; a key behind the query must be hidden.", replaces="Attention"
)
class SeesTheFuture(Written):
    def seen(self, back):
        return back < (self.window or 10**9)


@misconception(
    "build", "Biases are missing in attention although the configuration asks for them.", replaces="Attention"
)
class AttentionWithoutBias(reference.Attention):
    def __init__(self, config, window):
        super().__init__(config | {"bias": False}, window)


class WrittenExperts(reference.Experts):
    """Experts with steps that can be replaced."""

    def weigh(self, logits, values):
        return values.softmax(-1)

    def forward(self, x):
        tokens = x.flatten(0, 1)
        logits = self.router(tokens)
        values, chosen = logits.topk(self.k, dim=-1)
        weights = self.weigh(logits, values)
        out = torch.zeros_like(tokens)
        for e, expert in enumerate(self.experts):
            rows, slot = (chosen == e).nonzero(as_tuple=True)
            if len(rows):
                out = out.index_add(0, rows, weights[rows, slot, None] * expert(tokens[rows]))
        return sum((expert(x) for expert in self.shared), start=out.view_as(x))


@misconception(
    "build",
    "The weights are a softmax over all experts, so the chosen ones miss one in sum; soften the chosen logits alone.",
    replaces="Experts",
)
class SoftmaxOverAll(WrittenExperts):
    def weigh(self, logits, values):
        return logits.softmax(-1).topk(self.k, dim=-1).values


@misconception(
    "build", "The chosen experts count alike; weigh them by the softmax of their logits.", replaces="Experts"
)
class ExpertsAlike(WrittenExperts):
    def weigh(self, logits, values):
        return torch.full_like(values, 1 / self.k)


@misconception(
    "build", "Shared experts are made but never used; add what they give for every token.", replaces="Experts"
)
class SharedUnused(reference.Experts):
    def forward(self, x):
        shared, self.shared = self.shared, nn.ModuleList()
        y = super().forward(x)
        self.shared = shared
        return y


@misconception(
    "build", "Every expert reads every token; run an expert only on the tokens that chose it.", replaces="Experts"
)
class AllExpertsRun(reference.Experts):
    def forward(self, x):
        logits = self.router(x)
        values, chosen = logits.topk(self.k, dim=-1)
        weights = torch.zeros_like(logits).scatter(-1, chosen, values.softmax(-1))
        outputs = torch.stack([expert(x) for expert in self.experts], -1)
        return (outputs * weights[..., None, :]).sum(-1) + sum(expert(x) for expert in self.shared)


@misconception("build", "The tied head is a copy of the token table; both must be one parameter.")
def copied_head(config):
    model = reference.build(config)
    if config["tied"]:
        model.head.weight = nn.Parameter(model.embedding.weight.detach().clone())
    return model


@misconception(
    "build",
    "No layer looks through a window; hand layer_window of each to its attention, and hide what lies further back.",
)
def windowless(config):
    model = reference.build(config | {"window": None})
    model.config = config
    return model


@misconception("build", "Every layer got the window, also those that see everything; ask layer_window of each layer.")
def window_in_every_layer(config):
    return reference.build(config | {"full_every": 0})


@misconception("build", "One norm serves a whole layer twice; each norm is one of its own.")
def one_norm_a_layer(config):
    model = reference.build(config)
    for block in model.blocks:
        block.norm2 = block.norm1
    return model


@misconception("build", "There are no positions at all where they should be learned; add their table.")
def no_learned_positions(config):
    model = reference.build(config)
    model.positions = None
    return model


@misconception("build", "Experts are left out: every layer got a single feed-forward network.")
def never_experts(config):
    return reference.build(config | {"n_experts": 0})


# -- recover_logprobs


@misconception(
    "recover_logprobs", "What a bias does to the sum of all probabilities is ignored; undo the renormalisation."
)
def ignores_renormalisation(api, V, top_k, bias):
    log_p, seen = torch.zeros(V, dtype=torch.float64), []
    while len(seen) < V:
        for i, value in api({i: -bias for i in seen}).items():
            if i not in seen:
                log_p[i] = value
                seen.append(i)
    return log_p


@misconception("recover_logprobs", "One call is spent on each token; every call shows top_k of them.")
def one_call_a_token(api, V, top_k, bias):
    log_p = torch.zeros(V, dtype=torch.float64)
    for i in range(V):
        shown = api({i: bias})
        S = math.exp(shown[i])
        log_p[i] = shown[i] - bias - math.log(max(1 - S, 1e-300) + S * math.exp(-bias))
    return log_p


def pushed_up(api, V, top_k, bias, D):
    log_p = torch.zeros(V, dtype=torch.float64)
    for start in range(0, V, top_k):
        group = range(start, min(start + top_k, V))
        shown = api(dict.fromkeys(group, bias))
        S = sum(math.exp(shown[i]) for i in group)
        for i in group:
            log_p[i] = shown[i] + D(S, bias)
    return log_p


@misconception(
    "recover_logprobs",
    "A large bias drives the sum S of pushed tokens to 1, and 1 - S is lost to rounding; push down what is known.",
)
def loses_one_minus_s(api, V, top_k, bias):
    return pushed_up(api, V, top_k, bias, lambda S, b: -b - math.log(max(1 - S, 0.0) + S * math.exp(-b)))


@misconception(
    "recover_logprobs", "The bias is taken off the logarithms, but the sum that it changed is not put right."
)
def takes_off_the_bias_only(api, V, top_k, bias):
    return pushed_up(api, V, top_k, bias, lambda S, b: -b)


@misconception("recover_logprobs", "The sum S is divided out as if only the shown tokens existed.")
def normalises_each_group(api, V, top_k, bias):
    return pushed_up(api, V, top_k, bias, lambda S, b: -math.log(S))


@misconception("recover_logprobs", "These are probabilities; the answer is their logarithms.")
def probabilities(api, V, top_k, bias):
    return reference.recover_logprobs(api, V, top_k, bias).exp()


@misconception(
    "recover_logprobs", "The mass of the tokens pushed down is taken as gone; only the last group's was known."
)
def forgets_earlier_groups(api, V, top_k, bias):
    log_p, seen, rest = torch.zeros(V, dtype=torch.float64), [], 1.0
    while len(seen) < V:
        shown = api({i: -bias for i in seen})
        new = {i: value + math.log(rest) for i, value in shown.items() if i not in seen}
        for i, value in new.items():
            log_p[i] = value
        seen += new
        rest = max(1 - sum(math.exp(value) for value in new.values()), 1e-300)
    return log_p


# -- estimate_hidden_size


def warned(d, n):
    if d == n:
        warnings.warn("more rows might show more", stacklevel=2)
    return d


def spectrum(logits):
    x = logits.double()
    return torch.linalg.svdvals(x - x.mean(dim=1, keepdim=True))


@misconception(
    "estimate_hidden_size", "Singular values are counted above a fixed number; compare them with the largest one."
)
def absolute_threshold(logits):
    return warned(int((spectrum(logits) > 1e-2).sum()), len(logits))


@misconception(
    "estimate_hidden_size", "This is the size of the vocabulary, the width of the table and not that of the model."
)
def size_of_the_vocabulary(logits):
    return logits.shape[1]


@misconception("estimate_hidden_size", "All singular values that are not zero are counted, rounding and noise too.")
def exact_rank(logits):
    return warned(int(torch.linalg.matrix_rank(logits.double() - logits.double().mean(1, keepdim=True))), len(logits))


@misconception(
    "estimate_hidden_size", "The constant of each row counts as a direction; take off the mean of each row first."
)
def keeps_the_row_constants(logits):
    s = torch.linalg.svdvals(logits.double())
    return warned(int((s > 0.01 * s[0]).sum()), len(logits))


@misconception("estimate_hidden_size", "The mean of each column is taken off; the constants lie in the rows.")
def centres_the_columns(logits):
    x = logits.double()
    s = torch.linalg.svdvals(x - x.mean(dim=0))
    return warned(int((s > 0.01 * s[0]).sum()), len(logits))


@misconception("estimate_hidden_size", "When every row is a direction of its own, warn: more rows might show more.")
def never_warns(logits):
    s = spectrum(logits)
    return int((s > 0.01 * s[0]).sum())


# -- doubling_time, extrapolate


def years_of(dates):
    return np.array([date.fromisoformat(day).toordinal() / 365.25 for day in dates])


@misconception("doubling_time", "This is in days; the answer is in years of 365.25 days.")
def in_days(dates, compute):
    return 365.25 * reference.doubling_time(dates, compute)


@misconception("doubling_time", "This is the slope, in doublings a year; the time of one doubling is its reciprocal.")
def doublings_a_year(dates, compute):
    return 1 / reference.doubling_time(dates, compute)


@misconception("doubling_time", "The natural logarithm measures growth by e; doublings need the logarithm to base two.")
def time_of_e(dates, compute):
    return reference.doubling_time(dates, compute) / math.log(2)


@misconception("doubling_time", "Only the first and the last point are used; fit all of them by least squares.")
def first_to_last(dates, compute):
    reference.doubling_time(dates, compute)
    x, y = years_of(dates), np.log2(np.array(compute, dtype=float))
    first, last = x.argmin(), x.argmax()
    return float((x[last] - x[first]) / (y[last] - y[first]))


@misconception("doubling_time", "A trend through fewer than three points says nothing; refuse it with a ValueError.")
def accepts_two_points(dates, compute):
    if len(dates) != len(compute) or len(dates) < 2 or min(compute) <= 0:
        raise ValueError("points")
    x, y = years_of(dates), np.log2(np.array(compute, dtype=float))
    return float(1 / np.polyfit(x - x.mean(), y, 1)[0])


def interval(dates, compute, when, level, one=1.0, t=None, spare=2, at=None):
    years, n = reference.doubling_time(dates, compute), len(dates)
    x, y = years_of(dates), np.log2(np.array(compute, dtype=float))
    dx = x - x.mean()
    new = years_of([when])[0] - x.mean()
    residuals = y - y.mean() - dx / years
    s = math.sqrt(residuals @ residuals / max(n - spare, 1))
    far = new**2 if at is None else at
    half = (t or reference.t_quantile((1 + level) / 2, n - 2)) * s * math.sqrt(one + 1 / n + far / (dx @ dx))
    middle = y.mean() + new / years
    return float(2 ** (middle - half)), float(2**middle), float(2 ** (middle + half))


@misconception("doubling_time", "This interval is that of the line; a new model scatters around it too.", "extrapolate")
def interval_of_the_line(dates, compute, when, level=0.95):
    return interval(dates, compute, when, level, one=0.0)


@misconception("doubling_time", "The normal quantile is too small for few points; use Student's t.", "extrapolate")
def normal_quantile(dates, compute, when, level=0.95):
    return interval(dates, compute, when, level, t=NormalDist().inv_cdf((1 + level) / 2))


@misconception(
    "doubling_time", "The level is cut off on one side only; each side gets half of the rest.", "extrapolate"
)
def one_sided(dates, compute, when, level=0.95):
    return interval(dates, compute, when, level, t=reference.t_quantile(level, len(dates) - 2) or 1e-12)


@misconception("doubling_time", "Two numbers were fitted, so the squares are divided by n - 2.", "extrapolate")
def divides_by_n(dates, compute, when, level=0.95):
    return interval(dates, compute, when, level, spare=0)


@misconception(
    "doubling_time", "The interval must widen with the distance from the dates that were seen.", "extrapolate"
)
def as_wide_everywhere(dates, compute, when, level=0.95):
    return interval(dates, compute, when, level, at=0.0)


# -- pipeline


@misconception("pipeline", "The tokenizer learns from the whole corpus; what is held out it must never see.", "pack")
def tokenizer_sees_all(corpus, parts, plan):
    def train_bpe(text, vocab_size, special_tokens):
        return parts.train_bpe("<|end|>".join([*corpus, *reference.ROLES]), vocab_size, special_tokens)

    return reference.pack(corpus, copied(parts, train_bpe=train_bpe), plan)


def copied(parts, **changes):
    return type(parts)(**{name: getattr(parts, name) for name in reference.PARTS} | changes)


@misconception("pipeline", "The ids hold the whole corpus, so the model will be tested on what it has learned.", "pack")
def packs_all(corpus, parts, plan):
    tokenizer, _, train, held_out = reference.pack(corpus, parts, plan)
    end = reference.end_id(tokenizer)
    return tokenizer, np.array([i for d in corpus for i in [*tokenizer.encode(d), end]]), train, held_out


@misconception(
    "pipeline", "A document that spells a control token became one; encode documents as ordinary text.", "pack"
)
def text_becomes_control(corpus, parts, plan):
    tokenizer, ids, train, held_out = reference.pack(corpus, parts, plan)
    end, rows = reference.end_id(tokenizer), []
    for document in train:
        for i, stretch in enumerate(document.split("<|end|>")):
            rows += [*([end] if i else []), *tokenizer.encode(stretch)]
        rows.append(end)
    return tokenizer, np.array(rows), train, held_out


@misconception("pipeline", "The learning rate never changes; set the optimizer's lr from lr_at in every step.", "fit")
def constant_rate(model, gradients, steps, lr, parts, weight_decay=0.0):
    return reference.fit(model, gradients, steps, lr, copied(parts, lr_at=lambda *args: lr), weight_decay)


@misconception("pipeline", "Gradients are not clipped; clip them between the backward pass and the update.", "fit")
def never_clips(model, gradients, steps, lr, parts, weight_decay=0.0):
    return reference.fit(model, gradients, steps, lr, copied(parts, clip_grad_norm=lambda *a: 0.0), weight_decay)


@misconception("pipeline", "The same windows come in every step; make one generator before the loop.", "pretrain")
def same_windows(ids, tokenizer, parts, plan, seed):
    def get_batch(ids, batch, context, rng):
        return parts.get_batch(ids, batch, context, torch.Generator().manual_seed(seed))

    return reference.pretrain(ids, tokenizer, copied(parts, get_batch=get_batch), plan, seed)


@misconception("pipeline", "Targets are shifted a second time; get_batch has shifted them already.", "pretrain")
def shifts_twice(ids, tokenizer, parts, plan, seed):
    def get_batch(ids, batch, context, rng):
        x, y = parts.get_batch(ids, batch, context, rng)
        return x[:, :-1], y[:, 1:]

    return reference.pretrain(ids, tokenizer, copied(parts, get_batch=get_batch), plan, seed)


def bits(model, documents, tokenizer, parts, plan):
    return reference.bits_per_byte(model, documents, tokenizer, parts, plan)


@misconception(
    "pipeline", "These are bits per token, which hang on the tokenizer; divide by the bytes.", "bits_per_byte"
)
def bits_per_token(model, documents, tokenizer, parts, plan):
    size = sum(len(document.encode()) for document in documents)
    n = sum(len(tokenizer.encode(document)) + 1 for document in documents)
    return bits(model, documents, tokenizer, parts, plan) * size / n


@misconception("pipeline", "These are nats; a bit is the logarithm of two of them.", "bits_per_byte")
def nats_per_byte(model, documents, tokenizer, parts, plan):
    return bits(model, documents, tokenizer, parts, plan) * math.log(2)


@misconception("pipeline", "Characters are counted instead of bytes, but one character may have four.", "bits_per_byte")
def bits_per_character(model, documents, tokenizer, parts, plan):
    size = sum(len(document.encode()) for document in documents)
    return bits(model, documents, tokenizer, parts, plan) * size / sum(map(len, documents))


@misconception(
    "pipeline",
    "Means over documents are averaged, so short ones weigh too much; add up bits and bytes.",
    "bits_per_byte",
)
def mean_of_documents(model, documents, tokenizer, parts, plan):
    return float(np.mean([bits(model, [document], tokenizer, parts, plan) for document in documents]))


@misconception("pipeline", "Long documents are cut off; read the rest in further stretches.", "bits_per_byte")
def cuts_long_documents(model, documents, tokenizer, parts, plan):
    class Cut:
        def encode(self, text, allowed_special=frozenset()):
            return tokenizer.encode(text, allowed_special=allowed_special)[: plan["T_max"] - 1]

    return bits(model, documents, Cut(), parts, plan)


@misconception("pipeline", "Padding is counted as text; give it the label -100.", "bits_per_byte")
def counts_padding(model, documents, tokenizer, parts, plan):
    end, T_max, nats = reference.end_id(tokenizer), plan["T_max"], 0.0
    rows = []
    for document in documents:
        tokens = [end, *tokenizer.encode(document), end]
        rows += [tokens[s : s + T_max + 1] for s in range(0, len(tokens) - 1, T_max)]
    T = max(map(len, rows))
    table = torch.tensor([row + [end] * (T - len(row)) for row in rows])
    with torch.no_grad():
        logits = model(table[:, :-1]).flatten(0, 1).numpy()
    nats = parts.cross_entropy(logits, table[:, 1:].flatten().numpy()) * table[:, 1:].numel()
    return float(nats / math.log(2) / sum(len(document.encode()) for document in documents))


@misconception("pipeline", "The base model itself is fine-tuned and lost; train a copy of it.", "fine_tune")
def tunes_in_place(model, documents, tokenizer, parts, plan, seed):
    tuned = reference.fine_tune(model, documents, tokenizer, parts, plan, seed)
    model.load_state_dict(tuned.state_dict())
    return model


@misconception("pipeline", "The prompt carries loss too; train on what the labels of chat_rows leave.", "fine_tune")
def trains_on_prompts(model, documents, tokenizer, parts, plan, seed):
    def build_sft_example(prompt_ids, response_ids, eos, max_len, pad):
        ids, labels = parts.build_sft_example(prompt_ids, response_ids, eos, max_len, pad)
        row = torch.tensor(prompt_ids)[1 : max_len + 1]
        labels[: len(row)] = row
        return ids, labels

    return reference.fine_tune(
        model, documents, tokenizer, copied(parts, build_sft_example=build_sft_example), plan, seed
    )


def preferred(model, pairs, tokenizer, parts, plan, seed, scores, policy=None, clear=True):
    policy, rng = copy.deepcopy(model) if policy is None else policy, torch.Generator().manual_seed(seed)
    chosen, rejected = (reference.chat_rows(side, tokenizer, parts, plan) for side in zip(*pairs, strict=True))

    def gradients():
        i = torch.randint(len(pairs), (plan["batch"],), generator=rng)
        four = [
            parts.sequence_logprob(net, ids[i], labels[i])
            for net in (policy, model)
            for ids, labels in (chosen, rejected)
        ]
        loss = parts.dpo_loss(*scores(*four), plan["beta"])
        if clear:
            policy.zero_grad()
        loss.backward()
        return loss.item()

    reference.fit(policy, gradients, plan["pair_steps"], plan["pair_lr"], parts)
    return policy


@misconception(
    "pipeline", "The reference is trained along with the policy, so there is no leash; train a copy.", "prefer"
)
def reference_moves(model, pairs, tokenizer, parts, plan, seed):
    return preferred(
        model, pairs, tokenizer, parts, plan, seed, lambda *z: (*z[:2], *(s.detach() for s in z[2:])), model
    )


@misconception("pipeline", "Gradients of all steps add up; clear them before each backward pass.", "prefer")
def gradients_pile_up(model, pairs, tokenizer, parts, plan, seed):
    return preferred(
        model, pairs, tokenizer, parts, plan, seed, lambda *z: (*z[:2], *(s.detach() for s in z[2:])), clear=False
    )


@misconception("pipeline", "Chosen and rejected are swapped; the policy learns what the judges dislike.", "prefer")
def prefers_the_rejected(model, pairs, tokenizer, parts, plan, seed):
    return reference.prefer(model, [(b, a) for a, b in pairs], tokenizer, parts, plan, seed)


@misconception("pipeline", "The reference scores are left out as zeros; without them DPO has no leash.", "prefer")
def without_reference(model, pairs, tokenizer, parts, plan, seed):
    return preferred(
        model, pairs, tokenizer, parts, plan, seed, lambda pc, pr, rc, rr: (pc, pr, 0 * rc.detach(), 0 * rr.detach())
    )


@misconception(
    "pipeline", "The reference is ignored; a win is what the policy gained, not what it likes anyway.", "win_rate"
)
def wins_without_reference(policy, model, pairs, tokenizer, parts, plan):
    return reference.win_rate(policy, lambda ids: 0 * policy(ids), pairs, tokenizer, parts, plan)


@misconception("pipeline", "A tie is counted as a win; the chosen answer must have gained strictly more.", "win_rate")
@torch.no_grad()
def ties_win(policy, model, pairs, tokenizer, parts, plan):
    return 1 - reference.win_rate(policy, model, [(b, a) for a, b in pairs], tokenizer, parts, plan)


@misconception("pipeline", "Sums are divided by the length of the answer; compare the sums.", "win_rate")
@torch.no_grad()
def per_token_gain(policy, model, pairs, tokenizer, parts, plan):
    gains = []
    for side in zip(*pairs, strict=True):
        ids, labels = reference.chat_rows(side, tokenizer, parts, plan)
        gain = parts.sequence_logprob(policy, ids, labels) - parts.sequence_logprob(model, ids, labels)
        gains.append(gain / (labels >= 0).sum(1))
    return (gains[0] > gains[1]).double().mean().item()


@misconception("pipeline", "The model itself is rounded; round a copy of it.", "to_int8")
def rounds_in_place(model, parts):
    small, error = reference.to_int8(model, parts)
    model.load_state_dict(small.state_dict())
    return model, error


@misconception(
    "pipeline", "The error is not measured against its own row; divide by the row's largest weight.", "to_int8"
)
def error_over_the_matrix(model, parts):
    small, _ = reference.to_int8(model, parts)
    errors = [
        ((a - b).abs().max() / b.abs().max()).item()
        for a, b in zip(small.parameters(), model.parameters(), strict=True)
        if b.ndim == 2
    ]
    return small, max(errors)


@misconception("pipeline", "The answer holds what stands behind its end; cut it at the first <|end|>.", "answers")
def reads_on_behind_the_end(model, words, tokenizer, parts, plan, seed):
    return scripted(model, words, tokenizer, parts, plan, seed, lambda new, end: [i for i in new if i != end])


def scripted(model, words, tokenizer, parts, plan, seed, cut):
    lm, end = reference.Cached(model, reference.model_config(plan, tokenizer), parts), reference.end_id(tokenizer)
    rng = torch.Generator().manual_seed(seed)

    def choose(logits):
        probs = parts.next_token_probs(parts.top_p_filter(logits, plan["top_p"]))
        return parts.sample(probs, rng), torch.arange(len(logits))

    found = []
    for word in words:
        prompt = reference.prompt_ids(word, tokenizer, parts)
        ids = torch.tensor([prompt] * plan["answers"])
        for row in parts.generate_cached(lm, ids, plan["new"], choose).tolist():
            new = cut(row[len(prompt) :], end)
            found.append((word, None if new is None else tokenizer.decode(new)))
    return found


@misconception("pipeline", "An answer that never ended is given as if it had; it is None.", "answers")
def unended_answers_count(model, words, tokenizer, parts, plan, seed):
    return scripted(
        model, words, tokenizer, parts, plan, seed, lambda new, end: new[: new.index(end)] if end in new else new
    )


@misconception("pipeline", "Nothing is filtered: tokens are drawn from all; let top_p_filter cut first.", "answers")
def never_filters(model, words, tokenizer, parts, plan, seed):
    return reference.answers(model, words, tokenizer, copied(parts, top_p_filter=lambda z, p: z), plan, seed)


@misconception("pipeline", "Every word begins with a fresh generator, so equal prompts give equal answers.", "answers")
def fresh_generator_each_word(model, words, tokenizer, parts, plan, seed):
    return [pair for w in words for pair in reference.answers(model, [w], tokenizer, parts, plan, seed)]


@misconception("pipeline", "Every row continues row 0; each row continues itself.", "answers")
def rows_continue_row_zero(model, words, tokenizer, parts, plan, seed):
    def generate_cached(lm, ids, n_new, choose=None):
        def chosen(logits):
            tokens, rows = choose(logits)
            return tokens, 0 * rows

        return parts.generate_cached(lm, ids, n_new, chosen)

    return reference.answers(model, words, tokenizer, copied(parts, generate_cached=generate_cached), plan, seed)


@misconception(
    "pipeline", "The cached model is fed the whole row at once, so no cached step is ever checked.", "check_cache"
)
@torch.no_grad()
def one_piece(model, word, tokenizer, parts, plan):
    lm = reference.Cached(model, reference.model_config(plan, tokenizer), parts)
    same, _ = reference.check_cache(model, word, tokenizer, parts, plan)
    ids = parts.generate(
        model, torch.tensor([reference.prompt_ids(word, tokenizer, parts)]), plan["new"], lambda z: z.argmax(-1)
    )
    return same, (model(ids) - lm(ids, lm.new_cache(1))).abs().max().item()


@misconception(
    "pipeline", "Whether the ids agree is not compared; compare generate with generate_cached.", "check_cache"
)
def always_same(model, word, tokenizer, parts, plan):
    return True, reference.check_cache(model, word, tokenizer, parts, plan)[1]


@misconception("pipeline", "Held-out loss is measured on training text; the report must tell what unseen text costs.")
def tested_on_training_text(corpus, seed, parts=None, plan=reference.PLAN):
    report = reference.pipeline(corpus, seed, parts, plan)
    return report | {"held_out_bpb": report["train_bpb"]}


@misconception("pipeline", "Your own parts are put aside and the stand-ins used; hand parts on to every stage.")
def ignores_the_parts(corpus, seed, parts=None, plan=reference.PLAN):
    return reference.pipeline(corpus, seed, None, plan)


@misconception("pipeline", "The seed is ignored: every run is the same run.")
def one_seed_for_all(corpus, seed, parts=None, plan=reference.PLAN):
    return reference.pipeline(corpus, 0, parts, plan)


@misconception("pipeline", "The tokens read in pretraining are steps times windows times their length.")
def counts_windows_for_tokens(corpus, seed, parts=None, plan=reference.PLAN):
    parts = reference.with_parts() if parts is None else parts
    report = reference.pipeline(corpus, seed, parts, plan)
    tokens = plan["steps"] * plan["batch"]
    return report | {"tokens": tokens, "flops": parts.train_flops(report["params"], tokens)}
