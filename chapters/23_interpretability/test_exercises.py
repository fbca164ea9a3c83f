"""Self-checks of chapter 23: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, counting, dataset, exact, exercise, holds, roughly


def trained(exercises, name):
    """A trained model of the data set `tiny_models`, as a TinyGPT of the student's module."""
    config, params = dataset("tiny_models").load(name)
    model = exercises.TinyGPT(**config)
    model.load_state_dict(params)
    return model


@exercise("logit_lens")
def test_a_function_listens_and_answers(exercises):
    """A function is called once with the site's output, and may replace it."""
    model, ids = trained(exercises, "names"), torch.tensor([[8, 3, 9, 5]])
    listener, silencer = counting(lambda x: None), counting(lambda x: 0 * x)
    plain = exercises.run_with_hooks(model, ids, {"blocks.0.attn": listener})
    roughly(plain, model(ids), 1e-4, "the logits of a run in which a function only listens")
    silent = exercises.run_with_hooks(model, ids, {"blocks.0.attn": silencer})
    exact([listener.calls, silencer.calls], [1, 1], "how often each function was called")
    holds((silent - plain).abs().max() > 0.1, "What a function returns must take the place of the output.")
    roughly(model(ids), plain, 1e-4, "the model's logits afterwards")


@exercise("logit_lens")
def test_the_lens_ends_at_the_logits(exercises):
    """The last slice is the model's own logits."""
    model, ids = trained(exercises, "names"), torch.tensor([[8, 3, 9, 5, 10, 11, 3, 12, 13]])
    lens = exercises.logit_lens(model, ids)
    exact(tuple(lens.shape), (3, 1, 9, 14), "the shape of the lens of a model with two blocks")
    roughly(lens[-1], model(ids), 1e-4, "the last slice of the lens")  # float32, logits up to 15
    exact(int(lens[-1, 0, -1].argmax()), 5, "the id on top behind the last block")


@exercise("train_probe")
def test_probe_of_two_points(exercises):
    """Two points at -1 and 1 with l2 = 2 give weights -1/4 and 1/4."""
    H = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    W, b = exercises.train_probe(H + 10, torch.tensor([0, 1]), 2.0)
    close(W, torch.tensor([[-0.25, 0.25]], dtype=torch.float64), "W of two points around 10")
    close(b, torch.tensor([0.5 + 2.5, 0.5 - 2.5], dtype=torch.float64), "b of two points around 10")


@exercise("train_probe")
def test_random_labels_are_not_selective(exercises, rng):
    """A label that is in H is found on new rows, random labels are not."""
    H = rng.normal(400, 6)
    got = exercises.probe_selectivity(H, (H[:, 2] > 0).long(), rng.integers(0, 2, 400))
    holds(got["task"] > 0.8, f"The task's accuracy is above 0.8; it was {got['task']:.3f}.")
    holds(0.25 < got["control"] < 0.75, f"The control's accuracy is near one half; it was {got['control']:.3f}.")
    roughly(got["selectivity"], got["task"] - got["control"], 1e-12, "the selectivity")


@exercise("direct_logit_attribution")
def test_attribution_adds_up(exercises):
    """The entries of all components sum to the logit."""
    model, ids = trained(exercises, "names"), torch.tensor([[8, 3, 9, 5, 10, 11, 3, 12, 13]])
    parts = exercises.direct_logit_attribution(model, ids, 5)
    roughly(
        torch.stack(list(parts.values())).sum(0), model(ids)[..., 5], 1e-4, "the sum over all components"
    )  # float32
    exact(len(parts), 2 + 2 * (2 + 3) + 1, "the number of components of two blocks with two heads")


