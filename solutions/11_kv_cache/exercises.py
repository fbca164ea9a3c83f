# %% [markdown]
# # Chapter 11: KV cache, prefill and decode
#
# A model that writes 100 tokens need not read its prompt 100 times. In this chapter you build the memory that
# saves the reading, the attention step that uses it, the loops around it, and the arithmetic that says how much
# memory it takes and how fast the tokens come. Left out here: ring buffers and windows (chapter 12), tiled
# attention kernels and speculative decoding (chapter 13).

# %%
import torch

# %% [markdown]
# **Given: four real models as plain dicts.** `L` layers, `D` model width, `H` query heads, `Hk` key-value heads,
# `hd` width of a head, `window` of attention in tokens (None: all of them), `params` weights in all.

# %%
GPT2 = {"L": 12, "D": 768, "H": 12, "Hk": 12, "hd": 64, "window": None, "params": 124_439_808}
LLAMA2_7B = {"L": 32, "D": 4096, "H": 32, "Hk": 32, "hd": 128, "window": None, "params": 6_738_415_616}
LLAMA3_8B = {"L": 32, "D": 4096, "H": 32, "Hk": 8, "hd": 128, "window": None, "params": 8_030_261_248}
MISTRAL_7B = {"L": 32, "D": 4096, "H": 32, "Hk": 8, "hd": 128, "window": 4096, "params": 7_241_732_096}

# %% [markdown]
# **Given: rotary positions.** You wrote your own in chapter 5. This one turns the halves of each head:
# element `i` pairs with element `i + hd/2`.


# %%
def apply_rope(x, positions, base=10000.0):
    """Rotate x (B, H, T, hd) by its positions, int64 of shape (T,) or (B, T); a new tensor of the same dtype."""
    half = x.shape[-1] // 2
    freqs = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = positions.unsqueeze(-1) * freqs  # (T, half) or (B, T, half)
    if positions.dim() == 2:
        angles = angles.unsqueeze(1)  # (B, 1, T, half): the same for every head
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


# %% [markdown]
# **Given: a small language model** to try your code on, once `KVCache` and `attend_step` work. It shows the
# interface of every model in this chapter: `model.new_cache(B)` makes an empty `KVCache` for B rows, and
# `model(ids, cache)` appends the keys and values of the new tokens to the cache, in every layer, and returns
# their logits. The weights are random: it speaks nonsense, always the same nonsense.


# %%
class TinyLM:
    """A random transformer without feed-forward layers: model(ids (B, T_new), cache) -> logits (B, T_new, V)."""

    def __init__(self, V=50, L=2, D=16, H=4, Hk=2, hd=8, T_max=256, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64) / D**0.5

        self.sizes = (L, Hk, T_max, hd)
        self.embedding = weight(V, D) * D**0.5
        heads = {"q": H, "k": Hk, "v": Hk, "o": H}
        self.layers = [{name: weight(n, hd, D) for name, n in heads.items()} for _ in range(L)]

    def new_cache(self, B):
        L, Hk, T_max, hd = self.sizes
        return KVCache(L, B, Hk, T_max, hd, dtype=torch.float64)

    def __call__(self, ids, cache):
        x = self.embedding[ids]  # (B, T_new, D)
        for layer, weights in enumerate(self.layers):
            x = x + attend_step(x, cache, weights, layer=layer)
        return x @ self.embedding.T  # (B, T_new, V)


# %% [markdown]
# ## KVCache
#
# The memory itself. Room for `T_max` tokens is set aside once; each layer fills it from the front and hands out
# only what it has filled. Drafts that are rejected are cut off again (`truncate`), and when beams change places,
# their keys and values go with them (`reorder`).


