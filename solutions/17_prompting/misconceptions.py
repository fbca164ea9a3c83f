"""Wrong answers of chapter 17 that people really give, each with the sentence that sets them right."""

import math
import re
from itertools import permutations

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


# -- few_shot_prompt


def blocks_of(instruction, shots, query, fmt):
    """Head, shots and query, each as its block."""
    head = [instruction.strip()] if instruction.strip() else []
    words = fmt["labels"]
    kept = [f"{fmt['input']} {text.strip()}\n{fmt['output']} {words[label]}" for text, label in shots]
    return head, kept, f"{fmt['input']} {query.strip()}\n{fmt['output']}"


def joined(fmt, head, kept, last):
    return fmt["separator"].join([*head, *kept, last])


def refuse(prompt, max_tokens, count):
    if count(prompt) > max_tokens:
        raise ValueError("too long")
    return prompt


@misconception(
    "few_shot_prompt", "You drop the newest shots; the oldest go first, the newest stands next to the query."
)
def drops_the_newest(instruction, shots, query, fmt, max_tokens, count):
    head, kept, last = blocks_of(instruction, shots, query, fmt)
    while kept and count(joined(fmt, head, kept, last)) > max_tokens:
        kept.pop()
    return refuse(joined(fmt, head, kept, last), max_tokens, count)


@misconception("few_shot_prompt", "Your prompt ends in a space; stop right after the mark, the model writes the space.")
def ends_in_a_space(instruction, shots, query, fmt, max_tokens, count):
    return reference.few_shot_prompt(instruction, shots, query, fmt, max_tokens, count) + " "


@misconception("few_shot_prompt", "You add up the counts of the blocks; count the whole prompt, separators included.")
def adds_up_counts(instruction, shots, query, fmt, max_tokens, count):
    head, kept, last = blocks_of(instruction, shots, query, fmt)
    while kept and sum(map(count, [*head, *kept, last])) > max_tokens:
        kept.pop(0)
    return refuse(joined(fmt, head, kept, last), max_tokens, count)


@misconception("few_shot_prompt", "A prompt of exactly max_tokens tokens still fits; you allow one token less.")
def one_token_less(instruction, shots, query, fmt, max_tokens, count):
    return reference.few_shot_prompt(instruction, shots, query, fmt, max_tokens - 1, count)


@misconception("few_shot_prompt", "You skip a long shot and keep older ones; drop shots from the oldest, none between.")
def skips_long_shots(instruction, shots, query, fmt, max_tokens, count):
    head, kept, last = blocks_of(instruction, shots, query, fmt)
    chosen = []
    for shot in reversed(kept):
        if count(joined(fmt, head, [shot, *chosen], last)) <= max_tokens:
            chosen.insert(0, shot)
    return refuse(joined(fmt, head, chosen, last), max_tokens, count)


@misconception("few_shot_prompt", "You write the label itself; the shots must show the words of fmt['labels'].")
def writes_raw_labels(instruction, shots, query, fmt, max_tokens, count):
    plain = {label: str(label) for _, label in shots}
    return reference.few_shot_prompt(instruction, shots, query, {**fmt, "labels": plain}, max_tokens, count)


@misconception("few_shot_prompt", "You put the newest shot first; the shots keep their order, oldest first.")
def newest_first(instruction, shots, query, fmt, max_tokens, count):
    prompt = reference.few_shot_prompt(instruction, shots, query, fmt, max_tokens, count)
    head, kept, last = blocks_of(instruction, shots, query, fmt)
    fitting = next(k for k in range(len(kept) + 1) if joined(fmt, head, kept[k:], last) == prompt)
    return joined(fmt, head, kept[fitting:][::-1], last)


@misconception("few_shot_prompt", "You cut the text at the budget; shots go whole, and the query is never cut.")
def cuts_the_text(instruction, shots, query, fmt, max_tokens, count):
    prompt = joined(fmt, *blocks_of(instruction, shots, query, fmt))
    while count(prompt) > max_tokens:
        prompt = prompt[1:]
    return prompt


