"""The whole contract of chapter 16."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, driver, exact, exercise, holds, pure, roughly

NAN, INF = math.nan, math.inf


@driver
def gradients(module, name, tensors, options, wanted):
    """Call a function of tensors and give its value and the gradients of its sum by the wanted ones (None if none)."""
    leaves = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(tensors)]
    value = getattr(module, name)(*leaves, **options)
    value.sum().backward()
    return value.detach(), [leaves[i].grad for i in wanted]


# --- reward_loss ------------------------------------------------------------------------------------------------------


def pair_loss(z):
    """-log sigmoid(z) of one float."""
    return math.log1p(math.exp(-abs(z))) + max(-z, 0.0)


@exercise("reward_loss")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_reward_loss_is_the_mean_over_pairs(exercises, rng, kind):
    """The loss is the mean of -log sigmoid of the margins of victory."""
    chosen, rejected = rng.normal(7).to(kind), 2 * rng.normal(7).to(kind)
    for margin in (0.0, 0.7, -1.5):
        pairs = zip(chosen.tolist(), rejected.tolist(), strict=True)
        expected = torch.tensor(sum(pair_loss(c - r - margin) for c, r in pairs) / 7, dtype=kind)
        close(exercises.reward_loss(chosen, rejected, margin), expected, f"reward_loss of 7 pairs, margin {margin}")
    close(exercises.reward_loss(chosen, rejected), exercises.reward_loss(chosen, rejected, 0.0), "the default margin")


@exercise("reward_loss")
def test_each_pair_may_have_its_margin(exercises, rng):
    """A tensor of margins gives each pair its own."""
    chosen, rejected, margin = rng.normal(5), rng.normal(5), rng.uniform(5) * 3
    rows = zip(chosen.tolist(), rejected.tolist(), margin.tolist(), strict=True)
    expected = sum(pair_loss(c - r - m) for c, r, m in rows) / 5
    close(exercises.reward_loss(chosen, rejected, margin).item(), expected, "reward_loss with a margin for each pair")


@exercise("reward_loss")
def test_only_the_difference_counts(exercises, rng):
    """Equal rewards cost log 2, and a common constant changes nothing."""
    chosen, rejected = rng.normal(6), rng.normal(6)
    close(exercises.reward_loss(chosen, chosen.clone()).item(), math.log(2), "reward_loss of equal rewards")
    shifted = exercises.reward_loss(chosen + 30, rejected + 30)
    close(shifted, exercises.reward_loss(chosen, rejected), "reward_loss with 30 added to all rewards")


@exercise("reward_loss")
def test_swapping_a_pair_gives_the_other_probability(exercises, rng):
    """The two orders of a pair have probabilities that sum to one."""
    for c, r in rng.normal(4, 2, 1):
        here, there = exercises.reward_loss(c, r).item(), exercises.reward_loss(r, c).item()
        close(math.exp(-here) + math.exp(-there), 1.0, f"exp(-loss) of rewards {c.item():.2f}, {r.item():.2f}, swapped")


@exercise("reward_loss")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_hopeless_pairs_cost_their_distance(exercises, kind):
    """A pair that is wrong by 200 or 1000 costs just that."""
    for distance in (200.0, 1000.0):
        low, high = torch.zeros(2, dtype=kind), torch.full((2,), distance, dtype=kind)
        close(exercises.reward_loss(low, high), high[0], f"reward_loss of two pairs wrong by {distance}")
        roughly(exercises.reward_loss(high, low), low[0], 1e-12, f"reward_loss of two pairs right by {distance}")


@exercise("reward_loss")
def test_reward_gradient_is_the_doubt(exercises, rng):
    """Each reward is pushed by the probability of being wrong, over N."""
    chosen = torch.cat([rng.normal(3), torch.tensor([300.0, -300.0], dtype=torch.float64)])
    rejected = torch.cat([rng.normal(3), torch.zeros(2, dtype=torch.float64)])
    _, (g_chosen, g_rejected) = exercises.run(gradients, "reward_loss", [chosen, rejected], {"margin": 0.4}, [0, 1])
    doubt = torch.sigmoid(-(chosen - rejected - 0.4)) / 5
    close(g_chosen, -doubt, "the gradient by r_chosen, with pairs that are right and wrong by 300")
    close(g_rejected, doubt, "the gradient by r_rejected")


@driver
def fit_utility(module, chosen, rejected, steps):
    """Fit weights of a linear reward by the student's loss."""
    import torch

    w = torch.zeros(chosen.shape[1], dtype=chosen.dtype, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        module.reward_loss(chosen @ w, rejected @ w).backward()
        optimizer.step()
    return w.detach()


@exercise("reward_loss")
def test_planted_utility_is_recovered(exercises, rng):
    """From 5000 noisy comparisons the loss finds the planted utility."""
    w = torch.tensor([1.0, -0.5, 2.0, 0.0, -1.5, 0.7], dtype=torch.float64)
    x = rng.normal(5000, 2, 6)
    first_wins = rng.uniform(5000) < torch.sigmoid((x[:, 0] - x[:, 1]) @ w)  # Bradley and Terry's coin
    chosen = torch.where(first_wins[:, None], x[:, 0], x[:, 1])
    rejected = torch.where(first_wins[:, None], x[:, 1], x[:, 0])
    got = exercises.run(fit_utility, chosen, rejected, 120)
    cosine = F.cosine_similarity(got, w, dim=0).item()
    holds(cosine > 0.98, f"the fitted weights have cosine {cosine:.3f} with the planted ones")
    ratio = (got.norm() / w.norm()).item()  # its standard error is about 0.03
    holds(0.8 < ratio < 1.25, f"the fitted weights are {ratio:.2f} times as long as the planted ones")


@exercise("reward_loss")
def test_last_token_reward_reads_one_number_a_row(exercises, rng):
    """The reward is read at the last real token of each row."""
    values, lengths = rng.normal(5, 7), [1, 7, 3, 6, 2]
    expected = torch.tensor([values[b, n - 1].item() for b, n in enumerate(lengths)], dtype=torch.float64)
    close(exercises.last_token_reward(values, torch.tensor(lengths)), expected, f"lengths {lengths}")
    close(exercises.last_token_reward(values, lengths), expected, f"lengths {lengths} as a list")
    close(exercises.last_token_reward(values.float(), lengths), expected.float(), "float32 values")


@exercise("reward_loss")
def test_padding_says_nothing(exercises, rng):
    """Whatever stands in the padding, the rewards are the same."""
    values, lengths = rng.normal(4, 6), [6, 1, 4, 2]
    expected = exercises.last_token_reward(values, lengths)
    for filling in (0.0, NAN, INF, 7.0):
        padded = values.clone()
        for b, n in enumerate(lengths):
            padded[b, n:] = filling
        close(pure(exercises.last_token_reward, padded, lengths), expected, f"rewards with padding of {filling}")


@exercise("reward_loss")
@pytest.mark.parametrize("lengths", [[2, 0], [2, 5], [-1, 3]])
def test_impossible_lengths_are_refused(exercises, lengths):
    """A length below 1 or above T raises ValueError."""
    with pytest.raises(ValueError):
        exercises.last_token_reward(torch.zeros(2, 4), lengths)


@exercise("reward_loss")
def test_last_token_gradient_is_one_entry(exercises, rng):
    """Gradients reach exactly the entries that were read."""
    lengths = torch.tensor([3, 1, 4])
    _, (g,) = exercises.run(gradients, "last_token_reward", [rng.normal(3, 5)], {"lengths": lengths}, [0])
    exact(g, F.one_hot(lengths - 1, 5).double(), "the gradient of the summed rewards by values")
    pure(exercises.reward_loss, rng.normal(3), rng.normal(3), 0.5)


# --- kl_estimates -----------------------------------------------------------------------------------------------------


@exercise("kl_estimates")
def test_estimates_average_to_the_kl(exercises, rng):
    """Weighted by the policy, k1 and k3 average to KL(policy || ref)."""
    logp, ref = rng.normal(3, 9).log_softmax(-1), rng.normal(3, 9).log_softmax(-1)
    k1, k2, k3 = exercises.kl_estimates(logp, ref)
    kl = F.kl_div(ref, logp, reduction="none", log_target=True).sum(-1)  # torch's order: target second
    close((logp.exp() * k1).sum(-1), kl, "k1 averaged over all tokens with the policy's probabilities")
    close((logp.exp() * k3).sum(-1), kl, "k3 averaged over all tokens with the policy's probabilities")
    gap = ((logp.exp() * k2).sum(-1) - kl).abs()
    holds((gap > 1e-3).all(), "k2 averages to the KL exactly, but it is a biased estimate")


@exercise("kl_estimates")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_estimates_follow_their_formulas(exercises, rng, kind):
    """The three estimates are functions of the log-ratio alone."""
    logp, ref = -rng.uniform(2, 3, 5) * 4, -rng.uniform(2, 3, 5) * 4
    ratio = (ref - logp).exp()
    expected = [-ratio.log(), ratio.log() ** 2 / 2, ratio - 1 - ratio.log()]
    got = exercises.kl_estimates(logp.to(kind), ref.to(kind))
    exact(len(got), 3, "the number of estimates")
    for name, one, other in zip(("k1", "k2", "k3"), got, expected, strict=True):
        exact((one.shape, one.dtype), (other.shape, kind), f"shape and dtype of {name}")
        # float32: the log-ratios are rounded to 1e-7 and magnified by ratios of up to e^4 = 55
        roughly(one.double(), other, 1e-9 if kind == torch.float64 else 1e-4, f"{name} of (2, 3, 5) tokens")


@exercise("kl_estimates")
def test_equal_policies_have_no_distance(exercises, rng):
    """Equal policies give zeros, and only k1 is ever negative."""
    logp = -rng.uniform(4, 6)
    for name, k in zip(("k1", "k2", "k3"), exercises.kl_estimates(logp, logp.clone()), strict=True):
        roughly(k, torch.zeros(4, 6, dtype=torch.float64), 1e-12, f"{name} of equal policies")
    k1, k2, k3 = pure(exercises.kl_estimates, logp, -rng.uniform(4, 6) * 3)
    holds(bool((k1 < 0).any() and (k1 > 0).any()), "k1 has one sign only, but log-ratios have both")
    holds(bool((k2 >= 0).all() and (k3 >= 0).all()), "k2 or k3 is negative")


def shaped_by_loops(score, logp, logp_ref, beta, mask):
    """Follow the sentence, token by token."""
    rewards = torch.zeros(logp.shape, dtype=logp.dtype)
    for b in range(len(logp)):
        response = [t for t in range(logp.shape[1]) if mask[b, t]]
        for t in response:
            rewards[b, t] = -beta * (logp[b, t] - logp_ref[b, t])
        if response:
            rewards[b, response[-1]] += score[b]
    return rewards


MASKS = torch.tensor(
    [
        [0, 0, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0, 0],
    ]
).bool()


@exercise("kl_estimates")
@pytest.mark.parametrize("beta", [0.3, 2.0, 0.0])
def test_rewards_are_shaped_token_by_token(exercises, rng, beta):
    """The penalty is on each response token, the score on the last."""
    score, logp, ref = 3 * rng.normal(5), -rng.uniform(5, 7) * 3, -rng.uniform(5, 7) * 3
    expected = shaped_by_loops(score, logp, ref, beta, MASKS)
    close(pure(exercises.shaped_rewards, score, logp, ref, beta, MASKS), expected, f"shaped_rewards with beta {beta}")
    got = exercises.shaped_rewards(score.float(), logp.float(), ref.float(), beta, MASKS)
    close(got, expected.float(), f"shaped_rewards in float32, beta {beta}")


@exercise("kl_estimates")
def test_score_is_added_once(exercises, rng):
    """With equal policies each row holds its score and nothing else."""
    score, logp = 1 + rng.uniform(5), -rng.uniform(5, 7)
    got = exercises.shaped_rewards(score, logp, logp.clone(), 0.7, MASKS)
    close(got.sum(1), score, "the rewards of each row, summed, when policy and reference agree")
    exact((got != 0).sum(1).tolist(), [1] * 5, "the number of rewards in each row, when policy and reference agree")


@exercise("kl_estimates")
def test_row_without_response_earns_nothing(exercises, rng):
    """A row without any response token is all zeros."""
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]]).bool()
    score, logp, ref = 2 + rng.uniform(2), -rng.uniform(2, 3), -rng.uniform(2, 3)
    got = exercises.shaped_rewards(score, logp, ref, 0.5, mask)
    close(got, shaped_by_loops(score, logp, ref, 0.5, mask), "a batch with one row that has no response")


