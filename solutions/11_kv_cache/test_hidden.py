"""Hidden tests of chapter 11: the whole contract of the cache, the step, the loops and the arithmetic."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from grader.testing import close, counting, driver, exact, exercise, holds, pure

F64 = torch.float64


def read(cache, layer, B, Hk, hd, dtype=F64):
    """Read a layer by appending no tokens."""
    nothing = torch.zeros(B, Hk, 0, hd, dtype=dtype)
    return cache.append(layer, nothing, nothing)


# -- KVCache -------------------------------------------------------------------------------------------------------

L, B, HK, T_MAX, HD = 3, 4, 2, 11, 5


def new_cache(exercises, dtype=F64):
    return exercises.KVCache(L, B, HK, T_MAX, HD, dtype=dtype)


def filled(exercises, rng, n=6):
    """A cache with n tokens in every layer, and what it should hold: (L, B, Hk, n, hd) twice."""
    k, v = rng.normal(L, B, HK, n, HD), rng.normal(L, B, HK, n, HD)
    cache = new_cache(exercises)
    for layer in range(L):
        cache.append(layer, k[layer], v[layer])
    return cache, k, v


def check_layers(cache, k, v, what):
    for layer in range(L):
        close(read(cache, layer, B, HK, HD), (k[layer], v[layer]), f"layer {layer} {what}")


@exercise("KVCache")
def test_unequal_pieces_in_every_layer(exercises, rng):
    """Each layer gives back its own pieces side by side, oldest first."""
    k, v = rng.normal(L, B, HK, T_MAX, HD), rng.normal(L, B, HK, T_MAX, HD)
    cache, start = new_cache(exercises), 0
    exact(cache.length, 0, "length of a new cache")
    for size in (4, 1, 3, 1, 2):
        end = start + size
        for layer in range(L):
            got = cache.append(layer, k[layer, :, :, start:end], v[layer, :, :, start:end])
            close(
                got,
                (k[layer, :, :, :end], v[layer, :, :, :end]),
                f"append to layer {layer}, tokens {start} to {end - 1}",
            )
        start = end
        exact(cache.length, end, f"length after {end} tokens in every layer")


@exercise("KVCache")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)], ids=str)
def test_length_is_the_smallest_over_layers(exercises, rng, order):
    """In the middle of a step, length counts what every layer holds."""
    cache, _, _ = filled(exercises, rng, 4)
    k = rng.normal(B, HK, 2, HD)
    for layer in order[:-1]:
        cache.append(layer, k, k)
        exact(cache.length, 4, f"length when only some layers have six tokens (last appended: {layer})")
    cache.append(order[-1], k, k)
    exact(cache.length, 6, "length when every layer has six tokens")


@exercise("KVCache")
def test_full_to_the_brim(exercises, rng):
    """T_max tokens fit, in one piece or in two."""
    k = rng.normal(B, HK, T_MAX, HD)
    cache = new_cache(exercises)
    close(cache.append(0, k, -k)[0], k, "append of T_max tokens at once")
    cache.append(1, k[:, :, :-1], k[:, :, :-1])
    close(cache.append(1, k[:, :, -1:], k[:, :, -1:])[1], k, "append of the last token that fits")


@exercise("KVCache")
@pytest.mark.parametrize("size", [6, 7, T_MAX + 1])
def test_overflow_writes_nothing(exercises, rng, size):
    """A piece that does not fit raises ValueError and changes nothing."""
    cache, k, v = filled(exercises, rng, 6)
    piece = rng.normal(B, HK, size, HD)
    with pytest.raises(ValueError):
        cache.append(1, piece, piece)
    exact(cache.length, 6, "length after an overflow")
    check_layers(cache, k, v, "after an overflow in layer 1")
    close(
        cache.append(1, piece[:, :, :5], piece[:, :, :5])[0][:, :, 6:], piece[:, :, :5], "what fits, after an overflow"
    )


SHAPES = {
    "one row": ((1, HK, 3, HD), (1, HK, 3, HD)),
    "one head": ((B, 1, 3, HD), (B, 1, 3, HD)),
    "width one": ((B, HK, 3, 1), (B, HK, 3, 1)),
    "too wide": ((B, HK, 3, HD + 1), (B, HK, 3, HD + 1)),
    "too many rows": ((B + 1, HK, 3, HD), (B + 1, HK, 3, HD)),
    "v has one token": ((B, HK, 3, HD), (B, HK, 1, HD)),
    "k has one token": ((B, HK, 1, HD), (B, HK, 3, HD)),
    "only k has one row": ((1, HK, 3, HD), (B, HK, 3, HD)),
    "only k has one head": ((B, 1, 3, HD), (B, HK, 3, HD)),
    "only k is narrow": ((B, HK, 3, 1), (B, HK, 3, HD)),
    "only v has one row": ((B, HK, 3, HD), (1, HK, 3, HD)),
    "only v has one head": ((B, HK, 3, HD), (B, 1, 3, HD)),
    "heads behind tokens": ((B, 3, HK, HD), (B, 3, HK, HD)),
    "no batch": ((HK, 3, HD), (HK, 3, HD)),
}


@exercise("KVCache")
@pytest.mark.parametrize("case", SHAPES)
def test_wrong_shapes_are_refused(exercises, rng, case):
    """Keys or values of another shape raise ValueError and change nothing."""
    cache, k, v = filled(exercises, rng, 4)
    shape_k, shape_v = SHAPES[case]
    with pytest.raises(ValueError):
        cache.append(1, rng.normal(*shape_k), rng.normal(*shape_v))
    exact(cache.length, 4, f"length after the refused append ({case})")
    check_layers(cache, k, v, f"after the refused append ({case})")


@exercise("KVCache")
def test_reading_an_empty_layer(exercises):
    """An empty layer gives back no tokens at all."""
    keys, values = read(new_cache(exercises), 2, B, HK, HD)
    exact([tuple(keys.shape), tuple(values.shape)], [(B, HK, 0, HD)] * 2, "the shapes read from an empty layer")


@exercise("KVCache")
@pytest.mark.parametrize("n", [0, 2, 6])
def test_truncate_then_append_equals_fresh(exercises, rng, n):
    """After truncate(n), the next tokens stand behind the first n."""
    cache, k, v = filled(exercises, rng, 6)
    cache.truncate(n)
    exact(cache.length, n, f"length after truncate({n})")
    more_k, more_v = rng.normal(L, B, HK, 2, HD), rng.normal(L, B, HK, 2, HD)
    check_layers(cache, k[:, :, :, :n], v[:, :, :, :n], f"after truncate({n})")
    for layer in range(L):
        cache.append(layer, more_k[layer], more_v[layer])
    fresh = [torch.cat([old[:, :, :, :n], new], 3) for old, new in ((k, more_k), (v, more_v))]
    check_layers(cache, *fresh, f"after truncate({n}) and two more tokens")


@exercise("KVCache")
def test_truncate_makes_room(exercises, rng):
    """Room that truncate freed can be filled again."""
    cache, k, _ = filled(exercises, rng, T_MAX)
    cache.truncate(3)
    piece = rng.normal(B, HK, T_MAX - 3, HD)
    got, _ = cache.append(2, piece, piece)
    close(got, torch.cat([k[2, :, :, :3], piece], 2), "append into the room that truncate freed")


@exercise("KVCache")
def test_truncate_undoes_a_half_done_step(exercises, rng):
    """truncate(length) cuts the layers that are ahead back to the others."""
    cache, k, v = filled(exercises, rng, 4)
    extra = rng.normal(B, HK, 2, HD)
    cache.append(0, extra, extra)
    cache.append(2, extra, extra)
    with pytest.raises(ValueError):
        cache.truncate(5)
    cache.truncate(4)
    check_layers(cache, k, v, "after a half-done step and truncate(4)")


@exercise("KVCache")
@pytest.mark.parametrize("n", [-1, 7, T_MAX])
def test_truncate_refuses(exercises, rng, n):
    """truncate outside 0 to length raises ValueError and changes nothing."""
    cache, k, v = filled(exercises, rng, 6)
    with pytest.raises(ValueError):
        cache.truncate(n)
    exact(cache.length, 6, f"length after the refused truncate({n})")
    check_layers(cache, k, v, f"after the refused truncate({n})")


@exercise("KVCache")
@pytest.mark.parametrize("rows", [[1, 2, 3, 0], [3, 3, 0, 3], [0, 0, 1, 2]], ids=str)
def test_reorder_takes_rows_everywhere(exercises, rng, rows):
    """Rows change places in keys and values of every layer, also for later tokens."""
    cache, k, v = filled(exercises, rng, 6)
    cache.reorder(torch.tensor(rows))
    check_layers(cache, k[:, rows], v[:, rows], f"after reorder({rows})")
    exact(cache.length, 6, "length after reorder")
    piece = rng.normal(B, HK, 1, HD)
    got = cache.append(1, piece, 2 * piece)
    expected = (torch.cat([k[1, rows], piece], 2), torch.cat([v[1, rows], 2 * piece], 2))
    close(got, expected, "append after reorder: the new token's rows stay where they are")
    cache.truncate(6)
    cache.reorder(torch.tensor(rows))
    again = [rows[row] for row in rows]
    check_layers(cache, k[:, again], v[:, again], f"after reorder({rows}) twice")


@exercise("KVCache")
@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 1, 2, 3, 3], []], ids=str)
def test_reorder_wants_one_row_each(exercises, rng, rows):
    """reorder with another number of rows raises ValueError and changes nothing."""
    cache, k, v = filled(exercises, rng, 3)
    with pytest.raises(ValueError):
        cache.reorder(torch.tensor(rows, dtype=torch.int64))
    check_layers(cache, k, v, f"after the refused reorder({rows})")


@exercise("KVCache")
def test_reorder_of_an_empty_cache(exercises, rng):
    """Reordering nothing is allowed and leaves nothing behind."""
    cache = new_cache(exercises)
    cache.reorder(torch.tensor([3, 3, 0, 1]))
    exact(cache.length, 0, "length after the reorder of an empty cache")
    k = rng.normal(B, HK, 2, HD)
    close(cache.append(0, k, -k), (k, -k), "the first append after the reorder of an empty cache")


@exercise("KVCache")
def test_two_caches_share_nothing(exercises, rng):
    """What one cache holds, another does not."""
    one, k, v = filled(exercises, rng, 4)
    other = new_cache(exercises)
    exact(other.length, 0, "length of a second, new cache")
    piece = rng.normal(B, HK, 2, HD)
    close(other.append(0, piece, -piece), (piece, -piece), "the first append to a second cache")
    other.reorder(torch.tensor([1, 1, 1, 1]))
    check_layers(one, k, v, "of the first cache after use of the second")


@exercise("KVCache")
@pytest.mark.parametrize("dtype", [torch.float32, F64, torch.bfloat16], ids=str)
def test_everything_is_stored_in_the_dtype(exercises, rng, dtype):
    """What is appended is converted to the cache's dtype."""
    cache = exercises.KVCache(1, 2, 1, 6, 3, dtype=dtype)
    k = rng.normal(2, 1, 4, 3)
    cache.append(0, k[:, :, :2], -k[:, :, :2])
    got = cache.append(0, k[:, :, 2:].float(), -k[:, :, 2:].float())
    expected = torch.cat([k[:, :, :2].to(dtype), k[:, :, 2:].float().to(dtype)], 2)
    exact(got, (expected, -expected), f"append to a cache of {dtype}")


