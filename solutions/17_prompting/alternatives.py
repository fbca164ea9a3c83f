"""Right answers of chapter 17 written in other styles; a suite that fails one of them is wrong."""

import collections
import functools
import itertools
import math
import re
import statistics

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- few_shot_prompt


@alternative("few_shot_prompt", "from the query backwards, one more shot as long as it fits")
def prompt_backwards(instruction, shots, query, fmt, max_tokens, count):
    head = instruction.strip()
    head = head + fmt["separator"] if head else ""
    tail = fmt["input"] + " " + query.strip() + "\n" + fmt["output"]
    if count(head + tail) > max_tokens:
        raise ValueError("does not fit")
    for text, label in reversed(list(shots)):
        longer = f"{fmt['input']} {text.strip()}\n{fmt['output']} {fmt['labels'][label]}{fmt['separator']}{tail}"
        if count(head + longer) > max_tokens:
            break
        tail = longer
    return head + tail


@alternative("few_shot_prompt", "recursive: too long means the same without the first shot")
def prompt_by_recursion(instruction, shots, query, fmt, max_tokens, count):
    parts = [] if not instruction.strip() else [instruction.strip()]
    for text, label in [*shots, (query, None)]:
        parts.append("\n".join([" ".join([fmt["input"], text.strip()]), fmt["output"]]))
        if len(parts) < len(shots) + 1 + bool(instruction.strip()):
            parts[-1] += " " + fmt["labels"][label]
    prompt = fmt["separator"].join(parts)
    if count(prompt) <= max_tokens:
        return prompt
    if not shots:
        raise ValueError("even the query alone is too long")
    return prompt_by_recursion(instruction, shots[1:], query, fmt, max_tokens, count)


@alternative("few_shot_prompt", "bisection for the number of dropped shots")
def prompt_by_bisection(instruction, shots, query, fmt, max_tokens, count):
    def build(k):
        lines = [f"{fmt['input']} {x.strip()}\n{fmt['output']} {fmt['labels'][y]}" for x, y in shots[k:]]
        lines.append(f"{fmt['input']} {query.strip()}\n{fmt['output']}")
        return fmt["separator"].join(([instruction.strip()] if instruction.strip() else []) + lines)

    low, high = 0, len(shots)
    if count(build(high)) > max_tokens:
        raise ValueError("too long")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(build(middle)) <= max_tokens else (middle + 1, high)
    return build(low)


# -- zero_shot_classify


@alternative("zero_shot_classify", "numpy, the largest score subtracted by hand")
def classify_by_numpy(logprob_fn, prompt, labels, normalize="none"):
    if not labels:
        raise ValueError("no labels")
    scores = np.array([math.fsum(logprob_fn(prompt, label)) for label in labels])
    match normalize:
        case "none":
            pass
        case "byte":
            scores = scores / np.array([len(bytes(label, "utf8")) for label in labels])
        case "pmi":
            scores = scores - np.array([math.fsum(logprob_fn("", label)) for label in labels])
        case _:
            raise ValueError(normalize)
    weights = np.exp(scores - scores.max())
    return torch.from_numpy(weights / weights.sum())


@alternative("zero_shot_classify", "a tensor for each label, and logsumexp")
def classify_by_logsumexp(logprob_fn, prompt, labels, normalize="none"):
    if normalize not in {"none", "byte", "pmi"}:
        raise ValueError("unknown normalisation")
    if len(labels) < 1:
        raise ValueError("no labels")

    def total(p, y):
        return torch.tensor(logprob_fn(p, y), dtype=torch.double).sum()

    scores = torch.stack([total(prompt, y) for y in labels])
    if normalize == "byte":
        scores /= torch.tensor([len(y.encode()) for y in labels])
    if normalize == "pmi":
        scores -= torch.stack([total("", y) for y in labels])
    return (scores - scores.logsumexp(0)).exp()


# -- contextual_calibration


@alternative("contextual_calibration", "the difference of logarithms, through a softmax, in float64")
def calibrated_in_logs(probs, content_free_probs):
    q = torch.atleast_2d(content_free_probs).double()
    q = (q / q.sum(1, keepdim=True)).mean(0)
    if (q <= 0).any():
        raise ValueError("zero bias")
    return torch.softmax(probs.double().log() - q.log(), dim=-1).to(probs.dtype)


