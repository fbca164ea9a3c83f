"""Self-checks of chapter 9: worked examples and the laws that teach."""

import math

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import close, dataset, driver, exact, exercise, holds, roughly


@exercise("get_batch")
def test_targets_stand_one_place_later(exercises, rng):
    """In a corpus that counts up, each target is its input plus one."""
    x, y = exercises.get_batch(np.arange(100, dtype=np.uint16), 4, 6, rng.generator())
    exact((tuple(x.shape), x.dtype, y.dtype), ((4, 6), torch.int64, torch.int64), "shape and dtypes")
    exact(y, x + 1, "the targets of a corpus that counts up")
    exact(x, x[:, :1] + torch.arange(6), "windows of a corpus that counts up")


@exercise("get_batch")
def test_first_and_last_window_are_reached(exercises, rng):
    """Six ids have three windows of three with targets, all of them drawn."""
    x, _ = exercises.get_batch(np.arange(6), 200, 3, rng.generator())
    exact(sorted(set(x[:, 0].tolist())), [0, 1, 2], "the starts among 200 windows")


@driver
def two_steps(module, gradients, options):
    """One number, the gradients given, and where it stands after each step."""
    import torch

    p = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer = module.AdamW([p], **options)
    path = []
    for g in gradients:
        p.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        path.append(p.item())
    return path


@exercise("AdamW")
def test_two_steps_of_the_worked_example(exercises):
    """The two steps of the notes: gradients 0.5 and -0.1."""
    options = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 0.0, "weight_decay": 0.1}
    path = exercises.run(two_steps, [0.5, -0.1], options)
    first = 0.99 * 1.0 - 0.1 * 0.5 / math.sqrt(0.25)
    second = 0.99 * first - 0.1 * (0.9 * 0.05 - 0.01) / 0.19 / math.sqrt((0.99 * 0.0025 + 0.0001) / 0.0199)
    close(path, [first, second], "the number after one and after two steps")


@exercise("AdamW")
def test_scale_of_the_gradient_does_not_matter(exercises):
    """Gradients a thousand times larger lead to the same place."""
    options = {"lr": 0.1, "eps": 1e-30, "weight_decay": 0.0}
    small = exercises.run(two_steps, [0.5, -0.1, 0.3], options)
    large = exercises.run(two_steps, [500.0, -100.0, 300.0], options)
    close(large, small, "the path with gradients a thousand times larger")


@exercise("lr_at")
def test_schedule_of_the_notes(exercises):
    """Two steps up, four down by half a cosine, then flat."""
    got = [exercises.lr_at(step, 1.0, 0.2, 2, 6) for step in range(8)]
    half = math.sqrt(0.5)  # the cosine of 45 degrees
    close(got, [0.5, 1.0, 1.0, 0.6 + 0.4 * half, 0.6, 0.6 - 0.4 * half, 0.2, 0.2], "rates of steps 0 to 7")


@exercise("lr_at")
def test_clipping_the_long_and_not_the_short(exercises):
    """Length 5 is clipped to 1 by one factor, and left alone at 6."""
    grads = [torch.tensor([3.0, 0.0]), torch.tensor([[4.0]])]
    length, (after, _), _ = exercises.clip_grad_norm.observed(grads, 1.0)
    close(length, 5.0, "the length of (3, 0) and (4)")
    roughly(list(after), [torch.tensor([0.6, 0.0]), torch.tensor([[0.8]])], 1e-5, "(3, 0) and (4), clipped to 1")
    length, (after, _), _ = exercises.clip_grad_norm.observed(grads, 6.0)
    exact(list(after), grads, "(3, 0) and (4), clipped to 6")


@driver
def slope(module, batches):
    """The gradient of a model y = w x under the mean of its outputs."""
    from torch import nn

    model = nn.Linear(1, 1, bias=False)
    mean = module.accumulate(model, batches, lambda out, y: out[y != -100].sum())
    return model.weight.grad.item(), mean / model.weight.item()


@exercise("accumulate")
def test_mean_over_targets_not_over_pieces(exercises):
    """Pieces (1, 2) and (6) have the mean 3, not 3.75."""
    batches = [(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0])), (torch.tensor([[6.0]]), torch.tensor([0]))]
    gradient, mean = exercises.run(slope, batches)
    close(gradient, 3.0, "the gradient of the mean of w, 2 w and 6 w")
    roughly(mean, 3.0, 1e-5, "the mean loss over w")  # float32


@exercise("accumulate")
def test_ignored_targets_do_not_count(exercises):
    """Targets of -100 count neither in the sum nor in the number."""
    batches = [
        (torch.tensor([[1.0], [2.0], [9.0]]), torch.tensor([0, -100, 0])),
        (torch.ones(4, 1), torch.full((4,), -100)),
    ]
    close(exercises.run(slope, batches)[0], 5.0, "the gradient of the mean of w and 9 w")


@exercise("mixture_weights")
def test_temperature_evens_the_shares_out(exercises):
    """Sizes 900 and 100 give 9 to 1, 3 to 1 at T = 2, and 1 to 1 at inf."""
    for temperature, expected in ((1.0, [0.9, 0.1]), (2.0, [0.75, 0.25]), (math.inf, [0.5, 0.5])):
        close(exercises.mixture_weights([900, 100], temperature), expected, f"shares at T = {temperature}")


