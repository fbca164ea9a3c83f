"""Wrong answers of chapter 9 that people really give, each with the sentence that sets them right."""

import math
import random

import numpy as np
import torch
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def windows_at(ids, starts, context, shift=1, dtype=np.int64):
    """Windows and their targets for given starts; what lies beyond the end is cut off, or an error."""
    places = starts.reshape(-1, 1) + torch.arange(context + shift)
    windows = torch.from_numpy(ids[places.numpy()].astype(dtype))
    return windows[:, :context], windows[:, shift:]


def checked(ids, context):
    if len(ids) < context + 1:
        raise ValueError("too short")
    return len(ids) - context


# -- get_batch


@misconception("get_batch", "The last window is never drawn: starts run up to n - T - 1, and that one counts too.")
def misses_the_last_start(ids, batch, context, rng):
    starts = checked(ids, context)
    return windows_at(ids, torch.randint(max(starts - 1, 1), (batch,), generator=rng), context)


@misconception("get_batch", "The first window is never drawn: starts begin at 0.")
def misses_the_first_start(ids, batch, context, rng):
    starts = checked(ids, context)
    return windows_at(ids, torch.randint(min(1, starts - 1), starts, (batch,), generator=rng), context)


@misconception("get_batch", "You let a window begin at n - T, where the last id has no target; stop one earlier.")
def reads_past_the_end(ids, batch, context, rng):
    starts = checked(ids, context)
    return windows_at(ids, torch.randint(starts + 1, (batch,), generator=rng), context)


@misconception("get_batch", "Your windows begin at multiples of T only; every place is an equally likely start.")
def side_by_side(ids, batch, context, rng):
    blocks = (checked(ids, context) - 1) // context + 1
    return windows_at(ids, torch.randint(blocks, (batch,), generator=rng) * context, context)


@misconception("get_batch", "Your targets equal the inputs; shift them by one, so that each is what comes next.")
def targets_not_shifted(ids, batch, context, rng):
    x, _ = reference.get_batch(ids, batch, context, rng)
    return x, x.clone()


@misconception("get_batch", "Your rows are neighbours in the corpus; each row needs a random start of its own.")
def one_start_for_all(ids, batch, context, rng):
    starts = checked(ids, context)
    first = torch.randint(starts, (1,), generator=rng)
    return windows_at(ids, (first + torch.arange(batch)) % starts, context)


@misconception("get_batch", "You return int32; ids must be int64 for the embedding and the loss.")
def narrow_ids(ids, batch, context, rng):
    x, y = reference.get_batch(ids, batch, context, rng)
    return x.int(), y.int()


@misconception("get_batch", "You use the global random state; draw from the generator that is passed in.")
def ignores_the_generator(ids, batch, context, rng):
    return windows_at(ids, torch.randint(checked(ids, context), (batch,)), context)


