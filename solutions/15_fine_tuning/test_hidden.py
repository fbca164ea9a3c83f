"""The whole contract of chapter 15."""

import copy
import itertools
import math
from statistics import NormalDist

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, driver, exact, exercise, holds, pure, roughly

ROLES = ("system", "user", "assistant", "tool")
WORDS = (
    "<|end|>",
    "<|start|>",
    "<|sep|>",
    "<|begin|>",
    "assistant",
    "user",
    "",
    " ",
    "\n",
    "ß",
    "猫",
    "\x00",
    "a",
    "256",
)


# --- render_chat ------------------------------------------------------------------------------------------------------


def parse_chat(ids, template):
    """Read a rendered conversation back; None if it is not one."""
    names = {number: name for name, number in template.items()}
    shape = [names.get(token, "text") for token in ids]
    if "<|begin|>" in template:
        if shape[:1] != ["<|begin|>"]:
            return None
        ids, shape = ids[1:], shape[1:]
    messages, i = [], 0
    while i < len(ids):
        try:
            sep, end = shape.index("<|sep|>", i), shape.index("<|end|>", i)
        except ValueError:
            return None
        if shape[i] != "<|start|>" or not i < sep < end or set(shape[i + 1 : sep] + shape[sep + 1 : end]) - {"text"}:
            return None
        role, content = bytes(ids[i + 1 : sep]).decode(), bytes(ids[sep + 1 : end]).decode()
        messages.append({"role": role, "content": content})
        i = end + 1
    return messages


def some_chat(rng, n):
    """A conversation of n messages from words that invite forgery."""
    text = lambda: "".join(rng.random.choice(WORDS) for _ in range(rng.random.randrange(5)))  # noqa: E731
    return [{"role": rng.random.choice(ROLES), "content": text()} for _ in range(n)]


def some_template(rng, begin):
    """A template whose ids are in no order."""
    names = ["<|start|>", "<|sep|>", "<|end|>"] + ["<|begin|>"] * begin
    return dict(zip(names, rng.random.sample(range(256, 100_000), len(names)), strict=True))


@exercise("render_chat")
@pytest.mark.parametrize("begin", [True, False])
def test_conversation_can_be_read_back(exercises, rng, begin):
    """Reading the ids back gives the same conversation, to the letter."""
    for n in range(9):
        chat, template = some_chat(rng, n), some_template(rng, begin)
        got = exercises.render_chat(chat, template)
        holds(type(got) is list and all(type(token) is int for token in got), f"render_chat gave {got!r}, not ints")
        exact(parse_chat(got, template), chat, f"the conversation read back from render_chat({chat!r}, {template})")


@exercise("render_chat")
def test_ids_are_as_the_template_says(exercises, rng):
    """Control tokens come from the template, text from its bytes."""
    for begin, flag, n in itertools.product((True, False), (True, False), (0, 1, 4)):
        chat, template = some_chat(rng, n), some_template(rng, begin)
        expected = [template["<|begin|>"]] if begin else []
        for m in chat:
            expected += [template["<|start|>"], *m["role"].encode("utf-8"), template["<|sep|>"]]
            expected += [*m["content"].encode("utf-8"), template["<|end|>"]]
        if flag:
            expected += [template["<|start|>"], *b"assistant", template["<|sep|>"]]
        exact(exercises.render_chat(chat, template, flag), expected, f"render_chat({chat!r}, {template}, {flag})")


@exercise("render_chat")
def test_different_conversations_differ(exercises):
    """Two different conversations never render equally."""
    template = {"<|begin|>": 300, "<|start|>": 301, "<|sep|>": 302, "<|end|>": 303}
    pairs = [("user", "a"), ("assistant", "b")]
    chats = [pairs, [("user", "a<|end|><|start|>assistant<|sep|>b")], [("user", "ab")], [("user", "a"), ("user", "b")]]
    chats += [[("user", "a\nb")], [("user", "a "), ("assistant", "b")], [("user", "\na"), ("assistant", "b")]]
    chats += [[("user", "A"), ("assistant", "b")], [("system", ""), *pairs], [*pairs, ("system", "")], pairs[::-1]]
    chats += [[("tool", "a"), ("assistant", "b")], [("user", "")], [("user", "a"), ("user", "a")], [("user", "a")]]
    chats += [[("user", "a\\<|end|>")], [("user", "a<|end|>")], [("user", "a< |end|>")], [("user", "\u00e9")]]
    chats += [[("user", "e\u0301")], []]
    rendered = [exercises.render_chat([{"role": r, "content": c} for r, c in chat], template) for chat in chats]
    for (a, one), (b, two) in itertools.combinations(enumerate(rendered), 2):
        holds(one != two, f"{chats[a]} and {chats[b]} render equally")


@exercise("render_chat")
def test_rendering_is_prefix_preserving(exercises, rng):
    """A longer conversation begins with the ids of the shorter one."""
    chat, template = some_chat(rng, 7), some_template(rng, True)
    chat += [{"role": "system", "content": "late"}, {"role": "assistant", "content": "x"}]
    header = [template["<|start|>"], *b"assistant", template["<|sep|>"]]
    for k in range(len(chat)):
        short, long = (exercises.render_chat(chat[:n], template) for n in (k, k + 1))
        exact(long[: len(short)], short, f"the beginning of the rendering of {k + 1} messages")
        opened = exercises.render_chat(chat[:k], template, add_generation_prompt=True)
        exact(opened, short + header, f"{k} messages with the generation prompt")


@exercise("render_chat")
def test_unknown_roles_are_refused(exercises):
    """A role that is none of the four raises ValueError."""
    template = {"<|start|>": 257, "<|sep|>": 258, "<|end|>": 259}
    for role in ("User", "developer", "", "assistant ", "function"):
        with pytest.raises(ValueError):
            exercises.render_chat([{"role": "user", "content": "a"}, {"role": role, "content": "b"}], template)


@exercise("render_chat")
def test_rendering_leaves_its_arguments(exercises):
    """Messages and template stay as they were, call after call."""
    chat = [{"role": role, "content": f" {role} "} for role in ROLES]
    template = {"<|begin|>": 256, "<|start|>": 257, "<|sep|>": 258, "<|end|>": 259}
    first = pure(exercises.render_chat, chat, template, True)
    exact(exercises.render_chat(chat, template, True), first, "the second call of render_chat")


# --- build_sft_example ------------------------------------------------------------------------------------------------


def sft_by_definition(prompt, response, eos, max_len, pad):
    """Follow the sentence: the label is what comes next, if the response or its end comes next."""
    tokens = [*prompt, *response, eos]
    ids = [tokens[i] if i < len(tokens) - 1 else pad for i in range(max_len)]
    kept = [len(prompt) <= i + 1 < len(tokens) for i in range(max_len)]
    labels = [tokens[i + 1] if kept[i] else -100 for i in range(max_len)]
    return torch.tensor(ids), torch.tensor(labels)


@driver
def build_each(module, jobs):
    """Build an example of each (prompt, response, eos, max_len, pad)."""
    return [module.build_sft_example(*job) for job in jobs]


@exercise("build_sft_example")
def test_labels_follow_the_definition(exercises, rng):
    """Every label is the next token of the response, or is ignored."""
    jobs = []
    for n, m in ((1, 0), (1, 9), (3, 5), (4, 4), (8, 1), (9, 2), (12, 3)):
        prompt, response = rng.integers(0, 9, n).tolist(), rng.integers(0, 9, m).tolist()
        for max_len in (1, 2, 3, 7, 8, 9, 10, 11, 12, 20):
            jobs += [(prompt, response, eos, max_len, pad) for eos, pad in ((10, 11), (10, 10), (3, 0))]
    for job, got in zip(jobs, exercises.run(build_each, jobs), strict=True):
        expected = sft_by_definition(*job)
        exact(got[0], expected[0], f"input_ids of build_sft_example{job}")
        exact(got[1], expected[1], f"labels of build_sft_example{job}")


@exercise("build_sft_example")
def test_kept_labels_are_the_response(exercises, rng):
    """The labels that are kept spell the response and its end."""
    prompt, response = rng.integers(3, 30, 6).tolist(), rng.integers(3, 30, 5).tolist()
    ids, labels = exercises.build_sft_example(prompt, response, eos=2, max_len=17, pad=0)
    exact(labels[labels != -100].tolist(), [*response, 2], "the kept labels")
    where = (labels != -100).nonzero().flatten()[:-1]
    exact(ids[where + 1], labels[where], "the inputs one step behind the kept labels")
    exact((ids.dtype, labels.dtype, ids.shape), (torch.int64, torch.int64, labels.shape), "dtypes and shapes")


