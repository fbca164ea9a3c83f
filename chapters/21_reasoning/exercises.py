# %% [markdown]
# # Chapter 21: Reasoning
#
# Eight exercises. First spend more computation on one answer (think longer), then on many answers (draw, judge, vote,
# search), and at last turn the judge into a teacher: reinforcement learning with a reward that is checked, not guessed.
# The teaching is in the notes (`README.md`); here stand only the promises that each function must keep.
#
# Conventions are those of chapter 16: `logp` is the log-probability of the tokens that were actually drawn, and in a
# boolean mask over tokens **True means "belongs to the response"**.

# %%
import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

# %% [markdown]
# ## 21.1 split_thinking, strip_history
#
# A reasoning model writes down its thoughts between two tags. The reader gets the answer, and so does the next turn of
# the conversation.


# %%
def split_thinking(text: str) -> tuple[str, str]:
    """Part a reply into what was thought and what was answered.

    Args:
        text: any string. A block of thinking begins with `<think>` and ends with the first `</think>` behind it; one
            that is never closed goes to the end of the text. There may be any number of blocks, anywhere.

    Returns:
        (thinking, answer): the contents of the blocks, each stripped of whitespace at both ends, the empty ones left
        out, joined by newlines; and the text without its blocks, tags included, stripped in the same way.

    Example:
        >>> split_thinking("<think>7 * 6 is 42.</think> It is 42.")
        ('7 * 6 is 42.', 'It is 42.')
        >>> split_thinking("<think>Let me see. First")
        ('Let me see. First', '')

    Notes:
        Tags in a code fence of the answer are no tags and stay. A fence runs from a line of the answer that begins with
        three backticks to the next such line, or to the end of the text. Inside a block fences mean nothing, and a
        `<think>` is plain text. So is a `</think>` that closes nothing. Tags are written in lower case.
    """
    raise NotImplementedError("split_thinking")


