"""The whole contract of chapter 20, against brute force, closed forms, planted truths and scripted judges."""

import math
from collections import Counter
from statistics import fmean

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, dataset, exact, exercise, holds, pure, roughly

DOUBLE = torch.float64


def answers(rng, N, power=2.0):
    """N answers of an overconfident model: a confidence c is right with probability c ** power."""
    conf = rng.uniform(N)
    return conf, rng.uniform(N) < conf**power


def binned(conf, correct, n_bins):
    """The bins one by one, with plain comparisons: lists of (confidence, right)."""
    pairs = list(zip(conf.tolist(), correct.tolist(), strict=True))
    return [
        [(c, y) for c, y in pairs if m / n_bins < c <= (m + 1) / n_bins or (m == 0 and c == 0)] for m in range(n_bins)
    ]


def table(bins):
    """Counts, mean confidences and accuracies of the bins."""
    means = [[fmean(column) if column else math.nan for column in ([c for c, _ in b], [y for _, y in b])] for b in bins]
    mean_conf, accuracy = torch.tensor(means, dtype=DOUBLE).unbind(1)
    return torch.tensor([len(b) for b in bins]), mean_conf, accuracy


def gap(bins):
    """The expected calibration error, bin by bin."""
    N = sum(map(len, bins))
    return sum(abs(sum(y for _, y in b) - sum(c for c, _ in b)) for b in bins) / N


# -- ece, reliability_bins -----------------------------------------------------------------------------------------


@exercise("ece", weight=2)
def test_bins_agree_with_comparisons(exercises, rng):
    """Counts, mean confidences and accuracies are those of each bin."""
    for N, n_bins in ((57, 4), (41, 7), (30, 1), (9, 13)):
        conf, correct = answers(rng, N)
        got = exercises.reliability_bins(conf, correct, n_bins)
        close(got, table(binned(conf, correct, n_bins)), f"reliability_bins of {N} answers, {n_bins} bins")
    close(exercises.reliability_bins(conf, correct), table(binned(conf, correct, 10)), "bins, as many as usual")


@exercise("ece", weight=2)
def test_bins_own_their_upper_edge(exercises):
    """An edge belongs to the bin below it, 0 to the first, 1 to the last."""
    conf = torch.tensor([0.25, 1.0, 0.0, 0.75, 0.5, 0.25, 1.0, 0.125, 0.625, 0.0], dtype=DOUBLE)
    correct = torch.tensor([True, False, True, True, False, False, True, True, True, False])
    for n_bins in (4, 8, 2):
        got = exercises.reliability_bins(conf, correct, n_bins)
        close(got, table(binned(conf, correct, n_bins)), f"reliability_bins of edges, {n_bins} bins")
    for edge, place in ((0.25, 0), (0.5, 1), (0.75, 2), (1.0, 3), (0.0, 0)):
        counts = exercises.reliability_bins(torch.tensor([edge], dtype=DOUBLE), torch.tensor([True]), 4)[0]
        exact(counts, torch.eye(4, dtype=torch.int64)[place], f"the counts of one confidence of {edge} in 4 bins")


@exercise("ece", weight=3)
def test_ece_is_the_weighted_gap(exercises, rng):
    """It weights each bin's gap by the answers in it."""
    for N, n_bins in ((83, 5), (50, 12), (20, 1), (6, 30)):
        conf, correct = answers(rng, N, power=3.0)
        close(exercises.ece(conf, correct, n_bins), gap(binned(conf, correct, n_bins)), f"ece of {N}, {n_bins} bins")
    conf, correct = answers(rng, 200)
    close(exercises.ece(conf, correct), gap(binned(conf, correct, 10)), "ece with the bins that are usual")


@exercise("ece")
def test_ece_counts_total_certainty(exercises):
    """A model that is always sure and always wrong has the worst score."""
    ones, N = torch.ones(7, dtype=DOUBLE), 7
    for conf, correct, what in ((ones, False, "sure and wrong"), (0 * ones, True, "sure to fail, and right")):
        got = exercises.ece(conf, torch.full((N,), correct), n_bins=4)
        close(got, 1.0, f"ece of a model that is {what}")
        close(exercises.ece(conf, torch.full((N,), not correct), n_bins=4), 0.0, "ece of one that knows")
    mixed = torch.tensor([0.0, 0.5, 1.0, 1.0, 0.0], dtype=DOUBLE)
    right = torch.tensor([True, True, False, True, False])
    close(exercises.ece(mixed, right, 2), gap(binned(mixed, right, 2)), "ece of confidences 0, 0.5 and 1")


@exercise("ece")
def test_ece_lets_no_gaps_cancel(exercises):
    """Too bold in one bin and too shy in another do not make up for it."""
    conf = torch.tensor([0.1] * 4 + [0.9] * 4, dtype=DOUBLE)
    close(exercises.ece(conf, torch.tensor([True, False] * 4), 5), 0.4, "ece of 0.1 and 0.9, both right half the time")
    same = torch.tensor([0.6] * 10, dtype=DOUBLE)
    close(exercises.ece(same, torch.tensor([True] * 6 + [False] * 4), 5), 0.0, "ece of 0.6, right 6 times of 10")


@exercise("ece")
def test_ece_depends_on_the_set_of_answers_only(exercises, rng):
    """Shuffling the answers, or counting each three times, changes nothing."""
    conf, correct = answers(rng, 64)
    expected, order = gap(binned(conf, correct, 6)), rng.permutation(64)
    close(exercises.ece(conf[order], correct[order], 6), expected, "ece of shuffled answers")
    close(exercises.ece(conf.repeat(3), correct.repeat(3), 6), expected, "ece of every answer three times")


