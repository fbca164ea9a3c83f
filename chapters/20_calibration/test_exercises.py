"""Self-checks of chapter 20: the worked example of the notes, and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, exact, exercise, holds

DOUBLE = torch.float64

CONF = torch.tensor([1.0, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.4, 0.0], dtype=DOUBLE)
CORRECT = torch.tensor([True, True, True, False, False, True, True, False, False, False])


@exercise("ece")
def test_bins_of_the_worked_example(exercises):
    """Four bins hold one, one, three and five of the ten answers."""
    counts, mean_conf, accuracy = exercises.reliability_bins(CONF, CORRECT, n_bins=4)
    exact(counts, torch.tensor([1, 1, 3, 5]), "the counts")
    close(mean_conf, torch.tensor([0.0, 0.4, 1.9 / 3, 0.9], dtype=DOUBLE), "the mean confidences")
    close(accuracy, torch.tensor([0.0, 0.0, 2 / 3, 0.6], dtype=DOUBLE), "the accuracies")


@exercise("ece")
def test_ece_of_the_worked_example(exercises):
    """The gaps are weighted by the answers in each bin."""
    close(exercises.ece(CONF, CORRECT, n_bins=4), 0.2, "ece of the worked example")


@exercise("ece")
def test_ece_of_the_sure_and_wrong(exercises):
    """A model that is sure and wrong every time has the worst score."""
    close(exercises.ece(torch.ones(3), torch.tensor([False] * 3)), 1.0, "ece of three wrong answers, sure as can be")


@exercise("brier")
def test_brier_of_the_worked_example(exercises):
    """The score is the mean square, and its parts add up to it."""
    close(exercises.brier(CONF, CORRECT), 0.224, "brier of the worked example")
    reliability, resolution, uncertainty = exercises.brier_decomposition(CONF, CORRECT)
    close(reliability - resolution + uncertainty, 0.224, "the sum of the parts")
    close(uncertainty, 0.25, "the uncertainty of five in ten")


@exercise("brier")
def test_constant_forecasts_resolve_nothing(exercises):
    """Who always forecasts the true share is reliable and knows nothing."""
    y = torch.tensor([True, False, False, False])
    close(exercises.brier_decomposition(torch.full((4,), 0.25), y), (0.0, 0.0, 0.1875), "the parts of a constant 1/4")


@exercise("fit_temperature")
def test_temperature_of_one_row(exercises):
    """A lead of 2 that is right 3 times in 4 should be a lead of ln 3."""
    logits, labels = torch.tensor([[2.0, 0.0]] * 4, dtype=DOUBLE), torch.tensor([0, 0, 0, 1])
    T = exercises.fit_temperature(logits, labels)
    holds(abs(T * math.log(3) / 2 - 1) < 0.001, f"T is {T:.4f}, expected 2 / ln 3 = {2 / math.log(3):.4f}.")


@exercise("fit_temperature")
def test_temperature_follows_the_scale(exercises, rng):
    """Logits three times as large need three times the temperature."""
    logits, labels = rng.normal(60, 4), rng.integers(0, 4, 60)
    logits[torch.arange(60), labels] += 1
    ratio = exercises.fit_temperature(3 * logits, labels) / exercises.fit_temperature(logits, labels)
    holds(abs(ratio - 3) < 0.01, f"The temperatures have the ratio {ratio:.4f}.")


@exercise("risk_coverage")
def test_curve_of_the_worked_example(exercises):
    """Seven distinct confidences make seven points."""
    coverage, risk, aurc = exercises.risk_coverage(CONF, CORRECT)
    close(coverage, torch.tensor([0.1, 0.4, 0.5, 0.6, 0.8, 0.9, 1.0], dtype=DOUBLE), "the coverage")
    close(risk, torch.tensor([0, 1 / 4, 2 / 5, 1 / 3, 3 / 8, 4 / 9, 1 / 2], dtype=DOUBLE), "the risk")
    area = 0.3 * (1 / 4) + 0.1 * (2 / 5) + 0.1 * (1 / 3) + 0.2 * (3 / 8) + 0.1 * (4 / 9) + 0.1 * (1 / 2)
    close(aurc, area, "the area")


@exercise("risk_coverage")
def test_threshold_at_equal_gain_and_loss(exercises):
    """If a mistake costs three times what an answer earns, three in four."""
    close(exercises.abstain_threshold(1, 3), 0.75, "abstain_threshold(1, 3)")


def same_letter(a, b):
    """Texts mean the same if they begin alike."""
    return a[0] == b[0]


@exercise("semantic_entropy")
def test_paraphrases_have_no_entropy(exercises):
    """Many wordings of one answer leave nothing uncertain."""
    close(exercises.semantic_entropy(["a1", "a2", "a3"], same_letter), 0.0, "three paraphrases")
    close(exercises.semantic_entropy(["a", "b", "c"], same_letter), math.log(3), "three different answers")


@exercise("semantic_entropy")
def test_entailment_must_be_mutual(exercises):
    """A city in Italy follows from Rome, and Rome does not follow from it."""
    samples = ["Rome", "It is Rome", "a city in Italy", "Rome", "Milan"]
    rome = ("Rome", "It is Rome")

    def entails(a, b):
        return a == b or (a in rome and b in rome) or b == "a city in Italy"

    expected = -0.6 * math.log(0.6) - 2 * 0.2 * math.log(0.2)
    close(exercises.semantic_entropy(samples, entails), expected, "semantic_entropy of Rome, three times out of five")


@exercise("claim_support")
def test_claims_of_a_short_answer(exercises):
    """One claim is supported, one contradicted, one unverifiable."""
    verdicts = {("It is May.", "It is spring."): "entailment", ("The sun shines.", "It rains."): "contradiction"}
    answer, evidence = ["It rains.", "It is spring.", "It is Monday."], ["It is May.", "The sun shines."]
    got = exercises.claim_support(answer, evidence, lambda passage, claim: verdicts.get((passage, claim), "neutral"))
    exact(got, (["It is spring."], ["It rains."], ["It is Monday."]), "the three lists")


@exercise("claim_support")
def test_selfcheck_of_two_sentences(exercises):
    """What the other answers do not repeat scores high."""
    samples = [["A.", "C."], ["A."], ["B.", "A."], ["A.", "D."]]
    close(exercises.selfcheck(["A.", "B."], samples, lambda a, b: float(a == b)), [0.0, 0.75], "selfcheck")


@exercise("good_turing_missing_mass")
def test_missing_mass_of_a_few_statements(exercises):
    """Of seven statements two are about facts stated just once."""
    close(exercises.good_turing_missing_mass({"a": 3, "b": 1, "c": 2, "d": 1}), 2 / 7, "missing mass")
    close(exercises.good_turing_missing_mass({"a": 3, "b": 2}), 0.0, "missing mass where nothing is stated once")


@exercise("good_turing_missing_mass")
def test_floor_keeps_a_margin(exercises):
    """The floor is the share of singletons less 4 / sqrt(n)."""
    counts = {f"fact {k}": 1 for k in range(40)}
    close(exercises.calibrated_hallucination_floor(counts, 100), 0.0, "floor of 40 in 100")
    close(exercises.calibrated_hallucination_floor({**counts, "often": 60}, 400), 0.0, "floor of 40 in 400")
    many = {f"fact {k}": 1 for k in range(500)}
    close(exercises.calibrated_hallucination_floor(many, 900), 500 / 900 - 4 / 30, "floor of 500 in 900")


@exercise("good_turing_missing_mass")
def test_reversal_of_a_list_of_followers(exercises):
    """Who knows what follows a name does not know what precedes it."""
    follows = {"Ada": "Bo", "Cy": "Dee"}
    pairs = [((f"{a} teaches", b), (f"{b} is taught by", a)) for a, b in follows.items()]
    got = exercises.reversal_test(lambda prompt: follows.get(prompt.split()[0], "no idea"), pairs)
    close(got, (1.0, 0.0), "forward and backward")


@exercise("verbal_to_prob")
def test_phrases_and_negations(exercises):
    """Longer phrases win, and a negated phrase says nothing."""
    exact(exercises.verbal_to_prob("That is Almost Certain."), 0.95, "almost certain")
    exact(exercises.verbal_to_prob("I am not certain."), None, "not certain")
    exact(exercises.verbal_to_prob("I am uncertain."), None, "uncertain")


@exercise("verbal_to_prob")
def test_agreement_of_samples(exercises):
    """Three of four samples say the same."""
    close(exercises.confidence_from_samples(["Vale", "vale.", "Cairn", " VALE"]), ("vale", 0.75), "four samples")
    with pytest.raises(ValueError):
        exercises.confidence_from_samples([])
