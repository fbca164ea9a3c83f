"""Right answers of chapter 24 written in other styles; a suite that fails one of them is wrong."""

import itertools
import math
from collections import Counter

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import alternative, reference_of

reference = reference_of(__file__)

# -- patchify, unpatchify, patch_embed


def cut(images, p):
    """Slices, one patch at a time."""
    H, W = images.shape[2:]
    if H % p != 0 or W % p != 0:
        raise ValueError("p")
    corners = itertools.product(range(0, H, p), range(0, W, p))
    return torch.stack([images[:, :, i : i + p, j : j + p].flatten(start_dim=1) for i, j in corners], dim=1)


@alternative("patchify", "slices in a double loop")
def patchify_by_slices(images, p):
    return cut(images, p)


@alternative("patchify", "Tensor.unfold along both axes")
def patchify_by_unfold(images, p):
    if images.size(2) % p or images.size(3) % p:
        raise ValueError("p")
    windows = images.unfold(2, p, p).unfold(3, p, p)  # (B, C, rows, columns, p, p)
    return windows.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)


@alternative("patchify", "numpy")
def patchify_by_numpy(images, p):
    B, C, H, W = images.shape
    if H // p * p != H or W // p * p != W:
        raise ValueError("p")
    x = images.numpy().reshape(B, C, H // p, p, W // p, p)
    return torch.from_numpy(np.ascontiguousarray(np.einsum("bcixjy->bijcxy", x)).reshape(B, -1, C * p * p))


@alternative("patchify", "written patch by patch into an empty image", replaces="unpatchify")
def unpatchify_by_slices(patches, p, H, W):
    B, N, width = patches.shape
    images = torch.zeros(B, width // p**2, H, W, dtype=patches.dtype)
    for n in range(N):
        i, j = divmod(n, W // p)
        images[:, :, i * p : i * p + p, j * p : j * p + p] = patches[:, n].reshape(B, -1, p, p)
    return images


@alternative("patchify", "rows glued together, then glued below each other", replaces="unpatchify")
def unpatchify_by_cat(patches, p, H, W):
    tiles = patches.unflatten(2, (-1, p, p)).unbind(1)
    n = W // p
    return torch.cat([torch.cat(tiles[i * n : i * n + n], dim=3) for i in range(H // p)], dim=2)


@alternative("patchify", "einsum over windows", replaces="patch_embed")
def embed_by_einsum(images, W, b, p):
    windows = images.unfold(2, p, p).unfold(3, p, p)
    return torch.einsum("bcijyx,dcyx->bijd", windows, W).flatten(1, 2) + b


@alternative("patchify", "F.linear on slices", replaces="patch_embed")
def embed_by_linear(images, W, b, p):
    return F.linear(cut(images, p), W.reshape(len(W), -1), b)


# -- ViT


@alternative("ViT", "zeros at first, repeated class token, a mask that allows all, and bilinear weights by hand")
class ViTByHand(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = dict(cfg)
        (H, W), p, D = cfg["size"], cfg["p"], cfg["D"]
        if H % p or W % p:
            raise ValueError("p")
        self.patch = nn.Linear(p * p * cfg["channels"], D)
        self.cls = nn.Parameter(torch.zeros(1, 1, D))
        self.positions = nn.Parameter(torch.zeros(1, H * W // p**2 + 1, D))
        self.blocks = nn.ModuleList([reference.Block(D, cfg["heads"]) for _ in range(cfg["depth"])])
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, cfg["classes"])

    @staticmethod
    def weights(old, new, like):
        """The matrix (new, old) of linear interpolation between the middles of cells."""
        place = ((torch.arange(new, dtype=like.dtype) + 0.5) * old / new - 0.5).clamp(0, old - 1)
        return (1 - (place[:, None] - torch.arange(old, dtype=like.dtype)).abs()).clamp(min=0)

    def forward(self, images):
        p, (H, W) = self.cfg["p"], self.cfg["size"]
        x = self.patch(cut(images, p))
        grid = self.positions[0, 1:].reshape(H // p, W // p, -1)
        rows = self.weights(H // p, images.shape[2] // p, x)
        columns = self.weights(W // p, images.shape[3] // p, x)
        x = x + torch.einsum("yi,xj,ijd->yxd", rows, columns, grid).flatten(0, 1)
        x = torch.cat((self.cls.repeat(x.shape[0], 1, 1) + self.positions[:, 0:1], x), 1)
        everything = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool)
        for block in self.blocks:
            x = block(x, mask=everything)
        return self.head(self.norm(x)[:, 0, :])


# -- clip_loss


@alternative("clip_loss", "log-softmax and the diagonal; the logarithm is limited")
def clip_by_log_softmax(img, txt, log_scale):
    scale = torch.exp(torch.clamp(log_scale, max=math.log(100.0)))
    img = img / img.norm(dim=1, keepdim=True)
    txt = txt / txt.norm(dim=1, keepdim=True)
    logits = scale * (img @ txt.T)
    return -(logits.log_softmax(0).diag() + logits.log_softmax(1).diag()).mean() / 2


@alternative("clip_loss", "einsum and log-sum-exp in float64, one direction after the other")
def clip_by_einsum(img, txt, log_scale):
    scale = torch.minimum(log_scale.double().exp(), torch.tensor(100.0, dtype=torch.float64))
    a, b = (x.double() / torch.sqrt(torch.einsum("bd,bd->b", x.double(), x.double()))[:, None] for x in (img, txt))
    loss = 0.0
    for queries, keys in ((a, b), (b, a)):
        logits = torch.einsum("id,jd->ij", queries, keys) * scale
        loss = loss + (torch.logsumexp(logits, dim=1) - torch.einsum("ii->i", logits)).mean()
    return (loss / 2).to(img.dtype)


# -- zero_shot, retrieval_at_k


@alternative("zero_shot", "all sentences in one call, numpy inside")
def zero_shot_in_one_call(img, class_prompts, txt_encoder, templates):
    texts = [template.format(name) for template in templates for name in class_prompts]
    X = txt_encoder(texts).double().numpy().reshape(len(templates), len(class_prompts), -1)
    directions = (X / np.linalg.norm(X, axis=-1, keepdims=True)).sum(0)  # a sum points where the mean does
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    images = img.double().numpy()
    scores = torch.from_numpy(images / np.linalg.norm(images, axis=1, keepdims=True) @ directions.T)
    return scores.argmax(1), scores.to(img.dtype)


@alternative("zero_shot", "one sentence a call, cosine_similarity")
def zero_shot_sentence_by_sentence(img, class_prompts, txt_encoder, templates):
    columns = []
    for name in class_prompts:
        direction = 0
        for template in templates:
            before, after = template.split("{}")
            [feature] = txt_encoder([before + name + after])
            direction = direction + feature / torch.linalg.vector_norm(feature)
        columns.append(torch.cosine_similarity(img, direction[None], dim=1))
    scores = torch.stack(columns, dim=1)
    return torch.max(scores, dim=1).indices, scores


@alternative("zero_shot", "topk with k limited", replaces="retrieval_at_k")
def retrieval_by_topk(img, txt, k):
    similarity = torch.nn.functional.normalize(img) @ torch.nn.functional.normalize(txt).T
    own = torch.arange(len(img))[:, None]
    shares = []
    for table in (similarity, similarity.T):
        best = table.topk(min(k, len(img)), dim=1).indices
        shares.append(float((best == own).any(1).sum()) / len(img))
    return tuple(shares)


@alternative("zero_shot", "ranks by sorting Python lists", replaces="retrieval_at_k")
def retrieval_by_sorting(img, txt, k):
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (img, txt))

    def share(x, y):
        hits = 0
        for i, row in enumerate((x @ y.T).tolist()):
            hits += i in sorted(range(len(row)), key=lambda j: -row[j])[:k]  # noqa: B023
        return hits / len(x)

    return share(a, b), share(b, a)


# -- vector_quantize, code_perplexity, ema_update


@alternative("vector_quantize", "cdist, and a function of autograd for the copy")
def quantize_by_cdist(z, codebook):
    class Copy(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, codes):
            return codes.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient, None

    flat = z.reshape(-1, z.shape[-1])
    idx = torch.cdist(flat, codebook, compute_mode="donot_use_mm_for_euclid_dist").argmin(1).reshape(z.shape[:-1])
    return Copy.apply(z, codebook[idx].detach()), idx


@alternative("vector_quantize", "squared lengths and a product, without a tape")
def quantize_by_products(z, codebook):
    with torch.no_grad():
        distance = (z**2).sum(-1, keepdim=True) - 2 * z @ codebook.T + (codebook**2).sum(-1)
        idx = torch.argmin(distance, dim=-1)
        step = F.embedding(idx, codebook) - z
    return z + step, idx


@alternative("vector_quantize", "Python's min over rows")
def quantize_by_loops(z, codebook):
    codes = codebook.tolist()
    rows = z.detach().reshape(-1, z.shape[-1]).tolist()
    best = [
        min(range(len(codes)), key=lambda k: sum((a - b) ** 2 for a, b in zip(row, codes[k], strict=True)))
        for row in rows
    ]  # noqa: B023
    idx = torch.tensor(best, dtype=torch.int64).reshape(z.shape[:-1])
    return z - z.detach() + codebook.detach()[idx], idx


@alternative("vector_quantize", "a Counter", replaces="code_perplexity")
def perplexity_by_counter(idx, K):
    counts = Counter(idx.flatten().tolist())
    n = sum(counts.values())
    return math.prod((c / n) ** (-c / n) for c in counts.values())


@alternative("vector_quantize", "one-hot shares, base 2", replaces="code_perplexity")
def perplexity_by_one_hot(idx, K):
    share = F.one_hot(idx.reshape(-1), num_classes=K).double().mean(0)
    bits = -(share * torch.log2(share.clamp(min=1e-300))).sum()
    return float(2**bits)


@alternative("vector_quantize", "a loop over codes, one expression of the mean", replaces="ema_update")
def ema_by_loops(codebook, z, idx, decay):
    new = codebook.clone()
    for k in range(len(codebook)):
        chosen = z[idx == k]
        if len(chosen):
            new[k] += (1 - decay) * (chosen.mean(0) - codebook[k])
    return new


@alternative("vector_quantize", "index_add", replaces="ema_update")
def ema_by_index_add(codebook, z, idx, decay):
    flat, where = z.reshape(-1, codebook.shape[1]), idx.reshape(-1)
    sums = torch.zeros_like(codebook).index_add(0, where, flat)
    counts = torch.bincount(where, minlength=len(codebook))
    used = counts > 0
    new = codebook.clone()
    new[used] = decay * codebook[used] + (1 - decay) * sums[used] / counts[used, None]
    return new


# -- splice_image_tokens, splice_labels, Projector


@alternative("splice_image_tokens", "segments of text between images, written into a tensor of zeros")
def splice_by_segments(ids, image_embeds, image_id, embed):
    parts, places = [], []
    for sequence, images in zip(ids, image_embeds, strict=False):
        marks = [j for j, token in enumerate(sequence) if token == image_id]
        if len(marks) != len(images):
            raise ValueError("images")
        row, place, start = [], [], 0
        for mark, image in zip([*marks, len(sequence)], [*images, None], strict=True):
            if mark > start:
                row.append(embed(torch.tensor(sequence[start:mark])))
                place += range(start, mark)
            if image is not None:
                row.append(image)
                place += [mark] * image.shape[0]
            start = mark + 1
        parts.append(torch.cat(row, dim=0))
        places.append(place)
    S = max(map(len, places))
    embeds = parts[0].new_zeros(len(ids), S, parts[0].shape[1])
    positions = torch.full((len(ids), S), -1)
    for b, (row, place) in enumerate(zip(parts, places, strict=True)):
        embeds[b, : len(place)] = row
        positions[b, : len(place)] = torch.tensor(place)
    return embeds, positions != -1, positions


@alternative("splice_image_tokens", "places first; placeholders embedded as token 0 and overwritten")
def splice_by_places(ids, image_embeds, image_id, embed):
    rows, places = [], []
    for sequence, images in zip(ids, image_embeds, strict=True):
        tokens = torch.tensor(sequence)
        marks = (tokens == image_id).nonzero().flatten().tolist()
        if len(marks) != len(images):
            raise ValueError("images")
        lengths = torch.ones(len(sequence), dtype=torch.int64)
        for mark, image in zip(marks, images, strict=True):
            lengths[mark] = len(image)
        place = torch.repeat_interleave(torch.arange(len(sequence)), lengths)
        row = embed(torch.where(tokens == image_id, 0, tokens))[place]
        is_image = (tokens == image_id)[place]
        if images:
            row = row.masked_scatter(is_image[:, None], torch.cat(list(images)))
        rows.append(row)
        places.append(place)
    S = max(len(place) for place in places)
    embeds = torch.stack([F.pad(row, (0, 0, 0, S - len(row))) for row in rows])
    positions = torch.stack([F.pad(place, (0, S - len(place)), value=-1) for place in places])
    mask = torch.arange(S) < torch.tensor([[len(place)] for place in places])
    return embeds, mask, positions


@alternative("splice_image_tokens", "lists with placeholders set first", replaces="splice_labels")
def labels_by_lists(ids, labels, positions, image_id):
    out = []
    for sequence, own, row in zip(ids, labels, positions.tolist(), strict=True):
        clean = [-100 if token == image_id else label for token, label in zip(sequence, own, strict=True)] + [-100]
        out.append([clean[j] for j in row])  # place -1 is the last entry
    return torch.tensor(out, dtype=torch.int64)


@alternative("splice_image_tokens", "gather from padded labels", replaces="splice_labels")
def labels_by_gather(ids, labels, positions, image_id):
    pad = lambda rows: nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)  # noqa: E731
    place = positions.clamp(min=0)
    keep = (positions >= 0) & (pad(ids).gather(1, place) != image_id)
    return torch.where(keep, pad(labels).gather(1, place), -100)


@alternative("splice_image_tokens", "GELU by its definition", replaces="Projector")
class ProjectorByErf(nn.Module):
    def __init__(self, d_image, D):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(d_image, D, bias=True), nn.Linear(D, D, bias=True)

    def forward(self, x):
        h = self.fc1(x)
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        return h @ self.fc2.weight.T + self.fc2.bias


@alternative("splice_image_tokens", "a GELU module that has no parameters", replaces="Projector")
class ProjectorByModules(nn.Module):
    def __init__(self, d_image, D):
        super().__init__()
        self.fc1 = nn.Linear(d_image, D)
        self.fc2 = nn.Linear(D, D)
        self.act = nn.GELU()

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


# -- stft_power, mel_filterbank, log_mel


@alternative("stft_power", "sines and cosines as a matrix")
def power_by_matrix(x, n_fft, hop):
    if x.size(-1) < n_fft:
        raise ValueError("too short")
    n = torch.arange(n_fft, dtype=torch.float64)
    k = torch.arange(n_fft // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi * (k[:, None] * n % n_fft) / n_fft
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / n_fft)
    starts = range(0, x.size(-1) - n_fft + 1, hop)
    frames = torch.stack([x[..., s : s + n_fft] for s in starts], dim=-1).double() * window[:, None]
    return ((torch.cos(angle) @ frames) ** 2 + (torch.sin(angle) @ frames) ** 2).to(x.dtype)


@alternative("stft_power", "numpy, the full transform of one frame after another")
def power_by_numpy(x, n_fft, hop):
    sound = x.numpy().astype(np.float64)
    frames = 1 + (sound.shape[-1] - n_fft) // hop
    if sound.shape[-1] < n_fft:
        raise ValueError("too short")
    window = np.hanning(n_fft + 1)[:-1]
    columns = [np.abs(np.fft.fft(sound[..., f * hop : f * hop + n_fft] * window)) ** 2 for f in range(frames)]
    return torch.from_numpy(np.stack(columns, -1)[..., : n_fft // 2 + 1, :].copy()).to(x.dtype)


@alternative("stft_power", "loops and Python floats", replaces="mel_filterbank")
def filterbank_by_loops(n_mels, n_fft, sr):
    to_hz = lambda m: 700 * (math.pow(10, m / 2595) - 1)  # noqa: E731
    top = 2595 * math.log10(1 + sr / 1400)
    hz = [to_hz(top * m / (n_mels + 1)) for m in range(n_mels + 2)]
    rows = []
    for m in range(n_mels):
        row = []
        for k in range(n_fft // 2 + 1):
            f = k * sr / n_fft
            if hz[m] < f <= hz[m + 1]:
                row.append((f - hz[m]) / (hz[m + 1] - hz[m]))
            elif hz[m + 1] < f < hz[m + 2]:
                row.append((hz[m + 2] - f) / (hz[m + 2] - hz[m + 1]))
            else:
                row.append(0.0)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@alternative("stft_power", "numpy's interp", replaces="mel_filterbank")
def filterbank_by_interp(n_mels, n_fft, sr):
    mel = lambda f: 2595 / math.log(10) * np.log1p(f / 700)  # noqa: E731
    hz = 700 * np.expm1(np.linspace(0, mel(sr / 2), n_mels + 2) * math.log(10) / 2595)
    f = np.linspace(0, n_fft // 2, n_fft // 2 + 1) * sr / n_fft
    return torch.from_numpy(np.array([np.interp(f, hz, np.eye(n_mels + 2)[m + 1]) for m in range(n_mels)]))


@alternative("stft_power", "einsum in float64, natural logarithm divided", replaces="log_mel")
def log_mel_by_einsum(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    power = reference.stft_power(x.double(), n_fft=n_fft, hop=hop)
    bands = torch.einsum("mk,...kf->...mf", reference.mel_filterbank(n_mels=n_mels, n_fft=n_fft, sr=sr), power)
    return (torch.log(torch.maximum(bands, torch.tensor(1e-10, dtype=bands.dtype))) / math.log(10)).to(x.dtype)


# -- tubelets, subsample_frames, token_budget


@alternative("tubelets", "slices in a triple loop")
def tubelets_by_slices(video, t, p):
    T, H, W = video.shape[2:]
    if T % t or H % p or W % p:
        raise ValueError("boxes")
    out = []
    for a in range(0, T, t):
        for i in range(0, H, p):
            for j in range(0, W, p):
                out.append(video[:, :, a : a + t, i : i + p, j : j + p].reshape(len(video), -1))
    return torch.stack(out, 1)


@alternative("tubelets", "Tensor.unfold three times")
def tubelets_by_unfold(video, t, p):
    if any(size % part for size, part in zip(video.shape[2:], (t, p, p), strict=True)):
        raise ValueError("boxes")
    windows = video.unfold(2, t, t).unfold(3, p, p).unfold(4, p, p)
    return windows.movedim(1, 4).flatten(4).flatten(1, 3)


@alternative("tubelets", "patches of each frame, then t frames together")
def tubelets_by_patchify(video, t, p):
    B, C, T, H, W = video.shape
    if T % t:
        raise ValueError("frames")
    patches = reference.patchify(video.transpose(1, 2).reshape(B * T, C, H, W), p)
    patches = patches.unflatten(-1, (C, p * p)).reshape(B, T // t, t, -1, C, p * p)
    return patches.permute(0, 1, 3, 4, 2, 5).reshape(B, -1, C * t * p * p)


@alternative("tubelets", "numpy's linspace, rounded", replaces="subsample_frames")
def frames_by_linspace(n, k):
    if k < 1 or k > n:
        raise ValueError("k")
    return [int(frame) for frame in np.linspace(0, n - 1, num=k).round()]


@alternative("tubelets", "Python's round, to even", replaces="subsample_frames")
def frames_by_round(n, k):
    if not (0 < k <= n):
        raise ValueError("k")
    if k == 1:
        return [0]
    return [round(i * (n - 1) / (k - 1)) for i in range(k)]


@alternative("tubelets", "halves rounded down", replaces="subsample_frames")
def frames_by_ceil(n, k):
    if k <= 0 or k > n:
        raise ValueError("k")
    step = (n - 1) / max(1, k - 1)
    return [max(0, math.ceil(i * step - 0.5 - 1e-9)) for i in range(k)]


@alternative("tubelets", "divmod for each axis", replaces="token_budget")
def budget_by_divmod(h, w, frames, p, t):
    count = 1
    for size, part in ((h, p), (w, p), (frames, t)):
        whole, rest = divmod(size, part)
        if rest:
            raise ValueError("boxes")
        count *= whole
    return count