# %%
class KVCache:
    """Hold the keys and values of L layers, B rows and at most T_max tokens.

    Args:
        L, B, Hk, T_max, hd (int): layers, batch rows, key-value heads, room in tokens, width of a head.
        dtype (torch.dtype): of everything stored; what is appended is converted to it.
    Attributes:
        length (int): tokens that every layer holds: the smallest number over the layers. In the middle of a step
            the first layers are ahead, and length grows when the last one has appended.
    Example:
        >>> cache = KVCache(L=1, B=1, Hk=1, T_max=4, hd=2)
        >>> K, V = cache.append(0, torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2))
        >>> K.shape, cache.length
        (torch.Size([1, 1, 3, 2]), 3)
        >>> cache.truncate(1)
        >>> cache.length
        1
    """

    def __init__(self, L, B, Hk, T_max, hd, dtype=torch.float32):
        """Set aside the room; nothing is held yet, so length is 0."""
        ### BEGIN SOLUTION
        self.keys = torch.zeros(L, B, Hk, T_max, hd, dtype=dtype)
        self.values = torch.zeros(L, B, Hk, T_max, hd, dtype=dtype)
        self.lengths = [0] * L
        ### END SOLUTION

    @property
    def length(self):
        """Return the number of tokens that every layer holds."""
        ### BEGIN SOLUTION
        return min(self.lengths)
        ### END SOLUTION

    def append(self, layer, k, v):
        """Copy the keys and values of T_new tokens behind those of one layer and return all that it now holds.

        Args:
            layer (int): 0 to L - 1.
            k, v (B, Hk, T_new, hd): T_new may be 0, to read without writing.
        Returns:
            (K, V), each (B, Hk, n, hd) with n the tokens of this layer, oldest first; never an unwritten slot.
        Raises:
            ValueError: k or v has another shape, or n would exceed T_max; then nothing is written at all.
        Notes:
            The cache keeps a copy: changing k or v in place afterwards does not change it.
        """
        ### BEGIN SOLUTION
        _, B, Hk, T_max, hd = self.keys.shape
        start = self.lengths[layer]
        end = start + k.shape[2]
        # an assignment would silently stretch a batch of 1 over all rows, so the shape is checked first
        if k.shape != v.shape or k.shape != (B, Hk, end - start, hd):
            raise ValueError(f"k and v must be ({B}, {Hk}, T_new, {hd}), got {tuple(k.shape)} and {tuple(v.shape)}")
        if end > T_max:
            raise ValueError(f"{end} tokens do not fit into a cache of {T_max}")
        self.keys[layer, :, :, start:end] = k
        self.values[layer, :, :, start:end] = v
        self.lengths[layer] = end
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]  # (B, Hk, end, hd)
        ### END SOLUTION

    def truncate(self, n):
        """Keep the first n tokens of every layer and forget the rest, also what a half-done step has written.

        Raises:
            ValueError: n < 0 or n > length.
        """
        ### BEGIN SOLUTION
        if not 0 <= n <= self.length:
            raise ValueError(f"cannot keep {n} of {self.length} tokens")
        self.lengths = [n] * len(self.lengths)  # the old numbers stay in memory; nothing reads them again
        ### END SOLUTION

    def reorder(self, beam_idx):
        """Let row b of every layer continue what was row beam_idx[b].

        Args:
            beam_idx (B,) int64: old rows; one may occur several times or not at all.
        Raises:
            ValueError: beam_idx does not hold exactly B entries.
        """
        ### BEGIN SOLUTION
        if beam_idx.shape != (self.keys.shape[1],):
            raise ValueError(f"beam_idx must hold {self.keys.shape[1]} rows, got {tuple(beam_idx.shape)}")
        # indexing makes a copy, so no row is overwritten before it has been read
        self.keys = self.keys[:, beam_idx]
        self.values = self.values[:, beam_idx]
        ### END SOLUTION


# %% [markdown]
# ## attend_step
#
# Attention for the new tokens only. They ask; the cache and they themselves answer. The same function serves a
# whole prompt (empty cache, many tokens), a chunk of a prompt, and a single decode step.


