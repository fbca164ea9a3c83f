"""Self-checks of chapter 2: worked examples and the laws that teach."""

import random

import pytest

from grader.testing import driver, exact, exercise, holds

TIN = "tin tins tint bin bins"
END = "<|end|>"


@exercise("encode_utf8")
def test_a_character_is_one_to_four_bytes(exercises):
    """Characters take one to four bytes each, in order."""
    exact(exercises.encode_utf8("Aé漢😉"), [65, 195, 169, 230, 188, 162, 240, 159, 152, 137], "encode_utf8('Aé漢😉')")


@exercise("encode_utf8")
def test_decoding_undoes_encoding(exercises):
    """Decoding the bytes of a text gives the text back."""
    text = "naïve café, 漢字, 😉\n"
    exact(exercises.decode_utf8(list(text.encode())), text, "decode_utf8 of the bytes of a text")


@exercise("encode_utf8")
def test_broken_bytes_become_a_replacement_character(exercises):
    """A cut character becomes U+FFFD unless errors says otherwise."""
    exact(exercises.decode_utf8([104, 105, 195]), "hi\ufffd", "decode_utf8([104, 105, 195])")
    exact(exercises.decode_utf8([104, 105, 195], "ignore"), "hi", "decode_utf8([104, 105, 195], 'ignore')")
    with pytest.raises(ValueError):
        exercises.decode_utf8([104, 105, 195], errors="strict")


@exercise("pretokenize")
def test_pieces_of_a_sentence(exercises):
    """A word keeps the space before it; signs, numbers, endings part."""
    pieces = ["It", "'s", " 42", " degrees", ",", " isn", "'t", " it", "?"]
    exact(exercises.pretokenize("It's 42 degrees, isn't it?"), pieces, "pretokenize of a sentence")


@exercise("pretokenize")
def test_pieces_join_to_the_text(exercises):
    """Nothing is lost: the pieces join to the text."""
    text = "  def f(x):\n\n\treturn x_1 + 'naïve'   # 漢字 ½  "
    exact("".join(exercises.pretokenize(text)), text, "the joined pieces")


@exercise("pretokenize")
def test_another_pattern(exercises):
    """A piece is a whole match of the pattern that is given."""
    exact(exercises.pretokenize("2024-05", r"(\d)(\d)|-"), ["20", "24", "-", "05"], "pretokenize with groups")


@exercise("train_bpe")
def test_the_worked_example(exercises):
    """The merges are those of the worked example in the notes."""
    vocab, merges = exercises.train_bpe(TIN, 260, [])
    exact(merges, [(b"i", b"n"), (b"t", b"in"), (b"b", b"in"), (b" ", b"tin")], f"the merges of {TIN!r}")
    exact(vocab[259], b" tin", "the bytes of id 259")


@exercise("train_bpe")
def test_special_tokens_come_last_and_are_never_counted(exercises):
    """Special tokens have the last ids; their letters do not count."""
    vocab, merges = exercises.train_bpe("ab" + END * 9 + "ab" + END, 258, [END])
    exact(merges, [(b"a", b"b")], "the merges of a text with special tokens")
    exact((len(vocab), vocab[257]), (258, END.encode()), "the size of the vocabulary, and its last entry")


@exercise("train_bpe")
def test_training_stops_when_no_pair_is_left(exercises):
    """Training ends early when no pair is left to merge."""
    vocab, merges = exercises.train_bpe("aaaa", 1000, [])
    exact(merges, [(b"a", b"a"), (b"aa", b"aa")], "the merges of 'aaaa'")
    exact(len(vocab), 258, "the size of the vocabulary")


@exercise("apply_merges")
def test_the_first_learned_pair_wins(exercises):
    """The pair learned first wins, not the longest or leftmost token."""
    ranks = {(b"b", b"c"): 0, (b"a", b"b"): 1, (b"ab", b"c"): 2}
    exact(exercises.apply_merges(b"abc", ranks), [b"a", b"bc"], "apply_merges(b'abc')")


