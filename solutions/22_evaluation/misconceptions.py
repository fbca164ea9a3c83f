"""Wrong answers of chapter 22 that people really give, each with the sentence that sets them right."""

import math
import re
import string
from collections import Counter
from statistics import NormalDist

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- score_multiple_choice


def scored(logprob_fn, encode, prompt, choices, normalize, start_of=None, text_of=None, divide=None, joint=None):
    """Score choices with one step done in another way."""
    prompt, choices = prompt.rstrip(), [choice.strip() for choice in choices]
    if normalize not in ("none", "tokens", "bytes") or not choices or "" in choices:
        raise ValueError("there must be choices with text in them, and a normalization that is known")
    scores = []
    for choice in choices:
        before = encode(prompt)
        ids = joint(choice) if joint else encode(text_of(prompt, choice) if text_of else f"{prompt} {choice}")
        if start_of:
            start = start_of(before, ids)
        else:
            start = next((i for i in range(len(ids)) if ids[i : i + 1] != before[i : i + 1]), len(ids))
        values = logprob_fn(ids)[start:]
        length = {"none": 1, "tokens": len(values), "bytes": len(choice.encode())}[normalize]
        scores.append(values.sum().item() / (divide(choice, values, normalize) if divide else length))
    return scores


def first_best(scores):
    return scores.index(max(scores))


@misconception(
    "score_multiple_choice", "You add up the whole text; the prompt's tokens belong to no choice and spoil the mean."
)
def counts_the_prompt(logprob_fn, encode, prompt, choices, normalize="none"):
    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, start_of=lambda before, ids: 0))


@misconception(
    "score_multiple_choice",
    "You divide by the number of tokens although normalize is 'none'; then only the sum counts.",
)
def always_averages(logprob_fn, encode, prompt, choices, normalize="none"):
    kind = "tokens" if normalize == "none" else normalize
    if normalize not in ("none", "tokens", "bytes"):
        raise ValueError(normalize)
    return first_best(scored(logprob_fn, encode, prompt, choices, kind))


@misconception(
    "score_multiple_choice",
    "You glue the choice to the prompt without a space; a model expects ' A', another token than 'A'.",
)
def without_space(logprob_fn, encode, prompt, choices, normalize="none"):
    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, text_of=lambda p, c: p + c))


@misconception(
    "score_multiple_choice",
    "You encode prompt and choice apart and join the ids; encode the whole text, as the model saw it.",
)
def encodes_apart(logprob_fn, encode, prompt, choices, normalize="none"):
    def joint(choice):
        return encode(prompt.rstrip()) + encode(f" {choice}")

    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, joint=joint))


@misconception(
    "score_multiple_choice",
    "You skip as many tokens as the prompt has alone; a token may span the seam, so look for the first that differs.",
)
def skips_by_count(logprob_fn, encode, prompt, choices, normalize="none"):
    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, start_of=lambda before, ids: len(before)))


@misconception(
    "score_multiple_choice",
    "For 'bytes' you divide by characters; a letter such as ö has two bytes in UTF-8, encode first.",
)
def counts_characters(logprob_fn, encode, prompt, choices, normalize="none"):
    def divide(choice, values, kind):
        return {"none": 1, "tokens": len(values), "bytes": len(choice)}[kind]

    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, divide=divide))


@misconception(
    "score_multiple_choice", "You count the space in front among the bytes; divide by the bytes of the choice alone."
)
def counts_the_space(logprob_fn, encode, prompt, choices, normalize="none"):
    def divide(choice, values, kind):
        return {"none": 1, "tokens": len(values), "bytes": len(choice.encode()) + 1}[kind]

    return first_best(scored(logprob_fn, encode, prompt, choices, normalize, divide=divide))


@misconception(
    "score_multiple_choice",
    "Of equally probable choices you take the last; the lowest index is asked for, so compare with >.",
)
def last_of_ties(logprob_fn, encode, prompt, choices, normalize="none"):
    scores = scored(logprob_fn, encode, prompt, choices, normalize)
    return max(i for i, score in enumerate(scores) if score == max(scores))


@misconception(
    "score_multiple_choice",
    "You keep the whitespace at the end of the prompt; strip it, or two spaces stand at the seam.",
)
def keeps_whitespace(logprob_fn, encode, prompt, choices, normalize="none"):
    reference.score_multiple_choice(logprob_fn=lambda ids: torch.zeros(len(ids)), encode=encode, prompt=prompt,
                                    choices=choices, normalize=normalize)  # fmt: skip
    scores = []
    for choice in choices:
        before, ids = encode(prompt), encode(f"{prompt} {choice}")
        start = next((i for i in range(len(ids)) if ids[i : i + 1] != before[i : i + 1]), len(ids))
        values = logprob_fn(ids)[start:]
        length = {"none": 1, "tokens": len(values), "bytes": len(choice.encode())}[normalize]
        scores.append(values.sum().item() / length)
    return first_best(scores)


