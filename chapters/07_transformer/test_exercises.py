"""Self-checks of chapter 7: worked examples and the laws that teach."""

import math

import torch
from torch.nn import functional as F

from grader.testing import close, driver, exact, exercise, holds

SMALL = {
    "vocab_size": 11, "T_max": 8, "d_model": 12, "n_layers": 2, "n_heads": 3, "n_kv_heads": 3, "d_ff": 48,
    "positions": "learned", "norm": "layer", "ffn": "gelu", "bias": True, "tied": True,
}  # fmt: skip
LLAMA_LIKE = SMALL | {"positions": "rope", "norm": "rms", "ffn": "swiglu", "bias": False, "tied": False, "d_ff": 32}


@exercise("layer_norm")
def test_layer_norm_of_four_numbers(exercises):
    """The vector 1, 3, 5, 7 has mean 4 and variance 5."""
    x = torch.tensor([1.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    gamma, beta = torch.tensor([1.0, 1.0, 2.0, 1.0]).double(), torch.tensor([0.0, 0.5, 0.0, 0.0]).double()
    expected = gamma * (x - 4) / math.sqrt(5 + 0.01) + beta
    close(exercises.layer_norm(x, gamma, beta, eps=0.01), expected, "layer_norm of (1, 3, 5, 7) with eps = 0.01")


@exercise("layer_norm")
def test_layer_norm_gives_mean_zero_and_variance_one(exercises, rng):
    """Each vector comes out with mean 0 and mean square 1."""
    x = 5 + 3 * rng.normal(2, 3, 8)
    got = exercises.layer_norm(x, torch.ones(8).double(), torch.zeros(8).double(), eps=1e-15)
    close(got.mean(-1), torch.zeros(2, 3).double(), "the means after layer_norm")
    close(got.square().mean(-1), torch.ones(2, 3).double(), "the mean squares after layer_norm")


@exercise("rms_norm")
def test_rms_norm_of_four_numbers(exercises):
    """The vector 3, -4, 0, 0 has the root mean square 2.5."""
    x = torch.tensor([3.0, -4.0, 0.0, 0.0], dtype=torch.float64)
    gamma = torch.tensor([1.0, 0.5, 1.0, 1.0]).double()
    close(exercises.rms_norm(x, gamma, eps=0.0), gamma * x / 2.5, "rms_norm of (3, -4, 0, 0) with eps = 0")


@exercise("rms_norm")
def test_rms_norm_in_float16(exercises):
    """Entries of 300 survive, though their squares do not fit into float16."""
    x = torch.tensor([300.0, -300.0, 300.0, 300.0], dtype=torch.float16)
    close(exercises.rms_norm(x, torch.ones(4).half()), torch.sign(x), "rms_norm of float16 entries of size 300")


@exercise("gelu_tanh")
def test_gelu_between_off_and_on(exercises):
    """It is PyTorch's tanh form, which is not its exact one."""
    x = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0], dtype=torch.float64)
    close(exercises.gelu_tanh(x), F.gelu(x, approximate="tanh"), "gelu_tanh between -3 and 2")


@exercise("gelu_tanh")
def test_feed_forward_works_on_each_token_alone(exercises, rng):
    """Reversing the tokens reverses the outputs."""
    ffn, x = exercises.FeedForward(6, 10).double(), rng.normal(2, 5, 6)
    close(ffn(x.flip(1)), ffn(x).flip(1), "FeedForward of the tokens in reverse")


@exercise("swiglu")
def test_swiglu_of_one_number(exercises):
    """With x = 1, gate 1 and value 3, it is 3 times silu(1)."""
    x, one, three = torch.tensor([1.0]).double(), torch.tensor([[1.0]]).double(), torch.tensor([[3.0]]).double()
    expected = torch.tensor([3 / (1 + math.exp(-1))], dtype=torch.float64)
    close(exercises.swiglu(x, one, one, three), expected, "swiglu of one number")