@exercise("KVCache")
def test_float32_is_the_default(exercises, rng):
    """Without a dtype the cache stores float32."""
    cache = exercises.KVCache(L=1, B=2, Hk=1, T_max=6, hd=3)
    k = rng.normal(2, 1, 4, 3)
    exact(cache.append(0, k, k), (k.float(), k.float()), "append of float64 to a cache without a dtype")


@driver
def change_what_was_appended(module, k, v):
    """Append, then overwrite the appended tensors in place."""
    import torch

    cache = module.KVCache(1, *k.shape[:2], 9, k.shape[3], dtype=k.dtype)
    cache.append(0, k, v)
    k.zero_()
    v.fill_(7.0)
    nothing = torch.zeros_like(k[:, :, :0])
    keys, values = cache.append(0, nothing, nothing)
    return keys.clone(), values.clone()


@exercise("KVCache")
def test_the_cache_keeps_a_copy(exercises, rng):
    """Changing a tensor after it was appended does not change the cache."""
    k, v = rng.normal(2, 3, 4, 5), rng.normal(2, 3, 4, 5)
    got = exercises.run(change_what_was_appended, k.clone(), v.clone())
    close(got, (k, v), "the cache after the appended tensors were overwritten")


# -- attend_step ---------------------------------------------------------------------------------------------------


def weights_of(rng, D, H, Hk, hd):
    return {name: rng.normal(n, hd, D) / D**0.5 for name, n in (("q", H), ("k", Hk), ("v", Hk), ("o", H))}


def rotate(x, positions):
    """Rotary positions by complex multiplication: x (B, H, T, hd), positions (B, T)."""
    half = x.shape[-1] // 2
    angle = positions[:, None, :, None] * 10000.0 ** (-torch.arange(half, dtype=F64) / half)
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([z.real, z.imag], -1)


def full_attention(x, weights, positions=None, mask=None):
    """Recompute attention over all tokens at once: what every chunking must equal."""
    B, T, _ = x.shape
    positions = torch.arange(T).expand(B, T) if positions is None else positions.expand(B, T)
    q, k, v = (torch.stack([x @ w.T for w in weights[name]], 1) for name in "qkv")
    see = torch.ones(T, T, dtype=torch.bool).tril().expand(B, len(weights["q"]), T, T)
    see = see if mask is None else see & mask
    out = scaled_dot_product_attention(rotate(q, positions), rotate(k, positions), v, attn_mask=see, enable_gqa=True)
    out = torch.where(see.any(-1, keepdim=True), out, 0.0)
    return sum(out[:, h] @ w for h, w in enumerate(weights["o"]))


def cache_for(exercises, x, weights, room=16, layers=1):
    Hk, hd, _ = weights["k"].shape
    return exercises.KVCache(layers, x.shape[0], Hk, room, hd, dtype=x.dtype)


@exercise("attend_step", weight=2)
@pytest.mark.parametrize("pieces", [[9], [1] * 9, [4, 1, 1, 3], [3, 6], [8, 1]], ids=str)
def test_every_chunking_equals_full_recomputation(exercises, rng, pieces):
    """Tokens fed in any pieces give what one full pass gives."""
    x, weights = rng.normal(4, 9, 10), weights_of(rng, 10, 6, 3, 8)
    cache = cache_for(exercises, x, weights)
    outputs = [exercises.attend_step(piece, cache, weights) for piece in x.split(pieces, dim=1)]
    close(torch.cat(outputs, 1), full_attention(x, weights), f"attend_step over pieces of {pieces} tokens")
    exact(cache.length, 9, "cache.length afterwards")


@exercise("attend_step")
@pytest.mark.parametrize(("H", "Hk"), [(5, 5), (4, 1), (6, 2), (6, 3), (1, 1)])
def test_grouped_heads(exercises, rng, H, Hk):
    """Query head h reads key-value head h // (H / Hk)."""
    x, weights = rng.normal(2, 7, 9), weights_of(rng, 9, H, Hk, 4)
    cache = cache_for(exercises, x, weights)
    outputs = [exercises.attend_step(piece, cache, weights) for piece in x.split([5, 2], dim=1)]
    close(torch.cat(outputs, 1), full_attention(x, weights), f"attend_step with H={H}, Hk={Hk}")


