# %% [markdown]
# # Chapter 20: Hallucination and calibration
#
# Eight exercises. You measure whether a model is as sure as it should be, repair it with one number, let it say
# "I don't know" at the right moment, catch what it makes up, and compute how much it must make up. The teaching is in
# the notes (`README.md`); here stand only the promises that each function must keep.
#
# A *confidence* is the probability that an answer is right, as the model sees it. `conf` holds one for each of N
# answers, and `correct` says of each whether it was right. Logarithms are natural throughout.

# %%
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# %% [markdown]
# ## 20.1 ece, reliability_bins
#
# Of all the answers that the model was 80 percent sure of, four out of five should be right. Sort the answers by
# confidence into bins, and compare what was promised with what was kept.


# %%
def reliability_bins(conf: Tensor, correct: Tensor, n_bins: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Sort answers by confidence into n_bins bins of equal width, and say what each bin promised and kept.

    Args:
        conf: (N,) floating confidences in [0, 1].
        correct: (N,) bool, whether each answer was right.
        n_bins: how many bins, at least 1.

    Returns:
        (counts, mean_conf, accuracy), each (n_bins,): int64, float64, float64. The last two are nan for an empty bin.

    Raises:
        ValueError: N is 0, the lengths differ, a confidence is not in [0, 1] (nan is not), or n_bins < 1.

    Example:
        >>> reliability_bins(torch.tensor([0.0, 0.5, 0.75, 1.0]), torch.tensor([False, True, False, True]), n_bins=2)
        (tensor([2, 2]), tensor([0.2500, 0.8750], dtype=torch.float64), tensor([0.5000, 0.5000], dtype=torch.float64))

    Notes:
        Bin m, counted from 0, holds m / n_bins < c <= (m + 1) / n_bins; a confidence of exactly 0 is in bin 0 as well.
        Only edges that a float holds exactly, such as 0.25, are tested: 0.3 may fall on either side. mean_conf is the
        mean of the confidences in the bin, not its centre. Means are taken in float64. The inputs are not changed.
    """
    raise NotImplementedError("reliability_bins")


# %%
def ece(conf: Tensor, correct: Tensor, n_bins: int = 10) -> float:
    """Average over all answers how far the accuracy of their bin is from its mean confidence.

    Args:
        conf: (N,) floating confidences in [0, 1].
        correct: (N,) bool, whether each answer was right.
        n_bins: how many bins of equal width, at least 1.

    Returns:
        The expected calibration error, a float from 0 to 1: the sum over bins of (count / N) * |accuracy - mean_conf|.

    Raises:
        ValueError: as for reliability_bins.

    Example:
        >>> ece(torch.tensor([0.0, 0.5, 0.75, 1.0]), torch.tensor([False, True, False, True]), n_bins=2)
        0.3125

    Notes:
        Bins as in reliability_bins. Empty bins contribute nothing. Computed in float64.
    """
    raise NotImplementedError("ece")


# %% [markdown]
# ## 20.2 brier, brier_decomposition
#
# A single number for forecasts that no dishonest forecaster can improve, and its three parts: how far the promises are
# from the truth, how well the forecasts tell cases apart, and how hard the task is.


# %%
def brier(p: Tensor, y: Tensor) -> float:
    """Give the mean squared difference between forecasts and outcomes.

    Args:
        p: (N,) floating forecasts in [0, 1], N at least 1.
        y: (N,) bool, what happened.

    Returns:
        The Brier score, a float from 0 (perfect) to 1.

    Example:
        >>> brier(torch.tensor([1.0, 0.5, 0.5, 0.0]), torch.tensor([True, True, False, True]))
        0.375

    Notes:
        Computed in float64.
    """
    raise NotImplementedError("brier")


# %%
def brier_decomposition(p: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Split the Brier score into reliability, resolution and uncertainty.

    Group the answers by forecast: group k has the n_k answers with the forecast p_k, of which a share o_k came true.
    With the share o of all N:

        reliability = sum over k of n_k / N * (p_k - o_k) ** 2
        resolution  = sum over k of n_k / N * (o_k - o) ** 2
        uncertainty = o * (1 - o)

    Args:
        p: (N,) floating forecasts in [0, 1], N at least 1.
        y: (N,) bool, what happened.

    Returns:
        (reliability, resolution, uncertainty), three floats, with brier == reliability - resolution + uncertainty.

    Example:
        >>> brier_decomposition(torch.tensor([0.75, 0.75, 0.25, 0.25]), torch.tensor([True, True, True, False]))
        (0.0625, 0.0625, 0.1875)

    Notes:
        A group is all answers whose forecasts are equal as floats, wherever they stand. Computed in float64.
    """
    raise NotImplementedError("brier_decomposition")


# %% [markdown]
# ## 20.3 fit_temperature
#
# One number mends most overconfidence: divide all logits by T before the softmax. The best T is the one that makes the
# right answers of held-out questions most probable.

# %%
T_MIN, T_MAX = 0.01, 100.0


# %%
def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature T with which softmax(logits / T) gives the labels the smallest mean negative log-likelihood.

    Args:
        logits: (N, V) floating logits, finite, N at least 1.
        labels: (N,) int64, the right class of each row, 0 to V - 1.

    Returns:
        T, a float in [T_MIN, T_MAX], at most 0.1 percent away from the best T in that range.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]] * 4)
        >>> T = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))  # softmax should say 3/4, so 2 / T = ln 3
        >>> round(T, 2), round(2 / math.log(3), 2)
        (1.82, 1.82)

    Notes:
        If the loss falls all the way to one end of the range, the result is that end (again up to 0.1 percent): T_MIN
        if every label has the largest logit of its row, T_MAX if the logits are worse than none. Logits may be as
        large as 1e3, and then the best T may be large as well. The 0.1 percent are asked for float64 logits; for
        float32 it is 1 percent. logits is not changed.
    """
    raise NotImplementedError("fit_temperature")


# %% [markdown]
# ## 20.4 risk_coverage, abstain_threshold
#
# A model that may stay silent can be right more often. How often it speaks is its coverage, how often it is wrong when
# it speaks is its risk. Where to draw the line follows from what a wrong answer costs.


# %%
def risk_coverage(conf: Tensor, correct: Tensor) -> tuple[Tensor, Tensor, float]:
    """For each possible threshold give the share of questions answered and the share of those answers that are wrong.

    Args:
        conf: (N,) floating confidences, N at least 1.
        correct: (N,) bool, whether each answer was right.

    Returns:
        (coverage, risk, aurc): two (K,) float64 tensors, one entry for each of the K distinct confidences from the
        highest to the lowest, and a float, the area under the curve.

    Example:
        >>> risk_coverage(torch.tensor([0.5, 0.9, 0.5, 0.7]), torch.tensor([True, True, False, False]))[:2]
        (tensor([0.2500, 0.5000, 1.0000], dtype=torch.float64), tensor([0.0000, 0.5000, 0.5000], dtype=torch.float64))

    Notes:
        A threshold t answers the questions with conf >= t. Equal confidences pass together, so they are one point of
        the curve and the order of the answers does not matter. The area is that of steps: each point's risk times the
        coverage that it adds, aurc = sum over k of (coverage[k] - coverage[k - 1]) * risk[k], with 0 before the first.
        In the example 0.25 * 0 + 0.25 * 0.5 + 0.5 * 0.5 = 0.375. The inputs are not changed.
    """
    raise NotImplementedError("risk_coverage")


# %%
def abstain_threshold(reward: float, penalty: float) -> float:
    """Give the confidence from which on answering pays.

    Args:
        reward: what a right answer earns, above 0.
        penalty: what a wrong answer costs, a number of at least 0. Silence earns 0.

    Returns:
        The confidence t at which answering earns 0 on average: above t one should answer, below it stay silent.

    Raises:
        ValueError: reward <= 0 or penalty < 0.

    Example:
        >>> abstain_threshold(reward=1, penalty=3)
        0.75
    """
    raise NotImplementedError("abstain_threshold")


# %% [markdown]
# ## 20.5 semantic_entropy
#
# Ask the same question several times. Answers in other words are the same answer; answers that mean something else are
# a sign that the model does not know. So count meanings and not strings.


# %%
def semantic_entropy(
    samples: Sequence[str], entails: Callable[[str, str], bool], logprobs: Tensor | None = None
) -> float:
    """Group sampled answers by meaning and give the entropy of the groups.

    Args:
        samples: n answers to one question, n at least 1. The same text may occur several times.
        entails: entails(a, b) says whether a implies b. Every text implies itself.
        logprobs: (n,) floating, the log-probability of each sample; None: all samples weigh the same.

    Returns:
        The entropy in nats, a float: - sum over groups of m ln m, where m is the group's share of the weight.

    Raises:
        ValueError: there are no samples.

    Example:
        >>> same = lambda a, b: a.lower() == b.lower()
        >>> round(semantic_entropy(["Rome", "rome", "Milan", "ROME"], same), 4)  # of 3/4 and 1/4
        0.5623

    Notes:
        Two texts mean the same if each entails the other. Go through the samples in order: a sample joins the first
        group whose first member means the same, or else founds a new group. Only the first member is asked about,
        which matters where entails is not transitive. Sample i has the weight exp(logprobs[i]), divided by the sum over
        all n samples, repeated ones included. Log-probabilities of -1000 and less must work. Computed in float64.
    """
    raise NotImplementedError("semantic_entropy")


# %% [markdown]
# ## 20.6 claim_support, selfcheck
#
# Check an answer claim by claim: against evidence where there is some, and against the model's own other answers where
# there is none.


# %%
def claim_support(
    answer: Sequence[str], evidence: Sequence[str], nli: Callable[[str, str], str]
) -> tuple[list[str], list[str], list[str]]:
    """Sort the claims of an answer by what the evidence says about them.

    Args:
        answer: the claims, one sentence each; may be empty.
        evidence: passages; may be empty.
        nli: nli(passage, claim) gives "entailment", "contradiction" or "neutral".

    Returns:
        (supported, contradicted, unverifiable), three lists of claims, each in the order of the answer.

    Example:
        >>> nli = lambda passage, claim: "entailment" if claim in passage else "neutral"
        >>> claim_support(["It rains.", "It is cold."], ["They say: It rains.", "It is May."], nli)
        (['It rains.'], [], ['It is cold.'])

    Notes:
        A claim is contradicted if any passage contradicts it, whatever the others say. Otherwise it is supported if
        any passage entails it. All others are unverifiable. Every claim lands in exactly one list; a claim that occurs
        twice is sorted twice. The passage comes first: it is the premise.
    """
    raise NotImplementedError("claim_support")


# %%
def selfcheck(
    answer_sents: Sequence[str], samples: Sequence[Sequence[str]], sim: Callable[[str, str], float]
) -> list[float]:
    """Score each sentence of an answer by how little the model's other answers repeat it.

    Args:
        answer_sents: the sentences of the answer; may be empty.
        samples: other answers to the same question, each a list of sentences, which may be empty; at least one.
        sim: sim(a, b) says from 0 to 1 how far sentence b says what sentence a says.

    Returns:
        One float for each sentence a: 1 - mean over samples of (the largest sim(a, b) over sentences b of the sample).
        0 if every sample repeats it, 1 if none does.

    Raises:
        ValueError: there are no samples.

    Example:
        >>> selfcheck(["A.", "B."], [["A.", "C."], ["B.", "A."]], lambda a, b: float(a == b))
        [0.0, 0.5]

    Notes:
        A sample without sentences repeats nothing: its largest similarity is 0. Every sample counts alike, however
        long. The sentence of the answer is the first argument of sim.
    """
    raise NotImplementedError("selfcheck")


# %% [markdown]
# ## 20.7 good_turing_missing_mass, calibrated_hallucination_floor, reversal_test
#
# How much did a text leave unsaid? The facts that it states only once give it away. What was never said, a model that
# is as open-minded as it should be has to make up. And what was said in one direction is not known in the other.


# %%
def good_turing_missing_mass(counts: dict[str, int]) -> float:
    """Estimate the probability that the next statement is about a fact that was not stated so far.

    Args:
        counts: how often each fact was stated, a dict from fact to an int of at least 0. A fact with count 0 may be
            listed and says no more than one that is not.

    Returns:
        The share of the statements that are about a fact stated just once, a float from 0 to 1.

    Raises:
        ValueError: there are no statements.

    Example:
        >>> good_turing_missing_mass({"Bo lives in Vale": 5, "Ada is a potter": 1, "Ivo is a mason": 2})
        0.125

    Notes:
        The denominator counts statements, not facts: 8 in the example.
    """
    raise NotImplementedError("good_turing_missing_mass")


# %%
def calibrated_hallucination_floor(counts: dict[str, int], n: int) -> float:
    """Give a cautious lower bound for the share of its statements that a calibrated model must make up.

    Args:
        counts: how often each fact was stated, as for good_turing_missing_mass, but all may be 0 and the dict empty.
        n: how many statements the text has in all, at least 1. Some may be about other things than these facts, so n
            may be more than the sum of the counts.

    Returns:
        The number of facts stated just once, divided by n, less the margin 4 / sqrt(n), and at least 0; a float.

    Raises:
        ValueError: n is less than 1, or less than the sum of the counts.

    Example:
        >>> counts = {f"birthday of person {i}": 1 for i in range(5000)} | {"birthday of the queen": 900}
        >>> calibrated_hallucination_floor(counts, 10_000)  # 0.5 - 0.04
        0.46
    """
    raise NotImplementedError("calibrated_hallucination_floor")


# %%
def reversal_test(
    model: Callable[[str], str], pairs: Sequence[tuple[tuple[str, str], tuple[str, str]]]
) -> tuple[float, float]:
    """Ask a model for each fact in both directions and give the two accuracies.

    Args:
        model: maps a prompt to its answer.
        pairs: one entry ((prompt, answer), (reverse prompt, reverse answer)) for each fact; at least one.

    Returns:
        (forward, backward): the share of prompts, and of reverse prompts, that were answered rightly; two floats.

    Raises:
        ValueError: there are no pairs.

    Example:
        >>> knows = {"Ada teaches": "Bo.", "Ida teaches": " cy"}
        >>> bo = (("Ada teaches", "Bo"), ("Bo's teacher is", "Ada"))
        >>> cy = (("Ida teaches", "Cy"), ("Cy's teacher is", "Ida"))
        >>> reversal_test(lambda prompt: knows.get(prompt, "Ada"), [bo, cy])
        (1.0, 0.5)

    Notes:
        Case does not matter, nor white space around the model's answer, nor a full stop at its end. Otherwise the
        model's answer must be the whole right answer and nothing else. Prompts are handed over as they are.
    """

    raise NotImplementedError("reversal_test")


# %% [markdown]
# ## 20.8 verbal_to_prob, confidence_from_samples
#
# Two confidences for models that show no probabilities: what the model says about itself, and how often it agrees with
# itself. The phrases and their probabilities are given.

# %%
PHRASES = {
    "certain": 0.99,
    "almost certain": 0.95,
    "very likely": 0.9,
    "likely": 0.75,
    "probable": 0.75,
    "about even": 0.5,
    "unlikely": 0.25,
    "improbable": 0.25,
    "very unlikely": 0.1,
    "almost impossible": 0.05,
    "impossible": 0.01,
}
NEGATIONS = ("not", "never", "hardly")


# %%
def verbal_to_prob(text: str) -> float | None:
    """Read the probability off a sentence in which a model says how sure it is.

    Args:
        text: any text.

    Returns:
        The probability in PHRASES of the phrase in the text, or None if the text gives no single probability.

    Example:
        >>> verbal_to_prob("It is very likely."), verbal_to_prob("I am not certain."), verbal_to_prob("Maybe.")
        (0.9, None, None)

    Notes:
        Case does not matter, and any white space may stand between the words of a phrase. A phrase consists of whole
        words: "uncertain" is not "certain", "likely" is not in "unlikely". A word belongs to one phrase only, and a
        longer phrase goes before a shorter one: "almost certain" is not also "certain". None if there is no phrase, if
        phrases of different probabilities occur, or if a word of NEGATIONS stands right before a phrase, with nothing
        but white space between. Several phrases of the same probability give that probability. Numbers are not read.
    """
    raise NotImplementedError("verbal_to_prob")


# %%
def confidence_from_samples(samples: Sequence[str]) -> tuple[str, float]:
    """Take the most frequent of several sampled answers, and its share of the samples as the confidence.

    Args:
        samples: n answers to one question, n at least 1.

    Returns:
        (answer, confidence): the answer in its normal form, and a float from 1 / n to 1.

    Raises:
        ValueError: there are no samples.

    Example:
        >>> confidence_from_samples(["Port  Vale.", "Quarry", " port vale", "Zennor!"])
        ('port vale', 0.5)

    Notes:
        Answers are compared in their normal form: case-folded, every run of white space made one space, and then all
        spaces and signs of ".,;:!?" taken off both ends. Of equally frequent answers the one that came first wins.
    """
    raise NotImplementedError("confidence_from_samples")
