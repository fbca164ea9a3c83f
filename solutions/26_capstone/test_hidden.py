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
    exact(
        exercises.family_memory(PLAIN, 3, 7), exercises.family_memory(PLAIN, 3, 7, 16, 16), "memory with the defaults"
    )


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
        holds(
            totals[0] <= gib * 2**30 < totals[1], f"{name} in {gib} GiB: {totals} bytes with {seq} tokens and one more"
        )
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
    """Build a model in float64 with weights drawn from a seed; give it, its weights and the size of its storages."""
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
    return made | (
        weights(rng, {f"{name}.bias": shape[:1] for name, shape in shapes.items()}) if config["bias"] else {}
    )


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
    for n, V, d in ((60, 200, 16), (40, 90, 7), (30, 45, 1), (50, 300, 20)):
        logits = rng.normal(n, d) @ rng.normal(d, V)
        exact(
            list(exercises.run(estimate, logits)), [d, 0], f"width and warnings of ({n}, {V}) logits, planted width {d}"
        )


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
        roughly(got, years, 1e-7, f"the doubling time of a series that doubles in {years} years")


@exercise("doubling_time", weight=2)
def test_scatter_is_fitted_by_least_squares(exercises, rng):
    """The slope is that of least squares on the logarithms."""
    days, log2 = history(rng, 14, 1.3, 0.8)
    slope = linear_regression([d / 365.25 for d in days], log2).slope
    dates, compute = [day(d) for d in days], [2**z for z in log2]
    roughly(exercises.doubling_time(dates, compute), 1 / slope, 1e-7, "the doubling time of a scattered series")
    roughly(exercises.doubling_time(dates, [3e20 * c for c in compute]), 1 / slope, 1e-7, "the same in another unit")


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
    return (
        math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
        / math.sqrt(math.pi * df)
        * (1 + t * t / df) ** (-(df + 1) / 2)
    )


