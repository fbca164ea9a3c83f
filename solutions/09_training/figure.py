"""What the figure of chapter 9 computes and says, held against the reference."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
CHAIN = torch.tensor(
    [
        [0.05, 0.7, 0.1, 0.05, 0.05, 0.05],
        [0.1, 0.05, 0.6, 0.15, 0.05, 0.05],
        [0.05, 0.1, 0.05, 0.4, 0.35, 0.05],
        [0.7, 0.1, 0.05, 0.05, 0.05, 0.05],
        [0.3, 0.05, 0.05, 0.5, 0.05, 0.05],
        [0.2, 0.2, 0.2, 0.2, 0.1, 0.1],
    ],
    dtype=torch.float64,
)


class Table(nn.Module):
    """A row of logits for each input."""

    def __init__(self, V):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(V, V, dtype=torch.float64))

    def forward(self, x):
        return self.p[x]


def frequencies_of(chain):
    """Solve for the shares that a step of the chain leaves as they are."""
    V = len(chain)
    equations = np.vstack([chain.numpy().T - np.eye(V), np.ones(V)])
    return torch.from_numpy(np.linalg.lstsq(equations, np.append(np.zeros(V), 1), rcond=None)[0])


def entropy_of(chain):
    return float((frequencies_of(chain) * torch.distributions.Categorical(chain).entropy()).sum())


def fresh_loss(table, chain, leak):
    shares, V = frequencies_of(chain), len(chain)
    inputs, targets = torch.arange(V).repeat_interleave(V), torch.arange(V).repeat(V)
    each = F.cross_entropy(table[targets if leak else inputs], targets, reduction="none")
    return float((each * (shares[:, None] * chain).flatten()).sum())


def trained(batches, V, max_lr, warmup, max_norm):
    """Train with the reference's own pieces."""
    model, total = Table(V), len(batches)
    optimizer = reference.AdamW(model.parameters(), betas=(0.9, 0.95))
    history = {"loss": [], "norm": [], "tables": [model.p.detach().clone()]}
    for step, pairs in enumerate(batches):
        optimizer.lr = reference.lr_at(step, max_lr, max_lr / 10, warmup, total)
        batch = [(pairs[:, 0], pairs[:, 1])]
        loss = reference.accumulate(model, batch, lambda z, y: F.cross_entropy(z, y, reduction="sum"))
        history["loss"].append(loss)
        history["norm"].append(reference.clip_grad_norm([model.p.grad], max_norm))
        optimizer.step()
        history["tables"].append(model.p.detach().clone())
    return history


def text_of_the_figure(batch, leak=False, bad=True):
    """Walk along the chain with the draws of the figure."""
    state, at, batches = (2654435761 ^ 0x5BD1E995) & 0xFFFFFFFF, 0, []
    for step in range(200):
        pairs = []
        for _ in range(batch):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            u, new = state / 2**32, 0
            while new < 5 and u >= float(CHAIN[at, new]):
                u, new = u - float(CHAIN[at, new]), new + 1
            x, y = (0, 5) if bad and step == 50 else (at, new)
            pairs.append((y if leak else x, y))
            at = new
        batches.append(torch.tensor(pairs))
    return batches


def chain_of(rng, V=4):
    raw = rng.uniform(V, V) + 0.1
    return raw / raw.sum(1, keepdim=True)


@mirror("frequencies")
def frequencies(rng):
    chain = chain_of(rng)
    return [chain], frequencies_of(chain)


@mirror("entropyRate")
def entropy_rate(rng):
    chain = chain_of(rng, 5)
    return [chain], entropy_of(chain)


@mirror("freshLoss")
def loss_on_fresh_text(rng):
    chain, table, leak = chain_of(rng), rng.normal(4, 4), bool(rng.integers(0, 2))
    return [table, chain, leak], fresh_loss(table, chain, leak)


