"""The whole contract of chapter 23, against a forward pass of its own, brute force, least squares and planted truth."""

import math

import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, dataset, driver, exact, exercise, holds, numerical_gradient, pure, roughly

DOUBLE = torch.float64
tiny = dataset("tiny_models")


def some_model(exercises, rng, dtype=DOUBLE, **changes):
    """A model with random parameters, none of them neutral: the student's handle, its config, its parameters."""
    config = {"V": 11, "D": 12, "H": 3, "L": 2, "d_mlp": 10, "T_max": 9, "eps": 1e-2} | changes
    params = {}
    for name, shape in tiny.shapes(config).items():
        noise = rng.normal(*shape).to(dtype)
        if len(shape) == 2:
            params[name] = noise if name in ("tokens.weight", "positions.weight") else 0.4 * noise
        else:
            params[name] = 0.5 * noise + float("norm" in name and name.endswith("weight"))
    return loaded(exercises, config, params), config, params


def loaded(exercises, config, params):
    """A TinyGPT of the student's module with these parameters."""
    model = exercises.TinyGPT(**config)
    if params["norm.weight"].dtype == DOUBLE:
        model.double()
    model.load_state_dict(params)
    return model


def read_out(config, params, x):
    """The final norm and the unembedding of a state."""
    h = F.layer_norm(x, x.shape[-1:], params["norm.weight"], params["norm.bias"], config["eps"])
    return F.linear(h, params["unembed.weight"], params["unembed.bias"])


def boundaries(config):
    """The sites of the residual stream, from the embedding to the last block."""
    return ["embed", *(f"blocks.{layer}" for layer in range(config["L"]))]


@driver
def aftermath(module, config, params, name, jobs):
    """Call a function of the model with each set of arguments; tell what it raised, and what it left behind."""
    import torch

    def boom(*_):
        raise ZeroDivisionError("raised on purpose")

    def armed(argument):
        if isinstance(argument, dict):
            return {key: armed(value) for key, value in argument.items()}
        return {"boom": boom, "none": lambda x: None}.get(argument, argument) if isinstance(argument, str) else argument

    model = module.TinyGPT(**config)
    model.load_state_dict(params)
    model.norm.eval()
    model.unembed.bias.requires_grad_(False)
    state = lambda: (  # noqa: E731
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        [p.grad is None for p in model.parameters()],
        [p.detach().clone() for p in model.parameters()],
    )
    told, before = [], state()
    for job in jobs:
        raised, out = "", None
        try:
            out = getattr(module, name)(model, *map(armed, job))
        except Exception as error:
            raised = type(error).__name__
        after = state()
        results = list(out.values()) if isinstance(out, dict) else [out]
        told.append(
            {
                "raised": raised,
                "hooks": sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()),
                "kept": before[:3] == after[:3] and all(map(torch.equal, before[3], after[3])),
                "graph": any(isinstance(x, torch.Tensor) and x.requires_grad for x in results),
                "grad_mode": torch.is_grad_enabled(),
            }
        )
    return told


def leaves_no_trace(exercises, rng, name, jobs, raised):
    """Assert that after each job the model is as it was, and that the job raised what it should."""
    _, config, params = some_model(exercises, rng, torch.float32)
    told = exercises.run(aftermath, config, params, name, jobs)
    for job, expected, seen in zip(jobs, raised, told, strict=True):
        case = f"{name} that " + (f"raises {expected}" if expected else "succeeds")
        holds(seen["raised"] == expected, f"{case}: arguments {len(job)}, it raised {seen['raised'] or 'nothing'}.")
        holds(seen["hooks"] == 0, f"{case} must leave no hook on the model; it left {seen['hooks']}.")
        holds(seen["kept"], f"{case} must leave parameters, gradients and modes as they were.")
        holds(not seen["graph"], f"{case} must give a result without a graph.")
        holds(seen["grad_mode"], f"{case} must leave gradients switched on for the rest of the program.")


# --- run_with_hooks, logit_lens ---------------------------------------------------------------------------------------


@exercise("logit_lens", weight=2)
def test_functions_see_their_own_site(exercises, rng):
    """Each function is called once, with what comes out at its own site."""
    model, config, params = some_model(exercises, rng)
    ids = rng.integers(0, 11, 2, 7)
    expected = tiny.forward(config, params, ids)
    listeners = {site: counting(lambda x: None) for site in expected if site != "logits"}
    logits = exercises.run_with_hooks(model, ids, listeners)
    for site, listener in listeners.items():
        exact(listener.calls, 1, f"calls of the function at {site}")
        close(listener.arguments[0][0], expected[site], f"what the function at {site} was given")
    close(logits, expected["logits"], "the logits of a run in which functions only listen")


@exercise("logit_lens", weight=2)
def test_what_a_function_returns_replaces_the_output(exercises, rng):
    """The model goes on with what a function returns."""
    model, config, params = some_model(exercises, rng)
    ids = rng.integers(0, 11, 2, 7)
    expected = tiny.forward(config, params, ids, {"embed": lambda x: x.flip(1)})["logits"]
    got = exercises.run_with_hooks(model, ids, {"embed": lambda x: x.flip(1)})
    close(got, expected, "the logits of a run with the stream turned round")
    edits = {"blocks.0.attn": lambda x: 2 * x, "embed": lambda x: x.flip(1), "blocks.1.mlp": lambda x: x - 1}
    expected = tiny.forward(config, params, ids, edits)["logits"]
    close(exercises.run_with_hooks(model, ids, edits), expected, "the logits of a run with three replacements")
    close(exercises.run_with_hooks(model, ids, {}), tiny.forward(config, params, ids)["logits"], "a run without hooks")


@exercise("logit_lens")
def test_an_unknown_site_is_refused_before_the_run(exercises, rng):
    """An unknown site is a ValueError, and no function is called."""
    model, *_ = some_model(exercises, rng)
    listener = counting(lambda x: None)
    for site in ("blocks.2", "blocks.0.mpl", "logits"):
        with pytest.raises(ValueError):
            exercises.run_with_hooks(model, torch.tensor([[1, 2]]), {"embed": listener, site: listener})
    exact(listener.calls, 0, "calls of a function beside an unknown site")


@exercise("logit_lens", weight=2)
def test_a_run_with_hooks_leaves_no_trace(exercises, rng):
    """No hook, graph or mode stays behind, whatever was raised."""
    ids, alien = torch.tensor([[3, 1, 2]]), torch.tensor([[3, 99, 2]])
    jobs = [
        (ids, {"blocks.0": "none", "embed": "none"}),
        (ids, {"embed": "none", "blocks.1.attn": "boom", "blocks.1": "none"}),
        (ids, {"embed": "none", "nowhere": "none"}),
        (alien, {"blocks.0": "none"}),
        (ids, {}),
    ]
    leaves_no_trace(exercises, rng, "run_with_hooks", jobs, ["", "ZeroDivisionError", "ValueError", "IndexError", ""])