@misconception("get_batch", "You draw starts without repetition; rows are independent, and a start may come twice.")
def without_repetition(ids, batch, context, rng):
    starts = checked(ids, context)
    rounds = [torch.randperm(starts, generator=rng) for _ in range(-(-batch // starts))] if starts < 10**6 else []
    drawn = torch.cat(rounds)[:batch] if rounds else torch.randint(starts, (batch,), generator=rng)
    return windows_at(ids, drawn, context)


# -- AdamW


class Variant(reference.AdamW):
    """AdamW in pieces that can be replaced one at a time."""

    def decay(self, p):
        p.mul_(1 - self.lr * self.weight_decay)

    def gradient(self, p):
        return p.grad

    def corrected(self, m, v, t):
        b1, b2 = self.betas
        return m / (1 - b1**t), v / (1 - b2**t)

    def update(self, m_hat, v_hat, t):
        return m_hat / (v_hat.sqrt() + self.eps)

    @torch.no_grad()
    def step(self):
        b1, b2 = self.betas
        for i, p in enumerate(self.params):
            if p.grad is None:
                continue
            self.t[i] += 1
            g = self.gradient(p)
            self.decay(p)
            self.m[i] = b1 * self.m[i] + (1 - b1) * g
            self.v[i] = b2 * self.v[i] + (1 - b2) * g * g
            p.sub_(self.lr * self.update(*self.corrected(self.m[i], self.v[i], self.t[i]), self.t[i]))


@misconception(
    "AdamW", "You add the decay to the gradient, as Adam with L2 does; shrink the parameter itself, beside it."
)
class DecayInTheGradient(Variant):
    def decay(self, p):
        pass

    def gradient(self, p):
        return p.grad + self.weight_decay * p


@misconception("AdamW", "Your means are not corrected; they start at zero, so divide by 1 - beta^t.")
class NoBiasCorrection(Variant):
    def corrected(self, m, v, t):
        return m, v


@misconception("AdamW", "Your eps stands under the root; take the root first and add eps to it.")
class EpsInsideTheRoot(Variant):
    def update(self, m_hat, v_hat, t):
        return m_hat / (v_hat + self.eps).sqrt()


@misconception(
    "AdamW", "Your eps is added before the bias of v is corrected, so it counts too much early; correct first."
)
class EpsBeforeTheCorrection(Variant):
    def update(self, m_hat, v_hat, t):
        root = math.sqrt(1 - self.betas[1] ** t)
        return m_hat * root / ((v_hat * root**2).sqrt() + self.eps)


@misconception("AdamW", "Your decay ignores the learning rate; it takes away the share lr * weight_decay.")
class DecayWithoutTheRate(Variant):
    def decay(self, p):
        p.mul_(1 - self.weight_decay)


@misconception("AdamW", "All parameters share one step counter; each counts only the steps in which it has a gradient.")
class SharedCounter(Variant):
    def step(self):
        self.steps = getattr(self, "steps", 0) + 1
        self.t = [self.steps - 1] * len(self.params)
        super().step()


@misconception("AdamW", "You keep the iterator of parameters, which is used up after one step; make a list of it.")
class IteratorKept(Variant):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        kept = list(params)
        super().__init__(kept, lr, betas, eps, weight_decay)
        self.rest = iter(kept)

    def step(self):
        self.params = list(self.rest)
        super().step()


@misconception("AdamW", "You also decay parameters that have no gradient; leave those alone altogether.")
class DecaysWithoutGradient(Variant):
    def step(self):
        for p in self.params:
            if p.grad is None:
                with torch.no_grad():
                    self.decay(p)
        super().step()


@misconception("AdamW", "Your rate is fixed when the optimiser is made; read self.lr again at every step.")
class RateFixedAtTheStart(Variant):
    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(params, lr, betas, eps, weight_decay)
        self.first_lr = lr

    def step(self):
        now, self.lr = self.lr, self.first_lr
        super().step()
        self.lr = now


@misconception(
    "AdamW", "Your zero_grad leaves tensors of zeros, which still decay and count as steps; set .grad to None."
)
class ZerosForGradients(Variant):
    def zero_grad(self):
        for p in self.params:
            if p.grad is not None:
                p.grad.zero_()


# -- lr_at, clip_grad_norm


@misconception("lr_at", "Your first step has a rate of zero and is lost; warm up with (step + 1) / warmup.")
def starts_at_zero(step, max_lr, min_lr, warmup, total):
    if step < warmup:
        return max_lr * step / warmup
    return reference.lr_at(step, max_lr, min_lr, warmup, total)


@misconception("lr_at", "You count the cosine from step 0; its progress begins when the warm-up ends.")
def progress_from_zero(step, max_lr, min_lr, warmup, total):
    if step < warmup or step >= total:
        return reference.lr_at(step, max_lr, min_lr, warmup, total)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * step / total)) / 2


@misconception(
    "lr_at", "You run through a whole cosine, so the rate rises again; half a period, pi, leads from max to min."
)
def whole_period(step, max_lr, min_lr, warmup, total):
    if step < warmup or step >= total:
        return reference.lr_at(step, max_lr, min_lr, warmup, total)
    progress = (step - warmup) / (total - warmup)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(2 * math.pi * progress)) / 2


@misconception(
    "lr_at", "Your rate falls to zero and is then cut off at min_lr; scale the cosine to lie between the two."
)
def floor_by_cutting(step, max_lr, min_lr, warmup, total):
    if step < warmup or step >= total:
        return reference.lr_at(step, max_lr, min_lr, warmup, total)
    return max(min_lr, reference.lr_at(step, max_lr, 0.0, warmup, total))


@misconception("lr_at", "Beyond total your cosine goes on and the rate rises again; from total on it is min_lr.")
def goes_on_after_the_end(step, max_lr, min_lr, warmup, total):
    if step < warmup or total == warmup:
        return reference.lr_at(step, max_lr, min_lr, warmup, total)
    progress = (step - warmup) / (total - warmup)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


@misconception("lr_at", "Your rate falls along a straight line; the schedule asks for half a cosine.")
def straight_down(step, max_lr, min_lr, warmup, total):
    if step < warmup or step >= total:
        return reference.lr_at(step, max_lr, min_lr, warmup, total)
    return max_lr + (min_lr - max_lr) * (step - warmup) / (total - warmup)


def shrink(grads, norm, max_norm):
    """Scale what is there if the length is too large."""
    if norm > max_norm:
        for g in grads:
            if g is not None:
                g.mul_(max_norm / norm)
    return norm