@exercise("kl_estimates")
def test_prompt_and_padding_pay_no_kl(exercises, rng):
    """What stands outside the mask has no influence, infinite or NaN."""
    score, logp, ref = rng.normal(5), -rng.uniform(5, 7), -rng.uniform(5, 7)
    expected = exercises.shaped_rewards(score, logp, ref, 0.4, MASKS)
    for one, other in ((-9.0, 0.0), (-INF, -INF), (NAN, 0.0), (0.0, -INF)):
        got = exercises.shaped_rewards(score, logp.where(MASKS, one), ref.where(MASKS, other), 0.4, MASKS)
        close(got, expected, f"shaped_rewards with logp {one} and logp_ref {other} outside the mask")


# --- gae --------------------------------------------------------------------------------------------------------------


def gae_by_definition(rewards, values, terminated, gamma, lam, last_value, mask=None):
    """Sum discounted TD errors up to the end of each episode, for each step anew."""
    n = len(rewards)
    kept = [t for t in range(n) if mask is None or mask[t]]
    advantages = torch.zeros(n, dtype=rewards.dtype)
    for i, t in enumerate(kept):
        total, factor = 0.0, 1.0
        for j in range(i, len(kept)):
            s = kept[j]
            after = 0.0 if terminated[s] else float(values[kept[j + 1]]) if j + 1 < len(kept) else last_value
            total += factor * (float(rewards[s]) + gamma * after - float(values[s]))
            factor *= gamma * lam
            if terminated[s]:
                break
        advantages[t] = total
    counts = torch.ones(n).bool() if mask is None else mask
    return advantages, torch.where(counts, advantages + values, 0.0)


NO_END = torch.zeros(8).bool()
ENDS = torch.tensor([0, 0, 1, 0, 1, 1, 0, 0]).bool()


@exercise("gae")
@pytest.mark.parametrize("ends", [NO_END, ENDS, ~NO_END, ENDS.flip(0)], ids=["none", "some", "all", "others"])
def test_gae_follows_the_definition(exercises, rng, ends):
    """Advantages are discounted sums of TD errors up to the episode's end."""
    r, V = rng.normal(8), rng.normal(8)
    for gamma, lam, last in ((0.9, 0.8, 3.0), (1.0, 0.95, -2.0), (0.5, 1.0, 4.0)):
        got = exercises.gae(r, V, ends, gamma, lam, last)
        expected = gae_by_definition(r, V, ends, gamma, lam, last)
        what = f"gae(gamma={gamma}, lam={lam}, last_value={last}), ends {ends.int().tolist()}"
        close(got[0], expected[0], f"the advantages of {what}")
        close(got[1], expected[1], f"the returns of {what}")