@exercise("logit_lens", weight=2)
def test_lens_reads_every_state(exercises, rng):
    """Each slice is the final norm and the unembedding of one residual state."""
    for changes in ({}, {"L": 3, "d_mlp": 0, "H": 2}, {"L": 0}, {"L": 1, "eps": 0.5}):
        model, config, params = some_model(exercises, rng, **changes)
        ids = rng.integers(0, 11, 2, 5)
        seen = tiny.forward(config, params, ids)
        expected = torch.stack([read_out(config, params, seen[site]) for site in boundaries(config)])
        close(exercises.logit_lens(model, ids), expected, f"logit_lens of a model with {config['L']} blocks")


@exercise("logit_lens")
def test_lens_ends_with_the_models_own_logits(exercises, rng):
    """The last slice equals the logits of a trained model, float32."""
    config, params = tiny.load("names")
    model = loaded(exercises, config, params)
    ids, answer, _ = tiny.introductions(rng.seed, 40)
    lens = exercises.logit_lens(model, ids)
    roughly(lens[-1], model(ids), 1e-4, "the last slice of the lens")  # logits up to 15 in float32
    right = (lens[:, :, -1].argmax(-1) == answer).double().mean(1)
    holds(right[-1] > 0.95 and right[0] < 0.5, "Read behind the embedding alone, the answer must not be there yet.")


@exercise("logit_lens")
def test_lens_leaves_no_trace(exercises, rng):
    """The lens leaves the model as it was, also when the run raises."""
    jobs = [(torch.tensor([[3, 1, 2]]),), (torch.tensor([[3, 11]]),), (torch.tensor([[1]]),)]
    leaves_no_trace(exercises, rng, "logit_lens", jobs, ["", "IndexError", ""])


# --- train_probe, probe_selectivity -----------------------------------------------------------------------------------


def ridge(H, y, l2, C=None):
    """The same minimum as an ordinary least-squares problem: one more row for each penalised weight."""
    n, d = H.shape
    A = torch.cat([torch.cat([H, torch.ones(n, 1, dtype=H.dtype)], 1), math.sqrt(l2) * torch.eye(d, d + 1).to(H)])
    Y = torch.cat([F.one_hot(y, C or int(y.max()) + 1).to(H), torch.zeros(d, C or int(y.max()) + 1).to(H)])
    W = torch.linalg.lstsq(A, Y, driver="gelsd").solution
    return W[:d], W[d]


@exercise("train_probe", weight=2)
def test_probe_is_the_minimum(exercises, rng):
    """W and b are those of an equivalent least-squares problem."""
    for n, d, C, l2 in ((30, 4, 3, 2.5), (23, 5, 2, 0.1), (6, 9, 4, 1.0), (2, 3, 2, 0.7)):
        H = 1.5 * rng.normal(n, d) + torch.linspace(-2, 5, d, dtype=DOUBLE)
        y = torch.cat([torch.tensor([C - 1, 0]), rng.integers(0, C, n - 2)])
        close(pure(exercises.train_probe, H, y, l2), ridge(H, y, l2), f"train_probe of H ({n}, {d}), l2={l2}")


@exercise("train_probe")
def test_probe_bias_is_free(exercises, rng):
    """A strong penalty leaves W near zero and b at the shares of the classes."""
    H, y = rng.normal(20, 3) + 50, torch.tensor([0] * 12 + [1] * 3 + [2] * 5)
    W, b = exercises.train_probe(H, y, 1e9)
    # W is about 1e-7, times activations of 50
    roughly(H @ W + b, torch.tensor([[0.6, 0.15, 0.25]], dtype=DOUBLE).expand(20, 3), 1e-4, "predictions, l2=1e9")
    shifted, b_shifted = exercises.train_probe(H - 50, y, 3.0)
    W, b = exercises.train_probe(H, y, 3.0)
    close(W, shifted, "W after a constant was added to all activations")
    close(b, b_shifted - 50 * shifted.sum(0), "b after a constant was added to all activations")


@exercise("train_probe")
def test_probe_keeps_a_class_without_examples(exercises, rng):
    """There is a column for every class up to the largest, even an empty one."""
    H, y = rng.normal(9, 2), torch.tensor([3, 0, 0, 3, 1, 0, 1, 3, 0])
    W, b = exercises.train_probe(H, y, 0.5)
    close((W, b), ridge(H, y, 0.5), "train_probe with an empty class 2")
    roughly(W[:, 2], torch.zeros(2, dtype=DOUBLE), 1e-12, "the column of the empty class")


@exercise("train_probe")
def test_probe_turns_with_the_activations(exercises, rng):
    """Rotating all activations rotates W and changes no prediction."""
    H, y = rng.normal(25, 4), rng.integers(0, 3, 25)
    Q = torch.linalg.qr(rng.normal(4, 4)).Q
    W, b = exercises.train_probe(H, y, 1.3)
    close(exercises.train_probe(H @ Q, y, 1.3), (Q.T @ W, b), "W and b of rotated activations")


@exercise("train_probe")
def test_probe_keeps_the_dtype(exercises, rng):
    """float32 activations give float32 weights."""
    H, y = rng.normal(40, 3).float(), rng.integers(0, 3, 40)
    W, b = ridge(H.double(), y, 4.0)
    close(exercises.train_probe(H, y, 4.0), (W.float(), b.float()), "train_probe of float32 activations")


