# %% [markdown]
# # Chapter 3: Tokenizer families and quirks
#
# BPE is one family of tokenizers among three. Here you write the other two, WordPiece and Unigram, with their training,
# and the layer of SentencePiece that makes spaces and unknown characters come back. Then you measure what a tokenizer
# costs, and four things that it hides from the model. The teaching is in the notes (`README.md`).

# %%
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Sized
from itertools import pairwise

import torch
from torch import Tensor

# %% [markdown]
# Two things are given. `SPACE` is the sign that stands for a space in SentencePiece, U+2581; it is not the underscore.
# `log_sum_exp` adds probabilities whose logarithms are known, however small they are.

# %%
SPACE = "▁"


def log_sum_exp(values: Iterable[float]) -> float:
    """Return the logarithm of the sum of exp(value), without overflow or underflow; -inf if there are no values."""
    values = list(values)
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(sum(math.exp(value - top) for value in values))


# %% [markdown]
# ## 3.1 wordpiece_encode
#
# BERT's tokenizer cuts a word greedily: the longest piece that fits, then the longest that fits behind it. Pieces that
# do not begin the word are written with `##` in front.


# %%
def wordpiece_encode(
    word: str, vocab: set[str], unk: str = "[UNK]", prefix: str = "##", max_chars: int = 100
) -> list[str]:
    """Cut `word` from left to right into the longest pieces of `vocab` that fit.

    Args:
        word: one word, without spaces; may be empty.
        vocab: the pieces. A piece that begins a word is looked up as it is, every other one with `prefix` in front.
        unk: what stands for a word that cannot be cut; it need not be in `vocab`.
        prefix: the mark of a piece that continues a word; may be empty.
        max_chars: a word of more characters than this is not cut, even if it could be; one of just as many is.

    Returns:
        The pieces as they stand in `vocab`, marks included. An empty word has none.

    Example:
        >>> wordpiece_encode("tokens", {"to", "token", "##s", "##ken", "##kens"})
        ['token', '##s']
        >>> wordpiece_encode("tokens!", {"to", "token", "##s", "##ken", "##kens"})
        ['[UNK]']

    Notes:
        A piece spells at least one character, so the mark alone is never one. Greedy means no way back: if no piece
        fits at some place, the whole word becomes the single token `unk`, even where another cut would have succeeded.
    """
    ### BEGIN SOLUTION
    if len(word) > max_chars:
        return [unk]
    pieces, start = [], 0
    while start < len(word):
        mark = prefix if start else ""
        ends = range(len(word), start, -1)  # the longest first
        end = next((end for end in ends if mark + word[start:end] in vocab), None)
        if end is None:
            return [unk]
        pieces.append(mark + word[start:end])
        start = end
    return pieces
    ### END SOLUTION


# %% [markdown]
# ## 3.2 train_wordpiece
#
# BPE joins the pair that is most frequent. WordPiece joins the pair that is most frequent *for its parts*: two symbols
# that are rarely seen without each other.