@alternative("contextual_calibration", "loops over plain numbers")
def calibrated_by_loops(probs, content_free_probs):
    K = probs.shape[-1]
    free = content_free_probs.reshape(-1, K).tolist()
    bias = [sum(row[k] / sum(row) for row in free) / len(free) for k in range(K)]
    if min(bias) <= 0:
        raise ValueError("zero bias")
    out = []
    for row in probs.reshape(-1, K).tolist():
        ratio = [x / b for x, b in zip(row, bias, strict=True)]
        out.append([r / sum(ratio) for r in ratio])
    return torch.tensor(out, dtype=probs.dtype).reshape(probs.shape)


@alternative("contextual_calibration", "the diagonal matrix W = diag(q)^-1, as in the paper")
def calibrated_by_matrix(probs, content_free_probs):
    q = content_free_probs if content_free_probs.ndim == 2 else content_free_probs.unsqueeze(0)
    q = torch.nn.functional.normalize(q, p=1, dim=1, eps=0.0).mean(dim=0)
    if bool((q == 0).any()):
        raise ValueError("zero bias")
    return torch.nn.functional.normalize(probs @ torch.diag(1 / q), p=1, dim=-1, eps=0.0)


# -- extract_answer


@alternative("extract_answer", "cut at each cue, look at what follows by hand")
def extract_by_cutting(text, kind="number"):
    if kind == "boxed":
        return box_by_stack(text)
    if kind not in ("number", "choice"):
        raise ValueError(kind)
    answer = None
    for cue in re.finditer(r"\banswer\b", text, re.IGNORECASE):
        rest = text[cue.end() :]
        said = re.match(r"\s+is\b", rest, re.IGNORECASE)
        rest = rest[said.end() :] if said else rest
        colon = re.match(r"\s*:", rest)
        if not said and not colon:
            continue
        rest = rest[colon.end() :] if colon else rest
        while rest and (rest[0].isspace() or rest[0] in "*($"):
            rest = rest[1:]
        found = number_by_hand(rest) if kind == "number" else letter_by_hand(rest)
        answer = answer if found is None else found
    return answer


def letter_by_hand(rest):
    if rest[:1] in tuple("ABCDE") and not rest[1:2].isalnum():
        return rest[0]
    return None


def whole_by_hand(rest):
    """Digits with commas in groups of three: the digits, and what is left."""
    digits = "".join(itertools.takewhile(str.isdigit, rest))
    rest = rest[len(digits) :]
    if 1 <= len(digits) <= 3:
        while re.match(r",\d\d\d(?!\d)", rest):
            digits, rest = digits + rest[1:4], rest[4:]
    return digits, rest


def number_by_hand(rest):
    sign = rest[0] if rest[:1] in ("-", "+") else ""
    rest = rest[len(sign) :]
    digits, rest = whole_by_hand(rest[1:] if rest[:1] == "$" else rest)
    if not digits:
        return None
    if rest[:1] == "." and rest[1:2].isdigit():
        digits += "." + "".join(itertools.takewhile(str.isdigit, rest[1:]))
    elif rest[:1] == "/" and rest[1:2].isdigit():
        digits += "/" + whole_by_hand(rest[1:])[0]
    return ("-" if sign == "-" else "") + digits


def box_by_stack(text):
    """One pass with a stack of open braces; of the boxes that close, the one that opened last."""
    stack, best = [], None
    for i, c in enumerate(text):
        if c == "{":
            stack.append(i)
        elif c == "}" and stack:
            start = stack.pop()
            if text[:start].endswith("\\boxed") and (best is None or start > best[0]):
                best = (start, text[start + 1 : i].strip())
    return best[1] if best else None


@alternative("extract_answer", "one compiled pattern a kind, named groups, a recursive box")
def extract_by_named_groups(text, kind="number"):
    whole = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
    lead = r"\b[Aa][Nn][Ss][Ww][Ee][Rr](?:\s+[Ii][Ss]\b(?:\s*:)?|\s*:)[\s(*$]*"
    if kind == "number":
        pattern = re.compile(lead + rf"(?P<minus>-?)\+?\$?(?P<value>{whole}(?:\.[0-9]+|/{whole})?)")
    elif kind == "choice":
        pattern = re.compile(lead + r"(?P<minus>)(?P<value>[ABCDE])(?![A-Za-z0-9])")
    elif kind == "boxed":
        return extract_box_recursively(text)
    else:
        raise ValueError("kind must be number, choice or boxed")
    last = collections.deque(pattern.finditer(text), maxlen=1)
    return last[0]["minus"] + last[0]["value"].replace(",", "") if last else None


