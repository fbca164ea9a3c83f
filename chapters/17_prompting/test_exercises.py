"""Self-checks of chapter 17: worked examples and the laws that teach."""

import math

import torch

from grader.testing import close, counting, driver, exact, exercise, holds, roughly

FORM = {"input": "Q:", "output": "A:", "separator": "\n\n", "labels": {True: "yes", False: "no"}}
SHOTS = [("Is fire hot?", True), ("Is ice hot?", False)]


def words(text):
    """The number of words of a text."""
    return len(text.split())


@exercise("few_shot_prompt")
def test_prompt_of_two_shots(exercises):
    """Instruction, shots and query are blocks, and the last answer is open."""
    got = exercises.few_shot_prompt("Answer yes or no.", SHOTS, "Is snow hot?", FORM, 100, words)
    expected = "Answer yes or no.\n\nQ: Is fire hot?\nA: yes\n\nQ: Is ice hot?\nA: no\n\nQ: Is snow hot?\nA:"
    exact(got, expected, "few_shot_prompt with two shots")


@exercise("few_shot_prompt")
def test_prompt_drops_the_oldest_shot(exercises):
    """With room for one shot it is the newest one that stays."""
    got = exercises.few_shot_prompt("", SHOTS, "Is snow hot?", FORM, 12, words)
    exact(got, "Q: Is ice hot?\nA: no\n\nQ: Is snow hot?\nA:", "few_shot_prompt with room for 12 words")


def table(prompt, continuation):
    """The model of the notes: ' fair' is one token, ' not fair' is two."""
    if prompt == "":
        return [math.log(0.06)] if continuation == " fair" else [math.log(0.1), math.log(0.1)]
    return [math.log(0.3)] if continuation == " fair" else [math.log(0.5), math.log(0.2)]


@exercise("zero_shot_classify")
def test_labels_of_the_worked_example(exercises):
    """Probabilities 0.3 and 0.5 times 0.2 stand in the ratio 3 to 1."""
    got = exercises.zero_shot_classify(table, "The duel was", [" fair", " not fair"])
    close(got, torch.tensor([0.75, 0.25], dtype=torch.float64), "zero_shot_classify of the notes' labels")


@exercise("zero_shot_classify")
def test_pmi_of_the_worked_example(exercises):
    """Against the empty prompt the ratios are 5 and 10, and the order turns."""
    got = exercises.zero_shot_classify(table, "The duel was", [" fair", " not fair"], normalize="pmi")
    close(got, torch.tensor([1 / 3, 2 / 3], dtype=torch.float64), "zero_shot_classify with pmi")


@exercise("zero_shot_classify")
def test_bytes_of_the_worked_example(exercises):
    """Scores are divided by 5 and by 9 bytes."""
    got = exercises.zero_shot_classify(table, "The duel was", [" fair", " not fair"], normalize="byte")
    a, b = 0.3 ** (1 / 5), 0.1 ** (1 / 9)
    close(got, torch.tensor([a, b], dtype=torch.float64) / (a + b), "zero_shot_classify with byte")


@exercise("contextual_calibration")
def test_calibration_of_the_worked_example(exercises):
    """0.75 / 0.8 and 0.25 / 0.2 stand in the ratio 3 to 4."""
    p, q = torch.tensor([0.75, 0.25], dtype=torch.float64), torch.tensor([0.8, 0.2], dtype=torch.float64)
    expected = torch.tensor([3 / 7, 4 / 7], dtype=torch.float64)
    close(exercises.contextual_calibration(p, q), expected, "calibration of (0.75, 0.25) by (0.8, 0.2)")


@exercise("contextual_calibration")
def test_calibration_makes_the_bias_uniform(exercises, rng):
    """A query that looks like the content-free one gets equal chances."""
    q = rng.uniform(5) + 0.1
    expected = torch.full((5,), 0.2, dtype=torch.float64)
    close(exercises.contextual_calibration(q, q), expected, "the content-free row, calibrated by itself")


@exercise("extract_answer")
def test_number_behind_the_cue(exercises):
    """Numbers of the reasoning are passed over, separators are removed."""
    text = "There are 12 boxes of 120 nails. 12 times 120 is 1440, less 6. So the answer is 1,434 nails."
    exact(exercises.extract_answer(text), "1434", "extract_answer of a text with five numbers")


