"""Self-checks of chapter 6: worked examples and the laws that teach."""

import math

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, exact, exercise, holds, numerical_gradient, roughly


@exercise("softmax")
def test_softmax_turns_ratios_into_weights(exercises):
    """Scores ln 1, ln 2 and ln 5 get weights in the ratio 1 : 2 : 5."""
    x = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).log()
    ratio = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    close(exercises.softmax(x), ratio / 8, "softmax of (ln 1, ln 2, ln 5)")


@exercise("softmax")
def test_softmax_follows_dim(exercises, rng):
    """Each slice along dim sums to one."""
    x = rng.normal(2, 3, 5)
    close(exercises.softmax(x, dim=1).sum(1), torch.ones(2, 5, dtype=x.dtype), "softmax(x, dim=1) summed along dim 1")


@exercise("softmax")
def test_softmax_survives_large_scores(exercises):
    """Adding 1000 to every score changes nothing."""
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    close(exercises.softmax(x + 1000), exercises.softmax(x), "softmax(x + 1000)")


@exercise("causal_mask")
def test_causal_mask_square(exercises):
    """With as many keys as queries, row i sees keys 0 to i."""
    exact(exercises.causal_mask(3), torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool(), "causal_mask(3)")


@exercise("causal_mask")
def test_causal_mask_with_a_past(exercises):
    """Two queries at the end of five positions see four and five keys."""
    expected = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    exact(exercises.causal_mask(2, 5), expected, "causal_mask(2, 5)")


@exercise("causal_mask")
def test_padding_mask_hides_what_follows(exercises):
    """Only the first lengths[b] keys of sequence b are seen."""
    expected = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]).bool()
    exact(exercises.padding_mask([2, 4], 4), expected[:, None, None, :], "padding_mask([2, 4], 4)")


@exercise("causal_mask")
def test_combine_needs_every_mask(exercises):
    """A pair is allowed only where every mask allows it."""
    first, second = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    exact(exercises.combine(first, None, second), torch.tensor([True, False, False, False]), "combine(a, None, b)")


@exercise("scaled_dot_product_attention")
def test_attention_of_the_worked_example(exercises):
    """The worked example of the notes: scaled scores 1, 2 and 0."""
    q = torch.tensor([[[[1.0, 1, 1, 1]]]], dtype=torch.float64)
    k = torch.tensor([[[[1.0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]]], dtype=torch.float64)
    v = torch.tensor([[[[1.0, 0], [0, 1], [1, 1]]]], dtype=torch.float64)
    a, b, c = math.e, math.e**2, 1.0  # the exponentials of the three scaled scores
    expected = torch.tensor([[[[a + c, b + c]]]], dtype=torch.float64) / (a + b + c)
    close(exercises.scaled_dot_product_attention(q, k, v), expected, "attention of one query over three keys")


@exercise("scaled_dot_product_attention")
def test_attention_agrees_with_torch(exercises, rng):
    """Without a mask the result is that of PyTorch's own function."""
    q, k, v = rng.normal(2, 3, 4, 8), rng.normal(2, 3, 6, 8), rng.normal(2, 3, 6, 5)
    expected = F.scaled_dot_product_attention(q, k, v)
    close(exercises.scaled_dot_product_attention(q, k, v), expected, "attention of 4 queries over 6 keys")


@exercise("scaled_dot_product_attention")
def test_causal_attention_hides_the_future(exercises, rng):
    """Changing the last key and value leaves all earlier queries alone."""
    q, k, v = rng.normal(1, 2, 4, 8), rng.normal(1, 2, 4, 8), rng.normal(1, 2, 4, 8)
    before = exercises.scaled_dot_product_attention(q, k, v, causal=True)
    k[:, :, -1], v[:, :, -1] = 3.0, -7.0
    after = exercises.scaled_dot_product_attention(q, k, v, causal=True)
    close(after[:, :, :-1], before[:, :, :-1], "the first three rows of causal attention")


@exercise("scaled_dot_product_attention")
def test_attention_to_nothing_is_zero(exercises, rng):
    """A query that may see no key gets zeros."""
    q, k, v = rng.normal(1, 1, 2, 4), rng.normal(1, 1, 3, 4), rng.normal(1, 1, 3, 5)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    got = exercises.scaled_dot_product_attention(q, k, v, mask=mask)
    exact(got[0, 0, 1], torch.zeros(5, dtype=q.dtype), "the row of a query whose mask is False everywhere")


@exercise("split_heads")
def test_split_heads_keeps_each_token_together(exercises):
    """Head 1 of two gets the right half of every token's features."""
    x = torch.arange(8).reshape(1, 2, 4)  # token 0 is 0 1 2 3, token 1 is 4 5 6 7
    exact(exercises.split_heads(x, 2)[0, 1], torch.tensor([[2, 3], [6, 7]]), "split_heads(x, 2)[0, 1]")


@exercise("split_heads")
def test_merge_heads_undoes_split_heads(exercises, rng):
    """Splitting and merging again gives back the input."""
    x = rng.normal(2, 3, 20)
    exact(exercises.merge_heads(exercises.split_heads(x, 4)), x, "merge_heads(split_heads(x, 4))")


@exercise("MultiHeadAttention")
def test_multi_head_attention_sees_no_future(exercises, rng):
    """By default the outputs before position t do not depend on token t."""
    mha = exercises.MultiHeadAttention(8, 2).double()
    x = rng.normal(2, 5, 8)
    before = mha(x)
    x[:, 3] += 1.0
    after = mha(x)
    close(after[:, :3], before[:, :3], "the outputs before the changed token")
    holds(bool((after[:, 3:] - before[:, 3:]).abs().max() > 1e-3), "The outputs from the changed token on must change.")


@exercise("MultiHeadAttention")
def test_one_head_is_attention_between_projections(exercises, rng):
    """With one head it is plain attention between four projections."""
    mha = exercises.MultiHeadAttention(6, 1)
    w = {name: rng.normal(6, 6) for name in ("W_q", "W_k", "W_v", "W_o")}
    mha.double().load_state_dict({f"{name}.weight": weight for name, weight in w.items()})
    x = rng.normal(2, 4, 6)
    expected = F.scaled_dot_product_attention(x @ w["W_q"].T, x @ w["W_k"].T, x @ w["W_v"].T) @ w["W_o"].T
    close(mha(x, causal=False), expected, "MultiHeadAttention(6, 1) without a mask")


@exercise("grouped_query_attention")
def test_neighbouring_heads_share(exercises):
    """Of four query heads, 0 and 1 read the first values, 2 and 3 the second."""
    v = torch.tensor([10.0, 20.0]).reshape(1, 2, 1, 1)  # with a single key the output is its value
    got = exercises.grouped_query_attention(torch.zeros(1, 4, 1, 3), torch.zeros(1, 2, 1, 3), v)
    close(got.flatten(), torch.tensor([10.0, 10, 20, 20]), "what the four query heads read")


@exercise("grouped_query_attention")
def test_as_many_kv_heads_is_plain_attention(exercises, rng):
    """With Hk = H it is ordinary multi-head attention."""
    q, k, v = rng.normal(2, 4, 3, 8), rng.normal(2, 4, 5, 8), rng.normal(2, 4, 5, 8)
    close(exercises.grouped_query_attention(q, k, v), F.scaled_dot_product_attention(q, k, v), "attention with Hk = H")


@exercise("grouped_query_attention")
def test_heads_must_divide(exercises):
    """Five query heads cannot share two key-value heads."""
    with pytest.raises(ValueError):
        exercises.grouped_query_attention(torch.zeros(1, 5, 2, 4), torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 4))


