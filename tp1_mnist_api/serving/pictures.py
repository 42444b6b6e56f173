"""Bring a photo, a scan or a drawing of one digit into MNIST's form.

MNIST's own recipe (LeCun et al., "Gradient-Based Learning Applied to Document Recognition",
Proc. IEEE 1998, section III.A): white ink on black, scaled into a 20-pixel box, its centre of mass
at the centre of 28x28 pixels. Before that the digit has to be found: frames around it are cut away
(frames.py), its ink is told from the ground (ground.py), its pieces are chosen (pieces.py).
"""

from contextlib import suppress

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from tp1_mnist_api.serving import ground
from tp1_mnist_api.serving.decoding import decode
from tp1_mnist_api.serving.frames import box_of, filled_outside, inside_frames
from tp1_mnist_api.serving.inputs import InputError
from tp1_mnist_api.serving.pieces import Pieces, kept, pieces_of

WORKING_SIDE = 200
BOX = 20
STROKE = (0.09, 0.22)
"""Usual stroke width as a fraction of the digit's longer side; most of MNIST lies inside."""
LITTLE_INK = 0.005
WIDE = 1.5

LITTLE_CONTRAST = 60
"""Distance of two colours, as a length in RGB of 0..255; full contrast is 442."""

UNEVEN = "uneven ground: light, shadow or another surface crosses the picture"
CONTRAST = "little contrast between ink and ground"
SEVERAL = "several separate pieces: send one digit alone"
LITTLE = f"almost no ink: it covers less than {100 * LITTLE_INK} % of the picture"
LYING = "wider than tall: more than one digit, or one that lies on its side"


def read_picture(content: bytes) -> tuple[np.ndarray, list[str]]:
    """The digit in an encoded picture, (1, 784) float32 in 0..1, and warnings.

    The warnings say in words why the picture may not be one clear digit; there are none where
    nothing speaks against it. Raises `InputError`.
    """
    digit, warnings = to_mnist(decode(content))
    return digit.reshape(1, 784).astype(np.float32) / 255, warnings


def to_mnist(picture: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The digit in (height, width, 3) of 0..255 as MNIST's (28, 28) uint8, and warnings.

    Raises `InputError` where there is nothing to see.
    """
    small = _resized(picture, WORKING_SIDE)
    inside, warnings = inside_frames(small), []
    ink, mask, strongest, light = _found(small, inside, None)
    if mask.sum() < LITTLE_INK * mask.size:
        warnings.append(LITTLE)
    if light.is_uneven:
        warnings.append(UNEVEN)
    length = max(part.stop - part.start for part in box_of(mask, 0))
    zoom = min(max(picture.shape) / max(small.shape), WORKING_SIDE / (1.6 * length))
    if zoom > 1.2:  # the picture knows more of it
        closer = _zoomed(picture, inside, box_of(mask, round(0.3 * length)), small.shape)
        with suppress(InputError):  # little is left of it there
            ink, mask, strongest, _ = _found(*closer, light)
    if strongest < LITTLE_CONTRAST:
        warnings.append(CONTRAST)
    if _are_several(pieces_of(mask)):
        warnings.append(SEVERAL)
    box = box_of(mask, 0)
    ink = np.where(mask, ink, 0)[box]
    if ink.shape[1] > WIDE * ink.shape[0]:
        warnings.append(LYING)
    return _centred(_with_usual_stroke(ink)), warnings


def _resized(picture: np.ndarray, side: int) -> np.ndarray:
    """`picture` as float32, its longer side at most `side` pixels."""
    image = Image.fromarray(picture.astype(np.uint8))
    image.thumbnail((side, side), Image.Resampling.BOX)
    return np.asarray(image, np.float32)


def _zoomed(
    picture: np.ndarray, inside: np.ndarray, box: tuple[slice, slice], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The part of `picture` that is `box` in its reduction to `shape`, and the same of `inside`."""
    scales = picture.shape[0] / shape[0], picture.shape[1] / shape[1]
    place = tuple(
        slice(round(part.start * scale), round(part.stop * scale))
        for part, scale in zip(box, scales, strict=True)
    )
    part = _resized(picture[place], WORKING_SIDE)
    mask = Image.fromarray(inside[box]).resize(part.shape[1::-1], Image.Resampling.NEAREST)
    return part, np.asarray(mask)


def _found(
    picture: np.ndarray, inside: np.ndarray, light: ground.Light | None
) -> tuple[np.ndarray, np.ndarray, float, ground.Light]:
    """Ink in 0..1 and mask of the digit, both (height, width); the rest as in `ground.ink_of`."""
    box = box_of(inside, 0)
    found, *more = ground.ink_of(filled_outside(picture, inside)[box], light)
    if not found.any():
        raise InputError("picture: nothing to see, there are no lines", "picture")
    ink, mask = np.zeros(inside.shape), np.zeros(inside.shape, bool)
    ink[box], mask[box] = found, _digit(pieces_of(found > 0), found)
    return ink, mask, *more


def _digit(pieces: Pieces, ink: np.ndarray) -> np.ndarray:
    """The mask of the digit: without specks, and without what lies along the picture's border.

    Pieces above a tenth of the main one stay: a 5 may have its bar apart. One that the border
    cuts stays if it is near the main piece and as strong.
    """
    along = pieces.contacts > 0.4 * pieces.lengths
    largest = int(pieces.sizes.argmax())
    main = int(np.where(along, 0, pieces.sizes).argmax())
    if along[main] or pieces.lengths[main] < 0.25 * pieces.lengths[largest]:
        main = largest
    strength = np.bincount(pieces.labels.ravel(), ink.ravel())[1:] / pieces.sizes
    reach = 0.15 * pieces.lengths[main]
    across = np.maximum(pieces.lefts - pieces.rights[main], pieces.lefts[main] - pieces.rights)
    down = np.maximum(pieces.tops - pieces.bottoms[main], pieces.tops[main] - pieces.bottoms)
    near = np.maximum(across, down) <= reach
    whole = pieces.contacts == 0
    cut = ~along & near & (strength >= 0.5 * strength[main])
    keep = (pieces.sizes >= pieces.sizes[main] / 10) & (whole | cut)
    keep &= strength >= 0.4 * strength[main]
    keep[main] = True
    return kept(pieces, keep)


def _are_several(pieces: Pieces) -> bool:
    """Whether there is a second piece nearly as long as the first, beside it or below it."""
    order = np.argsort(-pieces.sizes)
    for first in order[:1]:
        for other in order[1:]:
            if pieces.lengths[other] < 0.4 * pieces.lengths[first]:
                continue
            across = min(pieces.rights[first], pieces.rights[other]) - max(
                pieces.lefts[first], pieces.lefts[other]
            )
            down = min(pieces.bottoms[first], pieces.bottoms[other]) - max(
                pieces.tops[first], pieces.tops[other]
            )
            beside = across < 0.2 * min(pieces.widths[first], pieces.widths[other])
            below = down < 0.2 * min(pieces.heights[first], pieces.heights[other])
            if beside or (below and pieces.heights[other] > 0.4 * pieces.heights[first]):
                return True
    return False


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
