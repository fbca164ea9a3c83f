# %% [markdown]
# # Chapter 24: Multimodal
#
# Eight exercises. By the end you have turned images, sound and video into tokens, trained a picture and a caption to
# meet in one space, and put an image into the middle of a sentence. The teaching is in the notes (`README.md`); here
# stand only the promises that each function must keep.
#
# Axes are named B batch, C channels, H height, W width, T frames of a video, N tokens, D width of an embedding. Images
# are `(B, C, H, W)`, as everywhere in PyTorch. In a boolean mask **True means "may attend"**, or "is real".

# %%
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# %% [markdown]
# ## 24.1 patchify, unpatchify, patch_embed
#
# A transformer reads a row of tokens. Cut the image into squares, and let each square be a token.


# %%
def patchify(images: Tensor, p: int) -> Tensor:
    """Cut images into squares of p by p pixels and flatten each of them.

    Args:
        images: (B, C, H, W), any dtype; it need not be contiguous.
        p: the side of a patch.

    Returns:
        (B, N, C * p * p) with N = (H / p) * (W / p), dtype of images.

    Raises:
        ValueError: if p does not divide H, or does not divide W.

    Example:
        >>> patchify(torch.arange(8).reshape(1, 1, 2, 4), 2)
        tensor([[[0, 1, 4, 5],
                 [2, 3, 6, 7]]])

    Notes:
        Patches come row by row, as you read: patch number i * (W / p) + j stands in row i and column j of the grid.
        Within a patch the order is channel, then row, then column: entry c * p * p + y * p + x. So the weight
        (D, C, p, p) of a convolution, flattened to (D, C * p * p), fits as it is.
    """
    ### BEGIN SOLUTION
    B, C, H, W = images.shape
    if H % p or W % p:
        raise ValueError(f"p={p} does not divide the image of {H} by {W}")
    grid = images.reshape(B, C, H // p, p, W // p, p)  # an axis of length H becomes (rows of the grid, rows of a patch)
    grid = grid.permute(0, 2, 4, 1, 3, 5)  # (B, H / p, W / p, C, p, p)
    return grid.reshape(B, -1, C * p * p)  # (B, N, C * p * p)
    ### END SOLUTION


# %%
def unpatchify(patches: Tensor, p: int, H: int, W: int) -> Tensor:
    """Put the patches back: the inverse of `patchify` for images of H by W pixels.

    Args:
        patches: (B, N, C * p * p), any dtype, in the order of `patchify`; N = (H / p) * (W / p).
        p: the side of a patch.
        H: the height of the images, a multiple of p.
        W: the width of the images, a multiple of p.

    Returns:
        (B, C, H, W), dtype of patches, so that unpatchify(patchify(images, p), p, H, W) equals images.

    Example:
        >>> unpatchify(torch.tensor([[[0, 1, 4, 5], [2, 3, 6, 7]]]), 2, 2, 4)
        tensor([[[[0, 1, 2, 3],
                  [4, 5, 6, 7]]]])
    """
    ### BEGIN SOLUTION
    B = patches.shape[0]
    grid = patches.reshape(B, H // p, W // p, -1, p, p)  # (B, H / p, W / p, C, p, p)
    grid = grid.permute(0, 3, 1, 4, 2, 5)  # (B, C, H / p, p, W / p, p)
    return grid.reshape(B, -1, H, W)  # (B, C, H, W)
    ### END SOLUTION


# %%
def patch_embed(images: Tensor, W: Tensor, b: Tensor, p: int) -> Tensor:
    """Map each patch to a vector of width D by one linear map, the same for all patches.

    Args:
        images: (B, C, H, W), floating; p divides H and W.
        W: (D, C, p, p) weight, dtype of images, laid out as the weight of a convolution.
        b: (D,) bias, dtype of images.
        p: the side of a patch.

    Returns:
        (B, N, D) embeddings, patches in the order of `patchify`.

    Example:
        >>> patch_embed(torch.arange(8.0).reshape(1, 1, 2, 4), torch.ones(1, 1, 2, 2), torch.tensor([0.5]), 2)
        tensor([[[10.5000],
                 [18.5000]]])

    Notes:
        It is what a convolution with kernel p and stride p computes, with the grid laid out as a row of tokens; do it
        without one.
    """
    ### BEGIN SOLUTION
    return patchify(images, p) @ W.flatten(1).T + b  # (B, N, D)
    ### END SOLUTION


# %% [markdown]
# ## 24.2 ViT
#
# A vision transformer is the encoder that you know, fed with patches. The block is given; what is new is around it.

# %%
TINY = {"size": (8, 8), "channels": 1, "p": 4, "D": 32, "depth": 2, "heads": 4, "classes": 10}


# %%
class Block(nn.Module):
    """A transformer block: attention, then a feed-forward network, each on the normalised stream. It is given."""

    def __init__(self, D: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (B, T, D) to (B, T, D). mask: (T, T) bool, True = may attend; None: all may attend to all."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, T, hd)
        gathered = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)  # (B, T, D)
        x = x + self.out(gathered)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


# %%
class ViT(nn.Module):
    """Classify images: patches, a class token in front, positions, blocks without a mask, one head.

    Args:
        cfg: a dict such as TINY; "size" is (H, W), "depth" the number of blocks. It is not changed.

    Raises:
        ValueError: if p does not divide H, or does not divide W.

    Example:
        >>> ViT(TINY)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])

    Notes:
        With N = (H / p) * (W / p), parameters and children are exactly: patch, an nn.Linear(C * p * p, D); cls, an
        nn.Parameter (1, 1, D); positions, an nn.Parameter (1, 1 + N, D); blocks, an nn.ModuleList of Block(D, heads);
        norm, an nn.LayerNorm(D); head, an nn.Linear(D, classes). The first values of cls and positions are up to you.
        The class token stands first and has positions[:, 0]; the patches follow in the order of `patchify`. The logits
        are head(norm(x)) of the class token alone, after all blocks. Every token attends to every token.
    """

    def __init__(self, cfg: dict) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        (H, W), p, D = cfg["size"], cfg["p"], cfg["D"]
        if H % p or W % p:
            raise ValueError(f"p={p} does not divide the image of {H} by {W}")
        self.p, self.grid = p, (H // p, W // p)
        self.patch = nn.Linear(cfg["channels"] * p * p, D)
        self.cls = nn.Parameter(0.02 * torch.randn(1, 1, D))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + self.grid[0] * self.grid[1], D))
        self.blocks = nn.ModuleList(Block(D, cfg["heads"]) for _ in range(cfg["depth"]))
        self.norm = nn.LayerNorm(D)
        self.head = nn.Linear(D, cfg["classes"])
        ### END SOLUTION

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) to logits (B, classes).

        H and W may differ from cfg["size"], as long as p divides them. Then the positions of the patches, laid out as
        the grid that they were learned on, are stretched to the new grid by F.interpolate(..., mode="bilinear",
        align_corners=False); the position of the class token stays as it is. No parameter is changed by that.
        """
        ### BEGIN SOLUTION
        x = self.patch(patchify(images, self.p))  # (B, N, D)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)
        x = x + self.positions_for(images.shape[-2] // self.p, images.shape[-1] // self.p)
        for block in self.blocks:
            x = block(x)  # no mask: the future of a patch is only its right and below
        return self.head(self.norm(x[:, 0]))  # (B, classes)

    def positions_for(self, rows: int, columns: int) -> Tensor:
        """Give the positions (1, 1 + rows * columns, D) for a grid of another size."""
        if (rows, columns) == self.grid:
            return self.positions
        first, others = self.positions[:, :1], self.positions[:, 1:]
        image = others.unflatten(1, self.grid).permute(0, 3, 1, 2)  # (1, D, rows, columns): an image of D channels
        image = F.interpolate(image, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([first, image.flatten(2).mT], dim=1)
        ### END SOLUTION


# %% [markdown]
# ## 24.3 clip_loss
#
# A batch of pictures and their captions is a classification problem in both directions: which caption, which picture?


# %%
def clip_loss(img: Tensor, txt: Tensor, log_scale: Tensor) -> Tensor:
    """Compute CLIP's symmetric contrastive loss of B pairs of image and text.

    Args:
        img: (B, D) features of the images, floating, of any length but zero.
        txt: (B, D) features of the texts, dtype of img; row i belongs to row i of img, all others do not.
        log_scale: () tensor, dtype of img, the natural logarithm of the scale.

    Returns:
        () tensor, dtype of img: the mean of two cross-entropies, one of each image choosing among the B texts, one of
        each text choosing among the B images, each averaged over the batch.

    Example:
        >>> clip_loss(3 * torch.eye(2), torch.eye(2), torch.tensor(0.0))
        tensor(0.3133)

    Notes:
        The logits are cosine similarities times the scale exp(log_scale), or times 100 if that is less. Gradients reach
        img and txt, and log_scale as long as its scale is below 100. No input is changed. It is called in training,
        hundreds of times with 64 pairs, so work on whole tensors rather than pair by pair.
    """
    ### BEGIN SOLUTION
    scale = log_scale.exp().clamp(max=100)
    logits = scale * F.normalize(img, dim=-1) @ F.normalize(txt, dim=-1).T  # (B, B), row = image, column = text
    pair = torch.arange(len(img), device=img.device)  # the right answer of row i is column i
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2
    ### END SOLUTION


# %% [markdown]
# ## 24.4 zero_shot, retrieval_at_k
#
# A classifier without a single labelled image: write each class as a sentence, and ask which sentence is nearest.


# %%
def zero_shot(
    img: Tensor,
    class_prompts: Sequence[str],
    txt_encoder: Callable[[list[str]], Tensor],
    templates: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Classify images by the class whose description is nearest in direction.

    Args:
        img: (B, D) features of the images, floating, of any length but zero.
        class_prompts: the K names of the classes, such as "red circle".
        txt_encoder: maps a list of n >= 1 texts to their features (n, D), dtype of img, of any length but zero; what a
            text gets does not depend on the others. It may be called once, or many times.
        templates: M >= 1 sentences, each with one "{}" for the name of a class.

    Returns:
        The tuple (labels, scores): labels (B,) int64, the number of the class with the highest score; scores (B, K),
        dtype of img, the cosine similarity of each image and each class.

    Example:
        >>> features = {"a cat": [3.0, 0.0], "a dog": [0.0, 1.0]}
        >>> encode = lambda texts: torch.tensor([features[text] for text in texts])
        >>> zero_shot(torch.tensor([[1.0, 2.0]]), ["cat", "dog"], encode, ["a {}"])
        (tensor([1]), tensor([[0.4472, 0.8944]]))

    Notes:
        The direction of a class: fill its name into every template, bring each of the M features to length 1, take
        their mean, and bring that to length 1 again. No input is changed.
    """
    ### BEGIN SOLUTION
    classes = []
    for name in class_prompts:
        features = txt_encoder([template.replace("{}", name) for template in templates])  # (M, D)
        classes.append(F.normalize(features, dim=-1).mean(dim=0))
    directions = F.normalize(torch.stack(classes), dim=-1)  # (K, D): a mean of unit vectors is shorter than 1
    scores = F.normalize(img, dim=-1) @ directions.T  # (B, K)
    return scores.argmax(dim=-1), scores
    ### END SOLUTION