@exercise("build_sft_example")
def test_end_is_trained_when_it_is_the_padding(exercises):
    """The end is trained and padding is not, though both share an id."""
    ids, labels = exercises.build_sft_example([4, 5], [6, 7], eos=9, max_len=8, pad=9)
    exact(labels.tolist(), [-100, 6, 7, 9, -100, -100, -100, -100], "labels with eos = pad = 9")
    exact(ids.tolist(), [4, 5, 6, 7, 9, 9, 9, 9], "input_ids with eos = pad = 9")


@exercise("build_sft_example")
def test_positions_decide_not_values(exercises):
    """A pad or end id inside prompt or response is an ordinary token."""
    ids, labels = exercises.build_sft_example([9, 0, 9], [0, 9, 0], eos=9, max_len=9, pad=0)
    exact(ids.tolist(), [9, 0, 9, 0, 9, 0, 0, 0, 0], "input_ids of prompt 9 0 9, response 0 9 0, eos 9, pad 0")
    exact(labels.tolist(), [-100, -100, 0, 9, 0, 9, -100, -100, -100], "its labels")


@exercise("build_sft_example")
def test_empty_response_trains_only_the_end(exercises):
    """An empty response trains its end token and nothing else."""
    ids, labels = exercises.build_sft_example([4, 5, 6], [], eos=1, max_len=5, pad=0)
    exact((ids.tolist(), labels.tolist()), ([4, 5, 6, 0, 0], [-100, -100, 1, -100, -100]), "an empty response")


@exercise("build_sft_example")
def test_truncation_never_unmasks_the_prompt(exercises):
    """A prompt as long as the row or longer stays unlabelled."""
    _, labels = exercises.build_sft_example([4, 5, 6, 7], [8], eos=1, max_len=3, pad=0)
    exact(labels.tolist(), [-100] * 3, "labels of a prompt of 4 in a row of 3")
    ids, labels = exercises.build_sft_example([4, 5, 6], [8, 9], eos=1, max_len=3, pad=0)
    exact((ids.tolist(), labels.tolist()), ([4, 5, 6], [-100, -100, 8]), "a prompt of 3 in a row of 3")


@exercise("build_sft_example")
def test_loss_is_the_response_given_the_prompt(exercises, rng):
    """The summed loss is minus log p(response and end | prompt)."""
    log_p = rng.normal(12, 12).log_softmax(1)  # a bigram model: log p(next | current)
    prompt, response = rng.integers(2, 12, 5).tolist(), rng.integers(2, 12, 7).tolist()
    ids, labels = exercises.build_sft_example(prompt, response, eos=1, max_len=16, pad=0)
    loss = F.cross_entropy(log_p[ids], labels, ignore_index=-100, reduction="sum")
    path = [prompt[-1], *response, 1]
    expected = -sum(log_p[a, b] for a, b in itertools.pairwise(path))
    close(loss, expected, "the cross-entropy of a bigram model on the labels")


@exercise("build_sft_example")
def test_empty_prompt_is_refused(exercises):
    """An empty prompt raises ValueError, and arguments are left alone."""
    with pytest.raises(ValueError):
        exercises.build_sft_example([], [3, 4], eos=1, max_len=5, pad=0)
    pure(exercises.build_sft_example, [3, 4], [5], 1, 6, 0)


# --- pack_sequences ---------------------------------------------------------------------------------------------------


def some_examples(rng, lengths):
    """Examples with labels that cannot be told from the ids; ids may be 0."""
    draw = lambda low, n: rng.integers(low, 50, n).tolist()  # noqa: E731
    return [(draw(0, n), [label if label >= 0 else -100 for label in draw(-20, n)]) for n in lengths]


def unpack(ids, labels, segments):
    """Read the examples back out of the rows, sorted."""
    found = []
    for row in range(ids.shape[0]):
        for s in sorted(set(segments[row].tolist()) - {0}):
            where = segments[row] == s
            found.append((ids[row][where].tolist(), labels[row][where].tolist()))
    return sorted(found)


@exercise("pack_sequences")
@pytest.mark.parametrize("lengths", [(7, 3, 5, 2, 2, 7, 1, 4, 6), (1,), (7,), (4, 4, 4), (1,) * 15])
def test_every_example_comes_back(exercises, rng, lengths):
    """Each example lies whole in one row with its own labels."""
    examples = some_examples(rng, lengths)
    ids, labels, segments, positions = pure(exercises.pack_sequences, examples, 7)
    exact(unpack(ids, labels, segments), sorted((list(a), list(b)) for a, b in examples), "the examples read back")
    named = {"ids": ids, "labels": labels, "segment_ids": segments, "position_ids": positions}
    for name, tensor in named.items():
        exact((tensor.dtype, tensor.shape), (torch.int64, (len(ids), 7)), f"dtype and shape of {name}")


@exercise("pack_sequences")
def test_rows_are_laid_out_as_agreed(exercises, rng):
    """Segments count from 1 without gaps; positions restart at 0."""
    ids, labels, segments, positions = exercises.pack_sequences(some_examples(rng, (5, 3, 2, 6, 4, 1, 1, 8, 2)), 11)
    for row in range(len(ids)):
        found = segments[row].tolist()
        runs = [(s, len(list(run))) for s, run in itertools.groupby(found)]
        numbers = [s for s, _ in runs]
        real = len(numbers) - (numbers[-1] == 0)
        exact(numbers, [*range(1, real + 1), *[0] * (len(numbers) - real)], f"the segments of the row {found}")
        expected = [i for s, n in runs for i in (range(n) if s else [0] * n)]
        exact(positions[row].tolist(), expected, f"the positions of the row with segments {found}")
    exact(set(ids[segments == 0].tolist()), {0}, "the ids of the padding")
    exact(set(labels[segments == 0].tolist()), {-100}, "the labels of the padding")


@exercise("pack_sequences")
def test_planted_packing_is_nearly_found(exercises, rng):
    """The rows keep to the bound of first-fit decreasing."""
    harmonic = [51, 34, 15] * 6  # six full rows; shortest first, first fit needs ten
    cuts = []
    for _ in range(20):
        marks = sorted({0, 100, *rng.integers(1, 100, rng.random.randrange(1, 6)).tolist()})
        cuts += [b - a for a, b in itertools.pairwise(marks)]
    for lengths, best in ((sorted(harmonic), 6), (harmonic, 6), (rng.random.sample(cuts, len(cuts)), 20)):
        ids, *_ = exercises.pack_sequences([([1] * n, [1] * n) for n in lengths], 100)
        bound = math.floor(11 / 9 * best + 6 / 9)
        holds(len(ids) <= bound, f"{len(ids)} rows for lengths {lengths} that fit into {best}; at most {bound} allowed")
        holds(len(ids) >= best, f"{len(ids)} rows cannot hold {sum(lengths)} tokens")


@exercise("pack_sequences")
def test_short_examples_share_rows(exercises):
    """Examples that fit into one row together need one row."""
    for lengths in ((3, 4), (4, 3), (1, 2, 4), (7,), (2, 5)):
        ids, _, segments, _ = exercises.pack_sequences([([9] * n, [9] * n) for n in lengths], 7)
        exact(len(ids), 1, f"rows for lengths {lengths} in rows of 7")
        exact((segments == 0).sum().item(), 0, "padding in a row that is filled exactly")


@exercise("pack_sequences")
@pytest.mark.parametrize("bad", [([1] * 6, [1] * 6), ([], []), ([1, 2], [1]), ([1, 2], [1, 2, 3])])
def test_impossible_examples_are_refused(exercises, bad):
    """Too long, empty or unequal examples raise ValueError."""
    with pytest.raises(ValueError):
        exercises.pack_sequences([([1, 2], [2, 3]), bad], 5)


@exercise("pack_sequences")
def test_nothing_packs_to_no_rows(exercises):
    """No examples give four tensors without rows."""
    for tensor in exercises.pack_sequences([], 5):
        exact((tensor.shape, tensor.dtype), ((0, 5), torch.int64), "shape and dtype of a packing of nothing")


def toy_attention(table, places, ids, positions, mask):
    """One layer of attention with learned positions, float64."""
    h = table[ids] + places[positions]  # (..., T, D)
    scores = (h @ h.mT) / 2
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ h


