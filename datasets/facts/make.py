"""A small world of invented people, told in single statements: a few facts often, most of them rarely, some never.

`python datasets/facts/make.py` rewrites the files that card.toml lists, bit for bit, and fails if a digest disagrees.
Every function depends on its arguments alone. A person is a number, and so is a fact.

Each person has four facts:

    town      one of 30 towns, all equally likely
    craft     one of 24 crafts, all equally likely
    birthday  one of 365 days, all equally likely
    mentor    the person whose mentor he or she is; everybody is the mentor of exactly one other and has exactly one

No fact follows from another. The facts stand in a random order of rank, and a statement is about the fact of rank r
with a probability in proportion to r ** -exponent (Zipf). So the probability of every fact is known, and with it that
of all facts that a text has not stated. A mentor is only ever spoken of in one direction, "A is the mentor of B".
"""

import hashlib
import tomllib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def words(text: str) -> tuple[str, ...]:
    """Cut a text at its spaces."""
    return tuple(text.split())


FIRST = words(
    "Adra Belo Ciran Dova Elun Fenna Garo Hesta Ivo Jorun Kelda Lumo Mirel Nando Orsa Pelin Quill Rasko Sunna "
    "Tavi Ulda Varo Wenna Yoris Zelma"
)
LAST = words(
    "Abrin Bastel Corvane Dunmar Eskil Farrow Gentian Holm Irving Jaspar Korell Lindqua Marno Nevis Ostrel "
    "Pardane Quenby Rostov Saldane Torvik Umber Valcour Westlin Yarrow Zander Arkin Belvane Castor Dremel Emlyn "
    "Fosker Galt Hadrin Islay Jorvane Kestin Lomax Merrin Nolde Oakhurn"
)
MOST = len(FIRST) * len(LAST)
"""The largest number of persons: 1,000."""

TOWNS = words(
    "Alderby Brackwater Cairn Dunholt Elmstead Fallow Greywick Harrowgate Inverlea Juniper Kingsmere Larkhill "
    "Millbrook Northam Oldbridge Penrose Quarry Redcliff Saltmarsh Thornbury Underhill Vale Westhaven Yewtree "
    "Zennor Amberley Bramble Coldwell Dewsford Eastray"
)
CRAFTS = words(
    "baker binder brewer carver cooper dyer farrier fletcher founder glazier joiner mason miller painter potter "
    "printer saddler shipwright smith tailor tanner thatcher turner weaver"
)
MONTHS = {
    "January": 31,
    "February": 28,
    "March": 31,
    "April": 30,
    "May": 31,
    "June": 30,
    "July": 31,
    "August": 31,
    "September": 30,
    "October": 31,
    "November": 30,
    "December": 31,
}
DAYS = tuple(f"{day} {month}" for month, days in MONTHS.items() for day in range(1, days + 1))
SENTENCES = {
    "town": "{} lives in {}.",
    "craft": "{} works as a {}.",
    "birthday": "{} was born on {}.",
    "mentor": "{} is the mentor of {}.",
}
RELATIONS = tuple(SENTENCES)


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """A stream for each seed and purpose. RandomState is frozen: no release of numpy changes what it draws."""
    return np.random.RandomState([purpose, seed % 2**32, seed // 2**32])


def people(seed: int, size: int) -> list[str]:
    """Give the names of `size` persons, 2 to 1,000, all different."""
    if not 2 <= size <= MOST:
        raise ValueError(f"there are names for 2 to {MOST} persons, got {size}")
    order = np.argsort(stream(seed, 0).random_sample(MOST), kind="stable")[:size]
    return [f"{FIRST[place // len(LAST)]} {LAST[place % len(LAST)]}" for place in order.tolist()]


def facts(seed: int, size: int) -> list[tuple[str, str, str]]:
    """Give all 4 * size facts (subject, relation, object): the truth about the world of `size` persons."""
    names = people(seed, size)
    u = stream(seed, 1).random_sample((size, 3))
    circle = np.argsort(stream(seed, 2).random_sample(size), kind="stable").tolist()
    mentee = dict(zip(circle, circle[1:] + circle[:1], strict=True))  # one circle: nobody is his own mentor
    world = []
    for person, name in enumerate(names):
        for relation, choices, draw in zip(RELATIONS, (TOWNS, CRAFTS, DAYS), u[person].tolist(), strict=False):
            world.append((name, relation, choices[int(draw * len(choices))]))
        world.append((name, "mentor", names[mentee[person]]))
    return world


def objects(seed: int, size: int, relation: str) -> list[str]:
    """Give what could stand at the end of a sentence of this relation, true or not."""
    return {"town": list(TOWNS), "craft": list(CRAFTS), "birthday": list(DAYS)}.get(relation) or people(seed, size)


def sentence(fact: tuple[str, str, str]) -> str:
    """Say a fact, in the only words in which the world says it."""
    subject, relation, thing = fact
    return SENTENCES[relation].format(subject, thing)


def probabilities(seed: int, size: int, exponent: float = 1.0) -> np.ndarray:
    """The probability that a statement is about each of the 4 * size facts, float64, sum 1."""
    rank = np.argsort(stream(seed, 3).random_sample(4 * size), kind="stable") + 1.0
    weight = rank**-exponent
    return weight / weight.sum()


def statements(p: np.ndarray, seed: int, size: int) -> np.ndarray:
    """Draw the numbers of the facts that `size` statements are about, int64; a larger size begins with the same."""
    steps = p.cumsum()
    return np.searchsorted(steps, stream(seed, 4).random_sample(size) * steps[-1], side="right").astype(np.int64)


def mentions(p: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """How often each fact was stated, int64, one count for each fact, 0 for those that never were."""
    return np.bincount(stated, minlength=len(p))


def missing_mass(p: np.ndarray, stated: np.ndarray) -> float:
    """The probability that the next statement is about a fact that was never stated: the truth, not an estimate."""
    return float(p[mentions(p, stated) == 0].sum())


def questions(world: list[tuple[str, str, str]]) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Each mentor fact asked both ways: ((prompt, answer), (reverse prompt, reverse answer)). Each answer is unique."""
    return [
        ((f"{a} is the mentor of", b), (f"{b} has the mentor", a)) for a, relation, b in world if relation == "mentor"
    ]


def text(seed: int, persons: int, size: int, exponent: float) -> str:
    """The contents of a data file: one statement a line."""
    world, p = facts(seed, persons), probabilities(seed, persons, exponent)
    return "".join(sentence(world[number]) + "\n" for number in statements(p, seed, size).tolist())


def main() -> None:
    """Rewrite every file of the card from the parameters that the card gives."""
    card = tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))
    for file in card["files"]:
        data = text(file["seed"], file["persons"], file["size"], file["exponent"]).encode()
        (HERE / file["name"]).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        if (len(data), digest) != (file["bytes"], file["sha256"]):
            raise SystemExit(f"{file['name']}: the card says otherwise; this is {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
