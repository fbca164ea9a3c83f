"""Self-checks of chapter 24: worked examples and the laws that teach."""

import math

import pytest
import torch

from grader.testing import close, dataset, driver, exact, exercise, holds

DOUBLE = torch.float64


def double(rows):
    """A float64 tensor."""
    return torch.tensor(rows, dtype=DOUBLE)


@exercise("patchify")
def test_patchify_the_worked_example(exercises):
    """Two patches of an image of 2 by 4 pixels: left square, right square."""
    got = exercises.patchify(torch.arange(8).reshape(1, 1, 2, 4), 2)
    exact(got, torch.tensor([[[0, 1, 4, 5], [2, 3, 6, 7]]]), "patchify of the numbers 0 to 7, p=2")


@exercise("patchify")
def test_unpatchify_undoes_patchify(exercises, rng):
    """Cutting an image that is not square and putting it back changes nothing."""
    images = rng.normal(2, 3, 4, 6)
    exact(
        exercises.unpatchify(exercises.patchify(images, 2), 2, 4, 6), images, "the round trip of a (2, 3, 4, 6) image"
    )


@exercise("patchify")
def test_patches_must_be_whole(exercises):
    """A width of 5 has no whole number of patches of 2."""
    with pytest.raises(ValueError):
        exercises.patchify(torch.zeros(1, 1, 4, 5), 2)


@exercise("patchify")
def test_patch_embed_uses_the_weight_as_it_is(exercises):
    """With a weight that picks one pixel of one channel, that pixel comes out."""
    images = torch.arange(16.0, dtype=DOUBLE).reshape(1, 2, 2, 4)  # channel 1 holds 8 to 15
    W = torch.zeros(1, 2, 2, 2, dtype=DOUBLE)
    W[0, 1, 0, 1] = 1.0  # channel 1, upper row, right column
    close(
        exercises.patch_embed(images, W, double([0.5]), 2), double([[[9.5], [11.5]]]), "patch_embed that picks a pixel"
    )


@exercise("ViT")
def test_vit_gives_logits(exercises, rng):
    """A batch of images gives one row of logits an image, at any size."""
    vit = exercises.ViT({"size": (4, 6), "channels": 3, "p": 2, "D": 8, "depth": 1, "heads": 2, "classes": 5})
    exact(tuple(vit(rng.normal(2, 3, 4, 6).float()).shape), (2, 5), "the shape for images of the size it was built for")
    exact(tuple(vit(rng.normal(2, 3, 8, 4).float()).shape), (2, 5), "the shape for images of another size")


@exercise("ViT")
def test_vit_looks_everywhere(exercises, rng):
    """Every patch has an influence on the logits of its image, and no other."""
    vit = exercises.ViT({"size": (4, 6), "channels": 1, "p": 2, "D": 8, "depth": 1, "heads": 2, "classes": 5}).double()
    images = rng.normal(2, 1, 4, 6)
    before = vit(images)
    for row, column in ((0, 0), (1, 3), (3, 5)):
        changed = images.clone()
        changed[0, 0, row, column] += 2.0
        after = vit(changed)
        holds(
            bool((after[0] - before[0]).abs().max() > 1e-9), f"The pixel at ({row}, {column}) must have an influence."
        )
        close(after[1], before[1], "the logits of the image that was not changed")


@driver
def a_little_training(module, images, labels, steps):
    """Some steps of gradient descent; the losses."""
    import torch

    torch.manual_seed(0)
    vit = module.ViT(module.TINY)
    losses = []
    for _ in range(steps):
        vit.zero_grad()
        loss = torch.nn.functional.cross_entropy(vit(images), labels)
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p in vit.parameters():
                if p.grad is not None:
                    p -= 0.2 * p.grad
    return losses


@exercise("ViT")
def test_vit_learns(exercises):
    """Forty steps on sixty digits bring the loss down by a half."""
    images, labels = dataset("shapes").digits(1, 60)
    losses = exercises.run(a_little_training, torch.from_numpy(images).float()[:, None], torch.from_numpy(labels), 40)
    holds(losses[-1] < losses[0] / 2, f"The loss went from {losses[0]:.2f} to {losses[-1]:.2f}.")