@exercise("gae")
def test_lambda_zero_is_one_step(exercises, rng):
    """With lambda 0 the advantage is the TD error."""
    r, V = rng.normal(6), rng.normal(6)
    after = torch.cat([V[1:], torch.tensor([2.5], dtype=torch.float64)])
    got, _ = exercises.gae(r, V, torch.zeros(6).bool(), 0.9, 0.0, 2.5)
    close(got, r + 0.9 * after - V, "the advantages with lam = 0")


@exercise("gae")
def test_lambda_one_is_the_whole_return(exercises, rng):
    """With lambda and gamma 1 the returns are what was really earned."""
    r, V = rng.normal(6), rng.normal(6)
    ends = torch.tensor([0, 0, 0, 0, 0, 1]).bool()
    earned = r.flip(0).cumsum(0).flip(0)
    advantages, returns = exercises.gae(r, V, ends, 1.0, 1.0, 50.0)
    close(returns, earned, "the returns with gamma = lam = 1 of an episode that ends")
    close(advantages, earned - V, "the advantages with gamma = lam = 1")
    _, cut = exercises.gae(r, V, torch.zeros(6).bool(), 1.0, 1.0, 50.0)
    close(cut, earned + 50, "the returns of an episode that is cut off, with last_value 50")


@exercise("gae")
def test_nothing_flows_over_an_end(exercises, rng):
    """What follows a termination changes nothing before it."""
    r, V = rng.normal(8), rng.normal(8)
    before = exercises.gae(r, V, ENDS, 0.9, 0.7, 1.0)
    r[3:], V[3:] = rng.normal(5) * 9, rng.normal(5) * 9
    after = exercises.gae(r, V, ENDS, 0.9, 0.7, -40.0)
    close(after[0][:3], before[0][:3], "the advantages up to the end at step 2, when all after it is changed")
    close(after[1][:3], before[1][:3], "the returns up to the end at step 2, when all after it is changed")


@exercise("gae")
def test_one_step_and_last_value(exercises):
    """A last step that is cut off counts on last_value; an end does not."""
    r, V = torch.tensor([2.0], dtype=torch.float64), torch.tensor([0.5], dtype=torch.float64)
    cut, over = (exercises.gae(r, V, torch.tensor([end]), 0.9, 0.8, 10.0) for end in (False, True))
    close([x.item() for x in cut], [2 + 9 - 0.5, 11.0], "one step that is cut off, last_value 10, gamma 0.9")
    close([x.item() for x in over], [1.5, 2.0], "one step that ends the episode")


@exercise("gae", weight=2)
@pytest.mark.parametrize(
    "keep", [[1, 0, 1, 1, 0, 0, 1, 1], [0, 1, 1, 1, 1, 0, 1, 0], [0] * 8, [0, 0, 1, 0, 0, 0, 0, 0]]
)
def test_masked_steps_are_transparent(exercises, rng, keep):
    """Masked steps get zeros, and the others are as if they were gone."""
    mask = torch.tensor(keep).bool()
    r, V = rng.normal(8), rng.normal(8)
    for ends in (NO_END, ENDS):
        got = exercises.gae(r, V, ends, 0.9, 0.8, 2.0, mask)
        expected = gae_by_definition(r, V, ends, 0.9, 0.8, 2.0, mask)
        what = f"with mask {keep}, ends {ends.int().tolist()}"
        close(got[0], expected[0], f"the advantages {what}")
        close(got[1], expected[1], f"the returns {what}")


@exercise("gae")
def test_gae_keeps_dtype_and_inputs(exercises, rng):
    """Results have the rewards' dtype, and the inputs stay as they are."""
    r, V = rng.normal(8), rng.normal(8)
    got = exercises.gae(r.float(), V.float(), ENDS, 0.9, 0.8, 2.0, mask=torch.ones(8).bool())
    expected = gae_by_definition(r, V, ENDS, 0.9, 0.8, 2.0)
    close(got[0], expected[0].float(), "the advantages of float32 rewards")
    close(got[1], expected[1].float(), "the returns of float32 rewards")
    pure(exercises.gae, r, V, ENDS, 0.9, 0.8, 2.0, mask=ENDS)


# --- ppo_clip_loss ----------------------------------------------------------------------------------------------------

TABLE = [(rho, A) for A in (2.0, -3.0) for rho in (0.5, 0.9, 1.0, 1.1, 1.6)]  # below, inside and above 1 +- 0.2


def clipped(rho, A, eps):
    """The clipped objective of one token."""
    return min(rho * A, min(max(rho, 1 - eps), 1 + eps) * A)


@exercise("ppo_clip_loss")
def test_clip_table_token_by_token(exercises):
    """Each combination of ratio and sign gives its own value."""
    on = torch.tensor([True])
    for rho, A in TABLE:
        logp, old, adv = (torch.tensor([x], dtype=torch.float64) for x in (math.log(rho) - 1.5, -1.5, A))
        got = exercises.ppo_clip_loss(logp, old, adv, 0.2, on)
        close(got.item(), -clipped(rho, A, 0.2), f"ppo_clip_loss of one token with ratio {rho}, advantage {A}, eps 0.2")


@exercise("ppo_clip_loss")
@pytest.mark.parametrize("eps", [0.1, 0.3])
def test_clip_loss_is_a_mean_over_tokens(exercises, rng, eps):
    """All response tokens weigh the same, in short and long answers."""
    logp, old, A = -rng.uniform(5, 7), -rng.uniform(5, 7), rng.normal(5, 7) + 0.5
    terms = [clipped(math.exp(logp[i] - old[i]), A[i].item(), eps) for i in zip(*MASKS.nonzero().T, strict=True)]
    expected = torch.tensor(-sum(terms) / len(terms), dtype=torch.float64)
    close(pure(exercises.ppo_clip_loss, logp, old, A, eps, MASKS), expected, f"ppo_clip_loss of (5, 7), eps {eps}")
    flat = [x[MASKS].float() for x in (logp, old, A)]
    got = exercises.ppo_clip_loss(*flat, eps, torch.ones(len(terms)).bool())
    close(got, expected.float(), "ppo_clip_loss of the same tokens in one row of float32")


@exercise("ppo_clip_loss")
def test_gradient_ends_exactly_where_it_is_clipped(exercises):
    """A token's gradient is zero if it has gone too far the good way."""
    n = len(TABLE)
    rho, A = (torch.tensor(column, dtype=torch.float64) for column in zip(*TABLE, strict=True))
    _, (g,) = exercises.run(gradients, "ppo_clip_loss", [rho.log()], constant(torch.zeros(n).double(), A, 0.2), [0])
    stopped = ((A > 0) & (rho > 1.2)) | ((A < 0) & (rho < 0.8))
    close(g, torch.where(stopped, 0.0, -rho * A / n), f"the gradient for ratios and advantages {TABLE}")


def constant(old_logp, adv, eps, mask=None):
    """Options of ppo_clip_loss."""
    return {"old_logp": old_logp, "adv": adv, "eps": eps, "mask": torch.ones_like(adv).bool() if mask is None else mask}


