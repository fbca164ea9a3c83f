"""Self-checks of chapter 5: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, exact, exercise, holds

DOUBLE = torch.float64


@exercise("sinusoidal_positions")
def test_sinusoidal_table_of_the_worked_example(exercises):
    """The worked example of the notes: two hands, of speed 1 and 1/10."""
    expected = [[math.sin(t), math.cos(t), math.sin(t / 10), math.cos(t / 10)] for t in range(3)]
    close(exercises.sinusoidal_positions(3, 4, base=100.0), torch.tensor(expected, dtype=DOUBLE), "a (3, 4) table")


@exercise("sinusoidal_positions")
def test_sinusoidal_products_know_the_distance(exercises):
    """The product of two rows depends only on how far apart they stand."""
    table = exercises.sinusoidal_positions(9, 6)
    products = table @ table.T
    close(products[1:, 1:], products[:-1, :-1], "products of rows, both positions moved by one")


@exercise("LearnedPositions")
def test_learned_positions_adds_rows(exercises):
    """Token t gets row offset + t of the table, in every sequence."""
    positions = exercises.LearnedPositions(4, 2)
    positions.load_state_dict({"table.weight": torch.tensor([[1.0, 2], [3, 4], [5, 6], [7, 8]])})
    got = positions(torch.zeros(2, 2, 2), offset=1)
    close(got, torch.tensor([[[3.0, 4], [5, 6]], [[3, 4], [5, 6]]]), "what is added to two tokens from position 1 on")


@exercise("LearnedPositions")
def test_learned_positions_end(exercises):
    """A position that the table does not have is a ValueError."""
    positions = exercises.LearnedPositions(4, 2)
    with pytest.raises(ValueError):
        positions(torch.zeros(1, 3, 2), offset=2)


@exercise("apply_rope")
def test_rope_of_the_worked_example(exercises):
    """The worked example of the notes: four places on, the score is the same."""
    q, k = torch.tensor([[1.0, 0.0]], dtype=DOUBLE), torch.tensor([[0.6, 0.8]], dtype=DOUBLE)
    freqs = exercises.rope_freqs(2)
    scores = []
    for m, n in ((1, 0), (5, 4)):
        turned_q = exercises.apply_rope(q, torch.tensor([m]), freqs)
        scores.append((turned_q * exercises.apply_rope(k, torch.tensor([n]), freqs)).sum().item())
    close(scores[0], 0.6 * math.cos(1) + 0.8 * math.sin(1), "the score of a query at 1 and a key at 0")
    close(scores[1], scores[0], "the score of a query at 5 and a key at 4")


@exercise("apply_rope")
def test_rope_pairs_of_both_conventions(exercises):
    """A quarter turn shows which features form a pair."""
    x, quarter = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([math.pi / 2, math.pi / 2], dtype=DOUBLE)
    half_split = exercises.apply_rope(x, torch.tensor([1]), quarter)
    close(half_split, torch.tensor([[-3.0, -4, 1, 2]]), "(1, 2, 3, 4), half-split, after a quarter turn")
    interleaved = exercises.apply_rope(x, torch.tensor([1]), quarter, interleaved=True)
    close(interleaved, torch.tensor([[-2.0, 1, -4, 3]]), "(1, 2, 3, 4), interleaved, after a quarter turn")


@exercise("apply_rope")
def test_rope_keeps_lengths(exercises, rng):
    """Turning changes no length, and at position 0 it changes nothing."""
    x = rng.normal(2, 3, 5, 8)
    got = exercises.apply_rope(x, torch.arange(5), exercises.rope_freqs(8))
    close(got.norm(dim=-1), x.norm(dim=-1), "lengths of the turned vectors")
    close(got[:, :, 0], x[:, :, 0], "the vectors at position 0")


@exercise("permute_for_half_split")
def test_permutation_of_two_heads(exercises):
    """In each head of six rows, 0, 2 and 4 come before 1, 3 and 5."""
    rows = torch.tensor([0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11])
    exact(exercises.permute_for_half_split(torch.arange(12), 2), rows, "a bias of two heads of width 6")
    W = torch.arange(12)[:, None] * 100 + torch.arange(5)
    exact(exercises.permute_for_half_split(W, 2), W[rows], "the weight of two heads of width 6")


@exercise("permute_for_half_split")
def test_heads_of_odd_width_have_no_pairs(exercises):
    """Rows that do not make heads of even width are a ValueError."""
    for n_heads in (4, 5):
        with pytest.raises(ValueError):
            exercises.permute_for_half_split(torch.zeros(12, 3), n_heads)


@exercise("alibi_bias")
def test_alibi_of_two_heads(exercises):
    """Two heads have slopes 1/16 and 1/256, times the distance to the past."""
    got = exercises.alibi_bias(2, 2, 3)
    distance = torch.tensor([[1.0, 0, 0], [2, 1, 0]], dtype=DOUBLE)
    close(got, torch.stack([-distance / 16, -distance / 256]), "the bias of two queries and three keys")


@exercise("alibi_bias")
def test_alibi_when_the_heads_are_no_power_of_two(exercises):
    """Three heads: the slopes of two, then the first of those of four."""
    got = exercises.alibi_bias(3, 2)[:, 1, 0]
    close(got, -torch.tensor([1 / 16, 1 / 256, 1 / 4], dtype=DOUBLE), "the bias of each head at distance 1")


@exercise("t5_bucket")
def test_near_distances_have_their_own_buckets(exercises):
    """Distances 0 to 7 are exact; the future lies 16 buckets higher."""
    near = torch.arange(8)
    exact(exercises.t5_bucket(-near), near, "the buckets of the past, distances 0 to 7")
    exact(exercises.t5_bucket(near[1:]), near[1:] + 16, "the buckets of the future, distances 1 to 7")


@exercise("t5_bucket")
def test_far_distances_share_buckets(exercises):
    """The table of the notes: ever wider bins up to the last one."""
    starts = [8, 12, 17, 23, 33, 46, 65, 91]  # a distance in each of the buckets 8 to 15
    exact(exercises.t5_bucket(-torch.tensor(starts)), torch.arange(8, 16), "buckets of far distances in the past")
    exact(exercises.t5_bucket(torch.tensor([-5000, 3]), bidirectional=False), torch.tensor([31, 0]), "causal buckets")


@exercise("equivariance_gap")
def test_a_bag_of_words_has_no_gap(exercises, rng):
    """Attention without positions treats a shuffled text as a shuffled bag."""
    x = rng.normal(5, 4)
    gap = exercises.equivariance_gap(lambda x: torch.softmax(x @ x.T, -1) @ x, x, torch.tensor([3, 0, 4, 1, 2]))
    holds(isinstance(gap, float) and gap < 1e-9, "The gap of attention without positions is the float 0, but rounding.")


@exercise("equivariance_gap")
def test_running_sums_have_a_gap(exercises):
    """Running sums of 1, 2, 4 depend on the order."""
    x, perm = torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([2, 0, 1])
    # shuffled before: 4, 1, 2 sum to 4, 5, 7; shuffled after: 1, 3, 7 become 7, 1, 3
    close(exercises.equivariance_gap(lambda x: x.cumsum(0), x, perm), 4.0, "the gap of running sums")
