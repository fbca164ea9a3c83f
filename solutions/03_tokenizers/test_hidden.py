"""Hidden tests of chapter 3: enumeration, exact fractions, autograd, closed forms, round trips."""

import math
import unicodedata
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.testing import close, counting, driver, exact, exercise, holds, pure, roughly

SPACE = "▁"
INF = math.inf
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SNIPPETS = st.text(st.sampled_from("abA é漢😉  ▁▁<0xE2>41\n\t\u00a0\u3000ﬁ"), max_size=20)

# -- oracles -------------------------------------------------------------------------------------------------------


def cuts(text):
    """Give every way to cut a text into non-empty parts."""
    if not text:
        return [[]]
    return [[text[:i], *rest] for i in range(1, len(text) + 1) for rest in cuts(text[i:])]


def score(parts, logp, unk_logp):
    """Sum the log-probabilities; a single character that is not known costs unk_logp."""
    return sum(logp.get(part, unk_logp if len(part) == 1 else -INF) for part in parts)


def segmentations(word, logp):
    """Give (pieces, probability) for every segmentation into known pieces."""
    known = [parts for parts in cuts(word) if all(logp.get(part, -INF) > -INF for part in parts)]
    return [(parts, math.exp(sum(logp[part] for part in parts))) for parts in known]


def likelihood(word_freqs, logp):
    """Give the log-likelihood of counted words, all segmentations summed."""
    return sum(
        freq * math.log(sum(p for _, p in segmentations(word, logp))) for word, freq in word_freqs.items() if freq
    )


def normalised(logp):
    log_z = math.log(sum(math.exp(value) for value in logp.values()))
    return {piece: value - log_z for piece, value in logp.items()}


def expectations(word_freqs, logp):
    """Give the log-probabilities after a step of EM, by enumeration."""
    e = dict.fromkeys(logp, 0.0)
    for word, freq in word_freqs.items():
        ways = segmentations(word, logp) if freq else []
        total = sum(p for _, p in ways)
        for parts, p in ways:
            for part in parts:
                e[part] += freq * p / total
    return {piece: math.log(count / sum(e.values())) if count else -INF for piece, count in e.items()}


def random_word(rng, letters, low, high):
    return "".join(rng.random.choices(letters, k=rng.random.randint(low, high)))


def random_pieces(rng, letters, n, longest=4, low=-7.0, high=-0.5):
    """Give all letters and n longer pieces, with random log-probabilities."""
    strings = dict.fromkeys([*letters, *(random_word(rng, letters, 2, longest) for _ in range(n))])
    return {piece: rng.random.uniform(low, high) for piece in strings}


def random_words(rng, letters, n, high=7):
    return {random_word(rng, letters, 1, high): rng.random.randint(1, 9) for _ in range(n)}


# -- wordpiece_encode ----------------------------------------------------------------------------------------------


