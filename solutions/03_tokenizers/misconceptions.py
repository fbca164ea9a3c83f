"""Wrong answers of chapter 3, each with the sentence that sets it right."""

import math
import re
import unicodedata
from collections import Counter
from itertools import pairwise

import torch

from grader.testing import misconception, reference_of

reference = reference_of(__file__)
SPACE, INF = reference.SPACE, math.inf
log_sum_exp = reference.log_sum_exp

# -- wordpiece_encode ----------------------------------------------------------------------------------------------


def wordpiece(word, vocab, unk, prefix, max_chars, ends=None, mark_first=False, on_gap=None):
    """Cut greedily; each misconception changes one thing."""
    if len(word) > max_chars:
        return [unk]
    pieces, start = [], 0
    while start < len(word):
        mark = prefix if start or mark_first else ""
        places = range(len(word), start, -1) if ends is None else ends(start, len(word))
        end = next((end for end in places if mark + word[start:end] in vocab), None)
        if end is None:
            if on_gap is None:
                return [unk]
            pieces.append(unk)
            if on_gap == "stop":
                return pieces
            end = start + 1
        else:
            pieces.append(mark + word[start:end])
        start = end
    return pieces


@misconception("wordpiece_encode", "You take the shortest piece that fits; try the longest first.")
def takes_the_shortest(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, max_chars, ends=lambda start, n: range(start + 1, n + 1))


@misconception("wordpiece_encode", "You look every piece up without the mark; all but the first have ## in front.")
def looks_up_without_the_mark(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, "", max_chars)


@misconception("wordpiece_encode", "You mark the first piece too; the one that begins the word stands bare.")
def marks_the_first_piece(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, max_chars, mark_first=True)


@misconception(
    "wordpiece_encode", "Only the character that does not fit becomes unknown; the whole word must become one token."
)
def unknown_for_one_character(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, max_chars, on_gap="skip")


@misconception(
    "wordpiece_encode", "The pieces found before the gap stay in front of the unknown token; give them up as well."
)
def keeps_what_was_found(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, max_chars, on_gap="stop")


