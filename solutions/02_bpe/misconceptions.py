"""What students of chapter 2 get wrong, as code that runs."""

from collections import Counter
from itertools import pairwise

import regex

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
PATTERN = reference.GPT2_PATTERN

# -- encode_utf8 ---------------------------------------------------------------------------------------------------


@misconception(
    "encode_utf8", "These are code points, one a character; UTF-8 bytes come from the encode method of a string."
)
def numbers_characters(text):
    return [ord(character) for character in text]


@misconception("encode_utf8", "Latin-1 knows 256 characters only and loses the rest; UTF-8 writes every character.")
def encodes_latin_1(text):
    return list(text.encode("latin-1", errors="replace"))


@misconception(
    "encode_utf8",
    "Each byte is decoded alone, so characters of several bytes break; join all bytes, then decode once.",
    replaces="decode_utf8",
)
def decodes_byte_by_byte(ids, errors="replace"):
    return "".join(bytes([i]).decode("utf-8", errors) for i in ids)


@misconception(
    "encode_utf8", "The argument errors is ignored; hand it on to the decoding method.", replaces="decode_utf8"
)
def always_replaces(ids, errors="replace"):
    return bytes(ids).decode("utf-8", "replace")


# -- pretokenize ---------------------------------------------------------------------------------------------------


@misconception(
    "pretokenize", "Splitting at spaces loses them, and leaves signs on the words; take the pattern's matches."
)
def splits_at_spaces(text, pattern=PATTERN):
    return text.split()


@misconception("pretokenize", "findall gives the groups when a pattern has groups; take the whole of each match.")
def finds_groups(text, pattern=PATTERN):
    return [piece for piece in regex.findall(pattern, text) if piece]


@misconception("pretokenize", "Empty matches are kept as pieces; a piece holds at least one character.")
def keeps_empty_pieces(text, pattern=PATTERN):
    return [match.group() for match in regex.finditer(pattern, text)]


@misconception(
    "pretokenize", "The space before a word is dropped; it belongs to the word, or the text cannot be restored."
)
def strips_the_pieces(text, pattern=PATTERN):
    return [piece for piece in (match.group().strip() for match in regex.finditer(pattern, text)) if piece]


@misconception("pretokenize", "The argument pattern is ignored; the GPT-2 pattern is only its default.")
def ignores_the_pattern(text, pattern=PATTERN):
    return regex.findall(PATTERN, text)


# -- train_bpe -----------------------------------------------------------------------------------------------------


def pieces_of(text, special_tokens, pattern):
    """Give the pieces of the stretches between special tokens, with their numbers."""
    cut = "|".join(regex.escape(token) for token in sorted(special_tokens, key=len, reverse=True))
    stretches = regex.split(cut, text) if cut else [text]
    return Counter(piece for stretch in stretches for piece in reference.pretokenize(stretch, pattern))


def count_pairs(words):
    counts = Counter()
    for word, frequency in words.items():
        for pair in pairwise(word):
            counts[pair] += frequency
    return counts


def merge_word(word, pair):
    merged = []
    for symbol in word:
        both = merged and (merged[-1], symbol) == pair
        merged.append(merged.pop() + symbol if both else symbol)
    return tuple(merged)


def train(pieces, n_merges, special_tokens, count=count_pairs, key=lambda pair: pair, merge=merge_word):
    """Train by recounting; each misconception exchanges one part."""
    words = Counter()
    for piece, frequency in pieces.items():
        words[tuple(bytes([byte]) for byte in piece.encode())] += frequency
    merges = []
    while len(merges) < n_merges and (counts := count(words)):
        merges.append(max(counts, key=lambda pair: (counts[pair], key(pair))))
        words = Counter({merge(word, merges[-1]): frequency for word, frequency in words.items()})
    return build(merges, special_tokens)


def build(merges, special_tokens):
    tokens = [bytes([byte]) for byte in range(256)] + [a + b for a, b in merges]
    return dict(enumerate(tokens + [token.encode() for token in special_tokens])), merges


def room(vocab_size, special_tokens):
    if vocab_size < 256 + len(special_tokens):
        raise ValueError("no room")
    return vocab_size - 256 - len(special_tokens)


