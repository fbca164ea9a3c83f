"""What the figure of chapter 4 computes and says, held against the reference."""

import json
import re
from pathlib import Path

import torch

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
FIGURE = (Path(__file__).parents[2] / "chapters" / "04_embeddings" / "explore.js").read_text(encoding="utf-8")
DEFAULTS = json.loads(re.search(r"^export const defaults = (\{.*?\});\n", FIGURE, re.MULTILINE | re.DOTALL).group(1))
WORDS, QUESTIONS = DEFAULTS["words"], DEFAULTS["questions"]


def unit(E):
    return E / E.norm(dim=1, keepdim=True).clamp(min=1e-8)


def axes_of(E):
    centred = E - E.mean(dim=0)
    axes = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
    return axes * axes.gather(1, axes.abs().argmax(dim=1, keepdim=True)).sign()


@mirror("unit")
def directions(rng):
    E = rng.normal(5, 3) * torch.tensor([[1.0], [100.0], [0.01], [0.0], [1.0]])
    return [E], unit(E)


@mirror("cosine")
def cosine(rng):
    a, b = rng.normal(2, 6) * (0 if rng.seed == 0 else 1)
    return [a, b], reference.cosine_similarity_matrix(a[None], b[None]).item()


@mirror("nearest")
def nearest(rng):
    E, q, exclude = rng.normal(9, 4), rng.normal(4), rng.integers(0, 9, 2).tolist()
    k = int(rng.integers(1, 10))
    return [E, q, k, exclude], reference.nearest(E, q, k, exclude)


@mirror("query")
def query(rng):
    E, (a, b, c) = rng.normal(9, 4), rng.integers(0, 9, 3).tolist()
    q = unit(E)[b] - unit(E)[a] + unit(E)[c]
    assert reference.nearest(E, q, 3, (a, b, c)) == reference.analogy(E, a, b, c, 3)
    return [E, a, b, c], q


@mirror("principalAxes")
def principal_axes(rng):
    E = rng.normal(12, 5) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2]) + rng.normal(5)
    return [E], [E.mean(dim=0), *axes_of(E)]


def sentence(at, question, moved=None, right=0.0, up=0.0):
    E = unit(torch.tensor(DEFAULTS["tables"][at], dtype=torch.float64))
    a, b, c = (WORDS.index(word) for word in QUESTIONS[question])
    if moved is not None:
        first, second = axes_of(E)
        E[WORDS.index(moved)] += right * first + up * second
    answer = reference.analogy(E, a, b, c)[0]
    q = unit(E)[b] - unit(E)[a] + unit(E)[c]
    near = reference.cosine_similarity_matrix(E, q[None])[:, 0]
    of_question = reference.cosine_similarity_matrix(E[a, None], E[b, None]).item()
    asked = "{} is to {} as {} is to".format(*QUESTIONS[question])
    return (
        f"After {DEFAULTS['steps'][at]} steps: {asked} {WORDS[answer]}, cosine {near[answer]:.2f}. "
        f"With the three words of the question allowed, {WORDS[near.argmax()]} comes first at {near.max():.2f}. "
        f"The cosine of {WORDS[a]} and {WORDS[b]} is {of_question:.2f}."
    ).replace("-", "−")


@shown(steps=3, question=0)
def king_man_woman():
    return sentence(3, 0)


@shown(steps=0, question=0)
def before_training():
    return sentence(0, 0)


@shown(steps=1, question=2)
def early():
    return sentence(1, 2)


@shown(steps=3, question=0, moved="b", right=-0.8, up=0.5)
def woman_moved():
    return sentence(3, 0, "woman", -0.8, 0.5)
