"""The whole contract of chapter 9, against torch's own optimiser, brute force, exact entropies and counted messages."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from grader.testing import (
    close,
    counting,
    dataset,
    driver,
    exact,
    exercise,
    holds,
    pure,
    roughly,
    same_distribution,
)

DOUBLE = torch.float64

# ----------------------------------------------------------------------------------------------------------- get_batch


@exercise("get_batch", weight=2)
def test_batch_is_windows_and_what_follows(exercises, rng):
    """Each row of x is a window of the corpus, and y is the ids that follow."""
    for dtype, n, B, T in ((np.uint16, 40, 6, 7), (np.int32, 9, 11, 3), (np.uint8, 30, 1, 12), (np.int64, 12, 5, 1)):
        ids = (rng.permutation(n) + (65_000 if dtype is np.uint16 else 3)).numpy().astype(dtype)  # no id comes twice
        x, y = exercises.get_batch(ids, B, T, rng.generator())
        exact((x.dtype, tuple(x.shape)), (torch.int64, (B, T)), f"dtype and shape of x, corpus of {dtype.__name__}")
        exact((y.dtype, tuple(y.shape)), (torch.int64, (B, T)), f"dtype and shape of y, corpus of {dtype.__name__}")
        starts = [int(np.flatnonzero(ids == row[0].item())[0]) for row in x]
        windows = torch.tensor([[int(ids[s + t]) if s + t < n else -1 for t in range(T + 1)] for s in starts])
        exact(x, windows[:, :-1], f"x, read on from the first id of each row, n={n}, T={T}")
        exact(y, windows[:, 1:], f"y, the ids one place later, n={n}, T={T}")


@exercise("get_batch", weight=2)
def test_every_start_is_equally_likely(exercises, rng):
    """Starts are uniform from 0 to n - T - 1, both ends included."""
    for n, T in ((23, 5), (9, 1), (14, 11)):
        x, _ = exercises.get_batch(np.arange(n), 6000, T, rng.generator())
        counts = torch.bincount(x[:, 0], minlength=n)
        same_distribution(counts, [1.0] * (n - T) + [0.0] * T, f"starts in a corpus of {n} ids, T={T}")


@exercise("get_batch")
def test_rows_are_drawn_independently(exercises, rng):
    """The start of a row says nothing about that of the next row."""
    x, _ = exercises.get_batch(np.arange(9), 8000, 5, rng.generator())  # four starts
    pairs = x[0::2, 0] * 4 + x[1::2, 0]
    same_distribution(torch.bincount(pairs, minlength=16), [1.0] * 16, "pairs of starts of rows 0 and 1, 2 and 3, ...")


@exercise("get_batch")
def test_shortest_corpus_has_one_window(exercises, rng):
    """With T + 1 ids there is one window; with fewer a ValueError."""
    ids = np.array([4, 9, 2, 7], dtype=np.uint16)
    x, y = exercises.get_batch(ids, 3, 3, rng.generator())
    exact((x.tolist(), y.tolist()), ([[4, 9, 2]] * 3, [[9, 2, 7]] * 3), "x and y of a corpus of T + 1 ids")
    for T in (4, 5, 9):
        with pytest.raises(ValueError):
            exercises.get_batch(ids, 2, T, rng.generator())


@exercise("get_batch")
def test_generator_alone_decides(exercises, rng):
    """The same state gives the same batch, and each call moves it on."""
    ids = np.arange(1000)
    first, second = rng.generator(), torch.Generator()
    second.set_state(first.get_state())
    one, two = exercises.get_batch(ids, 8, 5, first), exercises.get_batch(ids, 8, 5, second)
    exact(two, one, "two batches from generators of equal state")
    holds(bool((exercises.get_batch(ids, 8, 5, first)[0] != one[0]).any()), "the next batch equals the one before it")
    holds(bool((exercises.get_batch(ids, 8, 5, rng.generator())[0] != one[0]).any()), "another seed changes nothing")


@driver
def batch_of_endless_corpus(module, batch, context, seed):
    """Draw from an array of 10**15 ids that takes two bytes of memory."""
    import numpy as np
    import torch

    ids = np.broadcast_to(np.uint16(40_007), (10**15,))
    return module.get_batch(ids, batch, context, torch.Generator().manual_seed(seed))


@exercise("get_batch")
def test_corpus_is_never_copied_whole(exercises, rng):
    """A corpus far larger than memory will do: only windows are copied."""
    x, y = exercises.run(batch_of_endless_corpus, 4, 6, rng.seed)
    exact((x, y), (torch.full((4, 6), 40_007),) * 2, "x and y from a corpus of 10**15 equal ids")


@exercise("get_batch")
def test_corpus_is_not_changed(exercises, rng):
    """The corpus stays as it is."""
    pure(exercises.get_batch, np.arange(50, dtype=np.int32), 7, 4, rng.generator())


# --------------------------------------------------------------------------------------------------------------- AdamW


@driver
def optimise(module, starts, gradients, rates, options):
    """Give the parameters after each step, and whether everything else is as it should be."""
    import torch

    params = [start.clone().requires_grad_() for start in starts]
    places = [p.data_ptr() for p in params]
    optimizer = module.AdamW((p for p in params), **options)
    path, untouched = [], True
    for step, row in enumerate(gradients):
        if rates is not None:
            optimizer.lr = rates[step]
        for p, g in zip(params, row, strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()
        untouched &= all(g is None or torch.equal(p.grad, g) for p, g in zip(params, row, strict=True))
        path.append([p.detach().clone() for p in params])
    in_place = [p.data_ptr() for p in params] == places
    return path, untouched, in_place, all(p.requires_grad and p.is_leaf for p in params)


def by_torch(starts, gradients, rates, options):
    """The same path with torch's own AdamW."""
    params = [start.clone().requires_grad_() for start in starts]
    optimizer = torch.optim.AdamW(params, **options)
    path = []
    for step, row in enumerate(gradients):
        if rates is not None:
            optimizer.param_groups[0]["lr"] = rates[step]
        for p, g in zip(params, row, strict=True):
            p.grad = None if g is None else g.clone()
        optimizer.step()
        path.append([p.detach().clone() for p in params])
    return path


def walk(rng, steps, scale=0.05, dtype=DOUBLE):
    """Two parameters of different shapes, and gradients for some steps."""
    starts = [rng.normal(3, 4).to(dtype), rng.normal(5).to(dtype)]
    return starts, [[scale * rng.normal(*s.shape).to(dtype) for s in starts] for _ in range(steps)]


OPTIONS = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-8, "weight_decay": 0.3}


@exercise("AdamW", weight=3)
@pytest.mark.parametrize("eps", [1e-2, 1e-8])
def test_adamw_agrees_with_torch(exercises, rng, eps):
    """Six steps lead where torch's AdamW leads, for large and small eps."""
    starts, gradients = walk(rng, 6)
    for options in (OPTIONS | {"eps": eps}, {"lr": 0.02, "betas": (0.95, 0.9), "eps": eps, "weight_decay": 0.0}):
        path, *_ = exercises.run(optimise, starts, gradients, None, options)
        close(path, by_torch(starts, gradients, None, options), f"the path of AdamW with {options}")


@exercise("AdamW")
def test_adamw_has_the_usual_defaults(exercises, rng):
    """Without options: 0.001, (0.9, 0.999), 1e-8 and a decay of 0.01."""
    starts, gradients = walk(rng, 4, scale=1.0)
    path, *_ = exercises.run(optimise, starts, gradients, None, {})
    stated = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    close(path, by_torch(starts, gradients, None, stated), "the path of AdamW without options")


