# %% [markdown]
# # Chapter 22 · Evaluation
#
# A model has been trained. How good is it, and how sure are we? This chapter asks multiple-choice questions, runs
# generated programs, rates models by comparisons, and puts an interval around every number. The teaching is in
# `README.md`.

# %%
import math
import re
import secrets
import string
from collections import Counter
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

Execute = Callable[[str, float], dict[str, Any]]
"""Runs a program, with a limit in seconds: a dict of exit_code, stdout, stderr and timed_out."""
Battle = tuple[str, str, float]
"""Two models, and the score of the first: 1.0 if it won, 0.5 for a tie, 0.0 if it lost."""
ARTICLES = ("a", "an", "the")

# %% [markdown]
# ## 22.1 score_multiple_choice
#
# A base model answers no questions, but it says how probable a text is. So write each choice behind the prompt and
# ask which one the model finds most probable.


# %%
def score_multiple_choice(
    logprob_fn: Callable[[list[int]], Tensor],
    encode: Callable[[str], list[int]],
    prompt: str,
    choices: Sequence[str],
    normalize: str = "none",
) -> int:
    """Choose the continuation of the prompt that the model finds most probable.

    Args:
        logprob_fn: maps T ids to a (T,) float64 tensor; entry t is ln p(ids[t] | ids[:t]).
        encode: maps a text to its ids; encode("") is [].
        prompt: the question; whitespace at its end does not count.
        choices: at least one; whitespace around a choice does not count.
        normalize: "none" adds up the log-probabilities of the choice's own tokens, "tokens" divides that sum by their
            number, "bytes" by the number of UTF-8 bytes of the stripped choice.

    Returns:
        The index of the choice with the highest score; of equal ones the lowest.

    Raises:
        ValueError: no choices, a choice without any text, another `normalize`.

    Example:
        >>> flat = lambda ids: torch.full((len(ids),), -1.0, dtype=torch.float64)
        >>> score_multiple_choice(flat, lambda text: list(text.encode()), "2 + 2 =", ["four", "4", "5"])
        1

    Notes:
        The text is the stripped prompt, one space, the stripped choice, encoded as a whole; `logprob_fn` is called on
        it once per choice. Its own tokens begin where the ids first differ from encode(stripped prompt).
    """
    ### BEGIN SOLUTION
    prompt, choices = prompt.rstrip(), [choice.strip() for choice in choices]
    if normalize not in ("none", "tokens", "bytes") or not choices or "" in choices:
        raise ValueError("there must be choices with text in them, and a normalization that is known")
    prompt_ids, scores = encode(prompt), []
    for choice in choices:
        ids = encode(f"{prompt} {choice}")
        start = 0  # not len(prompt_ids): a token may span the place where the two texts meet
        while start < min(len(prompt_ids), len(ids)) and ids[start] == prompt_ids[start]:
            start += 1
        total = float(logprob_fn(ids)[start:].sum())
        length = {"none": 1, "tokens": len(ids) - start, "bytes": len(choice.encode())}[normalize]
        scores.append(total / length)
    return scores.index(max(scores))
    ### END SOLUTION


# %% [markdown]
# ## 22.2 pass_at_k
#
# Of n programs c are right. With what probability is one of k among them?