@exercise("sdpa_backward")
def test_backward_of_two_equal_weights(exercises):
    """With weights one half, a key is worth half its advantage in value."""
    q, dO = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    k, v = torch.tensor([[[[1.0], [3.0]]]]), torch.tensor([[[[0.0], [2.0]]]])
    dq, dk, dv = exercises.sdpa_backward(q, k, v, dO)
    close(dv.flatten(), torch.tensor([0.5, 0.5]), "dv, when both weights are one half")
    close(dq.flatten(), torch.tensor([-0.5 * 1.0 + 0.5 * 3.0]), "dq, when dS is (-1/2, 1/2) and the keys are 1 and 3")
    close(dk.flatten(), torch.zeros(2), "dk, when the query is zero")


@exercise("sdpa_backward")
def test_backward_agrees_with_finite_differences(exercises, rng):
    """Nudging q, k or v changes the loss as the gradients say."""
    q, k, v, dO = rng.normal(1, 2, 3, 4), rng.normal(1, 2, 5, 4), rng.normal(1, 2, 5, 6), rng.normal(1, 2, 3, 6)

    def loss(q, k, v):
        return (F.scaled_dot_product_attention(q, k, v) * dO).sum()

    dq, dk, dv = exercises.sdpa_backward(q, k, v, dO)
    # Central differences in float64 are good to about 1e-9 here; the gradients are about 0.1.
    roughly(dq, numerical_gradient(lambda x: loss(x, k, v), q), 1e-6, "dq of sdpa_backward")
    roughly(dk, numerical_gradient(lambda x: loss(q, x, v), k), 1e-6, "dk of sdpa_backward")
    roughly(dv, numerical_gradient(lambda x: loss(q, k, x), v), 1e-6, "dv of sdpa_backward")


@exercise("attention_entropy")
def test_entropy_of_certain_and_uniform(exercises):
    """A one-hot row has entropy 0, a uniform row over n keys has ln n."""
    p = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]], dtype=torch.float64)
    expected = torch.tensor([0.0, math.log(4)], dtype=torch.float64)
    close(exercises.attention_entropy(p), expected, "entropy of a one-hot and a uniform row")


@exercise("attention_entropy")
def test_rollout_of_two_layers(exercises):
    """Two layers multiply, the later one from the left."""
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0]])  # both positions look at token 0
    second = torch.tensor([[0.0, 1.0], [0.0, 1.0]])  # both look at what position 1 has gathered
    got = exercises.attention_rollout([first[None, None], second[None, None]])
    # (second + I) / 2 is [[1/2, 1/2], [0, 1]] and (first + I) / 2 is [[1, 0], [1/2, 1/2]]
    expected = torch.tensor([[[0.5 + 0.25, 0.25], [0.5, 0.5]]])
    close(got, expected, "rollout of two layers over two tokens")


@exercise("attention_entropy")
def test_rollout_keeps_rows_stochastic(exercises, rng):
    """The shares of all input tokens in one position sum to one."""
    layers = [rng.normal(2, 3, 4, 4).softmax(-1) for _ in range(3)]
    total = exercises.attention_rollout(layers).sum(-1)
    close(total, torch.ones(2, 4, dtype=torch.float64), "rows of the rollout, summed")
