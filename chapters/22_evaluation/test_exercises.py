"""Self-checks of chapter 22: worked examples and the laws that teach."""

import itertools
import math

import pytest
import torch

from grader.testing import close, counting, exact, exercise, holds, roughly


def letters(text):
    """A tokenizer whose tokens are characters."""
    return [ord(c) for c in text]


def flat(ids):
    """A model that gives every token the probability 1/2."""
    return torch.full((len(ids),), math.log(0.5), dtype=torch.float64)


@exercise("score_multiple_choice")
def test_sums_favour_short_choices(exercises):
    """If all tokens are equally probable, the shortest choice wins."""
    exact(exercises.score_multiple_choice(flat, letters, "2 + 2 =", ["four", "4", "5"]), 1, "the choice by sums")


@exercise("score_multiple_choice")
def test_means_forgive_length(exercises):
    """A long choice of probable tokens wins by its mean, not by its sum."""

    def model(ids):
        return torch.tensor([-1.0 if chr(i) in " four" else -2.0 for i in ids], dtype=torch.float64)

    choices = ["4", "four"]  # sums: -1 - 2 and -1 - 4; means: -1.5 and -1
    exact(exercises.score_multiple_choice(model, letters, "2 + 2 =", choices, "none"), 0, "the choice by sums")
    exact(exercises.score_multiple_choice(model, letters, "2 + 2 =", choices, "tokens"), 1, "the choice by means")


@exercise("score_multiple_choice")
def test_model_is_asked_once_a_choice(exercises):
    """The model reads prompt, space and choice, once for each choice."""
    model = counting(flat)
    exercises.score_multiple_choice(model, letters, "Q: ", ["a", " b"], "none")
    exact([list(ids) for (ids,) in model.arguments], [letters("Q: a"), letters("Q: b")], "the ids that were scored")


@exercise("pass_at_k")
def test_pass_at_2_of_four_samples(exercises):
    """Of the six pairs of four samples, three hold the only right one."""
    close(exercises.pass_at_k(4, 1, 2), 3 / 6, "pass_at_k(4, 1, 2)")
    pairs = list(itertools.combinations([True, True, False, False, False], 2))
    close(exercises.pass_at_k(5, 2, 2), sum(a or b for a, b in pairs) / len(pairs), "pass_at_k(5, 2, 2)")


@exercise("pass_at_k")
def test_pass_at_k_of_nothing_right(exercises):
    """Without a right sample it is 0, and k may not exceed n."""
    roughly(exercises.pass_at_k(6, 0, 6), 0.0, 1e-9, "pass_at_k(6, 0, 6)")
    with pytest.raises(ValueError):
        exercises.pass_at_k(6, 0, 7)


TESTS = "assert double(2) == 4\nassert double(-3) == -6"


@exercise("run_candidate")
def test_right_and_wrong_programs(exercises, execute):
    """A right program passes, a wrong one fails, a broken one errs."""
    for body, expected in (("return 2 * x", "passed"), ("return x * x", "failed"), ("return x.double", "error")):
        got = exercises.run_candidate(f"def double(x):\n    {body}", TESTS, 10.0, execute)
        exact(got, expected, f"the status of a program with {body!r}")


@exercise("run_candidate")
def test_leaving_early_is_no_pass(exercises, execute):
    """A program that boasts and leaves with exit code 0 has not passed."""
    for code in ("import sys\nprint('passed')\nsys.exit(0)", "import os\nprint('all tests passed')\nos._exit(0)"):
        exact(exercises.run_candidate(code, TESTS, 10.0, execute), "exited", f"the status of {code!r}")


@exercise("run_candidate")
def test_endless_program_times_out(exercises, execute):
    """A program without end is stopped by the sandbox and said to be so."""
    exact(exercises.run_candidate("while True: pass", TESTS, 0.5, execute), "timeout", "the status of an endless loop")


@exercise("elo_update")
def test_elo_of_equals_and_unequals(exercises):
    """Equals move by half of k, a favourite 400 above by an eleventh."""
    close(exercises.elo_update(1500, 1500, 1), (1516.0, 1484.0), "a win among equals")
    close(exercises.elo_update(1900, 1500, 1), (1900 + 32 / 11, 1500 - 32 / 11), "a win of the favourite")


