"""Wrong answers of chapter 7 that people really give, each with the sentence that sets them right."""

import math

import torch
from torch import nn
from torch.nn import functional

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def moments(x, dim=-1):
    """The mean, and the variance divided by the number of entries."""
    return x.mean(dim, keepdim=True), x.var(dim, correction=0, keepdim=True)


# -- layer_norm


@misconception("layer_norm", "Your variance is divided by D - 1; a layer norm divides the squared deviations by D.")
def unbiased_variance(x, gamma, beta, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    variance = (x - mean).square().sum(-1, keepdim=True) / max(x.shape[-1] - 1, 1)
    return gamma * (x - mean) / torch.sqrt(variance + eps) + beta


@misconception("layer_norm", "You add eps to the standard deviation; it belongs to the variance, under the root.")
def eps_outside_the_root(x, gamma, beta, eps=1e-5):
    mean, variance = moments(x)
    return gamma * (x - mean) / (variance.sqrt() + eps) + beta


@misconception(
    "layer_norm", "You leave out eps, so that a vector of equal entries becomes 0 / 0; add it to the variance."
)
def no_eps(x, gamma, beta, eps=1e-5):
    mean, variance = moments(x)
    return gamma * (x - mean) / variance.sqrt() + beta


@misconception("layer_norm", "You normalise over the first axis; each vector is normalised by itself, along the last.")
def over_the_batch(x, gamma, beta, eps=1e-5):
    mean, variance = moments(x, 0)
    return gamma * (x - mean) / torch.sqrt(variance + eps) + beta


@misconception("layer_norm", "You normalise all vectors together; take mean and variance along the last axis only.")
def over_everything(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean()) / torch.sqrt(x.var(correction=0) + eps) + beta


@misconception("layer_norm", "The shift is missing: add beta after scaling by gamma.")
def beta_missing(x, gamma, beta, eps=1e-5):
    mean, variance = moments(x)
    return gamma * (x - mean) / torch.sqrt(variance + eps)


@misconception("layer_norm", "You divide by the variance; divide by its square root, the standard deviation.")
def divides_by_the_variance(x, gamma, beta, eps=1e-5):
    mean, variance = moments(x)
    return gamma * (x - mean) / (variance + eps) + beta


@misconception(
    "layer_norm",
    "The mean of squares minus the square of the mean loses all digits when the mean is large; subtract it first.",
)
def cancels(x, gamma, beta, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    variance = x.square().mean(-1, keepdim=True) - mean.square()
    return gamma * (x - mean) / torch.sqrt(variance.clamp(min=0) + eps) + beta


# -- rms_norm


@misconception("rms_norm", "You subtract the mean first; an RMS norm centres nothing.")
def centres(x, gamma, eps=1e-6):
    return reference.rms_norm(x - x.mean(-1, keepdim=True), gamma, eps)


@misconception("rms_norm", "You add eps after the root; it belongs to the mean square, under the root.")
def rms_eps_outside(x, gamma, eps=1e-6):
    wide = x if x.dtype == torch.float64 else x.float()
    return (gamma * wide / (wide.square().mean(-1, keepdim=True).sqrt() + eps)).to(x.dtype)


@misconception(
    "rms_norm", "You square in half precision: 300 squared is infinity there. Compute in float32, cast the result back."
)
def squares_in_half(x, gamma, eps=1e-6):
    return gamma * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


@misconception("rms_norm", "You narrow float64 to float32 and lose half its digits; widen only what is narrower.")
def always_float32(x, gamma, eps=1e-6):
    wide = x.float()
    return (gamma * wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype)


@misconception("rms_norm", "Your result stays in float32; cast it back to the dtype of x.")
def stays_wide(x, gamma, eps=1e-6):
    wide = x if x.dtype == torch.float64 else x.float()
    return gamma * wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + eps)


@misconception(
    "rms_norm", "x.float() of a float32 tensor is x itself: your in-place product writes into the caller's tensor."
)
def in_place_on_the_input(x, gamma, eps=1e-6):
    wide = x if x.dtype == torch.float64 else x.float()
    wide *= torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return (gamma * wide).to(x.dtype)


@misconception("rms_norm", "You divide by the root of the sum; it must be the mean of the squares.")
def sum_of_squares(x, gamma, eps=1e-6):
    wide = x if x.dtype == torch.float64 else x.float()
    return (gamma * wide / torch.sqrt(wide.square().sum(-1, keepdim=True) + eps)).to(x.dtype)


@misconception("rms_norm", "You leave out eps, so that a vector of zeros becomes 0 / 0; add it to the mean square.")
def rms_without_eps(x, gamma, eps=1e-6):
    return reference.rms_norm(x, gamma, 0.0)


@misconception("rms_norm", "You scale by 1 + gamma, as some models do; here gamma itself is the scale.")
def one_plus_gamma(x, gamma, eps=1e-6):
    return reference.rms_norm(x, 1 + gamma, eps)


# -- gelu_tanh, FeedForward


@misconception("gelu_tanh", "That is the sigmoid form, x * sigmoid(1.702 x); the tanh form is meant.")
def sigmoid_form(x):
    return x * torch.sigmoid(1.702 * x)


@misconception("gelu_tanh", "That is the exact GELU with erf; GPT-2 uses the tanh form, which differs by up to 0.0005.")
def erf_form(x):
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


@misconception("gelu_tanh", "The factor is the root of 2 / pi, not of 1 / pi.")
def root_of_one_over_pi(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(1 / math.pi) * (x + 0.044715 * x**3)))