@exercise("ppo_clip_loss")
def test_first_step_is_the_policy_gradient(exercises, rng):
    """At ratio 1 the gradient is minus the advantage over the tokens."""
    logp, A = -rng.uniform(5, 7), rng.normal(5, 7)
    value, (g,) = exercises.run(gradients, "ppo_clip_loss", [logp], constant(logp.clone(), A, 0.2, MASKS), [0])
    count = MASKS.sum()
    close(g, torch.where(MASKS, -A / count, 0.0), "the gradient by logp when both policies are equal")
    close(value, -A[MASKS].mean(), "the loss when both policies are equal")
    shifted, (g,) = exercises.run(gradients, "ppo_clip_loss", [logp], constant(logp.clone(), A + 2, 0.2, MASKS), [0])
    close(shifted, -A[MASKS].mean() - 2, "the loss with 2 added to every advantage")
    close(g, torch.where(MASKS, -(A + 2) / count, 0.0), "the gradient with 2 added to every advantage")


@exercise("ppo_clip_loss")
def test_gradients_reach_the_new_policy_alone(exercises, rng):
    """Old log-probabilities and advantages get no gradient."""
    logp, old, A = -rng.uniform(6), -rng.uniform(6), rng.normal(6)
    options = {"eps": 0.4, "mask": torch.ones(6).bool()}
    _, (g, g_old, g_adv) = exercises.run(gradients, "ppo_clip_loss", [logp, old, A], options, [0, 1, 2])
    holds(bool((g != 0).any()), "no gradient reaches logp")
    for name, other in (("old_logp", g_old), ("adv", g_adv)):
        holds(other is None or not other.any(), f"a gradient reaches {name}")


@exercise("ppo_clip_loss", weight=2)
def test_masked_tokens_are_inert(exercises, rng):
    """Infinite or NaN padding changes neither loss nor gradient."""
    logp, old, A = -rng.uniform(5, 7), -rng.uniform(5, 7), rng.normal(5, 7)
    value, (g,) = exercises.run(gradients, "ppo_clip_loss", [logp], constant(old, A, 0.2, MASKS), [0])
    for a, b, c in ((3.0, -3.0, 50.0), (-INF, -INF, 0.0), (NAN, 0.0, 1.0), (0.0, -INF, INF), (0.0, 0.0, NAN)):
        filled = [x.where(MASKS, filling) for x, filling in ((logp, a), (old, b), (A, c))]
        got, (h,) = exercises.run(gradients, "ppo_clip_loss", filled[:1], constant(*filled[1:], 0.2, MASKS), [0])
        what = f"with logp {a}, old_logp {b} and adv {c} outside the mask"
        close(got, value, f"ppo_clip_loss {what}")
        close(h, g, f"its gradient {what}")


@exercise("ppo_clip_loss")
@pytest.mark.parametrize("name", ["ppo_clip_loss", "value_clip_loss"])
def test_no_token_no_loss(exercises, rng, name):
    """Without any token that counts, loss and gradient are zero."""
    x, y, z, nothing = rng.normal(3, 4), rng.normal(3, 4), rng.normal(3, 4), torch.zeros(3, 4).bool()
    value, (g,) = exercises.run(no_token, name, x, y, z, nothing)
    exact(value, torch.zeros((), dtype=torch.float64), f"{name} with an empty mask")
    exact(g, torch.zeros(3, 4, dtype=torch.float64), f"the gradient of {name} with an empty mask")


@driver
def no_token(module, name, x, y, z, mask):
    """Value and gradient of a loss; a loss that hangs on nothing has the gradient zero."""
    import torch

    leaf = x.clone().requires_grad_()
    value = getattr(module, name)(leaf, y, z, 0.2, mask)
    if isinstance(value, torch.Tensor) and value.requires_grad:
        value.backward()
    gradient = torch.zeros_like(x) if leaf.grad is None else leaf.grad
    return torch.as_tensor(value, dtype=x.dtype).detach(), [gradient]


@exercise("ppo_clip_loss")
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_far_policies_stay_finite(exercises, kind):
    """Log-ratios of 20 either way give finite values and gradients."""
    logp = torch.tensor([-1.0, -1.0, -21.0, -21.0], dtype=kind)
    old = torch.tensor([-21.0, -21.0, -1.0, -1.0], dtype=kind)
    A = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=kind)
    value, (g,) = exercises.run(gradients, "ppo_clip_loss", [logp], constant(old, A, 0.2), [0])
    far = math.exp(20.0)
    roughly(value.double() / far, torch.tensor((-1.2 / far + 1 - 1 / far**2 + 0.8 / far) / 4).double(), 1e-5, "loss")
    roughly(g.double() / far, torch.tensor([0, 0.25, -0.25 / far**2, 0]).double(), 1e-5, "the gradient over e^20")


def value_terms(V, old, R, eps):
    """The larger of the two squared errors, of floats."""
    near = old + min(max(V - old, -eps), eps)
    return max((V - R) ** 2, (near - R) ** 2)


@exercise("ppo_clip_loss")
@pytest.mark.parametrize("eps", [0.2, 1.0])
def test_value_loss_takes_the_worse_error(exercises, rng, eps):
    """Half the mean of the larger squared error, over the tokens."""
    V, old, R = rng.normal(5, 7), rng.normal(5, 7), 2 * rng.normal(5, 7)
    terms = [value_terms(V[i].item(), old[i].item(), R[i].item(), eps) for i in zip(*MASKS.nonzero().T, strict=True)]
    expected = torch.tensor(sum(terms) / len(terms) / 2, dtype=torch.float64)
    close(pure(exercises.value_clip_loss, V, old, R, eps, MASKS), expected, f"value_clip_loss of (5, 7), eps {eps}")
    flat = [x[MASKS].float() for x in (V, old, R)]
    got = exercises.value_clip_loss(*flat, eps, torch.ones(len(terms)).bool())
    close(got, expected.float(), "value_clip_loss of the same tokens in one row of float32")


@exercise("ppo_clip_loss")
def test_value_gradient_ends_beyond_the_clip(exercises):
    """A value that has moved far enough towards its return rests."""
    V = torch.tensor([0.1, 0.9, -0.9, 3.0], dtype=torch.float64)
    old, R = torch.zeros_like(V), torch.full_like(V, 2.0)
    options = {"eps": 0.5, "mask": torch.ones(4).bool()}
    _, (g, g_old, g_R) = exercises.run(gradients, "value_clip_loss", [V, old, R], options, [0, 1, 2])
    # 0.1 is inside; 0.9 has moved beyond 0.5, where the kept value is worse; -0.9 is worse itself;
    # 3.0 has shot over the return, but 0.5 is still farther from it
    close(
        g, torch.tensor([-1.9, 0.0, -2.9, 0.0], dtype=torch.float64) / 4, "the gradient by values 0.1, 0.9, -0.9 and 3"
    )
    holds(all(x is None or not x.any() for x in (g_old, g_R)), "a gradient reaches old_values or returns")


@exercise("ppo_clip_loss")
def test_masked_values_are_inert(exercises, rng):
    """Infinite or NaN padding does not touch the value loss either."""
    V, old, R = rng.normal(5, 7), rng.normal(5, 7), rng.normal(5, 7)
    value, (g,) = exercises.run(gradients, "value_clip_loss", [V], values_with(old, R), [0])
    for a, b, c in ((3.0, -3.0, 50.0), (NAN, 0.0, 1.0), (INF, INF, INF), (0.0, 0.0, NAN)):
        filled = [x.where(MASKS, filling) for x, filling in ((V, a), (old, b), (R, c))]
        got, (h,) = exercises.run(gradients, "value_clip_loss", filled[:1], values_with(*filled[1:]), [0])
        close(got, value, f"value_clip_loss with {a}, {b} and {c} outside the mask")
        close(h, g, f"its gradient with {a}, {b} and {c} outside the mask")


