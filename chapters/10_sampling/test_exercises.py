"""Self-checks of chapter 10: worked examples and the properties that teach."""

import math

import pytest
import torch

from grader.testing import close, counting, exact, exercise, holds, pure, same_distribution, stand_in

INF = math.inf


@exercise("next_token_probs")
def test_temperature_one_half_squares_the_odds(exercises):
    """Halving the temperature squares the odds between two tokens."""
    logits = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)  # odds 3 to 1, then 9 to 1
    close(exercises.next_token_probs(logits, 1.0), torch.tensor([[3.0, 1.0]]).double() / 4, "odds 3:1 at temperature 1")
    close(exercises.next_token_probs(logits, 0.5), torch.tensor([[9.0, 1.0]]).double() / 10, "odds 3:1 at 0.5")


@exercise("next_token_probs")
def test_temperature_zero_takes_the_favourite(exercises):
    """Temperature 0 puts all mass on the largest logit of each row."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 4.0, 5.0]])
    close(exercises.next_token_probs(logits, 0.0), torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), "temperature 0")


@exercise("top_k_filter")
def test_top_k_keeps_two_of_each_row(exercises):
    """With k = 2 each row keeps its own two largest logits, unchanged."""
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [-9.0, -6.0, -8.0, -7.0]])
    expected = torch.tensor([[3.0, -INF, 2.0, -INF], [-INF, -6.0, -INF, -7.0]])
    exact(pure(exercises.top_k_filter, logits, 2), expected, "top_k_filter(logits, 2)")


@exercise("top_k_filter")
def test_top_k_wider_than_the_vocabulary(exercises):
    """A k beyond the vocabulary keeps everything."""
    logits = torch.tensor([[3.0, 1.0, 2.0]])
    exact(exercises.top_k_filter(logits, 50), logits, "top_k_filter of 3 logits with k=50")


@exercise("top_p_filter")
def test_top_p_keeps_the_token_that_crosses(exercises):
    """The token that lifts the sum over p is kept."""
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()  # ranked: 0.5, 0.75, 0.9, 1
    kept = exercises.top_p_filter(logits, 0.8) > -INF
    exact(kept, torch.tensor([[False, True, True, True]]), "what top_p_filter keeps of (0.1, 0.5, 0.15, 0.25) at 0.8")


@exercise("top_p_filter")
def test_top_p_never_empties_a_row(exercises):
    """p = 0 keeps the most likely token, p = 1 keeps all."""
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    exact(exercises.top_p_filter(logits, 0.0), torch.tensor([[-INF, 2.0, -INF]]), "top_p_filter(logits, 0)")
    exact(exercises.top_p_filter(logits, 1.0), logits, "top_p_filter(logits, 1)")


@exercise("min_p_filter")
def test_min_p_is_a_fraction_of_the_favourite(exercises):
    """Min-p of 0.5 keeps what is at least half as likely as the favourite."""
    logits = torch.tensor([[0.1, 0.4, 0.3, 0.19, 0.01], [0.2, 0.2, 0.2, 0.2, 0.2]]).log()
    kept = exercises.min_p_filter(logits, 0.5) > -INF
    exact(kept, torch.tensor([[False, True, True, False, False], [True] * 5]), "what min_p_filter(logits, 0.5) keeps")


@exercise("min_p_filter")
def test_penalty_lowers_on_both_sides_of_zero(exercises):
    """A penalty of 2 halves a seen positive logit and doubles a negative."""
    logits = torch.tensor([[4.0, -4.0, 4.0, -4.0]])
    got = exercises.repetition_penalty(logits, torch.tensor([[0, 1, 0]]), 2.0)
    close(got, torch.tensor([[2.0, -8.0, 4.0, -4.0]]), "repetition_penalty with ids 0, 1, 0 and penalty 2")


@exercise("sample")
def test_sample_draws_in_proportion(exercises, rng):
    """Over 4000 rows the draws follow the probabilities."""
    probs = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    ids = exercises.sample(probs.expand(4000, 4), rng.generator())
    same_distribution(torch.bincount(ids, minlength=4), probs, "4000 draws of sample")


@exercise("sample")
def test_equal_noise_leaves_the_argmax(exercises):
    """Equal noise on all tokens leaves the favourite in place."""
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.5, 0.2, 0.1]])
    exact(exercises.gumbel_argmax(logits, torch.full((2, 3), 0.4)), torch.tensor([1, 0]), "gumbel_argmax, all u 0.4")


def garden_path(ids):
    """A model of three tokens, 0 = end: 1 looks better at first, but only 2 leads on with certainty."""
    after = {0: [0.0, 0.6, 0.4], 1: [0.4, 0.3, 0.3], 2: [1.0, 0.0, 0.0]}
    return torch.tensor([after[int(row[-1])] for row in ids], dtype=torch.float64).log()


@exercise("beam_search")
def test_two_beams_escape_the_garden_path(exercises):
    """Two hypotheses find what one, being greedy, passes by."""
    ids, score = exercises.beam_search(garden_path, 0, 0, 1, 2)
    exact(ids, [1, 0], "the ids found with one beam")
    close(score, math.log(0.6 * 0.4), "the score found with one beam")
    ids, score = exercises.beam_search(garden_path, 0, 0, 2, 2)
    exact(ids, [2, 0], "the ids found with two beams")
    close(score, math.log(0.4), "the score found with two beams")


@exercise("beam_search")
def test_length_alpha_one_is_the_mean(exercises):
    """With length_alpha 1 the score is the mean log-probability per token."""
    _, score = exercises.beam_search(garden_path, 0, 0, 2, 2, 1.0)
    close(score, math.log(0.4) / 2, "the score of two tokens with length_alpha=1")


def count_up(ids):
    """A model that is sure that the next id is one more; ten ids in all."""
    return torch.nn.functional.one_hot((ids + 1) % 10, 10).double()


def greedy(logits):
    """The simplest sampler."""
    return logits.argmax(-1)


@exercise("generate")
def test_generate_stops_each_row_by_itself(exercises):
    """Each row ends at its own eos and is padded from there on."""
    ids = torch.tensor([[1, 2], [5, 4]])
    expected = torch.tensor([[1, 2, 3, 4, 5, 6], [5, 4, 5, 6, 9, 9]])
    exact(exercises.generate(count_up, ids, 4, greedy, 6, 9), expected, "generate with eos=6, pad=9")


@exercise("generate")
def test_generate_looks_once_a_token(exercises):
    """The model is called once for each new token, on at most T_max ids."""
    model = counting(stand_in(count_up, T_max=3))
    exact(exercises.generate(model, torch.tensor([[1, 2]]), 3, greedy), torch.tensor([[1, 2, 3, 4, 5]]), "generate")
    exact(model.calls, 3, "the number of calls for 3 new tokens")


@exercise("LogitsPipeline")
def test_steps_work_on_what_came_before(exercises):
    """Steps run from left to right, each on the result of the last."""
    pipeline = exercises.LogitsPipeline(lambda logits, ids: logits + 1, lambda logits, ids: logits * 10)
    exact(pipeline(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]])), torch.tensor([[20.0, 30.0]]), "add 1, times 10")


@exercise("LogitsPipeline")
def test_temperature_comes_before_top_p(exercises):
    """A high temperature lets more tokens through top-p."""
    logits, ids = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.zeros(1, 0, dtype=torch.int64)
    kept = {T: exercises.standard_pipeline(temperature=T, p=0.6)(logits, ids) > -INF for T in (1.0, 4.0)}
    exact(kept[1.0], torch.tensor([[True, False, False]]), "what temperature 1 and top-p 0.6 keep")
    exact(kept[4.0], torch.tensor([[True, True, False]]), "what temperature 4 and top-p 0.6 keep")


@exercise("LogitsPipeline")
def test_an_emptied_row_is_an_error(exercises):
    """Steps that remove every token of a row raise ValueError."""
    pipeline = exercises.LogitsPipeline(lambda logits, ids: logits - INF)
    with pytest.raises(ValueError):
        pipeline(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]))
    neutral = exercises.standard_pipeline()(torch.tensor([[1.0, 2.0]]), torch.tensor([[0]]))
    holds(bool((neutral > -INF).all()), "the neutral pipeline keeps every token")