@exercise("direct_logit_attribution")
def test_attribution_of_the_worked_example(exercises):
    """The worked example of the notes, its embedding split in two."""
    model = exercises.TinyGPT(V=2, D=4, H=1, L=0, d_mlp=0, T_max=1, eps=0.0)
    model.load_state_dict(
        {
            "tokens.weight": torch.tensor([[0.0, 0, 0, 0], [2, -2, 1, -1]]),  # what the head writes in the notes
            "positions.weight": torch.tensor([[1.0, 1, 2, 0]]),  # embedding and MLP of the notes
            "norm.weight": torch.ones(4),
            "norm.bias": torch.zeros(4),
            "unembed.weight": torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0]]),
            "unembed.bias": torch.tensor([0.5, 0.0]),
        }
    )
    expected = {"tokens": torch.tensor([[1.5]]), "positions": torch.tensor([[0.5]]), "bias": torch.tensor([[0.5]])}
    close(exercises.direct_logit_attribution(model, torch.tensor([[1]]), 0), expected, "attribution of the example")


@exercise("patch")
def test_patching_all_or_nothing(exercises):
    """All positions give the clean logits, no position the corrupt ones."""
    model = trained(exercises, "names")
    clean, corrupt = torch.tensor([[8, 3, 9, 5, 10, 11, 3]]), torch.tensor([[8, 3, 9, 5, 10, 11, 5]])
    for site in ("embed", "blocks.0", "blocks.1"):
        everything = exercises.patch(model, clean, corrupt, site, list(range(7)))
        roughly(everything, model(clean), 1e-4, f"all positions patched at {site}")  # float32
        roughly(exercises.patch(model, clean, corrupt, site, []), model(corrupt), 1e-4, f"nothing patched at {site}")


@exercise("patch")
def test_the_grid_finds_the_changed_word(exercises):
    """Behind the embedding only the changed word brings the answer back."""
    clean = torch.tensor([[8, 3, 9, 5, 10, 11, 3, 12, 13]])
    corrupt = torch.tensor([[8, 3, 9, 5, 10, 11, 5, 12, 13]])
    metric = lambda logits: (logits[0, -1, 5] - logits[0, -1, 3]).item()  # noqa: E731
    grid = exercises.patching_grid(trained(exercises, "names"), clean, corrupt, ["embed"], metric)
    expected = torch.zeros(1, 9, dtype=torch.float64)
    expected[0, 6] = 1.0
    roughly(grid, expected, 1e-4, "the grid of one site")  # float32


@exercise("induction_score")
def test_score_of_a_hand_made_head(exercises):
    """A head that looks behind the earlier copy scores 1."""
    attn = torch.zeros(1, 2, 6, 6)
    attn[0, 0, range(6), [0, 0, 0, 1, 2, 3]] = 1.0  # period 3: query 3 looks at 1, query 4 at 2, query 5 at 3
    attn[0, 1, range(6), [0, 0, 0, 0, 1, 2]] = 1.0  # at the copy itself
    close(exercises.induction_score(attn, 3), torch.tensor([1.0, 0.0]), "scores of two hand-made heads, period 3")


@exercise("induction_score")
def test_the_preparing_head_matters_most(exercises):
    """Without head 0 of block 0 the trained model cannot copy any more."""
    tiny, model = dataset("tiny_models"), trained(exercises, "induction")
    ids, period = tiny.repeats(5, 60)
    right = {}
    for layer, head in ((0, 0), (0, 1), (1, 0), (1, 1)):
        logits, answer = tiny.predictable(exercises.ablate_head(model, ids, layer, head), ids, period)
        right[layer, head] = (logits.argmax(-1) == answer).double().mean().item()
    holds(right.pop((0, 0)) < 0.5 and min(right.values()) > 0.9, "Only head 0 of block 0 cannot be missed.")


@exercise("induction_score")
def test_a_few_steps_of_training(exercises):
    """The seed decides the model, and training lowers the loss."""
    ids, period = dataset("tiny_models").repeats(6, 100)
    loss = {}
    for steps in (0, 12):
        logits, answer = dataset("tiny_models").predictable(exercises.train_induction(2, steps, 1)(ids), ids, period)
        loss[steps] = torch.nn.functional.cross_entropy(logits, answer).item()
    holds(loss[12] < loss[0] - 0.1, f"Loss {loss[0]:.3f} before and {loss[12]:.3f} after twelve steps.")