@exercise("attend_step")
@pytest.mark.parametrize("per_row", [False, True])
def test_given_positions_are_used(exercises, rng, per_row):
    """Positions that do not count 0, 1, 2 rotate queries and keys as given."""
    x, weights = rng.normal(3, 8, 10), weights_of(rng, 10, 4, 2, 6)
    positions = torch.tensor([[0, 2, 3, 11, 7, 7, 20, 1], [5, 4, 3, 2, 1, 0, 9, 30], [1, 1, 2, 3, 5, 8, 13, 21]])
    positions = positions if per_row else positions[0]
    cache, outputs = cache_for(exercises, x, weights), []
    for start, end in ((0, 3), (3, 4), (4, 8)):
        outputs.append(exercises.attend_step(x[:, start:end], cache, weights, positions[..., start:end]))
    close(torch.cat(outputs, 1), full_attention(x, weights, positions), "attend_step with given positions")


@exercise("attend_step")
def test_positions_after_a_gap(exercises, rng):
    """Tokens without positions count on from the cache's length, whatever was before."""
    x, weights = rng.normal(2, 6, 10), weights_of(rng, 10, 4, 2, 6)
    cache = cache_for(exercises, x, weights)
    exercises.attend_step(x[:, :4], cache, weights, torch.tensor([3, 9, 12, 40]))
    got = exercises.attend_step(x[:, 4:], cache, weights)
    full = full_attention(x, weights, torch.tensor([3, 9, 12, 40, 4, 5]))
    close(got, full[:, 4:], "attend_step without positions after four tokens")


@exercise("attend_step")
def test_cached_keys_are_rotated_once(exercises, rng):
    """The cache holds rotated keys and plain values, and later steps leave them alone."""
    x, weights = rng.normal(2, 6, 10), weights_of(rng, 10, 6, 3, 4)
    cache = cache_for(exercises, x, weights)
    exercises.attend_step(x[:, :4], cache, weights)
    exercises.attend_step(x[:, 4:], cache, weights)
    k, v = (torch.einsum("btd,hed->bhte", x, weights[name]) for name in "kv")
    expected = (rotate(k, torch.arange(6).expand(2, 6)), v)
    close(read(cache, 0, 2, 3, 4), expected, "keys and values in the cache after two steps")


@exercise("attend_step")
def test_masks_of_every_shape(exercises, rng):
    """A mask that broadcasts to (B, H, T, S) is taken on top of the causal rule."""
    x, weights = rng.normal(3, 7, 10), weights_of(rng, 10, 4, 2, 6)
    for shape in ((3, 1, 1, 7), (3, 1, 7, 7), (3, 4, 7, 7), (1, 4, 1, 7), (7, 7)):
        mask = rng.uniform(*shape) < 0.6
        cache, outputs = cache_for(exercises, x, weights), []
        for start, end in ((0, 4), (4, 5), (5, 7)):
            part = mask[..., :end] if mask.shape[-2] == 1 else mask[..., start:end, :end]
            outputs.append(exercises.attend_step(x[:, start:end], cache, weights, mask=part))
        close(torch.cat(outputs, 1), full_attention(x, weights, mask=mask), f"attend_step with a mask of shape {shape}")


@exercise("attend_step")
def test_a_query_that_sees_nothing_gives_zeros(exercises, rng):
    """Where a query may attend to nothing, the output is exactly zero."""
    x, weights = rng.normal(2, 5, 10), weights_of(rng, 10, 4, 2, 6)
    mask = torch.ones(2, 1, 1, 5, dtype=torch.bool)
    mask[0, :, :, :3] = False
    got = exercises.attend_step(x, cache_for(exercises, x, weights), weights, mask=mask)
    exact(got[0, :3], torch.zeros(3, 10, dtype=F64), "the outputs of three queries that may attend to nothing")
    close(got, full_attention(x, weights, mask=mask), "attend_step with three masked keys in row 0")


@exercise("attend_step")
def test_masked_tokens_do_not_matter(exercises, rng):
    """Changing cached tokens that are masked changes nothing."""
    x, weights = rng.normal(2, 6, 10), weights_of(rng, 10, 4, 2, 6)
    other = torch.cat([1e3 * rng.normal(2, 2, 10), x[:, 2:]], 1)
    mask = torch.arange(6).ge(2).expand(2, 1, 1, 6)
    got = []
    for tokens in (x, other):
        cache = cache_for(exercises, x, weights)
        exercises.attend_step(tokens[:, :5], cache, weights, mask=mask[..., :5])
        got.append(exercises.attend_step(tokens[:, 5:], cache, weights, mask=mask))
    close(got[1], got[0], "the last output after a change of two masked tokens")


@exercise("attend_step")
def test_rows_of_different_lengths(exercises, rng):
    """Left-padded rows with their own positions equal rows run alone."""
    lengths, T, weights = [5, 2, 3], 5, weights_of(rng, 10, 4, 2, 6)
    tokens = [rng.normal(1, n + 3, 10) for n in lengths]
    x = torch.cat([torch.cat([rng.normal(1, T - n, 10), row], 1) for n, row in zip(lengths, tokens, strict=True)])
    pads = T - torch.tensor(lengths)
    positions = (torch.arange(T + 3) - pads[:, None]).clamp(min=0)
    mask = (torch.arange(T + 3) >= pads[:, None])[:, None, None]
    cache, outputs = cache_for(exercises, x, weights), []
    for start, end in ((0, 5), (5, 6), (6, 8)):
        part = mask[..., :end]
        outputs.append(exercises.attend_step(x[:, start:end], cache, weights, positions[:, start:end], part))
    got = torch.cat(outputs, 1)
    for b, row in enumerate(tokens):
        close(got[b : b + 1, pads[b] :], full_attention(row, weights), f"row {b} of a left-padded batch")


@exercise("attend_step")
def test_layers_of_one_step(exercises, rng):
    """Every layer of a step uses its own keys and the same positions."""
    x, stack = rng.normal(2, 7, 10), [weights_of(rng, 10, 4, 2, 6) for _ in range(3)]
    cache, outputs = cache_for(exercises, x, stack[0], layers=3), []
    for piece in x.split([4, 1, 2], dim=1):
        for layer, weights in enumerate(stack):
            piece = piece + exercises.attend_step(piece, cache, weights, layer=layer)
        outputs.append(piece)
    expected = x
    for weights in stack:
        expected = expected + full_attention(expected, weights)
    close(torch.cat(outputs, 1), expected, "three layers over pieces of 4, 1 and 2 tokens")


@exercise("attend_step")
def test_only_its_layer_grows(exercises, rng):
    """A step appends its tokens to its own layer and to no other."""
    x, weights = rng.normal(2, 3, 10), weights_of(rng, 10, 4, 2, 6)
    cache = cache_for(exercises, x, weights, layers=3)
    exercises.attend_step(x, cache, weights, layer=1)
    held = [read(cache, layer, 2, 2, 6)[0].shape[2] for layer in range(3)]
    exact(held, [0, 3, 0], "tokens in layers 0, 1 and 2 after a step of layer 1")


@exercise("attend_step")
def test_truncate_and_redo(exercises, rng):
    """After truncate, other tokens take the place as if the first had never been."""
    x, other, weights = rng.normal(2, 8, 10), rng.normal(2, 3, 10), weights_of(rng, 10, 4, 2, 6)
    cache, bystander = cache_for(exercises, x, weights), cache_for(exercises, x, weights)
    exercises.attend_step(x, cache, weights)
    exercises.attend_step(x[:, :2], bystander, weights)
    cache.truncate(5)
    got = exercises.attend_step(other, cache, weights)
    expected = full_attention(torch.cat([x[:, :5], other], 1), weights)[:, 5:]
    close(got, expected, "three other tokens after truncate(5)")
    got = exercises.attend_step(x[:, 2:], bystander, weights)
    close(got, full_attention(x, weights)[:, 2:], "a second cache, used in between")


