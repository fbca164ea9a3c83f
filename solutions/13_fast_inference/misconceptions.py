"""Wrong answers of chapter 13 that people really give, each with the sentence that sets them right."""

import math

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def integers(W, scale):
    """The nearest integers, clamped to what a byte holds."""
    return torch.round(W / scale[:, None]).clamp(-128, 127).to(torch.int8)


def positive(scale):
    return torch.where(scale > 0, scale, 1.0)


# -- quantize_int8


@misconception("quantize_int8", "One step serves the whole matrix, so a row of small weights is lost; find it per row.")
def one_step_for_all(W):
    scale = positive(W.abs().amax() / 127).expand(len(W))
    return integers(W, scale), scale


@misconception("quantize_int8", "Your steps belong to columns; each row, one output, needs a step of its own.")
def a_step_per_column(W):
    scale = positive(W.abs().amax(0) / 127)
    return torch.round(W / scale).to(torch.int8), scale


@misconception("quantize_int8", "Converting to int8 cuts the fraction off; round to the nearest integer first.")
def truncates(W):
    scale = positive(W.abs().amax(1) / 127)
    return (W / scale[:, None]).to(torch.int8), scale


@misconception("quantize_int8", "You take the largest weight; a negative one of larger magnitude overflows. Use abs.")
def largest_without_abs(W):
    scale = W.amax(1) / 127
    scale = torch.where(scale == 0, 1.0, scale)
    return integers(W, scale), scale


@misconception("quantize_int8", "A row of zeros gives a step of 0 and divides by it; replace such a step by 1.")
def step_of_zero(W):
    scale = W.abs().amax(1) / 127
    return integers(W, scale).masked_fill(W == 0, 0), scale


@misconception("quantize_int8", "You keep the step away from 0 by a constant, which erases rows of tiny weights.")
def smallest_step(W):
    scale = (W.abs().amax(1) / 127).clamp(min=1e-8)
    return integers(W, scale), scale


@misconception("quantize_int8", "With 128 steps a side the largest weight does not fit into int8; divide by 127.")
def divides_by_128(W):
    scale = positive(W.abs().amax(1) / 128)
    return integers(W, scale), scale


@misconception("quantize_int8", "You take the spread of a row; around a fixed zero the largest magnitude decides.")
def step_from_the_spread(W):
    scale = positive((W.amax(1) - W.amin(1)) / 254)
    return integers(W, scale), scale


# -- pack_int4, unpack_int4, quantize_int4


def checked(codes):
    if codes.min() < 0 or codes.max() > 15:
        raise ValueError("no four bits")
    return torch.nn.functional.pad(codes.to(torch.uint8), (0, codes.shape[-1] % 2))


@misconception(
    "quantize_int4", "You pack the first code into the high bits; it belongs into the low four.", "pack_int4"
)
def packs_high_first(codes):
    codes = checked(codes)
    return codes[..., 0::2] << 4 | codes[..., 1::2]


@misconception(
    "quantize_int4",
    "A byte of yours joins the two halves of a row; it must join neighbours, codes 0 and 1.",
    "pack_int4",
)
def packs_halves(codes):
    low, high = checked(codes).chunk(2, dim=-1)
    return low | high << 4


@misconception("quantize_int4", "Codes that do not fit are cut to four bits in silence; raise ValueError.", "pack_int4")
def packs_anything(codes):
    return reference.pack_int4(codes.long() & 15)


@misconception("quantize_int4", "You read the high four bits first; the first code is in the low ones.", "unpack_int4")
def unpacks_high_first(packed, n=None):
    codes = reference.unpack_int4(packed, n)
    if codes.shape[-1] % 2:
        codes = reference.unpack_int4(packed)
    swapped = codes.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return swapped[..., :n]


@misconception(
    "quantize_int4", "You read codes above 7 as negative; these codes count levels from 0 to 15.", "unpack_int4"
)
def unpacks_signed(packed, n=None):
    codes = reference.unpack_int4(packed, n).to(torch.int8)
    return torch.where(codes > 7, codes - 16, codes)


def in_groups(W, group, find):
    """Quantize group by group with low and step found by `find`."""
    if group < 1:
        raise ValueError("group")
    codes, scales, lows = [], [], []
    for columns in W.split(group, dim=1):
        low, scale = find(columns)
        codes.append(torch.round((columns - low) / scale).clamp(0, 15))
        scales.append(scale)
        lows.append(low)
    return reference.pack_int4(torch.cat(codes, 1).to(torch.uint8)), torch.cat(scales, 1), torch.cat(lows, 1)


