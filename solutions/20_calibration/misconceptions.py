"""Wrong answers of chapter 20 that people really give, each with the sentence that sets them right."""

import math
import re
from collections import Counter

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- ece, reliability_bins


def checked(conf, correct, n_bins):
    inside = bool(((conf >= 0) & (conf <= 1)).all())
    if len(conf) == 0 or conf.shape != correct.shape or not inside or n_bins < 1:
        raise ValueError("confidences")


def bins_by(conf, correct, n_bins, within, centre=False, empty=math.nan):
    """The bins by comparisons: within(c, low, high, m) says which answers are in bin m."""
    checked(conf, correct, n_bins)
    counts, mean_conf, accuracy = [], [], []
    for m in range(n_bins):
        inside = within(conf.double(), m / n_bins, (m + 1) / n_bins, m)
        n = int(inside.sum())
        counts.append(n)
        middle = (m + 0.5) / n_bins
        mean_conf.append((middle if centre else float(conf.double()[inside].mean())) if n else empty)
        accuracy.append(float(correct.double()[inside].mean()) if n else empty)
    return torch.tensor(counts), torch.tensor(mean_conf).double(), torch.tensor(accuracy).double()


def standard(c, low, high, m):
    return (c > low) & (c <= high) | (m == 0) & (c == 0)


def gaps(conf, correct, n_bins):
    counts, mean_conf, accuracy = reference.reliability_bins(conf, correct, n_bins)
    return counts.double(), (accuracy - mean_conf).nan_to_num(0.0)


@misconception(
    "ece", "A confidence of exactly 0 falls into none of your bins; the first must take it.", "reliability_bins"
)
def drops_zero(conf, correct, n_bins=10):
    return bins_by(conf, correct, n_bins, lambda c, low, high, m: (c > low) & (c <= high))


@misconception(
    "ece",
    "A confidence of exactly 1 falls into none of your bins; the upper edge belongs to a bin.",
    "reliability_bins",
)
def drops_one(conf, correct, n_bins=10):
    return bins_by(conf, correct, n_bins, lambda c, low, high, m: (c >= low) & (c < high))


@misconception(
    "ece", "Your bins own their lower edge; here an edge belongs to the bin below, except 0.", "reliability_bins"
)
def lower_edges(conf, correct, n_bins=10):
    return bins_by(
        conf, correct, n_bins, lambda c, low, high, m: (c >= low) & (c < high) | (m == n_bins - 1) & (c == 1)
    )


@misconception(
    "ece", "You take the centre of the bin for its confidence; take the mean of what is in it.", "reliability_bins"
)
def centres(conf, correct, n_bins=10):
    return bins_by(conf, correct, n_bins, standard, centre=True)


@misconception("ece", "An empty bin has no mean; say nan and not 0, which is a claim.", "reliability_bins")
def empty_bins_are_zero(conf, correct, n_bins=10):
    return bins_by(conf, correct, n_bins, standard, empty=0.0)


@misconception("ece", "Your bins hold equally many answers; they must be equally wide.", "reliability_bins")
def equal_mass(conf, correct, n_bins=10):
    checked(conf, correct, n_bins)
    ranks = conf.double().argsort(stable=True).argsort(stable=True)
    return bins_by((ranks + 1) / len(conf), correct, n_bins, standard)


@misconception("ece", "Your loop over the bins ends one too early, so the most confident answers are left out.")
def drops_the_last_bin(conf, correct, n_bins=10):
    counts, gap = gaps(conf, correct, n_bins)
    return float((counts * gap.abs())[:-1].sum() / len(conf))


@misconception("ece", "You add gaps with their signs, so that boldness and shyness cancel; take absolute values.")
def signed(conf, correct, n_bins=10):
    counts, gap = gaps(conf, correct, n_bins)
    return abs(float((counts * gap).sum() / len(conf)))


@misconception("ece", "You average over bins as if all were equally full; weight each by its share of the answers.")
def unweighted(conf, correct, n_bins=10):
    counts, gap = gaps(conf, correct, n_bins)
    return float(gap.abs().sum() / (counts > 0).sum())


@misconception("ece", "You give the largest gap of all bins, another measure; the expected error is their mean.")
def largest(conf, correct, n_bins=10):
    return float(gaps(conf, correct, n_bins)[1].abs().max())


@misconception("ece", "You compare each answer with its own outcome of 0 or 1; first average within the bin.")
def no_bins(conf, correct, n_bins=10):
    checked(conf, correct, n_bins)
    return float((conf.double() - correct.double()).abs().mean())