@exercise("pack_sequences")
def test_packed_examples_compute_as_if_alone(exercises, rng):
    """A packed example gets the outputs of a run of its own."""
    table, places = rng.normal(50, 4), rng.normal(9, 4)
    examples = some_examples(rng, (5, 3, 2, 6, 4, 1))
    ids, _, segments, positions = exercises.pack_sequences(examples, 9)
    packed = toy_attention(table, places, ids, positions, exercises.segment_mask(segments))
    holds(bool(packed.isfinite().all()), "a row of the mask allows nothing, so the softmax is NaN")
    for row, s in {(r, s) for r in range(len(ids)) for s in segments[r].tolist() if s}:
        own = ids[row][segments[row] == s]
        causal = torch.ones(len(own), len(own)).tril().bool()
        alone = toy_attention(table, places, own, torch.arange(len(own)), causal)
        close(packed[row][segments[row] == s], alone, f"the outputs of {own.tolist()} inside its packed row")


@exercise("pack_sequences")
@pytest.mark.parametrize("rows", [(), (3,), (2, 3)])
def test_segment_mask_by_brute_force(exercises, rng, rows):
    """Same segment and not later, or the position itself."""
    lengths = [rng.integers(1, 4, 4).tolist() for _ in range(math.prod(rows))]
    flat = [sum(([s] * n for s, n in enumerate(row, start=1)), []) for row in lengths]
    segments = torch.tensor([row[:11] + [0] * (13 - len(row[:11])) for row in flat])
    expected = torch.zeros(len(flat), 13, 13, dtype=torch.bool)
    for r, q, k in itertools.product(range(len(flat)), range(13), range(13)):
        own = segments[r, q] == segments[r, k] != 0 and k <= q
        expected[r, q, k] = bool(own) or q == k
    got = pure(exercises.segment_mask, segments.view(*rows, 13))
    exact(got, expected.view(*rows, 13, 13), f"segment_mask of {segments.view(*rows, 13).tolist()}")


# --- LoRALinear -------------------------------------------------------------------------------------------------------


@driver
def lora_start(module, weight, bias, r, alpha, x, g):
    """A fresh LoRALinear: its output, its parts, and the gradients of sum(output * g)."""
    import torch

    base = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
        if bias is not None:
            base.bias.copy_(bias)
    layer = module.LoRALinear(base, r, alpha)
    out = layer(x)
    (out * g).sum().backward()
    return {
        "out": out.detach(),
        "A": layer.A.detach(),
        "B": layer.B.detach(),
        "gA": layer.A.grad,
        "gB": layer.B.grad,
        "g_base": [p.grad is not None for p in layer.base.parameters()],
        "trainable": sorted(name for name, p in layer.named_parameters() if p.requires_grad),
        "all": sorted(name for name, _ in layer.named_parameters()),
        "kept": layer.base is base,
        "training": layer.training,
    }


@driver
def lora_steps(module, weight, bias, r, alpha, a, b, x, steps):
    """Set A and B, then after each step (merge, unmerge or nothing) give output, weight and bias of base."""
    import torch

    base = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
        if bias is not None:
            base.bias.copy_(bias)
    layer = module.LoRALinear(base, r, alpha)
    with torch.no_grad():
        layer.A.copy_(a)
        layer.B.copy_(b)
    seen = []
    for step in steps:
        if step:
            getattr(layer, step)()
        frozen = not any(p.requires_grad for p in base.parameters())
        kept_bias = None if base.bias is None else base.bias.detach().clone()
        seen.append((layer(x).detach(), base.weight.detach().clone(), kept_bias, frozen))
    return seen


def lora_inputs(rng, r=2, dtype=torch.float64):
    """Weight (6, 5), bias, A, B and x (3, 4, 5), all of them different sizes."""
    shapes = (6, 5), (6,), (r, 5), (6, r), (3, 4, 5)
    return [rng.normal(*shape).to(dtype) for shape in shapes]


@exercise("LoRALinear")
@pytest.mark.parametrize("r", [1, 3, 9])
def test_fresh_adapter_changes_nothing_but_can_learn(exercises, rng, r):
    """At the start the output is the base's, yet B has a gradient."""
    weight, bias, _, _, x = lora_inputs(rng)
    g = rng.normal(3, 4, 6)
    got = exercises.run(lora_start, weight, bias, r, 7.0, x, g)
    close(got["out"], F.linear(x, weight, bias), "the output of a fresh LoRALinear")
    exact(got["B"], torch.zeros(6, r, dtype=torch.float64), "B of a fresh LoRALinear")
    exact((got["A"].shape, got["A"].dtype), ((r, 5), torch.float64), "shape and dtype of A")
    holds(torch.linalg.matrix_rank(got["A"]).item() == min(r, 5), f"A has dependent rows: {got['A'].tolist()}")
    expected = 7.0 / r * torch.einsum("bto,bti,ri->or", g, x, got["A"])
    holds(expected.abs().max().item() > 1e-3, "A is too small to train B")
    close(got["gB"], expected, "the gradient of B at the start")
    close(got["gA"], torch.zeros(r, 5, dtype=torch.float64), "the gradient of A at the start")


@exercise("LoRALinear")
@pytest.mark.parametrize("with_bias", [True, False])
def test_only_a_and_b_train(exercises, rng, with_bias):
    """The base is the layer that was given, and it is frozen."""
    weight, bias, _, _, x = lora_inputs(rng, dtype=torch.float32)
    got = exercises.run(lora_start, weight, bias if with_bias else None, 2, 3.0, x, torch.ones(3, 4, 6))
    exact(got["trainable"], ["A", "B"], "the parameters that require a gradient")
    exact(got["all"], ["A", "B", "base.weight"][:2] + ["base.bias"] * with_bias + ["base.weight"], "all parameters")
    exact(
        (got["kept"], got["g_base"]), (True, [False] * (1 + with_bias)), "base is kept; its parameters have gradients"
    )
    exact((got["A"].dtype, got["B"].dtype), (torch.float32, torch.float32), "dtypes of A and B over a float32 base")


@exercise("LoRALinear")
@pytest.mark.parametrize(("r", "alpha"), [(1, 0.5), (2, 3.0), (4, 4), (8, 1.0), (3, 16.0)])
def test_lora_is_w_plus_scaled_ba(exercises, rng, r, alpha):
    """The output is W x + bias + (alpha / r) B A x."""
    weight, bias, a, b, x = lora_inputs(rng, r)
    full = weight + (alpha / r) * b @ a
    for given_bias in (bias, None):
        for inputs in (x, x[0], x[0, 0]):
            got = exercises.run(lora_steps, weight, given_bias, r, alpha, a, b, inputs, [""])
            what = f"LoRALinear with r={r}, alpha={alpha}, x of shape {tuple(inputs.shape)}"
            close(got[0][0], F.linear(inputs, full, given_bias), what)
            exact(got[0][1], weight, "base.weight before merge()")


@exercise("LoRALinear")
@pytest.mark.parametrize("with_bias", [True, False])
def test_merge_and_unmerge(exercises, rng, with_bias):
    """Merging twice is merging once, and unmerging takes it all back."""
    weight, bias, a, b, x = lora_inputs(rng, 2)
    bias, full = bias if with_bias else None, weight + 2.5 * b @ a
    steps = ["", "unmerge", "merge", "merge", "unmerge", "unmerge", "merge", "unmerge"]
    got = exercises.run(lora_steps, weight, bias, 2, 5.0, a, b, x, steps)
    merged = False
    for i, (step, (out, base, kept_bias, frozen)) in enumerate(zip(steps, got, strict=True)):
        merged = {"merge": True, "unmerge": False}.get(step, merged)
        close(out, F.linear(x, full, bias), f"the output after {steps[1 : i + 1]}")
        close(base, full if merged else weight, f"base.weight after {steps[1 : i + 1]}")
        holds(frozen, f"base requires a gradient after {steps[1 : i + 1]}")
        if with_bias:
            exact(kept_bias, bias, f"base.bias after {steps[1 : i + 1]}")


