"""Wrong answers of chapter 21, each with the sentence that sets it right."""

import itertools
import math
import re
from fractions import Fraction

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- split_thinking, strip_history


def split(text, body=r"(.*?)", close=r"(?:</think>|\Z)", fence=r"^```.*?(?:^```|\Z)|", join="\n", strip=True, count=0):
    """Part a text; each misconception changes one thing."""
    blocks = []

    def take(match):
        if match[1] is None:
            return match[0]
        blocks.append(match[1].strip() if strip else match[1])
        return ""

    answer = re.sub(f"{fence}<think>{body}{close}", take, text, count=count, flags=re.DOTALL | re.MULTILINE)
    return join.join(block for block in blocks if block), answer.strip() if strip else answer


@misconception("split_thinking", "You search to the last closing tag, which swallows the answer between two blocks.")
def greedy_across_blocks(text):
    return split(text, body=r"(.*)", close=r"</think>") if "</think>" in text else split(text)


@misconception("split_thinking", "Without a closing tag you take it all for the answer; it was all still thinking.")
def unclosed_is_the_answer(text):
    return split(text, close=r"</think>")


@misconception("split_thinking", "Tags in a code fence of the answer are taken for real ones; leave them in place.")
def no_fences(text):
    blocks = [block.strip() for block in re.findall(r"<think>(.*?)(?:</think>|\Z)", text, flags=re.DOTALL)]
    answer = re.sub(r"<think>.*?(?:</think>|\Z)", "", text, flags=re.DOTALL)
    return "\n".join(block for block in blocks if block), answer.strip()


@misconception(
    "split_thinking", "Only the first block is taken out; a reply may think again after it has begun to answer."
)
def first_block_only(text):
    head, tag, tail = text.partition("<think>")
    thinking, _, rest = tail.partition("</think>")
    return thinking.strip(), (head + rest).strip()


@misconception("split_thinking", "Everything behind the last closing tag is your answer; what was said before is lost.")
def answer_is_the_tail(text):
    thinking, answer = split(text)
    if thinking and "</think>" in text:
        answer = text.rpartition("</think>")[2].strip()
    return thinking, answer


@misconception("split_thinking", "Whitespace around thinking and answer stays; strip it at both ends.")
def whitespace_stays(text):
    return split(text, strip=False)


@misconception("split_thinking", "A fence inside the thinking hides the closing tag from you; a block knows no fences.")
def fences_inside_blocks(text):
    return split(text, body=r"((?:(?!^```).|^```.*?(?:^```|\Z))*?)")


@misconception("split_thinking", "Blocks are joined without a newline, so the last word of one runs into the next.")
def blocks_run_together(text):
    return split(text, join="")


@misconception(
    "split_thinking",
    "You strip the user's messages too; tags that a person wrote belong there.",
    replaces="strip_history",
)
def strips_everybody(messages):
    return [{**message, "content": reference.split_thinking(message["content"])[1]} for message in messages]


@misconception("split_thinking", "You keep the thinking and drop the answer.", replaces="strip_history")
def keeps_the_thinking(messages):
    part = reference.split_thinking
    return [{**m, "content": part(m["content"])[0]} if m["role"] == "assistant" else dict(m) for m in messages]


@misconception(
    "split_thinking", "Other keys of a message are lost; copy the whole message first.", replaces="strip_history"
)
def other_keys_lost(messages):
    part = reference.split_thinking
    return [
        {"role": m["role"], "content": part(m["content"])[1] if m["role"] == "assistant" else m["content"]}
        for m in messages
    ]


@misconception(
    "split_thinking", "A turn that was all thinking disappears; keep it with an empty answer.", replaces="strip_history"
)
def drops_empty_turns(messages):
    return [message for message in reference.strip_history(messages) if message["content"]]


@misconception(
    "split_thinking",
    "You change the caller's messages; build new dicts and leave the conversation.",
    replaces="strip_history",
)
def changes_the_conversation(messages):
    for message in messages:
        if message["role"] == "assistant":
            message["content"] = reference.split_thinking(message["content"])[1]
    return messages


# -- budget_forced_generate


def force(model, ids, low, high, end, wait, **changes):
    """The right loop but for the named changes."""
    if low > high or not wait:
        raise ValueError("budget")
    prompt, thinking, answer = list(ids), [], []
    before = len(prompt) if changes.get("count") == "prompt" else 0
    free = 0  # tokens that are not counted
    while before + len(thinking) - free < high + changes.get("late", 0):
        token = model(prompt + thinking)
        if token != end:
            thinking.append(token)
        elif before + len(thinking) - free >= low + changes.get("more", 0) and not changes.get("never"):
            break
        else:
            new = list(wait)[: changes.get("first")]
            if changes.get("both"):
                new = [*new, end]
            if changes.get("count") == "no waits":
                free += len(new)
            thinking += [] if changes.get("drop") else new
    if not changes.get("overshoot"):
        thinking = thinking[: high - before + free + changes.get("late", 0)]
    thinking.append(end)
    while (token := model(prompt + thinking + answer)) is not None:
        if changes.get("answer") and token == end:
            token = wait[0]
        answer.append(token)
    return thinking + answer


