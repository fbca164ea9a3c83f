"""Wrong answers of chapter 16, each with the sentence that sets it right."""

import random
import re

import torch
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)

# -- reward_loss, last_token_reward


@misconception("reward_loss", "The sign is reversed: you reward the rejected answer; take chosen minus rejected.")
def rewards_the_rejected(r_chosen, r_rejected, margin=0.0):
    return -F.logsigmoid(r_rejected - r_chosen - margin).mean()


@misconception("reward_loss", "log(sigmoid(z)) is log(0) for very wrong pairs; use logsigmoid, or softplus of -z.")
def log_of_sigmoid(r_chosen, r_rejected, margin=0.0):
    return -torch.log(torch.sigmoid(r_chosen - r_rejected - margin)).mean()


@misconception("reward_loss", "You add a small number inside the logarithm, which caps the loss; use logsigmoid.")
def log_with_epsilon(r_chosen, r_rejected, margin=0.0):
    return -torch.log(torch.sigmoid(r_chosen - r_rejected - margin) + 1e-12).mean()


@misconception("reward_loss", "You sum over the pairs; the loss is their mean.")
def sums_over_pairs(r_chosen, r_rejected, margin=0.0):
    return -F.logsigmoid(r_chosen - r_rejected - margin).sum()


@misconception("reward_loss", "The margin is added to the lead; it is what the lead must exceed: subtract it.")
def adds_the_margin(r_chosen, r_rejected, margin=0.0):
    return -F.logsigmoid(r_chosen - r_rejected + margin).mean()


@misconception("reward_loss", "The margin is not used; subtract it from the difference of each pair.")
def ignores_the_margin(r_chosen, r_rejected, margin=0.0):
    return -F.logsigmoid(r_chosen - r_rejected).mean()


@misconception("reward_loss", "You cut off the loss like a hinge; a pair that is right still earns a little gradient.")
def hinge(r_chosen, r_rejected, margin=0.0):
    return (1 - (r_chosen - r_rejected - margin)).clamp(min=0).mean()


@misconception(
    "reward_loss", "You read one token too early; the last real token is at lengths - 1.", "last_token_reward"
)
def reads_before_the_end(values, lengths):
    reference.last_token_reward(values, lengths)
    return values[torch.arange(len(values)), (torch.as_tensor(lengths) - 2).clamp(min=0)]


@misconception("reward_loss", "You read the last column, which is padding for short rows.", "last_token_reward")
def reads_the_last_column(values, lengths):
    reference.last_token_reward(values, lengths)
    return values[:, -1]


@misconception(
    "reward_loss", "You average over the real tokens; the reward is read at the last one alone.", "last_token_reward"
)
def averages_the_row(values, lengths):
    reference.last_token_reward(values, lengths)
    return torch.stack([row[:n].mean() for row, n in zip(values, torch.as_tensor(lengths).tolist(), strict=True)])


@misconception(
    "reward_loss",
    "A length of 0 reads index -1, the last column, and nobody notices; raise ValueError.",
    "last_token_reward",
)
def reads_column_minus_one(values, lengths):
    lengths = torch.as_tensor(lengths)
    if (lengths > values.shape[1]).any():
        raise ValueError("too long")
    return values[torch.arange(len(values)), lengths - 1]


# -- kl_estimates, shaped_rewards


@misconception("kl_estimates", "Your ratio is inverted: r is the reference's probability over the policy's.")
def ratio_inverted(logp, logp_ref):
    return reference.kl_estimates(logp_ref, logp)


@misconception("kl_estimates", "k1 may be negative for a token; the absolute value is not an estimate of the KL.")
def absolute_k1(logp, logp_ref):
    k1, k2, k3 = reference.kl_estimates(logp, logp_ref)
    return k1.abs(), k2, k3


@misconception("kl_estimates", "k2 lacks the factor one half.")
def k2_without_half(logp, logp_ref):
    k1, k2, k3 = reference.kl_estimates(logp, logp_ref)
    return k1, 2 * k2, k3


@misconception("kl_estimates", "In k3 only r is inverted: it is (r - 1) - log r with one and the same r, p_ref / p.")
def k3_of_the_inverse(logp, logp_ref):
    k1, k2, _ = reference.kl_estimates(logp, logp_ref)
    return k1, k2, torch.expm1(k1) - k1