# %%
def train_wordpiece(word_freqs: dict[str, int], vocab_size: int) -> list[tuple[str, str]]:
    """Learn the merges of a WordPiece vocabulary from counted words.

    Args:
        word_freqs: the count of each word; non-empty words of any characters (also `#`, but not in front), counts of 1
            or more. It is not changed.
        vocab_size: the size of the vocabulary to reach, the symbols of the beginning counted in.

    Returns:
        The pairs `(left, right)` in the order in which they were merged, `##` included.

    Raises:
        ValueError: if vocab_size is less than the number of symbols of the beginning.

    Example:
        >>> train_wordpiece({"an": 9, "any": 3, "qua": 1}, 8)
        [('##u', '##a'), ('q', '##ua')]

    Notes:
        At the beginning a word is its first character and `##c` for every other character c. f(a) counts a symbol and
        f(a, b) a pair of neighbours in the words as merged so far, each weighted by the word's count; "aaa" holds
        (##a, ##a) once, "aaaa" twice. Each step takes the highest f(a, b) / (f(a) f(b)), among equals the larger
        f(a, b), then the smallest (left, right) as Python compares tuples of strings. Equal means equal as fractions:
        divide two whole numbers once, for logarithms or two divisions round. A merge joins the pair from left to right
        in all words; the new symbol is left + right without the right one's `##`, and joins the vocabulary; one that
        is there already does not count again. The end: vocab_size symbols, or no pair is left.
    """
    ### BEGIN SOLUTION
    words = {word: [word[0], *("##" + c for c in word[1:])] for word in word_freqs}
    vocab = {symbol for symbols in words.values() for symbol in symbols}
    if vocab_size < len(vocab):
        raise ValueError(f"vocab_size must be at least {len(vocab)}, the number of symbols of the beginning")
    merges = []
    while len(vocab) < vocab_size:
        f, f_pair = Counter(), Counter()
        for word, symbols in words.items():
            for symbol in symbols:
                f[symbol] += word_freqs[word]
            for pair in pairwise(symbols):
                f_pair[pair] += word_freqs[word]
        if not f_pair:
            break
        best = min(f_pair, key=lambda ab: (-f_pair[ab] / (f[ab[0]] * f[ab[1]]), -f_pair[ab], ab))
        merges.append(best)
        vocab.add(best[0] + best[1].removeprefix("##"))
        for word, symbols in words.items():
            merged = []
            for symbol in symbols:
                both = merged and (merged[-1], symbol) == best  # what was just merged is longer than best[0]
                merged.append(merged.pop() + symbol.removeprefix("##") if both else symbol)
            words[word] = merged
    return merges
    ### END SOLUTION


# %% [markdown]
# ## 3.3 viterbi_segment
#
# A Unigram tokenizer gives each piece a probability and takes the segmentation whose product is largest. There are
# exponentially many; a table of the best score up to each place finds it all the same.


# %%
def viterbi_segment(text: str, logp: dict[str, float], unk_logp: float = -20.0) -> list[str]:
    """Cut `text` into the pieces whose log-probabilities have the largest sum.

    Args:
        text: any string; may be empty, may be thousands of characters long.
        logp: the log-probability of each piece; finite, keys not empty. They need not be normalised.
        unk_logp: the log-probability of a single character that is not in `logp`.

    Returns:
        The pieces in order; joined, they are `text`. Each is a key of `logp` or a single character. An empty text has
        none. If several segmentations share the largest sum, any one of them.

    Example:
        >>> viterbi_segment("nowhere", {"now": -3.5, "here": -4.0, "no": -3.0, "where": -4.0})
        ['no', 'where']
        >>> viterbi_segment("nowhere!", {"now": -3.5, "here": -4.0, "no": -3.0, "where": -4.0})
        ['no', 'where', '!']

    Notes:
        A single character always has a score: its own in `logp` if it is there, or else `unk_logp`. So every text has a
        segmentation. A longer string counts only if it is in `logp`. Go through the places in a loop: trying every
        segmentation never ends, and a recursion over the places of a long text is too deep for Python.
    """
    ### BEGIN SOLUTION
    longest = max(map(len, logp), default=1)
    best = [0.0]  # best[j]: the largest score of a segmentation of text[:j]
    came_from = [0]  # where the last piece of that segmentation begins
    for j in range(1, len(text) + 1):
        scores = {j - 1: best[j - 1] + logp.get(text[j - 1], unk_logp)}
        for i in range(max(0, j - longest), j - 1):
            if text[i:j] in logp:
                scores[i] = best[i] + logp[text[i:j]]
        came_from.append(max(scores, key=scores.get))
        best.append(scores[came_from[j]])
    pieces, j = [], len(text)
    while j > 0:
        pieces.append(text[came_from[j] : j])
        j = came_from[j]
    return pieces[::-1]
    ### END SOLUTION