def length(g):
    return g.double().square().sum().sqrt().item()


@misconception(
    "lr_at", "You clip each tensor by its own length, which turns the step; use one length for all.", "clip_grad_norm"
)
def clips_each_tensor(grads, max_norm):
    norm = math.sqrt(sum(length(g) ** 2 for g in grads if g is not None))
    for g in grads:
        if g is not None:
            shrink([g], length(g), max_norm)
    return norm


@misconception(
    "lr_at", "You scale short gradients up to max_norm as well; below the limit leave them alone.", "clip_grad_norm"
)
def always_rescales(grads, max_norm):
    norm = math.sqrt(sum(length(g) ** 2 for g in grads if g is not None))
    for g in grads:
        if g is not None and norm > 0:
            g.mul_(max_norm / norm)
    return norm


@misconception("lr_at", "You add up the lengths; the joint length is the root of the sum of squares.", "clip_grad_norm")
def sum_of_lengths(grads, max_norm):
    return shrink(grads, float(sum(length(g) for g in grads if g is not None)), max_norm)


@misconception(
    "lr_at", "You take the longest tensor; the joint length is the root of the sum of all squares.", "clip_grad_norm"
)
def longest_tensor(grads, max_norm):
    return shrink(grads, max((length(g) for g in grads if g is not None), default=0.0), max_norm)


@misconception(
    "lr_at", "You return the length after clipping; the one before tells how wild the batch was.", "clip_grad_norm"
)
def returns_the_new_length(grads, max_norm):
    return min(reference.clip_grad_norm(grads, max_norm), max_norm)


@misconception(
    "lr_at", "You cut off each entry by itself, which turns the step; scale all by one factor.", "clip_grad_norm"
)
def clips_entries(grads, max_norm):
    norm = math.sqrt(sum(length(g) ** 2 for g in grads if g is not None))
    for g in grads:
        if g is not None:
            g.clamp_(-max_norm, max_norm)
    return norm


@misconception(
    "lr_at",
    "You square in the gradients' own dtype, which overflows in float16; go to float32 first.",
    "clip_grad_norm",
)
def squares_in_half(grads, max_norm):
    norm = math.sqrt(sum(g.square().sum().item() for g in grads if g is not None))
    return shrink(grads, norm, max_norm)


# -- accumulate


def prepared(model):
    model.zero_grad()
    return [p for p in model.parameters() if p.requires_grad]


@misconception(
    "accumulate",
    "You average the means of the micro-batches, so short ones count too much; divide sums by all targets.",
)
def mean_of_means(model, micro_batches, loss_sum_fn):
    params, means = prepared(model), []
    for x, y in micro_batches:
        loss = loss_sum_fn(model(x), y) / max(int((y != -100).sum()), 1)
        loss.backward()
        means.append(loss.item())
    for p in params:
        if p.grad is not None:
            p.grad /= len(means)
    return sum(means) / len(means)


@misconception(
    "accumulate", "You add up the gradients of sums and never divide; divide by the number of targets that count."
)
def never_divides(model, micro_batches, loss_sum_fn):
    prepared(model)
    total, count = 0.0, 0
    for x, y in micro_batches:
        loss = loss_sum_fn(model(x), y)
        loss.backward()
        total, count = total + loss.item(), count + int((y != -100).sum())
    return total / max(count, 1)


@misconception(
    "accumulate", "You count targets that are to be ignored; only those that bear a loss belong in the mean."
)
def counts_ignored_targets(model, micro_batches, loss_sum_fn):
    params = prepared(model)
    total, count = 0.0, 0
    for x, y in micro_batches:
        loss = loss_sum_fn(model(x), y)
        loss.backward()
        total, count = total + loss.item(), count + y.numel()
    for p in params:
        if p.grad is not None:
            p.grad /= count
    return total / count