@misconception("ece", "You square the gaps; the expected calibration error is a mean of absolute gaps.")
def squared(conf, correct, n_bins=10):
    counts, gap = gaps(conf, correct, n_bins)
    return math.sqrt(float((counts * gap**2).sum() / len(conf)))


@misconception("ece", "You compare the centres of bins with accuracies; compare their mean confidences.")
def ece_with_centres(conf, correct, n_bins=10):
    counts, _, accuracy = reference.reliability_bins(conf, correct, n_bins)
    middle = (torch.arange(n_bins).double() + 0.5) / n_bins
    return float((counts.double() * (accuracy - middle).abs().nan_to_num(0.0)).sum() / len(conf))


@misconception("ece", "Dividing whole-number tensors gives float32 in torch; make the counts float64 first.")
def shares_in_float32(conf, correct, n_bins=10):
    counts, mean_conf, accuracy = reference.reliability_bins(conf, correct, n_bins)
    return float((counts / len(conf) * (accuracy - mean_conf).abs().nan_to_num(0.0)).sum())


# -- brier, brier_decomposition


@misconception("brier", "You take the root of the mean square; the Brier score is the mean square itself.")
def rooted(p, y):
    return math.sqrt(float(((p.double() - y.double()) ** 2).mean()))


@misconception("brier", "You add up the squares; the score is their mean, so that more answers are no worse.")
def summed(p, y):
    return float(((p.double() - y.double()) ** 2).sum())


@misconception("brier", "You average absolute differences, which rewards exaggeration; square them.")
def absolute(p, y):
    return float((p.double() - y.double()).abs().mean())


@misconception("brier", "You count both outcomes, the one that came and the one that did not; count each answer once.")
def both_classes(p, y):
    return float(2 * ((p.double() - y.double()) ** 2).mean())


def decomposed(p, y, group=None, equal=False, base=None, forecast=None):
    """The three parts with a free choice of groups, weights and bases."""
    key = (p if group is None else group).tolist()
    o = float(y.double().mean())
    reliability = resolution = 0.0
    for k in dict.fromkeys(key):
        inside = torch.tensor([one == k for one in key])
        share = 1 / len(set(key)) if equal else float(inside.double().mean())
        o_k = float(y.double()[inside].mean())
        f = float(p.double()[inside].mean()) if forecast is None else forecast(k)
        reliability += share * (f - (o if base == "reliability" else o_k)) ** 2
        resolution += share * ((0.5 if base == "resolution" else o) - o_k) ** 2
    return reliability, resolution, o * (1 - o)


@misconception(
    "brier",
    "You sort forecasts into bins; group equal forecasts only, or the parts do not add up.",
    "brier_decomposition",
)
def in_bins(p, y):
    return decomposed(p, y, group=(p.double() * 10).floor())


@misconception(
    "brier", "You take the centres of bins for the forecasts; take the forecasts themselves.", "brier_decomposition"
)
def bin_centres(p, y):
    group = (p.double() * 10).floor().clamp(max=9)
    return decomposed(p, y, group=group, forecast=lambda k: (k + 0.5) / 10)


@misconception(
    "brier", "All your groups weigh the same; weight each with its share of the answers.", "brier_decomposition"
)
def equal_groups(p, y):
    return decomposed(p, y, equal=True)


@misconception(
    "brier",
    "You compare forecasts with the overall share; reliability compares with the group's.",
    "brier_decomposition",
)
def reliability_against_base(p, y):
    return decomposed(p, y, base="reliability")


@misconception(
    "brier", "You measure resolution from one half; measure it from the overall share.", "brier_decomposition"
)
def resolution_from_half(p, y):
    return decomposed(p, y, base="resolution")


@misconception("brier", "You give the resolution with a minus; it is a sum of squares.", "brier_decomposition")
def negative_resolution(p, y):
    reliability, resolution, uncertainty = decomposed(p, y)
    return reliability, -resolution, uncertainty


@misconception("brier", "Your uncertainty is divided by N - 1; o (1 - o) it is.", "brier_decomposition")
def unbiased_uncertainty(p, y):
    reliability, resolution, uncertainty = decomposed(p, y)
    return reliability, resolution, uncertainty * len(p) / max(len(p) - 1, 1)


@misconception(
    "brier", "You group neighbours only; equal forecasts belong together wherever they stand.", "brier_decomposition"
)
def neighbours(p, y):
    changes = torch.cat([torch.zeros(1, dtype=torch.bool), p[1:] != p[:-1]])
    return decomposed(p, y, group=changes.long().cumsum(0))