def values_with(old, returns):
    """Options of value_clip_loss."""
    return {"old_values": old, "returns": returns, "eps": 0.3, "mask": MASKS}


# --- ppo_toy ----------------------------------------------------------------------------------------------------------


def every_answer(V, T):
    """All answers (V^T, T), and the rows of the table that choose their words."""
    answers = torch.tensor(list(itertools.product(range(V), repeat=T)))
    rows = torch.zeros_like(answers)
    for t in range(1, T):
        rows[:, t] = rows[:, t - 1] * V + 1 + answers[:, t - 1]
    return answers, rows


def log_table(logits, T):
    """Log-probability of every answer, flat."""
    answers, rows = every_answer(logits.shape[1], T)
    return logits.log_softmax(-1)[rows, answers].sum(1)


def averages(env, logits):
    """Proxy, truth and KL of a policy, counted out."""
    T = env["reward"].dim()
    logp = log_table(logits, T)
    terms = {"proxy": env["reward"].flatten(), "true": env["true"].flatten(), "kl": logp - log_table(env["ref"], T)}
    return {name: (logp.exp() * x).sum().item() for name, x in terms.items()}


def random_env(rng, V, T, beta, spread=1.5):
    """A reference and two unrelated tables."""
    S = (V**T - 1) // (V - 1)
    table = lambda: spread * rng.normal(*[V] * T)  # noqa: E731
    return {"ref": 0.7 * rng.normal(S, V), "reward": table(), "true": table(), "beta": beta}


LOOPHOLE = 2


def loophole_env(rng, beta):
    """Words 0, 1 and 2: word 2 is the best once and a disgrace more often, but the proxy just counts."""
    answers, _ = every_answer(4, 3)
    worth = torch.tensor([1.0, 0.0, 2.0, -1.0], dtype=torch.float64)
    proxy = worth[answers].sum(1)
    true = torch.where((answers == LOOPHOLE).sum(1) > 1, -3.0, proxy)
    ref = torch.tensor([0.4, 0.25, 0.1, 0.25], dtype=torch.float64).log() + 0.2 * rng.normal(21, 4)
    return {"ref": ref, "reward": proxy.view(4, 4, 4), "true": true.view(4, 4, 4), "beta": beta}


def share_of_way(env, history):
    """How far the goal has come from its start, the reference's proxy, to its maximum, known in closed form."""
    beta, T = env["beta"], env["reward"].dim()
    best = beta * (log_table(env["ref"], T) + env["reward"].flatten() / beta).logsumexp(0).item()
    start, end = averages(env, env["ref"]), averages(env, history["policy"])
    return (end["proxy"] - beta * end["kl"] - start["proxy"]) / (best - start["proxy"])


@exercise("ppo_toy", weight=3)
@pytest.mark.parametrize(("V", "T", "beta"), [(4, 3, 0.5), (5, 2, 1.0), (3, 4, 0.7), (4, 3, 1.0)])
def test_policy_comes_near_the_known_optimum(exercises, rng, V, T, beta):
    """Eighty rounds make nine tenths of the way to the known maximum."""
    env = random_env(rng, V, T, beta)
    share = share_of_way(env, exercises.ppo_toy(env, 80, 5))
    holds(share > 0.9, f"the goal made {share:.2f} of the way to its maximum, V={V}, T={T}, beta={beta}")
    holds(share < 1 + 1e-9, f"the goal made {share:.2f} of the way to its maximum: more than is possible")


@exercise("ppo_toy")
def test_curve_is_that_of_the_policy(exercises, rng):
    """The curve begins at the reference and ends at the policy given."""
    env = random_env(rng, 5, 2, 0.6)
    history = exercises.ppo_toy(env, 12, 3)
    exact(sorted(history), ["kl", "policy", "proxy", "true"], "the names in the history")
    first, last = averages(env, env["ref"]), averages(env, history["policy"])
    for name in ("proxy", "true", "kl"):
        exact(len(history[name]), 13, f"the number of entries of history[{name!r}] for 12 rounds")
        holds(all(type(x) is float for x in history[name]), f"history[{name!r}] holds other things than floats")
        roughly(history[name][0], first[name], 1e-9, f"history[{name!r}][0], of the reference itself")
        roughly(history[name][-1], last[name], 1e-9, f"history[{name!r}][-1], of the policy that came back")
    holds(last["kl"] > 1e-3, f"after 12 rounds the policy is still the reference: KL {last['kl']:.5f}")


@exercise("ppo_toy")
def test_no_rounds_leave_the_reference(exercises, rng):
    """With no rounds the policy is the reference, and env is kept."""
    env = random_env(rng, 3, 3, 0.5)
    history = pure(exercises.ppo_toy, env, 0, 1)
    exact(len(history["proxy"]), 1, "the number of entries for no rounds")
    roughly(averages(env, history["policy"])["kl"], 0.0, 1e-12, "the KL of the policy after no rounds")
    pure(exercises.ppo_toy, env, 2, 1)


@exercise("ppo_toy")
def test_leash_holds_in_proportion(exercises, rng):
    """The larger beta, the nearer the policy and the rarer the loophole."""
    answers, _ = every_answer(4, 3)
    uses = (answers == LOOPHOLE).double().mean(1)
    env, kl, share = loophole_env(rng, 0.0), [], []
    for beta in (0.5, 1.0, 2.0, 50.0):
        policy = exercises.ppo_toy({**env, "beta": beta}, 60, 2)["policy"]
        kl.append(averages(env, policy)["kl"])
        share.append((log_table(policy, 3).exp() * uses).sum().item())
    holds(kl == sorted(kl, reverse=True), f"KL to the reference for beta 0.5, 1, 2, 50: {kl}")
    holds(share == sorted(share, reverse=True), f"share of the loophole word for beta 0.5, 1, 2, 50: {share}")
    holds(kl[0] > 1 and kl[3] < 0.1, f"KL with beta 0.5 is {kl[0]:.3f}, with beta 50 it is {kl[3]:.3f}")


@exercise("ppo_toy", weight=2)
@pytest.mark.parametrize("beta", [0.5, 0.25])
def test_over_optimisation_happens(exercises, rng, beta):
    """On a loose leash the truth rises, then falls as the proxy rises."""
    env = loophole_env(rng, beta)
    history = exercises.ppo_toy(env, 80, 7)
    proxy, true = history["proxy"], history["true"]
    top = max(range(81), key=true.__getitem__)
    holds(true[top] > true[0] + 0.5, f"the true utility never rose: {true[0]:.2f} at first, {true[top]:.2f} at best")
    holds(
        true[-1] < min(true[0], true[top] - 1.5),
        f"the true utility did not fall again: {true[top]:.2f} to {true[-1]:.2f}",
    )
    holds(proxy[-1] > proxy[top] + 0.5, f"the proxy did not go on rising: {proxy[top]:.2f} to {proxy[-1]:.2f}")
    roughly(proxy[-1], averages(env, history["policy"])["proxy"], 1e-9, "the proxy at the end, by the given table")


@exercise("ppo_toy")
def test_leash_keeps_the_gain(exercises, rng):
    """With beta 2 the true utility ends clearly above its start."""
    history = exercises.ppo_toy(loophole_env(rng, 2.0), 80, 3)
    true = history["true"]
    holds(true[-1] > true[0] + 0.3, f"the true utility went from {true[0]:.2f} to {true[-1]:.2f}")


