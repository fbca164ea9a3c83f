"""Hidden tests of chapter 10: the whole contract of each docstring."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.testing import (
    close,
    counting,
    driver,
    exact,
    exercise,
    holds,
    pure,
    roughly,
    same_distribution,
    stand_in,
)

INF = math.inf
NO_IDS = torch.zeros(1, 0, dtype=torch.int64)


def only(logits, keep):
    """Logits with minus infinity wherever `keep`, a nested list of booleans, says no."""
    return torch.where(torch.as_tensor(keep), logits, torch.tensor(-INF, dtype=logits.dtype))


# -- 10.1 ----------------------------------------------------------------------------------------------------------


@exercise("next_token_probs")
@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2, 7.5])
def test_probs_are_the_renormalised_power(exercises, rng, temperature):
    """The result is p to the power 1/T, summing to one in each row."""
    logits = rng.normal(3, 7)
    power = torch.softmax(logits, -1) ** (1 / temperature)
    got = pure(exercises.next_token_probs, logits, temperature)
    close(got, power / power.sum(-1, keepdim=True), f"next_token_probs at temperature {temperature}")


@exercise("next_token_probs")
def test_probs_default_is_temperature_one(exercises, rng):
    """Without a temperature the result is the plain softmax."""
    logits = 2 * rng.normal(4, 5)
    close(exercises.next_token_probs(logits), torch.softmax(logits, -1), "next_token_probs(logits)")


@exercise("next_token_probs")
@pytest.mark.parametrize("zero", [0, 0.0])
def test_probs_temperature_zero_ties_go_to_the_lowest_id(exercises, zero):
    """At temperature 0 the lowest id among equal maxima gets everything."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 3.0], [-1.0, -2.0, -1.0, -5.0], [-INF, -INF, 0.0, -9.0]])
    for dtype in (torch.float32, torch.float64):
        expected = torch.eye(4, dtype=dtype)[torch.tensor([1, 0, 2])]
        close(pure(exercises.next_token_probs, logits.to(dtype), zero), expected, "temperature 0 with ties")


@exercise("next_token_probs")
def test_probs_stay_finite_at_tiny_temperatures(exercises):
    """A temperature near zero gives the favourite all, not NaN."""
    logits = torch.tensor([[-1000.0, 1000.0, 999.0], [7.0, -1000.0, 7.0]])
    expected = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    close(exercises.next_token_probs(logits, 1e-36), expected, "float32 logits at temperature 1e-36")
    close(exercises.next_token_probs(logits.double(), 1e-300), expected.double(), "float64 logits at 1e-300")


@exercise("next_token_probs")
def test_probs_take_large_logits(exercises):
    """Logits of plus and minus a thousand give no NaN and the right odds."""
    logits = torch.tensor([[1000.0, 998.0, -1000.0], [-1000.0, -1001.0, -1003.0]], dtype=torch.float64)
    rows = [[math.exp(x) for x in row] for row in ([0, -1, -1000], [0, -0.5, -1.5])]
    expected = torch.tensor([[x / sum(row) for x in row] for row in rows], dtype=torch.float64)
    close(exercises.next_token_probs(logits, 2.0), expected, "logits of +-1000 at temperature 2")


@exercise("next_token_probs")
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_probs_of_removed_tokens_are_zero(exercises, rng, temperature):
    """A logit of minus infinity has probability exactly 0."""
    logits = rng.normal(3, 6)
    logits[0, 2] = logits[1, 0] = logits[1, 5] = -INF
    got = exercises.next_token_probs(logits, temperature)
    exact(got == 0, logits == -INF, "where the probabilities are 0")
    close(got.sum(-1), torch.ones(3, dtype=torch.float64), "the sums of the rows")


@exercise("next_token_probs")
def test_probs_flatten_as_temperature_rises(exercises, rng):
    """Entropy never falls with temperature and ends at the uniform."""
    logits = rng.normal(4, 6)
    rows = [exercises.next_token_probs(logits, T) for T in (0.0, 0.2, 0.7, 1.0, 2.0, 10.0)]
    entropies = torch.stack([torch.special.entr(p).sum(-1) for p in rows])
    holds(bool((entropies.diff(dim=0) > 0).all()), "the entropy rises with the temperature in every row")
    uniform = torch.full_like(logits, 1 / 6)
    roughly(exercises.next_token_probs(logits, 1e9), uniform, 1e-7, "temperature 1e9")  # off by about 1e-9


@exercise("next_token_probs")
def test_probs_rows_are_independent_and_shift_invariant(exercises, rng):
    """Adding a number to all logits of one row changes nothing."""
    logits = rng.normal(3, 5)
    shifted = logits + torch.tensor([[500.0], [0.0], [-500.0]])
    expected = exercises.next_token_probs(logits, 0.6)
    close(exercises.next_token_probs(shifted, 0.6), expected, "each row shifted by its own number")
    close(exercises.next_token_probs(logits[1:2], 0.6), expected[1:2], "the second row alone")


@exercise("next_token_probs")
def test_probs_keep_the_dtype(exercises, rng):
    """float32 logits give float32 probabilities."""
    logits = rng.normal(2, 5).float()
    close(exercises.next_token_probs(logits, 0.5), torch.softmax(logits * 2, -1), "float32 logits at 0.5")


@exercise("next_token_probs")
def test_probs_refuse_negative_temperature(exercises):
    """A negative temperature raises ValueError."""
    with pytest.raises(ValueError):
        exercises.next_token_probs(torch.tensor([[1.0, 2.0]]), -0.5)


# -- 10.2 ----------------------------------------------------------------------------------------------------------


@exercise("top_k_filter")
@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_top_k_keeps_those_with_few_above(exercises, rng, k):
    """A logit is kept when fewer than k of its row lie above it."""
    logits = rng.normal(5, 9) + torch.tensor([[0.0], [1000.0], [-1000.0], [3.0], [-4.0]])
    above = (logits[:, None, :] > logits[:, :, None]).sum(-1)  # (B, V)
    exact(pure(exercises.top_k_filter, logits, k), only(logits, above < k), f"top_k_filter with k={k}")


@exercise("top_k_filter")
def test_top_k_keeps_all_ties_at_the_border(exercises):
    """Everything equal to the k-th largest is kept."""
    logits = torch.tensor([[2.0, 5.0, 2.0, 1.0, 2.0], [4.0, 4.0, 4.0, 4.0, 4.0], [1.0, 2.0, 3.0, 3.0, 0.0]])
    two = [[True, True, True, False, True], [True] * 5, [False, False, True, True, False]]
    one = [[False, True, False, False, False], [True] * 5, [False, False, True, True, False]]
    exact(exercises.top_k_filter(logits, 2), only(logits, two), "top_k_filter with ties, k=2")
    exact(exercises.top_k_filter(logits, 1), only(logits, one), "top_k_filter with ties, k=1")


@exercise("top_k_filter")
@pytest.mark.parametrize("k", [6, 7, 1000])
def test_top_k_of_the_whole_vocabulary_changes_nothing(exercises, rng, k):
    """A k of V or more keeps everything."""
    logits = rng.normal(3, 6)
    exact(pure(exercises.top_k_filter, logits, k), logits, f"top_k_filter of 6 logits with k={k}")