# -- fit_temperature


def loss(logits, labels, T):
    return float(torch.nn.functional.cross_entropy(logits.double() / T, labels))


def best_of(grid, logits, labels):
    return min(grid, key=lambda T: loss(logits, labels, T))


@misconception(
    "fit_temperature", "You minimise the calibration error, which jumps and is noisy; minimise the likelihood loss."
)
def minimises_ece(logits, labels):
    def error(T):
        conf, choice = (logits.double() / T).softmax(1).max(1)
        return reference.ece(conf.clamp(0, 1), choice == labels)

    return min((0.02 * 1.1**k for k in range(88)), key=error)


@misconception(
    "fit_temperature", "You found the factor to multiply with; the temperature is what logits are divided by."
)
def multiplies(logits, labels):
    return 1 / reference.fit_temperature(logits, labels)


@misconception("fit_temperature", "You let T become negative, which turns every answer round; search above 0.")
def negative_side(logits, labels):
    return -reference.fit_temperature(logits, labels)


@misconception(
    "fit_temperature", "You fit to the model's own choices and not to the labels; it then is always too sure."
)
def fits_its_own_choices(logits, labels):
    return reference.fit_temperature(logits, logits.argmax(1))


@misconception("fit_temperature", "A coarse grid is not enough; refine it until T is good to 0.1 percent.")
def coarse_grid(logits, labels):
    return best_of([0.01, *(k / 10 for k in range(1, 200)), 100.0], logits, labels)


@misconception("fit_temperature", "You stop after a few steps of gradient descent; go on until the loss stands still.")
def stops_early(logits, labels):
    z, T = logits.double(), 1.5
    for _ in range(50):
        p = (z / T).softmax(1)
        slope = -((p * z).sum(1) - z.gather(1, labels[:, None])[:, 0]).mean() / T**2
        T = min(max(T - 0.01 * float(slope), 0.01), 100.0)
    return T


@misconception("fit_temperature", "You only soften; a timid model needs a T below 1.")
def only_softens(logits, labels):
    return max(1.0, reference.fit_temperature(logits, labels))


@misconception("fit_temperature", "You match mean confidence and accuracy; that is another T than the most likely one.")
def matches_accuracy(logits, labels):
    accuracy = float((logits.argmax(1) == labels).double().mean())
    low, high = math.log(0.01), math.log(100.0)
    for _ in range(40):
        middle = (low + high) / 2
        conf = float((logits.double() / math.exp(middle)).softmax(1).amax(1).mean())
        low, high = (middle, high) if conf > accuracy else (low, middle)
    return math.exp(low)


@misconception(
    "fit_temperature", "You exponentiate raw logits, which overflows; subtract the largest of each row first."
)
def overflows(logits, labels):
    def naive(T):
        e = torch.exp(logits.double() / T)
        p = e / e.sum(1, keepdim=True)
        return float(-p.gather(1, labels[:, None]).log().mean())

    low, high = math.log(0.01), math.log(100.0)
    for _ in range(50):
        one, two = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, two) if naive(math.exp(one)) < naive(math.exp(two)) else (one, high)
    return math.exp(low)


# -- risk_coverage, abstain_threshold


def ordered(conf, correct, descending=True):
    order = conf.argsort(descending=descending, stable=True)
    return conf[order], (~correct[order]).double()


@misconception("risk_coverage", "You give a point for every answer; equal confidences pass together and are one point.")
def point_per_answer(conf, correct):
    _, wrong = ordered(conf, correct)
    n = torch.arange(1, len(conf) + 1).double()
    risk = wrong.cumsum(0) / n
    return n / len(conf), risk, float(risk.mean())


@misconception("risk_coverage", "You start with the least confident; the most confident answers come first.")
def least_confident_first(conf, correct):
    return reference.risk_coverage(-conf, correct)


@misconception("risk_coverage", "You divide mistakes by all questions; the risk is among the answered ones only.")
def risk_of_all(conf, correct):
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    risk = risk * coverage
    return coverage, risk, float((coverage.diff(prepend=torch.zeros(1)) * risk).sum())


@misconception("risk_coverage", "You count silence as a mistake; who does not answer is not wrong.")
def silence_is_wrong(conf, correct):
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    risk = risk * coverage + 1 - coverage
    return coverage, risk, float((coverage.diff(prepend=torch.zeros(1)) * risk).sum())


