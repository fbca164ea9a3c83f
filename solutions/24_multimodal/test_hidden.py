"""The whole contract of chapter 24, against PyTorch's own operations, brute force and data whose truth is known."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from grader.testing import close, counting, dataset, driver, exact, exercise, holds, numerical_gradient, pure

DOUBLE = torch.float64
FLOOR = {"digits": 0.90, "trained loss": 0.60, "zero-shot": 0.70, "never shown": 0.40}


def unit(x):
    """Bring the rows to length 1."""
    return x / x.square().sum(-1, keepdim=True).sqrt()


# ------------------------------------------------------------------------------- patchify, unpatchify, patch_embed

SHAPES = (((2, 3, 6, 8), 2), ((1, 2, 9, 3), 3), ((3, 1, 4, 10), 2), ((2, 5, 3, 2), 1), ((1, 3, 4, 4), 4))


@exercise("patchify", weight=2)
def test_patchify_agrees_with_unfold(exercises, rng):
    """Patches come row by row; within one: channel, row, column."""
    for shape, p in SHAPES:
        images = rng.normal(*shape)
        exact(pure(exercises.patchify, images, p), F.unfold(images, p, stride=p).mT, f"patchify of {shape}, p={p}")


@exercise("patchify")
def test_patchify_takes_any_dtype_and_layout(exercises, rng):
    """Whole numbers stay whole, and images need not be contiguous."""
    images = rng.integers(0, 255, 4, 6, 2, 3).to(torch.uint8).permute(3, 2, 0, 1)  # (3, 2, 4, 6), a view
    got = exercises.patchify(images, 2)
    expected = torch.stack([images[:, :, i : i + 2, j : j + 2].flatten(1) for i in (0, 2) for j in (0, 2, 4)], 1)
    exact(got, expected, "patchify of a permuted uint8 tensor")
    exact(exercises.unpatchify(got, 2, 4, 6), images.contiguous(), "unpatchify of its patches")


@exercise("patchify")
def test_patchify_needs_whole_patches(exercises):
    """A height or a width that p does not divide is a ValueError."""
    for shape, p in (((1, 2, 5, 4), 2), ((1, 2, 4, 5), 2), ((2, 1, 9, 6), 4), ((1, 1, 2, 2), 3)):
        with pytest.raises(ValueError):
            exercises.patchify(torch.zeros(shape), p)


@exercise("patchify")
def test_unpatchify_agrees_with_fold(exercises, rng):
    """Putting patches back gives the image, whatever its shape."""
    for (B, C, H, W), p in SHAPES:
        patches = rng.normal(B, H // p * (W // p), C * p * p)
        expected = F.fold(patches.mT, (H, W), p, stride=p)
        exact(pure(exercises.unpatchify, patches, p, H, W), expected, f"unpatchify to {(B, C, H, W)}, p={p}")


@exercise("patchify")
def test_patchify_and_back(exercises, rng):
    """Cutting and putting back gives the same image, to the last bit."""
    for shape, p in SHAPES:
        images = rng.normal(*shape)
        back = exercises.unpatchify(exercises.patchify(images, p), p, *shape[2:])
        exact(back, images, f"the round trip of images {shape}, p={p}")


@exercise("patchify", weight=2)
def test_patch_embed_is_a_convolution(exercises, rng):
    """One linear map on each patch is a convolution of stride p."""
    for (shape, p), D in zip(SHAPES, (7, 4, 5, 3, 9), strict=True):
        images, W, b = rng.normal(*shape), rng.normal(D, shape[1], p, p), rng.normal(D)
        expected = F.conv2d(images, W, b, stride=p).flatten(2).mT
        close(pure(exercises.patch_embed, images, W, b, p), expected, f"patch_embed of {shape}, p={p}, D={D}")


# --------------------------------------------------------------------------------------------------------------- ViT

WIDE = {"size": (4, 6), "channels": 3, "p": 2, "D": 8, "depth": 2, "heads": 2, "classes": 5}
SMALL = {"size": (6, 3), "channels": 1, "p": 3, "D": 6, "depth": 3, "heads": 3, "classes": 4}


def vit_shapes(cfg):
    """The names and shapes of all parameters of a ViT."""
    D, p, (H, W) = cfg["D"], cfg["p"], cfg["size"]
    shapes = {"cls": (1, 1, D), "positions": (1, 1 + H // p * (W // p), D)}
    linear = {"patch": (D, cfg["channels"] * p * p), "head": (cfg["classes"], D)}
    norms = ["norm"]
    for n in range(cfg["depth"]):
        for name, shape in (("qkv", (3 * D, D)), ("out", (D, D)), ("up", (4 * D, D)), ("down", (D, 4 * D))):
            linear[f"blocks.{n}.{name}"] = shape
        norms += [f"blocks.{n}.norm1", f"blocks.{n}.norm2"]
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes | {f"{name}.{part}": (D,) for name in norms for part in ("weight", "bias")}


def loaded(exercises, rng, cfg):
    """A ViT with random weights of size about 0.5, and the weights."""
    vit = exercises.ViT(cfg).double()
    state = {name: 0.5 * rng.normal(*shape) for name, shape in vit_shapes(cfg).items()}
    vit.load_state_dict(state)
    return vit, state


def vit_by_hand(state, cfg, images):
    """A vision transformer written as one function of its weights."""
    w, D, p, H = state, cfg["D"], cfg["p"], cfg["heads"]
    x = F.linear(F.unfold(images, p, stride=p).mT, w["patch.weight"], w["patch.bias"])
    old, new = [(size[0] // p, size[1] // p) for size in (cfg["size"], images.shape[2:])]
    grid = w["positions"][:, 1:].mT.reshape(1, D, *old)
    grid = F.interpolate(grid, new, mode="bilinear", align_corners=False).flatten(2).mT
    x = torch.cat([(w["cls"] + w["positions"][:, :1]).expand(len(x), 1, D), x + grid], 1)
    for n in range(cfg["depth"]):
        b = {name.removeprefix(f"blocks.{n}."): v for name, v in w.items() if name.startswith(f"blocks.{n}.")}
        h = F.layer_norm(x, (D,), b["norm1.weight"], b["norm1.bias"])
        q, k, v = (
            part.unflatten(-1, (H, -1)).transpose(1, 2)
            for part in F.linear(h, b["qkv.weight"], b["qkv.bias"]).chunk(3, -1)
        )
        h = (q @ k.mT / (D // H) ** 0.5).softmax(-1) @ v
        x = x + F.linear(h.transpose(1, 2).flatten(2), b["out.weight"], b["out.bias"])
        h = F.gelu(F.linear(F.layer_norm(x, (D,), b["norm2.weight"], b["norm2.bias"]), b["up.weight"], b["up.bias"]))
        x = x + F.linear(h, b["down.weight"], b["down.bias"])
    x = F.layer_norm(x[:, 0], (D,), w["norm.weight"], w["norm.bias"])
    return F.linear(x, w["head.weight"], w["head.bias"])


@exercise("ViT", weight=2)
def test_vit_with_given_weights(exercises, rng):
    """With weights loaded it computes what the definition says."""
    for cfg in (WIDE, SMALL):
        vit, state = loaded(exercises, rng, cfg)
        images = rng.normal(3, cfg["channels"], *cfg["size"])
        close(vit(images), vit_by_hand(state, cfg, images), f"the logits of ViT, images {tuple(images.shape)}")


@exercise("ViT")
def test_vit_has_the_promised_parameters(exercises):
    """Its state_dict has the promised names and shapes, and no others."""
    for cfg in (WIDE, SMALL):
        state = pure(exercises.ViT, cfg).state_dict()
        exact({name: tuple(value.shape) for name, value in state.items()}, vit_shapes(cfg), "names and shapes")


@exercise("ViT")
@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
def test_vit_needs_whole_patches(exercises, size):
    """An image size that p does not divide is refused when it is built."""
    with pytest.raises(ValueError):
        exercises.ViT(WIDE | {"size": size})


@exercise("ViT")
def test_vit_sees_order_only_through_positions(exercises, rng):
    """Without positions, shuffled patches give the same logits; with, not."""
    vit, state = loaded(exercises, rng, WIDE)
    patches = rng.normal(2, 6, 12)
    images, shuffled = (F.fold(x.mT, (4, 6), 2, stride=2) for x in (patches, patches[:, [3, 1, 5, 0, 2, 4]]))
    holds(bool((vit(images) - vit(shuffled)).abs().max() > 1e-3), "With positions, the order of patches matters.")
    vit.load_state_dict(state | {"positions": torch.zeros(1, 7, 8, dtype=DOUBLE)})
    close(vit(shuffled), vit(images), "logits of shuffled patches, positions zero")


@exercise("ViT")
def test_vit_rows_are_independent(exercises, rng):
    """Changing one image of a batch leaves the logits of the others alone."""
    vit, _ = loaded(exercises, rng, SMALL)
    images = rng.normal(4, 1, 6, 3)
    before = vit(images)
    images[2] += 1.0
    after = vit(images)
    close(after[[0, 1, 3]], before[[0, 1, 3]], "the logits of the images that did not change")
    close(vit(images[2:3]), after[2:3], "the logits of one image alone")


@exercise("ViT", weight=2)
def test_vit_on_images_of_another_size(exercises, rng):
    """Positions are stretched as a grid; that of the class token is not."""
    vit, state = loaded(exercises, rng, WIDE)
    for size in ((8, 10), (6, 4), (2, 12), (4, 2)):  # (6, 4) has as many patches as (4, 6), in another grid
        images = rng.normal(2, 3, *size)
        close(vit(images), vit_by_hand(state, WIDE, images), f"the logits of images of {size}, learned on (4, 6)")
    exact(dict(vit.state_dict()), state, "the parameters afterwards")


@driver
def train_vit(module, cfg, images, labels, unseen, steps):
    """Train a ViT with Adam; give the logits of unseen images, and which parameters never had a gradient."""
    import torch

    torch.manual_seed(0)
    vit = module.ViT(cfg)
    parameters = dict(vit.named_parameters())
    first, second = ({name: torch.zeros_like(p) for name, p in parameters.items()} for _ in range(2))
    for step in range(steps):
        batch = torch.arange(64 * step, 64 * (step + 1)) % len(images)
        vit.zero_grad()
        torch.nn.functional.cross_entropy(vit(images[batch]), labels[batch]).backward()
        rate = 0.005 * min(1, (step + 1) / 20) * (1 - step / steps)
        with torch.no_grad():
            for name, p in parameters.items():
                if p.grad is not None:
                    first[name].lerp_(p.grad, 0.1)
                    second[name].lerp_(p.grad**2, 0.01)
                    m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.99 ** (step + 1))
                    p -= rate * m / (v.sqrt() + 1e-8)
    with torch.no_grad():
        return vit(unseen), [name for name, moment in second.items() if not moment.any()]


@exercise("ViT", weight=2)
def test_vit_learns_to_read_digits(exercises):
    """Trained for two seconds or less, it reads digits that it never saw."""
    shapes = dataset("shapes")
    cfg = {"size": (8, 8), "channels": 1, "p": 4, "D": 32, "depth": 2, "heads": 4, "classes": 10}
    (images, labels), (unseen, truth) = shapes.digits(24, 2000), shapes.digits(25, 500)
    images, unseen = (torch.from_numpy(x).float()[:, None] for x in (images, unseen))
    logits, idle = exercises.run(train_vit, cfg, images, torch.from_numpy(labels), unseen, 120)
    exact(idle, [], "the parameters that never got a gradient")
    share = (logits.argmax(1).numpy() == truth).mean()
    holds(bool(share >= FLOOR["digits"]), f"{share:.3f} of 500 unseen digits are read; {FLOOR['digits']} are needed.")


# --------------------------------------------------------------------------------------------------------- clip_loss


def clip_by_hand(img, txt, log_scale):
    """The symmetric loss, from its definition by log-sum-exp."""
    logits = unit(img) @ unit(txt).T * min(math.exp(float(log_scale)), 100.0)
    return (torch.logsumexp(logits, 0) + torch.logsumexp(logits, 1) - 2 * logits.diagonal()).mean() / 2


def scalar(value):
    """A 0-d float64 tensor."""
    return torch.tensor(float(value), dtype=DOUBLE)


@exercise("clip_loss", weight=2)
def test_clip_loss_by_definition(exercises, rng):
    """It is the mean of both directions of cross-entropy on scaled cosines."""
    for B, D, log_scale in ((5, 3, 0.7), (2, 7, 1.9), (8, 4, -0.5), (1, 3, 1.0)):
        img, txt = 3 * rng.normal(B, D), 0.2 * rng.normal(B, D)
        expected = clip_by_hand(img, txt, log_scale)
        close(pure(exercises.clip_loss, img, txt, scalar(log_scale)), expected, f"clip_loss, B={B}, D={D}")


@exercise("clip_loss")
def test_clip_loss_ignores_length(exercises, rng):
    """Each feature may be stretched without any effect."""
    img, txt, scale = rng.normal(6, 4), rng.normal(6, 4), scalar(1.3)
    stretch = 10 ** (4 * rng.uniform(6, 1) - 2)
    close(exercises.clip_loss(img * stretch, txt, scale), clip_by_hand(img, txt, 1.3), "img stretched")
    close(exercises.clip_loss(img, txt * stretch, scale), clip_by_hand(img, txt, 1.3), "txt stretched")


@exercise("clip_loss")
def test_clip_loss_is_symmetric(exercises, rng):
    """Images and texts may change roles, and pairs may change places."""
    img, txt, scale = rng.normal(7, 3), rng.normal(7, 3), scalar(1.6)
    expected, order = clip_by_hand(img, txt, 1.6), rng.permutation(7)
    close(exercises.clip_loss(txt, img, scale), expected, "clip_loss(txt, img)")
    close(exercises.clip_loss(img[order], txt[order], scale), expected, "clip_loss of shuffled pairs")


@exercise("clip_loss")
def test_clip_loss_stops_at_a_scale_of_100(exercises, rng):
    """Scales below 100 count as they are, larger ones as 100."""
    img = rng.normal(5, 4)
    txt = img + 0.3 * rng.normal(5, 4)
    txt[1] = -img[2]  # one pair is far apart, so the loss is far from zero at any scale
    for log_scale in (150.0, math.log(400), math.log(101), math.log(99.5), math.log(80)):
        expected = clip_by_hand(img, txt, log_scale)
        close(exercises.clip_loss(img, txt, scalar(log_scale)), expected, f"clip_loss, scale e^{log_scale:.3f}")


@exercise("clip_loss")
def test_clip_loss_at_its_ends(exercises, rng):
    """Aligned pairs cost nothing at a high scale; equal features cost ln B."""
    basis = torch.eye(6, dtype=DOUBLE)
    holds(
        0 <= float(exercises.clip_loss(basis, 5 * basis, scalar(math.log(100)))) < 1e-9, "Aligned pairs cost nothing."
    )
    same = rng.normal(1, 4).expand(6, 4)
    close(exercises.clip_loss(same, same, scalar(2.0)), scalar(math.log(6)), "clip_loss when all features are equal")


@driver
def clip_gradients(module, img, txt, log_scale):
    """The gradients of the loss."""
    inputs = [x.clone().requires_grad_(True) for x in (img, txt, log_scale)]
    module.clip_loss(*inputs).backward()
    return [x.grad for x in inputs]


@exercise("clip_loss")
def test_clip_loss_teaches_all_three(exercises, rng):
    """Gradients reach the images, the texts and the scale."""
    img, txt, log_scale = rng.normal(4, 3), rng.normal(4, 3), scalar(0.8)
    got = exercises.run(clip_gradients, img, txt, log_scale)
    # Central differences in float64 are good to about 1e-9 here; the gradients are about 0.1.
    for name, gradient, expected in (
        ("img", got[0], numerical_gradient(lambda x: clip_by_hand(x, txt, log_scale), img)),
        ("txt", got[1], numerical_gradient(lambda x: clip_by_hand(img, x, log_scale), txt)),
        ("log_scale", got[2], numerical_gradient(lambda x: clip_by_hand(img, txt, x), log_scale)),
    ):
        holds(bool((gradient - expected).abs().max() < 1e-6), f"the gradient of {name} is {gradient}")


@driver
def train_towers(module, images, ids, words, queries, unseen, steps):
    """Train a small picture tower and a bag of words with module.clip_loss; give features of texts and of pictures."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    picture = nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32)
    )
    table = nn.Parameter(torch.randn(words, 32))
    log_scale = nn.Parameter(torch.tensor(2.66))
    text = lambda rows: (table[rows] * (rows > 0)[..., None]).sum(1)  # noqa: E731
    parameters = [*picture.parameters(), table, log_scale]
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for step in range(steps):
        batch = torch.arange(64 * step, 64 * (step + 1)) % len(images)
        for p in parameters:
            p.grad = None
        module.clip_loss(picture(images[batch]), text(ids[batch]), log_scale).backward()
        rate = 0.005 * min(1, (step + 1) / 10) * (1 - step / steps)
        with torch.no_grad():
            for p, m, v in zip(parameters, first, second, strict=True):
                if p.grad is not None:
                    m.lerp_(p.grad, 0.1)
                    v.lerp_(p.grad**2, 0.01)
                    p -= rate * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.99 ** (step + 1))).sqrt() + 1e-8)
    with torch.no_grad():
        return text(queries), picture(unseen)


