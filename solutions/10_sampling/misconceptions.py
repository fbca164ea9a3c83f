"""Typical wrong answers of chapter 10, each with the sentence that sets it right."""

import math

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
INF = math.inf


# -- next_token_probs ----------------------------------------------------------------------------------------------


@misconception("next_token_probs", "Temperature 0 is divided by like any other; it needs a branch of its own.")
def divides_by_zero(logits, temperature=1.0):
    if temperature < 0:
        raise ValueError("negative temperature")
    shifted = logits - logits.amax(-1, keepdim=True)
    return torch.softmax(shifted / temperature, -1)


@misconception(
    "next_token_probs",
    "You raise the probabilities to the power 1/T but do not divide by their new sum, so a row no longer sums to one.",
)
def power_without_renormalising(logits, temperature=1.0):
    if temperature == 0 or temperature < 0:
        return reference.next_token_probs(logits, temperature)
    return torch.softmax(logits, -1) ** (1 / temperature)


@misconception("next_token_probs", "You multiply by the temperature; divide, so that a high one flattens.")
def multiplies_by_temperature(logits, temperature=1.0):
    if temperature == 0 or temperature < 0:
        return reference.next_token_probs(logits, temperature)
    return torch.softmax((logits - logits.amax(-1, keepdim=True)) * temperature, -1)


@misconception(
    "next_token_probs", "At temperature 0 you share the mass among equal maxima; the lowest id must get all of it."
)
def ties_share_at_zero(logits, temperature=1.0):
    if temperature != 0:
        return reference.next_token_probs(logits, temperature)
    best = (logits == logits.amax(-1, keepdim=True)).to(logits.dtype)
    return best / best.sum(-1, keepdim=True)


@misconception(
    "next_token_probs",
    "You divide before you subtract the maximum, so a tiny temperature overflows to infinity and NaN. Subtract first.",
)
def divides_before_subtracting(logits, temperature=1.0):
    if temperature == 0 or temperature < 0:
        return reference.next_token_probs(logits, temperature)
    return torch.softmax(logits / temperature, -1)


# -- top_k_filter --------------------------------------------------------------------------------------------------


@misconception("top_k_filter", "You drop the k-th largest itself: the comparison must keep what equals the threshold.")
def drops_the_kth(logits, k):
    if k < 1:
        raise ValueError("k")
    kth = logits.topk(min(k, logits.shape[-1]), -1).values[:, -1:]
    return logits.masked_fill(logits <= kth, -INF)


@misconception("top_k_filter", "Removed logits are set to 0; a logit of 0 still has probability. Use minus infinity.")
def top_k_fills_with_zero(logits, k):
    kept = reference.top_k_filter(logits, k)
    return kept.masked_fill(kept == -INF, 0.0)


@misconception("top_k_filter", "Your threshold comes from the whole batch; each row has its own k-th largest.")
def threshold_of_the_whole_batch(logits, k):
    if k < 1:
        raise ValueError("k")
    kth = logits.flatten().topk(min(k, logits.numel())).values[-1]
    return logits.masked_fill(logits < kth, -INF)


@misconception("top_k_filter", "You keep exactly k and cut through a tie; everything equal to the k-th is to stay.")
def cuts_through_ties(logits, k):
    if k < 1:
        raise ValueError("k")
    top = logits.topk(min(k, logits.shape[-1]), -1)
    return torch.full_like(logits, -INF).scatter(-1, top.indices, top.values)


@misconception("top_k_filter", "You keep one too many: the threshold is the k-th largest, not the one after it.")
def keeps_one_more(logits, k):
    return reference.top_k_filter(logits, k + 1) if k >= 1 else reference.top_k_filter(logits, k)


# -- top_p_filter --------------------------------------------------------------------------------------------------


def _by_rank(logits, p, remove_ranked, descending=True):
    """The common frame: check p, sort, let `remove_ranked(probs)` decide, undo the sorting."""
    if not 0 <= p <= 1:
        raise ValueError("p")
    if p == 1:
        return logits.clone()
    ranked, order = logits.sort(dim=-1, descending=descending, stable=True)
    remove = remove_ranked(torch.softmax(ranked, -1))
    return logits.masked_fill(torch.zeros_like(remove).scatter(-1, order, remove), -INF)


@misconception(
    "top_p_filter", "The token that crosses p is dropped. Compare p with the mass above a token, without its own share."
)
def drops_the_crossing_token(logits, p):
    def remove(probs):
        gone = probs.cumsum(-1) > p
        gone[:, 0] = False
        return gone

    return _by_rank(logits, p, remove)