def extract_box_recursively(text):
    before, found, after = text.rpartition("\\boxed{")
    if not found:
        return None
    depths = itertools.accumulate(((c == "{") - (c == "}") for c in after), initial=1)
    for i, depth in enumerate(depths):
        if depth == 0:
            return after[: i - 1].strip()
    return extract_box_recursively(before)


# -- self_consistency, majority_accuracy


@alternative("self_consistency", "Counter.most_common, with weights by repeated update")
def vote_by_counter(samples, extract, weights=None):
    if weights is not None and len(weights) != len(samples):
        raise ValueError("weights")
    tally = collections.Counter()
    for i, sample in enumerate(samples):
        answer = extract(sample)
        if answer is None:
            continue
        tally[answer] += 1.0 if weights is None else weights[i]
    total = sum(tally.values())
    if not total:
        return (None, 0.0)
    ((winner, votes),) = tally.most_common(1)
    return (winner, votes / total)


@alternative("self_consistency", "two lists, answers compared by ==, no hashing")
def vote_by_lists(samples, extract, weights=None):
    weights = weights if weights is not None else [1] * len(samples)
    if len(samples) != len(weights):
        raise ValueError("weights")
    pairs = [(extract(s), w) for s, w in zip(samples, weights, strict=True)]
    pairs = [(a, w) for a, w in pairs if a is not None]
    best, best_weight, total = None, -1.0, sum(w for _, w in pairs)
    for answer, _ in pairs:
        weight = sum(w for a, w in pairs if a == answer)
        if weight > best_weight:
            best, best_weight = answer, weight
    return (best, float(best_weight / total)) if total > 0 else (None, 0.0)


