"""Right answers of chapter 10 written in other styles; a suite that fails one of them is wrong."""

import bisect
import functools
import heapq
import itertools
import math

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- next_token_probs


@alternative("next_token_probs", "Python floats, row by row")
def probs_by_loops(logits, temperature=1.0):
    if temperature < 0:
        raise ValueError("temperature")
    rows = []
    for row in logits.tolist():
        top = max(row)
        if temperature == 0:
            z = [float(i == row.index(top)) for i in range(len(row))]
        else:
            z = [math.exp((x - top) / temperature) for x in row]
        rows.append([x / sum(z) for x in z])
    return torch.tensor(rows, dtype=logits.dtype)


@alternative("next_token_probs", "numpy in float64, the identity's rows at zero")
def probs_by_numpy(logits, temperature=1.0):
    if temperature < 0:
        raise ValueError("temperature")
    wide = logits.double().numpy()
    if temperature == 0:
        probs = np.eye(wide.shape[1])[wide.argmax(axis=1)]
    else:
        z = np.exp((wide - wide.max(1, keepdims=True)) / temperature)
        probs = z / z.sum(1, keepdims=True)
    return torch.from_numpy(probs).to(logits.dtype)


@alternative("next_token_probs", "one_hot, and log_softmax of shifted logits")
def probs_by_log_softmax(logits, temperature=1.0):
    if temperature < 0.0:
        raise ValueError("temperature")
    if not temperature:
        return torch.nn.functional.one_hot(torch.argmax(logits, -1), logits.size(-1)).type_as(logits)
    top, _ = logits.max(dim=-1, keepdim=True)
    return torch.log_softmax(logits.sub(top).div(temperature), -1).exp()


# -- top_k_filter


@alternative("top_k_filter", "a token stays if fewer than k are strictly larger")
def top_k_by_counting(logits, k):
    if k < 1:
        raise ValueError("k")
    larger = (logits[:, None, :] > logits[:, :, None]).sum(-1)
    return torch.where(larger < k, logits, -torch.inf)


@alternative("top_k_filter", "Python's sort, writing into a copy")
def top_k_by_loops(logits, k):
    if k <= 0:
        raise ValueError("k")
    out = logits.clone()
    for row in out:
        border = sorted(row.tolist(), reverse=True)[:k][-1]
        for i in range(len(row)):
            if row[i].item() < border:
                row[i] = float("-inf")
    return out


@alternative("top_k_filter", "numpy's partition")
def top_k_by_partition(logits, k):
    if k < 1:
        raise ValueError("k")
    x = logits.numpy().copy()
    if k < x.shape[1]:
        border = np.partition(x, -k, axis=1)[:, -k]
        x[x < border[:, np.newaxis]] = -np.inf
    return torch.from_numpy(x)


# -- top_p_filter


@alternative("top_p_filter", "row by row in Python: keep until the mass is there")
def top_p_by_loops(logits, p):
    if p < 0 or p > 1:
        raise ValueError("p")
    if p == 1:
        return logits.clone()
    out = torch.full_like(logits, float("-inf"))
    for b, probs in enumerate(logits.softmax(-1).tolist()):
        mass = 0.0
        for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
            out[b, i] = logits[b, i]
            mass += probs[i]
            if mass >= p:
                break
    return out


@alternative("top_p_filter", "remove where the sum is there already, shifted by one, undone by argsort")
def top_p_by_shift(logits, p):
    if not (0 <= p <= 1):
        raise ValueError("p")
    order = torch.argsort(logits, dim=-1, descending=True, stable=True)
    full = torch.cumsum(torch.softmax(torch.gather(logits, -1, order), -1), -1) >= p
    remove = torch.cat([torch.zeros_like(full[:, :1]), full[:, :-1]], dim=-1)
    remove = remove & (p < 1)
    return logits.masked_fill(remove.gather(-1, order.argsort(-1)), -math.inf)


