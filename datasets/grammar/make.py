"""Sentences from a grammar of sixty words, each with its exact probability, so that the best possible loss is known.

`python datasets/grammar/make.py` rewrites the files that card.toml lists, bit for bit, and fails if a digest disagrees.
Every function depends on its arguments alone. Probabilities are natural: all logarithms and entropies are in nats.

A sentence is a tuple of words that ends in ".". Verbs agree with their subjects, also across a relative clause between
them ("the king who the mice see sleeps ."); clauses nest to any depth; names need no article. No sentence has two
derivations, so the probability of a sentence is the product of the choices that made it.
"""

import hashlib
import tomllib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, permutations
from math import log
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

Rules = dict[str, list[tuple[float, tuple[str, ...]]]]
"""Each symbol in capitals: what it may become, with probabilities. A word stands for itself."""

NAMES = ("ada", "ben", "cora", "dov", "eva", "finn")
NOUNS = (
    ("cat", "cats"), ("dog", "dogs"), ("king", "kings"), ("mouse", "mice"), ("child", "children"),
    ("robot", "robots"), ("fox", "foxes"),
)  # fmt: skip
ARTICLES = (("the", "a", "this", "every"), ("the", "these", "some", "many"))
ADJECTIVES = ("small", "big", "quiet", "red", "happy")
ADVERBS = ("often", "never")
ALONE = (("sleeps", "sleep"), ("runs", "run"), ("sings", "sing"), ("waits", "wait"))
WITH_OBJECT = (("sees", "see"), ("likes", "like"), ("chases", "chase"), ("helps", "help"), ("hears", "hear"))
WITH_CLAUSE = (("says", "say"), ("thinks", "think"))


def choice(options: Sequence[str | tuple[str, ...]]) -> list[tuple[float, tuple[str, ...]]]:
    """Options by rank: the k-th has a probability proportional to 1 / (k + 1), as words in a language roughly have."""
    total = sum(1 / k for k in range(1, len(options) + 1))
    return [(1 / k / total, (o,) if isinstance(o, str) else o) for k, o in enumerate(options, 1)]


def rules() -> Rules:
    """The grammar. _S and _P are singular and plural, and what must agree shares the ending."""
    grammar: Rules = {
        "SENTENCE": [(1.0, ("CLAUSE", "."))],
        "CLAUSE": [(0.6, ("NOUN_PHRASE_S", "VERB_PHRASE_S")), (0.4, ("NOUN_PHRASE_P", "VERB_PHRASE_P"))],
        "OBJECT": [(0.6, ("NOUN_PHRASE_S",)), (0.4, ("NOUN_PHRASE_P",))],
        "NOUN_PHRASE_S": [(0.35, ("NAME",)), (0.65, ("ARTICLE_S", "GROUP_S"))],
        "NOUN_PHRASE_P": [(0.2, ("PAIR",)), (0.8, ("ARTICLE_P", "GROUP_P"))],
        "NAME": choice(NAMES),
        "PAIR": choice([(a, "and", b) for a, b in permutations(NAMES, 2)]),
        "ADJECTIVE": choice(ADJECTIVES),
        "ADVERB": choice(ADVERBS),
    }
    for n, end in enumerate(("_S", "_P")):
        grammar |= {
            "GROUP" + end: [(0.65, ("NOUN" + end, "TAIL" + end)), (0.35, ("ADJECTIVE", "NOUN" + end, "TAIL" + end))],
            "TAIL" + end: [(0.8, ()), (0.12, ("who", "VERB_PHRASE" + end)), (0.08, ("who", "GAP"))],
            "VERB_PHRASE" + end: [(0.8, ("ACTION" + end,)), (0.2, ("ADVERB", "ACTION" + end))],
            "ACTION" + end: [
                (0.35, ("ALONE" + end,)),
                (0.5, ("WITH_OBJECT" + end, "OBJECT")),
                (0.15, ("WITH_CLAUSE" + end, "that", "CLAUSE")),
            ],
            "ARTICLE" + end: choice(ARTICLES[n]),
            "NOUN" + end: choice([noun[n] for noun in NOUNS]),
            "ALONE" + end: choice([verb[n] for verb in ALONE]),
            "WITH_OBJECT" + end: choice([verb[n] for verb in WITH_OBJECT]),
            "WITH_CLAUSE" + end: choice([verb[n] for verb in WITH_CLAUSE]),
        }
    grammar["GAP"] = [(0.6, ("NOUN_PHRASE_S", "WITH_OBJECT_S")), (0.4, ("NOUN_PHRASE_P", "WITH_OBJECT_P"))]
    return grammar


RULES = rules()
VOCABULARY = sorted({word for options in RULES.values() for _, body in options for word in body if word not in RULES})
"""The words; a word's place in this list is its id."""
_THRESHOLDS = {symbol: list(accumulate(p for p, _ in options)) for symbol, options in RULES.items()}


