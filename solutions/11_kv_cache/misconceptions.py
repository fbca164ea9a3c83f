"""Typical wrong answers of chapter 11, each with the sentence that sets it right."""

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
apply_rope = reference.apply_rope


# -- KVCache -------------------------------------------------------------------------------------------------------


@misconception("KVCache", "Every append writes from slot 0 on; it must write behind the tokens that are there.")
class OverwritesFromSlotZero(reference.KVCache):
    def append(self, layer, k, v):
        start = self.lengths[layer]
        super().append(layer, k, v)
        self.keys[layer, :, :, : k.shape[2]] = k
        self.values[layer, :, :, : k.shape[2]] = v
        return self.keys[layer, :, :, : start + k.shape[2]], self.values[layer, :, :, : start + k.shape[2]]


@misconception(
    "KVCache", "append returns the whole buffer; return only the slots that are filled, up to the new length."
)
class ReturnsTheWholeBuffer(reference.KVCache):
    def append(self, layer, k, v):
        super().append(layer, k, v)
        return self.keys[layer], self.values[layer]


@misconception("KVCache", "reorder moves the keys but leaves the values; both belong to the row that moves.")
class ReordersOnlyKeys(reference.KVCache):
    def reorder(self, beam_idx):
        values = self.values
        super().reorder(beam_idx)
        self.values = values


@misconception(
    "KVCache", "reorder overwrites rows that are still to be read; index all rows at once, which makes a copy."
)
class ReordersRowByRow(reference.KVCache):
    def reorder(self, beam_idx):
        if beam_idx.shape != (self.keys.shape[1],):
            raise ValueError("wrong number of rows")
        for row, old in enumerate(beam_idx.tolist()):
            self.keys[:, row] = self.keys[:, old]
            self.values[:, row] = self.values[:, old]


@misconception(
    "KVCache", "length is read from the first layer; in the middle of a step the other layers are behind it."
)
class LengthOfTheFirstLayer(reference.KVCache):
    @property
    def length(self):
        return self.lengths[0]


@misconception("KVCache", "Shapes are not checked, so one row or one head is silently copied to all; raise ValueError.")
class BroadcastsWrongShapes(reference.KVCache):
    def append(self, layer, k, v):
        _, B, Hk, _, hd = self.keys.shape
        tokens = max(k.shape[-2], v.shape[-2])
        return super().append(layer, k.expand(B, Hk, tokens, hd), v.expand(B, Hk, tokens, hd))


# -- attend_step ---------------------------------------------------------------------------------------------------


def attend(q, K, V, see, weights):
    """The rest of the step, right: q (B, H, T, hd), K and V (B, Hk, S, hd), see broadcastable to (B, H, T, S)."""
    group = q.shape[1] // K.shape[1]
    K, V = K.repeat_interleave(group, 1), V.repeat_interleave(group, 1)
    scores = (q @ K.mT / q.shape[-1] ** 0.5).masked_fill(~see, float("-inf"))
    return torch.einsum("bhte,hed->btd", scores.softmax(-1).masked_fill(~see, 0.0) @ V, weights["o"])


def project(x, weights):
    return [torch.einsum("btd,hed->bhte", x, weights[name]) for name in "qkv"]


def visible(T, S, mask, diagonal=None):
    see = torch.ones(T, S, dtype=torch.bool).tril(S - T if diagonal is None else diagonal)
    return see if mask is None else see & mask


@misconception(
    "attend_step",
    "Cached keys are rotated again at every step. They were rotated when they were appended: rotate the new ones only.",
)
def rotates_cached_keys_again(x, cache, weights, positions=None, mask=None, layer=0):
    n, T = cache.length, x.shape[1]
    q, k, v = project(x, weights)
    positions = torch.arange(n, n + T) if positions is None else positions
    K, V = cache.append(layer, apply_rope(k, positions), v)
    K = torch.cat([apply_rope(K[:, :, :-T], torch.arange(K.shape[2] - T)), K[:, :, -T:]], 2)
    return attend(apply_rope(q, positions), K, V, visible(T, K.shape[2], mask), weights)


@misconception(
    "attend_step", "Positions start again at 0 in every call. The new tokens stand behind those in the cache."
)
def positions_start_at_zero(x, cache, weights, positions=None, mask=None, layer=0):
    positions = torch.arange(x.shape[1]) if positions is None else positions
    return reference.attend_step(x, cache, weights, positions, mask, layer)