@misconception("top_p_filter", "You rank upwards, so the least likely tokens are kept. Sort in descending order.")
def ranks_upwards(logits, p):
    def remove(probs):
        gone = probs.cumsum(-1) - probs >= p
        gone[:, 0] = False
        return gone

    return _by_rank(logits, p, remove, descending=False)


@misconception(
    "top_p_filter",
    "The decision stands in ranked order but is applied in the order of the vocabulary; undo the sorting.",
)
def forgets_to_unsort(logits, p):
    if not 0 <= p < 1:
        return reference.top_p_filter(logits, p)
    probs = torch.softmax(logits.sort(dim=-1, descending=True).values, -1)
    remove = probs.cumsum(-1) - probs >= p
    remove[:, 0] = False
    return logits.masked_fill(remove, -INF)


@misconception("top_p_filter", "At p = 0 you remove every token; the most likely one must always stay.")
def empties_the_row(logits, p):
    return _by_rank(logits, p, lambda probs: probs.cumsum(-1) - probs >= p)


@misconception(
    "top_p_filter",
    "What lies outside the nucleus is set to 0, which is a logit like any other; set it to minus infinity.",
)
def top_p_fills_with_zero(logits, p):
    kept = reference.top_p_filter(logits, p)
    return kept.masked_fill(kept == -INF, 0.0)


@misconception(
    "top_p_filter", "At p = 1 rounding removes the tail: the sum reaches 1 before the last token. Let p = 1 keep all."
)
def loses_the_tail_at_one(logits, p):
    if p != 1:
        return reference.top_p_filter(logits, p)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = torch.softmax(ranked, -1)
    remove = probs.cumsum(-1) - probs >= 1
    return logits.masked_fill(torch.zeros_like(remove).scatter(-1, order, remove), -INF)


# -- min_p_filter, repetition_penalty ------------------------------------------------------------------------------


@misconception("min_p_filter", "You compare the probability with p itself; compare it with p times the row's maximum.")
def min_p_is_absolute(logits, p):
    if not 0 < p <= 1:
        return reference.min_p_filter(logits, p)
    return logits.masked_fill(torch.softmax(logits, -1) < p, -INF)


@misconception("min_p_filter", "You compare logits, not probabilities: p times the largest logit means nothing.")
def min_p_on_logits(logits, p):
    if not 0 < p <= 1:
        return reference.min_p_filter(logits, p)
    return logits.masked_fill(logits < p * logits.amax(-1, keepdim=True), -INF)


@misconception("min_p_filter", "Your maximum is that of the whole batch; each row is measured by its own favourite.")
def min_p_of_the_whole_batch(logits, p):
    if not 0 < p <= 1:
        return reference.min_p_filter(logits, p)
    probs = torch.softmax(logits, -1)
    return logits.masked_fill(probs < p * probs.max(), -INF)


@misconception("min_p_filter", "The comparison is turned round: you remove the likely tokens and keep the others.")
def min_p_reversed(logits, p):
    if not 0 < p <= 1:
        return reference.min_p_filter(logits, p)
    return logits.masked_fill(logits > logits.amax(-1, keepdim=True) + math.log(p), -INF)


@misconception(
    "min_p_filter",
    "You divide negative logits too, which brings them nearer to 0 and makes the token more likely. Multiply those.",
    replaces="repetition_penalty",
)
def boosts_negative_logits(logits, prev_ids, penalty):
    if penalty <= 0:
        raise ValueError("penalty")
    seen = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, prev_ids, True)
    return torch.where(seen, logits / penalty, logits)


@misconception(
    "min_p_filter",
    "The penalty is applied once for each occurrence; an id that occurred three times is to be penalised once.",
    replaces="repetition_penalty",
)
def penalises_each_occurrence(logits, prev_ids, penalty):
    if penalty <= 0:
        raise ValueError("penalty")
    logits = logits.clone()
    for row, ids in zip(logits, prev_ids, strict=True):
        for i in ids.tolist():
            row[i] = row[i] / penalty if row[i] > 0 else row[i] * penalty
    return logits


@misconception(
    "min_p_filter",
    "The ids of one row are penalised in all rows; each row has its own history.",
    replaces="repetition_penalty",
)
def penalises_all_rows(logits, prev_ids, penalty):
    if penalty <= 0:
        raise ValueError("penalty")
    logits, ids = logits.clone(), prev_ids.unique()
    chosen = logits[:, ids]
    logits[:, ids] = torch.where(chosen > 0, chosen / penalty, chosen * penalty)
    return logits


# -- sample, gumbel_argmax -----------------------------------------------------------------------------------------


@misconception("sample", "You take the most likely id; sampling is to give every id its share of the draws.")
def takes_the_argmax(probs, generator):
    return probs.argmax(-1)


