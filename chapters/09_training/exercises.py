# %% [markdown]
# # Chapter 9: The training recipe
#
# Nine exercises: batches, an optimiser, a schedule, large batches from small ones, mixtures of data, duplicates, many
# machines, the bill, and at last a small GPT that your own pieces train, held against the one loss that no model can
# pass. The teaching is in the notes (`README.md`); here stand only the promises that each function must keep.

# %%
import hashlib
import math
import random
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% [markdown]
# ## 9.1 get_batch
#
# A corpus is one long row of ids. A batch is a handful of windows of it; the targets are the same windows, one later.


# %%
def get_batch(ids: np.ndarray, batch: int, context: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut random windows out of a corpus, with the id that follows each id as its target.

    Args:
        ids: (n,) numpy array of any integer dtype, such as uint16; it may be an np.memmap.
        batch: number of windows B.
        context: length of a window T.
        rng: source of all randomness.

    Returns:
        x and y, each (B, T) int64 tensors; y[b, t] is the id that stands right after x[b, t] in the corpus.

    Raises:
        ValueError: if n < T + 1, too short for one window and its targets.

    Example:
        >>> x, y = get_batch(np.array([7, 8, 9], dtype=np.uint16), batch=2, context=2, rng=torch.Generator())
        >>> x.tolist(), y.tolist()
        ([[7, 8], [7, 8]], [[8, 9], [8, 9]])

    Notes:
        Each row starts at 0, 1, ... or n - T - 1, all equally likely, whatever the other rows do: windows may overlap
        and repeat. rng alone decides: the same state gives the same batch, and each call moves it on. The corpus may be
        a file far larger than memory, so copy the windows and never the whole array.
    """
    raise NotImplementedError("get_batch")


# %% [markdown]
# ## 9.2 AdamW
#
# Each parameter gets a step of its own size, measured by the gradients it has seen; and it decays on the side.


# %%
class AdamW:
    """Adam with decoupled weight decay.

    Args:
        params: an iterable of leaf tensors that require gradients, such as model.parameters(); it is read once.
        lr: the learning rate; also an attribute, so that a schedule can set `optimizer.lr` before any step.
        betas: decay rates of the two running means.
        eps: added to the root of the second mean, after its bias is corrected.
        weight_decay: the share lr * weight_decay of each parameter is taken away at each step.

    Example:
        >>> p = torch.tensor([1.0, -2.0], requires_grad=True)
        >>> (10 * p).sum().backward()
        >>> AdamW([p], lr=0.5, weight_decay=0.0).step()
        >>> p
        tensor([ 0.5000, -2.5000], requires_grad=True)

    Notes:
        A parameter whose .grad is None is left alone, decay included, and its own step counter stands still. Otherwise,
        with t counting its steps from 1, first p <- p - lr weight_decay p, and then
            m <- b1 m + (1 - b1) g           v <- b2 v + (1 - b2) g^2           (m and v are zero before)
            p <- p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
        Parameters change in place, and keep their dtype; gradients stay as they are.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        raise NotImplementedError("AdamW")

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        raise NotImplementedError("AdamW")

    def zero_grad(self) -> None:
        """Forget all gradients: set every .grad to None."""
        raise NotImplementedError("AdamW")


# %% [markdown]
# ## 9.3 lr_at, clip_grad_norm
#
# Two brakes: a schedule that starts gently and ends gently, and a limit for the step that a single bad batch can cause.


# %%
def lr_at(step: int, max_lr: float, min_lr: float, warmup: int, total: int) -> float:
    """Give the learning rate of a step: a linear warm-up, half a cosine down, then constant.

    Args:
        step: number of the step, from 0.
        max_lr: the highest rate.
        min_lr: the rate at the end, 0 <= min_lr <= max_lr.
        warmup: number of warm-up steps, 0 <= warmup <= total; 0 means none.
        total: the step from which on the rate is min_lr.

    Returns:
        max_lr (step + 1) / warmup while step < warmup; min_lr from total on; in between half a cosine that is max_lr at
        step = warmup and reaches min_lr at step = total.

    Example:
        >>> [round(lr_at(s, max_lr=1.0, min_lr=0.2, warmup=2, total=6), 3) for s in range(8)]
        [0.5, 1.0, 1.0, 0.883, 0.6, 0.317, 0.2, 0.2]

    Notes:
        The first step has a rate above 0, and the last step of the warm-up already has max_lr.
    """
    raise NotImplementedError("lr_at")


# %%
def clip_grad_norm(grads: Sequence[Tensor | None], max_norm: float) -> float:
    """Scale gradients in place so that their joint length is at most max_norm; give the length before.

    Args:
        grads: tensors of any shapes and floating dtypes; None stands for a parameter without a gradient.
        max_norm: the largest length allowed, above 0.

    Returns:
        The root of the sum of all squared entries of all tensors, before clipping, as a Python float.

    Example:
        >>> grads = [torch.tensor([3.0]), None, torch.tensor([[0.0, 4.0]])]
        >>> clip_grad_norm(grads, max_norm=1.0), grads[2]
        (5.0, tensor([[0.0000, 0.8000]]))

    Notes:
        All entries are scaled by one and the same factor max_norm / length; a constant of up to 1e-6 added to the
        length is fine. At length <= max_norm not a bit changes. Without any tensor the length is 0.0. Squares are
        summed in the dtype of the gradients, but at least in float32: those of float16 gradients overflow.
    """
    raise NotImplementedError("clip_grad_norm")


# %% [markdown]
# ## 9.4 accumulate
#
# A batch that does not fit into memory is cut into pieces. The gradient must not notice.

# %%
IGNORE = -100  # a target that is not to be learned


# %%
def accumulate(
    model: nn.Module, micro_batches: Iterable[tuple[Tensor, Tensor]], loss_sum_fn: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """Leave in the parameters the gradient of the mean loss over all targets of all micro-batches.

    Args:
        model: called as model(x), once for each micro-batch; its parameters are those of model.parameters().
        micro_batches: pairs (x, y), read once and in order; shapes may differ. y is int64, and IGNORE marks targets
            that do not count.
        loss_sum_fn: loss_sum_fn(model(x), y) is the *sum* of the losses of the targets that count, a 0-d tensor.

    Returns:
        The mean loss over all targets that count, as a Python float; 0.0 if there are none.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> batches = [(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0])), (torch.tensor([[6.0]]), torch.tensor([0]))]
        >>> mean = accumulate(model, batches, lambda logits, y: logits.sum())
        >>> model.weight.grad  # the mean of 1, 2 and 6, where the mean of the two means would be 3.75
        tensor([[3.]])

    Notes:
        Old gradients are dropped first. The result is that of one batch that holds everything, however it is cut. A
        parameter without influence ends with None or zeros; if no target counts, all do. Call backward for each
        micro-batch before the model sees the next one: memory has room for one graph.
    """
    raise NotImplementedError("accumulate")


# %% [markdown]
# ## 9.5 mixture_weights, MixtureSampler
#
# Web pages are plenty, mathematics is scarce. Which share shall each have, and how often is each then read?


# %%
def mixture_weights(sizes: Sequence[float], temperature: float = 1.0) -> list[float]:
    """Turn the sizes of sources into shares, proportional to size ** (1 / temperature).

    Args:
        sizes: tokens of each source, above 0.
        temperature: above 0; math.inf is allowed.

    Returns:
        One float for each source; they sum to 1.

    Raises:
        ValueError: if a size or the temperature is not above 0.

    Example:
        >>> [round(w, 4) for w in mixture_weights([900, 100], temperature=2.0)]
        [0.75, 0.25]

    Notes:
        1 keeps the proportions, larger temperatures make the shares more equal, and math.inf makes them equal. Sizes up
        to 1e15 and temperatures down to 1e-3 must not overflow.
    """
    raise NotImplementedError("mixture_weights")


# %%
class MixtureSampler:
    """Draw documents from several sources so that each source gives its share of the *tokens*.

    Args:
        sources: each a sequence of documents; each document a sequence of one token or more.
        weights: the share of the tokens that each source shall give, at least 0; they need not sum to 1.
        seed: int that decides all draws.

    Raises:
        ValueError: if there is not one weight for each source, a weight is negative, all are 0, or a source is empty.

    Example:
        >>> sampler = MixtureSampler([[[1, 2], [3, 4, 5, 6]], [[7]]], weights=[1, 0], seed=0)
        >>> sorted(sampler.draw(2)), sampler.epochs()
        ([(0, 0), (0, 1)], [1.0, 0.0])

    Notes:
        Each draw chooses a source, independently of all other draws: source i with a probability proportional to
        weights[i] / (mean length of its documents), because a source of long documents needs fewer draws. Within a
        source, the documents come in random order, each once before any comes again, in a new order for every pass.
    """

    def __init__(self, sources: Sequence[Sequence[Sequence[int]]], weights: Sequence[float], seed: int) -> None:
        raise NotImplementedError("MixtureSampler")

    def draw(self, n: int) -> list[tuple[int, int]]:
        """Give the next n documents as pairs (source, document), both counted from 0."""
        raise NotImplementedError("MixtureSampler")

    def epochs(self) -> list[float]:
        """Give, for each source, the tokens drawn so far divided by its tokens."""
        raise NotImplementedError("MixtureSampler")

    def state_dict(self) -> dict[str, Any]:
        """Give all that a later run needs to continue, as plain data: None, numbers, strings, tensors, lists, dicts.

        It is a copy: later draws do not change it.
        """
        raise NotImplementedError("MixtureSampler")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood; it had the same sources and weights, but any seed.

        `state` is not changed, then or later, and can be loaded again.
        """
        raise NotImplementedError("MixtureSampler")


# %% [markdown]
# ## 9.6 minhash, lsh_candidates, dedup
#
# The web repeats itself. Finding near-copies among n documents must not take n times n comparisons. Given: the shingles
# of a text, which are its runs of three words, and their Jaccard similarity.


# %%
def shingles(text: str, n: int = 3) -> set[str]:
    """Give the runs of n words of a text; a text of fewer words is one run."""
    words = text.split()
    return {" ".join(words[i : i + n]) for i in range(max(len(words) - n + 1, 1))}


# %%
def jaccard(a: set[str], b: set[str]) -> float:
    """Give the size of the intersection over the size of the union of two sets that are not both empty."""
    return len(a & b) / len(a | b)


# %%
def minhash(shingles: set[str], K: int, seed: int = 0) -> list[int]:
    """Sketch a set by K integers of which two sets share the fraction that their Jaccard similarity predicts.

    Args:
        shingles: a set of texts, not empty.
        K: length of the signature.
        seed: another seed gives other hash functions.

    Returns:
        K ints: entry k is the smallest value of hash function k over the set.

    Raises:
        ValueError: if the set is empty.

    Example:
        >>> a, b = minhash({"a", "b", "c"}, K=1000), minhash({"b", "c", "d"}, K=1000)
        >>> 0.4 < sum(x == y for x, y in zip(a, b)) / 1000 < 0.6  # the Jaccard similarity is 2 / 4
        True

    Notes:
        Entry k of two signatures agrees with probability J, for each k anew. So there must be K hash functions, which
        order the texts independently of each other, with values that practically never collide. The texts, K and the
        seed alone decide. Python's hash() will not do: for texts it differs from process to process, and two machines
        could never compare their signatures.
    """
    raise NotImplementedError("minhash")


# %%
def lsh_candidates(sigs: Sequence[Sequence[int]], bands: int) -> set[tuple[int, int]]:
    """Find the pairs of signatures that agree on at least one whole band.

    Args:
        sigs: signatures of one length K.
        bands: the number b of bands; band number m holds entries m * K / b up to (m + 1) * K / b - 1.

    Returns:
        The pairs (i, j) with i < j for which some band of signature i equals the *same* band of signature j.

    Raises:
        ValueError: if b does not divide K.

    Example:
        >>> sorted(lsh_candidates([[1, 2, 3, 4], [1, 2, 9, 9], [3, 4, 9, 9]], bands=2))
        [(0, 1), (1, 2)]

    Notes:
        Put signatures into buckets and pair up what shares one: comparing all pairs of thousands of signatures in turn
        takes too long. No signatures give no pairs.
    """
    raise NotImplementedError("lsh_candidates")


# %%
def dedup(docs: Sequence[str], threshold: float = 0.8) -> list[int]:
    """Keep one document of each cluster of near-duplicates.

    Args:
        docs: texts.
        threshold: two documents are near-duplicates if the Jaccard similarity of their shingles reaches it; it lies
            between 0.5 and 1.

    Returns:
        The indices of the documents that are kept, ascending: the first document of each cluster.

    Example:
        >>> dedup(["a b c d e", "f g h i j", "a b c d e"])
        [0, 1]

    Notes:
        Clusters are transitive: if a resembles b and b resembles c, then all three are one cluster, even if a and c do
        not resemble each other. Candidates may be found by chance alone, so the exact similarity decides. But a pair
        that no band brings together is lost: use few rows a band, so that a pair at the threshold is missed with a
        probability of 1e-7 at most.
    """
    raise NotImplementedError("dedup")


# %% [markdown]
# ## 9.7 ring_all_reduce, zero_memory, pipeline_bubble
#
# Many machines hold a copy of the model each, and all must add up their gradients. In a ring no machine sends more
# than twice its own gradient, however many there are. Given: a wire that delivers what it is given.


# %%
def wire(src: int, dst: int, chunk: Tensor) -> Tensor:
    """Carry a chunk from machine src to machine dst: give it as it arrives."""
    return chunk.clone()


# %%
def ring_all_reduce(
    buffers: Sequence[Tensor], send: Callable[[int, int, Tensor], Tensor] = wire
) -> tuple[list[Tensor], int]:
    """Give every machine the sum of all buffers, by messages between neighbours on a ring.

    Args:
        buffers: W tensors (n,) of one dtype, one for each machine; n need not be divisible by W.
        send: send(src, dst, chunk) carries a 1-d chunk and gives it as it arrives at dst.

    Returns:
        The W buffers after the last message, as new tensors, each the sum; and the number of elements sent, all
        messages together, which is 2 (W - 1) n.

    Example:
        >>> sums, sent = ring_all_reduce([torch.tensor([1, 2, 3]), torch.tensor([10, 20, 30])])
        >>> sums, sent
        ([tensor([11, 22, 33]), tensor([11, 22, 33])], 6)

    Notes:
        All that a machine learns of another comes through send, and dst is always (src + 1) % W. Cut the n places into
        W chunks of ceil(n / W) or fewer. Two phases: in W - 1 rounds a machine *adds* what arrives to its own chunk, so
        that each chunk is complete on one machine; in W - 1 more rounds it *replaces* its own by what arrives. In each
        phase a machine sends W - 1 of the chunks, each once; one of no elements may be left out. A single machine sends
        nothing. The buffers given are not changed.
    """
    raise NotImplementedError("ring_all_reduce")


# %%
def zero_memory(n_params: int, world: int, stage: int) -> float:
    """Give the bytes that each machine needs for weights, gradients and optimiser states under ZeRO.

    Args:
        n_params: parameters N of the model.
        world: number of machines W.
        stage: 0 shards nothing, 1 the optimiser states, 2 also the gradients, 3 also the weights.

    Returns:
        Bytes of one machine.

    Raises:
        ValueError: if the stage is not 0, 1, 2 or 3.

    Example:
        >>> [zero_memory(1000, world=4, stage=s) for s in range(4)]
        [16000.0, 7000.0, 5500.0, 4000.0]

    Notes:
        Mixed-precision Adam: 2 bytes a parameter for the weight, 2 for the gradient, and 12 for the states (a 4-byte
        copy of the weight and two 4-byte means). What is sharded costs a machine 1 / W of that.
    """
    raise NotImplementedError("zero_memory")


# %%
def pipeline_bubble(p: int, m: int) -> float:
    """Give the share of the time in which a machine of a pipeline is idle.

    Args:
        p: number of stages, each on a machine of its own.
        m: number of micro-batches that pass through, one after another, between two updates.

    Returns:
        Idle time over all time. All stages take equally long, so the last micro-batch leaves after m + p - 1 slots,
        while each machine works in m of them.

    Example:
        >>> pipeline_bubble(p=4, m=12)
        0.2
    """
    raise NotImplementedError("pipeline_bubble")


# %% [markdown]
# ## 9.8 training_cost
#
# Before the first step: how long will it take, and what will it cost?


# %%
def training_cost(
    n_params: float, n_tokens: float, peak_flops: float, mfu: float, price_per_hour: float, gpus: int
) -> dict[str, float]:
    """Estimate the time and the price of a training run.

    Args:
        n_params: parameters N.
        n_tokens: tokens D that are trained on.
        peak_flops: operations that one GPU could do in a second.
        mfu: model FLOPs utilisation: the share of the peak that is reached, 0 < mfu <= 1.
        price_per_hour: price of one GPU for an hour.
        gpus: how many work at the same time.

    Returns:
        {"days": wall-clock time in days, "usd": price of all GPUs together, "gpu_hours": hours summed over the GPUs}.

    Raises:
        ValueError: if mfu is not above 0 or exceeds 1.

    Example:
        >>> cost = training_cost(1e9, 2e10, peak_flops=1e15, mfu=0.4, price_per_hour=2.0, gpus=10)
        >>> {name: round(value, 3) for name, value in cost.items()}
        {'days': 0.347, 'usd': 166.667, 'gpu_hours': 83.333}

    Notes:
        Training takes 6 N D operations: 2 N D forward and 4 N D backward.
    """
    raise NotImplementedError("training_cost")


# %% [markdown]
# ## 9.9 train_tiny_gpt
#
# Your pieces train a model. The model is given, since it is chapter 7's subject; so are its configuration and the way a
# loss is measured on text that was held out.


# %%
@dataclass(frozen=True)
class Config:
    """Sizes of the model and settings of its training."""

    vocab: int
    context: int = 32
    width: int = 32
    layers: int = 2
    heads: int = 2
    batch: int = 16  # windows in a micro-batch
    micro: int = 2  # micro-batches in a step
    max_lr: float = 1e-2
    min_lr: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.1
    max_norm: float = 1.0


# %%
class TinyGPT(nn.Module):
    """A causal transformer from ids (B, T), T <= cfg.context, to logits (B, T, vocab); the seed decides its weights."""

    def __init__(self, cfg: Config, seed: int) -> None:
        super().__init__()
        self.cfg = cfg
        D = cfg.width
        self.token = nn.Embedding(cfg.vocab, D)
        self.position = nn.Embedding(cfg.context, D)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm_a": nn.LayerNorm(D),
                    "qkv": nn.Linear(D, 3 * D, bias=False),
                    "out": nn.Linear(D, D, bias=False),
                    "norm_f": nn.LayerNorm(D),
                    "up": nn.Linear(D, 4 * D),
                    "down": nn.Linear(4 * D, D),
                }
            )
            for _ in range(cfg.layers)
        )
        self.norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, cfg.vocab, bias=False)
        rng = torch.Generator().manual_seed(seed)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.05, generator=rng)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, ids: Tensor) -> Tensor:
        B, T = ids.shape
        x = self.token(ids) + self.position(torch.arange(T))  # (B, T, D)
        for layer in self.layers:
            q, k, v = layer["qkv"](layer["norm_a"](x)).view(B, T, 3, self.cfg.heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, H, T, hd)
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["down"](F.gelu(layer["up"](layer["norm_f"](x))))
        return self.head(self.norm(x))  # (B, T, vocab)


# %%
@torch.no_grad()
def held_out_loss(model: nn.Module, ids: np.ndarray, context: int) -> float:
    """Give the mean loss, in nats an id, over windows that lie side by side in ids; a rest at the end is dropped."""
    rows = (len(ids) - 1) // context
    x = torch.from_numpy(ids[: rows * context].astype(np.int64)).view(rows, context)
    y = torch.from_numpy(ids[1 : rows * context + 1].astype(np.int64)).view(rows, context)
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()


# %%
def train_tiny_gpt(cfg: Config, ids: np.ndarray, steps: int, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """Train a TinyGPT with your own pieces, and measure it on the last tenth of the corpus.

    Args:
        cfg: sizes and settings.
        ids: (n,) integer array, the corpus.
        steps: number of updates.
        seed: decides the first weights and all batches.

    Returns:
        The trained model, and its history: {"loss": [...], "lr": [...], "norm": [...], "held_out": float}.

    Notes:
        Train on the first int(0.9 * n) ids alone; the rest is held out. The model is TinyGPT(cfg, seed), and
        torch.Generator().manual_seed(seed) is the rng of all calls of get_batch. Step t = 0, 1, ...:
            cfg.micro calls get_batch(..., cfg.batch, cfg.context, rng); accumulate with the sum of the cross-entropies;
            clip_grad_norm over all gradients to cfg.max_norm; AdamW's step, on all parameters, with its default betas
            and eps, cfg.weight_decay, and the rate lr_at(t, cfg.max_lr, cfg.min_lr, cfg.warmup, steps).
        The lists have an entry for each step: the mean loss *before* the update, as accumulate gives it, the rate, and
        the length of the gradient before clipping. "held_out" is held_out_loss of the trained model on the rest. The
        same arguments give the same history, whatever the state of torch's global generator.
    """
    raise NotImplementedError("train_tiny_gpt")
