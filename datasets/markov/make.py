"""Documents from a Markov chain whose entropy is known exactly, so that the best possible loss is known too.

`python datasets/markov/make.py` rewrites the files that card.toml lists, bit for bit, and fails if a digest disagrees.
Every function depends on its arguments alone. Ids are 0 to size - 1; all entropies are in nats.

A chain of order k is one array P of shape (size,) * k + (size,): P[a, b, c] is the probability that c follows a, b.
An array of shape (size,) * k, such as the stationary distribution, is indexed by the context, oldest id first.
"""

import hashlib
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """A stream for each seed and purpose. RandomState is frozen: no release of numpy changes what it draws."""
    return np.random.RandomState([purpose, seed % 2**32, seed // 2**32])


def transitions(seed: int, size: int, order: int = 1, concentration: float = 1.0) -> np.ndarray:
    """Draw a chain whose rows come from Dirichlet(concentration, ...). Small concentrations make sharp rows."""
    rows = stream(seed, 0).dirichlet([concentration] * size, size**order)
    if not np.isfinite(rows).all():
        raise ValueError(f"concentration={concentration} is too small: a row underflows to zero")
    return rows.reshape((size,) * (order + 1))


def stationary(P: np.ndarray) -> np.ndarray:
    """The distribution over contexts, shape (size,) * order, that one more step of the chain leaves as it is."""
    size, order = P.shape[-1], P.ndim - 1
    contexts = size**order
    move = np.zeros((contexts, contexts))  # row: context before the step, column: context after it
    before = np.repeat(np.arange(contexts), size)
    after = np.arange(contexts * size) % contexts  # drop the oldest id, append the new one
    np.add.at(move, (before, after), P.reshape(-1))
    equations = move.T - np.eye(contexts)
    equations[-1] = 1.0  # one balance equation follows from the others; its place is taken by "the sum is one"
    pi = np.linalg.solve(equations, np.eye(contexts)[-1]).clip(min=0.0)
    return (pi / pi.sum()).reshape((size,) * order)


def blocks(P: np.ndarray, n: int) -> np.ndarray:
    """The probability of each run of n ids in a long document, shape (size,) * n."""
    joint = stationary(P)
    for _ in range(n - joint.ndim):
        joint = joint[..., None] * P  # the last `order` axes of joint are the context of P
    return joint.sum(axis=tuple(range(joint.ndim - n)))


def entropy(p: np.ndarray) -> float:
    """The entropy of a distribution, whatever the shape of its array."""
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


def entropy_rate(P: np.ndarray) -> float:
    """The entropy of the next id given the whole past: the loss, in nats an id, that no model can beat."""
    pi = stationary(P)
    return float(-(pi[..., None] * P * np.log(np.where(P > 0, P, 1.0))).sum())


def conditional_entropy(P: np.ndarray, n: int) -> float:
    """The entropy of the next id given only the n ids before it; with n >= order it is the entropy rate."""
    return entropy_rate(P) if n >= P.ndim - 1 else entropy(blocks(P, n + 1)) - entropy(blocks(P, n))


def unigram(P: np.ndarray) -> np.ndarray:
    """The share of each id in a long document, shape (size,)."""
    return blocks(P, 1)


def unigram_entropy(P: np.ndarray) -> float:
    """The entropy of the next id for a model that looks at no context."""
    return entropy(unigram(P))


def documents(P: np.ndarray, seed: int, lengths: Iterable[int]) -> list[list[int]]:
    """Sample one document of each length. Each starts in the stationary distribution, so every position looks alike."""
    size, order = P.shape[-1], P.ndim - 1
    rows = P.reshape(-1, size).cumsum(axis=1)
    rows[:, -1] = 1.0
    steps, contexts = rows.tolist(), size**order
    starts = stationary(P).reshape(-1).cumsum().tolist()
    random = stream(seed, 1)
    made = []
    for length in lengths:
        u = random.random_sample(length + 1).tolist()
        context = min(bisect_right(starts, u[0]), contexts - 1)
        ids = [context // size**i % size for i in reversed(range(order))][:length]
        for x in u[1 : length + 1 - len(ids)]:
            token = bisect_right(steps[context], x)
            context = (context * size + token) % contexts
            ids.append(token)
        made.append(ids)
    return made


def log_probs(P: np.ndarray, document: Sequence[int]) -> np.ndarray:
    """ln P(id | the order ids before it) for each id of a document but the first `order`, shape (length - order,)."""
    ids, order = np.asarray(document, dtype=np.int64), P.ndim - 1
    count = max(len(ids) - order, 0)
    return np.log(P[tuple(ids[i : i + count] for i in range(order + 1))])


def text(seed: int, size: int, order: int, concentration: float, number: int, length: int) -> str:
    """The contents of one data file: one document a line, ids separated by spaces."""
    P = transitions(seed, size, order, concentration)
    return "".join(" ".join(map(str, ids)) + "\n" for ids in documents(P, seed, [length] * number))


def main() -> None:
    """Rewrite every file of the card from the parameters that the card gives."""
    card = tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))
    for file in card["files"]:
        data = text(**{name: file[name] for name in ("seed", "size", "order", "concentration", "number", "length")})
        (HERE / file["name"]).write_bytes(data.encode())
        digest = hashlib.sha256(data.encode()).hexdigest()
        if (len(data), digest) != (file["bytes"], file["sha256"]):
            raise SystemExit(f"{file['name']}: the card says otherwise; this is {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