@exercise("AdamW")
def test_zero_gradient_leaves_pure_decay(exercises, rng):
    """With gradients of zero each step multiplies by 1 - lr * wd."""
    starts, _ = walk(rng, 0)
    gradients = [[torch.zeros_like(s) for s in starts]] * 3
    path, *_ = exercises.run(optimise, starts, gradients, [0.1, 0.4, 0.2], OPTIONS)
    kept = (1 - 0.1 * 0.3) * (1 - 0.4 * 0.3) * (1 - 0.2 * 0.3)
    close(path[-1], [kept * s for s in starts], "parameters after three steps of decay")


@exercise("AdamW")
def test_first_step_has_the_size_of_the_rate(exercises, rng):
    """The first step is lr times the sign, whatever the gradient's scale."""
    starts, [gradients] = walk(rng, 1)
    for scale in (1e-3, 1.0, 1e6):
        options = {"lr": 0.05, "eps": 1e-18, "weight_decay": 0.0}
        path, *_ = exercises.run(optimise, starts, [[scale * g for g in gradients]], None, options)
        expected = [s - 0.05 * g.sign() for s, g in zip(starts, gradients, strict=True)]
        close(path[0], expected, f"parameters after one step with gradients of scale {scale:g}")


@exercise("AdamW")
def test_parameters_count_their_own_steps(exercises, rng):
    """A parameter without a gradient waits, and its counter with it."""
    starts, gradients = walk(rng, 6)
    for step, which in ((0, 1), (1, 1), (2, 0), (4, 1)):
        gradients[step][which] = None
    path, *_ = exercises.run(optimise, starts, gradients, None, OPTIONS)
    exact(path[1][1], starts[1], "a parameter that has had no gradient yet")
    close(path, by_torch(starts, gradients, None, OPTIONS), "the path when gradients are missing now and then")


@exercise("AdamW")
def test_rate_may_change_from_step_to_step(exercises, rng):
    """Each step uses the value that the attribute lr has then."""
    starts, gradients = walk(rng, 5)
    rates = [0.3, 0.01, 0.2, 0.0, 0.1]
    path, *_ = exercises.run(optimise, starts, gradients, rates, OPTIONS)
    close(path, by_torch(starts, gradients, rates, OPTIONS), f"the path with the rates {rates}")
    exact(exercises.AdamW([starts[0]], lr=0.25).lr, 0.25, "the attribute lr of a fresh optimiser")


@exercise("AdamW")
def test_step_changes_parameters_in_place_and_nothing_else(exercises, rng):
    """Parameters stay the same leaf tensors, and gradients are not touched."""
    for dtype in (DOUBLE, torch.float32):
        starts, gradients = walk(rng, 3, dtype=dtype)
        path, untouched, in_place, leaves = exercises.run(optimise, starts, gradients, None, OPTIONS)
        holds(untouched, "step() changed a gradient.")
        holds(in_place, "step() moved a parameter to other memory; change it in place.")
        holds(leaves, "After step() a parameter is no leaf that requires a gradient any more.")
        close(path, by_torch(starts, gradients, None, OPTIONS), f"the path of {dtype} parameters")


@driver
def forget(module, starts):
    """Give what zero_grad leaves behind."""
    params = [start.clone().requires_grad_() for start in starts]
    optimizer = module.AdamW(params, lr=0.1)
    sum((p * p).sum() for p in params[:-1]).backward()
    optimizer.step()
    optimizer.zero_grad()
    forgotten = [p.grad is None for p in params]
    before = [p.detach().clone() for p in params]
    optimizer.step()
    return forgotten, all(bool((p == b).all()) for p, b in zip(params, before, strict=True))


@exercise("AdamW")
def test_zero_grad_sets_gradients_to_none(exercises, rng):
    """After zero_grad no parameter has a gradient, and a step does nothing."""
    forgotten, still = exercises.run(forget, [rng.normal(2, 3), rng.normal(4), rng.normal(1)])
    exact((forgotten, still), ([True, True, True], True), "absence of gradients, and parameters that stay")


@exercise("AdamW")
def test_optimiser_is_your_own(exercises, rng):
    """It works without torch's optimiser."""
    optimizer = exercises.AdamW([rng.normal(3).requires_grad_()], lr=0.1)
    optimizer.step()
    optimizer.zero_grad()


# ------------------------------------------------------------------------------------------------ lr_at, clip_grad_norm

SCHEDULES = ((3.0, 0.5, 4, 15), (1e-3, 0.0, 7, 8), (2.0, 2.0, 3, 9), (0.7, 0.1, 1, 30))


@exercise("lr_at", weight=2)
def test_schedule_step_by_step(exercises):
    """Warm-up, half a cosine and a flat end, at every step."""
    for high, low, warmup, total in SCHEDULES:
        expected = [high * (s + 1) / warmup for s in range(warmup)]
        # (1 + cos 2a) / 2 = cos^2 a
        expected += [
            low + (high - low) * math.cos(math.pi / 2 * k / (total - warmup)) ** 2 for k in range(total - warmup)
        ]
        expected += [low] * 5
        got = [exercises.lr_at(s, high, low, warmup, total) for s in range(total + 5)]
        roughly(got, expected, 1e-12, f"lr_at for max {high}, min {low}, warmup {warmup}, total {total}")  # rates ~ 1


@exercise("lr_at")
def test_schedule_at_its_landmarks(exercises):
    """It starts above zero, peaks after the warm-up, and halves midway."""
    rate = exercises.lr_at
    close(rate(0, 8.0, 1.0, 4, 24), 2.0, "the first step of a warm-up of 4 to 8.0")
    close(rate(3, 8.0, 1.0, 4, 24), 8.0, "the last step of the warm-up")
    close(rate(4, 8.0, 1.0, 4, 24), 8.0, "the step after the warm-up")
    close(rate(14, 8.0, 1.0, 4, 24), 4.5, "the step in the middle of the descent")
    for step in (24, 25, 10_000):
        close(rate(step, 8.0, 1.0, 4, 24), 1.0, f"step {step} of 24")


@exercise("lr_at")
def test_schedule_without_warmup_or_without_descent(exercises):
    """Warm-up may take no steps or all of them."""
    close(exercises.lr_at(0, 3.0, 1.0, 0, 10), 3.0, "the first step without a warm-up")
    close(exercises.lr_at(5, 3.0, 1.0, 0, 10), 2.0, "the middle without a warm-up")
    got = [exercises.lr_at(step, max_lr=3.0, min_lr=1.0, warmup=3, total=3) for step in range(5)]
    close(got, [1.0, 2.0, 3.0, 1.0, 1.0], "a schedule of which all is warm-up")


@exercise("lr_at")
@settings(max_examples=25)
@given(warmup=st.integers(0, 20), descent=st.integers(1, 40), low=st.floats(0, 1), step=st.integers(0, 70))
def test_schedule_stays_within_its_bounds(exercises, warmup, descent, low, step):
    """After the warm-up the rate falls from max to min and never leaves them."""
    total = warmup + descent
    here, there = (exercises.lr_at(s, 1.0, low, warmup, total) for s in (warmup + step, warmup + step + 1))
    holds(low - 1e-12 <= there <= here + 1e-12 <= 1 + 2e-12, f"the rate goes from {here} to {there}, min {low}, max 1")