# %%
def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate the probability that at least one of k samples is right, from n samples of which c are.

    Args:
        n: number of samples of one problem.
        c: how many of them are right, 0 to n.
        k: size of the group, 1 to n.

    Returns:
        float: the part of all groups of k different samples, chosen from the n, that hold a right one.

    Raises:
        ValueError: c is not within 0 to n, or k not within 1 to n.

    Example:
        >>> pass_at_k(4, 1, 2), pass_at_k(4, 0, 2)
        (0.5, 0.0)

    Notes:
        Exact to 1e-9 for n up to 10000, where binomial coefficients do not fit into a float.
    """
    ### BEGIN SOLUTION
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0  # too few wrong ones to fill a group
    all_wrong = math.prod(1 - k / i for i in range(n - c + 1, n + 1))  # C(n - c, k) / C(n, k), as c factors
    return 1.0 - all_wrong
    ### END SOLUTION


# %% [markdown]
# ## 22.3 run_candidate
#
# Run a program that a model wrote, with the tests behind it, and decide whether it passed. You never run it here: it is
# somebody else's code. You write a program around it and hand that to `execute`, which runs it in a process of its own.


# %%
def run_candidate(code: str, tests: str, timeout: float, execute: Execute) -> str:
    """Judge a generated program by its tests: it passed only if the tests ran to their end.

    Args:
        code: the source of the candidate, a module of its own, which nobody trusts.
        tests: source whose asserts use the candidate's names. timeout: seconds, handed on to `execute` as it is.
        execute: execute(program, timeout), called once, runs a source text as a program and gives a dict: "exit_code",
            an int, or None if it did not end by itself; "stdout" and "stderr", str, written in whatever way, each cut
            to its first 10 000 characters; "timed_out", bool. The program has the standard library, but no files and no
            processes; if it ends by os._exit, what it wrote may be lost.

    Returns:
        "timeout" if it timed out; "passed" if candidate and tests ran to the end; "failed" if an AssertionError ended
        them, "error" if another Exception did (a SyntaxError, too); "exited" if they ended in another way:
        sys.exit(0), os._exit(0), a crash.

    Example:
        >>> run_candidate("def f(): return 1", "assert f() == 1", 5.0, lambda program, timeout: {"exit_code": 0,
        ...     "stdout": "passed", "stderr": "", "timed_out": False})
        'exited'

    Notes:
        The candidate decides nothing by exit code, by what it prints, be it a traceback or 100 000 characters, or by
        what it rebinds (print, exec; in builtins, too); names of its own such as print or sys do no harm.
        The end of the tests is proven by a token, fresh for each call and in none of the names in the candidate's
        globals(). Never run code or tests in this process.
    """
    ### BEGIN SOLUTION
    token = secrets.token_hex(16)
    program = f"""
import io, sys

class Silence(io.TextIOBase):
    def write(self, text):
        return len(text)

def main(run=exec, write=sys.stdout.write, flush=sys.stdout.flush):
    sys.stdout = sys.stderr = Silence()
    world = {{"__name__": "__main__"}}  # the candidate's own names, and none of ours
    try:
        run({code!r}, world)
        run({tests!r}, world)
        status = "passed"
    except AssertionError:
        status = "failed"
    except Exception:
        status = "error"
    write("{token} " + status)
    flush()