@exercise("attend_step")
def test_large_scores_stay_finite(exercises, rng):
    """Scores of many thousands overflow nothing."""
    x, weights = 300 * rng.normal(2, 5, 10), weights_of(rng, 10, 4, 2, 6)
    cache = cache_for(exercises, x, weights)
    outputs = [exercises.attend_step(piece, cache, weights) for piece in x.split([3, 2], dim=1)]
    close(torch.cat(outputs, 1), full_attention(x, weights), "attend_step of tokens with large values")


@exercise("attend_step")
def test_inputs_stay_and_dtype_is_kept(exercises, rng):
    """No argument is changed, and float32 stays float32."""
    x, weights = rng.normal(2, 4, 10).float(), weights_of(rng, 10, 4, 2, 6)
    weights = {name: w.float() for name, w in weights.items()}
    positions = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
    mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    mask[1, :, :, 0] = False
    expected = full_attention(x.double(), {name: w.double() for name, w in weights.items()}, positions, mask).float()
    step, cache = exercises.attend_step, cache_for(exercises, x, weights)
    close(step(x, cache, weights, positions, mask), expected, "attend_step in float32")
    kept = [t.clone() for t in (x, *weights.values(), positions, mask)]
    after = exercises.run(arguments_after, x, weights, positions, mask)
    for was, now in zip(kept, after, strict=True):
        exact(now, was, "an argument of attend_step after the call")


@driver
def arguments_after(module, x, weights, positions, mask):
    """Call attend_step and give its arguments as they are afterwards."""
    cache = module.KVCache(1, x.shape[0], *weights["k"].shape[:1], 9, weights["k"].shape[1], dtype=x.dtype)
    module.attend_step(x, cache, weights, positions, mask)
    return [x, *weights.values(), positions, mask]


# -- generate_cached and prefill -----------------------------------------------------------------------------------


@driver
def build_model(module, step, new_cache):
    """Make a model whose work is done by the test's own functions."""

    class Model:
        def new_cache(self, B):
            return new_cache(B)

        def __call__(self, ids, cache):
            return step(ids, cache)

    return Model()


@driver
def prompts_after(module, name, model, ids, *rest):
    """Call a function and give its prompts as they are afterwards."""
    getattr(module, name)(model, ids, *rest)
    return ids


class Reader:
    """A language model on the test's side: logits depend on every token so far, which only the cache remembers."""

    def __init__(self, exercises, rng, V=13, room=40):
        self.embedding, self.readout = rng.normal(V, 6), rng.normal(6, V)
        self.step = counting(self._step)
        self.new_cache = counting(lambda B: exercises.KVCache(1, B, 1, room, 1, dtype=F64))
        self.handle = exercises.run(build_model, self.step, self.new_cache)

    def full(self, ids):
        """Logits (B, T, V) of whole texts, without any cache."""
        T = ids.shape[1]
        age = torch.arange(T)[:, None] - torch.arange(T)
        return (0.8 ** age.double() * (age >= 0)) @ self.embedding[ids] @ self.readout

    def _step(self, ids, cache):
        k = ids[:, None, :, None].double()
        keys, _ = cache.append(0, k, -k)
        return self.full(keys[:, 0, :, 0].long())[:, -ids.shape[1] :]

    @property
    def shapes(self):
        return [tuple(ids.shape) for ids, _ in self.step.arguments]

    def greedy(self, ids, n_new):
        """Generate by recomputing everything for every token."""
        for _ in range(n_new):
            ids = torch.cat([ids, self.full(ids)[:, -1].argmax(-1, keepdim=True)], 1)
        return ids


@exercise("generate_cached", weight=2)
def test_equals_full_recomputation(exercises, rng):
    """The text equals what a model without a cache writes, token for token."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 3, 5)
    got = exercises.generate_cached(reader.handle, ids, 9)
    exact(got, reader.greedy(ids, 9), "generate_cached of 9 tokens after 5")


@exercise("generate_cached")
def test_every_token_is_fed_at_most_once(exercises, rng):
    """The model reads T + n_new - 1 tokens a row: the prompt at once, then one a call."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 3, 5)
    got = exercises.generate_cached(reader.handle, ids, 4)
    exact(reader.shapes, [(3, 5), (3, 1), (3, 1), (3, 1)], "the shapes of ids in the calls of the model")
    fed = torch.cat([ids for ids, _ in reader.step.arguments], 1)
    exact(fed, got[:, :-1], "the tokens fed, side by side")
    exact([args for args in reader.new_cache.arguments], [(3,)], "the calls of new_cache")


@exercise("generate_cached")
def test_no_new_token_needs_no_model(exercises, rng):
    """n_new = 0 gives the prompts and calls no model."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 2, 4)
    exact(exercises.generate_cached(reader.handle, ids, 0), ids, "generate_cached with n_new=0")
    exact(reader.step.calls, 0, "calls of the model with n_new=0")


@exercise("generate_cached")
def test_one_new_token_is_one_call(exercises, rng):
    """n_new = 1 takes one call, also after a prompt of one token."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 2, 1)
    exact(exercises.generate_cached(reader.handle, ids, 1), reader.greedy(ids, 1), "one token after one")
    exact(reader.shapes, [(2, 1)], "the shapes of ids in the calls of the model with n_new=1")


@exercise("generate_cached")
def test_calls_share_nothing(exercises, rng):
    """Each call begins with a new cache, also with other prompts and batch sizes."""
    reader = Reader(exercises, rng)
    for rows, T in ((2, 6), (3, 2), (2, 6), (1, 4)):
        ids = rng.integers(0, 13, rows, T)
        got = exercises.generate_cached(reader.handle, ids, 3)
        exact(got, reader.greedy(ids, 3), f"three tokens after a ({rows}, {T}) prompt, in a row of calls")
    exact([args[0] for args in reader.new_cache.arguments], [2, 3, 2, 1], "the calls of new_cache over four calls")


@exercise("generate_cached")
def test_ties_go_to_the_smallest_id(exercises, rng):
    """Of equal logits the smallest id is taken."""

    def step(ids, cache):
        logits = torch.zeros(*ids.shape, 7)
        logits[..., 2] = logits[..., 5] = logits[..., 6] = 1.0
        return logits

    model = exercises.run(build_model, step, lambda B: exercises.KVCache(1, B, 1, 9, 1))
    exact(exercises.generate_cached(model, torch.tensor([[4], [1]]), 1)[:, 1], torch.tensor([2, 2]), "tied logits")


@exercise("generate_cached", weight=2)
def test_rows_and_cache_follow_choose(exercises, rng):
    """Text and cache of a row follow the row that it continues."""
    reader, ids, plan = Reader(exercises, rng), rng.integers(0, 13, 4, 3), []

    def choose(logits):
        tokens, rows = logits.topk(2).indices[:, 1], rng.integers(0, 4, 4)
        plan.append((logits, rows))
        return tokens, rows

    got = exercises.generate_cached(reader.handle, ids, 6, choose)
    exact(len(plan), 6, "calls of choose for six new tokens")
    for logits, rows in plan:
        close(logits, reader.full(ids)[:, -1], f"the logits that choose was given after {ids.shape[1]} tokens")
        ids = torch.cat([ids[rows], logits.topk(2).indices[:, 1:]], 1)
    exact(got, ids, "the text when rows continue other rows")
    exact(reader.shapes, [(4, 3)] + [(4, 1)] * 5, "the shapes of ids in the calls of the model")