# %%
def attend_step(x, cache, weights, positions=None, mask=None, layer=0):
    """Append the new tokens' keys and values to the cache and return the attention output of the new tokens.

    Args:
        x (B, T, D): the new tokens, T >= 1, in the cache's dtype.
        cache: a KVCache with n = cache.length tokens before this call; only `layer` is appended to.
        weights: dict with "q" (H, hd, D), "k" (Hk, hd, D), "v" (Hk, hd, D), "o" (H, hd, D);
            q[b, h, t] = weights["q"][h] @ x[b, t]; head h adds its result (hd,) @ weights["o"][h] to the output.
        positions: int64 (T,) or (B, T), for apply_rope only; None is n, n + 1, ..., n + T - 1.
        mask: bool, broadcastable to (B, H, T, S) with S = n + T, True = may attend; on top of the causal rule.
    Returns:
        (B, T, D), of x's dtype. A query that may attend to nothing gets zeros.
    Example:
        >>> one = {name: torch.ones(1, 2, 1) for name in "qkvo"}
        >>> cache = KVCache(L=1, B=1, Hk=1, T_max=8, hd=2)
        >>> attend_step(torch.tensor([[[3.0]]]), cache, one), cache.length    # alone: 3 + 3 over the two elements
        (tensor([[[6.]]]), 1)

    Notes:
        Queries and keys are rotated by apply_rope, values are not; the cache holds keys already rotated.
        Causal goes by place: new token i is at place n + i and sees places 0 to n + i, whatever its position.
        Query head h reads key-value head h // (H / Hk). Scores are divided by sqrt(hd).
    """
    ### BEGIN SOLUTION
    T, n = x.shape[1], cache.length
    if positions is None:
        positions = torch.arange(n, n + T)
    q, k, v = (torch.einsum("btd,hed->bhte", x, weights[name]) for name in "qkv")  # (B, H or Hk, T, hd)
    # rotated once, on the way in: a cached key never turns again
    K, V = cache.append(layer, apply_rope(k, positions), v)  # (B, Hk, S, hd)
    group = q.shape[1] // K.shape[1]
    K, V = K.repeat_interleave(group, dim=1), V.repeat_interleave(group, dim=1)  # (B, H, S, hd)
    scores = apply_rope(q, positions) @ K.mT / q.shape[-1] ** 0.5  # (B, H, T, S)
    # the diagonal starts at column S - T: the queries are the last T of the S places
    visible = torch.ones(scores.shape[-2:], dtype=torch.bool).tril(scores.shape[-1] - T)  # (T, S)
    if mask is not None:
        visible = visible & mask
    p = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    p = p.masked_fill(~visible, 0.0)  # a row of -inf became NaN: zeros instead
    return torch.einsum("bhte,hed->btd", p @ V, weights["o"])
    ### END SOLUTION


# %% [markdown]
# ## generate_cached
#
# The loop of chapter 10, with a memory: the prompt is read once, then each new token is fed once. A rule that
# chooses tokens may also let a row continue another row, as beam search does; then the cache must follow.


# %%
def generate_cached(model, ids, n_new, choose=None):
    """Return the prompts with n_new tokens appended, feeding every token to the model at most once.

    Args:
        model: model(ids (B, T_new), cache) -> logits (B, T_new, V); model.new_cache(B) -> an empty KVCache.
        ids (B, T) int64: the prompts, all of length T >= 1; not modified.
        n_new (int): tokens to append; 0 returns the prompts without calling the model.
        choose: choose(logits (B, V)) -> (tokens (B,), rows (B,)), called once a new token with the logits of the
            last place: sequence b becomes the old sequence rows[b] followed by tokens[b]. Or None: greedy, the
            token with the greatest logit (the smallest id where several are equal), each row continues itself.
    Returns:
        (B, T + n_new) int64.
    Raises:
        ValueError: n_new < 0 or T = 0.
    Example:
        >>> def model(ids, cache):                             # stand-in: the next token is one more
        ...     return torch.nn.functional.one_hot((ids + 1) % 10, 10).float()
        >>> model.new_cache = lambda B: KVCache(L=1, B=B, Hk=1, T_max=16, hd=1)
        >>> generate_cached(model, torch.tensor([[3, 4]]), 3)
        tensor([[3, 4, 5, 6, 7]])

    Notes:
        Each call makes its own cache, once. The model is called n_new times: first with the whole prompt (B, T),
        then with (B, 1). So it processes T + n_new - 1 tokens a row; the last token chosen is never fed.
    """
    ### BEGIN SOLUTION
    if n_new < 0 or ids.shape[1] == 0:
        raise ValueError("n_new must be at least 0 and the prompt at least one token long")
    cache = model.new_cache(ids.shape[0])
    out = feed = ids.clone()  # (B, T)
    for _ in range(n_new):
        logits = model(feed, cache)[:, -1]  # (B, V)
        if choose is None:
            tokens = logits.argmax(-1)  # (B,)
        else:
            tokens, rows = choose(logits)
            out = out[rows]
            cache.reorder(rows)  # a row that takes over another's text takes over its keys and values too
        feed = tokens.unsqueeze(1)  # (B, 1): the cache knows the rest
        out = torch.cat([out, feed], dim=1)
    return out
    ### END SOLUTION


