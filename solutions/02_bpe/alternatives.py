"""Right answers of chapter 2 written in other styles; a suite that fails one of them is wrong."""

import codecs
import functools
import heapq
import io
import re
from collections import Counter, defaultdict

import numpy as np
import regex

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- encode_utf8, decode_utf8


@alternative("encode_utf8", "shifts and masks, character by character")
def encode_by_bits(text):
    out = []
    for code in map(ord, text):
        if code < 0x80:
            out.append(code)
        elif code < 0x800:
            out += [0xC0 | code >> 6, 0x80 | code & 0x3F]
        elif code < 0x10000:
            out += [0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F]
        else:
            out += [0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F]
    return out


@alternative("encode_utf8", "numpy reads the buffer")
def encode_by_numpy(text):
    return np.frombuffer(bytes(text, "utf8"), dtype=np.uint8).tolist()


@alternative("encode_utf8", "an incremental decoder, fed byte by byte", replaces="decode_utf8")
def decode_incrementally(ids, errors="replace"):
    if any(i < 0 or i > 255 for i in ids):
        raise ValueError("a byte is 0 to 255")
    decoder = codecs.getincrementaldecoder("utf-8")(errors=errors)
    text = "".join(decoder.decode(i.to_bytes(1, "big")) for i in ids)
    return text + decoder.decode(b"", True)


@alternative("encode_utf8", "a text file in memory", replaces="decode_utf8")
def decode_as_a_file(ids, errors="replace"):
    return io.TextIOWrapper(io.BytesIO(bytearray(ids)), encoding="utf-8", errors=errors, newline="").read()


# -- pretokenize


@alternative("pretokenize", "findall within a group around everything")
def pieces_by_findall(text, pattern=reference.GPT2_PATTERN):
    whole = regex.findall(f"(?P<whole_of_it>{pattern})", text)
    return [m for m in (m if isinstance(m, str) else m[0] for m in whole) if m != ""]


@alternative("pretokenize", "substitution as a visitor")
def pieces_by_sub(text, pattern=reference.GPT2_PATTERN):
    pieces = []
    regex.compile(pattern).sub(lambda match: pieces.append(match[0]) or "", text)
    return list(filter(None, pieces))


@alternative("pretokenize", "a generator over the spans")
def pieces_by_spans(text, pattern=reference.GPT2_PATTERN):
    def spans():
        for match in regex.finditer(pattern, text):
            start, end = match.span()
            if end > start:
                yield text[start:end]

    return [*spans()]


# -- train_bpe, train_bpe_speed


def pieces_between(text, special_tokens, pattern):
    """The pieces and their numbers, the special tokens cut out at the leftmost place, the longest first."""
    stretches = [text]
    if len(special_tokens):
        stretches = re.split("|".join(map(re.escape, sorted(special_tokens, key=len)[::-1])), text)
    pieces = {}
    for stretch in stretches:
        for piece in reference.pretokenize(stretch, pattern):
            pieces[piece] = pieces.get(piece, 0) + 1
    return pieces


def numbered(merges, special_tokens):
    vocab = {i: bytes((i,)) for i in range(256)}
    for left, right in merges:
        vocab[len(vocab)] = left + right
    for token in special_tokens:
        vocab[len(vocab)] = token.encode("utf-8")
    return vocab


@alternative("train_bpe", "a full recount at every step, tuples of bytes, and a sort")
def train_by_recounts(text, vocab_size, special_tokens, pattern=reference.GPT2_PATTERN):
    if vocab_size < 256 + len(special_tokens):
        raise ValueError("vocab_size")
    words = {}
    for piece, n in pieces_between(text, special_tokens, pattern).items():
        words[tuple(piece.encode()[i : i + 1] for i in range(len(piece.encode())))] = n
    merges = []
    for _ in range(vocab_size - 256 - len(special_tokens)):
        counts = defaultdict(int)
        for word, n in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += n
        if not counts:
            break
        best = sorted(counts.items(), key=lambda item: (item[1], item[0]))[-1][0]
        merges.append(best)
        changed = {}
        for word, n in words.items():
            new, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    new.append(word[i] + word[i + 1])
                    i += 2
                else:
                    new.append(word[i])
                    i += 1
            changed[tuple(new)] = changed.get(tuple(new), 0) + n
        words = changed
    return numbered(merges, special_tokens), merges