@exercise("lr_at", weight=2)
def test_clipping_agrees_with_torch(exercises, rng):
    """Length and clipped gradients are those of torch, below and above."""
    shapes = ((3, 4), (5,), (2, 1, 6), (1,))
    for max_norm, scale in ((0.7, 1.0), (2.5, 3.0), (100.0, 1.0)):
        grads = [scale * rng.normal(*shape) for shape in shapes]
        twins = [torch.zeros_like(g).requires_grad_() for g in grads]
        for twin, g in zip(twins, grads, strict=True):
            twin.grad = g.clone()
        length = torch.nn.utils.clip_grad_norm_(twins, max_norm)
        got, (after, _), _ = exercises.clip_grad_norm.observed(grads, max_norm)
        close(got, length.item(), f"the length before clipping to {max_norm}")
        # torch adds 1e-6 to the length, which is about 1 to 20 here
        roughly(list(after), [t.grad for t in twins], 1e-5, f"the gradients after clipping to {max_norm}")


@exercise("lr_at")
def test_short_gradients_are_left_alone(exercises, rng):
    """At or below the limit not a bit changes."""
    grads = [torch.tensor([3.0, 0.0], dtype=DOUBLE), torch.tensor([[-4.0]], dtype=DOUBLE)]
    for max_norm in (5.0, 5.5, 1e9):
        close(pure(exercises.clip_grad_norm, grads, max_norm), 5.0, f"the length of (3, 0) and (-4), limit {max_norm}")
    small = [1e-3 * rng.normal(4, 3).float(), 1e-3 * rng.normal(7).float()]
    pure(exercises.clip_grad_norm, small, 1.0)


@exercise("lr_at")
def test_clipping_keeps_the_direction(exercises, rng):
    """All entries of all tensors shrink by one factor, to length max_norm."""
    grads = [10 * rng.normal(6), 0.1 * rng.normal(2, 3)]
    got, (after, _), _ = exercises.clip_grad_norm.observed(grads, 2.0)
    factors = torch.cat([(a / g).flatten() for a, g in zip(after, grads, strict=True)])
    roughly(factors, torch.full_like(factors, 2.0 / got), 1e-6, "what each entry was multiplied by")
    roughly(math.sqrt(sum(float((a * a).sum()) for a in after)), 2.0, 1e-5, "the length after clipping to 2")


@exercise("lr_at")
def test_missing_and_zero_gradients(exercises, rng):
    """None is skipped; nothing at all has length 0; zeros stay zeros."""
    grads = [None, torch.tensor([6.0]), None, torch.tensor([[8.0]])]
    got, (after, _), _ = exercises.clip_grad_norm.observed(grads, 5.0)
    close(got, 10.0, "the length of (6) and (8) among None")
    exact([after[0], after[2]], [None, None], "the places of None")
    roughly([after[1], after[3]], [torch.tensor([3.0]), torch.tensor([[4.0]])], 1e-4, "(6) and (8) clipped to 5")
    for nothing in ([], [None, None], [torch.zeros(3)]):
        got = pure(exercises.clip_grad_norm, nothing, 1.0)
        exact((type(got), got), (float, 0.0), f"the length of {nothing}")


@exercise("lr_at")
def test_clipping_half_precision(exercises):
    """The squares of float16 gradients do not overflow."""
    grads = [torch.full((3,), 300.0, dtype=torch.float16), torch.full((2, 3), -400.0, dtype=torch.float16)]
    length = math.sqrt(3 * 300.0**2 + 6 * 400.0**2)
    got, (after, _), _ = exercises.clip_grad_norm.observed(grads, 10.0)
    roughly(got, length, 0.1, "the length of float16 gradients")  # float32 sums are good to 1e-3 here
    close(after[0], torch.full((3,), 3000 / length, dtype=torch.float16), "float16 gradients after clipping to 10")


# ---------------------------------------------------------------------------------------------------------- accumulate

IGNORE = -100


@driver
def accumulated(module, weights, batches, options):
    """Call accumulate on a small model, and tell loss, gradients and the order of events."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    events = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(weights[0].clone())
            self.frozen = nn.Parameter(weights[1].clone(), requires_grad=False)
            self.head = nn.Parameter(weights[2].clone())
            self.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            events.append(("forward", tuple(x.shape)))
            logits = torch.tanh(F.embedding(x, self.table) @ self.frozen) @ self.head
            logits.register_hook(lambda gradient: events.append(("backward", tuple(x.shape))))
            return logits

    model = Net()
    if options.get("dirty"):
        for p in model.parameters():
            p.grad = torch.full_like(p, 7.0) if p.requires_grad else None

    def loss_sum(logits, y):
        flat = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none", ignore_index=-100)
        return options.get("factor", 1.0) * flat.sum()

    loss = module.accumulate(model, (pair for pair in batches), loss_sum)
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return loss, gradients, events


def network(rng):
    return [rng.normal(7, 4), rng.normal(4, 6), rng.normal(6, 5)]


def labelled(rng, *shape, ignored=0.3):
    """Inputs and targets of which some are to be ignored, though never the first."""
    x, y = rng.integers(0, 7, *shape), rng.integers(0, 5, *shape)
    y[rng.uniform(*shape) < ignored] = IGNORE
    y.view(-1)[0] = 3
    return x, y


def in_one_batch(weights, batches):
    """Mean loss and gradients of all targets together."""
    table, frozen, head = weights[0].clone().requires_grad_(), weights[1], weights[2].clone().requires_grad_()
    x, y = (torch.cat([pair[i].flatten() for pair in batches]) for i in (0, 1))
    loss = F.cross_entropy(torch.tanh(F.embedding(x, table) @ frozen) @ head, y, ignore_index=IGNORE)
    loss.backward()
    return loss.item(), {"table": table.grad, "head": head.grad}


def same_as_one_batch(exercises, weights, batches, what, factor=1.0, **options):
    loss, gradients, _ = exercises.run(accumulated, weights, batches, {"factor": factor, **options})
    mean, expected = in_one_batch(weights, batches)
    for name, gradient in expected.items():
        close(gradients[name], factor * gradient, f"the gradient of {name}, {what}")
    close(loss, factor * mean, f"the mean loss, {what}")


@exercise("accumulate", weight=3)
def test_accumulated_gradient_is_that_of_one_batch(exercises, rng):
    """Unequal micro-batches with ignored targets give the whole's gradient."""
    batches = [labelled(rng, 2, 3, ignored=0.0), labelled(rng, 1, 9, ignored=0.6), labelled(rng, 4, 2)]
    same_as_one_batch(exercises, network(rng), batches, "three unequal micro-batches")


@exercise("accumulate")
def test_split_and_order_do_not_matter(exercises, rng):
    """However the rows are cut and ordered, the gradient is the same."""
    weights, (x, y) = network(rng), labelled(rng, 7, 4)
    for sizes in ((7,), (1, 6), (3, 2, 2), (1,) * 7):
        batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
        same_as_one_batch(exercises, weights, batches, f"rows cut into {sizes}")
        same_as_one_batch(exercises, weights, batches[::-1], f"rows cut into {sizes}, the last piece first")


@exercise("accumulate")
def test_ignored_micro_batches_are_harmless(exercises, rng):
    """A micro-batch in which no target counts changes nothing."""
    nothing = (rng.integers(0, 7, 3, 2), torch.full((3, 2), IGNORE))
    batches = [labelled(rng, 2, 5), nothing, labelled(rng, 1, 4)]
    for order in ((0, 1, 2), (1, 0, 2)):
        same_as_one_batch(exercises, network(rng), [batches[i] for i in order], "one of the three is all ignored")