@misconception("risk_coverage", "Your area is that of trapezoids between the points; it must be that of steps.")
def trapezoids(conf, correct):
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    return coverage, risk, float(torch.trapezoid(risk, coverage))


@misconception("risk_coverage", "You average the risks of the points; weight each with the coverage that it adds.")
def mean_of_points(conf, correct):
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    return coverage, risk, float(risk.mean())


@misconception(
    "risk_coverage", "You never sort; the curve must follow the confidences and not the order of the answers."
)
def unsorted(conf, correct):
    return reference.risk_coverage(-torch.arange(len(conf)).double(), correct)


@misconception("risk_coverage", "You give the accuracy of what was answered; the risk is the share of mistakes.")
def accuracy_for_risk(conf, correct):
    return reference.risk_coverage(conf, ~correct)


@misconception("risk_coverage", "A threshold of t answers conf >= t; with > the curve never reaches full coverage.")
def strictly_above(conf, correct):
    coverage, risk, _ = reference.risk_coverage(conf, correct)
    zero = torch.zeros(1).double()
    coverage, risk = torch.cat([zero, coverage[:-1]]), torch.cat([zero, risk[:-1]])
    return coverage, risk, float((coverage.diff(prepend=zero) * risk).sum())


def priced(reward, penalty):
    if reward <= 0 or penalty < 0:
        raise ValueError("prices")


@misconception("risk_coverage", "One half is right only if mistakes cost what right answers earn.", "abstain_threshold")
def one_half(reward, penalty):
    priced(reward, penalty)
    return 0.5


@misconception(
    "risk_coverage",
    "You have reward and penalty swapped; the dearer a mistake, the higher the bar.",
    "abstain_threshold",
)
def swapped_prices(reward, penalty):
    priced(reward, penalty)
    return reward / (reward + penalty)


@misconception("risk_coverage", "You assume a reward of 1; divide by reward + penalty.", "abstain_threshold")
def reward_of_one(reward, penalty):
    priced(reward, penalty)
    return penalty / (1 + penalty)


@misconception(
    "risk_coverage",
    "penalty / reward are the odds at the threshold; turn them into a probability.",
    "abstain_threshold",
)
def odds(reward, penalty):
    priced(reward, penalty)
    return penalty / reward


@misconception(
    "risk_coverage", "Nonsensical prices give you a nonsensical threshold; raise ValueError.", "abstain_threshold"
)
def any_price(reward, penalty):
    return penalty / (reward + penalty) if reward + penalty else 0.0


# -- semantic_entropy


def clustered(samples, same, logprobs=None, member=lambda group: group[:1], shares=None):
    """Semantic entropy with a free choice of equivalence, of whom to ask, and of weights."""
    if not samples:
        raise ValueError("no samples")
    if shares is None:
        w = torch.zeros(len(samples)) if logprobs is None else logprobs
        shares = torch.softmax(w.double(), 0).tolist()
    groups = []
    for i in range(len(samples)):
        for group in groups:
            if any(same(samples[j], samples[i]) for j in member(group)):
                group.append(i)
                break
        else:
            groups.append([i])
    return [sum(shares[i] for i in group) for group in groups]


def nats(masses):
    return sum(-m * math.log(m) for m in masses if m > 0)


def mutual(entails):
    return lambda a, b: bool(entails(a, b) and entails(b, a))


@misconception("semantic_entropy", "You ask whether the old text entails the new one only; ask in both directions.")
def one_way(samples, entails, logprobs=None):
    return nats(clustered(samples, entails, logprobs))


@misconception("semantic_entropy", "You ask whether the new text entails the old one only; ask in both directions.")
def other_way(samples, entails, logprobs=None):
    return nats(clustered(samples, lambda a, b: entails(b, a), logprobs))


@misconception("semantic_entropy", "One direction is enough for you; the same meaning needs both.")
def either_way(samples, entails, logprobs=None):
    return nats(clustered(samples, lambda a, b: entails(a, b) or entails(b, a), logprobs))


@misconception("semantic_entropy", "You compare strings; ask entails whether two texts mean the same.")
def compares_strings(samples, entails, logprobs=None):
    return nats(clustered(samples, lambda a, b: a == b, logprobs))


@misconception("semantic_entropy", "You join a group if any member agrees; only its first member is to be asked.")
def any_member(samples, entails, logprobs=None):
    return nats(clustered(samples, mutual(entails), logprobs, member=lambda group: group))