@misconception("few_shot_prompt", "You do not strip the texts: spaces around them change the separators and the end.")
def does_not_strip(instruction, shots, query, fmt, max_tokens, count):
    head = [instruction] if instruction.strip() else []
    kept = [f"{fmt['input']} {text}\n{fmt['output']} {fmt['labels'][label]}" for text, label in shots]
    last = f"{fmt['input']} {query}\n{fmt['output']}"
    while kept and count(joined(fmt, head, kept, last)) > max_tokens:
        kept.pop(0)
    return refuse(joined(fmt, head, kept, last), max_tokens, count)


# -- zero_shot_classify


def classify(logprob_fn, prompt, labels, normalize, total=sum, length=lambda y: len(y.encode()), empty=-1.0):
    """The right classifier but for the parts given."""
    if normalize not in ("none", "byte", "pmi") or not labels:
        raise ValueError("nonsense")
    scores = []
    for y in labels:
        score = total(logprob_fn(prompt, y))
        if normalize == "byte":
            score = score / length(y)
        if normalize == "pmi":
            score = score + empty * total(logprob_fn("", y))
        scores.append(score)
    return torch.tensor(scores, dtype=torch.float64)


@misconception(
    "zero_shot_classify", "You read the first token only; a label's score is the sum over all of its tokens."
)
def first_token_only(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize, total=lambda x: x[0]).softmax(0)


@misconception("zero_shot_classify", "You average over the tokens; log-probabilities of successive tokens are added.")
def averages_tokens(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize, total=lambda x: sum(x) / len(x)).softmax(0)


@misconception("zero_shot_classify", "You add probabilities of the tokens; those of successive tokens are multiplied.")
def adds_probabilities(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize, total=lambda x: math.log(sum(map(math.exp, x)))).softmax(0)


@misconception(
    "zero_shot_classify", "You divide by the number of characters; divide by the bytes of the label in UTF-8."
)
def divides_by_characters(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize, length=len).softmax(0)


@misconception(
    "zero_shot_classify", "With 'byte' you divide by the number of tokens; it is the label's bytes that count."
)
def divides_by_tokens(logprob_fn, prompt, labels, normalize="none"):
    if normalize == "byte":
        return classify(logprob_fn, prompt, labels, "none", total=lambda x: sum(x) / len(x)).softmax(0)
    return classify(logprob_fn, prompt, labels, normalize).softmax(0)


@misconception("zero_shot_classify", "With 'pmi' you add the score under the empty prompt; subtract it.")
def adds_the_empty_score(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize, empty=1.0).softmax(0)


@misconception("zero_shot_classify", "'pmi' and 'byte' have no effect; they change the scores before the softmax.")
def ignores_normalize(logprob_fn, prompt, labels, normalize="none"):
    scores = classify(logprob_fn, prompt, labels, normalize)
    return scores.softmax(0) if normalize == "none" else classify(logprob_fn, prompt, labels, "none").softmax(0)


@misconception(
    "zero_shot_classify", "You give probabilities in the whole vocabulary; make those of the labels sum to one."
)
def over_the_vocabulary(logprob_fn, prompt, labels, normalize="none"):
    return classify(logprob_fn, prompt, labels, normalize).exp()


@misconception(
    "zero_shot_classify", "exp of a low score underflows and you divide 0 by 0; take the softmax of the scores."
)
def underflows(logprob_fn, prompt, labels, normalize="none"):
    p = classify(logprob_fn, prompt, labels, normalize).exp()
    return p / p.sum()


# -- contextual_calibration


def bias_of(content_free_probs):
    """The right bias, and the right refusal."""
    q = content_free_probs.reshape(-1, content_free_probs.shape[-1])
    q = (q / q.sum(-1, keepdim=True)).mean(0)
    if not (q > 0).all():
        raise ValueError("a bias is zero")
    return q