HELD_OUT = [("red", "circle"), ("green", "cross"), ("blue", "square"), ("yellow", "triangle")]


@functools.cache
def scenes():
    """Pictures and captions to learn from, in which four pairs of colour and shape never occur, and unseen pictures."""
    shapes = dataset("shapes")
    images, captions, _ = shapes.scenes(24, 2000, without=HELD_OUT)
    unseen, _, truth = shapes.scenes(25, 500)
    names = [f"{colour} {shape}" for colour in shapes.COLOURS for shape in shapes.SHAPES]
    templates = [shapes.caption(z, 0, 0, p).replace("red circle", "{}") for z in range(2) for p in range(5)]
    label = torch.from_numpy(truth[:, 1] * 4 + truth[:, 2])
    new = torch.tensor([names[n].split() in [list(pair) for pair in HELD_OUT] for n in label])
    ids = torch.from_numpy(shapes.tokens(captions))
    prompts = [template.replace("{}", name) for name in names for template in templates]
    queries = torch.from_numpy(shapes.tokens(prompts))
    pictures = [torch.from_numpy(x).float() for x in (images, unseen)]
    return SimpleNamespace(
        job=(pictures[0], ids, len(shapes.WORDS), queries, pictures[1]),
        names=names,
        templates=templates,
        prompts=prompts,
        label=label,
        new=new,
    )