@misconception("budget_forced_generate", "The end is never let through before the maximum; after min_think it must be.")
def never_ends_by_itself(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, never=True)


@misconception("budget_forced_generate", "The end is forced one token late; max_think tokens are the most.")
def one_token_late(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, late=1)


@misconception("budget_forced_generate", "You write the wait and the end as well; the wait stands in place of the end.")
def wait_and_end(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, both=True)


@misconception("budget_forced_generate", "The tokens of the prompt are counted; only thinking tokens fill the budget.")
def counts_the_prompt(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, count="prompt")


@misconception("budget_forced_generate", "The tokens of the wait are not counted; they are thinking like any other.")
def waits_are_free(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, count="no waits")


@misconception("budget_forced_generate", "With exactly min_think tokens you still refuse the end; at least means >=.")
def minimum_is_not_enough(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, more=1)


@misconception("budget_forced_generate", "Only the first token of wait_ids is written; write all of them.")
def first_wait_token_only(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, first=1)


@misconception("budget_forced_generate", "A long wait goes over the maximum; write only the tokens that fit.")
def wait_overshoots(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, overshoot=True)


@misconception("budget_forced_generate", "Ends are replaced in the answer too; after the thinking nothing is forced.")
def answer_is_forced_too(model, ids, min_think, max_think, end_id, wait_ids):
    return force(model, ids, min_think, max_think, end_id, wait_ids, answer=True)


@misconception("budget_forced_generate", "At the maximum the model is asked and its reply thrown away; do not ask.")
def asks_in_vain(model, ids, min_think, max_think, end_id, wait_ids):
    if max_think < min_think or not wait_ids:
        raise ValueError("budget")
    prompt, thinking = list(ids), []
    while True:
        token = model(prompt + thinking)
        if len(thinking) >= max_think or (token == end_id and len(thinking) >= min_think):
            break
        thinking += [token] if token != end_id else list(wait_ids)[: max_think - len(thinking)]
    new = [*thinking, end_id]
    while (token := model(prompt + new)) is not None:
        new.append(token)
    return new


# -- best_of_n, expected_best_of_n


@misconception("best_of_n", "Of equal scores you take the last; the first one wins.")
def last_of_equals(samples, score):
    return reference.best_of_n(list(samples)[::-1], score)


@misconception("best_of_n", "You give back the score; the sample itself is wanted.")
def gives_the_score(samples, score):
    if not samples:
        raise ValueError("no sample")
    return max(map(score, samples))


@misconception("best_of_n", "You give back the place in the list; the sample itself is wanted.")
def gives_the_place(samples, score):
    if not samples:
        raise ValueError("no sample")
    scores = [score(sample) for sample in samples]
    return scores.index(max(scores))


@misconception("best_of_n", "Scores are compared with zero at the start, so a list of bad samples has no best one.")
def starts_at_zero(samples, score):
    if not samples:
        raise ValueError("no sample")
    best, top = None, 0.0
    for sample in samples:
        worth = score(sample)
        if worth > top:
            best, top = sample, worth
    return best


@misconception("best_of_n", "The lowest score wins with you; a score is the higher the better.")
def lowest_score(samples, score):
    return reference.best_of_n(samples, lambda sample: -score(sample))


@misconception("best_of_n", "Each sample is scored twice; a judge is expensive, so call it once and remember.")
def scores_twice(samples, score):
    if not samples:
        raise ValueError("no sample")
    return next(sample for sample in samples if score(sample) == max(map(score, samples)))


def estimate(scores, n, weight):
    """The sum of sorted scores with given weights (i from 0, m, n)."""
    ordered = sorted(float(s) for s in scores)
    if not 1 <= n <= len(ordered):
        raise ValueError("n")
    return sum(weight(i, len(ordered), n) * s for i, s in enumerate(ordered))


@misconception(
    "best_of_n",
    "You draw with replacement, which is too low: a sample can be drawn twice.",
    replaces="expected_best_of_n",
)
def with_replacement(scores, n):
    return estimate(scores, n, lambda i, m, n: ((i + 1) / m) ** n - (i / m) ** n)


@misconception(
    "best_of_n",
    "You take the largest mean of a block; wanted is the mean of the largest.",
    replaces="expected_best_of_n",
)
def max_of_means(scores, n):
    values = [float(s) for s in scores]
    if not 1 <= n <= len(values):
        raise ValueError("n")
    return max(sum(values[i : i + n]) / n for i in range(0, len(values) - n + 1, n))