@misconception("semantic_entropy", "You ask the latest member of a group, so it drifts; ask its first.")
def last_member(samples, entails, logprobs=None):
    return nats(clustered(samples, mutual(entails), logprobs, member=lambda group: group[-1:]))


@misconception("semantic_entropy", "Your entropy is in bits; use the natural logarithm.")
def in_bits(samples, entails, logprobs=None):
    return nats(clustered(samples, mutual(entails), logprobs)) / math.log(2)


@misconception("semantic_entropy", "You ignore the log-probabilities; probable samples weigh more.")
def ignores_logprobs(samples, entails, logprobs=None):
    return nats(clustered(samples, mutual(entails)))


@misconception("semantic_entropy", "Your probabilities do not add up to one; divide by their sum over the samples.")
def unnormalised(samples, entails, logprobs=None):
    n = len(samples)
    shares = [1 / n] * n if logprobs is None else logprobs.double().exp().tolist()
    return nats(clustered(samples, mutual(entails), shares=shares))


@misconception(
    "semantic_entropy", "You exponentiate log-probabilities of -1000, which gives 0; subtract the largest first."
)
def underflows(samples, entails, logprobs=None):
    n = len(samples)
    w = [1.0] * n if logprobs is None else logprobs.double().exp().tolist()
    if sum(w) == 0:
        return math.nan
    return nats(clustered(samples, mutual(entails), shares=[x / sum(w) for x in w]))


@misconception("semantic_entropy", "You drop repeated texts; each sample counts, and repetition is what tells.")
def drops_repetitions(samples, entails, logprobs=None):
    keep = [i for i, text in enumerate(samples) if text not in samples[:i]]
    chosen = None if logprobs is None else logprobs[keep]
    return nats(clustered([samples[i] for i in keep], mutual(entails), chosen))


@misconception(
    "semantic_entropy", "You average -ln p over samples instead of taking the entropy of the groups' masses."
)
def mean_surprise(samples, entails, logprobs=None):
    masses = clustered(samples, mutual(entails), logprobs)
    return sum(-math.log(m) for m in masses if m > 0) / len(masses)


# -- claim_support, selfcheck


def sorted_by(answer, evidence, nli, decide):
    lists = {"entailment": [], "contradiction": [], "neutral": []}
    for claim in answer:
        lists[decide([nli(passage, claim) for passage in evidence])].append(claim)
    return tuple(lists.values())


def first_of(order):
    return lambda verdicts: next((v for v in order if v in verdicts), "neutral")


@misconception(
    "claim_support", "Support outweighs contradiction in your code; a contradicted claim stays contradicted."
)
def support_wins(answer, evidence, nli):
    return sorted_by(answer, evidence, nli, first_of(["entailment", "contradiction"]))


@misconception(
    "claim_support", "You report contradicted claims as unverifiable; that the evidence denies them matters."
)
def contradiction_is_unverifiable(answer, evidence, nli):
    supported, contradicted, _ = reference.claim_support(answer, evidence, nli)
    return supported, [], [claim for claim in answer if claim not in supported]


@misconception("claim_support", "Claims that nothing speaks about are lost in your code; they are unverifiable.")
def loses_claims(answer, evidence, nli):
    supported, contradicted, _ = reference.claim_support(answer, evidence, nli)
    return supported, contradicted, []


@misconception("claim_support", "Your first passage that says anything decides; read all of them before judging.")
def first_passage_decides(answer, evidence, nli):
    return sorted_by(answer, evidence, nli, lambda vs: next((v for v in vs if v != "neutral"), "neutral"))


@misconception("claim_support", "Your last passage that says anything decides; read all of them before judging.")
def last_passage_decides(answer, evidence, nli):
    return sorted_by(answer, evidence, nli, lambda vs: next((v for v in vs[::-1] if v != "neutral"), "neutral"))


@misconception(
    "claim_support", "You let the majority of passages decide; one contradiction is enough, else one support."
)
def majority(answer, evidence, nli):
    return sorted_by(answer, evidence, nli, lambda vs: Counter(vs).most_common(1)[0][0] if vs else "neutral")


@misconception("claim_support", "You hand the claim over as the premise; the passage comes first.")
def swaps_premise(answer, evidence, nli):
    return reference.claim_support(answer, evidence, lambda passage, claim: nli(claim, passage))


@misconception("claim_support", "You glue all passages together; the judge reads one passage at a time.")
def glues_passages(answer, evidence, nli):
    return reference.claim_support(answer, [" ".join(evidence)] if evidence else [], nli)