@alternative("self_consistency", "logarithms of the gamma function", replaces="majority_accuracy")
def majority_by_lgamma(p, n):
    if p < 0 or p > 1 or n <= 0:
        raise ValueError("no such vote")
    if p in (0, 1):
        return float(p)
    n = n - 1 if n % 2 == 0 else n  # a tie decided by the first vote: the last vote does not matter
    total = 0.0
    for k in range((n + 1) // 2, n + 1):
        log_term = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        total += math.exp(log_term + k * math.log(p) + (n - k) * math.log(1 - p))
    return total


@alternative("self_consistency", "one vote after the other, the distribution as an array", replaces="majority_accuracy")
def majority_by_convolution(p, n):
    if not (0.0 <= p <= 1.0 and n >= 1):
        raise ValueError("no such vote")
    right = np.ones(1)
    for _ in range(n):
        right = np.convolve(right, [1 - p, p])
    weight = np.where(2 * np.arange(n + 1) > n, 1.0, np.where(2 * np.arange(n + 1) == n, 0.5, 0.0))
    return float(right @ weight)


# -- icl_linear_attention, fit_icl


@alternative("icl_linear_attention", "the weight vector first, by einsum")
def attention_by_weights(xs, ys, x_query, eta):
    w = eta * torch.einsum("...n,...nd->...d", ys, xs) / ys.shape[-1]
    return torch.einsum("...d,...d->...", w, x_query)


@alternative("icl_linear_attention", "loops over tasks and shots, in float64")
def attention_by_loops(xs, ys, x_query, eta):
    n, d = xs.shape[-2:]
    predictions = []
    for x, y, q in zip(xs.reshape(-1, n, d), ys.reshape(-1, n), x_query.reshape(-1, d), strict=True):
        predictions.append(sum(y[i].item() * torch.dot(x[i].double(), q.double()).item() for i in range(n)))
    return (eta / n * torch.tensor(predictions, dtype=torch.float64)).to(xs.dtype).reshape(ys.shape[:-1])


@alternative("icl_linear_attention", "the gradient step itself, by autograd")
def attention_by_autograd(xs, ys, x_query, eta):
    with torch.enable_grad():
        w = torch.zeros_like(x_query, requires_grad=True)
        loss = ((xs @ w[..., None])[..., 0] - ys).square().sum() / (2 * xs.shape[-2])
        (gradient,) = torch.autograd.grad(loss, w)
    return ((w.detach() - eta * gradient) * x_query).sum(-1)


@alternative("icl_linear_attention", "torch.optim.SGD", replaces="fit_icl")
def fit_by_optimizer(model, tasks, steps, lr):
    *shots, y = tasks
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = [torch.nn.functional.mse_loss(model(*shots), y)]
    for _ in range(steps):
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
        losses.append(torch.nn.functional.mse_loss(model(*shots), y))
    return [float(loss.detach()) for loss in losses]


@alternative("icl_linear_attention", "backward, then p.data", replaces="fit_icl")
def fit_by_data(model, tasks, steps, lr):
    xs, ys, x_query, y_query = tasks
    curve = []
    for _ in range(steps):
        model.zero_grad()
        loss = ((y_query - model(xs, ys, x_query)) ** 2).sum() / len(y_query)
        loss.backward()
        curve.append(float(loss.detach()))
        for p in model.parameters():
            if p.grad is not None:
                p.data -= lr * p.grad
    with torch.no_grad():
        curve.append(((y_query - model(xs, ys, x_query)) ** 2).mean().item())
    return curve


# -- prompt_sensitivity, order_sensitivity


@alternative("prompt_sensitivity", "the statistics module")
def sensitivity_by_statistics(score_fn, templates, data):
    if not templates or not data:
        raise ValueError("nothing to score")
    scores = [statistics.fmean([score_fn(t, item) for item in data]) for t in templates]
    std = statistics.stdev(scores) if len(scores) > 1 else 0.0
    summary = {"spread": max(scores) - min(scores), "max": max(scores), "min": min(scores)}
    return summary | {"std": std, "mean": statistics.fmean(scores)}


@alternative("prompt_sensitivity", "a numpy table filled item by item")
def sensitivity_by_numpy(score_fn, templates, data):
    if len(templates) * len(data) == 0:
        raise ValueError("nothing to score")
    table = np.zeros((len(templates), len(data)))
    for j, i in itertools.product(range(len(data)), range(len(templates))):
        table[i, j] = score_fn(templates[i], data[j])
    s = table.mean(axis=1)
    return {
        "mean": float(s.mean()),
        "std": float(s.std(ddof=1)) if len(s) > 1 else 0.0,
        "min": float(s.min()),
        "max": float(s.max()),
        "spread": float(np.ptp(s)),
    }


def nth_order(items, number):
    """The permutation with a given number, by the factorial number system."""
    left, order = list(items), []
    for k in range(len(left) - 1, -1, -1):
        place, number = divmod(number, math.factorial(k))
        order.append(left.pop(place))
    return order


@alternative("prompt_sensitivity", "orders by their number, none listed", replaces="order_sensitivity")
def orders_by_number(score_fn, shots, max_perm):
    if max_perm <= 0:
        raise ValueError("max_perm")
    N = math.factorial(len(shots))
    m = N if max_perm >= N else max_perm
    scores = np.array([score_fn(nth_order(shots, i * N // m)) for i in range(m)], dtype=float)
    low, high = scores.min(), scores.max()
    std = float(scores.std(ddof=1)) if m > 1 else 0.0
    values = (float(scores.mean()), std, float(low), float(high), float(high - low))
    return dict(zip(("mean", "std", "min", "max", "spread"), values, strict=True))


@alternative("prompt_sensitivity", "a set of wanted numbers while enumerating", replaces="order_sensitivity")
def orders_by_enumeration(score_fn, shots, max_perm):
    if max_perm < 1:
        raise ValueError("max_perm")
    N = functools.reduce(lambda a, b: a * b, range(1, len(shots) + 1), 1)
    wanted = set(range(N)) if max_perm >= N else {i * N // max_perm for i in range(max_perm)}
    scores = [float(score_fn(list(o))) for i, o in enumerate(itertools.permutations(shots)) if i in wanted]
    mean = math.fsum(scores) / len(scores)
    std = math.sqrt(math.fsum((s - mean) ** 2 for s in scores) / (len(scores) - 1)) if len(scores) > 1 else 0.0
    low, high = min(scores), max(scores)
    return {"mean": mean, "std": std, "min": low, "max": high, "spread": high - low}
