"""What the figure of chapter 23 computes and says, held against the reference."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
MODEL = Path(__file__).parents[2] / "datasets/tiny_models/names.safetensors"
MODULE = (Path(__file__).parents[2] / "chapters" / Path(__file__).parent.name / "explore.js").read_text(
    encoding="utf-8"
)
TRUTH = torch.tensor(json.loads(re.search(r'"truth": (\[\[.*?\]\])', MODULE, re.DOTALL)[1]), dtype=torch.float64)
IDS = torch.tensor([[8, 3, 9, 5, 10, 11, 3, 12, 13]])  # start 3 and 5 met then 3 gave to
ANSWER, GIVER = 5, 3


def trained():
    """Give the model that completes sentences about two persons."""
    model = reference.TinyGPT(V=14, D=32, H=2, L=2, d_mlp=64, T_max=9)
    model.load_state_dict(load_file(MODEL))
    return model


def drawn(rng):
    """Give a random model, all of whose parameters matter, and ids."""
    model = reference.TinyGPT(V=7, D=6, H=2, L=2, d_mlp=5, T_max=4).double()
    for p in model.parameters():
        p.data = rng.normal(*p.shape)
    return model, rng.integers(0, 7, 1, 4)


def parts_of(model, ids):
    """Give what each component writes at the last position, by the names of the attribution, without "bias"."""
    seen = {}
    sites = [name for name, _ in model.named_modules() if name]
    reference.run_with_hooks(model, ids, {site: lambda x, site=site: seen.update({site: x}) for site in sites})
    parts = {"tokens": seen["tokens"][0, -1], "positions": seen["positions"][-1]}
    for layer, block in enumerate(model.blocks):
        W_o, z = block.attn.W_o, seen[f"blocks.{layer}.attn.heads"][0, :, -1]  # z: (H, hd)
        for h, columns in enumerate(W_o.weight.chunk(len(z), dim=1)):
            parts[f"blocks.{layer}.head.{h}"] = columns @ z[h]
        parts[f"blocks.{layer}.attn.bias"] = W_o.bias
        parts[f"blocks.{layer}.mlp"] = seen[f"blocks.{layer}.mlp"][0, -1] - block.mlp[-1].bias
        parts[f"blocks.{layer}.mlp.bias"] = block.mlp[-1].bias
    return {name: part.detach() for name, part in parts.items()}


def norm_of(model):
    """Give the final norm as the figure takes it."""
    return {"weight": model.norm.weight.detach(), "bias": model.norm.bias.detach(), "eps": model.norm.eps}


@mirror("attribution")
def attribution(rng):
    model, ids = drawn(rng)
    expected = reference.direct_logit_attribution(model, ids, 4)
    u, b = model.unembed.weight[4].detach(), model.unembed.bias[4].item()
    return [list(parts_of(model, ids).values()), norm_of(model), u, b], [x[0, -1].item() for x in expected.values()]


@mirror("lens")
def lens(rng):
    model, ids = drawn(rng)
    states = []
    sites = ["embed", "blocks.0", "blocks.1"]
    reference.run_with_hooks(model, ids, dict.fromkeys(sites, states.append))
    layer = int(rng.integers(0, 3))
    unembed = [model.unembed.weight.detach(), model.unembed.bias.detach()]
    return [states[layer][0, -1], norm_of(model), *unembed], reference.logit_lens(model, ids)[layer, 0, -1]


@mirror("dimensionality")
def dimensionality(rng):
    W = rng.normal(2, 6)
    W[:, 2] = 0
    return [W], reference.feature_dimensionality(W)


@mirror("along")
def along(rng):
    W = rng.normal(2, 6)
    return [W, 3], torch.nn.functional.normalize(W[:, 3], dim=0) @ W


def silenced(model, layer, head=None):
    """Give the logits at the end when a head, or what an MLP writes beyond its bias, is silenced."""
    if head is not None:
        return reference.ablate_head(model, IDS, layer, head)[0, -1]
    bias = model.blocks[layer].mlp[-1].bias
    return reference.run_with_hooks(model, IDS, {f"blocks.{layer}.mlp": lambda x: bias.expand_as(x)})[0, -1]


def effect(name, logits):
    """Say what a part writes to the difference of the two logits, and what silencing it does."""
    model = trained()
    written = [reference.direct_logit_attribution(model, IDS, v)[name][0, -1].item() for v in (ANSWER, GIVER)]
    before = model(IDS)[0, -1]
    return (
        f"writes {signed(written[0] - written[1])} of the {signed(before[ANSWER] - before[GIVER])}. "
        f"Silenced, it leaves {signed(logits[ANSWER] - logits[GIVER])}"
    )


def signed(value):
    """Give one decimal and a sign."""
    return f"{value:+.1f}".replace("-", "−")


@shown(panel="parts", part="blocks.1.head.0", logit="difference")
def the_head_that_decides():
    return effect("blocks.1.head.0", silenced(trained(), 1, 0))


@shown(panel="parts", part="blocks.0.head.0", logit="difference")
def a_head_that_prepares():
    return effect("blocks.0.head.0", silenced(trained(), 0, 0))


@shown(panel="parts", part="blocks.1.mlp", logit="difference")
def an_mlp():
    return effect("blocks.1.mlp", silenced(trained(), 1))


@shown(panel="toy", sparsity=0, feature=2)
def without_sparsity_the_first_two_are_kept():
    return toy(0, 2)


@shown(panel="toy", sparsity=4, feature=1)
def a_pentagon_when_features_are_rare():
    return toy(0.95, 1)


def toy(sparsity, feature):
    """Say how many features the toy model of the notes keeps, and how much room one of them has."""
    W = reference.toy_superposition(6, 2, sparsity, 600, seed=1)
    kept = int((W.norm(dim=0) > 0.5).sum())
    share = reference.feature_dimensionality(W)[feature - 1]
    return f"keeps {kept} of 6 features in 2 neurons; feature {feature} has {share:.2f} of a dimension."


def autoencoder(rng):
    """Give a random sparse autoencoder, and its parameters by name."""
    sae = reference.SparseAutoencoder(4, 7).double()
    for p in sae.parameters():
        p.data = rng.normal(*p.shape)
    return sae, {name: p.detach() for name, p in sae.named_parameters()}


@mirror("encode")
def encode(rng):
    sae, parameters = autoencoder(rng)
    x = rng.normal(4)
    return [x, parameters], sae.encode(x).detach()


@mirror("decode")
def decode(rng):
    sae, parameters = autoencoder(rng)
    f = rng.uniform(7)
    return [f, parameters], sae.decode(f).detach()


@mirror("alignment")
def alignment(rng):
    planted, found = rng.normal(3, 4), rng.normal(5, 4)
    return [planted, found], torch.nn.functional.cosine_similarity(planted[:, None], found[None], dim=-1)


def found(l1):
    """Train on sums of the planted directions as the notes do, and round the parameters as the figure has them."""
    rng = torch.Generator().manual_seed(4)
    sae = reference.SparseAutoencoder(5, 10, seed=4)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    for step in range(700):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1, 2 - step / 350)
        present = torch.rand(256, 8, generator=rng) < 0.1
        x = (present * torch.rand(256, 8, generator=rng)) @ TRUTH.float()
        optimizer.zero_grad()
        sae.loss(x, l1).backward()
        optimizer.step()
        sae.renorm_decoder()
    sae = sae.double()
    for p in sae.parameters():
        p.data = (100 * p.data).round() / 100
    return sae


def recovered(l1, feature):
    """Say how many of the planted directions are found, and what the codes of one of them are."""
    sae, x = found(l1), TRUTH[feature - 1]
    cosines = torch.nn.functional.cosine_similarity(TRUTH[:, None], sae.W_dec[None], dim=-1)
    f = sae.encode(x)
    error = ((x - sae.decode(f)) ** 2).sum() / (x**2).sum()
    right, active = int((cosines.amax(1) > 0.9).sum()), int((f > 0.05).sum())
    return (
        f"With λ = {l1:.2f}, {right} of 8 planted directions are found, with a cosine above 0.9. "
        f"For planted feature {feature} alone, with strength 1, codes above 0.05: {active}, "
        f"the largest: {f.max():.2f}, relative error: {error:.3f}."
    )


@shown(panel="sae", penalty=0, planted=1)
def without_a_penalty_nothing_is_found():
    return recovered(0, 1)


@shown(panel="sae", penalty=3, planted=2)
def with_a_penalty_the_truth_is_found():
    return recovered(0.2, 2)


@shown(panel="sae", penalty=5, planted=5)
def a_large_penalty_makes_the_codes_small():
    return recovered(0.8, 5)
