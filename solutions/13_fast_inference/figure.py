"""What the figure of chapter 13 computes and says, held against the reference."""

import math

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
P = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
Q = torch.tensor([0.2, 0.7, 0.1], dtype=torch.float64)


def judged(p, q, after):
    """Sum over drafts x and over a fine grid's limit: kept below u = p/q, replaced from `after(residual)` above it."""
    out, kept = torch.zeros_like(p), torch.zeros_like(p)
    for x in range(len(p)):
        keep = min(1.0, float(p[x] / q[x]))
        # the reference agrees about both sides of the border
        assert reference.speculative_accept(p, q, x, keep * 0.999999, lambda residual: -1) == x
        kept[x] += q[x] * keep
        out[x] += q[x] * keep
        if keep < 1:
            seen = []
            reference.speculative_accept(p, q, x, keep + 1e-6 * (1 - keep), lambda r, seen=seen: seen.append(r) or -1)
            out += q[x] * (1 - keep) * after(seen[0])
    return out, kept


def two(rng):
    return torch.softmax(rng.normal(5), -1), torch.softmax(rng.normal(5), -1)


@mirror("shares")
def shares(rng):
    p, q = two(rng)
    out, kept = judged(p, q, lambda residual: residual)
    return [p, q], {"kept": kept, "lacking": out - kept}


@mirror("outcome")
def outcome(rng):
    p, q = two(rng)
    return [p, q], judged(p, q, lambda residual: residual)[0]


@mirror("outcome")
def outcome_when_drawn_from_p(rng):
    p, q = two(rng)
    return [p, q, True], judged(p, q, lambda residual: p)[0]


@mirror("expectedTokens")
def expected_tokens(rng):
    alpha, gamma = rng.random.random(), int(rng.integers(0, 13))
    return [alpha, gamma], reference.expected_tokens(alpha, gamma)


def run(requests, max_tokens, seqs, continuous):
    """Run the reference's scheduler; a static batch is added only when the one before has ended."""
    scheduler = reference.Scheduler(max_tokens, seqs)
    waiting, steps = list(enumerate(requests)), []
    wanted = {i: new for i, (_, _, new) in enumerate(requests)}
    while waiting or any(scheduler.emitted[i] < wanted[i] for i in scheduler.emitted):
        busy = any(scheduler.emitted[i] < wanted[i] for i in scheduler.emitted)
        here = [each for each in waiting if each[1][0] <= len(steps)]
        come = here if continuous else [] if busy else here[:seqs]
        for i, (_, prompt, new) in come:
            scheduler.add(i, prompt, new)
        waiting = [each for each in waiting if each not in come]
        before = dict(scheduler.emitted)
        batch = scheduler.step()
        steps.append([[i, tokens, scheduler.emitted[i] - before[i]] for i, tokens in batch])
    return steps


def some_requests(rng):
    arrivals = rng.integers(0, 20, 8).sort().values.tolist()
    return [[at, int(rng.integers(1, 9)), int(rng.integers(1, 9))] for at in arrivals]


@mirror("schedule")
def continuous(rng):
    case = [some_requests(rng), int(rng.integers(1, 9)), int(rng.integers(1, 5)), True]
    return case, run(*case)


@mirror("schedule")
def static(rng):
    case = [some_requests(rng), int(rng.integers(1, 9)), int(rng.integers(1, 5)), False]
    return case, run(*case)


@mirror("tiles")
def tiles_in_both_orders(rng):
    S, block = int(rng.integers(1, 12)), int(rng.integers(1, 6))
    backwards = bool(rng.integers(0, 2))
    read = [[i, min(i + block, S)] for i in range(0, S, block)]
    return [S, block, backwards], read[::-1] if backwards else read


def prefixes(scores, values, read):
    """What is kept after each tile, recovered from the reference's result and log-sum over the tiles so far."""
    kept, old = [], -math.inf
    for n in range(1, len(read) + 1):
        blocks = [(scores[None, a:b], values[a:b, None]) for a, b in read[:n]]
        top = max(float(block.max()) for block, _ in blocks)
        o, lse = (float(each.flatten()[0]) for each in reference.online_softmax(blocks))
        seen = top > -math.inf
        total = math.exp(lse - top) if seen else 0.0
        kept.append({"top": top, "shrink": math.exp(old - top) if seen else 0.0, "sum": total, "mix": o * total})
        old = top
    return kept


