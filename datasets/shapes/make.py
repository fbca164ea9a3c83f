"""Pictures, captions, sounds and films that the course draws itself, so that what they show is known exactly.

`python datasets/shapes/make.py` rewrites the files that card.toml lists, bit for bit, and fails if a digest disagrees.
Every function depends on its arguments alone; a larger n with the same seed begins with the same items.

    digits(seed, n)   8x8 grey pictures of the digits 0 to 9, drawn as strokes with a shaky hand
    scenes(seed, n)   16x16 colour pictures of one shape each, with a caption: "a small red circle at the top left"
    tones(seed, n)    sounds of one steady or gliding tone each
    clips(seed, n)    films of a bright square that moves

Floating numbers are never summed over an axis, and values are rounded to a few levels: every machine draws the same.
"""

import hashlib
import struct
import tomllib
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent

GLYPHS = (
    # each digit is one line through points (x, y) of a grid that is 6 wide and 8 high; y grows downwards
    ((3, 0), (5, 1), (6, 4), (5, 7), (3, 8), (1, 7), (0, 4), (1, 1), (3, 0)),
    ((1, 2), (3, 0), (3, 8)),
    ((0, 2), (1, 0), (4, 0), (6, 2), (5, 4), (0, 8), (6, 8)),
    ((0, 1), (3, 0), (5, 1), (5, 3), (2, 4), (6, 5), (6, 7), (3, 8), (0, 7)),
    ((4, 8), (4, 0), (0, 5), (6, 5)),
    ((6, 0), (1, 0), (0, 4), (4, 3), (6, 5), (5, 8), (0, 8)),
    ((5, 0), (2, 1), (0, 5), (1, 8), (5, 8), (6, 6), (4, 4), (0, 5)),
    ((0, 0), (6, 0), (2, 8)),
    ((3, 4), (0, 2), (2, 0), (4, 0), (6, 2), (0, 6), (2, 8), (4, 8), (6, 6), (3, 4)),
    ((6, 3), (2, 4), (0, 2), (2, 0), (5, 0), (6, 3), (4, 8)),
)
POINTS = max(len(glyph) for glyph in GLYPHS)

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square", "triangle", "cross")
PLACES = ("top left", "top right", "bottom left", "bottom right", "centre")
LITTLE = ("a", "an", "the", "at", "in", "of", "picture", "top", "bottom", "left", "right", "centre")
WORDS = ("<pad>", *LITTLE, *SIZES, *COLOURS, *SHAPES)
"""Every word of a caption or a prompt; its place is its id."""

DIRECTIONS = ("right", "down", "left", "up")


