# %% [markdown]
# # Chapter 16: Alignment
#
# Eight exercises. Comparisons become a reward; a reward, with a leash, becomes a better policy; then the leash is let
# go, and you watch the policy get worse while its score goes up. After that come the same without a reward model, and
# the same with a model as the judge. The teaching is in the notes (`README.md`); here stand only the promises.
#
# Two conventions hold everywhere. `logp` is the log-probability of the tokens that were actually chosen. In a boolean
# mask over tokens **True means "belongs to the response"**; prompt and padding are False.

# %%
import random
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# %% [markdown]
# ## 16.1 reward_loss, last_token_reward
#
# People can seldom say how good an answer is, but they can say which of two is better. A reward model is fitted to
# such comparisons; its score for an answer is read at the answer's last token.


# %%
def reward_loss(r_chosen: Tensor, r_rejected: Tensor, margin: float | Tensor = 0.0) -> Tensor:
    """Compute the mean of -log sigmoid(r_chosen - r_rejected - margin) over pairs of answers.

    Args:
        r_chosen: (N,) rewards of the preferred answers, floating, N at least 1.
        r_rejected: (N,) rewards of the other answers, dtype of r_chosen.
        margin: by how much the chosen one should win: one number, or (N,) a number for each pair.

    Returns:
        0-dim tensor, dtype of r_chosen. Gradients reach both rewards.

    Example:
        >>> reward_loss(torch.tensor([2.0, 1.0]), torch.tensor([0.0, 1.0]))
        tensor(0.4100)

    Notes:
        Value and gradient are finite, and the value right, for rewards of any finite size: a pair that is wrong by
        200 costs 200, not infinity.
    """
    ### BEGIN SOLUTION
    z = r_chosen - r_rejected - margin  # (N,)
    return -F.logsigmoid(z).mean()  # log(sigmoid(z)) would be log(0) for z = -200
    ### END SOLUTION


# %%
def last_token_reward(values: Tensor, lengths: Tensor | Sequence[int]) -> Tensor:
    """Read each sequence's reward at its last real token.

    Args:
        values: (B, T) one number for each position, floating; whatever stands in the padding at the right.
        lengths: (B,) int64 tensor or sequence of ints; sequence b has lengths[b] real tokens, its end token included.

    Returns:
        (B,) rewards, dtype of values. Gradients reach exactly the entries that were read.

    Raises:
        ValueError: if a length is below 1 or above T.

    Example:
        >>> last_token_reward(torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]]), [2, 3])
        tensor([2., 5.])
    """
    ### BEGIN SOLUTION
    lengths = torch.as_tensor(lengths)
    if ((lengths < 1) | (lengths > values.shape[1])).any():  # 0 would silently read the last column
        raise ValueError(f"lengths must lie between 1 and {values.shape[1]}, but are {lengths.tolist()}")
    return values[torch.arange(len(values)), lengths - 1]  # (B,)
    ### END SOLUTION


# %% [markdown]
# ## 16.2 kl_estimates, shaped_rewards
#
# The leash: how far has the policy moved from the reference, judged by the tokens that it drew itself? The answer is
# taken off the reward, token by token.


