"""What the figure of chapter 20 computes and says, held against the reference."""

import math

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)


def answers(rng):
    conf = (rng.uniform(60) * 16).floor() / 16  # multiples of 1/16, so that some lie on edges
    conf[:2] = torch.tensor([0.0, 1.0])
    return conf, rng.uniform(60) < 0.5


@mirror("softmax")
def softmax(rng):
    logits = 200 * rng.normal(4, 6)
    return [logits, 2.5], torch.softmax(logits / 2.5, dim=1)


@mirror("reliability")
def reliability(rng):
    conf, correct = answers(rng)
    return [conf, correct, 8], reference.reliability_bins(conf, correct, 8)


@mirror("ece")
def ece(rng):
    conf, correct = answers(rng)
    return [conf, correct, 8], reference.ece(conf, correct, 8)


@mirror("threshold")
def threshold(rng):
    reward, penalty = (rng.uniform(2) + 0.1).tolist()
    return [reward, penalty], reference.abstain_threshold(reward, penalty)


@mirror("earned")
def earned(rng):
    conf, correct = answers(rng)
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    levels = conf.unique().flip(0)  # highest first, as in the curve
    k = int(rng.integers(1, len(levels)))  # the levels before k lie above levels[k]
    share, wrong = float(coverage[k - 1]), float(risk[k - 1])
    return [conf, correct, levels[k], 3.0], share * (1 - wrong) - 3 * share * wrong


@mirror("goodTuring")
def good_turing(rng):
    counts = rng.integers(0, 4, 30).tolist()
    return [counts], reference.good_turing_missing_mass(dict(enumerate(counts)))


@mirror("told")
def told(rng):
    p, draws = torch.softmax(rng.normal(9), 0), rng.uniform(40)
    facts = torch.bucketize(draws, p.cumsum(0), right=True).clamp(max=8)
    return [p, draws], torch.bincount(facts, minlength=9)


@mirror("missing")
def missing(rng):
    p, counts = torch.softmax(rng.normal(9), 0), rng.integers(0, 3, 9)
    return [p, counts], p[counts == 0].sum()


def drawn(seed):
    """Draw uniform numbers as the kit does."""
    state = ((seed * 2654435761) ^ 0x5BD1E995) & 0xFFFFFFFF
    while True:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield state / 2**32


def simulated(N=800):
    """Draw the model of the figure: labels from known probabilities, logits 2.5 times too large."""
    source = drawn(20)

    def normal():
        u = next(source)
        return math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * next(source))

    honest = torch.tensor([[1.3 * normal() for _ in range(6)] for _ in range(N)], dtype=torch.float64)
    ends = torch.softmax(honest, 1).cumsum(1)
    labels = [int((ends[i] <= next(source)).sum().clamp(max=5)) for i in range(N)]
    return 2.5 * honest, torch.tensor(labels)


def honesty(T):
    logits, labels = simulated()
    conf = torch.softmax(logits / T, 1).amax(1)
    correct = logits.argmax(1) == labels
    says = f"Mean confidence {conf.mean():.2f}, accuracy {correct.double().mean():.2f}"
    return f"{says}, calibration error {reference.ece(conf, correct):.3f}."


@shown(temperature=1)
def as_given():
    return honesty(1.0)


@shown(temperature=2.5)
def mended():
    logits, labels = simulated()
    assert abs(reference.fit_temperature(logits, labels) - 2.5) < 0.3
    return honesty(2.5)


@shown(temperature=1, penalty=3)
def the_line():
    logits, labels = simulated()
    conf, correct = torch.softmax(logits, 1).amax(1), logits.argmax(1) == labels
    t = reference.abstain_threshold(1, 3)
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    k = int((conf.unique() > t).sum()) - 1  # the last point of the curve above the threshold
    earned = coverage[k] * (1 - risk[k]) - 3 * coverage[k] * risk[k]
    return f"Answering above a confidence of {t:.2f} earns {earned:.3f} a question;".replace("-", "−")


@shown(statements=1000)
def the_urn():
    p = 1 / torch.arange(1, 241, dtype=torch.float64)
    p /= p.sum()
    source = drawn(7)
    facts = torch.bucketize(
        torch.tensor([next(source) for _ in range(1000)], dtype=torch.float64), p.cumsum(0), right=True
    )
    counts = torch.bincount(facts, minlength=240)
    estimate = reference.good_turing_missing_mass(dict(enumerate(counts.tolist())))
    return f"with a chance of {p[counts == 0].sum():.3f}; the estimate is {estimate:.3f}."