@exercise("top_k_filter")
def test_top_k_leaves_removed_tokens_removed(exercises):
    """Logits of minus infinity stay so, even with fewer than k others."""
    logits = torch.tensor([[1.0, -INF, 2.0, -INF], [-INF, -INF, -INF, 0.0], [3.0, 1.0, 2.0, -INF]])
    expected = logits.clone()
    exact(exercises.top_k_filter(logits, 3), expected, "top_k_filter with k=3 of rows with removed tokens")
    expected[2, 1] = -INF
    exact(exercises.top_k_filter(logits, 2), expected, "top_k_filter with k=2 of rows with removed tokens")


@exercise("top_k_filter")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_top_k_keeps_the_dtype(exercises, rng, dtype):
    """The result has the dtype of the logits and the same bits."""
    logits = torch.stack([rng.permutation(7), rng.permutation(7)]).to(dtype) / 3 - 1
    border = logits.sort(-1).values[:, 4:5]
    exact(exercises.top_k_filter(logits, 3), only(logits, logits >= border), f"top_k_filter of {dtype}")


@exercise("top_k_filter")
@pytest.mark.parametrize("k", [0, -1])
def test_top_k_refuses_less_than_one(exercises, k):
    """A k below 1 raises ValueError."""
    with pytest.raises(ValueError):
        exercises.top_k_filter(torch.tensor([[1.0, 2.0, 3.0]]), k)


# -- 10.3 ----------------------------------------------------------------------------------------------------------


def nucleus(row, p):
    """Which ids of one row are kept: walk down the ranking until the mass reaches p."""
    probs = torch.softmax(row.double(), -1).tolist()
    keep, mass = [False] * len(probs), 0.0
    for i in sorted(range(len(probs)), key=lambda i: (-probs[i], i)):
        if mass >= p and any(keep):
            break
        keep[i] = probs[i] > 0
        mass += probs[i]
    return keep


@exercise("top_p_filter")
@pytest.mark.parametrize("p", [0.03, 0.31, 0.52, 0.74, 0.9, 0.97, 0.995])
def test_top_p_is_the_smallest_prefix(exercises, rng, p):
    """The shortest prefix of the ranking whose mass reaches p is kept."""
    logits = rng.normal(6, 11) * torch.tensor([[0.1], [0.5], [1.0], [1.5], [2.0], [4.0]])
    expected = only(logits, [nucleus(row, p) for row in logits])
    exact(pure(exercises.top_p_filter, logits, p), expected, f"top_p_filter with p={p}")


@exercise("top_p_filter")
def test_top_p_every_size_can_be_reached(exercises, rng):
    """With p just below the mass of the first m tokens, m are kept."""
    logits = rng.normal(1, 8)
    masses = torch.softmax(logits[0], -1).sort(descending=True).values.cumsum(-1).tolist()
    kept = [int((exercises.top_p_filter(logits, mass - 1e-6) > -INF).sum()) for mass in masses]
    exact(kept, list(range(1, 9)), "how many tokens are kept for each p")
    more = [int((exercises.top_p_filter(logits, mass + 1e-6) > -INF).sum()) for mass in masses[:-1]]
    exact(more, list(range(2, 9)), "how many tokens are kept for p just above each mass")


@exercise("top_p_filter")
def test_top_p_reached_exactly_is_enough(exercises):
    """A mass that equals p needs no further token."""
    logits = torch.zeros(1, 4, dtype=torch.float64)  # four times a quarter, exact in binary
    exact(exercises.top_p_filter(logits, 0.5), only(logits, [[True, True, False, False]]), "four equal logits at 0.5")
    exact(exercises.top_p_filter(logits, 0.25), only(logits, [[True, False, False, False]]), "four equal at 0.25")


@exercise("top_p_filter")
@pytest.mark.parametrize("p", [0.0371, 0.0853, 0.613])
def test_top_p_ties_rank_by_id(exercises, p):
    """Of equal logits the lower id ranks first."""
    logits = torch.full((2, 90), 1.5)
    logits[1, :30] = 1.0
    expected = only(logits, [nucleus(row, p) for row in logits])
    exact(exercises.top_p_filter(logits, p), expected, f"top_p_filter of 90 logits with ties at {p}")


@exercise("top_p_filter")
@pytest.mark.parametrize("p", [0, 0.0, 1e-12])
def test_top_p_zero_keeps_one(exercises, p):
    """At p = 0 only the most likely token is kept, the lowest id of a tie."""
    logits = torch.tensor([[1.0, 3.0, 2.0], [4.0, -1.0, 4.0], [-INF, -7.0, -7.5]])
    expected = only(logits, [[False, True, False], [True, False, False], [False, True, False]])
    exact(exercises.top_p_filter(logits, p), expected, f"top_p_filter with p={p}")


@exercise("top_p_filter")
@pytest.mark.parametrize("p", [1, 1.0])
def test_top_p_one_keeps_even_the_hopeless(exercises, p):
    """At p = 1 nothing is removed, not even what rounds to probability 0."""
    logits = torch.tensor([[1000.0, 0.0, -1000.0], [0.0, -40.0, -60.0], [1.0, -INF, 2.0]])
    exact(pure(exercises.top_p_filter, logits, p), logits, "top_p_filter with p=1 in float32")
    exact(exercises.top_p_filter(logits.double(), p), logits.double(), "top_p_filter with p=1 in float64")


@exercise("top_p_filter")
def test_top_p_takes_large_logits(exercises):
    """Logits of plus and minus a thousand give no NaN."""
    logits = torch.tensor([[-1000.0, 1000.0, 999.0], [-1000.0, -1000.4, -1000.2]])
    expected = only(logits, [[False, True, False], [True, False, True]])
    exact(exercises.top_p_filter(logits, 0.65), expected, "top_p_filter of +-1000 with p=0.65")


@exercise("top_p_filter")
def test_top_p_leaves_removed_tokens_removed(exercises):
    """Removed tokens hold no mass and stay removed."""
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).log()
    logits[0, 0] = logits[1, 3] = -INF  # left: 0.2, 0.6, 0.2 and 1/6, 2/6, 3/6
    expected = only(logits, [[False, False, True, False], [False, True, True, False]])
    exact(exercises.top_p_filter(logits, 0.55), expected, "top_p_filter with p=0.55 of rows with removed tokens")
    exact(exercises.top_p_filter(logits, 0.9999), logits, "top_p_filter with p=0.9999 of rows with removed tokens")


@exercise("top_p_filter")
def test_top_p_is_nested(exercises, rng):
    """What a smaller p keeps, a larger p keeps as well."""
    logits = rng.normal(5, 13)
    kept = torch.stack([exercises.top_p_filter(logits, p / 20) > -INF for p in range(21)])
    holds(bool((kept[:-1] <= kept[1:]).all()), "each kept set lies within the next")
    holds(bool(kept[-1].all()) and kept[0].sum().item() == 5, "one a row at p=0, all at p=1")


@exercise("top_p_filter")
def test_top_p_rows_and_dtype(exercises, rng):
    """Each row has its own set, and the dtype stays."""
    logits = torch.tensor([[0.05, 0.2, 0.1, 0.65], [0.25, 0.3, 0.21, 0.24], [0.02, 0.03, 0.9, 0.05]]).log()
    logits = logits[:, rng.permutation(4)]
    together = exercises.top_p_filter(logits, 0.7)  # far from every sum, whatever the rounding
    exact(together, only(logits, [nucleus(row, 0.7) for row in logits]), "top_p_filter of float32")
    alone = torch.cat([exercises.top_p_filter(row[None], 0.7) for row in logits])
    exact(together, alone, "three rows together and one by one")


