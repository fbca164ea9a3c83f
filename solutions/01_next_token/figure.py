"""What the figure of chapter 1 computes and says, held against the reference."""

import json
import math
import re
from pathlib import Path

import numpy as np

from grader.testing import dataset, mirror, reference_of, shown

reference = reference_of(__file__)
markov = dataset("markov")
FIGURE = Path(__file__).parents[2] / "chapters" / "01_next_token" / "explore.js"
VOCABULARY = ["the", "cat", "sat", ".", "ran", "dog"]
DOCS = [
    [VOCABULARY.index(word) for word in text.split()] for text in ("the cat sat .", "the cat ran .", "the dog sat .")
]


def documents(rng, V):
    return [rng.integers(0, V, int(rng.integers(0, 12))).tolist() for _ in range(4)]


def named(counts):
    return {",".join(map(str, context)): {str(t): c for t, c in after.items()} for context, after in counts.items()}


def read(doc, counts, n, V, k):
    ids = [V] * (n - 1) + list(doc)
    probs = [reference.ngram_prob(counts, tuple(ids[i : i + n - 1]), ids[i + n - 1], V, k) for i in range(len(doc))]
    return [math.log(p) if p else -math.inf for p in probs]


@mirror("countNgrams")
def counts(rng):
    n, docs = int(rng.integers(1, 5)), documents(rng, 4)
    return [docs, n, 4], named(reference.count_ngrams(docs, n, bos=4))


@mirror("nextProbs")
def probabilities(rng):
    n, k, docs = int(rng.integers(1, 4)), float(rng.uniform(1)) * int(rng.integers(0, 2)), documents(rng, 4)
    counts, context = reference.count_ngrams(docs, n, bos=4), rng.integers(0, 5, n - 1).tolist()
    return [named(counts), context, 4, k], [reference.ngram_prob(counts, tuple(context), t, 4, k) for t in range(4)]


@mirror("logProbs")
def surprises(rng):
    n, k, docs = int(rng.integers(1, 4)), float(rng.integers(0, 3)) / 2, documents(rng, 4)
    counts, doc = reference.count_ngrams(docs, n, bos=4), rng.integers(0, 4, 9).tolist()
    return [named(counts), doc, n, 4, 4, k], read(doc, counts, n, 4, k)


@mirror("perplexity")
def perplexity(rng):
    logprobs = (-3 * rng.uniform(8)).tolist()
    return [logprobs], reference.perplexity(logprobs)


@mirror("sampleCategorical")
def sample(rng):
    probs, u = (rng.uniform(6) * rng.integers(0, 2, 6)).tolist() + [0.5, 0.0], float(rng.uniform(1))
    return [probs, u], reference.sample_categorical(probs, u)


@mirror("sampleCategorical")
def the_largest_point(rng):
    return [[0.1] * 10 + [0.0], math.nextafter(1, 0)], reference.sample_categorical(
        [0.1] * 10 + [0.0], math.nextafter(1, 0)
    )


@mirror("sampleSource")
def sample_source(rng):
    source, draws = rng.uniform(3, 3, 3), rng.uniform(20).tolist()
    ids = [int(3 * u) for u in draws[:2]]
    for u in draws[2:]:
        ids.append(reference.sample_categorical(source[ids[-2], ids[-1]].tolist(), u))
    return [source, draws], ids


@mirror("entropyRate")
def entropy_rate(rng):
    P = markov.transitions(rng.seed, 4, 2)
    return [P], markov.entropy_rate(P)


def of_worked_example(text, n, k):
    counts = reference.count_ngrams(DOCS, n, bos=6)
    return read([VOCABULARY.index(word) for word in text.split()], counts, n, 6, k)


@shown(n=2, k=1, text="the dog ran .")
def the_dog_ran():
    logprobs = of_worked_example("the dog ran .", 2, 1)
    p, perplexity = math.exp(sum(logprobs)), reference.perplexity(logprobs)
    return f"“the dog ran .” has probability {p:.5f} and perplexity {perplexity:.2f}."


@shown(n=3, k=0.5, text="the cat sat .")
def a_trigram():
    return f"and perplexity {reference.perplexity(of_worked_example('the cat sat .', 3, 0.5)):.2f}."


@shown(n=2, k=0, text="the dog ran .")
def impossible():
    return "“the dog ran .” has probability 0 and perplexity infinite."


@shown(n=3)
def the_floor():
    rows = re.search(r'"source": (\[.*?\])\n\}', FIGURE.read_text(encoding="utf-8"), re.DOTALL)
    floor = np.exp(markov.entropy_rate(np.array(json.loads(rows.group(1)))))
    return f"No model has less than {floor:.3f}, except by luck."