# %%
def retrieval_at_k(img: Tensor, txt: Tensor, k: int) -> tuple[float, float]:
    """Measure how often the partner is among the k nearest, from images to texts and from texts to images.

    Args:
        img: (B, D) features of the images, floating, of any length but zero.
        txt: (B, D) features of the texts, dtype of img; row i belongs to row i of img.
        k: at least 1; it may exceed B.

    Returns:
        The tuple (image_to_text, text_to_image) of floats: the share of images whose own text is among the k texts of
        highest cosine similarity to them, and the share of texts whose own image is among the k nearest images.

    Example:
        >>> img, txt = torch.tensor([[1.0, 0.0], [1.0, 0.5]]), torch.tensor([[2.0, 1.0], [1.0, 0.3]])
        >>> retrieval_at_k(img, txt, 1)
        (0.0, 0.5)

    Notes:
        No two texts are equally near to an image, and no two images equally near to a text.
    """
    ### BEGIN SOLUTION
    similarity = F.normalize(img, dim=-1) @ F.normalize(txt, dim=-1).T  # (B, B)
    own = similarity.diagonal()
    nearer_texts = (similarity > own[:, None]).sum(dim=1)  # per image: how many texts beat its own
    nearer_images = (similarity > own[None, :]).sum(dim=0)  # per text: how many images beat its own
    return (nearer_texts < k).double().mean().item(), (nearer_images < k).double().mean().item()
    ### END SOLUTION