@exercise("top_p_filter")
@pytest.mark.parametrize("p", [-0.01, 1.01, 90])
def test_top_p_refuses_what_is_no_mass(exercises, p):
    """A p outside 0 to 1 raises ValueError."""
    with pytest.raises(ValueError):
        exercises.top_p_filter(torch.tensor([[1.0, 2.0, 3.0]]), p)


# -- 10.4 ----------------------------------------------------------------------------------------------------------


@exercise("min_p_filter")
@pytest.mark.parametrize("p", [0.02, 0.1, 0.35, 0.8])
def test_min_p_is_relative_to_the_row_maximum(exercises, rng, p):
    """A token is kept when its probability is p times the maximum or more."""
    logits = 1.5 * rng.normal(5, 9) * torch.tensor([[0.1], [0.5], [1.0], [1.5], [2.0]])
    probs = torch.softmax(logits, -1)
    expected = only(logits, probs >= p * probs.max(-1, keepdim=True).values)
    exact(pure(exercises.min_p_filter, logits, p), expected, f"min_p_filter with p={p}")


@exercise("min_p_filter")
def test_min_p_is_shift_invariant(exercises, rng):
    """Adding a number to a row keeps the same tokens."""
    logits = rng.normal(3, 8)
    shifted = logits + torch.tensor([[1000.0], [-1000.0], [5.0]])
    exact(
        exercises.min_p_filter(shifted, 0.3),
        only(shifted, exercises.min_p_filter(logits, 0.3) > -INF),
        "min_p_filter of shifted rows",
    )


@exercise("min_p_filter")
def test_min_p_ends(exercises):
    """At 0 all are kept, at 1 the maximum and what ties with it."""
    logits = torch.tensor([[1000.0, -1000.0, 1000.0], [-3.0, -2.0, -2.5], [1.0, -INF, 0.0]])
    maxima = only(logits, [[True, False, True], [False, True, False], [True, False, False]])
    for zero, one in ((0, 1), (0.0, 1.0)):
        exact(exercises.min_p_filter(logits, zero), logits, "min_p_filter with p=0")
        exact(exercises.min_p_filter(logits, one), maxima, "min_p_filter with p=1")


@exercise("min_p_filter")
def test_min_p_leaves_removed_tokens_removed(exercises):
    """Logits of minus infinity stay so."""
    logits = torch.tensor([[-INF, 0.0, -1.0, -3.0], [2.0, -INF, -INF, -INF]])
    expected = only(logits, [[False, True, True, False], [True, False, False, False]])
    exact(exercises.min_p_filter(logits, 0.2), expected, "min_p_filter with p=0.2 of rows with removed tokens")


@exercise("min_p_filter")
@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_min_p_refuses_what_is_no_fraction(exercises, p):
    """A p outside 0 to 1 raises ValueError."""
    with pytest.raises(ValueError):
        exercises.min_p_filter(torch.tensor([[1.0, 2.0, 3.0]]), p)


@exercise("min_p_filter")
@pytest.mark.parametrize("penalty", [1.3, 2.0, 0.7])
def test_penalty_by_sign(exercises, rng, penalty):
    """Seen logits above 0 are divided, those below 0 multiplied."""
    logits, prev_ids = 3 * rng.normal(4, 9), rng.integers(0, 9, 4, 6)
    expected = logits.clone()
    for row, ids in enumerate(prev_ids.tolist()):
        for i in set(ids):
            expected[row, i] *= penalty if expected[row, i] < 0 else 1 / penalty
    got = pure(exercises.repetition_penalty, logits, prev_ids, penalty)
    close(got, expected, f"repetition_penalty with penalty {penalty}")
    unseen = torch.tensor([[i not in ids for i in range(9)] for ids in prev_ids.tolist()])
    exact(got[unseen], logits[unseen], "the unseen logits")


@exercise("min_p_filter")
def test_penalty_counts_an_id_once(exercises):
    """An id that occurred three times is penalised like one that did once."""
    logits = torch.tensor([[8.0, -8.0, 8.0, -8.0]])
    got = exercises.repetition_penalty(logits, torch.tensor([[0, 0, 3, 0, 3]]), 2.0)
    close(got, torch.tensor([[4.0, -8.0, 8.0, -16.0]]), "repetition_penalty with repeated ids")


@exercise("min_p_filter")
def test_penalty_looks_at_the_own_row(exercises):
    """The ids of one row leave the other rows alone."""
    logits = torch.full((3, 5), 6.0)
    got = exercises.repetition_penalty(logits, torch.tensor([[0, 1], [4, 4], [2, 0]]), 3.0)
    expected = torch.tensor([[2.0, 2.0, 6.0, 6.0, 6.0], [6.0, 6.0, 6.0, 6.0, 2.0], [2.0, 6.0, 2.0, 6.0, 6.0]])
    close(got, expected, "repetition_penalty of three equal rows")


@exercise("min_p_filter")
def test_penalty_leaves_zero_and_removed_tokens(exercises):
    """Zero stays zero and minus infinity stays minus infinity."""
    logits = torch.tensor([[0.0, -INF, 2.0], [-INF, -1.0, 0.0]])
    expected = torch.tensor([[0.0, -INF, 0.5], [-INF, -4.0, 0.0]])
    close(exercises.repetition_penalty(logits, torch.tensor([[0, 1, 2], [2, 1, 0]]), 4.0), expected, "0 and -inf seen")
    twice = torch.tensor([[0.0, -INF, 4.0], [-INF, -0.5, 0.0]])
    close(exercises.repetition_penalty(logits, torch.tensor([[0, 1, 2], [2, 1, 0]]), 0.5), twice, "rewarded")


@exercise("min_p_filter")
def test_penalty_that_has_nothing_to_do(exercises, rng):
    """A penalty of 1, or no ids so far, changes no bit."""
    logits = rng.normal(3, 5).float()
    exact(exercises.repetition_penalty(logits, rng.integers(0, 5, 3, 4), 1.0), logits, "penalty 1")
    exact(exercises.repetition_penalty(logits, torch.zeros(3, 0, dtype=torch.int64), 1.7), logits, "no ids so far")


@exercise("min_p_filter")
def test_penalty_refuses_zero_and_below(exercises):
    """A penalty of 0 or below raises ValueError."""
    for penalty in (0.0, -1.2):
        with pytest.raises(ValueError):
            exercises.repetition_penalty(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]), penalty)


# -- 10.5 ----------------------------------------------------------------------------------------------------------

N = 20_000


@exercise("sample", weight=2)
def test_sample_follows_the_probabilities(exercises, rng):
    """Over 20000 rows the draws follow the probabilities."""
    probs = torch.tensor([0.05, 0.3, 0.0, 0.02, 0.25, 0.18, 0.2], dtype=torch.float64)
    ids = exercises.sample(probs.expand(N, 7), rng.generator())
    exact((ids.shape, ids.dtype), ((N,), torch.int64), "shape and dtype of the draws")
    same_distribution(torch.bincount(ids, minlength=7), probs, "20000 draws of sample")