# %% [markdown]
# ## 3.4 unigram_em_step
#
# Where do the probabilities come from? Nobody has seen how words were cut. So each segmentation counts by its
# probability, and the soft counts give better probabilities.


# %%
def unigram_em_step(word_freqs: dict[str, int], logp: dict[str, float]) -> dict[str, float]:
    """Return the log-probabilities of the pieces after one step of expectation maximisation.

    Args:
        word_freqs: the count of each word; non-empty words, counts of 0 or more. Words of count 0 are ignored.
        logp: the log-probability of each piece; keys not empty, values finite or -inf. They need not be normalised.

    Returns:
        A new dict with the keys of `logp`: log(e(x) / sum of e over all pieces), where e(x) is the expected number of
        uses of the piece x in the whole corpus. A piece that is never used gets -inf.

    Raises:
        ValueError: if a word of positive count has no segmentation into pieces above -inf, or if there is no such word.

    Example:
        >>> log_half, log_quarter = math.log(1 / 2), math.log(1 / 4)
        >>> new = unigram_em_step({"ab": 3, "b": 1}, {"a": log_quarter, "b": log_quarter, "ab": log_half})
        >>> [round(math.exp(value) * 13, 6) for value in new.values()]
        [1.0, 4.0, 8.0]

    Notes:
        A segmentation of a word has the probability of the product of its pieces, divided by the sum of these products
        over all segmentations of the word; e(x) adds up, over words, count times the mean number of times that x is
        used. Words may be hundreds of characters long and probabilities tiny: stay with logarithms (`log_sum_exp`).
    """
    ### BEGIN SOLUTION
    e = dict.fromkeys(logp, 0.0)
    for word, freq in word_freqs.items():
        if not freq:
            continue
        n = len(word)
        spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1) if word[i:j] in logp]
        alpha, beta = [0.0], [0.0] * (n + 1)  # log of the summed products of word[:j], and of word[i:]
        for end in range(1, n + 1):
            alpha.append(log_sum_exp(alpha[i] + logp[word[i:j]] for i, j in spans if j == end))
        for start in reversed(range(n)):
            beta[start] = log_sum_exp(logp[word[i:j]] + beta[j] for i, j in spans if i == start)
        if alpha[n] == -math.inf:
            raise ValueError(f"{word!r} has no segmentation")
        for i, j in spans:
            e[word[i:j]] += freq * math.exp(alpha[i] + logp[word[i:j]] + beta[j] - alpha[n])
    total = sum(e.values())
    if not total:
        raise ValueError("no word has a positive count")
    return {piece: math.log(count / total) if count else -math.inf for piece, count in e.items()}
    ### END SOLUTION


# %% [markdown]
# ## 3.5 prune_vocab
#
# Unigram begins with far too many pieces and throws away those that are missed least. How much a piece is missed can
# only be found by taking it out.


