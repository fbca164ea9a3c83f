"""The whole contract of chapter 17, against inverse parsers, brute force, exact fractions and closed forms."""

import itertools
import math
import statistics
from fractions import Fraction

import pytest
import torch

from grader.testing import close, counting, driver, exact, exercise, holds, pure

DOUBLE = torch.float64


# ------------------------------------------------------------------------------------------------------ few_shot_prompt

FORMATS = (
    {"input": "Text:", "output": "Topic:", "separator": "\n\n", "labels": {0: "sport", 1: "law", 2: "art"}},
    {"input": "[in]", "output": "[out]", "separator": "\n---\n", "labels": {0: "x y", 1: "z", 2: "w"}},
    {"input": ">", "output": "=>", "separator": " || ", "labels": {0: "no", 1: "not", 2: "note"}},
)


def words(text):
    """The number of words of a text."""
    return len(text.split())


def sentence(rng, low=1, high=9):
    """A few words that contain no mark of any format."""
    return " ".join(
        rng.random.choice(("owl", "Rain.", "river", "42", "slow,", "a")) for _ in range(int(rng.integers(low, high)))
    )


def shots_of(rng, n):
    """n shots of unequal lengths, with labels 0 to 2."""
    return [(sentence(rng), int(rng.integers(0, 3))) for _ in range(n)]


def parse(prompt, fmt):
    """Read a prompt back: instruction, shots as (text, word), query; the last block must end in the open mark."""
    *blocks, last = prompt.split(fmt["separator"])
    head = blocks.pop(0) if blocks and not blocks[0].startswith(fmt["input"]) else ""
    shots = []
    for block in blocks:
        first, second = block.split("\n")
        holds(first.startswith(fmt["input"] + " "), f"the block {block!r} begins with the input mark and a space.")
        holds(second.startswith(fmt["output"] + " "), f"{second!r} begins with the output mark and a space.")
        shots.append((first[len(fmt["input"]) + 1 :], second[len(fmt["output"]) + 1 :]))
    first, second = last.split("\n")
    exact(second, fmt["output"], "the last line of the prompt")
    return head, shots, first[len(fmt["input"]) + 1 :]


@exercise("few_shot_prompt", weight=2)
def test_prompt_can_be_read_back(exercises, rng):
    """An inverse parser finds instruction, shots and query again."""
    for fmt in FORMATS:
        for n in (3, 0, 1, 5):
            shots, query = shots_of(rng, n), sentence(rng)
            got = exercises.few_shot_prompt("Say what it is.", shots, query, fmt, 10**6, words)
            expected = ("Say what it is.", [(text, fmt["labels"][label]) for text, label in shots], query)
            exact(parse(got, fmt), expected, f"what a parser reads from the prompt {got!r}")


