"""Self-checks of chapter 26: worked examples and the laws that teach."""

import pytest
import torch

from grader.testing import driver, exact, exercise, holds, roughly

SMALL = {"vocab_size": 11, "T_max": 16, "d_model": 8, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "head_dim": 6}
SMALL |= {"d_ff": 12}


@exercise("family_params")
def test_one_layer_of_mistral(exercises):
    """The worked example of the notes: Mistral-7B, part by part."""
    got = exercises.family_params(exercises.value("FAMILIES")["mistral-7b"])
    exact(got["attention"], 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024), "attention of 32 layers")
    exact(got["mlp"], 32 * 3 * 4096 * 14336, "feed-forward networks of 32 layers")
    exact([got["embedding"], got["norm"]], [2 * 32000 * 4096, 65 * 4096], "embedding and norm")


@exercise("family_params")
@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("gpt2", 124_439_808),
        ("llama-3-8b", 8_030_261_248),
        ("gemma-7b", 8_537_680_896),
        ("mixtral-8x7b", 46_702_792_704),
    ],
)
def test_published_totals(exercises, name, total):
    """The total is the published one."""
    exact(exercises.family_params(exercises.value("FAMILIES")[name])["total"], total, f"the total of {name}")


@exercise("family_memory")
def test_a_token_of_llama_3(exercises):
    """A token costs Llama-3-8B 128 KiB of cache in 16 bits."""
    llama = exercises.value("FAMILIES")["llama-3-8b"]
    exact(exercises.family_memory(llama, 1, 1)["kv"], 2 * 32 * 8 * 128 * 2, "the cache of one token")


@exercise("family_memory")
def test_the_answer_fits_and_no_more(exercises):
    """The longest conversation fits, one token more does not."""
    llama = exercises.value("FAMILIES")["llama-3-8b"]
    seq = exercises.fits(llama, 16, batch=16, w_bits=4)
    total, more = (exercises.family_memory(llama, 16, n, w_bits=4)["total"] for n in (seq, seq + 1))
    holds(total <= 16 * 2**30 < more, f"{seq} tokens take {total} bytes, one more {more}")


@exercise("build")
def test_a_window_hides_what_lies_further_back(exercises, rng):
    """With a window of 2, a token three places back has no influence."""
    attention = exercises.Attention(exercises.value("FAMILIES")["mistral-7b"] | SMALL, 2)
    x = rng.normal(1, 5, 8).float()
    before = attention(x)
    x[:, 1] += 1.0
    moved = (attention(x) - before).abs().amax((0, 2)) > 1e-6
    exact(moved.tolist(), [False, True, True, False, False], "outputs that change with token 1")


@exercise("build")
@pytest.mark.parametrize("name", ["gpt2", "gemma-2b", "mixtral-8x7b"])
def test_small_families_have_their_parameters(exercises, name):
    """A small model of each family holds what family_params counts."""
    config = exercises.value("FAMILIES")[name] | SMALL
    model = exercises.build(config)
    exact(sum(p.numel() for p in model.parameters()), exercises.family_params(config)["total"], f"parameters of {name}")


@exercise("build")
def test_with_a_cache_as_without(exercises, rng):
    """Two pieces with a cache give the logits of one piece."""
    model = exercises.build(exercises.value("FAMILIES")["mistral-7b"] | SMALL | {"window": 3})
    ids = rng.integers(0, 11, 1, 7)
    cache = model.new_cache(1)
    pieces = torch.cat([model(ids[:, :4], cache), model(ids[:, 4:], cache)], 1)
    roughly(pieces, model(ids), 1e-4, "logits in two pieces")  # float32


@exercise("recover_logprobs")
def test_the_four_tokens_of_the_notes(exercises):
    """The worked example: 0.5, 0.3, 0.15 and 0.05, two shown at a time."""
    log_p = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()

    def api(biases):
        z = log_p + torch.tensor([biases.get(i, 0.0) for i in range(4)], dtype=torch.float64)
        values, ids = z.log_softmax(0).topk(2)
        return dict(zip(ids.tolist(), values.tolist(), strict=True))

    roughly(exercises.recover_logprobs(api, 4, 2, 4.0), log_p, 1e-6, "recover_logprobs of four tokens")