# %% [markdown]
# ## prefill
#
# A long prompt in one piece makes a table of scores of T x T for each head, and keeps everybody else waiting.
# In chunks, the largest table is chunk x T, and the result is the same.


# %%
def prefill(model, ids, chunk):
    """Feed the prompts in pieces of at most chunk tokens and return the last logits and the filled cache.

    Args:
        model: as in generate_cached: model(ids, cache) -> logits (B, T_new, V), and model.new_cache(B).
        ids (B, T) int64: the prompts, T >= 1; not modified.
        chunk (int): tokens a call, at least 1. May exceed T: then one call.
    Returns:
        (logits, cache): logits (B, V) of the last token of each prompt, and the cache made by model.new_cache,
        which now holds T tokens.
    Raises:
        ValueError: chunk < 1 or T = 0.
    Example:
        >>> def model(ids, cache):
        ...     cache.append(0, ids[:, None, :, None].float(), ids[:, None, :, None].float())
        ...     return torch.nn.functional.one_hot((ids + 1) % 10, 10).float()
        >>> model.new_cache = lambda B: KVCache(L=1, B=B, Hk=1, T_max=16, hd=1)
        >>> logits, cache = prefill(model, torch.tensor([[3, 4, 5, 6, 7]]), chunk=2)
        >>> logits.argmax(-1), cache.length
        (tensor([8]), 5)

    Notes:
        The pieces come in order and do not overlap; each has chunk tokens but the last, which has what remains.
        new_cache is called once.
    """
    ### BEGIN SOLUTION
    B, T = ids.shape
    if chunk < 1 or T == 0:
        raise ValueError("chunk must be at least 1 and the prompt at least one token long")
    cache = model.new_cache(B)
    for start in range(0, T, chunk):
        logits = model(ids[:, start : start + chunk], cache)  # (B, at most chunk, V)
    return logits[:, -1], cache  # (B, V)
    ### END SOLUTION


# %% [markdown]
# ## kv_cache_bytes
#
# How much memory the conversation itself takes. At long contexts it is more than the weights.


# %%
def kv_cache_bytes(cfg, batch, seq, bytes_per_el=2):
    """Return the bytes that the keys and values of batch sequences of seq tokens take.

    Args:
        cfg: dict with int "L" layers, "Hk" key-value heads, "hd" width of a head; and "window": a layer keeps at
            most so many tokens of a sequence (None, or no such key: all). Other keys ("D", "H", "params") may be
            there and do not matter.
        batch, seq (int): sequences and tokens each, at least 0.
        bytes_per_el (int): bytes of one number: 2 is float16 or bfloat16.
    Returns:
        int.
    Example:
        >>> kv_cache_bytes(GPT2, batch=1, seq=1)
        36864
        >>> kv_cache_bytes(MISTRAL_7B, batch=1, seq=4096) == kv_cache_bytes(MISTRAL_7B, batch=1, seq=100_000)
        True

    Notes:
        hd is its own number: in some models H * hd is not D.
    """
    ### BEGIN SOLUTION
    window = cfg.get("window")
    kept = seq if window is None else min(seq, window)
    return 2 * cfg["L"] * batch * kept * cfg["Hk"] * cfg["hd"] * bytes_per_el  # 2: a key and a value
    ### END SOLUTION