@alternative("top_p_filter", "the number kept is counted, in numpy and float64")
def top_p_by_searchsorted(logits, p):
    if not 0 <= p <= 1:
        raise ValueError("p")
    x = logits.numpy().copy()
    for row in x if p < 1 else ():
        z = np.exp(row.astype(np.float64) - row.max())
        order = np.argsort(-row, kind="stable")
        keep = np.searchsorted(np.cumsum(z[order] / z.sum()), p, side="left") + 1
        row[order[keep:]] = -np.inf
    return torch.from_numpy(x)


# -- min_p_filter, repetition_penalty


@alternative("min_p_filter", "probabilities against p times the largest of them")
def min_p_by_probs(logits, p):
    if p < 0 or p > 1:
        raise ValueError("p")
    probs = logits.softmax(dim=-1)
    keep = probs >= p * probs.max(dim=-1, keepdim=True).values
    return torch.where(keep, logits, torch.tensor(-math.inf, dtype=logits.dtype))


@alternative("min_p_filter", "the ratio to the favourite, in numpy, row by row")
def min_p_by_ratio(logits, p):
    if not 0 <= p <= 1:
        raise ValueError("p")
    rows = []
    for row in logits.numpy():
        with np.errstate(invalid="ignore"):
            ratio = np.exp(row.astype(np.float64) - row.max())
        rows.append(np.where(ratio < p, -np.inf, row).astype(row.dtype))
    return torch.from_numpy(np.stack(rows))


@alternative("min_p_filter", "gather, change, scatter back", replaces="repetition_penalty")
def penalty_by_gather(logits, prev_ids, penalty):
    if not penalty > 0:
        raise ValueError("penalty")
    score = torch.gather(logits, 1, prev_ids)
    score = torch.where(score < 0, score * penalty, score / penalty)
    return logits.scatter(1, prev_ids, score)


@alternative("min_p_filter", "the set of the ids of each row, one entry at a time", replaces="repetition_penalty")
def penalty_by_sets(logits, prev_ids, penalty):
    if penalty <= 0:
        raise ValueError("penalty")
    out = logits.clone()
    for b, ids in enumerate(prev_ids.tolist()):
        for i in set(ids):
            if out[b, i] > 0:
                out[b, i] /= penalty
            else:
                out[b, i] *= penalty
    return out


@alternative("min_p_filter", "a factor for each entry", replaces="repetition_penalty")
def penalty_by_factors(logits, prev_ids, penalty):
    if penalty <= 0:
        raise ValueError("penalty")
    seen = (prev_ids[:, :, None] == torch.arange(logits.shape[1])).any(dim=1)
    return torch.where(seen, logits.clamp(min=0) / penalty + logits.clamp(max=0) * penalty, logits)


# -- sample, gumbel_argmax


@alternative("sample", "searchsorted on the sums, in float64")
def sample_by_searchsorted(probs, generator):
    ends = probs.double().cumsum(-1)
    u = torch.rand((len(probs), 1), generator=generator, dtype=torch.float64) * ends[:, -1:]
    return torch.searchsorted(ends, u, right=True).squeeze(-1)


@alternative("sample", "bisect, one row and one number at a time")
def sample_by_bisect(probs, generator):
    drawn = []
    for row in probs.tolist():
        ends = list(itertools.accumulate(row))
        drawn.append(bisect.bisect_right(ends, torch.rand((), generator=generator).item() * ends[-1]))
    return torch.tensor(drawn)


@alternative("sample", "a race of exponential clocks")
def sample_by_race(probs, generator):
    clocks = torch.empty_like(probs).exponential_(generator=generator)
    return (probs / clocks).argmax(dim=-1)


@alternative("sample", "rejection: an even draw stays with a chance as high as its share of the highest")
def sample_by_rejection(probs, generator):
    B, V = probs.shape
    relative = probs / probs.amax(1, keepdim=True)
    out = torch.full((B,), -1)
    while (out < 0).any():
        tried = torch.randint(V, (B,), generator=generator)
        u = torch.rand(B, generator=generator, dtype=torch.float64)
        taken = u < relative[torch.arange(B), tried]
        out = torch.where((out < 0) & taken, tried, out)
    return out