@exercise("ece")
def test_ece_of_an_honest_model_is_noise(exercises, rng):
    """A perfectly calibrated model scores no more than chance explains."""
    N, n_bins = 20_000, 10
    conf, correct = answers(rng, N, power=1.0)
    bins = [conf[(conf * n_bins).long() == m] for m in range(n_bins)]
    # a bin's gap is the absolute value of a nearly normal variable; three times the sum of means is over 8 sigma away
    noise = sum(math.sqrt(2 / math.pi * float((c * (1 - c)).sum())) for c in bins) / N
    got = exercises.ece(conf, correct, n_bins)
    holds(0 < got < 3 * noise, f"ece of an honest model is {got:.5f}; chance explains {noise:.5f}.")


@exercise("ece")
def test_bins_refuse_what_is_no_confidence(exercises):
    """No answers, other lengths, values outside 0 to 1, no bins: ValueError."""
    yes = torch.tensor([True, True])
    cases = [([0.5, 1.5], yes, 4), ([-0.1, 0.5], yes, 4), ([0.5, math.nan], yes, 4), ([0.5], yes, 4)]
    cases += [([], yes[:0], 4), ([0.5, 0.5], yes, 0)]
    for conf, correct, n_bins in cases:
        for function in (exercises.ece, exercises.reliability_bins):
            with pytest.raises(ValueError):
                function(torch.tensor(conf, dtype=DOUBLE), correct, n_bins)


@exercise("ece")
def test_bins_of_float32_confidences(exercises, rng):
    """float32 is taken up in float64, and no argument is changed."""
    conf, correct = answers(rng, 77)
    expected = binned(conf.float(), correct, 3)
    close(pure(exercises.reliability_bins, conf.float(), correct, n_bins=3), table(expected), "bins of float32")
    close(pure(exercises.ece, conf.float(), correct, n_bins=3), gap(expected), "ece of float32 confidences")


# -- brier, brier_decomposition ------------------------------------------------------------------------------------


def forecasts(rng, N=60, values=(0.05, 0.2, 0.55, 0.7, 0.93)):
    """Forecasts of few distinct values in random order, and outcomes that do not quite keep to them."""
    p = torch.tensor(values, dtype=DOUBLE)[rng.integers(0, len(values), N)]
    return p, rng.uniform(N) < p**2


def parts(p, y):
    """The three parts, group by group."""
    groups, N, o = {}, len(p), fmean(y.tolist())
    for forecast, outcome in zip(p.tolist(), y.tolist(), strict=True):
        groups.setdefault(forecast, []).append(outcome)
    reliability = sum(len(g) * (f - fmean(g)) ** 2 for f, g in groups.items()) / N
    return reliability, sum(len(g) * (fmean(g) - o) ** 2 for g in groups.values()) / N, o * (1 - o)


@exercise("brier", weight=2)
def test_brier_is_the_mean_square(exercises, rng):
    """It is the mean of the squared differences, float32 included."""
    for N in (1, 3, 40):
        p, y = rng.uniform(N), rng.uniform(N) < 0.4
        for forecast in (p, p.float()):
            expected = fmean((f - o) ** 2 for f, o in zip(forecast.tolist(), y.tolist(), strict=True))
            close(pure(exercises.brier, forecast, y), expected, f"brier of {N} forecasts of {forecast.dtype}")


@exercise("brier")
def test_brier_ranges_from_perfect_to_perverse(exercises):
    """Perfect forecasts score 0, perverse ones 1, and a shrug a quarter."""
    y = torch.tensor([True, False, False])
    for p, expected in ((y.double(), 0.0), (1 - y.double(), 1.0), (torch.full((3,), 0.5, dtype=DOUBLE), 0.25)):
        close(exercises.brier(p, y), expected, f"brier of forecasts {p.tolist()}")


@exercise("brier")
def test_brier_rewards_honesty(exercises):
    """Of all constant forecasts the true share scores best."""
    y = torch.tensor([True] * 7 + [False] * 13)
    scores = {k: float(exercises.brier(torch.full((20,), k / 20, dtype=DOUBLE), y)) for k in range(21)}
    exact(min(scores, key=scores.get), 7, "the best constant forecast of 7 in 20, in twentieths")
    close(scores[7], 0.35 * 0.65, "its score")


@exercise("brier", weight=3)
def test_parts_are_taken_group_by_group(exercises, rng):
    """Equal forecasts form a group, weighted by its size, in any order."""
    for N, values in ((60, (0.05, 0.2, 0.55, 0.7, 0.93)), (45, (0.41, 0.4102, 0.47)), (8, (0.0, 1.0, 0.5))):
        p, y = forecasts(rng, N, values)
        got = pure(exercises.brier_decomposition, p, y)
        close(got, parts(p, y), f"the parts of {N} forecasts among {values}")
    p = torch.tensor([0.3, 0.1 + 0.2] * 4, dtype=DOUBLE)  # 0.1 + 0.2 is another float
    y = torch.tensor([True, False, False, False] * 2)
    close(exercises.brier_decomposition(p, y), parts(p, y), "the parts of 0.3 and 0.1 + 0.2")


@exercise("brier", weight=2)
def test_parts_add_up_to_brier(exercises, rng):
    """Reliability less resolution plus uncertainty is the Brier score."""
    for p, y in (forecasts(rng, 31), forecasts(rng, 90, (0.11, 0.12, 0.87)), (rng.uniform(25), rng.uniform(25) < 0.3)):
        reliability, resolution, uncertainty = exercises.brier_decomposition(p, y)
        score = float(((p - y.double()) ** 2).mean())
        close(reliability - resolution + uncertainty, score, f"the sum of the parts of {len(p)} forecasts")
        close(float(exercises.brier(p, y)), score, "brier of the same")


