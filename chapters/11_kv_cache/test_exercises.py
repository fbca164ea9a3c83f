"""Self-checks of chapter 11: worked examples and the laws that make a cache safe."""

import pytest
import torch

from grader.testing import close, counting, driver, exact, exercise, holds

GPT2 = {"L": 12, "D": 768, "H": 12, "Hk": 12, "hd": 64, "window": None, "params": 124_439_808}
LLAMA3_8B = {"L": 32, "D": 4096, "H": 32, "Hk": 8, "hd": 128, "window": None, "params": 8_030_261_248}
TOY = {"L": 1, "Hk": 1, "hd": 1, "params": 1000}


def everything(cache, layer=0, B=1, Hk=1, hd=2):
    """Read a layer by appending no tokens."""
    nothing = torch.zeros(B, Hk, 0, hd)
    return cache.append(layer, nothing, nothing)


@driver
def build_model(module, step, new_cache):
    """Make a model whose work is done by the test's own functions."""

    class Model:
        def new_cache(self, B):
            return new_cache(B)

        def __call__(self, ids, cache):
            return step(ids, cache)

    return Model()


def sum_model(exercises):
    """A model that says the sum of all ids so far, modulo 10, and finds the old ones in the cache alone."""

    def step(ids, cache):
        k = ids[:, None, :, None].float()
        keys, _ = cache.append(0, k, k)
        sums = keys[:, 0, :, 0].cumsum(1).long()[:, -ids.shape[1] :] % 10
        return torch.nn.functional.one_hot(sums, 10).float()

    step = counting(step)
    return exercises.run(build_model, step, lambda B: exercises.KVCache(1, B, 1, 32, 1)), step


@exercise("KVCache")
def test_append_concatenates(exercises, rng):
    """Appending piece by piece gives all pieces side by side."""
    k, v = rng.normal(2, 3, 6, 4).float(), rng.normal(2, 3, 6, 4).float()
    cache = exercises.KVCache(1, 2, 3, 10, 4)
    for start, end in ((0, 3), (3, 4), (4, 6)):
        got = cache.append(0, k[:, :, start:end], v[:, :, start:end])
        close(got, (k[:, :, :end], v[:, :, :end]), f"append of tokens {start} to {end - 1}")
    exact(cache.length, 6, "length after six tokens")


@exercise("KVCache")
def test_truncate_forgets(exercises, rng):
    """After truncate, new tokens take the place of the forgotten ones."""
    k = rng.normal(1, 1, 5, 2).float()
    cache = exercises.KVCache(1, 1, 1, 5, 2)
    cache.append(0, k[:, :, :4], -k[:, :, :4])
    cache.truncate(2)
    keys, values = cache.append(0, k[:, :, 4:], -k[:, :, 4:])
    close(keys, k[:, :, [0, 1, 4]], "the keys after truncate(2) and one append")
    close(values, -keys, "the values after truncate(2) and one append")


@exercise("KVCache")
def test_overflow(exercises):
    """A token too many raises a ValueError."""
    cache = exercises.KVCache(1, 1, 1, 2, 2)
    two = torch.ones(1, 1, 2, 2)
    cache.append(0, two, two)
    with pytest.raises(ValueError):
        cache.append(0, two[:, :, :1], two[:, :, :1])


@exercise("KVCache")
def test_reorder_moves_keys_and_values(exercises):
    """Rows take over the keys and the values of other rows."""
    k = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1)
    cache = exercises.KVCache(1, 3, 1, 4, 1)
    cache.append(0, k, 10 * k)
    cache.reorder(torch.tensor([2, 2, 0]))
    keys, values = everything(cache, B=3, hd=1)
    close(keys.flatten(), torch.tensor([3.0, 3.0, 1.0]), "the keys after reorder([2, 2, 0])")
    close(values.flatten(), torch.tensor([30.0, 30.0, 10.0]), "the values after reorder([2, 2, 0])")


def random_weights(rng, D, H, Hk, hd):
    return {name: rng.normal(n, hd, D) / D**0.5 for name, n in (("q", H), ("k", Hk), ("v", Hk), ("o", H))}


