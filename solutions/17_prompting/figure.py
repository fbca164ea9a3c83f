"""What the figure of chapter 17 computes and says, held against the reference."""

import re

import torch

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


def some_shots(rng):
    n = int(rng.integers(1, 9))
    return rng.normal(n), rng.normal(n), float(rng.normal(1)), float(rng.uniform(1))


@mirror("shotLoss")
def shot_loss(rng):
    xs, ys, start, _ = some_shots(rng)
    w = torch.tensor(start, dtype=xs.dtype, requires_grad=True)
    loss = ((w * xs - ys) ** 2).sum() / (2 * len(xs))
    loss.backward()
    return [start, xs, ys], {"loss": loss.item(), "slope": w.grad.item()}


@mirror("linearAttention")
def linear_attention(rng):
    xs, ys, query, eta = some_shots(rng)
    at = torch.tensor([query], dtype=xs.dtype)
    # one shot's part: the targets of all others are 0
    alone = torch.diag(ys)
    expected = reference.icl_linear_attention(xs[:, None].expand(len(xs), -1, 1), alone, at.expand(len(xs), 1), eta)
    return [xs, ys, query, eta], expected


@mirror("softmaxAttention")
def softmax_attention(rng):
    xs, ys, query, _ = some_shots(rng)
    return [xs, ys, query], float((xs * query).softmax(-1) @ ys)


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


@shown(panel="vote", p=0.4, n=41)
def votes_below_one_half():
    return f"A vote of 41, each right with 0.40, is right with {reference.majority_accuracy(0.4, 41):.3f}."


@shown(shots="0111", words="usual")
def reviews_before_and_after():
    lean = probabilities("N/A", [0, 1, 1, 1], [-3.6, -3])
    plain = [(probabilities(text, [0, 1, 1, 1], [-3.6, -3]), truth) for text, truth in REVIEWS]
    before = sum(int(p.argmax()) == truth for p, truth in plain)
    after = sum(int(reference.contextual_calibration(p, lean).argmax()) == truth for p, truth in plain)
    return f"Of 8 reviews {before} are right as they stand and {after} calibrated."


def learned(n, query, eta, first=-1.3):
    xs = torch.tensor([-1.6, 0.9, 1.7, -0.5, 0.3, -1.1, 1.2, -2], dtype=torch.float64)[:n]
    ys = torch.tensor([first, 1, 1.2, -0.2, 0.1, -1.2, 0.9, -1.4], dtype=torch.float64)[:n]
    at = torch.tensor([query], dtype=torch.float64)
    given = float(reference.icl_linear_attention(xs[:, None], ys, at, eta))
    w = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = ((w * xs - ys) ** 2).mean() / 2
    loss.backward()
    new = float(-eta * w.grad)
    after = float(((new * xs - ys) ** 2).mean() / 2)
    mean = float((xs * query).softmax(-1) @ ys)
    text = (
        f"{given:.2f} in all for the query. One gradient step on them leads from w = 0 to w = {new:.3f}, and"
        f" w x is the same number; no weight of the layer has changed. The loss on the shots goes from"
        f" {loss:.2f} to {after:.2f}. With a softmax the prediction would be {mean:.2f}."
    )
    return text.replace("-", "−")


@shown(panel="shots", seen=3, at=1.5, eta=0.6)
def three_shots():
    return "The 3 shots give " + learned(3, 1.5, 0.6)


@shown(panel="shots", seen=8, at=-2, eta=1, target=2)
def eight_shots_of_which_one_is_wrong():
    return "The 8 shots give " + learned(8, -2.0, 1.0, 2.0)