@alternative("sample", "numpy", replaces="gumbel_argmax")
def gumbel_by_numpy(logits, u):
    info = np.finfo(u.numpy().dtype)
    clamped = np.minimum(np.maximum(u.numpy(), info.tiny), 1 - info.eps)
    return torch.from_numpy(np.argmax(logits.numpy() - np.log(-np.log(clamped)), axis=1))


@alternative("sample", "Python floats and max with a key", replaces="gumbel_argmax")
def gumbel_by_loops(logits, u):
    low, high = torch.finfo(u.dtype).tiny, 1 - torch.finfo(u.dtype).eps
    winners = []
    for scores, numbers in zip(logits.tolist(), u.tolist(), strict=True):
        noisy = [x - math.log(-math.log(min(max(n, low), high))) for x, n in zip(scores, numbers, strict=True)]
        winners.append(max(range(len(noisy)), key=noisy.__getitem__))
    return torch.tensor(winners, dtype=torch.int64)


# -- beam_search


@alternative("beam_search", "one prefix at a time, all extensions in one heap")
def beam_by_heap(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    if min(beam, max_len) < 1:
        raise ValueError("beam and max_len")
    alive, finished = [(0.0, ())], []
    for _ in range(max_len):
        extensions = []
        for total, ids in alive:
            row = logprob_fn(torch.tensor([(bos, *ids)]))[0].tolist()
            extensions += [(total + x, (*ids, token)) for token, x in enumerate(row) if x > -math.inf]
        best = heapq.nlargest(beam, extensions)
        finished += [(total, ids) for total, ids in best if ids[-1] == eos]
        alive = [(total, ids) for total, ids in best if ids[-1] != eos]
        if not alive:
            break
    score, ids = max((total / len(ids) ** length_alpha, ids) for total, ids in finished + alive)
    return list(ids), score


@alternative("beam_search", "recursion over the steps, prefixes kept as one tensor, float64 sums")
def beam_by_recursion(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    if beam < 1:
        raise ValueError("beam")
    if max_len < 1:
        raise ValueError("max_len")

    def score(ids, total):
        return ids[1:].tolist(), float(total) / (len(ids) - 1) ** length_alpha

    def search(prefixes, sums, left):
        if not left or not len(prefixes):
            return [score(ids, total) for ids, total in zip(prefixes, sums, strict=True)]
        extended = sums[:, None] + logprob_fn(prefixes).double()
        order = extended.reshape(-1).argsort(descending=True)[:beam]
        order = order[extended.reshape(-1)[order] > -math.inf]
        rows, tokens = order // extended.shape[1], order % extended.shape[1]
        prefixes = torch.cat([prefixes[rows], tokens[:, None]], dim=1)
        sums, ends = extended[rows, tokens], tokens == eos
        ended = [score(ids, total) for ids, total in zip(prefixes[ends], sums[ends], strict=True)]
        return ended + search(prefixes[~ends], sums[~ends], left - 1)

    found = search(torch.tensor([[bos]]), torch.zeros(1, dtype=torch.float64), max_len)
    return sorted(found, key=lambda pair: pair[1])[-1]


# -- generate


@alternative("generate", "a growing tensor, multiplied masks")
def generate_by_cat(model, ids, n_new, sampler, eos=None, pad=0):
    going = torch.ones(ids.shape[0], dtype=torch.long)
    made = 0
    while made < n_new and going.any():
        context = ids[:, -model.T_max :] if hasattr(model, "T_max") else ids
        token = sampler(model(context)[:, -1, :])
        ids = torch.cat((ids, (token * going + pad * (1 - going)).unsqueeze(-1)), dim=-1)
        if eos is not None:
            going = going * (token != eos).long()
        made += 1
    return torch.nn.functional.pad(ids, (0, n_new - made), value=pad)


@alternative("generate", "lists of ids and a set of rows that have ended")
def generate_by_lists(model, ids, n_new, sampler, eos=None, pad=0):
    rows, ended = ids.tolist(), set()
    width = len(rows[0]) + n_new
    T_max = getattr(model, "T_max", width)
    while len(rows[0]) < width and len(ended) < len(rows):
        logits = model(torch.tensor([row[-T_max:] for row in rows]))
        for b, token in enumerate(sampler(logits[:, -1]).tolist()):
            rows[b].append(pad if b in ended else token)
            if eos is not None and token == eos:
                ended.add(b)
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])


