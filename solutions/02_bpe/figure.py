"""What the figure of chapter 2 computes and says, held against the reference."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from grader.testing import mirror, reference_of, shown

reference = reference_of(__file__)
FIGURE = Path(__file__).parents[2] / "chapters" / "02_bpe" / "explore.js"
ALPHABET = ["a", "b", "c", " ", "'", "s", "é", "漢", "😉", "4", "!", "\n"]
PAPER = "tin tins tint bin bins"
SENTENCE = "It's 42 degrees, isn't it?"


def latin(token):
    return token.decode("latin-1")


def random_text(rng, n, alphabet=ALPHABET):
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), n).tolist())


def trained(text, n_merges):
    return reference.train_bpe(text, 256 + n_merges, [])[1]


def as_pairs(merges):
    return [[latin(left), latin(right)] for left, right in merges]


def ranks(merges):
    return {pair: rank for rank, pair in enumerate(merges)}


@mirror("bytes")
def utf8(rng):
    text = random_text(rng, 12)
    return [text], "".join(map(chr, reference.encode_utf8(text)))


@mirror("pretokenize")
def pieces(rng):
    text = random_text(rng, 40)
    return [text], reference.pretokenize(text)


@mirror("pretokenize")
def contractions(rng):
    text = random_text(rng, 20, ["We", "'ll", "'", "re", " ", "  ", "42", "degrés", "?!"])
    return [text], reference.pretokenize(text)


@mirror("join")
def join(rng):
    parts = list(random_text(rng, 15, ["a", "b"]))
    joined = reference.apply_merges("".join(parts).encode(), {(b"a", b"b" if rng.seed % 2 else b"a"): 0})
    return [parts, ["a", "b" if rng.seed % 2 else "a"]], [latin(token) for token in joined]


@mirror("leadingPairs")
def leading_pairs(rng):
    rows = [random_text(rng, 6, ["a", "ab", "b", "\xff"]).split("b") for _ in range(4)]
    counts = Counter(pair for row in rows for pair in pairwise(row))
    order = sorted(counts, key=lambda ab: (counts[ab], ab[0].encode("latin-1"), ab[1].encode("latin-1")), reverse=True)
    return [rows], [[a, b, counts[a, b]] for a, b in order]


@mirror("trainBpe")
def train(rng):
    text, n = random_text(rng, 60), int(rng.integers(0, 30))
    return [text, n], as_pairs(trained(text, n))


@mirror("trainBpe")
def train_to_the_end(rng):
    text = random_text(rng, 12, ["tin", " bin", "s"])
    return [text, 500], as_pairs(trained(text, 500))


@mirror("replay")
def replay(rng):
    merges = trained(random_text(rng, 80, ["a", "b", "c", "é"]), 15)
    piece = random_text(rng, 12, ["a", "b", "c", "é"]).encode()
    parts = [bytes([byte]) for byte in piece]
    rows = [[-1, parts]]
    while known := [ranks(merges)[pair] for pair in pairwise(parts) if pair in ranks(merges)]:
        rank, joined = min(known), []
        for part in parts:
            both = bool(joined) and (joined[-1], part) == merges[rank]
            joined.append(joined.pop() + part if both else part)
        parts = joined
        rows.append([rank, parts])
    assert parts == reference.apply_merges(piece, ranks(merges))
    return [latin(piece), as_pairs(merges)], [[rank, [latin(part) for part in parts]] for rank, parts in rows]


def by_longest(piece, merges):
    known, tokens = {left + right for left, right in merges}, []
    while piece:
        fits = [piece[:n] for n in range(1, len(piece) + 1) if n == 1 or piece[:n] in known]
        tokens.append(fits[-1])
        piece = piece[len(fits[-1]) :]
    return tokens


@mirror("longestMatch")
def longest_match(rng):
    merges = trained(random_text(rng, 80, ["a", "b", "c"]), 15)
    piece = random_text(rng, 12, ["a", "b", "c"])
    return [piece, as_pairs(merges)], [latin(token) for token in by_longest(piece.encode(), merges)]


def sentence(text, merges):
    pieces = [piece.encode() for piece in reference.pretokenize(text)]
    cut = [reference.apply_merges(piece, ranks(merges)) for piece in pieces]
    size, tokens = len(text.encode()), sum(map(len, cut))
    other = sum(by_longest(piece, merges) != tokens for piece, tokens in zip(pieces, cut, strict=True))
    last = " + ".join(latin(half).replace(" ", "_") for half in merges[-1])
    return (
        f"With {len(merges)} merges the {size} bytes are {tokens} tokens, {size / tokens:.2f} bytes a token. "
        f"The last merge learned is {last}. Longest match would cut {other} of the {len(pieces)} pieces otherwise."
    )


@shown(text=PAPER, source="own", merges=4, piece=2)
def four_merges_as_on_paper():
    return sentence(PAPER, trained(PAPER, 4))


@shown(text=SENTENCE, source="help", merges=22)
def five_hundred_merges_of_the_help_texts():
    rows = re.search(r'"merges": (\[.*?\])\n\}', FIGURE.read_text(encoding="utf-8"), re.DOTALL)
    return sentence(SENTENCE, [(a.encode("latin-1"), b.encode("latin-1")) for a, b in json.loads(rows.group(1))])


@shown(text="abcd", source="three", merges=3)
def longest_match_is_another_rule():
    return sentence("abcd", [(b"b", b"c"), (b"a", b"b"), (b"c", b"d")])
