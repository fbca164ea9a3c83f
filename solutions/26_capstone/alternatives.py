"""Right answers of chapter 26 written in other styles; a suite that fails one of them is wrong."""

import bisect
import copy
import math
import warnings
from datetime import datetime
from fractions import Fraction
from statistics import linear_regression

import numpy as np
import torch
from torch import nn

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- family_params, family_memory


@alternative("family_params", "matrices listed by shape and added up, layer by layer")
def params_by_shapes(config):
    c = config
    D, F_, hd = c["d_model"], c["d_ff"], c["head_dim"]

    def size(*shapes):
        return sum(out * into + (out if c["bias"] else 0) for out, into in shapes)

    network = [(F_, D)] * (1 if c["ffn"] == "gelu" else 2) + [(D, F_)]
    counts = dict.fromkeys(("embedding", "attention", "mlp", "norm"), 0)
    counts["embedding"] += c["vocab_size"] * D
    if not c["tied"]:
        counts["embedding"] += D * c["vocab_size"]
    if c["positions"] == "learned":
        counts["embedding"] += c["T_max"] * D
    vectors = {"layer": 2, "rms": 1}[c["norm"]]
    idle = 0
    for _ in range(c["n_layers"]):
        wide, narrow = c["n_heads"] * hd, c["n_kv_heads"] * hd
        counts["attention"] += size((wide, D), (narrow, D), (narrow, D), (D, wide))
        counts["norm"] += 2 * vectors * D
        if c["n_experts"]:
            counts["mlp"] += (c["n_experts"] + c["n_shared"]) * size(*network) + c["n_experts"] * D
            idle += (c["n_experts"] - c["top_k"]) * size(*network)
        else:
            counts["mlp"] += size(*network)
    counts["norm"] += vectors * D
    total = sum(counts.values())
    return {"active": total - idle, "total": total, **counts}


@alternative("family_memory", "a loop over the layers")
def memory_by_layers(config, batch, seq, w_bits=16, kv_bits=16, activations=False):
    bits = 0
    for layer in range(config["n_layers"]):
        window = reference.layer_window(config, layer)
        kept = seq if window is None or window > seq else window
        for _ in ("key", "value"):
            bits += batch * kept * config["n_kv_heads"] * config["head_dim"] * kv_bits
    inner = config["d_ff"] if config["ffn"] == "gelu" else 2 * config["d_ff"]
    result = {
        "weights": math.ceil(Fraction(reference.family_params(config)["total"] * w_bits, 8)),
        "kv": (bits + 7) // 8,
        "activations": 2 * batch * seq * (2 * config["d_model"] + inner) if activations else 0,
    }
    result["total"] = result["weights"] + result["kv"] + result["activations"]
    return result


@alternative("family_memory", "bisect over all lengths", replaces="fits")
def fits_by_bisect(config, gpu_gib, batch=1, w_bits=16, kv_bits=16, activations=False):
    def total(seq):
        return reference.family_memory(config, batch, seq, w_bits, kv_bits, activations)["total"]

    return max(bisect.bisect_right(range(config["T_max"] + 1), gpu_gib * 1024**3, key=total) - 1, 0)


# -- Attention, Experts, build


@alternative("build", "head by head, with masks of minus infinity", replaces="Attention")
class AttentionByHeads(nn.Module):
    def __init__(self, config, window):
        super().__init__()
        self.config, self.window = config, window
        wide, narrow = (config[n] * config["head_dim"] for n in ("n_heads", "n_kv_heads"))
        for name, n in (("W_q", wide), ("W_k", narrow), ("W_v", narrow)):
            setattr(self, name, nn.Linear(config["d_model"], n, bias=bool(config["bias"])))
        self.W_o = nn.Linear(wide, config["d_model"], bias=bool(config["bias"]))

    def forward(self, x, cache=None, layer=0):
        past = cache.length(layer) if cache else 0
        B, T, _ = x.shape
        H, Hk, hd = (self.config[n] for n in ("n_heads", "n_kv_heads", "head_dim"))
        q = self.W_q(x).reshape(B, T, H, hd).permute(0, 2, 1, 3)
        k = self.W_k(x).reshape(B, T, Hk, hd).permute(0, 2, 1, 3)
        v = self.W_v(x).reshape(B, T, Hk, hd).permute(0, 2, 1, 3)
        if self.config["positions"] == "rope":
            q, k = reference.rope(q, past), reference.rope(k, past)
        if cache:
            k, v = cache.append(layer, k, v)
        S = k.shape[2]
        mask = torch.full((T, S), -math.inf, dtype=x.dtype)
        for i in range(T):
            first = 0 if self.window is None else max(0, past + i + 1 - self.window)
            mask[i, first : past + i + 1] = 0
        outs = []
        for h in range(H):
            j = h * Hk // H
            scores = torch.einsum("bte,bse->bts", q[:, h], k[:, j]) / math.sqrt(hd) + mask
            outs.append(torch.softmax(scores, -1) @ v[:, j])
        return self.W_o(torch.cat(outs, -1))