@misconception(
    "best_of_n",
    "You cut the list into blocks and average their best: it depends on the order.",
    replaces="expected_best_of_n",
)
def mean_over_blocks(scores, n):
    values = [float(s) for s in scores]
    if not 1 <= n <= len(values):
        raise ValueError("n")
    blocks = [values[i : i + n] for i in range(0, len(values) - n + 1, n)]
    return sum(map(max, blocks)) / len(blocks)


@misconception(
    "best_of_n", "Only the first n scores are used; all m of them tell something.", replaces="expected_best_of_n"
)
def first_n_only(scores, n):
    if not 1 <= n <= len(scores):
        raise ValueError("n")
    return max(float(s) for s in list(scores)[:n])


@misconception(
    "best_of_n", "Equal scores are merged into one; each is a sample of its own.", replaces="expected_best_of_n"
)
def merges_equal_scores(scores, n):
    if not 1 <= n <= len(scores):
        raise ValueError("n")
    kept = sorted({float(s) for s in scores})
    return estimate(kept, min(n, len(kept)), lambda i, m, n: math.comb(i, n - 1) / math.comb(m, n))


@misconception(
    "best_of_n",
    "The companions are chosen from one place too many: i, not i + 1, scores lie below.",
    "expected_best_of_n",
)
def off_by_one(scores, n):
    return estimate(scores, n, lambda i, m, n: math.comb(i + 1, n) / math.comb(m + 1, n + 1))


@misconception(
    "best_of_n", "The scores are not sorted, so the counts meet the wrong ones.", replaces="expected_best_of_n"
)
def unsorted_scores(scores, n):
    values = [float(s) for s in scores]
    m = len(values)
    if not 1 <= n <= m:
        raise ValueError("n")
    return sum(math.comb(i, n - 1) / math.comb(m, n) * values[i] for i in range(m))


@misconception(
    "best_of_n",
    "More samples than there are is no number you can estimate; raise ValueError.",
    replaces="expected_best_of_n",
)
def clips_n(scores, n):
    return reference.expected_best_of_n(scores, max(1, min(n, len(scores)))) if len(scores) else 0.0


# -- verify_math, weighted_vote


def read(text, units=True, percent=True, commas=True, rest="text", make=Fraction):
    """Read a text as (kind, value); each misconception changes one thing."""
    plain = " ".join(text.split()).lower()
    whole = r"(?:\d{1,3}(?:,\d{3})+|\d+)" if commas else r"\d+"
    form = rf"([+-]?)\s*({whole}\s*/\s*{whole}|{whole}?\.\d+|{whole})\s*(%|mm|cm|m|km|g|kg|s|min|h)?"
    match = re.fullmatch(form, text.strip(), flags=re.ASCII)
    if match is None:
        return plain
    sign, number, unit = match.groups()
    top, _, bottom = re.sub(r"[\s,]", "", number).partition("/")
    if bottom and int(bottom) == 0:
        return plain
    kind, factor = {**UNITS, "%": ("", Fraction(1, 100) if percent else 1), None: ("", 1)}[unit]
    return kind if units else "", make(sign + top) / make(bottom or 1) * make(factor)


UNITS = {"mm": ("length", Fraction(1, 1000)), "cm": ("length", Fraction(1, 100)), "m": ("length", 1)}
UNITS |= {"km": ("length", 1000), "g": ("mass", 1), "kg": ("mass", 1000)}
UNITS |= {"s": ("time", 1), "min": ("time", 60), "h": ("time", 3600)}


@misconception("verify_math", "You compare the texts; 1/2 and 0.5 are written differently and mean the same.")
def string_equality(pred, gold):
    return pred.strip() == gold.strip()


@misconception("verify_math", "A tolerance of a hundredth lets wrong answers through; compare exactly.")
def tolerance_of_a_hundredth(pred, gold):
    one, two = read(pred), read(gold)
    if isinstance(one, str) or isinstance(two, str):
        return one == two
    return one[0] == two[0] and abs(one[1] - two[1]) <= 0.01


@misconception("verify_math", "It is enough for you that one text occurs in the other, so 12 passes for 112.")
def substring(pred, gold):
    return read(pred) == read(gold) or pred.strip() in gold or gold.strip() in pred


@misconception("verify_math", "Floats cannot say that 1.1 km is 1,100 m; compute with fractions of whole numbers.")
def floats(pred, gold):
    return read(pred, make=float) == read(gold, make=float)


@misconception("verify_math", "The percent sign is thrown away; x % is x / 100.")
def percent_ignored(pred, gold):
    return read(pred, percent=False) == read(gold, percent=False)