@mirror("online")
def online(rng):
    scores, values = 5 * rng.normal(7), rng.normal(7)
    scores[: int(rng.integers(0, 5))] = -math.inf  # the first tile may be hidden as a whole
    read = [[0, 2], [2, 5], [5, 6], [6, 7]]
    return [scores, values, read], prefixes(scores, values, read)


@mirror("atOnce")
def at_once(rng):
    # with keys that are unit vectors the scores are the query itself
    scores, values, S = 5 * rng.normal(6), rng.normal(6), 6
    q, k = scores[None, None, None] * math.sqrt(S), torch.eye(S, dtype=scores.dtype)[None, None]
    return [scores, values], reference.flash_attention(q, k, values[None, None, :, None], block=4)[0].flatten()[
        0
    ].item()


@shown(panel="draft", gamma=4)
def the_worked_example():
    alpha = float(judged(P, Q, lambda residual: residual)[1].sum())
    mean = reference.expected_tokens(alpha, 4)
    return (
        f"kept with probability {alpha:.2f}; what comes out is p exactly. With γ = 4 a step brings {mean:.2f} tokens"
        f" on average, {mean / (4 * 0.1 + 1):.2f} times the speed if"
    )


@shown(wrong=True)
def the_wrong_way():
    gap = (judged(P, Q, lambda residual: P)[0] - P).abs().max()
    return f"what comes out is up to {gap:.2f} away from p."


@shown(share=0.3, gamma=12)
def a_better_draft():
    q = torch.tensor([0.7 * 2 / 3, 0.3, 0.7 / 3], dtype=torch.float64)
    alpha = float(judged(P, q, lambda residual: residual)[1].sum())
    return f"With γ = 12 a step brings {reference.expected_tokens(alpha, 12):.2f} tokens on average"


@shown(gamma=0)
def no_draft_no_gain():
    return f"With γ = 0 a step brings {reference.expected_tokens(0.6, 0):.2f} tokens on average, 1.00 times the speed"


@shown(panel="tiles")
def the_worked_example_of_the_tiles():
    scores, values = torch.tensor([0, math.log(2), math.log(4)]), torch.tensor([7.0, 14.0, 21.0])
    first, second = prefixes(scores, values, [[0, 2], [2, 3]])
    return (
        f"Tile 2 of 3: the maximum of query 2 rises from {first['top']:.2f} to {second['top']:.2f}, so what it had"
        f" summed shrinks by {second['shrink']:.2f}. Its result so far is {second['mix']:.2f} / {second['sum']:.2f} ="
        f" {second['mix'] / second['sum']:.2f}; all scores at once give"
        f" {torch.softmax(scores, -1) @ values:.2f}. At most 12 scores"
    )


@shown(panel="tiles", backwards=True, block=3, read=1)
def the_first_tile_is_hidden():
    _, lse = reference.online_softmax([(torch.full((1, 3), -math.inf), torch.ones(3, 1))])
    assert lse == -math.inf
    return "Tile 1 of 2: query 2 has seen nothing: its maximum is still −∞. Its result so far is nothing"


@shown(panel="tiles", causal=False, query=2, block=4, read=2)
def all_keys_of_query_2():
    scores = torch.tensor([[0, 0.6931, 1.3863, 0.4, -0.3, 2.1]], dtype=torch.float64)
    values = torch.tensor([[7.0], [14], [21], [28], [35], [42]], dtype=torch.float64)
    o, _ = reference.online_softmax([(scores, values)])
    return f"= {float(o):.2f}; all scores at once give {float(o):.2f}. At most 24 scores are held at a time, not 36."


def uniform(seed):
    """Draw as the figure does: a linear congruence with the constants of Numerical Recipes."""
    state = (seed * 2654435761 ^ 0x5BD1E995) % 2**32
    while True:
        state = (state * 1664525 + 1013904223) % 2**32
        yield state / 2**32


def steps(seed, places):
    draws, at, requests = uniform(seed), 0, []
    for i in range(8):
        at += int(3 * next(draws)) if i else 0
        requests.append([at, 1 + int(20 * next(draws) ** 2), 1 + int(9 * next(draws) ** 2)])
    static, continuous = (len(run(requests, 8, places, each)) for each in (False, True))
    return f"8 requests take {static} steps in static batches and {continuous} in continuous ones."


@shown(panel="batch", places=2, seed=5)
def two_places():
    return steps(5, 2)


@shown(panel="batch", places=4, seed=7)
def four_places_and_other_requests():
    return steps(7, 4)
