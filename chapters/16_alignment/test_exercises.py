"""Self-checks of chapter 16: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, counting, driver, exact, exercise, holds, roughly


@exercise("reward_loss")
def test_reward_loss_on_paper(exercises):
    """Leads of 2 and 0 cost 0.1269 and log 2, and their mean is the loss."""
    expected = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    got = exercises.reward_loss(torch.tensor([2.0, 1.0]).double(), torch.tensor([0.0, 1.0]).double())
    close(got.item(), expected, "reward_loss of the leads 2 and 0")


@exercise("reward_loss")
def test_very_wrong_pair_costs_its_distance(exercises):
    """A pair that is wrong by 200 costs 200, not infinity."""
    close(exercises.reward_loss(torch.zeros(1), torch.full((1,), 200.0)).item(), 200.0, "reward_loss of a lead of -200")


@exercise("reward_loss")
def test_reward_is_read_before_the_padding(exercises):
    """The reward stands at the last real token of each row."""
    values = torch.tensor([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]])
    close(exercises.last_token_reward(values, [2, 3]), torch.tensor([2.0, 5.0]), "rewards of rows of 2 and 3 tokens")
    with pytest.raises(ValueError):
        exercises.last_token_reward(values, [0, 3])


@exercise("kl_estimates")
def test_estimates_average_to_the_kl(exercises):
    """Over both tokens of the notes' example, k1 and k3 give the KL."""
    p, ref = torch.tensor([0.5, 0.5]).double(), torch.tensor([0.25, 0.75]).double()
    kl = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    k1, _, k3 = exercises.kl_estimates(p.log(), ref.log())
    close([(p * k1).sum().item(), (p * k3).sum().item()], [kl, kl], "k1 and k3, averaged with the policy's weights")


@exercise("kl_estimates")
def test_score_comes_once_at_the_end(exercises):
    """The penalty is on each response token, the score on the last one."""
    logp, ref = torch.tensor([[-1.0, -2.0, -3.0, -4.0]]), torch.tensor([[-9.0, -3.0, -2.0, -9.0]])
    mask = torch.tensor([[False, True, True, False]])
    got = exercises.shaped_rewards(torch.tensor([5.0]), logp, ref, 0.5, mask)
    close(got, torch.tensor([[0.0, -0.5, 5.5, 0.0]]), "shaped_rewards of a prompt, two tokens and a padding")


@exercise("gae")
def test_gae_of_the_worked_example(exercises):
    """The worked example of the notes: two words and a score at the end."""
    r, V = torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 0.25]).double()
    advantages, returns = exercises.gae(r, V, torch.tensor([False, True]), 1.0, 0.5, 9.0)
    last = 1.0 - 0.25  # the episode ends here, so nothing follows
    first = (0.0 + 0.25 - 0.5) + 0.5 * last
    close(advantages, torch.tensor([first, last]).double(), "the advantages")
    close(returns, torch.tensor([first + 0.5, last + 0.25]).double(), "the returns")


@exercise("gae")
def test_cut_is_no_end(exercises):
    """A sequence that is cut off goes on with last_value."""
    r, V = torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 0.25]).double()
    _, returns = exercises.gae(r, V, torch.tensor([False, False]), 1.0, 1.0, 9.0)
    close(returns, torch.tensor([10.0, 10.0]).double(), "the returns with last_value 9")


@exercise("ppo_clip_loss")
def test_clip_has_one_side_for_each_sign(exercises):
    """A ratio of 1.5 is clipped for a gain and not for a loss."""
    logp, old, on = torch.tensor([math.log(1.5)]).double(), torch.zeros(1).double(), torch.tensor([True])
    for A, expected in ((1.0, -1.2), (-1.0, 1.5)):
        got = exercises.ppo_clip_loss(logp, old, torch.tensor([A]).double(), 0.2, on)
        roughly(got.item(), expected, 1e-6, f"ppo_clip_loss at ratio 1.5, advantage {A}, eps 0.2")  # a float32 log


@exercise("ppo_clip_loss")
def test_padding_does_not_matter(exercises):
    """A masked token may hold minus infinity and changes nothing."""
    logp, old = torch.tensor([[-1.0, -math.inf]]), torch.tensor([[-1.5, -math.inf]])
    mask = torch.tensor([[True, False]])
    got = exercises.ppo_clip_loss(logp, old, torch.tensor([[-2.0, 0.0]]), 0.2, mask)
    close(got, torch.tensor(2 * math.exp(0.5)), "the loss of one real token and one padding")


@exercise("ppo_clip_loss")
def test_value_loss_takes_the_larger_error(exercises):
    """A value that moved 1 where 0.5 is allowed still owes the rest."""
    V, old, R = torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([2.0])
    got = exercises.value_clip_loss(V, old, R, 0.5, torch.tensor([True]))
    close(got, torch.tensor((0.5 - 2.0) ** 2 / 2), "value_clip_loss of 1, with old value 0 and return 2")