@exercise("swiglu")
def test_swiglu_hidden_keeps_the_size(exercises):
    """Three matrices of width F hold at least the numbers of two of width 4 D."""
    for D, multiple_of in ((768, 64), (100, 1), (6, 8)):
        width = exercises.swiglu_hidden(D, multiple_of)
        exact(width % multiple_of, 0, f"swiglu_hidden({D}, {multiple_of}), what is left after division")
        holds(8 * D * D <= 3 * width * D < 8 * D * D + 3 * multiple_of * D, f"The width {width} is the next multiple.")


@exercise("TransformerBlock")
def test_block_is_two_sums(exercises, rng):
    """The block adds attention of the norm, then ffn of the norm."""
    x = 3 * rng.normal(2, 5, 12)
    for cfg in (SMALL, LLAMA_LIKE):
        block = exercises.TransformerBlock(cfg).double()
        h = x + block.attention(block.norm1(x))
        close(block(x), h + block.ffn(block.norm2(h)), "the block, against its own parts")


@exercise("GPT")
def test_gpt_sees_no_future(exercises):
    """Changing the last token leaves all earlier logits alone."""
    model = exercises.GPT(SMALL).double()
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    before = model(ids)
    exact(tuple(before.shape), (2, 4, 11), "the shape of the logits")
    ids[:, 3] = 9
    close(model(ids)[:, :3], before[:, :3], "the logits before the changed token")


@exercise("GPT")
def test_gpt_is_its_parts_in_a_row(exercises):
    """Table, positions, blocks under a causal mask, norm, head."""
    ids, past = torch.tensor([[1, 2, 3, 4, 2]]), torch.ones(5, 5).tril().bool()
    for cfg in (SMALL, LLAMA_LIKE):
        model = exercises.GPT(cfg).double()
        x = model.embedding(ids)
        if cfg["positions"] == "learned":
            x = x + model.positions(torch.arange(5))
        for i in range(cfg["n_layers"]):
            x = model.blocks[i](x, past)
        close(model(ids), model.head(model.norm(x)), "the logits, against the model's own parts")


@driver
def size_of(module, cfg):
    """The number of parameters of a GPT, shared ones once."""
    return sum(p.numel() for p in module.GPT(cfg).parameters())


@exercise("count_parameters")
def test_count_is_that_of_a_small_model(exercises):
    """The formula agrees with counting the parameters of your own GPT."""
    for cfg in (SMALL, LLAMA_LIKE):
        exact(exercises.count_parameters(cfg)["total"], exercises.run(size_of, cfg), "the total of a small model")


@exercise("count_parameters")
def test_count_by_hand(exercises):
    """One layer of width 2 without biases: 16 for attention, 32 for ffn."""
    cfg = LLAMA_LIKE | {"d_model": 2, "n_heads": 1, "n_kv_heads": 1, "d_ff": 8, "ffn": "gelu", "n_layers": 1}
    parts = {
        "embedding": 11 * 2,
        "positions": 0,
        "attention": 4 * 2 * 2,
        "ffn": 2 * 2 * 8,
        "norm": 3 * 2,
        "head": 11 * 2,
    }
    exact(exercises.count_parameters(cfg), parts | {"total": sum(parts.values())}, "count_parameters of a tiny model")


@driver
def spreads(module, cfg):
    """Standard deviations after init_weights: of the head, and of all matrices that end a branch."""
    import torch

    model = module.GPT(cfg)
    module.init_weights(model)
    ends = [w.weight.detach().flatten() for block in model.blocks for w in (block.attention.W_o, block.ffn.down)]
    return float(model.head.weight.detach().std()), float(torch.cat(ends).std())


@exercise("init_weights")
def test_init_scales_by_depth(exercises):
    """With 8 layers the branches end a quarter as large as the rest."""
    cfg = SMALL | {"vocab_size": 500, "d_model": 48, "n_layers": 8, "d_ff": 96}
    head, ends = exercises.run(spreads, cfg)
    # more than 20 000 numbers each: the deviations are good to three percent beyond any doubt
    holds(abs(head / 0.02 - 1) < 0.03, "The head has the deviation std, 0.02 unless told otherwise.")
    holds(abs(ends / 0.005 - 1) < 0.03, "W_o and down have the deviation 0.02 / sqrt(2 * 8) = 0.005.")