@misconception(
    "train_bpe", "Ties go to the pair seen first; among equal counts take the greatest pair of byte strings."
)
def takes_the_first_seen(text, vocab_size, special_tokens, pattern=PATTERN):
    pieces, n_merges = pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens)
    return train(pieces, n_merges, special_tokens, key=lambda pair: 0)


@misconception("train_bpe", "Ties go to the smallest pair; among equal counts take the greatest pair of byte strings.")
def takes_the_smallest(text, vocab_size, special_tokens, pattern=PATTERN):
    pieces, n_merges = pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens)
    smallest = {}
    return train(pieces, n_merges, special_tokens, key=lambda pair: smallest.setdefault(pair, _Reversed(pair)))


class _Reversed:
    def __init__(self, pair):
        self.pair = pair

    def __lt__(self, other):
        return other.pair < self.pair

    def __gt__(self, other):
        return other.pair > self.pair


@misconception(
    "train_bpe",
    "Ties compare GPT-2's printable stand-ins, where a space is greater than letters; compare the bytes themselves.",
)
def compares_printable_letters(text, vocab_size, special_tokens, pattern=PATTERN):
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    stand_in = {byte: byte for byte in plain} | {byte: 256 + place for place, byte in enumerate(others)}

    def printable(token):
        return [stand_in[byte] for byte in token]

    pieces, n_merges = pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens)
    return train(pieces, n_merges, special_tokens, key=lambda pair: (printable(pair[0]), printable(pair[1])))


@misconception(
    "train_bpe", "Pairs are counted across the borders of pieces; cut into pieces first and count inside each."
)
def merges_across_pieces(text, vocab_size, special_tokens, pattern=PATTERN):
    cut = "|".join(regex.escape(token) for token in sorted(special_tokens, key=len, reverse=True))
    stretches = Counter(regex.split(cut, text) if cut else [text])
    return train(stretches, room(vocab_size, special_tokens), special_tokens)


@misconception("train_bpe", "The text of special tokens is counted like any other; cut the text at them first.")
def counts_special_tokens(text, vocab_size, special_tokens, pattern=PATTERN):
    pieces = Counter(reference.pretokenize(text, pattern))
    return train(pieces, room(vocab_size, special_tokens), special_tokens)


@misconception(
    "train_bpe", "Special tokens are removed and their two sides joined; nothing may merge across the place."
)
def removes_special_tokens(text, vocab_size, special_tokens, pattern=PATTERN):
    for token in sorted(special_tokens, key=len, reverse=True):
        text = text.replace(token, "")
    pieces = Counter(reference.pretokenize(text, pattern))
    return train(pieces, room(vocab_size, special_tokens), special_tokens)


@misconception("train_bpe", 'Overlapping pairs are counted once; "aaa" holds the pair (a, a) twice.')
def counts_without_overlap(text, vocab_size, special_tokens, pattern=PATTERN):
    def count(words):
        counts = Counter()
        for word, frequency in words.items():
            last = {}
            for i, pair in enumerate(pairwise(word)):
                if last.get(pair) != i - 1:
                    counts[pair] += frequency
                    last[pair] = i
        return counts

    pieces, n_merges = pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens)
    return train(pieces, n_merges, special_tokens, count=count)


@misconception("train_bpe", "Only the first occurrence of the pair in a word is merged; go on to the end of the word.")
def merges_once_a_word(text, vocab_size, special_tokens, pattern=PATTERN):
    def merge(word, pair):
        for i, neighbours in enumerate(pairwise(word)):
            if neighbours == pair:
                return (*word[:i], pair[0] + pair[1], *word[i + 2 :])
        return word

    pieces, n_merges = pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens)
    return train(pieces, n_merges, special_tokens, merge=merge)


@misconception("train_bpe", "The special tokens are left out of vocab_size; they take room from the merges.")
def forgets_room_for_special_tokens(text, vocab_size, special_tokens, pattern=PATTERN):
    room(vocab_size, special_tokens)
    return train(pieces_of(text, special_tokens, pattern), vocab_size - 256, special_tokens)


# -- apply_merges --------------------------------------------------------------------------------------------------


@misconception("apply_merges", "This takes the longest token that fits; join the pair that was learned first instead.")
def takes_the_longest_token(piece, ranks):
    known, parts, start = {a + b for a, b in ranks}, [], 0
    while start < len(piece):
        ends = [end for end in range(len(piece), start + 1, -1) if piece[start:end] in known]
        end = ends[0] if ends else start + 1
        parts.append(piece[start:end])
        start = end
    return parts