@driver
def lora_trained(module, weight, bias, r, alpha, a, b, x, steps):
    """Train every parameter that has a gradient; merge; give all that matters before and after."""
    import torch

    base = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
        base.bias.copy_(bias)
    layer = module.LoRALinear(base, r, alpha)
    with torch.no_grad():
        layer.A.copy_(a)
        layer.B.copy_(b)
    x = x.clone().requires_grad_(True)
    layer(x).square().sum().backward()
    first = (layer.A.grad.clone(), layer.B.grad.clone(), x.grad.clone())
    for _ in range(steps):
        layer.zero_grad()
        layer(x.detach()).square().sum().backward()
        with torch.no_grad():
            for p in layer.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad.sign()
    kept = (base.weight.detach().clone(), base.bias.detach().clone())
    out = layer(x).detach()
    layer.merge()
    return first, kept, layer.A.detach(), layer.B.detach(), out, layer(x).detach(), base.weight.detach().clone()


@exercise("LoRALinear")
def test_training_moves_only_the_adapter(exercises, rng):
    """Gradients are those of the formula; the base never moves."""
    weight, bias, a, b, x = lora_inputs(rng, 2)
    first, kept, new_a, new_b, out, merged, base = exercises.run(lora_trained, weight, bias, 2, 5.0, a, b, x, 5)
    leaves = [t.clone().requires_grad_(True) for t in (a, b, x)]
    full = weight + 2.5 * leaves[1] @ leaves[0]
    F.linear(leaves[2], full, bias).square().sum().backward()
    for name, got, leaf in zip("ABx", first, leaves, strict=True):
        close(got, leaf.grad, f"the gradient of {name}")
    exact(list(kept), [weight, bias], "weight and bias of base after training")
    holds(bool((new_a != a).any() and (new_b != b).any()), "training did not change both A and B")
    close(base, weight + 2.5 * new_b @ new_a, "base.weight merged after training")
    close(out, F.linear(x, base, bias), "the output after training")
    close(merged, out, "the output after training and merge()")
    exact(torch.linalg.matrix_rank(base - weight).item(), 2, "the rank of the merged update")


@driver
def two_loras(module, x):
    """Two layers and a copy by state_dict: do they share anything?"""
    import torch

    make = lambda: module.LoRALinear(torch.nn.Linear(5, 6, dtype=torch.float64), 2, 3.0)  # noqa: E731
    first, second, third = make(), make(), make()
    differ = bool((first.A != second.A).any())
    with torch.no_grad():
        first.B.normal_()
    second_b = second.B.detach().clone()
    with torch.no_grad():
        second.B.normal_()
    before = second(x).detach()
    first.merge()
    untouched = second(x).detach()
    first.unmerge()
    third.load_state_dict(first.state_dict())
    return differ, second_b, before, untouched, first(x).detach(), third(x).detach()


@exercise("LoRALinear")
def test_adapters_are_their_own(exercises, rng):
    """Two adapters share nothing, and a state_dict carries one over."""
    x = rng.normal(4, 5)
    differ, second_b, before, untouched, first, third = exercises.run(two_loras, x)
    holds(differ, "two fresh adapters have the same A")
    exact(second_b, torch.zeros(6, 2, dtype=torch.float64), "B of the second adapter after the first one's changed")
    exact(untouched, before, "the second layer's output after the first one was merged")
    close(third, first, "the output of a layer that loaded the first one's state_dict")


@driver
def lora_of_rank(module, name, r):
    """Build a layer of rank r."""
    import torch

    getattr(module, name)(torch.nn.Linear(3, 2), r, 1.0)


@exercise("LoRALinear")
@pytest.mark.parametrize("r", [0, -1])
def test_rank_below_one_is_refused(exercises, r):
    """A rank below 1 raises ValueError."""
    with pytest.raises(ValueError):
        exercises.run(lora_of_rank, "LoRALinear", r)


# --- inject_lora ------------------------------------------------------------------------------------------------------


