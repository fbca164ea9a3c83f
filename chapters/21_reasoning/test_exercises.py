"""Self-checks of chapter 21: worked examples and the laws that teach."""

import itertools
import math

import pytest
import torch

from grader.testing import close, counting, exact, exercise, holds


@exercise("split_thinking")
def test_thinking_and_answer_part(exercises):
    """The block is thinking, what stands outside of it is the answer."""
    exact(exercises.split_thinking("<think>7 * 6 is 42.</think> It is 42."), ("7 * 6 is 42.", "It is 42."), "one block")
    exact(exercises.split_thinking("<think>a</think>b<think>c</think>d"), ("a\nc", "bd"), "two blocks")
    exact(exercises.split_thinking("<think>Let me see. First"), ("Let me see. First", ""), "a block that never ends")


@exercise("split_thinking")
def test_tags_in_a_fence_are_shown(exercises):
    """An answer may show the tags in a code fence."""
    shown = "Write\n```\n<think>so</think>\n```"
    exact(exercises.split_thinking(f"<think>easy</think>{shown}"), ("easy", shown), "an answer with a code fence")


@exercise("split_thinking")
def test_next_turn_sees_answers(exercises):
    """The model's thinking leaves the history, the user's words stay."""
    messages = [
        {"role": "user", "content": "What is <think>?"},
        {"role": "assistant", "content": "<think>A tag.</think>A tag."},
    ]
    expected = [messages[0], {"role": "assistant", "content": "A tag."}]
    exact(exercises.strip_history(messages), expected, "strip_history of a question and a reply")


def scripted(*replies):
    """A model that says these ids in order."""
    line = iter(replies)
    return counting(lambda ids: next(line))


@exercise("budget_forced_generate")
def test_too_early_becomes_wait(exercises):
    """An end before the second token is replaced by the wait."""
    model = scripted(5, 99, 6, 99, 7, None)
    got = exercises.budget_forced_generate(model, [1, 2], 2, 8, end_id=99, wait_ids=[50])
    exact(got, [5, 50, 6, 99, 7], "the new ids for the replies 5, 99, 6, 99, 7, None")
    exact(model.arguments[2][0], [1, 2, 5, 50], "what the model saw after the wait")


@exercise("budget_forced_generate")
def test_too_late_is_ended(exercises):
    """After max_think tokens the end is written without asking."""
    model = scripted(5, 6, 7, None)
    got = exercises.budget_forced_generate(model, [1, 2], 0, 2, end_id=99, wait_ids=[50])
    exact(got, [5, 6, 99, 7], "the new ids for the replies 5, 6, 7, None and a maximum of 2")
    exact(model.calls, 4, "how often the model was asked")


@exercise("best_of_n")
def test_first_of_the_best(exercises):
    """The first of the samples with the highest score is chosen."""
    exact(exercises.best_of_n(["aye", "hello", "howdy"], len), "hello", "best_of_n by length")


@exercise("best_of_n")
def test_expectation_on_paper(exercises):
    """Of 1, 2 and 4, the pairs have the best scores 2, 4 and 4."""
    close(exercises.expected_best_of_n([4.0, 1.0, 2.0], 2), (2 + 4 + 4) / 3, "expected_best_of_n of 4, 1, 2 with n=2")


@exercise("best_of_n")
def test_expectation_is_a_mean_over_subsets(exercises, rng):
    """It is what listing all the subsets would give."""
    scores = rng.normal(6).tolist()
    for n in (1, 3, 6):
        best = [max(subset) for subset in itertools.combinations(scores, n)]
        close(exercises.expected_best_of_n(scores, n), sum(best) / len(best), f"expected_best_of_n of 6 scores, n={n}")


@exercise("verify_math")
def test_same_value_other_writing(exercises):
    """The value counts, not the spelling; near is not equal."""
    for pred, gold in (("50 %", "1/2"), ("1,234", "1234.0"), ("1.1 km", "1100m"), ("Paris", " paris")):
        exact(exercises.verify_math(pred, gold), True, f"verify_math({pred!r}, {gold!r})")
    for pred, gold in (("0.3333", "1/3"), ("12", "112"), ("5", "5 m"), ("3 + 4", "7")):
        exact(exercises.verify_math(pred, gold), False, f"verify_math({pred!r}, {gold!r})")


@exercise("verify_math")
def test_vote_of_the_worked_example(exercises):
    """The worked example of the notes: 18 has the votes, 24 the weight."""
    answers, scores = ["18", "24", "18", "24.0", "18", "30"], [0.25, 0.75, 0.125, 0.5, 0.25, 0.875]
    exact(exercises.weighted_vote(answers, scores), "24", "weighted_vote of the worked example")
    exact(exercises.weighted_vote(answers, [1.0] * 6), "18", "weighted_vote with equal weights")