# %% [markdown]
# ## 24.5 vector_quantize, code_perplexity, ema_update
#
# An image token can also be a number, like a word: the number of the nearest entry in a learned dictionary.


# %%
def vector_quantize(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Replace each vector by the nearest code, and let gradients pass as if nothing had happened.

    Args:
        z: (..., D) vectors, floating, any number of leading axes.
        codebook: (K, D) codes, dtype of z.

    Returns:
        The tuple (zq, idx): zq (..., D), dtype of z, the nearest code of each vector; idx (...), int64, its row in the
        codebook.

    Example:
        >>> zq, idx = vector_quantize(torch.tensor([[0.9, 0.2], [4.0, 4.0]]), torch.tensor([[0.0, 0.0], [1.0, 0.0]]))
        >>> zq.tolist(), idx.tolist()
        ([[1.0, 0.0], [1.0, 0.0]], [1, 1])

    Notes:
        Nearest in Euclidean distance; of equally near codes the one with the lowest row. The gradient with respect to
        z is the gradient with respect to zq, unchanged (straight-through); the codebook gets no gradient from zq
        (None or zeros): it learns by another path. The value of zq is the code, up to rounding. No input is changed.
    """
    ### BEGIN SOLUTION
    distance = (z[..., None, :] - codebook).square().sum(dim=-1)  # (..., K)
    idx = distance.argmin(dim=-1)  # (...), the first of equals
    codes = codebook[idx]  # (..., D)
    return z + (codes - z).detach(), idx  # the value of the code, the gradient of z
    ### END SOLUTION


# %%
def code_perplexity(idx: Tensor, K: int) -> float:
    """Say how many codes are in use, as the exponential of the entropy of their shares.

    Args:
        idx: int64 of any shape, at least one entry, from 0 to K - 1.
        K: size of the codebook.

    Returns:
        A float from 1 (one code takes all) to K (all equally often).

    Example:
        >>> round(code_perplexity(torch.tensor([[0, 0], [3, 3]]), 5), 6)
        2.0
    """
    ### BEGIN SOLUTION
    share = torch.bincount(idx.flatten(), minlength=K).double() / idx.numel()  # (K,)
    return math.exp(-torch.xlogy(share, share).sum().item())  # a code that is never used adds 0
    ### END SOLUTION


# %%
def ema_update(codebook: Tensor, z: Tensor, idx: Tensor, decay: float) -> Tensor:
    """Move each code towards the mean of the vectors that chose it.

    Args:
        codebook: (K, D) codes, floating.
        z: (..., D) vectors, dtype of codebook.
        idx: (...) int64, the code that each vector chose.
        decay: from 0 to 1, the weight of the old code.

    Returns:
        (K, D), dtype of codebook: decay * code + (1 - decay) * mean; a code that no vector chose stays as it is.

    Example:
        >>> ema_update(torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 0.75)
        tensor([[0.5000],
                [9.0000]])

    Notes:
        No input is changed.
    """
    ### BEGIN SOLUTION
    K, D = codebook.shape
    chosen = F.one_hot(idx.flatten(), K).to(codebook.dtype)  # (n, K)
    counts = chosen.sum(dim=0)[:, None]  # (K, 1)
    means = chosen.T @ z.reshape(-1, D) / counts.clamp(min=1)  # (K, D)
    return torch.where(counts > 0, decay * codebook + (1 - decay) * means, codebook)
    ### END SOLUTION


# %% [markdown]
# ## 24.6 splice_image_tokens, splice_labels, Projector
#
# How an image gets into a sentence: a placeholder among the ids gives way to as many rows as the image has tokens.


# %%
def splice_image_tokens(
    ids: list[list[int]], image_embeds: list[list[Tensor]], image_id: int, embed: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Replace each placeholder by the rows of its image, and embed the text around it.

    Args:
        ids: B lists of token ids, none of them empty; every entry equal to image_id is the placeholder of one image.
        image_embeds: for each of the B lists its images in the order of their placeholders, each (N_i, D), N_i >= 1.
        image_id: the placeholder; it may lie outside the vocabulary (it is -200 in LLaVA).
        embed: maps (n,) int64 ids of text to (n, D) embeddings, for any n >= 0; it must never see image_id.

    Returns:
        The tuple (embeds, mask, positions), where S is the length of the longest sequence after the splicing:
        embeds (B, S, D), dtype of the embeddings; mask (B, S) bool, True = a real row, False = padding;
        positions (B, S) int64: the place in ids[b] that the row comes from, so all rows of an image have the same.

    Raises:
        ValueError: if a list has not as many placeholders as images.

    Example:
        >>> image = torch.tensor([[-1.0], [-2.0]])
        >>> spliced = splice_image_tokens([[7, -200, 8]], [[image]], -200, lambda text: text[:, None].float())
        >>> [x.flatten().tolist() for x in spliced]
        [[7.0, -1.0, -2.0, 8.0], [True, True, True, True], [0, 1, 1, 2]]

    Notes:
        Shorter sequences are padded on the right; there embeds is 0 and positions is -1. Gradients reach the images
        and what embed returns. No input is changed.
    """
    ### BEGIN SOLUTION
    rows, places = [], []
    for sequence, images in zip(ids, image_embeds, strict=True):
        if sequence.count(image_id) != len(images):
            raise ValueError(f"{sequence.count(image_id)} placeholders, but {len(images)} images")
        text = iter(embed(torch.tensor([token for token in sequence if token != image_id], dtype=torch.int64)))
        waiting = iter(images)
        pieces = [next(waiting) if token == image_id else next(text)[None] for token in sequence]  # each (N_i, D)
        rows.append(torch.cat(pieces))
        places.append(torch.tensor([place for place, piece in enumerate(pieces) for _ in piece]))
    embeds = nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (B, S, D)
    positions = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)  # (B, S)
    return embeds, positions >= 0, positions
    ### END SOLUTION