@driver
def inject(module, weights, targets, r, alpha, x, fill):
    """Inject adapters into a small model with given weights; tell what became of it."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(5)
            self.attn = nn.ModuleDict({"q_proj": nn.Linear(5, 3), "kq_proj": nn.Linear(5, 3, bias=False)})
            self.attn["Q_proj"], self.attn["q_proj_b"] = nn.Linear(5, 3), nn.Linear(5, 3)
            self.mlp = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5))

        def forward(self, x):
            h = self.norm(x)
            return x + self.mlp(
                self.attn["q_proj"](h) * self.attn["kq_proj"](h) + self.attn["Q_proj"](h) * self.attn["q_proj_b"](h)
            )

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(4, 5)
            self.blocks = nn.ModuleList([Block(), Block()])
            self.extra = nn.ModuleDict({"q_proj": nn.LayerNorm(5)})
            self.head, self.lm_head = nn.Linear(5, 2), nn.Linear(5, 6)

        def forward(self, x):
            x = self.embed(x)
            for block in self.blocks:
                x = block(x)
            x = self.extra["q_proj"](x)
            return torch.cat([self.head(x), self.lm_head(x)], -1)

    def build():
        model = Model().double()
        model.load_state_dict(weights)
        return model

    if weights is None:
        return {name: tuple(t.shape) for name, t in Model().state_dict().items()}
    model = build()
    before = model(x).detach()
    try:
        count, error = module.inject_lora(model, targets, r, alpha), None
    except ValueError as raised:
        count, error = None, str(raised)
    told = {
        "count": count,
        "error": error,
        "before": before,
        "after": model(x).detach(),
        "trainable": sorted(name for name, p in model.named_parameters() if p.requires_grad),
        "replaced": sorted(
            name for name, m in model.named_modules() if "LoRALinear" in [c.__name__ for c in type(m).__mro__]
        ),
        "shapes": {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad},
    }
    if error is None and fill:
        gen = torch.Generator().manual_seed(fill)
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p.copy_(torch.randn(p.shape, generator=gen, dtype=p.dtype))
        adapters = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
        fresh = build()
        module.inject_lora(fresh, targets, r, alpha)
        left = fresh.load_state_dict(adapters, strict=False)
        told["filled"], told["loaded"] = model(x).detach(), fresh(x).detach()
        told["adapters"], told["unexpected"] = adapters, list(left.unexpected_keys)
        (model(x) ** 2).sum().backward()
        told["with_grad"] = sorted(name for name, p in model.named_parameters() if p.grad is not None)
        told["frozen"] = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}
    return told


def model_weights(exercises, rng):
    """Random weights for the model of `inject`, by name."""
    return {name: rng.normal(*shape) for name, shape in exercises.run(inject, None, [], 1, 1.0, None, 0).items()}


Q = ["blocks.0.attn.q_proj", "blocks.1.attn.q_proj"]
PLANS = {
    ("q_proj",): (Q, 3 + 5),
    ("head",): (["head"], 2 + 5),
    ("q_proj", "head"): ([*Q, "head"], None),
    ("0",): (["blocks.0.mlp.0", "blocks.1.mlp.0"], 3 + 7),
    ("lm_head", "2"): (["blocks.0.mlp.2", "blocks.1.mlp.2", "lm_head"], None),
    ("kq_proj",): (["blocks.0.attn.kq_proj", "blocks.1.attn.kq_proj"], 3 + 5),
}


@exercise("inject_lora")
@pytest.mark.parametrize("targets", PLANS, ids="+".join)
def test_exactly_the_named_layers_are_replaced(exercises, rng, targets):
    """A name matches whole, at any depth, and only linear layers."""
    where, width = PLANS[targets]
    got = exercises.run(inject, model_weights(exercises, rng), list(targets), 3, 6.0, rng.normal(2, 4), 0)
    exact(got["replaced"], sorted(where), f"the layers that are LoRALinear after inject_lora with {list(targets)}")
    exact(got["trainable"], sorted(f"{name}.{m}" for name in where for m in "AB"), "what trains")
    exact(got["count"], sum(math.prod(shape) for shape in got["shapes"].values()), "the number returned")
    if width:
        exact(got["count"], 3 * width * len(where), f"the number returned for {list(targets)} and r = 3")
    close(got["after"], got["before"], "the model's output right after inject_lora")


@exercise("inject_lora")
@pytest.mark.parametrize(("r", "alpha"), [(2, 5.0), (3, 1.0)])
def test_adapters_are_separate_and_scaled(exercises, rng, r, alpha):
    """Each layer has an adapter of its own with the scale alpha / r."""
    weights, x = model_weights(exercises, rng), rng.normal(2, 4)
    got = exercises.run(inject, weights, ["q_proj"], r, alpha, x, rng.seed % 10_000 + 1)
    merged = copy.deepcopy(weights)
    for name in Q:
        a, b = got["adapters"][f"{name}.A"], got["adapters"][f"{name}.B"]
        exact((a.shape, b.shape), ((r, 5), (3, r)), f"shapes of A and B of {name}")
        merged[f"{name}.weight"] = weights[f"{name}.weight"] + alpha / r * b @ a
    plain = exercises.run(inject, merged, ["head"], 1, 1.0, x, 0)["before"]
    close(got["filled"], plain, "the output with adapters, against the same model with the updates in its weights")


@exercise("inject_lora")
def test_adapters_travel(exercises, rng):
    """The adapters alone reproduce the output in a fresh model."""
    weights = model_weights(exercises, rng)
    got = exercises.run(inject, weights, ["q_proj", "lm_head"], 2, 3.0, rng.normal(2, 4), rng.seed % 10_000 + 1)
    exact(got["unexpected"], [], "names of adapters that a fresh model does not know")
    close(got["loaded"], got["filled"], "the output of the fresh model with the loaded adapters")
    holds(bool((got["filled"] - got["before"]).abs().max() > 1e-3), "filled adapters change nothing")
    exact(got["with_grad"], got["trainable"], "the parameters with a gradient")
    values = {name.replace(".base.", "."): tensor for name, tensor in got["frozen"].items()}
    exact(values, weights, "the frozen parameters")


@exercise("inject_lora")
@pytest.mark.parametrize("targets", [["proj"], ["q_proj", "nothing"], ["norm"], ["attn"], ["blocks.0.attn.q_proj"]])
def test_unknown_targets_change_nothing(exercises, rng, targets):
    """A target without a linear layer raises and leaves the model."""
    weights = model_weights(exercises, rng)
    got = exercises.run(inject, weights, targets, 2, 3.0, rng.normal(2, 4), 0)
    holds(got["error"] is not None, f"inject_lora with {targets} raised no ValueError")
    exact(got["replaced"], [], "the layers replaced")
    exact(got["trainable"], sorted(weights), "what trains after the error")


@exercise("inject_lora")
def test_fraction_counts_every_parameter(exercises, rng):
    """The share is adapters over all parameters, grouped heads too."""
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for targets in ([name] for name in names):
        check_fraction(exercises, dict(V=97, D=24, L=3, H=6, K=2, FF=40), targets, 5)
    for r in (1, 4, 13):
        check_fraction(exercises, dict(V=50, D=12, L=5, H=4, K=4, FF=20), rng.random.sample(names, 4), r)
    check_fraction(exercises, dict(V=11, D=8, L=1, H=8, K=1, FF=9), names, 2)
    check_fraction(exercises, dict(V=11, D=8, L=2, H=2, K=1, FF=9), [], 2)


def check_fraction(exercises, c, targets, r):
    """Build the shapes one by one and count."""
    d, kv = c["D"], c["K"] * (c["D"] // c["H"])
    per_layer = dict(q_proj=(d, d), k_proj=(d, kv), v_proj=(d, kv), o_proj=(d, d))
    per_layer |= dict(gate_proj=(d, c["FF"]), up_proj=(d, c["FF"]), down_proj=(c["FF"], d))
    base = adapters = 0
    for name in ["embed", "head", "norm"] + [*per_layer, "norm1", "norm2"] * c["L"]:
        base += math.prod(per_layer.get(name, (c["V"], d) if name in ("embed", "head") else (d,)))
        adapters += r * sum(per_layer[name]) if name in targets else 0
    cfg = dict(vocab_size=c["V"], d_model=d, n_layers=c["L"], n_heads=c["H"], n_kv_heads=c["K"], d_ff=c["FF"])
    got = exercises.trainable_fraction(cfg, targets, r)
    close(float(got), adapters / (adapters + base), f"trainable_fraction({cfg}, {targets}, {r})")


@exercise("inject_lora")
@pytest.mark.parametrize("targets", [["proj"], ["q_proj", "lm_head"], ["q"]])
def test_fraction_refuses_unknown_targets(exercises, targets):
    """A target that is none of the seven raises ValueError."""
    cfg = dict(vocab_size=11, d_model=8, n_layers=2, n_heads=2, n_kv_heads=1, d_ff=9)
    with pytest.raises(ValueError):
        exercises.trainable_fraction(cfg, targets, 2)


# --- quantize_nf4 -----------------------------------------------------------------------------------------------------


def nf4_levels():
    """The levels by their construction, float64."""
    offset, quantile = ((1 - 1 / 32) + (1 - 1 / 30)) / 2, NormalDist().inv_cdf
    probabilities = lambda n: torch.linspace(offset, 0.5, n + 1, dtype=torch.float64).tolist()[:-1]  # noqa: E731
    levels = [quantile(p) for p in probabilities(8)] + [0.0] + [-quantile(p) for p in probabilities(7)]
    return torch.tensor(sorted(levels), dtype=torch.float64) / quantile(offset)


@exercise("quantize_nf4")
def test_codebook_is_made_of_quantiles(exercises):
    """The levels are normal quantiles, eight above zero, seven below."""
    got = exercises.nf4_codebook()
    exact((got.dtype, got.shape), (torch.float32, (16,)), "dtype and shape of nf4_codebook()")
    roughly(got.double(), nf4_levels(), 1e-6, "nf4_codebook()")  # float32 and the rounded offset cost about 1e-7
    exact((got[0].item(), got[7].item(), got[15].item()), (-1.0, 0.0, 1.0), "levels 0, 7 and 15")


def check_nf4(exercises, x, block):
    """Quantise, and compare with nearest levels found block by block."""
    codes, absmax = pure(exercises.quantize_nf4, x, block)
    what = f"quantize_nf4 of a {tuple(x.shape)} tensor, block={block}"
    exact((codes.dtype, codes.shape), (torch.uint8, x.shape), f"dtype and shape of the codes of {what}")
    chunks = [x.reshape(-1)[i : i + block] for i in range(0, x.numel(), block)]
    exact(absmax, torch.stack([c.abs().max() for c in chunks]), f"absmax of {what}")
    levels, flat = nf4_levels(), codes.reshape(-1).long()
    holds(bool((flat <= 15).all()), f"a code above 15 in {what}")
    for i, chunk in enumerate(chunks):
        scaled = chunk.double() / (absmax[i].double() if absmax[i] > 0 else 1.0)
        distance = (scaled[:, None] - levels).abs()
        chosen = distance.gather(1, flat[i * block : i * block + len(chunk), None]).flatten()
        holds(bool((chosen <= distance.amin(1) + 1e-6).all()), f"a code of block {i} is not the nearest level: {what}")
    return codes, absmax


@exercise("quantize_nf4")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("shape", "block"), [((7, 30), 16), ((64,), 64), ((3, 5, 4), 7), ((5,), 64), ((4, 6), 1)])
def test_codes_are_the_nearest_levels(exercises, rng, shape, block, dtype):
    """Each code is the nearest level in its own block."""
    scales = 10.0 ** rng.uniform(*shape).mul(4).sub(2)
    check_nf4(exercises, (rng.normal(*shape) * scales).to(dtype), block)
    check_nf4(exercises, (rng.normal(*shape) - 3).to(dtype), block)


@exercise("quantize_nf4")
def test_default_block_is_sixty_four(exercises, rng):
    """Without a block, 64 numbers share a scale, both ways."""
    x = rng.normal(5, 29) * torch.linspace(1, 20, 145, dtype=torch.float64).view(5, 29)
    codes, absmax = exercises.quantize_nf4(x)
    exact((codes, absmax), exercises.quantize_nf4(x, block=64), "quantize_nf4 without a block")
    back = exercises.dequantize_nf4(codes, absmax)
    close(back, exercises.dequantize_nf4(codes, absmax, 64), "dequantize_nf4 without a block")


@exercise("quantize_nf4")
def test_blocks_follow_the_logical_order(exercises, rng):
    """A transposed tensor is quantised row by row as it reads."""
    x = rng.normal(6, 9)
    check_nf4(exercises, x.T, 4)
    check_nf4(exercises, x[:, ::2], 7)


@exercise("quantize_nf4")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dequantize_is_level_times_scale(exercises, rng, dtype):
    """Each number comes back as its level times its block's scale."""
    codes, absmax = rng.integers(0, 16, 5, 9).to(torch.uint8), (rng.uniform(7) + 0.1).to(dtype)
    got = pure(exercises.dequantize_nf4, codes, absmax, 7)
    exact((got.dtype, got.shape), (dtype, (5, 9)), "dtype and shape of dequantize_nf4")
    flat = codes.flatten().tolist()
    expected = [nf4_levels()[code] * absmax[i // 7].double() for i, code in enumerate(flat)]
    roughly(got.double().flatten(), torch.stack(expected), 2e-6, "dequantize_nf4")  # levels are float32, scales < 1.1


@driver
def there_and_back(module, jobs):
    """Quantise and dequantise each (x, block) twice."""
    told = []
    for x, block in jobs:
        codes, absmax = module.quantize_nf4(x, block)
        back = module.dequantize_nf4(codes, absmax, block)
        told.append((codes, absmax, back, *module.quantize_nf4(back, block)))
    return told


@exercise("quantize_nf4")
def test_quantising_again_changes_nothing(exercises, rng):
    """Quantising what was dequantised gives the same codes."""
    jobs = [(rng.normal(rng.random.randrange(1, 71)), block) for block in (1, 3, 16, 64) for _ in range(6)]
    for (x, block), told in zip(jobs, exercises.run(there_and_back, jobs), strict=True):
        codes, absmax, back, again, absmax2 = told
        where = torch.stack([c.abs().argmax() + i * block for i, c in enumerate(x.split(block))])
        exact(back[where], x[where], "the largest element of each block, there and back")
        exact(again, codes, "the codes of the dequantised tensor")
        exact(absmax2, absmax, "the absmax of the dequantised tensor")


@exercise("quantize_nf4")
def test_zeros_and_signs(exercises):
    """A block of zeros is code 7; signs pick the end of the table."""
    x = torch.tensor([0.0, 0.0, 0.0, -5.0, 0.0, 1.0, 5.0, -5.0, 0.0, -1e-30, 0.0, 0.0])
    codes, absmax = exercises.quantize_nf4(x, 3)
    exact(absmax, torch.tensor([0.0, 5.0, 5.0, 1e-30]), "absmax of blocks of three")
    exact([*codes[:5].tolist(), *codes[6:].tolist()], [7, 7, 7, 0, 7, 15, 0, 7, 0, 7, 7], "codes of blocks of three")
    back = exercises.dequantize_nf4(codes, absmax, 3)
    exact(back[:5], x[:5], "zeros and the extreme, there and back")


@exercise("quantize_nf4")
@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_nothing_quantises_to_nothing(exercises, shape):
    """An empty tensor gives empty codes and no scales."""
    codes, absmax = exercises.quantize_nf4(torch.zeros(shape), 4)
    exact((codes.shape, codes.dtype, absmax.shape), (shape, torch.uint8, (0,)), "the results for an empty tensor")
    exact(exercises.dequantize_nf4(codes, absmax, 4).shape, shape, "the shape of nothing, dequantised")


@exercise("quantize_nf4")
def test_outlier_harms_only_its_block(exercises, rng):
    """An outlier changes the codes of its own block alone."""
    x = rng.normal(40, 16)
    changed = x.clone()
    changed[7, 3] = 1e3
    (one, scale_one), (two, scale_two) = (exercises.quantize_nf4(t, 16) for t in (x, changed))
    others = torch.arange(40) != 7
    exact((two[others], scale_two[others]), (one[others], scale_one[others]), "the blocks without the outlier")
    holds(set(two[7].tolist()) == {7, 15}, f"the outlier's block has codes {two[7].tolist()}")


@exercise("quantize_nf4")
def test_normal_data_suits_nf4(exercises, rng):
    """NF4 beats even spacing on normal data and loses on uniform data."""
    even = torch.linspace(-1, 1, 16, dtype=torch.float64)
    errors = {}
    for name, x in (("normal", rng.normal(200, 64)), ("uniform", rng.uniform(200, 64) * 2 - 1)):
        nf4 = exercises.dequantize_nf4(*exercises.quantize_nf4(x))
        scale = x.abs().amax(1, keepdim=True)
        spaced = even[(x / scale).unsqueeze(-1).sub(even).abs().argmin(-1)] * scale
        errors[name] = ((nf4 - x).square().mean() / (spaced - x).square().mean()).item()
    holds(errors["normal"] < 0.9 and errors["uniform"] > 1.1, f"squared error, NF4 over evenly spaced: {errors}")


# --- double_quantize --------------------------------------------------------------------------------------------------


@exercise("double_quantize")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "block"), [(10, 4), (12, 4), (3, 256), (1, 5), (7, 1), (600, 256)])
def test_scales_survive_eight_bits(exercises, rng, n, block, dtype):
    """Steps, mean and integers follow the definition, ragged end too."""
    absmax = (rng.uniform(n) + 2 * torch.arange(n).div(block, rounding_mode="floor") % 5 + 0.2).to(dtype)
    q8, scale, mean = pure(exercises.double_quantize, absmax, block)
    what = f"of double_quantize of {n} scales, block={block}"
    exact((q8.dtype, q8.shape), (torch.int8, (n,)), f"dtype and shape of q8 {what}")
    close(mean, absmax.mean(), f"mean {what}")
    deviation = absmax - absmax.mean()
    steps = torch.stack([c.abs().max() / 127 for c in deviation.split(block)])
    close(scale, torch.where(steps == 0, torch.ones_like(steps), steps), f"scale {what}")
    holds(bool((scale > 0).all()) and int(q8.min()) >= -127, f"a step is not positive, or a code is -128, {what}")
    step = scale.repeat_interleave(block)[:n].double()
    error = (q8.double() * step + mean.double() - absmax.double()).abs()
    holds(bool((error <= step / 2 + 1e-6).all()), f"the largest error {error.max().item()} exceeds half a step {what}")