@exercise("apply_merges")
def test_a_word_that_training_never_saw(exercises):
    """A new word is made of the tokens of the worked example."""
    ranks = {(b"i", b"n"): 0, (b"t", b"in"): 1, (b"b", b"in"): 2, (b" ", b"tin"): 3}
    exact(exercises.apply_merges(b" tinbins", ranks), [b" tin", b"bin", b"s"], "apply_merges(b' tinbins')")
    exact(exercises.apply_merges(b"", ranks), [], "apply_merges(b'')")


def tin_tokenizer(exercises):
    """Give a tokenizer with the first four merges of the worked example and one special token."""
    merges = [(b"i", b"n"), (b"t", b"in"), (b"b", b"in"), (b" ", b"tin")]
    tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in merges] + [END.encode()]
    return exercises.BPETokenizer(dict(enumerate(tokens)), merges, [END])


@exercise("BPETokenizer")
def test_ids_of_the_worked_example(exercises):
    """Pieces become the ids of the worked example, and text again."""
    tokenizer = tin_tokenizer(exercises)
    exact(tokenizer.encode("tin tins"), [257, 259, 115], "encode('tin tins')")
    exact(tokenizer.decode([257, 259, 115]), "tin tins", "decode([257, 259, 115])")


@exercise("BPETokenizer")
def test_a_special_token_must_be_allowed(exercises):
    """A special token is one id only where it is allowed."""
    tokenizer = tin_tokenizer(exercises)
    exact(tokenizer.encode("tin" + END, {END}), [257, 260], f"encode('tin{END}') with {END} allowed")
    ids = tokenizer.encode("tin" + END)
    exact(ids, [257, 60, 124, 101, 110, 100, 124, 62], f"encode('tin{END}') with nothing allowed")


@exercise("BPETokenizer")
def test_a_character_cut_in_two_does_not_raise(exercises):
    """Ids that end inside a character decode to U+FFFD at the end."""
    tokenizer = tin_tokenizer(exercises)
    exact(tokenizer.decode(tokenizer.encode("bin é")[:-1]), "bin \ufffd", "decode of 'bin é' without its last id")


@exercise("encode_iterable")
def test_chunks_may_be_cut_anywhere(exercises):
    """Chunks cut inside a word or a special token change nothing."""
    tokenizer = tin_tokenizer(exercises)
    ids = list(tokenizer.encode_iterable(["t", "in ti", "ns<|e", "", "nd|>bi", "n"], {END}))
    exact(ids, [257, 259, 115, 260, 258], "the ids of six chunks")


class Source:
    """An iterator that tells how many chunks were taken from it."""

    def __init__(self, chunks):
        self.chunks, self.taken = iter(chunks), 0

    def __next__(self):
        self.taken += 1
        return next(self.chunks)


@exercise("encode_iterable")
def test_the_first_id_comes_early(exercises):
    """The first id is there long before the source has ended."""
    source = Source(["tin "] * 200)
    first = next(iter(tin_tokenizer(exercises).encode_iterable(source)))
    exact(first, 257, "the first id")
    holds(source.taken < 10, f"{source.taken} chunks of 'tin ' were read before the first id came out")


@driver
def cpu_seconds(module, text, sizes):
    """Give the CPU time of training to each size."""
    import time

    seconds = []
    for size in sizes:
        start = time.process_time()
        module.train_bpe(text, size, [])
        seconds.append(time.process_time() - start)
    return seconds


@exercise("train_bpe_speed")
def test_further_merges_cost_little(exercises):
    """110 merges take less than 4 times the CPU time of 10."""
    source = random.Random(2)
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN"
    text = " ".join("".join(source.choices(letters, k=5)) for _ in range(4000))
    few, many = exercises.run(cpu_seconds, text, [266, 366])
    holds(many < 4 * few, f"10 merges took {few:.3f} s, 110 merges {many:.3f} s; update the counts, do not recount")