@misconception(
    "attend_step",
    "The causal diagonal starts in the upper left corner, so new tokens miss cached ones. Start it at column S - T.",
)
def diagonal_in_the_upper_left(x, cache, weights, positions=None, mask=None, layer=0):
    n, T = cache.length, x.shape[1]
    q, k, v = project(x, weights)
    positions = torch.arange(n, n + T) if positions is None else positions
    K, V = cache.append(layer, apply_rope(k, positions), v)
    return attend(apply_rope(q, positions), K, V, visible(T, K.shape[2], mask, diagonal=0), weights)


@misconception(
    "attend_step", "New tokens see each other's future: the causal rule is missing inside the chunk that is fed."
)
def no_causal_rule(x, cache, weights, positions=None, mask=None, layer=0):
    n, T = cache.length, x.shape[1]
    q, k, v = project(x, weights)
    positions = torch.arange(n, n + T) if positions is None else positions
    K, V = cache.append(layer, apply_rope(k, positions), v)
    return attend(apply_rope(q, positions), K, V, visible(T, K.shape[2], mask, diagonal=K.shape[2]), weights)


@misconception(
    "attend_step",
    "The new token does not see itself: the keys are taken before it is appended. Append first, then attend.",
)
def new_tokens_do_not_see_themselves(x, cache, weights, positions=None, mask=None, layer=0):
    n, T = cache.length, x.shape[1]
    q, k, v = project(x, weights)
    positions = torch.arange(n, n + T) if positions is None else positions
    K, V = cache.append(layer, apply_rope(k, positions), v)
    see = visible(T, K.shape[2], mask, diagonal=K.shape[2] - T - 1)
    return attend(apply_rope(q, positions), K, V, see, weights)


@misconception(
    "attend_step", "The given positions are ignored; padded or shifted rows need the ones that the caller gives."
)
def ignores_positions(x, cache, weights, positions=None, mask=None, layer=0):
    return reference.attend_step(x, cache, weights, None, mask, layer)


@misconception(
    "attend_step",
    "Key-value heads are tiled (0 1 0 1); query heads that share one are neighbours, so repeat each (0 0 1 1).",
)
def tiles_the_heads(x, cache, weights, positions=None, mask=None, layer=0):
    n, T = cache.length, x.shape[1]
    q, k, v = project(x, weights)
    positions = torch.arange(n, n + T) if positions is None else positions
    K, V = cache.append(layer, apply_rope(k, positions), v)
    group = q.shape[1] // K.shape[1]
    K, V = K.repeat(1, group, 1, 1), V.repeat(1, group, 1, 1)
    return attend(apply_rope(q, positions), K, V, visible(T, K.shape[2], mask), weights)


# -- generate_cached -----------------------------------------------------------------------------------------------


def loop(model, ids, n_new, choose, cache, whole=False, reorder=True):
    """The loop, right but for what the switches say."""
    if n_new < 0 or ids.shape[1] == 0:
        raise ValueError("n_new must be at least 0 and the prompt at least one token long")
    out = feed = ids.clone()
    for _ in range(n_new):
        logits = model(feed, cache)[:, -1]
        tokens, rows = (logits.argmax(-1), None) if choose is None else choose(logits)
        if rows is not None:
            out = out[rows]
            if reorder:
                cache.reorder(rows)
        out = torch.cat([out, tokens[:, None]], 1)
        feed = out if whole else tokens[:, None]
    return out


@misconception(
    "generate_cached",
    "The whole text is fed at every step although the cache holds it already: it is stored again and again.",
)
def feeds_the_whole_text(model, ids, n_new, choose=None):
    return loop(model, ids, n_new, choose, model.new_cache(ids.shape[0]), whole=True)


@misconception(
    "generate_cached", "A new cache is made for every step, so only the last token is known. Make one before the loop."
)
def forgets_at_every_step(model, ids, n_new, choose=None):
    if n_new < 0 or ids.shape[1] == 0:
        raise ValueError("n_new must be at least 0 and the prompt at least one token long")
    out = feed = ids.clone()
    for _ in range(n_new):
        cache = model.new_cache(ids.shape[0])
        logits = model(feed, cache)[:, -1]
        tokens, rows = (logits.argmax(-1), None) if choose is None else choose(logits)
        out = torch.cat([out if rows is None else out[rows], tokens[:, None]], 1)
        feed = tokens[:, None]
    return out