# -- pass_at_k


def checked(n, c, k):
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError("no such group")


@misconception(
    "pass_at_k", "You draw with replacement, 1 - (1 - c/n)^k; a group holds k different samples, so count groups."
)
def with_replacement(n, c, k):
    checked(n, c, k)
    return 1 - (1 - c / n) ** k


@misconception(
    "pass_at_k", "Your shortcut to 1 fires when exactly k samples are wrong; one group is then still all wrong."
)
def guard_too_early(n, c, k):
    checked(n, c, k)
    if n - c <= k:
        return 1.0 if c else 0.0
    return reference.pass_at_k(n, c, k)


@misconception(
    "pass_at_k", "Your product leaves out its last factor, that of n; it runs from n - c + 1 to n, both included."
)
def one_factor_short(n, c, k):
    checked(n, c, k)
    if n - c < k:
        return 1.0
    return 1 - math.prod(1 - k / i for i in range(n - c + 1, n))


@misconception(
    "pass_at_k",
    "A group larger than the number of samples gives 1 even if none is right; refuse k > n with a ValueError.",
)
def accepts_large_groups(n, c, k):
    if not 0 <= c <= n or k < 1:
        raise ValueError("no such group")
    return 1.0 if n - c < k else reference.pass_at_k(n, c, k)


@misconception("pass_at_k", "You turn binomial coefficients into floats, which overflow; cancel the factors first.")
def overflows(n, c, k):
    checked(n, c, k)
    return 1 - float(math.comb(n - c, k)) / float(math.comb(n, k))


@misconception(
    "pass_at_k", "You say whether a group of k could hold a right sample; what is asked is how probable that is."
)
def any_right(n, c, k):
    checked(n, c, k)
    return float(c > 0)


# -- run_candidate

SILENCE = "import io, sys\nclass Silence(io.TextIOBase):\n    def write(self, text):\n        return len(text)\n"


def around(
    code, tests, token, before="", catch="Exception", names="{'__name__': '__main__'}", silent=True, runner="run"
):
    """A program like that of the reference, with one step done in another way."""
    hush = "sys.stdout = sys.stderr = Silence()" if silent else "pass"
    return f"""{SILENCE}
{before}
def main(run=exec, write=sys.stdout.write, flush=sys.stdout.flush):
    {hush}
    world = {names}
    try:
        {runner}({code!r}, world)
        {runner}({tests!r}, world)
        status = "passed"
    except AssertionError:
        status = "failed"
    except {catch}:
        status = "error"
    write({token!r} + " " + status)
    flush()

main()
"""


def read(outcome, token):
    if outcome["timed_out"]:
        return "timeout"
    _, proof, status = outcome["stdout"].partition(token)
    return status.split()[0] if proof else "exited"


def fresh():
    import secrets

    return secrets.token_hex(16)


@misconception(
    "run_candidate",
    "You take exit code 0 for a pass; a candidate that calls exit(0) has it too. Prove that the end was reached.",
)
def trusts_the_exit_code(code, tests, timeout, execute):
    outcome = execute(f"{code}\n{tests}\n", timeout)
    if outcome["timed_out"]:
        return "timeout"
    if outcome["exit_code"] == 0:
        return "passed"
    if "Traceback" not in outcome["stderr"] and "Error" not in outcome["stderr"]:
        return "exited"
    return "failed" if outcome["stderr"].strip().split("\n")[-1].startswith("AssertionError") else "error"


@misconception(
    "run_candidate",
    "You look for a fixed word on the output, which the candidate can print itself; draw a random token.",
)
def looks_for_a_word(code, tests, timeout, execute):
    outcome = execute(around(code, tests, "passed", silent=False), timeout)
    if outcome["timed_out"]:
        return "timeout"
    for status in ("passed passed", "passed failed", "passed error"):
        if status in outcome["stdout"]:
            return status.split()[1]
    return "passed" if "passed" in outcome["stdout"] else "exited"


@misconception(
    "run_candidate",
    "Your token is the same in every run; one leaked output then proves all. Draw a fresh one for each call.",
)
def one_token_for_all(code, tests, timeout, execute):
    return read(execute(around(code, tests, "7b1c2e9f40d84a6b"), timeout), "7b1c2e9f40d84a6b")


