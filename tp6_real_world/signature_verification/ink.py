"""From a picture of a signature to what the network compares: ink on an empty, fixed canvas.

Scans of genuine and forged signatures differ in paper, margins and pen; a network would learn that
and call it handwriting. So every picture goes through the same steps, at its full resolution: the
paper's brightness is divided out, Otsu's threshold makes ink and paper, specks are dropped, and
what is left is cropped, scaled and centred.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

import labkit

ndimage = labkit.lazy("scipy.ndimage")

HEIGHT, WIDTH = 64, 128
"""Of the canvas, in pixels."""
MARGIN = 4
"""Empty pixels on each side at least, so that a convolution sees where the ink ends."""
INKED = 72
"""Of 255, from which a scaled pixel is ink: half-inked ones would tell by how much a picture was
scaled down, and thereby its size on paper."""
SPECK = 0.002
"""Connected ink below this share of all ink is dust."""
LEAST_CONTRAST = 0.15
"""Between the mean of ink and of paper, of 0..1: a blank page's noise has less."""
TOUCHING = np.ones((3, 3))
"""Pixels that touch at a corner belong together."""
EDGE, STRAIGHT, LONG = 0.03, 0.02, 0.35
"""The edge of a scanned sheet is a line within the outermost 3 % of a picture, less than 2 % of its
size wide and more than 35 % long. Strokes of a pen that long lean further."""
MOST_INK = 0.4
"""Share of a picture that a signature can cover."""
MOST_LINES, MOST_PARTS = 3, 40
"""Of a signature; a page of text has more of both."""


class NoSignatureError(ValueError):
    """A picture holds no signature; the message says what is there instead."""


def otsu(grey: np.ndarray) -> float:
    """The threshold that separates dark from bright best (Otsu, IEEE Trans. SMC 1979).

    `grey` holds values in 0..1; the returned one maximises the variance between the two classes,
    equation 18, over 256 steps.
    """
    counts, edges = np.histogram(grey, bins=256, range=(0, 1))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)  # pixels at or under each step
    above = below[-1] - below
    sums = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    best = np.flatnonzero(between == np.nanmax(between))
    return float(edges[1:][best].mean())  # a gap of equal steps: its middle


def flatten_paper(grey: np.ndarray) -> np.ndarray:
    """`grey` (h, w) in 0..1 over the paper's brightness nearby: shadows and tints are gone.

    The paper is the brightest of a neighbourhood of a twelfth of the longer side, smoothed.
    """
    reach = max(3, max(grey.shape) // 12)
    small = grey[:: max(1, reach // 8), :: max(1, reach // 8)]
    step = max(1, reach // 8)
    paper = ndimage.maximum_filter(small, size=max(3, reach // step))
    paper = ndimage.gaussian_filter(paper, max(1.0, reach / step / 2))
    paper = np.asarray(
        Image.fromarray(paper.astype(np.float32)).resize(
            grey.shape[::-1], Image.Resampling.BILINEAR
        )
    )
    return np.clip(grey / np.maximum(paper, 1e-3), 0, 1)


def find_ink(grey: np.ndarray) -> np.ndarray:
    """Where the pen was: (h, w) bool of a picture (h, w) uint8, dark on bright.

    Raises `NoSignatureError` for a picture without contrast.
    """
    flat = flatten_paper(grey.astype(np.float32) / 255)
    ink = flat <= otsu(flat) if np.ptp(flat) > LEAST_CONTRAST else np.zeros(flat.shape, bool)
    if not ink.any() or flat[~ink].mean() - flat[ink].mean() < LEAST_CONTRAST:
        raise NoSignatureError("it is blank: no ink stands out from the paper")
    ink = without_scan_edges(ink)
    parts, count = ndimage.label(ink, structure=TOUCHING)
    sizes = ndimage.sum_labels(ink, parts, np.arange(1, count + 1))
    kept = np.flatnonzero(sizes >= SPECK * ink.sum()) + 1
    ink = np.isin(parts, kept)
    if (share := float(ink.mean())) > MOST_INK:
        raise NoSignatureError(
            f"{100 * share:.0f} % of it is dark, more than {100 * MOST_INK:.0f} %: it is no "
            "signature on bright paper"
        )
    if (lines := lines_of(ink)) > MOST_LINES and len(kept) > MOST_PARTS:
        raise NoSignatureError(
            f"it has {len(kept)} separate strokes in {lines} lines, more than {MOST_PARTS} in "
            f"{MOST_LINES}: it looks like a page of text; cut the signature out"
        )
    return ink


def without_scan_edges(ink: np.ndarray) -> np.ndarray:
    """`ink` (h, w) bool without straight lines along the picture's edges, (h, w) bool.

    In CEDAR forged scans have such lines oftener than genuine ones: left in, they tell on them.
    """
    ink = ink.copy()
    for turned in (ink, ink.T):  # lines down the left and right edge, then along top and bottom
        length, width = turned.shape
        reach, thin = max(3, round(EDGE * width)), max(2, round(STRAIGHT * width))
        for band in (turned[:, :reach], turned[:, -reach:]):
            parts, _ = ndimage.label(band, structure=TOUCHING)
            for index, (along, across) in enumerate(ndimage.find_objects(parts), start=1):
                is_long = along.stop - along.start > LONG * length
                if is_long and across.stop - across.start <= thin:
                    band[parts == index] = False
    return ink


def lines_of(ink: np.ndarray) -> int:
    """Lines of writing in `ink` (h, w) bool: bands of rows with ink, with empty rows between."""
    filled = ink.any(axis=1)
    return int(filled[0]) + int(np.count_nonzero(filled[1:] & ~filled[:-1]))


def place(ink: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """The ink, (h, w) bool, cropped, scaled to fit and centred, (height, width) uint8, 0 or 255.

    The aspect ratio stays; the size on paper does not, since forgers draw larger.
    """
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cropped = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min((height - 2 * MARGIN) / cropped.shape[0], (width - 2 * MARGIN) / cropped.shape[1])
    size = [max(1, round(scale * side)) for side in cropped.shape]
    picture = Image.fromarray(np.where(cropped, 255, 0).astype(np.uint8))
    scaled = np.asarray(
        picture.resize(size[::-1], Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    )
    canvas = np.zeros((height, width), np.uint8)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    canvas[top : top + size[0], left : left + size[1]] = np.where(scaled >= INKED, 255, 0)
    return canvas


def prepare(grey: np.ndarray) -> np.ndarray:
    """A picture (h, w) uint8 as the network sees it, (64, 128) uint8, 255 = ink.

    Raises `NoSignatureError` saying what is wrong with the picture.
    """
    return place(find_ink(grey))