@exercise("brier")
def test_parts_of_a_constant_forecast(exercises):
    """A constant forecast resolves nothing; its reliability is its offset."""
    y = torch.tensor([True] * 3 + [False] * 9)
    for p in (0.25, 0.625):
        got = exercises.brier_decomposition(torch.full((12,), p, dtype=DOUBLE), y)
        close(got, ((p - 0.25) ** 2, 0.0, 0.1875), f"the parts of a constant forecast of {p}, true in 3 of 12")


@exercise("brier")
def test_parts_of_a_clairvoyant(exercises, rng):
    """Perfect forecasts resolve all of the uncertainty."""
    y = torch.tensor([True, False, False, True, False, False, False])
    o = 2 / 7
    close(exercises.brier_decomposition(y.double(), y), (0.0, o * (1 - o), o * (1 - o)), "the parts of perfection")
    p = rng.uniform(7).float()
    expected = parts(p, y)
    close(exercises.brier_decomposition(p, y), expected, "the parts of seven float32 forecasts, all different")


# -- fit_temperature -----------------------------------------------------------------------------------------------


def planted(rng, T, N=2000, V=6, spread=1.5):
    """Logits that are T times as large as the honest ones, and labels drawn from the honest softmax."""
    honest = spread * rng.normal(N, V)
    steps = honest.softmax(1).cumsum(1)
    labels = (steps < rng.uniform(N, 1)).sum(1).clamp(max=V - 1)
    return T * honest, labels


def slope(logits, labels, T):
    """The derivative of the mean loss by 1 / T: expected logit minus the label's, averaged."""
    p = (logits.double() / T).softmax(1)
    return float(((p * logits).sum(1) - logits.gather(1, labels[:, None])[:, 0]).mean())


def is_best(T, logits, labels, within=0.002):
    """Whether the convex loss turns within a hair of T: it still falls below 1 / T and already rises above."""
    return slope(logits, labels, T * (1 + within)) <= 0 <= slope(logits, labels, T * (1 - within))


@exercise("fit_temperature", weight=3)
def test_temperature_is_the_best(exercises, rng):
    """Just below it and just above it the loss is larger."""
    for planted_T, N, V in ((2.5, 300, 6), (0.4, 200, 3), (1.0, 150, 9), (12.0, 120, 2)):
        logits, labels = planted(rng, planted_T, N, V)
        T = pure(exercises.fit_temperature, logits, labels)
        holds(T > 0, f"The temperature {T} must be positive.")
        best = is_best(T, logits, labels)
        holds(best, f"fit_temperature of {N} rows of {V} logits gave {T:.5f}, which is not within 0.2% of the best.")


@exercise("fit_temperature", weight=2)
def test_temperature_finds_what_was_planted(exercises, rng):
    """Logits blown up by a known factor give the factor back."""
    for planted_T in (2.5, 0.6):
        logits, labels = planted(rng, planted_T)
        p, honest = (logits / planted_T).softmax(1), logits / planted_T
        # the information in 1 / T: the variance of the honest logits under the honest softmax; five standard errors
        information = float(((p * honest**2).sum(1) - (p * honest).sum(1) ** 2).sum())
        T = exercises.fit_temperature(logits, labels)
        roughly(T / planted_T, 1.0, 5 / math.sqrt(information), f"the temperature over the planted {planted_T}")


@exercise("fit_temperature")
def test_temperature_scales_with_the_logits(exercises, rng):
    """Logits c times as large need a T c times as large; fitted ones need 1."""
    logits, labels = planted(rng, 1.7, 250)
    T = exercises.fit_temperature(logits, labels)
    for c in (0.1, 20.0):
        got = exercises.fit_temperature(c * logits, labels)
        # both are good to 0.1 percent
        roughly(got / (c * T), 1.0, 0.0025, f"fit_temperature of logits {c} times as large, over {c} T")
    roughly(exercises.fit_temperature(logits / T, labels), 1.0, 0.0025, "fit_temperature of logits already divided")


@exercise("fit_temperature")
def test_temperature_never_hurts(exercises, rng):
    """On the rows it was fitted to, no other temperature has a lower loss."""
    logits, labels = planted(rng, 3.0, 80, 4)
    T = exercises.fit_temperature(logits, labels)
    loss = float(F.cross_entropy(logits / T, labels))
    others = [float(F.cross_entropy(logits / t, labels)) for t in (0.01, 0.3, 1.0, 1.5, 2.0, 2.5, 3.5, 4.0, 6.0, 100.0)]
    holds(
        all(loss <= other + 1e-9 for other in others),
        f"T = {T:.4f} has the loss {loss:.6f}; {min(others):.6f} is lower.",
    )


@exercise("fit_temperature")
def test_temperature_ignores_shifts_of_a_row(exercises, rng):
    """Adding a number to all logits of a row changes nothing, however large."""
    logits, labels = planted(rng, 0.5, 200, 5)
    shifted = logits + 900 * (2 * rng.uniform(200, 1) - 1)
    T = exercises.fit_temperature(shifted, labels)
    holds(
        is_best(T, logits, labels), f"fit_temperature gave {T:.5f} for logits shifted row by row; it must not matter."
    )


@exercise("fit_temperature")
def test_temperature_of_huge_logits(exercises, rng):
    """Logits in the hundreds overflow nothing and need a large T."""
    logits, labels = planted(rng, 60.0, 200, 4)
    T = exercises.fit_temperature(logits, labels)
    holds(is_best(T, logits, labels), f"fit_temperature gave {T:.3f} for logits up to {float(logits.abs().max()):.0f}.")