def greedy(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    """Go through the whole vocabulary at each place."""
    pieces, rest = [], word
    while rest and len(word) <= max_chars:
        mark = prefix if pieces else ""
        fits = [p for p in vocab if len(p) > len(mark) and p.startswith(mark) and rest.startswith(p[len(mark) :])]
        if not fits:
            return [unk]
        pieces.append(max(fits, key=len))
        rest = rest[len(pieces[-1]) - len(mark) :]
    return [unk] if rest else pieces


@driver
def wordpiece_each(module, jobs):
    """Encode each (word, vocab, keyword arguments)."""
    return [module.wordpiece_encode(word, vocab, **options) for word, vocab, options in jobs]


def same_wordpieces(exercises, jobs):
    for (word, vocab, options), got in zip(jobs, exercises.run(wordpiece_each, jobs), strict=True):
        holds(isinstance(got, list), "wordpiece_encode does not return a list")
        exact(got, greedy(word, vocab, **options), f"wordpiece_encode({word!r}, {vocab}, {options})")


@exercise("wordpiece_encode", weight=3)
def test_longest_piece_at_every_place(exercises, rng):
    """At every place the longest piece of the vocabulary is taken."""
    jobs = []
    for letters in ("ab", "abc", "aé漢😉"):
        for _ in range(60):
            inner = {"##" + random_word(rng, letters, 1, 4) for _ in range(rng.random.randint(2, 12))}
            vocab = inner | {random_word(rng, letters, 1, 4) for _ in range(rng.random.randint(1, 8))}
            jobs.append((random_word(rng, letters, 1, 10), vocab, {}))
    same_wordpieces(exercises, jobs)


@exercise("wordpiece_encode")
def test_first_piece_is_bare_and_all_others_marked(exercises):
    """The first piece is looked up bare, all others with the mark."""
    vocab = {"un", "##un", "do", "##do", "##ing", "ing", "undo"}
    words = ("undo", "doing", "undoing", "doun", "undoun", "ingun", "inging", "in")
    same_wordpieces(exercises, [(word, vocab, {}) for word in words])
    same_wordpieces(exercises, [("ba", {"b", "a"}, {}), ("ba", {"##b", "##a"}, {}), ("ba", {"##ba", "##a", "b"}, {})])


@exercise("wordpiece_encode")
def test_a_place_without_a_piece_makes_the_word_unknown(exercises):
    """A gap anywhere turns the whole word into one unknown token."""
    vocab = {"a", "##b", "##c", "ab", "abc", "##d"}
    jobs = [(word, vocab, {}) for word in ("xbc", "abx", "axc", "abcx", "x", "ba", "abxcd", "abcd")]
    same_wordpieces(exercises, [*jobs, ("axb", vocab, {"unk": "<?>"}), ("q", set(), {"unk": ""})])


@exercise("wordpiece_encode")
def test_greedy_does_not_go_back(exercises):
    """Where the longest piece leads nowhere, no shorter one is tried."""
    jobs = [("abcd", {"ab", "abc", "##cd"}, {}), ("xyyz", {"x", "##yy", "##y", "##yz"}, {}), ("aab", {"a", "aa"}, {})]
    same_wordpieces(exercises, [*jobs, ("abcd", {"ab", "abc", "##cd", "##d"}, {})])


@exercise("wordpiece_encode")
def test_words_that_are_too_long(exercises):
    """More than max_chars characters are unknown; just as many are cut."""
    vocab = {"a", "##a", "##aaa", "é", "##é"}
    jobs = [("a" * n, vocab, {"max_chars": m}) for m in (1, 2, 5) for n in (m - 1, m, m + 1, m + 4)]
    jobs += [("a" * n, vocab, {}) for n in (99, 100, 101)] + [("é" * 100, vocab, {}), ("a" * 5000, vocab, {})]
    jobs.append(("aaaa", vocab | {"aaaa"}, {"max_chars": 3}))
    same_wordpieces(exercises, jobs)


@exercise("wordpiece_encode")
def test_other_marks_and_unused_pieces(exercises, rng):
    """Any mark works, and unused pieces change nothing."""
    vocab = {"ab", "@@c", "@@ab", "c", "abc"}
    jobs = [(word, vocab, {"prefix": "@@", "unk": "?"}) for word in ("abcab", "cab", "ccc", "acb")]
    jobs += [("ab##c", {"ab", "c", "##c", "##"}, {}), ("abc", {"", "##", "ab", "##c"}, {}), ("ax", {"a", "##"}, {})]
    jobs += [("abcab", {"ab", "c", "##z"}, {"prefix": ""}), ("", {"a"}, {}), ("", set(), {})]
    same_wordpieces(exercises, jobs)
    big = vocab | {"@@" + random_word(rng, "xyz", 1, 5) for _ in range(50)}
    exact(pure(exercises.wordpiece_encode, "abcab", big, "?", "@@", 9), ["abc", "@@ab"], "with 50 unused pieces")


# -- train_wordpiece -----------------------------------------------------------------------------------------------


def by_fractions(word_freqs, vocab_size):
    """Train with exact scores; a symbol is a pair (does it begin the word, its letters)."""
    words = {word: [(i == 0, c) for i, c in enumerate(word)] for word in word_freqs}
    vocab, merges = {symbol for symbols in words.values() for symbol in symbols}, []
    while len(vocab) < vocab_size:
        single, double = {}, {}
        for word, symbols in words.items():
            for i, symbol in enumerate(symbols):
                single[symbol] = single.get(symbol, 0) + word_freqs[word]
                if i:
                    pair = (symbols[i - 1], symbol)
                    double[pair] = double.get(pair, 0) + word_freqs[word]
        if not double:
            break
        value = {pair: (Fraction(n, single[pair[0]] * single[pair[1]]), n) for pair, n in double.items()}
        left, right = min((pair for pair in value if value[pair] == max(value.values())), key=written_pair)
        merges.append(written_pair((left, right)))
        vocab.add((left[0], left[1] + right[1]))
        for word, symbols in words.items():
            words[word] = join(symbols, left, right)
    return merges


def written_pair(pair):
    return tuple(("" if begins else "##") + letters for begins, letters in pair)


def join(symbols, left, right):
    out, i = [], 0
    while i < len(symbols):
        both = symbols[i : i + 2] == [left, right]
        out.append((left[0], left[1] + right[1]) if both else symbols[i])
        i += 2 if both else 1
    return out


def beginning(word_freqs):
    return len({(i == 0, c) for word in word_freqs for i, c in enumerate(word)})


@driver
def wordpiece_merges(module, jobs):
    """Train on each (word_freqs, vocab_size)."""
    return [module.train_wordpiece(word_freqs, vocab_size) for word_freqs, vocab_size in jobs]


def same_merges(exercises, jobs):
    for (word_freqs, size), got in zip(jobs, exercises.run(wordpiece_merges, jobs), strict=True):
        holds(isinstance(got, list), "train_wordpiece does not return a list")
        exact(got, by_fractions(word_freqs, size), f"train_wordpiece({word_freqs}, {size})")


@exercise("train_wordpiece", weight=3)
def test_merges_equal_exact_scores(exercises, rng):
    """Merges equal those of exact fractions, counted anew each step."""
    jobs = []
    for letters in ("ab", "abc", "abcdé"):
        for _ in range(25):
            words = random_words(rng, letters, rng.random.randint(2, 12), 6)
            jobs.append((words, beginning(words) + rng.random.randint(1, 12)))
    same_merges(exercises, jobs)


@exercise("train_wordpiece")
def test_exclusive_pairs_come_before_frequent_ones(exercises):
    """A rare pair whose parts go only together precedes a frequent one."""
    words = {"ten": 90, "tan": 80, "ton": 85, "net": 70, "not": 75, "equi": 2, "aqua": 3, "sequoia": 1}
    same_merges(exercises, [(words, beginning(words) + n) for n in (1, 2, 7)])


@exercise("train_wordpiece")
def test_each_tie_rule(exercises):
    """Equal scores: the larger pair count, then the smallest pair."""
    jobs = [
        ({"ab": 2, "cd": 2}, 5),
        ({"cd": 2, "ab": 2}, 5),
        ({"ba": 1, "bca": 1}, 8),
        ({"zy": 4, "yz": 4, "ab": 3}, 8),
    ]
    # (y, ##b) and (c, ##d) both score 1/6, with counts 6 and 1
    jobs.append(({"cd": 1, "c": 1, "zd": 2, "z": 100, "yb": 6}, 9))
    jobs += [({"ab": 2, "cb": 2, "ad": 2, "cd": 2, "a": n}, 7) for n in range(1, 4)]
    jobs += [({"za": 3, "zab": 3, "xab": 6, "b": 2}, 9), ({"aB": 2, "ba": 2, "éa": 2, "1a": 2}, 10)]
    same_merges(exercises, jobs)


@exercise("train_wordpiece")
def test_scores_that_are_equal_only_without_rounding(exercises, rng):
    """Scores are equal as fractions, whatever logarithms would say."""
    jobs = []
    for _ in range(40):
        n, k = rng.random.randint(1, 9), rng.random.choice([1, 3, 7])
        A, B = n + rng.random.randint(1, 40), n + rng.random.randint(1, 40)
        # (y, ##q) and (r, ##s) both score n / (A * B), the second with k times the count; z and x are kept cheap
        words = {
            "yq": n,
            "y": A - n,
            "zq": B - n,
            "z": 10**5,
            "rs": k * n,
            "r": k * (A - n),
            "xs": B - k * n,
            "x": 10**5,
        }
        if k * n < B:
            jobs.append((words, beginning(words) + 2))
    same_merges(exercises, jobs)


@exercise("train_wordpiece")
def test_counts_weigh_and_scale(exercises, rng):
    """Counts weigh each word; all counts times a constant change nothing."""
    words = {random_word(rng, "abcd", 2, 7): rng.random.randint(1, 40) for _ in range(15)}
    size = beginning(words) + 15
    results = exercises.run(wordpiece_merges, [({w: c * n for w, n in words.items()}, size) for c in (1, 2, 30)])
    exact(results[0], by_fractions(words, size), "the merges")
    exact(results[1:], results[:1] * 2, "the merges for all counts times 2 and times 30")
    backwards = dict(reversed(words.items()))
    exact(pure(exercises.train_wordpiece, backwards, size), results[0], "the merges for the words in reverse order")


@exercise("train_wordpiece")
def test_the_mark_of_a_merged_symbol(exercises):
    """A merged symbol has the mark just if its left part had it."""
    jobs = [({"abcab": 3, "bcab": 2, "cabca": 1}, 30), ({"c##d": 2, "x##": 3, "x#": 1, "c#": 1}, 30), ({"aé漢": 1}, 5)]
    # here the right half of a merge is the mark and two characters "#"
    jobs.append(({"a##c": 1, "a": 50, "b##c": 1, "b": 50, "xc": 5000, "x": 10**6}, 12))
    same_merges(exercises, jobs)


@exercise("train_wordpiece")
def test_repeated_letters(exercises):
    """Overlapping pairs count at every place and join from the left."""
    jobs = [({"a" * n: 2, "ba": 3}, 12) for n in range(2, 10)]
    same_merges(exercises, [*jobs, ({"abababab": 2, "bab": 1, "xaaay": 3}, 30), ({"caaa": 1, "caa": 1, "daaaa": 2}, 9)])


@exercise("train_wordpiece")
def test_size_of_the_vocabulary(exercises):
    """Training ends at vocab_size, or early when no pair is left."""
    words = {"low": 5, "lower": 2, "slow": 4}
    start = beginning(words)
    same_merges(exercises, [(words, start + n) for n in (0, 1, 3, 200)] + [({"a": 3, "b": 1}, 50), ({}, 3), ({}, 0)])
    for job in ((words, start - 1), (words, 0), ({"aa": 1}, 1)):
        with pytest.raises(ValueError):
            exercises.train_wordpiece(*job)


# -- viterbi_segment -----------------------------------------------------------------------------------------------


@driver
def viterbi_each(module, jobs):
    """Segment each (text, logp, more arguments)."""
    return [module.viterbi_segment(*job) for job in jobs]


def check_best(exercises, jobs):
    for (text, logp, *unk), got in zip(jobs, exercises.run(viterbi_each, jobs), strict=True):
        unk_logp = unk[0] if unk else -20.0
        what = f"viterbi_segment({text!r}, {logp}, {unk_logp})"
        holds(isinstance(got, list) and all(isinstance(piece, str) for piece in got), f"{what} is no list of strings")
        exact("".join(got), text, f"the joined pieces of {what}")
        ranked = sorted((score(parts, logp, unk_logp) for parts in cuts(text)), reverse=True)
        # sums of ten numbers of size 20 round by 1e-13 at most
        roughly(float(score(got, logp, unk_logp)), float(ranked[0]), 1e-9, f"the score of {got}, from {what}")


@exercise("viterbi_segment", weight=3)
def test_best_of_all_segmentations(exercises, rng):
    """The score is the largest of all segmentations."""
    jobs = []
    for letters in ("ab", "abc", "aé漢"):
        for _ in range(20):
            logp = random_pieces(rng, letters, rng.random.randint(1, 9), longest=5)
            jobs.append((random_word(rng, letters, 1, 9), logp))
    check_best(exercises, jobs)


@exercise("viterbi_segment")
def test_unknown_characters_are_pieces_of_their_own(exercises, rng):
    """Each unknown character is a piece by itself and costs unk_logp."""
    jobs = [
        ("xyab", {"ab": -1.0}),
        ("xx", {}),
        ("x", {"a": -1.0}),
        ("axxa", {"a": -1.0, "xx": -50.0}),
        ("ab", {"ab": -3.0}, -1.0),
    ]
    for _ in range(40):
        logp = random_pieces(rng, "abcd", 8, low=-30)
        known = {piece: value for piece, value in logp.items() if piece not in "cd"}
        jobs.append((random_word(rng, "abcdx", 1, 8), known, rng.random.choice([-20.0, -4.0, -1.0, -60.0])))
    check_best(exercises, jobs)
    exact(exercises.viterbi_segment("abxyz", {"ab": -1.0}, unk_logp=-3.0), ["ab", "x", "y", "z"], "three unknown")


@exercise("viterbi_segment")
def test_a_known_character_keeps_its_own_score(exercises):
    """A character in logp has its own score, even one below unk_logp."""
    check_best(
        exercises,
        [("ab", {"ab": -45.0, "a": -30.0}), ("ab", {"ab": -55.0, "a": -30.0}), ("aa", {"aa": -50.0, "a": -24.0})],
    )
    check_best(exercises, [("aa", {"aa": -6.0, "a": -4.0}, -1.0), ("aba", {"ab": -9.0, "a": -5.0, "b": -4.5}, -2.0)])


@exercise("viterbi_segment")
def test_neither_longest_nor_fewest_pieces(exercises):
    """Neither the longest piece nor the fewest pieces decide."""
    logp = {"a": -1.0, "b": -1.0, "c": -1.0, "ab": -3.0, "abc": -9.0, "bc": -1.5}
    for text, pieces in (("abc", ["a", "bc"]), ("ab", ["a", "b"]), ("abcab", ["a", "bc", "a", "b"]), ("", [])):
        exact(pure(exercises.viterbi_segment, text, logp), pieces, f"viterbi_segment({text!r})")
    long = "abcdefgh" * 8
    exact(exercises.viterbi_segment(f"x{long}y", {**logp, long: -9.0}), ["x", long, "y"], "a piece of 64 characters")
    exact(exercises.viterbi_segment("abcd", {"abc": -2.0, "d": -9.0, "ab": -3.0, "cd": -3.0}), ["ab", "cd"], "'abcd'")


@exercise("viterbi_segment")
def test_scores_of_any_size_and_sign(exercises, rng):
    """Scores need not be normalised, nor negative."""
    jobs = [
        ("abc", {"a": 1.0, "b": 2.0, "c": 0.0, "abc": 2.5}),
        ("aa", {"a": -1e12, "aa": -3e12}),
        ("aa", {"a": -1e6, "aa": -1e6}),
    ]
    jobs += [(random_word(rng, "abc", 1, 8), random_pieces(rng, "abc", 8, low=-4, high=4)) for _ in range(25)]
    jobs += [(random_word(rng, "ab", 1, 8), random_pieces(rng, "ab", 8, low=-400, high=-300)) for _ in range(15)]
    check_best(exercises, jobs)


@exercise("viterbi_segment")
def test_making_pieces_dearer_gives_fewer(exercises, rng):
    """Taking a constant off every score never makes more pieces."""
    logp = random_pieces(rng, "abc", 12)
    texts = [random_word(rng, "abc", 10, 30) for _ in range(10)]
    costs = (-9.0, -1.0, 0.0, 2.0, 50.0)
    jobs = [(text, {p: v - c for p, v in logp.items()}, -20.0 - c) for text in texts for c in costs]
    numbers = [len(pieces) for pieces in exercises.run(viterbi_each, jobs)]
    rows = [numbers[i : i + len(costs)] for i in range(0, len(numbers), len(costs))]
    for text, row in zip(texts, rows, strict=True):
        holds(row == sorted(row, reverse=True), f"{row} pieces of {text!r} at growing costs {costs}")
    holds(any(row[0] > row[-1] for row in rows), "the number of pieces never depends on the cost of a piece")


@exercise("viterbi_segment")
def test_long_texts(exercises, rng):
    """A text of more than a thousand characters is cut at its best."""
    logp = random_pieces(rng, "abcd", 20, longest=6)
    text = random_word(rng, "abcd", 1500, 1500)
    table = [0.0]
    for j in range(1, len(text) + 1):
        table.append(max(table[i] + logp.get(text[i:j], -INF) for i in range(max(0, j - 6), j)))
    got = exercises.viterbi_segment(text, logp)
    exact("".join(got), text, "the joined pieces of a text of 1500 characters")
    # 1500 additions of numbers below 4000 round by 1e-9 at most
    roughly(score(got, logp, -20.0), table[-1], 1e-6, "the score of a text of 1500 characters")


# -- unigram_em_step -----------------------------------------------------------------------------------------------


@driver
def em_each(module, jobs):
    """Take a step of EM on each (word_freqs, logp)."""
    return [module.unigram_em_step(*job) for job in jobs]


def same_step(exercises, jobs):
    for (words, logp), got in zip(jobs, exercises.run(em_each, jobs), strict=True):
        expected = expectations(words, logp)
        holds(isinstance(got, dict) and got.keys() == expected.keys(), "the result has other keys than logp")
        for piece, value in expected.items():
            close(float(got[piece]), value, f"the value of {piece!r} after unigram_em_step({words}, {logp})")


@exercise("unigram_em_step", weight=4)
def test_counts_equal_enumeration(exercises, rng):
    """The new values equal those of all segmentations listed one by one."""
    jobs = [({"ab": 1}, {"a": -1.0, "b": -2.0, "ab": -2.5})]
    for letters in ("ab", "abc", "aé漢"):
        for _ in range(8):
            logp = random_pieces(rng, letters, rng.random.randint(1, 8), low=-4)
            jobs.append((random_words(rng, letters, rng.random.randint(1, 6)), normalised(logp)))
    same_step(exercises, jobs)


@exercise("unigram_em_step")
def test_pieces_that_overlap_in_a_word(exercises):
    """A piece that fits at several places is counted at each of them."""
    logp = {"a": -1.5, "aa": -1.0, "aaa": -2.0, "ba": -1.2, "ab": -1.1, "b": -2.0}
    same_step(exercises, [({"a" * n: 2, "ab": 1}, logp) for n in range(1, 8)] + [({"ababab": 3, "baba": 2}, logp)])


@exercise("unigram_em_step")
def test_words_weigh_by_their_counts(exercises, rng):
    """Counts weigh words; a common factor changes nothing."""
    logp = normalised(random_pieces(rng, "abc", 6))
    words = {"abc": 1, "cab": 100, "bb": 7}
    same_step(exercises, [(words, logp), ({w: 11 * n for w, n in words.items()}, logp), ({"abc": 100, "cab": 1}, logp)])


@exercise("unigram_em_step")
def test_words_of_count_zero(exercises, rng):
    """Words of count 0 are ignored, even those without a segmentation."""
    logp = normalised(random_pieces(rng, "abc", 6))
    words = {"abcab": 3, "cabba": 0, "bca": 2, "xyz": 0, "c": 0}
    exact(list(expectations(words, logp)), list(logp), "keys")
    same_step(exercises, [(words, logp), ({"xyz": 0, "a": 1}, logp)])


@exercise("unigram_em_step")
def test_pieces_without_use(exercises):
    """A piece that is never used stays, at minus infinity."""
    logp = {"a": -1.0, "b": -1.0, "zz": -0.5, "abab": -2.0, "ab": -INF, "ba": -3.0}
    words = {"aba": 3, "b": 1}
    same_step(exercises, [(words, logp)])
    once = pure(exercises.unigram_em_step, words, logp)
    exact([once[piece] for piece in ("zz", "abab", "ab")], [-INF] * 3, "the values of three pieces without use")
    same_step(exercises, [(words, once), ({"abab": 1}, {"ab": -3.0, "a": -INF, "b": -1.0, "aba": -2.0})])


@exercise("unigram_em_step")
def test_likelihood_never_falls(exercises, rng):
    """The likelihood of the corpus does not fall from step to step."""
    for letters in ("ab", "abcd"):
        words, logp = random_words(rng, letters, 6), normalised(random_pieces(rng, letters, 10))
        values = [likelihood(words, logp)]
        for _ in range(6):
            logp = exercises.unigram_em_step(words, logp)
            close(sum(math.exp(value) for value in logp.values()), 1.0, "the sum of the probabilities")
            values.append(likelihood(words, logp))
        falls = [later - earlier for earlier, later in zip(values, values[1:], strict=False) if later < earlier - 1e-9]
        holds(not falls, f"the log-likelihoods of seven steps fall: {values}")
        holds(values[-1] > values[0] + 0.01, f"the log-likelihood does not rise: {values}")


@exercise("unigram_em_step")
def test_values_need_not_be_normalised(exercises, rng):
    """Adding a constant times its length to each piece changes nothing."""
    words, logp = random_words(rng, "abc", 5), random_pieces(rng, "abc", 8)
    shifted = [{piece: value + c * len(piece) for piece, value in logp.items()} for c in (0.0, -3.0, 2.0, -200.0)]
    same_step(exercises, [(words, logp), (words, {piece: value + 4.0 for piece, value in logp.items()})])
    for got in exercises.run(em_each, [(words, each) for each in shifted]):
        close(got, expectations(words, logp), "the step after adding c * len(piece) to each value")


@exercise("unigram_em_step")
def test_long_words_and_tiny_probabilities(exercises, rng):
    """Words of hundreds of characters do not underflow."""
    logp = random_pieces(rng, "ab", 6, low=-12, high=-6)
    words = {random_word(rng, "ab", 300, 300): 2, random_word(rng, "ab", 250, 250): 1, "abba": 5}
    values = {piece: torch.tensor(value, dtype=torch.float64, requires_grad=True) for piece, value in logp.items()}
    total = torch.zeros((), dtype=torch.float64)
    for word, freq in words.items():
        alpha = [torch.zeros((), dtype=torch.float64)]
        for j in range(1, len(word) + 1):
            ends = [alpha[i] + values[word[i:j]] for i in range(max(0, j - 4), j) if word[i:j] in values]
            alpha.append(torch.logsumexp(torch.stack(ends), 0))
        total = total + freq * alpha[-1]
    # the expected uses are the gradient of the log-likelihood
    uses = dict(zip(logp, torch.autograd.grad(total, list(values.values())), strict=True))
    used = sum(float(e) for e in uses.values())
    got = exercises.unigram_em_step(words, logp)
    close({p: float(got[p]) for p in logp}, {p: math.log(float(e) / used) for p, e in uses.items()}, "a long word")


@exercise("unigram_em_step")
def test_words_that_cannot_be_cut_raise(exercises):
    """A counted word without a segmentation raises; so do no words."""
    logp = {"a": -1.0, "ab": -1.0, "c": -INF}
    for words in ({"aba": 1, "abb": 1}, {"x": 2}, {"aca": 1}, {}, {"a": 0, "x": 0}):
        with pytest.raises(ValueError):
            exercises.unigram_em_step(words, logp)


# -- prune_vocab ---------------------------------------------------------------------------------------------------


def ranking(words, logp):
    """Give the longer pieces, the smallest loss first, and the likelihoods without each."""
    left = {}
    for piece in logp:
        if len(piece) > 1:
            left[piece] = likelihood(words, normalised({p: v for p, v in logp.items() if p != piece}))
    return sorted(left, key=lambda piece: -left[piece]), left


def pruned(words, logp, keep):
    """Give what is left, and how clear the decision was."""
    order, left = ranking(words, logp)
    n = len(logp) - keep
    clear = left[order[n - 1]] - left[order[n]] if 0 < n < len(order) else INF
    return normalised({p: v for p, v in logp.items() if p not in order[:n]}), clear


@driver
def prune_each(module, jobs):
    """Prune on each (word_freqs, logp, keep)."""
    return [module.prune_vocab(*job) for job in jobs]


def same_pruning(exercises, jobs):
    for (words, logp, keep), got in zip(jobs, exercises.run(prune_each, jobs), strict=True):
        expected, _ = pruned(words, logp, keep)
        holds(isinstance(got, dict), "prune_vocab does not return a dict")
        what = f"prune_vocab({words}, {logp}, {keep})"
        exact(sorted(got), sorted(expected), f"the pieces left by {what}")
        for piece, value in expected.items():
            close(float(got[piece]), value, f"the value of {piece!r} after {what}")


def prune_jobs(rng, letters, n, low=-5.0, drop=None):
    """Draw corpora on which no decision is closer than 1e-4."""
    jobs = []
    while len(jobs) < n:
        logp = normalised(random_pieces(rng, letters, rng.random.randint(3, 8), longest=3, low=low))
        longer = len(logp) - len(letters)
        if longer < 2:
            continue
        words = random_words(rng, letters, rng.random.randint(2, 5), 6)
        job = (words, logp, len(logp) - (drop or rng.random.randint(1, longer - 1)))
        if pruned(*job)[1] > 1e-4:
            jobs.append(job)
    return jobs


@exercise("prune_vocab", weight=3)
def test_pieces_of_smallest_loss_go(exercises, rng):
    """The pieces dropped are those whose removal costs least likelihood."""
    same_pruning(exercises, prune_jobs(rng, "ab", 12) + prune_jobs(rng, "abc", 12) + prune_jobs(rng, "é漢", 6))


@exercise("prune_vocab")
def test_what_is_left_is_better_than_any_other(exercises, rng):
    """Dropping one piece leaves more likelihood than dropping any other."""
    for words, logp, keep in prune_jobs(rng, "abc", 8, drop=1):
        got = exercises.prune_vocab(words, logp, keep)
        exact(len(got), keep, "the number of pieces left")
        others = [likelihood(words, normalised({p: v for p, v in logp.items() if p != x})) for x in logp if len(x) > 1]
        holds(likelihood(words, got) >= max(others) - 1e-9, f"{sorted(got)} are not the best {keep} pieces of {logp}")


@exercise("prune_vocab")
def test_probability_is_not_loss(exercises):
    """A frequent piece that nothing needs goes; a rare one may stay."""
    logp = normalised({"a": -1.0, "b": -1.5, "c": -3.0, "ab": -1.2, "zz": -1.0, "ba": -2.0, "abc": -4.5, "cc": -9.0})
    words = {"abc": 30, "ab": 4, "ba": 1, "ccc": 2}
    same_pruning(exercises, [(words, logp, keep) for keep in range(3, 9)])


@exercise("prune_vocab")
def test_single_characters_survive(exercises, rng):
    """Single characters stay, however little they are used."""
    logp = normalised({"a": -9.0, "b": -8.0, "x": -12.0, "ab": -1.0, "bab": -2.0, "aba": -2.5})
    words = {"ab": 20, "abab": 5, "babab": 3}
    same_pruning(exercises, [(words, logp, keep) for keep in (3, 4, 5)])


@exercise("prune_vocab")
def test_losses_are_taken_once(exercises):
    """All losses are measured before the first piece is dropped."""
    # "ab" and "abc" replace each other: each alone is missed little, both together much
    logp = normalised({"a": -4.0, "b": -4.0, "c": -2.5, "d": -4.0, "ab": -1.5, "abc": -3.5, "dd": -3.0})
    words = {"abc": 10, "ddc": 3, "ab": 1}
    expected, clear = pruned(words, logp, 5)
    holds(clear > 1e-4, "the decision is not clear")
    same_pruning(exercises, [(words, logp, 5), (words, logp, 6)])


@exercise("prune_vocab")
def test_the_rest_is_normalised(exercises, rng):
    """One constant is added to what is left, and the sum is one."""
    logp = random_pieces(rng, "abc", 6, longest=3)
    words = random_words(rng, "abc", 4, 5)
    got = pure(exercises.prune_vocab, words, logp, len(logp))
    close({p: float(got[p]) for p in got}, normalised(logp), "prune_vocab that keeps all pieces")
    few = exercises.prune_vocab(words, {p: v - 7.0 for p, v in logp.items()}, 3)
    close({p: float(few[p]) for p in sorted(few)}, normalised({p: logp[p] for p in "abc"}), "single characters only")


@exercise("prune_vocab")
def test_impossible_pieces_and_absent_words(exercises, rng):
    """Pieces at minus infinity and words of count 0 are harmless."""
    logp = {"a": -1.0, "b": -1.2, "ab": -1.5, "ba": -INF, "zz": -2.0, "bab": -2.5}
    words = {"abab": 3, "bab": 2, "qqq": 0, "bbb": 0, "babbab": 0}
    same_pruning(exercises, [(words, logp, keep) for keep in (3, 4, 5, 6)])


@exercise("prune_vocab")
def test_impossible_numbers_of_pieces_raise(exercises):
    """Too small or too large a number of pieces raises ValueError."""
    logp = {"a": -1.0, "b": -1.0, "ab": -1.0}
    for keep in (0, 1, 4, 9, -1):
        with pytest.raises(ValueError):
            exercises.prune_vocab({"ab": 1}, logp, keep)


# -- sp_encode, sp_decode ------------------------------------------------------------------------------------------


PIECES = {
    SPACE: -4.0, "▁a": -2.1, "▁▁": -5.3, "a": -4.2, "b": -4.6, "ab": -3.3, "▁ab": -2.9, "<": -6.1, "0": -6.2, "x": -6.4,
    "4": -6.6, "1": -6.7, ">": -6.9, "é": -5.1, "bé": -5.7, "A": -6.05, "b▁": -4.45, "0x": -7.7, "漢a": -9.3,
    "E": -7.15, "漢b": -22.0, "字a": -26.0,
}  # fmt: skip


def as_bytes(character):
    return [f"<0x{byte:02X}>" for byte in character.encode()]


def best_pieces(text, pieces):
    """Give every best row of pieces, by enumeration; a SPACE of the text is a sign that no piece holds."""
    marked = (" " + text).replace(SPACE, "\0").replace(" ", SPACE)
    ranked = [(score(parts, pieces, -20.0), parts) for parts in cuts(marked)]
    top = max(value for value, _ in ranked)
    rows = [parts for value, parts in ranked if value > top - 1e-9]
    return [sum(([p] if p in pieces else as_bytes(p.replace("\0", SPACE)) for p in row), []) for row in rows]


@driver
def encode_each(module, texts, pieces):
    """Encode each text."""
    return [module.sp_encode(text, pieces) for text in texts]


@driver
def decode_each(module, rows):
    """Decode each row of pieces."""
    return [module.sp_decode(row) for row in rows]


@exercise("sp_encode", weight=2)
def test_pieces_of_short_texts(exercises, rng):
    """The pieces have the best score, and unknown characters their bytes."""
    texts = [
        "a b",
        " a",
        "a ",
        "  ",
        "aé b",
        "漢",
        "漢a",
        "漢b",
        "字a",
        "a▁b",
        "▁",
        " ▁ ",
        "😉b",
        "\n",
        "a\tb",
        "<0x41>",
        "é\u0301",
        "x▁▁a",
        "bé bé",
    ]
    texts += [random_word(rng, "ab é漢▁", 1, 8) for _ in range(25)]
    for text, got in zip(texts, exercises.run(encode_each, texts, PIECES), strict=True):
        rows = best_pieces(text, PIECES)
        holds(isinstance(got, list) and got in rows, f"sp_encode({text!r}): got {got}, expected {rows[0]}")


@exercise("sp_encode", weight=2)
@given(text=st.one_of(TEXTS, SNIPPETS))
@settings(max_examples=40)
def test_any_text_comes_back(exercises, text):
    """Decoding the pieces of any text gives the text back."""
    pieces = exercises.sp_encode(text, PIECES)
    exact(exercises.sp_decode(pieces), text, f"sp_decode of sp_encode({text!r}), which is {pieces}")


@exercise("sp_encode")
def test_spaces_are_all_kept(exercises):
    """Leading, double and trailing spaces come back, all of them."""
    texts = ["", " ", "  ", " a", "   a", "a ", "a   ", "a  b", "  a  b  ", "\u00a0a", "\u3000", " \n ", "\ta"]
    rows = exercises.run(encode_each, texts, PIECES)
    exact(rows[0], [], "sp_encode('')")
    for text, row, back in zip(texts, rows, exercises.run(decode_each, rows), strict=True):
        exact("".join(row).count(SPACE), text.count(" ") + bool(text), f"the number of spaces in sp_encode({text!r})")
        exact(back, text, f"sp_decode({row})")


@exercise("sp_encode")
def test_a_sign_for_space_in_the_text(exercises):
    """The sign that stands for a space comes back as itself."""
    texts = ["▁", "▁▁", " ▁", "▁ ", "a▁b", "a ▁b", "▁a", " ▁ ▁ ", "ab▁ab ab"]
    rows = exercises.run(encode_each, texts, PIECES | {"a▁b": -0.1, "▁▁▁": -0.2})
    for text, row, back in zip(texts, rows, exercises.run(decode_each, rows), strict=True):
        exact(back, text, f"sp_decode({row})")
        exact(row.count("<0x81>"), text.count(SPACE), f"the last byte of the sign in sp_encode({text!r})")


@exercise("sp_encode")
def test_text_is_not_altered(exercises):
    """Ligatures, accents, wide spaces and line ends stay as they are."""
    texts = [
        "ﬁ",
        "½ ² Ⅷ",
        "e\u0301 é",
        "\u212b",
        "a\u00a0b",
        "\u3000a",
        "a\r\nb",
        "ＡＢ",
        "\ufeffa",
        "a\x00b",
        "ß ẞ",
        "\u200b",
    ]
    rows = exercises.run(encode_each, texts, PIECES)
    holds(any(unicodedata.normalize("NFKC", text) != text for text in texts), "no text would be altered")
    for text, row, back in zip(texts, rows, exercises.run(decode_each, rows), strict=True):
        exact(back, text, f"sp_decode({row})")


@exercise("sp_encode")
def test_bytes_of_a_run_decode_together(exercises):
    """Byte tokens that follow each other are decoded as one run."""
    rows = [as_bytes("é"), ["▁a", *as_bytes("漢字"), "b"], as_bytes("😉") + [SPACE], as_bytes(SPACE), as_bytes(" a")]
    texts = ["é", "a漢字b", "😉 ", SPACE, " a"]
    for row, text, got in zip(rows, texts, exercises.run(decode_each, rows), strict=True):
        exact(got, text, f"sp_decode({row})")


@exercise("sp_encode")
def test_any_row_of_pieces_decodes(exercises, rng):
    """Broken bytes become U+FFFD as the library has it, without an error."""
    tokens = [
        *map(lambda byte: f"<0x{byte:02X}>", (0xC3, 0xA9, 0xE6, 0xBC, 0xFF, 0x41, 0x20, 0xF0, 0x9F, 0x0A)),
        "a",
        "▁b",
    ]
    rows = [rng.random.choices(tokens, k=rng.random.randint(1, 8)) for _ in range(40)] + [["<0xC3>"], ["a", "<0xE6>"]]
    for row, got in zip(rows, exercises.run(decode_each, rows), strict=True):
        data = b"".join(
            bytes([int(t[3:5], 16)]) if t.startswith("<0x") else t.replace(SPACE, " ").encode() for t in row
        )
        text = data.decode("utf-8", "replace")
        exact(got, text[1:] if row[0].startswith(SPACE) else text, f"sp_decode({row})")


@exercise("sp_encode")
def test_one_space_is_taken_off_the_front(exercises):
    """One space goes if the first piece begins with the sign, else none."""
    cases = [
        (["▁a"], "a"), ([SPACE, "▁a"], " a"), (["▁▁", "a"], " a"), (["a", "▁b"], "a b"), (["ab"], "ab"), ([], ""),
        ([SPACE], ""), (["<0x20>", "a"], " a"), ([SPACE, "<0x20>", "a"], " a"), (["b▁", SPACE], "b  "),
    ]  # fmt: skip
    for (row, text), got in zip(cases, exercises.run(decode_each, [row for row, _ in cases]), strict=True):
        exact(got, text, f"sp_decode({row})")


@exercise("sp_encode")
def test_text_that_looks_like_a_byte_token(exercises):
    """The characters of a byte token are text when the text holds them."""
    texts = ["<0x41>", "a <0xE2><0x96>", "<0x4", "0x41>"]
    rows = exercises.run(encode_each, texts, PIECES)
    for text, row, back in zip(texts, rows, exercises.run(decode_each, rows), strict=True):
        exact(back, text, f"sp_decode({row})")
    exact(pure(exercises.sp_decode, ["<", "0", "x", "4", "1", ">"]), "<0x41>", "sp_decode of six single characters")
    exact(pure(exercises.sp_encode, "a", PIECES), ["▁a"], "sp_encode('a')")


# -- fertility, token_premium --------------------------------------------------------------------------------------


def halves(text):
    """Cut a text into pairs of characters."""
    return [text[i : i + 2] for i in range(0, len(text), 2)]


@exercise("fertility", weight=3)
def test_tokens_over_units(exercises):
    """All tokens are divided by all bytes, characters or words."""
    texts = ["naïve café", "漢字", "a  b\nc ", "", "😉 déjà vu " * 3]
    tokens = sum(len(halves(text)) for text in texts)
    units = {
        "byte": sum(len(text.encode()) for text in texts),
        "char": sum(map(len, texts)),
        "word": sum(len(text.split()) for text in texts),
    }
    for unit, number in units.items():
        close(exercises.fertility(halves, texts, unit=unit), tokens / number, f"fertility per {unit}")
    close(exercises.fertility(halves, texts), tokens / units["byte"], "fertility without a unit")


@exercise("fertility")
def test_texts_are_encoded_one_by_one(exercises):
    """Each text is encoded by itself, just as it is."""
    texts = [" a b ", "cdefg", "é", "cdefg"]
    encode = counting(halves)
    close(exercises.fertility(encode, texts, "char"), 10 / 16, "fertility of four texts")
    exact(sorted({argument for (argument,) in encode.arguments}), sorted(set(texts)), "the texts that were encoded")


@exercise("fertility")
def test_known_fertilities(exercises, rng):
    """Bytes have fertility 1 a byte, characters 1 a character."""
    texts = ["plain", "naïve café", "漢字 😉", random_word(rng, "aé漢 ", 30, 30)]
    close(exercises.fertility(lambda text: list(text.encode()), texts), 1.0, "bytes per byte")
    close(exercises.fertility(lambda text: list(text), texts, "char"), 1.0, "characters per character")
    close(exercises.fertility(lambda text: text.split(), texts, "word"), 1.0, "words per word")
    close(exercises.fertility(lambda text: [], texts, "word"), 0.0, "no tokens at all")


@exercise("fertility")
def test_corpus_twice(exercises):
    """The corpus twice over has the same fertility and premium."""
    texts, pairs = ["abc", "é", "defghij k"], [("abc", "é"), ("de", "fghij漢"), ("k", "lmn")]
    for unit in ("byte", "char", "word"):
        close(
            exercises.fertility(halves, texts * 2, unit), exercises.fertility(halves, texts, unit), f"twice, per {unit}"
        )
    close(exercises.token_premium(halves, pairs * 2), exercises.token_premium(halves, pairs), "premium, twice")


@exercise("fertility", weight=2)
def test_premium_is_a_ratio_of_totals(exercises):
    """The premium is all tokens of the second over all of the first."""
    pairs = [("ab", "cdefgh"), ("abcdefghi", "a"), ("", "xyz"), ("é", "漢字漢字漢")]
    expected = sum(len(halves(b)) for _, b in pairs) / sum(len(halves(a)) for a, _ in pairs)
    close(pure(exercises.token_premium, halves, pairs), expected, "token_premium of pairs of characters")
    swapped = [(b, a) for a, b in pairs]
    close(exercises.token_premium(halves, swapped), 1 / expected, "token_premium of the pairs swapped")
    close(exercises.token_premium(lambda text: list(text.encode()), [("ab", "漢")]), 1.5, "bytes of 'ab' and '漢'")
    close(exercises.token_premium(lambda text: text.split(), [("a b c", "d")]), 1 / 3, "words")


@exercise("fertility")
def test_premium_of_a_language_over_itself(exercises):
    """The premium of a text over itself is 1; nothing translated is 0."""
    close(
        exercises.token_premium(halves, [(text, text) for text in ("abc", "é", "漢字漢")]), 1.0, "of texts themselves"
    )
    close(exercises.token_premium(halves, [("abc", "")]), 0.0, "premium of no translation")


@exercise("fertility")
def test_nothing_to_divide_by_raises(exercises):
    """An unknown unit, or nothing to divide by, raises ValueError."""
    for texts, unit in (
        (["a"], "bytes"),
        (["a"], ""),
        (["a"], "token"),
        ([], "byte"),
        (["", ""], "char"),
        ([" "], "word"),
    ):
        with pytest.raises(ValueError):
            exercises.fertility(halves, texts, unit)
    for pairs in ([], [("", "ab")]):
        with pytest.raises(ValueError):
            exercises.token_premium(halves, pairs)


# -- quirks --------------------------------------------------------------------------------------------------------


@driver
def letters_each(module, jobs):
    """Count hidden letters for each (tokens, letter)."""
    return [module.hidden_letters(*job) for job in jobs]


@driver
def groups_each(module, jobs):
    """Cut each (number, k, direction)."""
    return [module.digit_groups(*job) for job in jobs]


@driver
def rates_each(module, jobs):
    """Give the rate of each (ids, tok_a, tok_b)."""
    return [module.mismatch_rate(*job) for job in jobs]


@exercise("quirks", weight=2)
def test_letters_inside_longer_tokens(exercises, rng):
    """Letters count just where a token has more than one character."""
    jobs = [
        (["rr", "r", "R", "rrr"], "r"),
        (["r", "r"], "r"),
        ([], "r"),
        (["", "a"], "a"),
        (["éé", "é", "e\u0301"], "é"),
    ]
    jobs += [([random_word(rng, "rRsa", 1, 4) for _ in range(8)], letter) for letter in "rRsz" for _ in range(4)]
    for (tokens, letter), got in zip(jobs, exercises.run(letters_each, jobs), strict=True):
        hidden = [1 for token in tokens for c in token if c == letter and token != letter]
        exact(got, len(hidden), f"hidden_letters({tokens}, {letter!r})")


@exercise("quirks")
def test_groups_from_the_right_are_those_of_commas(exercises, rng):
    """Groups of three from the right are those that commas make."""
    numbers = [str(rng.random.randrange(10**n, 10 ** (n + 1))) for n in range(12)] + ["0", "1000000"]
    jobs = [(number, 3, "r2l") for number in numbers]
    for (number, *_), got in zip(jobs, exercises.run(groups_each, jobs), strict=True):
        exact(got, f"{int(number):,}".split(","), f"digit_groups({number!r}, 3, 'r2l')")


@exercise("quirks", weight=2)
def test_groups_of_any_size_from_both_sides(exercises, rng):
    """Only the group at the far end may be short; digits keep their order."""
    jobs = [
        ("".join(rng.random.choices("0123456789", k=n)), k, d)
        for n in range(9)
        for k in (1, 2, 3, 4, 9)
        for d in ("l2r", "r2l")
    ]
    for (number, k, direction), got in zip(jobs, exercises.run(groups_each, jobs), strict=True):
        what = f"digit_groups({number!r}, {k}, {direction!r})"
        exact("".join(got), number, f"the joined groups of {what}")
        sizes = [k] * (len(number) // k)
        rest = [len(number) % k] if len(number) % k else []
        exact([len(group) for group in got], sizes + rest if direction == "l2r" else rest + sizes, f"sizes in {what}")
    exact(exercises.digit_groups("0012345"), ["001", "234", "5"], "digit_groups('0012345')")


@exercise("quirks")
def test_an_appended_digit(exercises):
    """A digit more at the end moves every group of r2l, and none of l2r."""
    number = "918273645"
    jobs = [(n, 3, d) for d in ("l2r", "r2l") for n in (number, number + "1", "1" + number)]
    (a, a_end, a_front), (b, b_end, b_front) = [exercises.run(groups_each, jobs)[i : i + 3] for i in (0, 3)]
    exact(a_end[:3], a, "l2r groups after a digit was appended")
    exact(b_front[1:], b, "r2l groups after a digit was put in front")
    holds(not set(a_front) & set(a), "an l2r group is the same after a digit was put in front")
    holds(not set(b_end) & set(b), "an r2l group is the same after a digit was appended")


@exercise("quirks")
def test_impossible_groups_raise(exercises):
    """A size below 1 or an unknown direction raises ValueError."""
    for k, direction in ((0, "l2r"), (-2, "r2l"), (3, "rtl"), (3, ""), (3, "L2R")):
        with pytest.raises(ValueError):
            exercises.digit_groups("12345", k, direction)


@exercise("quirks", weight=2)
def test_share_of_places_that_differ(exercises, rng):
    """Every place counts; an id that the reader lacks is a mismatch."""
    a = {i: random_word(rng, "abc", 1, 3) for i in range(30)}
    b = {i: a[i] if i % 3 else a[i].upper() for i in range(24)}
    jobs = [(rng.random.choices(range(30), k=n), a, b) for n in (1, 2, 7, 40)]
    jobs += [
        ([0, 1, 1, 1, 1], a, b),
        ([29, 29, 1], a, b),
        ([0, 0, 0, 0, 1], a, b),
        ([3, 25], a, {}),
        ([], a, b),
        ([5], a, b),
    ]
    for (ids, _, _), got in zip(jobs, exercises.run(rates_each, jobs), strict=True):
        same = sum(i < 24 and i % 3 != 0 for i in ids)
        close(got, 1 - same / len(ids) if ids else 0.0, f"mismatch_rate({ids}, ...)")


@exercise("quirks")
def test_the_right_tokenizer_has_rate_zero(exercises):
    """The right tokenizer reads everything right, whatever else it knows."""
    a = {0: "a", 7: "b", 9: ""}
    exact([pure(exercises.mismatch_rate, [7, 0, 9, 7], a, b) for b in (a, {**a, 1: "z"})], [0.0, 0.0], "the rates")
    close(exercises.mismatch_rate([9, 0], a, {0: "a"}), 0.5, "an empty string that the reader lacks")
    close(exercises.mismatch_rate([0, 7], a, {0: "b", 7: "a"}), 1.0, "the rate of two ids exchanged")


@exercise("quirks", weight=2)
def test_rows_that_moved_least(exercises, rng):
    """The ids are those whose distance lies below the quantile."""
    for V, D, q, dtype in (
        (23, 5, 0.1, torch.float64),
        (40, 3, 0.33, torch.float64),
        (23, 1, 0.55, torch.float32),
        (7, 4, 0.9, torch.float64),
    ):
        start = rng.normal(V, D) * torch.logspace(-1, 1, V, dtype=torch.float64)[:, None]
        now = start + rng.normal(V, D) * (0.1 + rng.uniform(V, 1))
        moved = sorted((math.dist(a, b), i) for i, (a, b) in enumerate(zip(start.tolist(), now.tolist(), strict=True)))
        place = q * (V - 1)  # never a whole number here
        expected = sorted(i for _, i in moved[: math.floor(place) + 1])
        got = pure(exercises.undertrained_tokens, start.to(dtype), now.to(dtype), q)
        holds(isinstance(got, list), "undertrained_tokens does not return a list")
        exact(got, expected, f"undertrained_tokens of {V} rows, q={q}")


@exercise("quirks")
def test_frozen_rows_are_found(exercises, rng):
    """Rows that never moved are found, long ones and short ones alike."""
    start = rng.normal(50, 6)
    start[7], start[31] = 100 * start[7], start[31] / 100
    now = start + 0.5 + rng.uniform(50, 6)
    frozen = [3, 7, 31, 44]
    now[frozen] = start[frozen]
    exact(exercises.undertrained_tokens(start, now, 0.07), frozen, "the ids of four frozen rows")
    exact(exercises.undertrained_tokens(now, start, 0.07), frozen, "the same the other way round")


@exercise("quirks")
def test_edges_of_the_quantile(exercises, rng):
    """Strictly below: none at q = 0, none if all moved alike, not the last."""
    start = rng.normal(9, 3)
    now = start + rng.normal(9, 3)
    exact(exercises.undertrained_tokens(start, now, 0.0), [], "q = 0")
    far = (now - start).square().sum(1).argmax().item()
    exact(exercises.undertrained_tokens(start, now, 1.0), [i for i in range(9) if i != far], "q = 1")
    exact(exercises.undertrained_tokens(start, start, 0.5), [], "rows that all stayed")
    for q in (-0.1, 1.5):
        with pytest.raises(ValueError):
            exercises.undertrained_tokens(start, now, q)