@exercise("clip_loss", weight=2)
def test_clip_loss_brings_pictures_and_captions_together(exercises):
    """Trained with it, two small towers name what a picture shows."""
    s = scenes()
    texts, pictures = exercises.run(train_towers, *s.job, 120)
    directions = unit(unit(texts).unflatten(0, (len(s.names), -1)).mean(1))
    share = (((pictures @ directions.T).argmax(1)) == s.label).double().mean()
    wanted = FLOOR["trained loss"]
    holds(bool(share >= wanted), f"{share:.3f} of 500 unseen pictures get the right name; {wanted} are needed.")


# --------------------------------------------------------------------------------------- zero_shot, retrieval_at_k


def encoder(table):
    """A text encoder that knows only the sentences of a table, and counts its calls."""
    return counting(lambda texts: torch.stack([table[text] for text in texts]))


def planted(rng, names, templates, D):
    """Random features of very different lengths for every sentence."""
    return {t.replace("{}", name): 10 ** (2 * rng.uniform(1) - 1) * rng.normal(D) for name in names for t in templates}


@exercise("zero_shot", weight=2)
def test_zero_shot_by_definition(exercises, rng):
    """Scores are cosines to the normalised mean of normalised features."""
    names, templates = ["cat", "red bus", "a b", "z"], ["a {}", "{}!", "one {} at dawn"]
    for some in (templates, templates[1:2]):
        table, img = planted(rng, names, some, 5), 7 * rng.normal(6, 5)
        labels, scores = pure(exercises.zero_shot, img, names, encoder(table), some)
        means = [
            sum(table[t.replace("{}", name)] / table[t.replace("{}", name)].norm() for t in some) for name in names
        ]
        expected = torch.stack([torch.stack([F.cosine_similarity(x, m, 0) for m in means]) for x in img])
        close(scores, expected, f"the scores with {len(some)} templates")
        exact(labels, expected.argmax(1), f"the labels with {len(some)} templates")


