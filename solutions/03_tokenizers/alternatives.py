"""Right answers of chapter 3 written in other styles; a suite that fails one of them is wrong."""

import functools
import itertools
import math
import re
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch

from grader.testing import alternative, reference_of

reference = reference_of(__file__)
SPACE, INF = reference.SPACE, math.inf

# -- wordpiece_encode ----------------------------------------------------------------------------------------------


@alternative("wordpiece_encode", "recursion on the rest of the word")
def wordpiece_by_recursion(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    def rest_of(rest, mark):
        if not rest:
            return []
        for n in range(len(rest), 0, -1):
            if mark + rest[:n] in vocab:
                tail = rest_of(rest[n:], prefix)
                return None if tail is None else [mark + rest[:n], *tail]
        return None

    pieces = rest_of(word, "") if len(word) <= max_chars else None
    return [unk] if pieces is None else pieces


@alternative("wordpiece_encode", "the end moves back in a nested while loop, as in BERT's own code")
def wordpiece_by_two_loops(word, vocab, unk="[UNK]", prefix="##", max_chars=100):
    if len(word) > max_chars:
        return [unk]
    out, bad, start = [], False, 0
    while start < len(word):
        end, current = len(word), None
        while start < end:
            candidate = word[start:end] if start == 0 else prefix + word[start:end]
            if candidate in vocab:
                current = candidate
                break
            end -= 1
        if current is None:
            bad = True
            break
        out.append(current)
        start = end
    return [unk] if bad else out


# -- train_wordpiece -----------------------------------------------------------------------------------------------


@alternative("train_wordpiece", "exact fractions, tuples of symbols, a sort instead of a minimum")
def train_by_fractions(word_freqs, vocab_size):
    corpus = [(tuple("##" * (i > 0) + c for i, c in enumerate(word)), n) for word, n in word_freqs.items()]
    vocab = set(itertools.chain.from_iterable(symbols for symbols, _ in corpus))
    if len(vocab) > vocab_size:
        raise ValueError("vocab_size")
    merges = []
    while len(vocab) < vocab_size:
        f, pairs = defaultdict(int), defaultdict(int)
        for symbols, n in corpus:
            for symbol in symbols:
                f[symbol] += n
            for pair in zip(symbols, symbols[1:], strict=False):
                pairs[pair] += n
        if not pairs:
            break
        left, right = sorted(pairs, key=lambda p: (Fraction(-pairs[p], f[p[0]] * f[p[1]]), -pairs[p], p))[0]
        merges.append((left, right))
        vocab.add(left + right[2:])
        joined = []
        for symbols, n in corpus:
            out = []
            for symbol in symbols:
                # a joined symbol is longer than `left`, so it is never joined again in this pass
                if out and out[-1] == left and symbol == right:
                    out[-1] = left + right[2:]
                else:
                    out.append(symbol)
            joined.append((tuple(out), n))
        corpus = joined
    return merges


@alternative("train_wordpiece", "scores compared by multiplying crosswise, in whole numbers")
def train_by_whole_numbers(word_freqs, vocab_size):
    def better(a, b):
        # each is (count, product of the counts of the parts, pair)
        lhs, rhs = a[0] * b[1], b[0] * a[1]
        return (lhs, a[0]) > (rhs, b[0]) or ((lhs, a[0]) == (rhs, b[0]) and a[2] < b[2])

    words = [[list("##" * (i > 0) + c for i, c in enumerate(word)), word_freqs[word]] for word in word_freqs]
    words = [[["".join(symbol) for symbol in symbols], n] for symbols, n in words]
    vocab = {symbol for symbols, _ in words for symbol in symbols}
    if len(vocab) > vocab_size:
        raise ValueError("vocab_size")
    merges = []
    while len(vocab) < vocab_size:
        f, pairs = {}, {}
        for symbols, n in words:
            for i, symbol in enumerate(symbols):
                f[symbol] = f.get(symbol, 0) + n
                if i + 1 < len(symbols):
                    pairs[symbol, symbols[i + 1]] = pairs.get((symbol, symbols[i + 1]), 0) + n
        best = None
        for (a, b), n in pairs.items():
            entry = (n, f[a] * f[b], (a, b))
            if best is None or better(entry, best):
                best = entry
        if best is None:
            return merges
        a, b = best[2]
        merges.append((a, b))
        vocab.add(a + b[2:])
        for symbols, _ in words:
            i = 0
            while i + 1 < len(symbols):
                if (symbols[i], symbols[i + 1]) == (a, b):
                    symbols[i : i + 2] = [a + b[2:]]
                i += 1
    return merges


# -- viterbi_segment -----------------------------------------------------------------------------------------------


@alternative("viterbi_segment", "from right to left, so that the pieces come out in order")
def viterbi_backwards(text, logp, unk_logp=-20.0):
    n, longest = len(text), max([1, *map(len, logp)])
    best, jump = [-INF] * n + [0.0], [0] * n
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, min(n, i + longest) + 1):
            piece = text[i:j]
            if piece in logp:
                value = logp[piece]
            elif j == i + 1:
                value = unk_logp
            else:
                continue
            if best[j] + value >= best[i]:
                best[i], jump[i] = best[j] + value, j
    pieces, i = [], 0
    while i < n:
        pieces.append(text[i : jump[i]])
        i = jump[i]
    return pieces