@exercise("sample")
def test_sample_uses_each_rows_own_probabilities(exercises, rng):
    """Each row is drawn from its own distribution."""
    pair = torch.tensor([[0.6, 0.1, 0.0, 0.3], [0.1, 0.2, 0.65, 0.05]], dtype=torch.float64)
    ids = exercises.sample(pair.repeat(N // 2, 1), rng.generator()).view(-1, 2)
    for row in (0, 1):
        same_distribution(torch.bincount(ids[:, row], minlength=4), pair[row], f"draws of every second row from {row}")


@exercise("sample")
def test_sample_draws_rows_independently(exercises, rng):
    """One row's draw says nothing about the next row's."""
    probs = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    ids = exercises.sample(probs.expand(N, 3), rng.generator()).view(-1, 2)
    pairs = torch.bincount(ids[:, 0] * 3 + ids[:, 1], minlength=9)
    same_distribution(pairs, (probs[:, None] * probs).flatten(), "pairs of neighbouring draws")


@exercise("sample")
def test_sample_never_draws_the_impossible(exercises, rng):
    """Ids of probability 0 are never drawn, wherever they stand."""
    rows = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.25, 0.0, 0.0, 0.0, 0.75]])
    for dtype in (torch.float32, torch.float64):
        probs = rows.to(dtype).repeat(3000, 1)
        ids = exercises.sample(probs, rng.generator())
        holds(bool(((ids >= 0) & (ids < 5)).all()), "every draw is an id of the vocabulary")
        holds(bool((probs.gather(1, ids[:, None]) > 0).all()), "every drawn id has a probability above 0")


@exercise("sample")
def test_sample_takes_a_certain_token(exercises, rng):
    """A row with one certain token gives that token."""
    order = rng.permutation(6)
    ids = exercises.sample(torch.eye(6, dtype=torch.float64)[order], rng.generator())
    exact(ids, order, "draws from one-hot rows")
    exact(exercises.sample(torch.ones(1, 1), rng.generator()), torch.tensor([0]), "a vocabulary of one")


@driver
def probs_after_sample(module, probs):
    """Draw once; give what is then in the caller's tensor."""
    import torch

    module.sample(probs, torch.Generator().manual_seed(5))
    return probs


@exercise("sample")
def test_sample_leaves_the_probabilities_alone(exercises, rng):
    """The probabilities are not changed."""
    probs = torch.softmax(rng.normal(4, 6), -1)
    exact(exercises.run(probs_after_sample, probs), probs, "the caller's probabilities after sample")


@exercise("sample")
def test_sample_is_moved_by_the_generator_alone(exercises, rng):
    """Equal states draw alike; a second draw moves on; seeds matter."""
    probs = torch.full((200, 5), 0.2, dtype=torch.float64)
    first, second = torch.Generator().manual_seed(rng.seed), torch.Generator().manual_seed(rng.seed)
    one = exercises.sample(probs, first)
    exact(exercises.sample(probs, second), one, "a draw from an equal state")
    two = exercises.sample(probs, first)
    holds(not torch.equal(one, two), "a second draw from the same generator differs from the first")
    exact(exercises.sample(probs, second), two, "the second draw from an equal state")
    other = exercises.sample(probs, torch.Generator().manual_seed(rng.seed + 1))
    holds(not torch.equal(one, other), "another seed gives other draws")


@exercise("sample")
def test_sample_stays_in_range_in_float32(exercises, rng):
    """Rounding over a large float32 vocabulary gives no id out of range."""
    probs = torch.softmax(rng.normal(40, 5003).float(), -1)
    for _ in range(5):
        ids = exercises.sample(probs, rng.generator())
        holds(bool(((ids >= 0) & (ids < 5003)).all()), "every draw is an id of the vocabulary")


@exercise("sample")
def test_gumbel_agrees_with_the_exponential_race(exercises, rng):
    """The winner is the one whose exponential clock rings first."""
    logits, u = (2 * rng.normal(60, 7)).float().double(), rng.uniform(60, 7).clamp(1e-6, 1 - 1e-6).float().double()
    clocks = -torch.log(u) / torch.exp(logits)  # the same law, written without Gumbel noise
    first, second = clocks.sort(-1).values[:, :2].T
    clear = second > 1.001 * first  # a photo finish may fall either way in float32
    logits, u, race = logits[clear], u[clear], clocks.argmin(-1)[clear]
    exact(pure(exercises.gumbel_argmax, logits, u), race, "gumbel_argmax of some sixty rows")
    exact(exercises.gumbel_argmax(logits.float(), u.float()), race, "the same in float32")


@exercise("sample")
def test_gumbel_follows_the_softmax(exercises, rng):
    """With uniform u the winners follow softmax(logits)."""
    logits = torch.tensor([0.4, -1.0, -INF, 1.2, 0.0], dtype=torch.float64)
    ids = exercises.gumbel_argmax(logits.expand(N, 5), rng.uniform(N, 5))
    exact((ids.shape, ids.dtype), ((N,), torch.int64), "shape and dtype of the winners")
    same_distribution(torch.bincount(ids, minlength=5), torch.softmax(logits, -1), "20000 winners")


@exercise("sample", weight=2)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_noise_is_finite_at_both_ends(exercises, dtype):
    """Neither u = 0 nor u = 1 decides against a lead of a thousand."""
    logits = torch.tensor([[3.0, 1.0, 4.0], [2.0, 1.0, 2.5], [1000.0, 0.0, 0.0], [1000.0, 0.0, 0.0]], dtype=dtype)
    u = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 1.0, 0.5], [0.0, 0.5, 0.5]], dtype=dtype)
    exact(pure(exercises.gumbel_argmax, logits, u), torch.tensor([2, 2, 0, 0]), "gumbel_argmax with u of 0 and 1")


@exercise("sample")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gumbel_never_brings_back_the_removed(exercises, dtype):
    """A logit of minus infinity never wins, not even with u = 1."""
    logits = torch.tensor([[-INF, 0.0, -2.0], [-5.0, -INF, -INF]], dtype=dtype)
    u = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], dtype=dtype)
    exact(exercises.gumbel_argmax(logits, u), torch.tensor([1, 0]), "gumbel_argmax with removed tokens and u = 1")


@exercise("sample")
def test_gumbel_clamps_where_the_dtype_ends(exercises):
    """The clamp stands at the dtype's own ends, not nearer."""
    # noise in float64: 36.0 at u=1, -6.6 at u=0; in float32: 15.9 and -4.5; 0.37 at u=0.5
    for dtype, lead_up, lead_down in ((torch.float64, 32.0, 6.0), (torch.float32, 14.0, 4.0)):
        logits = torch.tensor([[lead_up, 0.0], [lead_down, 0.0]], dtype=dtype)
        u = torch.tensor([[0.5, 1.0], [0.0, 0.5]], dtype=dtype)
        exact(exercises.gumbel_argmax(logits, u), torch.tensor([1, 1]), f"u of 1 and 0 in {dtype}")


@exercise("sample")
def test_gumbel_ties_go_to_the_lowest_id(exercises):
    """Equal sums give the lowest id."""
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    exact(exercises.gumbel_argmax(logits, torch.full((2, 4), 0.3)), torch.tensor([1, 0]), "equal sums")


# -- 10.6 ----------------------------------------------------------------------------------------------------------


class Tree:
    """A language model with its own random distribution after every prefix; it records what it was asked for."""

    def __init__(self, rng, vocab, depth, bos, eos, eos_bonus=0.0):
        self.bos, self.eos, self.depth, self.asked, self.dtypes = bos, eos, depth, [], set()
        self.table = {}
        for length in range(depth):
            for prefix in itertools.product(range(vocab), repeat=length):
                logits = 1.5 * rng.normal(vocab)
                logits[eos] += eos_bonus
                self.table[prefix] = torch.log_softmax(logits, -1)

    def __call__(self, ids):
        prefixes = [tuple(row) for row in ids.tolist()]
        self.dtypes.add(ids.dtype)
        self.asked += prefixes
        return torch.stack([self.table[prefix[1:]] for prefix in prefixes])

    def total(self, ids):
        return sum(float(self.table[tuple(ids[:i])][token]) for i, token in enumerate(ids))

    def complete(self):
        """Every sequence that ends in eos or reaches the depth."""
        vocab = len(self.table[()])
        for length in range(1, self.depth + 1):
            for ids in itertools.product(range(vocab), repeat=length):
                if self.eos not in ids[:-1] and (ids[-1] == self.eos or length == self.depth):
                    yield list(ids)