@misconception("sample", "One uniform number serves the whole batch, so rows rise and fall together; draw one a row.")
def one_dart_for_all_rows(probs, generator):
    u = torch.rand(1, generator=generator, dtype=probs.dtype)
    return (probs.cumsum(-1) <= u).sum(-1).clamp(max=probs.shape[-1] - 1)


@misconception("sample", "You apply a softmax to what are probabilities already, which flattens them.")
def softmax_of_probabilities(probs, generator):
    return reference.sample(torch.softmax(probs, -1), generator)


@misconception(
    "sample", "You add uniform noise to the probabilities and take the largest; that favours the likely ones."
)
def adds_uniform_noise(probs, generator):
    return (probs + torch.rand(probs.shape, generator=generator, dtype=probs.dtype)).argmax(-1)


@misconception("sample", "The noise is uniform; it must be Gumbel: -log(-log(u)).", replaces="gumbel_argmax")
def gumbel_without_logarithms(logits, u):
    return (logits + u).argmax(-1)


@misconception(
    "sample", "The sign of the noise is turned: add -log(-log(u)), do not subtract it.", replaces="gumbel_argmax"
)
def gumbel_subtracted(logits, u):
    info = torch.finfo(u.dtype)
    return (logits + torch.log(-torch.log(u.clamp(info.tiny, 1 - info.eps)))).argmax(-1)


@misconception(
    "sample",
    "At u = 0 and u = 1 your noise is infinite and decides alone. Clamp u away from both ends first.",
    replaces="gumbel_argmax",
)
def gumbel_unclamped(logits, u):
    return (logits - torch.log(-torch.log(u))).argmax(-1)


# -- beam_search ---------------------------------------------------------------------------------------------------


def _search(logprob_fn, bos, eos, beam, max_len, score, join=lambda total, new: total + new, stop=lambda ended: False):
    """The common frame, with what a wrong answer changes as arguments."""
    if beam < 1 or max_len < 1:
        raise ValueError("beam, max_len")
    live, ended = [([], 0.0)], []
    for _ in range(max_len):
        if not live or stop(ended):
            break
        rows = logprob_fn(torch.tensor([[bos, *ids] for ids, _ in live])).tolist()
        longer = [
            ([*ids, token], join(total, x))
            for (ids, total), row in zip(live, rows, strict=True)
            for token, x in enumerate(row)
            if x > -INF
        ]
        best = sorted(longer, key=lambda pair: -pair[1])[:beam]
        ended += [pair for pair in best if pair[0][-1] == eos]
        live = [pair for pair in best if pair[0][-1] != eos]
    pool = ended if stop(ended) else ended + live
    return max(((ids, score(ids, total)) for ids, total in pool), key=lambda pair: pair[1])