@misconception("kl_estimates", "You weight each token by its probability, but drawn tokens are weighted by the draw.")
def weights_by_probability(logp, logp_ref):
    return tuple(logp.exp() * k for k in reference.kl_estimates(logp, logp_ref))


def shaped(score, logp, logp_ref, beta, mask, penalty=None, at=None):
    """The right rewards, but for the mask of the penalty or the place of the score."""
    inside = mask if penalty is None else penalty
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1) if at is None else at
    return torch.where(inside, -beta * (logp - logp_ref), 0.0) + torch.where(last, score[:, None], 0.0)


@misconception(
    "kl_estimates", "The prompt pays KL too; only response tokens may, for only they were drawn.", "shaped_rewards"
)
def penalty_on_the_prompt(score, logp, logp_ref, beta, mask):
    return shaped(score, logp, logp_ref, beta, mask, penalty=torch.ones_like(mask))


@misconception(
    "kl_estimates", "The score is added to every response token; add it once, at the last.", "shaped_rewards"
)
def score_on_every_token(score, logp, logp_ref, beta, mask):
    return shaped(score, logp, logp_ref, beta, mask, at=mask)


@misconception("kl_estimates", "The score is put into the last column, which may be padding.", "shaped_rewards")
def score_in_the_last_column(score, logp, logp_ref, beta, mask):
    at = torch.zeros_like(mask)
    at[:, -1] = mask.any(1)
    return shaped(score, logp, logp_ref, beta, mask, at=at)


@misconception(
    "kl_estimates",
    "You count response tokens to find the last one; with a prompt before them it lies further right.",
    "shaped_rewards",
)
def score_at_the_count(score, logp, logp_ref, beta, mask):
    at = F.one_hot((mask.sum(1) - 1).clamp(min=0), mask.shape[1]).bool() & mask.any(1, keepdim=True)
    return shaped(score, logp, logp_ref, beta, mask, at=at)


@misconception(
    "kl_estimates", "The penalty has the wrong sign and rewards distance; it is minus beta k1.", "shaped_rewards"
)
def rewards_distance(score, logp, logp_ref, beta, mask):
    return shaped(score, logp, logp_ref, -beta, mask)


@misconception("kl_estimates", "beta multiplies the score as well; it weighs the penalty alone.", "shaped_rewards")
def beta_on_the_score(score, logp, logp_ref, beta, mask):
    return shaped(beta * score, logp, logp_ref, beta, mask)


@misconception(
    "kl_estimates",
    "You multiply by the mask, but NaN or infinity times 0 is NaN; select with torch.where.",
    "shaped_rewards",
)
def multiplies_by_the_mask(score, logp, logp_ref, beta, mask):
    return -beta * (logp - logp_ref) * mask + shaped(score, logp, logp, 0.0, mask, penalty=torch.zeros_like(mask))


# -- gae


def recursion(rewards, values, terminated, gamma, lam, last_value, mask=None, **changes):
    """The right recursion but for the named changes."""
    r, V = rewards.tolist(), values.tolist()
    A = [0.0] * len(r)
    counts = [True] * len(r) if mask is None or changes.get("masked") == "ignored" else mask.tolist()
    V_next, A_next = (0.0 if changes.get("bootstrap") == "never" else float(last_value)), 0.0
    for t in reversed(range(len(r))):
        if not counts[t] and changes.get("masked") != "blanked":
            continue
        over = bool(terminated[t])
        V_after = 0.0 if over and changes.get("ends") != "advantage only" else V_next
        A_after = 0.0 if over and changes.get("ends") != "delta only" else A_next
        delta = r[t] + gamma * V_after - V[t]
        A_next = delta + changes.get("decay", gamma * lam) * A_after
        V_next, A[t] = V[t], A_next
    A = [a if kept else 0.0 for a, kept in zip(A, counts, strict=True)]
    advantages = torch.tensor(A, dtype=rewards.dtype)
    return advantages, advantages + torch.where(torch.tensor(counts), values, 0.0)


@misconception("gae", "The last step is treated as the end; when it is only cut off, last_value must follow it.")
def never_bootstraps(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, bootstrap="never")


@misconception("gae", "A termination stops the next value, but your advantage still flows back over it.")
def advantage_flows_over_the_end(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, ends="delta only")


@misconception("gae", "A termination stops the advantage, but delta still adds the next episode's value.")
def value_flows_over_the_end(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, ends="advantage only")


@misconception("gae", "The recursion decays by lam alone; it must be gamma times lam.")
def gamma_missing_in_the_recursion(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, decay=lam)