@misconception("accumulate", "You do not clear the old gradients first; what was left over is added to the new ones.")
def keeps_old_gradients(model, micro_batches, loss_sum_fn):
    old = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    mean = reference.accumulate(model, micro_batches, loss_sum_fn)
    for p, g in zip(model.parameters(), old, strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g
    return mean


@misconception("accumulate", "You clear the gradients before each micro-batch; only the last one is left. Clear once.")
def clears_every_time(model, micro_batches, loss_sum_fn):
    total, count = 0.0, 0
    for x, y in micro_batches:
        prepared(model)
        loss = loss_sum_fn(model(x), y)
        loss.backward()
        total, count = total + loss.item(), count + int((y != -100).sum())
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= max(count, 1)
    return total / max(count, 1)


@misconception(
    "accumulate",
    "You keep all graphs until one backward at the end; go backward after each micro-batch to free memory.",
)
def one_backward_at_the_end(model, micro_batches, loss_sum_fn):
    prepared(model)
    total, count = 0.0, 0
    for x, y in micro_batches:
        total = total + loss_sum_fn(model(x), y)
        count += int((y != -100).sum())
    (total / max(count, 1)).backward()
    return total.item() / max(count, 1)


@misconception("accumulate", "You divide by zero when no target counts; the result is then zero, not NaN.")
def divides_by_zero(model, micro_batches, loss_sum_fn):
    params = prepared(model)
    total, count = 0.0, torch.tensor(0)
    for x, y in micro_batches:
        loss = loss_sum_fn(model(x), y)
        loss.backward()
        total, count = total + loss.detach(), count + (y != -100).sum()
    for p in params:
        if p.grad is not None:
            p.grad /= count
    return (total / count).item()


# -- mixture_weights, MixtureSampler


@misconception("mixture_weights", "Your exponent is T; it is 1 / T, so that a larger T evens the shares out.")
def exponent_upside_down(sizes, temperature=1.0):
    if temperature <= 0 or min(sizes) <= 0:
        raise ValueError
    if math.isinf(temperature):
        return [float(size == max(sizes)) for size in sizes]
    powers = [(size / max(sizes)) ** temperature for size in sizes]
    return [power / sum(powers) for power in powers]


@misconception("mixture_weights", "Your shares do not sum to one; divide by their sum after taking the powers.")
def normalises_too_early(sizes, temperature=1.0):
    if temperature <= 0 or min(sizes) <= 0:
        raise ValueError
    return [(size / sum(sizes)) ** (1 / temperature) for size in sizes]


@misconception(
    "mixture_weights", "Your powers overflow for large sizes at a low temperature; divide by the largest size first."
)
def powers_overflow(sizes, temperature=1.0):
    if temperature <= 0 or min(sizes) <= 0:
        raise ValueError
    powers = [float(size) ** (1 / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


@misconception(
    "mixture_weights", "You apply a softmax to the sizes; take powers of them, that is, a softmax of their logarithms."
)
def softmax_of_sizes(sizes, temperature=1.0):
    if temperature <= 0 or min(sizes) <= 0:
        raise ValueError
    powers = [math.exp((size - max(sizes)) / temperature) for size in sizes]
    return [power / sum(powers) for power in powers]


@misconception(
    "mixture_weights",
    "You draw documents by the weights, but the weights are of tokens: divide each by the mean length.",
    "MixtureSampler",
)
class SharesOfDocuments(reference.MixtureSampler):
    def __init__(self, sources, weights, seed):
        super().__init__(sources, weights, seed)
        self.chances = [float(weight) for weight in weights]


@misconception(
    "mixture_weights",
    "You draw each document at random; within a source every document comes once before any comes again.",
    "MixtureSampler",
)
class WithReplacement(reference.MixtureSampler):
    def draw(self, n):
        drawn = []
        for i in self.random.choices(range(len(self.chances)), self.chances, k=n):
            j = self.random.randrange(len(self.lengths[i]))
            self.tokens[i] += self.lengths[i][j]
            drawn.append((i, j))
        return drawn


@misconception(
    "mixture_weights", "Every pass uses the same order of the documents; shuffle anew for each.", "MixtureSampler"
)
class SameOrderEveryPass(reference.MixtureSampler):
    def draw(self, n):
        drawn = []
        for i in self.random.choices(range(len(self.chances)), self.chances, k=n):
            self.waiting[i] = self.waiting[i] or list(range(len(self.lengths[i])))
            j = self.waiting[i].pop()
            self.tokens[i] += self.lengths[i][j]
            drawn.append((i, j))
        return drawn


@misconception(
    "mixture_weights", "Your state lacks the passes that are under way; documents would repeat.", "MixtureSampler"
)
class ForgetsThePasses(reference.MixtureSampler):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.waiting = [[] for _ in self.waiting]


@misconception(
    "mixture_weights", "Your state lacks the random generator; the draws after loading differ.", "MixtureSampler"
)
class ForgetsTheGenerator(reference.MixtureSampler):
    def load_state_dict(self, state):
        here = self.random.getstate()
        super().load_state_dict(state)
        self.random.setstate(here)


@misconception(
    "mixture_weights",
    "The loaded state and the sampler share their lists, so drawing changes the state.",
    "MixtureSampler",
)
class SharesTheState(reference.MixtureSampler):
    kept = None

    def state_dict(self):
        SharesTheState.kept = {"random": self.random.getstate(), "waiting": self.waiting, "tokens": self.tokens}
        return {"number": 0}

    def load_state_dict(self, state):
        self.random.setstate(SharesTheState.kept["random"])
        self.waiting, self.tokens = SharesTheState.kept["waiting"], SharesTheState.kept["tokens"]


@misconception(
    "mixture_weights", "Your epochs count documents; count tokens, since documents differ in length.", "MixtureSampler"
)
class EpochsOfDocuments(reference.MixtureSampler):
    def __init__(self, sources, weights, seed):
        super().__init__(sources, weights, seed)
        self.documents = [0] * len(sources)

    def draw(self, n):
        drawn = super().draw(n)
        for i, _ in drawn:
            self.documents[i] += 1
        return drawn

    def epochs(self):
        return [n / len(lengths) for n, lengths in zip(self.documents, self.lengths, strict=True)]


# -- minhash, lsh_candidates, dedup


def hashed(shingles, K, seed, choose=min):
    """The reference's hash values, put together by `choose`."""
    columns = [reference.minhash({shingle}, K, seed) for shingle in shingles]
    if not columns:
        raise ValueError
    return [choose(values) for values in zip(*columns, strict=True)]


@misconception("minhash", "You repeat one hash function, so all entries agree or none does; each entry needs its own.")
def one_hash_repeated(shingles, K, seed=0):
    return hashed(shingles, 1, seed) * K


@misconception("minhash", "You add the hash values up; the entry is their minimum, which belongs to one shingle.")
def sums_instead_of_minimum(shingles, K, seed=0):
    return hashed(shingles, K, seed, sum)


@misconception("minhash", "You use Python's hash(), which differs from process to process; use hashlib.")
def uses_python_hash(shingles, K, seed=0):
    if not shingles:
        raise ValueError
    return [min(random.Random(hash((seed, k, s))).getrandbits(60) for s in shingles) for k in range(K)]


@misconception("minhash", "You ignore the seed; it must choose the hash functions.")
def ignores_the_seed(shingles, K, seed=0):
    return hashed(shingles, K, 0)


@misconception("minhash", "Your hash values are so few that different texts collide; keep 32 bits or more.")
def tiny_range(shingles, K, seed=0):
    return [value % 1000 for value in hashed(shingles, K, seed)]


@misconception("minhash", "You keep the K smallest values of one function; take the minimum of K functions.")
def bottom_k(shingles, K, seed=0):
    values = sorted(reference.minhash({shingle}, 1, seed)[0] for shingle in shingles)
    if not values:
        raise ValueError
    return (values + [values[-1]] * K)[:K]


@misconception("minhash", "Your buckets mix the bands: put the band's number into the key.", "lsh_candidates")
def bands_mixed(sigs, bands):
    buckets = {}
    for i, sig in enumerate(sigs):
        if len(sig) % bands:
            raise ValueError
        rows = len(sig) // bands
        for key in {tuple(sig[m * rows : (m + 1) * rows]) for m in range(bands)}:
            buckets.setdefault(key, []).append(i)
    return {(i, j) for members in buckets.values() for k, j in enumerate(members) for i in members[:k]}


@misconception("minhash", "You ask for agreement in all bands; one whole band suffices.", "lsh_candidates")
def every_band_must_agree(sigs, bands):
    if any(len(sig) % bands for sig in sigs):
        raise ValueError
    return reference.lsh_candidates(sigs, 1)


@misconception("minhash", "One equal entry makes your candidates; all entries of a band must agree.", "lsh_candidates")
def one_entry_suffices(sigs, bands):
    if any(len(sig) % bands for sig in sigs):
        raise ValueError
    return reference.lsh_candidates(sigs, len(sigs[0])) if sigs else set()


@misconception(
    "minhash", "You took bands for rows: `bands` is the number of bands, not their length.", "lsh_candidates"
)
def bands_taken_for_rows(sigs, bands):
    if any(len(sig) % bands for sig in sigs):
        raise ValueError
    return reference.lsh_candidates(sigs, len(sigs[0]) // bands) if sigs else set()


@misconception(
    "minhash", "You pair only neighbours of a bucket; all its members are candidates of each other.", "lsh_candidates"
)
def pairs_only_neighbours(sigs, bands):
    pairs = reference.lsh_candidates(sigs, bands)
    return {(i, j) for i, j in pairs if not any((i, k) in pairs and (k, j) in pairs for k in range(i + 1, j))}


def similar_pairs(docs, threshold):
    sets = [reference.shingles(doc) for doc in docs]
    return {(i, j) for j in range(len(docs)) for i in range(j) if reference.jaccard(sets[i], sets[j]) >= threshold}


@misconception("minhash", "You remove every document that has a copy; the first of each cluster stays.", "dedup")
def removes_all_copies(docs, threshold=0.8):
    copied = {i for pair in similar_pairs(docs, threshold) for i in pair}
    return [i for i in range(len(docs)) if i not in copied]


@misconception(
    "minhash", "You compare only with documents that were kept, so a chain leaves several; merge clusters.", "dedup"
)
def greedy(docs, threshold=0.8):
    pairs, kept = similar_pairs(docs, threshold), []
    for j in range(len(docs)):
        if not any((i, j) in pairs for i in kept):
            kept.append(j)
    return kept


@misconception(
    "minhash",
    "You drop what resembles any earlier document, which can leave two of a cluster; merge clusters.",
    "dedup",
)
def drops_if_any_earlier(docs, threshold=0.8):
    pairs = similar_pairs(docs, threshold)
    return [j for j in range(len(docs)) if not any((i, j) in pairs for i in range(j))]


@misconception("minhash", "You keep the last document of each cluster; keep the first.", "dedup")
def keeps_the_last(docs, threshold=0.8):
    n = len(docs)
    return sorted(n - 1 - i for i in reference.dedup(list(docs)[::-1], threshold))


@misconception("minhash", "You trust the candidates; some share a band by chance, so compare them exactly.", "dedup")
def trusts_the_candidates(docs, threshold=0.8):
    sigs = [reference.minhash(reference.shingles(doc), 128) for doc in docs]
    dropped = {j for _, j in reference.lsh_candidates(sigs, 64)}
    return [i for i in range(len(docs)) if i not in dropped]


@misconception(
    "minhash", "Your bands are too long, so pairs near the threshold are missed; use fewer rows a band.", "dedup"
)
def bands_too_long(docs, threshold=0.8):
    sets = [reference.shingles(doc) for doc in docs]
    sigs = [reference.minhash(s, 128) for s in sets]
    cluster = list(range(len(docs)))
    for i, j in reference.lsh_candidates(sigs, 16):
        if reference.jaccard(sets[i], sets[j]) >= threshold:
            low, high = sorted((cluster[i], cluster[j]))
            cluster = [low if c == high else c for c in cluster]
    return sorted(set(cluster))


# -- ring_all_reduce, zero_memory, pipeline_bubble


def around(buffers, send, chunk_of, receive):
    """The ring with a free choice of the chunk that is sent and of what a machine does with it."""
    W = len(buffers)
    machines = [list(torch.tensor_split(buffer.clone(), W)) for buffer in buffers]
    sent = 0
    for phase in (0, 1):
        for t in range(W - 1):
            for src in range(W):
                dst, c = (src + 1) % W, chunk_of(phase, src, t) % W
                chunk = send(src, dst, machines[src][c])
                machines[dst][c] = receive(phase, machines[dst][c], chunk)
                sent += chunk.numel()
    return [torch.cat(chunks) for chunks in machines], sent


def right_chunk(phase, src, t):
    return src - t + phase


def right_receive(phase, own, chunk):
    return chunk if phase else own + chunk


@misconception("ring_all_reduce", "In the first phase you overwrite a machine's chunk; add what arrives to it.")
def overwrites_always(buffers, send=reference.wire):
    return around(buffers, send, right_chunk, lambda phase, own, chunk: chunk)


@misconception("ring_all_reduce", "In the second phase you add again; the chunks are complete, so replace.")
def adds_always(buffers, send=reference.wire):
    return around(buffers, send, right_chunk, lambda phase, own, chunk: own + chunk)


@misconception(
    "ring_all_reduce",
    "Your second phase starts with the wrong chunk; the complete one is that after the machine's number.",
)
def wrong_chunk_in_the_second_phase(buffers, send=reference.wire):
    return around(buffers, send, lambda phase, src, t: src - t, right_receive)


@misconception(
    "ring_all_reduce", "You send the chunk of the machine's own number in every round; pass on what came in before."
)
def always_its_own_chunk(buffers, send=reference.wire):
    return around(buffers, send, lambda phase, src, t: src, right_receive)


@misconception(
    "ring_all_reduce", "You drop the places that are left when W does not divide n; let chunks differ by one."
)
def drops_the_tail(buffers, send=reference.wire):
    W, n = len(buffers), len(buffers[0])
    sums, sent = reference.ring_all_reduce([buffer[: n // W * W] for buffer in buffers], send)
    return [torch.cat([s, b[n // W * W :]]) for s, b in zip(sums, buffers, strict=True)], sent


@misconception(
    "ring_all_reduce",
    "You pass whole buffers around the ring, W / 2 times as much; send chunks, and share out the adding.",
)
def sends_whole_buffers(buffers, send=reference.wire):
    W, sent = len(buffers), 0
    sums, moving = [buffer.clone() for buffer in buffers], [buffer.clone() for buffer in buffers]
    for _ in range(W - 1):
        moving = [send((dst - 1) % W, dst, moving[dst - 1]) for dst in range(W)]
        sums = [s + m for s, m in zip(sums, moving, strict=True)]
        sent += sum(m.numel() for m in moving)
    return sums, sent


@misconception(
    "ring_all_reduce", "You add all buffers up directly; a machine may know of others only what send delivers."
)
def adds_without_the_wire(buffers, send=reference.wire):
    W = len(buffers)
    total = torch.stack(list(buffers)).sum(0)
    return [total.clone() for _ in range(W)], 2 * (W - 1) * len(total)


@misconception(
    "ring_all_reduce", "You divide by W at the end; all-reduce gives the sum, and the mean is the caller's business."
)
def gives_the_mean(buffers, send=reference.wire):
    sums, sent = reference.ring_all_reduce(buffers, send)
    return [(s / len(buffers)).to(s.dtype) for s in sums], sent


@misconception("ring_all_reduce", "You count the messages of one machine; count the elements of all messages together.")
def counts_one_machine(buffers, send=reference.wire):
    sums, sent = reference.ring_all_reduce(buffers, send)
    return sums, sent // len(buffers)


@misconception(
    "ring_all_reduce",
    "Your stages are cumulative in the wrong order: states first, then gradients, then weights.",
    "zero_memory",
)
def shards_weights_first(n_params, world, stage):
    if stage not in (0, 1, 2, 3):
        raise ValueError
    w, g, s = (1 if stage < k else world for k in (1, 2, 3))
    return n_params * (2 / w + 2 / g + 12 / s)


@misconception(
    "ring_all_reduce",
    "Your states take 8 bytes; the 4-byte copy of the weights belongs to them as well: 12.",
    "zero_memory",
)
def forgets_the_master_copy(n_params, world, stage):
    return reference.zero_memory(n_params, world, stage) - 4 * n_params / (world if stage else 1)


@misconception(
    "ring_all_reduce", "You divide the idle slots by m alone; divide by all slots, m + p - 1.", "pipeline_bubble"
)
def idle_over_work(p, m):
    return (p - 1) / m


@misconception("ring_all_reduce", "You count p idle slots; a machine waits for p - 1 others.", "pipeline_bubble")
def one_slot_too_many(p, m):
    return p / (m + p)


# -- training_cost


def cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus, operations=6.0):
    if not 0 < mfu <= 1:
        raise ValueError
    hours = operations * n_params * n_tokens / (peak_flops * mfu) / 3600
    return hours, {"days": hours / gpus / 24, "usd": hours * price_per_hour, "gpu_hours": hours}


@misconception(
    "training_cost", "You count 2 N D operations, which is the forward pass; the backward pass takes 4 N D more."
)
def forward_pass_only(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    return cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus, operations=2.0)[1]


@misconception("training_cost", "You multiply the time by the utilisation; a low one makes the run longer, so divide.")
def utilisation_upside_down(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    hours, _ = cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus)
    return cost(n_params, n_tokens, peak_flops, 1.0, price_per_hour, gpus, operations=6.0 * mfu)[1] if hours else {}


@misconception("training_cost", "You pay for one GPU during the days of all; pay for the GPU hours.")
def pays_for_one_gpu(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    hours, result = cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus)
    return result | {"usd": hours / gpus * price_per_hour}


@misconception("training_cost", "Your GPU hours are hours on the wall; multiply them by the number of GPUs.")
def hours_on_the_wall(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    hours, result = cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus)
    return result | {"gpu_hours": hours / gpus}


@misconception("training_cost", "Your days take no account of the number of GPUs; they share the work.")
def days_of_one_gpu(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus):
    hours, result = cost(n_params, n_tokens, peak_flops, mfu, price_per_hour, gpus)
    return result | {"days": hours / 24}


# -- train_tiny_gpt


@misconception(
    "train_tiny_gpt",
    "Your model sees its targets: the attention has no causal mask, and the loss passes the floor.",
    "TinyGPT",
)
class SeesTheFuture(reference.TinyGPT):
    def forward(self, ids):
        B, T = ids.shape
        x = self.token(ids) + self.position(torch.arange(T))
        for layer in self.layers:
            q, k, v = layer["qkv"](layer["norm_a"](x)).view(B, T, 3, self.cfg.heads, -1).permute(2, 0, 3, 1, 4)
            x = x + layer["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            x = x + layer["down"](F.gelu(layer["up"](layer["norm_f"](x))))
        return self.head(self.norm(x))


def recipe(cfg, ids, steps, seed, **changes):
    """The reference's loop with places at which it can go wrong."""
    cut = changes.get("cut", int(0.9 * len(ids)))
    model, rng = reference.TinyGPT(cfg, changes.get("model_seed", seed)), torch.Generator().manual_seed(seed)
    params = changes.get("params", lambda model: model.parameters())(model)
    optimizer = reference.AdamW(params, cfg.max_lr, weight_decay=changes.get("decay", cfg.weight_decay))
    history = {"loss": [], "lr": [], "norm": []}
    sum_of = lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum")  # noqa: E731
    for t in range(steps):
        rate = reference.lr_at(t + changes.get("late", 0), cfg.max_lr, cfg.min_lr, cfg.warmup, steps)
        optimizer.lr = changes.get("rate", rate)
        batches = [reference.get_batch(ids[:cut], cfg.batch, cfg.context, rng) for _ in range(cfg.micro)]
        loss = reference.accumulate(model, batches, sum_of)
        gradients = [p.grad for p in model.parameters()]
        norm = reference.clip_grad_norm(gradients, changes.get("max_norm", cfg.max_norm))
        optimizer.step()
        if changes.get("after"):
            with torch.no_grad():
                loss = sum(sum_of(model(x), y).item() for x, y in batches) / sum(y.numel() for _, y in batches)
        for name, value in (("loss", loss), ("lr", rate), ("norm", norm)):
            history[name].append(value)
    measured = ids[:cut] if changes.get("measure_train") else ids[int(0.9 * len(ids)) :]
    history["held_out"] = reference.held_out_loss(model, measured, cfg.context)
    return model, history


@misconception("train_tiny_gpt", "You measure on the part that was trained on; measure on the last tenth.")
def measures_on_train(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, measure_train=True)


@misconception("train_tiny_gpt", "You train on the whole corpus, the held-out tenth included; cut it off first.")
def trains_on_everything(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, cut=len(ids))


@misconception(
    "train_tiny_gpt", "Your optimiser holds the parameters of another model; give it those of the model you train."
)
def wrong_parameters(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, params=lambda model: reference.TinyGPT(cfg, seed).parameters())


@misconception("train_tiny_gpt", "You record the loss after the update; record what accumulate gives, before the step.")
def records_after_the_update(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, after=True)


@misconception("train_tiny_gpt", "You never clip; the gradient's length must be limited between accumulation and step.")
def never_clips(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, max_norm=math.inf)


@misconception("train_tiny_gpt", "Your schedule never reaches the optimiser; set optimizer.lr before each step.")
def rate_never_set(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, rate=cfg.max_lr)


@misconception("train_tiny_gpt", "Your optimiser has its default decay; hand cfg.weight_decay to it.")
def decay_left_at_its_default(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, decay=0.01)


@misconception("train_tiny_gpt", "Your schedule is one step ahead; step 0 has the rate lr_at(0, ...).")
def schedule_one_step_ahead(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, late=1)


@misconception("train_tiny_gpt", "Your first weights do not depend on the arguments alone; use TinyGPT(cfg, seed).")
def weights_of_another_seed(cfg, ids, steps, seed):
    return recipe(cfg, ids, steps, seed, model_seed=int(torch.randint(10**6, ())))


@misconception("train_tiny_gpt", "You draw one batch and train on it for ever; draw new micro-batches for every step.")
def same_batch_for_ever(cfg, ids, steps, seed):
    cut = int(0.9 * len(ids))
    rng = torch.Generator().manual_seed(seed)
    kept = [reference.get_batch(ids[:cut], cfg.batch, cfg.context, rng) for _ in range(cfg.micro)]
    model = reference.TinyGPT(cfg, seed)
    optimizer = reference.AdamW(model.parameters(), weight_decay=cfg.weight_decay)
    history = {"loss": [], "lr": [], "norm": []}
    for t in range(steps):
        optimizer.lr = reference.lr_at(t, cfg.max_lr, cfg.min_lr, cfg.warmup, steps)
        loss = reference.accumulate(
            model, kept, lambda z, y: F.cross_entropy(z.flatten(0, 1), y.flatten(), reduction="sum")
        )
        norm = reference.clip_grad_norm([p.grad for p in model.parameters()], cfg.max_norm)
        optimizer.step()
        for name, value in (("loss", loss), ("lr", optimizer.lr), ("norm", norm)):
            history[name].append(value)
    history["held_out"] = reference.held_out_loss(model, ids[cut:], cfg.context)
    return model, history