@misconception(
    "apply_merges", "This joins the leftmost known pair; of all pairs present, the one of lowest rank comes first."
)
def takes_the_leftmost_pair(piece, ranks):
    parts = [bytes([byte]) for byte in piece]
    while found := [i for i, pair in enumerate(pairwise(parts)) if pair in ranks]:
        parts[found[0] : found[0] + 2] = [parts[found[0]] + parts[found[0] + 1]]
    return parts


@misconception("apply_merges", 'A repeated pair is joined from the right; "aaa" under (a, a) is aa, a.')
def takes_the_rightmost_of_equals(piece, ranks):
    parts = [bytes([byte]) for byte in piece]
    while found := [(ranks[pair], -i) for i, pair in enumerate(pairwise(parts)) if pair in ranks]:
        i = -min(found)[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts


@misconception("apply_merges", "The pairs are tried in the order of the dict; their ranks decide.")
def follows_the_order_of_the_dict(piece, ranks):
    word = tuple(bytes([byte]) for byte in piece)
    for pair in ranks:
        word = merge_word(word, pair)
    return list(word)


@misconception(
    "apply_merges", "Only one pair is ever joined; joins make new neighbours, so ask again until none is known."
)
def joins_one_pair_only(piece, ranks):
    parts = [bytes([byte]) for byte in piece]
    best = min(pairwise(parts), key=lambda pair: ranks.get(pair, float("inf")), default=None)
    return list(merge_word(parts, best)) if best in ranks else parts


# -- BPETokenizer --------------------------------------------------------------------------------------------------


@misconception("BPETokenizer", "Special tokens are recognised although nobody allowed them; a user could type one.")
class AlwaysAllows(reference.BPETokenizer):
    def encode(self, text, allowed_special=frozenset()):
        super().encode("", allowed_special)
        return super().encode(text, self.special_tokens)


@misconception(
    "BPETokenizer", "Each token is decoded alone, so characters of several tokens break; join the bytes first."
)
class DecodesTokenByToken(reference.BPETokenizer):
    def decode(self, ids):
        return "".join(self.vocab[i].decode("utf-8", errors="replace") for i in ids)


@misconception("BPETokenizer", "Ids that are not in the vocabulary vanish without a word; raise KeyError.")
class DropsUnknownIds(reference.BPETokenizer):
    def decode(self, ids):
        return b"".join(self.vocab.get(i, b"") for i in ids).decode("utf-8", errors="replace")


@misconception(
    "BPETokenizer", "A shorter special token wins over a longer one at the same place; try the longest first."
)
class ShortestSpecialFirst(reference.BPETokenizer):
    def encode(self, text, allowed_special=frozenset()):
        for token in sorted(allowed_special, key=len):
            if token in text:
                before, after = text.split(token, 1)
                others = self.encode(before, allowed_special), self.encode(after, allowed_special)
                return [*others[0], self.ids[token.encode()], *others[1]]
        return super().encode(text, allowed_special)


@misconception(
    "BPETokenizer", "Special tokens are looked for among the pieces, where they are cut already; cut at them first."
)
class LooksAmongThePieces(reference.BPETokenizer):
    def encode(self, text, allowed_special=frozenset()):
        super().encode("", allowed_special)
        ids = []
        for piece in reference.pretokenize(text):
            ids += super().encode(piece, allowed_special if piece in allowed_special else frozenset())
        return ids


@misconception("BPETokenizer", "Ids are taken to be 256 plus the rank of the merge; they are what the vocabulary says.")
class CountsTheIdsItself(reference.BPETokenizer):
    def __init__(self, vocab, merges, special_tokens):
        super().__init__(vocab, merges, special_tokens)
        self.ids |= {bytes([byte]): byte for byte in range(256)}
        self.ids |= {a + b: 256 + rank for rank, (a, b) in enumerate(merges)}


# -- encode_iterable -----------------------------------------------------------------------------------------------


@misconception(
    "encode_iterable",
    "All chunks are read before the first id comes out; yield the ids that are settled after each chunk.",
    replaces="BPETokenizer",
)
class ReadsEverythingFirst(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        yield from self.encode("".join(chunks), allowed_special)


@misconception(
    "encode_iterable",
    "Each chunk is encoded by itself, so words cut by a border break; keep what further text may change.",
    replaces="BPETokenizer",
)
class EncodesEachChunk(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        for chunk in chunks:
            yield from self.encode(chunk, allowed_special)


@misconception(
    "encode_iterable",
    'One piece is held back, and two are needed: after "e\'v" the letters "er" change the last two pieces.',
    replaces="BPETokenizer",
)
class HoldsOnePiece(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        return stream(self, chunks, allowed_special, pieces=1)


@misconception(
    "encode_iterable",
    "A special token that is cut by a border is not found; hold back a tail that could begin one.",
    replaces="BPETokenizer",
)
class CutsSpecialTokens(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        return stream(self, chunks, allowed_special, tails=False)


@misconception(
    "encode_iterable",
    "The last piece never comes out; when the source has ended, encode what is left.",
    replaces="BPETokenizer",
)
class LosesTheEnd(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        return stream(self, chunks, allowed_special, end=False)


def stream(tokenizer, chunks, allowed, pieces=2, tails=True, end=True):
    """Encode a stream; each misconception leaves one thing out."""
    beginnings = {token[:n] for token in allowed for n in range(1, len(token))} if tails else set()
    cut = "|".join(regex.escape(token) for token in sorted(allowed, key=len, reverse=True))
    buffer = ""
    for chunk in chunks:
        buffer += chunk
        settled = 0
        while True:
            ends = (i for i in range(settled, len(buffer)) if buffer[i:] in beginnings)
            open_at = next(ends, len(buffer))
            special = regex.search(cut, buffer, pos=settled) if cut else None
            if special is None or special.start() >= open_at:
                break
            settled = special.end()
        settled += sum(map(len, reference.pretokenize(buffer[settled:open_at])[:-pieces]))
        yield from tokenizer.encode(buffer[:settled], allowed)
        buffer = buffer[settled:]
    if end:
        yield from tokenizer.encode(buffer, allowed)


# -- train_bpe_speed -----------------------------------------------------------------------------------------------


@misconception(
    "train_bpe_speed",
    "All pairs are counted anew after every merge; keep the counts, and update those of the words that changed.",
    replaces="train_bpe",
)
def counts_anew(text, vocab_size, special_tokens, pattern=PATTERN):
    return train(pieces_of(text, special_tokens, pattern), room(vocab_size, special_tokens), special_tokens)


@misconception(
    "train_bpe_speed",
    "A word is worked on as often as it occurs; keep each distinct piece once, with its number of occurrences.",
    replaces="train_bpe",
)
def keeps_repeated_words(text, vocab_size, special_tokens, pattern=PATTERN):
    pieces = list(pieces_of(text, special_tokens, pattern).elements())
    return train_incrementally(pieces, room(vocab_size, special_tokens), special_tokens, set, set.add)


@misconception(
    "train_bpe_speed",
    "The words of a pair are kept in a list that is searched before each addition; a set finds them at once.",
    replaces="train_bpe",
)
def searches_lists(text, vocab_size, special_tokens, pattern=PATTERN):
    def add(holders, i):
        if i not in holders:
            holders.append(i)

    words = pieces_of(text, special_tokens, pattern)
    return train_incrementally(words, room(vocab_size, special_tokens), special_tokens, list, add)


def train_incrementally(words, n_merges, special_tokens, container, add):
    frequencies = list(words.values()) if isinstance(words, Counter) else [1] * len(words)
    words = [tuple(bytes([byte]) for byte in word.encode()) for word in words]
    counts, where, merges = Counter(), {}, []

    def register(i, sign):
        for pair in pairwise(words[i]):
            counts[pair] += sign * frequencies[i]
            add(where.setdefault(pair, container()), i)

    for i in range(len(words)):
        register(i, +1)
    while len(merges) < n_merges and (top := max(counts.values(), default=0)):
        merges.append(max(pair for pair, count in counts.items() if count == top))
        for i in where.pop(merges[-1]):
            for pair in pairwise(words[i]):
                counts[pair] -= frequencies[i]
            words[i] = merge_word(words[i], merges[-1])
            register(i, +1)
    return build(merges, special_tokens)