@misconception("claim_support", "You merge claims that are made twice; each is sorted where it stands.")
def merges_claims(answer, evidence, nli):
    return reference.claim_support(list(dict.fromkeys(answer)), evidence, nli)


@misconception("claim_support", "You demand that every passage entails the claim; one is enough.")
def needs_all(answer, evidence, nli):
    def decide(verdicts):
        if "contradiction" in verdicts:
            return "contradiction"
        return "entailment" if verdicts and set(verdicts) == {"entailment"} else "neutral"

    return sorted_by(answer, evidence, nli, decide)


def repeated(samples):
    if not samples:
        raise ValueError("no samples")


@misconception("claim_support", "You give how well the samples agree; the score is one less that.", "selfcheck")
def agreement(answer_sents, samples, sim):
    return [1 - score for score in reference.selfcheck(answer_sents, samples, sim)]


@misconception("claim_support", "You average over the sentences of a sample; take the one that fits best.", "selfcheck")
def mean_in_sample(answer_sents, samples, sim):
    repeated(samples)
    means = [[sum(sim(a, b) for b in s) / len(s) if s else 0.0 for s in samples] for a in answer_sents]
    return [1 - sum(row) / len(samples) for row in means]


@misconception(
    "claim_support", "One sample that repeats the sentence satisfies you; average over samples.", "selfcheck"
)
def best_sample(answer_sents, samples, sim):
    repeated(samples)
    return [1.0 - max((sim(a, b) for s in samples for b in s), default=0.0) for a in answer_sents]


@misconception(
    "claim_support", "You leave out empty samples; a sample that repeats nothing counts as such.", "selfcheck"
)
def skips_empty_samples(answer_sents, samples, sim):
    repeated(samples)
    full = [s for s in samples if s]
    return reference.selfcheck(answer_sents, full, sim) if full else [1.0 for _ in answer_sents]


@misconception("claim_support", "You pool all sentences, so long samples count more; one value a sample.", "selfcheck")
def pools_sentences(answer_sents, samples, sim):
    repeated(samples)
    pool = [b for s in samples for b in s]
    return [1.0 - (sum(sim(a, b) for b in pool) / len(pool) if pool else 0.0) for a in answer_sents]


@misconception("claim_support", "You swap the arguments of sim; the sentence of the answer comes first.", "selfcheck")
def swaps_sim(answer_sents, samples, sim):
    return reference.selfcheck(answer_sents, samples, lambda a, b: sim(b, a))


# -- good_turing_missing_mass, calibrated_hallucination_floor, reversal_test


def stated(counts):
    if sum(counts.values()) == 0:
        raise ValueError("no statements")
    return sum(counts.values())


def seen(counts, times):
    return sum(count == times for count in counts.values())


@misconception("good_turing_missing_mass", "You divide by the number of different facts; divide by that of statements.")
def types_for_tokens(counts):
    stated(counts)
    return seen(counts, 1) / sum(count > 0 for count in counts.values())


@misconception("good_turing_missing_mass", "You count facts stated twice; those stated just once tell of the unsaid.")
def doubletons(counts):
    return seen(counts, 2) / stated(counts)


@misconception("good_turing_missing_mass", "What was not stated has a probability all the same; it is not zero.")
def unseen_is_zero(counts):
    stated(counts)
    return 0.0


@misconception("good_turing_missing_mass", "Facts that were never stated are counted in; exactly once is what counts.")
def at_most_once(counts):
    return (seen(counts, 0) + seen(counts, 1)) / stated(counts)


@misconception(
    "good_turing_missing_mass", "You give the share of listed facts that are unstated; the list is not the world."
)
def share_of_listed(counts):
    stated(counts)
    return seen(counts, 0) / len(counts)


@misconception(
    "good_turing_missing_mass", "You give the estimate of what was covered; the missing mass is one less that."
)
def covered(counts):
    return 1 - seen(counts, 1) / stated(counts)


@misconception("good_turing_missing_mass", "You add one to the denominator; it is the number of statements as it is.")
def smoothed(counts):
    return seen(counts, 1) / (stated(counts) + 1)


def enough(counts, n):
    if n < 1 or n < sum(counts.values()):
        raise ValueError("n")


@misconception(
    "good_turing_missing_mass",
    "You divide by the sum of the counts; n, all statements, is handed in.",
    "calibrated_hallucination_floor",
)
def floor_ignores_n(counts, n):
    enough(counts, n)
    total = sum(counts.values())
    return max(0.0, seen(counts, 1) / total - 4 / math.sqrt(total)) if total else 0.0