@misconception("verify_math", "The kind of unit is not compared; 5 is not 5 m, and metres are not seconds.")
def kinds_mixed(pred, gold):
    return read(pred, units=False) == read(gold, units=False)


@misconception("verify_math", "Units are dropped without converting, so 5 m passes for 5 km.")
def units_dropped(pred, gold):
    def bare(text):
        match = re.fullmatch(r"(.*\d)\s*(?:mm|cm|m|km|g|kg|s|min|h)\s*", text, flags=re.DOTALL)
        return read(match[1] if match else text)

    return bare(pred) == bare(gold)


@misconception("verify_math", "Commas in numbers are not read; 1,234 is 1234.")
def no_commas(pred, gold):
    return read(pred, commas=False) == read(gold, commas=False)


@misconception("verify_math", "All commas are removed, so 1,23 passes for 123; only groups of three are a number.")
def any_commas(pred, gold):
    return read(pred.replace(",", "")) == read(gold.replace(",", ""))


@misconception("verify_math", "You evaluate what the model wrote: never run an answer, it may be anything.")
def evaluates(pred, gold):
    def value(text):
        known = read(text)
        if isinstance(known, str) and re.fullmatch(r"[\d\s+*()-]{1,9}", text) and "**" not in text:
            try:
                return "", Fraction(eval(text))
            except (SyntaxError, TypeError):
                return known
        return known

    return value(pred) == value(gold)


@misconception("verify_math", "What is no value is never right for you; equal texts are the same answer.")
def texts_are_never_equal(pred, gold):
    one, two = read(pred), read(gold)
    return not isinstance(one, str) and one == two


@misconception("verify_math", "The first number in a text is taken for the answer; the whole text must be a value.")
def first_number(pred, gold):
    def value(text):
        known = read(text)
        match = re.search(r"-?\d+(?:\.\d+)?", text)
        return ("", Fraction(match[0])) if isinstance(known, str) and match else known

    return value(pred) == value(gold)


def vote(answers, scores, same=None, join=lambda total, score, count: total + score, last=False, none=False, how="new"):
    """Group equal answers and join their scores; each misconception changes one thing."""
    same = same or reference.verify_math
    groups = []
    for answer, score in zip(answers, scores, strict=True):
        if answer is None and not none:
            continue
        for group in groups:
            if group[0] == answer or (None not in (group[0], answer) and same(group[0], answer)):
                group[1], group[2] = join(group[1], score, group[2]), group[2] + 1
                group[3] = answer
                break
        else:
            groups.append([answer, join(0.0, score, 0), 1, answer])
    if not groups:
        return None
    best = max(reversed(groups) if last else groups, key=lambda group: group[1])
    return best[3] if how == "latest" else best[0]


@misconception(
    "verify_math", "The scores are not used: one vote each elects the most frequent answer.", replaces="weighted_vote"
)
def plain_majority(answers, scores):
    return vote(answers, scores, join=lambda total, score, count: total + 1)


@misconception(
    "verify_math", "The single best sample decides; add up the scores of equal answers.", replaces="weighted_vote"
)
def best_sample(answers, scores):
    return vote(answers, scores, join=lambda total, score, count: max(total, score))


@misconception("verify_math", "Scores are averaged for each answer; they must be added.", replaces="weighted_vote")
def mean_score(answers, scores):
    return vote(answers, scores, join=lambda mean, score, count: (mean * count + score) / (count + 1))


@misconception(
    "verify_math", "A later score of an answer replaces the earlier one; add them.", replaces="weighted_vote"
)
def last_score(answers, scores):
    return vote(answers, scores, join=lambda total, score, count: score)


@misconception(
    "verify_math", "Answers are grouped by their text; 1/2 and 0.5 split their votes.", replaces="weighted_vote"
)
def groups_by_text(answers, scores):
    return vote(answers, scores, same=lambda one, two: one == two)


@misconception("verify_math", "Of equal totals the last wins with you; it must be the first.", replaces="weighted_vote")
def last_wins_ties(answers, scores):
    return vote(answers, scores, last=True)


@misconception(
    "verify_math", "None is counted as an answer and can be elected; it is no vote.", replaces="weighted_vote"
)
def none_is_elected(answers, scores):
    return vote(answers, scores, none=True)


@misconception(
    "verify_math",
    "The winner comes back as it was written last; give its first way of writing.",
    replaces="weighted_vote",
)
def latest_writing(answers, scores):
    return vote(answers, scores, how="latest")


# -- process_score, tree_search