@exercise("fit_temperature")
def test_temperature_stays_in_its_range(exercises, rng):
    """If there is no best temperature, it is the end of the range."""
    labels = rng.integers(0, 3, 50)
    right = 0.1 * F.one_hot(labels, 3).double() + 0.02 * rng.uniform(50, 3)
    roughly(exercises.fit_temperature(right, labels), 0.01, 2e-5, "fit_temperature where every label is the largest")
    wrong = -rng.uniform(50, 1) * F.one_hot(labels, 3)
    roughly(exercises.fit_temperature(wrong, labels), 100.0, 0.2, "fit_temperature where every label is the smallest")


@exercise("fit_temperature")
def test_temperature_of_float32_logits(exercises, rng):
    """float32 logits are as good, to one percent."""
    logits, labels = planted(rng, 2.2, 300, 5)
    T = exercises.fit_temperature(logits.float(), labels)
    holds(
        is_best(T, logits, labels, 0.011), f"fit_temperature of float32 logits gave {T:.5f}, not within 1% of the best."
    )


# -- risk_coverage, abstain_threshold ------------------------------------------------------------------------------


def swept(conf, correct):
    """The curve, one threshold after the other, and its area in steps."""
    pairs = list(zip(conf.tolist(), correct.tolist(), strict=True))
    coverage, risk, area, before = [], [], 0.0, 0.0
    for t in sorted({c for c, _ in pairs}, reverse=True):
        answered = [y for c, y in pairs if c >= t]
        coverage.append(len(answered) / len(pairs))
        risk.append(answered.count(False) / len(answered))
        area, before = area + (coverage[-1] - before) * risk[-1], coverage[-1]
    return torch.tensor(coverage, dtype=DOUBLE), torch.tensor(risk, dtype=DOUBLE), area


@exercise("risk_coverage", weight=3)
def test_curve_agrees_with_a_sweep(exercises, rng):
    """Coverage, risk and area are those of sweeping the threshold down."""
    for N, levels in ((40, 6), (25, 1000), (33, 3), (1, 1)):
        conf = (rng.integers(1, levels + 1, N) / levels).double()
        correct = rng.uniform(N) < 0.3 + 0.5 * conf
        close(pure(exercises.risk_coverage, conf, correct), swept(conf, correct), f"risk_coverage, {N} answers")


@exercise("risk_coverage")
def test_curve_takes_ties_as_a_block(exercises):
    """Answers of equal confidence enter together, in whatever order."""
    conf = torch.tensor([0.8, 0.3, 0.8, 0.8, 0.3], dtype=DOUBLE)
    for correct in ([True, False, False, True, True], [False, True, True, True, False]):
        correct = torch.tensor(correct)
        close(
            exercises.risk_coverage(conf, correct), swept(conf, correct), f"risk_coverage with ties, {correct.tolist()}"
        )
    coverage, risk, aurc = exercises.risk_coverage(torch.full((8,), 0.5), torch.tensor([True, False, True, True] * 2))
    close((coverage, risk), (torch.ones(1, dtype=DOUBLE), torch.full((1,), 0.25, dtype=DOUBLE)), "the only point")
    close(aurc, 0.25, "the area where all confidences are equal")


@exercise("risk_coverage")
def test_curve_ends_at_the_error_rate(exercises, rng):
    """At the lowest threshold all is answered, and the risk is the error rate."""
    conf, correct = answers(rng, 37)
    coverage, risk, _ = exercises.risk_coverage(conf, correct)
    close(float(coverage[-1]), 1.0, "the last coverage")
    close(float(risk[-1]), 1 - float(correct.double().mean()), "the last risk")


@exercise("risk_coverage")
def test_area_is_least_for_the_best_ranking(exercises, rng):
    """Right answers ranked above wrong ones have the least area of all."""
    ranks = torch.linspace(1.0, 0.1, 12, dtype=DOUBLE)
    best = torch.tensor([True] * 7 + [False] * 5)
    areas = [float(exercises.risk_coverage(ranks, best[rng.permutation(12)])[2]) for _ in range(6)]
    least = exercises.risk_coverage(ranks, best)[2]
    close(least, sum(k / (7 + k) for k in range(1, 6)) / 12, "the area of the best ranking")
    most = exercises.risk_coverage(ranks, best.flip(0))[2]
    holds(all(least < area < most for area in areas), "Shuffled rankings lie between the best and the worst.")


@exercise("risk_coverage")
def test_curve_looks_at_the_order_only(exercises, rng):
    """Confidences squeezed or stretched in order give the same curve."""
    conf, correct = answers(rng, 50)
    expected = swept(conf, correct)
    for squeezed in (conf**3, 0.9 + conf / 100, conf.logit()):
        close(exercises.risk_coverage(squeezed, correct), expected, "risk_coverage of confidences that were squeezed")


@exercise("risk_coverage", weight=2)
def test_threshold_is_where_answering_pays_nothing(exercises):
    """At the threshold the expected gain is zero."""
    for reward, penalty in ((1, 3), (2.0, 0.5), (4, 9), (1, 1), (0.3, 12.0)):
        t = exercises.abstain_threshold(reward, penalty)
        close(t, penalty / (reward + penalty), f"abstain_threshold({reward}, {penalty})")
    close(exercises.abstain_threshold(reward=5, penalty=0), 0.0, "the threshold where mistakes are free")


@exercise("risk_coverage")
def test_threshold_earns_the_most(exercises):
    """No other threshold earns more on average from an honest model."""
    conf = torch.arange(1, 200, dtype=DOUBLE) / 200
    for reward, penalty in ((1.0, 2.0), (3.0, 1.0), (2.0, 11.0)):

        def earned(t, reward=reward, penalty=penalty):
            return float(torch.where(conf >= t, conf * reward - (1 - conf) * penalty, 0.0).sum())

        mine = earned(exercises.abstain_threshold(reward, penalty))
        most = max(earned(t / 100) for t in range(101))
        holds(
            mine >= most - 1e-9, f"With reward {reward} and penalty {penalty}: {mine:.3f} earned, {most:.3f} possible."
        )


