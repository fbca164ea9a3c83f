"""Right answers of chapter 21 written in other styles; a suite that fails one of them is wrong."""

import bisect
import functools
import heapq
import itertools
import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)
OPEN, CLOSE = "<think>", "</think>"

# -- split_thinking, strip_history


def scan(text):
    """Character by character, with the state kept in words."""
    thoughts, answer, current, state, i = [], [], [], "answer", 0
    while i < len(text):
        line_start = i == 0 or text[i - 1] == "\n"
        if state == "think":
            if text.startswith(CLOSE, i):
                thoughts.append("".join(current).strip())
                current, state, i = [], "answer", i + len(CLOSE)
                continue
            current.append(text[i])
        else:
            if line_start and text.startswith("```", i):
                state = "answer" if state == "fence" else "fence"
                answer.append("```")
                i += 3
                continue
            if state == "answer" and text.startswith(OPEN, i):
                state, i = "think", i + len(OPEN)
                continue
            answer.append(text[i])
        i += 1
    if state == "think":
        thoughts.append("".join(current).strip())
    return "\n".join(filter(None, thoughts)), "".join(answer).strip()


@alternative("split_thinking", "a scan, character by character, with three states")
def split_by_states(text):
    return scan(text)


def tags_outside_fences(line, fenced):
    """Where a line opens a block, or -1."""
    return -1 if fenced else line.find(OPEN)


@alternative("split_thinking", "line by line, each line taken apart at its tags")
def split_by_lines(text):
    blocks, answer, block, fenced = [], "", None, False
    for line in text.splitlines(keepends=True):
        if block is None and line.startswith("```"):
            fenced = not fenced
            answer += line
            continue
        while line:
            if block is None:
                at = tags_outside_fences(line, fenced)
                if at < 0:
                    answer, line = answer + line, ""
                else:
                    answer, line, block = answer + line[:at], line[at + len(OPEN) :], ""
            else:
                inside, tag, rest = line.partition(CLOSE)
                block += inside
                line = rest
                if tag:
                    blocks, block = [*blocks, block], None
    if block is not None:
        blocks.append(block)
    return "\n".join(b.strip() for b in blocks if b.strip()), answer.strip()


@alternative("split_thinking", "deep copies and a dict update", replaces="strip_history")
def strip_by_update(messages):
    result = []
    for message in messages:
        answer = scan(message["content"])[1]
        result.append(dict(message, content=answer if message["role"] == "assistant" else message["content"]))
    return result


# -- budget_forced_generate


@alternative("budget_forced_generate", "one loop over a single list, with a queue of tokens to be written")
def force_with_a_queue(model, ids, min_think, max_think, end_id, wait_ids):
    if len(wait_ids) < 1 or max_think < min_think:
        raise ValueError("budget")
    text, start = list(ids), len(ids)
    queue, thinking = [], True
    while True:
        count = len(text) - start
        if thinking and count == max_think:
            queue = [end_id]
            thinking = False
        if not queue:
            token = model(list(text))
            if token is None:
                return text[start:]
            if thinking and token == end_id:
                if count < min_think:
                    queue = list(wait_ids)
                else:
                    thinking, queue = False, [token]
            else:
                queue = [token]
        text.append(queue.pop(0))


@alternative("budget_forced_generate", "recursion over phases")
def force_by_recursion(model, ids, min_think, max_think, end_id, wait_ids):
    if not min_think <= max_think or not len(wait_ids):
        raise ValueError("budget")

    def speak(new):
        token = model([*ids, *new])
        return new if token is None else speak([*new, token])

    def think(new):
        if len(new) >= max_think:
            return speak([*new[:max_think], end_id])
        token = model([*ids, *new])
        if token != end_id:
            return think([*new, token])
        return speak([*new, end_id]) if len(new) >= min_think else think([*new, *wait_ids])

    return think([])


# -- best_of_n, expected_best_of_n


@alternative("best_of_n", "a loop with the best so far")
def best_by_loop(samples, score):
    chosen = None
    for sample in samples:
        worth = score(sample)
        if chosen is None or worth > chosen[0]:
            chosen = (worth, sample)
    if chosen is None:
        raise ValueError("no sample")
    return chosen[1]


@alternative("best_of_n", "numpy's argmax")
def best_by_argmax(samples, score):
    if not samples:
        raise ValueError("no sample")
    return samples[int(np.argmax([score(sample) for sample in samples]))]