@exercise("zero_shot")
def test_zero_shot_normalises_the_mean(exercises):
    """A class whose descriptions disagree is not punished for it."""
    table = {"a x": [1.0, 0, 0], "the x": [0.0, 1, 0], "a y": [0.6, 0, 0.8], "the y": [0.6, 0, 0.8]}
    table = {text: torch.tensor(feature, dtype=DOUBLE) for text, feature in table.items()}
    img = torch.tensor([[1.0, 1.0, 0.9]], dtype=DOUBLE)
    # x: (1, 1, 0) / sqrt(2) scores 1.414 / |img|; y scores 1.32 / |img|. Without the last step x has 1.0 / |img|.
    labels, scores = exercises.zero_shot(img, ["x", "y"], encoder(table), ["a {}", "the {}"])
    close(scores, torch.tensor([[2**0.5, 1.32]], dtype=DOUBLE) / 2.81**0.5, "the scores of x and y")
    exact(labels, torch.tensor([0]), "the label")


@exercise("zero_shot")
def test_zero_shot_weighs_templates_alike(exercises):
    """A template whose feature is long counts no more than the others."""
    table = {"a x": [100.0, 0.0], "the x": [0.0, 1.0], "a y": [0.0, 1.0], "the y": [1.0, 5.0]}
    table = {text: torch.tensor(feature, dtype=DOUBLE) for text, feature in table.items()}
    img = torch.tensor([[1.0, 0.9], [1.0, 4.0]], dtype=DOUBLE)
    labels, scores = exercises.zero_shot(img, ["x", "y"], encoder(table), ["a {}", "the {}"])
    x = torch.tensor([0.5, 0.5], dtype=DOUBLE)
    close(scores[:, 0], unit(img) @ unit(x), "the scores of the class whose first feature is a hundred times as long")
    exact(labels, torch.tensor([0, 1]), "the labels")


@exercise("zero_shot")
def test_zero_shot_follows_the_order_of_the_classes(exercises, rng):
    """Naming the classes in another order reorders the scores, no more."""
    names, templates = ["p", "q", "r", "s", "t"], ["a {}", "{} here"]
    table, img, order = planted(rng, names, templates, 4), rng.normal(7, 4), [3, 0, 4, 1, 2]
    _, scores = exercises.zero_shot(img, names, encoder(table), templates)
    labels, moved = exercises.zero_shot(img, [names[n] for n in order], encoder(table), templates)
    close(moved, scores[:, order], "the scores in the other order")
    exact(labels, scores[:, order].argmax(1), "the labels in the other order")


@functools.cache
def trained():
    """Towers trained by a loss of our own, once."""
    s = scenes()
    loss = lambda img, txt, log_scale: (  # noqa: E731
        sum(
            F.cross_entropy(logits, torch.arange(len(logits)))
            for logits in (unit(img) @ unit(txt).T * log_scale.exp(), unit(txt) @ unit(img).T * log_scale.exp())
        )
        / 2
    )
    texts, pictures = train_towers(SimpleNamespace(clip_loss=loss), *s.job, 200)
    return dict(zip(s.prompts, texts, strict=True)), pictures


@exercise("zero_shot", weight=2)
def test_zero_shot_names_what_was_never_labelled(exercises):
    """With trained towers it names pictures, even pairs that never occurred."""
    s, (table, pictures) = scenes(), trained()
    labels, scores = exercises.zero_shot(pictures, s.names, encoder(table), s.templates)
    exact(scores.dtype, torch.float32, "the dtype of the scores of float32 features")
    for which, what in ((slice(None), "zero-shot"), (s.new, "never shown")):
        share = (labels == s.label)[which].double().mean()
        holds(bool(share >= FLOOR[what]), f"{what}: {share:.3f} get the right name, {FLOOR[what]} are needed.")


@exercise("zero_shot", weight=2)
def test_retrieval_by_sorting(exercises, rng):
    """It counts the partners among the k nearest, in both directions."""
    img = rng.normal(9, 4)
    txt = (img + 0.8 * rng.normal(9, 4)) * 10 ** (rng.uniform(9, 1) * 3 - 1)
    img[3:5] *= 20
    cosine = F.cosine_similarity(img[:, None], txt[None], -1)
    for k in (1, 2, 4, 9):
        expected = tuple(
            sum(n in sorted(range(9), key=row.__getitem__)[-k:] for n, row in enumerate(c.tolist())) / 9
            for c in (cosine, cosine.T)
        )
        close(pure(exercises.retrieval_at_k, img, txt, k), expected, f"retrieval_at_k of 9 pairs, k={k}")