def stream(seed: int, purpose: int) -> np.random.RandomState:
    """A stream for each seed and purpose. RandomState is frozen: no release of numpy changes what it draws."""
    return np.random.RandomState([purpose, seed % 2**32, seed // 2**32])


def choose(u: np.ndarray, size: int) -> np.ndarray:
    """Turn uniform numbers into whole numbers from 0 to size - 1."""
    return (u * size).astype(np.int64)


def digits(seed: int, n: int, noise: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits as a shaky hand would: images (n, 8, 8) in [0, 1], whole sixteenths, and their labels (n,), int64.

    Each has a slant, a width, a height, a place, a thickness and a shade of its own; each point of its line is moved.
    `noise` is the largest change of a pixel afterwards. All ten digits are equally likely.
    """
    u = stream(seed, 0).random_sample((n, 7 + 2 * POINTS + 2 * 64))  # one row of uniform numbers an image
    labels = choose(u[:, 0], 10)
    padded = np.array([glyph + glyph[-1:] * (POINTS - len(glyph)) for glyph in GLYPHS], dtype=np.float64)
    points = padded[labels] - (3, 4)  # (n, POINTS, 2), around the origin
    points += 1.2 * (u[:, 7 : 7 + 2 * POINTS].reshape(n, POINTS, 2) - 0.5)
    width, height, slant, right, down, pen = (u[:, k, None] for k in range(1, 7))
    y = points[..., 1] * (0.62 + 0.2 * height) + (down - 0.5)  # in pixels, from the middle of the canvas
    x = points[..., 0] * (0.5 + 0.35 * width) - y * (0.5 * slant - 0.1) + 1.2 * (right - 0.5)
    row, column = (np.arange(64) // 8 - 3.5)[:, None], (np.arange(64) % 8 - 3.5)[:, None]
    ax, ay = x[:, None, :-1], y[:, None, :-1]  # (n, 1, POINTS - 1), where each stroke starts
    dx, dy = np.diff(x)[:, None], np.diff(y)[:, None]
    length = dx * dx + dy * dy
    along = ((column - ax) * dx + (row - ay) * dy) / np.maximum(length, 1e-9)  # where on the stroke a pixel is nearest
    along = along.clip(0.0, 1.0)
    gap_x, gap_y = column - ax - along * dx, row - ay - along * dy
    distance = np.sqrt(gap_x * gap_x + gap_y * gap_y).min(axis=2)  # (n, 64) to the nearest stroke
    ink = (1.1 + 0.4 * pen - distance).clip(0.0, 1.0)
    grain = u[:, 7 + 2 * POINTS :].reshape(n, 2, 64)
    ink = (ink * (0.8 + 0.2 * grain[:, 0, :1]) + noise * (grain[:, 0] + grain[:, 1] - 1)).clip(0.0, 1.0)
    return (np.rint(16 * ink) / 16).reshape(n, 8, 8), labels


def caption(size: int, colour: int, shape: int, place: int) -> str:
    """Put the four attributes of a scene into words."""
    at = "in the" if PLACES[place] == "centre" else "at the"
    return f"a {SIZES[size]} {COLOURS[colour]} {SHAPES[shape]} {at} {PLACES[place]}"


def scenes(seed: int, n: int, without: Sequence[tuple[str, str]] = ()) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Draw captioned scenes: images (n, 3, 16, 16) in [0, 1], n captions, and the attributes (n, 4), int64.

    The attributes are the places in SIZES, COLOURS, SHAPES and PLACES. `without` names pairs (colour, shape) that never
    occur, such as ("red", "circle"); all other combinations are equally likely. Channels are red, green, blue.
    """
    u = stream(seed, 1).random_sample((n, 6 + 3 + 3 * 256))  # one row of uniform numbers an image
    pairs = [(c, s) for c in range(4) for s in range(4) if (COLOURS[c], SHAPES[s]) not in set(without)]
    pair = np.array(pairs)[choose(u[:, 1], len(pairs))]  # (n, 2)
    attributes = np.stack([choose(u[:, 0], 2), *pair.T, choose(u[:, 2], 5)], axis=1)
    size, colour, shape, place = attributes.T[..., None, None]  # each (n, 1, 1)
    # Geometry in whole numbers: a pixel is 16 units wide, and 4 x 4 points of it are looked at.
    middle = np.array([(72, 72), (184, 72), (72, 184), (184, 184), (128, 128)])[place[:, 0, 0]]  # (n, 2), x and y
    middle = middle + choose(u[:, 3:5], 17) - 8
    radius = np.array([38, 60])[size] + choose(u[:, 5, None, None], 11)
    grid = np.arange(64) * 4 + 2
    x, y = grid - middle[:, 0, None, None], grid[:, None] - middle[:, 1, None, None]  # (n, 1, 64) and (n, 64, 1)
    inside = (
        x * x + y * y <= radius * radius,
        10 * np.maximum(abs(x), abs(y)) <= 9 * radius,
        (abs(y) <= radius) & (2 * abs(x) <= y + radius),
        (np.minimum(abs(x), abs(y)) * 10 <= 3 * radius) & (np.maximum(abs(x), abs(y)) <= radius),
    )
    mask = np.choose(shape, inside).reshape(n, 16, 4, 16, 4).sum(axis=(2, 4))  # (n, 16, 16), 0 to 16
    paint = np.array([(15, 2, 2), (2, 13, 3), (3, 4, 15), (14, 13, 2)])[colour[:, 0, 0]]  # (n, 3), sixteenths
    paint = paint + choose(u[:, 6:9], 3) - 1
    ground = 1 + choose(u[:, 9:], 3).reshape(n, 3, 16, 16)  # a dark, grainy background, sixteenths
    picture = ground * (16 - mask[:, None]) + paint[:, :, None, None] * mask[:, None]
    return picture / 256, [caption(*row) for row in attributes.tolist()], attributes


def tokens(texts: Sequence[str], length: int = 12) -> np.ndarray:
    """Turn texts into ids of WORDS, (len(texts), length) int64, with 0 behind the last; an unknown word is an error."""
    ids = np.zeros((len(texts), length), dtype=np.int64)
    for row, text in enumerate(texts):
        words = text.split()
        ids[row, : len(words)] = [WORDS.index(word) for word in words]
    return ids


def tones(seed: int, n: int, sr: int = 8000, samples: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Draw sounds (n, samples) in [-1, 1] of one tone each, with the frequencies (n, 2) in Hz where it starts and ends.

    Half of the tones are steady, half glide evenly. Frequencies lie between sr / 40 and sr / 4. Values are rounded to
    16 bits, as in a file.
    """
    u = stream(seed, 2).random_sample((n, 5))
    frequencies = sr * (1 / 40 + u[:, :2] * (1 / 4 - 1 / 40))
    frequencies[:, 1] = np.where(u[:, 2] < 0.5, frequencies[:, 0], frequencies[:, 1])
    t = np.arange(samples) / sr
    first, last = frequencies[:, :1], frequencies[:, 1:]
    turns = first * t + (last - first) * t * t * sr / (2 * samples) + u[:, 3:4]  # the integral of the frequency
    sound = (0.3 + 0.6 * u[:, 4:]) * np.sin(2 * np.pi * (turns % 1.0))
    return np.rint(sound * 32767) / 32768, frequencies


def clips(seed: int, n: int, frames: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Draw films (n, 1, frames, 16, 16) of a 4x4 square that moves a pixel a frame, and its directions (n,), int64.

    A direction is a place in DIRECTIONS. The square is 1, the rest is 0; what leaves the canvas comes in opposite.
    """
    u = stream(seed, 3).random_sample((n, 3))
    direction = choose(u[:, 0], 4)
    step = np.array([(0, 1), (1, 0), (0, -1), (-1, 0)])[direction]  # (n, 2), rows and columns
    corner = choose(u[:, 1:], 16)[:, None] + np.arange(frames)[:, None] * step[:, None]  # (n, frames, 2)
    near = (np.arange(16) - corner[..., None]) % 16 < 4  # (n, frames, 2, 16)
    film = near[:, :, 0, :, None] & near[:, :, 1, None, :]
    return film[:, None].astype(np.float64), direction


def png(image: np.ndarray) -> bytes:
    """Write whole numbers 0 to 255, (height, width, 3), as an uncompressed PNG file: the same on every machine."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1)), image.reshape(height, -1)], axis=1).astype(np.uint8).tobytes()
    blocks = [rows[at : at + 65535] for at in range(0, len(rows), 65535)]
    body = b"\x78\x01"
    for number, block in enumerate(blocks, start=1):
        body += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
    body += struct.pack(">I", zlib.adler32(rows))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def sheet(images: np.ndarray, columns: int) -> bytes:
    """Lay images (n, 3, H, W) out in rows of `columns`, as a PNG file."""
    n, _, H, W = images.shape
    picture = images.reshape(n // columns, columns, 3, H, W).transpose(0, 3, 1, 4, 2)
    return png(np.rint(255 * picture).reshape(n // columns * H, columns * W, 3))


def contents(name: str, seed: int, number: int) -> bytes:
    """The contents of a data file."""
    if name == "digits.png":  # sorted, so that the digits of a kind stand together
        images, labels = digits(seed, number)
        return sheet(np.repeat(images[np.argsort(labels, kind="stable"), None], 3, axis=1), columns=20)
    images, captions, _ = scenes(seed, number)
    return sheet(images, columns=10) if name == "scenes.png" else "".join(f"{text}\n" for text in captions).encode()


def main() -> None:
    """Rewrite every file of the card from the parameters that the card gives."""
    card = tomllib.loads((HERE / "card.toml").read_text(encoding="utf-8"))
    for file in card["files"]:
        data = contents(file["name"], file["seed"], file["number"])
        (HERE / file["name"]).write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        if (len(data), digest) != (file["bytes"], file["sha256"]):
            raise SystemExit(f"{file['name']}: the card says otherwise; this is {len(data)} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
