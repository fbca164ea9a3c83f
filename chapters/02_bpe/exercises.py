# %% [markdown]
# # Chapter 2: Byte-pair encoding
#
# A language model reads whole numbers. Here you build the tokenizer that turns any text into a short list of them,
# and back without loss: first bytes, then pieces, then the merges that training finds, then the class that uses them
# on text, whole or in a stream.

# %%
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise

import regex

# %% [markdown]
# The pattern of GPT-2 (Radford et al., 2019) cuts text into pieces: a contraction, a word, a number or a run of
# signs, each with one space in front if there is one, or white space. `\p{L}` is any letter and `\p{N}` any number of
# any script, which Python's own `re` cannot say.

# %%
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# %% [markdown]
# ## Text as bytes: `encode_utf8` and `decode_utf8`
#
# UTF-8 writes every character as one to four bytes, so 256 symbols are enough for all text there is. These are the
# first 256 tokens.


# %%
def encode_utf8(text: str) -> list[int]:
    """Return the bytes of `text` in UTF-8, as integers from 0 to 255.

    Args:
        text: any string without lone surrogates; may be empty.

    Returns:
        A list with one int for each byte (not for each character), in the order of the text.

    Example:
        >>> encode_utf8("é!")
        [195, 169, 33]
    """
    raise NotImplementedError("encode_utf8")


# %%
def decode_utf8(ids: Sequence[int], errors: str = "replace") -> str:
    """Return the text whose UTF-8 bytes are `ids`.

    Args:
        ids: integers from 0 to 255; may be empty, may be invalid UTF-8 (a model may write anything).
        errors: what to do with invalid bytes, as in `bytes.decode`: "replace" puts U+FFFD in their place and never
            raises, "ignore" leaves them out, "strict" raises.

    Returns:
        The text, as `bytes.decode` gives it.

    Raises:
        ValueError: if an id is not in 0 to 255; if `errors` is "strict" and the bytes are invalid (UnicodeDecodeError
            is a ValueError).

    Example:
        >>> decode_utf8([195, 169, 33])
        'é!'
        >>> decode_utf8([33, 195])
        '!�'

    Notes:
        A character may span several bytes: decode all of them together, never one at a time.
    """
    raise NotImplementedError("decode_utf8")


# %% [markdown]
# ## Pieces: `pretokenize`
#
# Merges never cross the border of a piece, so "dog", "dog." and "dog!" share a token. The pieces of text under the
# GPT-2 pattern, joined, give the text back.


# %%
def pretokenize(text: str, pattern: str = GPT2_PATTERN) -> list[str]:
    """Cut `text` into the pieces that `pattern` matches.

    Args:
        text: any string; may be empty.
        pattern: a pattern for the `regex` module. It may hold capture groups.

    Returns:
        The whole matches, from left to right and not overlapping. Empty matches are left out, and so is text that no
        match covers (the GPT-2 pattern covers all text, so its pieces join to `text`).

    Example:
        >>> pretokenize("We'll pay 300  now!")
        ['We', "'ll", ' pay', ' 300', ' ', ' now', '!']

    Notes:
        `regex.findall` returns the groups in place of the match when the pattern has groups.
    """
    raise NotImplementedError("pretokenize")


# %% [markdown]
# ## Training: `train_bpe`
#
# Start from single bytes; again and again, join the pair of neighbours that occurs most often. The exercise
# `train_bpe_speed` asks the same function to be fast: keep the counts, and after a merge update only what the merge
# touched.


# %%
def train_bpe(
    text: str, vocab_size: int, special_tokens: Sequence[str], pattern: str = GPT2_PATTERN
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]]]:
    """Learn a byte-pair vocabulary and its merges from `text`.

    Args:
        text: the training text, cut at each special token (the longest where several begin at one place); these are
            never counted, and each stretch between them is cut by `pretokenize` by itself. Pairs lie within a piece.
        vocab_size: the largest size of the vocabulary, the 256 bytes and the special tokens counted in.
        special_tokens: distinct, non-empty strings; may be none.
        pattern: the pattern of the pieces.

    Returns:
        `(vocab, merges)`: vocab maps ids 0 to 255 to the single bytes, then one id to each merge in order, then one to
        each special token as given (in UTF-8); merges holds the pairs `(left, right)` in the order learned.

    Raises:
        ValueError: if vocab_size is less than 256 + len(special_tokens).

    Example:
        >>> train_bpe("aab aab", 259, ["<|end|>"])[1]
        [(b'a', b'b'), (b'a', b'ab')]

    Notes:
        Each step takes the pair with the highest count, 1 included; among equals the greatest `(left, right)`, compared
        as byte strings. Overlaps count ("aaa" holds (a, a) twice) but merge from the left: aa, a. With no pair left it
        ends early, with a smaller vocabulary. `train_bpe_speed`: a merge visits only the distinct words that hold it.
    """
    raise NotImplementedError("train_bpe")