@exercise("doubling_time", weight=2)
@pytest.mark.parametrize(("n", "level"), [(3, 0.5), (6, 0.95), (17, 0.8)])
def test_interval_is_that_of_a_new_model(exercises, rng, n, level):
    """The interval leaves to both sides what Student's law says."""
    days = [(1000 * i + int(900 * u)) * 3 // n for i, u in enumerate(rng.uniform(n).tolist())]
    log2 = [5 + d / 500 + e for d, e in zip(days, rng.normal(n).tolist(), strict=True)]
    x, new = [d / 365.25 for d in days], 4200
    low, middle, high = exercises.extrapolate([day(d) for d in days], [2**z for z in log2], day(new), level)
    slope, intercept = linear_regression(x, log2)
    roughly(math.log2(middle), intercept + slope * new / 365.25, 1e-6, "log2 of the middle")  # years are near 2000
    roughly(low * high / middle**2, 1.0, 1e-6, "low * high / middle^2")
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
    close(
        exercises.extrapolate(dates, compute, day(5000)), exercises.extrapolate(dates, compute, day(5000), 0.95), "95 %"
    )


# --- pipeline ---------------------------------------------------------------------------------------------------------

TINY = {"vocab_size": 480, "T_max": 24, "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24}
TINY |= {"context": 11, "batch": 5, "steps": 4, "lr": 0.02, "weight_decay": 0.1, "chat_steps": 3, "chat_lr": 0.03}
TINY |= {"pairs": 20, "pair_steps": 4, "pair_lr": 0.01, "beta": 0.7, "top_p": 0.9, "chats": 3, "answers": 2, "new": 6}
"""Every number is another, and a run takes no time; what comes out speaks nonsense."""


def texts(seed, n):
    """Sentences of the grammar."""
    return [" ".join(words) for words, _ in dataset("grammar").sentences(seed, n)]


@exercise("pipeline")
def test_pack_never_shows_what_is_held_out(exercises, rng):
    """Tokenizer and ids come from the first nine tenths alone."""
    stand_ins, seen = exercises.with_parts(), []

    def train_bpe(text, vocab_size, special_tokens):
        seen.append((text, vocab_size, list(special_tokens)))
        return stand_ins.train_bpe(text, vocab_size, list(special_tokens))

    corpus = texts(rng.seed, 57)
    corpus[4], corpus[50:] = "ada says <|end|> often .", [f"zebra {i} jumps ." for i in range(7)]
    parts = exercises.with_parts(train_bpe=train_bpe)
    tokenizer, ids, train, held_out = pure(exercises.pack, corpus, parts, TINY)
    exact([list(train), list(held_out)], [corpus[:51], corpus[51:]], "train and held_out of 57 documents")
    exact(len(seen), 1, "calls of train_bpe")
    text, size, special = seen[0]
    exact([size, special], [480, ["<|start|>", "<|sep|>", "<|end|>"]], "vocab_size and special_tokens")
    holds("zebra 0" in text and "zebra 1" not in text, "train_bpe must see training documents and nothing held out")
    pieces = text.split("<|end|>")
    holds(set(corpus[:4] + corpus[5:51] + ["user", "assistant"]) <= set(pieces), "train_bpe's text lacks some piece")
    ids = [int(i) for i in ids]
    exact(tokenizer.decode(ids), "".join(document + "<|end|>" for document in corpus[:51]), "the text of ids")
    end = tokenizer.encode("<|end|>", allowed_special={"<|end|>"})
    exact(ids.count(end[0]), 51, "how often the id of <|end|> stands in ids")


@driver
def fit_log(module, steps, lr, weight_decay):
    """Run fit with parts that write down what they are asked, on two parameters, one of them never used."""
    import torch

    log, used = [], torch.nn.Parameter(torch.tensor([3.0]))
    model = torch.nn.ParameterList([used, torch.nn.Parameter(torch.tensor([4.0]))])

    class AdamW:
        def __init__(self, params, lr=0.0, betas=None, eps=None, weight_decay=0.01):
            log.append(("made", len(list(params)), weight_decay))

        def step(self):
            log.append(("step", self.lr))

        def zero_grad(self):
            pass

    def lr_at(step, max_lr, min_lr, warmup, total):
        log.append(("lr_at", step, max_lr, min_lr, warmup, total))
        return 100.0 + step

    def clip_grad_norm(grads, max_norm):
        log.append(("clip", sum(g is not None for g in grads), max_norm))
        return 0.0

    def gradients():
        log.append(("gradients",))
        used.grad = torch.ones(1)
        return float(len(log))

    parts = module.with_parts(AdamW=AdamW, lr_at=lr_at, clip_grad_norm=clip_grad_norm)
    options = {} if weight_decay is None else {"weight_decay": weight_decay}
    return module.fit(model, gradients, steps, lr, parts, **options), log


@exercise("pipeline")
def test_fit_clips_between_gradient_and_update(exercises):
    """Each step: a rate, gradients, the clip, the update."""
    losses, log = exercises.run(fit_log, 23, 0.4, 0.3)
    exact(log[0], ("made", 2, 0.3), "the optimizer: parameters and weight decay")
    exact([entry[0] for entry in log if entry[0] != "lr_at"][1:], ["gradients", "clip", "step"] * 23, "the order")
    exact([entry[1] for entry in log if entry[0] == "step"], [100.0 + t for t in range(23)], "the rates at the updates")
    close(
        [list(e[1:]) for e in log if e[0] == "lr_at"], [[t, 0.4, 0.04, 2, 23] for t in range(23)], "lr_at's arguments"
    )
    exact(
        {entry[1:] for entry in log if entry[0] == "clip"}, {(1, 1.0)}, "gradients and length given to clip_grad_norm"
    )
    exact(list(losses), [float(i + 1) for i, entry in enumerate(log) if entry[0] == "gradients"], "the losses")
    losses, log = exercises.run(fit_log, 0, 0.4, None)
    exact([list(losses), log], [[], [("made", 2, 0.0)]], "no steps, and no weight decay by default")


@driver
def pretrain_log(module, ids, corpus, plan, seed, disturbance):
    """Pretrain with parts that write down what they are given; give the log and the weights."""
    import torch

    torch.manual_seed(disturbance)
    own, log = module.with_parts(), []

    def get_batch(ids, batch, context, rng):
        log.append(("get_batch", len(ids), int(sum(ids)), batch, context))
        return own.get_batch(ids, batch, context, rng)

    def accumulate(model, micro_batches, loss_sum_fn):
        batches = list(micro_batches)
        log.append(("accumulate", [(x.clone(), y.clone()) for x, y in batches]))
        log.append(("sum", loss_sum_fn(torch.zeros(1, 3, 4), torch.tensor([[1, -100, 2]])).item()))
        return own.accumulate(model, batches, loss_sum_fn)

    def init_weights(model, std=0.02, seed=0):
        log.append(("init", std, seed))
        own.init_weights(model, std, seed)

    class AdamW(own.AdamW):
        def __init__(self, params, lr=0.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
            log.append(("decay", weight_decay))
            super().__init__(params, lr, betas, eps, weight_decay)

        def step(self):
            log.append(("rate", self.lr))
            super().step()

    tokenizer = module.pack(corpus, own, plan)[0]
    parts = module.with_parts(get_batch=get_batch, accumulate=accumulate, init_weights=init_weights, AdamW=AdamW)
    model = module.pretrain(ids, tokenizer, parts, plan, seed)
    return log, {name: p.detach().clone() for name, p in model.named_parameters()}


@exercise("pipeline")
def test_pretraining_reads_windows_of_the_plan(exercises, rng):
    """One batch a step, from the ids alone, drawn by one generator."""
    own, corpus, plan = exercises.with_parts(), texts(rng.seed, 40), TINY | {"steps": 12}
    ids = exercises.pack(corpus, own, plan)[1]
    log, after = exercises.run(pretrain_log, ids, corpus, plan, 5, 1)
    exact([entry[1:] for entry in log if entry[0] == "init"], [(0.05, 5)], "std and seed of init_weights")
    exact({e[1:] for e in log if e[0] == "get_batch"}, {(len(ids), int(ids.sum()), 5, 11)}, "what get_batch was given")
    batches = [entry[1] for entry in log if entry[0] == "accumulate"]
    exact([len(batch) for batch in batches], [1] * 12, "micro-batches in each of 12 steps")
    generator = torch.Generator().manual_seed(5)
    for t, [(x, y)] in enumerate(batches):
        expected = own.get_batch(ids, 5, 11, generator)
        exact([x, y], list(expected), f"the batch of step {t}")
    roughly([entry[1] for entry in log if entry[0] == "sum"], [2 * math.log(4)] * 12, 1e-5, "the sum of two losses")
    exact([entry[1] for entry in log if entry[0] == "decay"], [0.1], "weight decay")
    roughly(max(entry[1] for entry in log if entry[0] == "rate"), 0.02, 1e-9, "the highest rate")
    again = exercises.run(pretrain_log, ids, corpus, plan, 5, 2)[1]
    exact(again, after, "the weights after another use of torch's global generator")
    exact(list(after["embedding.weight"].shape), [int(ids.max()) + 1, 16], "rows and columns of the token table")


def table_model(rng, V):
    """A causal model whose logits hang on all ids of the row so far; and the same as a function of a list of ids."""
    table = 2 * rng.normal(7, V)

    def model(ids):
        model.longest = max(model.longest, ids.shape[1])
        return table[ids.cumsum(1) % 7]

    model.longest = 0
    return model, lambda ids: table[sum(ids) % 7].log_softmax(0)


@exercise("pipeline", weight=2)
def test_bits_are_counted_over_bytes_not_tokens(exercises, rng):
    """Every token of a document is predicted once, and bytes divide the bits."""
    own = exercises.with_parts()
    tokenizer = exercises.pack(texts(rng.seed, 40), own, TINY)[0]
    [end] = tokenizer.encode("<|end|>", allowed_special={"<|end|>"})
    model, log_p = table_model(rng, end + 1)
    documents = [
        "ada sleeps .",
        "the \u00e9mu \u4eba sings .",
        " ".join(["many dogs see the cats and"] * 15),
        "ben runs .",
    ]
    documents += texts(rng.seed + 1, 90)
    nats = 0.0
    for document in documents:
        tokens = [end, *tokenizer.encode(document), end]
        for start in range(0, len(tokens) - 1, 24):
            piece = tokens[start : start + 25]
            nats -= sum(log_p(piece[:i])[piece[i]].item() for i in range(1, len(piece)))
    expected = nats / math.log(2) / sum(len(document.encode()) for document in documents)
    got = exercises.bits_per_byte(model, documents, tokenizer, own, TINY)
    roughly(got, expected, 1e-5, "bits_per_byte")  # logits may pass through float32
    holds(model.longest <= 24, f"the model was given {model.longest} ids at once; T_max is 24")
    one = exercises.bits_per_byte(model, documents[:1], tokenizer, own, TINY)
    twice = exercises.bits_per_byte(model, documents[:1] * 2, tokenizer, own, TINY)
    roughly(twice, one, 1e-6, "bits_per_byte of the same document twice")
    halved = exercises.with_parts(cross_entropy=lambda logits, targets, ignore_index=-100: 0.5)
    n = len(tokenizer.encode(documents[0])) + 1
    got = exercises.bits_per_byte(model, documents[:1], tokenizer, halved, TINY)
    roughly(got, n * 0.5 / math.log(2) / 12, 1e-6, "bits_per_byte when cross_entropy says 0.5 nats a token")


@driver
def tuned_log(module, corpus, documents, plan, seed):
    """Fine-tune a fresh model with spies; give the batches, the weights before and after, and the settings."""
    import torch

    own, log, settings = module.with_parts(), [], []
    tokenizer = module.pack(corpus, own, plan)[0]
    model = own.GPT(module.model_config(plan, tokenizer))
    own.init_weights(model, 0.05, 1)
    before = [p.detach().clone() for p in model.parameters()]

    def accumulate(model, micro_batches, loss_sum_fn):
        batches = list(micro_batches)
        log.append([(x.clone(), y.clone()) for x, y in batches])
        return own.accumulate(model, batches, loss_sum_fn)

    class AdamW(own.AdamW):
        def step(self):
            settings.append((self.lr, self.weight_decay))
            super().step()

    parts = module.with_parts(accumulate=accumulate, AdamW=AdamW)
    torch.manual_seed(seed + 99)
    tuned = module.fine_tune(model, documents, tokenizer, parts, plan, seed)
    kept = all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
    moved = any(not torch.equal(p, was) for p, was in zip(tuned.parameters(), before, strict=True))
    return log, settings, kept, moved, module.chat_rows(documents, tokenizer, own, plan)


@exercise("pipeline")
def test_fine_tuning_trains_a_copy_on_chats(exercises, rng):
    """Rows of chats, prompts without loss, and the base as it was."""
    plan, documents = TINY | {"chat_steps": 11}, texts(rng.seed + 1, 17)
    log, settings, kept, moved, (ids, labels) = exercises.run(tuned_log, texts(rng.seed, 40), documents, plan, 3)
    holds(kept, "fine_tune changed the model that it was given; train a copy")
    holds(moved, "the copy that fine_tune gives was not trained")
    exact([len(batches) for batches in log], [1] * 11, "micro-batches in each of 11 steps")
    generator = torch.Generator().manual_seed(3)
    for t, [(x, y)] in enumerate(log):
        i = torch.randint(17, (5,), generator=generator)
        exact([x, y], [ids[i], labels[i]], f"rows and labels of step {t}")
    roughly(max(rate for rate, _ in settings), 0.03, 1e-9, "the highest rate")
    exact({decay for _, decay in settings}, {0.0}, "weight decay")


@driver
def prefer_log(module, corpus, pairs, plan, seed, still):
    """Run prefer with spies; with `still` the optimizer never moves. Give what dpo_loss saw, gradients and weights."""
    import torch

    own, log, norms = module.with_parts(), [], []
    tokenizer = module.pack(corpus, own, plan)[0]
    model = own.GPT(module.model_config(plan, tokenizer))
    own.init_weights(model, 0.3, 1)
    before = [p.detach().clone() for p in model.parameters()]

    def dpo_loss(pc, pr, rc, rr, beta):
        leak = rc.requires_grad or rr.requires_grad
        log.append(([t.detach().clone() for t in (pc, pr, rc, rr)], beta, leak))
        return own.dpo_loss(pc, pr, rc, rr, beta)

    def clip_grad_norm(grads, max_norm):
        norms.append(sum(g.square().sum().item() for g in grads if g is not None) ** 0.5)
        return own.clip_grad_norm(grads, max_norm)

    class Still(own.AdamW):
        def step(self):
            norms.append(self.lr)

    parts = {"dpo_loss": dpo_loss, "clip_grad_norm": clip_grad_norm} | ({"AdamW": Still} if still else {})
    policy = module.prefer(model, pairs, tokenizer, module.with_parts(**parts), plan, seed)
    kept = all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))
    both = []
    with torch.no_grad():
        for net in (model, policy):
            for side in zip(*pairs, strict=True):
                both.append(own.sequence_logprob(net, *module.chat_rows(side, tokenizer, own, plan)))
    return log, norms, kept, both


@exercise("pipeline", weight=2)
def test_preferences_move_the_policy_off_a_frozen_reference(exercises, rng):
    """The reference keeps its scores while the policy leaves them."""
    corpus, plan = texts(rng.seed, 40), TINY | {"pair_steps": 10}
    pairs = exercises.make_pairs(texts(rng.seed + 1, 80), 13, 5)
    log, _, kept, (rc, rr, pc, pr) = exercises.run(prefer_log, corpus, pairs, plan, 4, False)
    holds(kept, "prefer changed the reference; train a copy")
    generator = torch.Generator().manual_seed(4)
    for t, (scores, beta, leak) in enumerate(log):
        i = torch.randint(13, (5,), generator=generator)
        exact([beta, leak], [0.7, False], "beta, and whether a gradient could reach the reference")
        roughly(scores[2:], [rc[i], rr[i]], 1e-3, f"reference scores of step {t}")  # sums of some ten float32 numbers
        if t == 0:
            roughly(scores[:2], [rc[i], rr[i]], 1e-3, "scores of the policy before its first step")
    exact(len(log), 10, "calls of dpo_loss in 10 steps")
    gain = ((pc - rc) - (pr - rr)).mean().item()
    holds(gain > 0.1, f"after prefer, chosen answers gained only {gain:.3f} nats on the rejected ones")


@exercise("pipeline")
def test_gradients_of_preference_steps_do_not_add_up(exercises, rng):
    """With a policy that stands still every step has the same gradient."""
    [pair] = exercises.make_pairs(texts(rng.seed, 60), 1, 5)
    plan = TINY | {"pair_steps": 4}
    _, norms, _, _ = exercises.run(prefer_log, texts(rng.seed, 40), [pair] * 6, plan, 4, True)
    lengths, rates = norms[0::2], norms[1::2]
    roughly(lengths, [lengths[0]] * 4, 1e-3 * lengths[0], "the lengths of the gradients of four equal steps")
    roughly(max(rates), 0.01, 1e-9, "the highest rate")


@exercise("pipeline")
def test_win_rate_is_what_the_policy_gained(exercises, rng):
    """A pair is won if the chosen answer gained more than the rejected one."""
    own = exercises.with_parts()
    tokenizer = exercises.pack(texts(rng.seed, 40), own, TINY)[0]
    [end] = tokenizer.encode("<|end|>", allowed_special={"<|end|>"})
    (policy, _), (model, _) = table_model(rng, end + 1), table_model(rng, end + 1)
    pairs = exercises.make_pairs(texts(rng.seed + 1, 200), 60, 6)

    def scores(net, side):
        ids, labels = exercises.chat_rows(side, tokenizer, own, TINY)
        picked = net(ids).log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return (picked * (labels >= 0)).sum(1)

    chosen, rejected = ([pair[i] for pair in pairs] for i in (0, 1))
    gains = [scores(policy, side) - scores(model, side) for side in (chosen, rejected)]
    expected = (gains[0] > gains[1]).double().mean().item()
    got = exercises.win_rate(policy, model, pairs, tokenizer, own, TINY)
    roughly(got, expected, 1e-6, "win_rate of 60 pairs")  # a mean may be taken in float32
    swapped = exercises.win_rate(policy, model, [(b, a) for a, b in pairs], tokenizer, own, TINY)
    roughly(swapped, 1 - expected, 1e-6, "win_rate of swapped pairs")
    exact(exercises.win_rate(model, model, pairs, tokenizer, own, TINY), 0.0, "win_rate of the model against itself")


@driver
def rounded(module, corpus, plan, step):
    """Quantise a model whose rows differ much in size; give its weights before and after, the error, and counts."""
    import torch

    own, calls = module.with_parts(), []
    tokenizer = module.pack(corpus, own, plan)[0]
    model = own.GPT(module.model_config(plan, tokenizer))
    own.init_weights(model, 0.3, 1)
    with torch.no_grad():
        model.embedding.weight *= torch.arange(1.0, len(model.embedding.weight) + 1)[:, None]
        model.embedding.weight[3] = 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def quantize_int8(W):
        calls.append(tuple(W.shape))
        if step is None:
            return own.quantize_int8(W)
        return (W / step).round().clamp(-127, 127).to(torch.int8), torch.full((len(W),), step)

    small, error = module.to_int8(model, module.with_parts(quantize_int8=quantize_int8))
    kept = all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    after = {name: p.detach().clone() for name, p in small.named_parameters()}
    tied = small.head.weight is small.embedding.weight
    return before, after, error, sorted(calls), kept, tied


@exercise("pipeline")
def test_int8_weights_are_codes_times_scales(exercises, rng):
    """Matrices are rounded row by row, in a copy; vectors stay."""
    for step in (None, 0.02):
        before, after, error, calls, kept, tied = exercises.run(rounded, texts(rng.seed, 40), TINY, step)
        exact([kept, tied], [True, True], "whether the model is as it was, and the copy's head still tied")
        worst = 0.0
        for name, W in before.items():
            if W.ndim == 1:
                exact(after[name], W, f"the vector {name}")
                continue
            scale = (W.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30) if step is None else step
            close(after[name], (W / scale).round().clamp(-127, 127) * scale, f"{name} in int8")
            rows = W.abs().amax(1) > 0
            worst = max(worst, ((after[name] - W).abs().amax(1)[rows] / W.abs().amax(1)[rows]).max().item())
        roughly(error, worst, 1e-5, "the largest error as a share of its row's largest weight")
        exact(
            calls, sorted(tuple(W.shape) for W in before.values() if W.ndim == 2), "the matrices given to quantize_int8"
        )


@driver
def answers_log(module, corpus, plan, words, seed):
    """Let answers run with a generate_cached that plays back scripted rows, and that tries `choose` once a call."""
    import torch

    own, log = module.with_parts(), []
    tokenizer = module.pack(corpus, own, plan)[0]
    model = own.GPT(module.model_config(plan, tokenizer))
    end = module.end_id(tokenizer)
    ids = {word: tokenizer.encode(word)[0] for word in ("ada", "ben")}
    scripts = [[ids["ada"], end, ids["ben"], end, end, end], [ids["ben"]] * 6, [end] * 6]
    logits = torch.arange(end + 1.0).expand(plan["answers"], -1) / 50

    def top_p_filter(logits, p):
        log.append(("top_p", p))
        return logits.masked_fill(torch.arange(logits.shape[-1]) < 200, -torch.inf)

    def next_token_probs(logits, temperature=1.0):
        log.append(("probs", temperature, int(torch.isinf(logits).sum(1)[0])))
        return own.next_token_probs(logits, temperature)

    def sample(probs, generator):
        tokens = own.sample(probs, generator)
        log.append(("sample", probs.sum(1).tolist(), tokens.tolist()))
        return tokens

    def generate_cached(model, ids, n_new, choose=None):
        tokens, rows = choose(logits)
        log.append(
            ("generated", ids.tolist(), n_new, tokens.tolist(), rows.tolist(), type(model.new_cache(1)).__name__)
        )
        return torch.cat([ids, torch.tensor([scripts[b % 3] for b in range(len(ids))])], 1)

    spies = {"top_p_filter": top_p_filter, "next_token_probs": next_token_probs, "sample": sample}
    parts = module.with_parts(generate_cached=generate_cached, **spies)
    found = module.answers(model, words, tokenizer, parts, plan, seed)
    prompts = [module.prompt_ids(word, tokenizer, own) for word in words]
    return list(found), log, prompts


@exercise("pipeline", weight=2)
def test_answers_end_at_the_first_end(exercises, rng):
    """An answer is the text before the first end, and None without one."""
    plan = TINY | {"answers": 3}
    found, log, prompts = exercises.run(answers_log, texts(rng.seed, 40), plan, ["the", "ada", "the"], 8)
    expected = [(word, answer) for word in ("the", "ada", "the") for answer in ("ada", "ben" * 6, "")]
    expected = [(word, None if answer and len(answer) > 3 else answer) for word, answer in expected]
    exact([tuple(pair) for pair in found], expected, "words and answers")
    calls = [entry[1:] for entry in log if entry[0] == "generated"]
    exact([call[:2] for call in calls], [([prompt] * 3, 6) for prompt in prompts], "rows and lengths to generate")
    exact([call[3] for call in calls], [[0, 1, 2]] * 3, "the rows that go on: each its own")
    exact([e[1] for e in log if e[0] == "top_p"], [0.9] * 3, "p of top_p_filter")
    exact(
        [e[1:] for e in log if e[0] == "probs"], [(1.0, 200)] * 3, "next_token_probs: temperature, and logits removed"
    )
    drawn = [e[2] for e in log if e[0] == "sample"]
    exact([call[2] for call in calls], drawn, "the tokens that choose gives")
    holds(min(map(min, drawn)) >= 200 and drawn[0] != drawn[2], f"tokens drawn: {drawn}")
    again = exercises.run(answers_log, texts(rng.seed, 40), plan, ["the", "ada", "the"], 8)
    exact(again[1], log, "a second run with the same seed")


@driver
def cache_checks(module, corpus, plan):
    """Check the cache with right parts, with positions that restart at 0, and with a generate_cached that is off."""
    import torch

    own = module.with_parts()
    tokenizer = module.pack(corpus, own, plan)[0]
    model = own.GPT(module.model_config(plan, tokenizer))
    own.init_weights(model, 0.4, 1)

    def restart(x, cache, weights, positions=None, mask=None, layer=0):
        start, T = cache.length, x.shape[1]
        q, k, v = (torch.einsum("btd,hed->bhte", x, weights[name]) for name in "qkv")
        k, v = cache.append(layer, module.rope(k, 0), v)
        late = torch.ones(T, start + T, dtype=torch.bool).triu(start + 1)
        q = module.rope(q, 0)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=~late, enable_gqa=True)
        return torch.einsum("bhte,hed->btd", mixed, weights["o"])

    def off(model, ids, n_new, choose=None):
        found = own.generate_cached(model, ids, n_new, choose)
        return torch.cat([found[:, :-1], found[:, -1:] ^ 1], 1)

    results = []
    for wrong in ({}, {"attend_step": restart}, {"generate_cached": off}):
        results.append(module.check_cache(model, "the", tokenizer, module.with_parts(**wrong), plan))
    return results