@alternative("viterbi_segment", "pushing forward from each place, every substring looked up, numpy for the table")
def viterbi_pushing(text, logp, unk_logp=-20.0):
    n = len(text)
    best = np.full(n + 1, -np.inf)
    best[0] = 0.0
    back = np.zeros(n + 1, dtype=int)
    for i in range(n):
        for j in range(i + 1, n + 1):
            value = logp.get(text[i:j])
            if value is None and j == i + 1:
                value = unk_logp
            if value is not None and best[i] + value > best[j]:
                best[j], back[j] = best[i] + value, i
    places = [n]
    while places[-1] > 0:
        places.append(int(back[places[-1]]))
    places.reverse()
    return [text[a:b] for a, b in itertools.pairwise(places)]


# -- unigram_em_step -----------------------------------------------------------------------------------------------


@alternative("unigram_em_step", "the expected uses as the gradient of the log-likelihood, by autograd")
def em_by_autograd(word_freqs, logp):
    longest = max(map(len, logp), default=0)
    leaves = {p: torch.tensor(v, dtype=torch.float64, requires_grad=True) for p, v in logp.items() if v > -INF}
    total = torch.zeros((), dtype=torch.float64)
    for word, n in word_freqs.items():
        if n == 0:
            continue
        alpha = [torch.zeros((), dtype=torch.float64)]
        for j in range(1, len(word) + 1):
            spans = [(i, word[i:j]) for i in range(max(0, j - longest), j)]
            terms = [alpha[i] + leaves[p] for i, p in spans if p in leaves and alpha[i] is not None]
            alpha.append(torch.logsumexp(torch.stack(terms), 0) if terms else None)
        if alpha[-1] is None:
            raise ValueError(word)
        total = total + n * alpha[-1]
    if not total.requires_grad:
        raise ValueError("no words")
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    e = {p: 0.0 if g is None else float(g) for p, g in zip(leaves, gradients, strict=True)}
    s = sum(e.values())
    return {p: math.log(e[p] / s) if e.get(p) else -INF for p in logp}


@alternative("unigram_em_step", "plain products in decimal numbers, whose exponents do not underflow")
def em_by_decimals(word_freqs, logp):
    p = {piece: Decimal(value).exp() if value > -INF else Decimal(0) for piece, value in logp.items()}
    e = dict.fromkeys(logp, Decimal(0))
    for word, freq in word_freqs.items():
        if freq < 1:
            continue
        n = len(word)
        forward, backward = [Decimal(0)] * (n + 1), [Decimal(0)] * (n + 1)
        forward[0] = backward[n] = Decimal(1)
        spans = [(i, j) for i in range(n) for j in range(i + 1, n + 1) if word[i:j] in p]
        for i, j in spans:
            forward[j] += forward[i] * p[word[i:j]]
        for i, j in reversed(spans):
            backward[i] += p[word[i:j]] * backward[j]
        if forward[n] == 0:
            raise ValueError(f"cannot cut {word}")
        for i, j in spans:
            e[word[i:j]] += freq * forward[i] * p[word[i:j]] * backward[j] / forward[n]
    total = sum(e.values())
    if total == 0:
        raise ValueError("nothing to count")
    return {piece: float((count / total).ln()) if count else float("-inf") for piece, count in e.items()}