@driver
def disturbed(module, env, steps, seed, disturbance):
    """Run after disturbing torch's global generator."""
    import torch

    torch.manual_seed(disturbance)
    return module.ppo_toy(env, steps, seed)


@exercise("ppo_toy")
def test_arguments_alone_decide_the_run(exercises, rng):
    """The same seed gives the same run; the truth is never looked at."""
    env = random_env(rng, 4, 2, 0.5)
    one, two = (exercises.run(disturbed, env, 4, 9, disturbance) for disturbance in (1, 2))
    exact([two[name] for name in ("proxy", "true", "kl")], [one[name] for name in ("proxy", "true", "kl")], "two runs")
    other = exercises.run(disturbed, env, 4, 10, 1)
    holds(other["proxy"] != one["proxy"], "another seed gives the very same run")
    blind = exercises.run(disturbed, {**env, "true": -env["true"]}, 4, 9, 1)
    exact(blind["policy"], one["policy"], "the policy when the true utility is another one")
    roughly(blind["true"], [-x for x in one["true"]], 1e-9, "the measured truth when its table is negated")


# --- dpo_loss ---------------------------------------------------------------------------------------------------------


def labelled(rng, B, T, V):
    """Ids, and labels of which some are -100 and one row has none."""
    ids, labels = rng.integers(0, V, B, T), rng.integers(0, V, B, T)
    labels[rng.uniform(B, T) < 0.4] = -100
    labels[1] = -100
    labels[0, 0], labels[2, T - 1] = 0, 0
    return ids, labels


@exercise("dpo_loss")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_sequence_logprob_sums_the_labelled_tokens(exercises, rng, kind):
    """Each row sums log p of its labels, and -100 contributes nothing."""
    ids, labels = labelled(rng, 4, 6, 5)
    logits = 2 * rng.normal(4, 6, 5)
    p = logits.softmax(-1)
    expected = [sum(math.log(p[b, t, labels[b, t]]) for t in range(6) if labels[b, t] >= 0) for b in range(4)]
    got = exercises.sequence_logprob(lambda _: logits.to(kind), ids, labels)
    close(got, torch.tensor(expected, dtype=kind), f"sequence_logprob with labels {labels.tolist()}")


@exercise("dpo_loss")
def test_model_is_called_once_on_the_ids(exercises, rng):
    """The model sees the ids once, just as they are."""
    table = rng.normal(7, 7)
    ids, labels = labelled(rng, 3, 5, 7)
    model = counting(lambda x: table[x])
    got = exercises.sequence_logprob(model, ids, labels)
    exact(model.calls, 1, "the number of calls of the model")
    exact(model.arguments[0][0], ids, "the ids that the model was given")
    losses = F.cross_entropy(table[ids].transpose(1, 2), labels, ignore_index=-100, reduction="none")
    close(got, -losses.sum(1), "sequence_logprob of a bigram model, against torch's cross_entropy")
    pure(exercises.sequence_logprob, lambda x: table[x], ids, labels)


@exercise("dpo_loss")
def test_prompt_and_length_do_not_matter(exercises, rng):
    """Unlabelled positions are free; twice the tokens, twice the sum."""
    logits = rng.normal(1, 6, 5)
    ids, labels = rng.integers(0, 5, 1, 6), torch.tensor([[-100, -100, 3, 0, 4, -100]])
    before = exercises.sequence_logprob(lambda _: logits, ids, labels)
    changed = torch.where((labels == -100)[..., None], rng.normal(1, 6, 5) * 9, logits)
    close(exercises.sequence_logprob(lambda _: changed, ids, labels), before, "other logits at unlabelled positions")
    double = [torch.cat([x, x], 1) for x in (logits, ids, labels)]
    close(exercises.sequence_logprob(lambda _: double[0], *double[1:]), 2 * before, "the same tokens twice in a row")


@exercise("dpo_loss")
def test_extreme_logits_give_finite_logprobs(exercises):
    """Logits of +-1000 give log-probabilities of -2000, not -infinity."""
    logits = torch.tensor([[[1000.0, -1000.0], [-1000.0, 1000.0]]])
    got = exercises.sequence_logprob(lambda _: logits, torch.tensor([[0, 1]]), torch.tensor([[1, 1]]))
    close(got, torch.tensor([-2000.0]), "sequence_logprob with logits of +-1000")


@driver
def logit_gradient(module, logits, ids, labels, g):
    """The gradient of the weighted log-probabilities by the logits."""
    leaf = logits.clone().requires_grad_()
    (module.sequence_logprob(lambda _: leaf, ids, labels) * g).sum().backward()
    return leaf.grad


@exercise("dpo_loss")
def test_logprob_gradient_is_label_less_softmax(exercises, rng):
    """Gradients flow through the logits of the labelled tokens alone."""
    ids, labels = labelled(rng, 3, 4, 5)
    logits, g = rng.normal(3, 4, 5), rng.normal(3)
    kept = (labels != -100)[..., None]
    expected = g[:, None, None] * (F.one_hot(labels.clamp(min=0), 5) - logits.softmax(-1)) * kept
    close(exercises.run(logit_gradient, logits, ids, labels, g), expected, "the gradient by the logits")


def four(rng, n):
    """Log-probabilities of n pairs: policy chosen, rejected, reference chosen, rejected."""
    return [-10 * rng.uniform(n) for _ in range(4)]


@exercise("dpo_loss")
@pytest.mark.parametrize("beta", [0.1, 0.7, 2.0])
def test_dpo_loss_by_its_formula(exercises, rng, beta):
    """The loss is the mean of -log sigmoid of beta times the log-ratios."""
    pc, pr, rc, rr = four(rng, 7)
    rows = zip(pc.tolist(), pr.tolist(), rc.tolist(), rr.tolist(), strict=True)
    expected = sum(pair_loss(beta * ((a - c) - (b - d))) for a, b, c, d in rows) / 7
    close(pure(exercises.dpo_loss, pc, pr, rc, rr, beta).item(), expected, f"dpo_loss of 7 pairs, beta {beta}")
    got = exercises.dpo_loss(*(x.float() for x in (pc, pr, rc, rr)), beta)
    close(got, torch.tensor(expected, dtype=torch.float32), f"dpo_loss in float32, beta {beta}")


@exercise("dpo_loss")
def test_dpo_compares_with_the_reference(exercises, rng):
    """It is log 2 at the reference, and blind to constants that cancel."""
    pc, pr, rc, rr = four(rng, 5)
    close(exercises.dpo_loss(rc, rr, rc.clone(), rr.clone(), 0.3).item(), math.log(2), "dpo_loss at the reference")
    base = exercises.dpo_loss(pc, pr, rc, rr, 0.3)
    close(exercises.dpo_loss(pc + 4, pr + 4, rc, rr, 0.3), base, "4 added to both scores of the policy")
    close(exercises.dpo_loss(pc + 4, pr, rc + 4, rr, 0.3), base, "4 added to the chosen answer in both models")
    close(exercises.dpo_loss(pc, pr - 3, rc, rr - 3, 0.3), base, "3 taken off the rejected answer in both models")


