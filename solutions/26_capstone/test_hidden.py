"""Hidden tests of chapter 26: the whole contract."""

import math
from statistics import linear_regression

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, dataset, driver, exact, exercise, holds, pure, roughly

# --- family_params ----------------------------------------------------------------------------------------------------

PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616,
    "llama-3-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "mixtral-8x7b": 46_702_792_704,
}

PLAIN = {"vocab_size": 29, "T_max": 40, "d_model": 12, "n_layers": 3, "n_heads": 6, "n_kv_heads": 2, "head_dim": 4}
PLAIN |= {"d_ff": 20, "norm": "rms", "positions": "rope", "ffn": "swiglu", "bias": False, "tied": False}
PLAIN |= {"window": None, "full_every": 0, "n_experts": 0, "top_k": 0, "n_shared": 0}
"""A small model of the common kind; every size is another number."""

SCALED = {
    "gpt2": {"norm": "layer", "positions": "learned", "ffn": "gelu", "bias": True, "tied": True, "n_kv_heads": 6},
    "llama": {"n_kv_heads": 6},
    "mistral": {"window": 3},
    "gemma": {"ffn": "geglu", "tied": True, "n_kv_heads": 1, "head_dim": 8},
    "mixtral": {"n_experts": 5, "top_k": 2},
    "shared": {"n_experts": 4, "top_k": 3, "n_shared": 2, "bias": True},
    "alternating": {"window": 2, "full_every": 2, "n_layers": 5},
    "layered": {"norm": "layer", "bias": True, "ffn": "geglu", "n_kv_heads": 3},
}


def with_(**changes):
    return PLAIN | changes


@exercise("family_params", weight=2)
def test_published_totals_are_hit(exercises):
    """The totals of eight published models are right to the last digit."""
    families = exercises.value("FAMILIES")
    exact({name: exercises.family_params(families[name])["total"] for name in PUBLISHED}, PUBLISHED, "the totals")


@exercise("family_params", weight=2)
def test_parts_are_counted_where_they_belong(exercises):
    """Each part of a small model is the sum of its matrices and vectors."""
    got = pure(exercises.family_params, PLAIN)
    exact(sorted(got), ["active", "attention", "embedding", "mlp", "norm", "total"], "the names")
    exact(got["embedding"], 2 * 29 * 12, "embedding, with a head of its own")
    exact(got["attention"], 3 * (2 * 12 * 24 + 2 * 12 * 8), "attention, with heads that are wider together than D")
    exact(got["mlp"], 3 * 3 * 12 * 20, "mlp with a gate")
    exact(got["norm"], 7 * 12, "norm: two in each of three layers, and the last one")
    exact(got["total"], sum(got[name] for name in ("embedding", "attention", "mlp", "norm")), "total")


@exercise("family_params")
def test_biases_and_layer_norms_are_vectors_more(exercises):
    """Biases lie on every matrix of a layer, layer norms hold two vectors."""
    plain, biased = (exercises.family_params(with_(bias=bias)) for bias in (False, True))
    exact(biased["attention"] - plain["attention"], 3 * (24 + 8 + 8 + 12), "biases of attention")
    exact(biased["mlp"] - plain["mlp"], 3 * (20 + 20 + 12), "biases of a gated network")
    exact(biased["embedding"], plain["embedding"], "table and head with bias")
    gelu = [exercises.family_params(with_(ffn="gelu", bias=bias))["mlp"] for bias in (False, True)]
    exact(gelu, [3 * 2 * 12 * 20, 3 * (2 * 12 * 20 + 20 + 12)], "mlp of a gelu network")
    exact(exercises.family_params(with_(norm="layer"))["norm"], 7 * 2 * 12, "layer norms")


@exercise("family_params")
def test_positions_and_tying_change_the_embedding_alone(exercises):
    """Only learned positions count, and a tied head counts once."""
    base = exercises.family_params(PLAIN)
    for changes, more in (({"positions": "learned"}, 40 * 12), ({"tied": True}, -29 * 12), ({"T_max": 99}, 0)):
        got = exercises.family_params(with_(**changes))
        exact(got["embedding"] - base["embedding"], more, f"the change of embedding with {changes}")
        exact(got["total"] - base["total"], more, f"the change of total with {changes}")