@exercise("accumulate")
def test_nothing_to_learn_gives_zero(exercises, rng):
    """If no target counts at all, loss and gradients are zero, not NaN."""
    nothing = [(rng.integers(0, 7, b, 2), torch.full((b, 2), IGNORE)) for b in (1, 3)]
    loss, gradients, _ = exercises.run(accumulated, network(rng), nothing, {"dirty": True})
    exact((type(loss), loss), (float, 0.0), "the mean loss of no targets")
    for name, gradient in gradients.items():
        holds(gradient is None or bool((gradient == 0).all()), f"the gradient of {name} is neither None nor zero")


@exercise("accumulate")
def test_old_gradients_are_dropped(exercises, rng):
    """What stood in the gradients before has no influence."""
    batches = [labelled(rng, 2, 3), labelled(rng, 5, 2)]
    same_as_one_batch(exercises, network(rng), batches, "after gradients of 7 were left over", dirty=True)


@exercise("accumulate")
def test_parameters_without_influence(exercises, rng):
    """A frozen or unused parameter ends with no gradient or zeros."""
    _, gradients, _ = exercises.run(accumulated, network(rng), [labelled(rng, 2, 3)], {"dirty": True})
    for name in ("frozen", "unused"):
        holds(gradients[name] is None or bool((gradients[name] == 0).all()), f"{name} has got a gradient")


@exercise("accumulate")
def test_given_loss_is_the_one_used(exercises, rng):
    """The loss comes from loss_sum_fn, and the mean loss is a float."""
    batches = [labelled(rng, 3, 2), labelled(rng, 1, 4)]
    weights = network(rng)
    same_as_one_batch(exercises, weights, batches, "a loss of 2.5 times the cross-entropy", factor=2.5)
    loss, *_ = exercises.run(accumulated, weights, batches, {})
    exact(type(loss), float, "the type of the mean loss")


@exercise("accumulate")
def test_only_one_graph_is_alive(exercises, rng):
    """Each micro-batch goes forward and backward before the next one."""
    batches = [labelled(rng, b, t) for b, t in ((2, 3), (1, 5), (4, 2))]
    *_, events = exercises.run(accumulated, network(rng), batches, {})
    expected = [(way, tuple(x.shape)) for x, _ in batches for way in ("forward", "backward")]
    exact(events, expected, "forward and backward passes, with the shape of x")


# --------------------------------------------------------------------------------------------------- mixture_weights


@exercise("mixture_weights", weight=2)
def test_shares_follow_the_formula(exercises):
    """Shares are proportional to size to the power of one over T."""
    sizes = [700, 90, 12, 4000]
    for temperature in (2.0, 0.5, 3.3, 1.0):
        powers = [math.exp(math.log(size) / temperature) for size in sizes]
        expected = [power / sum(powers) for power in powers]
        roughly(exercises.mixture_weights(sizes, temperature), expected, 1e-12, f"mixture_weights, T={temperature}")


@exercise("mixture_weights")
def test_shares_by_default_and_in_the_limit(exercises):
    """By default shares are proportions, and at infinity all are equal."""
    got = exercises.mixture_weights([30, 50, 20])
    holds(
        type(got) is list and all(isinstance(w, float) for w in got),
        f"mixture_weights gave {got!r}, not a list of floats",
    )
    close(got, [0.3, 0.5, 0.2], "mixture_weights([30, 50, 20])")
    close(exercises.mixture_weights([1, 5, 10**12], math.inf), [1 / 3] * 3, "mixture_weights at T = inf")
    close(exercises.mixture_weights([17], 4.0), [1.0], "mixture_weights of one source")
    close(pure(exercises.mixture_weights, [0.3, 1.2]), [0.2, 0.8], "mixture_weights of sizes below one")