@exercise("zero_shot")
def test_retrieval_has_two_directions(exercises):
    """An image that is near to all texts is found by each; it finds one."""
    angle = torch.tensor([0.0, 0.5, 0.62, 0.9, 2.0], dtype=DOUBLE)  # of texts; images lie elsewhere
    txt = torch.stack([angle.cos(), angle.sin()], 1)
    angle = torch.tensor([0.49, 0.52, 2.5, 2.9, 3.05], dtype=DOUBLE)
    img = torch.stack([angle.cos(), angle.sin()], 1)
    for k in (1, 2, 3):
        gaps = torch.tensor([[abs(a - b) for b in (0.0, 0.5, 0.62, 0.9, 2.0)] for a in angle.tolist()])
        texts = sum(int((row < row[n]).sum()) < k for n, row in enumerate(gaps)) / 5
        images = sum(int((row < row[n]).sum()) < k for n, row in enumerate(gaps.T)) / 5
        close(exercises.retrieval_at_k(img, txt, k), (texts, images), f"retrieval of points on a circle, k={k}")


@exercise("zero_shot")
def test_retrieval_beyond_the_batch(exercises, rng):
    """With k of B or more everything is found."""
    img, txt = rng.normal(4, 3), rng.normal(4, 3)
    for k in (4, 5, 50):
        exact(exercises.retrieval_at_k(img, txt, k), (1.0, 1.0), f"retrieval_at_k of 4 pairs, k={k}")


# ---------------------------------------------------------------------- vector_quantize, code_perplexity, ema_update


@exercise("vector_quantize", weight=2)
def test_quantize_by_measuring_every_distance(exercises, rng):
    """Each vector gets the code at the smallest Euclidean distance."""
    for shape, K in (((2, 3, 5), 7), ((40, 3), 6), ((4,), 9), ((1, 2, 2, 2), 1)):
        z, codebook = rng.normal(*shape), rng.normal(K, shape[-1]) * (0.3 + 2 * rng.uniform(K, 1))
        zq, idx = pure(exercises.vector_quantize, z, codebook)
        rows = z.reshape(-1, shape[-1]).tolist()
        nearest = [min(range(K), key=lambda k: math.dist(row, codebook[k].tolist())) for row in rows]  # noqa: B023
        exact(idx, torch.tensor(nearest).reshape(shape[:-1]), f"idx for z {shape} and {K} codes")
        close(zq, codebook[idx], f"zq for z {shape} and {K} codes")


@exercise("vector_quantize")
def test_quantize_breaks_ties_downwards(exercises):
    """Of equally near codes the lowest row is taken."""
    codebook = torch.tensor([[4.0, 0], [1, 1], [3, 1], [1, 1], [1, 3], [3, 3]], dtype=DOUBLE)
    z = torch.tensor([[2.0, 1], [1, 2], [2, 2], [1, 1], [3, 2]], dtype=DOUBLE)
    _, idx = exercises.vector_quantize(z, codebook)
    exact(idx, torch.tensor([1, 1, 1, 1, 2]), "idx of vectors between codes")


@exercise("vector_quantize")
def test_quantize_is_idempotent(exercises, rng):
    """What is a code already stays, though a longer code points its way."""
    codebook = rng.normal(5, 4)
    codebook = torch.cat([codebook, 1.5 * codebook])
    zq, idx = exercises.vector_quantize(codebook, codebook)
    exact(idx, torch.arange(10), "idx of the codes themselves")
    close(exercises.vector_quantize(zq, codebook)[0], codebook, "zq of the codes, quantized again")


@driver
def quantize_gradients(module, z, codebook, weight):
    """Gradients of a weighted sum of zq; None where there is none."""
    z, codebook = z.clone().requires_grad_(True), codebook.clone().requires_grad_(True)
    zq, _ = module.vector_quantize(z, codebook)
    (zq * weight).sum().backward()
    return z.grad, codebook.grad


@exercise("vector_quantize", weight=2)
def test_quantize_passes_gradients_straight_through(exercises, rng):
    """z gets the gradient of zq, and the codebook gets none."""
    z, codebook, weight = rng.normal(3, 4, 5), rng.normal(6, 5), rng.normal(3, 4, 5)
    for_z, for_codes = exercises.run(quantize_gradients, z, codebook, weight)
    holds(for_z is not None, "z has no gradient.")
    close(for_z, weight, "the gradient of z")
    holds(for_codes is None or not for_codes.any(), "The codebook got a gradient through zq.")


@exercise("vector_quantize")
def test_perplexity_by_definition(exercises, rng):
    """It is the exponential of the entropy of the shares, in nats."""
    for shape, K in (((40,), 7), ((3, 5), 20), ((2, 2, 2), 3)):
        idx = rng.integers(0, K, *shape)
        shares = [(idx == k).double().mean().item() for k in range(K)]
        expected = math.prod(s**-s for s in shares if s)
        close(exercises.code_perplexity(idx, K), expected, f"code_perplexity of {shape} entries, K={K}")


@exercise("vector_quantize")
def test_perplexity_at_its_ends(exercises):
    """One code in use gives 1; all equally often gives K."""
    for idx, K, expected in ((torch.full((2, 6), 4), 9, 1.0), (torch.arange(12).reshape(3, 4) % 6, 6, 6.0)):
        close(exercises.code_perplexity(idx, K), expected, f"code_perplexity, K={K}")


@exercise("vector_quantize", weight=2)
def test_ema_update_by_loops(exercises, rng):
    """A code moves to the mean of its vectors; an unused one stays."""
    for dtype, decay in ((DOUBLE, 0.9), (DOUBLE, 0.0), (torch.float32, 0.25), (DOUBLE, 1.0)):
        codebook, z = rng.normal(6, 3).to(dtype), rng.normal(2, 7, 3).to(dtype)
        idx = torch.tensor([[0, 2, 2, 2, 5, 0, 2], [5, 5, 2, 0, 2, 2, 4]])
        expected = codebook.clone()
        for k in (0, 2, 4, 5):
            expected[k] = decay * codebook[k] + (1 - decay) * z[idx == k].mean(0)
        close(pure(exercises.ema_update, codebook, z, idx, decay), expected, f"ema_update, decay={decay}, {dtype}")


# ----------------------------------------------------------------------- splice_image_tokens, splice_labels, Projector


def by_lists(ids, images, image_id, table):
    """Splice with Python lists: embeds, mask and positions."""
    rows, places = [], []
    for sequence, own in zip(ids, images, strict=True):
        own, row, place = list(own), [], []
        for j, token in enumerate(sequence):
            new = own.pop(0).tolist() if token == image_id else [table[token].tolist()]
            row += new
            place += [j] * len(new)
        rows.append(row)
        places.append(place)
    S, D = max(map(len, rows)), table.shape[1]
    embeds = torch.tensor([row + [[0.0] * D] * (S - len(row)) for row in rows], dtype=table.dtype)
    positions = torch.tensor([place + [-1] * (S - len(place)) for place in places])
    return embeds, positions >= 0, positions