@exercise("family_params", weight=2)
def test_experts_are_stored_but_not_all_used(exercises):
    """All experts count in total, only the chosen and the shared in active."""
    mixtral = exercises.value("FAMILIES")["mixtral-8x7b"]
    exact(exercises.family_params(mixtral)["active"], 12_879_925_248, "the active parameters of Mixtral")
    ffn = 3 * 12 * 20
    got = exercises.family_params(with_(n_experts=5, top_k=2, n_shared=1))
    exact(got["mlp"], 3 * (6 * ffn + 12 * 5), "five experts, one shared expert and a router")
    exact(got["total"] - got["active"], 3 * 3 * ffn, "the three experts that a token passes by")
    dense = exercises.family_params(with_(top_k=7, n_shared=3))
    exact([dense["mlp"], dense["active"]], [3 * ffn, dense["total"]], "mlp and active without experts")


@exercise("family_params")
def test_layers_add_up(exercises):
    """Each further layer adds the same, and windows add nothing."""
    for changes in SCALED.values():
        one, two, nine = (exercises.family_params(with_(**changes | {"n_layers": n}))["total"] for n in (1, 2, 9))
        exact(nine - one, 8 * (two - one), f"what eight layers add to {changes}")
    exact(exercises.family_params(with_(window=3)), exercises.family_params(PLAIN), "the counts with a window")


# --- family_memory, fits ----------------------------------------------------------------------------------------------


@exercise("family_memory", weight=2)
def test_memory_is_weights_and_cache(exercises):
    """Bits become bytes, for weights and cache each by its own width."""
    for w_bits, kv_bits in ((16, 16), (4, 16), (8, 2), (16, 4)):
        got = pure(exercises.family_memory, PLAIN, 3, 7, w_bits, kv_bits)
        weights = (2 * 29 * 12 + 3 * (2 * 12 * 24 + 2 * 12 * 8 + 3 * 12 * 20) + 7 * 12) * w_bits // 8
        kv = 3 * 7 * 3 * 2 * 2 * 4 * kv_bits // 8
        expected = {"weights": weights, "kv": kv, "activations": 0, "total": weights + kv}
        exact(got, expected, f"memory with {w_bits} and {kv_bits} bits")
    exact(exercises.family_memory(PLAIN, 3, 7), exercises.family_memory(PLAIN, 3, 7, 16, 16), "memory with the defaults")


@exercise("family_memory")
def test_odd_bits_are_rounded_up(exercises):
    """Three bits a number end in a whole byte, rounded up."""
    tiny = with_(n_layers=1, n_kv_heads=1, head_dim=1, n_heads=1, vocab_size=1, d_model=1, d_ff=1)
    got = exercises.family_memory(tiny, 1, 1, w_bits=3, kv_bits=5)  # 2 + 4 + 3 + 3 weights; one key and one value
    exact([got["weights"], got["kv"], got["total"]], [5, 2, 7], "12 weights of 3 bits, 2 numbers of 5 bits")


@exercise("family_memory", weight=2)
def test_windows_cap_the_cache_layer_by_layer(exercises):
    """A layer keeps no more tokens than its window; full layers keep all."""
    a_token = 2 * 2 * 4 * 2  # keys and values, two heads of width 4, two bytes
    for seq, windowed in ((5, 5), (6, 6), (7, 6), (100, 6)):
        got = [
            exercises.family_memory(with_(n_layers=5, window=window, full_every=n), 1, seq)["kv"]
            for window, n in ((None, 0), (6, 0), (6, 2), (6, 5), (None, 2))
        ]
        tokens = [5 * seq, 5 * windowed, 2 * seq + 3 * windowed, seq + 4 * windowed, 5 * seq]
        exact(got, [a_token * n for n in tokens], f"the cache of {seq} tokens with windows of 6")


@exercise("family_memory")
def test_activations_are_counted_when_asked(exercises):
    """Asked for, the numbers under way come on top, in 16 bits."""
    for ffn, inner in (("gelu", 20), ("swiglu", 40), ("geglu", 40)):
        got = exercises.family_memory(with_(ffn=ffn), 3, 7, 4, 8, activations=True)
        plain = exercises.family_memory(with_(ffn=ffn), 3, 7, 4, 8)
        exact(got["activations"], 3 * 7 * (2 * 12 + inner) * 2, f"activations with {ffn}")
        exact(got["total"] - plain["total"], got["activations"], f"what they add with {ffn}")