def normalised(x):
    return x / x.sum(-1, keepdim=True)


@misconception("contextual_calibration", "You multiply by the bias, which doubles it; divide by it.")
def multiplies(probs, content_free_probs):
    return normalised(probs * bias_of(content_free_probs))


@misconception(
    "contextual_calibration", "You subtract the bias; probabilities are divided by it, then normalised again."
)
def subtracts(probs, content_free_probs):
    return normalised((normalised(probs) - bias_of(content_free_probs)).clamp(min=1e-6))


@misconception("contextual_calibration", "After the division the rows no longer sum to one; normalise them again.")
def not_normalised(probs, content_free_probs):
    return normalised(probs) / bias_of(content_free_probs)


@misconception(
    "contextual_calibration", "You divide by the mean over the queries; the bias is what content-free ones show."
)
def uses_the_batch(probs, content_free_probs):
    bias_of(content_free_probs)
    return normalised(probs / normalised(probs).reshape(-1, probs.shape[-1]).mean(0))


@misconception("contextual_calibration", "You average raw content-free rows; make each sum to one before the mean.")
def averages_raw_rows(probs, content_free_probs):
    bias_of(content_free_probs)
    return normalised(probs / content_free_probs.reshape(-1, probs.shape[-1]).mean(0))


@misconception("contextual_calibration", "You use the first content-free row only; take the mean of all of them.")
def first_row_only(probs, content_free_probs):
    rows = content_free_probs.reshape(-1, probs.shape[-1])
    bias_of(content_free_probs)
    return normalised(probs / rows[0])


@misconception("contextual_calibration", "You normalise over the whole tensor; each row sums to one by itself.")
def normalises_everything(probs, content_free_probs):
    ratio = probs / bias_of(content_free_probs)
    return ratio / ratio.sum()


@misconception("contextual_calibration", "A bias of zero gives infinity or NaN without a word; raise a ValueError.")
def divides_by_zero(probs, content_free_probs):
    q = normalised(content_free_probs.reshape(-1, probs.shape[-1])).mean(0)
    return normalised(probs / q)


# -- extract_answer

INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
NUMBER = rf"([-+]?)\$?({INTEGER}(?:\.\d+|/{INTEGER})?)"
CHOICE = r"()([A-E])(?!\w)"
CUE = r"(?i:\banswer(?:\s+is\b\s*:?|\s*:))[\s*($]*"


def find(text, pattern, cue=CUE, index=-1):
    found = re.findall(cue + pattern, text)
    return found[index][0].strip("+") + found[index][1].replace(",", "") if found else None


@misconception("extract_answer", "You stop at the comma of 1,234; commas between groups of three belong to the number.")
def stops_at_the_comma(text, kind="number"):
    simple = r"([-+]?)\$?(\d+(?:\.\d+|/\d+)?)"
    return find(text, simple) if kind == "number" else reference.extract_answer(text, kind)


@misconception("extract_answer", "You run 1,2 together into 12; a comma belongs to a number only before three digits.")
def any_comma(text, kind="number"):
    loose = r"([-+]?)\$?(\d[\d,]*(?:\.\d+|/\d[\d,]*)?)"
    return find(text, loose) if kind == "number" else reference.extract_answer(text, kind)


@misconception(
    "extract_answer", "Without a stated answer you take the last number; it may be one of the question: None."
)
def falls_back_to_the_last_number(text, kind="number"):
    answer = reference.extract_answer(text, kind)
    return find(text, NUMBER, cue="") if answer is None and kind == "number" else answer


@misconception(
    "extract_answer", "You take the first stated answer; the model may correct itself, so the last one counts."
)
def takes_the_first(text, kind="number"):
    if kind == "boxed":
        return reference.extract_answer(text, kind)
    reference.extract_answer(text, kind)
    return find(text, NUMBER if kind == "number" else CHOICE, index=0)