@exercise("mixture_weights")
def test_shares_of_extreme_sizes(exercises):
    """Huge sizes and low temperatures neither overflow nor vanish."""
    for sizes, temperature, expected in (
        ([10**15, 10**14], 1e-3, [1.0, 0.0]),
        ([10**15, 3, 10**15], 0.01, [0.5, 0.0, 0.5]),
        ([4, 3], 1e-3, [1.0, 0.0]),
        ([10**15, 10**15 // 4], 0.5, [16 / 17, 1 / 17]),
    ):
        got = exercises.mixture_weights(sizes, temperature)
        roughly(got, expected, 1e-12, f"mixture_weights({sizes}, {temperature})")  # shares are of the order of 1


@exercise("mixture_weights")
def test_impossible_mixtures_are_refused(exercises):
    """Sizes and temperatures that are not above 0 are a ValueError."""
    for sizes, temperature in (([3, 0], 1.0), ([3, -1], 2.0), ([3, 4], 0.0), ([3, 4], -1.0)):
        with pytest.raises(ValueError):
            exercises.mixture_weights(sizes, temperature)


SOURCES = [
    [[1] * n for n in (1, 2, 3)],  # 2 tokens a document on average
    [[2] * n for n in (4, 11, 6, 9)],  # 7.5
    [[3] * n for n in (35, 5)],  # 20
]


@exercise("mixture_weights", weight=2)
def test_sources_give_their_share_of_the_tokens(exercises, rng):
    """A source is drawn in proportion to its share over its mean length."""
    chances = torch.tensor([5 / 2, 3 / 7.5, 2 / 20])
    for seed in (rng.seed, rng.seed + 1):
        drawn = exercises.MixtureSampler(SOURCES, [5, 3, 2], seed).draw(12_000)
        chosen = torch.tensor([i for i, _ in drawn])
        same_distribution(torch.bincount(chosen, minlength=3), chances, "how often each source is drawn")
        pairs = chosen[0::2] * 3 + chosen[1::2]
        both = torch.outer(chances, chances).flatten()
        same_distribution(torch.bincount(pairs, minlength=9), both, "pairs of sources drawn one after another")


@exercise("mixture_weights")
def test_each_pass_holds_every_document_once(exercises, rng):
    """No document comes again before all of its source have come."""
    drawn = exercises.MixtureSampler(SOURCES, [1.0, 1.0, 4.0], rng.seed).draw(6000)
    for i, source in enumerate(SOURCES):
        order = [j for k, j in drawn if k == i]
        passes = [tuple(order[at : at + len(source)]) for at in range(0, len(order) - len(source) + 1, len(source))]
        holds(all(sorted(p) == list(range(len(source))) for p in passes), f"a pass over source {i} repeats a document")
        orders = list(itertools.permutations(range(len(source))))
        same_distribution([passes.count(o) for o in orders], [1.0] * len(orders), f"orders of passes over source {i}")


@exercise("mixture_weights")
def test_epochs_count_tokens(exercises, rng):
    """Epochs are tokens drawn over tokens there are, after any draws."""
    sampler = exercises.MixtureSampler(SOURCES, [0.6, 0.4, 0.0], rng.seed)
    close(sampler.epochs(), [0.0, 0.0, 0.0], "epochs before the first draw")
    drawn = []
    for n in (1, 30, 0, 4, 11):
        drawn += sampler.draw(n)
        read = [sum(len(SOURCES[k][j]) for k, j in drawn if k == i) for i in range(3)]
        expected = [tokens / sum(map(len, source)) for tokens, source in zip(read, SOURCES, strict=True)]
        roughly(sampler.epochs(), expected, 1e-12, f"epochs after {len(drawn)} draws")
    exact(read[2], 0, "tokens of the source of weight 0")


@exercise("mixture_weights", weight=2)
def test_sampler_continues_where_it_stood(exercises, rng):
    """A sampler that loads a state draws on as the first one did."""
    sampler = exercises.MixtureSampler(SOURCES, [2, 3, 4], rng.seed)
    for warm in (7, 0, 20):
        sampler.draw(warm)
        state = sampler.state_dict()
        expected = (sampler.draw(40), sampler.epochs())
        other = exercises.MixtureSampler(SOURCES, [2, 3, 4], rng.seed + 5)
        other.draw(3)
        for attempt in ("first", "second"):
            pure(other.load_state_dict, state)
            exact(other.draw(40), expected[0], f"40 draws after loading a state for the {attempt} time")
            close(other.epochs(), expected[1], "epochs after loading a state and drawing")


@exercise("mixture_weights")
def test_seed_decides_all_draws(exercises, rng):
    """The same seed draws the same, another one differs, none interfere."""
    alone = exercises.MixtureSampler(SOURCES, [1, 1, 1], rng.seed)
    expected = [alone.draw(12) for _ in range(3)]
    one = exercises.MixtureSampler(SOURCES, [1, 1, 1], rng.seed)
    other = exercises.MixtureSampler(SOURCES, [1, 1, 1], rng.seed + 1)
    for n in range(3):
        exact(one.draw(12), expected[n], "draws of a sampler beside another one")
        holds(other.draw(12) != expected[n], "another seed draws the same")


@exercise("mixture_weights")
def test_sampler_refuses_what_cannot_be_drawn(exercises):
    """Missing, negative or all-zero weights and empty sources are refused."""
    for sources, weights in (
        (SOURCES, [1, 1]),
        (SOURCES, [1, 1, 1, 1]),
        (SOURCES, [1, -1, 1]),
        (SOURCES, [0, 0, 0.0]),
        ([[[1]], []], [1, 1]),
    ):
        with pytest.raises(ValueError):
            exercises.MixtureSampler(sources, weights, 0)
    pure(exercises.MixtureSampler, SOURCES, [1, 1, 1], 0)


# --------------------------------------------------------------------------------- minhash, lsh_candidates, dedup


def texts(rng, n):
    """Different texts of one to three words."""
    alphabet = "abcdefghijklmnop"
    found = set()
    while len(found) < n:
        found.add("".join(rng.random.choice(alphabet) for _ in range(6)) + rng.random.choice(["", " x", " yé z"]))
    return sorted(found)


@exercise("minhash", weight=2)
def test_signatures_agree_as_often_as_sets_overlap(exercises, rng):
    """The share of equal entries estimates the Jaccard similarity."""
    K, union = 400, 250
    for J in (0.2, 0.5, 0.8):
        pool = texts(rng, union)
        common, rest = pool[: int(J * union)], pool[int(J * union) :]
        a, b = {*common, *rest[::3]}, {*common, *rest[1::3], *rest[2::3]}
        one, other = exercises.minhash(a, K, rng.seed), exercises.minhash(b, K, rng.seed)
        estimate = sum(x == y for x, y in zip(one, other, strict=True)) / K
        bound = 5 * math.sqrt(J * (1 - J) / K)  # exceeded once in two million times
        holds(abs(estimate - J) < bound, f"the estimate for J={J} is {estimate}, further off than {bound:.3f}")


@exercise("minhash")
def test_signature_is_a_minimum(exercises, rng):
    """The signature of a union is the smaller of two entries, everywhere."""
    pool = texts(rng, 60)
    for a, b in ((pool[:20], pool[20:]), (pool[:1], pool[1:2]), (pool[:40], pool[10:50])):
        one, other = exercises.minhash(set(a), 32, 5), exercises.minhash(set(b), 32, 5)
        expected = [min(x, y) for x, y in zip(one, other, strict=True)]
        exact(exercises.minhash({*a, *b}, 32, 5), expected, "the signature of a union")


@exercise("minhash")
def test_hash_functions_differ_and_do_not_collide(exercises, rng):
    """K and the seed give K functions of their own, without collisions."""
    one, other = (set(half) for half in (texts(rng, 40)[:20], texts(rng, 40)[20:]))
    other -= one
    first, second = exercises.minhash(one, 64, 1), exercises.minhash(other, 64, 1)
    exact(sum(x == y for x, y in zip(first, second, strict=True)), 0, "equal entries of two disjoint sets")
    exact(len(set(first)), 64, "different values among 64 entries")
    moved = exercises.minhash(one, 64, 2)
    holds(sum(x == y for x, y in zip(first, moved, strict=True)) < 8, "another seed gives the same hash functions")
    exact(exercises.minhash(one, 64), exercises.minhash(one, 64, seed=0), "the signature without a seed")
    for K in (1, 3):
        exact([type(x) for x in exercises.minhash(one, K, 9)], [int] * K, f"types of the {K} entries")


@driver
def signatures_of_equal_texts(module, texts, K, seed):
    """Sign the same texts put in by another order, and as texts whose hash() differs."""

    class Text(str):
        def __hash__(self):
            return str.__hash__(self) ^ 0x5DEECE66D

    backward = set()
    for text in reversed(texts):
        backward.add(text)
    return [module.minhash(form, K, seed) for form in (set(texts), backward, {Text(text) for text in texts})]


@exercise("minhash")
def test_text_alone_decides_the_signature(exercises, rng):
    """Order and Python's hash() have no influence."""
    plain, backward, renumbered = exercises.run(signatures_of_equal_texts, texts(rng, 30), 24, 3)
    exact(backward, plain, "the signature of a set filled in another order")
    exact(renumbered, plain, "the signature of texts for which hash() gives other numbers")


@exercise("minhash")
def test_empty_set_has_no_signature(exercises, rng):
    """An empty set is a ValueError; a single text is not."""
    with pytest.raises(ValueError):
        exercises.minhash(set(), 8, 0)
    exact(len(pure(exercises.minhash, {"the only one"}, 8, 0)), 8, "the length of a signature")


def shared_bands(sigs, bands):
    """All pairs that agree on some band, by comparing everything."""
    rows = len(sigs[0]) // bands
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(sigs)), 2)
        if any(sigs[i][m * rows : (m + 1) * rows] == sigs[j][m * rows : (m + 1) * rows] for m in range(bands))
    }


@exercise("minhash", weight=2)
def test_candidates_share_a_band(exercises, rng):
    """Candidates are the pairs that agree on a whole band, and no others."""
    for bands in (4, 6, 3, 12, 2, 1):
        sigs = rng.integers(0, 3, 12, 12).tolist()
        sigs[7] = [5, 6, 7, *sigs[2][3:6], *sigs[1][6:]]
        sigs[9] = list(sigs[4])
        exact(pure(exercises.lsh_candidates, sigs, bands), shared_bands(sigs, bands), f"lsh_candidates, {bands} bands")


@exercise("minhash")
def test_bands_meet_only_their_own_kind(exercises):
    """Equal content in different bands makes no candidates."""
    sigs = [[1, 2, 3, 4], [3, 4, 1, 2], [9, 2, 1, 4], [12, 3, 1, 23], [1, 23, 12, 3]]
    exact(exercises.lsh_candidates(sigs, 2), set(), "candidates of signatures whose bands are exchanged")
    exact(exercises.lsh_candidates([], 4), set(), "candidates of no signatures")
    exact(exercises.lsh_candidates([[1, 2]], 2), set(), "candidates of one signature")


