"""Right answers of chapter 20 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math
import re
import string
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- ece, reliability_bins -----------------------------------------------------------------------------------------


def usable(conf, correct, n_bins):
    if n_bins < 1 or len(conf) != len(correct) or len(conf) == 0:
        raise ValueError("nothing to sort into bins")
    for c in conf.tolist():
        if not 0 <= c <= 1:
            raise ValueError(f"{c} is no confidence")


@alternative("ece", "edges from linspace and masks, one bin after the other")
def ece_by_masks(conf, correct, n_bins=10):
    usable(conf, correct, n_bins)
    edges, conf = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64), conf.double()
    total = 0.0
    for m in range(n_bins):
        mask = (conf > edges[m]) & (conf <= edges[m + 1])
        if m == 0:
            mask |= conf == 0
        if mask.any():
            total += mask.double().mean() * (correct[mask].double().mean() - conf[mask].mean()).abs()
    return float(total)


@alternative("ece", "numpy's searchsorted, sums of differences", replaces="ece")
def ece_by_numpy(conf, correct, n_bins=10):
    usable(conf, correct, n_bins)
    c, y = conf.numpy().astype(np.float64), correct.numpy().astype(np.float64)
    place = np.searchsorted(np.arange(1, n_bins) / n_bins, c, side="left")
    return float(np.abs(np.bincount(place, weights=y - c)).sum() / len(c))


@alternative("ece", "a dictionary of lists and exact fractions", replaces="reliability_bins")
def bins_by_fractions(conf, correct, n_bins=10):
    usable(conf, correct, n_bins)
    inside = defaultdict(list)
    for c, y in zip(conf.tolist(), correct.tolist(), strict=True):
        inside[max(math.ceil(Fraction(c) * n_bins) - 1, 0)].append((Fraction(c), y))
    counts = torch.zeros(n_bins, dtype=torch.long)
    mean_conf, accuracy = (torch.full((n_bins,), math.nan, dtype=torch.float64) for _ in range(2))
    for m, pairs in inside.items():
        counts[m] = len(pairs)
        mean_conf[m] = float(sum(c for c, _ in pairs) / len(pairs))
        accuracy[m] = sum(y for _, y in pairs) / len(pairs)
    return [counts, mean_conf, accuracy]


# -- brier, brier_decomposition ------------------------------------------------------------------------------------


@alternative("brier", "torch's mean squared error")
def brier_by_torch(p, y):
    return F.mse_loss(p.to(torch.float64), y.to(torch.float64)).item()


@alternative("brier", "a dictionary of outcomes, plain sums", replaces="brier_decomposition")
def parts_by_dictionary(p, y):
    groups = defaultdict(list)
    for forecast, outcome in zip(p.tolist(), y.tolist(), strict=True):
        groups[forecast].append(int(outcome))
    N, o = len(p), sum(y.tolist()) / len(p)
    reliability = math.fsum(len(g) * (f - sum(g) / len(g)) ** 2 for f, g in groups.items()) / N
    resolution = math.fsum(len(g) * (sum(g) / len(g) - o) ** 2 for g in groups.values()) / N
    return reliability, resolution, o - o**2


@alternative("brier", "each answer carries the mean of its group, a comparison table", replaces="brier_decomposition")
def parts_by_table(p, y):
    p, y = p.double(), y.double()
    same = (p[:, None] == p[None, :]).double()
    kept = same @ y / same.sum(1)
    return ((p - kept) ** 2).mean().item(), ((kept - y.mean()) ** 2).mean().item(), y.var(unbiased=False).item()


# -- fit_temperature -----------------------------------------------------------------------------------------------


@alternative("fit_temperature", "golden sections of the loss over ln T, with cross_entropy")
def temperature_by_golden_sections(logits, labels):
    golden = (math.sqrt(5) - 1) / 2

    def loss(x):
        return F.cross_entropy(logits.double() / math.exp(x), labels).item()

    a, b = math.log(0.01), math.log(100.0)
    c, d = b - golden * (b - a), a + golden * (b - a)
    fc, fd = loss(c), loss(d)
    while b - a > 1e-6:
        if fc < fd:
            b, d, fd = d, c, fc
            c = b - golden * (b - a)
            fc = loss(c)
        else:
            a, c, fc = c, d, fd
            d = a + golden * (b - a)
            fd = loss(d)
    return math.exp((a + b) / 2)


@alternative("fit_temperature", "numpy grids, each twenty times as fine as the one before")
def temperature_by_grids(logits, labels):
    z = logits.numpy().astype(np.float64)
    z = z - z.max(axis=1, keepdims=True)
    right = z[np.arange(len(z)), labels.numpy()]

    def loss(beta):
        return np.mean(np.log(np.exp(beta * z).sum(axis=1)) - beta * right)

    low, high = math.log(0.01), math.log(100.0)
    for _ in range(5):
        grid = np.linspace(low, high, 21)
        k = int(np.argmin([loss(math.exp(-x)) for x in grid]))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, 20)]
    return float(np.exp(grid[k]))


@alternative("fit_temperature", "autograd and Newton steps in 1 / T, kept in the range by bisection")
def temperature_by_newton(logits, labels):
    with torch.enable_grad():
        low, high, beta = 0.01, 100.0, 1.0
        for _ in range(100):
            b = torch.tensor(beta, dtype=torch.float64, requires_grad=True)
            value = F.cross_entropy(b * logits.double(), labels)
            (slope,) = torch.autograd.grad(value, b, create_graph=True)
            (curve,) = torch.autograd.grad(slope, b)
            low, high = (beta, high) if slope.item() < 0 else (low, beta)
            step = beta - slope.item() / max(curve.item(), 1e-300)
            beta = step if low < step < high else math.sqrt(low * high)
            if high / low < 1 + 1e-7:
                break
    return min(max(1 / beta, 0.01), 100.0)


# -- risk_coverage, abstain_threshold ------------------------------------------------------------------------------


@alternative("risk_coverage", "sort, count, and keep the last entry of each run")
def curve_by_sorting(conf, correct):
    order = torch.argsort(conf, descending=True)
    c, wrong = conf[order], 1.0 - correct[order].double()
    last = torch.cat([c[1:] != c[:-1], torch.ones(1, dtype=torch.bool)])
    n = torch.arange(1, len(c) + 1, dtype=torch.float64)
    coverage, risk = (n / len(c))[last], (wrong.cumsum(0) / n)[last]
    widths = torch.diff(coverage, prepend=coverage.new_zeros(1))
    return coverage, risk, torch.dot(widths, risk).item()


@alternative("risk_coverage", "itertools.groupby and running totals")
def curve_by_groupby(conf, correct):
    pairs = sorted(zip(conf.tolist(), correct.tolist(), strict=True), reverse=True)
    N, answered, wrong, area = len(pairs), 0, 0, 0.0
    points = []
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0]):
        outcomes = [y for _, y in group]
        answered += len(outcomes)
        wrong += outcomes.count(False)
        points.append((answered / N, wrong / answered))
        area += len(outcomes) / N * points[-1][1]
    return *torch.tensor(points, dtype=torch.float64).unbind(1), area


@alternative("risk_coverage", "odds turned into a probability", replaces="abstain_threshold")
def threshold_by_odds(reward, penalty):
    if not (reward > 0 and penalty >= 0):
        raise ValueError("prices")
    ratio = penalty / reward
    return ratio / (1 + ratio)


# -- semantic_entropy ----------------------------------------------------------------------------------------------


@alternative("semantic_entropy", "all pairs asked beforehand, masses through logsumexp")
def entropy_by_table(samples, entails, logprobs=None):
    n = len(samples)
    if n == 0:
        raise ValueError("no samples")
    table = [[bool(entails(a, b)) for b in samples] for a in samples]
    logp = torch.zeros(n, dtype=torch.float64) if logprobs is None else logprobs.double()
    logp = logp - logp.logsumexp(0)
    first, label = [], []
    for i in range(n):
        found = [g for g, f in enumerate(first) if table[f][i] and table[i][f]]
        label.append(found[0] if found else len(first))
        if not found:
            first.append(i)
    label = torch.tensor(label)
    log_mass = torch.stack([logp[label == g].logsumexp(0) for g in range(len(first))])
    return float(torch.special.entr(log_mass.exp()).sum())


@alternative("semantic_entropy", "take the first of those left, remove its likes, go on")
def entropy_by_removal(samples, entails, logprobs=None):
    if len(samples) < 1:
        raise ValueError("no samples")
    raw = np.zeros(len(samples)) if logprobs is None else logprobs.numpy().astype(np.float64)
    weight = np.exp(raw - raw.max())
    left, masses = list(range(len(samples))), []
    while left:
        head = left[0]
        same = [
            i for i in left if i == head or (entails(samples[i], samples[head]) and entails(samples[head], samples[i]))
        ]
        masses.append(weight[same].sum() / weight.sum())
        left = [i for i in left if i not in same]
    return float(-sum(m * np.log(m) for m in masses if m > 0))


# -- claim_support, selfcheck --------------------------------------------------------------------------------------


@alternative("claim_support", "any over generators, early exits")
def support_by_any(answer, evidence, nli):
    lists = ([], [], [])
    for claim in answer:
        if any(nli(premise, claim) == "contradiction" for premise in evidence):
            lists[1].append(claim)
        elif any(nli(premise, claim) == "entailment" for premise in evidence):
            lists[0].append(claim)
        else:
            lists[2].append(claim)
    return lists


@alternative("claim_support", "the worst verdict by rank, comprehensions")
def support_by_rank(answer, evidence, nli):
    rank = {"neutral": 0, "entailment": 1, "contradiction": 2}
    worst = [max([0, *(rank[nli(passage, claim)] for passage in evidence)]) for claim in answer]
    return tuple([c for c, w in zip(answer, worst, strict=True) if w == kind] for kind in (1, 2, 0))


@alternative("claim_support", "a numpy table of best matches", replaces="selfcheck")
def selfcheck_by_numpy(answer_sents, samples, sim):
    if len(samples) == 0:
        raise ValueError("no samples")
    best = np.zeros((len(answer_sents), len(samples)))
    for i, j in np.ndindex(*best.shape):
        for sentence in samples[j]:
            best[i, j] = max(best[i, j], sim(answer_sents[i], sentence))
    return (1 - best.mean(axis=1)).tolist()


# -- good_turing_missing_mass, calibrated_hallucination_floor, reversal_test ---------------------------------------


@alternative("good_turing_missing_mass", "counts of counts")
def missing_mass_by_counts_of_counts(counts):
    of = Counter(counts.values())
    statements = sum(times * facts for times, facts in of.items())
    if not statements:
        raise ValueError("no statements")
    return of[1] / statements


@alternative("good_turing_missing_mass", "numpy, and a clip", replaces="calibrated_hallucination_floor")
def floor_by_numpy(counts, n):
    values = np.array(list(counts.values()), dtype=int)
    if n <= 0 or values.sum() > n:
        raise ValueError("n")
    return float(np.clip(np.count_nonzero(values == 1) / n - 4 * n**-0.5, 0, None))


@alternative("good_turing_missing_mass", "a regular expression and numpy means", replaces="reversal_test")
def reversal_by_expression(model, pairs):
    if len(pairs) == 0:
        raise ValueError("no pairs")
    hits = np.array(
        [
            [bool(re.fullmatch(rf"\s*{re.escape(want)}\.?\s*", model(ask), re.IGNORECASE)) for ask, want in pair]
            for pair in pairs
        ]
    )
    return tuple(hits.mean(axis=0).tolist())


# -- verbal_to_prob, confidence_from_samples -----------------------------------------------------------------------


@alternative("verbal_to_prob", "a list of words and separators, the longest phrase at each place")
def prob_by_words(text):
    words = re.findall(r"[a-z']+|[^a-z'\s]+", text.lower())
    phrases = sorted((p.split() for p in reference.PHRASES), key=len, reverse=True)
    found, i = set(), 0
    while i < len(words):
        for phrase in phrases:
            if words[i : i + len(phrase)] == phrase:
                if i and words[i - 1] in reference.NEGATIONS:
                    return None
                found.add(reference.PHRASES[" ".join(phrase)])
                i += len(phrase)
                break
        else:
            i += 1
    return found.pop() if len(found) == 1 else None


@alternative("verbal_to_prob", "a dictionary and a sort that is stable", replaces="confidence_from_samples")
def confidence_by_sorting(samples):
    if len(samples) == 0:
        raise ValueError("no samples")
    tally = {}
    for text in samples:
        form = re.sub(r"\s+", " ", text.casefold()).strip(string.whitespace + ".,;:!?")
        tally[form] = tally.get(form, 0) + 1
    answer, count = sorted(tally.items(), key=lambda item: -item[1])[0]
    return answer, count / len(samples)
