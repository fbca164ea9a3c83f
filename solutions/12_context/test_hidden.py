"""Hidden tests of chapter 12: windows, the ring, positions, scaled rotations, the fixed state, budgets and needles."""

import math
from itertools import takewhile

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.testing import close, counting, driver, exact, exercise, holds, pure, same_distribution

F64 = torch.float64


# -- sliding_window_mask -------------------------------------------------------------------------------------------


def visible(i, window, sinks):
    """The set of tokens that token i sees."""
    return set(range(max(0, i - window + 1), i + 1)) | set(range(min(sinks, i + 1)))


def as_sets(mask):
    return [set(row.nonzero().flatten().tolist()) for row in mask]


@exercise("sliding_window_mask", weight=2)
@pytest.mark.parametrize(("T", "window"), [(9, 4), (7, 1), (8, 2), (6, 5), (11, 10)])
def test_each_row_sees_its_window(exercises, T, window):
    """A token sees itself and the window - 1 tokens before it."""
    mask = exercises.sliding_window_mask(T, window)
    exact((mask.shape, mask.dtype), ((T, T), torch.bool), f"shape and dtype of sliding_window_mask({T}, {window})")
    exact(as_sets(mask), [visible(i, window, 0) for i in range(T)], f"what the rows of ({T}, {window}) see")


@exercise("sliding_window_mask", weight=2)
@pytest.mark.parametrize(("T", "window", "sinks"), [(10, 3, 2), (9, 1, 1), (8, 2, 5), (5, 2, 9), (7, 9, 2), (12, 4, 3)])
def test_sinks_come_on_top(exercises, T, window, sinks):
    """The first tokens stay visible to all that come after them."""
    mask = exercises.sliding_window_mask(T, window, sinks)
    exact(as_sets(mask), [visible(i, window, sinks) for i in range(T)], f"what the rows of {(T, window, sinks)} see")


@exercise("sliding_window_mask")
@pytest.mark.parametrize("window", [6, 7, 50])
def test_a_wide_window_is_causal(exercises, window):
    """A window of T tokens or more closes only the future."""
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    exact(exercises.sliding_window_mask(6, window), causal, f"the mask of 6 tokens and a window of {window}")
    exact(exercises.sliding_window_mask(T=6, window=window, sinks=4), causal, "the same with four sinks")


@exercise("sliding_window_mask")
def test_layers_reach_further(exercises):
    """Through L layers a token is reached by L (w - 1) + 1 tokens."""
    T, window = 23, 4
    mask = exercises.sliding_window_mask(T, window).double()
    reach = torch.eye(T, dtype=F64)
    for layers in range(1, 6):
        reach = reach @ mask
        exact(
            int((reach[-1] > 0).sum()), layers * (window - 1) + 1, f"tokens that reach the last through {layers} layers"
        )


@exercise("sliding_window_mask")
def test_tiny_masks(exercises):
    """No token and one token have a mask too."""
    exact(exercises.sliding_window_mask(0, 3, 1), torch.zeros(0, 0, dtype=torch.bool), "the mask of no tokens")
    exact(exercises.sliding_window_mask(1, 1), torch.ones(1, 1, dtype=torch.bool), "the mask of one token")


@exercise("sliding_window_mask")
def test_windows_that_cannot_be(exercises):
    """A window below 1 and a negative number of sinks are a ValueError."""
    for window, sinks in ((0, 0), (-2, 1), (3, -1), (0, 4)):
        with pytest.raises(ValueError):
            exercises.sliding_window_mask(5, window, sinks)


# -- RollingKVCache ------------------------------------------------------------------------------------------------

B, HK, HD = 2, 3, 4
LAYOUTS = [(4, 0), (4, 2), (1, 0), (1, 1), (3, 5), (7, 1)]
PIECES = [[1] * 19, [5, 1, 1, 6, 3, 3], [2, 13, 1, 3], [19], [1, 9, 9]]


def stream(cache, k, v, pieces):
    """Append in pieces; yield the first token of the piece, the end of it, and what append returned."""
    start = 0
    for size in pieces:
        end = start + size
        yield start, end, cache.append(k[:, :, start:end], v[:, :, start:end])
        start = end


def check_returned(got, start, end, k, v, window, sinks, what):
    """Compare with the tokens that the new ones see, whatever the order of the slots."""
    K, V, positions = got
    holds(isinstance(positions, torch.Tensor) and positions.dtype == torch.int64, f"{what}: positions are int64.")
    wanted = sorted(set().union(*(visible(i, window, sinks) for i in range(start, end))))
    exact(sorted(positions.tolist()), wanted, f"{what}: the tokens returned")
    close(K, k[:, :, positions], f"{what}: the keys, in the order of positions")
    close(V, v[:, :, positions], f"{what}: the values, in the order of positions")


@exercise("RollingKVCache", weight=2)
@pytest.mark.parametrize(("window", "sinks"), LAYOUTS)
def test_one_token_a_call(exercises, rng, window, sinks):
    """Fed one by one, each token gets back exactly what it may see."""
    k, v = rng.normal(B, HK, 19, HD), rng.normal(B, HK, 19, HD)
    cache = exercises.RollingKVCache(window, sinks)
    exact(cache.n_seen, 0, "n_seen of a new cache")
    for start, end, got in stream(cache, k, v, PIECES[0]):
        check_returned(got, start, end, k, v, window, sinks, f"window {window}, sinks {sinks}, token {start}")
        exact(cache.n_seen, end, f"n_seen after {end} tokens")


@exercise("RollingKVCache", weight=3)
@pytest.mark.parametrize("pieces", PIECES[1:], ids=str)
def test_pieces_of_any_size(exercises, rng, pieces):
    """A piece, also one longer than the window, gets back what its tokens see."""
    k, v = rng.normal(B, HK, 19, HD), rng.normal(B, HK, 19, HD)
    for window, sinks in LAYOUTS:
        cache = exercises.RollingKVCache(window=window, sinks=sinks)
        for start, end, got in stream(cache, k, v, pieces):
            what = f"window {window}, sinks {sinks}, tokens {start} to {end - 1}"
            check_returned(got, start, end, k, v, window, sinks, what)
        exact(cache.n_seen, 19, "n_seen after 19 tokens")