@misconception(
    "run_candidate", "A program that timed out counts as one that left early; look at timed_out before anything else."
)
def forgets_the_timeout(code, tests, timeout, execute):
    token = fresh()
    return read(execute(around(code, tests, token), timeout) | {"timed_out": False}, token)


@misconception(
    "run_candidate", "You run every candidate with a limit of your own; hand the timeout on as it was given."
)
def limit_of_its_own(code, tests, timeout, execute):
    token = fresh()
    return read(execute(around(code, tests, token), max(1.0, timeout)), token)


@misconception(
    "run_candidate",
    "You catch SystemExit with the exceptions; a candidate that leaves by exit() has exited, not erred.",
)
def catches_the_exit(code, tests, timeout, execute):
    token = fresh()
    return read(execute(around(code, tests, token, catch="BaseException"), timeout), token)


@misconception(
    "run_candidate", "Every exception is a failed test for you; only an AssertionError is, the others are errors."
)
def all_are_failures(code, tests, timeout, execute):
    status = reference.run_candidate(code, tests, timeout, execute)
    return "failed" if status == "error" else status


@misconception(
    "run_candidate",
    "The candidate's own output pushes your proof beyond what execute keeps; silence it before it runs.",
)
def drowns_in_output(code, tests, timeout, execute):
    token = fresh()
    return read(execute(around(code, tests, token, silent=False), timeout), token)


@misconception(
    "run_candidate",
    "You read the kind of failure from words on stderr, where messages may say anything; catch it by its type.",
)
def reads_stderr(code, tests, timeout, execute):
    token = fresh()
    world = "{'__name__': '__main__'}"
    program = f"import sys\nworld = {world}\nrun, write = exec, sys.stdout.write\nrun({code!r}, world)\n"
    outcome = execute(f"{program}run({tests!r}, world)\nwrite('{token}')\n", timeout)
    if outcome["timed_out"]:
        return "timeout"
    if token in outcome["stdout"]:
        return "passed"
    if "Traceback" not in outcome["stderr"] and "Error" not in outcome["stderr"]:
        return "exited"
    return "failed" if "AssertionError" in outcome["stderr"] else "error"


@misconception(
    "run_candidate",
    "The token stands in a global name that the candidate can read and print; give it names of its own.",
)
def token_in_sight(code, tests, timeout, execute):
    token = fresh()
    program = around(code, tests, token, before=f"TOKEN = {(token + ' passed')!r}", names="globals()")
    return read(execute(program, timeout), token)


@misconception(
    "run_candidate",
    "After the candidate ran you look exec up again, which it may have replaced in builtins; keep it before.",
)
def looks_exec_up_again(code, tests, timeout, execute):
    token = fresh()
    return read(execute(around(code, tests, token, runner="exec"), timeout), token)


# -- elo_update


@misconception("elo_update", "You compute the expected score of the other player; ten to the power of (rb - ra) / 400.")
def expects_the_other(ra, rb, score, k=32.0):
    step = k * (score - 1 / (1 + 10 ** ((ra - rb) / 400)))
    return ra + step, rb - step


@misconception("elo_update", "Only the first player's rating moves; what it gains, the second loses.")
def moves_one(ra, rb, score, k=32.0):
    return reference.elo_update(ra, rb, score, k)[0], float(rb)


@misconception("elo_update", "Both ratings move by twice the surprise; each moves by k times it.")
def doubles_k(ra, rb, score, k=32.0):
    return reference.elo_update(ra, rb, score, 2 * k)


@misconception("elo_update", "You use e where Elo's scale has base 10: 400 points are odds of 10 to 1.")
def natural_base(ra, rb, score, k=32.0):
    step = k * (score - 1 / (1 + math.exp((rb - ra) / 400)))
    return ra + step, rb - step


@misconception("elo_update", "You ignore k and always move by 32 times the surprise; 32 is only the default.")
def ignores_k(ra, rb, score, k=32.0):
    return reference.elo_update(ra, rb, score)


@misconception(
    "elo_update", "The second update uses the first player's new rating; both are computed from the old ones."
)
def one_after_the_other(ra, rb, score, k=32.0):
    a = ra + k * (score - 1 / (1 + 10 ** ((rb - ra) / 400)))
    return a, rb + k * ((1 - score) - 1 / (1 + 10 ** ((a - rb) / 400)))


@misconception("elo_update", "A draw changes nothing in your update; half a point is more or less than was expected.")
def draws_change_nothing(ra, rb, score, k=32.0):
    return (float(ra), float(rb)) if score == 0.5 else reference.elo_update(ra, rb, score, k)


# -- fit_bradley_terry, leaderboard_ci