@exercise("double_quantize")
def test_largest_deviation_is_127(exercises, rng):
    """The largest deviation of each block is 127 or -127."""
    absmax = rng.uniform(40) + 1
    q8, _, _ = exercises.double_quantize(absmax, 8)
    exact(q8.view(5, 8).int().abs().amax(1), torch.full((5,), 127, dtype=torch.int32), "the largest |q8| of each block")
    exact(q8.view(5, 8).gt(0).any() and q8.lt(0).any(), True, "codes of both signs")


@exercise("double_quantize")
def test_values_round_to_the_nearest(exercises):
    """Deviations round to the nearest integer, below and above zero."""
    deviations = torch.tensor([-127.0, -64.6, -64.4, -0.6, -0.4, 0.4, 0.6, 64.4, 64.6, 127.0], dtype=torch.float64)
    q8, _, _ = exercises.double_quantize(deviations + 200, 10)
    exact(q8.tolist(), [-127, -65, -64, -1, 0, 0, 1, 64, 65, 127], "q8 of deviations with a step of 1")


@exercise("double_quantize")
def test_equal_scales_have_step_one(exercises):
    """A block without deviation has step 1 and codes 0."""
    q8, scale, mean = exercises.double_quantize(torch.full((7,), 0.25), 3)
    exact((q8.tolist(), scale.tolist(), mean.item()), ([0] * 7, [1.0] * 3, 0.25), "double_quantize of equal scales")
    q8, scale, _ = exercises.double_quantize(torch.tensor([2.0, 2.0, 1.0, 3.0, 2.0]), 2)
    exact((q8.tolist(), scale[[0, 2]].tolist()), ([0, 0, -127, 127, 0], [1.0, 1.0]), "two of three blocks equal")


@exercise("double_quantize")
def test_mean_is_one_for_all_blocks(exercises):
    """One mean serves every block; steps are the blocks' own."""
    absmax = torch.tensor([1.0, 3.0, 101.0, 103.0], dtype=torch.float64)
    q8, scale, mean = exercises.double_quantize(absmax, 2)
    close(mean, torch.tensor(52.0, dtype=torch.float64), "mean of 1, 3, 101, 103")
    close(scale, torch.tensor([51 / 127, 51 / 127], dtype=torch.float64), "scale of 1, 3 | 101, 103")
    exact(q8.tolist(), [-127, -122, 122, 127], "q8 of 1, 3 | 101, 103")
    other = exercises.double_quantize(torch.tensor([1.0, 3.0, 52.0, 152.0], dtype=torch.float64), 2)[1]
    close(other, torch.tensor([51 / 127, 100 / 127], dtype=torch.float64), "scale of 1, 3 | 52, 152")


@exercise("double_quantize")
def test_default_second_block_is_256(exercises, rng):
    """Without a block, 256 scales share a step."""
    absmax = rng.uniform(515) + torch.arange(515) / 100
    got, expected = exercises.double_quantize(absmax), exercises.double_quantize(absmax, 256)
    exact(got[1].shape, (3,), "the shape of scale for 515 values")
    exact([t.tolist() for t in got], [t.tolist() for t in expected], "double_quantize without a block")


