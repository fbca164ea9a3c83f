"""Hidden tests of chapter 2: the library, a recount from scratch, tiktoken on ranks trained here, and brute force."""

import time
from collections import Counter, defaultdict
from functools import cache

import pytest
import regex
import tiktoken

from grader.testing import driver, exact, exercise, holds, pure

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END, A, AB, DOTS = "<|end|>", "<|a|>", "<|a|><|b|>", "[x.y]"
ENGLISH = (
    "The miller's daughter, who'd never seen 12 geese, said they'll fly; we've seen 1234! 'Twas 'very' ever-green.\n\n"
    "\tHer brother's letters aren't  there:   he's late, they're later, I'm latest – déjà vu ½ 家族 😉😉.  \n"
)
# code points of one, two, three and four bytes; surrogates are none
PLANES = ((0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000))

# -- oracles -------------------------------------------------------------------------------------------------------


def cut_at(text, special_tokens):
    """Give (part, whether it is special) pairs: at each place the longest special token that stands there."""
    parts, start, here = [], 0, 0
    while here < len(text):
        found = max((s for s in special_tokens if text.startswith(s, here)), key=len, default="")
        if found:
            parts += [(text[start:here], False), (found, True)]
            start = here + len(found)
        here += len(found) or 1
    return [part for part in [*parts, (text[start:], False)] if part[0]]


def as_bytes(piece):
    return tuple(bytes([byte]) for byte in piece.encode())


def join(word, pair):
    """Join the pair in a word wherever it stands, from left to right."""
    out, i = [], 0
    while i < len(word):
        step = 2 if word[i : i + 2] == pair else 1
        out.append(b"".join(word[i : i + step]))
        i += step
    return tuple(out)


def count_pieces(text, special_tokens, pattern):
    stretches = [part for part, special in cut_at(text, special_tokens) if not special]
    return Counter(piece for stretch in stretches for piece in regex.findall(pattern, stretch) if piece)


def recount(text, vocab_size, special_tokens=(), pattern=PATTERN):
    """Train by counting every pair anew at each step."""
    words = Counter(as_bytes(p) for p in count_pieces(text, special_tokens, pattern).elements())
    merges = []
    while len(merges) < vocab_size - 256 - len(special_tokens):
        counts = Counter()
        for word, frequency in words.items():
            for pair in zip(word, word[1:], strict=False):
                counts[pair] += frequency
        if not counts:
            break
        merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
        words = Counter({join(word, merges[-1]): frequency for word, frequency in words.items()})
    return table(merges, special_tokens), merges


def table(merges, special_tokens=()):
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges]
    return dict(enumerate(tokens + [token.encode() for token in special_tokens]))


def incremental(text, vocab_size):
    """Train with counts that are kept up to date: the measure of speed."""
    pieces = Counter(regex.findall(PATTERN, text))
    words, frequencies = [as_bytes(piece) for piece in pieces], list(pieces.values())
    counts, holders, merges = defaultdict(int), defaultdict(set), []
    for i, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            counts[pair] += frequencies[i]
            holders[pair].add(i)
    while counts and len(merges) < vocab_size - 256:
        top = max(counts.values())
        merges.append(max(pair for pair, count in counts.items() if count == top))
        for i in holders.pop(merges[-1]):
            new = join(words[i], merges[-1])
            for pair in zip(words[i], words[i][1:], strict=False):
                counts[pair] -= frequencies[i]
            for pair in zip(new, new[1:], strict=False):
                counts[pair] += frequencies[i]
                holders[pair].add(i)
            words[i] = new
        counts.pop(merges[-1])
    return merges


@cache
def trained(specials=(END,), n_merges=60):
    """Give (vocab, merges) learned from the English text."""
    return recount(ENGLISH, 256 + n_merges + len(specials), specials)


def tiktoken_of(merges, special_tokens=()):
    ranks = {token: i for i, token in table(merges).items()}
    specials = {token: len(ranks) + i for i, token in enumerate(special_tokens)}
    return tiktoken.Encoding("ours", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=specials)


cached_tiktoken = cache(tiktoken_of)


def any_texts(rng, n):
    """Texts of up to 30 characters: one half of any code points, one half of what the pattern tells apart."""
    texts = []
    for i in range(n):
        length = rng.random.randint(0, 30)
        if i % 2:
            texts.append("".join(rng.random.choices("aZé漢4½ '\n\t_.!svetldrm\u00a0", k=length)))
        else:
            texts.append("".join(chr(rng.random.randrange(*rng.random.choice(PLANES))) for _ in range(length)))
    return texts


@driver
def call_each(module, name, jobs):
    """Call a function with each tuple of arguments."""
    return [getattr(module, name)(*job) for job in jobs]


def words_of(rng, n, letters, low, high):
    return " ".join("".join(rng.random.choices(letters, k=rng.random.randint(low, high))) for _ in range(n))


# -- encode_utf8 ---------------------------------------------------------------------------------------------------


@exercise("encode_utf8")
def test_bytes_of_any_text(exercises, rng):
    """The bytes of any text are those of UTF-8, as a list of ints."""
    texts = any_texts(rng, 50)
    for text, got in zip(texts, exercises.run(call_each, "encode_utf8", [(text,) for text in texts]), strict=True):
        holds(isinstance(got, list), "encode_utf8 does not return a list")
        exact(got, list(text.encode()), f"encode_utf8({text!r})")