@misconception(
    "wordpiece_encode", "You go back and try shorter pieces when the longest leads nowhere; greedy has no way back."
)
def goes_back(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    def search(start):
        if start == len(word):
            return []
        for end in range(len(word), start, -1):
            piece = (prefix if start else "") + word[start:end]
            rest = search(end) if piece in vocab else None
            if rest is not None:
                return [piece, *rest]
        return None

    found = search(0) if len(word) <= min(max_chars, 200) else None
    return [unk] if found is None else found


@misconception("wordpiece_encode", "A word of exactly max_chars characters is refused; only longer ones are unknown.")
def refuses_one_too_early(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, max_chars - 1) if word else []


@misconception("wordpiece_encode", "You never look at max_chars; a word of more characters is unknown without a try.")
def cuts_words_of_any_length(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, prefix, len(word))


@misconception("wordpiece_encode", "The mark ## is written into the code; use the argument `prefix`.")
def fixes_the_mark(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    return wordpiece(word, vocab, unk, "##", max_chars)


# -- train_wordpiece -----------------------------------------------------------------------------------------------


def join_symbols(symbols, best, joined, once=False):
    merged, i = [], 0
    while i < len(symbols):
        both = tuple(symbols[i : i + 2]) == best
        merged.append(joined if both else symbols[i])
        i += 2 if both else 1
        if both and once:
            return merged + symbols[i:]
    return merged


def train(word_freqs, vocab_size, key=None, mark="##", keep_mark=False, once=False, weigh=True, stale=False, extra=0):
    """Learn merges; each misconception changes one thing."""
    words = {word: [word[0], *(mark + c for c in word[1:])] for word in word_freqs}
    vocab = {symbol for symbols in words.values() for symbol in symbols}
    if vocab_size < len(vocab):
        raise ValueError("no room")
    vocab_size += extra * len(vocab)
    key = key or (lambda n, a, b, pair: (-n / (a * b), -n, pair))
    merges, singles = [], None
    while len(vocab) < vocab_size:
        f, f_pair = Counter(), Counter()
        for word, symbols in words.items():
            freq = word_freqs[word] if weigh else 1
            for symbol in symbols:
                f[symbol] += freq
            for pair in pairwise(symbols):
                f_pair[pair] += freq
        if not f_pair:
            break
        if stale:
            singles = Counter(f) if singles is None else singles
            for symbol in f:
                singles.setdefault(symbol, f[symbol])
            f = singles
        best = min(f_pair, key=lambda pair: key(f_pair[pair], f[pair[0]], f[pair[1]], pair))
        merges.append(best)
        joined = best[0] + (best[1] if keep_mark else best[1].removeprefix(mark))
        vocab.add(joined)
        words = {word: join_symbols(symbols, best, joined, once) for word, symbols in words.items()}
    return merges


@misconception(
    "train_wordpiece", "You merge the most frequent pair, as BPE does; divide its count by the counts of its parts."
)
def merges_the_most_frequent(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (-n, pair))


@misconception("train_wordpiece", "The ## of the right half stays inside the merged symbol; take it away when joining.")
def keeps_the_inner_mark(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, keep_mark=True)


@misconception("train_wordpiece", "You divide with //, which makes almost every score zero; divide with /.")
def divides_whole_numbers(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (-(n // (a * b)), -n, pair))


@misconception("train_wordpiece", "You divide by the sum of the two counts; the score divides by their product.")
def divides_by_the_sum(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (-n / (a + b), -n, pair))


@misconception(
    "train_wordpiece",
    "Among equal scores you take the smallest pair at once; the larger count of the pair comes first.",
)
def forgets_the_larger_count(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (-n / (a * b), pair))


@misconception("train_wordpiece", "Ties go to the pair seen first; take the smallest pair, so that order is no matter.")
def takes_the_first_seen(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (-n / (a * b), -n))


@misconception(
    "train_wordpiece", "Equal scores differ by rounding, since you take logarithms; divide two whole numbers once."
)
def compares_logarithms(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, key=lambda n, a, b, pair: (math.log(a) + math.log(b) - math.log(n), -n, pair))


@misconception("train_wordpiece", "You count each different word once; weigh it by how often it occurs.")
def counts_words_once(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, weigh=False)


@misconception("train_wordpiece", "All characters are written alike; those that continue a word need ## in front.")
def forgets_the_mark(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, mark="")


@misconception("train_wordpiece", "A pair is merged only once in each word; go on to the end of the word.")
def merges_once_a_word(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, once=True)


@misconception(
    "train_wordpiece", "The counts of the symbols are those of the beginning; a merge changes them, so count again."
)
def keeps_old_symbol_counts(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, stale=True)


@misconception(
    "train_wordpiece", "You make vocab_size merges; the symbols of the beginning are part of that number as well."
)
def forgets_the_alphabet(word_freqs, vocab_size):
    return train(word_freqs, vocab_size, extra=1)


# -- viterbi_segment -----------------------------------------------------------------------------------------------


def best_cut(text, value, better):
    """Cut by a table; `value` scores a piece or gives None."""
    best, came_from = [0.0], [0]
    for j in range(1, len(text) + 1):
        options = {}
        for i in range(max(0, j - 12), j):
            own = value(text[i:j])
            if own is not None:
                options[i] = best[i] + own
        came_from.append(better(options, key=options.get))
        best.append(options[came_from[j]])
    pieces, j = [], len(text)
    while j:
        pieces.append(text[came_from[j] : j])
        j = came_from[j]
    return pieces[::-1]


def known_or_single(piece, logp, unk_logp):
    return logp.get(piece, unk_logp if len(piece) == 1 else None)


@misconception("viterbi_segment", "You take the longest piece at each place; take the cut whose sum is the largest.")
def takes_the_longest_piece(text, logp, unk_logp=-20.0):
    pieces, start = [], 0
    while start < len(text):
        ends = range(min(len(text), start + 12), start, -1)
        end = next((end for end in ends if text[start:end] in logp), start + 1)
        pieces.append(text[start:end])
        start = end
    return pieces


@misconception("viterbi_segment", "You add probabilities; multiply them, that is, add their logarithms.")
def adds_probabilities(text, logp, unk_logp=-20.0):
    def value(piece):
        own = known_or_single(piece, logp, unk_logp)
        return None if own is None else math.exp(min(own, 700.0))

    return best_cut(text, value, max)


@misconception(
    "viterbi_segment", "You take the fewest pieces; the sum of the log-probabilities decides, not the number."
)
def takes_the_fewest_pieces(text, logp, unk_logp=-20.0):
    return best_cut(text, lambda piece: None if known_or_single(piece, logp, 0.0) is None else 1, min)


@misconception("viterbi_segment", "You take the smallest sum; log-probabilities are negative, and the largest is best.")
def takes_the_smallest_sum(text, logp, unk_logp=-20.0):
    return best_cut(text, lambda piece: known_or_single(piece, logp, unk_logp), min)


@misconception("viterbi_segment", "At each place you take the most probable next piece; what follows counts as well.")
def takes_the_likeliest_next(text, logp, unk_logp=-20.0):
    pieces, start = [], 0
    while start < len(text):
        ends = [e for e in range(start + 1, min(len(text), start + 12) + 1) if e == start + 1 or text[start:e] in logp]
        end = max(ends, key=lambda e: known_or_single(text[start:e], logp, unk_logp))
        pieces.append(text[start:end])
        start = end
    return pieces


@misconception("viterbi_segment", "Unknown characters side by side become one piece; each is a piece of its own.")
def fuses_unknown_characters(text, logp, unk_logp=-20.0):
    pieces = []
    for piece in reference.viterbi_segment(text, logp, unk_logp):
        if piece not in logp and pieces and pieces[-1][-1] not in logp and all(c not in logp for c in pieces[-1]):
            pieces[-1] += piece
        else:
            pieces.append(piece)
    return pieces


@misconception("viterbi_segment", "The cost of an unknown character is fixed in your code; use the argument unk_logp.")
def fixes_the_unknown_score(text, logp, unk_logp=-20.0):
    return reference.viterbi_segment(text, logp, -20.0)


@misconception("viterbi_segment", "Every single character costs unk_logp; one that is in logp has a score of its own.")
def all_characters_unknown(text, logp, unk_logp=-20.0):
    return reference.viterbi_segment(text, {p: v for p, v in logp.items() if len(p) > 1}, unk_logp)


@misconception(
    "viterbi_segment", "A rare character passes as unknown when that is cheaper; the score that it has in logp counts."
)
def lifts_rare_characters(text, logp, unk_logp=-20.0):
    return reference.viterbi_segment(
        text, {p: max(v, unk_logp) if len(p) == 1 else v for p, v in logp.items()}, unk_logp
    )


# -- unigram_em_step -----------------------------------------------------------------------------------------------


def em(word_freqs, logp, beta_shift=0, weigh=True, posterior=True, zero_counts=True, best_only=False):
    """Count softly; each misconception changes one thing."""
    e = dict.fromkeys(logp, 0.0)
    for word, freq in word_freqs.items():
        if not freq and zero_counts:
            continue
        n = len(word)
        spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1) if word[i:j] in logp]
        reduce_sum = (lambda values: max(values, default=-INF)) if best_only else log_sum_exp
        alpha, beta = [0.0], [0.0] * (n + 1)
        for end in range(1, n + 1):
            alpha.append(reduce_sum([alpha[i] + logp[word[i:j]] for i, j in spans if j == end]))
        for start in reversed(range(n)):
            beta[start] = reduce_sum([logp[word[i:j]] + beta[j] for i, j in spans if i == start])
        if alpha[n] == -INF:
            raise ValueError("no segmentation")
        for i, j in spans:
            value = alpha[i] + logp[word[i:j]] + beta[max(j - beta_shift, 0)] - (alpha[n] if posterior else 0.0)
            if best_only:
                e[word[i:j]] += freq if value > -1e-12 else 0
            else:
                e[word[i:j]] += (freq if weigh else 1) * math.exp(value)
    return e


def as_logarithms(e):
    total = sum(e.values())
    if not total:
        raise ValueError("no counts")
    return {piece: math.log(count / total) if count else -INF for piece, count in e.items()}


@misconception(
    "unigram_em_step", "The backward sum is read one place too early; a piece ending at j goes on with beta[j]."
)
def backward_off_by_one(word_freqs, logp):
    return as_logarithms(em(word_freqs, logp, beta_shift=1))


@misconception("unigram_em_step", "Each different word counts once; multiply its soft counts by how often it occurs.")
def ignores_word_counts(word_freqs, logp):
    return as_logarithms(em(word_freqs, logp, weigh=False))


@misconception(
    "unigram_em_step", "Only the best segmentation of a word is counted; all of them count, by their probability."
)
def counts_the_best_only(word_freqs, logp):
    return as_logarithms(em(word_freqs, logp, best_only=True))


@misconception(
    "unigram_em_step", "You do not divide by the word's own probability, so that unlikely words hardly count."
)
def forgets_the_posterior(word_freqs, logp):
    return as_logarithms(em(word_freqs, logp, posterior=False))


@misconception("unigram_em_step", "You return probabilities; the result holds their logarithms, as the argument does.")
def returns_probabilities(word_freqs, logp):
    return {piece: math.exp(value) for piece, value in reference.unigram_em_step(word_freqs, logp).items()}


@misconception("unigram_em_step", "The expected counts are not normalised; divide by their sum before the logarithm.")
def forgets_to_normalise(word_freqs, logp):
    return {piece: math.log(count) if count else -INF for piece, count in em(word_freqs, logp).items()}


@misconception(
    "unigram_em_step", "Unused pieces vanish from the result; they stay in it, with the value minus infinity."
)
def drops_unused_pieces(word_freqs, logp):
    return {piece: value for piece, value in reference.unigram_em_step(word_freqs, logp).items() if value > -INF}


@misconception(
    "unigram_em_step", "Plain products of probabilities underflow to zero in long words; stay with logarithms."
)
def underflows(word_freqs, logp):
    e = dict.fromkeys(logp, 0.0)
    for word, freq in word_freqs.items():
        n = len(word)
        alpha, beta = [1.0] + [0.0] * n, [0.0] * n + [1.0]
        spans = [(i, j, math.exp(logp[word[i:j]])) for i in range(n) for j in range(i + 1, n + 1) if word[i:j] in logp]
        for i, j, p in sorted(spans, key=lambda span: span[1]):
            alpha[j] += alpha[i] * p
        for i, j, p in sorted(spans, key=lambda span: -span[0]):
            beta[i] += p * beta[j]
        if freq and not alpha[n]:
            raise ValueError("no segmentation")
        for i, j, p in spans:
            e[word[i:j]] += freq * alpha[i] * p * beta[j] / alpha[n] if freq else 0.0
    return as_logarithms(e)


@misconception(
    "unigram_em_step", "Logarithms are added up where probabilities should be; sum with log_sum_exp, not with sum."
)
def mixes_logarithms_and_probabilities(word_freqs, logp):
    e = dict.fromkeys(logp, 0.0)
    for word, freq in word_freqs.items():
        if not freq:
            continue
        reference.unigram_em_step({word: 1}, logp)  # raises if the word cannot be cut
        n = len(word)
        alpha, beta = [0.0] * (n + 1), [0.0] * (n + 1)
        spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1) if logp.get(word[i:j], -INF) > -INF]
        for end in range(1, n + 1):
            alpha[end] = sum(alpha[i] + logp[word[i:j]] for i, j in spans if j == end)
        for start in reversed(range(n)):
            beta[start] = sum(logp[word[i:j]] + beta[j] for i, j in spans if i == start)
        for i, j in spans:
            e[word[i:j]] += freq * math.exp(min(alpha[i] + logp[word[i:j]] + beta[j] - alpha[n], 50.0))
    return as_logarithms(e)


# -- prune_vocab ---------------------------------------------------------------------------------------------------


def normalised(logp):
    log_z = log_sum_exp(logp.values())
    return {piece: value - log_z for piece, value in logp.items()}


def log_likelihood(word_freqs, model, reduce_sum=log_sum_exp, weigh=True):
    total = 0.0
    for word, freq in word_freqs.items():
        alpha = [0.0]
        for j in range(1, len(word) + 1):
            alpha.append(reduce_sum([alpha[i] + model[word[i:j]] for i in range(j) if word[i:j] in model]))
        total += (freq if weigh else 1) * alpha[-1] if freq else 0.0
    return total


def prune(word_freqs, logp, keep, order=None, rest=normalised, value=log_likelihood, finish=normalised, singles=True):
    """Drop pieces by what is left without each; each misconception changes one thing."""
    characters = {piece for piece in logp if len(piece) == 1}
    if not len(characters) <= keep <= len(logp):
        raise ValueError("keep")
    candidates = [piece for piece in logp if not singles or piece not in characters]
    left = {x: value(word_freqs, rest({p: v for p, v in logp.items() if p != x})) for x in candidates}
    dropped = sorted(left, key=order or (lambda x: -left[x]))[: len(logp) - keep]
    return finish({p: v for p, v in logp.items() if p not in dropped})


@misconception(
    "prune_vocab", "You drop the least probable pieces; a rare piece may be needed and a frequent one may not."
)
def drops_the_least_probable(word_freqs, logp, keep):
    return prune(word_freqs, logp, keep, order=lambda x: logp[x])


@misconception("prune_vocab", "The sign of the loss is wrong: you drop the pieces that are missed most.")
def drops_the_most_needed(word_freqs, logp, keep):
    return prune(word_freqs, logp, keep, value=lambda words, model: -log_likelihood(words, model))


@misconception("prune_vocab", "What is left does not sum to one; add a constant to the log-probabilities that remain.")
def leaves_the_rest_as_it_was(word_freqs, logp, keep):
    return prune(word_freqs, logp, keep, finish=dict)


@misconception(
    "prune_vocab", "You score without a piece, but do not normalise what remains; its probability goes to the others."
)
def scores_without_normalising(word_freqs, logp, keep):
    return prune(word_freqs, logp, keep, rest=dict)


@misconception(
    "prune_vocab", "The likelihood counts the best segmentation of a word only; sum over all of its segmentations."
)
def scores_the_best_segmentation(word_freqs, logp, keep):
    def value(words, model):
        return log_likelihood(words, model, reduce_sum=lambda values: max(values, default=-INF))

    return prune(word_freqs, logp, keep, value=value)


@misconception("prune_vocab", "Each word counts once in your likelihood; weigh it by how often it occurs.")
def scores_words_once(word_freqs, logp, keep):
    return prune(word_freqs, logp, keep, value=lambda words, model: log_likelihood(words, model, weigh=False))


@misconception(
    "prune_vocab", "You measure the losses again after each dropped piece; measure them once, against the full list."
)
def measures_again_each_time(word_freqs, logp, keep):
    prune(word_freqs, logp, keep)
    while len(logp) > keep:
        logp = prune(word_freqs, logp, len(logp) - 1)
    return normalised(logp)


@misconception("prune_vocab", "Single characters can be dropped, and some words can then not be cut; keep them all.")
def drops_single_characters(word_freqs, logp, keep):
    def value(words, model):
        safe = {**{c: -40.0 for word in words for c in word}, **model}
        return log_likelihood(words, safe)

    return prune(word_freqs, logp, keep, value=value, singles=False)


# -- sp_encode, sp_decode ------------------------------------------------------------------------------------------


def as_bytes(character):
    return [f"<0x{byte:02X}>" for byte in character.encode()]


def encode(text, pieces, prefix=" "):
    if not text:
        return []
    tokens = []
    for n, stretch in enumerate((prefix + text).split(SPACE)):
        tokens += as_bytes(SPACE) if n else []
        for piece in reference.viterbi_segment(stretch.replace(" ", SPACE), pieces):
            tokens += [piece] if piece in pieces else as_bytes(piece)
    return tokens


def decode(pieces):
    """Decode without taking the dummy prefix off."""
    return reference.sp_decode(["", *pieces])


@misconception(
    "sp_encode", "The dummy prefix comes back as a space in front of every text; take one space off.", "sp_decode"
)
def leaves_the_dummy_prefix(pieces):
    return decode(pieces)


@misconception(
    "sp_encode",
    "You strip all spaces in front; only one is the dummy prefix, the others belong to the text.",
    "sp_decode",
)
def strips_all_leading_spaces(pieces):
    return decode(pieces).lstrip(" ")


@misconception(
    "sp_encode", "You take a space off even if the first piece does not begin with the sign for it.", "sp_decode"
)
def takes_any_space_off(pieces):
    return decode(pieces).removeprefix(" ")


@misconception(
    "sp_encode", "Each byte token is decoded alone, so characters of several bytes break; join the bytes.", "sp_decode"
)
def decodes_each_byte_alone(pieces):
    parts = [reference.sp_decode([piece]) if piece.startswith("<0x") else piece.replace(SPACE, " ") for piece in pieces]
    text = "".join(parts)
    return text[1:] if pieces and pieces[0].startswith(SPACE) else text


@misconception(
    "sp_encode",
    "You look for byte tokens in the joined text, where a text that holds <0x41> is one too; go piece by piece.",
    "sp_decode",
)
def looks_in_the_joined_text(pieces):
    parts = re.split(r"(<0x[0-9A-F]{2}>)", "".join(pieces))
    return reference.sp_decode(parts if parts[0] else parts[1:])


@misconception(
    "sp_encode", "Invalid bytes raise an error or vanish; a model may write any, so put U+FFFD.", "sp_decode"
)
def leaves_broken_bytes_out(pieces):
    data = b""
    for piece in pieces:
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        data += bytes([int(piece[3:5], 16)]) if is_byte else piece.replace(SPACE, " ").encode()
    text = data.decode("utf-8", errors="ignore")
    return text[1:] if pieces and pieces[0].startswith(SPACE) else text


@misconception("sp_encode", "A sign for space in the text itself comes back as a space; write it as its three bytes.")
def does_not_escape_the_sign(text, pieces):
    tokens = []
    for piece in reference.viterbi_segment((" " + text).replace(" ", SPACE), pieces) if text else []:
        tokens += [piece] if piece in pieces else as_bytes(piece)
    return tokens


@misconception("sp_encode", "No dummy prefix is put in front of the text, so words at its start look different.")
def puts_no_dummy_prefix(text, pieces):
    return encode(text, pieces, prefix="")


@misconception(
    "sp_encode", "A text that begins with a space gets no dummy prefix of its own, and loses its space in decoding."
)
def prefixes_only_where_none_is(text, pieces):
    return encode(text, pieces, prefix="" if text.startswith(" ") else " ")


@misconception("sp_encode", "You normalise the text first (NFKC), which changes it; nothing but spaces is rewritten.")
def normalises_the_text(text, pieces):
    return encode(unicodedata.normalize("NFKC", text), pieces)


@misconception("sp_encode", "All white space becomes the sign for space; only U+0020 does, the rest are characters.")
def rewrites_all_white_space(text, pieces):
    return encode(re.sub(r"\s", " ", text), pieces)


@misconception("sp_encode", "Unknown characters become <unk> and are lost; spell them in bytes.")
def loses_unknown_characters(text, pieces):
    return [token if token in pieces else "<unk>" for token in encode(text, pieces)]


# -- fertility, token_premium --------------------------------------------------------------------------------------


def units(text, unit):
    if unit not in ("byte", "char", "word"):
        raise ValueError(unit)
    return {"byte": len(text.encode()), "char": len(text), "word": len(text.split())}[unit]


def ratio(tokens, number):
    if not number:
        raise ValueError("nothing to divide by")
    return tokens / number


@misconception("fertility", "You count characters where bytes are asked for; encode the text as UTF-8 and count those.")
def characters_for_bytes(encode, texts, unit="byte"):
    number = sum(units(text, "char" if unit == "byte" else unit) for text in texts)
    return ratio(sum(len(encode(text)) for text in texts), number)


@misconception("fertility", "The ratio is upside down; fertility is tokens divided by units of text.")
def units_over_tokens(encode, texts, unit="byte"):
    number = ratio(sum(units(text, unit) for text in texts), 1)
    ratio(1, number)
    tokens = sum(len(encode(text)) for text in texts)
    return number / tokens if tokens else INF


@misconception("fertility", "You take the mean of each text's ratio; divide all tokens by all units.")
def mean_of_ratios(encode, texts, unit="byte"):
    ratio(1, sum(units(text, unit) for text in texts))
    ratios = [len(encode(text)) / units(text, unit) for text in texts if units(text, unit)]
    return sum(ratios) / len(ratios)


@misconception("fertility", "You add two special tokens a text; only what encode returns is counted.")
def counts_special_tokens(encode, texts, unit="byte"):
    return ratio(sum(len(encode(text)) + 2 for text in texts), sum(units(text, unit) for text in texts))


@misconception("fertility", "You join the texts before encoding, and pieces span their borders; encode each by itself.")
def joins_the_texts(encode, texts, unit="byte"):
    return ratio(len(encode("".join(texts))), sum(units(text, unit) for text in texts))


@misconception("fertility", "Words are split at single spaces only; str.split() without an argument takes any gap.")
def splits_at_single_spaces(encode, texts, unit="byte"):
    number = sum(len(text.split(" ")) if unit == "word" else units(text, unit) for text in texts)
    return ratio(sum(len(encode(text)) for text in texts), number)


@misconception(
    "fertility",
    "The premium is upside down; divide the tokens of the second texts by those of the first.",
    "token_premium",
)
def premium_upside_down(encode, parallel):
    ratio(1, sum(len(encode(a)) for a, _ in parallel))
    tokens = sum(len(encode(b)) for _, b in parallel)
    return sum(len(encode(a)) for a, _ in parallel) / tokens if tokens else INF


@misconception("fertility", "The premium is a mean over the pairs; divide all tokens by all tokens.", "token_premium")
def premium_mean_of_ratios(encode, parallel):
    ratio(1, sum(len(encode(a)) for a, _ in parallel))
    ratios = [len(encode(b)) / len(encode(a)) for a, b in parallel if encode(a)]
    return sum(ratios) / len(ratios)


@misconception(
    "fertility",
    "The premium compares tokens per character; it compares the tokens of texts that say the same.",
    "token_premium",
)
def premium_per_character(encode, parallel):
    first = ratio(sum(len(encode(a)) for a, _ in parallel), sum(len(a) for a, _ in parallel))
    number = sum(len(b) for _, b in parallel)
    return sum(len(encode(b)) for _, b in parallel) / number / first if number else 0.0


# -- quirks --------------------------------------------------------------------------------------------------------


@misconception("quirks", "You count tokens that hold the letter; count every occurrence inside them.", "hidden_letters")
def counts_tokens(tokens, letter):
    return sum(letter in token for token in tokens if len(token) > 1)


@misconception(
    "quirks", "You count every occurrence; a letter that is a token by itself is not hidden.", "hidden_letters"
)
def counts_visible_letters(tokens, letter):
    return sum(token.count(letter) for token in tokens)


@misconception("quirks", "Upper and lower case are counted alike; they are different letters here.", "hidden_letters")
def ignores_case(tokens, letter):
    return sum(token.lower().count(letter.lower()) for token in tokens if len(token) > 1)


def check_groups(k, direction):
    if k < 1 or direction not in ("l2r", "r2l"):
        raise ValueError("k or direction")


@misconception("quirks", "The two directions are exchanged; l2r counts from the left.", "digit_groups")
def exchanges_directions(number, k=3, direction="l2r"):
    check_groups(k, direction)
    return reference.digit_groups(number, k, "r2l" if direction == "l2r" else "l2r")


@misconception(
    "quirks",
    "From the right, the digits inside a group come out reversed; turn each group around again.",
    "digit_groups",
)
def reverses_the_digits(number, k=3, direction="l2r"):
    groups = reference.digit_groups(number, k, direction)
    return [group[::-1] for group in groups] if direction == "r2l" else groups


@misconception("quirks", "If the length divides evenly, an empty group stands in front; leave it out.", "digit_groups")
def empty_group_in_front(number, k=3, direction="l2r"):
    groups = reference.digit_groups(number, k, direction)
    return ["", *groups] if direction == "r2l" and len(number) % k == 0 else groups


@misconception(
    "quirks", "The short group in front has one digit too few; it has len(number) % k digits.", "digit_groups"
)
def first_group_off_by_one(number, k=3, direction="l2r"):
    check_groups(k, direction)
    first = (len(number) - 1) % k if direction == "r2l" else 0
    groups = [number[i : i + k] for i in range(first, len(number), k)]
    return [number[:first], *groups] if first else groups


@misconception(
    "quirks", "The groups of r2l come out from right to left; give them in the order of the number.", "digit_groups"
)
def groups_backwards(number, k=3, direction="l2r"):
    groups = reference.digit_groups(number, k, direction)
    return groups[::-1] if direction == "r2l" else groups


@misconception("quirks", "Ids that the reader lacks are left out; they are mismatches like any other.", "mismatch_rate")
def skips_missing_ids(ids, tok_a, tok_b):
    known = [i for i in ids if i in tok_b]
    return sum(tok_a[i] != tok_b[i] for i in known) / len(known) if known else 0.0


@misconception("quirks", "You look at each different id once; every place of the text counts.", "mismatch_rate")
def counts_ids_once(ids, tok_a, tok_b):
    return reference.mismatch_rate(sorted(set(ids)), tok_a, tok_b)


@misconception("quirks", "You return the share that agrees; the mismatch is the rest.", "mismatch_rate")
def share_that_agrees(ids, tok_a, tok_b):
    return 1.0 - reference.mismatch_rate(ids, tok_a, tok_b)


@misconception(
    "quirks",
    "You look for short rows; a row may be short by training, so measure how far it moved.",
    "undertrained_tokens",
)
def looks_for_short_rows(W_init, W_now, q):
    return reference.undertrained_tokens(torch.zeros_like(W_now), W_now, q)


@misconception(
    "quirks", "You return the rows that moved most; those below the quantile are asked for.", "undertrained_tokens"
)
def rows_that_moved_most(W_init, W_now, q):
    reference.undertrained_tokens(W_init, W_now, q)
    moved = (W_now - W_init).norm(dim=1)
    return (moved > torch.quantile(moved, q)).nonzero().flatten().tolist()


@misconception(
    "quirks", "A row exactly at the quantile is taken as well; only those strictly below are.", "undertrained_tokens"
)
def takes_the_border(W_init, W_now, q):
    reference.undertrained_tokens(W_init, W_now, q)
    moved = (W_now - W_init).norm(dim=1)
    return (moved <= torch.quantile(moved, q)).nonzero().flatten().tolist()


@misconception("quirks", "The ids come ordered by how far they moved; give them ascending.", "undertrained_tokens")
def ordered_by_distance(W_init, W_now, q):
    moved = (W_now - W_init).norm(dim=1).tolist()
    return sorted(reference.undertrained_tokens(W_init, W_now, q), key=lambda i: moved[i])


@misconception(
    "quirks", "You measure the change of direction; a row that only grew has moved as well.", "undertrained_tokens"
)
def measures_the_angle(W_init, W_now, q):
    reference.undertrained_tokens(W_init, W_now, q)
    turned = 1 - torch.nn.functional.cosine_similarity(W_init, W_now, dim=1)
    return (turned < torch.quantile(turned, q)).nonzero().flatten().tolist()