@alternative("train_bpe", "tokens are characters of one long string, and a merge is str.replace")
def train_by_replace(text, vocab_size, special_tokens, pattern=reference.GPT2_PATTERN):
    if vocab_size - len(special_tokens) < 256:
        raise ValueError("vocab_size")
    border = chr(0x10FFFF)
    pieces = []
    for piece, n in pieces_between(text, special_tokens, pattern).items():
        pieces += n * ["".join(map(chr, piece.encode()))]
    corpus = border.join(pieces)
    vocab = [bytes([i]) for i in range(256)]
    merges = []
    while len(vocab) + len(special_tokens) < vocab_size:
        counts = Counter(a + b for a, b in zip(corpus, corpus[1:], strict=False) if border not in (a, b))
        if not counts:
            break
        key = max((n, vocab[ord(a)], vocab[ord(b)], a + b) for (a, b), n in counts.items())
        merges.append(key[1:3])
        corpus = corpus.replace(key[3], chr(len(vocab)))
        vocab.append(key[1] + key[2])
    vocab += [token.encode() for token in special_tokens]
    return {i: token for i, token in enumerate(vocab)}, merges


class Candidate:
    """A pair in a heap: the greatest count first, then the greatest bytes."""

    __slots__ = ("key", "pair")

    def __init__(self, count, pair, vocab):
        self.key, self.pair = (count, vocab[pair[0]], vocab[pair[1]]), pair

    def __lt__(self, other):
        return self.key > other.key


def train_with_a_heap(text, vocab_size, special_tokens, pattern):
    """Ids instead of bytes, counts in a dict, and a heap whose stale entries are skipped."""
    if vocab_size < 256 + len(special_tokens):
        raise ValueError("vocab_size")
    pieces = pieces_between(text, special_tokens, pattern)
    words, freqs = [list(piece.encode()) for piece in pieces], list(pieces.values())
    vocab = {i: bytes([i]) for i in range(256)}
    counts, holders = {}, {}
    for w, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + freqs[w]
            holders.setdefault(pair, set()).add(w)
    heap = [Candidate(n, pair, vocab) for pair, n in counts.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(vocab) + len(special_tokens) < vocab_size:
        best = heapq.heappop(heap)
        if counts.get(best.pair, 0) != best.key[0] or best.key[0] == 0:
            continue  # an entry from before the count changed
        a, b = best.pair
        new = len(vocab)
        merges.append((vocab[a], vocab[b]))
        vocab[new] = vocab[a] + vocab[b]
        touched = set()
        for w in holders.pop(best.pair):
            word, n = words[w], freqs[w]
            i = 0
            while i < len(word) - 1:
                if word[i] == a and word[i + 1] == b:
                    if i > 0:
                        counts[word[i - 1], a] -= n
                        counts[word[i - 1], new] = counts.get((word[i - 1], new), 0) + n
                        touched |= {(word[i - 1], a), (word[i - 1], new)}
                        holders.setdefault((word[i - 1], new), set()).add(w)
                    if i + 2 < len(word):
                        counts[b, word[i + 2]] -= n
                        counts[new, word[i + 2]] = counts.get((new, word[i + 2]), 0) + n
                        touched |= {(b, word[i + 2]), (new, word[i + 2])}
                        holders.setdefault((new, word[i + 2]), set()).add(w)
                    counts[a, b] -= n
                    word[i : i + 2] = [new]
                i += 1
        for pair in touched:
            if counts[pair] > 0:
                heapq.heappush(heap, Candidate(counts[pair], pair, vocab))
    for token in special_tokens:
        vocab[len(vocab)] = token.encode()
    return vocab, merges


@alternative("train_bpe", "ids, a heap with stale entries, and only the neighbours of each place updated")
def train_by_heap(text, vocab_size, special_tokens, pattern=reference.GPT2_PATTERN):
    return train_with_a_heap(text, vocab_size, special_tokens, pattern)


@alternative("train_bpe_speed", "ids, a heap with stale entries, and only the neighbours updated", replaces="train_bpe")
def train_fast_by_heap(text, vocab_size, special_tokens, pattern=reference.GPT2_PATTERN):
    return train_with_a_heap(text, vocab_size, special_tokens, pattern)


@alternative("train_bpe_speed", "each pair has a table of its words and how often each holds it", "train_bpe")
def train_fast_by_tables(text, vocab_size, special_tokens, pattern=reference.GPT2_PATTERN):
    room = vocab_size - 256 - len(special_tokens)
    if room < 0:
        raise ValueError("vocab_size")
    freqs = pieces_between(text, special_tokens, pattern)
    words = {piece: tuple(bytes([i]) for i in piece.encode()) for piece in freqs}
    table = {}  # pair -> {piece: how often the pair stands in it}
    total = Counter()
    for piece, word in words.items():
        for pair, n in Counter(zip(word, word[1:], strict=False)).items():
            table.setdefault(pair, {})[piece] = n
            total[pair] += n * freqs[piece]
    merges = []
    while total and len(merges) < room:
        best = max(total, key=lambda pair: (total[pair], pair))
        merges.append(best)
        for piece in list(table[best]):
            word, new = list(words[piece]), []
            while word:
                if tuple(word[:2]) == best:
                    new.append(best[0] + best[1])
                    del word[:2]
                else:
                    new.append(word.pop(0))
            before = Counter(zip(words[piece], words[piece][1:], strict=False))
            after = Counter(zip(new, new[1:], strict=False))
            for pair in before.keys() | after.keys():
                change = after[pair] - before[pair]
                total[pair] += change * freqs[piece]
                if not total[pair]:
                    del total[pair]
                if after[pair]:
                    table.setdefault(pair, {})[piece] = after[pair]
                else:
                    table[pair].pop(piece)
            words[piece] = tuple(new)
    return numbered(merges, special_tokens), merges


# -- apply_merges


@alternative("apply_merges", "every merge once, in the order learned")
def merges_in_order(piece, ranks):
    parts = [piece[i : i + 1] for i in range(len(piece))]
    for left, right in sorted(ranks, key=ranks.get):
        i = 0
        while i + 1 < len(parts):
            if parts[i] == left and parts[i + 1] == right:
                parts[i : i + 2] = [left + right]
            i += 1
    return parts


@alternative("apply_merges", "recursion that joins one place at a time, the leftmost of the lowest rank")
def merges_by_recursion(piece, ranks):
    def join(parts):
        found = [(ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:], strict=False)) if pair in ranks]
        if not found:
            return list(parts)
        i = min(found)[1]
        return join((*parts[:i], parts[i] + parts[i + 1], *parts[i + 2 :]))

    return join(tuple(bytes([b]) for b in piece))