@exercise("dpo_loss")
def test_dpo_swap_identity(exercises, rng):
    """Swapped pairs have the other probability; better costs less."""
    for row in torch.stack(four(rng, 3), 1)[:, :, None]:
        pc, pr, rc, rr = row
        here, there = exercises.dpo_loss(pc, pr, rc, rr, 0.4).item(), exercises.dpo_loss(pr, pc, rr, rc, 0.4).item()
        close(math.exp(-here) + math.exp(-there), 1.0, "exp(-loss) of a pair and of the swapped pair")
        better = exercises.dpo_loss(pc + 1, pr, rc, rr, 0.4).item()
        holds(better < here, f"a likelier chosen answer costs more: {better} after {here}")


@exercise("dpo_loss")
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_dpo_gradient_at_any_distance(exercises, rng, kind):
    """Gradients are beta sigmoid(-z) / B, also thousands apart."""
    ends = torch.tensor([-5000.0, 0.0, -30.0])
    pc, pr = torch.cat([rng.normal(2), ends]).to(kind), torch.cat([rng.normal(2), ends.flip(0)]).to(kind)
    pr[2], rc, rr = 5000.0, torch.zeros(5, dtype=kind), rng.normal(5).to(kind)
    options = {"rc": rc, "rr": rr, "beta": 0.6}
    value, (g_c, g_r) = exercises.run(gradients, "dpo_loss", [pc, pr], options, [0, 1])
    z = 0.6 * ((pc - rc) - (pr - rr)).double()
    expected = sum(pair_loss(x) for x in z.tolist()) / 5
    roughly(value.item() / expected, 1.0, 1e-6, "a loss of thousands, over what it should be")
    push = 0.6 * torch.sigmoid(-z) / 5
    roughly(g_c.double(), -push, 1e-6, "the gradient by pc")
    roughly(g_r.double(), push, 1e-6, "the gradient by pr")


@driver
def tune_by_dpo(module, ref, chosen, rejected, beta, steps):
    """Train a bigram table (V + 1, V) on pairs of answers by DPO; token V begins every answer."""
    import torch

    V = ref.shape[1]
    table = ref.clone().requires_grad_()
    optimizer = torch.optim.Adam([table], lr=0.1)

    def score(policy, answers):
        ids = torch.cat([torch.full((len(answers), 1), V), answers[:, :-1]], 1)
        return module.sequence_logprob(lambda x: policy[x], ids, answers)

    with torch.no_grad():
        rc, rr = score(ref, chosen), score(ref, rejected)
    for _ in range(steps):
        optimizer.zero_grad()
        module.dpo_loss(score(table, chosen), score(table, rejected), rc, rr, beta).backward()
        optimizer.step()
    return table.detach()


@exercise("dpo_loss", weight=2)
def test_dpo_improves_a_policy_by_its_true_utility(exercises, rng):
    """Comparisons alone bring the policy near the known optimum."""
    V, beta = 4, 1.0
    ref, utility = 0.5 * rng.normal(V + 1, V), 1.5 * rng.normal(V, V)

    def log_answers(table):  # (V, V): the first word after the begin token, then the second after the first
        return table.log_softmax(-1)[V][:, None] + table.log_softmax(-1)[:V]

    pairs = torch.multinomial(log_answers(ref).exp().flatten(), 8000, replacement=True, generator=rng.generator())
    pairs, u = torch.stack([pairs // V, pairs % V], 1).view(4000, 2, 2), utility.flatten()[pairs].view(4000, 2)
    first_wins = rng.uniform(4000) < torch.sigmoid(u[:, 0] - u[:, 1])
    chosen = torch.where(first_wins[:, None], pairs[:, 0], pairs[:, 1])
    rejected = torch.where(first_wins[:, None], pairs[:, 1], pairs[:, 0])
    tuned = log_answers(exercises.run(tune_by_dpo, ref, chosen, rejected, beta, 150))
    best = (log_answers(ref) + utility / beta).flatten().log_softmax(0).view(V, V)
    value = lambda log_p: (log_p.exp() * (utility - beta * (log_p - log_answers(ref)))).sum().item()  # noqa: E731
    share = (value(tuned) - value(log_answers(ref))) / (value(best) - value(log_answers(ref)))
    holds(share > 0.8, f"utility less beta KL made {share:.2f} of the way from the reference to the optimum")


# --- constitutional_revision ------------------------------------------------------------------------------------------

PRINCIPLES = ["Be kind {0}.", "Name no culprit!", "Prefer <short> words.", "Say what is unknown."]


def scripted():
    """A chat that drafts, criticises and revises in turn; each reply, kept in `replies`, tells what it was shown."""
    replies = []

    def reply(messages):
        text, step = "\n".join(message["content"] for message in messages), len(replies)
        kind = "draft" if step == 0 else "critique" if step % 2 else "revision"
        rules = [n for n, principle in enumerate(PRINCIPLES) if principle in text]
        replies.append(f"  <{kind} no. {step}> shown {[n for n in range(step) if replies[n] in text]}, {rules} \n")
        return replies[-1]

    chat = counting(reply)
    chat.replies = replies
    return chat


def asked(chat, step):
    """All text of the messages of one call; the messages must have the agreed form."""
    messages = chat.arguments[step][0]
    for message in messages:
        holds(set(message) == {"role", "content"}, f"a message of call {step} has the keys {sorted(message)}")
    exact(messages[-1]["role"], "user", f"the role of the last message of call {step}")
    return "\n".join(message["content"] for message in messages)


PROMPT = "Who broke {the} vase?\n\tTell me."


@exercise("constitutional_revision")
@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_revision_takes_two_calls_a_round(exercises, rounds):
    """One call drafts, and each round takes two more."""
    chat = scripted()
    path = exercises.constitutional_revision(chat, PROMPT, PRINCIPLES, rounds)
    exact(chat.calls, 1 + 2 * rounds, f"the number of calls in {rounds} rounds")
    exact(len(path), rounds + 1, f"the number of answers in {rounds} rounds")
    exact(chat.arguments[0][0], [{"role": "user", "content": PROMPT}], "the messages that ask for the draft")


@exercise("constitutional_revision", weight=2)
def test_critique_is_of_the_latest_answer(exercises):
    """Each critique sees prompt, principle and the latest answer."""
    chat = scripted()
    path = exercises.constitutional_revision(chat, PROMPT, PRINCIPLES, 4, seed=3)
    for k in range(4):
        text = asked(chat, 2 * k + 1)
        for part in (PROMPT, chat.replies[2 * k], path[k + 1]["principle"]):
            holds(part in text, f"the request for critique {k + 1} lacks {part!r}")


@exercise("constitutional_revision")
def test_revision_sees_its_critique(exercises):
    """Each revision sees prompt, latest answer and its critique."""
    chat = scripted()
    exercises.constitutional_revision(chat, PROMPT, PRINCIPLES, 3)
    for k in range(3):
        text = asked(chat, 2 * k + 2)
        for part in (PROMPT, chat.replies[2 * k], chat.replies[2 * k + 1]):
            holds(part in text, f"the request for revision {k + 1} lacks {part!r}")


@exercise("constitutional_revision", weight=2)
def test_pairs_hold_prompt_and_answers(exercises):
    """Each pair has the original prompt and an answer, never a critique."""
    chat = scripted()
    path = pure(exercises.constitutional_revision, chat, PROMPT, PRINCIPLES, 3, 5)
    for k, step in enumerate(path):
        exact(sorted(step), ["critique", "principle", "prompt", "response"], f"the keys of item {k}")
        exact(step["prompt"], PROMPT, f"the prompt of item {k}")
        exact(step["response"], chat.replies[2 * k], f"the response of item {k}, to the letter")
        exact(step["critique"], chat.replies[2 * k - 1] if k else None, f"the critique of item {k}")
        holds(step["principle"] in PRINCIPLES if k else step["principle"] is None, f"the principle of item {k}")


@exercise("constitutional_revision")
def test_principles_are_drawn_without_replacement(exercises):
    """No principle returns before all of them have been used."""
    for seed in range(6):
        path = exercises.constitutional_revision(scripted(), PROMPT, PRINCIPLES, 10, seed)
        used = [step["principle"] for step in path[1:]]
        for start in (0, 4, 8):
            block = used[start : start + 4]
            holds(len(set(block)) == len(block), f"seed {seed}: principles {used} repeat within {block}")


@exercise("constitutional_revision")
def test_seed_decides_the_principles(exercises):
    """A seed fixes the order, and every principle may come first."""
    runs = [exercises.constitutional_revision(scripted(), PROMPT, PRINCIPLES, 1, seed) for seed in range(60)]
    first = [run[1]["principle"] for run in runs]
    # a fair draw misses one of four over 60 seeds with probability 4 * 0.75^60 = 1.3e-7
    exact(sorted(set(first)), sorted(PRINCIPLES), "the principles that came first for one of 60 seeds")
    one, two = (exercises.constitutional_revision(scripted(), PROMPT, PRINCIPLES, 6, 11) for _ in range(2))
    exact(two, one, "two runs with the seed 11")
    default, zero = (exercises.constitutional_revision(scripted(), PROMPT, PRINCIPLES, 6, *s) for s in ((), (0,)))
    exact(default, zero, "a run without a seed, against the seed 0")


@exercise("constitutional_revision")
def test_rounds_need_a_principle(exercises):
    """Rounds without principles raise ValueError; no rounds need none."""
    with pytest.raises(ValueError):
        exercises.constitutional_revision(scripted(), PROMPT, [], 1)
    chat = scripted()
    path = exercises.constitutional_revision(chat, PROMPT, [], 0)
    expected = [{"prompt": PROMPT, "response": chat.replies[0], "principle": None, "critique": None}]
    exact(path, expected, "no rounds and no principles")


# --- ai_preference ----------------------------------------------------------------------------------------------------

QUESTION, A, B, RULE = "How deep is {it}?", "Quite deep,\nI [[think]].", "12 metres {b}.", "Prefer exact <numbers>."


def judge(verdict):
    """A chat whose reply depends on which answer stands first: verdict("a") or verdict("b")."""

    def reply(messages):
        text = "\n".join(message["content"] for message in messages)
        return verdict("a" if text.index(A) < text.index(B) else "b")

    return counting(reply)


def biased(utility, bias):
    """A judge that prefers the first answer if its utility and a bias for its place outweigh the other's."""

    def verdict(first):
        gap = (utility if first == "a" else -utility) + bias
        return "A longish thought. " + ("[[A]]" if gap > 0 else "[[B]]" if gap < 0 else "[[C]]")

    return judge(verdict)


@exercise("ai_preference", weight=2)
def test_position_bias_cancels(exercises):
    """A judge that loves one place leaves a tie; a clear one decides."""
    for bias in (5.0, -5.0):
        got = exercises.ai_preference(biased(1.0, bias), QUESTION, A, B, RULE)
        exact(got, ("tie", 0.5), f"a judge with a bias of {bias} for the first place")
    for bias, utility in itertools.product((0.0, 0.5, -0.5), (2.0, -2.0)):
        got = exercises.ai_preference(biased(utility, bias), QUESTION, A, B, RULE)
        exact(got, ("a", 1.0) if utility > 0 else ("b", 0.0), f"a judge with utility {utility} for a, bias {bias}")


@exercise("ai_preference")
def test_swapping_answers_swaps_the_preference(exercises):
    """Handing in b as a gives the other label and 1 - p."""
    other = {"a": "b", "b": "a", "tie": "tie"}
    for utility, bias in ((2.0, 0.5), (-2.0, 0.5), (1.0, 3.0), (0.0, 0.0), (1.0, 1.0), (1.0, -1.0), (-1.0, 1.0)):
        chat = biased(utility, bias)
        label, p_a = exercises.ai_preference(chat, QUESTION, A, B, RULE)
        got = exercises.ai_preference(chat, QUESTION, B, A, RULE)
        exact(got, (other[label], 1 - p_a), f"the swapped answers, utility {utility}, bias {bias}")


@exercise("ai_preference")
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("C", "C", ("tie", 0.5)),
        ("A", "C", ("a", 0.75)),
        ("C", "A", ("b", 0.25)),
        ("C", "B", ("a", 0.75)),
        ("B", "C", ("b", 0.25)),
        ("A", "B", ("a", 1.0)),
        ("B", "A", ("b", 0.0)),
        ("A", "A", ("tie", 0.5)),
        ("B", "B", ("tie", 0.5)),
    ],
)
def test_ties_count_one_half(exercises, first, second, expected):
    """A tie counts one half in its order, and the mean decides."""
    chat = judge(lambda place: f"[[{first if place == 'a' else second}]]")
    exact(exercises.ai_preference(chat, QUESTION, A, B, RULE), expected, f"verdicts {first}, then {second}")