@exercise("risk_coverage")
def test_threshold_refuses_odd_prices(exercises):
    """A reward that is not positive, or a negative penalty, is a ValueError."""
    for reward, penalty in ((0, 1), (-1, 2), (1, -0.5)):
        with pytest.raises(ValueError):
            exercises.abstain_threshold(reward, penalty)


# -- semantic_entropy ----------------------------------------------------------------------------------------------


def meaning(a, b):
    """Texts such as "b2" and "b5" mean the same: their first letter."""
    return a[0] == b[0]


def implies(pairs):
    """Entailment by a list of pairs such as "ab" for a entails b; every text entails itself."""
    return lambda a, b: a == b or a + b in pairs


def entropy(*masses):
    """Entropy in nats of masses that need not be normalised."""
    return -sum(m / sum(masses) * math.log(m / sum(masses)) for m in masses)


@exercise("semantic_entropy", weight=2)
def test_entropy_counts_meanings(exercises, rng):
    """Paraphrases merge; the entropy is that of the shares of meanings."""
    for sizes in ((3, 2, 1), (5, 1), (1, 1, 4, 2)):
        samples = ["abcd"[k] + str(i) for k, size in enumerate(sizes) for i in range(size)]
        for order in (samples, [samples[i] for i in rng.permutation(len(samples)).tolist()]):
            close(pure(exercises.semantic_entropy, order, meaning), entropy(*sizes), f"semantic_entropy of {order}")


@exercise("semantic_entropy")
def test_entropy_has_its_extremes(exercises):
    """One meaning has entropy 0, n different ones ln n."""
    close(exercises.semantic_entropy(["a1", "a2", "a3", "a4"], meaning), 0.0, "four paraphrases")
    close(exercises.semantic_entropy(["a"], meaning), 0.0, "a single sample")
    close(exercises.semantic_entropy(list("abcde"), meaning), math.log(5), "five different answers")
    with pytest.raises(ValueError):
        exercises.semantic_entropy([], meaning)


@exercise("semantic_entropy", weight=2)
def test_entropy_asks_in_both_directions(exercises):
    """A text that merely follows from another does not mean the same."""
    one_way = implies(["ab", "cd"])
    samples = ["a", "b", "b", "d", "c", "c", "c", "c"]
    close(
        exercises.semantic_entropy(samples, one_way), entropy(1, 2, 1, 4), "a entails b and c entails d, one way only"
    )
    close(exercises.semantic_entropy(["a", "b", "b"], one_way), entropy(1, 2), "a entails b, b does not entail a")
    close(exercises.semantic_entropy(["b", "a", "b", "b"], one_way), entropy(3, 1), "the same with b first")


@exercise("semantic_entropy", weight=2)
def test_entropy_asks_first_members(exercises):
    """A group is as its first member says, however others may be linked."""
    star = implies(["ab", "ba", "bc", "cb", "ax", "xa"])
    got = exercises.semantic_entropy(["a", "b", "c", "x", "x"], star)
    close(got, entropy(4, 1), "b and x mean the same as a, and c the same as b only")
    chain = implies(["ab", "ba", "bc", "cb"])
    close(exercises.semantic_entropy(["a", "b", "b", "c"], chain), entropy(3, 1), "a chain, read from its end")
    close(exercises.semantic_entropy(["b", "a", "c"], chain), 0.0, "a chain, read from its middle")
    close(exercises.semantic_entropy(["c", "b", "a", "a"], chain), entropy(2, 2), "a chain, from its other end")
    twice = implies(["ax", "xa", "bx", "xb"])
    close(exercises.semantic_entropy(["a", "b", "x", "b"], twice), entropy(2, 2), "a text that fits two groups")


@exercise("semantic_entropy", weight=2)
def test_entropy_weighs_by_probability(exercises, rng):
    """Log-probabilities are normalised over the samples, then added up."""
    samples, logp = ["a1", "b1", "a2", "c1", "b2", "a1"], 2 * rng.normal(6) - 5
    w = logp.exp().tolist()
    expected = entropy(w[0] + w[2] + w[5], w[1] + w[4], w[3])
    close(pure(exercises.semantic_entropy, samples, meaning, logprobs=logp), expected, "semantic_entropy with logprobs")
    close(exercises.semantic_entropy(samples, meaning, logp - 3), expected, "all samples e ** 3 times less probable")
    equal = torch.full((6,), -2.0, dtype=DOUBLE)
    close(exercises.semantic_entropy(samples, meaning, equal), entropy(3, 2, 1), "equal logprobs")


@exercise("semantic_entropy")
def test_entropy_of_improbable_texts(exercises):
    """Texts with log-probabilities of -1000 are weighed like any others."""
    logp = torch.tensor([-1000.0, -1001.0, -1000.5, -3000.0], dtype=DOUBLE)
    expected = entropy(1 + math.exp(-0.5), math.exp(-1))
    close(exercises.semantic_entropy(["a1", "b1", "a2", "c1"], meaning, logp), expected, "logprobs of -1000")


@exercise("semantic_entropy")
def test_entropy_is_taken_in_float64(exercises):
    """float32 log-probabilities lose nothing more on the way."""
    logp = torch.tensor([-0.1, -1.7, -2.3], dtype=torch.float32)
    expected = entropy(*logp.double().exp().tolist())
    close(exercises.semantic_entropy(["a", "b", "c"], meaning, logp), expected, "float32 logprobs")