def turn(x, positions, base=100.0):
    """Rotary positions by complex multiplication."""
    half = x.shape[-1] // 2
    angle = positions[:, None] * base ** (-torch.arange(half, dtype=F64) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], -1)


@exercise("RollingKVCache", weight=2)
@pytest.mark.parametrize("pieces", PIECES, ids=str)
def test_attention_equals_masked_attention(exercises, rng, pieces):
    """Attention over the cache equals attention over all under the mask."""
    q, k, v = (rng.normal(B, HK, 19, HD) for _ in range(3))
    places = torch.arange(19)
    q, k = turn(q, places), turn(k, places)
    for window, sinks in ((5, 2), (3, 0)):
        rows = [visible(i, window, sinks) for i in range(19)]
        see = torch.tensor([[j in row for j in range(19)] for row in rows])
        outputs = []
        for start, end, (K, V, positions) in stream(exercises.RollingKVCache(window, sinks), k, v, pieces):
            outputs.append(F.scaled_dot_product_attention(q[:, :, start:end], K, V, see[start:end][:, positions]))
        expected = F.scaled_dot_product_attention(q, k, v, see)
        close(torch.cat(outputs, 2), expected, f"attention with window {window}, sinks {sinks}, pieces {pieces}")


@exercise("RollingKVCache")
def test_a_long_stream(exercises, rng):
    """After many rounds of the ring the sinks are still the first tokens."""
    k, v = rng.normal(1, 1, 143, 2), rng.normal(1, 1, 143, 2)
    cache = exercises.RollingKVCache(5, 3)
    for start, end, got in stream(cache, k, v, [20, 1, 100, 1, 4, 2, 7, 5, 1, 1, 1]):
        check_returned(got, start, end, k, v, 5, 3, f"tokens {start} to {end - 1}")


@driver
def bytes_held(module, k, v, window, sinks, pieces):
    """Bytes of all tensors and arrays that a cache can reach, after each piece; a view counts as its whole base."""
    import numpy as np
    import torch

    def whole(x, found):
        if isinstance(x, torch.Tensor):
            storage = x.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(x, np.ndarray):
            while x.base is not None and isinstance(x.base, np.ndarray):
                x = x.base
            found[id(x)] = x.nbytes
        elif isinstance(x, dict):
            for one in x.values():
                whole(one, found)
        elif hasattr(x, "__iter__") and not isinstance(x, (str, bytes)):
            for one in x:
                whole(one, found)
        elif hasattr(x, "__dict__") and not isinstance(x, type) and not callable(x):
            whole(vars(x), found)
        return found

    cache, start, sizes = module.RollingKVCache(window, sinks), 0, []
    for size in pieces:
        cache.append(k[:, :, start : start + size].clone(), v[:, :, start : start + size].clone())
        sizes.append(sum(whole(vars(cache), {}).values()))
        start += size
    return sizes


@exercise("RollingKVCache", weight=2)
@pytest.mark.parametrize("pieces", [[1] * 120, [40] * 3, [7, 1] * 15], ids=["1", "40", "7 and 1"])
def test_memory_does_not_grow(exercises, rng, pieces):
    """Between calls no more than sinks + window tokens are in memory."""
    window, sinks, width = 9, 3, 64
    k, v = rng.normal(1, 2, 120, width), rng.normal(1, 2, 120, width)
    sizes = exercises.run(bytes_held, k, v, window, sinks, pieces)
    room = 2 * (window + sinks) * 2 * width * 8  # keys and values, two heads, eight bytes a number
    # half as much again for bookkeeping: one token more is a twelfth, a piece of forty more than three times the room
    holds(
        max(sizes) <= 1.5 * room, "The cache never holds much more than the keys and values of sinks + window tokens."
    )
    holds(max(sizes) >= 0.8 * room, "The cache itself holds the keys and values that later tokens need.")


@driver
def use_in_place(module, k, v):
    """Overwrite what was appended; read what an earlier call returned after later calls."""
    cache, changed = module.RollingKVCache(3, 1), []
    for t in range(5):
        one_k, one_v = k[:, :, t : t + 1].clone(), v[:, :, t : t + 1].clone()
        cache.append(one_k, one_v)
        one_k.zero_()
        one_v.fill_(7.0)
    K, V, positions = cache.append(k[:, :, 5:6].clone(), v[:, :, 5:6].clone())
    before = K.clone(), V.clone(), positions.clone()
    for t in range(6, 9):
        cache.append(k[:, :, t : t + 1].clone(), v[:, :, t : t + 1].clone())
    for was, now in zip(before, (K, V, positions), strict=True):
        changed.append(bool((was != now).any()))
    return before, changed


@exercise("RollingKVCache")
def test_nothing_is_shared(exercises, rng):
    """Neither the tensors given nor those returned are the cache's own."""
    k, v = rng.normal(1, 1, 9, 2), rng.normal(1, 1, 9, 2)
    before, changed = exercises.run(use_in_place, k, v)
    check_returned(before, 5, 6, k, v, 3, 1, "after the appended tensors were overwritten")
    exact(changed, [False] * 3, "whether what append returned was changed by later calls")


@exercise("RollingKVCache")
def test_two_rolling_caches(exercises, rng):
    """Two caches share nothing, and each takes the dtype of its first append."""
    k, v = rng.normal(1, 2, 6, 3), rng.normal(1, 2, 6, 3)
    one, other = exercises.RollingKVCache(2), exercises.RollingKVCache(2, 1)
    for dtype, cache, sinks in ((torch.float32, one, 0), (F64, other, 1)):
        for start, end, got in stream(cache, k.to(dtype), v.to(dtype), [4, 1, 1]):
            check_returned(got, start, end, k.to(dtype), v.to(dtype), 2, sinks, f"a cache of {dtype}")


