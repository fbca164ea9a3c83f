# %% [markdown]
# # Chapter 12 · Context and memory
#
# A model sees a window of tokens and nothing else. In this chapter you build the windows, the memory that never
# grows, the ways to stretch a window beyond what was trained, an attention whose memory has a fixed size, and the
# bookkeeping of a conversation that has become too long. Retrieval, another kind of memory, is chapter 18.
#
# Conventions: tokens count from 0, the newest of n tokens is n - 1; a window of w tokens counts the current token;
# in a mask True means "may attend". Axes: B batch, H heads, T tokens, hd width of a head.

# %%
import math

import torch

# %% [markdown]
# **Given: rotary positions with any frequencies.** Element `i` of a head pairs with element `i + hd/2`.


# %%
def rotate(x, positions, freqs, mscale=1.0):
    """Turn the pairs of x (..., T, hd) by positions (T,) times freqs (hd/2,), and stretch everything by mscale."""
    angles = positions.unsqueeze(-1) * freqs  # (T, hd/2)
    cos, sin = (mscale * angles.cos()).to(x.dtype), (mscale * angles.sin()).to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# %% [markdown]
# **Given: a language whose truth is known.** Ids 0 to 7 are words: the next id is drawn from the row of a table.
# Ids 8 and 9 are marks: the id before the mark comes again. Id 10 begins a document. No reader can have a smaller
# loss than `true_loss`.

# %%
WORDS, IDS, BEGIN = 8, 11, 10


def make_language(seed):
    """Draw the table (10, 10): entry [a, b] is the probability that b follows the word a; a mark follows in 1 of 5."""
    generator = torch.Generator().manual_seed(seed)
    words = (1.5 * torch.randn(10, WORDS, generator=generator, dtype=torch.float64)).softmax(-1)
    return torch.cat([0.8 * words, torch.full((10, 2), 0.1, dtype=torch.float64)], dim=1)


def write_documents(table, number, length, generator):
    """Write documents: int64 (number, length), each BEGIN, a word, and then what the language says."""
    ids = torch.full((number, length), BEGIN)
    ids[:, 1] = torch.randint(0, WORDS, (number,), generator=generator)
    for t in range(2, length):
        last, before = ids[:, t - 1], ids[:, t - 2]
        drawn = torch.multinomial(table[last], 1, generator=generator).squeeze(1)
        ids[:, t] = torch.where(last >= WORDS, before, drawn)
    return ids


def true_loss(table, ids):
    """Return -ln p of the ids 2, 3, ... of each document under the language itself: (number, length - 2)."""
    last, following = ids[:, 1:-1], ids[:, 2:]
    return torch.where(last >= WORDS, 0.0, -table[last, following.clamp(max=9)].log())


# %% [markdown]
# **Given: a small reader, trained on short documents of that language** (3 seconds). A table of pairs predicts from
# the last id, and one attention head adds to it. Words need the table alone; after a mark the head must look one
# place back. What does the head look at when it is *not* needed? Once your `RollingKVCache` and
# `streaming_positions` work, `stream_perplexity` answers: it reads long documents one token at a time.