def beams_by_hand(tree, beam, alpha):
    """The contract once more, over plain lists of whole sequences."""
    live, done = [[]], []
    for _ in range(tree.depth):
        longer = [[*ids, token] for ids in live for token in range(len(tree.table[()]))]
        best = sorted(longer, key=tree.total, reverse=True)[:beam]
        done += [ids for ids in best if ids[-1] == tree.eos]
        live = [ids for ids in best if ids[-1] != tree.eos]
    return max(done + live, key=lambda ids: tree.total(ids) / len(ids) ** alpha)


@exercise("beam_search", weight=2)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 1.7])
def test_beam_wide_enough_finds_the_optimum(exercises, rng, alpha):
    """A beam of V ** (max_len - 1) finds the best sequence of all."""
    for eos in (0, 1, 2):
        tree = Tree(rng, 3, 4, 7, eos)
        best = max(tree.complete(), key=lambda ids: tree.total(ids) / len(ids) ** alpha)
        ids, score = exercises.beam_search(tree, 7, eos, 27, 4, alpha)
        exact(ids, best, f"the ids found with beam=27, length_alpha={alpha}")
        close(score, tree.total(best) / len(best) ** alpha, f"their score with length_alpha={alpha}")


@exercise("beam_search")
def test_beam_of_one_is_greedy(exercises, rng):
    """One hypothesis follows the most likely token until eos."""
    for bonus in (-2.0, 0.0, 1.0):
        tree = Tree(rng, 4, 5, 0, 3, bonus)
        greedy = []
        while len(greedy) < 5 and 3 not in greedy:
            greedy.append(int(tree.table[tuple(greedy)].argmax()))
        ids, score = exercises.beam_search(tree, 0, 3, 1, 5)
        exact(ids, greedy, "the ids found with one beam")
        close(score, tree.total(greedy), "the score found with one beam")


@exercise("beam_search", weight=2)
@pytest.mark.parametrize("beam", [2, 3, 5])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_beam_keeps_the_best_few(exercises, rng, beam, alpha):
    """At each step the best `beam` extensions are kept, and no others."""
    for _ in range(8):
        tree = Tree(rng, 4, 4, 9, 2, 0.5)
        expected = beams_by_hand(tree, beam, alpha)
        ids, score = exercises.beam_search(tree, 9, 2, beam, 4, alpha)
        exact(ids, expected, f"the ids found with beam={beam}, length_alpha={alpha}")
        close(score, tree.total(expected) / len(expected) ** alpha, f"the score found with beam={beam}")


@exercise("beam_search")
@pytest.mark.parametrize("beam", [1, 2, 4])
def test_beam_asks_for_no_more_than_it_keeps(exercises, rng, beam):
    """At most `beam` prefixes of each length are looked up, each once."""
    tree = Tree(rng, 5, 4, 8, 1)
    exercises.beam_search(tree, 8, 1, beam, 4)
    exact(tree.dtypes, {torch.int64}, "the dtype of the ids that were looked up")
    exact(len(set(tree.asked)), len(tree.asked), "how many different prefixes were looked up")
    lengths = [len(prefix) for prefix in tree.asked]
    holds(max(lengths) <= 4, "no prefix longer than max_len, bos included, is looked up")
    holds(all(lengths.count(t) <= beam for t in lengths), f"at most {beam} prefixes of each length are looked up")
    holds(all(prefix[0] == 8 and 1 not in prefix for prefix in tree.asked), "prefixes begin with bos and hold no eos")


def scripted(after):
    """A model given by probabilities after each sequence of generated ids; anything else ends at once with id 0."""
    width = len(next(iter(after.values())))

    def logprobs(ids):
        rows = [after.get(tuple(row[1:]), [1.0] + [0.0] * (width - 1)) for row in ids.tolist()]
        return torch.tensor(rows, dtype=torch.float64).log()

    return logprobs


@exercise("beam_search")
def test_beam_goes_on_after_the_first_end(exercises):
    """A hypothesis that ends later may win."""
    model = scripted({(): [0.3, 0.7, 0.0], (1,): [0.1, 0.0, 0.9], (1, 2): [1.0, 0.0, 0.0]})
    ids, score = exercises.beam_search(model, 5, 0, 2, 4)
    exact(ids, [1, 2, 0], "the ids: [0] ends first with 0.3, [1, 2, 0] has 0.63")
    close(score, math.log(0.63), "their score")


@exercise("beam_search")
def test_beam_remembers_what_ended_early(exercises):
    """A hypothesis that ended early wins if nothing later beats it."""
    model = scripted({(): [0.4, 0.6, 0.0], (1,): [0.0, 0.5, 0.5], (1, 1): [0.0, 0.5, 0.5], (1, 2): [0.0, 0.5, 0.5]})
    ids, score = exercises.beam_search(model, 5, 0, 2, 3)
    exact(ids, [0], "the ids: [0] has 0.4, all longer ones at most 0.15")
    close(score, math.log(0.4), "their score")


@exercise("beam_search")
def test_beam_frees_the_place_of_what_ended(exercises):
    """What ended takes no place from the hypotheses that live on."""
    # step 2 keeps two extensions of [1] although [0] has ended; only the second of them pays off
    model = scripted(
        {(): [0.45, 0.55, 0.0], (1,): [0.0, 0.51, 0.49], (1, 1): [0.25, 0.25, 0.5], (1, 2): [1.0, 0.0, 0.0]}
    )
    ids, _ = exercises.beam_search(model, 5, 0, 2, 3, 1.0)
    exact(ids, [1, 2, 0], "the ids found with two beams and length_alpha=1")


@exercise("beam_search")
def test_beam_lets_the_unfinished_compete(exercises):
    """At max_len a hypothesis that has not ended may win."""
    model = scripted({(): [0.1, 0.9, 0.0], (1,): [0.2, 0.0, 0.8]})
    ids, score = exercises.beam_search(model, 5, 0, 3, 2)
    exact(ids, [1, 2], "the ids found with max_len=2")
    close(score, math.log(0.72), "their score")


@exercise("beam_search")
def test_beam_length_leaves_out_bos(exercises):
    """The length that divides counts generated tokens, eos but not bos."""
    model = scripted({(): [0.5, 0.5 - 1e-6, 1e-6], (1,): [0.2, 0.0, 0.8], (1, 2): [1.0, 0.0, 0.0]})
    for alpha in (0.5, 1.0, 2.0):
        ids, score = exercises.beam_search(model, 5, 0, 4, 3, alpha)
        exact(ids, [1, 2, 0], f"the ids with length_alpha={alpha}")
        close(score, math.log((0.5 - 1e-6) * 0.8) / 3**alpha, f"the score with length_alpha={alpha}")
    exact(exercises.beam_search(model, 5, 0, 4, 3)[0], [0], "the ids without length_alpha")