@alternative("best_of_n", "the weights from the largest down, each from the one before", replaces="expected_best_of_n")
def expected_by_recursion(scores, n):
    ordered = sorted((float(s) for s in scores), reverse=True)
    m = len(ordered)
    if n < 1 or n > m:
        raise ValueError("n")
    total, weight = 0.0, n / m  # the largest is in the subset with probability n / m
    for i, score in enumerate(ordered):
        total += weight * score
        left = m - i - 1
        if left < n:
            break
        weight *= (left - n + 1) / left
    return total


@alternative("best_of_n", "steps between thresholds, with logarithms of factorials", replaces="expected_best_of_n")
def expected_by_thresholds(scores, n):
    x = np.sort(np.asarray([float(s) for s in scores]))
    m = len(x)
    if n not in range(1, m + 1):
        raise ValueError("n")
    # the probability that all n are among the i smallest, for i = 0 ... m, by running products
    below = np.zeros(m + 1)
    below[m] = 1.0
    for i in range(m - 1, n - 1, -1):
        below[i] = below[i + 1] * (i + 1 - n) / (i + 1)
    return float(np.diff(below) @ x)


@alternative("best_of_n", "rational numbers throughout", replaces="expected_best_of_n")
def expected_by_fractions(scores, n):
    values = torch.as_tensor(scores, dtype=torch.float64).sort().values.tolist()
    m = len(values)
    if not 0 < n <= m:
        raise ValueError("n")
    ways, total = 1, 0
    for i in range(n - 1, m):
        total += ways * Fraction(values[i])
        ways = ways * (i + 1) // (i + 2 - n)  # C(i, n - 1) -> C(i + 1, n - 1)
    return float(total / math.comb(m, n))


# -- verify_math, weighted_vote


def digits(text):
    """The whole number in a text, commas in groups of three allowed; None if it is none."""
    groups = text.split(",")
    if not all(g.isascii() and g.isdigit() for g in groups):
        return None
    if len(groups) > 1 and not (len(groups[0]) <= 3 and all(len(g) == 3 for g in groups[1:])):
        return None
    return int("".join(groups))


def parse(text):
    """Read by hand, without regular expressions: (kind, Fraction) or None."""
    text, kind, factor = text.strip(), None, Fraction(1)
    for name in sorted(reference.UNITS, key=len, reverse=True):
        if text.endswith(name) and not text[: -len(name)].strip()[-1:].isalpha():
            kind, factor = reference.UNITS[name]
            text = text[: -len(name)].rstrip()
            break
    else:
        if text.endswith("%"):
            text, factor = text[:-1].rstrip(), Fraction(1, 100)
    sign = 1
    if text[:1] in ("+", "-"):
        sign, text = (-1 if text[0] == "-" else 1), text[1:].lstrip()
    if "/" in text:
        top, _, bottom = text.partition("/")
        top, bottom = digits(top.strip()), digits(bottom.strip())
        if top is None or not bottom:
            return None
        return kind, sign * Fraction(top, bottom) * factor
    whole, point, part = text.partition(".")
    if point:
        if not (part.isascii() and part.isdigit()):
            return None
        whole = digits(whole) if whole else 0
        return None if whole is None else (kind, sign * (whole + Fraction(int(part), 10 ** len(part))) * factor)
    whole = digits(whole)
    return None if whole is None else (kind, sign * whole * factor)


@alternative("verify_math", "a reader written by hand, without regular expressions")
def verify_by_hand(pred, gold):
    one, two = parse(pred), parse(gold)
    if one is None and two is None:
        return pred.casefold().split() == gold.casefold().split()
    return one == two


def whole_numbers(text):
    """(kind, numerator, denominator), in lowest terms, of a value."""
    value = parse(text)
    if value is None:
        return None
    kind, number = value
    top, bottom = int(number.numerator), int(number.denominator)
    g = math.gcd(top, bottom)
    return kind, top // g, bottom // g


@alternative("verify_math", "cross multiplication of whole numbers")
def verify_by_cross_multiplication(pred, gold):
    one, two = whole_numbers(pred), whole_numbers(gold)
    if (one is None) != (two is None):
        return False
    if one is None:
        return " ".join(pred.lower().split()) == " ".join(gold.lower().split())
    return one[0] == two[0] and one[1] * two[2] == two[1] * one[2]


