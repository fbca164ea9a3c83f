"""What the figure of chapter 11 computes and says, held against the reference."""

import math

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
FLOPS, BYTES = 989e12, 3.35e12


def some_model(rng):
    L, Hk, hd, params = (int(rng.integers(1, top)) for top in (40, 33, 200, 10**10))
    return {"L": L, "Hk": Hk, "hd": hd, "params": params}


def sides(cfg, m, s, batch, flops, bandwidth):
    """Time what a pass computes and what it reads, each by a machine that has no limit on the other side."""
    case = {"prompt": s, "new": 1, "batch": batch, "cached": s - m}
    return {
        "feeds": m,
        "compute": reference.latency_model(cfg, flops_per_s=flops, bytes_per_s=math.inf, **case)["ttft"],
        "memory": reference.latency_model(cfg, flops_per_s=math.inf, bytes_per_s=bandwidth, **case)["ttft"],
    }


@mirror("cacheBytes")
def cache_bytes(rng):
    cfg, batch, seq = some_model(rng), int(rng.integers(1, 65)), int(rng.integers(0, 10_000))
    return [cfg, batch, seq], reference.kv_cache_bytes(cfg, batch, seq)


@mirror("pass")
def one_pass(rng):
    cfg, batch, s = some_model(rng), int(rng.integers(1, 65)), int(rng.integers(10, 5000))
    m = int(rng.integers(1, s + 1))
    return [cfg, m, s, FLOPS, BYTES, batch], sides(cfg, m, s, batch, FLOPS, BYTES)


@mirror("passes")
def passes_with_a_cache(rng):
    cfg, batch, prompt = some_model(rng), int(rng.integers(1, 65)), int(rng.integers(10, 5000))
    fed = []

    def model(ids, cache):  # only notes how many tokens it is fed
        fed.append(ids.shape[1])
        return torch.zeros(*ids.shape, 3)

    model.new_cache = lambda B: reference.KVCache(L=1, B=B, Hk=1, T_max=1, hd=1)
    reference.generate_cached(model, torch.zeros(1, prompt, dtype=torch.int64), 6)
    expected = [sides(cfg, m, sum(fed[: i + 1]), batch, FLOPS, BYTES) for i, m in enumerate(fed)]
    return [cfg, prompt, 6, FLOPS, BYTES, batch, True], expected


@mirror("passes")
def passes_without_a_cache(rng):
    cfg, batch, prompt = some_model(rng), int(rng.integers(1, 65)), int(rng.integers(10, 5000))
    expected = [sides(cfg, s, s, batch, FLOPS, BYTES) for s in range(prompt, prompt + 6)]
    return [cfg, prompt, 6, FLOPS, BYTES, batch, False], expected


@mirror("latency")
def latency(rng):
    cfg, batch, prompt = some_model(rng), int(rng.integers(1, 65)), int(rng.integers(10, 5000))
    new = int(rng.integers(1, 9))
    expected = reference.latency_model(cfg, prompt, new, FLOPS, BYTES, batch)
    case = [sides(cfg, 1 if i else prompt, prompt + i, batch, FLOPS, BYTES) for i in range(new)]
    return [case], {name: expected[name] for name in ("ttft", "tpot", "total")}


def fed(prompt, new, chunk):
    """Note how many tokens the reference feeds in each pass: the prompt in chunks, then token by token."""
    sizes = []

    def model(ids, cache):
        sizes.append(ids.shape[1])
        cache.append(0, *(torch.zeros(1, 1, ids.shape[1], 1) for _ in "kv"))
        return torch.zeros(*ids.shape, 3)

    model.new_cache = lambda B: reference.KVCache(L=1, B=B, Hk=1, T_max=99, hd=1)
    ids = torch.zeros(1, prompt, dtype=torch.int64)
    reference.prefill(model, ids, chunk)
    chunks = len(sizes)
    reference.generate_cached(model, ids, new)
    return sizes[:chunks] + sizes[chunks + 1 :]


@mirror("feeds")
def feeds_with_a_cache(rng):
    prompt, new, chunk = (int(rng.integers(1, top)) for top in (9, 7, 8))
    sizes = fed(prompt, new, chunk)
    return [prompt, new, chunk, True], [[sum(sizes[:i]), sum(sizes[: i + 1])] for i in range(len(sizes))]


@mirror("feeds")
def feeds_without_a_cache(rng):
    prompt, new = int(rng.integers(1, 9)), int(rng.integers(1, 7))
    return [prompt, new, 3, False], [[0, s] for s in range(prompt, prompt + new)]


@mirror("scores")
def scores(rng):
    from_ = int(rng.integers(0, 9))
    to = from_ + int(rng.integers(1, 9))
    return [[from_, to]], int(torch.ones(to, to).tril()[from_:].sum())


@shown()
def the_table_of_the_notes():
    cost = reference.latency_model(reference.LLAMA3_8B, 2000, 5, FLOPS, BYTES)
    share = reference.kv_cache_bytes(reference.LLAMA3_8B, 1, 2004) / (2 * reference.LLAMA3_8B["params"])
    ttft, tpot, total = (1e3 * cost[name] for name in ("ttft", "tpot", "total"))
    return (
        f"first token {ttft:.1f} ms, then {tpot:.2f} ms a token; {total:.1f} ms in all."
        " Each sequence feeds 2,004 tokens. The last pass is bound by memory;"
        f" the cache is {100 * share:.1f} % of"
    )


@shown(doublings=6)
def a_batch_of_64():
    cost = reference.latency_model(reference.LLAMA3_8B, 2000, 5, FLOPS, BYTES, batch=64)
    return f"first token {1e3 * cost['ttft']:,.0f} ms, then {1e3 * cost['tpot']:.2f} ms a token"


@shown(cache=False)
def without_the_cache_every_token_is_a_first_one():
    total = sum(reference.latency_model(reference.LLAMA3_8B, s, 1, FLOPS, BYTES)["ttft"] for s in range(2000, 2005))
    return f"{1e3 * total:.0f} ms in all. Each sequence feeds 10,010 tokens. The last pass is bound by computing"


@shown(panel="table")
def the_worked_example():
    sizes = fed(3, 3, 6)
    table = torch.ones(5, 5).tril()
    return (
        f"Pass 2 of {len(sizes)} feeds 1 token and computes {int(table[3].sum())} scores; the keys and values of"
        f" {sizes[0]} tokens are there already. All passes feed {sum(sizes)} tokens and compute"
        f" {int(table.sum())} scores."
    )


@shown(**{"panel": "table", "kept": False, "pass": 3})
def the_worked_example_without_a_cache():
    total = sum(int(torch.ones(s, s).sum().item() + s) // 2 for s in (3, 4, 5))
    return f"4 of its tokens were fed before. All passes feed {3 + 4 + 5} tokens and compute {total} scores."


@shown(**{"panel": "table", "read": 5, "chunk": 2, "pass": 2})
def a_prompt_in_chunks():
    sizes = fed(5, 3, 2)
    computed = int(torch.ones(4, 4).tril()[2:].sum())
    return (
        f"Pass 2 of {len(sizes)} feeds {sizes[1]} tokens and computes {computed} scores; the keys and values of"
        f" {sizes[0]} tokens are there already."
    )