# -- claim_support, selfcheck --------------------------------------------------------------------------------------


def judge(premise, claim):
    """A scripted judge: a passage lists what it supports, as +x, and what it contradicts, as -x."""
    if "-" + claim in premise:
        return "contradiction"
    return "entailment" if "+" + claim in premise else "neutral"


@exercise("claim_support", weight=2)
def test_claims_are_sorted_into_three(exercises, rng):
    """Each claim lands in one list, in the order of the answer."""
    for _ in range(4):
        claims = rng.random.choices("abcdefg", k=9)
        evidence = ["".join(rng.random.choice("+- ") + c for c in rng.random.sample("abcdefg", 3)) for _ in range(3)]
        expected = [[], [], []]
        for claim in claims:
            verdicts = [judge(passage, claim) for passage in evidence]
            kind = 1 if "contradiction" in verdicts else 0 if "entailment" in verdicts else 2
            expected[kind].append(claim)
        exact(pure(exercises.claim_support, claims, evidence, judge), tuple(expected), f"{claims} against {evidence}")


@exercise("claim_support")
def test_contradiction_beats_support(exercises):
    """One passage against a claim outweighs any number for it."""
    got = exercises.claim_support(["a", "b"], ["+a-b", "-a+b", "-a"], judge)
    exact(got, ([], ["a", "b"], []), "two claims on which the passages disagree")
    for evidence in (["+a", "-a"], ["-a", "+a"], ["+a", "+a", "-a", "+a"], ["", "-a"]):
        exact(exercises.claim_support(["a"], evidence, judge), ([], ["a"], []), f"a against {evidence}")
    exact(exercises.claim_support(["a", "b"], ["", "+b", ""], judge), (["b"], [], ["a"]), "support by one of three")


@exercise("claim_support")
def test_claims_without_evidence(exercises):
    """Without evidence nothing can be verified; without claims nothing is said."""
    exact(exercises.claim_support(["a", "b", "a"], [], judge), ([], [], ["a", "b", "a"]), "claims without evidence")
    exact(exercises.claim_support([], ["+a"], judge), ([], [], []), "an answer without claims")
    exact(exercises.claim_support(["b", "a", "b"], ["+b"], judge), (["b", "b"], [], ["a"]), "a claim made twice")


@exercise("claim_support")
def test_claims_are_the_hypothesis(exercises):
    """The judge gets one passage first, the claim second."""

    def longer(premise, claim):
        return "entailment" if claim in premise else "contradiction" if premise in claim else "neutral"

    got = exercises.claim_support(["rain", "heavy rain in May"], ["we had rain today", "we had May"], longer)
    exact(got, (["rain"], [], ["heavy rain in May"]), "claims against longer passages")
    got = exercises.claim_support(["heavy rain"], ["rain"], longer)
    exact(got, ([], ["heavy rain"], []), "a claim that holds more than the passage")
    split = exercises.claim_support(["a b"], ["a", "b"], lambda p, c: "entailment" if c == p else "neutral")
    exact(split, ([], [], ["a b"]), "a claim that only two passages together would support")


@exercise("claim_support")
def test_more_support_never_hurts(exercises):
    """Passages that contradict nothing can only move claims to supported."""
    evidence, before = ["+a"], set()
    for passage in ("+b", "", "+c+a", "+d"):
        evidence = [*evidence, passage]
        supported, contradicted, _ = exercises.claim_support(list("abcde"), evidence, judge)
        holds(before <= set(supported) and contradicted == [], f"With {evidence} the supported claims are {supported}.")
        before = set(supported)
    exact(sorted(before), list("abcd"), "the claims supported in the end")


@exercise("claim_support", weight=2)
def test_selfcheck_is_its_formula(exercises, rng):
    """One less the mean over samples of the best match in each."""
    table = rng.uniform(3, 9)
    sents, samples = ["0", "1", "2"], [["0", "4", "7", "8"], ["1"], ["2", "5"], ["3", "6"]]

    def sim(a, b):
        return float(table[int(a), int(b)])

    expected = [1 - fmean(max(sim(a, b) for b in sample) for sample in samples) for a in sents]
    close(pure(exercises.selfcheck, sents, samples, sim), expected, "selfcheck of three sentences, four samples")


@exercise("claim_support")
def test_selfcheck_counts_silent_samples(exercises):
    """A sample without sentences repeats nothing, and counts."""

    def same(a, b):
        return float(a == b)

    close(exercises.selfcheck(["x", "y"], [["x"], [], ["x", "y"], []], same), [0.5, 0.75], "two of four samples empty")
    close(exercises.selfcheck(["x"], [[], []], same), [1.0], "all samples empty")
    close(exercises.selfcheck(["x"], [["z", "x"], ["x"]], same), [0.0], "a sentence that all samples repeat")
    exact(exercises.selfcheck([], [["x"]], same), [], "an answer without sentences")
    with pytest.raises(ValueError):
        exercises.selfcheck(["x"], [], same)


@exercise("claim_support")
def test_selfcheck_asks_in_its_direction(exercises):
    """The sentence of the answer comes first, one of the sample second."""
    got = exercises.selfcheck(["rain", "rain in May"], [["rain in May"], ["rain"]], lambda a, b: float(a in b))
    close(got, [0.0, 0.5], "selfcheck by containment")


# -- good_turing_missing_mass, calibrated_hallucination_floor, reversal_test ---------------------------------------


def world(seed, persons, size, exponent):
    """Counts of the stated facts of a world, and the true missing mass."""
    facts = dataset("facts")
    p = facts.probabilities(seed, persons, exponent)
    stated = facts.statements(p, seed, size)
    counts = {f"fact {k}": v for k, v in Counter(stated.tolist()).items()}
    return counts, facts.missing_mass(p, stated)