@misconception("fit_bradley_terry", "Your ratings have the wrong sign: wins[i, j] counts how often i, the row, won.")
def wrong_sign(wins, l2=1e-6):
    return -reference.fit_bradley_terry(wins, l2)


@misconception(
    "fit_bradley_terry",
    "You play Elo through the table in one order; Bradley-Terry takes the ratings that fit all at once.",
)
def elo_pass(wins, l2=1e-6):
    ratings = [0.0] * len(wins)
    for i in range(len(wins)):
        for j in range(len(wins)):
            for _ in range(int(wins[i, j])):
                ratings[i], ratings[j] = reference.elo_update(ratings[i], ratings[j], 1.0)
    r = torch.tensor(ratings, dtype=torch.float64) * math.log(10) / 400
    return r - r.mean()


@misconception("fit_bradley_terry", "You rate by the share of games won; whom a model beat must count as well.")
def share_of_wins(wins, l2=1e-6):
    won, games = wins.double().sum(1), (wins + wins.T).double().sum(1)
    share = ((won + 1e-9) / (games + 2e-9)).clamp(1e-9, 1 - 1e-9)
    r = share.log() - (1 - share).log()
    return r - r.mean()


@misconception(
    "fit_bradley_terry", "The penalty is missing, or too weak; with a weight of 5 it must pull ratings together."
)
def forgets_the_penalty(wins, l2=1e-6):
    return reference.fit_bradley_terry(wins, 1e-6)


@misconception(
    "fit_bradley_terry",
    "Your penalty is l2 times the squares, twice what is asked: its derivative is l2 * r, without a 2.",
)
def penalty_twice(wins, l2=1e-6):
    return reference.fit_bradley_terry(wins, 2 * l2)


@misconception(
    "fit_bradley_terry",
    "A fixed number of gradient steps does not arrive when somebody never lost; use Newton's method.",
)
def gradient_steps(wins, l2=1e-6):
    wins = wins.double()
    games = wins + wins.T
    r = torch.zeros(len(wins), dtype=torch.float64)
    rate = 1 / max(1.0, games.sum(1).max().item())
    for _ in range(300):
        r = r + rate * ((wins - games * torch.sigmoid(r[:, None] - r)).sum(1) - l2 * r)
    return r


@misconception("fit_bradley_terry", "The first model is fixed at 0; the penalty puts the mean of all ratings at 0.")
def anchors_the_first(wins, l2=1e-6):
    r = reference.fit_bradley_terry(wins, l2)
    return r - r[0]


def table(battles, n_boot, draw, ends=(0.025, 0.975), order=1, weight=lambda score: score):
    """A leaderboard with one step done in another way; `draw` gives the battles of a resample."""
    names = sorted({name for a, b, _ in battles for name in (a, b)})

    def rate(some):
        wins = torch.zeros(len(names), len(names), dtype=torch.float64)
        for a, b, score in some:
            wins[names.index(a), names.index(b)] += weight(score)
            wins[names.index(b), names.index(a)] += weight(1 - score)
        return reference.fit_bradley_terry(wins)

    ratings = rate(battles).tolist()
    boot = torch.stack([rate(draw(battles)) for _ in range(n_boot)])
    low, high = boot.quantile(torch.tensor(ends, dtype=torch.float64), dim=0).tolist()
    return sorted(zip(names, ratings, low, high, strict=True), key=lambda row: -order * row[1])


def picked(rng, count=None):
    def draw(battles):
        return [battles[i] for i in torch.randint(len(battles), (count or len(battles),), generator=rng).tolist()]

    return draw


@misconception(
    "fit_bradley_terry",
    "Your resamples are the battles in another order; draw with replacement, or no interval has any width.",
    replaces="leaderboard_ci",
)
def shuffles_battles(battles, n_boot, rng):
    return table(battles, n_boot, lambda some: [some[i] for i in torch.randperm(len(some), generator=rng).tolist()])


@misconception(
    "fit_bradley_terry",
    "You draw names and scores apart; a battle must be drawn whole, or every resample is noise.",
    replaces="leaderboard_ci",
)
def draws_scores_apart(battles, n_boot, rng):
    draw = picked(rng)

    def apart(some):
        return [(a, b, score) for (a, b, _), (_, _, score) in zip(draw(some), draw(some), strict=True)]

    return table(battles, n_boot, apart)


@misconception(
    "fit_bradley_terry",
    "You drop ties; half a win for each side makes the two models alike, which is information.",
    replaces="leaderboard_ci",
)
def drops_ties(battles, n_boot, rng):
    return table(battles, n_boot, picked(rng), weight=lambda score: score * (score != 0.5))