# %% [markdown]
# ## latency_model
#
# The wait for the first token and the pace of the others, from four numbers of the machine and the model.
# A pass takes as long as the slower of two things: computing, or moving the numbers from memory.


# %%
def latency_model(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    """Return the time to the first token, the time per further token, the total, and what bounds each phase.

    Args:
        cfg: dict as in kv_cache_bytes, and "params" (int): weights, each of bytes_per_el bytes.
        prompt, new (int): prompt tokens and tokens to generate, each at least 1, for each of batch sequences.
        flops_per_s, bytes_per_s (float): what the machine computes and what it reads from memory in a second.
        cached (int): leading prompt tokens whose keys and values are there already, the same for every sequence.
    Returns:
        dict: "ttft", "tpot", "total" (float, seconds), "bound": {"prefill": s, "decode": s} with s "compute" or
        "memory": "memory" where memory takes strictly longer. decode: that of the last decode pass, None if new = 1.
    Raises:
        ValueError: prompt < 1, new < 1, cached < 0 or cached >= prompt.
    Example:
        >>> tiny = {"L": 1, "Hk": 1, "hd": 1, "params": 1000}
        >>> latency_model(tiny, prompt=100, new=1, flops_per_s=1e6, bytes_per_s=1e4)["total"]    # max(0.2, 0.24)
        0.24

    Notes:
        A pass that feeds m tokens of each sequence, after which each has s tokens in the cache, needs
        2 * params * batch * m FLOPs and reads params * bytes_per_el + kv_cache_bytes(cfg, batch, s, bytes_per_el)
        bytes; its time is the larger of FLOPs / flops_per_s and bytes / bytes_per_s.
        Prefill: one pass, m = prompt - cached, s = prompt; it yields the first token and its time is ttft.
        Decode: new - 1 passes, m = 1, s = prompt + 1, prompt + 2, ...; tpot is their mean time (0.0 if new = 1).
    """
    ### BEGIN SOLUTION
    if prompt < 1 or new < 1 or not 0 <= cached < prompt:
        raise ValueError("prompt and new must be at least 1, and 0 <= cached < prompt")

    def run(m, s):
        compute = 2 * cfg["params"] * batch * m / flops_per_s
        # one read of the weights serves the whole batch, the cache is each sequence's own
        read = cfg["params"] * bytes_per_el + kv_cache_bytes(cfg, batch, s, bytes_per_el)
        memory = read / bytes_per_s
        return max(compute, memory), "memory" if memory > compute else "compute"

    ttft, prefill_bound = run(prompt - cached, prompt)
    decode = [run(1, prompt + i) for i in range(1, new)]
    spent = sum(time for time, _ in decode)
    return {
        "ttft": ttft,
        "tpot": spent / len(decode) if decode else 0.0,
        "total": ttft + spent,
        "bound": {"prefill": prefill_bound, "decode": decode[-1][1] if decode else None},
    }
    ### END SOLUTION


# %% [markdown]
# ## PrefixCache
#
# A thousand requests begin with the same instructions. Their keys and values are the same too, so they are kept
# in blocks of tokens and found again, as long as everything before them is also the same.


# %%
class PrefixCache:
    """Keep blocks of prompts, at most capacity of them, and find the longest prefix that is kept.

    Args:
        block (int): tokens in a block, at least 1.
        capacity (int): blocks kept at most, at least 1.
    Attributes:
        n_blocks (int): blocks kept now.
    Raises:
        ValueError: block < 1 or capacity < 1.
    Example:
        >>> cache = PrefixCache(block=2, capacity=8)
        >>> cache.insert([1, 2, 3, 4, 5], ["A", "B"])      # the 5 fills no block
        >>> cache.match([1, 2, 3, 4, 9, 9]), cache.match([3, 4]), cache.fetch([1, 2, 7, 7])
        (4, 0, ['A'])

    Notes:
        A block is known by all ids from the start of the prompt to its own end. match, fetch and insert each use
        all the blocks that they find or store. The block dropped for want of room is the least recently used one
        among those that no kept block continues, so every kept block can be reached from the start.
    """

    def __init__(self, block, capacity):
        """Begin with no blocks."""
        ### BEGIN SOLUTION
        if block < 1 or capacity < 1:
            raise ValueError("block and capacity must be at least 1")
        self.block, self.capacity = block, capacity
        self.store = {}  # all ids up to the block's end -> what was inserted; least recently used first
        ### END SOLUTION

    @property
    def n_blocks(self):
        """Return the number of blocks kept."""
        ### BEGIN SOLUTION
        return len(self.store)
        ### END SOLUTION

    def match(self, ids):
        """Return how many leading ids (a list of int) lie in kept blocks: a multiple of block."""
        ### BEGIN SOLUTION
        return self.block * len(self.fetch(ids))
        ### END SOLUTION

    def fetch(self, ids):
        """Return what was inserted for the blocks that match(ids) counts: a list, first block first."""
        ### BEGIN SOLUTION
        found = []
        for end in range(self.block, len(ids) + 1, self.block):
            if tuple(ids[:end]) not in self.store:
                break
            found.append(tuple(ids[:end]))
        # deepest first, so that a parent is always fresher than its children: the oldest is then never a parent
        for key in reversed(found):
            self.store[key] = self.store.pop(key)  # to the end of the dictionary's order
        return [self.store[key] for key in found]
        ### END SOLUTION

    def insert(self, ids, blocks):
        """Keep blocks[i] for the i-th full block of ids; then drop blocks until at most capacity are left.

        Args:
            ids (list of int): a prompt. Ids behind the last full block are not kept.
            blocks (list): one object a full block, anything (its keys and values, say).
        Raises:
            ValueError: blocks does not hold exactly len(ids) // block objects; then nothing changes.
        Notes:
            A block that is kept already stays what it is. Of a prompt with more blocks than capacity the first
            capacity blocks stay.
        """
        ### BEGIN SOLUTION
        if len(blocks) != len(ids) // self.block:
            raise ValueError(f"{len(ids)} ids make {len(ids) // self.block} full blocks, got {len(blocks)}")
        for i, content in enumerate(blocks, start=1):
            self.store.setdefault(tuple(ids[: i * self.block]), content)
        self.fetch(ids)  # marks the whole path as just used, old blocks and new
        while len(self.store) > self.capacity:
            del self.store[next(iter(self.store))]
        ### END SOLUTION


# %% [markdown]
# ## left_pad_positions
#
# Prompts of several lengths in one batch: the short ones are filled up on the left, so that every row's last
# token is at the right end, where the new one joins. Nobody may look at the filling, and it counts no position.


# %%
def left_pad_positions(lengths, T):
    """Return the positions and the attention mask of a batch of prompts padded on the left to T tokens.

    Args:
        lengths (B,) int64: real tokens of each row, 0 to T; row b is T - lengths[b] pads, then its tokens.
        T (int): width of the batch.
    Returns:
        (position_ids, mask): position_ids (B, T) int64, 0, 1, 2, ... from the first real token on, and 0 on pads;
        mask (B, 1, T, T) bool: mask[b, 0, i, j] is True where query i may attend to key j: key j is a real token
        and j <= i.
    Raises:
        ValueError: a length is negative or greater than T.
    Example:
        >>> position_ids, mask = left_pad_positions(torch.tensor([3, 1]), 3)
        >>> position_ids
        tensor([[0, 1, 2],
                [0, 0, 0]])
        >>> mask[1, 0].int()
        tensor([[0, 0, 0],
                [0, 0, 0],
                [0, 0, 1]], dtype=torch.int32)
    """
    ### BEGIN SOLUTION
    if (lengths < 0).any() or (lengths > T).any():
        raise ValueError(f"lengths must be from 0 to {T}, got {lengths.tolist()}")
    places = torch.arange(T)  # (T,)
    pads = T - lengths.unsqueeze(1)  # (B, 1)
    position_ids = (places - pads).clamp(min=0)  # (B, T)
    real = places >= pads  # (B, T)
    causal = places <= places.unsqueeze(1)  # (T, T): row i, column j, j <= i
    return position_ids, (real[:, None, None, :] & causal)  # (B, 1, T, T)
    ### END SOLUTION