@misconception("gae", "Your returns are advantage plus reward; they are advantage plus value.")
def returns_from_rewards(rewards, values, terminated, gamma, lam, last_value, mask=None):
    advantages, _ = reference.gae(rewards, values, terminated, gamma, lam, last_value, mask)
    counts = torch.ones_like(terminated) if mask is None else mask
    return advantages, torch.where(counts, advantages + rewards, 0.0)


@misconception("gae", "The flags are off by one: terminated[t] ends the episode with step t, not before it.")
def flags_shifted(rewards, values, terminated, gamma, lam, last_value, mask=None):
    shifted = torch.cat([terminated[1:], terminated[:1] & False])
    return reference.gae(rewards, values, shifted, gamma, lam, last_value, mask)


@misconception("gae", "The mask is not used; a step that does not count must be passed over.")
def mask_not_used(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, masked="ignored")


@misconception("gae", "Masked steps are blanked only at the end; they must not carry value, decay or flag either.")
def mask_only_blanks(rewards, values, terminated, gamma, lam, last_value, mask=None):
    return recursion(rewards, values, terminated, gamma, lam, last_value, mask, masked="blanked")


@misconception("gae", "You standardise the advantages; gae returns them as they are.")
def standardises(rewards, values, terminated, gamma, lam, last_value, mask=None):
    advantages, returns = reference.gae(rewards, values, terminated, gamma, lam, last_value, mask)
    return (advantages - advantages.mean()) / (advantages.std(unbiased=False) + 1e-8), returns


# -- ppo_clip_loss, value_clip_loss


def surrogate(logp, old_logp, adv, eps, mask, combine):
    """Minus the mean of `combine` of the plain and the clipped objective."""
    if not mask.any():
        return (logp[mask] * 0).sum()
    rho = torch.exp(logp[mask] - old_logp[mask].detach())
    A = adv[mask].detach()
    return -combine(rho * A, rho.clamp(1 - eps, 1 + eps) * A).mean()


@misconception("ppo_clip_loss", "You take the larger of the two objectives; PPO is pessimistic: the smaller one.")
def takes_the_maximum(logp, old_logp, adv, eps, mask):
    return surrogate(logp, old_logp, adv, eps, mask, torch.maximum)


@misconception(
    "ppo_clip_loss", "Clipped alone, a token that went the wrong way gets no gradient back; take the minimum."
)
def clipped_alone(logp, old_logp, adv, eps, mask):
    return surrogate(logp, old_logp, adv, eps, mask, lambda plain, near: near)


@misconception("ppo_clip_loss", "The ratio is never clipped, so nothing stops a token from running away.")
def never_clips(logp, old_logp, adv, eps, mask):
    return surrogate(logp, old_logp, adv, eps, mask, lambda plain, near: plain)


@misconception("ppo_clip_loss", "The sign is missing: a loss is minimised, so it is minus the objective.")
def sign_missing(logp, old_logp, adv, eps, mask):
    return -reference.ppo_clip_loss(logp, old_logp, adv, eps, mask)


@misconception("ppo_clip_loss", "The ratio is upside down; the new policy is in the numerator.")
def ratio_upside_down(logp, old_logp, adv, eps, mask):
    if not mask.any():
        return (logp[mask] * 0).sum()
    rho, A = torch.exp(old_logp[mask].detach() - logp[mask]), adv[mask].detach()
    return -torch.minimum(rho * A, rho.clamp(1 - eps, 1 + eps) * A).mean()


@misconception("ppo_clip_loss", "Gradients flow into old_logp; it is a record of the past: detach it.")
def old_policy_learns_too(logp, old_logp, adv, eps, mask):
    if not mask.any():
        return (logp[mask] * 0).sum()
    rho, A = torch.exp(logp[mask] - old_logp[mask]), adv[mask].detach()
    return -torch.minimum(rho * A, rho.clamp(1 - eps, 1 + eps) * A).mean()


@misconception("ppo_clip_loss", "You divide by all positions, padding included; divide by the tokens that count.")
def mean_over_padding(logp, old_logp, adv, eps, mask):
    return reference.ppo_clip_loss(logp, old_logp, adv, eps, mask) * mask.sum() / mask.numel()


