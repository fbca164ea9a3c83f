"""What the figure of chapter 17 computes and says, held against the reference."""

import re

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
LEXICON = {
    "dull": -1.5,
    "laughed": 1.0,
    "best": 1.0,
    "love": 1.5,
    "moving": 0.5,
    "fun": 1.0,
    "worst": -1.5,
    "slept": -1.0,
}
LEXICON |= {"loud": -0.5, "long": -0.5}
REVIEWS = [
    ("I love the old cinema scene.", 1),
    ("The best ending of the year.", 1),
    ("Moving, and never sweet.", 1),
    ("Fun, if a bit loud.", 1),
    ("I slept well.", 0),
    ("Dull, dull, dull.", 0),
    ("Loud and long.", 0),
    ("The worst wig in film.", 0),
]
QUERY = "A dull film, but I laughed."


def stand_in(query, labels, priors, lexicon):
    """Score both labels as the figure's stand-in for a model does."""
    found = sum(lexicon.get(word, 0) for word in re.findall("[a-z]+", query.lower()))
    share = [labels.count(k) / max(1, len(labels)) for k in (0, 1)]
    last = [0.8 if labels[-1:] == [k] else 0.0 for k in (0, 1)]
    return [priors[k] + 1.2 * share[k] + last[k] + (-found, found)[k] / 2 for k in (0, 1)]


def probabilities(query, labels, priors, lexicon=LEXICON):
    table = dict(zip(("bad", "good"), stand_in(query, labels, priors, lexicon), strict=True))
    return reference.zero_shot_classify(lambda _, label: [table[label]], query, ["bad", "good"])


@mirror("prompt")
def prompt(rng):
    shots = [(" ab c."[: int(rng.integers(1, 7))], int(rng.integers(0, 2))) for _ in range(int(rng.integers(0, 4)))]
    fmt = reference.REVIEWS | {"labels": {0: "no", 1: "yes"}}
    instruction = [" ", "Do it. "][int(rng.integers(0, 2))]
    expected = reference.few_shot_prompt(instruction, shots, " Well? ", fmt, 999, len)
    return [instruction, shots, " Well? ", ["no", "yes"]], expected


@mirror("scores")
def scores(rng):
    lexicon = dict(zip(("fun", "dull", "long"), rng.normal(3).tolist(), strict=True))
    labels, priors = rng.integers(0, 2, int(rng.integers(0, 5))).tolist(), rng.normal(2).tolist()
    query = "Dull? No: fun, fun, constructor, and not long-winded."
    return [query, labels, priors, lexicon], stand_in(query, labels, priors, lexicon)


@mirror("classify")
def classify(rng):
    table = {f" label {k}": rng.normal(1 + k).tolist() for k in range(4)}
    expected = reference.zero_shot_classify(lambda _, label: table[label], "x", list(table))
    return [[sum(tokens) for tokens in table.values()]], expected


@mirror("calibrate")
def calibrate(rng):
    p, q = rng.normal(2, 4).softmax(-1)
    return [p, q], reference.contextual_calibration(p, q)


@mirror("majority")
def majority(rng):
    p, n = float(rng.uniform(1)), int(rng.integers(1, 42))
    return [p, n], reference.majority_accuracy(p, n)


@shown(query=QUERY, shots="0111", words="usual")
def the_verdict_turns():
    plain = probabilities(QUERY, [0, 1, 1, 1], [-3.6, -3])
    lean = probabilities("N/A", [0, 1, 1, 1], [-3.6, -3])
    mended = reference.contextual_calibration(plain, lean)
    assert mended.argmax() == 0
    return (
        f"“good” gets {plain[1]:.2f} for the query and {lean[1]:.2f} for N/A; calibrated it is {mended[1]:.2f}, "
        "so the verdict is “bad”. Of 8 reviews"
    )


@shown(query="The popcorn was the best part.", shots="1000", words="formal")
def another_order_and_other_words():
    plain = probabilities("the best part", [1, 0, 0, 0], [-5.0, -4.4])
    lean = probabilities("", [1, 0, 0, 0], [-5.0, -4.4])
    mended = reference.contextual_calibration(plain, lean)
    return f"“positive” gets {plain[1]:.2f} for the query and {lean[1]:.2f} for N/A; calibrated it is {mended[1]:.2f},"


@shown(p=0.4, n=41)
def votes_below_one_half():
    return f"A vote of 41, each right with 0.40, is right with {reference.majority_accuracy(0.4, 41):.3f}."


@shown(shots="0111", words="usual")
def reviews_before_and_after():
    lean = probabilities("N/A", [0, 1, 1, 1], [-3.6, -3])
    plain = [(probabilities(text, [0, 1, 1, 1], [-3.6, -3]), truth) for text, truth in REVIEWS]
    before = sum(int(p.argmax()) == truth for p, truth in plain)
    after = sum(int(reference.contextual_calibration(p, lean).argmax()) == truth for p, truth in plain)
    return f"Of 8 reviews {before} are right as they stand and {after} calibrated."