@exercise("extract_answer")
def test_letter_behind_the_cue(exercises):
    """The article at the start of a sentence is no choice."""
    exact(exercises.extract_answer("A cat has four legs. Answer: (C)", "choice"), "C", "the choice of 'A cat ...'")
    exact(exercises.extract_answer("A cat has four legs.", "choice"), None, "the choice where none is stated")


@exercise("extract_answer")
def test_box_with_braces(exercises):
    """A box ends at the brace that balances its first one."""
    exact(exercises.extract_answer(r"So $x = \boxed{\frac{1}{2}}$.", "boxed"), r"\frac{1}{2}", "a box with a fraction")


@exercise("self_consistency")
def test_vote_of_five(exercises):
    """Two of four readable answers agree; the unreadable one has no vote."""
    read = {"one": "7", "two": "9", "three": None, "four": "9", "five": "8"}.get
    got = exercises.self_consistency(["one", "two", "three", "four", "five"], read)
    exact(got, ("9", 0.5), "self_consistency of 7, 9, None, 9, 8")


@exercise("self_consistency")
def test_first_of_equals_wins(exercises):
    """A tie goes to the answer that appeared first."""
    exact(exercises.self_consistency(["b", "a", "a", "b"], str.upper), ("B", 0.5), "self_consistency of b, a, a, b")


@exercise("self_consistency")
def test_three_voters(exercises):
    """Three voters are right with probability p^3 + 3 p^2 (1 - p)."""
    for p in (0.0, 0.3, 0.5, 0.6, 1.0):
        close(exercises.majority_accuracy(p, 3), p**3 + 3 * p**2 * (1 - p), f"majority_accuracy({p}, 3)")


@exercise("icl_linear_attention")
def test_attention_of_two_shots(exercises):
    """Shots (1, 0) -> 2 and (0, 1) -> -1 give half of 3 * 2 + 1 * (-1)."""
    xs, ys = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, -1.0])
    close(exercises.icl_linear_attention(xs, ys, torch.tensor([3.0, 1.0]), 1.0), torch.tensor(2.5), "two shots")


@exercise("icl_linear_attention")
def test_more_shots_lower_the_error(exercises):
    """With the best step, the error falls with every doubling of the shots."""
    errors = []
    for n in (2, 4, 8, 16):
        xs, ys, x_query, y = exercises.linear_tasks(2000, n, 3, 5)
        errors.append(float((exercises.icl_linear_attention(xs, ys, x_query, n / (n + 4)) - y).square().mean()))
    holds(errors == sorted(errors, reverse=True), f"The mean squared errors fall: {errors}.")


@driver
def learned(module, steps):
    """Fit the learner of the chapter; give the curve and what M has become."""
    model = module.InContextLearner(2)
    curve = module.fit_icl(model, module.linear_tasks(2000, 10, 2, seed=1), steps, 0.05)
    return curve, model.M.detach()


@exercise("icl_linear_attention")
def test_training_finds_the_step(exercises):
    """Trained on many tasks, M becomes about n / (n + d + 1) on the diagonal."""
    curve, M = exercises.run(learned, 200)
    holds(len(curve) == 201 and curve[-1] < 0.4 * curve[0], f"The loss falls from {curve[0]} to {curve[-1]}.")
    # 2000 tasks leave an uncertainty of a few hundredths in M.
    roughly(M, torch.eye(2, dtype=torch.float64) * 10 / 13, 0.1, "M after 200 steps")


@exercise("prompt_sensitivity")
def test_spread_of_three_templates(exercises):
    """Scores 1/2, 1 and 0 have mean 1/2, standard deviation 1/2 and spread 1."""
    right = {"short": "ac", "long": "abcd", "odd": ""}
    score_fn = counting(lambda template, item: float(item in right[template]))
    got = exercises.prompt_sensitivity(score_fn, ["short", "long", "odd"], list("abcd"))
    close(got, {"mean": 0.5, "std": 0.5, "min": 0.0, "max": 1.0, "spread": 1.0}, "prompt_sensitivity")
    exact(score_fn.calls, 12, "the number of calls for 3 templates and 4 items")


@exercise("prompt_sensitivity")
def test_every_order_of_three_shots(exercises):
    """Three shots have six orders, and each is scored once."""
    score_fn = counting(lambda order: float(order[-1] == "good"))
    got = exercises.order_sensitivity(score_fn, ["bad", "good", "fine"], 10)
    close(got["mean"], 1 / 3, "the mean, when only the last shot counts")
    exact(score_fn.calls, 6, "the number of orders scored")