@misconception("ppo_clip_loss", "You average within each answer first; all tokens of all answers weigh the same.")
def mean_of_row_means(logp, old_logp, adv, eps, mask):
    if mask.dim() < 2 or not mask.any():
        return reference.ppo_clip_loss(logp, old_logp, adv, eps, mask)
    rows = [i for i in range(len(mask)) if mask[i].any()]
    return torch.stack([reference.ppo_clip_loss(logp[i], old_logp[i], adv[i], eps, mask[i]) for i in rows]).mean()


@misconception("ppo_clip_loss", "You standardise the advantages inside the loss; use them as they come.")
def standardises_inside(logp, old_logp, adv, eps, mask):
    A = adv[mask]
    spread = A.std(unbiased=False) if len(A) else 1.0
    shift = A.mean() if len(A) else 0.0
    return reference.ppo_clip_loss(logp, old_logp, (adv - shift) / (spread + 1e-8), eps, mask)


@misconception(
    "ppo_clip_loss", "You multiply by the mask after exp: NaN and infinity survive; select the tokens first."
)
def masks_after_exp(logp, old_logp, adv, eps, mask):
    rho, A = torch.exp(logp - old_logp.detach()), adv.detach()
    objective = torch.minimum(rho * A, rho.clamp(1 - eps, 1 + eps) * A) * mask
    return -objective.sum() / mask.sum().clamp(min=1)


@misconception("ppo_clip_loss", "The mean over no tokens is 0 / 0; without any token the loss is 0.")
def empty_mean_is_nan(logp, old_logp, adv, eps, mask):
    rho, A = torch.exp(logp[mask] - old_logp[mask].detach()), adv[mask].detach()
    return -torch.minimum(rho * A, rho.clamp(1 - eps, 1 + eps) * A).mean()


def value_error(values, old_values, returns, eps, mask, combine):
    """Half the mean of `combine` of the two squared errors."""
    if not mask.any():
        return (values[mask] * 0).sum()
    V, old, R = values[mask], old_values[mask].detach(), returns[mask].detach()
    near = old + (V - old).clamp(-eps, eps)
    return combine((V - R) ** 2, (near - R) ** 2).mean() / 2


@misconception("ppo_clip_loss", "For values take the larger error: the smaller one rewards jumping.", "value_clip_loss")
def smaller_value_error(values, old_values, returns, eps, mask):
    return value_error(values, old_values, returns, eps, mask, torch.minimum)


@misconception("ppo_clip_loss", "Your value loss is not clipped around the old value.", "value_clip_loss")
def value_not_clipped(values, old_values, returns, eps, mask):
    return value_error(values, old_values, returns, eps, mask, lambda plain, near: plain)


@misconception("ppo_clip_loss", "The value loss lacks the factor one half.", "value_clip_loss")
def value_without_half(values, old_values, returns, eps, mask):
    return 2 * reference.value_clip_loss(values, old_values, returns, eps, mask)


@misconception(
    "ppo_clip_loss", "You clip the value itself to +-eps; clip how far it moved from the old value.", "value_clip_loss"
)
def clips_the_value(values, old_values, returns, eps, mask):
    return reference.value_clip_loss(values, torch.zeros_like(old_values), returns, eps, mask)


# -- ppo_toy


