"""Self-checks of chapter 3: the worked examples of the notes and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, exact, exercise, holds

SPACE = "▁"
HATS = {"hat": 5, "hats": 2, "cat": 3, "zoo": 1}
VOCAB = {"h", "c", "z", "##a", "##t", "##s", "##o", "zo", "zoo", "##at", "hat", "cat"}
NOWHERE = {"no": -3.0, "now": -3.5, "where": -4.0, "here": -4.0}
PIECES = {SPACE: -3.0, "▁to": -2.0, "▁be": -2.0, "t": -5.0, "o": -5.0, "b": -5.0, "e": -5.0}


def logs(**probabilities):
    """Give the logarithms of probabilities."""
    return {piece: math.log(p) for piece, p in probabilities.items()}


@exercise("wordpiece_encode")
def test_words_of_the_worked_example(exercises):
    """Words are cut into the longest pieces of the worked example."""
    for word, pieces in (("hats", ["hat", "##s"]), ("zoos", ["zoo", "##s"]), ("coat", ["c", "##o", "##at"])):
        exact(exercises.wordpiece_encode(word, VOCAB), pieces, f"wordpiece_encode({word!r})")


@exercise("wordpiece_encode")
def test_one_gap_makes_the_whole_word_unknown(exercises):
    """A word with a place that no piece fits is one unknown token."""
    exact(exercises.wordpiece_encode("chat", VOCAB), ["[UNK]"], "wordpiece_encode('chat'); there is h, but no ##h")
    exact(exercises.wordpiece_encode("hat!", VOCAB, unk="?"), ["?"], "wordpiece_encode('hat!', unk='?')")


@exercise("wordpiece_encode")
def test_too_long_a_word_is_unknown(exercises):
    """A word of more than max_chars characters is not cut."""
    exact(
        exercises.wordpiece_encode("hats", VOCAB, max_chars=4), ["hat", "##s"], "wordpiece_encode('hats', max_chars=4)"
    )
    exact(exercises.wordpiece_encode("hats", VOCAB, max_chars=3), ["[UNK]"], "wordpiece_encode('hats', max_chars=3)")


@exercise("train_wordpiece")
def test_merges_of_the_worked_example(exercises):
    """The merges are those of the worked example."""
    merges = [("z", "##o"), ("zo", "##o"), ("##a", "##t"), ("h", "##at"), ("c", "##at")]
    exact(exercises.train_wordpiece(HATS, 12), merges, f"train_wordpiece({HATS}, 12)")


@exercise("train_wordpiece")
def test_counts_times_a_constant(exercises):
    """Three times as many of all words give the same merges."""
    more = {word: 3 * count for word, count in HATS.items()}
    exact(
        exercises.train_wordpiece(more, 11),
        exercises.train_wordpiece(HATS, 11),
        "the merges for three times the counts",
    )


@exercise("train_wordpiece")
def test_where_training_ends(exercises):
    """No merge if the vocabulary is full; an error if it is too small."""
    exact(exercises.train_wordpiece(HATS, 7), [], "train_wordpiece(..., 7)")
    exact(len(exercises.train_wordpiece(HATS, 99)), 6, "the number of merges until no pair is left")
    with pytest.raises(ValueError):
        exercises.train_wordpiece(HATS, 6)


@exercise("viterbi_segment")
def test_the_best_cut_of_nowhere(exercises):
    """The largest sum wins, not the longest first piece."""
    exact(exercises.viterbi_segment("nowhere", NOWHERE), ["no", "where"], "viterbi_segment('nowhere')")
    cheaper = {**NOWHERE, "now": -2.5}
    exact(exercises.viterbi_segment("nowhere", cheaper), ["now", "here"], "viterbi_segment('nowhere') with now at -2.5")


@exercise("viterbi_segment")
def test_every_text_can_be_cut(exercises):
    """Unknown characters are pieces of their own, and nothing is lost."""
    exact(exercises.viterbi_segment("nowhere??", NOWHERE), ["no", "where", "?", "?"], "viterbi_segment('nowhere??')")
    exact(exercises.viterbi_segment("", NOWHERE), [], "viterbi_segment('')")


@exercise("viterbi_segment")
def test_the_price_of_the_unknown(exercises):
    """A cheap unknown character may beat a dear piece."""
    exact(exercises.viterbi_segment("ab", {"ab": -5.0}, unk_logp=-2.0), ["a", "b"], "with unk_logp=-2")
    exact(exercises.viterbi_segment("ab", {"ab": -5.0}, unk_logp=-3.0), ["ab"], "with unk_logp=-3")


@exercise("unigram_em_step")
def test_soft_counts_of_the_worked_example(exercises):
    """The new probabilities are those of the worked example."""
    got = exercises.unigram_em_step({"ab": 3, "b": 1}, logs(a=1 / 4, b=1 / 4, ab=1 / 2))
    close(got, logs(a=1 / 13, b=4 / 13, ab=8 / 13), "unigram_em_step of the worked example")


@exercise("unigram_em_step")
def test_probabilities_sum_to_one(exercises):
    """The new probabilities sum to one; unused pieces have none."""
    got = exercises.unigram_em_step({"abab": 2, "ba": 1}, logs(a=0.2, b=0.3, ab=0.1, bab=0.1, zz=0.3))
    close(sum(math.exp(value) for value in got.values()), 1.0, "the sum of the new probabilities")
    exact(got["zz"], -math.inf, "the value of a piece that is never used")


@exercise("unigram_em_step")
def test_a_word_that_cannot_be_cut(exercises):
    """A word without a segmentation raises, unless its count is 0."""
    with pytest.raises(ValueError):
        exercises.unigram_em_step({"a": 1, "ax": 1}, logs(a=1.0))
    close(exercises.unigram_em_step({"a": 1, "ax": 0}, logs(a=1.0)), {"a": 0.0}, "with a word of count 0")


@exercise("prune_vocab")
def test_pruning_of_the_worked_example(exercises):
    """The piece that goes is that of the worked example."""
    got = exercises.prune_vocab({"ab": 5, "aba": 1}, logs(a=0.2, b=0.2, ab=0.5, ba=0.1), 3)
    close(got, logs(a=2 / 9, b=2 / 9, ab=5 / 9), "prune_vocab of the worked example")


@exercise("prune_vocab")
def test_single_characters_stay(exercises):
    """Single characters stay; to keep fewer pieces is an error."""
    logp = logs(a=0.1, b=0.1, ab=0.8)
    close(exercises.prune_vocab({"ab": 9}, logp, 2), logs(a=0.5, b=0.5), "prune_vocab that keeps two pieces")
    with pytest.raises(ValueError):
        exercises.prune_vocab({"ab": 9}, logp, 1)


@exercise("sp_encode")
def test_pieces_of_the_worked_example(exercises):
    """Spaces become signs, and an unknown character its bytes."""
    exact(exercises.sp_encode("to  bé", PIECES), ["▁to", "▁", "▁", "b", "<0xC3>", "<0xA9>"], "sp_encode('to  bé')")
    exact(exercises.sp_encode("", PIECES), [], "sp_encode('')")


@exercise("sp_encode")
def test_texts_come_back(exercises):
    """Leading spaces, unknown scripts and the sign itself come back."""
    for text in ("to be", "  to be ", "bé 漢字 😉", "▁to ▁", "be\n\tto"):
        exact(exercises.sp_decode(exercises.sp_encode(text, PIECES)), text, f"sp_decode of sp_encode({text!r})")


@exercise("sp_encode")
def test_broken_bytes_do_not_raise(exercises):
    """Bytes that are cut off become U+FFFD."""
    exact(exercises.sp_decode(["▁to", "<0xC3>"]), "to\ufffd", "sp_decode(['▁to', '<0xC3>'])")


@exercise("fertility")
def test_tokens_per_unit(exercises):
    """Tokens are divided by bytes, characters or words, all together."""
    texts = ["été", "ab cd"]
    for unit, number in (("byte", 10), ("char", 8), ("word", 3)):
        close(exercises.fertility(list, texts, unit=unit), 8 / number, f"fertility per {unit}")


@exercise("fertility")
def test_premium_of_bytes(exercises):
    """The same words in Greek cost more bytes than in English."""
    pairs = [("water", "νερό"), ("cold", "κρύο")]
    close(exercises.token_premium(lambda text: list(text.encode()), pairs), 16 / 9, "token_premium of bytes")


@exercise("quirks")
def test_letters_that_are_hidden(exercises):
    """Letters inside longer tokens are hidden; a letter alone is not."""
    exact(exercises.hidden_letters(["st", "raw", "berry"], "r"), 3, "hidden_letters(['st', 'raw', 'berry'], 'r')")
    exact(exercises.hidden_letters(list("strawberry"), "r"), 0, "hidden_letters of single letters")


@exercise("quirks")
def test_digits_from_both_sides(exercises):
    """Groups count from the left or from the right."""
    exact(exercises.digit_groups("1234567"), ["123", "456", "7"], "digit_groups('1234567')")
    exact(exercises.digit_groups("1234567", direction="r2l"), ["1", "234", "567"], "digit_groups, r2l")
    exact(exercises.digit_groups("123456", 3, "r2l"), ["123", "456"], "digit_groups('123456'), r2l")


@exercise("quirks")
def test_the_wrong_vocabulary(exercises):
    """The right vocabulary has rate 0, another one more."""
    a, b = {0: "no", 1: "w", 2: "here"}, {0: "no", 1: "now"}
    close(exercises.mismatch_rate([0, 1, 1, 2], a, a), 0.0, "mismatch_rate with the right vocabulary")
    close(exercises.mismatch_rate([0, 1, 1, 2], a, b), 0.75, "mismatch_rate with another vocabulary")


@exercise("quirks")
def test_a_row_that_never_moved(exercises, rng):
    """A row that never moved is found."""
    start = rng.normal(20, 4)
    now = start + 1.0 + rng.uniform(20, 4)
    now[13] = start[13]
    got = exercises.undertrained_tokens(start, now, 0.04)
    exact(got, [13], "undertrained_tokens with one frozen row")
    holds(torch.equal(now[13], start[13]), "the frozen row was changed")
