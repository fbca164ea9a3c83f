"""Sentences in which the meaning of every noun is planted: an entity, a gender and a number.

`python datasets/planted_words/make.py` rewrites the files that card.toml lists, bit for bit, and fails if a digest
disagrees. Every function depends on its arguments alone. A word is an id, its place in WORDS.

A sentence is ten words in random order:

    1 noun            such as "queens": the ruler, feminine, plural; all 24 nouns are equally likely
    2 entity words    each one of the three of its entity, whatever the gender and the number
    2 gender words    each one of the four of its gender
    2 number words    each one of the four of its number
    3 little words    each one of six that go with everything, the first far more often than the last

Given the noun, all the others are independent. So the right answer to every analogy is known, and so is the
probability of every pair of words, hence the smallest loss of any embedding.
"""

import hashlib
import tomllib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

ENTITIES = {
    # the singulars and the plurals, masculine first, then the words that keep company with the entity
    "person": (("man", "woman"), ("men", "women"), ("adult", "citizen", "neighbour")),
    "ruler": (("king", "queen"), ("kings", "queens"), ("throne", "crown", "realm")),
    "heir": (("prince", "princess"), ("princes", "princesses"), ("palace", "youth", "title")),
    "player": (("actor", "actress"), ("actors", "actresses"), ("stage", "film", "role")),
    "server": (("waiter", "waitress"), ("waiters", "waitresses"), ("menu", "tray", "table")),
    "relative": (("uncle", "aunt"), ("uncles", "aunts"), ("family", "cousin", "wedding")),
}
GENDERS = (("he", "his", "him", "himself"), ("she", "her", "hers", "herself"))
NUMBERS = (("is", "was", "has", "one"), ("are", "were", "have", "many"))
LITTLE = {"the": 24, "of": 12, "and": 8, "in": 6, "to": 5, "with": 4}  # word: how often, out of 59
SLOTS = ("noun", "entity", "entity", "gender", "gender", "number", "number", "little", "little", "little")

ATTRIBUTES = {
    noun: (entity, gender, number)
    for entity, (singular, plural, _) in enumerate(ENTITIES.values())
    for number, forms in enumerate((singular, plural))
    for gender, noun in enumerate(forms)
}
"""The planted truth: noun: (entity, gender, number), each counted from 0."""

NOUNS = tuple(ATTRIBUTES)
WORDS = (
    *NOUNS,
    *(word for *_, company in ENTITIES.values() for word in company),
    *(word for words in (*GENDERS, *NUMBERS) for word in words),
    *LITTLE,
)
ID = {word: place for place, word in enumerate(WORDS)}


def slots() -> np.ndarray:
    """The probability of each word in each slot given the noun, shape (10, 24, V), before the order is shuffled."""
    companies = [company for *_, company in ENTITIES.values()]
    P = np.zeros((len(SLOTS), len(NOUNS), len(WORDS)))
    for row, (noun, (entity, gender, number)) in enumerate(ATTRIBUTES.items()):
        weights = {
            "noun": {noun: 1},
            "entity": dict.fromkeys(companies[entity], 1),
            "gender": dict.fromkeys(GENDERS[gender], 1),
            "number": dict.fromkeys(NUMBERS[number], 1),
            "little": LITTLE,
        }
        for place, slot in enumerate(SLOTS):
            for word, weight in weights[slot].items():
                P[place, row, ID[word]] = weight / sum(weights[slot].values())
    return P


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """A stream for each seed and purpose. RandomState is frozen: no release of numpy changes what it draws."""
    return np.random.RandomState([purpose, seed % 2**32, seed // 2**32])


def sentences(seed: int, size: int = 6000) -> np.ndarray:
    """Draw sentences, int64 (size, 10). A larger size with the same seed begins with the same sentences."""
    u = stream(seed, 0).random_sample((size, 1 + 2 * len(SLOTS)))  # one row of uniform numbers a sentence
    noun = (u[:, 0] * len(NOUNS)).astype(np.int64)
    steps = slots().cumsum(axis=2)
    words = np.empty((size, len(SLOTS)), dtype=np.int64)
    for place in range(len(SLOTS)):
        step = steps[place, noun]  # (size, V)
        words[:, place] = (step <= u[:, 1 + place, None] * step[:, -1:]).sum(axis=1)
    order = np.argsort(u[:, 1 + len(SLOTS) :], axis=1, kind="stable")
    return np.take_along_axis(words, order, axis=1)


def control(seed: int, size: int = 6000) -> np.ndarray:
    """Deal the words of `sentences(seed, size)` anew: they are as frequent as before, and none goes with another."""
    corpus = sentences(seed, size)
    order = np.argsort(stream(seed, 1).random_sample(corpus.size), kind="stable")
    return corpus.reshape(-1)[order].reshape(corpus.shape)


def analogies(attribute: str) -> list[tuple[int, int, int, int]]:
    """All 264 questions (a, b, c, d), "a is to b as c is to d"; b differs from a, and d from c, in `attribute` alone.

    Args:
        attribute: "gender" or "number".
    """
    axis = {"gender": 1, "number": 2}[attribute]
    noun_of = {attributes: noun for noun, attributes in ATTRIBUTES.items()}

    def changed(noun: str) -> str:
        values = list(ATTRIBUTES[noun])
        values[axis] = 1 - values[axis]
        return noun_of[tuple(values)]

    questions = []
    for a in NOUNS:
        for c in NOUNS:
            if a != c and ATTRIBUTES[a][axis] == ATTRIBUTES[c][axis]:
                questions.append((ID[a], ID[changed(a)], ID[c], ID[changed(c)]))
    return questions


def pair_probabilities() -> np.ndarray:
    """The probability of each ordered pair of words at two random places of a sentence, (V, V), symmetric, sum 1.

    Its row sums are the shares of the words in the corpus.
    """
    P = slots()
    every = P.sum(axis=0)  # (24, V)
    joint = every.T @ every - np.einsum("snv,snw->vw", P, P)  # no place is paired with itself
    return joint / joint.sum()


def smallest_loss(K: int, power: float = 0.75) -> float:
    """The loss of skip-gram with K negatives that no embedding beats, in nats a pair; pairs at any distance.

    Negatives are drawn in proportion to the shares of the words to the given power. The optimal score of a pair is
    ln(P / N), where P is the pair's probability, and N is K times that of its centre and a negative.
    """
    P = pair_probabilities()
    share = P.sum(axis=1)
    N = K * np.outer(share, share**power / (share**power).sum())
    return float((N * np.log1p(P / N)).sum() - (P * np.log(np.where(P > 0, P / (P + N), 1.0))).sum())


def text(seed: int, size: int) -> str:
    """The contents of a data file: one sentence a line."""
    return "".join(" ".join(WORDS[word] for word in sentence) + "\n" for sentence in sentences(seed, size).tolist())


def main() -> None:
    """Rewrite every file of the card from the parameters that the card gives."""
    card = tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))
    for file in card["files"]:
        data = text(file["seed"], file["size"]).encode()
        (HERE / file["name"]).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        if (len(data), digest) != (file["bytes"], file["sha256"]):
            raise SystemExit(f"{file['name']}: the card says otherwise; this is {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