@exercise("generate_cached")
def test_choose_decides_a_single_token(exercises, rng):
    """Also for one new token, choose decides the token and the row."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 3, 4)
    got = exercises.generate_cached(reader.handle, ids, 1, lambda z: (z.argmin(-1), torch.tensor([2, 0, 0])))
    tokens = reader.full(ids)[:, -1].argmin(-1, keepdim=True)
    exact(got, torch.cat([ids[[2, 0, 0]], tokens], 1), "one token chosen as the least likely, with rows 2, 0, 0")


@exercise("generate_cached")
def test_beam_search(exercises, rng):
    """Beam search over the cache finds what beam search without a cache finds."""
    reader, prompt, width = Reader(exercises, rng), rng.integers(0, 13, 1, 4), 3

    def beams():
        scores = torch.tensor([0.0] + [float("-inf")] * (width - 1), dtype=F64)

        def choose(logits):
            nonlocal scores
            total = (scores[:, None] + logits.log_softmax(-1)).flatten()
            scores, best = total.topk(width)
            return best % 13, best // 13

        return choose

    ids, choose = prompt.expand(width, -1), beams()
    got = exercises.generate_cached(reader.handle, ids, 6, beams())
    for _ in range(6):
        tokens, rows = choose(reader.full(ids)[:, -1])
        ids = torch.cat([ids[rows], tokens[:, None]], 1)
    exact(got, ids, "three beams of six tokens")


@exercise("generate_cached")
def test_prompts_stay(exercises, rng):
    """The prompts given are not changed."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 2, 4)

    def choose(logits):
        return logits.argmax(-1).flip(0), torch.tensor([1, 0])

    exact(exercises.run(prompts_after, "generate_cached", reader.handle, ids, 3), ids, "ids after greedy generation")
    after = exercises.run(prompts_after, "generate_cached", reader.handle, ids, 2, choose)
    exact(after, ids, "ids after generation with choose")


@exercise("generate_cached")
@pytest.mark.parametrize(("T", "n_new"), [(3, -1), (0, 2)])
def test_generate_refuses(exercises, rng, T, n_new):
    """A negative n_new or an empty prompt raises ValueError."""
    reader = Reader(exercises, rng)
    with pytest.raises(ValueError):
        exercises.generate_cached(reader.handle, rng.integers(0, 13, 2, T), n_new)
    exact(reader.step.calls, 0, "calls of the model before the ValueError")


@exercise("prefill", weight=2)
@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 7, 8, 9, 50])
def test_prefill_equals_one_pass(exercises, rng, chunk):
    """Every chunk size gives the last logits and the keys of one pass."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 3, 8)
    logits, cache = exercises.prefill(reader.handle, ids, chunk)
    close(logits, reader.full(ids)[:, -1], f"the logits of prefill with chunk={chunk}")
    exact(cache.length, 8, "cache.length after prefill")
    tokens = ids[:, None, :, None].double()
    close(read(cache, 0, 3, 1, 1), (tokens, -tokens), "what the cache holds after prefill")


@exercise("prefill")
@pytest.mark.parametrize(("T", "chunk"), [(8, 3), (8, 4), (7, 4), (1, 3), (5, 1), (3, 3), (4, 9)])
def test_pieces_are_full_but_the_last(exercises, rng, T, chunk):
    """The model is fed consecutive pieces of chunk tokens and then what remains."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 2, T)
    exercises.prefill(reader.handle, ids, chunk)
    fed = [piece.tolist() for piece, _ in reader.step.arguments]
    exact(fed, [piece.tolist() for piece in ids.split(chunk, 1)], f"the pieces fed for T={T}, chunk={chunk}")
    exact(reader.new_cache.arguments, [(2,)], "the calls of new_cache")


@exercise("prefill")
def test_decode_continues(exercises, rng):
    """Decoding from the returned cache continues the prompt."""
    reader, ids = Reader(exercises, rng), rng.integers(0, 13, 3, 10)
    _, cache = exercises.prefill(reader.handle, ids[:, :7], 3)
    for t in range(7, 10):
        got = reader.handle(ids[:, t : t + 1], cache)
        close(got[:, -1], reader.full(ids[:, : t + 1])[:, -1], f"the logits of token {t}, fed after prefill")


@exercise("prefill")
def test_prefills_share_nothing(exercises, rng):
    """Two prefills fill two caches, each with its own batch."""
    reader, one, two = Reader(exercises, rng), rng.integers(0, 13, 3, 5), rng.integers(0, 13, 2, 7)
    _, first = exercises.prefill(reader.handle, one, 2)
    logits, second = exercises.prefill(reader.handle, two, 2)
    close(logits, reader.full(two)[:, -1], "the logits of a second prefill")
    exact([first.length, second.length], [5, 7], "the lengths of the two caches")
    exact(reader.new_cache.arguments, [(3,), (2,)], "the calls of new_cache in two prefills")


@exercise("prefill")
def test_prefill_leaves_the_prompts(exercises, rng):
    """The prompts given are not changed."""
    reader = Reader(exercises, rng)
    ids = rng.integers(0, 13, 2, 5)
    exact(exercises.run(prompts_after, "prefill", reader.handle, ids, 2), ids, "ids after prefill")


@exercise("prefill")
@pytest.mark.parametrize(("T", "chunk"), [(4, 0), (4, -2), (0, 3)])
def test_prefill_refuses(exercises, rng, T, chunk):
    """A chunk below one or an empty prompt raises ValueError."""
    reader = Reader(exercises, rng)
    with pytest.raises(ValueError):
        exercises.prefill(reader.handle, rng.integers(0, 13, 2, T), chunk)
    exact(reader.step.calls, 0, "calls of the model before the ValueError")


# -- kv_cache_bytes ------------------------------------------------------------------------------------------------

CFG = {"L": 3, "D": 70, "H": 10, "Hk": 5, "hd": 8, "window": None, "params": 1000}
KNOWN = {
    "GPT-2": ({"L": 12, "D": 768, "H": 12, "Hk": 12, "hd": 64}, 36_864),
    "Llama 2 7B": ({"L": 32, "D": 4096, "H": 32, "Hk": 32, "hd": 128}, 524_288),
    "Llama 3 8B": ({"L": 32, "D": 4096, "H": 32, "Hk": 8, "hd": 128}, 131_072),
    "Mistral 7B": ({"L": 32, "D": 4096, "H": 32, "Hk": 8, "hd": 128, "window": 4096}, 131_072),
}


@exercise("kv_cache_bytes")
@pytest.mark.parametrize("model", KNOWN)
def test_known_bytes_per_token(exercises, model):
    """One token takes what the published models take."""
    cfg, expected = KNOWN[model]
    exact(exercises.kv_cache_bytes(cfg, 1, 1), expected, f"kv_cache_bytes of one token of {model}")


@exercise("kv_cache_bytes")
@pytest.mark.parametrize("bytes_per_el", [1, 2, 4])
def test_equals_the_size_of_the_tensors(exercises, bytes_per_el):
    """The bytes are those of the tensors of keys and values."""
    dtype = {1: torch.int8, 2: torch.bfloat16, 4: torch.float32}[bytes_per_el]
    one = torch.empty(3, 6, 5, 11, 8, dtype=dtype)
    got = exercises.kv_cache_bytes(CFG, 6, 11, bytes_per_el)
    exact(
        got, 2 * one.numel() * one.element_size(), f"kv_cache_bytes of 6 sequences of 11 tokens, {bytes_per_el} bytes"
    )
    holds(type(got) is int, f"kv_cache_bytes returned {got!r}, expected an int")


@exercise("kv_cache_bytes")
def test_two_bytes_by_default(exercises):
    """Without bytes_per_el a number takes two bytes."""
    exact(exercises.kv_cache_bytes(CFG, 6, 11), exercises.kv_cache_bytes(CFG, 6, 11, 2), "kv_cache_bytes by default")


@exercise("kv_cache_bytes")
@pytest.mark.parametrize("key", ["L", "Hk", "hd", "batch", "seq", "bytes_per_el"])
def test_linear_in_each_factor(exercises, key):
    """Three times as much of any factor takes three times the bytes."""
    numbers = {"batch": 7, "seq": 13, "bytes_per_el": 2}
    once = exercises.kv_cache_bytes(CFG, **numbers)
    cfg = {**CFG, key: 3 * CFG[key]} if key in CFG else CFG
    numbers = {name: value * (3 if name == key else 1) for name, value in numbers.items()}
    exact(exercises.kv_cache_bytes(cfg, **numbers), 3 * once, f"kv_cache_bytes with three times the {key}")