@exercise("encode_utf8")
def test_text_is_not_altered(exercises):
    """Marks, line ends, NUL and compatibility letters stay as they are."""
    for text in (
        "",
        "\ufeffab",
        "e\u0301 \ufb01",
        "a\r\nb\rc\x00",
        " a \u00a0",
        "\u07ff\u0800\uffff\U00010000\U0010ffff",
    ):
        exact(exercises.encode_utf8(text), list(text.encode()), f"encode_utf8({text!r})")
        exact(exercises.decode_utf8(list(text.encode())), text, f"decode_utf8 of the bytes of {text!r}")


@exercise("encode_utf8")
def test_any_bytes_decode(exercises, rng):
    """Any bytes decode without an error, under replace and ignore."""
    jobs = []
    for i in range(80):
        text = "".join(any_texts(rng, 2)).encode()[i % 7 :][:12]  # often cut inside a character
        noise = rng.random.choices(range(256), k=i % 4)
        jobs.append(([*text, *noise, *text[1:4]], "replace" if i % 2 else "ignore"))
    for (ids, errors), got in zip(jobs, exercises.run(call_each, "decode_utf8", jobs), strict=True):
        exact(got, bytes(ids).decode("utf-8", errors), f"decode_utf8({ids}, {errors!r})")


@exercise("encode_utf8")
def test_invalid_bytes_are_replaced_as_a_library_does(exercises):
    """Cut, overlong and surrogate sequences give the library's U+FFFD."""
    for data in (b"\xf0\x9f\x98", b"a\xf0\x9fb", b"\xc0\xaf", b"\xed\xa0\x80!", b"\xff\xc3\xa9\x80", "\ufffd".encode()):
        exact(exercises.decode_utf8(list(data)), data.decode(errors="replace"), f"decode_utf8({list(data)})")
        exact(exercises.decode_utf8(list(data), "ignore"), data.decode(errors="ignore"), f"{list(data)}, 'ignore'")


@exercise("encode_utf8")
def test_strict_raises_only_on_invalid_bytes(exercises):
    """With errors="strict" broken bytes raise and sound ones do not."""
    exact(exercises.decode_utf8([230, 188, 162, 33], errors="strict"), "漢!", "decode_utf8 of sound bytes, strict")
    for ids in ([230, 188], [128], [33, 195, 33], [237, 160, 128]):
        with pytest.raises(ValueError):
            exercises.decode_utf8(ids, errors="strict")


@exercise("encode_utf8")
def test_ids_outside_a_byte_raise(exercises):
    """Ids below 0 and above 255 raise ValueError; input is not changed."""
    for ids in ([256], [65, -1], [65, 300, 66], [233, 28450]):
        with pytest.raises(ValueError):
            exercises.decode_utf8(ids)
        with pytest.raises(ValueError):
            exercises.decode_utf8(ids, "ignore")
    exact(pure(exercises.decode_utf8, [255, 0, 65]), "\ufffd\x00A", "decode_utf8([255, 0, 65])")


# -- pretokenize ---------------------------------------------------------------------------------------------------


@exercise("pretokenize")
def test_pieces_are_the_matches(exercises, rng):
    """The pieces are the pattern's matches and join to the text."""
    texts = any_texts(rng, 100)
    for text, got in zip(texts, exercises.run(call_each, "pretokenize", [(text,) for text in texts]), strict=True):
        exact(got, regex.findall(PATTERN, text), f"pretokenize({text!r})")
        exact("".join(got), text, f"the joined pieces of {text!r}")


@exercise("pretokenize")
def test_pieces_of_hard_text(exercises):
    """Case, scripts, digits, marks and white space follow the pattern."""
    texts = (
        ENGLISH, "", " ", "a1b22 c3", "I'S I'LL we'lL 'sun 'd'm't", "x_y __z a_1", "٣٤ Ⅷ½ ²a", "e\u0301a \u0928\u093f",
        "a  b   c \n\n d\t\te \n", "\u00a0x\u2003y", "漢字かな ĞğΩ", "!!! ?a ...9", "don''t can't've",
    )  # fmt: skip
    for text in texts:
        exact(exercises.pretokenize(text), regex.findall(PATTERN, text), f"pretokenize({text!r})")


@exercise("pretokenize")
def test_groups_in_a_pattern_do_not_matter(exercises):
    """A piece is the whole match, whatever groups the pattern holds."""
    for grouped, plain in (
        (r"(\p{L})(\p{N})|(\s)+", r"\p{L}\p{N}|\s+"),
        (r"(?P<word>\p{L}+)\p{N}?", r"\p{L}+\p{N}?"),
        (r"( ?)(?:\p{L}+)|\S", r" ?\p{L}+|\S"),
    ):
        text = "ab1 c2  déf3, g4 5h"
        exact(exercises.pretokenize(text, grouped), regex.findall(plain, text), f"pretokenize with {grouped!r}")


