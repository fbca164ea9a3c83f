"""Right answers of chapter 16 written in other styles; a suite that fails one of them is wrong."""

import math
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)


# -- reward_loss, last_token_reward


@alternative("reward_loss", "softplus of the negated lead")
def loss_by_softplus(r_chosen, r_rejected, margin=0.0):
    lead = torch.sub(r_chosen, r_rejected) - margin
    return torch.mean(F.softplus(-lead))


@alternative("reward_loss", "logaddexp, one pair after another")
def loss_by_pairs(r_chosen, r_rejected, margin=0.0):
    margins = margin if isinstance(margin, torch.Tensor) else [margin] * len(r_chosen)
    zero = r_chosen.new_zeros(())
    total = zero
    for c, r, m in zip(r_chosen, r_rejected, margins, strict=True):
        total = total + torch.logaddexp(zero, m + r - c)
    return total / len(r_chosen)


@alternative("reward_loss", "cross-entropy of two classes")
def loss_by_cross_entropy(r_chosen, r_rejected, margin=0.0):
    logits = torch.stack([r_chosen - margin, r_rejected], dim=1)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


@alternative("reward_loss", "binary cross-entropy with logits")
def loss_by_bce(r_chosen, r_rejected, margin=0.0):
    z = r_chosen - r_rejected - margin
    return nn.BCEWithLogitsLoss()(z, torch.ones_like(z))


@alternative("reward_loss", "a list comprehension over rows", replaces="last_token_reward")
def last_by_list(values, lengths):
    lengths = [int(n) for n in lengths]
    if min(lengths) < 1 or max(lengths) > values.size(1):
        raise ValueError("a length is impossible")
    return torch.stack([row[n - 1] for row, n in zip(values, lengths, strict=True)])


@alternative("reward_loss", "gather", replaces="last_token_reward")
def last_by_gather(values, lengths):
    index = torch.tensor([int(n) for n in lengths]) - 1
    if not bool(((index >= 0) & (index < values.shape[1])).all()):
        raise ValueError("a length is impossible")
    return values.gather(1, index.unsqueeze(1)).squeeze(1)


@alternative("reward_loss", "a masked sum after the padding is cut", replaces="last_token_reward")
def last_by_one_hot(values, lengths):
    n = torch.as_tensor(lengths)
    if bool((n <= 0).any()) or bool((n > values.shape[-1]).any()):
        raise ValueError("a length is impossible")
    here = torch.arange(values.shape[1]) == (n - 1)[:, None]
    return values.masked_fill(~here, 0).sum(1)


# -- kl_estimates, shaped_rewards


@alternative("kl_estimates", "the ratio itself, in float64")
def kl_by_ratio(logp, logp_ref):
    r = (logp_ref.double() - logp.double()).exp()
    return tuple(k.to(logp.dtype) for k in (-r.log(), r.log().square() * 0.5, (r - 1) - r.log()))


@alternative("kl_estimates", "numpy")
def kl_by_numpy(logp, logp_ref):
    d = logp.numpy() - logp_ref.numpy()
    return [torch.from_numpy(np.asarray(k)) for k in (d, 0.5 * d * d, np.expm1(-d) + d)]


@alternative("kl_estimates", "loops over rows and tokens", replaces="shaped_rewards")
def shaped_by_loops(score, logp, logp_ref, beta, mask):
    out = torch.zeros_like(logp)
    for b in range(logp.shape[0]):
        last = None
        for t in range(logp.shape[1]):
            if mask[b, t]:
                out[b, t] = beta * (logp_ref[b, t] - logp[b, t])
                last = t
        if last is not None:
            out[b, last] += score[b]
    return out


@alternative("kl_estimates", "the largest masked position, index_put on own zeros", replaces="shaped_rewards")
def shaped_by_position(score, logp, logp_ref, beta, mask):
    out = logp.new_zeros(logp.shape)
    out[mask] = -beta * (logp[mask] - logp_ref[mask])
    position = (torch.arange(1, mask.shape[1] + 1) * mask).amax(1) - 1
    rows = (position >= 0).nonzero().flatten()
    out[rows, position[rows]] += score[rows]
    return out