# %%
def train_reader(table, seed=0, steps=600, length=48, hd=16, base=100.0):
    """Train a reader on documents of `length` ids and return its weights."""
    generator = torch.Generator().manual_seed(seed)
    reader = {name: 0.3 * torch.randn(IDS, hd, generator=generator) for name in "qkv"}
    reader |= {"o": 0.3 * torch.randn(hd, IDS, generator=generator), "table": torch.zeros(IDS, IDS)}
    optimizer = torch.optim.AdamW([w.requires_grad_() for w in reader.values()], weight_decay=0.0)
    freqs, places = base ** (-torch.arange(hd // 2) / (hd // 2)), torch.arange(length)
    future = torch.ones(length, length).triu(1).bool()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / steps)
        ids = write_documents(table, 32, length, generator)
        q, k = (rotate(reader[name][ids], places, freqs) for name in "qk")  # (32, length, hd)
        weights = (q @ k.mT / math.sqrt(hd)).masked_fill(future, -math.inf).softmax(-1)
        logits = reader["table"][ids] + weights @ reader["v"][ids] @ reader["o"]
        loss = torch.nn.functional.cross_entropy(logits[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: w.detach() for name, w in reader.items()} | {"freqs": freqs, "mscale": 1.0}


def stream_perplexity(reader, ids, window, sinks=0, inside=True, skip=100):
    """Read documents (B, T) one id at a time with a RollingKVCache; return the perplexity after the first `skip`.

    inside: count positions inside the cache (streaming_positions) and not from the document's beginning.
    """
    cache, losses, stretch = RollingKVCache(window, sinks), [], (reader["freqs"], reader["mscale"])
    for t in range(ids.shape[1] - 1):
        k, v = (reader[name][ids[:, t : t + 1]].unsqueeze(1) for name in "kv")  # (B, 1, 1, hd), keys not yet turned
        keys, values, positions = cache.append(k, v)
        order = positions.argsort()
        keys, values, positions = keys[:, :, order], values[:, :, order], positions[order]
        if inside:
            tokens, ranks = streaming_positions(t + 1, window, sinks)
            positions = ranks[torch.searchsorted(tokens, positions)]
        q = rotate(reader["q"][ids[:, t]][:, None, None], positions[-1:], *stretch)  # (B, 1, 1, hd)
        weights = (q @ rotate(keys, positions, *stretch).mT / q.shape[-1] ** 0.5).softmax(-1)  # (B, 1, 1, n)
        logits = reader["table"][ids[:, t]] + (weights @ values)[:, 0, 0] @ reader["o"]  # (B, IDS)
        losses.append(torch.nn.functional.cross_entropy(logits, ids[:, t + 1], reduction="none"))
    return torch.stack(losses[skip:]).mean().exp().item()


# %% [markdown]
# ## 12.1 sliding_window_mask
#
# Each token sees its neighbourhood in the past and, if you like, the first few tokens of the text.


# %%
def sliding_window_mask(T, window, sinks=0):
    """Build the mask under which each token sees the last `window` tokens and the first `sinks` of the past.

    Args:
        T (int): number of tokens, at least 0.
        window (int): tokens that a row sees up to and including itself, at least 1; may exceed T.
        sinks (int): first tokens of the text that stay visible for ever, at least 0; may exceed T.

    Returns:
        (T, T) bool: entry [i, j] is True where token i may attend to token j: j <= i, and in addition
        i - j < window or j < sinks.

    Raises:
        ValueError: window < 1 or sinks < 0.

    Example:
        >>> sliding_window_mask(5, window=2, sinks=1).int()
        tensor([[1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 0, 0],
                [1, 0, 1, 1, 0],
                [1, 0, 0, 1, 1]], dtype=torch.int32)

    Notes:
        Sinks come on top of the window and take nothing from it. The window counts the token itself.
    """
    raise NotImplementedError("sliding_window_mask")


# %% [markdown]
# ## 12.2 RollingKVCache
#
# If nobody will ever look at a token again, its key and value need not be kept. Then the memory of an endless text
# has an end: a ring of `window` slots, and a few slots in front that are never written over.


# %%
class RollingKVCache:
    """Hold the keys and values of the first `sinks` and the last `window` tokens of one layer.

    Args:
        window (int): at least 1. sinks (int): at least 0.

    Attributes:
        n_seen (int): tokens appended so far, whether they are still held or not.

    Raises:
        ValueError: window < 1 or sinks < 0.

    Example:
        >>> cache = RollingKVCache(window=2)
        >>> for t in range(4):
        ...     k = torch.full((1, 1, 1, 1), float(t))
        ...     K, V, positions = cache.append(k, -k)
        >>> sorted(positions.tolist()), sorted(K.flatten().tolist()), cache.n_seen
        ([2, 3], [2.0, 3.0], 4)

    Notes:
        However long the text and its pieces, between two calls the cache has room for sinks + window tokens at
        most. A slice counts as large as the tensor it was cut from, since it keeps all of that in memory.
    """

    def __init__(self, window, sinks=0):
        """Hold nothing; n_seen is 0."""
        raise NotImplementedError("RollingKVCache")

    def append(self, k, v):
        """Take in the keys and values of the next T tokens; return all that any of them may attend to.

        Args:
            k, v (B, Hk, T, hd): T >= 1, and T may exceed the window; B, Hk, hd, dtype are those of the first append.
        Returns:
            (K, V, positions): K, V (B, Hk, n, hd) and positions (n,) int64, the number of each token in the text,
            counted from 0. They hold exactly the tokens that at least one of the T new tokens sees in the mask of
            sliding_window_mask, each once, in any order; K, V and positions in the same order.
        Raises:
            ValueError: k and v differ in shape; then nothing is taken in.
        Notes:
            With T = 1 the new token may attend to all that is returned. With a longer piece the older tokens that
            its first token sees are among them, although the piece may push them out. What append returned does not
            change in later calls, and the cache does not change when k or v are changed in place afterwards.
        """
        raise NotImplementedError("RollingKVCache")


# %% [markdown]
# ## 12.3 streaming_positions
#
# A model trained on 4,096 positions has never met position 1,000,000. It need not: count inside the cache.


# %%
def streaming_positions(n_seen, window, sinks):
    """Say which tokens a rolling cache holds after n_seen tokens, and where they stand inside the cache.

    Args:
        n_seen (int): tokens read so far, at least 0; the newest is n_seen - 1.
        window (int): newest tokens held, the newest itself among them, at least 1.
        sinks (int): oldest tokens held, on top of the window, at least 0.

    Returns:
        (tokens, positions), both (n,) int64 with n = min(n_seen, sinks + window): tokens are the tokens held, by
        their number in the text, ascending; positions are their positions inside the cache.

    Raises:
        ValueError: n_seen < 0, window < 1 or sinks < 0.

    Example:
        >>> streaming_positions(9, window=3, sinks=2)
        (tensor([0, 1, 6, 7, 8]), tensor([0, 1, 2, 3, 4]))

    Notes:
        As long as nothing has been dropped, both are 0, 1, 2, ... Positions never have a gap, so the largest ever
        is sinks + window - 1, and two tokens of the window are as far apart as they are in the text.
        Work and memory must not grow with n_seen: a billion tokens cost no more than a hundred.
    """
    raise NotImplementedError("streaming_positions")


# %% [markdown]
# ## 12.4 rope_freqs_scaled
#
# The other way to a longer context: turn more slowly, so that far positions fall on angles that were trained.


# %%
def rope_freqs_scaled(hd, base, scale, mode, L_orig, alpha=1.0, beta=32.0):
    """Return the rotary frequencies for a window `scale` times as long as the trained one, and YaRN's stretch.

    Args:
        hd (int): width of a head, even and at least 4. base (float): above 1.
        scale (float): how many times longer, at least 1.
        mode (str): "linear", "ntk" or "yarn".
        L_orig (int): trained length in tokens. Only YaRN uses L_orig, alpha and beta, 0 <= alpha < beta.

    Returns:
        (freqs, mscale): freqs (hd/2,) float64, radians per position; mscale, a float.

    Raises:
        ValueError: hd is odd or below 4, scale < 1, or mode is another word.

    Example:
        >>> rope_freqs_scaled(8, 10000.0, 4.0, "linear", 4096)
        (tensor([0.2500, 0.0250, 0.0025, 0.0003], dtype=torch.float64), 1.0)

    Notes:
        With f_i = base^(-2i/hd), i = 0 ... hd/2 - 1.
        linear: f_i / scale.    ntk: f_i of the base  base * scale^(hd / (hd - 2)).    mscale is 1.0 in both.
        yarn: g_i f_i + (1 - g_i) f_i / scale, with g_i = (r_i - alpha) / (beta - alpha) cut to 0 ... 1 and
        r_i = L_orig * f_i / (2 pi), the turns of pair i in the trained window; mscale is 0.1 ln(scale) + 1.
    """
    raise NotImplementedError("rope_freqs_scaled")


# %% [markdown]
# ## 12.5 linear_attention, linear_attention_step
#
# Weights without an exponential of the pair can be summed up once and for all. The memory is a matrix, and it has
# the same size after a million tokens as after one.


# %%
def linear_attention(q, k, v, phi, normalize=True):
    """Compute causal attention with the weights phi(q_i) . phi(k_j) for all tokens at once.

    Args:
        q, k (B, H, T, hd) and v (B, H, T, hv), T >= 1; hv may differ from hd.
        phi: a function of a tensor that maps each vector of the last axis, (..., hd) -> (..., m); any m.
        normalize (bool): divide by the sum of the weights.

    Returns:
        (B, H, T, hv), in the dtype of v. Row i is the sum over j <= i of w_ij v_j, with w_ij = phi(q_i) . phi(k_j);
        with normalize, divided by the sum over j <= i of w_ij, and zeros where that sum is exactly 0.

    Example:
        >>> ones = torch.ones(1, 1, 3, 2)
        >>> v = torch.tensor([3.0, 1.0, 8.0]).reshape(1, 1, 3, 1)
        >>> linear_attention(ones, ones, v, torch.exp).flatten()
        tensor([3., 2., 4.])

    Notes:
        No scale, no softmax. phi decides whether the weights are positive; here nothing depends on it.
    """
    raise NotImplementedError("linear_attention")


# %%
def linear_attention_step(state, q, k, v, normalize=True):
    """Take one more token into the state and return its output and the new state.

    Args:
        state: None before the first token, then what the last call returned: a pair (S, z) with S (B, H, m, hv)
            the sum of the outer products of k and v, S[.., a, c] = sum of k_a v_c, and z (B, H, m) the sum of k.
        q, k (B, H, m): query and key of the new token, **phi already applied**. v (B, H, hv).
        normalize (bool): as in linear_attention.

    Returns:
        (out, state): out (B, H, hv), the row of linear_attention for this token; state, the new pair (S, z).

    Example:
        >>> q = k = torch.ones(1, 1, 2)
        >>> out, state = linear_attention_step(None, q, k, torch.tensor([[[3.0]]]))
        >>> out, state = linear_attention_step(state, q, k, torch.tensor([[[1.0]]]))
        >>> out, state[0].shape, state[1]
        (tensor([[[2.]]]), torch.Size([1, 1, 2, 1]), tensor([[[2., 2.]]]))

    Notes:
        The new token sees itself. The given state is not changed, so that a text can branch. z is kept also
        without normalize.
    """
    raise NotImplementedError("linear_attention_step")


# %% [markdown]
# ## 12.6 fit_messages
#
# Why an assistant forgets: before each request somebody decides which messages still fit. Here that is you.


# %%
def fit_messages(messages, count_tokens, budget, keep_system=True):
    """Return the system messages and the longest run of newest whole turns that fit into the budget.

    Args:
        messages: list of dicts with "role" ("system", "user", "assistant", "tool") and "content"; not modified.
        count_tokens: a function of one message (the dict) that gives its tokens, an int >= 0.
        budget (int): tokens allowed for all that is returned; exactly `budget` is allowed.
        keep_system (bool): keep the head whatever its age; otherwise it is the oldest block, like any other.

    Returns:
        list of the kept messages, in their order.

    Raises:
        ValueError: keep_system and the head alone exceeds the budget.

    Example:
        >>> chat = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "aaa"), ("user", "bb"))]
        >>> [m["content"] for m in fit_messages(chat, lambda m: len(m["content"]), 4)]
        ['s', 'bb']

    Notes:
        The head is the run of system messages at the beginning. Behind it, a turn is a user message and all that
        follows up to the next user message: answers, tool calls, tool results. What stands between the head and the
        first user message is a turn too. A turn is kept whole or not at all, and behind the first turn that does not
        fit, nothing older is kept. If not even the newest turn fits, only the head comes back, or [].
    """
    raise NotImplementedError("fit_messages")


# %% [markdown]
# ## 12.7 conversation_cost, needle_accuracy
#
# Two measurements: what it costs to send the whole conversation with every question, and whether a model really
# uses the window that it has.


# %%
def conversation_cost(turns, price_in, price_out, cached_price=None):
    """Add up the tokens and the price of a conversation in which every request sends all that came before.

    Args:
        turns: list of pairs (n_in, n_out) of int: tokens of the new message and of the answer to it.
        price_in, price_out (float): price of one token read and of one token written.
        cached_price (float): price of a token read that an earlier request or answer held already; None: price_in.

    Returns:
        dict: "input_tokens", "cached_tokens", "output_tokens" (int, over all requests), "bills" (list of float, one
        a turn) and "total" (float, their sum).

    Example:
        >>> cost = conversation_cost([(10, 5), (20, 5)], price_in=1.0, price_out=4.0)
        >>> cost["input_tokens"], cost["cached_tokens"], cost["bills"], cost["total"]
        (45, 15, [30.0, 55.0], 85.0)

    Notes:
        The request of a turn holds all messages and answers before it and its own message. cached_tokens counts
        the tokens of requests that were there before, whatever their price; they are a part of input_tokens.
        A turn's bill is (new tokens) * price_in + (cached tokens) * cached_price + (answer) * price_out.
    """
    raise NotImplementedError("conversation_cost")


# %% [markdown]
# **Given: the ids of the haystack.** Values are what is to be found, `KEY` stands before the value and asks for it
# at the end, everything else is hay.

# %%
VALUES = range(10)
KEY = 10
HAY = range(11, 43)


# %%
def needle_accuracy(lm, lengths, depths, trials, rng):
    """Measure how often a language model finds a value hidden at each depth of texts of each length.

    Args:
        lm: lm(ids (b, length) int64) -> logits (b, length, V), V >= 43; may be called with any b >= 1.
        lengths: list of int, at least 3. depths: list of float, 0 (the beginning) to 1 (just before the question).
        trials (int): texts a cell, at least 1, each with a value and hay of its own.
        rng (torch.Generator): for all draws.

    Returns:
        (len(lengths), len(depths)) float64: the share of texts whose last logits are largest at the hidden value.

    Raises:
        ValueError: a length below 3, a depth outside 0 to 1, or trials < 1.

    Example:
        >>> def near(ids):                                    # sees the last four ids alone, guesses 0 otherwise
        ...     seen = torch.where(ids[:, -3:-2] == KEY, ids[:, -2:-1], 0)
        ...     return torch.nn.functional.one_hot(seen.expand_as(ids), 43).float()
        >>> needle_accuracy(near, [5, 9], [1.0], 20, torch.Generator().manual_seed(0)).flatten()
        tensor([1., 1.], dtype=torch.float64)

    Notes:
        A text: `length` ids, drawn uniformly from HAY; then KEY and a value, drawn uniformly from VALUES, put over
        the two ids from place round(depth * (length - 3)) on (Python's round); then KEY over the last id.
        Each text of each cell is drawn anew. The order of draws is free.
    """
    raise NotImplementedError("needle_accuracy")