main()
"""
    outcome = execute(program, timeout)
    if outcome["timed_out"]:
        return "timeout"
    _, proof, status = outcome["stdout"].partition(token)
    return status.strip() if proof else "exited"
    ### END SOLUTION


# %% [markdown]
# ## 22.4 elo_update
#
# Two players met. Move their ratings by how much the result surprises.


# %%
def elo_update(ra: float, rb: float, score: float, k: float = 32.0) -> tuple[float, float]:
    """Update the Elo ratings of two players after one game.

    Args:
        ra: rating of the first player before the game.
        rb: rating of the second.
        score: of the first player: 1 for a win, 0.5 for a draw, 0 for a loss.
        k: the most points that a game can move.

    Returns:
        The tuple of both new ratings; what one gains, the other loses.

    Example:
        >>> elo_update(1500, 1500, 1)
        (1516.0, 1484.0)

    Notes:
        The expected score of the first is 1 / (1 + 10^((rb - ra) / 400)): 400 points more mean odds of 10 to 1.
        Each moves by k times the difference of score and expected score.
    """
    ### BEGIN SOLUTION
    expected = 1 / (1 + 10 ** ((rb - ra) / 400))
    step = k * (score - expected)
    return ra + step, rb - step
    ### END SOLUTION


# %% [markdown]
# ## 22.5 fit_bradley_terry, leaderboard_ci
#
# A model does not get stronger between two battles, so the order of battles means nothing. Take them all at once,
# find the ratings under which they are most probable, and say how far these ratings can be trusted.


# %%
def fit_bradley_terry(wins: Tensor, l2: float = 1e-6) -> Tensor:
    """Find the ratings under which the results of all battles are most probable.

    Args:
        wins: (M, M), integer or floating; wins[i, j] is how often i beat j, a tie counting 0.5 for both; the diagonal
            is 0. M may be 1.
        l2: weight of the penalty, above 0.

    Returns:
        (M,) float64: the ratings r that maximise the sum over i, j of wins[i, j] * ln sigmoid(r[i] - r[j]), minus
        l2 / 2 times the sum of r[i]^2; each to within 1e-6.

    Example:
        >>> r = fit_bradley_terry(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
        >>> round((r[0] - r[1]).exp().item(), 4)
        3.0

    Notes:
        Ratings are natural: e^(r[i] - r[j]) are the odds of i against j. The penalty makes their mean 0, and keeps a
        model that never lost finite. For that model the slope is so slight that plain gradient steps do not arrive;
        Newton's method does. Steps that move no rating by more than 0.5 keep it from overshooting. wins is not changed.
    """
    ### BEGIN SOLUTION
    wins = wins.to(torch.float64)
    games = wins + wins.T  # (M, M)
    r = torch.zeros(len(wins), dtype=torch.float64)  # (M,)
    for _ in range(200):
        p = torch.sigmoid(r[:, None] - r[None, :])  # (M, M): that the row beats the column
        gradient = (wins - games * p).sum(dim=1) - l2 * r  # (M,): wins beyond those expected, less the penalty
        weights = games * p * (1 - p)  # (M, M)
        curvature = torch.diag(weights.sum(dim=1) + l2) - weights  # (M, M): minus the second derivatives
        step = torch.linalg.solve(curvature, gradient)  # (M,)
        step = step - step.mean()  # rounding alone, but l2 is so small that it would be magnified
        largest = step.abs().max().item()
        r = r + step * min(1.0, 0.5 / max(largest, 1e-300))  # no difference moves by more than 1
        if largest < 1e-6:  # the error after a step is about the square of the step
            break
    return r
    ### END SOLUTION


# %%
def leaderboard_ci(
    battles: Sequence[Battle], n_boot: int, rng: torch.Generator
) -> list[tuple[str, float, float, float]]:
    """Rank models by their Bradley-Terry ratings, each with a 95 % interval from the bootstrap.

    Args:
        battles: at least one (a, b, score of a); see `Battle`. A model may stand on either side.
        n_boot: number of bootstrap samples, at least 1.
        rng: for all draws; the same state gives the same table.

    Returns:
        A list of (model, rating, low, high), the highest rating first. The rating is that of `fit_bradley_terry`,
        with its default l2, on all battles. low and high are the quantiles 0.025 and 0.975, linearly interpolated as
        by torch.quantile, of the model's rating in n_boot fits, each on as many battles as there are, drawn with
        replacement.

    Example:
        >>> battles = [("owl", "elk", 1.0)] * 30 + [("elk", "owl", 1.0)] * 10
        >>> [(name, round(rating, 3)) for name, rating, _, _ in leaderboard_ci(battles, 5, torch.Generator())]
        [('owl', 0.549), ('elk', -0.549)]

    Notes:
        A whole battle is drawn, with both names and its score. A model that is not in a sample has no battles there,
        and the penalty gives it the rating 0.
    """
    ### BEGIN SOLUTION
    names = sorted({name for a, b, _ in battles for name in (a, b)})
    first = torch.tensor([names.index(a) for a, _, _ in battles])  # (N,)
    second = torch.tensor([names.index(b) for _, b, _ in battles])  # (N,)
    score = torch.tensor([s for _, _, s in battles], dtype=torch.float64)  # (N,)

    def rate(drawn: Tensor) -> Tensor:
        wins = torch.zeros(len(names), len(names), dtype=torch.float64)
        wins.index_put_((first[drawn], second[drawn]), score[drawn], accumulate=True)
        wins.index_put_((second[drawn], first[drawn]), 1 - score[drawn], accumulate=True)
        return fit_bradley_terry(wins)

    N = len(battles)
    ratings = rate(torch.arange(N))  # (M,)
    boot = torch.stack([rate(torch.randint(N, (N,), generator=rng)) for _ in range(n_boot)])  # (n_boot, M)
    low, high = boot.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)  # (M,) each
    rows = zip(names, ratings.tolist(), low.tolist(), high.tolist(), strict=True)
    return sorted(rows, key=lambda row: -row[1])
    ### END SOLUTION


# %% [markdown]
# ## 22.6 bootstrap_ci, paired_difference_ci
#
# A score on 500 questions is one draw. How different would another 500 have been? The sample itself can tell.


# %%
def bootstrap_ci(
    x: Tensor, stat: Callable[[Tensor], float], n: int, level: float, rng: torch.Generator
) -> tuple[float, float]:
    """Give the percentile bootstrap interval of a statistic.

    Args:
        x: (N,) values, floating, N at least 1.
        stat: maps a (N,) tensor to a number; called n times, once on each resample, and on nothing else.
        n: number of resamples.
        level: such as 0.95.
        rng: for all draws; the same state gives the same interval.

    Returns:
        (low, high), floats: the quantiles (1 - level) / 2 and (1 + level) / 2 of the n values of stat, linearly
        interpolated as by torch.quantile.

    Raises:
        ValueError: x is empty, n is below 1, level is not between 0 and 1 (both excluded).

    Example:
        >>> bootstrap_ci(torch.tensor([2.5, 2.5, 2.5]), torch.mean, 10, 0.9, torch.Generator())
        (2.5, 2.5)

    Notes:
        A resample has N values, drawn from x with replacement, each with the same probability. Work in float64 from the
        values of stat on. x is not changed.
    """
    ### BEGIN SOLUTION
    if len(x) == 0 or n < 1 or not 0 < level < 1:
        raise ValueError("bootstrap_ci needs values, n >= 1 and a level between 0 and 1")
    drawn = torch.randint(len(x), (n, len(x)), generator=rng)  # (n, N) indices
    values = torch.tensor([float(stat(x[row])) for row in drawn], dtype=torch.float64)  # (n,)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.quantile(tails).tolist()
    return low, high
    ### END SOLUTION


# %%
def paired_difference_ci(a: Tensor, b: Tensor, n: int, level: float, rng: torch.Generator) -> tuple[float, float]:
    """Give the bootstrap interval of mean(a) - mean(b), where a[i] and b[i] are scores on the same question i.

    Args:
        a: (N,) scores of one model, floating, N at least 1.
        b: (N,) scores of another on the same questions.
        n: number of resamples.
        level: such as 0.95.
        rng: for all draws; the same state gives the same interval.

    Returns:
        (low, high), floats: the quantiles of n differences, as in `bootstrap_ci`.

    Raises:
        ValueError: a and b differ in length; or as in `bootstrap_ci`.

    Example:
        >>> a = torch.tensor([1.0, 0.0, 1.0])
        >>> paired_difference_ci(a + 0.5, a, 20, 0.9, torch.Generator())
        (0.5, 0.5)

    Notes:
        Questions are resampled: a resample takes the scores of both models on the questions drawn.
    """
    ### BEGIN SOLUTION
    if len(a) != len(b):
        raise ValueError(f"{len(a)} scores cannot be paired with {len(b)}")
    return bootstrap_ci(a - b, lambda d: d.mean().item(), n, level, rng)
    ### END SOLUTION


# %% [markdown]
# ## 22.7 ngram_overlap, contamination_report
#
# If the test stood in the training data, the score measures memory. Look for it.


# %%
def ngram_overlap(test: str, train: Sequence[str], n: int = 13) -> float:
    """Give the part of a test text's n-grams that occur in the training documents.

    Args:
        test: any text.
        train: documents; there may be none.
        n: words in a gram.

    Returns:
        float: of the different n-grams of the test text, the part that occurs in at least one document.

    Raises:
        ValueError: n is below 1.

    Example:
        >>> ngram_overlap("The mill, by the river.", ["I saw THE MILL by a river"], n=2)
        0.5

    Notes:
        Words are the maximal runs of letters and digits (str.isalnum) in the lower-cased text. An n-gram is n words in
        a row of one document; none spans two documents. A test text with fewer than n words is one gram of all its
        words, and the documents are then searched for grams of that length. One without words has overlap 0.0.
    """
    ### BEGIN SOLUTION
    if n < 1:
        raise ValueError("n must be at least 1")

    def grams(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"[^\W_]+", text.lower())
        return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}

    size = min(n, len(re.findall(r"[^\W_]+", test.lower())))
    if size == 0:
        return 0.0
    ours = grams(test)
    found = set().union(*(ours & grams(document) for document in train))
    return len(found) / len(ours)
    ### END SOLUTION


# %%
def contamination_report(
    tests: Sequence[str], train: Sequence[str], n: int = 13, threshold: float = 0.5, canary: str | None = None
) -> dict[str, list[Any]]:
    """Say which test texts stand in the training documents, and where.

    Args:
        tests: test texts.
        train: training documents.
        n: words in a gram, as in `ngram_overlap`.
        threshold: a test text is contaminated if its overlap is at least this.
        canary: a string that was put into the test files so that it can be searched for; None if there is none.

    Returns:
        dict: "overlap": for each test text its `ngram_overlap` with all documents; "sources": for each test text the
        indices of all documents that share at least one n-gram with it; "contaminated": the indices of the test texts
        that are contaminated; "canary": the indices of all documents that contain the canary exactly as it is. All
        indices in rising order.

    Example:
        >>> report = contamination_report(["a b c d", "x y z"], ["A b c!", "c d", "q"], n=2)
        >>> report["overlap"], report["contaminated"], report["sources"]
        ([1.0, 0.0], [0], [[0, 1], []])
    """
    ### BEGIN SOLUTION
    overlap = [ngram_overlap(test, train, n) for test in tests]
    return {
        "overlap": overlap,
        "sources": [[i for i, document in enumerate(train) if ngram_overlap(t, [document], n) > 0] for t in tests],
        "contaminated": [i for i, part in enumerate(overlap) if part >= threshold],
        "canary": [i for i, document in enumerate(train) if canary is not None and canary in document],
    }
    ### END SOLUTION


# %% [markdown]
# ## 22.8 exact_match, token_f1, judge_bias, sample_size
#
# Four small instruments, each with a trap: when are two answers the same, how near is one to the other, whom does
# the judge favour, and how many questions does it take?


# %%
def exact_match(pred: str, gold: str) -> bool:
    """Tell whether two answers have the same words, apart from case, punctuation and articles.

    Args:
        pred: the answer of the model.
        gold: the right answer.

    Returns:
        bool: True if the lists of their words are equal.

    Example:
        >>> exact_match("The  Old Mill.", "old mill"), exact_match("A", "the")
        (True, False)

    Notes:
        Words: the text in lower case, every character of string.punctuation deleted (not replaced by a space), split
        at whitespace; then a, an and the are dropped, unless no other word is there. So the answer A of a
        multiple-choice question remains a word.
    """

    ### BEGIN SOLUTION
    def words(text: str) -> list[str]:
        every = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
        return [word for word in every if word not in ARTICLES] or every

    return words(pred) == words(gold)
    ### END SOLUTION


# %%
def token_f1(pred: str, golds: Sequence[str]) -> float:
    """Measure how many words an answer shares with the right answer that it is nearest to.

    Args:
        pred: the answer of the model.
        golds: at least one right answer.

    Returns:
        float: the highest F1 of `pred` with any of `golds`. F1 is 2 * shared / (words of pred + words of gold).

    Raises:
        ValueError: golds is empty.

    Example:
        >>> token_f1("the old old mill", ["old mill", "river"])
        0.8

    Notes:
        Words are as in `exact_match`. A word that occurs i times in one answer and j times in the other is shared
        min(i, j) times. Two answers without words have F1 1.0; if only one of them has none, 0.0.
    """
    ### BEGIN SOLUTION
    if not golds:
        raise ValueError("token_f1 needs at least one right answer")

    def words(text: str) -> Counter[str]:
        every = text.lower().translate(str.maketrans("", "", string.punctuation)).split()
        return Counter([word for word in every if word not in ARTICLES] or every)

    def f1(one: Counter[str], other: Counter[str]) -> float:
        shared = (one & other).total()  # the smaller count of each word
        return 2 * shared / (one.total() + other.total()) if one or other else 1.0

    return max(f1(words(pred), words(gold)) for gold in golds)
    ### END SOLUTION


# %%
def judge_bias(judge: Callable[[str, str], str], pairs: Sequence[tuple[str, str]]) -> dict[str, float | None]:
    """Show a judge each pair in both orders, and measure what it prefers.

    Args:
        judge: judge(first, second) says "first", "second" or "tie". Called twice a pair: (a, b) and (b, a).
        pairs: at least one pair (a, b) of answers to the same question.

    Returns:
        dict: "first": the part of all verdicts that went to the answer shown first; "longer": of the verdicts on pairs
        whose answers differ in length (len), the part that went to the longer one, None if there is no such pair;
        "a_wins": the part of all verdicts that went to a; "consistent": the part of pairs in which both orders led to
        the same winner, or both to a tie.

    Raises:
        ValueError: pairs is empty.

    Example:
        >>> judge_bias(lambda first, second: "first", [("yes", "no"), ("up", "down")])
        {'first': 1.0, 'longer': 0.5, 'a_wins': 0.5, 'consistent': 0.0}

    Notes:
        A tie counts as half a verdict for each side, in all but "consistent".
    """
    ### BEGIN SOLUTION
    if not pairs:
        raise ValueError("judge_bias needs at least one pair")
    share = {"first": 1.0, "tie": 0.5, "second": 0.0}
    forward = [share[judge(a, b)] for a, b in pairs]  # a is shown first: what a gets
    backward = [1 - share[judge(b, a)] for a, b in pairs]  # a is shown second: what a gets
    rows = list(zip(pairs, forward, backward, strict=True))
    longer = [(x + y) / 2 if len(a) > len(b) else 1 - (x + y) / 2 for (a, b), x, y in rows if len(a) != len(b)]
    return {
        "first": sum((x + 1 - y) / 2 for _, x, y in rows) / len(rows),
        "longer": sum(longer) / len(longer) if longer else None,
        "a_wins": sum((x + y) / 2 for _, x, y in rows) / len(rows),
        "consistent": sum(x == y for _, x, y in rows) / len(rows),
    }
    ### END SOLUTION


# %%
def sample_size(p: float, margin: float, level: float = 0.95) -> int:
    """Say how many questions it takes to know an accuracy to within a margin.

    Args:
        p: the accuracy that is expected, 0 to 1; 0.5 is the worst case.
        margin: half the width of the interval, above 0.
        level: such as 0.95.

    Returns:
        int: the smallest n, at least 1, with z * sqrt(p * (1 - p) / n) <= margin, where z is the quantile
        (1 + level) / 2 of the standard normal distribution.

    Raises:
        ValueError: p is not within 0 to 1, margin is not above 0, level is not between 0 and 1 (both excluded).

    Example:
        >>> sample_size(0.5, 0.05), sample_size(0.5, 0.01)
        (385, 9604)
    """
    ### BEGIN SOLUTION
    if not 0 <= p <= 1 or not margin > 0 or not 0 < level < 1:
        raise ValueError("sample_size needs p within 0 to 1, a margin above 0 and a level between 0 and 1")
    z = NormalDist().inv_cdf((1 + level) / 2)
    return max(1, math.ceil(z**2 * p * (1 - p) / margin**2))
    ### END SOLUTION