# %%
def prune_vocab(word_freqs: dict[str, int], logp: dict[str, float], keep: int) -> dict[str, float]:
    """Drop the pieces whose loss is smallest, until `keep` pieces are left.

    Args:
        word_freqs: the count of each word; non-empty words, counts of 0 or more. Words of count 0 are ignored.
        logp: the log-probability of each piece, finite or -inf, normalised or not. Every character of every word of
            positive count is a piece of its own, with a finite value.
        keep: the number of pieces to be left.

    Returns:
        A new dict of `keep` pieces: each with its old log-probability plus one constant, so that the probabilities sum
        to one.

    Raises:
        ValueError: if keep is less than the number of single characters in `logp`, or larger than len(logp).

    Example:
        >>> logp = {"a": math.log(0.2), "b": math.log(0.2), "ab": math.log(0.5), "ba": math.log(0.1)}
        >>> sorted(prune_vocab({"ab": 5, "aba": 1}, logp, 3))
        ['a', 'ab', 'b']

    Notes:
        The likelihood of the corpus is the sum over words of count times the log of the summed probabilities of *all*
        segmentations of the word. The loss of a piece is how much this falls when that piece alone is taken out of
        `logp` and the rest is normalised; it may be negative. All losses are measured against the full `logp`, then
        all pieces to be dropped are dropped at once. Single characters are never dropped. Ties may go either way.
    """
    ### BEGIN SOLUTION
    singles = {piece for piece in logp if len(piece) == 1}
    if not len(singles) <= keep <= len(logp):
        raise ValueError(f"keep must lie between {len(singles)} and {len(logp)}, but is {keep}")

    def without(dropped: set[str]) -> dict[str, float]:
        rest = {piece: value for piece, value in logp.items() if piece not in dropped}
        log_z = log_sum_exp(rest.values())
        return {piece: value - log_z for piece, value in rest.items()}

    def log_likelihood(model: dict[str, float]) -> float:
        total = 0.0
        for word, freq in word_freqs.items():
            alpha = [0.0]
            for j in range(1, len(word) + 1):
                alpha.append(log_sum_exp(alpha[i] + model[word[i:j]] for i in range(j) if word[i:j] in model))
            total += freq * alpha[-1] if freq else 0.0
        return total

    left = {piece: log_likelihood(without({piece})) for piece in logp.keys() - singles}
    easiest = sorted(left, key=left.get, reverse=True)  # what is left is largest where the loss is smallest
    return without(set(easiest[: len(logp) - keep]))
    ### END SOLUTION


# %% [markdown]
# ## 3.6 sp_encode, sp_decode
#
# SentencePiece treats the space as a character like any other, so that the pieces alone give the text back, and spells
# what its vocabulary does not know in bytes.


# %%
def sp_encode(text: str, pieces: dict[str, float]) -> list[str]:
    """Cut `text` into pieces from which `sp_decode` can restore it exactly.

    Args:
        text: any string without lone surrogates; may be empty.
        pieces: the log-probability of each piece. Pieces hold SPACE where text holds a space, never a space itself;
            SPACE alone is among them; none looks like a byte token.

    Returns:
        Pieces of the dict and byte tokens in order. An empty text has none.

    Example:
        >>> pieces = {"▁": -3.0, "▁to": -2.0, "▁be": -2.0, "t": -5.0, "o": -5.0, "b": -5.0, "e": -5.0}
        >>> sp_encode("to  bé", pieces)
        ['▁to', '▁', '▁', 'b', '<0xC3>', '<0xA9>']

    Notes:
        One SPACE, the dummy prefix, is put in front of the text, even if it begins with a space; then each space
        (U+0020 only) becomes SPACE. The result is cut as `viterbi_segment` cuts it, with its default unk_logp. A
        character that is no piece becomes its bytes in UTF-8, each a token like `<0x0A>`: two digits, capitals. A SPACE
        that is in the text itself would come back as a space, so it always becomes its bytes, <0xE2> <0x96> <0x81>,
        and no piece covers it. Nothing else of the text is altered.
    """
    ### BEGIN SOLUTION
    if not text:
        return []
    tokens = []
    for n, stretch in enumerate((" " + text).split(SPACE)):
        if n:  # a SPACE that the text itself held stood here
            tokens += [f"<0x{byte:02X}>" for byte in SPACE.encode()]
        for piece in viterbi_segment(stretch.replace(" ", SPACE), pieces):
            tokens += [piece] if piece in pieces else [f"<0x{byte:02X}>" for byte in piece.encode()]
    return tokens
    ### END SOLUTION


