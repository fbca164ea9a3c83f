"""Self-checks of chapter 12: worked examples and the laws of a bounded memory."""

import math

import pytest
import torch

from grader.testing import close, exact, exercise, holds


@exercise("sliding_window_mask")
def test_five_tokens_and_a_window_of_two(exercises):
    """Each token sees itself and one before it, and the sink."""
    plain = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    sink = [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [1, 0, 0, 1, 1]]
    exact(exercises.sliding_window_mask(5, 2), torch.tensor(plain).bool(), "sliding_window_mask(5, 2)")
    exact(exercises.sliding_window_mask(5, 2, sinks=1), torch.tensor(sink).bool(), "sliding_window_mask(5, 2, sinks=1)")


@exercise("sliding_window_mask")
def test_a_wide_window_only_closes_the_future(exercises):
    """With a window as long as the text the mask is the causal one."""
    exact(exercises.sliding_window_mask(4, 4), torch.ones(4, 4).tril().bool(), "sliding_window_mask(4, 4)")


def numbers(start, end):
    """Keys that say which token they belong to."""
    return torch.arange(float(start), float(end)).reshape(1, 1, -1, 1)


def append(cache, start, end):
    """Append tokens start to end - 1; give positions, keys and values in the order of positions."""
    K, V, positions = cache.append(numbers(start, end), -numbers(start, end))
    order = positions.argsort()
    return [x.flatten()[order].tolist() for x in (positions, K, V)]


@exercise("RollingKVCache")
def test_the_newest_push_out_the_oldest(exercises):
    """With a window of three each token gets itself and two before it."""
    cache = exercises.RollingKVCache(3)
    for t in range(8):
        seen = [float(n) for n in range(max(0, t - 2), t + 1)]
        exact(append(cache, t, t + 1), [seen, seen, [-x for x in seen]], f"positions, keys and values of token {t}")
    exact(cache.n_seen, 8, "n_seen after eight tokens")


@exercise("RollingKVCache")
def test_sinks_stay(exercises):
    """The first tokens are there for ever, on top of the window."""
    cache = exercises.RollingKVCache(2, sinks=2)
    for t in range(9):
        positions = append(cache, t, t + 1)[0]
    exact(positions, [0, 1, 7, 8], "the tokens that token 8 sees with a window of 2 and 2 sinks")


@exercise("RollingKVCache")
def test_a_piece_sees_what_its_first_token_sees(exercises):
    """A piece gets the older tokens that its first token still sees."""
    cache = exercises.RollingKVCache(3)
    append(cache, 0, 5)
    exact(append(cache, 5, 9)[0], [3, 4, 5, 6, 7, 8], "the tokens returned for the piece 5 to 8")
    exact(append(cache, 9, 10)[1], [7.0, 8.0, 9.0], "the keys that token 9 sees afterwards")


@exercise("streaming_positions")
def test_positions_of_the_worked_example(exercises):
    """After nine tokens 0, 1, 6, 7, 8 stand at 0, 1, 2, 3, 4."""
    tokens, positions = exercises.streaming_positions(9, 3, 2)
    exact(tokens, torch.tensor([0, 1, 6, 7, 8]), "the tokens held")
    exact(positions, torch.arange(5), "their positions")


@exercise("streaming_positions")
def test_short_texts_have_ordinary_positions(exercises):
    """As long as all tokens fit, each stands at its own number."""
    for n in range(6):
        tokens, positions = exercises.streaming_positions(n, 3, 2)
        exact((tokens, positions), (torch.arange(n), torch.arange(n)), f"streaming_positions({n}, 3, 2)")


@exercise("rope_freqs_scaled")
def test_frequencies_of_the_worked_example(exercises):
    """For hd = 8, base 10,000 and scale 4: the table of the notes."""
    expected = {
        "linear": [0.25, 0.025, 0.0025, 0.00025],
        "ntk": [1.0, 0.1 / 4 ** (1 / 3), 0.01 / 4 ** (2 / 3), 0.00025],
        # turns in 600 tokens: 95.5, 9.55, 0.955 and 0.0955
        "yarn": [1.0, 0.1 * (1 - 0.75 * (32 - 60 / (2 * math.pi)) / 31), 0.0025, 0.00025],
    }
    for mode, freqs in expected.items():
        got, _ = exercises.rope_freqs_scaled(8, 10000.0, 4.0, mode, L_orig=600)
        close(got, torch.tensor(freqs, dtype=torch.float64), f"frequencies of {mode}")


@exercise("rope_freqs_scaled")
def test_the_stretch_is_of_yarn_alone(exercises):
    """Only YaRN stretches queries and keys, and not at scale 1."""
    stretch = [exercises.rope_freqs_scaled(8, 10000.0, math.e, mode, 600)[1] for mode in ("linear", "ntk", "yarn")]
    close(stretch, [1.0, 1.0, 1.1], "mscale at a scale of e")
    close(exercises.rope_freqs_scaled(8, 10000.0, 1.0, "yarn", 600)[1], 1.0, "mscale of YaRN at scale 1")