# %%
def splice_labels(ids: list[list[int]], labels: list[list[int]], positions: Tensor, image_id: int) -> Tensor:
    """Stretch labels to the rows that `splice_image_tokens` made: text keeps its label, images get none.

    Args:
        ids: B lists of token ids, as given to `splice_image_tokens`.
        labels: B lists as long as those of ids; a label stands at the place of its own token, not yet shifted.
        positions: (B, S) int64, as returned by `splice_image_tokens`.
        image_id: the placeholder.

    Returns:
        (B, S) int64: the label of the place that a row comes from; -100 on the rows of images and in the padding.

    Example:
        >>> splice_labels([[7, -200, 8], [9]], [[-100, 5, 8], [9]], torch.tensor([[0, 1, 1, 2], [0, -1, -1, -1]]), -200)
        tensor([[-100, -100, -100,    8],
                [   9, -100, -100, -100]])

    Notes:
        The label of a placeholder counts for nothing, whatever it is.
    """
    ### BEGIN SOLUTION
    spliced = torch.full_like(positions, -100)
    for b, row in enumerate(positions.tolist()):
        for s, place in enumerate(row):
            if place >= 0 and ids[b][place] != image_id:
                spliced[b, s] = labels[b][place]
    return spliced
    ### END SOLUTION