@exercise("beam_search")
def test_beam_bos_may_be_eos(exercises):
    """The same id may stand for the beginning and for the end."""
    model = scripted({(): [0.1, 0.2, 0.7], (2,): [0.2, 0.8, 0.0], (2, 1): [0.9, 0.1, 0.0]})
    for beam in (1, 2):
        ids, score = exercises.beam_search(model, 0, 0, beam, 6)
        exact(ids, [2, 1, 0], "the ids where 0 is bos and eos")
        close(score, math.log(0.7 * 0.8 * 0.9), "their score")


@exercise("beam_search")
def test_beam_drops_the_impossible(exercises):
    """Extensions of probability 0 are never kept, however wide the beam."""
    after = {(): [0.0, 0.6, 0.4], (1,): [0.5, 0.5, 0.0], (2,): [1.0, 0.0, 0.0], (1, 1): [1.0, 0.0, 0.0]}
    asked, model = [], scripted(after)

    def recording(ids):
        asked.extend(tuple(row[1:]) for row in ids.tolist())
        return model(ids)

    ids, score = exercises.beam_search(recording, 5, 0, 10, 4)
    exact((ids, set(asked) - set(after)), ([2, 0], set()), "the ids, and the impossible prefixes looked up")
    close(score, math.log(0.4), "their score")


@exercise("beam_search")
def test_beam_of_one_step(exercises, rng):
    """With max_len 1 the best single token is found."""
    tree = Tree(rng, 6, 1, 3, 4)
    for beam in (1, 2, 50):
        ids, score = exercises.beam_search(tree, 3, 4, beam, 1, 0.8)
        exact(ids, [int(tree.table[()].argmax())], f"the ids with max_len=1 and beam={beam}")
        close(score, float(tree.table[()].max()), "their score")


@exercise("beam_search")
def test_beam_stops_when_nothing_lives(exercises):
    """Once every hypothesis has ended, the model is asked no more."""
    model = counting(scripted({(): [0.5, 0.5], (1,): [1.0, 0.0]}))
    ids, _ = exercises.beam_search(model, 5, 0, 1, 100)
    holds(model.calls <= 2, "at most two look-ups are needed")
    holds(ids in ([0], [1, 0]), "a sequence that ends is found")


@exercise("beam_search")
def test_beam_works_in_float32(exercises, rng):
    """float32 log-probabilities give the same ids and a float."""
    tree = Tree(rng, 4, 3, 9, 0)
    ids, score = exercises.beam_search(lambda x: tree(x).float(), 9, 0, 16, 3)
    best = max(tree.complete(), key=tree.total)
    exact(ids, best, "the ids found from float32 log-probabilities")
    roughly(score, tree.total(best), 1e-5, "their score")  # three float32 roundings of numbers below 20


@exercise("beam_search")
def test_beam_refuses_less_than_one(exercises):
    """A beam or max_len below 1 raises ValueError."""
    for beam, max_len in ((0, 3), (-1, 3), (2, 0), (2, -4)):
        with pytest.raises(ValueError):
            exercises.beam_search(scripted({(): [0.5, 0.5]}), 5, 0, beam, max_len)


# -- 10.7 ----------------------------------------------------------------------------------------------------------


def context_model(rng, vocab):
    """A causal model whose logits depend on all ids of the context and on where each of them stands."""
    table = 3 * rng.normal(97, vocab)

    def model(ids):
        places = torch.arange(1, ids.shape[1] + 1)
        return table[(ids * places**2).cumsum(1) % 97]  # (B, T, V)

    return model


def greedy(logits):
    """The most likely id of each row."""
    return logits.argmax(-1)


def script(columns):
    """A sampler that gives the columns of a table one after another."""
    columns = iter(torch.tensor(columns).T)
    return lambda logits: next(columns).clone()


def flat_model(ids):
    """A model of ten ids that has no opinion."""
    return torch.zeros(*ids.shape, 10, dtype=torch.float64)


@exercise("generate")
def test_generate_is_one_forward_a_token(exercises, rng):
    """Each call of the model gets the prompt and all that was generated."""
    model, ids = counting(context_model(rng, 11)), rng.integers(0, 11, 3, 4)
    got = exercises.generate(model, ids, 5, greedy)
    exact((got.shape, got.dtype), ((3, 9), torch.int64), "shape and dtype of the result")
    exact(got[:, :4], ids, "the prompt")
    exact(model.calls, 5, "how often the model was called for 5 tokens")
    for step, (context,) in enumerate(model.arguments):
        exact(context, got[:, : 4 + step], f"what the model was given at step {step}")


@exercise("generate")
def test_generate_equals_row_by_row(exercises, rng):
    """A batch gives what its rows give one by one."""
    model, ids = context_model(rng, 7), rng.integers(0, 7, 5, 3)
    together = exercises.generate(model, ids, 9, greedy, 2, 6)
    alone = torch.cat([exercises.generate(model, row[None], 9, greedy, 2, 6) for row in ids])
    exact(together, alone, "five rows together and one by one")


@exercise("generate")
def test_generate_hands_the_last_logits_to_the_sampler(exercises, rng):
    """The sampler gets the raw logits of the last position, all rows."""
    model, ids = context_model(rng, 6), rng.integers(0, 6, 4, 3)
    least = counting(lambda logits: logits.argmin(-1))
    got = exercises.generate(model, ids, 3, least)
    exact(least.calls, 3, "how often the sampler was called for 3 tokens")
    for step, args in enumerate(least.arguments):
        logits = model(got[:, : 3 + step])[:, -1]
        exact(args[0], logits, f"what the sampler was given at step {step}")
        exact(got[:, 3 + step], logits.argmin(-1), f"the ids of step {step}")


@exercise("generate", weight=2)
@pytest.mark.parametrize(("eos", "pad"), [(7, 0), (0, 5), (7, 7), (0, 1)])
def test_generate_ends_each_row_at_its_own_eos(exercises, eos, pad):
    """A row keeps its eos, then gets pad, whatever the sampler still says."""
    E = eos
    drawn = [[1, 2, 3, 4, 5], [E, 2, 3, 4, 5], [1, E, E, 4, 5], [1, 2, 3, 4, E], [1, 2, E, 1, E]]
    expected = [[1, 2, 3, 4, 5], [E] + [pad] * 4, [1, E] + [pad] * 3, [1, 2, 3, 4, E], [1, 2, E, pad, pad]]
    prompt = torch.tensor([[3, 8], [4, 8], [5, 8], [6, 8], [8, 8]])
    got = exercises.generate(flat_model, prompt, 5, script(drawn), eos, pad)
    exact(got, torch.cat([prompt, torch.tensor(expected)], 1), f"generate with eos={eos}, pad={pad}")


@exercise("generate")
def test_generate_default_pad_is_zero(exercises):
    """Without a pad argument ended rows get 0."""
    got = exercises.generate(flat_model, torch.tensor([[1], [1]]), 3, script([[4, 2, 2], [2, 4, 3]]), eos=4)
    exact(got, torch.tensor([[1, 4, 0, 0], [1, 2, 4, 0]]), "generate with eos=4")


@exercise("generate")
def test_generate_without_eos_never_ends(exercises):
    """With eos None every row runs to the end, pads or not."""
    drawn = [[0, 0, 3, 9], [9, 0, 0, 1]]
    got = exercises.generate(flat_model, torch.tensor([[1], [2]]), 4, script(drawn), pad=9)
    exact(got, torch.tensor([[1, *drawn[0]], [2, *drawn[1]]]), "generate without eos, pad=9")