@exercise("double_quantize")
def test_bits_follow_the_formula(exercises):
    """A weight pays its code and its share of both kinds of scales."""
    for block, block2 in ((64, 256), (32, 256), (128, 64), (16, 8), (1, 1)):
        got = exercises.qlora_bits(block, block2)
        close(got, 4 + 8 / block + 32 / block / block2, f"qlora_bits({block}, {block2})")
    for block in (16, 64, 128):
        close(exercises.qlora_bits(block, None), 4 + 32 / block, f"qlora_bits({block}, None)")


# --- QLoRALinear ------------------------------------------------------------------------------------------------------


@driver
def qlora_run(module, weight, bias, r, alpha, block, a, b, x, steps):
    """Build a QLoRALinear, set A and B if given, train it, and tell all that can be told as data."""
    import torch

    base = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        base.weight.copy_(weight)
        if bias is not None:
            base.bias.copy_(bias)
    layer = module.QLoRALinear(base, r, alpha) if block is None else module.QLoRALinear(base, r, alpha, block)
    told = {"start": layer(x).detach(), "A0": layer.A.detach().clone(), "B0": layer.B.detach().clone()}
    other = module.QLoRALinear(base, r, alpha)
    told["A_other"] = other.A.detach().clone()
    if a is not None:
        with torch.no_grad():
            layer.A.copy_(a)
            layer.B.copy_(b)
    told["codes"], told["absmax"] = layer.codes.clone(), layer.absmax.clone()
    told["trainable"] = sorted(name for name, p in layer.named_parameters() if p.requires_grad)
    told["buffers"] = sorted(name for name, _ in layer.named_buffers())
    kept = [*layer.state_dict().values(), *(v for v in vars(layer).values() if isinstance(v, torch.Tensor))]
    told["float_sizes"] = [t.numel() for t in kept if t.is_floating_point()]
    told["state"] = sorted(layer.state_dict())
    x = x.clone().requires_grad_(True)
    out = layer(x)
    out.square().sum().backward()
    told["out"], told["repeat"] = out.detach(), layer.eval()(x).detach()
    told["grads"] = (layer.A.grad.clone(), layer.B.grad.clone(), x.grad.clone())
    layer.train()
    for _ in range(steps):
        layer.zero_grad()
        layer(x.detach()).square().sum().backward()
        with torch.no_grad():
            for p in layer.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad.sign()
    told["A"], told["B"] = layer.A.detach().clone(), layer.B.detach().clone()
    told["trained"] = layer(x).detach()
    told["codes_after"], told["absmax_after"] = layer.codes.clone(), layer.absmax.clone()
    with torch.no_grad():
        base.weight.zero_()
    told["alone"] = layer(x).detach()
    base_state = [p.detach().clone() for p in base.parameters()]
    fresh = module.QLoRALinear(base, r, alpha) if block is None else module.QLoRALinear(base, r, alpha, block)
    fresh.load_state_dict(layer.state_dict())
    told["reloaded"], told["bias"] = fresh(x).detach(), base_state[1:]
    return told


def nf4_there_and_back(weight, block):
    """The weight that four bits keep, by brute force."""
    levels, flat = nf4_levels().float().to(weight.dtype), weight.reshape(-1)
    pieces = []
    for chunk in flat.split(block):
        scale = chunk.abs().max()
        pieces.append(levels[(chunk[:, None] / scale - levels).abs().argmin(1)] * scale)
    return torch.cat(pieces).view(weight.shape)


def qlora_inputs(rng, r, dtype=torch.float64):
    """Weight (6, 11), bias, A, B and x (3, 4, 11)."""
    return [rng.normal(*shape).to(dtype) for shape in ((6, 11), (6,), (r, 11), (6, r), (3, 4, 11))]