@misconception("gelu_tanh", "x is squared where it must be cubed; with a square, gelu(x) - gelu(-x) is no longer x.")
def squared(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**2)))


@misconception("gelu_tanh", "Your tanh is made of exponentials that overflow; use torch.tanh.")
def overflowing_tanh(x):
    e = torch.exp(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * x * (1 + (e - 1) / (e + 1))


@misconception("gelu_tanh", "The bend is missing: without gelu_tanh, two linear layers are one.", "FeedForward")
class NoBend(reference.FeedForward):
    def forward(self, x):
        return self.down(self.up(x))


@misconception(
    "gelu_tanh", "You apply gelu_tanh again after the way back; it stands only in the middle.", "FeedForward"
)
class BendsTwice(reference.FeedForward):
    def forward(self, x):
        return reference.gelu_tanh(super().forward(x))


@misconception("gelu_tanh", "Your network uses ReLU; it must use your gelu_tanh.", "FeedForward")
class UsesRelu(reference.FeedForward):
    def forward(self, x):
        return self.down(torch.relu(self.up(x)))


@misconception("gelu_tanh", "Without F the inner width must be 4 D.", "FeedForward")
class TwiceAsWide(reference.FeedForward):
    def __init__(self, D, F=None, bias=True):
        super().__init__(D, 2 * D if F is None else F, bias)


@misconception("gelu_tanh", "Both layers must follow `bias`; yours always have one.", "FeedForward")
class AlwaysBiased(reference.FeedForward):
    def __init__(self, D, F=None, bias=True):
        super().__init__(D, F, True)


@misconception("gelu_tanh", "You add the residual inside the network; that is the block's work.", "FeedForward")
class AddsResidual(reference.FeedForward):
    def forward(self, x):
        return x + super().forward(x)


# -- swiglu, swiglu_hidden


@misconception("swiglu", "Gate and value are exchanged: w1 makes the gate and goes through silu, w3 makes the value.")
def gate_and_value_exchanged(x, w1, w2, w3):
    return reference.swiglu(x, w3, w2, w1)


@misconception("swiglu", "Your gate is sigmoid(a); silu is a * sigmoid(a).")
def gates_with_sigmoid(x, w1, w2, w3):
    return (torch.sigmoid(x @ w1.T) * (x @ w3.T)) @ w2.T


@misconception("swiglu", "silu must be applied to the gate alone, before the product with the value, not after it.")
def silu_of_the_product(x, w1, w2, w3):
    return functional.silu((x @ w1.T) * (x @ w3.T)) @ w2.T


@misconception("swiglu", "The value must stay linear; only the gate goes through silu.")
def silu_on_both(x, w1, w2, w3):
    return (functional.silu(x @ w1.T) * functional.silu(x @ w3.T)) @ w2.T


@misconception("swiglu", "You gate with GELU, which makes a GEGLU; a SwiGLU gates with silu.")
def gates_with_gelu(x, w1, w2, w3):
    return (functional.gelu(x @ w1.T) * (x @ w3.T)) @ w2.T


@misconception("swiglu", "You add gate and value; the gate multiplies the value.")
def adds_gate_and_value(x, w1, w2, w3):
    return (functional.silu(x @ w1.T) + (x @ w3.T)) @ w2.T


@misconception("swiglu", "You round down to a multiple; F must not be less than 8 D / 3.", "swiglu_hidden")
def rounds_down(D, multiple_of):
    return 8 * D // 3 // multiple_of * multiple_of


@misconception(
    "swiglu", "You cut 8 D / 3 to a whole number before rounding up, which can lose a piece.", "swiglu_hidden"
)
def cuts_before_rounding_up(D, multiple_of):
    return -(-(8 * D // 3) // multiple_of) * multiple_of


@misconception("swiglu", "A width of exactly a multiple is large enough; you add one piece too many.", "swiglu_hidden")
def one_piece_too_many(D, multiple_of):
    return (8 * D // (3 * multiple_of) + 1) * multiple_of


@misconception("swiglu", "You round to the nearest multiple; F must not be less than 8 D / 3.", "swiglu_hidden")
def rounds_to_nearest(D, multiple_of):
    return round(8 * D / 3 / multiple_of) * multiple_of


@misconception(
    "swiglu", "You keep the width 4 D; with three matrices it must be 8 D / 3 for the same size.", "swiglu_hidden"
)
def keeps_four_times(D, multiple_of):
    return -(-4 * D // multiple_of) * multiple_of


# -- TransformerBlock


@misconception("TransformerBlock", "Attention's output replaces the stream; add it to x.")
class NoResidualAtAttention(reference.TransformerBlock):
    def forward(self, x, mask=None):
        h = self.attention(self.norm1(x), mask)
        return h + self.ffn(self.norm2(h))


@misconception("TransformerBlock", "The feed-forward output replaces the stream; add it to h.")
class NoResidualAtNetwork(reference.TransformerBlock):
    def forward(self, x, mask=None):
        return self.ffn(self.norm2(x + self.attention(self.norm1(x), mask)))


@misconception("TransformerBlock", "You add to the normalised copy; the stream itself is never normalised.")
class ResidualFromTheNormalised(reference.TransformerBlock):
    def forward(self, x, mask=None):
        x = self.norm1(x)
        x = self.norm2(x + self.attention(x, mask))
        return x + self.ffn(x)


@misconception("TransformerBlock", "You normalise after adding (post-norm); each branch normalises what it reads.")
class PostNorm(reference.TransformerBlock):
    def forward(self, x, mask=None):
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.ffn(x))


@misconception("TransformerBlock", "Both branches use one norm; make norm1 and norm2 two modules and use each once.")
class OneNormForBoth(reference.TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.norm2 = self.norm1


@misconception("TransformerBlock", "norm2 is made but not used; the network must read norm2 of the stream.")
class NetworkReadsTheBareStream(reference.TransformerBlock):
    def forward(self, x, mask=None):
        x = x + self.attention(self.norm1(x), mask)
        return x + self.ffn(x)


@misconception("TransformerBlock", "Both branches read x; the network must read the stream after attention has added.")
class BranchesInParallel(reference.TransformerBlock):
    def forward(self, x, mask=None):
        return x + self.attention(self.norm1(x), mask) + self.ffn(self.norm2(x))


@misconception("TransformerBlock", "The mask does not reach the attention; hand it on.")
class MaskForgotten(reference.TransformerBlock):
    def forward(self, x, mask=None):
        return super().forward(x)


@misconception("TransformerBlock", "`x +=` writes into the tensor of your caller; use x = x + ...")
class WritesIntoItsInput(reference.TransformerBlock):
    def forward(self, x, mask=None):
        x += self.attention(self.norm1(x), mask)
        x += self.ffn(self.norm2(x))
        return x


@misconception("TransformerBlock", "The second residual starts from x; it must start from x plus attention.")
class SecondResidualFromTheInput(reference.TransformerBlock):
    def forward(self, x, mask=None):
        h = x + self.attention(self.norm1(x), mask)
        return x + self.ffn(self.norm2(h))


# -- GPT


def stream(model, ids):
    """Token vectors plus learned positions."""
    x = model.embedding(ids)
    if ids.shape[1] > model.cfg["T_max"]:
        raise ValueError("too long")
    return x if model.positions is None else x + model.positions.weight[: ids.shape[1]]


def run_blocks(model, x, diagonal=0):
    mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(diagonal)
    for block in model.blocks:
        x = block(x, mask)
    return x


@misconception("GPT", "You return probabilities; return the raw logits, the softmax is applied later.")
class SoftmaxInside(reference.GPT):
    def forward(self, ids):
        return super().forward(ids).softmax(-1)


@misconception("GPT", "You return log-probabilities; return the raw logits.")
class LogSoftmaxInside(reference.GPT):
    def forward(self, ids):
        return super().forward(ids).log_softmax(-1)


@misconception("GPT", "The last norm is made but not used; the head must read norm of the stream.")
class NoFinalNorm(reference.GPT):
    def forward(self, ids):
        return self.head(run_blocks(self, stream(self, ids)))


@misconception("GPT", "No mask reaches the blocks, so every token sees the future; hand each block a causal mask.")
class NoMask(reference.GPT):
    def forward(self, ids):
        x = stream(self, ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


@misconception("GPT", "Your mask shows one token of the future; row i sees columns 0 to i.")
class MaskShowsOneAhead(reference.GPT):
    def forward(self, ids):
        return self.head(self.norm(run_blocks(self, stream(self, ids), 1)))


@misconception("GPT", "The learned positions are not added to the token vectors.")
class NoPositions(reference.GPT):
    def forward(self, ids):
        stream(self, ids)
        return self.head(self.norm(run_blocks(self, self.embedding(ids))))


@misconception("GPT", "You number positions from the end of the sequence; the first token has position 0.")
class PositionsFromTheEnd(reference.GPT):
    def forward(self, ids):
        stream(self, ids)
        x = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[1]].flip(0)
        return self.head(self.norm(run_blocks(self, x)))


@misconception("GPT", "You scale the token vectors by the root of D; here nothing is scaled.")
class ScalesTheEmbedding(reference.GPT):
    def forward(self, ids):
        stream(self, ids)
        x = self.embedding(ids) * math.sqrt(self.cfg["d_model"])
        if self.positions is not None:
            x = x + self.positions.weight[: ids.shape[1]]
        return self.head(self.norm(run_blocks(self, x)))


@misconception("GPT", "Your tied head is a copy; head.weight must be the embedding's own parameter.")
class HeadIsACopy(reference.GPT):
    def __init__(self, cfg):
        super().__init__(cfg)
        if cfg["tied"]:
            self.head.weight = nn.Parameter(self.embedding.weight.detach().clone())


@misconception("GPT", "You tie the head whatever cfg says; an untied head has a weight of its own.")
class AlwaysTied(reference.GPT):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.head.weight = self.embedding.weight


@misconception("GPT", "Your head reads the weight as (D, V), which scrambles it; it is (V, D), one row a token.")
class HeadTransposed(reference.GPT):
    def forward(self, ids):
        x = self.norm(run_blocks(self, stream(self, ids)))
        return x @ self.head.weight.reshape(x.shape[-1], -1)


@misconception("GPT", "All layers are one and the same block; make a new TransformerBlock for each.")
class OneBlockForAll(reference.GPT):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks = nn.ModuleList([self.blocks[0]] * cfg["n_layers"])


@misconception("GPT", "A plain list hides its modules: use nn.ModuleList, or the blocks are never trained.")
class BlocksInAPlainList(reference.GPT):
    def __init__(self, cfg):
        super().__init__(cfg)
        blocks = list(self.blocks)
        del self.blocks
        self.blocks = blocks


@misconception("GPT", "More than T_max tokens must raise a ValueError; you cut them off in silence.")
class CutsLongInputs(reference.GPT):
    def forward(self, ids):
        return super().forward(ids[:, -self.cfg["T_max"] :])


@misconception("GPT", "Only learned positions make you check the length; T_max holds for every configuration.")
class LengthUnchecked(reference.GPT):
    def forward(self, ids):
        x = self.embedding(ids)
        if self.positions is not None:
            return super().forward(ids)
        return self.head(self.norm(run_blocks(self, x)))


@misconception("GPT", "You run every prefix anew; one pass with a causal mask gives all positions at once.")
class EveryPrefixAnew(reference.GPT):
    def forward(self, ids):
        if ids.shape[1] > self.cfg["T_max"]:
            raise ValueError("too long")
        return torch.cat(
            [super(EveryPrefixAnew, self).forward(ids[:, : t + 1])[:, -1:] for t in range(ids.shape[1])], 1
        )


# -- count_parameters


def recount(cfg, **changes):
    """The right count with some parts replaced and the total made anew."""
    counts = {name: n for name, n in reference.count_parameters(cfg).items() if name != "total"} | changes
    return counts | {"total": sum(counts.values())}


@misconception("count_parameters", "A tied head is the embedding once more; it adds nothing.")
def tied_counted_twice(cfg):
    return reference.count_parameters(cfg | {"tied": False})


@misconception("count_parameters", "Rotary positions have no parameters; only a learned table counts.")
def positions_counted_for_rope(cfg):
    return recount(cfg, positions=cfg["T_max"] * cfg["d_model"])


@misconception("count_parameters", "You count the causal mask, T_max squared; a mask is not a parameter.")
def mask_counted(cfg):
    attention = reference.count_parameters(cfg)["attention"]
    return recount(cfg, attention=attention + cfg["n_layers"] * cfg["T_max"] ** 2)


@misconception("count_parameters", "The norm after the last block is missing: there are 2 L + 1 norms.")
def last_norm_forgotten(cfg):
    norm = reference.count_parameters(cfg)["norm"]
    return recount(cfg, norm=norm // (2 * cfg["n_layers"] + 1) * 2 * cfg["n_layers"])


@misconception("count_parameters", "Keys and values are only n_kv_heads * hd wide; you give them the full width.")
def grouping_ignored(cfg):
    return reference.count_parameters(cfg | {"n_kv_heads": cfg["n_heads"]})


@misconception("count_parameters", "The biases are missing: add them when cfg['bias'] is true.")
def biases_forgotten(cfg):
    return reference.count_parameters(cfg | {"bias": False})


@misconception("count_parameters", "A swiglu network has three matrices, not two.")
def two_matrices(cfg):
    D, F, L = cfg["d_model"], cfg["d_ff"], cfg["n_layers"]
    return recount(cfg, ffn=2 * L * D * F) if cfg["ffn"] == "swiglu" else reference.count_parameters(cfg)


@misconception("count_parameters", "A swiglu network has no biases, whatever cfg['bias'] says.")
def swiglu_with_biases(cfg):
    D, F, L = cfg["d_model"], cfg["d_ff"], cfg["n_layers"]
    if cfg["ffn"] == "gelu" or not cfg["bias"]:
        return reference.count_parameters(cfg)
    return recount(cfg, ffn=L * (3 * D * F + 2 * F + D))


@misconception("count_parameters", "An rms norm has gamma but no beta; you give it both.")
def rms_with_beta(cfg):
    return reference.count_parameters(cfg | {"norm": "layer"})


@misconception("count_parameters", "You take the inner width to be 4 D; it is cfg['d_ff'].")
def inner_width_assumed(cfg):
    return reference.count_parameters(cfg | {"d_ff": 4 * cfg["d_model"]})


# -- init_weights


def draw(model, std, seed, small, fill=None, one_generator=True, fresh_vectors=True):
    """Initialise as the reference does, but for the deviation `small(name)` of a matrix and the way of drawing."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim == 1:
            if fresh_vectors:
                nn.init.constant_(p, float(name.endswith("gamma")))
            continue
        if not one_generator:
            generator.manual_seed(seed)
        if fill is None:
            nn.init.normal_(p, 0.0, small(name), generator=generator)
        else:
            fill(p, small(name), generator)


def branch_end(name):
    return name.endswith(("W_o.weight", "down.weight"))


def scaled(model, std, ends=branch_end):
    """The right deviation for every name, with another idea of which matrices end a branch."""
    return lambda name: std / math.sqrt(2 * len(model.blocks)) if ends(name) else std


@misconception("init_weights", "Nothing is scaled by depth: W_o and down get std / sqrt(2 L).")
def no_depth_scaling(model, std=0.02, seed=0):
    draw(model, std, seed, lambda name: std)


@misconception("init_weights", "You scale by the root of L; a block has two branches, so it is the root of 2 L.")
def root_of_depth(model, std=0.02, seed=0):
    draw(model, std, seed, lambda name: std / math.sqrt(len(model.blocks)) if branch_end(name) else std)


@misconception("init_weights", "You divide by 2 L; variances add, so divide the deviation by its square root.")
def divides_by_depth(model, std=0.02, seed=0):
    draw(model, std, seed, lambda name: std / (2 * len(model.blocks)) if branch_end(name) else std)


@misconception("init_weights", "Only W_o is scaled; the feed-forward network writes into the stream too, by down.")
def only_attention_scaled(model, std=0.02, seed=0):
    draw(model, std, seed, scaled(model, std, lambda name: name.endswith("W_o.weight")))


@misconception("init_weights", "You scale up.weight; the matrix that writes into the stream is down.weight.")
def scales_up_instead_of_down(model, std=0.02, seed=0):
    draw(model, std, seed, scaled(model, std, lambda name: name.endswith(("W_o.weight", "up.weight"))))


@misconception("init_weights", "The head, or the embedding tied to it, is no branch: it must keep the deviation std.")
def head_scaled_too(model, std=0.02, seed=0):
    last = "embedding.weight" if model.cfg["tied"] else "head.weight"
    draw(model, std, seed, scaled(model, std, lambda name: branch_end(name) or name == last))


@misconception("init_weights", "You use Xavier's rule; here the deviation does not depend on a matrix's shape.")
def xavier(model, std=0.02, seed=0):
    draw(model, std, seed, scaled(model, std), lambda p, _, g: nn.init.xavier_normal_(p, generator=g))


@misconception("init_weights", "You draw from a uniform distribution; a normal one is meant.")
def uniform(model, std=0.02, seed=0):
    width = math.sqrt(3)
    draw(model, std, seed, scaled(model, std), lambda p, s, g: nn.init.uniform_(p, -width * s, width * s, generator=g))


@misconception("init_weights", "You seed anew for every tensor, so that they repeat each other; seed once.")
def seeded_anew_for_each(model, std=0.02, seed=0):
    draw(model, std, seed, scaled(model, std), one_generator=False)


@misconception("init_weights", "The seed is not used; two seeds must give two sets of weights.")
def seed_ignored(model, std=0.02, seed=0):
    draw(model, std, 0, scaled(model, std))


@misconception("init_weights", "You seed and use torch's global generator; make a torch.Generator of your own.")
def global_generator(model, std=0.02, seed=0):
    torch.manual_seed(seed)
    small = scaled(model, std)
    draw(model, std, seed, small, lambda p, s, _: nn.init.normal_(p, 0.0, s))


@misconception("init_weights", "Biases, gamma and beta keep what they had; set them to 0, 1 and 0.")
def vectors_left_alone(model, std=0.02, seed=0):
    draw(model, std, seed, scaled(model, std), fresh_vectors=False)