@misconception(
    "generate_cached",
    "The whole text is read again with an empty cache at every step: right, but the cache saves nothing.",
)
def reads_everything_again(model, ids, n_new, choose=None):
    out = ids.clone()
    if n_new < 0 or ids.shape[1] == 0:
        raise ValueError("n_new must be at least 0 and the prompt at least one token long")
    for _ in range(n_new):
        logits = model(out, model.new_cache(ids.shape[0]))[:, -1]
        tokens, rows = (logits.argmax(-1), None) if choose is None else choose(logits)
        out = torch.cat([out if rows is None else out[rows], tokens[:, None]], 1)
    return out


@misconception(
    "generate_cached",
    "Rows take over each other's text but not the cache. Reorder the cache by the same rows, before the next step.",
)
def forgets_to_reorder(model, ids, n_new, choose=None):
    return loop(model, ids, n_new, choose, model.new_cache(ids.shape[0]), reorder=False)


@misconception(
    "generate_cached",
    "The cache of an earlier call is used again, and its tokens are still in it. Each call makes its own.",
)
def keeps_the_cache_of_the_last_call(model, ids, n_new, choose=None):
    kept = model.__dict__.setdefault("kept", {})
    if ids.shape[0] not in kept:
        kept[ids.shape[0]] = model.new_cache(ids.shape[0])
    return loop(model, ids, n_new, choose, kept[ids.shape[0]])


# -- prefill -------------------------------------------------------------------------------------------------------


def pieces(ids, chunk):
    if chunk < 1 or ids.shape[1] == 0:
        raise ValueError("chunk must be at least 1 and the prompt at least one token long")
    return ids.split(chunk, 1)


@misconception(
    "prefill", "The logits are those of the first place of the last piece; the next token needs the last place."
)
def logits_of_the_first_place(model, ids, chunk):
    cache = model.new_cache(ids.shape[0])
    for piece in pieces(ids, chunk):
        logits = model(piece, cache)
    return logits[:, 0], cache


@misconception("prefill", "The tokens that do not fill a whole piece are dropped; the last piece is simply shorter.")
def drops_the_ragged_piece(model, ids, chunk):
    cache = model.new_cache(ids.shape[0])
    whole = [piece for piece in pieces(ids, chunk) if piece.shape[1] == chunk]
    for piece in whole or [ids]:
        logits = model(piece, cache)
    return logits[:, -1], cache


@misconception(
    "prefill", "Each call feeds the earlier pieces again, and they are stored twice. Feed only the new piece."
)
def feeds_earlier_pieces_again(model, ids, chunk):
    cache = model.new_cache(ids.shape[0])
    end = 0
    for piece in pieces(ids, chunk):
        end += piece.shape[1]
        logits = model(ids[:, :end], cache)
    return logits[:, -1], cache


@misconception("prefill", "The whole prompt is fed in one call; chunk says how many tokens a call may have at most.")
def ignores_chunk(model, ids, chunk):
    pieces(ids, chunk)
    cache = model.new_cache(ids.shape[0])
    return model(ids, cache)[:, -1], cache


@misconception("prefill", "Every piece gets a new cache, so the last piece does not know the others. Carry one along.")
def a_cache_for_every_piece(model, ids, chunk):
    for piece in pieces(ids, chunk):
        cache = model.new_cache(ids.shape[0])
        logits = model(piece, cache)
    return logits[:, -1], cache


# -- kv_cache_bytes ------------------------------------------------------------------------------------------------


def kept_tokens(cfg, seq):
    return seq if cfg.get("window") is None else min(seq, cfg["window"])


@misconception("kv_cache_bytes", "The factor 2 is missing: a key and a value are stored for every token and head.")
def keys_only(cfg, batch, seq, bytes_per_el=2):
    return cfg["L"] * batch * kept_tokens(cfg, seq) * cfg["Hk"] * cfg["hd"] * bytes_per_el