BATCH = [[5, -200, 6, 7, -200, 1], [3, 3], [-200, -200, 2], [-200], [1, 2, 3, 4, 5, 6, 7, 0, 1, -200]]
COUNTS = [[2, 4], [], [3, 1], [5], [2]]


def images_of(rng, counts, D=4, dtype=DOUBLE):
    """Random embeddings for each image."""
    return [[rng.normal(n, D).to(dtype) for n in row] for row in counts]


@exercise("splice_image_tokens", weight=2)
def test_splice_by_lists(exercises, rng):
    """Every placeholder gives way to the rows of its own image, in order."""
    for image_id, dtype in ((-200, DOUBLE), (9, torch.float32), (-1, DOUBLE)):
        ids = [[image_id if token == -200 else token for token in sequence] for sequence in BATCH]
        table, images = rng.normal(9, 4).to(dtype), images_of(rng, COUNTS, dtype=dtype)
        got = pure(exercises.splice_image_tokens, ids, images, image_id, lambda text: table[text])  # noqa: B023
        exact(tuple(got), by_lists(ids, images, image_id, table), f"the splicing of {ids}")


@exercise("splice_image_tokens")
def test_splice_never_embeds_the_placeholder(exercises, rng):
    """The embedding is never given the placeholder, be it a valid id or not."""
    for image_id in (-200, 8):
        table, ids = (
            rng.normal(9, 4),
            [[image_id if token == -200 else token for token in sequence] for sequence in BATCH],
        )
        embed = counting(lambda text: table[text])  # noqa: B023
        exercises.splice_image_tokens(ids, images_of(rng, COUNTS), image_id, embed)
        seen = {token for arguments in embed.arguments for token in arguments[0].reshape(-1).tolist()}
        holds(image_id not in seen, f"embed was given the placeholder {image_id}.")


@exercise("splice_image_tokens")
def test_splice_leaves_text_alone(exercises, rng):
    """Without an image each row is the embedding of its token."""
    table, ids = rng.normal(9, 3), [[4, 0, 8, 8], [1]]
    embeds, mask, positions = exercises.splice_image_tokens(ids, [[], []], -200, lambda text: table[text])
    exact(embeds[0], table[ids[0]], "the embeddings of text alone")
    exact(mask, torch.tensor([[True] * 4, [True, False, False, False]]), "the mask of text alone")
    exact(positions, torch.tensor([[0, 1, 2, 3], [0, -1, -1, -1]]), "the positions of text alone")


@exercise("splice_image_tokens")
@pytest.mark.parametrize("counts", [[[2], []], [[2, 1, 1], []], [[1, 2], [1]], [[1], [1]]])
def test_splice_counts_placeholders(exercises, rng, counts):
    """Too few or too many images for a sequence is a ValueError."""
    table = rng.normal(9, 4)
    with pytest.raises(ValueError):
        exercises.splice_image_tokens([[-200, 3, -200], [1]], images_of(rng, counts), -200, lambda text: table[text])


@driver
def splice_gradients(module, ids, images, image_id, table, weight):
    """Gradients of a weighted sum of the spliced rows, for the table and for each image."""
    import torch

    table = table.clone().requires_grad_(True)
    images = [[image.clone().requires_grad_(True) for image in row] for row in images]
    embeds, _, _ = module.splice_image_tokens(
        ids, images, image_id, lambda text: torch.nn.functional.embedding(text, table)
    )
    (embeds * weight).sum().backward()
    return table.grad, [image.grad for row in images for image in row]


@exercise("splice_image_tokens")
def test_splice_lets_gradients_through(exercises, rng):
    """The projector behind the images and the embeddings can learn."""
    ids, table, images = BATCH[:3], rng.normal(9, 4), images_of(rng, COUNTS[:3])
    weight = torch.arange(3 * 10 * 4, dtype=DOUBLE).reshape(3, 10, 4)  # the longest of three has ten rows
    for_table, for_images = exercises.run(splice_gradients, ids, images, -200, table, weight)
    close(for_images, [weight[0, 1:3], weight[0, 5:9], weight[2, :3], weight[2, 3:4]], "the gradients of the images")
    close(for_table[[3, 5, 8]], torch.stack([weight[1, 0] + weight[1, 1], weight[0, 0], weight[0, 0] * 0]), "of text")


@exercise("splice_image_tokens")
def test_labels_follow_the_rows(exercises, rng):
    """Text keeps its label; images and padding get -100."""
    for image_id in (-200, 4):
        ids = [[image_id if token == -200 else token for token in sequence] for sequence in BATCH]
        counts = [[2 + n % 3 for n in range(row.count(image_id))] for row in ids]
        table = rng.normal(9, 4)
        _, _, positions = by_lists(ids, images_of(rng, counts), image_id, table)
        labels = [[int(x) for x in rng.integers(10, 99, len(row))] for row in ids]
        labels[0][2] = labels[4][0] = -100
        expected = [
            [-100 if j < 0 or ids[b][j] == image_id else labels[b][j] for j in row]
            for b, row in enumerate(positions.tolist())
        ]
        got = pure(exercises.splice_labels, ids, labels, positions, image_id)
        exact(got, torch.tensor(expected), f"splice_labels, image_id={image_id}")


@exercise("splice_image_tokens")
def test_projector_with_given_weights(exercises, rng):
    """Two linear maps with the exact GELU between them."""
    projector = exercises.Projector(5, 3)
    state = {"fc1.weight": rng.normal(3, 5), "fc1.bias": rng.normal(3), "fc2.weight": rng.normal(3, 3)}
    state["fc2.bias"] = rng.normal(3)
    exact({n: tuple(v.shape) for n, v in projector.state_dict().items()}, {n: tuple(v.shape) for n, v in state.items()})
    projector.double().load_state_dict(state)
    for shape in ((2, 7, 5), (4, 5)):
        x = rng.normal(*shape)
        h = x @ state["fc1.weight"].T + state["fc1.bias"]
        h = h * (1 + torch.erf(h / 2**0.5)) / 2
        close(projector(x), h @ state["fc2.weight"].T + state["fc2.bias"], f"Projector(5, 3) of {shape}")


# --------------------------------------------------------------------------------- stft_power, mel_filterbank, log_mel