@exercise("attend_step")
@pytest.mark.parametrize("pieces", [[1] * 7, [4, 1, 2]], ids=str)
def test_pieces_equal_the_whole(exercises, rng, pieces):
    """Any way of cutting the tokens into pieces gives the same output."""
    x, weights = rng.normal(2, 7, 6), random_weights(rng, 6, 4, 2, 8)
    whole = exercises.attend_step(x, exercises.KVCache(1, 2, 2, 9, 8, dtype=torch.float64), weights)
    cache = exercises.KVCache(1, 2, 2, 9, 8, dtype=torch.float64)
    outputs = [exercises.attend_step(piece, cache, weights) for piece in x.split(pieces, dim=1)]
    close(torch.cat(outputs, dim=1), whole, f"the outputs for pieces of {pieces} tokens, side by side")


@exercise("attend_step")
def test_first_token_sees_itself(exercises):
    """A token alone attends to itself with weight one."""
    weights = {name: torch.full((1, 2, 1), value) for name, value in (("q", 1.0), ("k", 1.0), ("v", 3.0), ("o", 0.5))}
    out = exercises.attend_step(torch.tensor([[[2.0]]]), exercises.KVCache(1, 1, 1, 4, 2), weights)
    close(out, torch.tensor([[[6.0]]]), "attend_step of one token with an empty cache")  # (2*3)*0.5 + (2*3)*0.5


@exercise("attend_step")
def test_future_does_not_matter(exercises, rng):
    """Changing the last new token leaves the outputs before it as they are."""
    x, weights = rng.normal(1, 5, 6), random_weights(rng, 6, 2, 1, 4)
    changed = torch.cat([x[:, :4], rng.normal(1, 1, 6)], dim=1)
    first = exercises.attend_step(x, exercises.KVCache(1, 1, 1, 5, 4, dtype=torch.float64), weights)
    second = exercises.attend_step(changed, exercises.KVCache(1, 1, 1, 5, 4, dtype=torch.float64), weights)
    close(second[:, :4], first[:, :4], "the first four outputs after a change of the fifth token")
    holds((second[:, 4] - first[:, 4]).abs().max() > 0.01, "the output of the token that changed did not change")


@exercise("generate_cached")
def test_sums(exercises):
    """Greedy generation continues what the whole text so far says."""
    model, _ = sum_model(exercises)
    # 1+2+3 = 6; +6 = 12 -> 2; +2 = 14 -> 4
    got = exercises.generate_cached(model, torch.tensor([[1, 2, 3]]), 3)
    exact(got, torch.tensor([[1, 2, 3, 6, 2, 4]]), "generate_cached with the sum model")


@exercise("generate_cached")
def test_tokens_are_fed_once(exercises):
    """The prompt is fed once, every further token alone, the last one never."""
    model, step = sum_model(exercises)
    exercises.generate_cached(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), 4)
    shapes = [tuple(ids.shape) for ids, _ in step.arguments]
    exact(shapes, [(2, 3), (2, 1), (2, 1), (2, 1)], "the shapes of ids that the model was called with")


@exercise("generate_cached")
def test_rows_follow_choose(exercises):
    """A row that continues another row also takes over its cache."""
    model, _ = sum_model(exercises)

    def choose(logits):
        return logits.argmax(-1).flip(0), torch.tensor([1, 0])  # the two rows change places

    got = exercises.generate_cached(model, torch.tensor([[1, 1], [3, 2]]), 2, choose)
    exact(got, torch.tensor([[1, 1, 2, 4], [3, 2, 5, 0]]), "generate_cached with rows that change places twice")


@exercise("prefill")
@pytest.mark.parametrize("chunk", [1, 2, 5, 9])
def test_chunk_does_not_matter(exercises, chunk):
    """Every chunk size gives the logits of the last token and a full cache."""
    model, _ = sum_model(exercises)
    logits, cache = exercises.prefill(model, torch.tensor([[1, 2, 3, 4, 5], [5, 5, 5, 5, 4]]), chunk)
    exact(logits.argmax(-1), torch.tensor([5, 4]), f"the tokens that prefill with chunk={chunk} predicts")
    exact(cache.length, 5, "the length of the cache")


@exercise("prefill")
def test_pieces(exercises):
    """The model sees pieces of chunk tokens and then the rest."""
    model, step = sum_model(exercises)
    exercises.prefill(model, torch.arange(8).reshape(1, 8), 3)
    exact([ids.tolist() for ids, _ in step.arguments], [[[0, 1, 2]], [[3, 4, 5]], [[6, 7]]], "the pieces fed")