# %%
def strip_history(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Copy a conversation without what the model thought in it.

    Args:
        messages: dicts with "role" and "content", and perhaps other keys.

    Returns:
        A new list with a new dict for each message, in order. The content of a message of role "assistant" is its
        answer alone, as `split_thinking` gives it, even if that is ""; all else is as it was.

    Example:
        >>> strip_history([{"role": "assistant", "content": "<think>7 * 6</think> 42"}])
        [{'role': 'assistant', 'content': '42'}]

    Notes:
        Only the model thinks: tags in a message of any other role are that person's own words. messages is not changed.
    """
    raise NotImplementedError("strip_history")


# %% [markdown]
# ## 21.2 budget_forced_generate
#
# How long a model thinks can be decided from outside: put a word in its mouth when it wants to stop too early, and
# the closing tag when it does not stop.


# %%
def budget_forced_generate(
    model: Callable[[list[int]], int | None],
    ids: Sequence[int],
    min_think: int,
    max_think: int,
    end_id: int,
    wait_ids: Sequence[int],
) -> list[int]:
    """Let a model think for at least min_think and at most max_think tokens, and then answer.

    Args:
        model: maps the list of all ids so far to the next id, or to None when the answer is complete. While it is
            thinking it always gives an id.
        ids: the prompt, at whose end the thinking begins.
        min_think, max_think: bounds for the number of thinking tokens, 0 <= min_think <= max_think.
        end_id: the token that ends the thinking.
        wait_ids: what is written in place of an end that comes too early; it does not contain end_id.

    Returns:
        The new ids, without the prompt: the thinking, end_id once, the answer.

    Raises:
        ValueError: if min_think > max_think, or if wait_ids is empty.

    Example:
        >>> replies = iter([5, 99, 6, 99, 7, None])
        >>> budget_forced_generate(lambda ids: next(replies), [1, 2], 2, 8, end_id=99, wait_ids=[50])
        [5, 50, 6, 99, 7]

    Notes:
        Tokens of wait_ids count as thinking; if not all fit under max_think, only the first that fit are written. After
        max_think tokens end_id is written without asking. Otherwise the model is asked once for each token, with all
        that stands before it. None of this applies to prompt or answer, which may contain end_id again.
    """
    raise NotImplementedError("budget_forced_generate")


# %% [markdown]
# ## 21.3 best_of_n, expected_best_of_n
#
# Draw many answers and keep the one that a judge likes best. How much better does that get with each further draw?


# %%
def best_of_n(samples: Sequence[Any], score: Callable[[Any], float]) -> Any:
    """Give the sample with the highest score.

    Args:
        samples: at least one of anything.
        score: maps a sample to a number; it is called once for each sample.

    Returns:
        The sample itself; of several with the highest score, the first.

    Raises:
        ValueError: if there is no sample.

    Example:
        >>> best_of_n(["aye", "hello", "howdy"], len)
        'hello'
    """
    raise NotImplementedError("best_of_n")


# %%
def expected_best_of_n(scores: Sequence[float] | Tensor, n: int) -> float:
    """Estimate the expected best score of n fresh samples from the scores of m samples, m >= n, without bias.

    Args:
        scores: (m,) a sequence of numbers or a floating tensor, in any order.
        n: how many samples there are to choose from, 1 <= n <= m.

    Returns:
        float: the mean, over all subsets of n of the m scores, of the largest score in the subset.

    Raises:
        ValueError: if n < 1 or n > m.

    Example:
        >>> round(expected_best_of_n([4.0, 1.0, 2.0], n=2), 4)  # (4 + 4 + 2) / 3
        3.3333

    Notes:
        Equal scores are different samples. Right to 9 digits, and finite, for m up to 1,500 and any n; so the subsets
        cannot be listed, and numbers of subsets do not fit a float.
    """
    raise NotImplementedError("expected_best_of_n")


# %% [markdown]
# ## 21.4 verify_math, weighted_vote
#
# A judge that cannot be flattered: compare the value with the known one. And where no answer is known, let the
# samples vote, each with the weight that a scorer gives it.

# %%
UNITS = {
    "mm": ("length", Fraction(1, 1000)),
    "cm": ("length", Fraction(1, 100)),
    "m": ("length", Fraction(1)),
    "km": ("length", Fraction(1000)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    "s": ("time", Fraction(1)),
    "min": ("time", Fraction(60)),
    "h": ("time", Fraction(3600)),
}
"""What each unit measures, and how many of the basic unit (m, g, s) it is."""


# %%
def verify_math(pred: str, gold: str) -> bool:
    """Say whether two answers have the same value, however they are written.

    Args:
        pred, gold: any strings of up to 1,000 characters. A *value* is an optional sign (+ or -), a number, and perhaps
            a % or a unit of UNITS. The number is whole (12), decimal (0.5, .5) or a fraction of whole numbers (3/4);
            whole numbers, also before a point, may have commas between groups of three (1,234).

    Returns:
        True if both are values, measure the same (no unit, length, mass or time) and are exactly the same number; or if
        neither is a value and they are the same text. False otherwise.

    Example:
        >>> verify_math("50 %", "1/2"), verify_math("1.1 km", "1,100m"), verify_math("0.3333", "1/3")
        (True, True, False)

    Notes:
        Numbers are compared as rational numbers: nothing is rounded. x % is x/100, of no unit; 5 is not 5 m. Whitespace
        at the ends does not matter, nor whether or how much of it stands after the sign, around the slash, or before %
        or unit. Texts are compared in lower case, with every run of whitespace as one space. What is no value is text:
        an unknown unit, an expression such as 3 + 4, 1/0, 1e3, 1_000. Never evaluate an answer.
    """
    raise NotImplementedError("verify_math")


# %%
def weighted_vote(answers: Sequence[str | None], scores: Sequence[float]) -> str | None:
    """Give the answer whose samples have the largest total score.

    Args:
        answers: the answer of each sample; None where the sample has none.
        scores: a score for each sample, 0 or more.

    Returns:
        The winning answer, written as in the first sample that gave it; None if no sample has an answer.

    Raises:
        ValueError: if there are not as many scores as answers.

    Example:
        >>> weighted_vote(["7", "1/2", "0.5", None], [0.5, 0.25, 0.375, 0.75])
        '1/2'

    Notes:
        Answers that `verify_math` calls the same are one answer. None is no vote. Of several answers with the largest
        total, the one that appears first wins, also if all scores are 0.
    """
    raise NotImplementedError("weighted_vote")


# %% [markdown]
# ## 21.5 process_score, tree_search
#
# Judge the steps instead of the end. Then a bad path can be left early, and the time goes to the good ones.


# %%
def process_score(step_probs: Sequence[float] | Tensor, how: str = "min") -> float:
    """Turn the probabilities that each step of a solution is right into one score of the solution.

    Args:
        step_probs: (n,) numbers in [0, 1], a sequence or a floating tensor, n at least 1.
        how: "min", the weakest step; "prod", the natural logarithm of the product; "last", the last step.

    Returns:
        float.

    Raises:
        ValueError: for another `how`, or if there is no step.

    Example:
        >>> process_score([0.5, 1.0, 0.5], "min"), process_score([0.5, 1.0, 0.5], "prod")
        (0.5, -1.3862943611198906)

    Notes:
        "prod" is right for solutions of thousands of steps, whose product is too small for a float. A step with
        probability 0 makes it -inf.
    """
    raise NotImplementedError("process_score")


# %%
def tree_search(
    expand: Callable[[tuple], Sequence[Any]], value: Callable[[tuple], float], width: int, depth: int
) -> tuple:
    """Search a tree of steps level by level, keeping the best paths of each level, and give the best complete path.

    Args:
        expand: maps a path, a tuple of steps, to the list of steps that may come next; [] if the path is complete.
        value: maps a path to a number, the higher the better.
        width: how many paths of a level are kept, at least 1.
        depth: how many steps a path may have, at least 0; a path of that length is complete.

    Returns:
        The complete path with the highest value, among those that were reached. The search begins at the path ().

    Example:
        >>> tree_search(lambda path: [1, 2, 3], lambda path: path[0] - 2 * path[-1], width=2, depth=2)
        (2, 1)

    Notes:
        A level is all paths that extend a kept path of the level before by one step; of them the `width` with the
        highest values are kept, judged by their own value alone. A kept path that turns out to be complete is a
        candidate for the result, and its place in later levels falls to others. A path that goes on is none, however
        high its value. expand is called at most once for each path, and only for kept paths with fewer than depth
        steps; value at most once for each path, and never for (). Which of equally good paths wins is left open.
    """
    raise NotImplementedError("tree_search")


# %% [markdown]
# ## 21.6 group_advantages
#
# Which answers deserve to become likelier? Those that did better than the other answers to the same question.


# %%
def group_advantages(rewards: Tensor, group_size: int, normalize_std: bool = True, eps: float = 1e-6) -> Tensor:
    """Compare each reward with those of its group: subtract the group's mean, then divide by its spread.

    Args:
        rewards: (N,) rewards, floating; each group_size rewards in succession belong to one prompt.
        group_size: how many answers were drawn for each prompt, at least 1.
        normalize_std: whether to divide by the group's standard deviation plus eps.
        eps: 0 or more.

    Returns:
        (N,) advantages, dtype of rewards.

    Raises:
        ValueError: if group_size does not divide N.

    Example:
        >>> group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0, 5.0, 5.0, 5.0, 5.0]), 4)
        tensor([ 0.8660, -0.8660, -0.8660,  0.8660,  0.0000,  0.0000,  0.0000,  0.0000])

    Notes:
        The standard deviation is the unbiased one, with group_size - 1 in the denominator. A group whose rewards are
        all equal, a group of one too, gets advantages of exactly 0, whatever the rewards and eps are: rounding in the
        mean must not be blown up. rewards is not changed.
    """
    raise NotImplementedError("group_advantages")


# %% [markdown]
# ## 21.7 grpo_loss
#
# The clipped loss of chapter 16, with one advantage for a whole answer, a leash inside the loss, and a choice that
# looks harmless: by what is the sum over tokens divided?


# %%
def grpo_loss(
    logp: Tensor,
    old_logp: Tensor,
    ref_logp: Tensor,
    adv: Tensor,
    mask: Tensor,
    eps: float,
    beta: float,
    agg: str = "seq",
) -> Tensor:
    """Compute the GRPO loss: minus the average of the clipped objective less beta times the KL to the reference.

    Args:
        logp: (B, T) log-probabilities of the tokens under the policy being trained, floating.
        old_logp: (B, T) the same under the policy that drew them.
        ref_logp: (B, T) the same under the reference.
        adv: (B,) advantage of each answer, shared by all its tokens, used as it comes.
        mask: (B, T) bool, True on the tokens of the response.
        eps: a ratio is clipped to [1 - eps, 1 + eps], between 0 and 1.
        beta: weight of the KL, 0 or more.
        agg: "seq": mean over the tokens of each answer, then mean over the B answers; "token": mean over the tokens of
            all answers; "dr": sum over the tokens of each answer, then mean over the B answers.

    Returns:
        0-dim tensor, dtype of logp. A token's term is min(rho A, clip(rho) A) - beta k3, rho = exp(logp - old_logp),
        k3 = (r - 1) - log r, r = exp(ref_logp - logp). An answer without tokens adds 0 and counts in B.

    Raises:
        ValueError: for another agg.

    Notes:
        Gradients reach logp alone, through rho and k3. What stands outside the mask has no influence on value or
        gradient, even if it is infinite or NaN; nor has the width T. No token at all: the loss is 0. Finite for
        log-ratios of +-20.
    """
    raise NotImplementedError("grpo_loss")


# %% [markdown]
# ## 21.8 grpo_toy
#
# Everything together: a policy that knows nothing, questions whose answers can be checked, and nothing else. The
# policy is a table of logits (P, T, V): word t of an answer to prompt p is drawn from the softmax of row [p, t].
# A test gives 100 steps ten seconds; with whole tensors they take a fifth of one, with loops over words too long.

# %%
GROUP, EPS, BETA = 16, 0.2, 0.001  # settings that work for grpo_toy


# %%
def sum_task(P: int, T: int, seed: int) -> dict[str, Any]:
    """Make P sums of two numbers whose answers have T decimal digits; verify gives 1 for the right digits, else 0."""
    rng = torch.Generator().manual_seed(seed)
    a, b = torch.randint(0, 10**T, (2, P), generator=rng)
    total = (a + b) % 10**T  # (P,) carry dropped, so that every answer has T digits
    gold = torch.stack([total // 10**t % 10 for t in reversed(range(T))], dim=1)  # (P, T)

    def verify(prompts: Tensor, answers: Tensor) -> Tensor:
        return (answers == gold[prompts]).all(dim=1).double()

    return {"prompts": P, "length": T, "words": 10, "lr": 0.2, "verify": verify}


# %%
def grpo_toy(task: dict[str, Any], steps: int, seed: int) -> list[float]:
    """Train a table of logits from nothing by GRPO on answers that can be checked, and keep the curve.

    Args:
        task: "prompts", "length" and "words": the numbers P, T and V; "lr", Adam's learning rate; "verify", a function
            that maps prompts (N,) int64 and answers (N, T) int64, of words 0 ... V - 1, to rewards (N,) float64.
        steps: number of rounds of drawing and learning; may be 0.
        seed: decides all draws.

    Returns:
        The mean reward of the answers drawn in each round, a list of `steps` floats.

    Example:
        >>> rewards = grpo_toy(sum_task(P=20, T=1, seed=0), steps=60, seed=0)
        >>> rewards[0] < 0.3, rewards[-1] > 0.9
        (True, True)

    Notes:
        The policy starts uniform. A round: draw equally many answers, two or more, for each prompt from the policy as
        it is; call verify once, with all of them, the answers to one prompt in succession; compare within the groups;
        take one or a few steps of Adam. Only differences within a group may matter: a task that pays more for some
        prompts, whatever the answer, is learned as well. With lr 0.2 and up to 16 possible answers a prompt, 100 rounds
        must bring the share of right answers to 0.95; with lr 0 the policy stays uniform. The arguments alone decide
        the result, whatever the state of torch's global generator. Other settings are yours; the given constants do.
    """
    raise NotImplementedError("grpo_toy")