@misconception(
    "fit_bradley_terry",
    "Your ends leave 5 percent outside on each side; a 95 % interval has its ends at 0.025 and 0.975.",
    replaces="leaderboard_ci",
)
def ninety_percent(battles, n_boot, rng):
    return table(battles, n_boot, picked(rng), ends=(0.05, 0.95))


@misconception(
    "fit_bradley_terry",
    "Your table begins with the weakest model; the highest rating stands first.",
    replaces="leaderboard_ci",
)
def weakest_first(battles, n_boot, rng):
    return table(battles, n_boot, picked(rng), order=-1)


@misconception(
    "fit_bradley_terry",
    "You report the mean of the refits as the rating; the rating is the fit on all battles.",
    replaces="leaderboard_ci",
)
def mean_of_refits(battles, n_boot, rng):
    names = sorted({name for a, b, _ in battles for name in (a, b)})
    rows, draw = {name: [] for name in names}, picked(rng)
    for _ in range(n_boot):
        for name, rating, _, _ in table(draw(battles), 1, lambda some: some):
            rows[name].append(rating)
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    values = {name: torch.tensor(row or [0.0], dtype=torch.float64) for name, row in rows.items()}
    out = [(name, v.mean().item(), *v.quantile(ends).tolist()) for name, v in values.items()]
    return sorted(out, key=lambda row: -row[1])


# -- bootstrap_ci, paired_difference_ci


def interval(values, low, high):
    ends = torch.tensor([low, high], dtype=torch.float64)
    return tuple(torch.as_tensor(values, dtype=torch.float64).quantile(ends).tolist())


def valid(x, n, level):
    if len(x) == 0 or n < 1 or not 0 < level < 1:
        raise ValueError("senseless")


@misconception(
    "bootstrap_ci", "You draw without replacement, so that every resample is x again; use torch.randint, not randperm."
)
def without_replacement(x, stat, n, level, rng):
    valid(x, n, level)
    values = [float(stat(x[torch.randperm(len(x), generator=rng)])) for _ in range(n)]
    return interval(values, (1 - level) / 2, (1 + level) / 2)


@misconception(
    "bootstrap_ci", "You leave 1 - level outside on each side; both sides together leave it, so halve it for each."
)
def tails_not_halved(x, stat, n, level, rng):
    valid(x, n, level)
    values = [float(stat(x[torch.randint(len(x), (len(x),), generator=rng)])) for _ in range(n)]
    return interval(values, min(0.5, 1 - level), max(0.5, level))


@misconception("bootstrap_ci", "Your ends are swapped: the lower quantile comes first.")
def swapped_ends(x, stat, n, level, rng):
    low, high = reference.bootstrap_ci(x, stat, n, level, rng)
    return high, low


@misconception("bootstrap_ci", "Your interval is always one of 95 percent; the level is an argument.")
def always_95(x, stat, n, level, rng):
    valid(x, n, level)
    return reference.bootstrap_ci(x, stat, n, 0.95, rng)


@misconception(
    "bootstrap_ci", "You put 1.96 standard deviations around the mean; take quantiles of the resampled values instead."
)
def normal_ends(x, stat, n, level, rng):
    valid(x, n, level)
    values = torch.tensor(
        [float(stat(x[torch.randint(len(x), (len(x),), generator=rng)])) for _ in range(n)], dtype=torch.float64
    )
    half = NormalDist().inv_cdf((1 + level) / 2) * (values.std().item() if n > 1 else 0.0)
    return values.mean().item() - half, values.mean().item() + half


@misconception(
    "bootstrap_ci", "Your resamples have half the size of x; only resamples of the same size vary as x does."
)
def half_the_size(x, stat, n, level, rng):
    valid(x, n, level)
    size = max(1, len(x) // 2)
    values = [float(stat(x[torch.randint(len(x), (size,), generator=rng)])) for _ in range(n)]
    return interval(values, (1 - level) / 2, (1 + level) / 2)


@misconception("bootstrap_ci", "You draw from torch's global generator; all draws must come from `rng`.")
def ignores_rng(x, stat, n, level, rng):
    valid(x, n, level)
    values = [float(stat(x[torch.randint(len(x), (len(x),))])) for _ in range(n)]
    return interval(values, (1 - level) / 2, (1 + level) / 2)


@misconception(
    "bootstrap_ci",
    "You resample the two models independently; both scores of a question must be drawn together.",
    replaces="paired_difference_ci",
)
def independent_indices(a, b, n, level, rng):
    valid(a, n, level)
    if len(a) != len(b):
        raise ValueError("unequal")
    N = len(a)
    draws = [(torch.randint(N, (N,), generator=rng), torch.randint(N, (N,), generator=rng)) for _ in range(n)]
    return interval([float(a[i].mean() - b[j].mean()) for i, j in draws], (1 - level) / 2, (1 + level) / 2)


@misconception(
    "bootstrap_ci",
    "You subtract the intervals of both models end by end; the difference needs an interval of its own.",
    replaces="paired_difference_ci",
)
def subtracts_intervals(a, b, n, level, rng):
    if len(a) != len(b):
        raise ValueError("unequal")
    one = reference.bootstrap_ci(a, lambda v: v.mean().item(), n, level, rng)
    other = reference.bootstrap_ci(b, lambda v: v.mean().item(), n, level, rng)
    return one[0] - other[1], one[1] - other[0]


@misconception(
    "bootstrap_ci", "You give the interval of mean(b) - mean(a); the first model's mean stands first.",
    replaces="paired_difference_ci",
)  # fmt: skip
def other_way_round(a, b, n, level, rng):
    return reference.paired_difference_ci(b, a, n, level, rng)


# -- ngram_overlap, contamination_report


def split(text):
    return re.findall(r"[^\W_]+", text.lower())


def rows_of(words, size):
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)} if size else set()


