"""What the figure of chapter 13 computes and says, held against the reference."""

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


@shown(gamma=4)
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