@exercise("clip_loss")
def test_clip_loss_of_the_worked_example(exercises):
    """The worked example of the notes: two pairs, the scale is 4."""
    img, txt = double([[2.0, 0.0], [0.0, 1.0]]), double([[1.0, 0.0], [3.0, 4.0]])
    # the cosines are 1 and 0.6 in the first row, 0 and 0.8 in the second
    rows = (math.log(1 + math.exp(2.4 - 4)) + math.log(1 + math.exp(0 - 3.2))) / 2
    columns = (math.log(1 + math.exp(0 - 4)) + math.log(1 + math.exp(2.4 - 3.2))) / 2
    close(exercises.clip_loss(img, txt, double(4.0).log()), double((rows + columns) / 2), "clip_loss of two pairs")


@exercise("clip_loss")
def test_clip_loss_of_a_guess(exercises):
    """If all features are alike, the loss is that of guessing among B."""
    same = torch.ones(5, 3, dtype=DOUBLE)
    close(exercises.clip_loss(same, 2 * same, double(1.5)), double(5.0).log(), "clip_loss of five equal pairs")


@exercise("zero_shot")
def test_zero_shot_of_two_classes(exercises):
    """A class is the direction of the mean of its normalised sentences."""
    features = {"a cat": [5.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.0, 2.0], "the dog": [0.0, 1.0]}
    labels, scores = exercises.zero_shot(
        double([[1.0, 0.5], [0.1, 1.0]]),
        ["cat", "dog"],
        lambda texts: double([features[t] for t in texts]),
        ["a {}", "the {}"],
    )
    lengths = double([[1.25], [1.01]]).sqrt()
    expected = torch.cat([double([[1.5], [1.1]]) / 2**0.5, double([[0.5], [1.0]])], 1) / lengths
    close(scores, expected, "the scores of two images")
    exact(labels, torch.tensor([0, 1]), "the labels of two images")


@exercise("zero_shot")
def test_retrieval_of_three_pairs(exercises):
    """Each image has its own text nearest, but one text has another image."""
    img, txt = (torch.stack([double(a).cos(), double(a).sin()], 1) for a in ([0.0, 1.0, 2.0], [0.1, 1.2, 1.3]))
    # directions in radians: the text at 1.3 belongs to the image at 2.0, but the one at 1.0 is nearer to it
    close(exercises.retrieval_at_k(img, txt, 1), (1.0, 2 / 3), "retrieval_at_k(img, txt, 1)")
    close(exercises.retrieval_at_k(img, txt, 2), (1.0, 1.0), "retrieval_at_k(img, txt, 2)")


@exercise("vector_quantize")
def test_quantize_to_the_nearest_code(exercises):
    """The nearest code is taken, not the one with the largest product."""
    codebook = double([[1.0, 0.0], [5.0, 0.0], [0.0, 1.0]])
    zq, idx = exercises.vector_quantize(double([[1.5, 0.2], [0.1, 0.9]]), codebook)
    exact(idx, torch.tensor([0, 2]), "idx of two vectors")
    close(zq, codebook[[0, 2]], "zq of two vectors")


@driver
def gradient_through(module, z, codebook, weight):
    """The gradient of z from a weighted sum of zq."""
    z = z.clone().requires_grad_(True)
    (module.vector_quantize(z, codebook)[0] * weight).sum().backward()
    return z.grad


@exercise("vector_quantize")
def test_gradients_pass_straight_through(exercises, rng):
    """z gets the gradient of zq as if nothing had been chosen."""
    z, codebook, weight = rng.normal(4, 3), rng.normal(5, 3), rng.normal(4, 3)
    close(exercises.run(gradient_through, z, codebook, weight), weight, "the gradient of z")


@exercise("vector_quantize")
def test_perplexity_and_update(exercises):
    """Three codes used 2, 1 and 1 times count as 2.83; a code moves halfway."""
    idx = torch.tensor([0, 0, 2, 3])
    close(exercises.code_perplexity(idx, 6), 2**1.5, "code_perplexity of 0, 0, 2, 3")
    codebook, z = torch.zeros(2, 1, dtype=DOUBLE), double([[1.0], [3.0], [4.0]])
    got = exercises.ema_update(codebook, z, torch.tensor([1, 1, 1]), 0.25)
    close(got, double([[0.0], [0.75 * 8 / 3]]), "ema_update, decay=0.25, when code 1 is chosen three times")