# %%
class Projector(nn.Module):
    """Map the vectors of a vision encoder into the space of a language model's embeddings.

    Args:
        d_image: width of the vision encoder.
        D: width of the language model.

    Example:
        >>> Projector(6, 4)(torch.zeros(2, 9, 6)).shape
        torch.Size([2, 9, 4])

    Notes:
        Its only children are fc1, an nn.Linear(d_image, D), and fc2, an nn.Linear(D, D), both with bias; between them
        stands the exact GELU, as F.gelu computes by default. It takes (..., d_image) and gives (..., D).
    """

    def __init__(self, d_image: int, D: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.fc1 = nn.Linear(d_image, D)
        self.fc2 = nn.Linear(D, D)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Map x (..., d_image) to (..., D)."""
        ### BEGIN SOLUTION
        return self.fc2(F.gelu(self.fc1(x)))
        ### END SOLUTION


# %% [markdown]
# ## 24.7 stft_power, mel_filterbank, log_mel
#
# Sound is a row of numbers, far too long to be tokens. Turn it into a picture first: time across, pitch upwards.


# %%
def stft_power(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """Compute the power of each frequency in each short frame of a sound.

    Args:
        x: (..., samples), floating, any number of leading axes; samples >= n_fft.
        n_fft: samples a frame.
        hop: samples from the start of one frame to the start of the next.

    Returns:
        (..., n_fft // 2 + 1, frames), dtype of x, with frames = 1 + (samples - n_fft) // hop.

    Raises:
        ValueError: if samples < n_fft.

    Example:
        >>> stft_power(torch.tensor([9.0, 0.0, 1.0, 2.0, 2.0, 2.0, 7.0]), 4, 2)
        tensor([[ 4., 16.],
                [ 2.,  4.],
                [ 0.,  0.]])

    Notes:
        Frame f holds the samples f * hop to f * hop + n_fft - 1. The sound is not padded, and samples at the end that
        fill no frame are left out. Each frame is multiplied by the periodic Hann window, 1/2 - cos(2 pi n / n_fft) / 2
        for n = 0 ... n_fft - 1, then Fourier transformed; power is the squared absolute value, not divided by anything.
    """
    ### BEGIN SOLUTION
    if x.shape[-1] < n_fft:
        raise ValueError(f"{x.shape[-1]} samples do not fill a frame of {n_fft}")
    frames = x.unfold(-1, n_fft, hop)  # (..., frames, n_fft)
    window = torch.hann_window(n_fft, periodic=True, dtype=x.dtype, device=x.device)
    X = torch.fft.rfft(frames * window)  # (..., frames, n_fft // 2 + 1), complex
    return (X.real.square() + X.imag.square()).mT  # (..., n_fft // 2 + 1, frames)
    ### END SOLUTION


# %%
def mel_filterbank(n_mels: int, n_fft: int, sr: int) -> Tensor:
    """Build triangles over the bins of a spectrum, evenly spaced as the ear hears pitch.

    Args:
        n_mels: number of triangles.
        n_fft: samples a frame; bin k stands for the frequency k * sr / n_fft.
        sr: samples a second.

    Returns:
        (n_mels, n_fft // 2 + 1), float64.

    Example:
        >>> mel_filterbank(2, 8, 8000).round(decimals=3)
        tensor([[0.0000, 0.6760, 0.0000, 0.0000, 0.0000],
                [0.0000, 0.3240, 0.9060, 0.4530, 0.0000]], dtype=torch.float64)

    Notes:
        HTK's scale: mel(f) = 2595 * log10(1 + f / 700), f in Hz. Take n_mels + 2 points evenly spaced in mel from 0 Hz
        to sr / 2, both included, and turn them back to Hz: f_0, f_1, ... Triangle m is 0 up to f_m, rises in a straight
        line over Hz to exactly 1 at f_(m+1), falls in a straight line to 0 at f_(m+2), and stays 0. The points are not
        rounded to bins, and the triangles are not scaled to equal areas.
    """
    ### BEGIN SOLUTION
    top = 2595 * math.log10(1 + sr / 2 / 700)
    mels = torch.linspace(0, top, n_mels + 2, dtype=torch.float64)
    hz = 700 * (10 ** (mels / 2595) - 1)  # (n_mels + 2,)
    left, centre, right = hz[:-2, None], hz[1:-1, None], hz[2:, None]  # each (n_mels, 1)
    f = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sr / n_fft  # (n_fft // 2 + 1,)
    rising, falling = (f - left) / (centre - left), (right - f) / (right - centre)
    return torch.minimum(rising, falling).clamp(min=0)  # (n_mels, n_fft // 2 + 1)
    ### END SOLUTION


# %%
def log_mel(x: Tensor, sr: int = 16000, n_fft: int = 400, hop: int = 160, n_mels: int = 80) -> Tensor:
    """Turn a sound into its log-mel spectrogram, the picture that speech models read.

    Args:
        x: (..., samples), floating; samples >= n_fft.
        sr: samples a second.
        n_fft: samples a frame.
        hop: samples between the starts of frames.
        n_mels: number of mel bands.

    Returns:
        (..., n_mels, frames), dtype of x: log10 of the power in each band; power below 1e-10 counts as 1e-10.

    Example:
        >>> log_mel(torch.zeros(600)).shape, log_mel(torch.zeros(600)).unique()
        (torch.Size([80, 2]), tensor([-10.]))

    Notes:
        The power in a band is the sum over the bins of stft_power, each weighted by the band's triangle. The floor is
        a maximum, nothing is added. Nothing else is done: no decibels, no scaling to a range.
    """
    ### BEGIN SOLUTION
    triangles = mel_filterbank(n_mels, n_fft, sr).to(x)  # (n_mels, n_fft // 2 + 1)
    power = triangles @ stft_power(x, n_fft, hop)  # (..., n_mels, frames)
    return power.clamp(min=1e-10).log10()
    ### END SOLUTION


# %% [markdown]
# ## 24.8 tubelets, subsample_frames, token_budget
#
# A video is a stack of images, and a token can be a little box of it: some pixels wide, some high, some frames long.


# %%
def tubelets(video: Tensor, t: int, p: int) -> Tensor:
    """Cut videos into boxes of t frames by p by p pixels and flatten each of them.

    Args:
        video: (B, C, T, H, W), any dtype; it need not be contiguous.
        t: frames a box.
        p: the side of a box.

    Returns:
        (B, N, C * t * p * p) with N = (T / t) * (H / p) * (W / p), dtype of video.

    Raises:
        ValueError: if t does not divide T, or p does not divide H or W.

    Example:
        >>> tubelets(torch.arange(8).reshape(1, 1, 2, 1, 4), 2, 1)
        tensor([[[0, 4],
                 [1, 5],
                 [2, 6],
                 [3, 7]]])

    Notes:
        Boxes come in the order of time, then row, then column of the grid. Within a box the order is channel, then
        frame, then row, then column, so that the weight (D, C, t, p, p) of a 3-D convolution fits once it is flattened.
    """
    ### BEGIN SOLUTION
    B, C, T, H, W = video.shape
    if T % t or H % p or W % p:
        raise ValueError(f"boxes of {t}x{p}x{p} do not fill a video of {T}x{H}x{W}")
    grid = video.reshape(B, C, T // t, t, H // p, p, W // p, p)
    grid = grid.permute(0, 2, 4, 6, 1, 3, 5, 7)  # (B, T / t, H / p, W / p, C, t, p, p)
    return grid.reshape(B, -1, C * t * p * p)  # (B, N, C * t * p * p)
    ### END SOLUTION


# %%
def subsample_frames(n: int, k: int) -> list[int]:
    """Choose k of n frames, evenly spread from the first to the last.

    Args:
        n: number of frames in the video.
        k: number of frames wanted.

    Returns:
        k ints in rising order. Number i, for i = 0 ... k - 1, is the frame nearest to i * (n - 1) / (k - 1); of two
        equally near frames either will do. So the first is 0 and the last is n - 1. For k = 1 it is [0].

    Raises:
        ValueError: unless 1 <= k <= n.

    Example:
        >>> subsample_frames(8, 3), subsample_frames(5, 5)
        ([0, 4, 7], [0, 1, 2, 3, 4])
    """
    ### BEGIN SOLUTION
    if not 1 <= k <= n:
        raise ValueError(f"cannot choose k={k} of n={n} frames")
    gaps = max(k - 1, 1)
    return [(2 * i * (n - 1) + gaps) // (2 * gaps) for i in range(k)]  # whole numbers: floor(x + 1/2) without rounding
    ### END SOLUTION


# %%
def token_budget(h: int, w: int, frames: int, p: int, t: int) -> int:
    """Count the tokens of a video, or of an image as a video of one frame.

    Args:
        h: height in pixels.
        w: width in pixels.
        frames: number of frames.
        p: the side of a patch.
        t: frames a box.

    Returns:
        How many boxes of t frames by p by p pixels fill the video.

    Raises:
        ValueError: if t does not divide frames, or p does not divide h or w.

    Example:
        >>> token_budget(224, 224, 1, 16, 1), token_budget(224, 224, 32, 16, 2)
        (196, 3136)
    """
    ### BEGIN SOLUTION
    if h % p or w % p or frames % t:
        raise ValueError(f"boxes of {t}x{p}x{p} do not fill a video of {frames}x{h}x{w}")
    return (h // p) * (w // p) * (frames // t)
    ### END SOLUTION