# %% [markdown]
# ## Encoding a piece: `apply_merges`
#
# A new piece is encoded by replaying the training: start from bytes, and join the pair that training learned first.
# Not the longest token, not the leftmost pair.


# %%
def apply_merges(piece: bytes, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """Return the tokens into which the merges join the bytes of `piece`.

    Args:
        piece: the bytes of one piece; may be empty.
        ranks: the rank of each pair that may be joined; the lower, the earlier it was learned. Ranks are distinct
            integers, not always consecutive, and the dict may be in any order. As in training, a token is made before
            it is a half of a later pair.

    Returns:
        The tokens in order; joined, they are `piece`. An empty piece has none. No two neighbours among them are a pair
        of `ranks`.

    Example:
        >>> apply_merges(b"abc", {(b"b", b"c"): 0, (b"a", b"b"): 1})
        [b'a', b'bc']

    Notes:
        Each step joins the pair of lowest rank among the neighbours present; where it occurs several times, from left
        to right without overlap, so "aaa" under (a, a) is aa, a.
    """
    raise NotImplementedError("apply_merges")


# %% [markdown]
# ## The tokenizer: `BPETokenizer`
#
# Text to ids and back. A special token is a control id: it stands for itself only where the caller allows it, since a
# user can type `<|end|>` too. The method `encode_iterable` is an exercise of its own: the same ids from a stream,
# without holding the stream.


# %%
class BPETokenizer:
    """Turn text into ids and back, with the GPT-2 pattern and merges learned by `train_bpe`.

    Args:
        vocab: the bytes of each id, distinct; holds the 256 single bytes, what each merge makes, and the special
            tokens in UTF-8. Ids may be any distinct integers of 0 or more, not only those that `train_bpe` gives.
        merges: the pairs in the order learned.
        special_tokens: the special tokens, distinct and non-empty; may be none.

    Example:
        >>> tokenizer = BPETokenizer(*train_bpe("no no no", 258, ["<|end|>"]), ["<|end|>"])
        >>> tokenizer.encode("no<|end|>", allowed_special={"<|end|>"})
        [256, 257]
        >>> tokenizer.encode("no<|end|>")
        [256, 60, 124, 101, 110, 100, 124, 62]
        >>> tokenizer.decode([256, 257])
        'no<|end|>'
    """

    def __init__(
        self, vocab: dict[int, bytes], merges: Sequence[tuple[bytes, bytes]], special_tokens: Sequence[str]
    ) -> None:
        """Keep what encoding and decoding look up; the arguments themselves are not changed."""
        raise NotImplementedError("BPETokenizer")

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Return the ids of `text`.

        Args:
            text: any string without lone surrogates; may be empty.
            allowed_special: the special tokens that become their one id wherever they stand in `text`. Where several
                begin at one place, the longest counts. All other text is ordinary, even if it looks like a special
                token.

        Returns:
            The ids in order. Each stretch between special tokens is cut by `pretokenize` by itself, each piece encoded
            by `apply_merges`.

        Raises:
            ValueError: if `allowed_special` names a token that is not in `special_tokens`.
        """
        raise NotImplementedError("BPETokenizer")

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; invalid UTF-8 becomes U+FFFD, as in `decode_utf8`.

        Args:
            ids: ids of the vocabulary, special tokens among them; may be empty, and may end inside a character.

        Raises:
            KeyError: if an id is not in the vocabulary.
        """
        raise NotImplementedError("BPETokenizer")

    def encode_iterable(self, chunks: Iterable[str], allowed_special: Collection[str] = frozenset()) -> Iterator[int]:
        """Yield the ids of the joined chunks, one by one, while the chunks come in.

        Args:
            chunks: strings of any length, also empty ones, cut anywhere: inside a word or a special token. Read once,
                in order.
            allowed_special: as in `encode`.

        Returns:
            An iterator over exactly the ids of `encode("".join(chunks), allowed_special)`.

        Raises:
            ValueError: as `encode` does, when the ids are read.

        Notes:
            Lazy: of what was read, only the last two pieces, a possible beginning of a special token and the newest
            chunk may still be held back, so memory does not grow with the stream. The tokenizer is not changed:
            several streams may be read in turn.
        """
        raise NotImplementedError("BPETokenizer")