def aggregate(step_probs, how, low=min, prod=None, last=-1):
    """The right scores but for the named ones."""
    probs = [float(p) for p in step_probs]
    if not probs or how not in ("min", "prod", "last"):
        raise ValueError("how")
    if how == "min":
        return float(low(probs))
    if how == "last":
        return probs[last]
    return float(prod(probs) if prod else sum(math.log(p) if p > 0 else -math.inf for p in probs))


@misconception("process_score", "prod is the product itself; long solutions all become 0. Give the sum of the logs.")
def product_itself(step_probs, how="min"):
    return aggregate(step_probs, how, prod=math.prod)


@misconception("process_score", "The log is taken of a product that has already become 0; add the logs instead.")
def log_of_underflow(step_probs, how="min"):
    return aggregate(step_probs, how, prod=lambda p: math.log(math.prod(p)) if math.prod(p) > 0 else -math.inf)


@misconception("process_score", "The logs are averaged; a longer solution has more places to go wrong, so add them.")
def mean_of_logs(step_probs, how="min"):
    return aggregate(step_probs, how, prod=lambda p: sum(map(math.log, p)) / len(p) if min(p) > 0 else -math.inf)


@misconception("process_score", "min gives the mean of the steps; one bad step must be enough to sink a solution.")
def mean_for_min(step_probs, how="min"):
    return aggregate(step_probs, how, low=lambda p: sum(p) / len(p))


@misconception("process_score", "last gives the first step with you; it is the one at the end.")
def first_for_last(step_probs, how="min"):
    return aggregate(step_probs, how, last=0) if how != "" else 0.0


@misconception("process_score", "Without `how` it must be the weakest step; your default is another.")
def default_is_last(step_probs, how="last"):
    return aggregate(step_probs, how)


@misconception("process_score", "An unknown `how` is passed over in silence; raise ValueError.")
def unknown_how_is_min(step_probs, how="min"):
    if len(step_probs) == 0:
        raise ValueError("no step")
    return aggregate(step_probs, how if how in ("prod", "last") else "min")


@misconception("process_score", "A step of probability 0 makes the logarithm fail; it must give -inf.")
def zero_fails(step_probs, how="min"):
    return aggregate(step_probs, how, prod=lambda p: sum(math.log(max(x, 1e-300)) for x in p))


def search(expand, value, width, depth, **changes):
    """The right search but for the named changes."""
    complete, kept = [], [(0.0, ())]
    for _ in range(depth):
        level, chosen = [], []
        for worth, path in kept:
            steps = expand(path)
            if not steps and changes.get("ends") != "lost":
                complete.append((worth, path))
            if steps and path and changes.get("inner"):
                complete.append((worth, path))
            for step in steps:
                child = (*path, step)
                own = value(child)
                key = {"parent": worth, "sum": worth + own, "mix": max(worth, own)}.get(changes.get("rank"), own)
                level.append((key, key if changes.get("rank") in ("sum", "mix") else own, child))
        if changes.get("per_parent"):
            groups = itertools.groupby(level, key=lambda item: item[2][:-1])
            chosen = [item for _, group in groups for item in sorted(group, key=lambda x: -x[0])[:width]]
        else:
            chosen = sorted(level, key=lambda item: -item[0])[:width]
        if changes.get("greedy_stop") and complete:
            break
        if not chosen and changes.get("stop"):
            break
        kept = [(own, path) for _, own, path in chosen]
        if changes.get("worst"):
            kept = [(own, path) for _, own, path in sorted(level, key=lambda item: item[0])[:width]]
    if changes.get("long"):
        return max(complete + kept, key=lambda pair: (len(pair[1]), pair[0]))[1]
    if changes.get("first"):
        return (complete + kept)[0][1]
    return max(complete + kept, key=lambda pair: pair[0])[1]


@misconception(
    "process_score", "A longer path beats a better short one; only the value decides.", replaces="tree_search"
)
def prefers_longer(expand, value, width, depth):
    return search(expand, value, width, depth, long=True)


@misconception(
    "process_score", "Paths are kept by the value of their parent; judge each by its own.", replaces="tree_search"
)
def prunes_by_parent(expand, value, width, depth):
    return search(expand, value, width, depth, rank="parent")


@misconception("process_score", "Values are added up along the path; a path's own value says it all.", "tree_search")
def sums_along_the_path(expand, value, width, depth):
    return search(expand, value, width, depth, rank="sum")


@misconception("process_score", "A parent's higher value is handed down to its children.", replaces="tree_search")
def parent_overrides(expand, value, width, depth):
    return search(expand, value, width, depth, rank="mix")


@misconception(
    "process_score", "A path that goes on is returned because its value is high; it is not complete.", "tree_search"
)
def inner_paths_count(expand, value, width, depth):
    return search(expand, value, width, depth, inner=True)