@exercise("train_probe", weight=2)
def test_selectivity_judges_on_the_second_half(exercises, rng):
    """Both accuracies are those on rows that the probes were not fitted to."""
    for n, d, l2 in ((41, 6, 1.0), (60, 25, 0.05), (31, 3, 30.0)):
        H = rng.normal(n, d) + 1
        y, control = ((H @ rng.normal(d, 3) + rng.normal(n, 3)).argmax(1) for _ in range(2))
        expected = {}
        for name, labels in (("task", y), ("control", control)):
            W, b = ridge(H[: n // 2], labels[: n // 2], l2, 3)
            expected[name] = ((H[n // 2 :] @ W + b).argmax(1) == labels[n // 2 :]).double().mean().item()
        expected["selectivity"] = expected["task"] - expected["control"]
        got = pure(exercises.probe_selectivity, H, y, control, *([] if l2 == 1.0 else [l2]))  # 1 is the default
        roughly(got, expected, 1e-12, f"probe_selectivity of H ({n}, {d}), l2={l2}")


@exercise("train_probe")
def test_selectivity_tells_knowledge_from_memory(exercises, rng):
    """Labels that are there are found; random ones stay at chance."""
    H = rng.normal(800, 5)
    y, control = (H[:, 1] - H[:, 3] > 0).long(), rng.integers(0, 2, 800)
    got = exercises.probe_selectivity(H, y, control)
    # 400 rows leave an error of about 0.04, spread 0.01
    holds(got["task"] > 0.85, f"A label that is linear in H is found; task was {got['task']:.3f}.")
    # 400 coins: standard deviation 0.025, and 0.125 are five of them
    holds(abs(got["control"] - 0.5) < 0.125, f"Coins cannot be predicted; control was {got['control']:.3f}.")


@exercise("train_probe")
def test_selectivity_with_more_columns_than_rows(exercises, rng):
    """A probe that could learn its rows by heart gets nothing for that."""
    H, y = rng.normal(120, 150), rng.integers(0, 2, 120)
    got = exercises.probe_selectivity(H, y, 1 - y, l2=1e-3)
    # 60 coins: standard deviation 0.065
    holds(got["task"] < 0.83 and got["control"] < 0.83, "Rows that a probe was fitted to must not be judged.")
    roughly(got["selectivity"], 0.0, 1e-12, "selectivity for labels and the same labels exchanged")


@exercise("train_probe")
def test_selectivity_of_a_class_that_comes_late(exercises, rng):
    """A class that only the second half has is never predicted."""
    H = 0.1 * rng.normal(9, 2) + torch.tensor([[3.0, 0], [0, 3.0]], dtype=DOUBLE)[[0, 1, 0, 1, 0, 1, 0, 1, 1]]
    y = torch.tensor([0, 1, 0, 1, 0, 1, 2, 1, 1])
    got = exercises.probe_selectivity(H, y, torch.zeros(9, dtype=torch.long), l2=0.1)
    close(got, {"task": 0.8, "control": 1.0, "selectivity": 0.8 - 1.0}, "probe_selectivity with a late class")


# --- direct_logit_attribution -----------------------------------------------------------------------------------------


def attributed(config, params, ids, token):
    """Each component by its definition, from a forward pass of the test's own."""
    seen = tiny.forward(config, params, ids)
    x = seen[boundaries(config)[-1]]
    scale = (x.var(-1, unbiased=False, keepdim=True) + config["eps"]).sqrt()
    D, u = x.shape[-1], params["unembed.weight"][token]

    def direct(c):
        c = c.expand(*ids.shape, D)
        return ((c - c.mean(-1, keepdim=True)) / scale * params["norm.weight"]) @ u

    parts = {
        "tokens": direct(params["tokens.weight"][ids]),
        "positions": direct(params["positions.weight"][: ids.shape[1]]),
    }
    for layer in range(config["L"]):
        at = f"blocks.{layer}"
        heads = seen[at + ".attn.heads"]  # (B, H, T, hd)
        for h in range(config["H"]):
            alone = torch.zeros_like(heads)
            alone[:, h] = heads[:, h]
            parts[f"{at}.head.{h}"] = direct(alone.transpose(1, 2).flatten(2) @ params[at + ".attn.W_o.weight"].T)
        parts[at + ".attn.bias"] = direct(params[at + ".attn.W_o.bias"])
        if config["d_mlp"]:
            parts[at + ".mlp.bias"] = direct(params[at + ".mlp.2.bias"])
            parts[at + ".mlp"] = direct(seen[at + ".mlp"]) - parts[at + ".mlp.bias"]
    parts["bias"] = (params["norm.bias"] @ u + params["unembed.bias"][token]).expand(ids.shape)
    return parts, seen["logits"][..., token]


ODD_MODELS = ({}, {"L": 3, "d_mlp": 0, "H": 2}, {"L": 0}, {"L": 1, "H": 6, "eps": 0.7}, {"H": 1, "D": 5})


@exercise("direct_logit_attribution", weight=2)
@pytest.mark.parametrize("changes", ODD_MODELS, ids=["usual", "no MLP", "no block", "six heads", "one head"])
def test_each_component_gets_its_due(exercises, rng, changes):
    """Each entry is what that component alone writes towards the logit."""
    model, config, params = some_model(exercises, rng, **changes)
    ids, token = rng.integers(0, 11, 2, 7), 4
    expected, _ = attributed(config, params, ids, token)
    got = exercises.direct_logit_attribution(model, ids, token)
    exact(set(got), set(expected), "the names of the components")
    close(got, expected, "direct_logit_attribution")


@exercise("direct_logit_attribution", weight=2)
def test_components_sum_to_the_logit(exercises, rng):
    """All entries together are the logit, for any token and position."""
    for changes in ODD_MODELS:
        model, config, params = some_model(exercises, rng, **changes)
        ids = rng.integers(0, 11, 3, 4)
        for token in (0, 10):
            got = exercises.direct_logit_attribution(model, ids, token)
            _, logit = attributed(config, params, ids, token)
            close(torch.stack(list(got.values())).sum(0), logit, f"the sum over components, token {token}")


@exercise("direct_logit_attribution")
def test_attribution_of_a_trained_model(exercises, rng):
    """In a trained model, float32, the entries sum to the logit as well."""
    for name in ("names", "induction"):
        config, params = tiny.load(name)
        ids = tiny.introductions(rng.seed, 5)[0] if name == "names" else tiny.repeats(rng.seed, 3)[0]
        got = exercises.direct_logit_attribution(loaded(exercises, config, params), ids, 3)
        expected, logit = attributed(config, params, ids, 3)
        total = torch.stack(list(got.values())).sum(0)
        roughly(total, logit, 1e-4, f"the sum over components of {name}")  # logits up to 15 in float32
        roughly(got, expected, 1e-4, f"the components of {name}")


@exercise("direct_logit_attribution")
def test_a_component_that_writes_nothing_gets_nothing(exercises, rng):
    """With its output weights at zero, a head's or an MLP's entry is zero."""
    _, config, params = some_model(exercises, rng)
    params["blocks.1.attn.W_o.weight"][:, 4:8] = 0  # head 1 of three, four features wide
    params["blocks.0.mlp.2.weight"][:] = 0
    got = exercises.direct_logit_attribution(loaded(exercises, config, params), rng.integers(0, 11, 2, 6), 2)
    for name in ("blocks.1.head.1", "blocks.0.mlp"):
        roughly(got[name], torch.zeros(2, 6, dtype=DOUBLE), 1e-12, f"the entry of {name}, which writes nothing")
    for name in ("blocks.1.head.0", "blocks.1.head.2", "blocks.0.mlp.bias", "blocks.1.mlp"):
        holds(got[name].abs().max() > 1e-3, f"{name} writes something, and its entry must show it.")


@exercise("direct_logit_attribution")
def test_attribution_leaves_no_trace(exercises, rng):
    """Attribution leaves the model as it was, also when the run raises."""
    jobs = [(torch.tensor([[3, 1, 2]]), 5), (torch.tensor([[3, 11]]), 5), (torch.tensor([[1]]), 0)]
    leaves_no_trace(exercises, rng, "direct_logit_attribution", jobs, ["", "IndexError", ""])


# --- patch, patching_grid ---------------------------------------------------------------------------------------------


def patched(config, params, clean_ids, corrupt_ids, site, positions):
    """The logits of the patched run, from a forward pass of the test's own."""
    clean = tiny.forward(config, params, clean_ids)[site]

    def mix(x):
        x = x.clone()
        for t in positions:
            x[..., t, :] = clean[..., t, :]
        return x

    return tiny.forward(config, params, corrupt_ids, {site: mix})["logits"]


@exercise("patch", weight=3)
def test_patch_at_every_site(exercises, rng):
    """The patched positions come from the clean run, all else reacts."""
    model, config, params = some_model(exercises, rng)
    clean, corrupt = rng.integers(0, 11, 2, 6), rng.integers(0, 11, 2, 6)
    jobs = [("blocks.0", [2]), ("blocks.0.attn", (1, -1)), ("embed", [0, 3]), ("blocks.1.mlp", [5, 4])]
    jobs += [("blocks.1.attn.heads", [2, 5]), ("blocks.0.attn.pattern", [3]), ("blocks.1", [-6, 2, 2])]
    for site, positions in jobs:
        expected = patched(config, params, clean, corrupt, site, positions)
        close(exercises.patch(model, clean, corrupt, site, positions), expected, f"patch at {site}, {positions}")


@exercise("patch", weight=2)
def test_patch_everything_or_nothing(exercises, rng):
    """All positions of the stream give the clean run, none the corrupt one."""
    model, config, params = some_model(exercises, rng, L=3)
    clean, corrupt = rng.integers(0, 11, 3, 5), rng.integers(0, 11, 3, 5)
    for site in boundaries(config):
        everything = exercises.patch(model, clean, corrupt, site, [0, 1, 2, 3, 4])
        close(everything, tiny.forward(config, params, clean)["logits"], f"all positions patched at {site}")
        nothing = exercises.patch(model, clean, corrupt, site, [])
        close(nothing, tiny.forward(config, params, corrupt)["logits"], f"no position patched at {site}")


@exercise("patch")
def test_patch_refuses_what_does_not_fit(exercises, rng):
    """Unequal shapes and unknown sites are a ValueError."""
    model, *_ = some_model(exercises, rng)
    a, b = rng.integers(0, 11, 2, 5), rng.integers(0, 11, 2, 4)
    for clean, corrupt, site in ((a, b, "embed"), (a, a[:1], "embed"), (a, a, "blocks.7"), (a, a, "head.0")):
        with pytest.raises(ValueError):
            exercises.patch(model, clean, corrupt, site, [0])


@exercise("patch", weight=2)
def test_patch_leaves_no_trace(exercises, rng):
    """The model is as it was, also after a position outside the sequence."""
    a, b, alien = torch.tensor([[3, 1, 2]]), torch.tensor([[4, 1, 2]]), torch.tensor([[3, 99, 2]])
    jobs = [(a, b, "blocks.0", [1]), (a, b, "blocks.0", [3]), (a, b, "embed", [-4]), (a, alien, "blocks.1", [0])]
    jobs += [(alien, b, "blocks.1", [0]), (a, b, "blocks.9", [0])]
    raised = ["", "IndexError", "IndexError", "IndexError", "IndexError", "ValueError"]
    leaves_no_trace(exercises, rng, "patch", jobs, raised)
    jobs = [(a, b, ["embed", "blocks.0"], "boom"), (a, b, ["blocks.9"], "boom")]
    _, config, params = some_model(exercises, rng, torch.float32)
    for seen in exercises.run(aftermath, config, params, "patching_grid", jobs):
        holds(seen["raised"] != "" and seen["hooks"] == 0 and seen["kept"], "A metric that raises must leave no hook.")


def difference(logits):
    """Mean over rows of the logit of id 3 less that of id 7, at the last position."""
    return (logits[:, -1, 3] - logits[:, -1, 7]).mean().item()


@exercise("patch", weight=2)
def test_grid_is_the_recovered_share(exercises, rng):
    """Each entry is the share of the metric that one position brings back."""
    model, config, params = some_model(exercises, rng)
    clean, corrupt = rng.integers(0, 11, 2, 5), rng.integers(0, 11, 2, 5)
    sites = ["blocks.0", "blocks.1.attn.heads", "embed"]
    metric = lambda ids: difference(tiny.forward(config, params, ids)["logits"])  # noqa: E731
    low, high = metric(corrupt), metric(clean)
    expected = torch.zeros(3, 5, dtype=DOUBLE)
    for s, site in enumerate(sites):
        for t in range(5):
            m = difference(patched(config, params, clean, corrupt, site, [t]))
            expected[s, t] = (m - low) / (high - low)
    got = exercises.patching_grid(model, clean, corrupt, sites, difference)
    # the metric's own range may be small, which magnifies rounding
    roughly(got, expected, 1e-7, "patching_grid over three sites")


@exercise("patch")
def test_grid_finds_the_place_of_the_difference(exercises, rng):
    """In a trained model only the changed name, then only the end, matters."""
    config, params = tiny.load("names")
    clean, answer, giver = (x[:1] for x in tiny.introductions(rng.seed, 1))
    corrupt = clean.clone()
    corrupt[0, 6] = answer[0]  # the other one gives, so the answer is the other one too
    metric = lambda logits: (logits[0, -1, answer] - logits[0, -1, giver]).item()  # noqa: E731
    grid = exercises.patching_grid(loaded(exercises, config, params), clean, corrupt, ["embed", "blocks.1"], metric)
    expected = torch.zeros(2, 9, dtype=DOUBLE)
    expected[0, 6] = expected[1, 8] = 1
    roughly(grid, expected, 1e-4, "the grid of a sentence in which one name was changed")  # float32


@exercise("patch")
def test_grid_needs_a_difference(exercises, rng):
    """If both runs have the same metric there is nothing to recover."""
    model, *_ = some_model(exercises, rng)
    ids = rng.integers(0, 11, 1, 4)
    with pytest.raises(ValueError):
        exercises.patching_grid(model, ids, ids, ["embed"], difference)
    with pytest.raises(ValueError):
        exercises.patching_grid(model, ids, (ids + 1) % 11, ["embed"], lambda logits: 3.5)


# --- induction_score, train_induction, ablate_head --------------------------------------------------------------------


def score_by_counting(attn, periods):
    """Walk back from each query, period by period."""
    B, H, T, _ = attn.shape
    found = [[] for _ in range(H)]
    for b in range(B):
        for i in range(periods[b], T):
            for h in range(H):
                keys = range(i + 1 - periods[b], 0, -periods[b])
                found[h].append(sum(attn[b, h, i, j].item() for j in keys))
    return torch.tensor([sum(values) / len(values) for values in found], dtype=attn.dtype)


def causal_weights(rng, *shape):
    """Random causal attention weights."""
    scores = rng.normal(*shape)
    return scores.masked_fill(torch.ones(shape[-2:]).triu(1).bool(), -math.inf).softmax(-1)


@exercise("induction_score", weight=2)
def test_score_counts_what_followed_earlier_copies(exercises, rng):
    """Every query's weights on the keys behind earlier copies are summed."""
    attn = causal_weights(rng, 3, 4, 13, 13)
    for period in (5, 3, 12, 7, 2, 1):
        expected = score_by_counting(attn, [period] * 3)
        close(pure(exercises.induction_score, attn, period), expected, f"induction_score with period {period}")
        close(exercises.induction_score(attn.float(), period), expected.float(), f"the same of float32, {period}")


@exercise("induction_score", weight=2)
def test_score_with_a_period_for_each_sequence(exercises, rng):
    """Each sequence has its own period, and each query the same weight."""
    attn = causal_weights(rng, 3, 2, 11, 11)
    for periods in ([9, 2, 5], [3, 10, 11], [20, 4, 1]):  # a period of 11 or more leaves no query
        expected = score_by_counting(attn, periods)
        close(exercises.induction_score(attn, torch.tensor(periods)), expected, f"induction_score, periods {periods}")


@exercise("induction_score")
def test_score_of_known_patterns(exercises):
    """A perfect pattern scores 1, however shared; uniform attention little."""
    T, p = 12, 4
    one, shared, uniform = torch.zeros(T, T), torch.zeros(T, T), torch.ones(T, T).tril()
    for i in range(T):
        keys = list(range(i + 1 - p, 0, -p))
        one[i, keys[-1] if keys else 0] = 1
        shared[i, keys or [0]] = 1 / max(1, len(keys))
    uniform /= uniform.sum(1, keepdim=True)
    got = exercises.induction_score(torch.stack([one, shared, uniform])[None].double(), p)
    expected = [1, 1, sum(len(range(i + 1 - p, 0, -p)) / (i + 1) for i in range(p, T)) / (T - p)]
    roughly(got, torch.tensor(expected, dtype=DOUBLE), 1e-6, "scores of a perfect, a shared, a uniform head")


@exercise("induction_score")
def test_score_needs_a_repeat(exercises, rng):
    """If no sequence is longer than its period there is no score."""
    attn = causal_weights(rng, 2, 1, 6, 6)
    for period in (6, 9, torch.tensor([6, 8])):
        with pytest.raises(ValueError):
            exercises.induction_score(attn, period)


@exercise("induction_score")
def test_score_finds_the_heads_of_a_trained_model(exercises, rng):
    """Behind the first block heads copy; in the first, and alone, they do not."""
    ids, period = tiny.repeats(rng.seed, 30)
    for name, layer, copies in (("induction", 1, True), ("induction", 0, False), ("one_layer", 0, False)):
        attn = tiny.forward(*tiny.load(name), ids)[f"blocks.{layer}.attn.pattern"]
        score = exercises.induction_score(attn, period).max().item()
        holds(score > 0.9 if copies else score < 0.4, f"The best score in block {layer} of {name} was {score:.3f}.")


def accuracy(model, seed):
    """The share of predictable ids that a model gets right, on 200 new sequences."""
    ids, period = tiny.repeats(seed, 200)
    logits, answer = tiny.predictable(model(ids), ids, period)
    return (logits.argmax(-1) == answer).double().mean().item()


@exercise("induction_score", weight=2)
def test_two_layers_learn_to_copy(exercises, rng):
    """Two layers predict what repeats with any period, after 200 steps."""
    right = accuracy(exercises.train_induction(2, 200, 3), rng.seed)
    holds(right > 0.95, f"Two layers get more than 0.95 of the predictable ids; it was {right:.3f}.")


@exercise("induction_score")
def test_one_layer_cannot(exercises, rng):
    """One layer cannot find what followed a copy."""
    model = exercises.train_induction(1, 100, 4)
    right = accuracy(model, rng.seed)
    holds(right < 0.6, f"One layer gets less than 0.6 of the predictable ids; it was {right:.3f}.")


@driver
def short_trainings(module, jobs):
    """Train a few steps in odd states of the global generator; give outputs, and whether the result is whole."""
    import torch

    ids, told = torch.arange(14)[None], []
    for number, (layers, steps, seed) in enumerate(jobs):
        torch.manual_seed(number)
        model = module.train_induction(layers, steps, seed)
        fresh = module.TinyGPT(20, 32, 2, layers, 0, 30, seed=seed)
        gradients = all(p.requires_grad for p in model.parameters())
        same = model.state_dict().keys() == fresh.state_dict().keys()
        told.append((model(ids).detach(), fresh(ids).detach(), gradients and same))
    return told


@exercise("induction_score")
def test_training_depends_on_its_arguments_alone(exercises):
    """The seed decides everything, whatever the state of the global generator."""
    jobs = [(2, 2, 5), (2, 2, 5), (2, 2, 6), (1, 0, 5), (3, 0, 8), (2, 3, 5)]
    told = exercises.run(short_trainings, jobs)
    outputs = [out for out, *_ in told]
    exact(outputs[1], outputs[0], "the same training once more")
    for other in (2, 5):
        holds((outputs[other] - outputs[0]).abs().max() > 1e-4, "Another seed, or one more step, gives another model.")
    for at in (3, 4):
        close(outputs[at], told[at][1], "the model after 0 steps")
    holds(all(whole for *_, whole in told), "The result is a TinyGPT of the promised shape, ready for more training.")


@exercise("induction_score", weight=2)
def test_ablation_silences_one_head(exercises, rng):
    """The logits are those of a model whose head mixes zeros."""
    model, config, params = some_model(exercises, rng)
    ids = rng.integers(0, 11, 2, 6)

    def without(head):
        return lambda z: torch.stack([z[:, h] * (h != head) for h in range(3)], dim=1)

    for layer in range(2):
        for head in range(3):
            expected = tiny.forward(config, params, ids, {f"blocks.{layer}.attn.heads": without(head)})["logits"]
            close(exercises.ablate_head(model, ids, layer, head), expected, f"logits without head {layer}.{head}")
    close(model(ids), tiny.forward(config, params, ids)["logits"], "the model itself, afterwards")


@exercise("induction_score")
def test_ablation_of_a_head_that_is_not_there(exercises, rng):
    """A layer or head outside the model is a ValueError."""
    model, *_ = some_model(exercises, rng)
    for layer, head in ((2, 0), (-1, 0), (0, 3), (1, -1)):
        with pytest.raises(ValueError):
            exercises.ablate_head(model, torch.tensor([[1, 2]]), layer, head)


@exercise("induction_score")
def test_ablation_leaves_no_trace(exercises, rng):
    """Ablation leaves the model as it was, also when the run raises."""
    jobs = [(torch.tensor([[3, 1, 2]]), 1, 2), (torch.tensor([[3, 11]]), 0, 0), (torch.tensor([[3]]), 5, 0)]
    leaves_no_trace(exercises, rng, "ablate_head", jobs, ["", "IndexError", "ValueError"])


# --- toy_superposition, feature_dimensionality ------------------------------------------------------------------------


@exercise("toy_superposition", weight=2)
def test_dense_features_get_one_neuron_each(exercises):
    """Without sparsity the most important features, and no others, are kept."""
    kept = []
    for n, m, seed in ((6, 2, 2), (7, 3, 2), (6, 2, 3)):
        W = exercises.toy_superposition(n, m, 0.0, 600, seed=seed)
        exact(tuple(W.shape), (m, n), "the shape of W")
        holds(W.dtype == torch.float32 and not W.requires_grad, "W is float32 and carries no graph.")
        kept.append((W.norm(dim=0) > 0.5).nonzero().flatten().tolist())
    # one start in thirty or so ends elsewhere, for a right answer too
    right = sum(found == list(range(m)) for found, m in zip(kept, (2, 3, 2), strict=True))
    holds(right >= 2, f"the features with a column of norm above 0.5, n, m = 6, 2; 7, 3; 6, 2, sparsity 0: {kept}")


@exercise("toy_superposition", weight=2)
def test_rare_features_share(exercises):
    """With features that are seldom present, two neurons hold four or more."""
    W = exercises.toy_superposition(6, 2, 0.95, 600, seed=1)
    kept = int((W.norm(dim=0) > 0.5).sum())
    holds(kept >= 4, f"At sparsity 0.95 at least four of six features are kept; it was {kept}.")


@driver
def short_toys(module, jobs):
    """Train a few steps in odd states of the global generator; give W of each."""
    import torch

    told = []
    for number, job in enumerate(jobs):
        torch.manual_seed(number)
        told.append(module.toy_superposition(*job))
    return told


@exercise("toy_superposition")
def test_toy_depends_on_its_arguments_alone(exercises):
    """The seed decides everything, whatever the state of the global generator."""
    jobs = [(5, 3, 0.5, 4, 7), (5, 3, 0.5, 4, 7), (5, 3, 0.5, 4, 8), (5, 3, 0.5, 5, 7), (5, 3, 0.5, 0, 7)]
    told = exercises.run(short_toys, jobs)
    exact(told[1], told[0], "the same training once more")
    for other in (2, 3, 4):
        holds(not torch.equal(told[other], told[0]), "Another seed, or another number of steps, gives another W.")
    exact([tuple(W.shape) for W in told], [(3, 5)] * 5, "the shapes of W")


@exercise("toy_superposition", weight=2)
def test_dimensionality_by_its_definition(exercises, rng):
    """Each value is the squared norm over all squared projections."""
    for m, n in ((2, 5), (4, 3), (1, 4), (3, 1)):
        W = rng.normal(m, n) * (1 + torch.arange(n, dtype=DOUBLE))
        expected = torch.zeros(n, dtype=DOUBLE)
        for i in range(n):
            u = W[:, i] / W[:, i].norm()
            expected[i] = W[:, i].norm() ** 2 / sum((u @ W[:, j]).item() ** 2 for j in range(n))
        got = pure(exercises.feature_dimensionality, W)
        close(got, expected, f"feature_dimensionality of W ({m}, {n})")
        holds(got.sum() <= m + 1e-9, "Together the features have at most m dimensions.")
        close(exercises.feature_dimensionality(W.float()), expected.float(), f"the same of float32, ({m}, {n})")


@exercise("toy_superposition")
def test_dimensionality_of_known_figures(exercises):
    """Orthogonal features have 1, opposite pairs 1/2, a pentagon 2/5 each."""
    angle = 2 * math.pi * torch.arange(5, dtype=DOUBLE) / 5
    pentagon = 3 * torch.stack([angle.cos(), angle.sin()])
    close(exercises.feature_dimensionality(pentagon), torch.full((5,), 0.4, dtype=DOUBLE), "a pentagon")
    pairs = torch.tensor([[2.0, -2.0, 0.0], [0.0, 0.0, 5.0]], dtype=DOUBLE)
    close(exercises.feature_dimensionality(pairs), torch.tensor([0.5, 0.5, 1.0], dtype=DOUBLE), "a pair and one alone")


@exercise("toy_superposition")
def test_dimensionality_of_a_feature_that_is_not_stored(exercises):
    """A column of zeros has 0 and does not disturb the others."""
    W = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]], dtype=DOUBLE)
    expected = torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=DOUBLE)
    exact(exercises.feature_dimensionality(W), expected, "feature_dimensionality with two columns of zeros")


# --- SparseAutoencoder ------------------------------------------------------------------------------------------------


def some_sae(exercises, rng, d=4, k=6, dtype=DOUBLE):
    """An autoencoder with random parameters: the student's handle and the parameters."""
    sae = exercises.SparseAutoencoder(d, k)
    params = {"W_enc": rng.normal(d, k), "b_enc": rng.normal(k), "W_dec": rng.normal(k, d), "b_dec": rng.normal(d)}
    params = {name: p.to(dtype) for name, p in params.items()}
    if dtype == DOUBLE:
        sae.double()
    sae.load_state_dict(params)
    return sae, params


def sae_by_definition(params, x, l1):
    """Codes, reconstruction and loss, row by row."""
    f = torch.stack([((row - params["b_dec"]) @ params["W_enc"] + params["b_enc"]).clamp(min=0) for row in x])
    back = torch.stack([row @ params["W_dec"] + params["b_dec"] for row in f])
    return f, back, sum((a - b).square().sum() + l1 * c.sum() for a, b, c in zip(x, back, f, strict=True)) / len(x)


@exercise("SparseAutoencoder", weight=2)
def test_codes_and_reconstruction(exercises, rng):
    """Codes are the ReLU of the centred input; decoding adds the centre once."""
    for dtype in (DOUBLE, torch.float32):
        sae, params = some_sae(exercises, rng, dtype=dtype)
        x = rng.normal(9, 4).to(dtype)
        f, back, _ = sae_by_definition(params, x, 0.0)
        close(sae.encode(x).detach(), f, f"encode of (9, 4), {dtype}")
        close(sae.decode(f).detach(), back, f"decode of (9, 6), {dtype}")
        code = rng.normal(2, 6).to(dtype)  # decode takes any numbers, also negative ones
        close(sae.decode(code).detach(), code @ params["W_dec"] + params["b_dec"], "decode of (2, 6)")


@exercise("SparseAutoencoder")
def test_leading_axes_are_free(exercises, rng):
    """encode and decode work on the last axis, whatever stands before it."""
    sae, params = some_sae(exercises, rng)
    x, code = rng.normal(2, 3, 4), rng.uniform(5, 2, 6)
    close(sae.encode(x).detach().reshape(6, 6), sae_by_definition(params, x.reshape(6, 4), 0)[0], "encode of (2, 3, 4)")
    close(sae.encode(x[0, 0]).detach(), sae_by_definition(params, x[0, :1], 0)[0][0], "encode of (4,)")
    close(sae.decode(code).detach(), code @ params["W_dec"] + params["b_dec"], "decode of (5, 2, 6)")


@exercise("SparseAutoencoder", weight=2)
def test_loss_by_its_definition(exercises, rng):
    """Squared errors and codes are summed over entries, averaged over rows."""
    sae, params = some_sae(exercises, rng)
    for n, l1 in ((7, 0.3), (1, 2.0), (5, 0.0)):
        x = rng.normal(n, 4)
        got = sae.loss(x, l1).detach()
        close(got, sae_by_definition(params, x, l1)[2], f"loss of ({n}, 4) with l1={l1}")


@driver
def sae_gradients(module, params, x, l1):
    """The gradients of the loss, by name."""
    k, d = params["W_dec"].shape
    sae = module.SparseAutoencoder(d, k).double()
    sae.load_state_dict(params)
    sae.loss(x, l1).backward()
    return {name: p.grad for name, p in sae.named_parameters()}


@exercise("SparseAutoencoder")
def test_gradients_reach_all_parameters(exercises, rng):
    """All four parameters get the gradients of the loss."""
    _, params = some_sae(exercises, rng)
    x, l1 = rng.normal(8, 4), 0.7
    got = exercises.run(sae_gradients, params, x, l1)
    for name, p in params.items():
        numeric = numerical_gradient(lambda q, name=name: sae_by_definition(params | {name: q}, x, l1)[2], p)
        # central differences are good to about 1e-8 here
        roughly(got[name], numeric, 1e-5, f"the gradient of {name}")


@driver
def after_renorm(module, params):
    """The parameters before and after, and whether they are the same objects, outside of a graph."""
    k, d = params["W_dec"].shape
    sae = module.SparseAutoencoder(d, k).double()
    sae.load_state_dict(params)
    objects = dict(sae.named_parameters())
    sae.renorm_decoder()
    same = dict(sae.named_parameters()).keys() == objects.keys() and all(
        p is objects[name] and p.is_leaf and p.requires_grad for name, p in sae.named_parameters()
    )
    return {name: p.detach() for name, p in sae.named_parameters()}, same


@exercise("SparseAutoencoder", weight=2)
def test_renorm_makes_directions_unit_vectors(exercises, rng):
    """Each row of W_dec keeps its direction and has norm 1; all else stays."""
    _, params = some_sae(exercises, rng)
    params["W_dec"][2] *= 1e-3
    params["W_dec"][4] *= 50
    got, same = exercises.run(after_renorm, params)
    rows = torch.stack([row / row.norm() for row in params["W_dec"]])
    close(got["W_dec"], rows, "W_dec after renorm_decoder")
    for name in ("W_enc", "b_enc", "b_dec"):
        exact(got[name], params[name], f"{name} after renorm_decoder")
    holds(same, "The parameters must stay the same objects, leaves that require gradients: change W_dec in place.")


@exercise("SparseAutoencoder")
def test_renorm_leaves_a_row_of_zeros(exercises, rng):
    """A row of zeros stays zero and makes no NaN."""
    _, params = some_sae(exercises, rng)
    params["W_dec"][3] = 0
    got, _ = exercises.run(after_renorm, params)
    exact(got["W_dec"][3], torch.zeros(4, dtype=DOUBLE), "a row of zeros after renorm_decoder")
    close(got["W_dec"].norm(dim=1)[:3], torch.ones(3, dtype=DOUBLE), "the norms of other rows")


@exercise("SparseAutoencoder")
def test_dead_features_are_counted(exercises, rng):
    """A feature is dead if its code is zero on every row."""
    sae, params = some_sae(exercises, rng, d=3, k=50)
    for n in (1, 4, 30):
        x = rng.normal(n, 3)
        expected = int((sae_by_definition(params, x, 0)[0] == 0).all(0).sum())
        exact(sae.dead_features(x), expected, f"dead_features of {n} rows")


@driver
def dictionary(module, truth, k, l1, steps, seed):
    """Train on sums of few of the true directions; give the directions that were found, and codes of new rows."""
    import torch

    rng = torch.Generator().manual_seed(seed)

    def draw(n):
        present = torch.rand(n, len(truth), generator=rng) < 0.05
        return (torch.rand(n, len(truth), generator=rng) * present) @ truth

    sae = module.SparseAutoencoder(truth.shape[1], k, seed=seed)
    optimizer = torch.optim.Adam(sae.parameters(), lr=0.01)
    norms = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.01 * min(1.0, 3 - 3 * step / steps)
        optimizer.zero_grad()
        sae.loss(draw(256), l1).backward()
        optimizer.step()
        sae.renorm_decoder()
        norms.append(sae.W_dec.detach().norm(dim=1))
    x = draw(500)
    f = sae.encode(x).detach()
    return sae.W_dec.detach(), torch.stack(norms), x, f, sae.decode(f).detach()


@exercise("SparseAutoencoder", weight=3)
def test_planted_features_are_found(exercises, rng):
    """Of 64 features in 32 dimensions, nearly all are found again."""
    truth = F.normalize(rng.normal(64, 32).float(), dim=1)
    W, norms, x, f, back = exercises.run(dictionary, truth, 80, 0.15, 800, 1)
    roughly(norms, torch.ones_like(norms), 1e-5, "the norms of W_dec after every step")  # float32
    best = (F.normalize(W, dim=1) @ truth.T).amax(0)  # (64,) the cosine with the nearest direction
    holds(best.mean() > 0.97, f"Mean cosine with the nearest direction above 0.97; it was {best.mean():.3f}.")
    share = (best > 0.9).double().mean()
    holds(share > 0.95, f"More than 95 % of the features have a direction with cosine 0.9; it was {share:.3f}.")
    active = (f > 1e-6).double().sum(1).mean()
    holds(active < 12, f"About three features make a row, and few codes are active; it was {active:.1f}.")


# --- steering_vector, generate_steered, topk_activation ---------------------------------------------------------------


@exercise("steering_vector", weight=2)
def test_vector_is_a_difference_of_means(exercises, rng):
    """It is the mean state over positive tokens less that over negative ones."""
    model, config, params = some_model(exercises, rng)
    pos, neg = rng.integers(0, 11, 3, 6), rng.integers(0, 11, 4, 2)
    for layer, site in enumerate(boundaries(config)):
        means = [tiny.forward(config, params, ids)[site].flatten(0, 1).mean(0) for ids in (pos, neg)]
        got = exercises.steering_vector(model, pos, neg, layer)
        close(got, means[0] - means[1], f"steering_vector at layer {layer}")


@exercise("steering_vector", weight=2)
def test_vector_ignores_padding(exercises, rng):
    """Padding counts for nothing, and each real token the same."""
    model, config, params = some_model(exercises, rng)
    pad, expected, batches = 10, [], []
    for lengths in ((7, 2, 4), (1, 5)):
        rows = [rng.integers(0, 10, 1, n) for n in lengths]
        states = [tiny.forward(config, params, row)["blocks.0"][0] for row in rows]
        expected.append(torch.cat(states).mean(0))
        batches.append(torch.cat([F.pad(row, (0, 8 - row.shape[1]), value=pad) for row in rows]))
    got = exercises.steering_vector(model, *batches, 1, pad=pad)
    close(got, expected[0] - expected[1], "steering_vector of padded sequences")
    got = exercises.steering_vector(model, batches[0], batches[1], 1)  # now id 10 is a token like any other
    means = [tiny.forward(config, params, ids)["blocks.0"].mean((0, 1)) for ids in batches]
    close(got, means[0] - means[1], "steering_vector of the same ids without a pad")


@exercise("steering_vector")
def test_a_planted_direction_is_recovered(exercises, rng):
    """If positive tokens carry one direction more, that direction is found."""
    _, config, params = some_model(exercises, rng)
    planted = rng.normal(12)
    params["tokens.weight"][5:10] = params["tokens.weight"][:5] + planted
    neg = rng.integers(0, 5, 4, 6)
    got = exercises.steering_vector(loaded(exercises, config, params), neg + 5, neg, 0)
    holds(F.cosine_similarity(got, planted, dim=0) > 0.999, "At layer 0 the difference of means is the planted one.")
    close(got, planted, "the planted direction")


@exercise("steering_vector")
def test_layers_outside_the_model_are_refused(exercises, rng):
    """A layer below 0 or above L is a ValueError, in both functions."""
    model, *_ = some_model(exercises, rng)
    ids = torch.tensor([[1, 2]])
    for layer in (-1, 3):
        with pytest.raises(ValueError):
            exercises.steering_vector(model, ids, ids, layer)
        with pytest.raises(ValueError):
            exercises.generate_steered(model, ids, torch.ones(12, dtype=DOUBLE), layer, 1.0, 2)


def steered(config, params, ids, site, push, n):
    """Greedy generation with a push, from a forward pass of the test's own."""
    for _ in range(n):
        logits = tiny.forward(config, params, ids, {site: lambda x: x + push})["logits"]
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


@exercise("steering_vector", weight=3)
def test_generation_follows_the_push(exercises, rng):
    """Scale times the vector is added at one layer and all positions."""
    model, config, params = some_model(exercises, rng)
    ids, vector = rng.integers(0, 11, 20, 3), rng.normal(12)
    for layer, site in enumerate(boundaries(config)):
        for scale in (1.0, -2.0, 5.0):
            expected = steered(config, params, ids, site, scale * vector, 6)
            got = pure(exercises.generate_steered, model, ids, vector, layer, scale, 6)
            exact(got, expected, f"generate_steered at layer {layer} with scale {scale}")


@exercise("steering_vector")
def test_no_push_is_plain_generation(exercises, rng):
    """Scale 0 is greedy generation, up to the last position; n=0 adds none."""
    model, config, params = some_model(exercises, rng)
    ids, vector = rng.integers(0, 11, 5, 4), rng.normal(12)
    for layer in range(3):
        expected = steered(config, params, ids, "embed", 0 * vector, 6)  # 4 + 6 - 1 = 9 positions, all there are
        exact(exercises.generate_steered(model, ids, vector, layer, 0.0, 6), expected, f"scale 0 at layer {layer}")
        exact(exercises.generate_steered(model, ids, vector, layer, 2.0, 0), ids, "generate_steered with n=0")


@exercise("steering_vector")
def test_equal_logits_go_to_the_smaller_id(exercises, rng):
    """A push along one unembedding row wins, and reversed it loses."""
    _, config, params = some_model(exercises, rng)
    params["unembed.weight"][7] = params["unembed.weight"][2]
    params["unembed.bias"][7] = params["unembed.bias"][2]
    u = params["unembed.weight"][2] * params["norm.weight"]
    model, ids = loaded(exercises, config, params), rng.integers(0, 11, 6, 3)
    for scale in (100.0, -100.0):
        got = exercises.generate_steered(model, ids, u, 2, scale, 3)
        exact(got, steered(config, params, ids, "blocks.1", scale * u, 3), f"generate_steered with scale {scale}")


@exercise("steering_vector")
def test_steering_leaves_no_trace(exercises, rng):
    """Steering leaves the model as it was, also when the run raises."""
    ids, alien, v = torch.tensor([[3, 1, 2]]), torch.tensor([[3, 11]]), torch.ones(12)
    jobs = [(ids, v, 1, 2.0, 3), (alien, v, 0, 1.0, 2), (ids, v, 3, 1.0, 1)]
    leaves_no_trace(exercises, rng, "generate_steered", jobs, ["", "IndexError", "ValueError"])
    jobs = [(ids, ids + 1, 2), (ids, alien, 1), (ids, ids, -1)]
    leaves_no_trace(exercises, rng, "steering_vector", jobs, ["", "IndexError", "ValueError"])


@exercise("steering_vector", weight=2)
def test_topk_keeps_the_largest(exercises, rng):
    """Exactly k entries of each row stay, the largest by value."""
    for shape in ((7,), (3, 8), (2, 3, 5)):
        x = rng.normal(*shape) - 0.5
        for k in (1, 2, 4, shape[-1] - 1, shape[-1], shape[-1] + 3, 0):
            expected = torch.zeros_like(x).reshape(-1, shape[-1])
            for row, out in zip(x.reshape(-1, shape[-1]), expected, strict=True):
                for i in sorted(range(len(row)), key=lambda i, row=row: -row[i].item())[:k]:
                    out[i] = row[i]
            got = pure(exercises.topk_activation, x, k)
            exact(got, expected.reshape(shape), f"topk_activation of a {shape} tensor, k={k}")


@exercise("steering_vector")
def test_topk_of_equal_entries(exercises):
    """Of equal entries the first are kept, and still exactly k."""
    x = torch.tensor([[1.0, 3, 3, 0, 3, 1], [2, 2, 2, 2, 2, 2], [-1, -5, -1, -1, -4, -2]])
    expected = torch.tensor([[0.0, 3, 3, 0, 0, 0], [2, 2, 0, 0, 0, 0], [-1, 0, -1, 0, 0, 0]])
    exact(exercises.topk_activation(x, 2), expected, "topk_activation with equal entries, k=2")
    many = torch.zeros(300) + 7
    exact(exercises.topk_activation(many, 40), 7.0 * (torch.arange(300) < 40), "300 equal entries, k=40")


@driver
def topk_gradient(module, x, weights, k):
    """The gradient of the weighted sum of what was kept."""
    x = x.clone().requires_grad_()
    (module.topk_activation(x, k) * weights).sum().backward()
    return x.grad


@exercise("steering_vector")
def test_topk_passes_gradients_to_what_it_keeps(exercises, rng):
    """Gradients reach the kept entries alone; a negative k is refused."""
    x, weights = rng.normal(4, 9), rng.normal(4, 9)
    kept = x >= x.sort(1, descending=True).values[:, 2:3]
    exact(exercises.run(topk_gradient, x, weights, 3), weights * kept, "the gradient through topk_activation, k=3")
    with pytest.raises(ValueError):
        exercises.topk_activation(x, -1)
    close(exercises.topk_activation(x.float(), 3), (x * kept).float(), "topk_activation of float32")