@misconception(
    "extract_answer", "You ignore case in the letter, so the article 'a' is choice A; only the cue ignores case."
)
def ignores_case_of_letters(text, kind="number"):
    if kind != "choice":
        return reference.extract_answer(text, kind)
    answer = find(text, r"()([A-Ea-e])(?!\w)")
    return answer and answer.upper()


@misconception("extract_answer", "You take the first letter of a word for a choice; a choice stands alone.")
def letter_of_a_word(text, kind="number"):
    return find(text, r"()([A-E])") if kind == "choice" else reference.extract_answer(text, kind)


@misconception("extract_answer", "You take any single capital of the text, as in 'A cat'; it must follow the cue.")
def any_capital(text, kind="number"):
    if kind != "choice":
        return reference.extract_answer(text, kind)
    found = re.findall(r"\b[A-E]\b", text)
    return found[-1] if found else None


@misconception(
    "extract_answer", "Your box runs to the last brace of the text; count braces and stop where they balance."
)
def greedy_box(text, kind="number"):
    if kind != "boxed":
        return reference.extract_answer(text, kind)
    found = re.findall(r".*\\boxed\{(.*)\}", text, re.DOTALL)
    return found[-1].strip() if found else None


@misconception("extract_answer", "Your box ends at the first closing brace; braces inside it must be counted.")
def shy_box(text, kind="number"):
    if kind != "boxed":
        return reference.extract_answer(text, kind)
    found = re.findall(r"\\boxed\{([^}]*)\}", text)
    return found[-1].strip() if found else None


@misconception("extract_answer", "You read the first box; it is the last complete one that counts.")
def first_box(text, kind="number"):
    if kind != "boxed" or "\\boxed{" not in text:
        return reference.extract_answer(text, kind)
    start = text.index("\\boxed{")
    following = text.find("\\boxed{", start + 1)
    return reference.extract_answer(text[:following] if following > 0 else text, kind)


@misconception("extract_answer", "You give up when the last box is not closed; an earlier complete one still counts.")
def gives_up_on_an_open_box(text, kind="number"):
    if kind == "boxed":
        return reference.extract_answer(text[text.rfind("\\boxed{") :], kind) if "\\boxed{" in text else None
    return reference.extract_answer(text, kind)


@misconception("extract_answer", "The sign is lost; a minus, also before a dollar sign, belongs to the number.")
def loses_the_sign(text, kind="number"):
    answer = reference.extract_answer(text, kind)
    return answer.lstrip("-") if answer is not None and kind == "number" else answer


@misconception(
    "extract_answer", "You read the digits before the point or the slash only; decimals and fractions go on."
)
def integers_only(text, kind="number"):
    answer = reference.extract_answer(text, kind)
    return re.split(r"[./]", answer)[0] if answer is not None and kind == "number" else answer


@misconception("extract_answer", "The cue is compared in lower case only; 'Answer:' and 'ANSWER IS' announce one, too.")
def cue_in_lower_case(text, kind="number"):
    if kind not in ("number", "choice"):
        return reference.extract_answer(text, kind)
    return find(text, NUMBER if kind == "number" else CHOICE, cue=CUE.replace("(?i:", "(?:"))


# -- self_consistency, majority_accuracy


def tally(samples, extract, weights, skip=lambda answer: answer is None):
    """Totals by answer, in order of first appearance."""
    weights = [1.0] * len(samples) if weights is None else weights
    if len(weights) != len(samples):
        raise ValueError("weights do not match")
    votes = {}
    for sample, weight in zip(samples, weights, strict=True):
        answer = extract(sample)
        if not skip(answer):
            votes[answer] = votes.get(answer, 0.0) + weight
    return votes


def verdict(votes, total=None):
    total = sum(votes.values()) if total is None else total
    if not votes or total == 0:
        return None, 0.0
    winner = max(votes, key=votes.get)
    return winner, votes[winner] / total