# %%
def kl_estimates(logp: Tensor, logp_ref: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give three estimates of KL(policy || reference) for each token that the policy drew.

    Args:
        logp: log-probabilities of the drawn tokens under the policy, floating, any shape.
        logp_ref: the same tokens' log-probabilities under the reference; shape and dtype of logp.

    Returns:
        (k1, k2, k3), each with the shape and dtype of logp. With r = p_ref / p, the reference's probability over the
        policy's: k1 = -log r, k2 = (log r)^2 / 2, k3 = (r - 1) - log r.

    Example:
        >>> k1, k2, k3 = kl_estimates(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
        >>> print(k1, k2, k3)
        tensor([ 0.6931, -0.4055]) tensor([0.2402, 0.0822]) tensor([0.1931, 0.0945])

    Notes:
        Only k1 may be negative. The inputs are not changed.
    """
    ### BEGIN SOLUTION
    log_r = logp_ref - logp
    return -log_r, log_r**2 / 2, torch.expm1(log_r) - log_r
    ### END SOLUTION


# %%
def shaped_rewards(score: Tensor, logp: Tensor, logp_ref: Tensor, beta: float, mask: Tensor) -> Tensor:
    """Turn one score per answer into one reward per token, less beta times the KL of each token.

    Args:
        score: (B,) the reward model's score of each whole answer.
        logp: (B, T) log-probabilities of the tokens under the policy that drew them, dtype of score.
        logp_ref: (B, T) the same under the reference.
        beta: weight of the penalty, 0 or more.
        mask: (B, T) bool, True on the tokens of the response.

    Returns:
        (B, T), dtype of logp: -beta (logp - logp_ref) on the response, 0 elsewhere; and each score added once,
        at the last True of its row. A row without any True is all 0.

    Example:
        >>> logp, logp_ref = torch.tensor([[-1.0, -2.0, -3.0, -4.0]]), torch.tensor([[-9.0, -3.0, -2.0, -9.0]])
        >>> shaped_rewards(torch.tensor([5.0]), logp, logp_ref, 0.5, torch.tensor([[False, True, True, False]]))
        tensor([[ 0.0000, -0.5000,  5.5000,  0.0000]])

    Notes:
        What stands outside the mask has no influence, even if it is infinite or NaN. Inputs are not changed.
    """
    ### BEGIN SOLUTION
    rewards = torch.where(mask, -beta * (logp - logp_ref), 0.0)  # (B, T); k1, the only one that keeps its sign
    after = mask.flip(1).cumsum(1).flip(1)  # (B, T) response tokens from here on, this one included
    last = mask & (after == 1)  # (B, T), at most one True a row
    return torch.where(last, rewards + score[:, None], rewards)
    ### END SOLUTION


# %% [markdown]
# ## 16.3 gae
#
# The score comes at the end. Which of the tokens deserved it? Look at how much better things went than the value
# function expected, one step ahead, two steps ahead, and so on, and mix these views.


# %%
def gae(
    rewards: Tensor,
    values: Tensor,
    terminated: Tensor,
    gamma: float,
    lam: float,
    last_value: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute generalised advantage estimates and the returns that the value function should have predicted.

    Args:
        rewards: (T,) reward of each step, T at least 1, floating.
        values: (T,) expected return before each step, dtype of rewards.
        terminated: (T,) bool, True where an episode ends for good with this step; several may.
        gamma, lam: discount and mixing, both in [0, 1].
        last_value: expected return after step T - 1; unused if that step terminates.
        mask: (T,) bool, True = counts; None means all do.

    Returns:
        (advantages, returns), each (T,), dtype of rewards; returns = advantages + values.

    Example:
        >>> r, V = torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25])
        >>> gae(r, V, torch.tensor([False, True]), gamma=1.0, lam=0.5, last_value=9.0)
        (tensor([0.1250, 0.7500]), tensor([0.6250, 1.0000]))

    Notes:
        With delta_t = r_t + gamma V_{t+1} - V_t, A_t = delta_t + gamma lam A_{t+1}; behind a termination V_{t+1} and
        A_{t+1} are 0. The last step is followed by last_value (cut off, not over) and A = 0. Where mask is False both
        results are 0, and all others are as if those steps were not in the sequence, their flags included.
    """
    ### BEGIN SOLUTION
    r, V, over = rewards.tolist(), values.tolist(), terminated.tolist()  # plain floats make a quick loop
    counts = [True] * len(r) if mask is None else mask.tolist()
    A = [0.0] * len(r)
    V_next, A_next = float(last_value), 0.0
    for t in reversed(range(len(r))):
        if not counts[t]:
            continue  # V_next and A_next pass over a step that does not count
        if over[t]:
            V_next, A_next = 0.0, 0.0  # nothing flows back over an end: neither the value nor the advantage
        delta = r[t] + gamma * V_next - V[t]
        V_next, A_next = V[t], delta + gamma * lam * A_next
        A[t] = A_next
    advantages = torch.tensor(A, dtype=rewards.dtype)  # (T,)
    return advantages, advantages + values.detach() * torch.tensor(counts)
    ### END SOLUTION


# %% [markdown]
# ## 16.4 ppo_clip_loss, value_clip_loss
#
# Several steps on answers that an older policy drew: allowed, as long as no token's probability has moved far.


# %%
def ppo_clip_loss(logp: Tensor, old_logp: Tensor, adv: Tensor, eps: float, mask: Tensor) -> Tensor:
    """Compute PPO's clipped loss, averaged over the tokens of all responses together.

    Args:
        logp: log-probabilities of the tokens under the policy being trained, floating, any shape, such as (B, T).
        old_logp: the same under the policy that drew them.
        adv: advantages.
        eps: how far a ratio may move from 1 before its gradient ends, between 0 and 1.
        mask: bool, True on the tokens that count. All tensors have one shape.

    Returns:
        0-dim tensor, dtype of logp: minus the mean over the True tokens of min(rho A, clip(rho, 1 - eps, 1 + eps) A)
        with rho = exp(logp - old_logp). It is 0 if no token counts.

    Example:
        >>> logp, old = torch.tensor([0.6, 0.3, 0.4]).log(), torch.tensor([0.4, 0.6, 0.4]).log()
        >>> ppo_clip_loss(logp, old, torch.tensor([1.0, 1.0, 9.0]), 0.2, torch.tensor([True, True, False]))
        tensor(-0.8500)

    Notes:
        Gradients reach logp alone, never old_logp or adv. What stands outside the mask has no influence on value or
        gradient, even if it is infinite or NaN. Finite for log-ratios of +-20. Advantages are used as they come.
    """
    ### BEGIN SOLUTION
    if not mask.any():
        return (logp[mask] * 0).sum()
    # Select first: a NaN that is multiplied by 0 afterwards is still NaN.
    rho = torch.exp(logp[mask] - old_logp[mask].detach())  # (n,)
    A = adv[mask].detach()  # (n,)
    return -torch.minimum(rho * A, rho.clamp(1 - eps, 1 + eps) * A).mean()
    ### END SOLUTION


# %%
def value_clip_loss(values: Tensor, old_values: Tensor, returns: Tensor, eps: float, mask: Tensor) -> Tensor:
    """Compute half the mean of the larger of two squared errors: of the value, and of the value kept near the old one.

    Args:
        values: the value function's predictions, floating, any shape, such as (B, T).
        old_values: its predictions when the answers were drawn.
        returns: what it should have predicted.
        eps: how far a value may move from the old one before its gradient ends, more than 0.
        mask: bool, True on the tokens that count. All tensors have one shape.

    Returns:
        0-dim tensor, dtype of values: half the mean, over the True tokens, of max((V - R)^2, (V_clip - R)^2) with
        V_clip = old + clip(V - old, -eps, eps). It is 0 if no token counts.

    Example:
        >>> V, old, R = torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0])
        >>> value_clip_loss(V, old, R, 0.5, torch.tensor([True]))
        tensor(1.1250)

    Notes:
        Gradients reach values alone. What stands outside the mask has no influence, even if it is infinite or NaN.
    """
    ### BEGIN SOLUTION
    if not mask.any():
        return (values[mask] * 0).sum()
    V, old, R = values[mask], old_values[mask].detach(), returns[mask].detach()  # (n,) each
    V_clip = old + (V - old).clamp(-eps, eps)
    return torch.maximum((V - R) ** 2, (V_clip - R) ** 2).mean() / 2  # the worse of the two: no reward for jumping
    ### END SOLUTION


# %% [markdown]
# ## 16.5 ppo_toy
#
# Everything together, in a world so small that every answer can be counted out. An answer is T = 3 of six words. The
# policy is a table of logits with a row for each beginning of an answer: row 0 for the empty one, and the beginning in
# row s, continued by word a, has row 6 s + 1 + a. Given: the world, its planted utility, its preferences, and tools.

# %%
WORDS = ("fact", "reason", "hedge", "source", "filler", "insult")
UTILITY = (1.0, 0.5, -0.5, 3.0, 0.0, -1.5)  # what one such word is truly worth
ONLY_SOURCES = -3.0  # what an answer with two sources or more is truly worth, whatever else is in it
ANSWERS, PASSES, RATE, EPS, LAMBDA = 128, 2, 0.1, 0.2, 0.95  # settings that work for ppo_toy


# %%
def sample_answers(logits: Tensor, T: int, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw n answers of T words from a policy (S, V): the words and the rows that chose them, (n, T) int64 each."""
    tokens, rows = torch.zeros(n, T, dtype=torch.long), torch.zeros(n, T, dtype=torch.long)
    p = logits.softmax(-1)
    for t in range(T):
        if t > 0:
            rows[:, t] = rows[:, t - 1] * logits.shape[1] + 1 + tokens[:, t - 1]
        tokens[:, t] = torch.multinomial(p[rows[:, t]], 1, generator=rng)[:, 0]
    return tokens, rows


# %%
def answer_logprobs(logits: Tensor, T: int) -> Tensor:
    """Give the log-probability of every answer under a policy (S, V), as a table (V, ..., V) with T axes."""
    log_p, V, first = logits.log_softmax(-1), logits.shape[1], 0
    table = torch.zeros(1, dtype=logits.dtype)
    for t in range(T):
        block = log_p[first : first + V**t]  # (V^t, V): the rows of all beginnings of length t, in order
        table = (table[:, None] + block).flatten()  # (V^(t + 1),)
        first += V**t
    return table.view((V,) * T)


# %%
def measure(env: dict, logits: Tensor) -> dict[str, float]:
    """Count out what a policy earns on average: by the proxy, in truth, and its exact KL to the reference."""
    T = env["reward"].dim()
    logp, logp_ref = answer_logprobs(logits, T), answer_logprobs(env["ref"], T)
    table = {"proxy": env["reward"], "true": env["true"], "kl": logp - logp_ref}
    return {name: (logp.exp() * value).sum().item() for name, value in table.items()}


# %%
def planted_world(seed: int) -> dict[str, Tensor]:
    """Make a reference policy (43, 6), the word counts of all 216 answers (6, 6, 6, 6), and their true utility."""
    rng = torch.Generator().manual_seed(seed)
    base = torch.tensor([0.20, 0.20, 0.20, 0.05, 0.25, 0.10], dtype=torch.float64).log()
    ref = base + 0.3 * torch.randn(43, 6, generator=rng, dtype=torch.float64)
    answers = torch.cartesian_prod(*[torch.arange(6)] * 3).view(6, 6, 6, 3)
    counts = F.one_hot(answers, 6).sum(-2).double()  # (6, 6, 6, 6)
    true = counts @ torch.tensor(UTILITY, dtype=torch.float64)
    return {"ref": ref, "counts": counts, "true": torch.where(counts[..., 3] > 1, ONLY_SOURCES, true)}


# %%
def planted_preferences(world: dict[str, Tensor], n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw n pairs of answers from the reference, judged by a Bradley-Terry coin: chosen, rejected, (n, 3) each."""
    rng = torch.Generator().manual_seed(seed)
    tokens, _ = sample_answers(world["ref"], 3, 2 * n, rng)
    pairs = tokens.view(n, 2, 3)
    u = world["true"][tuple(pairs.movedim(-1, 0))]  # (n, 2)
    first_wins = torch.rand(n, generator=rng, dtype=torch.float64) < torch.sigmoid(u[:, 0] - u[:, 1])
    best = (~first_wins).long()  # 0 or 1
    return pairs[torch.arange(n), best], pairs[torch.arange(n), 1 - best]


# %%
def ppo_toy(env: dict, steps: int, seed: int) -> dict:
    """Train a table of logits by PPO against a proxy reward with a KL penalty, and keep the curve.

    Args:
        env: "ref", the reference's logits (S, V) float64; "reward" and "true", tables (V, ..., V) with T axes, float64,
            which hold the proxy reward and the true utility of each answer; "beta", weight of the KL penalty.
        steps: number of rounds of drawing and learning; may be 0.
        seed: decides all draws.

    Returns:
        "proxy", "true", "kl": lists of steps + 1 floats, the exact averages of the policy (as `measure` gives them)
        before the first round and after each; "policy": its logits (S, V) at the end.

    Notes:
        The policy starts at the reference, which is kept as it is; so are the tables. A round: draw answers from the
        policy, with old log-probabilities and values from the same moment; shape the rewards; estimate advantages with
        gamma = 1 (the answers one behind another, each ending in a termination); take a few steps of Adam on the
        clipped losses of policy and values. The policy learns from the proxy alone; "true" is only measured.
        The goal is proxy - beta KL; its maximum is beta log sum ref exp(reward / beta). With beta from 0.5 to 1 and
        rewards of spread 1 to 2, 80 rounds must make nine tenths of the way there. The arguments alone decide the
        history, whatever the state of torch's global generator. All settings are yours; the given constants do it.
    """
    ### BEGIN SOLUTION
    rng, T = torch.Generator().manual_seed(seed), env["reward"].dim()
    logits = env["ref"].clone().requires_grad_()  # (S, V)
    values = torch.zeros(len(logits), dtype=logits.dtype, requires_grad=True)  # (S,)
    optimizer = torch.optim.Adam([logits, values], lr=RATE)
    curve = [measure(env, logits.detach())]
    for _ in range(steps):
        tokens, rows = sample_answers(logits.detach(), T, ANSWERS, rng)  # (N, T) each
        all_count = torch.ones_like(tokens, dtype=torch.bool)
        ends = torch.arange(T).expand_as(tokens) == T - 1
        with torch.no_grad():  # what stays fixed in this round
            old_logp, old_values = logits.log_softmax(-1)[rows, tokens], values[rows]
            logp_ref = env["ref"].log_softmax(-1)[rows, tokens]
            rewards = shaped_rewards(env["reward"][tuple(tokens.T)], old_logp, logp_ref, env["beta"], all_count)
            estimates = gae(rewards.flatten(), old_values.flatten(), ends.flatten(), 1.0, LAMBDA, 0.0)
            adv, returns = (x.view(-1, T) for x in estimates)
        for _ in range(PASSES):
            logp = logits.log_softmax(-1)[rows, tokens]
            loss = ppo_clip_loss(logp, old_logp, adv, EPS, all_count)
            loss = loss + value_clip_loss(values[rows], old_values, returns, EPS, all_count)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curve.append(measure(env, logits.detach()))
    return {name: [point[name] for point in curve] for name in curve[0]} | {"policy": logits.detach()}
    ### END SOLUTION


# %% [markdown]
# ## 16.6 sequence_logprob, dpo_loss
#
# Solve for the reward instead of learning it: the optimal policy already says what the reward was.


# %%
def sequence_logprob(model: Callable[[Tensor], Tensor], ids: Tensor, labels: Tensor) -> Tensor:
    """Sum the log-probabilities that a model gives to the response tokens of each sequence.

    Args:
        model: maps ids (B, T) to logits (B, T, V); position t predicts labels[:, t].
        ids: (B, T) int64.
        labels: (B, T) int64, already shifted, as in chapter 15; -100 on what is no response token.

    Returns:
        (B,), dtype of the logits: the sum (not the mean) over the labels that are not -100; 0 for a row without any.

    Example:
        >>> model = lambda ids: torch.tensor([0.25, 0.75]).log().expand(*ids.shape, 2)
        >>> sequence_logprob(model, torch.tensor([[0, 1, 1]]), torch.tensor([[-100, 1, 0]]))
        tensor([-1.6740])

    Notes:
        model is called once, with ids as they are. Gradients flow through its logits. Finite for logits of any
        finite size. Inputs are not changed.
    """
    ### BEGIN SOLUTION
    logp = model(ids).log_softmax(-1)  # (B, T, V)
    counts = labels != -100  # (B, T)
    chosen = logp.gather(-1, labels.masked_fill(~counts, 0).unsqueeze(-1)).squeeze(-1)  # (B, T); -100 is no index
    return torch.where(counts, chosen, 0.0).sum(-1)  # (B,)
    ### END SOLUTION


# %%
def dpo_loss(pc: Tensor, pr: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    """Compute the DPO loss: the mean of -log sigmoid(beta ((pc - rc) - (pr - rr))) over pairs.

    Args:
        pc, pr: (B,) log-probabilities of the chosen and the rejected answers under the policy, floating.
        rc, rr: (B,) the same under the reference, dtype of pc.
        beta: weight of the leash, more than 0.

    Returns:
        0-dim tensor, dtype of pc. Gradients reach pc and pr.

    Example:
        >>> pc, pr = torch.tensor([-4.0]), torch.tensor([-9.0])
        >>> dpo_loss(pc, pr, rc=torch.tensor([-5.0]), rr=torch.tensor([-8.0]), beta=0.5)
        tensor(0.3133)

    Notes:
        Value and gradient are finite, and the value right, for log-probabilities of any finite size, such as -5000.
    """
    ### BEGIN SOLUTION
    z = beta * ((pc - rc) - (pr - rr))  # (B,) the implicit reward of the chosen answer less that of the rejected one
    return -F.logsigmoid(z).mean()
    ### END SOLUTION


# %% [markdown]
# ## 16.7 constitutional_revision
#
# A model criticises its own answer by a written principle and mends it. `chat` maps a list of messages to text.


# %%
def constitutional_revision(
    chat: Callable[[list[dict[str, str]]], str], prompt: str, principles: Sequence[str], rounds: int, seed: int = 0
) -> list[dict[str, str | None]]:
    """Let a model draft an answer, then criticise and revise it by one principle a round.

    Args:
        chat: maps messages, dicts with "role" and "content", the last of them of role "user", to the reply.
        prompt: the user's request.
        principles: sentences to judge by.
        rounds: how many critiques and revisions; 0 or more.
        seed: decides which principle each round uses.

    Returns:
        rounds + 1 dicts with the keys "prompt", "response", "principle", "critique", in order: the draft (principle and
        critique None), then each revision with what led to it. "prompt" is always the given one, so the last dict is
        the pair for supervised fine-tuning.

    Raises:
        ValueError: if there are rounds but no principles.

    Notes:
        1 + 2 rounds calls. The draft: one message, the prompt itself. A critique: its messages contain, word for word,
        the prompt, the latest answer and the round's principle. A revision: the prompt, the latest answer and the
        critique. How you ask around them is yours. Replies are kept to the letter.
        Principles are drawn at random without replacement; when all have been used, all are available again. The same
        seed draws the same ones, and over many seeds each comes first equally often.
    """
    ### BEGIN SOLUTION
    if rounds > 0 and len(principles) == 0:
        raise ValueError("there is no principle to judge by")

    def ask(*parts: str) -> str:
        return chat([{"role": "user", "content": "\n\n".join(parts)}])

    rng, urn = random.Random(seed), []
    answer = ask(prompt)
    path: list[dict[str, str | None]] = [{"prompt": prompt, "response": answer, "principle": None, "critique": None}]
    for _ in range(rounds):
        urn = urn or rng.sample(list(principles), len(principles))  # a fresh shuffle once the last one is used up
        principle = urn.pop()
        asked = (f"A user asked:\n{prompt}", f"The answer was:\n{answer}")
        critique = ask(*asked, f"Say how the answer falls short of this principle:\n{principle}")
        answer = ask(*asked, f"A critique of it:\n{critique}", "Rewrite the answer so that it meets the critique.")
        path.append({"prompt": prompt, "response": answer, "principle": principle, "critique": critique})
    return path
    ### END SOLUTION


# %% [markdown]
# ## 16.8 ai_preference
#
# The model as the judge. A judge may favour whatever stands first, so each pair is shown in both orders.


# %%
def ai_preference(
    chat: Callable[[list[dict[str, str]]], str], prompt: str, a: str, b: str, principle: str
) -> tuple[str | None, float | None]:
    """Ask a model which of two answers a principle prefers, once in each order, and average.

    Args:
        chat: maps messages, dicts with "role" and "content", the last of them of role "user", to the reply.
        prompt: the user's request.
        a, b: the two answers.
        principle: the sentence to judge by.

    Returns:
        (label, p_a). p_a is the mean over both orders of 1 if the verdict is for a, 0 if it is for b, 0.5 if it is a
        tie. label is "a" if p_a > 0.5, "b" if p_a < 0.5, else "tie". (None, None) if either verdict cannot be read.

    Example:
        >>> ai_preference(lambda messages: "I like the first. [[A]]", "Why?", "Because.", "No idea.", "Be helpful.")
        ('tie', 0.5)

    Notes:
        Two calls. The messages contain prompt, principle and both answers word for word; the answer that stands first
        is called A, the other B; a is shown first in one call and second in the other.
        The judge is told to end with its verdict in double square brackets: [[A]], [[B]], or [[C]] for a tie. The last
        such mark in the reply counts, with capital letters and nothing else inside; any other letter in the text says
        nothing. A reply without a mark cannot be read: it is reported, never guessed.
    """

    ### BEGIN SOLUTION
    def first_wins(first: str, second: str) -> float | None:
        question = (
            f"A user asked:\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
            f"Which answer follows this principle better?\n{principle}\n\n"
            "Explain, then end with your verdict: [[A]], [[B]], or [[C]] for a tie."
        )
        marks = re.findall(r"\[\[([ABC])\]\]", chat([{"role": "user", "content": question}]))
        return {"A": 1.0, "B": 0.0, "C": 0.5}[marks[-1]] if marks else None

    a_first, b_first = first_wins(a, b), first_wins(b, a)
    if a_first is None or b_first is None:
        return None, None
    p_a = (a_first + 1 - b_first) / 2  # in the second order it is b that stands first
    return "a" if p_a > 0.5 else "b" if p_a < 0.5 else "tie", p_a
    ### END SOLUTION