@exercise("family_memory")
def test_idle_experts_need_memory_too(exercises):
    """Every expert is in memory, used or not."""
    mixtral = exercises.value("FAMILIES")["mixtral-8x7b"]
    exact(exercises.family_memory(mixtral, 0, 0, w_bits=8)["weights"], 46_702_792_704, "Mixtral with 8 bits a weight")


@exercise("family_memory", weight=2)
def test_one_more_token_would_not_fit(exercises):
    """The conversation that is found fits, and one token more does not."""
    families = exercises.value("FAMILIES")
    limits = {}
    for name, gib, options in (
        ("llama-2-7b", 14.5, {"batch": 2}),
        ("llama-3-8b", 15.5, {}),
        ("gemma-7b", 16.3, {"activations": True}),
        ("mixtral-8x7b", 25, {"batch": 3, "w_bits": 4, "kv_bits": 8}),
    ):
        config = families[name]
        seq = limits[name] = exercises.fits(config, gib, **options)
        batch = options.pop("batch", 1)
        totals = [exercises.family_memory(config, batch, n, **options)["total"] for n in (seq, seq + 1)]
        holds(0 < seq < config["T_max"], f"{name} in {gib} GiB: {seq} tokens is no limit of memory")
        holds(totals[0] <= gib * 2**30 < totals[1], f"{name} in {gib} GiB: {totals} bytes with {seq} tokens and one more")
    weights, token = 2 * 6_738_415_616, 2 * 32 * 2 * 32 * 128 * 2
    exact(limits["llama-2-7b"], (int(14.5 * 2**30) - weights) // token, "tokens of Llama-2-7B in 14.5 GiB")


@exercise("family_memory")
def test_the_model_sets_a_limit_as_well(exercises):
    """No conversation is longer than T_max, and none is shorter than 0."""
    families = exercises.value("FAMILIES")
    exact(exercises.fits(families["gpt2"], 80), 1024, "GPT-2 on 80 GiB")
    exact(exercises.fits(families["mistral-7b"], 16), 32768, "Mistral, whose window caps the cache")
    exact(exercises.fits(families["llama-3-8b"], 14.9), 0, "Llama-3-8B where not even the weights fit")
    whole = exercises.family_memory(PLAIN, 1, 11)["total"]
    exact(exercises.fits(PLAIN, whole / 2**30), 11, "memory for 11 tokens to the byte")
    exact(exercises.fits(PLAIN, (whole - 1) / 2**30), 10, "a byte less")


# --- Attention, Experts, build ----------------------------------------------------------------------------------------


def attend(x, w, config, window, past=None):
    """Attention written out with loops over heads, in full, for x (T, D); earlier tokens come first in x."""
    hd, group = config["head_dim"], config["n_heads"] // config["n_kv_heads"]
    T = len(x)
    q, k, v = (F.linear(x, w[f"W_{n}.weight"], w.get(f"W_{n}.bias")) for n in "qkv")
    heads = []
    for h in range(config["n_heads"]):
        own, shared = slice(h * hd, (h + 1) * hd), slice(h // group * hd, (h // group + 1) * hd)
        a, b = (turned(q[:, own]), turned(k[:, shared])) if config["positions"] == "rope" else (q[:, own], k[:, shared])
        scores = a @ b.T / hd**0.5
        for i in range(T):
            for j in range(T):
                if j > i or (window is not None and j <= i - window):
                    scores[i, j] = -math.inf
        heads.append(scores.softmax(-1) @ v[:, shared])
    return F.linear(torch.cat(heads, -1), w["W_o.weight"], w.get("W_o.bias"))


def turned(x):
    """Rotary positions 0, 1, ... on x (T, hd), pair by pair."""
    T, hd = x.shape
    out = torch.empty_like(x)
    for t in range(T):
        for i in range(hd // 2):
            angle = t * 10000.0 ** (-2 * i / hd)
            a, b = x[t, i], x[t, i + hd // 2]
            out[t, i] = a * math.cos(angle) - b * math.sin(angle)
            out[t, i + hd // 2] = a * math.sin(angle) + b * math.cos(angle)
    return out


def feed(x, w, config):
    up = F.linear(x, w["W_up.weight"], w.get("W_up.bias"))
    if config["ffn"] == "gelu":
        inner = F.gelu(up, approximate="tanh")
    else:
        gate = F.linear(x, w["W_gate.weight"], w.get("W_gate.bias"))
        inner = up * (F.silu(gate) if config["ffn"] == "swiglu" else F.gelu(gate, approximate="tanh"))
    return F.linear(inner, w["W_down.weight"], w.get("W_down.bias"))


def mixed(x, w, config):
    """Experts, token by token."""
    out = []
    for token in x:
        logits = w["router.weight"] @ token
        chosen = sorted(range(len(logits)), key=lambda e: -logits[e].item())[: config["top_k"]]
        weights = logits[chosen].softmax(0)
        y = sum(weights[i] * feed(token, part(w, f"experts.{e}."), config) for i, e in enumerate(chosen))
        out.append(sum((feed(token, part(w, f"shared.{e}."), config) for e in range(config["n_shared"])), start=y))
    return torch.stack(out)


def part(state, prefix):
    return {name.removeprefix(prefix): p for name, p in state.items() if name.startswith(prefix)}


def norm(x, w, config):
    if config["norm"] == "layer":
        return F.layer_norm(x, x.shape[-1:], w["weight"], w["bias"])
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w["weight"]


def logits_of(state, ids, config):
    """The whole model for one sequence ids (T,), written out from its weights."""
    x = state["embedding.weight"][ids]
    if config["positions"] == "learned":
        x = x + state["positions.weight"][: len(ids)]
    for i in range(config["n_layers"]):
        w = part(state, f"blocks.{i}.")
        full = config["full_every"] and (i + 1) % config["full_every"] == 0
        h = norm(x, part(w, "norm1."), config)
        x = x + attend(h, part(w, "attention."), config, None if full else config["window"])
        h = norm(x, part(w, "norm2."), config)
        x = x + (mixed if config["n_experts"] else feed)(h, part(w, "ffn."), config)
    head = state["embedding.weight"] if config["tied"] else state["head.weight"]
    return norm(x, part(state, "norm."), config) @ head.T


@driver
def built(module, config, seed):
    """Build a model, draw all weights anew, in float64, from a seed; give it, its weights and the count of its storages."""
    import torch

    model = module.build(dict(config)).double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=rng, dtype=p.dtype) / p.shape[-1] ** 0.5)
    own = {p.untyped_storage().data_ptr(): p.numel() for p in model.parameters()}
    return model, {name: p.detach().clone() for name, p in model.state_dict().items()}, sum(own.values())


@driver
def of_part(module, name, config, args, state, x):
    """Make an Attention or Experts with given weights; give its output, the gradients of its sum, and its names."""
    import torch

    layer = getattr(module, name)(config, *args).double()
    layer.load_state_dict(state)
    x = x.clone().requires_grad_()
    y = layer(x)
    y.sum().backward()
    return y.detach(), x.grad, {n: p.grad for n, p in layer.named_parameters()}


def weights(rng, shapes):
    return {name: rng.normal(*shape) / shape[-1] ** 0.5 for name, shape in shapes.items()}


def attention_weights(rng, config):
    D, Q, K = config["d_model"], config["n_heads"] * config["head_dim"], config["n_kv_heads"] * config["head_dim"]
    shapes = {"W_q": (Q, D), "W_k": (K, D), "W_v": (K, D), "W_o": (D, Q)}
    made = weights(rng, {f"{name}.weight": shape for name, shape in shapes.items()})
    return made | (weights(rng, {f"{name}.bias": shape[:1] for name, shape in shapes.items()}) if config["bias"] else {})


@exercise("build", weight=2)
@pytest.mark.parametrize("window", [None, 1, 3, 50])
def test_attention_looks_back_as_far_as_its_window(exercises, rng, window):
    """A query sees its window: itself and the tokens just before it."""
    config = with_(bias=window == 3, positions="learned" if window == 1 else "rope")
    w, x = attention_weights(rng, config), rng.normal(2, 7, 12)
    got, _, _ = exercises.run(of_part, "Attention", config, [window], w, x)
    expected = torch.stack([attend(row, w, config, window) for row in x])
    close(got, expected, f"Attention of 7 tokens with a window of {window}")


def experts_weights(rng, config):
    D, F_, E = config["d_model"], config["d_ff"], config["n_experts"]
    names = [f"experts.{e}" for e in range(E)] + [f"shared.{e}" for e in range(config["n_shared"])]
    shapes = {f"{n}.W_{m}.weight": (D, F_) if m == "down" else (F_, D) for n in names for m in ("gate", "up", "down")}
    return weights(rng, shapes | {"router.weight": (E, D)})


@exercise("build", weight=2)
def test_experts_are_weighted_and_shared_ones_added(exercises, rng):
    """Chosen experts weigh in by a softmax over the chosen; shared ones add."""
    for E, k, shared in ((5, 2, 0), (4, 1, 1), (3, 3, 2)):
        config = with_(n_experts=E, top_k=k, n_shared=shared)
        w, x = experts_weights(rng, config), rng.normal(2, 4, 12)
        got, dx, dw = exercises.run(of_part, "Experts", config, [], w, x)
        what = f"Experts with E={E}, top_k={k} and {shared} shared"
        close(got, mixed(x.flatten(0, 1), w, config).view_as(x), what)
        leaf, leaves = x.flatten(0, 1).clone().requires_grad_(), {n: p.clone().requires_grad_() for n, p in w.items()}
        mixed(leaf, leaves, config).sum().backward()
        close(dx, leaf.grad.view_as(x), f"the gradient by x of {what}")
        close(dw["router.weight"], leaves["router.weight"].grad, f"the gradient by the router of {what}")


@driver
def tokens_read(module, config, x):
    """Count the tokens that each expert and each shared expert reads."""
    import torch

    layer = module.Experts(config).double()
    rows = {"experts": 0, "shared": 0}
    for kind in rows:
        for expert in getattr(layer, kind):
            forward = expert.forward

            def counted(x, forward=forward, kind=kind):
                rows[kind] += x.numel() // x.shape[-1]
                return forward(x)

            expert.forward = counted
    with torch.no_grad():
        layer(x)
    return rows


@exercise("build")
def test_experts_read_only_what_chose_them(exercises, rng):
    """All experts together read top_k rows a token, shared ones every token."""
    got = exercises.run(tokens_read, with_(n_experts=6, top_k=2, n_shared=1), rng.normal(3, 5, 12))
    exact(got, {"experts": 2 * 15, "shared": 15}, "tokens read by experts and shared experts, of 15 tokens")


@exercise("build", weight=3)
@pytest.mark.parametrize("name", list(SCALED))
def test_every_family_is_its_formula(exercises, rng, name):
    """From the same weights every family gives the logits of its formula."""
    config = with_(**SCALED[name])
    model, state, _ = exercises.run(built, config, 3)
    ids = rng.integers(0, 29, 2, 7)
    got = model(ids)
    close(got, torch.stack([logits_of(state, row, config) for row in ids]), f"logits of a small {name}")
    close(model(ids[:, :4]), got[:, :4], f"logits of the first four tokens alone, of a small {name}")


@exercise("build", weight=2)
def test_as_many_parameters_as_the_formula_says(exercises):
    """Small models of every family hold what can be counted by hand."""
    D, V, L = 12, 29, 3
    by_hand = {
        "gpt2": V * D + 40 * D + L * (4 * 12 * 24 + 3 * 24 + 12 + 2 * 12 * 20 + 20 + 12) + 7 * 24,
        "llama": 2 * V * D + L * (4 * 12 * 24 + 3 * 12 * 20) + 7 * 12,
        "mistral": 2 * V * D + L * (2 * 12 * 24 + 2 * 12 * 8 + 3 * 12 * 20) + 7 * 12,
        "gemma": V * D + L * (2 * 12 * 48 + 2 * 12 * 8 + 3 * 12 * 20) + 7 * 12,
        "mixtral": 2 * V * D + L * (2 * 12 * 24 + 2 * 12 * 8 + 5 * 3 * 12 * 20 + 60) + 7 * 12,
    }
    got = {name: exercises.run(built, with_(**SCALED[name]), 1)[2] for name in by_hand}
    exact(got, by_hand, "numbers stored by small models")


@exercise("build", weight=2)
def test_in_pieces_with_a_cache_as_in_one(exercises, rng):
    """Token by token or in chunks, with a cache, the logits are the same."""
    for name in ("gpt2", "mistral", "shared", "alternating"):
        config = with_(**SCALED[name])
        model, _, _ = exercises.run(built, config, 5)
        ids = rng.integers(0, 29, 2, 9)
        whole, cache = model(ids), model.new_cache(2)
        pieces = [model(piece, cache) for piece in (ids[:, :4], ids[:, 4:5], ids[:, 5:8], ids[:, 8:])]
        close(torch.cat(pieces, 1), whole, f"logits in pieces of 4, 1, 3 and 1, of a small {name}")


@driver
def shapes_of(module, config):
    return {name: list(p.shape) for name, p in module.build(dict(config)).state_dict().items()}


@exercise("build", weight=2)
def test_a_switch_changes_its_own_module_alone(exercises):
    """One changed field changes the parameters of one kind of module."""
    base = exercises.run(shapes_of, PLAIN)
    for changes, where in (
        ({"norm": "layer"}, "norm"),
        ({"positions": "learned"}, "positions"),
        ({"ffn": "gelu"}, "ffn"),
        ({"n_kv_heads": 3}, "attention"),
        ({"head_dim": 6}, "attention"),
        ({"n_experts": 4, "top_k": 1}, "ffn"),
        ({"window": 3}, ""),
        ({"full_every": 2}, ""),
        ({"ffn": "geglu"}, ""),
    ):
        other = exercises.run(shapes_of, PLAIN | changes)
        names = {name for name in base.keys() | other.keys() if base.get(name) != other.get(name)}
        strange = sorted(name for name in names if not where or where not in name)
        exact(strange, [], f"parameters that change with {changes} though they should not")
        holds(bool(names) == bool(where), f"{changes} changes {len(names)} parameters")


@driver
def tied(module, config):
    """Is the head the embedding itself, and does it get the gradients of both uses?"""
    import torch

    model = module.build(dict(config))
    one = model.head.weight is model.embedding.weight
    model(torch.tensor([[1, 2]])).sum().backward()
    return one, [bool(row.any()) for row in model.embedding.weight.grad], len(list(model.parameters()))


@exercise("build")
def test_a_tied_head_is_the_table_itself(exercises):
    """A tied head and the token table are one parameter."""
    one, used, n = exercises.run(tied, with_(tied=True))
    holds(one and all(used), "with tied=True, head.weight and embedding.weight are not one parameter")
    other, _, m = exercises.run(tied, with_(tied=False))
    holds(not other and m == n + 1, "with tied=False, the head has no parameter of its own")


@driver
def neighbours(module, config):
    """Count the names of parameters and the parameters; is the configuration as it was?"""
    given = dict(config)
    model = module.build(given)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return len(names), len({id(p) for p in model.parameters()}), given == config


@exercise("build")
def test_every_layer_has_parts_of_its_own(exercises):
    """No norm, attention or network is used twice."""
    for name in ("llama", "mixtral"):
        names, parameters, kept = exercises.run(neighbours, with_(**SCALED[name]))
        exact(parameters, names, f"distinct parameters of a small {name}")
        holds(kept, "build changed the configuration")


# --- recover_logprobs -------------------------------------------------------------------------------------------------


def closed_model(z, top_k, bias):
    """A model behind an interface: biases in, the most likely tokens out."""

    def api(biases):
        if any(abs(b) > bias for b in biases.values()):
            raise ValueError("this bias is not allowed")
        moved = z.clone()
        for i, b in biases.items():
            moved[i] += b
        values, ids = moved.log_softmax(0).topk(min(top_k, len(z)))
        return dict(zip(ids.tolist(), values.tolist(), strict=True))

    return counting(api)


@exercise("recover_logprobs", weight=2)
@pytest.mark.parametrize(("V", "k"), [(23, 5), (24, 4), (7, 1), (6, 9), (1, 1), (40, 20)])
def test_hidden_probabilities_are_recovered(exercises, rng, V, k):
    """All log-probabilities come back, for any V and any number shown."""
    z = 7 * rng.uniform(V) - 20
    api = closed_model(z, k, 8.0)
    got = exercises.recover_logprobs(api, V, k, 8.0)
    # the promised accuracy; the log-probabilities lie between 0 and -10
    roughly(got, z.log_softmax(0), 1e-6, f"recover_logprobs with V={V}, top_k={k}")
    roughly(got.exp().sum().item(), 1.0, 1e-5, "the sum of the probabilities")
    holds(api.calls <= -(-V // k), f"{api.calls} calls for V={V} with {k} shown at a time")


@exercise("recover_logprobs", weight=2)
@pytest.mark.parametrize("bias", [16.0, 40.0, 100.0, 1000.0])
def test_large_biases_do_not_cancel(exercises, rng, bias):
    """However large the bias, nothing is lost to rounding."""
    z = 15 * rng.uniform(31)
    got = exercises.recover_logprobs(closed_model(z, 4, bias), 31, 4, bias)
    roughly(got, z.log_softmax(0), 1e-6, f"recover_logprobs with a bias of {bias}")


@exercise("recover_logprobs")
def test_rare_tokens_come_back_as_rare(exercises, rng):
    """One token that has nearly all the mass does not blur the others."""
    z = torch.cat([torch.tensor([14.9], dtype=torch.float64), 0.5 * rng.uniform(12)])[rng.permutation(13)]
    for k, bias in ((3, 15.0), (1, 200.0)):
        got = exercises.recover_logprobs(closed_model(z, k, bias), 13, k, bias)
        roughly(got, z.log_softmax(0), 1e-6, f"recover_logprobs, top_k={k}, where one token has nearly all the mass")


# --- estimate_hidden_size ---------------------------------------------------------------------------------------------


@driver
def estimate(module, logits):
    """The estimate, and how many warnings came with it."""
    import warnings

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = module.estimate_hidden_size(logits)
    return value, len(caught)


@exercise("estimate_hidden_size", weight=2)
def test_planted_width_is_found(exercises, rng):
    """The width of the model shows in its logits, and brings no warning."""
    for n, V, d in ((60, 200, 16), (40, 90, 7), (30, 45, 1), (50, 300, 37)):
        logits = rng.normal(n, d) @ rng.normal(d, V)
        exact(list(exercises.run(estimate, logits)), [d, 0], f"width and warnings of ({n}, {V}) logits, planted width {d}")


@exercise("estimate_hidden_size", weight=2)
def test_constants_of_rows_do_not_count(exercises, rng):
    """Log-probabilities give the same width as logits."""
    logits = rng.normal(60, 16) @ rng.normal(16, 200)
    exact(exercises.estimate_hidden_size(logits.log_softmax(-1)), 16, "the width seen in log-probabilities")
    shifted = logits + 1e4 * rng.normal(60, 1)
    exact(exercises.estimate_hidden_size(shifted), 16, "the width seen in rows with constants of their own")


@exercise("estimate_hidden_size", weight=2)
def test_scale_and_rounding_do_not_matter(exercises, rng):
    """Neither the scale of the logits nor half precision changes the width."""
    logits = rng.normal(60, 16) @ rng.normal(16, 200)
    for scale in (1e-6, 1e-3, 1e6):
        exact(exercises.estimate_hidden_size(scale * logits), 16, f"the width seen in logits times {scale}")
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        exact(exercises.estimate_hidden_size(logits.to(kind)), 16, f"the width seen in logits of {kind}")
    noisy = logits + 0.01 * rng.normal(60, 200)
    exact(exercises.estimate_hidden_size(noisy), 16, "the width seen through noise")


@exercise("estimate_hidden_size")
def test_too_few_rows_are_flagged(exercises, rng):
    """Fewer rows than directions give their own number, with a warning."""
    logits = rng.normal(9, 24) @ rng.normal(24, 100)
    value, warnings = exercises.run(estimate, logits)
    exact(value, 9, "the width seen in 9 rows of a model of width 24")
    holds(warnings >= 1, "9 rows cannot show 24 directions, but there was no warning")
    pure(exercises.estimate_hidden_size, rng.normal(20, 5) @ rng.normal(5, 40))


# --- doubling_time, extrapolate ---------------------------------------------------------------------------------------


def day(n):
    """The ISO date n days after the first of January 2015."""
    from datetime import date, timedelta

    return (date(2015, 1, 1) + timedelta(days=n)).isoformat()


def history(rng, n, years, scatter):
    days = sorted({int(x) for x in 3000 * rng.uniform(n)})
    log2 = [5 + d / 365.25 / years for d in days]
    return days, [z + scatter * e for z, e in zip(log2, rng.normal(len(days)).tolist(), strict=True)]


@exercise("doubling_time", weight=2)
def test_planted_growth_is_found(exercises, rng):
    """Exact growth gives back its doubling time, in years, in any order."""
    for years in (0.5, 2.25, -3.0):
        days, log2 = history(rng, 9, years, 0.0)
        order = rng.permutation(len(days)).tolist()
        got = exercises.doubling_time([day(days[i]) for i in order], [2 ** log2[i] for i in order])
        roughly(got, years, 1e-9, f"the doubling time of a series that doubles in {years} years")


@exercise("doubling_time", weight=2)
def test_scatter_is_fitted_by_least_squares(exercises, rng):
    """The slope is that of least squares on the logarithms."""
    days, log2 = history(rng, 14, 1.3, 0.8)
    slope = linear_regression([d / 365.25 for d in days], log2).slope
    dates, compute = [day(d) for d in days], [2**z for z in log2]
    roughly(exercises.doubling_time(dates, compute), 1 / slope, 1e-9, "the doubling time of a scattered series")
    roughly(exercises.doubling_time(dates, [3e20 * c for c in compute]), 1 / slope, 1e-9, "the same in another unit")


@exercise("doubling_time")
@pytest.mark.parametrize("name", ["doubling_time", "extrapolate"])
def test_too_little_is_refused(exercises, name):
    """Two points, unequal lists and values that are not positive raise."""
    more = ["2030-01-01"] if name == "extrapolate" else []
    dates = ["2020-01-01", "2021-01-01", "2022-01-01"]
    for some, compute in ((dates[:2], [1, 2]), (dates, [1, 2]), (dates, [1, 0, 4]), (dates, [1, 2, -4]), ([], [])):
        with pytest.raises(ValueError):
            getattr(exercises, name)(some, compute, *more)


def t_density(t, df):
    return math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi * df) * (1 + t * t / df) ** (
        -(df + 1) / 2
    )


@exercise("doubling_time", weight=2)
@pytest.mark.parametrize(("n", "level"), [(3, 0.5), (6, 0.95), (17, 0.8)])
def test_interval_is_that_of_a_new_model(exercises, rng, n, level):
    """The interval leaves to both sides what Student's law says."""
    days = [int(x) for x in (3000 * rng.uniform(n))]
    log2 = [5 + d / 500 + e for d, e in zip(days, rng.normal(n).tolist(), strict=True)]
    x, new = [d / 365.25 for d in days], 4200
    low, middle, high = exercises.extrapolate([day(d) for d in days], [2**z for z in log2], day(new), level)
    slope, intercept = linear_regression(x, log2)
    roughly(math.log2(middle), intercept + slope * new / 365.25, 1e-9, "log2 of the middle")
    roughly(low * high / middle**2, 1.0, 1e-9, "low * high / middle^2")
    mean = sum(x) / n
    s2 = sum((z - intercept - slope * a) ** 2 for a, z in zip(x, log2, strict=True)) / (n - 2)
    spread = 1 + 1 / n + (new / 365.25 - mean) ** 2 / sum((a - mean) ** 2 for a in x)
    t = math.log2(high / middle) / math.sqrt(s2 * spread)
    steps = 20_000
    inside = 2 * sum(t_density(t * (i + 0.5) / steps, n - 2) for i in range(steps)) * t / steps
    roughly(inside, level, 1e-5, "the share of Student's law inside the interval")  # the sum is good to 1e-8


@exercise("doubling_time")
def test_interval_widens_with_distance(exercises, rng):
    """Farther ahead and at a higher level the interval is wider."""
    days, log2 = history(rng, 12, 0.8, 0.5)
    dates, compute = [day(d) for d in days], [2**z for z in log2]
    width = {
        (when, level): (lambda found: found[2] / found[0])(exercises.extrapolate(dates, compute, day(when), level))
        for when in (3100, 5000, 9000)
        for level in (0.5, 0.9, 0.99)
    }
    holds(width[3100, 0.9] < width[5000, 0.9] < width[9000, 0.9], "the interval does not widen with the distance")
    holds(width[5000, 0.5] < width[5000, 0.9] < width[5000, 0.99], "the interval does not widen with the level")
    close(exercises.extrapolate(dates, compute, day(5000)), exercises.extrapolate(dates, compute, day(5000), 0.95), "95 %")