# -- gae


@alternative("gae", "the double sum of the definition")
def gae_by_double_sum(rewards, values, terminated, gamma, lam, last_value, mask=None):
    kept = list(range(len(rewards))) if mask is None else mask.nonzero().flatten().tolist()
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(values)
    following = [values[t].item() for t in kept[1:]] + [float(last_value)]
    for i, t in enumerate(kept):
        total = 0.0
        for j in range(i, len(kept)):
            over = bool(terminated[kept[j]])
            delta = rewards[kept[j]].item() + (0.0 if over else gamma * following[j]) - values[kept[j]].item()
            total += (gamma * lam) ** (j - i) * delta
            if over:
                break
        advantages[t], returns[t] = total, total + values[t].item()
    return advantages, returns


@alternative("gae", "one triangular matrix and a product")
def gae_by_matrix(rewards, values, terminated, gamma, lam, last_value, mask=None):
    keep = torch.ones(len(rewards), dtype=torch.bool) if mask is None else mask
    r, V, live = rewards[keep].double(), values[keep].double(), (~terminated[keep]).double()
    advantages, returns = rewards.new_zeros(len(rewards)), rewards.new_zeros(len(rewards))
    if len(r):
        after = torch.cat([V[1:], torch.tensor([float(last_value)], dtype=torch.float64)])
        delta = r + gamma * after * live - V
        step = torch.diag(gamma * lam * live[:-1], 1)
        A = torch.linalg.solve(torch.eye(len(r), dtype=torch.float64) - step, delta)
        advantages[keep], returns[keep] = A.to(rewards.dtype), (A + V).to(rewards.dtype)
    return advantages, returns


@alternative("gae", "tensor scalars and the factor (1 - terminated)")
def gae_by_tensor_scalars(rewards, values, terminated, gamma, lam, last_value, mask=None):
    live = 1 - terminated.to(rewards.dtype)
    counts = torch.ones_like(live) if mask is None else mask.to(rewards.dtype)
    A_next, V_next = torch.zeros_like(rewards[0]), torch.as_tensor(last_value, dtype=rewards.dtype)
    reversed_A = []
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + gamma * V_next * live[t] - values[t]
        A = delta + gamma * lam * live[t] * A_next
        A_next = counts[t] * A + (1 - counts[t]) * A_next
        V_next = counts[t] * values[t] + (1 - counts[t]) * V_next
        reversed_A.append(A * counts[t])
    advantages = torch.stack(reversed_A[::-1])
    return advantages, advantages + values * counts


# -- ppo_clip_loss, value_clip_loss


@alternative("ppo_clip_loss", "where on the inputs, sums over all positions")
def clip_loss_by_where(logp, old_logp, adv, eps, mask):
    log_ratio = torch.where(mask, logp - old_logp.detach(), torch.zeros_like(logp))
    A = torch.where(mask, adv.detach(), torch.zeros_like(adv))
    ratio = log_ratio.exp()
    losses = torch.maximum(-A * ratio, -A * torch.clamp(ratio, 1 - eps, 1 + eps))
    return losses.sum() / mask.sum().clamp(min=1)


@alternative("ppo_clip_loss", "token by token, the cases spelled out")
def clip_loss_by_cases(logp, old_logp, adv, eps, mask):
    total, n = logp.new_zeros(()), 0
    for new, old, A, counts in zip(logp.flatten(), old_logp.flatten(), adv.flatten(), mask.flatten(), strict=True):
        if not counts:
            continue
        n += 1
        rho, A = torch.exp(new - old.item()), A.item()
        if A > 0 and rho > 1 + eps:
            rho = rho.new_tensor(1 + eps)
        elif A < 0 and rho < 1 - eps:
            rho = rho.new_tensor(1 - eps)
        total = total - rho * A
    return total / max(n, 1)