@exercise("process_score")
def test_weakest_step_product_and_last(exercises):
    """Three ways to sum up the steps 1/2, 1 and 1/4."""
    steps = [0.5, 1.0, 0.25]
    exact((exercises.process_score(steps), exercises.process_score(steps, "last")), (0.25, 0.25), "min and last")
    close(exercises.process_score(steps, "prod"), math.log(0.125), "prod")


@exercise("process_score")
def test_second_best_may_lead_to_the_best(exercises):
    """A search of width 1 misses what a search of width 2 finds."""
    values = {("a",): 0.9, ("b",): 0.8, ("a", "x"): 0.1, ("a", "y"): 0.3, ("b", "x"): 0.2, ("b", "y"): 0.7}

    def expand(path):
        return ["a", "b"] if not path else ["x", "y"]

    for width, best in ((1, ("a", "y")), (2, ("b", "y"))):
        got = exercises.tree_search(expand, lambda path: values[tuple(path)], width, 2)
        exact(tuple(got), best, f"tree_search with width {width}")


@exercise("group_advantages")
def test_advantages_on_paper(exercises):
    """Two right answers of four, and a group that is all right."""
    rewards = torch.tensor([1.0, 0, 0, 1, 5, 5, 5, 5], dtype=torch.float64)
    a = 0.5 / math.sqrt(1 / 3)  # four deviations of 1/2: a variance of 4 (1/2)^2 / 3
    expected = torch.tensor([a, -a, -a, a, 0, 0, 0, 0], dtype=torch.float64)
    close(exercises.group_advantages(rewards, 4, eps=0.0), expected, "group_advantages of two groups of four")


@exercise("group_advantages")
def test_equal_rewards_give_exact_zeros(exercises):
    """Seven rewards of 0.7 have nothing to compare."""
    got = exercises.group_advantages(torch.full((7,), 0.7), 7)
    exact(got, torch.zeros(7), "group_advantages of seven equal rewards")


@exercise("grpo_loss")
def test_averages_of_the_worked_example(exercises):
    """One token up and three down: 0, 1/2 and 1 by the three averages."""
    logp, adv = torch.full((2, 3), -1.0), torch.tensor([1.0, -1.0])
    mask = torch.tensor([[True, False, False], [True, True, True]])
    for agg, expected in (("seq", 0.0), ("token", 0.5), ("dr", 1.0)):
        got = exercises.grpo_loss(logp, logp, logp, adv, mask, 0.2, 0.0, agg)
        close(got, torch.tensor(expected), f"grpo_loss of answers of one and three tokens, agg {agg!r}")


@exercise("grpo_loss")
def test_clip_and_leash_of_one_token(exercises):
    """A ratio of 1.5 counts as 1.2, and k3 is taken off."""
    logp, old, ref = (torch.tensor([[x]], dtype=torch.float64).log() for x in (0.6, 0.4, 0.3))
    got = exercises.grpo_loss(logp, old, ref, torch.ones(1).double(), torch.tensor([[True]]), 0.2, 0.5)
    k3 = 0.3 / 0.6 - 1 - math.log(0.3 / 0.6)
    close(got, torch.tensor(-1.2 + 0.5 * k3, dtype=torch.float64), "grpo_loss of one token")


@exercise("grpo_loss")
def test_unknown_average_is_refused(exercises):
    """There are three averages and no other."""
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError):
        exercises.grpo_loss(x, x, x, torch.zeros(1), torch.ones(1, 1).bool(), 0.2, 0.0, "mean")


def digit_task(rng, lr):
    """Twenty sums of two digits, without the carry; the answer is one digit."""
    a, b = rng.integers(0, 10, 20), rng.integers(0, 10, 20)
    verify = counting(lambda prompts, answers: (answers[:, 0] == (a + b)[prompts] % 10).double())
    return {"prompts": 20, "length": 1, "words": 10, "lr": lr, "verify": verify}


@exercise("grpo_toy")
def test_toy_learns_to_add(exercises, rng):
    """From one in ten to nearly always, told only right or wrong."""
    task = digit_task(rng, 0.2)
    rewards = exercises.grpo_toy(task, 100, 0)
    holds(rewards[0] < 0.3, f"the first mean reward is {rewards[0]:.2f}; the policy should know nothing yet")
    holds(sum(rewards[-10:]) / 10 >= 0.95, f"the last mean rewards are {rewards[-10:]}")
    exact((len(rewards), task["verify"].calls), (100, 100), "number of mean rewards and of checks")


@exercise("grpo_toy")
def test_toy_stands_still_at_rate_zero(exercises, rng):
    """With learning rate 0 it stays at chance."""
    rewards = exercises.grpo_toy(digit_task(rng, 0.0), 40, 0)
    mean = sum(rewards) / 40
    # a group of two gives 1,600 answers, right with probability 0.1: a standard deviation of 0.0075
    holds(abs(mean - 0.1) < 0.05, f"the mean reward over 40 rounds is {mean:.3f}; chance is 0.1")