@exercise("minhash")
def test_bands_must_divide_the_signature(exercises):
    """A number of bands that does not divide K is a ValueError."""
    for K, bands in ((10, 4), (5, 10), (7, 2)):
        with pytest.raises(ValueError):
            exercises.lsh_candidates([[1] * K, [2] * K], bands)


@exercise("minhash")
def test_candidates_among_thousands(exercises, rng):
    """Buckets find a few pairs among thousands in time."""
    sigs = rng.integers(0, 2**40, 4000, 16).tolist()
    planted = {(5, 3999), (17, 2600), (1234, 1235)}
    for i, j in planted:
        sigs[j][4:8] = sigs[i][4:8]
    exact(exercises.lsh_candidates(sigs, 4), planted, "candidates among 4000 signatures")


def similarity(a, b):
    """Jaccard similarity of two texts by their runs of three words."""
    runs = []
    for text in (a, b):
        words = text.split()
        runs.append({tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1))})
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def first_of_each(docs, threshold):
    """Compare all pairs, and walk through each cluster from its first document."""
    seen, kept = set(), []
    for start in range(len(docs)):
        if start not in seen:
            kept.append(start)
            front = [start]
            while front:
                i = front.pop()
                seen.add(i)
                front += [j for j in range(len(docs)) if j not in seen and similarity(docs[i], docs[j]) >= threshold]
    return kept


def with_copies(rng, originals, copies, length=40):
    """Documents, and for each some copies of copies in which up to two words are exchanged."""
    word = lambda: f"w{rng.random.randrange(300)}"  # noqa: E731
    docs = []
    for _ in range(originals):
        docs.append([word() for _ in range(length)])
        for _ in range(rng.random.randrange(copies + 1)):
            docs.append(list(docs[-1]))
            for _ in range(rng.random.randrange(3)):
                docs[-1][rng.random.randrange(length)] = word()
    rng.random.shuffle(docs)
    return [" ".join(words) for words in docs]


@exercise("minhash", weight=2)
def test_dedup_keeps_the_first_of_each_cluster(exercises, rng):
    """It agrees with comparing all pairs, at every threshold."""
    for threshold in (0.6, 0.75, 0.9, 1.0):
        docs = with_copies(rng, 8, 4)
        exact(exercises.dedup(docs, threshold), first_of_each(docs, threshold), f"dedup at threshold {threshold}")


@exercise("minhash")
def test_clusters_are_transitive(exercises, rng):
    """A chain of near-duplicates keeps one, wherever the bridge stands."""
    words = [f"w{i}" for i in rng.permutation(60).tolist()]
    chain = []
    for k in range(5):  # each differs from the next in three words at a place of its own
        chain.append(" ".join(words))
        words = words[: 12 * k + 2] + ["new", f"n{k}", "word"] + words[12 * k + 5 :]
    holds(similarity(chain[0], chain[1]) > 0.8 > 0.75 > similarity(chain[0], chain[2]), "The test's chain is a chain.")
    for order in ((0, 1, 2, 3, 4), (0, 2, 1), (4, 0, 2, 3, 1), (0, 2, 4, 1, 3), (1, 0, 2)):
        docs = [chain[i] for i in order]
        exact(exercises.dedup(docs, 0.8), [0], f"dedup of a chain in the order {order}")
    exact(exercises.dedup([chain[0], chain[2], chain[4]], 0.8), [0, 1, 2], "dedup of a chain without its bridges")


@exercise("minhash")
def test_candidates_are_confirmed_exactly(exercises, rng):
    """Below the threshold nothing is removed; at the threshold it is."""
    docs = ["a b c d e", "a b c d f", "p q r s t u", "p q r s v w"]  # similarities 2/4 and 2/6
    exact(exercises.dedup(docs, 0.5), [0, 2, 3], "dedup at 0.5 of pairs with similarity 2/4 and 2/6")
    exact(exercises.dedup(docs, 0.51), [0, 1, 2, 3], "dedup at 0.51")
    pair = ["a b c d e f g h i j k", "a b c d e f g h i j z"]  # 8 of 10 runs
    exact((exercises.dedup(pair), exercises.dedup(pair, 0.85)), ([0], [0, 1]), "dedup at the default and at 0.85")
    half = []
    for k in range(25):  # pairs that share 7 of 13 runs: 0.54
        common = " ".join(f"{k}c{i}" for i in range(9))
        half += [f"{common} {k}a {k}b {k}d", f"{common} {k}x {k}y {k}z"]
    exact(exercises.dedup(half, 0.5), list(range(0, 50, 2)), "dedup at 0.5 of 25 pairs with similarity 7/13")


@exercise("minhash")
def test_dedup_of_short_and_equal_texts(exercises):
    """Short, empty and equal texts are handled, and no text is none."""
    docs = ["", "a b", "a  b ", "b a", "", "a b c", "a b c", "a"]
    exact(pure(exercises.dedup, docs), [0, 1, 3, 5, 7], f"dedup({docs})")
    exact(exercises.dedup([]), [], "dedup of no documents")
    exact(exercises.dedup(["x y z"] * 9, 1.0), [0], "dedup of nine equal documents")


# ------------------------------------------------------------------- ring_all_reduce, zero_memory, pipeline_bubble

SIZES = ((3, 7), (4, 12), (5, 13), (2, 1), (4, 3), (6, 6), (5, 16))


@exercise("ring_all_reduce", weight=3)
def test_every_machine_ends_with_the_sum(exercises, rng):
    """All buffers become the sum, for sizes that W divides or not."""
    for W, n in SIZES:
        buffers = [rng.integers(-99, 100, n) for _ in range(W)]
        sums, sent = pure(exercises.ring_all_reduce, buffers)
        exact(list(sums), [torch.stack(buffers).sum(0)] * W, f"the buffers of {W} machines with {n} elements")
        exact(sent, 2 * (W - 1) * n, f"elements sent by {W} machines with {n} elements")


@exercise("ring_all_reduce")
def test_ring_keeps_the_dtype(exercises, rng):
    """float32 and float64 buffers give sums of their own dtype."""
    for dtype in (torch.float32, DOUBLE):
        buffers = [rng.normal(11).to(dtype) for _ in range(3)]
        sums, _ = pure(exercises.ring_all_reduce, buffers)
        close(list(sums), [torch.stack(buffers).sum(0)] * 3, f"the sums of {dtype} buffers")


