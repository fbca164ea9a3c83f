"""What the figure of chapter 7 computes and says, held against the reference."""

import math

import torch
from torch import nn

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
SIZES = {"vocab_size": 6, "T_max": 5, "d_model": 8, "n_layers": 3, "n_heads": 1, "n_kv_heads": 1, "d_ff": 32}
CFG = SIZES | {"positions": "learned", "norm": "rms", "ffn": "gelu", "bias": False, "tied": False}


def number(value):
    return f"{float(value):.2f}".replace("-", "−")


def model_of(rng, layers=3):
    """Give a model with random weights, and its blocks as the figure holds them."""
    model = reference.GPT(CFG | {"n_layers": layers}).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.endswith("gamma"):
                p.copy_(0.4 * rng.normal(*p.shape))
    return model, [matrices(block) for block in model.blocks]


def matrices(block):
    attention = {name: getattr(block.attention, name).weight.detach() for name in ("W_q", "W_k", "W_v", "W_o")}
    return attention | {"up": block.ffn.up.weight.detach(), "down": block.ffn.down.weight.detach()}


def through(model, x):
    """Give the stream before, between and after the branches of all blocks."""
    mask = torch.ones(len(x), len(x), dtype=torch.bool).tril()
    streams = [x[None]]
    for block in model.blocks:
        network = block.ffn
        block.ffn = nn.Module()
        block.ffn.forward = torch.zeros_like
        streams.append(block(streams[-1], mask))  # the block without its network: what attention leaves
        block.ffn = network
        streams.append(block(streams[-2], mask))
    return [stream[0].detach() for stream in streams]


@mirror("rmsNorm")
def rms_norm(rng):
    x = 3 * rng.normal(7)
    return [x], reference.rms_norm(x, torch.ones(7, dtype=x.dtype))


@mirror("gelu")
def gelu(rng):
    x = 4 * rng.normal(1)
    return [x[0]], reference.gelu_tanh(x)[0]


@mirror("attention")
def attention(rng):
    model, blocks = model_of(rng, layers=1)
    x = rng.normal(5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()
    return [x, blocks[0]], model.blocks[0].attention(x[None], mask)[0].detach()


@mirror("river")
def river(rng):
    model, blocks = model_of(rng)
    x = rng.normal(5, 8)
    return [x, blocks], through(model, x)


@mirror("river")
def river_without_two_branches(rng):
    model, blocks = model_of(rng)
    x = rng.normal(5, 8)
    nn.init.zeros_(model.blocks[1].attention.W_o.weight)
    nn.init.zeros_(model.blocks[2].ffn.down.weight)
    blocks = [dict(block, W_o=block["W_o"] + 1, down=block["down"] + 1) for block in blocks]
    for block, own in zip(model.blocks, blocks, strict=True):  # what is left out must not matter
        if block is not model.blocks[1]:
            block.attention.W_o.weight.data = own["W_o"]
        if block is not model.blocks[2]:
            block.ffn.down.weight.data = own["down"]
    return [x, blocks, {"out": ["attention 2", "ffn 3"]}], through(model, x)


@mirror("river")
def river_of_branches_without_norms(rng):
    model, blocks = model_of(rng)
    for block in model.blocks:
        block.norm1 = block.norm2 = nn.Identity()
    x = 0.5 * rng.normal(5, 8)
    return [x, blocks, {"pre": False}], through(model, x)


@mirror("readOut")
def the_whole_model(rng):
    model, _ = model_of(rng)
    ids = rng.integers(0, 6, 5)
    last = through(model, model.embedding(ids) + model.positions.weight)[-1][-1]
    return [last, model.head.weight.detach(), True], model(ids[None])[0, -1].softmax(-1).detach()


@mirror("readOut")
def the_whole_model_without_its_last_norm(rng):
    model, _ = model_of(rng)
    model.norm = nn.Identity()
    ids = rng.integers(0, 6, 5)
    last = through(model, model.embedding(ids) + model.positions.weight)[-1][-1]
    return [last, model.head.weight.detach(), False], model(ids[None])[0, -1].softmax(-1).detach()


@mirror("shrunk")
def shrunk(rng):
    _, blocks = model_of(rng, layers=4)
    small = 1 / math.sqrt(2 * 4)
    return [blocks], [dict(block, W_o=small * block["W_o"], down=small * block["down"]) for block in blocks]


@mirror("size")
def size(rng):
    x = rng.normal(3, 5)
    return [x], x.square().mean().sqrt()


def draws_of_the_kit(seed):
    """Give a function that draws a tensor as the figure does: a linear congruence, made normal by Box and Muller."""
    state = ((seed * 2654435761) ^ 0x5BD1E995) & 0xFFFFFFFF

    def uniform():
        nonlocal state
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        return state / 2**32

    def normal():
        radius = math.sqrt(-2 * math.log(1 - uniform()))
        return radius * math.cos(2 * math.pi * uniform())

    return lambda rows, columns, std: torch.tensor(
        [[std * normal() for _ in range(columns)] for _ in range(rows)], dtype=torch.float64
    )


def fill(model, draw, std, shrink=1.0):
    D = model.cfg["d_model"]
    for block in model.blocks:
        for name, factor in (("W_q", 1), ("W_k", 1), ("W_v", 1), ("W_o", shrink)):
            getattr(block.attention, name).weight.data = factor * draw(D, D, std)
        block.ffn.up.weight.data = draw(4 * D, D, std)
        block.ffn.down.weight.data = shrink * draw(D, 4 * D, std)


def drawn_model():
    """Give the model of the figure at its seed 1, and the stream that enters its first block."""
    model, draw = reference.GPT(CFG).double(), draws_of_the_kit(1)
    fill(model, draw, 0.4)
    model.head.weight.data = draw(6, 8, 0.4)
    return model, draw(6, 8, 0.6)[:4]


def text_of(model, streams):
    first, last = (stream[-1].square().mean().sqrt() for stream in (streams[0], streams[-1]))
    chances = model.head(model.norm(streams[-1]))[-1].softmax(-1).detach()
    token = ["the", "cat", "saw", "a", "dog", "run"][chances.argmax()]
    sizes = f"the size {number(first)} at first and {number(last)} at the end"
    return f"{sizes}; the next token is “{token}” with probability {number(chances.max())}."


@shown(seed=1)
def the_whole_river():
    model, x = drawn_model()
    return text_of(model, through(model, x))


@shown(seed=1, out="ffn 2", last=False)
def without_a_network_and_the_last_norm():
    model, x = drawn_model()
    nn.init.zeros_(model.blocks[1].ffn.down.weight)
    model.norm = nn.Identity()
    return text_of(model, through(model, x))


@shown(seed=1, blocks=8)
def a_deep_stack():
    cfg = CFG | {"n_layers": 8, "d_model": 16, "d_ff": 64}
    sizes = []
    for shrink in (1.0, 1 / math.sqrt(2 * 8)):
        model, draw = reference.GPT(cfg).double(), draws_of_the_kit(1)
        x = draw(4, 16, 0.03)
        fill(model, draw, 0.08, shrink)
        sizes.append(number(through(model, x)[-1].square().mean().sqrt()))
    return f"A new stack of 8 blocks ends at {sizes[0]}, and with 1/√(2L) at {sizes[1]}."