@exercise("pretokenize")
def test_empty_matches_and_gaps_are_left_out(exercises):
    """Empty matches, and text that nothing matches, give no piece."""
    exact(exercises.pretokenize("ab1 cd", r"\p{L}*"), ["ab", "cd"], r"pretokenize('ab1 cd', '\\p{L}*')")
    exact(exercises.pretokenize("a, b", pattern=r"\w"), ["a", "b"], r"pretokenize('a, b', '\\w')")
    exact(exercises.pretokenize("a b\nc", r"[^\n]+"), ["a b", "c"], "pretokenize into lines")
    exact(exercises.pretokenize("Ab aB", r"[a-z]+|\s"), ["b", " ", "a"], "pretokenize into small letters and spaces")
    exact(exercises.pretokenize("...", r"\w+"), [], "pretokenize without a match")
    exact(exercises.pretokenize("ab\ncd\n", r"^.|."), ["a", "b", "c", "d"], "pretokenize with r'^.|.'")
    exact(exercises.pretokenize("ab\ncd", r"^\w|\w$"), ["a", "d"], r"pretokenize with '^\w|\w$'")


# -- train_bpe -----------------------------------------------------------------------------------------------------


@driver
def train_each(module, jobs):
    """Train on each (text, vocab_size, special_tokens, ...); of the vocabulary tell the size and what is learned."""
    trained = [module.train_bpe(*job) for job in jobs]
    return [(len(vocab), {i: vocab[i] for i in vocab if i > 255}, merges) for vocab, merges in trained]


def same_training(exercises, jobs):
    for job, (size, learned, merges) in zip(jobs, exercises.run(train_each, jobs), strict=True):
        what = f"train_bpe({job[0][:60]!r}, {', '.join(map(repr, job[1:]))})"
        vocab, expected = recount(*job)
        exact(merges, expected, f"merges of {what}")
        exact((size, learned), (len(vocab), {i: vocab[i] for i in vocab if i > 255}), f"size and new ids of {what}")


@exercise("train_bpe", weight=2)
def test_merges_equal_a_recount(exercises, rng):
    """Merges equal those of counting every pair anew, ties included."""
    jobs = []
    for letters in ("ab", "aab ", "abc '", "aé漢 ", "xyzzy\n ", "~}é!ÿ\x00 \u00ad"):
        for _ in range(9):
            text = "".join(rng.random.choices(letters, k=rng.random.randint(0, 40)))
            jobs.append((text, 256 + rng.random.randint(0, 14), []))
    same_training(exercises, jobs)


@exercise("train_bpe")
def test_merges_of_real_text(exercises):
    """A real text of several scripts gives the merges of a recount."""
    same_training(exercises, [(ENGLISH * 2, 256 + 110, []), (ENGLISH + "abbc" * 60, 256 + 81, [END])])


@exercise("train_bpe")
def test_ties_compare_pairs_of_byte_strings(exercises):
    """Among equal counts the greatest pair of byte strings is taken."""
    jobs = [
        (text, 258, [], r"\S+| ")
        for text in ("ab cd", "b! bz", " a  a zz", "aab ab aba", "za~ za zaz", "éa zb", "aß ÿ")
    ]
    jobs += [("abc bcd cde " * 2, 262, []), ("xyxz xzxy", 260, []), ("aaab abbb", 262, []), ("q q  q!", 261, [])]
    same_training(exercises, jobs)


@exercise("train_bpe")
def test_overlapping_pairs(exercises):
    """Overlaps count as pairs, and merge from left to right."""
    jobs = [("a" * n + " bc bc bc"[: 3 * (n % 4)], 262, []) for n in range(1, 12)]
    jobs += [
        ("aaa bcbc", 258, []),
        ("aaaa bc bc", 258, []),
        ("aaab", 258, []),
        ("ababab abab", 262, []),
        ("abaabaaba", 261, []),
    ]
    same_training(exercises, jobs)


@exercise("train_bpe")
def test_special_tokens_cut_the_text(exercises, rng):
    """Text is cut at special tokens, and they are never counted."""
    jobs = []
    for specials in ([END], [A, AB], [AB, A], [DOTS, "."], ["a", "ab"], ["<é>", A, "<|"]):
        for _ in range(6):
            parts = rng.random.choices(
                [*specials, "ab", " ab", "a", "  ", "<|b|>", "|", "[xzy]", "x.y", "é", "\n"], k=14
            )
            jobs.append(("".join(parts), 256 + len(specials) + 8, specials))
    same_training(exercises, jobs)


@exercise("train_bpe")
def test_white_space_before_a_special_token(exercises):
    """Each stretch between special tokens is cut into pieces by itself."""
    jobs = [
        ("a  " + END + "b" + END + "   c", 261, [END]),
        ("ab" + END + "cd " * 3, 260, [END]),
        (END + END, 300, [END]),
    ]
    same_training(exercises, [*jobs, (" " + END + "  'l" + END + "l", 259, [END]), ("a" + END + "b", 300, [END])])


@exercise("train_bpe")
def test_layout_and_size_of_the_vocabulary(exercises):
    """Bytes, then merges, then special tokens, within vocab_size."""
    specials = ["zz", END, "é"]
    vocab, merges = pure(exercises.train_bpe, ENGLISH, 256 + 3 + 7, specials)
    exact(len(merges), 7, "the number of merges for vocab_size 266 with 3 special tokens")
    exact(sorted(vocab), list(range(266)), "the ids")
    exact([vocab[i] for i in range(256)], [bytes([i]) for i in range(256)], "the bytes of ids 0 to 255")
    exact([vocab[256 + i] for i in range(7)], [left + right for left, right in merges], "the bytes of the merges' ids")
    exact([vocab[263 + i] for i in range(3)], [b"zz", END.encode(), b"\xc3\xa9"], "the bytes of the special tokens")