@misconception("quantize_int4", "Your groups run down the columns of W; they must run along each row.")
def groups_down_the_columns(W, group):
    _, scale, low = reference.quantize_int4(W.T.contiguous(), group)
    g = torch.arange(len(W)) // max(group, 1)
    codes = torch.round((W - low[:, g].T) / scale[:, g].T).clamp(0, 15)
    return reference.pack_int4(codes.to(torch.uint8)), scale.T, low.T


@misconception("quantize_int4", "A whole row shares one step; each group of columns needs its own low and scale.")
def one_group_a_row(W, group):
    if group < 1:
        raise ValueError("group")
    packed, scale, low = reference.quantize_int4(W, W.shape[1])
    groups = -(-W.shape[1] // group)
    return packed, scale.repeat(1, groups), low.repeat(1, groups)


@misconception("quantize_int4", "Sixteen levels have fifteen steps between them; divide the spread by 15, not 16.")
def sixteen_steps(W, group):
    def find(columns):
        low = columns.amin(1, keepdim=True)
        return low, positive((columns.amax(1, keepdim=True) - low) / 16)

    return in_groups(W, group, find)


@misconception("quantize_int4", "Your levels are laid around zero; they run from the group's smallest to its largest.")
def symmetric_levels(W, group):
    def find(columns):
        scale = positive(columns.abs().amax(1, keepdim=True) / 7)
        return -8 * scale, scale

    return in_groups(W, group, find)


@misconception("quantize_int4", "You cut the fraction of a code off; take the nearest level.")
def cuts_codes(W, group):
    packed, scale, low = reference.quantize_int4(W, group)
    g = torch.arange(W.shape[1]) // group
    codes = ((W - low[:, g]) / scale[:, g] + 1e-12).floor().clamp(0, 15)
    return reference.pack_int4(codes.to(torch.uint8)), scale, low


@misconception("quantize_int4", "A group of equal values has no spread and you divide by it; give it a step of 1.")
def no_spread(W, group):
    def find(columns):
        low = columns.amin(1, keepdim=True)
        return low, (columns.amax(1, keepdim=True) - low) / 15

    packed, scale, low = in_groups(W, group, find)
    return packed, scale, low


# -- int8_matmul


def far_columns(x, threshold):
    return torch.zeros(x.shape[1]).bool() if threshold is None else x.abs().amax(0) > threshold


def two_ways(x, q, scale, outlier, x_q, s):
    """Integers for the ordinary columns, floats for the outliers."""
    x_q = x_q.masked_fill(outlier, 0).long()
    return (x_q @ q.long().T) * s[:, None] * scale + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T


@misconception("int8_matmul", "Your sums stay in int8 and overflow; widen both factors to int32 before the product.")
def sums_in_int8(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    x_q, s = reference.quantize_int8(x.masked_fill(outlier, 0))
    ordinary = (x_q @ q.T) * s[:, None] * scale
    return ordinary + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T


@misconception(
    "int8_matmul", "Your sums are kept in 16 bits; two products of 127 and 127 fit, three do not. Use int32."
)
def sums_in_int16(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    x_q, s = reference.quantize_int8(x.masked_fill(outlier, 0))
    sums = (x_q.long() @ q.long().T).to(torch.int16)
    return sums * s[:, None] * scale + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T


@misconception("int8_matmul", "The inputs share one step, so a large row ruins the others; give each row its own.")
def one_step_for_the_batch(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    s = positive(x.masked_fill(outlier, 0).abs().amax() / 127).expand(len(x))
    return two_ways(x, q, scale, outlier, torch.round(x / s[:, None]), s)


@misconception("int8_matmul", "The steps of the weights are multiplied in twice; the integers need each step once.")
def scale_twice(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    x_q, s = reference.quantize_int8(x.masked_fill(outlier, 0))
    return (x_q.int() @ q.int().T) * s[:, None] * scale**2 + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T


@misconception("int8_matmul", "You never quantize the inputs; the product of ordinary columns must be one of integers.")
def weights_only(x, q, scale, outlier_threshold=None):
    return x @ (q * scale[:, None]).T


@misconception("int8_matmul", "Outliers are in both products; set their columns to zero before you quantize the rest.")
def outliers_twice(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    return reference.int8_matmul(x, q, scale) + x[:, outlier] @ (q[:, outlier] * scale[:, None]).T


@misconception("int8_matmul", "You pick single entries; a column with one large entry is an outlier for every row.")
def entries_not_columns(x, q, scale, outlier_threshold=None):
    far = torch.zeros(x.shape).bool() if outlier_threshold is None else x.abs() > outlier_threshold
    return reference.int8_matmul(x.masked_fill(far, 0), q, scale) + (x * far) @ (q * scale[:, None]).T


@misconception("int8_matmul", "A large negative input is an outlier too; compare magnitudes with the threshold.")
def signed_threshold(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x.clamp(min=0), outlier_threshold)
    x_q, s = reference.quantize_int8(x.masked_fill(outlier, 0))
    return two_ways(x, q, scale, outlier, x_q, s)


@misconception("int8_matmul", "The step of a row is found with its outliers; they must be out before the maximum.")
def step_with_the_outliers(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    x_q, s = reference.quantize_int8(x)
    return two_ways(x, q, scale, outlier, x_q, s)


@misconception("int8_matmul", "A magnitude equal to the threshold does not exceed it; use >, not >=.")
def at_least_the_threshold(x, q, scale, outlier_threshold=None):
    outlier = torch.zeros(x.shape[1]).bool() if outlier_threshold is None else x.abs().amax(0) >= outlier_threshold
    x_q, s = reference.quantize_int8(x.masked_fill(outlier, 0))
    return two_ways(x, q, scale, outlier, x_q, s)


@misconception(
    "int8_matmul", "The outlier columns meet raw integers; multiply those weights by the steps of their rows."
)
def outliers_without_scale(x, q, scale, outlier_threshold=None):
    outlier = far_columns(x, outlier_threshold)
    return reference.int8_matmul(x.masked_fill(outlier, 0), q, scale) + x[:, outlier] @ q[:, outlier].to(x.dtype).T


@misconception(
    "int8_matmul", "A threshold of 0 is a threshold, too; ask whether it `is not None`, not whether it is true."
)
def zero_means_none(x, q, scale, outlier_threshold=None):
    return reference.int8_matmul(x, q, scale, outlier_threshold or None)


# -- speculative_accept, speculative_step


@misconception(
    "speculative_accept", "A rejection draws from p; that counts tokens the draft likes twice. Draw from max(p - q, 0)."
)
def resamples_the_target(p, q, x, u, resample):
    return x if u * q[x] < p[x] else resample(p / p.sum())


@misconception("speculative_accept", "You draw from |p - q|, which brings back what the draft had too much of.")
def absolute_difference(p, q, x, u, resample):
    residual = (p - q).abs()
    return x if u * q[x] < p[x] else resample(residual / residual.sum())


@misconception("speculative_accept", "Striking out the rejected token is not enough; subtract q from p everywhere.")
def strikes_out_the_token(p, q, x, u, resample):
    residual = p.clone()
    residual[x] = 0
    return x if u * q[x] < p[x] else resample(residual / residual.sum())


@misconception("speculative_accept", "The residual does not sum to one; divide it by its sum before drawing.")
def residual_not_normalised(p, q, x, u, resample):
    return x if u * q[x] < p[x] else resample((p - q).clamp(min=0))


@misconception("speculative_accept", "Your ratio is upside down; a draft is kept with probability p[x] / q[x].")
def ratio_upside_down(p, q, x, u, resample):
    residual = (p - q).clamp(min=0)
    return x if u * p[x] < q[x] else resample(residual / residual.sum())


@misconception("speculative_accept", "You accept only where p is at least q and ignore u; below, accept with p / q.")
def ignores_u(p, q, x, u, resample):
    residual = (p - q).clamp(min=0)
    return x if p[x] >= q[x] else resample(residual / residual.sum())


@misconception("speculative_accept", "With <= a token that the target forbids is accepted at u = 0; compare with <.")
def accepts_the_forbidden(p, q, x, u, resample):
    residual = (p - q).clamp(min=0)
    return x if u * q[x] <= p[x] else resample(residual / residual.sum())


def drafts(draft, ids, gamma, rng):
    """The text with gamma drafts, and the distribution that each was drawn from."""
    if gamma < 0:
        raise ValueError("gamma")
    text, q = list(ids), []
    for _ in range(gamma):
        q.append(draft(list(text))[-1])
        text.append(reference.draw(q[-1], rng()))
    return text, q


def judge(p, q, drafted, rng):
    """Accepted drafts and the replacement of the first that is rejected, if any."""
    new = []
    for p_i, q_i, x in zip(p, q, drafted, strict=False):
        new.append(reference.speculative_accept(p_i, q_i, x, rng(), lambda r: reference.draw(r, rng())))
        if new[-1] != x:
            return new, True
    return new, False


@misconception(
    "speculative_accept",
    "When all drafts are accepted you stop; the target has already judged one place more, so draw from it.",
    "speculative_step",
)
def no_bonus(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :]
    new, _ = judge(p, q, text[len(ids) :], rng)
    return new or [reference.draw(p[0], rng())]


@misconception(
    "speculative_accept",
    "Drafts after a rejection are kept, though they continue a text that no longer stands; stop there.",
    "speculative_step",
)
def goes_on_after_a_rejection(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :]
    pairs = zip(p, q, text[len(ids) :], strict=False)
    new = [reference.speculative_accept(a, b, x, rng(), lambda r: reference.draw(r, rng())) for a, b, x in pairs]
    return [*new, reference.draw(p[gamma], rng())]


@misconception(
    "speculative_accept",
    "Draft i is judged by the target's row after it; the row before it, at place len(ids) - 1 + i, predicts it.",
    "speculative_step",
)
def rows_off_by_one(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :].roll(-1, 0)
    new, rejected = judge(p, q, text[len(ids) :], rng)
    return new if rejected else [*new, reference.draw(p[gamma - 1], rng())]


@misconception(
    "speculative_accept",
    "The token after the last draft is drawn from the draft model; the target has a row for it.",
    "speculative_step",
)
def bonus_from_the_draft(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :]
    new, rejected = judge(p, q, text[len(ids) :], rng)
    if rejected:
        return new
    return [*new, reference.draw(q[-1] if q else p[0], rng())]


@misconception(
    "speculative_accept",
    "You call the target once for every draft, which saves nothing; one call gives the rows of all places.",
    "speculative_step",
)
def target_for_each_draft(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = [target(text[: len(ids) + i])[-1] for i in range(gamma + 1)]
    new, rejected = judge(p, q, text[len(ids) :], rng)
    return new if rejected else [*new, reference.draw(p[gamma], rng())]


@misconception(
    "speculative_accept",
    "All drafts are drawn from one distribution; the draft must see its own earlier tokens.",
    "speculative_step",
)
def draft_sees_only_the_text(target, draft, ids, gamma, rng):
    if gamma < 0:
        raise ValueError("gamma")
    q = [draft(list(ids))[-1] for _ in range(gamma)]
    text = list(ids) + [reference.draw(row, rng()) for row in q]
    p = target(text)[len(ids) - 1 :]
    new, rejected = judge(p, q, text[len(ids) :], rng)
    return new if rejected else [*new, reference.draw(p[gamma], rng())]


@misconception(
    "speculative_accept",
    "A rejected draft is dropped and nothing takes its place; draw the token that stands there instead.",
    "speculative_step",
)
def rejected_without_replacement(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :]
    new, rejected = judge(p, q, text[len(ids) :], rng)
    if not rejected:
        return [*new, reference.draw(p[gamma], rng())]
    return new[:-1] or new


@misconception(
    "speculative_accept",
    "You keep a draft if it equals a token drawn from the target, and otherwise draw once more; use p / q.",
    "speculative_step",
)
def compares_two_draws(target, draft, ids, gamma, rng):
    text, _ = drafts(draft, ids, gamma, rng)
    p = target(text)[len(ids) - 1 :]
    for i, x in enumerate(text[len(ids) :]):
        if reference.draw(p[i], rng()) != x:
            return [*text[len(ids) : len(ids) + i], reference.draw(p[i], rng())]
    return [*text[len(ids) :], reference.draw(p[gamma], rng())]


@misconception(
    "speculative_accept",
    "You draft the most likely token but judge it as if it were drawn from q; draw it, or q is another.",
    "speculative_step",
)
def drafts_by_argmax(target, draft, ids, gamma, rng):
    if gamma < 0:
        raise ValueError("gamma")
    text, q = list(ids), []
    for _ in range(gamma):
        q.append(draft(list(text))[-1])
        text.append(int(q[-1].argmax()))
    p = target(text)[len(ids) - 1 :]
    new, rejected = judge(p, q, text[len(ids) :], rng)
    return new if rejected else [*new, reference.draw(p[gamma], rng())]


@misconception(
    "speculative_accept",
    "One uniform number judges all drafts; an accepted draft says that it was small, so each needs a fresh one.",
    "speculative_step",
)
def one_number_for_all(target, draft, ids, gamma, rng):
    text, q = drafts(draft, ids, gamma, rng)
    p, u = target(text)[len(ids) - 1 :], rng()
    new = []
    for p_i, q_i, x in zip(p, q, text[len(ids) :], strict=False):
        new.append(reference.speculative_accept(p_i, q_i, x, u, lambda r: reference.draw(r, rng())))
        if new[-1] != x:
            return new
    return [*new, reference.draw(p[gamma], rng())]


# -- expected_tokens, best_gamma


def sensible(alpha, gamma):
    if not 0 <= alpha <= 1 or gamma < 0:
        raise ValueError("alpha or gamma")


@misconception("expected_tokens", "The sum stops one term early: the token after the last draft counts as well.")
def without_the_last(alpha, gamma):
    sensible(alpha, gamma)
    return float(sum(alpha**i for i in range(gamma)))


@misconception("expected_tokens", "You count accepted drafts; each step brings one token more than that.")
def accepted_only(alpha, gamma):
    return reference.expected_tokens(alpha, gamma) - 1


@misconception("expected_tokens", "The closed form divides by 1 - alpha, which is 0 when every draft is accepted.")
def divides_by_zero(alpha, gamma):
    sensible(alpha, gamma)
    return (1 - alpha ** (gamma + 1)) / (1 - alpha)


@misconception("expected_tokens", "You take every alpha near 1 for 1 itself; the sum of the powers needs no such case.")
def near_one_is_one(alpha, gamma):
    sensible(alpha, gamma)
    return float(gamma + 1) if 1 - alpha < 1e-3 else (1 - alpha ** (gamma + 1)) / (1 - alpha)


@misconception(
    "expected_tokens", "A draft counts only if all before it were accepted: the mean is not 1 + alpha gamma."
)
def linear(alpha, gamma):
    sensible(alpha, gamma)
    return 1.0 + alpha * gamma


def speeds(alpha, cost_ratio, max_gamma):
    if cost_ratio < 0 or max_gamma < 0:
        raise ValueError("cost_ratio or max_gamma")
    return [reference.expected_tokens(alpha, g) / (g * cost_ratio + 1) for g in range(max_gamma + 1)]


@misconception(
    "expected_tokens", "You maximise the tokens of a step; divide by the time that the step takes.", "best_gamma"
)
def most_tokens(alpha, cost_ratio, max_gamma):
    speeds(alpha, cost_ratio, max_gamma)
    return max_gamma


@misconception("expected_tokens", "You always draft at least one token; at gamma = 0 nothing is drafted.", "best_gamma")
def at_least_one(alpha, cost_ratio, max_gamma):
    speed = speeds(alpha, cost_ratio, max_gamma)
    return max(range(1, max_gamma + 1), key=speed.__getitem__, default=0)


@misconception("expected_tokens", "Among equal speeds you take the largest gamma; take the smallest.", "best_gamma")
def largest_of_equals(alpha, cost_ratio, max_gamma):
    speed = speeds(alpha, cost_ratio, max_gamma)
    return max(range(max_gamma, -1, -1), key=speed.__getitem__)


@misconception("expected_tokens", "Your range ends before max_gamma; that many drafts are allowed too.", "best_gamma")
def without_max_gamma(alpha, cost_ratio, max_gamma):
    speed = speeds(alpha, cost_ratio, max_gamma)
    return max(range(max(max_gamma, 1)), key=speed.__getitem__)


@misconception(
    "expected_tokens",
    "You charge the target once per draft; one call judges them all, whatever their number.",
    "best_gamma",
)
def target_paid_per_draft(alpha, cost_ratio, max_gamma):
    speeds(alpha, cost_ratio, max_gamma)
    speed = [reference.expected_tokens(alpha, g) / (g * cost_ratio + g + 1) for g in range(max_gamma + 1)]
    return speed.index(max(speed))


# -- online_softmax, flash_attention


@misconception(
    "flash_attention",
    "The running maximum begins at 0, so rows of very low scores underflow; begin at -inf.",
    "online_softmax",
)
def maximum_begins_at_zero(blocks):
    return finish(*run_through(blocks, first=0.0))


def run_through(blocks, rescale_total=True, rescale_mix=True, guard=True, first=-math.inf):
    """The one pass, with a rescaling or the guard left out; gives maximum, sum and mixture."""
    top, total, mix = first, 0.0, 0.0
    for scores, v in blocks:
        old, top = top, scores.amax(dim=-1, keepdim=True).clamp(min=top)
        safe = top.masked_fill(top == -math.inf, 0.0) if guard else top
        w, shrink = torch.exp(scores - safe), torch.exp(old - safe)
        total = total * (shrink if rescale_total else 1.0) + w.sum(dim=-1, keepdim=True)
        mix = mix * (shrink if rescale_mix else 1.0) + w @ v
    if isinstance(total, float):
        raise ValueError("no block")
    return top, total, mix


def finish(top, total, mix):
    return mix / total.masked_fill(total == 0, 1.0), (top + total.log()).squeeze(-1)


@misconception("flash_attention", "When the maximum grows the mixture is not rescaled; shrink it.", "online_softmax")
def mixture_not_rescaled(blocks):
    return finish(*run_through(blocks, rescale_mix=False))


@misconception(
    "flash_attention", "When the maximum grows the running sum is not rescaled; shrink it too.", "online_softmax"
)
def sum_not_rescaled(blocks):
    return finish(*run_through(blocks, rescale_total=False))


@misconception(
    "flash_attention",
    "Before anything is seen you compute -inf minus -inf, which is NaN; guard that.",
    "online_softmax",
)
def nan_before_the_first(blocks):
    return finish(*run_through(blocks, guard=False))


@misconception("flash_attention", "The exponentials are taken without a maximum and overflow.", "online_softmax")
def without_a_maximum(blocks):
    total, mix = 0.0, 0.0
    for scores, v in blocks:
        w = scores.exp()
        total, mix = total + w.sum(-1, keepdim=True), mix + w @ v
    if isinstance(total, float):
        raise ValueError("no block")
    return mix / total.masked_fill(total == 0, 1.0), total.log().squeeze(-1)


@misconception(
    "flash_attention", "You join all blocks and take one softmax, which needs all scores at once.", "online_softmax"
)
def joins_the_blocks(blocks):
    blocks = list(blocks)
    if not blocks:
        raise ValueError("no block")
    scores, v = torch.cat([s for s, _ in blocks], -1), torch.cat([v for _, v in blocks], -2)
    blind = (scores == -math.inf).all(-1, keepdim=True)
    return (scores.masked_fill(blind, 0).softmax(-1) @ v).masked_fill(blind, 0), scores.logsumexp(-1)


@misconception(
    "flash_attention",
    "You go over the blocks twice, first for the maximum, so all of them are kept; one pass suffices.",
    "online_softmax",
)
def two_passes(blocks):
    blocks = list(blocks)
    if not blocks:
        raise ValueError("no block")
    top = torch.stack([s.amax(-1, keepdim=True) for s, _ in blocks]).amax(0)
    safe = top.masked_fill(top == -math.inf, 0.0)
    total = sum(torch.exp(s - safe).sum(-1, keepdim=True) for s, _ in blocks)
    return finish(top, total, sum(torch.exp(s - safe) @ v for s, v in blocks))


@misconception(
    "flash_attention",
    "Each block is normalised by itself and then averaged; divide once, at the end.",
    "online_softmax",
)
def averages_the_blocks(blocks):
    blocks = list(blocks)
    if not blocks:
        raise ValueError("no block")
    _, lse = finish(*run_through(blocks))
    return sum(finish(*run_through([block]))[0] for block in blocks) / len(blocks), lse


@misconception(
    "flash_attention", "Your lse lacks the logarithm: it is the maximum plus log of the sum.", "online_softmax"
)
def lse_without_log(blocks):
    top, total, mix = run_through(blocks)
    return finish(top, total, mix)[0], (top + total).squeeze(-1)


@misconception(
    "flash_attention", "Your lse lacks the maximum that was subtracted; add it to the logarithm.", "online_softmax"
)
def lse_without_maximum(blocks):
    top, total, mix = run_through(blocks)
    return finish(top, total, mix)[0], total.log().squeeze(-1)


def tiled(q, k, v, block, mask=None, width=None, end=None):
    """Tiles of scores with a free choice of mask, scale and last key."""
    if block < 1:
        raise ValueError("block")
    T, S = q.shape[-2], k.shape[-2]

    def tiles():
        for start in range(0, S if end is None else end, block):
            keys = torch.arange(S)[start : start + block]
            scores = q @ k[..., keys, :].mT / (width or q.shape[-1]) ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask(torch.arange(T)[:, None], keys), -math.inf)
            yield scores, v[..., keys, :]

    return reference.online_softmax(tiles())


def last(q, k, causal):
    """The causal rule by place, or none."""
    return (lambda i, j: j <= k.shape[-2] - q.shape[-2] + i) if causal else None


@misconception("flash_attention", "The whole table of scores is made at once; make one tile of it at a time.")
def whole_table(q, k, v, block, causal=False):
    if block < 1:
        raise ValueError("block")
    return tiled(q, k, v, k.shape[-2], last(q, k, causal))


@misconception("flash_attention", "The last keys are dropped when the tile does not divide S; a tile may be shorter.")
def drops_the_tail(q, k, v, block, causal=False):
    S = k.shape[-2]
    return tiled(q, k, v, min(block, S), last(q, k, causal), end=S - S % min(block, S) if block > 0 else 0)


@misconception("flash_attention", "The causal flag is ignored; hide the keys that come after the query in each tile.")
def ignores_causal(q, k, v, block, causal=False):
    return tiled(q, k, v, block)


@misconception("flash_attention", "In every tile your mask counts keys from 0; use the key's place in the whole text.")
def local_causal(q, k, v, block, causal=False):
    return tiled(q, k, v, block, (lambda i, j: j - j[0] <= i) if causal else None)


@misconception("flash_attention", "You count queries from the first key; they are the last T of the S positions.")
def causal_from_the_top(q, k, v, block, causal=False):
    return tiled(q, k, v, block, (lambda i, j: j <= i) if causal else None)


@misconception("flash_attention", "The scores are not divided by the square root of hd.")
def unscaled(q, k, v, block, causal=False):
    return tiled(q, k, v, block, last(q, k, causal), width=1)


@misconception(
    "flash_attention", "The tiles are small, but the mask is a whole table; build it for one tile at a time."
)
def whole_mask(q, k, v, block, causal=False):
    T, S = q.shape[-2], k.shape[-2]
    table = torch.ones(T, S, dtype=torch.bool).tril(S - T)
    return tiled(q, k, v, block, (lambda i, j: table[:, j]) if causal else None)


# -- PagedKV


@misconception(
    "PagedKV", "After a fork you write into the shared block, and the other sequence sees it; copy it first."
)
class WritesIntoSharedBlocks(reference.PagedKV):
    def append(self, seq, x):
        owners, self.owners = self.owners, [min(n, 1) for n in self.owners]
        before = list(self.tables[seq])
        try:
            super().append(seq, x)
        finally:
            for block in self.tables[seq][len(before) :]:
                owners[block] = 1
            self.owners = owners


@misconception("PagedKV", "Your fork copies every block; it should share them and copy only what is written later.")
class ForkCopies(reference.PagedKV):
    def fork(self, seq):
        twin = self.alloc()
        self.append(twin, self.gather(seq))
        return twin


@misconception("PagedKV", "Both sequences of a fork use one and the same list of blocks; give the new one a copy.")
class ForksTheListItself(reference.PagedKV):
    def fork(self, seq):
        twin = super().fork(seq)
        self.tables[twin] = self.tables[seq]
        return twin


@misconception("PagedKV", "free gives blocks back that other sequences still hold; count the owners of each block.")
class FreesSharedBlocks(reference.PagedKV):
    def free(self, seq):
        for block in self.tables.pop(seq):
            if block not in self.unused:
                self.unused.append(block)
        del self.lengths[seq]


@misconception("PagedKV", "Whoever copies a block must let go of the old one; yours counts as held and is never freed.")
class KeepsTheOldBlock(reference.PagedKV):
    def append(self, seq, x):
        old = self.tables[seq][-1:]
        super().append(seq, x)
        if old and old[0] not in self.tables[seq]:
            self.owners[old[0]] += 1


@misconception("PagedKV", "You write what fits and then raise; count the blocks first and leave everything as it was.")
class WritesWhatFits(reference.PagedKV):
    def append(self, seq, x):
        try:
            super().append(seq, x)
        except ValueError:
            if x.ndim == 2 and len(x) > 1 and x.shape[1] == self.pool.shape[2]:
                for row in x:
                    super().append(seq, row[None])
            raise


@misconception("PagedKV", "gather reads blocks in the order of the pool; follow the sequence's own list of blocks.")
class GathersInPoolOrder(reference.PagedKV):
    def gather(self, seq):
        return self.pool[sorted(self.tables[seq])].flatten(0, 1)[: self.lengths[seq]]


@misconception("PagedKV", "gather hands out the unfilled rest of the last block; cut at the number of tokens.")
class GathersTheRest(reference.PagedKV):
    def gather(self, seq):
        return self.pool[self.tables[seq]].flatten(0, 1)


@misconception("PagedKV", "You hand out a block as soon as the last one is full; wait until a token needs it.")
class TakesBlocksEarly(reference.PagedKV):
    def append(self, seq, x):
        super().append(seq, x)
        if len(x) and self.lengths[seq] % self.pool.shape[1] == 0 and self.unused:
            self.tables[seq].append(self.unused.pop())
            self.owners[self.tables[seq][-1]] = 1


@misconception(
    "PagedKV", "A full block that is shared gets copied, too; it is never written again, so leave it shared."
)
class CopiesFullBlocks(reference.PagedKV):
    def append(self, seq, x):
        table, size = self.tables[seq], self.pool.shape[1]
        if len(x) and table and self.lengths[seq] % size == 0 and self.owners[table[-1]] > 1 and self.unused:
            own = self.unused.pop()
            self.pool[own] = self.pool[table[-1]]
            self.owners[table[-1]] -= 1
            self.owners[own], table[-1] = 1, own
        super().append(seq, x)


@misconception("PagedKV", "The block for a copy is not counted when you check for room; the copy then finds none.")
class ForgetsToCountTheCopy(reference.PagedKV):
    def append(self, seq, x):
        table, size = self.tables[seq], self.pool.shape[1]
        short = -(-(self.lengths[seq] + len(x)) // size) - len(table) <= len(self.unused)
        try:
            super().append(seq, x)
        except ValueError:
            if short and x.ndim == 2 and x.shape[1] == self.pool.shape[2]:
                raise IndexError("pop from empty list") from None
            raise


@misconception("PagedKV", "A sequence number is used again after free, so an old holder reads a stranger's tokens.")
class ReusesNumbers(reference.PagedKV):
    def alloc(self):
        self.made = next(i for i in range(len(self.tables) + 1) if i not in self.tables)
        return super().alloc()


# -- Scheduler


class Planned(reference.Scheduler):
    """The reference's step, taken apart so that one decision can be another."""

    def who(self):
        running, room = {}, self.max_cached
        for request, (prompt, _) in self.wanted.items():
            known = prompt + self.emitted[request]
            if len(running) == self.max_seqs or known > room:
                break
            running[request] = known
            room -= known
        return running

    def keep(self, running):
        return {request: self.cached.get(request, 0) for request in running}

    def how_much(self, need, budget):
        return min(need, budget)

    def emits(self, request, known):
        return self.cached[request] == known

    def step(self):
        running = self.who()
        self.cached = self.keep(running)
        batch, budget = [], self.max_tokens
        for request, known in running.items():
            n = self.how_much(known - self.cached[request], budget)
            if n <= 0:
                continue
            batch.append((request, n))
            budget -= n
            self.cached[request] += n
            if self.emits(request, known):
                self.emitted[request] += 1
                if self.emitted[request] == self.wanted[request][1]:
                    del self.wanted[request], self.cached[request]
        return batch


@misconception("Scheduler", "New requests wait until the whole batch is done; let them in as soon as a place is free.")
class StaticBatches(Planned):
    def who(self):
        running = super().who()
        left = {request: running[request] for request in self.cached if request in running}
        return left or running


@misconception("Scheduler", "A preempted request forgets what it has emitted; it loses only its cache.")
class ForgetsEmittedTokens(Planned):
    def keep(self, running):
        for request in self.cached:
            if request not in running:
                self.emitted[request] = 0
        return super().keep(running)


@misconception(
    "Scheduler",
    "After a preemption only the prompt is processed again; what was emitted must be, too, to fill the cache.",
)
class RecomputesOnlyThePrompt(Planned):
    def keep(self, running):
        return {request: self.cached.get(request, self.emitted[request]) for request in running}


@misconception("Scheduler", "You serve the newest request first, and the oldest may starve; go by order of arrival.")
class NewestFirst(Planned):
    def who(self):
        self.wanted = dict(reversed(self.wanted.items()))
        running = super().who()
        self.wanted = dict(reversed(self.wanted.items()))
        return running


@misconception("Scheduler", "A prompt waits until the budget holds all of it, so a long one never starts; cut it up.")
class WholePrompts(Planned):
    def how_much(self, need, budget):
        return need if need <= budget else 0


@misconception("Scheduler", "The budget is given to every request anew; max_tokens is for the step as a whole.")
class BudgetForEach(Planned):
    def how_much(self, need, budget):
        return min(need, self.max_tokens)


@misconception("Scheduler", "Decode steps are let in beyond the budget; their tokens count like those of a prompt.")
class DecodeIsFree(Planned):
    def how_much(self, need, budget):
        return 1 if need == 1 else min(need, budget)


@misconception("Scheduler", "A token is emitted after every chunk; only the last chunk of a prompt gives one.")
class EmitsAfterEachChunk(Planned):
    def emits(self, request, known):
        return True


@misconception("Scheduler", "Small requests overtake a big one that does not fit, which may starve; stop at the first.")
class LetsOthersOvertake(Planned):
    def who(self):
        running, room = {}, self.max_cached
        for request, (prompt, _) in self.wanted.items():
            known = prompt + self.emitted[request]
            if len(running) < self.max_seqs and known <= room:
                running[request] = known
                room -= known
        return running


@misconception("Scheduler", "A preempted request goes to the end of the queue; it keeps its place by arrival.")
class PreemptedToTheEnd(Planned):
    def who(self):
        running = super().who()
        for request in [r for r in self.cached if r not in running]:
            self.wanted[request] = self.wanted.pop(request)
        return running


@misconception("Scheduler", "You preempt the oldest request to make room; the newest has the least to lose.")
class PreemptsTheOldest(Planned):
    def who(self):
        running = {r: self.wanted[r][0] + self.emitted[r] for r in self.cached}
        while sum(running.values()) > self.max_cached:
            running.pop(next(iter(running)))
        for request, (prompt, _) in self.wanted.items():
            known = prompt + self.emitted[request]
            if request not in running:
                if len(running) == self.max_seqs or sum(running.values()) + known > self.max_cached:
                    break
                running[request] = known
        return running