@exercise("linear_attention")
def test_equal_weights_make_running_means(exercises):
    """With equal keys each row is the mean of the values so far."""
    ones, v = torch.ones(1, 1, 4, 3), torch.tensor([3.0, 1.0, 8.0, 0.0]).reshape(1, 1, 4, 1)
    got = exercises.linear_attention(ones, ones, v, torch.exp)
    close(got.flatten(), torch.tensor([3.0, 2.0, 4.0, 3.0]), "running means of 3, 1, 8, 0")


@exercise("linear_attention")
def test_the_step_of_the_worked_example(exercises):
    """Two tokens by hand: state, sum of keys and output."""
    first = (torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[6.0]]]))
    second = (torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[1.0]]]))
    out, state = exercises.linear_attention_step(None, *first)
    close(out, torch.tensor([[[6.0]]]), "the output of the first token")
    out, (S, z) = exercises.linear_attention_step(state, *second)
    close(S, torch.tensor([[[[8.0], [6.0]]]]), "S after two tokens")  # 1*6 + 2*1, 1*6 + 0*1
    close(z, torch.tensor([[[3.0, 1.0]]]), "z after two tokens")
    close(out, torch.tensor([[[4.0]]]), "the output of the second token")  # (8 + 2*6) / (3 + 2*1)


@exercise("linear_attention")
def test_at_once_equals_step_by_step(exercises, rng):
    """All at once and one by one give the same."""
    q, k, v = rng.normal(2, 3, 6, 4), rng.normal(2, 3, 6, 4), rng.normal(2, 3, 6, 5)
    whole, state = exercises.linear_attention(q, k, v, torch.exp), None
    for t in range(6):
        out, state = exercises.linear_attention_step(state, q[:, :, t].exp(), k[:, :, t].exp(), v[:, :, t])
        close(out, whole[:, :, t], f"token {t}, one by one and at once")


def message(role, tokens):
    return {"role": role, "content": f"{role} of {tokens}", "tokens": tokens}


CHAT = [message(*m) for m in (("system", 2), ("user", 3), ("assistant", 4), ("user", 1), ("tool", 2), ("assistant", 1))]


@exercise("fit_messages")
def test_whole_turns_from_the_end(exercises):
    """The head and the newest turns stay, and turns stay whole."""

    def fit(budget):
        return exercises.fit_messages(CHAT, lambda m: m["tokens"], budget)

    exact(fit(13), CHAT, "a budget of 13: everything")
    exact(fit(12), [CHAT[0], *CHAT[3:]], "a budget of 12: the head and the last turn")
    exact(fit(6), [CHAT[0], *CHAT[3:]], "a budget of 6: exactly these")
    exact(fit(5), CHAT[:1], "a budget of 5: the head alone")


@exercise("fit_messages")
def test_a_head_too_long(exercises):
    """A head that must be kept and does not fit is a ValueError."""
    with pytest.raises(ValueError):
        exercises.fit_messages(CHAT, lambda m: m["tokens"], 1)
    exact(exercises.fit_messages(CHAT, lambda m: m["tokens"], 4, keep_system=False), CHAT[3:], "the head need not stay")


@exercise("conversation_cost")
def test_three_turns_by_hand(exercises):
    """Every request reads all that was said before it."""
    turns = [(10, 5), (20, 5), (10, 10)]
    got = exercises.conversation_cost(turns, 1.0, 4.0)
    expected = {
        "input_tokens": 95,
        "cached_tokens": 55,
        "output_tokens": 20,
        "bills": [30.0, 55.0, 90.0],
        "total": 175.0,
    }
    close(got, expected, f"the cost of {turns}")
    cheap = exercises.conversation_cost(turns, 1.0, 4.0, cached_price=0.1)
    close(cheap["bills"], [30.0, 41.5, 54.0], "the bills when cached tokens cost a tenth")


@exercise("conversation_cost")
def test_a_reader_of_the_last_half(exercises, rng):
    """A model that sees the end alone finds needles in the end alone."""

    def lm(ids):
        near = ids[:, ids.shape[1] // 2 :]
        at = (near[:, :-1] == 10).int().argmax(1, keepdim=True)
        found = torch.where(near.gather(1, at) == 10, near.gather(1, at + 1), 42)
        return torch.nn.functional.one_hot(found, 43).float().expand(-1, ids.shape[1], -1)

    got = exercises.needle_accuracy(lm, [11, 41], [0.0, 0.25, 0.75, 1.0], 5, rng.generator())
    exact(got, torch.tensor([[0.0, 0, 1, 1]] * 2, dtype=torch.float64), "the grid of a model that sees the last half")
    holds(bool((got.diff(dim=1) >= 0).all()), "Accuracy rises with depth for this model.")
