"""Typical wrong answers of chapter 12, each with the sentence that sets it right."""

import math

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


# -- sliding_window_mask -------------------------------------------------------------------------------------------


def places(T, window, sinks):
    if window < 1 or sinks < 0:
        raise ValueError("window must be at least 1 and sinks at least 0")
    return torch.arange(T)[:, None], torch.arange(T)


@misconception("sliding_window_mask", "The window is one token too wide; it counts the token itself: i - j < window.")
def window_plus_itself(T, window, sinks=0):
    i, j = places(T, window, sinks)
    return (j <= i) & ((i - j <= window) | (j < sinks))


@misconception("sliding_window_mask", "The window opens to both sides; a token must not see what comes after it.")
def window_to_both_sides(T, window, sinks=0):
    i, j = places(T, window, sinks)
    return ((i - j).abs() < window) | ((j <= i) & (j < sinks))


@misconception("sliding_window_mask", "Sinks are open to tokens before them too; they are seen only by later tokens.")
def sinks_in_the_future(T, window, sinks=0):
    i, j = places(T, window, sinks)
    return ((j <= i) & (i - j < window)) | (j < sinks).expand(T, T)


@misconception("sliding_window_mask", "Sinks take their places from the window; they come on top of it.")
def sinks_take_from_the_window(T, window, sinks=0):
    i, j = places(T, window, sinks)
    return (j <= i) & ((i - j < max(window - sinks, 1)) | (j < sinks))


@misconception("sliding_window_mask", "The sinks are ignored; the first tokens stay visible however far away they are.")
def no_sinks(T, window, sinks=0):
    return reference.sliding_window_mask(T, window)


@misconception("sliding_window_mask", "The mask is upside down: True means may attend, not hidden.")
def true_hides(T, window, sinks=0):
    return ~reference.sliding_window_mask(T, window, sinks)