def overlap(test, train, n, words=split, join=False, over=None, short=True, aggregate=None):
    """An overlap with one step done in another way."""
    if n < 1:
        raise ValueError("n must be at least 1")
    mine = words(test)
    size = min(n, len(mine)) if short else n
    ours = rows_of(mine, size)
    if not ours:
        return 0.0
    documents = [[w for d in train for w in words(d)]] if join else [words(d) for d in train]
    grams = [rows_of(d, size) for d in documents]
    found = ours & set().union(*grams)
    return len(found) / (over(ours, grams) if over else len(ours))


@misconception("ngram_overlap", "You divide by the n-grams of the documents; the part of the test text is asked for.")
def over_the_training(test, train, n=13):
    return overlap(test, train, n, over=lambda ours, grams: max(1, len(set().union(*grams))))


@misconception("ngram_overlap", "Any shared n-gram gives 1 with you; give the part of them that is shared.")
def all_or_nothing(test, train, n=13):
    return float(overlap(test, train, n) > 0)


@misconception(
    "ngram_overlap", "You look for the whole test text in a document; a copy of half of it is a leak as well."
)
def whole_text_only(test, train, n=13):
    if n < 1:
        raise ValueError("n must be at least 1")
    mine = split(test)
    return float(bool(mine) and any(tuple(mine) in rows_of(split(d), len(mine)) for d in train))


@misconception("ngram_overlap", "You split at spaces only; case and punctuation must not hide a copy.")
def spaces_only(test, train, n=13):
    return overlap(test, train, n, words=str.split)


@misconception("ngram_overlap", "You delete punctuation, which joins words such as don't; it separates them.")
def deletes_punctuation(test, train, n=13):
    return overlap(
        test, train, n, words=lambda text: text.lower().translate(str.maketrans("", "", string.punctuation)).split()
    )


@misconception("ngram_overlap", "You join the documents, so that an n-gram may begin in one and end in the next.")
def joins_documents(test, train, n=13):
    return overlap(test, train, n, join=True)


@misconception("ngram_overlap", "A test text shorter than n counts as clean with you; look for it as a whole.")
def short_is_clean(test, train, n=13):
    return overlap(test, train, n, short=False)


@misconception("ngram_overlap", "You stop at the first document that shares something; others may hold other parts.")
def first_document_only(test, train, n=13):
    if n < 1:
        raise ValueError("n must be at least 1")
    return next((part for part in (overlap(test, [d], n) for d in train) if part > 0), 0.0)


@misconception(
    "ngram_overlap", "You count a repeated n-gram of the test text each time; each different one counts once."
)
def counts_repetitions(test, train, n=13):
    if n < 1:
        raise ValueError("n must be at least 1")
    mine = split(test)
    size = min(n, len(mine))
    theirs = set().union(*(rows_of(split(d), size) for d in train))
    ours = [tuple(mine[i : i + size]) for i in range(len(mine) - size + 1)] if size else []
    return sum(gram in theirs for gram in ours) / len(ours) if ours else 0.0


@misconception(
    "ngram_overlap",
    "You name only the first source of each test text; all documents that share an n-gram are asked for.",
    replaces="contamination_report",
)
def first_source_only(tests, train, n=13, threshold=0.5, canary=None):
    report = reference.contamination_report(tests, train, n, threshold, canary)
    return report | {"sources": [sources[:1] for sources in report["sources"]]}