@exercise("few_shot_prompt", weight=2)
def test_prompt_keeps_the_newest_that_fit(exercises, rng):
    """For every budget the kept shots are the longest tail that fits."""
    fmt, shots, query = FORMATS[0], shots_of(rng, 6), sentence(rng)
    count = lambda text: -(-len(text) // 4)  # noqa: E731  rounded up once for a whole text, so parts do not add up
    full = [exercises.few_shot_prompt("Name it.", shots[k:], query, fmt, 10**6, count) for k in range(7)]
    for budget in range(count(full[6]), count(full[0]) + 2):
        expected = next(prompt for prompt in full if count(prompt) <= budget)
        got = exercises.few_shot_prompt("Name it.", shots, query, fmt, budget, count)
        exact(got, expected, f"the prompt for a budget of {budget}, when all shots need {count(full[0])}")


@exercise("few_shot_prompt")
def test_prompt_skips_no_shot_in_between(exercises):
    """A long shot that does not fit takes all older ones with it."""
    shots = [("one", 0), ("a very long example of some fourteen words that will certainly not fit", 1), ("two", 2)]
    got = exercises.few_shot_prompt("", shots, "three", FORMATS[0], 12, words)
    exact(parse(got, FORMATS[0]), ("", [("two", "art")], "three"), "the shots kept around a long one")


@exercise("few_shot_prompt")
def test_prompt_has_no_space_at_its_end(exercises):
    """Whitespace around texts is removed, and the prompt ends in the mark."""
    shots = [("  frost\n", 1), ("\tdew ", 0)]
    got = exercises.few_shot_prompt("\n What is it?  ", shots, " hail \n", FORMATS[0], 10**6, words)
    expected = "What is it?\n\nText: frost\nTopic: law\n\nText: dew\nTopic: sport\n\nText: hail\nTopic:"
    exact(got, expected, "the prompt of texts with spaces around them")


@exercise("few_shot_prompt")
def test_prompt_without_instruction(exercises):
    """A blank instruction writes no block and no separator."""
    for blank in ("", " \n"):
        got = exercises.few_shot_prompt(blank, [("mud", 2)], "sand", FORMATS[1], 10**6, words)
        exact(got, "[in] mud\n[out] w\n---\n[in] sand\n[out]", f"the prompt for the instruction {blank!r}")


@exercise("few_shot_prompt")
def test_prompt_writes_label_words(exercises):
    """Every label becomes its word, also one that is falsy or another's word."""
    fmt = {**FORMATS[0], "labels": {"": "none", 0: "zero", "up": "down", "down": "up", (1, 2): "pair"}}
    shots = [("a", "up"), ("b", ""), ("c", "down"), ("d", 0), ("e", (1, 2)), ("f", "up")]
    got = exercises.few_shot_prompt("", shots, "g", fmt, 10**6, words)
    exact([word for _, word in parse(got, fmt)[1]], ["down", "none", "up", "zero", "pair", "down"], "the words")
    with pytest.raises(KeyError):
        exercises.few_shot_prompt("", [("a", "up"), ("b", "left")], "g", fmt, 10**6, words)


@exercise("few_shot_prompt")
def test_prompt_takes_texts_literally(exercises):
    """Braces, percent signs and backslashes in texts arrive unchanged."""
    texts = ["{0} {input} {{x}}", r"50 % of \1 \n", "f'{y}' %s"]
    got = exercises.few_shot_prompt("Use {this}.", [(texts[0], 0), (texts[1], 1)], texts[2], FORMATS[0], 10**6, words)
    expected = ("Use {this}.", [(texts[0], "sport"), (texts[1], "law")], texts[2])
    exact(parse(got, FORMATS[0]), expected, "texts with special characters")


@exercise("few_shot_prompt")
def test_prompt_that_cannot_fit(exercises, rng):
    """Instruction and query are never cut: too small a budget is an error."""
    shots = shots_of(rng, 2)
    bare = exercises.few_shot_prompt("Go on now.", [], "the query", FORMATS[0], 7, words)
    exact(pure(exercises.few_shot_prompt, "Go on now.", shots, "the query", FORMATS[0], 7, words), bare, "an exact fit")
    with pytest.raises(ValueError):
        exercises.few_shot_prompt("Go on now.", shots, "the query", FORMATS[0], 6, words)


# --------------------------------------------------------------------------------------------------- zero_shot_classify

LABELS = [" yes", " certainly not", "né", " 猫かも", "x"]


def model_of(rng, prompt, labels=LABELS, scale=1.0):
    """A table of log-probabilities, one to four tokens a label, for the prompt and for the empty prompt."""
    lengths = {label: 1 + k % 4 for k, label in enumerate(labels)}
    table = {(p, y): (scale * (rng.uniform(lengths[y]) + 0.05).log()).tolist() for p in (prompt, "") for y in labels}
    return table, counting(lambda p, y: table[p, y])


@exercise("zero_shot_classify", weight=2)
def test_classify_multiplies_all_tokens(exercises, rng):
    """By default a label's probability is the product over its tokens."""
    table, model = model_of(rng, "Well?")
    p = torch.tensor([math.prod(math.exp(x) for x in table["Well?", y]) for y in LABELS], dtype=DOUBLE)
    close(exercises.zero_shot_classify(model, "Well?", LABELS), p / p.sum(), "five labels of one to four tokens")
    close(exercises.zero_shot_classify(model, "Well?", LABELS, "none"), p / p.sum(), "the same with normalize='none'")


@exercise("zero_shot_classify", weight=2)
def test_classify_by_bytes(exercises, rng):
    """With "byte" the n-th root is taken, n the length in UTF-8 bytes."""
    table, model = model_of(rng, "Well?", scale=3.0)
    roots = [math.exp(sum(table["Well?", y])) ** (1 / len(y.encode())) for y in LABELS]
    p = torch.tensor(roots, dtype=DOUBLE)
    close(exercises.zero_shot_classify(model, "Well?", LABELS, normalize="byte"), p / p.sum(), "byte normalisation")


@exercise("zero_shot_classify", weight=2)
def test_classify_against_the_empty_prompt(exercises, rng):
    """With "pmi" the probability is divided by that under no prompt."""
    table, model = model_of(rng, "Well?")
    ratio = [math.exp(sum(table["Well?", y]) - sum(table["", y])) for y in LABELS]
    p = torch.tensor(ratio, dtype=DOUBLE)
    close(exercises.zero_shot_classify(model, "Well?", LABELS, normalize="pmi"), p / p.sum(), "pmi normalisation")


@exercise("zero_shot_classify")
def test_classify_asks_no_more_than_needed(exercises, rng):
    """One question a label, two with pmi, prompt and label unchanged."""
    prompt = " Ends in a space, \n"
    for normalize, prompts in (("none", [prompt]), ("byte", [prompt]), ("pmi", [prompt, ""])):
        _, model = model_of(rng, prompt)
        exercises.zero_shot_classify(model, prompt, LABELS, normalize)
        asked = sorted(model.arguments)
        exact(asked, sorted(itertools.product(prompts, LABELS)), f"what the model is asked with {normalize!r}")


@exercise("zero_shot_classify")
def test_classify_very_improbable_labels(exercises):
    """Scores near -1000 give a finite distribution."""
    table = {"a": [-500.0, -499.0], "bc": [-400.0, -300.0, -300.0], "d": [-1001.0]}
    odds = torch.tensor([math.e**2, math.e, 1.0], dtype=DOUBLE)
    got = exercises.zero_shot_classify(lambda p, y: table[y], "?", ["a", "bc", "d"])
    close(got, odds / odds.sum(), "labels with scores -999, -1000 and -1001")
    got = exercises.zero_shot_classify(lambda p, y: table[y] if p else [-998.0], "?", ["a", "bc", "d"], "pmi")
    close(got, odds / odds.sum(), "the same scores against -998 for every label")


@exercise("zero_shot_classify")
def test_classify_follows_the_order_of_labels(exercises, rng):
    """Each label keeps its probability wherever it stands; one alone gets 1."""
    _, model = model_of(rng, "Well?")
    for normalize in ("none", "byte", "pmi"):
        straight = exercises.zero_shot_classify(model, "Well?", LABELS, normalize)
        order = rng.permutation(len(LABELS))
        got = exercises.zero_shot_classify(model, "Well?", tuple(LABELS[i] for i in order), normalize)
        close(got, straight[order], f"labels in another order, {normalize}")
        close(exercises.zero_shot_classify(model, "Well?", LABELS[:1], normalize), torch.ones(1, dtype=DOUBLE), "one")


@exercise("zero_shot_classify")
def test_classify_refuses_nonsense(exercises, rng):
    """No label and an unknown normalisation are ValueErrors."""
    _, model = model_of(rng, "Well?")
    for labels, normalize in (([], "none"), ([], "pmi"), (LABELS, "bytes"), (LABELS, "token"), (LABELS, "")):
        with pytest.raises(ValueError):
            exercises.zero_shot_classify(model, "Well?", labels, normalize)


# ----------------------------------------------------------------------------------------------- contextual_calibration


def rows(rng, *shape):
    """Positive rows along the last axis that sum to one."""
    return (1.5 * rng.normal(*shape)).softmax(-1)


@exercise("contextual_calibration", weight=2)
def test_calibration_divides_and_normalises(exercises, rng):
    """In logarithms it is the softmax of log p - log q, for any axes."""
    for shape in ((3,), (5, 4), (2, 3, 6), (4, 4)):
        p, q = rows(rng, *shape), rows(rng, shape[-1])
        expected = torch.softmax(p.log() - q.log(), -1)
        close(pure(exercises.contextual_calibration, p, q), expected, f"probs {shape} calibrated by one row")
        close(exercises.contextual_calibration(p, q[None]), expected, f"probs {shape} calibrated by a (1, K) tensor")


@exercise("contextual_calibration", weight=2)
def test_calibration_averages_content_free_rows(exercises, rng):
    """Several content-free rows are normalised one by one, then averaged."""
    p, q = rows(rng, 5, 3), rows(rng, 4, 3)
    expected = torch.softmax(p.log() - q.mean(0).log(), -1)
    factor = torch.tensor([[1.0], [20.0], [0.05], [3.0]], dtype=DOUBLE)
    close(pure(exercises.contextual_calibration, p, q * factor), expected, "four content-free rows of unequal sums")
    close(exercises.contextual_calibration(p[0], q), expected[0], "one row calibrated by four")


@exercise("contextual_calibration")
def test_calibration_ignores_scale(exercises, rng):
    """A factor on any row of either input changes nothing."""
    for dtype in (DOUBLE, torch.float32):
        p, q = rows(rng, 4, 3).to(dtype), rows(rng, 3).to(dtype)
        expected = torch.softmax(p.log() - q.log(), -1)
        factor = torch.tensor([[1e-20], [1e15], [3.0], [0.1]], dtype=dtype)
        close(exercises.contextual_calibration(p * factor, q), expected, f"{dtype} rows with factors")
        close(exercises.contextual_calibration(p, q * 7), expected, f"a {dtype} bias times 7")


@exercise("contextual_calibration")
def test_calibration_rows_are_independent(exercises, rng):
    """What the other queries are makes no difference to a query."""
    p, q = rows(rng, 6, 4), rows(rng, 4)
    together = exercises.contextual_calibration(p, q)
    for i in (0, 3):
        close(exercises.contextual_calibration(p[i], q), together[i], f"row {i} alone")
        close(exercises.contextual_calibration(p[i : i + 1], q), together[i : i + 1], f"row {i} as a batch of one")


@exercise("contextual_calibration")
def test_calibration_follows_the_labels(exercises, rng):
    """Labels in another order give the result in that order."""
    p, q, order = rows(rng, 3, 5), rows(rng, 2, 5), rng.permutation(5)
    straight = exercises.contextual_calibration(p, q)
    close(exercises.contextual_calibration(p[:, order], q[:, order]), straight[:, order], "permuted labels")


@exercise("contextual_calibration")
def test_calibration_mends_a_planted_bias(exercises, rng):
    """A classifier that always says the first label becomes right."""
    truth = torch.arange(40) % 2
    signal = torch.tensor([[0.7, 0.3], [0.3, 0.7]], dtype=DOUBLE)[truth]
    bias = torch.tensor([0.9, 0.1], dtype=DOUBLE)
    seen = signal * bias * (rng.uniform(40, 1) + 0.5)
    exact((seen.argmax(-1) == truth).float().mean().item(), 0.5, "the accuracy before")
    right = exercises.contextual_calibration(seen, bias).argmax(-1) == truth
    exact(right.float().mean().item(), 1.0, "the accuracy after calibration")


@exercise("contextual_calibration")
def test_calibration_and_zeros(exercises, rng):
    """A probability of 0 stays 0; a bias of 0 is an error."""
    p, q = torch.tensor([0.0, 0.4, 0.6], dtype=DOUBLE), torch.tensor([0.5, 0.2, 0.3], dtype=DOUBLE)
    close(exercises.contextual_calibration(p, q), torch.tensor([0.0, 0.5, 0.5], dtype=DOUBLE), "a row with a zero")
    some = torch.tensor([[0.0, 0.4, 0.6], [1.0, 0.0, 0.0]], dtype=DOUBLE)  # its mean is q
    close(exercises.contextual_calibration(p, some), torch.tensor([0.0, 0.5, 0.5], dtype=DOUBLE), "zeros in rows of q")
    for bad in (torch.tensor([0.5, 0.5, 0.0], dtype=DOUBLE), torch.tensor([[0, 1, 0], [0, 0.5, 0.5]], dtype=DOUBLE)):
        with pytest.raises(ValueError):
            exercises.contextual_calibration(p, bad)


# ------------------------------------------------------------------------------------------------------- extract_answer

PHRASES = (
    "So the answer is {}.",
    "Therefore, the final answer is: {}",
    "ANSWER: {}!",
    "Answer:\n\n{}, as was to be shown, for 7 reasons.",
    "Thus the answer\nis **{}** in all.",
    "My answer : ({}) and nothing else (like 99 or C).",
)


def reads(exercises, kind, cases):
    """Check what is read from each text."""
    for text, expected in cases:
        exact(exercises.extract_answer(text, kind), expected, f"extract_answer({text!r}, {kind!r})")


@exercise("extract_answer", weight=2)
def test_numbers_are_read_back(exercises, rng):
    """Any number, written with or without commas, is found in any phrase."""
    for phrase in PHRASES:
        for digits in range(1, 9):
            x = int(rng.integers(10 ** (digits - 1), 10**digits))
            sign, cents = rng.random.choice(("", "-")), rng.random.choice(("", ".5", ".25", ".075"))
            form = f"{sign}{x:,}{cents}" if digits % 2 else f"{sign}{x}{cents}"
            text = f"A box holds 12 or 1,300 things, of which 3 break. 5 * 8 = 40. {phrase.format(form)}"
            exact(exercises.extract_answer(text, kind="number"), f"{sign}{x}{cents}", f"the number in {text!r}")


@exercise("extract_answer")
def test_numbers_with_their_signs(exercises):
    """Signs, currency, fractions and what follows are treated as promised."""
    cases = (
        ("The answer is $1,234,567.", "1234567"), ("The answer is -$5.", "-5"), ("The answer is $-5 ok", "-5"),
        ("Answer: +12 degrees", "12"), ("Answer: 3/4 of it", "3/4"), ("answer is -7/2.", "-7/2"),
        ("Answer: 1,000/3", "1000/3"), ("Answer: 72, altogether.", "72"), ("Answer: 72,", "72"), ("Answer: 50%", "50"),
        ("Answer: 12, 345 and more", "12"), ("Answer: 1,2 or 3", "1"),
        ("Answer: 0.", "0"), ("Answer: -0.50.", "-0.50"), ("answer is 3 km", "3"),
    )  # fmt: skip
    reads(exercises, "number", cases)


@exercise("extract_answer", weight=2)
def test_only_a_stated_answer_counts(exercises):
    """Without a cue, or with other words behind it, there is no answer."""
    texts = (
        "", "12", "There were 12 apples and 5 were eaten.", "12 - 5 = 7", "The answer is", "The answer is unclear: 7",
        "The answer is about 7.", "The answers: 7", "The answer isn't 7.", "The answer of 7", "I answer 7",
        "Unanswered: 7", r"\boxed{7}", "answer = 7", "The answer is not 7", "The answer is , 7",
    )  # fmt: skip
    reads(exercises, "number", [(text, None) for text in texts])
    reads(exercises, "choice", [(text.replace("7", "B"), None) for text in texts])


@exercise("extract_answer")
def test_the_last_stated_answer_wins(exercises):
    """A later answer replaces an earlier one; an empty cue does not."""
    cases = (
        ("The answer is 5. Wait: the answer is 6. Done, 7 steps.", "6"),
        ("Answer: 5. I hope that the answer is clear.", "5"),
        ("Answer: 5\nIs the answer: 4? No. The answer is 1,000", "1000"),
        ("The answer is: answer: 8", "8"),
    )
    reads(exercises, "number", cases)
    reads(
        exercises,
        "choice",
        (("The answer is B. No, the answer is D. C is a trap.", "D"), ("Answer:\n\nAnswer: C", "C")),
    )


@exercise("extract_answer", weight=2)
def test_choices_are_whole_capitals(exercises):
    """A letter from A to E standing alone is a choice, in any phrase."""
    for phrase, letter in zip(PHRASES, "ABCDEA", strict=True):
        reads(exercises, "choice", [(f"A cat, a dog (D) or B? {phrase.format(letter)}", letter)])
    cases = (
        ("A cat sat on E. I say B.", None), ("The answer is a bit long.", None), ("Answer: Denmark", None),
        ("Answer: None of the above", None), ("Answer: Don't know", None), ("Answer: F", None), ("Answer: c", None),
        ("Answer: D2", None), ("The answer is B because a car moves.", "B"), ("answer is C) rain", "C"),
        ("The answer is A, not E.", "A"), ("Answer: 5", None), ("Answer: **(E)**", "E"),
    )  # fmt: skip
    reads(exercises, "choice", cases)


@exercise("extract_answer", weight=2)
def test_boxes_are_balanced(exercises, rng):
    """The last box that closes is read, with all braces inside it."""
    cases = (
        (r"\boxed{\frac{1}{\sqrt{2}}} and {more}", r"\frac{1}{\sqrt{2}}"),
        (r"first \boxed{1}, then \boxed{ 1,234 }.", "1,234"),
        (r"\boxed{4} and the start of \boxed{\frac{1}{2}", "4"),
        (r"\boxed 3, then $\boxed{5}$ and $\{x\}$", "5"), (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{7", None), (r"{7}", None), ("the answer is 7", None), ("", None), (r"\boxed{x^{2}}}}", "x^{2}"),
        ("\\boxed{a\nb}", "a\nb"), (r"\boxed{-3}\boxed{\text{C}}", r"\text{C}"),
    )  # fmt: skip
    reads(exercises, "boxed", cases)
    inside = "x"
    for _ in range(12):
        inside = rng.random.choice((r"\sqrt{{{}}}", r"{} + {{2}}", r"\frac{{{}}}{{3}}")).format(inside)
    reads(exercises, "boxed", [(rf"So \boxed{{1}} is \boxed{{{inside}}} {{done}}", inside)])


@exercise("extract_answer")
def test_kinds_of_answers(exercises):
    """The default kind is number; an unknown kind is a ValueError."""
    text = r"Answer: 5. The answer is B. \boxed{6}"
    exact(exercises.extract_answer(text), "5", f"extract_answer({text!r})")
    for kind in ("letter", "", "Number"):
        with pytest.raises(ValueError):
            exercises.extract_answer(text, kind)


# ---------------------------------------------------------------------------------- self_consistency, majority_accuracy


def tallied(answers, weights):
    """The winner and its share, by asking for each answer in turn."""
    totals = [sum(w for b, w in zip(answers, weights, strict=True) if b == a and b is not None) for a in answers]
    best = max(range(len(answers)), key=lambda i: (answers[i] is not None, totals[i], -i))
    votes = sum(w for a, w in zip(answers, weights, strict=True) if a is not None)
    return answers[best], totals[best] / votes


def ballots(rng, n):
    """Texts, and a function that reads them: about a quarter cannot be read."""
    answers = [rng.random.choice(("4", "5", "6", None)) for _ in range(n - 1)] + ["4"]
    return [f"t{i}" for i in range(n)], answers, lambda text: answers[int(text[1:])]


@exercise("self_consistency", weight=2)
def test_ties_go_to_the_first(exercises):
    """Among equals it is the answer whose first vote came earliest."""
    read = lambda text: None if text == "?" else text  # noqa: E731
    for texts, winner in (("azza", "a"), ("zzaa", "z"), ("?zaaz", "z"), ("bca", "b"), ("cabbac", "c"), ("mzzm?", "m")):
        exact(exercises.self_consistency(list(texts), read)[0], winner, f"the winner of the tie {texts!r}")
    exact(exercises.self_consistency(list("zaza"), read, [0.5, 1.5, 1.5, 0.5]), ("z", 0.5), "a weighted tie")


@exercise("self_consistency", weight=2)
def test_vote_agrees_with_a_recount(exercises, rng):
    """The winner and its share are those of a plain recount."""
    for n in (1, 2, 5, 9, 16, 30):
        texts, answers, extract = ballots(rng, n)
        got = exercises.self_consistency(texts, extract)
        close(got[1], tallied(answers, [1] * n)[1], f"the share of the winner of {answers}")
        exact(got[0], tallied(answers, [1] * n)[0], f"the winner of {answers}")


@exercise("self_consistency", weight=2)
def test_unreadable_samples_have_no_vote(exercises):
    """None neither wins nor counts in the share; other answers always do."""
    read = {"a": 1, "b": None, "c": 0, "d": "", "e": False}.get
    for texts, expected in (("bbba", (1, 1.0)), ("abcc", (0, 2 / 3)), ("ddbba", ("", 2 / 3)), ("eeab", (False, 2 / 3))):
        got = exercises.self_consistency(list(texts), lambda text: read(text))
        exact(got[0], expected[0], f"the winner of {texts!r}")
        close(got[1], expected[1], f"its share in {texts!r}")
    for nothing in ([], ["b"], ["b", "b"]):
        exact(exercises.self_consistency(nothing, lambda text: read(text)), (None, 0.0), "a vote of nobody")


@exercise("self_consistency", weight=2)
def test_votes_are_weighted(exercises, rng):
    """A few heavy votes beat many light ones, and the share is of weight."""
    for n in (3, 8, 13):
        texts, answers, extract = ballots(rng, n)
        weights = (rng.integers(0, 9, n) / 8 + 0.125 * 2.0 ** -torch.arange(n)).tolist()  # sums are exact, no ties
        got = pure(exercises.self_consistency, texts, extract, weights)
        exact(got[0], tallied(answers, weights)[0], f"the winner of {answers} with weights {weights}")
        close(got[1], tallied(answers, weights)[1], f"the share of the winner of {answers} with weights {weights}")
    got = exercises.self_consistency(list("xxxy"), lambda text: text, weights=[1.0, 1.0, 1.0, 5.0])
    exact(got, ("y", 0.625), "three votes of weight 1 against one of weight 5")


@exercise("self_consistency")
def test_weights_that_are_out_of_order(exercises):
    """Weights of 0 are no votes; a wrong number of them is a ValueError."""
    read = lambda text: None if text == "?" else text  # noqa: E731
    exact(exercises.self_consistency(["a", "?"], read, [0.0, 2.0]), (None, 0.0), "votes of total weight 0")
    exact(exercises.self_consistency(["a", "?", "b"], read, [0.0, 2.0, 0.5]), ("b", 1.0), "one vote of weight 0.5")
    for weights in ([1.0], [1.0, 1.0, 1.0], []):
        with pytest.raises(ValueError):
            exercises.self_consistency(["a", "b"], read, weights)


@exercise("self_consistency")
def test_vote_does_not_depend_on_order(exercises, rng):
    """Without a tie any order of the samples gives the same result."""
    texts = list("aaaabbbcc?")
    for _ in range(4):
        shuffled = [texts[i] for i in rng.permutation(len(texts))]
        extract = counting(lambda text: None if text == "?" else text)
        winner, share = exercises.self_consistency(shuffled, extract)
        exact(winner, "a", f"the winner of {shuffled}")
        close(share, 4 / 9, f"the share of the winner of {shuffled}")
        holds(extract.calls <= len(texts), f"extract is called {extract.calls} times for {len(texts)} samples.")


@exercise("self_consistency", weight=2)
def test_majority_by_listing_all_votes(exercises):
    """It is the total probability of the outcomes that win, ties included."""
    for n in (1, 2, 3, 4, 7, 8):
        for p in (0.3, 0.6, 0.85):
            total = 0.0
            for votes in itertools.product((0, 1), repeat=n):
                margin = 2 * sum(votes) - n
                if margin > 0 or (margin == 0 and votes[0]):
                    total += math.prod(p if vote else 1 - p for vote in votes)
            close(exercises.majority_accuracy(p, n), total, f"majority_accuracy({p}, {n})")


@exercise("self_consistency")
def test_majority_of_many_votes(exercises):
    """It agrees with exact fractions up to a thousand votes."""
    for n, p in ((101, Fraction(9, 16)), (501, Fraction(33, 64)), (999, Fraction(31, 64)), (1000, Fraction(33, 64))):
        # Exact, with n made odd: a tie decided by its first vote makes 2m votes as good as 2m - 1.
        m = n - 1 if n % 2 == 0 else n
        a, b = p.numerator, p.denominator
        won = sum(math.comb(m, k) * a**k * (b - a) ** (m - k) for k in range(m // 2 + 1, m + 1))
        tail = Fraction(won, b**m)
        close(exercises.majority_accuracy(float(p), n), float(tail), f"majority_accuracy({float(p)}, {n})")


@exercise("self_consistency")
def test_majority_helps_the_good_and_hurts_the_bad(exercises):
    """Above one half more votes help, below they hurt, at one half nothing."""
    sizes = (1, 3, 5, 11, 51)
    for p in (0.55, 0.9):
        good = [exercises.majority_accuracy(p, n) for n in sizes]
        bad = [exercises.majority_accuracy(1 - p, n) for n in sizes]
        holds(good == sorted(good) and good[0] < good[-1], f"The accuracy rises with n for p = {p}: {good}.")
        close([1 - x for x in bad], good, f"one minus the accuracies for p = {1 - p:.2f}")
    close([exercises.majority_accuracy(0.5, n) for n in (*sizes, 2, 10)], [0.5] * 7, "accuracies for p = 0.5")


@exercise("self_consistency")
def test_majority_at_the_edges(exercises):
    """Certain votes give 0 and 1; impossible arguments are ValueErrors."""
    for n in (1, 2, 5, 6):
        close(
            [exercises.majority_accuracy(0.0, n), exercises.majority_accuracy(1.0, n)], [0.0, 1.0], f"p 0 and 1, n {n}"
        )
    for p, n in ((-0.1, 3), (1.1, 3), (0.5, 0), (0.5, -1)):
        with pytest.raises(ValueError):
            exercises.majority_accuracy(p, n)


# ---------------------------------------------------------------------------------------- icl_linear_attention, fit_icl


def stepped(xs, ys, x_query, eta):
    """One gradient step from w = 0 by autograd, task by task, then the prediction."""
    lead, d = ys.shape[:-1], xs.shape[-1]
    predictions = []
    for x, y, q in zip(
        xs.reshape(-1, *xs.shape[-2:]), ys.reshape(-1, ys.shape[-1]), x_query.reshape(-1, d), strict=True
    ):
        w = torch.zeros(d, dtype=xs.dtype, requires_grad=True)
        loss = (x @ w - y).square().sum() / (2 * len(y))
        (gradient,) = torch.autograd.grad(loss, w)
        predictions.append(q @ (w.detach() - eta * gradient))
    return torch.stack(predictions).reshape(lead)


def shots_for(rng, *lead, n=7, d=4):
    """Inputs, targets that are not linear in them, and queries."""
    return rng.normal(*lead, n, d), rng.normal(*lead, n), rng.normal(*lead, d)


@exercise("icl_linear_attention", weight=2)
def test_attention_is_a_gradient_step(exercises, rng):
    """It predicts what one step of gradient descent from zero predicts."""
    for lead, n, d, eta in (
        ((), 5, 3, 0.7),
        ((3,), 7, 4, 1.9),
        ((2, 3), 4, 6, 0.1),
        ((5,), 1, 2, 1.0),
        ((2,), 3, 1, 3.0),
    ):
        xs, ys, x_query = shots_for(rng, *lead, n=n, d=d)
        expected = stepped(xs, ys, x_query, eta)
        got = pure(exercises.icl_linear_attention, xs, ys, x_query, eta)
        close(got, expected, f"icl_linear_attention, tasks {lead}, {n} shots of width {d}, eta={eta}")


@exercise("icl_linear_attention")
def test_attention_is_linear_in_targets(exercises, rng):
    """Targets add up, and twice the targets give twice the prediction."""
    xs, ys, x_query = shots_for(rng, 3)
    more = rng.normal(3, 7)
    first, second = (exercises.icl_linear_attention(xs, y, x_query, 0.5) for y in (ys, more))
    close(exercises.icl_linear_attention(xs, 2 * ys - more, x_query, 0.5), 2 * first - second, "a mix of targets")


@exercise("icl_linear_attention")
def test_attention_has_no_favourite_place_or_direction(exercises, rng):
    """Permuting the shots or rotating all inputs changes nothing."""
    xs, ys, x_query = shots_for(rng, 3)
    straight, order = exercises.icl_linear_attention(xs, ys, x_query, 0.5), rng.permutation(7)
    close(exercises.icl_linear_attention(xs[:, order], ys[:, order], x_query, 0.5), straight, "permuted shots")
    rotation = torch.linalg.qr(rng.normal(4, 4))[0]
    close(exercises.icl_linear_attention(xs @ rotation, ys, x_query @ rotation, 0.5), straight, "rotated inputs")


@exercise("icl_linear_attention")
def test_attention_keeps_tasks_apart(exercises, rng):
    """Each task of a batch is solved as if it were alone, in its own dtype."""
    for dtype in (DOUBLE, torch.float32):
        xs, ys, x_query = (x.to(dtype) for x in shots_for(rng, 4))
        got = exercises.icl_linear_attention(xs, ys, x_query, eta=0.8)
        close(got, stepped(xs, ys, x_query, 0.8), f"four {dtype} tasks")
        close(exercises.icl_linear_attention(xs[2], ys[2], x_query[2], 0.8), got[2], "the third task alone")


@driver
def fitted(module, kind, tasks, steps, lr, start, stale=0.0):
    """Fit a one-number, a matrix or a half frozen model; give curve, parameters and whether the tasks are unchanged."""
    import torch

    class Scale(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.eta = torch.nn.Parameter(start.clone())

        def forward(self, xs, ys, x_query):
            return self.eta * torch.einsum("bn,bni,bi->b", ys, xs, x_query) / xs.shape[1]

    class Matrix(Scale):
        def forward(self, xs, ys, x_query):
            return torch.einsum("bn,bni,ij,bj->b", ys, xs, self.eta, x_query) / xs.shape[1]

    class Offset(Scale):
        def __init__(self):
            super().__init__()
            self.fixed = torch.nn.Parameter(torch.ones(1, dtype=torch.float64), requires_grad=False)

        def forward(self, xs, ys, x_query):
            return super().forward(xs, ys, x_query) + self.fixed

    model = {"scale": Scale, "matrix": Matrix, "offset": Offset}[kind]()
    if stale:
        model.eta.grad = torch.full_like(model.eta, stale)
    kept = [x.clone() for x in tasks]
    with torch.enable_grad():
        curve = module.fit_icl(model, tasks, steps, lr)
    same = all(torch.equal(x, y) for x, y in zip(kept, tasks, strict=True))
    return curve, [p.detach().clone() for p in model.parameters()], same


def tasks_of(rng, B=6, n=5, d=3):
    """Tasks with noisy targets, so that no model fits them all."""
    return rng.normal(B, n, d), rng.normal(B, n), rng.normal(B, d), rng.normal(B)


def descended(F, y, theta, steps, lr):
    """The losses of gradient descent on the mean of (F theta - y)^2, in closed form, and the last theta."""
    curve = []
    for _ in range(steps):
        curve.append(float((F @ theta - y).square().mean()))
        theta = theta - lr * 2 / len(y) * F.T @ (F @ theta - y)
    return [*curve, float((F @ theta - y).square().mean())], theta


def features(tasks):
    """For each task the matrix (sum of y_i x_i / n) x_query^T, flattened: the prediction is linear in it."""
    xs, ys, x_query, _ = tasks
    return ((ys[..., None] * xs).mean(1)[:, :, None] * x_query[:, None, :]).flatten(1)


@exercise("icl_linear_attention", weight=2)
def test_training_follows_the_closed_form(exercises, rng):
    """Each loss and the final weights are those of plain gradient descent."""
    tasks, start = tasks_of(rng), 0.5 * rng.normal(3, 3)
    got, (M,), same = exercises.run(fitted, "matrix", tasks, 12, 0.3, start)
    curve, theta = descended(features(tasks), tasks[3], start.flatten(), 12, 0.3)
    close(got, curve, "the 13 losses of 12 steps")
    close(M.flatten(), theta, "the matrix after 12 steps")
    holds(same, "fit_icl leaves the tasks unchanged.")


@exercise("icl_linear_attention", weight=2)
def test_training_of_a_single_step_size(exercises, rng):
    """A model with one number descends along its parabola."""
    tasks, start = tasks_of(rng, B=9, n=4, d=2), torch.tensor([-0.4], dtype=DOUBLE)
    s = features(tasks).reshape(9, 2, 2).diagonal(dim1=1, dim2=2).sum(-1)
    curve, theta = descended(s[:, None], tasks[3], start, 7, 0.11)
    got, (eta,), _ = exercises.run(fitted, "scale", tasks, 7, 0.11, start)
    close(got, curve, "the 8 losses of 7 steps")
    close(eta, theta, "the step size after 7 steps")


@exercise("icl_linear_attention")
def test_training_without_steps(exercises, rng):
    """No step gives one loss and leaves the model as it was."""
    tasks, start = tasks_of(rng), rng.normal(3, 3)
    got, (M,), _ = exercises.run(fitted, "matrix", tasks, 0, 0.3, start)
    close(got, descended(features(tasks), tasks[3], start.flatten(), 0, 0.3)[0], "the curve of no steps")
    exact(M, start, "the matrix after no steps")


@exercise("icl_linear_attention")
def test_training_forgets_old_gradients(exercises, rng):
    """Gradients left over from before the call have no influence."""
    tasks, start = tasks_of(rng), torch.tensor([0.2], dtype=DOUBLE)
    clean = exercises.run(fitted, "scale", tasks, 3, 0.1, start)
    dirty = exercises.run(fitted, "scale", tasks, 3, 0.1, start, 50.0)
    close(dirty[0], clean[0], "the curve with a stale gradient")
    holds(clean[0][-1] < clean[0][0], f"The loss falls: {clean[0]}.")


@exercise("icl_linear_attention")
def test_training_leaves_frozen_parameters(exercises, rng):
    """Only parameters that require a gradient move."""
    tasks, start = tasks_of(rng, B=8), torch.tensor([0.3], dtype=DOUBLE)
    s = features(tasks).reshape(8, 3, 3).diagonal(dim1=1, dim2=2).sum(-1)
    curve, theta = descended(s[:, None], tasks[3] - 1.0, start, 4, 0.1)
    got, (eta, fixed), _ = exercises.run(fitted, "offset", tasks, 4, 0.1, start)
    close(got, curve, "the curve of a model with a frozen offset")
    close(eta, theta, "the parameter that is trained")
    exact(fixed, torch.ones(1, dtype=DOUBLE), "the frozen parameter")


# -------------------------------------------------------------------------------- prompt_sensitivity, order_sensitivity


def summary(scores):
    """The five numbers, by the standard library."""
    std = statistics.stdev(scores) if len(scores) > 1 else 0.0
    low, high = min(scores), max(scores)
    return {"mean": statistics.fmean(scores), "std": std, "min": low, "max": high, "spread": high - low}


@exercise("prompt_sensitivity", weight=2)
def test_sensitivity_of_random_scores(exercises, rng):
    """The five numbers are those of the template means."""
    for n, m in ((4, 7), (2, 3), (9, 1), (5, 5)):
        table = 3 * rng.normal(n, m) + 1
        names = [f"template {i}" for i in range(n)]
        score_fn = lambda template, item, table=table: float(table[int(template.split()[1]), item])  # noqa: E731
        got = exercises.prompt_sensitivity(score_fn, names, list(range(m)))
        close(got, summary(table.mean(1).tolist()), f"prompt_sensitivity of {n} templates and {m} items")


@exercise("prompt_sensitivity")
def test_sensitivity_asks_each_pair_once(exercises):
    """The score of each template and item is asked for exactly once."""
    score_fn = counting(lambda template, item: float(len(template) * len(item)))
    templates, data = ["a", "bbb", "cc"], ["x", "yy"]
    pure(exercises.prompt_sensitivity, score_fn, templates, data)
    exact(sorted(score_fn.arguments), sorted(itertools.product(templates, data)), "the pairs that were scored")


@exercise("prompt_sensitivity")
def test_sensitivity_of_one_template(exercises):
    """A single template has no spread."""
    got = exercises.prompt_sensitivity(lambda template, item: item / 4, ["only"], [1, 2, 6])
    close(got, {"mean": 0.75, "std": 0.0, "min": 0.75, "max": 0.75, "spread": 0.0}, "one template")


@exercise("prompt_sensitivity")
def test_sensitivity_of_a_constant_score(exercises, rng):
    """A constant score has no spread; the order of templates is irrelevant."""
    got = exercises.prompt_sensitivity(lambda template, item: 0.7, list("abcdef"), [0, 1, 2])
    close(got, {"mean": 0.7, "std": 0.0, "min": 0.7, "max": 0.7, "spread": 0.0}, "a constant score")
    scores = {name: float(x) for name, x in zip("abcdef", rng.normal(6), strict=True)}
    for names in ("abcdef", "fcbdae"):
        got = exercises.prompt_sensitivity(lambda template, item: scores[template] * item, list(names), [1, 2])
        close(got, summary([1.5 * x for x in scores.values()]), f"the templates {names}")


@exercise("prompt_sensitivity")
def test_sensitivity_needs_templates_and_data(exercises):
    """No template or no item is a ValueError."""
    for templates, data in (([], ["x"]), (["a"], []), ([], [])):
        with pytest.raises(ValueError):
            exercises.prompt_sensitivity(lambda template, item: 1.0, templates, data)


def value_of(order):
    """A score that differs from order to order: the shots read as a number in base 11."""
    return float(sum(ord(shot) % 11 * 11**place for place, shot in enumerate(order))) / 1000


@exercise("prompt_sensitivity", weight=2)
def test_every_order_is_scored(exercises):
    """When all orders are allowed, each is scored exactly once."""
    for shots in ("abcd", "abc", "ab", "a", ""):
        orders = list(itertools.permutations(shots))
        for allowed in (len(orders), len(orders) + 5):
            score_fn = counting(value_of)
            got = pure(exercises.order_sensitivity, score_fn, list(shots), allowed)
            exact(sorted(tuple(order) for (order,) in score_fn.arguments), sorted(orders), f"orders of {shots!r}")
            close(got, summary([value_of(order) for order in orders]), f"the summary over all orders of {shots!r}")


@exercise("prompt_sensitivity", weight=2)
def test_some_orders_are_spread_evenly(exercises):
    """With fewer allowed, evenly spaced ones of the list are scored."""
    for shots, allowed in (("abcd", 7), ("abcde", 30), ("hgfe", 2), ("abcd", 23), ("abcdef", 11)):
        orders = list(itertools.permutations(shots))
        chosen = [orders[i * len(orders) // allowed] for i in range(allowed)]
        score_fn = counting(value_of)
        got = exercises.order_sensitivity(score_fn, list(shots), max_perm=allowed)
        exact(sorted(tuple(order) for (order,) in score_fn.arguments), sorted(chosen), f"{allowed} orders of {shots!r}")
        close(got, summary([value_of(order) for order in chosen]), f"the summary over {allowed} orders of {shots!r}")


@exercise("prompt_sensitivity")
def test_equal_shots_count_as_different(exercises):
    """Orders are orders of positions: equal shots give equal orders twice."""
    score_fn = counting(value_of)
    got = exercises.order_sensitivity(score_fn, ["a", "a", "b"], 6)
    exact(score_fn.calls, 6, "the number of orders of a, a, b")
    close(got, summary([value_of(order) for order in itertools.permutations("aab")]), "the summary over a, a, b")


@exercise("prompt_sensitivity")
def test_order_of_a_constant_score(exercises):
    """One order, or a constant score, has no spread; zero orders are an error."""
    got = exercises.order_sensitivity(lambda order: 2.5, list("abcd"), 9)
    close(got, {"mean": 2.5, "std": 0.0, "min": 2.5, "max": 2.5, "spread": 0.0}, "a constant score")
    got = exercises.order_sensitivity(value_of, list("cab"), 1)
    close(got, summary([value_of("cab")]), "a single order, the given one")
    for allowed in (0, -1):
        with pytest.raises(ValueError):
            exercises.order_sensitivity(lambda order: 1.0, ["a", "b"], allowed)