@misconception("sliding_window_mask", "The text is cut into blocks that do not see each other; the window moves along.")
def blocks(T, window, sinks=0):
    i, j = places(T, window, sinks)
    return (j <= i) & ((i // window == j // window) | (j < sinks))


# -- RollingKVCache ------------------------------------------------------------------------------------------------


class Whole(reference.RollingKVCache):
    """Keep everything, and let a subclass say what is held before a piece is read, and after it was written."""

    def before(self, held, n, T):
        return (held < self.sinks) | (held > n - self.window)

    def after(self, held, n):
        return (held < self.sinks) | (held >= n - self.window)

    def append(self, k, v):
        if k.shape != v.shape:
            raise ValueError("k and v must have the same shape")
        n, T = self.n_seen, k.shape[2]
        old = getattr(self, "kept", (k[:, :, :0], v[:, :, :0], torch.arange(0)))
        new = (k.clone(), v.clone(), torch.arange(n, n + T))
        see = self.before(old[2], n, T)
        out = [torch.cat([x[:, :, see], y], 2) for x, y in zip(old[:2], new[:2], strict=True)]
        out.append(torch.cat([old[2][see], new[2]]))
        self.n_seen += T
        every = [torch.cat([x, y], 2) for x, y in zip(old[:2], new[:2], strict=True)]
        every.append(torch.cat([old[2], new[2]]))
        stay = self.after(every[2], self.n_seen)
        self.kept = (every[0][:, :, stay], every[1][:, :, stay], every[2][stay])
        return tuple(out)


@misconception(
    "RollingKVCache", "The ring runs over all slots and writes over the sinks; only the slots behind them take turns."
)
class WritesOverTheSinks(Whole):
    def before(self, held, n, T):
        return held > n - self.window - self.sinks

    def after(self, held, n):
        return held >= n - self.window - self.sinks


@misconception("RollingKVCache", "When the cache is full new tokens are not kept; it is the oldest that must go.")
class KeepsTheOldest(Whole):
    def before(self, held, n, T):
        return held < self.sinks + self.window - 1

    def after(self, held, n):
        return held < self.sinks + self.window


@misconception(
    "RollingKVCache", "One token too many is returned: the new token counts, so it sees window - 1 older ones."
)
class OneTokenTooMany(Whole):
    def before(self, held, n, T):
        return (held < self.sinks) | (held >= n - self.window)


@misconception("RollingKVCache", "One token too few is returned: a window of w is the new token and w - 1 older ones.")
class OneTokenTooFew(Whole):
    def before(self, held, n, T):
        return (held < self.sinks) | (held > n - self.window + 1)


@misconception(
    "RollingKVCache",
    "The piece is written first, and what is left is returned: its first tokens miss older ones. Read, then write.",
)
class WritesBeforeReading(Whole):
    def append(self, k, v):
        if k.shape != v.shape:
            raise ValueError("k and v must have the same shape")
        super().append(k, v)
        return self.kept


@misconception(
    "RollingKVCache",
    "Of a long piece only its last tokens come back; all of the piece is visible to some token of it.",
)
class CutsThePiece(Whole):
    def append(self, k, v):
        K, V, positions = super().append(k, v)
        if k.shape[2] <= self.window:
            return K, V, positions
        see = (positions < self.sinks) | (positions >= self.n_seen - self.window)
        return K[:, :, see], V[:, :, see], positions[see]


@misconception(
    "RollingKVCache", "Positions count what is held and start again when tokens are dropped; count what was seen."
)
class CountsWhatIsHeld(Whole):
    def append(self, k, v):
        K, V, positions = super().append(k, v)
        return K, V, torch.arange(len(positions))


@misconception("RollingKVCache", "Nothing is ever dropped; a token that no later token may see must leave the memory.")
class NeverDrops(Whole):
    def after(self, held, n):
        return held >= 0


@misconception(
    "RollingKVCache",
    "A slice of the piece is kept, and with it the whole piece stays in memory. Copy what you keep.",
)
class KeepsAView(Whole):
    def append(self, k, v):
        got = super().append(k, v)
        self.last = k[:, :, -self.window :], v[:, :, -self.window :]
        return got


@misconception("RollingKVCache", "Keys move along in the ring but values do not; both belong to the same slot.")
class ForgetsTheValues(Whole):
    def append(self, k, v):
        K, V, positions = super().append(k, v)
        return K, V[:, :, positions.argsort(descending=True)], positions


# -- streaming_positions -------------------------------------------------------------------------------------------


@misconception(
    "streaming_positions", "Positions are those in the text; count inside the cache, so that none exceeds its size."
)
def absolute_positions(n_seen, window, sinks):
    tokens, _ = reference.streaming_positions(n_seen, window, sinks)
    return tokens, tokens


@misconception(
    "streaming_positions", "A gap is left between the sinks and the window; inside the cache they are neighbours."
)
def gap_behind_the_sinks(n_seen, window, sinks):
    tokens, positions = reference.streaming_positions(n_seen, window, sinks)
    return tokens, torch.where(tokens >= sinks, positions + (n_seen > sinks + window), positions)


@misconception("streaming_positions", "The sinks take their places from the window; they come on top of it.")
def sinks_inside_the_window(n_seen, window, sinks):
    reference.streaming_positions(n_seen, window, sinks)
    return reference.streaming_positions(n_seen, max(window - sinks, 1), sinks)


@misconception(
    "streaming_positions",
    "A token that is a sink and in the window is listed twice; begin the window behind the sinks.",
)
def sinks_twice(n_seen, window, sinks):
    reference.streaming_positions(n_seen, window, sinks)
    last = torch.arange(max(0, n_seen - window), n_seen)
    tokens = torch.cat([torch.arange(min(sinks, n_seen)), last])
    return tokens, torch.arange(len(tokens))


@misconception(
    "streaming_positions", "The window lacks a token: the newest is n_seen - 1, and it is one of the window's tokens."
)
def window_without_the_newest(n_seen, window, sinks):
    tokens, positions = reference.streaming_positions(n_seen, window, sinks)
    return tokens[:-1], positions[:-1]


@misconception("streaming_positions", "Positions count from the newest token backwards; they count from the oldest.")
def counted_backwards(n_seen, window, sinks):
    tokens, positions = reference.streaming_positions(n_seen, window, sinks)
    return tokens, positions.flip(0)


# -- rope_freqs_scaled ---------------------------------------------------------------------------------------------


def scaled(hd, base, scale, mode, L_orig, alpha, beta, **wrong):
    """The right answer but for what `wrong` says."""
    freqs, mscale = reference.rope_freqs_scaled(hd, base, scale, mode, L_orig, alpha, beta)
    plain = base ** (-torch.arange(0, hd, 2, dtype=torch.float64) / hd)
    if mode == "linear" and "linear" in wrong:
        freqs = wrong["linear"](plain)
    if mode == "ntk" and "base" in wrong:
        freqs = wrong["base"] ** (-torch.arange(0, hd, 2, dtype=torch.float64) / hd)
    if mode == "yarn":
        turns = wrong.get("turns", L_orig * plain / (2 * math.pi))
        keep = wrong.get("ramp", lambda r: ((r - alpha) / (beta - alpha)).clamp(0, 1))(turns)
        freqs = keep * plain + (1 - keep) * plain / scale
        mscale = wrong.get("mscale", mscale)
    return freqs, mscale


@misconception(
    "rope_freqs_scaled", "Frequencies are multiplied by the scale; for a longer text the hands must turn more slowly."
)
def turns_faster(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, linear=lambda f: f * scale)


@misconception(
    "rope_freqs_scaled", "NTK multiplies the base by the scale itself; the exponent hd / (hd - 2) is missing."
)
def ntk_without_the_exponent(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, base=base * scale)


@misconception("rope_freqs_scaled", "NTK divides the frequencies as well as raising the base; it does only the latter.")
def ntk_divides_too(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    freqs, mscale = reference.rope_freqs_scaled(hd, base, scale, mode, L_orig, alpha, beta)
    return (freqs / scale if mode == "ntk" else freqs), mscale


@misconception(
    "rope_freqs_scaled", "The ramp is reversed: pairs of many turns stay as they are, those of few are slowed down."
)
def ramp_reversed(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    def ramp(turns):
        return 1 - ((turns - alpha) / (beta - alpha)).clamp(0, 1)

    return scaled(hd, base, scale, mode, L_orig, alpha, beta, ramp=ramp)


@misconception("rope_freqs_scaled", "The share of YaRN is not clamped; it must stay between 0 and 1.")
def ramp_without_ends(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, ramp=lambda r: (r - alpha) / (beta - alpha))


@misconception(
    "rope_freqs_scaled", "Radians are taken for turns: a turn is 2 pi radians, so divide L_orig * f by 2 pi."
)
def radians_for_turns(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    plain = base ** (-torch.arange(0, hd, 2, dtype=torch.float64) / hd)
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, turns=L_orig * plain)


@misconception("rope_freqs_scaled", "Turns are counted in the new, longer window; YaRN counts them in the trained one.")
def turns_of_the_long_window(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    plain = base ** (-torch.arange(0, hd, 2, dtype=torch.float64) / hd)
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, turns=L_orig * scale * plain / (2 * math.pi))


@misconception(
    "rope_freqs_scaled", "The ramp runs evenly over the pairs between alpha and beta; it runs over their turns."
)
def ramp_over_pairs(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    def ramp(turns):
        logs = turns.log()  # even steps from pair to pair
        low = math.log(max(alpha, 1e-3))
        return ((logs - low) / (math.log(beta) - low)).clamp(0, 1)

    return scaled(hd, base, scale, mode, L_orig, alpha, beta, ramp=ramp)


@misconception("rope_freqs_scaled", "The stretch of YaRN is left out: mscale is 0.1 ln(scale) + 1, not always 1.")
def no_stretch(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, mscale=1.0)


@misconception(
    "rope_freqs_scaled",
    "mscale is squared already; it stretches queries and keys each, so scores square it by themselves.",
)
def stretch_squared(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    return scaled(hd, base, scale, mode, L_orig, alpha, beta, mscale=(0.1 * math.log(scale) + 1) ** 2)


@misconception("rope_freqs_scaled", "Every mode gets YaRN's stretch; with linear and NTK scaling mscale is 1.")
def stretch_for_all(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    freqs, _ = reference.rope_freqs_scaled(hd, base, scale, mode, L_orig, alpha, beta)
    return freqs, 0.1 * math.log(scale) + 1


# -- linear_attention, linear_attention_step -----------------------------------------------------------------------


def divided(out, total):
    return torch.where(total == 0, 0.0, out / total)


@misconception("linear_attention", "Every token sees the whole text; row i sums over the tokens up to i only.")
def sees_the_future(q, k, v, phi, normalize=True):
    weights = phi(q) @ phi(k).mT
    return divided(weights @ v, weights.sum(-1, keepdim=True)) if normalize else weights @ v


@misconception("linear_attention", "The sum is not divided by the sum of the weights; with normalize it is a mean.")
def never_normalises(q, k, v, phi, normalize=True):
    return (phi(q) @ phi(k).mT).tril() @ v


@misconception("linear_attention", "The weights go through a softmax; here they are the dot products themselves.")
def softmax_of_features(q, k, v, phi, normalize=True):
    weights = phi(q) @ phi(k).mT
    future = torch.ones(weights.shape[-2:], dtype=torch.bool).triu(1)
    if not normalize:
        return weights.tril() @ v
    return weights.masked_fill(future, -math.inf).softmax(-1) @ v


@misconception("linear_attention", "phi is applied to the keys only; queries and keys both go through it.")
def phi_of_keys_only(q, k, v, phi, normalize=True):
    features = phi(k)
    weights = (torch.cat([q, q[..., :1]], -1)[..., : features.shape[-1]] @ features.mT).tril()
    return divided(weights @ v, weights.sum(-1, keepdim=True)) if normalize else weights @ v


@misconception(
    "linear_attention", "The sum of each row is divided by the number of tokens, not by that of the weights."
)
def divides_by_the_count(q, k, v, phi, normalize=True):
    weights = (phi(q) @ phi(k).mT).tril()
    counts = torch.arange(1, q.shape[2] + 1, dtype=v.dtype)[:, None]
    return weights @ v / counts if normalize else weights @ v


@misconception("linear_attention", "A row without any weight becomes NaN; where the sum is exactly 0 the output is 0.")
def nan_without_weight(q, k, v, phi, normalize=True):
    weights = (phi(q) @ phi(k).mT).tril()
    return weights @ v / weights.sum(-1, keepdim=True) if normalize else weights @ v


@misconception(
    "linear_attention",
    "A small constant is added to the sum of the weights, and small sums are off. Test for 0 instead.",
)
def constant_in_the_sum(q, k, v, phi, normalize=True):
    weights = (phi(q) @ phi(k).mT).tril()
    return weights @ v / (weights.sum(-1, keepdim=True) + 1e-6) if normalize else weights @ v


def one_step(state, q, k, v, normalize, own=True, outer=True, z_of=None):
    """The step, right but for what the switches say."""
    S = (
        k.unsqueeze(-1) * v.unsqueeze(-2)
        if outer
        else (v.unsqueeze(-1) * k.unsqueeze(-2)).flatten(-2).unflatten(-1, (k.shape[-1], v.shape[-1]))
    )
    z = k if z_of is None else z_of
    before = (torch.zeros_like(S), torch.zeros_like(z)) if state is None else state
    after = (before[0] + S, before[1] + z)
    read = after if own else before
    out = torch.einsum("bhm,bhmv->bhv", q, read[0])
    total = (q * read[1]).sum(-1, keepdim=True)
    return (divided(out, total) if normalize else out), after


@misconception(
    "linear_attention",
    "The token reads the state before it has joined it, so it does not see itself. Add first, then read.",
    replaces="linear_attention_step",
)
def reads_before_adding(state, q, k, v, normalize=True):
    return one_step(state, q, k, v, normalize, own=False)


@misconception(
    "linear_attention",
    "The outer product is transposed: rows of the state belong to the features of the key, columns to the value.",
    replaces="linear_attention_step",
)
def outer_product_transposed(state, q, k, v, normalize=True):
    return one_step(state, q, k, v, normalize, outer=False)


@misconception(
    "linear_attention",
    "Only the newest key is used to normalise; z is the sum of all keys so far.",
    replaces="linear_attention_step",
)
def z_is_not_summed(state, q, k, v, normalize=True):
    out, (S, _) = one_step(None if state is None else (state[0], torch.zeros_like(state[1])), q, k, v, normalize)
    return out, (S, k)


@misconception(
    "linear_attention",
    "The state fades: the old one is multiplied by a number below 1. Here nothing is forgotten.",
    replaces="linear_attention_step",
)
def state_fades(state, q, k, v, normalize=True):
    state = None if state is None else (0.9 * state[0], 0.9 * state[1])
    return one_step(state, q, k, v, normalize)


@misconception(
    "linear_attention",
    "The given state is changed in place, so a text cannot branch. Make a new one.",
    replaces="linear_attention_step",
)
def changes_the_state(state, q, k, v, normalize=True):
    out, new = one_step(state, q, k, v, normalize)
    if state is not None:
        state[0].copy_(new[0])
        state[1].copy_(new[1])
        return out, (state[0], state[1])
    return out, (new[0].clone(), new[1].clone())


# -- fit_messages --------------------------------------------------------------------------------------------------


def parts(messages, keep_system):
    """The head, and the turns behind it, as lists."""
    n = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    turns = [] if keep_system or not n else [messages[:n]]
    for i, m in enumerate(messages[n:]):
        if i == 0 or m["role"] == "user":
            turns.append([])
        turns[-1].append(m)
    return (messages[:n] if keep_system else []), turns


def fit(messages, count_tokens, budget, keep_system, full=False, strict=True, pay=True, goes_on=False):
    """The right answer but for what the switches say."""
    head, turns = parts(messages, keep_system)
    left = budget - sum(map(count_tokens, head)) * pay
    if left < 0 and head:
        raise ValueError("the system messages alone exceed the budget")
    kept = []
    for turn in reversed(turns):
        cost = sum(map(count_tokens, turn))
        if cost > left or (full and cost == left):
            if goes_on:
                continue
            break
        left, kept = left - cost, turn + kept
    return head + kept


@misconception("fit_messages", "A conversation that fills the budget exactly is cut; only what exceeds it must go.")
def exactly_full_is_too_much(messages, count_tokens, budget, keep_system=True):
    return fit(messages, count_tokens, budget, keep_system, full=True)


@misconception("fit_messages", "Characters of the content are counted, not tokens; ask count_tokens.")
def counts_characters(messages, count_tokens, budget, keep_system=True):
    return fit(messages, lambda m: len(m["content"]), budget, keep_system)


@misconception(
    "fit_messages", "The system message goes with the oldest turns; with keep_system it is paid first and kept."
)
def loses_the_system(messages, count_tokens, budget, keep_system=True):
    return fit(messages, count_tokens, budget, False)


@misconception("fit_messages", "The head is kept but not paid for, so the budget is exceeded by its tokens.")
def head_is_free(messages, count_tokens, budget, keep_system=True):
    return fit(messages, count_tokens, budget, keep_system, pay=False)


@misconception(
    "fit_messages", "Turns are torn apart: an answer or a tool result stays without its question. Keep whole turns."
)
def tears_turns(messages, count_tokens, budget, keep_system=True):
    head, turns = parts(messages, keep_system)
    left = budget - sum(map(count_tokens, head))
    if left < 0 and head:
        raise ValueError("the system messages alone exceed the budget")
    kept = []
    for m in reversed([m for turn in turns for m in turn]):
        left -= count_tokens(m)
        if left < 0:
            break
        kept = [m, *kept]
    return head + kept


@misconception(
    "fit_messages",
    "A turn too large is skipped and older ones are kept behind it; stop at the first that does not fit.",
)
def skips_and_goes_on(messages, count_tokens, budget, keep_system=True):
    return fit(messages, count_tokens, budget, keep_system, goes_on=True)


@misconception("fit_messages", "The oldest turns are kept and the newest dropped; it is the other way round.")
def keeps_the_oldest(messages, count_tokens, budget, keep_system=True):
    head, turns = parts(messages, keep_system)
    left = budget - sum(map(count_tokens, head))
    if left < 0 and head:
        raise ValueError("the system messages alone exceed the budget")
    kept = []
    for turn in turns:
        left -= sum(map(count_tokens, turn))
        if left < 0:
            break
        kept += turn
    return head + kept


@misconception("fit_messages", "The newest turn is kept although it does not fit; the budget holds for it too.")
def newest_turn_always_stays(messages, count_tokens, budget, keep_system=True):
    got = fit(messages, count_tokens, budget, keep_system)
    head, turns = parts(messages, keep_system)
    return head + turns[-1] if turns and len(got) == len(head) else got


@misconception(
    "fit_messages", "Every system message is kept, wherever it stands; only those at the beginning are the head."
)
def keeps_every_system(messages, count_tokens, budget, keep_system=True):
    if not keep_system:
        return fit(messages, count_tokens, budget, False)
    system = [m for m in messages if m["role"] == "system"]
    return fit([*system, *(m for m in messages if m["role"] != "system")], count_tokens, budget, True)


@misconception("fit_messages", "A head that exceeds the budget is returned in silence; raise a ValueError.")
def head_may_exceed(messages, count_tokens, budget, keep_system=True):
    head, _ = parts(messages, keep_system)
    return head if sum(map(count_tokens, head)) > budget else fit(messages, count_tokens, budget, keep_system)


# -- conversation_cost ---------------------------------------------------------------------------------------------


def bill(turns, price_in, price_out, cached_price, answers=True, past_counts=True):
    """The right answer but for what the switches say."""
    cheap = price_in if cached_price is None else cached_price
    past, cached, bills = 0, 0, []
    for n_in, n_out in turns:
        bills.append(n_in * price_in + past * cheap + n_out * price_out)
        cached += past
        past += (n_in + n_out * answers) * past_counts
    read = cached + sum(n for n, _ in turns)
    written = sum(n for _, n in turns)
    return {
        "input_tokens": read,
        "cached_tokens": cached,
        "output_tokens": written,
        "bills": bills,
        "total": sum(bills),
    }


@misconception("conversation_cost", "Each request is charged for its own message only; it sends the whole past again.")
def only_the_new_message(turns, price_in, price_out, cached_price=None):
    return bill(turns, price_in, price_out, cached_price, past_counts=False)


@misconception("conversation_cost", "Earlier answers are not counted as read again; they are a part of the past too.")
def answers_are_not_read_again(turns, price_in, price_out, cached_price=None):
    return bill(turns, price_in, price_out, cached_price, answers=False)


@misconception("conversation_cost", "Answers are charged at the price of reading; writing has its own price.")
def output_at_the_input_price(turns, price_in, price_out, cached_price=None):
    return bill(turns, price_in, price_in, cached_price)


@misconception(
    "conversation_cost", "New messages are charged at the cached price; only what was there before is cached."
)
def new_tokens_at_the_cached_price(turns, price_in, price_out, cached_price=None):
    return bill(turns, price_in if cached_price is None else cached_price, price_out, cached_price)


@misconception("conversation_cost", "Cached tokens are left out of the input; they are read, only at another price.")
def cached_are_no_input(turns, price_in, price_out, cached_price=None):
    got = bill(turns, price_in, price_out, cached_price)
    return {**got, "input_tokens": got["input_tokens"] - got["cached_tokens"]}


@misconception("conversation_cost", "A cached price of 0 is taken for none; None alone means that nothing is cheaper.")
def zero_is_none(turns, price_in, price_out, cached_price=None):
    return bill(turns, price_in, price_out, cached_price or None)


def needles(lm, lengths, depths, trials, rng, place=None, fresh=True, last=-1, key_at_end=True):
    """The right answer but for what the arguments say."""
    if min(lengths) < 3 or min(depths) < 0 or max(depths) > 1 or trials < 1:
        raise ValueError("impossible haystack")
    place = place or (lambda depth, length: round(depth * (length - 3)))
    value = torch.randint(0, 10, (trials,), generator=rng)
    grid = torch.zeros(len(lengths), len(depths), dtype=torch.float64)
    for row, length in enumerate(lengths):
        for column, depth in enumerate(depths):
            ids = torch.randint(11, 43, (trials, length), generator=rng)
            if fresh:
                value = torch.randint(0, 10, (trials,), generator=rng)
            at = place(depth, length)
            ids[:, at], ids[:, at + 1] = 10, value
            if key_at_end:
                ids[:, -1] = 10
            grid[row, column] = (lm(ids)[:, last].argmax(-1) == value).double().mean()
    return grid


@misconception(
    "conversation_cost", "Depth runs backwards: 0 is the beginning of the text, 1 its end.", replaces="needle_accuracy"
)
def depth_reversed(lm, lengths, depths, trials, rng):
    return needles(lm, lengths, depths, trials, rng, place=lambda depth, length: round((1 - depth) * (length - 3)))


@misconception(
    "conversation_cost",
    "The grid is transposed: rows are lengths and columns are depths.",
    replaces="needle_accuracy",
)
def grid_transposed(lm, lengths, depths, trials, rng):
    return needles(lm, lengths, depths, trials, rng).T.contiguous()


@misconception(
    "conversation_cost",
    "The place is rounded down; use round, so that a depth means the nearest place.",
    replaces="needle_accuracy",
)
def place_rounded_down(lm, lengths, depths, trials, rng):
    return needles(lm, lengths, depths, trials, rng, place=lambda depth, length: int(depth * (length - 3)))


@misconception(
    "conversation_cost",
    "The answer is read off the first place; only the last place has seen the question.",
    replaces="needle_accuracy",
)
def reads_the_first_place(lm, lengths, depths, trials, rng):
    return needles(lm, lengths, depths, trials, rng, last=0)


@misconception(
    "conversation_cost",
    "The same values are hidden in every cell; draw them anew, or the cells are not independent.",
    replaces="needle_accuracy",
)
def same_values_everywhere(lm, lengths, depths, trials, rng):
    return needles(lm, lengths, depths, trials, rng, fresh=False)


@misconception(
    "conversation_cost",
    "A single text is drawn for each cell and counted for all trials; every trial has a text of its own.",
    replaces="needle_accuracy",
)
def one_text_a_cell(lm, lengths, depths, trials, rng):
    if min(lengths) < 3 or min(depths) < 0 or max(depths) > 1 or trials < 1:
        raise ValueError("impossible haystack")
    grid = torch.zeros(len(lengths), len(depths), dtype=torch.float64)
    for row, length in enumerate(lengths):
        for column, depth in enumerate(depths):
            grid[row, column] = needles(lm, [length], [depth], 1, rng)[0, 0]
    return grid


@misconception(
    "conversation_cost",
    "The answer is chosen among the values only; the largest of all logits must be the hidden value.",
    replaces="needle_accuracy",
)
def chooses_among_values(lm, lengths, depths, trials, rng):
    return needles(lambda ids: lm(ids)[..., :10], lengths, depths, trials, rng)


@misconception(
    "conversation_cost",
    "The deepest needle has one place less than you count on: key, value and question take three, so use length - 3.",
    replaces="needle_accuracy",
)
def one_place_too_many(lm, lengths, depths, trials, rng):
    def place(depth, length):
        return min(round(depth * (length - 2)), length - 3)

    return needles(lm, lengths, depths, trials, rng, place=place)