@alternative("unigram_em_step", "numpy's logaddexp, word by word, with the counts kept as logarithms")
def em_by_logaddexp(word_freqs, logp):
    log_e = {piece: -np.inf for piece in logp}
    for word, freq in word_freqs.items():
        if freq == 0:
            continue
        n = len(word)
        alpha, beta = np.full(n + 1, -np.inf), np.full(n + 1, -np.inf)
        alpha[0] = beta[n] = 0.0
        for j in range(1, n + 1):
            for i in range(j):
                alpha[j] = np.logaddexp(alpha[j], alpha[i] + logp.get(word[i:j], -np.inf))
        for i in range(n - 1, -1, -1):
            for j in range(i + 1, n + 1):
                if word[i:j] in logp:
                    beta[i] = np.logaddexp(beta[i], logp[word[i:j]] + beta[j])
        if np.isneginf(alpha[n]):
            raise ValueError("no way to cut")
        for i in range(n):
            for j in range(i + 1, n + 1):
                piece = word[i:j]
                if piece in logp:
                    share = alpha[i] + logp[piece] + beta[j] - alpha[n] + math.log(freq)
                    log_e[piece] = np.logaddexp(log_e[piece], share)
    total = functools.reduce(np.logaddexp, log_e.values(), -np.inf)
    if np.isneginf(total):
        raise ValueError("no words")
    return {piece: float(value - total) for piece, value in log_e.items()}


# -- prune_vocab ---------------------------------------------------------------------------------------------------


@alternative("prune_vocab", "plain probabilities, memoised recursion, losses as differences")
def prune_by_losses(word_freqs, logp, keep):
    n_single = sum(len(piece) == 1 for piece in logp)
    if keep < n_single or keep > len(logp):
        raise ValueError("keep")

    def likelihood(p):
        total_p = sum(p.values())

        @functools.cache
        def ways(rest):
            if not rest:
                return 1.0
            return sum(p.get(rest[:k], 0.0) / total_p * ways(rest[k:]) for k in range(1, len(rest) + 1))

        return sum(freq * math.log(ways(word)) for word, freq in word_freqs.items() if freq > 0)

    p = {piece: math.exp(value) for piece, value in logp.items()}
    full = likelihood(p)
    losses = []
    for piece in p:
        if len(piece) > 1:
            smaller = dict(p)
            del smaller[piece]
            losses.append((full - likelihood(smaller), piece))
    losses.sort()
    gone = [piece for _, piece in losses][: len(p) - keep]
    z = math.fsum(p[piece] for piece in p if piece not in gone)
    return {piece: logp[piece] - math.log(z) for piece in logp if piece not in gone}


@alternative("prune_vocab", "all reduced vocabularies at once, a row of a torch tensor each")
def prune_by_torch(word_freqs, logp, keep):
    names = list(logp)
    values = torch.tensor([logp[name] for name in names], dtype=torch.float64)
    longer = [k for k, name in enumerate(names) if len(name) > 1]
    if not len(names) - len(longer) <= keep <= len(names):
        raise ValueError("keep")
    # all models at once: one row for each piece left out
    rows = values.repeat(max(1, len(longer)), 1)
    for row, k in enumerate(longer):
        rows[row, k] = -INF
    rows = rows - torch.logsumexp(rows, 1, keepdim=True)
    index = {name: k for k, name in enumerate(names)}
    left = torch.zeros(len(rows), dtype=torch.float64)
    for word, freq in word_freqs.items():
        if not freq:
            continue
        alpha = [torch.zeros(len(rows), dtype=torch.float64)]
        for j in range(1, len(word) + 1):
            terms = [alpha[i] + rows[:, index[word[i:j]]] for i in range(j) if word[i:j] in index]
            alpha.append(torch.logsumexp(torch.stack(terms), 0))
        left = left + freq * alpha[-1]
    order = torch.argsort(left[: len(longer)], descending=True).tolist()
    gone = {names[longer[k]] for k in order[: len(names) - keep]}
    stay = [k for k, name in enumerate(names) if name not in gone]
    new = values[stay] - torch.logsumexp(values[stay], 0)
    return dict(zip([names[k] for k in stay], new.tolist(), strict=True))


# -- sp_encode, sp_decode ------------------------------------------------------------------------------------------