def power_by_torch(x, n_fft, hop):
    """The power spectrum by PyTorch's own transform."""
    X = torch.stft(x.reshape(-1, x.shape[-1]), n_fft, hop, window=hann(n_fft), center=False, return_complex=True)
    return X.abs().square().reshape(*x.shape[:-1], *X.shape[1:])


def hann(n_fft):
    """The periodic Hann window."""
    return torch.hann_window(n_fft, dtype=DOUBLE)


def mel_points(n_mels, sr):
    """The corners of the triangles in Hz."""
    top = 2595 * np.log10(1 + sr / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, n_mels + 2) / 2595) - 1)


def triangles(n_mels, n_fft, sr):
    """The filterbank by linear interpolation between corners."""
    hz, f = mel_points(n_mels, sr), np.arange(n_fft // 2 + 1) * sr / n_fft
    return torch.from_numpy(np.stack([np.interp(f, hz[m : m + 3], [0, 1, 0]) for m in range(n_mels)]))


@exercise("stft_power", weight=2)
def test_stft_power_agrees_with_torch(exercises, rng):
    """Frames, window and transform are those of torch.stft, not centred."""
    for shape, n_fft, hop in (((50,), 16, 5), ((2, 3, 41), 8, 8), ((2, 37), 9, 4), ((30,), 30, 7), ((1, 31), 6, 11)):
        x = rng.normal(*shape)
        expected = power_by_torch(x, n_fft, hop)
        close(pure(exercises.stft_power, x, n_fft, hop), expected, f"stft_power of {shape}, n_fft={n_fft}, hop={hop}")


@exercise("stft_power")
def test_stft_power_keeps_the_energy(exercises, rng):
    """Over all frequencies the power is that of the windowed samples."""
    x = rng.normal(3, 60)
    power = exercises.stft_power(x, 12, 6)
    both_halves = torch.cat([power, power[:, 1:6]], dim=1).sum(1) / 12  # bins 1 to 5 stand for their mirror images too
    close(both_halves, (x.unfold(-1, 12, 6) * hann(12)).square().sum(-1), "the energy of each frame")


@exercise("stft_power")
def test_stft_power_of_a_tone(exercises):
    """A steady tone has its power at its own bin in every frame."""
    t = torch.arange(400, dtype=torch.float32)
    x = torch.stack([torch.cos(2 * math.pi * k * t / 40 + 0.3) for k in (3, 11)])
    power = exercises.stft_power(x, 40, 13)
    exact(power.dtype, torch.float32, "the dtype of stft_power of a float32 sound")
    exact(power.argmax(1), torch.tensor([3, 11])[:, None].expand(2, 28), "the loudest bin of each frame")


@exercise("stft_power")
def test_stft_power_moves_with_the_sound(exercises, rng):
    """A delay by one hop delays the picture by one frame."""
    x = rng.normal(80)
    power = exercises.stft_power(x, 20, 10)
    close(exercises.stft_power(x[10:], 20, 10), power[:, 1:], "stft_power of the sound without its first hop")


@exercise("stft_power")
@pytest.mark.parametrize("samples", [0, 7])
def test_stft_power_needs_a_frame(exercises, samples):
    """A sound shorter than one frame is a ValueError."""
    with pytest.raises(ValueError):
        exercises.stft_power(torch.zeros(2, samples), 8, 4)


@exercise("stft_power", weight=2)
def test_mel_filterbank_by_interpolation(exercises):
    """Triangles stand on points that are evenly spaced in HTK's mel."""
    for n_mels, n_fft, sr in ((5, 64, 8000), (80, 400, 16000), (3, 33, 22050), (1, 16, 1000), (40, 64, 8000)):
        got = exercises.mel_filterbank(n_mels, n_fft, sr)
        close(got, triangles(n_mels, n_fft, sr), f"mel_filterbank({n_mels}, {n_fft}, {sr})")


@exercise("stft_power")
def test_mel_triangles_share_each_frequency(exercises):
    """Between the first and the last peak the triangles sum to one."""
    fb = exercises.mel_filterbank(12, 512, 16000)
    hz, f = mel_points(12, 16000), np.arange(257) * 16000 / 512
    between = torch.from_numpy((f >= hz[1]) & (f <= hz[-2]))
    close(fb.sum(0)[between], torch.ones(int(between.sum()), dtype=DOUBLE), "the triangles, summed between the peaks")


@exercise("stft_power", weight=2)
def test_log_mel_by_its_parts(exercises, rng):
    """It is log10 of the triangles' shares of the power, floored."""
    for shape, sr, n_fft, hop, n_mels in (((900,), 8000, 128, 60, 10), ((2, 3, 300), 4000, 64, 32, 7)):
        x = rng.normal(*shape)
        expected = (triangles(n_mels, n_fft, sr) @ power_by_torch(x, n_fft, hop)).clamp(min=1e-10).log10()
        close(pure(exercises.log_mel, x, sr, n_fft, hop, n_mels), expected, f"log_mel of {shape}, sr={sr}")
    x = rng.normal(1000)
    expected = (triangles(80, 400, 16000) @ power_by_torch(x, 400, 160)).clamp(min=1e-10).log10()
    close(exercises.log_mel(x), expected, "log_mel of 1000 samples, all else by default")


@exercise("stft_power")
def test_log_mel_has_a_floor(exercises, rng):
    """Silence is -10, and what is louder than the floor is not lifted."""
    got = exercises.log_mel(torch.zeros(2, 500), 8000, 100, 50, 6)
    close(got, torch.full((2, 6, 9), -10.0), "log_mel of silence")
    x = 1e-6 * rng.normal(700)  # the power of some bands lies just above 1e-10, of others below
    expected = (triangles(20, 100, 8000) @ power_by_torch(x, 100, 50)).clamp(min=1e-10).log10()
    close(exercises.log_mel(x, 8000, 100, 50, 20), expected, "log_mel of a very faint sound")


@exercise("stft_power")
def test_log_mel_of_a_louder_sound(exercises, rng):
    """Ten times the amplitude adds 2 everywhere."""
    x = rng.normal(600)
    got = exercises.log_mel(10 * x, n_fft=200, hop=70, n_mels=9)
    close(got, exercises.log_mel(x, n_fft=200, hop=70, n_mels=9) + 2, "log_mel(10 x)")


@exercise("stft_power")
def test_log_mel_follows_a_gliding_tone(exercises):
    """The loudest band moves as the tone does."""
    sounds, hz = dataset("shapes").tones(24, 12, sr=8000, samples=4000)
    loudest = exercises.log_mel(torch.from_numpy(sounds), 8000, 512, 100, 24).argmax(1)  # (12, frames)
    centres = mel_points(24, 8000)[1:-1]
    for n in range(12):
        # frame f is centred at sample 100 f + 256; a band is at most 1.2 of half its width away from the tone
        at = hz[n, 0] + (hz[n, 1] - hz[n, 0]) * (100 * np.arange(loudest.shape[1]) + 256) / 4000
        nearest = np.abs(2595 * np.log10((700 + centres[:, None]) / (700 + at))).argmin(0)
        holds(bool((abs(loudest[n].numpy() - nearest) <= 1).all()), f"A tone from {hz[n, 0]:.0f} to {hz[n, 1]:.0f} Hz.")


# -------------------------------------------------------------------------- tubelets, subsample_frames, token_budget

VIDEOS = (((2, 3, 4, 6, 8), 2, 2), ((1, 2, 3, 4, 2), 3, 2), ((2, 1, 6, 3, 9), 2, 3), ((1, 4, 5, 2, 3), 1, 1))


@exercise("tubelets", weight=2)
def test_tubelets_by_cutting(exercises, rng):
    """Boxes come by time, row, column; inside: channel, frame, row, column."""
    for shape, t, p in VIDEOS:
        video = rng.normal(*shape)
        corners = [
            (a, i, j) for a in range(0, shape[2], t) for i in range(0, shape[3], p) for j in range(0, shape[4], p)
        ]
        boxes = [video[:, :, a : a + t, i : i + p, j : j + p].flatten(1) for a, i, j in corners]
        exact(pure(exercises.tubelets, video, t, p), torch.stack(boxes, 1), f"tubelets of {shape}, t={t}, p={p}")


@exercise("tubelets")
def test_tubelets_fit_a_convolution(exercises, rng):
    """A linear map on boxes is a 3-D convolution with stride as its kernel."""
    for shape, t, p in VIDEOS:
        video, W = rng.normal(*shape), rng.normal(7, shape[1], t, p, p)
        got = exercises.tubelets(video, t, p) @ W.flatten(1).T
        close(got, F.conv3d(video, W, stride=(t, p, p)).flatten(2).mT, f"tubelets of {shape} times a weight")


@exercise("tubelets")
def test_tubelets_of_one_frame(exercises, rng):
    """With t = 1 they are the patches of one frame after another."""
    video = rng.integers(0, 99, 3, 4, 2, 4, 6).permute(0, 2, 1, 3, 4)  # (3, 2, 4, 4, 6), a view
    frames = [F.unfold(video[:, :, n].double(), 2, stride=2).mT.long() for n in range(4)]
    exact(exercises.tubelets(video, 1, 2), torch.cat(frames, 1), "tubelets with t=1, of a permuted int64 tensor")


@exercise("tubelets")
def test_tubelets_need_whole_boxes(exercises):
    """Frames, height or width that do not fill boxes are a ValueError."""
    for shape in ((1, 1, 3, 4, 4), (1, 1, 4, 5, 4), (1, 1, 4, 4, 5), (1, 1, 1, 4, 4)):
        with pytest.raises(ValueError):
            exercises.tubelets(torch.zeros(shape), 2, 2)


@exercise("tubelets")
def test_tubelets_show_which_way_it_moves(exercises):
    """The order of frames inside a box tells the direction of a square."""
    films, directions = dataset("shapes").clips(24, 40)
    boxes = exercises.tubelets(torch.from_numpy(films), 4, 16).unflatten(-1, (4, 16, 16))  # (40, 2, 4, 16, 16)
    for n, (rows, columns) in enumerate([[(0, 1), (1, 0), (0, -1), (-1, 0)][d] for d in directions]):
        moved = boxes[n, :, :-1].roll((rows, columns), (-2, -1))
        exact(moved, boxes[n, :, 1:], "each frame of a box, moved by one step")


@driver
def frames_of_each(module, jobs):
    """subsample_frames for each (n, k)."""
    return [module.subsample_frames(n, k) for n, k in jobs]


@exercise("tubelets", weight=2)
def test_frames_are_evenly_spread(exercises):
    """Each frame is the nearest to its even place, first and last included."""
    jobs = [(n, k) for n in (1, 2, 3, 7, 10, 31, 100, 1801) for k in (1, 2, 3, 4, 6, 7, 8, 10, 31, 100) if k <= n]
    for (n, k), got in zip(jobs, exercises.run(frames_of_each, jobs), strict=True):
        exact((len(got), got[0], sorted(set(got))), (k, 0, list(got)), f"subsample_frames({n}, {k})")
        holds(k == 1 or got[-1] == n - 1, f"subsample_frames({n}, {k}) ends with {got[-1]}.")
        # whole numbers: twice the distance to i (n - 1) / (k - 1), times (k - 1), is at most k - 1
        off = [i for i, frame in enumerate(got) if 2 * abs(frame * (k - 1) - i * (n - 1)) > k - 1]
        exact(off, [], f"the places in subsample_frames({n}, {k}) = {got} that are not nearest")


@exercise("tubelets")
@pytest.mark.parametrize(("n", "k"), [(5, 6), (5, 0), (0, 1), (1, 2)])
def test_frames_that_do_not_exist(exercises, n, k):
    """More frames than there are, or none at all, is a ValueError."""
    with pytest.raises(ValueError):
        exercises.subsample_frames(n, k)


@driver
def budgets(module, jobs):
    """token_budget for each job."""
    return [module.token_budget(*job) for job in jobs]


@exercise("tubelets")
def test_token_budget_counts_boxes(exercises):
    """The budget is the number of boxes that fill the video."""
    jobs = [
        (224, 224, 1, 16, 1),
        (224, 224, 32, 16, 2),
        (6, 8, 4, 2, 2),
        (9, 3, 6, 3, 2),
        (336, 336, 1, 14, 1),
        (8, 4, 3, 4, 3),
    ]
    expected = [math.prod(h // p for h in (h, w)) * (frames // t) for h, w, frames, p, t in jobs]
    exact(exercises.run(budgets, jobs), expected, "token_budget of (h, w, frames, p, t)")


@exercise("tubelets")
def test_token_budget_needs_whole_boxes(exercises):
    """What does not fill whole boxes is a ValueError."""
    for job in ((5, 4, 2, 2, 1), (4, 5, 2, 2, 1), (4, 4, 3, 2, 2)):
        with pytest.raises(ValueError):
            exercises.token_budget(*job)
