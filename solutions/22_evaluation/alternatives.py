"""Right answers of chapter 22 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math
import re
import string
import uuid
from fractions import Fraction

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- score_multiple_choice


@alternative("score_multiple_choice", "itertools for the common prefix, numpy for the choice")
def by_takewhile(logprob_fn, encode, prompt, choices, normalize="none"):
    if normalize not in {"none", "tokens", "bytes"}:
        raise ValueError(normalize)
    stripped = [c.strip() for c in choices]
    if not stripped or not all(stripped):
        raise ValueError("empty")
    context = encode(prompt.rstrip())
    scores = np.full(len(choices), -np.inf)
    for i, c in enumerate(stripped):
        ids = encode(prompt.rstrip() + " " + c)
        same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(context, ids, strict=False)))
        own = np.asarray(logprob_fn(ids).tolist())[same:]
        if normalize == "tokens":
            scores[i] = np.mean(own)
        else:
            scores[i] = np.sum(own) / (len(c.encode("utf-8")) if normalize == "bytes" else 1)
    return int(np.argmax(scores))


@alternative("score_multiple_choice", "one running best, encoding the prompt anew each time")
def by_running_best(logprob_fn, encode, prompt, choices, normalize="none"):
    best, index = None, None
    if normalize not in ("none", "tokens", "bytes") or len(choices) == 0 or any(c.strip() == "" for c in choices):
        raise ValueError("cannot be scored")
    for i, choice in enumerate(choices):
        head, tail = prompt.rstrip(), choice.strip()
        before, ids = encode(head), encode(" ".join([head, tail]))
        values = logprob_fn(ids).tolist()
        while before and before != ids[: len(before)]:
            before.pop()
        score = math.fsum(values[len(before) :])
        if normalize == "tokens":
            score = score / (len(ids) - len(before))
        if normalize == "bytes":
            score = score / len(bytes(tail, "utf8"))
        if best is None or score > best:
            best, index = score, i
    return index


# -- pass_at_k


@alternative("pass_at_k", "exact integers, divided once")
def by_comb(n, c, k):
    if c < 0 or c > n or k < 1 or k > n:
        raise ValueError("no such group")
    return float(1 - Fraction(math.comb(n - c, k), math.comb(n, k)))


@alternative("pass_at_k", "logarithms of the gamma function")
def by_lgamma(n, c, k):
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError("no such group")
    if n - c < k:
        return 1.0
    log = math.lgamma(n - c + 1) - math.lgamma(n - c - k + 1) - math.lgamma(n + 1) + math.lgamma(n - k + 1)
    return -math.expm1(log) if c else 0.0


@alternative("pass_at_k", "k factors: no right one in the first, nor the second, ...")
def by_draws(n, c, k):
    if k > n or k <= 0 or c < 0 or c > n:
        raise ValueError("no such group")
    wrong = 1.0
    for drawn in range(k):
        wrong *= max(0, n - c - drawn) / (n - drawn)
    return 1 - wrong


# -- run_candidate


@alternative("run_candidate", "the program prints a report in JSON between two tokens, from a finally clause")
def by_report(code, tests, timeout, execute):
    import json

    token = str(uuid.uuid4())
    program = "\n".join(
        [
            "import contextlib, io, json, sys",
            "def judge(out, run, dumps, flush, text):",
            "    result = 'exited'",
            "    space = {}",
            "    try:",
            "        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):",
            "            for part in text:",
            "                run(part, space, space)",
            "        result = 'passed'",
            "    except AssertionError:",
            "        result = 'failed'",
            "    except Exception:",
            "        result = 'error'",
            "    except BaseException:",
            "        result = 'exited'",
            "    finally:",
            f"        out({token!r} + dumps(dict(status=result)) + {token!r})",
            "        flush()",
            f"judge(sys.stdout.write, exec, json.dumps, sys.stdout.flush, json.loads({json.dumps([code, tests])!r}))",
        ]
    )
    outcome = execute(program, timeout)
    if outcome["timed_out"]:
        return "timeout"
    parts = outcome["stdout"].split(token)
    return json.loads(parts[1])["status"] if len(parts) == 3 else "exited"


@alternative("run_candidate", "silence by rebinding write, three tokens, one for each status")
def by_three_tokens(code, tests, timeout, execute):
    import random

    source = random.SystemRandom()
    tokens = {status: f"{source.getrandbits(128):032x}" for status in ("passed", "failed", "error")}
    program = f"""