@exercise("kv_cache_bytes")
def test_query_heads_and_width_do_not_matter(exercises):
    """Query heads, model width and weights do not enter."""
    least = {"L": 3, "Hk": 5, "hd": 8}
    expected = exercises.kv_cache_bytes(CFG, 2, 9)
    exact(exercises.kv_cache_bytes(least, 2, 9), expected, "kv_cache_bytes with only L, Hk and hd in cfg")
    other = {**CFG, "D": 999, "H": 20, "params": 5}
    exact(exercises.kv_cache_bytes(other, 2, 9), expected, "kv_cache_bytes with another D, H and params")


@exercise("kv_cache_bytes")
@pytest.mark.parametrize(("seq", "kept"), [(0, 0), (1, 1), (16, 16), (17, 17), (18, 17), (500, 17)])
def test_window_caps_each_sequence(exercises, seq, kept):
    """A window keeps at most so many tokens of each sequence."""
    cfg = {**CFG, "window": 17}
    expected = 2 * 3 * 4 * kept * 5 * 8 * 2
    exact(exercises.kv_cache_bytes(cfg, 4, seq), expected, f"kv_cache_bytes of 4 sequences of {seq}, window 17")
    exact(exercises.kv_cache_bytes(CFG, 4, seq), 2 * 3 * 4 * seq * 5 * 8 * 2, f"kv_cache_bytes of {seq} with no window")


@exercise("kv_cache_bytes")
def test_nothing_takes_nothing(exercises):
    """No sequence takes no bytes, and cfg is not changed."""
    exact(exercises.kv_cache_bytes(CFG, 0, 9), 0, "kv_cache_bytes of no sequence")
    pure(exercises.kv_cache_bytes, {**CFG, "window": 4}, 2, 9)


# -- latency_model -------------------------------------------------------------------------------------------------

SMALL = {"L": 3, "D": 70, "H": 10, "Hk": 5, "hd": 8, "params": 20_000}


def expected_latency(cfg, prompt, new, flops, band, batch=1, cached=0, size=2):
    """Add up the passes one after the other."""

    def bytes_of(tokens):
        kept = min(tokens, cfg.get("window") or tokens)
        return size * (cfg["params"] + 2 * cfg["L"] * cfg["Hk"] * cfg["hd"] * kept * batch)

    compute = [2 * cfg["params"] * batch * m / flops for m in [prompt - cached] + [1] * (new - 1)]
    memory = [bytes_of(prompt + i) / band for i in range(new)]
    times = [max(pair) for pair in zip(compute, memory, strict=True)]
    bound = ["memory" if m > c else "compute" for c, m in zip(compute, memory, strict=True)]
    return {
        "ttft": times[0],
        "tpot": sum(times[1:]) / max(new - 1, 1),
        "total": sum(times),
        "bound": {"prefill": bound[0], "decode": bound[-1] if new > 1 else None},
    }


MACHINES = {
    "both phases compute": (1e5, 1e7),
    "both phases memory": (1e9, 1e5),
    "prefill computes, decode reads": (1e7, 1e6),
}


@exercise("latency_model", weight=2)
@pytest.mark.parametrize("machine", MACHINES)
def test_sum_of_the_passes(exercises, machine):
    """Times are those of the passes, one after the other."""
    flops, band = MACHINES[machine]
    for prompt, new, more in (
        (50, 7, {}),
        (90, 2, {"batch": 3}),
        (31, 12, {"batch": 5, "cached": 11, "bytes_per_el": 4}),
        (64, 5, {"cached": 63, "bytes_per_el": 1}),
    ):
        got = exercises.latency_model(SMALL, prompt, new, flops, band, **more)
        size = more.get("bytes_per_el", 2)
        want = expected_latency(SMALL, prompt, new, flops, band, more.get("batch", 1), more.get("cached", 0), size)
        close(got, want, f"latency_model(prompt={prompt}, new={new}, {more}); {machine}")


@exercise("latency_model")
def test_one_token_has_no_pace(exercises):
    """With new = 1 there is no decode pass: tpot 0.0, bound None."""
    got = exercises.latency_model(SMALL, 40, 1, 1e6, 1e6)
    close(got, expected_latency(SMALL, 40, 1, 1e6, 1e6), "latency_model with new=1")
    holds(type(got["tpot"]) is float, f"tpot is {got['tpot']!r}, expected a float")


@exercise("latency_model")
def test_total_is_first_and_others(exercises):
    """The total is the first token's time and new - 1 times tpot."""
    got = exercises.latency_model(SMALL, 40, 9, 1e7, 1e6, batch=2)
    close(got["total"], got["ttft"] + 8 * got["tpot"], "total of nine tokens")


@exercise("latency_model")
def test_the_slower_of_two_alone_counts(exercises):
    """Where computing is slower, faster memory changes nothing, and the reverse."""
    base = exercises.latency_model(SMALL, 50, 4, 1e5, 1e7)
    close(exercises.latency_model(SMALL, 50, 4, 1e5, 9e7), base, "latency_model with faster memory, bound by computing")
    base = exercises.latency_model(SMALL, 50, 4, 1e9, 1e5)
    close(exercises.latency_model(SMALL, 50, 4, 9e9, 1e5), base, "latency_model with faster computing, bound by memory")


@exercise("latency_model")
def test_weights_are_read_once_a_pass(exercises):
    """A memory-bound batch shares the weights; each sequence reads its own cache."""
    per_token = 2 * 3 * 5 * 8 * 2
    for batch in (1, 4):
        got = exercises.latency_model(SMALL, 10, 2, 1e12, 1e5, batch=batch)["tpot"]
        close(got, (40_000 + 11 * batch * per_token) / 1e5, f"tpot of a memory-bound batch of {batch}")


@exercise("latency_model")
def test_pace_falls_only_with_the_cache(exercises):
    """A longer prompt slows later tokens by the reading of its keys alone."""
    short, long = (exercises.latency_model(SMALL, prompt, 6, 1e9, 1e5) for prompt in (20, 120))
    close(long["tpot"] - short["tpot"], 100 * 2 * 3 * 5 * 8 * 2 / 1e5, "tpot at prompt 120 less tpot at prompt 20")


@exercise("latency_model")
def test_window_stops_the_growth(exercises):
    """With a window, the cache that is read stops growing."""
    cfg = {**SMALL, "window": 25}
    for prompt, new in ((20, 9), (30, 4), (22, 3)):
        got = exercises.latency_model(cfg, prompt, new, 1e9, 1e5, batch=2)
        close(
            got, expected_latency(cfg, prompt, new, 1e9, 1e5, 2), f"latency_model, window 25, {prompt} + {new} tokens"
        )


@exercise("latency_model")
def test_decode_turns_compute_bound_with_the_batch(exercises):
    """Decode computes more than it reads beyond the batch that the formula gives."""
    cfg = {"L": 1, "Hk": 1, "hd": 1, "params": 100_000}
    # reading 200,000 bytes takes 0.2 s; computing takes 0.002 s a sequence: with the small caches, 100 and a little
    bounds = [exercises.latency_model(cfg, 1, 2, 1e8, 1e6, batch=b)["bound"]["decode"] for b in (1, 99, 102, 300)]
    exact(bounds, ["memory", "memory", "compute", "compute"], "what bounds decode at batches of 1, 99, 102 and 300")