@mirror("lossAndGradient")
def loss_and_gradient(rng):
    table, pairs = rng.normal(5, 5).requires_grad_(), rng.integers(0, 5, 9, 2)
    loss = F.cross_entropy(table[pairs[:, 0]], pairs[:, 1])
    loss.backward()
    return [table.detach(), pairs], {"loss": loss.item(), "gradient": table.grad}


@mirror("adamw")
def a_fourth_step_of_adamw(rng):
    p = rng.normal(3, 3).requires_grad_()
    optimizer = reference.AdamW([p], lr=0.1, betas=(0.8, 0.9), eps=0.01, weight_decay=0.2)
    for _ in range(4):
        p.grad = rng.normal(3, 3)
        before = {
            "p": p.detach().clone(),
            "m": optimizer.m[0].clone(),
            "v": optimizer.v[0].clone(),
            "t": optimizer.t[0],
        }
        optimizer.step()
    after = {"p": p.detach(), "m": optimizer.m[0], "v": optimizer.v[0], "t": 4}
    return [before, p.grad, 0.1, {"betas": [0.8, 0.9], "eps": 0.01, "decay": 0.2}], after


@mirror("lrAt")
def lr_at(rng):
    step, warmup = int(rng.integers(0, 60)), int(rng.integers(0, 20))
    return [step, 1.5, 0.2, warmup, 50], reference.lr_at(step, 1.5, 0.2, warmup, 50)


@mirror("clip")
def clip(rng):
    gradient, most = rng.normal(4, 4), float(8 * rng.uniform(1))
    clipped = gradient.clone()
    norm = reference.clip_grad_norm([clipped], most)
    return [gradient, most], {"norm": norm, "gradient": clipped}


@mirror("train")
def train(rng):
    batches = [rng.integers(0, 4, 6, 2) for _ in range(12)]
    settings = {"maxLr": 0.3, "minLr": 0.03, "warmup": 3, "maxNorm": 0.4}
    return [batches, 4, settings], trained(batches, 4, 0.3, 3, 0.4)


@mirror("mixtureWeights")
def mixture_weights(rng):
    sizes, temperature = (1000 * rng.uniform(4) + 1).tolist(), 0.5 + 5 * float(rng.uniform(1))
    return [sizes, temperature], reference.mixture_weights(sizes, temperature)


@shown(lr=3, warmup=20, batch=5, clip=1.5)
def the_recipe_reaches_the_floor():
    run, floor = trained(text_of_the_figure(32), 6, 0.1, 20, 1.5), entropy_of(CHAIN)
    end = fresh_loss(run["tables"][-1], CHAIN, leak=False)
    return (
        f"fresh text is {end:.3f}; the entropy of the text is {floor:.3f}, so it is {end - floor:.3f} above the floor."
    )


@shown(lr=4, warmup=0, batch=3, clip=0.2)
def the_bad_batch_is_clipped():
    runs = [trained(text_of_the_figure(8, bad=bad), 6, 0.3, 0, 0.2) for bad in (True, False)]
    bad, spared = ([fresh_loss(table, CHAIN, leak=False) for table in run["tables"]] for run in runs)
    cost = max(a - b for a, b in zip(bad, spared, strict=True))
    return f"length {runs[0]['norm'][50]:.2f}, clipped to 0.2, and it costs up to {cost:.3f} nats."


@shown(leak=True)
def too_good_to_be_true():
    run = trained(text_of_the_figure(32, leak=True), 6, 0.1, 20, 1.5)
    end = fresh_loss(run["tables"][-1], CHAIN, leak=True)
    return f"is {end:.3f}; the entropy of the text is {entropy_of(CHAIN):.3f}, so it is below the floor"


@shown(temperature=2)
def the_mixture_of_the_notes():
    share = reference.mixture_weights([900, 90, 10], 2)[2]
    return f"maths has the share {share:.3f} and is read {2000 * share / 10:.1f} times."