@exercise("good_turing_missing_mass", weight=2)
def test_good_turing_counts_singletons(exercises, rng):
    """It is the number of facts stated once over the number of statements."""
    for counts in ([0, 1, 0, 0, 6, 2, 2], [1, 4, 2, 1, 2, 3, 2], [1], [1, 1, 1], [2, 2, 5], [0, 0, 0, 3, 1, 1]):
        named = {f"fact {k}": v for k, v in enumerate(counts)}
        expected = counts.count(1) / sum(counts)
        close(pure(exercises.good_turing_missing_mass, named), expected, f"missing mass of the counts {counts}")
        shuffled = dict(rng.random.sample(list(named.items()), len(named)))
        close(exercises.good_turing_missing_mass(shuffled), expected, f"missing mass of {counts}, shuffled")


@exercise("good_turing_missing_mass")
def test_good_turing_of_nothing(exercises):
    """No statements give no estimate: ValueError."""
    for counts in ({}, {"a": 0, "b": 0}):
        with pytest.raises(ValueError):
            exercises.good_turing_missing_mass(counts)


@exercise("good_turing_missing_mass", weight=2)
def test_good_turing_finds_the_missing_mass(exercises, rng):
    """In worlds whose truth is known it is right within 4 / sqrt(n)."""
    for persons, n, exponent in ((500, 2000, 1.0), (300, 3000, 1.4), (400, 5000, 0.8)):
        counts, truth = world(rng.seed, persons, n, exponent)
        # in 1,200 worlds the distance was never above 1.7 / sqrt(n)
        roughly(
            exercises.good_turing_missing_mass(counts), truth, 4 / math.sqrt(n), f"missing mass after {n} statements"
        )


@exercise("good_turing_missing_mass")
def test_a_calibrated_model_invents_at_this_rate(exercises, rng):
    """A model that keeps this share for the unsaid states falsehoods at it."""
    facts, n, persons = dataset("facts"), 2500, 400
    truth = facts.facts(rng.seed, persons)
    p = facts.probabilities(rng.seed, persons)
    stated = facts.statements(p, rng.seed, n)
    known = [truth[k] for k in stated.tolist()]
    share = exercises.good_turing_missing_mass(dict(Counter(map(facts.sentence, known))))
    true, names, false = set(truth), facts.people(rng.seed, persons), 0
    for _ in range(4000):
        invented = (rng.random.choice(names), "birthday", rng.random.choice(facts.DAYS))
        false += (invented if rng.random.random() < share else rng.random.choice(known)) not in true
    # Good and Turing's 4 / sqrt(n) and five standard errors of the 4,000 draws, at most 0.0316; 1 in 365 guesses right
    roughly(false / 4000, facts.missing_mass(p, stated), 4 / math.sqrt(n) + 0.04, "the share of falsehoods")


@exercise("good_turing_missing_mass", weight=2)
def test_floor_is_singletons_less_a_margin(exercises):
    """It is once-stated facts over all statements, less 4 / sqrt(n), at least 0."""
    many = {f"fact {k}": 1 + k % 2 for k in range(600)}
    for n in (900, 2500, 1600):
        close(
            exercises.calibrated_hallucination_floor(many, n), max(0.0, 300 / n - 4 / math.sqrt(n)), f"floor for {n=}"
        )
    for counts, n in (({"a": 1, "b": 2}, 3), ({}, 100), ({"a": 0}, 1), ({"a": 1, "b": 1}, 4)):
        close(exercises.calibrated_hallucination_floor(counts, n), 0.0, f"floor of {counts} in {n} statements")


@exercise("good_turing_missing_mass")
def test_floor_lies_below_the_truth(exercises, rng):
    """In worlds whose truth is known it never exceeds the missing mass."""
    for k in range(6):
        counts, truth = world(rng.seed + k, 900, 3000, 0.9)
        got = exercises.calibrated_hallucination_floor(counts, 3000)
        holds(0 < got <= truth, f"The floor is {got:.4f}, the true missing mass {truth:.4f}.")


@exercise("good_turing_missing_mass")
def test_floor_refuses_too_few_statements(exercises):
    """n must be positive and no less than the statements counted."""
    for counts, n in (({"a": 1, "b": 4}, 4), ({}, 0), ({"a": 0}, -3)):
        with pytest.raises(ValueError):
            exercises.calibrated_hallucination_floor(counts, n)
    exact(exercises.calibrated_hallucination_floor({"a": 1, "b": 4}, 5), 0.0, "floor where n is just the sum")


@exercise("good_turing_missing_mass", weight=2)
def test_reversal_of_a_bigram_model(exercises, rng):
    """A model of what follows a name knows forward, and only guesses backward."""
    facts, persons = dataset("facts"), 120
    truth, names = facts.facts(rng.seed, persons), facts.people(rng.seed, persons)
    follows = {a: b for a, relation, b in truth if relation == "mentor"}
    guess, pairs = names[7], facts.questions(truth)
    got = exercises.reversal_test(lambda prompt: follows[prompt.split(" is ")[0]] if " is " in prompt else guess, pairs)
    close(got, (1.0, 1 / persons), "a model that has read every mentor once, and guesses one name otherwise")
    got = exercises.reversal_test(lambda prompt: dict(back for _, back in pairs).get(prompt, "?"), pairs[:30])
    close(got, (0.0, 1.0), "a model that knows the other direction only")


