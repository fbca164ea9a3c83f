"""Wrong answers of chapter 24 that people really give, each with the sentence that sets them right."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from grader.testing import misconception, reference_of

reference = reference_of(__file__)


def whole(*pairs):
    """Refuse sizes that are not multiples."""
    if any(size % part for size, part in pairs):
        raise ValueError("not a multiple")


def axes(images, p):
    """The six axes of a grid of patches: B, C, grid row, row, grid column, column."""
    B, C, H, W = images.shape
    whole((H, p), (W, p))
    return images.reshape(B, C, H // p, p, W // p, p)


# -- patchify, unpatchify, patch_embed


@misconception("patchify", "A plain reshape cuts rows of pixels, not squares; split both axes, then move the axes.")
def reshapes_only(images, p):
    B, C, H, W = images.shape
    whole((H, p), (W, p))
    return images.reshape(B, H // p * (W // p), C * p * p)


@misconception("patchify", "Within a patch you put the channel last; the order is channel, then row, then column.")
def channel_last(images, p):
    return axes(images, p).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


@misconception("patchify", "Your patches come column by column; they come row by row, as you read.")
def column_by_column(images, p):
    return axes(images, p).permute(0, 4, 2, 1, 3, 5).flatten(3).flatten(1, 2)


@misconception("patchify", "Each patch is transposed: within a channel the rows come first, then the columns.")
def transposed_patches(images, p):
    return axes(images, p).permute(0, 2, 4, 1, 5, 3).flatten(3).flatten(1, 2)


@misconception("patchify", "You take every p-th pixel; a patch is made of neighbours, so the grid axis comes first.")
def takes_every_pth_pixel(images, p):
    B, C, H, W = images.shape
    whole((H, p), (W, p))
    return images.reshape(B, C, p, H // p, p, W // p).permute(0, 3, 5, 1, 2, 4).flatten(3).flatten(1, 2)


@misconception("patchify", "You cut off what does not fill a patch without a word; such a size is a ValueError.")
def cuts_off_the_rest(images, p):
    H, W = images.shape[2:]
    return reference.patchify(images[:, :, : H // p * p, : W // p * p], p)


@misconception("patchify", "You check only the height; p must divide the width as well.")
def checks_only_the_height(images, p):
    H, W = images.shape[2:]
    whole((H, p))
    return reference.patchify(images[..., : W // p * p], p)


@misconception("patchify", "You exchange H and W when you put the patches back; the grid has H / p rows.", "unpatchify")
def unpatchify_swaps_the_grid(patches, p, H, W):
    grid = patches.reshape(len(patches), W // p, H // p, -1, p, p)
    return grid.permute(0, 3, 1, 4, 2, 5).reshape(len(patches), -1, H, W)


@misconception(
    "patchify", "You read the entries of a patch as row, column, channel; the channel comes first.", "unpatchify"
)
def unpatchify_channel_last(patches, p, H, W):
    grid = patches.reshape(len(patches), H // p, W // p, p, p, -1)
    return grid.permute(0, 5, 1, 3, 2, 4).reshape(len(patches), -1, H, W)


@misconception(
    "patchify", "You permute the weight to channel last before you flatten it; it fits as it is.", "patch_embed"
)
def permutes_the_weight(images, W, b, p):
    return reference.patchify(images, p) @ W.permute(0, 2, 3, 1).flatten(1).T + b


@misconception("patchify", "The bias of the embedding is missing; each patch gets it.", "patch_embed")
def no_bias(images, W, b, p):
    return reference.patchify(images, p) @ W.flatten(1).T


# -- ViT


class Sketch(reference.ViT):
    """A ViT whose steps can be replaced one by one."""

    mask, where = None, 0

    def forward(self, images):
        x = self.patch(reference.patchify(images, self.p))
        x = self.add(x, images)
        for block in self.blocks:
            x = block(x, self.mask_for(x.shape[1]))
        return self.read(x)

    def add(self, x, images):
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        return x + self.positions_for(images.shape[-2] // self.p, images.shape[-1] // self.p)

    def mask_for(self, T):
        return None

    def read(self, x):
        return self.head(self.norm(x[:, 0]))


@misconception(
    "ViT", "You hide the patches that follow, as in a language model; here every token attends to every token."
)
class Causal(Sketch):
    def mask_for(self, T):
        return torch.ones(T, T, dtype=torch.bool).tril()


@misconception("ViT", "You put the class token last; it stands first and has the first position.")
class ClassTokenLast(Sketch):
    def add(self, x, images):
        x = torch.cat([x, self.cls.expand(len(x), -1, -1)], dim=1)
        return x + self.positions_for(images.shape[-2] // self.p, images.shape[-1] // self.p)

    def read(self, x):
        return self.head(self.norm(x[:, -1]))


@misconception("ViT", "You average over all tokens; the logits come from the class token alone.")
class MeanOverTokens(Sketch):
    def read(self, x):
        return self.head(self.norm(x).mean(1))


@misconception("ViT", "You read the last patch; the logits come from the class token, which stands first.")
class ReadsTheLastPatch(Sketch):
    def read(self, x):
        return self.head(self.norm(x[:, -1]))


@misconception("ViT", "The last norm is missing; the class token is normalised before the head.")
class NoLastNorm(Sketch):
    def read(self, x):
        return self.head(x[:, 0])


@misconception("ViT", "The class token gets no position of its own; positions[:, 0] belongs to it.")
class PositionsForPatchesOnly(Sketch):
    def add(self, x, images):
        positions = self.positions_for(images.shape[-2] // self.p, images.shape[-1] // self.p)
        return torch.cat([self.cls.expand(len(x), -1, -1), x + positions[:, 1:]], dim=1)


@misconception("ViT", "Positions are never added; without them shuffled patches look the same.")
class NoPositions(Sketch):
    def add(self, x, images):
        return torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + 0 * self.positions.sum()


@misconception("ViT", "You cut positions off or repeat them for another size; stretch them as a grid.")
class PositionsCutToLength(Sketch):
    def add(self, x, images):
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1)
        return x + self.positions[:, torch.arange(x.shape[1]) % self.positions.shape[1]]


@misconception("ViT", "You lay the old positions out with rows and columns exchanged; the grid is H / p by W / p.")
class GridExchanged(Sketch):
    def positions_for(self, rows, columns):
        if (rows, columns) == self.grid:
            return self.positions
        image = self.positions[:, 1:].unflatten(1, self.grid[::-1]).permute(0, 3, 1, 2)
        image = F.interpolate(image, size=(rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([self.positions[:, :1], image.flatten(2).mT], dim=1)


@misconception(
    "ViT", "You stretch positions only if the number of patches differs; two grids may have as many patches."
)
class ComparesOnlyTheNumber(Sketch):
    def positions_for(self, rows, columns):
        if rows * columns == self.grid[0] * self.grid[1]:
            return self.positions
        return super().positions_for(rows, columns)


# -- clip_loss


def both_ways(logits):
    """The mean of both directions."""
    pair = torch.arange(len(logits))
    return (F.cross_entropy(logits, pair) + F.cross_entropy(logits.T, pair)) / 2


def cosines(img, txt):
    return F.normalize(img, dim=-1) @ F.normalize(txt, dim=-1).T


@misconception("clip_loss", "You multiply by log_scale itself; the scale is its exponential.")
def log_scale_as_it_is(img, txt, log_scale):
    return both_ways(log_scale.clamp(max=100) * cosines(img, txt))


@misconception("clip_loss", "You divide by the scale, as by a temperature; the cosines are multiplied by it.")
def divides_by_the_scale(img, txt, log_scale):
    return both_ways(cosines(img, txt) / log_scale.exp().clamp(max=100))


@misconception("clip_loss", "Only the images choose; the texts choose among the images too, and the two are averaged.")
def images_only(img, txt, log_scale):
    logits = log_scale.exp().clamp(max=100) * cosines(img, txt)
    return F.cross_entropy(logits, torch.arange(len(img)))


@misconception("clip_loss", "You add the two directions; take their mean.")
def adds_directions(img, txt, log_scale):
    return 2 * both_ways(log_scale.exp().clamp(max=100) * cosines(img, txt))


@misconception("clip_loss", "You sum over the batch; each direction is averaged over the batch.")
def sums_over_the_batch(img, txt, log_scale):
    return len(img) * both_ways(log_scale.exp().clamp(max=100) * cosines(img, txt))


@misconception("clip_loss", "The features are not brought to length 1, so that length counts; use cosines.")
def no_normalisation(img, txt, log_scale):
    return both_ways(log_scale.exp().clamp(max=100) * img @ txt.T)


@misconception("clip_loss", "You normalise each feature over the batch; normalise each row, along the last axis.")
def normalises_the_batch(img, txt, log_scale):
    return both_ways(log_scale.exp().clamp(max=100) * F.normalize(img, dim=0) @ F.normalize(txt, dim=0).T)


@misconception("clip_loss", "The scale has no upper end; it counts as 100 at most.")
def no_clamp(img, txt, log_scale):
    return both_ways(log_scale.exp() * cosines(img, txt))


@misconception("clip_loss", "You limit the logarithm to 100; it is the scale, its exponential, that stops at 100.")
def clamps_the_logarithm(img, txt, log_scale):
    return both_ways(log_scale.clamp(max=100).exp() * cosines(img, txt))


@misconception("clip_loss", "The scale is detached, so it cannot be learned; let its gradient through.")
def scale_detached(img, txt, log_scale):
    return both_ways(log_scale.detach().exp().clamp(max=100) * cosines(img, txt)) + 0 * log_scale


# -- zero_shot, retrieval_at_k


def features(class_prompts, txt_encoder, templates):
    """All features, (K, M, D)."""
    return torch.stack([txt_encoder([t.replace("{}", name) for t in templates]) for name in class_prompts])


def score(img, directions):
    scores = F.normalize(img, dim=-1) @ directions.T
    return scores.argmax(dim=-1), scores


@misconception("zero_shot", "You average the scores of the templates; average the features, and normalise the mean.")
def averages_scores(img, class_prompts, txt_encoder, templates):
    return score(img, F.normalize(features(class_prompts, txt_encoder, templates), dim=-1).mean(1))


@misconception("zero_shot", "You average features of different lengths, so long ones win; normalise each one first.")
def averages_raw_features(img, class_prompts, txt_encoder, templates):
    return score(img, F.normalize(features(class_prompts, txt_encoder, templates).mean(1), dim=-1))


@misconception("zero_shot", "You use the first template only; the direction of a class is the mean over all.")
def first_template_only(img, class_prompts, txt_encoder, templates):
    return score(img, F.normalize(features(class_prompts, txt_encoder, templates[:1]).mean(1), dim=-1))


@misconception(
    "zero_shot", "You take the class with the lowest score; cosine grows with likeness, so take the highest."
)
def takes_the_farthest(img, class_prompts, txt_encoder, templates):
    _, scores = reference.zero_shot(img, class_prompts, txt_encoder, templates)
    return scores.argmin(dim=-1), scores


@misconception("zero_shot", "The images are not normalised, so the scores are no cosines.")
def images_as_they_are(img, class_prompts, txt_encoder, templates):
    directions = F.normalize(F.normalize(features(class_prompts, txt_encoder, templates), dim=-1).mean(1), dim=-1)
    scores = img @ directions.T
    return scores.argmax(dim=-1), scores


@misconception("zero_shot", "You return probabilities; the scores asked for are the cosines themselves.")
def returns_probabilities(img, class_prompts, txt_encoder, templates):
    labels, scores = reference.zero_shot(img, class_prompts, txt_encoder, templates)
    return labels, scores.softmax(-1)


@misconception(
    "zero_shot", "The two directions are exchanged: images that find their text come first.", "retrieval_at_k"
)
def directions_exchanged(img, txt, k):
    return reference.retrieval_at_k(txt, img, k)


@misconception("zero_shot", "You give one direction twice; a text looks along a column of the table.", "retrieval_at_k")
def one_direction_twice(img, txt, k):
    return (reference.retrieval_at_k(img, txt, k)[0],) * 2


@misconception(
    "zero_shot", "You compare raw products, so a long feature is near to all; use cosines.", "retrieval_at_k"
)
def retrieval_by_products(img, txt, k):
    similarity = img @ txt.T
    own = similarity.diagonal()
    beaten = (similarity > own[:, None]).sum(1), (similarity > own).sum(0)
    return tuple((n < k).double().mean().item() for n in beaten)


@misconception("zero_shot", "You let one rank too many count: fewer than k others may be nearer.", "retrieval_at_k")
def one_rank_too_many(img, txt, k):
    return reference.retrieval_at_k(img, txt, k + 1)


@misconception("zero_shot", "With k above the batch you fail; then every partner is found.", "retrieval_at_k")
def k_must_fit(img, txt, k):
    cosines(img, txt).topk(k)  # refuses a k that is larger than the batch
    return reference.retrieval_at_k(img, txt, k)


# -- vector_quantize, code_perplexity, ema_update


def straight(z, codes):
    return z + (codes - z).detach()


@misconception(
    "vector_quantize", "The codes are returned as they are, so z gets no gradient; add the difference, detached."
)
def no_straight_through(z, codebook):
    idx = reference.vector_quantize(z, codebook)[1]
    return codebook[idx] + 0 * z.detach(), idx


@misconception("vector_quantize", "The codebook gets a gradient through the copy; detach the code before z is added.")
def gradient_to_the_codebook(z, codebook):
    idx = reference.vector_quantize(z, codebook)[1]
    return codebook[idx] + z - z.detach(), idx


@misconception(
    "vector_quantize", "You leave out the squared lengths, so long codes win; Euclidean distance needs them."
)
def leaves_out_the_norms(z, codebook):
    idx = (z @ codebook.T).argmax(-1)
    return straight(z, codebook[idx]), idx


@misconception("vector_quantize", "You compare angles only; nearest means Euclidean distance, so length counts.")
def compares_angles(z, codebook):
    idx = (F.normalize(z, dim=-1) @ F.normalize(codebook, dim=-1).T).argmax(-1)
    return straight(z, codebook[idx]), idx


@misconception("vector_quantize", "You add distances along the axes; square them before you add.")
def adds_absolute_differences(z, codebook):
    idx = (z[..., None, :] - codebook).abs().sum(-1).argmin(-1)
    return straight(z, codebook[idx]), idx


@misconception("vector_quantize", "Of equally near codes you take the last; take the one with the lowest row.")
def ties_upwards(z, codebook):
    distance = (z[..., None, :] - codebook).square().sum(-1)
    idx = len(codebook) - 1 - distance.flip(-1).argmin(-1)
    return straight(z, codebook[idx]), idx


@misconception("vector_quantize", "You return z itself instead of the code; its value must be the code's.")
def returns_z(z, codebook):
    return z + 0.0, reference.vector_quantize(z, codebook)[1]


@misconception(
    "vector_quantize", "Perplexity counts the codes in use, as if all were equally frequent.", "code_perplexity"
)
def counts_used_codes(idx, K):
    return float(len(idx.unique()))


@misconception("vector_quantize", "You return the entropy; perplexity is its exponential.", "code_perplexity")
def returns_the_entropy(idx, K):
    return math.log(reference.code_perplexity(idx, K))


@misconception("vector_quantize", "You divide by K; perplexity is a number of codes, from 1 to K.", "code_perplexity")
def divides_by_K(idx, K):
    return reference.code_perplexity(idx, K) / K


@misconception("vector_quantize", "A code that nobody chose is pulled to zero; it must stay as it is.", "ema_update")
def unused_codes_shrink(codebook, z, idx, decay):
    chosen = F.one_hot(idx.flatten(), len(codebook)).to(codebook.dtype)
    means = chosen.T @ z.reshape(-1, z.shape[-1]) / chosen.sum(0).clamp(min=1)[:, None]
    return decay * codebook + (1 - decay) * means


@misconception("vector_quantize", "The weights are exchanged: decay is the weight of the old code.", "ema_update")
def decay_exchanged(codebook, z, idx, decay):
    return reference.ema_update(codebook, z, idx, 1 - decay)


@misconception("vector_quantize", "You add up the vectors of a code; it moves towards their mean.", "ema_update")
def moves_to_the_sum(codebook, z, idx, decay):
    chosen = F.one_hot(idx.flatten(), len(codebook)).to(codebook.dtype)
    moved = decay * codebook + (1 - decay) * (chosen.T @ z.reshape(-1, z.shape[-1]))
    return torch.where(chosen.sum(0)[:, None] > 0, moved, codebook)


@misconception("vector_quantize", "You change the codebook in place; give back a new one.", "ema_update")
def updates_in_place(codebook, z, idx, decay):
    return codebook.copy_(reference.ema_update(codebook, z, idx, decay))


# -- splice_image_tokens, splice_labels, Projector


def spliced(ids, images, image_id, embed, rows_of):
    """Splice with rows_of(b, token, n, row) giving the rows of each place; n counts the images of a sequence."""
    rows, places = [], []
    for b, sequence in enumerate(ids):
        if sequence.count(image_id) != len(images[b]):
            raise ValueError("placeholders and images")
        text = iter(embed(torch.tensor([t for t in sequence if t != image_id], dtype=torch.int64)))
        n, pieces = 0, []
        for token in sequence:
            pieces.append(rows_of(b, n, None) if token == image_id else rows_of(b, None, next(text)[None]))
            n += token == image_id
        rows.append(torch.cat(pieces))
        places.append(torch.tensor([j for j, piece in enumerate(pieces) for _ in piece]))
    positions = nn.utils.rnn.pad_sequence(places, batch_first=True, padding_value=-1)
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), positions >= 0, positions


@misconception("splice_image_tokens", "You put the images of a sequence in backwards; they stand in their own order.")
def images_backwards(ids, image_embeds, image_id, embed):
    return reference.splice_image_tokens(ids, [row[::-1] for row in image_embeds], image_id, embed)


@misconception("splice_image_tokens", "You hand the images out across sequences; each sequence has images of its own.")
def images_across_sequences(ids, image_embeds, image_id, embed):
    waiting = iter([image for row in image_embeds[::-1] for image in row])
    for sequence, images in zip(ids, image_embeds, strict=True):
        if sequence.count(image_id) != len(images):
            raise ValueError("placeholders and images")
    dealt = [[next(waiting) for token in sequence if token == image_id] for sequence in ids]
    return reference.splice_image_tokens(ids, dealt, image_id, embed)


@misconception("splice_image_tokens", "The placeholder stays in front of its image; the rows of the image replace it.")
def keeps_the_placeholder(ids, image_embeds, image_id, embed):
    def rows_of(b, n, row):
        return row if n is None else torch.cat([image_embeds[b][n][:1] * 0, image_embeds[b][n]])

    return spliced(ids, image_embeds, image_id, embed, rows_of)


@misconception("splice_image_tokens", "Each placeholder gets one row, the mean of its image; it gets all of its rows.")
def one_row_an_image(ids, image_embeds, image_id, embed):
    means = [[image.mean(0, keepdim=True) for image in row] for row in image_embeds]
    return reference.splice_image_tokens(ids, means, image_id, embed)


@misconception("splice_image_tokens", "You embed the placeholder with the rest; embed must never see image_id.")
def embeds_the_placeholder(ids, image_embeds, image_id, embed):
    for sequence in ids:
        embed(torch.tensor(sequence))
    return reference.splice_image_tokens(ids, image_embeds, image_id, embed)


@misconception("splice_image_tokens", "You pad on the left; shorter sequences are padded on the right.")
def pads_on_the_left(ids, image_embeds, image_id, embed):
    embeds, mask, positions = reference.splice_image_tokens(ids, image_embeds, image_id, embed)
    shifts = (~mask).sum(1).tolist()
    return tuple(torch.stack([x.roll(n, 0) for x, n in zip(t, shifts, strict=True)]) for t in (embeds, mask, positions))


@misconception("splice_image_tokens", "Your positions count rows; they give the place in ids that a row comes from.")
def positions_count_rows(ids, image_embeds, image_id, embed):
    embeds, mask, _ = reference.splice_image_tokens(ids, image_embeds, image_id, embed)
    return embeds, mask, torch.where(mask, torch.arange(mask.shape[1]), -1)


@misconception("splice_image_tokens", "Your mask hides the images; it is False only in the padding.")
def mask_marks_text(ids, image_embeds, image_id, embed):
    embeds, mask, positions = reference.splice_image_tokens(ids, image_embeds, image_id, embed)
    text = [[j >= 0 and ids[b][j] != image_id for j in row] for b, row in enumerate(positions.tolist())]
    return embeds, torch.tensor(text), positions


@misconception("splice_image_tokens", "Surplus images are dropped without a word; a wrong number is a ValueError.")
def drops_surplus_images(ids, image_embeds, image_id, embed):
    kept = [row[: sequence.count(image_id)] for sequence, row in zip(ids, image_embeds, strict=True)]
    return reference.splice_image_tokens(ids, kept, image_id, embed)


@misconception("splice_image_tokens", "You count images over the whole batch; every sequence must have its own number.")
def counts_over_the_batch(ids, image_embeds, image_id, embed):
    images = [image for row in image_embeds for image in row]
    if len(images) != sum(sequence.count(image_id) for sequence in ids):
        raise ValueError("placeholders and images")
    waiting = iter(images)
    dealt = [[next(waiting) for token in sequence if token == image_id] for sequence in ids]
    return reference.splice_image_tokens(ids, dealt, image_id, embed)


@misconception("splice_image_tokens", "The images are detached, so the projector behind them cannot learn.")
def images_detached(ids, image_embeds, image_id, embed):
    detached = [[image.detach() for image in row] for row in image_embeds]
    return reference.splice_image_tokens(ids, detached, image_id, embed)


@misconception("splice_image_tokens", "The rows of an image keep a label; they get -100.", "splice_labels")
def image_rows_keep_labels(ids, labels, positions, image_id):
    return torch.tensor([[labels[b][j] if j >= 0 else -100 for j in row] for b, row in enumerate(positions.tolist())])


@misconception("splice_image_tokens", "The padding gets label 0, a real token; it gets -100.", "splice_labels")
def padding_gets_zero(ids, labels, positions, image_id):
    return torch.where(positions < 0, 0, reference.splice_labels(ids, labels, positions, image_id))


@misconception(
    "splice_image_tokens", "You take labels row by row, as if nothing had moved; follow positions.", "splice_labels"
)
def labels_not_moved(ids, labels, positions, image_id):
    right = reference.splice_labels(ids, labels, positions, image_id)
    moved = [[labels[b][min(s, len(labels[b]) - 1)] for s in range(right.shape[1])] for b in range(len(ids))]
    return torch.where(right == -100, -100, torch.tensor(moved))


@misconception("splice_image_tokens", "There is no GELU between the two maps, so they are one.", "Projector")
class LinearProjector(reference.Projector):
    def forward(self, x):
        return self.fc2(self.fc1(x))


@misconception("splice_image_tokens", "You use ReLU; the projector has a GELU between its maps.", "Projector")
class ReluProjector(reference.Projector):
    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


@misconception("splice_image_tokens", "You use the approximation by tanh; the exact GELU is asked for.", "Projector")
class TanhGeluProjector(reference.Projector):
    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


# -- stft_power, mel_filterbank, log_mel


def spectrum(x, n_fft, hop, window=None):
    """The complex spectrum of each frame, (..., frames, bins)."""
    if x.shape[-1] < n_fft:
        raise ValueError("too short")
    window = torch.hann_window(n_fft, dtype=x.dtype) if window is None else window
    return torch.fft.rfft(x.unfold(-1, n_fft, hop) * window)


@misconception("stft_power", "You return the magnitude; power is its square.")
def magnitude(x, n_fft, hop):
    return spectrum(x, n_fft, hop).abs().mT


@misconception("stft_power", "The frames are not windowed; multiply each by the Hann window first.")
def no_window(x, n_fft, hop):
    return spectrum(x, n_fft, hop, torch.ones(n_fft, dtype=x.dtype)).abs().square().mT


@misconception("stft_power", "Your window is the symmetric one; the periodic window divides n by n_fft, not n_fft - 1.")
def symmetric_window(x, n_fft, hop):
    return spectrum(x, n_fft, hop, torch.hann_window(n_fft, periodic=False, dtype=x.dtype)).abs().square().mT


@misconception("stft_power", "You pad the sound so that frames are centred; frame f starts at sample f * hop.")
def centred(x, n_fft, hop):
    if x.shape[-1] < n_fft:
        raise ValueError("too short")
    padded = F.pad(x, (n_fft // 2, n_fft // 2))
    return spectrum(padded, n_fft, hop).abs().square().mT


@misconception("stft_power", "You lose the last frame; there are 1 + (samples - n_fft) // hop of them.")
def loses_the_last_frame(x, n_fft, hop):
    power = reference.stft_power(x, n_fft, hop)
    return power[..., :-1] if power.shape[-1] > 1 else power


@misconception("stft_power", "You fill the end up with zeros for one more frame; what fills no frame is left out.")
def pads_the_end(x, n_fft, hop):
    if x.shape[-1] < n_fft:
        raise ValueError("too short")
    return reference.stft_power(F.pad(x, (0, -(x.shape[-1] - n_fft) % hop)), n_fft, hop)


@misconception("stft_power", "You divide the power by n_fft; it is the squared absolute value, as it is.")
def divides_by_n_fft(x, n_fft, hop):
    return reference.stft_power(x, n_fft, hop) / n_fft


@misconception("stft_power", "Your axes are frames by frequencies; frequencies come first, frames last.")
def frames_first(x, n_fft, hop):
    return reference.stft_power(x, n_fft, hop).mT


def bank(n_mels, n_fft, sr, points):
    """Triangles between given corners."""
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    f = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sr / n_fft
    return torch.minimum((f - left) / (centre - left), (right - f) / (right - centre)).clamp(min=0)


def corners(n_mels, top, factor=2595.0, log=math.log10, exp=lambda m: 10**m):
    """Corners evenly spaced in mel from 0 to top Hz."""
    return 700 * (exp(torch.linspace(0, factor * log(1 + top / 700), n_mels + 2, dtype=torch.float64) / factor) - 1)


@misconception("stft_power", "Your triangles are evenly spaced in Hz; space them evenly in mel.", "mel_filterbank")
def spaced_in_hz(n_mels, n_fft, sr):
    return bank(n_mels, n_fft, sr, torch.linspace(0, sr / 2, n_mels + 2, dtype=torch.float64))


@misconception("stft_power", "Your triangles reach up to sr; the highest frequency is sr / 2.", "mel_filterbank")
def up_to_sr(n_mels, n_fft, sr):
    return bank(n_mels, n_fft, sr, corners(n_mels, sr))


@misconception("stft_power", "You scale triangles to equal areas; each peak is 1.", "mel_filterbank")
def equal_areas(n_mels, n_fft, sr):
    hz = corners(n_mels, sr / 2)
    return reference.mel_filterbank(n_mels, n_fft, sr) * (2 / (hz[2:] - hz[:-2]))[:, None]


@misconception("stft_power", "You round corners to whole bins; they stay where they are.", "mel_filterbank")
def rounds_to_bins(n_mels, n_fft, sr):
    hz = corners(n_mels, sr / 2)
    return bank(n_mels, n_fft, sr, (hz * n_fft / sr).round() * sr / n_fft).nan_to_num(0.0)


@misconception("stft_power", "Your triangles are straight over mel; they are straight over Hz.", "mel_filterbank")
def straight_over_mel(n_mels, n_fft, sr):
    top = 2595 * math.log10(1 + sr / 2 / 700)
    points = torch.linspace(0, top, n_mels + 2, dtype=torch.float64)
    f = 2595 * (1 + torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sr / n_fft / 700).log10()
    left, centre, right = points[:-2, None], points[1:-1, None], points[2:, None]
    return torch.minimum((f - left) / (centre - left), (right - f) / (right - centre)).clamp(min=0)


@misconception("stft_power", "You use Slaney's scale, straight below 1000 Hz; HTK's has one formula.", "mel_filterbank")
def slaney_scale(n_mels, n_fft, sr):
    step = math.log(6.4) / 27
    top = sr / 2 * 3 / 200 if sr / 2 < 1000 else 15 + math.log(sr / 2 / 1000) / step
    m = torch.linspace(0, top, n_mels + 2, dtype=torch.float64)
    return bank(n_mels, n_fft, sr, torch.where(m < 15, m * 200 / 3, 1000 * torch.exp(step * (m - 15))))


@misconception("stft_power", "Silence becomes minus infinity; power below 1e-10 counts as 1e-10.", "log_mel")
def no_floor(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    return (reference.mel_filterbank(n_mels, n_fft, sr).to(x) @ reference.stft_power(x, n_fft, hop)).log10()


@misconception("stft_power", "You add 1e-10 to the power; the floor is a maximum.", "log_mel")
def adds_the_floor(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    return (reference.mel_filterbank(n_mels, n_fft, sr).to(x) @ reference.stft_power(x, n_fft, hop) + 1e-10).log10()


@misconception("stft_power", "You take the natural logarithm; log10 is asked for.", "log_mel")
def natural_logarithm(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    return reference.log_mel(x, sr, n_fft, hop, n_mels) * math.log(10)


@misconception("stft_power", "You return decibels; log10 is not multiplied by 10.", "log_mel")
def decibels(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    return reference.log_mel(x, sr, n_fft, hop, n_mels) * 10


@misconception("stft_power", "You take the root of each band's power; log10 is taken of the power itself.", "log_mel")
def root_of_the_power(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    power = reference.mel_filterbank(n_mels, n_fft, sr).to(x) @ reference.stft_power(x, n_fft, hop)
    return power.sqrt().clamp(min=1e-10).log10()


@misconception(
    "stft_power", "You take the logarithm first and weigh afterwards; sum power, then take log10.", "log_mel"
)
def logarithm_first(x, sr=16000, n_fft=400, hop=160, n_mels=80):
    logs = reference.stft_power(x, n_fft, hop).clamp(min=1e-10).log10()
    return reference.mel_filterbank(n_mels, n_fft, sr).to(x) @ logs


# -- tubelets, subsample_frames, token_budget


def boxes(video, t, p):
    """The eight axes: B, C, grid time, time, grid row, row, grid column, column."""
    B, C, T, H, W = video.shape
    whole((T, t), (H, p), (W, p))
    return video.reshape(B, C, T // t, t, H // p, p, W // p, p)


@misconception("tubelets", "Your boxes hold frames that are far apart; a box holds t frames in succession.")
def frames_interleaved(video, t, p):
    B, C, T, H, W = video.shape
    whole((T, t), (H, p), (W, p))
    grid = video.reshape(B, C, t, T // t, H // p, p, W // p, p).permute(0, 3, 4, 6, 1, 2, 5, 7)
    return grid.flatten(4).flatten(1, 3)


@misconception("tubelets", "Time runs fastest in your row of boxes; it is time, then row, then column.")
def time_last_in_the_grid(video, t, p):
    return boxes(video, t, p).permute(0, 4, 6, 2, 1, 3, 5, 7).flatten(4).flatten(1, 3)


@misconception("tubelets", "Inside a box you put the frame before the channel; the channel comes first.")
def frame_before_channel(video, t, p):
    return boxes(video, t, p).permute(0, 2, 4, 6, 3, 1, 5, 7).flatten(4).flatten(1, 3)


@misconception("tubelets", "A plain reshape cuts no boxes; split three axes, then move them.")
def video_reshaped(video, t, p):
    B, C, T, H, W = video.shape
    whole((T, t), (H, p), (W, p))
    return video.reshape(B, -1, C * t * p * p)


@misconception("tubelets", "You drop the frames that fill no box without a word; that is a ValueError.")
def drops_frames(video, t, p):
    T, H, W = video.shape[2:]
    whole((H, p), (W, p))
    return reference.tubelets(video[:, :, : T // t * t], t, p)


@misconception("tubelets", "You average the frames of a box; it keeps all of them, t times as many numbers.")
def averages_frames(video, t, p):
    boxed = reference.tubelets(video, t, p).unflatten(-1, (video.shape[1], t, p * p))
    return boxed.mean(3, keepdim=True).expand_as(boxed).flatten(2) if video.is_floating_point() else boxed.flatten(2)


@misconception(
    "tubelets", "Your step is n / k, so the last frame is never seen; spread over n - 1.", "subsample_frames"
)
def never_the_last_frame(n, k):
    reference.subsample_frames(n, k)
    return [i * n // k for i in range(k)]


@misconception("tubelets", "You always round down; take the nearest frame.", "subsample_frames")
def rounds_down(n, k):
    reference.subsample_frames(n, k)
    return [i * (n - 1) // max(k - 1, 1) for i in range(k)]


@misconception("tubelets", "You take the first k frames; spread them from the first to the last.", "subsample_frames")
def the_first_k(n, k):
    reference.subsample_frames(n, k)
    return list(range(k))


@misconception(
    "tubelets", "You take the middles of k stretches; first and last frame are included.", "subsample_frames"
)
def middles(n, k):
    reference.subsample_frames(n, k)
    return [int((i + 0.5) * n / k) for i in range(k)]


@misconception("tubelets", "For k = 1 you divide by zero; then it is the first frame.", "subsample_frames")
def fails_for_one(n, k):
    if not 1 <= k <= n:
        raise ValueError("k")
    return [round(i * (n - 1) / (k - 1)) for i in range(k)]


@misconception("tubelets", "You repeat frames if k exceeds n; that is a ValueError.", "subsample_frames")
def repeats_frames(n, k):
    if k < 1 or n < 1:
        raise ValueError("k")
    return [(2 * i * (n - 1) + max(k - 1, 1)) // (2 * max(k - 1, 1)) for i in range(k)]


@misconception("tubelets", "You count all frames; a box holds t of them, so divide by t.", "token_budget")
def budget_without_t(h, w, frames, p, t):
    return reference.token_budget(h, w, frames, p, t) * t


@misconception("tubelets", "You divide the pixels by p once; a patch has p rows and p columns.", "token_budget")
def budget_divides_once(h, w, frames, p, t):
    return reference.token_budget(h, w, frames, p, t) * p


@misconception("tubelets", "You add a class token; only boxes are counted.", "token_budget")
def budget_with_class_token(h, w, frames, p, t):
    return reference.token_budget(h, w, frames, p, t) + 1


@misconception("tubelets", "You round down what does not fill a box; that is a ValueError.", "token_budget")
def budget_rounds_down(h, w, frames, p, t):
    return h // p * (w // p) * (frames // t)