@misconception(
    "ngram_overlap",
    "A text whose overlap equals the threshold is clean with you; at least the threshold is contaminated.",
    replaces="contamination_report",
)
def above_threshold(tests, train, n=13, threshold=0.5, canary=None):
    report = reference.contamination_report(tests, train, n, threshold, canary)
    return report | {"contaminated": [i for i, part in enumerate(report["overlap"]) if part > threshold]}


@misconception(
    "ngram_overlap",
    "You search for the canary without its case; it is there to be found exactly as it is.",
    replaces="contamination_report",
)
def canary_without_case(tests, train, n=13, threshold=0.5, canary=None):
    report = reference.contamination_report(tests, train, n, threshold, canary)
    found = [i for i, d in enumerate(train) if canary is not None and canary.lower() in d.lower()]
    return report | {"canary": found}


@misconception(
    "ngram_overlap",
    "You stop at the first document with the canary; every one of them has to go.",
    replaces="contamination_report",
)
def first_canary(tests, train, n=13, threshold=0.5, canary=None):
    report = reference.contamination_report(tests, train, n, threshold, canary)
    return report | {"canary": report["canary"][:1]}


# -- exact_match, token_f1, judge_bias, sample_size


def bare(text, articles=("a", "an", "the"), keep=True, replacement=""):
    table = {ord(c): replacement for c in string.punctuation}
    words = text.lower().translate(table).split()
    left = [word for word in words if word not in articles]
    return left or (words if keep else [])


@misconception("exact_match", "You compare the raw texts; case, punctuation, articles and spaces must not count.")
def raw_comparison(pred, gold):
    return pred.strip() == gold.strip()


@misconception("exact_match", "You drop articles even if nothing is left, so that the answers A and the are the same.")
def loses_the_answer_a(pred, gold):
    return bare(pred, keep=False) == bare(gold, keep=False)


@misconception("exact_match", "You cut articles out of words, so that theatre loses its head; drop whole words only.")
def cuts_articles_out(pred, gold):
    return "".join(c for c in re.sub("the", "", pred.lower()) if c.isalnum()) == "".join(
        c for c in re.sub("the", "", gold.lower()) if c.isalnum()
    )


@misconception("exact_match", "You put a space in place of punctuation; it is deleted, so that 3,000 is 3000.")
def spaces_for_punctuation(pred, gold):
    return bare(pred, replacement=" ") == bare(gold, replacement=" ")


@misconception("exact_match", "You compare sets of words; order and repetition count in an exact match.")
def compares_sets(pred, gold):
    return set(bare(pred)) == set(bare(gold))


def f1_by(shared, pred, golds, choose=max):
    if not golds:
        raise ValueError("no right answer")
    scores = []
    for gold in golds:
        one, other = bare(pred), bare(gold)
        scores.append(2 * shared(one, other) / (len(one) + len(other)) if one or other else 1.0)
    return choose(scores)


def multiset(one, other):
    return (Counter(one) & Counter(other)).total()


@misconception(
    "exact_match",
    "Your F1 compares sets; a word said three times is shared once only if the right answer has it once.",
    replaces="token_f1",
)
def f1_of_sets(pred, golds):
    if not golds:
        raise ValueError("no right answer")
    pairs = [(set(bare(pred)), set(bare(gold))) for gold in golds]
    return max(2 * len(p & g) / (len(p) + len(g)) if p or g else 1.0 for p, g in pairs)


@misconception(
    "exact_match",
    "You average over the right answers; the one that is nearest counts.",
    replaces="token_f1",
)
def mean_over_golds(pred, golds):
    return f1_by(multiset, pred, golds, lambda scores: sum(scores) / len(scores))


@misconception(
    "exact_match",
    "You compare with the first right answer only; the nearest may stand anywhere.",
    replaces="token_f1",
)
def first_gold(pred, golds):
    return f1_by(multiset, pred, golds[:1])


@misconception(
    "exact_match",
    "You give recall: an answer that says everything would be perfect. F1 also divides by the words of the answer.",
    replaces="token_f1",
)
def recall_only(pred, golds):
    if not golds:
        raise ValueError("no right answer")
    return max(multiset(bare(pred), bare(g)) / len(bare(g)) if bare(g) else float(not bare(pred)) for g in golds)


@misconception(
    "exact_match",
    "Every word of the answer that occurs in the right one counts; a word is shared as often as both have it.",
    replaces="token_f1",
)
def counts_each_occurrence(pred, golds):
    return f1_by(lambda one, other: sum(word in other for word in one), pred, golds)