@exercise("generate")
def test_generate_drawn_pad_does_not_end(exercises):
    """A row that draws the id of the pad goes on."""
    got = exercises.generate(flat_model, torch.tensor([[1]]), 4, script([[9, 0, 9, 4]]), eos=4, pad=9)
    exact(got, torch.tensor([[1, 9, 0, 9, 4]]), "generate that draws the pad before its eos")


@exercise("generate")
@pytest.mark.parametrize("eos", [4, 0])
def test_generate_rests_when_all_have_ended(exercises, eos):
    """After the last row's eos neither model nor sampler is called."""
    model, sampler = counting(flat_model), counting(script([[1, eos] + [1] * 4, [eos] + [1] * 5]))
    got = exercises.generate(model, torch.tensor([[1], [2]]), 6, sampler, eos=eos, pad=7)
    exact(got, torch.tensor([[1, 1, eos, 7, 7, 7, 7], [2, eos, 7, 7, 7, 7, 7]]), "generate whose rows all end")
    exact((model.calls, sampler.calls), (2, 2), "calls of the model and of the sampler")


@exercise("generate")
def test_generate_eos_in_the_prompt_ends_nothing(exercises):
    """Only an eos that was generated ends a row."""
    prompt, drawn = torch.tensor([[4, 1, 4], [4, 4, 2]]), [[3, 2, 4], [4, 1, 1]]
    got = exercises.generate(flat_model, prompt, 3, script(drawn), 4, 8)
    exact(got, torch.tensor([[4, 1, 4, 3, 2, 4], [4, 4, 2, 4, 8, 8]]), "generate whose prompt holds eos")


@exercise("generate")
@pytest.mark.parametrize("T_max", [1, 3, 5, 6, 20])
def test_generate_crops_the_context_from_the_left(exercises, rng, T_max):
    """A model with T_max sees the last T_max ids and no more."""
    plain, ids = context_model(rng, 9), rng.integers(0, 9, 2, 5)
    model = counting(stand_in(plain, T_max=T_max))
    got = exercises.generate(model, ids, 4, greedy)
    exact((got.shape, model.calls), ((2, 9), 4), "shape of the result and calls of the model")
    for step, args in enumerate(model.arguments):
        exact(args[0], got[:, : 5 + step][:, -T_max:], f"what the model was given at step {step}, T_max={T_max}")
    exact(got[:, :5], ids, "the prompt, uncropped")
    exact(got[:, -1], plain(got[:, :-1][:, -T_max:])[:, -1].argmax(-1), "the last ids")


@exercise("generate")
def test_generate_nothing(exercises):
    """With n_new 0 the prompt comes back and nothing is called."""
    model, ids = counting(flat_model), torch.tensor([[1, 2], [3, 4]])
    exact(exercises.generate(model, ids, 0, greedy, 2), ids, "generate with n_new=0")
    exact(model.calls, 0, "calls of the model")


@driver
def ids_after_generate(module, ids):
    """Generate three tokens from a model of ten ids; give what is then in the caller's tensor."""
    import torch

    module.generate(lambda x: torch.eye(10)[(x + 1) % 10], ids, 3, lambda logits: logits.argmax(-1), 4, 9)
    return ids


@exercise("generate")
def test_generate_leaves_the_prompt_alone(exercises):
    """The caller's prompt is not changed."""
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    exact(exercises.run(ids_after_generate, ids), ids, "the caller's ids after generate")


@exercise("generate")
def test_generate_calls_are_independent(exercises):
    """A second call starts afresh: no row is still ended."""
    ids = torch.tensor([[1]])
    first = exercises.generate(flat_model, ids, 2, script([[4, 1]]), 4, 9)
    second = exercises.generate(flat_model, ids, 2, script([[2, 3]]), 4, 9)
    exact((first.tolist(), second.tolist()), ([[1, 4, 9]], [[1, 2, 3]]), "two calls of generate")


# -- 10.8 ----------------------------------------------------------------------------------------------------------


@exercise("LogitsPipeline", weight=2)
def test_pipeline_is_composition(exercises, rng):
    """Steps run once each, from left to right, on what came before."""
    logits, ids = rng.normal(2, 5), rng.integers(0, 5, 2, 3)
    steps = [
        counting(f)
        for f in (lambda x, i: x * 3, lambda x, i: x + 1, lambda x, i: x**2, lambda x, i: x[:, [1, 0, 2, 3, 4]])
    ]
    got = pure(exercises.LogitsPipeline(*steps), logits, ids)
    exact(got, ((logits * 3 + 1) ** 2)[:, [1, 0, 2, 3, 4]], "a pipeline of four steps")
    exact([step.calls for step in steps], [1, 1, 1, 1], "how often each step was called")


@exercise("LogitsPipeline")
def test_pipeline_gives_the_ids_to_every_step(exercises, rng):
    """Every step gets the ids so far."""
    logits, ids = rng.normal(2, 5), rng.integers(0, 5, 2, 3)
    steps = [counting(lambda x, i: x + i.sum(1, keepdim=True)) for _ in range(3)]
    got = exercises.LogitsPipeline(*steps)(logits, ids)
    close(got, logits + 3 * ids.sum(1, keepdim=True), "a pipeline of three steps that add the ids")
    for step in steps:
        exact(step.arguments[0][1], ids, "the ids that a step was given")


@exercise("LogitsPipeline")
def test_pipeline_without_steps(exercises, rng):
    """A pipeline of no steps gives the logits as they are."""
    logits = rng.normal(3, 4)
    logits[1, 2] = -INF
    exact(exercises.LogitsPipeline()(logits, rng.integers(0, 4, 3, 2)), logits, "a pipeline of no steps")


@exercise("LogitsPipeline")
def test_pipeline_refuses_an_emptied_row(exercises):
    """A row without any token left raises ValueError, others do not help."""
    ids = torch.tensor([[0], [1]])

    def above(bound):
        return lambda logits, prev_ids: logits.masked_fill(logits <= bound, -INF)

    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    kept = exercises.LogitsPipeline(above(2))(logits, ids)
    exact(kept, torch.tensor([[-INF, -INF, 3.0], [4.0, 5.0, 6.0]]), "a pipeline that leaves one token in a row")
    with pytest.raises(ValueError):
        exercises.LogitsPipeline(above(1), above(3))(logits, ids)
    with pytest.raises(ValueError):
        exercises.LogitsPipeline(above(9))(logits, ids)


@driver
def after_a_step_in_place(module, logits, prev_ids):
    """Run a pipeline whose steps work in place; give its result and the caller's tensor."""
    pipeline = module.LogitsPipeline(lambda x, ids: x.mul_(2), lambda x, ids: x.add_(1))
    return pipeline(logits, prev_ids), logits


@exercise("LogitsPipeline")
def test_pipeline_shields_the_caller(exercises, rng):
    """A step that works in place leaves the caller's logits alone."""
    logits = rng.normal(2, 4)
    got, after = exercises.run(after_a_step_in_place, logits, NO_IDS.expand(2, 0))
    exact(got, logits * 2 + 1, "a pipeline of steps in place")
    exact(after, logits, "the caller's logits afterwards")


@exercise("LogitsPipeline")
def test_pipelines_share_nothing(exercises, rng):
    """Two pipelines do not mix, and a call leaves no trace."""
    double = exercises.LogitsPipeline(lambda logits, ids: logits * 2)
    plus = exercises.LogitsPipeline(lambda logits, ids: logits + 1)
    small, large = rng.normal(1, 3), rng.normal(4, 6)
    for logits in (small, large, small):
        ids = torch.zeros(len(logits), 2, dtype=torch.int64)
        exact(double(logits, ids), logits * 2, "the pipeline that doubles")
        exact(plus(logits, ids), logits + 1, "the pipeline that adds one")