@exercise("train_bpe")
def test_too_small_a_vocabulary_raises(exercises):
    """No room for bytes and special tokens raises ValueError."""
    for size, specials in ((255, []), (256, [END]), (257, [A, AB]), (0, [])):
        with pytest.raises(ValueError):
            exercises.train_bpe("abab", size, specials)
    same_training(exercises, [("abab", 256, []), ("abab", 257, [END]), ("ab" + A, 258, [A, AB])])


@exercise("train_bpe")
def test_training_ends_early(exercises):
    """Pairs that occur once are merged; then training ends."""
    same_training(
        exercises, [(text, 5000, [END, A]) for text in ("", "a", "abcdef", "a b c", "é", ENGLISH[:40], "aaaaa a")]
    )


@exercise("train_bpe")
def test_the_pattern_is_used(exercises):
    """Pieces come from the pattern that is given."""
    text = "aab1 aab2, ab-ab\nab ab.ab"
    patterns = (r"[^\n]+", r"\p{L}+", r".", r"\S+|\s+", r"[a-z]+[0-9]?| ")
    same_training(exercises, [(text + END + text, 264, [END], pattern) for pattern in patterns])
    grouped = exercises.train_bpe(text, 264, [], r"(\p{L})+(\p{N})?")
    exact(grouped[1], recount(text, 264, [], r"\p{L}+\p{N}?")[1], "merges with a pattern that holds groups")


@exercise("train_bpe")
def test_order_and_repetition_of_documents_do_not_matter(exercises, rng):
    """Neither order nor repetition of the documents changes the merges."""
    documents = [words_of(rng, 8, "abcde", 1, 6) for _ in range(5)]
    texts = [END.join(documents), END.join(reversed(documents)), END.join(documents * 3)]
    results = exercises.run(train_each, [(text, 290, [END]) for text in texts])
    exact(results[1], results[0], "training on the documents in reverse order")
    exact(results[2], results[0], "training on the documents three times over")
    exact(results[0][2], recount(texts[0], 290, [END])[1], "the merges")


# -- apply_merges --------------------------------------------------------------------------------------------------


@driver
def merge_each(module, pieces, ranks):
    """Apply the merges to each piece."""
    return [module.apply_merges(piece, ranks) for piece in pieces]