@misconception(
    "exact_match",
    "You ask the judge in one order only; place and quality cannot be told apart that way.",
    replaces="judge_bias",
)
def one_order(judge, pairs):
    if not pairs:
        raise ValueError("no pairs")
    share = {"first": 1.0, "tie": 0.5, "second": 0.0}
    gets = [share[judge(a, b)] for a, b in pairs]
    longer = [g if len(a) > len(b) else 1 - g for (a, b), g in zip(pairs, gets, strict=True) if len(a) != len(b)]
    mean = sum(gets) / len(gets)
    return {
        "first": mean,
        "longer": sum(longer) / len(longer) if longer else None,
        "a_wins": mean,
        "consistent": 1.0,
    }


def judged(judge, pairs, tie=0.5, turn=True, same=None):
    if not pairs:
        raise ValueError("no pairs")
    share = {"first": 1.0, "tie": tie, "second": 0.0}
    forward, backward = [judge(a, b) for a, b in pairs], [judge(b, a) for a, b in pairs]
    lead = [(share[x], share[y]) for x, y in zip(forward, backward, strict=True)]
    gets = [(x, 1 - y if turn else y) for x, y in lead]
    longer = [
        sum(g) / 2 if len(a) > len(b) else 1 - sum(g) / 2
        for (a, b), g in zip(pairs, gets, strict=True)
        if len(a) != len(b)
    ]
    agree = same or (lambda x, y: {x, y} in ({"first", "second"}, {"tie"}))
    return {
        "first": sum(map(sum, lead)) / 2 / len(pairs),
        "longer": sum(longer) / len(longer) if longer else None,
        "a_wins": sum(map(sum, gets)) / 2 / len(pairs),
        "consistent": sum(agree(x, y) for x, y in zip(forward, backward, strict=True)) / len(pairs),
    }


@misconception(
    "exact_match",
    "In the second order 'first' means b, but you still count it for a.",
    replaces="judge_bias",
)
def forgets_the_swap(judge, pairs):
    return judged(judge, pairs, turn=False)


@misconception(
    "exact_match", "A tie counts for nobody with you; it is half a verdict for each side.", replaces="judge_bias"
)
def ties_for_nobody(judge, pairs):
    return judged(judge, pairs, tie=0.0)


@misconception(
    "exact_match",
    "You call a judge consistent who says the same word twice; that word means the other answer after the swap.",
    replaces="judge_bias",
)
def same_word_twice(judge, pairs):
    return judged(judge, pairs, same=lambda x, y: x == y)


@misconception(
    "exact_match",
    "Pairs of equal length count half for the longer one; there is no longer one, so leave them out.",
    replaces="judge_bias",
)
def equal_lengths_count(judge, pairs):
    report = judged(judge, pairs)
    n = sum(len(a) != len(b) for a, b in pairs)
    return report | {"longer": ((report["longer"] or 0.0) * n + 0.5 * (len(pairs) - n)) / len(pairs)}


def size(p, margin, level, formula):
    if not 0 <= p <= 1 or not margin > 0 or not 0 < level < 1:
        raise ValueError("senseless")
    return max(1, math.ceil(formula(NormalDist().inv_cdf((1 + level) / 2), p * (1 - p), margin)))


@misconception(
    "exact_match", "The margin is not squared: half the margin takes four times the questions.", replaces="sample_size"
)
def margin_not_squared(p, margin, level=0.95):
    return size(p, margin, level, lambda z, variance, m: z**2 * variance / m)


@misconception(
    "exact_match", "You use the worst case p = 0.5 whatever p is; the variance is p * (1 - p).", replaces="sample_size"
)
def worst_case(p, margin, level=0.95):
    return size(p, margin, level, lambda z, variance, m: z**2 * 0.25 / m**2)


@misconception(
    "exact_match",
    "You take the quantile at the level itself; both tails together leave 1 - level.",
    replaces="sample_size",
)
def one_tail(p, margin, level=0.95):
    size(p, margin, level, lambda z, variance, m: 1)
    z = NormalDist().inv_cdf(level)
    return max(1, math.ceil(z**2 * p * (1 - p) / margin**2))


@misconception(
    "exact_match", "You round down, and miss the margin by one question; the next whole number is asked for.",
    replaces="sample_size",
)  # fmt: skip
def rounds_down(p, margin, level=0.95):
    size(p, margin, level, lambda z, variance, m: 1)
    z = NormalDist().inv_cdf((1 + level) / 2)
    return max(1, int(z**2 * p * (1 - p) / margin**2))


@misconception(
    "exact_match", "1.96 belongs to 95 percent alone; compute the quantile of the level that is asked for.",
    replaces="sample_size",
)  # fmt: skip
def always_1_96(p, margin, level=0.95):
    return size(p, margin, level, lambda z, variance, m: 1.96**2 * variance / m**2)
