"""Bring a photo, a scan or a drawing of one digit into MNIST's form.

MNIST's own recipe (LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 1998, section III.A): white ink on black, scaled into a 20-pixel box, its centre of mass
at the centre of 28x28 pixels. Before that the ink has to be found, whatever its colour and paper.
"""

import io
import warnings

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tp1_mnist_api.serving.inputs import InputError

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp")
LIMIT_PIXELS = 16_000_000
WORKING_SIDE = 200
BOX = 20
WEAK, FULL = 0.15, 0.5
"""What counts as no ink and as full ink, as fractions of the darkest."""
STROKE = (0.09, 0.22)
"""Usual stroke width as a fraction of the digit's longer side; most of MNIST lies inside."""


def read_picture(content: bytes) -> np.ndarray:
    """The encoded picture as (1, 784) float32 in 0..1, ready for the model; raises `InputError`."""
    return to_mnist(_decode(content)).reshape(1, 784).astype(np.float32) / 255


def _decode(content: bytes) -> np.ndarray:
    """PNG, JPEG or WebP to (height, width, 3) float32 in 0..255, its longer side at most 200.

    The size is read from the header: a picture above the limit is refused before it takes memory.
    """
    try:
        with warnings.catch_warnings():  # Pillow's limits are higher than ours
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(io.BytesIO(content), formats=("PNG", "JPEG", "WEBP"))
        with opened as picture:
            if picture.width * picture.height > LIMIT_PIXELS:
                raise InputError(
                    f"picture: {picture.width}x{picture.height} pixels are more than "
                    f"{LIMIT_PIXELS // 1_000_000} million",
                    "picture",
                )
            picture.draft("RGB", (2 * WORKING_SIDE, 2 * WORKING_SIDE))  # JPEG: decode it smaller
            small = _shrunk(picture)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        limit = f"{LIMIT_PIXELS // 1_000_000} million"
        raise InputError(f"picture: its pixels are more than {limit}", "picture") from error
    except Exception as error:  # decoders of broken files raise nearly anything
        raise InputError("picture: not a readable PNG, JPEG or WebP file", "picture") from error
    pixels = np.asarray(small, np.float32)
    colour, alpha = pixels[..., :3], pixels[..., 3:] / 255
    # Ink on transparent ground: put dark ink on white and light ink on black.
    ink_is_light = (colour * alpha).sum() > 0.5 * 255 * 3 * alpha.sum()
    ground = 0 if alpha.min() < 1 and ink_is_light else 255
    return colour * alpha + ground * (1 - alpha)