@alternative("ppo_clip_loss", "the limit of rho depends on the sign of A")
def clip_loss_by_limit(logp, old_logp, adv, eps, mask):
    logp, old, A = logp.masked_fill(~mask, 0), old_logp.detach().masked_fill(~mask, 0), adv.detach()
    A = A.masked_fill(~mask, 0)
    bound = torch.where(A > 0, A * (1 + eps), A * (1 - eps))
    return -torch.min((logp - old).exp() * A, bound).sum() / max(int(mask.sum()), 1)


@alternative("ppo_clip_loss", "clamp with tensors as limits", replaces="value_clip_loss")
def value_loss_by_limits(values, old_values, returns, eps, mask):
    if mask.sum() == 0:
        return values.masked_fill(~mask, 0).sum()
    v, o, r = (x.masked_select(mask) for x in (values, old_values.detach(), returns.detach()))
    near = v.clamp(o - eps, o + eps)
    return 0.5 * torch.stack([F.mse_loss(v, r, reduction="none"), (near - r).pow(2)]).amax(0).mean()


@alternative("ppo_clip_loss", "the larger absolute error, squared", replaces="value_clip_loss")
def value_loss_by_absolute_errors(values, old_values, returns, eps, mask):
    zero = torch.zeros_like(values)
    v, o, r = (torch.where(mask, x, zero) for x in (values, old_values.detach(), returns.detach()))
    near = o + torch.clip(v - o, -eps, eps)
    worst = torch.maximum((v - r).abs(), (near - r).abs())
    return worst.square().sum() / (2 * mask.sum().clamp(min=1))


# -- ppo_toy


def exact_averages(env, log_p):
    """Proxy, truth and KL of the table of log-probabilities."""
    logp_ref = reference.answer_logprobs(env["ref"], env["reward"].dim())
    terms = {"proxy": env["reward"], "true": env["true"], "kl": log_p - logp_ref}
    return {name: float((log_p.exp() * x).sum()) for name, x in terms.items()}


@alternative("ppo_toy", "smaller batches, four passes, standardised advantages, a lower rate, two optimisers")
def ppo_in_small_batches(env, steps, seed):
    rng, T = torch.Generator(), env["reward"].ndim
    rng.manual_seed(seed)
    ref = env["ref"].detach()
    actor, critic = nn.Parameter(ref.clone()), nn.Parameter(torch.zeros(ref.shape[0], dtype=ref.dtype))
    optimizers = torch.optim.Adam([actor], lr=0.06), torch.optim.RMSprop([critic], lr=0.05)
    history = {"proxy": [], "true": [], "kl": []}

    def note():
        for name, value in exact_averages(env, reference.answer_logprobs(actor.detach(), T)).items():
            history[name].append(value)

    note()
    for _ in range(steps):
        tokens, rows = reference.sample_answers(actor.detach(), T, 96, rng)
        old, anchor = (F.log_softmax(x, dim=1)[rows, tokens].detach() for x in (actor, ref))
        rewards = -env["beta"] * (old - anchor)
        rewards[:, -1] += env["reward"][tuple(tokens[:, t] for t in range(T))]
        V = critic.detach()[rows]
        togo = rewards.flip(1).cumsum(1).flip(1)  # lambda = 1: the returns themselves
        A = togo - V
        A = A / (A.std() + 1e-6)
        for _ in range(4):
            rho = (F.log_softmax(actor, dim=1)[rows, tokens] - old).exp()
            loss = -torch.min(rho * A, rho.clamp(0.8, 1.2) * A).mean() + (critic[rows] - togo).square().mean() / 2
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
        note()
    return {**history, "policy": actor.detach().clone()}