def main():
    import os, sys
    say, hush = sys.stdout, type("Hush", (), {{"write": lambda self, text: len(text), "flush": lambda self: None}})
    run = exec
    sys.stdout, sys.stderr = hush(), hush()
    try:
        names = dict(__name__="candidate")
        run(compile({code!r}, "candidate.py", "exec"), names)
        run(tests, names)
    except AssertionError:
        print({tokens["failed"]!r}, file=say)
    except Exception:
        print({tokens["error"]!r}, file=say)
    else:
        say.write({tokens["passed"]!r})
    say.flush()

tests = {tests!r}
main()
"""
    outcome = execute(program=program, timeout=timeout)
    if outcome["timed_out"] is True:
        return "timeout"
    return next((status for status, token in tokens.items() if token in outcome["stdout"]), "exited")


# -- elo_update


@alternative("elo_update", "both expected scores, by a logistic function of natural odds")
def elo_by_both(ra, rb, score, k=32.0):
    qa, qb = math.exp(ra / 400 * math.log(10)), math.exp(rb / 400 * math.log(10))
    return ra + k * (score - qa / (qa + qb)), rb + k * (1 - score - qb / (qa + qb))


@alternative("elo_update", "the hyperbolic tangent")
def elo_by_tanh(ra, rb, score, k=32.0):
    expected = 0.5 + 0.5 * math.tanh((ra - rb) * math.log(10) / 800)
    return (ra + k * (score - expected), rb + k * (expected - score))


# -- fit_bradley_terry, leaderboard_ci


@alternative("fit_bradley_terry", "logistic regression on one row a pair, numpy, halving steps")
def by_regression(wins, l2=1e-6):
    w = wins.double().numpy()
    M = len(w)
    pairs = [(i, j) for i in range(M) for j in range(M) if i != j and w[i, j] > 0]
    X = np.zeros((len(pairs), M))
    for row, (i, j) in enumerate(pairs):
        X[row, i], X[row, j] = 1, -1
    weight = np.array([w[p] for p in pairs])

    def loss(r):
        return (weight * np.logaddexp(0, -X @ r)).sum() + l2 / 2 * (r**2).sum()

    r = np.zeros(M)
    for _ in range(60):
        p = 1 / (1 + np.exp(X @ r))  # of what did not happen
        grad = -X.T @ (weight * p) + l2 * r
        step = np.linalg.solve(X.T @ (X * (weight * p * (1 - p))[:, None]) + l2 * np.eye(M), grad)
        scale = 1.0
        while scale > 1e-6 and loss(r - scale * step) > loss(r):
            scale /= 2
        r = r - scale * step
        if np.abs(step).max() < 1e-7:
            break
    return torch.from_numpy(r - r.mean())


@alternative("fit_bradley_terry", "autograd for both derivatives")
def by_autograd(wins, l2=1e-6):
    wins = wins.double()

    def gain(r):
        return (wins * torch.nn.functional.logsigmoid(r.unsqueeze(1) - r)).sum() - l2 / 2 * r.square().sum()

    r = torch.zeros(wins.shape[0], dtype=torch.float64)
    for _ in range(60):
        leaf = r.clone().requires_grad_()
        (slope,) = torch.autograd.grad(gain(leaf), leaf, create_graph=True)
        rows = [torch.autograd.grad(s, leaf, retain_graph=True)[0] for s in slope]
        step = torch.linalg.lstsq(-torch.stack(rows), slope.detach()[:, None]).solution[:, 0]
        step = step.clamp(-1, 1)
        r = (r + step).detach()
        if step.abs().max() < 1e-7:
            break
    return r


@alternative("fit_bradley_terry", "dicts of wins and lists, sorting once", replaces="leaderboard_ci")
def leaderboard_by_lists(battles, n_boot, rng):
    names = list(dict.fromkeys(name for a, b, _ in battles for name in (a, b)))
    place = {name: i for i, name in enumerate(names)}

    def fit(some):
        wins = np.zeros((len(names), len(names)))
        for a, b, score in some:
            wins[place[a], place[b]] += score
            wins[place[b], place[a]] += 1 - score
        return by_regression(torch.from_numpy(wins)).numpy()

    everything = fit(battles)
    seed = int(torch.randint(1 << 31, (1,), generator=rng))
    numpy_rng = np.random.default_rng(seed)
    boots = [fit([battles[i] for i in numpy_rng.integers(0, len(battles), len(battles))]) for _ in range(n_boot)]
    ends = np.percentile(np.array(boots), [2.5, 97.5], axis=0)
    order = np.argsort(-everything)
    return [(names[i], float(everything[i]), float(ends[0, i]), float(ends[1, i])) for i in order]


# -- bootstrap_ci, paired_difference_ci


@alternative("bootstrap_ci", "one resample at a time, multinomial draws, numpy quantiles")
def by_multinomial(x, stat, n, level, rng):
    if x.numel() == 0 or n <= 0 or level <= 0 or level >= 1:
        raise ValueError("senseless")
    values = []
    for _ in range(n):
        index = torch.multinomial(torch.ones(x.shape[0]), x.shape[0], replacement=True, generator=rng)
        values.append(float(stat(x.index_select(0, index))))
    tail = (1 - level) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


@alternative("bootstrap_ci", "uniform numbers scaled to indices, a list of the results")
def by_uniform(x, stat, n, level, rng):
    if not len(x) or n < 1 or not (0 < level < 1):
        raise ValueError("senseless")
    rows = (torch.rand(n, len(x), generator=rng, dtype=torch.float64) * len(x)).long()
    values = sorted(float(stat(x[row].clone())) for row in rows)

    def at(q):
        place = q * (n - 1)
        below = math.floor(place)
        above = min(below + 1, n - 1)
        return values[below] * (1 - (place - below)) + values[above] * (place - below)

    return [at((1 - level) / 2), at(1 - (1 - level) / 2)]


@alternative("bootstrap_ci", "the same indices for both, all resamples at once", replaces="paired_difference_ci")
def paired_at_once(a, b, n, level, rng):
    if a.shape != b.shape or not len(a) or n < 1 or not 0 < level < 1:
        raise ValueError("senseless")
    index = torch.randint(len(a), (n, len(a)), generator=rng)
    gaps = a.double()[index].mean(1) - b.double()[index].mean(1)
    return tuple(torch.quantile(gaps, q).item() for q in ((1 - level) / 2, (1 + level) / 2))


# -- ngram_overlap, contamination_report


@alternative("ngram_overlap", "words joined by spaces, and a search in padded text")
def by_substrings(test, train, n=13):
    if n <= 0:
        raise ValueError(n)

    def plain(text):
        return " ".join("".join(c if c.isalnum() else " " for c in text.lower()).split())

    words = plain(test).split()
    if not words:
        return 0.0
    size = min(len(words), n)
    grams = {" ".join(words[i : i + size]) for i in range(len(words) - size + 1)}
    padded = [f" {plain(document)} " for document in train]
    return sum(any(f" {gram} " in document for document in padded) for gram in grams) / len(grams)


@alternative("ngram_overlap", "zip of shifted lists, removing what was found")
def by_removal(test, train, n=13):
    if n < 1:
        raise ValueError("n")
    words = [w for w in re.split(r"[\W_]+", test.lower()) if w]
    size = min(n, len(words))
    if size == 0:
        return 0.0
    total = set(zip(*(words[i:] for i in range(size)), strict=False))
    left = set(total)
    for document in train:
        theirs = [w for w in re.split(r"[\W_]+", document.lower()) if w]
        left -= set(zip(*(theirs[i:] for i in range(size)), strict=False))
    return 1 - len(left) / len(total)


@alternative("ngram_overlap", "loops", replaces="contamination_report")
def report_by_loops(tests, train, n=13, threshold=0.5, canary=None):
    report = {"canary": [], "contaminated": [], "sources": [], "overlap": []}
    for i, test in enumerate(tests):
        report["overlap"].append(by_substrings(test, train, n))
        report["sources"].append([])
        for j, document in enumerate(train):
            if by_substrings(test, [document], n):
                report["sources"][i].append(j)
        if not report["overlap"][i] < threshold:
            report["contaminated"].append(i)
    if canary is not None:
        for j, document in enumerate(train):
            if document.find(canary) >= 0:
                report["canary"].append(j)
    return report


# -- exact_match, token_f1, judge_bias, sample_size


def plain_words(text):
    kept = "".join(c for c in text.lower() if c not in set(string.punctuation)).split()
    left = [w for w in kept if w != "a" and w != "an" and w != "the"]
    return left if left else kept


@alternative("exact_match", "regular expressions")
def match_by_regex(pred, gold):
    def words(text):
        text = re.sub("[" + re.escape(string.punctuation) + "]", "", text.lower())
        shorter = " ".join(re.sub(r"(?<!\S)(a|an|the)(?!\S)", " ", text).split())
        return shorter or " ".join(text.split())

    return words(pred) == words(gold)


@alternative("exact_match", "precision and recall, removing words from a list", replaces="token_f1")
def f1_by_removal(pred, golds):
    if len(golds) == 0:
        raise ValueError("no right answer")
    best = 0.0
    for gold in golds:
        p, g = plain_words(pred), plain_words(gold)
        if not p and not g:
            return 1.0
        left, shared = list(g), 0
        for word in p:
            if word in left:
                left.remove(word)
                shared += 1
        if shared:
            precision, recall = shared / len(p), shared / len(g)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


@alternative("exact_match", "counting points, one pair after the other", replaces="judge_bias")
def bias_by_points(judge, pairs):
    if not pairs:
        raise ValueError("no pairs")
    points = {"first": 0.0, "longer": 0.0, "a_wins": 0.0, "consistent": 0.0}
    unequal = 0
    for a, b in pairs:
        winners = []
        for first, second in ((a, b), (b, a)):
            verdict = judge(first, second)
            winner = {"first": first, "second": second}.get(verdict)
            is_a = {"first": (first, second) == (a, b), "second": (first, second) != (a, b)}.get(verdict)
            if a == b and verdict != "tie":
                is_a = (verdict == "first") == (not winners)
            winners.append(is_a)
            points["first"] += 0.5 if verdict == "tie" else float(verdict == "first")
            points["a_wins"] += 0.5 if is_a is None else float(is_a)
            if len(a) != len(b):
                unequal += 1
                points["longer"] += 0.5 if winner is None else float(len(winner) == max(len(a), len(b)))
        points["consistent"] += 2 * (winners[0] is winners[1])
    report = {key: value / (2 * len(pairs)) for key, value in points.items()}
    return report | {"longer": points["longer"] / unequal if unequal else None}


@alternative("exact_match", "a search upwards from a guess", replaces="sample_size")
def size_by_search(p, margin, level=0.95):
    from statistics import NormalDist

    if p < 0 or p > 1 or margin <= 0 or level <= 0 or level >= 1:
        raise ValueError("senseless")
    z = NormalDist(0, 1).inv_cdf(1 - (1 - level) / 2)
    n = max(1, int((z / margin) ** 2 * p * (1 - p)) - 2)
    while z * math.sqrt(p * (1 - p) / n) > margin:
        n += 1
    return n