# %%
def sp_decode(pieces: Sequence[str]) -> str:
    """Return the text of a row of pieces and byte tokens.

    Args:
        pieces: pieces and byte tokens such as `<0xE2>` (two digits, capitals), as `sp_encode` or a model gives them;
            may be empty.

    Returns:
        The text: every SPACE inside a piece is a space, every byte token is its byte, and if the first piece begins
        with SPACE, one space is taken off the front.

    Example:
        >>> sp_decode(["▁to", "▁", "▁", "b", "<0xC3>", "<0xA9>"])
        'to  bé'
        >>> sp_decode(["▁", "▁to", "<0xC3>"])
        ' to�'

    Notes:
        A character may be spelt by several byte tokens: decode a whole run of them together, as UTF-8. A model may
        write any bytes; invalid ones become U+FFFD as `bytes.decode` with errors="replace" has it, and nothing raises.
        Bytes are never changed: <0xE2> <0x96> <0x81> is the character U+2581, and a leading <0x20> stays. Byte tokens
        are whole pieces: "<0x41>" spelt by several pieces is text.
    """
    ### BEGIN SOLUTION
    data = b""
    for piece in pieces:
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        data += bytes([int(piece[3:5], 16)]) if is_byte else piece.replace(SPACE, " ").encode()
    text = data.decode("utf-8", errors="replace")
    return text[1:] if pieces and pieces[0].startswith(SPACE) else text
    ### END SOLUTION


# %% [markdown]
# ## 3.7 fertility, token_premium
#
# How many tokens does a text cost, and how many more does the same text cost in another language?


# %%
def fertility(encode: Callable[[str], Sized], texts: Sequence[str], unit: str = "byte") -> float:
    """Return the number of tokens per unit of text, over all texts together.

    Args:
        encode: turns a text into its tokens; only their number matters. It adds no special tokens.
        texts: the texts; each is encoded by itself, just as it is.
        unit: "byte" counts the bytes of UTF-8, "char" the characters of the string, "word" what `str.split()` gives.

    Returns:
        All tokens divided by all units (not the mean of the texts' own ratios).

    Raises:
        ValueError: if `unit` is none of the three, or if the texts hold no unit at all.

    Example:
        >>> fertility(list, ["été", "ab cd"], unit="byte")
        0.8
        >>> fertility(list, ["été", "ab cd"], unit="word")
        2.6666666666666665
    """
    ### BEGIN SOLUTION
    units_of = {"byte": lambda text: len(text.encode()), "char": len, "word": lambda text: len(text.split())}
    if unit not in units_of:
        raise ValueError(f"unit must be one of {', '.join(units_of)}, but is {unit!r}")
    units = sum(units_of[unit](text) for text in texts)
    if not units:
        raise ValueError(f"the texts hold no {unit}")
    return sum(len(encode(text)) for text in texts) / units
    ### END SOLUTION


# %%
def token_premium(encode: Callable[[str], Sized], parallel: Sequence[tuple[str, str]]) -> float:
    """Return how many times as many tokens the second text of each pair costs as the first, over all pairs together.

    Args:
        encode: turns a text into its tokens; only their number matters.
        parallel: pairs of a text and its translation: `(in the reference language, in the other language)`.

    Returns:
        All tokens of the second texts divided by all tokens of the first; 1.5 means half as many again.

    Raises:
        ValueError: if the first texts have no tokens at all.

    Example:
        >>> token_premium(str.encode, [("water", "νερό"), ("cold", "κρύο")])
        1.7777777777777777
    """
    ### BEGIN SOLUTION
    reference = sum(len(encode(first)) for first, _ in parallel)
    if not reference:
        raise ValueError("the texts of the reference language have no tokens")
    return sum(len(encode(second)) for _, second in parallel) / reference
    ### END SOLUTION


# %% [markdown]
# ## 3.8 quirks: hidden_letters, digit_groups, mismatch_rate, undertrained_tokens
#
# Four small functions, each of which measures one thing that goes wrong because a model reads tokens, not text.