@exercise("fit_bradley_terry")
def test_two_models(exercises):
    """After 3 wins to 1 the odds are 3 to 1, and the mean is 0."""
    r = exercises.fit_bradley_terry(torch.tensor([[0.0, 3.0], [1.0, 0.0]]))
    half = math.log(3) / 2
    roughly(r, torch.tensor([half, -half], dtype=torch.float64), 1e-5, "the ratings after 3 wins to 1")


@exercise("fit_bradley_terry")
def test_wins_equal_expected_wins(exercises):
    """At the best ratings each model won as often as they expect."""
    wins = torch.tensor([[0.0, 4, 7], [2, 0, 5], [1, 3, 0]], dtype=torch.float64)
    r = exercises.fit_bradley_terry(wins)
    expected = ((wins + wins.T) * torch.sigmoid(r[:, None] - r[None, :])).sum(1)
    roughly(expected, wins.sum(1), 1e-4, "the wins that the ratings expect")  # the penalty is far smaller


@exercise("fit_bradley_terry")
def test_leaderboard_has_the_winner_first(exercises, rng):
    """The winner stands first, its rating within its interval."""
    battles = [("owl", "elk", 1.0)] * 30 + [("elk", "owl", 1.0)] * 10 + [("elk", "owl", 0.5)] * 4
    rows = exercises.leaderboard_ci(battles, 100, rng.generator())
    exact([row[0] for row in rows], ["owl", "elk"], "the order")
    name, rating, low, high = rows[0]
    roughly(rating, math.log(32 / 12) / 2, 1e-4, "the rating of the owl, with ties as half wins")
    holds(low < rating < high, "The rating of the owl is not within its interval.")


@exercise("bootstrap_ci")
def test_ends_of_a_mean(exercises, rng):
    """The ends are quantiles of the values that the statistic gave."""
    values = []

    def stat(sample):
        values.append(sample.mean().item())
        return values[-1]

    got = exercises.bootstrap_ci(torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64), stat, 21, 0.9, rng.generator())
    ranked = sorted(values)
    exact(len(ranked), 21, "calls of the statistic")
    roughly(got, (ranked[1], ranked[19]), 1e-9, "the second lowest and the second highest of 21 means")


@exercise("bootstrap_ci")
def test_pairs_cancel_what_they_share(exercises, rng):
    """If one model is better by 0.5 on every question, that is certain."""
    b = rng.normal(30)
    got = exercises.paired_difference_ci(b + 0.5, b, 20, 0.95, rng.generator())
    roughly(got, (0.5, 0.5), 1e-9, "the interval of the difference")


@exercise("ngram_overlap")
def test_overlap_of_the_worked_example(exercises):
    """Two of the four pairs of words stand in the document."""
    got = exercises.ngram_overlap("The mill, by the river.", ["I saw THE MILL by a river"], n=2)
    close(got, 0.5, "the overlap with n=2")


@exercise("ngram_overlap")
def test_report_of_two_documents(exercises):
    """The report names every source, and where the canary is."""
    report = exercises.contamination_report(["a b c d", "x y z"], ["A b c!", "c d", "q Tweet"], n=2, canary="Tweet")
    expected = {"overlap": [1.0, 0.0], "sources": [[0, 1], []], "contaminated": [0], "canary": [2]}
    exact(report, expected, "the report")


@exercise("exact_match")
def test_answers_are_compared_by_words(exercises):
    """Articles, case and punctuation do not count."""
    exact(exercises.exact_match("The  Old Mill.", "old mill"), True, "exact_match('The  Old Mill.', 'old mill')")
    exact(exercises.exact_match("A", "the"), False, "exact_match('A', 'the')")
    close(exercises.token_f1("the old old mill", ["river", "old mill"]), 4 / 5, "F1 of 'old old mill', 'old mill'")


@exercise("exact_match")
def test_swap_finds_a_lazy_judge(exercises):
    """A judge who always takes the first one is never consistent."""
    got = exercises.judge_bias(lambda first, second: "first", [("yes", "no"), ("up", "down")])
    exact(got, {"first": 1.0, "longer": 0.5, "a_wins": 0.5, "consistent": 0.0}, "the report on the judge")


@exercise("exact_match")
def test_half_the_margin_takes_four_times_the_questions(exercises):
    """385 questions for 5 points, about four times as many for half of it."""
    exact(exercises.sample_size(0.5, 0.05), 385, "sample_size(0.5, 0.05)")
    exact(exercises.sample_size(0.5, 0.025), 1537, "sample_size(0.5, 0.025)")