@misconception("kv_cache_bytes", "The query heads are counted; only the Hk key-value heads are stored.")
def counts_query_heads(cfg, batch, seq, bytes_per_el=2):
    return 2 * cfg["L"] * batch * kept_tokens(cfg, seq) * cfg.get("H", cfg["Hk"]) * cfg["hd"] * bytes_per_el


@misconception("kv_cache_bytes", "The model width D is counted; a token stores Hk heads of width hd in each layer.")
def counts_the_model_width(cfg, batch, seq, bytes_per_el=2):
    return 2 * cfg["L"] * batch * kept_tokens(cfg, seq) * cfg.get("D", cfg["Hk"] * cfg["hd"]) * bytes_per_el


@misconception("kv_cache_bytes", "The window is ignored; a layer with a window keeps no more tokens than the window.")
def ignores_the_window(cfg, batch, seq, bytes_per_el=2):
    return 2 * cfg["L"] * batch * seq * cfg["Hk"] * cfg["hd"] * bytes_per_el


@misconception("kv_cache_bytes", "The number size is fixed at two bytes; multiply by bytes_per_el.")
def always_two_bytes(cfg, batch, seq, bytes_per_el=2):
    return reference.kv_cache_bytes(cfg, batch, seq)


# -- latency_model -------------------------------------------------------------------------------------------------


def times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, size, join=max, decode_tokens=1, weights=True):
    """The passes, right but for what the switches say."""
    if prompt < 1 or new < 1 or not 0 <= cached < prompt:
        raise ValueError("prompt and new must be at least 1, and 0 <= cached < prompt")
    passes = []
    for i in range(new):
        tokens = prompt - cached if i == 0 else decode_tokens
        compute = 2 * cfg["params"] * batch * tokens / flops_per_s
        read = reference.kv_cache_bytes(cfg, batch, prompt + i, size)
        read += cfg["params"] * size if weights or i == 0 else 0
        passes.append((compute, read / bytes_per_s))
    spent = [join(pair) for pair in passes]
    bound = ["memory" if memory > compute else "compute" for compute, memory in passes]
    return {
        "ttft": spent[0],
        "tpot": sum(spent[1:]) / (new - 1) if new > 1 else 0.0,
        "total": sum(spent),
        "bound": {"prefill": bound[0], "decode": bound[-1] if new > 1 else None},
    }


@misconception(
    "latency_model", "Computing and reading are added; they run side by side, so a pass takes the longer one."
)
def adds_computing_and_reading(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    return times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, bytes_per_el, join=sum)


@misconception("latency_model", "A decode pass is charged for the whole prompt; with a cache it computes one token.")
def decode_computes_the_prompt(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    return times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, bytes_per_el, decode_tokens=prompt)


@misconception("latency_model", "The weights are read once for the whole answer; every decode pass reads them again.")
def reads_the_weights_once(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    return times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, bytes_per_el, weights=False)


@misconception("latency_model", "The weights are read for every sequence; one reading serves the whole batch.")
def reads_the_weights_for_each_row(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    got = times(cfg, prompt, new, flops_per_s, bytes_per_s / batch, 1, cached, bytes_per_el)
    again = times(cfg, prompt, new, flops_per_s / batch, bytes_per_s / batch, 1, cached, bytes_per_el)
    return got if batch == 1 else again


@misconception(
    "latency_model", "Prefill yields the first token already; new tokens take new - 1 decode passes, not new."
)
def one_decode_pass_too_many(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, bytes_per_el)
    return times(cfg, prompt, new + 1, flops_per_s, bytes_per_s, batch, cached, bytes_per_el)


@misconception("latency_model", "cached is ignored; tokens whose keys are there already need not be computed.")
def ignores_the_cached_prefix(cfg, prompt, new, flops_per_s, bytes_per_s, batch=1, cached=0, bytes_per_el=2):
    times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, cached, bytes_per_el)
    return times(cfg, prompt, new, flops_per_s, bytes_per_s, batch, 0, bytes_per_el)


# -- PrefixCache ---------------------------------------------------------------------------------------------------