def sentences(seed: int, number: int) -> list[tuple[tuple[str, ...], float]]:
    """Draw sentences, each with the logarithm of its probability."""
    uniform = _uniform(seed)
    made = []
    for _ in range(number):
        words, log_p, stack = [], 0.0, ["SENTENCE"]
        while stack:
            symbol = stack.pop()
            if symbol not in RULES:
                words.append(symbol)
                continue
            options = RULES[symbol]
            p, body = options[min(bisect_right(_THRESHOLDS[symbol], next(uniform)), len(options) - 1)]
            log_p += log(p)
            stack.extend(reversed(body))
        made.append((tuple(words), log_p))
    return made


def _uniform(seed: int) -> Iterator[float]:
    # RandomState is frozen: no release of numpy changes what it draws
    random = np.random.RandomState([2, seed % 2**32, seed // 2**32])
    while True:
        yield from random.random_sample(4096).tolist()


def ids(seed: int, number: int) -> np.ndarray:
    """Draw sentences and write them one after another as ids, int64, each with its full stop."""
    place = {word: i for i, word in enumerate(VOCABULARY)}
    return np.array([place[word] for words, _ in sentences(seed, number) for word in words], dtype=np.int64)


def probability(words: Sequence[str]) -> float:
    """The probability of a sentence, summed over all derivations; 0 if the grammar does not give it."""
    return _inside(words, 1.0)


def grammatical(words: Sequence[str]) -> bool:
    """Does the grammar give this sentence, full stop included?"""
    return derivations(words) > 0


def derivations(words: Sequence[str]) -> int:
    """In how many ways the grammar gives a sentence: 0 or 1, since it is not ambiguous."""
    return round(_inside(words, 0.0))


def _inside(words: Sequence[str], power: float) -> float:
    """Sum, over the derivations of `words`, the product of p ** power: 1 gives the probability, 0 counts."""
    known: dict[tuple[str, int], dict[int, float]] = {}

    def ends(symbol: str, start: int) -> dict[int, float]:
        """The places where a `symbol` that starts at `start` can end, each with the sum over its derivations."""
        if symbol not in RULES:
            return {start + 1: 1.0} if start < len(words) and words[start] == symbol else {}
        if (symbol, start) not in known:
            found: dict[int, float] = {}
            for p, body in RULES[symbol]:
                reached = {start: p**power}
                for part in body:
                    longer: dict[int, float] = {}
                    for place, weight in reached.items():
                        for end, more in ends(part, place).items():
                            longer[end] = longer.get(end, 0.0) + weight * more
                    reached = longer
                for end, weight in reached.items():
                    found[end] = found.get(end, 0.0) + weight
            known[symbol, start] = found
        return known[symbol, start]

    return ends("SENTENCE", 0).get(len(words), 0.0)


def expectations(value: dict[str, float], word: dict[str, float]) -> float:
    """The expected sum, over one sentence, of value[symbol] for each symbol expanded and word[w] for each word."""
    symbols = list(RULES)
    place = {symbol: i for i, symbol in enumerate(symbols)}
    equations, constant = np.eye(len(symbols)), np.array([value.get(symbol, 0.0) for symbol in symbols])
    for symbol, options in RULES.items():
        for p, body in options:
            for part in body:
                if part in RULES:
                    equations[place[symbol], place[part]] -= p
                else:
                    constant[place[symbol]] += p * word.get(part, 0.0)
    return float(np.linalg.solve(equations, constant)[place["SENTENCE"]])


def sentence_entropy() -> float:
    """The entropy of a sentence: each choice adds its own, as often as it is expected to be made."""
    return expectations({s: -sum(p * log(p) for p, _ in options) for s, options in RULES.items()}, {})


def mean_length() -> float:
    """The expected number of words of a sentence, full stop included."""
    return expectations({}, dict.fromkeys(VOCABULARY, 1.0))


def entropy_rate() -> float:
    """The loss, in nats a word, that no model of sentences in a row can beat: sentences are drawn independently."""
    return sentence_entropy() / mean_length()


def unigram() -> dict[str, float]:
    """The share of each word in a long text."""
    return {w: expectations({}, {w: 1.0}) / mean_length() for w in VOCABULARY}


def unigram_entropy() -> float:
    """The loss of a model that looks at no context."""
    return -sum(p * log(p) for p in unigram().values())


def text(seed: int, number: int) -> str:
    """The contents of the data file: one sentence a line, words separated by blanks."""
    return "".join(" ".join(words) + "\n" for words, _ in sentences(seed, number))


def main() -> None:
    """Rewrite every file of the card from the parameters that the card gives."""
    card = tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))
    for file in card["files"]:
        data = text(file["seed"], file["number"]).encode()
        (HERE / file["name"]).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        if (len(data), digest) != (file["bytes"], file["sha256"]):
            raise SystemExit(f"{file['name']}: the card says otherwise; this is {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