@alternative(
    "ppo_toy", "a flat list of sentences drawn with numpy, one long answer behind the other, no value clipping"
)
def ppo_with_numpy_draws(env, steps, seed):
    rng = np.random.default_rng(seed)
    T, V = env["reward"].dim(), env["reward"].shape[0]
    policy, value = env["ref"].clone(), torch.zeros(len(env["ref"]), dtype=torch.float64)
    logits = policy.requires_grad_(True)
    value.requires_grad_(True)
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.1}, {"params": [value], "lr": 0.2}])
    shots = [reference.measure(env, logits.detach())]
    for _ in range(steps):
        with torch.no_grad():
            cumulative = logits.softmax(-1).cumsum(-1).numpy()
            rows, words = np.zeros((150, T), dtype=np.int64), np.zeros((150, T), dtype=np.int64)
            for t in range(T):
                if t:
                    rows[:, t] = V * rows[:, t - 1] + 1 + words[:, t - 1]
                u = rng.random((150, 1))
                words[:, t] = np.minimum((u > cumulative[rows[:, t]]).sum(1), V - 1)
            rows, words = torch.from_numpy(rows), torch.from_numpy(words)
            old = logits.log_softmax(-1)[rows, words]
            reward = env["beta"] * (env["ref"].log_softmax(-1)[rows, words] - old)
            reward[:, T - 1] = reward[:, T - 1] + env["reward"][tuple(words.unbind(1))]
            before = value[rows]
            A, carry = torch.zeros_like(old), torch.zeros(150, dtype=torch.float64)
            for t in reversed(range(T)):
                after = before[:, t + 1] if t + 1 < T else 0.0
                carry = reward[:, t] + after - before[:, t] + 0.9 * carry
                A[:, t] = carry
        everything = torch.ones_like(words).bool()
        for _ in range(2):
            now = logits.log_softmax(-1)[rows, words]
            loss = reference.ppo_clip_loss(now, old, A, 0.2, everything)
            loss = loss + 0.5 * F.mse_loss(value[rows], A + before)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shots.append(reference.measure(env, logits.detach()))
    curves = {name: [shot[name] for shot in shots] for name in ("proxy", "true", "kl")}
    return dict(curves, policy=logits.detach())


# -- sequence_logprob, dpo_loss


@alternative("dpo_loss", "cross_entropy with ignore_index", replaces="sequence_logprob")
def logprob_by_cross_entropy(model, ids, labels):
    logits = model(ids)
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none")
    return -losses.view(labels.shape).sum(dim=1)


@alternative("dpo_loss", "row by row, only the labelled positions", replaces="sequence_logprob")
def logprob_by_rows(model, ids, labels):
    logits, sums = model(ids), []
    for row, wanted in zip(logits, labels, strict=True):
        at = torch.nonzero(wanted != -100)[:, 0]
        sums.append((row[at, wanted[at]] - torch.logsumexp(row[at], dim=-1)).sum())
    return torch.stack(sums)


@alternative("dpo_loss", "a one-hot product", replaces="sequence_logprob")
def logprob_by_one_hot(model, ids, labels):
    logp = torch.log_softmax(model(ids), dim=2)
    hot = F.one_hot(labels.clamp(min=0), logp.shape[-1]) * (labels >= 0)[..., None]
    return torch.einsum("btv,btv->b", logp, hot.to(logp.dtype))


@alternative("dpo_loss", "policy ratio less reference ratio, softplus")
def dpo_by_softplus(pc, pr, rc, rr, beta):
    policy, ref = pc - pr, rc - rr
    return F.softplus(-beta * (policy - ref)).mean()


@alternative("dpo_loss", "the reward loss of implicit rewards, pair by pair")
def dpo_by_pairs(pc, pr, rc, rr, beta):
    pairs = zip(beta * (pc - rc), beta * (pr - rr), strict=True)
    return sum(torch.logaddexp(won, lost) - won for won, lost in pairs) / len(pc)


# -- constitutional_revision