def _shrunk(picture: Image.Image) -> Image.Image:
    """`picture` upright in RGBA, its longer side at most 200 pixels."""
    if picture.mode.startswith("I"):  # 16 bits: Pillow would clip these, not scale them
        picture = Image.fromarray((np.asarray(picture) // 256).clip(0, 255).astype(np.uint8))
    elif picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("RGBA")
    picture.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    return ImageOps.exif_transpose(picture).convert("RGBA")


def to_mnist(picture: np.ndarray) -> np.ndarray:
    """One digit on a plain ground, (height, width, 3) in 0..255, as MNIST's (28, 28) uint8.

    Raises `InputError` where there is nothing to see.
    """
    ink = _stretched(*_ink(picture))
    mask = _digit(ink > 0)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    ink = np.where(mask, ink, 0)[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return _centred(_with_usual_stroke(ink))


def _ink(picture: np.ndarray) -> tuple[np.ndarray, float]:
    """How far each pixel's colour is from the ground's, (height, width) in 0..1, and the same of
    the ground's own noise.

    The ground is a plane fitted to the border, so that neither colour, polarity nor light that
    falls from one side matter.
    """
    height, width, _ = picture.shape
    if min(height, width) < 8:
        raise InputError(f"picture: {width}x{height} pixels are too few, 8x8 are needed", "picture")
    down, right = np.mgrid[0:height, 0:width]
    plane = np.stack([down / height, right / width, np.ones_like(down, float)], axis=-1)
    edge = np.ones((height, width), bool)
    frame = max(1, min(height, width) // 20)
    edge[frame:-frame, frame:-frame] = False
    colours = picture[edge]
    # Ink that touches the border must not tilt the plane: keep the pixels near the median colour.
    distance = np.abs(colours - np.median(colours, axis=0)).sum(axis=1)
    kept = distance <= max(np.median(distance) * 3, 12)
    coefficients, *_ = np.linalg.lstsq(plane[edge][kept], colours[kept], rcond=None)
    distance = np.linalg.norm(picture - plane @ coefficients, axis=-1)
    strongest = np.percentile(distance, 99.5)
    if strongest < 25:
        raise InputError("picture: nothing to see, all pixels are nearly the same", "picture")
    noise = np.percentile(distance[edge], 99)  # grain, and lines that run out of the picture
    return np.clip(distance / strongest, 0, 1), float(noise / strongest)


def _stretched(ink: np.ndarray, noise: float) -> np.ndarray:
    """`ink` with the ground at 0 and faint lines, as of a thin pen, made stronger."""
    strong = _otsu(ink)
    weak = min(max(WEAK, 1.3 * noise), 0.9 * strong)
    return np.clip((ink - weak) / (max(strong, FULL) - weak), 0, 1)


def _otsu(ink: np.ndarray) -> float:
    """Threshold that splits values in 0..1 into two groups of least spread (Otsu 1979)."""
    counts, edges = np.histogram(ink, 64, (0, 1))
    middle = (edges[:-1] + edges[1:]) / 2
    below, weight = np.cumsum(counts), np.cumsum(counts * middle)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (weight / below - (weight[-1] - weight) / above) ** 2
    return float(edges[1 + np.nanargmax(between)])


def _digit(mask: np.ndarray) -> np.ndarray:
    """`mask` without specks, and without what the picture's border cuts unless it is the largest.

    Pieces above a tenth of the largest stay: a 5 may have its bar apart.
    """
    pieces = _pieces(mask)
    labels, sizes = np.unique(pieces[mask], return_counts=True)
    border = np.concatenate([pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]])
    keep = (sizes >= sizes.max() / 10) & (~np.isin(labels, border) | (sizes == sizes.max()))
    return np.isin(pieces, labels[keep])


def _pieces(mask: np.ndarray) -> np.ndarray:
    """Connected pieces of `mask` (8 neighbours): equal positive integers inside one, 0 outside."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        # Each pixel takes its neighbourhood's largest number until nothing changes.
        spread = np.where(mask, _largest_of_neighbours(labels), 0)
        spread = np.where(mask, np.maximum(spread, spread.ravel()[spread - 1]), 0)  # a shortcut
        if np.array_equal(spread, labels):
            return labels
        labels = spread


def _largest_of_neighbours(values: np.ndarray) -> np.ndarray:
    padded = np.pad(values, 1)
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _with_usual_stroke(ink: np.ndarray) -> np.ndarray:
    """`ink` enlarged or reduced to 80 pixels, strokes thickened or thinned to MNIST's range."""
    side = 4 * BOX
    scale = side / max(ink.shape)
    size = (max(1, round(ink.shape[1] * scale)), max(1, round(ink.shape[0] * scale)))
    picture = Image.fromarray((ink * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    picture = ImageOps.expand(picture, side // 5)
    # Area over half the length of the outline is the width of a long stroke.
    mask = np.asarray(picture) > 127
    outline = mask & ~(np.asarray(picture.filter(ImageFilter.MinFilter(3))) > 127)
    width = 2 * mask.sum() / max(1, outline.sum())
    lowest, highest = (fraction * side for fraction in STROKE)
    if width < lowest:
        picture = picture.filter(ImageFilter.MaxFilter(1 + 2 * round((lowest - width) / 2)))
    elif width > highest:
        picture = picture.filter(ImageFilter.MinFilter(1 + 2 * round((width - highest) / 2)))
    return np.asarray(picture, np.float32)


def _centred(ink: np.ndarray) -> np.ndarray:
    """`ink` in a 20-pixel box, its centre of mass in the middle of (28, 28) uint8."""
    picture = Image.fromarray(ink.astype(np.uint8))
    picture = picture.crop(picture.getbbox() or (0, 0, 1, 1))
    scale = BOX / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    digit = np.asarray(picture.resize(size, Image.Resampling.BOX), np.float32)
    digit *= 255 / max(digit.max(), 1)
    total = digit.sum()
    row = (digit.sum(axis=1) @ np.arange(digit.shape[0])) / total
    column = (digit.sum(axis=0) @ np.arange(digit.shape[1])) / total
    top = int(np.clip(round(13.5 - row), 0, 28 - digit.shape[0]))
    left = int(np.clip(round(13.5 - column), 0, 28 - digit.shape[1]))
    canvas = np.zeros((28, 28), np.uint8)
    canvas[top : top + digit.shape[0], left : left + digit.shape[1]] = digit.round()
    return canvas