@alternative("apply_merges", "a heap of places and a linked list of borders")
def merges_by_heap(piece, ranks):
    after = list(range(1, len(piece) + 1))  # the end of the token that begins here
    before = [i - 1 for i in range(len(piece))]
    alive = [True] * len(piece)

    def token(i):
        return piece[i : after[i]]

    def push(i):
        if i >= 0 and after[i] < len(piece):
            pair = (token(i), token(after[i]))
            if pair in ranks:
                heapq.heappush(heap, (ranks[pair], i, pair))

    heap = []
    for i in range(len(piece)):
        push(i)
    while heap:
        _, i, pair = heapq.heappop(heap)
        j = after[i]
        if not alive[i] or j == len(piece) or (token(i), token(j)) != pair:
            continue
        alive[j] = False
        after[i] = after[j]
        if after[i] < len(piece):
            before[after[i]] = i
        push(before[i])
        push(i)
    return [token(i) for i in range(len(piece)) if alive[i]]


# -- BPETokenizer, encode_iterable


def cut_at(text, allowed):
    """Parts of the text, each with True if it is a special token: the leftmost first, the longest there."""
    plain, i = 0, 0
    while i < len(text):
        hits = [s for s in allowed if text.startswith(s, i)]
        if hits:
            yield text[plain:i], False
            yield max(hits, key=len), True
            i = plain = i + len(max(hits, key=len))
        else:
            i += 1
    yield text[plain:], False


@alternative("BPETokenizer", "ids from the start, pairs of ids, a memory of pieces, specials found by startswith")
class TokenizerOfIds(reference.BPETokenizer):
    def __init__(self, vocab, merges, special_tokens):
        of = {token: i for i, token in vocab.items()}
        self.byte_ids = [of[bytes([b])] for b in range(256)]
        self.rank, self.joined = {}, {}
        for rank, (left, right) in enumerate(merges):
            pair = (of[left], of[right])
            self.rank[pair] = rank
            self.joined[pair] = of[left + right]
        self.special = {s: of[s.encode()] for s in special_tokens}
        self.bytes_of = dict(vocab)
        self.memory = {}

    def _piece(self, piece):
        if piece not in self.memory:
            ids = [self.byte_ids[b] for b in piece.encode()]
            while True:
                known = [pair for pair in zip(ids, ids[1:], strict=False) if pair in self.rank]
                if not known:
                    break
                best = min(known, key=self.rank.__getitem__)
                i = 0
                while i < len(ids) - 1:
                    if (ids[i], ids[i + 1]) == best:
                        ids[i : i + 2] = [self.joined[best]]
                    i += 1
            self.memory[piece] = ids
        return self.memory[piece]

    def encode(self, text, allowed_special=frozenset()):
        for token in allowed_special:
            if token not in self.special:
                raise ValueError(token)
        out = []
        for part, special in cut_at(text, allowed_special):
            if special:
                out.append(self.special[part])
            else:
                for piece in reference.pretokenize(part):
                    out += self._piece(piece)
        return out

    def decode(self, ids):
        buffer = bytearray()
        for i in ids:
            buffer += self.bytes_of[i]
        return str(buffer, encoding="utf-8", errors="replace")