def ppo(env, steps, seed, **changes):
    """The right run but for the named changes."""
    rng, T = torch.Generator().manual_seed(seed), env["reward"].dim()
    reward = env["reward"].clone()
    logits = env["ref"].clone().requires_grad_()
    values = torch.zeros(len(logits), dtype=logits.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([logits, values], lr=reference.RATE)
    first_logp = anchor = env["ref"].log_softmax(-1)
    before = anchor
    curve = [reference.measure(env, logits.detach())]
    for _ in range(steps):
        tokens, rows = reference.sample_answers(logits.detach(), T, reference.ANSWERS, rng)
        everywhere = torch.ones_like(tokens, dtype=torch.bool)
        ends = torch.arange(T).expand_as(tokens) == T - 1
        with torch.no_grad():
            now = logits.log_softmax(-1)[rows, tokens]
            old_logp = first_logp[rows, tokens] if changes.get("old") == "first" else now
            old_values = values[rows]
            if changes.get("anchor") == "old":
                anchor, before = before, logits.log_softmax(-1)
            if changes.get("reward") == "trained":
                reward[tuple(tokens.T)] += 0.02
            beta = changes.get("sign", 1.0) * env["beta"]
            table = env["true"] if changes.get("reward") == "true" else reward
            shaped_r = reference.shaped_rewards(table[tuple(tokens.T)], now, anchor[rows, tokens], beta, everywhere)
            if changes.get("credit") == "every word":
                shaped_r[:, :-1] += table[tuple(tokens.T)][:, None]
            estimates = reference.gae(shaped_r.flatten(), old_values.flatten(), ends.flatten(), 1.0, 0.95, 0.0)
            adv, returns = (x.view(-1, T) for x in estimates)
            if changes.get("credit") == "last":
                adv = torch.where(ends, adv, 0.0)
        for _ in range(reference.PASSES):
            logp = logits.log_softmax(-1)[rows, tokens]
            loss = reference.ppo_clip_loss(logp, old_logp, adv, reference.EPS, everywhere)
            loss = loss + reference.value_clip_loss(values[rows], old_values, returns, reference.EPS, everywhere)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        curve.append(reference.measure({**env, "reward": reward}, logits.detach()))
    return {name: [point[name] for point in curve] for name in curve[0]} | {"policy": logits.detach()}


@misconception("ppo_toy", "old_logp is that of the first policy for ever; take it anew from the policy of each round.")
def old_policy_never_refreshed(env, steps, seed):
    return ppo(env, steps, seed, old="first")


@misconception("ppo_toy", "Your reward table changes while the policy trains; it must stay as it was given.")
def reward_trained_along(env, steps, seed):
    return ppo(env, steps, seed, reward="trained")


@misconception("ppo_toy", "You train on the true utility, which nobody has; the policy only ever sees the proxy.")
def trains_on_the_truth(env, steps, seed):
    return ppo(env, steps, seed, reward="true")


@misconception("ppo_toy", "The leash is tied to the policy of the round before; it must be tied to the reference.")
def leash_follows_the_policy(env, steps, seed):
    return ppo(env, steps, seed, anchor="old")


@misconception("ppo_toy", "beta is not used; the rewards must be shaped by the KL to the reference.")
def no_leash(env, steps, seed):
    return ppo(env, steps, seed, sign=0.0)


@misconception("ppo_toy", "Every word gets the whole score, so it counts T times; give it to the last word alone.")
def score_for_every_word(env, steps, seed):
    return ppo(env, steps, seed, credit="every word")


@misconception("ppo_toy", "Only the last word learns; advantages must reach the earlier words as well.")
def only_the_last_word_learns(env, steps, seed):
    return ppo(env, steps, seed, credit="last")


@misconception("ppo_toy", "The lists lack the point before the first round; they have steps + 1 entries.")
def first_point_missing(env, steps, seed):
    history = ppo(env, steps, seed)
    return {name: value if name == "policy" else value[1:] for name, value in history.items()}


@misconception("ppo_toy", "The seed is not used: the same seed must give the same run.")
def seed_not_used(env, steps, seed):
    return ppo(env, steps, torch.randint(2**31, ()).item())


# -- sequence_logprob, dpo_loss


@misconception("dpo_loss", "The reference is ignored; compare each answer with what the reference gives it.")
def ignores_the_reference(pc, pr, rc, rr, beta):
    return -F.logsigmoid(beta * (pc - pr)).mean()


@misconception("dpo_loss", "The two scores of the reference are exchanged: rc belongs to the chosen answer.")
def references_exchanged(pc, pr, rc, rr, beta):
    return -F.logsigmoid(beta * ((pc - rr) - (pr - rc))).mean()


@misconception("dpo_loss", "beta is missing; it multiplies the difference inside the sigmoid.")
def beta_missing(pc, pr, rc, rr, beta):
    return -F.logsigmoid((pc - rc) - (pr - rr)).mean()


@misconception("dpo_loss", "beta stands before the whole loss; it must be inside the sigmoid.")
def beta_outside(pc, pr, rc, rr, beta):
    return -beta * F.logsigmoid((pc - rc) - (pr - rr)).mean()


@misconception("dpo_loss", "log(sigmoid(z)) underflows to log(0) far from the reference; use logsigmoid.")
def dpo_log_of_sigmoid(pc, pr, rc, rr, beta):
    return -torch.log(torch.sigmoid(beta * ((pc - rc) - (pr - rr)))).mean()


@misconception("dpo_loss", "The sign of z is reversed, so the rejected answer is made likelier.")
def prefers_the_rejected(pc, pr, rc, rr, beta):
    return -F.logsigmoid(-beta * ((pc - rc) - (pr - rr))).mean()


@misconception("dpo_loss", "The loss is summed over the pairs; it is their mean.")
def dpo_sum(pc, pr, rc, rr, beta):
    return -F.logsigmoid(beta * ((pc - rc) - (pr - rr))).sum()


def token_logprobs(model, ids, labels):
    """Log-probabilities of the labels (B, T), and which of them count."""
    counts = labels != -100
    logp = model(ids).log_softmax(-1)
    return logp.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1), counts