@exercise("splice_image_tokens")
def test_splice_the_worked_example(exercises):
    """A placeholder gives way to the three rows of its image."""
    table = torch.arange(10, dtype=DOUBLE)[:, None] * double([[1.0, 10.0]])
    image = double([[-1.0, 0], [-2, 0], [-3, 0]])
    embeds, mask, positions = exercises.splice_image_tokens(
        [[5, -200, 7], [2]], [[image], []], -200, lambda t: table[t]
    )
    exact(embeds[0], torch.cat([table[[5]], image, table[[7]]]), "the first sequence")
    exact(embeds[1, 1:], torch.zeros(4, 2, dtype=DOUBLE), "the padding of the second sequence")
    exact(mask.int(), torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0]], dtype=torch.int32), "the mask")
    exact(positions, torch.tensor([[0, 1, 1, 1, 2], [0, -1, -1, -1, -1]]), "the positions")


@exercise("splice_image_tokens")
def test_labels_of_the_worked_example(exercises):
    """No label on the image and in the padding."""
    positions = torch.tensor([[0, 1, 1, 1, 2], [0, -1, -1, -1, -1]])
    got = exercises.splice_labels([[5, -200, 7], [2]], [[-100, 0, 7], [2]], positions, -200)
    exact(got, torch.tensor([[-100] * 4 + [7], [2] + [-100] * 4]), "splice_labels")


@exercise("splice_image_tokens")
def test_projector_maps_the_last_axis(exercises):
    """It gives the width of the language model, whatever stands in front."""
    projector = exercises.Projector(6, 4)
    exact(tuple(projector(torch.zeros(2, 9, 6)).shape), (2, 9, 4), "the shape of Projector(6, 4) of (2, 9, 6)")


@exercise("stft_power")
def test_stft_power_of_a_tone(exercises):
    """A tone of three turns a frame has its power at bin 3."""
    x = torch.sin(2 * math.pi * 3 * torch.arange(64, dtype=DOUBLE) / 16)
    power = exercises.stft_power(x, 16, 8)
    exact(tuple(power.shape), (9, 7), "the shape for 64 samples, n_fft=16, hop=8")
    exact(power.argmax(0), torch.full((7,), 3), "the loudest bin of each frame")


@exercise("stft_power")
def test_mel_triangles_have_their_peaks(exercises):
    """A triangle is 1 at its peak, where its neighbours are 0."""
    sr = 1400 * (10 ** (1500 / 2595) - 1)  # so that sr / 2 is 1500 mel, and the peaks of two triangles at 500 and 1000
    low, high = (700 * (10 ** (mel / 2595) - 1) * 2 * 5000 / sr for mel in (500, 1000))  # as bins, not whole
    fb = exercises.mel_filterbank(2, 10000, sr)
    below, above = math.floor(low), math.ceil(low)
    close(float(fb[0, below]), below / low, "the first triangle just below its peak")
    close(float(fb[0, above]), (high - above) / (high - low), "the first triangle just above its peak")
    close(float(fb[1, above]), (above - low) / (high - low), "the second triangle at the same bin")


@exercise("stft_power")
def test_ten_times_louder_is_two_more(exercises, rng):
    """Power grows with the square, so log10 of it grows by 2."""
    x = rng.normal(900)
    close(exercises.log_mel(10 * x, n_mels=20), exercises.log_mel(x, n_mels=20) + 2, "log_mel(10 x)")


@exercise("tubelets")
def test_tubelets_of_two_frames(exercises):
    """A box holds the same pixels of two frames, one after the other."""
    video = torch.arange(8).reshape(1, 1, 2, 1, 4)
    exact(exercises.tubelets(video, 2, 1), torch.tensor([[[0, 4], [1, 5], [2, 6], [3, 7]]]), "tubelets of 0 to 7")


@exercise("tubelets")
def test_first_and_last_frame_are_kept(exercises):
    """Four of ten frames are three apart, from the first to the last."""
    exact(exercises.subsample_frames(10, 4), [0, 3, 6, 9], "subsample_frames(10, 4)")
    holds(
        exercises.subsample_frames(8, 3) in ([0, 3, 7], [0, 4, 7]), "subsample_frames(8, 3) has 3 or 4 in the middle."
    )


@exercise("tubelets")
def test_halving_the_patch_makes_four_times_as_many(exercises):
    """An image of 224 pixels has 196 patches of 16, and 784 of 8."""
    exact(exercises.token_budget(224, 224, 1, 16, 1), 196, "token_budget with p=16")
    exact(exercises.token_budget(224, 224, 1, 8, 1), 784, "token_budget with p=8")