@alternative("BPETokenizer", "str.partition at the first special token, cached pieces, a join of decoded bytes")
class TokenizerByPartition(reference.BPETokenizer):
    def __init__(self, vocab, merges, special_tokens):
        self.table = vocab.copy()
        self.back = dict(zip(vocab.values(), vocab.keys(), strict=True))
        self.specials = list(special_tokens)
        ranks = dict(zip(map(tuple, merges), range(len(merges)), strict=True))
        self.tokens_of = functools.lru_cache(maxsize=64)(lambda piece: reference.apply_merges(piece, ranks))

    def encode(self, text, allowed_special=frozenset()):
        allowed = sorted(set(allowed_special), key=len, reverse=True)
        if any(s not in self.specials for s in allowed):
            raise ValueError("not a special token")
        ids = []
        while text:
            present = [s for s in allowed if s in text]
            first = min(present, key=text.index) if present else None  # of equal places the longest: min is stable
            head, _, tail = text.partition(first) if first else (text, "", "")
            for piece in regex.findall(reference.GPT2_PATTERN, head):
                ids += [self.back[token] for token in self.tokens_of(piece.encode())]
            if first:
                ids.append(self.back[first.encode()])
            text = tail
        return ids

    def decode(self, ids):
        return b"".join([self.table[i] for i in ids]).decode(errors="replace")


def open_at(text, allowed):
    """Where the last stretch begins, and how far it is surely ordinary text."""
    stretch = i = 0
    longest = max(map(len, allowed), default=0)
    while i < len(text):
        rest = text[i : i + longest]
        if any(len(rest) < len(s) and s.startswith(rest) for s in allowed):
            break
        hit = max((s for s in allowed if rest.startswith(s)), key=len, default="")
        i += len(hit) or 1
        if hit:
            stretch = i
    return stretch, i


@alternative("encode_iterable", "two generators in a row: one finds the specials, one holds two pieces", "BPETokenizer")
class StreamInTwoStages(reference.BPETokenizer):
    def _events(self, chunks, allowed):
        """Yield parts as `cut_at` does, as soon as they are sure; ordinary text may come in several parts."""
        text = ""
        for chunk in chunks:
            text += chunk
            _, end = open_at(text, allowed)
            yield from cut_at(text[:end], allowed)
            text = text[end:]
        yield from cut_at(text, allowed)

    def encode_iterable(self, chunks, allowed_special=frozenset()):
        self.encode("", allowed_special)
        held = ""
        for part, special in self._events(chunks, tuple(allowed_special)):
            if special:
                yield from self.encode(held)
                yield from self.encode(part, [part])
                held = ""
                continue
            held += part
            pieces = reference.pretokenize(held)
            for piece in pieces[:-2]:
                yield from self.encode(piece)
            held = "".join(pieces[-2:])
        yield from self.encode(held)


class Reader:
    """An iterator with a queue of ids, refilled chunk by chunk."""

    def __init__(self, tokenizer, chunks, allowed):
        self.tokenizer, self.chunks, self.allowed = tokenizer, iter(chunks), allowed
        self.queue, self.text, self.done = [], "", False

    def __iter__(self):
        return self

    def __next__(self):
        while not self.queue:
            if self.done:
                raise StopIteration
            try:
                self.text += next(self.chunks)
            except StopIteration:
                self.done = True
            settled = len(self.text) if self.done else self.settled()
            self.queue = self.tokenizer.encode(self.text[:settled], self.allowed)[::-1]
            self.text = self.text[settled:]
        return self.queue.pop()

    def settled(self):
        stretch, end = open_at(self.text, self.allowed)
        return stretch + sum(map(len, reference.pretokenize(self.text[stretch:end])[:-2]))


@alternative("encode_iterable", "a class with __next__ and a queue", "BPETokenizer")
class StreamByReader(reference.BPETokenizer):
    def encode_iterable(self, chunks, allowed_special=frozenset()):
        return Reader(self, chunks, frozenset(allowed_special))