@exercise("latency_model")
def test_bound_of_the_last_pass(exercises):
    """When the cache outgrows the computing, the last decode pass says so."""
    cfg = {"L": 1, "Hk": 1, "hd": 5, "params": 1000}  # 20 bytes a token
    # one pass computes 2000 FLOPs in 0.25 s; it reads 2000 bytes and 20 a token, at 1e4 a second: over beyond 25
    for new, bound in ((15, "compute"), (16, "compute"), (17, "memory"), (40, "memory")):
        got = exercises.latency_model(cfg, 10, new, 8e3, 1e4)
        exact(got["bound"], {"prefill": "compute", "decode": bound}, f"bound of 10 + {new} tokens")
        close(got, expected_latency(cfg, 10, new, 8e3, 1e4), f"latency_model of 10 + {new} tokens")


@exercise("latency_model")
def test_equal_times_are_compute(exercises):
    """Where both take equally long, the bound is compute."""
    cfg = {"L": 1, "Hk": 1, "hd": 1, "params": 1024}  # 4 bytes a token
    got = exercises.latency_model(cfg, 256, 1, 2.0 * 1024 * 256, 2048.0 + 1024)
    exact(got, {"ttft": 1.0, "tpot": 0.0, "total": 1.0, "bound": {"prefill": "compute", "decode": None}}, "equal times")
    got = exercises.latency_model(cfg, 255, 2, 2.0 * 1024, 2048.0 + 1024)
    exact([got["tpot"], got["bound"]["decode"]], [1.0, "compute"], "tpot and bound of a decode pass of equal times")


@exercise("latency_model")
def test_cached_tokens_save_only_computing(exercises):
    """A cached prefix saves its FLOPs in prefill, and no reading at all."""
    cold, warm = (exercises.latency_model(SMALL, 60, 5, 1e6, 1e7, cached=cached) for cached in (0, 45))
    close(warm["ttft"], cold["ttft"] / 4, "ttft with 45 of 60 prompt tokens cached, bound by computing")
    close(warm["tpot"], cold["tpot"], "tpot with 45 of 60 prompt tokens cached")
    cold, warm = (exercises.latency_model(SMALL, 60, 5, 1e9, 1e5, cached=cached) for cached in (0, 45))
    close(warm, cold, "latency_model with 45 of 60 prompt tokens cached, bound by memory")


@exercise("latency_model")
@pytest.mark.parametrize(
    ("prompt", "new", "cached"), [(0, 3, 0), (5, 0, 0), (5, 3, 5), (5, 3, 6), (5, 3, -1), (-2, 3, -3)]
)
def test_latency_refuses(exercises, prompt, new, cached):
    """No prompt, no new token, or a prompt cached in full raises ValueError."""
    with pytest.raises(ValueError):
        exercises.latency_model(SMALL, prompt, new, 1e6, 1e6, cached=cached)


@exercise("latency_model")
def test_cfg_stays(exercises):
    """cfg is not changed."""
    pure(exercises.latency_model, {**SMALL, "window": 7}, 9, 3, 1e6, 1e6)


# -- PrefixCache ---------------------------------------------------------------------------------------------------


class Shelf:
    """Brute force: every block with all its past, the time of its last use, and a search for the oldest leaf."""

    def __init__(self, block, capacity):
        self.block, self.capacity, self.time, self.used, self.content = block, capacity, 0, {}, {}

    def path(self, ids):
        ends = range(self.block, len(ids) + 1, self.block)
        return [tuple(ids[:end]) for end in ends]

    def find(self, ids):
        self.time += 1
        found = []
        for key in self.path(ids):
            if key not in self.used:
                return found
            self.used[key] = self.time
            found.append(key)
        return found

    def insert(self, ids, blocks):
        self.time += 1
        for key, content in zip(self.path(ids), blocks, strict=True):
            self.content.setdefault(key, content)
            self.used[key] = self.time
        while len(self.used) > self.capacity:
            parents = {key[: -self.block] for key in self.used}
            gone = min((key for key in self.used if key not in parents), key=self.used.get)
            del self.used[gone], self.content[gone]