@driver
def learned_world(module, seed):
    """A planted world, with a linear reward model that was fitted to a thousand comparisons."""
    import torch

    world = module.planted_world(seed)
    chosen, rejected = (world["counts"][tuple(x.T)] for x in module.planted_preferences(world, 1000, seed))
    w = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        module.reward_loss(chosen @ w, rejected @ w).backward()
        optimizer.step()
    return {"ref": world["ref"], "reward": world["counts"] @ w.detach(), "true": world["true"]}


@exercise("ppo_toy")
def test_leash_turns_preferences_into_a_better_policy(exercises):
    """With beta 1 the policy truly improves."""
    env = exercises.run(learned_world, 0)
    true = exercises.ppo_toy({**env, "beta": 1.0}, 60, 0)["true"]
    holds(true[-1] > true[0] + 0.5, f"the true utility went from {true[0]:.2f} to {true[-1]:.2f}")


@exercise("ppo_toy")
def test_without_a_leash_the_policy_finds_the_loophole(exercises):
    """With beta 0.1 the truth rises and falls while the proxy rises."""
    env = exercises.run(learned_world, 0)
    history = exercises.ppo_toy({**env, "beta": 0.1}, 60, 0)
    true, proxy = history["true"], history["proxy"]
    top = max(range(61), key=true.__getitem__)
    holds(true[top] > true[0] + 1, f"the true utility went from {true[0]:.2f} to {true[top]:.2f} at best")
    holds(true[-1] < true[0] and proxy[-1] > proxy[top], f"at the end: true {true[-1]:.2f}, proxy {proxy[-1]:.2f}")


@exercise("dpo_loss")
def test_answer_is_worth_the_sum_of_its_tokens(exercises):
    """Probabilities 3/4 and 1/4 multiply, and the prompt is skipped."""
    logits = torch.tensor([0.25, 0.75]).log().expand(1, 3, 2)
    got = exercises.sequence_logprob(lambda _: logits, torch.tensor([[0, 1, 1]]), torch.tensor([[-100, 1, 0]]))
    close(got, torch.tensor([math.log(0.75 * 0.25)]), "sequence_logprob of the labels -100, 1, 0")


@exercise("dpo_loss")
def test_dpo_of_the_worked_example(exercises):
    """Only the change against the reference counts, and log 2 is no change."""
    pc, pr, rc, rr = (torch.tensor([x]).double() for x in (-4.0, -9.0, -5.0, -8.0))
    z = 0.5 * ((-4.0 + 5.0) - (-9.0 + 8.0))
    close(exercises.dpo_loss(pc, pr, rc, rr, 0.5).item(), math.log(1 + math.exp(-z)), "dpo_loss of the example")
    close(exercises.dpo_loss(rc, rr, rc, rr, 0.5).item(), math.log(2), "dpo_loss when the policy is the reference")


@exercise("constitutional_revision")
def test_two_rounds_of_revision(exercises):
    """A draft, then a critique and a revision a round; the last one counts."""
    replies = ["draft", "too rude", "better", "too long", "best"]
    chat = counting(lambda messages: replies[chat.calls - 1])
    path = exercises.constitutional_revision(chat, "Why?", ["Be kind.", "Be brief."], 2)
    exact(chat.calls, 5, "the number of calls for two rounds")
    exact([step["response"] for step in path], ["draft", "better", "best"], "the responses")
    exact({step["principle"] for step in path[1:]}, {"Be kind.", "Be brief."}, "the principles that were used")
    request = "\n".join(message["content"] for message in chat.arguments[3][0])
    holds("better" in request, "the second critique is not asked about the latest answer")


@exercise("ai_preference")
def test_love_of_the_first_place_is_a_tie(exercises):
    """A judge that always takes the first answer prefers neither."""
    chat = counting(lambda messages: "The first one, clearly. [[A]]")
    exact(exercises.ai_preference(chat, "Why?", "Because.", "No idea.", "Be helpful."), ("tie", 0.5), "its preference")
    exact(chat.calls, 2, "the number of calls")


@exercise("ai_preference")
def test_real_preference_survives_both_orders(exercises):
    """A judge that likes 'Because.' chooses it in either place."""

    def reply(messages):
        text = messages[-1]["content"]
        return "[[A]]" if text.index("Because.") < text.index("No idea.") else "[[B]]"

    exact(exercises.ai_preference(reply, "Why?", "Because.", "No idea.", "Be kind."), ("a", 1.0), "Because. as a")
    exact(exercises.ai_preference(reply, "Why?", "No idea.", "Because.", "Be kind."), ("b", 0.0), "Because. as b")