@misconception(
    "good_turing_missing_mass",
    "Your floor has no margin, so it is a guess and no bound.",
    "calibrated_hallucination_floor",
)
def no_margin(counts, n):
    enough(counts, n)
    return seen(counts, 1) / n


@misconception(
    "good_turing_missing_mass", "Your floor is negative; a share is at least 0.", "calibrated_hallucination_floor"
)
def negative_floor(counts, n):
    enough(counts, n)
    return seen(counts, 1) / n - 4 / math.sqrt(n)


@misconception(
    "good_turing_missing_mass", "You add the margin; a lower bound subtracts it.", "calibrated_hallucination_floor"
)
def ceiling(counts, n):
    enough(counts, n)
    return min(1.0, seen(counts, 1) / n + 4 / math.sqrt(n))


@misconception(
    "good_turing_missing_mass",
    "Your margin shrinks like 1 / n; chance shrinks like 1 / sqrt(n).",
    "calibrated_hallucination_floor",
)
def margin_over_n(counts, n):
    enough(counts, n)
    return max(0.0, seen(counts, 1) / n - 4 / n)


@misconception(
    "good_turing_missing_mass",
    "Counts that exceed n make no sense; raise ValueError.",
    "calibrated_hallucination_floor",
)
def never_checks(counts, n):
    return max(0.0, seen(counts, 1) / n - 4 / math.sqrt(n)) if n > 0 else 0.0


def asked(pairs, right):
    """Both accuracies by a function right(prompt, answer)."""
    if not pairs:
        raise ValueError("no pairs")
    sides = [sum(bool(right(*pair[side])) for pair in pairs) / len(pairs) for side in (0, 1)]
    return sides[0], sides[1]


def trimmed(text):
    return text.strip().removesuffix(".").strip().casefold()


@misconception(
    "good_turing_missing_mass", "You have forward and backward swapped; forward comes first.", "reversal_test"
)
def swapped_directions(model, pairs):
    forward, backward = asked(pairs, lambda prompt, answer: trimmed(model(prompt)) == answer.casefold())
    return backward, forward


@misconception("good_turing_missing_mass", "Upper and lower case must not matter in an answer.", "reversal_test")
def case_matters(model, pairs):
    return asked(pairs, lambda prompt, answer: model(prompt).strip().removesuffix(".").strip() == answer)


@misconception(
    "good_turing_missing_mass", "A right answer inside a longer one satisfies you; demand the whole.", "reversal_test"
)
def contained(model, pairs):
    return asked(pairs, lambda prompt, answer: answer.casefold() in model(prompt).casefold())


@misconception("good_turing_missing_mass", "White space and a final full stop must not matter.", "reversal_test")
def untrimmed(model, pairs):
    return asked(pairs, lambda prompt, answer: model(prompt).casefold() == answer.casefold())


@misconception(
    "good_turing_missing_mass",
    "You count backward only what was right forward; both are asked on their own.",
    "reversal_test",
)
def backward_given_forward(model, pairs):
    if not pairs:
        raise ValueError("no pairs")
    ahead = [trimmed(model(q)) == a.casefold() for (q, a), _ in pairs]
    back = [trimmed(model(q)) == a.casefold() for _, (q, a) in pairs]
    both = sum(f and b for f, b in zip(ahead, back, strict=True))
    return sum(ahead) / len(pairs), both / max(sum(ahead), 1)


# -- verbal_to_prob, confidence_from_samples

PHRASES, NEGATIONS = reference.PHRASES, reference.NEGATIONS


def read(text, longest=True, negation="none", flags=re.I, space=r"\s+", boundary=r"\b", several="none"):
    """Read a text with one rule changed."""
    order = sorted(PHRASES, key=len, reverse=longest)
    phrase = "|".join(space.join(words.split()) for words in order)
    found = re.findall(rf"{boundary}(?:({'|'.join(NEGATIONS)})\s+)?({phrase}){boundary}", text, flags)
    values = [(bool(no), PHRASES[" ".join(words.lower().split())]) for no, words in found]
    if negation == "none" and any(no for no, _ in values):
        return None
    values = [1 - p if no and negation == "complement" else p for no, p in values]
    if not values or (several == "none" and len(set(values)) > 1):
        return None
    return {"none": values[0], "first": values[0], "mean": sum(values) / len(values)}[several]


@misconception("verbal_to_prob", "You overlook the negation, so 'not certain' becomes certain; it gives None.")
def overlooks_not(text):
    return read(text, negation="ignored")