@misconception("process_score", "Paths that end early are forgotten; they are candidates too.", replaces="tree_search")
def early_ends_lost(expand, value, width, depth):
    try:
        return search(expand, value, width, depth, ends="lost")
    except ValueError:
        return ()


@misconception(
    "process_score", "You keep `width` children of every path; width is for the whole level.", replaces="tree_search"
)
def width_for_each_parent(expand, value, width, depth):
    return search(expand, value, width, depth, per_parent=True)


@misconception(
    "process_score", "The search stops at the first complete path; a later one may be better.", "tree_search"
)
def stops_at_the_first_end(expand, value, width, depth):
    return search(expand, value, width, depth, greedy_stop=True)


@misconception(
    "process_score", "A complete path keeps its place in the later levels; it must make room for others.", "tree_search"
)
def complete_paths_keep_their_place(expand, value, width, depth):
    kept = [(0.0, (), False)]
    for _ in range(depth):
        level = []
        for worth, path, done in kept:
            steps = [] if done else expand(path)
            if not steps:
                level.append((worth, path, True))
            level += [(value((*path, step)), (*path, step), False) for step in steps]
        kept = sorted(level, key=lambda item: -item[0])[:width]
    return max(kept, key=lambda item: item[0])[1]


@misconception("process_score", "Paths are valued again and again; remember the value of each.", replaces="tree_search")
def values_twice(expand, value, width, depth):
    kept, complete = [()], []
    for _ in range(depth):
        level = []
        for path in kept:
            steps = expand(path)
            level += [(*path, step) for step in steps]
            if not steps:
                complete.append(path)
        kept = sorted(level, key=value, reverse=True)[:width]
    final = complete + kept
    return max(final, key=value) if final != [()] else ()


# -- group_advantages


def advantages(rewards, size, normalize=True, eps=1e-6, **changes):
    """The right advantages but for the named changes."""
    if len(rewards) % size:
        raise ValueError("size")
    r = rewards.reshape(-1, size)
    if changes.get("strided"):
        r = rewards.reshape(size, -1).T
    if changes.get("batch"):
        r = rewards.reshape(1, -1)
    A = r - r.mean(dim=1, keepdim=True)
    n = r.shape[1]
    if normalize:
        divisor = n if changes.get("biased") else max(n - 1, 1)
        std = (A.square().sum(dim=1, keepdim=True) / divisor).sqrt()
        if changes.get("variance"):
            std = std.square()
        if changes.get("where") == "inside":
            A = A / (std.square() + eps).sqrt()
        else:
            A = A / (std + (0 if changes.get("where") == "none" else eps))
    if not changes.get("rounding"):
        equal = r.amax(dim=1, keepdim=True) == r.amin(dim=1, keepdim=True)
        A = torch.where(equal, torch.zeros_like(A), A)
    if changes.get("strided"):
        A = A.T
    return A.reshape(-1)


@misconception("group_advantages", "Groups are taken with a stride; a group is group_size neighbours in the list.")
def strided_groups(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, strided=True)


@misconception("group_advantages", "Mean and deviation are those of the whole batch; each group has its own.")
def whole_batch(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, batch=True)


@misconception("group_advantages", "Nothing guards the division, so a group of equal rewards gives NaN.")
def division_by_zero(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, where="none", rounding=True)


@misconception("group_advantages", "eps is not used; it belongs beside the deviation in the denominator.")
def eps_not_used(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, where="none")


@misconception("group_advantages", "The deviation divides by n; the unbiased one divides by n - 1.")
def biased_deviation(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, biased=True)


@misconception("group_advantages", "You divide by the variance; the standard deviation is its root.")
def divides_by_variance(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, variance=True)


@misconception("group_advantages", "normalize_std is not looked at; False means to subtract the mean only.")
def always_normalizes(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, True, eps)


@misconception("group_advantages", "Rounding in the mean of equal rewards is blown up by eps; such a group gets zeros.")
def rounding_blown_up(rewards, group_size, normalize_std=True, eps=1e-6):
    A = advantages(rewards, group_size, normalize_std, eps, rounding=True)
    return torch.nan_to_num(A)


@misconception("group_advantages", "A group with a small spread is taken for equal; only equal rewards get zeros.")
def small_is_equal(rewards, group_size, normalize_std=True, eps=1e-6):
    A = advantages(rewards, group_size, normalize_std, eps)
    flat = rewards.reshape(-1, group_size).std(dim=1, keepdim=True, correction=min(1, group_size - 1)) < 1e-5
    return torch.where(flat, torch.zeros_like(A.view(-1, group_size)), A.view(-1, group_size)).reshape(-1)


@misconception("group_advantages", "eps stands under the root; it is added to the deviation, not to the variance.")
def eps_under_the_root(rewards, group_size, normalize_std=True, eps=1e-6):
    return advantages(rewards, group_size, normalize_std, eps, where="inside")


