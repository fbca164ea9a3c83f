# %% [markdown]
# # Chapter 17: Prompting and in-context learning
#
# Seven exercises. By the end you have written what stands around a model whose weights nobody touches: the prompt, the
# reading of its scores and of its text, the vote over several texts, and the small calculation by which a forward pass
# learns. The teaching is in the notes (`README.md`); here stand only the promises that each function must keep.
#
# No model is needed. Where one is asked, it comes in as a function: `logprob_fn(prompt, continuation)` gives the
# log-probability of each token of the continuation, `extract(text)` reads an answer, `score_fn` measures one.

# %%
import math
import re
from collections.abc import Callable, Hashable, Sequence
from itertools import permutations

import torch
from torch import Tensor, nn

REVIEWS = {"input": "Review:", "output": "Mood:", "separator": "\n\n", "labels": {0: "bad", 1: "good"}}
"""A format for few_shot_prompt: two marks, what stands between two blocks, and the word for each label."""


def linear_tasks(B: int, n: int, d: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw B tasks y = w . x, each with its own w: shots xs (B, n, d), ys (B, n), and a query (B, d) with its y (B,).

    One seed gives the same w and the same queries for every n.
    """
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(B, 1, d, generator=generator, dtype=torch.float64)
    x_query = torch.randn(B, 1, d, generator=generator, dtype=torch.float64)
    xs = torch.randn(B, n, d, generator=generator, dtype=torch.float64)
    return xs, (xs * w).sum(-1), x_query[:, 0], (x_query * w).sum(-1)[:, 0]


class InContextLearner(nn.Module):
    """Linear attention over the shots, sum of y_i x_i^T M x_query / n; the d x d matrix M is learned, starting at 0."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.M = nn.Parameter(torch.zeros(d, d, dtype=torch.float64))

    def forward(self, xs: Tensor, ys: Tensor, x_query: Tensor) -> Tensor:
        return torch.einsum("bn,bni,ij,bj->b", ys, xs, self.M, x_query) / xs.shape[1]


# %% [markdown]
# ## 17.1 few_shot_prompt
#
# A task, some solved examples, and one open example at the end: the model continues, and what it writes is the answer.


# %%
def few_shot_prompt(
    instruction: str,
    shots: Sequence[tuple[str, Hashable]],
    query: str,
    fmt: dict,
    max_tokens: int,
    count: Callable[[str], int],
) -> str:
    r"""Write the instruction, as many of the newest shots as fit, and the query with its answer left open.

    Args:
        instruction: the task; if it is blank, no block is written for it.
        shots: pairs (text, label), the oldest first. query: the text to be answered.
        fmt: the strings "input", "output" (marks without spaces at their ends) and "separator", and the dict "labels"
            from label to word (no spaces at its ends); see REVIEWS.
        max_tokens: the prompt may have at most this many tokens.
        count: gives the number of tokens of a text; a prompt with fewer shots never has more tokens.

    Returns:
        The blocks joined by the separator: instruction, kept shots in their order, query. A shot is the line
        `INPUT text`, a line break, and `OUTPUT word`; the query's block is the same but ends right after OUTPUT.

    Raises:
        KeyError: if a shot that is kept has a label without a word; one that would be dropped may raise or not.
        ValueError: if even the prompt without shots has too many tokens.

    Example:
        >>> few_shot_prompt("", [("Dull.", 0)], "Fun!", REVIEWS, max_tokens=99, count=len)
        'Review: Dull.\nMood: bad\n\nReview: Fun!\nMood:'

    Notes:
        Instruction, texts and query are stripped of whitespace at both ends. Shots are dropped whole, from the oldest,
        and no more than needed. Count whole prompts: the counts of the parts need not add up to that of the whole.
    """

    raise NotImplementedError("few_shot_prompt")


# %% [markdown]
# ## 17.2 zero_shot_classify
#
# A classifier without training: ask how probable each label is as the continuation of the prompt.


# %%
def zero_shot_classify(
    logprob_fn: Callable[[str, str], list[float]], prompt: str, labels: Sequence[str], normalize: str = "none"
) -> Tensor:
    """Turn the log-probabilities of the labels as continuations into a distribution over the labels.

    Args:
        logprob_fn: logprob_fn(prompt, continuation) gives the natural log-probability of each token of the
            continuation, a list of one or more finite floats; the prompt may be empty.
        prompt: what the labels continue; it is handed on unchanged.
        labels: K different strings, none of them empty, with a leading space if one belongs there; handed on unchanged.
        normalize: "none", "byte" or "pmi".

    Returns:
        (K,) float64, in the order of labels: the softmax of the K scores.

    Raises:
        ValueError: if there is no label, or if normalize is none of the three.

    Example:
        >>> def model(prompt, continuation):
        ...     return [math.log(0.6)] if continuation == " yes" else [math.log(0.4), math.log(0.5)]
        >>> zero_shot_classify(model, "Is ice cold?", [" yes", " not at all"])
        tensor([0.7500, 0.2500], dtype=torch.float64)

    Notes:
        The score of a label is s, the sum over all of its tokens of log p(label | prompt); with "byte" s divided by the
        number of bytes of the label in UTF-8; with "pmi" s minus the same sum for the empty prompt "". Scores may be
        -1000; stay in float64 (torch.tensor of a list is float32). At most one call for a label, with "pmi" two.
    """
    raise NotImplementedError("zero_shot_classify")


# %% [markdown]
# ## 17.3 contextual_calibration
#
# A prompt leans towards some label before the query has said anything. Measure the lean, then divide it out.


# %%
def contextual_calibration(probs: Tensor, content_free_probs: Tensor) -> Tensor:
    """Divide out the bias that a prompt shows for queries without content.

    Args:
        probs: (..., K), float32 or float64, non-negative, every row with a positive sum: the labels' probabilities for
            real queries, up to a factor for each row.
        content_free_probs: (K,) or (M, K), dtype of probs: the same prompt's probabilities for one or for M queries
            without content, such as "N/A" or "", also up to a factor for each row.

    Returns:
        (..., K), dtype of probs; each row sums to one.

    Raises:
        ValueError: if the bias of some label is zero.

    Example:
        >>> contextual_calibration(torch.tensor([0.75, 0.25]), torch.tensor([0.8, 0.2]))
        tensor([0.4286, 0.5714])

    Notes:
        The bias q is the mean of the content-free rows, each first divided by its own sum. The result is p / q for each
        row p of probs, divided by its sum. Rows of probs do not influence each other. No input is changed.
    """
    raise NotImplementedError("contextual_calibration")


# %% [markdown]
# ## 17.4 extract_answer
#
# A model that thinks aloud ends in an answer, somewhere in its text. Find it, or say that there is none.


# %%
def extract_answer(text: str, kind: str = "number") -> str | None:
    r"""Read the final answer out of a text that reasons, or give None if it states none.

    Args:
        text: what the model has written.
        kind: "number", "choice" or "boxed".

    Returns:
        "number": sign and digits without thousands separators, such as "-1234.50" or "3/4"; "+" is left out.
        "choice": one capital letter from A to E. "boxed": what stands in the box, stripped of whitespace at both ends.

    Raises:
        ValueError: if kind is none of the three.

    Example:
        >>> extract_answer("He has 3 and buys 4. The answer is $1,234.50.")
        '1234.50'

    Notes:
        Number and choice need a cue right before them: the word "answer", then the word "is", or ":", or both, in any
        case and with any whitespace between them. Between cue and answer only whitespace and the characters * ( $ may
        stand. The last cue that has an answer behind it counts; numbers and letters elsewhere never do.
        A number is an optional sign + or -, an optional $, then an integer, a decimal (digits on both sides of the
        point) or a fraction a/b; integers may have commas in groups of three. What follows (units, a full stop, a
        comma) is ignored. A choice is a capital that no letter or digit follows: "(B)" but not "Both" or "b".
        Boxed: the box \boxed{...} that opens last among those whose braces balance; each { and } counts.
    """
    raise NotImplementedError("extract_answer")


# %% [markdown]
# ## 17.5 self_consistency, majority_accuracy
#
# Ask several times, let the answers vote. When does that help, and how much?


# %%
def self_consistency(
    samples: Sequence[str],
    extract: Callable[[str], Hashable | None],
    weights: Sequence[float] | None = None,
) -> tuple[Hashable | None, float]:
    """Let the answers of several samples vote, and say how clear the vote was.

    Args:
        samples: the texts.
        extract: gives the answer of a text, any hashable value, or None if it has none.
        weights: a non-negative weight for each sample; None means that each weighs 1.

    Returns:
        The tuple (answer, confidence): the answer with the largest total weight, and as a float its share of the total
        weight of all votes. (None, 0.0) if nobody votes or all votes together weigh 0.

    Raises:
        ValueError: if the number of weights is not the number of samples.

    Example:
        >>> self_consistency(["a", "b", "b", "?"], lambda text: None if text == "?" else text.upper())
        ('B', 0.6666666666666666)

    Notes:
        None is no vote: it neither wins nor enters the share. Any other answer is one, also "", 0 and False. Between
        answers with equal totals the one that appears first in samples wins. `extract` is called at most once a sample.
    """
    raise NotImplementedError("self_consistency")


# %%
def majority_accuracy(p: float, n: int) -> float:
    """Compute how often a vote of n is right, when each vote is right with probability p, independently.

    Args:
        p: the accuracy of one vote, from 0 to 1.
        n: the number of votes, from 1 to 1000.

    Returns:
        The probability that the vote is right, as a float, to 1e-9.

    Raises:
        ValueError: if p is outside [0, 1] or n is below 1.

    Example:
        >>> round(majority_accuracy(0.6, 5), 5)
        0.68256

    Notes:
        There are two answers, a right and a wrong one. For even n a tie is possible; then the first vote decides, as in
        self_consistency. Given a tie, the first vote is right in half of the cases, whatever p is.
    """
    raise NotImplementedError("majority_accuracy")


# %% [markdown]
# ## 17.6 icl_linear_attention, fit_icl
#
# Shots are data, attention is a weighted sum of them. Without the softmax that sum is exactly one step of gradient
# descent, taken inside the forward pass. And training finds the step.


# %%
def icl_linear_attention(xs: Tensor, ys: Tensor, x_query: Tensor, eta: float) -> Tensor:
    """Predict y for the query by one gradient step on the shots, written as attention without a softmax.

    Args:
        xs: (..., n, d) inputs of the n >= 1 shots, floating; each index of the leading axes, if any, is a task.
        ys: (..., n) their targets, dtype of xs.
        x_query: (..., d), dtype of xs.
        eta: the step size.

    Returns:
        (...), dtype of xs: (eta / n) times the sum over i of y_i <x_i, x_query>.

    Example:
        >>> xs, ys = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([2.0, -1.0])
        >>> icl_linear_attention(xs, ys, torch.tensor([3.0, 1.0]), eta=1.0)
        tensor(2.5000)

    Notes:
        The same number is w . x_query for w = 0 - eta * gradient at w = 0 of the loss, the sum over i of
        (w . x_i - y_i)^2, divided by 2n. No input is changed.
    """
    raise NotImplementedError("icl_linear_attention")


# %%
def fit_icl(model: nn.Module, tasks: tuple[Tensor, Tensor, Tensor, Tensor], steps: int, lr: float) -> list[float]:
    """Train a model by plain gradient descent to predict the queries from the shots, and give its learning curve.

    Args:
        model: maps (xs, ys, x_query) to predictions (B,); trained in place.
        tasks: the tuple (xs, ys, x_query, y_query) of shapes (B, n, d), (B, n), (B, d), (B,), as linear_tasks gives it.
        steps: number of steps, 0 or more.
        lr: the learning rate.

    Returns:
        steps + 1 floats: the loss before each step, and after the last one.

    Example:
        >>> curve = fit_icl(InContextLearner(3), linear_tasks(500, 20, 3, seed=0), steps=100, lr=0.05)
        >>> len(curve), curve[-1] < 0.25 * curve[0]
        (101, True)

    Notes:
        The loss is the mean over the B tasks of (prediction - y_query)^2. Each step uses all tasks and moves every
        parameter that requires a gradient by -lr times its gradient: no momentum, no weight decay. Gradients that are
        stored on the parameters before the call have no influence. The tasks are not changed.
    """
    raise NotImplementedError("fit_icl")


# %% [markdown]
# ## 17.7 prompt_sensitivity, order_sensitivity
#
# One prompt gives one number. Many wordings and many orders say how much that number is worth.


# %%
def prompt_sensitivity(score_fn: Callable, templates: Sequence, data: Sequence) -> dict[str, float]:
    """Score every template on all data and summarise how far the templates are apart.

    Args:
        score_fn: score_fn(template, item) gives a number, such as 1.0 for a right answer and 0.0 for a wrong one.
        templates: n >= 1 wordings of one task.
        data: m >= 1 items.

    Returns:
        A dict of the floats "mean", "std", "min", "max" and "spread" (max - min) of the n template scores.

    Raises:
        ValueError: if there is no template or no item.

    Example:
        >>> prompt_sensitivity(lambda template, item: float(item in template), ["ab", "b"], ["a", "b"])["spread"]
        0.5

    Notes:
        The score of a template is its mean over the data. The templates are a sample of all possible wordings, so the
        variance divides by n - 1; with a single template std is 0.0. score_fn is called exactly once for each pair of a
        template and an item.
    """
    raise NotImplementedError("prompt_sensitivity")


# %%
def order_sensitivity(score_fn: Callable[[list], float], shots: Sequence, max_perm: int) -> dict[str, float]:
    """Score the shots in many orders and summarise how far the orders are apart.

    Args:
        score_fn: score_fn(list of all the shots in some order) gives a number.
        shots: up to 8 shots.
        max_perm: the largest number of orders to score.

    Returns:
        The dict of prompt_sensitivity, over the scores of the orders.

    Raises:
        ValueError: if max_perm is below 1.

    Example:
        >>> order_sensitivity(lambda order: float(order[-1]), [1, 2, 3], max_perm=6)["mean"]
        2.0

    Notes:
        There are N = n! orders of n shots, listed as itertools.permutations lists them: by position, so equal shots
        count as different. If N <= max_perm, each order is scored once. Otherwise max_perm of them are, spread
        evenly: those with the numbers i * N // max_perm for i = 0 ... max_perm - 1, counted from 0. No shots have one
        order, the empty list. The variance divides by the number of scored orders minus 1, as above.
    """
    raise NotImplementedError("order_sensitivity")
