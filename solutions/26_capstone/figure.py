"""What the figure of chapter 26 computes and says, held against the reference."""

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
FAMILIES = reference.FAMILIES


def changed(rng):
    """Give a published configuration with some settings changed, so that every term of the formula counts."""
    pick = lambda *options: options[int(rng.integers(0, len(options)))]  # noqa: E731
    other = {"n_layers": pick(3, 8, 13), "n_kv_heads": pick(1, 2, 4), "bias": pick(True, False)}
    other |= {"window": pick(None, 100, 700), "full_every": pick(0, 2, 3), "norm": pick("layer", "rms")}
    other |= {"n_experts": pick(0, 4, 6), "top_k": 2, "n_shared": pick(0, 1), "tied": pick(True, False)}
    return FAMILIES[pick(*FAMILIES)] | other


@mirror("familyParams")
def a_changed_family(rng):
    config = changed(rng)
    return [config], reference.family_params(config)


@mirror("familyParams")
def the_published_ones(rng):
    config = list(FAMILIES.values())[rng.seed % len(FAMILIES)]
    return [config], reference.family_params(config)


@mirror("familyParams")
def mixtral(rng):
    config = FAMILIES["mixtral-8x7b"] | {"n_layers": 1 + int(rng.integers(0, 40))}
    return [config], reference.family_params(config)


@mirror("tokenFlops")
def a_third_of_what_training_on_it_takes(rng):
    config = changed(rng)
    return [config], reference.STAND_INS["train_flops"](reference.family_params(config)["active"], 1) / 3


@mirror("familyMemory")
def memory(rng):
    config, batch, seq = changed(rng), int(rng.integers(1, 20)), int(rng.integers(1, 1500))
    w_bits, kv_bits = (int(bits) for bits in rng.integers(3, 17, 2))
    expected = reference.family_memory(config, batch, seq, w_bits, kv_bits)
    return [config, batch, seq, w_bits, kv_bits], {name: expected[name] for name in ("weights", "kv", "total")}


@mirror("fits")
def what_fits(rng):
    config, gib = changed(rng) | {"n_experts": 0, "window": None}, 4 + 8 * rng.uniform(1).item()
    return [config, gib, 30, 4, 8], reference.fits(config, gib, 30, 4, 8)


@mirror("fits")
def llama_fits(rng):
    config, gib = FAMILIES["llama-2-7b"], 12 + 3 * rng.uniform(1).item()
    return [config, gib], reference.fits(config, gib)


def told(config, batch, w_bits, kv_bits):
    """Give the middle of the figure's sentence."""
    now, token = (reference.family_memory(config, *run, w_bits, kv_bits) for run in ((batch, config["T_max"]), (1, 1)))
    kv = f"{token['kv'] / 2**10:.2f} KiB a token and {now['kv'] / 2**30:.2f} GiB"
    weights = f"The weights take {now['weights'] / 2**30:.2f} GiB"
    return f"{weights}; the cache takes {kv} for {batch} × {config['T_max']:,} tokens."


@shown(family="mixtral-8x7b")
def mixtral_is_not_56_billion():
    counts = reference.family_params(FAMILIES["mixtral-8x7b"])
    return f"32 layers, {counts['total']:,} parameters, of which a token uses {counts['active']:,}: about"


@shown(family="llama-3-8b", bits="4 16", chats=4)
def two_purses():
    return told(FAMILIES["llama-3-8b"], 16, 4, 16) + " All this fits on cards from 24 GiB."


@shown(family="llama-3-8b", bits="4 4", chats=4)
def both_squeezed():
    assert reference.fits(FAMILIES["llama-3-8b"], 16, 16, 4, 4) == FAMILIES["llama-3-8b"]["T_max"]
    return told(FAMILIES["llama-3-8b"], 16, 4, 4) + " All this fits on cards from 8 GiB."


@shown(family="gemma-7b", layers=0.5, heads="one", window="some")
def a_changed_gemma():
    config = FAMILIES["gemma-7b"] | {"n_layers": 14, "n_kv_heads": 1, "window": 1024, "full_every": 4}
    return told(config, 1, 16, 16)


@shown(family="your own")
def your_own():
    return "2 layers, 75,408 parameters: about 0.2 million operations a token."