@alternative("verify_math", "totals of whole classes, every pair compared", replaces="weighted_vote")
def vote_by_pairs(answers, scores):
    if len(answers) != len(scores):
        raise ValueError("lengths")
    votes = [(a, s) for a, s in zip(answers, scores, strict=True) if a is not None]
    best, winner = -1.0, None
    for answer, _ in votes:
        total = math.fsum(score for other, score in votes if verify_by_hand(answer, other))
        if total > best:
            best, winner = total, answer
    return winner


@alternative("verify_math", "a default dict by canonical value", replaces="weighted_vote")
def vote_by_canonical_value(answers, scores):
    if len(scores) != len(answers):
        raise ValueError("lengths")
    totals, written = defaultdict(float), {}
    for answer, score in zip(answers, scores, strict=False):
        if answer is None:
            continue
        key = parse(answer) or " ".join(answer.lower().split())
        written.setdefault(key, answer)
        totals[key] += score
    if not totals:
        return None
    top = max(totals.values())
    return next(written[key] for key in written if totals[key] == top)


# -- process_score, tree_search


@alternative("process_score", "torch in float64")
def score_by_torch(step_probs, how="min"):
    p = torch.as_tensor(step_probs, dtype=torch.float64)
    if p.numel() == 0:
        raise ValueError("no step")
    match how:
        case "min":
            return p.min().item()
        case "last":
            return p[-1].item()
        case "prod":
            return p.log().sum().item()
    raise ValueError(how)


@alternative("process_score", "a table of functions, fsum")
def score_by_table(step_probs, how="min"):
    functions = {
        "min": lambda p: sorted(p)[0],
        "last": lambda p: p.pop(),
        "prod": lambda p: -math.inf if 0 in p else math.fsum(map(math.log, p)),
    }
    if how not in functions or len(step_probs) == 0:
        raise ValueError("how")
    return functions[how]([float(p) for p in step_probs])


@alternative("process_score", "a heap of the level and a recursion over levels", replaces="tree_search")
def search_by_heap(expand, value, width, depth):
    def go(kept, left, ends):
        if left == 0 or not kept:
            return ends + kept
        heap = []
        order = itertools.count()
        for worth, path in kept:
            steps = list(expand(path))
            if not steps:
                ends = [*ends, (worth, path)]
            for step in steps:
                child = path + (step,)
                item = (value(child), next(order), child)
                if len(heap) < width:
                    heapq.heappush(heap, item)
                else:
                    heapq.heappushpop(heap, item)
        return go([(worth, path) for worth, _, path in heap], left - 1, ends)

    return max(go([(-math.inf, ())], depth, []), key=lambda pair: pair[0])[1]


@alternative("process_score", "values in a dict, the best end so far, insertion into a sorted list", "tree_search")
def search_by_insertion(expand, value, width, depth):
    values, best, level = {(): 0.0}, None, [()]
    while level:
        following = []
        for path in level:
            steps = expand(path) if len(path) < depth else []
            if len(steps) == 0 and (best is None or values[path] > values[best]):
                best = path
            for step in steps:
                child = tuple([*path, step])
                values[child] = value(child)
                bisect.insort(following, child, key=lambda p: -values[p])
                del following[width:]
        level = following
    return best


# -- group_advantages


@alternative("group_advantages", "group by group with torch.std")
def advantages_by_chunks(rewards, group_size, normalize_std=True, eps=1e-6):
    if rewards.shape[0] % group_size != 0:
        raise ValueError("size")
    parts = []
    for group in rewards.split(group_size):
        if bool((group == group[0]).all()):
            parts.append(torch.zeros_like(group))
        else:
            centred = group - group.mean()
            parts.append(centred / (group.std() + eps) if normalize_std else centred)
    return torch.cat(parts)


@alternative("group_advantages", "numpy in float64")
def advantages_by_numpy(rewards, group_size, normalize_std=True, eps=1e-6):
    r = rewards.detach().double().numpy()
    if len(r) % group_size:
        raise ValueError("size")
    r = r.reshape(-1, group_size)
    out = np.zeros_like(r)
    live = np.ptp(r, axis=1) > 0
    out[live] = r[live] - r[live].mean(axis=1, keepdims=True)
    if normalize_std and live.any():
        out[live] /= r[live].std(axis=1, ddof=1, keepdims=True) + eps
    return torch.from_numpy(out.reshape(-1)).to(rewards.dtype)


# -- grpo_loss


