"""What the figure of chapter 24 computes and says, held against the reference."""

import math

import torch
from torch.nn import functional as F

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
IMG = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
TXT = torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64)


@mirror("patchify")
def patchify(rng):
    p = int(rng.integers(1, 4))
    image = rng.normal(2 * p, 3 * p)
    return [image, p], reference.patchify(image[None, None], p)[0]


@mirror("place")
def place(rng):
    p = int(rng.integers(1, 4))
    H, W = 2 * p, 3 * p
    pixel = int(rng.integers(0, H * W))
    patches = reference.patchify(torch.arange(H * W).reshape(1, 1, H, W), p)[0]
    return [pixel, W, p], (patches == pixel).nonzero()[0]


@mirror("cosines")
def cosines(rng):
    img, txt = rng.normal(4, 3), rng.normal(4, 3)
    return [img, txt], F.cosine_similarity(img[:, None], txt[None], dim=-1)


@mirror("chosen")
def pictures_choose(rng):
    matrix = rng.normal(4, 4)
    return [matrix, 5, "pictures"], (5 * matrix).softmax(dim=1)


@mirror("chosen")
def captions_choose(rng):
    matrix = rng.normal(4, 4)
    return [matrix, 5, "captions"], (5 * matrix).softmax(dim=0)


@mirror("clipLoss")
def clip_loss(rng):
    img, txt, scale = rng.normal(4, 3), rng.normal(4, 3), float(rng.integers(1, 20))
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64)
    return [img, txt, scale], reference.clip_loss(img, txt, log_scale)


@mirror("clipLoss")
def the_scale_is_at_most_100(rng):
    txt = rng.normal(3, 4)
    img = txt + 0.1 * rng.normal(3, 4)
    return [img, txt, 150], reference.clip_loss(img, txt, torch.tensor(math.log(150), dtype=torch.float64))


def meeting(scale, degrees):
    """Say how pair 1 chooses each other, and the loss, when caption 1 is turned."""
    angle = math.radians(degrees)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    txt = torch.stack([TXT[0], turn @ TXT[1]])
    logits = scale * F.normalize(IMG, dim=1) @ F.normalize(txt, dim=1).T
    loss = reference.clip_loss(IMG, txt, torch.tensor(math.log(scale), dtype=torch.float64))
    return (
        f"Picture 1 gives its own caption {logits.softmax(1)[1, 1]:.4f}, "
        f"caption 1 its own picture {logits.softmax(0)[1, 1]:.4f}; CLIP's loss is {loss:.4f}."
    )


@shown(scale=4, turn=0)
def the_worked_example():
    return meeting(4, 0)


@shown(scale=14, turn=30)
def a_turned_caption():
    return meeting(14, 30)


def tokens(p, pixel):
    """Say what cutting a picture of 8 by 8 gives, and where a pixel goes."""
    N = reference.token_budget(8, 8, 1, p, 1)
    patches = reference.patchify(torch.arange(64).reshape(1, 1, 8, 8), p)[0]
    patch, entry = (patches == pixel).nonzero()[0].tolist()
    return (
        f"Patches of {p} by {p} make {N} tokens of {p * p} numbers, and attention compares {N * N} pairs; "
        f"pixel {pixel} is entry {entry} of patch {patch}."
    )


@shown(side=1, pixel=26)
def patches_of_two():
    return tokens(2, 26)


@shown(side=2, pixel=45)
def patches_of_four():
    return tokens(4, 45)