def same_segments(exercises, pieces, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    oracle, vocab = tiktoken_of(merges), table(merges)
    for piece, got in zip(pieces, exercises.run(merge_each, pieces, ranks), strict=True):
        expected = [vocab[i] for i in oracle._encode_single_piece(piece)] if piece else []
        exact(got, expected, f"apply_merges({piece!r}) with the merges {merges[:12]}")


@exercise("apply_merges", weight=2)
def test_tokens_equal_tiktoken(exercises, rng):
    """Tokens of random pieces equal those of tiktoken."""
    for letters in ("ab", "abc", "abcd", "aé漢"):
        for _ in range(3):
            text = words_of(rng, 12, letters, 1, 9)
            merges = recount(text, 256 + rng.random.randint(3, 30))[1]
            pieces = ["".join(rng.random.choices(letters, k=rng.random.randint(0, 14))).encode() for _ in range(30)]
            same_segments(exercises, pieces, merges)


@exercise("apply_merges")
def test_training_words_get_their_training_tokens(exercises):
    """Words of the training text get the tokens that training gave."""
    merges = trained()[1]
    pieces = [piece.encode() for piece in dict.fromkeys(regex.findall(PATTERN, ENGLISH))]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    for piece, got in zip(pieces, exercises.run(merge_each, pieces, ranks), strict=True):
        word = tuple(bytes([byte]) for byte in piece)
        for pair in merges:
            word = join(word, pair)
        exact(got, list(word), f"apply_merges({piece!r})")


@exercise("apply_merges")
def test_any_bytes_and_no_merges(exercises, rng):
    """Any bytes split and join; without ranks single bytes stay."""
    data = bytes(rng.random.choices(range(256), k=60))
    exact(exercises.apply_merges(data, {}), [bytes([byte]) for byte in data], "apply_merges with no ranks")
    exact(exercises.apply_merges(b"", {(b"a", b"b"): 0}), [], "apply_merges(b'')")
    exact(exercises.apply_merges(b"a", {(b"a", b"a"): 0}), [b"a"], "apply_merges(b'a')")
    got = exercises.apply_merges(b"\xff\x00\xff\x00\x80", {(b"\xff", b"\x00"): 4, (b"\xff\x00", b"\x80"): 9})
    exact(got, [b"\xff\x00", b"\xff\x00\x80"], "apply_merges of bytes that are not text")


@exercise("apply_merges")
def test_a_repeated_pair_joins_from_the_left(exercises):
    """A repeated letter joins from the left: aaa is aa, a."""
    merges = [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aa"), (b"b", b"a")]
    pieces = [b"a" * n for n in range(10)] + [b"baaa", b"aaab", b"baab" * 3, b"aaba"]
    for n in range(1, 5):
        same_segments(exercises, pieces, merges[:n])


@exercise("apply_merges")
def test_ranks_count_not_the_order_of_the_dict(exercises):
    """The rank decides, in a dict of any order and with gaps."""
    ranks = {(b"ab", b"c"): 1000, (b"c", b"d"): 40, (b"a", b"b"): 7, (b"b", b"c"): -3, (b"a", b"bc"): 41}
    exact(pure(exercises.apply_merges, b"abcd", ranks), [b"abc", b"d"], f"apply_merges(b'abcd', {ranks})")
    exact(exercises.apply_merges(b"cdab", ranks), [b"cd", b"ab"], f"apply_merges(b'cdab', {ranks})")
    for rank in (2000, 10**9, 10**18):
        got = exercises.apply_merges(b"xabc", {(b"b", b"c"): rank, (b"a", b"b"): rank - 1})
        exact(got, [b"x", b"ab", b"c"], f"apply_merges(b'xabc') with the ranks {rank} and {rank - 1}")
    exact(exercises.apply_merges(b"abc", {(b"a", b"b"): 2, (b"b", b"c"): -7}), [b"a", b"bc"], "with a rank of -7")
    zero = {(b"b", b"c"): 0, (b"a", b"b"): 1}
    exact(exercises.apply_merges(b"abcab", zero), [b"a", b"bc", b"ab"], f"apply_merges(b'abcab', {zero})")
    late = {(b"b", b"c"): 5, (b"a", b"b"): 2, (b"ab", b"c"): 12}
    exact(exercises.apply_merges(b"abcbc", late), [b"abc", b"bc"], f"apply_merges(b'abcbc', {late})")


@exercise("apply_merges")
def test_a_long_piece(exercises):
    """A piece of 600 bytes is merged to the end."""
    merges = [(b"a", b"b"), (b"ab", b"ab"), (b"abab", b"abab"), (b"c", b"abab")]
    same_segments(exercises, [b"ab" * 300, b"cabab" * 120, b"abc" * 200], merges)


# -- BPETokenizer --------------------------------------------------------------------------------------------------


@driver
def encode_each(module, arguments, jobs):
    """Encode each (text, allowed_special) with one tokenizer."""
    tokenizer = module.BPETokenizer(*arguments)
    return [tokenizer.encode(text, allowed) for text, allowed in jobs]


def random_text(rng, extra=(), k=12):
    pieces = [
        " the",
        "the",
        "ever",
        "'",
        "v",
        "ve",
        "s",
        "12",
        "  ",
        "\n",
        "é",
        "漢",
        "<|",
        "|>",
        "a",
        "!",
        "'ll",
        "<|b|>",
        " ",
    ]
    return "".join(rng.random.choices([*pieces, *extra], k=k))


def ids_by_hand(text, allowed, specials, vocab, merges):
    """Give the ids: cut at the allowed special tokens, then tiktoken's tokens of each stretch."""
    ids, oracle, tokens = {token: i for i, token in vocab.items()}, cached_tiktoken(tuple(merges)), table(merges)
    out = []
    for part, special in cut_at(text, allowed):
        out += [ids[part.encode()]] if special else [ids[tokens[i]] for i in oracle.encode_ordinary(part)]
    return out


@exercise("BPETokenizer", weight=2)
def test_ids_equal_tiktoken(exercises, rng):
    """Ids equal those of tiktoken, with special tokens and without."""
    vocab, merges = trained((END, A))
    oracle, jobs = tiktoken_of(merges, (END, A)), [(ENGLISH, set()), ("", {END}), ("", set())]
    jobs += [(random_text(rng, (END, A)), allowed) for allowed in (set(), {END}, {A}, {END, A}) for _ in range(20)]
    for (text, allowed), got in zip(jobs, exercises.run(encode_each, (vocab, merges, [END, A]), jobs), strict=True):
        expected = oracle.encode(text, allowed_special=allowed, disallowed_special=())
        exact(got, expected, f"encode({text!r}, {sorted(allowed)})")


@exercise("BPETokenizer")
def test_the_longest_special_token_counts(exercises, rng):
    """Of overlapping special tokens the longest allowed one counts."""
    orders = ([A, AB, "<|a", DOTS, "é"], ["é", DOTS, "<|a", AB, A])
    for specials in orders:
        vocab, merges = trained(tuple(specials))
        jobs = [(A + "<|b|>" + A + A + "<|b|", set(specials)), (AB, {A}), (AB, {AB}), ("[xzy][x.y]", {DOTS})]
        jobs += [(random_text(rng, specials), set(rng.random.sample(specials, k))) for k in range(6) for _ in range(5)]
        for (text, allowed), got in zip(jobs, exercises.run(encode_each, (vocab, merges, specials), jobs), strict=True):
            exact(got, ids_by_hand(text, allowed, specials, vocab, merges), f"encode({text!r}, {sorted(allowed)})")


@exercise("BPETokenizer")
def test_special_tokens_in_every_place(exercises):
    """Special tokens at the ends, doubled and amid spaces are found."""
    vocab, merges = recount(ENGLISH + " <|END|>s" * 40, 256 + 50 + 1, [END])
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    for text in (
        END,
        END + END,
        "a" + END,
        END + "a",
        "a  " + END + "  b",
        f" {END} ",
        f"the{END}the",
        f"'{END}s",
        f"\n{END}",
    ):
        exact(tokenizer.encode(text, {END}), ids_by_hand(text, {END}, [END], vocab, merges), f"encode({text!r})")
    for text in ("the <|END|>s", "<|end |>", "<|end|", "end", " xend|>"):
        exact(tokenizer.encode(text, {END}), tokenizer.encode(text), f"encode({text!r}), which holds no special token")


@exercise("BPETokenizer")
def test_what_is_not_allowed_is_ordinary_text(exercises):
    """Text that looks special but is not allowed has no special id."""
    vocab, merges = trained((END, A))
    tokenizer = exercises.BPETokenizer(vocab, merges, [END, A])
    text = f"the {END}the{A} {END}"
    with_end, nothing = tokenizer.encode(text, allowed_special={END}), tokenizer.encode(text)
    holds(max(nothing) < 256 + len(merges), "a special id comes out although no special token is allowed")
    exact(nothing, ids_by_hand(text, (), (), vocab, merges), f"encode({text!r})")
    exact(with_end, ids_by_hand(text, {END}, [END, A], vocab, merges), f"encode({text!r}) with {END} allowed")
    exact(tokenizer.encode(text), nothing, "the same text again with nothing allowed")


@exercise("BPETokenizer")
def test_an_unknown_special_token_raises(exercises):
    """Allowing what is no special token raises ValueError."""
    tokenizer = exercises.BPETokenizer(*trained(), [END])
    for allowed in ({A}, {END, A}, {"the"}):
        with pytest.raises(ValueError):
            tokenizer.encode("the", allowed_special=allowed)
    bare = exercises.BPETokenizer(*recount("the the", 258), [])
    exact(bare.decode(bare.encode(f"the {END}")), f"the {END}", "a tokenizer without special tokens, there and back")


@driver
def there_and_back(module, arguments, texts, allowed):
    """Encode and decode each text with one tokenizer."""
    tokenizer = module.BPETokenizer(*arguments)
    return [(ids := tokenizer.encode(text, allowed), tokenizer.decode(ids)) for text in texts]


@exercise("BPETokenizer", weight=2)
def test_there_and_back(exercises, rng):
    """Decoding the ids of any text gives the text back."""
    vocab, merges = trained()
    texts = [text + END + text for text in any_texts(rng, 50)]
    for text, told in zip(texts, exercises.run(there_and_back, (vocab, merges, [END]), texts, {END}), strict=True):
        holds(all(i in vocab for i in told[0]), "an id is not in the vocabulary")
        exact(told[1], text, f"decode(encode({text!r}))")


@exercise("BPETokenizer")
def test_every_prefix_decodes(exercises):
    """Any prefix and suffix of ids decodes as its joined bytes do."""
    vocab, merges = trained()
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    ids = [*tokenizer.encode("déjà 漢字 😉😉"), 316, 255, 195, 316, 169, 128]
    for cut in range(len(ids) + 1):
        for some in (ids[:cut], ids[cut:]):
            expected = b"".join(vocab[i] for i in some).decode(errors="replace")
            exact(tokenizer.decode(some), expected, f"decode({some})")


@exercise("BPETokenizer")
def test_unknown_ids_raise(exercises):
    """An id that is not in the vocabulary raises KeyError."""
    vocab, merges = trained()
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    for ids in ([len(vocab)], [65, -1, 66], [65, 10**6]):
        with pytest.raises(KeyError):
            tokenizer.decode(ids)


@exercise("BPETokenizer")
def test_ids_are_those_of_the_vocabulary(exercises, rng):
    """Ids come from vocab, in whatever order it numbers the tokens."""
    plain, merges = trained((END, A))
    numbers = [3 * int(i) + 1 for i in rng.permutation(len(plain))]
    vocab = {numbers[i]: token for i, token in plain.items()}
    tokenizer = exercises.BPETokenizer(vocab, merges, [A, END])
    text = ENGLISH + END + A
    ids = tokenizer.encode(text, {END, A})
    exact(ids, ids_by_hand(text, {END, A}, [A, END], vocab, merges), "the ids under a permuted vocabulary")
    exact(tokenizer.decode(ids), text, "the text of these ids")
    with pytest.raises(KeyError):
        tokenizer.decode([max(numbers) + 1])
    with pytest.raises(KeyError):
        tokenizer.decode([0])


@exercise("BPETokenizer")
def test_tokenizers_do_not_share_or_change_anything(exercises):
    """Two tokenizers at once stay apart, and change no argument."""
    vocab, merges = trained((END, A))
    one = pure(exercises.BPETokenizer, vocab, merges, [END, A])
    few = recount("the other the other", 256 + 4 + 1, [DOTS])
    other = exercises.BPETokenizer(*few, [DOTS])
    text = f"the other {END}{DOTS} letters"
    exact(one.encode(text, {END}), ids_by_hand(text, {END}, [END, A], vocab, merges), "encode of the first tokenizer")
    exact(other.encode(text, {DOTS}), ids_by_hand(text, {DOTS}, [DOTS], *few), "encode of the second tokenizer")
    exact(one.decode([256, 316]), (vocab[256] + vocab[316]).decode(), "decode of the first tokenizer")
    with pytest.raises(ValueError):
        other.encode(text, {END})


HARD = "a\r\nb\rc\x00\x00 d \ufeff e\u0301 \ufb01 \u2028x\u00a0 \x0b\x85y\t\t z  \n "


@exercise("BPETokenizer")
def test_text_is_not_normalised(exercises):
    """Line ends, NUL, marks and blanks come back as they were."""
    vocab, merges = trained()
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    for text in (HARD, HARD + END + HARD, "\ufeff", "\n", " "):
        exact(tokenizer.decode(tokenizer.encode(text, {END})), text, f"decode(encode({text!r}))")
    exact(len(tokenizer.encode("\r\n\x00\x07")), 4, "the number of ids of four control characters")


# -- encode_iterable -----------------------------------------------------------------------------------------------


@driver
def stream_each(module, arguments, jobs):
    """Encode each (chunks, allowed_special) as a stream, with one tokenizer."""
    tokenizer = module.BPETokenizer(*arguments)
    return [list(tokenizer.encode_iterable(iter(chunks), allowed)) for chunks, allowed in jobs]


def same_stream(exercises, jobs, specials):
    vocab, merges = trained(tuple(specials))
    results = exercises.run(stream_each, (vocab, merges, list(specials)), jobs)
    expected = cache(lambda text, allowed: ids_by_hand(text, allowed, specials, vocab, merges))
    for (chunks, allowed), got in zip(jobs, results, strict=True):
        wanted = expected("".join(chunks), frozenset(allowed))
        exact(got, wanted, f"encode_iterable({chunks}, {sorted(allowed)})")


def chunked(rng, text, cuts):
    places = [0, *sorted(rng.random.randint(0, len(text)) for _ in range(cuts)), len(text)]
    return [text[i:j] for i, j in zip(places, places[1:], strict=False)]


@exercise("encode_iterable", weight=2)
def test_random_chunks(exercises, rng):
    """However the text is cut, the ids are those of the whole."""
    specials, jobs = [END, A, AB, "<|"], []
    for i in range(108):
        text = random_text(rng, specials, k=1 + i % 14)
        jobs.append((chunked(rng, text, i % 9), set(rng.random.sample(specials, i % 5))))
    same_stream(exercises, jobs, specials)


@exercise("encode_iterable")
def test_single_characters(exercises, rng):
    """A stream of single characters gives the ids of the whole."""
    texts = [
        ENGLISH,
        HARD.replace("\x85", "").replace("\u2028", ""),
        *(random_text(rng, [END, A, AB], k=20) for _ in range(6)),
    ]
    same_stream(exercises, [(list(text), allowed) for text in texts for allowed in (set(), {END, A, AB})], [END, A, AB])


@exercise("encode_iterable")
def test_pieces_that_a_later_letter_changes(exercises):
    """A later chunk may change the last two pieces of what was read."""
    texts = (
        "the'ver",
        "'vever",
        "e'lling",
        "e'rer",
        "they'll",
        "a'd",
        "we 've",
        "x  y",
        "x \n y",
        "x   ",
        "a1 2",
        "...!a",
        "  '  'v e",
    )
    jobs = [([text[:i], text[i:]], set()) for text in texts for i in range(len(text) + 1)]
    jobs += [([text[:i], text[i:j], text[j:]], set()) for text in texts for j in range(len(text)) for i in range(j)]
    same_stream(exercises, jobs, [END])


@exercise("encode_iterable")
def test_special_tokens_cut_in_every_place(exercises):
    """A special token cut in any place is found, the longest first."""
    specials, jobs = [END, A, AB, "<|", "|><|"], []
    for text in (
        f"the{END}the",
        A + "<|b|>!",
        A + "<|b|",
        AB + A,
        "<|<|a|>",
        f"  {END}  ",
        "<|en the",
        f"'{A}ve",
        "a|><|end|><",
    ):
        for i in range(len(text) + 1):
            for turn, allowed in enumerate(({END}, {A, AB}, set(specials), {AB, "|><|"}), start=i):
                rest = [text[i:]] if turn % 2 else [text[i : i + 1], "", text[i + 1 :]]
                jobs.append(([text[:i], *rest], allowed))
    same_stream(exercises, jobs, specials)


@exercise("encode_iterable")
def test_empty_chunks_and_empty_streams(exercises):
    """Empty chunks do no harm, and the last piece is not lost."""
    jobs = [
        ([], set()),
        ([""], {END}),
        (["", "", "the", "", ""], set()),
        (["a"], set()),
        (["", END, ""], {END}),
        ([" "], set()),
    ]
    same_stream(exercises, [*jobs, (["<|en"], {END}), (["the<"], {END}), (["the ", "the"], set())], [END])


class Source:
    """An iterator that counts the chunks and characters taken from it."""

    def __init__(self, chunks):
        self.chunks, self.taken, self.characters = iter(chunks), 0, 0

    def __next__(self):
        chunk = next(self.chunks)
        self.taken += 1
        self.characters += len(chunk)
        return chunk


@exercise("encode_iterable", weight=2)
@pytest.mark.parametrize("allowed", [set(), {END}], ids=["nothing", "special"])
def test_ids_come_while_the_source_is_read(exercises, allowed):
    """Ids come out while the source is still being read."""
    source = Source(["ever ", "green "] * 3000)
    ids = iter(exercises.BPETokenizer(*trained(), [END]).encode_iterable(source, allowed))
    for _ in range(5):
        next(ids)
    holds(source.taken <= 12, f"{source.taken} chunks of one word were read before the fifth id came out")


@exercise("encode_iterable", weight=2)
def test_little_is_held_back(exercises, rng):
    """What was read and has not come out yet stays a few pieces long."""
    vocab, merges = trained()
    parts = [" the", " ever", " green", ",", END, " <|", " <|en", "'ve", "\n", " 12"]
    text = "".join(rng.random.choices(parts, k=110))
    longest = max(len(piece) for part, special in cut_at(text, {END}) for piece in regex.findall(PATTERN, part))
    source, came_out, held = Source(text), 0, 0
    for i in exercises.BPETokenizer(vocab, merges, [END]).encode_iterable(source, {END}):
        held = max(held, source.characters - came_out)
        came_out += len(vocab[i])  # the text is ASCII: one byte, one character
    exact(came_out, len(text), "the characters that came out")
    # two pieces, a beginning of a special token, the newest chunk; and as much again for other ways of counting
    limit = 4 * longest + 2 * len(END)
    holds(held <= limit, f"{held} characters were held back at once; {limit} are enough for pieces of {longest}")


@exercise("encode_iterable")
def test_the_cost_does_not_grow_with_what_was_read(exercises):
    """A stream of 12,000 pieces takes no longer a piece than a short one."""
    # to cut the whole text anew at each of the 2,000 chunks takes twice the limit of CPU time, to encode it far more
    vocab, merges = trained()
    (got,) = exercises.run(stream_each, (vocab, merges, [END]), [(["a1!b2?"] * 2000, {END})])
    exact(got, [97, 49, 33, 98, 50, 63] * 2000, "encode_iterable of a1!b2? two thousand times over")


@exercise("encode_iterable")
def test_streams_in_turn(exercises):
    """Two streams of one tokenizer, read in turn, do not mix."""
    vocab, merges = trained()
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    texts = ["the miller's 12 geese" + END, "they're ever-green" + END + "  "]
    streams, got = [iter(tokenizer.encode_iterable(Source(text), {END})) for text in texts], [[], []]
    for turn in range(80):
        got[turn % 2] += [i for i in [next(streams[turn % 2], None)] if i is not None]
    for text, ids in zip(texts, got, strict=True):
        exact(ids, ids_by_hand(text, {END}, [END], vocab, merges), f"the stream of {text!r} read in turn")
    exact(tokenizer.encode(texts[0], {END}), got[0], "encode after the streams")


@exercise("encode_iterable")
def test_a_stream_may_be_any_iterable(exercises):
    """Lists work as chunks, and unknown special tokens raise."""
    vocab, merges = trained()
    tokenizer = exercises.BPETokenizer(vocab, merges, [END])
    expected = ids_by_hand("the<|end|> ever", (), (), vocab, merges)
    exact(list(pure(tokenizer.encode_iterable, ["the<|", "end|> e", "ver"])), expected, "encode_iterable of a list")
    with pytest.raises(ValueError):
        list(tokenizer.encode_iterable(["the", " ever"], {A}))


# -- train_bpe_speed -----------------------------------------------------------------------------------------------


@driver
def train_in_time(module, text, vocab_size, in_time):
    """Train, at most twice, and give the merges and whether the CPU time was within what the test allows."""
    import time

    for _ in range(2):
        start = time.process_time()
        merges = module.train_bpe(text, vocab_size, [])[1]
        if in_time(time.process_time() - start):
            return merges, True
    return merges, False


def fast_and_right(exercises, text, n_merges, what):
    """Compare with the CPU time of the incremental trainer above, measured here and now.

    Incremental trainers take 0.5 to 3 times that time; one that searches lists takes 11 times, a recount 15 times.
    """
    start = time.process_time()
    expected = incremental(text, 256 + n_merges)
    budget = 5 * (time.process_time() - start) + 0.05
    # the comparison is called back, so that no measured number stands in the conversation: it is the same each time
    merges, in_time = exercises.run(train_in_time, text, 256 + n_merges, lambda seconds: seconds <= budget)
    exact(merges, expected, f"the merges of {what}")
    holds(in_time, f"training on {what} takes more than 5 times the CPU time of a trainer that updates its counts")


@exercise("train_bpe_speed", weight=3)
def test_a_merge_visits_only_the_words_that_hold_it(exercises, rng):
    """Many words: the cost of a merge is that of the words it changes."""
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
    fast_and_right(exercises, words_of(rng, 2000, letters, 5, 5), 100, "2,000 different words")


@exercise("train_bpe_speed")
def test_repeated_words_cost_nothing_more(exercises, rng):
    """Few words, often repeated, cost hardly more than seen once."""
    words = words_of(rng, 50, "abcdefgh", 8, 14).split()
    text = " ".join(rng.random.choices(words, k=8000))
    fast_and_right(exercises, text, 100, "8,000 words, of which 50 are different")


@exercise("train_bpe_speed")
def test_frequent_pairs_are_found_at_once(exercises, rng):
    """Few letters: many words share a pair, and each is found at once."""
    fast_and_right(exercises, words_of(rng, 2000, "ab", 12, 15), 2, "2,000 words of two letters")


@exercise("train_bpe_speed", weight=2)
def test_fast_merges_are_right_merges(exercises, rng):
    """The merges are those of a recount, neighbours and repeats included."""
    jobs = [
        (words_of(rng, 25, letters, 1, 9), 256 + n_merges, [])
        for letters, n_merges in (("ab", 20), ("abc", 25), ("aabcd", 30), ("abcdefg", 40), ("abé", 25))
    ]
    same_training(
        exercises, [*jobs, ("abab ababab xabab", 262, []), ("aaaa aaab baaa", 262, []), ("xaby xab aby " * 3, 264, [])]
    )