@misconception(
    "dpo_loss", "You average over the tokens; DPO needs the sum, log p of the whole answer.", "sequence_logprob"
)
def mean_over_tokens(model, ids, labels):
    logp, counts = token_logprobs(model, ids, labels)
    return torch.where(counts, logp, 0.0).sum(-1) / counts.sum(-1).clamp(min=1)


@misconception("dpo_loss", "Labels of -100 are counted as token 0; they must contribute nothing.", "sequence_logprob")
def prompt_counted(model, ids, labels):
    return token_logprobs(model, ids, labels)[0].sum(-1)


@misconception("dpo_loss", "You shift the labels once more; they are already what follows.", "sequence_logprob")
def shifted_twice(model, ids, labels):
    logits = model(ids)
    moved = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], 1)
    return reference.sequence_logprob(lambda _: logits, ids, moved)


@misconception("dpo_loss", "Token 0 is dropped like padding; only -100 marks what does not count.", "sequence_logprob")
def token_zero_dropped(model, ids, labels):
    logp, _ = token_logprobs(model, ids, labels)
    return torch.where(labels > 0, logp, 0.0).sum(-1)


@misconception("dpo_loss", "log(softmax) is log(0) for unlikely tokens; use log_softmax.", "sequence_logprob")
def log_of_softmax(model, ids, labels):
    logits = model(ids).softmax(-1).log()
    logp = logits.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels != -100, logp, 0.0).sum(-1)


# -- constitutional_revision


def revise(chat, prompt, principles, rounds, seed=0, **changes):
    """The right procedure but for the named changes."""
    if rounds > 0 and len(principles) == 0:
        raise ValueError("no principle")

    def ask(*parts):
        return chat([{"role": "user", "content": "\n\n".join(parts)}])

    rng, urn = random.Random(seed), []
    draft = answer = ask(prompt)
    path = [{"prompt": prompt, "response": answer, "principle": None, "critique": None}]
    for _ in range(rounds):
        if changes.get("draw") == "replacement":
            urn = [rng.choice(list(principles))]
        elif changes.get("draw") == "same":
            urn = urn or rng.sample(list(principles), 1)
        elif changes.get("draw") == "in order":
            urn = urn or list(principles)[::-1]
        urn = urn or rng.sample(list(principles), len(principles))
        principle = urn[-1] if changes.get("draw") == "same" else urn.pop()
        criticised = draft if changes.get("critique") == "draft" else answer
        shown = "" if changes.get("principle") == "hidden" else principle
        critique = ask(prompt, criticised, f"Criticise this by the principle: {shown}")
        given = "" if changes.get("revision") == "blind" else critique
        answer = ask(prompt, draft if changes.get("revision") == "draft" else answer, given, "Revise.")
        kept = critique if changes.get("kept") == "critique" else answer
        asked = answer if changes.get("prompt") == "chained" else prompt
        path.append({"prompt": asked, "response": kept, "principle": principle, "critique": critique})
    return path


@misconception("constitutional_revision", "Every critique is of the first draft; criticise the latest answer.")
def criticises_the_draft(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, critique="draft")


@misconception(
    "constitutional_revision", "Every revision starts from the first draft; it must start from the latest answer."
)
def revises_the_draft(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, revision="draft")


@misconception("constitutional_revision", "The critique is stored as the response; the pair must hold the revision.")
def stores_the_critique(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, kept="critique")


@misconception("constitutional_revision", "Every round uses the same principle; draw without replacement.")
def same_principle(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, draw="same")


@misconception("constitutional_revision", "You draw with replacement, so a principle may return before all were used.")
def draws_with_replacement(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, draw="replacement")


@misconception(
    "constitutional_revision", "Principles come in the order of the list; they must be drawn at random by the seed."
)
def principles_in_order(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, draw="in order")


@misconception(
    "constitutional_revision", "The critic is never told the principle; put it into the request word for word."
)
def principle_not_shown(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, principle="hidden")


