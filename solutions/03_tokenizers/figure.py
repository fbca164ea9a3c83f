"""What the figure of chapter 3 computes and says, held against the reference."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

from grader.testing import mirror, reference_of, shown
from grader.testing.loading import load_module

reference = reference_of(__file__)
bpe = load_module(Path(__file__).parents[1] / "02_bpe" / "exercises.py", "solutions.02_bpe.for_the_figure_of_03")
FIGURE = (Path(__file__).parents[2] / "chapters" / "03_tokenizers" / "explore.js").read_text(encoding="utf-8")
SIZE, MERGES = (int(number) for number in re.search(r"\[SIZE, MERGES\] = \[(\d+), (\d+)\]", FIGURE).groups())
DEFAULTS = json.loads(re.search(r"^export const defaults = (\{.*?\});\n", FIGURE, re.MULTILINE | re.DOTALL).group(1))
WORDS, LOGP = DEFAULTS["words"], DEFAULTS["logp"]
ENGLISH = "The water is cold and the bread is warm."
GREEK = "Το νερό είναι κρύο και το ψωμί είναι ζεστό."


def random_text(rng, n, alphabet="abc"):
    return "".join(alphabet[i] for i in rng.integers(0, len(alphabet), n).tolist())


def random_words(rng):
    return {random_text(rng, 1 + int(rng.integers(1, 7))): int(rng.integers(1, 9)) for _ in range(8)}


def bpe_merges(words, most):
    return bpe.train_bpe("".join(f" {word}" * count for word, count in words.items()), 256 + most, [])[1]


def latin(token):
    return token.decode("latin-1")


def first_symbols(words):
    return {symbol for word in words for symbol in [word[0], *("##" + c for c in word[1:])]}


def by_score(words, size):
    merges = reference.train_wordpiece(words, size)
    return sorted(first_symbols(words) | {left + right.removeprefix("##") for left, right in merges})


def by_count(words, size):
    # the score f(a, b) is not the reference's: here on words written as symbols joined by line feeds
    rows = {"\n".join([word[0], *("##" + c for c in word[1:])]): count for word, count in words.items()}
    vocab = first_symbols(words)
    while len(vocab) < size:
        pairs = Counter()
        for row, count in rows.items():
            for pair in pairwise(row.split("\n")):
                pairs[pair] += count
        if not pairs:
            break
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        vocab.add(left + right[2:])
        whole = re.compile(rf"(?<![^\n]){re.escape(left)}\n{re.escape(right)}(?![^\n])")
        rows = {whole.sub(left + right[2:], row): count for row, count in rows.items()}
    return sorted(vocab)


@mirror("bytes")
def utf8(rng):
    text = random_text(rng, 9, "aé漢😉 ")
    return [text], latin(text.encode())


@mirror("trainBpe")
def train_bpe(rng):
    words, most = random_words(rng), int(rng.integers(0, 20))
    return [words, most], [[latin(left), latin(right)] for left, right in bpe_merges(words, most)]


@mirror("trainWordpiece")
def train_by_score(rng):
    words = random_words(rng)
    size = len(first_symbols(words)) + int(rng.integers(0, 15))
    return [words, size, True], by_score(words, size)


@mirror("trainWordpiece")
def train_by_count(rng):
    words = random_words(rng)
    size = len(first_symbols(words)) + int(rng.integers(0, 15))
    return [words, size, False], by_count(words, size)


@mirror("applyMerges")
def apply_merges(rng):
    merges, piece = bpe_merges(random_words(rng), 12), random_text(rng, 12).encode()
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    tokens = [latin(token) for token in bpe.apply_merges(piece, ranks)]
    return [latin(piece), [[latin(left), latin(right)] for left, right in merges]], tokens


@mirror("wordpieceEncode")
def wordpiece(rng):
    vocab = by_score(random_words(rng), 12)
    word = random_text(rng, int(rng.integers(1, 9)), "abcd" if rng.seed == 0 else "abc")
    return [word, vocab], reference.wordpiece_encode(word, set(vocab))


@mirror("viterbiSegment")
def viterbi(rng):
    logp = {random_text(rng, int(rng.integers(1, 4)), "ab😉"): -10 * float(rng.uniform(1)) for _ in range(12)}
    text = random_text(rng, 15, "ab😉")
    return [text, logp], reference.viterbi_segment(text, logp)


@mirror("spEncode")
def sentencepiece(rng):
    pieces = {random_text(rng, int(rng.integers(1, 4)), "ab▁"): -10 * float(rng.uniform(1)) for _ in range(12)} | {
        "▁": -9.5
    }
    text = random_text(rng, 15, "ab é▁")
    return [text, pieces], reference.sp_encode(text, pieces)


@mirror("hiddenLetters")
def hidden_letters(rng):
    tokens = random_text(rng, 20, "ab ").split()
    return [tokens, "a"], reference.hidden_letters(tokens, "a")


def encoders(rule):
    ranks = {pair: rank for rank, pair in enumerate(bpe_merges(WORDS, MERGES))}
    vocab = set(rule(WORDS, SIZE))
    return [
        lambda text: [t for piece in bpe.pretokenize(text) for t in bpe.apply_merges(piece.encode(), ranks)],
        lambda text: [t for word in re.findall(r"\w+|[^\w\s]", text) for t in reference.wordpiece_encode(word, vocab)],
        lambda text: reference.sp_encode(text, LOGP),
    ]


def each(values):
    return ", ".join(f"{name} {value}" for name, value in zip(("BPE", "WordPiece", "Unigram"), values, strict=True))


@shown(read="typed", text="strawberry", letter="r", rule="score")
def letters_of_strawberry():
    tokens = [encode("strawberry") for encode in encoders(by_score)]
    as_text = [[t.decode() for t in tokens[0]], [t.removeprefix("##") for t in tokens[1]], tokens[2]]
    hidden = [reference.hidden_letters(row, "r") for row in as_text]
    return f"Tokens: {each(map(len, tokens))}. Of 3 “r”, so many are hidden inside tokens: {each(hidden)}."


@shown(read="typed", text="the exceptions are raised", rule="count")
def pieces_chosen_by_frequency():
    return f"Tokens: {each(len(encode('the exceptions are raised')) for encode in encoders(by_count))}."


@shown(read="Greek")
def greek():
    premiums = [f"{reference.token_premium(encode, [(ENGLISH, GREEK)]):.2f}" for encode in encoders(by_score)]
    return f"Times the English sentence: {each(premiums)}."