@exercise("pipeline")
def test_cache_check_sees_a_wrong_cache(exercises, rng):
    """Right parts agree; positions that restart and a wrong token do not."""
    right, restart, off = exercises.run(cache_checks, texts(rng.seed, 40), TINY)
    exact([right[0], off[0]], [True, False], "same, with right parts and with a last token that is another")
    roughly([right[1], off[1]], [0.0, 0.0], 1e-3, "gap, where the cache is right")  # float32
    holds(restart[1] > 0.02, f"positions restart at 0 in every step, and the gap is {restart[1]}")


@driver
def both_ways(module, corpus, seed, plan):
    """Run pipeline with two parts that are not the stand-ins; then its stages by hand, for the lines of the report."""
    import torch

    def quantize_int8(W):
        scale = W.abs().amax(1) / 9
        return (W / scale[:, None]).round().to(torch.int8), scale

    parts = module.with_parts(quantize_int8=quantize_int8, count_parameters=lambda cfg: {"total": 7 + cfg["d_model"]})
    report = module.pipeline(corpus, seed, parts, plan)
    cut = len(corpus) * 9 // 10
    tokenizer, ids, _, _ = module.pack(corpus, parts, plan)
    use = (tokenizer, parts, plan)
    base = module.pretrain(ids, *use, seed)
    tuned = module.fine_tune(base, corpus[:cut], *use, seed)
    policy = module.prefer(tuned, module.make_pairs(corpus[:cut], plan["pairs"], seed), *use, seed)
    small, error = module.to_int8(policy, parts)
    words = [document.split()[0] for document in corpus[cut:]][: plan["chats"]]
    said = [module.answers(model, words, *use, seed) for model in (tuned, small)]
    same, gap = module.check_cache(small, words[0], *use)
    rounded, whole = (module.bits_per_byte(model, corpus[cut:], *use) for model in (small, policy))
    lines = {"train_bpb": module.bits_per_byte(base, corpus[: len(corpus) - cut], *use)}
    lines |= {"held_out_bpb": module.bits_per_byte(base, corpus[cut:], *use), "int8_increase": rounded / whole - 1}
    lines |= {"win_rate": module.win_rate(policy, tuned, module.make_pairs(corpus[cut:], 100, seed), *use)}
    lines |= {"int8_error": error, "cache_gap": gap, "same": same, "answers": said[1]}
    lines |= {"in_form": [module.in_form(some) for some in said], "words": [module.mean_words(some) for some in said]}
    where = {name: module.whereabouts(getattr(parts, name)) for name in module.PARTS}
    return report, lines | {"hash": module.digest(small, said[1]), "parts": where}