@exercise("PrefixCache", weight=2)
@pytest.mark.parametrize(("block", "capacity"), [(1, 4), (2, 5), (3, 1), (2, 9)])
def test_many_requests(exercises, rng, block, capacity):
    """Through many inserts and lookups it finds and drops what it should."""
    cache, shelf, random = exercises.PrefixCache(block, capacity), Shelf(block, capacity), rng.random
    for turn in range(90):
        ids = [random.randrange(2) for _ in range(random.randrange(4 * block + 2))]
        what = f"turn {turn} with block={block}, capacity={capacity}, ids={ids}"
        action = random.choice(("insert", "match", "fetch"))
        if action == "insert":
            blocks = [f"{turn}.{i}" for i in range(len(ids) // block)]
            cache.insert(ids, blocks)
            shelf.insert(ids, blocks)
            exact(cache.n_blocks, len(shelf.used), f"n_blocks after insert in {what}")
        elif action == "match":
            exact(cache.match(ids), block * len(shelf.find(ids)), f"match in {what}")
        else:
            exact(cache.fetch(ids), [shelf.content[key] for key in shelf.find(ids)], f"fetch in {what}")


@exercise("PrefixCache")
def test_longest_common_prefix(exercises, rng):
    """match gives the longest common prefix in whole blocks, never more."""
    cache, random = exercises.PrefixCache(3, 1000), rng.random
    kept = [[random.randrange(3) for _ in range(random.randrange(4, 17))] for _ in range(12)]
    for ids in kept:
        cache.insert(ids, list(range(len(ids) // 3)))
    for _ in range(60):
        base = random.choice(kept)
        ids = base[: random.randrange(len(base) + 1)] + [random.randrange(3) for _ in range(random.randrange(6))]
        best = 0
        for old in kept:
            common = next(
                (i for i, (a, b) in enumerate(zip(ids, old, strict=False)) if a != b), min(len(ids), len(old))
            )
            best = max(best, common // 3 * 3)
        exact(cache.match(ids), best, f"match({ids})")


@exercise("PrefixCache")
def test_same_block_after_another_past(exercises):
    """The same ids after other ids are another block."""
    cache = exercises.PrefixCache(2, 10)
    cache.insert([1, 2, 7, 8], ["a", "b"])
    cache.insert([3, 4, 5, 6], ["c", "d"])
    exact(cache.match([3, 4, 7, 8]), 2, "match of a known first block and another prompt's second block")
    exact(cache.match([7, 8, 1, 2]), 0, "match of the same blocks in another order")
    cache.insert([3, 4, 7, 8], ["c", "e"])
    exact(cache.fetch([3, 4, 7, 8]), ["c", "e"], "fetch of the second path")
    exact(cache.fetch([1, 2, 7, 8]), ["a", "b"], "fetch of the first path")
    exact(cache.n_blocks, 5, "n_blocks of five different blocks")


@exercise("PrefixCache")
def test_same_block_twice_in_a_prompt(exercises):
    """A prompt that repeats a block keeps it twice."""
    cache = exercises.PrefixCache(2, 10)
    cache.insert([1, 2, 1, 2, 1, 2], ["a", "b", "c"])
    exact(cache.fetch([1, 2, 1, 2, 1, 2, 1, 2]), ["a", "b", "c"], "fetch of a repeated block")
    exact(cache.n_blocks, 3, "n_blocks of a block said three times")


@exercise("PrefixCache")
def test_partial_blocks_are_not_shared(exercises):
    """Ids that fill no block are neither kept nor found."""
    cache = exercises.PrefixCache(4, 10)
    cache.insert([1, 2, 3, 4, 5, 6, 7], ["a"])
    for ids, found in (([1, 2, 3], 0), ([1, 2, 3, 4], 4), ([1, 2, 3, 4, 5, 6, 7], 4), ([], 0)):
        exact(cache.match(ids), found, f"match({ids})")
    cache.insert([9, 9, 9], [])
    exact([cache.match([9, 9, 9]), cache.n_blocks], [0, 1], "match and n_blocks after a prompt shorter than a block")


@exercise("PrefixCache")
@pytest.mark.parametrize("use", ["match", "fetch", "insert"])
def test_every_use_counts(exercises, use):
    """A block that was matched, fetched or inserted again is kept longer."""
    cache = exercises.PrefixCache(1, 3)
    for token in (1, 2, 3):
        cache.insert([token], [token])
    if use == "insert":
        cache.insert([1], ["x"])
    else:
        getattr(cache, use)([1, 9])
    cache.insert([4], [4])
    exact([cache.match([t]) for t in (1, 2, 3, 4)], [1, 0, 1, 1], f"what is left after {use} of the oldest block")


@exercise("PrefixCache")
def test_parents_outlive_children(exercises):
    """A block that another continues is not dropped before it."""
    cache = exercises.PrefixCache(1, 4)
    cache.insert([1, 2, 3], ["a", "b", "c"])
    cache.insert([5], ["d"])
    cache.insert([6], ["e"])
    exact(cache.match([1, 2, 3]), 2, "match of a path whose end had to go")
    cache.insert([7], ["f"])  # 5 is now the oldest leaf: the path was used by match
    exact([cache.match([5]), cache.match([1, 2])], [0, 2], "what is left after one more insert")
    exact(cache.n_blocks, 4, "n_blocks")


@exercise("PrefixCache")
def test_old_trunk_with_a_live_branch(exercises):
    """Branches go one by one; their trunk stays while one lives."""
    cache = exercises.PrefixCache(2, 4)
    cache.insert([1, 1, 2, 2], ["trunk", "old"])
    cache.insert([1, 1, 3, 3], ["trunk", "young"])
    cache.insert([4, 4, 5, 5], ["x", "y"])
    exact(cache.match([1, 1, 2, 2]), 2, "match of the older branch")
    exact(cache.match([1, 1, 3, 3]), 4, "match of the younger branch")


@exercise("PrefixCache")
def test_a_prompt_longer_than_the_room(exercises):
    """Of a prompt with more blocks than capacity the first ones stay."""
    cache = exercises.PrefixCache(2, 3)
    cache.insert([9, 9], ["z"])
    cache.insert(list(range(10)), list("abcde"))
    exact(cache.fetch(list(range(10))), list("abc"), "fetch of a prompt of five blocks with capacity 3")
    exact([cache.n_blocks, cache.match([9, 9])], [3, 0], "n_blocks, and match of the prompt before")


@exercise("PrefixCache")
def test_what_is_kept_stays(exercises):
    """Inserting a kept block again does not replace what was kept."""
    cache = exercises.PrefixCache(1, 5)
    cache.insert([1, 2], [None, 0])
    cache.insert([1, 2, 3], ["new", "new", []])
    exact(cache.fetch([1, 2, 3]), [None, 0, []], "fetch after a second insert")
    exact(cache.match([1, 2, 3]), 3, "match of blocks whose contents are None, 0 and an empty list")


@exercise("PrefixCache")
def test_dropped_contents_come_back_new(exercises):
    """A block that was dropped and inserted again has its new content."""
    cache = exercises.PrefixCache(1, 1)
    cache.insert([1], ["old"])
    cache.insert([2], ["other"])
    exact(cache.fetch([1]), [], "fetch of a dropped block")
    cache.insert([1], ["new"])
    exact(cache.fetch([1]), ["new"], "fetch of a block inserted again")


@exercise("PrefixCache")
@pytest.mark.parametrize("blocks", [[], ["a"], ["a", "b", "c"]], ids=len)
def test_one_object_a_block(exercises, blocks):
    """Another number of objects than full blocks raises ValueError, changes nothing."""
    cache = exercises.PrefixCache(2, 8)
    cache.insert([1, 2], ["kept"])
    with pytest.raises(ValueError):
        cache.insert([1, 2, 3, 4, 5], blocks)
    exact([cache.n_blocks, cache.match([1, 2, 3, 4])], [1, 2], "n_blocks and match after a refused insert")


@exercise("PrefixCache")
def test_a_refused_insert_is_no_use(exercises):
    """An insert that is refused does not make its blocks younger."""
    cache = exercises.PrefixCache(1, 2)
    cache.insert([1], ["a"])
    cache.insert([2], ["b"])
    with pytest.raises(ValueError):
        cache.insert([1], [])
    cache.insert([3], ["c"])
    exact([cache.match([t]) for t in (1, 2, 3)], [0, 1, 1], "what is left of 1, 2 and 3 after a refused insert of 1")


@exercise("PrefixCache")
@pytest.mark.parametrize(("block", "capacity"), [(0, 3), (3, 0), (-1, 3), (2, -4)])
def test_prefix_cache_refuses(exercises, block, capacity):
    """A block or a capacity below one raises ValueError."""
    with pytest.raises(ValueError):
        exercises.PrefixCache(block, capacity)


@exercise("PrefixCache")
def test_two_prefix_caches_share_nothing(exercises):
    """What one cache keeps, another does not find."""
    one, two = exercises.PrefixCache(1, 3), exercises.PrefixCache(1, 3)
    one.insert([1, 2], ["a", "b"])
    exact(
        [two.match([1, 2]), two.n_blocks, one.match([1, 2])],
        [0, 0, 2],
        "match in the other, its n_blocks, and in the one",
    )


@exercise("PrefixCache")
def test_prompts_and_blocks_stay(exercises):
    """The lists given are not changed."""
    cache = exercises.PrefixCache(2, 3)
    pure(cache.insert, [1, 2, 3, 4, 5], ["a", "b"])
    pure(cache.match, [1, 2, 3, 4, 5])
    pure(cache.fetch, [1, 2, 3, 4, 5])


# -- left_pad_positions --------------------------------------------------------------------------------------------


@exercise("left_pad_positions", weight=2)
@pytest.mark.parametrize(
    ("lengths", "T"), [([4, 7, 1, 0, 6], 7), ([2, 3], 6), ([1], 1), ([5], 5), ([0, 2], 2)], ids=str
)
def test_row_by_row(exercises, lengths, T):
    """Positions and mask are those of each row counted by hand."""
    position_ids, mask = exercises.left_pad_positions(torch.tensor(lengths), T)
    positions = torch.zeros(len(lengths), T, dtype=torch.int64)
    see = torch.zeros(len(lengths), 1, T, T, dtype=torch.bool)
    for b, n in enumerate(lengths):
        for i in range(T - n, T):
            positions[b, i] = i - (T - n)
            see[b, 0, i, T - n : i + 1] = True
    exact(position_ids, positions, f"position_ids for lengths {lengths}, T={T}")
    exact(mask, see, f"the mask for lengths {lengths}, T={T}")


@exercise("left_pad_positions")
def test_padding_is_invisible(exercises, rng):
    """Attention over a padded batch equals each row alone."""
    lengths, T, H, hd = [3, 6, 4], 6, 2, 4
    position_ids, mask = exercises.left_pad_positions(torch.tensor(lengths), T)
    exact([tuple(position_ids.shape), tuple(mask.shape)], [(3, T), (3, 1, T, T)], "the shapes")
    x, table = rng.normal(3, H, T, hd), rng.normal(T, hd)
    given = x + table[position_ids][:, None]
    got = scaled_dot_product_attention(given, given, given, attn_mask=mask)
    for b, n in enumerate(lengths):
        alone = x[b, :, T - n :] + table[:n]
        expected = scaled_dot_product_attention(alone, alone, alone, is_causal=True)
        close(got[b, :, T - n :], expected, f"attention of row {b}, {n} of {T} tokens real")


@exercise("left_pad_positions")
@pytest.mark.parametrize("lengths", [[3, 6], [-1, 2], [2, -3, 9]], ids=str)
def test_lengths_outside_are_refused(exercises, lengths):
    """A negative length or one beyond T raises ValueError."""
    with pytest.raises(ValueError):
        exercises.left_pad_positions(torch.tensor(lengths), 5)


@exercise("left_pad_positions")
def test_lengths_stay(exercises):
    """The lengths given are not changed."""
    pure(exercises.left_pad_positions, torch.tensor([2, 5, 0]), 5)