@exercise("good_turing_missing_mass")
def test_reversal_compares_whole_answers(exercises):
    """Case, outer white space and a final full stop are forgiven, no more."""
    pairs = [(("a b: ", "Bo Vale"), ("b a", "Ada")), (("C", "Ed"), ("d c", "Cy")), (("e f", "Fay"), ("f e", "Eve"))]
    replies = {"a b: ": " bo vale.\n", "C": "Eddy", "e f": "FAY", "b a": "It is Ada", "d c": "", "f e": "eve "}
    close(exercises.reversal_test(replies.get, pairs), (2 / 3, 1 / 3), "replies in other spellings")
    replies |= {"a b: ": "Bo  Vale", "C": "Ed", "b a": "Ada", "d c": "Cy!", "f e": '"Eve"'}
    close(exercises.reversal_test(replies.get, pairs), (2 / 3, 1 / 3), "replies with other signs or spaces")
    with pytest.raises(ValueError):
        exercises.reversal_test(replies.get, [])


# -- verbal_to_prob, confidence_from_samples -----------------------------------------------------------------------


GIVEN = {0.99: ("certain",), 0.95: ("almost certain",), 0.9: ("very likely",), 0.75: ("likely", "probable")}
GIVEN |= {0.5: ("about even",), 0.25: ("unlikely", "improbable"), 0.1: ("very unlikely",)}
GIVEN |= {0.05: ("almost impossible",), 0.01: ("impossible",)}


def reading(exercises, cases):
    for text, expected in cases.items():
        exact(exercises.verbal_to_prob(text), expected, f"verbal_to_prob({text!r})")


@exercise("verbal_to_prob", weight=2)
def test_phrases_are_read_in_sentences(exercises):
    """Every phrase is found, alone, in a sentence and in capitals."""
    for phrase, p in [(phrase, p) for p, phrases in GIVEN.items() for phrase in phrases]:
        reading(exercises, {phrase: p, f"So it is {phrase}, I think.": p, f"({phrase.upper()}!)": p})


@exercise("verbal_to_prob", weight=2)
def test_longer_phrases_go_first(exercises):
    """A word belongs to one phrase, and parts of words to none."""
    reading(exercises, {"It is almost certain.": 0.95, "very unlikely": 0.1, "almost impossible": 0.05})
    reading(exercises, {"It is unlikely.": 0.25, "improbable": 0.25, "I am uncertain.": None, "certainly": None})
    reading(exercises, {"very likely": 0.9, "This is very, likely wrong.": 0.75, "impossibly far": None})


@exercise("verbal_to_prob", weight=2)
def test_negated_phrases_say_nothing(exercises):
    """A negation right before a phrase leaves no number."""
    for word in ("not", "never", "hardly"):
        reading(exercises, {f"I am {word} certain.": None, f"{word.upper()} \n very likely": None})
    reading(exercises, {"Not now. Likely later.": 0.75, "I do not know, it is about even.": 0.5, "Not. Certain.": 0.99})
    reading(exercises, {"A knot likely to hold.": 0.75, "It is unlikely but not impossible.": None})
    reading(exercises, {"not likely, but likely": None, "Likely not.": 0.75})


@exercise("verbal_to_prob")
def test_contradictory_phrases_say_nothing(exercises):
    """Two probabilities are none; the same one twice is one."""
    reading(exercises, {"Likely, even very likely.": None, "certain or impossible": None})
    reading(exercises, {"Likely, that is, probable.": 0.75, "unlikely, unlikely": 0.25, "likely and unlikely": None})


@exercise("verbal_to_prob")
def test_texts_without_a_phrase(exercises):
    """No phrase, no number; phrases may be broken over lines."""
    reading(exercises, {"": None, "No idea.": None, "80%": None, "very": None, "almost": None, "I am sure.": None})
    reading(exercises, {"It is very\n  likely.": 0.9, "about\teven": 0.5, "verylikely": None})


@exercise("verbal_to_prob", weight=2)
def test_samples_agree_in_normal_form(exercises):
    """Case, white space and outer punctuation do not make a difference."""
    spellings = ["port vale", "port  vale", "Port Vale", "port vale.", "port  vale", "Cairn", "port  vale", "port vale"]
    for samples, expected in (
        (spellings, ("port vale", 7 / 8)),
        (["Port Vale", "PORT  VALE.", " port\nvale !", "Zennor"], ("port vale", 0.75)),
        (["b", "A.", "a", "B,", "b?"], ("b", 0.6)),
        (["3.5", "3.5.", "35"], ("3.5", 2 / 3)),
        (["x"], ("x", 1.0)),
        ([":no;", "yes", "...no", "YES", "no"], ("no", 0.6)),
        (['"a"', "b", "(a)", "B", "a"], ("b", 0.4)),
        (["Straße", "STRASSE", "y", "z"], ("strasse", 0.5)),
    ):
        close(pure(exercises.confidence_from_samples, samples), expected, f"confidence_from_samples({samples})")


@exercise("verbal_to_prob")
def test_samples_share_is_of_all_samples(exercises, rng):
    """The share is of all samples, from one n-th to one."""
    for _ in range(4):
        samples = rng.random.choices("abcd", k=11)
        top = max(samples, key=lambda s: (samples.count(s), -samples.index(s)))
        expected = (top, samples.count(top) / 11)
        close(exercises.confidence_from_samples(samples), expected, f"confidence_from_samples({samples})")
    close(exercises.confidence_from_samples(list("edcba")), ("e", 0.2), "five different answers")


@exercise("verbal_to_prob")
def test_samples_break_ties_by_order(exercises):
    """Of equally frequent answers the one that came first wins."""
    close(exercises.confidence_from_samples(["q", "b", "b", "q", "a"]), ("q", 0.4), "a tie between q and b")
    close(exercises.confidence_from_samples(["z", "a", "a", "k", "k"]), ("a", 0.4), "a tie between a and k")
    with pytest.raises(ValueError):
        exercises.confidence_from_samples([])
