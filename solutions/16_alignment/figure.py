"""What the figure of chapter 16 computes and says, held against the reference."""

import torch
from torch import Tensor

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
REF = torch.tensor([0.25, 0.09, 0.25, 0.25, 0.15, 0.01], dtype=torch.float64)
REWARD = torch.tensor([1.2, 3, -0.8, -0.2, -1.6, 6], dtype=torch.float64)
TRUE = torch.tensor([1.5, 4, -0.5, 0, -1.5, -3], dtype=torch.float64)


def exact_kl(p: Tensor, ref: Tensor) -> Tensor:
    return (p * reference.kl_estimates(p.log(), ref.log())[0]).sum()


def shares_of(ref: Tensor, worth: Tensor) -> Tensor:
    """Give the shares of comparisons; a pair is won with probability e^(-reward_loss)."""
    K = len(ref)
    won = [[torch.exp(-reference.reward_loss(worth[i, None], worth[j, None])) for j in range(K)] for i in range(K)]
    shares = torch.outer(ref, ref) * torch.tensor(won, dtype=ref.dtype)
    shares.fill_diagonal_(0)
    return shares / shares.sum()


def run(method, ref, reward, worth, beta, eps, rounds):
    """Train by automatic differentiation of the expected losses, with the figure's passes and rates."""
    logits, policies, shares = ref.log(), [ref.log().softmax(-1)], shares_of(ref, worth)
    for _ in range(rounds):
        old = logits.softmax(-1)
        shaped = reward - beta * (old.log() - ref.log())
        adv = shaped - (old * shaped).sum()
        for _ in range(4):
            logits = logits.detach().requires_grad_()
            logp = logits.log_softmax(-1)
            if method == "ppo":
                rho = (logp - old.log()).exp()
                loss = -(old * torch.minimum(rho * adv, rho.clamp(1 - eps, 1 + eps) * adv)).sum()
            else:
                gain = logp - ref.log()
                loss = -(shares * torch.nn.functional.logsigmoid(beta * (gain[:, None] - gain[None]))).sum()
            rate = 1 if method == "ppo" else 2 / beta**2
            logits = (logits - rate * torch.autograd.grad(loss, logits)[0]).detach()
        policies.append(logits.softmax(-1))
    return policies


def setting(rng):
    ref = (0.5 * rng.normal(5)).softmax(-1)
    return {"ref": ref, "reward": rng.normal(5), "worth": rng.normal(5), "beta": 0.7, "eps": 0.2}


@mirror("optimum")
def optimum(rng):
    ref, reward, beta = rng.normal(6).softmax(-1), 3 * rng.normal(6), float(rng.uniform(1)) + 0.1
    weighed = ref * torch.exp(reward / beta)
    return [ref, reward, beta], weighed / weighed.sum()


@mirror("kl")
def kl(rng):
    p, ref = rng.normal(2, 6).softmax(-1)
    return [p, ref], exact_kl(p, ref)


@mirror("advantages")
def advantages(rng):
    p, ref, reward = rng.normal(6).softmax(-1), rng.normal(6).softmax(-1), rng.normal(6)
    # each answer is a row of one token, which ends it
    shaped = reference.shaped_rewards(reward, p.log()[:, None], ref.log()[:, None], 0.3, torch.ones(6, 1) > 0)[:, 0]
    values = ((p * shaped).sum()).expand(6)
    return [p, ref, reward, 0.3], reference.gae(shaped, values, torch.ones(6) > 0, 1.0, 0.95, 0.0)[0]


@mirror("ppoGradient")
def ppo_gradient(rng):
    counts = rng.integers(1, 9, 6)
    drawn = torch.arange(6).repeat_interleave(counts)  # answers in proportion to the old policy
    old, adv = counts.double() / counts.sum(), rng.normal(6)
    logits = (old.log() + 0.3 * rng.normal(6)).requires_grad_()
    logp = logits.log_softmax(-1)[drawn]
    reference.ppo_clip_loss(logp, old.log()[drawn], adv[drawn], 0.2, torch.ones(len(drawn)) > 0).backward()
    return [logits.detach(), old, adv, 0.2], logits.grad


@mirror("comparisons")
def comparisons(rng):
    ref, worth = rng.normal(5).softmax(-1), rng.normal(5)
    return [ref, worth], shares_of(ref, worth)


@mirror("dpoGradient")
def dpo_gradient(rng):
    counts = rng.integers(0, 4, 5, 5)
    counts.fill_diagonal_(0)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5)).repeat_interleave(counts.flatten(), dim=0)
    chosen, rejected = pairs.T
    ref, logits = rng.normal(5).log_softmax(-1), rng.normal(5).requires_grad_()
    logp = logits.log_softmax(-1)
    reference.dpo_loss(logp[chosen], logp[rejected], ref[chosen], ref[rejected], 0.5).backward()
    return [logits.detach(), ref.exp(), counts.double() / counts.sum(), 0.5], logits.grad


@mirror("train")
def train_by_ppo(rng):
    given = setting(rng)
    return ["ppo", given, 6], run("ppo", rounds=6, **given)


@mirror("train")
def train_by_dpo(rng):
    given = setting(rng)
    return ["dpo", given, 6], run("dpo", rounds=6, **given)


def words(p, round_, best_truth, best_round, at_optimum):
    text = (
        f"In round {round_} the mean score is {(p * REWARD).sum():.2f}, the true worth {(p * TRUE).sum():.2f} and "
        f"the KL {exact_kl(p, REF):.2f} nats; the pile of links has probability {p[5]:.2f}. "
        f"The best true worth of the run is {best_truth:.2f}, in round {best_round}; "
        f"at the optimum it is {at_optimum:.2f}."
    )
    return text.replace("-", "−")


@shown(method="ppo", beta=3, round=40)
def a_long_leash_and_ppo():
    policies = run("ppo", REF, REWARD, TRUE, 0.2, 0.2, 40)
    truths = [float((p * TRUE).sum()) for p in policies]
    goal = (REF * torch.exp(REWARD / 0.2) / (REF * torch.exp(REWARD / 0.2)).sum() * TRUE).sum()
    return words(policies[40], 40, max(truths), truths.index(max(truths)), goal)


@shown(method="dpo", beta=2, round=10)
def dpo_does_not_find_the_pile():
    policies = run("dpo", REF, REWARD, TRUE, 0.5, 0.2, 40)
    truths = [float((p * TRUE).sum()) for p in policies]
    goal = (REF * torch.exp(TRUE / 0.5) / (REF * torch.exp(TRUE / 0.5)).sum() * TRUE).sum()
    return words(policies[10], 10, max(truths), truths.index(max(truths)), goal)