@exercise("kv_cache_bytes")
def test_known_models(exercises):
    """One token takes 36,864 bytes in GPT-2 and 131,072 in Llama 3 8B."""
    exact(exercises.kv_cache_bytes(GPT2, 1, 1), 36_864, "kv_cache_bytes(GPT2, 1, 1)")
    exact(exercises.kv_cache_bytes(LLAMA3_8B, 1, 1), 131_072, "kv_cache_bytes(LLAMA3_8B, 1, 1)")


@exercise("kv_cache_bytes")
def test_window_caps_the_tokens(exercises):
    """With a window, tokens beyond it take no more room."""
    cfg = {"L": 2, "Hk": 3, "hd": 4, "window": 10}
    exact(exercises.kv_cache_bytes(cfg, 1, 11), exercises.kv_cache_bytes(cfg, 1, 10), "11 tokens in a window of 10")
    exact(exercises.kv_cache_bytes(cfg, 1, 9), 864, "kv_cache_bytes of 9 tokens")  # 2 * 2 * 9 * 3 * 4 * 2


@exercise("latency_model")
def test_worked_example(exercises):
    """Prefill is bound by computing, decode by reading."""
    got = exercises.latency_model(TOY, prompt=100, new=3, flops_per_s=1e6, bytes_per_s=2e4)
    # prefill: 2*1000*100/1e6 = 0.2 s; reads (2000 + 400)/2e4 = 0.12 s. decode: (2000 + 404)/2e4, (2000 + 408)/2e4
    expected = {"ttft": 0.2, "tpot": 0.1203, "total": 0.4406, "bound": {"prefill": "compute", "decode": "memory"}}
    close(got, expected, "latency_model of the worked example")


@exercise("latency_model")
def test_cached_prompt_only_helps_the_first_token(exercises):
    """A cached prefix lowers the time to the first token and nothing else."""
    cold = exercises.latency_model(TOY, 100, 5, 1e6, 2e4)
    warm = exercises.latency_model(TOY, 100, 5, 1e6, 2e4, cached=20)
    close(warm["ttft"], 0.8 * cold["ttft"], "ttft with 20 of 100 prompt tokens cached")
    close(warm["tpot"], cold["tpot"], "tpot with 20 of 100 prompt tokens cached")


@exercise("PrefixCache")
def test_whole_blocks_of_the_true_prefix(exercises):
    """Only full blocks whose whole past agrees are found."""
    cache = exercises.PrefixCache(2, 10)
    cache.insert([1, 2, 3, 4, 5], ["A", "B"])
    exact(cache.match([1, 2, 3, 4, 5, 6]), 4, "match of a longer prompt")
    exact(cache.match([1, 2, 3, 9]), 2, "match of a prompt that parts inside the second block")
    exact(cache.match([9, 9, 3, 4]), 0, "match of a prompt with another first block")
    exact(cache.fetch([1, 2, 3, 4]), ["A", "B"], "fetch of the whole prompt")


@exercise("PrefixCache")
def test_oldest_block_goes(exercises):
    """When there is no room, the block unused for longest goes."""
    cache = exercises.PrefixCache(1, 2)
    cache.insert([1], ["A"])
    cache.insert([2], ["B"])
    cache.match([1])
    cache.insert([3], ["C"])
    exact([cache.match([1]), cache.match([2]), cache.match([3])], [1, 0, 1], "what is left of 1, 2 and 3")
    exact(cache.n_blocks, 2, "n_blocks")


@exercise("left_pad_positions")
def test_worked_positions(exercises):
    """The first real token has position 0."""
    position_ids, _ = exercises.left_pad_positions(torch.tensor([2, 4]), 4)
    exact(position_ids, torch.tensor([[0, 0, 0, 1], [0, 1, 2, 3]]), "position_ids for lengths 2 and 4")


@exercise("left_pad_positions")
def test_worked_mask(exercises):
    """Nobody attends to a pad or to the future."""
    _, mask = exercises.left_pad_positions(torch.tensor([3]), 4)
    rows = [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 1]]
    exact(mask, torch.tensor(rows).bool().reshape(1, 1, 4, 4), "the mask for one row of length 3")