@exercise("estimate_hidden_size")
def test_the_width_of_a_small_model_shows(exercises, rng):
    """Logits of a model of width 5 lie along five directions."""
    logits = rng.normal(20, 5) @ rng.normal(5, 50)
    exact(exercises.estimate_hidden_size(logits), 5, "the width seen in logits")
    exact(exercises.estimate_hidden_size(logits.log_softmax(-1)), 5, "the width seen in log-probabilities")


@exercise("doubling_time")
def test_doubling_every_half_year(exercises):
    """What quadruples in 365.25 days doubles in half a year."""
    dates, compute = ["2020-01-01", "2024-01-01", "2028-01-01"], [1.0, 4.0**4, 4.0**8]  # 1461 days are four years
    roughly(exercises.doubling_time(dates, compute), 0.5, 1e-9, "the doubling time")


@exercise("doubling_time")
def test_a_scattered_trend_promises_little(exercises):
    """The interval lies around the line and widens with the distance."""
    dates, compute = [f"{year}-01-01" for year in range(2018, 2023)], [1, 3, 5, 20, 30]
    low, middle, high = exercises.extrapolate(dates, compute, "2023-01-01")
    holds(low < middle < high, f"{low} {middle} {high}")
    further = exercises.extrapolate(dates, compute, "2026-01-01")
    holds(further[2] / further[0] > high / low, "the interval of 2026 is not wider than that of 2023")


TINY = {"vocab_size": 480, "T_max": 24, "d_model": 16, "n_layers": 2, "n_heads": 2, "n_kv_heads": 1, "d_ff": 24}
TINY |= {"context": 11, "batch": 5, "steps": 4, "lr": 0.02, "weight_decay": 0.1, "chat_steps": 3, "chat_lr": 0.03}
TINY |= {"pairs": 8, "pair_steps": 4, "pair_lr": 0.01, "beta": 0.7, "top_p": 0.9, "chats": 2, "answers": 2, "new": 6}
CORPUS = ["ada sees ben .", "ada sleeps .", "the cat sees the dog .", "the cat runs .", "ben often runs ."] * 8


@exercise("pipeline")
def test_pack_ends_every_document(exercises):
    """The ids are the training documents, each with its end."""
    tokenizer, ids, train, held_out = exercises.pack(CORPUS, exercises.with_parts(), TINY)
    exact([len(train), len(held_out)], [36, 4], "documents for training and held out")
    text = "".join(document + "<|end|>" for document in CORPUS[:36])
    exact(tokenizer.decode([int(i) for i in ids]), text, "the text of the ids")


@exercise("pipeline")
def test_a_model_that_knows_nothing(exercises):
    """Equal logits cost log2 V bits a token, whatever the text."""
    parts = exercises.with_parts()
    tokenizer = exercises.pack(CORPUS, parts, TINY)[0]
    n = len(tokenizer.encode("ada runs .")) + 1  # the end is predicted too
    got = exercises.bits_per_byte(lambda ids: torch.zeros(*ids.shape, 1024), ["ada runs ."], tokenizer, parts, TINY)
    roughly(got, 10 * n / 10, 1e-6, "bits_per_byte under 1024 equal logits")


@driver
def copies(module, corpus, plan):
    """Does any stage change the model that it was given?"""
    import torch

    parts = module.with_parts()
    tokenizer, ids, train, _ = module.pack(corpus, parts, plan)
    model = module.pretrain(ids, tokenizer, parts, plan, 0)
    before = [p.detach().clone() for p in model.parameters()]
    tuned = module.fine_tune(model, train, tokenizer, parts, plan, 0)
    policy = module.prefer(tuned, module.make_pairs(train, 8, 0), tokenizer, parts, plan, 0)
    small, error = module.to_int8(policy, parts)
    return all(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True)), error


@exercise("pipeline")
def test_stages_work_on_copies(exercises):
    """No stage changes the model that it was given."""
    kept, error = exercises.run(copies, CORPUS, TINY)
    holds(kept, "the pretrained model has changed; each later stage must train a copy")
    holds(0 < error <= 1 / 254 + 1e-6, f"rounding to int8 moved a weight by {error} of its row's largest")


@exercise("pipeline")
def test_a_report_can_be_repeated(exercises):
    """The same seed gives the same report."""
    one, two = (exercises.pipeline(CORPUS, 3, plan=TINY) for _ in range(2))
    exact(two["hash"], one["hash"], "the hash of a second run")
    exact(one["tokens"], 4 * 5 * 11, "the tokens read")