@alternative("generate", "recursion, one column a call")
def generate_by_recursion(model, ids, n_new, sampler, eos=None, pad=0):
    def extend(text, n, ended):
        if n == 0 or bool(ended.all()):
            return torch.cat([text, torch.full((len(text), n), pad)], 1)
        seen = text[:, max(0, text.shape[1] - model.T_max) :] if getattr(model, "T_max", None) else text
        drawn = sampler(model(seen).select(1, -1)).masked_fill(ended, pad)
        if eos is not None:
            ended = ended.logical_or(drawn.eq(eos))
        return extend(torch.column_stack([text, drawn]), n - 1, ended)

    return extend(ids.clone(), n_new, torch.zeros(len(ids), dtype=torch.bool))


# -- LogitsPipeline, standard_pipeline


@alternative("LogitsPipeline", "reduce over a list")
class PipelineByReduce:
    def __init__(self, *steps):
        self.steps = list(steps)

    def __call__(self, logits, prev_ids):
        out = functools.reduce(lambda x, step: step(x, prev_ids), self.steps, logits.detach().clone())
        if not torch.isfinite(out.max(dim=-1).values).all():
            raise ValueError("an empty row")
        return out


@alternative("LogitsPipeline", "a linked chain: the first step, and a pipeline of the rest")
class PipelineByChain:
    def __init__(self, *steps):
        self.first = steps[0] if steps else None
        self.rest = PipelineOfRest(steps[1:])

    def __call__(self, logits, prev_ids):
        out = torch.empty_like(logits).copy_(logits)
        if self.first is not None:
            out = self.rest.run(self.first(out, prev_ids), prev_ids)
        if any(max(row) == -math.inf for row in out.tolist()):
            raise ValueError("an empty row")
        return out


class PipelineOfRest:
    def __init__(self, steps):
        self.steps = steps

    def run(self, logits, prev_ids):
        return PipelineOfRest(self.steps[1:]).run(self.steps[0](logits, prev_ids), prev_ids) if self.steps else logits


@alternative("LogitsPipeline", "only the steps that are not neutral, checked at once", replaces="standard_pipeline")
def pipeline_of_few(penalty=1.0, temperature=1.0, k=None, p=1.0, min_p=0.0):
    if penalty <= 0 or temperature < 0 or (k is not None and k < 1) or not 0 <= p <= 1 or not 0 <= min_p <= 1:
        raise ValueError("a setting is out of its range")
    steps = []
    if penalty != 1:
        steps.append(lambda logits, prev_ids: reference.repetition_penalty(logits, prev_ids, penalty))
    if temperature == 0:
        steps.append(lambda logits, prev_ids: only_the_first_maximum(logits))
    elif temperature != 1:
        steps.append(lambda logits, prev_ids: logits.div_(temperature))
    for setting, neutral, function in (
        (k, None, reference.top_k_filter),
        (p, 1, reference.top_p_filter),
        (min_p, 0, reference.min_p_filter),
    ):
        if setting != neutral:
            steps.append(without_ids(function, setting))
    return reference.LogitsPipeline(*steps)


@alternative("LogitsPipeline", "a single step that does all", replaces="standard_pipeline")
def pipeline_in_one(penalty=1.0, temperature=1.0, k=None, p=1.0, min_p=0.0):
    def step(logits, prev_ids):
        logits = reference.repetition_penalty(logits, prev_ids, penalty=penalty)
        if temperature < 0:
            raise ValueError("temperature")
        logits = logits / temperature if temperature > 0 else only_the_first_maximum(logits)
        if k is not None:
            logits = reference.top_k_filter(logits, k)
        return reference.min_p_filter(reference.top_p_filter(logits, p), min_p)

    return reference.LogitsPipeline(step)


def only_the_first_maximum(logits):
    out = torch.full_like(logits, -math.inf)
    best = logits.argmax(dim=1, keepdim=True)
    return out.scatter_(1, best, logits.gather(1, best))


def without_ids(function, setting):
    return lambda logits, prev_ids: function(logits, setting)