@misconception("verbal_to_prob", "'Not certain' is not 'certainly not'; a negated phrase gives None, not 1 - p.")
def complements_not(text):
    return read(text, negation="complement")


@misconception("verbal_to_prob", "Any negation anywhere stops you; only one right before the phrase counts.")
def any_not(text):
    return None if re.search(rf"\b({'|'.join(NEGATIONS)})\b", text.lower()) else read(text)


@misconception("verbal_to_prob", "You find phrases inside words, as in 'uncertain'; match whole words.")
def inside_words(text):
    return read(text, boundary="")


@misconception(
    "verbal_to_prob", "You look for short phrases too, so 'almost certain' has two values; longer ones go first."
)
def all_phrases(text):
    low = " ".join(text.lower().split())
    if re.search(rf"\b({'|'.join(NEGATIONS)}) ({'|'.join(PHRASES)})\b", low):
        return None
    values = {p for phrase, p in PHRASES.items() if re.search(rf"\b{phrase}\b", low)}
    return values.pop() if len(values) == 1 else None


@misconception("verbal_to_prob", "The first phrase of your list that occurs wins, so 'very likely' is only likely.")
def first_listed(text):
    if read(text) is None:
        return None
    low = " ".join(text.lower().split())
    return next(p for phrase, p in sorted(PHRASES.items(), reverse=True) if re.search(rf"\b{phrase}\b", low))


@misconception("verbal_to_prob", "Your first phrase wins over contradictory ones; two probabilities are none.")
def first_found(text):
    return read(text, several="first")


@misconception("verbal_to_prob", "You average contradictory phrases; two probabilities are none.")
def averages(text):
    return read(text, several="mean")


@misconception("verbal_to_prob", "You miss phrases in capitals; case does not matter.")
def case_counts(text):
    return read(text, flags=0)


@misconception("verbal_to_prob", "You miss phrases with other white space than one space between the words.")
def one_space(text):
    return read(text, space=" ")


@misconception("verbal_to_prob", "What you cannot read becomes one half; no statement is None.")
def half_for_nothing(text):
    value = read(text)
    return 0.5 if value is None and not re.search("|".join(PHRASES), text.lower()) else value


def tidy(text):
    return " ".join(text.casefold().split()).strip(" .,;:!?")


def top(samples, form, total=len, last=False):
    if not samples:
        raise ValueError("no samples")
    normal = [form(text) for text in samples]
    counts = Counter(normal)
    best = max(counts.values())
    answer = [text for text in counts if counts[text] == best][-1 if last else 0]
    return answer, best / total(normal)


@misconception("verbal_to_prob", "You compare raw strings; normalise before counting.", "confidence_from_samples")
def raw_strings(samples):
    answer, share = top(samples, lambda text: text)
    return tidy(answer), share


@misconception("verbal_to_prob", "You keep outer punctuation, so 'a.' is not 'a'; strip it.", "confidence_from_samples")
def keeps_punctuation(samples):
    return top(samples, lambda text: " ".join(text.casefold().split()))


@misconception(
    "verbal_to_prob", "You remove punctuation inside, so 3.5 becomes 35; strip the ends.", "confidence_from_samples"
)
def strips_inside(samples):
    return top(samples, lambda text: tidy(re.sub("[.,;:!?]", "", text)))


@misconception(
    "verbal_to_prob", "You divide by the number of different answers; divide by n.", "confidence_from_samples"
)
def share_of_distinct(samples):
    return top(samples, tidy, total=lambda normal: len(set(normal)))


@misconception("verbal_to_prob", "The first answer is your winner; take the most frequent.", "confidence_from_samples")
def first_answer(samples):
    if not samples:
        raise ValueError("no samples")
    normal = [tidy(text) for text in samples]
    return normal[0], normal.count(normal[0]) / len(normal)


@misconception(
    "verbal_to_prob", "Of equally frequent answers your last one wins; take the first.", "confidence_from_samples"
)
def last_of_equals(samples):
    return top(samples, tidy, last=True)


@misconception("verbal_to_prob", "You leave runs of white space in; make each one space.", "confidence_from_samples")
def keeps_inner_space(samples):
    return top(samples, lambda text: text.casefold().strip(" .,;:!?\n"))


@misconception("verbal_to_prob", "lower() is not casefold(): it keeps ß apart from ss.", "confidence_from_samples")
def lower_case(samples):
    return top(samples, lambda text: " ".join(text.lower().split()).strip(" .,;:!?"))
