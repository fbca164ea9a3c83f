"""What the figure of chapter 15 computes and says, held against the reference."""

import torch
from torch import nn

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
LLAMA = {"vocab_size": 32000, "d_model": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "d_ff": 11008}
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVEN = torch.linspace(-1, 1, 16, dtype=torch.float64)


def nearest(block, levels):
    """Round a block to the nearest level times its absmax, by looking at all of them."""
    absmax = block.abs().max()
    codes = (block[:, None] / absmax - levels).abs().argmin(1)
    return {"codes": codes, "back": levels[codes] * absmax}


def spread(first):
    """Give the figure's block of evenly spread numbers, the first one replaced."""
    block = (4 * torch.arange(64, dtype=torch.float64) + 2) / 64 - 2
    block[0] = first
    return block


@mirror("update")
def update(rng):
    r, alpha = int(rng.integers(1, 5)), float(rng.uniform(1)) + 1
    A, B = rng.normal(4, 6), rng.normal(5, 4)
    layer = reference.LoRALinear(nn.Linear(6, 5, bias=False, dtype=torch.float64), r, alpha)
    with torch.no_grad():
        layer.base.weight.zero_()
        layer.A.copy_(A[:r])
        layer.B.copy_(B[:, :r])
    layer.merge()
    return [A, B, r, alpha], layer.base.weight


@mirror("rank")
def rank(rng):
    r = int(rng.integers(0, 6))
    matrix = rng.normal(7, r) @ rng.normal(r, 5)
    return [matrix], torch.linalg.matrix_rank(matrix)


@mirror("fraction")
def fraction(rng):
    heads, r = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    cfg = {
        "vocab_size": 1000,
        "d_model": 16 * heads,
        "n_layers": 3,
        "n_heads": 2 * heads,
        "n_kv_heads": heads,
        "d_ff": 99,
    }
    targets = [SEVEN[i] for i in rng.permutation(7)[: int(rng.integers(0, 8))]]
    return [cfg, targets, r], reference.trainable_fraction(cfg, targets, r)


@mirror("levels")
def levels_of_nf4(rng):
    return ["nf4"], reference.nf4_codebook().double()


@mirror("levels")
def levels_that_are_even(rng):
    return ["even"], EVEN


@mirror("quantize")
def quantize_to_nf4(rng):
    block = rng.normal(64)
    codes, absmax = reference.quantize_nf4(block)
    expected = {"codes": codes, "back": reference.dequantize_nf4(codes, absmax)}
    return [block, reference.nf4_codebook().double()], expected


@mirror("quantize")
def quantize_to_even_levels(rng):
    block = rng.normal(64)
    return [block, EVEN], nearest(block, EVEN)


@mirror("error")
def error(rng):
    x, back = rng.normal(2, 9)
    return [x, back], ((x - back) ** 2).mean()


@shown(rank=6, layers="seven")
def six_on_all_seven():
    share = 100 * reference.trainable_fraction(LLAMA, SEVEN, 6)
    return (
        f"A and B hold 96 numbers where W holds 64; on all seven projections of Llama-2-7B rank 6 trains {share:.3f} %"
    )


@shown(data="uniform", outlier=1.75, levels="even")
def even_levels_suit_uniform_numbers():
    block = spread(1.75)
    codes, absmax = reference.quantize_nf4(block)
    nf4 = ((block - reference.dequantize_nf4(codes, absmax)) ** 2).mean()
    even = ((block - nearest(block, EVEN)["back"]) ** 2).mean()
    return f"16 of the 16 levels; its mean squared error is {nf4:.4f} with NF4 and {even:.4f} with even spacing."


@shown(data="uniform", outlier=12)
def an_outlier_leaves_few_levels():
    codes, _ = reference.quantize_nf4(spread(12.0))
    return f"The block uses {len(codes.unique())} of the 16 levels"