@misconception("constitutional_revision", "The revision is asked for without the critique; hand it over word for word.")
def critique_not_shown(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, revision="blind")


@misconception(
    "constitutional_revision", "The pair's prompt must be the user's own, not what the model was asked last."
)
def prompt_replaced(chat, prompt, principles, rounds, seed=0):
    return revise(chat, prompt, principles, rounds, seed, prompt="chained")


# -- ai_preference


def prefer(chat, prompt, a, b, principle, read, join):
    """Ask in both orders, `read` each reply as the first one's win (or None), and `join` the two."""

    def ask(first, second):
        text = f"{prompt}\n\nA: {first}\n\nB: {second}\n\n{principle}\n\nEnd with [[A]], [[B]] or [[C]]."
        return read(chat([{"role": "user", "content": text}]))

    return join(ask(a, b), ask(b, a))


def last_mark(reply):
    marks = re.findall(r"\[\[([ABC])\]\]", reply)
    return {"A": 1.0, "B": 0.0, "C": 0.5}[marks[-1]] if marks else None


def labelled(p_a):
    return "a" if p_a > 0.5 else "b" if p_a < 0.5 else "tie", p_a


def both_orders(one, two):
    return (None, None) if one is None or two is None else labelled((one + 1 - two) / 2)


@misconception("ai_preference", "Only one order is asked, so the judge's love of a place decides; ask in both.")
def one_order_only(chat, prompt, a, b, principle):
    text = f"{prompt}\n\nA: {a}\n\nB: {b}\n\n{principle}\n\nEnd with [[A]], [[B]] or [[C]]."
    p_a = last_mark(chat([{"role": "user", "content": text}]))
    return (None, None) if p_a is None else labelled(p_a)


@misconception("ai_preference", "In the second order A is the other answer; turn that verdict round before averaging.")
def second_order_not_turned(chat, prompt, a, b, principle):
    def join(one, two):
        return (None, None) if one is None or two is None else labelled((one + two) / 2)

    return prefer(chat, prompt, a, b, principle, last_mark, join)


@misconception("ai_preference", "You take the first letter A or B anywhere in the reply; only a mark in [[ ]] counts.")
def first_letter_anywhere(chat, prompt, a, b, principle):
    def read(reply):
        found = re.search("[ABC]", reply)
        return {"A": 1.0, "B": 0.0, "C": 0.5}[found[0]] if found else None

    return prefer(chat, prompt, a, b, principle, read, both_orders)


@misconception("ai_preference", "You take the first mark; the judge may think aloud, so the last one counts.")
def first_mark(chat, prompt, a, b, principle):
    def read(reply):
        found = re.search(r"\[\[([ABC])\]\]", reply)
        return {"A": 1.0, "B": 0.0, "C": 0.5}[found[1]] if found else None

    return prefer(chat, prompt, a, b, principle, read, both_orders)


@misconception("ai_preference", "A reply that cannot be read is counted as a tie; it must give (None, None).")
def unreadable_is_a_tie(chat, prompt, a, b, principle):
    def read(reply):
        win = last_mark(reply)
        return 0.5 if win is None else win

    return prefer(chat, prompt, a, b, principle, read, both_orders)


@misconception("ai_preference", "If one verdict cannot be read you trust the other alone, with its bias; report None.")
def trusts_the_other_order(chat, prompt, a, b, principle):
    def join(one, two):
        wins = [x for x in (one, None if two is None else 1 - two) if x is not None]
        return labelled(sum(wins) / len(wins)) if wins else (None, None)

    return prefer(chat, prompt, a, b, principle, last_mark, join)


@misconception("ai_preference", "Lower-case letters and spaces inside the mark are no verdict; read the mark strictly.")
def reads_marks_loosely(chat, prompt, a, b, principle):
    def read(reply):
        marks = re.findall(r"\[\[\s*([abcABC])\s*\]\]", reply)
        return {"A": 1.0, "B": 0.0, "C": 0.5}[marks[-1].upper()] if marks else None

    return prefer(chat, prompt, a, b, principle, read, both_orders)


@misconception("ai_preference", "Two verdicts that disagree are a tie with p_a 0.5; do not prefer a.")
def ties_go_to_a(chat, prompt, a, b, principle):
    def join(one, two):
        label, p_a = both_orders(one, two)
        return ("a" if label == "tie" else label), p_a

    return prefer(chat, prompt, a, b, principle, last_mark, join)