@exercise("QLoRALinear")
@pytest.mark.parametrize(("r", "alpha", "block"), [(2, 5.0, 8), (1, 0.5, 5), (3, 3.0, None), (4, 1.0, 11)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_qlora_output_follows_the_formula(exercises, rng, r, alpha, block, with_bias):
    """The output is the 4-bit weight's plus bias plus (alpha / r) B A x."""
    weight, bias, a, b, x = qlora_inputs(rng, r)
    bias = bias if with_bias else None
    kept = nf4_there_and_back(weight, block or 64)
    got = exercises.run(qlora_run, weight, bias, r, alpha, block, a, b, x, 0)
    what = f"QLoRALinear with r={r}, alpha={alpha}, block={block}"
    roughly(got["start"], F.linear(x, kept, bias), 1e-5, f"the output of a fresh {what}")  # float32 levels: 1e-7 each
    roughly(got["out"], F.linear(x, kept + alpha / r * b @ a, bias), 1e-5, f"the output of {what}")
    exact(got["repeat"], got["out"], "the same output in eval mode")
    close(got["alone"], got["trained"], "the output after the given layer's weight is zeroed")
    close(got["reloaded"], got["trained"], "the output of a layer that loaded the state_dict")


@exercise("QLoRALinear")
@pytest.mark.parametrize("with_bias", [True, False])
def test_qlora_keeps_codes_and_no_float_weight(exercises, rng, with_bias):
    """Codes and scales are buffers; no float copy of the weight stays."""
    weight, bias, a, b, x = qlora_inputs(rng, 2, torch.float32)
    got = exercises.run(qlora_run, weight, bias if with_bias else None, 2, 3.0, 8, a, b, x, 0)
    exact((got["codes"], got["absmax"]), exercises.quantize_nf4(weight, 8), "codes and absmax of the layer")
    holds({"codes", "absmax"} <= set(got["buffers"]), f"the buffers are {got['buffers']}")
    exact(got["trainable"], ["A", "B"], "the parameters that require a gradient")
    holds(weight.numel() not in got["float_sizes"], f"a float tensor of the weight's size is kept: {got['state']}")
    exact((got["A0"].dtype, got["A0"].shape, got["B0"]), (torch.float32, (2, 11), torch.zeros(6, 2)), "A and B, fresh")
    holds(bool((got["A0"] != got["A_other"]).any()), "two fresh layers have the same A")
    exact(got["start"].dtype, torch.float32, "the dtype of the output of a float32 layer")


@exercise("QLoRALinear")
def test_qlora_gradients_go_through_the_dequantised_weight(exercises, rng):
    """A, B and x get the gradients of the formula."""
    weight, bias, a, b, x = qlora_inputs(rng, 2)
    got = exercises.run(qlora_run, weight, bias, 2, 5.0, 8, a, b, x, 0)
    leaves = [t.clone().requires_grad_(True) for t in (a, b, x)]
    full = nf4_there_and_back(weight, 8) + 2.5 * leaves[1] @ leaves[0]
    F.linear(leaves[2], full, bias).square().sum().backward()
    for name, grad, leaf in zip("ABx", got["grads"], leaves, strict=True):
        roughly(
            grad / leaf.grad.abs().max(), leaf.grad / leaf.grad.abs().max(), 1e-5, f"the gradient of {name}, scaled"
        )


@exercise("QLoRALinear")
def test_training_leaves_the_four_bits(exercises, rng):
    """Codes and scales stay bit for bit while A and B learn."""
    weight, bias, a, b, x = qlora_inputs(rng, 2)
    got = exercises.run(qlora_run, weight, bias, 2, 5.0, 8, a, b, x, 6)
    exact((got["codes_after"], got["absmax_after"]), (got["codes"], got["absmax"]), "codes and absmax after training")
    holds(bool((got["A"] != a).any() and (got["B"] != b).any()), "training did not change both A and B")
    full = nf4_there_and_back(weight, 8) + 2.5 * got["B"] @ got["A"]
    roughly(got["trained"], F.linear(x, full, bias), 1e-5, "the output after training")


@exercise("QLoRALinear")
@pytest.mark.parametrize("r", [0, -1])
def test_qlora_refuses_rank_below_one(exercises, r):
    """A rank below 1 raises ValueError here too."""
    with pytest.raises(ValueError):
        exercises.run(lora_of_rank, "QLoRALinear", r)


@driver
def read_only(module, weight, x):
    """Does building a QLoRALinear change the layer it reads?"""
    import torch

    base = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        base.weight.copy_(weight)
    layer = module.QLoRALinear(base, 2, 3.0, 8)
    layer(x).sum().backward()
    return base.weight.detach().clone(), base.weight.requires_grad, base.weight.grad is None


@exercise("QLoRALinear")
def test_given_layer_is_only_read(exercises, rng):
    """The given layer keeps its weight and may still be trained."""
    weight = rng.normal(6, 11).float()
    got = exercises.run(read_only, weight, rng.normal(3, 11).float())
    exact(got, (weight, True, True), "weight, requires_grad and absence of a gradient of the given layer")


@driver
def tune(module, weights, data, method, options, seed):
    """Build a nested classifier with dropout and one frozen bias, fine-tune it, and tell whether it changed."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.ModuleDict({"up": nn.Linear(6, 12), "norm": nn.LayerNorm(12)})
            self.drop = nn.Dropout(0.5 if options.get("dropout") else 0.0)
            self.out = nn.Sequential(nn.Tanh(), nn.Linear(12, 3))

        def forward(self, x):
            return self.out(self.drop(self.inner["norm"](self.inner["up"](x))))

    model = Net().double()
    model.load_state_dict(weights)
    model.inner["up"].bias.requires_grad_(False)
    torch.manual_seed(seed)
    metrics = module.finetune_toy(model, data, method, **{k: v for k, v in options.items() if k != "dropout"})
    unchanged = all(torch.equal(t, weights[name]) for name, t in model.state_dict().items())
    flags = [p.requires_grad for p in model.parameters()]
    return metrics, unchanged, model.training, flags.count(False), sorted(model.state_dict()) == sorted(weights)


SHAPES = {"inner.up.weight": (12, 6), "inner.up.bias": (12,), "inner.norm.weight": (12,), "inner.norm.bias": (12,)}
SHAPES |= {"out.1.weight": (3, 12), "out.1.bias": (3,)}


def tune_inputs(rng):
    """Weights by name, and two tasks with different rules and sizes."""
    weights = {name: rng.normal(*shape) / math.sqrt(shape[-1]) for name, shape in SHAPES.items()}
    rules = {"old": rng.normal(6, 3), "new": rng.normal(6, 3)}
    data = {task: (x := rng.normal(n, 6), (x @ rules[task]).argmax(1)) for task, n in (("old", 50), ("new", 70))}
    return weights, data


def forward(weights, x):
    """The network of `tune` in eval mode."""
    h = F.linear(x, weights["inner.up.weight"], weights["inner.up.bias"])
    h = F.layer_norm(h, (12,), weights["inner.norm.weight"], weights["inner.norm.bias"])
    return F.linear(h.tanh(), weights["out.1.weight"], weights["out.1.bias"])


def losses(weights, data):
    """Mean cross-entropy of each task."""
    return {task: F.cross_entropy(forward(weights, x), y).item() for task, (x, y) in data.items()}


TRAINABLE = {"full": 6 * 12 + 12 + 24 + 12 * 3 + 3, "lora": 2 * (6 + 12 + 12 + 3), "qlora": 2 * (6 + 12 + 12 + 3)}


@exercise("QLoRALinear")
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_without_steps_only_quantisation_costs(exercises, rng, method):
    """With no steps, losses are those of the model as it stands."""
    weights, data = tune_inputs(rng)
    got, *_ = exercises.run(tune, weights, data, method, {"steps": 0, "r": 2}, 1)
    before, after = losses(weights, data), dict(weights)
    if method == "qlora":
        after |= {name: nf4_there_and_back(w, 64) for name, w in weights.items() if w.dim() == 2}
    after = losses(after, data)
    keys = ["new_after", "new_before", "old_after", "old_before", "trainable"]
    exact(sorted(got), keys, "the names of the metrics")
    exact((type(got["trainable"]), got["trainable"]), (int, TRAINABLE[method]), f"trainable for {method}, r = 2")
    for task in ("old", "new"):
        roughly(got[f"{task}_before"], before[task], 1e-9, f"{task}_before of {method}")  # float64, the same sums
        roughly(got[f"{task}_after"], after[task], 1e-6, f"{task}_after of {method} with 0 steps")  # float32 levels


@exercise("QLoRALinear")
@pytest.mark.parametrize(("steps", "lr"), [(1, 0.1), (6, 0.03)])
def test_full_training_is_adam(exercises, rng, steps, lr):
    """Full fine-tuning takes Adam's steps on the new task."""
    weights, data = tune_inputs(rng)
    leaves = {name: w.clone().requires_grad_(True) for name, w in weights.items()}
    optimizer = torch.optim.Adam(leaves.values(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(forward(leaves, data["new"][0]), data["new"][1]).backward()
        optimizer.step()
    got, *_ = exercises.run(tune, weights, data, "full", {"steps": steps, "lr": lr}, 2)
    expected = losses(leaves, data)
    for task in ("old", "new"):  # float64; Adam's first steps magnify rounding of tiny gradients
        roughly(got[f"{task}_after"], expected[task], 1e-6, f"{task}_after of {steps} steps of full training")


@exercise("QLoRALinear")
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_finetuning_learns_and_leaves_the_model(exercises, rng, method):
    """The new loss halves, the given model stays as it was."""
    weights, data = tune_inputs(rng)
    got, unchanged, training, frozen, same_names = exercises.run(
        tune, weights, data, method, {"steps": 25, "lr": 0.1}, 3
    )
    holds(got["new_after"] < got["new_before"] / 2, f"{method}: {got['new_before']} before, {got['new_after']} after")
    exact((unchanged, training, frozen, same_names), (True, True, 1, True), f"the given model after {method}")
    holds(all(type(v) is float for k, v in got.items() if k != "trainable"), f"metrics are not floats: {got}")


@exercise("QLoRALinear")
def test_options_reach_the_adapters(exercises, rng):
    """Rank, alpha, rate and steps all change the result."""
    weights, data = tune_inputs(rng)
    options = {"steps": 3, "lr": 0.05, "r": 2, "alpha": 4.0}
    changes = [{}, {"steps": 4}, {"lr": 0.02}, {"alpha": 9.0}, {"r": 5}]
    for method in ("lora", "qlora"):
        results = [exercises.run(tune, weights, data, method, options | c, 4)[0] for c in changes]
        exact(len({got["new_after"] for got in results}), 5, f"different new_after of {method} for {changes}")
        counts = [r * (6 + 12 + 12 + 3) for r in (2, 2, 2, 2, 5)]
        exact([got["trainable"] for got in results], counts, f"trainable of {method} for {changes}")


@exercise("QLoRALinear")
def test_defaults_are_as_declared(exercises, rng):
    """Without options: 100 steps, rate 0.02, rank 4, alpha 8."""
    weights, data = tune_inputs(rng)
    stated = {"steps": 3, "lr": 0.02, "r": 4, "alpha": 8.0}
    one, two = (exercises.run(tune, weights, data, "qlora", options, 8)[0] for options in ({"steps": 3}, stated))
    roughly(one, two, 1e-9, "finetune_toy with qlora and steps alone")  # the same seed, the same sums
    # at a tiny rate the loss falls in proportion to the steps, to about 1e-4
    runs = [exercises.run(tune, weights, data, "full", {"lr": 1e-6} | options, 8)[0] for options in ({}, {"steps": 10})]
    one, two = (got["new_before"] - got["new_after"] for got in runs)
    roughly(one / two, 10.0, 0.03, "the fall of the loss without steps, over that of 10 steps")


@exercise("QLoRALinear")
@pytest.mark.parametrize("method", ["full", "lora"])
def test_losses_are_measured_in_eval_mode(exercises, rng, method):
    """Dropout is off while measuring and on while training."""
    weights, data = tune_inputs(rng)
    got, *_ = exercises.run(tune, weights, data, method, {"dropout": True, "steps": 0}, 5)
    for task, expected in losses(weights, data).items():
        roughly(got[f"{task}_before"], expected, 1e-9, f"{task}_before with dropout in the model")
        roughly(got[f"{task}_after"], expected, 1e-9, f"{task}_after of no steps with dropout in the model")
    options = {"dropout": True, "steps": 2}
    one, two = (exercises.run(tune, weights, data, method, options, seed)[0]["new_after"] for seed in (6, 7))
    plain = exercises.run(tune, weights, data, method, {"steps": 2}, 6)[0]["new_after"]
    holds(one != plain and one != two, "dropout had no effect while training")


@exercise("QLoRALinear")
def test_unknown_method_is_refused(exercises, rng):
    """A method that is none of the three raises ValueError."""
    weights, data = tune_inputs(rng)
    with pytest.raises(ValueError):
        exercises.run(tune, weights, data, "LoRA", {"steps": 1}, 0)