@exercise("ring_all_reduce", weight=2)
def test_messages_go_to_the_neighbour_in_small_pieces(exercises, rng):
    """Each message goes one place on and holds at most ceil(n / W)."""
    for W, n in SIZES:
        send = counting(lambda src, dst, chunk: chunk)
        sums, sent = exercises.ring_all_reduce([rng.integers(0, 50, n) for _ in range(W)], send)
        loads = [0] * W
        for src, dst, chunk in send.arguments:
            exact(dst, (src + 1) % W, f"where machine {src} of {W} sends")
            holds(chunk.ndim == 1 and len(chunk) <= -(-n // W), f"a message of {len(chunk)} of {n} elements, W={W}")
            loads[src] += len(chunk)
        exact(
            (sum(loads), sent), (2 * (W - 1) * n,) * 2, f"elements that crossed, and their number as told, W={W}, n={n}"
        )
        holds(max(loads) <= 2 * (W - 1) * -(-n // W), f"one machine sends {max(loads)} elements, W={W}, n={n}")
        exact(torch.stack(list(sums)).unique(dim=0).shape[0], 1, "different buffers at the end")


@exercise("ring_all_reduce")
def test_no_chunk_is_sent_twice_in_a_phase(exercises):
    """A machine sends each place at most once in either phase."""
    W, n = 5, 13
    primes = torch.tensor([7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53])
    send = counting(lambda src, dst, chunk: chunk)
    exercises.ring_all_reduce([primes] * W, send)  # a sum of up to five copies shows its place by its prime
    crossed = [[0] * n for _ in range(W)]
    for src, _, chunk in send.arguments:
        for value in chunk.tolist():
            crossed[src][next(i for i, p in enumerate(primes.tolist()) if value % p == 0)] += 1
    holds(all(times in (1, 2) for row in crossed for times in row), f"times that each place was sent: {crossed}")


@exercise("ring_all_reduce")
def test_machines_learn_only_through_the_wire(exercises, rng):
    """Over a wire that delivers zeros, a machine keeps one chunk of its own."""
    for W, n in ((4, 12), (3, 7)):
        buffers = [rng.integers(1, 100, n) for _ in range(W)]
        ends, _ = exercises.ring_all_reduce(buffers, lambda src, dst, chunk: torch.zeros_like(chunk))
        ends, own = torch.stack(list(ends)), torch.stack(buffers)
        exact((ends != 0).sum(0), torch.ones(n, dtype=torch.int64), "machines that still have something at each place")
        holds(bool(((ends == 0) | (ends == own)).all()), "A machine has what it can only have from elsewhere.")


@exercise("ring_all_reduce")
def test_one_machine_sends_nothing(exercises, rng):
    """A single machine has the sum already."""
    buffer = rng.normal(5)
    send = counting(lambda src, dst, chunk: chunk)
    sums, sent = exercises.ring_all_reduce([buffer], send)
    exact((list(sums), sent, send.calls), ([buffer], 0, 0), "sums, elements sent and messages of one machine")


@exercise("ring_all_reduce")
def test_memory_of_every_stage(exercises):
    """Each stage shards one thing more; 16 bytes a parameter in all."""
    for N, W in ((1000, 4), (7, 3), (7_500_000_000, 64), (12, 1)):
        expected = [16 * N, 4 * N + 12 * N / W, 2 * N + 14 * N / W, 16 * N / W]
        got = [exercises.zero_memory(N, W, stage) for stage in range(4)]
        close(got, [float(x) for x in expected], f"zero_memory({N}, {W}, stage) for stages 0 to 3")


@exercise("ring_all_reduce")
def test_unknown_stage_is_refused(exercises):
    """Only stages 0 to 3 exist."""
    for stage in (4, -1, 10):
        with pytest.raises(ValueError):
            exercises.zero_memory(1000, world=4, stage=stage)


@exercise("ring_all_reduce")
def test_bubble_by_counting_slots(exercises):
    """The idle share is what a drawn timetable shows."""
    for p, m in ((3, 1), (4, 12), (1, 5), (8, 3), (2, 2)):
        busy = {(stage, stage + batch) for stage in range(p) for batch in range(m)}
        slots = 1 + max(slot for _, slot in busy)
        roughly(exercises.pipeline_bubble(p, m), 1 - len(busy) / (p * slots), 1e-12, f"pipeline_bubble({p}, {m})")


# ------------------------------------------------------------------------------------------------------- training_cost


@exercise("training_cost", weight=3)
def test_cost_follows_from_six_operations(exercises):
    """Six operations a parameter and token, at the rate that is reached."""
    for N, D, peak, mfu, price, gpus in ((7e9, 2e12, 3.12e14, 0.45, 1.5, 512), (1.5e8, 3e9, 1e15, 1.0, 3.0, 3)):
        seconds = 6 * N * D / (gpus * peak * mfu)
        expected = {"days": seconds / 86_400, "usd": seconds * gpus * price / 3600, "gpu_hours": seconds * gpus / 3600}
        got = exercises.training_cost(N, D, peak, mfu, price, gpus)
        holds(isinstance(got, dict), f"training_cost gave {got!r}, not a dictionary")
        exact(sorted(got), sorted(expected), "the keys")
        for name, value in expected.items():
            close(got[name] / value, 1.0, f"{name} over its right value, N={N:g}, D={D:g}, {gpus} GPUs")


@exercise("training_cost")
def test_more_gpus_are_faster_and_cost_the_same(exercises):
    """Seven times the GPUs take a seventh of the days for the same price."""
    one, seven = (exercises.training_cost(3e9, 6e10, 4e14, 0.3, 2.2, gpus) for gpus in (5, 35))
    close(one["days"] / seven["days"], 7.0, "days with 5 GPUs over days with 35")
    close([seven["usd"] / one["usd"], seven["gpu_hours"] / one["gpu_hours"]], [1.0, 1.0], "price and hours, 35 over 5")


@exercise("training_cost")
def test_cost_grows_with_each_factor(exercises):
    """Model, tokens and price enter in proportion, speed inversely."""
    base = {"n_params": 2e9, "n_tokens": 5e10, "peak_flops": 3e14, "mfu": 0.25, "price_per_hour": 2.0, "gpus": 8}
    usd = exercises.training_cost(**base)["usd"]
    growth = {"n_params": 3.0, "n_tokens": 3.0, "price_per_hour": 3.0, "peak_flops": 1 / 3, "mfu": 1 / 3}
    for name, factor in growth.items():
        changed = exercises.training_cost(**base | {name: 3 * base[name]})["usd"]
        close(changed / usd, factor, f"the price over the price before, with 3 times the {name}")


@exercise("training_cost")
def test_utilisation_is_a_share(exercises):
    """A utilisation of 0, or above 1, is a ValueError."""
    for mfu in (0.0, -0.1, 1.01, 40.0):
        with pytest.raises(ValueError):
            exercises.training_cost(1e9, 1e10, 1e15, mfu, 2.0, 4)


# ------------------------------------------------------------------------------------------------------ train_tiny_gpt


def logits_of(state, ids, heads):
    """The given model, written out again with torch's functions: from its weights and ids (B, T) to logits."""
    B, T = ids.shape
    past = torch.ones(T, T).tril().bool()
    x = state["token.weight"][ids] + state["position.weight"][:T]
    for i in range(sum(name.endswith("qkv.weight") for name in state)):
        w = {name.removeprefix(f"layers.{i}."): p for name, p in state.items() if name.startswith(f"layers.{i}.")}
        h = F.layer_norm(x, x.shape[-1:], w["norm_a.weight"], w["norm_a.bias"]) @ w["qkv.weight"].T
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in h.chunk(3, -1))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~past, -math.inf)
        x = x + (scores.softmax(-1) @ v).transpose(1, 2).flatten(2) @ w["out.weight"].T
        h = F.layer_norm(x, x.shape[-1:], w["norm_f.weight"], w["norm_f.bias"])
        x = x + F.linear(F.gelu(F.linear(h, w["up.weight"], w["up.bias"])), w["down.weight"], w["down.bias"])
    return F.layer_norm(x, x.shape[-1:], state["norm.weight"], state["norm.bias"]) @ state["head.weight"].T


def loss_of(state, x, y, heads):
    return F.cross_entropy(logits_of(state, x, heads).flatten(0, 1), y.flatten())


def windows(ids, context):
    """Windows that lie side by side, and their targets."""
    rows = (len(ids) - 1) // context
    ids = torch.as_tensor(np.asarray(ids), dtype=torch.int64)
    return ids[: rows * context].view(rows, context), ids[1 : rows * context + 1].view(rows, context)


def chain(rng, size, n, order=1):
    """A Markov chain that context helps with by 0.4 nats or more, and n ids of it."""
    markov = dataset("markov")
    for seed in range(rng.seed, rng.seed + 100):
        P = markov.transitions(seed, size, order, 0.4)
        if markov.unigram_entropy(P) - markov.entropy_rate(P) > 0.4:
            return markov, P, np.array(markov.documents(P, seed + 1, [n])[0])
    raise AssertionError("no chain was found")


@exercise("train_tiny_gpt", weight=3)
def test_model_learns_down_to_the_floor_and_no_further(exercises, rng):
    """On fresh text the loss is within 0.08 nats above the chain's entropy."""
    markov, P, ids = chain(rng, 11, 30_000)
    cfg = exercises.Config(vocab=11)
    model, history = exercises.train_tiny_gpt(cfg, ids, 120, 3)
    fresh = markov.documents(P, rng.seed + 7, [16_001])[0]
    x, y = windows(fresh, 32)
    got = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    # the same ids under the true chain: their own entropy, so that luck in the draw cancels
    floor, unigram = -markov.log_probs(P, fresh).mean(), markov.unigram_entropy(P)
    holds(got > floor - 0.03, f"the loss {got:.3f} is below the floor {floor:.3f}: the model sees its targets")
    holds(got < floor + 0.08, f"the loss {got:.3f} is not within 0.08 of the floor {floor:.3f}")
    holds(got < unigram - 0.3, f"the loss {got:.3f} is hardly better than {unigram:.3f}, that of no context at all")
    holds(
        history["loss"][-1] < history["loss"][0] - 0.3,
        f"the curve goes from {history['loss'][0]} to {history['loss'][-1]}",
    )


@exercise("train_tiny_gpt", weight=2)
def test_grammar_is_learned_and_never_beaten(exercises, rng):
    """On sentences of a grammar the loss stays above their entropy."""
    grammar = dataset("grammar")
    cfg = exercises.Config(vocab=60, context=24, batch=24, micro=1, max_lr=1.5e-2)
    model, _ = exercises.train_tiny_gpt(cfg, grammar.ids(rng.seed, 4000).astype(np.uint8), 130, 4)
    fresh, seed = grammar.ids(rng.seed + 1, 1500), rng.seed + 1
    x, y = windows(fresh, 24)
    got = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    # the surprise of these very sentences under the grammar, so that luck in the draw cancels
    floor = -sum(log_p for _, log_p in grammar.sentences(seed, 1500)) / len(fresh)
    unigram = grammar.unigram_entropy()
    holds(got > floor - 0.03, f"the loss {got:.3f} is below the floor {floor:.3f}: the model sees its targets")
    holds(
        got < floor + 0.4, f"the loss {got:.3f} is not within 0.4 of {floor:.3f}; without context it is {unigram:.3f}"
    )


@driver
def start_of(module, options, ids, calls, seed):
    """The first weights, and the batches that get_batch draws one after another."""
    import torch

    cfg = module.Config(**options)
    rng = torch.Generator().manual_seed(seed)
    batches = [module.get_batch(ids, cfg.batch, cfg.context, rng) for _ in range(calls)]
    return {name: p.detach().clone() for name, p in module.TinyGPT(cfg, seed).named_parameters()}, batches


@driver
def train(module, options, ids, steps, seed, disturbance):
    """Train after disturbing torch's global generator; give the history and the weights."""
    import torch

    torch.manual_seed(disturbance)
    model, history = module.train_tiny_gpt(module.Config(**options), ids, steps, seed)
    return history, {name: p.detach().clone() for name, p in model.named_parameters()}


SMALL = {"vocab": 9, "context": 7, "width": 12, "layers": 2, "heads": 3, "batch": 5, "micro": 3}
SMALL |= {"max_lr": 0.05, "min_lr": 0.01, "warmup": 2, "weight_decay": 0.4, "max_norm": 0.3}


@exercise("train_tiny_gpt", weight=2)
def test_steps_follow_the_recipe(exercises, rng):
    """Losses, rates and lengths are those of torch's own pieces."""
    ids = rng.integers(0, 9, 400).numpy()
    steps, cut = 5, 360
    history, after = exercises.run(train, SMALL, ids, steps, 8, 0)
    state, batches = exercises.run(start_of, SMALL, ids[:cut], 3 * steps, 8)
    params = {name: p.clone().requires_grad_() for name, p in state.items()}
    optimizer = torch.optim.AdamW(params.values(), weight_decay=0.4)
    expected = {"loss": [], "lr": [], "norm": []}
    for t in range(steps):
        rate = 0.05 * (t + 1) / 2 if t < 2 else 0.01 + 0.04 * math.cos(math.pi / 2 * (t - 2) / 3) ** 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        x, y = (torch.cat(parts) for parts in zip(*batches[3 * t : 3 * t + 3], strict=True))
        loss = loss_of(params, x, y, 3)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), 0.3)
        optimizer.step()
        for name, value in (("loss", loss.item()), ("lr", rate), ("norm", norm.item())):
            expected[name].append(value)
    exact(sorted(history), ["held_out", "loss", "lr", "norm"], "the names in the history")
    for name, within in (("lr", 1e-12), ("loss", 2e-3), ("norm", 2e-2)):  # float32, magnified by Adam's first steps
        roughly(list(history[name]), expected[name], within, f"history[{name!r}] of {steps} steps")
    gap = torch.cat([(after[name] - p).detach().abs().flatten() for name, p in params.items()]).mean().item()
    holds(
        gap < 1e-3, f"the weights after {steps} steps differ by {gap:.4f} on average from those of torch's own pieces"
    )