@misconception("self_consistency", "None takes part in the vote; an unreadable sample has no vote.")
def none_votes(samples, extract, weights=None):
    return verdict(tally(samples, extract, weights, skip=lambda answer: False))


@misconception(
    "self_consistency", "You divide by all samples; the share is that of the votes, without unreadable samples."
)
def divides_by_all_samples(samples, extract, weights=None):
    total = float(len(samples)) if weights is None else sum(weights)
    return verdict(tally(samples, extract, weights), total)


@misconception("self_consistency", "You drop answers that are falsy, such as 0 and ''; only None is no vote.")
def drops_falsy_answers(samples, extract, weights=None):
    return verdict(tally(samples, extract, weights, skip=lambda answer: not answer))


@misconception("self_consistency", "In a tie the last answer wins; it must be the one that appears first.")
def last_of_equals(samples, extract, weights=None):
    votes = tally(samples, extract, weights)
    return verdict(dict(reversed(votes.items())))


@misconception("self_consistency", "In a tie the smallest answer wins; it must be the one that appears first.")
def smallest_of_equals(samples, extract, weights=None):
    votes = tally(samples, extract, weights)
    return verdict({answer: votes[answer] for answer in sorted(votes, key=str)})


@misconception("self_consistency", "The weights have no effect; add a sample's weight to its answer, not 1.")
def ignores_weights(samples, extract, weights=None):
    tally(samples, lambda sample: None, weights)
    return verdict(tally(samples, extract, None))


@misconception("self_consistency", "You give the winner's total; divide it by the total of all votes.")
def total_instead_of_share(samples, extract, weights=None):
    return verdict(tally(samples, extract, weights), 1.0)


@misconception("self_consistency", "You take the mean weight of each answer; its weights are added up.")
def mean_weight(samples, extract, weights=None):
    votes, counts = tally(samples, extract, weights), tally(samples, extract, None)
    if weights is None:
        return verdict(votes)
    return verdict({answer: votes[answer] / counts[answer] for answer in votes})


def binomial(p, n, k):
    if not 0 <= p <= 1 or n < 1:
        raise ValueError("impossible")
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