@exercise("pipeline", weight=3)
def test_report_is_what_the_stages_give(exercises, rng):
    """Each line of the report is that of its stage, on the right text."""
    report, lines = exercises.run(both_ways, texts(rng.seed, 120), 6, TINY | {"steps": 9})
    for name in ("held_out_bpb", "train_bpb", "win_rate", "int8_increase", "int8_error", "cache_gap"):
        roughly(report[name], lines[name], 1e-6, f"{name} of the report")  # the same numbers, perhaps in another order
    for name in ("in_form", "words"):
        roughly(list(report[name]), lines[name], 1e-6, f"{name} of the report")
    exact(
        [[tuple(pair) for pair in report["answers"]], report["same"]],
        [lines["answers"], lines["same"]],
        "answers, same",
    )
    exact(report["hash"], lines["hash"], "hash of the report")
    exact([report["params"], report["tokens"]], [23, 9 * 5 * 11], "params, by a part of the test's, and tokens")
    exact([report["flops"], report["kv_bytes"]], [6 * 23 * 9 * 5 * 11, 2 * 2 * 1 * 8 * 24 * 4], "flops and kv_bytes")
    exact(report["parts"], lines["parts"], "the parts that the report lists, and where they come from")


SHORT = TINY | {"steps": 50, "batch": 12, "context": 20, "chat_steps": 5, "pairs": 100, "pair_steps": 20}
SHORT |= {"pair_lr": 0.005}
"""Enough to learn most of what can be seen without waiting."""