# %%
def hidden_letters(tokens: Sequence[str], letter: str) -> int:
    """Count the occurrences of `letter` that a model cannot see, since they lie inside a longer token.

    Args:
        tokens: the tokens of a text, as strings; whatever stands in a token counts as its characters.
        letter: one character; upper and lower case differ.

    Returns:
        The number of occurrences of `letter` in tokens of two or more characters. A token that is the letter alone
        hides nothing.

    Example:
        >>> hidden_letters(["st", "raw", "berry", "r"], "r")
        3
    """
    ### BEGIN SOLUTION
    return sum(token.count(letter) for token in tokens if len(token) > 1)
    ### END SOLUTION


# %%
def digit_groups(number: str, k: int = 3, direction: str = "l2r") -> list[str]:
    """Cut a row of digits into groups of `k`, counted from the left or from the right.

    Args:
        number: digits only; may be empty, may begin with zeros.
        k: the size of a group, at least 1.
        direction: "l2r" counts from the left, so that the last group may be shorter; "r2l" counts from the right, so
            that the first group may be shorter.

    Returns:
        The groups from left to right, none of them empty; joined, they are `number`.

    Raises:
        ValueError: if k is less than 1, or if `direction` is neither of the two.

    Example:
        >>> digit_groups("1234567"), digit_groups("1234567", direction="r2l")
        (['123', '456', '7'], ['1', '234', '567'])
    """
    ### BEGIN SOLUTION
    if k < 1 or direction not in ("l2r", "r2l"):
        raise ValueError(f"k={k} must be at least 1 and direction={direction!r} must be 'l2r' or 'r2l'")
    first = len(number) % k if direction == "r2l" else 0  # the size of the short group in front; 0 if there is none
    groups = [number[i : i + k] for i in range(first, len(number), k)]
    return [number[:first], *groups] if first else groups
    ### END SOLUTION


# %%
def mismatch_rate(ids: Sequence[int], tok_a: dict[int, str], tok_b: dict[int, str]) -> float:
    """Return the share of `ids` that stand for another string in `tok_b` than in `tok_a`.

    Args:
        ids: the ids of a text, all of them in `tok_a`; may be empty.
        tok_a: the string of each id in the tokenizer that wrote the ids.
        tok_b: the string of each id in the tokenizer that reads them. An id that it does not have is a mismatch.

    Returns:
        A number from 0 to 1; every place counts, so a repeated id counts as often as it occurs. 0 if there are no ids.

    Example:
        >>> mismatch_rate([0, 1, 1, 2], {0: "a", 1: "b", 2: "c"}, {0: "a", 1: "x"})
        0.75
    """
    ### BEGIN SOLUTION
    wrong = sum(i not in tok_b or tok_b[i] != tok_a[i] for i in ids)
    return wrong / len(ids) if len(ids) else 0.0
    ### END SOLUTION


# %%
def undertrained_tokens(W_init: Tensor, W_now: Tensor, q: float) -> list[int]:
    """Return the ids whose embedding has moved least since the beginning of training.

    Args:
        W_init: (V, D) embeddings before training, float32 or float64; row i belongs to id i.
        W_now: (V, D) embeddings after training, dtype of W_init.
        q: the quantile, from 0 to 1.

    Returns:
        The ids, ascending, whose Euclidean distance between the row of W_init and that of W_now is strictly less than
        the q-quantile of all V distances (`torch.quantile`, which interpolates linearly).

    Raises:
        ValueError: if q is less than 0 or larger than 1.

    Example:
        >>> undertrained_tokens(torch.zeros(3, 2), torch.tensor([[3.0, 4.0], [0.0, 0.1], [1.0, 1.0]]), 0.4)
        [1]

    Notes:
        Not the length of the row that counts, but how far it went. Neither tensor is changed.
    """
    ### BEGIN SOLUTION
    if not 0 <= q <= 1:
        raise ValueError(f"q must lie between 0 and 1, but is {q}")
    moved = (W_now - W_init).norm(dim=1)  # (V,)
    return (moved < torch.quantile(moved, q)).nonzero().flatten().tolist()
    ### END SOLUTION