@misconception(
    "self_consistency", "You count a tie as right; its first vote is right in half of the cases.", "majority_accuracy"
)
def ties_are_right(p, n):
    return sum(binomial(p, n, k) for k in range(-(-n // 2), n + 1)) + 0 * binomial(p, n, 0)


@misconception(
    "self_consistency", "You count a tie as wrong; its first vote is right in half of the cases.", "majority_accuracy"
)
def ties_are_wrong(p, n):
    return sum(binomial(p, n, k) for k in range(n // 2 + 1, n + 1)) + 0 * binomial(p, n, 0)


@misconception(
    "self_consistency", "The binomial coefficient is missing: k right votes come in many orders.", "majority_accuracy"
)
def no_coefficient(p, n):
    terms = [binomial(p, n, k) / math.comb(n, k) for k in range(n + 1)] if n > 0 else [binomial(p, n, 0)]
    return sum(terms[n // 2 + 1 :]) + (terms[n // 2] / 2 if n % 2 == 0 else 0.0)


@misconception(
    "self_consistency",
    "You use the bell curve; for few votes it is far off: add the binomial terms.",
    "majority_accuracy",
)
def normal_approximation(p, n):
    binomial(p, n, 0)
    sd = math.sqrt(n * p * (1 - p)) or 1e-12
    return 0.5 * math.erfc((n / 2 - n * p) / (sd * math.sqrt(2)))


@misconception(
    "self_consistency", "That is the chance that one vote at least is right; a majority is asked.", "majority_accuracy"
)
def any_vote(p, n):
    return 1 - binomial(p, n, 0)


# -- icl_linear_attention, fit_icl


def mix(xs, ys, x_query, weights=lambda scores: scores):
    scores = (xs @ x_query[..., None])[..., 0]
    return (weights(scores) * ys).sum(-1)


@misconception("icl_linear_attention", "You put the scores through a softmax; linear attention uses them as they are.")
def softmax_attention(xs, ys, x_query, eta):
    return eta * mix(xs, ys, x_query, lambda scores: scores.softmax(-1))


@misconception("icl_linear_attention", "The 1/n is missing: the loss is divided by 2n, so its gradient by n.")
def sum_over_shots(xs, ys, x_query, eta):
    return eta * mix(xs, ys, x_query)


@misconception("icl_linear_attention", "You divide by 2n; the square's derivative has cancelled the 2.")
def half_a_step(xs, ys, x_query, eta):
    return eta / (2 * xs.shape[-2]) * mix(xs, ys, x_query)


@misconception("icl_linear_attention", "You step uphill: minus the gradient at zero is plus the sum of y_i x_i.")
def uphill(xs, ys, x_query, eta):
    return -eta / xs.shape[-2] * mix(xs, ys, x_query)


@misconception("icl_linear_attention", "You scale by the root of the width; divide by the number of shots instead.")
def scales_by_the_width(xs, ys, x_query, eta):
    return eta / math.sqrt(xs.shape[-1]) * mix(xs, ys, x_query)


@misconception("icl_linear_attention", "You make the scores sum to one; they are weights as they are, of either sign.")
def normalises_scores(xs, ys, x_query, eta):
    return eta * mix(xs, ys, x_query, lambda scores: scores / scores.sum(-1, keepdim=True))


@misconception("icl_linear_attention", "You solve the least squares fully; one step from zero is asked.")
def solves_fully(xs, ys, x_query, eta):
    w = (torch.linalg.pinv(xs) @ ys[..., None])[..., 0]
    return (w * x_query).sum(-1)


def fit(model, tasks, steps, lr, reduce=torch.mean, clear=True, sign=1.0, momentum=0.0, optimizer=None):
    """Training with one thing changed."""
    xs, ys, x_query, y_query = tasks
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    curve = []
    for step in range(steps + 1):
        loss = reduce((model(xs, ys, x_query) - y_query).square())
        curve.append(loss.item())
        if step < steps:
            if clear:
                optimizer.zero_grad()
            (sign * loss).backward()
            optimizer.step()
    return curve


@misconception(
    "icl_linear_attention", "You never clear the gradients, so they pile up; zero them before each step.", "fit_icl"
)
def piles_up_gradients(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr, clear=False)


@misconception("icl_linear_attention", "Your loss is the sum over the tasks; it must be their mean.", "fit_icl")
def sums_the_loss(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr, reduce=torch.sum)


@misconception("icl_linear_attention", "Your loss is half the mean square; leave the half out.", "fit_icl")
def halves_the_loss(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr, reduce=lambda x: x.mean() / 2)


@misconception(
    "icl_linear_attention", "The loss after the last step is missing; steps steps have steps + 1 losses.", "fit_icl"
)
def forgets_the_last_loss(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr)[:-1]


@misconception(
    "icl_linear_attention", "The loss before the first step is missing; the curve begins with it.", "fit_icl"
)
def forgets_the_first_loss(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr)[1:]


@misconception(
    "icl_linear_attention", "Your optimiser has momentum or scales the steps; use plain gradient descent.", "fit_icl"
)
def uses_adam(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr, optimizer=torch.optim.Adam(model.parameters(), lr=lr))


@misconception(
    "icl_linear_attention", "You follow the gradient uphill; a step is minus lr times the gradient.", "fit_icl"
)
def climbs(model, tasks, steps, lr):
    return fit(model, tasks, steps, lr, sign=-1.0)


# -- prompt_sensitivity, order_sensitivity


def described(scores, ddof=1):
    n = len(scores)
    mean = sum(scores) / n
    variance = sum((s - mean) ** 2 for s in scores) / (n - ddof) if n > ddof else 0.0
    low, high = float(min(scores)), float(max(scores))
    return {"mean": mean, "std": math.sqrt(variance), "min": low, "max": high, "spread": high - low}


def scores_of(score_fn, templates, data):
    if not templates or not data:
        raise ValueError("nothing to score")
    return [sum(score_fn(template, item) for item in data) / len(data) for template in templates]


@misconception("prompt_sensitivity", "You divide the variance by n; templates are a sample, so divide by n - 1.")
def population_variance(score_fn, templates, data):
    return described(scores_of(score_fn, templates, data), ddof=0)


@misconception("prompt_sensitivity", "A single template has no n - 1 to divide by; its standard deviation is 0.")
def nan_for_one(score_fn, templates, data):
    result = described(scores_of(score_fn, templates, data))
    return {**result, "std": math.nan} if len(templates) == 1 else result


@misconception("prompt_sensitivity", "You pool all single scores; first average over the data, then compare templates.")
def pools_all_scores(score_fn, templates, data):
    scores_of(lambda template, item: 0.0, templates, data)
    return described([float(score_fn(template, item)) for template in templates for item in data])


@misconception("prompt_sensitivity", "You score each template on the first item only; average over all the data.")
def first_item_only(score_fn, templates, data):
    return described(scores_of(score_fn, templates, data[:1]))


@misconception("prompt_sensitivity", "Rows and columns are exchanged: one score a template, the mean over its items.")
def scores_items(score_fn, templates, data):
    return described(scores_of(lambda item, template: score_fn(template, item), data, templates))


@misconception("prompt_sensitivity", "The spread is the largest score minus the smallest, not the standard deviation.")
def spread_is_std(score_fn, templates, data):
    result = described(scores_of(score_fn, templates, data))
    return {**result, "spread": result["std"]}


@misconception("prompt_sensitivity", "You sum over the data; the score of a template is its mean.")
def sums_over_data(score_fn, templates, data):
    return described([len(data) * score for score in scores_of(score_fn, templates, data)])


def ordered(score_fn, orders, max_perm):
    if max_perm < 1:
        raise ValueError("no order")
    return described([score_fn(list(order)) for order in orders])


@misconception(
    "prompt_sensitivity",
    "You score the first max_perm orders, which all begin alike; spread them.",
    "order_sensitivity",
)
def first_orders_only(score_fn, shots, max_perm):
    return ordered(score_fn, list(permutations(shots))[: max(max_perm, 0)], max_perm)


@misconception(
    "prompt_sensitivity", "max_perm has no effect; score no more orders than it allows.", "order_sensitivity"
)
def scores_all_orders(score_fn, shots, max_perm):
    return ordered(score_fn, list(permutations(shots)), max_perm)


@misconception(
    "prompt_sensitivity",
    "Your step between orders is rounded down, so you never reach the late ones.",
    "order_sensitivity",
)
def constant_step(score_fn, shots, max_perm):
    orders = list(permutations(shots))
    step = max(len(orders) // max(max_perm, 1), 1)
    return ordered(score_fn, orders[::step][: max(max_perm, 0)], max_perm)


@misconception(
    "prompt_sensitivity",
    "Equal orders are scored once; orders are of positions, so equal shots count apart.",
    "order_sensitivity",
)
def distinct_orders(score_fn, shots, max_perm):
    orders = list(dict.fromkeys(permutations(shots)))
    m = min(len(orders), max(max_perm, 1))
    return ordered(score_fn, [orders[i * len(orders) // m] for i in range(m)], max_perm)


@misconception(
    "prompt_sensitivity", "You score rotations only; every order of the shots is asked for.", "order_sensitivity"
)
def rotations_only(score_fn, shots, max_perm):
    turns = [tuple(shots[i:]) + tuple(shots[:i]) for i in range(max(len(shots), 1))]
    return ordered(score_fn, turns[: max(max_perm, 0)], max_perm)