@misconception("group_advantages", "Groups that do not fill up are cut off in silence; raise ValueError.")
def cuts_the_rest(rewards, group_size, normalize_std=True, eps=1e-6):
    whole = len(rewards) // group_size * group_size
    return advantages(rewards[:whole], group_size, normalize_std, eps)


# -- grpo_loss


def loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq", **changes):
    """The right loss but for the named changes."""
    if agg not in ("seq", "token", "dr") and not changes.get("names"):
        raise ValueError("agg")
    if not changes.get("unmasked"):
        logp, old_logp, ref_logp = (torch.where(mask, x, 0.0) for x in (logp, old_logp, ref_logp))
    old, A = old_logp if changes.get("old") else old_logp.detach(), adv.detach()
    if changes.get("again"):
        A = (A - A.mean()) / (A.std() + 1e-6)
    rho, A, log_r = torch.exp(logp - old), A[:, None], ref_logp.detach() - logp
    kl = torch.expm1(log_r) - log_r
    kl = {"reversed": torch.expm1(-log_r) + log_r, "k1": -log_r, "k2": log_r**2 / 2}.get(changes.get("kl"), kl)
    if changes.get("kl") == "old policy":
        log_r = ref_logp.detach() - old
        kl = torch.expm1(log_r) - log_r
    clipped = rho.clamp(1 - eps, 1 + eps) * A
    objective = torch.minimum(rho * A, clipped)
    if changes.get("clip") == "max":
        objective = torch.maximum(rho * A, clipped)
    if changes.get("clip") == "only":
        objective = clipped
    if changes.get("clip") == "none":
        objective = rho * A
    terms = objective + (beta if changes.get("bonus") else -beta) * kl
    sums, lengths = torch.where(mask, terms, 0.0).sum(1), mask.sum(1)
    agg = changes.get("always", agg)
    if agg == "token":
        result = sums.sum() / lengths.sum().clamp(min=1)
    elif agg == "seq":
        result = (sums / (mask.shape[1] if changes.get("width") else lengths.clamp(min=1))).mean()
        if changes.get("rows"):
            result = result * len(mask) / (lengths > 0).sum().clamp(min=1)
    else:
        result = sums.mean() / (mask.shape[1] if changes.get("dr_width") else 1)
    return result if changes.get("sign") else -result


@misconception("grpo_loss", "The KL looks from the reference to the policy; r is the reference over the policy.")
def kl_reversed(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, kl="reversed")


@misconception("grpo_loss", "The leash is k1, the bare log-ratio; GRPO uses k3, which is never negative.")
def leash_is_k1(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, kl="k1")


@misconception("grpo_loss", "The KL is that of the old policy, so no gradient comes from it; take the present one.")
def kl_of_the_old_policy(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, kl="old policy")


@misconception("grpo_loss", "The KL is added to the objective; distance must cost, not pay.")
def distance_pays(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, bonus=True)


@misconception("grpo_loss", "Each answer is divided by the width of the batch; divide by its own number of tokens.")
def padded_length(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, width=True)


@misconception("grpo_loss", "Under dr the sums are divided by the padded width; they are not divided by any length.")
def dr_by_width(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, dr_width=True)


@misconception("grpo_loss", "The advantages are standardised a second time; use them as they come.")
def double_normalisation(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, again=True)


@misconception("grpo_loss", "seq averages over all tokens together; each answer must have the same weight.")
def token_mean_for_seq(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, {"seq": "token"}.get(agg, agg))


@misconception("grpo_loss", "token averages over each answer first; all tokens must have the same weight.")
def sequence_mean_for_token(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, {"token": "seq"}.get(agg, agg))


@misconception("grpo_loss", "The larger of the two objectives is taken; the pessimistic one is the smaller.")
def larger_objective(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, clip="max")


@misconception(
    "grpo_loss", "Only the clipped objective is left, so a token that went the wrong way is never pulled back."
)
def clipped_only(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, clip="only")


@misconception("grpo_loss", "The ratio is not clipped; after it has moved by eps the good way its gradient must end.")
def no_clip(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, clip="none")


@misconception("grpo_loss", "The sign is that of the objective; a loss is minimised, so put a minus in front.")
def sign_of_the_objective(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, sign=True)


@misconception("grpo_loss", "Padding is multiplied away after the exponential, and NaN times 0 is NaN; select before.")
def padding_before_selecting(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, unmasked=True)


@misconception("grpo_loss", "A gradient flows to the old policy; it is a constant of the round.")
def gradient_to_the_old_policy(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, old=True)


@misconception("grpo_loss", "An answer without tokens is left out of the mean; it adds 0 and counts among the B.")
def empty_answers_left_out(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, rows=True)