@exercise("RollingKVCache")
def test_refused(exercises, rng):
    """Impossible sizes, and keys and values of different shape, are refused."""
    for window, sinks in ((0, 0), (-1, 2), (2, -1)):
        with pytest.raises(ValueError):
            exercises.RollingKVCache(window, sinks)
    k, v = rng.normal(B, HK, 6, HD), rng.normal(B, HK, 6, HD)
    cache = exercises.RollingKVCache(3)
    cache.append(k[:, :, :4], v[:, :, :4])
    for wrong in (v[:, :, 4:5], v[:, :1, 4:], v[:1, :, 4:]):
        with pytest.raises(ValueError):
            cache.append(k[:, :, 4:], wrong)
    exact(cache.n_seen, 4, "n_seen after refused appends")
    check_returned(cache.append(k[:, :, 4:], v[:, :, 4:]), 4, 6, k, v, 3, 0, "the append after refused ones")


@exercise("RollingKVCache")
def test_a_sink_that_does_nothing_keeps_the_loss(exercises):
    """On a language with known truth the loss stays the source's with a sink."""
    # The head copies from the last place but one after a mark, and otherwise parks on the first token, whose value
    # is zero. Without that token it must spread over the window and mixes noise into the prediction.
    g = torch.Generator().manual_seed(5)
    words, T = 6, 60
    P = (1.5 * torch.randn(words, words, generator=g, dtype=F64)).softmax(-1)
    ids = [0]
    for _ in range(T - 1):
        ids.append(int(torch.multinomial(P[ids[-1]], 1, generator=g)))
    k = torch.tensor([8.0] + [0.0] * T, dtype=F64).reshape(1, 1, -1, 1)  # the first key draws every query
    v = torch.cat([torch.zeros(1, words, dtype=F64), 3 * F.one_hot(torch.tensor(ids), words).double()])[None, None]
    k = F.pad(k, (0, words - 1))
    best = -P[ids[:-1], ids[1:]].log().mean()
    losses = {}
    for sinks in (0, 1):
        got = [K for K in stream(exercises.RollingKVCache(8, sinks), k, v, [1] * (T + 1))]
        out = torch.stack([(K[0, 0, :, 0].softmax(0)[:, None] * V[0, 0]).sum(0) for _, _, (K, V, _) in got])
        logits = P[ids[:-1]].log() + out[1:-1]
        losses[sinks] = F.cross_entropy(logits, torch.tensor(ids[1:]))
    # with the sink all but exp(-8) * 8 of the weight is parked: the loss is off by less than 0.01 nat
    holds(abs(losses[1] - best) < 0.01, "With a sink the loss is that of the source.")
    holds(losses[0] - best > 0.05, "Without the sink the loss is clearly above that of the source.")


# -- streaming_positions -------------------------------------------------------------------------------------------


@exercise("streaming_positions", weight=2)
@pytest.mark.parametrize(("window", "sinks"), [(3, 2), (4, 0), (1, 0), (1, 3), (5, 1), (2, 7)])
def test_tokens_held(exercises, window, sinks):
    """The sinks and the newest tokens are held, each once, in their order."""
    for n in (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 40):
        tokens, _ = exercises.streaming_positions(n, window, sinks)
        wanted = [t for t in range(n) if t < sinks or t >= n - window]
        exact(tokens, torch.tensor(wanted, dtype=torch.int64), f"tokens held after {n}, window {window}, sinks {sinks}")


@exercise("streaming_positions", weight=2)
@pytest.mark.parametrize(("window", "sinks"), [(3, 2), (4, 0), (1, 0), (1, 3), (5, 1), (2, 7)])
def test_positions_count_the_cache(exercises, window, sinks):
    """Positions run from 0 without a gap and never exceed the cache."""
    for n in (0, 1, 4, 5, 6, 9, 10, 33, 1000):
        _, positions = exercises.streaming_positions(n, window, sinks)
        count = torch.arange(min(n, window + sinks))
        exact(positions, count, f"positions after {n} tokens, window {window}, sinks {sinks}")


@exercise("streaming_positions")
def test_before_and_after_the_overflow(exercises):
    """Positions are ordinary until tokens drop out; then distances in the window stay."""
    for n in range(1, 7):
        tokens, positions = exercises.streaming_positions(n_seen=n, window=4, sinks=2)
        exact(positions, tokens, f"positions after {n} tokens, of which none has dropped out")
    for n in (7, 8, 20):
        tokens, positions = exercises.streaming_positions(n, 4, 2)
        exact((positions[-1] - positions)[-4:], (tokens[-1] - tokens)[-4:], f"distances in the window after {n} tokens")
        exact(positions[-1].item() - positions[0].item(), 5, f"the distance of the first sink after {n} tokens")


@exercise("streaming_positions")
def test_endless_texts(exercises):
    """A text of ten thousand billion tokens is no more work than a short one."""
    n = 10**13
    tokens, positions = exercises.streaming_positions(n, 5, 3)
    exact(tokens, torch.tensor([0, 1, 2, n - 5, n - 4, n - 3, n - 2, n - 1]), "tokens held after 10^13")
    exact(positions, torch.arange(8), "positions after 10^13 tokens")


@exercise("streaming_positions")
def test_streams_that_cannot_be(exercises):
    """Negative counts and a window below 1 are a ValueError."""
    for wrong in ((-1, 3, 2), (5, 0, 2), (5, 3, -1), (0, 0, 0)):
        with pytest.raises(ValueError):
            exercises.streaming_positions(*wrong)


# -- rope_freqs_scaled ---------------------------------------------------------------------------------------------

HEADS = [(8, 10000.0, 4.0, 4096), (64, 500000.0, 8.0, 8192), (6, 1000.0, 1.5, 50), (128, 10000.0, 32.0, 2048)]