@misconception(
    "PrefixCache",
    "A block is known by its own ids alone. The same ids after another beginning have other keys: include all before.",
)
class KnowsABlockByItself(reference.PrefixCache):
    def fetch(self, ids):
        found = []
        for end in range(self.block, len(ids) + 1, self.block):
            key = tuple(ids[end - self.block : end])
            if key not in self.store:
                break
            found.append(key)
        for key in reversed(found):
            self.store[key] = self.store.pop(key)
        return [self.store[key] for key in found]

    def insert(self, ids, blocks):
        if len(blocks) != len(ids) // self.block:
            raise ValueError("one object a full block")
        for i, content in enumerate(blocks):
            self.store.setdefault(tuple(ids[i * self.block : (i + 1) * self.block]), content)
        self.fetch(ids)
        while len(self.store) > self.capacity:
            del self.store[next(iter(self.store))]


@misconception(
    "PrefixCache",
    "The beginning of a prompt is dropped while its continuation stays, which nobody can reach then. Drop ends first.",
)
class DropsParentsFirst(reference.PrefixCache):
    def fetch(self, ids):
        contents = super().fetch(ids)
        for i in range(len(contents)):
            key = tuple(ids[: (i + 1) * self.block])
            self.store[key] = self.store.pop(key)
        return contents


@misconception("PrefixCache", "Blocks are dropped by age of insertion; a block that is found counts as just used.")
class DropsTheFirstInserted(reference.PrefixCache):
    def fetch(self, ids):
        before = dict(self.store)
        contents = super().fetch(ids)
        self.store = before
        return contents


@misconception("PrefixCache", "Blocks found anywhere are counted; after the first block that is missing, stop.")
class CountsBehindAGap(reference.PrefixCache):
    def insert(self, ids, blocks):
        super().insert(ids, blocks)
        self.alone = {key[-self.block :]: content for key, content in self.store.items()}

    def fetch(self, ids):
        contents = super().fetch(ids)
        known = getattr(self, "alone", {})
        rest = [tuple(ids[i : i + self.block]) for i in range(len(contents) * self.block, len(ids), self.block)]
        return contents + [known[key] for key in rest if key in known]


@misconception("PrefixCache", "The tokens behind the last full block are kept and found; only full blocks are shared.")
class SharesPartialBlocks(reference.PrefixCache):
    def insert(self, ids, blocks):
        super().insert(ids, blocks)
        self.whole = {*getattr(self, "whole", ()), tuple(ids)}

    def match(self, ids):
        found = super().match(ids)
        ends = range(len(ids), found, -1)
        return next((end for end in ends if tuple(ids[:end]) in getattr(self, "whole", ())), found)


@misconception("PrefixCache", "Nothing is ever dropped: after insert, drop blocks until at most capacity are left.")
class NeverDrops(reference.PrefixCache):
    def __init__(self, block, capacity):
        super().__init__(block, capacity)
        self.capacity = float("inf")


# -- left_pad_positions --------------------------------------------------------------------------------------------


@misconception("left_pad_positions", "Positions count the pads as well; the first real token of a row has position 0.")
def positions_count_the_pads(lengths, T):
    _, mask = reference.left_pad_positions(lengths, T)
    return torch.arange(T).expand(len(lengths), T), mask


@misconception(
    "left_pad_positions", "Pads have negative positions; give them 0, so that no table is read from its end."
)
def negative_positions(lengths, T):
    _, mask = reference.left_pad_positions(lengths, T)
    return torch.arange(T) - (T - lengths[:, None]), mask


@misconception("left_pad_positions", "Pads may not ask but may be looked at; it is the keys that must be masked.")
def masks_the_queries(lengths, T):
    position_ids, _ = reference.left_pad_positions(lengths, T)
    real = torch.arange(T) >= T - lengths[:, None]
    return position_ids, real[:, None, :, None] & torch.ones(T, T, dtype=torch.bool).tril()


@misconception("left_pad_positions", "The causal rule is missing: a key must be real, and not later than its query.")
def masks_only_the_pads(lengths, T):
    position_ids, mask = reference.left_pad_positions(lengths, T)
    return position_ids, mask[:, :, -1:].expand(-1, -1, T, -1).clone()


@misconception(
    "left_pad_positions", "The rows are padded on the right; here the pads come first and the last place is real."
)
def pads_on_the_right(lengths, T):
    reference.left_pad_positions(lengths, T)
    places = torch.arange(T)
    real = places < lengths[:, None]
    return torch.where(real, places, 0), real[:, None, None, :] & torch.ones(T, T, dtype=torch.bool).tril()