@misconception("grpo_loss", "An unknown agg is taken for dr; raise ValueError.")
def unknown_agg(logp, old_logp, ref_logp, adv, mask, eps, beta, agg="seq"):
    return loss(logp, old_logp, ref_logp, adv, mask, eps, beta, agg, names=True)


# -- grpo_toy


def train(task, steps, seed, **changes):
    """The right run but for the named changes."""
    P, T, V, G = task["prompts"], task["length"], task["words"], reference.GROUP
    rng = torch.Generator().manual_seed(seed)
    logits = torch.zeros(P, T, V, dtype=torch.float64)
    if changes.get("start") == "random":
        logits = torch.randn(P, T, V, dtype=torch.float64, generator=rng)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=changes.get("lr", task["lr"]))
    prompts = torch.arange(P).repeat_interleave(G)
    if changes.get("order") == "strided":
        prompts = torch.arange(P).repeat(G)
    mask = torch.ones(P * G, T, dtype=torch.bool)
    curve = []
    for _ in range(steps):
        source = torch.zeros_like(logits) if changes.get("draw") == "start" else logits.detach()
        p = source.softmax(-1)[prompts].flatten(0, 1)
        answers = (p + 1e-9 * torch.rand(P, V, generator=rng).repeat_interleave(G * T, 0)).argmax(-1).view(-1, T)
        if changes.get("draw") != "argmax":
            answers = torch.multinomial(p, 1, generator=rng).view(-1, T)
        if changes.get("checks") == "prompt":
            rewards = task["verify"](prompts, prompts[:, None].expand(-1, T) % V)
        else:
            rewards = task["verify"](prompts, answers)
        curve.append(rewards.mean().item())
        adv = reference.group_advantages(rewards, G)
        if changes.get("groups") == "batch":
            adv = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        if changes.get("groups") == "none":
            adv = rewards
        if changes.get("groups") == "strided":
            adv = reference.group_advantages(rewards.view(P, G).T.reshape(-1), G).view(G, P).T.reshape(-1)
        if changes.get("sign"):
            adv = -adv
        logp = logits.log_softmax(-1)[prompts].gather(-1, answers[..., None])[..., 0]
        loss_mask = mask.clone()
        if changes.get("words") == "last":
            loss_mask[:, :-1] = False
        value = reference.grpo_loss(logp, logp.detach(), logp.detach(), adv, loss_mask, 0.2, 0.0)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return curve


@misconception("grpo_toy", "The sign of the advantages is turned round: what was right becomes rarer.")
def advantage_sign(task, steps, seed):
    return train(task, steps, seed, sign=True)


@misconception("grpo_toy", "The checker is given the prompt in place of the answer, so no answer makes a difference.")
def reward_on_the_prompt(task, steps, seed):
    return train(task, steps, seed, checks="prompt")


@misconception(
    "grpo_toy", "The likeliest answer is taken instead of drawn: a group of equal answers has nothing to compare."
)
def argmax_rollouts(task, steps, seed):
    return train(task, steps, seed, draw="argmax")


@misconception("grpo_toy", "Rewards are compared across the whole batch; compare answers to the same prompt.")
def compares_the_batch(task, steps, seed):
    return train(task, steps, seed, groups="batch")


@misconception("grpo_toy", "The bare rewards are used as advantages; subtract the mean of the group.")
def no_baseline(task, steps, seed):
    return train(task, steps, seed, groups="none")


@misconception("grpo_toy", "The groups mix answers to different prompts; equal prompts must stand together.")
def mixed_groups(task, steps, seed):
    return train(task, steps, seed, groups="strided")


@misconception("grpo_toy", "All answers are drawn from the policy of the start; draw anew from the policy as it is.")
def policy_never_refreshed(task, steps, seed):
    return train(task, steps, seed, draw="start")


@misconception("grpo_toy", "Only the last word of an answer learns; the advantage is that of all its words.")
def only_the_last_word_learns(task, steps, seed):
    return train(task, steps, seed, words="last")


@misconception("grpo_toy", "The policy starts from random logits; it must start uniform.")
def random_start(task, steps, seed):
    return train(task, steps, seed, start="random")


@misconception("grpo_toy", "task['lr'] is not used; with learning rate 0 nothing may change.")
def rate_not_used(task, steps, seed):
    return train(task, steps, seed, lr=0.2)


@misconception("grpo_toy", "The prompts are handed over in turn; the answers to one prompt come in succession.")
def prompts_in_turn(task, steps, seed):
    return train(task, steps, seed, order="strided")


@misconception("grpo_toy", "The seed is not used: the same seed must give the same draws.")
def seed_not_used(task, steps, seed):
    return train(task, steps, torch.randint(2**31, ()).item())