@alternative("constitutional_revision", "recursion, a system message, numpy's permutation")
def revise_recursively(chat, prompt, principles, rounds, seed=0):
    if rounds and not principles:
        raise ValueError("principles are missing")
    if rounds == 0:
        first = chat([dict(role="user", content=prompt)])
        return [dict(prompt=prompt, response=first, principle=None, critique=None)]
    path = revise_recursively(chat, prompt, principles, rounds - 1, seed)
    cycle, place = divmod(rounds - 1, len(principles))
    order = np.random.default_rng([seed, cycle]).permutation(len(principles))
    principle, answer = principles[int(order[place])], path[-1]["response"]
    system = {"role": "system", "content": "You improve answers."}
    task = f"Question: {prompt} | Answer: {answer} | Rule: {principle} | What breaks the rule?"
    critique = chat([system, {"role": "user", "content": task}])
    task = f"Question: {prompt} | Answer: {answer} | Remarks: {critique} | Rule: {principle} | Write it anew."
    return [
        *path,
        dict(
            prompt=prompt,
            response=chat([system, {"role": "user", "content": task}]),
            principle=principle,
            critique=critique,
        ),
    ]


@alternative("constitutional_revision", "one growing conversation, principles taken from a shuffled list by number")
def revise_in_one_conversation(chat, prompt, principles, rounds, seed=0):
    generator = random.Random(seed)
    order = []
    while len(order) < rounds:
        if len(principles) == 0:
            raise ValueError("principles are missing")
        block = list(range(len(principles)))
        generator.shuffle(block)
        order.extend(block)
    talk = [{"role": "user", "content": prompt}]
    answer = chat(list(talk))
    steps = [{"response": answer, "principle": None, "critique": None, "prompt": prompt}]
    talk.append({"role": "assistant", "content": answer})
    for number in order[:rounds]:
        principle = principles[number]
        talk.append({"role": "user", "content": "Criticise your last answer. " + principle})
        critique = chat(list(talk))
        talk += [{"role": "assistant", "content": critique}, {"role": "user", "content": "Now mend it."}]
        answer = chat(list(talk))
        talk.append({"role": "assistant", "content": answer})
        steps.append({"response": answer, "principle": principle, "critique": critique, "prompt": prompt})
    return steps


# -- ai_preference


@alternative("ai_preference", "string search for the last mark, the swapped order asked first")
def prefer_by_search(chat, prompt, a, b, principle):
    wins = []
    for first, second in ((b, a), (a, b)):
        rules = {"role": "system", "content": f"Judge by this: {principle}. Reply [[A]], [[B]] or [[C]] (a tie)."}
        task = {"role": "user", "content": f"{prompt}\n<A>{first}</A>\n<B>{second}</B>"}
        reply = chat([rules, task])
        where = {letter: reply.rfind(f"[[{letter}]]") for letter in "ABC"}
        letter = max(where, key=where.get)
        if where[letter] < 0:
            wins.append(None)
        else:
            wins.append("BCA".index(letter) / 2)
    if None in wins:
        return None, None
    p_a = (wins[1] + (1 - wins[0])) / 2
    return {True: "a", False: "b"}[p_a > 0.5] if not math.isclose(p_a, 0.5) else "tie", p_a


@alternative("ai_preference", "counting halves, splitting at brackets")
def prefer_by_split(chat, prompt, a, b, principle):
    def verdict(first, second):
        text = f"Task: {prompt}\nA) {first}\nB) {second}\nCriterion: {principle}\nOne of [[A]] [[B]] [[C]]."
        reply = chat([{"role": "user", "content": text}])
        found = [piece[0] for piece in reply.split("[[")[1:] if piece[:1] in tuple("ABC") and piece[1:3] == "]]"]
        return found[-1] if found else None

    forward, backward = verdict(a, b), verdict(b, a)
    if forward is None or backward is None:
        return (None, None)
    halves = {"A": 2, "B": 0, "C": 1}[forward] + {"A": 0, "B": 2, "C": 1}[backward]
    return ("b", "b", "tie", "a", "a")[halves], halves / 4