def plain(hd, base):
    return torch.tensor([base ** (-2 * i / hd) for i in range(hd // 2)], dtype=F64)


@exercise("rope_freqs_scaled")
@pytest.mark.parametrize(("hd", "base", "scale", "L"), HEADS)
def test_linear_divides(exercises, hd, base, scale, L):
    """Linear scaling divides every frequency by the scale."""
    freqs, mscale = exercises.rope_freqs_scaled(hd, base, scale, "linear", L)
    close(freqs * 1e4, plain(hd, base) / scale * 1e4, f"linear frequencies (times 10^4) of hd={hd}, scale={scale}")
    close(mscale, 1.0, "mscale of linear")


@exercise("rope_freqs_scaled", weight=2)
@pytest.mark.parametrize(("hd", "base", "scale", "L"), HEADS)
def test_ntk_raises_the_base(exercises, hd, base, scale, L):
    """NTK keeps the first frequency, divides the last, and spreads in between."""
    freqs, mscale = exercises.rope_freqs_scaled(hd, base, scale, "ntk", L)
    n = hd // 2
    # the division grows geometrically from 1 at the first pair to scale at the last
    expected = [f / scale ** (i / (n - 1)) for i, f in enumerate(plain(hd, base).tolist())]
    close(freqs * 1e4, torch.tensor(expected, dtype=F64) * 1e4, f"NTK frequencies (times 10^4), hd={hd}, scale={scale}")
    close(mscale, 1.0, "mscale of NTK")


def yarn(hd, base, scale, L, alpha, beta):
    """YaRN pair by pair, by the wavelength."""
    out = []
    for f in plain(hd, base).tolist():
        turns = L / (2 * math.pi / f)
        share = 0.0 if turns < alpha else 1.0 if turns > beta else (turns - alpha) / (beta - alpha)
        out.append(share * f + (1 - share) * f / scale)
    return torch.tensor(out, dtype=F64)


@exercise("rope_freqs_scaled", weight=3)
@pytest.mark.parametrize(("hd", "base", "scale", "L"), HEADS)
def test_yarn_mixes_by_turns(exercises, hd, base, scale, L):
    """YaRN keeps pairs of many turns, slows pairs of few, and mixes between."""
    for alpha, beta in ((1.0, 32.0), (2.0, 11.0), (0.0, 300.0)):
        freqs, mscale = exercises.rope_freqs_scaled(hd, base, scale, "yarn", L, alpha=alpha, beta=beta)
        expected = yarn(hd, base, scale, L, alpha, beta)
        close(freqs * 1e4, expected * 1e4, f"YaRN frequencies (times 10^4), hd={hd}, alpha={alpha}, beta={beta}")
        close(mscale, 0.1 * math.log(scale) + 1, f"mscale of YaRN at scale {scale}")
    default, _ = exercises.rope_freqs_scaled(hd, base, scale, "yarn", L)
    close(
        default * 1e4, yarn(hd, base, scale, L, 1.0, 32.0) * 1e4, "YaRN frequencies (times 10^4) without alpha and beta"
    )


@exercise("rope_freqs_scaled")
@pytest.mark.parametrize("mode", ["linear", "ntk", "yarn"])
def test_scale_one_changes_nothing(exercises, mode):
    """At scale 1 the frequencies are the ordinary ones and mscale is 1."""
    freqs, mscale = exercises.rope_freqs_scaled(hd=10, base=2000.0, scale=1.0, mode=mode, L_orig=512)
    close(freqs, plain(10, 2000.0), f"frequencies of {mode} at scale 1")
    close(mscale, 1.0, f"mscale of {mode} at scale 1")


@exercise("rope_freqs_scaled")
@pytest.mark.parametrize("mode", ["linear", "ntk", "yarn"])
def test_order_and_bounds(exercises, mode):
    """Frequencies stay in (0, 1], decrease, and lie between linear and plain."""
    for hd, base, scale, L in HEADS:
        freqs, _ = exercises.rope_freqs_scaled(hd, base, scale, mode, L)
        exact((freqs.shape, freqs.dtype), ((hd // 2,), F64), f"shape and dtype of {mode}, hd={hd}")
        holds((freqs > 0) & (freqs <= 1), f"The frequencies of {mode} lie in (0, 1].")
        holds(freqs.diff() < 0, f"The frequencies of {mode} decrease.")
        ordinary, tiny = plain(hd, base), 1e-12
        holds((freqs <= ordinary + tiny) & (freqs >= ordinary / scale - tiny), f"{mode} lies between linear and plain.")


@exercise("rope_freqs_scaled")
def test_the_four_pairs_of_the_smallest_heads(exercises):
    """Heads of width 4 can be scaled, and L_orig matters to YaRN alone."""
    freqs, _ = exercises.rope_freqs_scaled(4, 100.0, 2.0, "ntk", 64)
    close(freqs, torch.tensor([1.0, 0.05], dtype=F64), "NTK frequencies of a head of width 4")
    for mode, same in (("linear", True), ("ntk", True), ("yarn", False)):
        short, long = (exercises.rope_freqs_scaled(16, 1000.0, 4.0, mode, L)[0] for L in (20, 2000))
        exact(torch.equal(short, long), same, f"whether {mode} gives the same for L_orig 20 and 2000")


@exercise("rope_freqs_scaled")
def test_scalings_that_cannot_be(exercises):
    """Odd or too narrow heads, a scale below 1 and unknown modes are refused."""
    for wrong in ((7, 4.0, "ntk"), (2, 4.0, "ntk"), (9, 2.0, "linear"), (8, 0.5, "yarn"), (8, 0.9, "linear")):
        hd, scale, mode = wrong
        with pytest.raises(ValueError):
            exercises.rope_freqs_scaled(hd, 10000.0, scale, mode, 4096)
    for mode in ("dynamic", "NTK", ""):
        with pytest.raises(ValueError):
            exercises.rope_freqs_scaled(8, 10000.0, 2.0, mode, 4096)


# -- linear_attention, linear_attention_step -----------------------------------------------------------------------


def elu_plus_one(x):
    return F.elu(x) + 1


def stacked(x):
    """A feature map that changes the width: three features for each two numbers, all positive."""
    return torch.cat([x.exp(), (-x[..., :1]).exp()], -1)


def by_loops(q, k, v, phi, normalize=True):
    """The definition, token by token, as a masked kernel sum."""
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=v.dtype)
    q, k = phi(q), phi(k)
    for i in range(q.shape[2]):
        weights = (q[:, :, i : i + 1] * k[:, :, : i + 1]).sum(-1)
        total = weights.sum(-1, keepdim=True) if normalize else torch.ones_like(weights[..., :1])
        out[:, :, i] = torch.where(total == 0, 0.0, (weights[..., None] * v[:, :, : i + 1]).sum(2) / total)
    return out


def qkv(rng, T=7, hd=4, hv=6):
    return rng.normal(2, 3, T, hd), rng.normal(2, 3, T, hd), rng.normal(2, 3, T, hv)


def steps(exercises, q, k, v, phi, **options):
    """Feed the tokens one by one; return the outputs and the last state."""
    state, outputs = None, []
    for t in range(q.shape[2]):
        out, state = exercises.linear_attention_step(state, phi(q[:, :, t]), phi(k[:, :, t]), v[:, :, t], **options)
        outputs.append(out)
    return torch.stack(outputs, 2), state


@exercise("linear_attention", weight=2)
@pytest.mark.parametrize("phi", [elu_plus_one, torch.exp, stacked], ids=lambda f: f.__name__)
def test_parallel_is_the_kernel_sum(exercises, rng, phi):
    """Each row is the mean of the values up to it, weighted by features."""
    for sizes in ({}, {"T": 1}, {"hd": 2, "hv": 1}, {"T": 12, "hd": 3, "hv": 3}):
        q, k, v = qkv(rng, **sizes)
        got = exercises.linear_attention(q, k, v, phi)
        close(got, by_loops(q, k, v, phi), f"linear_attention with {phi.__name__}, q {tuple(q.shape)}")


@exercise("linear_attention", weight=2)
@pytest.mark.parametrize("phi", [elu_plus_one, stacked], ids=lambda f: f.__name__)
def test_step_by_step_is_the_same(exercises, rng, phi):
    """One token at a time gives what the kernel sum gives."""
    for sizes in ({}, {"T": 1}, {"T": 9, "hd": 2, "hv": 1}, {"hd": 3, "hv": 3}):
        q, k, v = qkv(rng, **sizes)
        got, _ = steps(exercises, q, k, v, phi)
        close(got, by_loops(q, k, v, phi), f"linear_attention_step with {phi.__name__}, q {tuple(q.shape)}")


@exercise("linear_attention")
def test_the_state_has_a_fixed_size(exercises, rng):
    """The state is the sum of outer products and the sum of keys, at any length."""
    for T in (1, 2, 11):
        q, k, v = qkv(rng, T=T)
        for options in ({}, {"normalize": False}):
            _, (S, z) = steps(exercises, q, k, v, stacked, **options)
            close(S, torch.einsum("bhtm,bhtv->bhmv", stacked(k), v), f"S after {T} tokens, {options}")
            close(z, stacked(k).sum(2), f"z after {T} tokens, {options}")


@exercise("linear_attention", weight=2)
def test_without_the_normaliser(exercises, rng):
    """Unnormalised with the identity it is a running sum of outer products."""
    q, k, v = qkv(rng, T=8)
    outer = (k[..., :, None] * v[..., None, :]).cumsum(2)  # (B, H, T, hd, hv)
    expected = torch.einsum("bhtd,bhtdv->bhtv", q, outer)
    close(exercises.linear_attention(q, k, v, lambda x: x, normalize=False), expected, "linear_attention, unnormalised")
    close(steps(exercises, q, k, v, lambda x: x, normalize=False)[0], expected, "the steps, unnormalised")


@exercise("linear_attention")
def test_a_sum_of_zero(exercises, rng):
    """Where the weights sum to exactly zero the output is zero."""
    q, k, v = qkv(rng, T=6)
    k[:, :, :2], q[:, :, 4] = -k[:, :, :2].abs(), -1.0  # under relu: no weight in rows 0, 1 and 4
    expected = by_loops(q, k, v, torch.relu)
    for got, what in (
        (exercises.linear_attention(q, k, v, torch.relu), "linear_attention"),
        (steps(exercises, q, k, v, torch.relu)[0], "the steps"),
    ):
        exact(got[:, :, [0, 1, 4]], torch.zeros(2, 3, 3, 6, dtype=F64), f"rows without any weight, {what}")
        close(got, expected, f"{what} with relu")


@exercise("linear_attention")
def test_small_and_negative_sums_are_divided_by(exercises, rng):
    """Only an exact zero is special: tiny and negative sums are ordinary."""
    q, k, v = qkv(rng, T=4)
    for factor in (1e-9, -1.0):
        got = exercises.linear_attention(q * factor, k.abs(), v, lambda x: x)
        close(got, by_loops(q * factor, k.abs(), v, lambda x: x), f"linear_attention with queries times {factor}")
        got, _ = steps(exercises, q * factor, k.abs(), v, lambda x: x)
        close(got, by_loops(q * factor, k.abs(), v, lambda x: x), f"the steps with queries times {factor}")


@exercise("linear_attention")
def test_later_tokens_do_not_matter(exercises, rng):
    """Changing the last token leaves earlier rows; a mean of ones is one."""
    q, k, v = qkv(rng, T=6)
    before = exercises.linear_attention(q, k, v, elu_plus_one)
    k2, v2 = k.clone(), v.clone()
    k2[:, :, 5], v2[:, :, 5] = rng.normal(2, 3, 4), rng.normal(2, 3, 6)
    after = exercises.linear_attention(q, k2, v2, elu_plus_one)
    close(after[:, :, :5], before[:, :, :5], "the rows before the changed token")
    holds((after[:, :, 5] - before[:, :, 5]).abs().max() > 0.01, "The row of the changed token changes.")
    ones = exercises.linear_attention(q, k, torch.ones_like(v), elu_plus_one)
    close(ones, torch.ones_like(v), "the mean of values that are all 1")


@exercise("linear_attention")
def test_a_text_can_branch(exercises, rng):
    """No argument is changed, so one state serves two continuations."""
    q, k, v = qkv(rng, T=5)
    pure(exercises.linear_attention, q, k, v, elu_plus_one)
    _, state = steps(exercises, q, k, v, elu_plus_one)
    for seed in (1, 2):
        g = torch.Generator().manual_seed(seed)
        more = [torch.randn(2, 3, 1, n, generator=g, dtype=F64) for n in (4, 4, 6)]
        one = (elu_plus_one(more[0][:, :, 0]), elu_plus_one(more[1][:, :, 0]), more[2][:, :, 0])
        out, _ = pure(exercises.linear_attention_step, state, *one)
        whole = by_loops(*(torch.cat(pair, 2) for pair in zip((q, k, v), more, strict=True)), elu_plus_one)
        close(out, whole[:, :, 5], f"the output of continuation {seed}")


@driver
def branch(module, state, q, k, v):
    """Two steps from one state, which stays beside the student's code."""
    out, middle = module.linear_attention_step(state, q, k, v)
    kept = [x.clone() for x in middle]
    module.linear_attention_step(middle, q, 2 * k, v)
    again, _ = module.linear_attention_step(tuple(middle), q, k, v)
    return [bool((x != y).any()) for x, y in zip(kept, middle, strict=True)], again


@exercise("linear_attention")
def test_a_step_leaves_the_old_state(exercises, rng):
    """A state that was handed on is still what it was."""
    q, k, v = (elu_plus_one(x[:, :, 0]) for x in qkv(rng, T=1))
    changed, again = exercises.run(branch, None, q, k, v)
    exact(changed, [False, False], "whether S and z changed in a later step")
    close(again, v, "the output of a second step with the same key and value")


@exercise("linear_attention")
def test_linear_attention_keeps_the_dtype(exercises, rng):
    """float32 in, float32 out, also in the state."""
    q, k, v = (x.float() for x in qkv(rng, T=5))
    close(exercises.linear_attention(q, k, v, elu_plus_one), by_loops(q, k, v, elu_plus_one), "float32, at once")
    out, (S, z) = steps(exercises, q, k, v, elu_plus_one)
    close(out, by_loops(q, k, v, elu_plus_one), "float32, step by step")
    exact((S.dtype, z.dtype), (torch.float32, torch.float32), "the dtypes of the state")


# -- fit_messages --------------------------------------------------------------------------------------------------


def chat(text):
    """'s3 u2 a4' is a system message of 3 tokens, a user's of 2 and an assistant's of 4; contents are all different."""
    roles = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}
    return [
        {"role": roles[word[0]], "content": f"{i}" + "x" * (17 * i % 5), "tokens": int(word[1:])}
        for i, word in enumerate(text.split())
    ]


def tokens(message):
    return message["tokens"]


def fitted(messages, budget, keep_system=True):
    """Try every suffix that begins where a turn begins, longest first."""
    n = 0
    while n < len(messages) and messages[n]["role"] == "system":
        n += 1
    head, rest = (messages[:n], messages[n:]) if keep_system else ([], messages)
    cuts = [i for i, m in enumerate(rest) if i == 0 or m["role"] == "user" or (not keep_system and i == n)]
    for cut in [*cuts, len(rest)]:
        kept = head + rest[cut:]
        if sum(map(tokens, kept)) <= budget:
            return kept
    return head


LONG = "s3 u2 a4 u1 a1 t6 a2 u3 a1 u1 a5"
CHATS = [
    LONG,
    "u2 a4 u1 a1",
    "s2 a3 u2 a1 u4",
    "s1 s2 u5 a1 u1",
    "s4",
    "u3",
    "s2 u1 t2 t3 a1 u9",
    "a2 t1 u1",
    "s1 u0 a0 u2",
]


@exercise("fit_messages", weight=3)
@pytest.mark.parametrize("text", CHATS)
def test_the_longest_suffix_of_turns(exercises, text):
    """At every budget the longest run of newest whole turns is kept."""
    messages = chat(text)
    need = sum(map(tokens, takewhile(lambda m: m["role"] == "system", messages)))
    for budget in range(need, sum(map(tokens, messages)) + 2):
        got = exercises.fit_messages(messages, tokens, budget)
        exact(got, fitted(messages, budget), f"fit_messages of {text!r} with a budget of {budget}")


@exercise("fit_messages", weight=2)
@pytest.mark.parametrize("text", [LONG, "s1 s2 u5 a1 u1", "s4", "s2 a3 u2", "u2 a1"])
def test_without_keeping_the_system(exercises, text):
    """Without keep_system the head is the first to go."""
    messages = chat(text)
    for budget in range(sum(map(tokens, messages)) + 2):
        got = exercises.fit_messages(messages, tokens, budget, keep_system=False)
        exact(got, fitted(messages, budget, False), f"fit_messages of {text!r}, keep_system=False, budget {budget}")


@exercise("fit_messages")
def test_an_older_turn_that_would_fit(exercises):
    """Nothing older is kept behind a turn that does not fit."""
    messages = chat("s1 u1 a1 u30 a5 u2 a2")
    exact(exercises.fit_messages(messages, tokens, 12), messages[:1] + messages[-2:], "a small turn before a large one")


@exercise("fit_messages")
def test_a_head_that_does_not_fit(exercises):
    """A head larger than the budget is a ValueError, if it must be kept."""
    messages = [message | {"content": "some more words"} for message in chat("s3 s4 u1 a1")]
    for budget in (6, 0):
        with pytest.raises(ValueError):
            exercises.fit_messages(messages, tokens, budget)
    exact(exercises.fit_messages(messages, tokens, 7), messages[:2], "a budget for the head alone")
    exact(exercises.fit_messages(messages, tokens, 2, keep_system=False), messages[2:], "no head wanted")


@exercise("fit_messages")
def test_a_later_system_message(exercises):
    """A system message in the middle belongs to the turn that it stands in."""
    messages = chat("s1 u2 s3 a1 u2 a1")
    for budget in range(1, 12):
        got = exercises.fit_messages(messages, tokens, budget)
        exact(got, fitted(messages, budget), f"a system message inside a turn, budget {budget}")


@exercise("fit_messages")
def test_nothing_to_fit(exercises):
    """No messages and no budget give an empty list."""
    exact(exercises.fit_messages([], tokens, 0), [], "no messages")
    exact(exercises.fit_messages(chat("u1 a1"), tokens, 0), [], "a budget of 0")
    exact(exercises.fit_messages(chat("u0 a0"), tokens, 0), chat("u0 a0"), "messages without tokens")


ROLES = st.lists(st.tuples(st.sampled_from("uuaat"), st.integers(0, 6)), max_size=12)


@exercise("fit_messages")
@settings(max_examples=20)
@given(heads=st.lists(st.integers(0, 3), max_size=2), rest=ROLES, spare=st.integers(0, 20))
def test_any_conversation(exercises, heads, rest, spare):
    """Any conversation: the budget holds, the head stays, twice is once."""
    messages = chat(" ".join([*(f"s{n}" for n in heads), *(f"{r}{n}" for r, n in rest)]))
    budget = sum(heads) + spare
    got = exercises.fit_messages(messages, tokens, budget)
    exact(got, fitted(messages, budget), f"fit_messages of {heads} and {rest} with a budget of {budget}")
    exact(exercises.fit_messages(got, tokens, budget), got, "fit_messages of what fits")


@exercise("fit_messages")
def test_messages_stay_as_they_are(exercises):
    """The list and its messages are not modified, and the counter gets messages."""
    messages, count = chat(LONG), counting(tokens)
    got = pure(exercises.fit_messages, messages, count, 13)
    exact(got, fitted(messages, 13), "fit_messages with a counting counter")
    holds(all(len(a) == 1 and a[0] in messages for a in count.arguments), "The counter is called with whole messages.")


# -- conversation_cost ---------------------------------------------------------------------------------------------


def billed(turns, price_in, price_out, cached_price):
    """Write every request out as a list of tokens and count."""
    seen, requests = [], []
    for turn, (n_in, n_out) in enumerate(turns):
        prompt = [*seen, *[(turn, "in")] * n_in]
        requests.append((len(prompt), len(seen), n_out))
        seen = [*prompt, *[(turn, "out")] * n_out]
    cheap = price_in if cached_price is None else cached_price
    bills = [(read - old) * price_in + old * cheap + out * price_out for read, old, out in requests]
    read, old, out = (sum(column) for column in zip(*requests, strict=True)) if requests else (0, 0, 0)
    return {
        "input_tokens": read,
        "cached_tokens": old,
        "output_tokens": out,
        "bills": bills,
        "total": float(sum(bills)),
    }


@exercise("conversation_cost", weight=2)
@pytest.mark.parametrize("cached_price", [None, 0.3, 0.0, 2.5])
def test_every_request_reads_all(exercises, cached_price):
    """Each bill counts the whole past, the new message and the answer."""
    for turns in ([(10, 5)], [(10, 5), (20, 7), (3, 11), (1, 1)], [(4, 0), (0, 9), (2, 2)], [(7, 30)] * 6):
        got = exercises.conversation_cost(turns, 1.5, 4.0, cached_price)
        close(got, billed(turns, 1.5, 4.0, cached_price), f"the cost of {turns} with cached_price={cached_price}")


@exercise("conversation_cost")
def test_the_bill_is_quadratic(exercises):
    """Twice the turns read nearly four times the tokens; cached for nothing, twice."""
    one, two = (exercises.conversation_cost([(30, 70)] * n, 1.0, 0.0) for n in (200, 400))
    holds(3.9 < two["input_tokens"] / one["input_tokens"] < 4.1, "400 turns read four times as many tokens as 200.")
    free = [exercises.conversation_cost([(30, 70)] * n, 1.0, 0.0, cached_price=0.0)["total"] for n in (200, 400)]
    close(free, [6000.0, 12000.0], "totals when a cached token costs nothing")
    got = exercises.conversation_cost(turns=[(30, 70)] * 200, price_in=2.0, price_out=3.0)
    close(got["total"], 2.0 * (200 * 30 + 100 * 199 * 200 / 2) + 3.0 * 70 * 200, "the total of 200 equal turns")


@exercise("conversation_cost")
def test_no_turns_cost_nothing(exercises):
    """An empty conversation costs nothing, and no argument is changed."""
    empty = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "bills": [], "total": 0.0}
    exact(exercises.conversation_cost([], 1.0, 2.0), empty, "the cost of no turns")
    pure(exercises.conversation_cost, [(1, 2), (3, 4)], 1.0, 2.0, 0.5)


# -- needle_accuracy -----------------------------------------------------------------------------------------------

KEY, V = 10, 43


def answering(answer):
    """A language model that says answer(row) at the last place of each row, and nonsense before."""

    def lm(ids):
        logits = torch.zeros(*ids.shape, V)
        logits[:, :-1, 7] = 5.0
        for b, row in enumerate(ids.tolist()):
            logits[b, -1, answer(row)] = 3.0
        return logits

    return counting(lm)


def needle(row):
    return row.index(KEY)


def perfect(row):
    return row[needle(row) + 1]


def only_last(w):
    return lambda row: perfect(row) if needle(row) >= len(row) - w else 20


LENGTHS, DEPTHS = [5, 13, 23], [0.0, 0.3, 0.48, 1.0]


@exercise("conversation_cost", weight=2)
def test_perfect_and_blind_models(exercises, rng):
    """A model that finds everything scores 1 everywhere, a blind one 0."""
    for answer, expected in ((perfect, 1.0), (lambda row: 20, 0.0)):
        got = exercises.needle_accuracy(answering(answer), LENGTHS, DEPTHS, 6, rng.generator())
        exact(got, torch.full((3, 4), expected, dtype=F64), "the grid of a model that finds all or nothing")


@exercise("conversation_cost", weight=2)
def test_a_model_that_sees_the_end(exercises, rng):
    """The grid of a model with a window is a step, rows lengths, columns depths."""
    got = exercises.needle_accuracy(answering(only_last(8)), LENGTHS, DEPTHS, 5, rng.generator())
    places = [[round(d * (n - 3)) for d in DEPTHS] for n in LENGTHS]
    expected = [[float(p >= n - 8) for p in row] for n, row in zip(LENGTHS, places, strict=True)]
    exact(got, torch.tensor(expected, dtype=F64), "the grid of a model that sees the last 8 ids")


@exercise("conversation_cost")
def test_a_model_blind_in_the_middle(exercises, rng):
    """A model that loses the middle has holes in the middle columns only."""
    middle = answering(lambda row: 20 if 6 <= needle(row) < 14 else perfect(row))
    got = exercises.needle_accuracy(middle, [23], [0.0, 0.25, 0.5, 0.6, 0.75, 1.0], 4, rng.generator())
    exact(got, torch.tensor([[1.0, 1, 0, 0, 1, 1]], dtype=F64), "the grid of a model blind in the middle")


@exercise("conversation_cost", weight=2)
def test_the_haystack(exercises, rng):
    """One key and value at the place of the depth, the key again at the end."""
    lm = answering(lambda row: perfect(row) if needle(row) in (0, 11, 32, 40) else 20)
    exercises.needle_accuracy(lm=lm, lengths=[3, 43], depths=[0.28, 0.8, 1.0], trials=7, rng=rng.generator())
    texts = [row for (ids,) in lm.arguments for row in ids.tolist()]
    exact(sorted(map(len, texts)), [3] * 21 + [43] * 21, "the lengths of all texts")
    for row in texts:
        exact([i for i, x in enumerate(row) if x == KEY][1:], [len(row) - 1], "the places of the key but the first")
        holds(0 <= perfect(row) < 10, "The id behind the key is a value.")
        hay = [x for i, x in enumerate(row[:-1]) if i not in (needle(row), needle(row) + 1)]
        holds(all(11 <= x < 43 for x in hay), "All other ids are hay.")
    exact(sorted(needle(row) for row in texts), [0] * 21 + [11] * 7 + [32] * 7 + [40] * 7, "the places of the needles")


@exercise("conversation_cost")
def test_draws_are_fresh_and_uniform(exercises, rng):
    """Values and hay are drawn uniformly and anew for every text of every cell."""
    lm = answering(perfect)
    exercises.needle_accuracy(lm, [20, 21], [0.0, 1.0], 500, rng.generator())
    texts = [row for (ids,) in lm.arguments for row in ids.tolist()]
    exact(len(texts), 2000, "the number of texts")
    exact(len(set(map(tuple, texts))), 2000, "the number of different texts")
    values = torch.tensor([perfect(row) for row in texts])
    same_distribution(torch.bincount(values, minlength=10), torch.ones(10), "the values")
    hay = torch.tensor([x for row in texts for x in row if x > KEY])
    same_distribution(torch.bincount(hay - 11, minlength=32), torch.ones(32), "the hay")
    cells = {}
    for row in texts:
        cells.setdefault((len(row), needle(row)), []).append(perfect(row))
    exact(len(set(map(tuple, cells.values()))), 4, "the number of cells with values of their own")


@exercise("conversation_cost")
def test_the_share_is_counted(exercises, rng):
    """A model that knows only small values is right in their share of the texts."""
    lm = answering(lambda row: perfect(row) if perfect(row) < 4 else 20)
    got = exercises.needle_accuracy(lm, [9, 15], [0.5], 40, rng.generator())
    texts = [row for (ids,) in lm.arguments for row in ids.tolist()]
    for i, n in enumerate((9, 15)):
        right = [perfect(row) < 4 for row in texts if len(row) == n]
        close(got[i, 0], torch.tensor(sum(right) / 40, dtype=F64), f"the share found in texts of {n} ids")


@exercise("conversation_cost")
def test_haystacks_that_cannot_be(exercises, rng):
    """Too short texts, depths outside 0 to 1 and no trials are a ValueError."""
    for lengths, depths, trials in (
        ([2], [0.5], 1),
        ([9, 0], [0.5], 1),
        ([9], [1.1], 1),
        ([9], [0.0, -0.1], 1),
        ([9], [1.0], 0),
    ):
        with pytest.raises(ValueError):
            exercises.needle_accuracy(answering(perfect), lengths, depths, trials, rng.generator())


@exercise("conversation_cost")
def test_the_same_generator_the_same_grid(exercises, rng):
    """Equal generators give equal texts, and a used one gives others."""
    lms = [answering(lambda row: 3) for _ in range(3)]
    g = torch.Generator().manual_seed(rng.seed)
    grids = [exercises.needle_accuracy(lms[0], [12], [0.5], 30, torch.Generator().manual_seed(rng.seed))]
    grids += [exercises.needle_accuracy(lm, [12], [0.5], 30, g) for lm in lms[1:]]
    texts = [[row for (ids,) in lm.arguments for row in ids.tolist()] for lm in lms]
    exact(texts[1], texts[0], "the texts of two equal generators")
    exact(grids[1], grids[0], "the grids of two equal generators")
    holds(texts[2] != texts[1], "A generator that has been used gives other texts.")