@alternative("grpo_loss", "token by token, the cases spelled out")
def loss_by_cases(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    weights = {"seq": lambda n, total: 1 / n, "token": lambda n, total: len(mask) / total, "dr": lambda n, total: 1.0}
    if agg not in weights:
        raise ValueError("agg")
    total, result = int(mask.sum()), logp.new_zeros(())
    for b in range(len(mask)):
        at, A = mask[b].nonzero().flatten().tolist(), adv[b].item()
        for t in at:
            x = logp[b, t]
            rho, d = torch.exp(x - old_logp[b, t].item()), ref_logp[b, t].item() - x
            if A > 0 and rho > 1 + eps:
                rho = rho.new_tensor(1 + eps)
            elif A < 0 and rho < 1 - eps:
                rho = rho.new_tensor(1 - eps)
            result = result + weights[agg](len(at), total) * (beta * (torch.exp(d) - d - 1) - rho * A)
    return result / len(mask)


@alternative("grpo_loss", "only the tokens, weighted and summed")
def loss_by_weights(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    B, n = len(mask), mask.sum(1, keepdim=True)
    if agg == "seq":
        weight = 1 / (B * n.clamp(min=1).to(logp.dtype))
    elif agg == "token":
        weight = (1 / n.sum().clamp(min=1).to(logp.dtype)).expand(B, 1)
    elif agg == "dr":
        weight = torch.full((B, 1), 1 / B, dtype=logp.dtype)
    else:
        raise ValueError("agg")
    w, A = (x.expand_as(mask)[mask].detach() for x in (weight, adv.unsqueeze(1)))
    new, old, ref = logp[mask], old_logp[mask].detach(), ref_logp[mask].detach()
    ratio = (new - old).exp()
    policy = torch.max(-A * ratio, -A * torch.clip(ratio, 1 - eps, 1 + eps))
    k3 = (ref - new).exp() - 1 + new - ref
    return torch.dot(w, policy + beta * k3)


# -- grpo_toy


@alternative("grpo_toy", "a smaller group, two passes, no leash, RLOO-like baseline, Adam written by hand")
def toy_by_hand(task, steps, seed):
    P, T, V, G = task["prompts"], task["length"], task["words"], 12
    rng = np.random.default_rng(seed)
    logits = torch.zeros(P, T, V, dtype=torch.float64)
    m, v, k, curve = torch.zeros_like(logits), torch.zeros_like(logits), 0, []
    for _ in range(steps):
        p = F.softmax(logits, dim=2)
        u = torch.from_numpy(rng.random((P, G, T, 1)))
        answers = (u > p.cumsum(2)[:, None]).sum(3).clamp(max=V - 1)  # (P, G, T)
        prompts = torch.arange(P)[:, None].expand(P, G).flatten()
        r = task["verify"](prompts, answers.flatten(0, 1)).view(P, G)
        curve.append(float(r.mean()))
        A = (r - r.mean(1, keepdim=True)) * G / (G - 1)
        A = A / (r.std(1, keepdim=True) + 1e-4)
        hot = F.one_hot(answers, V).double()  # (P, G, T, V)
        start = p
        for _ in range(2):
            p = F.softmax(logits, dim=2)
            rho = (hot * (p / start)[:, None]).sum(3)  # (P, G, T)
            open_ = torch.where(A[..., None] > 0, rho < 1.2, rho > 0.8)
            g = -((rho * open_ * A[..., None])[..., None] * (hot - p[:, None])).mean(1) / P
            k += 1
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            logits = logits - task["lr"] * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
    return curve


@alternative("grpo_toy", "own loss, a larger group, torch's optimiser, Categorical-free draws by Gumbel noise")
def toy_by_gumbel(task, steps, seed):
    P, T, V, G = task["prompts"], task["length"], task["words"], 24
    rng = torch.Generator()
    rng.manual_seed(seed)
    table = torch.nn.Parameter(torch.zeros(P, T, V))
    optimizer = torch.optim.Adam([table], lr=task["lr"])
    index = torch.repeat_interleave(torch.arange(P), G)
    rewards = []
    for _ in range(steps):
        noise = -torch.log(-torch.log(torch.rand(P * G, T, V, generator=rng).clamp(1e-12, 1 - 1e-7)))
        words = (table.detach()[index] + noise).argmax(2)
        paid = task["verify"](index, words)
        rewards.append(paid.double().mean().item())
        adv = functools.reduce(torch.Tensor.__sub__, [paid.view(P, G), paid.view(P, G).mean(1, True)]).flatten()
        logp = torch.log_softmax(table, 2)[index].gather(2, words.unsqueeze(2)).sum((1, 2))
        optimizer.zero_grad()
        (-(adv * logp).mean()).backward()
        optimizer.step()
    return rewards