@alternative("build", "one token after another", replaces="Experts")
class ExpertsByToken(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.top_k = config["top_k"]
        self.router = nn.Linear(config["d_model"], config["n_experts"], bias=False)
        self.experts = nn.ModuleList([reference.FeedForward(config) for _ in range(config["n_experts"])])
        self.shared = nn.ModuleList([reference.FeedForward(config) for _ in range(config["n_shared"])])

    def forward(self, x):
        out = []
        for token in x.reshape(-1, x.shape[-1]):
            p = torch.softmax(self.router(token), -1)
            best = p.argsort(descending=True)[: self.top_k].tolist()
            y = sum(p[e] * self.experts[e](token) for e in best) / p[best].sum()
            for expert in self.shared:
                y = y + expert(token)
            out.append(y)
        return torch.stack(out).reshape(x.shape)


@alternative("build", "the embedding takes the weight of the head, and blocks are appended in a loop")
def build_from_the_head(config):
    head = nn.Linear(config["d_model"], config["vocab_size"], bias=False)
    embedding = nn.Embedding(config["vocab_size"], config["d_model"])
    if config["tied"]:
        embedding.weight = head.weight
    positions = None
    if config["positions"] == "learned":
        positions = nn.Embedding(config["T_max"], config["d_model"])
    blocks = []
    for layer in range(config["n_layers"]):
        window = config["window"]
        if config["full_every"] and layer % config["full_every"] == config["full_every"] - 1:
            window = None
        ffn = reference.Experts(config) if config["n_experts"] > 0 else reference.FeedForward(config)
        blocks.append(
            reference.Block(
                norm1=reference.make_norm(config),
                attention=reference.Attention(config, window),
                norm2=reference.make_norm(config),
                ffn=ffn,
            )
        )
    return reference.GPT(config, embedding, positions, blocks, reference.make_norm(config), head)


# -- recover_logprobs


@alternative("recover_logprobs", "the mass that is left is multiplied down, all in logarithms")
def recover_in_logarithms(api, V, top_k, bias):
    found, log_rest = {}, 0.0
    while len(found) < V:
        shown = api(dict.fromkeys(found, -float(bias)))
        log_seen = math.log(-math.expm1(log_rest)) if log_rest < 0 else -math.inf
        log_Z = np.logaddexp(log_rest, log_seen - bias)
        fresh = {i: value for i, value in shown.items() if i not in found}
        found |= {i: value + log_Z for i, value in fresh.items()}
        left = 1 - sum(math.exp(value + log_Z - log_rest) for value in fresh.values())
        log_rest += math.log(left) if left > 0 else -math.inf
    return torch.tensor([float(found[i]) for i in range(V)], dtype=torch.float64)


@alternative("recover_logprobs", "a gentle push up, no harder than is needed, where the bias would be too large")
def recover_by_pushing(api, V, top_k, bias):
    b = min(bias, 15.5)
    log_p = [0.0] * V
    for start in range(0, V, top_k):
        group = list(range(start, min(start + top_k, V)))
        shown = api({i: b for i in group})
        values = [shown[i] for i in group]
        S = math.fsum(math.exp(value) for value in values)
        for i, value in zip(group, values, strict=True):
            log_p[i] = value - b - math.log((1 - S) + S * math.exp(-b))
    return torch.tensor(log_p, dtype=torch.float64)


# -- estimate_hidden_size


@alternative("estimate_hidden_size", "eigenvalues of the smaller Gram matrix")
def width_by_eigenvalues(logits):
    x = logits.to(torch.float64)
    x = x - x.mean(-1, keepdim=True)
    eigenvalues = torch.linalg.eigvalsh(x @ x.T)
    d = (eigenvalues > 1e-4 * eigenvalues.max()).sum().item()
    if d >= x.shape[0]:
        warnings.warn("as many directions as rows", UserWarning, stacklevel=2)
    return d


@alternative("estimate_hidden_size", "numpy")
def width_by_numpy(logits):
    x = logits.double().numpy()
    s = np.linalg.svd(x - x.mean(axis=1)[:, None], compute_uv=False)
    d = int(np.count_nonzero(s / s.max() > 0.01))
    if d == len(x):
        warnings.warn("more prompts are needed", stacklevel=1)
    return d


# -- doubling_time, extrapolate


@alternative("doubling_time", "the standard library's regression, on days")
def doubling_by_statistics(dates, compute):
    if not len(dates) == len(compute) >= 3 or any(c <= 0 for c in compute):
        raise ValueError("at least three points, each above 0")
    days = [(datetime.fromisoformat(d) - datetime(2000, 1, 1)).days for d in dates]
    return 1 / linear_regression(days, [math.log2(c) for c in compute]).slope / 365.25


@alternative("doubling_time", "the normal equations, in natural logarithms", replaces="extrapolate")
def extrapolate_by_matrices(dates, compute, when, level=0.95):
    n = len(dates)
    if n < 3 or len(compute) != n or min(compute) <= 0:
        raise ValueError("points")
    start = datetime.fromisoformat(min(dates))
    days = np.array([(datetime.fromisoformat(d) - start).days for d in [*dates, when]], dtype=float) / 1000
    X = np.stack([np.ones(n), days[:n]], axis=1)
    y = np.log(np.asarray(compute, dtype=float))
    inverse = np.linalg.inv(X.T @ X)
    w = inverse @ X.T @ y
    new = np.array([1.0, days[n]])
    s2 = ((y - X @ w) ** 2).sum() / (n - 2)
    half = reference.t_quantile(0.5 + level / 2, n - 2) * math.sqrt(s2 * (1 + new @ inverse @ new))
    middle = float(new @ w)
    return (math.exp(middle - half), math.exp(middle), math.exp(middle + half))


# -- pipeline


@alternative("pipeline", "keywords, a comprehension and a list of ids", replaces="pack")
def pack_with_keywords(corpus, parts, plan):
    corpus = list(corpus)
    n = len(corpus) * 9 // 10
    text = "<|end|>".join(reference.ROLES + corpus[:n])
    vocab, merges = parts.train_bpe(text=text, vocab_size=plan["vocab_size"], special_tokens=reference.SPECIAL)
    tokenizer = parts.BPETokenizer(vocab=vocab, merges=merges, special_tokens=reference.SPECIAL)
    ids = []
    for document in corpus[:n]:
        ids.extend(tokenizer.encode(document))
        ids.append(len(vocab) - 1)
    return tokenizer, np.asarray(ids, dtype=np.int32), corpus[:n], corpus[n:]


@alternative("pipeline", "one document at a time, in float64", replaces="bits_per_byte")
def bits_one_by_one(model, documents, tokenizer, parts, plan):
    end, bits, size = reference.end_id(tokenizer), 0.0, 0
    for document in documents:
        tokens = [end] + tokenizer.encode(document) + [end]
        for s in range(0, len(tokens) - 1, plan["T_max"]):
            piece = tokens[s : s + plan["T_max"] + 1]
            with torch.no_grad():
                logits = model(torch.tensor([piece[:-1]]))[0].double().numpy()
            mean = parts.cross_entropy(logits=logits, targets=np.array(piece[1:]))
            bits += mean * (len(piece) - 1) / math.log(2)
        size += len(document.encode("utf-8"))
    return bits / size


@alternative("pipeline", "the reference is asked anew in every step", replaces="prefer")
def prefer_asking_anew(model, pairs, tokenizer, parts, plan, seed):
    policy = copy.deepcopy(model).train()
    rng = torch.Generator()
    rng.manual_seed(seed)
    good = reference.chat_rows([a for a, _ in pairs], tokenizer, parts, plan)
    bad = reference.chat_rows([b for _, b in pairs], tokenizer, parts, plan)

    def gradients():
        for p in policy.parameters():
            p.grad = None
        drawn = torch.randint(len(pairs), (plan["batch"],), generator=rng)
        good_ids, good_labels, bad_ids, bad_labels = (table[drawn] for table in (*good, *bad))
        with torch.no_grad():
            rc = parts.sequence_logprob(model, good_ids, good_labels)
            rr = parts.sequence_logprob(model, bad_ids, bad_labels)
        pc = parts.sequence_logprob(policy, good_ids, good_labels)
        pr = parts.sequence_logprob(policy, bad_ids, bad_labels)
        loss = parts.dpo_loss(pc=pc, pr=pr, rc=rc, rr=rr, beta=plan["beta"])
        loss.backward()
        return float(loss.detach())

    reference.fit(policy, gradients, steps=plan["pair_steps"], lr=plan["pair_lr"], parts=parts)
    return policy


@alternative("pipeline", "names of parameters and a loop over rows", replaces="to_int8")
def int8_by_names(model, parts):
    small, errors = copy.deepcopy(model), [0.0]
    for p in small.parameters():
        if p.dim() != 2:
            continue
        W = p.data.clone()
        q, scale = parts.quantize_int8(W)
        p.data = torch.diag(scale) @ q.to(W.dtype)
        top = W.abs().max(dim=1).values
        errors += [float((p.data[i] - W[i]).abs().max() / top[i]) for i in range(len(W)) if top[i] > 0]
    return small, max(errors)


@alternative("pipeline", "rows as tensors, and a search for the end", replaces="answers")
def answers_by_search(model, words, tokenizer, parts, plan, seed):
    cfg = reference.model_config(plan, tokenizer)
    rng, end = torch.Generator().manual_seed(seed), cfg["vocab_size"] - 1
    result = []
    for word in words:
        prompt = torch.tensor(reference.prompt_ids(word, tokenizer, parts))

        def choose(logits):
            kept = parts.top_p_filter(logits=logits, p=plan["top_p"])
            chosen = parts.sample(probs=parts.next_token_probs(kept, 1.0), generator=rng)
            return chosen, torch.arange(logits.shape[0])

        lm = reference.Cached(model, cfg, parts)
        rows = parts.generate_cached(model=lm, ids=prompt.repeat(plan["answers"], 1), n_new=plan["new"], choose=choose)
        for row in rows[:, len(prompt) :]:
            places = (row == end).nonzero().flatten().tolist()
            result.append((word, tokenizer.decode(row[: places[0]].tolist()) if places else None))
    return result


@alternative("pipeline", "stage by stage, each with its own name")
def pipeline_in_steps(corpus, seed, parts=None, plan=reference.PLAN):
    r = reference
    if parts is None:
        parts = r.with_parts()
    tokenizer, ids, train, held_out = r.pack(corpus, parts, plan)
    base = r.pretrain(ids, tokenizer, parts, plan, seed)
    report = {
        "held_out_bpb": r.bits_per_byte(base, held_out, tokenizer, parts, plan),
        "train_bpb": r.bits_per_byte(base, train[: len(held_out)], tokenizer, parts, plan),
    }
    chat = r.fine_tune(base, train, tokenizer, parts, plan, seed)
    policy = r.prefer(chat, r.make_pairs(train, plan["pairs"], seed), tokenizer, parts, plan, seed)
    report["win_rate"] = r.win_rate(policy, chat, r.make_pairs(held_out, 100, seed), tokenizer, parts, plan)
    int8, report["int8_error"] = r.to_int8(policy, parts)
    costs = [r.bits_per_byte(model, held_out, tokenizer, parts, plan) for model in (policy, int8)]
    report["int8_increase"] = costs[1] / costs[0] - 1
    asked = [document.split(" ")[0] for document in held_out][: plan["chats"]]
    spoken = [r.answers(model, asked, tokenizer, parts, plan, seed) for model in (chat, int8)]
    report["words"] = tuple(r.mean_words(found) for found in spoken)
    report["answers"], report["in_form"] = spoken[1], tuple(r.in_form(found) for found in spoken)
    report["same"], report["cache_gap"] = r.check_cache(int8, asked[0], tokenizer, parts, plan)
    report["params"] = parts.count_parameters(r.model_config(plan, tokenizer))["total"]
    report["tokens"] = plan["steps"] * plan["batch"] * plan["context"]
    report["flops"] = parts.train_flops(report["params"], report["tokens"])
    shape = {"L": plan["n_layers"], "Hk": plan["n_kv_heads"], "hd": plan["d_model"] // plan["n_heads"]}
    report["kv_bytes"] = parts.kv_cache_bytes(shape, batch=1, seq=plan["T_max"], bytes_per_el=4)
    report["parts"] = {name: r.whereabouts(getattr(parts, name)) for name in r.PARTS}
    report["hash"] = r.digest(int8, spoken[1])
    return report
