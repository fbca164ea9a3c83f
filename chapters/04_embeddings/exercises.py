# %% [markdown]
# # Chapter 4: Embeddings
#
# Eight exercises. By the end you have a table of vectors, a way to compare its rows, and a learner that fills it with
# meaning from nothing but which words stand near which. The teaching is in the notes (`README.md`); here stand only the
# promises that each function must keep.
#
# Sizes are named V words in the vocabulary, D width of a vector, B batch, T tokens, K negatives. The first exercise is
# numpy, all others are torch.

# %%
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# %% [markdown]
# ## 4.1 embedding_forward, embedding_backward
#
# An id picks a row of a table. That is all. The way back is where it gets interesting: a row that was picked three
# times must learn from all three.


# %%
def embedding_forward(W: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Look up the row of each id.

    Args:
        W: (V, D) table, floating.
        ids: int64 array of any shape, empty or without axes too; each id lies in 0 ... V - 1.

    Returns:
        A new array (*ids.shape, D), dtype of W: entry [..., :] is W[ids[...]].

    Example:
        >>> W = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        >>> embedding_forward(W, np.array([2, 0, 2]))
        array([[5., 6.],
               [1., 2.],
               [5., 6.]])

    Notes:
        Neither W nor ids is changed.
    """
    raise NotImplementedError("embedding_forward")


# %%
def embedding_backward(ids: np.ndarray, grad_out: np.ndarray, V: int, padding_idx: int | None = None) -> np.ndarray:
    """Compute the gradient of the loss with respect to the table W.

    Args:
        ids: int64 array of any shape: the ids of the forward pass.
        grad_out: (*ids.shape, D) gradient of the loss with respect to embedding_forward(W, ids), floating.
        V: number of rows of W.
        padding_idx: the id of padding, whose row must not learn; None if every row learns.

    Returns:
        (V, D), dtype of grad_out.

    Example:
        >>> embedding_backward(np.array([2, 0, 2]), np.array([[1.0], [10.0], [100.0]]), V=4).tolist()
        [[10.0], [0.0], [101.0], [0.0]]

    Notes:
        An id that occurs several times collects the *sum* of its gradients. A row that was not looked up gets exactly
        0, and so does the row padding_idx. Neither argument is changed.
    """
    raise NotImplementedError("embedding_backward")


# %% [markdown]
# ## 4.2 cosine_similarity_matrix
#
# How alike are two vectors, if only their directions count? One matrix holds the answer for every pair.


# %%
def cosine_similarity_matrix(A: Tensor, B: Tensor, eps: float = 1e-8) -> Tensor:
    """Compute the cosine of the angle between each row of A and each row of B.

    Args:
        A: (n, D), floating.
        B: (m, D), dtype of A.
        eps: a norm below eps is replaced by eps.

    Returns:
        (n, m), dtype of A: entry [i, j] is A[i] . B[j] / (max(|A[i]|, eps) * max(|B[j]|, eps)).

    Example:
        >>> cosine_similarity_matrix(torch.tensor([[3.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0], [-3.0, -4.0]]))
        tensor([[ 0.6000,  0.0000, -1.0000]])

    Notes:
        A row of zeros has similarity 0 with everything, not NaN. Rounding may take a result above 1 by the precision of
        the dtype; that is accepted. No input is changed.
    """
    raise NotImplementedError("cosine_similarity_matrix")


# %% [markdown]
# ## 4.3 nearest, analogy
#
# Which words point the same way? And if man goes to woman, where does king go?


# %%
def nearest(E: Tensor, q: Tensor, k: int, exclude: Iterable[int] = ()) -> list[int]:
    """List the k ids whose rows have the highest cosine similarity with q, the highest first.

    Args:
        E: (V, D) table, floating.
        q: (D,) vector, dtype of E; need not be a row of E, need not have length 1.
        k: how many ids, at least 1.
        exclude: ids that must not be listed, as a tuple, list or set.

    Returns:
        List of k ints; all ids that are not excluded, if there are fewer than k.

    Example:
        >>> E = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 9.0], [-1.0, 0.0]])
        >>> nearest(E, torch.tensor([2.0, 0.0]), k=2), nearest(E, torch.tensor([2.0, 0.0]), k=9, exclude=[0])
        ([0, 1], [1, 2, 3])

    Notes:
        The length of a row, or of q, changes nothing (from 1e-8 on). A row of zeros counts as similarity 0. An excluded
        id is never listed, however large k is. Ids of equal similarity may come in any order.
    """
    raise NotImplementedError("nearest")


# %%
def analogy(E: Tensor, a: int, b: int, c: int, k: int = 1) -> list[int]:
    """Answer "a is to b as c is to ?" by the ids nearest to b - a + c.

    Args:
        E: (V, D) table, floating.
        a, b, c: three ids, such as those of man, woman and king; they need not differ.
        k: how many answers.

    Returns:
        List of k ints, the best answer first; a, b and c are never among them.

    Example:
        >>> E = torch.tensor([[2.0, -1, 2], [-2, -1, 2], [2, 1, 2], [-2, 1, 2], [2, 2, -1]])
        >>> analogy(E, 0, 1, 2)
        [3]

    Notes:
        Every row is scaled to length 1 *before* the vectors are added, so that scaling a row of E changes nothing. A
        row of zeros stays zero. Answers are ranked by cosine similarity, as in nearest.
    """
    raise NotImplementedError("analogy")


# %% [markdown]
# ## 4.4 skipgram_pairs
#
# The training data costs nothing: every word is paired with the words that stand around it.


# %%
def skipgram_pairs(
    sentences: Sequence[Sequence[int]], window: int, dynamic: bool = False, rng: torch.Generator | None = None
) -> list[tuple[int, int]]:
    """Pair each word with the words at most `window` places away in its own sentence.

    Args:
        sentences: lists of ids; a list may be empty.
        window: the largest distance, at least 1.
        dynamic: draw a reach for each centre word, uniformly from 1 ... window, and use it on both sides of this
            centre instead of window.
        rng: draws the reaches if dynamic; None stands for torch's own generator.

    Returns:
        List of tuples (centre, context), in any order.

    Example:
        >>> sorted(skipgram_pairs([[7, 8, 9], [5]], window=1))
        [(7, 8), (8, 7), (8, 9), (9, 8)]

    Notes:
        A position is never paired with itself, but a word is paired with itself if it stands at two near positions.
        A pair that occurs several times is listed several times. Sentences do not see each other.
    """
    raise NotImplementedError("skipgram_pairs")


# %% [markdown]
# ## 4.5 sgns_loss
#
# Tell the true neighbour from K random words. That is logistic regression, and its loss is all the teaching that the
# vectors get.


# %%
def sgns_loss(center: Tensor, context: Tensor, negatives: Tensor) -> Tensor:
    """Compute the loss of skip-gram with negative sampling.

    Args:
        center: (B, D) vectors u of the centre words, floating.
        context: (B, D) vectors v of their true neighbours, dtype of center.
        negatives: (B, K, D) vectors n of random words, K >= 1, dtype of center.

    Returns:
        0-d tensor, dtype of center: -log sigmoid(u . v) - sum over k of log sigmoid(-u . n_k), averaged over the batch.

    Example:
        >>> sgns_loss(torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(5, 2, 3))
        tensor(2.0794)

    Notes:
        The negatives are summed, the batch is averaged. Finite, with finite gradients, for dot products of any finite
        size. Gradients reach all three inputs, so every step must be a torch operation. No input is changed.
    """
    raise NotImplementedError("sgns_loss")


# %% [markdown]
# ## 4.6 negative_sampling_probs
#
# Which random words? Frequent ones, but less often than their frequency asks for.


# %%
def negative_sampling_probs(counts: Tensor, power: float = 0.75) -> Tensor:
    """Turn word counts into the probabilities of drawing each word as a negative.

    Args:
        counts: (V,) floating, non-negative, not all zero: how often each word occurs.
        power: 1 keeps the frequencies, 0 makes all words that occur equally likely; may also be negative.

    Returns:
        (V,), dtype of counts: proportional to counts ** power, with sum 1.

    Example:
        >>> negative_sampling_probs(torch.tensor([1.0, 16.0, 0.0, 81.0]))
        tensor([0.0278, 0.2222, 0.0000, 0.7500])

    Notes:
        A word with count 0 has probability exactly 0, whatever the power. counts is not changed.
    """
    raise NotImplementedError("negative_sampling_probs")


# %% [markdown]
# ## 4.7 train_word2vec
#
# Everything comes together: pairs, negatives, loss. Start from noise and end with a table in which king - man + woman
# is queen. The recipe below is given; it is good for a vocabulary of a hundred words.

# %%
BATCH = 256  # pairs in one step
K = 5  # negatives for each pair
LR = 0.02  # learning rate of Adam


# %%
def train_word2vec(pairs: Sequence[tuple[int, int]], V: int, D: int, steps: int, rng: torch.Generator) -> Tensor:
    """Learn a vector for each word by skip-gram with negative sampling.

    Args:
        pairs: list of (centre, context) as skipgram_pairs gives it; not empty.
        V: number of words; ids lie in 0 ... V - 1, and not every id need occur.
        D: width of the vectors.
        steps: number of gradient steps, each on a batch of pairs.
        rng: draws everything that is random: start, batches, negatives.

    Returns:
        (V, D) float32 table of the centre vectors, detached from the graph.

    Example:
        >>> train_word2vec([(0, 1), (1, 0)], V=3, D=4, steps=2, rng=torch.Generator()).shape
        torch.Size([3, 4])

    Notes:
        The recipe: two tables, one for centres and one for contexts and negatives, both started uniformly in
        (-0.5 / D, 0.5 / D); a vector of length 1 or more is no small start. In each step draw BATCH pairs and K
        negatives for each, by negative_sampling_probs of how often each word is a context, and take one step of
        torch.optim.Adam at the rate LR on sgns_loss. Another recipe is right if its vectors are as good after as many
        steps: they solve 90 % of the analogies planted in a corpus of 64 words (1500 sentences of ten words, window 2,
        D = 16, steps = 400), and two runs agree on which words are alike. The same state of rng gives the same table,
        another state another one, whatever torch.manual_seed was. Pairs are not changed.
    """
    raise NotImplementedError("train_word2vec")


# %% [markdown]
# ## 4.8 mean_pool, contextual_similarity
#
# A table gives a word one vector for all its meanings. A model that reads gives it a new vector in every sentence.


# %%
def mean_pool(hidden: Tensor, mask: Tensor) -> Tensor:
    """Average the vectors of the real tokens of each sequence.

    Args:
        hidden: (B, T, D), floating.
        mask: (B, T) bool, True where the token is real and not padding; real tokens may stand anywhere in the row.

    Returns:
        (B, D), dtype of hidden.

    Example:
        >>> mean_pool(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]]))
        tensor([[2.]])

    Notes:
        Padding has no influence, whatever finite numbers stand there. A row without any real token gives zeros, not
        NaN. No input is changed.
    """
    raise NotImplementedError("mean_pool")


# %%
def contextual_similarity(
    model: Callable[[Tensor], Tensor], ids_a: Tensor, pos_a: int, ids_b: Tensor, pos_b: int
) -> float:
    """Compute the cosine similarity of two tokens, each in its own sentence, as the model sees them.

    Args:
        model: maps ids (B, T) int64 to hidden vectors (B, T, D), floating.
        ids_a: (Ta,) int64, the first sentence.
        pos_a: position of the token in the first sentence, 0 ... Ta - 1.
        ids_b: (Tb,) int64, the second sentence; Tb may differ from Ta.
        pos_b: position of the token in the second sentence.

    Returns:
        A float: the cosine of the model's vectors at the two positions.

    Example:
        >>> table = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
        >>> round(contextual_similarity(lambda ids: table[ids], torch.tensor([0, 1]), 1, torch.tensor([0]), 0), 4)
        0.6

    Notes:
        The model reads each whole sentence, on its own and without padding: a batch of one.
    """
    raise NotImplementedError("contextual_similarity")
