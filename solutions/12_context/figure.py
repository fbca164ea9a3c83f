"""What the figure of chapter 12 computes and says, held against the reference."""

import math

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
PRICES = (3e-6, 15e-6)
TURNS = [(200, 300)] * 20  # the first message with its system message


@mirror("firstKept")
def first_kept(rng):
    head, turns = int(rng.integers(0, 20)), rng.integers(1, 20, int(rng.integers(1, 9))).tolist()
    budget = head + int(rng.integers(0, 90))
    chat = [{"role": "system", "content": head}] + [{"role": "user", "content": n} for n in turns]
    kept = reference.fit_messages(chat, lambda message: message["content"], budget)
    return [head, turns, budget], len(chat) - len(kept)


@mirror("bills")
def bills(rng):
    turns, prices = rng.integers(1, 500, 7, 2).tolist(), rng.uniform(3).tolist()
    return [turns, *prices], reference.conversation_cost(turns, *prices)["bills"]


@mirror("frequencies")
def frequencies(rng):
    mode = ("linear", "ntk", "yarn")[rng.seed % 3]
    d, base, scale = 2 * int(rng.integers(2, 70)), 10.0 ** int(rng.integers(2, 7)), 1 + 15 * rng.random.random()
    trained = int(rng.integers(100, 9000))
    expected, _ = reference.rope_freqs_scaled(d, base, scale, mode, trained, 2.0, 20.0)
    return [d, base, scale, mode, trained, 2, 20], expected


@mirror("frequencies")
def frequencies_unchanged(rng):
    d, base = 2 * int(rng.integers(2, 70)), 10.0 ** int(rng.integers(2, 7))
    return [d, base, 4, "none", 4096], reference.rope_freqs_scaled(d, base, 1.0, "linear", 4096)[0]


@mirror("untrained")
def untrained(rng):
    # an angle is trained if some trained position reaches it; look at the farthest one of the longer window
    plain = 10 ** (-4 * rng.uniform(30))
    stretched, scale, trained = plain * (0.1 + rng.uniform(30)), 4, 600
    reached = (plain * trained).clamp(max=2 * math.pi)
    farthest = (stretched * trained * scale).clamp(max=2 * math.pi)
    return [plain, stretched, scale, trained], int((farthest > reached).sum())


def some_window(rng):
    return int(rng.integers(1, 7)), int(rng.integers(0, 5))


@mirror("visible")
def visible(rng):
    T, (window, sinks) = int(rng.integers(1, 12)), some_window(rng)
    return [T, window, sinks], reference.sliding_window_mask(T, window, sinks)


@mirror("reach")
def reach(rng):
    window, sinks = some_window(rng)
    i, layers = int(rng.integers(0, 12)), int(rng.integers(1, 6))
    mask = reference.sliding_window_mask(12, window, sinks)
    paths = torch.linalg.matrix_power(mask.double(), layers)  # the number of ways from token to token
    return [mask, i, layers], paths[i] > 0


def rolled(n, window, sinks):
    """Give the token in each slot of the reference's cache after n tokens, -1 where it is empty."""
    cache = reference.RollingKVCache(window, sinks)
    for t in range(n):
        cache.append(torch.full((1, 1, 1, 1), float(t)), torch.zeros(1, 1, 1, 1))
    return cache.held


@mirror("slots")
def slots(rng):
    n, (window, sinks) = int(rng.integers(1, 20)), some_window(rng)
    return [n, window, sinks], rolled(n, window, sinks)


@mirror("inside")
def inside(rng):
    n, (window, sinks) = int(rng.integers(1, 20)), some_window(rng)
    held = rolled(n, window, sinks).tolist()
    place = dict(zip(*(each.tolist() for each in reference.streaming_positions(n, window, sinks)), strict=True))
    return [held], [place.get(token, -1) for token in held]


def cost(turn, cached=None):
    told = reference.conversation_cost(TURNS[:turn], *PRICES, cached)
    return f"this turn costs {told['bills'][-1]:.4f} and all so far {told['total']:.4f}"


def strain(mode, scale):
    plain, _ = reference.rope_freqs_scaled(128, 1e4, 1.0, "linear", 4096)
    stretched = plain if mode == "none" else reference.rope_freqs_scaled(128, 1e4, scale, mode, 4096)[0]
    slow = plain * 4096 < 2 * math.pi
    beyond = int((slow & (stretched * scale > plain * (1 + 1e-9))).sum())
    slower = int((stretched < plain * (1 - 1e-9)).sum())
    return f"{beyond} of 64 pairs reach angles never trained; {slower} turn"


@shown(turn=20)
def the_bill_of_twenty_turns():
    return cost(20)


@shown(turn=20, cached=True)
def the_bill_with_cached_tokens():
    return cost(20, 0.3e-6)


@shown(turn=8, budget=2000)
def what_fits_at_turn_8():
    chat = [{"role": "system", "n": 100}]
    for i in range(8):
        chat += [{"role": "user", "n": 200 if i else 100}, {"role": "assistant", "n": 300}]
    kept = reference.fit_messages(chat[:-1], lambda message: message["n"], 2000)
    gone = (len(chat) - 1 - len(kept)) // 2
    return f"sends {sum(m['n'] for m in kept):,} tokens; turns 1 to {gone} are forgotten"


@shown(panel="turn", mode="none", scale=4)
def unchanged():
    return strain("none", 4.0)


@shown(panel="turn", mode="ntk", scale=4)
def ntk():
    return strain("ntk", 4.0)


@shown(panel="turn", mode="yarn", scale=16)
def yarn():
    return strain("yarn", 16.0)


def told(i, window, sinks, layers):
    tokens, positions = reference.streaming_positions(i + 1, window, sinks)
    mask = reference.sliding_window_mask(12, window, sinks).double()
    heard = int((torch.linalg.matrix_power(mask, layers)[i] > 0).sum())
    return (
        f"Token {i} sees {len(tokens)} of {i + 1} tokens; {i + 1 - len(tokens)} are dropped. The oldest that it sees,"
        f" {tokens[0]}, is {i - tokens[0]} away in the text and {positions[-1] - positions[0]} inside the cache."
        f" Through {layers} layer{'s' if layers > 1 else ''} it is reached from {heard} token"
    )


@shown(panel="window", newest=8, window=3, sinks=2, layers=1)
def the_worked_example():
    return told(8, 3, 2, 1)


@shown(panel="window", newest=11, window=3, sinks=0, layers=4)
def four_layers_reach_further():
    return told(11, 3, 0, 4)