@exercise("ai_preference")
@pytest.mark.parametrize(
    "noise",
    [
        "After all, B is bad, BUT {}",
        "I could say [[C]] or [[B]] or [[A]], yet: {} Best regards, ABC",
        "[[A]] was my first thought.\n[[B]] my second.\n[[C]] my third.\n\n{}",
        "[A] [B] [[D]] [[a]] [[ B ]] {} [[b]] [[A B]] A",
    ],
)
def test_last_mark_is_the_verdict(exercises, noise):
    """Only the last mark in double brackets counts."""
    chat = judge(lambda place: "A thought: [[{}]]. No: [[{}]]".format(*("BA" if place == "a" else "AB")))
    exact(exercises.ai_preference(chat, QUESTION, A, B, RULE), ("a", 1.0), "a judge that changes its mind")
    for winner, expected in (("a", ("a", 1.0)), ("b", ("b", 0.0))):
        chat = judge(lambda place, winner=winner: noise.format("[[A]]" if place == winner else "[[B]]"))
        exact(exercises.ai_preference(chat, QUESTION, A, B, RULE), expected, f"replies {noise!r}, won by {winner}")


@exercise("ai_preference")
@pytest.mark.parametrize(
    "reply", ["", "A", "B is better.", "[A]", "[[a]]", "[[ A ]]", "[[D]]", "Verdict: A.", "[[AB]]"]
)
def test_unreadable_verdicts_are_reported(exercises, reply):
    """A verdict that cannot be read gives None, in either order."""
    for broken in ("a", "b", "ab"):
        chat = judge(lambda place, broken=broken: reply if place in broken else "[[A]]")
        got = exercises.ai_preference(chat, QUESTION, A, B, RULE)
        exact(got, (None, None), f"the reply {reply!r} when {broken} stands first")


@exercise("ai_preference")
def test_judge_sees_both_orders(exercises):
    """Two calls show everything word for word, each answer first once."""
    chat = biased(1.0, 0.0)
    exercises.ai_preference(chat, QUESTION, A, B, RULE)
    exact(chat.calls, 2, "the number of calls of the judge")
    texts = [asked(chat, step) for step in range(2)]
    for step, part in itertools.product(range(2), (QUESTION, A, B, RULE, "[[A]]", "[[B]]", "[[C]]")):
        holds(part in texts[step], f"call {step} of the judge lacks {part!r}")
    exact(sorted(text.index(A) < text.index(B) for text in texts), [False, True], "whether a stands before b")