@driver
def runs(module, corpus, seeds, plan, wrong):
    """Run pipeline for each seed and, if asked, with wrong parts."""
    import torch

    own, parts = module.with_parts(), None
    torch.manual_seed(len(wrong) + 1)

    def get_batch(ids, batch, context, rng):
        x, y = own.get_batch(ids, batch, context, rng)
        return x, x

    def dpo_loss(pc, pr, rc, rr, beta):
        return own.dpo_loss(pr, pc, rr, rc, beta)

    def quantize_int8(W):
        scale = W.abs().max() / 127
        return (W / scale).round().to(torch.int8), scale.expand(len(W))

    def attend_step(x, cache, weights, positions=None, mask=None, layer=0):
        first = cache.length == 0
        return own.attend_step(x, cache, weights, layer=layer) * (1.0 if first else 0.9)

    if wrong:
        made = {
            "get_batch": get_batch,
            "dpo_loss": dpo_loss,
            "quantize_int8": quantize_int8,
            "attend_step": attend_step,
        }
        parts = module.with_parts(**{name: made[name] for name in wrong})
    options = {} if parts is None else {"parts": parts}
    return [module.pipeline(corpus, seed, plan=plan, **options) for seed in seeds]


@exercise("pipeline")
def test_arguments_alone_decide_the_report(exercises, rng):
    """The same seed gives the same report, another one another."""
    corpus, own, plan = texts(rng.seed, 60), exercises.with_parts(), TINY | {"steps": 2, "pairs": 5}
    one, other = exercises.run(runs, corpus, [3, 4], plan, [])
    [again] = exercises.run(runs, corpus, [3], plan, [])
    exact(again, one, "the report of a second run")
    holds(other["hash"] != one["hash"], "another seed gives the same hash")
    config = exercises.model_config(TINY, exercises.pack(corpus, own, TINY)[0])
    exact(one["params"], own.count_parameters(config)["total"], "params, when no parts are given")