@exercise("mixture_weights")
def test_shares_are_of_tokens(exercises, rng):
    """Half of the tokens each, though one source has ten times longer documents."""
    sources = [[[0] * 10] * 5, [[1] * 100] * 5]
    drawn = exercises.MixtureSampler(sources, [1, 1], rng.seed).draw(4000)
    tokens = [sum(len(sources[i][j]) for i, j in drawn if i == k) for k in range(2)]
    # the share has a standard deviation of about 0.007 here
    holds(abs(tokens[0] / sum(tokens) - 0.5) < 0.05, f"the sources give {tokens} tokens, not half each")


@exercise("mixture_weights")
def test_sampler_resumes(exercises, rng):
    """After loading a state the next draws are the same."""
    sources = [[[0] * 3, [1] * 5, [2] * 4], [[3] * 2, [4] * 9]]
    sampler = exercises.MixtureSampler(sources, [2, 1], rng.seed)
    sampler.draw(8)
    state, expected = sampler.state_dict(), sampler.draw(20)
    other = exercises.MixtureSampler(sources, [2, 1], rng.seed + 1)
    other.load_state_dict(state)
    exact(other.draw(20), expected, "20 draws of the sampler that loaded the state")


@exercise("minhash")
def test_equal_entries_estimate_the_overlap(exercises):
    """Sets that share half of their union share about half of the entries."""
    a, b = {f"s{i}" for i in range(30)}, {f"s{i}" for i in range(10, 40)}
    one, other = exercises.minhash(a, 200, 1), exercises.minhash(b, 200, 1)
    share = sum(x == y for x, y in zip(one, other, strict=True)) / 200
    holds(abs(share - 0.5) < 5 * math.sqrt(0.25 / 200), f"the share of equal entries is {share}, the similarity 0.5")


@exercise("minhash")
def test_one_equal_band_makes_a_candidate(exercises):
    """Signatures 0 and 1 share the first band, 1 and 2 the second."""
    sigs = [[1, 2, 3, 4], [1, 2, 9, 9], [3, 4, 9, 9]]
    exact(exercises.lsh_candidates(sigs, 2), {(0, 1), (1, 2)}, f"lsh_candidates({sigs}, 2)")


@exercise("minhash")
def test_one_of_each_cluster_stays(exercises):
    """Of three near-copies the first stays, and so does what is alone."""
    text = " ".join(f"w{i}" for i in range(50))
    docs = [text, "something else altogether here", text + " end", "and " + text]
    exact(exercises.dedup(docs), [0, 1], "dedup of a text, another one, and two near-copies of the first")


@exercise("ring_all_reduce")
def test_ring_of_three(exercises):
    """Three machines with three numbers each send 12 numbers in all."""
    buffers = [torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30]), torch.tensor([100, 200, 300])]
    sums, sent = exercises.ring_all_reduce(buffers)
    exact((list(sums), sent), ([torch.tensor([111, 222, 333])] * 3, 12), "the sums and the numbers sent")


@exercise("ring_all_reduce")
def test_ring_talks_to_the_neighbour_only(exercises):
    """Messages go from each machine to the next, a third of the buffer each."""
    messages = []

    def send(src, dst, chunk):
        messages.append((src, dst, len(chunk)))
        return chunk

    exercises.ring_all_reduce([torch.arange(6)] * 3, send)
    exact({(src, dst) for src, dst, _ in messages}, {(0, 1), (1, 2), (2, 0)}, "who sends to whom")
    exact({size for _, _, size in messages}, {2}, "the sizes of the messages")


@exercise("ring_all_reduce")
def test_memory_and_bubble_of_the_notes(exercises):
    """7.5 billion parameters on 64 machines; 4 stages and 12 pieces."""
    got = [exercises.zero_memory(7_500_000_000, 64, stage) / 1e9 for stage in (0, 3)]
    close(got, [120.0, 1.875], "gigabytes a machine at stages 0 and 3")
    close(exercises.pipeline_bubble(4, 12), 0.2, "pipeline_bubble(4, 12)")


@exercise("training_cost")
def test_cost_of_a_small_run(exercises):
    """A billion parameters and twenty billion tokens take 83 GPU hours."""
    cost = exercises.training_cost(1e9, 2e10, peak_flops=1e15, mfu=0.4, price_per_hour=2.0, gpus=10)
    hours = 6e9 * 2e10 / 4e14 / 3600
    close(cost, {"days": hours / 240, "usd": 2 * hours, "gpu_hours": hours}, "training_cost of the worked example")


@exercise("train_tiny_gpt")
def test_it_learns_what_follows_what(exercises):
    """In 40 steps the loss falls towards the entropy, and not below it."""
    markov = dataset("markov")
    P = markov.transitions(seed=3, size=8, order=1, concentration=0.3)
    ids = np.array(markov.documents(P, 4, [5000])[0])
    cfg = exercises.Config(vocab=8, context=16, batch=8, micro=2, max_lr=2e-2, warmup=5)
    model, history = exercises.train_tiny_gpt(cfg, ids, 40, 0)
    fresh = markov.documents(P, 5, [2401])[0]
    x, y = (torch.tensor(fresh[at : at + 2400]).view(150, 16) for at in (0, 1))
    loss, floor = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item(), -markov.log_probs(P, fresh).mean()
    exact(len(history["loss"]), 40, "the number of losses in the history")
    holds(abs(history["loss"][0] - math.log(8)) < 0.3, f"the first loss is {history['loss'][0]}, not about ln 8")
    holds(floor - 0.03 < loss < floor + 0.3, f"the loss {loss:.3f} on fresh text, where the floor is {floor:.3f}")