@alternative("sp_encode", "a private sign stands for the sign of the text, and comes out as unknown")
def encode_with_a_stand_in(text, pieces):
    if text == "":
        return []
    used = set(text).union(*pieces)
    stand_in = next(chr(c) for c in range(0xE000, 0xF8FF) if chr(c) not in used)
    marked = SPACE + text.replace(SPACE, stand_in).replace(" ", SPACE)
    out = []
    for piece in reference.viterbi_segment(marked, pieces):
        if piece in pieces:
            out.append(piece)
        else:
            out.extend("<0x" + format(byte, "02X") + ">" for byte in piece.replace(stand_in, SPACE).encode("utf-8"))
    return out


@alternative("sp_encode", "runs of byte tokens found with itertools.groupby", replaces="sp_decode")
def decode_by_runs(pieces):
    byte = re.compile(r"<0x([0-9A-F]{2})>")
    text = ""
    for is_byte, run in itertools.groupby(pieces, key=lambda piece: byte.fullmatch(piece) is not None):
        if is_byte:
            text += bytes.fromhex("".join(byte.fullmatch(piece)[1] for piece in run)).decode("utf-8", "replace")
        else:
            text += "".join(run).replace(SPACE, " ")
    return text[1:] if len(pieces) > 0 and pieces[0][:1] == SPACE else text


# -- fertility, token_premium --------------------------------------------------------------------------------------


@alternative("fertility", "loops and a chain of ifs")
def fertility_by_loops(encode, texts, unit="byte"):
    tokens, number = 0, 0
    for text in texts:
        if unit == "byte":
            number += len(bytes(text, "utf-8"))
        elif unit == "char":
            number += sum(1 for _ in text)
        elif unit == "word":
            number += len(re.findall(r"\S+", text))
        else:
            raise ValueError(unit)
        tokens += len(list(encode(text)))
    if number == 0:
        raise ValueError("no units")
    return tokens / number


@alternative("fertility", "numpy sums over two columns", replaces="token_premium")
def premium_by_numpy(encode, parallel):
    lengths = np.array([[len(encode(a)), len(encode(b))] for a, b in parallel]).reshape(-1, 2)
    first, second = lengths.sum(0)
    if first == 0:
        raise ValueError("no tokens")
    return float(second / first)


# -- quirks --------------------------------------------------------------------------------------------------------


@alternative("quirks", "characters one by one", replaces="hidden_letters")
def letters_one_by_one(tokens, letter):
    hidden = 0
    for token in tokens:
        if len(token) >= 2:
            for character in token:
                if character == letter:
                    hidden += 1
    return hidden


@alternative("quirks", "the number reversed, cut and reversed again", replaces="digit_groups")
def groups_by_reversal(number, k=3, direction="l2r"):
    if k <= 0:
        raise ValueError("k")
    if direction == "l2r":
        return re.findall(f".{{1,{k}}}", number)
    if direction == "r2l":
        return [group[::-1] for group in reversed(re.findall(f".{{1,{k}}}", number[::-1]))]
    raise ValueError("direction")


@alternative("quirks", "numpy's mean", replaces="mismatch_rate")
def rate_by_numpy(ids, tok_a, tok_b):
    if not ids:
        return 0
    return float(np.mean([tok_a[i] != tok_b.get(i, None) for i in ids]))


@alternative("quirks", "numpy's quantile over hypot-like sums", replaces="undertrained_tokens")
def undertrained_by_numpy(W_init, W_now, q):
    if q < 0 or q > 1:
        raise ValueError("q")
    moved = np.sqrt(((W_now.numpy() - W_init.numpy()) ** 2).sum(axis=1))
    return [int(i) for i in np.where(moved < np.quantile(moved, q))[0]]


@alternative("quirks", "a sorted list and the interpolation by hand", replaces="undertrained_tokens")
def undertrained_by_sorting(W_init, W_now, q):
    if not 0.0 <= q <= 1.0:
        raise ValueError("q")
    moved = [math.dist(a, b) for a, b in zip(W_init.tolist(), W_now.tolist(), strict=True)]
    ranked, place = sorted(moved), q * (len(moved) - 1)
    low = math.floor(place)
    high = min(low + 1, len(moved) - 1)
    limit = ranked[low] + (place - low) * (ranked[high] - ranked[low])
    return [i for i, distance in enumerate(moved) if distance < limit]