@exercise("pipeline", weight=2)
def test_wrong_parts_show_in_the_report(exercises, rng):
    """Each of four wrong parts moves its own line of the report."""
    corpus = texts(rng.seed, 400)
    [right] = exercises.run(runs, corpus, [3], SHORT, [])
    [wrong] = exercises.run(runs, corpus, [3], SHORT, ["get_batch", "dpo_loss", "quantize_int8", "attend_step"])
    lines = {name: (right[name], wrong[name]) for name in ("held_out_bpb", "win_rate", "int8_error", "cache_gap")}
    holds(lines["held_out_bpb"][1] > lines["held_out_bpb"][0] + 1, f"targets not shifted: held_out_bpb {lines}")
    holds(lines["win_rate"][0] > 0.6 and lines["win_rate"][1] < 0.5, f"the sign of DPO: win_rate {lines}")
    holds(lines["int8_error"][0] < 0.00394 < 0.006 < lines["int8_error"][1], f"one scale a tensor: int8_error {lines}")
    holds(lines["cache_gap"][0] < 1e-3 < lines["cache_gap"][1], f"a cached step that is off: cache_gap {lines}")
    exact([right["same"], wrong["hash"] == right["hash"]], [True, False], "same with right parts; equal hashes")


@exercise("pipeline", weight=4)
def test_your_own_model_comes_close_to_the_floor(exercises, rng):
    """The whole run learns the language, the chats and the judges' taste."""
    grammar = dataset("grammar")
    drawn = grammar.sentences(rng.seed, 1200)
    # the given plan, made smaller to save time
    plan = exercises.value("PLAN") | {"d_model": 32, "n_heads": 2, "n_kv_heads": 2, "d_ff": 64, "T_max": 32}
    plan |= {"context": 32, "steps": 90, "chat_steps": 60, "pair_steps": 25, "chats": 8, "answers": 2}
    plan["new"] = 20
    report = exercises.pipeline([" ".join(words) for words, _ in drawn], 7, plan=plan)
    # the surprise of the very sentences that are held out, so that luck in the draw cancels
    held_out = drawn[1080:]
    floor = -sum(log_p for _, log_p in held_out) / math.log(2) / sum(len(" ".join(words)) for words, _ in held_out)
    bits = report["held_out_bpb"]
    holds(floor - 0.01 < bits < floor + 0.17, f"held_out_bpb is {bits:.3f}, the floor {floor:.3f}")
    holds(abs(bits - report["train_bpb"]) < 0.12, f"train_bpb {report['train_bpb']:.3f}, held_out_bpb {bits:.3f}")
    holds(report["win_rate"] > 0.58, f"the policy likes the right answer in {report['win_rate']:.2f} of the pairs")
    holds(abs(report["int8_increase"]) < 0.02, f"int8 costs {report['int8_increase']:.4f} of the bits")
    holds(report["same"] and report["cache_gap"] < 1e-3, f"cached and plain differ: {report['cache_gap']}")
    sound = [answer is not None and grammar.grammatical(tuple(answer.split())) for _, answer in report["answers"]]
    holds(sum(sound) > 0.2 * len(sound), f"only {sum(sound)} of {len(sound)} answers are sentences of the grammar")