@exercise("train_tiny_gpt")
def test_last_tenth_is_held_out(exercises, rng):
    """The last tenth is measured and never trained on."""
    ids = np.concatenate([rng.integers(0, 7, 540).numpy(), 7 + np.arange(60) % 2])  # two ids that training never meets
    history, after = exercises.run(train, SMALL | {"weight_decay": 0.0, "warmup": 1}, ids, 25, 2, 0)
    expected = loss_of(after, *windows(ids[540:], 7), 3).item()
    roughly(history["held_out"], expected, 1e-3, "held_out, against the loss of the returned model on the last tenth")
    holds(expected > 2.3, f"the loss on two ids that are never trained is {expected:.3f}: they were trained on")


@exercise("train_tiny_gpt")
def test_arguments_alone_decide_the_history(exercises, rng):
    """The same seed gives the same run; another seed gives another."""
    ids = rng.integers(0, 9, 300).numpy()
    (first, one), (again, two), (other, _) = (
        exercises.run(train, SMALL, ids, 3, seed, disturbance) for seed, disturbance in ((4, 1), (4, 2), (5, 1))
    )
    exact(again, first, "the history of a second run with the same seed")
    exact(two, one, "the weights of a second run with the same seed")
    holds(all(other[name] != first[name] for name in ("loss", "norm", "held_out")), "another seed changes nothing")
    holds(
        all(isinstance(value, float) for name in ("loss", "lr", "norm") for value in first[name]), "entries are floats"
    )