@exercise("LogitsPipeline")
def test_standard_defaults_are_neutral(exercises, rng):
    """With the defaults no bit changes."""
    logits = 5 * rng.normal(3, 6)
    logits[0, 1], logits[1, 2], logits[1, 3], logits[2, 0] = -INF, 1000.0, -1000.0, 0.0
    pipeline = exercises.standard_pipeline()
    for x in (logits, logits.float()):
        exact(pure(pipeline, x, rng.integers(0, 6, 3, 4)), x, "the neutral pipeline")


def standard_by_hand(logits, prev_ids, penalty, temperature, k, p, min_p):
    """The five steps for one row after another, on plain numbers."""
    rows = []
    for row, seen in zip(logits.tolist(), prev_ids.tolist(), strict=True):
        row = [x if i not in seen else x / penalty if x > 0 else x * penalty for i, x in enumerate(row)]
        row = torch.tensor([x / temperature for x in row], dtype=torch.float64)
        if k is not None:
            row = only(row, row >= row.sort(descending=True).values[min(k, len(row)) - 1])
        row = row if p == 1 else only(row, nucleus(row, p))
        rows.append(row if min_p == 0 else only(row, row >= row.max() + math.log(min_p)))
    return torch.stack(rows)


SETTINGS = [
    dict(penalty=1.7),
    dict(temperature=0.6),
    dict(temperature=2),
    dict(k=3),
    dict(p=0.62),
    dict(min_p=0.3),
    dict(p=0.0),
    dict(min_p=1.0, k=4),
    dict(penalty=1.4, temperature=1.8, k=6, p=0.83, min_p=0.17),
    dict(penalty=0.8, temperature=0.7, k=4, p=0.91, min_p=0.06),
    dict(penalty=2.5, temperature=3.0, p=0.7, min_p=0.45),
    dict(temperature=1.5, k=100, p=0.77),
]


@exercise("LogitsPipeline", weight=2)
@pytest.mark.parametrize("setting", SETTINGS, ids=[str(i) for i in range(len(SETTINGS))])
def test_standard_is_the_five_steps_in_order(exercises, rng, setting):
    """Penalty, temperature, top-k, top-p, min-p, each on the last's result."""
    logits, ids = 2 * rng.normal(12, 9), rng.integers(0, 9, 12, 4)
    whole = dict(penalty=1.0, temperature=1.0, k=None, p=1.0, min_p=0.0) | setting
    got = pure(exercises.standard_pipeline(**setting), logits, ids)
    expected = standard_by_hand(logits, ids, **whole)
    close(got, expected, f"standard_pipeline with {setting}")


@exercise("LogitsPipeline")
def test_standard_top_k_comes_before_top_p(exercises):
    """Top-p measures mass among what top-k left."""
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()
    got = exercises.standard_pipeline(k=2, p=0.55)(logits, NO_IDS)  # 0.4 is 0.571 of the two that are left
    exact(got, only(logits, [[True, False, False, False]]), "k=2, p=0.55 of (0.4, 0.3, 0.2, 0.1)")


@exercise("LogitsPipeline")
def test_standard_top_p_comes_before_min_p(exercises):
    """Top-p measures mass before min-p removes anything."""
    logits = torch.tensor([[0.5, 0.2, 0.16, 0.14]], dtype=torch.float64).log()
    got = exercises.standard_pipeline(p=0.705, min_p=0.35)(logits, NO_IDS)
    exact(got, only(logits, [[True, True, False, False]]), "p=0.705, min_p=0.35 of (0.5, 0.2, 0.16, 0.14)")


@exercise("LogitsPipeline")
def test_standard_temperature_comes_before_the_filters(exercises):
    """Top-p and min-p see the distribution after the temperature."""
    logits = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    hot = exercises.standard_pipeline(temperature=4.0, p=0.6)(logits, NO_IDS)
    close(hot, only(logits / 4, [[True, True, False]]), "temperature 4 and p=0.6")
    sieved = exercises.standard_pipeline(temperature=4.0, min_p=0.7)(logits, NO_IDS)  # (2/7)^(1/4) is 0.731
    close(sieved, only(logits / 4, [[True, True, False]]), "temperature 4 and min_p=0.7")


@exercise("LogitsPipeline")
@pytest.mark.parametrize("zero", [0, 0.0])
def test_standard_temperature_zero_keeps_the_favourite(exercises, zero):
    """At temperature 0 one token is left, after the penalty has spoken."""
    logits = torch.tensor([[4.0, 3.0, 1.0], [2.0, 5.0, 5.0]])
    got = exercises.standard_pipeline(temperature=zero)(logits, NO_IDS.expand(2, 0))
    exact(got, only(logits, [[True, False, False], [False, True, False]]), "temperature 0")
    got = exercises.standard_pipeline(penalty=2.0, temperature=zero, k=2, p=0.5, min_p=1.0)(
        logits, torch.tensor([[0], [1]])
    )
    exact(got, only(logits, [[False, True, False], [False, False, True]]), "temperature 0 after a penalty of 2")


@exercise("LogitsPipeline")
def test_standard_pipelines_keep_their_own_settings(exercises, rng):
    """A pipeline made later does not change an earlier one."""
    logits, ids = rng.normal(3, 7), rng.integers(0, 7, 3, 2)
    first, second = exercises.standard_pipeline(k=2, temperature=0.5), exercises.standard_pipeline(k=5, penalty=3.0)
    close(first(logits, ids), standard_by_hand(logits, ids, 1.0, 0.5, 2, 1.0, 0.0), "the first pipeline")
    close(second(logits, ids), standard_by_hand(logits, ids, 3.0, 1.0, 5, 1.0, 0.0), "the second pipeline")
    close(first(logits, ids), standard_by_hand(logits, ids, 1.0, 0.5, 2, 1.0, 0.0), "the first pipeline again")


@exercise("LogitsPipeline")
@settings(max_examples=25)
@given(
    penalty=st.floats(0.5, 3),
    temperature=st.floats(0, 4),
    k=st.none() | st.integers(1, 9),
    p=st.floats(0, 1),
    min_p=st.floats(0, 1),
)
def test_standard_always_leaves_a_token(exercises, penalty, temperature, k, p, min_p):
    """No setting in range empties a row."""
    logits = torch.tensor([[0.0, 1000.0, -1000.0, 3.0], [2.0, 2.0, 2.0, 2.0], [-INF, -INF, -2.5, -INF]]).double()
    pipeline = exercises.standard_pipeline(penalty, max(temperature, 1e-3) if temperature else 0.0, k, p, min_p)
    got = pipeline(logits, torch.tensor([[1, 1], [0, 3], [2, 2]]))
    holds(bool((got > -INF).any(-1).all()), "every row has a token left")
    holds(not bool(got.isnan().any()), "no logit is NaN")


@exercise("LogitsPipeline")
@pytest.mark.parametrize(
    "setting",
    [
        dict(penalty=0.0),
        dict(temperature=-1.0),
        dict(k=0),
        dict(p=1.2),
        dict(p=-0.1),
        dict(min_p=-0.1),
        dict(min_p=1.1),
    ],
)
def test_standard_refuses_settings_out_of_range(exercises, setting):
    """A setting out of range raises ValueError."""
    with pytest.raises(ValueError):
        exercises.standard_pipeline(**setting)(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]))