@misconception("beam_search", "You add up probabilities; a sequence's probability is a product, so add the logarithms.")
def adds_probabilities(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    return _search(
        logprob_fn,
        bos,
        eos,
        beam,
        max_len,
        lambda ids, total: total / len(ids) ** length_alpha,
        join=lambda total, new: total + math.exp(new),
    )


@misconception(
    "beam_search", "The search stops at the first hypothesis that ends; one that lives on may still come to win."
)
def stops_at_the_first_end(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    return _search(logprob_fn, bos, eos, beam, max_len, lambda ids, total: total / len(ids) ** length_alpha, stop=bool)


@misconception("beam_search", "The length that divides the score counts bos as well; only generated tokens count.")
def counts_bos_in_the_length(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    return _search(logprob_fn, bos, eos, beam, max_len, lambda ids, total: total / (len(ids) + 1) ** length_alpha)


@misconception("beam_search", "length_alpha is ignored: divide the sum by the length to that power at the end.")
def ignores_length_alpha(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    return _search(logprob_fn, bos, eos, beam, max_len, lambda ids, total: total)


@misconception("beam_search", "You follow the single most likely token; keep the best `beam` hypotheses at each step.")
def always_greedy(logprob_fn, bos, eos, beam, max_len, length_alpha=0.0):
    return reference.beam_search(logprob_fn, bos, eos, min(beam, 1), max_len, length_alpha)


# -- generate ------------------------------------------------------------------------------------------------------


def _loop(model, ids, n_new, sampler, eos, pad, stop, keep_pad=True, crop="left"):
    """The common frame, with what a wrong answer changes as arguments."""
    prompt, T_max = ids.shape[1], getattr(model, "T_max", None)
    ended = torch.zeros(len(ids), dtype=torch.bool)
    for _ in range(n_new):
        if stop(ended):
            break
        context = ids if T_max is None or crop is None else ids[:, -T_max:] if crop == "left" else ids[:, :T_max]
        drawn = sampler(model(context)[:, -1])
        column = torch.where(ended, torch.full_like(drawn, pad), drawn) if keep_pad else drawn
        ids = torch.cat([ids, column[:, None]], 1)
        if eos is not None:
            ended = ended | (drawn == eos)
    rest = torch.full((len(ids), prompt + n_new - ids.shape[1]), pad)
    return torch.cat([ids, rest], 1)


@misconception("generate", "You stop when any row ends; go on until all rows have ended.")
def stops_when_any_row_ends(model, ids, n_new, sampler, eos=None, pad=0):
    return _loop(model, ids, n_new, sampler, eos, pad, lambda ended: bool(ended.any()))


@misconception("generate", "A row that has ended goes on being written; from its eos on it must get pad.")
def writes_on_after_eos(model, ids, n_new, sampler, eos=None, pad=0):
    return _loop(model, ids, n_new, sampler, eos, pad, lambda ended: bool(ended.all()), keep_pad=False)


@misconception("generate", "You crop the newest ids; where the context is too long, the oldest are the ones to lose.")
def crops_the_wrong_end(model, ids, n_new, sampler, eos=None, pad=0):
    return _loop(model, ids, n_new, sampler, eos, pad, lambda ended: bool(ended.all()), crop="right")


@misconception("generate", "T_max is ignored: the model gets more ids than it can take. Give it the last T_max.")
def ignores_T_max(model, ids, n_new, sampler, eos=None, pad=0):
    return _loop(model, ids, n_new, sampler, eos, pad, lambda ended: bool(ended.all()), crop=None)


@misconception("generate", "You test `if eos`, which is false when eos is id 0; test `eos is not None`.")
def eos_zero_is_no_eos(model, ids, n_new, sampler, eos=None, pad=0):
    return _loop(model, ids, n_new, sampler, eos or None, pad, lambda ended: bool(ended.all()))


# -- LogitsPipeline ------------------------------------------------------------------------------------------------


@misconception(
    "LogitsPipeline", "Every step works on the original logits and the results are intersected; pass each result on."
)
class IntersectsTheSteps(reference.LogitsPipeline):
    def __call__(self, logits, prev_ids):
        kept = logits.clone()
        for step in self.steps:
            kept = torch.minimum(kept, step(logits.clone(), prev_ids))
        if (kept == -INF).all(-1).any():
            raise ValueError("empty")
        return kept


@misconception("LogitsPipeline", "The steps run from right to left; the first one given must run first.")
class RunsBackwards(reference.LogitsPipeline):
    def __init__(self, *steps):
        super().__init__(*reversed(steps))


@misconception("LogitsPipeline", "You normalise between the steps; a step must get exactly what the last one gave.")
class RenormalisesBetween(reference.LogitsPipeline):
    def __call__(self, logits, prev_ids):
        for step in self.steps:
            logits = torch.log_softmax(step(logits.clone(), prev_ids), -1)
        return logits


@misconception(
    "LogitsPipeline", "The first step gets the caller's own tensor; a step that works in place changes it. Copy first."
)
class WorksOnTheCallersTensor(reference.LogitsPipeline):
    def __call__(self, logits, prev_ids):
        for step in self.steps:
            logits = step(logits, prev_ids)
        if (logits == -INF).all(-1).any():
            raise ValueError("empty")
        return logits


@misconception(
    "LogitsPipeline",
    "A row whose every token was removed goes through; the softmax would make NaN of it. Raise ValueError.",
)
class LetsEmptyRowsThrough(reference.LogitsPipeline):
    def __call__(self, logits, prev_ids):
        logits = logits.clone()
        for step in self.steps:
            logits = step(logits, prev_ids)
        return logits


@misconception(
    "LogitsPipeline",
    "The filters run before the temperature; they are to see the distribution that will be sampled from.",
    replaces="standard_pipeline",
)
def temperature_last(penalty=1.0, temperature=1.0, k=None, p=1.0, min_p=0.0):
    first = reference.standard_pipeline(penalty, 1.0, k, p, min_p)
    then = reference.standard_pipeline(temperature=temperature)
    return reference.LogitsPipeline(first, then)


@misconception(
    "LogitsPipeline",
    "Top-p runs before top-k; top-k comes first, and top-p measures mass among what it left.",
    replaces="standard_pipeline",
)
def top_p_before_top_k(penalty=1.0, temperature=1.0, k=None, p=1.0, min_p=0.0):
    first = reference.standard_pipeline(penalty, temperature, None, p, 0.0)
    then = reference.standard_pipeline(1.0, 1.0, k, 1.0, min_p)
    return reference.LogitsPipeline(first, then)