@exercise("toy_superposition")
def test_dimensionality_of_a_pentagon(exercises):
    """Five features in a plane, evenly spread, have 2/5 of a dimension each."""
    angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
    got = exercises.feature_dimensionality(torch.stack([angle.cos(), angle.sin()]))
    close(got, torch.full((5,), 0.4, dtype=torch.float64), "feature_dimensionality of a pentagon")


@exercise("toy_superposition")
def test_rare_features_share_two_neurons(exercises):
    """Rare features share: more than two of six are kept in two neurons."""
    kept = {S: int((exercises.toy_superposition(6, 2, S, 500).norm(dim=0) > 0.5).sum()) for S in (0.0, 0.95)}
    holds(kept[0.0] == 2 and kept[0.95] >= 4, f"Features kept at sparsity 0 and 0.95: {kept[0.0]} and {kept[0.95]}.")


@exercise("SparseAutoencoder")
def test_codes_by_hand(exercises):
    """The centre is taken off, the negative code cut, the centre added back."""
    sae = exercises.SparseAutoencoder(2, 3)
    W = torch.tensor([[1.0, 0], [0, 1], [-1, 0]])
    sae.load_state_dict({"W_enc": W.T, "b_enc": torch.zeros(3), "W_dec": W, "b_dec": torch.tensor([1.0, 1.0])})
    x = torch.tensor([[3.0, 2.0]])
    close(sae.encode(x).detach(), torch.tensor([[2.0, 1, 0]]), "the codes of (3, 2) around (1, 1)")
    close(sae.decode(sae.encode(x)).detach(), x, "(3, 2), encoded and decoded")
    close(sae.loss(x, 0.5).detach(), torch.tensor(1.5), "the loss with l1 = 0.5, without any error")


@exercise("SparseAutoencoder")
def test_renorm_gives_unit_rows(exercises):
    """After renorm_decoder each row of W_dec has norm 1."""
    sae = exercises.SparseAutoencoder(3, 4)
    sae.load_state_dict({name: 2.5 * p.detach() for name, p in sae.state_dict().items()})
    sae.renorm_decoder()
    close(sae.W_dec.detach().norm(dim=1), torch.ones(4), "the norms of the rows")


@exercise("steering_vector")
def test_padding_does_not_steer(exercises):
    """Equal examples, one batch padded, give the zero vector."""
    model = trained(exercises, "names")
    plain, padded = torch.tensor([[8, 3, 9]]), torch.tensor([[8, 3, 9, 0, 0]])
    got = exercises.steering_vector(model, padded, plain, 1, pad=0)
    roughly(got, torch.zeros(32), 1e-5, "the difference between examples and the same examples, padded")  # float32


@exercise("steering_vector")
def test_scale_zero_changes_nothing(exercises):
    """With scale 0 generation is greedy; a long push along a row wins."""
    model = trained(exercises, "names")
    ids = torch.tensor([[8, 3, 9, 5, 10, 11, 3, 12, 13]])
    exact(exercises.generate_steered(model, ids, torch.ones(32), 1, 0.0, 1)[0, -1].item(), 5, "the next id, scale 0")
    push = model.unembed.weight.detach()[6]
    exact(exercises.generate_steered(model, ids, push, 2, 1e3, 1)[0, -1].item(), 6, "the next id, pushed towards id 6")


@exercise("steering_vector")
def test_topk_keeps_exactly_k(exercises):
    """Of equal entries the first are kept, so exactly k stay."""
    x = torch.tensor([[2.0, 5, 5, 5], [-1, -3, -2, -9]])
    expected = torch.tensor([[0.0, 5, 5, 0], [-1, 0, -2, 0]])
    exact(exercises.topk_activation(x, 2), expected, "topk_activation(x, 2)")
    with pytest.raises(ValueError):
        exercises.topk_activation(x, -1)
